"""`symdistill withdraw`: take a line back after it was kept, certified or trained on.

The line stays in the tables, marked in HOME/withdrawn.jsonl, so that what happened can be told. No
later command counts it among the lines of its run or file; certificates that hold it are voided.
"""

from __future__ import annotations

import json
import os
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from symdistill.errors import InputError, RunError

out = Console(markup=False, highlight=False, emoji=False)


def withdraw(
    id_: Annotated[str, typer.Argument(metavar="ID", help="A line's id, or its first digits.")],
    why: Annotated[str, typer.Option("--why", help="Why it is withdrawn, for the record.")] = "",
    run: Annotated[
        Path | None, typer.Option("--run", help="The run folder. Default: the newest run.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="The table that holds the line, not a run.")
    ] = None,
    text: Annotated[str, typer.Option(help="With --file: the column of the text.")] = "text",
    question: Annotated[
        str | None, typer.Option(help="With --file: the column of what the text answers.")
    ] = None,
    id_column: Annotated[
        str | None, typer.Option("--id", help="With --file: the column of ids, if it has one.")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take the withdrawal back.")] = False,
) -> None:
    """Withdraw a line: void its certificates and name the students that were trained on it."""
    from symdistill.history import newest_run
    from symdistill.pool import home_of, withdrawn_ids

    if run is not None and file is not None:
        raise InputError("expected --run or --file; got both; name the one that holds the line")
    source = file or run or newest_run()
    home = home_of(source)
    known = withdrawn_ids(home)
    if undo:
        id = _one(id_, list(known), f"a withdrawn line of {source}")
        _record(home, id, known[id], undone=True)
        out.print(f"{id} is no longer withdrawn.", soft_wrap=True)
        out.print(
            "A certificate that was voided stays void: certify again. A student that was trained "
            "without the line stays as it is until the run is run again.",
            soft_wrap=True,
        )
        return
    why = " ".join(why.split())
    if not why:
        raise InputError("expected why the line is withdrawn; got nothing; give --why TEXT")
    if file is None:
        from symdistill.history import find_line

        id, said = find_line(source, id_)
    else:
        id, said = _line_of_file(file, id_, text=text, question=question, id_column=id_column)
    if known.get(id) != why:
        _record(home, id, why, undone=False)
    _tell(source, home, id, said, why)


def _tell(source: Path, home: Path, id: str, said: str, why: str) -> None:
    """What the withdrawal came to, and what to do next."""
    from symdistill.history import students_trained_on
    from symdistill.visible import visible

    out.print(f"Withdrew {id}: {visible(said)}", soft_wrap=True)
    out.print(f"  why         {visible(why)}", soft_wrap=True)
    voided = _void_certificates(home, id, why)
    if voided and (home / "metrics.json").is_file():
        from symdistill.recipes import write_report

        write_report(home)  # it says what is certified
    for path in voided:
        out.print(f"  voided      {path}", soft_wrap=True)
    if not voided:
        out.print("  voided      no certificate: none that is valid holds the line", soft_wrap=True)
    place = shlex.quote(str(source))
    if not source.is_dir():
        out.print(f"From now on every command on {place} leaves the line out.", soft_wrap=True)
    else:
        students = students_trained_on(source, id)
        for folder in students:
            out.print(f"  trained on  {folder}", soft_wrap=True)
        out.print(f"From now on every command on {place} leaves the line out.", soft_wrap=True)
        if students:
            out.print(
                "A student cannot unlearn one line: do not pass these on. To select and train "
                "again without it (model calls that were made are not made again):",
                soft_wrap=True,
            )
            out.print(f"  symdistill run {place}/config.yaml", soft_wrap=True)
    if voided:
        out.print(
            f"For a new certificate: symdistill certify {place}; its labels must be drawn anew.",
            soft_wrap=True,
        )


def _line_of_file(
    file: Path, id_: str, *, text: str, question: str | None, id_column: str | None
) -> tuple[str, str]:
    """The id and the text of a table's line."""
    from symdistill.pool import read_pool

    pool = read_pool(file, text=text, question=question, id=id_column, withdrawn=True)
    texts = {line.id: line.text for line in pool.lines}
    id = _one(id_, list(texts), f"a line of {file}")
    return id, texts[id]


def _one(begins: str, ids: list[str], what: str) -> str:
    """The one id that is, or begins, as given."""
    found = [begins] if begins in ids else [id for id in ids if begins and id.startswith(begins)]
    if not found:
        raise InputError(
            f"expected the id of {what}; found none that begins with {begins!r}; check the id and "
            "where it comes from"
        )
    if len(found) > 1:
        raise InputError(
            f"expected one line; several ids begin with {begins!r} (such as {found[0]} and "
            f"{found[1]}); give more digits"
        )
    return found[0]


def _void_certificates(home: Path, id: str, why: str) -> list[Path]:
    """Void every certificate that holds the line; gives those that were valid until now."""
    from symdistill.critic.certificate import read_certificates, void

    holding = [
        path
        for path, certificate in read_certificates(home)
        if certificate.voided is None and certificate.holds(id)
    ]
    for path in holding:
        void(path, f"line {id} was withdrawn: {why}")
    return holding


def _record(home: Path, id: str, why: str, *, undone: bool) -> None:
    """Append to HOME/withdrawn.jsonl; it is on disk when this returns."""
    entry: dict[str, Any] = {
        "id": id,
        "why": why,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "undone": undone,
    }
    path = home / "withdrawn.jsonl"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as stream:  # one write, at the end, whoever else writes
            stream.write((json.dumps(entry, ensure_ascii=False) + "\n").encode("utf-8"))
            os.fsync(stream.fileno())
    except OSError as error:
        raise RunError(
            f"expected to write {path}; got: {error.strerror}; make room or check the folder's "
            "permissions"
        ) from error
