"""The trade-off curve of a merge: what each weight between base and model forgets and learns."""

from __future__ import annotations

from rewarm.records.merging import MergeSweep, TradeOff
from rewarm.reporting import numbers
from rewarm.reporting.figures import Axis, Estimate, Figure
from rewarm.reporting.pairs import Pair, PairChart, pair_figure
from rewarm.reporting.tables import Cell, Table, numeric, words
from rewarm.reporting.wording import Statement

__all__ = [
    "ADAPTATION_AXIS",
    "FORGETTING_AXIS",
    "sweep_provenance",
    "sweep_statement",
    "sweep_table",
    "trade_off_figure",
]

FORGETTING_AXIS = Axis(
    "forgetting: bits per byte above the base on old text", form="signed", short="forgetting"
)
ADAPTATION_AXIS = Axis(
    "adaptation: bits per byte below the base on new text", form="plain", short="adaptation"
)

_PLAIN, _CHOSEN = 0, 1  # colours


def trade_off_figure(sweep: MergeSweep) -> Figure:
    """Draw the curve from the base to the model, each weight with its intervals."""
    pairs = tuple(
        Pair(
            f"{point.weight:g}" + (" chosen" if point.weight == sweep.chosen else ""),
            _estimate(point.forgetting),
            _estimate(point.adaptation),
            _CHOSEN if point.weight == sweep.chosen else _PLAIN,
        )
        for point in sweep.points
        if point.weight > 0.0
    )
    chart = PairChart(
        title=f"Merging by {sweep.method}: adaptation against forgetting",
        description="From the base to the model: bits per byte lost on old text (to the right: "
        "more forgotten) and gained on new text (up: more learned) at each weight, with 95 % "
        "intervals of evaluation noise.",
        x=FORGETTING_AXIS,
        y=ADAPTATION_AXIS,
        pairs=pairs,
        origin="base, 0",
        path="in order",
        row_name="weight",
    )
    return pair_figure(chart)


def _estimate(change: TradeOff) -> Estimate:
    return Estimate(change.value, change.low, change.high)


def sweep_table(sweep: MergeSweep) -> Table:
    """Return a row per weight: what it forgets and learns, with intervals."""
    rows = tuple(
        (
            f"{point.weight:g}",
            FORGETTING_AXIS.written(point.forgetting.value),
            FORGETTING_AXIS.interval(_estimate(point.forgetting)),
            ADAPTATION_AXIS.written(point.adaptation.value),
            ADAPTATION_AXIS.interval(_estimate(point.adaptation)),
            Cell("chosen", "good") if point.weight == sweep.chosen else "",
        )
        for point in sweep.points
    )
    columns = numeric("weight", "forgetting", "95 % interval", "adaptation", "95 % interval")
    note = (
        f"Bits per byte, means over domains. Old text: {', '.join(sweep.old_domains)}. New text: "
        f"{', '.join(sweep.new_domains)}. Weight 0 is {sweep.base}, weight 1 {sweep.model}. "
        "Intervals are evaluation noise; the weight was chosen on this very text."
    )
    return Table((*columns, *words("")), rows, note)


def sweep_statement(sweep: MergeSweep) -> Statement:
    """Return which weight was chosen and why, as a sentence."""
    chosen = next(point for point in sweep.points if point.weight == sweep.chosen)
    told = (
        f"weight {sweep.chosen:g}: {numbers.signed(chosen.forgetting.value)} bits per byte on old "
        f"text, {numbers.signed(-chosen.adaptation.value)} on new text. By {sweep.rule}: "
        f"{sweep.reason}."
    )
    return Statement("good" if sweep.chosen else "open", "Chosen:", told)


def sweep_provenance(sweep: MergeSweep) -> Table:
    """Return what was merged, how, and by which rule the weight was chosen."""
    facts = {
        "base": sweep.base,
        "model": f"{sweep.model} ({sweep.step:,} updates)",
        "method": sweep.method,
        "rule": sweep.rule,
        "models, method and type": sweep.sweep,
    }
    return Table(words("what", "which"), tuple(facts.items()))
