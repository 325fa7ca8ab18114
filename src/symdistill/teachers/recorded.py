"""A teacher that has already spoken: answers from a table of earlier outputs.

Takes a .parquet, .jsonl or .csv file with a prompt and an answer in each row; gives the answers
of the rows with the prompt that is asked. So a published corpus of a teacher's outputs is
distilled without the teacher. The rows of one prompt are its samples, in the order of the file.

A cell of the prompt column is a text or a chat (a list of {"role", "content"}, or the JSON text
of one); a chat of a single user message and its text are the same prompt. A cell of the answer
column is a text, a list of texts (several samples), or a chat whose last message is the answer.
Where both columns are the same, it holds whole chats: the last message is the answer to those
before it.

Cost: one pass over the file when it is first needed, into an index on disk (of about the size of
the answers; it goes when the run ends); memory stays flat. Tokens are counted as words between
white space, as the table does not say them, and nothing is billed.

Does not: keep to any `Decoding` (the answers are what they are), or give log-probabilities.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from symdistill.errors import InputError
from symdistill.models import sha256_of
from symdistill.records import canonical_json
from symdistill.teachers.base import Decoding, NoAnswer, Price, Prompt, Replies, Reply
from symdistill.teachers.scripted import words

KINDS = (".parquet", ".jsonl", ".csv")


class RecordedBackend:
    """A backend that reads its answers from a table.

    Args:
        path: the table.
        prompt: the column of the prompts.
        answer: the column of the answers.

    Attributes:
        notes: what to tell the user of the table: how many rows say nothing.

    Raises:
        InputError: the file cannot be read or is of another kind.
    """

    def __init__(self, path: Path, *, prompt: str = "prompt", answer: str = "answer") -> None:
        if path.suffix not in KINDS:
            raise InputError(
                f"expected a table of recorded answers ({', '.join(KINDS)}); got {str(path)!r}; "
                "write it as one of these"
            )
        try:
            digest = sha256_of(path)
        except OSError as error:
            raise InputError(
                f"expected a readable table of recorded answers at {path}; got: "
                f"{error.strerror}; check the path"
            ) from error
        self.name = f"recorded:{path}"
        self.identity: Mapping[str, Any] = {"recorded": digest, "prompt": prompt, "answer": answer}
        self.price: Price | None = Price(input=0, output=0)
        self.samples_per_request = 1000
        self.at_once: int | None = None
        self.notes: list[str] = []
        self._path = path
        self._columns = (prompt, answer)
        self._index: sqlite3.Connection | None = None

    async def start(self) -> None:
        """Read the table into the index.

        Raises:
            InputError: a column is missing, the file is damaged, or no row is usable.
        """
        if self._index is None:
            self._index = await asyncio.to_thread(self._build)

    async def send(
        self, prompt: Prompt, samples: int, decoding: Decoding, *, first_sample: int = 0
    ) -> Replies:
        """The recorded samples from number `first_sample` on.

        Raises:
            NoAnswer: the table holds no answer with such a number.
        """
        assert self._index is not None, "start() comes first"
        found = self._index.execute(
            "SELECT text FROM answers WHERE prompt = ? ORDER BY row LIMIT ? OFFSET ?",
            (_digest(prompt), samples, first_sample),
        ).fetchall()
        if not found:
            raise NoAnswer(
                "not_recorded", f"the table holds no sample number {first_sample} of this prompt"
            )
        replies = [Reply(text, "recorded", words(text)) for (text,) in found]
        return Replies(replies, tokens_in=words(prompt))

    async def check(self, decoding: Decoding) -> None:
        """Any decoding will do: the answers are what they are."""

    async def close(self) -> None:
        """Give the index back."""
        if self._index is not None:
            self._index.close()
            self._index = None

    def tokens_bound(self, prompt: Prompt) -> int:
        """The prompt's words."""
        return words(prompt)

    def _build(self) -> sqlite3.Connection:
        # A database without a name lives in a file of SQLite's own, which goes with it.
        index = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        index.execute("CREATE TABLE answers (row INTEGER PRIMARY KEY, prompt BLOB, text TEXT)")
        index.execute("BEGIN")
        rows = bad = 0
        first_bad = ""
        for where, prompt, answer in _rows(self._path, self._columns):
            rows += 1
            try:
                asked, said = _pair(prompt, answer, whole=self._columns[0] == self._columns[1])
            except ValueError as error:
                bad += 1
                first_bad = first_bad or f"{where}: {error}"
                continue
            digest = _digest(asked)
            index.executemany(
                "INSERT INTO answers (prompt, text) VALUES (?, ?)",
                [(digest, text) for text in said],
            )
        index.execute("CREATE INDEX by_prompt ON answers (prompt, row)")
        index.execute("COMMIT")
        if bad == rows:
            index.close()
            raise InputError(
                f"expected rows with a prompt and an answer in {self._path}; got none among "
                f"{rows}{f' ({first_bad})' if bad else ''}; check the columns' names and contents"
            )
        if bad:
            self.notes.append(f"{self._path}: {bad} of {rows} rows are left out ({first_bad})")
        return index


