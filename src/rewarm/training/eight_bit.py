"""AdamW with moments as 8-bit codes, torchao's, and how these lie in a checkpoint.

A moment of 4,096 numbers or more (of this rank's part) is codes, a float32 scale for every block of
256, and the table of what the codes mean; a smaller one stays as it is. Blocks follow the part of
the rank, so a checkpoint holds the parts as they are:

    exp_avg.<parameter>                                     whole, of one process
    exp_avg_codes.<p>, exp_avg_scale.<p>, exp_avg_qmap.<p>  the same in 8 bits
    exp_avg_0of2.<p>, exp_avg_codes_0of2.<p>, …             of the first of two parts

Another number of ranks reads them as the numbers that they mean (`stored_moments.py`).
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from rewarm.distributed.fsdp import Part, local, part_of
from rewarm.errors import EnvironmentFault
from rewarm.recipe.steps import OptimizerRecipe

__all__ = [
    "StoredKey",
    "dequantised",
    "import_adamw8bit",
    "new_adamw8bit",
    "parse_key",
    "step_adamw8bit",
    "stored_form",
]

_KEY = re.compile(
    r"(?P<moment>exp_avg|exp_avg_sq)(?:_(?P<field>codes|scale|qmap))?"
    r"(?:_(?P<index>\d+)of(?P<count>\d+))?\.(?P<name>.+)"
)


class StoredKey(NamedTuple):
    """What a name in a checkpoint says: `field` is codes, scale, qmap, or "" for plain numbers."""

    moment: str
    name: str
    field: str = ""
    part: Part = Part(0, 1)

    def __str__(self) -> str:
        field = f"_{self.field}" if self.field else ""
        part = f"_{self.part.index}of{self.part.count}" if self.part.count > 1 else ""
        return f"{self.moment}{field}{part}.{self.name}"


def parse_key(text: str) -> StoredKey | None:
    """Return what a name says; None where it is no moment's."""
    match = _KEY.fullmatch(text)
    if match is None:
        return None
    part = Part(int(match["index"]), int(match["count"])) if match["count"] else Part(0, 1)
    return StoredKey(match["moment"], match["name"], match["field"] or "", part)


def import_adamw8bit() -> Any:
    """Return torchao's class; raises EnvironmentFault where it cannot be imported.

    Done before transformers are, which import torchao too, it keeps off the terminal that torchao
    finds kernels for other machines which it cannot load.
    """
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torchao.optim import AdamW8bit
    except ImportError as error:
        raise EnvironmentFault(
            f'optimizer.kind = "adamw8bit" is torchao\'s, which cannot be imported ({error})',
            'pip install torchao; or plan the run with optimizer.kind = "adamw"',
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    return AdamW8bit


def new_adamw8bit(groups: list[dict[str, Any]], recipe: OptimizerRecipe) -> Optimizer:
    """Return torchao's AdamW over groups of named parameters, its rate 0, its moments zeros.

    Raises EnvironmentFault where torchao is not installed.
    """
    optimizer: Optimizer = import_adamw8bit()(groups, lr=0.0, betas=recipe.betas, eps=recipe.eps)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            # What its first step would do.
            optimizer.state[parameter] = {
                "step": torch.tensor(0.0),
                "exp_avg": optimizer._new_buffer(parameter, True),  # type: ignore[attr-defined]
                "exp_avg_sq": optimizer._new_buffer(parameter, False),  # type: ignore[attr-defined]
            }
    return optimizer


def step_adamw8bit(optimizer: Optimizer) -> None:
    """Update the weights: compiled on a GPU, unless same bits are wanted, and eager on a CPU."""
    device = optimizer.param_groups[0]["params"][0].device
    eager = device.type == "cpu" or torch.are_deterministic_algorithms_enabled()
    with torch.compiler.set_stance("force_eager" if eager else "default"):
        optimizer.step()


def stored_form(moment: str, name: str, tensor: Tensor) -> dict[str, Tensor]:
    """Return a moment's own tensors by the names that they have in a checkpoint.

    Of many ranks, this one's part; an empty part has none.
    """
    part = part_of(tensor) if isinstance(tensor, DTensor) else Part(0, 1)
    here = local(tensor)
    if part.count > 1 and not here.numel():
        return {}
    fields = _fields_of(here)
    if not fields:
        return {str(StoredKey(moment, name, "", part)): here}
    return {str(StoredKey(moment, name, field, part)): getattr(here, field) for field in fields}


def _fields_of(tensor: object) -> Sequence[str]:
    """Return the names of the tensors that make up one of torchao's; none for a plain one."""
    return tensor.__tensor_flatten__()[0] if is_traceable_wrapper_subclass(tensor) else ()


def dequantised(stored: Mapping[str, Tensor]) -> Tensor:
    """Return the numbers that codes, scale and qmap mean; plain numbers (field "") as they are.

    Code c of block b means qmap[c] · scale[b] (Dettmers et al. 2022, section 2).
    """
    if "" in stored:
        return stored[""]
    codes, scale, qmap = (stored[field] for field in ("codes", "scale", "qmap"))
    blocks = qmap[codes.long()].view(len(scale), -1) * scale[:, None]
    return blocks.view(codes.shape)
