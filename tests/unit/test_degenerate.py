"""What is dropped and why: shares against counts by hand, similarity against exact Jaccard."""

from __future__ import annotations

import random
import zlib

import numpy as np
import pytest

from rewarm.corpus.near_duplicates import NUM_HASHES, NearDuplicates, signature
from rewarm.retention.degenerate import Sieve, compressed_share, repeat_share
from rewarm.retention.tally import Runs, Tally

SIEVE = Sieve(min_tokens=8, max_repeat_share=0.5, min_compressed_share=0.15)
PROSE = (
    b"It was the best of times, it was the worst of times, it was the age of wisdom, it was the "
    b"age of foolishness, it was the epoch of belief, it was the epoch of incredulity."
)


@pytest.mark.parametrize(
    ("ids", "share"),
    [
        ([1, 2, 3, 4, 5, 6], 0.0),
        ([1, 1, 1, 1, 1, 1, 1], 3 / 4),  # four runs of four, one of them different
        ([1, 2, 3, 4, 1, 2, 3, 4], 1 / 5),  # of 1234 2341 3412 4123 1234 one stood before
        ([1, 2], 0.0),
        ([], 0.0),
    ],
)
def test_repeats_are_counted_by_hand(ids: list[int], share: float) -> None:
    assert repeat_share(np.array(ids, dtype=np.int64)) == pytest.approx(share)


def test_order_matters_to_a_run() -> None:
    assert repeat_share(np.array([1, 2, 3, 4, 4, 3, 2, 1])) == 0.0


def test_compression_is_zlibs() -> None:
    assert compressed_share(PROSE) == len(zlib.compress(PROSE, 6)) / len(PROSE)
    assert 0.5 < compressed_share(PROSE) < 1
    assert compressed_share(b"so on and " * 100) < 0.05
    assert compressed_share(b"") == 1.0


@pytest.mark.parametrize(
    ("ids", "text", "special", "reason"),
    [
        (range(20), PROSE, False, "kept"),
        (range(20), PROSE, True, "special_token"),
        (range(7), PROSE, False, "too_short"),
        ([1, 2] * 20, PROSE, False, "repetitive"),
        (range(20), b"ha" * 400, False, "compressible"),
    ],
)
def test_each_reason(ids: object, text: bytes, special: bool, reason: str) -> None:
    found = SIEVE.reason(np.array(list(ids)), text, holds_special_token=special)  # type: ignore[call-overload]
    assert found == reason


def runs_of(ids: list[int], length: int) -> set[tuple[int, ...]]:
    return {tuple(ids[place : place + length]) for place in range(len(ids) - length + 1)}


def test_signatures_estimate_the_exact_similarity() -> None:
    """Against Jaccard over Python sets of runs: unbiased, and within its standard error."""
    rng = random.Random(0)
    differences = []
    for _ in range(200):
        one = [rng.randrange(1000) for _ in range(200)]
        other = one[: rng.randrange(1, 200)]
        other = other + [rng.randrange(1000) for _ in range(200 - len(other))]
        exact = len(runs_of(one, 5) & runs_of(other, 5)) / len(runs_of(one, 5) | runs_of(other, 5))
        agree = float((signature(np.array(one)) == signature(np.array(other))).mean())
        error = max((exact * (1 - exact) / NUM_HASHES) ** 0.5, 0.01)
        differences.append((agree - exact) / error)
    assert abs(np.mean(differences)) < 0.3
    assert np.std(differences) < 1.3
    assert max(map(abs, differences)) < 5


def test_near_duplicates_are_told_from_the_rest() -> None:
    rng = random.Random(1)
    near = NearDuplicates(max_similarity=0.8)
    text = [rng.randrange(3000) for _ in range(400)]
    assert near.add(signature(np.array(text)))
    assert not near.add(signature(np.array(text)))
    changed = [*text[:390], *range(10)]  # 386 of 406 runs are shared: 0.95
    assert not near.add(signature(np.array(changed)))
    half = [*text[:200], *(rng.randrange(3000) for _ in range(200))]
    assert near.add(signature(np.array(half)))
    assert not near.add(signature(np.array(half)))
    others = [[rng.randrange(3000) for _ in range(400)] for _ in range(300)]
    assert all(near.add(signature(np.array(other))) for other in others)


def test_short_texts_have_a_signature_too() -> None:
    near = NearDuplicates(0.8)
    assert [near.add(signature(np.array(ids))) for ids in ([1, 2], [1, 2], [2, 1], [1])] == [
        True,
        False,
        True,
        True,
    ]


def test_different_runs_are_counted_over_all_documents() -> None:
    runs = Runs(wanted_tokens=100)
    documents = [[1, 2, 3, 4, 5], [2, 3, 4, 5, 9], [7, 7, 7, 7, 7]]
    for document in documents:
        runs.add(np.array(document))
    every = [run for document in documents for run in sorted(runs_of(document, 4))]
    assert len(every) == 5  # the last document's two runs are one
    assert runs.distinct_share == pytest.approx(4 / 6)


def test_of_many_runs_a_sample_tells_the_same_share() -> None:
    rng = random.Random(3)
    documents = [np.array([rng.randrange(8) for _ in range(2000)]) for _ in range(20)]
    whole, sampled = Runs(wanted_tokens=1), Runs(wanted_tokens=16 * 2**22)
    for document in documents:
        whole.add(document)
        sampled.add(document)
    seen = {run for document in documents for run in runs_of(document.tolist(), 4)}
    assert whole.distinct_share == pytest.approx(len(seen) / (20 * 1997))
    assert sampled.distinct_share == pytest.approx(whole.distinct_share, rel=0.2)


def test_much_of_a_kind_is_warned_of() -> None:
    tally = Tally(num_samples=100, num_documents=20, num_ended=10)
    assert list(tally.warnings()) == []
    assert tally.by_reason() == "none dropped"
    tally.dropped.update({"repetitive": 60, "near_duplicate": 20})
    told = list(tally.warnings())
    assert told[0].startswith("60% of the samples are dropped as repetitive; the base repeats")
    assert told[1].startswith("20% of the samples are dropped as near_duplicate; samples are alike")
    assert tally.by_reason() == "near_duplicate 20, repetitive 60"
    assert tally.dropped_share == 0.8
    tally.num_ended = 1
    assert list(tally.warnings())[-1].startswith("95% of the kept samples are cut")
