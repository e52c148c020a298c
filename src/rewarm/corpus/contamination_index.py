"""The index of what a recipe measures on: built once for all of its sources, and kept in a folder.

Of very large held-out splits a part is indexed, which begins with what is measured: 16 bytes for
each run of words are held in memory by whoever looks documents up.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rewarm.artifacts import fingerprint, parse_json, write_json
from rewarm.corpus.contamination import HeldOutIndex, TaskIndex, index_held_out, index_tasks
from rewarm.corpus.pieces import load_arrays, save_arrays
from rewarm.corpus.texts import as_tokenized, texts_of
from rewarm.corpus.tokenize import Encoder
from rewarm.corpus.views import View, kept_documents, open_view, text_hashes
from rewarm.corpus.words import Hashes, Words, hash_words
from rewarm.records.facts import CorpusFacts

__all__ = ["Indexes", "MeasuredText", "TaskText", "build_indexes", "load_indexes"]

_ARRAYS = "index.npz"
_ABOUT = "index.json"
_MOST_HELD_OUT_TOKENS = 2**23
_LEAST_SOURCE_TOKENS = 2**17
_TASK_TEXTS = 2**12

Integers = NDArray[np.int64]
Order = Callable[[View], Sequence[int]]
"""Which held-out documents of a view are measured, in order."""


@dataclass(frozen=True, slots=True)
class TaskText:
    """Evaluation tasks that are read together: what they are called in the recipe, a fingerprint of
    their items, and how their texts are read, by the task's name."""

    name: str
    digest: str
    read: Callable[[], Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class MeasuredText:
    """What documents are held against: tasks, and the held-out documents of prepared sources."""

    tasks: tuple[TaskText, ...] = ()
    held_out: tuple[CorpusFacts, ...] = ()

    @cached_property  # one is held against every source
    def key(self) -> str:
        """The fingerprint of what is measured on."""
        return fingerprint(
            {
                "tasks": {task.name: task.digest for task in self.tasks},
                "held_out": {facts.name: facts.key for facts in self.held_out},
            }
        )

    def __bool__(self) -> bool:
        return bool(self.tasks) or any(facts.held_out_documents for facts in self.held_out)


class Indexes(NamedTuple):
    """What `build_indexes` has put into a folder. `texts` are the sorted hashes of the texts of all
    held-out documents, those beyond the index too."""

    tasks: TaskIndex
    held_out: HeldOutIndex
    texts: Hashes
    warnings: tuple[str, ...]

    def source_of(self, document: int) -> str:
        """Return the name of the source that holds a document of the index out."""
        return self.held_out.names[int(self.held_out.sources[document])]


def build_indexes(measured: MeasuredText, folder: Path, encoder: Encoder, order: Order) -> None:
    """Write the index of what is measured on into a folder.

    Raises CorpusError for a task or a source that cannot be read, OSError where the disk refuses.
    """
    texts_of_task: dict[str, list[str]] = {}
    for task in measured.tasks:
        for name, texts in task.read().items():
            texts_of_task.setdefault(name, []).extend(_as_tokenized(texts, encoder))
    tasks = index_tasks(texts_of_task)
    warnings: list[str] = []
    names = [facts.name for facts in measured.held_out]
    held_out = index_held_out(names, _held_out_words(measured, encoder, order, warnings))
    held_out_texts = [
        text_hashes(Path(facts.folder))[kept_documents(facts, held_out=True)]
        for facts in measured.held_out
    ]
    arrays = {name: getattr(held_out, name) for name in _HELD_OUT_NAMES}
    arrays["texts"] = np.unique(np.concatenate([np.empty(0, dtype=np.uint64), *held_out_texts]))
    for length, (hashes, owners) in tasks.by_length.items():
        arrays |= {f"task_{length}": hashes, f"task_owners_{length}": owners}
    save_arrays(folder / _ARRAYS, arrays)
    write_json(
        folder / _ABOUT,
        {
            "tasks": tasks.names,
            "lengths": sorted(tasks.by_length),
            "held_out": names,
            "warnings": warnings,
        },
    )


_HELD_OUT_NAMES = (
    *("hashes", "starts", "documents", "sizes"),
    *("whole", "whole_documents", "sources"),
)


def _as_tokenized(texts: Sequence[str], encoder: Encoder) -> Iterator[str]:
    for first in range(0, len(texts), _TASK_TEXTS):
        yield from as_tokenized(texts[first : first + _TASK_TEXTS], encoder)


def _held_out_words(
    measured: MeasuredText, encoder: Encoder, order: Order, warnings: list[str]
) -> Iterator[tuple[int, Words]]:
    most = max(_MOST_HELD_OUT_TOKENS // max(len(measured.held_out), 1), _LEAST_SOURCE_TOKENS)
    for number, facts in enumerate(measured.held_out):
        view = open_view(facts, held_out=True)
        chosen = _chosen(facts, view, order, most)
        if len(chosen) < view.num_documents:
            warnings.append(
                f"of the {view.num_documents:,} documents that {facts.name} holds out near copies "
                f"of {len(chosen):,} are looked for, those that are measured first; of the others "
                "exact copies"
            )
        for first, last in _stretches(chosen):
            for batch in texts_of(view, encoder, first, last):
                yield number, hash_words(batch.texts)


def _chosen(facts: CorpusFacts, view: View, order: Order, most_tokens: int) -> Integers:
    """Return the held-out documents that are indexed, in order: all, or else what is measured and
    then by the hash of the text, while they hold no more than `most_tokens`."""
    if view.num_tokens <= most_tokens:
        return np.arange(view.num_documents)
    first = np.array(order(view), dtype=np.int64)
    hashes = text_hashes(Path(facts.folder))[kept_documents(facts, held_out=True)]
    rest = np.argsort(hashes, kind="stable")
    ranked = np.concatenate((first, rest[~np.isin(rest, first)]))
    held = np.cumsum(view.document_tokens[ranked])
    return np.sort(ranked[: max(len(first), int(np.searchsorted(held, most_tokens)))])


def _stretches(chosen: Integers) -> Iterator[tuple[int, int]]:
    """Yield [first, last) of documents that follow each other."""
    edges = [0, *(np.flatnonzero(np.diff(chosen) > 1) + 1).tolist(), len(chosen)]
    for begin, end in itertools.pairwise(edges):
        if end > begin:
            yield int(chosen[begin]), int(chosen[end - 1]) + 1


def load_indexes(folder: Path) -> Indexes:
    """Return the index in a folder; raises OSError or ValueError where it is not there."""
    about = parse_json((folder / _ABOUT).read_bytes())
    names = [
        name for length in about["lengths"] for name in (f"task_{length}", f"task_owners_{length}")
    ]
    arrays = load_arrays(folder / _ARRAYS, [*_HELD_OUT_NAMES, "texts", *names])
    if arrays is None:
        raise ValueError(f"{folder / _ARRAYS} cannot be read")
    by_length = {
        length: (arrays[f"task_{length}"].view(np.uint64), arrays[f"task_owners_{length}"])
        for length in about["lengths"]
    }
    return Indexes(
        tasks=TaskIndex(about["tasks"], by_length),
        held_out=HeldOutIndex(
            tuple(about["held_out"]), **{name: arrays[name] for name in _HELD_OUT_NAMES}
        ),
        texts=arrays["texts"].view(np.uint64),
        warnings=tuple(about["warnings"]),
    )
