"""The lines to be judged, from files and from runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from symdistill.datafiles import write_rows
from symdistill.errors import InputError
from symdistill.pool import home_of, read_pool, refused_words, withdrawn_ids, words_of
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
    assert refused_words(pool) == "2 of 3 rows left out: row 1: no text in 'text' (and 1 more)"
    with pytest.raises(InputError, match="at least one line"):
        read_pool(table(tmp_path, [{"text": ""}]))
    with pytest.raises(InputError, match="its columns are sentence"):
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


@pytest.mark.parametrize("column", ["group", "question"])
def test_the_hash_covers_groups_and_questions(tmp_path: Path, column: str) -> None:
    rows: list[dict[str, object]] = [
        {"id": i, "text": "Same.", "group": f"g{i}", "question": f"q{i}"} for i in range(3)
    ]

    def hash_of(name: str) -> str:
        return read_pool(table(tmp_path, rows), id="id", group="group", question=name).hash

    before = hash_of("question")
    rows.reverse()
    assert hash_of("question") == before
    rows[0][column] = "another"
    assert hash_of("question") != before


def test_repeats_of_a_text_are_numbered_by_score_whatever_their_order(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"text": "Same.", "p": 0.2, "g": "b"},
        {"text": "other", "p": 0.5, "g": "a"},
        {"text": "same", "p": 0.9, "g": "a"},
        {"text": "Same.", "p": 0.2, "g": "a"},
    ]
    pools = [
        read_pool(table(tmp_path, order), score="p", group="g") for order in (rows, rows[::-1])
    ]
    assert pools[0].hash == pools[1].hash
    ids = [{(one.text, one.score, one.group): one.id for one in pool.lines} for pool in pools]
    assert ids[0] == ids[1]
    first, second, third = (ids[0][key] for key in [
        ("same", 0.9, "a"), ("Same.", 0.2, "a"), ("Same.", 0.2, "b")
    ])  # fmt: skip
    assert (second, third) == (f"{first}-2", f"{first}-3")
    unscored = read_pool(table(tmp_path, rows))
    assert {one.id for one in unscored.lines} == set(ids[0].values())


def test_a_column_with_no_cell_filled_in_is_there(tmp_path: Path) -> None:
    path = tmp_path / "lines.csv"
    path.write_text("text,label\na,\nb,\n")
    assert [one.label for one in read_pool(path, label="label").lines] == [None, None]
    with pytest.raises(InputError, match="a column 'labels'"):
        read_pool(path, label="labels")


def test_a_number_too_large_for_a_score_is_told(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(f'{{"text": "a", "p": {"9" * 400}}}\n')
    with pytest.raises(InputError, match=r"row 1 .* correct it"):
        read_pool(path, score="p")


def test_a_withdrawal_cut_off_by_a_kill_is_passed_over(tmp_path: Path) -> None:
    path = table(tmp_path, [{"text": "a"}, {"text": "b"}])
    first, second = read_pool(path).lines
    home = home_of(path)
    home.mkdir()
    whole = json.dumps({"id": first.id, "why": "wrong"})
    torn = json.dumps({"id": second.id, "why": "wrong"})[:-9]
    for content in (f"{whole}\n{torn}", f"{torn}\n{whole}\n", f"{whole}\n{{"):
        (home / "withdrawn.jsonl").write_text(content)
        assert withdrawn_ids(home) == {first.id: "wrong"}
        assert [one.id for one in read_pool(path).lines] == [second.id]
    (home / "withdrawn.jsonl").write_text(f'{{"id" "{first.id}"}}\n')  # by hand, and wrong
    with pytest.raises(InputError, match="line 1 is not JSON"):
        withdrawn_ids(home)


@pytest.mark.parametrize(("said", "meant"), [("0,83502", "0.83502"), ("84 %", "0.84")])
def test_a_number_written_otherwise_is_told(tmp_path: Path, said: str, meant: str) -> None:
    path = tmp_path / "lines.csv"
    path.write_text(f'text,p\na,"{said}"\n')
    with pytest.raises(InputError, match=f"row 1 after the header .* write {meant}$"):
        read_pool(path, score="p")


def test_a_label_that_says_nothing_is_none(tmp_path: Path) -> None:
    pool = read_pool(table(tmp_path, [{"text": "a", "ok": "NA"}, {"text": "b", "ok": " v "}]),
                     label="ok")  # fmt: skip
    assert [one.label for one in pool.lines] == [None, "v"] and words_of("v") == "valid"
