"""Answers as files: what goes out comes back, and a wrong file is refused whole."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symdistill.errors import InputError
from symdistill.labelling.formats import Format, read_answers, write_answers
from symdistill.labelling.store import Draw, Given, Shown, name_of

pytestmark = pytest.mark.unit
_NUMBER = count()

ITEMS = (
    Shown("b", "A kettle <b>boils</b> water.", "kettle"),
    Shown("a", 'שלום "quoted", comma', "greeting"),
    Shown("c", "line\nbreak", None),
)
DRAW = Draw("d", "certificate", "2026-01-01", 0, "p", {"how": "random"}, ITEMS, 1)
AT = "2026-01-01T00:00:00+00:00"
GIVEN = [
    Given("d", "b", "ann", "valid", False, AT, 1.5, ""),
    Given("d", "b", "bob", "invalid", False, AT, None, 'because, "so"'),
    Given("d", "a", "ann", "unsure", False, AT, 2.0, ""),
]
AGAIN = Given("d", "b", "ann", "invalid", True, AT, None, "")
FILES: Sequence[tuple[Format, str]] = [
    ("jsonl", "f.jsonl"),
    ("csv", "f.csv"),
    ("argilla", "f.json"),
    ("label-studio", "f.json"),
]


def read(path: Path, **kwargs: Any) -> list[Given]:
    kwargs = {"annotator": "me", "purpose": "certificate", "draw": "d"} | kwargs
    return read_answers(path, {"a", "b", "c"}, **kwargs)


def written(path: Path, content: str | list[dict[str, Any]]) -> Path:
    if isinstance(content, list):
        content = "".join(json.dumps(row) + "\n" for row in content)
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(("format", "name"), FILES)
def test_answers_come_back(tmp_path: Path, format: Format, name: str) -> None:
    other = Given("other", "a", "ann", "invalid", False, AT, None, "")
    write_answers(tmp_path / name, DRAW, [*GIVEN, other], format=format)
    for back in (read(tmp_path / name, format=format), read(tmp_path / name)):
        if format == "argilla":  # has no place for notes and times
            back = [replace(one, at=AT, seconds=each.seconds, note=each.note)
                    for one, each in zip(back, GIVEN, strict=True)]  # fmt: skip
        assert back == GIVEN


@pytest.mark.parametrize("name", ["f.jsonl", "f.csv"])
def test_second_answers_come_back(tmp_path: Path, name: str) -> None:
    write_answers(tmp_path / name, DRAW, [*GIVEN, AGAIN])
    assert read(tmp_path / name) == [*GIVEN, AGAIN]


def test_a_draw_to_be_labelled_has_the_order_of_the_draw_and_no_score(tmp_path: Path) -> None:
    assert write_answers(tmp_path / "f.csv", DRAW) == 4
    rows = list(csv.DictReader((tmp_path / "f.csv").open(encoding="utf-8-sig")))
    assert [row["id"] for row in rows] == ["b", "a", "c", "b"]  # the last one is the repeat
    assert list(rows[0]) == ["id", "text", "question", "label", "again"]
    assert {row["label"] for row in rows} == {""}
    assert rows[1]["text"] == ITEMS[1].text


def test_the_label_column_may_be_filled_in_by_hand(tmp_path: Path) -> None:
    rows = "id,text,label\nb,x,YES\na,y,\nc,z, 0 \n"
    back = read(written(tmp_path / "f.csv", rows))
    assert [(one.line_id, one.answer, one.annotator) for one in back] == [
        ("b", "valid", "me"),
        ("c", "invalid", "me"),
    ]


def test_argilla_records_have_the_keys_of_its_own_export(tmp_path: Path) -> None:
    write_answers(tmp_path / "f.json", DRAW, GIVEN, format="argilla")
    first, _, last = json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))
    assert set(first) == {"id", "fields", "metadata", "suggestions", "responses", "vectors",
                          "status", "_server_id"}  # fmt: skip
    assert first["responses"]["label"][0] == {"value": "valid", "user_id": "ann"}
    assert (last["responses"], last["status"]) == ({}, "pending")


def test_an_export_of_label_studio_is_read(tmp_path: Path) -> None:
    def result(choice: str) -> list[dict[str, Any]]:
        return [{"id": "x", "from_name": "sentiment", "to_name": "text", "type": "choices",
                 "origin": "manual", "value": {"choices": [choice]}}]  # fmt: skip

    tasks = [
        {
            "id": 1,
            "data": {"line_id": "a", "text": "x"},
            "annotations": [
                {"completed_by": 7, "result": result("Valid"), "lead_time": 4.2},
                {"completed_by": {"id": 8, "email": "b@c.de"}, "result": result("invalid")},
                {"completed_by": 9, "result": [], "was_cancelled": True},
            ],
            "predictions": [{"result": result("unsure")}],
        }
    ]
    (tmp_path / "f.json").write_text(json.dumps(tasks))
    assert [(one.annotator, one.answer, one.seconds) for one in read(tmp_path / "f.json")] == [
        ("7", "valid", 4.2),
        ("b@c.de", "invalid", None),
    ]


def test_an_export_of_argilla_is_read(tmp_path: Path) -> None:
    record = {
        "id": "a",
        "fields": {"text": "x"},
        "suggestions": {"quality": {"value": "invalid", "score": 0.9, "agent": "gpt"}},
        "responses": {"quality": [{"value": "valid", "user_id": "0c2b"}]},
        "status": "completed",
    }
    (tmp_path / "f.json").write_text(json.dumps([record]))
    (one,) = read(tmp_path / "f.json")
    assert (one.line_id, one.annotator, one.answer) == ("a", "0c2b", "valid")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            [{"id": f"x{i}", "label": "valid"} for i in range(12)],
            "12 are not: 'x0' on row 1, 'x1' on ",
        ),
        ([{"id": "a", "label": "perhaps"}], "'perhaps' on row 1"),
        ([{"id": "a", "label": "first"}], "'first'"),
        ([{"id": "a", "label": "valid"}, {"id": "a", "label": "no"}], "valid and, on row 2, inval"),
        ([{"id": ["a"], "label": "valid"}], "expected an id on row 1"),
        ([{"text": "a", "label": "valid"}], "expected an id on row 1"),
        ([{"id": "a", "text": "x"}], "expected a column 'label'"),
        ([{"id": "a", "label": None}, {"id": "b", "label": " "}], "every label is empty"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, rows: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(InputError) as error:
        read(written(tmp_path / "f.jsonl", rows))
    assert words in str(error.value)


def test_the_same_answer_twice_is_one(tmp_path: Path) -> None:
    row = {"id": "a", "label": "valid"}
    assert len(read(written(tmp_path / "f.jsonl", [row, row, row | {"annotator": "bob"}]))) == 2


def test_a_comparison_has_its_own_words(tmp_path: Path) -> None:
    path = written(tmp_path / "f.jsonl", [{"id": "a", "label": "Second"}])
    assert read(path, purpose="compare")[0].answer == "second"
    path = written(tmp_path / "f.jsonl", [{"id": "a", "label": "valid"}])
    with pytest.raises(InputError, match="expected first, second"):
        read(path, purpose="compare")


@pytest.mark.parametrize(
    ("name", "format"), [("f.txt", None), ("f.json", None), ("f.csv", "argilla"), ("f", "csv")]
)
def test_a_suffix_has_to_fit(tmp_path: Path, name: str, format: Format | None) -> None:
    with pytest.raises(InputError, match="suffix"):
        write_answers(tmp_path / name, DRAW, format=format)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("f.csv", "f.jsonl", "f.json"):
        with pytest.raises(InputError, match="No such file"):
            read(tmp_path / name)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(["a", "valid"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["id", "label", "fields", "data", "line_id", "responses", "value",
                         "annotations", "result", "choices", "type", "text", "completed_by"]),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip
contents = (
    st.binary(max_size=60)
    | json_values.map(lambda value: json.dumps(value).encode())
    | json_values.map(lambda value: b"id,label\n" + json.dumps(value).encode())
)


@settings(max_examples=150)
@given(contents, st.sampled_from([*FILES, (None, "f.json"), (None, "f.parquet"), (None, "f.csv")]))
def test_no_bytes_end_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, kind: tuple[Format | None, str]
) -> None:
    format, name = kind
    path = tmp_path_factory.getbasetemp() / f"fuzz{next(_NUMBER)}{name}"
    path.write_bytes(content)
    try:
        answers = read(path, format=format)
    except InputError:
        return
    finally:
        path.unlink()
    assert all(one.line_id in ("a", "b", "c") for one in answers)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.text(max_size=8), st.text(max_size=8)),
                unique_by=lambda one: (one[0], name_of(one[1])), max_size=5),
       st.sampled_from(FILES))  # fmt: skip
def test_any_names_and_notes_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    said: list[tuple[str, str, str]],
    kind: tuple[Format, str],
) -> None:
    format, name = kind
    answers = [
        Given("d", line, name_of(who), "valid", False, AT, None, note.strip())
        for line, who, note in said
        if name_of(who)
    ]
    path = tmp_path_factory.getbasetemp() / f"round{next(_NUMBER)}{name}"
    write_answers(path, DRAW, answers, format=format)
    if answers:
        back = read(path, format=format)
        assert {(one.line_id, one.annotator) for one in back} == {
            (one.line_id, one.annotator) for one in answers
        }
        if format != "argilla":
            assert {one.note for one in back} == {one.note for one in answers}
    path.unlink()


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\t=1", "'=1", "''-1"])
def test_a_spreadsheet_is_given_no_formula_and_text_comes_back(tmp_path: Path, text: str) -> None:
    one = Draw("d", "certificate", "", 0, "p", {}, (Shown(text, text, text),))
    note = "-" + text.strip()
    write_answers(
        tmp_path / "f.csv", one, [Given("d", text, "@ann", "valid", False, AT, None, note)]
    )
    (row,) = csv.DictReader((tmp_path / "f.csv").open(encoding="utf-8-sig", newline=""))
    for name in ("id", "text", "question", "annotator", "note"):
        assert row[name].startswith("'"), name
    (back,) = read_answers(tmp_path / "f.csv", {text}, annotator="me")
    assert (back.line_id, back.annotator, back.note) == (text, "@ann", note)


def test_one_annotator_typed_in_two_ways_cannot_contradict(tmp_path: Path) -> None:
    rows = [{"id": "a", "label": "valid", "annotator": "Anna B"},
            {"id": "a", "label": "invalid", "annotator": " Anna  B"}]  # fmt: skip
    with pytest.raises(InputError, match="expected one answer of 'Anna B'"):
        read(written(tmp_path / "f.jsonl", rows))


def test_keys_are_words_and_na_is_none(tmp_path: Path) -> None:
    back = read(written(tmp_path / "f.csv", "id;label\na;v\nb;I\nc;NA\n"))
    assert [one.answer for one in back] == ["valid", "invalid"]
    path = written(tmp_path / "f.tsv", "id\tlabel\na\tx\nb\t2\n")
    assert [one.answer for one in read(path, purpose="compare")] == ["neither", "second"]


def test_the_first_bad_row_is_named(tmp_path: Path) -> None:
    rows = ["a,valid", "z,valid", "b,perhaps"]
    for order, words in ((rows, "'z' on row 2 after"), (rows[::-1], "'perhaps' on row 1 after")):
        with pytest.raises(InputError, match=words):
            read(written(tmp_path / "f.csv", "\n".join(["id,label", *order])))
