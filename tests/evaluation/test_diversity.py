"""Diversity measures against brute force and against worlds whose size is known."""

from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu import sentence_bleu

from symdistill.evaluation.diversity import (
    chao1_lower_bound,
    chapman,
    distinct_n,
    good_turing_coverage,
    soft_uniqueness,
)

pytestmark = pytest.mark.unit

TEXTS = st.lists(
    st.lists(st.sampled_from(["birds", "fly", "swim", "high"]), max_size=5).map(" ".join),
    max_size=8,
)


@given(TEXTS, st.integers(1, 3))
def test_distinct_n_by_counting(texts: list[str], n: int) -> None:
    grams = [tuple(t.split()[i : i + n]) for t in texts for i in range(len(t.split()) - n + 1)]
    value = distinct_n(texts, n)
    assert value == (len(set(grams)) / len(grams) if grams else None)


def bleu(text: str, other: str) -> float:
    return sentence_bleu(text, [other], lowercase=True, use_effective_order=True).score / 100


@given(st.lists(st.tuples(TEXTS.map(" ".join), st.booleans()), max_size=8), st.randoms())
def test_soft_uniqueness_by_definition(lines: list[tuple[str, bool]], random: Random) -> None:
    ids = [f"{i:02d}" for i in range(len(lines))]
    texts, groups = [t for t, _ in lines], [g for _, g in lines]
    counted: list[int] = []
    for i, text in enumerate(texts):
        rivals = [j for j in counted if groups[j] == groups[i]]
        if all(bleu(text, texts[j]) < 0.6 for j in rivals):
            counted.append(i)
    order = list(range(len(lines)))
    random.shuffle(order)
    share = soft_uniqueness(
        [texts[i] for i in order],
        [groups[i] for i in order],
        ids=[ids[i] for i in order],
        threshold=0.6,
    )
    assert share == (len(counted) / len(lines) if lines else None)


def test_soft_uniqueness_counts_repeats_once_a_concept() -> None:
    line = "A kettle is used to boil water for tea."
    near = "A kettle is used to boil water for coffee."
    far = "Kettles whistle loudly."
    texts, concepts = [line, near, far, line], ["kettle", "kettle", "kettle", "pot"]
    assert soft_uniqueness(texts, concepts, ids=list("abcd")) == 0.75


def heavy_tail(size: int) -> np.ndarray:
    weight = 1 / np.arange(1, size + 1)
    return weight / weight.sum()


def test_good_turing_is_near_the_true_coverage() -> None:
    p = heavy_tail(500)
    errors = []
    for seed in range(50):
        drawn = Counter(np.random.default_rng(seed).choice(500, size=300, p=p).tolist())
        errors.append(good_turing_coverage(list(drawn.values())) - p[list(drawn)].sum())
    assert abs(np.mean(errors)) < 0.015
    assert good_turing_coverage([]) is None
    assert good_turing_coverage([1, 1]) == 0
    assert good_turing_coverage([3, 2]) == 1


@pytest.mark.parametrize("p", [heavy_tail(500), np.full(500, 1 / 500)], ids=["zipf", "uniform"])
def test_chao1_stays_below_the_true_number_and_above_the_seen(p: np.ndarray) -> None:
    estimates = []
    for seed in range(50):
        drawn = Counter(np.random.default_rng(seed).choice(500, size=300, p=p).tolist())
        estimates.append(chao1_lower_bound(list(drawn.values())))
        assert estimates[-1] >= len(drawn)
    assert np.mean(estimates) <= 510
    assert np.mean(estimates) >= 200


def test_chao1_by_hand() -> None:
    assert chao1_lower_bound([]) == 0
    assert chao1_lower_bound([2, 2]) == 2
    assert chao1_lower_bound([1, 1, 1, 2]) == pytest.approx(4 + 3 * 2 / (2 * 2))


def test_chapman_is_right_for_equal_chances_and_too_low_for_heavy_tails() -> None:
    equal, heavy = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        for p, out in ((np.full(400, 1 / 400), equal), (heavy_tail(400), heavy)):
            one = set(rng.choice(400, size=200, p=p).tolist())
            two = set(rng.choice(400, size=200, p=p).tolist())
            out.append(chapman(len(one), len(two), len(one & two)).estimate)
    assert np.mean(equal) == pytest.approx(400, rel=0.05)
    assert np.mean(heavy) < 300
    exact = chapman(5, 5, 5)
    assert (exact.estimate, exact.variance) == (5.0, 0.0)
    with pytest.raises(ValueError, match="both"):
        chapman(3, 3, 4)
