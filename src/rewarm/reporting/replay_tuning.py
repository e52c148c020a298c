"""What short runs at several replay shares found: a row per run, the check, the share to take."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from rewarm.evaluation.mixture_law import MOST_REPLAY, Measured, Prediction
from rewarm.evaluation.replay_search import Check, ReplayFinding
from rewarm.reporting import numbers
from rewarm.reporting.curves import LineChart, Point, Series, line_figure
from rewarm.reporting.figures import Axis, standalone
from rewarm.reporting.terminal_table import titled_table
from rewarm.reporting.text import clean
from rewarm.units import format_count

__all__ = ["replay_svg", "replay_table"]

_OLD, _NEW = 0, 1


def replay_table(finding: ReplayFinding) -> RenderableType:
    """Return the runs as a table, and in words what the law makes of them."""
    table = titled_table("Short runs, against the base")
    for name in ("replay", "tokens", "old text", "± s.e.", "new text", "± s.e."):
        table.add_column(name, justify="right", no_wrap=True)
    for trial in finding.trials:
        table.add_row(
            f"{trial.replay:.0%}",
            format_count(trial.num_tokens),
            *_figures(trial.old),
            *_figures(trial.new),
        )
    law = titled_table(f"Predicted at {format_count(finding.finding.num_tokens)} tokens")
    for name in ("replay", "old text", "95 %", "new text", "95 %"):
        law.add_column(name, justify="right", no_wrap=True)
    for point in finding.curve:
        law.add_row(f"{point.replay:.0%}", *_predicted(point.old), *_predicted(point.new))
    note = Text("Changes in bits per byte of held-out text, less is better; one seed.", style="dim")
    lines = [
        *([Text(_checked(finding.check))] if finding.check is not None else []),
        Text(_answer(finding), style="bold"),
        *(Text(f"- {remark}") for remark in finding.remarks),
    ]
    return Group(table, note, "", law, "", *lines)


def _figures(measured: Measured | None) -> tuple[str, str]:
    if measured is None:
        return "diverged", ""
    return numbers.signed(measured.loss), numbers.plain(measured.standard_error)


def _predicted(prediction: Prediction) -> tuple[str, str]:
    return numbers.signed(prediction.estimate), _span(prediction)


def _span(prediction: Prediction) -> str:
    return numbers.interval(numbers.signed(prediction.low), numbers.signed(prediction.high))


def _checked(check: Check) -> str:
    told = []
    for name, is_, said in (
        ("old", check.old, check.old_predicted),
        ("new", check.new, check.new_predicted),
    ):
        told.append(
            f"{name} text {numbers.signed(is_)}, predicted {numbers.signed(said.estimate)} "
            f"({_span(said)}), wrong by {numbers.signed(said.estimate - is_)}"
        )
    return (
        f"The run that the law had not seen (replay {check.replay:.0%}, "
        f"{format_count(check.num_tokens)} tokens): {'; '.join(told)}."
    )


def _answer(finding: ReplayFinding) -> str:
    found = finding.finding
    within = f"old text within {found.tolerance:g} of the base at {format_count(found.num_tokens)}"
    if found.share is None:
        return f"No replay share up to {MOST_REPLAY:.0%} keeps {within} tokens."
    assert found.old is not None
    assert found.new is not None
    low = "0 %" if found.low is None else f"{found.low:.1%}"
    high = "never" if found.high is None else f"{found.high:.1%}"
    return (
        f"Replay: {found.share:.1%}, the least that keeps {within} tokens (95 % of the laws that "
        f"fit: {low} to {high}). Predicted: old text {numbers.signed(found.old.estimate)} "
        f"({_span(found.old)}), new text {numbers.signed(found.new.estimate)} "
        f"({_span(found.new)})."
    )


def replay_svg(finding: ReplayFinding) -> str:
    """Return the predicted curves as an SVG file of its own, on a light ground."""
    series: list[Series] = []
    for name, color in (("old text", _OLD), ("new text", _NEW)):
        said = [(p.replay, p.old if color == _OLD else p.new) for p in finding.curve]
        for edge in ("low", "high"):
            points = [Point(x, getattr(prediction, edge)) for x, prediction in said]
            series.append(Series(f"{name}, 95 % {edge}", points, color, "faint"))
        series.append(
            Series(name, [Point(x, p.estimate) for x, p in said], color, "line", marks=True)
        )
    figure = line_figure(
        LineChart(
            title=f"Predicted for {format_count(finding.finding.num_tokens)} tokens",
            description="Predicted change in bits per byte of old and of new text at the end of "
            "the run, by the share of old text in it, with 95 % intervals.",
            x=Axis("share of old text in the run", form="share", short="replay", floor=0.0),
            y=Axis("change in bits per byte against the base", form="signed", short="change"),
            series=tuple(series),
            kept=finding.finding.tolerance,
        )
    )
    return clean(standalone(figure))
