"""The test behind the certificate: growing top parts of a ranking, in an order fixed beforehand.

Takes places of labelled lines in a ranking, and which of them are invalid; gives which cuts pass.
With e invalid among the n labelled lines of the top k, and d = floor((1 - pi) k) + 1, the fewest
invalid lines that make "at least the share pi is valid" false, a cut passes if

    p = P(Hypergeometric(population k, bad d, draws n) <= e) <= level.

The cuts are tested in growing order up to the first failure. Given n, the labelled lines of the top
k are a simple random sample of it, so p is a valid p-value; and as order and start are fixed, to
pass any false cut the procedure must pass the first one, which it does with a chance of at most the
level. The start follows from the *expected* number of labels in a cut, not from the drawn one, and
so is fixed, too. Precision need not fall with the score. Costs about a millisecond a cut.

It does not check where the labels come from, but for `why_not_random`, which refuses samples that
no random draw gives.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from statistics import NormalDist

from symdistill.exact import EXACT_TO, precision_interval

__all__ = [
    "CutTest", "exactly", "fewest_bad", "fix_cuts", "labels_at_start", "least_labels", "p_value",
    "precision_interval", "walk_cuts", "why_not_random",
]  # fmt: skip

CUTS = 100  # sizes to test; 40 certify about 2 % less, more buy nothing
FIRST_SHARE = 0.01  # of the pool: the smallest size
_SURELY = 2.4  # standard deviations by which a number that is drawn is missed in 1 of 100 draws
_NOT_RANDOM = 0.001  # labels are refused that a random draw gives more rarely than this


def exactly(number: float) -> Fraction:
    """0.9 as nine tenths, not as the nearest double."""
    return Fraction(repr(float(number)))


def fewest_bad(size: int, precision: float) -> int:
    """The fewest invalid lines among `size` at which fewer than the share `precision` are valid."""
    return math.floor((1 - exactly(precision)) * size) + 1


def p_value(population: int, bad: int, drawn: int, invalid: int) -> float:
    """P(at most `invalid` bad ones among `drawn` of `population` with `bad` bad ones).

    Exact: whole numbers, rounded once at the end; beyond 5,000 labels by scipy, right to about nine
    digits.
    """
    fewest, most = max(0, drawn - (population - bad)), min(bad, drawn)
    if invalid < fewest:
        return 0.0
    if invalid >= most:
        return 1.0
    if drawn > EXACT_TO:
        from scipy.stats import hypergeom

        return float(hypergeom.cdf(invalid, population, bad, drawn))
    good = population - bad
    ways = total = math.comb(bad, fewest) * math.comb(good, drawn - fewest)
    for x in range(fewest, invalid):
        ways = ways * ((bad - x) * (drawn - x)) // ((x + 1) * (good - drawn + x + 1))
        total += ways
    return total / math.comb(population, drawn)


def least_labels(precision: float, level: float, lines: int | None = None) -> int:
    """The fewest labels, all of them valid, with which `lines` lines pass; fewer prove nothing.

    29 for precision 0.9 at level 0.05, 59 for 0.95; of a small pool fewer do. Without `lines` the
    pool has no end, and the precision is below 1.
    """
    if lines is not None:
        bad = fewest_bad(lines, precision)
        labels = range(lines + 1)
        return labels[bisect_left(labels, True, key=lambda n: p_value(lines, bad, n, 0) <= level)]
    return math.ceil(math.log(level) / math.log(precision))


def labels_at_start(precision: float, level: float, labels: int) -> int:
    """The expected number of labelled lines from which on a cut is worth testing.

    So many that a cut with a third of the permitted invalid lines passes with a chance of 90 %
    (118 for precision 0.9 and level 0.05), but a tenth of all labels at least and a quarter at
    most; and never fewer than it takes for a cut without any invalid line to pass with a chance of
    about 99 %, whose labels are drawn by chance, too. A first test that is too small often ends the
    procedure by bad luck; one that is too large passes over the cuts that could have passed.
    """
    bad = 1 - float(precision)
    if bad <= 0:
        return labels
    z_level, z_chance = -NormalDist().inv_cdf(min(level, 0.5)), NormalDist().inv_cdf(0.9)
    spread = z_level * math.sqrt(bad * (1 - bad)) + z_chance * math.sqrt(bad / 3 * (1 - bad / 3))
    enough = math.ceil((spread / (2 / 3 * bad)) ** 2)
    least = least_labels(precision, level)
    surely = math.ceil(least + _SURELY * math.sqrt(least))
    return max(min(max(enough, labels // 10), labels // 4), surely)


def fix_cuts(
    most: int, first: int, drawn_share: float, precision: float, level: float
) -> tuple[int, ...]:
    """The sizes to be tested, in growing order; they depend on no label and on no draw.

    Args:
        most: the largest top part that anyone would accept, in lines.
        first: the smallest one.
        drawn_share: labels for each line of the top part, 0..1.
        precision, level: what is to be shown, and at which error rate.

    Returns:
        The sizes at which `labels_at_start` labels or more are expected; where that many are
        expected at none, only the largest.
    """
    steps = max(CUTS - 1, 1)
    grid = {round(first + (most - first) * step / steps) for step in range(CUTS)}
    start = labels_at_start(precision, level, round(drawn_share * most))
    return tuple(k for k in sorted(grid) if k >= 1 and k * drawn_share >= start) or (most,)


@dataclass(frozen=True, slots=True)
class CutTest:
    """One cut: what was found in its labelled lines, and how surprising so few invalid ones are."""

    size: int
    labelled: int
    invalid: int
    p: float
    passed: bool


def walk_cuts(
    sizes: Sequence[int], ranks: Sequence[int], bad_ranks: Sequence[int], precision: float,
    level: float,
) -> list[CutTest]:  # fmt: skip
    """Test the cuts in order up to the first failure.

    Args:
        sizes: from `fix_cuts`.
        ranks: places of the labelled lines, from 1, ascending.
        bad_ranks: those of the invalid ones, ascending.
        precision, level: as in `fix_cuts`.
    """
    done: list[CutTest] = []
    for size in sizes:
        labelled, invalid = bisect_right(ranks, size), bisect_right(bad_ranks, size)
        p = p_value(size, fewest_bad(size, precision), labelled, invalid)
        done.append(CutTest(size, labelled, invalid, p, p <= level))
        if not done[-1].passed:
            break
    return done


def why_not_random(ranks: Sequence[int], population: int) -> str | None:
    """Why labelled lines cannot have been drawn at random from a population; None: they can.

    Tests of their places, together at level 0.001: the largest distance between their spread
    and an even one (Massart's bound), the widest gap, and how narrowly all of them, or half of
    them, lie together (exact, summed over all places of a gap or bunch).

    Args:
        ranks: places from 1, ascending, each once.
        population: how many lines they could have been.
    """
    n, level = len(ranks), _NOT_RANDOM / 4
    far = max(
        max(i / n - rank / population, (rank - 1) / population - (i - 1) / n)
        for i, rank in enumerate(ranks, start=1)
    )
    edges = [0, *ranks, population + 1]
    gap, before = max((b - a - 1, a) for a, b in pairwise(edges))
    if (n + 1) * p_value(population, gap, n, 0) < level:
        if before + gap == population:
            return f"none is among the last {gap:,}"
        return f"none is among the {gap:,} lines from place {before + 1:,} on"
    for many, words in ((n - 1, "all"), (n // 2, "half")):
        widths = [b - a for a, b in zip(ranks, ranks[many:], strict=False)]
        narrow = min(widths)
        start = ranks[widths.index(narrow)]
        if len(widths) * p_value(population, population - narrow, n, n - many) < level:
            return f"{words} of them lie within {narrow + 1:,} lines from place {start:,} on"
    if 2 * math.exp(-2 * n * far**2) < level:
        middle = ranks[n // 2]
        return f"half of them are among the best {middle:,}"
    return None
