"""Megatron shards as a source: used where they lie, counted by hand, every damage told."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from rewarm.corpus import token_shards
from rewarm.corpus.estimate import estimate_source
from rewarm.corpus.inputs import find_inputs, resolve_inputs
from rewarm.corpus.place import SourceText
from rewarm.corpus.prepare import prepare_source
from rewarm.corpus.sealed import verify_prepared
from rewarm.corpus.shards import dtype_for, write_shard
from rewarm.corpus.views import open_view
from rewarm.errors import CorpusError, Problems
from rewarm.recipe.base import TokenizerRecipe
from rewarm.recipe.sources import SourceRecipe
from rewarm.records.facts import CorpusFacts

BEGIN, END = 0, 1
TEXTS = ["The quick brown fox.", "Größe, naïve café, 東京 🙂", "def add(a, b):\n    return a\n"] * 7


def pack_by_hand(prefix: Path, documents: list[list[int]], code: int = 8) -> None:
    """Write a shard as Megatron's own writer lays it out, without a line of ours."""
    kind = {8: "H", 4: "i", 5: "q"}[code]
    width = struct.calcsize(kind)
    starts = np.concatenate([[0], np.cumsum([len(d) for d in documents])]) * width
    prefix.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{prefix}.bin").write_bytes(
        b"".join(struct.pack(f"<{len(d)}{kind}", *d) for d in documents)
    )
    Path(f"{prefix}.idx").write_bytes(
        b"MMIDIDX\x00\x00"
        + struct.pack("<QBQQ", 1, code, len(documents), len(documents) + 1)
        + struct.pack(f"<{len(documents)}i", *map(len, documents))
        + struct.pack(f"<{len(documents)}q", *starts[:-1])
        + struct.pack(f"<{len(documents) + 1}q", *range(len(documents) + 1))
    )


def recipe(path: str | list[str] = "shards", **fields: Any) -> SourceRecipe:
    return SourceRecipe.model_validate(
        {"path": path, "role": "replay", "format": "tokens", "held_out": 0.3, **fields}
    )


def text_of(folder: Path, base: Path, source: SourceRecipe) -> SourceText:
    inputs = resolve_inputs("s", source, folder)
    return SourceText("s", source, inputs, folder, base, TokenizerRecipe())


def take_over(folder: Path, base: Path, source: SourceRecipe | None = None) -> CorpusFacts:
    return prepare_source(
        text_of(folder, base, source or recipe()),
        prepared_root=folder / "prepared",
        vocab_size=320,
    )


def ids_of(base: Path, text: str) -> list[int]:
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def is_held_out_by_hand(text: str, share: float) -> bool:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 < share


def test_every_number_is_exact_and_nothing_is_copied(tmp_path: Path, tiny_base: Path) -> None:
    texts = [f"{text} {number}" for number, text in enumerate(TEXTS)]
    documents = [[BEGIN, *ids_of(tiny_base, text), END] for text in texts]
    pack_by_hand(tmp_path / "shards" / "a", documents[:15])
    pack_by_hand(tmp_path / "shards" / "b", documents[15:], code=5)
    facts = take_over(tmp_path, tiny_base)
    held_out = [is_held_out_by_hand(text, 0.3) for text in texts]
    trained = [not held for held in held_out]
    assert any(held_out)

    def total(sizes: list[int], chosen: list[bool]) -> int:
        return sum(size for size, wanted in zip(sizes, chosen, strict=True) if wanted)

    lengths, sizes = [len(d) for d in documents], [len(text.encode()) for text in texts]
    assert (facts.num_documents, facts.held_out_documents) == (sum(trained), sum(held_out))
    assert (facts.num_tokens, facts.held_out_tokens) == (
        total(lengths, trained),
        total(lengths, held_out),
    )
    assert (facts.num_bytes, facts.held_out_bytes) == (
        total(sizes, trained),
        total(sizes, held_out),
    )
    assert facts.all_framed
    view = open_view(facts)
    kept = [document for document, wanted in zip(documents, trained, strict=True) if wanted]
    assert [view.document(index).tolist() for index in range(view.num_documents)] == kept
    assert view.document_id(0) == f"a:{trained.index(True)}"
    for name in ("a", "b"):
        link = Path(facts.folder) / f"shard-0000{'ab'.index(name)}.bin"
        assert link.is_symlink()
        assert os.path.samefile(link, tmp_path / "shards" / f"{name}.bin")


