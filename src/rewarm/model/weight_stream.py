"""Weights that are read and written a stretch at a time: a model is never whole in memory.

Tensors go by the names that the model itself gives them (`state_dict()`, a tied one once), whatever
a folder calls them. A stretch is a run of a flattened tensor's numbers.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Protocol

import torch
from torch import Tensor

from rewarm.artifacts import canonical_json, write_json
from rewarm.errors import BaseModelError
from rewarm.planning.weight_files import WeightFile, WeightTensor

__all__ = [
    "STRETCH",
    "Header",
    "StoredFile",
    "StoredTensor",
    "StoredWeights",
    "Weights",
    "headers_to_store",
    "layout_of",
    "stretches",
    "tensor_digest",
    "write_weights",
]

STRETCH = 2**17
"""Numbers of a tensor that are worked on at once."""

_INDEX = "model.safetensors.index.json"
_DTYPES = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_HEADER_ALIGNMENT = 8


class Header(NamedTuple):
    """Type and shape of a tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return torch.Size(self.shape).numel()


class Weights(Protocol):
    """A model's tensors, wherever they lie."""

    @property
    def label(self) -> str:
        """What to call the model before a person."""
        ...

    @property
    def headers(self) -> Mapping[str, Header]:
        """Type and shape of every tensor, by the model's names."""
        ...

    def read(self, name: str, start: int, stop: int) -> Tensor:
        """Return numbers [start, stop) of a flattened tensor in its stored type."""
        ...


def stretches(size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) that cover `size` numbers; one that is empty for an empty tensor.

    >>> list(stretches(3))
    [(0, 3)]
    """
    for start in range(0, max(size, 1), STRETCH):
        yield start, min(start + STRETCH, size)


class StoredWeights:
    """The tensors of safetensors files, which stay open until the end of a `with`.

    Files are read, not mapped: one that is cut meanwhile is an error rather than the end of the
    process, and one that is deleted meanwhile is still there.
    """

    def __init__(
        self, label: str, files: Sequence[WeightFile], stored_names: Mapping[str, str]
    ) -> None:
        """`stored_names` gives the name in the files for each of the model's."""
        self._label = label
        self._stack = ExitStack()
        placed = {tensor.name: (file, tensor) for file in files for tensor in file.tensors}
        self._places: dict[str, tuple[WeightFile, WeightTensor]] = {
            name: placed[stored] for name, stored in stored_names.items()
        }
        self._headers = {
            name: Header(_DTYPES[tensor.dtype], tensor.shape)
            for name, (_, tensor) in self._places.items()
        }
        self._open: dict[Path, BinaryIO] = {}
        for path in dict.fromkeys(file.path for file, _ in self._places.values()):
            self._open[path] = self._stack.enter_context(path.open("rb"))

    def __enter__(self) -> StoredWeights:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    @property
    def label(self) -> str:
        """What to call the model before a person."""
        return self._label

    @property
    def headers(self) -> Mapping[str, Header]:
        """Type and shape of every tensor."""
        return self._headers

    def read(self, name: str, start: int, stop: int) -> Tensor:
        """Return numbers [start, stop) of a flattened tensor in its stored type.

        Raises BaseModelError where the file ends before them.
        """
        file, tensor = self._places[name]
        dtype = _DTYPES[tensor.dtype]
        data = bytearray((stop - start) * dtype.itemsize)
        if not data:
            return torch.empty(0, dtype=dtype)
        handle = self._open[file.path]
        handle.seek(file.data_start + tensor.begin + start * dtype.itemsize)
        if handle.readinto(data) < len(data):  # type: ignore[attr-defined]
            raise BaseModelError.one(
                str(file.path), "it became shorter while it was read", "restore the file"
            )
        return torch.frombuffer(data, dtype=dtype)


class StoredTensor(NamedTuple):
    """A tensor as a file is to hold it: under which name, which of the model's, in what form."""

    stored_name: str
    name: str
    header: Header


class StoredFile(NamedTuple):
    """A safetensors file that is to be written."""

    file_name: str
    tensors: tuple[StoredTensor, ...]


def layout_of(
    files: Sequence[WeightFile], names: Mapping[str, str], dtype: torch.dtype | None = None
) -> tuple[StoredFile, ...]:
    """Return files like these: same file names, same tensors, in the same order of bytes.

    `names` gives the model's name for each stored one; `dtype` replaces every tensor's type.
    """
    return tuple(
        StoredFile(
            file.path.name,
            tuple(
                StoredTensor(
                    tensor.name,
                    names[tensor.name],
                    Header(dtype or _DTYPES[tensor.dtype], tensor.shape),
                )
                for tensor in file.tensors
            ),
        )
        for file in files
    )


def headers_to_store(layout: Sequence[StoredFile]) -> dict[str, Header]:
    """Return the form in which a layout stores each of the model's tensors."""
    return {tensor.name: tensor.header for file in layout for tensor in file.tensors}


def write_weights(
    folder: Path,
    layout: Sequence[StoredFile],
    make: Callable[[str, Header], Iterator[Tensor]],
) -> dict[str, str]:
    """Write the files of a layout, and their index where there are several, as they come.

    `make` yields the flattened tensor of one of the model's names in stretches, in the header's
    type. Returns the digest of every tensor's bytes by the model's names. An OSError: the disk
    refuses. Format: https://github.com/huggingface/safetensors#format
    """
    digests: dict[str, str] = {}
    for file in layout:
        with (folder / file.file_name).open("wb") as handle:
            _write_header(handle, file)
            for tensor in file.tensors:
                digests[tensor.name] = _write_tensor(handle, make(tensor.name, tensor.header))
            handle.flush()
            os.fsync(handle.fileno())
    if len(layout) > 1:
        _write_index(folder, layout)
    return digests


def _write_header(handle: BinaryIO, file: StoredFile) -> None:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for tensor in file.tensors:
        end = position + _num_bytes(tensor.header)
        entries[tensor.stored_name] = {
            "dtype": _CODES[tensor.header.dtype],
            "shape": list(tensor.header.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = canonical_json(entries).encode("ascii")
    text += b" " * (-len(text) % _HEADER_ALIGNMENT)
    handle.write(len(text).to_bytes(8, "little") + text)


def _write_tensor(handle: BinaryIO, made: Iterator[Tensor]) -> str:
    digest = hashlib.sha256()
    for stretch in made:
        data = _bytes_of(stretch)
        digest.update(data)
        handle.write(data)
    return digest.hexdigest()


def tensor_digest(tensor: Tensor) -> str:
    """Return the digest of a tensor's bytes, as `write_weights` gives it."""
    digest = hashlib.sha256()
    flat = tensor.detach().reshape(-1)
    for start, stop in stretches(flat.numel()):
        digest.update(_bytes_of(flat[start:stop].cpu()))
    return digest.hexdigest()


def _bytes_of(stretch: Tensor) -> bytes:
    return stretch.contiguous().view(torch.uint8).numpy().tobytes()


def _write_index(folder: Path, layout: Sequence[StoredFile]) -> None:
    total = sum(_num_bytes(tensor.header) for file in layout for tensor in file.tensors)
    placed = {tensor.stored_name: file.file_name for file in layout for tensor in file.tensors}
    write_json(folder / _INDEX, {"metadata": {"total_size": total}, "weight_map": placed})


def _num_bytes(header: Header) -> int:
    return header.size * header.dtype.itemsize
