"""Comparisons of runs that raised their replay on the way: what they were given, and shared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rewarm.cli import main
from rewarm.comparison.arms import Arm
from rewarm.comparison.experiment import Experiment
from rewarm.comparison.outcomes import outcome_of
from rewarm.comparison.verdict import conclude
from rewarm.order.position import samples_in_phase
from rewarm.planning.amended import amended
from rewarm.planning.amendments import read_amendments
from rewarm.planning.plan import Estimate, Plan, load_plan
from rewarm.planning.schedule import area_under
from rewarm.records.comparison import ArmKind, ComparisonResult, Registration
from rewarm.records.run_folder import RunFolder
from rewarm.reporting.comparison_page import render_comparison_page
from rewarm.stages.compared_runs import PlannedRun, compared_arms
from rewarm.stages.job import Job
from tests.support.comparisons import EXPERIMENT, make_comparison_folder
from tests.support.tiny_plans import SEQUENCE_LENGTH
from tests.unit.test_on_forgetting import REPLAY, plan_with, train


def arm(name: str) -> Arm:
    kind: ArmKind = "control" if name == "control" else "arm"
    return Arm(name, f"what {name} is", kind, {}, Path(), False, None)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> ComparisonResult:
    """One seed of a control, and of an arm that raised its replay three times."""
    root = tmp_path_factory.mktemp("root")
    no_recipe: Any = None
    plans = {"control": plan_with(), "raises": plan_with(**REPLAY)}
    outcomes = []
    runs = []
    for name, plan in plans.items():
        folder = root / "runs" / name
        train(folder, plan)
        plan = whole(plan)
        job = Job(no_recipe, folder, RunFolder(folder), folder)
        runs.append(PlannedRun(arm(name), 1, job, plan))
        outcomes.append(
            outcome_of(
                arm(name), 1, plan, RunFolder(folder), root=root, state="done", why="", base=None
            )
        )
    claims = {
        "hypothesis": "Raised replay lowers forgetting.",
        "primary": [{"metric": "forgetting", "expect": "lower"}],
        "control": "control",
        "contrasts": [["raises", "control", {}]],
        "seeds": [1],
    }
    experiment = Experiment.model_validate(
        {
            **{key: claims[key] for key in ("hypothesis", "primary", "control")},
            "name": "raised",
            "recipe": "r.toml",
            "seeds": 1,
            "arms": {name: {} for name in plans},
        }
    )
    registration = Registration(
        file_sha256="ab" * 32, file_name="e.toml", time="now", before_runs=True, claims=claims
    )
    return conclude(experiment, registration, compared_arms(runs), outcomes, {})


def whole(plan: Plan) -> Plan:
    """Return a tiny plan with what a resolved one has beside: samples counted, estimates."""
    order = plan.science.order()
    phases = [
        phase.model_copy(update={"samples": tuple(map(int, samples_in_phase(order, index)))})
        for index, phase in enumerate(plan.science.phases)
    ]
    names = ("training compute", "weights, gradients and moments", "time")
    estimates = [Estimate(name=name, value=1.0, unit="", formula="") for name in names]
    science = plan.science.model_copy(update={"phases": tuple(phases)})
    return plan.model_copy(update={"science": science, "estimates": tuple(estimates)})


def test_an_amended_run_is_told_with_what_its_steps_have_shown(result: ComparisonResult) -> None:
    """By hand: 20 steps of 8 sequences, old text 3/4 up to step 10, then .35, .45 and .5 from 14
    and 18 on, each part within one sequence of its blend."""
    (control,), (raises,) = result.runs_of("control"), result.runs_of("raises")
    assert control.exposure == result.arm("control").exposure
    assert control.amended == ()
    assert raises.amended == (
        "old text at least 0.35 from step 10",
        "old text at least 0.45 from step 14",
        "old text at least 0.5 from step 18",
    )
    by_hand = 8 * (10 * 0.75 + 4 * 0.35 + 4 * 0.45 + 2 * 0.5)
    assert abs(raises.exposure["old"] / SEQUENCE_LENGTH - by_hand) <= 3
    assert sum(raises.exposure.values()) == sum(control.exposure.values()) == 20 * 8 * 12
    assert raises.exposure["old"] > result.arm("raises").exposure["old"]
    # Its rate was not changed, nor what was planned of it.
    assert raises.lr_area == pytest.approx(area_under(plan_with().science.schedule))
    assert result.arm("raises").exposure == result.arm("control").exposure
    assert result.shown("raises") == raises.exposure
    # Of one blend by their plans, and from step 10 on of two.
    assert result.arm("raises").pairing == "same sequences of each source in the same order"


def test_reader_of_a_verdict_sees_it(result: ComparisonResult) -> None:
    (note,) = [note for note in result.notes if "was amended on its way" in note]
    assert note.startswith("raises was amended on its way (seed 1: old text at least 0.35 from")
    page = render_comparison_page(result)
    assert "was amended on its way" in page
    (raises,) = result.runs_of("raises")
    planned, seen = result.arm("raises").exposure["old"], raises.exposure["old"]
    assert f"planned {planned}" in page or f"planned {planned / 1000:.3g}k" in page
    assert f"{seen}" in page or f"{seen / 1000:.3g}k" in page


RAISES = """
[arms.again]
description = "the control once more, to the bit"