def test_a_text_lands_on_one_side_as_text_and_as_tokens(tmp_path: Path, tiny_base: Path) -> None:
    """What `prepare` made of text is taken over to the same documents on the same sides."""
    rows = [{"text": f"{text} {number}"} for number, text in enumerate(TEXTS)]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = SourceRecipe(path="text.jsonl", role="new", held_out=0.3)
    as_text = prepare_source(
        SourceText("t", source, [tmp_path / "text.jsonl"], tmp_path, tiny_base, TokenizerRecipe()),
        prepared_root=tmp_path / "prepared",
        vocab_size=320,
    )
    as_tokens = take_over(tmp_path, tiny_base, recipe(as_text.folder))
    same = ("num_documents", "num_tokens", "num_bytes", "held_out_documents", "held_out_bytes")
    for name in same:
        assert getattr(as_text, name) == getattr(as_tokens, name)
    assert not as_tokens.warnings, "our own manifest names the tokenizer"
    for held_out in (False, True):
        one, other = (open_view(facts, held_out=held_out) for facts in (as_text, as_tokens))
        for index in range(one.num_documents):
            assert one.document(index).tolist() == other.document(index).tolist()
            assert one.document_id(index) == other.document_id(index)


def test_documents_without_the_frame_are_told_and_stay_as_they_are(
    tmp_path: Path, tiny_base: Path
) -> None:
    bare, framed = ids_of(tiny_base, "no frame"), ids_of(tiny_base, "a frame")
    documents = [bare, [BEGIN, *framed, END], [*bare, END], [], [END]]
    pack_by_hand(tmp_path / "shards" / "a", documents)
    facts = take_over(tmp_path, tiny_base, recipe(held_out=0.0))
    assert facts.num_documents == 4
    assert facts.rejected == {"empty": 1}
    assert facts.num_bytes == len("no frame" * 2 + "a frame")
    assert not facts.all_framed
    assert "of its 4 documents 3 do not begin with <s> and 1 do not end with </s>" in " ".join(
        facts.warnings
    )
    view = open_view(facts)
    assert [view.document(index).tolist() for index in range(4)] == [d for d in documents if d]


@pytest.mark.parametrize(("bad_id", "code"), [(320, 8), (-1, 4)])
def test_an_id_beyond_the_vocabulary_is_told_with_its_offset(
    tmp_path: Path, tiny_base: Path, bad_id: int, code: int
) -> None:
    pack_by_hand(tmp_path / "shards" / "a", [[0, 5, 1], [0, 7, bad_id, 1]], code)
    message = rf"a\.bin: token 5 \(from 0\) is id {bad_id}, .* vocabulary has 320 entries"
    with pytest.raises(CorpusError, match=message):
        take_over(tmp_path, tiny_base)
    with pytest.raises(CorpusError, match=message):
        estimate_source(text_of(tmp_path, tiny_base, recipe()), vocab_size=320)


