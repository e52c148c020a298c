"""What a stream's accuracies say, from R[t][k]: accuracy on task k after task t, both from 0.

    final       mean over k of R[T−1][k]
    forgetting  mean over k < T−1 of max over t in [k, T−1) of R[t][k], less R[T−1][k]
    BWT         mean over k < T−1 of R[T−1][k] − R[k][k]
    min-ACC     mean over k < T−1 of the least accuracy on k at any look after the end of task k
    WC-ACC      R[T−1][T−1] / T + (1 − 1/T) min-ACC
    stability gap   mean over k < t of R[t−1][k] less the least at any look within task t, over
                    all tasks t > 0; never below 0 for a pair

Forgetting is Chaudhry et al. 2018, BWT Lopez-Paz and Ranzato 2017, the last three De Lange et al.
2023. All are proportions, not per cent.

Of a loss in place of an accuracy (bits per byte, on text) all of it is said of the loss with its
sign changed, and what is told of a level has its sign back:

    forgetting, gap   by how many bits per byte a task is worse: above 0 is worse, as above
    BWT               by how many it is better at the end than right after it was learned
    final, min-ACC, WC-ACC   in bits per byte; the least accuracy becomes the greatest loss
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

__all__ = ["Look", "StreamMetrics", "metrics_of", "metrics_of_losses"]


class Look(NamedTuple):
    """Accuracies on old tasks, by task, within a later one, after `step` of its steps."""

    task: int
    step: int
    accuracy: Mapping[int, float]


class StreamMetrics(NamedTuple):
    """Figures of one run, proportions; the last three are None where nobody looked within tasks."""

    final: float
    forgetting: float
    bwt: float
    min_acc: float | None
    wc_acc: float | None
    stability_gap: float | None


def metrics_of(matrix: Sequence[Sequence[float]], looks: Sequence[Look]) -> StreamMetrics:
    """Return the figures of a run of two or more tasks; row t of the matrix has t + 1 entries."""
    last = len(matrix) - 1
    if last < 1 or any(len(row) != t + 1 for t, row in enumerate(matrix)):
        raise ValueError("row t of the matrix must have t + 1 entries, and there must be two rows")
    final = matrix[last]
    forgetting = _mean([max(matrix[t][k] for t in range(k, last)) - final[k] for k in range(last)])
    bwt = _mean([final[k] - matrix[k][k] for k in range(last)])
    if not looks:
        return StreamMetrics(_mean(final), forgetting, bwt, None, None, None)
    min_acc = _mean([_least(matrix, looks, k) for k in range(last)])
    share = 1 / (last + 1)
    return StreamMetrics(
        final=_mean(final),
        forgetting=forgetting,
        bwt=bwt,
        min_acc=min_acc,
        wc_acc=share * final[last] + (1 - share) * min_acc,
        stability_gap=_mean(_gaps(matrix, looks)),
    )


def metrics_of_losses(matrix: Sequence[Sequence[float]], looks: Sequence[Look]) -> StreamMetrics:
    """Return the figures of a run whose matrix and looks are losses: lower is better.

    Levels (`final`, `min_acc`, `wc_acc`) are losses; forgetting, BWT and the gap are differences
    with the signs that they have of accuracies.
    """
    found = metrics_of(
        [[-loss for loss in row] for row in matrix],
        [look._replace(accuracy={k: -loss for k, loss in look.accuracy.items()}) for look in looks],
    )
    worst, weighted = (None if v is None else -v for v in (found.min_acc, found.wc_acc))
    return found._replace(final=-found.final, min_acc=worst, wc_acc=weighted)


def _least(matrix: Sequence[Sequence[float]], looks: Sequence[Look], task: int) -> float:
    """Return the least accuracy on a task within later ones and at their ends."""
    at_ends = [matrix[t][task] for t in range(task + 1, len(matrix))]
    return min(at_ends + [look.accuracy[task] for look in looks if look.task > task])


def _gaps(matrix: Sequence[Sequence[float]], looks: Sequence[Look]) -> list[float]:
    found: list[float] = []
    for t in range(1, len(matrix)):
        for k in range(t):
            within = [look.accuracy[k] for look in looks if look.task == t]
            found.append(max(0.0, matrix[t - 1][k] - min([*within, matrix[t][k]])))
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
