"""A user's table of rows, and writing the same kind of table.

Takes a .jsonl, .csv, .tsv, .parquet or text file (one row per line, in one column); gives its rows
one after another, numbered from 1, each with its columns or with the reason why it could not be
read. Costs one pass over the file; memory does not grow with it.

Text is UTF-8, or UTF-16 where the file begins with its mark. An empty cell of a CSV is an absent
column of that row, and all that is there is text. A CSV whose header has no comma, but a semicolon
or a tab, is separated by those, as spreadsheets in much of Europe write it.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import difflib
import json
import math
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from symdistill.errors import InputError, RunError

KINDS = (".jsonl", ".csv", ".tsv", ".parquet", ".txt")

Row = Mapping[str, Any] | str
"""The columns of a row, or why it could not be read."""


def read_rows(
    path: Path, needed: Sequence[str] = (), *, what: str = "rows"
) -> Iterator[tuple[int, Row]]:
    """The rows of a file with their numbers, from 1.

    Args:
        path: its suffix tells what it is.
        needed: columns that the file must have; the first is the column of a text file. JSON
            Lines have no header, so there only the rows can say.
        what: what the rows are, for messages.

    Raises:
        InputError: another kind of file, one that cannot be read, or one that lacks a column.
    """
    path = path.expanduser()
    reader = _READERS.get(path.suffix.lower())
    if path.suffix.lower() in (".gz", ".bz2", ".xz", ".zip", ".zst"):
        raise InputError(
            f"expected a table of {what} that is not packed; got {str(path)!r}; unpack it, for "
            "example with gunzip"
        )
    if reader is None:
        raise InputError(
            f"expected a table of {what} ({', '.join(KINDS)}); got {str(path)!r}; write it as one "
            "of these"
        )
    try:
        yield from reader(path, needed)
    except InputError:
        raise
    except UnicodeError as error:
        raise InputError(
            f"expected readable UTF-8 text in {path}; got other bytes; save it as UTF-8 (in a "
            'spreadsheet: "CSV UTF-8")'
        ) from error
    except (OSError, ValueError, csv.Error) as error:  # those of pyarrow are ValueErrors, too
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or ["no reason"])[0]
        raise InputError(
            f"expected a readable {path.suffix} file of {what} at {path}; got: {reason}; check "
            "the path and the file"
        ) from error


def row_named(path: Path, number: int) -> str:
    """What to call a row in a message: the header of a CSV is not counted."""
    header = " after the header" if path.suffix.lower() in (".csv", ".tsv") else ""
    return f"row {number}{header}"


def json_rows(lines: Iterable[bytes]) -> Iterator[tuple[int, Row]]:
    """JSON objects, one to a line; blank lines are passed over but counted."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
        except (ValueError, RecursionError):
            yield number, "is not JSON"
        else:
            yield number, row if isinstance(row, dict) else "is not an object with columns"


def expect_columns(needed: Sequence[str], columns: Sequence[str], source: str | Path) -> None:
    """Refuse a source that lacks a column.

    Raises:
        InputError: names the nearest column that there is.
    """
    for name in needed:
        if name not in columns:
            if not columns:
                raise InputError(f"expected a column {name!r} in {source}; the file is empty; "
                                 "check it")  # fmt: skip
            by_case = {column.casefold(): column for column in columns}
            near = difflib.get_close_matches(name.casefold(), by_case, n=1)
            nearest = f"the nearest is {by_case[near[0]]!r}; " if near else ""
            raise InputError(
                f"expected a column {name!r} in {source}; {nearest}its columns are "
                f"{', '.join(columns)}; name another, or rename the column"
            )


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: null, or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def write_rows(
    path: Path, rows: Iterable[Mapping[str, Any]], *, for_spreadsheet: bool = False
) -> int:
    """Write rows as the kind of file that the suffix names, aside and then renamed.

    The columns are those of all rows, in the order in which they first appear; what a row lacks
    is left empty (in JSON Lines: left out). Gives the number of rows.

    `for_spreadsheet`: a CSV begins with the mark by which a spreadsheet knows UTF-8.

    Raises:
        InputError: another suffix than .jsonl, .csv or .parquet.
        RunError: the file cannot be written.
    """
    path = path.expanduser()
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise InputError(
            f"expected a file to write of the kind {', '.join(_WRITERS)}; got {str(path)!r}; "
            "change its suffix"
        )
    all_rows = list(rows)
    with _aside(path) as aside:
        if for_spreadsheet and writer is _write_csv:
            _write_csv(aside, all_rows, encoding="utf-8-sig")
        else:
            writer(aside, all_rows)
    return len(all_rows)


