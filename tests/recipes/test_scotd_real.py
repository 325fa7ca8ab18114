"""The packaged example of `scotd`, made small, on the embedded model; then its student in use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.recipes.command_line import Done, symdistill

from symdistill.models import Model

pytestmark = pytest.mark.real

SMALL = (
    "problems.limit=4",
    "problems.test_limit=4",
    "rationales.samples=2",
    "rationales.decoding.max_new_tokens=80",  # nine of ten chains come to an answer
    "filter.keep=all",  # of so few chains none may be right
    "student.arms={scotd: {objective: scotd}}",
    "student.untrained=false",
    "student.max_new_tokens=24",
    "student.training.max_tokens=400",
)
QUESTION = "Mia has 3 apples and buys 4 more. How many apples has she?"


@pytest.fixture(scope="module")
def place(smollm2: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run is, as `small`."""
    folder = tmp_path_factory.mktemp("scotd")
    settings = [word for one in SMALL for word in ("--set", one)]
    done = symdistill(folder, "run", "scotd", "--name", "small", "--out", "small",
                      *settings)  # fmt: skip
    assert done.code == 0, done.said
    assert "4 test questions" in done.said
    return folder


def good(place: Path, *command: str) -> Done:
    done = symdistill(place, *command)
    assert done.code == 0, done.said
    return done


def test_the_packaged_example_works(place: Path) -> None:
    metrics = json.loads((place / "small" / "metrics.json").read_text())
    assert metrics["asked"]["teacher"]["asked"] == 4 * 2
    assert metrics["chosen"]["kept"] >= 1
    assert metrics["questions"]["splits"] == {"train": 4, "test": 4}
    (arm,) = metrics["arms"]
    assert arm["name"] == "scotd" and arm["questions"] == 4
    assert 0 < arm["cost"]["generated_tokens"] <= 4 * 24
    assert (place / "small" / "report.html").is_file()


def test_a_student_answers(place: Path) -> None:
    assert "\nAnswer: " in good(place, "answer", "small", QUESTION).out
    voted = json.loads(good(place, "answer", "small", QUESTION, "--vote", "2", "--json").out)
    assert sum(voted["votes"].values()) <= 2 and voted["text"]
    assert (voted["answer"] is None) == bool(voted["reason"])


@pytest.mark.parametrize("tool", ["lm-eval", "inspect"])
def test_the_test_questions_go_to_another_tool(place: Path, tool: str) -> None:
    done = good(place, "export", "small", f"task-{tool}", "--for", tool)
    assert "4 questions" in done.said
    folder = place / f"task-{tool}"
    rows = [json.loads(line) for line in (folder / "small.jsonl").read_text().splitlines()]
    prompts = [row["prompt" if tool == "lm-eval" else "input"] for row in rows]
    assert len(rows) == 4 and all(prompt.startswith("Q: ") for prompt in prompts)
    predictions = (place / "small" / "predictions.jsonl").read_text().splitlines()
    golds = {row["item_id"]: row["gold"] for row in map(json.loads, predictions)}
    assert {row["id"]: row["target"] for row in rows} == golds
    assert "small" in (folder / "README.md").read_text()
