"""Results of comparisons that nobody ran: concluded from values by arm, metric and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rewarm.comparison.experiment import Experiment
from rewarm.comparison.outcomes import Outcome
from rewarm.comparison.verdict import conclude
from rewarm.records.comparison import ComparedArm, ComparedRun, ComparisonResult, Registration
from rewarm.records.facts import EvalRecord

HYPOTHESIS = "Replay lowers forgetting & costs <nothing>."
Values = Mapping[str, Sequence[float]]


def made_up(
    values: Mapping[str, Values],
    primary: Sequence[Mapping[str, Any]],
    *,
    contrasts: Sequence[tuple[str, str, Mapping[str, str]]] | None = None,
    explored: Sequence[tuple[str, str]] = (),
    failed: Sequence[tuple[str, int]] = (),
    before_runs: bool = True,
    records: Mapping[tuple[str, int], Sequence[EvalRecord]] | None = None,
) -> ComparisonResult:
    """Conclude from values by arm and metric, one per seed; the first arm is the control.

    `records` are evaluations by arm and seed.
    """
    names = list(values)
    control = names[0]
    count = len(next(iter(values[control].values())))
    pairs = contrasts or [(n, control, {}) for n in names[1:] if n != "noise-floor"]
    experiment = Experiment.model_validate(
        {
            "name": "made-up",
            "hypothesis": HYPOTHESIS,
            "recipe": "r.toml",
            "seeds": count,
            "primary": list(primary),
            "control": control,
            "arms": {name: {} for name in ["x", *names]},
        }
    )
    registration = Registration(
        file_sha256="ab" * 32,
        file_name="e.toml",
        time="2026-11-25T12:00:00+00:00",
        before_runs=before_runs,
        claims={
            "hypothesis": HYPOTHESIS,
            "primary": list(primary),
            "control": control,
            "contrasts": [list(pair) for pair in pairs],
            "exploratory": [list(pair) for pair in explored],
            "seeds": list(range(1, count + 1)),
        },
    )
    arms = [
        ComparedArm(
            name=name,
            description=f"what {name} is",
            kind="control"
            if name == control
            else "noise floor"
            if name == "noise-floor"
            else "arm",
            num_tokens=1000,
            num_steps=10,
            budget_differs=None,
            lr_area=0.01,
            exposure={"old": 250, "new": 750},
            estimated_s=2.0,
            from_scratch=False,
            pairing="same sequences in the same steps",
        )
        for name in names
    ]
    outcomes = [
        Outcome(
            _run(name, seed, values[name], (name, seed) in failed),
            tuple((records or {}).get((name, seed), ())),
        )
        for name in names
        for seed in range(1, count + 1)
    ]
    return conclude(experiment, registration, arms, outcomes, {"python": "3"})


def _run(arm: str, seed: int, values: Values, failed: bool) -> ComparedRun:
    return ComparedRun(
        arm=arm,
        seed=seed,
        order_seed=seed,
        state="failed" if failed else "done",
        folder=f"runs/{arm}/seed-{seed}",
        fingerprint="f" * 64,
        values={} if failed else {name: each[seed - 1] for name, each in values.items()},
        lr_area=0.01,
        training_s=1.0,
        why="rewarm: error: <it> broke" if failed else "",
    )


LOWER = {"metric": "forgetting", "expect": "lower"}
EQUAL = {"metric": "adaptation", "expect": "equal", "within": 0.1}


def fake_comparison(name: str = "broken") -> ComparisonResult:
    """Return a result with a failed run, a noise floor, and claims that came late."""
    values = {
        "none": {"forgetting": [0.5, 0.52, 0.48], "adaptation": [0.6, 0.61, 0.59]},
        "replay": {"forgetting": [0.2, 0.21, 0.16], "adaptation": [0.61, 0.59, 0.57]},
        name: {"forgetting": [0.2, 0.21, 0.16], "adaptation": [0.61, 0.59, 0.57]},
        "noise-floor": {"forgetting": [0.51, 0.5, 0.49], "adaptation": [0.6, 0.6, 0.6]},
    }
    return made_up(values, [LOWER, EQUAL], failed=[(name, 2)], before_runs=False)
