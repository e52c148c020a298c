"""Selection, packing, conversations, subsets and caps in one recipe, on one process and on two."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewarm.cli import main
from rewarm.corpus.views import open_view
from rewarm.planning.plan import Plan, load_plan
from rewarm.records.run_folder import RunFolder
from rewarm.reporting.report import render_run_report
from tests.support.chat import CHAT_TEMPLATE, give_chat_template
from tests.support.html_page import Page
from tests.support.ranks import ROOT, free_port
from tests.support.road import SENTENCE, make_reader_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TURNS = CHAT_TEMPLATE.replace("\n{% endfor %}", "{{ '\\n' }}{% endfor %}")
RECIPE = """
name = "alone"
base = { path = "my-model", pretraining = { peak_lr = 1e-2, final_lr = 1e-3 } }
budget = { tokens = 5120 }
batch = { tokens = 512, sequence_length = 64, packing = "best-fit" }
evaluation = { every_steps = 100, max_bytes_per_domain = 500, max_answers = 2 }
checkpoints = { every_steps = 4, keep = 9 }
schedule = { kind = "infinite", final_lr = "peak/10" }
training = { num_threads = 1, precision = "float32" }

[sources.new]
path = "short.jsonl"
role = "new"
held_out = 0.1
max_epochs = 2
keep = { lowest = "perplexity", share = 0.4, reference = "book" }

[sources.talk]
path = "talk.jsonl"
format = "chat"
role = "new"
held_out = 0.1
keep = { highest = "base-loss", share = 0.5 }
subset = { share = 0.5, redraw = true }

[sources.old]
path = "my-old-text"
role = "replay"
held_out = 0.1

[sources.book]
path = "book.jsonl"
role = "quality"
held_out = 0.1

[[phases]]
name = "all"
weights = "unimax"
among = ["new", "talk", "old"]
"""


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder with short texts and talks, prepared and trained on one process."""
    folder = make_reader_folder(tmp_path_factory.mktemp("seams") / "reader")
    give_chat_template(folder / "my-model", TURNS)
    rng = random.Random(2)

    def text(longest: int) -> str:
        return " ".join(rng.choices(SENTENCE.split(), k=rng.randint(1, longest)))

    write_lines(folder / "short.jsonl", [{"text": f"{text(40)} {n}"} for n in range(300)])
    write_lines(folder / "book.jsonl", [{"text": f"learn {text(40)} {n}"} for n in range(80)])
    write_lines(
        folder / "talk.jsonl",
        [
            {
                "messages": [
                    {"role": role, "content": f"{text(12)} {n}"}
                    for _ in range(rng.randint(1, 3))
                    for role in ("user", "assistant")
                ]
            }
            for n in range(200)
        ],
    )
    (folder / "r.toml").write_text(RECIPE)
    for verb in ("prepare", "train"):
        assert main([verb, str(folder / "r.toml")]) == 0
    return folder


def run_of(folder: Path, name: str) -> tuple[RunFolder, Plan]:
    run = RunFolder(folder / "runs" / name)
    return run, load_plan(run.plan)


def train_on_two(recipe: Path, *overrides: str) -> None:
    """Train as `torchrun --nproc-per-node 2` does."""
    given = [
        part
        for override in overrides
        for part in ([override] if override.startswith("--") else ["-o", override])
    ]
    ranks = ["--nproc-per-node", "2", "--master-port", str(free_port())]
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", *ranks, "-m", "rewarm"),
            *("train", str(recipe), *given),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr


def test_two_ranks_learn_what_one_process_does(trained: Path) -> None:
    """Packed windows hold unlike numbers of labels: a mean of the ranks' means would be another."""
    train_on_two(trained / "r.toml", "name=two")
    (alone, plan), (two, other) = run_of(trained, "alone"), run_of(trained, "two")
    assert plan.fingerprint == other.fingerprint
    found, expected = two.steps(), alone.steps()
    assert len(found) == plan.science.num_steps == 10
    for one, both in zip(expected, found, strict=True):
        assert both.samples == one.samples
        assert both.num_valid_tokens == one.num_valid_tokens < plan.science.tokens_per_step
        assert both.loss == pytest.approx(one.loss, rel=2e-6)
        assert both.grad_norm == pytest.approx(one.grad_norm, rel=2e-5)


