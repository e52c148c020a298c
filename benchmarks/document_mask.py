"""Training with documents of a sequence kept apart against plain causal attention, taking turns."""

from __future__ import annotations

import statistics
import time

import torch
from record import Figure, write_results
from transformers import LlamaConfig, LlamaForCausalLM

from rewarm.model.loss import sum_of_token_losses

NUM_PAIRS = 7
SEQUENCES, DOCUMENT = 4, 150


def step_s(model: LlamaForCausalLM, ids: torch.Tensor, position_ids: torch.Tensor | None) -> float:
    """Return the seconds of one forward and backward pass."""
    started = time.perf_counter()
    nats, _ = sum_of_token_losses(model, ids[:, :-1], ids[:, 1:], position_ids)
    nats.backward()  # type: ignore[no-untyped-call]
    model.zero_grad()
    return time.perf_counter() - started


def main() -> None:
    figures = []
    for length in (256, 1024):
        config = LlamaConfig(
            vocab_size=2048,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=3,
            num_key_value_heads=3,
            max_position_embeddings=length,
        )
        model = LlamaForCausalLM(config)
        ids = torch.randint(0, 2048, (SEQUENCES, length + 1))
        positions = (torch.arange(length) % DOCUMENT).repeat(SEQUENCES, 1)
        for masked in (None, positions):
            step_s(model, ids, masked)
        pairs = [
            (step_s(model, ids, None), step_s(model, ids, positions)) for _ in range(NUM_PAIRS)
        ]
        ratio = statistics.median(plain / masked for plain, masked in pairs)
        name = f"tokens/s with documents masked, length {length}"
        figures.append(Figure(name, ratio, "", "higher", 0.9, "plain causal attention"))
    write_results("document_mask", figures)


if __name__ == "__main__":
    main()
