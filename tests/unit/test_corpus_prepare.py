"""Preparing: exact counts, the split, nothing done twice, kills, and text that changed since."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from rewarm.corpus import encoding, place
from rewarm.corpus.estimate import estimate_source
from rewarm.corpus.inputs import resolve_inputs
from rewarm.corpus.place import SourceText, load_facts
from rewarm.corpus.prepare import (
    PrepareProgress,
    prepare_source,
    read_held_out_answers,
)
from rewarm.corpus.sealed import verify_prepared
from rewarm.corpus.shards import write_shard
from rewarm.corpus.views import open_view
from rewarm.errors import CorpusError, EnvironmentFault
from rewarm.recipe.base import TokenizerRecipe
from rewarm.recipe.sources import SourceRecipe
from rewarm.records.facts import CorpusFacts

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("REWARM_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def recipe(path: str | list[str] = "text/*.jsonl", **fields: Any) -> SourceRecipe:
    return SourceRecipe.model_validate({"path": path, "role": "new", "held_out": 0.3, **fields})


def text_of(folder: Path, base: Path, source: SourceRecipe) -> SourceText:
    inputs = resolve_inputs("s", source, folder)
    return SourceText("s", source, inputs, folder, base, TokenizerRecipe())


def prepare(folder: Path, base: Path, source: SourceRecipe, **more: Any) -> CorpusFacts:
    return prepare_source(
        text_of(folder, base, source), prepared_root=folder / "prepared", vocab_size=320, **more
    )


def estimate(folder: Path, base: Path, source: SourceRecipe) -> CorpusFacts:
    return estimate_source(text_of(folder, base, source), vocab_size=320)


def load(folder: Path, base: Path, source: SourceRecipe) -> CorpusFacts | None:
    return load_facts(text_of(folder, base, source), folder / "prepared")


def some_text(folder: Path, num_files: int = 2, num_documents: int = 20) -> None:
    for number in range(num_files):
        rows = [
            {"id": f"{number}-{i}", "text": f"Größe {number} of document {i}. " * (i + 1)}
            for i in range(num_documents)
        ]
        write_jsonl(folder / "text" / f"{number}.jsonl", rows)


def held_out_by_hand(text: str, share: float) -> bool:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 < share


def test_every_number_is_exact(tmp_path: Path, tiny_base: Path) -> None:
    some_text(tmp_path)
    facts = prepare(tmp_path, tiny_base, recipe())
    lines = [
        json.loads(line)["text"]
        for number in range(2)
        for line in (tmp_path / "text" / f"{number}.jsonl").read_text().splitlines()
    ]
    held_out = [text for text in lines if held_out_by_hand(text, 0.3)]
    kept = [text for text in lines if not held_out_by_hand(text, 0.3)]
    assert facts.measured
    assert (facts.num_documents, facts.held_out_documents) == (len(kept), len(held_out))
    assert facts.num_bytes == sum(len(text.encode()) for text in kept)
    assert facts.held_out_bytes == sum(len(text.encode()) for text in held_out)

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    view = open_view(facts)
    assert view.num_documents == len(kept)
    for index, text in enumerate(kept):
        assert view.document(index).tolist() == [*tokenizer(text)["input_ids"], 1]
    assert open_view(facts, held_out=True).num_tokens == facts.held_out_tokens
    assert view.num_tokens == facts.num_tokens
    assert view.document_id(0) == next(
        json.loads(line)["id"]
        for line in (tmp_path / "text" / "0.jsonl").read_text().splitlines()
        if json.loads(line)["text"] == kept[0]
    )


def test_a_second_run_does_nothing(tmp_path: Path, tiny_base: Path) -> None:
    some_text(tmp_path)
    first = prepare(tmp_path, tiny_base, recipe())
    times = {path: path.stat().st_mtime_ns for path in Path(first.folder).iterdir()}
    told: list[PrepareProgress] = []
    assert prepare(tmp_path, tiny_base, recipe(), progress=told.append) == first
    assert not told
    assert {path: path.stat().st_mtime_ns for path in Path(first.folder).iterdir()} == times
    assert load(tmp_path, tiny_base, recipe()) == first


def test_changed_text_or_options_are_another_preparation(tmp_path: Path, tiny_base: Path) -> None:
    some_text(tmp_path)
    first = prepare(tmp_path, tiny_base, recipe())
    assert load(tmp_path, tiny_base, recipe(held_out=0.2)) is None
    relabelled = load(tmp_path, tiny_base, recipe(role="general", licence="MIT"))
    assert relabelled is not None
    assert (relabelled.role, relabelled.licence, relabelled.key) == ("general", "MIT", first.key)
    some_text(tmp_path, num_documents=21)
    assert load(tmp_path, tiny_base, recipe()) is None
    assert prepare(tmp_path, tiny_base, recipe()).folder != first.folder
    verify_prepared(first)


def test_progress_tells_bytes_and_tokens(tmp_path: Path, tiny_base: Path) -> None:
    some_text(tmp_path)
    told: list[PrepareProgress] = []
    facts = prepare(tmp_path, tiny_base, recipe(), progress=told.append)
    last = told[-1]
    assert (
        last.bytes
        == last.total_bytes
        == sum(path.stat().st_size for path in (tmp_path / "text").iterdir())
    )
    assert last.tokens == facts.num_tokens + facts.held_out_tokens
    assert last.documents == 40


def test_groups_are_never_split_and_answers_are_kept(tmp_path: Path, tiny_base: Path) -> None:
    rows = [
        {"module": f"m{i // 5}", "question": f"What is {i}?", "answer": f"It is {i}."}
        for i in range(100)
    ]
    write_jsonl(tmp_path / "qa.jsonl", rows)
    source = recipe(
        "qa.jsonl",
        role="qa",
        group_field="module",
        question_field="question",
        answer_field="answer",
    )
    facts = prepare(tmp_path, tiny_base, source)
    answers = read_held_out_answers(Path(facts.folder))
    expected = [row for row in rows if held_out_by_hand(row["module"], 0.3)]
    assert [(a.question, a.answer) for a in answers] == [
        (row["question"], row["answer"]) for row in expected
    ]
    assert facts.held_out_documents == len(expected)
    assert 0 < len(expected) < 100
    hashes = np.load(Path(facts.folder) / "shard-00000.hash.npy")
    texts = [f"Question: {row['question']}\nAnswer: {row['answer']}" for row in rows]
    assert hashes.tolist() == [
        int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
        for text in texts
    ]


def test_damaged_answers_are_told(tmp_path: Path) -> None:
    assert read_held_out_answers(tmp_path) == []
    for content in ('{"question": "Why?"}', "{", "[]", '"text"'):
        (tmp_path / "held_out_answers.jsonl").write_text(content)
        with pytest.raises(CorpusError, match=r"answers\.jsonl: it does not hold questions"):
            read_held_out_answers(tmp_path)


def test_above_one_per_cent_rejected_is_an_error(tmp_path: Path, tiny_base: Path) -> None:
    rows = [{"text": f"document {i}"} for i in range(200)]
    write_jsonl(tmp_path / "a.jsonl", [*rows, {"x": 1}, {"x": 2}])
    facts = prepare(tmp_path, tiny_base, recipe("a.jsonl"))
    assert facts.rejected == {"missing_field": 2}
    write_jsonl(tmp_path / "a.jsonl", [*rows, {"x": 1}, {"x": 2}, {"x": 3}])
    with pytest.raises(CorpusError) as caught:
        prepare(tmp_path, tiny_base, recipe("a.jsonl"))
    told = str(caught.value)
    assert "3 of 203 documents are rejected (missing_field 3), above 1 %" in told
    assert "a.jsonl:201 (missing_field)" in told
    assert "→ set text_field" in told


@pytest.mark.parametrize("batch_bytes", [1, 60, 2**20])
def test_batches_decide_nothing(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch, batch_bytes: int
) -> None:
    """However many are under way at a time: order, counts, and which files are empty."""
    monkeypatch.setattr(encoding, "_BATCH_BYTES", batch_bytes)
    some_text(tmp_path, num_files=3)
    for name in ("0-none", "1-none", "9-none"):
        (tmp_path / "text" / f"{name}.jsonl").write_text("\n")
    facts = prepare(tmp_path, tiny_base, recipe(held_out=0.0))
    told = "0-none.jsonl, 1-none.jsonl, 9-none.jsonl gave no document"
    assert told in facts.warnings
    view = open_view(facts)
    ids = [view.document_id(number) for number in range(view.num_documents)]
    assert ids == [f"{file}-{number}" for file in range(3) for number in range(20)]
    tokenizer = Tokenizer.from_file(str(tiny_base / "tokenizer.json"))
    for number in (0, 19, 20, 59):
        text = f"Größe {number // 20} of document {number % 20}. " * (number % 20 + 1)
        begin, *body, end = view.document(number).tolist()
        assert tokenizer.decode(body) == text
        assert (begin, end) == (0, 1)


def test_empty_inputs(tmp_path: Path, tiny_base: Path) -> None:
    some_text(tmp_path)
    (tmp_path / "text" / "empty.jsonl").write_text("")
    facts = prepare(tmp_path, tiny_base, recipe())
    assert facts.warnings == ("empty.jsonl gave no document",)
    with pytest.raises(CorpusError, match=r"no document could be taken \(all of its files are"):
        prepare(tmp_path, tiny_base, recipe("text/empty.jsonl"))


def test_many_small_files_share_a_shard(tmp_path: Path, tiny_base: Path) -> None:
    for number in range(300):
        (tmp_path / "tree" / f"f{number:03d}.py").parent.mkdir(exist_ok=True)
        (tmp_path / "tree" / f"f{number:03d}.py").write_text(f"print({number})\n" * 3)
    for number in range(10):
        (tmp_path / "tree" / f"__init__{number}.py").write_text("")
    facts = prepare(tmp_path, tiny_base, recipe("tree"))
    assert len(list(Path(facts.folder).glob("shard-*.bin"))) == 1
    assert facts.num_documents + facts.held_out_documents == 300
    assert facts.rejected == {"empty": 10}


def test_nothing_held_out_is_warned_of(tmp_path: Path, tiny_base: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"text": f"text {i}"} for i in range(5)])
    facts = prepare(tmp_path, tiny_base, recipe("a.jsonl", held_out=1e-6))
    assert "none of its 5 documents is held out at 1e-06" in facts.warnings[0]


def test_what_changed_since_prepare_is_named(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "_SHARD_INPUT_BYTES", 1)
    some_text(tmp_path)
    facts = prepare(tmp_path, tiny_base, recipe())
    shard = Path(facts.folder) / "shard-00001.bin"
    verify_prepared(facts)
    os.utime(shard)  # touched, not changed: hashed and found right
    verify_prepared(facts)
    raw = bytearray(shard.read_bytes())
    raw[7] ^= 1
    shard.write_bytes(raw)
    (Path(facts.folder) / "shard-00000.idx").unlink()
    with pytest.raises(CorpusError) as caught:
        verify_prepared(facts)
    assert f"{shard}: it changed since prepare" in str(caught.value)
    assert "shard-00000.idx: it was there at prepare and is gone" in str(caught.value)
    assert len(caught.value.problems) == 2


def test_what_was_damaged_is_made_again_to_the_byte(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "_SHARD_INPUT_BYTES", 1)
    some_text(tmp_path, num_files=5)
    facts = prepare(tmp_path, tiny_base, recipe())
    folder = Path(facts.folder)
    whole = contents(folder)
    (folder / "shard-00000.bin").unlink()
    (folder / "shard-00001.hash.npy").write_bytes(b"")  # as a power cut leaves files
    (folder / "shard-00002.json").write_bytes(b"{")
    (folder / "shard-00003.json").write_bytes(b"{}")
    (folder / "train.view.npy").unlink()
    untouched = (folder / "shard-00004.bin").stat().st_mtime_ns
    assert prepare(tmp_path, tiny_base, recipe()) == facts
    assert contents(folder) == whole
    assert (folder / "shard-00004.bin").stat().st_mtime_ns == untouched
    for name in ("facts.json", "MANIFEST.json"):
        (folder / name).write_bytes(b"{")
        assert prepare(tmp_path, tiny_base, recipe()) == facts
        assert contents(folder) == whole
    verify_prepared(facts)


def test_what_a_kill_left_half_written_is_taken_away(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_text(tmp_path)
    folder = Path(prepare(tmp_path, tiny_base, recipe()).folder)
    whole = contents(folder)
    (folder / "MANIFEST.json").unlink()
    replace = os.replace

    def killed(source: str | Path, target: str | Path) -> None:
        if Path(target).name == "facts.json":
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path, tiny_base, recipe())
    assert list(folder.glob(".facts.json.*"))
    prepare(tmp_path, tiny_base, recipe())
    assert contents(folder) == whole
    assert not list(folder.glob(".*"))


def test_a_flipped_bit_is_mended_and_never_sealed_as_it_is(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "_SHARD_INPUT_BYTES", 1)
    some_text(tmp_path, num_files=3)
    facts = prepare(tmp_path, tiny_base, recipe())
    folder = Path(facts.folder)
    whole = contents(folder)
    untouched = (folder / "shard-00002.bin").stat().st_mtime_ns
    for damaged in ("shard-00001.bin", "held_out.view.npy", "facts.json"):
        raw = bytearray((folder / damaged).read_bytes())
        raw[-5] ^= 1
        (folder / damaged).write_bytes(raw)
        assert prepare(tmp_path, tiny_base, recipe()) == facts
        assert contents(folder) == whole
    raw = bytearray((folder / "shard-00000.bin").read_bytes())
    raw[0] ^= 1
    (folder / "shard-00000.bin").write_bytes(raw)
    (folder / "train.view.npy").unlink()  # what brings the whole folder back to work
    assert prepare(tmp_path, tiny_base, recipe()) == facts
    assert contents(folder) == whole
    assert (folder / "shard-00002.bin").stat().st_mtime_ns == untouched


def test_text_that_changes_under_our_hands_is_told(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_text(tmp_path)

    def meddling(*arguments: Any) -> None:
        write_shard(*arguments)
        with (tmp_path / "text" / "1.jsonl").open("a") as file:
            file.write('{"text": "more"}\n')

    monkeypatch.setattr(encoding, "write_shard", meddling)
    with pytest.raises(CorpusError, match=r"1\.jsonl: it changed while it was prepared"):
        prepare(tmp_path, tiny_base, recipe())
    monkeypatch.undo()
    facts = prepare(tmp_path, tiny_base, recipe())
    assert facts.num_documents + facts.held_out_documents == 41


def test_two_at_once_prepare_once(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock belongs to an open file, so threads stand for processes here."""
    some_text(tmp_path)
    calls: list[str] = []

    def slow(*arguments: Any) -> None:
        calls.append("write")
        time.sleep(0.3)
        write_shard(*arguments)

    monkeypatch.setattr(encoding, "write_shard", slow)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(prepare, tmp_path, tiny_base, recipe()) for _ in range(2)]
        first, second = (future.result() for future in futures)
    assert first == second
    assert calls == ["write"]
    verify_prepared(first)


