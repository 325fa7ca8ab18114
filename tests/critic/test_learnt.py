"""Which lines a critic learnt from, by text; and which ids they may go by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from symdistill.critic.forms import Form
from symdistill.critic.learnt import (
    Learnt,
    carry_over,
    row_ids,
    save_learnt,
    withdrawn_rows,
)
from symdistill.datafiles import read_rows
from symdistill.errors import InputError
from symdistill.pool import home_of, read_pool, withdrawn_ids

pytestmark = pytest.mark.unit


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_texts_are_known_again(tmp_path: Path) -> None:
    save_learnt(tmp_path, "v1", ["A cat  sleeps.", ("Who?", "He.")], ["x1"])
    learnt = Learnt.load(tmp_path, "v1")
    assert "A cat sleeps." in learnt and ("Who?", "He.") in learnt
    assert "A dog sleeps." not in learnt and ("He.", "Who?") not in learnt
    with pytest.raises(InputError, match="expected the critic of version v1"):
        Learnt.load(tmp_path, "v2")
    (tmp_path / "learnt.json").unlink()
    with pytest.raises(InputError, match="expected a saved critic"):
        Learnt.load(tmp_path, "v1")


@pytest.mark.parametrize(
    ("columns", "readings"),
    [
        ({}, [{}]),
        ({"question": "q"}, [{}, {"question": "q"}]),
        ({"other": "q", "text": "t"}, [{}, {"text": "t"}, {"text": "t", "question": "q"}]),
        ({"head": "q", "tail": "t"}, [{}, {"text": "t"}, {"text": "t", "question": "q"}]),
    ],
)
def test_a_row_has_the_ids_of_every_way_to_read_it(
    tmp_path: Path, columns: dict[str, str], readings: list[dict[str, str]]
) -> None:
    lines = write(
        tmp_path / "lines.jsonl",
        *({"text": f"say {i % 2}", "q": f"ask {i}", "t": "then", "id": i} for i in range(4)),
    )
    found = row_ids(lines, read_rows(lines), Form.of(columns))
    for reading in readings:
        for line in read_pool(lines, **reading).lines:  # type: ignore[arg-type]
            assert line.id in found[line.number]
    assert all(str(number - 1) in ids for number, ids in found.items())


def test_an_empty_text_column_is_none(tmp_path: Path) -> None:
    lines = write(tmp_path / "lines.jsonl", {"head": "h", "tail": "t", "text": None})
    assert len(row_ids(lines, read_rows(lines), Form.of({"head": "head"}))[1]) == 2


def test_what_is_known_of_a_table_is_known_of_its_scores(tmp_path: Path) -> None:
    lines = write(tmp_path / "a.jsonl", *({"text": f"say {i}", "id": i} for i in range(4)))
    scored = write(tmp_path / "b.jsonl", *read_rows_of(lines))
    first, second = (one.id for one in read_pool(lines).lines[:2])
    home_of(lines).mkdir()
    write(home_of(lines) / "withdrawn.jsonl", {"id": first, "why": "rude"},
          {"id": "3", "why": "odd"}, {"id": second, "why": ""},
          {"id": second, "why": "", "undone": True})  # fmt: skip
    assert withdrawn_rows(lines, read_rows(lines), Form.of({})) == {1, 4}
    for critic, learnt in (("v1", {second}), ("v2", {"x9"})):
        carry_over(lines, scored, column="score", critic=critic, learnt=learnt)
        assert json.loads((home_of(scored) / "learnt.json").read_text("utf-8")) == {
            "column": "score", "critic": critic, "ids": sorted(learnt)
        }  # fmt: skip
    assert withdrawn_ids(home_of(scored)) == {first: "rude", "3": "odd"}
    assert len((home_of(scored) / "withdrawn.jsonl").read_text("utf-8").splitlines()) == 2
    carry_over(scored, tmp_path / "c.jsonl", column="other", critic="v3", learnt={second})
    again = json.loads((home_of(tmp_path / "c.jsonl") / "learnt.json").read_text("utf-8"))
    assert again["ids"] == sorted({second, "x9"})  # the scores of v2 are in that table, too


def test_a_torn_list_of_withdrawals_is_added_to(tmp_path: Path) -> None:
    lines = write(tmp_path / "a.jsonl", {"text": "say"})
    scored = tmp_path / "b.jsonl"
    for home in (home_of(lines), home_of(scored)):
        home.mkdir()
    write(home_of(lines) / "withdrawn.jsonl", {"id": "a", "why": "odd"})
    (home_of(scored) / "withdrawn.jsonl").write_text('{"id": "b", "why": "own"}\n{"id": "to')
    carry_over(lines, scored, column="score", critic="v", learnt=set())
    assert withdrawn_ids(home_of(scored)) == {"b": "own", "a": "odd"}


def read_rows_of(path: Path) -> list[dict[str, Any]]:
    return [dict(row) for _, row in read_rows(path) if not isinstance(row, str)]
