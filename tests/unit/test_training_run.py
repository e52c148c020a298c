"""A launch from lock to ending: hooks, resuming, signals, refusals; the same bits every time."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rewarm.batches.loader import BatchLoader
from rewarm.distributed.fsdp import Root
from rewarm.distributed.world import World
from rewarm.errors import (
    BaseModelError,
    CheckpointError,
    CorpusError,
    EnvironmentFault,
    RunFolderError,
)
from rewarm.model.loss import sum_of_token_losses
from rewarm.planning.plan import Plan
from rewarm.records.facts import EvalRecord, StepRecord
from rewarm.records.run_folder import RunFolder
from rewarm.training import saver
from rewarm.training.hooks import SaveCheckpoints
from rewarm.training.lock import hold_lock
from rewarm.training.loop import train
from rewarm.training.optimizer import build_optimizer, trainable_parameters
from rewarm.training.randomness import undisturbed
from rewarm.training.run import Ending, run_training
from rewarm.training.signals import listen_to_signals
from rewarm.training.state import Snapshot, TrainState, write_snapshot
from rewarm.training.step import NonFiniteStep
from tests.support.tiny_plans import (
    SEQUENCE_LENGTH,
    VOCAB_SIZE,
    FakeView,
    make_materials,
    make_placement,
    make_plan,
    make_views,
    new_tiny_model,
    noisy_evaluation,
    tensors_of,
    train_tiny,
)

NUM_STEPS = 20
PLAN = make_plan(num_steps=NUM_STEPS, evaluation_steps=(0, 1, 2, 4, 10, 20))


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """Files of the last checkpoint of a run that nothing disturbed and nobody evaluated."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert train_tiny(folder, PLAN) == Ending(NUM_STEPS, finished=True)
    return tensors_of(folder)


class At:
    """A hook that does something after a given step."""

    def __init__(self, step: int, action: Callable[[], object]) -> None:
        self.step = step
        self.action = action

    def before_train(self, state: TrainState, /) -> None:
        pass

    def after_step(self, state: TrainState, record: StepRecord | None, /) -> None:
        if state.step == self.step:
            self.action()

    def on_stop(self, state: TrainState, /) -> None:
        pass


def send(*numbers: signal.Signals) -> Callable[[], None]:
    def action() -> None:
        for number in numbers:
            os.kill(os.getpid(), number)

    return action


def kinds(folder: Path) -> list[str]:
    return [event.kind for event in RunFolder(folder).events()]


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in RunFolder(folder).checkpoints.iterdir())


# --- the loop --------------------------------------------------------------------------------


def test_the_loop_takes_a_step_advances_and_lets_the_hooks_look_in_order() -> None:
    seen: list[str] = []

    class Watch:
        def __init__(self, name: str) -> None:
            self.name = name

        def before_train(self, state: TrainState, /) -> None:
            seen.append(f"{self.name} before {state.step}")

        def after_step(self, state: TrainState, record: StepRecord | None, /) -> None:
            assert record is not None
            seen.append(f"{self.name} after {record.step}, state {state.step}")

        def on_stop(self, state: TrainState, /) -> None:
            seen.append(f"{self.name} stop {state.step}")

    def take_step(state: TrainState, batch: object, /) -> StepRecord:
        seen.append(f"step {state.step}")
        return StepRecord(
            step=state.step,
            loss=1.0,
            lr=0.0,
            grad_norm=0.0,
            num_valid_tokens=1,
            num_tokens=1,
            phase="p",
            samples=(1,),
            step_s=0.0,
        )

    model = nn.Linear(1, 1)
    state = TrainState(
        Root(model), build_optimizer(trainable_parameters(model), PLAN.science.optimizer), step=3
    )
    loader = BatchLoader(
        PLAN.science.order(), make_views(), sequence_length=SEQUENCE_LENGTH, vocab_size=VOCAB_SIZE
    )
    records = train(
        state, take_step, loader, [Watch("a"), Watch("b")], until=lambda state: state.step == 5
    )
    assert seen == []
    assert [record.step for record in records] == [3, 4]
    assert seen == [
        "a before 3",
        "b before 3",
        "step 3",
        "a after 3, state 4",
        "b after 3, state 4",
        "step 4",
        "a after 4, state 5",
        "b after 4, state 5",
        "a stop 5",
        "b stop 5",
    ]


