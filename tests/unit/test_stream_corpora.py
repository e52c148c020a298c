"""Streams of corpora: tasks as phases, the memory of documents, the matrix; nothing is trained."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from rewarm.cli import main
from rewarm.corpus.encoding import TEXT_HASHES
from rewarm.corpus.packed import open_windows
from rewarm.corpus.shards import open_shard
from rewarm.corpus.views import kept_documents, open_view
from rewarm.errors import RecipeError
from rewarm.order.position import OrderPhase, OrderSpec
from rewarm.planning.plan import Plan, load_plan
from rewarm.records.facts import EvalRecord
from rewarm.records.run_folder import RunFolder
from rewarm.records.stream import StreamResult
from rewarm.reporting.stream_page import render_stream_page
from rewarm.reporting.stream_terminal import print_stream
from rewarm.stages import stream_corpora
from rewarm.stages.held_plans import changed_held_out
from rewarm.stages.launches import Launch
from rewarm.stages.stream_corpora_plans import CorporaPlans
from rewarm.stages.trace import trace_step
from rewarm.stream.cells import Cell
from rewarm.stream.courses import draft, order_of
from rewarm.stream.documents import DocumentMemory, KeptDocument, shown_documents
from rewarm.stream.experiment import read_stream
from rewarm.stream.memory import ClassBalanced, Reservoir
from rewarm.stream.metrics import Look, metrics_of_losses
from tests.support.streams import CORPORA, write_corpora

# --- metrics of losses, by numbers worked by hand ---


def test_metrics_of_losses_by_hand() -> None:
    matrix = [[2.0], [2.5, 1.5], [2.25, 2.0, 1.0]]
    looks = [Look(1, 10, {0: 3.0}), Look(2, 10, {0: 2.75, 1: 2.5})]
    found = metrics_of_losses(matrix, looks)
    assert found.final == pytest.approx(1.75)  # (2.25 + 2 + 1) / 3
    assert found.forgetting == pytest.approx(0.375)  # (2.25 − 2 + 2 − 1.5) / 2: worse
    assert found.bwt == pytest.approx(-0.375)  # worse than right after it was learned
    assert found.min_acc == pytest.approx(2.75)  # the worst: (3 + 2.5) / 2
    assert found.wc_acc == pytest.approx(1.0 / 3 + 2 / 3 * 2.75)
    # task 2: 3 − 2; task 3: 2.75 − 2.5 and 2.5 − 1.5
    assert found.stability_gap == pytest.approx((1.0 + 0.25 + 1.0) / 3)


def test_what_a_task_gains_later_is_not_forgotten() -> None:
    found = metrics_of_losses([[2.0], [1.5, 1.0]], [])
    assert found.forgetting == pytest.approx(-0.5)
    assert found.bwt == pytest.approx(0.5)


# --- the memory of documents ---


def test_documents_count_as_a_phase_shows_them() -> None:
    # Two sequences a step; in the second phase one of them is replayed. Windows in stored order.
    order = OrderSpec(
        seed=1,
        sequences_per_step=2,
        source_names=("a", "b"),
        num_windows=(4, 3),
        phases=(OrderPhase(0, 2, (65_536, 0)), OrderPhase(2, 5, (32_768, 32_768))),
        drawings=(),
    )
    windows = {0: [0, 1], 1: [1], 2: [1, 2], 3: [3]}
    assert set(shown_documents(order, 0, "a", windows.__getitem__)) == {0, 1, 2, 3}
    # Three more sequences of it: the first three of its second pass, whichever these are.
    again = shown_documents(order, 1, "a", windows.__getitem__)
    assert len(again) == len(set(again)) <= 4
    assert sorted(shown_documents(order, 1, "b", lambda window: [10 * window])) == [0, 10, 20]


def test_a_memory_of_documents_hangs_on_the_seed_and_on_what_was_shown_alone() -> None:
    def filled(seed: int) -> list[KeptDocument]:
        memory = DocumentMemory(Reservoir(5), seed)
        memory.offer(0, "a", range(20))
        memory.offer(1, "b", [7, 3, 9])
        return memory.kept()

    assert filled(1) == filled(1)
    assert filled(1) != filled(2)
    assert len(set(filled(1))) == 5


def test_every_document_is_kept_equally_often() -> None:
    counts = np.zeros(9)
    for seed in range(1000):
        memory = DocumentMemory(Reservoir(3), seed)
        memory.offer(0, "a", range(6))
        memory.offer(1, "b", range(3))
        for document in memory.kept():
            counts[document.number + (6 if document.corpus == "b" else 0)] += 1
    # 1,000 draws of probability 1/3: standard deviation 14.9, five of them
    assert np.abs(counts - 333).max() < 75


def test_a_balanced_memory_keeps_as_many_of_each_corpus() -> None:
    memory = DocumentMemory(ClassBalanced(6), 0)
    memory.offer(0, "a", range(50))
    memory.offer(1, "b", range(4))
    memory.offer(2, "c", range(50))
    kept = [document.corpus for document in memory.kept()]
    assert [kept.count(name) for name in "abc"] == [2, 2, 2]


# --- a whole stream, whose training is pretended ---


def _level(run: RunFolder, step: int, domain: str) -> float:
    """What the pretended training is measured at: a figure that nothing else comes to."""
    learner = 0.25 if "/er/" in run.path.as_posix() else 0.5
    return {"words": 4.0, "numbers": 3.0, "code": 2.0}[domain] + learner / (1 + step)


def _pretend(launches: Sequence[Launch], **_: Any) -> dict[str, str]:
    for launch in launches:
        plan, run = launch.plan, launch.run
        if launch.is_done:
            continue
        for step in plan.conduct.evaluation_steps:
            run.append_evals(_record(run, step, name) for name in ("words", "numbers", "code"))
    return {launch.name: "done" for launch in launches}


def _record(run: RunFolder, step: int, domain: str) -> EvalRecord:
    return EvalRecord(
        step=step,
        domain=domain,
        role="new",
        metric="bits_per_byte",
        value=_level(run, step, domain),
        standard_error=None,
        item_values=(1.0,),
        item_weights=(1,),
        seconds=0.0,
    )


@pytest.fixture(scope="module")
def streamed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an experiment that was carried out."""
    folder = tmp_path_factory.mktemp("corpora")
    learners = 'joint = { algorithm = "joint" }\n[recipe]\n'
    path = write_corpora(folder, CORPORA.replace("[recipe]\n", learners))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_corpora, "run_here", _pretend)
        assert main(["stream", str(path)]) == 0
    return folder


