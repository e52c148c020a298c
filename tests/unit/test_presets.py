"""Presets lie under what a person writes, and the advice follows from what is declared."""

from __future__ import annotations

import pytest

from rewarm.errors import RecipeError
from rewarm.planning.plan import Plan
from rewarm.planning.resolve import resolve
from rewarm.recipe.advice import advise
from rewarm.recipe.load import parse_recipe
from rewarm.recipe.presets import PRESETS, Declared
from rewarm.recipe.schema import Recipe
from tests.support.fake_facts import make_model_facts
from tests.unit.test_plan import CORPORA

HEAD = """
name = "x"
[base]
path = "base"
[base.pretraining]
peak_lr = 1e-3
final_lr = 1e-4
[sources.old]
path = "a.jsonl"
role = "general"
[sources.new]
path = "b.jsonl"
role = "new"
[sources.qa]
path = "qa.jsonl"
role = "qa"
[budget]
tokens = 1_280_000
[batch]
tokens = 1_280
sequence_length = 128
"""


def recipe_of(*overrides: str) -> Recipe:
    return parse_recipe(HEAD, overrides=overrides)


def plan_of(*overrides: str) -> Plan:
    return resolve(recipe_of(*overrides), make_model_facts(), CORPORA, base_folder="base")


def refused(*overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe_of(*overrides)
    return str(caught.value)


def shares_of(plan: Plan) -> list[dict[str, float]]:
    return [
        {
            source.name: round(weight / 65_536, 3)
            for source, weight in zip(plan.science.sources, phase.weights, strict=True)
            if weight
        }
        for phase in plan.science.phases
    ]


def test_the_recipe_of_parmar() -> None:
    plan = plan_of("preset=reuse", "shift=strong")
    science = plan.science
    assert [piece.shape for piece in science.schedule] == ["cosine"]
    assert science.lr(0) == 1e-4
    assert science.schedule[-1].end_lr == pytest.approx(1e-6)
    # 0.7113 of 1,000 steps.
    assert [phase.start_step for phase in science.phases] == [0, 712]
    assert shares_of(plan) == [
        {"old": 0.25, "new": 0.75},
        {"old": 0.225, "new": 0.675, "qa": 0.1},
    ]
    assert science.optimizer.betas == (0.9, 0.95)
    assert science.optimizer.weight_decay == 0.1


def test_the_recipe_of_ibrahim() -> None:
    plan = plan_of("preset=rewarm", "shift=weak")
    pieces = [(p.shape, p.end_step, round(p.end_lr, 9)) for p in plan.science.schedule]
    assert pieces == [("linear", 10, 1e-3), ("cosine", 1000, 1e-4)]
    assert shares_of(plan) == [{"old": 0.05, "new": 0.95}]
    plan = plan_of("preset=infinite", "shift=strong")
    pieces = [(p.shape, p.end_step, round(p.end_lr, 9)) for p in plan.science.schedule]
    assert pieces == [
        ("linear", 10, 1e-3),
        ("cosine", 600, 5.5e-4),
        ("constant", 850, 5.5e-4),
        ("exponential", 1000, 1e-4),
    ]


def test_the_recipe_of_guo() -> None:
    plan = plan_of("preset=stability-gap")
    assert shares_of(plan) == [{"old": 0.18, "new": 0.82}]
    new = next(source for source in plan.science.sources if source.name == "new")
    samples = plan.science.phases[0].samples[plan.science.sources.index(new)]
    assert new.epochs(samples) == pytest.approx(4, abs=0.01)
    assert plan.science.optimizer.weight_decay == 0.01
    assert plan.science.lr(100) == pytest.approx(3e-5, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "shares", "first_lr", "last_lr"),
    [
        ("naive", {"new": 1.0}, 1e-3 / 11, 1e-4),
        ("baseline", {"old": 1.0}, 1e-4, 1e-6),
        ("constant", {"old": 0.25, "new": 0.75}, 1e-4, 1e-4),
        ("wsd", {"old": 0.25, "new": 0.75}, 1e-3 / 11, 0.0),
    ],
)
def test_wsd_and_the_controls(
    name: str, shares: dict[str, float], first_lr: float, last_lr: float
) -> None:
    plan = plan_of(
        f"preset={name}", "sources.old.max_epochs=9", 'sources.old.max_epochs_reason="control"'
    )
    assert shares_of(plan) == [shares]
    assert plan.science.lr(0) == pytest.approx(first_lr)
    assert plan.science.schedule[-1].end_lr == pytest.approx(last_lr)


@pytest.mark.parametrize("name", PRESETS)
def test_every_number_of_a_preset_has_a_reason_and_a_source(name: str) -> None:
    recipe = recipe_of(f"preset={name}")
    assert {setting.key for setting in recipe.preset_settings} >= {"phases", "schedule.kind"}
    assert all(setting.why and setting.source for setting in recipe.preset_settings)
    preset = PRESETS[name]
    assert preset.title
    assert preset.not_for


