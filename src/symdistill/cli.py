"""The command line: `symdistill COMMAND`. Every error a user can meet is one sentence.

Commands on runs and recipes are here; those on lines from anywhere are in `commands/`.

Exit codes: 0 done, 1 failed, 2 usage or bad input, 3 budget reached, 4 nothing could be certified,
130 stopped by Ctrl-C.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from symdistill import __version__
from symdistill.commands.answer import answer
from symdistill.commands.audit import audit
from symdistill.commands.certify import certify
from symdistill.commands.critic import app as critic
from symdistill.commands.decode import decode
from symdistill.commands.export import export
from symdistill.commands.label import label
from symdistill.commands.plan import plan
from symdistill.commands.withdraw import withdraw
from symdistill.errors import InputError, SymdistillError

if TYPE_CHECKING:
    from symdistill.config import Config

app = typer.Typer(
    help="Symbolic knowledge distillation: turn what a language model knows into text that you "
    "can read, check and keep, and into a small model that knows it.",
    epilog="Exit codes: 0 done, 1 failed, 2 usage or bad input, 3 budget reached (all that was "
    "paid for is kept), 4 nothing could be certified, 130 stopped by Ctrl-C.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
out = Console(markup=False, highlight=False, emoji=False)
RunFolder = Annotated[Path, typer.Argument(help="The run folder, e.g. runs/demo.")]
ConfigFile = Annotated[
    str, typer.Argument(help="A YAML file, a run's config.yaml, or a packaged name (demo, ask).")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a field, e.g. --set rounds=1."),
]
OutFolder = Annotated[
    Path | None, typer.Option("--out", help="The run folder. Default: runs/NAME.")
]
RunName = Annotated[
    str | None, typer.Option("--name", help="The run's name. Default: the file's name.")
]


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Options of the program itself."""
    if show:
        out.print(f"symdistill {__version__}")
        raise typer.Exit()


@app.command()
def recipes() -> None:
    """List the recipes and the packaged configurations."""
    from symdistill.recipes import SUMMARIES

    for name, summary in SUMMARIES.items():
        out.print(f"{name:<8} {summary}")
    for name in _packaged():
        out.print(f"{name:<8} packaged configuration: symdistill run {name}")


@app.command()
def copy(
    recipe: Annotated[str, typer.Argument(help="A recipe; `symdistill recipes` lists them.")],
    target: Annotated[Path, typer.Argument(help="The file to write; it must not exist.")],
    code: Annotated[bool, typer.Option("--code", help="Copy the recipe's Python file.")] = False,
) -> None:
    """Write an annotated configuration of a recipe, with every field and what it means."""
    from symdistill.config import annotated_yaml
    from symdistill.recipes import recipe as find

    kind, function = find(recipe)
    if code:
        text = (files("symdistill") / "recipes" / f"{recipe}.py").read_text(encoding="utf-8")
    else:
        text = annotated_yaml(kind, recipe)
    try:
        with target.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise InputError(f"{target} exists already; choose another file or remove it") from error
    except OSError as error:
        raise InputError(
            f"expected a file that can be written at {target}; got: {error.strerror}; "
            "choose another place"
        ) from error
    if code:
        out.print(f"Wrote {target}: `{function.__name__}` is the recipe.", soft_wrap=True)
    else:
        out.print(f"Wrote {target}. Change it, then: symdistill run {target}", soft_wrap=True)


