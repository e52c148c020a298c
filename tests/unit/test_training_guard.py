"""What is done about steps that go wrong: each fault is injected into a real run."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest
from torch import Tensor, nn

from rewarm.batches.loader import BatchLoader
from rewarm.errors import RunFolderError
from rewarm.model.loss import CausalModel, sum_of_token_losses
from rewarm.planning.amendments import Amendments, append_amendment, read_amendments
from rewarm.planning.plan import Plan
from rewarm.recipe.steps import GuardRecipe
from rewarm.records.run_folder import RunFolder
from rewarm.training.guard import LossSpike, NoSkipLeft, spike_limit
from rewarm.training.run import Ending
from rewarm.training.saved import read_saved_state
from rewarm.training.step import NonFiniteStep
from tests.support.tiny_plans import make_plan, make_views, tensors_of, train_tiny

NUM_STEPS = 40


def plan_with(*, keep: int = 3, every: int = 5, **guard: object) -> Plan:
    plan = make_plan(num_steps=NUM_STEPS, keep=keep, checkpoint_every=every, peak_lr=1e-3)
    recipe = GuardRecipe.model_validate({"spike_history": 32, "skip_steps": 4, **guard})
    conduct = plan.conduct.model_copy(update={"guard": recipe})
    return plan.model_copy(update={"conduct": conduct})


class Faulty:
    """The loss, but `factor` times as high on the batches of some steps."""

    def __init__(self, plan: Plan, steps: Collection[int], factor: float) -> None:
        loader = BatchLoader(plan.science.order(), make_views(), sequence_length=12, vocab_size=61)
        self._bad = [loader.batch(step).input_ids for step in steps]
        self._factor = factor

    def __call__(
        self, model: nn.Module, ids: Tensor, labels: Tensor, *documents: Tensor | None
    ) -> tuple[Tensor, object]:
        causal: CausalModel = model
        nats, count = sum_of_token_losses(causal, ids, labels)
        here = any((bad[:, None] == ids[None]).all(-1).any(0).all() for bad in self._bad)
        return (nats * self._factor if here else nats), count


def kinds(folder: Path) -> list[str]:
    return [e.kind for e in RunFolder(folder).events() if e.kind != "checkpoint"]


def told(folder: Path, kind: str) -> list[str]:
    return [event.message for event in RunFolder(folder).events() if event.kind == kind]


def skips(folder: Path, plan: Plan) -> list[tuple[int, int]]:
    chain = read_amendments(RunFolder(folder).amendments, plan.fingerprint).chain
    return [(amendment.from_step, amendment.until_step) for amendment in chain]


# --- what is not finite --------------------------------------------------------------------------


def test_by_default_a_step_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    plan = plan_with()
    with pytest.raises(NonFiniteStep, match="step 7"):
        train_tiny(tmp_path, plan, loss=Faulty(plan, [7], float("nan")))
    assert skips(tmp_path, plan) == []


def test_a_step_that_is_not_finite_can_be_left_out(tmp_path: Path) -> None:
    """Replayed once, then skipped: no update, its samples consumed, its rate not made up for."""
    plan = plan_with(non_finite="skip")
    loss = Faulty(plan, [7, 23], float("inf"))
    assert train_tiny(tmp_path, plan, loss=loss) == Ending(NUM_STEPS, finished=True)
    assert skips(tmp_path, plan) == [(7, 8), (23, 24)]
    assert kinds(tmp_path) == ["launch", *["non_finite", "skip"] * 2, "finish"]
    records = RunFolder(tmp_path).steps()
    assert [record.step for record in records] == [s for s in range(NUM_STEPS) if s not in (7, 23)]
    assert all(record.lr == plan.science.lr(record.step) for record in records)
    saved = read_saved_state(RunFolder(tmp_path).checkpoints / f"step-{NUM_STEPS:08d}")
    assert set(saved.optimizer_steps.values()) == {NUM_STEPS - 2}
    assert saved.num_samples == NUM_STEPS * plan.science.sequences_per_step


def test_a_run_resumed_from_before_a_skip_skips_again(tmp_path: Path) -> None:
    """The step is left out because the amendment says so, fault or no fault."""
    plan = plan_with(non_finite="skip")
    loss = Faulty(plan, [7], float("nan"))
    train_tiny(tmp_path / "whole", plan, loss=loss)
    train_tiny(tmp_path / "parts", plan, loss=loss, until_step=8)
    for path in RunFolder(tmp_path / "parts").checkpoints.glob("step-00000008/*"):
        path.unlink()  # what a kill before that checkpoint leaves
    (RunFolder(tmp_path / "parts").checkpoints / "step-00000008").rmdir()
    train_tiny(tmp_path / "parts", plan)
    assert tensors_of(tmp_path / "parts") == tensors_of(tmp_path / "whole")
    assert len(told(tmp_path / "parts", "non_finite")) == 1


def test_no_more_is_skipped_than_the_recipe_allows(tmp_path: Path) -> None:
    plan = plan_with(non_finite="skip", max_skips=2)
    with pytest.raises(NoSkipLeft, match=r"step 9.*2 skips were made already"):
        train_tiny(tmp_path, plan, loss=Faulty(plan, [7, 8, 9], float("nan")))
    assert skips(tmp_path, plan) == [(7, 8), (8, 9)]


# --- spikes --------------------------------------------------------------------------------------


def test_a_spike_is_told_once_and_stays_out_of_the_statistics(tmp_path: Path) -> None:
    plan = plan_with()
    train_tiny(tmp_path, plan, loss=Faulty(plan, [17, 18], 3.0), until_step=20)
    (message,) = told(tmp_path, "spike")
    assert message.startswith("step 17: the loss 4")
    saved = read_saved_state(RunFolder(tmp_path).checkpoints / "step-00000020")
    assert saved.guard.phase == "first"
    assert len(saved.guard.losses) == 18
    assert max(saved.guard.losses) < 30


def test_a_spike_can_stop_the_run(tmp_path: Path) -> None:
    plan = plan_with(spike="stop")
    with pytest.raises(LossSpike, match=r"step 18: the loss .* over the last 18 steps"):
        train_tiny(tmp_path, plan, loss=Faulty(plan, [18], 3.0))


def test_after_a_spike_the_run_goes_back_and_leaves_its_steps_out(tmp_path: Path) -> None:
    """The weights are those of a run that knew from the start which steps to leave out."""
    plan = plan_with(spike="skip")
    train_tiny(tmp_path / "spiked", plan, loss=Faulty(plan, [18], 3.0))
    assert skips(tmp_path / "spiked", plan) == [(15, 19)]
    assert kinds(tmp_path / "spiked") == ["launch", "skip", "finish"]
    steps = [record.step for record in RunFolder(tmp_path / "spiked").steps()]
    assert steps == [*range(15), *range(19, NUM_STEPS)]

    foreseen = RunFolder(tmp_path / "foreseen")
    foreseen.path.mkdir()
    evidence = read_amendments(RunFolder(tmp_path / "spiked").amendments, plan.fingerprint)
    append_amendment(foreseen.amendments, evidence)
    train_tiny(foreseen.path, plan)
    assert tensors_of(foreseen.path) == tensors_of(tmp_path / "spiked")


@pytest.mark.parametrize(
    ("every", "keep", "window"),
    [
        pytest.param(6, 3, (15, 19), id="the newest checkpoint before the window"),
        pytest.param(1, 2, (17, 19), id="all that are kept are later than its beginning"),
        pytest.param(99, 1, (15, 19), id="no checkpoint yet: from the base"),
    ],
)
def test_how_far_it_goes_back(
    tmp_path: Path, every: int, keep: int, window: tuple[int, int]
) -> None:
    plan = plan_with(spike="skip", every=every, keep=keep)
    train_tiny(tmp_path, plan, loss=Faulty(plan, [18], 3.0))
    assert skips(tmp_path, plan) == [window]
    assert RunFolder(tmp_path).steps()[-1].step == NUM_STEPS - 1


def test_a_rollback_that_was_killed_is_finished_by_the_next_launch(tmp_path: Path) -> None:
    """The amendment is on the disk, the checkpoints that it makes useless are there still."""
    plan = plan_with(spike="skip", every=2, keep=9)
    loss = Faulty(plan, [18], 3.0)
    train_tiny(tmp_path / "whole", plan, loss=loss)
    train_tiny(tmp_path / "killed", plan, loss=loss, until_step=18)
    run = RunFolder(tmp_path / "killed")
    amendments = Amendments(plan.fingerprint).with_skip(
        15,
        19,
        read_amendments(RunFolder(tmp_path / "whole").amendments, plan.fingerprint)
        .chain[0]
        .evidence,
    )
    append_amendment(run.amendments, amendments)
    train_tiny(tmp_path / "killed", plan, loss=loss)
    resumed = next(event for event in run.events() if event.kind == "resume")
    assert resumed.message.startswith("resumed from step-00000014")
    assert tensors_of(tmp_path / "killed") == tensors_of(tmp_path / "whole")


def test_the_guard_decides_alike_after_a_resume(tmp_path: Path) -> None:
    """What it compares with is in the checkpoint: without, step 18 would be too early to judge."""
    plan = plan_with(spike="skip")
    loss = Faulty(plan, [18], 3.0)
    train_tiny(tmp_path / "whole", plan, loss=loss)
    train_tiny(tmp_path / "parts", plan, loss=loss, until_step=12)
    train_tiny(tmp_path / "parts", plan, loss=loss)
    assert skips(tmp_path / "parts", plan) == [(15, 19)]
    assert tensors_of(tmp_path / "parts") == tensors_of(tmp_path / "whole")


def test_another_phase_begins_anew(tmp_path: Path) -> None:
    """All of the second phase lies far above the first: another blend, no spike."""
    plan = plan_with()
    loss = Faulty(plan, range(NUM_STEPS // 2, NUM_STEPS), 3.0)
    train_tiny(tmp_path, plan, loss=loss)
    assert told(tmp_path, "spike") == []


def test_the_limit_by_hand() -> None:
    """Sixteen losses 1.0 … 2.5: median 1.75, median absolute deviation 0.4."""
    losses = tuple(1 + number / 10 for number in range(16))
    assert spike_limit(losses, deviations=10) == pytest.approx(1.75 + 10 * 1.4826 * 0.4)
    assert spike_limit(losses[:15], deviations=10) is None
    assert spike_limit((2.0,) * 16, deviations=10) == pytest.approx(2.0 + 10 * 0.002)
    # Three values a thousand times as high hardly move it.
    moved = spike_limit((*losses, 1e3, 1e3, 1e3), deviations=10)
    assert moved is not None
    assert moved < 10


# --- amendments ----------------------------------------------------------------------------------


def test_a_chain_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "amendments.jsonl"
    assert read_amendments(path, "plan") == Amendments("plan")
    one = Amendments("plan").with_skip(3, 5, "a")
    two = one.with_skip(9, 10, "b")
    append_amendment(path, one)
    append_amendment(path, two)
    path.write_text(path.read_text() + '{"torn')
    found = read_amendments(path, "plan")
    assert found == two
    assert [step for step in range(12) if found.skips(step)] == [3, 4, 9]
    assert found.chain[1].parent == one.last
    assert found.why_outdated(one.last, 9) is None
    assert found.why_outdated(one.last, 10) == "it was reached before step 9 was skipped"
    assert found.why_outdated("", 4) == "it was reached before step 3 was skipped"
    assert found.why_outdated(two.last, 99) is None
    assert "does not have" in str(one.why_outdated(two.last, 0))


def test_a_broken_chain_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "amendments.jsonl"
    append_amendment(path, Amendments("plan").with_skip(3, 5, "a"))
    with pytest.raises(RunFolderError, match="amendment 1 does not follow"):
        read_amendments(path, "another plan")
    path.write_text(path.read_text() * 2)
    with pytest.raises(RunFolderError, match="amendment 2 does not follow"):
        read_amendments(path, "plan")
    path.write_text('{"parent": "plan", "change": "delete"}\n')
    with pytest.raises(RunFolderError, match=r"amendments\.jsonl"):
        read_amendments(path, "plan")


def test_a_checkpoint_whose_amendments_are_gone_is_refused(tmp_path: Path) -> None:
    plan = plan_with(non_finite="skip")
    train_tiny(tmp_path, plan, loss=Faulty(plan, [7], float("nan")), until_step=10)
    RunFolder(tmp_path).amendments.unlink()
    with pytest.raises(RunFolderError, match="amendments that this run does not have"):
        train_tiny(tmp_path, plan)
    assert (RunFolder(tmp_path).checkpoints / "step-00000010").is_dir()
