"""Tokenizers: training a small one, and new pieces for one that there is.

New pieces are made by going on with byte-pair merging where the tokenizer stopped: texts are cut by
it, and the most frequent pairs of its pieces are merged, then pairs of those, and so on. In the
extended tokenizer these merges come after all that it had. It therefore cuts any text as before and
only then merges further, so a text in which no new piece stands keeps its ids, and every new piece
stands for a fixed run of old ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from rewarm.errors import BaseModelError, Problems

__all__ = ["NewPiece", "extended_json", "note_not_extensible", "train_bpe", "train_pieces"]

# Planes 1 to 16: a code point for each of a million pieces, none of them white space.
_FIRST_CODE = 0x10000
_MOST_PIECES = 0x110000 - _FIRST_CODE
_BOUNDARY = ord(" ")
_WORD_BEGIN = "▁"


def train_bpe(texts: Iterable[str], vocab_size: int) -> str:
    """Return the `tokenizer.json` of a byte-level BPE trained on `texts`.

    `<s>` (id 0) is put in front by the post-processor, as Llamas have it; `</s>` (id 1) is for the
    end of documents. The same texts in the same order give the same tokenizer.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
    )
    return tokenizer.to_str()


@dataclass(frozen=True, slots=True)
class NewPiece:
    """A piece made of two others, and the old ids that it stands for."""

    token: str
    left: str
    right: str
    old_ids: tuple[int, ...]


def note_not_extensible(tokenizer: Tokenizer, where: str, problems: Problems) -> None:
    """Note what keeps merges from being joined to a tokenizer."""
    model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    fix = "keep its vocabulary, or use a base with a plain BPE tokenizer"
    if model["type"] != "BPE":
        problems.add(
            where,
            f"it is a {model['type']} tokenizer: with further pieces old text would be cut "
            "otherwise than the base learned it",
            fix,
        )
        return
    for key, why in (
        ("continuing_subword_prefix", "marks pieces within a word"),
        ("end_of_word_suffix", "marks ends of words"),
        ("dropout", "cuts at random"),
    ):
        if model.get(key):
            problems.add(where, f"it {why} ({key} = {model[key]!r})", fix)


def train_pieces(tokenizer: Tokenizer, texts: Sequence[str], num_pieces: int) -> list[NewPiece]:
    """Return up to `num_pieces` new pieces, most frequent first; fewer where there are no more.

    A piece occurs at least twice, lies within one pre-token, and spells what no token spells yet.
    Special and added tokens, and bytes that stand for unknown characters, are in none. The pairs
    are counted by the library's own trainer, each old piece one character to it. The same texts
    give the same pieces.
    """
    state = json.loads(tokenizer.to_str())
    words, used = _words(tokenizer, state, texts)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    found: list[NewPiece] = []
    wanted = num_pieces
    while True:
        merges = _merges(words, len(used) + wanted)
        found = _pieces(merges, used, tokenizer, vocabulary)
        if len(found) >= num_pieces or len(merges) < wanted:
            return found[:num_pieces]
        wanted += max(64, 2 * (num_pieces - len(found)))  # some spell what there is


def _words(
    tokenizer: Tokenizer, state: dict[str, Any], texts: Sequence[str]
) -> tuple[list[str], list[int]]:
    """Return texts as words of one character a piece, and the piece's id by character."""
    size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())
    apart, begins = _kinds_of_ids(tokenizer, state, size)
    code_of = np.zeros(size, dtype=np.uint32)
    used: list[int] = []
    words: list[str] = []
    for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        ids = np.array(encoding.ids, dtype=np.int64)
        if not ids.size:
            continue
        for id_ in np.unique(ids[code_of[ids] == 0]).tolist():
            if not apart[id_]:
                code_of[id_] = _FIRST_CODE + len(used)
                used.append(id_)
        of_word = np.array([-1 if word is None else word for word in encoding.word_ids])
        starts = np.concatenate([[False], of_word[1:] != of_word[:-1]]) | begins[ids]
        codes = np.full((len(ids), 2), _BOUNDARY, dtype="<u4")
        codes[:, 1] = np.where(apart[ids], _BOUNDARY, code_of[ids])
        kept = np.ones((len(ids), 2), dtype=bool)
        kept[:, 0] = starts
        words.append(codes[kept].tobytes().decode("utf-32-le"))
    if len(used) > _MOST_PIECES:
        raise BaseModelError.one(
            "tokenizer.json", f"{len(used):,} pieces are more than can be told apart", "report this"
        )
    return words, used


