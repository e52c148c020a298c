"""What three short runs found, on a terminal: a row per rate, then the rule's answer."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from rewarm.evaluation.lr_search import LrFinding, LrTrial
from rewarm.reporting import numbers
from rewarm.reporting.terminal_table import titled_table

__all__ = ["finding_table"]


def finding_table(finding: LrFinding) -> RenderableType:
    """Return the trials as a table, and in words what the rule makes of them."""
    table = titled_table("Three constant rates, against the base")
    table.add_column("rate", justify="right", no_wrap=True)
    for name in ("old text", "new text", "score"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for trial in finding.trials:
        table.add_row(
            numbers.rate(trial.rate),
            numbers.signed(trial.old),
            numbers.signed(trial.new),
            numbers.signed(trial.score),
            _remark(trial, finding),
        )
    note = Text(
        "Changes in bits per byte of held-out text, less is better; score: old and new, half each.",
        style="dim",
    )
    lines = [Text(_answer(finding), style="bold"), *(Text(f"- {r}") for r in finding.remarks)]
    return Group(table, note, "", *lines)


def _remark(trial: LrTrial, finding: LrFinding) -> str:
    if trial.diverged:
        return "diverged"
    best = min((t.score for t in finding.trials if t.score is not None), default=None)
    words = ["lowest score"] if trial.score == best and finding.outcome != "flat" else []
    return ", ".join([*words, *(["old text still rising"] if trial.old_is_rising else [])])


def _answer(finding: LrFinding) -> str:
    if finding.rate is None:
        assert finding.next_rates is not None
        end = finding.trials[0 if finding.outcome == "below" else 2].rate
        following = ", ".join(numbers.rate(rate) for rate in finding.next_rates)
        return (
            f"The best rate lies {finding.outcome} {numbers.rate(end)}, beyond these three. "
            f"Next: {following}."
        )
    how_sure = ""
    if finding.low is not None and finding.outcome == "inside":
        span = numbers.interval(numbers.rate(finding.low), numbers.rate(finding.high))
        how_sure = f", 95 % interval {span} (draws of held-out documents, one seed)"
    if finding.outcome == "flat":
        return (
            f"The three do not differ by more than counts: the middle one, "
            f"{numbers.rate(finding.rate)}, stays."
        )
    return f"Rate: {numbers.rate(finding.rate)}{how_sure}"
