"""`rewarm extend-vocabulary`: new pieces, their rows, and what stays as it was."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer

import rewarm.export.vocabulary as export_room
from rewarm.cli import main
from rewarm.model.vocabulary import NewPiece, extended_json, train_pieces
from rewarm.planning.model_facts import read_model_facts
from rewarm.planning.notes import Notes
from rewarm.planning.resolve import _explain_vocabulary
from tests.support.tiny_models import (
    SENTENCES,
    make_family_folder,
    make_tiny_base,
    make_tokenizer_json,
)

WORDS = ["Myokardinfarkt", "Herzkammer", "Blutgefäße", "Kardiologie", "Herzklappe", "Aorta"]
TEXTS = [
    f"Die {WORDS[n % 6]} und der {WORDS[n % 5]} der {WORDS[n % 4]} im {WORDS[n % 3]}."
    for n in range(60)
]


def write_texts(folder: Path) -> Path:
    path = folder / "new.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    return path


def extend(base: Path, folder: Path, num_pieces: int = 40) -> int:
    return main(
        [
            "extend-vocabulary",
            str(base),
            "--text",
            str(write_texts(folder)),
            "--tokens",
            str(num_pieces),
            "--output",
            str(folder / "out"),
        ]
    )


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gpt_neox", "gpt2", "phi"])
def test_as_transformers_loads_it(family: str, tmp_path: Path) -> None:
    """Logits over old tokens are the base's; each new row is the mean of its old ones."""
    base = make_family_folder(tmp_path / "base", family)
    # Of its own, Gemma's class would want the tokens of its own vocabulary.
    (base / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    assert extend(base, tmp_path) == 0
    out = tmp_path / "out"
    before, after = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        for folder in (base, out)
    )
    old = Tokenizer.from_file(str(base / "tokenizer.json"))
    of_base, new = (
        AutoTokenizer.from_pretrained(folder, local_files_only=True) for folder in (base, out)
    )
    # 320 rows are a multiple of 64: 360 tokens take 384.
    assert after.config.vocab_size == 384
    ids = torch.tensor([old.encode(SENTENCES[0]).ids])
    assert new(SENTENCES[0]).input_ids == of_base(SENTENCES[0]).input_ids
    assert new.decode(new(TEXTS[0]).input_ids) == of_base.decode(of_base(TEXTS[0]).input_ids)
    assert len(new(TEXTS[0]).input_ids) < 0.7 * len(of_base(TEXTS[0]).input_ids)
    with torch.no_grad():
        ours, theirs = (model.eval()(input_ids=ids).logits for model in (before, after))
    assert torch.allclose(theirs[..., :320], ours, rtol=0, atol=1e-5 * float(ours.abs().max()))
    rows = [
        (m.get_input_embeddings().weight, m.get_output_embeddings().weight) for m in (before, after)
    ]
    merges = json.loads((out / "tokenizer.json").read_text())["model"]["merges"][-40:]
    by_token: dict[str, list[int]] = {}
    for number, (left, right) in enumerate(merges):
        parts = [by_token.get(part) or [old.get_vocab()[part]] for part in (left, right)]
        by_token[left + right] = parts[0] + parts[1]
        assert new.convert_tokens_to_ids(left + right) == 320 + number
        for kind in (0, 1):
            mean = rows[0][kind][by_token[left + right]].mean(dim=0)
            assert torch.allclose(rows[1][kind][320 + number], mean, atol=1e-6)


def test_text_is_cut_as_before_and_then_further(tmp_path: Path) -> None:
    text = make_tokenizer_json()
    old = Tokenizer.from_str(text)
    pieces = train_pieces(old, TEXTS, 40)
    assert pieces == train_pieces(old, TEXTS, 40)
    new = Tokenizer.from_str(extended_json(text, pieces))
    stands_for = {new.get_vocab()[piece.token]: piece.old_ids for piece in pieces}
    assert sorted(stands_for) == list(range(320, 360))
    assert all(new.token_to_id(token) == id_ for token, id_ in old.get_vocab().items())
    for sentence in [*TEXTS, *SENTENCES[:5], "Herzherz Infarkt 🙂 \n\n  x"]:
        ids, before = new.encode(sentence).ids, old.encode(sentence).ids
        assert [o for id_ in ids for o in stands_for.get(id_, (id_,))] == before
        assert new.decode(ids) == old.decode(before)
    saved = sum(len(new.encode(t).ids) for t in TEXTS) / sum(len(old.encode(t).ids) for t in TEXTS)
    assert saved < 0.7


