"""Whether opening a model folder would run code that the folder names.

Every such road is refused before a library opens the folder: that they are closed by default
depends on the library's version and on what else is installed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rewarm.artifacts import parse_json
from rewarm.errors import Problems

__all__ = ["note_foreign_code", "read_bounded"]

_FILES = ("config.json", "tokenizer_config.json", "generation_config.json")
_CODE_KEYS = ("auto_map", "custom_pipelines", "trust_remote_code")
# Their value may name a kernel on the hub (org/name), which transformers would fetch and run.
_KERNEL_KEYS = ("attn_implementation", "experts_implementation")
_MAX_JSON_BYTES = 2**28


def read_bounded(path: Path) -> bytes:
    """Return the bytes of a regular file of at most 256 MiB; raises OSError or ValueError."""
    if path.exists() and not path.is_file():
        raise ValueError("it is no regular file")
    num_bytes = path.stat().st_size
    if num_bytes > _MAX_JSON_BYTES:
        raise ValueError(f"it has {num_bytes} bytes, more than {_MAX_JSON_BYTES}")
    return path.read_bytes()


def note_foreign_code(folder: Path, problems: Problems) -> None:
    """Note every road by which opening the folder would run code or load another model.

    Files that are missing or cannot be parsed have no roads; telling of them is another's work.
    """
    for name in _FILES:
        try:
            value = parse_json(read_bounded(folder / name))
        except (OSError, ValueError):
            continue
        for road in dict.fromkeys(_roads_to_code(value)):
            problems.add(
                str(folder / name),
                f"{road} asks for code to be run that is no part of transformers",
                "use a model whose architecture is part of transformers; if this one's is, "
                "remove the key",
            )
    if (folder / "adapter_config.json").exists():
        problems.add(
            str(folder / "adapter_config.json"),
            "the folder is an adapter, which loads its base from elsewhere",
            "merge it into its base (peft: merge_and_unload) and give the merged folder",
        )


def _roads_to_code(value: Any) -> Iterator[str]:
    """Yield the keys, at any depth, that lead to code; `parse_json` bounds the depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in _CODE_KEYS and inner:
                yield repr(key)
            elif _is_kernel_key(key) and "/" in json.dumps(inner):
                yield f"{key!r} = {json.dumps(inner)}"
            else:
                yield from _roads_to_code(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _roads_to_code(inner)


def _is_kernel_key(key: str) -> bool:
    """Tell whether it is one of the keys, or the name of its value inside transformers."""
    return key.strip("_").removesuffix("_internal") in _KERNEL_KEYS
