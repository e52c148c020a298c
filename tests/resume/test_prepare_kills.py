"""SIGKILL at random moments of `prepare` with curation; then the same command: the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.tiny_models import make_tiny_base

pytest.importorskip("datatrove")
pytest.importorskip("spacy")

RECIPE = """\
name = "r"
base = { path = "base", pretraining = { peak_lr = 1e-3, final_lr = 1e-4 } }
budget = { tokens = 2_048 }
batch = { tokens = 256, sequence_length = 64 }
phases = [{ name = "a", weights = { web = 0.5, old = 0.5 } }]
[sources.web]
path = "web/*.jsonl"
role = "new"
held_out = 0.1
keep = { highest = "perplexity", share = 0.5, reference = "old", ngram = 2 }
[sources.web.curate]
quality = "gopher"
gopher = { min_stop_words = 0, min_doc_words = 20 }
dedup = "minhash"
[sources.old]
path = "old.jsonl"
role = "replay"
held_out = 0.1
[evaluation.tasks]
quiz = { path = "quiz.jsonl" }
"""
# Small shards and pieces, and slow flushes, so that a good part of the time is spent between the
# writing of a file and of the mark that it is whole.
CHILD = """
import sys, time
import spacy, datatrove.pipeline.filters, datatrove.pipeline.dedup
import rewarm.artifacts, rewarm.corpus.place as place, rewarm.corpus.encoding as encoding
import rewarm.corpus.decontaminate as decontaminate, rewarm.corpus.duplicates as duplicates
import rewarm.stages.prepare, rewarm.corpus.prepare as prepare
from rewarm.cli import main
place._SHARD_INPUT_BYTES = 4000
decontaminate._TOKENS_PER_PIECE = 3000
duplicates._LEAST_PIECE_TOKENS = 3000
flush = encoding.flushed_size
def slow(path):
    time.sleep(0.003)
    return flush(path)
encoding.flushed_size = slow
write = prepare.write_json
def slow_json(path, value):
    time.sleep(0.03)
    write(path, value)
prepare.write_json = slow_json
print("ready", flush=True)
sys.exit(main(["prepare", "r.toml", *sys.argv[1:]]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepare-kills")
    make_tiny_base(folder / "base")
    rng = random.Random(0)
    words = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "nrst"]

    def texts(count: int) -> list[str]:
        return [" ".join(rng.choices(words, k=rng.choice([10, 60, 90]))) for _ in range(count)]

    (folder / "web").mkdir()
    question = " ".join(rng.choices(words, k=20))
    for number in range(6):
        rows = texts(40)
        rows += [f"{text} {rng.choice(words)}" for text in rows[:8]]
        rows.append(f"{rows[10]} {question} {rows[11]}")
        lines = [json.dumps({"id": f"{number}-{n}", "text": text}) for n, text in enumerate(rows)]
        (folder / "web" / f"{number}.jsonl").write_text("\n".join(lines))
    lines = [json.dumps({"text": text}) for text in texts(120)]
    (folder / "old.jsonl").write_text("\n".join(lines))
    item = {"question": question, "choices": ["yes", "no"], "answer": 0}
    (folder / "quiz.jsonl").write_text(json.dumps(item))
    (folder / "r.toml").write_text(RECIPE)
    return folder


def launch(folder: Path, *given: str) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, *given],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert child.stdout is not None
    while b"ready" not in child.stdout.readline():
        assert child.poll() is None, "the child ended before it began"
    return child


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of all files but manifests, which name times."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "MANIFEST.json"
    }


def finished(child: subprocess.Popen[bytes]) -> float:
    started = time.monotonic()
    child.communicate(timeout=240)
    assert child.returncode == 0
    return time.monotonic() - started


def check_kills(folder: Path, num_kills: int, seed: int, *given: str) -> None:
    killed, whole = f"killed-{seed}", f"whole-{seed}"
    needed_s = finished(launch(folder, "-o", f"prepared_folder={whole}", *given))
    wanted = hashes(folder / whole)
    rng = random.Random(seed)
    moments = set()
    for _ in range(num_kills):
        child = launch(folder, "-o", f"prepared_folder={killed}", *given)
        time.sleep(rng.uniform(0.02, needed_s / 3))
        # The processes that work for it go down with it, as they do with the machine.
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        moments.add(len(hashes(folder / killed)) if (folder / killed).exists() else 0)
    finished(launch(folder, "-o", f"prepared_folder={killed}", *given))
    found = {
        name.replace(killed, whole): digest for name, digest in hashes(folder / killed).items()
    }
    # Facts name the folder that they lie in; what else is in them is in the other files.
    different = {name for name in wanted if found.get(name) != wanted[name]}
    assert found.keys() == wanted.keys()
    assert {Path(name).name for name in different} <= {"facts.json"}
    for name in different:
        text = (folder / killed / name).read_text().replace(killed, whole)
        assert text == (folder / whole / name).read_text()
    assert any(name.endswith("shard-00005.bin") for name in wanted)
    assert any("duplicates-" in name for name in wanted)
    assert any("contaminated-" in name for name in wanted)
    assert num_kills < 5 or len(moments) > 1, "kills fell at different moments"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_kills_and_the_same_shards(folder: Path) -> None:
    check_kills(folder, 10, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills_of_several_processes(folder: Path) -> None:
    check_kills(folder, 5, 2, "-o", "prepare.workers=2")
