"""A plan for a GPU: what it takes, how long and what it costs, without one being there."""

from __future__ import annotations

import ctypes
import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from rewarm.distributed.world import World
from rewarm.errors import EnvironmentFault
from rewarm.planning import gpu as gpus
from rewarm.planning import resolve as resolving
from rewarm.planning.footprint import peak_of_placement
from rewarm.planning.gpu import (
    ASSUMED_BYTES,
    Gpu,
    assumed_rate,
    gpu_at_hand,
    planned_gpu,
    unused_gpu,
)
from rewarm.planning.peak import peak_estimate
from rewarm.planning.plan import Estimate, Plan
from rewarm.planning.probed import with_probe
from rewarm.planning.resolve import resolve
from rewarm.planning.retention import retention_cost
from rewarm.recipe.load import parse_recipe
from rewarm.recipe.retention import EmaRecipe, RetentionRecipe
from rewarm.recipe.steps import HardwareRecipe, TrainingRecipe
from rewarm.training.placement import choose_placement
from tests.support.fake_facts import make_model_facts
from tests.support.tiny_plans import make_plan
from tests.unit.test_plan import CORPORA, RECIPE
from tests.unit.test_probe import made_probe
from tests.unit.test_training_placement import FakeGpu

H100 = Gpu("NVIDIA H100 80GB HBM3", 79 * 2**30)
LAPTOPS = Gpu("NVIDIA GeForce RTX 3050 Laptop GPU", 4 * 2**30)


@pytest.mark.parametrize("num_ranks", [1, 4])
@pytest.mark.parametrize("share", [0.2, 1.0, 1000.0])
@pytest.mark.parametrize("asked", [{}, {"micro_batch_sequences": 2, "compile": "blocks"}])
def test_the_plan_estimates_what_a_launch_on_gpus_is_laid_as(
    monkeypatch: pytest.MonkeyPatch, num_ranks: int, share: float, asked: dict[str, Any]
) -> None:
    """On one or many, of little memory or much; what an average keeps is left free and counted."""
    facts = make_model_facts()
    science = make_plan().science.model_copy(
        update={
            "sequence_length": 2048,
            "sequences_per_step": 16,
            "precision": "auto",
            "retention": RetentionRecipe(ema=EmaRecipe()),
        }
    )
    total = int(16 * facts.num_parameters * (1 + 20 * share))
    FakeGpu(monkeypatch, total_memory=total)
    world = World(size=num_ranks, local_size=num_ranks)
    training = TrainingRecipe(**asked)
    placement, _ = choose_placement(training, science, facts, world)
    retained = int(retention_cost(science, facts).num_bytes)
    estimate = peak_estimate(
        training,
        science,
        facts,
        facts.num_parameters,
        retention_bytes=retained,
        gpu=Gpu("Imaginary 1", total),
        num_devices=num_ranks,
    )
    laid = peak_of_placement(placement, science, facts, facts.num_parameters, num_shards=num_ranks)
    assert estimate.value == laid + retained // num_ranks
    assert f"; {placement.micro_batch_sequences} sequence" in estimate.formula
    told = f"{placement.checkpointing} activation checkpointing"
    assert (told in estimate.formula) == (placement.checkpointing != "none")
    assert ("that there are for it" in estimate.formula) == (
        laid > 0.9 * total - retained / num_ranks
    )
    assert ("on each of 4 that share the weights" in estimate.formula) == (num_ranks == 4)
    assert "fragmentation" not in estimate.formula


def test_a_gpu_is_planned_for_where_the_recipe_speaks_of_one_or_one_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain, asked = HardwareRecipe(), TrainingRecipe(device="cuda")
    assert planned_gpu(TrainingRecipe(), plain) is None
    for training, hardware in (
        (asked, plain),
        (TrainingRecipe(), HardwareRecipe(price_per_gpu_hour=2)),
        (TrainingRecipe(), HardwareRecipe(flops_per_second=4e14)),
        (TrainingRecipe(), HardwareRecipe(num_devices=8)),
    ):
        found = planned_gpu(training, hardware)
        assert found is not None
        assert (found.total_bytes, found.is_assumed) == (ASSUMED_BYTES, True)
        assert planned_gpu(TrainingRecipe(device="cpu"), hardware) is None
    assert planned_gpu(TrainingRecipe(), HardwareRecipe(flops_per_second=1e12)) is None
    monkeypatch.setattr(gpus, "gpu_at_hand", lambda: H100)
    assert planned_gpu(TrainingRecipe(), plain) == planned_gpu(asked, plain) == H100
    assert planned_gpu(TrainingRecipe(device="cpu"), plain) is None


