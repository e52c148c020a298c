"""A model folder that gets its name once it is whole; what it holds beside weights; its mark."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError

from rewarm.artifacts import (
    file_entries,
    fsync_folder,
    manifest_problems,
    open_to_others,
    parse_json,
    temporary_folder,
    write_atomically,
    write_json,
)
from rewarm.errors import EnvironmentFault, RewarmError, UserError

__all__ = [
    "Mark",
    "copy_files",
    "dtype_named",
    "mismatch",
    "name_of_dtype",
    "placed_folder",
    "read_mark",
    "write_card_and_mark",
    "write_config",
]

_MARK = "rewarm.json"
"""In an exported folder: what it holds, in which files."""

_CARD = "README.md"
_TOKENIZER = "tokenizer.json"

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# What a tokenizer and a chat format may consist of. Weights, code and the base's card stay behind.
_COPIED = frozenset(
    {
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "chat_template.jinja",
        "chat_template.json",
        "generation_config.json",
    }
)
_LICENCES = ("license", "licence", "copying", "notice", "use_policy")


@contextlib.contextmanager
def placed_folder(folder: Path, make_way: Callable[[], None] | None = None) -> Iterator[Path]:
    """Give an empty folder beside `folder`, which takes its name where the block ends well.

    `folder` must not be there, unless `make_way` moves it away: that is called last, so that
    whatever fails before leaves the old one in its place. Nothing else is left behind then.
    Raises UserError where the place is taken, EnvironmentFault where the disk refuses.
    """
    if make_way is None and os.path.lexists(folder):
        raise UserError.one(
            str(folder), "there is something already", "name another folder, or remove this one"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder.parent, f".{folder.name}.writing-") as temporary:
            yield temporary
            _flush(temporary)
            if make_way is not None:
                make_way()
            os.replace(temporary, folder)
            fsync_folder(folder.parent)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise EnvironmentFault(
            f"{folder} cannot be written ({reason})",
            "free some space or choose another folder, then run the command again",
        ) from error


def _flush(folder: Path) -> None:
    """Make every file as readable as any new one and durable, and the folder too."""
    open_to_others(folder)
    for path in folder.iterdir():
        open_to_others(path)
        with path.open("rb") as file:
            os.fsync(file.fileno())
    fsync_folder(folder)


# What stands beside the weights


def dtype_named(name: str, *, asked: bool) -> torch.dtype:
    """Return the type of that name; a base's that is none of them is exported as float32.

    Raises UserError where it was `asked` for and is not known.
    """
    if name not in _DTYPES and asked:
        raise UserError.one(
            "--dtype", f"{name!r} is not known", f"use one of: {', '.join(_DTYPES)}"
        )
    return _DTYPES.get(name, torch.float32)


def name_of_dtype(dtype: torch.dtype) -> str:
    """Return a type's name without its module: bfloat16."""
    return str(dtype).removeprefix("torch.")


def write_config(base_config: Mapping[str, Any], dtype: torch.dtype, folder: Path) -> None:
    """Write the base's own config with the type of the new weights.

    The library's would name the rotary base as only its version 5 reads it; older ones and other
    engines would silently take their default.
    """
    keys = [key for key in ("dtype", "torch_dtype") if key in base_config] or ["dtype"]
    config = {**base_config, **dict.fromkeys(keys, name_of_dtype(dtype))}
    write_json(folder / "config.json", config)


def copy_files(base: Path, folder: Path) -> None:
    """Copy the base's tokenizer, chat format, generation settings and licences."""
    for path in sorted(base.iterdir()):
        name = path.name.lower()
        if path.is_file() and (name in _COPIED or name.startswith(_LICENCES)):
            shutil.copyfile(path, folder / path.name)


def write_card_and_mark(folder: Path, card: str, facts: Mapping[str, Any]) -> None:
    """Write the card, and last the mark: these facts, the fingerprint of the tokenizer that stands
    beside the weights, and the hashes of all files but the card.

    People complete the card: it is theirs to change.
    """
    write_atomically(folder / _CARD, card)
    names = [path.name for path in folder.iterdir() if path.name != _CARD]
    files = file_entries(folder, names)
    tokenizer = files[_TOKENIZER]["sha256"] if _TOKENIZER in files else None
    write_json(folder / _MARK, {**facts, "tokenizer_fingerprint": tokenizer, "files": files})


class Mark(NamedTuple):
    """What an exported folder says of itself, and what is damaged in it."""

    facts: Mapping[str, Any]
    problems: list[str]


def read_mark(folder: Path) -> Mark | None:
    """Return the mark of an exported folder, every file held against its hash; None without one.

    The mark is written with the folder, which gets its name whole: a kill cannot part the two.
    """
    try:
        facts = parse_json((folder / _MARK).read_bytes())
        return Mark(facts, manifest_problems(folder, facts))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def mismatch(what: str) -> RewarmError:
    """Return the error of a folder that does not give the model back."""
    return RewarmError(
        f"the exported folder {what}\n"
        "    → nothing was exported; this is a fault of rewarm or of transformers: please report "
        "it with their versions"
    )
