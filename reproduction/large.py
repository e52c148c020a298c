"""Writes README.md's tables of what came of `german` and `gap` on a GPU, from results/large/*.json.

    python reproduction/large.py

german-part.json was put together by hand from the evaluations of runs whose experiment did not
come to its end (six of eleven arms, all of their seeds): held-out bits per byte at the base and at
the last step. The runs themselves are not kept. gap.json and gap-rest.json are results of `gap`'s
arms in two parts (`gpu.sh gap --arms ...`), the control in both.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from kept import sentences_again
from table import README, RESULTS, between

from rewarm.artifacts import write_atomically
from rewarm.comparison.paired import paired_mean
from rewarm.records.comparison import ComparisonResult
from rewarm.reporting import numbers
from rewarm.reporting.effects import p_value

__all__ = ["GAP", "PART", "gap_rows", "page_with"]

PART = RESULTS / "large" / "german-part.json"
GAP = (RESULTS / "large" / "gap.json", RESULTS / "large" / "gap-rest.json")
_BEGIN, _END = "<!-- on a GPU: written by large.py -->", "<!-- end of on a GPU -->"
_GAP_BEGIN, _GAP_END = (
    "<!-- gap, two sizes: written by large.py -->",
    "<!-- end of gap, two sizes -->",
)
_PAIRS = (
    ("replay-1", "naive"),
    ("replay-5", "naive"),
    ("replay-25", "naive"),
    ("replay-50", "naive"),
    ("replay-25", "replay-5"),
    ("constant-min", "naive"),
)
_Runs = Sequence[Mapping[str, float]]
_S = TypeVar("_S", int, float)  # a seed


def page_with(page: str, part: Path = PART) -> str:
    """Return the page with the table between its two marks; ValueError where these are missing."""
    arms = json.loads(part.read_text(encoding="utf-8"))["arms"]
    return between(page, _BEGIN, _END, "\n".join(_rows(arms)) + "\n")


def with_gap(page: str, parts: Sequence[Path] = GAP, small: Path = RESULTS / "gap.json") -> str:
    """Return the page with `gap` at both sizes; ValueError where its marks are missing."""
    one, *larger = (
        ComparisonResult.model_validate_json(path.read_text(encoding="utf-8"))
        for path in (small, *parts)
    )
    return between(page, _GAP_BEGIN, _GAP_END, "\n".join(gap_rows(one, larger)) + "\n")


def gap_rows(small: ComparisonResult, larger: Sequence[ComparisonResult]) -> Iterator[str]:
    """Yield a table of the small experiment's primary tests, from the runs of either size."""
    heads = ("0.7M", "95 % interval", "35M", "95 % interval", "by seed", "p")
    yield f"| arm − against | metric | expected | {' | '.join(heads)} |"
    yield "|---|---|---|---:|---|---:|---|---|---:|"
    for effect in small.primary:
        names = (effect.arm, effect.against)
        found = _of_runs(larger, effect.metric, *names)
        cells = (
            " − ".join(names),
            f"`{effect.metric}`",
            effect.expect,
            *_mean_and_interval(_of_runs([small], effect.metric, *names)),
            *_mean_and_interval(found),
            ", ".join(map(_signed, found)),
            p_value(paired_mean(found).p),
        )
        yield f"| {' | '.join(map(str, cells))} |"


def _of_runs(
    results: Sequence[ComparisonResult], metric: str, arm: str, against: str
) -> list[float]:
    """Return a metric's differences, arm less `against`, over results that share seeds."""
    own, other = (
        {run.seed: run.values[metric] for result in results for run in result.runs_of(name)}
        for name in (arm, against)
    )
    return _differences(own, other)


def _mean_and_interval(differences: Sequence[float]) -> tuple[str, str]:
    of = paired_mean(differences)
    if of.low is None or of.high is None:
        return _signed(of.mean), "no spread"
    return _signed(of.mean), f"{_signed(of.low)} to {_signed(of.high)}"


def _rows(arms: Mapping[str, Any]) -> Iterator[str]:
    yield "| arm − against | forgetting | 95 % interval | by seed | p | mean loss | p |"
    yield "|---|---:|---|---|---:|---:|---:|"
    for arm, against in _PAIRS:
        forgotten = _differences(_forgetting(arms[arm]), _forgetting(arms[against]))
        loss = _differences(_mean_loss(arms[arm]), _mean_loss(arms[against]))
        of, mean = paired_mean(forgotten), paired_mean(loss)
        yield (
            f"| {arm} − {against} | {' | '.join(_mean_and_interval(forgotten))} "
            f"| {', '.join(map(_signed, forgotten))} | {p_value(of.p)} | {_signed(mean.mean)} "
            f"| {p_value(mean.p)} |"
        )


def _forgetting(runs: _Runs) -> dict[float, float]:
    return {run["seed"]: run["old"] - run["base_old"] for run in runs}


def _mean_loss(runs: _Runs) -> dict[float, float]:
    return {run["seed"]: (run["old"] + run["new"]) / 2 for run in runs}


def _differences(own: Mapping[_S, float], other: Mapping[_S, float]) -> list[float]:
    return [own[seed] - other[seed] for seed in own]


def _signed(value: float) -> str:
    return numbers.signed(value, 3)


if __name__ == "__main__":
    for path in GAP:
        sentences_again(path, write=True)
    write_atomically(README, with_gap(page_with(README.read_text(encoding="utf-8"))))