@app.command()
def run(
    config: ConfigFile,
    set_: Overrides = None,
    folder: OutFolder = None,
    name: RunName = None,
    accept_changes: Annotated[
        bool, typer.Option("--continue", help="Go on in a folder made by other settings.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Make calls again that failed before.")
    ] = False,
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads; 0: one per core. Part of what bytes depend on.")
    ] = 0,
) -> None:
    """Run a recipe. Killed or stopped, the same command goes on where it was."""
    from symdistill.progress import ConsoleProgress
    from symdistill.recipes import needs_torch, run_recipe, summary
    from symdistill.reporting.report import certificates_of

    settings, target = _settings(config, set_, folder, name)
    try:
        _prepare(threads, torch=needs_torch(settings))
        metrics = run_recipe(
            settings,
            target,
            progress=ConsoleProgress(out),
            accept_changes=accept_changes,
            retry_failed=retry_failed,
        )
    except KeyboardInterrupt:
        _fail("stopped; what is done is kept: the same command goes on from here", 130)
    commands = _next_commands(settings, metrics, target)
    told = summary(
        {**metrics, "certificates": certificates_of(target)},
        report=target / "report.html",
        next_commands=commands,
    )
    out.print(told, crop=False)  # long commands stay whole
    if metrics.get("failed") and not metrics.get("answers"):
        kind, why = next(iter(metrics["failures"])), metrics["examples"]["failed"][0]["reason"]
        _fail(f"every sample failed ({kind}: {why}); mend that and add --retry-failed", 1)


@app.command()
def estimate(
    config: ConfigFile,
    set_: Overrides = None,
    folder: OutFolder = None,
    name: RunName = None,
) -> None:
    """Say what a run would ask of its teachers and what that would cost. Nothing is sent."""
    from symdistill.estimate import budget_lines
    from symdistill.estimate import estimate as estimate_role
    from symdistill.ledger import Ledger
    from symdistill.recipes import calls

    settings, target = _settings(config, set_, folder, name)
    asked = calls(settings)
    if isinstance(asked, str):
        out.print(asked, soft_wrap=True)
        return
    path = target / "ledger.sqlite"
    ledger = Ledger(path, read_only=True) if path.is_file() else None
    try:
        found = [estimate_role(one, ledger) for one in asked]
        groups = [(f"{one.role}: {one.model}", list(one.lines())) for one in found]
        groups.append(("budget", list(budget_lines(settings.budget, found, ledger))))
    finally:
        if ledger is not None:
            ledger.close()
    out.print(f"What {target} would still ask for; nothing is sent.", soft_wrap=True)
    for title, lines in groups:
        out.print(title, soft_wrap=True)
        for what, how_much in lines or [("none", "no limit is set")]:
            out.print(f"  {what:<12} {how_much}", soft_wrap=True)


@app.command()
def show(
    id_: Annotated[str, typer.Argument(metavar="ID", help="A line's id, or its first digits.")],
    run: Annotated[
        Path | None, typer.Option("--run", help="The run folder. Default: the newest run.")
    ] = None,
) -> None:
    """One line's whole history: verdicts, selection, and every call that wrote it."""
    from symdistill.history import history, newest_run

    out.print(history(run or newest_run(), id_))


@app.command()
def report(run: RunFolder) -> None:
    """Write the report of a run again, from its metrics.json."""
    from symdistill.recipes import write_report

    out.print(f"Wrote {write_report(run)}", soft_wrap=True)


@app.command()
def fold(run: RunFolder) -> None:
    """Fold the write-ahead log into ledger.sqlite, so that the folder can be moved or copied."""
    from symdistill.ledger import Ledger
    from symdistill.run import locked

    path = run / "ledger.sqlite"
    if not path.is_file():
        raise InputError(f"expected a run with a ledger at {run}; there is none; check the path")
    with locked(run):
        ledger = Ledger(path)
        try:
            ledger.fold()
        finally:
            ledger.close()
    out.print(f"Folded: {path} holds every call, and {run} can be moved.", soft_wrap=True)


LINES = "Lines from anywhere: a run, or any table"
app.command(rich_help_panel=LINES)(plan)
app.command(rich_help_panel=LINES)(label)
app.command(rich_help_panel=LINES)(certify)
app.command(rich_help_panel=LINES)(audit)
app.command(rich_help_panel=LINES)(withdraw)
app.add_typer(critic, name="critic", rich_help_panel=LINES)
app.command()(decode)
app.command()(answer)
app.command()(export)


