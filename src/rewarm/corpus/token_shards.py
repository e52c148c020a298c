"""Takes token shards over where they lie: links to them, and beside those what views need.

Of every document the body (without the tokens that documents begin and end with, where they are
there) is decoded once: its UTF-8 bytes are counted for bits per byte, and the hash of its text
decides the split, as it does for a source of text.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rewarm.artifacts import MANIFEST_NAME, file_sha256, parse_json
from rewarm.corpus.encoding import TEXT_HASHES, Meter, flushed_size
from rewarm.corpus.files import Input, size_of
from rewarm.corpus.place import SourceText
from rewarm.corpus.shards import TokenShard, open_shard
from rewarm.corpus.tokenize import (
    DocumentFrame,
    Encoder,
    body_span,
    open_encoder,
    tokenizer_fingerprint,
)
from rewarm.corpus.top_k import check_top_k
from rewarm.errors import CorpusError
from rewarm.records.facts import CorpusFacts

__all__ = ["UNNAMED_TOKENIZER", "ShardTaker", "estimate_shards"]

UNNAMED_TOKENIZER = (
    "its shards name no tokenizer: that their ids are those of the base's is taken on trust"
)
_BATCH_TOKENS = 2**20
_SAMPLED_SHARDS = 8
_SAMPLED_TOKENS = 2**16
_SHARD = (".bin", ".idx")

Integers = NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class ShardTaker:
    """Takes over shards into the prepared folder `folder`.

    `tokenizer` is the fingerprint of the base's.
    """

    encoder: Encoder
    tokenizer: str
    meter: Meter
    folder: Path

    def write(self, prefix: Path, paths: Sequence[Input]) -> dict[str, Any]:
        """Write what stands beside a shard's links, and them, under `prefix`; return its facts.

        Raises CorpusError for a shard that cannot be read, is not as its manifest says, names
        another tokenizer, or holds an id that the model has no embedding for.
        """
        source = _local(paths[0]).with_suffix("")
        named = _check_tokenizer(source, self.tokenizer)
        _check_hashes(source)
        shard = open_shard(source)
        check_top_k(source, self.encoder.vocab_size)
        columns = _Columns()
        for documents in _batches(shard):
            self._take(documents, shard, columns)
        np.save(f"{prefix}.bytes.npy", np.array(columns.num_bytes, dtype=np.uint64))
        np.save(f"{prefix}{TEXT_HASHES}", np.array(columns.text_hashes, dtype=np.uint64))
        Path(f"{prefix}.answers.jsonl").write_bytes(b"")
        sizes = {}
        for path in _files_of(source, shard.num_documents):
            ending = path.name.removeprefix(source.name)
            os.symlink(self._target(path), f"{prefix}{ending}")
            sizes[ending] = path.stat().st_size
        if ".ids" not in sizes:
            _write_ids(Path(f"{prefix}.ids"), source.name, shard.num_documents)
        for ending in (".bytes.npy", TEXT_HASHES, ".answers.jsonl", ".ids"):
            if ending not in sizes:
                sizes[ending] = flushed_size(f"{prefix}{ending}")
        self.meter.bytes_before += sum(map(size_of, paths))
        return {
            "bytes": sizes,
            "num_inputs": len(paths),
            "rejected": {"empty": columns.num_empty} if columns.num_empty else {},
            "examples": [],
            "without_documents": [] if shard.num_documents else [paths[0].name],
            "frame": {
                "documents": shard.num_documents - columns.num_empty,
                "begin": columns.num_begin,
                "end": columns.num_end,
            },
            "names_tokenizer": named,
        }

    def _target(self, path: Path) -> str:
        """Return what a link to a file says: seen from the folder, where both may move together."""
        target = os.path.realpath(path)
        together = os.path.realpath(self.folder.parent)
        if os.path.commonpath([target, together]) == together:
            return os.path.relpath(target, os.path.join(together, self.folder.name))
        return target

    def _take(self, documents: Sequence[_Stretch], shard: TokenShard, columns: _Columns) -> None:
        shard.check_whole()
        every = [shard.tokens(first, last) for first, last in documents]
        for (first, _), ids in zip(documents, every, strict=True):
            _check_vocabulary(shard.path, first, ids, self.encoder.vocab_size)
        bodies = [_body(ids, self.encoder.frame, columns) for ids in every]
        for text in _texts(self.encoder, bodies):
            columns.num_bytes.append(text.num_bytes)
            columns.text_hashes.append(text.digest)
        self.meter.documents += len(documents)
        self.meter.tokens += sum(map(len, every))
        if documents:
            self.meter.tell(documents[-1][1] * every[0].dtype.itemsize)


def _local(file: Input) -> Path:
    """Return the path of a shard's file; `resolve_inputs` has refused those that lie elsewhere."""
    assert isinstance(file, Path)
    return file