def test_a_preset_lies_under_what_a_person_writes() -> None:
    recipe = recipe_of("preset=rewarm", "schedule.final_lr=1e-5", "optimizer.weight_decay=0.3")
    assert str(recipe.schedule.final_lr) == "1e-05"
    assert str(recipe.schedule.peak_lr) == "pretraining.peak"
    assert recipe.optimizer.weight_decay == 0.3
    filled = {setting.key for setting in recipe.preset_settings}
    assert "schedule.peak_lr" in filled
    assert not filled & {"schedule.final_lr", "optimizer.weight_decay"}
    plan = plan_of("preset=rewarm", "schedule.final_lr=1e-5")
    assert plan.preset is not None
    assert {setting.field for setting in plan.preset.settings} == filled | {
        "optimizer.weight_decay"
    }


def test_phases_of_ones_own_keep_the_preset_s_schedule() -> None:
    plan = plan_of("preset=rewarm", 'phases=[{name="mine", weights={new=1}}]')
    assert shares_of(plan) == [{"new": 1.0}]
    assert plan.science.schedule[0].end_step == 10


def test_another_kind_of_schedule_rules_out_the_keys_of_the_preset_s() -> None:
    recipe = recipe_of("preset=infinite", "schedule.kind=cosine", "schedule.warmup_steps=7")
    assert recipe.schedule.kind == "cosine"
    assert recipe.schedule.warmup_steps == 7
    assert "constant_lr" not in recipe.schedule.model_fields_set
    assert recipe_of(
        "preset=rewarm",
        "schedule.kind=pieces",
        'schedule.pieces=[{shape="constant", start_lr=1e-4}]',
    )


def test_roles_without_a_source_are_left_out() -> None:
    without_old = HEAD.replace('role = "general"', 'role = "new"')
    recipe = parse_recipe(without_old, overrides=["preset=rewarm"])
    assert recipe.phases[0].roles == {"new": 1.0}
    without_qa = HEAD.replace('role = "qa"', 'role = "new"')
    recipe = parse_recipe(without_qa, overrides=["preset=reuse"])
    assert [phase.name for phase in recipe.phases] == ["general"]
    refresh = HEAD.replace('role = "new"', 'role = "quality"').replace(
        'role = "qa"', 'role = "replay"'
    )
    assert parse_recipe(refresh, overrides=["preset=rewarm"]).phases[0].roles == {"old": 1.0}
    assert parse_recipe(HEAD.replace('"general"', '"qa"').replace('"new"', '"qa"')).phases[
        0
    ].roles == {"qa": 1.0}


def test_what_a_preset_lacks_is_told() -> None:
    assert "there is no preset 'reus'" in refused("preset=reus")
    assert "did you mean 'reuse'?" in refused("preset=reus")
    without_old = HEAD.replace('role = "general"', 'role = "new"')
    with pytest.raises(RecipeError, match="one of role general, quality or replay"):
        parse_recipe(without_old, overrides=["preset=baseline"])
    with pytest.raises(RecipeError) as caught:
        parse_recipe(
            HEAD.replace('role = "new"', 'role = "qa"'),
            overrides=["preset=naive", "budget.tokens=-1"],
        )
    assert [problem.where for problem in caught.value.problems] == ["preset", "budget.tokens"]


def test_without_phases_a_preset_is_chosen() -> None:
    assert recipe_of("shift=strong").preset == "rewarm"
    assert recipe_of("shift=weak").preset == "reuse"
    assert recipe_of('phases=[{name="mine", weights={new=1}}]').preset is None


RATES = {"peak_lr": 1e-3, "final_lr": 1e-4}
BOTH = {"a": "general", "b": "new"}


@pytest.mark.parametrize(
    ("declared", "more", "preset"),
    [
        (Declared(BOTH, "strong", **RATES), {"more_to_come": True}, "infinite"),
        (
            Declared(BOTH, "strong", **RATES),
            {"budget_tokens": 10, "new_tokens": 40},
            "stability-gap",
        ),
        (Declared(BOTH, "strong", **RATES), {"budget_tokens": 10, "new_tokens": 39}, "rewarm"),
        (
            Declared({"b": "new"}, "strong", **RATES),
            {"budget_tokens": 1, "new_tokens": 9},
            "rewarm",
        ),
        (Declared(BOTH, "weak", **RATES), {}, "reuse"),
        (Declared(BOTH, None, **RATES), {}, "reuse"),
        (Declared(BOTH, "strong", None, 1e-4), {}, "reuse"),
        (Declared(BOTH, "weak", 1e-3, 0.0), {}, "rewarm"),
        (Declared(BOTH, "weak", 1e-3, None), {}, "reuse"),
        (Declared(BOTH, "strong", None, None), {"more_to_come": True}, "reuse"),
    ],
)
def test_the_advice(declared: Declared, more: dict[str, int], preset: str) -> None:
    advice = advise(declared, **more)  # type: ignore[arg-type]
    assert advice.preset == preset
    assert advice.reasons
    assert preset not in [name for name, _ in advice.others]
    assert all(name in PRESETS and why for name, why in advice.others)
