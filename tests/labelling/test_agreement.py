"""Agreement: published values, and silence where nothing can be said."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symdistill.exact import share_interval
from symdistill.labelling.agreement import agreement, told
from symdistill.labelling.store import Given

pytestmark = pytest.mark.unit

# Krippendorff (2011): four observers, twelve units, five values; 0 is a value that is missing.
PUBLISHED = {
    "A": "123321412000",
    "B": "123322412503",
    "C": "033323422510",
    "D": "123324412510",
}
# The same paper's first example: two observers, ten units, two values; alpha is 0.095.
TWO = {"A": "0100000010", "B": "1110010000"}


def answers(table: dict[str, str], missing: str = "0") -> list[Given]:
    return [
        Given("d", f"l{i}", who, word, False, "", None, "")
        for who, words in table.items()
        for i, word in enumerate(words)
        if word != missing
    ]


def test_the_published_values_of_alpha() -> None:
    assert agreement(answers(PUBLISHED)).alpha == pytest.approx(0.743, abs=5e-4)
    assert agreement(answers(TWO, missing="x")).alpha == pytest.approx(0.095, abs=5e-4)


def by_definition(table: list[str]) -> float:
    """1 - D_o / D_e over the pairable values, nominal."""
    units = [[word for word in unit if word != "0"] for unit in zip(*table, strict=True)]
    units = [unit for unit in units if len(unit) > 1]
    values = [word for unit in units for word in unit]
    observed = sum(
        sum(a != b for a, b in permutations(unit, 2)) / (len(unit) - 1) for unit in units
    ) / len(values)
    expected = sum(a != b for a, b in permutations(values, 2)) / (len(values) * (len(values) - 1))
    return float(1 - observed / expected)


@settings(max_examples=40)
@given(st.lists(st.text("0vi", min_size=6, max_size=6), min_size=2, max_size=4))
def test_alpha_is_its_definition(table: list[str]) -> None:
    found = agreement(answers({f"a{i}": words for i, words in enumerate(table)}))
    if found.alpha is not None:
        assert found.alpha == pytest.approx(by_definition(table))


def test_counts_and_shares() -> None:
    found = agreement(answers({"ann": "vviu0", "bob": "vi0uu"}))
    assert found.answers == {"ann": 4, "bob": 4}
    assert found.shared == 3
    assert found.same == pytest.approx(2 / 3)
    assert "3 lines answered by two or more of 2 annotators: 67%" in told(found)[0]


@pytest.mark.parametrize("table", [{}, {"ann": "vi"}, {"ann": "v0", "bob": "0i"}])
def test_nothing_is_said_of_what_nobody_shares(table: dict[str, str]) -> None:
    found = agreement(answers(table))
    assert (found.shared, found.same, found.alpha) == (0, None, None)
    assert told(found) == []


def test_one_word_has_no_alpha() -> None:
    found = agreement(answers({"ann": "vvv", "bob": "vvv"}))
    assert (found.same, found.alpha) == (1.0, None)
    assert "cannot be said" in told(found)[0]


def test_an_annotator_and_themselves() -> None:
    again = [Given("d", f"l{i}", "ann", said, True, "", None, "") for i, said in enumerate("vvi")]
    found = agreement([*answers({"ann": "viiv", "bob": "0000"}), *again])
    one = found.repeats["ann"]
    assert (one.lines, one.same) == (3, 2)
    assert (one.low, one.high) == share_interval(3, 2)
    assert found.shared == 0
    assert "ann gave the same answer to 2 of 3 lines shown twice" in told(found)[0]


def test_lines_of_two_draws_are_not_one_line() -> None:
    one = Given("d", "l0", "ann", "valid", False, "", None, "")
    other = Given("e", "l0", "bob", "invalid", False, "", None, "")
    assert agreement([one, other]).shared == 0
