"""Writes the folder beside its place, reads it back, and only then gives it its name.

The folder is the base's with other weights: config, tokenizer, chat format and licence are the
base's own files. Weights are compared bit by bit, logits too, before the folder counts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rewarm.artifacts import file_sha256, read_json
from rewarm.errors import BaseModelError, Problems, UserError
from rewarm.export.card import ModelCard, card_text
from rewarm.export.place import (
    copy_files,
    dtype_named,
    mismatch,
    name_of_dtype,
    placed_folder,
    read_mark,
    write_card_and_mark,
    write_config,
)
from rewarm.model.load import load_base, save_weights
from rewarm.model.modes import evaluating

__all__ = ["Exported", "export_model", "find_export"]


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
    wanted = dtype_named(dtype or card.plan.conduct.model.saved_dtype, asked=dtype is not None)
    with placed_folder(folder, make_way) as temporary:
        base_config = _base_config(card)
        weights = _rounded(model, wanted)
        _write_weights(model, weights, temporary)
        del weights
        write_config(base_config, wanted, temporary)
        copy_files(Path(card.plan.conduct.base_folder), temporary)
        facts: dict[str, Any] = {"plan": card.plan.fingerprint, "step": card.step}
        if card.of_average:
            facts["weights"] = "average"
        write_card_and_mark(temporary, card_text(card), facts)
        _check(model, temporary, sample, wanted)
    return folder


class Exported(NamedTuple):
    """What a folder that was exported holds: weights after `step` updates, and what is damaged."""

    step: int
    problems: list[str]


def find_export(folder: Path, fingerprint: str) -> Exported | None:
    """Return what an exported folder holds of the plan; None where it is not of that plan."""
    mark = read_mark(folder)
    if mark is None or mark.facts.get("plan") != fingerprint:
        return None
    try:
        return Exported(int(mark.facts["step"]), mark.problems)
    except (KeyError, TypeError, ValueError):
        return None


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
            f"tensor {name} reaches {largest:.4g}, which {name_of_dtype(dtype)} cannot hold",
            "use bfloat16 or float32",
        )
    else:
        problems.add(
            "the run's weights",
            f"tensor {name} holds values that are not finite",
            "export an earlier checkpoint",
        )


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


def _check(model: nn.Module, folder: Path, sample: Tensor, dtype: torch.dtype) -> None:
    """Load the folder and compare weights and logits with the model's; raises RewarmError."""
    device = next(model.parameters()).device
    try:
        reloaded = load_base(folder, device=str(device))
    except BaseModelError as error:
        raise mismatch(f"cannot be loaded again: {error}") from error
    found = reloaded.state_dict()
    differing = _differing(model.state_dict(), found, dtype)
    if differing:
        shown = ", ".join(differing[:5]) + (", …" if len(differing) > 5 else "")
        raise mismatch(f"does not hold the run's weights: {len(differing)} differ ({shown})")
    with torch.no_grad(), evaluating(model):
        inputs = {"input_ids": sample.to(device), "use_cache": False}
        # The run's network with the weights just found equal to its own, rounded: no third copy.
        # `found` has every name, tied ones too, so there is nothing left to tie.
        expected = torch.func.functional_call(model, found, kwargs=inputs, tie_weights=False).logits
        logits = reloaded.eval()(**inputs).logits
    if not torch.equal(logits, expected):
        largest = float((logits - expected).abs().max())
        raise mismatch(f"gives other logits than the run's model, by up to {largest:.3g}")


def _differing(own: dict[str, Tensor], found: dict[str, Tensor], dtype: torch.dtype) -> list[str]:
    """Return the names that only one side has, or whose tensors differ after rounding."""
    return [
        name
        for name in sorted(own.keys() | found.keys())
        if name not in own
        or name not in found
        or not torch.equal(_cast(own[name], dtype).to(found[name].dtype), found[name])
    ]
