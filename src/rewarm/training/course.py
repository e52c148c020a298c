"""The course of a run: its amendments on the disk, and the way back to where one begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rewarm.distributed.ranks import Ranks
from rewarm.errors import CheckpointError, Problem, RunFolderError
from rewarm.planning.amendments import Amendments, append_amendment, read_amendments
from rewarm.records.run_folder import RunFolder
from rewarm.training.checkpoint import CheckpointStore, Search, step_of
from rewarm.training.guard import RollBack
from rewarm.training.saved import read_saved_state
from rewarm.training.sinks import Journal
from rewarm.training.state import TrainState

__all__ = ["Course"]


@dataclass(frozen=True, slots=True)
class Course:
    """Reads and extends a run's amendments; methods are collective."""

    run: RunFolder
    plan: str
    store: CheckpointStore
    journal: Journal
    ranks: Ranks

    def amendments(self) -> Amendments:
        """Return the chain as it is on the disk."""
        return self.ranks.on_main(lambda: read_amendments(self.run.amendments, self.plan))

    def find_newest(self) -> Search:
        """Return the newest verified checkpoint that is of the run as amended.

        A rollback that was cut off leaves checkpoints of the steps that are left out: they go.
        Raises RunFolderError where the one that is found knows amendments that are not there.
        """
        amendments = self.amendments()
        left = [path for path in self.store.paths() if _is_left(path, amendments)]
        self.store.discard(left)
        found = self.store.find_newest_verified()
        if found.path is not None:
            saved = read_saved_state(found.path)
            why = amendments.why_outdated(saved.amendments_head, saved.step)
            if why is not None:
                raise RunFolderError(
                    Problem(
                        str(found.path),
                        why,
                        f"restore {self.run.amendments.name} as it was beside this checkpoint",
                    )
                )
        return found

    def skip(self, state: TrainState, from_step: int, until_step: int, why: str, /) -> None:
        """Put a skip on the disk, and then into the state."""
        state.amendments = self._amend(state.amendments, from_step, until_step, why)

    def freeze(self, state: TrainState, until_step: int, layers: int, why: str, /) -> None:
        """Put a freeze of the lowest layers, from the state's step on, on the disk and into it."""
        amended = state.amendments.with_freeze(state.step, until_step, layers, why)
        self.ranks.on_main(lambda: append_amendment(self.run.amendments, amended))
        self.journal.event("freeze", state.step, f"{why}; the lowest {layers} train no more")
        state.amendments = amended

    def raise_replay(self, state: TrainState, until_step: int, share: float, why: str, /) -> None:
        """Put a larger share of old text, from the state's step on, on the disk and into it."""
        amended = state.amendments.with_replay(state.step, until_step, share, why)
        self.ranks.on_main(lambda: append_amendment(self.run.amendments, amended))
        self.journal.event(
            "replay", state.step, f"{why}; old text is {share:.3g} of the blend from here on"
        )
        state.amendments = amended

    def go_back(self, back: RollBack) -> Search:
        """Amend the plan by the steps that are left out; return the checkpoint to go on from.

        That is the newest one before these steps. Where all that are kept are later, the steps
        left out begin at the oldest of them; without any, the run begins again from the base.
        """
        usable = [step_of(path) for path in self.store.paths() if step_of(path) < back.until_step]
        from_step = back.from_step
        if usable and min(usable) > from_step:
            from_step = min(usable)
        found = self.store.find_newest_verified(at_most=from_step)
        self._amend(self.amendments(), from_step, back.until_step, back.evidence)
        self.store.discard([path for path in self.store.paths() if step_of(path) > from_step])
        return found

    def _amend(
        self, amendments: Amendments, from_step: int, until_step: int, why: str
    ) -> Amendments:
        amended = amendments.with_skip(from_step, until_step, why)
        self.ranks.on_main(lambda: append_amendment(self.run.amendments, amended))
        span = (
            f"step {from_step}"
            if until_step - from_step == 1
            else (f"steps {from_step} to {until_step - 1}")
        )
        self.journal.event("skip", from_step, f"{why}; {span} left out")
        return amended


def _is_left(path: Path, amendments: Amendments) -> bool:
    """Tell whether a checkpoint says of itself that it holds steps which are now left out."""
    try:
        saved = read_saved_state(path)
    except CheckpointError:
        return False  # damaged: it is passed over, and named, when it is looked at
    # The step by the folder's name: no hash was verified yet, and a damaged one is never deleted.
    return amendments.knows(saved.amendments_head) and bool(
        amendments.why_outdated(saved.amendments_head, step_of(path))
    )
