"""Shares by role, subsets and where phases end, with numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rewarm.errors import PlanError, RecipeError
from rewarm.order.position import locate_samples
from rewarm.planning.exposure import shown_by_phase
from rewarm.planning.plan import Plan
from rewarm.planning.resolve import resolve
from rewarm.recipe.load import parse_recipe
from rewarm.records.facts import CorpusFacts
from tests.support.fake_facts import make_corpus_facts, make_model_facts
from tests.unit.test_plan import CORPORA, RECIPE, one_phase, plan_of, problems_of

STEPS = "budget.tokens=1_280_000"  # 1,000 steps of 10 sequences of 128 tokens
MORE = 'sources.wiki={path="w.jsonl", role="quality"}'


def reasons_of(plan: Plan) -> dict[str, str]:
    return {reason.field: f"{reason.value}: {reason.reason}" for reason in plan.reasons}


def test_roles_are_dealt_by_tokens() -> None:
    corpora = {
        **CORPORA,
        "wiki": make_corpus_facts("wiki", "quality").model_copy(update={"num_tokens": 300_000}),
        "old": CORPORA["old"].model_copy(update={"num_tokens": 900_000}),
    }
    plan = plan_of(
        STEPS,
        MORE,
        'phases=[{name="all", roles={new=0.6, old=0.4}}]',
        "sources.old.max_epochs=9",
        'sources.old.max_epochs_reason="x"',
        "sources.wiki.max_epochs=9",
        'sources.wiki.max_epochs_reason="x"',
        corpora=corpora,
    )
    (phase,) = plan.science.phases
    shares = {
        source.name: weight / 65_536
        for source, weight in zip(plan.science.sources, phase.weights, strict=True)
    }
    # 0.4 at 900,000 to 300,000 tokens: 0.3 and 0.1; qa is in no phase.
    assert shares == pytest.approx({"old": 0.3, "new": 0.6, "wiki": 0.1}, abs=2e-5)


def rule(weights: str, more: str = "") -> str:
    return f"phases=[{{name='all', weights='{weights}'{more}}}]"


SIZES = {"old": 64_001, "new": 1_000_000, "qa": 256_001}  # 500, 7,812 and 2,000 windows


def sized(**tokens: int) -> dict[str, CorpusFacts]:
    return {
        name: corpus.model_copy(update={"num_tokens": {**SIZES, **tokens}[name]})
        for name, corpus in CORPORA.items()
    }


def shares_of(plan: Plan, phase: int = 0) -> dict[str, float]:
    weights = plan.science.phases[phase].weights
    return {
        source.name: weight / 65_536
        for source, weight in zip(plan.science.sources, weights, strict=True)
    }


def test_shares_by_tokens_and_by_temperature() -> None:
    tokens = {"old": 100_000, "new": 900_000, "qa": 400_000}
    plan = plan_of(rule("tokens"), corpora=sized(**tokens))
    assert shares_of(plan) == pytest.approx({"old": 1 / 14, "new": 9 / 14, "qa": 4 / 14}, abs=2e-5)
    # Square roots 1 : 3 : 2.
    plan = plan_of(rule("temperature", ", temperature=2"), corpora=sized(**tokens))
    assert shares_of(plan) == pytest.approx({"old": 1 / 6, "new": 3 / 6, "qa": 2 / 6}, abs=2e-5)
    assert reasons_of(plan)["phases.all.weights"].startswith("temperature 2: ")
    # Of new and qa alone, 3 : 2.
    plan = plan_of(
        rule("temperature", ", temperature=2, among=['new', 'qa']"), corpora=sized(**tokens)
    )
    assert shares_of(plan) == pytest.approx({"new": 3 / 5, "qa": 2 / 5}, abs=2e-5)


def test_unimax_by_hand() -> None:
    """Of 10,000 sequences 4 epochs of old are 2,000; new and qa have 4,000 each."""
    plan = plan_of(STEPS, rule("unimax"), corpora=sized())
    assert plan.science.phases[0].samples == pytest.approx((2000, 4000, 4000), abs=1)
    assert plan.science.phases[0].samples[0] <= 2000
    told = reasons_of(plan)["phases.all.weights"]
    assert told.startswith("unimax: as evenly as caps on epochs allow: 40.00% each of 3 sources")
    assert "less of those at their cap ('old')" in told
    # Within roles: old's half is more than old may be shown, so the caps cannot fill it.
    problems = problems_of(STEPS, rule("unimax", ", roles={old=0.5, new=0.5}"), corpora=sized())
    assert len(problems) == 1
    assert (
        "phases[0].weights: 'all' shows 640k tokens of these sources, and their caps on epochs "
        "allow 256k, 384k short: old (4 epochs of 64k allow 256k)" in problems[0]
    )
    assert "no longer than 0.400 of what it is" in problems[0]


def test_unimax_names_what_the_run_it_goes_on_from_took_of_a_cap() -> None:
    """Of 2,000 sequences that 4 epochs of old allow, 1,500 were shown: 500 are left."""
    given = (STEPS, rule("unimax", ", roles={old=0.5, new=0.5}"))
    recipe = parse_recipe(RECIPE, overrides=given)
    shown = {"old": 1500, "new": 0}
    with pytest.raises(PlanError) as caught:
        resolve(recipe, make_model_facts(), sized(), base_folder="base", shown_before=shown)
    assert "old (4 epochs of 64k allow 64k beside 192k that the run it goes on from showed)" in str(
        caught.value
    )


def test_unimax_shares_caps_between_its_phases_and_leaves_what_is_dealt_by_hand() -> None:
    """The first 200 steps show 500 of old: 1,500 are left for 2,000 and 6,000 sequences."""
    plan = plan_of(
        STEPS,
        "phases=[{name='a', weights={old=1, new=3}, until={step=200}}, "
        "{name='b', weights='unimax', until={step=400}}, {name='c', weights='unimax'}]",
        corpora=sized(),
    )
    a, b, c = (phase.samples for phase in plan.science.phases)
    assert a == (500, 1500, 0)
    assert b == pytest.approx((375, 812, 812), abs=2)
    assert c == pytest.approx((1125, 2437, 2437), abs=2)
    assert b[0] + c[0] <= 1500


def test_unimax_counts_passes_over_a_subset() -> None:
    """4 epochs of half of old's windows: 1,000; drawn anew, on average, of all of them."""
    for subset, cap in (("share=0.5", 1000), ("share=0.5, redraw=true", 2000), ("epochs=2", 2000)):
        plan = plan_of(STEPS, rule("unimax"), f"sources.old.subset={{{subset}}}", corpora=sized())
        assert plan.science.phases[0].samples[0] == pytest.approx(cap, abs=1)


