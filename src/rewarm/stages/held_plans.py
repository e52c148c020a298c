"""Tells whether runs that have begun, done ones too, are of the text that an experiment has now.

A result speaks for the experiment as it is written. Figures of a run that was trained on, or
measured on, other text are none of it, whether that run is done or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rewarm.corpus.views import kept_documents, text_hashes
from rewarm.errors import CorpusError, PlanError, RunFolderError
from rewarm.planning.plan import Plan, load_plan, science_diff
from rewarm.records.facts import CorpusFacts
from rewarm.records.run_folder import RunFolder

__all__ = ["FIX", "changed_held_out", "check_done_run"]

FIX = "give the experiment another name, or undo the change"


def check_done_run(plan: Plan, run: RunFolder) -> None:
    """Raise RunFolderError where a run that has begun did so under another plan than this one, or
    holds out other text. A plan that cannot be read says nothing.
    """
    if not (run.plan.exists() and run.has_begun()):
        return
    try:
        old = load_plan(run.plan)
    except PlanError:
        return
    changes = [*changed_held_out(old, plan)]
    if old.fingerprint != plan.fingerprint:
        changes = [*science_diff(old.science, plan.science), *changes]
    if changes:
        what = f"this run has begun, or is done, and things have changed: {'; '.join(changes)}"
        raise RunFolderError.one(str(run.path), what, FIX)


def changed_held_out(old: Plan, new: Plan) -> Iterator[str]:
    """Yield, for each source of both plans that holds out other text now, a sentence on it."""
    before = old.conduct.corpora
    for name, facts in new.conduct.corpora.items():
        if name in before and not _same_held_out(before[name], facts):
            yield f"{name} holds out other text"


def _same_held_out(old: CorpusFacts, new: CorpusFacts) -> bool:
    sizes = [(facts.held_out_documents, facts.held_out_bytes) for facts in (old, new)]
    if sizes[0] != sizes[1] or old.key == new.key:
        return sizes[0] == sizes[1]
    try:
        return np.array_equal(_hashes(old), _hashes(new))
    except (CorpusError, OSError, IndexError):
        return True  # what it was prepared to is gone: its sizes are all that is known


def _hashes(facts: CorpusFacts) -> np.ndarray:
    """Return the hashes of held-out texts, ascending."""
    folder = Path(facts.folder)
    found: np.ndarray = np.sort(text_hashes(folder)[kept_documents(facts, held_out=True)])
    return found
