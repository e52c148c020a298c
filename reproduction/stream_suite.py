"""Runs the streams in miniature: backbones, experiments, and their results.

    python reproduction/stream_suite.py --data FOLDER            all that the budget has room for
    python reproduction/stream_suite.py --data FOLDER --smoke    each in little, in minutes
    python reproduction/stream_suite.py --list                   what each costs; runs nothing

FOLDER (or REWARM_DATA) holds the corpora. The same command goes on wherever it was stopped. As many
experiments go on beside each other as there are cores, each on one; what they say is in
work/streams/NAME.log.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from backbones import CORPORA as OF_BACKBONES
from backbones import (
    FULL,
    IMAGES_EACH_EPOCH,
    SMOKE,
    TEXTS_EACH_STEP,
    make_backbones,
    make_digits,
    make_labelled_texts,
)
from bases import CORPORA as OF_BASES
from bases import FULL as FULL_BASE
from bases import SMOKE as SMALL_BASE
from bases import make_bases
from budget import BYTES_PER_TOKEN, NUM_CORES, Cost, budget_table
from corpora import check_corpora, named_corpora
from kept import keep_result
from pieces import make_pieces
from rich.console import Console

from rewarm.artifacts import write_atomically
from rewarm.errors import RewarmError
from rewarm.stream.experiment import StreamExperiment, read_stream
from rewarm.stream.sections import LearnerRecipe
from rewarm.units import format_duration

HERE = Path(__file__).resolve().parent
ORDER = ("omniglot-online", "omniglot-offline", "mnist-online", "text-sources", "domains")
FURTHER = ("omniglot-rates", "omniglot-gss")
"""For which 40 minutes have no room: by name, or with --unbounded."""
EVERY = (*ORDER, *FURTHER)

BUDGET_S = 40 * 60
_TERMINATED = 128 + signal.SIGTERM
BASE = replace(FULL_BASE, tokens=500_000)
"""What the corpora are streamed over."""

_NUM_TRAIN = {"omniglot": 128 * 15, "mnist": 10 * 300, "text": 10 * 38}
_NUM_TEST = {"omniglot": 128 * 5, "mnist": 10 * 75, "text": 10 * 12}
"""Examples, by the first word of an experiment's name."""
ROWS_PER_CORE_SECOND = {"omniglot": 1_500, "mnist": 1_500, "text": 185}
"""Forward and back on one thread in a step's batches, of a ResNet on 28 pixels and an encoder on
128 bytes; whole experiments over text went at 170, and at 195 with the core to themselves."""
_OF_ENCODER = 100  # the encoder's own training, on 256 bytes
_LOOKED_AT = 0.5
"""Looks take examples by the hundred: half of a forward pass in a step's batches."""
_TOKENS_PER_CORE_SECOND = 14_000  # of corpora; whole runs went at 16,000 by their own clocks
_ROWS_OF_STEP = {
    "fine-tune": 1.0,
    "lwf": 1.5,
    "ewc++": 2.7,
    "mir": 6.2,
    "scr": 4.0,
    "gss": 20.0,
    "a-gem": 2.7,
    "icarl": 3.5,
}
"""Batches of examples that a step of the stream goes through, about; others: 2."""
_START_S = 0.5  # what begins and ends a run of examples, on one core


def cost_of(experiment: StreamExperiment) -> Cost:
    """Return what all runs of an experiment take."""
    if experiment.source.kind == "corpora":
        return _cost_of_corpora(experiment)
    kind = experiment.name.split("-")[0]
    num_train, num_test = _NUM_TRAIN[kind], _NUM_TEST[kind]
    scenario, memory = experiment.scenario, experiment.memory
    num_tasks = scenario.num_tasks
    trained, num_cells = 0.0, 0
    for learner, num_backbones in _learners(experiment):
        if learner.algorithm == "gdumb":
            rows: float = memory.size * learner.memory_epochs * num_tasks
        elif learner.algorithm == "joint":
            rows = num_train * scenario.num_epochs * (num_tasks + 1) / 2
        else:
            rows = num_train * scenario.num_epochs * _ROWS_OF_STEP.get(learner.algorithm, 2.0)
        trained += (rows + memory.size * learner.second_stage_epochs) * num_backbones
        num_cells += num_backbones
    evaluated = num_test * (num_tasks + 1) / 2
    if scenario.evaluate_every is not None:
        num_steps = num_train * scenario.num_epochs / num_tasks / scenario.batch
        evaluated += num_steps // scenario.evaluate_every * num_test * (num_tasks - 1) / 2
    num_runs = num_cells * experiment.seeds
    return Cost(
        experiment.name,
        num_runs,
        trained * experiment.seeds,
        evaluated * num_runs * _LOOKED_AT,
        ROWS_PER_CORE_SECOND[kind],
        _START_S,
    )


