"""The verdict in words, each with its numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rewarm.comparison.outcomes import Outcome
from rewarm.comparison.paired import LEVEL
from rewarm.records.comparison import ComparedArm, PairedEffect, Registration
from rewarm.records.margins import claimed_range, expected_words, num_ends

__all__ = ["notes_on", "overall", "sentence"]

_LEAST_SEEDS = 3


def sentence(effect: PairedEffect, noise: PairedEffect | None) -> str:
    """Return what may be said of one metric in one contrast; `noise` is the control's copy's."""
    told = f"{effect.metric}, {effect.arm} − {effect.against}"
    if effect.mean is None:
        return f"{told}: not measured in any seed of both"
    value = f"{told}: {_signed(effect.mean, effect)} {effect.unit}"
    if effect.p is None:
        return f"{value} with one seed. {_of_documents(effect)}"
    value += f" ({_spread(effect)}, {_p(effect)})"
    parts = [value + (f": {_called(effect)}" if effect.word else "")]
    if effect.word and effect.detectable_holm is not None:
        parts.append(_would_find(effect, effect.detectable_holm))
    if noise is not None and noise.differences:
        most = max(abs(difference) for difference in noise.differences)
        parts.append(f"The control's copy differs by up to {_plain(most, effect)}")
    return ". ".join(parts)


def _would_find(effect: PairedEffect, detectable: float) -> str:
    """Return what so many seeds find at the level that the verdict is sure of: Holm's strictest."""
    found = _plain(detectable, effect)
    what = f"a margin of {found}, were there no difference," if num_ends(effect.expect) else found
    at = "" if detectable == effect.detectable else " at Holm's strictest step"
    return f"{len(effect.seeds)} seeds of this spread would find {what} with 80 % power{at}"


def _spread(effect: PairedEffect) -> str:
    seeds = f"{len(effect.seeds)} seeds"
    if not effect.sd:
        return f"the same in each of {seeds}: no spread for a t test, and signs alone are tested"
    low, high = _signed(effect.low or 0.0, effect), _signed(effect.high or 0.0, effect)
    return f"95 % interval {low} to {high}, {seeds}"


def _of_documents(effect: PairedEffect) -> str:
    if effect.document_low is None or effect.document_high is None:
        return "That claims nothing about training"
    low, high = _signed(effect.document_low, effect), _signed(effect.document_high, effect)
    return (
        f"Other documents would move it from {low} to {high} (95 % bootstrap over the documents of "
        "these checkpoints); that claims nothing about training"
    )


def _called(effect: PairedEffect) -> str:
    wanted = expected_words(effect.expect, _plain(effect.within or 0.0, effect))
    if effect.word == "as expected":
        return f"{wanted}, as expected"
    if effect.word == "against expectation":
        found = "lower" if (effect.mean or 0.0) < 0 else "higher"
        return f"{found}, expected was {wanted}"
    return f"not resolved, expected was {wanted}"


def overall(effects: Sequence[PairedEffect]) -> str:
    """Return the verdict on the hypothesis, which is what its primary tests came to."""
    count = Counter(effect.word for effect in effects)
    total = len(effects)
    tests = "1 primary test" if total == 1 else f"{total} primary tests"
    if count["as expected"] == total:
        told = f"As expected: {tests if total == 1 else f'all {tests}'} came out as was written"
    elif count["against expectation"]:
        told = f"Against expectation: {count['against expectation']} of {tests}"
    elif count["one seed"] == total:
        return "No verdict: one seed claims nothing about training"
    elif count["as expected"]:
        told = f"In part as expected: {count['as expected']} of {tests}"
    else:
        told = f"Not resolved: none of {tests} can be called"
    rest = [
        f"{count[word]} {word}"
        for word in ("as expected", "not resolved", "one seed", "not measured")
        if count[word] and count[word] < total and not told.startswith(f"In part {word}")
    ]
    return "; ".join([told, *rest]) + f" (Holm at {LEVEL:.0%})"