def slow_pieces(old: Tokenizer, texts: list[str], num_pieces: int) -> list[int]:
    """Merge the most frequent pair again and again, counting anew; return how often each came."""
    words = []
    for text in texts:
        encoding = old.encode(text, add_special_tokens=False)
        word: list[tuple[int, ...]] = []
        for position, id_ in enumerate(encoding.ids):
            if position and encoding.word_ids[position] != encoding.word_ids[position - 1]:
                words.append(word)
                word = []
            word.append((id_,))
        words.append(word)
    counts = []
    for _ in range(num_pieces):
        pairs: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
        for word in words:
            for pair in itertools.pairwise(word):
                pairs[pair] = pairs.get(pair, 0) + 1
        best = max(pairs, key=lambda pair: pairs[pair])
        counts.append(pairs[best])
        for index, word in enumerate(words):
            merged: list[tuple[int, ...]] = []
            for part in word:
                if merged and (merged[-1], part) == best:
                    merged[-1] = merged[-1] + part
                else:
                    merged.append(part)
            words[index] = merged
    return counts


def test_a_tokenizer_that_takes_whole_words_first(tmp_path: Path) -> None:
    """Llama 3's `ignore_merges`: a word that is a token is that token, whatever merges say of it.

    Old words stay that, though their merges would lead elsewhere; new words become one token.
    """
    base = make_tiny_base(tmp_path / "base")
    path = base / "tokenizer.json"
    state = json.loads(path.read_text())
    state["model"]["ignore_merges"] = True
    old_word = state["model"]["vocab"]
    taken = next(token for token in old_word if len(token) > 3 and token.startswith("Ġ"))
    # Without its last merge the merges no longer lead to it: it is found as a word, or not at all.
    state["model"]["merges"] = [
        merge for merge in state["model"]["merges"] if "".join(merge).replace(" ", "") != taken
    ]
    path.write_text(json.dumps(state))
    old = Tokenizer.from_file(str(path))
    spelled = old.decode([old_word[taken]])
    assert old.encode(spelled, add_special_tokens=False).ids == [old_word[taken]]
    state["model"]["ignore_merges"] = False
    by_merges = Tokenizer.from_str(json.dumps(state)).encode(spelled, add_special_tokens=False)
    assert len(by_merges.ids) > 1, "the merges lead elsewhere"
    assert extend(base, tmp_path) == 0
    out = tmp_path / "out"
    assert json.loads((out / "tokenizer.json").read_text())["model"]["ignore_merges"] is True
    for new in (
        Tokenizer.from_file(str(out / "tokenizer.json")),
        AutoTokenizer.from_pretrained(out).backend_tokenizer,
    ):
        assert new.encode(spelled, add_special_tokens=False).ids == [old_word[taken]]
        as_before = 0
        for text in [*TEXTS, *SENTENCES[:5], *" ".join(SENTENCES[:5]).split()]:
            ids, before = new.encode(text).ids, old.encode(text).ids
            assert new.decode(ids) == old.decode(before)
            if max(ids) < 320:
                assert ids == before
                as_before += 1
        assert as_before > 10
        (word,) = new.encode(" der", add_special_tokens=False).ids
        assert word >= 320


def test_the_most_frequent_pairs_are_merged() -> None:
    """Against counting by hand, on a text without ties."""
    old = Tokenizer.from_str(make_tokenizer_json())
    texts = ["qzx"] * 40 + ["wjv"] * 23 + ["qz"] * 5
    pieces = train_pieces(old, texts, 4)
    assert [piece.token for piece in pieces] == ["qz", "qzx", *[p.token for p in pieces[2:]]]
    assert slow_pieces(old, texts, 4) == [45, 40, 23, 23]
    assert pieces[3].token == "wjv"
    assert pieces[1] == NewPiece(
        "qzx", "qz", "x", tuple(old.encode("qzx", add_special_tokens=False).ids)
    )


def test_added_tokens_behind_the_vocabulary_keep_their_ids(tmp_path: Path) -> None:
    """As Llama 3 has them: ids after the model's own, in no merge."""
    tokenizer = Tokenizer.from_str(make_tokenizer_json())
    tokenizer.add_special_tokens(["<|turn|>"])
    tokenizer.add_tokens(["Aorta"])
    text = tokenizer.to_str()
    assert (tokenizer.token_to_id("<|turn|>"), tokenizer.token_to_id("Aorta")) == (320, 321)
    pieces = train_pieces(tokenizer, TEXTS, 20)
    assert not any({320, 321} & set(piece.old_ids) for piece in pieces)
    new = Tokenizer.from_str(extended_json(text, pieces))
    assert (new.token_to_id("<|turn|>"), new.token_to_id("Aorta")) == (320, 321)
    assert [new.token_to_id(piece.token) for piece in pieces] == list(range(322, 342))
    assert new.encode("<|turn|>", add_special_tokens=False).ids == [320]


