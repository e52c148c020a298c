"""The batch of a step is a function of (order, step), whoever asks, when, and how often."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rewarm.batches.loader import (
    IGNORED_LABEL,
    Batch,
    Batches,
    BatchLoader,
    PrefetchedBatches,
    WindowSource,
)
from rewarm.corpus.views import Sequences
from rewarm.errors import CorpusError
from rewarm.model.loss import IGNORED
from rewarm.order.position import slots_of_step
from tests.support.tiny_plans import (
    SEQUENCE_LENGTH,
    SEQUENCES_PER_STEP,
    VOCAB_SIZE,
    FakeView,
    make_plan,
    make_views,
)

ORDER = make_plan(num_steps=20).science.order()


def make_loader(
    views: Mapping[str, WindowSource] | None = None,
    *,
    rank: int = 0,
    num_ranks: int = 1,
    mask_documents: bool = False,
) -> BatchLoader:
    return BatchLoader(
        ORDER,
        views or make_views(),
        sequence_length=SEQUENCE_LENGTH,
        vocab_size=VOCAB_SIZE,
        mask_documents=mask_documents,
        rank=rank,
        num_ranks=num_ranks,
    )


def same(first: Batch, second: Batch) -> bool:
    return (
        first.step == second.step
        and torch.equal(first.input_ids, second.input_ids)
        and torch.equal(first.labels, second.labels)
        and np.array_equal(first.source, second.source)
    )


def test_a_batch_holds_the_windows_that_the_order_names() -> None:
    views = make_views()
    batch = make_loader(views).batch(13)
    slots = slots_of_step(ORDER, 13)
    assert batch.input_ids.dtype == batch.labels.dtype == torch.int64
    assert batch.input_ids.shape == batch.labels.shape == (SEQUENCES_PER_STEP, SEQUENCE_LENGTH)
    assert set(slots.source.tolist()) == {0, 1}, "one source alone would show no mistake"
    for row in range(SEQUENCES_PER_STEP):
        view = views[ORDER.source_names[slots.source[row]]]
        inputs, labels = view.sequences(slots.window[row : row + 1], SEQUENCE_LENGTH)
        assert batch.input_ids[row].tolist() == inputs[0].tolist()
        assert batch.labels[row].tolist() == labels[0].tolist()
    assert np.array_equal(batch.source, slots.source)
    assert batch.num_valid_tokens == SEQUENCES_PER_STEP * SEQUENCE_LENGTH
    assert batch.position_ids is None


def test_positions_are_those_of_the_windows_that_the_order_names() -> None:
    views = make_views()
    views["new"] = FakeView(2, document_length=7)
    slots = slots_of_step(ORDER, 13)
    whole = make_loader(views, mask_documents=True).batch(13)
    assert whole.position_ids is not None
    for row in range(SEQUENCES_PER_STEP):
        view = views[ORDER.source_names[slots.source[row]]]
        places = view.positions(slots.window[row : row + 1], SEQUENCE_LENGTH)[0]
        assert whole.position_ids[row].tolist() == places.tolist()
    parts = [
        make_loader(views, mask_documents=True, rank=rank, num_ranks=2).batch(13).position_ids
        for rank in range(2)
    ]
    assert all(part is not None for part in parts)
    assert torch.equal(torch.cat([part for part in parts if part is not None]), whole.position_ids)


def test_where_documents_begin_is_known_to_the_host_whatever_rows_are_taken() -> None:
    views = make_views()
    views["new"] = FakeView(2, document_length=7)
    whole = make_loader(views, mask_documents=True).batch(13)
    parts = [whole, whole.of_rows(slice(2, 5)), whole.of_rows([6, 1])]
    assert len({tuple(starts) for starts in whole.starts or ()}) == 2, "of one length none shows"
    for part in parts:
        assert part.position_ids is not None
        bounds = part.bounds()
        assert bounds is not None
        assert bounds.dtype == torch.int32
        places = part.position_ids.flatten().tolist()
        expected = [place for place, position in enumerate(places) if position == 0]
        assert bounds.tolist() == [*expected, len(places)]
    together = make_loader(views).batch(13)
    assert together.bounds() is None
    assert together.of_rows([0]).bounds() is None


def test_a_batch_depends_on_its_step_alone() -> None:
    loader = make_loader()
    forwards = [loader.batch(step) for step in range(20)]
    for step in (19, 3, 3, 0, 11):
        assert same(make_loader().batch(step), forwards[step])
    assert not torch.equal(forwards[3].input_ids, forwards[4].input_ids)


@pytest.mark.parametrize("num_ranks", [2, 4, 8])
def test_ranks_share_a_step(num_ranks: int) -> None:
    whole = make_loader().batch(7)
    parts = [make_loader(rank=rank, num_ranks=num_ranks).batch(7) for rank in range(num_ranks)]
    assert torch.equal(torch.cat([part.input_ids for part in parts]), whole.input_ids)
    assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)


class Spoiled:
    """A view with one token that no vocabulary has."""

    def __init__(self, offset: int, token: int) -> None:
        self.offset = offset
        self.token = token

    def sequences(self, windows: NDArray[np.int64], sequence_length: int, /) -> Sequences:
        tokens = FakeView(1).gather(windows, sequence_length)
        places = windows[:, None] * sequence_length + np.arange(sequence_length + 1)
        tokens[places == self.offset] = self.token
        return Sequences(tokens[:, :-1], tokens[:, 1:])

    positions = FakeView(1).positions


@pytest.mark.parametrize("token", [VOCAB_SIZE, 2**31, -1])
def test_a_token_outside_of_the_vocabulary_is_named_before_it_is_looked_up(token: int) -> None:
    offset = 23 * SEQUENCE_LENGTH + 5
    loader = make_loader({**make_views(), "old": Spoiled(offset, token)})
    with pytest.raises(CorpusError) as caught:
        [loader.batch(step) for step in range(20)]  # "old" has 37 windows: all are seen
    (problem,) = caught.value.problems
    assert problem.where == "sources.old"
    assert f"(window 23, place 5) is id {token}" in problem.what
    assert f"{VOCAB_SIZE} entries" in problem.what


class Recorded:
    """Batches that note what is asked of them."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self.asked: list[int] = []

    def batch(self, step: int, /) -> Batch:
        self.asked.append(step)
        return self.batches.batch(step)


