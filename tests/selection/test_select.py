"""Selection: each rule alone, their order, and what holds of anything that is kept."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from symdistill.records import normalise
from symdistill.selection import (
    Candidate,
    Decision,
    SelectionSettings,
    select,
    specificity_floor,
)
from symdistill.selection.duplicates import jaccard, shingles

pytestmark = pytest.mark.unit

OFF = SelectionSettings(
    min_words=0,
    specificity_quantile=None,
    max_swap_accept_share=None,
    near_repeat=1.0,
    per_continuation=None,
    per_concept=None,
    per_pattern_share=None,
)
CUT = 0.5


def line(id: str = "a", text: str = "Dogs can bark loudly", **rest: Any) -> Candidate:
    return replace(
        Candidate(id, "dog", text, text.partition("can ")[2] or text, "can", True, 0.9, 1.0, 0.0),
        **rest,
    )


def rules(*lines: Candidate, floor: float | None = None, before: Any = (), **on: Any) -> list[str]:
    """Which rule refused each line ("" if none), with only the given rules switched on."""
    chosen = OFF.model_copy(update=on)
    decided = select(lines, cut=CUT, floor=floor, settings=chosen, kept_before=before)
    assert [one.id for one in decided] == [one.id for one in lines]
    assert all(one.kept == (one.reason == "") for one in decided)
    return [one.rule for one in decided]


# -- each rule alone ----------------------------------------------------------------------------


def test_without_rules_what_the_critic_accepts_is_kept() -> None:
    assert rules(line("a"), line("b", "Cats sleep", score=CUT)) == ["", ""]


def test_unfinished_lines_are_refused() -> None:
    assert rules(line(finished=False)) == ["unfinished"]


def test_short_lines_are_refused() -> None:
    two, three = line("a", "Dogs bark"), line("b", "Dogs can bark")
    assert rules(two, three, min_words=3) == ["too short", ""]


def test_lines_below_the_cut_are_refused() -> None:
    assert rules(line("a", score=0.4999), line("b", "Cats sleep", score=0.5)) == ["critic", ""]


def test_lines_below_the_floor_are_refused() -> None:
    low, at = line("a", specificity=0.99), line("b", "Cats sleep", specificity=1.0)
    assert rules(low, at, floor=1.0) == ["specificity", ""]
    assert rules(low, at, floor=None) == ["", ""]


def test_lines_that_hold_for_other_concepts_are_refused() -> None:
    shares = (0.5, 0.67, 0.68, math.nan)
    lines = [line(str(i), f"text {i}", swap_accept_share=x) for i, x in enumerate(shares)]
    assert rules(*lines, max_swap_accept_share=0.67) == ["", "", "swap", ""]


def test_a_line_of_an_earlier_round_is_a_repeat() -> None:
    assert rules(line("a"), line("b", "Cats sleep"), before=[line("a")]) == ["repeat", ""]


def test_a_near_repeat_of_a_better_line_of_the_concept_is_refused() -> None:
    good = line("a", "Dogs can bark very loudly", specificity=2.0)
    near = line("b", "Dogs can bark very loud", specificity=1.0)
    other = replace(near, id="c", item_id="wolf")
    assert rules(near, good, other, near_repeat=0.7) == ["near repeat", "", ""]
    decided = select(
        [near, good], cut=CUT, floor=None, settings=OFF.model_copy(update={"near_repeat": 0.7})
    )
    assert decided[0] == Decision("b", False, "near repeat: of a")


def test_a_near_repeat_of_an_earlier_round_is_refused_however_good() -> None:
    before = line("a", "Dogs can bark very loudly", specificity=0.0)
    now = line("b", "Dogs can bark very loud", specificity=9.0)
    assert rules(now, before=[before], near_repeat=0.7) == ["near repeat"]


def test_the_same_words_are_kept_for_so_many_concepts() -> None:
    lines = [
        line(str(i), f"A {animal} can be found", item_id=animal, continuation="be found.")
        for i, animal in enumerate(["dog", "cat", "cow", "crow"])
    ]
    assert rules(*lines, per_continuation=2) == ["", "", "continuation", "continuation"]
    assert rules(lines[3], before=lines[:2], per_continuation=2) == ["continuation"]
    assert rules(lines[3], before=lines[:1], per_continuation=2) == [""]


def test_the_same_words_twice_of_one_concept_are_one_concept() -> None:
    lines = [
        line("a", "Dogs can bark at night", continuation="bark at night"),
        line("b", "Any hound will bark at night", continuation="bark at night"),
        line("c", "Cats bark at night", item_id="cat", continuation="Bark at night."),
        line("d", "Cows bark at night", item_id="cow", continuation="bark at night"),
    ]
    assert rules(*lines, per_continuation=2) == ["", "", "", "continuation"]


def test_a_concept_has_its_share_and_the_best_lines_take_it() -> None:
    lines = [line(x, f"text {x}", specificity=float(i)) for i, x in enumerate("abcd")]
    assert rules(*lines, per_concept=2) == ["per concept", "per concept", "", ""]
    # the share is for one round
    assert rules(*lines, before=[line("z", "text z")], per_concept=4) == [""] * 4


def test_a_pattern_has_its_share_of_what_is_accepted() -> None:
    lines = [line(str(i), f"text {i}", pattern="p" if i < 3 else "q") for i in range(8)]
    assert (
        rules(*lines, per_pattern_share=0.25)
        == ["", "", "per pattern"] + ["", ""] + ["per pattern"] * 3
    )
    assert rules(lines[0], per_pattern_share=0.0) == [""]  # one line of each is always allowed
    refused = [line(f"r{i}", f"other {i}", score=0.0) for i in range(100)]
    found = rules(*lines, *refused, per_pattern_share=0.25)
    assert found[:3] == ["", "", "per pattern"]  # of the accepted lines, not of all


def test_what_is_taken_first_can_be_chosen() -> None:
    specific, scored = line("a", "text a", specificity=2.0), line("b", "text b", score=0.95)
    assert rules(specific, scored, per_concept=1, order_by="specificity") == ["", "per concept"]
    assert rules(specific, scored, per_concept=1, order_by="score") == ["per concept", ""]


def test_what_was_not_measured_is_taken_last() -> None:
    unknown = line("a", "text a", specificity=math.nan)
    known = line("b", "text b", specificity=-5.0)
    for lines in ([unknown, known], [known, unknown]):
        decided = select(
            lines, cut=CUT, floor=None, settings=OFF.model_copy(update={"per_concept": 1})
        )
        assert [one.id for one in decided if one.kept] == ["b"]


# -- the order of the rules ---------------------------------------------------------------------

BEFORE = [line("z", "Dogs can bark loudly", specificity=9.0)]
FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("unfinished", {"finished": False}),
    ("too short", {"text": "Dogs bark"}),
    ("critic", {"score": 0.1}),
    ("specificity", {"specificity": 0.1}),
    ("swap", {"swap_accept_share": 1.0}),
    ("repeat", {"id": "z"}),
    ("near repeat", {"text": "Dogs can bark loud"}),
    ("continuation", {"continuation": "bark loudly"}),
]


@pytest.mark.parametrize("first", range(len(FAULTS)))
def test_the_first_rule_that_a_line_fails_is_its_reason(first: int) -> None:
    """A line with this fault and all that come later is refused for this one."""
    faults: dict[str, Any] = {}
    for _, fault in reversed(FAULTS[first:]):
        faults |= fault
    other = [
        line("y", "Cats bark loudly", item_id="cat"),
        line("x", "Cows bark", item_id="cow", continuation="bark loudly"),
    ]
    one = line("a", "Some thing else entirely", continuation="x")
    one = replace(one, **faults)
    found = rules(
        one,
        floor=0.5,
        before=[*BEFORE, *(replace(x, continuation="bark loudly") for x in other)],
        min_words=3,
        max_swap_accept_share=0.5,
        near_repeat=0.7,
        per_continuation=2,
        per_concept=1,
    )
    assert found == [FAULTS[first][0]]


# -- whatever comes in --------------------------------------------------------------------------

numbers = st.sampled_from([0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0])
candidates = st.builds(
    Candidate,
    id=st.text("abcdefgh", min_size=1, max_size=3),
    item_id=st.sampled_from(["dog", "cat", "cow"]),
    text=st.sampled_from(
        [
            "Dogs bark",
            "Dogs can bark loudly",
            "Dogs can bark loud",
            "Cats sleep in the sun",
            "They eat grass and hay",
            "A cow gives us milk",
            "a cow gives us milk.",
        ]
    ),
    continuation=st.sampled_from(["bark", "Bark.", "sleep", "eat"]),
    pattern=st.sampled_from(["p", "q"]),
    finished=st.booleans() | st.just(True),
    score=numbers,
    specificity=numbers | st.just(math.nan),
    swap_accept_share=numbers | st.just(math.nan),
)
some = st.lists(candidates, max_size=14, unique_by=lambda one: one.id)
chosen = st.builds(
    SelectionSettings,
    min_words=st.integers(0, 4),
    max_swap_accept_share=st.none() | numbers,
    near_repeat=st.sampled_from([0.3, 0.7, 1.0]),
    per_continuation=st.none() | st.integers(1, 3),
    per_concept=st.none() | st.integers(1, 3),
    per_pattern_share=st.none() | numbers,
    order_by=st.sampled_from(["score", "specificity"]),
)


@settings(max_examples=80)
@given(some, some, chosen, st.none() | numbers, st.randoms(use_true_random=False))
def test_what_is_kept_passes_every_rule(
    lines: list[Candidate],
    before: list[Candidate],
    chosen: SelectionSettings,
    floor: float | None,
    random: Any,
) -> None:
    decided = select(lines, cut=CUT, floor=floor, settings=chosen, kept_before=before)
    assert [one.id for one in decided] == [one.id for one in lines]
    kept = [one for one, said in zip(lines, decided, strict=True) if said.kept]
    accepted = 0
    for one, said in zip(lines, decided, strict=True):
        assert said.kept == (said.reason == "") and (said.rule == "") == said.kept
        passes = (
            one.finished
            and len(one.text.split()) >= chosen.min_words
            and one.score >= CUT
            and not (floor is not None and one.specificity < floor)
            and not (
                chosen.max_swap_accept_share is not None
                and one.swap_accept_share > chosen.max_swap_accept_share
            )
            and one.id not in {other.id for other in before}
        )
        accepted += passes
        capped = ("near repeat", "continuation", "per concept", "per pattern")
        assert (said.kept or said.rule in capped) == passes
    by_concept = Counter(one.item_id for one in kept)
    assert all(count <= (chosen.per_concept or math.inf) for count in by_concept.values())
    if chosen.per_pattern_share is not None:
        most = max(1, math.ceil(chosen.per_pattern_share * accepted))
        assert all(count <= most for count in Counter(one.pattern for one in kept).values())
    if chosen.per_continuation is not None:
        for said_text in {normalise(one.continuation) for one in kept}:
            now = {one.item_id for one in kept if normalise(one.continuation) == said_text}
            earlier = {one.item_id for one in before if normalise(one.continuation) == said_text}
            assert len(now | earlier) <= max(chosen.per_continuation, len(earlier))
            assert not (now - earlier) or len(now | earlier) <= chosen.per_continuation
    for i, one in enumerate(kept):
        for other in [*kept[:i], *before]:
            if one.item_id == other.item_id:
                assert shingles(one.text) != shingles(other.text)
    shuffled = lines[:]
    random.shuffle(shuffled)
    turned = before[:]
    random.shuffle(turned)
    again = select(shuffled, cut=CUT, floor=floor, settings=chosen, kept_before=turned)
    assert {one.id: one for one in again} == {one.id: one for one in decided}


@settings(max_examples=60)
@given(some, chosen)
def test_a_refused_near_repeat_is_like_a_kept_line_of_its_concept(
    lines: list[Candidate], chosen: SelectionSettings
) -> None:
    by_id = {one.id: one for one in lines}
    decided = select(lines, cut=CUT, floor=None, settings=chosen)
    kept = {one.id for one in decided if one.kept}
    for said in decided:
        if said.rule == "near repeat":
            twin = said.reason.removeprefix("near repeat: of ")
            assert twin in kept and by_id[twin].item_id == by_id[said.id].item_id
            pair = (shingles(by_id[twin].text), shingles(by_id[said.id].text))
            assert jaccard(*pair) >= chosen.near_repeat


# -- the floor ----------------------------------------------------------------------------------


@given(some, st.floats(0, 1))
def test_the_floor_is_the_quantile_of_the_accepted_lines(
    lines: list[Candidate], quantile: float
) -> None:
    found = specificity_floor(
        lines, cut=CUT, settings=OFF.model_copy(update={"specificity_quantile": quantile})
    )
    measured = [
        one.specificity
        for one in lines
        if one.finished and one.score >= CUT and not math.isnan(one.specificity)
    ]
    if measured:
        assert found == pytest.approx(float(np.quantile(measured, quantile)))
    else:
        assert found is None


def test_no_floor_where_the_rule_is_off() -> None:
    assert specificity_floor([line()], cut=CUT, settings=OFF) is None


# -- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        {"near_repeat": 0},
        {"near_repeat": 1.1},
        {"specificity_quantile": 30},
        {"max_swap_accept_share": -0.1},
        {"per_concept": 0},
        {"per_continuation": 0},
        {"per_pattern_share": 2},
        {"min_words": -1},
        {"order_by": "length"},
        {"per_concpet": 3},
    ],
)
def test_settings_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SelectionSettings(**bad)
