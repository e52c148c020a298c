"""The page of `rewarm train --profile`: where the time of some steps went, and the run's."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from rewarm.artifacts import read_json, write_atomically
from rewarm.errors import RunFolderError
from rewarm.records.profile import StepProfile
from rewarm.records.run_folder import RunFolder
from rewarm.reporting import numbers
from rewarm.reporting.goodput import goodput_of, goodput_sentence, goodput_table, start_table
from rewarm.reporting.page import render_page
from rewarm.reporting.run_view import load_run_view
from rewarm.reporting.tables import Cell, Table, numeric, words

__all__ = ["write_profile_page"]


def write_profile_page(run: RunFolder) -> Path:
    """Write the page of a run's last profile beside it and return where.

    Raises RunFolderError for a record that cannot be read.
    """
    value = read_json(run.profile, what="the profile", error=RunFolderError)
    try:
        profile = StepProfile.model_validate(value)
    except ValidationError as error:
        fix = "profile again with `rewarm train --profile`"
        raise RunFolderError.one(str(run.profile), "it is damaged", fix) from error
    view = load_run_view(run)
    spent = goodput_of(view)
    last = profile.first_step + profile.num_steps - 1
    page = render_page(
        "profile.html",
        title=view.plan.name,
        sections=[("step", "A step"), ("operators", "Operators")]
        + ([] if spent is None else [("run", "The run")]),
        steps=f"steps {profile.first_step:,} to {last:,} on {profile.device_name}",
        trace=profile.trace,
        parts=parts_table(profile),
        operators=_operators_table(profile),
        goodput=None if spent is None else goodput_table(spent),
        goodput_sentence="" if spent is None else goodput_sentence(spent),
        starts=start_table(view),
    )
    write_atomically(run.profile_page, page.encode())
    return run.profile_page


def parts_table(profile: StepProfile) -> Table:
    """Return the parts of a step with their shares."""
    parts = (
        ("data wait", "until the batch was there", profile.data_wait_s),
        ("forward", "the loss included", profile.forward_s),
        ("backward", "", profile.backward_s),
        ("optimizer", "retention, clipping, update", profile.optimizer_s),
        ("rest", "counting, copies, the record", profile.rest_s),
    )
    rows = tuple(
        (Cell(name, below=what), _milliseconds(seconds), numbers.share(seconds / profile.step_s))
        for name, what, seconds in parts
    )
    whole = (Cell("a step"), _milliseconds(profile.step_s), numbers.share(1.0))
    return Table(words("part") + numeric("time", "share"), (*rows, whole))


def _operators_table(profile: StepProfile) -> Table:
    rows = tuple(
        (
            operator.name,
            f"{operator.calls:,.4g}",
            _milliseconds(operator.self_s),
            numbers.share(operator.self_s / profile.step_s),
        )
        for operator in profile.operators
    )
    return Table(words("operator") + numeric("calls", "time", "share"), rows)


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.2f} ms"
