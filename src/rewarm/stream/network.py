"""A backbone that turns examples into features, and a linear head over all classes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, CLIPVisionModel

from rewarm.errors import BaseModelError
from rewarm.model.load import quiet_transformers
from rewarm.stream.inputs import BYTE_PAD, NO_MODEL, Batch
from rewarm.stream.sections import BackboneRecipe

__all__ = ["Network", "build_network"]

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
        model = _load(recipe.path, from_scratch=recipe.from_scratch)
        config: Any = model.config
        # ResNet names the widths of its stages, all others one width.
        sizes = getattr(config, "hidden_sizes", None)
        width = sizes[-1] if sizes else getattr(config, "hidden_size", None)
        if width is None:
            what = f"{config.model_type} does not say how wide its last hidden states are"
            fix = "name one tower of it, or another model (ViT, ResNet, CLIP, BERT, Llama, …)"
            raise BaseModelError.one(recipe.path, what, fix)
        return Network(Pretrained(model), width, num_classes)


def _load(path: str, *, from_scratch: bool) -> Any:
    """Return the model without a head, in float32, the trunk of one that has a head."""
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(path)
            if getattr(config, "is_encoder_decoder", False):
                raise ValueError(f"{config.model_type} is an encoder and a decoder: none of both")
            is_clip = config.model_type.startswith("clip")
            if from_scratch:
                config = getattr(config, "vision_config", config) if is_clip else config
                return (CLIPVisionModel if is_clip else AutoModel.from_config)(config).float()
            kind = CLIPVisionModel if is_clip else AutoModel
            return kind.from_pretrained(path, dtype=torch.float32)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BaseModelError.one(path, f"it cannot be loaded ({reason})", NO_MODEL) from error
