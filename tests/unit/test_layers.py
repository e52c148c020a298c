"""Layers that lack a tensor, or have it in another shape, show in the headers."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewarm.errors import BaseModelError, Problems
from rewarm.planning.layers import note_unlike_layers
from rewarm.planning.model_facts import read_model_facts
from tests.support.model_folders import Shapes, llama_config, write_model
from tests.support.tiny_models import FAMILIES, make_family_folder


def problems_of(folder: Path) -> str:
    problems = Problems()
    note_unlike_layers(folder, read_model_facts(folder), problems)
    try:
        problems.raise_as(BaseModelError)
    except BaseModelError as error:
        return str(error)
    return ""


LAYERS: Shapes = {
    "model.embed_tokens.weight": [10, 8],
    "lm_head.weight": [10, 8],
    **{f"model.layers.{layer}.mlp.up_proj.weight": [20, 8] for layer in range(4)},
    **{f"model.layers.{layer}.mlp.down_proj.weight": [8, 20] for layer in range(4)},
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {
                "model.layers.2.mlp.up_proj.weight": None,
                "model.layers.3.mlp.down_proj.weight": None,
            },
            "2 tensors are missing: mlp.down_proj.weight of layer 3; mlp.up_proj.weight of layer 2",
        ),
        (
            {f"model.layers.{layer}.mlp.up_proj.weight": None for layer in range(4)},
            None,  # nothing tells that the family has it: loading does
        ),
        (
            {"model.layers.1.mlp.up_proj.weight": [20, 4]},
            "shapes differ between its layers: model.layers.1.mlp.up_proj.weight is [20, 4] where "
            "others are [20, 8]",
        ),
        (
            {f"model.layers.4.mlp.{name}_proj.weight": [1] for name in ("up", "down")},
            "it has layer 4, but config.json says 4 layers (from 0)",
        ),
        ({name: None for name in LAYERS if "layers" in name}, "none of its 4 layers is among"),
    ],
)
def test_layers_that_are_not_alike(
    tmp_path: Path, changes: dict[str, list[int] | None], message: str | None
) -> None:
    shapes = {name: shape for name, shape in {**LAYERS, **changes}.items() if shape is not None}
    folder = write_model(tmp_path, config=llama_config(num_hidden_layers=4), shapes=shapes)
    if message is None:
        assert problems_of(folder) == ""
    else:
        assert message in problems_of(folder)
    # Other families mix kinds of layers.
    config = llama_config(num_hidden_layers=4, model_type="falcon_h1")
    assert problems_of(write_model(tmp_path, config=config, shapes=shapes)) == ""


@pytest.mark.parametrize("family", FAMILIES)
def test_whole_models_of_every_family_pass(tmp_path: Path, family: str) -> None:
    assert problems_of(make_family_folder(tmp_path, family)) == ""
