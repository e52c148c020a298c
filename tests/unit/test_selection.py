"""Which documents a score keeps: by hand, whatever the order, never more than asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewarm.corpus.selection import rank, selected_estimate
from rewarm.recipe.keep import KeepRecipe
from tests.support.fake_facts import make_corpus_facts

TOKENS = np.array([10, 20, 30, 40])
HASHES = np.array([4, 3, 2, 1], dtype=np.uint64)


def kept(scores: list[float], *, lowest: bool = True, **asked: float | int | None) -> list[int]:
    ranking = rank(np.array(scores), TOKENS, HASHES, lowest=lowest)
    share, tokens = asked.get("share"), asked.get("tokens")
    found = ranking.kept(share=share, tokens=None if tokens is None else int(tokens))
    return [int(index) for index in found]


def test_the_fewest_best_that_hold_what_is_asked_for() -> None:
    scores = [3.0, 1.0, 2.0, 4.0]  # best first: 1 (20 tokens), 2 (50), 0 (60), 3 (100)
    assert kept(scores, share=0.2) == [1]
    assert kept(scores, share=0.21) == [1, 2]
    assert kept(scores, tokens=50) == [1, 2]
    assert kept(scores, tokens=51) == [0, 1, 2]
    assert kept(scores, lowest=False, share=0.4) == [3]
    assert kept(scores, lowest=False, share=0.45) == [0, 3]
    assert kept(scores, tokens=1000) == [0, 1, 2, 3]


def test_equal_scores_go_by_hash_and_no_score_comes_last_either_way() -> None:
    assert kept([1.0, 1.0, 1.0, 2.0], tokens=30) == [2]
    assert kept([1.0, 1.0, 1.0, 2.0], tokens=31) == [1, 2]
    nan = float("nan")
    assert kept([nan, 5.0, nan, np.inf], tokens=60) == [1, 3]
    assert kept([nan, -np.inf, nan, 5.0], lowest=False, tokens=60) == [1, 3]
    assert kept([nan, 5.0, nan, 6.0], tokens=61) == [1, 2, 3]


def test_share_or_tokens_or_all_that_are_ranked() -> None:
    ranking = rank(np.zeros(4), TOKENS, HASHES, lowest=True)
    with pytest.raises(ValueError, match="one of the two"):
        ranking.kept(share=0.5, tokens=10)
    assert ranking.kept(share=None, tokens=None).tolist() == [0, 1, 2, 3]
    nothing = rank(np.empty(0), np.empty(0, np.int64), np.empty(0, np.uint64), lowest=True)
    assert nothing.kept(share=0.5, tokens=None).tolist() == []


def test_what_has_no_score_is_not_kept_where_scores_alone_are() -> None:
    scores = np.array([np.nan, 5.0, np.nan, 3.0])
    ranking = rank(scores, TOKENS, HASHES, lowest=True, scored_alone=True)
    assert ranking.kept(share=None, tokens=None).tolist() == [1, 3]
    assert ranking.kept(share=None, tokens=1000).tolist() == [1, 3]
    assert ranking.kept(share=0.4, tokens=None).tolist() == [3]  # of all tokens, 100
    assert ranking.kept(share=0.5, tokens=None).tolist() == [1, 3]


@given(st.data())
def test_the_order_of_documents_decides_nothing(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    scores = np.array(
        data.draw(st.lists(st.sampled_from([0.0, 1.0, np.nan]), min_size=count, max_size=count))
    )
    tokens = np.array(data.draw(st.lists(st.integers(1, 9), min_size=count, max_size=count)))
    hashes = np.array(data.draw(st.permutations(range(count))), dtype=np.uint64)
    share = data.draw(st.floats(0.01, 0.99))
    lowest = data.draw(st.booleans())
    moved = np.array(data.draw(st.permutations(range(count))))
    one = rank(scores, tokens, hashes, lowest=lowest).kept(share=share, tokens=None)
    two = rank(scores[moved], tokens[moved], hashes[moved], lowest=lowest).kept(
        share=share, tokens=None
    )
    assert set(hashes[one].tolist()) == set(hashes[moved][two].tolist())
    held = tokens[one].sum()
    assert held >= share * tokens.sum() * (1 - 1e-12)
    assert any(held - tokens[index] < share * tokens.sum() for index in one)


def test_an_estimate_is_what_was_asked_for_and_never_measured() -> None:
    facts = make_corpus_facts("web", num_tokens=1000)
    quarter = KeepRecipe(lowest="base-loss", share=0.25)
    found = selected_estimate(facts, quarter)
    assert (found.num_tokens, found.num_documents, found.num_bytes) == (250, 250, 1000)
    assert not found.measured
    assert "not scored yet" in found.warnings[-1]
    fixed = selected_estimate(facts, KeepRecipe(lowest="base-loss", tokens=5000))
    assert fixed.num_tokens == 1000
    assert found.key != fixed.key != facts.key
