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
from rewarm.corpus.documents import DocumentEncoder
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
from rewarm.corpus.files import Input, size_of
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
) -> CorpusFacts:
    """Return the measured facts of a source, doing only the work that is not done yet.

    A prepared folder whose files changed since is mended: what is damaged is made again.
    `open_chat` opens the template that conversations are written by. Raises CorpusError (nothing to
    read, above 1 % rejected, a file that cannot be read), BaseModelError (tokenizer) and
    EnvironmentFault (the disk refuses, a remote file cannot be reached).
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
    encoder = open_encoder(text.tokenizer_folder, text.tokenizer_recipe, vocab_size=vocab_size)
    tokenizer = tokenizer_fingerprint(text.tokenizer_folder)
    try:
        place.folder.mkdir(parents=True, exist_ok=True)
        with alone(place.folder):
            meter = Meter(text.name, place.total_bytes, progress)
            return done() or _prepare(
                _Work(
                    text.name,
                    text.source,
                    place,
                    encoder,
                    document_encoder(text, encoder, open_chat),
                    tokenizer,
                    text.tokenizer_folder,
                    meter,
                )
            )
    except OSError as error:
        raise EnvironmentFault(
            f"{place.folder} cannot be written ({error.strerror or error})",
            "free some space or set prepared_folder elsewhere; the same command then goes on",
        ) from error


def _prepare(work: _Work) -> CorpusFacts:
    """Make the shards that are not complete, then everything that stands on them."""
    folder = work.place.folder
    discard_changed(folder)
    (folder / MANIFEST_NAME).unlink(missing_ok=True)
    for leftover in folder.glob(".tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    for number, paths in enumerate(work.place.shards()):
        work.shard(number, paths)
    work.place.check_unchanged()
    return _finish(work)


@dataclass(frozen=True, slots=True)
class _Work:
    """One source under preparation."""

    name: str
    source: SourceRecipe
    place: Place
    encoder: Encoder
    documents: DocumentEncoder
    tokenizer: str
    tokenizer_folder: Path
    meter: Meter

    def shard(self, number: int, paths: Sequence[Input]) -> None:
        """Make the shard of these input files, unless it is complete."""
        prefix = self.place.folder / f"shard-{number:05d}"
        if self._is_complete(prefix):
            self.meter.bytes_before += sum(map(size_of, paths))
        else:
            Path(f"{prefix}.json").unlink(missing_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=self.place.folder))
            try:
                facts = self._maker().write(temporary / prefix.name, paths)
                for ending in facts["bytes"]:
                    os.replace(f"{temporary / prefix.name}{ending}", f"{prefix}{ending}")
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            write_json(Path(f"{prefix}.json"), facts)
        self.meter.tell(always=True)

    def _maker(self) -> ShardEncoder | ShardTaker:
        if self.source.holds_tokens:
            return ShardTaker(self.encoder, self.tokenizer, self.meter, self.place.folder)
        return ShardEncoder(self.source, self.documents, self.meter)

    def _is_complete(self, prefix: Path) -> bool:
        """Tell whether a shard's own manifest is there, and its files in the sizes that it says."""
        try:
            sizes = parse_json(Path(f"{prefix}.json").read_bytes())["bytes"]
            return sizes.keys() >= set(shard_files(self.source)) and all(
                os.path.getsize(f"{prefix}{ending}") == size for ending, size in sizes.items()
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return False


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
    split = split_hashes(work.source)
    digests = np.concatenate([np.load(f"{prefix}{split}") for prefix in prefixes])
    lengths = np.concatenate([np.diff(open_shard(prefix).document_starts) for prefix in prefixes])
    shown = _write_rejects(folder, prefixes) if rejected else None
    check_rejected(work.name, int((lengths > 0).sum()), rejected, examples, shown=shown)
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
        name=work.name,
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
        "tokenizer_folder": str(work.tokenizer_folder),
    }
    if is_chat:
        about["template_fingerprint"] = template_fingerprint(work.tokenizer_folder)
    seal(folder, work.place.inputs, about, known_hashes=hashes)
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


def _frame_warning(work: _Work, notes: Sequence[dict[str, Any]]) -> str | None:
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
