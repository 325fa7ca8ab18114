"""The certificate: how many of the best-scored lines are valid, with a guarantee that holds.

Takes a frozen pool of lines in the order of their scores, and labels of a simple random sample of
its best ones; gives the largest top part of which it may be said that at least, say, 90 % would be
marked valid, by a procedure that errs in at most 5 % of its uses (`fixed_sequence.py` is the test).
Costs a second.

Nothing is assumed of the lines or of the scores: the only chance there is, is which lines were
drawn to be labelled. So lines may be clustered by concept, drift from round to round, or have been
selected in any way before they were frozen; and scores may come from anywhere. Before any label,
all of this is fixed (`Frozen`): the pool, the cuts, the precision, the error rate delta, the number
of labels, and the number of looks, precisions and groups that share delta.

The idea is that of Geifman and El-Yaniv (2017), of Learn then Test (Angelopoulos et al. 2021) and,
for thresholds of judges tested in a fixed order, of Jung, Brahman and Choi (arXiv 2407.18370); the
finite-population form is ours. It does not say that the labellers are right, nor anything about
lines that are not in the pool.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from symdistill.critic.fixed_sequence import (
    FIRST_SHARE,
    CutTest,
    exactly,
    fix_cuts,
    precision_interval,
    walk_cuts,
)
from symdistill.errors import InputError, RunError
from symdistill.pool import LabelWord, Line, Pool

__all__ = [
    "Certificate",
    "Frozen",
    "Labelling",
    "certify",
    "freeze",
    "precision_interval",
    "read_certificates",
    "void",
    "write_certificate",
]

FEWEST_LABELS = 10  # below it no precision above 0.74 can pass, and no sample can be checked


@dataclass(frozen=True, slots=True)
class Frozen:
    """What is fixed before the first label. One statement for each precision and each group."""

    pool_hash: str
    lines: int  # of the pool, without what was left out
    precisions: tuple[float, ...]
    max_share: float
    delta: float
    looks: tuple[int, ...]  # labels at each look, ascending; the last is all of them
    groups: tuple[str, ...] = ()  # none: one statement about the whole pool
    left_out: int = 0  # lines of the source that had been labelled before

    @property
    def top(self) -> int:
        """How many of the best-scored lines are drawn from: the largest part that is accepted."""
        return top_lines(self.lines, self.max_share)

    @property
    def level(self) -> float:
        """The error rate of each single test."""
        statements = len(self.precisions) * max(len(self.groups), 1)
        return self.delta / (statements * len(self.looks))

    def to_plan(self) -> dict[str, Any]:
        """For the plan that is kept with a draw."""
        return asdict(self)

    @classmethod
    def from_plan(cls, plan: Mapping[str, Any]) -> Frozen:
        """From the plan that was kept with a draw."""
        known = {one.name: plan[one.name] for one in fields(cls)}
        lists = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        return cls(**{**known, **lists})


def top_lines(lines: int, max_share: float) -> int:
    """How many lines the best `max_share` of a pool are: at least one."""
    return max(1, math.floor(exactly(max_share) * lines))


def freeze(
    ranked: Sequence[Line],
    pool_hash: str,
    *,
    precision: Sequence[float],
    max_share: float,
    delta: float = 0.05,
    labels: int,
    looks: int = 1,
    groups: bool = False,
    left_out: int = 0,
) -> Frozen:
    """Fix everything before the first label.

    Args:
        ranked: the pool, best score first (`Pool.ranked`), without lines labelled before.
        pool_hash: of the whole source.
        precision: one statement for each; above 0, at most 1.
        max_share: the largest share of the pool anyone would accept, above 0, at most 1.
        delta: how often the whole procedure may err, 0..0.5.
        labels: lines to be labelled, drawn from the best `max_share`.
        looks: how often the labels may be tested on the way, at equal steps.
        groups: a statement for each `Line.group` instead of one for the pool.
        left_out: lines that left the pool because they had been labelled.

    Raises:
        InputError: one of these is out of its range, or a line has no group where it should.
    """
    check_numbers(precision, max_share, delta)
    top = top_lines(len(ranked), max_share)
    if not FEWEST_LABELS <= labels <= top:
        raise InputError(
            f"expected {FEWEST_LABELS} to {top:,} labels, drawn from the best {max_share:.0%} of "
            f"{len(ranked):,} lines; got {labels:,}; give another number or a larger share"
        )
    if not 1 <= looks <= labels // FEWEST_LABELS:
        raise InputError(
            f"expected 1 to {labels // FEWEST_LABELS} looks at {labels:,} labels; got {looks}"
        )
    names: set[str] = set()
    if groups:
        for line in ranked[:top]:
            if line.group is None:
                raise InputError(
                    f"expected a group on every line; row {line.number} has none; fill it in"
                )
            names.add(line.group)
    steps = tuple(round(labels * look / looks) for look in range(1, looks + 1))
    return Frozen(
        pool_hash, len(ranked), tuple(precision), max_share, delta, steps, tuple(sorted(names)),
        left_out,
    )  # fmt: skip


def check_numbers(precision: Sequence[float], max_share: float, delta: float) -> None:
    """Refuse a precision, share or error rate that is out of its range (InputError)."""
    for what, value in [*(("precision", one) for one in precision), ("max-share", max_share)]:
        if not 0 < value <= 1:
            raise InputError(f"expected a {what} above 0 and at most 1; got {value:g}")
    if not 0 < delta <= 0.5:
        raise InputError(f"expected a delta above 0 and at most 0.5; got {delta:g}")


# ---------------------------------------------------------------------------------- the certificate


@dataclass(frozen=True, slots=True)
class Labelling:
    """Where the labels came from, as far as it is known."""

    draw: str | None = None  # None: a column of the user's table
    who: tuple[str, ...] = ()
    since: str = ""  # dates, YYYY-MM-DD
    until: str = ""
    instructions: str = ""

    def __str__(self) -> str:
        if self.draw is None:
            return "the labels are a column of the file; who wrote them, when and how is not known"
        told = [f"by {', '.join(self.who)}"] if self.who else []
        if self.since:
            told.append(self.since if self.since == self.until else f"{self.since} to {self.until}")
        told.append(f"instructions: {self.instructions or 'not recorded'}")
        return ", ".join(told)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was tested, and what may be said. `certified` False: nothing may."""

    certified: bool
    kept: int  # lines of the certified top part
    precision_target: float
    delta: float  # of the whole procedure, with all its statements and looks
    level: float  # of this statement at one look
    labels_used: int  # labelled lines the test could use
    sentence: str
    cut_score: float | None  # of the last certified line
    source: str
    pool_hash: str
    pool: int  # lines
    top: int  # lines drawn from
    max_share: float
    group: str | None
    precisions: tuple[float, ...]  # all that share delta, as do groups and looks
    groups: tuple[str, ...]
    looks: tuple[int, ...]
    look: int  # labels at the look that is told
    labelling: Labelling
    labels_hash: str  # of the labels of that look
    tested: tuple[str, ...]  # the same for every look that was tested, in order
    line_ids_hash: str  # SHA-256 of the file of ids
    estimate: float | None  # share valid of the labelled lines of the told top part
    low: float  # its exact 95 % interval
    high: float
    tests: tuple[CutTest, ...]
    made_at: str
    left_out: int = 0
    columns: Mapping[str, str | None] = field(default_factory=dict)  # of a table
    voided: Mapping[str, str] | None = None  # {"at": ..., "why": ...}
    line_ids: tuple[str, ...] = field(default=(), repr=False)

    def holds(self, line_id: str) -> bool:
        """Whether it speaks of this line."""
        return line_id in self.line_ids

    def to_json(self) -> dict[str, Any]:
        """All but the ids of the lines, which lie in a file beside."""
        return {key: value for key, value in asdict(self).items() if key != "line_ids"}

    @classmethod
    def from_json(cls, row: Mapping[str, Any], line_ids: Iterable[str] = ()) -> Certificate:
        """What `to_json` gave.

        Raises:
            InputError: it is no certificate.
        """
        try:
            given = dict(row)
            given["labelling"] = Labelling(**{**row["labelling"],
                                              "who": tuple(row["labelling"]["who"])})  # fmt: skip
            given["tests"] = tuple(CutTest(**one) for one in row["tests"])
            given |= {
                name: tuple(row[name]) for name in ("precisions", "groups", "looks", "tested")
            }
            return cls(**given, line_ids=tuple(line_ids))
        except (KeyError, TypeError) as error:
            raise InputError(
                "expected a certificate as this program writes it; got one with a fault at "
                f"{error}; restore the file"
            ) from error


