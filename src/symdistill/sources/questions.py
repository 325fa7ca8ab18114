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

import heapq
import json
import re
import string
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from symdistill.datafiles import Row, expect_columns, is_missing, json_rows, read_rows
from symdistill.errors import InputError
from symdistill.records import Item, canonical_json, content_hash
from symdistill.sources.concepts import Rejected
from symdistill.sources.forms import everyday_jsonl


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
            expect_columns(needed, list(columns), source)
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
    known = {key: value for key, value in row.items() if not is_missing(value)}
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


def _written(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _rows(source: str | Path, needed: Sequence[str]) -> Iterator[tuple[int, Row]]:
    """The rows of a source with their numbers, from 1."""
    if str(source) == "everyday":
        return json_rows(line.encode() for line in everyday_jsonl().splitlines())
    return read_rows(Path(source), needed, what='questions, or "everyday"')
