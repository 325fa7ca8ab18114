"""Concepts and goals from a list: what the generator is asked about.

Takes the packaged list, a text file (one per line), JSON lines, Parquet, or a data set of the
Hugging Face hub; gives `Item`s with the forms a prompt needs, and the rows that were refused,
each with its reason. Costs one pass over the file in memory; forms that the source does not give
are looked up (forms.py), for the sampled items only.

I2D2 (arXiv 2212.09246) asks about nouns and about human goals; so does this. It does not find
related concepts: they come with the list (`related`) or not at all.

A text file holds one concept per line; blank lines and lines that start with `#` are skipped.
"bake a cake" is guessed to be a goal, "dog" a concept; "goal: " or "concept: " before the text
decides. In the other formats a row has `text` (or the column named by `text_column`), and may
have `kind`, `number`, `plural`, `article`, `gerund`, `topic`, `related`, `gold`, `split`; further
fields are kept as they are.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from symdistill.errors import InputError
from symdistill.records import Item, ItemKind, canonical_json, content_hash, normalise
from symdistill.sources.forms import (
    NUMBERS,
    concept_forms,
    everyday_jsonl,
    goal_gerund,
    looks_like_goal,
)

MAX_LENGTH = 200  # characters of a concept
KINDS = ("concept", "goal")

_PREFIX = re.compile(r"(goal|concept):\s*", re.IGNORECASE)
_TEXT_FIELDS = ("singular", "plural", "article", "gerund", "topic", "gold", "split")
_OTHER_FORMATS = (".json", ".csv", ".tsv", ".xlsx", ".gz", ".zip", ".bz2", ".xz", ".zst")


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that is not a concept: its number in the source (from 1), its text, why not."""

    row: int
    text: str  # at most 80 characters
    reason: str


@dataclass(frozen=True, slots=True)
class Concepts:
    """What a source holds: the items in its order, and the rows that were refused."""

    items: tuple[Item, ...]
    rejected: tuple[Rejected, ...]

    @property
    def reasons(self) -> dict[str, int]:
        """How many rows were refused for each reason, the commonest first."""
        return dict(Counter(row.reason for row in self.rejected).most_common())


class _BadRow(Exception):
    """Why a row is not a concept."""


Row = str | Mapping[str, Any] | _BadRow
"""A line of text, the fields of a row, or why the row could not even be read."""


def read_concepts(
    source: str | Path, *, limit: int | None = None, seed: int = 0, text_column: str = "text"
) -> Concepts:
    """The concepts and goals of a source.

    Args:
        source: "everyday" (the packaged list), "hf:NAME[:split]" (a `datasets` id or folder; the
            split is "train" if not given), or the path of a .jsonl, .parquet or text file.
        limit: keep a seeded sample of this many items, in the source's order. The sample for a
            smaller limit is part of the sample for a larger one.
        seed: decides the sample.
        text_column: the field that holds the concept, where rows have fields.

    Returns:
        The items, and the refused rows. A row is refused if it is empty, has no letter or digit,
        is longer than MAX_LENGTH characters, has control characters, repeats an earlier row, or
        has fields that do not mean what they must. Rows outside the sample are not refused rows.

    Raises:
        InputError: the source cannot be read, is not text, or holds no valid row.
    """
    if limit is not None and limit < 1:
        raise InputError(f"expected a limit of at least 1 concept; got {limit}; raise it")
    items: dict[str, Item] = {}
    rejected: list[Rejected] = []
    for number, row in _rows(source, text_column):
        try:
            item = _item(row, text_column)
            if item.id in items:
                raise _BadRow("repeats an earlier row")
            items[item.id] = item
        except _BadRow as error:
            rejected.append(Rejected(number, _shown(row, text_column), str(error)))
    if not items:
        raise InputError(
            f"expected at least one concept in {source}; got {_nothing(rejected)}; "
            "write one concept per line, at most 200 characters long"
        )
    kept = _sample(list(items.values()), limit, seed)
    return Concepts(tuple(_with_forms(item) for item in kept), tuple(rejected))


def _sample(items: list[Item], limit: int | None, seed: int) -> list[Item]:
    if limit is None or limit >= len(items):
        return items
    drawn = sorted(items, key=lambda item: content_hash(["sample", seed, item.id]))[:limit]
    chosen = {item.id for item in drawn}
    return [item for item in items if item.id in chosen]


# -------------------------------------------------------------------------- from a row to an item


def _item(row: Row, text_column: str) -> Item:
    """The item of a row, with the fields its source gives; raises _BadRow."""
    if isinstance(row, _BadRow):
        raise row
    if isinstance(row, str):
        return _from_line(row)
    text = row.get(text_column)
    if not isinstance(text, str):
        raise _BadRow(f"has no text in {text_column!r}")
    _check_text(text)
    known = {key: value for key, value in row.items() if value is not None}
    del known[text_column]
    _check_fields(known)
    gold, split = known.pop("gold", None), known.pop("split", None)
    return _of_kind(known.pop("kind", None), text, fields=known, gold=gold, split=split)


def _from_line(line: str) -> Item:
    """The item of a line of a text file; raises _BadRow."""
    _check_text(line)
    text = line.strip()
    kind: ItemKind | None = None
    if prefix := _PREFIX.match(text):
        kind = "goal" if prefix[1].lower() == "goal" else "concept"
        text = text[prefix.end() :]
    text = re.sub(r"^an?\s+", "", text)  # "a dog" is about dogs
    _check_text(text)
    return _of_kind(kind, text, fields={})