def certify(
    ranked: Sequence[Line],
    frozen: Frozen,
    labels: Sequence[tuple[str, LabelWord]],
    *,
    source: str,
    labelling: Labelling,
    columns: Mapping[str, str | None] | None = None,
) -> list[Certificate]:
    """Test what was frozen on the labels there are: one result for each statement.

    Every look whose labels are complete is tested; the largest top part that any of them certifies
    is told, for all of them hold together.

    Args:
        ranked: the frozen pool, best first, as it was frozen.
        frozen: what was fixed.
        labels: line ids and words in the order in which they were drawn; "unsure" counts as
            invalid. As many as one of the looks at least.
        source: the name of the pool.
        labelling: where the labels came from.
        columns: of the table that were read.

    Raises:
        InputError: fewer labels than the first look needs.
    """
    due = [look for look in frozen.looks if look <= len(labels)]
    if not due:
        raise InputError(
            f"expected {frozen.looks[0]:,} labels at the first look; got {len(labels):,}; label "
            f"{frozen.looks[0] - len(labels):,} more"
        )
    top = ranked[: frozen.top]
    tested = tuple(labels_hash(labels[:look]) for look in due)
    found = []
    for group in frozen.groups or (None,):
        mine = [line for line in top if group is None or line.group == group]
        for precision in frozen.precisions:
            told = [_look(mine, frozen, labels, look, precision) for look in due]
            look, best = max(zip(due, told, strict=True), key=lambda one: (_kept(one[1]), one[0]))
            one = _certificate(mine, frozen, labels[:look], best, precision, group)
            one = replace(one, source=source, labelling=labelling, tested=tested,
                          columns=dict(columns or {}))  # fmt: skip
            found.append(replace(one, sentence=_sentence(one, frozen)))
    return found


