"""A merged model as a folder: written stretch by stretch, read back, and only then given its name.

Config, tokenizer, chat format and licence are those of one of its inputs, its *form*. No second
model is ever in memory: what was written is compared with the digests of what was computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from rewarm.artifacts import read_json
from rewarm.errors import BaseModelError
from rewarm.export.merged_card import MergedCard, merged_card_text
from rewarm.export.place import (
    copy_files,
    mismatch,
    placed_folder,
    read_mark,
    write_card_and_mark,
    write_config,
)
from rewarm.model.average import Merge, write_merged
from rewarm.model.load import base_without_weights, load_base
from rewarm.model.modes import evaluating
from rewarm.model.weight_folder import WeightFolder
from rewarm.model.weight_stream import Header, headers_to_store, tensor_digest

__all__ = ["export_merged", "find_merged"]

_SAMPLE_SHAPE = (2, 12)


def export_merged(
    merge: Merge,
    form: WeightFolder,
    *,
    folder: Path,
    card: MergedCard,
    key: str,
    dtype: torch.dtype | None = None,
    make_way: Callable[[], None] | None = None,
) -> Path:
    """Write the merged model into `folder` and return it.

    The files are `form`'s own in names and layout, its types too unless `dtype` is given; `key`
    tells one merge from another. The folder is then loaded as its users will, in float32: its
    tensors must be those that were computed, and its logits those of the form's own network with
    them, to the last bit.

    Raises UserError for tensors that are not finite or that their type cannot hold, or a folder
    that exists and that no `make_way` moves away; EnvironmentFault where the disk refuses;
    RewarmError where the folder does not give the model back. Nothing is left behind then.
    """
    config = read_json(form.folder / "config.json", what="the config", error=BaseModelError)
    layout = form.layout(dtype)
    with placed_folder(folder, make_way) as temporary:
        digests = write_merged(merge, temporary, layout)
        write_config(config, dtype or getattr(torch, form.facts.saved_dtype), temporary)
        copy_files(form.folder, temporary)
        write_card_and_mark(temporary, merged_card_text(card), {"merge": key})
        _check(temporary, form, digests, headers_to_store(layout))
    return folder


def find_merged(folder: Path) -> tuple[str, list[str]] | None:
    """Return the key of the merge that a folder holds and what is damaged; None if it is none."""
    mark = read_mark(folder)
    if mark is None or not isinstance(mark.facts.get("merge"), str):
        return None
    return mark.facts["merge"], mark.problems


def _check(
    folder: Path, form: WeightFolder, digests: Mapping[str, str], headers: Mapping[str, Header]
) -> None:
    """Load the folder; compare tensors with digests, logits with the form's network's."""
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
        raise mismatch(
            f"does not hold what was computed: {len(differing)} tensors differ ({shown})"
        )
    sample = torch.arange(_SAMPLE_SHAPE[0] * _SAMPLE_SHAPE[1]).view(_SAMPLE_SHAPE)
    sample = sample * 13 % form.facts.vocab_size
    network = base_without_weights(form.folder, dtype=dtype)
    with torch.no_grad(), evaluating(network), evaluating(model):
        inputs = {"input_ids": sample, "use_cache": False}
        # `found` has every name, tied ones too, so there is nothing left to tie.
        expected = torch.func.functional_call(
            network, found, kwargs=inputs, tie_weights=False
        ).logits
        logits = model(**inputs).logits
    if not torch.equal(logits, expected):
        largest = float((logits - expected).abs().max())
        raise mismatch(f"gives other logits than its form's network, by up to {largest:.3g}")
