"""The lines to be judged: from any table of a user's, or from a run folder.

Takes a .jsonl, .csv, .parquet or text file, or the folder of a run; gives a `Pool` of lines, each
with its id, its text and, where named, a score, a label and the group it belongs to. Scores may
come from anywhere: a critic, a likelihood, a model asked to judge, agreement of samples. Costs one
pass; all lines are held in memory (100,000 short ones: about 100 MB).

An id of a file's line follows from its text and question alone (or its id column), so that a score
or a label may be added later without making it another line; lines of the same text are numbered,
best score first. Labels and certificates of a source lie in its `home`: the run folder itself, or a
folder beside the file.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from symdistill.datafiles import expect_columns, is_missing, json_rows, read_rows, row_named
from symdistill.errors import InputError
from symdistill.records import Item, Knowledge, Verdict, content_hash, normalise
from symdistill.tables import iter_records

LabelWord = Literal["valid", "invalid", "unsure"]

_WORDS: Mapping[str, LabelWord] = {
    **dict.fromkeys(("valid", "true", "yes", "1", "1.0", "good", "correct", "v"), "valid"),
    **dict.fromkeys(("invalid", "false", "no", "0", "0.0", "bad", "incorrect", "i"), "invalid"),
    **dict.fromkeys(("unsure", "unknown", "?", "u"), "unsure"),
}
_NOTHING = ("", "na", "n/a", "nan", "none", "null")


@dataclass(frozen=True, slots=True)
class Line:
    """One line to be judged."""

    id: str
    number: int  # its row in the file, from 1
    text: str
    score: float | None = None  # higher is better; any scale; may be NaN, which `ranked` refuses
    group: str | None = None  # what belongs together: a concept, a head
    question: str | None = None  # what the text answers, or is about
    label: str | None = None  # the word in the label column, as written; None where empty
    fields: Mapping[str, Any] = field(default_factory=dict)  # the other columns


@dataclass(frozen=True)
class Pool:
    """Lines of one source, each id once."""

    source: Path
    home: Path  # where labels.sqlite, certificates/ and withdrawn.jsonl of the source lie
    lines: tuple[Line, ...]
    refused: Mapping[str, int] = field(default_factory=dict)  # reason -> rows
    first_refused: Mapping[str, int] = field(default_factory=dict)  # reason -> the first such row

    def ranked(self) -> list[Line]:
        """The lines by score, best first; ties by a hash of the id, whatever the file's order.

        Raises:
            InputError: a line has no score, or one that is no finite number.
        """
        bad = [one for one in self.lines if one.score is None or not math.isfinite(one.score)]
        if bad:
            first = bad[0]
            what = "none" if first.score is None else str(first.score)
            raise InputError(
                f"expected a finite score on each of the {len(self.lines):,} lines of "
                f"{self.source}; {len(bad):,} have none: row {first.number} has {what}; score them "
                "or take them out of the file"
            )
        return sorted(self.lines, key=lambda one: (-(one.score or 0.0), content_hash(one.id)))

    @cached_property
    def hash(self) -> str:
        """Of the ids, texts, scores, groups and questions; not of labels or the file's order."""
        return content_hash(
            sorted([one.id, one.text, None if one.score is None else repr(one.score),
                    one.group, one.question] for one in self.lines), 64
        )  # fmt: skip


def read_pool(
    source: Path,
    *,
    text: str = "text",
    score: str | None = None,
    label: str | None = None,
    group: str | None = None,
    question: str | None = None,
    id: str | None = None,
    withdrawn: bool = False,
) -> Pool:
    """The lines of a file, or the lines that a run kept.

    Of a run: what selection kept in any round (every line, where the recipe selects nothing), with
    the score of the newest critic; the columns cannot be chosen. Lines that were withdrawn are left
    out unless `withdrawn`.

    Args:
        source: a table, or a run folder.
        text, score, label, group, question, id: names of columns of a table; None: there is none.
        withdrawn: give lines that were withdrawn, too.

    Raises:
        InputError: the source cannot be read, lacks a column, has an id twice, or no line.
    """
    source = source.expanduser()
    refused: Counter[str] = Counter()
    first_refused: dict[str, int] = {}
    if source.is_dir():
        lines = list(_run_lines(source))
    else:
        columns = {"text": text, "score": score, "label": label, "group": group,
                   "question": question, "id": id}  # fmt: skip
        lines = list(_file_lines(source, columns, refused, first_refused))
        if id is None:
            lines = _repeats_numbered(lines)
    home = home_of(source)
    gone = set() if withdrawn else set(withdrawn_ids(home))
    lines = [one for one in lines if one.id not in gone]
    if not lines:
        why = "; ".join(f"{count} rows: {reason}" for reason, count in refused.most_common(3))
        raise InputError(f"expected at least one line in {source}; got none ({why or 'empty'})")
    return Pool(source, home, tuple(lines), dict(refused), first_refused)


