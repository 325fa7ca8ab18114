"""The README's commands and code, run as they stand there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.recipes.conftest import DrawnWorld

from symdistill.models import Model
from symdistill.records import View
from symdistill.tables import read_records

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
MAKEFILE = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    lines = (line for block in blocks("console") for line in block.splitlines())
    return [line[2:].split("#")[0].strip() for line in lines if line.startswith("$ ")]


def symdistill(command: str, place: Path, *more: str) -> str:
    words = shlex.split(command)
    assert words[0] == "symdistill"
    run = [sys.executable, "-m", *words, *more]
    done = subprocess.run(run, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.unit
def test_every_make_target_it_names_exists() -> None:
    named = [command.split()[1] for command in commands() if command.startswith("make ")]
    assert {"demo", "test"} <= set(named)
    for target in named:
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


@pytest.mark.world
def test_its_commands_work_one_after_another(drawn: DrawnWorld, tmp_path: Path) -> None:
    """Beside the commands themselves: a world in place of the default model, and an id for ID."""
    place = tmp_path / "somewhere"
    place.mkdir()
    settings = drawn.settings(rounds=1)
    settings["concepts"]["limit"] = 15
    small = [
        word
        for key, value in settings.items()
        if key != "recipe"
        for word in ("--set", f"{key}={json.dumps(value)}")
    ]
    ran = []
    for command in (one for one in commands() if one.startswith("symdistill ")):
        verb = command.split()[1]
        ran.append(verb)
        if verb == "doctor":
            continue  # depends on the machine; tests/test_cli.py runs it
        if verb == "run":
            said = symdistill(command, place, *small)
            assert "estimated" in said and "NOT CERTIFIED" in said
        elif verb == "show":
            tables = place / "runs" / "mine" / "tables"
            (view, *_) = read_records(tables / "views.parquet", View)
            assert view.prompt in symdistill(command.replace("ID", view.knowledge_ids[0]), place)
        else:
            symdistill(command, place)
    assert ran == ["copy", "run", "show", "report", "doctor"]
    assert (place / "runs" / "mine" / "report.html").is_file()


@pytest.mark.real
def test_its_python_works(smollm2: Model) -> None:
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.unit
def test_every_file_it_links_to_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (Path(__file__).parents[2] / target).exists(), target