def test_files_of_one_name_and_size_in_two_folders_are_two_texts(
    tmp_path: Path, tiny_base: Path
) -> None:
    for name in ("x", "y"):
        write_jsonl(tmp_path / name / "a.jsonl", [{"text": f"{name} {i}"} for i in range(9)])
        os.utime(tmp_path / name / "a.jsonl", ns=(0, 0))
    keys = {prepare(tmp_path, tiny_base, recipe(name)).key for name in ("x", "y")}
    assert len(keys) == 2


def test_copies_of_one_text_have_the_same_tokens_and_other_text_has_others(
    tmp_path: Path, tiny_base: Path
) -> None:
    """A copy on another machine has other times; a run must be able to go on with it."""
    for name in ("here", "there", "changed", "split"):
        some_text(tmp_path / name)
        for number, path in enumerate(sorted((tmp_path / name / "text").iterdir())):
            os.utime(path, ns=(number, len(name) + number))
    first = tmp_path / "changed" / "text" / "0.jsonl"
    first.write_bytes(first.read_bytes().replace(b"document 1.", b"document 7.", 1))
    here, there, changed = (
        prepare(tmp_path / name, tiny_base, recipe()) for name in ("here", "there", "changed")
    )
    split = prepare(tmp_path / "split", tiny_base, recipe(held_out=0.5))
    assert here.key != there.key
    assert here.tokens == there.tokens
    assert len({here.tokens, changed.tokens, split.tokens}) == 3
    assert estimate(tmp_path / "here", tiny_base, recipe()).tokens == ""