def test_repeats_are_counted_over_phases() -> None:
    """Of old 500 windows: 375 are new in b, in c 125 more are."""
    plan = plan_of(
        STEPS,
        "phases=[{name='b', weights={old=3, new=13}, until={step=200}}, "
        "{name='c', weights={old=3, new=13}}]",
        corpora=sized(),
    )
    assert plan.science.phases[0].samples[0] == 375
    b, c = shown_by_phase(plan.science, 0)
    assert (b.num_tokens, b.num_first_time, b.num_repeated) == (48_000, 48_000, 0)
    assert b.epochs == pytest.approx(0.75)
    assert (c.num_tokens, c.num_first_time) == (1500 * 128, 125 * 128)
    assert c.num_repeated == 1375 * 128


def test_a_redrawn_subset_repeats_as_its_draws_do() -> None:
    """The expected number of distinct windows against the order itself."""
    plan = plan_of(
        STEPS, "sources.new.subset={share=0.25, redraw=true}", text=one_phase(), corpora=sized()
    )
    slots = locate_samples(plan.science.order(), np.arange(10_000))
    (shown,) = shown_by_phase(plan.science, 0)
    assert shown.num_first_time / 128 == pytest.approx(len(np.unique(slots.window)), rel=0.02)


def test_a_share_too_small_to_be_dealt_is_told() -> None:
    """Once it was an unexpected fault where roles were dealt by tokens."""
    corpora = sized(old=200, new=50_000_000)
    corpora["wiki"] = make_corpus_facts("wiki", "quality", num_tokens=50_000_000)
    for weights in ("weights='tokens'", "roles={new=0.5, old=0.5}"):
        told = "".join(problems_of(MORE, f"phases=[{{name='x', {weights}}}]", corpora=corpora))
        assert "the share of 'old' is below 1/65,536, the finest that the blend deals out" in told
    plan_of(rule("unimax"), corpora=sized(old=12_801, new=50_000_000))


