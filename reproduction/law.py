"""Measures the law of `rewarm tune --replay` on the German experiment, whose arms it has not seen.

    python reproduction/law.py              tune from each base, then hold the law to the arms
    python reproduction/law.py 1            from the base of this seed alone
    python reproduction/law.py --read       hold it to them again; trains nothing
    python reproduction/law.py --smoke      one seed in little, after `suite.py --smoke german`

The suite comes first: its bases and its text in work/, and results/german.json. What comes of it:
results/law.json, law.svg, and the section of README.md that says it. In little all three lie in
work/smoke/work/law/ instead, and no result is touched.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from table import README, RESULTS, between

from rewarm.artifacts import write_atomically, write_json
from rewarm.cli import main as rewarm
from rewarm.evaluation.mixture_law import (
    LawDraws,
    Prediction,
    ShareFinding,
    fit_law,
    recommend_share,
)
from rewarm.evaluation.replay_search import ReplayFinding
from rewarm.records.comparison import ComparisonResult
from rewarm.records.facts import Record
from rewarm.reporting import numbers
from rewarm.reporting.curves import LineChart, Point, Series, line_figure
from rewarm.reporting.figures import Axis, standalone
from rewarm.reporting.text import clean
from rewarm.units import format_count

HERE = Path(__file__).resolve().parent
WORK = HERE / "work"
TOKENS = "100k"
"""Of the longest run that the law is fitted to; the one that checks it has twice as many."""
_SMOKE_TOKENS = "20k"
TOLERANCES = (0.05, 0.1, 0.2)
ARMS = {"naive": 0.0, "replay-1": 0.01, "replay-5": 0.05, "replay-25": 0.25, "replay-50": 0.5}
"""Arms of experiments/german.toml that differ in their share of old text alone."""
BEGIN, END = "<!-- the law: written by law.py -->", "<!-- end of the law -->"


class HeldArm(Record):
    """An arm that the law had not seen: what it came to, and what the law said of it."""

    seed: int
    replay: float
    side: str
    measured: float
    predicted: Prediction

    @property
    def is_within(self) -> bool:
        """Whether it lies in the 95 % interval."""
        return self.predicted.low <= self.measured <= self.predicted.high


class SeedLaw(Record):
    """What the short runs of one seed say, and the shares that they lead to."""

    seed: int
    finding: ReplayFinding
    arms: tuple[HeldArm, ...]
    shares: tuple[ShareFinding, ...]


class LawResult(Record):
    """All that results/law.json has."""

    budget_tokens: int
    laws: tuple[SeedLaw, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where recipes are read, runs are made, and results are written."""

    recipes: Path
    work: Path
    german: Path
    results: Path
    tokens: str


FULL = Place(HERE / "recipes", WORK, RESULTS / "german.json", RESULTS, TOKENS)
_SMOKE_WORK = WORK / "smoke" / "work"
SMOKE = Place(
    WORK / "smoke" / "recipes",
    _SMOKE_WORK,
    _SMOKE_WORK / "comparisons" / "german" / "result.json",
    _SMOKE_WORK / "law",
    _SMOKE_TOKENS,
)


def tuned(seed: int, place: Place = FULL, *, read: bool) -> ReplayFinding:
    """Return the finding of `rewarm tune --replay` from the base of this seed.

    Raises SystemExit where the tuning does not come to its end.
    """
    folder = place.work / "law" / f"german-{seed}"
    if not read:
        recipe = str(_recipe(seed, folder, place))
        for verb in (["prepare", recipe], ["tune", recipe, "--replay", "--tokens", place.tokens]):
            if code := rewarm(verb):
                raise SystemExit(code)
    text = (folder / "tune" / "replay.json").read_text(encoding="utf-8")
    found = json.loads(text)
    del found["runs"]
    return ReplayFinding.model_validate(found)


