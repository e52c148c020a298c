"""Which preset fits what is declared, and why the others do not.

The rules stand in one table, which `docs/recipes/README.md` shows too; the first that holds
decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rewarm.recipe.presets import PRESETS, Declared
from rewarm.units import format_count

__all__ = ["RULES", "Advice", "Rule", "Situation", "advise"]

_PLENTY = 4
"""New text of so many times the budget is more than the budget can show."""


@dataclass(frozen=True, slots=True)
class Advice:
    """A preset's name, the reasons for it, and by name why others were passed over."""

    preset: str
    reasons: tuple[str, ...]
    others: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Situation:
    """What the rules look at; None and False where it is not known."""

    declared: Declared
    budget_tokens: int | None = None
    new_tokens: int | None = None
    """Tokens of all new text."""
    more_to_come: bool = False
    """Whether further data sets will follow."""

    @property
    def peak_known(self) -> bool:
        """Whether the pretraining's peak rate is known."""
        return self.declared.peak_lr is not None

    @property
    def final_known(self) -> bool:
        """Whether there is a final rate to go on from."""
        return bool(self.declared.final_lr)

    @property
    def is_strong(self) -> bool:
        """Whether the shift is said to be strong."""
        return self.declared.shift == "strong"

    @property
    def is_plenty(self) -> bool:
        """Whether there is far more new text than the budget shows."""
        if not self.budget_tokens or not self.new_tokens:
            return False
        return "new" in self.declared.roles and self.new_tokens >= _PLENTY * self.budget_tokens


@dataclass(frozen=True, slots=True)
class Rule:
    """`preset` is advised where this holds and no rule before it does."""

    when: str
    """What a person has, in words."""
    preset: str
    because: str
    holds: Callable[[Situation], bool]
    details: Callable[[Situation], Iterator[str]] = lambda situation: iter(())
    """What else speaks for it in a situation, or has to be known."""


def advise(
    declared: Declared,
    *,
    budget_tokens: int | None = None,
    new_tokens: int | None = None,
    more_to_come: bool = False,
) -> Advice:
    """Return the preset to begin with: that of the first rule that holds."""
    situation = Situation(declared, budget_tokens, new_tokens, more_to_come)
    rule = next(rule for rule in RULES if rule.holds(situation))
    others = (
        (name, _WHY_NOT[name](situation, rule))
        for name, preset in PRESETS.items()
        if not preset.is_control and name != rule.preset
    )
    return Advice(rule.preset, (rule.because, *rule.details(situation)), tuple(others))


def _replay(situation: Situation) -> Iterator[str]:
    if situation.declared.has_old:
        share = "5 %" if situation.declared.shift == "weak" else "25 %"
        yield f"{share} of every batch replays old text"
    else:
        yield "there is no old text to replay: expect forgetting"


def _plenty(situation: Situation) -> Iterator[str]:
    assert situation.new_tokens
    assert situation.budget_tokens
    yield (
        f"the new text is {situation.new_tokens / situation.budget_tokens:.3g} times the budget: "
        "where you can, select the best of it first, which is most of the gain"
    )


def _from_final(situation: Situation) -> Iterator[str]:
    shift = situation.declared.shift
    if shift == "strong":
        yield "a strong shift asks for a higher rate, but the pretraining's peak is not known"
    elif shift is None:
        yield 'the shift is not declared: say shift = "strong" where the text is far off'
    else:
        yield "a weak shift asks for no higher rate"
    yield from _two_blends(situation)


def _two_blends(situation: Situation) -> Iterator[str]:
    if "qa" in situation.declared.roles:
        yield "questions and answers come in once the rate has fallen to a fifth"


