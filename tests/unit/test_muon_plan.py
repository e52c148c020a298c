"""What the plan makes of `optimizer.kind = "muon"`: memory and compute by hand, what is refused."""

from __future__ import annotations

import pytest

from rewarm.comparison.metrics import planned_values
from rewarm.errors import PlanError, RecipeError
from rewarm.planning.muon import is_muons
from rewarm.planning.plan import Plan
from rewarm.planning.resolve import resolve
from rewarm.recipe.load import parse_recipe
from tests.support.fake_facts import make_model_facts
from tests.unit.test_plan import CORPORA, RECIPE
from tests.unit.test_retention_plan import estimate, reason
from tests.unit.test_trainable import SHAPES

MUON = "optimizer.kind=muon"
STATE = "weights, gradients and moments"
# Four layers of two 8 × 8 and two 32 × 8, an embedding and a head of 50 × 8, five norms of 8.
IN_BLOCKS = 4 * (2 * 64 + 2 * 256)
VALUES = IN_BLOCKS + 2 * 400 + 5 * 8


def plan_of(*overrides: str, shapes: bool = True) -> Plan:
    model = make_model_facts()
    if shapes:
        model = model.model_copy(update={"tensor_shapes": SHAPES, "num_parameters": VALUES})
    recipe = parse_recipe(RECIPE, overrides=overrides)
    return resolve(recipe, model, CORPORA, base_folder="base")


def test_blocks_matrices_have_one_moment_in_the_estimate() -> None:
    assert estimate(plan_of(), STATE) == 16 * VALUES
    assert estimate(plan_of(MUON), STATE) == 16 * VALUES - 4 * IN_BLOCKS
    frozen = estimate(plan_of(MUON, "parameters.freeze=['layers.0-2']"), STATE)
    # Of the 1,456 values that train at most 840 are taken to be no such matrices': all others.
    left = VALUES - 3 * (2 * 64 + 2 * 256 + 8)
    assert frozen == 4 * VALUES + 12 * left - 4 * (left - (VALUES - IN_BLOCKS))


def test_without_shapes_all_but_embedding_and_head_is_taken_for_matrices() -> None:
    assert estimate(plan_of(MUON, shapes=False), STATE) == 16_000_000 - 4 * 900_000


def test_its_compute_is_counted_by_hand() -> None:
    """Of 8 × 8: 5 · (4 · 8³ + 2 · 8³) = 15,360; of 32 × 8: 5 · (4 · 8² · 32 + 2 · 8³) = 46,080."""
    plan = plan_of(MUON)
    of_step = 4 * (2 * 15_360 + 2 * 46_080)
    assert estimate(plan, "Muon compute") == plan.science.num_steps * of_step
    half = plan_of(MUON, "parameters.freeze=['layers.0-1']")
    assert estimate(half, "Muon compute") == plan.science.num_steps * of_step / 2
    assert "Muon compute" not in {found.name for found in plan_of().estimates}
    told = planned_values(plan)["planned_tflop"] - planned_values(plan_of())["planned_tflop"]
    assert told == pytest.approx(plan.science.num_steps * of_step / 1e12)


def test_each_device_does_all_of_it() -> None:
    cpu = "training.device=cpu"
    one, four = (plan_of(MUON, cpu, f"hardware.num_devices={n}") for n in (1, 4))
    without = plan_of(cpu, "hardware.num_devices=1")
    added = estimate(one, "time") - estimate(without, "time")
    assert added > 0
    assert estimate(four, "time") == pytest.approx(estimate(without, "time") / 4 + added)


def test_it_is_said_to_be_an_experiment() -> None:
    plan = plan_of(MUON)
    assert "all singular values near 1" in reason(plan, "optimizer.kind")
    (warning,) = [words for words in plan.warnings if "muon" in words]
    assert "is experimental" in warning
    assert "rewarm compare" in warning
    assert not [words for words in plan_of().warnings if "muon" in words]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("parameters.adapter={rank=2}",), "an adapter trains thin factors"),
        (("base.optimizer_state='moments.safetensors'",), "these are AdamW's moments"),
    ],
)
def test_what_does_not_go_with_it_is_refused(overrides: tuple[str, ...], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        plan_of(MUON, *overrides)
    plan_of(*overrides)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("parameters.train=['embeddings', 'norms']",), "none of them trains"),
        (("training.tensor_parallel=2",), "Muon's updates were not held against one process"),
    ],
)
def test_what_this_base_cannot_do_with_it_is_refused(
    overrides: tuple[str, ...], words: str
) -> None:
    with pytest.raises(PlanError, match=words):
        plan_of(MUON, *overrides)


def test_which_parameters_are_muons() -> None:
    assert is_muons("model.layers.0.self_attn.q_proj.weight", (64, 64))
    assert is_muons("transformer.h.3.mlp.c_fc.weight", (32, 128))
    assert not is_muons("model.layers.0.input_layernorm.weight", (64,))
    assert not is_muons("model.layers.0.mlp.experts.gate_up_proj", (8, 64, 64))
    assert not is_muons("model.embed_tokens.weight", (100, 64))
    assert not is_muons("lm_head.weight", (100, 64))
