"""How well scores tell valid lines from invalid ones, with intervals that respect concepts.

Takes scores (N,), labels (N,) and each line's concept; gives numbers in 0..1. Areas and curves are
scikit-learn's; what is ours is the resampling: lines of one concept are right or wrong together,
so intervals come from a bootstrap that draws whole concepts (`resampling.py`), and two sets of
lines over the same concepts are compared by drawing the concepts once for both.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from symdistill.resampling import cluster_resamples, group_numbers

N_BOOTSTRAP = 1000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of two means with its 95 % interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision and recall (0..1) of "accept from this score on", from the strictest cut."""

    precision: list[float]
    recall: list[float]
    threshold: list[float]


def auc(scores: ArrayLike, valid: ArrayLike) -> float:
    """Chance that a valid line outscores an invalid one, ties counting a half.

    NaN where one of the classes is empty.
    """
    s, y = _pair(scores, valid)
    if y.all() or not y.any():
        return float("nan")
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(y, s))


def average_precision(scores: ArrayLike, valid: ArrayLike) -> float:
    """Precision averaged over the recall steps, without interpolation; NaN with no valid line."""
    s, y = _pair(scores, valid)
    if not y.any():
        return float("nan")
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(y, s))


def precision_recall_curve(scores: ArrayLike, valid: ArrayLike) -> Curve:
    """The curve over all cuts at which a score occurs."""
    from sklearn.metrics import precision_recall_curve as curve

    s, y = _pair(scores, valid)
    precision, recall, threshold = curve(y, s)
    strict_first = slice(None, None, -1)
    return Curve(
        precision[:-1][strict_first].tolist(),
        recall[:-1][strict_first].tolist(),
        threshold[strict_first].tolist(),
    )


def reliability(scores: ArrayLike, valid: ArrayLike, bins: int = 10) -> list[dict[str, float]]:
    """For bins of equal width over 0..1: mean score, share valid, lines; empty bins left out."""
    s, y = _pair(scores, valid)
    place = np.minimum((s * bins).astype(int), bins - 1)
    return [
        {
            "score_mean": float(s[place == b].mean()),
            "valid_share": float(y[place == b].mean()),
            "n": int((place == b).sum()),
        }
        for b in range(bins)
        if (place == b).any()
    ]


def expected_calibration_error(scores: ArrayLike, valid: ArrayLike, bins: int = 10) -> float:
    """Mean distance between a bin's mean score and its share of valid lines, weighted by lines."""
    rows = reliability(scores, valid, bins)
    total = sum(row["n"] for row in rows)
    return sum(row["n"] * abs(row["score_mean"] - row["valid_share"]) for row in rows) / total


def bootstrap_interval(
    values: ArrayLike,
    groups: Sequence[Hashable],
    *,
    statistic: Callable[[NDArray[np.intp]], float] | None = None,
    n: int = N_BOOTSTRAP,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of `values`, whole concepts drawn.

    Args:
        values: (N,) numbers; not read if `statistic` is given.
        groups: (N,) the concept of each line.
        statistic: of the line numbers of a resample, in place of the mean; NaN is left out.
        n: resamples.
        seed: the same seed gives the same interval.

    Returns:
        (low, high); NaN where no resample has a value.
    """
    numbers = np.asarray(values, dtype=float)
    of = statistic or (lambda rows: float(numbers[rows].mean()))
    drawn = np.array([of(rows) for rows in cluster_resamples(groups, n, seed)])
    return _ends(drawn)


def paired_difference(
    after: ArrayLike,
    before: ArrayLike,
    groups_after: Sequence[Hashable],
    groups_before: Sequence[Hashable],
    *,
    n: int = N_BOOTSTRAP,
    seed: int = 0,
) -> Difference:
    """mean(after) - mean(before), concepts drawn once for both sets of lines.

    Args:
        after, before: (N,) and (M,) numbers, one per line.
        groups_after, groups_before: the concept of each line; a concept may be in one set only.
        n, seed: as in `bootstrap_interval`.

    Raises:
        ValueError: a set is empty, or lengths differ.
    """
    a, b = np.asarray(after, dtype=float), np.asarray(before, dtype=float)
    if len(a) != len(groups_after) or len(b) != len(groups_before) or not len(a) or not len(b):
        raise ValueError(
            f"expected one concept per line in two sets with lines; got {len(a)} lines with "
            f"{len(groups_after)} concepts and {len(b)} with {len(groups_before)}"
        )
    place, names = group_numbers([*groups_after, *groups_before])
    of_a, of_b = place[: len(a)], place[len(a) :]
    count = len(names)
    sums_a, sums_b = np.bincount(of_a, a, count), np.bincount(of_b, b, count)
    lines_a, lines_b = np.bincount(of_a, minlength=count), np.bincount(of_b, minlength=count)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(count, size=(n, count))
    with np.errstate(invalid="ignore", divide="ignore"):
        means_a = sums_a[drawn].sum(1) / lines_a[drawn].sum(1)
        means_b = sums_b[drawn].sum(1) / lines_b[drawn].sum(1)
    low, high = _ends(means_a - means_b)
    return Difference(float(a.mean() - b.mean()), low, high)


def _ends(drawn: NDArray[np.float64]) -> tuple[float, float]:
    measured = drawn[np.isfinite(drawn)]
    if not len(measured):
        return float("nan"), float("nan")
    outside = (1 - LEVEL) / 2
    low, high = np.quantile(measured, [outside, 1 - outside])
    return float(low), float(high)


def _pair(scores: ArrayLike, valid: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    s, y = np.asarray(scores, dtype=float), np.asarray(valid, dtype=bool)
    if s.ndim != 1 or s.shape != y.shape or not len(s) or not np.isfinite(s).all():
        raise ValueError(
            f"expected finite scores and labels of one length >= 1, got {s.shape} and {y.shape}"
        )
    return s, y
