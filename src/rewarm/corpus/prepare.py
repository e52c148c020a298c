"""Prepares one source: read, reject, split by hash, tokenize, write; restartable and repeatable.

A prepared source is a folder named after the source and the *key* of everything that determines
its tokens (inputs, reader options, tokenizer, frame, held-out rule), so recipes share it and a
change makes a new one. A large input file becomes one shard, small ones share one; a shard is
complete when its own small manifest (`shard-00000.json`) is there, so a kill costs at most the
shard at work. The same inputs give the same bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from rewarm.artifacts import (
    MANIFEST_NAME,
    file_sha256,
    fingerprint,
    parse_json,
    provenance,
    read_json,
    write_atomically,
    write_json,
)
from rewarm.corpus.shards import dtype_for, open_shard, write_shard
from rewarm.corpus.sources import Document, Rejections, read_documents, resolve_inputs
from rewarm.corpus.tokenize import Encoder, open_encoder, tokenizer_fingerprint
from rewarm.corpus.views import HELD_OUT, TRAIN
from rewarm.errors import CorpusError, EnvironmentFault, Problems
from rewarm.recipe.schema import SourceRecipe, TokenizerRecipe
from rewarm.records.facts import CorpusFacts

__all__ = [
    "HeldOutAnswer",
    "PrepareProgress",
    "check_rejected",
    "is_held_out",
    "load_facts",
    "prepare_source",
    "read_held_out_answers",
    "source_key",
    "verify_prepared",
]

FORMAT = 4
FACTS = "facts.json"
ANSWERS = "held_out_answers.jsonl"
_TEXT_HASHES = ".hash.npy"
_GROUP_HASHES = ".group.npy"
_MAX_REJECTED_SHARE = 0.01
_BATCH_BYTES = 4 * 2**20
# Large enough that a tree of a million files makes few shards, small enough to lose one to a kill.
_SHARD_INPUT_BYTES = 64 * 2**20
_MAX_SHARD_INPUTS = 10_000
# Source trees are full of empty files.
_HARMLESS = ("empty",)
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


class HeldOutAnswer(NamedTuple):
    """A question and its answer that are never trained on."""

    question: str
    answer: str


def is_held_out(digest: int, share: float) -> bool:
    """Tell whether a document (or group) with this 64-bit hash is held out: hash/2^64 < share."""
    return digest / 2**64 < share


def _hash(text: str) -> int:
    """Return the 64-bit hash of a document's text or of its group's name."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "big")


def _split_hashes(source: SourceRecipe) -> str:
    """Return the ending of the file whose hashes decide the split: of the groups, or of the texts
    themselves, so that exact duplicates always fall on one side."""
    return _TEXT_HASHES if source.group_field is None else _GROUP_HASHES


def _shard_files(source: SourceRecipe) -> tuple[str, ...]:
    """Return the endings of a shard's files, its own manifest not counted."""
    endings = (".bin", ".idx", ".bytes.npy", _TEXT_HASHES, ".ids", ".answers.jsonl")
    return endings if source.group_field is None else (*endings, _GROUP_HASHES)


def _stamp(path: Path) -> tuple[int, int]:
    """Return what tells that a file changed: its size and modification time in ns."""
    try:
        stat = path.stat()
    except OSError as error:
        raise CorpusError.one(
            str(path), f"it cannot be read ({error.strerror})", "put it back or mend the path"
        ) from error
    return stat.st_size, stat.st_mtime_ns


