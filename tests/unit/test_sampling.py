"""What is sampled is what the model's own probabilities say, cached or not, alone or in a batch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rewarm.errors import BaseModelError
from rewarm.model import growing_cache
from rewarm.model.growing_cache import check_cache, new_cache
from rewarm.retention.sampling import Choice, Sampled, choose_tokens, sample_batch, uniforms
from tests.support.tiny_models import FAMILIES, family_model

VOCAB = 320


def prompts_of(*rows: list[int]) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    return [np.array(row, dtype=np.int64) for row in rows]


def sample(model: nn.Module, num_rows: int = 4, time: int = 20, **more: Any) -> Sampled:
    prompts = more.pop("prompts", prompts_of(*[[0]] * num_rows))
    random = uniforms(more.pop("seed", 1), 0, (time, len(prompts)))
    return sample_batch(model, prompts, random, more.pop("choice", Choice()), end=(1,), **more)


# Numbers and choices, against literals and chi-square


def test_the_random_numbers_are_philoxs_for_ever() -> None:
    """Worked out from the published algorithm (Salmon et al. 2011), not from numpy."""
    assert uniforms(7, 3, (2, 2)).ravel().tolist() == [
        (word >> 11) / 2**53 for word in philox_words(key=(7, 3), num=4)
    ]
    assert (uniforms(7, 3, (5, 2)) != uniforms(7, 4, (5, 2))).all()
    assert (uniforms(7, 3, (5, 2)) != uniforms(8, 3, (5, 2))).all()


def philox_words(key: tuple[int, int], num: int) -> list[int]:
    words: list[int] = []
    mask = 2**64 - 1
    counter = 1  # numpy counts up before it gives out
    while len(words) < num:
        c, k = [counter, 0, 0, 0], list(key)
        for _ in range(10):
            one, two = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
            c = [two >> 64 ^ c[1] ^ k[0], two & mask, one >> 64 ^ c[3] ^ k[1], one & mask]
            k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
        words += c
        counter += 1
    return words[:num]


def test_a_choice_is_the_first_token_whose_cumulative_probability_exceeds_the_number() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.0, 0.25]])).repeat(5, 1)
    random = torch.tensor([0.0, 0.4999, 0.5001, 0.7501, 1 - 2**-53], dtype=torch.float64)
    assert choose_tokens(logits, random, Choice()).tolist() == [0, 0, 1, 3, 3]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(top_k=2), [2 / 3, 1 / 3, 0, 0, 0]),
        (Choice(top_p=0.55), [0.4 / 0.6, 0.2 / 0.6, 0, 0, 0]),
        (Choice(top_p=0.39), [1, 0, 0, 0, 0]),
        (Choice(top_k=3, top_p=0.9), [0.4 / 0.75, 0.2 / 0.75, 0.15 / 0.75, 0, 0]),
        (Choice(temperature=0.5), [0.16 / 0.255, 0.04 / 0.255, 0.0225 / 0.255, 0.0225 / 0.255,
                                   0.01 / 0.255]),
        (Choice(allowed=np.array([False, True, True, True, True])),
         [0, 1 / 3, 0.25, 0.25, 1 / 6]),
    ],
)  # fmt: skip
def test_what_is_cut_off_and_sharpened(choice: Choice, expected: list[float]) -> None:
    """Expected by hand from p = 0.4, 0.2, 0.15, 0.15, 0.1; counts agree within 5 sigma."""
    num = 40_000
    logits = torch.log(torch.tensor([[0.4, 0.2, 0.15, 0.15, 0.1]])).repeat(num, 1)
    random = torch.from_numpy(uniforms(3, 0, (1, num))[0])
    counts = np.bincount(choose_tokens(logits, random, choice).numpy(), minlength=5)
    for count, p in zip(counts, expected, strict=True):
        assert abs(count - num * p) <= 5 * math.sqrt(num * p * (1 - p)) + 1e-9


def test_token_frequencies_are_the_models_own() -> None:
    """Chi-square of first tokens, and of second tokens given the likeliest first one."""
    model = family_model("llama", vocab_size=24)
    with torch.no_grad():
        first = torch.softmax(model(torch.tensor([[0]])).logits[0, -1].double(), -1).numpy()
        likeliest = int(first.argmax())
        given = model(torch.tensor([[0, likeliest]])).logits[0, -1].double()
        second = torch.softmax(given, -1).numpy()
    num = 20_000
    random = uniforms(5, 0, (3, num))
    found = sample_batch(model, prompts_of(*[[0]] * num), random, Choice(), end=())
    assert chi_square(found.tokens[:, 1], first) < 1
    chosen = found.tokens[found.tokens[:, 1] == likeliest, 2]
    assert len(chosen) > 1000
    assert chi_square(chosen, second) < 1
    assert chi_square(chosen, first) > 5, "the test sees another distribution"


def chi_square(tokens: Any, probabilities: Any) -> float:
    """Return the statistic over its 0.9999 quantile (Wilson and Hilferty); below 1 is agreement."""
    counts = np.bincount(tokens, minlength=len(probabilities))
    expected = len(tokens) * probabilities
    keep = expected >= 5
    statistic = float((((counts - expected) ** 2) / expected)[keep].sum())
    degrees = int(keep.sum()) - 1
    quantile = degrees * (1 - 2 / (9 * degrees) + 3.719 * math.sqrt(2 / (9 * degrees))) ** 3
    return statistic / quantile


# The cache, against forward passes without one


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_are_scored_as_without_a_cache(family: str) -> None:
    """Nats and top log-probabilities of every place, against one pass over each whole text."""
    model = family_model(family)
    assert model.training
    prompts = prompts_of([0], [0, 5, 9], [0, 7], [0, 8, 3, 4, 6])
    found = sample(model, prompts=prompts, time=24, num_top=4)
    assert model.training, "the mode is put back"
    assert found.ended.any() or (found.lengths == 24).all()
    model.eval()
    for row, length in enumerate(found.lengths.tolist()):
        ids = torch.from_numpy(found.tokens[row, :length])
        assert ids[: len(prompts[row])].tolist() == prompts[row].tolist()
        with torch.no_grad():
            log_probs = torch.log_softmax(model(ids[None], use_cache=False).logits[0], -1)
        start = len(prompts[row])
        nats = -log_probs[range(start - 1, length - 1), ids[start:]].double().sum()
        assert found.nats[row] == pytest.approx(float(nats), rel=1e-4)
        values, top = log_probs[:-1].topk(4)
        stored = found.top_log_probs[row, 1:length].astype(np.float32)
        np.testing.assert_allclose(stored, values.numpy(), atol=2e-2, rtol=2e-3)
        likeliest = found.top_ids[row, 1:length, 0]
        agree = likeliest == top[:, 0].numpy()
        close = (values[:, 0] - values[:, 1]).numpy() < 1e-4
        assert (agree | close).all()
        assert (found.top_log_probs[row, 0] == -np.inf).all(), "nothing predicts a first token"


def test_a_text_is_the_same_alone_and_beside_others() -> None:
    """Rows differ in length of prompt and of text, so that rows are dropped on the way."""
    model = family_model("llama", vocab_size=24).double()
    prompts = prompts_of(*[[0, *range(2, 2 + row % 4)] for row in range(24)])
    random = uniforms(2, 0, (60, 24))
    together = sample_batch(model, prompts, random, Choice(), end=(1,))
    assert 3 < together.ended.sum() < 24
    for row in (0, 3, int(together.ended.argmax()), int(together.lengths.argmax())):
        alone = sample_batch(model, [prompts[row]], random[:, [row]], Choice(), end=(1,))
        length = int(together.lengths[row])
        assert alone.lengths[0] == length
        assert alone.tokens[0, :length].tolist() == together.tokens[row, :length].tolist()


def test_an_end_of_several_tokens_must_be_chosen_whole() -> None:
    model = family_model("llama", vocab_size=4)
    prompts = prompts_of(*[[0, 2, 3]] * 16)
    found = sample_batch(model, prompts, uniforms(1, 0, (40, 16)), Choice(), end=(2, 3))
    assert found.ended.any()
    for row in range(16):
        text = found.tokens[row, : found.lengths[row]].tolist()
        pairs = [place for place in range(3, len(text) - 1) if text[place : place + 2] == [2, 3]]
        assert pairs == ([len(text) - 2] if found.ended[row] else [])


def test_the_same_numbers_give_the_same_bits() -> None:
    model = family_model("llama")
    one, other = (sample(model, num_rows=9, time=50, num_top=3) for _ in range(2))
    assert (one.tokens == other.tokens).all()
    assert (one.nats == other.nats).all()
    assert (one.top_log_probs == other.top_log_probs).all()
    assert (one.tokens != sample(model, num_rows=9, time=50, seed=2).tokens).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_passes_the_check(family: str) -> None:
    check_cache(family_model(family), vocab_size=VOCAB)


def test_a_cache_that_changes_predictions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful:
        """A cache that lost a row's place."""

        def __new__(cls, model: nn.Module) -> Any:
            cache = new_cache(model)
            cache.batch_select_indices = lambda rows: type(cache).batch_select_indices(
                cache, rows.flip(0)
            )
            return cache

    monkeypatch.setattr(growing_cache, "new_cache", Forgetful)
    with pytest.raises(BaseModelError, match="with its keys and values kept it predicts otherwise"):
        check_cache(family_model("llama"), vocab_size=VOCAB)


def test_the_room_of_the_cache_grows(tmp_path: Path) -> None:
    """Beyond the first buffer, against a pass without a cache."""
    model = family_model("llama", max_position_embeddings=700)
    found = sample_batch(model, prompts_of([0], [0]), uniforms(1, 0, (600, 2)), Choice(), end=())
    ids = torch.from_numpy(found.tokens)
    with torch.no_grad():
        log_probs = torch.log_softmax(model(ids, use_cache=False).logits.double(), -1)
    nats = -log_probs[:, :-1].gather(-1, ids[:, 1:, None]).sum((1, 2))
    np.testing.assert_allclose(found.nats, nats.numpy(), rtol=1e-5)
