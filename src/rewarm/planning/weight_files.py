"""The tensors that a folder's safetensors files declare, read from their headers alone.

A safetensors file is 8 bytes N (unsigned, little-endian), N bytes of JSON that map each tensor's
name to `dtype`, `shape` and `data_offsets` (from the end of the header), and the tensors' bytes in
row-major order, without gaps. Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewarm.artifacts import canonical_json, parse_json
from rewarm.errors import Problems, remedy_of

__all__ = [
    "FLOAT_BYTES",
    "WeightFile",
    "WeightTensor",
    "read_weight_file",
    "read_weight_files",
    "weights_fingerprint",
]

FLOAT_BYTES = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}
"""Types of weights that can be trained, with their bytes per number."""

_ITEM_BYTES = {
    **FLOAT_BYTES,
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("I16", "U16"), 2),
    **dict.fromkeys(("I32", "U32"), 4),
    **dict.fromkeys(("I64", "U64", "C64"), 8),
}
_SINGLE_NAME = "model.safetensors"
_INDEX_NAME = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
# The library's own bound, so that no header fills the memory.
_MAX_HEADER_BYTES = 100_000_000
_MAX_INDEX_BYTES = 2**28
_END_BYTES = 2**20
_TENSOR_BYTES = 2**12


@dataclass(frozen=True, slots=True)
class WeightTensor:
    """One tensor as a header declares it; `begin` and `end` are offsets into the file's data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One safetensors file: its tensors in the order of their bytes, and where the data begin."""

    path: Path
    num_bytes: int
    data_start: int
    tensors: tuple[WeightTensor, ...]


class _DamagedError(ValueError):
    """A header that contradicts itself or its file."""


def read_weight_files(folder: Path, problems: Problems) -> tuple[WeightFile, ...]:
    """Return the files that hold the model's weights, as transformers would choose them.

    `model.safetensors` goes before an index. Noted as problems: no weights, pickles, an index that
    cannot be read or names what is not there, truncated or inconsistent files, tensors that stand
    twice, index and headers that disagree. Nothing is returned where a file cannot be used.
    """
    if (folder / _SINGLE_NAME).is_file():
        placed = None
        names = [_SINGLE_NAME]
    elif (folder / _INDEX_NAME).is_file():
        placed = _read_index(folder / _INDEX_NAME, problems)
        names = sorted(set(placed.values()))
    else:
        _note_no_weights(folder, problems)
        return ()
    files = [
        file for name in names if (file := read_weight_file(folder / name, problems)) is not None
    ]
    if len(files) < len(names):
        return ()
    if placed is not None:
        _compare_with_index(placed, files, folder / _INDEX_NAME, problems)
    return tuple(files)


def weights_fingerprint(files: Sequence[WeightFile]) -> str:
    """Return what tells checkpoints apart, without reading them whole: 64 hexadecimal digits.

    SHA-256 over every tensor's name, type and shape, every file's name and size, the first and
    last MiB of each file's data and the first 4 KiB of each tensor. Two checkpoints of one training
    differ in nearly every number, so this finds another checkpoint; it is no proof against a
    change that is made on purpose.
    """
    digest = hashlib.sha256()
    for file in files:
        shapes = [[tensor.name, tensor.dtype, *tensor.shape] for tensor in file.tensors]
        digest.update(canonical_json([file.path.name, file.num_bytes, sorted(shapes)]).encode())
        last = max(file.data_start, file.num_bytes - _END_BYTES)
        spans = [(file.data_start, _END_BYTES), (last, _END_BYTES)]
        spans += [
            (file.data_start + tensor.begin, min(_TENSOR_BYTES, tensor.end - tensor.begin))
            for tensor in file.tensors
        ]
        with file.path.open("rb") as data:
            for offset, num_bytes in spans:
                data.seek(offset)
                digest.update(data.read(num_bytes))
    return digest.hexdigest()


def _note_no_weights(folder: Path, problems: Problems) -> None:
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if (folder / "adapter_config.json").exists():
        return  # told by whoever reads the configuration
    if pickles:
        problems.add(
            str(folder),
            f"its weights are pickles ({pickles[0]}), which can run code when they are opened",
            "if you trust them, convert them once: "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder)",
        )
    elif others:
        problems.add(
            str(folder),
            f"there is no {_SINGLE_NAME} and no {_INDEX_NAME}, only {others[0]}",
            f"rename it to {_SINGLE_NAME} if it holds the whole model, or download the index",
        )
    else:
        problems.add(str(folder), f"there is no {_SINGLE_NAME}", "download the weights")


