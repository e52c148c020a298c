"""What is done while a run goes on and old text is forgotten: told, stopped, replayed more."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rewarm.distributed.fsdp import Root
from rewarm.evaluation.forgetting_rule import evidence_of_forgetting
from rewarm.planning.amended import amended, replay_share
from rewarm.planning.amendments import Amendments, append_amendment, read_amendments
from rewarm.planning.plan import Plan
from rewarm.recipe.records import ForgettingRecipe
from rewarm.records.facts import EvalRecord
from rewarm.records.run_folder import RunFolder
from rewarm.reporting.run_view import load_run_view
from tests.support.tiny_plans import make_plan, tensors_of, train_tiny

NUM_ITEMS = 8


def record(step: int, value: float, *, domain: str = "old", role: str = "replay") -> EvalRecord:
    nats = value * math.log(2.0)
    return EvalRecord.model_validate(
        {
            "step": step,
            "domain": domain,
            "role": role,
            "metric": "bits_per_byte",
            "value": value,
            "standard_error": 0.0,
            "item_values": (nats,) * NUM_ITEMS,
            "item_weights": (1,) * NUM_ITEMS,
            "seconds": 0.0,
        }
    )


def curve(values: Sequence[float], **changes: Any) -> list[EvalRecord]:
    """Records at steps 0, 10, 20, …"""
    return [record(10 * index, value, **changes) for index, value in enumerate(values)]


RULE = ForgettingRecipe(action="replay", above=0.1, patience=2)


def due(rule: ForgettingRecipe, values: Sequence[float], **told: Any) -> list[int]:
    """Steps at which the rule acts on a curve."""
    records = curve(values)
    steps = [found.step for found in records]
    return [s for s in steps if evidence_of_forgetting(rule, records, step=s, **told) is not None]


def test_it_acts_after_enough_evaluations_in_a_row() -> None:
    assert due(RULE, [1.0, 1.2, 1.0, 1.2, 1.3, 1.4]) == [40, 50]
    assert due(RULE.model_copy(update={"patience": 1}), [1.0, 1.2, 1.0, 1.2]) == [10, 30]
    assert due(RULE, [1.0, 1.09, 1.09, 1.09]) == []
    assert due(RULE, [1.0, 0.5, 0.4, 0.3]) == []


def test_a_warning_is_told_once_each_time_that_it_begins() -> None:
    rule = RULE.model_copy(update={"action": "warn"})
    assert due(rule, [1.0, 1.2, 1.2, 1.2, 1.0, 1.2, 1.2, 1.2]) == [20, 60]


def test_the_first_jump_and_what_led_to_the_last_act_do_not_count() -> None:
    values = [1.0, 1.2, 1.2, 1.2, 1.2, 1.2]
    assert due(RULE.model_copy(update={"after_steps": 20}), values) == [40, 50]
    assert due(RULE, values, since_step=20) == [40, 50]


def test_the_threshold_may_be_a_share_of_the_bases_figure() -> None:
    rule = RULE.model_copy(update={"relative": True})
    assert due(rule, [2.0, 2.15, 2.15]) == []
    assert due(rule, [2.0, 2.25, 2.25]) == [20]


def test_new_text_other_metrics_and_later_records_do_not_count() -> None:
    new = curve([1.0, 2.0, 2.0], domain="new", role="new")
    assert evidence_of_forgetting(RULE, new, step=20) is None
    # What lies beyond the step was measured before the run went back.
    records = curve([1.0, 1.2, 1.2, 1.2])
    assert evidence_of_forgetting(RULE, records, step=10) is None
    assert evidence_of_forgetting(RULE, records[1:], step=20) is None  # no base


def test_the_worst_domain_is_the_evidence() -> None:
    records = curve([1.0, 1.2, 1.2]) + curve([3.0, 3.5, 3.6], domain="code", role="general")
    found = evidence_of_forgetting(RULE, records, step=20)
    assert found == (
        "code is forgotten: 3.000 → 3.600 bits per byte (+0.600 ± 0), 2 evaluation(s) in a row "
        "above 0.1"
    )


# --- in a run ---


def plan_with(num_steps: int = 20, **rule: Any) -> Plan:
    plan = make_plan(
        num_steps=num_steps, checkpoint_every=4, evaluation_steps=range(0, num_steps + 1, 2)
    )
    conduct = plan.conduct
    evaluation = conduct.evaluation.model_copy(
        update={"on_forgetting": ForgettingRecipe.model_validate(rule)}
    )
    return plan.model_copy(
        update={"conduct": conduct.model_copy(update={"evaluation": evaluation})}
    )


def forgetful(root: Root, step: int) -> list[EvalRecord]:
    """An old domain that is a tenth of a bit worse with every step until 8, and then flat."""
    return [record(step, 1.0 + 0.1 * min(step, 8)), record(step, 1.0, domain="new", role="new")]


def train(folder: Path, plan: Plan, **told: Any) -> Any:
    def find(step: int, since_step: int) -> str | None:
        rule = plan.conduct.evaluation.on_forgetting
        records = RunFolder(folder).evals()
        return evidence_of_forgetting(rule, records, step=step, since_step=since_step)

    return train_tiny(folder, plan, **{"evaluator": forgetful, "find_forgetting": find, **told})


REPLAY: dict[str, Any] = {
    "action": "replay",
    "above": 0.3,
    "patience": 2,
    "add": 0.1,
    "ceiling": 0.5,
}


def chain_of(folder: Path, plan: Plan) -> Amendments:
    return read_amendments(RunFolder(folder).amendments, plan.fingerprint)


def test_the_share_is_raised_by_amendments_up_to_its_ceiling(tmp_path: Path) -> None:
    plan = plan_with(**REPLAY)
    assert train(tmp_path, plan).finished
    chain = chain_of(tmp_path, plan)
    # Above 0.3 from step 4 on. The first phase has 3/4 old text, above the ceiling; the second one,
    # from step 10 on, a quarter, and each raise is followed by two evaluations that count.
    assert [(found.from_step, found.share) for found in chain.chain] == [
        (10, pytest.approx(0.35, abs=1e-4)),
        (14, pytest.approx(0.45, abs=1e-4)),
        (18, 0.5),
    ]
    assert chain.is_linked()
    assert "old is forgotten: 1.000 → 1.800" in chain.chain[0].evidence
    told = [e for e in RunFolder(tmp_path).events() if e.kind == "forgetting"]
    assert [event.step for event in told] == [6]  # once: the first phase has more than the ceiling
    assert "old text is 0.75 of the blend, and no more is allowed" in told[0].message
    events = [e for e in RunFolder(tmp_path).events() if e.kind == "replay"]
    assert [event.step for event in events] == [10, 14, 18]
    assert "old text is 0.35 of the blend from here on" in events[0].message
    whole = amended(plan.science, chain)
    assert [round(replay_share(whole, step), 3) for step in (9, 10, 13, 14, 18)] == [
        *(0.75, 0.35, 0.35, 0.45, 0.5)
    ]
    # What each step recorded is what the amended order deals.
    by_step = {found.step: found for found in RunFolder(tmp_path).steps()}
    for phase in whole.phases:
        rows = [by_step[step] for step in range(phase.start_step, phase.end_step)]
        assert {row.phase for row in rows} == {phase.name}
        summed = tuple(sum(counts) for counts in zip(*(r.samples for r in rows), strict=True))
        for counted, weight in zip(summed, phase.weights, strict=True):
            assert abs(counted - weight / 65536 * 8 * len(rows)) < 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing has stopped."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder, plan_with(**REPLAY))
    return folder


@pytest.mark.parametrize("until_step", [9, 10, 11, 14, 15])
def test_a_run_that_is_stopped_anywhere_goes_on_to_the_same_bits(
    tmp_path: Path, whole: Path, until_step: int
) -> None:
    plan = plan_with(**REPLAY)
    train(tmp_path, plan, until_step=until_step)
    assert train(tmp_path, plan).finished
    assert tensors_of(tmp_path) == tensors_of(whole)
    assert chain_of(tmp_path, plan) == chain_of(whole, plan)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("kill_at", [10, 12, 14])
@pytest.mark.parametrize("where", ["evaluating", "amended", "logged"])
def test_a_kill_between_evaluation_amendment_and_checkpoint_changes_nothing(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int, where: str
) -> None:
    plan = plan_with(**REPLAY)

    def killed(root: Root, step: int) -> list[EvalRecord]:
        if step == kill_at:
            raise Killed
        return forgetful(root, step)

    told: dict[str, Any] = {}
    with monkeypatch.context() as patch:
        if where == "evaluating":
            told["evaluator"] = killed
        elif where == "amended":
            # The amendment is on the disk, and nothing behind it.
            def append_and_die(path: Path, amendments: Amendments) -> None:
                append_amendment(path, amendments)
                if amendments.chain[-1].from_step == kill_at:
                    raise Killed

            patch.setattr("rewarm.training.course.append_amendment", append_and_die)
        else:

            class Dying:
                def before_train(self, state: Any, /) -> None: ...

                def after_step(self, state: Any, record: Any, /) -> None:
                    if state.step == kill_at:
                        raise Killed

                def on_stop(self, state: Any, /) -> None: ...

            told["hooks"] = [Dying()]
        with contextlib.suppress(Killed):
            train(tmp_path, plan, **told)
    assert train(tmp_path, plan).finished
    assert tensors_of(tmp_path) == tensors_of(whole)
    assert chain_of(tmp_path, plan) == chain_of(whole, plan)
    steps = [
        [(found.step, found.loss, found.samples) for found in RunFolder(folder).steps()]
        for folder in (tmp_path, whole)
    ]
    assert steps[0] == steps[1]


def test_it_stops_with_a_checkpoint_and_goes_on_when_launched_again(tmp_path: Path) -> None:
    plan = plan_with(action="stop", above=0.3, patience=2)
    ending = train(tmp_path, plan)
    assert (ending.step, ending.finished, ending.forgot) == (6, False, True)
    run = RunFolder(tmp_path)
    assert (run.checkpoints / "step-00000006").is_dir()
    told = run.events()[-1].message
    assert "stopped for what it has forgotten" in told
    assert "go on: the same command" in told
    again = train(tmp_path, plan)
    assert (again.step, again.forgot) == (8, True)
    warned = plan_with(action="warn", above=0.3, patience=2)
    assert train(tmp_path, warned).finished


def test_a_warning_is_an_event_and_changes_no_bit(tmp_path: Path) -> None:
    train(tmp_path / "off", plan_with())
    train(tmp_path / "warn", plan_with(action="warn", above=0.3, patience=2))
    assert tensors_of(tmp_path / "warn") == tensors_of(tmp_path / "off")
    told = [event for event in RunFolder(tmp_path / "warn").events() if event.kind == "forgetting"]
    assert [event.step for event in told] == [6]
    assert not RunFolder(tmp_path / "warn").amendments.exists()


def test_the_report_shows_the_blends_as_they_were_dealt(tmp_path: Path) -> None:
    plan = plan_with(**REPLAY)
    from rewarm.planning.plan import save_plan

    train(tmp_path, plan)
    save_plan(plan, RunFolder(tmp_path).plan)
    view = load_run_view(RunFolder(tmp_path))
    names = [phase.name for phase in view.plan.science.phases]
    assert names == ["first", "second, replay 0.35", "second, replay 0.45", "second, replay 0.5"]
    for phase in view.plan.science.phases:
        assert view.seen_samples(phase) == phase.samples
    RunFolder(tmp_path).amendments.write_text(json.dumps({"parent": "x"}) + "\n")
    broken = load_run_view(RunFolder(tmp_path))
    assert any("amendments.jsonl cannot be used" in line for line in broken.missing)


def test_old_amendments_keep_their_fingerprints() -> None:
    """A chain that was written before there were shares still leads where it led."""
    chain = Amendments("plan").with_skip(3, 5, "a spike").with_freeze(8, 20, 2, "settled")
    assert chain.last == chain.head
    assert "share" not in json.dumps([_line(found) for found in chain.chain])
    assert "share" in json.dumps(_line(chain.with_replay(9, 20, 0.3, "x").chain[-1]))


def _line(amendment: Any) -> Any:
    from rewarm.planning.amendments import _line as line

    return line(amendment)
