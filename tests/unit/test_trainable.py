"""Which parameters train when, and what that costs, against sets and shares worked out by hand."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from rewarm.errors import PlanError, RecipeError
from rewarm.planning import selection
from rewarm.planning.amendments import Amendments
from rewarm.planning.plan import Plan
from rewarm.planning.resolve import resolve
from rewarm.planning.selection import (
    num_trained,
    num_trained_at_a_time,
    num_untouched_layers,
)
from rewarm.planning.trainable import (
    Names,
    Stage,
    freezeout_end,
    layer_rate_scale,
    stages_of,
    trained_names,
    training_cost,
)
from rewarm.recipe.load import parse_recipe
from rewarm.recipe.parameters import FreezingRecipe, ParametersRecipe
from tests.support.fake_facts import make_model_facts
from tests.support.tiny_plans import make_plan
from tests.unit.test_plan import CORPORA, RECIPE

BLOCK = {
    "input_layernorm.weight": (8,),
    "self_attn.q_proj.weight": (8, 8),
    "self_attn.o_proj.weight": (8, 8),
    "mlp.up_proj.weight": (32, 8),
    "mlp.down_proj.weight": (8, 32),
}
SHAPES = {
    "model.embed_tokens.weight": (50, 8),
    **{f"model.layers.{n}.{name}": shape for n in range(4) for name, shape in BLOCK.items()},
    "model.norm.weight": (8,),
    "lm_head.weight": (50, 8),
}
NAMES = Names(4, SHAPES, frozenset({2}))
START = Stage(start_step=0)


def trained(*train: str, freeze: tuple[str, ...] = (), stage: Stage = START) -> set[str]:
    recipe = ParametersRecipe(train=list(train), freeze=list(freeze))
    return set(trained_names(NAMES, recipe, stage, seed=1))


def in_layers(*layers: int) -> set[str]:
    return {name for name in SHAPES if any(f".layers.{n}." in name for n in layers)}


def test_words_select_what_they_say() -> None:
    assert trained("all") == set(SHAPES)
    assert trained("embeddings") == {"model.embed_tokens.weight"}
    assert trained("head") == {"lm_head.weight"}
    assert trained("layers.1-2") == in_layers(1, 2)
    assert trained("layers.3") == trained("layers.top-1") == in_layers(3)
    assert trained("layers.bottom-2") == trained("layers.lower-half") == in_layers(0, 1)
    assert trained("layers.upper-half") == in_layers(2, 3)
    assert trained("expanded") == in_layers(2)
    assert len(trained("norms")) == 5
    assert trained("attention") == {name for name in SHAPES if "_proj" in name and "attn" in name}
    assert trained("mlp", "*.q_proj.weight") == {
        name for name in SHAPES if ".mlp." in name or "q_proj" in name
    }
    assert trained("all", freeze=("layers.lower-half", "embeddings", "head")) == {
        "model.norm.weight",
        *in_layers(2, 3),
    }


def test_names_of_other_families() -> None:
    neox = Names(
        2,
        {
            "gpt_neox.embed_in.weight": (5, 2),
            "gpt_neox.layers.0.attention.dense.weight": (2, 2),
            "gpt_neox.layers.1.mlp.dense_h_to_4h.weight": (8, 2),
            "gpt_neox.layers.1.post_attention_layernorm.weight": (2,),
            "embed_out.weight": (5, 2),
        },
    )

    def of(word: str) -> list[str]:
        return sorted(trained_names(neox, ParametersRecipe(train=[word]), START, seed=1))

    assert of("embeddings") == ["gpt_neox.embed_in.weight"]
    assert of("head") == ["embed_out.weight"]
    assert of("attention") == ["gpt_neox.layers.0.attention.dense.weight"]
    assert of("norms") == ["gpt_neox.layers.1.post_attention_layernorm.weight"]
    gpt2 = Names(
        1, {"transformer.wte.weight": (5, 2), "transformer.h.0.attn.c_attn.weight": (2, 6)}
    )
    assert trained_names(gpt2, ParametersRecipe(train=["layers.0"]), START, seed=1) == {
        "transformer.h.0.attn.c_attn.weight"
    }


def test_a_frozen_prefix_takes_the_embeddings_along() -> None:
    stage = Stage(start_step=0, frozen_layers=3)
    assert trained("all", stage=stage) == {"model.norm.weight", "lm_head.weight", *in_layers(3)}


def test_a_random_half_is_half_of_every_layer_and_another_one_in_each_phase() -> None:
    halves = [
        trained("all", stage=Stage(start_step=0, half=index)) & in_layers(0, 1, 2, 3)
        for index in range(6)
    ]
    for half in halves:
        for layer in range(4):
            of_layer = half & in_layers(layer)
            matrices = {name for name in of_layer if "norm" not in name}
            assert len(matrices) == 2
            assert len(of_layer) == 3, "norms train throughout"
    assert len({frozenset(half) for half in halves}) > 3


def test_freezeout_by_hand() -> None:
    # (0.8 + 0.2·i/4)³ for i = 0..3: 0.8³, 0.85³, 0.9³, 0.95³.
    ends = [freezeout_end(0.8, layer, 4) for layer in range(4)]
    assert ends == pytest.approx([0.512, 0.614125, 0.729, 0.857375])
    freezing = FreezingRecipe(kind="freezeout")
    stages = stages_of(ParametersRecipe(), freezing, num_layers=4, num_steps=1000, phase_starts=[0])
    assert [(stage.start_step, stage.frozen_layers) for stage in stages] == [
        (0, 0),
        (512, 1),
        (615, 2),
        (729, 3),
    ]
    # ½(1 + cos(π/2)) half-way to the lowest layer's end; nothing beyond it; the top is left alone.
    assert layer_rate_scale(freezing, 0, 4, 0.256) == pytest.approx(0.5)
    assert layer_rate_scale(freezing, 0, 4, 0.7) == 0.0
    assert layer_rate_scale(freezing, 3, 4, 0.9) == 1.0
    assert layer_rate_scale(freezing, None, 4, 0.9) == 1.0
    assert layer_rate_scale(FreezingRecipe(kind="freezeout", scale_rate=False), 0, 4, 0.4) == 1.0


def test_unfreezing_begins_at_the_top() -> None:
    stages = stages_of(
        ParametersRecipe(),
        FreezingRecipe(kind="unfreeze", all_by=0.6, keep_top=1),
        num_layers=4,
        num_steps=100,
        phase_starts=[0],
    )
    assert [(stage.start_step, stage.frozen_layers) for stage in stages] == [
        (0, 3),
        (20, 2),
        (40, 1),
        (60, 0),
    ]


def test_halves_change_where_phases_do() -> None:
    stages = stages_of(
        ParametersRecipe(random_half=True),
        FreezingRecipe(kind="freezeout"),
        num_layers=4,
        num_steps=1000,
        phase_starts=[0, 700],
    )
    assert [(stage.start_step, stage.frozen_layers, stage.half) for stage in stages] == [
        (0, 0, 0),
        (512, 1, 0),
        (615, 2, 0),
        (700, 2, 1),
        (729, 3, 1),
    ]


def test_the_cost_of_a_frozen_prefix_is_3_minus_2f() -> None:
    for frozen in range(5):
        chosen = trained("all", stage=Stage(start_step=0, frozen_layers=frozen))
        expected = 3 - 2 * frozen / 4 if frozen else 3
        assert training_cost(NAMES, chosen) == pytest.approx(expected)
    # Embeddings need the gradient all the way down, though hardly a weight trains.
    assert training_cost(NAMES, trained("embeddings")) == pytest.approx(2)
    assert training_cost(NAMES, trained("head")) == pytest.approx(1)


def plan_of(*overrides: str, tied: bool = False) -> Plan:
    model = make_model_facts().model_copy(
        update={"tensor_shapes": SHAPES, "num_layers": 4, "tied_embeddings": tied}
    )
    recipe = parse_recipe(RECIPE, overrides=overrides)
    return resolve(recipe, model, CORPORA, base_folder="base")


def test_the_plan_shows_what_is_saved() -> None:
    plan = plan_of("parameters.freeze=['layers.lower-half', 'embeddings']")
    reasons = {reason.field: reason for reason in plan.reasons}
    # 1 forward, half of the way back, half of the weights: 2 of 3.
    assert reasons["training cost"].value == "67% of all parameters'"
    assert "without layers.lower-half, embeddings" in reasons["parameters.train"].reason
    assert "training cost" not in {reason.field for reason in plan_of().reasons}
    freezing = plan_of("freezing.kind=freezeout")
    told = next(r.reason for r in freezing.reasons if r.field == "freezing.kind")
    assert told.startswith("lowest layers that do not train: 0 from step 0, 1 from step 400")


def test_estimates_are_of_what_trains() -> None:
    """Against the same plan with all of it training, by hand."""

    def estimated(*overrides: str) -> dict[str, float]:
        return {found.name: found.value for found in plan_of(*overrides).estimates}

    whole, state = estimated(), "weights, gradients and moments"
    half = estimated("parameters.freeze=['layers.lower-half', 'embeddings']")
    assert whole[state] == 4 * 1_000_000 + (4 + 8) * 3400
    # Two layers of 648 values, the last norm's 8 and the head's 400.
    assert half[state] == 4 * 1_000_000 + (4 + 8) * (2 * 648 + 8 + 400)
    head = 6 * 1000 * 100 * plan_of().science.num_tokens
    compute = "training compute"
    assert half[compute] - head == pytest.approx((whole[compute] - head) * 2 / 3)
    frozen = estimated("freezing.kind=freezeout")
    assert head < frozen[compute] < whole[compute]
    # Rank 2, 4 layers: 2 · (8 + 8) twice and 2 · (32 + 8) twice; dora's magnitudes beside them.
    adapter = "parameters.adapter={rank=2, kind='KIND'}"
    lora, dora = (estimated(adapter.replace("KIND", kind)) for kind in ("lora", "dora"))
    assert lora[state] == 4 * 1_000_000 + 12 * 4 * (2 * 32 + 2 * 80)
    assert dora[state] == lora[state] + 12 * 4 * (8 + 8 + 32 + 8)
    averaged = estimated(adapter.replace("KIND", "lora"), "retention.ema.decay=0.9")
    assert averaged["retention memory"] == 4 * 4 * (2 * 32 + 2 * 80)
    told = {reason.field: reason for reason in plan_of("parameters.adapter={rank=2}").reasons}
    assert told["parameters.adapter"].reason.startswith("896 values train beside ")


def test_of_halves_that_take_turns_one_has_moments() -> None:
    """A launch counts what trains at most at a time, as a plan does; retention keeps of both."""
    facts = make_model_facts().model_copy(update={"tensor_shapes": SHAPES})
    stages = tuple(Stage(start_step=5 * half, half=half) for half in range(2))
    update = {"stages": stages, "parameters": ParametersRecipe(random_half=True), "seed": 1}
    science = make_plan().science.model_copy(update=update)
    halves = [
        sum(
            math.prod(SHAPES[name])
            for name in trained_names(NAMES, science.parameters, stage, seed=1)
        )
        for stage in stages
    ]
    assert num_trained_at_a_time(science, facts) == max(halves)
    assert max(halves) < num_trained(science, facts) < sum(halves)


@pytest.mark.parametrize(
    ("train", "frozen", "expected", "num_asked"),
    [
        ("all", (0, 1, 2, 3), 0, 1),  # freezing, step by step
        ("all", (3, 2, 1, 0), 0, 1),  # and unfreezing: the last stage reaches all
        ("all", (2, 3), 2, 1),
        ("layers.upper-half", (0, 1, 2, 3), 2, 2),
        ("head", (0,), 4, 1),
    ],
)
def test_layers_that_no_stage_reaches(
    train: str,
    frozen: tuple[int, ...],
    expected: int,
    num_asked: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found from few stages: of a model with many layers, all of them took a plan seconds."""
    stages = tuple(Stage(start_step=5 * i, frozen_layers=n) for i, n in enumerate(frozen))
    update = {"stages": stages, "parameters": ParametersRecipe(train=[train])}
    facts = make_model_facts().model_copy(update={"tensor_shapes": SHAPES})
    asked: list[Stage] = []

    def note(names: Names, recipe: ParametersRecipe, stage: Stage, *, seed: int) -> frozenset[str]:
        asked.append(stage)
        return trained_names(names, recipe, stage, seed=seed)

    monkeypatch.setattr(selection, "trained_names", note)
    assert num_untouched_layers(make_plan().science.model_copy(update=update), facts) == expected
    assert len(asked) == num_asked


