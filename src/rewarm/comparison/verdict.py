"""From finished runs to what may be said of the hypothesis.

The family of tests is every primary metric in every contrast, all named before the first run; Holm
adjusts their p-values at 5 %. A test that could not be made (an arm failed, a single seed) stays in
the family with p = 1, so that losing arms never makes the others look better. Everything else that
was measured, and contrasts that were named as exploratory, is told unadjusted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rewarm.comparison.documents import document_interval
from rewarm.comparison.experiment import Experiment
from rewarm.comparison.metrics import kind_of
from rewarm.comparison.outcomes import Outcome
from rewarm.comparison.paired import (
    LEVEL,
    equivalence_p,
    holm,
    interval_at,
    paired_mean,
    smallest_detectable,
)
from rewarm.comparison.sentences import notes_on, overall, sentence
from rewarm.records.comparison import (
    ComparedArm,
    ComparisonResult,
    Direction,
    PairedEffect,
    Primary,
    Registration,
    RunCurves,
    Word,
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
    primary_effects = _judged(effects, noise)
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
        notes=tuple(notes_on(registration, arms, outcomes, primary_effects, noise)),
        provenance=dict(provenance),
    )


def _all_effects(outcomes: Sequence[Outcome], arm: str, against: str) -> tuple[PairedEffect, ...]:
    """Return every metric that both arms have in some seed, with nothing expected of it."""
    metrics = dict.fromkeys(name for one, _ in _pairs(outcomes, arm, against) for name in one)
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
    seeds = [
        outcome.run.seed
        for outcome in by_place.values()
        if outcome.run.arm == arm and (against, outcome.run.seed) in by_place
    ]
    differences = [
        by_place[arm, seed].run.values[metric] - by_place[against, seed].run.values[metric]
        for seed in seeds
    ]
    found = paired_mean(differences) if differences else None
    p = found.p if found is not None else None
    if p is not None and expect == "equal" and within is not None:
        p = equivalence_p(differences, within)
    sd = found.sd if found is not None else None
    documents = None
    if len(seeds) == 1:
        documents = document_interval(
            metric, by_place[arm, seeds[0]].records, by_place[against, seeds[0]].records
        )
    kind = kind_of(metric)
    return PairedEffect(
        metric=metric,
        unit=kind.unit,
        better=kind.better,
        arm=arm,
        against=against,
        seeds=tuple(seeds),
        differences=tuple(differences),
        mean=found.mean if found is not None else None,
        sd=sd,
        low=found.low if found is not None else None,
        high=found.high if found is not None else None,
        p=p,
        p_holm=None,
        detectable=None if sd is None else smallest_detectable(sd, len(seeds)),
        detectable_holm=None,
        document_low=documents.low if documents is not None else None,
        document_high=documents.high if documents is not None else None,
        expect=expect,
        within=within,
        word="",
        sentence="",
    )


def _judged(
    effects: Sequence[PairedEffect], noise: Sequence[PairedEffect]
) -> tuple[PairedEffect, ...]:
    """Return the primary effects with Holm's p-values, their words and their sentences."""
    adjusted = holm([1.0 if effect.p is None else effect.p for effect in effects])
    judged: list[PairedEffect] = []
    for effect, p_holm in zip(effects, adjusted, strict=True):
        strictest = LEVEL / len(effects)
        known = effect.model_copy(
            update={
                "p_holm": None if effect.p is None else p_holm,
                "detectable_holm": None
                if effect.sd is None
                else smallest_detectable(effect.sd, len(effect.seeds), level=strictest),
                "word": _word(effect, p_holm, len(effects)),
            }
        )
        floor = next((n for n in noise if n.metric == effect.metric), None)
        judged.append(known.model_copy(update={"sentence": sentence(known, floor)}))
    return tuple(judged)


def _word(effect: PairedEffect, p_holm: float, num_tests: int) -> Word:
    """Apply the rules, in their order, by which a primary test is called."""
    if effect.mean is None:
        return "not measured"
    if effect.p is None:
        return "one seed"
    if effect.expect == "equal":
        return _word_of_equality(effect, p_holm, num_tests)
    if p_holm > LEVEL:
        return "not resolved"
    found = "lower" if effect.mean < 0 else "higher"
    return "as expected" if found == effect.expect else "against expectation"


def _word_of_equality(effect: PairedEffect, p_holm: float, num_tests: int) -> Word:
    assert effect.within is not None
    if p_holm <= LEVEL:
        return "as expected"
    low, high = interval_at(effect.differences, 1.0 - LEVEL / num_tests)
    outside = low > effect.within or high < -effect.within
    return "against expectation" if outside else "not resolved"
