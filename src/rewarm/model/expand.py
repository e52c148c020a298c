"""Block expansion: copies of some blocks that add nothing until they are trained (LLaMA Pro).

A block adds the outputs of its attention and of its MLP to what comes in. In a copy the last tensor
on each of these two roads is set so that the output is zero, so the deeper model computes what the
base does, bit for bit. (Wu et al. 2024, arXiv 2401.02415.) That tensor is the output projection;
where a norm stands behind it (OLMo 2, Gemma 2), it is the norm's weight: a projection that is
merely small would come out of the norm at full size after the first update.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rewarm.errors import BaseModelError, Problems
from rewarm.model.weight_folder import WeightFolder
from rewarm.model.weight_stream import (
    Header,
    StoredFile,
    StoredTensor,
    Weights,
    stretches,
    write_weights,
)
from rewarm.planning.model_facts import EXPANDED_LAYERS
from rewarm.planning.trainable import in_layer, layer_of, within_layer

__all__ = [
    "Expansion",
    "evenly",
    "every_nth",
    "expand",
    "expanded_config",
    "expanded_layout",
    "expanded_lists",
    "write_expanded",
]

_NUM_LAYERS = ("num_hidden_layers", "n_layer")


class _Closing(NamedTuple):
    """How a family's blocks end: modules of attention and of MLP, and the weight that silences."""

    modules: tuple[str, str]
    silent: float


# Norms that scale by 1 + weight are silent at −1.
_POST_NORMS = ("post_attention_layernorm", "post_feedforward_layernorm")
_BY_TYPE = {
    "olmo2": _Closing(_POST_NORMS, 0.0),
    "olmo3": _Closing(_POST_NORMS, 0.0),
    "gemma2": _Closing(_POST_NORMS, -1.0),
    "gemma3_text": _Closing(_POST_NORMS, -1.0),
}
_BY_NAME = (
    _Closing(("self_attn.o_proj", "mlp.down_proj"), 0.0),  # Llama, Qwen, Mistral, Gemma 1, SmolLM
    _Closing(("attention.dense", "mlp.dense_4h_to_h"), 0.0),  # GPT-NeoX
    _Closing(("attn.c_proj", "mlp.c_proj"), 0.0),  # GPT-2
)


def every_nth(num_layers: int, every: int) -> tuple[int, ...]:
    """Return the layers behind which a copy comes: each `every`-th.

    >>> every_nth(10, 4)
    (3, 7)
    """
    return tuple(range(every - 1, num_layers, every))


