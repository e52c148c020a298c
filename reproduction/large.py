"""Writes README.md's table of what came of `german` on a GPU, from results/large/german-part.json.

    python reproduction/large.py

That file was put together by hand from the evaluations of runs whose experiment did not come to its
end (six of eleven arms, all of their seeds): held-out bits per byte at the base and at the last
step. The runs themselves are not kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from table import README, RESULTS, between

from rewarm.artifacts import write_atomically
from rewarm.comparison.paired import paired_mean
from rewarm.reporting import numbers
from rewarm.reporting.effects import p_value

__all__ = ["PART", "page_with"]

PART = RESULTS / "large" / "german-part.json"
_BEGIN, _END = "<!-- on a GPU: written by large.py -->", "<!-- end of on a GPU -->"
_PAIRS = (
    ("replay-1", "naive"),
    ("replay-5", "naive"),
    ("replay-25", "naive"),
    ("replay-50", "naive"),
    ("replay-25", "replay-5"),
    ("constant-min", "naive"),
)
_Runs = Sequence[Mapping[str, float]]


def page_with(page: str, part: Path = PART) -> str:
    """Return the page with the table between its two marks; ValueError where these are missing."""
    arms = json.loads(part.read_text(encoding="utf-8"))["arms"]
    return between(page, _BEGIN, _END, "\n".join(_rows(arms)) + "\n")


def _rows(arms: Mapping[str, Any]) -> Iterator[str]:
    yield "| arm − against | forgetting | 95 % interval | by seed | p | mean loss | p |"
    yield "|---|---:|---|---|---:|---:|---:|"
    for arm, against in _PAIRS:
        forgotten = _differences(_forgetting(arms[arm]), _forgetting(arms[against]))
        loss = _differences(_mean_loss(arms[arm]), _mean_loss(arms[against]))
        of, mean = paired_mean(forgotten), paired_mean(loss)
        assert of.low is not None
        assert of.high is not None
        yield (
            f"| {arm} − {against} | {_signed(of.mean)} | {_signed(of.low)} to {_signed(of.high)} "
            f"| {', '.join(map(_signed, forgotten))} | {p_value(of.p)} | {_signed(mean.mean)} "
            f"| {p_value(mean.p)} |"
        )


def _forgetting(runs: _Runs) -> dict[float, float]:
    return {run["seed"]: run["old"] - run["base_old"] for run in runs}


def _mean_loss(runs: _Runs) -> dict[float, float]:
    return {run["seed"]: (run["old"] + run["new"]) / 2 for run in runs}


def _differences(own: Mapping[float, float], other: Mapping[float, float]) -> list[float]:
    return [own[seed] - other[seed] for seed in own]


def _signed(value: float) -> str:
    return numbers.signed(value, 3)


if __name__ == "__main__":
    write_atomically(README, page_with(README.read_text(encoding="utf-8")))
