"""What docs/scotd.md and README.md show of reasoning: settings, commands, an example, links."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import get_args

import pytest
import typer

from symdistill.cli import app
from symdistill.config import load_config
from symdistill.recipes import run_recipe
from symdistill.recipes._scotd_settings import Keep, ScotdConfig
from symdistill.selection.rationales import Strategy

pytestmark = pytest.mark.unit

CHECKOUT = Path(__file__).parents[1]
GUIDE = (CHECKOUT / "docs" / "scotd.md").read_text(encoding="utf-8")
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
PACKAGED = CHECKOUT / "src" / "symdistill" / "data" / "configs" / "scotd.yaml"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def commands(page: str) -> list[str]:
    """The commands that a page shows, in blocks and, where it names an argument, in sentences."""
    shown = [line.removeprefix("$ ") for language in ("console", "bash")
             for block in blocks(page, language) for line in block.splitlines()]  # fmt: skip
    prose = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    said = re.findall(r"`(symdistill (?:run|copy|estimate|answer) [^`]+)`", prose)
    return [one for one in [*shown, *said] if one.startswith("symdistill ")]


def about_reasoning(page: str) -> str:
    (part,) = re.findall(
        r"^## A small model that reasons\n(.*?)^## ", page, re.DOTALL | re.MULTILINE
    )
    return str(part)


@pytest.mark.parametrize("text", blocks(GUIDE, "yaml"))
def test_settings_are_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    load_config(tmp_path / "mine.yaml", ScotdConfig)


@pytest.mark.parametrize("command", [*commands(GUIDE), *commands(about_reasoning(README))])
def test_commands_and_their_options_exist(command: str) -> None:
    _, verb, *words = shlex.split(command, comments=True)
    found = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    given = found.make_context(verb, list(words)).params  # an unknown option ends here
    load_config(PACKAGED, ScotdConfig, given.get("set_") or ())


def test_the_recorded_example_keeps_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    questions, said = blocks(GUIDE, "jsonl")
    (config,) = (one for one in blocks(GUIDE, "yaml") if one.startswith("# recorded.yaml"))
    for name, text in (("questions.jsonl", questions), ("said.jsonl", said), ("c.yaml", config)):
        Path(name).write_text(text)
    metrics = run_recipe(load_config(Path("c.yaml"), ScotdConfig), Path("run"))
    assert metrics["questions"]["splits"] == {"train": 2, "test": 1}
    rows = [json.loads(line) for line in Path("run/chains.jsonl").read_text().splitlines()]
    assert len(rows) == 4 and sum(row["kept"] for row in rows) == 2
    for row in rows:
        assert row["kept"] or f"`{row['why_not']}`" in GUIDE, row["why_not"]


@pytest.mark.parametrize(("setting", "kind"), [("keep", Keep), ("strategy", Strategy)])
def test_every_filter_is_told(setting: str, kind: object) -> None:
    table = GUIDE.split(f"| `filter.{setting}` |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(get_args(kind))


def test_files_and_headings_that_it_links_to_exist() -> None:
    for target, part in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", GUIDE):
        if "://" in target:
            continue
        path = (CHECKOUT / "docs" / target).resolve() if target else CHECKOUT / "docs" / "scotd.md"
        assert path.exists(), target
        titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        names = {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in titles}
        assert not part or part in names, f"{target}#{part}"
