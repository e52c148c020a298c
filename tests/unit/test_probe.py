"""What a probe tries and takes, and what a plan makes of it; trials are made up but for one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rewarm.errors import EnvironmentFault, PlanError
from rewarm.planning import gpu as gpus
from rewarm.planning.gpu import Gpu
from rewarm.planning.plan import Estimate, Placement, Plan, PlannedMeasure
from rewarm.planning.probed import probe_key, with_probe
from rewarm.recipe.steps import TrainingRecipe
from rewarm.records.facts import EventRecord
from rewarm.records.probe import Probe, Trial
from rewarm.records.probe_trial import TrialReply, TrialRequest
from rewarm.records.run_folder import RunFolder
from rewarm.stages import probe as stage
from rewarm.stages.plan import probe_of
from rewarm.stages.probe import probe_plan
from rewarm.stages.probe_search import Way, chosen_of, ways
from rewarm.training.placement import choose_placement
from tests.support.fake_facts import make_model_facts
from tests.support.tiny_plans import make_placement, make_plan

PLAN = make_plan()  # 8 sequences a step
LIMIT = 1000 * 2**20
DEFAULT = 4

Machine = Callable[[Way], Trial]
"""What a trial comes to, by its way."""


def machine(
    *, limit: int = LIMIT, bytes_each: int = 100 * 2**20, seconds: Callable[[Way], float]
) -> Machine:
    """Return a machine on which a micro-batch takes so many bytes a sequence, less checkpointed."""
    share = {"none": 1.0, "selective": 0.6, "full": 0.25}

    def tried(way: Way) -> Trial:
        peak = int(way.micro_batch_sequences * bytes_each * share[way.checkpointing])
        return Trial(
            **way._asdict(),
            fits=peak <= limit,
            num_steps=5,
            step_s=seconds(way),
            peak_bytes=peak,
            predicted_bytes=0,
        )

    return tried


def trained_as(training: TrainingRecipe) -> Plan:
    conduct = PLAN.conduct.model_copy(update={"training": training})
    return PLAN.model_copy(update={"conduct": conduct})


def reply_of(trial: Trial, *, device_name: str = "test", limit: int = LIMIT) -> TrialReply:
    placement = make_placement(micro_batch_sequences=trial.micro_batch_sequences)
    placement = placement.model_copy(
        update={"checkpointing": trial.checkpointing, "device_name": device_name}
    )
    return TrialReply(
        trial=trial,
        placement=placement.model_dump(mode="json"),
        limit_bytes=limit,
        num_trained=1_000_000,
    )


def searched(
    tried: Machine, *, plan: Plan = PLAN, begun: Placement | None = None
) -> tuple[list[Way], Way | None]:
    """Return what a search tries in its order, and what it takes."""
    replies: list[TrialReply] = []
    for way in ways(plan, replies, begun):
        default = plan.conduct.training.micro_batch_sequences or DEFAULT
        replies.append(reply_of(tried(way or Way(default, "none"))))
    found = [Way(r.trial.micro_batch_sequences, r.trial.checkpointing) for r in replies]
    chosen = chosen_of(replies)
    return found, None if chosen is None else found[chosen]


def test_what_launches_do_anyway_is_kept_where_nothing_is_clearly_faster() -> None:
    """Two per cent is what steps differ by."""
    seconds = {8: 0.98, 4: 1.0, 2: 0.99, 1: 2.0}
    tried, taken = searched(machine(seconds=lambda way: seconds[way.micro_batch_sequences]))
    assert [way.micro_batch_sequences for way in tried] == [4, 8, 2]
    assert taken == Way(4, "none")


def test_larger_micro_batches_are_tried_for_as_long_as_they_are_faster() -> None:
    plan = make_plan()
    science = plan.science.model_copy(update={"sequences_per_step": 32})
    plan = plan.model_copy(update={"science": science})
    seconds = {32: 0.9, 16: 0.7, 8: 0.8, 4: 1.0}
    tried, taken = searched(
        machine(limit=2**40, seconds=lambda way: seconds[way.micro_batch_sequences]), plan=plan
    )
    assert [way.micro_batch_sequences for way in tried] == [4, 8, 16, 32]
    assert taken == Way(16, "none")


def test_smaller_ones_are_tried_where_larger_ones_are_slower() -> None:
    tried, taken = searched(machine(seconds=lambda way: float(way.micro_batch_sequences)))
    assert [way.micro_batch_sequences for way in tried] == [4, 8, 2, 1]
    assert taken == Way(1, "none")


def test_where_the_default_does_not_fit_less_is_tried_until_it_does() -> None:
    """First smaller micro-batches, which cost no time; then blocks are computed again."""
    of_two = trained_as(TrainingRecipe(micro_batch_sequences=2))
    tried, taken = searched(machine(bytes_each=300 * 2**20, seconds=lambda way: 1.0))
    assert tried[:2] == [Way(4, "none"), Way(2, "none")]
    assert taken == Way(2, "none")
    tried, taken = searched(machine(bytes_each=600 * 2**20, seconds=lambda way: 1.0), plan=of_two)
    assert tried == [Way(2, "none"), Way(2, "selective")]
    assert taken == Way(2, "selective")
    _, taken = searched(machine(bytes_each=10**13, seconds=lambda way: 1.0))
    assert taken is None


def test_what_the_estimate_rules_out_is_not_tried() -> None:
    """The last trial corrects it: here a process takes a hundred times what was predicted."""
    plan = make_plan()

    def tried(way: Way) -> Trial:
        trial = machine(bytes_each=600 * 2**20, seconds=lambda way: 1.0)(way)
        return trial.model_copy(update={"predicted_bytes": 20 * 2**20})

    found, taken = searched(tried, plan=plan)
    assert Way(2, "none") not in found
    assert taken is not None


def test_what_the_recipe_names_is_not_varied() -> None:
    plan = trained_as(TrainingRecipe(micro_batch_sequences=2, activation_checkpointing="none"))
    tried, taken = searched(machine(seconds=lambda way: 1.0), plan=plan)
    assert tried == [Way(2, "none")]
    assert taken == Way(2, "none")


def test_a_run_that_has_begun_keeps_its_way_on_its_device() -> None:
    """Its last bits depend on it."""
    begun = make_placement(micro_batch_sequences=2)
    tried, _ = searched(machine(seconds=lambda way: float(way.micro_batch_sequences)), begun=begun)
    assert tried == [Way(2, "none")]
    elsewhere = begun.model_copy(update={"device_name": "another"})
    tried, taken = searched(
        machine(seconds=lambda way: float(way.micro_batch_sequences)), begun=elsewhere
    )
    assert taken == Way(1, "none")


@pytest.mark.parametrize("device_name", ["test", "another"])
def test_a_run_that_has_begun_otherwise_than_the_recipe_says_by_now_is_probed_by_the_recipe(
    device_name: str,
) -> None:
    """As its launches go on; on another device the search is free in what is not named."""
    begun = make_placement(micro_batch_sequences=2).model_copy(
        update={"device_name": device_name, "checkpointing": "selective"}
    )
    tight = machine(seconds=lambda way: 1.0, bytes_each=LIMIT)
    never = trained_as(TrainingRecipe(activation_checkpointing="none"))
    tried, taken = searched(tight, plan=never, begun=begun)
    assert tried == [Way(2, "none"), Way(1, "none")][: 1 if device_name == "test" else 2]
    assert taken == (None if device_name == "test" else Way(1, "none"))
    of_four = trained_as(TrainingRecipe(micro_batch_sequences=4))
    tried, _ = searched(tight, plan=of_four, begun=begun)
    assert tried == [Way(4, "selective"), Way(4, "full")][: 1 if device_name == "test" else 2]


def test_a_run_whose_micro_batch_does_not_divide_the_step_any_more_is_probed_as_a_new_one() -> None:
    """Of a step of 8 sequences, 3 at a time are no launch's."""
    for device_name in ("test", "another"):
        begun = make_placement(micro_batch_sequences=3)
        begun = begun.model_copy(update={"device_name": device_name})
        tried, taken = searched(machine(seconds=lambda way: 1.0), begun=begun)
        assert (tried[0], taken) == (Way(DEFAULT, "none"), Way(DEFAULT, "none"))
        of_two = trained_as(TrainingRecipe(micro_batch_sequences=2))
        assert searched(machine(seconds=lambda way: 1.0), plan=of_two, begun=begun)[1] == Way(
            2, "none"
        )