def test_rules_are_checked() -> None:
    def refused(*overrides: str) -> str:
        with pytest.raises(RecipeError) as caught:
            parse_recipe(RECIPE, overrides=overrides)
        assert len(caught.value.problems) == 1
        return str(caught.value)

    assert "'unimx': Input should be 'tokens', 'temperature' or 'unimax'" in refused(rule("unimx"))
    assert "phases[0].weights.old: 'x': Input should be a valid number" in refused(
        "phases=[{name='x', weights={old='x'}}]"
    )
    assert "needs one, e.g. temperature = 3" in refused(rule("temperature"))
    assert 'is for weights = "temperature"' in refused(rule("tokens", ", temperature=2"))
    assert "greater than or equal to 1" in refused(rule("temperature", ", temperature=0.5"))
    assert "phases[0].among: no source is called 'nwe'" in refused(
        rule("tokens", ", among=['nwe']")
    )
    assert "a source is named twice" in refused(rule("tokens", ", among=['new', 'new']"))
    assert "leave among out" in refused("phases=[{name='x', weights={new=1}, among=['new']}]")
    assert "no source has this role, among those that are named" in refused(
        "phases=[{name='x', roles={new=1, qa=1}, among=['new']}]"
    )


def test_roles_and_weights_exclude_each_other() -> None:
    def refused(*overrides: str) -> str:
        with pytest.raises(RecipeError) as caught:
            parse_recipe(RECIPE, overrides=overrides)
        return str(caught.value)

    assert "one of the two" in refused("phases[0].roles={new=1}")
    assert "one of the two" in refused("phases[0].weights={}")
    assert "old takes in general" in refused("phases=[{name='x', roles={old=1, general=1}}]")
    assert "phases[0].roles.replay: no source has this role" in refused(
        "phases=[{name='x', roles={new=1, replay=1}}]"
    )
    assert "give exactly one of" in refused("phases[0].until={step=3, tokens=5}")
    assert "give exactly one of share" in refused("sources.new.subset={redraw=true}")
    assert "cannot be drawn anew" in refused(
        "sources.new.subset={share=0.5, redraw=true}", "sources.new.order=stored"
    )


def test_a_phase_may_end_at_a_step() -> None:
    plan = plan_of(STEPS, "phases[0].until={step=123}")
    assert [phase.start_step for phase in plan.science.phases] == [0, 123]
    assert "it has no steps" in "".join(problems_of(STEPS, "phases[0].until={step=1000}"))


@pytest.mark.parametrize(
    ("subset", "num_windows"),
    [
        ("{share=0.25}", 1953),  # of 7,812 windows in a million tokens
        ('{tokens="128k"}', 1000),
        ("{tokens=127_873}", 1000),  # a token more than 999 windows
        ("{epochs=4}", 2500),  # the run shows 10,000 sequences
        ("{epochs=4, redraw=true}", 2500),
    ],
)
def test_a_subset_by_hand(subset: str, num_windows: int) -> None:
    plan = plan_of(
        STEPS,
        f"sources.new.subset={subset}",
        "sources.new.max_epochs=20",
        'sources.new.max_epochs_reason="a test"',
        text=one_phase(),
    )
    (source,) = plan.science.sources
    assert source.num_windows == num_windows
    assert source.num_stored == 7812
    assert source.redrawn == ("redraw" in subset)
    assert "sources.new.subset" in reasons_of(plan)
    # Repeats count by what is drawn from: the subset, or all of it where it is drawn anew.
    expected = 10_000 / (7812 if source.redrawn else num_windows)
    assert source.epochs(10_000) == pytest.approx(expected)


def test_the_cap_on_epochs_counts_passes_over_the_subset() -> None:
    told = "".join(problems_of(STEPS, "sources.new.subset={share=0.25}", text=one_phase()))
    assert "1.28M tokens of a subset of 250k: 5.12 epochs, above its cap of 4" in told
    assert plan_of(STEPS, "sources.new.subset={share=0.25, redraw=true}", text=one_phase())


def test_a_subset_as_large_as_its_source_is_told() -> None:
    plan = plan_of(STEPS, 'sources.new.subset={tokens="5M"}', text=one_phase())
    assert plan.science.sources[0].num_stored is None
    assert "no smaller than the source" in "".join(plan.warnings)


def test_stored_order_is_planned() -> None:
    plan = plan_of(STEPS, "sources.new.order=stored", text=one_phase())
    assert plan.science.sources[0].in_stored_order
    assert plan.science.order().drawings[0].in_stored_order
    assert "unshuffled" in reasons_of(plan)["sources.new.order"]
