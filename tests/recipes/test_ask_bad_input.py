"""What a user can get wrong, or a server: one sentence with what to do, and the right exit code."""

from __future__ import annotations

import fcntl
import json
import random
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.servers import Running, running
from tests.recipes.command_line import (
    Done,
    answers,
    chat,
    failures,
    metrics,
    saying,
    symdistill,
    write,
)

from symdistill.models import Model

pytestmark = pytest.mark.world

KEY = "sk-test-0123456789abcdefghij"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """A sound server."""
    with running("fixed") as found:
        yield found


def refused(done: Done, code: int, *parts: str) -> None:
    """The command ended with one line that says all of this."""
    assert done.code == code, done.said
    assert done.err.startswith("symdistill: ") and done.err.count("\n") == 1, done.err
    for part in parts:
        assert part in done.err


def closed_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


# -- the address and the key ---------------------------------------------------------------------


def test_nothing_listens_there(tmp_path: Path) -> None:
    write(tmp_path, url := f"http://127.0.0.1:{closed_port()}/v1")
    told = (f"expected a server at {url}", "cannot be reached", "start it, or check base_url")
    refused(symdistill(tmp_path, "run", "ask.yaml"), 2, *told)


@pytest.mark.parametrize(
    ("url", "told"),
    [("localhost:8000/v1", "write the scheme"), ("http://me:secret@127.0.0.1/v1", "`key: env:")],
)
def test_no_base_url(tmp_path: Path, url: str, told: str) -> None:
    write(tmp_path, url)
    done = symdistill(tmp_path, "run", "ask.yaml")
    refused(done, 2, "expected base_url", told)
    assert "secret" not in done.said


def test_tls_to_a_server_without(tmp_path: Path) -> None:
    with saying(lambda body, headers: chat("yes")) as odd:
        write(tmp_path, odd.url.replace("http:", "https:"))
        told = ("expected a trusted TLS connection", "write http:// in base_url")
        refused(symdistill(tmp_path, "run", "ask.yaml"), 2, *told)


@pytest.mark.parametrize("listed", [True, False])
def test_the_key_is_refused(tmp_path: Path, listed: bool) -> None:
    def say(body: Any, headers: Any) -> tuple[int, Any]:
        key = headers["Authorization"].removeprefix("Bearer ")
        said = {"message": f"Incorrect API key provided: {key}", "code": "invalid_api_key"}
        return 401, {"error": said}

    models = {} if listed else {"models": say({}, {"Authorization": ""})}
    with saying(say, **models) as odd:
        write(tmp_path, odd.url, teacher={"key": "env:MY_KEY"})
        done = symdistill(tmp_path, "run", "ask.yaml", MY_KEY=KEY)
        refused(done, 2, "the one from env:MY_KEY was refused", "Incorrect API key", "check the")
        assert KEY not in done.said


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("env:NOT_THERE", "environment variable NOT_THERE; it is not set"),
        ("file:not.there", "file not.there; got: No such file"),
        ("file:empty", "it is empty"),
        (KEY, "not shown, as it may be the key itself"),
        (f"env:{KEY}", "not shown"),
    ],
)
def test_no_key(tmp_path: Path, server: Running, key: str, told: str) -> None:
    (tmp_path / "empty").write_text("\n")
    write(tmp_path, server.url, teacher={"key": key})
    done = symdistill(tmp_path, "run", "ask.yaml")
    refused(done, 2, told)
    assert KEY not in done.said


# -- the teacher and what it is told -------------------------------------------------------------


