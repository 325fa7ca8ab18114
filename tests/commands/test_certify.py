"""`symdistill plan` and `symdistill certify` as a user runs them, with scripted labels."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from symdistill.commands.certify import certify, plan
from symdistill.critic.certificate import read_certificates
from symdistill.datafiles import write_rows
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
    assert "These lines were tested once before" in again["sentence"]


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
    assert "by ann, 20" in found["sentence"]
    assert result(file) == found  # all of it was frozen


def test_what_was_not_frozen_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file)
    with pytest.raises(InputError, match="a frozen plan"):
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
    turned = [{**row, "truth": "valid"} for row in rows]
    label_drawn(file, turned)  # the same person changes every answer
    with pytest.raises(InputError, match="some were changed since"):
        result(file)


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
    assert "1,900 lines (100 labelled before left the pool)" in said("plan", file, *FREEZE)
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
    weak = said("plan", file, "--score", "score", "--precision", 0.9, "--auc", 0.6)
    assert "buys little" in weak
    assert not (home_of(file) / "labels.sqlite").exists()
    with pytest.raises(InputError, match="expected --labels and --max-share to freeze"):
        said("plan", file, "--score", "score", "--precision", 0.9, "--auc", 0.6, "--freeze")


def test_a_pilot_plans_and_leaves_the_pool(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    rows = table(file, labels=100, share=1.0)
    told = said("plan", file, "--score", "score", "--precision", 0.8, "--label", "label",
                "--freeze")  # fmt: skip
    assert "by 100 pilot labels" in told
    assert "1,900 lines (100 labelled before left the pool)" in told
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
    said("plan", tmp_path, "--precision", 0.8, "--max-share", 0.5, "--labels", 60, "--freeze")
    label_drawn(tmp_path, [{"text": line.text, "truth": "valid"} for line in lines])
    found = result(tmp_path)
    assert found["kept"] == 300
    assert Path(found["certificate"]).parent == tmp_path / "certificates"
    with pytest.raises(InputError, match="a run, which has no column of labels"):
        result(tmp_path, "--label", "label", "--precision", 0.8)