class _Stretch(NamedTuple):
    """Tokens [first, last) of a shard."""

    first: int
    last: int


class _Text(NamedTuple):
    """What is kept of a decoded text: its UTF-8 bytes and its 64-bit hash."""

    num_bytes: int
    digest: int


@dataclass(slots=True)
class _Columns:
    """What is kept of each document of a shard beside its tokens, and counts over them."""

    num_bytes: list[int] = field(default_factory=list)
    text_hashes: list[int] = field(default_factory=list)
    num_begin: int = 0
    num_end: int = 0
    num_empty: int = 0


def _batches(shard: TokenShard) -> Iterator[list[_Stretch]]:
    """Yield documents in batches of about a million tokens: memory does not grow with the shard."""
    batch: list[_Stretch] = []
    size = 0
    starts = shard.document_starts
    for index in range(shard.num_documents):
        batch.append(_Stretch(int(starts[index]), int(starts[index + 1])))
        size += batch[-1].last - batch[-1].first
        if size >= _BATCH_TOKENS or len(batch) >= _BATCH_TOKENS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _check_vocabulary(path: Path, first: int, ids: Integers, vocab_size: int) -> None:
    if not ids.size or (int(ids.min()) >= 0 and int(ids.max()) < vocab_size):
        return
    place = int(np.flatnonzero((ids < 0) | (ids >= vocab_size))[0])
    raise CorpusError.one(
        str(path),
        f"token {first + place} (from 0) is id {int(ids[place])}, but the model's vocabulary has "
        f"{vocab_size} entries",
        "these tokens are another tokenizer's: tokenize the text anew with the base's own",
    )


def _body(ids: Integers, frame: DocumentFrame, columns: _Columns) -> Integers:
    """Return a document's own tokens, and count which of the frame it has."""
    if not ids.size:
        columns.num_empty += 1
        return ids
    start, stop = body_span(ids, frame.begin, frame.end)
    columns.num_begin += start == len(frame.begin)
    columns.num_end += len(ids) - stop == len(frame.end)
    return ids[start:stop]


def _texts(encoder: Encoder, bodies: Sequence[Integers]) -> list[_Text]:
    """Return length and hash of each body's text; special tokens in it are none of it.

    What the ids spell that is no UTF-8 becomes U+FFFD; so does a character where a document of more
    than a million tokens is cut in pieces for decoding.
    """
    pieces = [
        (number, ids[first : first + _BATCH_TOKENS].tolist())
        for number, ids in enumerate(bodies)
        for first in range(0, len(ids), _BATCH_TOKENS)
    ]
    digests = [hashlib.blake2b(digest_size=8) for _ in bodies]
    sizes = [0] * len(bodies)
    decoded = encoder.tokenizer.decode_batch([ids for _, ids in pieces])
    for (number, _), text in zip(pieces, decoded, strict=True):
        content = text.encode("utf-8", "replace")
        sizes[number] += len(content)
        digests[number].update(content)
    return [
        _Text(size, int.from_bytes(digest.digest(), "big"))
        for size, digest in zip(sizes, digests, strict=True)
    ]