def _result(folder: Path) -> StreamResult:
    text = (folder / "streams" / "domains" / "result.json").read_text()
    return StreamResult.model_validate_json(text)


def _plan(folder: Path, learner: str, seed: int = 1, name: str = "") -> Plan:
    run = folder / "streams" / "domains" / "runs" / "base" / learner / f"seed-{seed}" / name
    return load_plan(run / "plan.json")


def test_tasks_are_phases_of_one_run_with_as_many_steps_for_every_learner(streamed: Path) -> None:
    naive, replayed = _plan(streamed, "fine-tune").science, _plan(streamed, "er").science
    ends = [(phase.start_step, phase.end_step) for phase in naive.phases]
    assert ends == [(0, 6), (6, 12), (12, 18)]  # 1,536 tokens are 6 steps of 4 sequences of 64
    assert [(phase.start_step, phase.end_step) for phase in replayed.phases] == ends
    assert naive.schedule == replayed.schedule
    assert [phase.samples for phase in naive.phases] == [(24, 0, 0), (0, 24, 0), (0, 0, 24)]
    # One of a step's four sequences is replayed, from the second task on.
    assert [source.name for source in replayed.sources][3:] == ["memory-2", "memory-3"]
    assert [phase.samples for phase in replayed.phases] == [
        (24, 0, 0, 0, 0),
        (0, 18, 0, 6, 0),
        (0, 0, 18, 0, 6),
    ]


def test_a_joint_run_mixes_the_corpora_so_far_anew(streamed: Path) -> None:
    (phase,) = _plan(streamed, "joint", name="after-2").science.phases
    assert (phase.end_step, phase.samples) == (12, (24, 24))
    assert _plan(streamed, "joint", name="after-3").conduct.evaluation_steps == (0, 18)


def test_the_rate_is_the_infinite_schedules(streamed: Path) -> None:
    science = _plan(streamed, "er").science
    rates = [science.lr(step) for step in range(18)]
    constant = 0.55 * 1e-2
    # Cooled down after 0.6 of the first task, annealed over 0.15 of the last.
    assert rates[4:17] == pytest.approx([constant] * 13)
    assert max(rates) == pytest.approx(1e-2)
    assert science.schedule[-1].shape == "exponential"
    assert science.schedule[-1].end_lr == pytest.approx(1e-3)


