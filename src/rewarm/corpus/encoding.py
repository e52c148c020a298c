"""Encodes input files into one shard: tokens, and beside them what is kept of each document.

.bin .idx     tokens (Megatron)            .ids            one JSON string a line
.bytes.npy    UTF-8 bytes, u64             .answers.jsonl  questions and answers held out
.hash.npy     64-bit hash of the text      .group.npy      hash of the group, where there is one
.labels.bin   of conversations: u8, 1 where a token is trained on; .label_counts.npy by document
.chats.jsonl  conversations held out       .rejects.jsonl  some of what was not taken, with reasons
.questions.jsonl  [question, answer] of each document, null of those held out
.tags.jsonl   [language, licence] of each document, where its fields say so
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np
from numpy.typing import NDArray

from rewarm.corpus.ahead import Ahead
from rewarm.corpus.documents import DocumentEncoder, Encoded, Refused
from rewarm.corpus.files import Input, read_ahead, size_of
from rewarm.corpus.filters import Filters
from rewarm.corpus.label_mask import LABEL_COUNTS, LABEL_MASK
from rewarm.corpus.records import Document, Rejections
from rewarm.corpus.shards import dtype_for, write_shard
from rewarm.corpus.sources import read_documents
from rewarm.corpus.tokenize import DocumentFrame, body_span
from rewarm.recipe.sources import SourceRecipe

__all__ = [
    "Meter",
    "PrepareProgress",
    "ShardEncoder",
    "flushed_size",
    "has_tags",
    "is_held_out",
    "shard_files",
    "split_hashes",
]

TEXT_HASHES = ".hash.npy"
TAGS = ".tags.jsonl"
REJECTS = ".rejects.jsonl"
ANSWERS = ".answers.jsonl"
CHATS = ".chats.jsonl"
QUESTIONS = ".questions.jsonl"
GROUP_HASHES = ".group.npy"
_BATCH_BYTES = 2 * 2**20
# Of a conversation's line, escaped, the evaluation reads a megabyte.
_MAX_SCORED_CHARACTERS = 2**16
_SCORED_ROLES = ("system", "user", "assistant")
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


def hash64(content: bytes) -> int:
    """Return the 64-bit hash of a document's text, or of its group's name, as UTF-8."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


def split_hashes(source: SourceRecipe) -> str:
    """Return the ending of the file whose hashes decide the split: of the groups, or of the texts
    themselves, so that exact duplicates always fall on one side."""
    return TEXT_HASHES if source.group_field is None else GROUP_HASHES


def shard_files(source: SourceRecipe) -> tuple[str, ...]:
    """Return the endings of a shard's files, its own manifest not counted."""
    endings = [".bin", ".idx", ".bytes.npy", TEXT_HASHES, ".ids", ANSWERS]
    if source.group_field is not None:
        endings.append(GROUP_HASHES)
    if not source.holds_tokens:
        endings.append(REJECTS)
    if has_tags(source):
        endings.append(TAGS)
    if source.question_field is not None:
        endings.append(QUESTIONS)
    if source.format == "chat":
        endings += [LABEL_MASK, LABEL_COUNTS, CHATS]
    return tuple(endings)


def has_tags(source: SourceRecipe) -> bool:
    """Tell whether documents say their language or licence themselves."""
    return source.language_field is not None or source.licence_field is not None


@dataclass(slots=True)
class _Columns:
    """What is kept of each document of a shard beside its tokens, in order."""

    num_bytes: list[int] = field(default_factory=list)
    text_hashes: list[int] = field(default_factory=list)
    group_hashes: list[int] = field(default_factory=list)
    label_counts: list[int] = field(default_factory=list)
    num_begin: int = 0
    num_end: int = 0

    def add(self, encoded: Encoded, frame: DocumentFrame) -> None:
        document, tokens, counted = encoded
        start, stop = body_span(tokens, frame.begin, frame.end)
        self.num_begin += start == len(frame.begin)
        self.num_end += len(tokens) - stop == len(frame.end)
        if counted is not None:
            self.label_counts.append(int(counted.sum()))
        content = document.text.encode("utf-8")
        self.num_bytes.append(len(content))
        self.text_hashes.append(hash64(content))
        if document.group is not None:
            self.group_hashes.append(hash64(document.group.encode("utf-8")))

    @property
    def split_hash(self) -> int:
        """The hash that decides on which side of the split the last document falls."""
        return (self.group_hashes or self.text_hashes)[-1]