def test_one_process_goes_on_where_two_stopped(trained: Path) -> None:
    train_on_two(trained / "r.toml", "name=more", "--until-step=4")
    assert main(["train", str(trained / "r.toml"), "-o", "name=more"]) == 0
    found, expected = (run_of(trained, name)[0].steps() for name in ("more", "alone"))
    assert [record.samples for record in found] == [record.samples for record in expected]
    assert found[-1].loss == pytest.approx(expected[-1].loss, rel=2e-6)


def counted_tokens(plan: Plan, name: str) -> tuple[np.ndarray, dict[str, int]]:
    """Return which of a source's kept tokens count, in a row, and where each document begins."""
    facts = plan.conduct.corpora[name]
    view = open_view(facts)
    starts = {view.document_id(i): int(view.offsets[i]) for i in range(view.num_documents)}
    row = np.ones(view.num_tokens, dtype=bool)
    if name == "talk":
        (mask,) = Path(facts.folder).glob("shard-*.labels.bin")
        (ids,) = Path(facts.folder).glob("shard-*.ids")
        (index,) = Path(facts.folder).glob("shard-*.idx")
        stored = np.fromfile(mask, dtype=bool)
        names = [json.loads(line) for line in ids.read_text().splitlines()]
        header = index.read_bytes()
        lengths = np.frombuffer(header, dtype="<i4", count=len(names), offset=34)
        firsts = np.cumsum(lengths) - lengths
        for number, identity in enumerate(names):
            if identity in starts:
                at = starts[identity]
                row[at : at + lengths[number]] = stored[firsts[number] :][: lengths[number]]
    return row, starts


def test_labels_of_a_step_are_those_that_its_trace_and_masks_give(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counted another way than by the loader: spans of documents, and the masks of whole shards."""
    run, plan = run_of(trained, "alone")
    counted = {name: counted_tokens(plan, name) for name in ("new", "talk", "old")}
    assert len(counted["new"][1]) == plan.conduct.corpora["new"].num_documents < 0.7 * 300
    talk = plan.conduct.corpora["talk"]
    assert talk.num_label_tokens == counted["talk"][0].sum() < talk.num_tokens
    for record in run.steps():
        capsys.readouterr()
        assert main(["trace", str(run.path), "--step", str(record.step), "--json"]) == 0
        expected = 0
        for line in capsys.readouterr().out.splitlines():
            span = json.loads(line)
            row, starts = counted[span["source"]]
            at = starts[span["document"]] + 1  # a label is the token after
            expected += int(row[at + span["first"] : at + span["last"]].sum())
        assert record.num_valid_tokens == expected


def test_a_branch_and_an_extension_keep_what_the_run_kept(trained: Path) -> None:
    run, plan = run_of(trained, "alone")
    assert main(["branch", str(run.path), "--at-step", "8", "--anneal", "1024", "--name", "b"]) == 0
    given = ["--budget", "+1024", "--recipe", str(trained / "r.toml"), "--name", "e"]
    assert main(["extend", str(run.path), "--at-step", "8", *given]) == 0
    for name in ("b", "e"):
        _, later = run_of(trained, name)
        assert later.science.sources == plan.science.sources
        for source in plan.science.sources:
            corpora = (one.conduct.corpora[source.name] for one in (plan, later))
            first, then = (corpus.selection for corpus in corpora)
            assert first == then


def test_held_out_documents_are_never_kept(trained: Path) -> None:
    _, plan = run_of(trained, "alone")
    for name in ("new", "talk"):
        facts = plan.conduct.corpora[name]
        held_out = open_view(facts, held_out=True)
        ids = {held_out.document_id(index) for index in range(held_out.num_documents)}
        assert len(ids) == facts.held_out_documents > 5
        assert not ids & counted_tokens(plan, name)[1].keys()


def test_the_report_tells_of_packing_and_selection(trained: Path) -> None:
    run, plan = run_of(trained, "alone")
    page = Page(render_run_report(run))
    kept = {row[0]: row[1:] for row in page.rows("source", "keeps")}
    assert kept["new"][0] == "lowest perplexity (book)"
    assert kept["talk"][0] == "highest base-loss"
    assert kept["new"][1] == str(plan.conduct.corpora["new"].num_documents)
    packed = [row for row in page.rows("source", "way") if row[1] == "best-fit"]
    assert [row[0] for row in packed] == ["new", "talk", "old"]
    assert [row[2] for row in packed] == [
        f"{plan.conduct.packing[row[0]].best_fit.num_windows:,}" for row in packed
    ]