def source_key(
    source: SourceRecipe,
    inputs: Sequence[Path],
    *,
    recipe_folder: Path,
    tokenizer: str,
    tokenizer_recipe: TokenizerRecipe,
) -> str:
    """Return the fingerprint of everything that determines a source's tokens and split."""
    return fingerprint(
        {
            "format": FORMAT,
            "reader": source.model_dump(
                mode="json", exclude={"path", "role", "max_epochs", "max_epochs_reason", "licence"}
            ),
            "inputs": [[os.path.relpath(path, recipe_folder), *_stamp(path)] for path in inputs],
            "tokenizer": tokenizer,
            "frame": tokenizer_recipe.model_dump(mode="json"),
        }
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a source is (to be) prepared."""

    key: str
    folder: Path
    inputs: list[Path]
    stamps: list[tuple[int, int]]

    @property
    def total_bytes(self) -> int:
        """Size of the inputs on disk."""
        return sum(size for size, _ in self.stamps)

    def check_unchanged(self) -> None:
        """Raise CorpusError naming the inputs that were written to since the key was taken."""
        problems = Problems()
        for path, stamp in zip(self.inputs, self.stamps, strict=True):
            if _stamp(path) != stamp:
                problems.add(
                    str(path),
                    "it changed while it was prepared",
                    "run the command again once nothing writes to it",
                )
        problems.raise_as(CorpusError)

    def shards(self) -> list[list[Path]]:
        """Return which inputs go into which shard: in their order, by size alone."""
        groups: list[list[Path]] = []
        size = _SHARD_INPUT_BYTES
        for path, (num_bytes, _) in zip(self.inputs, self.stamps, strict=True):
            if size >= _SHARD_INPUT_BYTES or len(groups[-1]) >= _MAX_SHARD_INPUTS:
                groups.append([])
                size = 0
            groups[-1].append(path)
            size += num_bytes
        return groups


def _place(
    name: str,
    source: SourceRecipe,
    *,
    recipe_folder: Path,
    prepared_root: Path,
    tokenizer_folder: Path,
    tokenizer_recipe: TokenizerRecipe,
) -> _Place:
    inputs = resolve_inputs(name, source, recipe_folder)
    key = source_key(
        source,
        inputs,
        recipe_folder=recipe_folder,
        tokenizer=tokenizer_fingerprint(tokenizer_folder),
        tokenizer_recipe=tokenizer_recipe,
    )
    stamps = [_stamp(path) for path in inputs]
    return _Place(key, prepared_root / f"{name}-{key[:12]}", inputs, stamps)


def load_facts(
    name: str,
    source: SourceRecipe,
    *,
    recipe_folder: Path,
    prepared_root: Path,
    tokenizer_folder: Path,
    tokenizer_recipe: TokenizerRecipe,
) -> CorpusFacts | None:
    """Return the facts of a source as it is prepared; None where it is not (or its text changed).

    Files are looked at, not hashed: that is `verify_prepared`'s work before training. Raises
    CorpusError where the source's own files cannot be found.
    """
    place = _place(
        name,
        source,
        recipe_folder=recipe_folder,
        prepared_root=prepared_root,
        tokenizer_folder=tokenizer_folder,
        tokenizer_recipe=tokenizer_recipe,
    )
    facts = _facts_in(place.folder)
    if facts is None:
        return None
    # Role and licence are the recipe's to say and decide no token, so they are not in the key.
    return facts.model_copy(
        update={
            "name": name,
            "role": source.role,
            "licence": source.licence,
            "folder": str(place.folder),
        }
    )


def _facts_in(folder: Path) -> CorpusFacts | None:
    """Return the facts of a complete prepared folder: its manifest comes last."""
    if not (folder / MANIFEST_NAME).is_file():
        return None
    value = read_json(folder / FACTS, what="the corpus facts", error=CorpusError)
    try:
        return CorpusFacts.model_validate(value)
    except ValidationError:
        return None  # written by another version: prepared again


def prepare_source(
    name: str,
    source: SourceRecipe,
    *,
    recipe_folder: Path,
    prepared_root: Path,
    tokenizer_folder: Path,
    tokenizer_recipe: TokenizerRecipe,
    vocab_size: int,
    progress: Callable[[PrepareProgress], None] | None = None,
) -> CorpusFacts:
    """Return the measured facts of a source, doing only the work that is not done yet.

    Raises CorpusError (nothing to read, above 1 % rejected, a file that cannot be read),
    BaseModelError (tokenizer) and EnvironmentFault (the disk refuses).
    """
    common = {
        "recipe_folder": recipe_folder,
        "prepared_root": prepared_root,
        "tokenizer_folder": tokenizer_folder,
        "tokenizer_recipe": tokenizer_recipe,
    }

    def done() -> CorpusFacts | None:
        facts = load_facts(name, source, **common)  # type: ignore[arg-type]
        return facts if facts is not None and _sizes_hold(Path(facts.folder)) else None

    facts = done()
    if facts is not None:
        return facts
    place = _place(name, source, **common)  # type: ignore[arg-type]
    encoder = open_encoder(tokenizer_folder, tokenizer_recipe, vocab_size=vocab_size)
    tokenizer = tokenizer_fingerprint(tokenizer_folder)
    try:
        place.folder.mkdir(parents=True, exist_ok=True)
        with _alone(place.folder):
            return done() or _prepare(_Work(name, source, place, encoder, tokenizer, progress))
    except OSError as error:
        raise EnvironmentFault(
            f"{place.folder} cannot be written ({error.strerror or error})",
            "free some space or set prepared_folder elsewhere; the same command then goes on",
        ) from error


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time prepare a folder; the next one waits and finds it done.

    The system takes the lock from a process that is killed. A file system without locks is used
    without.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _prepare(work: _Work) -> CorpusFacts:
    """Make the shards that are not complete, then everything that stands on them."""
    folder = work.place.folder
    (folder / MANIFEST_NAME).unlink(missing_ok=True)
    for leftover in folder.glob(".tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    for number, paths in enumerate(work.place.shards()):
        work.shard(number, paths)
    work.place.check_unchanged()
    return _finish(work)


@dataclass(slots=True)
class _Columns:
    """What is kept of each document of a shard beside its tokens, in order."""

    num_bytes: list[int] = field(default_factory=list)
    text_hashes: list[int] = field(default_factory=list)
    group_hashes: list[int] = field(default_factory=list)

    def add(self, document: Document) -> None:
        self.num_bytes.append(len(document.text.encode("utf-8")))
        self.text_hashes.append(_hash(document.text))
        if document.group is not None:
            self.group_hashes.append(_hash(document.group))

    @property
    def split_hash(self) -> int:
        """The hash that decides on which side of the split the last document falls."""
        return (self.group_hashes or self.text_hashes)[-1]


def _flush(path: str) -> int:
    """Wait until a file is on the disk, so that a shard's manifest never outlives its files, and
    return its size."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


@dataclass(slots=True)
class _Work:
    """One source under preparation and how far it is."""

    name: str
    source: SourceRecipe
    place: _Place
    encoder: Encoder
    tokenizer: str
    progress: Callable[[PrepareProgress], None] | None
    started: float = field(default_factory=time.monotonic)
    last_progress: float = 0.0
    documents: int = 0
    tokens: int = 0
    bytes_before: int = 0

    def tell(self, file_position: int, *, always: bool = False) -> None:
        now = time.monotonic()
        if self.progress is None or (now - self.last_progress < _PROGRESS_EVERY_S and not always):
            return
        self.last_progress = now
        self.progress(
            PrepareProgress(
                source=self.name,
                documents=self.documents,
                bytes=self.bytes_before + file_position,
                total_bytes=self.place.total_bytes,
                tokens=self.tokens,
                elapsed_s=now - self.started,
            )
        )

    def shard(self, number: int, paths: Sequence[Path]) -> None:
        """Make the shard of these input files, unless it is complete."""
        prefix = self.place.folder / f"shard-{number:05d}"
        endings = _shard_files(self.source)
        if self._is_complete(prefix):
            self.bytes_before += sum(path.stat().st_size for path in paths)
        else:
            Path(f"{prefix}.json").unlink(missing_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=self.place.folder))
            try:
                facts = self._write(temporary / prefix.name, paths)
                facts["bytes"] = {e: _flush(f"{temporary / prefix.name}{e}") for e in endings}
                for ending in endings:
                    os.replace(f"{temporary / prefix.name}{ending}", f"{prefix}{ending}")
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            write_json(Path(f"{prefix}.json"), facts)
        self.tell(0, always=True)

    def _is_complete(self, prefix: Path) -> bool:
        """Tell whether a shard's own manifest is there, and its files in the sizes that it says."""
        try:
            sizes = parse_json(Path(f"{prefix}.json").read_bytes())["bytes"]
            return all(
                os.path.getsize(f"{prefix}{ending}") == sizes[ending]
                for ending in _shard_files(self.source)
            )
        except (OSError, ValueError, LookupError, TypeError):
            return False

    def _write(self, prefix: Path, paths: Sequence[Path]) -> dict[str, Any]:
        """Write a shard's files under a prefix and return its facts."""
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
        np.save(f"{prefix}{_TEXT_HASHES}", np.array(columns.text_hashes, dtype=np.uint64))
        if self.source.group_field is not None:
            np.save(f"{prefix}{_GROUP_HASHES}", np.array(columns.group_hashes, dtype=np.uint64))
        return {
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
            self.documents += 1
            self.tokens += len(tokens)
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
            before = self.documents + len(batch) + rejections.counts.total()
            for document, position in read_documents(path, self.source, rejections):
                batch.append(document)
                size += len(document.text)
                if size >= _BATCH_BYTES:
                    yield batch
                    batch, size = [], 0
                    self.tell(position)
            if self.documents + len(batch) + rejections.counts.total() == before:
                empty.append(path.name)
            self.bytes_before += path.stat().st_size
        if batch:
            yield batch


def _finish(work: _Work) -> CorpusFacts:
    """Write views, answers, facts and (last) the manifest of a source whose shards are complete."""
    folder = work.place.folder
    prefixes = [folder / f"shard-{number:05d}" for number in range(len(work.place.shards()))]
    notes = [
        read_json(Path(f"{prefix}.json"), what="the shard's manifest", error=CorpusError)
        for prefix in prefixes
    ]
    rejected = Counter[str]()
    for note in notes:
        rejected.update(note["rejected"])
    examples = [example for note in notes for example in note["examples"]]
    sizes = np.concatenate([np.load(f"{prefix}.bytes.npy") for prefix in prefixes])
    split = _split_hashes(work.source)
    digests = np.concatenate([np.load(f"{prefix}{split}") for prefix in prefixes])
    check_rejected(work.name, len(sizes), rejected, examples)
    held_out = digests.astype(np.float64) / 2.0**64 < work.source.held_out
    np.save(folder / TRAIN, np.flatnonzero(~held_out))
    np.save(folder / HELD_OUT, np.flatnonzero(held_out))
    answers = b"".join(Path(f"{prefix}.answers.jsonl").read_bytes() for prefix in prefixes)
    write_atomically(folder / ANSWERS, answers)
    lengths = np.concatenate([np.diff(open_shard(prefix).document_starts) for prefix in prefixes])
    facts = CorpusFacts(
        name=work.name,
        role=work.source.role,
        key=work.place.key,
        folder=str(folder),
        measured=True,
        num_documents=int((~held_out).sum()),
        num_tokens=int(lengths[~held_out].sum()),
        num_bytes=int(sizes[~held_out].sum()),
        held_out_documents=int(held_out.sum()),
        held_out_tokens=int(lengths[held_out].sum()),
        held_out_bytes=int(sizes[held_out].sum()),
        rejected=dict(sorted(rejected.items())),
        begin_token_ids=work.encoder.frame.begin,
        end_token_ids=work.encoder.frame.end,
        begin_tokens=work.encoder.spell(work.encoder.frame.begin),
        end_tokens=work.encoder.spell(work.encoder.frame.end),
        tokenizer_fingerprint=work.tokenizer,
        licence=work.source.licence,
        warnings=_warnings(work, lengths, held_out, notes),
    )
    write_json(folder / FACTS, facts.model_dump(mode="json"))
    _write_manifest(folder, work)
    return facts


def check_rejected(
    name: str, num_documents: int, rejected: Counter[str], examples: Sequence[str]
) -> None:
    """Raise CorpusError where nothing is left of a source, or above 1 % of it is rejected.

    What is empty does not count: there is nothing in it to mend.
    """
    harmful = sum(count for reason, count in rejected.items() if reason not in _HARMLESS)
    total = num_documents + harmful
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(rejected.items()))
    if num_documents == 0:
        raise CorpusError.one(
            f"sources.{name}",
            f"no document could be taken ({reasons or 'all of its files are empty'})"
            + (f", e.g. {'; '.join(examples[:3])}" if examples else ""),
            _remedy(rejected),
        )
    if harmful > _MAX_REJECTED_SHARE * total:
        raise CorpusError.one(
            f"sources.{name}",
            f"{harmful} of {total} documents are rejected ({reasons}), above 1 %; "
            f"e.g. {'; '.join(examples[:3])}",
            _remedy(rejected),
        )


