"""Cases that were once wrong, each with what a user saw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from symdistill.constraints import any_of, contains, excludes, tokens
from symdistill.errors import InputError

pytestmark = pytest.mark.unit
torch = pytest.importorskip("torch")

from tests.decoding.toy import ToyRows  # noqa: E402

from symdistill.decoding import CompiledFormula, TokenTable, constrained_generate  # noqa: E402
from symdistill.decoding.search import SearchSettings, search  # noqa: E402


class Leaning(ToyRows):
    """A toy that likes or dislikes one token."""

    token, bias = 2, 0.0

    def logits_after(self, text: tuple[int, ...]) -> np.ndarray[Any, Any]:
        logits = super().logits_after(text)
        logits[self.token] += self.bias
        return logits


@pytest.mark.parametrize("bias", [-8.0, 0.0, 8.0])
def test_a_phrase_may_hold_a_token_that_also_ends_texts(bias: float) -> None:
    """It was never written where that token was likely."""
    table = TokenTable([b"", b" Dr", b".", b" Who", b" a", b" b"], [0])
    formula = CompiledFormula.compile(contains("Dr. Who"), table)
    for seed in range(5):
        rows = Leaning([(9,)], len(table), seed)
        rows.bias = bias
        ((text,),) = search(
            rows, [formula], SearchSettings(num_beams=4, max_new_tokens=8),
            prompts_before=[""], end_token_ids=[0, 2],
        )  # fmt: skip
        assert text.satisfied


@pytest.mark.parametrize("beams", [1, 4])
def test_exact_tokens_that_go_on_with_a_word_are_written(beams: int) -> None:
    """They had no spelling that fits anywhere, so they came by chance."""
    table = TokenTable([b"", b"a", b"b", *[bytes([99 + i]) for i in range(20)]], [0])
    formula = CompiledFormula.compile(contains(tokens(1, 2)), table)
    ((text,),) = search(
        ToyRows([(9,)], len(table), 3), [formula], SearchSettings(beams, max_new_tokens=6),
        prompts_before=[""], end_token_ids=[0],
    )  # fmt: skip
    assert text.satisfied


def test_an_end_token_in_a_phrase_is_refused() -> None:
    table = TokenTable([b"", b" a", b""], [0])
    formula = CompiledFormula.compile(contains(tokens(1, 2)), table)
    with pytest.raises(InputError, match="no end token inside a phrase, got 2"):
        search(
            ToyRows([(9,)], 3), [formula], SearchSettings(), prompts_before=[""],
            end_token_ids=[0, 2],
        )  # fmt: skip


def test_a_star_inside_a_phrase_is_written() -> None:
    """One star a side lifts a boundary; the others are characters."""
    table = TokenTable([b"", b"*", b" *", b"bold", b" x"], [0])
    formula = CompiledFormula.compile(contains("**bold**"), table)
    ((text,),) = search(
        ToyRows([(9,)], 5), [formula], SearchSettings(max_new_tokens=6),
        prompts_before=[""], end_token_ids=[0],
    )  # fmt: skip
    assert "*bold*" in text.text


def test_what_the_model_lacks_is_never_written() -> None:
    """A tokenizer with added tokens and a model that was not resized: IndexError."""
    table = TokenTable([b"", b" a", b" b", b" cat"], [0])
    for constraint in (excludes("cat"), contains("cat")):
        formula = CompiledFormula.compile(constraint, table)
        ((text,),) = search(
            ToyRows([(9,)], 3), [formula], SearchSettings(max_new_tokens=3),
            prompts_before=[""], end_token_ids=[0],
        )  # fmt: skip
        assert 3 not in text.token_ids


def test_an_own_spelling_is_not_lost_to_an_earlier_compilation() -> None:
    table = TokenTable([b"", b" a", b" ", b"a"], [0])
    first = CompiledFormula.compile(contains("a"), table)
    second = CompiledFormula.compile(contains("a"), table, lambda text: [2, 3])
    assert first.spellings != second.spellings


@pytest.mark.parametrize("wrong", [["dog"], any_of("dog"), [contains("a"), "b"]])
def test_what_is_no_constraint_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match="expected constraints such as contains"):
        constrained_generate(_Model(), None, ["a"] * 2, wrong)


@pytest.mark.parametrize("wrong", [2.5, True, 0])
def test_numbers_of_beams_are_whole(wrong: Any) -> None:
    with pytest.raises(InputError, match="num_beams"):
        SearchSettings(num_beams=wrong)


def test_a_model_in_training_is_refused() -> None:
    model = _Model()
    model.training = True
    with pytest.raises(InputError, match=r"model\.eval"):
        constrained_generate(model, None, ["a"])


class _Model:
    training = False
