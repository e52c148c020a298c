"""What is asked of another side for many things at a time: an answer takes longer than its work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["side_by_side"]

AT_A_TIME = 16

_Item = TypeVar("_Item")
_Found = TypeVar("_Found")


def side_by_side(
    work: Callable[[_Item], _Found], items: Iterable[_Item], *, at_a_time: int = AT_A_TIME
) -> Iterator[_Found]:
    """Yield what `work` returns for each item, in their order, so many at work at a time.

    What it raises is raised when the item's turn comes; what is not begun by then is left.
    """
    pending: deque[Future[_Found]] = deque()
    pool = ThreadPoolExecutor(at_a_time)
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= at_a_time:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