def test_a_memory_holds_what_the_tasks_before_have_shown(streamed: Path) -> None:
    plan = _plan(streamed, "er")
    for task, start in ((2, 0), (3, 6)):
        shown = {
            f"{row['source']}: {row['document']}"
            for step in range(start + 6)
            for row in trace_step(plan, step)
            if not str(row["source"]).startswith("memory")
        }
        folder = streamed / "streams" / "domains" / "memories" / "base" / "er" / "seed-1"
        ids = (folder / f"task-{task}" / "memory.ids").read_text().splitlines()
        kept = [json.loads(line) for line in ids]
        assert len(kept) == len(set(kept)) == 12
        assert set(kept) <= shown
    of_numbers = [name for name in kept if name.startswith("numbers")]
    assert 0 < len(of_numbers) < 12


def test_what_is_replayed_is_to_the_token_what_was_prepared(streamed: Path) -> None:
    plan = _plan(streamed, "er")
    folder = streamed / "streams" / "domains" / "memories" / "base" / "er" / "seed-1" / "task-2"
    shard = open_shard(folder / "memory")
    view = open_view(plan.conduct.corpora["words"])
    own = {view.document_id(k): view.document(k).tolist() for k in range(view.num_documents)}
    for line, name in enumerate((folder / "memory.ids").read_text().splitlines()):
        first, last = shard.document_starts[line : line + 2]
        found = shard.tokens(int(first), int(last)).tolist()
        assert found == own[json.loads(name).removeprefix("words: ")]
    # And the run's windows of it are read from these tokens.
    source = next(s for s in plan.science.sources if s.name == "memory-2")
    windows = open_windows(plan.conduct.corpora["memory-2"], 64, source.bins)
    first = windows.sequences(np.array([0]), 64).inputs[0].tolist()
    assert first == shard.tokens(0, 64).tolist()


def test_a_memory_does_not_send_the_corpora_through_curation_again(streamed: Path) -> None:
    (drops,) = (streamed / "prepared").glob("words-*/dropped")
    assert len(list(drops.iterdir())) == 1


def test_the_matrix_is_what_was_measured_at_the_ends_of_tasks(streamed: Path) -> None:
    result = _result(streamed)
    (run,) = [r for r in result.runs if (r.learner, r.seed) == ("er", 1)]
    assert run.order == ("words", "numbers", "code")
    assert run.before == (4.25, 3.25, 2.25)
    assert run.matrix == (
        (4 + 0.25 / 7,),
        (4 + 0.25 / 13, 3 + 0.25 / 13),
        (4 + 0.25 / 19, 3 + 0.25 / 19, 2 + 0.25 / 19),
    )
    looks = {(task, step): values for task, step, values in run.looks}
    assert list(looks) == [(1, 2), (1, 4), (2, 2), (2, 4)]
    assert looks[2, 4] == (4 + 0.25 / 17, 3 + 0.25 / 17)
    (joint,) = [r for r in result.runs if (r.learner, r.seed) == ("joint", 2)]
    assert joint.matrix[1] == (4 + 0.5 / 13, 3 + 0.5 / 13)
    assert joint.metrics["stability_gap"] is None


def test_differences_are_told_in_bits_and_less_is_better(streamed: Path) -> None:
    result = _result(streamed)
    effect = next(e for e in result.primary if e.arm == "base/er")
    assert (effect.unit, effect.better) == ("bits per byte", "lower")
    assert effect.mean == pytest.approx(-0.25 / 19)
    page = render_stream_page(result)
    for part in ("3 corpora, one after the other", "bits per byte", "words", "after task 0: 4.250"):
        assert part in page
    assert "accurac" not in page
    console = Console(width=140, record=True, file=io.StringIO())
    print_stream(result, console)
    assert "worst" in console.export_text()


def test_what_is_done_is_left_as_it_is(streamed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = streamed / "streams" / "domains"
    before = (folder / "result.json").read_bytes()
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "memories").rglob("memory.bin")}
    monkeypatch.setattr(stream_corpora, "run_here", _pretend)
    assert main(["stream", str(streamed / "stream.toml")]) == 0
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert _runs(before) == _runs((folder / "result.json").read_bytes())