def made_probe(plan: Plan = PLAN, **changes: object) -> Probe:
    trial = Trial(
        micro_batch_sequences=2,
        checkpointing="selective",
        fits=True,
        num_steps=10,
        step_s=0.5,
        peak_bytes=700 * 2**20,
        process_bytes=300 * 2**20,
        steps_bytes=390 * 2**20,
        start_s=4.0,
        evaluation_tokens=0,
        checkpoint_bytes=1000,
        checkpoint_s=0.25,
        watts=36.0,
    ).model_copy(update=changes)
    return Probe(
        key=probe_key(plan),
        device="cpu",
        device_name="test",
        num_threads=1,
        limit_bytes=LIMIT,
        tokens_per_step=plan.science.tokens_per_step,
        trials=(trial,),
        chosen=0,
    )


BEFORE = (
    Estimate(name="time", value=30.0, unit="s", formula="guessed"),
    Estimate(name="peak memory", value=500 * 2**20, unit="byte", formula="by shapes"),
)


def probed(**changes: object) -> dict[str, Estimate]:
    """Return the estimates of a plan that a probe has corrected."""
    plan = with_probe(PLAN.model_copy(update={"estimates": BEFORE}), made_probe(PLAN, **changes))
    return {estimate.name: estimate for estimate in plan.estimates}