def _look(
    mine: Sequence[Line], frozen: Frozen, labels: Sequence[tuple[str, LabelWord]], look: int,
    precision: float,
) -> list[CutTest]:  # fmt: skip
    ranks, bad = _places(mine, labels[:look])
    share = look / frozen.top
    first = min(len(mine), math.ceil(FIRST_SHARE * frozen.lines))
    sizes = fix_cuts(len(mine), first, share, precision, frozen.level)
    return walk_cuts(sizes, ranks, bad, precision, frozen.level)


def _places(
    mine: Sequence[Line], labels: Sequence[tuple[str, LabelWord]]
) -> tuple[list[int], list[int]]:
    """The places of the labelled lines among these, from 1, and of the invalid ones."""
    words = dict(labels)
    ranks = [place for place, line in enumerate(mine, start=1) if line.id in words]
    return ranks, [place for place in ranks if words[mine[place - 1].id] != "valid"]


def _kept(tests: Sequence[CutTest]) -> int:
    return max((one.size for one in tests if one.passed), default=0)


def _certificate(
    mine: Sequence[Line],
    frozen: Frozen,
    labels: Sequence[tuple[str, LabelWord]],
    tests: Sequence[CutTest],
    precision: float,
    group: str | None,
) -> Certificate:
    kept = _kept(tests)
    ids = tuple(sorted(line.id for line in mine[:kept]))
    told = next((one for one in reversed(tests) if one.passed), tests[-1])
    valid = told.labelled - told.invalid
    low, high = precision_interval(told.size, told.labelled, told.invalid)
    return Certificate(
        certified=kept > 0,
        kept=kept,
        precision_target=precision,
        delta=frozen.delta,
        level=frozen.level,
        labels_used=len(_places(mine, labels)[0]),
        sentence="",
        cut_score=mine[kept - 1].score if kept else None,
        source="",
        pool_hash=frozen.pool_hash,
        pool=frozen.lines,
        top=len(mine),
        max_share=frozen.max_share,
        group=group,
        precisions=frozen.precisions,
        groups=frozen.groups,
        looks=frozen.looks,
        look=len(labels),
        labelling=Labelling(),
        labels_hash=labels_hash(labels),
        tested=(),
        line_ids_hash=hashlib.sha256(_ids_text(ids).encode()).hexdigest(),
        estimate=valid / told.labelled if told.labelled else None,
        low=low,
        high=high,
        tests=tuple(tests),
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        left_out=frozen.left_out,
        line_ids=ids,
    )


def labels_hash(labels: Iterable[tuple[str, LabelWord]]) -> str:
    """Of which lines were labelled what."""
    return hashlib.sha256(json.dumps(sorted(labels)).encode()).hexdigest()[:16]


