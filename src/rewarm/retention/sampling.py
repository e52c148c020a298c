"""Text from a model, a batch at a time: a pure function of model, prompts and random numbers.

Rows go in lockstep from the first token, so there is no padding: a row whose prompt is not over is
given its next token instead of choosing one. Rows that are done are dropped from the batch. Row r
chooses its token at place t by the random number u[t, r] and by nothing else that is random, so the
same numbers give the same text whatever rows are beside it (up to the rounding of sums).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from rewarm.model.growing_cache import new_cache
from rewarm.model.modes import evaluating

__all__ = ["Choice", "Sampled", "choose_tokens", "sample_batch", "uniforms"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

# Dropping a row copies what is kept of all others: not for each one that is done.
_DROPPED_SHARE = 0.125


@dataclass(frozen=True, slots=True)
class Choice:
    """How a token is chosen from logits: temperature, then top_k, then top_p.

    `allowed` is bool [vocabulary]: ids that no text has are never chosen.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    allowed: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """A batch of texts, row by row.

    `tokens` int64 [rows, time], of which row r has `lengths[r]`, its prompt (`prompt_lengths[r]`)
    included; `ended` tells which rows chose the end. `nats` float64 [rows] sums −log p of the
    chosen tokens under the model itself (temperature 1, nothing cut off). `top_ids` int64 and
    `top_log_probs` float16, [rows, time, k], are the model's likeliest tokens at each place, given
    what stands before it; −inf where nothing does.
    """

    tokens: Integers
    lengths: Integers
    prompt_lengths: Integers
    ended: NDArray[np.bool_]
    nats: Floats
    top_ids: Integers
    top_log_probs: NDArray[np.float16]


def uniforms(seed: int, batch: int, shape: tuple[int, int]) -> Floats:
    """Return numbers in [0, 1) with 53 random bits, float64 of `shape`, for batch `batch`.

    From Philox's raw words, whose values numpy keeps for ever.
    """
    key = np.array([seed, batch], dtype=np.uint64)
    words = np.random.Philox(key=key).random_raw(shape[0] * shape[1])
    numbers: Floats = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return numbers.reshape(shape)


