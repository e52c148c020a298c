"""Runs the CPU benchmarks, or prints what they last found; what falls short comes first."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from record import RESULTS, Figure
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
BENCHMARKS = (
    "startup",
    "order_lookup",
    "resume_position",
    "window_gather",
    "tokenize_rate",
    "waiting_threads",
    "document_mask",
    "attention_backward",
    "fused_projections",
    "checkpoint_blocking",
    "loss_memory",
    "rehearsal_rate",
    "freezing",
    "eight_bit",
    "expansion_start",
    "retention_cost",
    "selection",
    "mining",
    "peak_memory",
    "memory_over_steps",
    "probe_time",
    "growth",
    "product_rate",
    "muon",
    "train_peers",
)


def main() -> None:
    if "--show" not in sys.argv:
        for name in BENCHMARKS:
            print(f"== {name}", flush=True)
            subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=True)
    rows = []
    for name in BENCHMARKS:
        path = RESULTS / f"{name}.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        rows += [(name, Figure.of_row(row), row["date"]) for row in known]
    rows.sort(key=lambda row: (not row[1].falls_short, row[1].goal is None))
    table = Table(box=None, header_style="bold")
    for heading in ("benchmark", "figure"):
        table.add_column(heading)
    for heading in ("value", "goal"):
        table.add_column(heading, justify="right")
    for heading in ("versus", "date", ""):
        table.add_column(heading)
    for name, figure, date in rows:
        sign = "≥" if figure.better == "higher" else "≤"
        goal = f"{sign} {figure.goal:g}" if figure.goal is not None else ""
        table.add_row(name, figure.name, figure.told, goal, figure.versus, date, figure.verdict)
    Console().print(table)
    Console().print(
        "open: half of the rounds lie on both sides of the goal. No spread: the figure on record, "
        "a median or the only one, is on that side; between which half of its rounds lie is not "
        "on record."
    )


if __name__ == "__main__":
    main()
