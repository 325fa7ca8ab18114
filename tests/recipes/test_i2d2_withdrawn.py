"""I2D2 after a line was withdrawn, and with a screen that refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.recipes.conftest import DrawnWorld

from symdistill.commands.withdraw import withdraw
from symdistill.recipes import run_recipe
from symdistill.recipes.i2d2 import I2D2Config
from symdistill.records import Knowledge, Verdict, View
from symdistill.tables import read_records

pytestmark = pytest.mark.world


def settings(drawn: DrawnWorld, **changes: Any) -> I2D2Config:
    """One round of self-imitation about a few concepts."""
    given = drawn.settings(
        concepts={"source": str(drawn.folder / "concepts.jsonl"), "limit": 10}, rounds=1, **changes
    )
    given["critic"]["training"]["epochs"] = 2
    given["student"] |= {"epochs": 1}
    return I2D2Config.model_validate(given)


def table(run: Path, name: str, kind: Any) -> list[Any]:
    return read_records(run / "tables" / f"{name}.parquet", kind)


def decisions(run: Path) -> dict[tuple[str, int], Verdict]:
    words = table(run, "verdicts", Verdict)
    return {(one.knowledge_id, one.round): one for one in words if one.judge == "selection"}


def everything(run: Path) -> dict[str, bytes]:
    """The tables, and the student's weights."""
    files = [*(run / "tables").iterdir(), *(run / "students").glob("*/*.safetensors")]
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def finished(drawn: DrawnWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "withdrawn"
    run_recipe(settings(drawn), run)
    return run


def test_a_withdrawn_line_is_not_kept_or_trained_on_again(
    drawn: DrawnWorld, finished: Path
) -> None:
    first = everything(finished)
    gone = table(finished, "views", View)[0].knowledge_ids[0]
    withdraw(gone, why="a mistake", run=finished)
    run_recipe(settings(drawn), finished)
    assert all(gone not in view.knowledge_ids for view in table(finished, "views", View))
    words = [one for (id, _), one in decisions(finished).items() if id == gone]
    assert words and all(one.score == 0.0 for one in words)
    assert {one.reason for one in words} == {"withdrawn: a mistake"}
    again = everything(finished)
    weights = "students/1/model.safetensors"
    assert again[weights] != first[weights]

    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["rounds"][0]["rejected"]["withdrawn"] == 1

    withdraw(gone, undo=True, run=finished)
    run_recipe(settings(drawn), finished)
    assert everything(finished) == first


def test_another_lines_withdrawal_changes_nothing(drawn: DrawnWorld, finished: Path) -> None:
    first = everything(finished)
    steps = {path: path.stat().st_mtime_ns for path in (finished / "steps").iterdir()}
    path = finished / "withdrawn.jsonl"
    kept = path.read_bytes() if path.exists() else b""
    path.write_bytes(kept + b'{"id": "of another run", "why": "x", "at": "", "undone": false}\n')
    run_recipe(settings(drawn), finished)
    assert everything(finished) == first
    assert {path: path.stat().st_mtime_ns for path in (finished / "steps").iterdir()} == steps
    path.write_bytes(kept)


def test_marked_lines_are_kept_or_refused_as_asked(
    drawn: DrawnWorld, finished: Path, tmp_path: Path
) -> None:
    kept = {id for (id, _), word in decisions(finished).items() if word.score == 1.0}
    texts = {line.id: line.text for line in table(finished, "knowledge", Knowledge)}
    word = texts[min(kept)].split()[0]
    (tmp_path / "ours.txt").write_text(word)
    concerned = {id for id in kept if word.lower() in texts[id].lower().split()}
    screen = {"phrases": str(tmp_path / "ours.txt"), "doubtful": None}
    before = everything(finished)

    metrics = run_recipe(settings(drawn, screen=screen), finished, accept_changes=True)
    marked = {one.knowledge_id for one in table(finished, "review", Verdict)}
    assert concerned <= marked <= kept
    assert metrics["review"]["marked"] == len(marked) == metrics["review"]["rules"]["phrase"]
    assert metrics["review"]["screened"] == len(kept)
    after = everything(finished)
    assert {name for name in after if after[name] != before[name]} <= {"tables/review.parquet"}

    before_refusing = decisions(finished)
    refusing = settings(drawn, screen=screen | {"action": "refuse"})
    metrics = run_recipe(refusing, finished, accept_changes=True)
    now = decisions(finished)
    for id, round in before_refusing:
        if id in marked and round == 0:  # in round 1 another student writes
            assert now[id, round].score == 0.0
            assert now[id, round].reason.startswith("screen: phrase: ")
    assert metrics["review"]["marked"] == 0 and table(finished, "review", Verdict) == []
    assert metrics["rounds"][0]["rejected"]["screen"] > 0

    metrics = run_recipe(settings(drawn, screen=None), finished, accept_changes=True)
    assert metrics["review"] is None
