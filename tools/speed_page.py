"""Writes the tables of docs/speed.md from what the benchmarks have on record.

A block stands between `<!-- figures NAME -->`, or `<!-- goals -->`, and `<!-- end -->`; run this
after a benchmark.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

from record import Figure

__all__ = ["BLOCKS", "GOALS", "PAGE", "Goal", "written"]

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "speed.md"
RESULTS = ROOT / "benchmarks" / "results"
_BLOCK = re.compile(r"(<!-- figures ([a-z_]+) -->\n).*?(?=<!-- end -->)", re.DOTALL)
_GOALS = re.compile(r"(<!-- goals -->\n).*?(?=<!-- end -->)", re.DOTALL)
# What a row is of ends here; what is told of it follows.
_TITLE = re.compile(r": |, at ")

Row = Mapping[str, Any]


class Goal(NamedTuple):
    """A goal in words, and the row of a benchmark's results that has it and what came of it.

    The remark is of a row whose rounds are on no record: a row that has them needs none.
    """

    what: str
    results: str
    name: str
    versus: str
    remark: str = ""


_SMALL, _MIDDLE = "5.8M parameters", "24M parameters"
_LARGE = "38M parameters, 131,072 entries"
_SAVE = "wait for a save in the background"
GOALS = (
    *(
        Goal(f"tokens/s beside the Trainer's: {size}", "train_peers", name, "trainer", remark)
        for size, remark in ((_SMALL, "met by hand"), (_MIDDLE, "open by hand"))
        for name in (f"{size}: tokens/s of rewarm",)
    ),
    *(
        Goal(
            f"compiled, beside the Trainer compiled: {size}",
            "train_peers",
            f"{size}: tokens/s of rewarm, compiled",
            "trainer, compiled",
            remark,
        )
        for size, remark in ((_SMALL, "open by hand"), (_MIDDLE, "on its limit by hand"))
    ),
    Goal(
        f"tokens/s beside the Trainer's (0.75 of its time): {_LARGE}",
        "train_peers",
        f"{_LARGE}: tokens/s of rewarm",
        "trainer",
    ),
    Goal(
        f"memory beside the Trainer's: {_LARGE}",
        "train_peers",
        f"{_LARGE}: memory of rewarm",
        "trainer",
    ),
    *(
        Goal(
            f"waiting for windows, of a step: {size}",
            "train_peers",
            f"{size}: waiting for windows",
            "the step",
        )
        for size in (_SMALL, _MIDDLE, _LARGE)
    ),
    Goal(
        "a save once a minute, one process on a CPU",
        "checkpoint_blocking",
        "a save at once, once a minute",
        "60 s",
    ),
    Goal(
        "a save once a minute, elsewhere", "checkpoint_blocking", f"{_SAVE}, once a minute", "60 s"
    ),
    Goal(
        "MFU of 1B parameters on one H200",
        "gpu",
        "1B, compiled: MFU",
        "989 TFLOP/s",
        "one median of 8 steps",
    ),
    Goal(
        "the same with twice the micro-batch",
        "gpu_65k_at_a_time",
        "1B, compiled: MFU",
        "989 TFLOP/s",
        "one median of 8 steps, another day",
    ),
)
"""What was set as a goal, in the order of the page."""


def written(text: str) -> str:
    """Return the page's text with every block as the results have it."""
    text = _GOALS.sub(lambda found: f"{found[1]}\n{_goals()}\n\n", text)
    return _BLOCK.sub(lambda found: f"{found[1]}\n{_block(found[2])}\n", text)


def _goals() -> str:
    """A line for each goal: what it is, what was measured, and what that comes to."""
    lines = [
        "| | goal | measured | so it is | beside it | on record |",
        "|---|---:|---:|---|---|---|",
    ]
    for goal in GOALS:
        row = _row_of(goal)
        figure = Figure.of_row(row)
        remark = goal.remark if figure.half is None else ""
        cells = (goal.what, _limit(row), _value(row, below=1), figure.verdict, remark)
        lines.append(f"| {' | '.join(cells)} | `{goal.results}.json`, {row['date']} |")
    return "\n".join(lines)


def _row_of(goal: Goal) -> Row:
    path = RESULTS / f"{goal.results}.json"
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))
    (row,) = [row for row in rows if (row["name"], row["versus"]) == (goal.name, goal.versus)]
    return row


