"""The n-gram model: by hand, against a slow one of dictionaries, and as a distribution."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewarm.corpus.ngram import fit_ngrams

Words = tuple[int | str, ...]


def arrays(documents: Sequence[Sequence[int]]) -> list[np.ndarray]:
    return [np.array(document, dtype=np.int64) for document in documents]


def test_two_documents_worked_by_hand() -> None:
    """<s> 0 1 </s> and <s> 0 </s>; too few runs for discounts, so 1/2, 1 and 3/2 are taken off.

    Before 0 stands 1 different mark, before 1 one, before </s> two; of 4 pairs 2 are taken off.
    p(0) = p(1) = (1 − 1/2)/4 + 1/2 · 1/3 = 7/24, p(</s>) = (2 − 1)/4 + 1/6 = 5/12.
    """
    model = fit_ngrams(arrays([[0, 1], [0]]), vocab_size=2, order=2)
    first, second = (np.exp(-nats) for nats in model.token_nats(arrays([[0, 1], [0]])))
    p0, end = 7 / 24, 5 / 12
    after_begin = 1 / 2 + 1 / 2 * p0
    assert first.tolist() == pytest.approx(
        [after_begin, 1 / 4 + 1 / 2 * p0, 1 / 2 + 1 / 2 * end], rel=1e-6
    )
    assert second.tolist() == pytest.approx([after_begin, 1 / 4 + 1 / 2 * end], rel=1e-6)
    (unseen,) = (np.exp(-nats) for nats in model.token_nats(arrays([[1, 1]])))
    assert unseen.tolist() == pytest.approx([1 / 2 * p0, 1 / 2 * p0, 1 / 2 + 1 / 2 * end], rel=1e-6)
    (empty,) = model.token_nats(arrays([[]]))
    assert np.exp(-empty).tolist() == pytest.approx([1 / 2 * end], rel=1e-6)


class SlowModel:
    """The same formula by dictionaries of runs as tuples and exact fractions, one run at a time."""

    def __init__(self, documents: Sequence[Sequence[int]], vocab_size: int, order: int) -> None:
        self.order, self.outcomes = order, vocab_size + 1
        marked: list[Words] = [("<s>", *document, "</s>") for document in documents]
        self.counts: list[Counter[Words]] = []
        for length in range(1, order + 1):
            counts: Counter[Words] = Counter()
            before: dict[Words, set[int | str]] = {}
            for words in marked:
                for start in range(len(words) - length + 1):
                    run = words[start : start + length]
                    if length == order or (start == 0 and length > 1):
                        counts[run] += 1
                    elif start:
                        before.setdefault(run, set()).add(words[start - 1])
            counts.update({run: len(others) for run, others in before.items()})
            self.counts.append(counts)
        self.discounts = [self._discounts(counts) for counts in self.counts]

    @staticmethod
    def _discounts(counts: Counter[Words]) -> list[Fraction]:
        n = Counter(counts.values())
        fallback = [Fraction(0), Fraction(1, 2), Fraction(1), Fraction(3, 2)]
        if not all(n[count] for count in (1, 2, 3, 4)):
            return fallback
        y = Fraction(n[1], n[1] + 2 * n[2])
        found = [Fraction(0)] + [
            count - (count + 1) * y * Fraction(n[count + 1], n[count]) for count in (1, 2, 3)
        ]
        return found if all(0 <= d <= c for c, d in enumerate(found)) else fallback

    def p(self, word: int | str, history: Words) -> Fraction:
        history = history[max(0, len(history) - self.order + 1) :]
        lower = self.p(word, history[1:]) if history else Fraction(1, self.outcomes)
        counts, discounts = self.counts[len(history)], self.discounts[len(history)]
        following = [c for run, c in counts.items() if run[:-1] == history]
        if not following:
            return lower
        count = counts[(*history, word)]
        taken = sum(discounts[min(c, 3)] for c in following)
        own = count - discounts[min(count, 3)]
        return Fraction(own + taken * lower) / sum(following)


TEXT = st.lists(st.lists(st.integers(0, 3), max_size=14), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(TEXT, TEXT, st.integers(2, 4))
def test_it_is_the_slow_model(fitted: list[list[int]], asked: list[list[int]], order: int) -> None:
    slow = SlowModel(fitted, 4, order)
    found = fit_ngrams(arrays(fitted), vocab_size=4, order=order).token_nats(arrays(asked))
    for document, nats in zip(asked, found, strict=True):
        words: Words = ("<s>", *document, "</s>")
        wanted = [-math.log(slow.p(words[place], words[:place])) for place in range(1, len(words))]
        assert nats.tolist() == pytest.approx(wanted, rel=1e-5)


def test_estimated_discounts_agree_with_the_slow_model() -> None:
    """A text large enough that every length has runs of one to four occurrences."""
    rng = np.random.default_rng(1)
    text = [rng.zipf(1.5, size=80).clip(max=400).tolist() for _ in range(60)]
    slow = SlowModel(text, 401, 3)
    assert all(d != [0, Fraction(1, 2), 1, Fraction(3, 2)] for d in slow.discounts)
    document = [*text[0][:12], 29, 399, 399]
    (nats,) = fit_ngrams(arrays(text), vocab_size=401, order=3).token_nats(arrays([document]))
    words: Words = ("<s>", *document, "</s>")
    wanted = [-math.log(slow.p(words[place], words[:place])) for place in range(1, len(words))]
    assert nats.tolist() == pytest.approx(wanted, rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(TEXT, st.lists(st.integers(0, 3), max_size=5))
def test_probabilities_sum_to_one(fitted: list[list[int]], history: list[int]) -> None:
    model = fit_ngrams(arrays(fitted), vocab_size=4, order=3)
    at = len(history)
    words = [float(np.exp(-model.token_nats(arrays([[*history, w]]))[0][at])) for w in range(4)]
    end = float(np.exp(-model.token_nats(arrays([history]))[0][at]))
    assert sum(words) + end == pytest.approx(1.0, rel=1e-5)


def test_the_mean_is_over_tokens_and_the_end_whatever_the_batch() -> None:
    rng = np.random.default_rng(0)
    text = [rng.integers(0, 9, size=20) for _ in range(10)]
    model = fit_ngrams(text, vocab_size=9, order=4)
    alone = [float(model.mean_nats([document])[0]) for document in text]
    assert model.mean_nats(text).tolist() == alone
    assert alone[0] == pytest.approx(float(model.token_nats(text)[0].sum()) / 21)


def test_no_text_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs text"):
        fit_ngrams([], vocab_size=4, order=2)