RULES: tuple[Rule, ...] = (
    Rule(
        "further data sets will follow; the peak rate is known",
        "infinite",
        "a rate that does not depend on the horizon is extended by each further data set, without "
        "re-warming",
        lambda s: s.more_to_come and s.peak_known,
        _replay,
    ),
    Rule(
        f"strong shift, old text, and new text of at least {_PLENTY} times the budget",
        "stability-gap",
        "several passes over a part of the new text, mixed as the pretraining was, beat one pass "
        "over as much at random",
        lambda s: s.is_strong and s.declared.has_old and s.is_plenty,
        _plenty,
    ),
    Rule(
        "strong shift; the peak rate is known",
        "rewarm",
        "strong shift: the rate has to be high again for a while to adapt",
        lambda s: s.is_strong and s.peak_known,
        _replay,
    ),
    Rule(
        "the final rate is known and above 0",
        "reuse",
        "going on from the rate at which the pretraining ended changes nothing abruptly",
        lambda s: s.final_known,
        _from_final,
    ),
    Rule(
        "the final rate is 0; the peak rate is known",
        "rewarm",
        "the pretraining decayed to nothing: only a rate that rises again learns",
        lambda s: s.peak_known and s.declared.final_lr == 0,
        _replay,
    ),
    Rule(
        "of the rates only the peak is known",
        "reuse",
        "a tenth of the peak is assumed for the final rate, which is not known (`rewarm tune --lr` "
        "measures instead of assuming)",
        lambda s: s.peak_known,
        _two_blends,
    ),
    Rule(
        "nothing is known of the rates",
        "reuse",
        "the pretraining's rates are not known: give schedule.peak_lr a number (`rewarm tune --lr` "
        "finds one)",
        lambda s: True,
        _two_blends,
    ),
)
"""In the order in which they are asked; the last one always holds."""


def _not_infinite(situation: Situation, rule: Rule) -> str:
    if situation.more_to_come:
        return "it needs the pretraining's peak rate, which is not known"
    return "its constant stretch pays where further data sets will follow, and none are declared"


def _not_gap(situation: Situation, rule: Rule) -> str:
    if rule.preset == "infinite":
        return "its cosine ends with this data set, and further ones will follow"
    shift = situation.declared.shift
    if shift != "strong":
        return "it is for a strong shift, and " + ("this one is weak" if shift else "none is said")
    if not situation.declared.has_old:
        return "it mixes new text into old, and there is no old text"
    budget, new = situation.budget_tokens, situation.new_tokens
    if not budget or not new:
        return f"it is for new text of {_PLENTY} times the budget, and how much there is, is open"
    # Rounded down: just short of four times is not four times.
    return (
        f"it is for new text of {_PLENTY} times the budget, and {format_count(new)} tokens are "
        f"{math.floor(100 * new / budget) / 100:g} times {format_count(budget)}"
    )


def _not_rewarm(situation: Situation, rule: Rule) -> str:
    if rule.preset == "infinite":
        return "its cosine ends with this data set: every further one would be re-warmed again"
    if rule.preset == "stability-gap":
        return "it takes one pass over a random part of the new text"
    if not situation.peak_known:
        return "it re-warms to the pretraining's peak rate, which is not known"
    return "re-warming costs old loss at first, which pays for a strong shift"


def _not_reuse(situation: Situation, rule: Rule) -> str:
    if situation.declared.final_lr == 0:
        return "the pretraining ended at a rate of 0: there is none to go on from"
    if rule.preset == "infinite":
        return "its rate falls to a hundredth with this data set, and further ones will follow"
    return "the rate at which a pretraining ends is low for a strong shift"


def _not_wsd(situation: Situation, rule: Rule) -> str:
    if not situation.peak_known:
        return "it holds the pretraining's peak rate, which is not known"
    if rule.preset == "infinite":
        return "it would hold the peak itself until the end; infinite comes down from it first"
    return "holding the peak pays where its stable stretch is branched later: nothing says so"


def _not_summary(situation: Situation, rule: Rule) -> str:
    if situation.declared.has_old:
        return "it replays text that the base makes up, and there is real old text"
    return "it trains half of every layer and freezes the lower ones: it keeps much and learns less"


_WHY_NOT: dict[str, Callable[[Situation, Rule], str]] = {
    "reuse": _not_reuse,
    "rewarm": _not_rewarm,
    "infinite": _not_infinite,
    "stability-gap": _not_gap,
    "wsd": _not_wsd,
    "summary": _not_summary,
}
