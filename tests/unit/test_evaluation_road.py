"""Tasks of every kind on the whole road: planned, in the loop, on the checkpoint, on the export."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from rewarm.cli import main
from rewarm.comparison.metrics import kind_of, known_once_loaded, measured_by, values_of
from rewarm.planning.plan import load_plan
from rewarm.records.facts import EvalRecord
from rewarm.records.run_folder import RunFolder
from tests.support.harness_tasks import make_harness_tasks
from tests.support.road import make_reader_folder
from tests.unit.test_main_road import FLAGS

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="lm-evaluation-harness is not installed"
)

TASKS = """
[evaluation]
every_steps = 4
max_bytes_per_domain = 20_000

[evaluation.tasks.quiz]
path = "own/choice.jsonl"
normalise = "unconditional"

[evaluation.tasks.words]
path = "own/cloze.jsonl"
kind = "cloze"

[evaluation.tasks.grammar]
path = "pairs.jsonl"
kind = "minimal-pairs"

[evaluation.harness]
tasks = ["own_choice", "own_rolling", "own_writing"]
include_path = "own"
max_items = 12
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder with tasks, in which `tasks.toml` is trained for eight steps."""
    folder = make_reader_folder(tmp_path_factory.mktemp("reader"))
    make_harness_tasks(folder / "own")
    pairs = [{"good": f"the text {n} trains", "bad": f"the trains {n} text"} for n in range(9)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["init", "tasks.toml", *FLAGS]) == 0
        recipe = (folder / "tasks.toml").read_text() + TASKS
        recipe = recipe.replace('tokens = "20k"', 'tokens = "1_024"')
        (folder / "tasks.toml").write_text(recipe)
        assert main(["prepare", "tasks.toml"]) == 0
        assert main(["train", "tasks.toml"]) == 0
    return folder


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def records_of(folder: Path) -> list[EvalRecord]:
    return RunFolder(folder / "runs" / "tasks").evals()


DOMAINS = {
    ("quiz", "multiple_choice"),
    ("words", "cloze"),
    ("words", "answer_bits_per_byte"),
    ("grammar", "minimal_pairs"),
    ("own_choice acc", "task_score"),
    ("own_choice acc_norm", "task_score"),
    ("own_rolling word_perplexity", "task_perplexity"),
    ("own_rolling byte_perplexity", "task_perplexity"),
    ("own_rolling bits_per_byte", "bits_per_byte"),
    ("own_writing exact_match", "task_score"),
}


def test_tasks_are_measured_in_the_loop_at_both_ends(folder: Path) -> None:
    records = records_of(folder)
    last = max(record.step for record in records)
    for step in (0, last):
        found = {(r.domain, r.metric) for r in records if r.step == step and r.role == "task"}
        assert found == DOMAINS
    between = {(r.domain, r.metric) for r in records if 0 < r.step < last}
    assert between == {("new", "bits_per_byte"), ("replay", "bits_per_byte")}


def test_a_comparison_finds_by_name_all_that_a_run_measures(folder: Path) -> None:
    """What the plan promises is there, and what is there beside it the plan says may be."""
    plan = load_plan(folder / "runs" / "tasks" / "plan.json")
    found = values_of(records_of(folder), from_base=True)
    promised = set(measured_by(plan)) - {
        "training_s",
        "planned_tflop",
        "planned_mib",
        "planned_peak_mib",
        "peak_mib",
        "matched_forgetting",  # of two runs together
    }
    assert promised <= found.keys()
    assert {"task.quiz", "task.words", "answers.words", "task.grammar"} <= promised
    beside = found.keys() - promised
    assert beside == {
        "harness.own_choice acc",
        "harness.own_choice acc_norm",
        "harness_perplexity.own_rolling word_perplexity",
        "harness_perplexity.own_rolling byte_perplexity",
        "held_out.own_rolling bits_per_byte",
        "harness.own_writing exact_match",
    }
    assert all(known_once_loaded(name, plan) for name in beside)
    assert {kind_of(name).better for name in beside if "perplexity" in name} == {"lower"}


def test_checkpoint_and_export_give_the_loops_figures(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To 1e-6, item by item: the live model, the weights read back, and what was exported."""
    run = RunFolder(folder / "runs" / "tasks")
    in_loop = {(r.domain, r.metric): r for r in records_of(folder) if r.step == 8}
    assert len(in_loop) == len(DOMAINS) + 2
    log = run.evals_log.read_text()
    run.evals_log.unlink()
    assert main(["evaluate", "tasks.toml"]) == 0
    of_checkpoint = {(r.domain, r.metric): r for r in records_of(folder) if r.step == 8}
    told = capsys.readouterr().out
    assert "own_choice" in told
    assert "score" in told
    run.evals_log.write_text(log)

    assert main(["export", "runs/tasks"]) == 0
    seen: list[EvalRecord] = []
    from rewarm.reporting.terminal import verdict_table

    def watched(records: list[EvalRecord]) -> object:
        seen.extend(records)
        return verdict_table(records)

    monkeypatch.setattr("rewarm.stages.evaluate.verdict_table", watched)
    assert main(["evaluate", "runs/tasks", "--model", "runs/tasks/export"]) == 0
    of_export = {(r.domain, r.metric): r for r in seen if r.step == 8}
    for found in (of_checkpoint, of_export):
        assert found.keys() == in_loop.keys()
        for key, record in in_loop.items():
            assert found[key].value == pytest.approx(record.value, rel=1e-6), key
            assert found[key].item_values == pytest.approx(record.item_values, rel=1e-5), key
            assert found[key].items_key == record.items_key


def test_the_report_and_the_card_tell_the_tasks(folder: Path) -> None:
    assert main(["report", "runs/tasks"]) == 0
    page = (folder / "runs" / "tasks" / "report.html").read_text()
    for told in ("Minimal pairs", "Cloze", "Tasks of lm-evaluation-harness", "own_writing"):
        assert told in page


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            'evaluation.harness.tasks=["own_chioce"]',
            "no task, group or tag 'own_chioce'\n    → did you mean own_choice",
        ),
        ('evaluation.harness.tasks=["arc_esy"]', "did you mean arc_easy"),
        ('evaluation.harness.tasks=["qqqqqqqqqq"]', "look at `lm_eval ls tasks`"),
        ('evaluation.harness.tasks=["a b"]', "'a b' cannot be the name of a task"),
        ("evaluation.harness.include_path=absent", "is not a folder"),
        ('evaluation.tasks.quiz.kind="close"', "evaluation.tasks.quiz.kind"),
        ('evaluation.tasks.grammar.path="own/cloze.jsonl"', "good is not a text"),
    ],
)
def test_mistakes_are_told_by_plan(
    capsys: pytest.CaptureFixture[str], override: str, told: str
) -> None:
    name = ["-o", "name=other", "-o", "prepared_folder=prepared"]
    assert main(["plan", "tasks.toml", *name, "-o", override]) == 2
    assert told in capsys.readouterr().err


def test_without_the_harness_it_is_told_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rewarm.evaluation.harness_index.harness_folder", lambda: None)
    assert main(["plan", "tasks.toml", "-o", "name=other"]) == 2
    assert "pip install 'rewarm[tasks]'" in capsys.readouterr().err
