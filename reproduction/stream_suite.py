"""Runs the streams in miniature: backbones, experiments, and their results.

    python reproduction/stream_suite.py --data FOLDER            all of them
    python reproduction/stream_suite.py --data FOLDER --smoke    each in little, in minutes
    python reproduction/stream_suite.py --list                   what each takes; runs nothing

FOLDER (or REWARM_DATA) holds the corpora. The same command goes on wherever it was stopped.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from pathlib import Path

from backbones import FULL, SMOKE, make_backbones, make_labelled_texts
from rich.console import Console
from rich.table import Table

from rewarm.artifacts import write_atomically
from rewarm.cli import main as rewarm
from rewarm.errors import RewarmError
from rewarm.stream.experiment import StreamExperiment, read_stream

HERE = Path(__file__).resolve().parent
ORDER = ("omniglot-online", "omniglot-offline", "mnist-online", "text-sources")

_NUM_TRAIN = {"omniglot": 128 * 15, "mnist": 10_000, "text": 10 * 90}
"""Training examples, by the first word of an experiment's name."""
_ROWS_OF_STEP = {"fine-tune": 1.0, "lwf": 1.5, "ewc++": 4.0, "mir": 7.0, "scr": 4.0, "gss": 40.0}
"""Batches of examples that a step of the stream goes through, about; others: 2."""

_SMALLER = (
    (re.compile(r"(?m)^seeds = \d+$"), "seeds = 1"),
    (re.compile(r"(?m)^tasks = \d+$"), "tasks = 2"),
    (re.compile(r"(?m)^epochs = \d+$"), "epochs = 1"),
    (re.compile(r"(?m)^evaluate_every = \d+$"), "evaluate_every = 10"),
    (re.compile(r"(_epochs) = \d+"), r"\1 = 1"),
    (re.compile(r"(?m)^classes = \[.*\]$"), 'classes = ["Tagalog/"]'),
    (re.compile(r'(?m)^split = "split"$'), 'classes = ["0", "1", "2"]\ntest_share = 0.95'),
)


def num_rows(experiment: StreamExperiment) -> int:
    """Return how many rows all runs go forward and back through, about; tests are not counted."""
    num_train = _NUM_TRAIN[experiment.name.split("-")[0]] * experiment.scenario.num_epochs
    rows = 0.0
    for learner in experiment.learners.values():
        if learner.algorithm == "gdumb":
            trained: float = (
                experiment.memory.size * learner.memory_epochs * experiment.scenario.num_tasks
            )
        else:
            trained = num_train * _ROWS_OF_STEP.get(learner.algorithm, 2.0)
        rows += trained + experiment.memory.size * learner.second_stage_epochs
    return round(rows) * len(experiment.backbones) * experiment.seeds


def main() -> int:
    """Do what was asked for; return 0 where all experiments have their result."""
    try:
        return _main(_arguments())
    except RewarmError as error:
        Console(stderr=True).print(str(error), markup=False, highlight=False)
        return error.exit_code


def _main(given: argparse.Namespace) -> int:
    console = Console()
    names = given.names or list(ORDER)
    unknown = sorted(set(names) - set(ORDER))
    if unknown:
        console.print(f"no experiment {', '.join(unknown)}; there are {', '.join(ORDER)}")
        return 2
    console.print(_budget(names))
    if given.list:
        return 0
    if given.data is None or not (given.data / "images").is_dir():
        console.print("skipped: name the folder of the corpora, --data FOLDER or REWARM_DATA")
        return 2
    place = _place(names, smoke=given.smoke)
    work = place / "work"
    work.mkdir(parents=True, exist_ok=True)
    link = work / "data"
    link.unlink(missing_ok=True)
    link.symlink_to(given.data.resolve())
    lengths = SMOKE if given.smoke else FULL
    make_labelled_texts(given.data, work / "streams" / "text-sources.jsonl", lengths)
    make_backbones(given.data, work / "streams" / "backbones", lengths, console)
    codes = [_run(place, name, smoke=given.smoke) for name in names]
    return max(codes)


def _run(place: Path, name: str, *, smoke: bool) -> int:
    code = rewarm(["stream", str(place / "streams" / f"{name}.toml")])
    if code == 0 and not smoke:
        results = HERE / "results" / "streams"
        results.mkdir(parents=True, exist_ok=True)
        folder = place / "work" / "streams" / name
        shutil.copy(folder / "result.json", results / f"{name}.json")
    return code


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


def _budget(names: list[str]) -> Table:
    table = Table(box=None, header_style="bold")
    table.add_column("experiment")
    for heading in ("cells", "seeds", "rows trained on"):
        table.add_column(heading, justify="right")
    for name in names:
        experiment = read_stream(HERE / "streams" / f"{name}.toml").experiment
        cells = len(experiment.backbones) * len(experiment.learners) + bool(experiment.preset)
        rows = f"{num_rows(experiment) / 1e6:.1f}M"
        table.add_row(name, str(cells), str(experiment.seeds), rows)
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    data = os.environ.get("REWARM_DATA")
    parser.add_argument("--data", type=Path, default=Path(data) if data else None)
    parser.add_argument("--smoke", action="store_true", help="every experiment in little")
    parser.add_argument("--list", action="store_true", help="what each takes; runs nothing")
    parser.add_argument("names", nargs="*", help="experiments; default: all")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
