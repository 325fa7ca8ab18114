"""Identity of records: what makes two lines the same line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symdistill.records import (
    Item,
    Knowledge,
    Lineage,
    canonical_json,
    content_hash,
    merge_repeats,
    normalise,
)

pytestmark = pytest.mark.unit


def written(text: str, item: str = "i", *, round: int = 0, key: str = "k") -> Knowledge:
    lineage = Lineage("t", key, "p", "{}", 1, round)
    return Knowledge.make("statement", text, item, lineage=(lineage,))


def test_a_line_is_the_same_whatever_its_case_spaces_and_final_stop() -> None:
    assert written("Dogs can bark.").id == written("dogs  can bark").id
    assert written("Dogs can bark.").id != written("Dogs can bite.").id
    assert written("Dogs can bark.", "dog").id != written("Dogs can bark.", "hound").id


def test_a_repeat_adds_an_occasion_and_not_a_row() -> None:
    lines = [written("Dogs bark.", key="a"), written("Cats purr."), written("dogs bark", key="b")]
    merged = merge_repeats(lines)
    assert [line.text for line in merged] == ["Dogs bark.", "Cats purr."]
    assert [one.request_key for one in merged[0].lineage] == ["a", "b"]
    assert merge_repeats([*lines, *lines]) == merged


def test_a_line_does_not_take_the_history_of_another() -> None:
    with pytest.raises(ValueError, match="repeat of line"):
        written("Dogs bark.").repeated(written("Cats purr."))


def test_kinds_part_items() -> None:
    assert Item.make("concept", "Run").id == Item.make("concept", " run ").id
    assert Item.make("concept", "run").id != Item.make("goal", "run").id


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none()))
def test_the_hash_does_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    turned = dict(reversed(list(value.items())))
    assert content_hash(value) == content_hash(turned)
    assert canonical_json(value) == canonical_json(turned)


@given(st.text())
def test_normalising_twice_is_normalising_once(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)
