"""The parts of the reasoning benchmark that need no model, on rows written here."""

from __future__ import annotations

import argparse
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import reasoning
from benchmarks.reasoning import (
    differ,
    figures_of,
    groups_of,
    let_through,
    public_task,
    puzzles,
    question_of,
    ranged,
    read_chains,
    reasons_kept,
    split_of,
    together,
)

from symdistill.datafiles import read_rows, write_rows
from symdistill.recipes._scotd_asking import read_questions
from symdistill.recipes._scotd_settings import ScotdConfig
from symdistill.recipes.scotd import asks_of
from symdistill.records import Item
from symdistill.tables import write_records
from symdistill.worlds import ReasoningWorld

pytestmark = pytest.mark.unit

NAMES = ("Ada Ben Cleo Dan", "Eve Finn Gus Hal", "Ida Jon Kim Leo")


def letters(name: str, sample: int) -> dict[str, Any]:
    gold = "".join(word[-1] for word in name.split())
    return {
        "id": f"{name}-{sample}", "item_id": f"row {name}",
        "question": f'Take the last letters of each words in "{name}" and concatenate them.',
        "gold": gold, "text": f" {sample} letters are {gold}. So the answer is {gold}.",
    }  # fmt: skip


def objects(number: int, sample: int) -> dict[str, Any]:
    held = ["a red ball", "a green ball", "a blue ball"]
    return {
        "id": f"{number}-{sample}", "item_id": f"row {number}", "choices": held,
        "question": f"Ann, Bob and Eve swap balls {number} times. What does Ann hold?",
        "gold": held[number % 3], "gold_index": number % 3, "text": f" {sample} swaps. (B)",
    }  # fmt: skip


ROWS = {
    "last_letter": [letters(name, sample) for name in NAMES for sample in range(2)],
    "shuffled": [objects(number, sample) for number in range(2, 7) for sample in range(2)],
    "cqa": [{key: row[key] for key in row if key != "item_id"} for row in
            (objects(number, 0) for number in range(10))],
}  # fmt: skip
FILES = {"last_letter": "gpt35__last_letter", "shuffled": "gpt35__shuffled",
         "cqa": "palm540b__cqa"}  # fmt: skip


@pytest.fixture
def given(tmp_path: Path) -> argparse.Namespace:
    """Options of the benchmark, with rows of every task where it looks for them."""
    place = tmp_path / "data" / "rationales"
    place.mkdir(parents=True)
    for task, rows in ROWS.items():
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (place / f"{FILES[task]}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    return argparse.Namespace(
        data=tmp_path / "data", out=tmp_path / "out", questions=6, tokens=100, seed=[1], vote=0
    )


def config_of(task: str, given: argparse.Namespace) -> ScotdConfig:
    return ScotdConfig.model_validate(public_task(task, given))


def test_a_question_with_options_has_a_letter_for_its_gold() -> None:
    row = objects(4, 0)
    assert question_of(row) == {
        "question": row["question"], "gold": "B", "item_id": "row 4", "choices": row["choices"],
    }  # fmt: skip
    open_one = question_of({**letters(NAMES[0], 0), "gold": 12, "gold_index": None, "choices": []})
    assert open_one["gold"] == "12" and "choices" not in open_one


def test_a_row_without_a_question_id_is_a_question_of_its_own(given: argparse.Namespace) -> None:
    rows = list(read_chains(given.data / "rationales" / "palm540b__cqa.jsonl.gz"))
    assert [row["item_id"] for row in rows] == [row["id"] for row in ROWS["cqa"]]
    rows = list(read_chains(given.data / "rationales" / "gpt35__shuffled.jsonl.gz"))
    assert {row["item_id"] for row in rows} == {f"row {number}" for number in range(2, 7)}


@pytest.mark.parametrize("task", ["last_letter", "shuffled", "cqa"])
def test_the_recorded_teacher_has_what_the_recipe_asks(
    task: str, given: argparse.Namespace
) -> None:
    config = config_of(task, given)
    recorded = Path(config.teacher.model.removeprefix("recorded:"))
    answers: dict[str, list[str]] = {}
    for _, row in read_rows(recorded, ["prompt", "answer"], what="answers"):
        assert not isinstance(row, str)
        answers.setdefault(row["prompt"], []).append(row["answer"])
    train = [item for item in read_questions(config, Counter()) if item.split == "train"]
    asks = asks_of(config, "teacher", train)
    assert asks and {one.prompt for one in asks} <= set(answers)
    written = {row["question"]: [] for row in ROWS[task]}  # type: dict[str, list[str]]
    for row in ROWS[task]:
        written[row["question"]].append(row["text"])
    for item, one in zip(train, asks, strict=True):
        assert answers[str(one.prompt)] == written[item.text]


