"""Device, precision, threads and micro-batch follow from the machine, and are told."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any, Literal

import pytest
import torch

from rewarm.distributed.world import ALONE, World
from rewarm.errors import EnvironmentFault, PlanError
from rewarm.planning.budget import largest_micro_batch
from rewarm.planning.fitting import compiles_blocks
from rewarm.planning.footprint import peak_of_placement
from rewarm.planning.memory import StepShape, kept_bytes_per_token, peak_memory
from rewarm.planning.peak import peak_estimate
from rewarm.planning.plan import Placement, Science
from rewarm.planning.selection import num_trained
from rewarm.recipe.parameters import AdapterRecipe, ParametersRecipe
from rewarm.recipe.retention import DistillRecipe, EmaRecipe, RetentionRecipe
from rewarm.recipe.steps import TrainingRecipe
from rewarm.training import half_gain as half
from rewarm.training import placement as room
from rewarm.training.placement import (
    apply_placement,
    autocast_of,
    choose_placement,
    placement_changes,
)
from tests.support.fake_facts import make_model_facts
from tests.support.tiny_plans import make_placement, make_plan

SCIENCE = make_plan().science
CPU = TrainingRecipe(device="cpu")


@pytest.fixture
def with_bf16(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(room, "cpu_has_bf16_units", lambda: request.param)


@pytest.mark.parametrize(
    ("with_bf16", "precision", "expected", "num_warnings"),
    [
        (True, "auto", "bfloat16", 0),
        (False, "auto", None, 0),
        (True, "float32", None, 0),
        (True, "bf16", "bfloat16", 0),
        (False, "bf16", "bfloat16", 1),
    ],
    indirect=["with_bf16"],
)
@pytest.mark.usefixtures("with_bf16")
def test_bf16_is_for_cpus_that_have_it(
    precision: str, expected: str | None, num_warnings: int
) -> None:
    science = SCIENCE.model_copy(update={"precision": precision})
    placement, warnings = choose_placement(CPU, science, make_model_facts(), gain=lambda _: 2.0)
    assert placement.autocast_dtype == expected
    assert len(warnings) == num_warnings
    assert all("no bf16 units" in warning for warning in warnings)


@pytest.mark.parametrize("with_bf16", [True], indirect=True)
@pytest.mark.usefixtures("with_bf16")
def test_units_that_gain_nothing_are_left_alone_unless_asked_for() -> None:
    taken = []
    for precision in ("auto", "bf16"):
        science = SCIENCE.model_copy(update={"precision": precision})
        placement, _ = choose_placement(CPU, science, make_model_facts(), gain=lambda _: 1.1)
        taken.append(placement.autocast_dtype)
    assert taken == [None, "bfloat16"]


def test_the_gain_is_of_the_fastest_product_of_each_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by what each product is made to take: 3 and 2 s, once disturbed."""
    took = iter([9.0, 4.0, 3.0, 2.0] + [3.0, 8.0] * 4)
    now = [0.0, False]

    def clock() -> float:
        now[0] += next(took) if now[1] else 0.0
        now[1] = not now[1]
        return float(now[0])

    monkeypatch.setattr("time.perf_counter", clock)
    half.half_gain.cache_clear()
    assert half.half_gain("cpu") == 1.5
    half.half_gain.cache_clear()


