"""A backbone that turns examples into features, and a linear head over all classes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel

from rewarm.errors import BaseModelError
from rewarm.model.load import quiet_transformers
from rewarm.model.modes import evaluating
from rewarm.stream.inputs import BYTE_PAD, NO_MODEL, Batch
from rewarm.stream.sections import BackboneRecipe

__all__ = ["Network", "Pretrained", "build_network"]

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Network(nn.Module):
    """Features [examples, width] of a backbone, and logits [examples, classes] of a linear head."""

    def __init__(self, backbone: nn.Module, width: int, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(width, num_classes)

    def features(self, inputs: Batch) -> Tensor:
        """Return what the backbone makes of examples, [examples, width].

        A single example has no statistics of a batch: batch norms then take their running ones.
        """
        is_single = len(next(iter(inputs.values()))) == 1
        with _running_statistics(self.backbone) if is_single else contextlib.nullcontext():
            found: Tensor = self.backbone(**inputs)
        return found

    def forward(self, inputs: Batch) -> Tensor:
        """Return logits over all classes of the stream, [examples, classes]."""
        logits: Tensor = self.head(self.features(inputs))
        return logits


@contextlib.contextmanager
def _running_statistics(model: nn.Module) -> Iterator[None]:
    """Put batch norms into evaluation mode, and back into their own afterwards."""
    norms = [m for m in model.modules() if isinstance(m, _BATCH_NORMS) and m.training]
    for norm in norms:
        norm.training = False
    try:
        yield
    finally:
        for norm in norms:
            norm.training = True


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
        self.embedding = nn.Embedding(BYTE_PAD + 1, 64, padding_idx=BYTE_PAD)
        self.first = nn.Conv1d(64, self.width, 5, padding=2)
        self.second = nn.Conv1d(self.width, self.width, 5, padding=2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return features [examples, width] of bytes [examples, length]."""
        there = attention_mask[:, None].to(self.embedding.weight.dtype)
        hidden = F.relu(self.first(self.embedding(input_ids).transpose(1, 2)))
        # What lies behind a text's end must not depend on the longest text beside it.
        hidden = F.relu(self.second(hidden * there))
        return _masked_mean(hidden.transpose(1, 2), attention_mask)


class Pretrained(nn.Module):
    """A model of transformers; features are the mean of its last hidden states."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, attention_mask: Tensor | None = None, **inputs: Tensor) -> Tensor:
        """Return features [examples, width]; raises ValueError where it has no hidden states."""
        if attention_mask is not None:
            return _masked_mean(
                self._hidden(**inputs, attention_mask=attention_mask), attention_mask
            )
        hidden = self._hidden(**inputs)
        return hidden.mean((2, 3)) if hidden.dim() == 4 else hidden.mean(1)

    def _hidden(self, **inputs: Tensor) -> Tensor:
        made = self.model(**inputs)
        hidden = getattr(made, "last_hidden_state", None)
        if not isinstance(hidden, Tensor):
            raise ValueError(f"{type(self.model).__name__} returns no last hidden states")
        return hidden


def _masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


def build_network(recipe: BackboneRecipe, num_classes: int, seed: int, example: Batch) -> Network:
    """Return a network whose drawn weights (head, from scratch) hang on the seed alone.

    The head is as wide as what the backbone makes of an example: configurations have many names
    for it, and some none. Raises BaseModelError where there is no such model, and what a model
    raises that does not read such examples.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if recipe.small is not None:
            small = SmallCnn() if recipe.small == "cnn" else SmallBytes()
            return Network(small, small.width, num_classes)
        backbone = Pretrained(_load(recipe, "image" if "pixel_values" in example else "text"))
        return Network(backbone, _width(backbone, example), num_classes)


def _width(backbone: nn.Module, example: Batch) -> int:
    # Some models draw while they look: the head's weights must not hang on it.
    with torch.random.fork_rng(devices=[]), torch.no_grad(), evaluating(backbone):
        width: int = backbone(**example).shape[1]
    return width


_TOWERS = {
    "image": ("vision_config", ("vision_model", "vision_tower")),
    "text": ("text_config", ("text_model", "language_model")),
}
"""Of a model of images and texts: the part of its configuration, and what the models call it."""


def _load(recipe: BackboneRecipe, kind: str) -> Any:
    """Return the model without a head, in float32, the trunk of one that has a head.

    Of a model of images and texts it is the tower that reads the kind.
    """
    path = recipe.path
    assert path is not None
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(path)
            if getattr(config, "is_encoder_decoder", False):
                raise ValueError(f"{config.model_type} is an encoder and a decoder: none of both")
            part, names = _TOWERS[kind]
            has_towers = hasattr(config, "vision_config") and hasattr(config, "text_config")
            if recipe.from_scratch:
                own = getattr(config, part) if has_towers else config
                return AutoModel.from_config(own).float()
            model = AutoModel.from_pretrained(path, dtype=torch.float32)
            towers = [tower for name in names if (tower := getattr(model, name, None)) is not None]
            return towers[0] if has_towers and towers else model
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BaseModelError.one(path, f"it cannot be loaded ({reason})", NO_MODEL) from error
