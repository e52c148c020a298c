"""The GPU that a plan is for: the one at hand, asked of the driver itself, or one that the recipe
speaks of, of the memory that it tells or that is assumed.

Planning does without torch, whose figure of a GPU's memory is the driver's too.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import re
from pathlib import Path
from typing import Any, NamedTuple

from rewarm.recipe.steps import HardwareRecipe, TrainingRecipe

__all__ = [
    "ASSUMED_BYTES",
    "Gpu",
    "assumed_rate",
    "gpu_at_hand",
    "is_of_planned_device",
    "planned_gpu",
    "unused_gpu",
    "warn_of_unused_gpu",
]

_DRIVER = "libcuda.so.1"
_CAPABILITY_MAJOR, _FIRST_WITH_BF16 = 75, 8
# What cuInit says where there is none, or none may be seen.
_NO_DEVICE = 100
ASSUMED_BYTES = 79 * 2**30
"""Of a GPU that is not at hand: what an A100 or H100 of 80 GB has."""
# A GPU sold with 80 GB shows 79 GiB.
_SAME_MEMORY = 0.1
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
    num_here: int = 1


def planned_gpu(training: TrainingRecipe, hardware: HardwareRecipe) -> Gpu | None:
    """Return the GPU that a plan is for; None where it is for a CPU.

    The one at hand, unless the recipe speaks of another; without one, one of the memory that the
    recipe tells, or that is assumed where it speaks of a GPU otherwise.
    """
    if training.device == "cpu":
        return None
    if (found := gpu_at_hand()) is not None and _is_meant(found, hardware):
        return found
    if hardware.memory_gib_per_device is not None:
        return Gpu("the recipe's GPU", int(hardware.memory_gib_per_device * 2**30))
    rate = hardware.flops_per_second or 0.0
    speaks_of_one = (
        hardware.price_per_gpu_hour is not None
        or hardware.num_devices > 1
        or rate >= _RATE_OF_GPUS
        or training.device == "cuda"
    )
    if not speaks_of_one:
        return None
    return Gpu("a GPU that is not at hand", ASSUMED_BYTES, is_assumed=True)


def _is_meant(found: Gpu, hardware: HardwareRecipe) -> bool:
    """Tell whether the recipe may mean the GPU at hand.

    Not with another memory; nor by more devices than there are here, unless it is one of those that
    stand in clusters: a laptop's own is not one of eight.
    """
    named = hardware.memory_gib_per_device
    if named is not None:
        return abs(found.total_bytes / 2**30 - named) <= _SAME_MEMORY * named
    return hardware.num_devices <= found.num_here or _known(found.name) is not None


def is_of_planned_device(gpu: Gpu | None, device: str, device_name: str) -> bool:
    """Tell whether what was measured on a device is of the kind that a plan is for.

    What was measured on the GPU at hand is of a plan for that one alone; what was measured on some
    other GPU also stands for one that is not at hand.
    """
    if gpu is None or device == "cpu":
        return gpu is None and device == "cpu"
    here = gpu_at_hand()
    was_here = here is not None and here.name == device_name
    return was_here == (gpu == here)


def gpu_at_hand() -> Gpu | None:
    """Return the first GPU that the driver shows; None where there is none that torch could use."""
    found, why = _asked()
    return None if why else found


def unused_gpu() -> str:
    """Return in words which GPU there is and why the installed torch cannot use it, or ""."""
    found, why = _asked()
    return f"{'a GPU' if found is None else found.name} is here, but {why}" if why else ""


def warn_of_unused_gpu(training: TrainingRecipe, planned: Gpu | None) -> list[str]:
    """Say which GPU a plan is not for though it is here, or cannot be asked."""
    if training.device == "cpu" or not (planned is None or planned.is_assumed):
        return []
    why = unused_gpu()
    if not why and _torch_builds()[1] is not None:
        why = (
            "the installed torch is for ROCm, whose GPUs a plan does not see "
            "(hardware.memory_gib_per_device tells of one)"
        )
    return [f"{why}: the plan is for {'a CPU' if planned is None else planned.name}"] if why else []


@functools.cache
def _asked() -> tuple[Gpu | None, str]:
    """Return the first GPU that the driver shows, and why torch cannot use it ("": it can)."""
    cuda, _ = _torch_builds()
    try:
        driver = ctypes.CDLL(_DRIVER)
        failed = driver.cuInit(0)
        if failed:
            why = f"its driver does not answer (CUDA error {failed}): restart the machine"
            return None, "" if failed == _NO_DEVICE else why
        found = _asked_of(driver)
        version = ctypes.c_int()
        driver.cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None, ""
    if found is None:
        return None, ""
    if cuda is None:
        return found, "the installed torch is built without CUDA: install a build with it"
    newest = version.value // 1000
    if newest < cuda:
        # Within one major version older drivers do.
        return found, (
            f"its driver is of CUDA {newest}, the installed torch of CUDA {cuda}: update the "
            "driver, or install a torch built for that CUDA"
        )
    return found, ""


def _torch_builds() -> tuple[int | None, int | None]:
    """Return the major versions of CUDA and of ROCm that the installed torch is built for.

    Read from its file of versions, as nothing here loads torch.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None, None
    try:
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return None, None
    found = {name: int(major) for name, major in re.findall(r"(?m)^(cuda|hip)\b.*= '(\d+)", text)}
    return found.get("cuda"), found.get("hip")


def _asked_of(driver: Any) -> Gpu | None:
    """Return what the driver says of its first GPU; each call of it returns 0 for success."""
    name, total = ctypes.create_string_buffer(100), ctypes.c_size_t()
    device, major, count = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    failed = (
        driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetName(name, len(name), device)
        or driver.cuDeviceTotalMem_v2(ctypes.byref(total), device)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
        or driver.cuDeviceGetCount(ctypes.byref(count))
    )
    if failed:
        return None
    return Gpu(
        name.value.decode(errors="replace"),
        total.value,
        multiplies_bf16=major.value >= _FIRST_WITH_BF16,
        num_here=count.value,
    )


def assumed_rate(gpu: Gpu, *, half: bool) -> tuple[float, str]:
    """Return the FLOP/s that a GPU is taken to sustain, and in words by what."""
    known = _known(gpu.name)
    name = known or _LEAST_KNOWN
    peak = _PEAK_RATES[name][0 if half else 1]
    of_what = "" if known else f", which {gpu.name} is taken for"
    told = f"{_SUSTAINED:.0%} of {peak / 1e12:g} TFLOP/s, an {name}'s in "
    told += "bf16" if half else "float32"
    if (mig := _MIG.search(gpu.name)) is not None:
        slices = int(mig[1] or mig[2])
        return _SUSTAINED * peak * slices / _SLICES, f"{slices}/{_SLICES} of {told}{of_what}"
    return _SUSTAINED * peak, f"{told}{of_what}"


def _known(name: str) -> str | None:
    """Return which of the GPUs with a known rate one is, by its name; an RTX A1000 is no A100."""
    return next((known for known in _PEAK_RATES if re.search(rf"{known}(?!\d)", name)), None)