def test_the_tokenizer_that_a_manifest_names_must_be_the_bases(
    tmp_path: Path, tiny_base: Path
) -> None:
    pack_by_hand(tmp_path / "shards" / "a", [[0, 5, 1]] * 5)
    text = text_of(tmp_path, tiny_base, recipe(held_out=0))
    guess = estimate_source(text, vocab_size=320)
    for facts in (guess, take_over(tmp_path, tiny_base, recipe(held_out=0))):
        assert facts.warnings == (token_shards.UNNAMED_TOKENIZER,)
    manifest = tmp_path / "shards" / "MANIFEST.json"
    manifest.write_text(json.dumps({"tokenizer_fingerprint": "abc"}))
    message = r"its manifest names another tokenizer \(abc\)"
    with pytest.raises(CorpusError, match=message):
        estimate_source(text, vocab_size=320)
    with pytest.raises(CorpusError, match=message):
        take_over(tmp_path, tiny_base)
    fingerprint = hashlib.sha256((tiny_base / "tokenizer.json").read_bytes()).hexdigest()
    manifest.write_text(json.dumps({"tokenizer_fingerprint": fingerprint}))
    assert take_over(tmp_path, tiny_base, recipe(held_out=0.01)).warnings[1:] == ()
    assert token_shards.UNNAMED_TOKENIZER not in take_over(tmp_path, tiny_base).warnings


def test_a_shard_is_held_against_the_hash_in_its_manifest(tmp_path: Path, tiny_base: Path) -> None:
    pack_by_hand(tmp_path / "shards" / "a", [[0, 5, 1]] * 5)
    wrong = {"files": {"a.bin": {"sha256": "0" * 64}}}
    (tmp_path / "shards" / "MANIFEST.json").write_text(json.dumps(wrong))
    with pytest.raises(CorpusError, match=r"a\.bin: it is not as the MANIFEST\.json beside it"):
        take_over(tmp_path, tiny_base)


def test_a_shard_that_changes_or_goes_is_told_before_training(
    tmp_path: Path, tiny_base: Path
) -> None:
    pack_by_hand(tmp_path / "shards" / "a", [[0, 5, 1]] * 5)
    facts = take_over(tmp_path, tiny_base, recipe(held_out=0))
    verify_prepared(facts)
    path = tmp_path / "shards" / "a.bin"
    raw = bytearray(path.read_bytes())
    raw[2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CorpusError, match=r"shard-00000\.bin: it changed since prepare"):
        verify_prepared(facts)
    path.unlink()
    with pytest.raises(CorpusError, match=r"shard-00000\.bin: it was there at prepare"):
        verify_prepared(facts)


def test_an_estimate_reads_the_indices(tmp_path: Path, tiny_base: Path) -> None:
    documents = [[BEGIN, *ids_of(tiny_base, text), END] for text in TEXTS] * 30
    pack_by_hand(tmp_path / "shards" / "a", documents)
    exact = take_over(tmp_path, tiny_base, recipe(held_out=0))
    guess = estimate_source(text_of(tmp_path, tiny_base, recipe(held_out=0)), vocab_size=320)
    assert not guess.measured
    assert (guess.num_documents, guess.num_tokens) == (exact.num_documents, exact.num_tokens)
    assert guess.num_bytes == pytest.approx(exact.num_bytes, rel=0.05)


def test_nothing_in_them(tmp_path: Path, tiny_base: Path) -> None:
    pack_by_hand(tmp_path / "shards" / "a", [])
    with pytest.raises(CorpusError, match="no document could be taken"):
        take_over(tmp_path, tiny_base)
    with pytest.raises(CorpusError, match="its shards hold no token"):
        estimate_source(text_of(tmp_path, tiny_base, recipe()), vocab_size=320)
    pack_by_hand(tmp_path / "shards" / "b", [[0, 5, 1]] * 5)
    facts = take_over(tmp_path, tiny_base, recipe(held_out=0))
    assert "a.bin gave no document" in facts.warnings


