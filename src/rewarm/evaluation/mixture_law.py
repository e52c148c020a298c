"""Loss as a function of a text's share and of the tokens of a run, fitted to short runs.

For one base the D-CPT law (Que et al. 2024, arXiv 2406.01375) says of a domain that has the share r
in a run of D tokens

    ℓ(r, D) = E + B r^η / D^β + C / (r + ε)^γ

with r the replay share x for old text and 1 − x for new (its term in the model's size is part of E
here). Losses are changes against the base, which E takes in. E, B and C are linear: they are solved
for, for each of a grid of (β, η, γ, ε), and the nodes of the grid are weighed by how well they fit,

    w ∝ (RSS + Σ se²)^(−(n − 3)/2)

with n runs, RSS the sum of their squared residuals and se the evaluation noise of each: no fit is
believed beyond it. C is not negative (less of a text never makes it better known); B may be, as old
loss can rise with the length of a run. What is predicted is drawn from that mixture, each node with
the multivariate t of its linear coefficients, so that an interval tells of noise *and* of shapes
that the runs do not tell apart: far beyond their lengths it is wide.

The share to take is CMR's (Gu et al. 2024, arXiv 2407.17467): the largest share of new text under
which old loss stays within a tolerance of the base's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rewarm.records.facts import Record

__all__ = [
    "FEWEST_RUNS",
    "MOST_REPLAY",
    "LawDraws",
    "Measured",
    "Prediction",
    "ShareFinding",
    "fit_law",
    "recommend_share",
]

Floats = NDArray[np.float64]

FEWEST_RUNS = 6
"""Three coefficients, and as many residuals that say how well the law fits."""
_DRAWS = 4000
_BETA = (0.03, 0.06, 0.1, 0.15, 0.22, 0.32, 0.46, 0.66, 0.9, 1.2)
_ETA = (0.0, 0.15, 0.3, 0.5, 0.75, 1.0, 1.5)
_GAMMA = (0.1, 0.2, 0.35, 0.55, 0.8, 1.1, 1.5, 2.0)
_EPSILON = (0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
MOST_REPLAY = 0.8
"""The share that is looked at: runs of no new text say nothing of what is learned."""
_SHARES = np.linspace(0.0, MOST_REPLAY, 161)
_TAIL = 0.025


class Measured(Record):
    """What one short run came to on the text of one side, old or new."""

    share: float = Field(ge=0, le=1, description="of the side's text in the run")
    num_tokens: int = Field(gt=0)
    loss: float = Field(description="change in bits per byte from the base to the end")
    standard_error: float = Field(ge=0, description="of its change from the base, by documents")


class Prediction(Record):
    """A predicted loss, bits per byte, and where 95 % of the draws lie."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class LawDraws:
    """Laws that agree with the runs, one per draw; made by `fit_law`."""

    beta: Floats
    eta: Floats
    gamma: Floats
    epsilon: Floats
    linear: Floats  # [draws, 3]: E, B, C
    noise: Floats  # [draws]: standard deviation of a run about its law
    unit_tokens: float

    def losses(self, share: float | Floats, num_tokens: float) -> Floats:
        """Return the loss of each law at shares, [draws, shares]; without a run's own noise."""
        shares = np.atleast_1d(np.asarray(share, dtype=np.float64))
        terms = _terms(
            shares[None, :],
            np.full((1, len(shares)), num_tokens / self.unit_tokens),
            self.beta[:, None],
            self.eta[:, None],
            self.gamma[:, None],
            self.epsilon[:, None],
        )
        found: Floats = np.einsum("dst,dt->ds", terms, self.linear)
        return found

    def predict(self, share: float, num_tokens: float, *, of_a_run: bool = True) -> Prediction:
        """Return the loss at one share; `of_a_run` adds the noise that a single run has."""
        drawn = self.losses(share, num_tokens)[:, 0]
        estimate = float(np.median(drawn))
        if of_a_run:
            # The same draws whenever it is asked: its answer does not change from call to call.
            drawn = drawn + self.noise * _normal_scores(len(drawn))
        low, high = np.quantile(drawn, [_TAIL, 1.0 - _TAIL])
        return Prediction(estimate=estimate, low=float(low), high=float(high))


def _normal_scores(number: int) -> Floats:
    return np.random.default_rng(number).standard_normal(number)


def _terms(
    share: Floats, tokens: Floats, beta: Floats, eta: Floats, gamma: Floats, epsilon: Floats
) -> Floats:
    """Return what E, B and C are multiplied by, [..., 3]."""
    # 0^0: a law without the share in its data term.
    powered = np.where((share == 0.0) & (eta == 0.0), 1.0, share**eta)
    data = powered / tokens**beta
    scarcity = 1.0 / (share + epsilon) ** gamma
    return np.stack(np.broadcast_arrays(np.ones_like(data), data, scarcity), axis=-1)


