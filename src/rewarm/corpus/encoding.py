"""Encodes input files into one shard: tokens, and beside them what is kept of each document.

.bin .idx     tokens (Megatron)            .ids            one JSON string a line
.bytes.npy    UTF-8 bytes, u64             .answers.jsonl  questions and answers held out
.hash.npy     64-bit hash of the text      .group.npy      hash of the group, where there is one
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewarm.corpus.shards import dtype_for, write_shard
from rewarm.corpus.sources import Document, Rejections, read_documents
from rewarm.corpus.tokenize import Encoder
from rewarm.recipe.sources import SourceRecipe

__all__ = [
    "Meter",
    "PrepareProgress",
    "ShardEncoder",
    "flushed_size",
    "is_held_out",
    "shard_files",
    "split_hashes",
]

TEXT_HASHES = ".hash.npy"
GROUP_HASHES = ".group.npy"
_BATCH_BYTES = 4 * 2**20
_PROGRESS_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class PrepareProgress:
    """How far one source is; bytes are those of the input files on disk."""

    source: str
    documents: int
    bytes: int
    total_bytes: int
    tokens: int
    elapsed_s: float


@dataclass(slots=True)
class Meter:
    """Counts what is done of one source and tells it, at most five times a second."""

    source: str
    total_bytes: int
    progress: Callable[[PrepareProgress], None] | None
    started: float = field(default_factory=time.monotonic)
    last_told: float = 0.0
    documents: int = 0
    tokens: int = 0
    bytes_before: int = 0

    def tell(self, file_position: int = 0, *, always: bool = False) -> None:
        """Tell how far it is, `file_position` bytes into the input at work."""
        now = time.monotonic()
        if self.progress is None or (now - self.last_told < _PROGRESS_EVERY_S and not always):
            return
        self.last_told = now
        self.progress(
            PrepareProgress(
                source=self.source,
                documents=self.documents,
                bytes=self.bytes_before + file_position,
                total_bytes=self.total_bytes,
                tokens=self.tokens,
                elapsed_s=now - self.started,
            )
        )


def is_held_out(digest: int, share: float) -> bool:
    """Tell whether a document (or group) with this 64-bit hash is held out: hash/2^64 < share."""
    return digest / 2**64 < share


def hash64(text: str) -> int:
    """Return the 64-bit hash of a document's text or of its group's name."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "big")


def split_hashes(source: SourceRecipe) -> str:
    """Return the ending of the file whose hashes decide the split: of the groups, or of the texts
    themselves, so that exact duplicates always fall on one side."""
    return TEXT_HASHES if source.group_field is None else GROUP_HASHES


def shard_files(source: SourceRecipe) -> tuple[str, ...]:
    """Return the endings of a shard's files, its own manifest not counted."""
    endings = (".bin", ".idx", ".bytes.npy", TEXT_HASHES, ".ids", ".answers.jsonl")
    return endings if source.group_field is None else (*endings, GROUP_HASHES)


@dataclass(slots=True)
class _Columns:
    """What is kept of each document of a shard beside its tokens, in order."""

    num_bytes: list[int] = field(default_factory=list)
    text_hashes: list[int] = field(default_factory=list)
    group_hashes: list[int] = field(default_factory=list)

    def add(self, document: Document) -> None:
        self.num_bytes.append(len(document.text.encode("utf-8")))
        self.text_hashes.append(hash64(document.text))
        if document.group is not None:
            self.group_hashes.append(hash64(document.group))

    @property
    def split_hash(self) -> int:
        """The hash that decides on which side of the split the last document falls."""
        return (self.group_hashes or self.text_hashes)[-1]


@dataclass(frozen=True, slots=True)
class ShardEncoder:
    """Turns the files of one source into shards."""

    source: SourceRecipe
    encoder: Encoder
    meter: Meter

    def write(self, prefix: Path, paths: Sequence[Path]) -> dict[str, Any]:
        """Write the files of a shard under a prefix, flushed to the disk, and return its facts.

        Raises CorpusError for an input that cannot be read.
        """
        rejections = Rejections()
        empty: list[str] = []
        columns = _Columns()
        with (
            Path(f"{prefix}.ids").open("w", encoding="utf-8", newline="\n") as ids,
            Path(f"{prefix}.answers.jsonl").open("w", encoding="utf-8", newline="\n") as answers,
        ):

            def encoded() -> Iterator[NDArray[np.int64]]:
                for batch in self._batches(paths, rejections, empty):
                    for document, tokens in self._encode(batch, rejections):
                        columns.add(document)
                        ids.write(json.dumps(document.id) + "\n")
                        if document.question is not None and is_held_out(
                            columns.split_hash, self.source.held_out
                        ):
                            pair = {"question": document.question, "answer": document.answer}
                            answers.write(json.dumps(pair, sort_keys=True) + "\n")
                        yield tokens

            write_shard(prefix, encoded(), dtype_for(self.encoder.vocab_size))
        np.save(f"{prefix}.bytes.npy", np.array(columns.num_bytes, dtype=np.uint64))
        np.save(f"{prefix}{TEXT_HASHES}", np.array(columns.text_hashes, dtype=np.uint64))
        if self.source.group_field is not None:
            np.save(f"{prefix}{GROUP_HASHES}", np.array(columns.group_hashes, dtype=np.uint64))
        return {
            "bytes": {
                ending: flushed_size(f"{prefix}{ending}") for ending in shard_files(self.source)
            },
            "num_inputs": len(paths),
            "rejected": dict(rejections.counts),
            "examples": rejections.examples,
            "without_documents": empty,
        }

    def _encode(
        self, batch: Sequence[Document], rejections: Rejections
    ) -> Iterator[tuple[Document, NDArray[np.int64]]]:
        """Yield documents with their tokens, without those whose text became a special token."""
        encoded = self.encoder.encode([document.text for document in batch])
        for document, tokens in zip(batch, encoded, strict=True):
            if self.encoder.holds_special_token(tokens):
                rejections.add("special_token", document.id)
                continue
            self.meter.documents += 1
            self.meter.tokens += len(tokens)
            yield document, tokens

    def _batches(
        self, paths: Sequence[Path], rejections: Rejections, empty: list[str]
    ) -> Iterator[list[Document]]:
        """Yield documents in batches of bounded size: memory does not grow with the files.

        Names of files that hold no document at all are put into `empty`.
        """
        batch: list[Document] = []
        size = 0
        for path in paths:
            before = self.meter.documents + len(batch) + rejections.counts.total()
            for document, position in read_documents(path, self.source, rejections):
                batch.append(document)
                size += len(document.text)
                if size >= _BATCH_BYTES:
                    yield batch
                    batch, size = [], 0
                    self.meter.tell(position)
            if self.meter.documents + len(batch) + rejections.counts.total() == before:
                empty.append(path.name)
            self.meter.bytes_before += path.stat().st_size
        if batch:
            yield batch


def flushed_size(path: str) -> int:
    """Wait until a file is on the disk, so that a shard's manifest never outlives its files, and
    return its size."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
