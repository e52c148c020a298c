"""`rewarm compare` before it runs, and arms that go their own way: without a budget in common, on
text of their own, from weights of their own, or into failure."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from rewarm.cli import main
from tests.support.comparisons import EXPERIMENT, make_comparison_folder, result_of, root_of, run_of
from tests.support.tiny_models import make_tiny_base

pytestmark = pytest.mark.timeout(600)


def test_a_dry_run_shows_everything_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_comparison_folder(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(["compare", str(path), "--dry-run"]) == 0
    assert sorted(tmp_path.rglob("*")) == before
    told = capsys.readouterr().out
    words = " ".join(told.split())
    assert "3 arms × 3 seeds (1, 2, 3): 9 runs, processes, 2 at a time" in words
    assert "tokens are estimates" in words
    # Two primaries of one contrast: the control's copy is none.
    assert "2 tests of 3 pairs at 5% together (Holm): with 80 % power the strictest" in words
    assert "a difference of 8.0 and that there is none up to a margin of ±6.3, in stand" in words
    lines = [line.split() for line in told.splitlines()]
    assert ["replay", "1.15k", "384"] in lines  # exposure: 18 and 6 of 24 sequences of 64 tokens
    # 6 cosine steps from 0.01 towards 0.001, by hand: Σ 0.001 + 0.009 (1 + cos(πk/6))/2 = 0.0375
    assert any(line[:1] == ["replay"] and "1.54k" in line and "0.0375" in line for line in lines)


def test_a_dry_run_answers_without_torch(tmp_path: Path) -> None:
    path = make_comparison_folder(tmp_path)
    asked = (
        "import sys; from rewarm.cli import main; "
        f"code = main(['compare', {str(path)!r}, '--dry-run']); "
        "sys.exit(code or ('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_budgets_and_metrics_of_all_arms_are_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = EXPERIMENT.replace('"adaptation"', '"answers.new"') + (
        "\n[arms.longer]\nset.budget.tokens = 2048\n"
        '[arms.talks]\nbudget_differs = "no reason"\n'
        '[arms.lost]\nset.sources.new.path = "nowhere.jsonl"\n'
        "[arms.half]\nset.evaluation.max_bytes_per_domain = 1000\n"
        "[arms.kept]\nset.sources.old.held_out = 0.3\n"
        '[arms.repeats]\nset.budget.tokens = "1M"\nbudget_differs = "to see it fail"\n'
    )
    path = make_comparison_folder(tmp_path, text)
    assert main(["compare", str(path), "--dry-run"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "arms.longer: its budget is 2.05k tokens, the control's 1.54k" in told
    assert "arms.talks.budget_differs: its budget is the control's" in told
    assert "arms.lost: sources.new.path" in told
    assert "arms.half: evaluation.max_bytes_per_domain: it is 1000, the control's 2000" in told
    assert "arms.kept: sources.old: it holds out other text" in told
    assert "arms.repeats: sources.new: the phases ask" in told
    assert "primary[1].metric: 'answers.new' is not measured of" in told
    assert "measured are: forgetting, adaptation, mean_loss" in told


@pytest.fixture(scope="module")
def one_seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of one seed, of whose arms one has more old text than the other."""
    folder = tmp_path_factory.mktemp("one_seed")
    text = EXPERIMENT.replace("seeds = 3", "seeds = [7]").replace("noise_floor = true", "")
    source = '{ path = "more.jsonl", role = "replay", held_out = 0.2 }'
    text = text.replace("set.phases = [", f"set.sources.more = {source}\nset.phases = [").replace(
        "old = 0.25", "old = 0.15, more = 0.1"
    )
    path = make_comparison_folder(folder, text, evaluate_every=3)
    lines = "".join(f'{{"text": "{"words of another kind " * 12} {k}"}}\n' for k in range(160))
    (folder / "more.jsonl").write_text(lines)
    assert main(["compare", str(path)]) == 0
    return path


def test_means_are_over_what_every_arm_is_measured_on(one_seed: Path) -> None:
    """Old text that one arm alone holds out moves neither its mean nor the interval of it."""
    result = result_of(one_seed)
    none, replay = (result.runs_of(arm)[0].values for arm in ("none", "replay"))
    assert "held_out.more" in replay
    assert "held_out.more" not in none
    of_old = replay["held_out.old"] - none["held_out.old"]
    effect = result.primary[0]
    assert effect.metric == "forgetting"
    assert effect.mean == pytest.approx(of_old)
    assert replay["mean_loss"] == pytest.approx(
        (replay["held_out.old"] + replay["held_out.new"]) / 2
    )
    assert any("Not every arm is measured on more" in note for note in result.notes)


def test_one_seed_has_no_verdict(one_seed: Path) -> None:
    result = result_of(one_seed)
    assert result.verdict == "No verdict: one seed claims nothing about training"
    forgetting = result.primary[0]
    assert (forgetting.word, forgetting.low, forgetting.p_holm) == ("one seed", None, None)
    assert forgetting.document_low is not None
    assert forgetting.document_low < (forgetting.mean or 0) < (forgetting.document_high or 0)
    assert "claims nothing about training" in forgetting.sentence


