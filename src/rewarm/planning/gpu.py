"""The GPU that a plan is for: the one at hand, asked of the driver itself, or one that is assumed.

Planning does without torch, whose figure of a GPU's memory is the driver's too.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import re
from typing import Any, NamedTuple

from rewarm.recipe.steps import HardwareRecipe, TrainingRecipe

__all__ = ["ASSUMED_BYTES", "Gpu", "assumed_rate", "gpu_at_hand", "planned_gpu"]

_DRIVER = "libcuda.so.1"
_CAPABILITY_MAJOR, _FIRST_WITH_BF16 = 75, 8
ASSUMED_BYTES = 79 * 2**30
"""Of a GPU that is not at hand: what an A100 or H100 of 80 GB has."""
# More than any one CPU sustains.
_RATE_OF_GPUS = 2e13
# By datasheets: dense products in bf16, and in float32.
_PEAK_RATES = {"H200": (989e12, 67e12), "H100": (989e12, 67e12), "A100": (312e12, 19.5e12)}
_LEAST_KNOWN = "A100"
# What a MIG device is called: of so many of its GPU's seven slices, perhaps with a part of them.
_MIG, _SLICES = re.compile(r"\bMIG (?:(\d)c\.)?(\d)g\."), 7
# Of it, what runs of 0.5B to 3B parameters on an H200 sustained: 0.44 to 0.55 compiled, 0.24 to
# 0.38 eagerly (docs/speed.md). Smaller models sustain less.
_SUSTAINED = 0.4


class Gpu(NamedTuple):
    """What of a GPU a plan goes by."""

    name: str
    total_bytes: int
    multiplies_bf16: bool = True
    is_assumed: bool = False


def planned_gpu(training: TrainingRecipe, hardware: HardwareRecipe) -> Gpu | None:
    """Return the GPU that a plan is for; None where it is for a CPU.

    The one at hand; without one, one that is assumed where the recipe speaks of a GPU.
    """
    if training.device == "cpu":
        return None
    rate = hardware.flops_per_second or 0.0
    speaks_of_one = hardware.price_per_gpu_hour is not None or rate >= _RATE_OF_GPUS
    if (found := gpu_at_hand()) is not None:
        return found
    if training.device == "cuda" or speaks_of_one:
        return Gpu("a GPU that is not at hand", ASSUMED_BYTES, is_assumed=True)
    return None


@functools.cache
def gpu_at_hand() -> Gpu | None:
    """Return the first GPU that the driver shows; None where there is none that torch could use."""
    try:
        if "+cpu" in importlib.metadata.version("torch"):
            return None
        return _asked_of(ctypes.CDLL(_DRIVER))
    except (OSError, AttributeError, importlib.metadata.PackageNotFoundError):
        return None


def _asked_of(driver: Any) -> Gpu | None:
    """Return what the driver says of its first GPU; each call of it returns 0 for success."""
    name, total = ctypes.create_string_buffer(100), ctypes.c_size_t()
    device, major = ctypes.c_int(), ctypes.c_int()
    failed = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetName(name, len(name), device)
        or driver.cuDeviceTotalMem_v2(ctypes.byref(total), device)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
    )
    if failed:
        return None
    has_bf16 = major.value >= _FIRST_WITH_BF16
    return Gpu(name.value.decode(errors="replace"), total.value, multiplies_bf16=has_bf16)


def assumed_rate(gpu: Gpu, *, half: bool) -> tuple[float, str]:
    """Return the FLOP/s that a GPU is taken to sustain, and in words by what."""
    # An RTX A1000 is no A100.
    known = next((name for name in _PEAK_RATES if re.search(rf"{name}(?!\d)", gpu.name)), None)
    name = known or _LEAST_KNOWN
    peak = _PEAK_RATES[name][0 if half else 1]
    of_what = "" if known else f", which {gpu.name} is taken for"
    told = f"{_SUSTAINED:.0%} of {peak / 1e12:g} TFLOP/s, an {name}'s in "
    told += "bf16" if half else "float32"
    if (mig := _MIG.search(gpu.name)) is not None:
        slices = int(mig[1] or mig[2])
        return _SUSTAINED * peak * slices / _SLICES, f"{slices}/{_SLICES} of {told}{of_what}"
    return _SUSTAINED * peak, f"{told}{of_what}"
