"""A folder's tensors under the model's own names, and whether two folders can become one model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn

from rewarm.errors import BaseModelError, Problems
from rewarm.model.load import base_without_weights, tensor_places
from rewarm.model.weight_stream import (
    StoredFile,
    StoredWeights,
    Weights,
    layout_of,
    stretches,
)
from rewarm.planning.model_facts import read_model_facts
from rewarm.planning.weight_files import WeightFile, read_weight_files
from rewarm.records.facts import ModelFacts

__all__ = [
    "WeightFolder",
    "note_other_network",
    "note_other_tensors",
    "note_other_vocabulary",
    "other_tokens",
]

# Of config.json: where a copy came from, how it is saved and used; nothing that the network is.
_NO_MATTER = frozenset(
    {
        "_name_or_path",
        "transformers_version",
        "dtype",
        "torch_dtype",
        "use_cache",
        "initializer_range",
        "id2label",
        "label2id",
        "problem_type",
        "return_dict",
        "output_hidden_states",
        "output_attentions",
        "pretraining_tp",
        "max_window_layers",
    }
)
# Worth a word: what a tuned copy of a model is often given.
_TOLD = ("max_position_embeddings", "n_positions", "bos_token_id", "eos_token_id", "pad_token_id")
_MOST_TOKENS = 5


@dataclass(frozen=True, slots=True, eq=False)
class WeightFolder:
    """A folder whose tensors all have a place in the model that its config.json describes.

    `skeleton` is that model without weights; `places` gives the stored names of each tensor.
    """

    folder: Path
    facts: ModelFacts
    files: tuple[WeightFile, ...]
    skeleton: nn.Module
    places: Mapping[str, tuple[str, ...]]

    @classmethod
    def read(cls, folder: Path) -> WeightFolder:
        """Read the headers of a folder's files, and no weights.

        Raises BaseModelError for whatever `read_model_facts` refuses, and listing every tensor that
        is missing, left over or of another shape than its place.
        """
        facts = read_model_facts(folder)
        problems = Problems()
        files = read_weight_files(folder, problems)
        skeleton = base_without_weights(folder)
        found = tensor_places(skeleton, files)
        _note_misfits(folder, skeleton, files, found.of_tensor, found.left_over, problems)
        problems.raise_as(BaseModelError)
        places = {
            name: tuple(stored for _, stored in where) for name, where in found.of_tensor.items()
        }
        return cls(folder, facts, files, skeleton, places)

    def open(self, label: str) -> StoredWeights:
        """Return the tensors to be read; `label` names them before a person.

        Raises BaseModelError where a tied tensor is stored twice with different values.
        """
        weights = StoredWeights(
            label, self.files, {name: stored[0] for name, stored in self.places.items()}
        )
        twice = {name: stored[1] for name, stored in self.places.items() if len(stored) > 1}
        try:
            with StoredWeights(label, self.files, twice) as copies:
                _check_copies(weights, copies, self.folder / "config.json")
        except BaseException:
            weights.close()
            raise
        return weights

    def layout(self, dtype: torch.dtype | None = None) -> tuple[StoredFile, ...]:
        """Return files like this folder's, in its types or all in one."""
        names = {stored: name for name, places in self.places.items() for stored in places}
        return layout_of(self.files, names, dtype)

    @property
    def dtypes(self) -> frozenset[torch.dtype]:
        """The types that its tensors are stored in."""
        return frozenset(tensor.header.dtype for file in self.layout() for tensor in file.tensors)


def _note_misfits(
    folder: Path,
    skeleton: nn.Module,
    files: Iterable[WeightFile],
    places: Mapping[str, list[tuple[Path, str]]],
    left_over: Iterable[str],
    problems: Problems,
) -> None:
    # An old GPT-2 has masks among its tensors and no prefix before their names; newer versions
    # rename both when they load and write the model's own names.
    fix = (
        "restore the folder; if transformers loads it as it is, save it once under its names: "
        "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new folder)"
    )
    shapes = {tensor.name: tensor.shape for file in files for tensor in file.tensors}
    tensors = skeleton.state_dict()
    for name, where in places.items():
        if not where:
            problems.add(str(folder), f"tensor {name} is not stored under this name", fix)
        for _, stored in where:
            if shapes[stored] != tuple(tensors[name].shape):
                problems.add(
                    str(folder),
                    f"tensor {stored} has shape {list(shapes[stored])} instead of "
                    f"{list(tensors[name].shape)}",
                    "make config.json and the weights agree",
                )
    for stored in left_over:
        problems.add(str(folder), f"tensor {stored} is no tensor of the model", fix)


