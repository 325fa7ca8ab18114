"""A table of questions: what a teacher is asked, and the prompt that each becomes.

Takes a .jsonl, .csv, .parquet or text file (one question per line), or the packaged concepts
("everyday", to try things out); gives an `Item` per row, one after another, and the rows that
were refused, each with its reason. Costs one pass over the file, and in memory 16 characters for
each row.

A row has a `text` (or the column named by `text_column`), and may have `gold` (a reference
answer) and `split`; every other column is kept in the item's fields, and a prompt template may
name it. An item's id follows from its `id_column`, where there is one, else from the whole row.

A prompt template is a text with columns in braces, "Is this true? {text}"; a brace itself is
written twice. Nothing else is understood in it, so no template runs code.
"""

from __future__ import annotations

import csv
import difflib
import heapq
import json
import math
import re
import string
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from symdistill.errors import InputError
from symdistill.records import Item, canonical_json, content_hash
from symdistill.sources.concepts import Rejected
from symdistill.sources.forms import everyday_jsonl

KINDS = (".jsonl", ".csv", ".parquet", ".txt")

Row = Mapping[str, Any] | str
"""The columns of a row, or why it could not be read."""


class Template:
    """A prompt with columns in braces.

    Args:
        text: such as "Answer in one word: {text}".

    Raises:
        InputError: a brace that is not closed, or something else than a column's name in braces.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise InputError(
                f"expected a prompt with columns in braces, such as {{text}}; got: {error} in "
                f"{text[:80]!r}; write a brace that is meant as one twice"
            ) from error
        for _, name, form, conversion in self._parts:
            if name is not None and (form or conversion or not re.fullmatch(r"[\w -]+", name)):
                raise InputError(
                    f"expected the name of a column in braces; got {{{name}"
                    f"{'!' + conversion if conversion else ''}{':' + form if form else ''}}} in "
                    f"the prompt {text[:80]!r}; write a brace that is meant as one twice"
                )
        self.columns = tuple(dict.fromkeys(name for _, name, *_ in self._parts if name is not None))

    def fill(self, item: Item, text_column: str = "text") -> str:
        """The prompt of an item of `read_questions`; what is not text is written as JSON."""
        known = {"gold": item.gold, "split": item.split, **item.fields, text_column: item.text}
        return "".join(
            before + ("" if name is None else _written(known[name]))
            for before, name, *_ in self._parts
        )


def read_questions(
    source: str | Path,
    *,
    text_column: str = "text",
    id_column: str | None = None,
    needs: Sequence[str] = (),
) -> Iterator[Item | Rejected]:
    """The questions of a source, in its order, and between them the rows that were refused.

    Args:
        source: "everyday" (the packaged concepts), or the path of a file.
        text_column: the column that holds the question.
        id_column: the column that tells rows apart; None: all columns together do.
        needs: further columns that every row must have, as a template names them.

    Raises:
        InputError: the source cannot be read, lacks a column, or holds no valid row. The latter
            two are told when all has been read, where only the rows can say.
    """
    needed = list(dict.fromkeys([text_column, *([id_column] if id_column else []), *needs]))
    seen: set[str] = set()
    columns: dict[str, None] = {}  # of the rows, in order
    first: Rejected | None = None
    for number, row in _rows(source, needed):
        found = _item(row, text_column, id_column, needed)
        if isinstance(found, Item) and found.id in seen:
            found = "repeats an earlier row"
        if isinstance(found, Item):
            seen.add(found.id)
            yield found
            continue
        if not isinstance(row, str):
            columns |= dict.fromkeys(row)
        shown = "" if isinstance(row, str) else _written(row.get(text_column, ""))
        refused = Rejected(number, shown[:80].encode("utf-8", "replace").decode("utf-8"), found)
        first = first or refused
        yield refused
    if not seen:
        if columns:
            _expect(needed, list(columns), source)
        why = f"none: row {first.row} {first.reason}" if first else "nothing"
        raise InputError(f"expected at least one question in {source}; got {why}; mend the rows")


def draw(items: Iterable[Item], limit: int, seed: int) -> list[Item]:
    """A seeded sample of at most `limit` items, in their order; only these are held in memory.

    The sample for a smaller limit is part of the sample for a larger one.
    """
    drawn = heapq.nsmallest(
        limit,
        enumerate(items),
        key=lambda numbered: content_hash(["sample", seed, numbered[1].id]),
    )
    return [item for _, item in sorted(drawn, key=lambda numbered: numbered[0])]


def _item(row: Row, text_column: str, id_column: str | None, needed: Sequence[str]) -> Item | str:
    """The item of a row, or why there is none."""
    if isinstance(row, str):
        return row
    known = {key: value for key, value in row.items() if not _is_missing(value)}
    for name in needed:
        if name not in known:
            return f"has no {name!r}"
    text = known.pop(text_column)
    if not isinstance(text, str) or not text.strip():
        return f"has no text in {text_column!r}"
    identity = known[id_column] if id_column else {"text": text, **known}
    try:
        id = content_hash(["item", "question", identity])
        canonical_json([text, known]).encode("utf-8")
    except (TypeError, ValueError):
        return "has a column that JSON cannot hold"
    asides = {
        name: known.pop(name) for name in ("gold", "split") if isinstance(known.get(name), str)
    }
    return Item(id=id, kind="question", text=text, fields=known, **asides)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _written(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


# ------------------------------------------------------------------------ from a source to its rows


def _rows(source: str | Path, needed: Sequence[str]) -> Iterator[tuple[int, Row]]:
    """The rows of a source with their numbers, from 1."""
    if str(source) == "everyday":
        yield from _json_rows(line.encode() for line in everyday_jsonl().splitlines())
        return
    path = Path(source).expanduser()
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"expected a table of questions ({', '.join(KINDS)}) or everyday; got {str(source)!r}; "
            "write it as one of these"
        )
    try:
        yield from reader(path, needed)
    except InputError:
        raise
    except (OSError, ValueError, csv.Error) as error:  # those of pyarrow are ValueErrors, too
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or ["no reason"])[0]
        raise InputError(
            f"expected a readable {path.suffix} file of questions at {path}; got: {reason}; check "
            "the path and the file"
        ) from error


def _json_rows(lines: Iterable[bytes]) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            yield number, "is not JSON"
        else:
            yield number, row if isinstance(row, dict) else "is not an object with columns"


def _jsonl_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, Row]]:
    with path.open("rb") as lines:
        yield from _json_rows(lines)


def _text_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, Row]]:
    _expect(needed, [needed[0]], path)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield number, {needed[0]: line.decode("utf-8-sig").strip()}
            except UnicodeDecodeError:
                yield number, "is not UTF-8 text"


def _csv_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with path.open(encoding="utf-8-sig", newline="") as lines:
        table = csv.DictReader(lines)
        _expect(needed, list(table.fieldnames or ()), path)
        for number, row in enumerate(table, start=1):
            if None in row:
                yield number, "has more cells than there are columns"
            else:
                yield number, {name: cell for name, cell in row.items() if cell}


def _parquet_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, Row]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as table:
        _expect(needed, table.schema_arrow.names, path)
        batches = table.iter_batches(batch_size=1000)
        yield from enumerate((row for batch in batches for row in batch.to_pylist()), start=1)


_READERS: Mapping[str, Callable[[Path, Sequence[str]], Iterator[tuple[int, Row]]]] = {
    ".jsonl": _jsonl_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
    ".txt": _text_rows,
}


def _expect(needed: Sequence[str], columns: Sequence[str], source: str | Path) -> None:
    """Refuse a source that lacks a column."""
    for name in needed:
        if name not in columns:
            near = difflib.get_close_matches(name, columns, n=1, cutoff=0.0)
            nearest = f"the nearest is {near[0]!r}; " if near else ""
            raise InputError(
                f"expected a column {name!r} in {source}; {nearest}its columns are "
                f"{', '.join(columns) or 'none'}; change the prompt or the column's name"
            )
