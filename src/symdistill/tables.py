"""Records <-> Parquet: one schema per record, one way to write, byte for byte the same.

A table is written with a fixed row-group size into a file aside and then renamed, so that a reader
sees the old table or the new one, never half of one. It may be longer than memory: one row group is
held at a time. Free-form `fields` are stored as JSON text, which DuckDB, polars and `datasets` read
as they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from symdistill.errors import RunError
from symdistill.records import (
    Failure,
    Item,
    Knowledge,
    Lineage,
    Verdict,
    View,
    canonical_json,
)

Record = Item | Knowledge | Failure | Verdict | View
R = TypeVar("R", Item, Knowledge, Failure, Verdict, View)

ROW_GROUP_ROWS = 50_000
BATCH_ROWS = 1_000  # at a time as Python objects, in writing and in reading

_LINEAGE = pa.struct(
    [
        ("teacher", pa.string()),
        ("request_key", pa.string()),
        ("prompt_id", pa.string()),
        ("decoding", pa.string()),
        ("seed", pa.int64()),
        ("round", pa.int32()),
        ("parents", pa.list_(pa.string())),
    ]
)

SCHEMAS: dict[type, pa.Schema] = {
    Item: pa.schema(
        [
            ("id", pa.string()),
            ("kind", pa.string()),
            ("text", pa.string()),
            ("fields", pa.string()),
            ("gold", pa.string()),
            ("split", pa.string()),
        ]
    ),
    Knowledge: pa.schema(
        [
            ("id", pa.string()),
            ("item_id", pa.string()),
            ("form", pa.string()),
            ("text", pa.string()),
            ("fields", pa.string()),
            ("lineage", pa.list_(_LINEAGE)),
        ]
    ),
    Failure: pa.schema(
        [
            ("id", pa.string()),
            ("item_id", pa.string()),
            ("sample_index", pa.int64()),
            ("kind", pa.string()),
            ("reason", pa.string()),
            ("attempts", pa.int32()),
            ("request_key", pa.string()),
        ]
    ),
    Verdict: pa.schema(
        [
            ("knowledge_id", pa.string()),
            ("judge", pa.string()),
            ("score", pa.float64()),
            ("status", pa.string()),
            ("reason", pa.string()),
            ("request_key", pa.string()),
            ("round", pa.int32()),
        ]
    ),
    View: pa.schema(
        [
            ("prompt", pa.string()),
            ("target", pa.string()),
            ("weight", pa.float64()),
            ("group", pa.string()),
            ("knowledge_ids", pa.list_(pa.string())),
            ("round", pa.int32()),
        ]
    ),
}


def write_records(
    path: Path, kind: type[R], records: Iterable[R], metadata: Mapping[str, str] | None = None
) -> int:
    """Write records of one kind as a Parquet file, aside and then renamed; gives their number."""
    schema = SCHEMAS[kind].with_metadata(dict(metadata)) if metadata else SCHEMAS[kind]
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".aside")
    written = 0
    with pq.ParquetWriter(aside, schema, compression="zstd") as file:
        for group in _row_groups(kind, iter(records), schema):
            file.write_table(group, ROW_GROUP_ROWS)
            written += group.num_rows
    os.replace(aside, path)
    return written


def read_records(path: Path, kind: type[R]) -> list[R]:
    """The records of a table written by `write_records`.

    Raises:
        RunError: the file is damaged or holds another kind of record.
    """
    return list(iter_records(path, kind))


def iter_records(path: Path, kind: type[R]) -> Iterator[R]:
    """The records of a table one after another, for tables longer than memory.

    Raises:
        RunError: the file is damaged or holds another kind of record.
    """
    names = [f.name for f in fields(kind)]
    try:
        with pq.ParquetFile(path) as file:
            present = file.schema_arrow.names
            if not set(names) <= set(present):
                raise RunError(
                    f"expected the columns {', '.join(names)} in {path}; got "
                    f"{', '.join(present)}; is it a table of another record?"
                )
            for batch in file.iter_batches(BATCH_ROWS, columns=names):
                for row in batch.to_pylist():
                    yield kind(**{name: _loaded(name, row[name]) for name in names})
    except (pa.ArrowException, OSError) as error:
        raise RunError(
            f"expected a whole Parquet table at {path}; got: {error}; remove the file and run the "
            "same command again"
        ) from error


def table_metadata(path: Path) -> dict[str, str]:
    """The text metadata of a Parquet file, empty where the file is absent or damaged."""
    try:
        raw = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError):
        return {}
    return {key.decode(): value.decode() for key, value in raw.items() if key != b"ARROW:schema"}


def _row_groups(kind: type[R], records: Iterator[R], schema: pa.Schema) -> Iterator[pa.Table]:
    """Records as tables of ROW_GROUP_ROWS rows, the last one with what is left; at least one."""
    batches: list[pa.RecordBatch] = []
    rows, whole = 0, False  # of this row group; whether there was one before it
    while some := list(islice(records, min(BATCH_ROWS, ROW_GROUP_ROWS - rows))):
        plain = [
            {f.name: _stored(f.name, getattr(one, f.name)) for f in fields(kind)} for one in some
        ]
        batches.append(pa.RecordBatch.from_pylist(plain, schema=schema))
        rows += len(some)
        if rows == ROW_GROUP_ROWS:
            yield pa.Table.from_batches(batches).combine_chunks()
            batches, rows = [], 0
            whole = True
    if batches or not whole:
        yield pa.Table.from_batches(batches, schema=schema).combine_chunks()


def _stored(name: str, value: Any) -> Any:
    if name == "fields":
        return canonical_json(value)
    if name == "lineage":
        return [{f.name: getattr(one, f.name) for f in fields(Lineage)} for one in value]
    return value


def _loaded(name: str, value: Any) -> Any:
    if name == "fields":
        return json.loads(value)
    if name == "lineage":
        return tuple(Lineage(**{**one, "parents": tuple(one["parents"])}) for one in value)
    if name == "knowledge_ids":
        return tuple(value)
    return value
