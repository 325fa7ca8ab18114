"""A key is in no file that a run leaves and in nothing that it says, whatever happens to it."""

from __future__ import annotations

import base64
import json
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest
from tests.recipes.command_line import (
    Done,
    Odd,
    answers,
    chat,
    environment,
    failures,
    saying,
    symdistill,
    words,
    write,
)

pytestmark = pytest.mark.world

KEY = "sk-test-Zq7/9+xKw==MARKED0123"
PLAIN = base64.b64encode(KEY.encode()).decode().rstrip("=")
FORMS = {KEY, PLAIN, PLAIN.replace("+", "-").replace("/", "_"), quote(KEY, safe=""), quote(KEY)}
FORMS |= {KEY.replace("/", "\\/"), KEY[8:], KEY[:-6]}
DEBUG = {"PYTHONASYNCIODEBUG": "1", "PYTHONDEVMODE": "1", "PYTHONWARNINGS": "default"}


def echo(body: dict[str, Any], headers: Mapping[str, str]) -> tuple[int, Any]:
    """Echo the key in each of the ways in which servers do."""
    key = headers["Authorization"].removeprefix("Bearer ")
    number = int(str(body["messages"][-1]["content"]).split()[-1])
    error = {"message": f"no: {key}, {quote(key, safe='')}, {base64.b64encode(key.encode())!r}"}
    return [
        chat(f"Your key is {key}.", model=key, system_fingerprint=f"fp {key}"),
        (200, json.dumps(chat(f"With {key} again.")[1]).replace("/", "\\/").encode()),
        (400, {"error": error}),
        (400, {"error": {**error, "code": "content_filter", "type": key, "param": key}}),
        (500, {"error": error}),
        (500, f"<pre>Authorization: Bearer {key}</pre>".encode()),
        (200, f"<pre>{key}</pre>".encode()),
        (200, {key: 1}),
        (429, {"error": error}),
        (200, chat(None)[1] | {"choices": [{"message": {"refusal": key, "content": ""}}]}),
    ][number % 10]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder to work in; the key lies beside it, what is temporary within it."""
    (tmp_path / "key").write_text(KEY + "\n")
    (tmp_path / "work" / "tmp").mkdir(parents=True)
    return tmp_path / "work"


@pytest.fixture
def server() -> Iterator[Odd]:
    with saying(echo) as odd:
        yield odd


def run(place: Path, *command: str, **env: str) -> Done:
    """A command with the key at hand and everything told that Python can tell."""
    return symdistill(place, *command, MY_KEY=KEY, TMPDIR=str(place / "tmp"), **DEBUG, **env)


def texts(place: Path) -> Iterator[tuple[str, str]]:
    """What every file says: its bytes, and what is compressed or spread over pages in it."""
    for path in sorted(place.rglob("*")):
        if not path.is_file():
            continue
        yield path.name, path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet":
            yield path.name, json.dumps(pq.read_table(path).to_pylist(), default=str)
            yield path.name, str(pq.read_schema(path).metadata)
        if path.suffix == ".sqlite":
            db = sqlite3.connect(path)
            yield path.name, "\n".join(db.iterdump())
            db.close()


def assert_nowhere(place: Path, *done: Done) -> None:
    """No form of the key is in a file below the folder or in what commands said."""
    every = [*texts(place), *(("said", one.out + one.err) for one in done)]
    assert len(every) > 3
    found = {(name, form) for name, text in every for form in FORMS if form in text}
    assert not found


@pytest.mark.parametrize("source", ["env:MY_KEY", "file:../key"])
def test_a_server_that_echoes_it(place: Path, server: Odd, source: str) -> None:
    write(place, server.url, rows=10, teacher={"key": source, "max_attempts": 2, "outage": 3})
    first = run(place, "run", "ask.yaml")
    assert first.code in (0, 1)  # a server that answers nothing but 429 ends the run
    write(place, server.url, rows=8, teacher={"key": source, "max_attempts": 2})
    again = run(place, "run", "ask.yaml", "--name", "other")
    assert again.code == 0
    found = answers(place / "runs" / "other")
    assert found["Say it: question 0"] == ["Your key is [key]."]
    assert found["Say it: question 1"] == ["With [key] again."]
    failed = failures(place / "runs" / "other")
    assert len(failed) == 6
    shown = [run(place, "show", one.id, "--run", "runs/other") for one in failed]
    assert_nowhere(place, first, again, *shown)


@pytest.mark.parametrize("status", [401, 403, 402, 404, 301])
def test_a_run_that_it_ends(place: Path, status: int) -> None:
    def say(body: Any, headers: Mapping[str, str]) -> tuple[int, Any]:
        return status, {"error": {"message": f"no: {headers['Authorization']}"}}

    with saying(say) as odd:
        write(place, odd.url, teacher={"key": "env:MY_KEY"})
        done = run(place, "run", "ask.yaml")
    assert done.code in (1, 2) and "Traceback" not in done.err
    assert_nowhere(place, done)


@pytest.mark.parametrize(
    "teacher",
    [
        {"key": KEY},
        {"key": f"env:{KEY}"},
        {"api_key": KEY},
        {"extra_headers": {"Authorization": f"Bearer {KEY}"}},
        {"extra_headers": {"X-Api-Key": KEY}},
        {"base_url": f"http://me:{quote(KEY, safe='')}@127.0.0.1/v1"},
        {"base_url": f"http://127.0.0.1/v1?key={KEY}"},
    ],
    ids=["key", "env", "api_key", "authorization", "header", "password", "query"],
)
def test_written_where_it_must_not_be(place: Path, server: Odd, teacher: dict[str, Any]) -> None:
    write(place, server.url, teacher=teacher)
    done = run(place, "run", "ask.yaml")
    assert done.code == 2 and not server.posts
    (place / "ask.yaml").unlink()  # where the user wrote it
    assert_nowhere(place, done, done, done, done)


def test_a_run_that_is_killed(place: Path) -> None:
    def slow(body: dict[str, Any], headers: Mapping[str, str]) -> tuple[int, Any]:
        number = int(str(body["messages"][-1]["content"]).split()[-1])
        time.sleep(0.02 if number < 20 else 3)
        return echo({"messages": [{"content": f"{number % 4}"}]}, headers)

    with saying(slow) as odd:
        write(place, odd.url, rows=40, teacher={"key": "env:MY_KEY", "max_concurrency": 8})
        log = (place / "log").open("wb")
        env = {"MY_KEY": KEY, "TMPDIR": str(place / "tmp"), **DEBUG}
        process = subprocess.Popen(
            words("run", "ask.yaml"), cwd=place, env=environment(env), stdout=log, stderr=log
        )
        while len(odd.posts) < 25:
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
        process.wait()
    assert (place / "runs" / "ask" / "ledger.sqlite-wal").stat().st_size
    assert_nowhere(place)
