"""The lines to be judged, from files and from runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from symdistill.datafiles import write_rows
from symdistill.errors import InputError
from symdistill.pool import home_of, read_pool, withdrawn_ids, words_of
from symdistill.records import Item, Knowledge, Verdict
from symdistill.tables import write_records

pytestmark = pytest.mark.unit


def table(tmp_path: Path, rows: list[dict[str, object]], name: str = "lines.jsonl") -> Path:
    path = tmp_path / name
    write_rows(path, rows)
    return path


def test_ids_do_not_depend_on_scores_labels_or_order(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"text": f"line {i}", "p": i / 10} for i in range(9)]
    before = read_pool(table(tmp_path, rows), score="p")
    labelled = [{**row, "label": "valid"} for row in reversed(rows)]
    after = read_pool(table(tmp_path, labelled), score="p", label="label")
    assert {one.id for one in before.lines} == {one.id for one in after.lines}
    assert before.hash == after.hash
    assert [one.id for one in before.ranked()] == [one.id for one in after.ranked()]
    rows[3]["p"] = 0.35
    assert read_pool(table(tmp_path, rows), score="p").hash != before.hash


def test_ties_are_broken_the_same_in_any_order(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"text": f"line {i}", "p": 1} for i in range(50)]
    forwards = read_pool(table(tmp_path, rows), score="p").ranked()
    backwards = read_pool(table(tmp_path, rows[::-1]), score="p").ranked()
    assert [one.id for one in forwards] == [one.id for one in backwards]
    assert [one.text for one in forwards] != sorted(one.text for one in forwards)


def test_a_repeated_text_is_a_line_of_its_own(tmp_path: Path) -> None:
    pool = read_pool(table(tmp_path, [{"text": "Same."}, {"text": "same"}]))
    assert len({one.id for one in pool.lines}) == 2


def test_an_id_twice_is_refused_with_both_rows(tmp_path: Path) -> None:
    path = table(tmp_path, [{"text": "a", "n": 7}, {"text": "b", "n": 7}])
    with pytest.raises(InputError, match="'7' is on rows 1 and 2"):
        read_pool(path, id="n")


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf"), "0.5x", ""])
def test_a_score_that_is_none_is_refused_with_its_row(tmp_path: Path, bad: object) -> None:
    path = table(tmp_path, [{"text": "a", "p": 0.1}, {"text": "b", "p": bad}])
    with pytest.raises(InputError, match="row 2"):
        read_pool(path, score="p").ranked()


def test_rows_without_text_are_counted(tmp_path: Path) -> None:
    pool = read_pool(table(tmp_path, [{"text": " "}, {"text": "a"}, {"p": 1}]))
    assert pool.refused == {"no text in 'text'": 2}
    with pytest.raises(InputError, match="at least one line"):
        read_pool(table(tmp_path, [{"text": ""}]))
    with pytest.raises(InputError, match="the nearest is 'sentence'"):
        read_pool(table(tmp_path, [{"sentence": "a"}]))


def test_withdrawn_lines_are_left_out(tmp_path: Path) -> None:
    path = table(tmp_path, [{"text": "a"}, {"text": "b"}])
    first, second = read_pool(path).lines
    home = home_of(path)
    home.mkdir()
    with (home / "withdrawn.jsonl").open("w") as stream:
        for id, undone in ((first.id, False), (second.id, False), (second.id, True)):
            stream.write(json.dumps({"id": id, "why": "wrong", "undone": undone}) + "\n")
    assert withdrawn_ids(home) == {first.id: "wrong"}
    assert [one.id for one in read_pool(path).lines] == [second.id]
    assert len(read_pool(path, withdrawn=True).lines) == 2


def test_a_run_gives_what_it_kept_with_the_newest_critics_score(tmp_path: Path) -> None:
    item = Item.make("concept", "bee")
    lines = [Knowledge.make("statement", text, item.id) for text in ("Bees fly.", "Bees swim.")]
    kept, refused = lines[0].id, lines[1].id
    verdicts = [
        Verdict(kept, "critic@a", 0.6, round=0),
        Verdict(kept, "critic@b", 0.8, round=1),
        Verdict(kept, "judge@c", 0.1, round=1),
        Verdict(kept, "selection", 1.0, round=1),
        Verdict(refused, "selection", 0.0, round=1),
    ]
    write_records(tmp_path / "tables" / "items.parquet", Item, [item])
    write_records(tmp_path / "tables" / "knowledge.parquet", Knowledge, lines)
    write_records(tmp_path / "tables" / "verdicts.parquet", Verdict, verdicts)
    (only,) = read_pool(tmp_path).lines
    assert (only.id, only.score, only.question) == (kept, 0.8, "bee")


def test_words_for_labels() -> None:
    assert [words_of(word) for word in (" Yes", "0", "UNSURE", "maybe")] == [
        "valid",
        "invalid",
        "unsure",
        None,
    ]


def test_half_a_surrogate_pair_is_text_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"text": "a \\ud800 b"}\n')
    (only,) = read_pool(path).lines
    assert only.text == "a ? b"


def test_no_spreadsheet_takes_an_id_for_a_number(tmp_path: Path) -> None:
    pool = read_pool(table(tmp_path, [{"text": f"line {i}"} for i in range(50)]))
    assert all(one.id[0].isalpha() for one in pool.lines)