def test_estimates_stand_on_what_was_measured() -> None:
    """20 steps of half a second, a save every 5 of a quarter of one, and 4 seconds to begin."""
    before = (*BEFORE, Estimate(name="cost", value=3.0, unit="", formula="hours · 10"))
    plan = with_probe(PLAN.model_copy(update={"estimates": before}), made_probe())
    found = {estimate.name: estimate for estimate in plan.estimates}
    assert found["time"].value == 20 * 0.5 + 4 * 0.25 + 4.0
    assert found["cost"].value == pytest.approx(3.0 * 15 / 30)
    assert found["energy"].value == pytest.approx(15 * 36 / 3.6e6)
    # Two kept, one being written; the export in float32.
    assert found["disk"].value == 3 * 1000 + 4 * PLAN.conduct.model.num_parameters
    two = with_probe(PLAN.model_copy(update={"estimates": before}), made_probe(), num_devices=2)
    assert next(e.value for e in two.estimates if e.name == "time") == 5 + 4 * 0.25 + 4.0
    assert two.fingerprint == PLAN.fingerprint


def test_the_peak_is_what_steps_take_and_what_has_to_fit_is_told() -> None:
    """As without a probe: beside the process's own, and without evaluations and saves."""
    peak = probed()["peak memory"]
    assert (peak.value, peak.unit) == (390 * 2**20, "byte")
    assert peak.formula == (
        "measured on test, 2 sequences at a time, selective checkpointing; 700 MiB in all, the "
        "process's own 300 MiB with it; 1000 MiB may be taken"
    )
    around = probed(other_peak_bytes=900 * 2**20)["peak memory"]
    assert around.value == 390 * 2**20
    assert "900 MiB in all (loading, evaluation or a save), the process's" in around.formula
    of_gpu = probed(process_bytes=0)["peak memory"]
    assert "; 700 MiB in all; 1000" in of_gpu.formula


def test_where_steps_are_not_told_apart_their_peak_stays_that_by_shapes() -> None:
    peak = probed(steps_bytes=None, process_bytes=0)["peak memory"]
    assert peak.value == 500 * 2**20
    assert peak.formula == "by shapes; measured on test: 700 MiB in all; 1000 MiB may be taken"


