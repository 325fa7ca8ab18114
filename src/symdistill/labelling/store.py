"""What people said of which lines: draws of lines, and every answer to them, in one file.

Takes draws (which lines are shown, to say what, in which order, and how they were drawn) and
answers; gives what is to be shown next, how far an annotator is, and the answers that stand. The
file is HOME/labels.sqlite; an answer is on disk when `answer` returns, so neither a killed process
nor a power cut takes one back. Costs a few milliseconds an answer, however many there are.

No answer is ever deleted: an answer taken back is marked so, and of two answers of one annotator to
one line the later stands while both are kept. A draw holds the texts as they were shown.

It does not draw lines, and it never holds a score: whoever labels is blind to it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from symdistill.errors import InputError, RunError
from symdistill.visible import visible

Purpose = Literal["certificate", "audit", "compare", "train"]

LABELS = ("valid", "invalid", "unsure")
PREFERENCES = ("first", "second", "both", "neither", "unsure")
KEYS_FOR_TWO: Mapping[str, str] = {
    **dict(zip("12345", PREFERENCES, strict=True)),
    **dict(zip("fsbxu", PREFERENCES, strict=True)),
}

_VERSION = 1  # of the tables below, as `PRAGMA user_version`
_TABLES = """
CREATE TABLE IF NOT EXISTS draws (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, purpose TEXT NOT NULL,
    made_at TEXT NOT NULL, seed INTEGER NOT NULL, pool_hash TEXT NOT NULL, plan TEXT NOT NULL,
    repeats INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS items (
    draw TEXT NOT NULL, place INTEGER NOT NULL, line_id TEXT NOT NULL, text TEXT NOT NULL,
    question TEXT, other TEXT, PRIMARY KEY (draw, place), UNIQUE (draw, line_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (
    number INTEGER PRIMARY KEY AUTOINCREMENT, draw TEXT NOT NULL, line_id TEXT NOT NULL,
    annotator TEXT NOT NULL, answer TEXT NOT NULL, again INTEGER NOT NULL, at TEXT NOT NULL,
    seconds REAL, note TEXT NOT NULL, undone_at TEXT);
CREATE TABLE IF NOT EXISTS instructions (
    number INTEGER PRIMARY KEY, draw TEXT NOT NULL, text TEXT NOT NULL, UNIQUE (draw, text));
CREATE INDEX IF NOT EXISTS standing ON answers (draw, annotator, again, line_id)
    WHERE undone_at IS NULL;
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a person sees of a line: never its score."""

    line_id: str
    text: str
    question: str | None = None  # what the text answers, or is about
    other: str | None = None  # the second text of a comparison side by side


@dataclass(frozen=True, slots=True)
class Draw:
    """The lines that are shown for one purpose, in the order in which they are shown."""

    id: str
    purpose: Purpose
    made_at: str
    seed: int
    pool_hash: str  # of the pool it was drawn from
    plan: Mapping[str, Any]  # how it was drawn, and for what; JSON
    items: tuple[Shown, ...]
    repeats: int = 0  # the first so many are shown again at the end: does one agree with oneself?


@dataclass(frozen=True, slots=True)
class Given:
    """One answer that stands."""

    draw: str
    line_id: str
    annotator: str
    answer: str
    again: bool  # to a line that was shown for the second time
    at: str  # when, ISO 8601, UTC
    seconds: float | None  # from showing to answering
    note: str


@dataclass(slots=True)
class _Answered:
    """How far someone is in a draw, so that it need not be counted at every answer."""

    showings: set[tuple[bool, str]]  # whether for the second time, and the line's id
    place: int = 0  # all that is shown before it is answered


def answers_to(purpose: Purpose) -> tuple[str, ...]:
    """The words that may be answered in a draw of this purpose."""
    return PREFERENCES if purpose == "compare" else LABELS


def name_of(annotator: str) -> str:
    """A name as it is kept and shown, however it was typed; empty if it is blank."""
    return visible(" ".join(unicodedata.normalize("NFC", _utf8(annotator)).split()))


@contextlib.contextmanager
def serving(home: Path) -> Iterator[None]:
    """Hold the labels in `home` against a second server; the system lets go if this process ends.

    Raises:
        RunError: another process serves them, or the folder cannot be written.
    """
    home = home.expanduser()
    try:
        home.mkdir(parents=True, exist_ok=True)
        handle = os.open(home / ".labelling", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunError(
            f"expected a folder for labels at {home}; got: {error.strerror}; check its permissions"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(
                f"another labelling page is open on the labels in {home}; use that one, or stop it"
            ) from error
        yield
    finally:
        os.close(handle)


class LabelStore:
    """The draws and answers of one source of lines.

    Safe for threads of one process; other processes may read and write the same file.
    """

    def __init__(self, home: Path, *, read_only: bool = False) -> None:
        """Open HOME/labels.sqlite, and make it where there is none.

        Args:
            home: the folder of the source's labels and certificates (`Pool.home`).
            read_only: write nothing; where there is no file, it reads as an empty one.

        Raises:
            InputError: the file is no label store, is damaged, or a newer version wrote it.
            RunError: it cannot be made or written.
        """
        self.path = home.expanduser() / "labels.sqlite"
        self._lock = threading.RLock()
        self._draws: dict[str, Draw] = {}
        self._places: dict[str, dict[str, int]] = {}  # draw -> line -> place
        self._answered: dict[tuple[str, str | None], _Answered] = {}  # draw, annotator or anyone
        self._names: dict[str, str] = {}  # whatever the case -> as it is kept
        self._data_version: int | None = None
        try:
            self._db = _open(self.path, read_only)
        except sqlite3.Error as error:
            raise self._told(error) from error
        except OSError as error:
            raise RunError(
                f"expected a place for labels at {self.path}; got: {error.strerror}; check its "
                "permissions"
            ) from error

    def close(self) -> None:
        """Close the file; twice is fine."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> LabelStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- draws --------------------------------------------------------------------------------

    def add_draw(self, draw: Draw) -> None:
        """Keep a draw; one that is there already stays as it is.

        Raises:
            InputError: it has no line, one line twice, more repeats than lines, an unknown
                purpose, or the id of another draw.
        """
        _check(draw)
        with self._using() as db:
            db.execute("BEGIN IMMEDIATE")
            if db.execute("SELECT 1 FROM draws WHERE id = ?", [draw.id]).fetchone():
                if self.draw(draw.id).items != tuple(_showable(one) for one in draw.items):
                    raise InputError(f"expected a draw with an id of its own; {draw.id!r} is "
                                     "another draw already; choose another seed")  # fmt: skip
                return
            db.execute(
                "INSERT INTO draws (id, purpose, made_at, seed, pool_hash, plan, repeats) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                [draw.id, draw.purpose, draw.made_at, draw.seed, draw.pool_hash,
                 json.dumps(dict(draw.plan)), draw.repeats],
            )  # fmt: skip
            rows = enumerate(map(_showable, draw.items))
            db.executemany(
                "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?)",
                ((draw.id, place, one.line_id, one.text, one.question, one.other)
                 for place, one in rows),
            )  # fmt: skip

    def drop(self, id: str) -> None:
        """Take away a draw to which nobody ever gave an answer.

        Raises:
            InputError: there is an answer, even one taken back.
        """
        with self._using() as db:
            db.execute("BEGIN IMMEDIATE")
            if db.execute("SELECT 1 FROM answers WHERE draw = ?", [id]).fetchone():
                raise InputError(f"expected a draw without answers; {id!r} has some; finish it")
            for table, column in (("draws", "id"), ("items", "draw"), ("instructions", "draw")):
                db.execute(f"DELETE FROM {table} WHERE {column} = ?", [id])
            self._draws.pop(id, None)

    def give_up(self, id: str, why: str) -> None:
        """Mark in its plan that a draw is not to be finished; its answers stay.

        Raises:
            InputError: there is no such draw.
        """
        at = datetime.now(UTC).isoformat(timespec="seconds")
        said = visible(" ".join(_utf8(why).split()))
        plan = {**self.draw(id).plan, "given_up": {"why": said, "at": at}}
        with self._using() as db:
            db.execute("UPDATE draws SET plan = ? WHERE id = ?", [json.dumps(plan), id])
            self._draws.pop(id)

    def given_up_ids(self) -> set[str]:
        """The draws that are not to be finished."""
        draws = self.draws()
        replaced = {old["draw"] for one in draws for old in one.plan.get("abandoned", ())}
        return replaced | {one.id for one in draws if "given_up" in one.plan}

    def draws(self, purpose: Purpose | None = None) -> list[Draw]:
        """The draws (of one purpose), oldest first."""
        with self._using() as db:
            found = db.execute("SELECT id, purpose FROM draws ORDER BY number").fetchall()
        return [self.draw(id) for id, what in found if purpose in (None, what)]

    def draw(self, id: str) -> Draw:
        """One draw.

        Raises:
            InputError: there is none of that id.
        """
        with self._using() as db:
            if id not in self._draws:
                self._draws[id] = self._read_draw(db, id)
                lines = enumerate(self._draws[id].items)
                self._places[id] = {one.line_id: place for place, one in lines}
            return self._draws[id]

    def drawn_ids(self, *purposes: Purpose) -> set[str]:
        """The lines of every draw (of these purposes), answered or not; of pairs, both lines."""
        wanted = purposes or get_args(Purpose)
        marks = ", ".join("?" * len(wanted))
        with self._using() as db:
            found = db.execute(
                "SELECT DISTINCT line_id FROM items WHERE draw IN "
                f"(SELECT id FROM draws WHERE purpose IN ({marks}))",
                wanted,
            ).fetchall()
        return self._with_both_sides(line_id for (line_id,) in found)

    # -- answering ----------------------------------------------------------------------------

    def next(self, draw: str, annotator: str) -> tuple[Shown, bool] | None:
        """The next line for an annotator, and whether it is shown for the second time.

        None: all is done. A line whose answer was taken back comes next.
        """
        shown, annotator = self.draw(draw), self.known_as(annotator)
        with self._using() as db:
            done = self._done(db, draw, annotator)
            while done.place < len(shown.items) + shown.repeats:
                again, place = divmod(done.place, len(shown.items))
                one = shown.items[place]
                if (bool(again), one.line_id) not in done.showings:
                    return one, bool(again)
                done.place += 1
        return None

    def answer(
        self,
        draw: str,
        line_id: str,
        annotator: str,
        answer: str,
        *,
        again: bool = False,
        seconds: float | None = None,
        note: str = "",
    ) -> None:
        """Keep an answer; it is on disk when this returns.

        Args:
            draw, line_id: what is answered.
            annotator: who answers; any name that is not blank.
            answer: valid, invalid or unsure; in a comparison first, second, both, neither, unsure.
            again: the line was shown for the second time.
            seconds: from showing to answering.
            note: anything the annotator wants to add.

        Raises:
            InputError: an unknown draw, line or word, or no name.
            RunError: the answer could not be written.
        """
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.take([Given(draw, line_id, annotator, answer, again, at, seconds, note)])

    def take(self, answers: Iterable[Given]) -> int:
        """Keep many answers, all or none, in their order; gives how many there were.

        Raises:
            InputError: as `answer`.
            RunError: they could not be written.
        """
        given = list(answers)
        names: dict[str, str] = {}  # one person has one name within a file, too
        for name in dict.fromkeys(one.annotator for one in given):
            kept = self.known_as(name)
            names[name] = names.setdefault(kept.casefold(), kept)
        checked = [self._checked(replace(one, annotator=names[one.annotator])) for one in given]
        with self._lock:
            with self._using() as db:
                db.execute("BEGIN IMMEDIATE")
                db.executemany(
                    "INSERT INTO answers (draw, line_id, annotator, answer, again, at, seconds, "
                    "note) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    ([one.draw, one.line_id, one.annotator, one.answer, one.again, one.at,
                      one.seconds, one.note] for one in checked),
                )  # fmt: skip
            for one in checked:
                self._names.setdefault(one.annotator.casefold(), one.annotator)
                for who in (one.annotator, None):
                    if (one.draw, who) in self._answered:
                        done = self._answered[one.draw, who]
                        done.showings.add((one.again, one.line_id))
        return len(checked)

    def undo(self, draw: str, annotator: str) -> Shown | None:
        """Take back the annotator's last answer that stands; None: there is none."""
        shown, annotator = self.draw(draw), self.known_as(annotator)
        with self._using() as db:
            db.execute("BEGIN IMMEDIATE")
            last = db.execute(
                "SELECT number, line_id FROM answers WHERE draw = ? AND annotator = ? "
                "AND undone_at IS NULL ORDER BY number DESC LIMIT 1",
                [draw, annotator],
            ).fetchone()
            if last is None:
                return None
            number, line_id = last
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            db.execute("UPDATE answers SET undone_at = ? WHERE number = ?", [now, number])
            self._answered.clear()  # an earlier answer to the line may stand again
        return shown.items[self._places[draw][line_id]]

    def keep_instructions(self, draw: str, text: str) -> None:
        """Keep what annotators of a draw were told, so that a certificate can name it.

        Raises:
            InputError: an unknown draw.
            RunError: it could not be written.
        """
        self.draw(draw)
        with self._using() as db:
            db.execute(
                "INSERT OR IGNORE INTO instructions (draw, text) VALUES (?, ?)", [draw, _utf8(text)]
            )

    # -- reading ------------------------------------------------------------------------------

    def progress(self, draw: str, annotator: str | None = None) -> tuple[int, int]:
        """Lines answered, and lines there are to answer; a repeat counts as a line.

        Args:
            draw: which draw.
            annotator: whose answers count; None: anyone's.
        """
        shown = self.draw(draw)
        who = None if annotator is None else self.known_as(annotator)
        with self._using() as db:
            done = self._done(db, draw, who)
            return len(done.showings), len(shown.items) + shown.repeats

    def known_as(self, annotator: str) -> str:
        """The name under which someone is kept: case and spaces make nobody another person.

        Raises:
            InputError: the name is blank.
        """
        name = name_of(annotator)
        if not name:
            raise InputError("expected the annotator's name; got a blank one; give a name")
        with self._using() as db:
            self._look_for_others_answers(db)
            return self._names.get(name.casefold(), name)

    def given(self, draw: str | None = None) -> list[Given]:
        """The answers that stand (in one draw), oldest first."""
        with self._using() as db:
            rows = db.execute(  # beside max(), sqlite gives the other columns of the same row
                "SELECT draw, line_id, annotator, answer, again, at, seconds, note, max(number) "
                "FROM answers WHERE undone_at IS NULL AND (draw = ? OR ?) "
                "GROUP BY draw, annotator, again, line_id ORDER BY max(number)",
                [draw, draw is None],
            ).fetchall()
        return [
            Given(of, line, who, said, bool(again), at, seconds, note)
            for of, line, who, said, again, at, seconds, note, _ in rows
        ]

    def verdicts(self, draw: str) -> dict[str, str]:
        """What was said of each answered line, at its first showing.

        Of several annotators, what more than half of them say; unsure, where no answer has that.
        """
        said: dict[str, Counter[str]] = {}
        for one in self.given(draw):
            if not one.again:
                said.setdefault(one.line_id, Counter())[one.answer] += 1
        found = {}
        for line_id, counts in said.items():
            word, most = counts.most_common(1)[0]
            found[line_id] = word if 2 * most > counts.total() else "unsure"
        return found

    def changed_late(self, draw: str) -> int:
        """First answers that were given otherwise when every line of the draw had one already."""
        lines = len(self.draw(draw).items)
        with self._using() as db:
            rows = db.execute(
                "SELECT line_id, annotator, answer FROM answers WHERE draw = ? AND NOT again "
                "ORDER BY number",
                [draw],
            ).fetchall()
        answered: set[str] = set()
        said: dict[tuple[str, str], str] = {}
        changed: set[tuple[str, str]] = set()
        for line_id, who, answer in rows:
            if len(answered) == lines and said.get((line_id, who), answer) != answer:
                changed.add((line_id, who))
            answered.add(line_id)
            said[line_id, who] = answer
        return len(changed)

    def instructions(self, draw: str) -> list[str]:
        """What annotators of a draw were told, each text once, oldest first."""
        with self._using() as db:
            found = db.execute(
                "SELECT text FROM instructions WHERE draw = ? ORDER BY number", [draw]
            ).fetchall()
        return [text for (text,) in found]

    def labelled_ids(self, *, besides: str | None = None) -> set[str]:
        """Every line with an answer that stands in a draw other than `besides`; of pairs, both."""
        with self._using() as db:
            found = db.execute(
                "SELECT DISTINCT line_id FROM answers WHERE undone_at IS NULL AND draw IS NOT ?",
                [besides],
            ).fetchall()
        return self._with_both_sides(line_id for (line_id,) in found)

    # -- inner --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        """The connection for one thread at a time; what was written is kept, unless it failed."""
        with self._lock:
            try:
                yield self._db
                if self._db.in_transaction:
                    self._db.execute("COMMIT")
            except BaseException as error:
                with contextlib.suppress(sqlite3.Error):
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise self._told(error) from error
                raise

    def _done(self, db: sqlite3.Connection, draw: str, annotator: str | None) -> _Answered:
        """What an annotator has answered; None: what anyone has."""
        self._look_for_others_answers(db)
        if (draw, annotator) not in self._answered:
            found = db.execute(
                "SELECT DISTINCT again, line_id FROM answers "
                "WHERE draw = ? AND (annotator = ? OR ?) AND undone_at IS NULL",
                [draw, annotator, annotator is None],
            )
            showings = {(bool(again), line_id) for again, line_id in found}
            self._answered[draw, annotator] = _Answered(showings)
        return self._answered[draw, annotator]

    def _look_for_others_answers(self, db: sqlite3.Connection) -> None:
        """Forget what is remembered if another process, or another store, wrote since."""
        (version,) = db.execute("PRAGMA data_version").fetchone()
        if version != self._data_version:
            self._data_version = version
            self._answered.clear()
            found = db.execute("SELECT annotator FROM answers GROUP BY 1 ORDER BY min(number) DESC")
            self._names = {name.casefold(): name for (name,) in found}

    def _with_both_sides(self, ids: Iterable[str]) -> set[str]:
        """The ids, and for each that is a pair's, those of its two lines."""
        found = set(ids)
        for draw in self.draws("compare"):
            for pair, lines in draw.plan.get("sides", {}).items():
                if pair in found:
                    found |= {lines["one"], lines["other"]}
        return found

    def _checked(self, one: Given) -> Given:
        draw = self.draw(one.draw)
        place = self._places[one.draw].get(one.line_id)
        if place is None:
            raise InputError(
                f"expected a line of the draw {draw.id}; got the id {one.line_id[:40]!r}; answer "
                "lines that were drawn"
            )
        if one.again and place >= draw.repeats:
            raise InputError(
                f"expected a second answer to one of the {draw.repeats} lines shown twice; got one "
                f"to {one.line_id[:40]!r}; leave it out"
            )
        if one.answer not in answers_to(draw.purpose):
            raise InputError(
                f"expected one of {', '.join(answers_to(draw.purpose))} as an answer; got "
                f"{one.answer[:40]!r}"
            )
        return replace(one, note=_utf8(one.note), at=_utf8(one.at))

    def _read_draw(self, db: sqlite3.Connection, id: str) -> Draw:
        row = db.execute(
            "SELECT id, purpose, made_at, seed, pool_hash, plan, repeats FROM draws WHERE id = ?",
            [_utf8(id)],
        ).fetchone()
        if row is None:
            known = [one for (one,) in db.execute("SELECT id FROM draws ORDER BY number DESC")]
            raise InputError(
                f"expected a draw of {self.path.parent}; got {id[:60]!r}; there "
                + (f"are {', '.join(known[:5])}" if known else "is none")
            )
        items = db.execute(
            "SELECT line_id, text, question, other FROM items WHERE draw = ? ORDER BY place", [id]
        )
        id, purpose, made_at, seed, pool_hash, plan, repeats = row
        return Draw(id, purpose, made_at, seed, pool_hash, json.loads(plan),
                    tuple(Shown(*item) for item in items), repeats)  # fmt: skip

    def _told(self, error: sqlite3.Error) -> InputError | RunError:
        if isinstance(error, sqlite3.OperationalError | sqlite3.ProgrammingError):
            return RunError(f"expected to use the labels in {self.path}; got: {error}; check the "
                            "disk and the file's permissions, then try again")  # fmt: skip
        return InputError(
            f"expected labels in {self.path}; got a file that is damaged or of another kind "
            f"({error}); move it away or bring back a copy"
        )


