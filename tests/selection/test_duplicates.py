"""Near repeats: what is reported is one, and an exact repeat is always found."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symdistill.records import normalise
from symdistill.selection import NearDuplicates
from symdistill.selection.duplicates import jaccard, shingles

pytestmark = pytest.mark.unit

words = st.lists(
    st.sampled_from(["dogs", "cats", "can", "bark", "barking", "run", "a", "é", "ẞ", "犬", "."]),
    max_size=6,
).map(" ".join)
texts = words | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def brute_force_jaccard(one: str, other: str) -> float:
    """From the definition, with lists."""
    a, b = (
        [f" {normalise(t)} "[i : i + 3] for i in range(len(normalise(t)) + 2)] for t in (one, other)
    )
    a, b = ([part for part in parts if len(part) == 3] or [parts[0]] for parts in (a, b))
    both = [part for part in dict.fromkeys(a) if part in b]
    return len(both) / len(dict.fromkeys(a + b))


@given(texts, texts)
def test_similarity_is_what_its_definition_says(one: str, other: str) -> None:
    found = jaccard(shingles(one), shingles(other))
    assert found == pytest.approx(brute_force_jaccard(one, other))
    assert found == jaccard(shingles(other), shingles(one))
    assert jaccard(shingles(one), shingles(one)) == 1.0


@settings(max_examples=60)
@given(st.lists(texts, max_size=8), texts, st.sampled_from([0.2, 0.5, 0.7, 0.9, 1.0]))
def test_what_is_reported_is_a_near_repeat_and_an_exact_one_is_always_found(
    earlier: list[str], text: str, threshold: float
) -> None:
    seen = NearDuplicates(threshold)
    for i, one in enumerate(earlier):
        seen.add(str(i), one)
    similar = [jaccard(shingles(one), shingles(text)) for one in earlier]
    found = seen.find(text)
    if found is not None:
        assert similar[int(found)] >= threshold
    if 1.0 in similar:
        assert found is not None and similar[int(found)] == 1.0
        assert found == min(str(i) for i, one in enumerate(similar) if one == 1.0)


def test_most_near_repeats_of_short_statements_are_found() -> None:
    """One word changed at the end of many statements: LSH may miss some, not many."""
    bodies = [
        f"A {animal} can {verb} in the {place}"
        for animal in ("dog", "cat", "horse", "crow")
        for verb in ("sleep", "rest", "hide")
        for place in ("garden", "stable", "forest")
    ]
    pairs = [(f"{body} today.", f"{body} now.") for body in bodies]
    similar = [pair for pair in pairs if jaccard(*map(shingles, pair)) >= 0.7]
    assert len(similar) > 20
    found = 0
    for one, other in similar:
        seen = NearDuplicates(0.7)
        seen.add("one", one)
        found += seen.find(other) is not None
    assert found >= 0.95 * len(similar)


def test_case_white_space_and_the_final_stop_make_no_difference() -> None:
    seen = NearDuplicates(1.0)
    seen.add("a", "Dogs  can bark.")
    assert seen.find("dogs can BARK") == "a"
    assert seen.find("dogs can dance") is None


def test_nothing_is_like_nothing() -> None:
    assert NearDuplicates(0.5).find("Dogs can bark") is None


@pytest.mark.parametrize("threshold", [0, -0.1, 1.1, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="similarity"):
        NearDuplicates(threshold)