def _rows(path: Path, columns: tuple[str, str]) -> Iterator[tuple[str, Any, Any]]:
    """(where it is, prompt cell, answer cell) of every row; a cell that is missing is None."""
    read = {".parquet": _parquet_rows, ".jsonl": _json_rows, ".csv": _csv_rows}[path.suffix]
    try:
        for number, row in read(path, columns):
            yield f"row {number}", row.get(columns[0]), row.get(columns[1])
    except (OSError, ValueError, csv.Error) as error:  # of pyarrow: ValueErrors, too
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"expected a whole {path.suffix} table at {path}; got: {str(error).splitlines()[0]}; "
            "mend or replace it"
        ) from error


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as table:
        _expect(path, columns, table.schema_arrow.names)
        batches = table.iter_batches(batch_size=1000, columns=list(dict.fromkeys(columns)))
        yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)


def _json_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            yield number, row if isinstance(row, dict) else {}


def _csv_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with path.open(encoding="utf-8-sig", newline="") as lines:
        table = csv.DictReader(lines)
        _expect(path, columns, table.fieldnames or ())
        yield from enumerate(table, 1)


def _expect(path: Path, columns: Sequence[str], present: Sequence[str]) -> None:
    missing = [column for column in dict.fromkeys(columns) if column not in present]
    if missing:
        raise InputError(
            f"expected the columns {' and '.join(columns)} in {path}; got {', '.join(present)}; "
            "name the ones that hold prompt and answer under `recorded`"
        )


def _pair(prompt: Any, answer: Any, *, whole: bool) -> tuple[Prompt, list[str]]:
    """A row's prompt and answers.

    Raises:
        ValueError: it holds none; says why.
    """
    asked = _chat(prompt) or prompt
    if whole:
        if not isinstance(asked, tuple) or len(asked) < 2:
            raise ValueError("no chat of at least two messages")
        return asked[:-1], [asked[-1]["content"]]
    if not isinstance(asked, (str, tuple)) or not asked:
        raise ValueError("no prompt")
    said = _chat(answer)
    texts = [said[-1]["content"]] if said else answer if isinstance(answer, list) else [answer]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise ValueError("no answer")
    "".join(texts).encode()  # half a character (a lone surrogate) is a ValueError
    return asked, texts


def _chat(cell: Any) -> tuple[dict[str, str], ...] | None:
    """The messages of a cell that holds a chat, as a list or as JSON; None for any other."""
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            cell = json.loads(cell)
        except ValueError:
            return None
    if not isinstance(cell, list) or not cell:
        return None
    chat = []
    for one in cell:
        if not isinstance(one, dict):
            return None
        role, content = one.get("role"), one.get("content")
        if not isinstance(role, str) or not isinstance(content, str):
            return None
        chat.append({"role": role, "content": content})
    return tuple(chat)


def _digest(prompt: Prompt) -> bytes:
    if not isinstance(prompt, str) and len(prompt) == 1 and prompt[0]["role"] == "user":
        prompt = prompt[0]["content"]
    return hashlib.sha256(canonical_json(prompt).encode("utf-8", "replace")).digest()[:16]
