"""Records <-> Parquet: one schema per record, one way to write, byte for byte the same.

A table is written in one call with a fixed row-group size into a file aside and then renamed,
so that a reader sees the old table or the new one, never half of one. Free-form `fields` are
stored as JSON text, which DuckDB, polars and `datasets` read as they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from symdistill.errors import RunError
from symdistill.records import Item, Knowledge, Lineage, Verdict, View, canonical_json

Record = Item | Knowledge | Verdict | View
R = TypeVar("R", Item, Knowledge, Verdict, View)

ROW_GROUP_ROWS = 50_000

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
    path: Path, kind: type[R], records: Sequence[R], metadata: Mapping[str, str] | None = None
) -> None:
    """Write records of one kind as a Parquet file, aside and then renamed."""
    rows = [
        {f.name: _stored(f.name, getattr(one, f.name)) for f in fields(kind)} for one in records
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMAS[kind])
    if metadata:
        table = table.replace_schema_metadata(dict(metadata))
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".aside")
    pq.write_table(table, aside, row_group_size=ROW_GROUP_ROWS, compression="zstd")
    os.replace(aside, path)


def read_records(path: Path, kind: type[R]) -> list[R]:
    """The records of a table written by `write_records`.

    Raises:
        RunError: the file is damaged or holds another kind of record.
    """
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise RunError(
            f"expected a whole Parquet table at {path}; got: {error}; remove the file and run the "
            "same command again"
        ) from error
    names = [f.name for f in fields(kind)]
    if not set(names) <= set(table.column_names):
        raise RunError(
            f"expected the columns {', '.join(names)} in {path}; got "
            f"{', '.join(table.column_names)}; is it a table of another record?"
        )
    rows = table.select(names).to_pylist()
    return [kind(**{name: _loaded(name, row[name]) for name in names}) for row in rows]


def table_metadata(path: Path) -> dict[str, str]:
    """The text metadata of a Parquet file, empty where the file is absent or damaged."""
    try:
        raw = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError):
        return {}
    return {key.decode(): value.decode() for key, value in raw.items() if key != b"ARROW:schema"}


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