_REMEDIES = {
    "bom": "save the files without byte-order marks (U+FEFF)",
    "file_too_large": "write files above 256 MiB as jsonl, one document a line",
    "invalid_utf8": "convert the files to UTF-8",
    "missing_field": "set text_field (group_field, question_field, answer_field) to what it has",
    "not_a_string": "set text_field to a field that holds text",
    "not_an_object": "write one JSON object a line",
    "special_token": "take the names of the tokenizer's special tokens out of the text",
}


def _remedy(rejected: Counter[str]) -> str:
    """Return what to do about the most frequent reason."""
    (reason, _), *_ = rejected.most_common(1) or [("", 0)]
    return _REMEDIES.get(reason, "mend or leave out these documents, or check path and format")


def _warnings(
    work: _Work,
    lengths: NDArray[np.int64],
    held_out: NDArray[np.bool_],
    notes: Sequence[dict[str, Any]],
) -> tuple[str, ...]:
    empty = [name for note in notes for name in note["without_documents"]]
    warnings = []
    if empty:
        named = ", ".join(empty[:3]) + (f" and {len(empty) - 3} more" if len(empty) > 3 else "")
        warnings.append(f"{named} gave no document")
    if work.source.held_out > 0 and not held_out.any():
        warnings.append(
            f"none of its {len(lengths)} documents is held out at {work.source.held_out:g}, so "
            "nothing can be measured on it; raise held_out"
        )
    return tuple(warnings)


