"""Backbones of transformers, tiny and random, give features of the width that the head expects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTModel,
)

from rewarm.errors import BaseModelError
from rewarm.stream.experiment import BackboneRecipe, SourceRecipe
from rewarm.stream.inputs import prepare_inputs
from rewarm.stream.network import build_network
from rewarm.stream.source import Examples

_SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 16,
    "patch_size": 8,
}


def _models() -> dict[str, Any]:
    return {
        "vit": ViTModel(ViTConfig(**_SIZES)),
        "clip": CLIPVisionModel(CLIPVisionConfig(**_SIZES)),
        "resnet": ResNetModel(
            ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
        ),
    }


@pytest.mark.parametrize("kind", ["vit", "clip", "resnet"])
def test_features_are_the_mean_of_the_last_hidden_states(kind: str, tmp_path: Path) -> None:
    model = _models()[kind]
    model.save_pretrained(tmp_path)
    drawn = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    examples = Examples(drawn, (), np.arange(3), np.zeros(3, dtype=np.bool_), ("a", "b", "c"))
    recipe = BackboneRecipe(path=str(tmp_path))
    inputs = prepare_inputs(examples, SourceRecipe(path="x", kind="image"), recipe).rows(
        np.arange(3)
    )
    network = build_network(recipe, 3, seed=1).eval()
    pixels = torch.from_numpy(drawn.transpose(0, 3, 1, 2) / 127.5 - 1).float()
    torch.testing.assert_close(inputs["pixel_values"], pixels)
    with torch.no_grad():
        hidden = model.eval()(pixel_values=pixels).last_hidden_state
        wanted = hidden.flatten(2).mean(2) if kind == "resnet" else hidden.mean(1)
        torch.testing.assert_close(network.features(inputs), wanted)
        assert network(inputs).shape == (3, 3)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        build_network(BackboneRecipe(path=str(tmp_path)), 2, seed=1)