[arms.raises]
description = "a tenth of old text, more where it is forgotten"
set.phases = [{ name = "all", weights = { new = 0.9, old = 0.1 } }]

[arms.raises.set.evaluation]
every_steps = 1
on_forgetting = { action = "replay", above = 1e-6, patience = 1, add = 0.2, ceiling = 0.5 }
"""


def make_raising(folder: Path) -> Path:
    head, _, arms = EXPERIMENT.partition("noise_floor = true")
    text = head.replace("seeds = 3", "seeds = 2") + arms
    text = text[: text.index("\n[arms.replay]")] + RAISES + text[text.index("\n[run]") :]
    return make_comparison_folder(folder, text)


def test_a_rule_on_forgetting_may_be_an_arms_own(tmp_path: Path) -> None:
    """What is done about a figure is no other figure, nor is how much of the run it may take."""
    path = make_raising(tmp_path)
    path.write_text(path.read_text().replace("every_steps = 1\n", "max_share = 0.99\n"))
    assert main(["compare", str(path), "--dry-run"]) == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_arm_may_raise_its_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_raising(tmp_path)
    assert main(["compare", str(path)]) == 0
    root = tmp_path / "comparisons" / "replay"
    result = ComparisonResult.model_validate(json.loads((root / "result.json").read_text()))
    for run in result.runs_of("raises"):
        folder = RunFolder(root / run.folder)
        plan = load_plan(folder.plan)
        chain = read_amendments(folder.amendments, plan.fingerprint)
        assert chain.replay_steps(), "it forgot nothing: the test shows nothing"
        science = amended(plan.science, chain)
        dealt = [sum(phase.samples[index] for phase in science.phases) for index in (0, 1)]
        names = [source.name for source in science.sources]
        assert run.exposure == {n: 64 * count for n, count in zip(names, dealt, strict=True)}
        assert run.exposure["old"] > result.arm("raises").exposure["old"]
        assert len(run.amended) == len(chain.chain)
    assert result.arm("raises").pairing == "same sequences of each source in the same order"
    # The instrument itself: the same arm twice differs in nothing but time and pages.
    again = [e for e in (*result.primary, *result.secondary) if e.arm == "again"]
    moved = {effect.metric for effect in again if set(effect.differences) != {0.0}}
    assert len(again) > 6
    assert moved <= {"training_s", "peak_mib"}
    assert result.arm("again").pairing == "same sequences in the same steps"
    before = (root / "experiment.json").read_bytes()
    told = " ".join(capsys.readouterr().out.split())
    assert "raises was amended on its way" in told
    assert "Exposure: tokens by source that a run saw" in told
    # What was claimed is not touched by it: the same command concludes the same.
    assert main(["compare", str(path)]) == 0
    assert (root / "experiment.json").read_bytes() == before
    concluded = ComparisonResult.model_validate(json.loads((root / "result.json").read_text()))
    assert concluded.runs == result.runs
