"""Verdicts and arms on a terminal of 80 columns, and as plain text where there is none."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from rewarm.evaluation.forgetting import DomainVerdict, domain_verdicts
from rewarm.records.facts import EvalRecord
from rewarm.reporting import numbers
from rewarm.reporting.arms import Accuracy, ArmView, Change
from rewarm.reporting.run_view import METRICS
from rewarm.reporting.terminal_table import titled_table
from rewarm.reporting.text import harmless
from rewarm.reporting.wording import mood_of, written_change, written_ends, written_value
from rewarm.units import format_count, format_duration

__all__ = ["arms_table", "verdict_table"]

_STYLES = {"good": "green", "bad": "red", "open": "yellow", "": ""}


def verdict_table(records: Sequence[EvalRecord]) -> RenderableType:
    """Return a row per domain and metric: step 0, last, change, interval, verdict."""
    verdicts = [v for metric in METRICS for v in domain_verdicts(records, metric=metric.metric)]
    if not verdicts:
        return Text("nothing to compare yet: step 0 and a later step have to be evaluated")
    table = titled_table("What was learned, what was forgotten")
    table.add_column("domain", overflow="fold", min_width=10)
    table.add_column("measure", overflow="fold")
    for name in ("step 0", "last", "change", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True, min_width=12)
    short = {metric.metric: metric.short for metric in METRICS}
    for verdict in verdicts:
        table.add_row(
            Text(harmless(verdict.domain)),
            short[verdict.metric],
            written_value(verdict.metric, verdict.first),
            written_value(verdict.metric, verdict.last),
            written_change(verdict).replace(" points", ""),
            _interval(verdict),
            Text(verdict.verdict, style=_STYLES[mood_of(verdict)]),
        )
    note = Text(
        "Bits per byte, less is better; continuation, choice, pairs and cloze in % right, more is "
        "better. Intervals are evaluation noise of one seed.",
        style="dim",
    )
    return Group(table, note)


def _interval(verdict: DomainVerdict) -> str:
    ends = written_ends(verdict)
    return "not known" if ends is None else " to ".join(ends)


def arms_table(arms: Sequence[ArmView]) -> RenderableType:
    """Return a row per arm under one of the base: changes with ± half of their 95 % interval,
    accuracy with its standard error, and what the arm was given."""
    table = titled_table("Change against the base (bits per byte; less is better)")
    table.padding = (0, 1, 0, 0)  # eight columns on 80 characters
    table.add_column("arm", overflow="fold", min_width=10)
    for name in ("old", "new", "answers", "matched", "tokens", "lr area", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    if arms:
        first = arms[0]
        table.add_row(
            Text("base (step 0)", style="dim"),
            *(_first(change) for change in (first.old, first.new, first.answers)),
            Text("" if first.matched_old is None else _percent(first.matched_old.first), "dim"),
        )
    for arm in arms:
        table.add_row(
            Text(harmless(arm.name), style="bold"),
            _change(arm.old),
            _change(arm.new),
            _change(arm.answers),
            _accuracy(arm.matched_old),
            format_count(arm.view.num_tokens),
            numbers.rate(arm.view.lr_area),
            format_duration(arm.view.training_s),
        )
    note = Text(
        "Old and new text, answers: change, under it ± half of its 95 % interval, evaluation noise "
        "of one seed. Matched: % right continuations on old text, more is better, and its "
        "standard error.",
        style="dim",
    )
    return Group(table, note)


def _first(change: Change | None) -> Text:
    return Text(numbers.MISSING if change is None else numbers.plain(change.first), style="dim")


def _change(change: Change | None) -> Text:
    if change is None:
        return Text(numbers.MISSING)
    shown = Text(numbers.signed(change.change.value))
    low, high = change.change.low, change.change.high
    if low is not None and high is not None:
        shown.append(f"\n±{numbers.plain((high - low) / 2)}", style="dim")
    return shown


def _accuracy(accuracy: Accuracy | None) -> Text:
    if accuracy is None:
        return Text(numbers.MISSING)
    shown = Text(_percent(accuracy.value))
    if accuracy.standard_error is not None:
        shown.append(f"\ns.e. {_percent(accuracy.standard_error)}", style="dim")
    return shown


def _percent(value: float) -> str:
    return numbers.plain(100 * value, 1)