def fit_law(measured: Sequence[Measured], *, seed: int) -> LawDraws:
    """Return laws drawn by how well they agree with the runs.

    Raises ValueError for fewer than FEWEST_RUNS runs, or where all have one share or one length.
    """
    share = np.array([point.share for point in measured])
    tokens = np.array([point.num_tokens for point in measured], dtype=np.float64)
    loss = np.array([point.loss for point in measured])
    if len(measured) < FEWEST_RUNS:
        raise ValueError(f"{len(measured)} runs; a law needs {FEWEST_RUNS}")
    if len(set(share.tolist())) < 3 or len(set(tokens.tolist())) < 2:
        raise ValueError("a law needs runs of three shares and two lengths")
    floor = float(sum(point.standard_error**2 for point in measured))
    unit = float(np.exp(np.log(tokens).mean()))
    nodes = np.array(list(itertools.product(_BETA, _ETA, _GAMMA, _EPSILON)))
    design = _terms(share[None, :], (tokens / unit)[None, :], *(nodes.T[:, :, None]))
    linear, residual, inverse = _least_squares(design, loss)
    freedom = len(loss) - 3
    with np.errstate(divide="ignore"):
        weight = -0.5 * freedom * np.log(np.maximum(residual + floor, 1e-12))
    weight = np.where((linear[:, 2] >= 0.0) & np.isfinite(linear).all(axis=1), weight, -math.inf)
    if not np.isfinite(weight).any():  # no node has the law's form: share does not help
        weight = -0.5 * freedom * np.log(np.maximum(residual + floor, 1e-12))
    weight = np.exp(weight - weight.max())
    return _draw(nodes, weight, linear, residual + floor, inverse, freedom, unit, seed)


def _least_squares(design: Floats, loss: Floats) -> tuple[Floats, Floats, Floats]:
    """Return coefficients, residual sums and (XᵀX)⁻¹ of each node; a node whose columns cannot be
    told apart has no coefficients (NaN)."""
    # Columns differ by powers of ten; scaled to length 1 their products are well conditioned.
    scale = np.linalg.norm(design, axis=1, keepdims=True)
    unit = design / scale
    product = np.einsum("nrt,nrs->nts", unit, unit)
    told_apart = np.linalg.cond(product) < 1e10
    product[~told_apart] = np.eye(3)
    inverse = np.linalg.inv(product)
    solved = np.einsum("nts,nrs,r->nt", inverse, unit, loss)
    residual = ((np.einsum("nrt,nt->nr", unit, solved) - loss) ** 2).sum(axis=1)
    scale = scale[:, 0]
    linear = np.where(told_apart[:, None], solved / scale, math.nan)
    return linear, residual, inverse / (scale[:, :, None] * scale[:, None, :])


def _draw(
    nodes: Floats,
    weight: Floats,
    linear: Floats,
    residual: Floats,
    inverse: Floats,
    freedom: int,
    unit: float,
    seed: int,
) -> LawDraws:
    generator = np.random.default_rng(seed)
    chosen = generator.choice(len(nodes), size=_DRAWS, p=weight / weight.sum())
    variance = residual[chosen] / generator.chisquare(freedom, size=_DRAWS)
    roots = np.linalg.cholesky(inverse[chosen] + 1e-15 * np.eye(3))
    off = np.einsum("dts,ds->dt", roots, generator.standard_normal((_DRAWS, 3)))
    drawn = linear[chosen] + np.sqrt(variance)[:, None] * off
    # What a draw says of scarce text is not to turn its sign.
    drawn[:, 2] = np.maximum(drawn[:, 2], 0.0)
    beta, eta, gamma, epsilon = nodes[chosen].T
    return LawDraws(beta, eta, gamma, epsilon, drawn, np.sqrt(variance), unit)


class ShareFinding(Record):
    """The replay share to take, and what is then predicted at the target."""

    tolerance: float = Field(description="bits per byte that old text may lose on the base")
    share: float | None = Field(
        description="smallest replay share within the tolerance; None: none up to MOST_REPLAY"
    )
    low: float | None = Field(description="95 % of the laws that agree need at least this")
    high: float | None = Field(description="and at most this; None: some are never within it")
    old: Prediction | None
    new: Prediction | None
    num_tokens: int


def recommend_share(
    old: LawDraws, new: LawDraws, *, tolerance: float, num_tokens: int
) -> ShareFinding:
    """Return the smallest replay share under which old loss stays within the tolerance.

    That is CMR's critical ratio: the largest share of new text. By the median law; `low` and `high`
    by each law for itself.
    """
    grown = old.losses(_SHARES, num_tokens)
    by_median = _first_within(np.median(grown, axis=0)[None, :], tolerance)[0]
    each = _first_within(grown, tolerance)
    low, high = np.quantile(each, [_TAIL, 1.0 - _TAIL], method="nearest")
    share = None if math.isinf(by_median) else float(by_median)
    return ShareFinding(
        tolerance=tolerance,
        share=share,
        low=None if math.isinf(low) else float(low),
        high=None if math.isinf(high) else float(high),
        old=None if share is None else old.predict(share, num_tokens),
        new=None if share is None else new.predict(1.0 - share, num_tokens),
        num_tokens=num_tokens,
    )


def _first_within(grown: Floats, tolerance: float) -> Floats:
    """Return the least share from which on the loss stays within the tolerance; inf: none."""
    within = np.flip(np.logical_and.accumulate(np.flip(grown <= tolerance, axis=1), axis=1), axis=1)
    first = _SHARES[within.argmax(axis=1)]
    return np.where(within.any(axis=1), first, math.inf)
