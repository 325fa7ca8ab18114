"""A server that fails in every way that servers do: each answer comes, once, to its own prompt."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.servers import FAULTS, FAULTS_WITHOUT_WORK, answer_to, running
from tests.recipes.command_line import answers, metrics, symdistill, write

from symdistill.models import Model

ROWS = 60
PRICE = {"input": 1.0, "output": 2.0}
BILLED_USD = (4 * PRICE["input"] + 8 * PRICE["output"]) / 1e6
"""What `fixed` bills for a prompt of four words and its answer."""


def check(place: Path, rates: dict[str, float], **teacher: Any) -> None:
    """Ask all questions through the faults, and look at what came of it."""
    with running("faults", rates=rates, slow_s=0.3, latency_ms=10) as server:
        more = {"timeout": 1, "price": PRICE, "max_attempts": 30, **teacher}
        write(place, server.url, rows=ROWS, teacher=more)
        done = symdistill(place, "run", "ask.yaml")
        stats = server.stats()
    assert done.code == 0, done.said
    assert len(stats["faults"]) >= min(len(rates), 12)
    run = place / "runs" / "ask"
    prompts = [f"Say it: question {number}" for number in range(ROWS)]
    assert answers(run) == {prompt: [answer_to(prompt)] for prompt in prompts}
    assert stats["needless"] == 0
    worked = stats["requests"] - sum(stats["faults"].get(one, 0) for one in FAULTS_WITHOUT_WORK)
    found = metrics(run)
    assert found["failed"] == 0 and found["bill"]["cost_usd"] >= worked * BILLED_USD - 1e-12


@pytest.mark.world
@pytest.mark.parametrize("fault", FAULTS)
def test_each_alone(tmp_path: Path, fault: str) -> None:
    # What is refused for want of room slows the client down, so there is less of it; what is said
    # twice or late needs connections that are used again.
    rate = 0.1 if fault in ("throttled", "throttled_wait", "busy_503") else 0.3
    connections = {"max_concurrency": 4} if fault in ("twice", "stale", "late") else {}
    check(tmp_path, {fault: rate}, **connections)


@pytest.mark.world
def test_all_at_once(tmp_path: Path) -> None:
    check(tmp_path, {fault: 0.3 / len(FAULTS) for fault in FAULTS}, max_concurrency=8)


# -- in front of a real server -------------------------------------------------------------------


@pytest.fixture(scope="module")
def llamacpp(smollm2: Model) -> Iterator[str]:
    """The address of a llama.cpp server with the embedded model."""
    pytest.importorskip("xllamacpp")
    from symdistill.teachers.llamacpp import LlamaCppBackend

    backend = LlamaCppBackend(slots=4, context_tokens=256)
    address: str = asyncio.run(backend._start_server())
    yield f"{address}/v1"
    asyncio.run(backend.close())


REAL = ("error_500", "reset_middle", "cut_json", "cut_body", "twice", "late", "slow_headers")
REAL += ("usage_missing", "usage_zero", "utf8_cut", "gzip_garbage")


@pytest.mark.real
def test_a_real_server_behind_the_faults(tmp_path: Path, llamacpp: str) -> None:
    rates = {fault: 0.4 / len(REAL) for fault in REAL}
    with running("faults", upstream=llamacpp, rates=rates, slow_s=0.3, seed=4) as server:
        teacher = {"model": "openai:smollm2", "server": "llamacpp", "max_attempts": 30}
        more = {"timeout": 60, "price": PRICE, "max_concurrency": 4}
        decoding = {"max_new_tokens": 12, "extra": {"seed": 5}}
        write(tmp_path, server.url, rows=12, teacher=teacher | more, decoding=decoding, samples=2)
        done = symdistill(tmp_path, "run", "ask.yaml")
        stats = server.stats()
    assert done.code == 0, done.said
    assert sum(stats["faults"].values()) >= 5
    found = metrics(tmp_path / "runs" / "ask")
    assert (found["answers"], found["failed"]) == (24, 0)
    assert stats["whole_duplicates"] - 12 == 0  # two samples of each prompt, none twice
    assert found["bill"]["cost_usd"] >= stats["requests"] * BILLED_USD / 2
    assert all(answers(tmp_path / "runs" / "ask").values())