def _open(path: Path, read_only: bool) -> sqlite3.Connection:
    if read_only and not path.is_file():
        place = ":memory:"
    elif read_only:
        place = f"{path.absolute().as_uri()}?mode=ro"
        if not os.access(path.parent, os.W_OK) and not path.with_name(path.name + "-wal").exists():
            place += "&immutable=1"  # sqlite would have to write beside it otherwise
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        place = path.absolute().as_uri()
    db = sqlite3.connect(place, uri=True, timeout=30, isolation_level=None, check_same_thread=False)
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            raise InputError(
                f"expected labels of version {_VERSION} or older in {path}; got version {version}; "
                "install a newer symdistill"
            )
        if not read_only:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")  # each answer reaches the disk by itself
        if version == 0 and (not read_only or place == ":memory:"):
            db.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version={_VERSION}; COMMIT;")
        db.execute("SELECT count(*) FROM draws").fetchone()
    except BaseException:
        db.close()
        raise
    return db


def _check(draw: Draw) -> None:
    if draw.purpose not in get_args(Purpose):
        raise InputError(
            f"expected a draw for one of {', '.join(get_args(Purpose))}; got {draw.purpose!r}"
        )
    if not draw.items:
        raise InputError("expected a draw of at least one line; got none; draw some")
    if not 0 <= draw.repeats <= len(draw.items):
        raise InputError(
            f"expected 0 to {len(draw.items)} lines shown again; got {draw.repeats}; repeat fewer"
        )
    twice = [id for id, count in Counter(one.line_id for one in draw.items).items() if count > 1]
    if twice:
        raise InputError(f"expected every line of a draw once; {twice[0][:40]!r} is there twice")


def _showable(one: Shown) -> Shown:
    return Shown(
        _utf8(one.line_id),
        _utf8(one.text),
        None if one.question is None else _utf8(one.question),
        None if one.other is None else _utf8(one.other),
    )


def _utf8(text: str) -> str:
    """Text that can be written: halves of surrogate pairs become question marks."""
    return text.encode("utf-8", "replace").decode()
