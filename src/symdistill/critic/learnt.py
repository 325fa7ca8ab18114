"""Which lines a critic learnt from, kept with it and told of every table that it scores.

A critic is not to be certified on the lines that taught it, or that it was chosen on: they look
better to it than lines it has never seen. So `critic fit` keeps a hash of every labelled text (to
train, to calibrate or to test on, unsure ones too), and `critic score` writes the ids of these
lines beside the table with the scores, for whoever certifies that.

Takes rows of a table and what is judged of them; gives texts as hashes, and ids as `read_pool`
gives them. An id depends on which columns are read, so a line has several.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from symdistill.critic.fitted import expect_version, read_about, write_about
from symdistill.critic.forms import Form
from symdistill.critic.reading import Text
from symdistill.datafiles import Row, is_missing, write_aside, write_rows
from symdistill.errors import RunError
from symdistill.pool import home_of, read_pool, withdrawn_ids
from symdistill.records import content_hash, normalise

NAME = "learnt.json"


def text_hash(text: Text) -> str:
    """Of what is judged of a line, whatever columns it lies in."""
    return content_hash(
        ["learnt", *(normalise(one) for one in ([text] if isinstance(text, str) else text))]
    )


def save_learnt(folder: Path, version: str, texts: Iterable[Text], ids: Iterable[str]) -> None:
    """Write learnt.json into the folder of the critic of this version."""
    hashes = sorted(set(map(text_hash, texts)))
    write_about(folder / NAME, {"critic": version, "ids": sorted(set(ids)), "texts": hashes})


class Learnt:
    """The lines that a critic learnt from."""

    def __init__(self, hashes: Iterable[str]) -> None:
        self._texts = frozenset(hashes)  # as `text_hash` gives them

    @classmethod
    def load(cls, folder: Path, version: str) -> Learnt:
        """Of the critic that was saved in a folder.

        Raises:
            InputError: there is no learnt.json, or it is another critic's.
        """
        said = read_about(folder / NAME, "critic")
        expect_version(folder, "critic", said.get("critic"), version)
        return cls(said.get("texts", ()))

    def __contains__(self, text: Text) -> bool:
        return text_hash(text) in self._texts


def row_ids(
    source: Path, rows: Iterable[tuple[int, Row]], form: Form, *, id: str | None = None,
    score: str | None = None,
) -> dict[int, set[str]]:  # fmt: skip
    """Every id that a row may have: by its text, by text and question, and in a column of ids.

    Args:
        source: the table, or the run folder, whose lines have their ids in the column `id`.
        rows: its numbered rows.
        form: what is judged; of a pair the other text may be the question, of a triple the head.
        id: the column of ids; None: "id", where there is one.
        score: the column of scores, by which lines of one text are numbered.
    """
    found: dict[int, set[str]] = {}
    columns: set[str] = set()
    for number, row in rows:
        if not isinstance(row, str):
            columns |= {name for name, cell in row.items() if str(cell or "").strip()}
            named = row.get(id or "id")
            found[number] = set() if is_missing(named) else {str(named)}
    if source.is_dir():
        return found
    judged = form.columns
    asked = judged.get("question") or judged.get("other") or judged.get("head")
    texts = dict.fromkeys((judged.get("text") or judged["tail"], "text"))
    for text in (one for one in texts if one in columns):
        for question in (None, asked) if asked and asked != text else (None,):
            pool = read_pool(source, text=text, question=question, score=score, withdrawn=True)
            for line in pool.lines:
                found[line.number].add(line.id)
    return found


def withdrawn_rows(
    source: Path, rows: Iterable[tuple[int, Row]], form: Form, *, id: str | None = None
) -> set[int]:
    """The numbers of the rows of a table that were withdrawn; of a run they are not read at all."""
    gone = withdrawn_ids(home_of(source)).keys()
    if not gone or source.is_dir():
        return set()
    return {
        number for number, ids in row_ids(source, rows, form, id=id).items() if ids & gone
    }  # fmt: skip


def write_scored(
    source: Path, target: Path, rows: Sequence[Mapping[str, Any]], form: Form, *, id: str | None,
    column: str, critic: str, taught: Set[int],
) -> None:  # fmt: skip
    """Write a table with scores, and beside it what `carry_over` says; the table comes last.

    Args:
        source, target: what was scored, and the table to write.
        rows: of the table.
        form, id: as in `row_ids`.
        column: of the scores.
        critic: its version.
        taught: numbers of the rows, from 1, that the critic learnt from.

    Raises:
        RunError: it cannot be written.
    """
    aside = home_of(target) / target.name
    write_rows(aside, rows)
    ids = row_ids(aside, enumerate(rows, start=1), form, id=id, score=column)
    learnt = {one for number in taught for one in ids[number]}
    carry_over(source, target, column=column, critic=critic, learnt=learnt)
    try:
        os.replace(aside, target)
    except OSError as error:
        raise RunError(
            f"expected to write {target}; got: {error.strerror}; name another place with --out"
        ) from error


def carry_over(source: Path, scored: Path, *, column: str, critic: str, learnt: Set[str]) -> None:
    """Write what is known of a table's lines beside the same table with scores.

    learnt.json names the lines that the critic, or an earlier one whose scores are in the table,
    learnt from; lines withdrawn from a table are withdrawn from the scored one, too.
    """
    home, before = home_of(scored), home_of(source)
    ids = set(learnt)
    if not source.is_dir() and (before / NAME).is_file():
        ids |= set(read_about(before / NAME, "list of lines learnt from").get("ids", ()))
    said = {"column": column, "critic": critic, "ids": sorted(ids)}
    write_aside(home / NAME, json.dumps(said, indent=1) + "\n")
    if source.is_dir():
        return
    gone, there = withdrawn_ids(before), withdrawn_ids(home)
    if new := {one: why for one, why in gone.items() if one not in there}:
        path = home / "withdrawn.jsonl"
        text = path.read_text("utf-8") if path.is_file() else ""
        lines = [json.dumps({"id": one, "why": why}, ensure_ascii=False) + "\n"
                 for one, why in new.items()]  # fmt: skip
        write_aside(
            path, text + ("\n" if text and not text.endswith("\n") else "") + "".join(lines)
        )
