"""From rows to what is judged, and from labels to examples: a clear word for everything wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from symdistill.critic.examples import read_examples, split_examples
from symdistill.critic.forms import Form
from symdistill.errors import InputError

pytestmark = pytest.mark.unit

TRIPLE = {"head": "PersonX misses the bus", "relation": "xWant", "tail": "to call a taxi"}


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        ({}, "statement"),
        ({"text": "line"}, "statement"),
        ({"question": "q"}, "rationale"),
        ({"other": "b"}, "pair"),
        ({"tail": "t"}, "triple"),
    ],
)
def test_the_columns_that_are_named_say_the_form(columns: dict[str, str], name: str) -> None:
    assert Form.of(columns).name == name


def test_every_form_reads_its_columns() -> None:
    row = {"text": " A. ", "question": "Q?", "other": "B.", **TRIPLE}
    assert Form.of({}).read(row) == "A."
    assert Form.of({"question": "question"}).read(row) == ("Q?", "A.")
    assert Form.of({"other": "other"}).read(row) == ("A.", "B.")
    sentence = Form.of({"head": "head"}).read(row)
    assert isinstance(sentence, str)
    assert "PersonX misses the bus" in sentence and "to call a taxi" in sentence
    pair = Form.of({}, name="entailment").read(row)
    assert isinstance(pair, tuple) and pair[0] == "PersonX misses the bus"
    assert "to call a taxi" in pair[1] and "misses" not in pair[1]


def test_an_empty_cell_is_no_text() -> None:
    form = Form.of({"question": "question"})
    assert form.read({"text": "A.", "question": " "}) is None
    assert form.read({"text": float("nan"), "question": "Q?"}) is None
    assert form.read({"text": "A."}) is None


def test_unknown_forms_and_relations_are_told() -> None:
    with pytest.raises(InputError, match=r"among statement, pair.*got 'poem'"):
        Form.of({}, name="poem")
    with pytest.raises(InputError, match=r"got 'xHates' on row 3 of t.csv"):
        Form.of({"head": "head"}).read({**TRIPLE, "relation": "xHates"}, "row 3 of t.csv")


def test_a_form_is_the_same_after_saving(tmp_path: Path) -> None:
    form = Form.of({"head": "h"}, numbers=["p"])
    form.save(tmp_path, "v1")
    loaded = Form.load(tmp_path, "v1")
    row = {**TRIPLE, "h": TRIPLE["head"], "p": "0.5"}
    assert loaded.read(row) == form.read(row)
    assert loaded.read_numbers(row) == (0.5,) and loaded.read_numbers({"p": "nan"}) is None
    with pytest.raises(InputError, match="changed after saving"):
        Form.load(tmp_path, "v2")
    file = tmp_path / "form.json"
    file.write_text(file.read_text("utf-8").replace('"triple"', '"entailment"'), "utf-8")
    with pytest.raises(InputError, match="changed after saving"):
        Form.load(tmp_path, "v1")


def rows(n: int, **cells: Any) -> list[tuple[int, Any]]:
    return [
        (i, {"text": f"line {i}", "ok": "yes" if i % 2 else "no", "of": i % 7, **cells})
        for i in range(1, n + 1)
    ]


def test_what_cannot_be_learnt_from_is_left_out_and_counted() -> None:
    table = rows(20)
    table[0][1]["ok"] = None
    table[1][1]["ok"] = "?"
    table[2][1]["text"] = "  "
    table[3] = (4, "is not JSON")
    table.append((21, {"text": "LINE 20.", "ok": "no", "of": 6}))
    found = read_examples(table, Form.of({}), label="ok", group="of")
    assert len(found.lines) == 16
    assert found.left_out == {
        "without a label": 1, "unsure": 1, "with nothing in text": 1, "is not JSON": 1,
        "said before": 1,
    }  # fmt: skip


def test_labels_may_come_by_row() -> None:
    found = read_examples(
        rows(30), Form.of({}), label={i: "valid" if i < 9 else "invalid" for i in range(1, 20)}
    )
    assert len(found.lines) == 19 and found.valid.sum() == 8
    assert found.left_out == {"without a label": 11}


def test_contradicting_labels_are_named_by_row() -> None:
    table = [*rows(20), (21, {"text": "Line 2", "ok": "yes", "of": 2})]
    with pytest.raises(InputError, match=r"rows 2 and 21 of t.csv call the same text valid and in"):
        read_examples(table, Form.of({}), label="ok", source="t.csv")
    other_group = [*rows(20), (21, {"text": "Line 2", "ok": "yes", "of": "another"})]
    assert read_examples(other_group, Form.of({}), label="ok", group="of").valid.sum() == 11


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (rows(9), "at least 10 labelled lines of both kinds in t.csv; got 5 valid and 4 invalid"),
        (rows(20, ok="true"), "got 20 valid and 0 invalid"),
        (rows(20, ok="maybe"), "got 'maybe' on row 1"),
        (rows(20, ok="\u202e<b>"), r"got '\[U\+202E\]<b>' on row 1"),
        (rows(20, text=""), r"got 0 valid and 0 invalid \(and 20 with nothing in text\)"),
        ([(i, {"txt": "x", "ok": "1"}) for i in range(20)], "a column 'text' in t.csv; the nea"),
        ([(i, {"text": "x", "okay": "1"}) for i in range(20)], "a column 'ok' in t.csv; the n"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(table: list[Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as told:
        read_examples(table, Form.of({}), label="ok", source="t.csv")
    assert "\n" not in str(told.value)


def test_groups_are_whole_and_both_kinds_are_everywhere() -> None:
    table = [
        (i, {"text": f"line {i}", "ok": "1" if i % 3 else "0", "of": i // 4}) for i in range(200)
    ]
    split = split_examples(read_examples(table, Form.of({}), label="ok", group="of"))
    groups = [set(part.groups) for part in split]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    assert [round(len(part.lines) / 40) for part in split] == [3, 1, 1]
    assert all(0.5 < part.valid.mean() < 0.8 for part in split)
    assert split == split_examples(read_examples(table, Form.of({}), label="ok", group="of"))


def test_too_few_groups_to_split_are_told() -> None:
    table = [(i, {**row, "of": i % 3}) for i, row in rows(40)]
    with pytest.raises(InputError, match="got 3 groups"):
        split_examples(read_examples(table, Form.of({}), label="ok", group="of"))