@pytest.mark.parametrize(
    ("at_hand", "hardware", "is_planned_for"),
    [
        (LAPTOPS, HardwareRecipe(price_per_gpu_hour=2), True),  # rented, perhaps
        (LAPTOPS, HardwareRecipe(num_devices=8), False),
        (LAPTOPS._replace(num_here=2), HardwareRecipe(num_devices=2), True),
        (H100, HardwareRecipe(num_devices=8), True),
        (LAPTOPS, HardwareRecipe(memory_gib_per_device=80), False),
        (LAPTOPS, HardwareRecipe(memory_gib_per_device=4, num_devices=8), True),
        (H100, HardwareRecipe(memory_gib_per_device=80), True),  # as it is sold
        (H100, HardwareRecipe(memory_gib_per_device=141), False),
    ],
)
def test_a_laptops_own_gpu_is_not_the_one_that_the_recipe_speaks_of(
    monkeypatch: pytest.MonkeyPatch, at_hand: Gpu, hardware: HardwareRecipe, is_planned_for: bool
) -> None:
    monkeypatch.setattr(gpus, "gpu_at_hand", lambda: at_hand)
    found = planned_gpu(TrainingRecipe(), hardware)
    assert found is not None
    assert (found == at_hand) == is_planned_for
    if not is_planned_for:
        named = hardware.memory_gib_per_device
        assert found.total_bytes == (ASSUMED_BYTES if named is None else named * 2**30)
        assert found.is_assumed == (named is None)


def test_a_plan_says_of_which_memory_the_recipe_tells() -> None:
    found = estimates_of("hardware.memory_gib_per_device=24")
    assert "on the recipe's GPU, eager (24 GiB)" in found["peak memory"].formula
    assert "an A100's in bf16, which the recipe's GPU is taken for" in found["time"].formula


class FakeDriver:
    """Answers as libcuda does, by writing where it is told to."""

    def __init__(self, *, major: int = 9, cuda: int = 12080, fails: str = "", code: int = 100):
        self._major, self._cuda, self._fails, self._code = major, cuda, fails, code

    def __getattr__(self, call: str) -> Any:
        def answered(*arguments: Any) -> int:
            if call == "cuDeviceGetName":
                arguments[0].value = b"NVIDIA H100 80GB HBM3"
            elif call == "cuDeviceTotalMem_v2":
                arguments[0]._obj.value = 79 * 2**30
            elif call == "cuDeviceGetAttribute":
                assert arguments[1] == 75  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
                arguments[0]._obj.value = self._major
            elif call == "cuDeviceGetCount":
                arguments[0]._obj.value = 1
            elif call == "cuDriverGetVersion":
                arguments[0]._obj.value = self._cuda
            return self._code if call == self._fails else 0

        return answered


Builds = tuple[int | None, int | None]


def shown_by(monkeypatch: pytest.MonkeyPatch, driver: FakeDriver, builds: Builds) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    monkeypatch.setattr(gpus, "_torch_builds", lambda: builds)
    gpus._asked.cache_clear()


def test_the_driver_tells_of_the_gpu_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_at_hand() is None
    for driver, expected in (
        (FakeDriver(), H100),
        (FakeDriver(cuda=12000), H100),  # older by a minor version
        (FakeDriver(cuda=13010), H100),
        (FakeDriver(major=7), H100._replace(multiplies_bf16=False)),
        *((FakeDriver(fails=call), None) for call in ("cuInit", "cuDeviceTotalMem_v2")),
    ):
        shown_by(monkeypatch, driver, (12, None))
        assert gpu_at_hand() == expected
        assert unused_gpu() == ""


