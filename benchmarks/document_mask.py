"""Training with documents of a sequence kept apart against plain causal attention, taking turns.

Each way of keeping them apart that this device has is measured, by the CPU time of one thread where
there is no GPU, so that other work on the machine does not count.
"""

from __future__ import annotations

import copy
import statistics
import time
from typing import Any

import torch
from record import Figure, write_results
from transformers import AutoConfig, AutoModelForCausalLM

from rewarm.model.document_attention import document_roads, installed_packages
from rewarm.model.loss import sum_of_token_losses
from rewarm.model.packing import DocumentAttention

NUM_TURNS = 7
HALF = torch.cuda.is_available()
DEVICE = "cuda" if HALF else "cpu"
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "gemma2": {"num_key_value_heads": 2, "query_pre_attn_scalar": 48, "sliding_window": 512},
}
# Tokens of a sequence, tokens of a document, sequences.
CASES = (
    ("llama", 256, 20, 8),
    ("llama", 256, 150, 8),
    ("llama", 1024, 150, 4),
    ("llama", 1024, 2048, 4),
    ("llama", 4096, 600, 1),
    ("gemma2", 1024, 150, 4),
)


def new_model(family: str, length: int) -> Any:
    """Return a model of four layers and 192 hidden units."""
    config = AutoConfig.for_model(
        family,
        vocab_size=2048,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        head_dim=48,
        max_position_embeddings=length,
        pad_token_id=None,
        **SHAPES[family],
    )
    return AutoModelForCausalLM.from_config(config).to(DEVICE)


def seconds_of(model: Any, ids: torch.Tensor, position_ids: torch.Tensor | None) -> float:
    """Return the seconds of one forward and backward pass."""
    started = time.perf_counter() if HALF else time.process_time()
    with torch.autocast(DEVICE, torch.bfloat16, enabled=HALF):
        nats, _ = sum_of_token_losses(model, ids[:, :-1], ids[:, 1:], position_ids)
    nats.backward()  # type: ignore[no-untyped-call]
    model.zero_grad()
    if HALF:
        torch.cuda.synchronize()
    return (time.perf_counter() if HALF else time.process_time()) - started


def main() -> None:
    torch.set_num_threads(1)
    figures = []
    roads = document_roads(
        device_type=DEVICE, half=HALF, dropout=False, installed=installed_packages()
    )
    for family, length, document, num_sequences in CASES:
        plain = new_model(family, length)
        models = {}
        for road in roads:
            models[road] = copy.deepcopy(plain)
            attention = DocumentAttention((road,), sequence_length=length)
            with torch.autocast(DEVICE, torch.bfloat16, enabled=HALF):
                notices = attention.settle(models[road])
            if notices:
                print(notices[0])
                del models[road]
        ids = torch.randint(0, 2048, (num_sequences, length + 1), device=DEVICE)
        positions = (torch.arange(length, device=DEVICE) % document).repeat(num_sequences, 1)
        turns = []
        for _ in range(NUM_TURNS + 1):
            alone = seconds_of(plain, ids, None)
            turns.append({r: alone / seconds_of(m, ids, positions) for r, m in models.items()})
        for road in models:
            name = f"{family}, {length} tokens in documents of {min(document, length)}, {road}"
            ratio = statistics.median(turn[road] for turn in turns[1:])
            goal = None if road == "mask" else 0.95
            figures.append(
                Figure(f"tokens/s: {name}", ratio, "", "higher", goal, "plain causal attention")
            )
    write_results("document_mask", figures)


if __name__ == "__main__":
    main()
