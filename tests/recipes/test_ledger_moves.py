"""A run that is killed or stopped, taken elsewhere, and continued there: nothing is asked twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.servers import Running, answer_to, running
from tests.recipes.command_line import Done, answers, environment, metrics, symdistill, words, write

from symdistill.ledger import Ledger

pytestmark = pytest.mark.world

ROWS = 60
AT_ONCE = 8
COMMITTED_S = 0.15  # a reply of so long ago is on disk, also where the machine is busy


@pytest.fixture
def server() -> Iterator[Running]:
    """So slow that a run can be met in the middle."""
    with running("fixed", latency_ms=200, log=True) as found:
        yield found


class Begun:
    """A run under way in a process group of its own, as a shell starts it."""

    def __init__(self, place: Path) -> None:
        self.process = subprocess.Popen(
            words("run", "ask.yaml"),
            cwd=place,
            env=environment({"PYTHONUNBUFFERED": "1"}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def press_ctrl_c(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> Done:
        out, err = self.process.communicate(timeout=60)
        return Done(self.process.returncode, out, err)


def begin(place: Path, server: Running, asked: int) -> Begun:
    """Begin a run, and come back when so much of it was asked."""
    write(place, server.url, rows=ROWS, teacher={"max_concurrency": AT_ONCE})
    begun = Begun(place)
    while server.stats()["requests"] < asked:
        assert begun.process.poll() is None, begun.end()
        time.sleep(0.02)
    return begun


def kept(run: Path) -> int:
    """How many answers the ledger holds."""
    ledger = Ledger(run / "ledger.sqlite", read_only=True)
    try:
        return int(ledger.totals()["calls"] or 0)
    finally:
        ledger.close()


def assert_whole(run: Path) -> None:
    """Every question has its own answer."""
    prompts = [f"Say it: question {number}" for number in range(ROWS)]
    assert answers(run) == {prompt: [answer_to(prompt)] for prompt in prompts}


def ids(run: Path) -> list[str]:
    """Of some answers."""
    examples: list[dict[str, str]] = metrics(run)["examples"]["kept"]
    return [one["id"] for one in examples]


def test_half_a_run_moves(tmp_path: Path, server: Running) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    begun = begin(here, server, asked=30)
    killed_at = time.monotonic()
    begun.process.kill()
    begun.end()
    run = here / "runs" / "ask"
    assert (run / "ledger.sqlite-wal").stat().st_size  # the answers are in it
    done = symdistill(here, "fold", "runs/ask")
    assert done.code == 0 and "can be moved" in done.said
    have = kept(run)
    assert 10 <= have < ROWS

    target = there / "runs" / "ask"
    target.mkdir(parents=True)
    for name in ("ledger.sqlite", "config.yaml"):
        shutil.copy(run / name, target)
    shutil.copytree(run / "steps", target / "steps")
    shutil.copy(here / "q.jsonl", there)
    shutil.rmtree(here)
    done = symdistill(there, "run", "runs/ask/config.yaml", "--name", "ask")
    assert done.code == 0, done.said
    assert_whole(target)
    log = server.log()
    committed = {key for at, what, key in log if what == "whole" and at < killed_at - COMMITTED_S}
    again = {key for at, what, key in log if what == "asked" and at > killed_at}
    assert len(committed) <= have and not committed & again
    assert metrics(target)["bill"]["requests"] == ROWS

    found = symdistill(there, "show", ids(target)[0], "--run", "runs/ask")
    assert found.code == 0 and "Say it: question" in found.said and "openai:local" in found.said


def test_a_finished_run_is_read_without_its_server(tmp_path: Path) -> None:
    with running("fixed") as server:
        write(tmp_path, server.url)
        assert symdistill(tmp_path, "run", "ask.yaml").code == 0
    assert symdistill(tmp_path, "run", "ask.yaml").code == 0
    run = tmp_path / "runs" / "ask"
    (elsewhere := tmp_path / "elsewhere").mkdir()
    shutil.move(run, elsewhere / "r")
    for id_ in ids(elsewhere / "r"):
        assert symdistill(elsewhere, "show", id_, "--run", "r").code == 0
    assert symdistill(elsewhere, "report", "r").code == 0
    refused = symdistill(elsewhere, "fold", "absent")
    assert refused.code == 2 and "check the path" in refused.err


def test_ctrl_c_once_keeps_what_is_in_flight(tmp_path: Path, server: Running) -> None:
    begun = begin(tmp_path, server, asked=20)
    begun.press_ctrl_c()
    done = begun.end()
    assert done.code == 130
    assert "stopping: nothing more is sent; waiting for" in done.said
    assert done.err == (
        "symdistill: stopped; what is done is kept: the same command goes on from here\n"
    )
    stats = server.stats()
    assert stats["requests"] == stats["whole"] < ROWS
    assert kept(tmp_path / "runs" / "ask") == stats["whole"]
    assert symdistill(tmp_path, "run", "ask.yaml").code == 0
    stats = server.stats()
    assert stats["requests"] == ROWS and stats["duplicates"] == 0
    assert_whole(tmp_path / "runs" / "ask")


def test_ctrl_c_twice_stops_at_once(tmp_path: Path) -> None:
    with running("fixed", latency_ms=20_000) as server:
        begun = begin(tmp_path, server, asked=4)
        start = time.monotonic()
        begun.press_ctrl_c()
        time.sleep(0.5)
        assert begun.process.poll() is None
        begun.press_ctrl_c()
        done = begun.end()
        assert time.monotonic() - start < 5
    assert done.code == 130 and "Traceback" not in done.err
    assert done.err.startswith("symdistill: stopped; what is done is kept")