@pytest.mark.parametrize(
    ("driver", "builds", "told"),
    [
        (
            FakeDriver(cuda=11040),
            (12, None),
            "NVIDIA H100 80GB HBM3 is here, but its driver is of CUDA 11, the installed torch of "
            "CUDA 12: update the driver",
        ),
        (FakeDriver(), (None, None), "HBM3 is here, but the installed torch is built without CUDA"),
        (
            FakeDriver(fails="cuInit", code=803),
            (12, None),
            "a GPU is here, but its driver does not answer (CUDA error 803)",
        ),
        (FakeDriver(fails="cuInit"), (None, 6), "the installed torch is for ROCm"),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_told_of(
    monkeypatch: pytest.MonkeyPatch, driver: FakeDriver, builds: Builds, told: str
) -> None:
    """By a plan, which is for something else, and by a launch that falls back on the CPU."""
    shown_by(monkeypatch, driver, builds)
    assert gpu_at_hand() is None
    (warning,) = plan_with().warnings
    assert told in warning
    assert warning.endswith(": the plan is for a CPU")
    assert told in plan_with("training.device=cuda").warnings[0]
    assert not plan_with("training.device=cpu").warnings
    assert not plan_with("hardware.memory_gib_per_device=24").warnings
    if builds[1] is not None:
        return
    facts, science = make_model_facts(), make_plan().science
    _, warnings = choose_placement(TrainingRecipe(), science, facts)
    assert told in warnings[0]
    assert warnings[0].endswith("; training is on the CPU")
    assert not choose_placement(TrainingRecipe(device="cpu"), science, facts)[1]
    with pytest.raises(EnvironmentFault, match=r"torch sees no CUDA device: .* is here, but"):
        choose_placement(TrainingRecipe(device="cuda"), science, facts)


@pytest.mark.parametrize(
    ("text", "builds"),
    [
        (
            "__version__ = '2.13.0'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None",
            (13, None),
        ),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '6.2.41133-dd7f95766'", (None, 6)),
        ("cuda = None\nhip = None", (None, None)),
    ],
)
def test_what_torch_is_built_for_is_read_without_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, builds: Builds
) -> None:
    monkeypatch.undo()
    (tmp_path / "version.py").write_text(text)
    spec = ModuleSpec("torch", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert gpus._torch_builds() == builds
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert gpus._torch_builds() == (None, None)


def plan_with(*overrides: str) -> Plan:
    recipe = parse_recipe(RECIPE, overrides=overrides)
    return resolve(recipe, make_model_facts(), CORPORA, base_folder="base")


def estimates_of(*overrides: str) -> dict[str, Estimate]:
    return {estimate.name: estimate for estimate in plan_with(*overrides).estimates}


def test_a_plan_for_a_gpu_that_is_not_at_hand_says_what_it_assumes() -> None:
    found = estimates_of("training.device=cuda", "hardware.price_per_gpu_hour=2")
    assert "on a GPU that is not at hand, eager, 79 GiB of memory assumed" in (
        found["peak memory"].formula
    )
    compute = sum(found[name].value for name in ("training compute", "evaluation compute"))
    assert found["time"].value == pytest.approx(compute / (0.4 * 312e12))
    assert "40% of 312 TFLOP/s" in found["time"].formula
    assert found["cost"].value == pytest.approx(found["time"].value / 3600 * 2)
    assert "at a rate that is assumed, 1.25e+14 FLOP/s, 40% of 312" in found["cost"].formula


def test_rates_are_assumed_by_the_gpus_name_and_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "planned_gpu", lambda *arguments: H100)
    half, whole = (estimates_of(f"training.precision={name}") for name in ("auto", "float32"))
    assert whole["time"].value / half["time"].value == pytest.approx(989 / 67)
    assert "40% of 989 TFLOP/s, an H100's in bf16" in half["time"].formula
    assert "40% of 67 TFLOP/s, an H100's in float32" in whole["time"].formula
    given = estimates_of("hardware.flops_per_second=1e14")["time"]
    assert "assumed" not in given.formula


@pytest.mark.parametrize(
    ("name", "rate", "told"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12, "40% of 312 TFLOP/s, an A100's in bf16"),
        ("NVIDIA GH200 480GB", 989e12, "40% of 989 TFLOP/s, an H200's in bf16"),
        (
            "NVIDIA RTX A1000 Laptop GPU",
            312e12,
            "40% of 312 TFLOP/s, an A100's in bf16, which NVIDIA RTX A1000 Laptop GPU is taken for",
        ),
        (
            "NVIDIA H100 80GB HBM3 MIG 2g.20gb",
            989e12 * 2 / 7,
            "2/7 of 40% of 989 TFLOP/s, an H100's in bf16",
        ),
        (
            "NVIDIA A100-SXM4-40GB MIG 1c.3g.20gb",
            312e12 / 7,
            "1/7 of 40% of 312 TFLOP/s, an A100's in bf16",
        ),
    ],
)
def test_whose_rate_is_assumed(name: str, rate: float, told: str) -> None:
    """Of a MIG device its share; what is called nearly as a known one is none."""
    found, of_what = assumed_rate(Gpu(name, 2**34), half=True)
    assert found == pytest.approx(0.4 * rate)
    assert of_what == told


def test_cost_and_energy_say_that_their_time_is_of_an_assumed_rate() -> None:
    cpu = ("training.device=cpu", "hardware.price_per_gpu_hour=2", "hardware.watts_per_device=90")
    guessed = estimates_of(*cpu)
    measured_rate = estimates_of(*cpu, "hardware.flops_per_second=5e10")
    for name in ("cost", "energy"):
        assert guessed[name].value == measured_rate[name].value
        assert "at a rate that is assumed" in guessed[name].formula
        assert "assumed" not in measured_rate[name].formula
    assert "5e+10 FLOP/s, a CPU's in float32" in guessed["cost"].formula
    plan = make_plan()
    plan = plan.model_copy(update={"estimates": tuple(guessed.values())})
    probed = {found.name: found for found in with_probe(plan, made_probe(plan)).estimates}
    for name in ("cost", "energy"):
        assert "assumed" not in probed[name].formula
        assert probed[name].formula.endswith("the time as measured")