def test_sentencepiece_bytes_and_spaces_are_not_merged() -> None:
    """Bytes that stand for unknown characters are decoded one by one; a word begins at ▁."""
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)}
    vocabulary |= {token: 256 + n for n, token in enumerate(["▁", "a", "b", "▁a"])}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=[("▁", "a")], byte_fallback=True, fuse_unk=True)
    )
    pieces = train_pieces(tokenizer, ["▁ab▁ab▁東東"] * 9, 9)
    assert [piece.token for piece in pieces] == ["▁ab"]


def test_kinds_that_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = make_tiny_base(tmp_path / "base")
    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.train_from_iterator(
        SENTENCES, trainers.UnigramTrainer(vocab_size=200, unk_token="<u>", special_tokens=["<u>"])
    )
    unigram.save(str(base / "tokenizer.json"))
    assert extend(base, tmp_path) == 2
    assert "it is a Unigram tokenizer: with further pieces old text" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_is_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["extend-vocabulary", str(tmp_path / "none"), "--text", "no-such-*.txt"]
    assert main([*given, "--tokens", "9", "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "2 problems" in error
    assert "--text: 'no-such-*.txt' matches no file" in error
    base = make_tiny_base(tmp_path / "base")
    assert extend(base, tmp_path, 10_000) == 2
    assert "new pieces that occur twice, not 10,000" in capsys.readouterr().err


def test_again_damaged_and_beside_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = make_tiny_base(tmp_path / "base", tied_embeddings=False)
    (base / "merges.txt").write_text("of the old vocabulary")
    assert extend(base, tmp_path) == 0
    out = tmp_path / "out"
    said = capsys.readouterr().out
    assert "rows: 320 → 384" in said
    assert "fewer tokens), on like text" in said
    facts = read_model_facts(out)
    assert facts.new_pieces is not None
    assert (facts.num_token_ids, facts.new_pieces.first_id) == (360, 320)
    notes = Notes()
    _explain_vocabulary(facts, notes)
    (told,) = notes.reasons
    assert told.value == "360 tokens"
    assert told.reason.startswith(
        "384 rows of the embedding, 24 in reserve; 40 were added, tokens per byte 0."
    )
    assert facts.new_pieces.tokens_per_byte < 0.8 * facts.new_pieces.tokens_per_byte_before
    assert not (out / "merges.txt").exists()
    assert str(tmp_path) not in (out / "README.md").read_text(encoding="utf-8")
    head, embedding = (
        load_file(out / "model.safetensors")[name]
        for name in ("lm_head.weight", "model.embed_tokens.weight")
    )
    assert head.shape == embedding.shape == (384, 32)
    assert not torch.equal(head[320:], embedding[320:])
    assert extend(base, tmp_path) == 0
    assert "extended already" in capsys.readouterr().out
    assert extend(base, tmp_path, 20) == 2
    assert "out: there is something already" in capsys.readouterr().err
    raw = bytearray((out / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (out / "model.safetensors").write_bytes(raw)
    assert extend(base, tmp_path) == 2
    assert "it is this extension, damaged: model.safetensors" in capsys.readouterr().err


def test_rows_in_reserve_are_used_first(tmp_path: Path) -> None:
    """A base of 320 tokens with 512 rows keeps its rows."""
    base = make_family_folder(tmp_path / "base", "llama", vocab_size=512)
    assert extend(base, tmp_path) == 0
    before, after = (
        load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
        for folder in (base, tmp_path / "out")
    )
    assert after.shape == before.shape
    assert torch.equal(after[:320], before[:320])
    assert torch.equal(after[360:], before[360:])
    assert not torch.equal(after[320:360], before[320:360])


def test_a_tokenizer_that_cuts_old_text_otherwise_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without one of its own merges."""

    def without(text: str, pieces: list[NewPiece]) -> str:
        state = json.loads(extended_json(text, pieces))
        del state["model"]["merges"][0]
        return json.dumps(state)

    monkeypatch.setattr(export_room, "extended_json", without)
    base = make_tiny_base(tmp_path / "base")
    assert extend(base, tmp_path) == 2
    assert "cannot be joined to it soundly: it would cut" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["base"]
