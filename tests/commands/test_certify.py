"""`symdistill plan` and `symdistill certify` as a user runs them, with scripted labels."""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from symdistill.commands.certify import certify
from symdistill.commands.plan import plan
from symdistill.critic.kept_certificates import append_row, read_certificates, void
from symdistill.datafiles import read_rows, write_rows
from symdistill.errors import InputError
from symdistill.labelling.draw import training_draw
from symdistill.labelling.store import LabelStore
from symdistill.pool import home_of, read_pool
from symdistill.records import Item, Knowledge, Verdict
from symdistill.tables import write_records

pytestmark = pytest.mark.unit

app = typer.Typer()
app.command()(plan)
app.command()(certify)


def said(*command: object, code: int = 0) -> str:
    """What a command prints; its errors are raised."""
    done = CliRunner().invoke(app, [str(word) for word in command], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.stdout


def result(*command: object, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said("certify", *command, "--json", code=code))
    return found


def table(
    path: Path, lines: int = 2000, labels: int = 400, share: float = 0.5, seed: int = 0
) -> list[dict[str, Any]]:
    """Lines whose truth goes with the score, some of the best ones labelled at random."""
    rng = np.random.default_rng(seed)
    scores = rng.permutation(np.linspace(0, 1, lines))
    valid = rng.random(lines) < 1.05 * scores
    best = np.argsort(-scores)[: int(share * lines)]
    drawn = set(rng.choice(best, labels, replace=False).tolist())
    rows = [
        {"id": f"line-{i}", "text": f"statement {i}", "score": round(float(scores[i]), 6),
         "kind": "ab"[i % 2], "truth": "valid" if valid[i] else "invalid",
         "label": ("yes" if valid[i] else "no") if i in drawn else None}
        for i in range(lines)
    ]  # fmt: skip
    write_rows(path, rows)
    return rows


def truth(rows: Iterable[dict[str, Any]], kept: int) -> float:
    best = sorted(rows, key=lambda row: -row["score"])[:kept]
    return float(sum(row["truth"] == "valid" for row in best) / kept)


WITH_COLUMN = ("--score", "score", "--label", "label", "--precision", 0.8, "--max-share", 0.5)


# -- labels in a column ---------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_column_of_labels_is_certified(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"lines.{suffix}"
    rows = table(file)
    found = result(file, *WITH_COLUMN)
    assert found["certified"] is True
    assert (found["precision_target"], found["labels_used"]) == (0.8, 400)
    assert truth(rows, found["kept"]) >= 0.8
    assert found["kept"] > 300
    assert found["sentence"].startswith("If the 400 labelled lines were drawn at random")
    assert (
        found["cut_score"]
        == sorted((row["score"] for row in rows), reverse=True)[found["kept"] - 1]
    )
    path = Path(found["certificate"])
    assert path.parent == home_of(file) / "certificates"
    ((_, one),) = read_certificates(home_of(file))
    assert one.kept == found["kept"] == len(one.line_ids)
    told = said("certify", file, *WITH_COLUMN)
    assert found["sentence"] in told
    assert "95 % interval" in told


def test_what_cannot_be_certified_is_exit_code_4_and_says_what_would_help(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    table(file, labels=40)
    found = result(file, *WITH_COLUMN[:-4], "--precision", 0.9, "--max-share", 0.5, code=4)
    assert (found["certified"], found["kept"], found["cut_score"]) == (False, 0, None)
    assert found["sentence"].startswith("Nothing is certified")
    assert "What would help" in found["notes"][-1]
    assert "labels drawn anew" in found["notes"][-1]
    assert "not certified" in said("certify", file, *WITH_COLUMN[:-4], "--precision", 0.9,
                                   "--max-share", 0.5, code=4)  # fmt: skip


def test_one_class_only(tmp_path: Path) -> None:
    rows = table(tmp_path / "some.csv")
    for word, code in (("1", 0), ("0", 4)):
        file = tmp_path / f"{word}.csv"
        write_rows(file, [{**row, "label": row["label"] and word} for row in rows])
        found = result(file, *WITH_COLUMN, code=code)
        assert found["kept"] == (1000 if word == "1" else 0)


@pytest.mark.parametrize(("precision", "needed"), [(0.95, "5"), (1.0, "950")])
def test_too_few_labels_that_are_all_valid(tmp_path: Path, precision: float, needed: str) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file, labels=40)
    write_rows(file, [{**row, "label": row["label"] and "yes"} for row in rows])
    found = result(file, *WITH_COLUMN[:-4], "--precision", precision, "--max-share", 0.5, code=4)
    assert (
        f"All labelled lines are valid, but they are few: label about {needed}"
        in (found["notes"][-1])
    )


def test_labels_outside_the_top_are_set_aside(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    table(file, labels=600, share=1.0)
    found = result(file, *WITH_COLUMN)
    assert 250 < found["labels_used"] < 350
    assert f"{600 - found['labels_used']:,} labels lie outside the best 0.5" in found["notes"][0]


def test_labels_that_were_not_drawn_at_random_are_refused(tmp_path: Path) -> None:
    rows = sorted(table(tmp_path / "all.csv"), key=lambda row: -row["score"])
    for name, chosen in (("best", range(200)), ("cut", range(400, 520))):
        file = tmp_path / f"{name}.csv"
        picked = [{**row, "label": row["truth"] if i in chosen else None}
                  for i, row in enumerate(rows)]  # fmt: skip
        write_rows(file, picked)
        with pytest.raises(InputError, match=r"drawn at random from the best 1,000; these cannot"):
            result(file, *WITH_COLUMN)


def test_groups_and_precisions_share_the_error_rate(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    table(file)
    found = result(file, *WITH_COLUMN, "--precision", 0.7, "--group", "kind")
    assert found["level"] == pytest.approx(0.05 / 4)
    kinds = [(one["group"], one["precision_target"]) for one in found["statements"]]
    assert kinds == [("a", 0.8), ("a", 0.7), ("b", 0.8), ("b", 0.7)]
    best = [max(one["kept"] for one in found["statements"] if one["group"] == g) for g in "ab"]
    assert found["kept"] == sum(best)
    again = result(file, *WITH_COLUMN, "--precision", 0.7, "--group", "kind")
    assert "tested once" not in again["sentence"]  # the same use of the procedure


def test_groups_are_frozen_too(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file)
    said("plan", file, *FREEZE, "--group", "kind")
    label_drawn(file, rows)
    found = result(file)
    assert [one["group"] for one in found["statements"]] == ["a", "b"]
    for one in found["statements"]:
        assert f"of group '{one['group']}'" in one["sentence"] or not one["certified"]
    first, second = (set(one.line_ids) for _, one in read_certificates(home_of(file)))
    assert len(first) + len(second) == found["kept"] > 0
    assert not first & second


def test_a_second_test_of_the_same_lines_is_told(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    table(file)
    assert "tested" not in result(file, *WITH_COLUMN)["sentence"]
    assert "tested" not in result(file, *WITH_COLUMN)["sentence"]  # the same once more
    again = result(file, "--score", "score", "--label", "label", "--precision", 0.75,
                   "--max-share", 0.5)  # fmt: skip
    assert "Labels of this file were tested once before" in again["sentence"]


def test_a_file_without_the_labelled_lines_that_failed_is_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file, labels=200, share=0.3)
    strict = (*WITH_COLUMN[:-4], "--precision", 0.97, "--max-share", 0.3)
    result(file, *strict, code=4)
    write_rows(file, [row for row in rows if row["label"] != "no"])
    left = sum(row["label"] == "yes" for row in rows)
    for again in (result(file, *strict), result(file, *strict, "--id", "id")):
        assert again["certified"]
        assert "Labels of this file were tested " in again["sentence"]
        assert f"{left} of the labels were tested before on another version" in again["sentence"]
    assert "tested 2 times before" in again["sentence"]


def test_another_column_of_groups_is_another_test_with_a_result_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file)
    write_rows(file, [{**row, "other": "cd"[i // 7 % 2]} for i, row in enumerate(rows)])
    first = result(file, *WITH_COLUMN, "--group", "kind")
    again = result(file, *WITH_COLUMN, "--group", "other")
    assert "tested once before" in again["sentence"]
    made = [{Path(one["certificate"]) for one in found["statements"]} for found in (first, again)]
    assert not made[0] & made[1]
    write_rows(file, [{**row, "kind": "ab"[row["truth"] == "valid"]} for row in rows])
    assert "tested 2 times before" in result(file, *WITH_COLUMN, "--group", "kind")["sentence"]


@pytest.mark.parametrize("kept_by", [(), ("--id", "id")], ids=["by text", "by id"])
def test_labels_that_a_critic_learns_from_are_refused(tmp_path: Path, kept_by: Any) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file)
    pool = read_pool(file, score="score")
    labelled = [line for line in pool.lines if rows[line.number - 1]["label"]]
    learnt = {"column": "score", "critic": "c1", "ids": [line.id for line in labelled[:7]]}
    pool.home.mkdir()
    (pool.home / "learnt.json").write_text(json.dumps(learnt))
    with pytest.raises(InputError, match="no critic learns from; got 7 of lines"):
        result(file, *WITH_COLUMN, *kept_by)
    assert "1,993 lines (7 labelled or drawn before left" in said("plan", file, *FREEZE, *kept_by)
    (pool.home / "learnt.json").write_text(json.dumps({**learnt, "column": "another"}))
    result(file, *WITH_COLUMN, *kept_by)
    with LabelStore(pool.home) as store:
        store.add_draw(training_draw(labelled[:5], 5, 0, how="random", pool_hash=pool.hash))
    with pytest.raises(InputError, match="no critic learns from; got 5 of lines"):
        result(file, *WITH_COLUMN, *kept_by)
    (pool.home / "learnt.json").write_text("[]")
    with pytest.raises(InputError, match="score the file again"):
        result(file, *WITH_COLUMN, *kept_by)


def test_of_several_statements_it_is_said_whether_all_hold(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    table(file)
    assert result(file, *WITH_COLUMN)["all_certified"] is True
    found = result(file, *WITH_COLUMN, "--precision", 1.0)
    assert (found["certified"], found["all_certified"]) == (True, False)


def test_ties_and_many_lines(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file)
    write_rows(file, [{**row, "score": 1, "label": "good"} for row in rows])
    found = result(file, *WITH_COLUMN)
    assert found["kept"] == 1000
    assert "Every line has the same score: the score orders nothing." in found["notes"]
    table(file, lines=20_000, labels=6000)
    start = time.perf_counter()
    assert result(file, *WITH_COLUMN)["kept"] > 2000
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "maybe"}, "expected valid, invalid or unsure .* 'maybe' on row 1 "),
        ({"score": None}, "finite score .* row 1 has none"),
        ({"score": "nan"}, "finite score .* row 1 has nan"),
        ({"score": "high"}, "a number in 'score' on row 1 "),
        ({"id": "line-1"}, "'line-1' is on rows 1 and 2"),
    ],
    ids=lambda one: str(one)[:20],
)
def test_bad_rows(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file, lines=100, labels=40)
    write_rows(file, [{**rows[0], **change}, *rows[1:]])
    with pytest.raises(InputError, match=message):
        result(file, *WITH_COLUMN, "--id", "id")


def test_labels_that_contradict_each_other(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file, lines=100, labels=40)
    write_rows(file, [{**rows[0], "text": "twice", "label": "yes", "score": 1.5}, *rows[1:],
                      {**rows[0], "text": "Twice.", "label": "no", "score": 1.4}])  # fmt: skip
    with pytest.raises(InputError, match="rows 1 and 101 hold the same text"):
        result(file, *WITH_COLUMN)


def test_bad_numbers_and_files(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    table(file, lines=100, labels=9)
    with pytest.raises(
        InputError, match="at least 10 labels among the best 50 of 100 lines; got 9"
    ):
        result(file, *WITH_COLUMN)
    usual = ("--score", "score", "--label", "label")
    for options, message in (
        (("--precision", 0), "precision above 0"),
        (("--precision", 1.1), "precision above 0"),
        (("--precision", 80), "got 80; did you mean 0.8"),
        (("--precision", 0.8, "--max-share", 0), "max-share above 0"),
        (("--precision", 0.8, "--delta", 0), "delta above 0"),
        ((), "expected --precision"),
    ):
        with pytest.raises(InputError, match=message):
            result(file, *usual, *options)
    with pytest.raises(InputError, match="expected --score"):
        result(file, "--label", "label", "--precision", 0.8)
    with pytest.raises(InputError, match="a column 'scored'"):
        result(file, "--score", "scored", "--label", "label", "--precision", 0.8)
    empty = tmp_path / "empty.csv"
    empty.write_text("text,score,label\n")
    with pytest.raises(InputError, match="at least one line"):
        result(empty, *WITH_COLUMN)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_the_certified_lines_are_written_with_all_their_columns(
    tmp_path: Path, suffix: str
) -> None:
    file, certified = tmp_path / "lines.csv", tmp_path / f"certified.{suffix}"
    rows = {row["text"]: row for row in table(file)}
    assert "add --out certified.csv" in said("certify", file, *WITH_COLUMN)
    found = result(file, *WITH_COLUMN, "--out", certified)
    got = [row for _, row in read_rows(certified) if not isinstance(row, str)]
    ((_, one),) = read_certificates(home_of(file))
    assert len(got) == found["kept"]
    assert {row["line_id"] for row in got} == set(one.line_ids)  # "id" is the file's own
    assert all(row["id"] == rows[row["text"]]["id"] for row in got)
    assert all(float(row["score"]) >= found["cut_score"] for row in got)
    result(file, *WITH_COLUMN, "--id", "id", "--out", certified)
    assert not any("line_id" in row for _, row in read_rows(certified))
    result(file, *WITH_COLUMN, "--precision", 0.6, "--out", certified)
    at = [row["certified_at"] for _, row in read_rows(certified) if not isinstance(row, str)]
    assert {float(one) for one in at} == {0.8, 0.6}


def test_the_source_is_not_written_over(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    table(file, labels=40)
    before = file.read_bytes()
    with pytest.raises(InputError, match="expected another file for --out"):
        result(file, *WITH_COLUMN, "--out", tmp_path / "." / "lines.csv")
    certified = tmp_path / "certified.csv"
    strict = (*WITH_COLUMN[:-4], "--precision", 0.9, "--max-share", 0.5)
    found = result(file, *strict, "--out", certified, code=4)
    assert any("was not written" in note for note in found["notes"])
    assert file.read_bytes() == before and not certified.exists()


# -- a frozen plan --------------------------------------------------------------------------------


FREEZE = ("--score", "score", "--precision", 0.8, "--max-share", 0.5, "--labels", 300, "--freeze")


def label_drawn(
    file: Path, rows: Iterable[dict[str, Any]], most: int | None = None, who: str = "ann"
) -> None:
    """What a person would answer on the page."""
    words = {row["text"]: row["truth"] for row in rows}
    with LabelStore(home_of(file)) as store:
        draw = store.draws("certificate")[-1]
        for item in draw.items[:most]:
            store.answer(draw.id, item.line_id, who, words[item.text])


def test_plan_label_certify(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file)
    told = said("plan", file, *FREEZE)
    assert f"Next: symdistill label {file}" in told
    with pytest.raises(InputError, match="300 are missing"):
        result(file, "--score", "score")
    label_drawn(file, rows, most=299)
    with pytest.raises(InputError, match="1 are missing"):
        result(file, "--score", "score")
    label_drawn(file, rows)
    found = result(file, "--score", "score", "--precision", 0.8, "--max-share", 0.5)
    assert found["certified"]
    assert found["labels_used"] == 300
    assert truth(rows, found["kept"]) >= 0.8
    assert found["sentence"].startswith("Of these")
    assert 'by "ann", 20' in found["sentence"]
    assert result(file) == found  # all of it was frozen


def test_what_was_not_frozen_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file)
    with pytest.raises(InputError, match=r"a frozen plan .* --score score --precision 0\.9$"):
        result(file, "--score", "score")
    said("plan", file, *FREEZE)
    label_drawn(file, rows)
    for options in (("--precision", 0.7), ("--max-share", 0.6), ("--delta", 0.1),
                    ("--group", "kind"), ("--score", "truth")):  # fmt: skip
        with pytest.raises(InputError, match="leave it out, or freeze a new plan"):
            result(file, *options)


def test_looks_are_preset_and_final(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file)
    easy = [0.7 if word == 0.8 else word for word in FREEZE]
    said("plan", file, *easy, "--looks", 2)
    label_drawn(file, rows, most=200)
    first = result(file)
    assert (first["labels_used"], first["level"]) == (150, 0.025)
    assert "The next look is at 300 labels; go on labelling." in first["notes"]
    label_drawn(file, rows)
    second = result(file)
    assert second["kept"] >= first["kept"]


def test_what_was_tested_counts_whatever_is_said_or_removed_afterwards(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file)
    easy = [0.7 if word == 0.8 else word for word in FREEZE]
    said("plan", file, *easy, "--looks", 2)
    label_drawn(file, rows, most=150)
    first = result(file)
    turned = [{**row, "truth": "invalid"} for row in rows]
    label_drawn(file, turned, most=150, who="bob")  # a second annotator, who disagrees
    for path in (home_of(file) / "certificates").iterdir():
        path.unlink()
    again = result(file)
    assert again["tests"] == first["tests"]
    assert any("changed after they had been tested" in note for note in again["notes"])
    assert "bob" not in again["sentence"]
    label_drawn(file, rows)
    second = result(file)
    assert second["kept"] >= first["kept"]  # the first 150 count as they were
    assert "bob" in second["sentence"]


def test_a_lost_record_of_what_was_tested_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file)
    said("plan", file, *FREEZE)
    label_drawn(file, rows)
    result(file)
    (home_of(file) / "tested.jsonl").unlink()
    label_drawn(file, [{**row, "truth": "valid"} for row in rows])
    with pytest.raises(InputError, match="to test others would be a look that was not fixed; rest"):
        result(file)


def test_a_draw_is_finished_or_given_up_and_that_is_told(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file)
    said("plan", file, *FREEZE)
    label_drawn(file, rows)  # labelled, read by hand, and not tested
    for seed in ((), ("--seed", 1), ("--seed", 0)):
        with pytest.raises(InputError, match=r"300 of its 300 lines are labelled .* --abandon WHY"):
            said("plan", file, *FREEZE, *seed)
    with pytest.raises(InputError, match="--freeze with --abandon, and why"):
        said("plan", file, *FREEZE[:-1], "--abandon", "why")
    said("plan", file, *FREEZE, "--abandon", "too  few valid")
    label_drawn(file, rows)
    told = "1 draw of lines to label had been given up before: too few valid (300 of 300 labelled)"
    assert told in result(file)["sentence"]
    said("plan", file, *FREEZE)  # tested: another may be drawn
    label_drawn(file, rows)
    third = result(file)["sentence"]
    assert told in third and "Labels of this file were tested once before" in third


def test_groups_and_questions_are_frozen(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    rows = [{**row, "asked": f"question {i}"} for i, row in enumerate(table(file))]
    write_rows(file, rows)
    said("plan", file, *FREEZE, "--group", "kind", "--question", "asked", "--id", "id")
    label_drawn(file, rows)
    write_rows(file, [{**row, "kind": "ab"[row["truth"] == "valid"]} for row in rows])
    with pytest.raises(InputError, match="lines were given another group;"):
        result(file)
    write_rows(file, [{**rows[0], "asked": "?"}, *rows[1:]])
    with pytest.raises(InputError, match="1 line was given another question;"):
        result(file)
    for option, name in (("--text", "asked"), ("--question", "text")):
        with pytest.raises(InputError, match=f"the {option[2:]} column that was frozen"):
            result(file, option, name)


def test_a_changed_pool_voids_and_says_what_changed(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file)
    said("plan", file, *FREEZE)
    label_drawn(file, rows)
    assert result(file)["certified"]
    write_rows(file, [{**rows[0], "score": 0.123}, *rows[3:], {**rows[0], "text": "a new one"}])
    with pytest.raises(InputError) as told:
        result(file)
    assert "1 line was added, 2 lines were removed, 1 line was given another score" in str(
        told.value
    )
    ((_, one),) = read_certificates(home_of(file))
    assert one.voided is not None
    assert "2 lines were removed" in one.voided["why"]


def test_certified_lines_that_are_gone_void_the_certificate(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    rows = sorted(table(file), key=lambda row: -row["score"])
    result(file, *WITH_COLUMN)
    write_rows(file, rows[1:])
    result(file, *WITH_COLUMN)
    voided = [one.voided for _, one in read_certificates(home_of(file))]
    assert sorted(one is None for one in voided) == [False, True]


@pytest.mark.parametrize("change", ["text", "one more", "unreadable"])
def test_a_changed_file_voids_what_was_certified_of_it(tmp_path: Path, change: str) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file)
    result(file, *WITH_COLUMN, "--id", "id")
    last = min(rows, key=lambda row: row["score"])  # far below the cut
    if change == "text":
        write_rows(file, [{**row, "text": "new"} if row is last else row for row in rows])
    elif change == "one more":
        write_rows(file, [*rows, {**last, "id": "new", "label": None}])
    else:
        write_rows(file, [{**row, "score": "high"} if row is last else row for row in rows])
    with contextlib.suppress(InputError):
        said("plan", file, "--score", "score", "--precision", 0.8, "--auc", 0.9)
    ((_, one),) = read_certificates(home_of(file))
    assert one.voided is not None


def test_a_line_withdrawn_below_the_cut_voids_nothing(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file)
    said("plan", file, *FREEZE)
    label_drawn(file, rows)
    result(file)
    ((_, one),) = read_certificates(home_of(file))
    low = next(line for line in read_pool(file).lines if not one.holds(line.id))
    append_row(home_of(file) / "withdrawn.jsonl", {"id": low.id, "why": "x", "undone": False})
    with pytest.raises(InputError, match="1 of its lines was withdrawn; freeze a new") as refused:
        result(file)
    again = "--score score --precision 0.8 --max-share 0.5 --labels 300 --freeze"
    assert again in str(refused.value)
    said("plan", file, *again.split())
    assert [c.voided for _, c in read_certificates(home_of(file))] == [None]


def test_what_is_void_stays_void(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    table(file)
    first = Path(result(file, *WITH_COLUMN)["certificate"])
    void(first, "a line was withdrawn")
    again = Path(result(file, *WITH_COLUMN)["certificate"])  # the withdrawal was taken back
    assert again != first
    found = dict(read_certificates(home_of(file)))
    assert found[first].voided is not None and found[again].voided is None
    assert Path(result(file, *WITH_COLUMN)["certificate"]) == again


def test_a_plan_that_cannot_pass_is_not_frozen(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file)
    strict = ("--score", "score", "--max-share", 0.5, "--freeze", "--precision", 0.95)
    with pytest.raises(InputError, match=r"expected at least 5\d labels; with 40 nothing"):
        said("plan", file, *strict, "--labels", 40)
    assert not LabelStore(home_of(file), read_only=True).draws()
    told = said("plan", file, *strict, "--precision", 0.7, "--labels", 40)
    assert "Nothing can be certified at precision 0.95 with so few labels" in told
    assert "one invalid line" not in told
    told = said("plan", file, *strict, "--labels", 100, "--abandon", "too few")
    assert "one invalid line among them certifies nothing" in told
    write_rows(file, [*rows, {**rows[0], "text": None}])
    told = said("plan", file, *FREEZE, "--abandon", "another")
    assert "1 of 2,001 rows left out: row 2001 after the header: no text in 'text'." in told
    label_drawn(file, rows)
    assert any("rows left out" in note for note in result(file)["notes"])


def test_scores_that_are_all_alike_are_told_and_not_frozen(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    write_rows(file, [{**row, "score": 1} for row in table(file)])
    told = said("plan", file, *FREEZE[:4], "--auc", 0.9)
    assert "Every line has the same score: the score orders nothing." in told
    with pytest.raises(InputError, match="expected scores that differ; all 2,000 lines"):
        said("plan", file, *FREEZE)
    assert not LabelStore(home_of(file), read_only=True).draws()


def test_names_do_not_drive_the_terminal(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file)
    said("plan", file, *FREEZE)
    label_drawn(file, rows, who='ann") \x1b[31m')
    assert "\x1b" not in said("certify", file)
    assert "\x1b" not in result(file)["sentence"]


def test_lines_labelled_before_leave_the_pool(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file)
    pool = read_pool(file, score="score")
    with LabelStore(pool.home) as store:
        draw = training_draw(pool.lines, 100, 0, how="random", pool_hash=pool.hash)
        store.add_draw(draw)
        for item in draw.items:
            store.answer(draw.id, item.line_id, "ann", "valid")
    with pytest.raises(InputError, match="were drawn to train or to audit"):
        result(file, "--score", "score")
    assert "1,900 lines (100 labelled or drawn before left the pool)" in said("plan", file, *FREEZE)
    label_drawn(file, rows)
    found = result(file)
    assert "100 lines labelled before had left the pool" in found["sentence"]
    (one,) = [one for _, one in read_certificates(pool.home) if one.certified]
    assert not {item.line_id for item in draw.items} & set(one.line_ids)


# -- planning -------------------------------------------------------------------------------------


def test_a_plan_says_how_many_labels(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    table(file)
    told = said("plan", file, "--score", "score", "--precision", 0.8)
    assert "give --auc" in told
    assert "0.85" in told
    told = said("plan", file, "--score", "score", "--precision", 0.8, "--auc", 0.85,
                "--valid-share", 0.45, "--labels", 500)  # fmt: skip
    assert "For an 80 % chance of a certificate, label" in told
    assert "With 500 lines drawn" in told
    ladder = [line.split()[0] for line in told.splitlines() if line.startswith(" " * 20)]
    assert ladder == ["100", "200", "400", "800"]
    command = told.split("To fix it and draw the lines: symdistill plan ")[1]
    assert "--labels 500 --freeze" in command
    said("plan", *shlex.split(command))
    assert len(LabelStore(home_of(file), read_only=True).draws()[0].items) == 500


def test_a_plan_says_what_it_cannot(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    table(file)
    told = said("plan", file, *FREEZE[:4], "--labels", 1500)
    assert "as many as there are" in told
    assert "--max-share SHARE --labels NUMBER --freeze" in told
    frozen = said("plan", file, *FREEZE)
    assert "chance" in frozen and "Frozen" in frozen  # how likely it is, whatever the critic
    (home_of(file) / "labels.sqlite").unlink()
    weak = said("plan", file, "--score", "score", "--precision", 0.9, "--auc", 0.6)
    assert "buys little" in weak
    assert not (home_of(file) / "labels.sqlite").exists()
    for labels in (5, 3000):
        with pytest.raises(InputError, match="expected 10 to 2,000 labels"):
            said("plan", file, *FREEZE[:4], "--auc", 0.8, "--labels", labels)
    few = said("plan", file, *FREEZE[:4], "--auc", 0.8, "--labels", 1900)
    assert "more labels need a larger --max-share" in few
    with pytest.raises(InputError, match="expected --labels and --max-share to freeze"):
        said("plan", file, "--score", "score", "--precision", 0.9, "--auc", 0.6, "--freeze")


def test_a_plan_for_groups_gives_each_its_share_of_the_labels(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file, lines=4000)
    write_rows(file, [{**row, "kind": str(i % 10)} for i, row in enumerate(rows)])
    asked = ("plan", file, *FREEZE[:4], "--auc", 0.85, "--labels", 300)
    all_lines, told = said(*asked), said(*asked, "--group", "kind")
    assert "10 groups of 400 lines; what follows is for each of them" in told
    chance = [
        int(one.split("With 300 ")[1].split("chance ")[1].split("%")[0])
        for one in (all_lines, told)
    ]
    assert chance[1] < chance[0] / 2
    assert "for each group, kept on average" in told


def test_a_score_that_runs_the_other_way(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file, labels=100, share=1.0)
    write_rows(file, [{**row, "score": -row["score"]} for row in rows])
    told = said("plan", file, *FREEZE[:4], "--label", "label")
    assert "The score runs the other way: AUC 0." in told
    assert "To fix it" not in said("plan", file, *FREEZE[:4], "--label", "label", "--labels", 90)
    found = result(file, *WITH_COLUMN[:-1], 1, code=4)
    assert any("The score runs the other way" in note for note in found["notes"])


def test_repeated_and_few_lines_are_told(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file)
    write_rows(file, [*rows, *rows[:100]])
    assert "100 lines repeat another" in said("plan", file, *FREEZE[:4], "--auc", 0.9)
    write_rows(file, rows[:8])
    with pytest.raises(InputError, match="10 lines among the best 50% of 8; there are 4; add"):
        said("plan", file, *FREEZE)
    write_rows(file, rows[:11])
    for known in ((), ("--auc", 0.9)):
        told = said("plan", file, *FREEZE[:4], *known)
        assert "A certificate takes at least" in told and ": too few" in told
        assert "label 1 " not in told and "--freeze" not in told


def test_a_pilot_plans_and_leaves_the_pool(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file, labels=100, share=1.0)
    told = said("plan", file, "--score", "score", "--precision", 0.8, "--label", "label",
                "--freeze")  # fmt: skip
    assert "by 100 pilot labels" in told
    assert "1,900 lines (100 labelled or drawn before left the pool)" in told
    label_drawn(file, rows)
    assert result(file)["kept"] > 0


def test_a_run_is_certified_in_its_own_folder(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    item = Item.make("concept", "bicycle")
    lines = [Knowledge.make("statement", f"statement {i}", item.id) for i in range(600)]
    verdicts = [
        Verdict(line.id, "critic@1", float(score))
        for line, score in zip(lines, rng.random(600), strict=True)
    ]
    tables = tmp_path / "tables"
    write_records(tables / "items.parquet", Item, [item])
    write_records(tables / "knowledge.parquet", Knowledge, lines)
    write_records(tables / "verdicts.parquet", Verdict, verdicts)
    with pytest.raises(InputError, match="expected --group with a table"):
        said("plan", tmp_path, "--precision", 0.8, "--group", "nonsense")
    said("plan", tmp_path, "--precision", 0.8, "--max-share", 0.5, "--labels", 60, "--freeze")
    label_drawn(tmp_path, [{"text": line.text, "truth": "valid"} for line in lines])
    found = result(tmp_path)
    assert found["kept"] == 300
    assert Path(found["certificate"]).parent == tmp_path / "certificates"
    with pytest.raises(InputError, match="a run, which has no column of labels"):
        result(tmp_path, "--label", "label", "--precision", 0.8)