@pytest.mark.parametrize(
    ("training", "device", "expected"),
    [
        (TrainingRecipe(), "cpu", False),
        (TrainingRecipe(compile="blocks"), "cpu", True),
        (TrainingRecipe(), "cuda", True),
        (TrainingRecipe(compile="none"), "cuda", False),
        (TrainingRecipe(deterministic=True), "cuda", False),
        (TrainingRecipe(deterministic=True, compile="blocks"), "cuda", True),
    ],
)
def test_blocks_are_compiled_on_a_gpu_or_where_asked_for(
    training: TrainingRecipe, device: str, expected: bool
) -> None:
    """A billion parameters for ten million tokens; a run of seconds is not worth it."""
    science = SCIENCE.model_copy(update={"num_steps": 10**7 // SCIENCE.tokens_per_step})
    large = make_model_facts().model_copy(update={"num_parameters": 10**9})
    assert compiles_blocks(training, science, large, device) == expected
    small = compiles_blocks(training, science, make_model_facts(), device)
    assert small == (training.compile == "blocks")


def test_this_cpu_is_asked_without_an_error() -> None:
    assert room.cpu_has_bf16_units() in (True, False)


def test_a_processor_of_another_kind_has_no_such_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert not room.cpu_has_bf16_units()


@pytest.mark.parametrize(
    ("sequences", "each", "budget", "expected"),
    [(8, 10, 80, 8), (8, 10, 79, 4), (12, 10, 75, 6), (7, 10, 60, 1), (8, 10, 5, 1)],
)
def test_the_micro_batch_is_the_largest_divisor_that_fits(
    sequences: int, each: int, budget: int, expected: int
) -> None:
    found = largest_micro_batch(sequences, bytes_per_sequence=each, budget_bytes=budget)
    assert found == expected


@pytest.mark.parametrize("compile", ["auto", "blocks"])
def test_the_plan_estimates_what_a_launch_on_a_cpu_is_laid_as(
    compile: Literal["auto", "blocks"],
) -> None:
    """Of compiled blocks too: by twice the sequences at a time, of which less is kept."""
    science = SCIENCE.model_copy(
        update={"sequence_length": 4096, "sequences_per_step": 64, "precision": "float32"}
    )
    facts = make_model_facts()
    training = CPU.model_copy(update={"compile": compile})
    placement, _ = choose_placement(training, science, facts)
    assert placement.compiled == (compile == "blocks")
    assert 1 < placement.micro_batch_sequences < 64
    estimate = peak_estimate(training, science, facts, facts.num_parameters)
    laid = peak_of_placement(placement, science, facts, facts.num_parameters)
    assert estimate.value == laid
    at_a_time = f"{placement.micro_batch_sequences} sequences at a time in float32"
    assert at_a_time in estimate.formula
    assert ("MiB the compiler's" in estimate.formula) == placement.compiled


def test_compiled_blocks_keep_less_where_they_are_gated() -> None:
    """And the compiler its own 100 MiB on a CPU. Without a gate none was seen to keep less.

    Of 4 layers of width 100 and middle 300: a block keeps what norms read but not what they
    divided (2 · 100, not 4 · 100) and three of four arrays of the middle; in bf16 one cast of what
    products read for five (2 · 100, not 5 · 100).
    """
    facts = make_model_facts()
    plain = facts.model_copy(
        update={"tensor_shapes": {"layers.0.mlp.up.weight": (4, 2), "layers.0.norm.weight": (2,)}}
    )
    eager = StepShape(1024, 2, half=False, loss="plain", sequence_length=128)
    around = 4 * 3 * 100 + 3 * 8
    in_half = kept_bytes_per_token(facts, eager._replace(half=True, compiled=True))
    assert in_half == 4 * (4 * 200 + 2 * (200 + 400 + 900))
    by_hand = (4 * 4 * (200 + 200 + 400 + 900) + around) / (
        4 * 4 * (400 + 200 + 400 + 1200) + around
    )
    for model, share in ((facts, by_hand), (plain, 1.0)):
        kept, ours = (
            peak_memory(model, shape, state_bytes=0)
            for shape in (eager, eager._replace(compiled=True))
        )
        assert ours.kept == pytest.approx(share * kept.kept, abs=1)
        assert (kept.compiler, ours.compiler) == (0, 100 * 2**20)
        assert ours.total == ours.tensors + ours.fragmentation + 100 * 2**20
        on_gpu = eager._replace(compiled=True, on_gpu=True)
        assert peak_memory(model, on_gpu, state_bytes=0).compiler == 0


def test_what_is_mapped_by_itself_leaves_nothing_between_and_a_compiled_loss_takes_two_arrays() -> (
    None
):
    """Of 2,048 tokens and 131,072 entries of width 100, whose products take 256 MiB a chunk."""
    model = make_model_facts().model_copy(update={"vocab_size": 131_072})
    head, chunk, block = 4 * 131_072 * 100, 2**28, 2**20
    for in_half, compiled, arrays, in_heap in (
        (False, False, chunk + 2 * block + head, 2 * block),
        (False, True, 2 * chunk + head, 0),
        (True, False, chunk + 2 * block + head + head // 2, 2 * block + head // 2),
    ):
        shape = StepShape(2048, 2, half=in_half, loss="chunked", compiled=compiled)
        found = peak_memory(model, shape, state_bytes=0)
        assert found.passing == arrays
        of_kept = 0.2 if compiled else 1.1
        assert found.fragmentation == int(of_kept * found.kept + 0.2 * in_heap)


def test_logits_bound_the_micro_batch() -> None:
    science = SCIENCE.model_copy(update={"sequence_length": 2048, "sequences_per_step": 64})
    sizes = [
        choose_placement(
            CPU.model_copy(update={"loss": "plain"}),
            science,
            make_model_facts().model_copy(update={"vocab_size": size}),
        )[0].micro_batch_sequences
        for size in (1000, 32_000, 256_000)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1] * 2048 * 32_000 * 4 * 3 <= 2**30
    assert sizes[-1] == 1


def test_a_persons_micro_batch_is_taken_or_refused_never_adjusted() -> None:
    asked = TrainingRecipe(device="cpu", micro_batch_sequences=2, num_threads=3, deterministic=True)
    placement, _ = choose_placement(asked, SCIENCE, make_model_facts())
    assert placement.micro_batch_sequences == 2
    assert placement.num_threads == 3
    assert placement.deterministic
    with pytest.raises(PlanError, match="3 does not divide the step's 8 sequences"):
        choose_placement(
            TrainingRecipe(device="cpu", micro_batch_sequences=3), SCIENCE, make_model_facts()
        )


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EnvironmentFault, match="torch sees no CUDA device"):
        choose_placement(TrainingRecipe(device="cuda"), SCIENCE, make_model_facts())
    placement, _ = choose_placement(TrainingRecipe(), SCIENCE, make_model_facts())
    assert placement.device == "cpu"


class FakeGpu:
    """What is asked of torch.cuda, answered by an imaginary device."""

    def __init__(self, patch: pytest.MonkeyPatch, *, total_memory: int) -> None:
        properties = type("Properties", (), {"total_memory": total_memory})
        patch.setattr(room, "half_gain", lambda device_type: 20.0)
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
        patch.setattr(torch.cuda, "get_device_name", lambda device: "Imaginary 1")
        patch.setattr(torch.cuda, "get_device_properties", lambda device: properties)


def test_a_gpu_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeGpu(monkeypatch, total_memory=8 * 2**30)
    science = SCIENCE.model_copy(update={"precision": "auto"})
    placement, warnings = choose_placement(TrainingRecipe(), science, make_model_facts())
    assert (placement.device, placement.device_name) == ("cuda", "Imaginary 1")
    assert placement.autocast_dtype == "bfloat16"
    assert warnings == []


def test_blocks_are_computed_again_only_where_memory_asks_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A device that holds just the peak of one way takes that way, and says why."""
    facts = make_model_facts()
    science = SCIENCE.model_copy(
        update={"sequence_length": 65_536, "sequences_per_step": 1, "precision": "float32"}
    )
    FakeGpu(monkeypatch, total_memory=2**50)
    placement, warnings = choose_placement(TrainingRecipe(), science, facts)
    assert (placement.checkpointing, warnings) == ("none", [])
    peaks = {}
    for kind in ("none", "selective", "full"):
        changed = placement.model_copy(update={"checkpointing": kind})
        peaks[kind] = peak_of_placement(changed, science, facts, facts.num_parameters)
    for peak in peaks.values():
        for total in (int(peak / 0.9) + 2, peak):  # the latter leaves no tenth free
            FakeGpu(monkeypatch, total_memory=total)
            found, warnings = choose_placement(TrainingRecipe(), science, facts)
            fits = [kind for kind, peak in peaks.items() if peak <= 0.9 * total]
            taken = fits[0] if fits else "full"
            assert found == placement.model_copy(update={"checkpointing": taken})
            told = [f"{taken} activation checkpointing is used" in line for line in warnings]
            assert told == ([] if taken == "none" else [True])
            assert ("may not fit even so" in "".join(warnings)) == (not fits)
    asked = TrainingRecipe(activation_checkpointing="none")
    assert choose_placement(asked, science, facts)[0].checkpointing == "none"


def gpu_of(
    monkeypatch: pytest.MonkeyPatch, science: Science, *, total: int, world: World = ALONE
) -> Placement:
    FakeGpu(monkeypatch, total_memory=total)
    return choose_placement(TrainingRecipe(), science, make_model_facts(), world)[0]


def test_a_gpu_needs_gradients_and_moments_of_what_trains_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of an adapter: weights of all, twelve bytes more of each of its own."""
    facts = make_model_facts()
    science = SCIENCE.model_copy(update={"sequence_length": 2048, "sequences_per_step": 12})
    adapter = AdapterRecipe(kind="lora", rank=1)
    adapted = science.model_copy(update={"parameters": ParametersRecipe(adapter=adapter)})
    total = 15 * facts.num_parameters  # of 16 bytes that each weight takes that trains
    with pytest.raises(EnvironmentFault, match="weights, gradients and moments take"):
        gpu_of(monkeypatch, science, total=total)
    gpu_of(monkeypatch, adapted, total=total)
    num = num_trained(adapted, facts)
    assert num < facts.num_parameters / 10
    all_at_once = gpu_of(monkeypatch, science, total=2**50)
    total = int(peak_of_placement(all_at_once, science, facts, num) / 0.9) + 2
    assert gpu_of(monkeypatch, science, total=total).micro_batch_sequences < 12
    assert gpu_of(monkeypatch, adapted, total=total).micro_batch_sequences == 12


def test_gradients_that_are_kept_whole_count_on_every_rank() -> None:
    facts = make_model_facts()
    placement = make_placement().model_copy(update={"device": "cuda", "micro_batch_sequences": 1})
    whole = placement.model_copy(update={"whole_gradients": True})
    cut, kept = (
        peak_of_placement(p, SCIENCE, facts, facts.num_parameters, num_shards=4)
        for p in (placement, whole)
    )
    assert kept - cut == 4 * (facts.num_parameters - facts.num_parameters // 4)


def test_a_gpu_takes_the_most_sequences_whose_estimate_leaves_a_tenth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    facts = make_model_facts()
    science = SCIENCE.model_copy(
        update={"sequence_length": 2048, "sequences_per_step": 12, "precision": "bf16"}
    )
    FakeGpu(monkeypatch, total_memory=2**50)
    whole, _ = choose_placement(TrainingRecipe(), science, facts)
    assert whole.micro_batch_sequences == 12

    def peak_of(size: int, science: Science) -> int:
        placement = whole.model_copy(update={"micro_batch_sequences": size})
        return peak_of_placement(placement, science, facts, facts.num_parameters)

    sizes = (1, 2, 3, 4, 6, 12)
    peaks = {size: peak_of(size, science) for size in sizes}
    for smaller, size in itertools.pairwise(sizes):
        just = int(peaks[size] / 0.9) + 1
        for total, expected in ((just, size), (just - 2, smaller)):
            FakeGpu(monkeypatch, total_memory=total)
            found, warnings = choose_placement(TrainingRecipe(), science, facts)
            assert (found.micro_batch_sequences, warnings) == (expected, [])
    # What retention keeps beside the model is left free, and what a divergence takes is counted.
    total = int(peaks[6] / 0.9) + 1
    FakeGpu(monkeypatch, total_memory=total)
    average = RetentionRecipe(ema=EmaRecipe())
    of_base = RetentionRecipe(distill=DistillRecipe(teacher="stored", on=[SCIENCE.sources[0].name]))
    for retention, held in ((average, 4 * facts.num_parameters), (of_base, 0)):
        kept = science.model_copy(update={"retention": retention})
        found, _ = choose_placement(TrainingRecipe(), kept, facts)
        fits = [size for size in sizes if peak_of(size, kept) + held <= int(0.9 * total)]
        assert found.micro_batch_sequences == max(fits) < 6


@pytest.mark.parametrize(("length", "expected"), [(4096, 8), (8192, 4), (2048, 16), (2**17, 1)])
def test_a_gpu_takes_no_more_at_a_time_than_gained_something(
    monkeypatch: pytest.MonkeyPatch, length: int, expected: int
) -> None:
    """32,768 tokens, or a single longer sequence."""
    science = SCIENCE.model_copy(update={"sequence_length": length, "sequences_per_step": 16})
    assert gpu_of(monkeypatch, science, total=2**50).micro_batch_sequences == expected


def test_a_gpus_memory_grows_in_place_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    monkeypatch.setattr(torch._C, "_accelerator_setAllocatorSettings", told.append)
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    here, _ = choose_placement(CPU, SCIENCE, make_model_facts())
    apply_placement(here)
    assert told == []
    there = here.model_copy(update={"device": "cuda"})
    apply_placement(there)
    assert told == ["expandable_segments:True"]
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:128")
    apply_placement(there)
    assert len(told) == 1


def test_torch_takes_how_a_gpus_memory_grows_without_a_word() -> None:
    """By the real call, in a process of its own, warnings as errors."""
    code = "from rewarm.training.placement import _grow_memory_in_place as grow; grow(); grow()"
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", code], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_documents_are_kept_apart_by_what_the_device_has(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeGpu(monkeypatch, total_memory=8 * 2**30)
    science = SCIENCE.model_copy(update={"precision": "auto", "mask_documents": True})
    facts = make_model_facts()

    def chosen(**changes: Any) -> str | None:
        training = TrainingRecipe(**changes)
        return choose_placement(training, science, facts)[0].document_attention

    monkeypatch.setattr(room, "installed_packages", lambda: frozenset({"flash_attn", "triton"}))
    assert chosen() == "flash_attention_2"
    assert chosen(device="cpu") == "split"
    assert chosen(document_attention="mask") == "mask"
    monkeypatch.setattr(room, "installed_packages", lambda: frozenset({"triton"}))
    assert chosen() == "varlen"
    facts = facts.model_copy(update={"dropout": {"attention_dropout": 0.1}})
    assert chosen() == "mask"
    science = science.model_copy(update={"mask_documents": False})
    assert chosen() is None


def test_a_gpu_that_cannot_hold_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeGpu(monkeypatch, total_memory=2**20)
    with pytest.raises(EnvironmentFault, match="weights, gradients and moments take"):
        choose_placement(TrainingRecipe(), SCIENCE, make_model_facts())


def test_two_launches_on_one_machine_choose_alike() -> None:
    first, second = (choose_placement(CPU, SCIENCE, make_model_facts())[0] for _ in range(2))
    assert first.model_dump(exclude={"provenance"}) == second.model_dump(exclude={"provenance"})
    assert placement_changes(first, second) == []


def test_what_may_change_the_last_bits_is_told() -> None:
    old = make_placement().model_copy(update={"provenance": {"packages": {"torch": "2.12"}}})
    new = old.model_copy(
        update={"num_threads": 2, "provenance": {"packages": {"torch": "2.13"}, "python": "3.12"}}
    )
    assert placement_changes(old, new) == ["num_threads: 1 → 2", "torch: 2.12 → 2.13"]


def test_a_placement_is_applied() -> None:
    before = torch.get_num_threads()
    try:
        apply_placement(make_placement().model_copy(update={"num_threads": 2}))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("autocast_dtype", "expected"), [(None, torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_the_loss_is_computed_in_the_placements_precision(
    autocast_dtype: str | None, expected: torch.dtype
) -> None:
    placement = make_placement().model_copy(update={"autocast_dtype": autocast_dtype})
    left: Any = torch.ones(2, 2)
    with autocast_of(placement):
        assert (left @ left).dtype == expected


def test_ranks_that_share_matrices_share_the_data_too() -> None:
    """Two shares of eight sequences; nothing waits that transformers has added up already."""
    world = World(rank=3, size=4, local_rank=3, local_size=4, tensor_parallel=2)
    assert (world.data_rank, world.data_size) == (1, 2)
    science = SCIENCE.model_copy(update={"sequences_per_step": 8})
    shared, warnings = choose_placement(CPU, science, make_model_facts(), world)
    assert warnings == []
    assert (shared.micro_batch_sequences, shared.tensor_parallel) == (4, 2)
    assert not shared.whole_gradients
    science = SCIENCE.model_copy(update={"sequences_per_step": 1})
    _, (told,) = choose_placement(CPU, science, make_model_facts(), world)
    assert told == "4 ranks share 1 sequences per step: 2 of them have nothing to do"
