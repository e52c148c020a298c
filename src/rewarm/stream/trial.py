"""A backbone tried on one example, before anything is trained with any of them."""

from __future__ import annotations

import numpy as np
import torch

from rewarm.errors import BaseModelError, Problem
from rewarm.model.modes import evaluating
from rewarm.stream.inputs import prepare_inputs
from rewarm.stream.network import build_network
from rewarm.stream.sections import BackboneRecipe, SourceRecipe
from rewarm.stream.source import Examples

__all__ = ["try_backbone"]


def try_backbone(
    name: str, backbone: BackboneRecipe, source: SourceRecipe, examples: Examples
) -> None:
    """Raise BaseModelError where a backbone cannot be loaded, or makes nothing of an example."""
    images = examples.images
    one = Examples(
        images=None if images is None else images[:1],
        texts=examples.texts[:1],
        labels=examples.labels[:1],
        is_test=examples.is_test[:1],
        classes=examples.classes,
    )
    try:
        inputs = prepare_inputs(one, source, backbone).rows(np.arange(1))
        network = build_network(backbone, len(examples.classes), 0, inputs)
        with torch.no_grad(), evaluating(network):
            network(inputs)
    except BaseModelError as error:
        where = f"backbones.{name}.path"
        told = [Problem(where, f"{p.where}: {p.what}", p.fix) for p in error.problems]
        raise BaseModelError(told) from error
    except Exception as error:
        # What somebody's model raises for what it does not read, only that model knows.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        what = f"it makes nothing of {'a text' if images is None else 'an image'} ({reason})"
        raise BaseModelError.one(
            f"backbones.{name}", what, f"name a model that reads {source.kind}s"
        ) from error
