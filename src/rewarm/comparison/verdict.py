"""From finished runs to what may be said of the hypothesis.

The family of tests is every primary metric in every contrast, all named before the first run; Holm
adjusts their p-values at 5 %. A test that could not be made (an arm failed, a single seed) stays in
the family with p = 1, so that losing arms never makes the others look better. Everything else that
was measured, and contrasts that were named as exploratory, is told unadjusted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rewarm.comparison.documents import document_interval
from rewarm.comparison.effects import judged, paired_effect
from rewarm.comparison.experiment import Experiment
from rewarm.comparison.matched import MATCHED, matched_forgetting, trade_off
from rewarm.comparison.metrics import kind_of
from rewarm.comparison.outcomes import Outcome
from rewarm.comparison.sentences import notes_on, overall, sentence
from rewarm.records.comparison import (
    ComparedArm,
    ComparisonResult,
    Direction,
    PairedEffect,
    Primary,
    Registration,
    RunCurves,
)

__all__ = ["conclude"]


def conclude(
    experiment: Experiment,
    registration: Registration,
    arms: Sequence[ComparedArm],
    outcomes: Sequence[Outcome],
    provenance: Mapping[str, Any],
) -> ComparisonResult:
    """Return the result of an experiment; runs that are not done are left out of every pair.

    Hypothesis, primaries and contrasts are those that were registered.
    """
    claims = registration.claims
    primaries = tuple(Primary.model_validate(entry) for entry in claims["primary"])
    tests = [
        (primary, arm, against, expected.get(primary.metric, primary.expect))
        for primary in primaries
        for arm, against, expected in claims["contrasts"]
    ]
    effects = [
        _effect(outcomes, primary.metric, arm, against, expect, primary.within)
        for primary, arm, against, expect in tests
    ]
    noise_floor = next((arm.name for arm in arms if arm.kind == "noise floor"), None)
    noise = () if noise_floor is None else _all_effects(outcomes, noise_floor, claims["control"])
    primary_effects = judged(effects, noise)
    named = [primary.metric for primary in primaries]
    explored = [
        effect
        for arm, against in claims.get("exploratory", [])
        for effect in _all_effects(outcomes, arm, against)
    ]
    beside = [
        effect
        for arm, against, _ in claims["contrasts"]
        for effect in _all_effects(outcomes, arm, against)
        if effect.metric not in named
    ]
    return ComparisonResult(
        name=experiment.name,
        hypothesis=claims["hypothesis"],
        primaries=primaries,
        control=claims["control"],
        noise_floor=noise_floor,
        seeds=tuple(claims["seeds"]),
        registration=registration,
        arms=tuple(arms),
        runs=tuple(outcome.run for outcome in outcomes),
        curves=tuple(
            RunCurves(arm=one.run.arm, seed=one.run.seed, curves=one.curves)
            for one in outcomes
            if one.curves
        ),
        primary=primary_effects,
        secondary=(*explored, *beside),
        noise=noise,
        verdict=overall(primary_effects),
        notes=(
            *notes_on(registration, arms, outcomes, primary_effects, noise),
            *_unmatched(outcomes, [(arm, against) for arm, against, _ in claims["contrasts"]]),
        ),
        provenance=dict(provenance),
    )


def _all_effects(outcomes: Sequence[Outcome], arm: str, against: str) -> tuple[PairedEffect, ...]:
    """Return every metric that both arms have in some seed, with nothing expected of it."""
    metrics = dict.fromkeys(name for one, _ in _pairs(outcomes, arm, against) for name in one)
    metrics[MATCHED] = None
    effects = [_effect(outcomes, name, arm, against, None, None) for name in metrics]
    return tuple(
        effect.model_copy(update={"sentence": sentence(effect, None)})
        for effect in effects
        if effect.mean is not None
    )


_Values = Mapping[str, float]


def _pairs(outcomes: Sequence[Outcome], arm: str, against: str) -> list[tuple[_Values, _Values]]:
    by_place = {(o.run.arm, o.run.seed): o.run.values for o in outcomes}
    seeds = dict.fromkeys(outcome.run.seed for outcome in outcomes)
    return [
        (by_place[arm, seed], by_place[against, seed])
        for seed in seeds
        if (arm, seed) in by_place and (against, seed) in by_place
    ]


def _matched(
    outcomes: Sequence[Outcome], arm: str, against: str
) -> tuple[dict[int, float], dict[int, float]]:
    """Return what either arm forgot where both have learned as much, of the seeds where they do."""
    places = {
        (one.run.arm, one.run.seed): trade_off(one.records, one.common, from_base=one.from_base)
        for one in outcomes
        if one.run.arm in (arm, against) and one.run.values
    }
    own: dict[int, float] = {}
    other: dict[int, float] = {}
    for seed in dict.fromkeys(seed for _, seed in places):
        found = matched_forgetting(places.get((arm, seed), ()), places.get((against, seed), ()))
        if found is not None:
            own[seed], other[seed] = found
    return own, other


def _unmatched(outcomes: Sequence[Outcome], pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield of which seeds forgetting at matched adaptation has nothing, though both ran."""
    for arm, against in dict.fromkeys(pairs):
        seeds = [
            {o.run.seed for o in outcomes if o.run.arm == name and trade_off(o.records, o.common)}
            for name in (arm, against)
        ]
        lacking = sorted(set.intersection(*seeds) - _matched(outcomes, arm, against)[0].keys())
        if lacking:
            named = ", ".join(map(str, lacking))
            yield (
                f"{MATCHED} of {arm} − {against} is without seed {named}: one of the two never "
                "learned there, or had learned more when it was first measured."
            )


def _effect(
    outcomes: Sequence[Outcome],
    metric: str,
    arm: str,
    against: str,
    expect: Direction | None,
    within: float | None,
) -> PairedEffect:
    """Return the paired differences of one metric, not yet judged."""
    by_place = {(o.run.arm, o.run.seed): o for o in outcomes if metric in o.run.values}

    def values_of(name: str) -> dict[int, float]:
        return {seed: o.run.values[metric] for (a, seed), o in by_place.items() if a == name}

    if metric == MATCHED:
        values = _matched(outcomes, arm, against)
    else:
        values = values_of(arm), values_of(against)
    effect = paired_effect(
        metric,
        kind_of(metric),
        (arm, against),
        values,
        expect=expect,
        within=within,
    )
    if len(effect.seeds) != 1 or metric == MATCHED:
        return effect
    seed = effect.seeds[0]
    documents = document_interval(
        metric,
        by_place[arm, seed].records,
        by_place[against, seed].records,
        common=by_place[arm, seed].common,
    )
    if documents is None:
        return effect
    return effect.model_copy(
        update={"document_low": documents.low, "document_high": documents.high}
    )
