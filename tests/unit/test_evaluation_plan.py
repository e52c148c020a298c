"""What evaluation costs is planned, and capped where the recipe says so; what can never act is
told."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from rich.console import Console

from rewarm.errors import EnvironmentFault, PlanError
from rewarm.planning.plan import Estimate, Plan
from rewarm.planning.probed import with_probe
from rewarm.planning.resolve import resolve
from rewarm.recipe.load import parse_recipe
from rewarm.records.facts import CorpusFacts
from rewarm.reporting.evaluation_terminal import evaluation_table
from rewarm.reporting.plan_terminal import plan_summary
from rewarm.stages.harness import harness_of, harness_texts
from rewarm.units import format_duration
from tests.support.fake_facts import make_corpus_facts, make_model_facts
from tests.unit.test_plan import CORPORA, RECIPE
from tests.unit.test_probe import made_probe


def plan_of(
    *overrides: str,
    corpora: Mapping[str, CorpusFacts] = CORPORA,
    task_bytes: Mapping[str, int] | None = None,
) -> Plan:
    recipe = parse_recipe(RECIPE, overrides=overrides)
    return resolve(recipe, make_model_facts(), corpora, base_folder="base", task_bytes=task_bytes)


def estimate(plan: Plan, name: str) -> float:
    return next(found.value for found in plan.estimates if found.name == name)


def share_of(plan: Plan) -> float:
    evaluation = estimate(plan, "evaluation compute")
    return evaluation / (evaluation + estimate(plan, "training compute"))


def reason_of(plan: Plan, field: str) -> str:
    return next(reason.reason for reason in plan.reasons if reason.field == field)


TASKS = (
    'evaluation.tasks.quiz={path="quiz.jsonl"}',
    "evaluation.matched_continuation_items=8",
    'evaluation.harness.tasks=["arc_easy"]',
)


@pytest.mark.parametrize(("length", "planned"), [(72, True), (71, False)])
def test_a_choice_that_no_window_holds_is_not_planned(length: int, planned: bool) -> None:
    """48 tokens of context, 24 of continuation and the one that begins them: 73 of length + 1."""
    plan = plan_of(
        "evaluation.matched_continuation_items=8",
        f"batch.sequence_length={length}",
        f"batch.tokens={4 * length}",
    )
    assert any(one.what == "matched continuation" for one in plan.evaluation) == planned


def test_every_domain_and_task_has_its_cost() -> None:
    """Held-out text of 40,000 bytes and 10,000 tokens in 10 documents, longer than a window."""
    plan = plan_of(*TASKS, "evaluation.every_steps=100", task_bytes={"quiz": 8000})
    found = {(one.domain, one.what): (one.tokens, one.times) for one in plan.evaluation}
    times = len(plan.conduct.evaluation_steps)
    assert times == 8 + 7 + 1  # 0, 1, 2, … 64; 100, 200, … 700; 781
    assert found == {
        **{(name, "held-out text"): (20_000, 16) for name in ("old", "new", "qa")},
        **{(name, "matched continuation"): (8 * (4 * 73 + 25), 2) for name in ("old", "new", "qa")},
        ("quiz", "multiple-choice"): (2000, 2),
        ("arc_easy", "lm-evaluation-harness"): (0, 2),
    }
    tokens = sum(count * often for count, often in found.values())
    per_token = estimate(plan, "training compute") / plan.science.num_tokens
    assert estimate(plan, "evaluation compute") == pytest.approx(tokens * per_token / 3)


def test_text_in_short_documents_is_read_once_and_no_further_than_the_cap_on_bytes() -> None:
    short = make_corpus_facts("old", "general").model_copy(update={"held_out_documents": 200})
    plan = plan_of("evaluation.max_bytes_per_domain=20_000", corpora={**CORPORA, "old": short})
    tokens = {one.domain: one.tokens for one in plan.evaluation}
    assert tokens["old"] == 5_000
    assert tokens["new"] == 10_000


def test_a_cap_makes_evaluations_rarer_first() -> None:
    free = plan_of("evaluation.every_steps=10")
    assert share_of(free) > 0.4
    plan = plan_of("evaluation.every_steps=10", "evaluation.max_share=0.3")
    assert 0.25 < share_of(plan) <= 0.3
    assert plan.conduct.evaluation.max_bytes_per_domain == 262_144
    steps = plan.conduct.evaluation_steps
    assert {0, 1, 2, 4, plan.science.num_steps} <= set(steps)
    assert len(steps) < len(free.conduct.evaluation_steps)
    told = reason_of(plan, "evaluation.max_share")
    assert told.startswith(f"{len(steps)} instead of {len(free.conduct.evaluation_steps)} eval")
    assert plan.science == free.science


def test_then_on_less_text_and_what_does_not_fit_is_an_error() -> None:
    large = {
        name: facts.model_copy(update={"held_out_bytes": 400_000, "held_out_tokens": 100_000})
        for name, facts in CORPORA.items()
    }
    plan = plan_of("evaluation.max_share=0.2", corpora=large)
    assert share_of(plan) <= 0.2
    assert 16_384 <= plan.conduct.evaluation.max_bytes_per_domain < 100_000
    assert "instead of 256 KiB of text a domain" in reason_of(plan, "evaluation.max_share")
    with pytest.raises(PlanError, match=r"at its least \(12 times, 16 KiB a domain\) still takes"):
        plan_of("evaluation.max_share=0.01", corpora=large)


def test_a_cap_that_is_kept_anyway_changes_nothing() -> None:
    free, capped = plan_of(), plan_of("evaluation.max_share=0.9")
    assert capped.conduct.evaluation_steps == free.conduct.evaluation_steps
    assert not any(reason.field == "evaluation.max_share" for reason in capped.reasons)


def test_the_plan_shows_time_by_domain_and_task() -> None:
    plan = plan_of(*TASKS, "evaluation.every_steps=100", task_bytes={"quiz": 8000})
    console = Console(width=100, file=io.StringIO())
    with console.capture() as captured:
        console.print(plan_summary(plan))
    told = captured.get()
    assert "held-out text" in told
    assert "not known yet" in told
    assert "% of the run" in told


def times_of(plan: Plan) -> list[str]:
    """Return the column of times, as shown."""
    console = Console(width=200, file=io.StringIO())
    with console.capture() as captured:
        console.print(evaluation_table(plan))
    rows = [line for line in captured.get().splitlines() if "held-out" in line or "multi" in line]
    return [re.split(r"\s{2,}", row.strip())[-1] for row in rows]


def test_after_a_probe_the_time_is_that_of_the_evaluation_that_was_measured() -> None:
    plan = plan_of(*TASKS, "evaluation.every_steps=100", task_bytes={"quiz": 8000})
    probe = made_probe(plan, evaluation_tokens=2000, evaluation_s=0.5, start_s=1e4)
    found = with_probe(plan, probe)
    of_text = format_duration(16 * 20_000 / 2000 * 0.5)
    assert times_of(found) == [of_text] * 3 + [format_duration(2 * 0.5)]


def test_before_it_is_by_compute_all_of_which_is_in_the_plans_time() -> None:
    """30 of 100 operations in 50 seconds, of which three texts take a third each."""
    by_hand = {"training": 60.0, "evaluation": 30.0, "retention": 6.0, "Muon": 4.0}
    found = [
        Estimate(name=f"{name} compute", value=value, unit="FLOP", formula="made up")
        for name, value in by_hand.items()
    ]
    time = Estimate(name="time", value=50.0, unit="s", formula="made up")
    plan = plan_of("evaluation.matched_continuation_items=0")
    assert times_of(plan.model_copy(update={"estimates": (*found, time)})) == ["5.0 s"] * 3


# --- what is done about forgetting


REPLAY = 'evaluation.on_forgetting.action="replay"'


def test_a_rule_that_can_act_is_planned_without_a_word() -> None:
    assert plan_of(REPLAY).warnings == plan_of().warnings


def test_rules_that_could_never_act_are_told() -> None:
    unseen = {
        name: facts.model_copy(update={"held_out_documents": 0}) for name, facts in CORPORA.items()
    }
    with pytest.raises(PlanError, match="no text of the old domain is held out"):
        plan_of('evaluation.on_forgetting.action="stop"', corpora=unseen)
    with pytest.raises(PlanError, match=r"every phase plans 0\.1 of old text or more"):
        plan_of(REPLAY, "evaluation.on_forgetting.ceiling=0.1")
    only_new = 'phases=[{name="x", weights={new=1}}]'
    with pytest.raises(PlanError, match="no phase shows text of the old domain"):
        plan_of(REPLAY, only_new)
    assert plan_of('evaluation.on_forgetting.action="warn"', only_new)
    (told,) = [
        warning
        for warning in plan_of(REPLAY, "evaluation.on_forgetting.after_steps=780").warnings
        if "on_forgetting" in warning
    ]
    assert "it acts after 2 evaluations in a row, and only 1 of the run count" in told


def test_a_ceiling_beyond_what_text_there_is_is_told() -> None:
    """A million tokens in all, half of them old, from 60,000 of old text: above 4 epochs."""
    little = {**CORPORA, "old": make_corpus_facts("old", "general", num_tokens=60_000)}
    with pytest.raises(PlanError, match=r"'old' would be shown for 8\.\d\d epochs, above its cap"):
        plan_of(REPLAY, corpora=little)
    assert plan_of(REPLAY, "evaluation.on_forgetting.ceiling=0.26", corpora=CORPORA)


def test_a_plan_of_another_machine_needs_the_harness_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was planned where the harness was installed: what is missing here is told in words."""
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    for module in ("rewarm.evaluation.harness", "rewarm.evaluation.harness_model"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    plan = plan_of(*TASKS, task_bytes={"quiz": 8000})
    with pytest.raises(EnvironmentFault, match=r"cannot be imported[^$]*pip install 'rewarm\[tas"):
        harness_of(plan)
    with pytest.raises(EnvironmentFault, match="lm-evaluation-harness, which cannot be imported"):
        harness_texts(plan.conduct.evaluation.harness, Path())
    assert harness_of(plan_of()) is None
