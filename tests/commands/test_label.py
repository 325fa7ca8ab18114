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
from symdistill.labelling.draw import random_draw
from symdistill.labelling.store import LabelStore, serving
from symdistill.pool import home_of, read_pool

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


def freeze(lines: Path, n: int = 10) -> str:
    """What `plan --freeze` does: draw for a certificate."""
    pool = read_pool(lines, score="score")
    drawn = random_draw(pool.lines, n, 1, purpose="certificate", pool_hash=pool.hash)
    with LabelStore(pool.home) as store:
        store.add_draw(drawn)
    return drawn.id


def fill_in(path: Path, word: Callable[[int], str]) -> None:
    rows = list(csv.DictReader(path.open(encoding="utf-8", newline="")))
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
    assert f"Next: symdistill certify {lines} --score COLUMN" in printed
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
    rows = list(csv.DictReader(sheet.open(encoding="utf-8", newline="")))
    assert [row["id"] for row in rows] == order and list(rows[0]) == ["id", "text", "label"]
    fill_in(sheet, lambda i: "yes" if i else "no")
    printed = run(lines, "--import", sheet, "--annotator", "ann")
    assert f"Took 10 answers into {certificate}." in printed and "All are answered" in printed
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