def _learners(experiment: StreamExperiment) -> Iterator[tuple[LearnerRecipe, int]]:
    """Yield every learner with the number of backbones that it learns on."""
    for learner in experiment.learners.values():
        yield learner, len(experiment.backbones)
    if experiment.preset is not None:
        yield experiment.learner(experiment.preset), 1


def _cost_of_corpora(experiment: StreamExperiment) -> Cost:
    scenario, num_tasks = experiment.scenario, len(experiment.source.corpora)
    assert scenario.tokens is not None
    num_bytes = experiment.recipe["evaluation"]["max_bytes_per_domain"]
    look = num_tasks * num_bytes / BYTES_PER_TOKEN
    length = experiment.recipe["batch"]["sequence_length"]
    num_steps = scenario.tokens // (scenario.batch * length)
    trained = evaluated = 0.0
    num_runs = 0
    for learner in experiment.learners.values():
        is_joint = learner.algorithm == "joint"
        num_runs += num_tasks if is_joint else 1
        trained += scenario.tokens * (num_tasks * (num_tasks + 1) / 2 if is_joint else num_tasks)
        every = scenario.evaluate_every or num_steps
        evaluated += look * (2 * num_tasks if is_joint else 1 + num_tasks * num_steps // every)
    times = len(experiment.backbones) * experiment.seeds
    return Cost(
        experiment.name,
        num_runs * times,
        trained * times,
        evaluated * times,
        _TOKENS_PER_CORE_SECOND,
    )


def preparation() -> list[Cost]:
    """Return what backbones take, which are trained one after the other."""
    num_rows = (FULL.image_epochs * IMAGES_EACH_EPOCH, FULL.text_steps * TEXTS_EACH_STEP)
    return [
        Cost("image backbones", 2, 3 * num_rows[0], 0, ROWS_PER_CORE_SECOND["omniglot"], _START_S),
        Cost("text encoder", 1, num_rows[1], 0, _OF_ENCODER, _START_S),
        Cost("language model", 1, BASE.tokens),
    ]


def seconds_of(costs: Sequence[Cost]) -> float:
    """Return the time on the clock: first the backbones, on one core by this estimate, then the
    experiments, the longest first, each on the core that is free first."""
    cores = [0.0] * NUM_CORES
    for cost in sorted(costs, key=lambda cost: -cost.core_seconds):
        cores[cores.index(min(cores))] += cost.core_seconds
    return sum(cost.core_seconds for cost in preparation()) + max(cores)


_SMALLER = (
    (re.compile(r"(?m)^seeds = \d+$"), "seeds = 1"),
    (re.compile(r"(?m)^tasks = \d+$"), "tasks = 2"),
    (re.compile(r"(?m)^tokens = .*$"), "tokens = 16384"),
    (re.compile(r"(?m)^epochs = \d+$"), "epochs = 1"),
    (re.compile(r"(?m)^evaluate_every = \d+$"), "evaluate_every = 2"),
    (re.compile(r"(_epochs) = \d+"), r"\1 = 1"),
    (re.compile(r"(?m)^classes = \[.*\]$"), 'classes = ["Tagalog/"]'),
    (re.compile(r'(?m)^split = "split"$'), 'split = "split"\nclasses = ["0", "1", "2"]'),
)


def main() -> int:
    """Do what was asked for; return 0 where all experiments have their result."""
    try:
        return _main(_arguments())
    except RewarmError as error:
        Console(stderr=True).print(str(error), markup=False, highlight=False, soft_wrap=True)
        return error.exit_code


def _main(given: argparse.Namespace) -> int:
    console = Console()
    names = given.names or list(EVERY if given.unbounded else ORDER)
    unknown = sorted(set(names) - set(EVERY))
    if unknown:
        console.print(f"no experiment {', '.join(unknown)}; there are {', '.join(EVERY)}")
        return 2
    written = [read_stream(HERE / "streams" / f"{name}.toml") for name in names]
    costs = [cost_of(one.experiment) for one in written]
    total = seconds_of(costs)
    every = [*preparation(), *costs]
    console.print(budget_table(every, of="rows or tokens", cores_each=1, total_s=total))
    if given.list:
        return 0
    if total > BUDGET_S and not (given.smoke or given.unbounded):
        console.print(f"that is more than {format_duration(BUDGET_S)}: name fewer, or --unbounded")
        return 2
    if given.data is None or not (given.data / "images").is_dir():
        console.print("skipped: name the folder of the corpora, --data FOLDER or REWARM_DATA")
        return 2
    corpora = any(one.experiment.source.kind == "corpora" for one in written)
    read = named_corpora(HERE / "streams" / f"{name}.toml" for name in names)
    check_corpora(given.data, {*OF_BACKBONES, *read, *(OF_BASES if corpora else ())})
    place = _place(names, smoke=given.smoke)
    work = place / "work"
    work.mkdir(parents=True, exist_ok=True)
    link = work / "data"
    link.unlink(missing_ok=True)
    link.symlink_to(given.data.resolve())
    lengths = SMOKE if given.smoke else FULL
    make_labelled_texts(given.data, work / "streams" / "text-sources.jsonl", lengths)
    make_digits(given.data, work / "streams" / "digits.parquet", lengths)
    make_backbones(given.data, work / "streams" / "backbones", lengths, console)
    if corpora:
        make_pieces(given.data, work / "streams" / "text")
        sizes = SMALL_BASE if given.smoke else BASE
        make_bases(given.data, work / "streams", sizes, [1], num_threads=NUM_CORES)
    by_cost = sorted(costs, key=lambda cost: -cost.core_seconds)
    return _run_all(place, [cost.name for cost in by_cost], console, smoke=given.smoke)


def _run_all(place: Path, names: Sequence[str], console: Console, *, smoke: bool) -> int:
    """Run experiments beside each other, one a core; return 0 where all came to their end.

    Whoever ends this process ends them with it: they would go on, and refuse the next launch.
    """
    # Noted, and acted on where each process is known: one that is being made would be left behind.
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    waiting, running, worst = list(names), dict[str, subprocess.Popen[bytes]](), 0
    try:
        while waiting or running:
            if signals:
                sys.exit(_TERMINATED)
            while waiting and len(running) < NUM_CORES:
                name = waiting.pop(0)
                console.print(f"{name}: running")
                running[name] = _start(place, name)
            time.sleep(0.2)
            for name, process in list(running.items()):
                code = process.poll()
                if code is not None:
                    del running[name]
                    worst = max(worst, abs(code))
                    _tell(place, name, code, console, smoke=smoke)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
    return min(worst, 1)


def _start(place: Path, name: str) -> subprocess.Popen[bytes]:
    log = _log(place, name)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "rewarm", "stream", str(place / "streams" / f"{name}.toml")]
    with log.open("wb") as file:
        one_core = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=one_core)


