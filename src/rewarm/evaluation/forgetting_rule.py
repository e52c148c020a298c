"""Whether old text counts as forgotten at an evaluation, by the rule that a recipe states.

A function of the records up to a step: a run that is resumed comes to the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from rewarm.evaluation.forgetting import OLD_ROLES, CurvePoint, delta_curve
from rewarm.recipe.records import ForgettingRecipe
from rewarm.records.facts import EvalRecord

__all__ = ["evidence_of_forgetting"]


def evidence_of_forgetting(
    rule: ForgettingRecipe, records: Sequence[EvalRecord], *, step: int, since_step: int = 0
) -> str | None:
    """Return what shows that an old domain is forgotten at `step`, in words, or None.

    Of each old domain's bits per byte those count that were measured after `rule.after_steps` and
    after `since_step` updates, up to `step`. It is forgotten where the last `rule.patience` of them
    are all above the base's by more than the rule allows, the last one being of `step`. With
    "warn" it is told once each time that this begins. Of several the worst is told.
    """
    seen = [r for r in records if r.step <= step and r.metric == "bits_per_byte"]
    found: list[tuple[float, str]] = []
    for domain in dict.fromkeys(record.domain for record in seen if record.role in OLD_ROLES):
        try:
            curve = delta_curve(seen, domain)
        except ValueError:  # step 0 was not measured: nothing to compare with
            continue
        allowed = rule.above * (curve[0].value if rule.relative else 1.0)
        after = max(rule.after_steps, since_step)
        in_a_row = _in_a_row([point for point in curve if point.step > after], allowed)
        last = curve[-1]
        is_due = in_a_row >= rule.patience
        if rule.action == "warn":
            is_due = in_a_row == rule.patience
        if last.step == step and is_due:
            noise = "" if last.noise is None else f" ± {last.noise:.3g}"
            found.append(
                (
                    last.delta / allowed,
                    f"{domain} is forgotten: {curve[0].value:.3f} → {last.value:.3f} bits per byte "
                    f"({last.delta:+.3f}{noise}), {in_a_row} evaluation(s) in a row above "
                    f"{allowed:.3g}",
                )
            )
    return max(found)[1] if found else None


def _in_a_row(points: Sequence[CurvePoint], allowed: float) -> int:
    """Return how many of the last points are all above what is allowed."""
    count = 0
    for point in reversed(points):
        if point.delta <= allowed:
            break
        count += 1
    return count