def _read_index(path: Path, problems: Problems) -> dict[str, str]:
    """Return the file of each tensor; empty, with a problem noted, where the index is no index."""
    try:
        if path.stat().st_size > _MAX_INDEX_BYTES:
            raise ValueError(f"more than {_MAX_INDEX_BYTES} bytes")
        weight_map = parse_json(path.read_bytes())["weight_map"]
        if not weight_map or not all(_is_plain_name(name) for name in weight_map.values()):
            raise ValueError("weight_map must give each tensor a file of this folder")
    except OSError as error:
        problems.add(str(path), f"cannot be read ({error.strerror})", remedy_of(error))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problems.add(str(path), f"not an index of tensors ({error})", "download it again")
    else:
        return dict(weight_map)
    return {}


def _is_plain_name(name: object) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and Path(name).name == name


def _compare_with_index(
    placed: dict[str, str], files: Sequence[WeightFile], index: Path, problems: Problems
) -> None:
    fix = "download the index and the weights of the same revision"
    found: dict[str, str] = {}
    for file in files:
        for tensor in file.tensors:
            if tensor.name in found:
                problems.add(
                    str(file.path),
                    f"tensor {tensor.name} also stands in {found[tensor.name]}",
                    fix,
                )
            found[tensor.name] = file.path.name
    for name in sorted(placed.keys() | found.keys()):
        if name not in found:
            problems.add(str(index), f"tensor {name} is in the index, but in no file", fix)
        elif name not in placed:
            problems.add(str(index), f"tensor {name} of {found[name]} is not in the index", fix)
        elif placed[name] != found[name]:
            problems.add(
                str(index), f"tensor {name} is in {found[name]}, not in {placed[name]}", fix
            )


def read_weight_file(path: Path, problems: Problems) -> WeightFile | None:
    """Return a file's tensors; None, with a problem noted, where it cannot be trusted."""
    if not path.is_file():
        problems.add(str(path), "the index names it, but it is not there", "download it")
        return None
    try:
        return _parse_file(path)
    except OSError as error:
        problems.add(str(path), f"cannot be read ({error.strerror})", remedy_of(error))
    except _DamagedError as error:
        problems.add(str(path), str(error), "download the file again; it is damaged")
    return None


def _parse_file(path: Path) -> WeightFile:
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or 8 + length > num_bytes:
            raise _DamagedError(
                f"truncated: its header ends at byte {8 + length}, the file {num_bytes}"
            )
        if length > _MAX_HEADER_BYTES:
            raise _DamagedError(
                f"its header of {length} bytes is above the format's {_MAX_HEADER_BYTES}"
            )
        header = _parse_header(file.read(length))
    tensors = [_parse_entry(name, entry) for name, entry in header.items()]
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
    _check_layout(tensors, num_bytes - 8 - length)
    return WeightFile(path, num_bytes, 8 + length, tuple(tensors))


def _parse_header(text: bytes) -> dict[str, Any]:
    try:
        header = parse_json(text)
    except ValueError as error:
        raise _DamagedError(f"its header is not valid JSON ({error})") from error
    if not isinstance(header, dict):
        raise _DamagedError("its header is not a JSON object")
    header.pop("__metadata__", None)
    if not header:
        raise _DamagedError("it holds no tensor")
    return header


def _parse_entry(name: str, entry: Any) -> WeightTensor:
    """Return the tensor that a header's entry declares, checked against its own offsets."""
    try:
        dtype, shape = entry["dtype"], entry["shape"]
        begin, end = entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise _DamagedError(f"the entry of tensor {name} is malformed") from error
    numbers = [*shape, begin, end] if isinstance(shape, list) else [None]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise _DamagedError(f"the shape or the offsets of tensor {name} are not whole numbers")
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise _DamagedError(f"tensor {name} has the unknown type {dtype!r}")
    tensor = WeightTensor(name, dtype, tuple(shape), begin, end)
    needed = tensor.size * _ITEM_BYTES[dtype]
    if end - begin != needed:
        raise _DamagedError(
            f"tensor {name} ({dtype} {list(shape)}) needs {needed} bytes, its offsets "
            f"{begin} to {end} hold {end - begin}"
        )
    return tensor


def _check_layout(tensors: Sequence[WeightTensor], num_data_bytes: int) -> None:
    """Check that the tensors, in order of their offsets, fill the data without gap or overlap."""
    position = 0
    for tensor in tensors:
        if tensor.begin != position:
            kind = "overlaps the one before it" if tensor.begin < position else "leaves a gap"
            raise _DamagedError(
                f"tensor {tensor.name} at bytes {tensor.begin} to {tensor.end} {kind}"
            )
        position = tensor.end
    if position > num_data_bytes:
        raise _DamagedError(
            f"truncated: its tensors take {position} bytes, {num_data_bytes} are there"
        )
    if position < num_data_bytes:
        raise _DamagedError(f"{num_data_bytes - position} bytes follow its last tensor")
