"""Writes what streams came to: figures, and STREAMS.md's tables, all from results/streams/*.json.

    python reproduction/stream_table.py            write them
    python reproduction/stream_table.py --check    fail where STREAMS.md says something else
    python reproduction/stream_table.py --judge    conclude kept results anew from their runs, first

What a person says of a result stands in results/streams/NAME.md, and is set below its tables.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from kept import read_results, write_on_one_line
from rich.console import Console
from table import between

from rewarm.artifacts import write_atomically
from rewarm.comparison.paired import paired_mean
from rewarm.records.stream import StreamResult
from rewarm.reporting import numbers
from rewarm.reporting.effects import stated
from rewarm.reporting.figures import standalone
from rewarm.reporting.stream_page import gain_figures, stream_tables
from rewarm.reporting.tables import Cell, Table, numeric, words
from rewarm.stages.stream_result import About, conclude_stream
from rewarm.stream.experiment import StreamExperiment, read_stream
from rewarm.units import format_duration

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "streams"
PAGE = HERE / "STREAMS.md"
_BEGIN, _END = "<!-- results: written by stream_table.py -->", "<!-- end of results -->"
_NONE = "No stream has been run at its full length yet.\n"
_HEADINGS = {
    "figures": "",
    "tests": "Tests:",
    "probe": "Linear probes:",
    "gains": "Gains from pre-training:",
    "swaps": "Learners that change places:",
}
_ORDER = ("tests", "figures", "probe", "gains", "swaps")


def page_with(page: str, results: Sequence[StreamResult], folder: Path) -> str:
    """Return the page with the sections of these results between its two marks.

    Raises ValueError where the marks are not there.
    """
    sections = "\n".join(section_of(result, folder) for result in results) or _NONE
    return between(page, _BEGIN, _END, sections)


def section_of(result: StreamResult, folder: Path) -> str:
    """Return the section of one experiment, in Markdown; `folder` has what a person says of it."""
    lines = [f"### {result.name}", ""]
    lines += [f"*{stated(result.registration)}:* {' '.join(result.hypothesis.split())}", ""]
    lines += [f"*Verdict:* {result.verdict}.", ""] if result.verdict else []
    seconds = sum(run.elapsed_s for run in result.runs)
    lines += [
        f"{result.about}; {len(result.seeds)} seeds; "
        f"{format_duration(seconds)} in {len(result.runs)} runs on one core each.",
        "",
    ]
    tables = stream_tables(result)
    for name in _ORDER:
        if name in tables:
            heading = _HEADINGS[name]
            lines += [*([heading, ""] if heading else []), *_markdown(tables[name]), ""]
        if name == "tests" and (others := of_other_backbones(result)) is not None:
            lines += ["The same of backbones that no test names:", "", *_markdown(others), ""]
        if name == "tests" and (pairs := of_regulariser(result)) is not None:
            lines += ["What the tests on EWC++ hold ER against:", "", *_markdown(pairs), ""]
        if name == "gains" and (pairs := of_the_paper(result)) is not None:
            lines += ["The paper's own rank inversions:", "", *_markdown(pairs), ""]
    for name, _ in figures_of(result):
        lines.append(f"![{name}](results/streams/{name})")
    lines += [f"\n{note}" for note in result.notes]
    reason = folder / f"{result.name}.md"
    if reason.is_file():
        lines += ["", reason.read_text(encoding="utf-8").strip()]
    return "\n".join(lines).rstrip() + "\n"


def of_other_backbones(result: StreamResult) -> Table | None:
    """Return the named tests with a backbone that none of them names in place of the pre-trained
    one; None where there is no such backbone.

    They were not written down beforehand, and are not adjusted.
    """
    known = dict.fromkeys(run.backbone for run in result.runs)
    named = [
        name
        for name in known
        if any(f"{name}/" in cell for e in result.primary for cell in (e.arm, e.against))
    ]
    trained = [name for name in named if not result.control.startswith(f"{name}/")]
    rows = [
        (f"{own} − {other}", *_difference(result, own, other))
        for backbone in known
        if backbone not in named
        for effect in result.primary
        if effect.metric == "final"  # the one that is told of them
        for own, other in [
            [cell.replace(f"{name}/", f"{backbone}/") for cell in (effect.arm, effect.against)]
            for name in trained
            if f"{name}/" in effect.arm and f"{name}/" in effect.against
        ]
    ]
    if not rows or result.measure != "share right":
        return None
    return Table(
        (*words("cell − against"), *numeric("difference"), *words("95 % interval", "by seed")),
        tuple(rows),
        "Points of final accuracy. Not written down beforehand, and not adjusted.",
    )


def of_regulariser(result: StreamResult) -> Table | None:
    """Return how far EWC++ is from plain fine-tuning on each backbone; None where either lacks."""
    found = _within_backbones(result, [("ewc", "fine-tune")])
    if not found:
        return None
    most = max(abs(d) for own, other in found for d in differences_of(result, own, other))
    return _told_unadjusted(
        result,
        found,
        f"In no seed are they more than {math.ceil(1000 * most) / 10:.1f} points apart: at λ = 1 "
        "EWC++ pulls at next to nothing here, and a gain of ER's held against its is one held "
        "against fine-tuning's.",
    )


def of_the_paper(result: StreamResult) -> Table | None:
    """Return the pairs that change places in the paper's table; None where a learner lacks."""
    found = _within_backbones(result, [("scr", "icarl"), ("scr", "er")])
    if not found:
        return None
    return _told_unadjusted(
        result,
        found,
        "In the paper's table (Split CIFAR100, online) SCR is ahead of both from scratch; behind "
        "iCaRL on both backbones pre-trained by labels; behind ER on ResNet-50 and CLIP, not on "
        "ResNet-18.",
    )


