"""From a raw score to the probability that a line is valid.

Takes logits (or scores in 0..1) and labels of lines the model did not learn from; gives a map
p = sigmoid(slope * logit + intercept), as in Platt (1999), with his smoothed targets, which keep
the map finite when the classes separate. Costs about a millisecond for a thousand lines.

The slope is never negative: a scaling that turned the ranking round on a few labels would hide
a useless critic instead of showing it (slope 0: every line gets the same probability).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CLIP = 1e-6  # a score of exactly 0 or 1 has no finite logit


@dataclass(frozen=True, slots=True)
class PlattScaling:
    """p = sigmoid(slope * logit + intercept), slope >= 0."""

    slope: float
    intercept: float

    def __call__(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """(N,) logits to (N,) probabilities."""
        return sigmoid(self.slope * np.asarray(logits, dtype=np.float64) + self.intercept)


def sigmoid(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)) without overflow."""
    from scipy.special import expit

    return np.asarray(expit(values), dtype=np.float64)


def logit(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """log(p / (1 - p)), with p held inside 1e-6 .. 1 - 1e-6."""
    p = np.clip(np.asarray(scores, dtype=np.float64), _CLIP, 1 - _CLIP)
    return np.asarray(np.log(p) - np.log1p(-p))


def fit_platt(
    logits: NDArray[np.floating], valid: NDArray[np.bool_], *, iterations: int = 100
) -> PlattScaling:
    """The scaling that makes the labels likeliest (damped Newton steps on two numbers).

    Args:
        logits: (N,) of lines kept out of training.
        valid: (N,) their labels; "unsure" as False.

    Raises:
        ValueError: no lines, or shapes that differ.
    """
    z = np.asarray(logits, dtype=np.float64)
    y = np.asarray(valid, dtype=bool)
    if z.ndim != 1 or z.shape != y.shape or len(z) == 0:
        raise ValueError(f"expected logits and labels of one length >= 1, got {z.shape}, {y.shape}")
    n_valid = int(y.sum())
    n_invalid = len(y) - n_valid
    target = np.where(y, (n_valid + 1) / (n_valid + 2), 1 / (n_invalid + 2))
    centre, spread = float(z.mean()), float(z.std())
    base = float(np.log(target.mean() / (1 - target.mean())))
    if spread < 1e-9:
        return PlattScaling(0.0, base)
    x = (z - centre) / spread  # Newton on a standard scale
    slope, intercept = _newton(x, target, base, iterations)
    if slope <= 0:
        return PlattScaling(0.0, base)
    return PlattScaling(slope / spread, intercept - slope * centre / spread)


def _newton(
    x: NDArray[np.float64], target: NDArray[np.float64], intercept: float, iterations: int
) -> tuple[float, float]:
    beta = np.array([0.0, intercept])
    design = np.stack([x, np.ones_like(x)], axis=1)  # (N, 2)

    def loss(b: NDArray[np.float64]) -> float:
        margin = design @ b
        return float(np.sum(np.logaddexp(0.0, margin) - target * margin))

    current = loss(beta)
    for _ in range(iterations):
        p = sigmoid(design @ beta)
        gradient = design.T @ (p - target)
        if np.abs(gradient).max() < 1e-9 * len(x):
            break
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-12 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-10 and (new := loss(beta - size * step)) > current:
            size /= 2
        if size <= 1e-10:
            break
        beta, current = beta - size * step, new
    return float(beta[0]), float(beta[1])
