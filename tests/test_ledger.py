"""The ledger: what was answered stays answered, whatever happens to the process."""

from __future__ import annotations

import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from symdistill.errors import RunError
from symdistill.ledger import Call, FailedCall, Ledger, LostCall, pico, request_key
from symdistill.ledger.rows import as_json
from symdistill.records import canonical_json

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
        "calls": 2, "failed": 0, "lost": 0, "requests": 2,
        "tokens_in": 6, "tokens_out": 10, "wall_s": 0.5, "cost_usd": None,
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


# -- what fails and what is lost -------------------------------------------------------------


def failed(key: str, **more: Any) -> FailedCall:
    request = {"prompt": "p", "sample_index": 3}
    return FailedCall(key, "teacher", "m", request, "gave_up", "no reply", 5, **more)


def test_a_failure_keeps_its_reason_and_can_be_forgotten(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    one = failed("a", tokens_in=7, cost_usd=0.25)
    other = FailedCall("b", "judge", "m", {}, "refused", "\ud800 no", 1)
    ledger.record([], [one, other])
    assert ledger.failures(["a", "b", "c"])["a"] == one
    assert ledger.lookup(["a"]) == {} and ledger.failures(["b"])["b"].reason == "\\ud800 no"
    before = ledger.totals()
    assert (before["failed"], before["lost"], before["cost_usd"]) == (2, 0, 0.25)
    assert ledger.forget_failures("teacher") == 1
    assert ledger.failures(["a", "b"]).keys() == {"b"}
    assert ledger.totals() == {**before, "failed": 1, "lost": 1}
    assert ledger.totals("judge")["failed"] == 1 == ledger.totals_by_role()["teacher"]["lost"]
    assert ledger.forget_failures() == 1 and ledger.forget_failures() == 0


def test_an_answer_ends_a_failure(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.record([], [failed("a")])
    ledger.record([call("a")])
    assert ledger.failures(["a"]) == {} and ledger.lookup(["a"]) == {"a": {"text": "x"}}


def test_what_was_paid_twice_is_counted_twice(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.record([call("a", "first", 0.5), call("a", "second", 0.25)])
    totals = ledger.totals()
    assert (totals["calls"], totals["lost"], totals["cost_usd"]) == (1, 1, 0.75)


def test_money_adds_up_exactly(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.record(call(str(i), cost_usd=0.1) for i in range(30))
    assert ledger.totals()["cost_usd"] == 3.0


# -- what is stored --------------------------------------------------------------------------


def test_a_request_is_stored_once_for_all_its_samples(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    for i in range(5):
        request = {"prompt": "p" * 1000, "sample_index": i}
        ledger.record([Call(str(i), "t", "m", request, {"text": "x"}, 1, 1, 0.1)])
    assert ledger._db.execute("SELECT count(*) FROM requests").fetchone() == (1,)
    found = ledger.call("3")
    assert found is not None
    assert found["request"] == {"prompt": "p" * 1000, "sample_index": 3}


@pytest.mark.parametrize(
    ("response", "kept"),
    [
        ({"logprobs": [{"logprob": math.nan}, {"logprob": -math.inf}]},
         {"logprobs": [{"logprob": None}, {"logprob": None}]}),
        ({"text": "half \ud83d", "about": ()}, {"text": "half \ud83d", "about": []}),
        ({"text": "é\x00\u2028", "finish_reason": "stop"}, None),
    ],
)  # fmt: skip
def test_whatever_a_server_sends_is_stored(
    tmp_path: Path, response: dict[str, Any], kept: dict[str, Any] | None
) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.record([Call("a", "t", "m", {}, response, 1, 1, 0.1), call("b")])
    assert ledger.lookup(["a", "b"]) == {"a": kept or response, "b": {"text": "x"}}


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
))  # fmt: skip
def test_json_is_the_canonical_json(value: Any) -> None:
    assert as_json(value) == canonical_json(value)


OLD = """
CREATE TABLE calls (key TEXT PRIMARY KEY, role TEXT NOT NULL, model TEXT NOT NULL,
    request TEXT NOT NULL, response TEXT NOT NULL, tokens_in INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL, cost_usd REAL, wall_s REAL NOT NULL, recorded_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE stages (step TEXT NOT NULL, fingerprint TEXT NOT NULL, round INTEGER NOT NULL,
    stage TEXT NOT NULL, wall_s REAL NOT NULL, tokens INTEGER NOT NULL, peak_rss_mb REAL NOT NULL,
    recorded_at TEXT NOT NULL);
INSERT INTO stages VALUES ('s', 'f', 0, 'write', 2.0, 10, 1.0, '2026-01-01T00:00:00Z');
"""


@pytest.mark.parametrize("read_only", [True, False])
def test_a_ledger_of_the_first_version_opens(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "ledger.sqlite"
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode=WAL")
    db.executescript(OLD)
    db.executemany(
        "INSERT INTO calls VALUES (?,'teacher','m',?,?,3,5,NULL,0.25,'2026-01-02T00:00:00Z')",
        [
            (f"k{i}", f'{{"prompt":"p","sample_index":{i}}}', f'{{"text":"{i}"}}')
            for i in range(700)
        ],
    )
    db.commit()
    db.close()
    for _ in range(2):
        ledger = Ledger(path, read_only=read_only)
        assert len(ledger.lookup([f"k{i}" for i in range(700)])) == 700
        assert ledger.call("k650") == {
            "key": "k650", "role": "teacher", "model": "m", "tokens_in": 3, "tokens_out": 5,
            "cost_usd": None, "wall_s": 0.25, "recorded_at": "2026-01-02T00:00:00Z", "requests": 1,
            "request": {"prompt": "p", "sample_index": 650}, "response": {"text": "650"},
        }  # fmt: skip
        assert (ledger.totals()["calls"], ledger.totals()["tokens_in"]) == (700, 2100)
        assert ledger.stages(["f"])[0]["wall_s"] == 2.0
        ledger.close()


def test_a_ledger_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version=99")
    db.close()
    for read_only in (True, False):
        with pytest.raises(RunError, match="update symdistill"):
            Ledger(path, read_only=read_only)


# -- what can go wrong with the file ---------------------------------------------------------


def test_a_folded_ledger_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "here" / "ledger.sqlite"
    ledger = Ledger(path)
    ledger.record([call("a"), call("b")], [failed("c")])
    wal = path.with_name("ledger.sqlite-wal")
    assert wal.stat().st_size > 0
    ledger.fold()
    assert wal.stat().st_size == 0
    there = tmp_path / "ledger.sqlite"
    shutil.copy(path, there)
    moved = Ledger(there)
    assert moved.lookup(["a", "b"]).keys() == {"a", "b"} and moved.failures(["c"])
    moved.record([call("d")])
    assert moved.totals()["calls"] == 3 and ledger.totals()["calls"] == 2


def test_a_ledger_in_use_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("symdistill.ledger.LOCK_WAIT_S", 0.05)
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RunError, match="another program holds it"):
        ledger.record([call("a")])
    other.execute("ROLLBACK")
    ledger.record([call("a")])
    other.execute("BEGIN")
    other.execute("SELECT * FROM calls").fetchone()
    with pytest.raises(RunError, match="another program is reading it"):
        ledger.fold()
    other.close()
    ledger.fold()


def test_damage_inside_the_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path)
    ledger.record(call(f"k{i}", "y" * 2000) for i in range(200))
    ledger.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(RunError, match=r"it is damaged .* move it away"):
        Ledger(path).lookup([f"k{i}" for i in range(200)])


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(RunError, match="expected a writable ledger"):
        Ledger(tmp_path / "file" / "ledger.sqlite")
    with pytest.raises(RunError, match="missing or damaged"):
        Ledger(tmp_path / "none.sqlite", read_only=True)
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    with pytest.raises(RunError, match=r"expected a writable ledger .* readonly"):
        Ledger(path, read_only=True).record([call("a")])


def test_a_read_that_would_miss_the_log_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path)
    ledger.fold()
    connect = sqlite3.connect

    def only_immutable(place: str, **how: Any) -> sqlite3.Connection:
        """As in a folder in which nothing can be written."""
        if str(place).endswith("mode=ro"):
            raise sqlite3.OperationalError("unable to open database file")
        return connect(place, **how)

    monkeypatch.setattr("sqlite3.connect", only_immutable)
    assert Ledger(path, read_only=True).lookup(["a"]) == {}
    ledger.record([call("a")])
    with pytest.raises(RunError, match="unfinished write-ahead log"):
        Ledger(path, read_only=True)


# -- anything, in any order ------------------------------------------------------------------

KEYS = [f"k{i}" for i in range(25)]
ROLES = ("teacher", "judge")
money = st.none() | st.integers(0, 10**9).map(lambda pico_usd: pico_usd / 10**12)
new_calls = st.lists(
    st.builds(
        lambda key, role, text, cost: Call(
            key, role, "m", {"prompt": key, "sample_index": 1}, {"text": text}, 2, 3, 0.5, cost
        ),
        st.sampled_from(KEYS), st.sampled_from(ROLES), st.text(max_size=5), money,
    ),
    max_size=8,
)  # fmt: skip
new_failures = st.lists(
    st.builds(
        lambda key, role, cost: FailedCall(
            key, role, "m", {"prompt": key}, "gave_up", "why", 2, 5, 0, 0.25, cost
        ),
        st.sampled_from(KEYS), st.sampled_from(ROLES), money,
    ),
    max_size=4,
)  # fmt: skip
new_lost = st.lists(
    st.builds(
        lambda key, role, cost: LostCall(key, role, "m", "cut off", 7, 11, cost),
        st.sampled_from(KEYS), st.sampled_from(ROLES), money,
    ),
    max_size=3,
)  # fmt: skip


class LedgerMachine(RuleBasedStateMachine):
    """A ledger, and a dict that says what it must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.copies = 0
        self.path = self.root / "0" / "ledger.sqlite"
        self.ledger = Ledger(self.path)
        self.answers: dict[str, Call] = {}
        self.failed: dict[str, FailedCall] = {}
        self.lost: list[Call | FailedCall | LostCall] = []
        self.notes: dict[str, Any] = {}

    @rule(calls=new_calls, failures=new_failures, lost=new_lost)
    def record(self, calls: list[Call], failures: list[FailedCall], lost: list[LostCall]) -> None:
        self.ledger.record(calls, failures, lost)
        for one in calls:
            if self.answers.setdefault(one.key, one) is not one:
                self.lost.append(one)
        for other in failures:
            if self.failed.setdefault(other.key, other) is not other:
                self.lost.append(other)
        self.lost += lost

    @rule(calls=new_calls)
    def record_while_others_read(self, calls: list[Call]) -> None:
        def read() -> dict[str, Any]:
            return self.ledger.lookup(KEYS)

        before = read()
        with ThreadPoolExecutor(3) as threads:
            reading = [threads.submit(read) for _ in range(3)]
            threads.submit(self.record, calls, [], []).result()
            after = read()
            for one in reading:
                found = one.result()
                assert before.items() <= found.items() <= after.items() or found == after

    @rule(role=st.none() | st.sampled_from(ROLES))
    def forget(self, role: str | None) -> None:
        gone = {k: one for k, one in self.failed.items() if role in (None, one.role)}
        assert self.ledger.forget_failures(role) == len(gone)
        self.lost += gone.values()
        self.failed = {k: one for k, one in self.failed.items() if k not in gone}

    @rule(name=st.sampled_from(["a:1", "a:2", "b:1", "%_"]), number=st.none() | st.integers())
    def note(self, name: str, number: int | None) -> None:
        if number is None:
            self.ledger.forget(name)
            self.notes.pop(name, None)
        else:
            self.ledger.remember(name, {"number": number})
            self.notes[name] = {"number": number}

    def copy(self) -> Path:
        self.copies += 1
        there = self.root / str(self.copies) / "ledger.sqlite"
        there.parent.mkdir()
        shutil.copy(self.path, there)
        return there

    @rule(tail=st.binary(max_size=5000))
    def crash(self, tail: bytes) -> None:
        """What is on disk now, with a transaction that was begun and never ended."""
        there = self.copy()
        wal = self.path.with_name("ledger.sqlite-wal").read_bytes()
        there.with_name("ledger.sqlite-wal").write_bytes(wal + tail)
        self.ledger.close()
        self.path, self.ledger = there, Ledger(there)

    @rule()
    def move(self) -> None:
        self.ledger.fold()
        there = self.copy()
        self.ledger.close()
        self.path, self.ledger = there, Ledger(there)

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = Ledger(self.path)

    @rule()
    def read_only(self) -> None:
        other = Ledger(self.path, read_only=True)
        self.check(other)
        other.close()

    @invariant()
    def is_what_it_must_be(self) -> None:
        self.check(self.ledger)

    def check(self, ledger: Ledger) -> None:
        assert ledger.lookup(KEYS) == {k: one.response for k, one in self.answers.items()}
        unanswered = {k: one for k, one in self.failed.items() if k not in self.answers}
        assert ledger.failures(KEYS) == unanswered
        assert ledger.known(KEYS) == {*self.answers, *self.failed}
        assert ledger.recall() == self.notes
        assert ledger.recall("a:").keys() == {name for name in self.notes if name[:2] == "a:"}
        for key, answer in list(self.answers.items())[:2]:
            found = ledger.call(key)
            assert found is not None and found["request"] == answer.request
        by_role = ledger.totals_by_role()
        for role in ROLES:
            answered = [one for one in self.answers.values() if one.role == role]
            failures = [one for one in self.failed.values() if one.role == role]
            lost = [one for one in self.lost if one.role == role]
            every = [*answered, *failures, *lost]
            costs = [one.cost_usd for one in every]
            pico_usd = sum(pico(cost) for cost in costs if cost is not None)
            totals = ledger.totals(role)
            assert totals == {
                "calls": len(answered),
                "failed": len(failures),
                "lost": len(lost),
                "requests": len(every),
                "tokens_in": sum(one.tokens_in for one in every),
                "tokens_out": sum(one.tokens_out for one in every),
                "wall_s": sum(one.wall_s for one in every),
                "cost_usd": None if None in costs else pico_usd / 10**12,
            }
            assert totals == by_role.get(role, totals)

    def teardown(self) -> None:
        self.ledger.close()
        shutil.rmtree(self.root)


LedgerMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=20)
test_any_history = LedgerMachine.TestCase
