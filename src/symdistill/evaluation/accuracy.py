"""How many answers are right, and whether one student is better than another: numbers that stand.

Takes for every question whether its answer was right, (N,) or for several seeds (S, N); gives
shares and differences with 95 % intervals, p-values, and what could be seen at all. Costs
milliseconds; for 10,000 answers in 2,000 groups about a second.

What                       How
one share                  Wilson's score interval (1927)
one share, groups          bootstrap over whole groups (`resampling.py`)
two students, one run each Tango's score interval for paired shares (1998), McNemar's exact test
the same, groups           bootstrap over whole groups; exact test that flips the signs of groups
several seeds              t intervals over seeds and items, see `paired_over_seeds`
several arms against one   Holm's adjusted p-values (1979)

Groups are what belongs together: a question and its contrasts, the same question asked twice. An
interval and a test are different procedures: close to 0.05 one may see a difference and the other
not. Then say that it is close.

What it does not do: decide whether an answer is right (the verifiers do), or choose the endpoint.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from symdistill.answers import chance_of
from symdistill.evaluation.metrics import LEVEL, bootstrap_interval, paired_difference
from symdistill.exact import sign_test
from symdistill.records import Item
from symdistill.resampling import group_numbers

Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
_HALVINGS = 60  # of an interval of length 2 at most: below the spacing of floats

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Share:
    """`right` of `n`, as a share with its 95 % interval."""

    n: int
    right: int
    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Paired:
    """Two students on the same questions: the first one's share right less the second one's."""

    n: int
    estimate: float
    low: float
    high: float
    p: float  # two-sided
    wins: int  # only the first was right
    losses: int  # only the second was right
    ties: int


@dataclass(frozen=True, slots=True)
class PairedOverSeeds:
    """Two recipes on the same questions, each trained with several seeds: the mean difference."""

    n: int
    seeds: int
    estimate: float
    low: float
    high: float
    p: float  # two-sided
    per_seed: tuple[float, ...]
    covers: str  # what may differ another time and still lie in the interval


# -- one student --------------------------------------------------------------------------------


def accuracy(correct: Sequence[bool] | Bools, groups: Sequence[Hashable] | None = None) -> Share:
    """The share of right answers with its 95 % interval.

    Args:
        correct: (N,) one or more.
        groups: (N,) what belongs together. Below about 20 groups the interval is too narrow.

    Raises:
        ValueError: there is no answer, or not one group for each.
    """
    right = _bools(correct)
    n, hits = len(right), int(right.sum())
    low, high = wilson(hits, n)
    units = _units(groups, n)
    if units < n:
        assert groups is not None
        low, high = bootstrap_interval(right, groups)
        if low == high:  # all right or all wrong: each group is one answer at least
            low, high = wilson(units * hits // n, units)
    return Share(n, hits, hits / n, low, high)


def wilson(right: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; the whole of 0..1 where n is 0."""
    if not 0 <= right <= n:
        raise ValueError(f"expected 0 <= right <= n; got {right} of {n}")
    if not n:
        return 0.0, 1.0
    centre = (right + Z**2 / 2) / (n + Z**2)
    half = Z / (n + Z**2) * math.sqrt(right * (n - right) / n + Z**2 / 4)
    # The ends are exact at none and at all right, where rounding would leave 1e-17.
    return (centre - half if right else 0.0), (centre + half if right < n else 1.0)


def chance_level(items: Sequence[Item]) -> float:
    """The share of these questions that guessing gets right on average; open ones count 0.

    Times the number of questions it is how many right answers to expect by chance.

    Raises:
        ValueError: there are no questions.
    """
    if not items:
        raise ValueError("expected at least one question; got none")
    return math.fsum(map(chance_of, items)) / len(items)


