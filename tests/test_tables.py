"""Parquet tables: what is written comes back, byte for byte the same each time."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symdistill import tables
from symdistill.errors import RunError
from symdistill.records import Failure, Item, Knowledge, Lineage, Verdict, View
from symdistill.tables import iter_records, read_records, table_metadata, write_records

pytestmark = pytest.mark.unit

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
lineages = st.builds(
    Lineage,
    teacher=text,
    request_key=text,
    prompt_id=text,
    decoding=text,
    seed=st.integers(0, 2**62),
    round=st.integers(0, 9),
    parents=st.lists(text, max_size=2).map(tuple),
)
lines = st.builds(
    Knowledge,
    id=text,
    item_id=text,
    form=st.just("statement"),
    text=text,
    fields=st.dictionaries(text, json_values, max_size=3),
    lineage=st.lists(lineages, max_size=2).map(tuple),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(lines, max_size=4))
def test_knowledge_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Knowledge]
) -> None:
    path = tmp_path_factory.mktemp("tables") / "knowledge.parquet"
    write_records(path, Knowledge, rows, {"fingerprint": "f"})
    assert read_records(path, Knowledge) == rows
    first = path.read_bytes()
    write_records(path, Knowledge, rows, {"fingerprint": "f"})
    assert path.read_bytes() == first
    assert table_metadata(path) == {"fingerprint": "f"}


@pytest.mark.parametrize(
    "record",
    [
        Item.make("concept", "dog", fields={"plural": "dogs"}, split="train"),
        Verdict("k", "critic@1", None, status="unknown", reason="no answer"),
        View("Dogs can", " bark.", 0.5, "dog", ("a", "b"), 2),
        Failure.make("dog", 3, "key", kind="refused", reason="a filter", attempts=1),
    ],
)
def test_the_other_records_come_back_too(
    tmp_path: Path, record: Item | Verdict | View | Failure
) -> None:
    path = tmp_path / "one.parquet"
    write_records(path, type(record), [record])
    assert read_records(path, type(record)) == [record]


@pytest.mark.parametrize("rows", [0, 1, 6, 7, 8, 14, 30])
@pytest.mark.parametrize("metadata", [None, {"fingerprint": "f"}])
def test_a_stream_has_the_bytes_of_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, metadata: dict[str, str] | None
) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP_ROWS", 7)
    monkeypatch.setattr(tables, "BATCH_ROWS", 3)
    path, whole = tmp_path / "streamed.parquet", tmp_path / "whole.parquet"
    verdicts = [Verdict(str(n), "judge", n / 100, reason="so " * n) for n in range(rows)]
    assert write_records(path, Verdict, iter(verdicts), metadata) == rows
    table = pa.Table.from_pylist([asdict(one) for one in verdicts], tables.SCHEMAS[Verdict])
    if metadata:
        table = table.replace_schema_metadata(metadata)
    pq.write_table(table, whole, row_group_size=7, compression="zstd")
    assert path.read_bytes() == whole.read_bytes()
    assert list(iter_records(path, Verdict)) == verdicts


def test_duckdb_reads_the_tables_as_they_are(tmp_path: Path) -> None:
    import duckdb

    path = tmp_path / "verdicts.parquet"
    write_records(path, Verdict, [Verdict("a", "critic", 0.9), Verdict("b", "critic", 0.1)])
    found = duckdb.sql(f"SELECT knowledge_id FROM '{path}' WHERE score > 0.5").fetchall()
    assert found == [("a",)]


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"not a table at all"])
def test_a_damaged_table_is_named(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "items.parquet"
    path.write_bytes(damage)
    with pytest.raises(RunError, match=r"items\.parquet"):
        read_records(path, Item)
    assert table_metadata(path) == {}


def test_a_table_of_another_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "views.parquet"
    write_records(path, View, [])
    with pytest.raises(RunError, match="columns"):
        read_records(path, Item)
