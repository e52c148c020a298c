"""What is begun ahead gives what would be given without it, in order, its errors in their place."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from rewarm.corpus.ahead import Ahead


def test_everything_comes_once_and_in_order() -> None:
    def work(batch: list[int]) -> Iterator[int]:
        yield from batch

    batches = [[1, 2], [], [3], [4, 5, 6], [], [7]]
    with Ahead(work) as ahead:
        assert list(ahead.over(batches)) == [1, 2, 3, 4, 5, 6, 7]
        assert list(ahead.over([])) == []


def test_the_next_batch_is_begun_while_one_is_used_and_only_so_many() -> None:
    begun = [threading.Event() for _ in range(9)]

    def work(batch: int) -> Iterator[int]:
        begun[batch].set()
        yield batch
        assert threading.current_thread() is main

    main = threading.current_thread()
    asked: list[int] = []

    def batches() -> Iterator[int]:
        for number in range(9):
            asked.append(number)
            yield number

    with Ahead(work) as ahead:
        items = ahead.over(batches())
        assert next(items) == 0
        assert begun[1].wait(10)
        assert begun[2].wait(10)
        assert asked == [0, 1, 2]  # memory holds no more than that
        assert list(items) == list(range(1, 9))


def test_an_error_comes_in_its_place() -> None:
    def work(batch: int) -> Iterator[int]:
        if batch == 2:
            raise ValueError("two")
        yield batch

    with Ahead(work) as ahead:
        items = ahead.over(range(9))
        assert [next(items), next(items)] == [0, 1]
        with pytest.raises(ValueError, match="two"):
            next(items)


def test_whoever_stops_early_is_not_kept_waiting() -> None:
    def work(batch: int) -> Iterator[int]:
        yield batch

    with Ahead(work) as ahead:
        assert next(ahead.over(range(10**9))) == 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