def contrast_groups(items: Sequence[Item]) -> list[str]:
    """For each question its contrast set: what its field `contrast_of` names, or its own id.

    `contrast_of` names another question's id, or the id that its table gave it (`source_id`).
    """
    named = {str(item.fields["contrast_of"]) for item in items if item.fields.get("contrast_of")}

    def group(item: Item) -> str:
        own = str(item.fields.get("source_id"))
        return str(item.fields.get("contrast_of") or (own if own in named else item.id))

    return [group(item) for item in items]


def consistency(correct: ArrayLike, groups: Sequence[Hashable]) -> Share:
    """The share of groups (of two questions or more) in which every answer is right.

    Args:
        correct: (N,), or (S, N) of several seeds: what they say of a group belongs together.
        groups: (N,) the group of each question.

    Raises:
        ValueError: no group has two questions.
    """
    right = np.atleast_2d(np.asarray(correct, dtype=bool))  # (S, N)
    _units(groups, right.shape[1])
    numbers, _ = group_numbers(groups)
    sizes = np.bincount(numbers)
    if not (sizes > 1).any():
        raise ValueError("expected groups of two questions or more; got single ones only")
    hits = np.array([np.bincount(numbers, one) for one in right])  # (S, G)
    whole = (hits == sizes)[:, sizes > 1]
    return accuracy(whole.ravel(), list(range(whole.shape[1])) * len(right))


# -- two students -------------------------------------------------------------------------------


def paired(
    a: Sequence[bool] | Bools,
    b: Sequence[bool] | Bools,
    groups: Sequence[Hashable] | None = None,
) -> Paired:
    """Accuracy of `a` less accuracy of `b` on the same questions, one run each.

    Args:
        a, b: (N,) whether each answer was right, in one order.
        groups: (N,) what belongs together.

    Raises:
        ValueError: no answers, or lengths that differ.
    """
    one, other = _bools(a), _bools(b)
    if one.shape != other.shape:
        raise ValueError(f"expected the same questions; got {len(one)} and {len(other)} answers")
    n = len(one)
    wins, losses = int((one & ~other).sum()), int((other & ~one).sum())
    low, high = tango(wins, losses, n)
    p = sign_test(wins, losses)
    units = _units(groups, n)
    if units < n:
        assert groups is not None
        drawn = paired_difference(one, other, groups, groups)
        low, high = drawn.low, drawn.high
        if low == high:  # no resample differs: each group is one answer at least
            share = (wins - losses) / n
            low, high = tango(round(max(share, 0) * units), round(max(-share, 0) * units), units)
        numbers, _ = group_numbers(groups)
        p = sign_flip_test(np.bincount(numbers, one.astype(float) - other).astype(int))
    ties = n - wins - losses
    return Paired(n, (wins - losses) / n, low, high, p, wins, losses, ties)


def tango(wins: int, losses: int, n: int) -> tuple[float, float]:
    """Tango's 95 % score interval for the difference of two shares of the same n questions.

    It holds every difference that McNemar's score test would not reject.
    """
    if min(wins, losses) < 0 or wins + losses > n or not n:
        raise ValueError(f"expected wins + losses <= n >= 1; got {wins} + {losses} of {n}")
    return _tango_low(wins, losses, n), -_tango_low(losses, wins, n)


def sign_flip_test(sums: NDArray[np.int_]) -> float:
    """Two-sided chance of a total as far from 0 as this, if each group's sum could as well be its
    negative. Exact; with sums of -1, 0 and 1 it is McNemar's exact test.

    Args:
        sums: (G,) of every group, right answers of one student less those of the other.
    """
    sizes = np.abs(sums[sums != 0])
    reach = int(sizes.sum())
    chance = np.zeros(2 * reach + 1)  # of the totals -reach .. reach
    chance[reach] = 1
    for size in sizes:
        chance = (np.roll(chance, size) + np.roll(chance, -size)) / 2
    far = np.abs(np.arange(-reach, reach + 1)) >= abs(int(sums.sum()))
    return min(1.0, float(chance[far].sum()))