def _check_copies(weights: StoredWeights, copies: StoredWeights, config: Path) -> None:
    problems = Problems()
    for name, header in copies.headers.items():
        same = weights.headers[name].dtype == header.dtype and all(
            torch.equal(weights.read(name, start, stop), copies.read(name, start, stop))
            for start, stop in stretches(header.size)
        )
        if not same:
            problems.add(
                str(config),
                f"{name} is tied to another tensor, and the two are stored with different values",
                "set tie_word_embeddings to false, if both are right",
            )
    problems.raise_as(BaseModelError)


# Whether two folders can be one model


def note_other_tensors(first: Weights, other: Weights, problems: Problems) -> None:
    """Note every tensor that only one of two models has, or that differs in shape."""
    fix = "merge models of one architecture and one vocabulary, made from one base"
    ours, theirs = first.headers, other.headers
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in theirs:
            problems.add(other.label, f"tensor {name} of {first.label} is missing", fix)
        elif name not in ours:
            problems.add(other.label, f"tensor {name} is not in {first.label}", fix)
        elif ours[name].shape != theirs[name].shape:
            problems.add(
                other.label,
                f"tensor {name} has shape {list(theirs[name].shape)}, in {first.label} "
                f"{list(ours[name].shape)}",
                fix,
            )


def note_other_network(
    first: WeightFolder, other: WeightFolder, labels: tuple[str, str], problems: Problems
) -> list[str]:
    """Note every key of config.json that makes the other one another network; return warnings.

    Both are read as transformers reads them, defaults filled in.
    """
    ours, theirs = _config(first), _config(other)
    warnings: list[str] = []
    for key in sorted(ours.keys() | theirs.keys()):
        if key in _NO_MATTER or "drop" in key or ours.get(key) == theirs.get(key):
            continue
        what = f"config.json has {key} = {theirs.get(key)!r}, that of {labels[0]} {ours.get(key)!r}"
        if key in _TOLD:
            warnings.append(f"{labels[1]}: {what}")
        else:
            problems.add(
                labels[1],
                what,
                "merge models of one architecture; if the difference means nothing, make the "
                "values equal",
            )
    return warnings


def _config(folder: WeightFolder) -> dict[str, Any]:
    config: Any = folder.skeleton.config
    return dict(config.to_dict())


def note_other_vocabulary(
    first: Path, other: Path, labels: tuple[str, str], problems: Problems
) -> list[str]:
    """Note where one id stands for different tokens in two folders; return warnings.

    A row of the embedding means its token, so an average of rows of different tokens means nothing.
    Added tokens are only told of: a tuned model gives names to what its base had in reserve.
    """
    others, num_in_reserve = other_tokens(first, other)
    if others:
        problems.add(
            labels[1],
            f"{len(others)} ids are other tokens than in {labels[0]} "
            f"({'; '.join(others[:_MOST_TOKENS])})",
            "merge models that share one tokenizer",
        )
    if num_in_reserve:
        return [f"{labels[1]}: {num_in_reserve} added tokens are others than in {labels[0]}"]
    return []


def other_tokens(first: Path, other: Path) -> tuple[list[str], int]:
    """Return each id that stands for another token in two folders, with both tokens, and how many
    more are added tokens in one of them, or both, that the other one has under another name."""
    (ours, ours_added), (theirs, theirs_added) = _tokens(first), _tokens(other)
    differing = {i for i in ours.keys() | theirs.keys() if ours.get(i) != theirs.get(i)}
    in_reserve = {
        i
        for i in differing
        if (i not in ours or i in ours_added) and (i not in theirs or i in theirs_added)
    }
    others = sorted(differing - in_reserve)
    return [f"{i}: {ours.get(i)!r}, {theirs.get(i)!r}" for i in others], len(in_reserve)


def _tokens(folder: Path) -> tuple[dict[int, str], frozenset[int]]:
    """Return the token of each id, and the ids of those that were added to the vocabulary."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens = {id_: token for token, id_ in tokenizer.get_vocab(with_added_tokens=True).items()}
    return tokens, frozenset(tokenizer.get_added_tokens_decoder())
