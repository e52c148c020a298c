"""Begins the next batch while the last one is used up, for work that needs no interpreter."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, NamedTuple, Self, TypeVar

__all__ = ["Ahead"]

_In = TypeVar("_In")
_Out = TypeVar("_Out")

_BEGUN = 2


class _Begun(NamedTuple, Generic[_Out]):
    """An iterator whose first item was taken; `first` is empty where there was none."""

    first: tuple[_Out, ...]
    rest: Iterator[_Out]


class Ahead(Generic[_In, _Out]):
    """Calls `work` on batches in one thread of its own, up to two before the one that is taken.

    The thread takes the first item of what `work` gives, and whatever `work` does before that; the
    rest of the items are made where they are taken. Order, and so every result, is as without it.
    """

    def __init__(self, work: Callable[[_In], Iterator[_Out]]) -> None:
        self._work = work
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def over(self, batches: Iterable[_In]) -> Iterator[_Out]:
        """Yield what `work` gives for each batch, in order; raises in its place what it raises."""
        begun: deque[Future[_Begun[_Out]]] = deque()
        for batch in batches:
            begun.append(self._thread.submit(self._begin, batch))
            if len(begun) > _BEGUN:
                yield from _items(begun.popleft())
        while begun:
            yield from _items(begun.popleft())

    def _begin(self, batch: _In) -> _Begun[_Out]:
        items = self._work(batch)
        for first in items:
            return _Begun((first,), items)
        return _Begun((), items)


def _items(begun: Future[_Begun[_Out]]) -> Iterator[_Out]:
    first, rest = begun.result()
    yield from first
    yield from rest
