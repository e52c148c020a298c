"""What each metric scores, and how nats become its figure; no model is needed for either."""

import math
from collections import Counter

import numpy as np
import pytest

from rewarm.evaluation.answers import (
    QuestionAnswer,
    answer_bits_per_byte,
    answer_contrast,
    continuation_passages,
    question_answer_text,
)
from rewarm.evaluation.held_out import bits_per_byte, matched_continuation
from rewarm.evaluation.measure import Measure, share_of_best
from rewarm.evaluation.selection import choose_documents, keyed_order
from rewarm.evaluation.suite import EvaluationSuite, build_suite
from tests.support.held_out import (
    BEGIN,
    FRAMING,
    ListedDocuments,
    byte_tokenizer,
    random_bodies,
    unsplit_tokenizer,
)


def documents_of_bytes(*sizes: int) -> ListedDocuments:
    return ListedDocuments([[9] * size for size in sizes], bytes_per_token=1)


def only(built: tuple[Measure | None, tuple[str, ...]]) -> Measure:
    measure, warnings = built
    assert measure is not None
    assert warnings == ()
    return measure


# Which documents


def test_order_is_a_permutation_fixed_by_its_purpose() -> None:
    order = keyed_order(200, "held-out documents")
    assert sorted(order) == list(range(200))
    assert order[:8] == [196, 18, 160, 100, 130, 60, 123, 121]
    assert order != keyed_order(200, "answers")
    assert keyed_order(100, "answers") == [i for i in keyed_order(200, "answers") if i < 100]


def test_whole_documents_are_taken_in_keyed_order_up_to_the_cap() -> None:
    sizes = [10, 20, 30, 40, 50, 60]
    chosen, warnings = choose_documents(documents_of_bytes(*sizes), max_bytes=100)
    order = keyed_order(6, "held-out documents")
    assert chosen == order[: len(chosen)]
    assert sum(sizes[i] for i in chosen) <= 100 < sum(sizes[i] for i in order[: len(chosen) + 1])
    assert warnings == []


def test_documents_above_the_cap_are_passed_over_with_a_warning() -> None:
    chosen, warnings = choose_documents(documents_of_bytes(500, 10, 0, 700), max_bytes=100)
    assert chosen == [1]
    assert warnings == ["2 of 3 held-out documents are larger than 100 B and are not scored"]


def test_where_all_exceed_the_cap_the_shortest_is_scored_whole() -> None:
    chosen, warnings = choose_documents(documents_of_bytes(500, 300, 700), max_bytes=100)
    assert chosen == [1]
    assert "only the shortest (300 B) is scored" in warnings[0]


# Bits per byte


def test_bits_per_byte_is_nats_over_all_bytes() -> None:
    documents = ListedDocuments([[5, 6], *[[7, 8, 9, 10]] * 5], bytes_per_token=3)
    measure = only(
        bits_per_byte(documents, domain="web", role="general", framing=FRAMING, max_bytes=100)
    )
    record = measure.record(np.array([2.0, 3.0, 1.0, 4.0, 1.0, 2.0]), step=3, seconds=0.5)
    assert record.value == pytest.approx(13.0 / (66 * math.log(2)))
    assert record.item_values == (2.0, 3.0, 1.0, 4.0, 1.0, 2.0)
    assert sorted(record.item_weights) == [6, 12, 12, 12, 12, 12]
    assert (record.step, record.domain, record.metric) == (3, "web", "bits_per_byte")
    assert record.chance is None


def test_one_document_leaves_the_standard_error_unknown() -> None:
    measure, warnings = bits_per_byte(
        ListedDocuments([[5, 6]]), domain="web", role="new", framing=FRAMING, max_bytes=100
    )
    assert measure is not None
    assert "held-out documents scored: 1; a verdict needs 6" in warnings[0]
    assert measure.record(np.array([2.0]), step=0, seconds=0.0).standard_error is None


@pytest.mark.parametrize("bodies", [[], [[]]])
def test_a_domain_without_held_out_text_is_left_out_with_a_warning(bodies: list[list[int]]) -> None:
    built = bits_per_byte(
        ListedDocuments(bodies), domain="web", role="new", framing=FRAMING, max_bytes=100
    )
    assert built == (None, ("web: no held-out text",))


def test_records_are_told_apart_by_what_was_scored() -> None:
    def key(token: int) -> str:
        documents = ListedDocuments([[5, token]] * 6)
        return only(
            bits_per_byte(documents, domain="web", role="new", framing=FRAMING, max_bytes=100)
        ).items_key

    assert key(7) == key(7)
    assert key(7) != key(8)


