"""A base with further blocks as a folder: written stretch by stretch, read back, then named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rewarm.artifacts import read_json, write_json
from rewarm.errors import BaseModelError
from rewarm.export.expanded_card import ExpandedCard, expanded_card_text
from rewarm.export.place import (
    copy_files,
    mismatch,
    placed_folder,
    read_mark,
    write_card_and_mark,
)
from rewarm.model.expand import (
    Expansion,
    expanded_config,
    expanded_layout,
    expanded_lists,
    write_expanded,
)
from rewarm.model.load import base_without_weights, load_base
from rewarm.model.modes import evaluating
from rewarm.model.weight_folder import WeightFolder
from rewarm.model.weight_stream import Header, headers_to_store, tensor_digest

__all__ = ["export_expanded", "find_expanded"]

_SAMPLE_SHAPE = (2, 12)


def export_expanded(
    base: WeightFolder, expansion: Expansion, *, folder: Path, card: ExpandedCard
) -> Path:
    """Write the deeper model into `folder` and return it.

    Files and types are the base's. The folder is then loaded in float32 (float64 where it stores
    that): its tensors must be those that were written, its layers of the kinds that they have in
    the base, and its logits on sample tokens those of the base, to the last bit.

    Raises UserError for a folder that exists, BaseModelError for a base that is not finite or whose
    blocks are not silent that way, EnvironmentFault where the disk refuses, RewarmError where the
    folder does not give the tensors back. Nothing is left behind then.
    """
    config = read_json(base.folder / "config.json", what="the config", error=BaseModelError)
    skeleton: Any = base.skeleton
    effective = skeleton.config.to_dict()
    with placed_folder(folder) as temporary:
        with base.open(base.folder.name) as weights:
            digests = write_expanded(base, weights, expansion, temporary)
        write_json(temporary / "config.json", expanded_config(config, effective, expansion))
        copy_files(base.folder, temporary)
        write_card_and_mark(temporary, expanded_card_text(card), _facts(base, expansion))
        headers = headers_to_store(expanded_layout(base, expansion))
        _check(temporary, base, expansion, digests, headers)
    return folder


def find_expanded(folder: Path, base: WeightFolder, expansion: Expansion) -> list[str] | None:
    """Return what is damaged of this very expansion in a folder; None if it holds none."""
    mark = read_mark(folder)
    wanted = _facts(base, expansion)
    if mark is None or any(mark.facts.get(key) != value for key, value in wanted.items()):
        return None
    return mark.problems


def _facts(base: WeightFolder, expansion: Expansion) -> dict[str, object]:
    """Return what tells this expansion from any other."""
    return {
        "expanded_from": base.facts.weights_fingerprint,
        "tokenizer": base.facts.tokenizer_fingerprint,
        "source_layers": list(expansion.source),
        "expanded_layers": list(expansion.expanded),
    }


def _check(
    folder: Path,
    base: WeightFolder,
    expansion: Expansion,
    digests: Mapping[str, str],
    headers: Mapping[str, Header],
) -> None:
    is_double = any(header.dtype == torch.float64 for header in headers.values())
    dtype = torch.float64 if is_double else torch.float32
    try:
        model = load_base(folder, dtype=dtype)
    except BaseModelError as error:
        raise mismatch(f"cannot be loaded again: {error}") from error
    found: dict[str, Tensor] = model.state_dict()
    differing = [
        name
        for name, digest in digests.items()
        if name not in found or tensor_digest(found[name].to(headers[name].dtype)) != digest
    ]
    if differing:
        shown = ", ".join(differing[:5]) + (", …" if len(differing) > 5 else "")
        raise mismatch(f"does not hold what was written: {len(differing)} tensors differ ({shown})")
    _check_kinds(model, base, expansion)
    _check_logits(model, found, base, expansion, dtype)


def _check_kinds(model: Any, base: WeightFolder, expansion: Expansion) -> None:
    """Make sure that every layer is of the kind (sliding, without positions, …) it has in the base.

    A sample of a few tokens does not tell windows of thousands apart.
    """
    network: Any = base.skeleton
    ours, theirs = network.config.to_dict(), model.config.to_dict()
    for key, expected in expanded_lists(ours, expansion).items():
        if theirs.get(key) != expected:
            raise mismatch(f"has {key} = {theirs.get(key)} instead of {expected}")


def _check_logits(
    model: nn.Module,
    found: Mapping[str, Tensor],
    base: WeightFolder,
    expansion: Expansion,
    dtype: torch.dtype,
) -> None:
    """Compare the logits with those of the base's own network, which has the tensors just found."""
    network = base_without_weights(base.folder, dtype=dtype)
    of_base = {
        name: found[new]
        for name in network.state_dict()
        for new, layer in expansion.new_names(name)
        if layer not in expansion.copies
    }
    sample = torch.arange(_SAMPLE_SHAPE[0] * _SAMPLE_SHAPE[1]).view(_SAMPLE_SHAPE)
    sample = sample * 13 % base.facts.vocab_size
    inputs = {"input_ids": sample, "use_cache": False}
    with torch.no_grad(), evaluating(network), evaluating(model):
        expected = torch.func.functional_call(
            network, of_base, kwargs=inputs, tie_weights=False
        ).logits
        logits = model(**inputs).logits
    if not torch.equal(logits, expected):
        largest = float((logits - expected).abs().max())
        raise BaseModelError.one(
            str(base.folder),
            f"with the copies it gives other logits than without them, by up to {largest:.3g}: "
            "what its blocks compute depends on their number, or is not simply added",
            "use a base of another family, or train its own layers ([parameters] train)",
        )
