"""The ledger: what was answered stays answered, whatever happens to the process."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symdistill.errors import RunError
from symdistill.ledger import Call, Ledger, request_key

pytestmark = pytest.mark.unit


def call(key: str, text: str = "x", cost_usd: float | None = None) -> Call:
    return Call(key, "teacher", "m", {"prompt": key}, {"text": text}, 3, 5, 0.25, cost_usd)


def test_an_answer_is_found_again_after_reopening(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.record([call("a", "one"), call("b", "two")])
    ledger.close()
    again = Ledger(tmp_path / "ledger.sqlite")
    assert again.lookup(["a", "c", "b"]) == {"a": {"text": "one"}, "b": {"text": "two"}}
    found = again.call("a")
    assert found is not None and found["request"] == {"prompt": "a"}
    assert again.call("c") is None


def test_the_first_answer_to_a_request_stays(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.record([call("a", "first")])
    ledger.record([call("a", "second")])
    assert ledger.lookup(["a"]) == {"a": {"text": "first"}}


def test_an_unknown_price_is_unknown_and_not_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.record([call("a", cost_usd=0.5)])
    assert ledger.totals()["cost_usd"] == 0.5
    ledger.record([call("b", cost_usd=None)])
    assert ledger.totals() == {
        "calls": 2, "tokens_in": 6, "tokens_out": 10, "wall_s": 0.5, "cost_usd": None,
    }  # fmt: skip


def test_a_batch_that_cannot_be_stored_leaves_nothing_behind(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    bad = Call("b", "teacher", None, {}, {}, 0, 0, 0.0)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="run the same command again"):
        ledger.record([call("a"), bad])
    assert ledger.lookup(["a", "b"]) == {}


def test_a_full_disk_is_told_and_keeps_what_was_recorded(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.record([call("a")])
    (pages,) = ledger._db.execute("PRAGMA page_count").fetchone()
    ledger._db.execute(f"PRAGMA max_page_count={pages}")  # SQLite's own way to be full
    with pytest.raises(RunError, match=r"disk is full.*run the same command again"):
        ledger.record([call(f"k{i}", "y" * 4000) for i in range(50)])
    assert ledger.lookup(["a", "k0"]) == {"a": {"text": "x"}}


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"this is no database, and it is long enough to be looked at" * 50)
    with pytest.raises(RunError, match="ledger"):
        Ledger(path)


def test_after_kill_9_every_batch_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    program = (
        "import sys; from pathlib import Path; from symdistill.ledger import Call, Ledger\n"
        f"ledger = Ledger(Path({str(path)!r}))\n"
        "for b in range(10**6):\n"
        "    calls = [Call(f'{b}-{i}', 't', 'm', {}, {'b': b}, 1, 1, 0.0) for i in range(20)]\n"
        "    ledger.record(calls)\n"
        "    print(b, flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    told = [int(child.stdout.readline()) for _ in range(5)]
    time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    rows = sqlite3.connect(path).execute("SELECT key FROM calls").fetchall()
    batches: dict[int, int] = {}
    for (key,) in rows:
        batches[int(key.split("-")[0])] = batches.get(int(key.split("-")[0]), 0) + 1
    assert set(told) <= set(batches), "a batch that was acknowledged is missing"
    assert set(batches.values()) == {20}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 20), max_size=6), max_size=6))
def test_any_batches_any_repeats(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]]
) -> None:
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "l.sqlite")
    first: dict[str, dict[str, str]] = {}
    for b, batch in enumerate(batches):
        for i in batch:
            first.setdefault(str(i), {"text": str(b)})
        ledger.record(call(str(i), str(b)) for i in batch)
    assert ledger.lookup([str(i) for i in range(21)]) == first


def test_keys_follow_the_request_and_nothing_else() -> None:
    one = request_key({"prompt": "Dogs", "seed": 1})
    assert one == request_key({"seed": 1, "prompt": "Dogs"})
    assert one != request_key({"prompt": "Dogs", "seed": 2})


def test_seconds_add_up_per_stage_for_the_steps_asked_about(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    for mark, wall_s in (("f1", 1.0), ("f1", 2.0), ("f2", 4.0), ("old", 100.0)):
        ledger.record_stage(
            step="s", fingerprint=mark, round=0, stage="write", wall_s=wall_s, tokens=10,
            peak_rss_mb=wall_s,
        )  # fmt: skip
    assert ledger.stages(["f1", "f2"]) == [
        {"round": 0, "stage": "write", "wall_s": 7.0, "tokens": 30, "peak_rss_mb": 4.0}
    ]
