"""The score from which lines are kept, and an estimate of how many of them are valid.

Takes scores and labels of held-out concepts (the calibration split; "unsure" as invalid);
gives a cut for a target precision, and for any set of kept lines an estimate of its precision
with an interval. Costs about a second per thousand bootstrap resamples.

Symbolic Knowledge Distillation reads its thresholds off a precision-recall curve at fixed
*recalls*, and averages in the test curve; I2D2 does not say how its threshold was found. Here
the cut is chosen for a *precision*, on calibration labels alone.

Neither function certifies anything. The cut is chosen on the same labels that say how precise
it is, which flatters it a little; and an estimate for lines a later model wrote assumes that a
score means for them what it meant for the labelled ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from symdistill.critic.calibration import fit_platt, logit
from symdistill.errors import InputError
from symdistill.resampling import cluster_resamples

MIN_LINES = 30  # at precision 0.8, 30 lines put about +-0.14 on the estimate; fewer are a lottery
Method = Literal["platt", "isotonic"]


@dataclass(frozen=True, slots=True)
class Cut:
    """Lines with score >= `threshold` are kept. All rates are 0..1, over the labelled lines."""

    threshold: float
    target_precision: float
    reached: bool  # False: no cut over enough lines reaches the target; this is the best there is
    precision: float  # share valid of the labelled lines at or above the cut
    low: float  # 95 % interval of that share, bootstrap over concepts, the cut held fixed
    high: float
    recall: float  # share of all valid labelled lines that are at or above the cut
    kept: int  # labelled lines at or above the cut
    labelled: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """A rate in 0..1 with its 95 % interval, and in words how it was made."""

    estimate: float
    low: float
    high: float
    method: str


def choose_cut(
    scores: NDArray[np.floating],
    valid: NDArray[np.bool_],
    groups: Sequence[Hashable],
    *,
    target_precision: float,
    min_lines: int = MIN_LINES,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> Cut:
    """The loosest cut at which the share of valid labelled lines reaches the target.

    Cuts above which fewer than `min_lines` labelled lines lie are not considered: among the
    few best lines some cut reaches any target by luck. If none of the others reaches it, the
    result is the one with the best precision (of equals the loosest), `reached` is False, and
    a warning says so.

    Args:
        scores: (N,) in 0..1, of lines of held-out concepts.
        valid: (N,) labels, "unsure" as False.
        groups: (N,) concepts.
        target_precision: above 0, at most 1.
        min_lines: labelled lines that must lie at or above a cut.
        n_bootstrap, seed: for the interval of the precision at the chosen cut.

    Raises:
        InputError: fewer than `min_lines` labels, or a target outside (0, 1].
        ValueError: shapes differ or a score is not finite.
    """
    s, y = _checked(scores, valid, groups)
    if not 0 < target_precision <= 1:
        raise InputError(f"expected a target precision above 0, at most 1, got {target_precision}")
    if len(s) < min_lines or min_lines < 1:
        raise InputError(
            f"expected at least {max(min_lines, 1)} labelled calibration lines to choose a cut "
            f"on, got {len(s)}; label more lines"
        )
    order = np.argsort(-s, kind="stable")
    ranked = s[order]
    last_of_tie = np.append(ranked[1:] < ranked[:-1], True)  # a cut never parts equal scores
    kept = np.flatnonzero(last_of_tie) + 1  # (C,) lines at or above each candidate cut
    hits = np.cumsum(y[order])[kept - 1]
    kept, hits = kept[kept >= min_lines], hits[kept >= min_lines]
    precision = hits / kept
    good = np.flatnonzero(precision >= target_precision)
    reached = len(good) > 0
    best = int(good[-1]) if reached else int(np.flatnonzero(precision == precision.max())[-1])
    threshold = float(ranked[kept[best] - 1])
    if not reached:
        warnings.warn(
            f"no cut over at least {min_lines} labelled lines reaches precision "
            f"{target_precision:.2f}; the best reaches {precision[best]:.2f} (score >= "
            f"{threshold:.3f}, {kept[best]} lines). Lower the target, or train the critic on "
            "more labels.",
            stacklevel=2,
        )
    above = np.flatnonzero(s >= threshold)
    concepts = [groups[int(i)] for i in above]
    shares = [y[above[draw]].mean() for draw in cluster_resamples(concepts, n_bootstrap, seed)]
    low, high = np.quantile(shares, [0.025, 0.975])
    return Cut(
        threshold=threshold,
        target_precision=target_precision,
        reached=reached,
        precision=float(precision[best]),
        low=float(low),
        high=float(high),
        recall=float(hits[best] / max(int(y.sum()), 1)),
        kept=int(kept[best]),
        labelled=len(s),
    )


def estimate_precision(
    kept_scores: NDArray[np.floating],
    calibration_scores: NDArray[np.floating],
    calibration_valid: NDArray[np.bool_],
    calibration_groups: Sequence[Hashable],
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
    method: Method = "platt",
) -> Estimate:
    """How many of the kept lines are valid: an estimate, not a certificate.

    It assumes that P(valid | score) is the same for the kept lines as for the labelled ones.
    Nothing in the numbers given here can check that. It tends to fail in the flattering
    direction when a model has been trained on lines this critic liked, or when lines were
    chosen by anything but the score that goes with being wrong. For a guarantee, label a
    random sample of the kept lines themselves.

    A map from score to probability (Platt's, or isotonic) is fitted on the calibration labels;
    the estimate is its mean over the kept lines. The interval repeats this on resamples of the
    calibration concepts, refitting the map each time, and draws each kept line's validity from
    its probability, so that it is an interval for the share among these very lines. It does not
    cover what was said above, nor lines of one concept being right or wrong together beyond
    their scores.

    Args:
        kept_scores: (M,) in 0..1. No kept lines: estimate and interval are NaN.
        calibration_scores, calibration_valid, calibration_groups: (N,) each; "unsure" as False.

    Raises:
        ValueError: shapes differ, no calibration labels, or a score is not finite.
    """
    s, y = _checked(calibration_scores, calibration_valid, calibration_groups)
    kept = np.sort(np.asarray(kept_scores, dtype=np.float64))
    if kept.ndim != 1 or not np.isfinite(kept).all():
        raise ValueError(f"expected finite kept scores (M,), got shape {kept.shape}")
    words = f"mean {method}-calibrated score of the kept lines; bootstrap over concepts"
    if len(kept) == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), words + "; no line kept")
    rng = np.random.default_rng([seed, 1])
    shares = []
    for draw in cluster_resamples(calibration_groups, n_bootstrap, seed):
        probability = _probabilities(kept, s[draw], y[draw], method)
        shares.append(float((rng.random(len(kept)) < probability).mean()))
    low, high = np.quantile(shares, [0.025, 0.975])
    estimate = float(_probabilities(kept, s, y, method).mean())
    return Estimate(estimate, min(float(low), estimate), max(float(high), estimate), words)


def _probabilities(
    kept: NDArray[np.float64], s: NDArray[np.float64], y: NDArray[np.bool_], method: Method
) -> NDArray[np.float64]:
    if method == "platt":
        return fit_platt(logit(s), y)(logit(kept))
    from sklearn.isotonic import IsotonicRegression

    isotonic = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    isotonic.fit(s, y.astype(np.float64))
    return np.asarray(isotonic.predict(kept), dtype=np.float64)


def _checked(
    scores: NDArray[np.floating], valid: NDArray[np.bool_], groups: Sequence[Hashable]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    s = np.asarray(scores, dtype=np.float64)
    y = np.asarray(valid, dtype=bool)
    if s.ndim != 1 or s.shape != y.shape or len(groups) != len(s) or len(s) == 0:
        raise ValueError(
            f"expected scores, labels and concepts of one length >= 1, got {s.shape}, "
            f"{y.shape}, ({len(groups)},)"
        )
    if not np.isfinite(s).all():
        raise ValueError("expected finite scores, got NaN or infinity")
    return s, y
