"""Copies among a source's training documents: exact ones by the hash of their text, near ones by
datatrove's MinHash (signatures by pieces, matches by buckets, clusters; one of each cluster stays).

What is held out is no part of it: training documents that copy held-out text are decontamination's.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rewarm.artifacts import fingerprint, write_atomically
from rewarm.corpus.drops import drop_folder, drop_of, load_drop, save_drop
from rewarm.corpus.executors import Executor
from rewarm.corpus.pieces import pieces_of
from rewarm.corpus.quiet_trove import without_a_word
from rewarm.corpus.records import Rejections
from rewarm.corpus.sealed import alone
from rewarm.corpus.texts import texts_of
from rewarm.corpus.tokenize import Encoder, open_encoder
from rewarm.corpus.views import View, open_view, text_hashes
from rewarm.errors import EnvironmentFault
from rewarm.recipe.base import TokenizerRecipe
from rewarm.recipe.curate import CurateRecipe, MinHashRecipe
from rewarm.records.facts import CorpusFacts, DropFacts

__all__ = ["Deduplication", "deduplicate"]

FORMAT = 1
EXACT, NEAR = "duplicate:exact", "duplicate:near"
_WORK = "work"
_LEAST_PIECE_TOKENS = 2**22
# All signatures of a bucket are merged at once, from a file for each piece.
_MOST_PIECES = 512

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Deduplication:
    """One source, how its copies are found, and what turns its tokens into text."""

    source: CorpusFacts
    curate: CurateRecipe
    tokenizer_folder: Path
    tokenizer_recipe: TokenizerRecipe
    vocab_size: int

    @property
    def minhash(self) -> MinHashRecipe | None:
        """How near copies are found; None where only exact ones are looked for."""
        if self.curate.dedup != "minhash":
            return None
        return self.curate.minhash or MinHashRecipe()

    @property
    def language(self) -> str:
        """The language whose words are compared."""
        return (*self.curate.languages, "en")[0]

    @property
    def key(self) -> str:
        """Return the fingerprint of everything that decides what is dropped."""
        settings: dict[str, Any] = {"format": FORMAT, "text": self.source.tokens}
        if self.minhash is not None:
            settings |= {"minhash": self.minhash.model_dump(), "language": self.language}
        return fingerprint(settings)

    @property
    def folder(self) -> Path:
        """Where what is dropped is, or will be, listed."""
        return drop_folder(self.source, "duplicates", self.key)

    def load(self) -> DropFacts | None:
        """Return what is dropped, if that is known; no text is read."""
        return load_drop(self.folder, self.key)


def deduplicate(wanted: Deduplication, executor: Executor) -> DropFacts:
    """Return which training documents of a source are dropped as copies, looking only where nobody
    has.

    Raises CorpusError where the text cannot be read, EnvironmentFault where the disk refuses.
    """
    folder = wanted.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder):
            found = wanted.load() or _find(wanted, executor)
            shutil.rmtree(folder / _WORK, ignore_errors=True)
            return found
    except OSError as error:
        raise EnvironmentFault(
            f"{folder} cannot be written ({error.strerror or error})",
            "free some space or set prepared_folder elsewhere; the same command then goes on",
        ) from error


def _find(wanted: Deduplication, executor: Executor) -> DropFacts:
    facts, folder = wanted.source, wanted.folder
    view = open_view(facts)
    first_of = _first_of(text_hashes(Path(facts.folder))[view.kept])
    copies = np.flatnonzero(first_of != np.arange(len(first_of)))
    copy_of = {int(at): int(first_of[at]) for at in copies}
    reasons = dict.fromkeys(copy_of, EXACT)
    if wanted.minhash is not None:
        with without_a_word():
            near = _near_copies(wanted, executor)
        for copy, original in near.items():
            if copy not in copy_of:
                reasons[copy], copy_of[copy] = NEAR, original
    rejections = Rejections()
    for copy in sorted(copy_of):
        rejections.add_told(
            reasons[copy],
            partial(view.document_id, copy),
            partial(_told, wanted, view, copy, copy_of[copy]),
        )
    documents = np.array(sorted(copy_of), dtype=np.int64)
    drop = drop_of(
        facts, "duplicates", folder, wanted.key, documents, view, reasons=rejections.counts
    )
    save_drop(drop, view.kept[documents], rejections.kept, facts.tokenizer_fingerprint)
    return drop


def _first_of(hashes: NDArray[np.uint64]) -> Integers:
    """Return, for each text, the first one that has its hash."""
    _, first, which = np.unique(hashes, return_index=True, return_inverse=True)
    found: Integers = first[which]
    return found


def _told(wanted: Deduplication, view: View, copy: int, original: int) -> str:
    encoder = open_encoder(
        wanted.tokenizer_folder, wanted.tokenizer_recipe, vocab_size=wanted.vocab_size
    )
    (batch,) = texts_of(view, encoder, copy, copy + 1)
    return f"a copy of {view.document_id(original)}: {batch.texts[0]}"


def _near_copies(wanted: Deduplication, executor: Executor) -> dict[int, int]:
    """Return the documents of the view that go, each with the one of its cluster that stays."""
    work = wanted.folder / _WORK
    signatures = _Signatures(wanted, work)
    name = wanted.source.name
    executor.run(signatures, range(len(signatures.pieces)), work / "tasks", name)
    matches = _Matches(wanted, work)
    executor.run(matches, range(matches.num_buckets), work / "tasks", name)
    return _clusters(wanted, work, [first for first, _ in signatures.pieces])


def _config(minhash: MinHashRecipe) -> Any:
    from datatrove.pipeline.dedup.minhash import MinhashConfig

    return MinhashConfig(**minhash.model_dump())


@dataclass
class _Signatures:
    """Writes the signatures of a piece's documents; can be sent to other processes."""

    wanted: Deduplication
    work: Path

    def __getstate__(self) -> dict[str, object]:
        return {"wanted": self.wanted, "work": self.work, "pieces": self.pieces}

    @cached_property
    def view(self) -> View:
        return open_view(self.wanted.source)

    @cached_property
    def pieces(self) -> list[tuple[int, int]]:
        most = max(_LEAST_PIECE_TOKENS, -(-self.view.num_tokens // _MOST_PIECES))
        return list(pieces_of(self.view.offsets[1:], most))

    @cached_property
    def _encoder(self) -> Encoder:
        wanted = self.wanted
        return open_encoder(
            wanted.tokenizer_folder, wanted.tokenizer_recipe, vocab_size=wanted.vocab_size
        )

    def __call__(self, number: int) -> None:
        """Write the signatures of one piece, unless they are there."""
        from datatrove.pipeline.dedup.minhash import MinhashDedupSignature

        done = self.work / f"signed-{number:06d}"
        if done.exists():
            return
        assert self.wanted.minhash is not None
        step = MinhashDedupSignature(
            str(self.work / "signatures"), _config(self.wanted.minhash), self.wanted.language
        )
        step.run(self._documents(*self.pieces[number]), number, len(self.pieces))
        write_atomically(done, "")

    def _documents(self, first: int, last: int) -> Iterator[Any]:
        from datatrove.data import Document as TroveDocument

        for batch in texts_of(self.view, self._encoder, first, last):
            for text in batch.texts:
                yield TroveDocument(text=text, id="")


@dataclass(frozen=True, slots=True)
class _Matches:
    """Finds the documents that share a bucket of their signatures."""

    wanted: Deduplication
    work: Path

    @property
    def num_buckets(self) -> int:
        assert self.wanted.minhash is not None
        return self.wanted.minhash.num_buckets

    def __call__(self, number: int) -> None:
        """Find those of one bucket, unless they are there."""
        from datatrove.pipeline.dedup.minhash import MinhashDedupBuckets

        done = self.work / f"matched-{number:06d}"
        if done.exists():
            return
        assert self.wanted.minhash is not None
        step = MinhashDedupBuckets(
            str(self.work / "signatures"),
            str(self.work / "matches"),
            config=_config(self.wanted.minhash),
        )
        step.run(None, number, self.num_buckets)
        write_atomically(done, "")


class _Member(NamedTuple):
    cluster: int
    document: int


def _clusters(wanted: Deduplication, work: Path, firsts: list[int]) -> dict[int, int]:
    """Return the documents of the view that go, each with the first one of its cluster."""
    from datatrove.pipeline.dedup.minhash import MinhashDedupCluster

    assert wanted.minhash is not None
    shutil.rmtree(work / "clusters", ignore_errors=True)
    step = MinhashDedupCluster(
        str(work / "matches"),
        str(work / "clusters"),
        config=_config(wanted.minhash),
        save_cluster_id=True,
    )
    with contextlib.redirect_stderr(io.StringIO()):  # a bar of its own
        step.run()
    members: list[_Member] = []
    for path in sorted((work / "clusters").glob("*.clusters")):
        pairs = np.fromfile(path, dtype="<u4").reshape(-1, 2).astype(np.int64)
        first = firsts[int(path.stem)]
        members += [_Member(int(cluster), first + int(at)) for at, cluster in pairs]
    found: dict[int, int] = {}
    for _, group in itertools.groupby(sorted(members), lambda member: member.cluster):
        stays, *go = [member.document for member in group]
        found |= dict.fromkeys(go, stays)
    return found
