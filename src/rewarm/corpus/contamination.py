"""What is measured on, as hashes of runs of words, and which documents hold it.

Of evaluation tasks every run of 13 words counts (Brown et al. 2020), and shorter items of 8 words
or more as a whole. Held-out documents are long, and what they share with others is often no more
than a licence or a disclaimer: a document counts as a copy of one where it holds half of its runs,
or is itself made of them by half. Runs that many documents of a source have say nothing there.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rewarm.corpus.words import Hashes, Words, hash_words, runs_of, whole_of

__all__ = [
    "LEAST_WORDS",
    "RUN_WORDS",
    "Copy",
    "HeldOutIndex",
    "HeldOutMatcher",
    "Matches",
    "TaskHit",
    "TaskIndex",
    "common_runs",
    "copies_of_held_out",
    "index_held_out",
    "index_tasks",
]

RUN_WORDS = 13
LEAST_WORDS = 8
COPIED_SHARE = 0.5
COMMON_DOCUMENTS = 10
COMMON_SHARE = 0.001
_LEAST_RUNS = 8
_MOST_FILTER_BITS = 26

Integers = NDArray[np.int64]
_NO_HASHES: Hashes = np.empty(0, dtype=np.uint64)
_NONE: Integers = np.empty(0, dtype=np.int64)


class Found(NamedTuple):
    """Where the hashes of an index occur: numbers of what was looked up, and of the entries."""

    where: Integers
    entries: Integers


class _Lookup:
    """Finds which of many hashes are among few: a table of bits answers nearly all of them."""

    def __init__(self, hashes: Hashes) -> None:
        self._hashes = hashes
        bits = int(np.clip(len(hashes), 2**12, 2 ** (_MOST_FILTER_BITS - 4)) * 16 - 1).bit_length()
        self._shift = np.uint64(64 - bits)
        self._filter = np.zeros(2**bits, dtype=np.bool_)
        self._filter[hashes >> self._shift] = True

    def find(self, values: Hashes) -> Found:
        if not len(self._hashes):
            return Found(_NONE, _NONE)
        where = np.flatnonzero(self._filter[values >> self._shift])
        entries = np.searchsorted(self._hashes, values[where])
        entries[entries == len(self._hashes)] = 0
        same = self._hashes[entries] == values[where]
        return Found(where[same], entries[same])


class TaskHit(NamedTuple):
    """A document that holds text of a task: which task, and where (its words [first, last))."""

    document: int
    task: int
    first: int
    last: int


class TaskIndex:
    """Runs of words of evaluation tasks. `owners` tells the task of each hash, `by_length` holds
    sorted hashes by the words of a run; length 0 stands for documents as a whole."""

    def __init__(self, names: Sequence[str], by_length: Mapping[int, tuple[Hashes, Integers]]):
        self.names = tuple(names)
        self.by_length = dict(by_length)
        self._runs = {
            length: (_Lookup(hashes), owners) for length, (hashes, owners) in by_length.items()
        }

    def hits(self, words: Words) -> list[TaskHit]:
        """Return the first hit of each text that has one; of hits at one word, the longest run."""
        found: dict[int, TaskHit] = {}
        for length, (lookup, owners) in sorted(self._runs.items(), reverse=True):
            if length:
                hashes, places = runs_of(words, length)
                where, entries = lookup.find(hashes)
                documents = _document_of(words, places[where])
                firsts = places[where] - words.starts[documents]
            else:
                documents, entries = lookup.find(whole_of(words))
                firsts = np.zeros(len(documents), dtype=np.int64)
            of_text, index = np.unique(documents, return_index=True)
            for document, at in zip(of_text.tolist(), index.tolist(), strict=True):
                first = int(firsts[at])
                size = int(words.starts[document + 1] - words.starts[document])
                hit = TaskHit(document, int(owners[entries[at]]), first, first + (length or size))
                if document not in found or first < found[document].first:
                    found[document] = hit
        return [found[document] for document in sorted(found)]


def index_tasks(tasks: Mapping[str, Sequence[str]]) -> TaskIndex:
    """Return the index of the texts of tasks, by their names."""
    hashes: dict[int, list[Hashes]] = {0: [], RUN_WORDS: []}
    owners: dict[int, list[Integers]] = {0: [], RUN_WORDS: []}

    def add(length: int, found: Hashes, owner: int) -> None:
        hashes.setdefault(length, []).append(found)
        owners.setdefault(length, []).append(np.full(len(found), owner))

    for owner, texts in enumerate(tasks.values()):
        words = hash_words(texts)
        sizes = np.diff(words.starts)
        add(RUN_WORDS, runs_of(words, RUN_WORDS)[0], owner)
        for length in range(LEAST_WORDS, RUN_WORDS):
            chosen = _only(words, sizes == length)
            if len(chosen.hashes):
                add(length, runs_of(chosen, length)[0], owner)
        add(0, whole_of(_only(words, (sizes > 0) & (sizes < LEAST_WORDS))), owner)
    by_length = {}
    for length, parts in hashes.items():
        values, first = np.unique(np.concatenate([_NO_HASHES, *parts]), return_index=True)
        by_length[length] = (values, np.concatenate([_NONE, *owners[length]])[first])
    return TaskIndex(list(tasks), by_length)


def _only(words: Words, chosen: NDArray[np.bool_]) -> Words:
    """Return the words of some of the texts."""
    sizes = np.diff(words.starts)
    starts = np.concatenate(([0], np.cumsum(sizes[chosen])))
    return Words(words.hashes[np.repeat(chosen, sizes)], starts)


def _document_of(words: Words, places: Integers) -> Integers:
    found: Integers = np.searchsorted(words.starts, places, side="right") - 1
    return found


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutIndex:
    """Runs of words of held-out documents.

    hashes u64 [runs], sorted; runs of documents int32: those of run r are
    `documents[starts[r] : starts[r + 1]]`; `sizes` int32 [documents] are a document's different
    runs. Documents with fewer words than a run are known by all of them: `whole` u64, sorted, and
    `whole_documents`. `sources` int32 [documents] tells whose each is, by its place in `names`.
    """

    names: tuple[str, ...]
    hashes: Hashes
    starts: Integers
    documents: NDArray[np.int32]
    sizes: NDArray[np.int32]
    whole: Hashes
    whole_documents: NDArray[np.int32]
    sources: NDArray[np.int32]

    def owners(self, entries: Integers) -> tuple[Integers, Integers]:
        """Return the documents that have some runs, and for each the place of its run in
        `entries`."""
        counts = self.starts[entries + 1] - self.starts[entries]
        place = np.repeat(np.arange(len(entries)), counts)
        before = np.cumsum(counts) - counts
        at = self.starts[entries][place] + np.arange(len(place)) - before[place]
        return self.documents[at].astype(np.int64), place


def index_held_out(names: Sequence[str], batches: Iterator[tuple[int, Words]]) -> HeldOutIndex:
    """Return the index of held-out documents; `batches` gives (number of the source, words)."""
    hashes, documents, sources = [_NO_HASHES], [_NONE], [_NONE]
    whole, whole_documents = [_NO_HASHES], [_NONE]
    num_documents = 0
    for source, words in batches:
        num = len(words.starts) - 1
        runs, places = runs_of(words, RUN_WORDS)
        hashes.append(runs)
        documents.append(num_documents + _document_of(words, places))
        sizes = np.diff(words.starts)
        short = (sizes > 0) & (sizes < RUN_WORDS)
        whole.append(whole_of(_only(words, short)))
        whole_documents.append(num_documents + np.flatnonzero(short))
        sources.append(np.full(num, source))
        num_documents += num
    every, of_run = np.concatenate(hashes), np.concatenate(documents)
    order = np.lexsort((of_run, every))
    every, of_run = every[order], of_run[order]
    is_new = np.ones(len(every), dtype=np.bool_)
    is_new[1:] = (every[1:] != every[:-1]) | (of_run[1:] != of_run[:-1])
    every, of_run = every[is_new], of_run[is_new]
    values, starts = np.unique(every, return_index=True)
    alone = np.concatenate(whole)
    order = np.argsort(alone, kind="stable")
    return HeldOutIndex(
        names=tuple(names),
        hashes=values,
        starts=np.append(starts, len(every)).astype(np.int64),
        documents=of_run.astype(np.int32),
        sizes=np.bincount(of_run, minlength=num_documents).astype(np.int32),
        whole=alone[order],
        whole_documents=np.concatenate(whole_documents)[order].astype(np.int32),
        sources=np.concatenate(sources).astype(np.int32),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """What texts share with held-out documents: which runs each has (`texts`, `entries`) how often
    (`counts`), how many runs it has in all [texts], and texts that are, as a whole, a short one."""

    texts: Integers
    entries: Integers
    counts: Integers
    num_runs: Integers
    whole_texts: Integers
    whole_documents: Integers

    def moved(self, by: int) -> Matches:
        """Return the same of texts that are numbered from `by` on."""
        return replace(self, texts=self.texts + by, whole_texts=self.whole_texts + by)

    @classmethod
    def joined(cls, parts: Sequence[Matches]) -> Matches:
        """Return those of all parts, whose texts follow each other."""
        columns = {
            name: np.concatenate([_NONE, *(getattr(part, name) for part in parts)])
            for name in cls.__slots__
        }
        return cls(**columns)


class HeldOutMatcher:
    """Looks texts up in an index of held-out documents."""

    def __init__(self, index: HeldOutIndex) -> None:
        self._index = index
        self._runs = _Lookup(index.hashes)
        self._whole = _Lookup(index.whole)

    def matches(self, words: Words) -> Matches:
        """Return what texts share with held-out documents."""
        hashes, places = runs_of(words, RUN_WORDS)
        where, entries = self._runs.find(hashes)
        texts = _document_of(words, places[where])
        num_entries = max(len(self._index.hashes), 1)
        pairs, counts = np.unique(texts * num_entries + entries, return_counts=True)
        sizes = np.diff(words.starts)
        short = np.flatnonzero((sizes > 0) & (sizes < RUN_WORDS))
        alone = self._whole.find(whole_of(_only(words, (sizes > 0) & (sizes < RUN_WORDS))))
        return Matches(
            texts=pairs // num_entries,
            entries=pairs % num_entries,
            counts=counts.astype(np.int64),
            num_runs=np.maximum(sizes - RUN_WORDS + 1, 0),
            whole_texts=short[alone.where],
            whole_documents=self._index.whole_documents[alone.entries].astype(np.int64),
        )


class Copy(NamedTuple):
    """A text that copies a held-out document, the one that it shares most runs with."""

    text: int
    document: int


def common_runs(
    index: HeldOutIndex, pieces: Iterator[Matches], num_texts: int
) -> NDArray[np.bool_]:
    """Return which runs more than 10 texts (and 1 in 1,000) of a source have, bool [runs]."""
    seen = np.zeros(len(index.hashes), dtype=np.int64)
    for piece in pieces:
        seen += np.bincount(piece.entries, minlength=len(seen))
    common: NDArray[np.bool_] = seen > max(COMMON_DOCUMENTS, COMMON_SHARE * num_texts)
    return common


def copies_of_held_out(
    index: HeldOutIndex, matches: Matches, common: NDArray[np.bool_]
) -> list[Copy]:
    """Return the texts that are copies of held-out documents, in order."""
    found = dict(zip(matches.whole_texts.tolist(), matches.whole_documents.tolist(), strict=True))
    telling = ~common[matches.entries]
    texts, entries = matches.texts[telling], matches.entries[telling]
    counts = matches.counts[telling]
    if len(texts):
        documents, place = index.owners(entries)
        num_documents = len(index.sizes)
        pairs, shared = np.unique(texts[place] * num_documents + documents, return_counts=True)
        of_text, of_document = pairs // num_documents, pairs % num_documents
        told_runs = _telling_sizes(index, common)
        held = (shared >= COPIED_SHARE * told_runs[of_document]) & (
            shared >= np.minimum(_LEAST_RUNS, index.sizes[of_document])
        )
        own = np.bincount(texts, weights=counts, minlength=len(matches.num_runs))
        made_of = (own >= COPIED_SHARE * matches.num_runs) & (
            own >= np.minimum(_LEAST_RUNS, np.maximum(matches.num_runs, 1))
        )
        copied = held | made_of[of_text]
        # Of several held-out documents, the one that shares most; the first of equals.
        order = np.lexsort((of_document, -shared, of_text))
        for text, group in itertools.groupby(order[copied[order]].tolist(), of_text.__getitem__):
            found.setdefault(int(text), int(of_document[next(group)]))
    return [Copy(text, found[text]) for text in sorted(found)]


def _telling_sizes(index: HeldOutIndex, common: NDArray[np.bool_]) -> Integers:
    """Return how many runs of each held-out document are not common."""
    of_run = np.repeat(~common, np.diff(index.starts))
    found: Integers = np.bincount(index.documents[of_run], minlength=len(index.sizes)).astype(
        np.int64
    )
    return found