# Answers


@pytest.mark.parametrize("answer", ["Paris", "naïve ☕", "日本", "a  b\n"])
def test_answer_tokens_carry_exactly_the_bytes_of_the_answer(answer: str) -> None:
    text = question_answer_text("Où est-ce?", answer)
    (passage,) = continuation_passages([text], byte_tokenizer(), FRAMING)
    assert text.num_bytes == len(f" {answer}".encode())
    assert passage.num_scored == text.num_bytes
    assert passage.tokens[0] == BEGIN


def test_a_token_that_straddles_the_boundary_is_the_answers_and_bytes_are_not() -> None:
    text = question_answer_text("Q", "yes")
    tokenizer = unsplit_tokenizer("Question: Q\nAnswer: yes")
    (passage,) = continuation_passages([text], tokenizer, FRAMING)
    assert passage.num_scored == 1, "the text is a single token, which reaches into the answer"
    assert text.num_bytes == len(b" yes")


def test_truncation_and_padding_of_the_tokenizer_file_are_ignored() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=500)
    texts = [question_answer_text("Where?", "There"), question_answer_text("Who?", "I")]
    passages = continuation_passages(texts, tokenizer, FRAMING)
    assert [passage.num_scored for passage in passages] == [6, 2]
    assert tokenizer.truncation is not None, "the caller's tokenizer is left as it is"


def test_answers_are_weighted_by_bytes_chosen_by_key_and_blank_ones_left_out() -> None:
    items = [QuestionAnswer(f"q{i}", "a" * (i + 1)) for i in range(10)]
    items.append(QuestionAnswer("blank", "  "))
    measure, warnings = answer_bits_per_byte(
        items, domain="qa", role="qa", tokenizer=byte_tokenizer(), framing=FRAMING, max_items=4
    )
    assert measure is not None
    assert warnings == ("qa: blank answers, not scored: 1",)
    chosen = [i for i in keyed_order(11, "answers") if i < 10][:4]
    assert measure.weights == tuple(i + 2 for i in chosen)
    assert measure.metric == "answer_bits_per_byte"


def test_no_answers_no_measure() -> None:
    built = answer_bits_per_byte(
        [], domain="qa", role="qa", tokenizer=byte_tokenizer(), framing=FRAMING, max_items=4
    )
    assert built == (None, ("qa: no held-out answers",))


def test_a_contrast_is_own_question_less_anothers_item_by_item() -> None:
    items = [QuestionAnswer(q, a) for q, a in (("q0", "a"), ("q0", "bb"), ("q0", "c"), ("q1", "d"))]
    measure, _ = answer_contrast(
        items, domain="de", role="qa", tokenizer=byte_tokenizer(), framing=FRAMING, max_items=9
    )
    plain, _ = answer_bits_per_byte(
        items, domain="de", role="qa", tokenizer=byte_tokenizer(), framing=FRAMING, max_items=9
    )
    assert measure is not None
    assert plain is not None
    assert measure.weights == plain.weights
    own, other = measure.passages[:4], measure.passages[4:]
    for mine, others, same in zip(own, other, plain.passages, strict=True):
        assert mine.tokens.tolist() == same.tokens.tolist()
        scored = mine.tokens[mine.num_context :].tolist()
        assert others.tokens[others.num_context :].tolist() == scored, "the answer is the same"
        assert others.tokens.tolist() != mine.tokens.tolist(), "the question is another"
    values = measure.item_values(np.array([3.0, 5.0, 7.0, 9.0, 4.0, 5.0, 6.0, 11.0]))
    assert values.tolist() == [-1.0, 0.0, 1.0, -2.0]


def test_a_contrast_wants_two_questions() -> None:
    built = answer_contrast(
        [QuestionAnswer("q", "a"), QuestionAnswer("q", "b")],
        domain="de",
        role="qa",
        tokenizer=byte_tokenizer(),
        framing=FRAMING,
        max_items=9,
    )
    assert built == (None, ("de: no two held-out questions that differ",))


# Matched continuation


def continuation_measure(
    num_documents: int, num_items: int, *, sequence_length: int = 128, length: int = 90
) -> tuple[Measure | None, tuple[str, ...]]:
    bodies = random_bodies([length] * num_documents, vocab_size=500)
    return matched_continuation(
        ListedDocuments(bodies),
        domain="web",
        role="general",
        framing=FRAMING,
        num_items=num_items,
        sequence_length=sequence_length,
    )