def test_stages_of_the_science_know_of_amendments() -> None:
    science = plan_of("freezing.kind=auto").science
    none = Amendments("p")
    assert science.stage_at(700, none) == Stage(start_step=0)
    one = none.with_freeze(100, science.num_steps, 2, "settled")
    two = one.with_freeze(200, science.num_steps, 3, "settled").with_skip(50, 60, "spike")
    assert two.skips(55)
    assert not two.skips(150)
    assert science.stage_at(99, two) == Stage(start_step=0)
    assert science.stage_at(100, two) == Stage(start_step=100, frozen_layers=2)
    assert science.stage_at(780, two) == Stage(start_step=200, frozen_layers=3)


def test_mistakes_are_told() -> None:
    def told(*overrides: str, tied: bool = False) -> str:
        with pytest.raises(PlanError) as caught:
            plan_of(*overrides, tied=tied)
        return str(caught.value)

    assert "parameters.train[1]: 'layers.9' selects none" in told(
        "parameters.train=['head', 'layers.9']"
    )
    assert "nothing is left to train" in told("parameters.freeze=['all']")
    assert "nothing is left" not in told("parameters.train=['layers.9']")
    for beyond in ("layers.2-4", "layers.top-5", "layers.bottom-9"):
        words = f"parameters.freeze[0]: '{beyond}' goes beyond the base, which has 4 layers"
        assert words in told(f"parameters.freeze=['{beyond}']")
    assert "use attention, mlp, or some of: down_proj, lm_head, o_proj, q_proj" in told(
        "parameters.adapter={targets=['mlp', 'w1']}"
    )
    assert "none would ever freeze" in told("freezing.kind=unfreeze", "freezing.keep_top=4")
    assert "leave one of the two out" in told("freezing.kind=auto", "parameters.adapter={}")

    def refused(*overrides: str) -> str:
        with pytest.raises(RecipeError) as caught:
            parse_recipe(RECIPE, overrides=overrides)
        return str(caught.value)

    assert "did you mean 'embeddings'?" in refused("parameters.train=['embedings']")
    assert "names no layers" in refused("parameters.train=['layers.x']")
    assert "ends before it begins" in refused("parameters.freeze=['layers.5-2']")
    assert "the weights themselves do not train" in refused(
        "parameters.adapter={rank=4}", "parameters.train=['head']"
    )


def test_keys_of_another_kind_of_freezing_are_refused() -> None:
    for kind, key, value in (
        ("none", "first", 0.5),
        ("auto", "scale_rate", False),
        ("freezeout", "every", 0.1),
        ("freezeout", "all_by", 0.9),
        ("none", "keep_top", 2),
    ):
        with pytest.raises(ValidationError, match=rf"{key} belongs to kind = .* this is '{kind}'"):
            FreezingRecipe.model_validate({"kind": kind, key: value})
    assert FreezingRecipe(kind="unfreeze", keep_top=2, first=0.8).keep_top == 2