@pytest.mark.parametrize("task", ["last_letter", "shuffled", "cqa"])
def test_no_test_question_is_trained_on(task: str, given: argparse.Namespace) -> None:
    refused: Counter[str] = Counter()
    items = read_questions(config_of(task, given), refused)
    texts = {split: {item.text for item in items if item.split == split}
             for split in ("train", "test")}  # fmt: skip
    assert texts["train"] and texts["test"] and not texts["train"] & texts["test"]
    assert not +refused
    assert texts["train"] <= {row["question"] for row in ROWS[task]}


def test_puzzles_are_of_the_training_names_and_as_many_as_asked_for() -> None:
    found = puzzles("last_letter", ROWS["last_letter"], 20)
    known = set(" ".join(NAMES).split())
    assert len({row["question"] for row in found}) == 20
    for row in found:
        words = row["question"].split('"')[1].split()
        assert len(words) == 4 and set(words) <= known
        assert row["gold"] == "".join(word[-1] for word in words)
    swaps = puzzles("shuffled", [], 5)
    assert len(swaps) == 5
    assert all(row["gold"] in "ABC" and len(row["choices"]) == 3 for row in swaps)


def test_a_puzzle_that_is_a_training_question_is_not_trained_on(given: argparse.Namespace) -> None:
    (puzzle, *_) = puzzles("last_letter", ROWS["last_letter"], 6)
    names = puzzle["question"].split('"')[1]
    rows = [*ROWS["last_letter"], {**letters(names, 0), "question": puzzle["question"]}]
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    path = given.data / "rationales" / "gpt35__last_letter.jsonl.gz"
    path.write_bytes(gzip.compress(text.encode()))
    refused: Counter[str] = Counter()
    items = read_questions(config_of("last_letter", given), refused)
    assert {item.text for item in items if item.split == "train"} == {
        row["question"] for row in ROWS["last_letter"]
    }
    assert sum(refused.values()) == 1


@pytest.mark.parametrize(
    ("task", "together_", "apart"),
    [
        ("esnli", "A man runs.\nDoes it follow that {}", "Dogs {} sleep.\nDoes it follow that x?"),
        (
            "date",
            "Ann was born on day 1. What is the date {} later?",
            "It is day {}. What is the date?",
        ),
        ("cqa", "Which flies?", "Which of {} flies?"),
    ],
)
def test_what_belongs_together_is_held_out_together(task: str, together_: str, apart: str) -> None:
    assert len({split_of(task, together_.format(number)) for number in range(30)}) == 1
    drawn = [split_of(task, apart.format(number)) for number in range(400)]
    assert 0.2 < drawn.count("test") / 400 < 0.4


# -- figures -------------------------------------------------------------------------------------


def drawn(seed: int, questions: int) -> dict[str, Any]:
    """A job whose arm `a` is right more often than `b`; its questions are contrast sets of two."""
    rng = np.random.default_rng(seed)
    right = {
        name: (rng.random((3, questions)) < share).tolist()
        for name, share in (("a", 0.9), ("b", 0.3))
    }
    return {"right": right, "groups": [f"set {number // 2}" for number in range(questions)]}


def test_questions_of_several_jobs_lie_side_by_side() -> None:
    rows = [{"right": {"a": [[1, 0], [1, 1]]}}, {"right": {"a": [[0, 0, 1], [0, 1, 1]]}}]
    found = together(rows, "a")
    assert found.dtype == bool and found.shape == (2, 5)
    assert found.astype(int).tolist() == [[1, 0, 0, 0, 1], [1, 1, 0, 1, 1]]


def test_contrast_sets_of_several_jobs_are_not_mixed() -> None:
    rows = [drawn(1, 4), drawn(2, 6)]
    groups = groups_of(rows)
    assert len(groups) == 10 and len(set(groups)) == 5
    assert groups[0] == groups[1] != groups[4]


