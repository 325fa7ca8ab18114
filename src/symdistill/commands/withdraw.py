"""`symdistill withdraw`: take a line back after it was kept, certified or trained on.

The line stays in the tables, marked in HOME/withdrawn.jsonl, so that what happened can be told. No
later command counts it among the lines of its run or file; certificates that hold it are voided,
and that first: whatever stops this on the way, no certificate of a withdrawn line stands.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from symdistill.commands._certificate_labels import plan_command, report
from symdistill.errors import InputError, RunError

out = Console(markup=False, highlight=False, emoji=False)


def withdraw(
    id_: Annotated[
        str | None,
        typer.Argument(
            metavar="ID", help="A line's id, or its first digits; of a table also its whole text."
        ),
    ] = None,
    why: Annotated[str, typer.Option("--why", help="Why it is withdrawn, for the record.")] = "",
    run: Annotated[
        Path | None, typer.Option("--run", help="The run folder. Default: the newest run.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="The table that holds the line, not a run.")
    ] = None,
    row: Annotated[
        int | None,
        typer.Option(min=1, help="With --file: the line's row, from 1, a header not counted."),
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
    from symdistill.critic.kept_certificates import void_outdated
    from symdistill.history import newest_run, the_one
    from symdistill.pool import home_of, withdrawn_ids

    if run is not None and file is not None:
        raise InputError("expected --run or --file; got both; name the one that holds the line")
    if (id_ is None) == (row is None) or (row is not None and file is None):
        raise InputError("expected the id of a line, or --row N with --file; got "
                         f"{'both' if id_ and row else 'neither'}; give one")  # fmt: skip
    source = file or run or newest_run()
    home = home_of(source)
    known = withdrawn_ids(home)
    begins = id_ or ""
    if undo:
        if file and (row or not any(id.startswith(begins) for id in known)):
            begins, _ = _line_of_file(file, begins, row, text=text, question=question,
                                      id_column=id_column)  # fmt: skip
        id = the_one(begins, list(known), f"a withdrawn line of {source}")
        _record(home, id, known[id], undone=True)
        out.print(f"{id} is no longer withdrawn.", soft_wrap=True)
        out.print(
            "A certificate that was voided stays void; `symdistill certify` makes another. A "
            "student that was trained without the line stays as it is until the run is run again.",
            soft_wrap=True,
        )
        return
    why = " ".join(why.split())
    if not why:
        raise InputError("expected why the line is withdrawn; got nothing; give --why TEXT")
    if file is None:
        from symdistill.history import find_line

        id, said = find_line(source, begins)
    else:
        id, said = _line_of_file(file, begins, row, text=text, question=question,
                                 id_column=id_column)  # fmt: skip
    voided, unreadable = void_outdated(source, {id: why})
    if known.get(id) != why:
        _record(home, id, why, undone=False)
    _tell(source, id, said, why, voided)
    if unreadable:
        raise RunError(
            "expected to void every certificate that holds the line; could not read "
            f"{', '.join(map(str, unreadable))}; trust none of these, or restore them and run the "
            "same command again"
        )
    if voided:
        report(home)


def _tell(source: Path, id: str, said: str, why: str, voided: Sequence[Path]) -> None:
    """What the withdrawal came to, and what to do next."""
    from symdistill.history import students_trained_on
    from symdistill.pool import home_of
    from symdistill.visible import visible

    out.print(f"Withdrew {id}: {visible(said)}", soft_wrap=True)
    out.print(f"  why         {visible(why)}", soft_wrap=True)
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
        out.print("A certificate of the lines that are left takes labels of lines drawn anew; "
                  "those there are do not count for it. What that takes:",
                  soft_wrap=True)  # fmt: skip
        out.print(f"  {_plan_again(source, voided[-1])}", soft_wrap=True)
    elif open_labels := _open_labels(home_of(source)):
        out.print("The frozen plan is of other lines now, so its labels no longer count "
                  f"({open_labels:,}): freeze a new one, with --abandon WHY.",
                  soft_wrap=True)  # fmt: skip


def _open_labels(home: Path) -> int:
    """Labels for a certificate that are not tested yet."""
    from symdistill.critic.kept_certificates import tested_of
    from symdistill.labelling.store import LabelStore

    with LabelStore(home, read_only=True) as store:
        draws = store.draws("certificate")
        if not draws or tested_of(home, draws[-1].id) is not None:
            return 0
        return len(store.verdicts(draws[-1].id))


def _plan_again(source: Path, path: Path) -> str:
    """The command that plans what a certificate had promised."""
    row = json.loads(path.read_text(encoding="utf-8"))
    return plan_command(source, row["columns"], row["precisions"], max_share=row["max_share"],
                        delta=row["delta"], looks=len(row["looks"]))  # fmt: skip


def _line_of_file(
    file: Path, named: str, row: int | None, *, text: str, question: str | None,
    id_column: str | None,
) -> tuple[str, str]:  # fmt: skip
    """The id and the text of a table's line, named by its row, its id or its whole text."""
    from symdistill.history import the_one
    from symdistill.pool import read_pool

    pool = read_pool(file, text=text, question=question, id=id_column, withdrawn=True)
    texts = {line.id: line.text for line in pool.lines}
    same = [line for line in pool.lines if line.number == row or (not row and line.text == named)]
    if row and not same:
        raise InputError(f"expected a row of {file} that holds a line; row {row} holds none; rows "
                         "are counted from 1, a header not")  # fmt: skip
    if len(same) > 1 and named not in texts:
        raise InputError(f"expected one line; rows {same[0].number} and {same[1].number} of {file} "
                         "hold this text; give --row N")  # fmt: skip
    id = same[0].id if same and named not in texts else (
        the_one(named, list(texts), f"a line of {file}")
    )  # fmt: skip
    return id, texts[id]


def _record(home: Path, id: str, why: str, *, undone: bool) -> None:
    """Append to HOME/withdrawn.jsonl; it is on disk when this returns."""
    from symdistill.critic.kept_certificates import append_row

    entry: dict[str, Any] = {
        "id": id,
        "why": why,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "undone": undone,
    }
    append_row(home / "withdrawn.jsonl", entry)
