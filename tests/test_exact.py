"""Exact intervals and tests, against their definitions by enumeration."""

from __future__ import annotations

import time
from fractions import Fraction
from itertools import product
from math import comb

import pytest

from symdistill import exact
from symdistill.exact import precision_interval, share_interval, sign_test

pytestmark = pytest.mark.unit


def chance(population: int, valid: int, drawn: int, found: int) -> Fraction:
    """Of `found` valid lines among those drawn."""
    ways = comb(valid, found) * comb(population - valid, drawn - found)
    return Fraction(ways, comb(population, drawn))


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95, 0.99])
def test_it_covers_every_truth_at_its_level(level: float) -> None:
    """All outcomes of all draws from all small populations."""
    for population in range(1, 19):
        for drawn in range(population + 1):
            ends = [precision_interval(population, drawn, drawn - k, level)
                    for k in range(drawn + 1)]  # fmt: skip
            for valid in range(population + 1):
                held = sum(
                    (chance(population, valid, drawn, k)
                     for k, (low, high) in enumerate(ends) if low <= valid / population <= high),
                    Fraction(0),
                )  # fmt: skip
                assert held >= Fraction(str(level)), (population, drawn, valid)


def test_it_is_the_inverted_test() -> None:
    """Brute force over every count that there may have been."""
    population, drawn = 30, 11
    for found in range(drawn + 1):
        plausible = [
            valid / population
            for valid in range(population + 1)
            if sum(chance(population, valid, drawn, k) for k in range(found, drawn + 1))
            > Fraction(1, 40)
            and sum(chance(population, valid, drawn, k) for k in range(found + 1)) > Fraction(1, 40)
        ]
        assert precision_interval(population, drawn, drawn - found) == (
            min(plausible),
            max(plausible),
        )


def test_a_whole_population_is_known_and_no_draw_says_nothing() -> None:
    assert precision_interval(7, 7, 2) == (5 / 7, 5 / 7)
    assert precision_interval(7, 0, 0) == (0, 1)


def test_it_does_not_wait_for_large_populations() -> None:
    start = time.perf_counter()
    low, high = precision_interval(100_000, 1_000, 100)
    assert time.perf_counter() - start < 1
    assert low < 0.9 < high and high - low < 0.04


def test_large_draws_are_the_same_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """By scipy as in whole numbers, and in time."""
    start = time.perf_counter()
    low, high = precision_interval(100_000, 20_000, 1_500)
    assert time.perf_counter() - start < 2
    assert low < 0.925 < high and high - low < 0.008
    whole = [precision_interval(400, 50, invalid, 0.9) for invalid in range(51)]
    monkeypatch.setattr(exact, "EXACT_TO", 0)
    assert [precision_interval(400, 50, invalid, 0.9) for invalid in range(51)] == whole


@pytest.mark.parametrize("counts", [(0, 0, 0), (5, 6, 0), (5, 3, 4), (5, 3, -1)])
def test_counts_that_cannot_be_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="expected 0 <= invalid_drawn"):
        precision_interval(*counts)


@pytest.mark.parametrize("level", [0.0, 1.0, 1.5, float("nan")])
def test_a_level_is_a_chance(level: float) -> None:
    with pytest.raises(ValueError, match="level between 0 and 1"):
        precision_interval(9, 3, 1, level)
    with pytest.raises(ValueError, match="level between 0 and 1"):
        share_interval(3, 1, level)


def test_the_sign_test_counts_the_outcomes_that_are_as_uneven() -> None:
    for one, other in product(range(8), range(8)):
        n = one + other
        uneven = sum(comb(n, k) for k in range(n + 1) if abs(2 * k - n) >= abs(one - other))
        assert sign_test(one, other) == pytest.approx(uneven / 2**n)


def test_a_share_is_inside_its_interval_and_agrees_with_the_sign_test() -> None:
    for n in range(41):
        for found in range(n + 1):
            low, high = share_interval(n, found)
            assert low <= (found / n if n else 0.5) <= high
            assert (low > 0.5 or high < 0.5) == (sign_test(found, n - found) <= 0.05)


@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 0.87, 1.0])
def test_the_interval_of_a_share_covers_it(share: float) -> None:
    for n in (1, 7, 40):
        held = 0.0
        for found in range(n + 1):
            low, high = share_interval(n, found)
            if low <= share <= high:
                held += comb(n, found) * share**found * (1 - share) ** (n - found)
        assert held >= 0.95


def test_the_ends_of_a_share_are_those_of_clopper_and_pearson() -> None:
    scipy = pytest.importorskip("scipy.stats")
    for n, found in ((60, 41), (1000, 600), (3, 0), (5, 5)):
        known = scipy.binomtest(found, n).proportion_ci()
        assert share_interval(n, found) == pytest.approx((known.low, known.high), abs=1e-8)