def refused_words(pool: Pool) -> str | None:
    """Which rows of the file are no lines, and why; None where all are."""
    if not pool.refused:
        return None
    left_out = sum(pool.refused.values())
    reasons = []
    for why, count in pool.refused.items():
        more = f" (and {count - 1:,} more)" if count > 1 else ""
        reasons.append(f"{row_named(pool.source, pool.first_refused[why])}: {why}{more}")
    return f"{left_out:,} of {left_out + len(pool.lines):,} rows left out: {'; '.join(reasons)}"


def home_of(source: Path) -> Path:
    """Where labels and certificates of a source lie."""
    source = source.expanduser()
    return source if source.is_dir() else source.with_name(source.name + ".symdistill")


def withdrawn_ids(home: Path) -> dict[str, str]:
    """The ids of withdrawn lines, each with why.

    A line that a kill cut off is passed over: its withdrawal was never confirmed.

    Raises:
        InputError: the list cannot be read.
    """
    path = home / "withdrawn.jsonl"
    found: dict[str, str] = {}
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return found
    except OSError as error:
        raise InputError(
            f"expected a readable list of withdrawn lines at {path}; got: {error.strerror}; check "
            "its permissions"
        ) from error
    whole = (b"" if one.startswith(b"{") and not one.endswith(b"}") else one for one in lines)
    for number, row in json_rows(whole):
        if isinstance(row, str) or not isinstance(row.get("id"), str):
            raise InputError(
                f"expected one withdrawal a line in {path}; line {number} "
                f"{row if isinstance(row, str) else 'has no id'}; mend or remove that line"
            )
        if row.get("undone"):
            found.pop(row["id"], None)
        else:
            found[row["id"]] = str(row.get("why", ""))
    return found


def is_empty_label(cell: Any) -> bool:
    """Whether a cell for a label holds none: blank, or a word by which programs mean nothing."""
    return is_missing(cell) or str(cell).strip().casefold() in _NOTHING


def words_of(label: str) -> LabelWord | None:
    """What a label says: valid, invalid or unsure; None if it is no word for either."""
    return _WORDS.get(label.strip().casefold())


def _file_lines(
    source: Path,
    columns: Mapping[str, str | None],
    refused: Counter[str],
    first_refused: dict[str, int],
) -> Iterator[Line]:
    """The lines of a file; without an id column, those of the same text have the same id."""
    needed = [name for name in columns.values() if name is not None]
    text_column = columns["text"] or "text"
    own = set(needed)
    seen: dict[str, int] = {}  # id of an id column -> row
    found: dict[str, None] = {}  # columns of the rows
    count = 0
    for number, row in read_rows(source, needed, what="lines"):
        if isinstance(row, str):
            refused[row] += 1
            first_refused.setdefault(row, number)
            continue
        found |= dict.fromkeys(row)
        cells = {
            what: None if name is None or is_missing(row.get(name)) else _writable(row[name])
            for what, name in columns.items()
        }
        said = cells["text"]
        if not isinstance(said, str) or not said.strip():
            why = f"no text in {text_column!r}"
            refused[why] += 1
            first_refused.setdefault(why, number)
            continue
        count += 1
        yield Line(
            id=_id(cells, columns["id"], seen, number, source),
            number=number,
            text=said,
            score=_number(cells["score"], columns["score"], number, source),
            group=None if cells["group"] is None else str(cells["group"]),
            question=None if cells["question"] is None else str(cells["question"]),
            label=None if is_empty_label(cells["label"]) else str(cells["label"]).strip(),
            fields={name: value for name, value in row.items() if name not in own},
        )
    if found and source.suffix.lower() == ".jsonl":  # no header: only the rows can say
        expect_columns(needed if count else [text_column], list(found), source)


