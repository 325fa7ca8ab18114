"""Votes and agreement: empty answers have no voice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symdistill.verifiers import agree, vote

pytestmark = pytest.mark.unit


def test_the_majority_wins() -> None:
    found = vote(["5", "7", "7.0", None], "number")
    assert (found.answer, found.votes, found.counts) == ("7", 3, {"5": 1, "7": 2})
    assert found.confidence == pytest.approx(2 / 3)
    assert not found.tied


def test_empty_answers_never_vote() -> None:
    # lm_eval 0.4.13 counts "[invalid]" as an answer, and lets it win here
    assert vote([None, None, "3"], "number").answer == "3"
    assert vote([None, ""], "number").answer is None
    assert vote([], "number").confidence == 0


def test_a_tie_goes_to_the_first_and_is_told() -> None:
    found = vote(["B", "A", "A", "B"], "choice")
    assert (found.answer, found.tied) == ("B", True)


def test_confidences_weigh() -> None:
    found = vote(["A", "A", "B"], "choice", confidences=[0.1, 0.2, 0.9])
    assert (found.answer, found.counts) == ("B", {"A": 2, "B": 1})
    assert found.confidence == pytest.approx(0.75)
    with pytest.raises(ValueError, match="shorter"):
        vote(["A", "B"], "choice", confidences=[1.0])


@given(st.lists(st.sampled_from([None, "1", "2", "3"])))
def test_shares(answers: list[str | None]) -> None:
    found = vote(answers, "number")
    given = [one for one in answers if one]
    assert found.votes == len(given) == sum(found.counts.values())
    if given:
        assert found.counts[str(found.answer)] == max(found.counts.values())
        assert found.confidence == pytest.approx(max(found.counts.values()) / len(given))


def test_agreement_needs_two_answers() -> None:
    assert agree("3/4", "0.75", "number")
    assert not agree("3", "4", "number")
    assert not agree(None, None, "number")
    assert not agree("", "", "number")