def test_a_run_that_lost_what_was_measured_on_its_way_is_told(
    streamed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rows of the matrix are measured on the way: there is nothing in their place."""
    run = RunFolder(streamed / "streams/domains/runs/base/er/seed-1")
    kept = run.evals_log.read_bytes()
    lines = kept.splitlines(keepends=True)
    monkeypatch.setattr(stream_corpora, "run_here", _pretend)
    try:
        run.evals_log.write_bytes(b"".join(line for line in lines if json.loads(line)["step"] != 6))
        assert main(["stream", str(streamed / "stream.toml")]) == 1
        told = " ".join(capsys.readouterr().out.split())
        assert "what was measured after 6 steps is not on record" in told
        assert f"move {run.path} away" in told
    finally:
        run.evals_log.write_bytes(kept)
    assert main(["stream", str(streamed / "stream.toml")]) == 0


def test_a_damaged_memory_is_written_anew_to_the_byte(
    streamed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = streamed / "streams" / "domains"
    shard = folder / "memories" / "base" / "er" / "seed-2" / "task-3" / "memory.bin"
    whole = shard.read_bytes()
    shard.write_bytes(b"\0" * len(whole))
    monkeypatch.setattr(stream_corpora, "run_here", _pretend)
    assert main(["stream", str(streamed / "stream.toml")]) == 0
    assert shard.read_bytes() == whole


def _runs(text: bytes) -> Any:
    return json.loads(text)["runs"]


def test_another_memory_is_refused_once_a_run_has_begun(
    streamed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = streamed / "stream.toml"
    text = path.read_text()
    run = streamed / "streams" / "domains" / "runs" / "base" / "er" / "seed-1"
    evals = run / "metrics" / "evals.jsonl"
    kept = evals.read_bytes()
    (run / "metrics" / "steps.jsonl").write_text("")
    evals.write_bytes(b"")  # it has begun, and is not done
    monkeypatch.setattr(stream_corpora, "run_here", _pretend)
    path.write_text(text.replace("size = 12", "size = 10"))
    try:
        assert main(["stream", str(path)]) == 2
        said = capsys.readouterr().err
        assert "this run has begun under another plan" in said
        assert "give the experiment another name, or undo the change" in said
        assert "run_folder" not in said  # an experiment has none
    finally:
        path.write_text(text)
        (run / "metrics" / "steps.jsonl").unlink()
        evals.write_bytes(kept)


@pytest.mark.parametrize(
    ("old", "new", "said", "times"),
    [
        ("lr = 1e-2", "lr = 1e-3", "another plan: schedule", 1),
        # Each seed has another memory.
        ("size = 12", "size = 10", "another plan: the text of source 'memory-2'", 2),
        ("evaluate_every = 2", "evaluate_every = 3", "every_steps was 2, and is 3", 1),
        ("evaluate_every = 2\n", "", "every_steps was 2, and is 18", 1),
        ("domain = 2000", "domain = 1000", "max_bytes_per_domain was 2000, and is 1000", 1),
    ],
)
def test_a_run_that_is_done_is_held_to_its_settings(
    old: str,
    new: str,
    said: str,
    times: int,
    streamed: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = streamed / "stream.toml"
    text = path.read_text()
    logs = [log.with_name("steps.jsonl") for log in streamed.rglob("metrics/evals.jsonl")]
    result = (streamed / "streams" / "domains" / "result.json").read_bytes()
    assert text.count(old) == 1
    monkeypatch.setattr(stream_corpora, "run_here", lambda *_, **__: pytest.fail("trained"))
    try:
        for log in logs:
            log.write_text("")
        path.write_text(text.replace(old, new))
        assert main(["stream", str(path)]) == 2
        assert capsys.readouterr().err.count(said) == times  # not once for each run
    finally:
        path.write_text(text)
        for log in logs:
            log.unlink()
    assert (streamed / "streams" / "domains" / "result.json").read_bytes() == result
    monkeypatch.setattr(stream_corpora, "run_here", _pretend)
    assert main(["stream", str(path)]) == 0  # the memories are as they were, too


_TRAINED = b'{"text": "a document that is not held out"}\n'


def test_text_that_changed_behind_done_runs_is_told(
    streamed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = streamed / "words.jsonl"
    whole, when = text.read_bytes(), text.stat()
    logs = [log.with_name("steps.jsonl") for log in streamed.rglob("metrics/evals.jsonl")]
    monkeypatch.setattr(stream_corpora, "run_here", lambda *_, **__: pytest.fail("trained"))
    try:
        for log in logs:
            log.write_text("")
        for changed, said in (
            (whole.replace(b"the", b"eht"), "words holds out other text"),
            (whole + _TRAINED, "the text of source 'words', or how it is read, changed"),
        ):
            text.write_bytes(changed)
            assert main(["stream", str(streamed / "stream.toml")]) == 2
            assert capsys.readouterr().err.count(said) == 1  # not once for each run
    finally:
        text.write_bytes(whole)
        os.utime(text, ns=(when.st_atime_ns, when.st_mtime_ns))
        for log in logs:
            log.unlink()
    monkeypatch.setattr(stream_corpora, "run_here", _pretend)
    assert main(["stream", str(streamed / "stream.toml")]) == 0


def test_held_out_text_of_the_same_size_is_told_apart(streamed: Path, tmp_path: Path) -> None:
    """A word put right in a document of a group that is held out changes neither count."""
    plan = _plan(streamed, "er")
    facts = plan.conduct.corpora["words"]
    shutil.copytree(facts.folder, tmp_path / "copy")
    copy = facts.model_copy(update={"key": "of a copy", "folder": str(tmp_path / "copy")})
    corpora = {**plan.conduct.corpora, "words": copy}
    conduct = plan.conduct.model_copy(update={"corpora": corpora})
    other = plan.model_copy(update={"conduct": conduct})
    assert list(changed_held_out(plan, other)) == []
    (path,) = (tmp_path / "copy").glob(f"*{TEXT_HASHES}")
    hashes = np.load(path)
    hashes[kept_documents(copy, held_out=True)[0]] += 1
    np.save(path, hashes)
    assert list(changed_held_out(plan, other)) == ["words holds out other text"]


def test_figures_whose_plan_is_lost_are_not_believed(
    streamed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(streamed / "streams/domains/runs/base/er/seed-1")
    whole = run.plan.read_bytes()
    monkeypatch.setattr(stream_corpora, "run_here", lambda *_, **__: pytest.fail("trained"))
    try:
        run.steps_log.write_text("")
        run.plan.write_bytes(whole[:100])
        assert main(["stream", str(streamed / "stream.toml")]) == 2
        assert "what its figures are of is not known" in capsys.readouterr().err
    finally:
        run.steps_log.unlink()
        run.plan.write_bytes(whole)


def test_backbones_of_one_name_on_the_disk_begin_from_bases_of_their_own(
    tmp_path: Path, tiny_base: Path
) -> None:
    for name in ("a", "b"):
        shutil.copytree(tiny_base, tmp_path / name / "model")
    config = tmp_path / "b" / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "rms_norm_eps": 1e-4}))
    scratch = 'path = "{0}/model"\nfrom_scratch = true\nlr = 1e-2\n'
    both = f"[backbones.a]\n{scratch.format('a')}[backbones.b]\n{scratch.format('b')}"
    path = tmp_path / "stream.toml"
    path.write_text(CORPORA.replace('[backbones.base]\npath = "base"\nlr = 1e-2\n', both))
    plans = CorporaPlans(read_stream(path))
    found = [Path(plans._base_of(name, 1)) for name in ("a", "b", "a")]
    assert found[0] == found[2] != found[1]
    eps = [json.loads((base / "config.json").read_text())["rms_norm_eps"] for base in found[:2]]
    assert eps[0] != eps[1] == 1e-4
    assert len(list((tmp_path / "streams/domains/bases").glob("*/*"))) == 2  # none put aside


# --- what may be written ---


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("batch = 1\n", "batch = 4\n", "leave none for the stream"),
        ('{ algorithm = "er" }', '{ algorithm = "lwf" }', "lwf does not learn corpora"),
        ('{ algorithm = "er" }', '{ algorithm = "er", ewc = 1.0 }', "no meaning with corpora"),
        ('{ algorithm = "er" }', "{ algorithm = [] }", "learners.er.algorithm: Input should be"),
        ("lr = 1e-2\n", "", "backbones.base.lr: is missing"),
        ('path = "base"\n', 'small = "bytes"\n', "it reads no corpora"),
        ('kind = "corpora"\n', 'kind = "corpora"\npath = "x"\n', "it is for labelled examples"),
        ("[recipe]\n", "[recipe]\nseed = 3\n", "recipe.seed: the stream says so itself"),
        ("[scenario]\n", "[scenario]\ntasks = 2\n", "2 tasks of 3 corpora"),
        (
            'name = "domains"\n',
            'name = "domains"\npreset = "strong-simple-baseline"\n',
            "no classes",
        ),
        ("[recipe]\n", '[recipe]\nscedule = { kind = "wsd" }\n', "recipe.scedule"),
        ("[recipe]\n", '[recipe]\nschedule = "wsd"\n', "recipe.schedule: 'wsd' is no table"),
        ("batch = { sequence_length = 64 }", "batch = 5", "recipe.batch: 5 is no table"),
        ('path = "code.jsonl"\n', 'path = "code.jsonl"\nheld_out = 0\n', "could be measured"),
    ],
)
def test_what_means_nothing_is_refused(
    old: str,
    new: str,
    said: str,
    tmp_path: Path,
    tiny_base: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert CORPORA.count(old) == 1
    path = tmp_path / "stream.toml"
    path.write_text(CORPORA.replace(old, new).replace('"base"', f'"{tiny_base}"', 1))
    assert main(["stream", str(path), "--dry-run"]) == 2
    assert said in capsys.readouterr().err


def test_contrasts_of_what_nobody_will_have_measured_are_refused(tmp_path: Path) -> None:
    contrast = (
        '[[contrasts]]\ncell = "base/er"\nagainst = "base/{0}"\nexpect = "lower"\n'
        'metric = "min_acc"\n'
    )
    path = tmp_path / "e.toml"
    joint = CORPORA.replace("[recipe]\n", 'all = { algorithm = "joint" }\n[recipe]\n')
    path.write_text(joint.replace("evaluate_every = 2\n", "") + contrast.format("all"))
    with pytest.raises(RecipeError) as caught:
        read_stream(path)
    said = [(problem.where, problem.what) for problem in caught.value.problems]
    assert said == [
        ("contrasts[0].metric", "min_acc is told by looks within tasks, and there are none"),
        ("contrasts[0].metric", "all has no min_acc: joint learns corpora anew for each task"),
    ]
    path.write_text(joint + contrast.format("fine-tune"))
    assert read_stream(path).experiment.contrasts[0].metric == "min_acc"


def test_keys_of_corpora_are_refused_of_labelled_examples(tmp_path: Path) -> None:
    path = tmp_path / "e.toml"
    path.write_text(
        '[source]\nkind = "text"\npath = "x"\n[scenario]\ntokens = 5\n[recipe]\n[backbones]\n'
    )
    with pytest.raises(RecipeError) as caught:
        read_stream(path)
    said = str(caught.value)
    assert "scenario.tokens: it is for corpora" in said
    assert "scenario.tasks: is missing" in said
    assert "recipe: it is for corpora" in said


def test_a_memory_of_less_than_a_sequence_is_told(
    streamed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (streamed / "stream.toml").read_text().replace('"domains"', '"short"')
    text = text.replace("size = 12", "size = 1").replace("length = 64", "length = 128")
    (streamed / "short.toml").write_text(text)
    assert main(["stream", str(streamed / "short.toml")]) == 2
    said = capsys.readouterr().err
    assert "memory.size: memory-2" in said
    assert "do not fill one window" in said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("sequence_length = 64", "sequence_length = 64, packing = 3", "recipe.batch.packing"),
        ("tokens = 1536", 'tokens = "1M"', "1 pass over words"),
        ("tokens = 1536", "tokens = 100", "no step of 4 sequences of 64"),
        ("[recipe]\n", '[recipe]\nschedule = { kind = "wsd", decay_fraction = 2 }\n', "recipe."),
    ],
)
def test_what_cannot_be_planned_is_told_before_anything_is_trained(
    old: str,
    new: str,
    said: str,
    streamed: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(stream_corpora, "run_here", lambda *_, **__: pytest.fail("trained"))
    path = streamed / "other.toml"
    text = (streamed / "stream.toml").read_text().replace('"domains"', '"other"')
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    assert main(["stream", str(path)]) == 2
    assert said in capsys.readouterr().err


def test_the_order_of_corpora_is_given_or_drawn_by_the_seed(tmp_path: Path) -> None:
    path = tmp_path / "e.toml"
    path.write_text(CORPORA)
    given = read_stream(path).experiment
    assert {order_of(given, seed) for seed in range(9)} == {("words", "numbers", "code")}
    path.write_text(CORPORA.replace('order = "given"\n', ""))
    drawn = read_stream(path).experiment
    assert order_of(drawn, 1) == order_of(drawn, 1)
    assert len({order_of(drawn, seed) for seed in range(30)}) == 6


def test_the_revision_of_a_backbone_is_that_of_the_base(tmp_path: Path) -> None:
    text = CORPORA.replace('path = "base"\n', 'path = "org/model"\nrevision = "v1"\n')
    (tmp_path / "e.toml").write_text(text)
    experiment = read_stream(tmp_path / "e.toml").experiment
    cell = Cell("base", "er")
    assert draft(experiment, cell, "org/model", 64).base.revision == "v1"
    assert draft(experiment, cell, "drawn/anew", 64).base.revision is None
