"""The evaluator against independent loops over plain forward passes, and as an instrument."""

import itertools
import typing
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from rewarm.errors import BaseModelError
from rewarm.evaluation.answers import QuestionAnswer, answer_bits_per_byte, answer_contrast
from rewarm.evaluation.held_out import bits_per_byte, matched_continuation
from rewarm.evaluation.likelihood import evaluate
from rewarm.evaluation.measure import Built
from rewarm.evaluation.passages import IGNORED
from rewarm.evaluation.suite import EvaluationSuite, build_suite
from rewarm.evaluation.tasks import (
    ClozeItem,
    MinimalPair,
    Normalisation,
    TaskItem,
    cloze,
    cloze_bits_per_byte,
    minimal_pairs,
    multiple_choice,
)
from rewarm.model import loss
from rewarm.records.facts import EvalRecord, Metric
from tests.support.held_out import BEGIN, FRAMING, ListedDocuments, byte_tokenizer, random_bodies

VOCAB_SIZE = 260  # the byte tokenizer's, and a few


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        attention_dropout=0.3,
        initializer_range=0.2,  # far from uniform, so that a wrong context shows
    )
    llama: nn.Module = LlamaForCausalLM(config).train()
    return llama


def domain(lengths: list[int], *, seed: int = 0) -> Built:
    documents = ListedDocuments(random_bodies(lengths, vocab_size=VOCAB_SIZE, seed=seed))
    return bits_per_byte(documents, domain="web", role="general", framing=FRAMING, max_bytes=10**6)


def suite_of(built: Built, *, sequence_length: int = 64, **settings: Any) -> EvaluationSuite:
    return build_suite([built], sequence_length=sequence_length, **settings)


@torch.no_grad()
def nats_of_next(model: nn.Module, context: list[int], token: int) -> float:
    """−log p(token | context) by a plain forward pass over exactly this context."""
    logits = model.eval()(torch.tensor([context])).logits[0, -1].double()
    model.train()
    return float(-torch.log_softmax(logits, dim=-1)[token])


def test_bits_per_byte_is_that_of_a_loop_over_tokens_with_full_contexts(model: nn.Module) -> None:
    bodies = random_bodies([1, 9, 4, 14, 2], vocab_size=VOCAB_SIZE)
    (record,) = evaluate(model, suite_of(domain([1, 9, 4, 14, 2])), step=0)
    nats = sum(
        nats_of_next(model, [BEGIN, *body[:place]], token)
        for body in bodies
        for place, token in enumerate(body)
    )
    num_bytes = 3 * sum(map(len, bodies))
    assert record.value == pytest.approx(nats / (np.log(2) * num_bytes), rel=1e-6)
    assert sum(record.item_weights) == num_bytes