def _manifest_beside(prefix: Path) -> dict[str, Any]:
    """Return the manifest in a shard's folder; empty where there is none that can be read."""
    try:
        value = parse_json((prefix.parent / MANIFEST_NAME).read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _check_tokenizer(prefix: Path, tokenizer: str) -> bool:
    """Tell whether a shard's manifest names the tokenizer with this fingerprint.

    Raises CorpusError where it names another one.
    """
    named = _manifest_beside(prefix).get("tokenizer_fingerprint")
    if named is None:
        return False
    if named != tokenizer:
        raise CorpusError.one(
            str(prefix),
            f"its manifest names another tokenizer ({str(named)[:12]}) than the base's "
            f"({tokenizer[:12]})",
            "tokenize the text anew with the base's own tokenizer",
        )
    return True


def _check_hashes(prefix: Path) -> None:
    """Raise CorpusError where a shard is not as the manifest in its folder says."""
    files = _manifest_beside(prefix).get("files")
    for ending in _SHARD:
        path = Path(f"{prefix}{ending}")
        entry = files.get(path.name) if isinstance(files, dict) else None
        wanted = entry.get("sha256") if isinstance(entry, dict) else None
        if wanted is not None and file_sha256(path) != wanted:
            raise CorpusError.one(
                str(path),
                f"it is not as the {MANIFEST_NAME} beside it says (its SHA-256 differs)",
                "make it again with the command that wrote it, or copy it again from its source",
            )


def _files_of(prefix: Path, num_documents: int) -> list[Path]:
    """Return the files that are linked: the shard, its ids, the base's distribution over it."""
    names = [Path(f"{prefix}{ending}") for ending in _SHARD]
    if _has_ids(prefix, num_documents):
        names.append(Path(f"{prefix}.ids"))
    return names + sorted(prefix.parent.glob(f"{glob.escape(prefix.name)}.top_k.*"))


def _has_ids(prefix: Path, num_documents: int) -> bool:
    """Tell whether beside a shard stands the id of each of its documents, a line each."""
    try:
        with Path(f"{prefix}.ids").open("rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b"")) == (
                num_documents
            )
    except OSError:
        return False


def _write_ids(path: Path, name: str, num_documents: int) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(f"{name}:{index}") + "\n" for index in range(num_documents))


def estimate_shards(text: SourceText, *, vocab_size: int) -> CorpusFacts:
    """Return the facts of a source of token shards: documents and tokens by their indices, bytes
    from the first documents of up to 8 shards.

    Raises CorpusError as `ShardTaker.write` does, for what the indices and the sample show.
    """
    encoder = open_encoder(text.tokenizer_folder, text.tokenizer_recipe, vocab_size=vocab_size)
    tokenizer = tokenizer_fingerprint(text.tokenizer_folder)
    prefixes = [_local(path).with_suffix("") for path in text.inputs[::2]]
    named = [_check_tokenizer(prefix, tokenizer) for prefix in prefixes]
    shards = [open_shard(prefix) for prefix in prefixes]
    sampled = [
        (_bytes_of_first(shard, encoder))
        for shard in shards[:: max(1, len(shards) // _SAMPLED_SHARDS)][:_SAMPLED_SHARDS]
    ]
    bytes_per_token = sum(size for size, _ in sampled) / max(1, sum(num for _, num in sampled))
    num_tokens = sum(shard.num_tokens for shard in shards)
    num_documents = sum(int((np.diff(shard.document_starts) > 0).sum()) for shard in shards)
    if not num_documents:
        raise CorpusError.one(
            f"sources.{text.name}", "its shards hold no token", "name shards that hold some"
        )
    held_out = text.source.held_out
    return CorpusFacts(
        name=text.name,
        role=text.source.role,
        key=text.key(),
        tokens="",
        folder="",
        measured=False,
        num_documents=round(num_documents * (1 - held_out)),
        num_tokens=round(num_tokens * (1 - held_out)),
        num_bytes=round(num_tokens * bytes_per_token * (1 - held_out)),
        held_out_documents=round(num_documents * held_out),
        held_out_tokens=round(num_tokens * held_out),
        held_out_bytes=round(num_tokens * bytes_per_token * held_out),
        begin_token_ids=encoder.frame.begin,
        end_token_ids=encoder.frame.end,
        begin_tokens=encoder.spell(encoder.frame.begin),
        end_tokens=encoder.spell(encoder.frame.end),
        tokenizer_fingerprint=tokenizer,
        licence=text.source.licence,
        warnings=() if all(named) else (UNNAMED_TOKENIZER,),
    )


def _bytes_of_first(shard: TokenShard, encoder: Encoder) -> tuple[int, int]:
    """Return the UTF-8 bytes and the tokens of a shard's first documents."""
    last = min(shard.num_tokens, _SAMPLED_TOKENS)
    shard.check_whole()
    ids = shard.tokens(0, last)
    _check_vocabulary(shard.path, 0, ids, encoder.vocab_size)
    return _texts(encoder, [ids])[0].num_bytes, last
