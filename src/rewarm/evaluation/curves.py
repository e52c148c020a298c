"""The curves of a run, from its evaluations."""

from __future__ import annotations

from collections.abc import Sequence

from rewarm.evaluation.forgetting import CurvePoint, delta_curve
from rewarm.planning.plan import Plan
from rewarm.records.curves import DomainCurve
from rewarm.records.facts import LOSS_METRICS, EvalRecord, Metric

__all__ = ["domain_curves", "lost_on_its_way"]

_DECIMALS = 6


def domain_curves(records: Sequence[EvalRecord]) -> tuple[DomainCurve, ...]:
    """Return the curve of every domain and metric that was measured at step 0, and later again.

    Records that scored other items than step 0 did are left out, as in `delta_curve`.
    """
    found: list[DomainCurve] = []
    for domain, metric, role in dict.fromkeys((r.domain, r.metric, r.role) for r in records):
        curve = _curve(records, domain, metric)
        if len(curve) > 1:
            found.append(
                DomainCurve(
                    domain=domain,
                    role=role,
                    metric=metric,
                    steps=tuple(point.step for point in curve),
                    changes=tuple(round(point.delta, _DECIMALS) for point in curve),
                    noise=tuple(_rounded(point.noise) for point in curve),
                )
            )
    return tuple(found)


def lost_on_its_way(plan: Plan, records: Sequence[EvalRecord]) -> list[int]:
    """Return the planned steps between a finished run's ends that lack a loss of text which was
    measured after the last step on record.

    The weights of then are gone. Of tasks, and of shares of right answers, the ends may be all that
    is measured.
    """
    measured: dict[int, set[tuple[str, Metric]]] = {}
    for record in records:
        if record.metric in LOSS_METRICS and record.role != "task":
            measured.setdefault(record.step, set()).add((record.domain, record.metric))
    wanted: set[tuple[str, Metric]] = measured[max(measured)] if measured else set()
    return [
        step
        for step in plan.conduct.evaluation_steps
        if 0 < step < plan.science.num_steps and not wanted <= measured.get(step, set())
    ]


def _rounded(noise: float | None) -> float | None:
    return None if noise is None else round(noise, _DECIMALS)


def _curve(records: Sequence[EvalRecord], domain: str, metric: Metric) -> list[CurvePoint]:
    try:
        return delta_curve(records, domain, metric)
    except ValueError:  # step 0 was not measured
        return []
