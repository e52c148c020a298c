"""Text to token ids with the base's own tokenizer, framed as in the base's pretraining."""

from __future__ import annotations

import difflib
import functools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rewarm.artifacts import file_sha256, fingerprint, parse_json
from rewarm.errors import BaseModelError, CorpusError, Problems
from rewarm.recipe.base import TokenizerRecipe

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = [
    "DocumentFrame",
    "Encoder",
    "body_span",
    "check_ids",
    "declared_eos",
    "open_encoder",
    "template_fingerprint",
    "tokenizer_fingerprint",
]


@dataclass(frozen=True, slots=True)
class DocumentFrame:
    """Ids in front of and behind every document."""

    begin: tuple[int, ...]
    end: tuple[int, ...]


def body_span(
    document: NDArray[np.integer], begin: Sequence[int], end: Sequence[int]
) -> tuple[int, int]:
    """Return where a document's own tokens start and stop, without `begin` and `end` where it has
    them."""
    start = len(begin) if document[: len(begin)].tolist() == list(begin) else 0
    stop = len(document) - len(end)
    if stop < start or document[stop:].tolist() != list(end):
        stop = len(document)
    return start, stop


def tokenizer_fingerprint(folder: Path) -> str:
    """Return the SHA-256 of `tokenizer.json`; raises BaseModelError where it is not there."""
    path = f"{os.fspath(folder)}/tokenizer.json"
    version = _version(path)
    if version is None or not os.path.isfile(path):
        raise BaseModelError.one(
            path,
            "it is not there",
            "make it: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
        )
    return _sha256_of(path, version)


# A recipe of a thousand sources asks a thousand times, of files of megabytes.
_Version = tuple[int, int, int, int]


def _version(path: str) -> _Version | None:
    """Return what changes whenever a file does; None where there is none."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


@functools.lru_cache(maxsize=64)
def _sha256_of(path: str, version: _Version) -> str:
    return file_sha256(Path(path))


# What says how messages are written, and which tokens a template may name.
_TEMPLATE_FILES = (
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


def template_fingerprint(folder: Path) -> str:
    """Return the SHA-256 over the files that say how a base writes messages."""
    found = {name: folder / name for name in _TEMPLATE_FILES}
    return fingerprint({name: file_sha256(path) for name, path in found.items() if path.is_file()})


@dataclass(frozen=True, slots=True)
class Encoder:
    """A tokenizer with the frame that documents get; made by `open_encoder`."""

    tokenizer: Tokenizer
    frame: DocumentFrame
    vocab_size: int
    is_special: NDArray[np.bool_]

    def holds_special_token(self, ids: NDArray[np.int64]) -> bool:
        """Tell whether a framed document holds a special token within its frame.

        The name of a special token is encoded as text wherever the tokenizer can. Where its model
        has the name as a piece (Unigram, BPE that ignores merges) the token itself comes out: to a
        model that was trained on it, the end of a document or a turn of a conversation.
        """
        end = len(ids) - len(self.frame.end)
        return bool(self.is_special[ids[len(self.frame.begin) : end]].any())

    def spell(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Return how the tokenizer spells these ids."""
        return tuple(self.tokenizer.id_to_token(token_id) or str(token_id) for token_id in ids)

    def encode(self, texts: Sequence[str]) -> Iterator[NDArray[np.int64]]:
        """Yield the framed ids of each text, int64 [tokens]; all are encoded before the first one.

        The name of a special token that occurs in a text is text; see `holds_special_token` for
        tokenizers that know no difference. Raises CorpusError for an id that the model has no
        embedding for.
        """
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        begin, end = len(self.frame.begin), len(self.frame.end)
        for encoding in encodings:
            body = encoding.ids
            ids = np.empty(begin + len(body) + end, dtype=np.int64)
            ids[:begin] = self.frame.begin
            ids[begin : begin + len(body)] = np.fromiter(body, np.int64, len(body))
            ids[begin + len(body) :] = self.frame.end
            check_ids(ids, self.vocab_size)
            yield ids


def check_ids(ids: NDArray[np.int64], vocab_size: int) -> None:
    """Raise CorpusError for an id of a document that the model has no embedding for."""
    if ids.size and int(ids.max()) >= vocab_size:
        offset = int(ids.argmax())
        raise CorpusError.one(
            "tokenizer.json",
            f"token id {int(ids[offset])} at offset {offset} of a document is beyond the model's "
            f"vocabulary of {vocab_size}",
            "use the tokenizer that belongs to this model",
        )


