"""Questions from tables: every valid row once, bad ones with their reason; prompts from columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symdistill.errors import InputError
from symdistill.records import Item
from symdistill.sources.concepts import Rejected
from symdistill.sources.questions import Template, draw, read_questions

pytestmark = pytest.mark.unit

ROWS = [
    {"text": "Is water wet?", "topic": "water", "gold": "yes", "split": "test"},
    {"text": "Is fire cold?", "topic": "fire", "gold": "no", "split": "train"},
]


def table(folder: Path, kind: str, rows: Sequence[dict[str, Any]] = ROWS) -> Path:
    path = folder / f"questions.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "csv":
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(f"{row['text']}\n" for row in rows))
    return path


def read(path: Path | str, **how: Any) -> tuple[list[Item], list[Rejected]]:
    found = list(read_questions(path, **how))
    items = [one for one in found if isinstance(one, Item)]
    return items, [one for one in found if isinstance(one, Rejected)]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_rows_become_items_with_their_columns(tmp_path: Path, kind: str) -> None:
    items, refused = read(table(tmp_path, kind))
    assert not refused
    assert [item.text for item in items] == ["Is water wet?", "Is fire cold?"]
    assert items[0].kind == "question" and items[0].fields == {"topic": "water"}
    assert (items[0].gold, items[0].split) == ("yes", "test")


def test_the_same_rows_in_another_format_are_the_same_items(tmp_path: Path) -> None:
    found = [read(table(tmp_path, kind))[0] for kind in ("jsonl", "csv", "parquet")]
    assert found[0] == found[1] == found[2]


def test_a_text_file_holds_a_question_per_line(tmp_path: Path) -> None:
    path = tmp_path / "questions.txt"
    path.write_bytes("\ufeffIs it?\r\n\n  What is «é»?  \n".encode() + b"\xff\xfe\n")
    items, refused = read(path)
    assert [item.text for item in items] == ["Is it?", "What is «é»?"]
    assert [(one.row, one.reason) for one in refused] == [(4, "is not UTF-8 text")]


def test_the_packaged_concepts_can_be_asked_about() -> None:
    items, refused = read("everyday")
    assert len(items) > 100 and not refused
    assert "plural" in items[0].fields


BAD_ROWS = [
    ('{"text": "Is it?"', "is not JSON"),
    ('"Is it?"', "is not an object with columns"),
    ('{"txt": "Is it?"}', "has no 'text'"),
    ('{"text": null}', "has no 'text'"),
    ('{"text": NaN}', "has no 'text'"),
    ('{"text": 5}', "has no text in 'text'"),
    ('{"text": " "}', "has no text in 'text'"),
    ('{"text": "Good?"}', "repeats an earlier row"),
    ('{"text": "Half \\ud800?"}', "has a column that JSON cannot hold"),
    ('{"text": "Is it?", "n": [NaN]}', "has a column that JSON cannot hold"),
    ("[" * 100_000, "is not JSON"),
    ("\x00", "is not JSON"),
]


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS)
def test_a_bad_row_is_refused_with_its_reason(tmp_path: Path, row: str, reason: str) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(f'{{"text": "Good?"}}\n{row}\n{{"text": "Good too?"}}\n')
    items, (refused,) = read(path)
    assert len(items) == 2
    assert (refused.row, refused.reason) == (2, reason)
    refused.text.encode()


def test_rows_that_differ_in_any_column_are_different_questions(tmp_path: Path) -> None:
    rows = [{"text": "Is it?", "about": "a"}, {"text": "Is it?", "about": "b"}, {"text": "is it?"}]
    items, refused = read(table(tmp_path, "jsonl", rows))
    assert len({item.id for item in items}) == 3 and not refused


def test_an_id_column_tells_rows_apart(tmp_path: Path) -> None:
    rows = [
        {"text": "Is it?", "n": 1, "note": "x"},
        {"text": "Is it so?", "n": 1},
        {"text": "Is it?", "n": 2},
    ]
    path = table(tmp_path, "jsonl", rows)
    items, refused = read(path, id_column="n")
    assert [item.fields["n"] for item in items] == [1, 2]
    assert [one.reason for one in refused] == ["repeats an earlier row"]
    path.write_text('{"text": "Is it after all?", "n": 2}\n')
    assert read(path, id_column="n")[0][0].id == items[1].id


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "txt"])
def test_a_missing_column_is_told_with_the_nearest(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match=r"a column 'texts' in .*nearest is 'text'"):
        read(table(tmp_path, kind), needs=["texts"])


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("absent.jsonl", None, "No such file"),
        ("x.xlsx", b"", r"\.jsonl, \.csv, \.tsv, \.parquet, \.txt"),
        ("x.jsonl", b"", "got nothing"),
        ("x.jsonl", b"not\n", "row 1 is not JSON"),
        ("x.txt", b"\n\n", "got nothing"),
        ("x.csv", b"", "the file is empty"),
        ("x.csv", b"text\n", "got nothing"),
        ("x.csv", b"text\n\xff\n", "readable"),
        ("x.parquet", b"PAR1", "readable"),
    ],
)
def test_a_source_that_cannot_be_read_is_told(
    tmp_path: Path, name: str, content: bytes | None, told: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=told) as error:
        read(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_csv_row_with_too_many_cells_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('text,topic\n"Is it, or not?",a\nIs it, or not?,a\n"Two\nlines?",\n')
    items, refused = read(path)
    assert [item.text for item in items] == ["Is it, or not?", "Two\nlines?"]
    assert [one.reason for one in refused] == ["has more cells than there are columns"]


# -- a sample -----------------------------------------------------------------------------------


@given(st.integers(0, 30), st.integers(1, 40), st.integers(1, 40), st.integers(0, 3))
def test_a_sample_is_seeded_ordered_and_nested(n: int, less: int, more: int, seed: int) -> None:
    items = [Item.make("question", f"question {i}") for i in range(n)]
    less, more = sorted([less, more])
    small, large = draw(iter(items), less, seed), draw(iter(items), more, seed)
    assert len(small) == min(n, less)
    assert [item for item in items if item in large] == large
    assert [item for item in large if item in small] == small


# -- templates ----------------------------------------------------------------------------------


def item(text: str = "wet?", **fields: Any) -> Item:
    return Item("id", "question", text, fields=fields, gold="yes")


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("{text}", "wet?"),
        ("Is {topic} {text}", "Is water wet?"),
        ("{n} {flag} {list}", '3 true ["a", "é"]'),
        ("{gold}", "yes"),
        ('{{"question": "{text}"}}', '{"question": "wet?"}'),
        ("{two words}", "2"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_a_template_is_filled(template: str, prompt: str) -> None:
    one = item(topic="water", n=3, flag=True, list=["a", "é"], **{"two words": 2})
    assert Template(template).fill(one) == prompt


@given(st.text(max_size=20))
def test_what_is_filled_in_is_not_read_as_a_template(text: str) -> None:
    assert Template("a {text} b").fill(item(text)) == f"a {text} b"
    assert Template("{q}").fill(item(text), "q") == text


@pytest.mark.parametrize(
    "template",
    ["{text", "text}", "{}", "{text!r}", "{text:>9}", "{text.__class__}", "{text[0]}", "{a{b}}"],
)
def test_a_template_with_anything_but_columns_is_refused(template: str) -> None:
    with pytest.raises(InputError, match="braces") as error:
        Template(template)
    assert "\n" not in str(error.value)
