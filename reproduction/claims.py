"""The claims at the head of README.md: what was seen of each, and its verdict, from the results.

claims.toml says which primary tests a claim is called by; the words are the tests' own.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rewarm.records.comparison import ComparisonResult, PairedEffect
from rewarm.reporting.effects import written

__all__ = ["CLAIMS", "claims_table"]

CLAIMS = Path(__file__).resolve().parent / "claims.toml"
_PLACE = re.compile(r"\{([^{}]+)\}")
_NOT_RUN = "not run"


def claims_table(path: Path, results: Sequence[ComparisonResult]) -> str:
    """Return a row per claim, in Markdown: who claims it, what was seen, and the verdict.

    Raises ValueError for a test that its experiment does not have.
    """
    by_name = {result.name: result for result in results}
    rows = ["| of | claim | what was seen (bits per byte) | verdict |", "|---|---|---|---|"]
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["claims"]:
        verdict = _verdict([_test(by_name, named) for named in entry["tests"]])
        seen = _PLACE.sub(lambda place: _difference(by_name, place[1]), entry["seen"])
        names = dict.fromkeys(named.split()[0] for named in entry["tests"])
        links = ", ".join(f"[{name}](#{name})" if name in by_name else name for name in names)
        seen = "" if verdict == _NOT_RUN else f"{seen[0].upper()}{seen[1:]}"
        rows.append(f"| {entry['of']} | {entry['claim']} | {seen} ({links}) | **{verdict}** |")
    return "\n".join(rows) + "\n"


def _test(by_name: Mapping[str, ComparisonResult], named: str) -> PairedEffect | None:
    """Return a primary test; None where its experiment has no result."""
    name, arm, against, metric = named.split()
    if name not in by_name:
        return None
    found = list(_effects(by_name[name].primary, arm, against, metric))
    if not found:
        raise ValueError(f"claims.toml: {name!r} has no primary test {arm} - {against}, {metric}")
    return found[0]


def _effects(
    effects: Sequence[PairedEffect], arm: str, against: str, metric: str
) -> Iterator[PairedEffect]:
    for effect in effects:
        if (effect.arm, effect.against, effect.metric) == (arm, against, metric):
            yield effect


def _verdict(tests: Sequence[PairedEffect | None]) -> str:
    """Return the word of all tests, or how many came to which."""
    words = [_NOT_RUN if test is None else test.word for test in tests]
    if len(set(words)) == 1:
        return words[0]
    return ", ".join(f"{number} of {len(words)} {word}" for word, number in Counter(words).items())


def _difference(by_name: Mapping[str, ComparisonResult], place: str) -> str:
    """Return a mean difference with its direction in words."""
    is_share = place.endswith(" %")
    named = place.removesuffix(" %")
    effect = _test(by_name, named)
    if effect is None or effect.mean is None:
        return _NOT_RUN
    direction = "lower" if effect.mean < 0 else "higher"
    if not is_share:
        return f"{written(abs(effect.mean), effect.unit)} {direction}"
    runs = by_name[named.split()[0]].runs_of(effect.against)
    values = [run.values[effect.metric] for run in runs if run.seed in effect.seeds]
    return f"{abs(effect.mean) / abs(sum(values) / len(values)):.0%} {direction}".replace("%", " %")
