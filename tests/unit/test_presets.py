"""Presets lie under what a person writes, and the advice follows from what is declared."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from rewarm.errors import RecipeError, UserError
from rewarm.planning.plan import Plan
from rewarm.planning.resolve import resolve
from rewarm.recipe.advice import RULES, Advice, Situation, advise
from rewarm.recipe.load import parse_recipe
from rewarm.recipe.presets import PRESETS, REUSE, REWARM, Declared, Shift
from rewarm.recipe.schema import Recipe
from tests.support.fake_facts import make_corpus_facts, make_model_facts
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


def test_the_three_techniques_of_the_summary() -> None:
    recipe = recipe_of("preset=summary", "shift=weak")
    assert recipe.parameters.random_half
    assert recipe.freezing.kind == "freezeout"
    rehearse = recipe.sources["rehearsed"].rehearse
    assert rehearse is not None
    # 5 % of 1,280,000 tokens, shown twice, with a tenth to spare and room for windows.
    assert rehearse.tokens == 35_200 + 4096
    assert recipe.phases[0].roles == {"new": 0.95, "old": 0.05}


@pytest.mark.parametrize("name", PRESETS)
def test_every_number_of_a_preset_has_a_reason_and_a_source(name: str) -> None:
    recipe = recipe_of(f"preset={name}")
    assert {setting.key for setting in recipe.preset_settings} >= {"phases", "schedule.kind"}
    assert all(setting.why and setting.source for setting in recipe.preset_settings)
    preset = PRESETS[name]
    assert preset.title
    assert preset.not_for


def test_a_share_s_source_is_told_beside_the_blends_own() -> None:
    phases = recipe_of("preset=reuse").preset_settings[-1]
    assert phases.source == f"{REUSE}; replay: {REWARM}"
    mixture = parse_recipe(HEAD.replace('"general"', '"new"'), overrides=["preset=stability-gap"])
    said = mixture.preset_settings[-1]
    assert "no text like the pretraining's" in said.why
    assert said.source == "chosen here"


def test_a_warmup_of_ones_own_moves_no_switch() -> None:
    plan = plan_of("preset=reuse", "schedule.warmup_fraction=0.05")
    switch = plan.science.phases[1].start_step
    assert plan.science.lr(switch) < 1e-4 / 5 <= plan.science.lr(switch - 1)
    assert switch == 50 + 676  # 0.7113 of the other 950 steps


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


ROLES = ("general", "quality", "replay", "new", "qa")
RATES_BY_NAME = {
    "both": "peak_lr = 1e-3\nfinal_lr = 1e-4",
    "decayed": "peak_lr = 1e-3\nfinal_lr = 0",
    "peak": "peak_lr = 1e-3",
    "nothing": "",
}
TO_THE_PEAK = ("rewarm", "infinite", "wsd", "naive")


def tiny_recipe(
    preset: str,
    roles: tuple[str, ...],
    shift: Shift | None,
    rates: str = "both",
    *,
    num_steps: int = 40,
) -> str:
    said = "" if shift is None else f'shift = "{shift}"\n'
    sources = "".join(f'[sources.{role}]\npath = "{role}"\nrole = "{role}"\n' for role in roles)
    return (
        f'name = "x"\npreset = "{preset}"\n{said}[base]\npath = "base"\n[base.pretraining]\n'
        f"{RATES_BY_NAME[rates]}\n{sources}[budget]\ntokens = {256 * num_steps}\n"
        "[batch]\ntokens = 256\nsequence_length = 32\n"
    )


def plan_tiny(text: str, roles: tuple[str, ...], *, num_tokens: int = 4_000) -> Plan | str:
    """Return the plan, or what a person is told in its place."""
    try:
        recipe = parse_recipe(text)
        corpora = {
            name: make_corpus_facts(
                name,
                source.role,
                num_tokens=num_tokens if source.rehearse is None else source.rehearse.tokens,
            )
            for name, source in recipe.sources.items()
        }
        return resolve(recipe, make_model_facts(), corpora, base_folder="base")
    except UserError as error:
        return str(error)


def role_subsets() -> Iterator[tuple[str, ...]]:
    for size in range(1, len(ROLES) + 1):
        yield from itertools.combinations(ROLES, size)


@pytest.mark.parametrize(
    "shift", [None, *(pytest.param(shift, marks=pytest.mark.slow) for shift in ("weak", "strong"))]
)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_combination_of_roles_plans_or_is_refused_by_the_presets_name(
    preset: str, shift: str | None
) -> None:
    needs = PRESETS[preset].needs
    for roles in role_subsets():
        found = plan_tiny(tiny_recipe(preset, roles, shift), roles)  # type: ignore[arg-type]
        has_old = bool({"general", "quality", "replay"} & set(roles))
        lacks = (needs == "new" and "new" not in roles) or (needs == "old" and not has_old)
        if lacks:
            assert isinstance(found, str)
            assert f"{preset!r} is about text that no source has" in found
            continue
        assert isinstance(found, Plan), (roles, shift, found)
        assert found.preset is not None
        assert all(sum(phase.samples) for phase in found.science.phases)
        # Nothing that is there to be replayed or learned is left out, but for the controls.
        shown = {source.name for source in found.science.sources}
        assert shown >= set(roles) - {"qa"} or PRESETS[preset].is_control
        epochs = [
            source.epochs(sum(phase.samples[index] for phase in found.science.phases))
            for index, source in enumerate(found.science.sources)
        ]
        assert max(epochs) <= 4


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("rates", RATES_BY_NAME)
def test_rates_that_are_not_known_are_missed_by_the_presets_name(preset: str, rates: str) -> None:
    found = plan_tiny(tiny_recipe(preset, ROLES, "weak", rates), ROLES)
    if rates != "nothing" or preset == "stability-gap":
        assert isinstance(found, Plan), found
        assumed = rates in ("decayed", "peak") and preset in (
            *("reuse", "baseline", "constant", "summary"),
        )
        assert any("ASSUMPTION" in warning for warning in found.warnings) == assumed
        return
    named = "peak" if preset in TO_THE_PEAK else "final"
    assert f"needs the base's {named} learning rate" in str(found)
    assert f"(preset {preset!r} fills in schedule.peak_lr)" in str(found)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("num_steps", "num_tokens"), [(1, 4_000), (2, 4_000), (3, 300), (40, 300)])
def test_few_steps_and_little_text_plan_or_are_refused_by_the_presets_name(
    preset: str, num_steps: int, num_tokens: int
) -> None:
    text = tiny_recipe(preset, ROLES, "strong", num_steps=num_steps)
    found = plan_tiny(text, ROLES, num_tokens=num_tokens)
    if isinstance(found, str):
        problems = [line for line in found.splitlines() if not line.startswith("    ")]
        assert all(f"preset {preset!r}" in problem for problem in problems), found
        assert "budget" in found


def test_a_run_too_short_for_the_second_blend_says_so() -> None:
    found = str(plan_tiny(tiny_recipe("reuse", ROLES, None, num_steps=2), ROLES))
    assert (
        "no step's rate falls below peak/5 = 2e-05: the last of 2 steps has 5.05e-05, on its way "
        "to 1e-06 (preset 'reuse' fills in phases)" in found
    )
    assert "→ raise budget.tokens" in found
    assert "the only step has 0.0001" in str(
        plan_tiny(tiny_recipe("reuse", ROLES, None, num_steps=1), ROLES)
    )
    assert "the warm-up takes all of 1 step (preset 'wsd'" in str(
        plan_tiny(tiny_recipe("wsd", ROLES, None, num_steps=1), ROLES)
    )


def test_a_key_of_ones_own_is_not_called_the_presets() -> None:
    refusal = refused("preset=wsd", "schedule.warmup_fraction=0.9")
    assert "(preset 'wsd' fills in keys of schedule)" in refusal
    with pytest.raises(UserError) as caught:
        plan_of("preset=rewarm", "schedule.peak_lr=7")
    assert "preset" not in str(caught.value)
    with pytest.raises(UserError) as caught:
        plan_of("preset=rewarm", 'phases=[{name="mine", weights={qa=1}}]', "budget.tokens=90M")
    assert "sources.qa: the phases ask" in str(caught.value)


def test_what_a_preset_lacks_is_told() -> None:
    assert "there is no preset 'reus'" in refused("preset=reus")
    assert "did you mean 'reuse'?" in refused("preset=reus")
    for wrong in ("reus", "3", "[]"):
        # That phases are missing too is no mistake of the person's.
        with pytest.raises(RecipeError) as caught:
            parse_recipe(HEAD, overrides=[f"preset={wrong}"])
        assert [problem.where for problem in caught.value.problems] == ["preset"]
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


BOTH = {"a": "general", "b": "new"}


@pytest.mark.parametrize(
    ("declared", "more", "preset"),
    [
        (Declared(BOTH, "strong", peak_lr=1e-3, final_lr=1e-4), {"more_to_come": True}, "infinite"),
        (
            Declared(BOTH, "strong", peak_lr=1e-3, final_lr=1e-4),
            {"budget_tokens": 10, "new_tokens": 40},
            "stability-gap",
        ),
        (
            Declared(BOTH, "strong", peak_lr=1e-3, final_lr=1e-4),
            {"budget_tokens": 10, "new_tokens": 39},
            "rewarm",
        ),
        (
            Declared({"b": "new"}, "strong", peak_lr=1e-3, final_lr=1e-4),
            {"budget_tokens": 1, "new_tokens": 9},
            "rewarm",
        ),
        (Declared(BOTH, "weak", peak_lr=1e-3, final_lr=1e-4), {}, "reuse"),
        (Declared(BOTH, None, peak_lr=1e-3, final_lr=1e-4), {}, "reuse"),
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


def every_situation() -> Iterator[Situation]:
    """Yield all that the rules tell apart."""
    for more, shift, peak, final, old, qa, sizes in itertools.product(
        (False, True),
        (None, "weak", "strong"),
        (None, 1e-3),
        (None, 0.0, 1e-4),
        (False, True),
        (False, True),
        ((None, None), (1_000, None), (1_000, 3_999), (1_000, 4_000)),
    ):
        sources = {"n": "new"} | ({"o": "replay"} if old else {}) | ({"q": "qa"} if qa else {})
        yield Situation(Declared(sources, shift, peak, final), *sizes, more_to_come=more)  # type: ignore[arg-type]


def advice_in(situation: Situation) -> Advice:
    return advise(
        situation.declared,
        budget_tokens=situation.budget_tokens,
        new_tokens=situation.new_tokens,
        more_to_come=situation.more_to_come,
    )


def test_every_published_preset_is_advised_or_passed_over_for_a_reason() -> None:
    published = {name for name, preset in PRESETS.items() if not preset.is_control}
    assert {rule.preset for rule in RULES} == published - {"wsd", "summary"}
    decided = set()
    for situation in every_situation():
        advice = advice_in(situation)
        passed_over = dict(advice.others)
        assert {advice.preset, *passed_over} == published
        assert len(passed_over) == len(published) - 1
        texts = [*advice.reasons, *passed_over.values()]
        assert len(set(texts)) == len(texts), "each reason is about its own preset"
        decided.add(next(rule.when for rule in RULES if rule.holds(situation)))
    assert decided == {rule.when for rule in RULES}, "every rule decides somewhere"


def test_advice_says_nothing_that_is_not_so() -> None:
    for situation in every_situation():
        advice = advice_in(situation)
        declared = situation.declared
        text = " · ".join([*advice.reasons, *(why for _, why in advice.others)])
        for words, is_so in {
            "peak rate, which is not known": declared.peak_lr is None,
            "peak is not known": declared.peak_lr is None,
            "for the final rate, which is not known": declared.final_lr is None,
            "at a rate of 0": declared.final_lr == 0,
            "decayed to nothing": declared.final_lr == 0,
            "this one is weak": declared.shift == "weak",
            "a weak shift asks": declared.shift == "weak",
            "strong shift: the rate": declared.shift == "strong",
            "a strong shift asks": declared.shift == "strong",
            "shift is not declared": declared.shift is None,
            "further ones will follow": situation.more_to_come,
            "none are declared": not situation.more_to_come,
            "of every batch replays old text": declared.has_old,
            "no old text": not declared.has_old,
            "questions and answers": "qa" in declared.roles,
            "the new text is 4 times the budget": situation.new_tokens == 4_000,
            "4k tokens are 3.99 times 1k": situation.new_tokens == 3_999,
            "how much there is, is open": situation.new_tokens is None,
        }.items():
            if words in text:
                assert is_so, (words, situation)


def test_of_advice_the_specific_words_are_said() -> None:
    said = advice_in(Situation(Declared(BOTH, "strong", peak_lr=1e-3, final_lr=1e-4), 10**8, 10**9))
    assert said.reasons[1].startswith("the new text is 10 times the budget")
    weak = advice_in(Situation(Declared({**BOTH, "q": "qa"}, "weak", peak_lr=1e-3, final_lr=1e-4)))
    assert weak.reasons == (
        "going on from the rate at which the pretraining ended changes nothing abruptly",
        "a weak shift asks for no higher rate",
        "questions and answers come in once the rate has fallen to a fifth",
    )
    little = advice_in(
        Situation(Declared(BOTH, "strong", peak_lr=1e-3, final_lr=1e-4), 10**8, 39 * 10**7)
    )
    assert dict(little.others)["stability-gap"] == (
        "it is for new text of 4 times the budget, and 390M tokens are 3.9 times 100M"
    )
    shares = advice_in(Situation(Declared(BOTH, "weak", 1e-3, 0.0))).reasons
    assert shares[1] == "5 % of every batch replays old text"