def _write_manifest(folder: Path, work: _Work) -> None:
    """Write the manifest, last: sizes, times and hashes of all files, inputs and provenance."""
    names = sorted(
        path.name
        for path in folder.iterdir()
        if path.is_file() and path.name != MANIFEST_NAME and not path.name.startswith(".")
    )
    files = {}
    for name in names:
        stat = (folder / name).stat()
        files[name] = {
            "bytes": stat.st_size,
            "sha256": file_sha256(folder / name),
            "mtime_ns": stat.st_mtime_ns,
        }
    write_json(
        folder / MANIFEST_NAME,
        {
            "files": files,
            "key": work.place.key,
            "inputs": [
                {"name": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
                for path in work.place.inputs
            ],
            "reader": work.source.model_dump(mode="json"),
            "provenance": provenance(["rewarm", "tokenizers", "pyarrow", "numpy"]),
        },
    )


def _manifest(folder: Path) -> dict[str, Any]:
    value = read_json(folder / MANIFEST_NAME, what="the manifest", error=CorpusError)
    if not isinstance(value, dict) or not isinstance(value.get("files"), dict):
        raise CorpusError.one(
            str(folder / MANIFEST_NAME), "it lists no files", "run `rewarm prepare` again"
        )
    return value


def _sizes_hold(folder: Path) -> bool:
    """Tell, without reading the data, whether all files are there in their sizes."""
    try:
        return all(
            (folder / name).stat().st_size == entry["bytes"]
            for name, entry in _manifest(folder)["files"].items()
        )
    except OSError:
        return False


def verify_prepared(facts: CorpusFacts) -> None:
    """Raise CorpusError naming every file of a prepared source that changed since.

    A file whose size and modification time are those of the manifest is taken as unchanged; any
    other is hashed.
    """
    folder = Path(facts.folder)
    problems = Problems()
    manifest = _manifest(folder)
    if manifest.get("key") != facts.key:
        problems.add(
            str(folder),
            "it holds other text than was planned with (its key differs)",
            "run `rewarm prepare` and `rewarm plan` again",
        )
    for name, entry in manifest["files"].items():
        path = folder / name
        fix = f"run `rewarm prepare` again (it makes {folder.name} anew where it is deleted)"
        try:
            stat = path.stat()
        except OSError:
            problems.add(str(path), "it was there at prepare and is gone", fix)
            continue
        if (stat.st_size, stat.st_mtime_ns) == (entry["bytes"], entry["mtime_ns"]):
            continue
        if stat.st_size != entry["bytes"] or file_sha256(path) != entry["sha256"]:
            problems.add(str(path), "it changed since prepare", fix)
    problems.raise_as(CorpusError)


def read_held_out_answers(folder: Path) -> list[HeldOutAnswer]:
    """Return the held-out questions and answers of a prepared source; most sources have none."""
    path = folder / ANSWERS
    if not path.is_file():
        return []
    pairs = [parse_json(line) for line in path.read_bytes().splitlines()]
    return [HeldOutAnswer(pair["question"], pair["answer"]) for pair in pairs]
