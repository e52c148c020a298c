"""Writes the folder beside its place, reads it back, and only then gives it its name.

The folder is the base's with other weights: config, tokenizer, chat format and licence are the
base's own files. Weights are compared bit by bit, logits too, before the folder counts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from rewarm.artifacts import (
    file_entries,
    file_sha256,
    fsync_folder,
    manifest_problems,
    open_to_others,
    parse_json,
    read_json,
    write_atomically,
    write_json,
)
from rewarm.errors import BaseModelError, EnvironmentFault, Problems, RewarmError, UserError
from rewarm.export.card import ModelCard, card_text
from rewarm.model.load import load_base, save_weights
from rewarm.model.modes import evaluating

__all__ = ["Exported", "export_model", "find_export"]

_MARK = "rewarm.json"
"""In an exported folder: which step of which plan it holds, in which files."""

_CARD = "README.md"

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


def export_model(
    model: nn.Module,
    *,
    folder: Path,
    card: ModelCard,
    sample: Tensor,
    dtype: str | None = None,
    make_way: Callable[[], None] | None = None,
) -> Path:
    """Write `model` into `folder` and return it.

    The folder must not be there, unless `make_way` moves it away: that is called once the new one
    is verified, so that whatever fails before leaves the old one in its place.

    `model` is one of transformers', loaded from the plan's base. Weights are saved in `dtype`
    (float32, bfloat16 or float16; default: the base's own), beside the base's config, tokenizer and
    licence files and a card. The folder is then loaded as its users will; in float32 its weights
    must be those of `model` rounded to that type, and its logits on `sample` (int64 [batch, time])
    those that `model`'s own network gives with them, to the last bit.

    Raises UserError for an unknown type, one that the weights overflow, or a folder that exists,
    BaseModelError where the base changed since the plan, EnvironmentFault where the disk refuses,
    RewarmError where the folder does not give the model back. Nothing is left behind then.
    """
    wanted = _dtype_named(dtype or card.plan.conduct.model.saved_dtype, asked=dtype is not None)
    if make_way is None and os.path.lexists(folder):
        raise UserError.one(
            str(folder), "there is something already", "name another folder, or remove this one"
        )
    base_config = _base_config(card)
    weights = _rounded(model, wanted)
    try:
        with _folder_beside(folder) as temporary:
            _write_weights(model, weights, temporary)
            del weights
            _write_config(base_config, wanted, temporary / "config.json")
            _copy_files(Path(card.plan.conduct.base_folder), temporary)
            write_atomically(temporary / _CARD, card_text(card))
            _write_mark(temporary, card)
            _check(model, temporary, sample, wanted)
            _flush(temporary)
            if make_way is not None:
                make_way()
            os.replace(temporary, folder)
            fsync_folder(folder.parent)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise EnvironmentFault(
            f"{folder} cannot be written ({reason})",
            "free some space or choose another folder, then export again",
        ) from error
    return folder


class Exported(NamedTuple):
    """What a folder that was exported holds: weights after `step` updates, and what is damaged."""

    step: int
    problems: list[str]


def find_export(folder: Path, fingerprint: str) -> Exported | None:
    """Return what an exported folder holds of the plan; None where it is not of that plan.

    The mark is written with the folder, which gets its name whole: a kill cannot part the two.
    Every file is held against its hash.
    """
    try:
        mark = parse_json((folder / _MARK).read_bytes())
        if mark["plan"] != fingerprint:
            return None
        return Exported(int(mark["step"]), manifest_problems(folder, mark))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _write_mark(folder: Path, card: ModelCard) -> None:
    # People complete the card: it is theirs to change.
    names = [path.name for path in folder.iterdir() if path.name != _CARD]
    entries = file_entries(folder, names)
    write_json(folder / _MARK, {"plan": card.plan.fingerprint, "step": card.step, "files": entries})


def _dtype_named(name: str, *, asked: bool) -> torch.dtype:
    """Return the type of that name; a base's that is none of them is exported as float32."""
    if name not in _DTYPES and asked:
        raise UserError.one(
            "--dtype", f"{name!r} is not known", f"use one of: {', '.join(_DTYPES)}"
        )
    return _DTYPES.get(name, torch.float32)


def _base_config(card: ModelCard) -> dict[str, Any]:
    """Return the base's config.json, after checking that its tokenizer is still the plan's."""
    base = Path(card.plan.conduct.base_folder)
    config = read_json(base / "config.json", what="the base's config", error=BaseModelError)
    tokenizer = base / "tokenizer.json"
    if not tokenizer.is_file() or file_sha256(tokenizer) != card.plan.science.tokenizer:
        raise BaseModelError.one(
            str(tokenizer),
            "it is not the tokenizer that the run's text was prepared with",
            "restore the base's own tokenizer.json",
        )
    return dict(config)


def _rounded(model: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the model's tensors in `dtype`, on the CPU; tied names share one tensor.

    Raises UserError naming every tensor that is not finite, as it is or in that type.
    """
    problems = Problems()
    once: dict[int, Tensor] = {}
    rounded: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in once:
            once[id(tensor)] = _cast(tensor.detach(), dtype).cpu()
            if not torch.isfinite(once[id(tensor)]).all():
                _note_not_finite(name, tensor, dtype, problems)
        rounded[name] = once[id(tensor)]
    problems.raise_as(UserError)
    return rounded


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _note_not_finite(name: str, tensor: Tensor, dtype: torch.dtype, problems: Problems) -> None:
    if torch.isfinite(tensor).all():
        largest = float(tensor.detach().abs().max())
        problems.add(
            "--dtype",
            f"tensor {name} reaches {largest:.4g}, which {_name_of(dtype)} cannot hold",
            "use bfloat16 or float32",
        )
    else:
        problems.add(
            "the run's weights",
            f"tensor {name} holds values that are not finite",
            "export an earlier checkpoint",
        )


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@contextlib.contextmanager
def _folder_beside(folder: Path) -> Iterator[Path]:
    """Give a fresh folder on the same disk; whatever has not been renamed by the end is removed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_weights(model: Any, weights: dict[str, Tensor], folder: Path) -> None:
    from transformers import GenerationConfig

    generation = model.generation_config
    # The library refuses to save settings that contradict each other, as some bases' do; the base's
    # own file is copied instead.
    model.generation_config = GenerationConfig()
    try:
        save_weights(model, folder, weights)
    finally:
        model.generation_config = generation
    (folder / "generation_config.json").unlink(missing_ok=True)


def _write_config(base_config: dict[str, Any], dtype: torch.dtype, path: Path) -> None:
    """Write the base's own config with the type of the new weights.

    The library's would name the rotary base as only its version 5 reads it; older ones and other
    engines would silently take their default.
    """
    keys = [key for key in ("dtype", "torch_dtype") if key in base_config] or ["dtype"]
    write_json(path, {**base_config, **dict.fromkeys(keys, _name_of(dtype))})


def _copy_files(base: Path, folder: Path) -> None:
    for path in sorted(base.iterdir()):
        name = path.name.lower()
        if path.is_file() and (name in _COPIED or name.startswith(_LICENCES)):
            shutil.copyfile(path, folder / path.name)


def _flush(folder: Path) -> None:
    """Make every file as readable as any new one and durable, and the folder too."""
    open_to_others(folder)
    for path in folder.iterdir():
        open_to_others(path)
        with path.open("rb") as file:
            os.fsync(file.fileno())
    fsync_folder(folder)


def _check(model: nn.Module, folder: Path, sample: Tensor, dtype: torch.dtype) -> None:
    """Load the folder and compare weights and logits with the model's; raises RewarmError."""
    device = next(model.parameters()).device
    try:
        reloaded = load_base(folder, device=str(device))
    except BaseModelError as error:
        raise _mismatch(f"cannot be loaded again: {error}") from error
    found = reloaded.state_dict()
    differing = _differing(model.state_dict(), found, dtype)
    if differing:
        shown = ", ".join(differing[:5]) + (", …" if len(differing) > 5 else "")
        raise _mismatch(f"does not hold the run's weights: {len(differing)} differ ({shown})")
    with torch.no_grad(), evaluating(model):
        inputs = {"input_ids": sample.to(device), "use_cache": False}
        # The run's network with the weights just found equal to its own, rounded: no third copy.
        # `found` has every name, tied ones too, so there is nothing left to tie.
        expected = torch.func.functional_call(model, found, kwargs=inputs, tie_weights=False).logits
        logits = reloaded.eval()(**inputs).logits
    if not torch.equal(logits, expected):
        largest = float((logits - expected).abs().max())
        raise _mismatch(f"gives other logits than the run's model, by up to {largest:.3g}")


def _differing(own: dict[str, Tensor], found: dict[str, Tensor], dtype: torch.dtype) -> list[str]:
    """Return the names that only one side has, or whose tensors differ after rounding."""
    return [
        name
        for name in sorted(own.keys() | found.keys())
        if name not in own
        or name not in found
        or not torch.equal(_cast(own[name], dtype).to(found[name].dtype), found[name])
    ]


def _mismatch(what: str) -> RewarmError:
    return RewarmError(
        f"the exported folder {what}\n"
        "    → nothing was exported; this is a fault of rewarm or of transformers: please report "
        "it with their versions"
    )
