"""Which pieces of which documents share a window: the bin index of a prepared source.

It lies beside the view, in `bins-LENGTH/`, made once for a sequence length:

firsts.npy   int64 [pieces]     the view's token that a piece begins with
counts.npy   int32 [pieces]     its tokens; pieces of one bin follow each other as they are stored
starts.npy   int64 [bins + 1]   at which piece each bin begins
facts.json   what both ways of packing come to; MANIFEST.json: hashes, and which tokens it is of

A document is cut only where it is longer than a window: into whole windows and what is left. The
view's last token is the label of the one before it and no input, as in contiguous windows, so every
piece's tokens have labels. Bins, and the pieces in them, follow the order of the text.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rewarm.artifacts import (
    MANIFEST_NAME,
    file_sha256,
    fingerprint,
    fsync_folder,
    open_to_others,
    parse_json,
    temporary_folder,
    write_json,
)
from rewarm.corpus.best_fit import best_fit_decreasing
from rewarm.corpus.sealed import (
    alone,
    changed_files,
    note_other_tokenizer,
    seal,
    sealed_json,
)
from rewarm.corpus.views import open_view
from rewarm.errors import CorpusError, EnvironmentFault, Problems
from rewarm.records.facts import CorpusFacts
from rewarm.records.packing import PackingFacts, Windows

__all__ = ["Bins", "ensure_packing", "load_packing", "open_bins", "pack"]

FORMAT = 1
FACTS = "facts.json"
# What is packed at once: 4 M pieces take some 450 MB, however many the source has, and what the
# last bins of each lot waste is nothing beside them.
LOT_PIECES = 2**22
_ARRAYS = {"firsts": np.dtype("<i8"), "counts": np.dtype("<i4"), "starts": np.dtype("<i8")}

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """A bin index for windows of `sequence_length`; the arrays are the files' (see above)."""

    sequence_length: int
    firsts: Integers
    counts: NDArray[np.integer]
    starts: Integers

    @property
    def num_bins(self) -> int:
        """Windows."""
        return len(self.starts) - 1


def pack(offsets: Integers, sequence_length: int, *, lot_pieces: int = LOT_PIECES) -> Bins:
    """Return the bins of documents that begin at `offsets` (int64 [documents + 1]) of a row.

    It takes about 100 bytes for each piece of a lot, and the index itself.
    """
    lots = [
        _packed(firsts, counts, sequence_length)
        for firsts, counts in _lots(offsets, sequence_length, lot_pieces)
    ]
    none = np.empty(0, dtype=np.int64)
    sizes = np.concatenate([sizes for _, _, sizes in lots] or [none])
    return Bins(
        sequence_length,
        np.concatenate([firsts for firsts, _, _ in lots] or [none]),
        np.concatenate([counts for _, counts, _ in lots] or [none.astype("<i4")]),
        np.concatenate(([0], np.cumsum(sizes))),
    )


def _input_tokens(offsets: Integers) -> Integers:
    """Return how many of each document's tokens have a label: all but the row's last token."""
    ends = np.minimum(offsets[1:], offsets[-1] - 1)
    sizes: Integers = np.maximum(ends - offsets[:-1], 0)
    return sizes


