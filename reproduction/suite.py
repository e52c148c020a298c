"""Runs the papers' claims in miniature: bases, experiments, results and the table of them.

    python reproduction/suite.py --data FOLDER            the suite, within its budget
    python reproduction/suite.py --data FOLDER --smoke    every experiment in little, in minutes
    python reproduction/suite.py --data FOLDER --large    a model of some 35M parameters: gpu.sh
    python reproduction/suite.py --unbounded              and what three hours have no room for
    python reproduction/suite.py --list                   what each costs; runs nothing

FOLDER (or REWARM_DATA) holds the corpora that the recipes name. The same command goes on wherever
it was stopped.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bases import CORPORA as OF_BASES
from bases import FULL, LARGE, SMOKE, make_bases
from budget import BYTES_PER_TOKEN, NUM_CORES, Cost, budget_table
from corpora import check_corpora, named_corpora
from kept import keep_result
from pairs import CORPORA as OF_PAIRS
from pairs import make_pairs
from pieces import make_pieces
from rich.console import Console
from table import README, write_results

from rewarm.artifacts import write_atomically
from rewarm.cli import main as rewarm
from rewarm.comparison.arms import arms_of
from rewarm.comparison.experiment import WrittenExperiment, read_experiment
from rewarm.errors import RewarmError
from rewarm.planning.cadence import evaluation_steps
from rewarm.recipe.schema import Recipe
from rewarm.units import format_duration

HERE = Path(__file__).resolve().parent
WORK = HERE / "work"
RESULTS = HERE / "results"

BUDGET_S = 3 * 3600
_SAMPLING = 10.0  # a token that is made up, in tokens that are read

ORDER = (
    *("german", "german-union", "medical", "infinite"),
    *("reuse", "reuse-area"),
    *("gap", "gap-pairs"),
    *("keep", "summary", "translation"),
)
"""Experiments by what they are for: the first are the first to be run."""
FURTHER = ("medical-rates", "medical-union", "gap-tasks", "translation-union")
"""What three hours have no room for: run where no budget is held, or by name."""
EVERY = (*ORDER, *FURTHER)


def cost_of(written: WrittenExperiment) -> Cost:
    """Return what all runs of an experiment train on."""
    seeds = written.experiment.seed_list
    recipes = [arm.recipe(seeds[0]) for arm in arms_of(written)]
    return Cost(
        written.experiment.name,
        len(recipes) * len(seeds),
        sum(recipe.budget.tokens for recipe in recipes) * len(seeds),
        sum(map(_evaluated, recipes)) * len(seeds),
    )


def _evaluated(recipe: Recipe) -> float:
    """Return the tokens that a run reads or makes up beside those that it is trained on."""
    num_steps = recipe.budget.tokens // recipe.batch.tokens
    every = recipe.evaluation.every_steps or num_steps
    times = len(evaluation_steps(num_steps, every))
    domains = sum(source.held_out > 0 for source in recipe.sources.values())
    made_up = sum(s.rehearse.tokens for s in recipe.sources.values() if s.rehearse is not None)
    text = recipe.evaluation.max_bytes_per_domain / BYTES_PER_TOKEN
    return times * domains * text + made_up * _SAMPLING


def _bases(num_seeds: int) -> Cost:
    return Cost("bases", num_seeds, num_seeds * FULL.tokens)


def _seconds_of(costs: Sequence[Cost]) -> float:
    """Return the time on the clock, with all cores at work."""
    return sum(cost.core_seconds for cost in costs) / NUM_CORES


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
    written = [read_experiment(HERE / "experiments" / f"{name}.toml") for name in names]
    costs = [cost_of(one) for one in written]
    seeds = sorted({seed for one in written for seed in one.experiment.seed_list})
    every = [_bases(len(seeds)), *costs]
    total = _seconds_of(every)
    console.print(budget_table(every, of="tokens", cores_each=NUM_CORES, total_s=total))
    if given.list:
        return 0
    if total > BUDGET_S and not (given.smoke or given.large or given.unbounded):
        console.print(f"that is more than {format_duration(BUDGET_S)}: name fewer, or --unbounded")
        return 2
    if given.data is None or not (given.data / "text").is_dir():
        console.print("skipped: name the folder of the corpora, --data FOLDER or REWARM_DATA")
        return 2
    check_corpora(given.data, _read(written))
    place = _place(given, names)
    work = place / "work"
    _link(given.data.resolve(), work / "data")
    with _alone(work / "making.lock", console):
        _make(given, work, seeds)
    failed = []
    for name in names:
        code = rewarm(["compare", str(place / "experiments" / f"{name}.toml")])
        if code:
            failed.append(name)
        elif not given.smoke:
            results = RESULTS / "large" if given.large else RESULTS
            keep_result(work / "comparisons" / name / "result.json", results / f"{name}.json")
    if not (given.smoke or given.large):
        write_results(RESULTS, README, EVERY)
    for name in failed:
        console.print(f"{name} did not come to its end")
    return 1 if failed else 0


def _read(written: Sequence[WrittenExperiment]) -> set[str]:
    """Return the corpora that these experiments read, or that what they share is made of."""
    files = [one.path for one in written]
    named = [(one.path.parent, one.experiment.recipe) for one in written]
    files += [folder / recipe for folder, recipe in named if isinstance(recipe, str)]
    return {*OF_BASES, *OF_PAIRS, *named_corpora(files)}


@contextmanager
def _alone(lock: Path, console: Console) -> Iterator[None]:
    """Hold a lock while what all experiments share is made; wait where another suite holds it.

    The system lets it go when a process ends, however it ends.
    """
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print("another suite makes the bases here: waiting until they are there")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(given: argparse.Namespace, work: Path, seeds: Sequence[int]) -> None:
    """Make pairs, pieces and bases, as far as they are not there; all are when it returns."""
    if not (work / "pairs.jsonl").exists():
        make_pairs(given.data, work / "pairs.jsonl")
    make_pieces(given.data, work / "text")
    make_bases(
        given.data,
        work,
        SMOKE if given.smoke else LARGE if given.large else FULL,
        [1] if given.smoke else seeds,
        # A model this small gains nothing from a second thread: a core for each is twice as fast.
        num_threads=NUM_CORES if given.large else 1,
        at_once=len(seeds),
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    data = os.environ.get("REWARM_DATA")
    parser.add_argument("--data", type=Path, default=Path(data) if data else None)
    parser.add_argument("--smoke", action="store_true", help="every experiment in little")
    parser.add_argument("--large", action="store_true", help="a model of some 35M parameters")
    parser.add_argument("--list", action="store_true", help="what each costs; runs nothing")
    parser.add_argument("--unbounded", action="store_true", help="however long it takes")
    parser.add_argument(
        "--arms", nargs="+", help="with --large: these arms alone, and no second run of the control"
    )
    parser.add_argument("names", nargs="*", help="experiments; default: the suite")
    return parser.parse_args()


def _link(data: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink():
        link.unlink()
    link.symlink_to(data)


_Change = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]
_BUDGET = re.compile(r'(?m)^(budget\.tokens|\[budget\]\ntokens) = "([\d.]+)([kM])"$')
_SMALLER: tuple[_Change, ...] = (
    (re.compile(r"(?m)^seeds = \d+$"), "seeds = 1"),
    (re.compile(r"(?m)^(\[batch\]\ntokens) = .*$"), r"\1 = 1024"),
    (re.compile(r"(?m)^(every_steps) = \d+.*$"), r"\1 = 12"),
    (re.compile(r"(?m)^(max_bytes_per_domain) = .*$"), r"\1 = 4000"),
    (re.compile(r'(rehearse = \{ tokens) = "\d+k"'), r'\1 = "4k"'),
    (re.compile(r"(?m)^(max_answers) = .*$"), r"\1 = 8"),
    (re.compile(r"(?m)^(matched_continuation_items) = .*$"), r"\1 = 8"),
)


def _small_budget(found: re.Match[str]) -> str:
    """Return two dozen steps and a 250th of a budget: what is larger stays larger."""
    tokens = float(found[2]) * {"k": 1e3, "M": 1e6}[found[3]]
    return f"{found[1]} = {24_576 + round(tokens / 250)}"


_LARGER: tuple[_Change, ...] = (
    (
        re.compile(r'(?m)(\btokens) = "([\d.]+)([kM])"'),
        lambda m: f'{m[1]} = "{4 * float(m[2]):g}{m[3]}"',
    ),
    (re.compile(r"(?m)^workers = \d+$"), f"workers = {max(2, (os.cpu_count() or 2) // 2)}"),
    (re.compile(r"(?m)^(tokens|batch_tokens) = 4096$"), r"\1 = 16384"),
    (re.compile(r"(?m)(lr) = (\d)e-(\d)$"), lambda m: f"{m[1]} = {int(m[2]) / 4:g}e-{m[3]}"),
)
"""Four times the tokens in as many steps at a quarter of the rates, as the larger base was made."""


def _place(given: argparse.Namespace, names: Sequence[str]) -> Path:
    """Return the folder whose recipes and experiments are run, copied where they are changed."""
    if given.smoke:
        return _changed_copy(WORK / "smoke", names, ((_BUDGET, _small_budget), *_SMALLER))
    if not given.large:
        return HERE
    place = _changed_copy(WORK / "large", names, _LARGER)
    if given.arms:
        for name in names:
            path = place / "experiments" / f"{name}.toml"
            write_atomically(path, of_arms(path.read_text(encoding="utf-8"), given.arms))
    return place


def of_arms(experiment: str, arms: Sequence[str]) -> str:
    """Return an experiment with these arms, the contrasts between them, and no A/A arm."""
    kept = []
    for table in re.split(r"(?m)^(?=\[)", experiment):
        arm = re.match(r"\[arms\.([\w-]+)", table)
        named = re.findall(r'(?m)^(?:arm|against) = "(.+)"$', table)
        others = [arm[1]] if arm else named if table.startswith("[[contrasts]]") else []
        if set(others) <= set(arms):
            kept.append(table)
    return re.sub(r"(?m)^noise_floor = true\n", "", "".join(kept))


def _changed_copy(place: Path, names: Sequence[str], changes: Sequence[_Change]) -> Path:
    """Return a folder with these experiments and all recipes, changed."""
    for kind in ("recipes", "experiments"):
        (place / kind).mkdir(parents=True, exist_ok=True)
        for path in (HERE / kind).glob("*.toml"):
            if kind == "recipes" or path.stem in names:
                text = path.read_text(encoding="utf-8")
                for pattern, changed in changes:
                    text = pattern.sub(changed, text)
                write_atomically(place / kind / path.name, text)
    return place


if __name__ == "__main__":
    sys.exit(main())