@app.command()
def doctor() -> None:
    """Say what is here, what is missing, and how to get it."""
    from symdistill.doctor import examine

    found = examine()
    for check in found:
        mark = "ok     " if check.ok else "missing"
        advice = f"  -> {check.advice}" if not check.ok else ""
        out.print(f"{mark} {check.what}: {check.found}{advice}", soft_wrap=True)
    if not all(check.ok for check in found):
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; errors a user can meet end in one sentence and an exit code."""
    try:
        app(standalone_mode=True)
    except SymdistillError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _fail(
            f"the disk is full ({error.filename or 'while writing'}); free some space and run the "
            "same command again: nothing that was finished is lost",
            1,
        )


def _fail(message: str, code: int) -> NoReturn:
    print(f"symdistill: {message}", file=sys.stderr)
    sys.exit(code)


def _packaged() -> list[str]:
    place = files("symdistill") / "data" / "configs"
    return sorted(one.name.removesuffix(".yaml") for one in place.iterdir())


def _config_path(given: str) -> Path:
    """The configuration file behind an argument: a file, or a packaged name."""
    if given in _packaged() and not Path(given).is_file():
        return Path(str(files("symdistill") / "data" / "configs" / f"{given}.yaml"))
    return Path(given)


def _settings(
    config: str, overrides: list[str] | None, folder: Path | None, name: str | None
) -> tuple[Config, Path]:
    """The configuration that a command names, and the run folder that it is for."""
    from symdistill.config import load_config
    from symdistill.recipes import recipe, recipe_of

    path = _config_path(config)
    kind, _ = recipe(recipe_of(path))
    named = [f"name={json.dumps(name)}"] if name else []
    settings = load_config(path, kind, [*(overrides or []), *named])
    if folder is None and name is None and _is_of_a_run(path):
        return settings, path.parent  # wherever it lies now, and whatever it is called
    return settings, folder or Path("runs") / settings.name


def _is_of_a_run(path: Path) -> bool:
    return path.name == "config.yaml" and (path.parent / "ledger.sqlite").is_file()


def _next_commands(settings: Config, metrics: dict[str, Any], folder: Path) -> list[str]:
    """What to try after a run, as it would be typed."""
    me, place = _myself(), shlex.quote(str(folder))
    examples = metrics["examples"]
    shown = [*examples["kept"], *examples.get("failed", [])]
    commands = [f"{me} show {shown[0]['id'] if shown else 'ID'} --run {place}"]
    if settings.recipe == "ask":
        again = f"{me} run {place}/config.yaml"
        if folder != Path("runs") / settings.name:
            again += f" --out {place}"
        if metrics["failed"]:
            commands.append(f"{again} --retry-failed")
        commands.append(f"{again} --continue --set samples={metrics['samples'] + 1}")
    elif settings.recipe == "scotd":
        more = metrics["config"]["rationales"]["samples"] + 2
        commands.append(f"{me} run {place}/config.yaml --continue --set rationales.samples={more}")
        if examples["students"] and not metrics["seen"]["chance"]:  # a question without options
            question = shlex.quote(examples["students"][0]["question"])
            commands.append(f"{me} answer {place} {question}")
    else:
        more = (
            "heads.limit=100 --set heads.samples=200"
            if settings.recipe == "skd"
            else "concepts.limit=200"
        )
        commands.append(f"{me} run {place}/config.yaml --name more --set {more}")
    return [*commands, f"{me} copy {settings.recipe} mine.yaml && {me} run mine.yaml"]


def _myself() -> str:
    """How to call this program: by its name where the shell finds it, else as it was called."""
    if shutil.which("symdistill"):
        return "symdistill"
    if Path(sys.argv[0]).name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m symdistill"
    return shlex.quote(sys.argv[0])


def _prepare(threads: int, *, torch: bool = True) -> None:
    """Set what the libraries read before they are loaded; `torch`: the run needs it."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if torch:
        _prepare_torch(threads)


def _prepare_torch(threads: int) -> None:
    from symdistill.machine import prepare_torch

    prepare_torch("a run on this machine", threads)
