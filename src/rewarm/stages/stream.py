"""`rewarm stream`: every backbone with every learner over one stream, seed by seed."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from rewarm.artifacts import write_json
from rewarm.comparison.registration import register
from rewarm.errors import CorpusError, PlanError
from rewarm.records.comparison import Registration
from rewarm.records.stream import StreamResult
from rewarm.reporting.stream_page import write_stream_page
from rewarm.reporting.stream_terminal import print_stream, stream_plan
from rewarm.stages.job import command_line
from rewarm.stages.stream_corpora import run_corpora
from rewarm.stages.stream_result import About, claims_of, conclude_stream, contrast_facts
from rewarm.stages.stream_runs import StreamRuns
from rewarm.stages.terminated import TerminatedError, sigterm_raises, tell_stopped
from rewarm.stream.cells import PRESET
from rewarm.stream.experiment import StreamExperiment, WrittenStream, read_stream
from rewarm.stream.source import Examples, read_examples
from rewarm.training.lock import hold_lock
from rewarm.training.placement import choose_device
from rewarm.units import counted

__all__ = ["run_stream"]


def run_stream(path: Path, *, dry_run: bool) -> int:
    """Carry out an experiment from wherever it stands; return the exit code.

    SIGTERM lets the run under way save and end, as a key press does.

    With `dry_run` it is read, checked and shown, and nothing is written.
    """
    console = Console()
    written = read_stream(path)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    run = run_corpora if written.experiment.source.kind == "corpora" else _run_labelled
    try:
        with sigterm_raises():
            return run(written, console, dry_run=dry_run)
    except TerminatedError:
        return tell_stopped(command_line("stream", path), say)


def _run_labelled(written: WrittenStream, console: Console, *, dry_run: bool) -> int:
    """Carry out an experiment on labelled examples; return the exit code."""
    examples = read_examples(written.experiment.source, written.source_path)
    _check(written.experiment, examples)
    console.print(stream_plan(written.experiment.name, _facts(written.experiment, examples)))
    runs = StreamRuns(written, examples, console, choose_device("auto"))
    runs.try_backbones(with_weights=not dry_run)
    if dry_run:
        _register(written, runs, write=False)
        console.print("\nnothing was run: leave out --dry-run to begin")
        return 0
    written.make_folder()
    with hold_lock(written.folder / "lock.json", console.print):
        result = _carry_out(written, runs, examples)
        write_json(written.folder / "result.json", result.model_dump(mode="json"))
        page = write_stream_page(result, written.folder)
    print_stream(result, console)
    console.print(f"\n{page}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _carry_out(written: WrittenStream, runs: StreamRuns, examples: Examples) -> StreamResult:
    runs.hold_commits()
    registration = _register(written, runs, write=True)
    probes = runs.probes()
    picked = next((probe.backbone for probe in probes if probe.is_best), None)
    done = list(runs.carry_out(written.experiment.cells(picked)))
    about = _about(written.experiment, examples)
    return conclude_stream(written.experiment, about, done, probes, registration)


def _register(written: WrittenStream, runs: StreamRuns, *, write: bool) -> Registration | None:
    """Hold the contrasts to what they were before the first run; None where there are none."""
    if not written.experiment.contrasts:
        return None
    claims = claims_of(written.experiment)
    return register(written, claims, has_begun=runs.have_begun(), write=write)


def _about(experiment: StreamExperiment, examples: Examples) -> About:
    num_test = int(examples.is_test.sum())
    sentence = (
        f"{len(examples.classes)} classes in {experiment.scenario.num_tasks} tasks, "
        f"{experiment.scenario.mode}; {len(examples.labels) - num_test} examples to train on, "
        f"{num_test} to test on"
    )
    return About("share right", sentence, experiment.scenario.num_tasks)


def _facts(experiment: StreamExperiment, examples: Examples) -> list[tuple[str, str]]:
    scenario, memory, probe = experiment.scenario, experiment.memory, experiment.probed
    num_test = int(examples.is_test.sum())
    num_cells = len(experiment.backbones) * len(experiment.learners) + bool(experiment.preset)
    passes = "one pass" if scenario.mode == "online" else f"{scenario.epochs} passes over each task"
    preset = f"{PRESET}, on the backbone that the probe finds best"
    learners = [*experiment.learners, *([preset] if experiment.preset else [])]
    facts = [
        ("classes", f"{len(examples.classes)} in {scenario.num_tasks} tasks, {passes}"),
        ("examples", f"{len(examples.labels) - num_test} to train on, {num_test} to test on"),
        ("memory", f"{memory.size} examples, {memory.kind}, {memory.num_examples_per_step} a step"),
        ("backbones", ", ".join(experiment.backbones)),
        ("learners", ", ".join(learners)),
        ("runs", f"{num_cells * experiment.seeds}, {counted(experiment.seeds, 'seed')} each"),
    ]
    if probe is not None:
        whose = "of each class" if probe.classes == "all" else "of the first task's classes each"
        facts.append(("probe", f"{probe.examples_per_class} training examples {whose}"))
    return [*facts, *contrast_facts(experiment)]


def _check(experiment: StreamExperiment, examples: Examples) -> None:
    tasks, classes = experiment.scenario.num_tasks, len(examples.classes)
    if tasks > classes:
        raise PlanError.one(
            "scenario.tasks", f"{tasks} tasks of {classes} classes", f"give at most {classes}"
        )
    if examples.is_test.all() or not examples.is_test.any():
        raise CorpusError.one("source", "nothing to train or to test on", "check source.split")
