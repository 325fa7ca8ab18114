"""Reading and writing a user's tables."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symdistill.datafiles import read_rows, write_aside, write_rows
from symdistill.errors import InputError, RunError

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


def test_many_writers_of_one_file_leave_one_whole_text(tmp_path: Path) -> None:
    path = tmp_path / "new" / "text.json"
    texts = [letter * 10_000 for letter in "abcdef"]
    failed: list[Exception] = []

    def write(text: str) -> None:
        try:
            for _ in range(20):
                write_aside(path, text)
                write_rows(path.with_name("rows.csv"), [{"text": text}])
        except Exception as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=[text]) for text in texts]
    for one in writers:
        one.start()
    while any(one.is_alive() for one in writers):
        if path.exists():
            assert path.read_text() in texts
    assert not failed
    assert sorted(one.name for one in path.parent.iterdir()) == ["rows.csv", "text.json"]


def test_what_cannot_be_written_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="expected to write"):
        write_aside(tmp_path / "file" / "text.json", "text")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match="expected to write"):
        write_aside(tmp_path / "folder", "text")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", b'text;p\n"a, b";0,5\n'),
        ("t.csv", "text\tp\na, b\t0,5\n".encode("utf-16")),
        ("t.csv", b"\xef\xbb\xbftext\tp\na, b\t0,5\n"),
        ("t.tsv", b"text\tp\na, b\t0,5\n"),
        ("t.jsonl", '{"text": "a, b", "p": "0,5"}\n'.encode("utf-16")),
    ],
)
def test_what_spreadsheets_write_is_read(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert list(read_rows(tmp_path / name, ["text"])) == [(1, {"text": "a, b", "p": "0,5"})]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", "text\nschön\n".encode("latin-1"), "save it as UTF-8"),
        ("t.csv", b"", "the file is empty"),
        ("t.csv.gz", b"", "unpack it"),
        ("t.csv", b"Text,p\n", "the nearest is 'Text'; its columns"),
        ("t.csv", b"p,q\n", r"t.csv; its columns are p, q"),
    ],
)
def test_what_to_do_is_told(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        list(read_rows(tmp_path / name, ["text"]))
