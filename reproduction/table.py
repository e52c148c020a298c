"""Writes what the experiments came to: figures, and README.md's tables, all from results/*.json.

    python reproduction/table.py            write them, and the results' sentences anew
    python reproduction/table.py --check    fail where README.md or a sentence says something else

What a person says of a result (the reason sought for it) stands in results/NAME.md, and is set
below its table.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from claims import CLAIMS, NamedAfter, claims_table, named_after
from kept import read_results, sentences_again
from rich.console import Console

from rewarm.artifacts import write_atomically
from rewarm.records.comparison import ComparisonResult, PairedEffect
from rewarm.reporting.comparison_sections import difference_figures, front_figure
from rewarm.reporting.effects import (
    detectable_of,
    effect_value,
    expectation,
    interval_of,
    p_value,
    peak_memory,
    per_seed,
    stated,
    written,
)
from rewarm.reporting.figures import standalone
from rewarm.units import format_count, format_duration

__all__ = ["between", "readme_with", "tables_of", "with_claims", "write_results"]

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
README = HERE / "README.md"
_CLAIMS, _END_OF_CLAIMS = "<!-- claims: written by table.py -->", "<!-- end of claims -->"
_BEGIN, _END = "<!-- results: written by table.py -->", "<!-- end of results -->"
_HEADS = (
    "| arm − against | metric | expected | difference | 95 % interval | by seed | p (Holm) "
    "| A/A | detectable | |"
)
_NONE = "No experiment has been run at its full length yet.\n"


def write_results(folder: Path, readme: Path, order: Sequence[str]) -> None:
    """Write figures beside the results, and their tables into the page."""
    results = read_results(folder, order, ComparisonResult)
    for result in results:
        for name, svg in _figures(result):
            write_atomically(folder / name, svg)
    page = readme_with(readme.read_text(encoding="utf-8"), results, folder)
    write_atomically(readme, with_claims(page, results) if _CLAIMS in page else page)


def readme_with(page: str, results: Sequence[ComparisonResult], folder: Path) -> str:
    """Return the page with the tables of these results between its two marks.

    Raises ValueError where the marks are not there.
    """
    tables = "\n".join(tables_of(result, folder) for result in results) or _NONE
    return between(page, _BEGIN, _END, tables)


def with_claims(page: str, results: Sequence[ComparisonResult], claims: Path = CLAIMS) -> str:
    """Return the page with what was seen of each claim between its two marks.

    Raises ValueError where the marks are not there.
    """
    return between(page, _CLAIMS, _END_OF_CLAIMS, claims_table(claims, results))


def between(page: str, begin: str, end: str, body: str) -> str:
    """Return the page with `body` between two marks.

    Raises ValueError where the marks are not there.
    """
    before, first, rest = page.partition(begin)
    _, last, after = rest.partition(end)
    if not first or not last:
        raise ValueError(f"the page has no place between {begin!r} and {end!r}")
    return f"{before}{begin}\n\n{body}\n{end}{after}"


def tables_of(result: ComparisonResult, folder: Path) -> str:
    """Return the section of one experiment, in Markdown."""
    lines = [
        f"### {result.name}",
        "",
        f"*{stated(result.registration)}:* {' '.join(result.hypothesis.split())}",
    ]
    late = named_after(CLAIMS, result.name)
    lines += ["", *_late_words(result, late)] if late is not None else []
    lines += ["", f"*Verdict:* {result.verdict}.", ""]
    lines += [_HEADS, "|---|---|---|---:|---|---|---:|---:|---:|---|"]
    named = [primary.metric for primary in result.primaries]
    explored = [effect for effect in result.secondary if effect.metric in named]
    lines += [_effect_row(effect, result, late) for effect in (*result.primary, *explored)]
    lines += ["", *_arm_rows(result), ""]
    for name, _ in _figures(result):
        lines.append(f"![{name}](results/{name})")
    lines += [f"\n{note}" for note in result.notes]
    reason = folder / f"{result.name}.md"
    if reason.is_file():
        lines += ["", reason.read_text(encoding="utf-8").strip()]
    failed = [run for run in result.runs if run.state != "done"]
    lines += [f"\nNot finished: {run.arm}, seed {run.seed}." for run in failed]
    return "\n".join(lines) + "\n"


def _late_words(result: ComparisonResult, late: NamedAfter) -> Iterator[str]:
    """Yield what was not stated before every run, and how many of the verdicts are of it."""
    words = Counter(effect.word for effect in result.primary if late.has(result.name, effect))
    came = ", ".join(f"{number} {word}" for word, number in words.items())
    yield f"*But:* {late.what} and the tests marked † were {late.words} ({came})."


def _effect_row(effect: PairedEffect, result: ComparisonResult, late: NamedAfter | None) -> str:
    noise = result.noise_of(effect.metric)
    mark = " †" if late is not None and late.has(result.name, effect) else ""
    cells = (
        f"{effect.arm} − {effect.against}",
        f"`{effect.metric}`",
        expectation(effect.expect, effect.within),
        effect_value(effect),
        interval_of(effect),
        per_seed(effect),
        p_value(effect.p_holm),
        effect_value(noise) if noise is not None else "",
        detectable_of(effect, effect.detectable_holm),
        f"**{effect.word}**{mark}" if effect.word else "",
    )
    return "| " + " | ".join(cells) + " |"


def _arm_rows(result: ComparisonResult) -> Iterator[str]:
    """Yield a table of the arms: what they were given, and the mean over seeds of each primary."""
    metrics = [primary.metric for primary in result.primaries]
    heads = [
        "arm",
        "tokens",
        "area under the rate",
        "tokens by source",
        *(f"`{m}`" for m in metrics),
        "time in steps",
    ]
    measured = [peak_memory(result, arm.name) for arm in result.arms]
    heads += ["peak memory"] if any(measured) else []
    yield "| " + " | ".join(heads) + " |"
    yield "|---" + "|---:" * (len(heads) - 1) + "|"
    units = {effect.metric: effect.unit for effect in (*result.primary, *result.secondary)}
    for arm, peak in zip(result.arms, measured, strict=True):
        done = [run for run in result.runs_of(arm.name) if run.state == "done"]
        cells = [arm.name, format_count(arm.num_tokens), f"{result.lr_area(arm.name):.3g}"]
        shown = result.shown(arm.name)
        cells.append(", ".join(f"{name} {format_count(round(shown[name]))}" for name in shown))
        for metric in metrics:
            values = [run.values[metric] for run in done if metric in run.values]
            mean = sum(values) / len(values) if values else None
            cells.append(written(mean, units.get(metric, "")))
        seconds = [run.training_s for run in done]
        cells.append(format_duration(sum(seconds) / len(seconds)) if seconds else "")
        cells += [peak] if any(measured) else []
        yield "| " + " | ".join(cells) + " |"


def _figures(result: ComparisonResult) -> Iterator[tuple[str, str]]:
    """Yield (file name, SVG) of a result's figures."""
    front = front_figure(result)
    if front is not None:
        yield f"{result.name}-front.svg", standalone(front)
    for number, figure in enumerate(difference_figures(result), start=1):
        yield f"{result.name}-{number}.svg", standalone(figure)


def main() -> int:
    """Write the tables, or tell whether they are as the results are."""
    from suite import EVERY

    writes = "--check" not in sys.argv
    stored = [path for path in (RESULTS / f"{name}.json" for name in EVERY) if path.is_file()]
    told = [path.name for path in stored if not sentences_again(path, write=writes)]
    if writes:
        write_results(RESULTS, README, EVERY)
        return 0
    if told:
        names = ", ".join(told)
        Console().print(
            f"sentences of {names} are not their figures': python reproduction/table.py"
        )
    page = README.read_text(encoding="utf-8")
    results = read_results(RESULTS, EVERY, ComparisonResult)
    same = with_claims(readme_with(page, results, RESULTS), results) == page
    if not same:
        Console().print("README.md is not what results/ gives: python reproduction/table.py")
    return 0 if same and not told else 1


if __name__ == "__main__":
    sys.exit(main())