@dataclass(frozen=True, slots=True)
class ShardEncoder:
    """Turns the files of one source into shards."""

    source: SourceRecipe
    encoder: DocumentEncoder
    meter: Meter
    filters: Filters | None = None

    def write(self, prefix: Path, paths: Sequence[Input]) -> dict[str, Any]:
        """Write the files of a shard under a prefix, flushed to the disk, and return its facts.

        Raises CorpusError for an input that cannot be read.
        """
        unread, refused = Rejections(), Rejections()
        empty: list[str] = []
        columns = _Columns()
        with contextlib.ExitStack() as stack:
            beside = _Beside(prefix, self.source, stack)

            def encoded() -> Iterator[NDArray[np.int64]]:
                batches = self._batches(paths, unread, empty)
                # While this thread hashes and writes one batch, another one is encoded.
                ahead = stack.enter_context(Ahead(self.encoder.encode))
                for one in self._taken(ahead.over(batches), refused):
                    columns.add(one, self.encoder.frame)
                    beside.add(one, is_held_out(columns.split_hash, self.source.held_out))
                    yield one.tokens

            write_shard(prefix, encoded(), dtype_for(self.encoder.vocab_size))
        rejections = unread.joined(refused)
        _write_rejects(Path(f"{prefix}{REJECTS}"), rejections)
        np.save(f"{prefix}.bytes.npy", np.array(columns.num_bytes, dtype=np.uint64))
        np.save(f"{prefix}{TEXT_HASHES}", np.array(columns.text_hashes, dtype=np.uint64))
        if self.source.group_field is not None:
            np.save(f"{prefix}{GROUP_HASHES}", np.array(columns.group_hashes, dtype=np.uint64))
        if self.source.format == "chat":
            np.save(f"{prefix}{LABEL_COUNTS}", np.array(columns.label_counts, dtype=np.uint64))
        return {
            "bytes": {
                ending: flushed_size(f"{prefix}{ending}") for ending in shard_files(self.source)
            },
            "num_inputs": len(paths),
            "rejected": dict(rejections.counts),
            "examples": rejections.examples,
            "without_documents": empty,
            "frame": {
                "documents": len(columns.num_bytes),
                "begin": columns.num_begin,
                "end": columns.num_end,
            },
        }

    def _taken(
        self, encoded: Iterable[Encoded | Refused], rejections: Rejections
    ) -> Iterator[Encoded]:
        """Yield documents with their tokens, without those that cannot be encoded."""
        for one in encoded:
            if isinstance(one, Refused):
                said = "\n".join(message["content"] for message in one.document.messages)
                rejections.add(one.reason, one.document.id, one.document.text or said)
                self.meter.documents -= 1
                continue
            self.meter.tokens += len(one.tokens)
            yield one

    def _batches(
        self, paths: Sequence[Input], rejections: Rejections, empty: list[str]
    ) -> Iterator[list[Document]]:
        """Yield documents in batches of bounded size: memory does not grow with the files.

        Names of files that hold no document at all are put into `empty`.
        """
        batch: list[Document] = []
        size = num_read = 0
        for path in read_ahead(paths):
            before = num_read + rejections.counts.total()
            for read, position in read_documents(path, self.source, rejections):
                document = read if self.filters is None else self.filters.judge(read)
                if isinstance(document, str):
                    rejections.add(document, read.id, read.text)
                    self.meter.tell(position)
                    continue
                num_read += 1
                self.meter.documents += 1  # filters take their time, and what is told moves on
                batch.append(document)
                size += len(document.text) + sum(len(m["content"]) for m in document.messages)
                if size >= _BATCH_BYTES:
                    yield batch
                    batch, size = [], 0
                    self.meter.tell(position)
            if num_read + rejections.counts.total() == before:
                empty.append(path.name)
            self.meter.bytes_before += size_of(path)
        if batch:
            yield batch


class _Beside:
    """The files that get a line, or some bytes, for a document while its shard is written."""

    def __init__(self, prefix: Path, source: SourceRecipe, stack: contextlib.ExitStack) -> None:
        self._prefix = prefix
        self._stack = stack
        self._ids = self._lines(".ids")
        self._answers = self._lines(ANSWERS)
        self._questions = self._lines(QUESTIONS) if source.question_field is not None else None
        self._tags = self._lines(TAGS) if has_tags(source) else None
        is_chat = source.format == "chat"
        self._chats = self._lines(CHATS) if is_chat else None
        self._mask = self._bytes(LABEL_MASK) if is_chat else None

    def _bytes(self, ending: str) -> BinaryIO:
        file = Path(f"{self._prefix}{ending}").open("wb")  # noqa: SIM115 - the stack closes it
        return self._stack.enter_context(file)

    def _lines(self, ending: str) -> TextIO:
        path = Path(f"{self._prefix}{ending}")
        return self._stack.enter_context(path.open("w", encoding="utf-8", newline="\n"))

    def add(self, encoded: Encoded, held_out: bool) -> None:
        document = encoded.document
        self._ids.write(json.dumps(document.id) + "\n")
        if document.question is not None and held_out:
            pair = {"question": document.question, "answer": document.answer}
            self._answers.write(json.dumps(pair, sort_keys=True) + "\n")
        if self._questions is not None:
            asked = None if held_out else [document.question, document.answer]
            self._questions.write(json.dumps(asked) + "\n")
        if self._tags is not None:
            self._tags.write(json.dumps([document.language, document.licence]) + "\n")
        if self._mask is not None and encoded.counted is not None:
            self._mask.write(encoded.counted.astype(np.uint8).tobytes())
        if self._chats is not None and held_out and _can_be_scored(document):
            said = {"messages": list(document.messages)}
            self._chats.write(json.dumps(said, sort_keys=True) + "\n")


def _can_be_scored(document: Document) -> bool:
    """Tell whether a conversation is one that the evaluation reads: the usual roles, no blank turn,
    and none of megabytes."""
    if any(message["role"] not in _SCORED_ROLES for message in document.messages):
        return False
    said = [message["content"] for message in document.messages]
    return all(text.strip() for text in said) and sum(map(len, said)) < _MAX_SCORED_CHARACTERS


def _write_rejects(path: Path, rejections: Rejections) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for reject in rejections.kept:
            file.write(json.dumps(asdict(reject), sort_keys=True) + "\n")


def flushed_size(path: str) -> int:
    """Wait until a file is on the disk, so that a shard's manifest never outlives its files, and
    return its size."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
