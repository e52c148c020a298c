"""How the ranks of a launch agree on what is done once, or by each its share. Knows no torch.

Whatever can fail on one rank alone is done `together` or `on_main`: then it fails on all of them,
at the same place, and one of them tells why.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from rewarm.errors import FaultElsewhere, LostRankFault, RewarmError

__all__ = ["ALONE", "Exchange", "Ranks", "beside"]

_T = TypeVar("_T")
_I = TypeVar("_I")

# Well below the least timeout of a collective.
_SIGN_OF_LIFE_S = 0.3

Exchange = Callable[[Any], list[Any]]
"""Hands a value to every rank; returns those of all, by rank. Raises LostRankFault."""


class _Outcome(NamedTuple):
    """What one rank's part of a common work came to."""

    value: Any = None
    error: str | None = None
    exit_code: int = 1


@dataclass(frozen=True, slots=True)
class Ranks:
    """The ranks of a launch as one of them sees them; by default one that is alone.

    The four ways to work are collective: all ranks call them, in the same order.
    """

    rank: int = 0
    size: int = 1
    exchange: Exchange = lambda value: [value]

    @property
    def is_main(self) -> bool:
        """Tell whether this is the rank that writes, logs and speaks."""
        return self.rank == 0

    def together(self, work: Callable[[], _T]) -> list[_T]:
        """Do work on every rank and return all results by rank, on every rank.

        Where it raises on some, it raises on all: on the lowest of these its own error, elsewhere
        FaultElsewhere. A lost rank is not agreed on: nobody can.
        """
        if self.size == 1:
            return [work()]
        own: Exception | None = None
        try:
            outcome = _Outcome(value=work())
        except LostRankFault:
            raise
        except Exception as error:
            own = error
            code = error.exit_code if isinstance(error, RewarmError) else 1
            outcome = _Outcome(error=f"{type(error).__name__}: {error}", exit_code=code)
        outcomes: list[_Outcome] = self.exchange(outcome)
        for rank, found in enumerate(outcomes):
            if found.error is not None:
                if own is not None and rank == self.rank:
                    raise own
                raise FaultElsewhere(rank, found.error, found.exit_code) from own
        return [found.value for found in outcomes]

    def on_main(self, work: Callable[[], _T]) -> _T:
        """Do work on the main rank alone and return its result, or raise, on every one."""
        if self.size == 1:
            return work()
        results = self.together(lambda: work() if self.is_main else None)
        return results[0]  # type: ignore[return-value]

    def on_main_at_length(self, work: Callable[[], _T]) -> _T:
        """Do as `on_main` does work that may take longer than a collective may: the main rank does
        it in a thread, and gives the others signs of life."""
        if self.size == 1:
            return work()
        future = beside(work) if self.is_main else None

        def is_done() -> bool:
            return future is not None and bool(wait([future], _SIGN_OF_LIFE_S).done)

        def result() -> _T:
            assert future is not None
            return future.result()

        while not self.on_main(is_done):
            pass
        return self.on_main(result)

    def spread(self, items: Sequence[_I], work: Callable[[_I], _T]) -> list[_T]:
        """Do work on every item, each rank its share, and return all results in their order."""
        mine = range(self.rank, len(items), self.size)
        shares = self.together(lambda: {index: work(items[index]) for index in mine})
        found = {index: value for share in shares for index, value in share.items()}
        return [found[index] for index in range(len(items))]


ALONE = Ranks()
"""A single process."""


def beside(work: Callable[[], _T]) -> Future[_T]:
    """Begin work in a thread that no end of the process waits for; return what will come of it."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="rewarm-beside", daemon=True).start()
    return future
