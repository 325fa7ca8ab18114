"""Intervals and tests against their definitions, by enumeration."""

import doctest
import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symdistill.answers import AnswerKind
from symdistill.evaluation.accuracy import (
    Z,
    accuracy,
    chance_level,
    consistency,
    contrast_groups,
    effect_words,
    holm,
    mcnemar_power,
    minimum_detectable_effect,
    paired,
    paired_over_seeds,
    sign_flip_test,
    tango,
    wilson,
)
from symdistill.exact import sign_test
from symdistill.records import Item

pytestmark = pytest.mark.unit

SMALL = settings(max_examples=40)


def question(text: str, kind: AnswerKind, **fields: object) -> Item:
    return Item.make("question", text, gold="A", fields={"answer_kind": kind, **fields})


# -- one student --------------------------------------------------------------------------------


@SMALL
@given(st.integers(1, 300), st.data())
def test_wilson_is_where_the_score_test_stops_rejecting(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    low, high = wilson(right, n)
    assert 0 <= low <= right / n <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            error = math.sqrt(end * (1 - end) / n)
            assert abs(right / n - end) / error == pytest.approx(Z)
    from scipy.stats import binomtest

    theirs = binomtest(right, n).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((theirs.low, theirs.high))


def test_wilson_at_its_ends() -> None:
    assert wilson(0, 20)[0] == 0.0
    assert wilson(20, 20)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="got 3 of 2"):
        wilson(3, 2)


def test_accuracy_counts_and_groups_widen_it() -> None:
    right = [i % 4 != 0 for i in range(120)]
    alone = accuracy(right)
    assert (alone.n, alone.right, alone.share) == (120, 90, 0.75)
    assert (alone.low, alone.high) == wilson(90, 120)
    assert accuracy(right, range(120)) == alone  # groups of one change nothing

    copied = accuracy(np.repeat(right, 5), np.repeat(np.arange(120), 5).tolist())
    assert copied.share == 0.75
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_accuracy_of_groups_that_are_all_right_still_has_an_interval() -> None:
    all_right = accuracy([True] * 60, [i // 3 for i in range(60)])
    assert (all_right.low, all_right.high) == wilson(20, 20)


@pytest.mark.parametrize("groups", [None, ["a"], ["a", "b", "c"]])
def test_accuracy_refuses_what_does_not_fit(groups: list[str] | None) -> None:
    with pytest.raises(ValueError, match="expected"):
        accuracy([] if groups is None else [True, False], groups)


def test_chance_level() -> None:
    items = [
        question("q1", "choice", choices=["a", "b", "c", "d"]),
        question("q2", "yes_no"),
        question("q3", "number"),
    ]
    assert chance_level(items) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="got none"):
        chance_level([])


def test_contrast_sets_count_only_when_all_are_right() -> None:
    first = question("Is ice cold?", "yes_no")
    items = [
        first,
        question("Is ice hot?", "yes_no", contrast_of=first.id),
        question("Is fire cold?", "yes_no", contrast_of="fire"),
        question("Is fire hot?", "yes_no", contrast_of="fire"),
        question("Is rain wet?", "yes_no"),  # alone: not counted
    ]
    groups = contrast_groups(items)
    assert groups[0] == groups[1] != groups[2] == groups[3]
    share = consistency([True, True, True, False, True], groups)
    assert (share.n, share.right) == (2, 1)
    with pytest.raises(ValueError, match="single"):
        consistency([True, False], ["a", "b"])


def test_a_contrast_may_name_the_id_that_the_table_gave() -> None:
    items = [
        question("Is ice cold?", "yes_no", source_id="q1"),
        question("Is ice hot?", "yes_no", source_id="q1b", contrast_of="q1"),
        question("Is rain wet?", "yes_no", source_id="q2"),
    ]
    one, twin, other = contrast_groups(items)
    assert one == twin != other


# -- two students -------------------------------------------------------------------------------


def pairs(wins: int, losses: int, n: int) -> tuple[list[bool], list[bool]]:
    a = [True] * wins + [False] * losses + [i % 2 == 0 for i in range(n - wins - losses)]
    return a, [not right for right in a[: wins + losses]] + a[wins + losses :]


@SMALL
@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 30))
def test_paired_counts_and_mcnemar_by_enumeration(wins: int, losses: int, same: int) -> None:
    if wins + losses + same == 0:
        return
    found = paired(*pairs(wins, losses, wins + losses + same))
    assert (found.wins, found.losses, found.ties) == (wins, losses, same)
    assert found.estimate == pytest.approx((wins - losses) / found.n)
    decided = wins + losses
    as_far = sum(
        math.comb(decided, k)
        for k in range(decided + 1)
        if abs(2 * k - decided) >= abs(wins - losses)
    )
    assert found.p == pytest.approx(as_far / 2**decided)


