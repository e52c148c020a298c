"""`rewarm compare` from end to end on a tiny base: runs, pairs, verdict, page, and what a finished
comparison says when something of it is touched. What these tests change they put back."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from rewarm.cli import main
from rewarm.order.position import slots_of_step
from rewarm.planning.plan import load_plan
from rewarm.records.comparison import Membership
from rewarm.records.run_folder import RunFolder
from tests.support.comparisons import EXPERIMENT, make_comparison_folder, result_of, root_of, run_of

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_comparison_folder(tmp_path_factory.mktemp("compare"))
    assert main(["compare", str(path)]) == 0
    return path


def test_every_arm_runs_with_every_seed(experiment: Path) -> None:
    result = result_of(experiment)
    assert [(run.arm, run.seed, run.state) for run in result.runs] == [
        (arm, seed, "done") for arm in ("none", "replay", "noise-floor") for seed in (1, 2, 3)
    ]
    for run in result.runs:
        folder = RunFolder(root_of(experiment) / run.folder)
        assert [record.step for record in folder.steps()] == list(range(6))
        assert run.lr_area == pytest.approx(sum(record.lr for record in folder.steps()))
        assert (folder.path / "report.html").exists()


def test_the_values_are_those_of_the_records(experiment: Path) -> None:
    result = result_of(experiment)
    for run in result.runs:
        evals = RunFolder(root_of(experiment) / run.folder).evals()
        at = {(r.step, r.domain): r.value for r in evals if r.metric == "bits_per_byte"}
        assert run.values["forgetting"] == pytest.approx(at[6, "old"] - at[0, "old"])
        assert run.values["adaptation"] == pytest.approx(at[0, "new"] - at[6, "new"])
        assert run.values["held_out.new"] == at[6, "new"]
        assert run.values["mean_loss"] == pytest.approx((at[6, "old"] + at[6, "new"]) / 2)
        # 16 bytes for each parameter of float32: weight, gradient, two moments.
        tensors = load_file(experiment.parent / "base" / "model.safetensors")
        num_parameters = sum(tensor.size for tensor in tensors.values())
        assert run.values["planned_mib"] == pytest.approx(16 * num_parameters / 2**20)
        assert run.values["planned_peak_mib"] > run.values["planned_mib"]
        peak_bytes = run_of(experiment, run.arm, run.seed).peak_bytes()
        assert run.values["peak_mib"] * 2**20 == peak_bytes
        assert 0 < run.values["planned_tflop"] < 8 * num_parameters * 2**13 / 1e12
    (forgetting, adaptation) = result.primary
    values = {(run.arm, run.seed): run.values for run in result.runs}
    by_hand = [
        values["replay", s]["forgetting"] - values["none", s]["forgetting"] for s in (1, 2, 3)
    ]
    assert forgetting.differences == pytest.approx(by_hand)
    assert forgetting.mean == pytest.approx(np.mean(by_hand))
    reach = 4.302653 * np.std(by_hand, ddof=1) / math.sqrt(3)
    assert (forgetting.low, forgetting.high) == pytest.approx(
        (np.mean(by_hand) - reach, np.mean(by_hand) + reach), rel=1e-6
    )
    # Replay shows old text: with three seeds of this size that is seen.
    assert forgetting.word == "as expected"
    assert adaptation.expect == "equal"
    assert result.noise_of("forgetting") is not None


def test_runs_of_a_seed_are_paired(experiment: Path) -> None:
    """The j-th sample of a source is the same window in all arms of a seed, and in no other one."""
    orders = {
        (arm, seed): load_plan(run_of(experiment, arm, seed).plan).science.order()
        for arm in ("none", "replay", "noise-floor")
        for seed in (1, 2)
    }

    def windows(arm: str, seed: int) -> dict[int, int]:
        order = orders[arm, seed]
        new = order.source_names.index("new")
        found: dict[int, int] = {}
        for step in range(6):
            slots = slots_of_step(order, step)
            own = slots.source == new
            found |= dict(zip(slots.sample[own].tolist(), slots.window[own].tolist(), strict=True))
        return found

    none, replay = windows("none", 1), windows("replay", 1)
    assert len(replay) > 10
    assert {j: none[j] for j in replay} == replay
    assert windows("none", 2) != none
    assert windows("noise-floor", 1) != none
    result = result_of(experiment)
    assert result.arm("replay").pairing == "same sequences of each source in the same order"
    assert result.arm("noise-floor").pairing.startswith("nothing")


def test_what_is_done_is_not_made_again(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = {
        run.folder: RunFolder(root_of(experiment) / run.folder)
        for run in result_of(experiment).runs
    }
    before = {name: run.events_log.read_bytes() for name, run in logs.items()}
    first = result_of(experiment)
    assert main(["compare", str(experiment)]) == 0
    assert {name: run.events_log.read_bytes() for name, run in logs.items()} == before
    again = result_of(experiment)
    assert [run.values for run in again.runs] == [run.values for run in first.runs]
    assert again.registration == first.registration
    told = capsys.readouterr().out
    assert "A quarter of old text lowers forgetting, at little cost." in " ".join(told.split())
    assert "before the first run" in " ".join(told.split())


def test_claims_are_fixed_once_a_run_has_begun(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = experiment.read_text()
    changed = (
        before.replace("lowers forgetting", "raises forgetting")
        .replace('expect = "lower"', 'expect = "higher"')
        .replace("old = 0.25", "old = 0.5")
        .replace("seeds = 3", "seeds = 2")
    )
    try:
        experiment.write_text(changed)
        for flags in ([], ["--dry-run"]):
            assert main(["compare", str(experiment), *flags]) == 2
            told = capsys.readouterr().err
            for what in (
                "hypothesis: it was “A quarter",
                "primary: it was",
                "seeds: it was “[1,2,3]”",
            ):
                assert what in told
            assert "arms.replay: its recipe changed since the runs began" in told
            assert "another name" in told
        # Nor is it another experiment where none of its own runs has begun.
        experiment.write_text(before.replace("seeds = 3", "seeds = [4, 5, 6]"))
        assert main(["compare", str(experiment), "--dry-run"]) == 2
        assert "seeds: it was “[1,2,3]”" in capsys.readouterr().err
        # How runs are carried out is no claim, nor are comments and descriptions.
        experiment.write_text(
            "# a comment\n" + before.replace("workers = 2", "workers = 1").replace("alone", "only")
        )
        assert main(["compare", str(experiment)]) == 0
    finally:
        experiment.write_text(before)


def test_text_that_changed_behind_done_runs_is_told(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = experiment.with_name("new.jsonl")
    whole, when = text.read_bytes(), text.stat()
    result = (root_of(experiment) / "result.json").read_bytes()
    try:
        text.write_bytes(whole.replace(b"100", b"001"))
        assert main(["compare", str(experiment)]) == 2
        told = capsys.readouterr().err
        assert "the text of source 'new', or how it is read, changed" in told
        assert "new holds out other text" in told
        assert "give the experiment another name, or undo the change" in told
        assert (root_of(experiment) / "result.json").read_bytes() == result
    finally:
        text.write_bytes(whole)
        os.utime(text, ns=(when.st_atime_ns, when.st_mtime_ns))
    assert main(["compare", str(experiment)]) == 0


@pytest.mark.parametrize("arms", [None, [], "all", {"full": None}])
def test_claims_that_somebody_damaged_are_told(
    experiment: Path, arms: object, capsys: pytest.CaptureFixture[str]
) -> None:
    record = root_of(experiment) / "experiment.json"
    kept = record.read_bytes()
    try:
        damaged = json.loads(kept)
        damaged["claims"]["arms"] = arms
        record.write_text(json.dumps(damaged))
        assert main(["compare", str(experiment)]) == 2
        assert "it was not there when the runs began" in capsys.readouterr().err
    finally:
        record.write_bytes(kept)


def test_a_run_that_was_killed_before_its_last_save_goes_on(experiment: Path) -> None:
    """It is measured at its end before that is saved: what was measured is not all."""
    run = RunFolder(next(path.parent for path in root_of(experiment).rglob("plan.json")))
    num_steps = run.evals()[-1].step
    kept = run.events_log.read_bytes()
    assert run.state_after(num_steps) == "done"
    try:
        lines = kept.splitlines(keepends=True)
        run.events_log.write_bytes(b"".join(line for line in lines if b'"finish"' not in line))
        assert run.is_measured_after(num_steps)
        assert run.state_after(num_steps) == "running"
    finally:
        run.events_log.write_bytes(kept)


def damaged(log: bytes, how: str) -> bytes:
    """Return a log whose lines of the last evaluation are torn, or hold what is no number."""
    lines = log.splitlines(keepends=True)
    steps = [json.loads(line)["step"] for line in lines]
    first = steps.index(steps[-1])
    if how == "torn":
        return b"".join(lines[:first]) + lines[first][:100]
    for k in range(first, len(lines)):
        lines[k] = re.sub(rb'"value": ?[^,}]+', f'"value":{how}'.encode(), lines[k])
    return b"".join(lines)


@pytest.mark.parametrize(
    "how", ["torn", *(pytest.param(how, marks=pytest.mark.slow) for how in ("NaN", "1e999"))]
)
def test_a_finished_run_whose_last_evaluation_was_damaged_is_measured_again(
    experiment: Path, how: str
) -> None:
    run = run_of(experiment, "replay", 1)
    kept, before = run.evals_log.read_bytes(), result_of(experiment)
    torn = damaged(kept, how)
    try:
        run.evals_log.write_bytes(torn)
        assert not run.is_measured_after(6)
        assert main(["compare", str(experiment)]) == 0
        assert run.evals_log.read_bytes().startswith(torn), "nothing is deleted"
        assert result_of(experiment).primary == before.primary
        told = run.last_lines()
        assert f"{run.evals_log} has lost what was measured at the run's ends" in told
    finally:
        run.evals_log.write_bytes(kept)


@pytest.mark.slow
def test_evaluations_that_cannot_be_measured_again_are_told_with_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those on the way: their weights are gone, and a gap would be worked out without them."""
    text = EXPERIMENT.replace("seeds = 3", "seeds = [7]").replace("noise_floor = true", "")
    path = make_comparison_folder(tmp_path, text, evaluate_every=2)
    assert main(["compare", str(path)]) == 0
    before = result_of(path)
    run = run_of(path, "replay", 7)
    lines = run.evals_log.read_bytes().splitlines(keepends=True)
    steps = [json.loads(line)["step"] for line in lines]
    run.evals_log.write_bytes(b"".join(lines[: steps.index(4)]))
    capsys.readouterr()
    for _ in range(2):
        assert main(["compare", str(path)]) == 1
        told = " ".join(capsys.readouterr().out.split())
        assert (
            f"{run.evals_log}: lines of it are damaged or gone: what was measured after 4" in told
        )
        assert f"move {run.path} away, and the same command trains this run anew" in told
    run.path.rename(tmp_path / "aside")
    assert main(["compare", str(path)]) == 0
    assert result_of(path).primary == before.primary


