"""Every scored token is scored once, with the least context that is promised."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewarm.evaluation.passages import IGNORED, Framing, Passage, cut_windows, stride_tokens


@given(
    num_tokens=st.integers(1, 80),
    num_context=st.integers(1, 80),
    sequence_length=st.integers(1, 20),
    stride_fraction=st.floats(0.05, 1.0),
)
def test_each_scored_token_is_scored_once_with_the_least_context(
    num_tokens: int, num_context: int, sequence_length: int, stride_fraction: float
) -> None:
    num_context = min(num_context, num_tokens)
    tokens = np.arange(100, 100 + num_tokens)
    stride = stride_tokens(sequence_length, stride_fraction)
    scored: list[int] = []
    passage = Passage(tokens, num_context)
    for window in cut_windows(passage, sequence_length=sequence_length, stride=stride):
        assert 1 <= len(window.input_ids) <= sequence_length
        places = np.flatnonzero(window.labels != IGNORED)
        assert len(places), "a window that scores nothing is not run"
        assert (window.labels[places] == window.input_ids[places] + 1).all(), "the next token"
        whole_past = window.labels[places] - 100
        least = np.minimum(whole_past, sequence_length - stride + 1)
        assert (places + 1 >= least).all()
        scored += window.labels[places].tolist()
    assert scored == tokens[num_context:].tolist()
    assert passage.num_scored == len(scored)


def test_a_short_passage_is_one_window_that_sees_all_before() -> None:
    (window,) = cut_windows(Passage(np.array([1, 5, 6, 7]), 2), sequence_length=8, stride=4)
    assert window.input_ids.tolist() == [1, 5, 6]
    assert window.labels.tolist() == [IGNORED, 6, 7]


def test_long_contexts_cost_only_the_windows_that_score() -> None:
    windows = list(cut_windows(Passage(np.arange(100), 99), sequence_length=10, stride=5))
    assert len(windows) == 1


@pytest.mark.parametrize(("fraction", "stride"), [(0.5, 8), (1.0, 16), (0.01, 1)])
def test_stride_is_at_least_one_token(fraction: float, stride: int) -> None:
    assert stride_tokens(16, fraction) == stride


@pytest.mark.parametrize(("length", "fraction"), [(0, 0.5), (16, 0.0), (16, 1.1)])
def test_senseless_strides_are_refused(length: int, fraction: float) -> None:
    with pytest.raises(ValueError, match="no stride"):
        stride_tokens(length, fraction)


@pytest.mark.parametrize("num_context", [0, 4])
def test_a_passage_begins_with_context(num_context: int) -> None:
    with pytest.raises(ValueError, match="cannot be context"):
        Passage(np.arange(3), num_context)


def test_the_frame_is_context_and_the_end_is_not_scored() -> None:
    framing = Framing((1,), (2,))
    body = framing.body(np.array([1, 7, 8, 2], dtype=np.uint16))
    passage = framing.passage(body)
    assert passage.tokens.tolist() == [1, 7, 8]
    assert passage.num_context == 1


def test_without_begin_tokens_the_end_of_the_document_before_is_the_context() -> None:
    framing = Framing((), (2, 3))
    passage = framing.passage(framing.body(np.array([7, 8, 2, 3])), num_context=1)
    assert passage.tokens.tolist() == [2, 3, 7, 8]
    assert passage.num_context == 3


def test_without_any_frame_there_is_nothing_to_score_a_first_token_by() -> None:
    with pytest.raises(ValueError, match="neither begin nor end tokens"):
        Framing((), ())


@pytest.mark.parametrize("document", [[7, 8, 2], [1, 7, 8], [1], []])
def test_documents_framed_otherwise_are_refused(document: list[int]) -> None:
    with pytest.raises(ValueError, match="not framed by"):
        Framing((1,), (2,)).body(np.array(document))
