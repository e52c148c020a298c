"""Copies are dropped: exact ones, and near ones at the rate that MinHash promises."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rewarm.cli import main
from rewarm.corpus import duplicates
from rewarm.corpus.views import open_view
from rewarm.planning.plan import load_plan
from rewarm.records.facts import CorpusFacts
from tests.support.tiny_models import make_tiny_base

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in ("a", "eo", "ili", "u") for c in ("n", "r")]
RECIPE = """\
name = "r"
base = { path = "base", pretraining = { peak_lr = 1e-3, final_lr = 1e-4 } }
budget = { tokens = 2_048 }
batch = { tokens = 256, sequence_length = 64 }
phases = [{ name = "a", weights = { web = 1.0 } }]
[sources.web]
path = "web.jsonl"
role = "new"
held_out = 0.05
curate = { dedup = "minhash", decontaminate = false }
"""


def some_words(rng: random.Random, count: int) -> list[str]:
    return [rng.choice(WORDS) for _ in range(count)]


def changed(rng: random.Random, words: Sequence[str], share: float) -> list[str]:
    return [rng.choice(WORDS) if rng.random() < share else word for word in words]


def shared(first: Sequence[str], second: Sequence[str]) -> float:
    """Return the Jaccard similarity of two texts' runs of 5 words."""
    one, other = (
        {tuple(words[i : i + 5]) for i in range(len(words) - 4)} for words in (first, second)
    )
    return len(one & other) / len(one | other)


def is_held_out(text: str) -> bool:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 < 0.05


def write_rows(folder: Path, rows: Sequence[tuple[str, str]]) -> None:
    lines = [json.dumps({"id": name, "text": text}) + "\n" for name, text in rows]
    (folder / "web.jsonl").write_text("".join(lines))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("duplicates")
    make_tiny_base(folder / "base")
    (folder / "r.toml").write_text(RECIPE)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = shutil.copytree(made, tmp_path / "f")
    monkeypatch.chdir(folder)
    return folder


def prepared(folder: Path, *overrides: str) -> CorpusFacts:
    given = [part for override in overrides for part in ("-o", override)]
    assert main(["prepare", "r.toml", *given]) == 0
    assert main(["plan", "r.toml", *given]) == 0
    return load_plan(folder / "runs" / "r" / "plan.json").conduct.corpora["web"]


def trained_ids(facts: CorpusFacts) -> set[str]:
    view = open_view(facts)
    assert (view.num_documents, view.num_tokens) == (facts.num_documents, facts.num_tokens)
    return {view.document_id(index) for index in range(view.num_documents)}


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """What datatrove's logger lets out."""
    import datatrove.executor.base  # noqa: F401 - as it is imported it takes all sinks away
    from loguru import logger

    said: list[str] = []
    sink = logger.add(said.append)
    try:
        yield said
    finally:
        logger.remove(sink)


def test_near_copies_are_found_as_often_as_their_likeness_says(folder: Path) -> None:
    pytest.importorskip("datatrove")
    pytest.importorskip("spacy")
    rng = random.Random(2)
    rows: list[tuple[str, str]] = []
    likeness: dict[int, float] = {}
    number = 0
    while len(likeness) < 420:
        first = some_words(rng, 120)
        second = changed(rng, first, rng.choice([0.003, 0.02, 0.035, 0.05, 0.1, 0.3]))
        texts = [" ".join(first), " ".join(second) + "!"]
        if any(map(is_held_out, texts)):
            continue
        likeness[number] = shared(first, second)
        rows += [(f"{number}a", texts[0]), (f"{number}b", texts[1])]
        number += 1
    rows += [(f"alone{n}", " ".join(some_words(rng, 120))) for n in range(100)]
    rng.shuffle(rows)
    write_rows(folder, rows)
    with logged() as said:
        facts = prepared(folder)
    assert not said, "a bar is there: nothing else is said"
    kept = trained_ids(facts)
    assert all(f"{n}a" in kept or f"{n}b" in kept for n in likeness), "one of each pair stays"
    held_out = {name for name, text in rows if is_held_out(text)}
    assert {f"alone{n}" for n in range(100)} - held_out <= kept, "what is like nothing stays"
    found = {n for n in likeness if not {f"{n}a", f"{n}b"} <= kept}
    assert facts.rejected == {"duplicate:near": len(found)}
    for low, high in ((0.0, 0.3), (0.3, 0.6), (0.6, 0.75), (0.75, 0.85), (0.85, 1.01)):
        among = [n for n, share in likeness.items() if low <= share < high]
        assert len(among) >= 25, (low, high)
        chances = [1 - (1 - likeness[n] ** 8) ** 14 for n in among]
        expected, variance = sum(chances), sum(p * (1 - p) for p in chances)
        assert abs(len(found & set(among)) - expected) <= 3.5 * variance**0.5 + 1, (low, high)