def test_a_run_that_lost_evaluations_on_its_way_is_told_and_left_out(
    one_seed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its end is on record: nothing is trained, so this is how each way of launching meets it."""
    run = run_of(one_seed, "replay", 7)
    kept = run.evals_log.read_bytes()
    lines = kept.splitlines(keepends=True)
    try:
        run.evals_log.write_bytes(b"".join(line for line in lines if json.loads(line)["step"] != 3))
        assert main(["compare", str(one_seed)]) == 1
        told = " ".join(capsys.readouterr().out.split())
        assert f"{run.evals_log}: lines of it are damaged or gone" in told
        assert "what was measured after 3 steps is not on record" in told
        states = {(run.arm, run.state) for run in result_of(one_seed).runs}
        assert states == {("none", "done"), ("replay", "failed")}
    finally:
        run.evals_log.write_bytes(kept)
    assert main(["compare", str(one_seed)]) == 0
    assert {run.state for run in result_of(one_seed).runs} == {"done"}


def test_a_folder_that_cannot_be_made_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its key, before anything is planned, where a name can tell; else where it is to be made.

    Nobody makes a folder under /proc, whatever they may do elsewhere.
    """
    text = EXPERIMENT.replace("seeds = 3", "seeds = 1").replace("noise_floor = true", "")
    path = make_comparison_folder(tmp_path, text)
    (tmp_path / "comparisons").write_text("in the way")
    assert main(["compare", str(path), "--dry-run"]) == 2
    assert f"error: folder: {tmp_path}/comparisons is not a folder" in capsys.readouterr().err
    path.write_text('folder = "/proc/rewarm/replay"\n' + text)
    assert main(["compare", str(path)]) == 1
    told = capsys.readouterr().err
    assert "/proc/rewarm/replay cannot be made (" in told
    assert "name another `folder` in the experiment" in told


def test_a_failed_arm_does_not_sink_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = EXPERIMENT.replace("noise_floor = true", "") + (
        '\n[arms.broken]\nset.base.path = "bases/{seed}"\n'
    )
    path = make_comparison_folder(tmp_path, text.replace("seeds = 3", "seeds = 2"))
    for seed in (1, 2):
        make_tiny_base(tmp_path / "bases" / str(seed), seed=seed)
    damaged = tmp_path / "bases" / "2" / "model.safetensors"
    intact = damaged.read_bytes()
    tensors = load_file(damaged)
    name = next(key for key in tensors if "norm" in key)
    tensors[name][0] = math.nan
    save_file(tensors, damaged, metadata={"format": "pt"})

    assert main(["compare", str(path)]) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "broken, seed 2 failed; the last it said" in told
    assert "holds values that are not finite" in told
    result = result_of(path)
    states = {(run.arm, run.seed): run.state for run in result.runs}
    assert states.pop(("broken", 2)) == "failed"
    assert set(states.values()) == {"done"}
    effects: dict[tuple[str, str], Any] = {(e.metric, e.arm): e for e in result.primary}
    assert effects["forgetting", "replay"].seeds == (1, 2)
    assert effects["forgetting", "broken"].seeds == (1,)
    # A test that could not be made stays in the family with p = 1: Holm's m is 4, not 2.
    tested = sorted(e.p for e in result.primary if e.p is not None)
    assert min(e.p_holm for e in result.primary if e.p_holm is not None) == pytest.approx(
        min(1.0, 4 * tested[0])
    )
    assert any("Failed, and left out" in note for note in result.notes)
    page = (root_of(path) / "report.html").read_text()
    assert "not finite" in page

    # Mended, the same command makes the failed run alone.
    damaged.write_bytes(intact)
    before = run_of(path, "replay", 1).events_log.read_bytes()
    assert main(["compare", str(path)]) == 0
    assert run_of(path, "replay", 1).events_log.read_bytes() == before
    assert {run.state for run in result_of(path).runs} == {"done"}


def test_an_arm_from_scratch_is_measured_against_the_base(tmp_path: Path) -> None:
    text = EXPERIMENT.replace("noise_floor = true", "").replace("seeds = 3", "seeds = 2") + (
        '\n[arms.union]\nfrom_scratch = true\nbudget_differs = "the sum of base and arm"\n'
        "set.budget.tokens = 2048\n"
    )
    path = make_comparison_folder(tmp_path, text)
    assert main(["compare", str(path)]) == 0
    result = result_of(path)
    arm = result.arm("union")
    assert (arm.from_scratch, arm.budget_differs, arm.num_steps) == (
        True,
        "the sum of base and arm",
        8,
    )
    assert any("the sum of base and arm" in note for note in result.notes)
    for seed in (1, 2):
        own = {(r.step, r.domain): r.value for r in run_of(path, "union", seed).evals()}
        base = {(r.step, r.domain): r.value for r in run_of(path, "none", seed).evals()}
        assert own[0, "old"] != base[0, "old"]  # it begins elsewhere …
        run = next(r for r in result.runs if (r.arm, r.seed) == ("union", seed))
        # … and its changes are counted from the control's base.
        assert run.values["forgetting"] == pytest.approx(own[8, "old"] - base[0, "old"])
        assert "stability_gap.depth" not in run.values
    weights = [
        (root_of(path) / "bases" / f"base-from-scratch-{s}" / "model.safetensors").read_bytes()
        for s in (1, 2)
    ]
    assert weights[0] != weights[1]