def write_aside(path: Path, text: str) -> None:
    """Write a text (UTF-8) aside, then rename it: `path` holds the old text or the new, never half.

    Any number of processes may write the same path at once; the last one stands.

    Raises:
        RunError: the file cannot be written.
    """
    with _aside(path.expanduser()) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")


@contextlib.contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A place beside `path`, for this writer alone; what is written there then takes its name."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(6)}.aside")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        with aside.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(aside, path)
    except OSError as error:
        raise RunError(
            f"expected to write {path}; got: {error.strerror or error}; choose another place"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


# ---------------------------------------------------------------------------------- kinds of files


def _encoding(path: Path) -> str:
    with path.open("rb") as stream:
        mark = stream.read(2)
    return "utf-16" if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _utf8_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file as UTF-8, which a line by itself may fail to be."""
    encoding = _encoding(path)
    if encoding == "utf-16":
        with path.open(encoding=encoding, errors="surrogatepass") as texts:
            yield from (text.encode("utf-8", "surrogatepass") for text in texts)
    else:
        with path.open("rb") as lines:
            yield from lines


def _jsonl_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, Row]]:
    yield from json_rows(_utf8_lines(path))


def _text_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, Row]]:
    column = needed[0] if needed else "text"
    expect_columns(needed, [column], path)
    for number, line in enumerate(_utf8_lines(path), start=1):
        if not line.strip():
            continue
        try:
            yield number, {column: line.decode("utf-8-sig").strip()}
        except UnicodeDecodeError:
            yield number, "is not UTF-8 text"


def _csv_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with path.open(encoding=_encoding(path), newline="") as lines:
        separator = "\t" if path.suffix.lower() == ".tsv" else _separator(lines.readline())
        lines.seek(0)
        table = csv.DictReader(lines, delimiter=separator)
        expect_columns(needed, list(table.fieldnames or ()), path)
        for number, row in enumerate(table, start=1):
            if None in row:
                yield number, "has more cells than there are columns"
            else:
                yield number, {name: cell for name, cell in row.items() if cell}


def _separator(header: str) -> str:
    return next((mark for mark in ",;\t" if mark in header), ",")


def _parquet_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, Row]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as table:
        expect_columns(needed, table.schema_arrow.names, path)
        batches = table.iter_batches(batch_size=1000)
        yield from enumerate((row for batch in batches for row in batch.to_pylist()), start=1)


_READERS: Mapping[str, Callable[[Path, Sequence[str]], Iterator[tuple[int, Row]]]] = {
    ".jsonl": _jsonl_rows,
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    ".parquet": _parquet_rows,
    ".txt": _text_rows,
}


def _write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for row in rows:
            stream.write(json.dumps(dict(row), ensure_ascii=False, default=str) + "\n")


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]], *, encoding: str = "utf-8") -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding=encoding, newline="") as stream:
        table = csv.DictWriter(stream, columns)
        table.writeheader()
        table.writerows(rows)


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: [row.get(name) for row in rows] for name in columns})
    pq.write_table(table, path, compression="zstd")


_WRITERS: Mapping[str, Callable[[Path, Sequence[Mapping[str, Any]]], None]] = {
    ".jsonl": _write_jsonl,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}