def test_a_difference_over_questions_and_seeds() -> None:
    rows = [drawn(1, 60), drawn(2, 40)]
    a, b = together(rows, "a"), together(rows, "b")
    found = differ(rows, "a", "b")
    assert found["difference"] == pytest.approx(a.mean() - b.mean())
    assert found["by_seed"] == pytest.approx((a.mean(axis=1) - b.mean(axis=1)).tolist())
    low, high = found["interval"]
    assert 0 < low < found["difference"] < high and found["p"] < 0.05
    assert "seeds" in found["covers"]
    alone = ranged(rows, "a")
    assert alone["accuracy"] == pytest.approx(a.mean())
    assert alone["by_seed"] == pytest.approx(a.mean(axis=1).tolist())
    json.dumps([found, alone])  # as the result file needs it


def test_answers_are_kept_by_arm_and_seed_without_the_votes(tmp_path: Path) -> None:
    first = Item.make("question", "One?", gold="1", split="test")
    twin = Item.make("question", "Two?", gold="2", split="test", fields={"contrast_of": first.id})
    trained = Item.make("question", "Three?", gold="3", split="train")
    write_records(tmp_path / "tables" / "items.parquet", Item, [trained, first, twin])
    write_rows(tmp_path / "predictions.jsonl", [
        {"arm": arm, "seed": seed, "mode": mode, "correct": correct}
        for arm, seed, mode, correct in [
            ("scotd", 1, "greedy", True), ("scotd", 1, "greedy", None), ("scotd", 1, "vote", True),
            ("scotd", 2, "greedy", False), ("scotd", 2, "greedy", True), ("alone", 1, "greedy", 1),
        ]
    ])  # fmt: skip
    metrics = dict.fromkeys(("questions", "chosen", "seen", "protocol", "students", "arms",
                             "comparisons", "corpus", "more"))  # fmt: skip
    found = figures_of(metrics, tmp_path)
    assert found["right"] == {"scotd": [[True, False], [False, True]], "alone": [[True]]}
    assert found["groups"] == [first.id, first.id]
    assert "more" not in found and "corpus" in found


def test_chains_right_for_a_wrong_reason_are_counted(tmp_path: Path) -> None:
    world = ReasoningWorld.draw(3)
    (item,) = world.problems("train", 1)
    true, gold = world.true_chain(item), item.gold
    guess = f"So the answer is ({gold})."
    wrong = f"So the answer is ({'A' if gold != 'A' else 'B'})."
    write_rows(tmp_path / "chains.jsonl", [
        {"teacher": teacher, "question": item.text, "text": text, "kept": kept}
        for teacher, text, kept in [
            ("teacher", true, True), ("teacher", guess, True), ("teacher", guess, False),
            ("teacher", wrong, False), ("other", true, True),
        ]
    ])  # fmt: skip
    found = reasons_kept(tmp_path, world, [item])
    assert found == {"chains": 4, "lucky": 2, "kept": 2, "kept_valid": 1, "kept_lucky": 1}
    shares = let_through([found, {**found, "kept_lucky": 2, "kept": 6}])
    assert shares["let_through"] == 3 / 4 and shares["share_of_kept"] == 3 / 8
    assert shares["kept"] == 8
    nothing = let_through([dict.fromkeys(found, 0)])
    assert nothing == {"let_through": 0, "share_of_kept": 0, "valid_share_of_kept": 0, "kept": 0}


def test_rows_of_other_tasks_stay_when_a_job_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "reasoning.json"
    monkeypatch.setattr(reasoning, "RESULT", path)

    def finish(name: str, head: dict[str, Any], rows: Any) -> None:
        path.write_text(json.dumps({**head, "rows": rows}))

    monkeypatch.setattr(reasoning, "finish", finish)
    given = argparse.Namespace(threads=1, tokens=None, seed=[1], questions=4)
    reasoning.keep("world", "world 1", {"x": 1}, given)
    reasoning.tell({"task": "world", "difference": 0.5})
    reasoning.keep("primary", "shuffled", {"x": 2}, given)
    reasoning.tell({"task": "primary", "difference": 0.1})
    kept = json.loads(path.read_text())
    assert set(kept["headline"]) == {"world", "primary"}
    assert kept["rows"]["world"]["world 1"]["x"] == 1
    assert kept["rows"]["primary"]["shuffled"]["x"] == 2