def choose_tokens(logits: Tensor, random: Tensor, choice: Choice) -> Tensor:
    """Return the token of each row: logits [rows, vocabulary], random [rows] in [0, 1).

    The first token whose cumulative probability exceeds the random number, in float64.
    """
    scores = logits.double() / choice.temperature
    if choice.allowed is not None:
        allowed = torch.from_numpy(choice.allowed).to(scores.device)
        scores = scores.masked_fill(~allowed, -torch.inf)
    if choice.top_k is None and choice.top_p >= 1.0:
        return _by_cumulative(torch.softmax(scores, dim=-1), random)
    num = min(choice.top_k or scores.shape[-1], scores.shape[-1])
    scores, order = scores.topk(num, dim=-1)
    probabilities = torch.softmax(scores, dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    probabilities = probabilities.masked_fill(before >= choice.top_p, 0.0)
    return order.gather(-1, _by_cumulative(probabilities, random)[:, None])[:, 0]


def _by_cumulative(probabilities: Tensor, random: Tensor) -> Tensor:
    cumulative = probabilities.cumsum(dim=-1)
    # Below the sum even where the product is rounded up: a token of probability 0 is never chosen.
    below = torch.nextafter(cumulative[:, -1], torch.zeros_like(random))
    wanted = torch.minimum(random * cumulative[:, -1], below)
    chosen = torch.searchsorted(cumulative, wanted[:, None], right=True)[:, 0]
    return chosen.clamp(max=probabilities.shape[-1] - 1)  # of what is not a number, none exceeds it


@torch.no_grad()
def sample_batch(
    model: nn.Module,
    prompts: Sequence[Integers],
    random: Floats,
    choice: Choice,
    *,
    end: Sequence[int],
    num_top: int = 0,
    watch: Callable[[int], None] | None = None,
) -> Sampled:
    """Return texts that go on from `prompts` (each of one token or more).

    `random` float64 [time, rows] also says how long a text may become, its prompt included. A text
    ends after the tokens `end`, which it keeps. `watch` is told, at every place, how many
    tokens were chosen so far.
    """
    with evaluating(model):
        writer = _Writer(model, prompts, random, choice, tuple(end), num_top)
        return writer.write(watch or (lambda num_tokens: None))


class _Writer:
    """The texts of one batch while they are written; tensors are [rows, time] on the device."""

    def __init__(
        self,
        model: nn.Module,
        prompts: Sequence[Integers],
        random: Floats,
        choice: Choice,
        end: tuple[int, ...],
        num_top: int,
    ) -> None:
        self._model = model
        self._choice = choice
        device = next(model.parameters()).device
        num_places, num_rows = random.shape
        self._random = torch.from_numpy(random).to(device)
        self._end = torch.tensor(end, dtype=torch.int64, device=device)
        self._prompt_lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        self._tokens = torch.zeros(num_rows, num_places, dtype=torch.int64, device=device)
        for row, prompt in enumerate(prompts):
            self._tokens[row, : len(prompt)] = torch.from_numpy(np.asarray(prompt, np.int64))
        self._lengths = torch.full((num_rows,), num_places, device=device)
        self._ended = torch.zeros(num_rows, dtype=torch.bool, device=device)
        self._nats = torch.zeros(num_rows, dtype=torch.float64, device=device)
        shape = (num_rows, num_places, num_top)
        self._top_ids = torch.zeros(shape, dtype=torch.int64, device=device)
        self._top_log_probs = torch.full(shape, -torch.inf, dtype=torch.float16, device=device)

    def write(self, watch: Callable[[int], None]) -> Sampled:
        """Write until every row has ended or is full."""
        num_tokens = 0
        cache = new_cache(self._model)
        rows = torch.arange(len(self._tokens), device=self._tokens.device)
        place = int(self._prompt_lengths.min())
        inputs = self._tokens[:, :place]
        while place < self._tokens.shape[1]:
            logits = self._model(input_ids=inputs, past_key_values=cache, use_cache=True).logits
            self._keep_top(rows, place, logits)
            num_tokens += self._put(rows, place, logits[:, -1].float())
            watch(num_tokens)
            place += 1
            alive = (~self._ended[rows]).nonzero()[:, 0]
            if not len(alive):
                break
            if len(alive) <= (1.0 - _DROPPED_SHARE) * len(rows):
                rows = rows[alive]
                cache.batch_select_indices(alive)
            inputs = self._tokens[rows, place - 1 : place]
        return self._result()

    def _put(self, rows: Tensor, place: int, logits: Tensor) -> int:
        """Choose (or take from the prompt) each row's token at a place, and note who has ended;
        return how many were chosen."""
        given = place < self._prompt_lengths[rows]
        chosen = choose_tokens(logits, self._random[place, rows], self._choice)
        chosen = torch.where(given, self._tokens[rows, place], chosen)
        counts = ~given & ~self._ended[rows]
        self._tokens[rows, place] = torch.where(self._ended[rows], 0, chosen)
        nats = F.cross_entropy(logits, chosen, reduction="none").double()
        self._nats[rows] += torch.where(counts, nats, 0.0)
        self._note_ends(rows, place + 1)
        return int(counts.sum())

    def _note_ends(self, rows: Tensor, stop: int) -> None:
        """Note which rows, `stop` tokens long, have just chosen the end."""
        start = stop - len(self._end)
        if not len(self._end) or start < 0:
            return
        chosen = start >= self._prompt_lengths[rows]
        is_end = (self._tokens[rows, start:stop] == self._end).all(dim=1)
        ends = is_end & chosen & ~self._ended[rows]
        self._lengths[rows] = torch.where(ends, stop, self._lengths[rows])
        self._ended[rows] |= ends

    def _keep_top(self, rows: Tensor, place: int, logits: Tensor) -> None:
        """Keep the likeliest tokens at the places that these logits [rows, n, v] predict."""
        num_top = self._top_ids.shape[-1]
        if not num_top:
            return
        log_probs = torch.log_softmax(logits.float(), dim=-1)
        values, ids = log_probs.topk(num_top, dim=-1)
        first = place + 1 - logits.shape[1]
        self._top_ids[rows, first : place + 1] = ids
        self._top_log_probs[rows, first : place + 1] = values.half()

    def _result(self) -> Sampled:
        return Sampled(
            tokens=self._tokens.cpu().numpy(),
            lengths=self._lengths.cpu().numpy(),
            prompt_lengths=self._prompt_lengths.cpu().numpy(),
            ended=self._ended.cpu().numpy(),
            nats=self._nats.cpu().numpy(),
            top_ids=self._top_ids.cpu().numpy(),
            top_log_probs=self._top_log_probs.cpu().numpy(),
        )
