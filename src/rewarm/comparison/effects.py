"""One metric of an arm against another's, seed by seed, and what a family of such tests may say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rewarm.comparison.metrics import MetricKind
from rewarm.comparison.paired import (
    LEVEL,
    holm,
    inside_p,
    interval_at,
    paired_mean,
    smallest_detectable,
)
from rewarm.comparison.sentences import sentence
from rewarm.records.comparison import Direction, PairedEffect, Word
from rewarm.records.margins import claimed_range, num_ends

__all__ = ["BySeed", "judged", "paired_effect"]

BySeed = Mapping[int, float]
"""A metric of one arm, by seed."""


def paired_effect(
    metric: str,
    kind: MetricKind,
    arms: tuple[str, str],
    values: tuple[BySeed, BySeed],
    *,
    expect: Direction | None = None,
    within: float | None = None,
) -> PairedEffect:
    """Return the paired differences of an arm less another over the seeds of both, not judged."""
    own, others = values
    seeds = [seed for seed in own if seed in others]
    differences = [own[seed] - others[seed] for seed in seeds]
    scale = _scale(own, others)
    found = paired_mean(differences, scale) if differences else None
    p = found.p if found is not None else None
    claimed = claimed_range(expect, within)
    if p is not None and claimed is not None:
        p = inside_p(differences, *claimed, scale)
    sd = found.sd if found is not None else None
    return PairedEffect(
        metric=metric,
        unit=kind.unit,
        better=kind.better,
        arm=arms[0],
        against=arms[1],
        seeds=tuple(seeds),
        differences=tuple(differences),
        mean=found.mean if found is not None else None,
        sd=sd,
        low=found.low if found is not None else None,
        high=found.high if found is not None else None,
        p=p,
        p_holm=None,
        detectable=_detectable(sd, len(seeds), expect, LEVEL),
        detectable_holm=None,
        expect=expect,
        within=within,
        word="",
        sentence="",
    )


def _scale(*values: BySeed) -> float:
    """Return the largest of the values, whose rounding their differences bear."""
    return max((abs(value) for one in values for value in one.values()), default=0.0)


def judged(
    effects: Sequence[PairedEffect], noise: Sequence[PairedEffect] = ()
) -> tuple[PairedEffect, ...]:
    """Return a family of effects with Holm's p-values, their words and their sentences.

    A test that could not be made counts with p = 1. Where nothing was expected there is no word.
    """
    adjusted = holm([1.0 if effect.p is None else effect.p for effect in effects])
    found: list[PairedEffect] = []
    for effect, p_holm in zip(effects, adjusted, strict=True):
        strictest = LEVEL / len(effects)
        known = effect.model_copy(
            update={
                "p_holm": None if effect.p is None else p_holm,
                "detectable_holm": _detectable(
                    effect.sd, len(effect.seeds), effect.expect, strictest
                ),
                "word": _word(effect, p_holm, len(effects)),
            }
        )
        floor = next((n for n in noise if n.metric == effect.metric), None)
        found.append(known.model_copy(update={"sentence": sentence(known, floor)}))
    return tuple(found)


def _detectable(
    sd: float | None, num_pairs: int, expect: Direction | None, level: float
) -> float | None:
    if not sd:
        return None  # one pair, or no spread to go by
    return smallest_detectable(sd, num_pairs, level=level, num_ends=num_ends(expect))


def _word(effect: PairedEffect, p_holm: float, num_tests: int) -> Word:
    """Apply the rules, in their order, by which a primary test is called."""
    if effect.mean is None:
        return "not measured"
    if effect.p is None:
        return "one seed"
    if effect.expect is None:
        return ""
    claimed = claimed_range(effect.expect, effect.within)
    if claimed is not None:
        return _word_of_range(effect, claimed, p_holm, num_tests)
    if p_holm > LEVEL:
        return "not resolved"
    found = "lower" if effect.mean < 0 else "higher"
    return "as expected" if found == effect.expect else "against expectation"


def _word_of_range(
    effect: PairedEffect, claimed: tuple[float, float], p_holm: float, num_tests: int
) -> Word:
    if p_holm <= LEVEL:
        return "as expected"
    differences = effect.differences if effect.sd else (effect.mean or 0.0,) * len(effect.seeds)
    low, high = interval_at(differences, 1.0 - LEVEL / num_tests)
    outside = low > claimed[1] or high < claimed[0]
    return "against expectation" if outside else "not resolved"
