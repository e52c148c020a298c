"""Where a run's time went: what of it was steps that count, and what was lost to what."""

from __future__ import annotations

from dataclasses import dataclass

from rewarm.records.facts import EventRecord
from rewarm.reporting import numbers
from rewarm.reporting.run_view import RunView
from rewarm.reporting.tables import Cell, Table, numeric, words
from rewarm.units import format_duration

__all__ = ["Goodput", "goodput_of", "goodput_sentence", "goodput_table", "start_table"]


@dataclass(frozen=True, slots=True)
class Goodput:
    """Seconds of all launches of a run, by what they were spent on.

    `rest_s` is what the launches' clocks say beyond the parts; None where one of them was killed,
    and so has no clock. What lies between launches is nobody's.
    """

    steps_s: float
    repeated_s: float
    data_s: float
    evaluation_s: float
    checkpoints_s: float
    start_s: float
    rest_s: float | None
    num_launches: int
    num_killed: int

    @property
    def known_s(self) -> float:
        """All of it."""
        parts = (self.repeated_s, self.data_s, self.evaluation_s, self.checkpoints_s, self.start_s)
        return self.steps_s + sum(parts) + (self.rest_s or 0.0)

    @property
    def share(self) -> float:
        """What of it was steps that count."""
        return self.steps_s / self.known_s if self.known_s else 0.0


def goodput_of(view: RunView) -> Goodput | None:
    """Return where a run's time went; None before its first step."""
    if not view.steps:
        return None
    all_steps_s, data_s = view.run.spent_in_steps()
    launches = [event for event in view.events if event.kind in ("launch", "resume")]
    ends = [event for event in view.events if event.kind in ("stop", "finish")]
    clocks = [_number(event.details.get("elapsed_s")) for event in ends]
    checkpoints_s = sum(
        _number(event.details.get("blocked_s")) for event in view.events if _is_save(event)
    )
    found = Goodput(
        steps_s=view.training_s,
        repeated_s=max(0.0, all_steps_s - view.training_s),
        data_s=data_s,
        evaluation_s=view.evaluation_s,
        checkpoints_s=checkpoints_s,
        start_s=sum(sum(_start_of(event).values()) for event in launches),
        rest_s=None,
        num_launches=len(launches),
        num_killed=max(0, len(launches) - len(ends)),
    )
    if found.num_killed or not all(clocks):
        return found
    rest_s = max(0.0, sum(clocks) - found.known_s)
    return Goodput(
        **{name: getattr(found, name) for name in Goodput.__slots__ if name != "rest_s"},
        rest_s=rest_s,
    )


def goodput_sentence(found: Goodput) -> str:
    """Return the headline."""
    killed = ""
    if found.num_killed:
        launches = "One launch" if found.num_killed == 1 else f"{found.num_killed:,} launches"
        killed = (
            f" {launches} ended without a word: what was lost between the last record and the end "
            "is not known."
        )
    return (
        f"Goodput: {numbers.share(found.share)} of {format_duration(found.known_s)} were steps "
        f"that count.{killed}"
    )


def goodput_table(found: Goodput) -> Table:
    """Return every part with its share, losses named."""
    launches = "1 launch" if found.num_launches == 1 else f"{found.num_launches} launches"
    parts: list[tuple[str, str, float | None]] = [
        ("steps that count", "the last record of each step", found.steps_s),
        ("steps taken again", "after a kill or a rollback, or left out", found.repeated_s),
        ("waiting for data", "from a step's end to its batch", found.data_s),
        ("evaluation", "held-out text and tasks", found.evaluation_s),
        ("checkpoints", "what steps waited for them", found.checkpoints_s),
        ("starting", f"before the first step of {launches}", found.start_s),
        ("the rest", "logs, hooks, waiting for the last save", found.rest_s),
    ]
    rows = tuple(
        (
            Cell(name, below=what),
            numbers.MISSING if seconds is None else format_duration(seconds),
            numbers.MISSING if seconds is None else numbers.share(seconds / found.known_s),
        )
        for name, what, seconds in parts
    )
    return Table(words("part") + numeric("time", "share"), rows)


def start_table(view: RunView) -> Table:
    """Return what each launch took before its first step, part by part."""
    launches = [event for event in view.events if _start_of(event)]
    names = list(dict.fromkeys(name for event in launches for name in _start_of(event)))
    rows: tuple[tuple[str | Cell, ...], ...] = tuple(
        (
            Cell(event.kind, below=f"at step {event.step:,}"),
            *(_seconds(_start_of(event).get(name)) for name in names),
            _seconds(sum(_start_of(event).values())),
        )
        for event in launches
    )
    return Table(words("launch") + numeric(*names, "in all"), rows)


def _seconds(value: float | None) -> str:
    return numbers.MISSING if value is None else f"{value:.2f} s"


def _is_save(event: EventRecord) -> bool:
    return event.kind == "checkpoint"


def _start_of(event: EventRecord) -> dict[str, float]:
    """Return the parts of a launch's start; none where it was not timed."""
    found = event.details.get("start_s")
    if event.kind not in ("launch", "resume") or not isinstance(found, list):
        return {}
    pairs = [pair for pair in found if isinstance(pair, list) and len(pair) == 2]
    return {str(name): _number(seconds) for name, seconds in pairs}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
