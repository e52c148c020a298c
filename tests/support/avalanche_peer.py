"""Lets Avalanche be imported beside a torch for CPUs.

torchvision as PyPI has it is built for another torch: its operators are declared here without code,
so that its Python can be imported. Avalanche draws plots by wandb, which is left out.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

_OPERATOR = re.compile(r"torchvision::(\w+)|register_meta\(\"(\w+)\"")
_Library: Any = torch.library.Library
_DECLARED: list[Any] = []  # as long as they live the operators are there


def make_importable() -> None:
    """Declare what torchvision registers code for, once."""
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None or _DECLARED:
        return
    text = (Path(found.origin).parent / "_meta_registrations.py").read_text(encoding="utf-8")
    names = {first or second for first, second in _OPERATOR.findall(text)}
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in sorted(names):
        library.define(f"{name}(Tensor x) -> Tensor")  # type: ignore[no-untyped-call]
    _DECLARED.append(library)


def leave_out_wandb() -> None:
    """Let `import wandb` succeed; called once all that looks for it is imported."""
    sys.modules.setdefault("wandb", ModuleType("wandb"))