def _within_backbones(
    result: StreamResult, pairs: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Return these pairs of learners as cells, on every backbone that has both."""
    known = dict.fromkeys(f"{run.backbone}/{run.learner}" for run in result.runs)
    backbones = dict.fromkeys(run.backbone for run in result.runs)
    cells = [(f"{b}/{own}", f"{b}/{other}") for own, other in pairs for b in backbones]
    return [(own, other) for own, other in cells if own in known and other in known]


def _told_unadjusted(
    result: StreamResult, pairs: Sequence[tuple[str, str]], note: str
) -> Table | None:
    if result.measure != "share right":
        return None
    return Table(
        (*words("cell − against"), *numeric("difference"), *words("95 % interval", "by seed")),
        tuple((f"{own} − {other}", *_difference(result, own, other)) for own, other in pairs),
        f"Points of final accuracy. {note} Not written down beforehand, and not adjusted.",
    )


def _difference(result: StreamResult, own: str, other: str) -> tuple[str, str, str]:
    differences = differences_of(result, own, other)
    found = paired_mean(differences, scale=1.0)  # of accuracies

    def points(value: float) -> str:
        return numbers.signed(100 * value, 1)

    interval = "no spread"
    if found.low is not None and found.high is not None:
        interval = f"{points(found.low)} to {points(found.high)}"
    return points(found.mean), interval, ", ".join(map(points, differences))


def differences_of(result: StreamResult, own: str, other: str) -> list[float]:
    """Return how final figures differ, by seed, of two cells `backbone/learner` or two gains
    `(cell − cell)`."""
    final = {(f"{run.backbone}/{run.learner}", run.seed): run.metrics for run in result.runs}

    def value_of(name: str, seed: int) -> float:
        cells = name.strip("()").split(" − ")
        found = [final[cell, seed]["final"] for cell in cells]
        first, *less = [value for value in found if value is not None]
        return first - sum(less)

    return [value_of(own, seed) - value_of(other, seed) for seed in result.seeds]


def judged_again(result: StreamResult, experiment: StreamExperiment) -> StreamResult:
    """Return what the code of now concludes from the runs that a result holds; nothing is run.

    Where it was made stays as it is.
    """
    about = About(result.measure, result.about, result.num_tasks, result.task_names)
    found = conclude_stream(experiment, about, result.runs, result.probes, result.registration)
    return found.model_copy(update={"provenance": result.provenance})


def _judge(names: Sequence[str]) -> None:
    for result in read_results(RESULTS, names, StreamResult):
        experiment = read_stream(HERE / "streams" / f"{result.name}.toml").experiment
        found = judged_again(result, experiment).model_dump(mode="json")
        write_on_one_line(RESULTS / f"{result.name}.json", found)


def write_results(folder: Path, page: Path, order: Sequence[str]) -> None:
    """Write figures beside the results, and their sections into the page."""
    results = read_results(folder, order, StreamResult)
    for result in results:
        for name, svg in figures_of(result):
            write_atomically(folder / name, svg)
    write_atomically(page, page_with(page.read_text(encoding="utf-8"), results, folder))


def figures_of(result: StreamResult) -> Iterator[tuple[str, str]]:
    """Yield (file name, SVG) of a result's figures."""
    for number, figure in enumerate(gain_figures(result), start=1):
        yield f"{result.name}-{number}.svg", standalone(figure)


def _markdown(table: Table) -> Iterator[str]:
    """Yield a table's lines and, below it, its note."""
    yield "| " + " | ".join(column.name for column in table.columns) + " |"
    yield "|" + "|".join("---:" if column.numeric else "---" for column in table.columns) + "|"
    for row in table.rows:
        yield "| " + " | ".join(_text(cell) for cell in row) + " |"
    if table.note:
        yield ""
        yield table.note.replace("below each mean", "in brackets")


def _text(cell: str | Cell) -> str:
    if isinstance(cell, str):
        return cell
    shown = f"**{cell.text}**" if cell.mood else cell.text
    return f"{shown} ({cell.below})" if cell.below else shown


def main() -> int:
    """Write the sections, or tell whether they are as the results are."""
    from stream_suite import EVERY

    if "--judge" in sys.argv:
        _judge(EVERY)
    if "--check" not in sys.argv:
        write_results(RESULTS, PAGE, EVERY)
        return 0
    page = PAGE.read_text(encoding="utf-8")
    same = page_with(page, read_results(RESULTS, EVERY, StreamResult), RESULTS) == page
    if not same:
        Console().print(
            "STREAMS.md is not what results/streams gives: python reproduction/stream_table.py"
        )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
