"""What ranks do in the tests of tensor parallelism; see `ranks.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rewarm.distributed.fsdp import local, make_mesh, reshard, shard, whole
from rewarm.distributed.world import World, join, launched_world
from rewarm.model.load import base_without_weights
from rewarm.model.loss import token_losses
from rewarm.stages.base_on_ranks import fill_base
from rewarm.training.state import weights_of
from tests.support.rank_jobs import TIMEOUT_S, take_steps, train_llama
from tests.support.tiny_models import family_model
from tests.support.tiny_plans import SEQUENCE_LENGTH, VOCAB_SIZE

SPECIAL: Mapping[str, Mapping[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "gemma2": {"attn_logit_softcapping": None},  # with a cap it needs eager attention
}


def maker(family: str) -> Callable[..., nn.Module]:
    """Return what makes a family's model in float64, whose vocabulary (61) nothing divides."""

    def new(*, tied: bool = True) -> nn.Module:
        changes = {"tie_word_embeddings": tied, **SPECIAL.get(family, {})}
        model: nn.Module = family_model(family, vocab_size=VOCAB_SIZE, **changes)
        return model.double().train()

    return new


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    f"{family}, {'tied' if tied else 'untied'}, micro-batch {size}, whole {whole}": {
        "new_model": maker(family),
        "tied": tied,
        "micro_batch": size,
        "whole_gradients": whole,
        "roads": roads,
    }
    for family, tied, size, whole, roads in (
        ("llama", True, 8, False, ()),
        ("llama", False, 1, True, ("split",)),
        ("mistral", False, 2, False, ("split",)),
        ("qwen2", True, 2, False, ()),
        ("qwen3", True, 1, False, ("split",)),
        ("olmo2", False, 2, False, ()),
        ("gemma2", True, 2, False, ()),
        ("gpt_neox", False, 2, False, ()),
    )
}


@contextmanager
def joined(tensor_parallel: str) -> Iterator[World]:
    """Join ranks of which neighbours share matrices."""
    with join(launched_world(), device_type="cpu", timeout_s=TIMEOUT_S) as world:
        yield replace(world, tensor_parallel=int(tensor_parallel))


def parity(folder: str, tensor_parallel: str) -> None:
    """Take three steps in every variant and save what came out."""
    with joined(tensor_parallel) as world:
        for name, variant in VARIANTS.items():
            found = take_steps(world, num_steps=3, **variant)
            if world.is_main:
                torch.save(found, Path(folder) / f"{name}.pt")


def train(folder: str, until_step: str, tensor_parallel: str) -> None:
    """Go on with a run on these ranks."""
    with joined(tensor_parallel) as world:
        train_llama(Path(folder), world, until_step=int(until_step))


def loads(root_folder: str, tensor_parallel: str) -> None:
    """Load every base in a folder in parts; save the whole tensors."""
    with joined(tensor_parallel) as world:
        for folder in sorted(Path(root_folder).iterdir()):
            model = base_without_weights(folder)
            root = shard(model.eval(), make_mesh(world, "cpu"))
            said: dict[str, Any] = {"notice": fill_base(root, folder, world, device="cpu")}
            ids = torch.arange(2 * SEQUENCE_LENGTH).view(2, -1)
            with torch.no_grad():
                said["losses"] = root(token_losses, ids, ids)
            reshard(root)
            said["numbers"] = sum(local(p).numel() for p in model.parameters())
            said |= {name: whole(tensor) for name, tensor in weights_of(model).items()}
            if world.is_main:
                torch.save(said, folder / "loaded.pt")