def test_a_plan_is_told_that_its_folder_holds_other_text(tmp_path: Path, tiny_base: Path) -> None:
    some_text(tmp_path)
    facts = prepare(tmp_path, tiny_base, recipe())
    with pytest.raises(CorpusError, match="other text than was planned with"):
        verify_prepared(facts.model_copy(update={"key": "0" * 64}))


def test_a_special_token_in_a_text_is_rejected(tmp_path: Path) -> None:
    """This model has the end token's name as a piece: text would end documents."""
    model = models.Unigram([("<unk>", 0.0), ("</s>", 0.0), ("a", -1.0), ("b", -1.0)], unk_id=0)
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    rows = [{"id": i, "text": "ab?" * (i + 1)} for i in range(100)]
    write_jsonl(tmp_path / "a.jsonl", [*rows, {"id": "bad", "text": "a</s>b"}])
    facts = prepare(tmp_path, tmp_path, recipe("a.jsonl"))
    assert facts.rejected == {"special_token": 1}
    assert facts.num_documents + facts.held_out_documents == 100
    views = [open_view(facts), open_view(facts, held_out=True)]
    ends = sum((view.document(i) == 1).sum() for view in views for i in range(view.num_documents))
    assert ends == 100
    write_jsonl(tmp_path / "a.jsonl", [*rows, *[{"text": "a</s>b"}] * 2])
    with pytest.raises(CorpusError, match=r"special_token 2.*\n.*names of the tokenizer's special"):
        prepare(tmp_path, tmp_path, recipe("a.jsonl"))


