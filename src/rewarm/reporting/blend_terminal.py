"""What a plan shows of every source, by phase, on a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rewarm.planning.exposure import epochs_of, shown_by_phase
from rewarm.planning.plan import Plan, PlannedSource
from rewarm.reporting import numbers
from rewarm.reporting.terminal_table import ByWidth, bullets, cut, titled_table
from rewarm.reporting.text import clean
from rewarm.units import format_count

__all__ = ["blend_table", "exposure_table"]

_MOST_PHASE_NAME = 16


def blend_table(plan: Plan) -> RenderableType:
    """Return a row per source: its share of each phase, its tokens, repeats and epochs."""
    table = _blend_table(plan)
    names = [str(column.header) for column in table.columns]
    rows = zip(*(column.cells for column in table.columns), strict=True)
    lines = [
        f"{source} ({role}): "
        + ", ".join(f"{name} {value}" for name, value in zip(names[2:], values, strict=True))
        for source, role, *values in rows
    ]
    return ByWidth(table, Group(Text("Blend", style="bold"), bullets(lines)))


def _blend_table(plan: Plan) -> Table:
    science = plan.science
    table = titled_table("Blend")
    table.add_column("source", overflow="fold", min_width=10)
    table.add_column("role")
    for phase in science.phases:
        table.add_column(Text(cut(phase.name, _MOST_PHASE_NAME)), justify="right")
    for name in ("tokens", "of", "repeats", "epochs"):
        table.add_column(name, justify="right")
    epochs = epochs_of(science.sources, science.phases)
    for index, source in enumerate(science.sources):
        samples = [phase.samples[index] for phase in science.phases]
        shares = [
            numbers.share(count / sum(phase.samples)) if count else numbers.MISSING
            for count, phase in zip(samples, science.phases, strict=True)
        ]
        table.add_row(
            Text(source.name),
            source.role,
            *shares,
            format_count(sum(samples) * science.sequence_length),
            _there_are(plan, source),
            format_count(sum(shown.num_repeated for shown in shown_by_phase(science, index))),
            f"{epochs[source.name]:.2f}",
        )
    return table


def _there_are(plan: Plan, source: PlannedSource) -> str:
    """Return how many tokens an epoch shows, and of how many where that is a subset."""
    stored = format_count(plan.conduct.corpora[source.name].num_tokens)
    if source.num_stored is None:
        return stored
    return f"{format_count(source.num_windows * plan.science.sequence_length)} of {stored}"


def exposure_table(plan: Plan) -> RenderableType:
    """Return a row for each source and phase that shows it: tokens, new and repeated, epochs."""
    science = plan.science
    table = titled_table("Exposure by phase")
    table.add_column("source", overflow="fold", min_width=10)
    table.add_column("phase", overflow="fold")
    for name in ("tokens", "first time", "repeats", "epochs"):
        table.add_column(name, justify="right")
    lines: list[str] = []
    for index, source in enumerate(science.sources):
        for position, shown in enumerate(shown_by_phase(science, index)):
            phase = clean(shown.phase).replace("\n", " ")
            tokens, first, again = (
                format_count(number)
                for number in (shown.num_tokens, shown.num_first_time, shown.num_repeated)
            )
            epochs = f"{shown.epochs:.2f}"
            table.add_row(
                Text("" if position else source.name), Text(phase), tokens, first, again, epochs
            )
            lines.append(
                f"{source.name} in {phase}: {tokens} tokens, {first} for the first time, "
                f"{again} repeats, {epochs} epochs"
            )
    return ByWidth(table, Group(Text("Exposure by phase", style="bold"), bullets(lines)))