def test_exact_copies_need_no_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "datatrove", None)
    rng = random.Random(0)
    rows = [(f"{n}", " ".join(some_words(rng, 30))) for n in range(40)]
    rows += [(f"{n}-again", text) for n, (_, text) in enumerate(rows[:10])]
    write_rows(folder, rows)
    facts = prepared(folder, 'sources.web.curate.dedup="exact"')
    held_out = {name for name, text in rows if is_held_out(text)}
    assert trained_ids(facts) == {f"{n}" for n in range(40)} - held_out
    copies = {f"{n}-again" for n in range(10)} - held_out
    assert facts.rejected == {"duplicate:exact": len(copies)}
    (path,) = (Path(facts.folder) / "dropped").glob("duplicates-*/rejects.jsonl")
    rejects = [json.loads(line) for line in path.read_text().splitlines()]
    assert {reject["where"] for reject in rejects} == copies
    first = rejects[0]["where"].removesuffix("-again")
    assert rejects[0]["excerpt"].startswith(f"a copy of {first}: ")


def test_copies_with_another_setting_are_found_without_tokenizing_again(folder: Path) -> None:
    rng = random.Random(0)
    rows = [(f"{n}", " ".join(some_words(rng, 30))) for n in range(20)]
    write_rows(folder, [*rows, ("again", rows[3][1])])
    off = prepared(folder, "sources.web.curate.dedup=false")
    before = {path: path.stat().st_mtime_ns for path in Path(off.folder).glob("shard-*")}
    on = prepared(folder, 'sources.web.curate.dedup="exact"')
    assert {path: path.stat().st_mtime_ns for path in Path(on.folder).glob("shard-*")} == before
    assert on.num_documents == off.num_documents - 1
    assert on.tokens != off.tokens


def test_pieces_change_nothing_and_a_kill_costs_one_of_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datatrove")
    pytest.importorskip("spacy")
    rng = random.Random(4)
    first = [some_words(rng, 60) for _ in range(40)]
    rows = [(f"{n}", " ".join(words)) for n, words in enumerate(first)]
    rows += [(f"{n}-near", " ".join(changed(rng, first[n], 0.005))) for n in range(20)]
    write_rows(folder, rows)
    whole = prepared(folder, "prepared_folder=one")
    monkeypatch.setattr(duplicates, "_LEAST_PIECE_TOKENS", 2000)
    signed: list[int] = []
    documents = duplicates._Signatures._documents

    def counting(self: Any, first: int, last: int) -> Any:
        signed.append(first)
        if len(signed) == 3:
            raise KeyboardInterrupt
        return documents(self, first, last)

    monkeypatch.setattr(duplicates._Signatures, "_documents", counting)
    assert main(["prepare", "r.toml", "-o", "prepared_folder=two"]) != 0
    pieces = prepared(folder, "prepared_folder=two")
    assert signed[3] == signed[2]
    assert len(signed) == len(set(signed)) + 1
    assert pieces.drops[0].digest == whole.drops[0].digest
    assert whole.drops[0].num_documents >= 10
    assert not (Path(pieces.drops[0].folder) / "work").exists()
