"""How useful a backbone's features are, told quickly: a linear classifier on them, frozen.

    minimise   mean cross-entropy(W z + b) + λ/2 ‖W‖²,   z: features, mean 0 and deviation 1

over a few training examples of each class; the figure is the accuracy on others of them. No test
example is looked at, and no backbone is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

__all__ = ["deal_probe", "probe_accuracy"]

_DRAWN_FOR_PROBES = 6
_PULL = 1e-2
_MOST_UPDATES = 200
_LEAST_DEVIATION = 1e-6

Indices = NDArray[np.int64]


def deal_probe(
    labels: Indices, candidates: Indices, num_per_class: int, seed: int
) -> tuple[Indices, Indices]:
    """Return which examples a probe is fitted to, and which it is measured on.

    Up to `num_per_class` (at least 2) of each class among the candidates, half of them for either,
    the odd one for the fit. Classes with a single candidate are left out.
    """
    generator = np.random.default_rng((seed, _DRAWN_FOR_PROBES))
    fitted: list[Indices] = []
    measured: list[Indices] = []
    for label in np.unique(labels[candidates]):
        drawn = generator.permutation(candidates[labels[candidates] == label])[:num_per_class]
        if len(drawn) > 1:
            middle = (len(drawn) + 1) // 2
            fitted.append(drawn[:middle])
            measured.append(drawn[middle:])
    empty = np.zeros(0, dtype=np.int64)
    return np.concatenate([empty, *fitted]), np.concatenate([empty, *measured])


def probe_accuracy(
    fitted: Tensor, fitted_labels: Sequence[int], measured: Tensor, measured_labels: Sequence[int]
) -> float:
    """Return the share of measured examples [examples, width] that the classifier gets right."""
    classes = sorted(set(fitted_labels))
    numbered = {label: number for number, label in enumerate(classes)}
    targets = torch.tensor([numbered[label] for label in fitted_labels])
    mean, deviation = fitted.double().mean(0), fitted.double().std(0, correction=0)
    scale = deviation.clamp(min=_LEAST_DEVIATION)
    weights = fit_linear((fitted.double() - mean) / scale, targets, len(classes))
    found = _logits((measured.double() - mean) / scale, weights).argmax(1)
    wanted = torch.tensor([numbered.get(label, -1) for label in measured_labels])
    return float((found == wanted).double().mean())


def fit_linear(features: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """Return [classes, width + 1], weights and, last, biases of the minimum, from 0 by L-BFGS."""
    weights = torch.zeros(
        num_classes, features.shape[1] + 1, dtype=features.dtype, requires_grad=True
    )
    optimizer: Any = torch.optim.LBFGS(
        [weights],
        max_iter=_MOST_UPDATES,
        tolerance_grad=1e-7,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        optimizer.zero_grad()
        pull = _PULL / 2 * weights[:, :-1].square().sum()
        loss = F.cross_entropy(_logits(features, weights), targets) + pull
        torch.autograd.backward(loss)
        return float(loss.detach())

    optimizer.step(closure)
    return weights.detach()


def _logits(features: Tensor, weights: Tensor) -> Tensor:
    return features @ weights[:, :-1].T + weights[:, -1]
