"""One live table of runs that go on beside each other; plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rewarm.planning.plan import Plan
from rewarm.records.facts import StepRecord
from rewarm.reporting.terminal_table import cut
from rewarm.stages.launches import Launch, States
from rewarm.units import format_count

__all__ = ["Board"]

_PLAIN_EVERY_S = 10.0
_BAR = 20
_STYLES = {"waiting": "dim", "running": "", "done": "green", "failed": "red"}


class Board:
    """Step, tokens a second and state of every run, read from the runs' own records."""

    def __init__(self, launches: Sequence[Launch], console: Console) -> None:
        self._launches = launches
        self._console = console
        self._told: dict[str, str] = {}
        self._last_lines = time.monotonic()
        self._live = Live(console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, states: States) -> None:
        """Show how the runs stand."""
        if self._console.is_terminal:
            self._live.update(self.table(states))
            return
        is_due = time.monotonic() - self._last_lines >= _PLAIN_EVERY_S
        for launch in self._launches:
            state = states[launch.name]
            changed = not self._told.get(launch.name, "waiting").startswith(state)
            if not (changed or (is_due and state == "running")):
                continue
            step, rate = _how_far(launch)
            place = f", step {step}, {rate} tokens/s" if state == "running" and rate else ""
            line = f"{state}{place}"
            if line != self._told.get(launch.name):
                self._told[launch.name] = line
                self._say(f"{launch.name}: {line}")
        if is_due:
            self._last_lines = time.monotonic()

    def table(self, states: States) -> Table:
        """Return the table; runs that wait are counted where there are more than fit."""
        table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("run")
        table.add_column("")
        for name in ("step", "tokens/s"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("state")
        room = max(4, self._console.height - 4)
        shown = sorted(self._launches, key=lambda launch: _RANK[states[launch.name]])[:room]
        names = {launch.name for launch in shown}
        for launch in self._launches:
            if launch.name in names:
                self._add(table, launch, states[launch.name])
        if len(shown) < len(self._launches):
            table.add_row(Text(f"and {len(self._launches) - len(shown)} more", style="dim"))
        return table

    def _add(self, table: Table, launch: Launch, state: str) -> None:
        total = launch.plan.science.num_steps
        if state == "done":
            step, rate, done = f"{total:,}/{total:,}", "", total
        else:
            step, rate = _how_far(launch)
            done = _num_taken(launch.run.newest_steps())
        filled = round(_BAR * done / total)
        bar = Text("━" * filled, style="cyan") + Text("━" * (_BAR - filled), style="dim")
        style = _STYLES[state]
        table.add_row(Text(cut(launch.name, 40)), bar, step, rate, Text(state, style=style))

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


_RANK = {"running": 0, "failed": 1, "waiting": 2, "done": 3}


def _how_far(launch: Launch) -> tuple[str, str]:
    """Return step of steps, and the tokens a second of the last steps (empty before the first)."""
    steps = launch.run.newest_steps()
    total = launch.plan.science.num_steps
    place = f"{_num_taken(steps):,}/{total:,}"
    return place, _tokens_per_s(steps, launch.plan)


def _num_taken(steps: Sequence[StepRecord]) -> int:
    return steps[-1].step + 1 if steps else 0


def _tokens_per_s(steps: Sequence[StepRecord], plan: Plan) -> str:
    seconds = sum(record.step_s for record in steps)
    if not seconds:
        return ""
    return format_count(len(steps) * plan.science.tokens_per_step / seconds)
