"""The whole road with packed documents: plan, train, trace, resume, extend."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from rewarm.cli import main
from rewarm.planning.plan import Plan, load_plan
from rewarm.records.run_folder import RunFolder
from rewarm.reporting.report import render_run_report
from tests.support.html_page import Page
from tests.support.road import make_reader_folder

RECIPE = """
name = "r"
base = { path = "my-model", pretraining = { peak_lr = 1e-2, final_lr = 1e-3 } }
budget = { tokens = 5120 }
batch = { tokens = 512, sequence_length = 64, packing = "best-fit" }
sources.new = { path = "my-text", role = "new", held_out = 0.1 }
sources.old = { path = "my-old-text", role = "replay", held_out = 0.1, order = "stored" }
evaluation = { every_steps = 100, max_bytes_per_domain = 500, max_answers = 2 }
checkpoints = { every_steps = 4 }
schedule = { kind = "infinite", final_lr = "peak/10" }
training = { num_threads = 1, precision = "float32" }
phases = [{ name = "all", roles = { new = 0.5, old = 0.5 } }]
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder with texts of 4 to 60 words, prepared with `r.toml`."""
    folder = make_reader_folder(tmp_path_factory.mktemp("packing") / "reader")
    rng = random.Random(1)
    for name in ("my-text", "my-old-text"):
        for path in (folder / name).iterdir():
            words = path.read_text().split()[: rng.randint(4, 60)]
            path.write_text(f"{' '.join(words)} {name} {path.stem}")
    (folder / "r.toml").write_text(RECIPE)
    assert main(["prepare", str(folder / "r.toml")]) == 0
    return folder


@pytest.fixture(scope="module")
def trained(prepared: Path) -> Path:
    assert main(["train", str(prepared / "r.toml")]) == 0
    return prepared


def run_of(folder: Path, name: str = "r") -> tuple[RunFolder, Plan]:
    run = RunFolder(folder / "runs" / name)
    return run, load_plan(run.plan)


def traced(folder: Path, step: int, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["trace", str(folder), "--step", str(step), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_step_learns_from_the_tokens_that_its_trace_shows(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, plan = run_of(trained)
    science = plan.science
    records = run.steps()
    assert len(records) == science.num_steps == 10
    seen: list[int] = []
    for record in records:
        spans = traced(run.path, record.step, capsys)
        shown = sum(span["last"] - span["first"] for span in spans)
        assert record.num_valid_tokens == shown <= science.tokens_per_step
        assert record.num_tokens == (record.step + 1) * science.tokens_per_step
        seen.append(shown)
    assert min(seen) < science.tokens_per_step, "no step has padding: nothing is shown"
    old = [
        span["window"]
        for step in range(science.num_steps)
        for span in sorted(traced(run.path, step, capsys), key=lambda span: span["window"])
        if span["source"] == "old"
    ]
    assert sorted(set(old)) == list(range(max(old) + 1)), "the first windows, as they are stored"


def test_the_plan_is_of_bins(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(prepared / "r.toml")
    assert main(["plan", recipe, "-o", "name=p"]) == 0
    told = capsys.readouterr().out
    assert "cut although short" in told
    _, plan = run_of(prepared, "p")
    assert plan.science.packing == "best-fit"
    for source in plan.science.sources:
        facts = plan.conduct.packing[source.name]
        assert (source.bins, source.num_windows) == (facts.fingerprint, facts.best_fit.num_windows)
        assert facts.best_fit.num_text_tokens == facts.num_tokens - 1
        assert facts.best_fit.num_cut == facts.num_long < facts.contiguous.num_cut
        share = facts.best_fit.padding_share(64)
        assert 0 < share < 0.2, "made-up text fits well"
    assert main(["plan", recipe, "-o", "name=c", "-o", "batch.packing=contiguous"]) == 0
    assert "cut although short" in capsys.readouterr().out
    _, contiguous = run_of(prepared, "c")
    assert contiguous.science.packing == "contiguous"
    assert [source.bins for source in contiguous.science.sources] == [None, None]
    assert contiguous.fingerprint != plan.fingerprint


def test_the_report_has_both_ways_of_packing(trained: Path) -> None:
    run, plan = run_of(trained)
    rows = Page(render_run_report(run)).rows("source", "way")
    assert [row[:2] for row in rows] == [
        [name, way] for name in ("new", "old") for way in ("contiguous", "best-fit")
    ]
    facts = plan.conduct.packing["new"]
    documents, inputs = facts.num_documents, 64 * facts.best_fit.num_windows
    assert rows[1][2] == f"{facts.best_fit.num_windows}"
    assert rows[1][4:] == [
        f"{100 * (inputs - facts.num_tokens + 1) / inputs:.1f} %",
        f"{100 * facts.num_long / documents:.1f} %",
        "0.0 %",
    ]
    cut, short = facts.contiguous.num_cut, facts.contiguous.num_cut - facts.num_long
    assert rows[0][4:] == [
        "0.0 %",
        f"{100 * cut / documents:.1f} %",
        f"{100 * short / documents:.1f} %",
    ]


def test_another_length_is_packed_when_a_plan_asks_for_it(prepared: Path) -> None:
    recipe = str(prepared / "r.toml")
    folders = sorted((prepared / "prepared").iterdir())
    length = ("-o", "batch.sequence_length=32")
    assert main(["plan", recipe, *length, "-o", "name=s", "-o", "batch.packing=contiguous"]) == 0
    assert not [folder for folder in folders if (folder / "bins-32").exists()]
    assert not run_of(prepared, "s")[1].conduct.packing
    assert main(["plan", recipe, *length, "-o", "name=t"]) == 0
    assert all((folder / "bins-32" / "firsts.npy").exists() for folder in folders)


def test_a_plan_before_prepare_says_what_it_can(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    away = "prepared_folder='elsewhere'"
    assert main(["plan", str(prepared / "r.toml"), "-o", "name=e", "-o", away]) == 0
    assert "estimated from a sample" in capsys.readouterr().out
    _, plan = run_of(prepared, "e")
    for source in plan.science.sources:
        assert source.bins is None
        tokens = plan.conduct.corpora[source.name].num_tokens
        assert source.num_windows == -(-(tokens - 1) // 64)


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(trained: Path) -> None:
    recipe = str(trained / "r.toml")
    assert main(["train", recipe, "-o", "name=twice", "--until-step", "5"]) == 0
    assert main(["train", recipe, "-o", "name=twice"]) == 0
    weights = [
        (trained / "runs" / name / "checkpoints" / "step-00000010" / "model.safetensors")
        for name in ("r", "twice")
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_damaged_index_stops_the_run_and_prepare_mends_it(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "reader"
    shutil.copytree(trained, folder)
    shutil.rmtree(folder / "runs")
    recipe = str(folder / "r.toml")
    # A copy's files have other times, and other times are another text's: it is prepared here.
    assert main(["prepare", recipe]) == 0
    assert main(["plan", recipe]) == 0
    (path,) = [
        folder / "prepared" / found.name / "bins-64" / "firsts.npy"
        for found in (folder / "prepared").iterdir()
        if str(found.resolve()) == run_of(folder)[1].conduct.corpora["new"].folder
    ]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    capsys.readouterr()
    assert main(["train", str(folder / "runs" / "r")]) == 2
    assert "firsts.npy: it changed since prepare" in capsys.readouterr().err
    assert main(["prepare", recipe]) == 0
    assert path.read_bytes() == whole
    assert main(["train", str(folder / "runs" / "r"), "--until-step", "1"]) == 0


def test_an_extension_packs_as_its_run_does(trained: Path) -> None:
    run = str(trained / "runs" / "r")
    much = ("--budget", "+1024", "--anneal", "512")
    assert main(["extend", run, *much, "--at-step", "8", "--name", "more"]) == 0
    _, plan = run_of(trained, "more")
    assert plan.science.packing == "best-fit"
    assert plan.science.sources == run_of(trained)[1].science.sources
    assert plan.conduct.packing.keys() == {"new", "old"}