def _sentence(c: Certificate, frozen: Frozen) -> str:
    """The whole statement in words; it is printed wherever its number is."""
    where = f"the {c.top:,} best-scored of {c.pool:,} lines"
    if c.group is not None:
        where = f"the {c.top:,} lines of group {c.group!r} among the best {c.max_share:.0%}"
    if not c.certified:
        last = c.tests[-1]
        return (
            f"Nothing is certified: {last.invalid:,} of the {last.labelled:,} labelled lines among "
            f"the best {last.size:,} are invalid or unsure, which does not show that at least "
            f"{_percent(c.precision_target)} of these would be marked valid (p = {last.p:.2g}; at "
            f"most {c.level:.2g} was needed). It says nothing of how many are."
        )
    start = ""
    if c.labelling.draw is None:
        start = (
            f"If the {c.labels_used:,} labelled lines were drawn at random from {where}, and no "
            "label had a part in making, choosing or cutting by the score, then: "
        )
    of_group = "" if c.group is None else f" of group {c.group!r}"
    parts = [
        f"{start}Of these {c.kept:,} frozen lines{of_group} (hash {c.line_ids_hash[:12]}), at "
        f"least {_percent(c.precision_target)} would be marked valid by this labelling procedure "
        f"({c.labelling}).",
    ]
    statements = len(frozen.precisions) * max(len(frozen.groups), 1)
    shared = f", all {statements} statements together," if statements > 1 else ""
    shared += f" with {len(c.looks)} looks fixed beforehand," if len(c.looks) > 1 else ""
    parts.append(
        f"The procedure that says so{shared} errs in at most {_percent(c.delta)} of its uses."
    )
    if c.left_out:
        parts.append(f"{c.left_out:,} lines labelled before had left the pool.")
    parts.append(
        "It says nothing about other lines, later rounds, the student, or other concepts, nor "
        "about these lines once one is added or removed."
    )
    return " ".join(parts)


# --------------------------------------------------------------------------------- on the disk


def write_certificate(home: Path, certificate: Certificate) -> Path:
    """Write HOME/certificates/NAME.json, and NAME.ids with the ids of its lines, one a row.

    The name follows from what was tested on which labels, so that a repeat takes its own place.

    Raises:
        RunError: it cannot be written.
    """
    c = certificate
    marks = [c.pool_hash, c.group, c.precision_target, c.max_share, c.level, c.looks, c.labels_hash,
             c.labelling.draw]  # fmt: skip
    name = hashlib.sha256(json.dumps(marks).encode()).hexdigest()[:12]
    path = home / "certificates" / f"{name}.json"
    if c.line_ids:
        write_aside(path.with_suffix(".ids"), _ids_text(c.line_ids))
    write_aside(path, json.dumps(c.to_json(), indent=1, ensure_ascii=False) + "\n")
    return path


def read_certificates(home: Path) -> list[tuple[Path, Certificate]]:
    """What was tested on a source, oldest first: also what failed, and what was voided.

    Raises:
        InputError: a file that cannot be read, or whose ids are not the ones it was made for.
    """
    found = []
    for path in sorted((home / "certificates").glob("*.json")):
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            beside = path.with_suffix(".ids")
            ids = beside.read_text(encoding="utf-8") if row["certified"] else ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"expected a certificate at {path} with its ids beside it; got: {error}; restore "
                "or remove it"
            ) from error
        certificate = Certificate.from_json(row, map(json.loads, ids.splitlines()))
        if hashlib.sha256(ids.encode()).hexdigest() != certificate.line_ids_hash:
            raise InputError(
                f"expected in {path.with_suffix('.ids')} the ids that {path.name} was made for; "
                "they were changed; restore the file or remove both"
            )
        found.append((path, certificate))
    return sorted(found, key=lambda one: (one[1].made_at, one[0].name))


def void_outdated(pool: Pool) -> None:
    """Void the certificates of a pool that has changed since it was frozen."""
    for path, one in read_certificates(pool.home):
        if one.certified and one.voided is None and one.pool_hash != pool.hash:
            void(path, f"the lines of {pool.source.name} are not those that were frozen")


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


def write_aside(path: Path, text: str) -> None:
    """Write a file beside and rename it, so that it is whole or not there (RunError)."""
    aside = path.with_name(path.name + ".aside")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    except OSError as error:
        raise RunError(
            f"expected to write {path}; got: {error.strerror or error}; check the disk and its "
            "permissions"
        ) from error


def _ids_text(ids: Sequence[str]) -> str:
    """One id a row, as JSON, for an id may hold anything."""
    return "".join(json.dumps(one) + "\n" for one in ids)


def _percent(share: float) -> str:
    return f"{float(100 * exactly(share)):g} %"