@pytest.mark.parametrize(
    ("teacher", "told"),
    [
        ({"model": "openai:gpt-4o-minni"}, "nearest of its 2: gpt-4o-mini"),
        ({"model": "opanai:local"}, "did you mean 'openai:local'?"),
        ({"model": "gpt-4o-mini"}, "did you mean 'openai:gpt-4o-mini'?"),
        ({"model": "llamacpp:embedded:smolm2"}, "among smollm2"),
        ({"model": "recorded:absent.parquet"}, "absent.parquet; got: No such file"),
        ({"model": "scripted:mine"}, "expected scripted:echo"),
        ({"modle": "openai:local"}, "the nearest key is 'model'"),
    ],
)
def test_no_such_teacher(
    tmp_path: Path, server: Running, teacher: dict[str, Any], told: str
) -> None:
    write(tmp_path, server.url, teacher=teacher)
    refused(symdistill(tmp_path, "run", "ask.yaml"), 2, told)


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ({"presence_penality": 1}, "the nearest is 'presence_penalty'"),
        ({"temperature": 1}, "set decoding.temperature"),
    ],
)
def test_a_field_that_the_server_does_not_take(
    tmp_path: Path, server: Running, extra: dict[str, Any], told: str
) -> None:
    write(tmp_path, server.url, decoding={"extra": extra})
    refused(symdistill(tmp_path, "run", "ask.yaml"), 2, "expected decoding.extra", told)


@pytest.mark.parametrize(
    ("decoding", "told"),
    [
        ({"output": {"choices": ["yes", "no"]}}, "wrote 'free words'; this server does not offer"),
        ({"output": {"json_schema": {"type": "object"}}}, "this server does not offer it"),
        ({"top_logprobs": 2}, "does not offer log-probabilities"),
    ],
)
def test_a_form_that_the_server_does_not_offer(
    tmp_path: Path, decoding: dict[str, Any], told: str
) -> None:
    with saying(lambda body, headers: chat("free words")) as odd:
        write(tmp_path, odd.url, decoding=decoding)
        refused(symdistill(tmp_path, "run", "ask.yaml"), 2, told)
        assert len(odd.posts) == 1


@pytest.mark.parametrize("limit", ["requests", "tokens", "usd", "wall"])
def test_a_budget_of_nothing(tmp_path: Path, server: Running, limit: str) -> None:
    price = {"price": {"input": 1, "output": 1}}
    write(tmp_path, server.url, teacher=price, budget={limit: 0})
    told = (f"the budget is reached ({limit}: 0", "run the same command to go on")
    refused(symdistill(tmp_path, "run", "ask.yaml"), 3, *told)


def test_a_budget_in_usd_without_a_price(tmp_path: Path, server: Running) -> None:
    write(tmp_path, server.url, budget={"usd": 1})
    refused(symdistill(tmp_path, "run", "ask.yaml"), 2, "state its price", "allow_unknown_price")


# -- what a server says --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "kind", "told"),
    [
        ((200, {"answer": "yes"}), "bad_reply", "got an object with answer"),
        ((200, b"<html>Welcome"), "gave_up", "it begins with '<html>Welcome'"),
        (chat(""), "empty", "ended without a word"),
        (chat(None), "empty", "ended without a word"),
        ((400, {"error": {"message": "no", "code": "content_filter"}}), "refused", "400: no"),
        ((400, {"error": {"message": "strange"}}), "bad_request", "400: strange"),
        ((500, {"error": {"message": "boom"}}), "gave_up", "2 attempts failed; the last:"),
        (
            (400, {"error": {"message": "long", "code": "context_length_exceeded"}}),
            "context_overflow",
            "400: long",
        ),
    ],
)
def test_an_item_keeps_why_it_has_no_answer(
    tmp_path: Path, reply: tuple[int, Any], kind: str, told: str
) -> None:
    def say(body: dict[str, Any], headers: Any) -> tuple[int, Any]:
        return reply if "question 1" in json.dumps(body) else chat("yes")

    with saying(say) as odd:
        write(tmp_path, odd.url, teacher={"max_attempts": 2})
        done = symdistill(tmp_path, "run", "ask.yaml")
    assert done.code == 0 and f"Failed: {kind}" in done.out and "--retry-failed" in done.out
    run = tmp_path / "runs" / "ask"
    (failure,) = failures(run)
    assert failure.kind == kind and told in failure.reason
    assert [len(some) for some in answers(run).values()].count(1) == 2
    shown = symdistill(tmp_path, "show", failure.id, "--run", "runs/ask")
    assert shown.code == 0 and told in shown.said and "question 1" in shown.said


