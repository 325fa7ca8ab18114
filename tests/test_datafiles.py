"""Reading and writing a user's tables."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symdistill.datafiles import read_rows, write_rows
from symdistill.errors import InputError

pytestmark = pytest.mark.unit

ROWS = [
    {"text": 'He said: "no",\nand left.', "score": "0.5"},
    {"text": "שלום <b>", "label": "valid"},
]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_what_is_written_is_read_again(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table{suffix}"
    assert write_rows(path, ROWS) == 2
    read = [row for _, row in read_rows(path)]
    there = [
        {k: v for k, v in row.items() if v is not None} for row in read if not isinstance(row, str)
    ]
    assert there == ROWS
    assert not list(tmp_path.glob("*.aside"))


def test_a_missing_column_names_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_rows(path, [{"text": "a", "scores": "1"}])
    with pytest.raises(InputError, match="the nearest is 'scores'"):
        list(read_rows(path, ["text", "score"]))


def test_bad_rows_have_their_reason(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\n\n[1]\n{"text\n')
    assert list(read_rows(path)) == [
        (1, {"text": "a"}),
        (3, "is not an object with columns"),
        (4, "is not JSON"),
    ]


@pytest.mark.parametrize("name", ["table.xlsx", "missing.csv"])
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="expected a"):
        list(read_rows(tmp_path / name))


@given(st.binary(max_size=300), st.sampled_from([".jsonl", ".csv", ".parquet", ".txt"]))
def test_no_bytes_end_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / f"table{suffix}"
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        list(read_rows(path))