def test_a_claim_written_after_the_runs_is_told(experiment: Path) -> None:
    record = root_of(experiment) / "experiment.json"
    kept = record.read_bytes()
    try:
        record.unlink()
        assert main(["compare", str(experiment)]) == 0
        result = result_of(experiment)
        assert not result.registration.before_runs
        assert any("after runs had begun" in note for note in result.notes)
        assert "AFTER runs had begun" in (root_of(experiment) / "report.html").read_text()
    finally:
        record.write_bytes(kept)


def test_every_run_knows_its_part_in_the_comparison(experiment: Path) -> None:
    result = result_of(experiment)
    for arm, seed in (("none", 1), ("replay", 2), ("noise-floor", 3)):
        run = run_of(experiment, arm, seed)
        member = Membership.model_validate_json(run.membership.read_text())
        assert (member.name, member.arm, member.seed) == ("replay", arm, seed)
        assert (run.path / member.page).resolve() == root_of(experiment) / "report.html"
        assert member.verdict == result.verdict
        assert member.page in run.report.read_text()
        if arm == "none":
            assert member.control_curves == ()
            continue
        at = {
            r.step: r.value for r in run_of(experiment, "none", seed).evals() if r.domain == "old"
        }
        (curve,) = (c for c in member.control_curves if c.domain == "old")
        assert dict(zip(curve.steps, curve.changes, strict=True)) == pytest.approx(
            {step: value - at[0] for step, value in at.items()}, abs=1e-6
        )


def test_the_page_has_every_arm_s_curve(experiment: Path) -> None:
    page = (root_of(experiment) / "report.html").read_text()
    assert "Held-out text that the base knew" in page
    assert {(c.arm, c.seed) for c in result_of(experiment).curves} == {
        (arm, seed) for arm in ("none", "replay", "noise-floor") for seed in (1, 2, 3)
    }
