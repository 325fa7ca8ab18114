"""Answers: one spelling each, exact numbers, options by letter, number or text."""

from __future__ import annotations

from fractions import Fraction
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symdistill.answers import (
    ANSWER_KINDS,
    MAX_NUMBER,
    AnswerKind,
    canonical,
    chance_of,
    letter,
    number,
    shown,
    spelt,
)
from symdistill.records import Item

pytestmark = pytest.mark.unit


def question(kind: AnswerKind, *choices: str) -> Item:
    return Item.make("question", "What?", fields={"answer_kind": kind, "choices": list(choices)})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("$1,234.", "1234"),
        ("42.0", "42"),
        ("007", "7"),
        (".5", "0.5"),
        ("-5", "-5"),
        ("−7", "-7"),
        ("-$5.50", "-5.5"),
        ("$-5.50", "-5.5"),
        ("€ 3", "3"),
        ("60%", "60"),
        ("two hundred and five", "205"),
        ("twenty five", "25"),
        ("three and a half million", "3500000"),
        ("zero", "0"),
        ("**42**", "42"),
        ("3/4", "0.75"),
        ("2/6", "1/3"),
        ("1 1/2", "1.5"),
        ("(84 / 2)", "42"),
        ("((1 + 2) * (3 + 4))", "21"),
        ("-4 * -21", "84"),
        ("15 – 5", "10"),
        ("6 ÷ 4", "1.5"),
        ("1.25e+06", "1250000"),
        (r"$\frac{3}{4}$", "0.75"),
        (r"\dfrac{1}{3}", "1/3"),
        (r"5\%", "5"),
        (r"2\sqrt{3}", r"2\sqrt{3}"),
        (r"$\frac{\pi}{2}$", r"\frac{\pi}{2}"),
        ("2^{10}", "2^{10}"),
        ("twelve", "12"),
        ("Twenty-five", "25"),
        ("9" * 100, "9" * 100),
    ],
)
def test_a_number_has_one_spelling(text: str, wanted: str) -> None:
    assert number(text) == wanted


@pytest.mark.parametrize(
    "text",
    ["", ".", "-", "()", "18 dollars", "1,23", "2 * x", "1/0", "2**9", "2^", "²", "x = 5", "1 2",
     "(" * 150, "(" * 60 + "1" + ")" * 60, "9" * (MAX_NUMBER + 1), "1e99*1e99*1e99", "1e999"],
)  # fmt: skip
def test_what_is_no_number(text: str) -> None:
    assert number(text) is None


@given(st.fractions(max_denominator=10**6))
@settings(max_examples=100)
def test_a_number_keeps_its_value(value: Fraction) -> None:
    text = spelt(value)
    assert text is not None
    assert Fraction(text) == value
    assert number(text) == text


@pytest.mark.parametrize(
    ("text", "choices", "wanted"),
    [
        ("(F)", list("uvwxyz"), "F"),
        ("f.", list("uvwxyz"), "F"),
        ("Swim.", ["run", "swim"], "B"),
        ("(b) swim", ["run", "swim"], "B"),
        ("(b) run", ["run", "swim"], None),
        ("2", ["run", "swim"], "B"),  # items keyed 1-4
        ("(2)", ["run", "swim"], "B"),
        ("3", ["3", "5", "9"], "A"),  # the option's own text goes first
        ("B", ["c", "b"], "B"),
        ("G", ["run", "swim"], None),
        ("3", ["run", "swim"], None),
        ("0", ["run", "swim"], None),
        ("²", ["run", "swim"], None),
        ("run", ["run", "swim", "run"], "A"),  # of options with one text the first
        ("", ["run", "swim"], None),
        ("A", [], None),
    ],
)
def test_an_option_is_a_letter(text: str, choices: list[str], wanted: str | None) -> None:
    assert canonical("choice", text, choices) == wanted


@pytest.mark.parametrize(
    ("kind", "text", "wanted"),
    [
        ("yes_no", "**Yes.**", "yes"),
        ("yes_no", "true", None),
        ("true_false", "False", "false"),
        ("valid_invalid", "Invalid.", "invalid"),
        ("valid_invalid", "not valid", None),
        ("text", '"yajc".', "yajc"),
        ("text", "] } ].", "] } ]"),  # brackets are the answer
        ("text", "a\n b", "a b"),
        ("text", " ", None),
    ],
)
def test_words(kind: AnswerKind, text: str, wanted: str | None) -> None:
    assert canonical(kind, text) == wanted


@given(st.sampled_from(get_args(AnswerKind)), st.text(max_size=30), st.lists(st.text(max_size=5)))
@settings(max_examples=300)
def test_canonical_of_canonical_changes_nothing(
    kind: AnswerKind, text: str, choices: list[str]
) -> None:
    once = canonical(kind, text, choices)
    if once is not None and kind != "choice":
        assert canonical(kind, once, choices) == once


@given(st.integers(1, 26).map(lambda n: [f"option {i}" for i in range(n)]), st.data())
@settings(max_examples=50)
def test_a_letter_stays_a_letter(choices: list[str], data: st.DataObject) -> None:
    name = letter(data.draw(st.integers(0, len(choices) - 1)))
    assert canonical("choice", name, choices) == name
    assert canonical("choice", shown(question("choice", *choices), name), choices) == name


def test_chance() -> None:
    assert chance_of(question("choice", *"abcde")) == 0.2
    assert {kind: chance_of(question(kind)) for kind in ANSWER_KINDS if kind != "choice"} == {
        "number": 0.0, "yes_no": 0.5, "true_false": 0.5, "valid_invalid": 0.5, "text": 0.0
    }  # fmt: skip
