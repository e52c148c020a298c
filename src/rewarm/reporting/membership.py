"""A run's part in the comparison that it belongs to, as its own report tells it."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote

from rewarm.records.comparison import Membership
from rewarm.reporting.effects import mood_of_effect, verdict_statement
from rewarm.reporting.tables import Mood
from rewarm.reporting.wording import Statement

__all__ = ["Found", "Part", "comparison_of"]


class Found(NamedTuple):
    """What came of one primary test that the arm takes part in."""

    mood: Mood
    word: str
    text: str


class Part(NamedTuple):
    """What a run is in a comparison; `link` is empty where a page cannot lead there."""

    name: str
    hypothesis: str
    link: str
    line: str
    verdict: Statement | None
    found: list[Found]


def comparison_of(member: Membership, *, link: str | None) -> Part:
    """Return what the section shows; `link` is the way to the comparison where it is shown live."""
    kinds = {
        "control": "its control",
        "noise floor": "the control's copy, with its data in another order",
        "arm": f"held against {member.control}",
    }
    about = f": {member.description}" if member.description else ""
    return Part(
        name=member.name,
        hypothesis=member.hypothesis,
        link=quote(member.page) if link is None else link,
        line=f"{member.arm}, {kinds[member.kind]}, with seed {member.seed}{about}",
        verdict=verdict_statement(member.verdict) if member.verdict else None,
        found=[Found(mood_of_effect(e), e.word, f"{e.sentence}.") for e in member.effects],
    )