def paired_over_seeds(
    a: ArrayLike, b: ArrayLike, groups: Sequence[Hashable] | None = None
) -> PairedOverSeeds:
    """Mean accuracy of `a` less that of `b`: the same questions, each recipe run with S seeds.

    Two things differ another time: the questions and the seeds. The variance of the mean is at
    most that of its means per question over N plus that of its means per seed over S; their sum
    has the degrees of freedom of Satterthwaite (1946). Where seeds matter most that is too few of
    them for his approximation, so that the interval over seeds alone (t, S - 1 degrees) is taken
    where it is wider. The bootstrap over three seeds, which is in use, is too narrow by far.

    With one seed nothing is known of the seeds: see `covers`.

    Args:
        a, b: (S, N) whether each answer was right. Row s of both may share a seed or not.
        groups: (N,) what belongs together.

    Raises:
        ValueError: shapes that differ, or that are empty.
    """
    one, other = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if one.shape != other.shape or one.ndim != 2 or not one.size:
        raise ValueError(
            f"expected answers of two recipes, both (seeds, questions); got {one.shape} and "
            f"{other.shape}"
        )
    difference = one - other  # (S, N)
    seeds, n = difference.shape
    per_seed = difference.mean(axis=1)  # (S,)
    if seeds == 1:
        single = paired(one[0] > 0, other[0] > 0, groups)
        return PairedOverSeeds(
            n, 1, single.estimate, single.low, single.high, single.p, (single.estimate,),
            "other questions; not other seeds",
        )  # fmt: skip
    estimate = float(difference.mean())
    of_items, units = _variance_over_items(difference.mean(axis=0), groups)
    of_seeds = float(per_seed.var(ddof=1)) / seeds
    both = of_items + of_seeds
    freedom = both**2 / (of_items**2 / max(units - 1, 1) + of_seeds**2 / (seeds - 1))

    from scipy.stats import t

    half, p = 0.0, 0.0
    for variance, degrees in ((both, freedom), (of_seeds, seeds - 1)):
        error = math.sqrt(variance)
        half = max(half, float(t.ppf(0.5 + LEVEL / 2, degrees)) * error)
        if error:
            p = max(p, 2 * float(t.sf(abs(estimate) / error, degrees)))
    return PairedOverSeeds(
        n, seeds, estimate, max(estimate - half, -1.0), min(estimate + half, 1.0), p,
        tuple(map(float, per_seed)), "other questions and other seeds",
    )  # fmt: skip


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values of several comparisons, in the order given.

    Calling a difference real where the adjusted value is at most 0.05 calls any false one real in
    at most 5 % of such families of comparisons, however they depend on each other.
    """
    adjusted: dict[str, float] = {}
    so_far = 0.0
    for place, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        so_far = max(so_far, min(1.0, (len(p_values) - place) * p_values[name]))
        adjusted[name] = so_far
    return {name: adjusted[name] for name in p_values}


# -- before the run -----------------------------------------------------------------------------


def minimum_detectable_effect(
    n: int,
    *,
    baseline: float,
    discordant: float | None = None,
    power: float = 0.8,
    level: float = 0.05,
) -> float:
    """The smallest gain over a baseline that McNemar's exact test sees with this chance.

    Args:
        n: questions, the same for both students.
        baseline: the accuracy expected of the weaker student, 0..1.
        discordant: the share of questions that exactly one of the two gets right, if it can be
            guessed; it is never below the gain itself. None: as large as if their answers had
            nothing to do with each other, which is also what two sets of n different questions
            would need. Students that share a base model differ less, so this is an upper bound.
        power: the chance of seeing it.
        level: of the test.

    Returns:
        0..1; inf where no gain that is possible would be seen. For one run of each; how much
        seeds add is not known before the run.
    """
    if n < 1 or not 0 <= baseline <= 1 or not 0 < power < 1 or not 0 < level < 1:
        raise ValueError(
            "expected n >= 1, a baseline in 0..1, power and level between 0 and 1; got "
            f"{n}, {baseline}, {power}, {level}"
        )

    def seen(gain: float) -> bool:
        unrelated = baseline + (baseline + gain) * (1 - 2 * baseline)
        differ = unrelated if discordant is None else discordant
        return mcnemar_power(n, gain, max(differ, gain), level) >= power

    unseen, enough = 0.0, 1 - baseline
    if not seen(enough):
        return math.inf
    while enough - unseen > 1e-5:
        middle = (unseen + enough) / 2
        unseen, enough = (unseen, middle) if seen(middle) else (middle, enough)
    return enough


def mcnemar_power(n: int, gain: float, discordant: float, level: float = 0.05) -> float:
    """The chance that McNemar's exact test sees a gain, summed over all that can come out.

    Args:
        n: questions.
        gain: the share only the better student gets right less the share only the other does.
        discordant: the two shares together, `gain` at least.
    """
    from scipy.stats import binom

    if not discordant:
        return 0.0
    first, last = binom.ppf([1e-12, 1 - 1e-12], n, discordant)
    decided = np.arange(first, last + 1)
    few = binom.ppf(level / 2, decided, 0.5)
    few -= binom.cdf(few, decided, 0.5) > level / 2  # the most wins that are too few; -1: none are
    win = min((1 + gain / discordant) / 2, 1.0)
    seen = binom.cdf(few, decided, win) + binom.sf(decided - few - 1, decided, win)
    return float((binom.pmf(decided, n, discordant) * seen).sum())


def effect_words(n: int, effect: float, power: float = 0.8) -> str:
    """The minimum detectable effect as a sentence for the console."""
    if math.isinf(effect):
        return f"with {n:,} questions no possible gain would be seen in {power:.0%} of runs"
    return (
        f"with {n:,} questions a difference of {effect:.3f} would be seen (p < 0.05) in "
        f"{power:.0%} of runs; a smaller one may well not be"
    )


# -- parts --------------------------------------------------------------------------------------


def _bools(values: Sequence[bool] | Bools) -> Bools:
    right = np.asarray(values, dtype=bool)
    if right.ndim != 1 or not len(right):
        raise ValueError(f"expected at least one answer, in one row; got shape {right.shape}")
    return right


def _units(groups: Sequence[Hashable] | None, n: int) -> int:
    """How many groups there are; n where every answer stands alone."""
    if groups is None:
        return n
    if len(groups) != n:
        raise ValueError(f"expected one group for each of {n} answers; got {len(groups)}")
    return len(set(groups))


def _tango_low(wins: int, losses: int, n: int) -> float:
    estimate = (wins - losses) / n
    low, high = -1.0, estimate
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _tango_z(middle, wins, losses, n) > Z else (low, middle)
    return low


def _tango_z(delta: float, wins: int, losses: int, n: int) -> float:
    """How far the counts are from a true difference `delta`, in standard errors."""
    b = (2 * n - wins + losses) * delta - wins - losses
    root = math.sqrt(max(b * b + 8 * n * losses * delta * (1 - delta), 0.0))
    lost = (root - b) / (4 * n)  # the likeliest share of losses under `delta`
    variance = n * (2 * lost + delta * (1 - delta))
    distance = wins - losses - n * delta
    return distance / math.sqrt(variance) if variance > 0 else math.inf * distance


def _variance_over_items(means: Floats, groups: Sequence[Hashable] | None) -> tuple[float, int]:
    """The variance of the mean of `means` (N,) where groups (or items) are drawn; their number.

    Never below what Z**2 answers that differ would give, which is Tango's interval where none do:
    that two students never differed on n questions does not mean that they never will.
    """
    units = _units(groups, len(means))
    numbers = np.arange(len(means)) if groups is None else group_numbers(groups)[0]
    off = np.bincount(numbers, means - means.mean())  # (G,)
    spread = float((off**2).sum()) * units / max(units - 1, 1)
    return max(spread / len(means) ** 2, (Z / units) ** 2), units