def test_prefetching_changes_no_batch_and_never_passes_the_end() -> None:
    inner = Recorded(make_loader())
    with PrefetchedBatches(inner, num_steps=6) as ahead:
        for step in (0, 1, 2, 2, 5, 4, 5):
            assert same(ahead.batch(step), make_loader().batch(step))
    assert max(inner.asked) == 5


def test_a_prefetched_mistake_shows_at_its_own_step() -> None:
    class Broken:
        def batch(self, step: int, /) -> Batch:
            if step == 2:
                raise CorpusError.one("sources.old", "broken", "mend it")
            return make_loader().batch(step)

    with PrefetchedBatches(Broken(), num_steps=6) as ahead:
        assert ahead.batch(1).step == 1
        with pytest.raises(CorpusError, match="broken"):
            ahead.batch(2)


def test_for_a_gpu_batches_are_pinned_where_they_are_gathered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the thread, so that no step waits for it; there is no GPU here, so it is pretended."""
    threads: list[str] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        threads.append(threading.current_thread().name)
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    with PrefetchedBatches(make_loader(), num_steps=6, pins=True) as ahead:
        first, second = (ahead.batch(step) for step in (0, 1))
        assert same(first, make_loader().batch(0))
        assert same(second, make_loader().batch(1))
    here = threads.count(threading.main_thread().name)
    ahead_of = sum(name.startswith("prefetch") for name in threads)
    assert here  # the first one, which nobody could expect
    assert ahead_of == len(threads) - here >= here
    threads.clear()
    with PrefetchedBatches(make_loader(), num_steps=6) as ahead:
        ahead.batch(0)
    assert not threads


def test_losses_and_batches_ignore_the_same_label() -> None:
    assert IGNORED_LABEL == IGNORED
