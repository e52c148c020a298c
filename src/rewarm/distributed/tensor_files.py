"""Named tensors in a folder: whole ones as safetensors, sharded ones in parts, as DCP writes them.

Either form is read into whole or sharded tensors, whatever number of ranks wrote it; each rank
reads its own rows. DCP's metadata is a pickle: it is read by names that build such metadata alone,
so that no code runs whoever wrote the folder.
"""

from __future__ import annotations

import pickle
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, ClassVar, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import (
    FileSystemReader,
    FileSystemWriter,
    _StorageInfo,
)
from torch.distributed.checkpoint.metadata import (
    _MEM_FORMAT_ENCODING,
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from rewarm.artifacts import open_to_others
from rewarm.distributed.fsdp import local, local_box
from rewarm.distributed.world import World
from rewarm.errors import CheckpointError

__all__ = [
    "Header",
    "fill",
    "fill_from_parts",
    "fill_from_safetensors",
    "place_of",
    "read_headers",
    "read_part_headers",
    "read_safetensors_headers",
    "stored_part",
    "write_tensors",
]

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_DCP_METADATA = ".metadata"

Groups = Mapping[str, Mapping[str, Tensor]]
"""Tensors by name, by group: a group is a file of its own where tensors are whole."""


class Header(NamedTuple):
    """Type and shape of a stored tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> Header:
        """Return the header under which a tensor would be stored (a sharded one: the whole)."""
        return cls(tensor.dtype, tuple(tensor.shape))


def write_tensors(folder: Path, groups: Groups, world: World) -> None:
    """Write groups of tensors; collective. An OSError says where the disk refuses."""
    if world.is_alone:
        for group, tensors in groups.items():
            _write_safetensors(folder / f"{group}.safetensors", tensors)
        return
    flat = {
        f"{g}.{name}": tensor for g, tensors in groups.items() for name, tensor in tensors.items()
    }
    writer = FileSystemWriter(folder, single_file_per_rank=True, sync_files=False)
    try:
        save(flat, storage_writer=writer, process_group=world.group)
    except CheckpointException as error:
        reasons = "; ".join(f"rank {rank}: {found[0]}" for rank, found in error.failures.items())
        raise OSError(reasons) from error
    for path in folder.glob(f"__{world.rank}_*"):
        open_to_others(path)


def place_of(folder: Path, group: str) -> Path:
    """Return what to name to a person who asks where a folder holds a group."""
    return folder if _is_sharded(folder) else folder / f"{group}.safetensors"


def read_headers(folder: Path, group: str) -> dict[str, Header]:
    """Return what a folder holds of a group; raises CheckpointError where it cannot be read."""
    if _is_sharded(folder):
        return {
            name.removeprefix(f"{group}."): header
            for name, header in read_part_headers(folder).items()
            if name.startswith(f"{group}.")
        }
    return read_safetensors_headers(folder / f"{group}.safetensors")


def read_safetensors_headers(path: Path) -> dict[str, Header]:
    """Return what a file holds; raises CheckpointError where it cannot be read."""
    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {
            name: Header(_DTYPES[found.get_dtype()], tuple(found.get_shape()))
            for name, found in slices.items()
        }


def fill(folder: Path, groups: Groups, world: World) -> None:
    """Copy a folder's tensors into given ones of the same names and shapes; collective."""
    if not _is_sharded(folder):
        for group, tensors in groups.items():
            fill_from_safetensors(folder / f"{group}.safetensors", tensors)
        return
    flat = {
        f"{group}.{name}": tensor.detach()
        for group, tensors in groups.items()
        for name, tensor in tensors.items()
    }
    fill_from_parts(folder, flat, world)


def read_part_headers(folder: Path) -> dict[str, Header]:
    """Return what tensors a DCP folder holds; raises CheckpointError where it cannot be read."""
    stored = _PartsReader(folder).read_metadata().state_dict_metadata
    return {
        name: Header(entry.properties.dtype, tuple(entry.size))
        for name, entry in stored.items()
        if isinstance(entry, TensorStorageMetadata)
    }


def fill_from_parts(folder: Path, flat: Mapping[str, Tensor], world: World) -> None:
    """Copy a DCP folder's tensors into given ones of the same names and shapes; collective."""
    with warnings.catch_warnings():
        if world.is_alone:  # torch warns of what is asked for
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        load(
            dict(flat),
            storage_reader=_PartsReader(folder),
            process_group=world.group,
            no_dist=world.is_alone,
        )


def fill_from_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors of a file into given ones; of a sharded one only this rank's part is read."""
    with _opened(path) as file, torch.no_grad():
        for name, tensor in tensors.items():
            local(tensor).copy_(_part(file, name, local_box(tensor)))


def stored_part(path: Path, name: str, box: tuple[slice, ...]) -> Tensor:
    """Return a part (a slice for each dimension) of a tensor in a safetensors file."""
    with _opened(path) as file:
        return _part(file, name, box)


def _part(file: Any, name: str, box: tuple[slice, ...]) -> Tensor:
    stored = file.get_slice(name)
    found: Tensor = stored[box] if stored.get_shape() and box else file.get_tensor(name)
    return found


def _write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, readable by whoever may read the folder."""
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(contiguous, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"{path.name}: {error}") from error
    open_to_others(path)


class _PartsReader(FileSystemReader):
    """torch's reader, but for the metadata, which torch unpickles whatever they hold."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        path = Path(self.path) / _DCP_METADATA
        try:
            with path.open("rb") as file:
                metadata = _MetadataUnpickler(file).load()
        except Exception as error:  # a damaged pickle raises whatever it likes
            raise CheckpointError.one(
                str(path), f"it cannot be read ({error})", "restore it from a copy"
            ) from error
        if not isinstance(metadata, Metadata):
            raise CheckpointError.one(
                str(path), "it is not the metadata of a DCP folder", "restore it from a copy"
            )
        if metadata.storage_meta is None:
            metadata.storage_meta = StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _MetadataUnpickler(pickle.Unpickler):
    """Finds the classes of DCP's metadata and of what they hold; refuses every other name."""

    _CLASSES = (
        *(Metadata, TensorStorageMetadata, BytesStorageMetadata, ChunkStorageMetadata),
        *(TensorProperties, MetadataIndex, StorageMeta, _MEM_FORMAT_ENCODING, _StorageInfo),
    )
    _KNOWN: ClassVar[Mapping[tuple[str, str], Any]] = {
        **{(found.__module__, found.__name__): found for found in _CLASSES},
        **{("torch", str(dtype).partition(".")[2]): dtype for dtype in _DTYPES.values()},
        ("torch", "Size"): torch.Size,
        ("torch.serialization", "_get_layout"): torch.serialization._get_layout,
        **{("pathlib", name): PurePath for name in ("PosixPath", "WindowsPath", "PurePosixPath")},
        ("pathlib._local", "PosixPath"): PurePath,
        ("collections", "OrderedDict"): OrderedDict,
    }

    def find_class(self, module: str, name: str, /) -> Any:
        try:
            return self._KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which is no part of such metadata"
            ) from None


def _is_sharded(folder: Path) -> bool:
    return (folder / _DCP_METADATA).exists()


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise CheckpointError.one(
            str(path), f"it cannot be read ({error})", "restore it from a copy"
        ) from error