def notes_on(
    registration: Registration,
    arms: Sequence[ComparedArm],
    outcomes: Sequence[Outcome],
    effects: Sequence[PairedEffect],
    noise: Sequence[PairedEffect],
) -> Iterator[str]:
    """Yield what a reader has to know beside the numbers."""
    if not registration.before_runs:
        yield (
            f"What is claimed was written down at {registration.time}, after runs had begun: read "
            "it as a description, not as a prediction."
        )
    failed = [f"{o.run.arm} (seed {o.run.seed})" for o in outcomes if o.run.state == "failed"]
    if failed:
        yield f"Failed, and left out of every pair: {', '.join(failed)}."
    missing = [f"{o.run.arm} (seed {o.run.seed})" for o in outcomes if o.run.state == "unfinished"]
    if missing:
        yield f"Not finished, and left out: {', '.join(missing)}."
    measured = {o.run.arm for o in outcomes if o.run.state == "done"}
    lacking = [name for name in dict.fromkeys(o.run.arm for o in outcomes) if name not in measured]
    if lacking:
        yield (
            f"No run of {', '.join(lacking)} is done: area under the rate and tokens by source are "
            "those planned."
        )
    yield from _left_out_of_means(outcomes)
    yield from _amended(outcomes)
    seeds = {len(effect.seeds) for effect in effects}
    if max(seeds, default=0) == 1:
        yield (
            "One seed: how another would have come out is not known. Intervals are over documents "
            "of these very checkpoints, and claim nothing about training."
        )
    elif min(seeds, default=0) < _LEAST_SEEDS:
        yield f"Fewer than {_LEAST_SEEDS} seeds: intervals are very wide. Better take 5."
    for arm in arms:
        if arm.kind == "arm" and not arm.pairing.startswith("same"):
            yield f"{arm.name} shares with the control of a seed: {arm.pairing}."
        if arm.budget_differs is not None and arm.kind != "noise floor":
            yield f"{arm.name} has a budget of its own: {arm.budget_differs}"
        if arm.from_scratch:
            yield (
                f"{arm.name} begins from weights drawn anew; its changes are counted from the "
                "control's base."
            )
    primary = {effect.metric for effect in effects}
    for copy in noise:
        if copy.metric in primary and copy.p is not None and copy.p <= LEVEL:
            yield (
                f"The control's copy differs from the control in {copy.metric} more than its own "
                f"spread ({copy.sentence}): 1 in 20 does so by chance."
            )


def _left_out_of_means(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield which text counts for no mean, as not every arm is measured on it."""
    alone = {
        record.domain
        for outcome in outcomes
        for record in outcome.records
        if record.metric == "bits_per_byte"
        and record.role != "task"
        and outcome.common is not None
        and record.domain not in outcome.common
    }
    if alone:
        yield (
            f"Not every arm is measured on {', '.join(sorted(alone))}: forgetting, adaptation, "
            "mean_loss and the stability gap are means over the other text."
        )


def _amended(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield of each arm what was changed of its runs' plans while they went on."""
    by_arm: dict[str, list[str]] = {}
    for outcome in outcomes:
        run = outcome.run
        if run.state == "done" and run.amended:
            by_arm.setdefault(run.arm, []).append(f"seed {run.seed}: {', '.join(run.amended)}")
    for arm, told in by_arm.items():
        yield (
            f"{arm} was amended on its way ({'; '.join(told)}): its exposure is what its steps "
            "have shown, not what was planned."
        )


def _p(effect: PairedEffect) -> str:
    of = "p"
    if claimed_range(effect.expect, effect.within) is not None:
        of = "p of equality" if effect.expect == "equal" else "one-sided p"
    told = f"{of} {_two_digits(effect.p)}"
    if effect.p_holm is None:
        return told
    return f"{told}, after Holm {_two_digits(effect.p_holm).removeprefix('= ')}"


def _two_digits(p: float | None) -> str:
    assert p is not None
    if p < 1e-4:
        return "< 0.0001"
    return f"= {p:.2g}" if p < 0.1 else f"= {p:.2f}"


def _plain(value: float, effect: PairedEffect) -> str:
    decimals = 1 if effect.unit == "s" else 3 if abs(value) >= 0.01 or value == 0 else 4
    return f"{value:,.{decimals}f}".replace("-", "−")


def _signed(value: float, effect: PairedEffect) -> str:
    shown = _plain(value, effect)
    return shown if value <= 0 else f"+{shown}"
