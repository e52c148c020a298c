"""Experiments whose runs nobody trained, with each run as far as a test wants it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rewarm.artifacts import write_json
from rewarm.records.comparison import Membership, Registration
from rewarm.records.comparison_folder import ComparisonFolder
from tests.support.fake_runs import ARMS, Arm, make_fake_run

NUM_STEPS = 60
SHAPES: Mapping[str, Arm] = {
    "naive": ARMS["re-warm, no replay"][1],
    "replay": ARMS["re-warm, 25 % replay"][1],
}


def make_fake_experiment(
    folder: Path, taken: Mapping[tuple[str, int], int | None], *, hypothesis: str = "It helps."
) -> ComparisonFolder:
    """Write what was claimed and so many steps of each run; None: the run has no folder yet."""
    experiment = ComparisonFolder(folder)
    arms = list(dict.fromkeys(arm for arm, _ in taken))
    claims = {
        "name": "fake",
        "hypothesis": hypothesis,
        "primary": [{"metric": "forgetting", "expect": "lower"}],
        "control": arms[0],
        "contrasts": [[arm, arms[0], {}] for arm in arms[1:]],
        "noise_floor": False,
        "seeds": list(dict.fromkeys(seed for _, seed in taken)),
        "arms": {arm: {} for arm in arms},
    }
    registration = Registration(
        file_sha256="ab" * 32,
        file_name="e.toml",
        time="2026-11-26T01:00:00+00:00",
        before_runs=True,
        claims=claims,
    )
    for (arm, seed), count in taken.items():
        if count is not None:
            take_steps(experiment, arm, seed, count)
    write_json(experiment.registration, registration.model_dump(mode="json"))
    return experiment


def take_steps(experiment: ComparisonFolder, arm: str, seed: int, count: int) -> None:
    """Let a run have taken so many steps, as its records tell it; 0: it is planned."""
    run = make_fake_run(
        experiment.run(arm, seed).path.parent / f"making-{seed}",
        seed,
        arm=SHAPES[arm],
        num_steps=NUM_STEPS,
        steps_taken=count,
        evaluated=count > 0,
    )
    target = experiment.run(arm, seed)
    target.make_log_folder()
    for path in (run.plan, run.recipe, run.placement, *(run.logs if count else ())):
        if path.exists():
            path.replace(target.path / path.relative_to(run.path))
    member = Membership(
        name="fake",
        hypothesis="It helps.",
        arm=arm,
        description=f"what {arm} is",
        kind="control" if arm == "naive" else "arm",
        seed=seed,
        control="naive",
        page="../../../report.html",
    )
    write_json(target.membership, member.model_dump(mode="json"))
