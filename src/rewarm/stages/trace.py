"""`rewarm trace`: which documents of which sources a step sees, by arithmetic alone."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from rewarm.artifacts import canonical_json
from rewarm.corpus.packed import open_windows
from rewarm.errors import PlanError
from rewarm.order.position import slots_of_rank
from rewarm.planning.amended import amended_plan
from rewarm.planning.amendments import read_amendments
from rewarm.planning.plan import Plan
from rewarm.reporting.text import harmless
from rewarm.stages.job import open_run

__all__ = ["run_trace"]


def run_trace(path: Path, overrides: Iterable[str], *, step: int, as_json: bool) -> None:
    """Print one line per document span that the step sees, in the order of the batch."""
    plan, run = open_run(path, overrides)
    amendments = read_amendments(run.amendments, plan.fingerprint)
    plan = amended_plan(plan, amendments)
    rows = list(trace_step(plan, step))
    if as_json:
        for row in rows:
            sys.stdout.write(canonical_json(row) + "\n")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    science = plan.science
    left_out = "; left out by an amendment" if amendments.skips(step) else ""
    rate = f"{science.lr(step):.4g}"
    table = Table(
        title=f"step {step}: phase {science.phase_at(step).name}, lr {rate}{left_out}",
        title_justify="left",
        box=None,
        header_style="bold",
    )
    for name in ("sequence", "source", "epoch", "window", "document", "tokens"):
        by_name = name in ("source", "document")
        table.add_column(name, justify="left" if by_name else "right", overflow="fold")
    for row in rows:
        names = ("sequence", "source", "epoch", "window", "document")
        table.add_row(
            *(Text(harmless(str(row[name]))) for name in names), f"{row['first']}-{row['last']}"
        )
    Console().print(table)


def trace_step(plan: Plan, step: int) -> Iterator[dict[str, object]]:
    """Yield a row per (sequence, document): source, epoch, window, document id, token span.

    `plan` is as its run's amendments have made it. Raises PlanError where the step is not in the
    plan or the text is not prepared.
    """
    science = plan.science
    if not 0 <= step < science.num_steps:
        raise PlanError.one(
            "--step",
            f"{step} is not a step of this plan",
            f"give one from 0 to {science.num_steps - 1}",
        )
    if not plan.measured:
        raise PlanError.one(
            "plan.json",
            "it stands on estimates, so there are no tokens to trace",
            "run `rewarm prepare`, then `rewarm plan`",
        )
    views = [
        open_windows(plan.conduct.corpora[source.name], science.sequence_length, source.bins)
        for source in science.sources
    ]
    slots = slots_of_rank(science.order(), step, 0, 1)
    for sequence in range(science.sequences_per_step):
        index = int(slots.source[sequence])
        window = int(slots.window[sequence])
        view = views[index]
        for document, first, last in view.documents_of_window(window, science.sequence_length):
            yield {
                "sequence": sequence,
                "source": science.sources[index].name,
                "epoch": int(slots.epoch[sequence]),
                "window": window,
                "document": view.document_id(document),
                "first": first,
                "last": last,
            }