def _lots(
    offsets: Integers, sequence_length: int, lot_pieces: int
) -> Iterator[tuple[Integers, Integers]]:
    """Yield firsts and counts of pieces, some whole documents' at a time, as they are stored."""
    sizes = _input_tokens(offsets)
    num_pieces = -(-sizes // sequence_length)
    lot_of = (np.cumsum(num_pieces) - 1) // lot_pieces
    edges = [0, *(np.flatnonzero(np.diff(lot_of)) + 1).tolist(), len(sizes)]
    for begin, end in itertools.pairwise(edges):
        of_each = num_pieces[begin:end]
        document = np.repeat(np.arange(begin, end), of_each)
        before = np.cumsum(of_each) - of_each
        part = (np.arange(len(document)) - np.repeat(before, of_each)) * sequence_length
        yield offsets[document] + part, np.minimum(sequence_length, sizes[document] - part)


def _packed(
    firsts: Integers, counts: Integers, sequence_length: int
) -> tuple[Integers, NDArray[np.int32], Integers]:
    """Return pieces by bins, and how many pieces each bin has."""
    bin_of, num_bins = best_fit_decreasing(counts, sequence_length)
    order = np.argsort(bin_of, kind="stable")
    return firsts[order], counts[order].astype("<i4"), np.bincount(bin_of, minlength=num_bins)


def _compared(offsets: Integers, bins: Bins, digest: str) -> PackingFacts:
    """Return what contiguous windows and these bins come to."""
    length = bins.sequence_length
    num_tokens = int(offsets[-1])
    is_text = offsets[1:] > offsets[:-1]
    first_window = (offsets[:-1] // length)[is_text]
    last_window = ((offsets[1:] - 1) // length)[is_text]
    num_windows = max(0, (num_tokens - 1) // length)
    num_long = int((_input_tokens(offsets) > length).sum())
    return PackingFacts(
        sequence_length=length,
        num_documents=int(is_text.sum()),
        num_long=num_long,
        num_tokens=num_tokens,
        contiguous=Windows(
            num_windows=num_windows,
            num_text_tokens=num_windows * length,
            num_cut=int((first_window < last_window).sum()),
        ),
        best_fit=Windows(
            num_windows=bins.num_bins,
            num_text_tokens=int(bins.counts.sum()),
            num_cut=num_long,
        ),
        fingerprint=digest,
    )


def _folder(facts: CorpusFacts, sequence_length: int) -> Path:
    """Where the bins are: a part of a source has bins of its own, so that none undoes another's."""
    of = "" if facts.is_whole else f"-{facts.tokens[:12]}"
    return Path(facts.folder) / f"bins-{sequence_length}{of}"


def load_packing(facts: CorpusFacts, sequence_length: int) -> PackingFacts | None:
    """Return what the packings of a prepared source come to; None where that is not known (yet).

    Counts are held against the manifest; the arrays are by `open_bins`, before training.
    """
    folder = _folder(facts, sequence_length)
    try:
        manifest = parse_json((folder / MANIFEST_NAME).read_bytes())
        made_of = (manifest["format"], manifest["tokens"], manifest["tokenizer_fingerprint"])
        if made_of != (FORMAT, facts.tokens, facts.tokenizer_fingerprint):
            return None  # of other text, or made by another version
        return PackingFacts.model_validate(sealed_json(folder, FACTS))
    except (OSError, ValueError, LookupError, TypeError, CorpusError):
        return None  # not made, or damaged: made again


def ensure_packing(
    facts: CorpusFacts, sequence_length: int, *, verified: bool = False
) -> PackingFacts:
    """Return what the packings of a prepared source come to, packing it where that is not done.

    With `verified`, an index of which a file changed is made again. Raises CorpusError where the
    source cannot be read, EnvironmentFault where the disk refuses.
    """

    def done() -> PackingFacts | None:
        found = load_packing(facts, sequence_length)
        if found is None or not verified:
            return found
        try:
            return None if changed_files(_folder(facts, sequence_length)) else found
        except CorpusError:  # its manifest is damaged
            return None

    found = done()
    if found is not None:
        return found
    folder = _folder(facts, sequence_length)
    try:
        with alone(folder.parent):
            return done() or _make(facts, sequence_length, folder)
    except OSError as error:
        raise EnvironmentFault(
            f"{folder} cannot be written ({error.strerror or error})",
            "free some space or set prepared_folder elsewhere; the same command then goes on",
        ) from error


def _make(facts: CorpusFacts, sequence_length: int, folder: Path) -> PackingFacts:
    offsets = open_view(facts).offsets
    bins = pack(offsets, sequence_length)
    with temporary_folder(folder.parent, ".packing-") as made:
        for name, dtype in _ARRAYS.items():
            np.save(made / f"{name}.npy", getattr(bins, name).astype(dtype, copy=False))
        hashes = {f"{name}.npy": file_sha256(made / f"{name}.npy") for name in _ARRAYS}
        found = _compared(offsets, bins, fingerprint({"format": FORMAT, "files": hashes}))
        write_json(made / FACTS, found.model_dump(mode="json"))
        about = {
            "format": FORMAT,
            "tokens": facts.tokens,
            "tokenizer_fingerprint": facts.tokenizer_fingerprint,
            "fingerprint": found.fingerprint,
        }
        seal(made, [], about, known_hashes=hashes)
        open_to_others(made)
        fsync_folder(made)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(made, folder)
    fsync_folder(folder.parent)
    return found


def open_bins(facts: CorpusFacts, sequence_length: int, planned: str) -> Bins:
    """Return the bin index that a plan was made with: `planned` is its fingerprint.

    Raises CorpusError naming every file that changed, or where the index is another.
    """
    folder = _folder(facts, sequence_length)
    again = "run `rewarm prepare` with the recipe: it is made again"
    problems = Problems()
    for name, what in changed_files(folder).items():
        problems.add(str(folder / name), what, again)
    note_other_tokenizer(folder, facts, problems)
    problems.raise_as(CorpusError)
    found = load_packing(facts, sequence_length)
    if found is None or found.fingerprint != planned:
        raise CorpusError.one(
            str(folder),
            "it packs the text otherwise than was planned with",
            "run `rewarm prepare` and `rewarm plan` again",
        )
    try:
        arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in _ARRAYS}
        bins = Bins(sequence_length, **arrays)
        fits = _fits(bins, facts.num_tokens)
    except (OSError, ValueError, EOFError, TypeError) as error:
        raise CorpusError.one(str(folder), f"it cannot be read ({error})", again) from error
    if not fits:
        raise CorpusError.one(str(folder), "its bins do not fit the text", again)
    return bins


def _fits(bins: Bins, num_tokens: int) -> bool:
    """Tell whether every bin lies within the text and a window."""
    starts, firsts, counts = bins.starts, bins.firsts, bins.counts
    if not (len(firsts) == len(counts) and len(starts) and starts[0] == 0):
        return False
    if starts[-1] != len(counts) or (np.diff(starts) < 1).any():
        return False
    if not len(counts):
        return True
    within = np.add.reduceat(counts, starts[:-1], dtype=np.int64).max() <= bins.sequence_length
    ends = firsts + counts
    return bool(within and counts.min() >= 1 and firsts.min() >= 0 and ends.max() < num_tokens)
