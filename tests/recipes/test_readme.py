"""The commands, configurations and code of README.md and docs/teachers.md, run as they stand."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.servers import Running, running
from ruamel.yaml import YAML
from tests.recipes.command_line import Done, environment, failures, metrics
from tests.recipes.conftest import DrawnWorld
from tests.teachers.batch_house import BatchHouse, serving

from symdistill.config import load_config
from symdistill.models import Model
from symdistill.recipes import run_recipe
from symdistill.recipes.ask import AskConfig
from symdistill.records import Knowledge, View
from symdistill.tables import read_records

CHECKOUT = Path(__file__).parents[2]
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
TEACHERS = (CHECKOUT / "docs" / "teachers.md").read_text(encoding="utf-8")
MAKEFILE = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
KEY = "sk-of-the-documents-0001"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def commands(page: str) -> list[str]:
    lines = (line for block in blocks(page, "console") for line in block.splitlines())
    return [line[2:].split("#")[0].strip() for line in lines if line.startswith("$ ")]


def named(page: str) -> dict[str, str]:
    """The files that the page shows: blocks whose first line is `# NAME`."""
    shown = [block for language in ("yaml", "python") for block in blocks(page, language)]
    return {found[1]: block for block in shown if (found := re.match(r"# ([\w.]+\.\w+)\n", block))}


def try_out(command: str, place: Path, *more: str, **env: str) -> Done:
    words = shlex.split(command)
    assert words[0] == "symdistill"
    done = subprocess.run(
        [sys.executable, "-m", *words, *more],
        cwd=place,
        env=environment({"MY_API_KEY": KEY, **env}),
        capture_output=True,
        text=True,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def symdistill(command: str, place: Path, *more: str, **env: str) -> str:
    done = try_out(command, place, *more, **env)
    assert done.code == 0, done.said
    return done.out


def at(server: Running) -> list[str]:
    """A local server in place of the one that a page names."""
    return ["--set", f"teacher.base_url={server.url}", "--set", "teacher.model=openai:local"]


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running("fixed") as found:
        yield found


# -- README.md ------------------------------------------------------------------------------------


@pytest.mark.unit
def test_every_make_target_it_names_exists() -> None:
    targets = [line.split()[1] for line in commands(README) if line.startswith("make ")]
    assert {"demo", "test"} <= set(targets)
    for target in targets:
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
    for command in (one for one in commands(README) if one.startswith("symdistill ")):
        if "questions" in command or command.endswith(" ask"):
            continue  # the next test
        if "lines.csv" in command:
            continue  # test_newcomer.py
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
def test_its_commands_ask_a_teacher(smollm2: Model, tmp_path: Path, server: Running) -> None:
    """Beside the commands themselves: a local server, and fewer questions of the packaged ones."""
    (tmp_path / "questions.yaml").write_text(named(README)["questions.yaml"])
    (tmp_path / "questions.jsonl").write_text('{"text": "Why is the sky blue?"}\n')
    ran = []
    for command in (one for one in commands(README) if one.startswith("symdistill ")):
        if command.endswith(" ask"):
            pytest.importorskip("xllamacpp")
            small = ["questions.limit=1", "decoding.max_new_tokens=8", "teacher.llamacpp.threads=1"]
            sets = [word for one in small for word in ("--set", one)]
            assert "finished" in symdistill(command, tmp_path, *sets)
        elif "questions" in command:
            ran.append(command.split()[1])
            said = symdistill(command, tmp_path, *(at(server) if ran[-1] == "run" else ()))
            assert said
    assert ran == ["estimate", "run", "run", "fold"]
    assert metrics(tmp_path / "runs" / "questions")["answers"] == 1


@pytest.mark.real
def test_its_python_works(smollm2: Model) -> None:
    (code,) = blocks(README, "python")
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.unit
@pytest.mark.parametrize("page", ["README.md", "docs/teachers.md", "docs/results.md"])
def test_every_file_it_links_to_exists(page: str) -> None:
    text = (CHECKOUT / page).read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    for target, part in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", text):
        if "://" not in target:
            assert (CHECKOUT / page).parent.joinpath(target).exists(), target
            assert target or part in headings, part


# -- docs/teachers.md -----------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with every file that the page shows."""
    for name, text in named(TEACHERS).items():
        (tmp_path / name).write_text(text)
    questions, corpus = blocks(TEACHERS, "jsonl")
    (tmp_path / "questions.jsonl").write_text(questions)
    (tmp_path / "corpus.jsonl").write_text(corpus)
    return tmp_path