def test_a_disk_that_refuses_is_the_machines_fault(tmp_path: Path, tiny_base: Path) -> None:
    some_text(tmp_path)
    (tmp_path / "prepared").write_text("a file where the folder should be")
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        prepare(tmp_path, tiny_base, recipe())


def test_an_estimate_is_near_and_says_that_it_is_one(tmp_path: Path, tiny_base: Path) -> None:
    some_text(tmp_path, num_files=12, num_documents=40)
    exact = prepare(tmp_path, tiny_base, recipe(held_out=0.1))
    guess = estimate(tmp_path, tiny_base, recipe(held_out=0.1))
    assert not guess.measured
    assert guess.key == exact.key
    assert guess.num_tokens == pytest.approx(exact.num_tokens, rel=0.15)
    assert guess.warnings == ()


def test_an_estimate_warns_of_what_prepare_would_refuse(tmp_path: Path, tiny_base: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"text": "good"}] * 20 + [{"body": "bad"}] * 5)
    (warning,) = estimate(tmp_path, tiny_base, recipe("a.jsonl")).warnings
    assert warning.startswith("in a sample, 5 of 25 documents are rejected (missing_field 5)")
    assert "would refuse it: set text_field" in warning
    write_jsonl(tmp_path / "a.jsonl", [{"body": "bad"}] * 5)
    with pytest.raises(CorpusError, match=r"no document could be taken \(missing_field 5\)"):
        estimate(tmp_path, tiny_base, recipe("a.jsonl"))