def _recipe(seed: int, folder: Path, place: Place) -> Path:
    """Write recipes/german.toml as a recipe of this seed, with old text in its phase."""
    text = (place.recipes / "german.toml").read_text(encoding="utf-8")
    phase = "weights = { new = 1.0 }"
    if phase not in text:
        raise SystemExit(f"recipes/german.toml has no {phase!r} any more")
    text = text.replace(phase, "weights = { new = 0.75, old = 0.25 }")
    text = text.replace("../work/", f"{place.work}/").replace("{seed}", str(seed))
    path = folder.parent / f"german-{seed}.toml"
    folder.parent.mkdir(parents=True, exist_ok=True)
    head = f'seed = {seed}\nrun_folder = "{folder}"\n'
    # One thread, as the arms had.
    text = f"{head}{text}\n[training]\nnum_threads = 1\n"
    write_atomically(path, text)
    return path


def held_to_arms(finding: ReplayFinding, seed: int, german: ComparisonResult) -> SeedLaw:
    """Return what the law of this seed says of the arms of this seed, and what they came to."""
    old, new = _laws(finding, seed)
    arms: list[HeldArm] = []
    for run in german.runs:
        if run.seed != seed or run.arm not in ARMS:
            continue
        share, tokens = ARMS[run.arm], german.arm(run.arm).num_tokens
        for side, law, of_side, measured in (
            ("old", old, share, run.values["forgetting"]),
            ("new", new, 1.0 - share, -run.values["adaptation"]),
        ):
            arms.append(
                HeldArm(
                    seed=seed,
                    replay=share,
                    side=side,
                    measured=measured,
                    predicted=law.predict(of_side, tokens),
                )
            )
    budget = german.arm(german.control).num_tokens
    shares = tuple(
        recommend_share(old, new, tolerance=tolerance, num_tokens=budget)
        for tolerance in TOLERANCES
    )
    return SeedLaw(seed=seed, finding=finding, arms=tuple(arms), shares=shares)


def _laws(finding: ReplayFinding, seed: int) -> tuple[LawDraws, LawDraws]:
    """Return the laws of old and of new text, from all short runs, as the tuning had them."""
    trials = finding.trials
    old = fit_law([trial.old for trial in trials if trial.old is not None], seed=seed)
    new = fit_law([trial.new for trial in trials if trial.new is not None], seed=seed)
    return old, new


def section(result: LawResult) -> str:
    """Return what the README says of the law, in Markdown."""
    budget = result.budget_tokens
    every = [arm for law in result.laws for arm in law.arms]
    spent = round(statistics.mean(law.finding.tokens_spent for law in result.laws))
    lines = [
        f"Thirteen short runs, {format_count(spent)} tokens in all for each seed: "
        f"{spent / budget:.1f} times the {format_count(budget)} of one arm of `german`. The law of "
        "the first twelve, asked about the thirteenth:",
        "",
        "| seed | run | text | came | predicted | 95 % interval | wrong by |",
        "|---:|---|---|---:|---:|---|---:|",
        *(row for law in result.laws for row in _check_rows(law)),
        "",
        "The law of all thirteen, asked about the arms of `german` "
        f"({format_count(budget)} tokens), which no law has seen: {_told(every)}.",
        "",
        "| text | old text | seed | came | predicted | 95 % interval | wrong by |",
        "|---|---:|---:|---:|---:|---|---:|",
    ]
    for arm in sorted(every, key=lambda arm: (arm.side != "old", arm.replay, arm.seed)):
        came = _said(arm.measured, arm.predicted)
        lines.append(f"| {arm.side} | {arm.replay:.0%} | {arm.seed} | {came} |")
    lines += [
        "",
        "![what the law says, and what came](results/law.svg)",
        "",
        "| old text may lose | seed | share | 95 % of the laws | old text at it | new text |",
        "|---:|---:|---:|---|---:|---:|",
        *(_share_row(law.seed, share) for law in result.laws for share in law.shares),
        "",
        *(f"- seed {law.seed}: {remark}" for law in result.laws for remark in law.finding.remarks),
    ]
    reason = RESULTS / "law.md"
    if reason.is_file():
        lines += ["", reason.read_text(encoding="utf-8").strip()]
    return "\n".join(lines) + "\n"


def _check_rows(law: SeedLaw) -> list[str]:
    check = law.finding.check
    if check is None:
        return [f"| {law.seed} | diverged | | | | | |"]
    run = f"{check.replay:.0%}, {format_count(check.num_tokens)} tokens"
    return [
        f"| {law.seed} | {run} | {side} | {_said(came, said)} |"
        for side, came, said in (
            ("old", check.old, check.old_predicted),
            ("new", check.new, check.new_predicted),
        )
    ]