def open_encoder(folder: Path, recipe: TokenizerRecipe, *, vocab_size: int) -> Encoder:
    """Return the encoder of the base in `folder`.

    The frame is what the tokenizer's post-processor adds in front and behind; where it adds
    nothing behind, the EOS token is the end of a document. The recipe overrides either. Raises
    BaseModelError for a tokenizer that is missing, broken, without EOS, or lacks a named token.
    """
    from tokenizers import Tokenizer

    tokenizer_fingerprint(folder)
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise BaseModelError.one(
            str(path), f"it cannot be read ({error})", "restore it, or save the tokenizer again"
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    frame = _frame(tokenizer, folder, recipe)
    return Encoder(tokenizer, frame, vocab_size, _special(tokenizer, vocab_size))


def _special(tokenizer: Tokenizer, vocab_size: int) -> NDArray[np.bool_]:
    """Return which ids are special tokens, bool [vocabulary]; the one for what is unknown is not:
    ordinary text gives it."""
    is_special = np.zeros(vocab_size, dtype=np.bool_)
    for token_id, token in tokenizer.get_added_tokens_decoder().items():
        if token.special and token_id < vocab_size:
            is_special[token_id] = True
    unknown = json.loads(tokenizer.to_str())["model"]
    unknown_id = unknown.get("unk_id")  # Unigram has the id, the others the name
    if unknown_id is None and unknown.get("unk_token") is not None:
        unknown_id = tokenizer.token_to_id(unknown["unk_token"])
    if unknown_id is not None and unknown_id < vocab_size:
        is_special[unknown_id] = False
    return is_special


def _frame(tokenizer: Tokenizer, folder: Path, recipe: TokenizerRecipe) -> DocumentFrame:
    problems = Problems()
    begin, end = _post_processed(tokenizer)
    if recipe.document_begin != "auto":
        begin = _named_ids(tokenizer, recipe.document_begin, "tokenizer.document_begin", problems)
    if recipe.document_end != "auto":
        end = _named_ids(tokenizer, recipe.document_end, "tokenizer.document_end", problems)
    elif not end:
        eos, doubt = _eos_id(tokenizer, folder)
        if eos is None:
            problems.add(
                str(folder / "tokenizer.json"),
                f"the tokenizer has no EOS token{doubt}, so nothing would part the documents",
                'say how they end: tokenizer.document_end = ["<token>"]'
                + (" (or [] for nothing)" if begin else ""),
            )
        else:
            end = (eos,)
    if not (begin or end) and not len(problems):
        problems.add(
            "tokenizer.document_end",
            "documents would have neither a first nor a last token of their own: nothing would "
            "part them, and nothing could predict a first word",
            "name a token for document_begin or document_end, or leave both out",
        )
    problems.raise_as(BaseModelError)
    return DocumentFrame(begin, end)


def _post_processed(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids that the post-processor puts around a text, found by encoding one."""
    # A small vocabulary may not know "a"; where nothing is left of a text, in front and behind are
    # one place.
    probes = ("a", "the", "1", *sorted(tokenizer.get_vocab(), key=len)[:1000])
    bare: list[int] = []
    whole: list[int] = []
    for probe in probes:
        bare = tokenizer.encode(probe, add_special_tokens=False).ids
        whole = tokenizer.encode(probe, add_special_tokens=True).ids
        if bare:
            break
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return tuple(whole[:start]), tuple(whole[start + len(bare) :])
    return (), ()


def _named_ids(
    tokenizer: Tokenizer, names: Sequence[str], where: str, problems: Problems
) -> tuple[int, ...]:
    ids: list[int] = []
    for name in names:
        token_id = tokenizer.token_to_id(name)
        if token_id is None:
            near = difflib.get_close_matches(name, tokenizer.get_vocab(), n=1, cutoff=0.4)
            problems.add(
                where,
                f"the tokenizer has no token {name!r}",
                f"did you mean {near[0]!r}?" if near else "name a token of the vocabulary",
            )
        else:
            ids.append(token_id)
    return tuple(ids)


def _eos_id(tokenizer: Tokenizer, folder: Path) -> tuple[int | None, str]:
    """Return the EOS token's id from the folder's configuration files, tokenizer's own first.

    An id that the model's files give counts only where the tokenizer knows it as a token apart
    from text: many tokenizers were replaced under a config.json that stayed, and documents would
    end in an ordinary word. Where none counts, the second value says what was found instead.
    """
    apart = tokenizer.get_added_tokens_decoder()
    doubt = ""
    for said in declared_eos(folder):
        if isinstance(said, str):
            token_id = tokenizer.token_to_id(said)
            if token_id is not None:
                return token_id, ""
            doubt = doubt or f" (tokenizer_config.json names {said!r}, which it does not have)"
        elif said in apart:
            return said, ""
        else:
            token = tokenizer.id_to_token(said) if 0 <= said < 2**32 else None
            what = "which it does not have" if token is None else f"its ordinary piece {token!r}"
            doubt = doubt or f" (the model's files give id {said}, {what})"
    return None, doubt


def declared_eos(folder: Path) -> tuple[str | int, ...]:
    """Return what the folder's configuration files say of the EOS token: its name, then its ids.

    Two bases may share `tokenizer.json` and end their documents with different tokens.
    """
    place = os.fspath(folder)
    return _declared_eos(folder, tuple(_version(f"{place}/{name}") for name in _SAYS_EOS))


_SAYS_EOS = ("tokenizer_config.json", "generation_config.json", "config.json")


@functools.lru_cache(maxsize=64)
def _declared_eos(folder: Path, versions: tuple[_Version | None, ...]) -> tuple[str | int, ...]:
    token = _read(folder / _SAYS_EOS[0]).get("eos_token")
    if isinstance(token, dict):
        token = token.get("content")
    said: list[str | int] = [token] if isinstance(token, str) else []
    for name in _SAYS_EOS[1:]:
        value = _read(folder / name).get("eos_token_id")
        if isinstance(value, list):
            value = value[0] if value else None
        if isinstance(value, int):
            said.append(value)
    return tuple(said)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
