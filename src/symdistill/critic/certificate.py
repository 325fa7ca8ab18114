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
lines that are not in the pool. Nothing is read or written here: `kept_certificates.py` does that.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any

from symdistill.critic.fixed_sequence import (
    FIRST_SHARE,
    CutTest,
    exactly,
    fewest_bad,
    fix_cuts,
    least_labels,
    p_value,
    precision_interval,
    walk_cuts,
)
from symdistill.errors import InputError
from symdistill.pool import LabelWord, Line
from symdistill.visible import visible

__all__ = [
    "Certificate",
    "Frozen",
    "Labelling",
    "certify",
    "freeze",
    "precision_interval",
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
    check_labels(labels, len(ranked), max_share)
    top = top_lines(len(ranked), max_share)
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
            meant = f"; did you mean {value / 100:g}" if 1 < value <= 100 else ""
            raise InputError(f"expected a {what} above 0 and at most 1; got {value:g}{meant}")
    if not 0 < delta <= 0.5:
        raise InputError(f"expected a delta above 0 and at most 0.5; got {delta:g}")


def check_labels(labels: int, lines: int, max_share: float) -> None:
    """Refuse a number of labels that cannot be drawn, or that shows nothing (InputError)."""
    top = top_lines(lines, max_share)
    if top < FEWEST_LABELS:
        are = "is 1" if top == 1 else f"are {top:,}"
        raise InputError(
            f"expected at least {FEWEST_LABELS} lines among the best {max_share:.0%} of {lines:,}; "
            f"there {are}; add lines or give a larger --max-share"
        )
    if not FEWEST_LABELS <= labels <= top:
        raise InputError(
            f"expected {FEWEST_LABELS} to {top:,} labels, drawn from the best {max_share:.0%} of "
            f"{lines:,} lines; got {labels:,}; give another number or a larger share"
        )


def cannot_pass(ranked: Sequence[Line], frozen: Frozen) -> dict[tuple[str | None, float], int]:
    """The statements, as (group, precision), that fail though every label should be valid.

    Each with the fewest labels in all, expected to fall on its group, with which it could pass.
    """
    top = ranked[: frozen.top]
    found: dict[tuple[str | None, float], int] = {}
    for group in frozen.groups or (None,):
        mine = sum(group is None or line.group == group for line in top)
        for precision in frozen.precisions:
            least = -(-least_labels(precision, frozen.level, mine) * len(top) // mine)
            if least > frozen.looks[-1]:
                found[group, precision] = least
    return found


def sunk_by_one(ranked: Sequence[Line], frozen: Frozen) -> dict[tuple[str | None, float], int]:
    """The statements, as (group, precision), that one invalid line at the first cut would end.

    Each with the labels that are expected at that cut, once all are given; not those that
    `cannot_pass`.
    """
    top = ranked[: frozen.top]
    share = frozen.looks[-1] / len(top)
    found: dict[tuple[str | None, float], int] = {}
    for group in frozen.groups or (None,):
        mine = sum(group is None or line.group == group for line in top)
        for precision in frozen.precisions:
            size = _sizes(mine, frozen, share, precision)[0]
            labels = min(round(size * share), size)
            bad = fewest_bad(size, precision)
            alone, none = p_value(size, bad, labels, 1), p_value(size, bad, labels, 0)
            if none <= frozen.level < alone:
                found[group, precision] = labels
    return found


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
        names = ", ".join(f'"{visible(name)}"' for name in self.who)
        told = [f"by {names}"] if self.who else []
        if self.since:
            told.append(self.since if self.since == self.until else f"{self.since} to {self.until}")
        told.append(f"instructions: {visible(self.instructions) or 'not recorded'}")
        return ", ".join(told)


def labelling_of(row: Mapping[str, Any]) -> Labelling:
    """From JSON."""
    return Labelling(**{**row, "who": tuple(row["who"])})


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
            given["labelling"] = labelling_of(row["labelling"])
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
    sizes = _sizes(len(mine), frozen, look / frozen.top, precision)
    return walk_cuts(sizes, ranks, bad, precision, frozen.level)


def _sizes(mine: int, frozen: Frozen, share: float, precision: float) -> tuple[int, ...]:
    first = min(mine, math.ceil(FIRST_SHARE * frozen.lines))
    return fix_cuts(mine, first, share, precision, frozen.level)


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
        line_ids_hash=hashlib.sha256(ids_text(ids).encode()).hexdigest(),
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


def ids_text(ids: Sequence[str]) -> str:
    """One id a row, as JSON, for an id may hold anything."""
    return "".join(json.dumps(one) + "\n" for one in ids)


def _percent(share: float) -> str:
    return f"{float(100 * exactly(share)):g} %"