@pytest.mark.world
def test_the_commands_of_its_first_run(place: Path, server: Running) -> None:
    """Beside the commands themselves: a local server, and an id for ID."""
    run, here = place / "runs" / "questions", at(server)
    ran = []
    for command in commands(TEACHERS):
        verb = command.split()[1]
        if "corpus" in command or "loud" in command:
            continue  # the next two tests
        ran.append(verb)
        if verb == "run" and "samples" in command:
            refused = try_out(command.replace("--continue", ""), place, *here)
            assert refused.code == 2 and "--continue" in refused.err
        if verb == "estimate":
            (estimated,) = blocks(TEACHERS, "text")
            assert symdistill(command, place) == estimated
        elif verb == "run":
            if "--retry-failed" in command:
                here += ["--set", "samples=3"]
            symdistill(command, place, *here)
        elif verb == "show":
            id_ = metrics(run)["examples"]["kept"][0]["id"]
            assert "openai:local" in symdistill(command.replace("ID", id_), place)
        else:
            symdistill(command, place)
    assert ran == ["estimate", "run", "show", "report", "run", "run", "fold"]
    assert metrics(run)["answers"] == 9 and not failures(run)
    (again,) = re.findall(r"`(symdistill run PLACE/questions/config.yaml)`", TEACHERS)
    before = server.stats()["requests"]
    (place / "moved").mkdir()
    run = run.rename(place / "moved" / "questions")
    symdistill(again.replace("PLACE", "moved"), place)
    assert server.stats()["requests"] == before
    kept = (path for path in run.rglob("*") if path.is_file())
    assert not any(KEY.encode() in path.read_bytes() for path in kept)


@pytest.mark.world
def test_its_recorded_table(place: Path) -> None:
    (command,) = (one for one in commands(TEACHERS) if "corpus" in one)
    symdistill(command, place)
    assert "Honey, and wax." in str(answers_of(place / "runs" / "corpus"))


@pytest.mark.world
def test_a_kind_of_your_own(place: Path) -> None:
    """Its package is installed as pip would do it: by a folder with its entry points."""
    (toml,) = blocks(TEACHERS, "toml")
    ((group, points),) = tomllib.loads(toml)["project"]["entry-points"].items()
    about = place / "shout-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: shout\nVersion: 1.0\n")
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (about / "entry_points.txt").write_text("\n".join(lines))
    (command,) = (one for one in commands(TEACHERS) if "loud" in one)
    paths = [str(place), *sys.path]
    symdistill(command, place, PYTHONPATH=":".join(one for one in paths if one))
    assert "WHAT DO BEES MAKE?" in answers_of(place / "runs" / "loud")


def answers_of(run: Path) -> list[str]:
    return [line.text for line in read_records(run / "tables" / "knowledge.parquet", Knowledge)]


def parts(page: str) -> list[dict[str, Any]]:
    """The configurations of which the page shows a part."""
    found = [YAML(typ="safe").load(block) for block in blocks(page, "yaml")]
    return [one for one in found if "recipe" not in one]


def run_part(part: dict[str, Any], place: Path, **teacher: Any) -> list[str]:
    """Run a part of a configuration on one question; gives the answers."""
    whole = {"recipe": "ask", "questions": {"source": str(place / "questions.jsonl"), "limit": 1}}
    text = io.StringIO()
    YAML().dump(whole | part | {"teacher": part["teacher"] | teacher}, text)
    (place / "part.yaml").write_text(text.getvalue())
    done = run_recipe(load_config(place / "part.yaml", AskConfig), place / "run")
    assert done["answers"] == 1, done["failures"]
    return answers_of(place / "run")


@pytest.mark.world
@pytest.mark.parametrize(
    "part", [one for one in parts(TEACHERS) if one["teacher"]["model"].startswith("openai:")]
)
def test_its_settings_for_servers(part: dict[str, Any], place: Path, server: Running) -> None:
    if "batch" not in part["teacher"]:
        run_part(part, place, model="openai:local", base_url=server.url)
        return
    with serving(BatchHouse()) as url:
        soon = part["teacher"]["batch"] | {"poll": 0.05}
        run_part(part, place, model="openai:m", base_url=url, batch=soon)


@pytest.mark.real
@pytest.mark.parametrize(
    "part", [one for one in parts(TEACHERS) if not one["teacher"]["model"].startswith("openai:")]
)
def test_its_settings_for_this_machine(part: dict[str, Any], place: Path, smollm2: Model) -> None:
    more: dict[str, Any] = {}
    if part["teacher"]["model"].startswith("llamacpp:"):
        pytest.importorskip("xllamacpp")
        # Two threads that wait for each other take several times as long on busy cores.
        more = {"llamacpp": part["teacher"].get("llamacpp", {}) | {"threads": 1}}
    (answer,) = run_part(part, place, **more)
    output = part.get("decoding", {}).get("output", {})
    assert answer in output.get("choices", [answer])
    if "json_schema" in output:
        assert set(json.loads(answer)) == {"word"}


@pytest.mark.unit
def test_its_python_works_without_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = (one for one in blocks(TEACHERS, "python") if "ScriptedBackend" in one)
    exec(compile(code, "teachers.md", "exec"), {})
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 21 and said[0] == "planet 0 0 planet 0 is far 4"
    assert said[-1] == "the moon failed: refused no word about the moon"


@pytest.mark.real
def test_its_python_works_with_a_model(
    smollm2: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = (one for one in blocks(TEACHERS, "python") if "TeacherSettings" in one)
    exec(compile(code, "teachers.md", "exec"), {})
    assert "'logprob'" in capsys.readouterr().out


@pytest.mark.unit
def test_every_python_of_the_page_is_run() -> None:
    assert len(blocks(TEACHERS, "python")) == 3 and "shout.py" in named(TEACHERS)