def test_evaluations_take_as_long_as_the_one_that_was_measured() -> None:
    """100 tokens in two seconds; on two devices half as long."""
    measures = (
        PlannedMeasure(domain="old", what="held-out text", tokens=80, times=5),
        PlannedMeasure(domain="quiz", what="cloze", tokens=20, times=2),
        PlannedMeasure(domain="arc", what="lm-evaluation-harness", tokens=0, times=2),
    )
    plan = PLAN.model_copy(update={"estimates": BEFORE, "evaluation": measures})
    probe = made_probe(evaluation_tokens=100, evaluation_s=2.0)
    for num_devices in (1, 2):
        found = with_probe(plan, probe, num_devices=num_devices)
        seconds = [measure.all_s for measure in found.evaluation]
        assert seconds == [8 / num_devices, pytest.approx(0.8 / num_devices), 0]
        (time,) = [e for e in found.estimates if e.name == "time"]
        assert time.value == pytest.approx((10 + 8.8) / num_devices + 4 * 0.25 + 4)
    harness_alone = plan.model_copy(update={"evaluation": measures[2:]})
    (measure,) = with_probe(harness_alone, made_probe(evaluation_s=2.0)).evaluation
    assert measure.all_s is None


def test_a_probe_of_other_settings_changes_nothing_but_a_warning() -> None:
    other = make_plan()
    science = other.science.model_copy(update={"sequence_length": 24})
    plan = with_probe(other.model_copy(update={"science": science}), made_probe())
    assert plan.estimates == ()
    assert "measure these with --probe" in plan.warnings[-1]


H200 = Gpu("NVIDIA H200", 140 * 2**30)
ASSUMED = Gpu("a GPU that is not at hand", 79 * 2**30, is_assumed=True)


@pytest.mark.parametrize(
    ("probed_on", "planned", "at_hand", "corrects"),
    [
        ("cpu", None, None, True),
        ("cpu", ASSUMED, None, False),
        ("cpu", H200, H200, False),
        ("NVIDIA H200", None, None, False),
        ("NVIDIA H200", H200, H200, True),
        ("NVIDIA H200", ASSUMED, H200, False),  # the recipe speaks of another
        ("NVIDIA H200", ASSUMED, None, True),  # probed where it is
        ("another GPU", H200, H200, False),
    ],
)
def test_a_probe_of_another_kind_of_device_than_the_plans_corrects_nothing(
    monkeypatch: pytest.MonkeyPatch,
    probed_on: str,
    planned: Gpu | None,
    at_hand: Gpu | None,
    corrects: bool,
) -> None:
    """A GPU's price does not go with a CPU's hours."""
    monkeypatch.setattr(gpus, "gpu_at_hand", lambda: at_hand)
    before = (*BEFORE, Estimate(name="cost", value=3.0, unit="", formula="hours · 10"))
    device = "cpu" if probed_on == "cpu" else "cuda"
    probe = made_probe().model_copy(update={"device": device, "device_name": probed_on})
    plan = with_probe(PLAN.model_copy(update={"estimates": before}), probe, gpu=planned)
    assert (plan.estimates != before) == corrects
    if not corrects:
        assert f"the probe was on {probed_on}, and the plan is for " in plan.warnings[-1]


