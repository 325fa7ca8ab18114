"""The recorded teacher: answers from tables of earlier outputs."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from symdistill.errors import InputError
from symdistill.ledger import Ledger
from symdistill.teachers import asking
from symdistill.teachers.base import Answer, Ask, Decoding, NoAnswer, Prompt
from symdistill.teachers.recorded import RecordedBackend

pytestmark = pytest.mark.unit

ROWS = [
    {"prompt": "Is water wet?", "answer": "Yes."},
    {"prompt": "Name a tree.", "answer": "Oak"},
    {"prompt": "Is water wet?", "answer": "It makes\nthings wet, é 犬."},
    {"prompt": "Is water wet?", "answer": "Yes."},
]
WET = [row["answer"] for row in ROWS if row["prompt"] == "Is water wet?"]
SYSTEM = {"role": "system", "content": "Be brief."}
ASKED = {"role": "user", "content": "Is water wet?"}
SAID = {"role": "assistant", "content": "Yes."}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def ask(backend: RecordedBackend, prompt: Prompt, samples: int = 10, first: int = 0) -> list[str]:
    async def main() -> list[str]:
        await backend.start()
        try:
            got = await backend.send(prompt, samples, Decoding(), first_sample=first)
        finally:
            await backend.close()
        return [reply.text for reply in got.replies]

    return asyncio.run(main())


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_rows_of_a_prompt_are_its_samples_in_order(tmp_path: Path, kind: str) -> None:
    backend = RecordedBackend(write(tmp_path / f"t.{kind}", ROWS))
    assert ask(backend, "Is water wet?") == WET
    assert ask(backend, "Is water wet?", samples=2) == WET[:2]
    assert ask(backend, "Is water wet?", samples=2, first=2) == WET[2:]
    assert ask(backend, "Name a tree.") == ["Oak"]
    assert backend.notes == []
    assert backend.price is not None and backend.price.cost_usd(10**6, 10**6) == 0


@pytest.mark.parametrize(("prompt", "first"), [("Is water dry?", 0), ("Name a tree.", 1)])
def test_what_is_not_in_the_table_has_no_answer(tmp_path: Path, prompt: str, first: int) -> None:
    with pytest.raises(NoAnswer) as error:
        ask(RecordedBackend(write(tmp_path / "t.jsonl", ROWS)), prompt, first=first)
    assert error.value.kind == "not_recorded"


def test_a_chat_of_one_user_message_is_its_text(tmp_path: Path) -> None:
    backend = RecordedBackend(write(tmp_path / "t.csv", ROWS))
    assert ask(backend, (ASKED,), samples=1) == ["Yes."]
    with pytest.raises(NoAnswer):
        ask(backend, (SYSTEM, ASKED))


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_chats_as_lists(tmp_path: Path, kind: str) -> None:
    rows = [{"asked": [SYSTEM, ASKED], "said": [SAID]}]
    backend = RecordedBackend(write(tmp_path / f"t.{kind}", rows), prompt="asked", answer="said")
    assert ask(backend, (SYSTEM, ASKED)) == ["Yes."]


def test_chats_as_json_text(tmp_path: Path) -> None:
    rows = [{"prompt": json.dumps([SYSTEM, ASKED]), "answer": "Yes."}]
    assert ask(RecordedBackend(write(tmp_path / "t.csv", rows)), (SYSTEM, ASKED)) == ["Yes."]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_one_column_of_whole_chats(tmp_path: Path, kind: str) -> None:
    table = write(tmp_path / f"t.{kind}", [{"messages": [SYSTEM, ASKED, SAID]}])
    backend = RecordedBackend(table, prompt="messages", answer="messages")
    assert ask(backend, (SYSTEM, ASKED)) == ["Yes."]


def test_a_list_of_answers_is_several_samples(tmp_path: Path) -> None:
    backend = RecordedBackend(write(tmp_path / "t.jsonl", [{"prompt": "p", "answer": ["a", "b"]}]))
    assert ask(backend, "p") == ["a", "b"]


def test_texts_that_look_like_json_stay_texts(tmp_path: Path) -> None:
    rows = [{"prompt": "[1, 2", "answer": "[]"}, {"prompt": "[3]", "answer": '[{"a": 1}]'}]
    backend = RecordedBackend(write(tmp_path / "t.jsonl", rows))
    assert ask(backend, "[1, 2") == ["[]"]
    assert ask(backend, "[3]") == ['[{"a": 1}]']


def test_bad_rows_are_counted_and_said(tmp_path: Path) -> None:
    good = json.dumps(ROWS[1]).encode()
    bad = [
        b"no json",
        b'{"prompt": "p"}',
        b'{"prompt": "p", "answer": ""}',
        b'{"prompt": null, "answer": "a"}',
        b'{"prompt": "p", "answer": 3}',
        b'{"prompt": "p", "answer": "\\ud800"}',
        b'{"prompt": "\xff", "answer": "a"}',
        b"[1]",
    ]
    table = tmp_path / "t.jsonl"
    table.write_bytes(b"\n".join([*bad, b"", good]))
    backend = RecordedBackend(table)
    assert ask(backend, "Name a tree.") == ["Oak"]
    assert backend.notes == [f"{table}: 8 of 9 rows are left out (row 1: no prompt)"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.txt", b"", "expected a table"),
        ("t.jsonl", b"", "got none among 0"),
        ("t.jsonl", b'{"question": "a"}\n', "row 1: no prompt"),
        ("t.csv", b"question,answer\na,b\n", "got question, answer"),
        ("t.csv", b"prompt,answer\n\xff,b\n", "mend or replace"),
        ("t.parquet", b"PAR1", "mend or replace"),
    ],
)
def test_a_table_without_answers_is_refused(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    table = tmp_path / name
    table.write_bytes(content)
    with pytest.raises(InputError, match=said):
        ask(RecordedBackend(table), "p")


def test_a_table_without_the_column_is_refused(tmp_path: Path) -> None:
    backend = RecordedBackend(write(tmp_path / "t.parquet", ROWS), prompt="question")
    with pytest.raises(InputError, match="columns question and answer"):
        ask(backend, "p")


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        RecordedBackend(tmp_path / "t.csv")


def test_the_same_table_elsewhere_is_the_same_teacher(tmp_path: Path) -> None:
    one = RecordedBackend(write(tmp_path / "a.csv", ROWS))
    other = RecordedBackend(write(tmp_path / "b.csv", ROWS))
    changed = RecordedBackend(write(tmp_path / "c.csv", ROWS[:2]))
    columns = RecordedBackend(tmp_path / "a.csv", answer="prompt")
    assert one.identity == other.identity
    assert len({str(b.identity) for b in (one, changed, columns)}) == 3


def test_fewer_samples_than_asked_for(tmp_path: Path) -> None:
    asks = [Ask("Name a tree.", samples=3), Ask("Is water wet?", samples=3)]
    backend = RecordedBackend(write(tmp_path / "t.csv", ROWS))
    with contextlib.closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        got = list(asking.ask(backend, asks, decoding=Decoding(), ledger=ledger))
    said = [one.text if isinstance(one, Answer) else one.kind for one in got]
    assert said == ["Oak", "not_recorded", "not_recorded", *WET]


def test_closing_twice_and_opening_again(tmp_path: Path) -> None:
    backend = RecordedBackend(write(tmp_path / "t.csv", ROWS))
    asyncio.run(backend.close())
    assert ask(backend, "Name a tree.") == ask(backend, "Name a tree.") == ["Oak"]


def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    table = tmp_path / "t.jsonl"
    with table.open("w") as lines:
        for i in range(20_000):
            lines.write(json.dumps({"prompt": f"p{i}", "answer": f"{i} " + "x" * 1000}) + "\n")
    backend = RecordedBackend(table)
    tracemalloc.start()
    assert ask(backend, "p19999")[0].startswith("19999 ")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20
