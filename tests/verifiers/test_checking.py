"""Verdicts: right, wrong with a reason, unknown, undecided."""

from __future__ import annotations

import pytest

from symdistill.answers import AnswerKind
from symdistill.records import Item
from symdistill.verifiers import Check, Extracted, check, checking, equality, extract

pytestmark = pytest.mark.unit


def question(gold: str | None, kind: AnswerKind = "choice", choices: str = "red blue") -> Item:
    fields = {"answer_kind": kind, "choices": choices.split() if kind == "choice" else []}
    return Item.make("question", "Which?", gold=gold, fields=fields)


def verdict(text: str, item: Item) -> Check:
    kind, choices = item.fields["answer_kind"], item.fields["choices"]
    return check(item, extract(text, kind, choices))


def test_right_and_wrong() -> None:
    assert verdict("So the answer is (b).", question("B")) == Check("ok", True, "B")
    assert verdict("So the answer is (a).", question("B")) == Check("ok", False, "A")


def test_no_answer_is_wrong_and_says_why() -> None:
    assert verdict("Hm.", question("B")) == Check("ok", False, None, "no answer")
    found = verdict("So the answer is (a) or (b).", question("B"))
    assert found == Check("ok", False, None, "two answers: A, B")


def test_without_a_gold_answer_nothing_is_known() -> None:
    assert verdict("So the answer is (b).", question(None)) == Check(
        "unknown", None, "B", "no gold answer"
    )
    assert verdict("Hm.", question(None)).status == "unknown"


def test_options_of_the_same_text_are_both_right() -> None:
    twice = question("A", choices="red blue Red")
    assert verdict("So the answer is (c) red.", twice).correct
    assert not verdict("So the answer is (b) blue.", twice).correct


def test_an_undecided_comparison_is_neither_right_nor_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checking, "equal", lambda *_: None)
    found = check(question("5", "number"), Extracted("5", "", anchored=True))
    assert (found.status, found.correct) == ("infra_error", None)


def test_one_latex_answer_without_math_verify_stops_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equality, "_installed", lambda: False)
    found = verdict("The answer is $2^5$.", question("32", "number"))
    assert (found.status, found.correct, found.answer) == ("infra_error", None, "2^5")
    assert found.reason == "math-verify is not installed; pip install 'symdistill[answers]'"
