"""Bases whose weights are drawn anew: what retraining from scratch begins from."""

from __future__ import annotations

from pathlib import Path

import torch

from rewarm.artifacts import fingerprint, read_json
from rewarm.errors import BaseModelError
from rewarm.export.place import (
    copy_files,
    placed_folder,
    read_mark,
    write_card_and_mark,
    write_config,
)
from rewarm.model.load import model_drawn_anew, save_weights
from rewarm.planning.model_facts import read_model_facts

__all__ = ["make_fresh_base"]

_CARD = """\
Weights drawn anew (seed {seed}) in the shape of {base}, with its tokenizer: where an arm of a
comparison that retrains from scratch begins. Nothing was trained here.
"""


def make_fresh_base(base: Path, root: Path, seed: int) -> Path:
    """Return the folder under `root` with this base's shape and tokenizer and new weights.

    It is made where it is not there whole. The same seed gives the same weights.
    """
    facts = read_model_facts(base)
    config = dict(read_json(base / "config.json", what="the base's config", error=BaseModelError))
    # What of the base is taken over; its own weights play no part.
    made_of = {
        "seed": seed,
        "tokenizer": facts.tokenizer_fingerprint,
        "config": fingerprint(config),
    }
    folder = root / f"{base.name}-from-scratch-{seed}"
    mark = read_mark(folder)
    if mark is not None and not mark.problems and made_of.items() <= dict(mark.facts).items():
        return folder
    with placed_folder(folder, lambda: _put_aside(folder)) as temporary:
        save_weights(model_drawn_anew(base, seed), temporary)
        write_config(config, torch.float32, temporary)
        copy_files(base, temporary)
        write_card_and_mark(temporary, _CARD.format(seed=seed, base=base.name), made_of)
    return folder


def _put_aside(folder: Path) -> None:
    """Move a damaged or foreign folder away: it is not ours to delete."""
    if folder.exists():
        number = 1
        while (aside := folder.with_name(f"{folder.name}.aside-{number}")).exists():
            number += 1
        folder.rename(aside)