def _tell(place: Path, name: str, code: int, console: Console, *, smoke: bool) -> None:
    """Say what became of an experiment; keep the result of one that came to its end."""
    log = _log(place, name)
    console.print(f"{name}: {'done' if code == 0 else f'ended with {code}'}, {log}", soft_wrap=True)
    if code:
        text = log.read_text(encoding="utf-8", errors="replace")
        console.print("".join(text.splitlines(keepends=True)[-20:]), markup=False)
    elif not smoke:
        made = place / "work" / "streams" / name / "result.json"
        keep_result(made, HERE / "results" / "streams" / f"{name}.json", on_one_line=True)


def _log(place: Path, name: str) -> Path:
    return place / "work" / "streams" / f"{name}.log"


def _place(names: list[str], *, smoke: bool) -> Path:
    """Return the folder whose experiments are run, copied where they are made smaller."""
    if not smoke:
        return HERE
    place = HERE / "work" / "smoke-streams"
    for name in names:
        text = (HERE / "streams" / f"{name}.toml").read_text(encoding="utf-8")
        for pattern, changed in _SMALLER:
            text = pattern.sub(changed, text)
        (place / "streams").mkdir(parents=True, exist_ok=True)
        write_atomically(place / "streams" / f"{name}.toml", text)
    return place


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    data = os.environ.get("REWARM_DATA")
    parser.add_argument("--data", type=Path, default=Path(data) if data else None)
    parser.add_argument("--smoke", action="store_true", help="every experiment in little")
    parser.add_argument("--list", action="store_true", help="what each costs; runs nothing")
    parser.add_argument("--unbounded", action="store_true", help="however long it takes")
    parser.add_argument("names", nargs="*", help="experiments; default: those within the budget")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
