"""Every model call of a run: request -> response, with tokens, cost and time.

One SQLite file in write-ahead-log mode. A batch of calls is committed in one transaction (group
commit), so after kill -9 a call is there whole or not at all, and never made again if it is.
What a call was paid for lives here and not in the tables, which hold no clock times.

A key is the hash of the canonical request: what was asked of which weights with which settings.
What the samples of a request share is stored once. Unknown prices are NULL, never zero.

Calls that failed are here with their reason, and attempts that were lost (sent, perhaps billed,
without a whole reply) with the most that they can have cost. Running sums per role, model and
outcome are kept beside them, so that the bill is read without reading the calls.

Also here: how long each step of the run took, over all its attempts; and what each process that
worked on the run may have had in flight when it was cut off (see `budget`); and notes of work
that goes on at a server meanwhile.

Not here: protection from a power cut, after which the last seconds may be missing (the file stays
whole); more than one writing process.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from symdistill.errors import RunError
from symdistill.ledger.rows import (
    KEY_LENGTH,
    PICO,
    Account,
    Call,
    FailedCall,
    LostCall,
    Session,
    as_json,
    joined,
    pico,
    request_key,
    split,
)
from symdistill.ledger.schema import ADD_TO_ACCOUNT, VERSION, add, bring_up_to_date

__all__ = [
    "KEY_LENGTH",
    "PICO",
    "Account",
    "Call",
    "FailedCall",
    "Ledger",
    "LostCall",
    "Session",
    "pico",
    "request_key",
]

LOCK_WAIT_S = 5.0  # for another program that writes the file

_BLOCK = 500  # keys per query
# More than SQLite's usual 4 MB and 2 MB: as keys are random, every batch touches pages everywhere,
# and with room for them a batch costs about a fifth less.
_FOLD_PAGES = 8000  # of 4 kB in the log before it is folded
_CACHE_PAGES = 4000


class Ledger:
    """The journal of one run. One process writes, from any of its threads; any number may read.

    Args:
        path: of the file; made if it is not there. A file of an earlier version is brought up
            to date.
        read_only: write nothing, also where nothing can be written.

    Raises:
        RunError: the file is damaged, held by another program, of a later version, or cannot
            be written. Every method may raise it.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._lock = threading.RLock()
        if read_only:
            self._db = _open_to_read(path)
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = _connect(path)
        except (sqlite3.Error, OSError) as error:
            raise _told(path, error) from error
        try:
            with self._reading() as db:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=NORMAL")
                db.execute(f"PRAGMA wal_autocheckpoint={_FOLD_PAGES}")
                db.execute(f"PRAGMA cache_size={_CACHE_PAGES}")
            with self._writing() as db:  # who holds it is told now, before anything is paid for
                if _version(self._db, path) < VERSION:
                    bring_up_to_date(db)
        except RunError:
            self._db.close()
            raise

    def close(self) -> None:
        """Fold the write-ahead log into the file and close it; may be called twice."""
        with self._lock:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("PRAGMA busy_timeout=1000")
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._db.close()

    def fold(self) -> None:
        """Fold the write-ahead log into the file, which is then all there is to copy.

        Raises:
            RunError: another program is reading the ledger, it is damaged, or the disk is full.
        """
        with self._reading() as db:
            (sound,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if sound != "ok":
                raise sqlite3.DatabaseError(sound)
            (busy, *_) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise RunError(
                f"expected to have the ledger {self.path} alone; got: another program is reading "
                "it; close that program, then try again"
            )

    def lookup(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The stored responses of those keys that have been answered."""
        query = "SELECT key, response FROM calls WHERE key IN"
        return {key: json.loads(response) for key, response in self._select(query, keys)}

    def known(self, keys: Sequence[str]) -> set[str]:
        """Those keys that need not be asked for: answered, or failed and not forgotten."""
        found = {key for (key,) in self._select("SELECT key FROM calls WHERE key IN", keys)}
        left = [key for key in keys if key not in found]
        return found | {
            key for (key,) in self._select("SELECT key FROM failures WHERE key IN", left)
        }

    def failures(self, keys: Sequence[str]) -> dict[str, FailedCall]:
        """Those keys that failed and have not been answered since."""
        query = (
            "SELECT f.key, f.role, f.model, r.request, f.sample_index, f.kind, f.reason, "
            "f.attempts, f.tokens_in, f.tokens_out, f.wall_s, f.cost_usd, f.requests "
            "FROM failures f JOIN requests r ON r.id = f.request_id "
            "WHERE NOT EXISTS (SELECT 1 FROM calls WHERE calls.key = f.key) AND f.key IN"
        )
        return {
            key: FailedCall(key, role, model, joined(request, index), *rest)
            for key, role, model, request, index, *rest in self._select(query, keys)
        }

    def record(
        self,
        calls: Iterable[Call],
        failed: Iterable[FailedCall] = (),
        lost: Iterable[LostCall] = (),
    ) -> None:
        """Commit a batch of calls in one transaction; on return it survives a killed process.

        A key that is there already keeps its first answer; what the second was paid counts as
        lost. Numbers that JSON does not know (NaN, infinities) become null.

        Raises:
            RunError: the disk is full or the ledger cannot be written; nothing of the batch
                is kept.
        """
        now = _now()
        answers = [(call, *split(call.request), as_json(call.response), now) for call in calls]
        failures = [(call, *split(call.request), now) for call in failed]
        gone = list(lost)
        if not (answers or failures or gone):
            return
        with self._writing() as db:
            add(db, answers, failures, gone, now)

    def forget_failures(self, role: str | None = None) -> int:
        """Forget which calls failed, so that they are made again; what they cost becomes lost.

        Args:
            role: of this role only.

        Returns:
            how many were forgotten.
        """
        ours = "(?1 IS NULL OR role = ?1)"
        with self._writing() as db:
            db.execute(
                "INSERT INTO lost SELECT key, role, model, requests, tokens_in, tokens_out, "
                f"cost_usd, wall_s, recorded_at, kind || ': ' || reason FROM failures WHERE {ours}",
                (role,),
            )
            failed = f"FROM accounts WHERE outcome = 'failed' AND {ours}"
            sums = db.execute(f"SELECT * {failed}", (role,)).fetchall()
            db.executemany(ADD_TO_ACCOUNT, [(*one[:2], "lost", *one[3:]) for one in sums])
            db.execute(f"DELETE {failed}", (role,))
            return db.execute(f"DELETE FROM failures WHERE {ours}", (role,)).rowcount

    def call(self, key: str) -> dict[str, Any] | None:
        """Everything the ledger knows of one answered call, or None."""
        with self._reading() as db:
            cursor = db.execute(
                "SELECT c.*, r.request FROM calls c JOIN requests r ON r.id = c.request_id "
                "WHERE key = ?",
                (key,),
            )
            row = cursor.fetchone()
        if row is None:
            return None
        found = dict(zip([column[0] for column in cursor.description], row, strict=True))
        del found["request_id"]
        found["request"] = joined(found["request"], found.pop("sample_index"))
        found["response"] = json.loads(found["response"])
        return found

    def accounts(self) -> list[Account]:
        """The running sums, by role, model and outcome."""
        with self._reading() as db:
            rows = db.execute("SELECT * FROM accounts ORDER BY role, model, outcome").fetchall()
        return [Account(*row) for row in rows]

    def totals(self, role: str | None = None) -> dict[str, float | None]:
        """The bill so far, of one role or of all.

        Returns:
            `calls` answered, `failed` and `lost`; `requests` sent; `tokens_in`, `tokens_out`,
            `wall_s` and `cost_usd` of all of them, with lost ones at their bounds. `cost_usd`
            is None while any price is unknown.
        """
        return _sum(one for one in self.accounts() if role in (None, one.role))

    def totals_by_role(self) -> dict[str, dict[str, float | None]]:
        """The bill so far of each role, as in `totals`."""
        accounts = self.accounts()
        roles = sorted({one.role for one in accounts})
        return {role: _sum(one for one in accounts if one.role == role) for role in roles}

    def sessions(self) -> list[Session]:
        """What each process that worked on the run has noted of itself, in order."""
        with self._reading() as db:
            rows = db.execute("SELECT * FROM sessions ORDER BY id").fetchall()
        return [Session(*row) for row in rows]

    def write_session(self, session: Session) -> None:
        """Put down how long a session has lasted and what it leased, over what is there of it."""
        with self._writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO sessions VALUES (?,?,?,?,?,?)",
                (
                    session.id,
                    session.started_at,
                    session.wall_s,
                    session.leased_requests,
                    session.leased_tokens,
                    session.leased_pico_usd,
                ),
            )

    def remember(self, name: str, note: Mapping[str, Any]) -> None:
        """Keep a small note of work under way (an open batch, say) in place of one of that name.

        What is `reserved` in it, if anything, is held by the budget of every later process.
        """
        row = (name, as_json(note))
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO notes VALUES (?,?)", row)

    def recall(self, prefix: str = "") -> dict[str, dict[str, Any]]:
        """The notes whose names begin so, by name."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT name, note FROM notes WHERE substr(name, 1, ?) = ? ORDER BY name",
                (len(prefix), prefix),
            ).fetchall()
        return {name: json.loads(note) for name, note in rows}

    def forget(self, name: str) -> None:
        """Drop a note, if it is there."""
        with self._writing() as db:
            db.execute("DELETE FROM notes WHERE name = ?", (name,))

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
        with self._writing() as db:
            db.execute("INSERT INTO stages VALUES (?,?,?,?,?,?,?,?)", row)

    def stages(self, fingerprints: Iterable[str]) -> list[dict[str, Any]]:
        """Seconds, tokens and peak memory per (round, stage), of the steps with these fingerprints.

        Attempts that ended in an error or Ctrl-C count too: the time was spent.
        """
        wanted = set(fingerprints)
        with self._reading() as db:
            rows = db.execute(
                "SELECT fingerprint, round, stage, wall_s, tokens, peak_rss_mb FROM stages "
                "ORDER BY rowid"
            ).fetchall()
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

    def _select(self, query: str, keys: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(keys), _BLOCK):
            some = keys[start : start + _BLOCK]
            with self._reading() as db:
                rows = db.execute(f"{query} ({','.join('?' * len(some))})", some).fetchall()
            yield from rows

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db
            except sqlite3.ProgrammingError:
                raise  # a closed ledger, a value of a wrong type: no fault of the file
            except sqlite3.Error as error:
                raise _told(self.path, error) from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise


def _sum(accounts: Iterable[Account]) -> dict[str, float | None]:
    every = list(accounts)
    calls = {"answered": 0, "failed": 0, "lost": 0}
    for one in every:
        calls[one.outcome] += one.calls
    priced = all(one.unpriced == 0 for one in every)
    return {
        "calls": calls["answered"],
        "failed": calls["failed"],
        "lost": calls["lost"],
        "requests": sum(one.requests for one in every),
        "tokens_in": sum(one.tokens_in for one in every),
        "tokens_out": sum(one.tokens_out for one in every),
        "wall_s": sum(one.wall_s for one in every),
        "cost_usd": sum(one.pico_usd for one in every) / PICO if priced else None,
    }


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _connect(path: Path | str, *, uri: bool = False) -> sqlite3.Connection:
    return sqlite3.connect(
        path, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False, uri=uri
    )


def _version(db: sqlite3.Connection, path: Path) -> int:
    try:
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.Error as error:
        raise _told(path, error) from error
    if version > VERSION:
        raise RunError(
            f"expected a ledger of version {VERSION} or earlier at {path}; got version {version}; "
            "a later symdistill wrote it: update symdistill"
        )
    return version


def _open_to_read(path: Path) -> sqlite3.Connection:
    """A connection that writes nothing, also in a folder in which nothing can be written."""
    place = quote(str(path.absolute()))
    for way in ("mode=ro", "immutable=1"):
        if way == "immutable=1" and _size(path.with_name(path.name + "-wal")):
            continue  # it would not see what is in the write-ahead log
        with contextlib.suppress(sqlite3.Error):
            db = _connect(f"file:{place}?{way}", uri=True)
            db.execute("SELECT 1 FROM calls LIMIT 1").fetchone()
            if _version(db, path) == VERSION:
                return db
            copy = _connect(":memory:")
            db.backup(copy)
            db.close()
            bring_up_to_date(copy)
            return copy
    raise RunError(
        f"expected a whole ledger at {path}; it is missing or damaged, or lies with an unfinished "
        "write-ahead log where nothing can be written; run again first, or copy its folder"
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _told(path: Path, error: Exception) -> RunError:
    """What went wrong with the file, and what to do."""
    name = str(getattr(error, "sqlite_errorname", "") or "")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return RunError(
            f"expected to use the ledger {path}; got: another program holds it ({error}); close "
            "that program, then run the same command again: nothing recorded is lost"
        )
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return RunError(
            f"expected a whole ledger at {path}; got: it is damaged ({error}); put back a copy, or "
            f"move it away together with {path.name}-wal: the run then makes its calls anew"
        )
    if isinstance(error, OSError) or name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
        return RunError(
            f"expected a writable ledger at {path}; got: {error}; make the file and its folder "
            "writable, or choose another folder with --out"
        )
    return RunError(
        f"expected to write the ledger {path}; got: {error}; free some disk space or close the "
        "other program, then run the same command again: nothing recorded is lost"
    )