@pytest.mark.parametrize(
    ("reply", "code", "told"),
    [
        ((402, {"error": {"message": "insufficient_quota"}}), 1, "add credit there"),
        ((404, {"error": {"message": "no such model"}}), 2, "check the model's name"),
        ((302, b""), 2, "a redirect"),
        ((503, {"error": {"message": "down"}}), 1, "run the same command again when the server"),
    ],
)
def test_no_request_can_succeed(
    tmp_path: Path, reply: tuple[int, Any], code: int, told: str
) -> None:
    with saying(lambda body, headers: reply, models=(404, {})) as odd:
        write(tmp_path, odd.url, teacher={"outage": 1})
        done = symdistill(tmp_path, "run", "ask.yaml")
        refused(done, code, told)
        assert "has no list of models: the name was not checked" in done.said


def test_a_list_of_models_that_is_a_page(tmp_path: Path) -> None:
    with saying(lambda body, headers: chat("yes"), models=(200, b"<html>")) as odd:
        write(tmp_path, odd.url)
        refused(symdistill(tmp_path, "run", "ask.yaml"), 2, "got '<html>'; check base_url")


def test_n_is_ignored(tmp_path: Path) -> None:
    with saying(lambda body, headers: chat("yes")) as odd:
        write(tmp_path, odd.url, samples=3)
        done = symdistill(tmp_path, "run", "ask.yaml")
        assert done.code == 0 and done.said.count("each sample is a request of its own") == 1
        found = metrics(tmp_path / "runs" / "ask")
        assert (found["answers"], found["failed"], len(odd.posts)) == (9, 0, 9)


@pytest.mark.real
def test_a_prompt_longer_than_the_context(tmp_path: Path, smollm2: Model) -> None:
    pytest.importorskip("xllamacpp")
    served = {"model": "llamacpp:embedded:smollm2", "llamacpp": {"context_tokens": 64, "slots": 2}}
    long = "Say it: {text}" + " and again" * 400
    write(tmp_path, teacher=served, questions={"prompt": long}, rows=2)
    done = symdistill(tmp_path, "run", "ask.yaml")
    assert done.code == 1 and "every sample failed (context_overflow: " in done.said
    found = failures(tmp_path / "runs" / "ask")
    assert [one.kind for one in found] == ["context_overflow"] * 2


# -- the ledger ----------------------------------------------------------------------------------

Damage = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: random.Random(1).randbytes(len(raw)),
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:100],
        lambda raw: b"hello",
        lambda raw: raw[:8192] + random.Random(1).randbytes(len(raw) - 8192),
    ],
    ids=["random", "half", "head", "text", "body"],
)
def test_a_damaged_ledger(tmp_path: Path, server: Running, damage: Damage) -> None:
    write(tmp_path, server.url)
    assert symdistill(tmp_path, "run", "ask.yaml").code == 0
    ledger = tmp_path / "runs" / "ask" / "ledger.sqlite"
    ledger.write_bytes(damage(ledger.read_bytes()))
    shutil.rmtree(tmp_path / "runs" / "ask" / "steps")
    told = ("expected a whole ledger at runs/ask/ledger.sqlite", "put back a copy, or move it away")
    refused(symdistill(tmp_path, "run", "ask.yaml"), 1, *told)
    ledger.unlink()  # as the sentence says
    assert symdistill(tmp_path, "run", "ask.yaml").code == 0


def test_a_run_that_another_process_works_in(tmp_path: Path, server: Running) -> None:
    write(tmp_path, server.url)
    assert symdistill(tmp_path, "run", "ask.yaml").code == 0
    with (tmp_path / "runs" / "ask" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        told = ("another process is working in runs/ask", "wait until it ends")
        refused(symdistill(tmp_path, "run", "ask.yaml"), 1, *told)