@SMALL
@given(st.integers(0, 25), st.integers(0, 25), st.integers(1, 60))
def test_tango_is_where_the_score_test_stops_rejecting(wins: int, losses: int, same: int) -> None:
    n = wins + losses + same
    low, high = tango(wins, losses, n)
    assert -1 <= low < (wins - losses) / n < high <= 1
    assert tango(losses, wins, n) == pytest.approx((-high, -low))
    for delta in (low, high):
        # The likeliest shares with this difference, by search over all of them.
        lost = np.linspace(max(0.0, -delta), (1 - delta) / 2, 200_001)[1:-1]
        likelihood = (
            wins * np.log(lost + delta) + losses * np.log(lost)
            + same * np.log(1 - 2 * lost - delta)
        )  # fmt: skip
        best = lost[np.argmax(likelihood)]
        error = math.sqrt(n * (2 * best + delta - delta**2))
        assert abs(wins - losses - n * delta) / error == pytest.approx(Z, rel=0.01)


def test_tango_without_a_difference_is_not_a_point() -> None:
    assert tango(0, 0, 500) == pytest.approx((-(Z**2) / (500 + Z**2), Z**2 / (500 + Z**2)))
    assert tango(5, 0, 5)[1] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="got 3 \\+ 3 of 5"):
        tango(3, 3, 5)


@SMALL
@given(st.lists(st.integers(-3, 3), max_size=9))
def test_sign_flips_by_enumeration(sums: list[int]) -> None:
    totals = [
        sum(s * v for s, v in zip(signs, sums, strict=True))
        for signs in product((-1, 1), repeat=len(sums))
    ]
    expected = np.mean([abs(total) >= abs(sum(sums)) for total in totals])
    assert sign_flip_test(np.array(sums, dtype=int)) == pytest.approx(expected)


@given(st.integers(0, 40), st.integers(0, 40))
def test_sign_flips_of_single_questions_are_mcnemar(wins: int, losses: int) -> None:
    sums = np.array([1] * wins + [-1] * losses, dtype=int)
    assert sign_flip_test(sums) == pytest.approx(sign_test(wins, losses))


def test_groups_keep_repeats_from_counting_as_evidence() -> None:
    a, b = pairs(9, 3, 60)
    once = paired(a, b)
    five = paired(a * 5, b * 5, list(range(60)) * 5)
    naive = paired(a * 5, b * 5)
    assert naive.p < 0.001 < once.p
    assert five.p == pytest.approx(once.p)
    assert five.high - five.low == pytest.approx(once.high - once.low, rel=0.15)
    same = paired(a * 5, a * 5, list(range(60)) * 5)
    assert (same.low, same.high) == tango(0, 0, 60)


def test_paired_refuses_different_questions() -> None:
    with pytest.raises(ValueError, match="2 and 3 answers"):
        paired([True, False], [True, False, True])


def test_one_seed_is_the_paired_comparison_and_says_so() -> None:
    a, b = pairs(30, 12, 200)
    single, over = paired(a, b), paired_over_seeds([a], [b])
    assert (over.estimate, over.low, over.high, over.p) == (
        single.estimate, single.low, single.high, single.p
    )  # fmt: skip
    assert "not other seeds" in over.covers


