"""Examples as a backbone reads them. What is large is made row by row: pixels are kept as bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoTokenizer, ImageProcessingMixin

from rewarm.errors import BaseModelError
from rewarm.model.load import quiet_transformers
from rewarm.stream.sections import BackboneRecipe, SourceRecipe
from rewarm.stream.source import Examples

__all__ = ["BYTE_PAD", "NO_MODEL", "Batch", "Inputs", "PixelRows", "TensorRows", "prepare_inputs"]

Batch = Mapping[str, Tensor]
"""Tensors of some examples by the names that the backbone knows, each [examples, …]."""

BYTE_PAD = 256
"""The id after those of all bytes."""

_LONGEST_TEXT = 512  # tokens, where the backbone does not say that it reads fewer
_HALF = (0.5, 0.5, 0.5)

NO_MODEL = "give the folder or hub id of a model of transformers"
"""What to do where a backbone cannot be loaded."""


class Inputs(Protocol):
    """All examples of a stream."""

    def rows(self, rows: NDArray[np.int64]) -> Batch:
        """Return some of them, on the CPU."""


@dataclass(frozen=True, slots=True, eq=False)
class TensorRows:
    """Tensors of all examples; texts are as long as the longest of those that are asked for."""

    tensors: Mapping[str, Tensor]

    def rows(self, rows: NDArray[np.int64]) -> Batch:
        """Return some examples."""
        where = torch.from_numpy(rows)
        found = {name: tensor[where] for name, tensor in self.tensors.items()}
        mask = found.get("attention_mask")
        if mask is None or not len(rows):
            return found
        longest = int(mask.sum(1).max())
        return {name: tensor[:, :longest] for name, tensor in found.items()}


@dataclass(frozen=True, slots=True, eq=False)
class PixelRows:
    """Images, uint8 [examples, height, width, 3], and how the backbone wants them."""

    images: NDArray[np.uint8]
    size: int
    mean: Sequence[float] = _HALF
    std: Sequence[float] = _HALF

    def rows(self, rows: NDArray[np.int64]) -> Batch:
        """Return pixels [examples, 3, size, size], normalised."""
        pixels = torch.from_numpy(self.images[rows]).permute(0, 3, 1, 2).float() / 255
        if pixels.shape[-1] != self.size:
            side = (self.size, self.size)
            pixels = F.interpolate(pixels, size=side, mode="bilinear", align_corners=False)
        mean, std = (torch.tensor(list(v))[:, None, None] for v in (self.mean, self.std))
        return {"pixel_values": (pixels - mean) / std}


def prepare_inputs(examples: Examples, recipe: SourceRecipe, backbone: BackboneRecipe) -> Inputs:
    """Return all examples as the backbone reads them; raises BaseModelError where it cannot.

    `backbone.path` is a folder: whoever calls has found it.
    """
    if examples.images is not None:
        return _pixels(examples.images, backbone)
    if backbone.path is None:
        return _padded([list(t.encode()[: recipe.max_bytes]) for t in examples.texts], BYTE_PAD)
    texts = [text.encode()[: recipe.max_bytes].decode(errors="ignore") for text in examples.texts]
    return _tokens(texts, backbone)


def _pixels(images: NDArray[np.uint8], backbone: BackboneRecipe) -> PixelRows:
    size: int = images.shape[1]
    if backbone.path is None:
        return PixelRows(images, size)
    config = _read(AutoConfig.from_pretrained, backbone)
    wanted: Any = getattr(getattr(config, "vision_config", config), "image_size", size)
    size = int(max(wanted)) if isinstance(wanted, list | tuple) else int(wanted)
    try:
        said, _ = ImageProcessingMixin.get_image_processor_dict(backbone.path)
    except OSError:
        said = {}  # a backbone that says nothing of it: a half and a half
    return PixelRows(images, size, said.get("image_mean") or _HALF, said.get("image_std") or _HALF)


def _tokens(texts: Sequence[str], backbone: BackboneRecipe) -> TensorRows:
    config = _read(AutoConfig.from_pretrained, backbone)
    tokenizer = _read(AutoTokenizer.from_pretrained, backbone, "its tokenizer")
    own = getattr(config, "text_config", config)
    # RoBERTa's kin count positions from the pad's on: two of them cannot be used.
    positions = getattr(own, "max_position_embeddings", None) or _LONGEST_TEXT
    reserved = 2 if "roberta" in config.model_type else 0
    longest = min(_LONGEST_TEXT, positions - reserved)
    ids = tokenizer(list(texts), truncation=True, max_length=longest)["input_ids"]
    pad = tokenizer.pad_token_id
    return _padded([row or [pad or 0] for row in ids], pad or 0)


def _read(load: Any, backbone: BackboneRecipe, what: str = "it") -> Any:
    path = str(backbone.path)
    try:
        with quiet_transformers():
            return load(path)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BaseModelError.one(path, f"{what} cannot be loaded ({reason})", NO_MODEL) from error


def _padded(rows: Sequence[Sequence[int]], pad: int) -> TensorRows:
    """Return ids and mask, filled on the right."""
    length = max(map(len, rows))
    ids = torch.full((len(rows), length), pad)
    mask = torch.zeros(len(rows), length, dtype=torch.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        mask[number, : len(row)] = 1
    return TensorRows({"input_ids": ids, "attention_mask": mask})