def _block(name: str) -> str:
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return f"Nothing is on record yet: `python benchmarks/{name}.py`.\n"
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))
    return f"{BLOCKS[name](rows)}\n\n{_sources(rows)}\n"


def _sources(rows: Iterable[Row]) -> str:
    """Return where, when and by which command rows were taken; of several, which is whose."""
    titles: dict[str, dict[str, None]] = {}
    for row in rows:
        source = f"{row['machine']}, {row['date']}, `{row['command']}`."
        titles.setdefault(source, {})[_TITLE.split(str(row["name"]))[0]] = None
    if len(titles) == 1:
        return next(iter(titles))
    return "\n".join(f"* {'; '.join(names)}: {source}" for source, names in titles.items())


def _number(value: object, unit: object, *, below: float = 0.1) -> str:
    """Return a number as it is read: what is small has three digits that tell something."""
    assert isinstance(value, float | int)
    digits = 0 if unit in ("tokens/s", "MiB", "GFLOP/s") else 2
    if not digits or abs(value) >= below or not value:
        return f"{value:,.{digits}f}" + (f" {unit}" if unit else "")
    digits -= math.floor(math.log10(abs(value)))
    return f"{value:.{digits}f}" + (f" {unit}" if unit else "")


def _value(row: Row, *, below: float = 0.1) -> str:
    """Return a figure's value and, where it is one of several rounds, between which half lie."""
    value, half = _number(row["value"], row["unit"], below=below), row.get("half")
    if half is None:
        return value
    assert isinstance(half, list)
    low, high = (_number(end, "", below=below) for end in half)
    return f"{value} ({low} to {high})"


def _goal(row: Row) -> str:
    return "" if row["goal"] is None else f"{_limit(row)} ({Figure.of_row(row).verdict})"


def _limit(row: Row) -> str:
    sign = "≥" if row["better"] == "higher" else "≤"
    return f"{sign} {row['goal']:.3g}"


def _table(rows: Iterable[Row]) -> str:
    lines = ["| what | value | against | goal |", "|---|---|---|---|"]
    lines += [f"| {row['name']} | {_value(row)} | {row['versus']} | {_goal(row)} |" for row in rows]
    return "\n".join(lines)


def _of_growth(rows: list[Row]) -> str:
    return _table(row for row in rows if ", at " not in str(row["name"]))


def _of_rates(rows: list[Row]) -> str:
    """A line for each model and loop, a column for each part of a step."""
    ceilings: dict[str, str] = {}
    lines: dict[tuple[str, str], dict[str, object]] = {}
    for row in rows:
        model, _, rest = str(row["name"]).partition(": ")
        loop, _, what = rest.replace(", of the rate", ": of the rate").partition(": ")
        if what:
            lines.setdefault((model, loop), {})[what] = row["value"]
        else:
            ceilings[model] = f"{loop} at {_number(row['value'], row['unit'])}"
    columns = list(dict.fromkeys(what for found in lines.values() for what in found))
    told = ["| | loop | " + " | ".join(columns) + " |", "|---|---|" + "---:|" * len(columns)]
    for (model, loop), found in lines.items():
        shares = " | ".join(f"{found[what]:.1%}" for what in columns)
        told.append(f"| {model}, {ceilings[model]} | {loop} | {shares} |")
    return "\n".join(told)


def _of_backward(rows: list[Row]) -> str:
    """A line for each shape, a column for each figure of it."""
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        shape, _, what = str(row["name"]).partition(": ")
        value = row["value"]
        assert isinstance(value, float)
        shown = f"{value:.1%}" if what.endswith("off") else _number(value, row["unit"])
        lines.setdefault(shape, {})[what] = shown
    columns = list(dict.fromkeys(what for found in lines.values() for what in found))
    told = ["| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    told += [
        f"| {shape} | {' | '.join(found[what] for what in columns)} |"
        for shape, found in lines.items()
    ]
    return "\n".join(told)


BLOCKS: Mapping[str, Callable[[list[Row]], str]] = {
    "attention_backward": _of_backward,
    "checkpoint_blocking": _table,
    "growth": _of_growth,
    "memory_over_steps": _table,
    "muon": _table,
    "peak_memory": _table,
    "probe_time": _table,
    "product_rate": _of_rates,
    "train_peers": _table,
}
"""By the benchmark's name, how its block is written."""


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
