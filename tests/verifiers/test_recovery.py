"""Recovery: the prompt, what comes back, and rationales that only restate."""

from __future__ import annotations

import pytest

from symdistill.answers import AnswerKind
from symdistill.errors import InputError
from symdistill.records import Item
from symdistill.verifiers import read_recovery, recovery_prompt
from symdistill.verifiers.recovery import restates

pytestmark = pytest.mark.unit


def question(text: str, gold: str | None, kind: AnswerKind = "choice", *choices: str) -> Item:
    fields = {"answer_kind": kind, "choices": list(choices)}
    return Item.make("question", text, gold=gold, fields=fields)


SHOP = question("Where do you buy apples?", "B", "choice", "a library", "a market")
SUM = question("Tom has 5 apples and buys 7. How many has he?", "12", "number")


def test_the_prompt_ends_where_the_answer_begins() -> None:
    assert recovery_prompt(SHOP, "Markets sell fruit. ", [(SUM, "5 + 7 = 12.")]) == (
        "Question: Tom has 5 apples and buys 7. How many has he?\n"
        "Reasoning: 5 + 7 = 12.\nAnswer: 12\n\n"
        "Question: Where do you buy apples?\n(A) a library\n(B) a market\n"
        "Reasoning: Markets sell fruit.\nAnswer:"
    )


def test_a_solved_example_needs_its_answer() -> None:
    with pytest.raises(InputError, match="without its answer"):
        recovery_prompt(SHOP, "", [(question("Why?", None), "")])


@pytest.mark.parametrize(
    ("text", "correct"),
    [(" (B)", True), (" B\n\nQuestion: next", True), (" a market", True), (" (A)", False),
     (" (A) or (B)", False), ("", False)],
)  # fmt: skip
def test_what_came_back(text: str, correct: bool) -> None:
    assert read_recovery(text, SHOP).correct is correct


@pytest.mark.parametrize(
    ("item", "rationale", "only"),
    [
        (SHOP, "", True),
        (SHOP, "The answer must be a market.", True),
        (SHOP, "You buy apples at a market.", True),
        (SHOP, "Apples are fruit, and fruit is sold by farmers at stalls.", False),
        (SUM, "Tom has 12 apples.", True),
        (SUM, "5 + 7 = 12, so Tom has 12 apples.", False),
    ],
)
def test_a_rationale_that_restates_is_marked(item: Item, rationale: str, only: bool) -> None:
    assert restates(item, rationale) is only
    found = read_recovery(f" {item.gold}", item, rationale)
    assert found.correct
    assert (found.reason == "restates the answer") is only
