"""Every kind of schedule from a recipe to its pieces, with steps and rates worked out by hand."""

from __future__ import annotations

import pytest

from rewarm.errors import RecipeError
from rewarm.planning.schedule import lr_at
from rewarm.recipe.load import parse_recipe
from tests.unit.test_plan import RECIPE, one_phase, plan_of, problems_of

# 1,280 tokens a step: 1,000 steps.
STEPS = ("budget.tokens=1_280_000",)
Pieces = list[tuple[str, int, float]]


def pieces_of(*overrides: str) -> Pieces:
    schedule = plan_of(*STEPS, *overrides, text=one_phase()).science.schedule
    return [(piece.shape, piece.end_step, round(piece.end_lr, 12)) for piece in schedule]


def refused(*overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(RECIPE, overrides=overrides)
    return str(caught.value)


def test_warmup_stable_decay() -> None:
    wsd = ("schedule.kind=wsd", "schedule.peak_lr=pretraining.peak", "schedule.final_lr=0")
    assert pieces_of(*wsd, "schedule.warmup_fraction=0.01") == [
        ("linear", 10, 1e-3),
        ("constant", 800, 1e-3),
        ("1-sqrt", 1000, 0.0),
    ]
    assert pieces_of(*wsd, "schedule.decay_shape=linear", "schedule.decay_fraction=0.1") == [
        ("constant", 900, 1e-3),
        ("linear", 1000, 0.0),
    ]


def test_infinite() -> None:
    infinite = (
        "schedule.kind=infinite",
        "schedule.peak_lr=pretraining.peak",
        "schedule.final_lr=peak/10",
        "schedule.warmup_fraction=0.01",
    )
    assert pieces_of(*infinite) == [
        ("linear", 10, 1e-3),
        ("cosine", 600, 5.5e-4),
        ("constant", 850, 5.5e-4),
        ("exponential", 1000, 1e-4),
    ]
    assert pieces_of(*infinite, "schedule.anneal_start=1", "schedule.cooldown_shape=inverse-sqrt")[
        1:
    ] == [("inverse-sqrt", 600, 5.5e-4), ("constant", 1000, 5.5e-4)]
    # Half-way through the anneal the rate is the geometric mean of its ends.
    science = plan_of(*STEPS, *infinite, text=one_phase()).science
    assert science.lr(925) == pytest.approx((5.5e-4 * 1e-4) ** 0.5, rel=1e-12)


def test_rewarm_then_redecay_and_cycles() -> None:
    rewarm = ("schedule.peak_lr=pretraining.peak", "schedule.final_lr=peak/10")
    assert pieces_of(*rewarm, "schedule.warmup_steps=20") == [
        ("linear", 20, 1e-3),
        ("cosine", 1000, 1e-4),
    ]
    assert pieces_of(
        *rewarm, "schedule.kind=cyclic", "schedule.cycles=3", "schedule.warmup_steps=5"
    ) == [
        ("linear", 5, 1e-3),
        ("cosine", 333, 1e-4),
        ("linear", 338, 1e-3),
        ("cosine", 667, 1e-4),
        ("linear", 672, 1e-3),
        ("cosine", 1000, 1e-4),
    ]
    science = plan_of(
        *STEPS,
        *rewarm,
        "schedule.kind=cyclic",
        "schedule.cycles=3",
        "schedule.warmup_steps=5",
        text=one_phase(),
    ).science
    # The first warm-up rises from nothing, the others from where the cycle before them ended.
    assert science.lr(0) == pytest.approx(1e-3 / 6)
    assert science.lr(332) == pytest.approx(1e-4, rel=1e-3)
    assert science.lr(333) == pytest.approx(1e-4 + 9e-4 / 6)


def test_pieces_of_ones_own() -> None:
    plan = plan_of(
        *STEPS,
        "schedule.kind=pieces",
        'schedule.pieces=[{shape="linear", fraction=0.1, start_lr="pretraining.final", '
        'end_lr="pretraining.peak"}, {shape="constant", tokens="256k"}, '
        '{shape="cosine", steps=300, end_lr=2e-4}, {shape="1-sqrt", start_lr=1e-4, end_lr=0}]',
        text=one_phase(),
    )
    schedule = plan.science.schedule
    assert [(piece.start_step, piece.end_step) for piece in schedule] == [
        (0, 100),
        (100, 300),
        (300, 600),
        (600, 1000),
    ]
    assert lr_at(schedule, 0) == 1e-4
    assert lr_at(schedule, 250) == 1e-3
    assert "the learning rate jumps from 0.0002 to 0.0001 at step 600" in plan.warnings
    # Nothing names the peak, so a base of which nothing is known will do.
    assert plan_of(
        *STEPS,
        "base.pretraining={}",
        "schedule.kind=pieces",
        'schedule.pieces=[{shape="constant", start_lr=1e-5}]',
        text=one_phase(),
    ).science.lr(999) == pytest.approx(1e-5)


def test_what_does_not_fit_is_told() -> None:
    one = one_phase()
    kind = "schedule.kind=pieces"
    told = problems_of(
        *STEPS,
        kind,
        'schedule.pieces=[{shape="constant", start_lr=1e-4, steps=2000}, {shape="constant"}]',
        text=one,
    )
    assert "it has 2,000 of the 1,000 steps that are left" in told[0]
    for pieces, words in (
        ('[{shape="constant", start_lr=1e-4, steps=2}]', "the last piece takes the steps"),
        ('[{shape="constant", start_lr=1e-4}, {shape="constant"}]', "how long is it?"),
        ('[{shape="constant"}]', "the first piece starts from no rate"),
        ('[{shape="constant", start_lr="peak"}]', "names a rate that this schedule does not have"),
        ('[{shape="exponential", start_lr=1e-4, end_lr=0}]', "never reaches a rate of 0"),
        ('[{shape="constant", start_lr=0}]', "nothing would be learned"),
        ('[{shape="constant", start_lr=3.0}]', "beyond any learning rate"),
    ):
        assert words in "".join(
            problems_of(*STEPS, "base.pretraining={}", kind, f"schedule.pieces={pieces}", text=one)
        )
    begins = 'schedule.pieces=[{shape="cosine", end_lr="start/10"}]'
    (only,) = problems_of(*STEPS, "base.pretraining={}", kind, begins, text=one)
    assert "the first piece starts from no rate" in only
    assert pieces_of(kind, begins) == [("cosine", 1000, 1e-5)]
    # Where the final rate is known, pieces go on from it.
    assert pieces_of(kind, 'schedule.pieces=[{shape="constant"}]') == [("constant", 1000, 1e-4)]
    assert "is not between final_lr" in "".join(
        problems_of(*STEPS, "schedule.kind=infinite", "schedule.constant_lr=1.0", text=one)
    )
    assert "leave less than 2 steps" in "".join(
        problems_of(*STEPS, "schedule.kind=cyclic", "schedule.cycles=900", text=one)
    )
    assert "never reaches a rate of 0" in "".join(
        problems_of(*STEPS, "schedule.kind=infinite", "schedule.final_lr=0", text=one)
    )


def test_keys_of_another_kind_are_refused() -> None:
    assert "cycles belongs to kind = 'cyclic'" in refused("schedule.cycles=3")
    assert "needs pieces" in refused("schedule.kind=pieces")
    assert "say the same; give one" in refused(
        "schedule.warmup_steps=3", "schedule.warmup_fraction=0.1"
    )
    assert "must follow each other" in refused(
        "schedule.kind=infinite", "schedule.cooldown_end=0.9", "schedule.anneal_start=0.5"
    )
    assert "more than the whole run" in refused(
        "schedule.kind=wsd", "schedule.warmup_fraction=0.5", "schedule.decay_fraction=0.6"
    )
    assert "both say how long" in refused(
        "schedule.kind=pieces",
        'schedule.pieces=[{shape="linear", end_lr=1e-4, steps=1, tokens=2}]',
    )
    assert "end_lr is missing" in refused(
        "schedule.kind=pieces", 'schedule.pieces=[{shape="linear"}]'
    )
    assert "reaches no other rate" in refused(
        "schedule.kind=pieces", 'schedule.pieces=[{shape="constant", end_lr=1e-4}]'
    )


def test_what_a_kind_would_pass_over_is_refused() -> None:
    assert "final_lr belongs to kind = 'cosine'" in refused(
        "schedule.kind=constant", "schedule.final_lr=1e-6"
    )
    assert "write peak in place of start" in refused(
        "schedule.final_lr=start/5", "schedule.warmup_fraction=0.1"
    )
    assert pieces_of("schedule.final_lr=start/5") == [("cosine", 1000, 2e-5)]
    for number in ("1.2.3", ".", "peak/.", "1e", "-1e-4"):
        assert f"{number!r} is not a learning rate" in refused(f"schedule.peak_lr={number!r}")
    infinite = ("schedule.kind=infinite", "schedule.final_lr=peak/10")
    assert "leaves no cooldown until step 600, 0.6 of 1,000" in "".join(
        problems_of(*STEPS, *infinite, "schedule.warmup_steps=700", text=one_phase())
    )
    jump = plan_of(*STEPS, *infinite, "schedule.warmup_fraction=0.6", text=one_phase())
    assert "the learning rate jumps from 0.0001 to 5.5e-05 at step 600" in jump.warnings


def test_a_switch_by_rate_in_a_wsd() -> None:
    """(1 − √x) falls to a quarter at x = 0.5625: step 800 + 112.5, so 913 is the first below."""
    plan = plan_of(
        *STEPS, "schedule.kind=wsd", "schedule.final_lr=0", "phases[0].until.lr_below=start/4"
    )
    assert plan.science.phases[1].start_step == 913
    assert plan.science.lr(912) > 1e-4 / 4 > plan.science.lr(913)