def test_a_launch_takes_over_what_was_chosen_for_its_device(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.probe.write_text(made_probe().model_dump_json())
    probe = probe_of(PLAN, run)
    assert probe is not None
    training = TrainingRecipe(device="cpu", num_threads=1)
    facts = make_model_facts()
    here, _ = choose_placement(training, PLAN.science, facts)
    probe = probe.model_copy(update={"device_name": here.device_name})
    taken, _ = choose_placement(training, PLAN.science, facts, probe=probe)
    assert (taken.micro_batch_sequences, taken.checkpointing) == (2, "selective")
    named = training.model_copy(
        update={"micro_batch_sequences": 8, "activation_checkpointing": "none"}
    )
    taken, _ = choose_placement(named, PLAN.science, facts, probe=probe)
    assert (taken.micro_batch_sequences, taken.checkpointing) == (8, "none")
    probe = probe.model_copy(update={"device_name": "another"})
    assert choose_placement(training, PLAN.science, facts, probe=probe)[0] == here
    science = PLAN.science.model_copy(update={"sequence_length": 24})
    assert probe_of(PLAN.model_copy(update={"science": science}), run) is None


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[TrialRequest]:
    """Trials are answered without a process; the requests that were made."""
    asked: list[TrialRequest] = []

    def answer(plan: Plan, request: TrialRequest) -> TrialReply:
        asked.append(request)
        way = Way(request.micro_batch_sequences or DEFAULT, request.checkpointing or "none")
        trial = machine(seconds=lambda way: 1.0)(way)
        if not request.measures_all:
            return reply_of(trial)
        return reply_of(trial.model_copy(update={"checkpoint_bytes": 77}))

    monkeypatch.setattr(stage, "_try", answer)
    return asked


def test_placement_and_probe_are_written_and_nothing_else(
    tmp_path: Path, answered: list[TrialRequest]
) -> None:
    run = RunFolder(tmp_path / "run")
    said: list[str] = []
    (run.path / ".probe-killed" / "run").mkdir(parents=True)
    probe = probe_plan(PLAN, run, say=said.append)
    assert [request.measures_all for request in answered] == [True, False, False]
    assert probe.best.checkpoint_bytes == 77
    assert {path.name for path in run.path.iterdir()} == {
        "probe.json",
        "placement.json",
        ".lock.json.guard",
    }
    assert Placement.model_validate_json(run.placement.read_text()).micro_batch_sequences == DEFAULT
    assert f"{DEFAULT} sequences at a time: 96 tokens/s" in said[1]


def test_the_placement_of_a_run_that_has_begun_is_left_alone(
    tmp_path: Path, answered: list[TrialRequest]
) -> None:
    run = RunFolder(tmp_path / "run")
    run.make_log_folder()
    event = EventRecord(time="2026-01-01T00:00:00Z", kind="launch", step=0, message="begins")
    run.events_log.write_text(event.model_dump_json() + "\n")
    begun = make_placement(micro_batch_sequences=2).model_dump_json()
    run.placement.write_text(begun)
    probe = probe_plan(PLAN, run)
    assert run.placement.read_text() == begun
    assert probe.best.micro_batch_sequences == 2
    assert len(answered) == 1


def test_what_cannot_be_probed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path / "run")
    with pytest.raises(PlanError, match="run `rewarm prepare` first"):
        probe_plan(PLAN.model_copy(update={"measured": False}), run)

    def too_much(plan: Plan, request: TrialRequest) -> TrialReply:
        trial = Trial(micro_batch_sequences=1, checkpointing="full", fits=False, why="killed")
        return reply_of(trial)

    monkeypatch.setattr(stage, "_try", too_much)
    with pytest.raises(EnvironmentFault, match=r"fits the 1000 MiB of memory .* the last: killed"):
        probe_plan(PLAN, run)
    assert not run.probe.exists()


def test_a_trial_is_cut_short_or_fails() -> None:
    """What was killed did not fit; what failed of itself would fail in `train` too."""
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert "SIGKILL, as for want of memory" in stage._run([sys.executable, "-c", killed])
    with pytest.raises(EnvironmentFault, match="a trial of the plan failed: no such base"):
        stage._run([sys.executable, "-c", "import sys; sys.exit('a line\\nno such base')"])


@pytest.mark.slow
def test_a_real_trial_says_why_it_failed(tmp_path: Path) -> None:
    """The plan's base is not there."""
    with pytest.raises(EnvironmentFault, match=r"a trial of the plan failed: .*base"):
        probe_plan(PLAN, RunFolder(tmp_path / "run"))
