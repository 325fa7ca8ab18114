"""`symdistill audit` as a user runs it, with scripted labels."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from symdistill.commands.audit import audit
from symdistill.datafiles import write_rows
from symdistill.errors import InputError, RunError
from symdistill.exact import precision_interval, sign_test
from symdistill.labelling.store import Draw, LabelStore
from symdistill.pool import home_of, read_pool
from symdistill.records import Item, Knowledge
from symdistill.tables import write_records

pytestmark = pytest.mark.unit

Label = Callable[[Mapping[str, str]], str]


def said(*command: object, keys: str | None = None) -> str:
    """What the command prints, if these keys are pressed; its errors are raised."""
    app = typer.Typer()
    app.command()(audit)
    words = [str(word) for word in command]
    done = CliRunner().invoke(app, words, input=keys, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def result(*command: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said(*command, "--json"))
    return found


def fill_in(path: Path, label: Label, *, rows: int | None = None) -> None:
    """Label an exported file, as a person with a spreadsheet would."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        table = list(csv.DictReader(stream))
    for row in table[:rows]:
        row["label"] = label(row)
    write_rows(path, table)


def audited(*command: object, place: Path, label: Label) -> str:
    """Export, fill in, import; gives what is said at the end."""
    sheet = place / "sheet.csv"
    sheet.unlink(missing_ok=True)
    said(*command, "--export", sheet)
    fill_in(sheet, label)
    return said(*command, "--import", sheet, "--annotator", "Ada")


def the_draw(source: Path) -> Draw:
    with LabelStore(home_of(source), read_only=True) as store:
        return store.draws()[-1]


def truth(row: Mapping[str, str]) -> str:
    return "valid" if "bees" in row["text"] else "no"


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """120 lines, 96 of them true; the score says nothing."""
    path = tmp_path / "kept.csv"
    write_rows(path, (
        {"text": f"{'dogs' if k % 5 == 0 else 'bees'} make honey {k}", "score": k / 120,
         "kind": "odd" if k % 2 else "even"} for k in range(120)
    ))  # fmt: skip
    return path


def test_from_a_file_to_an_interval(kept: Path, tmp_path: Path) -> None:
    told = audited(kept, "--n", 60, place=tmp_path, label=truth)
    found = result(kept)
    valid = sum("bees" in one.text for one in the_draw(kept).items)
    assert (found["lines"], found["drawn"], found["valid"]) == (120, 60, valid)
    assert [found["low"], found["high"]] == list(precision_interval(120, 60, 60 - valid))
    assert found["low"] <= 0.8 <= found["high"] and found["sentence"] in told
    assert "Labelled by Ada (60)." in told and found["agreement"]["answers"] == {"Ada": 60}
    assert told.endswith(said(kept))  # nothing is left to label, so nothing is opened


