"""Mapping over batches: the same batches and the same order, however it is run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symdistill.engine import map_batches

pytestmark = pytest.mark.unit


@given(
    st.lists(st.text(max_size=4), unique=True, max_size=30), st.integers(1, 7), st.integers(1, 4)
)
def test_results_come_in_the_order_of_ids(rows: list[str], size: int, workers: int) -> None:
    seen: list[list[str]] = []

    def shout(batch: list[str]) -> list[str]:
        seen.append(batch)
        return [row + "!" for row in batch]

    given_out = list(map_batches(shout, rows, key=str, batch_size=size, workers=workers))
    assert [row for batch in given_out for row in batch] == [row + "!" for row in sorted(rows)]
    cut = [sorted(rows)[i : i + size] for i in range(0, len(rows), size)]
    assert sorted(seen) == sorted(cut)


def test_two_rows_with_one_id_are_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        list(map_batches(list, ["a", "a"], key=str, batch_size=2))


def test_a_lost_result_is_noticed() -> None:
    with pytest.raises(ValueError, match="expected 2 results"):
        list(map_batches(lambda batch: batch[:1], ["a", "b"], key=str, batch_size=2))