def test_an_estimate_looks_at_the_last_files_too(tmp_path: Path, tiny_base: Path) -> None:
    """The first eight files of fifteen differ from the others in tokens per byte."""
    for number in range(15):
        text = "the cat " * 200 if number < 8 else "ÄÖ" * 400
        write_jsonl(tmp_path / "text" / f"{number:02d}.jsonl", [{"text": text}] * 4)
    exact = prepare(tmp_path, tiny_base, recipe(held_out=0.0))
    guess = estimate(tmp_path, tiny_base, recipe(held_out=0.0))
    assert guess.num_tokens == pytest.approx(exact.num_tokens, rel=0.1)


CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {repository!r})
from rewarm.corpus import encoding, place
from tests.unit.test_corpus_prepare import prepare, recipe

write = encoding.write_shard
def slow(prefix, documents, dtype):
    def delayed():
        for document in documents:
            time.sleep(0.02)  # 2.4 s in all: what three kills leave is never done before the next
            yield document
    write(prefix, delayed(), dtype)
encoding.write_shard = slow
place._SHARD_INPUT_BYTES = 1
print("ready", flush=True)
prepare(Path({folder!r}), Path({base!r}), recipe())
"""


def contents(folder: Path) -> dict[str, bytes]:
    """Return what determines training: shards, views, answers, ids; not times and versions."""
    endings = (".bin", ".idx", ".npy", ".ids", ".jsonl")
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name.endswith(endings)}


def test_a_kill_at_any_moment_changes_no_byte(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "_SHARD_INPUT_BYTES", 1)
    some_text(tmp_path, num_files=4, num_documents=30)
    child = CHILD.format(repository=str(REPOSITORY), folder=str(tmp_path), base=str(tiny_base))
    for delay_s in (0.05, 0.25, 0.45):
        process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
        process.stdout.close()
        assert load(tmp_path, tiny_base, recipe()) is None
    killed = prepare(tmp_path, tiny_base, recipe())
    found = contents(Path(killed.folder))
    os.rename(tmp_path / "prepared", tmp_path / "before")
    untouched = prepare(tmp_path, tiny_base, recipe())
    assert untouched == killed
    assert contents(Path(untouched.folder)) == found
    assert not list(Path(untouched.folder).glob(".tmp-*"))


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the shared corpora are not at {SHARED}")
def test_a_real_corpus(tmp_path: Path, tiny_base: Path) -> None:
    source = recipe(str(SHARED / "text" / "tinyshakespeare.jsonl.zst"), held_out=0.1)
    facts = prepare(tmp_path, tiny_base, source)
    assert facts.num_documents + facts.held_out_documents == 110
    assert facts.num_bytes + facts.held_out_bytes == pytest.approx(1_115_169, rel=0.01)
    assert not facts.rejected
