"""What is done while a run goes on and old text is forgotten: told, stopped, or replayed more.

A raised share of old text depends on what was measured, so it is an amendment of the plan, on the
disk before the first step that it governs: the order stays a function of (plan, amendments, step).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from rewarm.distributed.ranks import Ranks
from rewarm.planning.amended import amended, replay_share
from rewarm.planning.plan import Science
from rewarm.recipe.records import ForgettingRecipe
from rewarm.records.facts import StepRecord
from rewarm.training.sinks import Journal
from rewarm.training.state import TrainState

__all__ = ["ActOnForgetting", "FindForgetting"]

FindForgetting = Callable[[int, int], str | None]
"""(step, step since when evaluations count) → what shows that old text is forgotten, or None."""


class AmendByReplay(Protocol):
    """Puts a larger share of old text from a state's step on, on the disk and into the state."""

    def __call__(self, state: TrainState, until_step: int, share: float, why: str, /) -> None:
        """Amend the plan; collective."""
        ...


class ActOnForgetting:
    """A hook that looks at each evaluation. Stands behind `Evaluate`, before `SaveCheckpoints`."""

    def __init__(
        self,
        rule: ForgettingRecipe,
        science: Science,
        steps: Collection[int],
        *,
        find: FindForgetting,
        amend: AmendByReplay,
        journal: Journal,
        ranks: Ranks,
    ) -> None:
        """`steps` are those of evaluations; `find` reads their records, on the main rank alone."""
        self._rule = rule
        self._science = science
        self._steps = frozenset(steps)
        self._find = find
        self._amend = amend
        self._journal = journal
        self._ranks = ranks
        self._has_stopped = False
        self._has_told_ceiling = False

    @property
    def has_stopped(self) -> bool:
        """Tell whether the run is to stop, in this launch, for what it has forgotten."""
        return self._has_stopped

    def before_train(self, state: TrainState, /) -> None:
        """What a launch begins with was looked at before it was saved."""

    def after_step(self, state: TrainState, record: StepRecord | None, /) -> None:
        """Look at an evaluation, if there was one, and act."""
        step = state.step
        if step not in self._steps or step in state.amendments.replay_steps():
            return  # nothing new, or decided before a kill already
        acted = [at for at in state.amendments.replay_steps() if at < step]
        since = max(acted, default=0)
        evidence = self._ranks.on_main(lambda: self._find(step, since))
        if evidence is None:
            return
        if self._rule.action == "replay":
            self._raise(state, evidence)
            return
        self._journal.event("forgetting", step, evidence)
        self._has_stopped = self._rule.action == "stop"

    def on_stop(self, state: TrainState, /) -> None:
        """Nothing is left to do."""

    def _raise(self, state: TrainState, evidence: str) -> None:
        step, science = state.step, self._science
        if step >= science.num_steps:
            self._journal.event("forgetting", step, evidence)
            return
        now = replay_share(amended(science, state.amendments), step)
        share = min(self._rule.ceiling, now + self._rule.add)
        if share <= now:
            if not self._has_told_ceiling:
                ceiling = f"old text is {now:.3g} of the blend, and no more is allowed"
                self._journal.event("forgetting", step, f"{evidence}; {ceiling}")
            self._has_told_ceiling = True
            return
        self._has_told_ceiling = False
        self._amend(state, science.num_steps, share, evidence)
