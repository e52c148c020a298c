"""Models that lie in memory, to be merged where no file is the point."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file
from torch import Tensor

from rewarm.model.average import Merge, write_merged
from rewarm.model.weight_stream import Header, StoredFile, StoredTensor


class MemoryWeights:
    """Named tensors as a model to merge."""

    def __init__(self, tensors: Mapping[str, Tensor], label: str = "a model") -> None:
        self._tensors = tensors
        self._label = label

    @property
    def label(self) -> str:
        return self._label

    @property
    def headers(self) -> Mapping[str, Header]:
        return {
            name: Header(tensor.dtype, tuple(tensor.shape))
            for name, tensor in self._tensors.items()
        }

    def read(self, name: str, start: int, stop: int) -> Tensor:
        return self._tensors[name].reshape(-1)[start:stop]


def merged(merge: Merge, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Write the merge in the first model's types (or `dtype`) and read it with the library."""
    headers = merge.models[0].headers
    tensors = tuple(
        StoredTensor(name, name, Header(dtype or header.dtype, header.shape))
        for name, header in headers.items()
    )
    with TemporaryDirectory() as folder:
        write_merged(merge, Path(folder), [StoredFile("model.safetensors", tensors)])
        return {
            name: tensor.clone()
            for name, tensor in load_file(Path(folder) / "model.safetensors").items()
        }