def test_a_sheet_shows_neither_score_nor_file_order(kept: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.csv"
    said(kept, "--n", 120, "--score", "score", "--cut", 0.0, "--export", sheet)
    with sheet.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["id", "text", "label"]
    numbers = [int(row["text"].split()[-1]) for row in rows]
    assert sorted(numbers) == list(range(120)) != numbers != list(range(120))[::-1]


def test_unfinished_it_goes_on_and_tells_no_estimate(kept: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.csv"
    said(kept, "--n", 20, "--export", sheet)
    fill_in(sheet, truth, rows=12)
    told = said(kept, "--import", sheet)
    assert "12 of 20 labelled, 8 left" in told and "estimated" not in told and "too good" in told
    for only in ("--result", "--json"):
        with pytest.raises(RunError, match="8 left"):
            said(kept, only)
    fill_in(sheet, truth)
    assert "20 drawn at random" in said(kept, "--import", sheet, "--result")
    assert result(kept)["drawn"] == 20


def test_another_draw_has_to_wait_for_the_first(kept: Path, tmp_path: Path) -> None:
    said(kept, "--n", 7, "--export", tmp_path / "sevens.csv")
    told = said(kept, "--n", 10, "--terminal", keys="v\n")
    assert "had no answers" in told  # the first is dropped, and that is said
    with LabelStore(home_of(kept), read_only=True) as store:
        assert [len(one.items) for one in store.draws()] == [10]
    with pytest.raises(InputError, match="--n 10 --seed 0, 9 of 10 left"):
        said(kept, "--n", 30, "--export", tmp_path / "more.csv")
    audited(kept, place=tmp_path, label=truth)
    first = the_draw(kept)
    audited(kept, "--n", 30, place=tmp_path, label=truth)
    assert the_draw(kept).id != first.id and result(kept)["drawn"] == 30
    assert result(kept, "--n", 10)["draw"] == first.id


def test_taking_out_what_an_audit_found_draws_other_lines(kept: Path, tmp_path: Path) -> None:
    """The lines found valid must not come first in the next audit."""
    audited(kept, "--n", 60, place=tmp_path, label=truth)
    first = the_draw(kept)
    false = {one.text for one in first.items if "dogs" in one.text}
    rows = [{"text": one.text} for one in read_pool(kept).lines if one.text not in false]
    write_rows(kept, rows)
    with pytest.raises(InputError, match="the lines have changed"):
        said(kept, "--result")
    assert "others than those" in said(kept, "--n", 50, "--export", tmp_path / "new.csv")
    seen = {one.line_id for one in first.items}
    again = sum(one.line_id in seen for one in the_draw(kept).items)
    assert again < 40  # 60 - 12 of 108 are left of the first: about 22 of 50


def test_groups_and_a_cut(kept: Path, tmp_path: Path) -> None:
    only = (kept, "--score", "score", "--cut", 0.5, "--group", "kind")
    told = audited(*only, place=tmp_path, label=truth)
    found = result(*only)
    assert found["lines"] == found["drawn"] == 60 and found["low"] == found["high"] == 0.8
    assert {name: one["lines"] for name, one in found["groups"].items()} == {"even": 30, "odd": 30}
    assert "odd: 80.0 %" in told and "by itself" in told
    with pytest.raises(InputError, match="at least 7"):
        said(kept, "--score", "score", "--cut", 7)
    with pytest.raises(InputError, match="--score COLUMN"):
        said(kept, "--cut", 0.5)


def test_in_the_terminal(kept: Path) -> None:
    there = (kept, "--terminal", "--annotator", "Ada")
    told = said(*there, "--n", 4, keys="v\nv\n")
    assert "2 of 4 labelled" in told and "estimated" not in told
    assert "3 of 4 drawn at random (1 unsure" in said(*there, keys="v\nu\n")


def test_on_the_page(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = pytest.importorskip("symdistill.labelling.page")
    shown: list[tuple[list[str], str | None]] = []
    ports = []

    def serve(
        store: LabelStore, draws: list[str], *, annotator: str | None, port: int, **_: object
    ) -> None:
        ports.append(port)
        shown.append((draws, annotator))
        for one in store.draw(draws[0]).items:
            store.answer(draws[0], one.line_id, annotator or "Ada", "valid")

    monkeypatch.setattr(page, "serve", serve)
    assert "5 of 5" in said(kept, "--n", 5) and "5 of 5" in said(kept)
    assert "Bo (5)" in said(kept, "--annotator", "Bo", "--port", 8123) and "Bo (5)" in said(kept)
    draws = [the_draw(kept).id]
    assert ports == [0, 8123]
    assert shown == [(draws, None), (draws, "Bo")]  # once for each: then nothing is left to label


def test_several_annotators(kept: Path, tmp_path: Path) -> None:
    pytest.importorskip("simpledorff")
    audited(kept, "--n", 20, place=tmp_path, label=truth)
    sheet = tmp_path / "second.csv"
    draw = the_draw(kept)
    write_rows(sheet, [{"id": one.line_id, "label": "valid"} for one in draw.items])
    told = said(kept, "--import", sheet, "--annotator", "Bo")
    found = result(kept)
    dogs = sum("dogs" in one.text for one in draw.items)
    assert 0 < dogs == found["unsure"] == 20 - found["valid"]
    assert "Ada (20), Bo (20)" in told and "alpha" in told


def test_lines_drawn_for_training_are_left_out(kept: Path, tmp_path: Path) -> None:
    from symdistill.labelling.draw import random_draw

    pool = read_pool(kept)
    with LabelStore(pool.home) as store:
        drawn = random_draw(pool.lines, 30, 0, purpose="train", pool_hash=pool.hash)
        store.add_draw(drawn)
    audited(kept, place=tmp_path, label=truth)
    assert result(kept)["lines"] == result(kept)["drawn"] == 90
    taught = {one.line_id for one in drawn.items}
    assert not taught & {one.line_id for one in the_draw(kept).items}


def test_answers_changed_after_the_result_are_told(kept: Path, tmp_path: Path) -> None:
    told = audited(kept, "--n", 20, place=tmp_path, label=lambda row: "valid")
    assert "changed" not in told and result(kept)["changed_late"] == 0
    sheet = tmp_path / "sheet.csv"
    again = said(kept, "--import", sheet, "--annotator", "Ada")  # the same once more
    assert "Took 0 answers" in again and again.splitlines()[1:] == told.splitlines()[1:]
    fill_in(sheet, lambda row: "invalid", rows=3)
    told = said(kept, "--import", sheet, "--annotator", "Ada")
    assert "17 of 20" in told
    assert "Answers changed after the first result could be seen: 3." in told
    assert result(kept)["changed_late"] == 3


def test_groups_are_named_before_the_labels_are_known(kept: Path, tmp_path: Path) -> None:
    audited(kept, "--n", 20, place=tmp_path, label=truth)
    rows = [{"text": one.text, "kind": "bees" in one.text} for one in read_pool(kept).lines]
    write_rows(kept, rows)
    assert result(kept)["drawn"] == 20  # the lines are the same
    with pytest.raises(InputError, match="these groups; first draw one"):
        said(kept, "--group", "kind", "--result")
    said(kept, "--group", "kind", "--terminal", keys="v\n")
    with pytest.raises(InputError, match="or other groups"):
        said(kept, "--group", "text", "--export", tmp_path / "other.csv")


def test_the_page_names_the_command_that_shows_the_same_result(
    kept: Path, others: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = pytest.importorskip("symdistill.labelling.page")
    named = []
    monkeypatch.setattr(page, "serve", lambda *_, next_command, **__: named.append(next_command))
    only = ("--score", "score", "--cut", 0.5, "--group", "kind")
    said(kept, "--n", 5, *only)
    said(kept, "--n", 5, "--with", others, "--ask", "more")
    assert named == [
        f"symdistill audit {kept} --score score --group kind --cut 0.5",
        f"symdistill audit {kept} --with {others} --ask more",
    ]


def test_what_labellers_of_a_sheet_are_told_is_kept(kept: Path, tmp_path: Path) -> None:
    said(kept, "--n", 5, "--export", tmp_path / "sheet.csv")
    draw = the_draw(kept)
    with LabelStore(home_of(kept), read_only=True) as store:
        (told,) = store.instructions(draw.id)
    assert "generally true" in told


# -- side by side -------------------------------------------------------------------------------


@pytest.fixture
def others(tmp_path: Path) -> Path:
    path = tmp_path / "others.jsonl"
    write_rows(path, [{"text": f"dogs make honey, too {k}"} for k in range(100)])
    return path


def which(row: Mapping[str, str]) -> str:
    return {
        (True, True): "both",
        (True, False): "first",
        (False, True): "second",
        (False, False): "neither",
    }["bees" in row["text"], "bees" in row["other"]]


def test_two_sources_side_by_side(kept: Path, others: Path, tmp_path: Path) -> None:
    told = audited(kept, "--with", others, "--n", 50, place=tmp_path, label=which)
    found = result(kept, "--with", others)
    won = found["wins"][0]
    assert found["wins"] == [won, 0] and found["neither"] == 50 - won and found["pairs"] == 100
    assert found["p_value"] == sign_test(won, 0) < 0.001
    assert found["valid_shares"] == [won / 50, 0]
    assert f"{kept} is ahead" in told and found["sentence"] in told
    shown = the_draw(kept)
    assert {one.text.split()[0] for one in shown.items} == {"bees", "dogs"}  # either is first


def test_another_question_is_another_draw(kept: Path, others: Path, tmp_path: Path) -> None:
    audited(kept, "--with", others, "--n", 20, place=tmp_path, label=lambda row: "both")
    more = (kept, "--with", others, "--ask", "more", "--n", 20)
    told = audited(*more, place=tmp_path, label=lambda row: "unsure")
    assert "said more" in told and "unsure 20" in told and "does not tell" in told
    assert result(kept, "--with", others)["both"] == 20
    with pytest.raises(InputError, match="got 'best'"):
        said(kept, "--with", others, "--ask", "best")


def a_run(place: Path, name: str, ending: str) -> Path:
    """A run that said two things about each of 20 concepts."""
    run = place / name
    items = [Item.make("concept", f"thing {k}") for k in range(20)]
    lines = [
        Knowledge.make("statement", f"{one.text} {ending} {n}", one.id)
        for one in items
        for n in range(2)
    ]
    write_records(run / "tables" / "items.parquet", Item, items)
    write_records(run / "tables" / "knowledge.parquet", Knowledge, lines)
    return run


def test_two_runs_are_paired_by_concept(tmp_path: Path) -> None:
    new, old = a_run(tmp_path, "new", "has bees"), a_run(tmp_path, "old", "has dogs")
    told = audited(new, "--with", old, "--n", 30, place=tmp_path, label=which)
    found = result(new, "--with", old)
    assert found["paired_by"] == "question" and found["pairs"] == 40
    assert found["wins"] == [30, 0] and f"{new} is ahead" in told
    for one in the_draw(new).items:
        assert one.question and one.text.startswith(one.question)
        assert one.other and one.other.startswith(one.question)
    assert (new / "labels.sqlite").is_file() and not (old / "labels.sqlite").exists()
    with pytest.raises(InputError, match="no --group with a run"):
        said(new, "--group", "kind")


# -- bad input ----------------------------------------------------------------------------------


def test_what_cannot_be_audited_is_refused(kept: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is none; first draw one"):
        said(kept, "--result")
    with pytest.raises(InputError, match="twice"):
        said(kept, "--with", kept)
    with pytest.raises(InputError, match="nearest is 'text'"):
        said(kept, "--text", "texts")
    sheet = tmp_path / "sheet.csv"
    said(kept, "--n", 5, "--export", sheet)
    with pytest.raises(InputError, match="got both"):
        said(kept, "--export", sheet, "--import", sheet)
    write_rows(sheet, [{"id": "of another file", "label": "valid"}])
    with pytest.raises(InputError, match="1 are not"):
        said(kept, "--import", sheet)


def test_no_file_is_exported_over(kept: Path) -> None:
    before = kept.read_bytes()
    with pytest.raises(InputError, match="name another"):
        said(kept, "--export", kept)
    assert kept.read_bytes() == before


def test_options_that_are_missing_are_named(kept: Path) -> None:
    said(kept, "--score", "score", "--cut", 0.5, "--n", 3, "--terminal")
    with pytest.raises(InputError, match=r"made with --score score --cut 0.5: give the same"):
        said(kept, "--result")


def test_label_names_the_command_that_shows_the_result(kept: Path, others: Path) -> None:
    from symdistill.commands.label import label

    app = typer.Typer()
    app.command()(label)
    for options in (["--score", "score", "--cut", "0.5"], ["--with", str(others), "--ask", "more"]):
        said(kept, "--n", 1, "--terminal", *options)
        done = CliRunner().invoke(app, [str(kept), "--terminal"], input="u\n")
        assert f"Next: symdistill audit {kept} {' '.join(options)}\n" in done.stdout
        said(kept, *options, "--result")


def test_an_audit_that_was_begun_can_be_given_up_and_later_ones_tell_it(kept: Path) -> None:
    with pytest.raises(InputError, match="there is none"):
        said(kept, "--abandon", "why not")
    said(kept, "--n", 5, "--terminal", keys="v\n")
    with pytest.raises(InputError, match="--abandon WHY"):
        said(kept, "--n", 2, "--terminal")
    assert "1 of 5 answered" in said(kept, "--abandon", "Too many")
    with pytest.raises(InputError, match="there is none"):
        said(kept, "--abandon", "again")
    told = said(kept, "--n", 2, "--terminal", keys="v\nv\n")
    assert "An audit of these lines was given up with 1 answered: Too many." in told
    assert result(kept)["given_up"][0]["why"] == "Too many"
    assert "fill in" not in said(kept, "--export", kept.with_name("done.csv"))
