"""The filters of rationales: all keep the same number, by rules that the order cannot change."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from symdistill.errors import InputError
from symdistill.selection.rationales import (
    Candidate,
    Strategy,
    _clusters,
    select_rationales,
    word_pairs,
)

pytestmark = pytest.mark.unit

CUTTING = [one for one in get_args(Strategy) if one != "all"]
strategies = st.sampled_from(CUTTING)
vocabulary = ["so", "then", "add", "three", "four", "we", "have", "left"]


def embed(texts: Sequence[str]) -> NDArray[Any]:
    """Word counts: as an embedder, equal texts are equal and an empty one is the null vector."""
    return np.array([[text.split().count(word) for word in vocabulary] for text in texts])


@st.composite
def corpora(draw: st.DrawFn) -> list[Candidate]:
    """Up to nine questions with up to twelve rationales each."""
    sizes = draw(st.lists(st.integers(1, 12), max_size=9))
    text = st.lists(st.sampled_from(vocabulary), max_size=6).map(" ".join)
    return [
        Candidate(f"{q}-{i}", f"q{q}", draw(text), draw(st.floats(-9, 0)))
        for q, size in enumerate(sizes)
        for i in range(size)
    ]


@settings(max_examples=150)
@given(corpora(), strategies, st.integers(1, 7), st.integers(0, 3))
def test_every_filter_keeps_the_same_number_and_nothing_new(
    corpus: list[Candidate], strategy: Strategy, k: int, seed: int
) -> None:
    chosen = select_rationales(corpus, strategy, k, seed=seed, embed=embed)
    had = Counter(one.item_id for one in corpus)
    kept = Counter(one.item_id for one in corpus if one.id in chosen.ids)
    assert len(chosen.ids) == chosen.budget == sum(min(k, n) for n in had.values())
    order = [one.id for one in corpus]
    assert list(chosen.ids) == [id for id in order if id in set(chosen.ids)]
    if strategy == "open_endedness":
        assert all(kept[one] >= 1 for one in had)
    else:
        assert kept == {one: min(k, n) for one, n in had.items()}
        assert chosen.short == {one: k - n for one, n in had.items() if n < k}


@settings(max_examples=80)
@given(corpora(), strategies, st.integers(1, 7), st.randoms(use_true_random=False))
def test_the_order_of_the_rationales_changes_nothing(
    corpus: list[Candidate], strategy: Strategy, k: int, shuffler: random.Random
) -> None:
    shuffled = list(corpus)
    shuffler.shuffle(shuffled)
    one, other = (
        select_rationales(rows, strategy, k, seed=1, embed=embed) for rows in (corpus, shuffled)
    )
    assert set(one.ids) == set(other.ids)
    assert one.short == other.short


@given(corpora(), st.sampled_from(["random", "diversity", "likelihood"]), st.integers(1, 5))
@settings(max_examples=50)
def test_other_questions_do_not_change_what_is_kept_of_one(
    corpus: list[Candidate], strategy: Strategy, k: int
) -> None:
    few = [one for one in corpus if one.item_id in ("q0", "q1")]
    whole = select_rationales(corpus, strategy, k, seed=3, embed=embed)
    alone = select_rationales(few, strategy, k, seed=3, embed=embed)
    assert set(alone.ids) == set(whole.ids) & {one.id for one in few}


@given(corpora(), st.integers(1, 6))
@settings(max_examples=50)
def test_likelihood_is_the_top_of_each_question(corpus: list[Candidate], k: int) -> None:
    kept = set(select_rationales(corpus, "likelihood", k, seed=0).ids)
    for one in corpus:
        better = [
            other
            for other in corpus
            if other.item_id == one.item_id
            and (-other.likelihood, other.id) < (-one.likelihood, one.id)  # type: ignore[operator]
        ]
        assert (one.id in kept) == (len(better) < k)


def fifty_questions(rationales: int) -> list[Candidate]:
    """Question i has i + 1 distinct word pairs, whatever the number of its rationales."""
    return [
        Candidate(f"{q:02}-{i:02}", f"q{q:02}", " ".join(f"w{j}" for j in range(q + 2)))
        for q in range(50)
        for i in range(rationales)
    ]


@pytest.mark.parametrize(
    ("k", "fifths"),
    [
        (5, [1, 3, 5, 7, 9]),
        (1, [1] * 5),
        (2, [1, 1, 2, 3, 3]),
        (4, [1, 2, 4, 6, 7]),
        (10, [1, 5, 10, 15, 19]),
    ],
)
def test_open_questions_keep_more(k: int, fifths: list[int]) -> None:
    chosen = select_rationales(fifty_questions(30), "open_endedness", k, seed=0)
    kept = Counter(id[:2] for id in chosen.ids)
    assert [kept[f"{q:02}"] for q in range(50)] == [fifths[q // 10] for q in range(50)]
    assert chosen.short == {}


def test_what_open_questions_lack_goes_to_the_next_most_open_ones() -> None:
    """The most open fifth has 5 of its 9: its 40 go, one each in turn, to those before it."""
    corpus = [one for one in fifty_questions(30) if one.item_id < "q40" or int(one.id[3:]) < 5]
    chosen = select_rationales(corpus, "open_endedness", 5, seed=0)
    kept = Counter(id[:2] for id in chosen.ids)
    assert [kept[f"{q:02}"] for q in (0, 10, 20, 30, 40)] == [2, 4, 6, 8, 5]
    assert chosen.short == {f"q{q}": 4 for q in range(40, 50)}
    assert len(chosen.ids) == chosen.budget == 250


def test_what_closed_questions_lack_is_taken_from_all() -> None:
    """The least open fifth has 1 rationale where random would have kept 1: budget 10 + 40 x 5."""
    corpus = [one for one in fifty_questions(30) if one.item_id >= "q10" or one.id[3:] == "00"]
    chosen = select_rationales(corpus, "open_endedness", 5, seed=0)
    kept = Counter(id[:2] for id in chosen.ids)
    assert len(chosen.ids) == chosen.budget == 210
    # wanted: 10 + 10 (3 + 5 + 7 + 9) = 250; one each from 40 questions
    assert [kept[f"{q:02}"] for q in (0, 10, 20, 30, 40)] == [1, 2, 4, 6, 8]


def test_diversity_keeps_one_of_each_planted_group() -> None:
    """25 rationales say one thing, four others something else each; five are kept."""
    groups = ["so so so"] * 25 + ["add add", "three three", "four four", "left left"]
    corpus = [
        Candidate(f"r{i:02}", "q", text + extra)
        for i, (text, extra) in enumerate(zip(groups, [" then", ""] * 15, strict=False))
    ]
    chosen = select_rationales(corpus, "diversity", 5, seed=0, embed=embed)
    assert {groups[int(id[1:])] for id in chosen.ids} == set(groups)
    by_lot = select_rationales(corpus, "random", 5, seed=0)
    assert {groups[int(id[1:])] for id in by_lot.ids} != set(groups)


@given(
    st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3), min_size=2, max_size=12),
    st.data(),
)
@settings(max_examples=60)
def test_there_are_as_many_clusters_as_asked_for(
    points: list[list[int]], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(points) - 1))
    assert len(set(_clusters(np.array(points), k).tolist())) == k


def test_lots_are_fair_and_nested() -> None:
    corpus = [Candidate(f"r{i}", "q", "") for i in range(10)]
    times = Counter(
        id for seed in range(2000) for id in select_rationales(corpus, "random", 3, seed=seed).ids
    )
    assert all(abs(times[one.id] - 600) < 5 * np.sqrt(2000 * 0.3 * 0.7) for one in corpus)
    three, five = (set(select_rationales(corpus, "random", k, seed=7).ids) for k in (3, 5))
    assert three < five


def test_all_keeps_all() -> None:
    corpus = fifty_questions(3)
    chosen = select_rationales(corpus, "all", None, seed=0)
    assert chosen.ids == tuple(one.id for one in corpus)
    assert chosen.budget == 150
    assert select_rationales([], "random", 5, seed=0).ids == ()


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=5), max_size=4))
@settings(max_examples=40)
def test_word_pairs_are_counted_within_rationales(texts: list[list[str]]) -> None:
    brute = [pair for words in texts for pair in pairwise(words)]
    assert word_pairs(" ".join(words) for words in texts) == len(set(brute))
    assert word_pairs(" ".join(words).upper() for words in texts) == len(set(brute))


def test_a_missing_likelihood_is_told() -> None:
    corpus = [
        Candidate("a", "q", "x", -1.0),
        Candidate("b", "q", "x"),
        Candidate("c", "q", "x", float("nan")),
    ]
    with pytest.raises(InputError, match=r"got none for 2 of 3, b among them; take a teacher"):
        select_rationales(corpus, "likelihood", 1, seed=0)


@pytest.mark.parametrize(("strategy", "k"), [("all", 5), ("random", None), ("random", 0)])
def test_a_size_that_does_not_go_with_the_filter_is_refused(
    strategy: Strategy, k: int | None
) -> None:
    with pytest.raises(InputError, match="per_question"):
        select_rationales([Candidate("a", "q", "x")], strategy, k, seed=0)


def test_misuse_is_told() -> None:
    twice = [Candidate("a", "q", "x"), Candidate("a", "q", "x")]
    with pytest.raises(ValueError, match="distinct ids"):
        select_rationales(twice, "random", 1, seed=0)
    with pytest.raises(ValueError, match="embedder"):
        select_rationales(twice[:1], "diversity", 1, seed=0)
