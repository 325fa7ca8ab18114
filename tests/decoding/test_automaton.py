"""The automaton counts what the definition of a match counts, character by character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symdistill.constraints import Pattern, any_of, at_most, fold
from symdistill.decoding.automaton import PhraseAutomaton
from symdistill.errors import InputError

pytestmark = pytest.mark.unit

CHARACTERS = "ab é'-_3"
texts = st.text(alphabet=CHARACTERS + "A\n’", max_size=14)
phrases = st.lists(
    st.text(alphabet=CHARACTERS + "B*", min_size=1, max_size=5).filter(
        lambda one: any(c.isalnum() or c == "_" for c in one)
    ),
    min_size=1,
    max_size=4,
)


def compiled(words: list[str]) -> PhraseAutomaton:
    return PhraseAutomaton([Pattern.of(one) for one in any_of(words).phrases])


@given(texts, phrases, st.sampled_from(["", "a", " ", "'"]))
def test_counts_after_every_prefix_are_those_of_explain(
    text: str, words: list[str], before: str
) -> None:
    automaton = compiled(words)
    state, confirmed = automaton.start(before), 0
    for end in range(len(text) + 1):
        total = confirmed + int(automaton.confirmed_at_end[state])
        assert total == at_most(0, words).explain(text[:end], before)[0].count
        if end < len(text):
            state, hits = automaton.walk(state, fold(text[end]))
            confirmed += hits


def test_a_word_is_confirmed_when_it_ends_and_not_before() -> None:
    automaton = compiled(["the"])
    state, confirmed = automaton.walk(automaton.start(), "the")
    assert confirmed == 0
    assert automaton.confirmed_at_end[state] == 1
    assert automaton.walk(state, " ")[1] == 1
    assert automaton.walk(state, "y") == (automaton.walk(automaton.start(), "they")[0], 0)


def test_the_prompts_last_character_decides_where_the_first_word_begins() -> None:
    automaton = compiled(["the"])
    assert automaton.walk(automaton.start("ba"), "the ")[1] == 0
    assert automaton.walk(automaton.start("ba "), "the ")[1] == 1


def test_tables_that_would_not_fit_are_refused() -> None:
    words = [chr(0x4E00 + i) + "x" * 199 for i in range(5_000)]
    with pytest.raises(InputError, match="fewer or shorter"):
        PhraseAutomaton([Pattern.of(one) for one in words])
