"""A run beside its control and beside joint training, and its weights against the base's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rewarm.artifacts import write_json
from rewarm.cli import main
from rewarm.evaluation.against import against_control, recovered_fractions
from rewarm.evaluation.forgetting import delta_curve, domain_verdicts
from rewarm.model.load import load_base
from rewarm.model.weight_change import weight_change
from rewarm.model.weight_folder import WeightFolder
from rewarm.planning.plan import Plan, load_plan
from rewarm.records.against import AgainstOthers, LayerChange, WeightChange
from rewarm.records.facts import EvalRecord
from rewarm.records.run_folder import RunFolder
from rewarm.stages.against import _joint_doubts
from tests.support.road import make_reader_folder
from tests.support.tiny_models import make_tiny_base
from tests.unit.test_main_road import FLAGS

LN2 = math.log(2.0)
BYTES = (100, 200, 50, 80, 120, 90, 60, 110)


def record(step: int, bits: Sequence[float], *, key: str = "items") -> EvalRecord:
    nats = tuple(b * LN2 * size for b, size in zip(bits, BYTES, strict=True))
    return EvalRecord(
        step=step,
        domain="old",
        role="replay",
        metric="bits_per_byte",
        value=sum(nats) / (LN2 * sum(BYTES)),
        standard_error=0.0,
        item_values=nats,
        item_weights=BYTES,
        items_key=key,
        seconds=0.0,
    )


def run_of(values: dict[int, float], **changes: str) -> list[EvalRecord]:
    """A run whose documents all have these bits per byte by step."""
    return [record(step, [value] * len(BYTES), **changes) for step, value in values.items()]


def test_the_controls_gap_is_taken_off_step_by_step() -> None:
    run = run_of({0: 1.0, 2: 1.5, 4: 1.4, 8: 1.2, 16: 1.3})
    control = run_of({0: 1.0, 2: 1.3, 8: 1.1, 16: 1.1, 32: 1.0})
    (gap,) = against_control(run, control)
    # Steps of both: 0, 2, 8, 16; excess 0, 0.2, 0.1, 0.2.
    assert gap.num_steps == 4
    assert gap.depth == pytest.approx(0.2)
    assert gap.steps_to_peak == 2
    assert gap.forgetting == pytest.approx(0.2)
    assert gap.last_step == 16
    assert gap.area == pytest.approx(2 * 0.1 + 6 * 0.15 + 8 * 0.15)
    assert [gap.low, gap.high] == pytest.approx([0.2, 0.2])


def test_its_interval_pairs_the_items_of_both_runs() -> None:
    """Documents differ much from each other and alike in both: the excess hardly varies."""
    noise = np.random.default_rng(0).normal(0, 0.5, len(BYTES))
    start = 2 + noise
    run = [record(0, start.tolist()), record(9, (start * 1.2).tolist())]
    control = [record(0, start.tolist()), record(9, (start * 1.2 - 0.05).tolist())]
    (gap,) = against_control(run, control)
    assert gap.low == pytest.approx(0.05)
    assert gap.high == pytest.approx(0.05)
    (alone,) = domain_verdicts(run)
    assert alone.high is not None
    assert alone.low is not None
    assert alone.high - alone.low > 0.02


def test_other_text_or_another_base_is_no_control() -> None:
    run = run_of({0: 1.0, 2: 1.5})
    assert not against_control(run, run_of({0: 1.0, 2: 1.2}, key="other"))
    assert not against_control(run, run_of({0: 1.1, 2: 1.2}))
    assert not against_control(run, run_of({2: 1.2}))
    assert not against_control(run, run_of({0: 1.0, 3: 1.2}))
    # An A/A arm: the noise floor of the same run twice is none.
    (gap,) = against_control(run, run)
    assert (gap.depth, gap.area, gap.forgetting, gap.low, gap.high) == (0, 0, 0, 0, 0)


def test_the_recovered_fraction_by_hand() -> None:
    run = run_of({0: 2.0, 8: 1.4})
    (found,) = recovered_fractions(run, run_of({0: 9.0, 30: 1.2}))
    assert found.fraction == pytest.approx(0.75)
    assert (found.base, found.run, found.joint) == pytest.approx((2.0, 1.4, 1.2))
    assert found.low == pytest.approx(0.75)
    for last in (2.0, 2.5):
        (none,) = recovered_fractions(run, run_of({0: 9.0, 30: last}))
        assert none.fraction is None
        assert none.reason == "joint training is not better than the base here"
    unsure = [record(0, [9.0] * 8), record(30, [1.0, 2.5, 2.4, 1.0, 2.1, 2.0, 1.9, 2.0])]
    (found,) = recovered_fractions(run, unsure)
    assert found.fraction is not None
    assert found.low is None
    assert "not resolved" in found.reason
    assert not recovered_fractions(run, run_of({0: 9.0, 30: 1.2}, key="other"))


def test_curves_have_bands_of_the_paired_noise() -> None:
    start = np.linspace(1.0, 3.0, len(BYTES))
    run = [record(0, start.tolist()), record(4, (start + 0.1).tolist())]
    first, later = delta_curve(run, "old")
    assert first.noise == 0.0
    assert later.noise == pytest.approx(0.0, abs=1e-12)
    spread = [record(0, start.tolist()), record(4, (1.1 * start).tolist())]
    change = 0.1 * start * LN2 * np.array(BYTES)
    ratio = change.sum() / sum(BYTES)
    residuals = change - ratio * np.array(BYTES)
    by_hand = math.sqrt(8 / 7 * float(residuals @ residuals)) / sum(BYTES) / LN2
    assert delta_curve(spread, "old")[1].noise == pytest.approx(1.96 * by_hand)


def test_what_was_not_resolved_says_what_would_have_been() -> None:
    values = [1.0, 1.2, 0.8, 1.3, 0.7, 1.1, 0.9, 1.05]
    (verdict,) = domain_verdicts([record(0, [1.0] * 8), record(5, values)])
    assert verdict.verdict == "not resolved"
    assert verdict.low is not None
    assert verdict.high is not None
    assert verdict.resolvable == pytest.approx(
        max(verdict.high - verdict.delta, verdict.delta - verdict.low)
    )
    assert f"a change of {verdict.resolvable:.2g} or more would have been" in verdict.reason
    # With a change of that size the interval would just leave 0 out.
    assert verdict.resolvable is not None
    shifted = [value + verdict.resolvable * 1.05 - verdict.delta for value in values]
    (seen,) = domain_verdicts([record(0, [1.0] * 8), record(5, shifted)])
    assert seen.verdict == "forgotten"


def test_weights_are_compared_layer_by_layer(tmp_path: Path) -> None:
    folder = make_tiny_base(tmp_path / "base", num_layers=2, tied_embeddings=False)
    model = load_base(folder)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".layers.0." in name:
                parameter.mul_(1.25)
            elif ".layers.1." in name:
                parameter.mul_(0.5)
    with WeightFolder.read(folder).open("base") as base:
        change = weight_change(model, base, step=7)
    found = {one.layer: one.relative for one in change.layers}
    assert found == {0: pytest.approx(0.25), 1: pytest.approx(0.5), None: 0.0}
    assert change.step == 7
    ends = change.ends()
    assert ends is not None
    assert list(ends) == pytest.approx([0.25, 0.5])


def test_the_ends_are_five_layers_each_or_half() -> None:
    def change(num_layers: int) -> WeightChange:
        layers = [LayerChange(layer=k, relative=float(k)) for k in range(num_layers)]
        return WeightChange(step=1, layers=(*layers, LayerChange(layer=None, relative=99.0)))

    assert change(12).ends() == (2.0, 9.0)
    assert change(7).ends() == (1.0, 5.0)
    assert change(1).ends() is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three short runs from one base: new and old text, old text alone, and longer on both."""
    folder = make_reader_folder(tmp_path_factory.mktemp("reader"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["init", "r.toml", *FLAGS]) == 0
        text = (folder / "r.toml").read_text()
        text = text.replace('tokens = "20k"', 'tokens = "1_024"')
        for name, change in (
            ("run", ""),
            ("control", 'phases=[{name="old", weights={replay=1.0}}]'),
            ("joint", "budget.tokens=2_048"),
        ):
            (folder / f"{name}.toml").write_text(text.replace('name = "r"', f'name = "{name}"', 1))
            more = ["-o", f"name={name}", *(["-o", change] if change else [])]
            assert main(["prepare", f"{name}.toml", *more]) == 0
            assert main(["train", f"{name}.toml", *more]) == 0
    return folder


def test_evaluate_tells_and_the_report_shows_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    others = ["--control", "runs/control", "--joint", "runs/joint"]
    assert main(["evaluate", "runs/run", *others]) == 0
    told = capsys.readouterr().out
    for heading in (
        "With the control taken off",
        "Beside joint training",
        "How far the weights have gone",
        "the lowest 1 of 2 layers have moved by",
    ):
        assert heading in told
    run = RunFolder(folder / "runs" / "run")
    found = AgainstOthers.model_validate_json(run.against.read_text())
    assert {gap.domain for gap in found.gaps} == {"new", "replay"}
    assert found.control == "runs/control"
    assert found.warnings == ()
    (of_control,) = (c for c in found.control_curves if c.domain == "replay")
    theirs = [r for r in RunFolder(folder / "runs" / "control").evals() if r.domain == "replay"]
    assert of_control.steps == tuple(r.step for r in theirs)
    changes = [r.value - theirs[0].value for r in theirs]
    assert of_control.changes == pytest.approx(changes, abs=1e-6)
    assert all(one.fraction is not None for one in found.recovered)
    assert main(["report", "runs/run"]) == 0
    page = run.report.read_text()
    for heading in ("With the control taken off", "Recovered fraction", "Change of the weights"):
        assert heading in page
    assert 'class="noise"' in page


def test_a_control_that_is_none_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its figures are shown, with why they may not be what re-warming alone does."""
    monkeypatch.chdir(folder)
    run = RunFolder(folder / "runs" / "run")
    before = run.against.read_bytes() if run.against.exists() else b""
    assert main(["evaluate", "runs/run", "--control", "runs/joint"]) == 0
    told = capsys.readouterr().out
    assert "warning: runs/joint has another schedule or another batch than this run" in told
    assert "warning: runs/joint was trained on new, which is not old text" in told
    found = AgainstOthers.model_validate_json(run.against.read_text())
    assert len(found.warnings) == 2
    run.against.write_bytes(before)
    assert main(["evaluate", "runs/run", "--control", "runs/run", "--joint", "runs/run"]) == 2
    told = capsys.readouterr().err
    assert "--control: runs/run is this run itself" in told
    assert "--joint: runs/run is this run itself" in told


def test_a_joint_run_that_is_none_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Old text alone is no joint training, however plausible its figures look."""
    monkeypatch.chdir(folder)
    run = RunFolder(folder / "runs" / "run")
    before = run.against.read_bytes() if run.against.exists() else b""
    assert main(["evaluate", "runs/run", "--joint", "runs/control"]) == 0
    told = capsys.readouterr().out
    assert (
        "warning: runs/control was not trained on new, which this run was: it is no joint" in told
    )
    assert "other weights" not in told
    found = AgainstOthers.model_validate_json(run.against.read_text())
    assert len(found.warnings) == 1
    run.against.write_bytes(before)


def test_what_makes_a_joint_run_doubtful(folder: Path, tmp_path: Path) -> None:
    plan = load_plan(folder / "runs" / "run" / "plan.json")
    joint = RunFolder(folder / "runs" / "joint")
    assert not list(_joint_doubts(plan, joint, "joint"))

    def doubts(**changes: Any) -> list[str]:
        other = load_plan(joint.plan)
        science = other.science.model_copy(update=changes)
        made = RunFolder(tmp_path / "made")
        made.make_log_folder()
        update = {"science": science, "fingerprint": Plan.science_fingerprint(science)}
        write_json(made.plan, other.model_copy(update=update).model_dump(mode="json"))
        made.evals_log.write_bytes(joint.evals_log.read_bytes())
        return list(_joint_doubts(plan, made, "made"))

    (said,) = doubts(base_weights="0" * 64)
    assert "made began from other weights than this run" in said
    (said,) = doubts(tokenizer="0" * 64)
    assert "made has another tokenizer than this run" in said
    sources = load_plan(joint.plan).science.sources
    as_new = tuple(source.model_copy(update={"role": "new"}) for source in sources)
    (said,) = doubts(sources=as_new)
    assert "made was trained on no old text" in said
    # The same text under another name is the same text.
    assert not doubts(sources=tuple(s.model_copy(update={"name": f"a-{s.name}"}) for s in sources))
    (said,) = doubts(num_steps=10_000)
    assert "made was last measured after 16 of its 10000 steps" in said


def test_a_model_that_is_not_there_is_told_by_its_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = tmp_path / "absent"
    assert main(["evaluate", str(tmp_path), "--model", str(absent)]) == 2
    assert f"--model: {absent} is no folder" in capsys.readouterr().err


def test_others_that_cannot_be_used_are_told_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert main(["evaluate", "runs/run", "--control", "my-text", "--joint", "absent"]) == 2
    told = capsys.readouterr().err
    assert "there is no plan.json" in told
    assert "absent" in told


def test_a_run_without_a_rate_is_flat_to_the_bit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The instrument itself: nothing moves, so no figure does."""
    monkeypatch.chdir(folder)
    schedule = 'schedule={kind="pieces", pieces=[{shape="constant", start_lr=1e-30}]}'
    flat = ["-o", "name=flat", "-o", schedule, "-o", "optimizer.weight_decay=0"]
    (folder / "flat.toml").write_text((folder / "run.toml").read_text())
    assert main(["prepare", "flat.toml", *flat]) == 0
    assert main(["train", "flat.toml", *flat]) == 0
    records = RunFolder(folder / "runs" / "flat").evals()
    assert len({record.step for record in records}) > 3
    for domain in ("new", "replay"):
        values = {record.item_values for record in records if record.domain == domain}
        assert len(values) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["evaluate", "runs/flat"]) == 0
    change = WeightChange.model_validate_json(
        RunFolder(folder / "runs" / "flat").weight_change.read_text()
    )
    assert all(one.relative == 0 for one in change.layers)
