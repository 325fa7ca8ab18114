"""Certificates on the disk: what was frozen, tested and certified of a source, and what is void.

In the source's home lie
* certificates/NAME.json with NAME.ids: a result, and the ids of the lines it certifies;
* certificates/HASH.pool.jsonl: a frozen pool, so that it can be said what changed since;
* tested.jsonl: one row for each test, appended and never rewritten, so that neither another version
  of the file nor a removed result makes an earlier test forgotten.

One rule says what is void: a certificate whose lines are no longer as they were frozen, or of which
a line was withdrawn. What is void stays void; another test writes another file.

It keeps and compares; `certificate.py` is the test. Costs one pass over the source.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from symdistill.critic.certificate import Certificate, Labelling, ids_text, labelling_of
from symdistill.datafiles import write_aside
from symdistill.errors import InputError, RunError
from symdistill.pool import LabelWord, Line, Pool, home_of, read_pool, withdrawn_ids
from symdistill.records import content_hash, normalise

# ------------------------------------------------------------------------------------ certificates


def write_certificate(home: Path, certificate: Certificate) -> Path:
    """Write HOME/certificates/NAME.json, and NAME.ids with the ids of its lines, one a row.

    The name follows from what was tested on which labels, so that a repeat takes its own place; but
    never that of a certificate that is void.

    Raises:
        RunError: it cannot be written.
    """
    c = certificate
    marks = [c.pool_hash, dict(c.columns), c.group, c.precision_target, c.max_share, c.level,
             c.looks, c.labels_hash, c.labelling.draw]  # fmt: skip
    name = content_hash(marks, 12)
    number, path = 1, home / "certificates" / f"{name}.json"
    while _is_void(path):
        number += 1
        path = path.with_name(f"{name}-{number}.json")
    if c.line_ids:
        write_aside(path.with_suffix(".ids"), ids_text(c.line_ids))
    write_aside(path, json.dumps(c.to_json(), indent=1, ensure_ascii=False) + "\n")
    return path


def read_certificates(home: Path) -> list[tuple[Path, Certificate]]:
    """What was tested on a source, oldest first: also what failed, and what was voided.

    Raises:
        InputError: a file that cannot be read, or whose ids are not the ones it was made for.
    """
    found = [(path, _read(path)) for path in _paths(home)]
    return sorted(found, key=lambda one: (one[1].made_at, one[0].name))


def void(path: Path, why: str) -> None:
    """Mark a certificate as one that no longer holds; the first reason stays.

    Raises:
        InputError: there is no certificate at that path.
        RunError: it cannot be written.
    """
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"expected a certificate at {path}; got: {error}; check the path"
        ) from error
    if row.get("voided") is None:
        row["voided"] = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "why": why}
        write_aside(path, json.dumps(row, indent=1, ensure_ascii=False) + "\n")


def void_outdated(
    source: Path, withdrawing: Mapping[str, str] | None = None
) -> tuple[list[Path], list[Path]]:
    """Void every certificate of a source that no longer holds.

    Args:
        source: the table or run folder; where it cannot be opened, nothing is said of it.
        withdrawing: ids of lines that are about to be withdrawn, each with why.

    Returns:
        The certificates voided now, and those that cannot be read, which nobody should trust.

    Raises:
        RunError: one cannot be written.
    """
    home = home_of(source)
    standing, unreadable = [], []
    for path in _paths(home):
        try:
            one = _read(path)
        except InputError:
            unreadable.append(path)
        else:
            if one.certified and one.voided is None:
                standing.append((path, one))
    gone = {**withdrawn_ids(home), **(withdrawing or {})} if standing else {}
    changed: dict[str, str | None] = {}  # read once for all that were certified of the same pool
    voided = []
    for path, one in standing:
        held = [id for id in one.line_ids if id in gone]
        if held:
            others = f" (and {len(held) - 1:,} others)" if len(held) > 1 else ""
            why: str | None = f"line {held[0]} was withdrawn: {gone[held[0]]}{others}"
        else:
            pool = content_hash([one.pool_hash, dict(one.columns)])
            if pool not in changed:
                changed[pool] = _outdated(source, one)
            why = changed[pool]
        if why:
            void(path, why)
            voided.append(path)
    return voided, unreadable


def _outdated(source: Path, one: Certificate) -> str | None:
    if not os.access(source.expanduser(), os.R_OK):
        return None
    try:
        told = changes(source, one.columns, one.pool_hash)
    except InputError as error:
        told = str(error)
    return told and f"the pool changed after it was frozen: {told}"


def _paths(home: Path) -> list[Path]:
    return sorted((home / "certificates").glob("*.json"))


def _read(path: Path) -> Certificate:
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        ids = path.with_suffix(".ids").read_text(encoding="utf-8") if row["certified"] else ""
        certificate = Certificate.from_json(row, map(json.loads, ids.splitlines()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"expected a certificate at {path} with its ids beside it; got: {error}; restore it"
        ) from error
    if hashlib.sha256(ids.encode()).hexdigest() != certificate.line_ids_hash:
        raise InputError(
            f"expected in {path.with_suffix('.ids')} the ids that {path.name} was made for; they "
            "were changed; restore the file"
        )
    return certificate


def _is_void(path: Path) -> bool:
    """Whether a certificate that is void, or that nobody can read, lies there."""
    try:
        return path.is_file() and json.loads(path.read_text("utf-8"))["voided"] is not None
    except (OSError, ValueError, KeyError, TypeError):
        return True


# ------------------------------------------------------------------------------- the frozen pool


def pool_as(source: Path, columns: Mapping[str, str | None], *, withdrawn: bool = False) -> Pool:
    """The lines of a source, by the columns that were kept with a plan or certificate.

    Raises:
        InputError: as `read_pool`.
    """
    if source.expanduser().is_dir():
        return read_pool(source, withdrawn=withdrawn)
    named: dict[str, Any] = {**columns, "text": columns.get("text") or "text"}
    return read_pool(source, **named, withdrawn=withdrawn)


def keep_pool(pool: Pool) -> None:
    """Keep what a pool was when it was frozen (RunError: it cannot be written)."""
    rows = ([line.id, *_marks(line)] for line in pool.lines)
    write_aside(_kept(pool.home, pool.hash), "".join(json.dumps(row) + "\n" for row in rows))


def changes(source: Path, columns: Mapping[str, str | None], pool_hash: str) -> str | None:
    """What became of the lines of a frozen pool; None: nothing did.

    Lines withdrawn since then are there, as when it was frozen: who holds them must ask.

    Raises:
        InputError: the source can no longer be read by these columns.
    """
    pool = pool_as(source, columns, withdrawn=True)
    before = _kept_marks(pool.home, pool_hash)
    gone = withdrawn_ids(pool.home)
    lines = tuple(one for one in pool.lines if one.id not in gone or one.id in before)
    if replace(pool, lines=lines).hash == pool_hash:
        return None
    now = {line.id: _marks(line) for line in lines}
    if not before:
        return "lines were added, removed or changed"
    both = before.keys() & now.keys()
    counts = {"added": len(now.keys() - before.keys()), "removed": len(before.keys() - now.keys())}
    for place, what in enumerate(("text", "question", "score", "group")):
        counts[f"given another {what}"] = sum(before[id][place] != now[id][place] for id in both)
    told = [f"{_lines_were(count)} {what}" for what, count in counts.items() if count]
    return ", ".join(told) or "lines were changed"


def withdrawn_since(home: Path, pool_hash: str) -> int:
    """How many lines of a frozen pool are withdrawn now."""
    return len(withdrawn_ids(home).keys() & _kept_marks(home, pool_hash).keys())


def _lines_were(count: int) -> str:
    return f"{count:,} {'line was' if count == 1 else 'lines were'}"


def _kept(home: Path, pool_hash: str) -> Path:
    return home / "certificates" / f"{pool_hash[:16]}.pool.jsonl"


def _marks(line: Line) -> list[Any]:
    asked = None if line.question is None else content_hash(line.question, 8)
    return [content_hash(line.text, 8), asked, line.score, line.group]


def _kept_marks(home: Path, pool_hash: str) -> dict[str, list[Any]]:
    """Id -> marks; none where the file is lost or damaged: then nobody can say what changed."""
    try:
        rows = _kept(home, pool_hash).read_text(encoding="utf-8").splitlines()
        return {id: marks for id, *marks in map(json.loads, rows)}
    except (OSError, ValueError, TypeError):
        return {}


# -------------------------------------------------------------------------------- what was tested


@dataclass(frozen=True)
class Trial:
    """One use of the procedure; the looks of one draw are rows of the same use."""

    use: str  # of a draw: its id
    pool_hash: str
    labels: tuple[tuple[str, LabelWord], ...]  # of the look, in the order of the draw
    texts: tuple[str, ...] = ()  # hashes of the labelled texts, whatever their ids
    labelling: Labelling = field(default_factory=Labelling)
    at: str = ""  # when, ISO 8601; filled in


def keep_tested(home: Path, test: Trial) -> None:
    """Append to HOME/tested.jsonl, once; it is on disk when this returns (RunError)."""
    if any(one.use == test.use and one.labels == test.labels for one in read_tested(home)):
        return
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    append_row(home / "tested.jsonl", {**asdict(test), "at": at})


def read_tested(home: Path) -> list[Trial]:
    """Every test of a source, oldest first; a row that a kill cut off was told to nobody.

    Raises:
        InputError: the file cannot be read.
    """
    path = home / "tested.jsonl"
    try:
        rows = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(
            f"expected a list of tests at {path}; got: {error.strerror}; check its permissions"
        ) from error
    found = []
    for number, text in enumerate(rows, start=1):
        try:
            row = json.loads(text)
        except ValueError:
            continue  # cut off, or empty
        try:
            row["labels"] = tuple((id, word) for id, word in row["labels"])
            row["texts"] = tuple(row["texts"])
            row["labelling"] = labelling_of(row["labelling"])
            found.append(Trial(**row))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"expected one test a row in {path}; got on row {number}: {error}; restore the file"
            ) from error
    return found


def tested_of(home: Path, draw: str) -> Trial | None:
    """The largest look of a draw that was tested: its labels count, whatever was said since."""
    looks = [one for one in read_tested(home) if one.use == draw]
    return max(looks, key=lambda one: len(one.labels), default=None)


def text_marks(lines: Iterable[Line]) -> tuple[str, ...]:
    """Hashes of what lines say, by which they are known under other ids."""
    return tuple(content_hash([normalise(one.text), one.question], 12) for one in lines)


def with_history(
    one: Certificate,
    test: Trial,
    earlier: Sequence[Trial],
    abandoned: Sequence[Mapping[str, Any]],
) -> Certificate:
    """Say in the sentence what came before: tests of this file, and draws given up.

    Args:
        one: the result.
        test: the use of the procedure that gave it.
        earlier: all tests of the file, this one among them or not.
        abandoned: draws given up before this one, as its plan keeps them.
    """
    told = ""
    if count := len({other.use for other in earlier} - {test.use}):
        times = "once" if count == 1 else f"{count:,} times"
        told += (
            f" Labels of this file were tested {times} before, on other lines, labels or columns "
            "or for another statement; the error rate is that of one use, fixed beforehand, not of "
            "the best of several."
        )
    other_pools = {text for other in earlier if other.pool_hash != test.pool_hash
                   for text in other.texts}  # fmt: skip
    if test.labelling.draw is None and (reused := len(other_pools & set(test.texts))):
        told += (
            f" {reused:,} of the labels were tested before on another version of the file: they "
            "are no random sample of this one, of which only labels drawn anew can speak."
        )
    if abandoned:
        draws = "1 draw" if len(abandoned) == 1 else f"{len(abandoned):,} draws"
        whys = "; ".join(f"{one['why']} ({one['answered']:,} of {one['lines']:,} labelled)"
                         for one in abandoned)  # fmt: skip
        told += f" {draws} of lines to label had been given up before: {whys}."
    return replace(one, sentence=one.sentence + told)


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row to a file of JSON lines; it is on disk when this returns.

    After a row that was cut off, it begins a new one.

    Raises:
        RunError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - 1))
            whole = size == 0 or stream.read(1) == b"\n"
            text = ("" if whole else "\n") + json.dumps(row, ensure_ascii=False) + "\n"
            stream.write(
                text.encode("utf-8", "replace")
            )  # one write, at the end, whoever else writes
            os.fsync(stream.fileno())
    except OSError as error:
        raise RunError(
            f"expected to write {path}; got: {error.strerror}; make room or check the folder's "
            "permissions"
        ) from error
