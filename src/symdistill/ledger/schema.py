"""The ledger's tables: their columns, how calls enter them, and how older files catch up."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from symdistill.ledger.rows import Call, FailedCall, LostCall, pico, split, storable

VERSION = 1  # of the tables below, as `PRAGMA user_version`; 0 had the request in every call
_BLOCK = 500  # rows taken over at once

# A sample, in `calls` and `failures`; what came of a request and when, there and in `lost`.
_SAMPLE = """key TEXT NOT NULL PRIMARY KEY,
        role TEXT NOT NULL,
        model TEXT NOT NULL,
        request_id INTEGER NOT NULL REFERENCES requests (id),
        sample_index INTEGER,"""
_SIZE = """requests INTEGER NOT NULL,
        tokens_in INTEGER NOT NULL,
        tokens_out INTEGER NOT NULL,
        cost_usd REAL,
        wall_s REAL NOT NULL,
        recorded_at TEXT NOT NULL,"""

# `calls` has a rowid: with answers of 1 kB, a table ordered by its random keys is three times as
# large and as slow.
_SCHEMA = (
    """CREATE TABLE requests (
        id INTEGER PRIMARY KEY,
        hash INTEGER NOT NULL UNIQUE,
        request TEXT NOT NULL
    )""",
    f"""CREATE TABLE calls (
        {_SAMPLE}
        {_SIZE}
        response TEXT NOT NULL
    )""",
    f"""CREATE TABLE failures (
        {_SAMPLE}
        {_SIZE}
        kind TEXT NOT NULL,
        reason TEXT NOT NULL,
        attempts INTEGER NOT NULL
    )""",
    f"""CREATE TABLE lost (
        key TEXT NOT NULL,
        role TEXT NOT NULL,
        model TEXT NOT NULL,
        {_SIZE}
        reason TEXT NOT NULL
    )""",
    """CREATE TABLE accounts (
        role TEXT NOT NULL,
        model TEXT NOT NULL,
        outcome TEXT NOT NULL,
        calls INTEGER NOT NULL,
        requests INTEGER NOT NULL,
        tokens_in INTEGER NOT NULL,
        tokens_out INTEGER NOT NULL,
        wall_s REAL NOT NULL,
        pico_usd INTEGER NOT NULL,
        unpriced INTEGER NOT NULL,
        PRIMARY KEY (role, model, outcome)
    ) WITHOUT ROWID""",
    """CREATE TABLE sessions (
        id INTEGER PRIMARY KEY,
        started_at TEXT NOT NULL,
        wall_s REAL NOT NULL,
        leased_requests INTEGER NOT NULL,
        leased_tokens INTEGER NOT NULL,
        leased_pico_usd INTEGER NOT NULL
    )""",
    """CREATE TABLE notes (
        name TEXT NOT NULL PRIMARY KEY,
        note TEXT NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS stages (
        step TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        round INTEGER NOT NULL,
        stage TEXT NOT NULL,
        wall_s REAL NOT NULL,
        tokens INTEGER NOT NULL,
        peak_rss_mb REAL NOT NULL,
        recorded_at TEXT NOT NULL
    )""",
)

_ADD_CALL = "INSERT INTO calls VALUES (?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (key) DO NOTHING"
_ADD_FAILURE = (
    "INSERT INTO failures VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (key) DO NOTHING"
)
_ADD_LOST = "INSERT INTO lost VALUES (?,?,?,?,?,?,?,?,?,?)"
ADD_TO_ACCOUNT = (
    "INSERT INTO accounts VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (role, model, outcome) "
    "DO UPDATE SET calls = calls + excluded.calls, requests = requests + excluded.requests, "
    "tokens_in = tokens_in + excluded.tokens_in, tokens_out = tokens_out + excluded.tokens_out, "
    "wall_s = wall_s + excluded.wall_s, pico_usd = pico_usd + excluded.pico_usd, "
    "unpriced = unpriced + excluded.unpriced"
)


def add(
    db: sqlite3.Connection,
    answers: Iterable[tuple[Call, int, str, int | None, str, str]],
    failures: Iterable[tuple[FailedCall, int, str, int | None, str]],
    lost: list[LostCall],
    now: str,
) -> None:
    """Insert calls and add them to the accounts; a repeat of a key is lost."""
    sums: dict[tuple[str, str, str], list[Any]] = {}
    ids: dict[int, int] = {}
    add_request = "INSERT INTO requests (hash, request) VALUES (?,?) ON CONFLICT (hash) DO NOTHING"

    def count(outcome: str, call: Call | FailedCall | LostCall) -> None:
        one = sums.setdefault((call.role, call.model, outcome), [0, 0, 0, 0, 0.0, 0, 0])
        one[0] += 1
        one[1] += call.requests
        one[2] += call.tokens_in
        one[3] += call.tokens_out
        one[4] += call.wall_s
        if call.cost_usd is None:
            one[6] += call.requests
        else:
            one[5] += pico(call.cost_usd)

    def request_id(mark: int, request: str) -> int:
        if mark not in ids:
            added = db.execute(add_request, (mark, request))
            if added.rowcount:
                ids[mark] = int(added.lastrowid or 0)
            else:
                found = db.execute("SELECT id FROM requests WHERE hash = ?", (mark,))
                ids[mark] = int(found.fetchone()[0])
        return ids[mark]

    def sizes(call: Call | FailedCall | LostCall) -> tuple[Any, ...]:
        return call.requests, call.tokens_in, call.tokens_out, call.cost_usd, call.wall_s

    for answer, mark, request, index, response, at in answers:
        what = (answer.key, answer.role, answer.model, request_id(mark, request), index)
        if db.execute(_ADD_CALL, (*what, *sizes(answer), at, response)).rowcount:
            count("answered", answer)
        else:
            lost.append(_repeat(answer))
    for failure, mark, request, index, at in failures:
        what = (failure.key, failure.role, failure.model, request_id(mark, request), index)
        why = (failure.kind, storable(failure.reason), failure.attempts)
        if db.execute(_ADD_FAILURE, (*what, *sizes(failure), at, *why)).rowcount:
            count("failed", failure)
        else:
            lost.append(_repeat(failure))
    for gone in lost:
        who = (gone.key, gone.role, gone.model)
        db.execute(_ADD_LOST, (*who, *sizes(gone), now, storable(gone.reason)))
        count("lost", gone)
    db.executemany(ADD_TO_ACCOUNT, [(*which, *one) for which, one in sums.items()])


def _repeat(call: Call | FailedCall) -> LostCall:
    return LostCall(
        key=call.key,
        role=call.role,
        model=call.model,
        reason="asked for twice; the first outcome stays",
        tokens_in=call.tokens_in,
        tokens_out=call.tokens_out,
        cost_usd=call.cost_usd,
        wall_s=call.wall_s,
        requests=call.requests,
    )


def bring_up_to_date(db: sqlite3.Connection) -> None:
    """Make the tables, within a transaction; calls of version 0 are taken over."""
    if db.execute("PRAGMA user_version").fetchone()[0] == VERSION:
        return  # another process was quicker
    old = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'calls'").fetchone()
    if old:
        db.execute("ALTER TABLE calls RENAME TO old_calls")
    for table in _SCHEMA:
        db.execute(table)
    if old:
        rows = db.execute(
            "SELECT key, role, model, request, response, tokens_in, tokens_out, wall_s, cost_usd, "
            "recorded_at FROM old_calls ORDER BY recorded_at, key"
        )
        while some := rows.fetchmany(_BLOCK):
            calls = [
                (Call(key, role, model, json.loads(request), {}, *rest), response, at)
                for key, role, model, request, response, *rest, at in some
            ]
            answers = [(call, *split(call.request), response, at) for call, response, at in calls]
            add(db, answers, [], [], "")
        db.execute("DROP TABLE old_calls")
    db.execute(f"PRAGMA user_version={VERSION}")
