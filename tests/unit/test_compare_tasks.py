"""`rewarm compare` by tasks: local ones of every kind, and lm-evaluation-harness's own."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from rewarm.cli import main
from rewarm.comparison.metrics import harness_problems
from rewarm.records.comparison import ComparisonResult
from rewarm.records.facts import Metric
from rewarm.records.run_folder import RunFolder
from tests.support.comparisons import EXPERIMENT, make_comparison_folder
from tests.support.harness_tasks import make_harness_tasks

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("lm_eval") is None, reason="lm-evaluation-harness is not installed"
    ),
    pytest.mark.timeout(600),
]

TASKS = """
[evaluation.tasks.words]
path = "own/cloze.jsonl"
kind = "cloze"

[evaluation.tasks.grammar]
path = "pairs.jsonl"
kind = "minimal-pairs"

[evaluation.harness]
tasks = ["own_cloze", "own_rolling"]
include_path = "own"
max_items = 12
"""
PRIMARIES = {
    "task.words": "higher",
    "task.grammar": "higher",
    "answers.words": "lower",
    "harness.own_cloze acc": "higher",
    "harness_perplexity.own_cloze perplexity": "lower",
    "held_out.own_rolling bits_per_byte": "lower",
}


def make_task_comparison(folder: Path, primaries: dict[str, str]) -> Path:
    """Write an experiment of two arms and two seeds whose primaries are figures of tasks."""
    head, _, arms = EXPERIMENT.partition("noise_floor = true")
    asked = "".join(
        f'\n[[primary]]\nmetric = "{metric}"\nexpect = "{expect}"\n'
        for metric, expect in primaries.items()
    )
    text = head.replace("seeds = 3", "seeds = 2") + asked + arms[arms.index("\n[arms.none]") :]
    path = make_comparison_folder(folder, text)
    make_harness_tasks(folder / "own")
    pairs = [{"good": f"the text {n} trains", "bad": f"the trains {n} text"} for n in range(9)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    recipe = folder / "recipe.toml"
    lines = recipe.read_text().splitlines()
    (evaluation,) = [line for line in lines if line.startswith("evaluation = ")]
    lines.remove(evaluation)
    keys = evaluation.removeprefix("evaluation = { ").removesuffix(" }").replace(", ", "\n")
    recipe.write_text("\n".join([*lines, "[evaluation]", keys, TASKS]))
    return path


MISNAMED = {"harness.own_cloze perplexity": "lower", "harness.own_cloze acc": "higher"}


def test_a_dry_run_tells_what_only_loaded_tasks_can_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_task_comparison(tmp_path, MISNAMED)
    assert main(["compare", str(path), "--dry-run"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    for metric in MISNAMED:
        assert f"{metric}: whether its task has this figure is known once the tasks are" in told


def test_what_loaded_tasks_do_not_come_to_is_told() -> None:
    figures: list[tuple[Metric, str]] = [
        ("task_perplexity", "own_cloze perplexity"),
        ("task_score", "own_cloze acc"),
        ("bits_per_byte", "own_rolling bits_per_byte"),
    ]
    found = list(harness_problems([*MISNAMED, "harness.own_cloze acc (get_response)"], figures))
    there = (
        "harness.own_cloze acc, harness_perplexity.own_cloze perplexity, "
        "held_out.own_rolling bits_per_byte"
    )
    assert found == [
        (
            "harness.own_cloze perplexity",
            "the tasks of lm-evaluation-harness have no such figure",
            f"did you mean 'harness_perplexity.own_cloze perplexity'? there are: {there}",
        )
    ]


@pytest.mark.slow
def test_a_figure_that_no_task_has_is_told_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_task_comparison(tmp_path, MISNAMED)
    assert main(["compare", str(path)]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "primary[0].metric: 'harness.own_cloze perplexity': the tasks of" in told
    assert "did you mean 'harness_perplexity.own_cloze perplexity'?" in told
    assert "primary[1].metric" not in told
    root = tmp_path / "comparisons" / "replay"
    assert (root / "experiment.json").exists()
    assert not (root / "runs").exists()
    # No run has begun: what is claimed may still be mended.
    path.write_text(
        path.read_text().replace("harness.own_cloze p", "harness_perplexity.own_cloze p")
    )
    assert main(["compare", str(path), "--dry-run"]) == 0


@pytest.mark.slow
def test_tasks_of_every_kind_are_compared(tmp_path: Path) -> None:
    path = make_task_comparison(tmp_path, PRIMARIES)
    assert main(["compare", str(path)]) == 0
    root = tmp_path / "comparisons" / "replay"
    result = ComparisonResult.model_validate(json.loads((root / "result.json").read_text()))
    at_the_end: dict[tuple[str, int], dict[tuple[str, str], float]] = {}
    for run in result.runs:
        assert run.state == "done"
        evals = RunFolder(root / run.folder).evals()
        last = max(record.step for record in evals)
        at_the_end[run.arm, run.seed] = {
            (record.metric, record.domain): record.value for record in evals if record.step == last
        }
    places = {
        "task.words": ("cloze", "words"),
        "task.grammar": ("minimal_pairs", "grammar"),
        "answers.words": ("answer_bits_per_byte", "words"),
        "harness.own_cloze acc": ("task_score", "own_cloze acc"),
        "harness_perplexity.own_cloze perplexity": ("task_perplexity", "own_cloze perplexity"),
        "held_out.own_rolling bits_per_byte": ("bits_per_byte", "own_rolling bits_per_byte"),
    }
    assert [effect.metric for effect in result.primary] == list(PRIMARIES)
    for effect in result.primary:
        by_hand = [
            at_the_end["replay", seed][places[effect.metric]]
            - at_the_end["none", seed][places[effect.metric]]
            for seed in (1, 2)
        ]
        assert effect.differences == pytest.approx(by_hand), effect.metric
        assert effect.mean == pytest.approx(np.mean(by_hand)), effect.metric
        assert effect.better == PRIMARIES[effect.metric]
        assert effect.word in ("as expected", "against expectation", "not resolved")
    # Tasks are no text: they are in no mean over old or new sources.
    values = result.runs[0].values
    assert values["mean_loss"] == pytest.approx(
        (values["held_out.old"] + values["held_out.new"]) / 2
    )
    page = (root / "report.html").read_text()
    assert all(metric in page for metric in PRIMARIES)