def _of_kind(kind: ItemKind | None, text: str, *, fields: dict[str, Any], **rest: Any) -> Item:
    """An item of the kind its source gives, or else of the kind it looks like."""
    text = " ".join(text.split())
    kind = kind or _guess_kind(text)
    if kind == "goal":
        text = _goal_text(text)
        if "gerund" not in fields and goal_gerund(text) is None:
            raise _BadRow("is a goal that does not start with a verb in base form")
    return Item.make(kind, text, fields=fields, **rest)


def _guess_kind(text: str) -> ItemKind:
    return "goal" if looks_like_goal(text.lower().removeprefix("to ")) else "concept"


def _goal_text(text: str) -> str:
    """A goal as the words that follow "to": "To bake a cake" is "bake a cake"."""
    text = text[:1].lower() + text[1:]
    return text.removeprefix("to ").lstrip() or text


def _check_text(text: str) -> None:
    """Raises _BadRow unless the text can be a concept."""
    text = text.strip()
    if not text:
        raise _BadRow("is empty")
    if len(text) > MAX_LENGTH:
        raise _BadRow(f"is longer than {MAX_LENGTH} characters")
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text):
        raise _BadRow("has control characters")
    if not any(c.isalnum() for c in normalise(text)):
        raise _BadRow("has no letter or digit")


def _check_fields(known: Mapping[str, Any]) -> None:
    """Raises _BadRow unless the fields mean what prompts take them to mean."""
    if known.get("kind", "concept") not in KINDS:
        raise _BadRow(f"has a kind other than {' or '.join(KINDS)}")
    if known.get("number", "count") not in NUMBERS:
        raise _BadRow(f"has a number other than {', '.join(NUMBERS)}")
    for name in _TEXT_FIELDS:
        value = known.get(name, "-")
        if not isinstance(value, str) or not value.strip():
            raise _BadRow(f"has a {name!r} that is not text")
    related = known.get("related", [])
    if not isinstance(related, list) or not all(isinstance(one, str) for one in related):
        raise _BadRow("has a 'related' that is not a list of texts")
    try:
        canonical_json(known).encode("utf-8")
    except (TypeError, ValueError) as error:
        raise _BadRow("has a field that JSON cannot hold") from error


def _with_forms(item: Item) -> Item:
    if item.kind == "goal":
        gerund = item.fields.get("gerund") or goal_gerund(item.text)
        return replace(item, fields={**item.fields, "gerund": gerund})
    return replace(item, fields={**item.fields, **concept_forms(item.text, item.fields)})


def _shown(row: Row, text_column: str) -> str:
    text = row.get(text_column) if isinstance(row, Mapping) else row
    shown = "" if text is None or isinstance(row, _BadRow) else str(text)
    return shown[:80].encode("utf-8", "backslashreplace").decode("utf-8")


def _nothing(rejected: list[Rejected]) -> str:
    if not rejected:
        return "nothing"
    first = rejected[0]
    rows = "1 row" if len(rejected) == 1 else f"{len(rejected)} rows"
    return f"{rows}, none of them valid (row {first.row} {first.reason})"


# ------------------------------------------------------------------------ from a source to its rows


def _rows(source: str | Path, text_column: str) -> Iterable[tuple[int, Row]]:
    """The rows of a source with their numbers: a str, a mapping, or the _BadRow it is."""
    name = str(source)
    if name == "everyday":
        return _json_rows(everyday_jsonl())
    if name.startswith("hf:"):
        return _hub_rows(name, text_column)
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix in _OTHER_FORMATS:
        raise InputError(
            f"expected a text, .jsonl or .parquet file of concepts; got {path}; convert it"
        )
    if suffix == ".parquet":
        return _parquet_rows(path, text_column)
    text = _read_text(path)
    return _json_rows(text) if suffix in (".jsonl", ".ndjson") else _text_rows(text)


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"expected a readable file of concepts at {path}; got: {reason}; check the path"
        ) from error
    if not data.strip():
        raise InputError(f"expected concepts in {path}; got an empty file; add one per line")
    try:
        if b"\0" in data:
            raise ValueError("NUL bytes")
        return data.decode("utf-8-sig")
    except ValueError as error:
        raise InputError(
            f"expected UTF-8 text in {path}; got a binary file or another encoding; "
            "save it as UTF-8 text with one concept per line"
        ) from error


def _text_rows(text: str) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line


def _json_rows(text: str) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = _BadRow("is not JSON")
        if not isinstance(row, Mapping | _BadRow):
            row = _BadRow("is not an object with fields")
        yield number, row


def _parquet_rows(path: Path, text_column: str) -> Iterator[tuple[int, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        rows = table.to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(
            f"expected a readable Parquet file at {path}; got: {str(error).splitlines()[0]}; "
            "check the path and the file"
        ) from error
    _check_column(text_column, table.column_names, str(path))
    yield from enumerate(rows, start=1)


def _hub_rows(source: str, text_column: str) -> Iterator[tuple[int, Row]]:
    name, _, split = source.removeprefix("hf:").partition(":")
    try:
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError
    except ImportError as error:
        raise InputError(
            f"expected the `datasets` library, which reads {source}; it is not installed; "
            "run `pip install 'symdistill[local]'`, or give a file"
        ) from error
    try:
        dataset = load_dataset(name, split=split or "train")
    except (OSError, ValueError, DatasetsError) as error:  # not found, no network, no such split
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"expected a data set at {source}; got: {reason}; "
            "check the name and the split (hf:NAME:SPLIT), or give a file"
        ) from error
    _check_column(text_column, dataset.column_names, source)
    yield from enumerate(dataset, start=1)


def _check_column(name: str, columns: Iterable[str], where: str) -> None:
    columns = list(columns)
    if name not in columns:
        raise InputError(
            f"expected a column {name!r} in {where}; got {', '.join(columns) or 'no columns'}; "
            "name the column that holds the concepts"
        )
