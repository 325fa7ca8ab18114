"""What more labels would buy: AUC against the number of labels, carried a little further.

Takes the scores that critics fitted on parts of the labels gave the same test lines; gives the
AUCs, a power law through them, and what so many more labels should add, with an interval.

    AUC(n) = ceiling - loss * n ** -exponent,    ceiling <= 1

Parts are of whole groups, several drawn of each size, so the points show how much luck there is in
what was labelled. The interval comes from a bootstrap over both: test lines by group, and parts of
each size. It says nothing of labels unlike those there are, and looks no further than to twice as
many. Where the points do not say enough, the answer is "cannot tell". Costs a fit for each part
(3.6 times one fit on all labels, with the default sizes) and seconds for the interval.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from symdistill.resampling import cluster_resamples, group_numbers

SHARES = (0.125, 0.25, 0.5, 1.0)
DRAWS = 3  # of each size but the whole
EXPONENTS = np.arange(0.1, 1.55, 0.1)
SEEN = 0.01  # an AUC that cannot differ by more than this is called the same
WIDE = 0.05  # an interval wider than this tells nothing worth planning by


class Part(NamedTuple):
    """Labelled lines to fit one critic of the curve on."""

    draw: int
    rows: NDArray[np.intp]


class Point(NamedTuple):
    """What the critic fitted on a part said of the test lines."""

    labels: int
    scores: NDArray[np.float64]  # (N,)


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """AUC (0..1) by number of labels, and what `more` labels should add to it."""

    labels: tuple[int, ...]
    auc: tuple[float, ...]  # of each point, in the order of `labels`
    more: int
    gain: float
    low: float  # 95 % interval of the gain
    high: float

    @property
    def verdict(self) -> str:
        """`gain`, `little` (no more than 0.01 either way), or `cannot tell`."""
        if not np.isfinite([self.low, self.high]).all():
            return "cannot tell"
        if self.low > 0 and self.high - self.low <= WIDE:
            return "gain"
        return "little" if self.high <= SEEN and self.low >= -SEEN else "cannot tell"

    @property
    def sentence(self) -> str:
        """What more labels would buy, in one sentence."""
        ends = f"{self.low:+.3f} to {self.high:+.3f}"
        if self.verdict == "gain":
            return f"{self.more:,} more labels would add about {self.gain:.3f} AUC ({ends})."
        if self.verdict == "little":
            return f"{self.more:,} more labels would change the AUC by little ({ends})."
        if not np.isfinite([self.low, self.high]).all():
            return "What more labels would buy cannot be told from so few."
        return (
            f"What {self.more:,} more labels would buy cannot be told: anything from {ends} AUC "
            "fits what was measured."
        )


def parts(valid: NDArray[np.bool_], groups: Sequence[Hashable], seed: int = 0) -> list[Part]:
    """Parts of the labelled lines, of whole groups: an eighth, a quarter, a half, and all.

    The parts of one draw lie in each other. A part without five lines of each kind is left out.
    """
    numbers, names = group_numbers(groups)
    found = []
    for share in SHARES:
        for draw in range(DRAWS if share < 1 else 1):
            order = np.random.default_rng([seed, draw]).permutation(len(names))
            place = np.empty(len(names), dtype=np.intp)
            place[order] = np.arange(len(names))
            sizes = np.bincount(numbers, minlength=len(names))[order]
            taken = int(np.searchsorted(np.cumsum(sizes), share * len(numbers))) + 1
            rows = np.flatnonzero(place[numbers] < taken)
            if min(valid[rows].sum(), (~valid[rows]).sum()) >= 5:
                found.append(Part(draw, rows))
    return found


def learning_curve(
    points: Sequence[Point],
    valid: NDArray[np.bool_],
    groups: Sequence[Hashable],
    *,
    more: int = 200,
    n_bootstrap: int = 400,
    seed: int = 0,
) -> LearningCurve:
    """The curve through the points, and what `more` labels should add.

    Args:
        points: one for each part; the parts of one size need not have quite the same number of
            lines.
        valid, groups: (N,) of the test lines.
        more: labels to add to the largest part; no more than it has are looked ahead.
        n_bootstrap, seed: for the interval.
    """
    points = sorted(points, key=lambda point: point.labels)
    labels = np.array([point.labels for point in points], dtype=float)
    auc = np.array([_auc(point.scores, valid) for point in points])
    told = LearningCurve(
        tuple(int(n) for n in labels), tuple(auc.tolist()), more, *[float("nan")] * 3
    )
    if not len(points) or len(sizes := _sizes(labels)) < 3 or not np.isfinite(auc).all():
        return told
    more = min(more, int(labels[-1]))
    rng = np.random.default_rng(seed)
    drawn = []
    for rows in cluster_resamples(groups, n_bootstrap, seed):
        again = np.array([_auc(point.scores[rows], valid[rows]) for point in points])
        if np.isfinite(again).all():
            # The whole is one part, and has the luck of its labels too: that of the other sizes.
            luck = np.concatenate([again[of] - again[of].mean() for of in sizes])
            luck = luck[: len(luck) - len(sizes[-1])] * np.sqrt(DRAWS / (DRAWS - 1))
            drawn.append([again[of].mean() + rng.choice(luck, len(of)).mean() for of in sizes])
    if not drawn:
        return told
    n = np.array([labels[of].mean() for of in sizes])
    means = np.array([[auc[of].mean() for of in sizes]])
    gain = float(_gains(n, means, more)[0])
    low, high = np.quantile(_gains(n, np.array(drawn), more), [0.025, 0.975])
    return LearningCurve(
        told.labels, told.auc, more, gain, float(min(low, gain)), float(max(high, gain))
    )


def _gains(n: NDArray[np.float64], auc: NDArray[np.float64], more: int) -> NDArray[np.float64]:
    """What `more` labels add to the last of the sizes n (S,), for each row of AUCs (B, S)."""
    best = np.full(len(auc), np.inf)
    gains = np.zeros(len(auc))
    weight = np.sqrt(n / n.sum())  # larger parts differ less from one another
    for exponent in EXPONENTS:
        x = n**-exponent
        design = np.stack([np.ones_like(x), -x], axis=1) * weight[:, None]
        ceiling, loss = np.linalg.pinv(design) @ (auc * weight).T  # (B,) each
        bounded = ((1 - auc) * x * weight**2).sum(1) / (x * x * weight**2).sum()
        loss = np.where(ceiling > 1, bounded, loss)
        ceiling = np.minimum(ceiling, 1.0)
        error = (((ceiling[:, None] - loss[:, None] * x - auc) * weight) ** 2).sum(1)
        gain = loss * (x[-1] - (n[-1] + more) ** -exponent)
        better = error < best
        best, gains = np.where(better, error, best), np.where(better, gain, gains)
    return gains


def _sizes(labels: NDArray[np.float64]) -> list[NDArray[np.intp]]:
    """The points of each size: those whose numbers of labels differ by less than a quarter."""
    starts = np.flatnonzero(np.append(True, labels[1:] > 1.25 * labels[:-1]))
    return np.split(np.arange(len(labels)), starts[1:])


def _auc(scores: NDArray[np.float64], valid: NDArray[np.bool_]) -> float:
    from scipy.stats import rankdata

    n_valid = int(valid.sum())
    n_invalid = len(valid) - n_valid
    if not n_valid or not n_invalid:
        return float("nan")
    ranks = rankdata(scores)[valid].sum()
    return float((ranks - n_valid * (n_valid + 1) / 2) / (n_valid * n_invalid))