def evenly(num_layers: int, copies: int) -> tuple[int, ...]:
    """Return the last layers of `copies` groups that are as equal as can be.

    >>> evenly(10, 4)
    (1, 4, 6, 9)
    """
    return tuple((group + 1) * num_layers // copies - 1 for group in range(copies))


@dataclass(frozen=True, slots=True)
class Expansion:
    """How a base's layers become those of the deeper model.

    `source` gives for each new layer the base's layer that it is, or is a copy of; `copies` are
    the new layers that were added now, `expanded` these and those that the base had already.
    `silent` gives, by name within a layer, the value that fills a tensor of a copy.
    """

    source: tuple[int, ...]
    copies: frozenset[int]
    expanded: tuple[int, ...]
    silent: Mapping[str, float]

    def place_of(self, layer: int) -> int:
        """Return where a layer of the base is in the deeper model."""
        return self.source.index(layer)

    def new_names(self, name: str) -> list[tuple[str, int | None]]:
        """Return the names that a tensor of the base gets, each with its new layer, if any."""
        layer = layer_of(name)
        if layer is None:
            return [(name, None)]
        return [
            (in_layer(name, new), new) for new, source in enumerate(self.source) if source == layer
        ]


def expand(base: WeightFolder, behind: Iterable[int]) -> Expansion:
    """Return the expansion of a base with a copy behind each of these layers.

    Raises BaseModelError, listing a layer's tensors, where it is not known which of them close it.
    """
    chosen = set(behind)
    source: list[int] = []
    copies: set[int] = set()
    for layer in range(base.facts.num_layers):
        source.append(layer)
        if layer in chosen:
            copies.add(len(source))
            source.append(layer)
    had = {source.index(layer) for layer in base.facts.expanded_layers}
    return Expansion(
        tuple(source), frozenset(copies), tuple(sorted(copies | had)), _silent_tensors(base)
    )


def _silent_tensors(base: WeightFolder) -> dict[str, float]:
    names = [within_layer(name) for name in base.places if layer_of(name) == 0]
    known = _BY_TYPE.get(base.facts.model_type)
    by_name = _BY_NAME if _is_plain(names) else ()
    for closing in by_name if known is None else (known,):
        weights = [f"{module}.weight" for module in closing.modules]
        if all(weight in names for weight in weights):
            biases = [f"{module}.bias" for module in closing.modules]
            return dict.fromkeys(weights, closing.silent) | {
                bias: 0.0 for bias in biases if bias in names
            }
    raise BaseModelError.one(
        str(base.folder),
        f"it is not known which tensors of a {base.facts.model_type!r} block silence it; a block "
        f"has {', '.join(sorted(names)) or 'none that can be told'}",
        "use a base whose blocks end in self_attn.o_proj and mlp.down_proj, attention.dense and "
        "mlp.dense_4h_to_h, or attn.c_proj and mlp.c_proj",
    )


def _is_plain(names: Sequence[str]) -> bool:
    """Tell whether no norm stands behind the projections of an unknown family."""
    return not any(
        name.startswith(("post_feedforward", "post_mlp", "post_self_attn")) for name in names
    )


def expanded_layout(base: WeightFolder, expansion: Expansion) -> tuple[StoredFile, ...]:
    """Return the base's files with every copy's tensors behind those that they are copies of."""
    return tuple(
        StoredFile(
            file.file_name,
            tuple(
                StoredTensor(stored, name, tensor.header)
                for tensor in file.tensors
                for (stored, _), (name, _) in zip(
                    expansion.new_names(tensor.stored_name),
                    expansion.new_names(tensor.name),
                    strict=True,
                )
            ),
        )
        for file in base.layout()
    )


def write_expanded(
    base: WeightFolder, weights: Weights, expansion: Expansion, folder: Path
) -> dict[str, str]:
    """Write the deeper model's files; return each tensor's digest by its name there.

    One stretch is in memory at a time. Raises BaseModelError naming every tensor that is not
    finite; the files are then of no use. An OSError: the disk refuses.
    """
    layout = expanded_layout(base, expansion)
    sources = {
        new: (name, layer) for name in base.places for new, layer in expansion.new_names(name)
    }

    spoilt: dict[str, None] = {}

    def make(new: str, header: Header) -> Iterator[Tensor]:
        name, layer = sources[new]
        is_copy = layer is not None and layer in expansion.copies
        silent = expansion.silent.get(within_layer(name)) if is_copy else None
        for start, stop in stretches(header.size):
            if silent is None:
                stretch = weights.read(name, start, stop)
                if not torch.isfinite(stretch).all():
                    spoilt[name] = None
                yield stretch
            else:
                yield torch.full((stop - start,), silent, dtype=header.dtype)

    digests = write_weights(folder, layout, make)
    problems = Problems()
    for name in spoilt:
        problems.add(
            str(base.folder),
            f"tensor {name} holds values that are not finite",
            "get an intact copy of the base; nothing can be trained from this one",
        )
    problems.raise_as(BaseModelError)
    return digests


def expanded_config(
    config: Mapping[str, Any], effective: Mapping[str, Any], expansion: Expansion
) -> dict[str, Any]:
    """Return config.json of the deeper model.

    `effective` is the base's config as the library reads it: lists that have an entry per layer,
    such as `layer_types`, are taken from there, since where config.json leaves them out they are
    derived from the layers' numbers, which change.
    """
    numbers = {key: len(expansion.source) for key in _NUM_LAYERS if key in config}
    return {
        **config,
        **expanded_lists(effective, expansion),
        **numbers,
        EXPANDED_LAYERS: list(expansion.expanded),
    }


def expanded_lists(effective: Mapping[str, Any], expansion: Expansion) -> dict[str, list[Any]]:
    """Return the lists of a base's config that have an entry per layer, as the deeper one's."""
    num_layers = len(set(expansion.source))
    return {
        key: [value[layer] for layer in expansion.source]
        for key, value in effective.items()
        if isinstance(value, list)
        and "layer" in key
        and len(value) == num_layers
        and key != EXPANDED_LAYERS
    }
