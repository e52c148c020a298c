"""A backbone that turns examples into features, and a linear head over all classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from rewarm.errors import BaseModelError
from rewarm.stream.experiment import BackboneRecipe, SourceRecipe
from rewarm.stream.source import Examples

__all__ = ["Inputs", "Network", "build_network", "prepare_inputs", "rows_of"]

Inputs = Mapping[str, Tensor]
"""Tensors of examples by the names that the backbone knows, each [examples, …]."""

_BYTE_PAD = 256
_LONGEST_TEXT = 512


class Network(nn.Module):
    """Features [examples, width] of a backbone, and logits [examples, classes] of a linear head."""

    def __init__(self, backbone: nn.Module, width: int, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(width, num_classes)

    def features(self, inputs: Inputs) -> Tensor:
        """Return what the backbone makes of examples, [examples, width]."""
        found: Tensor = self.backbone(**inputs)
        return found

    def forward(self, inputs: Inputs) -> Tensor:
        """Return logits over all classes of the stream, [examples, classes]."""
        logits: Tensor = self.head(self.features(inputs))
        return logits


def rows_of(inputs: Inputs, rows: NDArray[np.int64]) -> Inputs:
    """Return the tensors of some examples."""
    where = torch.from_numpy(rows)
    return {name: tensor[where] for name, tensor in inputs.items()}


class SmallCnn(nn.Module):
    """Four convolutions with group norm, and the mean over what is left of the image."""

    width = 128

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for wide in (32, 64, 128, self.width):
            layers += [
                nn.Conv2d(channels, wide, 3, stride=2, padding=1),
                nn.GroupNorm(8, wide),
                nn.ReLU(),
            ]
            channels = wide
        self.layers = nn.Sequential(*layers)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return features [examples, width] of images [examples, 3, height, width]."""
        found: Tensor = self.layers(pixel_values).mean((2, 3))
        return found


class SmallBytes(nn.Module):
    """Embedded bytes, two convolutions over them, and the mean over those that are there."""

    width = 128

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(_BYTE_PAD + 1, 64, padding_idx=_BYTE_PAD)
        self.first = nn.Conv1d(64, self.width, 5, padding=2)
        self.second = nn.Conv1d(self.width, self.width, 5, padding=2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return features [examples, width] of bytes [examples, length]."""
        hidden = self.embedding(input_ids).transpose(1, 2)
        hidden = F.relu(self.second(F.relu(self.first(hidden))))
        return _masked_mean(hidden.transpose(1, 2), attention_mask)


class Pretrained(nn.Module):
    """A model of transformers; features are the mean of its last hidden states."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, attention_mask: Tensor | None = None, **inputs: Tensor) -> Tensor:
        """Return features [examples, width]."""
        if attention_mask is not None:
            hidden = self.model(**inputs, attention_mask=attention_mask).last_hidden_state
            return _masked_mean(hidden, attention_mask)
        hidden = self.model(**inputs).last_hidden_state
        found: Tensor = hidden.mean((2, 3)) if hidden.dim() == 4 else hidden.mean(1)
        return found


def _masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


def build_network(recipe: BackboneRecipe, num_classes: int, seed: int) -> Network:
    """Return a network whose drawn weights (head, from scratch) hang on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if recipe.small is not None:
            small = SmallCnn() if recipe.small == "cnn" else SmallBytes()
            return Network(small, small.width, num_classes)
        assert recipe.path is not None
        model = _load(recipe.path)
        config: Any = model.config
        # ResNet names the widths of its stages, all others one width.
        sizes = getattr(config, "hidden_sizes", None)
        width = sizes[-1] if sizes else config.hidden_size
        return Network(Pretrained(model), width, num_classes)


def _load(path: str) -> Any:
    from transformers import AutoConfig, AutoModel, CLIPVisionModel

    try:
        config = AutoConfig.from_pretrained(path)
        kind = CLIPVisionModel if config.model_type.startswith("clip") else AutoModel
        return kind.from_pretrained(path, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise BaseModelError.one(
            path, f"it cannot be loaded ({str(error).splitlines()[0]})", "check backbones.*.path"
        ) from error


def prepare_inputs(examples: Examples, recipe: SourceRecipe, backbone: BackboneRecipe) -> Inputs:
    """Return all examples as the backbone reads them."""
    if examples.images is not None:
        return {"pixel_values": _pixels(examples.images, backbone)}
    if backbone.path is None:
        return _padded([list(t.encode()[: recipe.max_bytes]) for t in examples.texts], _BYTE_PAD)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(backbone.path)
    texts = [text.encode()[: recipe.max_bytes].decode(errors="ignore") for text in examples.texts]
    ids = tokenizer(texts, truncation=True, max_length=_LONGEST_TEXT)["input_ids"]
    return _padded(ids, tokenizer.pad_token_id or 0)


def _pixels(images: NDArray[np.uint8], backbone: BackboneRecipe) -> Tensor:
    """Return pixels [examples, 3, height, width], normalised as the backbone was trained."""
    mean, std, size = [0.5] * 3, [0.5] * 3, images.shape[1]
    if backbone.path is not None:
        from transformers import AutoConfig, ImageProcessingMixin

        config: Any = AutoConfig.from_pretrained(backbone.path)
        size = getattr(getattr(config, "vision_config", config), "image_size", size)
        try:
            said, _ = ImageProcessingMixin.get_image_processor_dict(backbone.path)
            mean, std = said.get("image_mean", mean), said.get("image_std", std)
        except OSError:
            pass  # a backbone trained here says nothing: a half and a half
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    if pixels.shape[-1] != size:
        pixels = F.interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False)
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def _padded(rows: Sequence[Sequence[int]], pad: int) -> Inputs:
    length = max(map(len, rows))
    ids = torch.full((len(rows), length), pad)
    mask = torch.zeros(len(rows), length, dtype=torch.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        mask[number, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}