def test_seeds_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    b = np.tile(rng.random(400) < 0.5, (3, 1))
    calm = paired_over_seeds(np.where(rng.random((3, 400)) < 0.2, True, b), b)
    wild = [np.where(rng.random(400) < share, True, b[0]) for share in (0.02, 0.2, 0.38)]
    found = paired_over_seeds(wild, b)
    assert calm.p < 0.01 < 0.05 < found.p
    assert found.low < 0 < calm.low < calm.estimate
    assert found.estimate == pytest.approx(np.mean(found.per_seed))
    assert found.per_seed[0] < found.per_seed[1] < found.per_seed[2]
    assert found.covers == "other questions and other seeds"


def test_recipes_that_never_differ_still_have_an_interval() -> None:
    floor = np.zeros((3, 500), dtype=bool)
    found = paired_over_seeds(floor, floor)
    assert found.low == pytest.approx(-(Z**2) / 500, rel=0.01)
    assert (found.estimate, found.p) == (0.0, 1.0)
    grouped = paired_over_seeds(floor, floor, [i // 5 for i in range(500)])
    assert grouped.low == pytest.approx(-(Z**2) / 100, rel=0.05)


@pytest.mark.parametrize(
    ("a", "b"),
    [(np.zeros((2, 3)), np.zeros((3, 3))), (np.zeros(3), np.zeros(3)), ([[]], [[]])],
)
def test_seeds_refuse_shapes_that_do_not_fit(a: object, b: object) -> None:
    with pytest.raises(ValueError, match="seeds, questions"):
        paired_over_seeds(a, b)  # type: ignore[arg-type]


def test_holm_by_its_definition() -> None:
    assert holm({"c": 0.04, "a": 0.01, "b": 0.02}) == pytest.approx(
        {"c": 0.04, "a": 0.03, "b": 0.04}
    )
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert list(holm({"z": 0.1, "a": 0.01})) == ["z", "a"]
    assert holm({}) == {}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_rejects_what_stepping_down_rejects(values: list[float]) -> None:
    named = {str(i): p for i, p in enumerate(values)}
    adjusted = holm(named)
    still = True
    for place, name in enumerate(sorted(named, key=named.__getitem__)):
        still = still and (len(named) - place) * named[name] <= 0.05
        assert (adjusted[name] <= 0.05) == still


# -- before the run -----------------------------------------------------------------------------


@SMALL
@given(st.integers(1, 12), st.floats(0, 0.5), st.floats(0.05, 1))
def test_power_by_enumeration(n: int, gain: float, discordant: float) -> None:
    discordant = max(gain, discordant)
    win, loss = (discordant + gain) / 2, (discordant - gain) / 2
    expected = sum(
        math.comb(n, w) * math.comb(n - w, v) * win**w * loss**v * (1 - discordant) ** (n - w - v)
        for w in range(n + 1)
        for v in range(n + 1 - w)
        if sign_test(w, v) <= 0.05
    )
    assert mcnemar_power(n, gain, discordant) == pytest.approx(expected, abs=1e-9)


def test_effect_shrinks_with_questions_and_with_agreement() -> None:
    sizes = [minimum_detectable_effect(n, baseline=0.4) for n in (100, 500, 2000)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert minimum_detectable_effect(500, baseline=0.4, discordant=0.1) < sizes[1]
    assert minimum_detectable_effect(500, baseline=0.4, power=0.9) > sizes[1]


def test_effect_where_nothing_could_be_seen() -> None:
    assert minimum_detectable_effect(5, baseline=0.2) == math.inf  # five wins of five: p = 0.0625
    assert minimum_detectable_effect(100, baseline=1.0) == math.inf
    assert "no possible gain" in effect_words(5, math.inf)
    with pytest.raises(ValueError, match="expected n >= 1"):
        minimum_detectable_effect(0, baseline=0.5)


def test_effect_as_words() -> None:
    assert effect_words(2000, 0.0417) == (
        "with 2,000 questions a difference of 0.042 would be seen (p < 0.05) in 80% of runs; "
        "a smaller one may well not be"
    )


def test_the_examples_of_the_page() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "evaluation.md"
    found = doctest.testfile(str(page), module_relative=False)
    assert found.attempted > 10
    assert not found.failed