def _writable(value: Any) -> Any:
    """Halves of surrogate pairs, which no file can hold, as question marks."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _id(
    cells: Mapping[str, Any], column: str | None, seen: dict[str, int], number: int, source: Path
) -> str:
    if column is None:
        said = normalise(str(cells["text"]))
        asked = cells["question"]
        # a letter in front, or a spreadsheet takes one id in a thousand for a number
        return f"x{content_hash(['line', said, None if asked is None else normalise(str(asked))])}"
    if cells["id"] is None:
        raise InputError(
            f"expected an id in {column!r} on every row of {source}; {row_named(source, number)} "
            "has none; fill it in, or leave --id out"
        )
    id = str(cells["id"])
    if id in seen:
        raise InputError(
            f"expected every id in {column!r} of {source} once; {id!r} is on rows {seen[id]} and "
            f"{number}; make them different, or leave --id out"
        )
    seen[id] = number
    return id


def _repeats_numbered(lines: Sequence[Line]) -> list[Line]:
    """Lines of one id told apart by "-2", "-3", ...; which is which is not up to their order."""
    same: dict[str, list[Line]] = {}
    for one in lines:
        same.setdefault(one.id, []).append(one)
    ids = {
        one.number: f"{one.id}-{place}"
        for repeats in same.values()
        for place, one in enumerate(sorted(repeats, key=_best_first)[1:], start=2)
    }
    return [replace(one, id=ids[one.number]) if one.number in ids else one for one in lines]


def _best_first(one: Line) -> tuple[float, str, str, str]:
    score = -math.inf if one.score is None or math.isnan(one.score) else one.score
    return -score, one.group or "", one.text, one.question or ""


def _number(value: Any, column: str | None, number: int, source: Path) -> float | None:
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        meant = _number_meant(value)
        raise InputError(
            f"expected a number in {column!r} on {row_named(source, number)} of {source}; got "
            f"{str(value)[:40]!r}; "
            + (f"write {meant:g}" if meant is not None else "correct it, or take the row out")
        ) from None


def _number_meant(value: Any) -> float | None:
    """The number that is written with a comma or as a percentage."""
    said = str(value).strip()
    if not re.fullmatch(r"[+-]?\d+([.,]\d+)?\s*%?", said):
        return None
    meant = float(said.rstrip("% ").replace(",", ".")) / (100 if said.endswith("%") else 1)
    return meant if math.isfinite(meant) else None


def _run_lines(run: Path) -> Iterator[Line]:
    tables = run / "tables"
    if not (tables / "knowledge.parquet").is_file():
        raise InputError(
            f"expected a finished run or a file of lines at {run}; it has no "
            "tables/knowledge.parquet; finish the run, or name a file"
        )
    asked = {one.id: one.text for one in iter_records(tables / "items.parquet", Item)}
    scores: dict[str, float] = {}
    kept: set[str] = set()
    selects = False
    if (tables / "verdicts.parquet").is_file():
        newest: dict[str, int] = {}
        for one in iter_records(tables / "verdicts.parquet", Verdict):
            if one.judge == "selection":
                selects = True
                if one.score:
                    kept.add(one.knowledge_id)
            elif (
                one.judge.startswith("critic@")
                and one.score is not None
                and one.round >= newest.get(one.knowledge_id, -1)
            ):
                newest[one.knowledge_id] = one.round
                scores[one.knowledge_id] = one.score
    for number, line in enumerate(iter_records(tables / "knowledge.parquet", Knowledge), start=1):
        if not selects or line.id in kept:
            yield Line(
                id=line.id,
                number=number,
                text=line.text,
                score=scores.get(line.id),
                group=line.item_id,
                question=asked.get(line.item_id),
                fields=line.fields,
            )


def read_label(line: Line, source: Path) -> LabelWord | None:
    """What the label of a line says; None where there is none.

    Raises:
        InputError: the word is not a label.
    """
    if line.label is None:
        return None
    word = words_of(line.label)
    if word is None:
        raise InputError(
            "expected valid, invalid or unsure (or yes/no, true/false, 1/0) as a label; got "
            f"{line.label[:40]!r} on {row_named(source, line.number)} of {source}; mend it or "
            "leave it empty"
        )
    return word
