"""The examples of docs/decoding.md and docs/how_decoding_works.md, run as they stand."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from symdistill.constraints import from_json
from symdistill.decoding import Lookahead, constrained_generate
from symdistill.decoding.beams import select
from symdistill.models import Model

DOCS = Path(__file__).parents[1] / "docs"
GUIDE = (DOCS / "decoding.md").read_text(encoding="utf-8")
CONCEPT = (DOCS / "how_decoding_works.md").read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


@pytest.mark.real
def test_the_examples_in_python(smollm2: Model, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    first, *rest = blocks(GUIDE, "python")
    exec(first, names)
    text, satisfied = capsys.readouterr().out.strip().splitlines()
    assert satisfied == "True" and "frisbee" in text and "park" not in text
    for block in rest:
        exec(block, names)
        for line, said in re.findall(r"^(\S.*)  # (True|False)$", block, re.MULTILINE):
            assert eval(line, names) is ast.literal_eval(said), line
    assert all(each.satisfied for one in names["many"] for each in one)
    assert names["text"].satisfied
    written = names["tokenizer"].decode(names["ids"][0])
    assert written.startswith("On a sunny day") and "dog" in written


@pytest.mark.real
def test_the_command(smollm2: Model, tmp_path: Path) -> None:
    (shown,) = (one for one in blocks(GUIDE, "console") if "decode" in one)
    (name, rule), (command, _) = re.findall(r"^\$ (.*)\n((?:[^$].*\n)+)", shown, re.MULTILINE)
    (tmp_path / name.removeprefix("cat ")).write_text(rule)
    from_json(json.loads(rule))
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(command)], cwd=tmp_path, env=dict(os.environ),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    prompt, line = done.stdout.splitlines()
    assert prompt == "On a sunny day" and line.split()[0] == "met" and "frisbee" in line


@pytest.mark.unit
def test_every_option_is_told() -> None:
    told = {name for row in re.findall(r"^\| (`.*?) \|", GUIDE, re.MULTILINE)
            for name in re.findall(r"`(\w+)`", row)}  # fmt: skip
    options = {
        name: one.default
        for name, one in inspect.signature(constrained_generate).parameters.items()
        if one.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert set(options) <= told
    assert {one.name for one in fields(Lookahead)} <= told
    for name, default in options.items():
        shown = re.search(rf"^\| `{name}` \| (.*?) \|", GUIDE, re.MULTILINE)
        assert shown and ast.literal_eval(shown[1]) == default, name


@pytest.mark.unit
def test_json_forms_that_are_shown_are_read() -> None:
    for form in re.findall(r"`(\{\"(?:contains|excludes)\".*?\})`", GUIDE):
        from_json(json.loads(form))


@pytest.mark.unit
def test_the_worked_step_selects_what_the_page_says() -> None:
    table = re.findall(
        r"^\| `(.*?)` \| (-[\d.]+) \| \{(.*?)\} \| (\d?) ?\|$", CONCEPT, re.MULTILINE
    )
    assert len(table) >= 5
    sets = sorted({met for _, _, met, _ in table})
    group = np.array([sets.index(met) for _, _, met, _ in table])
    score = np.array([float(one) for _, one, _, _ in table])
    count = len(table)
    order, _ = select(np.zeros(count, dtype=np.int64), group, score, np.arange(count))
    chosen = sorted((int(place), text) for text, _, _, place in table if place)
    assert [table[i][0] for i in order[: len(chosen)]] == [text for _, text in chosen]


@pytest.mark.unit
@pytest.mark.parametrize("page", ["decoding.md", "how_decoding_works.md"])
def test_links_and_pictures_are_there(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", text):
        if not target.startswith("http"):
            assert (DOCS / target).is_file(), target
            if target.endswith(".svg"):
                ElementTree.parse(DOCS / target)
    titles = {re.sub(r"[^\w\- ]", "", one).lower().replace(" ", "-")
              for one in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}  # fmt: skip
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= titles
