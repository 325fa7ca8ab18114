"""Specificity tells lines about a concept from lines about anything."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symdistill.evaluation.specificity import (
    content_word_rarity,
    content_words,
    specificity,
)

pytestmark = pytest.mark.unit
LOGPROB = st.floats(-300, -0.01)


@given(st.lists(st.tuples(LOGPROB, st.lists(LOGPROB, min_size=3, max_size=3)), min_size=1))
def test_by_definition(rows: list[tuple[float, list[float]]]) -> None:
    values = specificity([own for own, _ in rows], [others for _, others in rows])
    for value, (own, others) in zip(values, rows, strict=True):
        top = max(others)
        mean = top + math.log(sum(math.exp(o - top) for o in others) / 3)
        assert value == pytest.approx(own - mean, abs=1e-9)


def test_is_zero_for_a_line_that_fits_anything_and_never_overflows() -> None:
    assert specificity([-5.0], [[-5.0] * 4]).tolist() == [0.0]
    assert specificity([-5000.0], [[-9000.0, -9000.0]])[0] == pytest.approx(4000)


def test_is_the_mutual_information_of_a_known_world() -> None:
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.1, 0.2, 0.7]])  # concept x line
    others = np.log(np.stack([p[[1, 2], 0], p[[1, 2], 1]]))  # lines 0 and 1 of concept 0
    values = specificity(np.log(p[0, :2]), others)
    assert values.tolist() == pytest.approx([math.log(7), 0.0])


@pytest.mark.parametrize(
    ("own", "others"),
    [([-1.0], [-1.0]), ([-1.0], [[-1.0], [-2.0]]), ([[-1.0]], [[-1.0]])],
)
def test_wrong_shapes(own: object, others: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        specificity(own, others)  # type: ignore[arg-type]


def test_is_nan_without_other_concepts() -> None:
    assert np.isnan(specificity([-1.0, -2.0], np.zeros((2, 0)))).all()


def test_content_words() -> None:
    text = "The Dog's well-known tricks aren't THE best, 3 of them."
    assert content_words(text, ["the", "Of"]) == [
        "dog's", "well-known", "tricks", "aren't", "best", "them",
    ]  # fmt: skip


def test_rarity_by_hand() -> None:
    references = ["Birds are many things", "Ants are things", "Bees make honey", "Cats purr"]
    vague, rich, empty, unseen = content_word_rarity(
        ["They are things.", "Bees make honey.", "are, the", "Zebras"],
        references,
        ["ARE", "they", "the"],
    )
    assert vague == pytest.approx(math.log(2))
    assert rich == pytest.approx(math.log(4))
    assert np.isnan(empty)
    assert unseen == pytest.approx(math.log(8))
    with pytest.raises(ValueError, match="reference"):
        content_word_rarity(["x"], [], [])
