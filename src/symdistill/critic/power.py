"""How many labels a certificate needs, and how much it would keep: known before anyone labels.

Takes the size of a pool and a guess at its critic (an AUC and a share valid, or the scores of some
labelled lines); gives, by simulation of the very procedure that certifies, the chance of a
certificate and the share of the pool it would keep, for growing numbers of labels. Costs about a
second, whatever the size of the pool: only counts between neighbouring cuts are drawn.

A guess in, a guess out: that the scores of valid and invalid lines are two normal distributions
(or, from a pilot, that log odds grow evenly with the normal quantile of a line's place) is assumed
here and nowhere else. The certificate itself assumes nothing of it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from symdistill.critic.certificate import FEWEST_LABELS, top_lines
from symdistill.critic.fixed_sequence import FIRST_SHARE, fewest_bad, fix_cuts, least_labels
from symdistill.errors import InputError

CHANCE = 0.8  # of a certificate: the number of labels is called enough from here on
WEAK = 0.05  # share of the pool: a best part below it is hardly worth labelling for
_LABELS = (50, 75, 100, 150, 200, 250, 300, 400, 500, 600, 800, 1000, 1250, 1500, 2000, 2500, 3000,
           4000, 5000, 6000, 8000, 10_000, 15_000, 20_000, 30_000, 50_000)  # fmt: skip
_MOST = 5000  # labels for one statement: nobody labels more
LADDER = (100, 200, 400, 800)  # labels for one statement: what more of them buy

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Curve:
    """How many lines of the best share u of a pool are valid, as a share of the whole pool."""

    share: NDArray[np.float64]  # (G,) u, from 0 to 1
    valid: NDArray[np.float64]  # (G,) valid lines among the best u; from 0

    @property
    def valid_share(self) -> float:
        """The share valid of the whole pool."""
        return float(self.valid[-1])

    @property
    def auc(self) -> float:
        """The chance that a valid line is above an invalid one."""
        invalid = self.share - self.valid
        area = float(np.trapezoid(self.valid, invalid))
        whole = float(self.valid[-1] * invalid[-1])
        return area / whole if whole > 0 else math.nan

    def best_share(self, precision: float) -> float:
        """The largest best share of which at least `precision` are valid; 0: there is none."""
        good = np.flatnonzero(self.valid >= precision * self.share)
        return float(self.share[good[-1]])


def binormal(auc: float, valid_share: float) -> Curve:
    """The curve of scores that are normal with one variance, apart by what makes this AUC.

    Raises:
        InputError: an AUC outside 0.5..0.9999, or a share outside 0..1.
    """
    from scipy.stats import norm

    if not 0.5 <= auc <= 0.9999:
        raise InputError(f"expected an AUC from 0.5 to 0.9999; got {auc:g}")
    if not 0 < valid_share < 1:
        raise InputError(f"expected a share valid between 0 and 1; got {valid_share:g}")
    apart = math.sqrt(2) * norm.ppf(auc)
    cut = np.linspace(apart + 6, -6, 4001)
    valid = valid_share * norm.cdf(apart - cut)
    share = valid + (1 - valid_share) * norm.cdf(-cut)
    ends = np.array([0.0]), np.array([1.0])
    return Curve(
        np.concatenate([ends[0], share, ends[1]]),
        np.concatenate([ends[0], valid, np.array([valid_share])]),
    )


def from_pilot(places: Sequence[int], valid: Sequence[bool], lines: int) -> Curve:
    """The curve that some labelled lines suggest: rough below a hundred of them.

    Args:
        places: of the labelled lines in the pool, from 1.
        valid: their labels, "unsure" as False.
        lines: of the pool.

    Raises:
        InputError: fewer than 10 labels, or labels of one class only.
    """
    from scipy.special import ndtri

    from symdistill.critic.calibration import fit_platt

    y = np.asarray(valid, dtype=bool)
    if len(y) < FEWEST_LABELS or y.all() or not y.any():
        raise InputError(
            f"expected at least {FEWEST_LABELS} pilot labels, valid and invalid ones; got "
            f"{int(y.sum())} valid and {int((~y).sum())} invalid; label more, or give --auc and "
            "--valid-share"
        )
    place = (np.asarray(places) - 0.5) / lines
    odds = fit_platt(-ndtri(place), y)
    edges = np.linspace(0, 1, 2001)
    chance = odds(-ndtri((edges[1:] + edges[:-1]) / 2))
    return Curve(edges, np.concatenate([[0.0], np.cumsum(chance) / len(chance)]))


def pilot_auc(places: Sequence[int], valid: Sequence[bool]) -> tuple[float, bool]:
    """The AUC of labelled lines as it is, and whether the score surely runs the other way.

    Args:
        places: in the ranking, best first.
        valid: their labels, both kinds among them.

    Returns:
        The share of pairs in which the valid line is above the invalid one, and whether that is
        more than two standard errors of a score without any meaning below one half.
    """
    good = np.sort(np.array([place for place, word in zip(places, valid, strict=True) if word]))
    bad = np.array([place for place, word in zip(places, valid, strict=True) if not word])
    auc = float(np.searchsorted(good, bad).mean() / len(good))
    spread = math.sqrt((len(good) + len(bad) + 1) / (12 * len(good) * len(bad)))
    return auc, auc < 0.5 - 2 * spread


@dataclass(frozen=True, slots=True)
class Simulated:
    """What would come of a number of labels, on average. Of groups: what would come of one."""

    labels: int  # of all groups
    max_share: float
    chance: float  # of a certificate, 0..1
    kept: float  # share of the lines, 0 where there is no certificate
    best: float  # share of the lines that the best cut in hindsight keeps
    wrong: float  # of the runs whose certificate is false


@dataclass(frozen=True, slots=True)
class Plan:
    """What a certificate would take."""

    lines: int
    precision: float
    delta: float
    max_share: float
    needed: Simulated | None  # the fewest labels with a chance of 80 %; None: none, or not sought
    asked: Simulated | None  # the number of labels that was asked about
    ladder: tuple[Simulated, ...]  # 100 to 800 labels, as far as there are so many lines
    best_share: float  # of the pool, were every label known
    auc: float
    valid_share: float
    advice: str  # in words, whether it is worth it


def plan(
    lines: int,
    precision: float,
    curve: Curve,
    *,
    max_share: float | None = None,
    labels: int | None = None,
    delta: float = 0.05,
    looks: int = 1,
    statements: int = 1,
    part: float = 1.0,
    ladder: bool = False,
    seek: bool = True,
    runs: int = 400,
    seed: int = 0,
) -> Plan:
    """How many labels give an 80 % chance of a certificate, and how much would be kept.

    Several looks are planned as one at delta / looks, which is a little cautious.

    Args:
        lines: of the pool.
        precision: what is to be certified.
        curve: the guess at the critic: `binormal` or `from_pilot`.
        max_share: the largest share anyone would accept; None: a tenth more than the best share
            that the curve promises, rounded up to 5 %. Labels drawn from much more are wasted.
        labels: a number to ask about.
        delta: of the whole procedure.
        looks, statements: among which it is split.
        part: the share of the lines that a statement is about, above 0, at most 1: a group, which
            gets this share of the labels. Chances and what is kept are those of one group.
        ladder: try some numbers of labels, to show what more of them buy.
        seek: look for the fewest labels that give an 80 % chance.
        runs: simulations for each number of labels.
    """
    best = curve.best_share(precision)
    if max_share is None:
        max_share = min(1.0, max(0.05, math.ceil(22 * best) / 20))
    level = delta / (looks * statements)
    top = top_lines(lines, max_share)
    fewest = fewest_labels(lines, precision, level, max_share, part)
    most = [one for one in (*_LABELS, top) if fewest <= one <= top and one * part <= _MOST]
    most = sorted(set(most) | ({fewest} if fewest <= top else set()))
    tried: dict[int, Simulated] = {}

    def try_(number: int) -> Simulated:
        if number not in tried:
            mine = max(round(lines * part), 1)
            drawn = min(max(round(number * part), 1), top_lines(mine, max_share))
            one = simulate(curve, mine, drawn, precision, level, max_share, runs, seed)
            tried[number] = replace(one, labels=number)
        return tried[number]

    needed = None
    if seek:  # the chance grows with the labels, so halving finds the first that are enough
        place = bisect_left(most, True, key=lambda one: try_(one).chance >= CHANCE)
        needed = try_(most[place]) if place < len(most) else None
    asked = None if labels is None else try_(min(labels, top))
    steps = [round(one / part) for one in LADDER if ladder]
    told = tuple(try_(one) for one in steps if fewest <= one <= top)
    if most:
        advice = _advice(precision, curve, best, needed, most[-1]) if seek else ""
    else:
        advice = (
            f"A certificate takes at least {fewest:,} labels, were all of them valid; the best "
            f"{max_share:.0%} are {top:,} lines: too few. Add lines, take a larger --max-share, or "
            "lower the precision."
        )
    return Plan(lines, precision, delta, max_share, needed, asked, told, best, curve.auc,
                curve.valid_share, advice)  # fmt: skip


def fewest_labels(
    lines: int, precision: float, level: float, max_share: float, part: float = 1.0
) -> int:
    """Fewer than these prove nothing, were all of them valid; of groups, in all."""
    top = top_lines(max(round(lines * part), 1), max_share)
    return max(FEWEST_LABELS, math.ceil(least_labels(precision, level, top) / part - 1e-9))


def _advice(
    precision: float, curve: Curve, best: float, needed: Simulated | None, most: int
) -> str:
    if best < WEAK:
        return (
            f"A critic of AUC {curve.auc:.2f} buys little here: even with every label known, the "
            f"largest top part with {precision:.0%} valid lines is {best:.1%} of the pool. Train a "
            "better critic or lower the precision before anyone labels."
        )
    if needed is None:
        return (
            f"Not even {most:,} labels give an 80 % chance of a certificate; train a better critic "
            "or lower the precision before anyone labels."
        )
    if needed.kept < best / 2:
        return (
            f"So few labels keep less than half of what could be kept ({best:.0%} of the pool); "
            "more labels keep more."
        )
    return ""


def simulate(
    curve: Curve,
    lines: int,
    labels: int,
    precision: float,
    level: float,
    max_share: float,
    runs: int = 400,
    seed: int = 0,
) -> Simulated:
    """The procedure on pools drawn from the curve, `runs` times."""
    rng = np.random.default_rng(seed)
    sizes = all_sizes(lines, top_lines(lines, max_share), labels, precision, level)
    edges = np.concatenate([[0], sizes])
    between = np.diff(edges)
    share = np.diff(np.interp(edges / lines, curve.share, curve.valid)) * lines / between
    valid = rng.binomial(between, np.clip(share, 0, 1), size=(runs, len(between)))
    labelled, invalid = draw_labels(rng, between - valid, between, labels)
    last = certified_cut(sizes, labelled, invalid, precision, level)
    true = np.cumsum(between - valid, axis=1) < [fewest_bad(int(k), precision) for k in sizes]
    best = np.where(true, sizes, 0).max(axis=1)
    kept = np.where(last >= 0, sizes[last], 0)
    wrong = (last >= 0) & ~true[np.arange(runs), last]
    return Simulated(labels, max_share, float((last >= 0).mean()), float(kept.mean() / lines),
                     float(best.mean() / lines), float(wrong.mean()))  # fmt: skip


# ---------------------------------------------------------------- the procedure, many pools at once


def all_sizes(lines: int, top: int, labels: int, precision: float, level: float) -> IntArray:
    """The sizes that `certify` would test on a pool of `lines`, as an array (J,)."""
    first = min(top, math.ceil(FIRST_SHARE * lines))
    return np.array(fix_cuts(top, first, labels / top, precision, level), dtype=np.int64)


def draw_labels(
    rng: np.random.Generator, bad: IntArray, between: IntArray, labels: int
) -> tuple[IntArray, IntArray]:
    """Simple random samples of pools: labelled and invalid lines up to each cut.

    Args:
        bad: (R, J) invalid lines between neighbouring cuts.
        between: (J,) lines between neighbouring cuts; their sum is the part drawn from.
        labels: how many lines are drawn.

    Returns:
        Labelled and invalid labelled lines up to each cut, (R, J) each.
    """
    drawn = rng.multivariate_hypergeometric(between, labels, size=len(bad), method="marginals")
    found = rng.hypergeometric(bad, between - bad, drawn)
    return np.cumsum(drawn, axis=1), np.cumsum(found, axis=1)


def certified_cut(
    sizes: IntArray, labelled: IntArray, invalid: IntArray, precision: float, level: float
) -> IntArray:
    """Which cut is certified in each of R samples, (R,); -1: none.

    Args:
        sizes: (J,) in growing order.
        labelled, invalid: (R, J) labelled lines up to each cut, and the invalid ones among them.
    """
    allowed = allowed_invalid(sizes, precision, level, int(labelled.max()))
    passed = invalid <= allowed[np.arange(len(sizes)), labelled]
    return np.asarray(np.logical_and.accumulate(passed, axis=1).sum(axis=1) - 1)


def allowed_invalid(
    sizes: Sequence[int] | IntArray, precision: float, level: float, most: int
) -> IntArray:
    """The most invalid lines with which a cut passes, for every number of labelled ones.

    One more drawn line makes at most c invalid ones less likely by P(exactly c) times the chance
    that this line is invalid; so the largest c with P(at most c) <= level is carried from one
    number of labels to the next, for all cuts at once.

    Args:
        sizes: (J,) lines up to each cut.
        precision, level: of the test.
        most: the largest number of labelled lines.

    Returns:
        (J, most + 1); -1: no number is small enough.
    """
    from scipy.special import gammaln

    k = np.asarray(sizes, dtype=np.int64)
    d = np.array([fewest_bad(int(size), precision) for size in k])
    logs = gammaln(np.arange(int(k.max()) + 1) + 1.0)  # of factorials

    def ways(of: IntArray, take: IntArray) -> NDArray[np.float64]:
        inside = (take >= 0) & (take <= of)
        take = np.where(inside, take, 0)
        return np.where(inside, logs[of] - logs[take] - logs[of - take], -np.inf)

    def chance(c: IntArray, n: IntArray) -> NDArray[np.float64]:
        return np.asarray(np.exp(ways(d, c) + ways(k - d, n - c) - ways(k, n)))

    table = np.full((len(k), most + 1), -1)
    c = np.full(len(k), -1)
    at_most = np.zeros(len(k))
    for labels in range(1, most + 1):
        n = np.minimum(labels, k)  # beyond its size a cut is wholly labelled
        grows = labels <= k
        risk = np.where(grows, (d - c) / np.maximum(k - n + 1, 1), 0.0)
        at_most = np.maximum(at_most - chance(c, n - grows) * risk, 0.0)
        while True:
            more = chance(c + 1, n)
            passes = at_most + more <= level
            if not passes.any():
                break
            at_most = np.where(passes, at_most + more, at_most)
            c = c + passes
        table[:, labels] = c
    return table