def test_each_continuation_is_once_the_truth_and_three_times_a_distractor() -> None:
    measure = only(continuation_measure(6, 6))
    conditional, alone = measure.passages[:24], measure.passages[24:]
    assert {len(passage.tokens) for passage in conditional} == {1 + 48 + 24}
    assert {passage.num_context for passage in conditional} == {1 + 48}
    assert {passage.num_context for passage in alone} == {1}
    endings = Counter(tuple(passage.tokens[-24:]) for passage in conditional)
    assert endings == {tuple(passage.tokens[1:]): 4 for passage in alone}
    for item in range(6):
        contexts = {tuple(p.tokens[:49]) for p in conditional[4 * item : 4 * item + 4]}
        assert len(contexts) == 1
        assert tuple(conditional[4 * item].tokens[-24:]) == tuple(alone[item].tokens[1:])


def test_the_choice_is_by_pointwise_mutual_information() -> None:
    measure = only(continuation_measure(4, 4))
    conditional = np.full((4, 4), 50.0)
    conditional[0] = [50.0, 40.0, 50.0, 50.0]  # likelier, but as likely without the context
    conditional[:, 0] -= 5.0
    alone = np.array([50.0, 35.0, 50.0, 50.0])
    record = measure.record(np.concatenate([conditional.ravel(), alone]), step=0, seconds=0.0)
    # item 1's own continuation is the one that is likely anywhere: 35 − 45 against 50 − 50
    assert record.item_values == (1.0, 0.0, 1.0, 1.0)
    assert record.value == 0.75
    assert record.chance == 0.25
    assert record.standard_error == pytest.approx(math.sqrt(0.75 * 0.25 / 3))


def test_a_model_that_tells_nothing_apart_has_exactly_chance() -> None:
    measure = only(continuation_measure(5, 5))
    record = measure.record(np.full(25, 24 * 6.0), step=0, seconds=0.0)
    assert record.value == 0.25


def test_fewer_long_documents_give_fewer_items_and_a_warning() -> None:
    measure, warnings = continuation_measure(6, 100)
    assert measure is not None
    assert len(measure.weights) == 6
    assert warnings == (
        "web: 6 instead of 100 matched continuations, no more held-out documents have 72 tokens",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_documents": 3, "num_items": 10}, "3 items .* are too few"),
        ({"num_documents": 9, "num_items": 10, "length": 71}, "0 items .* are too few"),
        ({"num_documents": 9, "num_items": 9, "sequence_length": 71}, "a sequence has fewer"),
    ],
)
def test_where_there_is_nothing_to_choose_the_metric_is_left_out(
    arguments: dict[str, int], message: str
) -> None:
    measure, warnings = continuation_measure(**arguments)
    assert measure is None
    with pytest.raises(ValueError, match=message):
        raise ValueError(*warnings)


def test_ties_share_the_point() -> None:
    assert share_of_best(np.array([1.0, 2.0, 0.0]), 1) == 1.0
    assert share_of_best(np.array([2.0, 2.0, 0.0]), 0) == 0.5
    assert share_of_best(np.array([1.0, 2.0, 0.0]), 0) == 0.0


# Suites


def suite_of(lengths: list[int], *, tokens_per_batch: int) -> EvaluationSuite:
    documents = ListedDocuments(random_bodies(lengths, vocab_size=500))
    built = bits_per_byte(documents, domain="web", role="general", framing=FRAMING, max_bytes=10**6)
    return build_suite([built], sequence_length=16, tokens_per_batch=tokens_per_batch)


@pytest.mark.parametrize("tokens_per_batch", [1, 32, 40, 10_000])
def test_batches_hold_every_window_once_within_the_budget(tokens_per_batch: int) -> None:
    lengths = [1, 3, 5, 8, 16, 17, 40, 2]
    suite = suite_of(lengths, tokens_per_batch=tokens_per_batch)
    (batched,) = suite.measures
    scored: Counter[int] = Counter()
    for batch in batched.batches:
        assert batch.input_ids.size <= max(tokens_per_batch, batch.input_ids.shape[1])
        for row, passage in enumerate(batch.passage.tolist()):
            scored[passage] += int((batch.labels[row] >= 0).sum())
    assert sorted(scored.values()) == sorted(lengths)
    assert suite.num_tokens == sum(batch.input_ids.size for batch in batched.batches)
    assert suite.num_batches == len(batched.batches)


def test_a_suite_gathers_measures_and_warnings() -> None:
    suite = build_suite(
        [continuation_measure(3, 3), continuation_measure(5, 5)],  # type: ignore[list-item]
        sequence_length=128,
    )
    assert len(suite.measures) == 1
    assert len(suite.warnings) == 1
