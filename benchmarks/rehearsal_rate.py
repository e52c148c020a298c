"""The sampling loop of `rehearse` against transformers' `generate`, same model, batch and lengths.

The two take turns and are compared pair by pair, so that other work on the machine weighs on both.
Texts that end by themselves are counted up to their end: `generate` goes on computing them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from record import Figure, write_results
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from rewarm.model.load import quiet_transformers
from rewarm.retention import sampling
from rewarm.retention.sampling import Choice, sample_batch, uniforms

NUM_ROWS, NUM_TOKENS, VOCAB, END = 32, 256, 4096, 1
NUM_PAIRS = 5


def model_that_ends(mean_tokens: int | None) -> LlamaForCausalLM:
    """Return a random model of 2.6M parameters; its texts have `mean_tokens` on average."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=END,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).eval()
    head = torch.nn.Linear(192, VOCAB)
    with torch.no_grad():
        head.weight.copy_(model.lm_head.weight)
        head.bias.zero_()
        # All logits being near 0, the end has the probability 1 / mean_tokens.
        head.bias[END] = -30.0 if mean_tokens is None else float(np.log(VOCAB / mean_tokens))
    model.lm_head = head
    return model


def seconds(act: Callable[[], int]) -> tuple[float, int]:
    """Return the seconds that `act` takes and the tokens that it makes."""
    started = time.perf_counter()
    num_tokens = act()
    return time.perf_counter() - started, num_tokens


def rates_of(name: str, mean_tokens: int | None) -> list[Figure]:
    """Return the figures of one kind of text."""
    prompt = torch.zeros(NUM_ROWS, 1, dtype=torch.int64)
    prompts = [np.zeros(1, dtype=np.int64)] * NUM_ROWS
    model = model_that_ends(mean_tokens)
    count = iter(range(10_000))

    def ours() -> int:
        random = uniforms(1, next(count), (NUM_TOKENS, NUM_ROWS))
        found = sample_batch(model, prompts, random, Choice(), end=(END,))
        return int(found.lengths.sum()) - NUM_ROWS

    def library() -> int:
        torch.manual_seed(next(count))
        with torch.no_grad(), quiet_transformers():
            ids = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=True,
                top_k=0,
                max_new_tokens=NUM_TOKENS - 1,
            )
        ends = (ids[:, 1:] == END).int()
        lengths = torch.where(ends.any(1), ends.argmax(1) + 1, ids.shape[1] - 1)
        return int(lengths.sum())

    def with_the_librarys_cache() -> int:
        kept = sampling.new_cache  # type: ignore[attr-defined]
        sampling.new_cache = lambda model: DynamicCache(  # type: ignore[attr-defined]
            config=model.config
        )
        try:
            return ours()
        finally:
            sampling.new_cache = kept  # type: ignore[attr-defined]

    acts = (ours, library, with_the_librarys_cache)
    for act in acts:
        act()
    rounds = [[num / elapsed for elapsed, num in map(seconds, acts)] for _ in range(NUM_PAIRS)]
    rate = statistics.median(rates[0] for rates in rounds)
    return [
        Figure(f"{name}: rate", rate, "tokens/s", "higher"),
        Figure(
            f"{name}: ratio",
            statistics.median(rates[0] / rates[1] for rates in rounds),
            "",
            "higher",
            1.0,
            "transformers' generate",
        ),
        Figure(
            f"{name}: ratio of caches",
            statistics.median(rates[0] / rates[2] for rates in rounds),
            "",
            "higher",
            1.0,
            "the same loop with transformers' DynamicCache",
        ),
    ]


def main() -> None:
    figures = []
    for name, mean_tokens in (("no text ends", None), ("texts of 96 tokens", 96)):
        figures += rates_of(name, mean_tokens)
    write_results("rehearsal_rate", figures)


if __name__ == "__main__":
    main()
