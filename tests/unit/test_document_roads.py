"""From the command line: which attention keeps a run's documents apart, and where that is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rewarm.cli import main
from rewarm.model import document_attention as room
from rewarm.model.split_attention import split_attention
from rewarm.records.run_folder import RunFolder
from tests.support.road import make_reader_folder

RECIPE = """
name = "{name}"
budget = {{ tokens = "2k" }}
base = {{ path = "my-model", pretraining = {{ peak_lr = 1e-2, final_lr = 1e-3 }} }}
batch = {{ sequence_length = 64, tokens = 256 }}
sources.new = {{ path = "my-text", role = "new", held_out = 0.05 }}
phases = [{{ name = "general", weights = {{ new = 1.0 }} }}]
training = {{ document_attention = "{road}", device = "cpu", precision = "float32" }}
evaluation = {{ max_bytes_per_domain = 5000 }}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A reader's folder with a recipe per road; the run `mask` is trained."""
    folder = make_reader_folder(tmp_path_factory.mktemp("reader"))
    for name, road in (("mask", "mask"), ("auto", "auto"), ("wrong", "auto"), ("gpu", "varlen")):
        (folder / f"{name}.toml").write_text(RECIPE.format(name=name, road=road))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["prepare", "mask.toml"]) == 0
        assert main(["train", "mask.toml"]) == 0
        yield folder


def warnings_of(run: RunFolder) -> list[str]:
    return [event.message for event in run.events() if event.kind == "warning"]


def road_of(run: RunFolder) -> str | None:
    """The road that the placement records and the report shows."""
    placement = json.loads(run.placement.read_text())
    road: str | None = placement["document_attention"]
    assert [e.details["placement"] for e in run.events() if e.kind == "launch"] == [placement]
    return road


def losses_and_measures(run: RunFolder) -> list[float]:
    return [r.loss for r in run.steps()] + [r.value for r in run.evals()]


def test_a_cpu_splits_and_measures_with_what_was_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call knows where documents begin: evaluations do not pass here. Losses are the mask's,
    and the base measures to the bit what it did there."""
    calls: list[Tensor | None] = []

    def split(*given: Any, **told: Any) -> tuple[Tensor, None]:
        calls.append(told.get("cu_seq_lens_q"))
        return split_attention(*given, **told)

    monkeypatch.setattr(room, "split_attention", split)
    assert main(["train", "auto.toml"]) == 0
    auto, mask = (RunFolder(folder / "runs" / name) for name in ("auto", "mask"))
    assert calls
    assert all(bounds is not None for bounds in calls)
    assert losses_and_measures(auto) == pytest.approx(losses_and_measures(mask), rel=1e-4)
    base, expected = ([r.value for r in run.evals() if r.step == 0] for run in (auto, mask))
    assert base == expected
    assert warnings_of(auto) == []
    assert [road_of(run) for run in (auto, mask)] == ["split", "mask"]


def test_a_road_that_is_wrong_is_told_and_recorded_and_the_mask_serves(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def leaks(*given: Any, **told: Any) -> tuple[Tensor, None]:
        bounds = told.pop("cu_seq_lens_q")
        joined = None if bounds is None else torch.cat((bounds[:1], bounds[2:]))
        return split_attention(*given, **told | {"cu_seq_lens_q": joined})

    monkeypatch.setattr(room, "split_attention", leaks)
    assert main(["train", "wrong.toml"]) == 0
    wrong, mask = (RunFolder(folder / "runs" / name) for name in ("wrong", "mask"))
    assert losses_and_measures(wrong) == losses_and_measures(mask)
    (told,) = warnings_of(wrong)
    assert told.startswith("documents cannot be kept apart by split: its hidden states differ")
    assert told in (said := " ".join(capsys.readouterr().out.split()))
    assert "begins from the base; document attention: mask" in said
    assert road_of(wrong) == "mask"


def test_a_kernel_of_a_gpu_is_not_taken_on_a_cpu(folder: Path) -> None:
    assert main(["train", "gpu.toml"]) == 0
    gpu, mask = (RunFolder(folder / "runs" / name) for name in ("gpu", "mask"))
    assert losses_and_measures(gpu) == losses_and_measures(mask)
    (told,) = warnings_of(gpu)
    assert told.startswith("documents cannot be kept apart by varlen: ")
    assert "NotImplementedError" in told or "TypeError" in told
    assert road_of(gpu) == "mask"
