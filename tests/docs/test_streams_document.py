"""docs/stream.md: its experiments are ones, and its tables name all that there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from rewarm.stream.corpora_problems import REPLAYS
from rewarm.stream.experiment import PRESET_LEARNER, StreamExperiment, read_stream
from rewarm.stream.sections import Algorithm, BackboneRecipe, LearnerRecipe, ProbeRecipe

PAGE = (Path(__file__).parents[2] / "docs" / "stream.md").read_text(encoding="utf-8")
CLASSES, CORPORA = re.split(r"^## Corpora, one after the other$", PAGE, flags=re.MULTILINE)


def _read(folder: Path, text: str) -> StreamExperiment:
    (folder / "e.toml").write_text(text, encoding="utf-8")
    return read_stream(folder / "e.toml").experiment


def _blocks(part: str) -> list[str]:
    return re.findall(r"```toml\n(.*?)```", part, re.DOTALL)


def _first_column(part: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)` \|", part, re.MULTILINE)


def test_the_experiments_are_ones_alone_and_with_what_is_added(tmp_path: Path) -> None:
    whole, preset, tests = _blocks(CLASSES)
    experiment = _read(tmp_path, whole)
    assert list(experiment.backbones) == ["scratch", "vit", "vit-anew"]
    assert list(experiment.learners) == ["er", "er-two-stage"]
    head, _, probe = preset.partition("\n\n")
    without_learners = whole.partition("[learners.er]")[0]
    experiment = _read(tmp_path, f"{head}\n{without_learners}{probe}")
    assert experiment.preset == "strong-simple-baseline"
    assert experiment.probe == ProbeRecipe()  # "the defaults"
    hypothesis, _, contrasts = tests.partition("\n\n")
    icarl = '[learners.icarl]\nalgorithm = "icarl"\n'
    experiment = _read(tmp_path, f"{hypothesis}\n{head}\n{whole}{icarl}{contrasts}")
    first, second = experiment.contrasts
    assert first.metric == "final"
    assert second.cell == "probed/strong-simple-baseline"


def test_the_experiment_on_corpora_is_one(tmp_path: Path) -> None:
    (text,) = _blocks(CORPORA)
    experiment = _read(tmp_path, text)
    assert list(experiment.source.corpora) == ["law", "medicine", "german"]
    assert experiment.scenario.tokens == 20_000_000
    batch = experiment.scenario.batch
    default = experiment.memory.model_copy(update={"batch": None})
    assert experiment.memory.batch == default.num_sequences_per_step(batch) == batch // 4


def test_the_tables_name_every_algorithm() -> None:
    assert sorted(_first_column(CLASSES)) == sorted(get_args(Algorithm))
    assert sorted(_first_column(CORPORA)) == sorted({"fine-tune", "joint", *REPLAYS})


def test_the_defaults_that_are_told_are_those_that_there_are() -> None:
    lambda_ = re.search(r"`ewc` is λ, ([\d.]+) by default", CLASSES)
    assert lambda_ is not None
    assert LearnerRecipe(algorithm="ewc++").ewc == pytest.approx(float(lambda_[1]))
    assert "`er` with a second stage of ten passes" in CLASSES
    assert LearnerRecipe(algorithm="er", second_stage_epochs=10) == PRESET_LEARNER
    rates = re.search(r"plain SGD, ([\d.]+) for a pre-trained backbone and ([\d.]+) from", CLASSES)
    assert rates is not None
    trained = BackboneRecipe(path="x")
    anew = BackboneRecipe(path="x", from_scratch=True)
    assert (trained.learning_rate, anew.learning_rate) == tuple(map(float, rates.groups()))
