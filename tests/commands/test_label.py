"""`symdistill label`: which lines are shown, and the same path by a file."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from symdistill.commands.label import label
from symdistill.errors import InputError, RunError
from symdistill.labelling.audit import pairs_draw
from symdistill.labelling.draw import random_draw
from symdistill.labelling.store import LabelStore, serving
from symdistill.pool import home_of, read_pool
from symdistill.records import Item, Knowledge
from symdistill.tables import write_records

pytestmark = pytest.mark.unit
app = typer.Typer()
app.command()(label)


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.csv"
    scores = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["text", "score", "other"])
        for i in range(40):
            table.writerow([f"Line <i>{i}</i> שלום", scores.random(), scores.random()])
    return path


def run(*arguments: object, typed: str = "") -> str:
    """What the command prints; an error a user can meet is raised."""
    done = CliRunner().invoke(app, [str(one) for one in arguments], input=typed)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def freeze(lines: Path, n: int = 10, *, plan: dict[str, Any] | None = None) -> str:
    """What `plan --freeze` does: draw for a certificate."""
    pool = read_pool(lines, score="score")
    drawn = random_draw(pool.lines, n, 1, purpose="certificate", pool_hash=pool.hash, plan=plan)
    with LabelStore(pool.home) as store:
        store.add_draw(drawn)
    return drawn.id


def fill_in(path: Path, word: Callable[[int], str]) -> None:
    rows = list(csv.DictReader(path.open(encoding="utf-8-sig", newline="")))
    for i, row in enumerate(rows):
        row["label"] = word(i)
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def answers(lines: Path) -> list[tuple[str, str]]:
    with LabelStore(home_of(lines), read_only=True) as store:
        return [(one.annotator, one.answer) for one in store.given()]


def test_first_lines_to_train_on_are_drawn_and_the_same_command_goes_on(lines: Path) -> None:
    command = (lines, "--n", 5, "--terminal", "--annotator", "ann")
    printed = run(*command, typed="v\ni\n")
    assert "Drew 5 of 40 lines to train a critic on (random)" in printed
    assert "They certify nothing" in printed
    assert "ann: 2 of 5 answered." in printed and "3 are left. To go on: symdistill" in printed
    printed = run(*command, typed="v\nv\nu\n")
    assert "Goes on with train-" in printed and "2 of 5 answered" in printed
    assert f"All are answered. Next: symdistill critic fit {lines}" in printed
    assert len(answers(lines)) == 5


def test_a_certificate_comes_first_and_its_lines_never_train(lines: Path) -> None:
    run(lines, "--n", 5, "--terminal", typed="v\n")
    certificate = freeze(lines)
    printed = run(lines, "--terminal", typed="v\n" * 10)
    assert f"Goes on with {certificate}" in printed
    assert f"Next: symdistill certify {lines}\n" in printed
    printed = run(lines, "--n", 40, "--terminal")
    assert "Drew " in printed and "were left out: they are drawn already" in printed
    with LabelStore(home_of(lines), read_only=True) as store:
        held = store.drawn_ids("certificate")
        assert not held & {one.line_id for one in store.draws("train")[-1].items}


def test_a_draw_is_filled_in_by_hand(lines: Path, tmp_path: Path) -> None:
    certificate = freeze(lines)
    sheet = tmp_path / "to_label.csv"
    printed = run(lines, "--export", sheet)
    assert f"symdistill label {lines} --import {sheet} --for {certificate}" in printed
    with LabelStore(home_of(lines), read_only=True) as store:
        order = [one.line_id for one in store.draw(certificate).items]
    rows = list(csv.DictReader(sheet.open(encoding="utf-8-sig", newline="")))
    assert [row["id"] for row in rows] == order and list(rows[0]) == ["id", "text", "label"]
    fill_in(sheet, lambda i: "yes" if i else "no")
    printed = run(lines, "--import", sheet, "--annotator", "ann")
    assert (
        f"Took 10 answers into {certificate}, under the name of ann." in printed
        and "All are answered" in printed
    )
    assert answers(lines) == [("ann", "invalid")] + 9 * [("ann", "valid")]
    printed = run(lines, "--import", sheet, "--annotator", "ann")
    assert "Took 0 answers" in printed and "10 were there already" in printed
    run(lines, "--import", sheet, "--annotator", "bob")
    assert "Krippendorff's alpha 1.00" in run(lines, "--agreement")


@pytest.mark.parametrize(
    ("format", "name"), [("jsonl", "f.jsonl"), ("argilla", "f.json"), ("label-studio", "f.json")]
)
def test_every_format_comes_back(lines: Path, tmp_path: Path, format: str, name: str) -> None:
    run(lines, "--n", 3, "--terminal", "--annotator", "ann", typed="v\ni\nu\n")
    run(lines, "--for", "train", "--export", tmp_path / name, "--format", format)
    (home_of(lines) / "labels.sqlite").unlink()
    run(lines, "--import", tmp_path / name)
    assert answers(lines) == [("ann", "valid"), ("ann", "invalid"), ("ann", "unsure")]


def test_labels_from_elsewhere_train_and_never_certify(lines: Path, tmp_path: Path) -> None:
    pool = read_pool(lines)
    certificate = freeze(lines)
    with LabelStore(pool.home, read_only=True) as store:
        held = store.drawn_ids()
    mine, theirs = [one.id for one in pool.lines if one.id not in held], sorted(held)
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps({"id": id, "label": "good"}) + "\n" for id in mine[:3]))
    with pytest.raises(InputError, match="3 are not"):
        run(lines, "--import", path, "--for", certificate)
    assert "Took 3 answers into train-" in run(lines, "--import", path, "--for", "train")
    path.write_text(json.dumps({"id": theirs[0], "label": "good"}))
    with pytest.raises(InputError, match="1 are of lines drawn for a certificate"):
        run(lines, "--import", path, "--for", "train")
    path.write_text(json.dumps({"id": "nobody", "label": "good"}))
    with pytest.raises(InputError, match="'nobody'"):
        run(lines, "--import", path, "--for", "train")
    assert len(answers(lines)) == 3


def test_lines_near_the_cut_and_lines_that_two_scores_see_differently(lines: Path) -> None:
    near = run(lines, "--how", "near-cut", "--score", "score", "--cut", 0.5, "--n", 4, "--terminal")
    assert "(near the cut 0.5)" in near
    far = run(lines, "--how", "disagreement", "--score", "score", "--second", "other", "--n", 4,
              "--terminal")  # fmt: skip
    assert "(disagreement)" in far and "4 were left out" in far


def test_lines_on_which_annotators_disagree_are_shown_again(lines: Path) -> None:
    with pytest.raises(InputError, match="let another annotator label"):
        run(lines, "--how", "disagreement")
    run(lines, "--n", 3, "--terminal", "--annotator", "ann", typed="v\nv\nq\n")
    run(lines, "--n", 3, "--terminal", "--annotator", "bob", typed="v\ni\ni\n")
    printed = run(lines, "--how", "disagreement", "--terminal", "--annotator", "cem", typed="i\n")
    assert "Drew 1 of 1 lines to train a critic on (annotators disagree)" in printed
    with LabelStore(home_of(lines), read_only=True) as store:
        first, last = store.draws("train")
        assert last.items == (first.items[1],)


def test_repeats_are_counted_and_told(lines: Path) -> None:
    printed = run(lines, "--n", 4, "--repeat", 0.5, "--terminal", "--annotator", "ann",
                  typed="v\nv\nv\nv\nv\ni\n")  # fmt: skip
    assert "ann: 6 of 6 answered." in printed
    assert "ann gave the same answer to 1 of 2 lines shown twice" in printed


def test_instructions_are_packaged_and_replaceable(lines: Path, tmp_path: Path) -> None:
    assert "generally true" in run(lines, "--terminal")
    own = tmp_path / "own.txt"
    own.write_text("Say valid if it rhymes.")
    printed = run(lines, "--terminal", "--instructions", own)
    assert "if it rhymes" in printed and "generally true" not in printed
    with LabelStore(home_of(lines), read_only=True) as store:
        packaged, mine = store.instructions(store.draws()[0].id)
    assert "generally true" in packaged and mine == "Say valid if it rhymes."
    own.write_bytes(b"\xff")
    with pytest.raises(InputError, match="UTF-8"):
        run(lines, "--terminal", "--instructions", own)


def test_the_page_is_served_to_one_at_a_time(lines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[tuple[list[str], dict[str, Any]]] = []
    monkeypatch.setattr(
        "symdistill.labelling.page.serve",
        lambda store, draws, **options: served.append((draws, options)),
    )
    run(lines, "--annotator", "ann", "--port", 8123, "--n", 3)
    ((draws, options),) = served
    assert draws[0].startswith("train-")
    assert (options["annotator"], options["port"]) == ("ann", 8123)
    assert options["next_command"] == f"symdistill critic fit {lines}"
    with serving(home_of(lines)), pytest.raises(RunError, match="another labelling page"):
        run(lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--terminal", "--agreement"], "expected one of --terminal"),
        (["--how", "nearest"], "expected --how to be one of"),
        (["--format", "xml", "--export", "x.xml"], "expected --format to be one of"),
        (["--for", "certificate"], "symdistill plan"),
        (["--for", "nothing"], "got 'nothing'"),
        (["--for", "certificate", "--n", "3"], "its lines are drawn already"),
        (["--text", "txt"], "the nearest is 'text'"),
        (["--how", "near-cut"], "expected a score"),
        (["--how", "near-cut", "--score", "score", "--cut", "nan"], "a finite number as the cut"),
        (["--cut", "inf"], "a finite number as the cut"),
        (["--import", "nothing.csv"], "nothing.csv"),
    ],
)
def test_what_cannot_be_is_told_and_leaves_no_trace(
    lines: Path, arguments: list[str], words: str
) -> None:
    with pytest.raises(InputError) as error:
        run(lines, *arguments)
    assert words in str(error.value)
    assert not home_of(lines).exists()


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a file of lines"):
        run(tmp_path / "none.csv")
    assert "Nothing is labelled yet." in run(_one_line(tmp_path), "--agreement")


def _one_line(folder: Path) -> Path:
    path = folder / "one.txt"
    path.write_text("A line.\n")
    return path


def test_the_next_command_names_a_score_where_the_plan_does(lines: Path, tmp_path: Path) -> None:
    freeze(lines, 1, plan={"score": "my score"})
    printed = run(lines, "--terminal", typed="v\n")
    assert f"Next: symdistill certify {lines} --score 'my score'" in printed
    run_folder = tmp_path / "run1"
    item = Item.make("concept", "bee")
    line = Knowledge.make("statement", "Bees fly.", item.id)
    write_records(run_folder / "tables" / "items.parquet", Item, [item])
    write_records(run_folder / "tables" / "knowledge.parquet", Knowledge, [line])
    pool = read_pool(run_folder)
    with LabelStore(pool.home) as store:
        store.add_draw(random_draw(pool.lines, 1, 1, purpose="certificate", pool_hash=pool.hash))
    printed = run(run_folder, "--terminal", typed="v\n")
    assert f"Next: symdistill certify {run_folder}\n" in printed


def test_what_labellers_of_a_file_are_told_is_shown_and_kept(lines: Path, tmp_path: Path) -> None:
    certificate, sheet, own = freeze(lines), tmp_path / "sheet.csv", tmp_path / "own.txt"

    def kept() -> list[str]:
        with LabelStore(home_of(lines), read_only=True) as store:
            return store.instructions(certificate)

    assert "generally true" in run(lines, "--export", sheet)
    assert len(kept()) == 1 and "generally true" in kept()[0]
    fill_in(sheet, lambda i: "yes")
    run(lines, "--import", sheet)
    assert len(kept()) == 1
    own.write_text("Say valid if it rhymes.")
    run(lines, "--import", sheet, "--instructions", own, "--annotator", "bob")
    assert kept()[1:] == ["Say valid if it rhymes."]


def test_lines_of_a_comparison_are_not_trained_on(lines: Path, tmp_path: Path) -> None:
    pool = read_pool(lines)
    with LabelStore(pool.home) as store:
        drawn = pairs_draw(pool.lines[:20], pool.lines[20:], 18, 0, ask="valid",
                           sources=("a", "b"), pool_hash=pool.hash)  # fmt: skip
        store.add_draw(drawn)
    compared = {id for pair in drawn.plan["sides"].values() for id in (pair["one"], pair["other"])}
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps({"id": min(compared), "label": "good"}))
    with pytest.raises(InputError, match="1 are of lines drawn for a"):
        run(lines, "--import", path, "--for", "train")
    run(lines, "--n", 40, "--for", "train", "--terminal")
    with LabelStore(home_of(lines), read_only=True) as store:
        (train,) = store.draws("train")
    assert len(train.items) == 4 and not compared & {one.line_id for one in train.items}


def test_an_answer_that_is_there_is_not_taken_twice_however_the_name_is_typed(
    lines: Path, tmp_path: Path
) -> None:
    freeze(lines)
    sheet = tmp_path / "sheet.csv"
    run(lines, "--export", sheet)
    fill_in(sheet, lambda i: "yes")
    run(lines, "--import", sheet, "--annotator", "Anna B")
    printed = run(lines, "--import", sheet, "--annotator", " anna  b")
    assert "Took 0 answers" in printed and "Anna B: 10 of 10 answered." in printed


def test_no_file_is_exported_over(lines: Path, tmp_path: Path) -> None:
    before, sheet = lines.read_bytes(), tmp_path / "sheet.csv"
    with pytest.raises(InputError, match="name another"):
        run(lines, "--export", lines)
    run(lines, "--n", 3, "--export", sheet)
    fill_in(sheet, lambda i: "v")
    filled_in = sheet.read_bytes()
    with pytest.raises(InputError, match="is there already; take its labels with --import"):
        run(lines, "--export", sheet)
    assert (lines.read_bytes(), sheet.read_bytes()) == (before, filled_in)


def test_options_for_training_do_not_pass_over_an_open_certificate(lines: Path) -> None:
    certificate = freeze(lines)
    for options in (["--n", "5"], ["--repeat", "0.1"], ["--how", "random"]):
        with pytest.raises(InputError, match=rf"{certificate} is open \(0 of 10 answered\)"):
            run(lines, "--terminal", *options)
    assert "to train a critic" in run(lines, "--terminal", "--n", 5, "--for", "train")


def test_nothing_is_drawn_after_the_last_label_of_a_certificate(lines: Path) -> None:
    certificate = freeze(lines)
    run(lines, "--terminal", typed="v\n" * 10)
    told = run(lines, "--terminal", typed="v\n")
    assert "All are answered. Next: symdistill certify" in told
    assert f"For another annotator: symdistill label {lines} --for {certificate}." in told
    with LabelStore(home_of(lines), read_only=True) as store:
        assert [one.id for one in store.draws()] == [certificate]


def test_a_draw_that_was_given_up_is_not_gone_on_with(lines: Path) -> None:
    first = freeze(lines)
    second = freeze(lines, 3, plan={"abandoned": [{"draw": first}]})
    assert second in run(lines, "--terminal", typed="v\n" * 3)
    assert second in run(lines, "--terminal", "--for", "certificate")
    assert "Drew 5" in run(lines, "--terminal", "--n", 5)


def test_a_sheet_of_a_finished_draw_is_not_to_be_filled_in(lines: Path, tmp_path: Path) -> None:
    freeze(lines, 2)
    assert "Fill in the empty labels" in run(lines, "--export", tmp_path / "open.csv")
    run(lines, "--terminal", typed="v\nv\n")
    assert "Fill in" not in run(lines, "--export", tmp_path / "done.csv")


def test_rows_that_are_no_lines_are_told(lines: Path) -> None:
    with lines.open("a", encoding="utf-8") as stream:
        stream.write("a, comma,0.5,0.5\n")
    words = "1 of 41 rows left out: row 41 after the header: has more cells than there are columns."
    assert words in run(lines, "--terminal")


def test_a_file_renamed_without_its_labels_is_told(lines: Path) -> None:
    run(lines, "--terminal", "--n", 3, typed="v\n")
    new = lines.rename(lines.with_name("new.csv"))
    with pytest.raises(InputError, match=f"mv {home_of(lines)} {home_of(new)}"):
        run(new, "--terminal")
    home_of(lines).rename(home_of(new))
    assert "1 of 3 answered" in run(new, "--terminal")