def _said(came: float, said: Prediction) -> str:
    span = numbers.interval(numbers.signed(said.low), numbers.signed(said.high))
    outside = "" if said.low <= came <= said.high else " (outside)"
    cells = (
        numbers.signed(came),
        numbers.signed(said.estimate),
        f"{span}{outside}",
        numbers.signed(said.estimate - came),
    )
    return " | ".join(cells)


def _told(arms: Sequence[HeldArm]) -> str:
    parts = []
    for side in ("old", "new"):
        of_side = [arm for arm in arms if arm.side == side]
        error = statistics.mean(abs(arm.predicted.estimate - arm.measured) for arm in of_side)
        within = sum(arm.is_within for arm in of_side)
        parts.append(
            f"of {side} text {within} of {len(of_side)} lie in their intervals, and the mean error "
            f"is {error:.3f} bits per byte"
        )
    return "; ".join(parts)


def _share_row(seed: int, found: ShareFinding) -> str:
    low = "none is enough" if found.low is None else f"{found.low:.1%}"
    high = "none is enough" if found.high is None else f"{found.high:.1%}"
    share = "none is enough" if found.share is None else f"{found.share:.1%}"
    old, new = (
        "" if said is None else numbers.signed(said.estimate) for said in (found.old, found.new)
    )
    return f"| {found.tolerance:g} | {seed} | {share} | {low} to {high} | {old} | {new} |"


def figure(law: SeedLaw) -> str:
    """Return the curves of a seed's law and what the arms of that seed came to, as SVG."""
    series: list[Series] = []
    for color, side in enumerate(("old", "new")):
        said = [(point.replay, getattr(point, side)) for point in law.finding.curve]
        for edge in ("low", "high"):
            points = [Point(x, getattr(prediction, edge)) for x, prediction in said]
            series.append(Series(f"{side} text, 95 % {edge}", points, color, "faint"))
        line = [Point(x, prediction.estimate) for x, prediction in said]
        series.append(Series(f"{side}, by the law", line, color))
        came = [Point(arm.replay, arm.measured) for arm in law.arms if arm.side == side]
        series.append(Series(f"{side}, came", came, color, "over", marks=True))
    tokens = format_count(law.finding.finding.num_tokens)
    chart = LineChart(
        title=f"Change at {tokens} tokens, seed {law.seed}",
        description="Predicted change in bits per byte of old and of new text by the share of old "
        "text, with 95 % intervals, and what the arms of the German experiment came to.",
        x=Axis("share of old text in the run", form="share", short="replay", floor=0.0),
        y=Axis("change in bits per byte against the base", form="signed", short="change"),
        series=tuple(series),
    )
    return clean(standalone(line_figure(chart)))


def main() -> int:
    """Tune, hold the law to the arms, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--read", action="store_true", help="train nothing: read what there is")
    parser.add_argument("--smoke", action="store_true", help="one seed in little")
    parser.add_argument("seeds", nargs="*", type=int, help="default: all of the experiment's")
    given = parser.parse_args()
    place = SMOKE if given.smoke else FULL
    if not place.german.is_file() or not (place.work / "bases").is_dir():
        first = "`suite.py --smoke german`" if given.smoke else "the suite"
        Console(stderr=True).print(
            f"run {first} first: its bases and {place.german}", markup=False, soft_wrap=True
        )
        return 2
    german = ComparisonResult.model_validate_json(place.german.read_text(encoding="utf-8"))
    laws = tuple(
        held_to_arms(tuned(seed, place, read=given.read), seed, german)
        for seed in given.seeds or german.seeds
    )
    result = LawResult(budget_tokens=german.arm(german.control).num_tokens, laws=laws)
    write_json(place.results / "law.json", result.model_dump(mode="json"))
    write_atomically(place.results / "law.svg", figure(laws[0]))
    if given.smoke:
        write_atomically(place.results / "law.md", section(result))
        return 0
    page = README.read_text(encoding="utf-8")
    write_atomically(README, between(page, BEGIN, END, section(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
