"""The recipe `ask` as a user runs it: a YAML file, the real command line, a server on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from symdistill.records import Failure, Item, Knowledge
from symdistill.tables import read_records


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Standard output and error on one line."""
        return " ".join(f"{self.out} {self.err}".split())


def words(*command: str) -> list[str]:
    """A command of the real command line."""
    return [sys.executable, "-m", "symdistill", *command]


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """This process's environment and more."""
    return {**os.environ, **more}


def symdistill(place: Path, *command: str, **env: str) -> Done:
    """Run a command in a folder, and wait for its end."""
    done = subprocess.run(
        words(*command),
        cwd=place,
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def write(place: Path, url: str | None = None, *, rows: int = 3, **changes: Any) -> None:
    """Write `ask.yaml` and its questions: `question 0`, `question 1` ... of an openai: teacher.

    Of the groups `teacher`, `decoding` and `questions` single fields can be given.
    """
    texts = [{"text": f"question {number}"} for number in range(rows)]
    (place / "q.jsonl").write_text("".join(f"{json.dumps(text)}\n" for text in texts))
    teacher = {"model": "openai:local", "base_url": url, "max_attempts": 20}
    groups = {
        "questions": {"source": "q.jsonl", "prompt": "Say it: {text}"},
        "teacher": teacher,
        "decoding": {"max_new_tokens": 16},
    }
    settings: dict[str, Any] = {"recipe": "ask"}
    for name in groups.keys() | changes.keys():
        change = changes.get(name)
        settings[name] = groups[name] | (change or {}) if name in groups else change
    (place / "ask.yaml").write_text(json.dumps(settings))  # JSON is YAML


def prompts(run: Path) -> dict[str, str]:
    """What was asked, by the id of the question."""
    items = read_records(run / "tables" / "items.parquet", Item)
    return {item.id: f"Say it: {item.text}" for item in items}


def answers(run: Path) -> dict[str, list[str]]:
    """The distinct answers to each prompt."""
    asked = prompts(run)
    found: dict[str, list[str]] = {prompt: [] for prompt in asked.values()}
    for line in read_records(run / "tables" / "knowledge.parquet", Knowledge):
        found[asked[line.item_id]].append(line.text)
    return found


def failures(run: Path) -> list[Failure]:
    """What was not answered."""
    return read_records(run / "tables" / "failures.parquet", Failure)


def metrics(run: Path) -> dict[str, Any]:
    """The figures of a finished run."""
    found: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return found


@dataclass
class Odd:
    """A server that says whatever a test wants."""

    url: str
    posts: list[dict[str, Any]] = field(default_factory=list)
    """The bodies that were sent to it."""


Say = Callable[[dict[str, Any], Mapping[str, str]], tuple[int, Any]]
"""(body, headers) -> (status, what is said: JSON, or bytes as they are)."""

MODELS = {"object": "list", "data": [{"id": "local"}, {"id": "gpt-4o-mini"}]}


def chat(*texts: str | None, **more: Any) -> tuple[int, dict[str, Any]]:
    """A sound reply."""
    choices = [
        {"index": n, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        for n, text in enumerate(texts)
    ]
    return 200, {"choices": choices, "usage": {"prompt_tokens": 3, "completion_tokens": 2}, **more}


@contextlib.contextmanager
def saying(say: Say, *, models: tuple[int, Any] = (200, MODELS)) -> Iterator[Odd]:
    """Serve on a free port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(*models)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            odd.posts.append(body)
            self._answer(*say(body, self.headers))

        def _answer(self, status: int, said: Any) -> None:
            raw = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *told: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    odd = Odd(f"http://127.0.0.1:{server.server_port}/v1")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield odd
    finally:
        server.shutdown()
        server.server_close()