# --- resuming ----------------------------------------------------------------------------------


def test_stopping_and_resuming_changes_no_bit(
    tmp_path: Path, uninterrupted: Mapping[str, bytes]
) -> None:
    assert train_tiny(tmp_path, PLAN, until_step=7) == Ending(7, finished=False)
    assert train_tiny(tmp_path, PLAN, until_step=7) == Ending(7, finished=False)
    assert train_tiny(tmp_path, PLAN) == Ending(NUM_STEPS, finished=True)
    assert tensors_of(tmp_path) == uninterrupted
    records = RunFolder(tmp_path).steps()
    assert [record.step for record in records] == list(range(NUM_STEPS))
    assert [record.num_tokens for record in records] == [96 * (k + 1) for k in range(NUM_STEPS)]
    assert [record.phase for record in records] == ["first"] * 10 + ["second"] * 10
    assert [record.lr for record in records] == [PLAN.science.lr(k) for k in range(NUM_STEPS)]
    assert all(sum(record.samples) == 8 for record in records)
    assert records[-1].loss < records[0].loss


def test_bf16_autocast_resumes_to_the_same_bits_with_float32_weights(tmp_path: Path) -> None:
    placement = make_placement().model_copy(update={"autocast_dtype": "bfloat16"})
    for name, stops in {"whole": (), "parts": (3,)}.items():
        for until_step in (*stops, 6):
            run_training(
                PLAN,
                placement,
                RunFolder(tmp_path / name),
                make_materials(),
                resume_with="",
                until_step=until_step,
            )
    assert tensors_of(tmp_path / "whole") == tensors_of(tmp_path / "parts")
    weights = load_file(
        RunFolder(tmp_path / "whole").checkpoints / "step-00000006" / "model.safetensors"
    )
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    train_tiny(tmp_path / "float32", PLAN, until_step=6)
    losses = [
        [record.loss for record in RunFolder(tmp_path / name).steps()]
        for name in ("whole", "float32")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
    assert losses[0] != losses[1], "autocast was not on"


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    train_tiny(tmp_path, PLAN)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json*")}

    def refuse() -> nn.Module:
        raise AssertionError("a finished run needs no model")

    assert train_tiny(tmp_path, PLAN, load_model=refuse) == Ending(NUM_STEPS, finished=True)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json*")}
    assert after == before


def test_evaluations_disturb_nothing_and_the_base_is_measured_first(
    tmp_path: Path, uninterrupted: Mapping[str, bytes]
) -> None:
    """The measure draws random numbers and changes modes; the weights are those without it."""
    modes: list[bool] = []

    def evaluator(root: Root, step: int) -> list[EvalRecord]:
        modes.append(root.model.get_submodule("dropout").training)
        return noisy_evaluation(root, step)

    train_tiny(tmp_path, PLAN, evaluator=evaluator, until_step=7)
    train_tiny(tmp_path, PLAN, evaluator=evaluator)
    assert tensors_of(tmp_path) == uninterrupted
    assert [record.step for record in RunFolder(tmp_path).evals()] == [0, 1, 2, 4, 10, 20]
    assert modes == [False] * 6


def test_the_base_is_measured_again_where_nothing_was_saved_since(tmp_path: Path) -> None:
    seen: list[int] = []

    def evaluator(root: Root, step: int) -> list[EvalRecord]:
        seen.append(step)
        return []

    interrupt = At(3, send(signal.SIGINT, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train_tiny(tmp_path, PLAN, evaluator=evaluator, hooks=[interrupt])
    train_tiny(tmp_path, PLAN, evaluator=evaluator, until_step=5)
    train_tiny(tmp_path, PLAN, evaluator=evaluator, until_step=6)
    assert seen == [0, 1, 2, 0, 1, 2, 4]


def in_background(plan: Plan) -> Plan:
    """Return a plan whose checkpoints are written while training goes on."""
    recipe = plan.conduct.checkpoints.model_copy(update={"background": True})
    conduct = plan.conduct.model_copy(update={"checkpoints": recipe})
    return plan.model_copy(update={"conduct": conduct})


def test_a_save_in_the_background_holds_the_step_that_it_is_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writing waits until later steps were taken: the files are those of a save at once."""
    plan = make_plan(num_steps=10, checkpoint_every=5, keep=9)
    train_tiny(tmp_path / "at once", plan)
    later = threading.Event()

    def late(folder: Path, snapshot: Snapshot, world: World) -> None:
        assert snapshot.saved.step == 10 or later.wait(30), "no step was taken meanwhile"
        write_snapshot(folder, snapshot, world)

    monkeypatch.setattr(saver, "write_snapshot", late)
    hooks = [At(8, later.set)]
    train_tiny(tmp_path / "background", in_background(plan), hooks=hooks)
    for step in ("step-00000005", "step-00000010"):
        one, other = (RunFolder(tmp_path / n).checkpoints / step for n in ("at once", "background"))
        for file in sorted(path.name for path in one.iterdir()):
            assert (one / file).read_bytes() == (other / file).read_bytes(), file


def test_a_save_that_fails_in_the_background_ends_the_run_at_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not found out at the next save, some thousand steps later."""
    plan = in_background(make_plan(num_steps=400, checkpoint_every=200, keep=9))

    def refuse(folder: Path, snapshot: Snapshot, world: World) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(saver, "write_snapshot", refuse)
    with pytest.raises(EnvironmentFault, match="step 200 cannot be written"):
        train_tiny(tmp_path, plan)
    assert RunFolder(tmp_path).steps()[-1].step < 390
    assert checkpoints(tmp_path) == []


def test_a_base_that_cannot_be_loaded_has_not_begun_a_run(tmp_path: Path) -> None:
    """Its plan can still be changed."""

    def refuse() -> nn.Module:
        raise BaseModelError.one("base", "it is damaged", "get another")

    with pytest.raises(BaseModelError):
        train_tiny(tmp_path, PLAN, load_model=refuse)
    assert not RunFolder(tmp_path).has_begun()


def test_another_placement_is_told(tmp_path: Path) -> None:
    train_tiny(tmp_path, PLAN, until_step=5)
    train_tiny(tmp_path, PLAN, until_step=6, micro_batch_sequences=8)
    event = RunFolder(tmp_path).events()[-3]
    assert event.kind == "resume"
    assert "micro_batch_sequences: 4 → 8" in event.message
    assert event.details["placement"]["micro_batch_sequences"] == 8  # type: ignore[index]


def test_checkpoints_come_as_planned_and_at_the_end(tmp_path: Path) -> None:
    train_tiny(tmp_path, make_plan(checkpoint_every=5, keep=9), until_step=13)
    assert checkpoints(tmp_path) == [f"step-{step:08d}" for step in (5, 10, 13)]
    assert kinds(tmp_path) == ["launch", *["checkpoint"] * 3, "stop"]


def test_each_submodule_gets_its_own_mode_back() -> None:
    model = new_tiny_model()
    model.train()
    model.mixer.eval()
    with undisturbed(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
        model.train()
    assert [name for name, module in model.named_modules() if not module.training] == ["mixer"]
    assert torch.is_grad_enabled()


# --- what is refused ---------------------------------------------------------------------------


def test_another_plan_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    train_tiny(tmp_path, PLAN, until_step=5)
    before = tensors_of(tmp_path)

    def refuse() -> nn.Module:
        raise AssertionError("the plan is looked at first")

    with pytest.raises(RunFolderError, match=r"schedule\[0\].*; seed: 1 → 2") as caught:
        train_tiny(tmp_path, make_plan(seed=2, peak_lr=2e-2), load_model=refuse)
    assert caught.value.exit_code == 2
    assert tensors_of(tmp_path) == before


def test_a_second_launcher_is_refused_and_touches_nothing(tmp_path: Path) -> None:
    with hold_lock(tmp_path / "lock.json", print):
        with pytest.raises(RunFolderError, match=f"in use by process {os.getpid()} on"):
            train_tiny(tmp_path, PLAN)
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock.json.guard", "lock.json"]


def test_checkpoints_of_which_none_is_whole_are_an_error(tmp_path: Path) -> None:
    train_tiny(tmp_path, PLAN, until_step=5)
    os.truncate(RunFolder(tmp_path).checkpoints / "step-00000005" / "state.json", 10)
    with pytest.raises(CheckpointError, match=r"state\.json has 10 bytes"):
        train_tiny(tmp_path, PLAN)
    assert checkpoints(tmp_path) == ["step-00000005"]
    assert not RunFolder(tmp_path).lock.exists()


def test_a_damaged_checkpoint_is_passed_over_and_the_result_is_the_same(
    tmp_path: Path, uninterrupted: Mapping[str, bytes]
) -> None:
    train_tiny(tmp_path, PLAN, until_step=12)
    weights = RunFolder(tmp_path).checkpoints / "step-00000012" / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-5] ^= 64
    weights.write_bytes(raw)
    train_tiny(tmp_path, PLAN)
    assert tensors_of(tmp_path) == uninterrupted
    (event,) = [event for event in RunFolder(tmp_path).events() if event.kind == "passed_over"]
    assert event.message.startswith("step-00000012 is damaged: model.safetensors was altered")
    assert event.step == 10


def test_who_lost_the_lock_saves_no_more(tmp_path: Path) -> None:
    hook = At(4, (tmp_path / "lock.json").unlink)
    with pytest.raises(RunFolderError, match="was removed"):
        train_tiny(tmp_path, PLAN, hooks=[hook])
    assert not RunFolder(tmp_path).checkpoints.exists()


def test_a_full_disk_stops_the_run_and_the_same_command_goes_on(
    tmp_path: Path, uninterrupted: Mapping[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    train_tiny(tmp_path, PLAN, until_step=5)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("rewarm.training.checkpoint._fsync_file", full)
        with pytest.raises(EnvironmentFault, match="checkpoint of step 10 cannot be written"):
            train_tiny(tmp_path, PLAN)
    assert checkpoints(tmp_path) == ["step-00000005"]
    train_tiny(tmp_path, PLAN)
    assert tensors_of(tmp_path) == uninterrupted


def test_a_token_outside_of_the_vocabulary_stops_the_run(tmp_path: Path) -> None:
    views = {**make_views(), "new": FakeView(2, vocab_size=VOCAB_SIZE + 1)}
    with pytest.raises(CorpusError, match=f"is id {VOCAB_SIZE}, but"):
        train_tiny(tmp_path, PLAN, views=views)


# --- losses that are not finite ----------------------------------------------------------------


class Poisoned:
    """The loss, with NaN in the gradient alone at some of its calls (counted from 0)."""

    def __init__(self, *bad_calls: int) -> None:
        self.bad_calls = bad_calls
        self.calls = 0

    def __call__(
        self, model: nn.Module, ids: Tensor, labels: Tensor, *documents: Tensor | None
    ) -> tuple[Tensor, object]:
        nats, count = sum_of_token_losses(model, ids, labels, *documents)
        if self.calls in self.bad_calls:
            nats.register_hook(lambda gradient: gradient * math.nan)  # type: ignore[no-untyped-call]
        self.calls += 1
        return nats, count


def test_a_gradient_that_is_not_finite_once_leaves_no_trace(
    tmp_path: Path, uninterrupted: Mapping[str, bytes]
) -> None:
    train_tiny(tmp_path, PLAN, loss=Poisoned(13))  # second micro-batch of step 6
    assert tensors_of(tmp_path) == uninterrupted
    (event,) = [event for event in RunFolder(tmp_path).events() if event.kind == "non_finite"]
    assert event.step == 6
    assert "gradient norm nan; the step is replayed once" in event.message


def test_a_gradient_that_stays_not_finite_stops_the_run_for_a_later_launch(
    tmp_path: Path, uninterrupted: Mapping[str, bytes]
) -> None:
    with pytest.raises(NonFiniteStep, match="step 6: the gradient norm is nan") as caught:
        train_tiny(tmp_path, PLAN, loss=Poisoned(13, 15))
    assert f"rewarm trace {tmp_path} --step 6" in str(caught.value)
    assert not RunFolder(tmp_path).lock.exists()
    assert checkpoints(tmp_path) == ["step-00000005"]
    train_tiny(tmp_path, PLAN)
    assert tensors_of(tmp_path) == uninterrupted


# --- signals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_launch_after_the_step_with_a_checkpoint(
    tmp_path: Path,
    uninterrupted: Mapping[str, bytes],
    number: signal.Signals,
    capfd: pytest.CaptureFixture[str],
) -> None:
    ending = train_tiny(tmp_path, PLAN, hooks=[At(7, send(number))])
    assert ending == Ending(7, finished=False, signal=number.name)
    assert checkpoints(tmp_path)[-1] == "step-00000007"
    assert f"{number.name}: finishing the step, then a checkpoint" in capfd.readouterr().err
    event = RunFolder(tmp_path).events()[-1]
    assert event.kind == "stop"
    assert event.message == f"stopped by {number.name} after 7 steps; go on: the same command"
    train_tiny(tmp_path, PLAN)
    assert tensors_of(tmp_path) == uninterrupted


def test_a_second_sigint_leaves_at_once(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_tiny(tmp_path, PLAN, hooks=[At(7, send(signal.SIGINT, signal.SIGINT))])
    assert checkpoints(tmp_path) == ["step-00000005"]
    assert not RunFolder(tmp_path).lock.exists()


def test_a_sigterm_in_between_does_not_take_a_second_sigint_away(tmp_path: Path) -> None:
    three = send(signal.SIGINT, signal.SIGTERM, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train_tiny(tmp_path, PLAN, hooks=[At(7, three)])


def test_a_second_sigterm_changes_nothing(tmp_path: Path) -> None:
    ending = train_tiny(tmp_path, PLAN, hooks=[At(7, send(signal.SIGTERM, signal.SIGTERM))])
    assert ending.step == 7


def test_sigusr1_saves_and_goes_on(tmp_path: Path, uninterrupted: Mapping[str, bytes]) -> None:
    plan = make_plan(num_steps=NUM_STEPS, keep=9)
    ending = train_tiny(tmp_path, plan, hooks=[At(7, send(signal.SIGUSR1))])
    assert ending.finished
    assert checkpoints(tmp_path) == [f"step-{step:08d}" for step in (5, 7, 10, 15, 20)]
    assert tensors_of(tmp_path) == uninterrupted


def test_handlers_go_back_to_who_had_them(tmp_path: Path) -> None:
    watched = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in watched]
    train_tiny(tmp_path, PLAN, until_step=1)
    assert [signal.getsignal(number) for number in watched] == before


def test_outside_of_the_main_thread_no_signal_is_taken() -> None:
    found: list[str | None] = ["never ran"]

    def listen() -> None:
        with listen_to_signals() as requests:
            found[0] = requests.stop_signal

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert found == [None]


def test_nothing_is_saved_where_nothing_was_trained() -> None:
    saved: list[int | str] = []

    class Noting:
        def save(self, state: TrainState, /) -> None:
            saved.append(state.step)

        def finish(self) -> None:
            saved.append("finish")

    hook = SaveCheckpoints(Noting(), lambda step: False)
    model = nn.Linear(1, 1)
    state = TrainState(
        Root(model), build_optimizer(trainable_parameters(model), PLAN.science.optimizer), step=3
    )
    hook.before_train(state)
    hook.on_stop(state)
    assert saved == ["finish"]