def _kinds_of_ids(
    tokenizer: Tokenizer, state: dict[str, Any], size: int
) -> tuple[np.ndarray[Any, np.dtype[np.bool_]], np.ndarray[Any, np.dtype[np.bool_]]]:
    """Return which ids no merge may touch, and before which a word begins."""
    apart, begins = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
    apart[list(tokenizer.get_added_tokens_decoder())] = True
    unknown = state["model"].get("unk_token")
    for token, id_ in tokenizer.get_vocab(with_added_tokens=False).items():
        if token == unknown or (state["model"].get("byte_fallback") and _is_byte(token)):
            apart[id_] = True
        # SentencePiece's tokenizers see a text as one word, with its spaces written so.
        begins[id_] = token.startswith(_WORD_BEGIN)
    return apart, begins


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _merges(words: Sequence[str], vocab_size: int) -> list[tuple[str, str]]:
    counter = Tokenizer(models.BPE())
    counter.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, min_frequency=2, show_progress=False)
    counter.train_from_iterator(words, trainer)
    return [(left, right) for left, right in json.loads(counter.to_str())["model"]["merges"]]


def _pieces(
    merges: Iterable[tuple[str, str]],
    used: Sequence[int],
    tokenizer: Tokenizer,
    vocabulary: dict[str, int],
) -> list[NewPiece]:
    """Return merges as pieces, without those that spell what there is, or stand on such a one."""

    def spelled(symbols: str) -> str:
        return "".join(
            str(tokenizer.id_to_token(used[ord(symbol) - _FIRST_CODE])) for symbol in symbols
        )

    found: dict[str, NewPiece] = {}
    taken = set(vocabulary)
    for left, right in merges:
        if any(len(part) > 1 and part not in found for part in (left, right)):
            continue
        token = spelled(left + right)
        if token in taken:
            continue
        taken.add(token)
        old_ids = tuple(used[ord(symbol) - _FIRST_CODE] for symbol in left + right)
        found[left + right] = NewPiece(token, spelled(left), spelled(right), old_ids)
    return list(found.values())


def extended_json(text: str, pieces: Sequence[NewPiece]) -> str:
    """Return `tokenizer.json` with new pieces behind all ids that it has, their merges last.

    Added tokens that are not in the model's own vocabulary are put there under the ids that they
    have: the library counts on from that vocabulary, so they would get others otherwise.
    """
    state = json.loads(text)
    model = state["model"]
    vocabulary: dict[str, int] = model["vocab"]
    for added in state.get("added_tokens") or ():
        vocabulary.setdefault(added["content"], added["id"])
    first = 1 + max(vocabulary.values())
    for offset, piece in enumerate(pieces):
        vocabulary[piece.token] = first + offset
    merges = [_pair(merge) for merge in model["merges"]]
    are_strings = bool(model["merges"]) and isinstance(model["merges"][0], str)
    merges += [[piece.left, piece.right] for piece in pieces]
    if are_strings and not any(" " in part for merge in merges for part in merge):
        model["merges"] = [" ".join(merge) for merge in merges]  # as older versions read them
    else:
        model["merges"] = merges
    return json.dumps(state, ensure_ascii=False, indent=2) + "\n"


def _pair(merge: str | list[str]) -> list[str]:
    return merge.split(" ") if isinstance(merge, str) else merge