def test_long_documents_are_scored_in_the_stated_windows(model: nn.Module) -> None:
    length, sequence_length, stride = 40, 12, 4
    (body,) = random_bodies([length], vocab_size=VOCAB_SIZE)
    suite = suite_of(domain([length]), sequence_length=sequence_length, stride_fraction=1 / 3)
    (record,) = evaluate(model, suite, step=0)
    text = [BEGIN, *body]
    expected = 0.0
    for place in range(1, len(text)):
        num_advances = max(0, -(-(place - sequence_length) // stride))
        expected += nats_of_next(model, text[num_advances * stride : place], text[place])
    assert record.item_values[0] == pytest.approx(expected, rel=1e-6)


def test_same_weights_same_figure_whatever_the_batch_size(model: nn.Module) -> None:
    built = domain([3, 60, 17, 90, 31, 8, 45, 64, 65, 1])
    records = [
        evaluate(model, suite_of(built, tokens_per_batch=tokens_per_batch), step=0)[0]
        for tokens_per_batch in (1, 130, 100_000)
    ]
    for record in records[1:]:
        assert record.value == pytest.approx(records[0].value, rel=1e-6)
        assert record.item_values == pytest.approx(records[0].item_values, rel=1e-6)
        assert record.items_key == records[0].items_key


def every_kind() -> list[Built]:
    """A measure of each kind, of items of many lengths, so that each batch mixes them."""
    words = ["a", "some", "several words", "a rather long list of words that goes on and on"]
    how: dict[str, Any] = {"tokenizer": byte_tokenizer(), "framing": FRAMING}
    asked = [QuestionAnswer(f"{word}?", words[-1 - n]) for n, word in enumerate(words)]
    bodies = random_bodies([40, 31, 66, 90, 33, 50], vocab_size=VOCAB_SIZE)
    choices = [TaskItem(word, tuple(words), n) for n, word in enumerate(words)]
    return [
        matched_continuation(
            ListedDocuments(bodies),
            domain="next",
            role="new",
            framing=FRAMING,
            num_items=6,
            sequence_length=64,
            context_tokens=20,
            continuation_tokens=9,
        ),
        answer_bits_per_byte(asked, domain="qa", role="qa", max_items=9, **how),
        answer_contrast(asked, domain="qa", role="qa", max_items=9, **how),
        *(
            multiple_choice(choices, domain=f"choice by {kind}", normalise=kind, **how)
            for kind in typing.get_args(Normalisation)
        ),
        cloze([ClozeItem(w, w[::-1]) for w in words], domain="cloze", **how),
        cloze_bits_per_byte([ClozeItem(w, w[::-1]) for w in words], domain="cloze", **how),
        minimal_pairs([MinimalPair(w, w[::-1] + " x") for w in words], domain="pairs", **how),
    ]


def test_figures_of_every_kind_do_not_depend_on_the_batch_size(model: nn.Module) -> None:
    one_by_one, few, whole = (
        evaluate(
            model, build_suite(every_kind(), sequence_length=64, tokens_per_batch=size), step=0
        )
        for size in (1, 150, 100_000)
    )
    measured = {record.metric for record in whole}
    assert measured == set(typing.get_args(Metric)) - {
        "bits_per_byte",  # above
        "chat_bits_per_byte",  # answers, told apart by another template
        "task_score",  # the harness's, in test_harness.py
        "task_loss",
        "task_perplexity",
    }
    for records in (one_by_one, few):
        for found, expected in zip(records, whole, strict=True):
            where = (found.metric, found.domain)
            assert found.value == pytest.approx(expected.value, rel=1e-6, abs=1e-6), where
            assert found.item_values == pytest.approx(expected.item_values, rel=1e-6, abs=1e-6), (
                where
            )


def test_answers_are_that_of_a_loop_over_the_answers_bytes(model: nn.Module) -> None:
    tokenizer = byte_tokenizer()
    built = answer_bits_per_byte(
        [QuestionAnswer("Où?", "ici.")],
        domain="qa",
        role="qa",
        tokenizer=tokenizer,
        framing=FRAMING,
        max_items=9,
    )
    (record,) = evaluate(model, suite_of(built), step=0)
    prompt = [BEGIN, *tokenizer.encode("Question: Où?\nAnswer:").ids]
    answer = tokenizer.encode(" ici.").ids
    nats = sum(
        nats_of_next(model, prompt + answer[:place], token) for place, token in enumerate(answer)
    )
    assert record.value == pytest.approx(nats / (np.log(2) * 5), rel=1e-6)


def test_a_contrast_is_two_figures_of_answers_apart(model: nn.Module) -> None:
    def measured(built: Built) -> EvalRecord:
        return evaluate(model, suite_of(built), step=0)[0]

    given = [QuestionAnswer("Où?", "ici."), QuestionAnswer("Who?", "I alone.")]
    swapped = [QuestionAnswer("Who?", "ici."), QuestionAnswer("Où?", "I alone.")]
    how: dict[str, Any] = {"tokenizer": byte_tokenizer(), "framing": FRAMING, "max_items": 9}
    own, other = (
        measured(answer_bits_per_byte(items, domain="qa", role="qa", **how))
        for items in (given, swapped)
    )
    contrast = measured(answer_contrast(given, domain="qa", role="qa", **how))
    assert contrast.value == pytest.approx(own.value - other.value, rel=1e-5)
    assert contrast.value != 0


def test_a_cloze_is_right_where_greedy_decoding_writes_the_target() -> None:
    tokenizer = byte_tokenizer()
    # A rigged model, whose likeliest byte always is the one that follows in the alphabet.
    table = torch.zeros(VOCAB_SIZE, VOCAB_SIZE)
    ids = [tokenizer.encode(letter).ids[0] for letter in " abcdef"]
    for token, following in itertools.pairwise(ids):
        table[token, following] = 5.0
    start = tokenizer.encode("x").ids[0]
    table[start, ids[0]] = 5.0
    built = cloze(
        [ClozeItem("x", "abc"), ClozeItem("x", "abd"), ClozeItem("y", "abc"), ClozeItem("x", "a")],
        domain="alphabet",
        tokenizer=tokenizer,
        framing=FRAMING,
    )
    (record,) = evaluate(Rigged(table), suite_of(built), step=0)
    assert record.item_values == (1.0, 0.0, 0.0, 1.0)


def test_one_suite_gives_one_record_per_measure_and_reports_its_progress(model: nn.Module) -> None:
    tokenizer = byte_tokenizer()
    documents = ListedDocuments(random_bodies([80] * 5, vocab_size=VOCAB_SIZE))
    suite = build_suite(
        [
            domain([5, 6]),
            matched_continuation(
                documents,
                domain="web",
                role="general",
                framing=FRAMING,
                num_items=5,
                sequence_length=80,
            ),
            multiple_choice(
                [TaskItem("Red?", ("yes", "no"), 0)],
                domain="colours",
                tokenizer=tokenizer,
                framing=FRAMING,
            ),
        ],
        sequence_length=80,
    )
    calls: list[tuple[int, int]] = []
    records = evaluate(model, suite, step=7, progress=lambda done, of: calls.append((done, of)))
    assert [(record.domain, record.metric) for record in records] == [
        ("web", "bits_per_byte"),
        ("web", "matched_continuation"),
        ("colours", "multiple_choice"),
    ]
    assert {record.step for record in records} == {7}
    assert calls == [(done, suite.num_batches) for done in range(1, suite.num_batches + 1)]


def test_autocast_is_near_and_not_the_same(model: nn.Module) -> None:
    suite = suite_of(domain([30, 40]))
    (exact,) = evaluate(model, suite, step=0)
    (rounded,) = evaluate(model, suite, step=0, autocast_dtype=torch.bfloat16)
    assert rounded.value != exact.value
    assert rounded.value == pytest.approx(exact.value, rel=0.02)


class Rigged(nn.Module):
    """A model whose logits are given by a table of (token, next token)."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table)

    def forward(self, input_ids: Tensor, **_: Any) -> SimpleNamespace:
        table: Any = self.table
        return SimpleNamespace(logits=table[input_ids])


def four_way(bodies: list[list[int]]) -> EvaluationSuite:
    built = matched_continuation(
        ListedDocuments(bodies),
        domain="web",
        role="general",
        framing=FRAMING,
        num_items=len(bodies),
        sequence_length=128,
    )
    return suite_of(built, sequence_length=128)


def test_a_model_that_knows_how_texts_go_on_always_finds_the_continuation() -> None:
    # Document d is written in tokens of class d alone; the model expects the class to stay.
    classes = torch.arange(100) // 10
    model = Rigged(5.0 * (classes[:, None] == classes[None, :]).float())
    generator = np.random.default_rng(0)
    bodies = [(10 * d + generator.integers(10, size=90)).tolist() for d in range(1, 10)]
    assert evaluate(model, four_way(bodies), step=0)[0].value == 1.0


def test_a_uniform_model_finds_it_by_chance() -> None:
    bodies = random_bodies([90] * 9, vocab_size=100)
    assert evaluate(Rigged(torch.zeros(100, 100)), four_way(bodies), step=0)[0].value == 0.25


def test_a_loss_that_is_not_finite_is_named() -> None:
    model = Rigged(torch.full((VOCAB_SIZE, VOCAB_SIZE), torch.nan))
    with pytest.raises(BaseModelError, match="'web' at step 3: the loss of 2 of 2 passages"):
        evaluate(model, suite_of(domain([5, 6])), step=3)


class Restless(nn.Module):
    """Draws random numbers in every forward pass and keeps what its first one built."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB_SIZE, 16)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(16, VOCAB_SIZE)
        self.scale: Tensor | None = None

    def forward(self, input_ids: Tensor, **_: Any) -> SimpleNamespace:
        if self.scale is None:
            self.scale = 2.0 * torch.ones(16)
        hidden = self.dropout(self.embedding(input_ids)) * self.scale
        return SimpleNamespace(logits=self.head(hidden) + 0.01 * torch.rand(VOCAB_SIZE))


@pytest.mark.parametrize("autocast_dtype", [None, torch.bfloat16])
def test_training_is_bit_identical_with_and_without_evaluation(
    autocast_dtype: torch.dtype | None,
) -> None:
    suite = suite_of(domain([5, 20]))

    def train(*, evaluated: bool) -> list[Tensor]:
        torch.manual_seed(1)
        model = Restless()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        for step in range(3):
            if evaluated:
                evaluate(model, suite, step=step, autocast_dtype=autocast_dtype)
            tokens = torch.randint(VOCAB_SIZE, (2, 9))
            logits = model(tokens[:, :-1]).logits
            F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
        return [parameter.detach() for parameter in model.parameters()]

    pairs = zip(train(evaluated=True), train(evaluated=False), strict=True)
    assert all(torch.equal(with_it, without) for with_it, without in pairs)


def test_every_module_is_put_back_into_its_own_mode_even_after_a_failure() -> None:
    model = Restless().train()
    model.dropout.eval()
    suite = suite_of(domain([5, 6]))
    evaluate(model, suite, step=0)
    assert (model.training, model.dropout.training, model.head.training) == (True, False, True)

    def interrupt(done: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(model, suite, step=0, progress=interrupt)
    assert (model.training, model.dropout.training, model.head.training) == (True, False, True)
    assert torch.is_grad_enabled()


def test_suites_and_losses_mean_the_same_by_an_ignored_label() -> None:
    assert IGNORED == loss.IGNORED


def test_dropout_is_off_and_the_same_weights_give_the_same_bits(model: nn.Module) -> None:
    suite = suite_of(domain([5, 20]))
    first, second = (evaluate(model, suite, step=0)[0] for _ in range(2))
    assert first.item_values == second.item_values
