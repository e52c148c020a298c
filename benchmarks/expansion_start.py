"""How far the first updates of an expanded model's copies move it, by what silences the copies.

Families with a norm behind the output projections (OLMo 2, Gemma 2): the projections at zero, or
the norms. Llama has no such norm. Random models of two layers, width 64, of which the second is a
copy; AdamW at 1e-4 on it alone. Told is |h − h₀| / |h₀| of the last hidden states.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from record import Figure, write_results
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.support.tiny_models import family_model

PROJECTIONS = ("o_proj.weight", "down_proj.weight")
NORMS = ("post_attention_layernorm.weight", "post_feedforward_layernorm.weight")
CASES = (
    ("llama", "projections", PROJECTIONS, 0.0),
    ("olmo2", "projections", PROJECTIONS, 0.0),
    ("olmo2", "norms", NORMS, 0.0),
    ("gemma2", "projections", PROJECTIONS, 0.0),
    ("gemma2", "norms", NORMS, -1.0),
)
NUM_UPDATES = 100


def hidden(model: Any, ids: Tensor) -> Tensor:
    """Return the last hidden states, [batch, time, width]."""
    with torch.no_grad():
        states: Tensor = model.model(input_ids=ids, use_cache=False).last_hidden_state
    return states


def moved(family: str, names: tuple[str, ...], value: float) -> tuple[float, float]:
    """Return how far the hidden states are after one update and after all."""
    model = family_model(
        family, hidden_size=64, intermediate_size=128, initializer_range=0.05
    ).train()
    trained = []
    for name, parameter in model.named_parameters():
        is_copy = ".layers.1." in name
        parameter.requires_grad_(is_copy)
        if is_copy:
            trained.append(parameter)
        if is_copy and name.endswith(names):
            nn.init.constant_(parameter, value)
    optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.0)
    ids = torch.randint(0, 320, (8, 48), generator=torch.Generator().manual_seed(0))
    before = hidden(model, ids)
    found = []
    for _ in range(NUM_UPDATES):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        found.append(float((hidden(model, ids) - before).norm() / before.norm()))
    return found[0], found[-1]


def main() -> None:
    figures = []
    for family, what, names, value in CASES:
        first, last = moved(family, names, value)
        for after, share in (("1 update", first), (f"{NUM_UPDATES} updates", last)):
            figures.append(
                Figure(f"{family}, {what} silent, after {after}", share, "of the norm", "lower")
            )
    write_results("expansion_start", figures)


if __name__ == "__main__":
    main()