def test_long_documents_are_decoded_in_pieces(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 20
    pack_by_hand(tmp_path / "shards" / "a", [[BEGIN, *ids_of(tiny_base, text), END]] * 3)
    monkeypatch.setattr(token_shards, "_BATCH_TOKENS", 7)
    facts = take_over(tmp_path, tiny_base, recipe(held_out=0.0))
    assert facts.num_bytes == 3 * len(text)
    digests = np.load(Path(facts.folder) / "shard-00000.hash.npy")
    whole = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    assert digests.tolist() == [whole] * 3


def test_links_move_with_what_they_point_to(tmp_path: Path, tiny_base: Path) -> None:
    """Shards inside the prepared folder (sampled ones) are linked from where the link lies."""
    pack_by_hand(tmp_path / "prepared" / "made" / "a", [[0, 5, 1]] * 5)
    pack_by_hand(tmp_path / "shards" / "b", [[0, 5, 1]] * 5)
    inside = take_over(tmp_path, tiny_base, recipe("prepared/made", held_out=0))
    outside = take_over(tmp_path, tiny_base, recipe(held_out=0))
    assert os.readlink(Path(inside.folder) / "shard-00000.bin") == "../made/a.bin"
    link = os.readlink(Path(outside.folder) / "shard-00000.bin")
    assert link == str(tmp_path / "shards" / "b.bin")


@pytest.mark.parametrize(
    "path", ["shards", "shards/*", "shards/a.bin", "shards/a.idx", "shards/a", "shards/*.idx"]
)
def test_either_file_or_their_common_name_will_do(tmp_path: Path, path: str) -> None:
    pack_by_hand(tmp_path / "shards" / "a", [[0, 5, 1]])
    (tmp_path / "shards" / "MANIFEST.json").write_text("{}")
    found = resolve_inputs("s", recipe(path), tmp_path)
    assert [file.name for file in found] == ["a.bin", "a.idx"]


def test_names_that_begin_alike_stay_pairs(tmp_path: Path) -> None:
    for name in ("a", "a.bin", "a.b"):
        pack_by_hand(tmp_path / "shards" / name, [[0, 5, 1]])
    names = [file.name for file in resolve_inputs("s", recipe(), tmp_path)]
    pairs = list(zip(names[::2], names[1::2], strict=True))
    assert set(pairs) == {(f"{name}.bin", f"{name}.idx") for name in ("a", "a.b", "a.bin")}


def test_half_a_pair_and_other_files_are_told(tmp_path: Path) -> None:
    pack_by_hand(tmp_path / "shards" / "a", [[0, 5, 1]])
    (tmp_path / "shards" / "b.bin").write_bytes(b"")
    (tmp_path / "text.txt").write_text("text")
    with pytest.raises(CorpusError) as caught:
        resolve_inputs("s", recipe(["shards", "text.txt"]), tmp_path)
    assert "b has no b.idx: a token shard is .bin and .idx" in str(caught.value)
    assert "text.txt is no token shard" in str(caught.value)
    with pytest.raises(CorpusError, match="matches no file that can be read as tokens"):
        resolve_inputs("s", recipe("*.txt"), tmp_path)
    plain = SourceRecipe(path="shards/a.bin", role="new")
    with pytest.raises(CorpusError, match=r"set sources\.s\.format to jsonl, .* or tokens"):
        resolve_inputs("s", plain, tmp_path)


def test_one_shard_in_two_sources_is_refused(tmp_path: Path) -> None:
    pack_by_hand(tmp_path / "shards" / "a", [[0, 5, 1]])
    problems = Problems()
    find_inputs({"one": recipe(), "two": recipe("shards/a")}, tmp_path, problems)
    with pytest.raises(CorpusError, match="also read by source 'one'"):
        problems.raise_as(CorpusError)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: path.write_bytes(b"XX" + path.read_bytes()[2:]), "not a Megatron index"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "cut short or overwritten"),
        (lambda path: path.with_suffix(".bin").write_bytes(b""), "are fewer than the 6 of"),
    ],
)
def test_a_damaged_shard_is_told(tmp_path: Path, tiny_base: Path, damage: Any, told: str) -> None:
    write_shard(tmp_path / "a", [np.array([0, 5, 1])], dtype_for(320))
    damage(tmp_path / "a.idx")
    with pytest.raises(CorpusError, match=told):
        take_over(tmp_path, tiny_base, recipe("a"))
    with pytest.raises(CorpusError, match=told):
        estimate_source(text_of(tmp_path, tiny_base, recipe("a")), vocab_size=320)
