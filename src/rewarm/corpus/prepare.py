"""Prepares one source: read, reject, split by hash, tokenize, write; restartable and repeatable.

A large input file becomes one shard, small ones share one. A shard is complete when its own small
manifest (`shard-00000.json`) is there, so a kill costs at most the shard at work; views, facts and
the folder's manifest come after all shards. The same inputs give the same bytes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rewarm.artifacts import (
    MANIFEST_NAME,
    file_sha256,
    fingerprint,
    parse_json,
    read_json,
    write_atomically,
    write_json,
)
from rewarm.corpus.chat import OpenChat
from rewarm.corpus.encoding import (
    ANSWERS,
    CHATS,
    REJECTS,
    Meter,
    PrepareProgress,
    ShardEncoder,
    has_tags,
    shard_files,
    split_hashes,
)
from rewarm.corpus.executors import Executor, watched
from rewarm.corpus.files import Input, size_of
from rewarm.corpus.filters import open_filters
from rewarm.corpus.label_mask import LABEL_COUNTS, LABEL_MASK
from rewarm.corpus.open_documents import document_encoder
from rewarm.corpus.place import FACTS, Place, SourceText, find_place, load_facts
from rewarm.corpus.rejected import check_rejected
from rewarm.corpus.sealed import alone, changed_files, discard_changed, seal
from rewarm.corpus.shards import open_shard
from rewarm.corpus.tags import count_tags
from rewarm.corpus.token_shards import UNNAMED_TOKENIZER, ShardTaker
from rewarm.corpus.tokenize import (
    Encoder,
    open_encoder,
    template_fingerprint,
    tokenizer_fingerprint,
)
from rewarm.corpus.views import HELD_OUT, TRAIN
from rewarm.errors import CorpusError, EnvironmentFault
from rewarm.recipe.prepare import PrepareRecipe
from rewarm.recipe.sources import SourceRecipe
from rewarm.records.facts import CorpusFacts

__all__ = [
    "HELD_OUT_CHATS",
    "HeldOutAnswer",
    "PrepareProgress",
    "prepare_source",
    "read_held_out_answers",
]

HELD_OUT_ANSWERS = "held_out_answers.jsonl"
HELD_OUT_CHATS = "held_out_chats.jsonl"
REJECTED = "rejects.jsonl"
TASKS = "tasks"
_MAX_REJECTS_BYTES = 4 * 2**20


class HeldOutAnswer(NamedTuple):
    """A question and its answer that are never trained on."""

    question: str
    answer: str


def prepare_source(
    text: SourceText,
    *,
    prepared_root: Path,
    vocab_size: int,
    progress: Callable[[PrepareProgress], None] | None = None,
    open_chat: OpenChat | None = None,
    executor: Executor | None = None,
) -> CorpusFacts:
    """Return the measured facts of a source, doing only the work that is not done yet.

    A prepared folder whose files changed since is mended: what is damaged is made again.
    `open_chat` opens the template that conversations are written by; `executor` runs the tasks, one
    for each shard (default: here). Raises CorpusError (nothing to read, above 1 % rejected, a file
    that cannot be read), BaseModelError (tokenizer) and EnvironmentFault (the disk refuses, a
    remote file cannot be reached, a task did not end).
    """

    def done() -> CorpusFacts | None:
        facts = load_facts(text, prepared_root)
        if facts is None:
            return None
        try:
            return None if changed_files(Path(facts.folder)) else facts
        except CorpusError:  # its manifest is damaged
            return None

    facts = done()
    if facts is not None:
        return facts
    place = find_place(text, prepared_root)
    shards = _Shards(
        text, place, vocab_size, open_chat, Meter(text.name, place.total_bytes, progress)
    )
    assert shards.encoder.vocab_size == vocab_size  # opened before a folder is made for it
    try:
        place.folder.mkdir(parents=True, exist_ok=True)
        with alone(place.folder):
            return done() or _prepare(shards, executor or Executor(PrepareRecipe()))
    except OSError as error:
        raise EnvironmentFault(
            f"{place.folder} cannot be written ({error.strerror or error})",
            "free some space or set prepared_folder elsewhere; the same command then goes on",
        ) from error


def _prepare(shards: _Shards, executor: Executor) -> CorpusFacts:
    """Make the shards that are not complete, then everything that stands on them."""
    folder = shards.place.folder
    discard_changed(folder)
    (folder / MANIFEST_NAME).unlink(missing_ok=True)
    left = [number for number in range(shards.num_shards) if not shards.is_complete(number)]
    shards.meter.bytes_before = shards.num_bytes - sum(map(shards.bytes_of, left))
    if executor.in_this_process:
        for leftover in folder.glob(".tmp-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        executor.run(shards, left, folder / TASKS, shards.text.name)
    else:
        with watched(partial(_tell, shards)):
            executor.run(shards, left, folder / TASKS, shards.text.name)
    shards.place.check_unchanged()
    return _finish(shards)


def _tell(shards: _Shards) -> None:
    """Tell what other processes have done since it was told last."""
    done = [number for number in range(shards.num_shards) if shards.is_complete(number)]
    num_bytes = sum(map(shards.bytes_of, done))
    if num_bytes != shards.meter.bytes_before:
        shards.meter.bytes_before = num_bytes
        shards.meter.documents = sum(shards.documents_of(number) for number in done)
        shards.meter.tell(always=True)


@dataclass
class _Shards:
    """The shards of one source, as tasks that can be sent to other processes."""

    text: SourceText
    place: Place
    vocab_size: int
    open_chat: OpenChat | None
    meter: Meter

    def __getstate__(self) -> dict[str, Any]:
        # Elsewhere, the tokenizer is opened anew, and nobody looks at a bar.
        fields = ("text", "place", "vocab_size", "open_chat", "inputs")
        unseen = Meter(self.text.name, self.place.total_bytes, None)
        return {name: getattr(self, name) for name in fields} | {"meter": unseen}

    def __call__(self, number: int) -> None:
        """Make a shard, unless it is complete."""
        prefix = self.prefix(number)
        if self.is_complete(number):
            return
        Path(f"{prefix}.json").unlink(missing_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=self.place.folder))
        try:
            facts = self._maker.write(temporary / prefix.name, self.inputs[number])
            for ending in facts["bytes"]:
                os.replace(f"{temporary / prefix.name}{ending}", f"{prefix}{ending}")
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        write_json(Path(f"{prefix}.json"), facts)
        self.meter.tell(always=True)

    @property
    def source(self) -> SourceRecipe:
        """What the recipe says of it."""
        return self.text.source

    @cached_property
    def inputs(self) -> list[list[Input]]:
        """The inputs of each shard."""
        return self.place.shards()

    @property
    def num_shards(self) -> int:
        """Shards, and tasks."""
        return len(self.inputs)

    @property
    def num_bytes(self) -> int:
        """Size of all inputs on disk."""
        return self.place.total_bytes

    def bytes_of(self, number: int) -> int:
        """Return the size of a shard's inputs on disk."""
        return sum(map(size_of, self.inputs[number]))

    def documents_of(self, number: int) -> int:
        """Return the documents of a shard that is complete."""
        note = read_json(
            Path(f"{self.prefix(number)}.json"), what="the shard's manifest", error=CorpusError
        )
        return int(note["frame"]["documents"])

    def prefix(self, number: int) -> Path:
        """Return where a shard's files lie, without their endings."""
        return self.place.folder / f"shard-{number:05d}"

    @cached_property
    def encoder(self) -> Encoder:
        """The base's tokenizer."""
        text = self.text
        return open_encoder(
            text.tokenizer_folder, text.tokenizer_recipe, vocab_size=self.vocab_size
        )

    @cached_property
    def tokenizer(self) -> str:
        """The tokenizer's fingerprint."""
        return tokenizer_fingerprint(self.text.tokenizer_folder)

    @cached_property
    def _maker(self) -> ShardEncoder | ShardTaker:
        if self.source.holds_tokens:
            return ShardTaker(self.encoder, self.tokenizer, self.meter, self.place.folder)
        documents = document_encoder(self.text, self.encoder, self.open_chat)
        filters = open_filters(self.text.name, self.source)
        return ShardEncoder(self.source, documents, self.meter, filters)

    def is_complete(self, number: int) -> bool:
        """Tell whether a shard's own manifest is there, and its files in the sizes that it says."""
        prefix = self.prefix(number)
        try:
            sizes = parse_json(Path(f"{prefix}.json").read_bytes())["bytes"]
            return sizes.keys() >= set(shard_files(self.source)) and all(
                os.path.getsize(f"{prefix}{ending}") == size for ending, size in sizes.items()
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return False


def _finish(work: _Shards) -> CorpusFacts:
    """Write views, answers, facts and (last) the manifest of a source whose shards are complete."""
    folder = work.place.folder
    prefixes = [work.prefix(number) for number in range(work.num_shards)]
    notes = [
        read_json(Path(f"{prefix}.json"), what="the shard's manifest", error=CorpusError)
        for prefix in prefixes
    ]
    rejected = Counter[str]()
    for note in notes:
        rejected.update(note["rejected"])
    examples = [example for note in notes for example in note["examples"]]
    sizes = np.concatenate([np.load(f"{prefix}.bytes.npy") for prefix in prefixes])
    split = split_hashes(work.source)
    digests = np.concatenate([np.load(f"{prefix}{split}") for prefix in prefixes])
    lengths = np.concatenate([np.diff(open_shard(prefix).document_starts) for prefix in prefixes])
    shown = _write_rejects(folder, prefixes) if rejected else None
    check_rejected(work.text.name, int((lengths > 0).sum()), rejected, examples, shown=shown)
    held_out = digests.astype(np.float64) / 2.0**64 < work.source.held_out
    trained = ~held_out & (lengths > 0)  # only shards that were taken over have empty documents
    held_out &= lengths > 0
    np.save(folder / TRAIN, np.flatnonzero(trained))
    np.save(folder / HELD_OUT, np.flatnonzero(held_out))
    write_atomically(folder / HELD_OUT_ANSWERS, _joined(prefixes, ANSWERS))
    is_chat = work.source.format == "chat"
    if is_chat:
        write_atomically(folder / HELD_OUT_CHATS, _joined(prefixes, CHATS))
    has_any = has_tags(work.source)
    languages, licences = count_tags(prefixes, trained) if has_any else ({}, {})
    hashes = _hashes_of_tokens(folder, prefixes)
    facts = CorpusFacts(
        name=work.text.name,
        role=work.source.role,
        key=work.place.key,
        tokens=fingerprint(hashes),
        folder=str(folder),
        measured=True,
        num_documents=int(trained.sum()),
        num_tokens=int(lengths[trained].sum()),
        num_bytes=int(sizes[trained].sum()),
        held_out_documents=int(held_out.sum()),
        held_out_tokens=int(lengths[held_out].sum()),
        held_out_bytes=int(sizes[held_out].sum()),
        rejected=dict(sorted(rejected.items())),
        begin_token_ids=work.encoder.frame.begin,
        end_token_ids=work.encoder.frame.end,
        begin_tokens=work.encoder.spell(work.encoder.frame.begin),
        end_tokens=work.encoder.spell(work.encoder.frame.end),
        all_framed=_frame_warning(work, notes) is None,
        tokenizer_fingerprint=work.tokenizer,
        licence=work.source.licence,
        language=work.source.language,
        languages=languages,
        licences=licences,
        num_label_tokens=_label_tokens(prefixes, trained) if is_chat else None,
        warnings=_warnings(work, lengths, held_out, notes),
    )
    write_json(folder / FACTS, facts.model_dump(mode="json"))
    about = {
        "key": work.place.key,
        "reader": work.source.model_dump(mode="json"),
        "tokenizer_fingerprint": work.tokenizer,
        "tokenizer_folder": str(work.text.tokenizer_folder),
    }
    if is_chat:
        about["template_fingerprint"] = template_fingerprint(work.text.tokenizer_folder)
    seal(folder, work.place.inputs, about, known_hashes=hashes)
    for leftover in (*folder.glob(f"{TASKS}*"), *folder.glob(".tmp-*")):  # of tasks elsewhere
        shutil.rmtree(leftover, ignore_errors=True)
    return facts


def _joined(prefixes: Sequence[Path], ending: str) -> bytes:
    return b"".join(Path(f"{prefix}{ending}").read_bytes() for prefix in prefixes)


def _write_rejects(folder: Path, prefixes: Sequence[Path]) -> Path | None:
    """Put some of what was not taken, of all shards, into one file to look at; return it."""
    found = bytearray()
    for prefix in prefixes:
        path = Path(f"{prefix}{REJECTS}")
        if path.is_file() and len(found) < _MAX_REJECTS_BYTES:
            found += path.read_bytes()
    if found:
        write_atomically(folder / REJECTED, bytes(found))
    return folder / REJECTED if found else None


def _label_tokens(prefixes: Sequence[Path], trained: NDArray[np.bool_]) -> int:
    counts = np.concatenate([np.load(f"{prefix}{LABEL_COUNTS}") for prefix in prefixes])
    return int(counts[trained].sum())


def _hashes_of_tokens(folder: Path, prefixes: Sequence[Path]) -> dict[str, str]:
    """Return the SHA-256 of every file that says which tokens are trained on, by name."""
    endings = [".bin", ".idx"]
    if prefixes and Path(f"{prefixes[0]}{LABEL_MASK}").exists():
        endings.append(LABEL_MASK)
    shards = [f"{prefix.name}{ending}" for prefix in prefixes for ending in endings]
    return {name: file_sha256(folder / name) for name in (*shards, TRAIN)}


def _warnings(
    work: _Shards,
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
    if not all(note.get("names_tokenizer", True) for note in notes):
        warnings.append(UNNAMED_TOKENIZER)
    unframed = _frame_warning(work, notes)
    # Samples are cut, and templates frame turns, as everybody knows.
    if unframed and work.source.rehearse is None and work.source.format != "chat":
        warnings.append(unframed)
    if not all(stamp for _, stamp in work.place.stamps):
        warnings.append(
            "the side of some of its remote files tells neither version nor time: that they change "
            "is noticed by their size alone"
        )
    return tuple(warnings)


def _frame_warning(work: _Shards, notes: Sequence[dict[str, Any]]) -> str | None:
    """Return how many documents of shards that were taken over, or of conversations, lack the
    base's first or last tokens; None where all have them."""
    counts = Counter[str]()
    for note in notes:
        counts.update(note.get("frame", {}))
    frame, num = work.encoder.frame, counts["documents"]
    lacking = [
        f"{num - counts[where]:,} do not {where} with {' '.join(work.encoder.spell(ids))}"
        for where, ids in (("begin", frame.begin), ("end", frame.end))
        if counts[where] < num
    ]
    if not lacking:
        return None
    return (
        f"of its {num:,} documents {' and '.join(lacking)}: they are trained on and measured as "
        "they are"
    )


def read_held_out_answers(folder: Path) -> list[HeldOutAnswer]:
    """Return the held-out questions and answers of a prepared source; most sources have none.

    Raises CorpusError where the file is damaged.
    """
    path = folder / HELD_OUT_ANSWERS
    if not path.is_file():
        return []
    try:
        pairs = [parse_json(line) for line in path.read_bytes().splitlines()]
        return [HeldOutAnswer(pair["question"], pair["answer"]) for pair in pairs]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CorpusError.one(
            str(path), f"it does not hold questions and answers ({error})", "run `rewarm prepare`"
        ) from error
