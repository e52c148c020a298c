"""Figures of benchmarks: one form, one folder, one table.

A figure is {name, value, unit, better: "higher" | "lower", goal, versus, machine, date, command},
and of one that is the median of several rounds also {half: [least, most]}, between which half of
them lie; every benchmark writes a list of them to `benchmarks/results/<benchmark>.json`.
Whether a goal is met is told of what is on record alone: without a `half` no figure is plainly met.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

_HALF_UNITS = {"avx512_bf16": "AVX-512 BF16", "amx_bf16": "AMX"}
_NO_HALF = ("half", None)
RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Figure:
    """One measured number; `versus` names the peer or limit that it stands against, and between
    the two of `half` lie half of the rounds that it is the median of.
    """

    name: str
    value: float
    unit: str
    better: Literal["higher", "lower"]
    goal: float | None = None
    versus: str = ""
    half: tuple[float, float] | None = None

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Figure:
        """Return what a results' row holds of a figure; older ones have no `half`."""
        names = ("name", "value", "unit", "better", "goal", "versus")
        half = row.get("half")
        return cls(**{name: row[name] for name in names}, half=tuple(half) if half else None)

    def row(self) -> dict[str, Any]:
        """Return the figure as a row of results; without a `half` where it has none."""
        return {name: value for name, value in asdict(self).items() if (name, value) != _NO_HALF}

    @property
    def told(self) -> str:
        """The value with its unit, and between which half of its rounds lie."""
        value = f"{self.value:.4g} {self.unit}".rstrip()
        if self.half is None:
            return value
        return f"{value} (half of the rounds {self.half[0]:.4g} to {self.half[1]:.4g})"

    @property
    def verdict(self) -> str:
        """Whether the goal is met; "open" where rounds lie on both sides of it, and with "no
        spread" where nothing on record tells whether they do.
        """
        if self.goal is None:
            return ""
        if self.half is not None and self.half[0] < self.goal < self.half[1]:
            return "open"
        word = "short" if self.falls_short else "met"
        return f"{word}, no spread" if self.half is None else word

    @property
    def falls_short(self) -> bool:
        if self.goal is None:
            return False
        return self.value < self.goal if self.better == "higher" else self.value > self.goal


def write_results(
    benchmark: str,
    figures: list[Figure],
    *,
    stays: Callable[[str], bool] = lambda name: False,
    arguments: Sequence[str] | None = None,
) -> None:
    """Write a benchmark's figures and print them; of what is on record, some names may stay.

    The command on record has the `arguments` that give the same again; without them, those that
    the script was given.
    """
    given = sys.argv[1:] if arguments is None else arguments
    about = {
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *given]),
    }
    RESULTS.mkdir(exist_ok=True)
    place = RESULTS / f"{benchmark}.json"
    known = json.loads(place.read_text(encoding="utf-8")) if place.exists() else []
    rows = [row for row in known if stays(row["name"])]
    rows += [{**figure.row(), **about} for figure in figures]
    text = json.dumps(rows, indent=2, ensure_ascii=False)
    place.write_text(text + "\n", encoding="utf-8")
    for figure in figures:
        print(f"{figure.name}: {figure.told}")


def arguments_of(options: argparse.Namespace) -> list[str]:
    """Return the arguments that give these options, whatever the defaults become."""
    found = []
    for name, value in vars(options).items():
        if value is not False:
            found += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return found


def machine() -> str:
    """Return processor and cores."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        names = [line for line in lines if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
        flags = [line for line in lines if line.startswith("flags")]
        units = set(flags[0].split()) if flags else set()
        # Two machines of one name may differ in what multiplies in half precision.
        if kinds := [name for flag, name in _HALF_UNITS.items() if flag in units]:
            model = f"{model} with {' and '.join(kinds)}"
    told = f"{model}, {os.cpu_count()} cores"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        told = f"{torch.cuda.get_device_name(0)}, {told}"
    return told


def medians_in_turns(ways: Mapping[str, Callable[[], object]], num_rounds: int) -> dict[str, float]:
    """Return each way's median milliseconds; they take turns, in alternate rounds backwards."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(num_rounds):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            started = time.perf_counter()
            ways[name]()
            took[name].append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(each) for name, each in took.items()}


def median_s(act: Callable[[], object], *, repeats: int = 7, warmups: int = 1) -> float:
    """Return the median seconds that `act` takes."""
    for _ in range(warmups):
        act()
    elapsed_s = []
    for _ in range(repeats):
        start = time.perf_counter()
        act()
        elapsed_s.append(time.perf_counter() - start)
    return statistics.median(elapsed_s)
