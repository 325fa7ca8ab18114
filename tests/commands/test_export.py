"""`symdistill export`: the test questions of a run as a task, or one sentence why not.

The run is a folder made here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.commands.test_answer import CHOICE, NUMBER, make_run
from typer.testing import CliRunner

from symdistill.commands.export import export
from symdistill.errors import InputError, RunError
from symdistill.records import Item

pytestmark = pytest.mark.unit

TRAIN = Item.make("question", "How few?", gold="3", split="train",
                  fields={"answer_kind": "number"})  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", [TRAIN, NUMBER], name="run")


def said(*command: object) -> str:
    """What the command prints; its errors are raised."""
    app = typer.Typer()
    app.command()(export)
    done = CliRunner().invoke(app, [str(word) for word in command], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*command: object) -> str:
    """The one sentence of a refusal."""
    with pytest.raises(InputError) as error:
        said(*command)
    assert error.value.exit_code == 2 and "\n" not in str(error.value)
    return str(error.value)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_task_holds_the_test_questions_and_the_students_prompt(run: Path, tmp_path: Path) -> None:
    assert "1 questions" in said(run, tmp_path / "task")
    (row,) = rows(tmp_path / "task" / "run.jsonl")
    assert row == {"id": NUMBER.id, "prompt": "Q: How many?\nA:", "target": "4"}
    assert "run_data.load" in (tmp_path / "task" / "run.yaml").read_text()


def test_another_arm_tool_and_name(run: Path, tmp_path: Path) -> None:
    said(run, tmp_path / "task", "--for", "inspect", "--arm", "direct", "--name", "mine")
    (row,) = rows(tmp_path / "task" / "mine.jsonl")
    assert row["input"] == "Q: How many?\nA:" and row["target"] == "4"
    compile((tmp_path / "task" / "mine.py").read_text(), "mine.py", "exec")


@pytest.mark.parametrize("name", ["Big-Run 2", "2nd", "lambda"])
def test_any_run_has_a_task_by_default(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "run", [NUMBER], name=name)
    said(run, tmp_path / "task")
    assert len(rows(next((tmp_path / "task").glob("*.jsonl")))) == 1


def test_the_same_export_twice_is_one(run: Path, tmp_path: Path) -> None:
    said(run, tmp_path / "task")
    said(run, tmp_path / "task")


# -- refusals ------------------------------------------------------------------------------------


def test_a_folder_without_a_run_of_scotd(tmp_path: Path) -> None:
    assert "expected the folder of a run of scotd" in refused(tmp_path, tmp_path / "task")
    (tmp_path / "config.yaml").write_text("recipe: i2d2\n")
    assert "a run of scotd" in refused(tmp_path, tmp_path / "task")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--for", "helm"], "expected --for lm-eval or inspect; got 'helm'"),
        (["--arm", "nobody"], "among scotd, two, direct; got 'nobody'"),
        (["--arm", "two"], "one step; 'two' (cascod) takes two"),
        (["--name", "My Task"], "task name of small letters"),
    ],
)
def test_what_cannot_be_exported(run: Path, tmp_path: Path, options: list[str], says: str) -> None:
    assert says in refused(run, tmp_path / "task", *options)
    assert not (tmp_path / "task").exists()


def test_a_run_without_test_questions(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [TRAIN])
    assert "with test questions" in refused(run, tmp_path / "task")


def test_a_folder_that_holds_something_else(run: Path, tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.txt").write_text("mine")
    assert "holds something else" in refused(run, tmp_path / "task")
    assert [path.name for path in (tmp_path / "task").iterdir()] == ["mine.txt"]


def test_a_file_in_the_way(run: Path, tmp_path: Path) -> None:
    (tmp_path / "task").write_text("mine")
    with pytest.raises(RunError, match="choose another place"):
        said(run, tmp_path / "task")
    assert (tmp_path / "task").read_text() == "mine"


def test_questions_of_two_kinds_are_two_tasks_of_one_tool(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [NUMBER, CHOICE])
    assert "one answer kind" in refused(run, tmp_path / "task")
    assert "2 questions" in said(run, tmp_path / "task", "--for", "inspect")
