"""Changes to a plan while its run goes on: an append-only chain, on the disk before it governs.

Order and rate stay functions of the plan; what a step does is a function of (plan, amendments,
step). The first amendment's parent is the plan's fingerprint, each further one's is the one
before. A state is bound to the amendment that was the last when it was reached: it may be gone on
with where all later ones begin at its step or beyond.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from rewarm.artifacts import (
    append_json_line,
    canonical_json,
    fingerprint,
    read_json_lines,
    write_atomically,
)
from rewarm.errors import Problem, RunFolderError
from rewarm.records.facts import Amendment

__all__ = ["Amendments", "append_amendment", "read_amendments", "write_amendments"]

_WHAT_IT_DID = {
    "skip": "was skipped",
    "freeze": "froze layers",
    "replay": "raised the share of old text",
}


@dataclass(frozen=True, slots=True)
class Amendments:
    """A plan's chain of amendments as far as it goes now."""

    plan: str = ""
    chain: tuple[Amendment, ...] = ()

    @property
    def head(self) -> str:
        """Return what the next amendment's parent is: the last one's fingerprint, or the plan's."""
        return self.last or self.plan

    @property
    def last(self) -> str:
        """Return the last amendment's fingerprint; empty where there is none."""
        return _fingerprint(self.chain[-1]) if self.chain else ""

    def skips(self, step: int) -> bool:
        """Tell whether a step is skipped: its samples count as consumed, nothing is updated."""
        return any(
            found.change == "skip" and found.from_step <= step < found.until_step
            for found in self.chain
        )

    @property
    def num_skips(self) -> int:
        """Return how often steps were skipped."""
        return sum(found.change == "skip" for found in self.chain)

    def frozen_layers(self, step: int) -> int:
        """Return how many of the lowest layers amendments have frozen at a step."""
        frozen = [
            found.layers
            for found in self.chain
            if found.change == "freeze" and found.from_step <= step < found.until_step
        ]
        return max(frozen, default=0)

    def freeze_steps(self) -> list[int]:
        """Return the steps from which amendments freeze layers."""
        return [found.from_step for found in self.chain if found.change == "freeze"]

    def replay_share(self, step: int) -> float:
        """Return which share of old text amendments ask for at a step, at least; 0: none does."""
        shares = [
            found.share
            for found in self.chain
            if found.change == "replay" and found.from_step <= step < found.until_step
        ]
        return max(shares, default=0.0)

    def replay_steps(self) -> list[int]:
        """Return the steps from which amendments raise the share of old text."""
        return [found.from_step for found in self.chain if found.change == "replay"]

    def with_skip(self, from_step: int, until_step: int, evidence: str) -> Amendments:
        """Return the chain with the steps [from_step, until_step) skipped, for a reason."""
        return self._with(
            Amendment(
                parent=self.head,
                from_step=from_step,
                until_step=until_step,
                change="skip",
                evidence=evidence,
            )
        )

    def with_freeze(
        self, from_step: int, until_step: int, layers: int, evidence: str
    ) -> Amendments:
        """Return the chain with so many of the lowest layers frozen in [from_step, until_step)."""
        return self._with(
            Amendment(
                parent=self.head,
                from_step=from_step,
                until_step=until_step,
                change="freeze",
                layers=layers,
                evidence=evidence,
            )
        )

    def with_replay(
        self, from_step: int, until_step: int, share: float, evidence: str
    ) -> Amendments:
        """Return the chain with at least this share of old text in [from_step, until_step)."""
        return self._with(
            Amendment(
                parent=self.head,
                from_step=from_step,
                until_step=until_step,
                change="replay",
                share=share,
                evidence=evidence,
            )
        )

    def _with(self, amendment: Amendment) -> Amendments:
        return Amendments(self.plan, (*self.chain, amendment))

    def is_linked(self) -> bool:
        """Tell whether each amendment's parent is the one before, the first one's the plan."""
        heads = [self.plan, *map(_fingerprint, self.chain)]
        return all(found.parent == head for found, head in zip(self.chain, heads, strict=False))

    def extends(self, other: Amendments) -> bool:
        """Tell whether another chain is this one's beginning, or all of it."""
        return self.plan == other.plan and self.chain[: len(other.chain)] == other.chain

    def knows(self, head: str) -> bool:
        """Tell whether a head is of this chain."""
        return head in self._heads()

    def _heads(self) -> list[str]:
        return ["", *map(_fingerprint, self.chain)]

    def why_outdated(self, head: str, step: int) -> str | None:
        """Return why a state that was reached at `step` under `head` is not of this chain, or None.

        An empty head is a state's from before the first amendment.
        """
        heads = self._heads()
        if not self.knows(head):
            return "it was reached under amendments that this run does not have"
        for later in self.chain[heads.index(head) :]:
            if later.from_step < step:
                what = _WHAT_IT_DID[later.change]
                return f"it was reached before step {later.from_step} {what}"
        return None


def read_amendments(path: Path, plan: str) -> Amendments:
    """Return the chain that a file holds; a line torn by a kill at its end never governed.

    Raises RunFolderError where it does not follow from the plan, one amendment from the other.
    """
    chain = Amendments(plan)
    for value in read_json_lines(path):
        try:
            amendment = Amendment.model_validate(value)
        except ValidationError as error:
            raise _broken(path, f"{error.errors()[0]['msg']}") from error
        if amendment.parent != chain.head:
            raise _broken(path, f"amendment {len(chain.chain) + 1} does not follow from the others")
        chain = Amendments(plan, (*chain.chain, amendment))
    return chain


def append_amendment(path: Path, amendments: Amendments) -> None:
    """Put the last amendment of a chain on the disk, and wait until it is there."""
    append_json_line(path, _line(amendments.chain[-1]), durable=True)


def write_amendments(path: Path, amendments: Amendments) -> None:
    """Put a whole chain on the disk in place of its beginning."""
    lines = [canonical_json(_line(amendment)) for amendment in amendments.chain]
    write_atomically(path, "".join(f"{line}\n" for line in lines))


def _fingerprint(amendment: Amendment) -> str:
    return fingerprint(_line(amendment))


def _line(amendment: Amendment) -> dict[str, object]:
    """Return what stands on the disk; a share only where it is one, as before there were any."""
    is_replay = amendment.change == "replay"
    return amendment.model_dump(mode="json", exclude=None if is_replay else {"share"})


def _broken(path: Path, what: str) -> RunFolderError:
    fix = "restore the file; it is only ever appended to, by rewarm itself"
    return RunFolderError(Problem(str(path), what, fix))
