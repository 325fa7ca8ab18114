"""Every model call of a run: request -> response, with tokens, cost and time.

One SQLite file in write-ahead-log mode. A batch of calls is committed in one transaction (group
commit), so after kill -9 a call is there whole or not at all, and never made again if it is.
What a call was paid for lives here and not in the tables, which hold no clock times.

A key is the hash of the canonical request: what was asked of which weights with which settings.
Unknown prices are NULL, never zero.

Also here: how long each step of the run took, over all its attempts.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from symdistill.errors import RunError
from symdistill.records import canonical_json, content_hash

KEY_LENGTH = 32  # hexadecimal digits: a clash must not hand one request another's answer

_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    key TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    model TEXT NOT NULL,
    request TEXT NOT NULL,
    response TEXT NOT NULL,
    tokens_in INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL,
    cost_usd REAL,
    wall_s REAL NOT NULL,
    recorded_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stages (
    step TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    round INTEGER NOT NULL,
    stage TEXT NOT NULL,
    wall_s REAL NOT NULL,
    tokens INTEGER NOT NULL,
    peak_rss_mb REAL NOT NULL,
    recorded_at TEXT NOT NULL
);
"""


def request_key(request: Mapping[str, Any]) -> str:
    """The key of a request: a hash of everything that decides its answer."""
    return content_hash(request, KEY_LENGTH)


@dataclass(frozen=True, slots=True)
class Call:
    """One answered call. `wall_s` is the call's share of its batch's seconds."""

    key: str
    role: str  # "teacher", "critic", "judge" ...
    model: str  # name as the user wrote it
    request: Mapping[str, Any]
    response: Mapping[str, Any]
    tokens_in: int
    tokens_out: int
    wall_s: float
    cost_usd: float | None = None


class Ledger:
    """The journal of one run. One process writes; any number may read."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        if read_only:
            self._db = _open_to_read(path)
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
        except (sqlite3.DatabaseError, OSError) as error:
            raise RunError(
                f"expected a writable ledger at {path}; got: {error}; if the file is damaged, move "
                "it away: the run then starts its calls anew"
            ) from error

    def close(self) -> None:
        """Fold the write-ahead log into the file and close it."""
        with contextlib.suppress(sqlite3.DatabaseError):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()

    def lookup(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The stored responses of those keys that have been answered."""
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(keys), 500):
            some = keys[start : start + 500]
            marks = ",".join("?" * len(some))
            rows = self._db.execute(f"SELECT key, response FROM calls WHERE key IN ({marks})", some)
            found.update((key, json.loads(response)) for key, response in rows)
        return found

    def record(self, calls: Iterable[Call]) -> None:
        """Commit a batch of calls in one transaction; on return they are on disk.

        A key that is there already keeps its first answer.

        Raises:
            RunError: the disk is full or the ledger cannot be written; nothing of the batch
                is kept.
        """
        now = _now()
        rows = [
            (
                call.key,
                call.role,
                call.model,
                canonical_json(call.request),
                canonical_json(call.response),
                call.tokens_in,
                call.tokens_out,
                call.cost_usd,
                call.wall_s,
                now,
            )
            for call in calls
        ]
        with self._transaction():
            self._db.executemany(
                "INSERT INTO calls VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (key) DO NOTHING", rows
            )

    def call(self, key: str) -> dict[str, Any] | None:
        """Everything the ledger knows of one call, or None."""
        cursor = self._db.execute("SELECT * FROM calls WHERE key = ?", (key,))
        row = cursor.fetchone()
        if row is None:
            return None
        found = dict(zip([column[0] for column in cursor.description], row, strict=True))
        found["request"] = json.loads(found["request"])
        found["response"] = json.loads(found["response"])
        return found

    def totals(self) -> dict[str, float | None]:
        """Calls, tokens and seconds so far; `cost_usd` is None while any price is unknown."""
        calls, t_in, t_out, wall, cost, unpriced = self._db.execute(
            "SELECT count(*), total(tokens_in), total(tokens_out), total(wall_s), total(cost_usd), "
            "count(*) FILTER (WHERE cost_usd IS NULL) FROM calls"
        ).fetchone()
        return {
            "calls": calls,
            "tokens_in": int(t_in),
            "tokens_out": int(t_out),
            "wall_s": wall,
            "cost_usd": None if unpriced else cost,
        }

    def record_stage(
        self,
        *,
        step: str,
        fingerprint: str,
        round: int,
        stage: str,
        wall_s: float,
        tokens: int,
        peak_rss_mb: float,
    ) -> None:
        """Add one attempt at a step: how long it took and how many tokens it read or wrote."""
        row = (step, fingerprint, round, stage, wall_s, tokens, peak_rss_mb, _now())
        with self._transaction():
            self._db.execute("INSERT INTO stages VALUES (?,?,?,?,?,?,?,?)", row)

    def stages(self, fingerprints: Iterable[str]) -> list[dict[str, Any]]:
        """Seconds, tokens and peak memory per (round, stage), of the steps with these fingerprints.

        Attempts that ended in an error or Ctrl-C count too: the time was spent.
        """
        wanted = set(fingerprints)
        rows = self._db.execute(
            "SELECT fingerprint, round, stage, wall_s, tokens, peak_rss_mb FROM stages "
            "ORDER BY rowid"
        )
        sums: dict[tuple[int, str], dict[str, Any]] = {}
        for mark, round_, stage, wall_s, tokens, rss in rows:
            if mark not in wanted:
                continue
            one = sums.setdefault(
                (round_, stage),
                {"round": round_, "stage": stage, "wall_s": 0.0, "tokens": 0, "peak_rss_mb": 0.0},
            )
            one["wall_s"] += wall_s
            one["tokens"] += tokens
            one["peak_rss_mb"] = max(one["peak_rss_mb"], rss)
        return list(sums.values())

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            with contextlib.suppress(sqlite3.DatabaseError):
                self._db.execute("ROLLBACK")
            raise RunError(
                f"expected to write the ledger {self.path}; got: {error}; free some disk space or "
                "close the other program, then run the same command again: nothing recorded is lost"
            ) from error


def _open_to_read(path: Path) -> sqlite3.Connection:
    """A connection that writes nothing, also in a folder in which nothing can be written."""
    place = quote(str(path.absolute()))
    for way in ("mode=ro", "immutable=1"):
        with contextlib.suppress(sqlite3.DatabaseError):
            db = sqlite3.connect(f"file:{place}?{way}", uri=True)
            db.execute("SELECT count(*) FROM calls").fetchone()
            return db
    raise RunError(f"expected a whole ledger at {path}; it is missing or damaged; run again first")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
