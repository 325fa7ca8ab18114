"""Audits: how much of what was kept is valid, and which of two sources is better.

Takes lines and a draw of them that people have answered (`store`); gives an estimate with an exact
interval, or of a comparison side by side an exact test. Costs milliseconds.

An audit is a simple random sample of the lines, shown blind to any score. Its interval holds for
the lines as they are, whatever was selected before and however alike the lines of a concept are:
chance is in the draw alone. "unsure" counts as invalid. Of several annotators the majority is
taken; where there is none, the line counts as unsure.

A comparison shows one line of each source, in an order that chance chose and without a name. Pairs
that neither side won are counted and shown, and take no part in the sign test (on answers to "which
is valid" it is McNemar's exact test).

An audit certifies nothing: it estimates, and may be repeated. Lines that were labelled to train a
critic are left out, because the critic knows them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from symdistill.errors import InputError
from symdistill.exact import precision_interval, share_interval, sign_test
from symdistill.labelling.draw import random_draw
from symdistill.labelling.store import Draw, Shown
from symdistill.pool import Line
from symdistill.records import content_hash, normalise

Ask = Literal["valid", "more", "better"]

QUESTIONS: Mapping[Ask, str] = {
    "valid": "Which of the two lines is valid?",
    "more": "Which of the two lines says more?",
    "better": "Which of the two lines is better?",
}
_WON: Mapping[Ask, str] = {"valid": "alone was valid", "more": "said more", "better": "was better"}


@dataclass(frozen=True, slots=True)
class Precision:
    """The share valid of some lines, estimated. Rates are 0..1."""

    lines: int  # from which was drawn
    drawn: int
    valid: int
    invalid: int
    unsure: int  # these count as invalid
    precision: float | None  # of those drawn; None: none was
    low: float
    high: float
    level: float  # the chance, at least, that low..high holds the truth
    groups: Mapping[str, Precision] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """The estimate in words."""
        if self.precision is None:
            return f"Of {self.lines:,} lines none was drawn; nothing can be said of them."
        unsure = f" ({self.unsure} unsure, counted as invalid)" if self.unsure else ""
        return (
            f"Of these {self.lines:,} lines an estimated {_percent(self.precision)} are valid "
            f"({self.level * 100:g} % interval {_percent(self.low)} to {_percent(self.high)}): "
            f"{self.valid} of {self.drawn} drawn at random{unsure}. An estimate, not a certificate."
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sources side by side. Rates are 0..1."""

    ask: Ask
    sources: tuple[str, str]
    pairs: int  # from which was drawn
    same: int  # further pairs whose two lines are the same text; they are not shown
    paired_by: Literal["question", "group", "chance"]
    drawn: int
    wins: tuple[int, int]
    both: int
    neither: int
    unsure: int
    win_shares: tuple[float | None, float | None]  # of the pairs that a side won
    low: float  # of the first source's win share
    high: float
    level: float
    p_value: float  # two-sided, of the sign test
    valid_shares: tuple[float, float] | None  # of each source's lines shown, if that was asked

    @property
    def sentence(self) -> str:
        """The result in words."""
        one, other = self.sources
        said = [
            f"Of {self.drawn} pairs drawn at random from {self.pairs:,}, the line of {one} "
            f"{_WON[self.ask]} in {self.wins[0]}, that of {other} in {self.wins[1]}; both "
            f"{self.both}, neither {self.neither}, unsure {self.unsure}."
        ]
        if self.valid_shares:
            said.append(
                f"Valid: {_percent(self.valid_shares[0])} of the lines of {one}, "
                f"{_percent(self.valid_shares[1])} of those of {other}."
            )
        if self.win_shares[0] is not None:
            said.append(
                f"{one} won {_percent(self.win_shares[0])} of the pairs that a side won "
                f"({self.level * 100:g} % interval {_percent(self.low)} to {_percent(self.high)}); "
                "sign test, exact and two-sided: "
                f"p = {self.p_value:.2g}."
            )
        if self.p_value > 1 - self.level:
            said.append("This does not tell the two apart.")
        else:
            said.append(f"{one if self.wins[0] > self.wins[1] else other} is ahead.")
        return " ".join(said)


def audit_draw(
    lines: Sequence[Line],
    n: int,
    seed: int,
    *,
    pool_hash: str,
    trained_on: Collection[str] = (),
    plan: Mapping[str, Any] | None = None,
) -> Draw:
    """A simple random sample of the lines, for an estimate; all of them where there are fewer.

    Args:
        lines: what was kept.
        n: lines to draw.
        seed: another seed, another sample.
        pool_hash: of the pool the lines are of.
        trained_on: ids of lines that were labelled to train a critic; they are left out.
        plan: more to be remembered.

    Raises:
        InputError: no line is left, or `n` is below 1.
    """
    left = _left(lines, trained_on, n)
    left_out = sorted({one.id for one in lines} & set(trained_on))
    told = {"left_out_ids": left_out, **(plan or {})}
    return random_draw(
        left, min(n, len(left)), seed, purpose="audit", pool_hash=pool_hash, plan=told
    )


def precision(
    draw: Draw,
    lines: Iterable[Line],
    verdicts: Mapping[str, str],
    *,
    by_group: bool = False,
    level: float = 0.95,
) -> Precision:
    """The share valid of the lines that a finished audit was drawn from.

    Given how many lines of a group were drawn, they are a random sample of the group; so the
    interval of each group holds, but each by itself, not all together.

    Args:
        draw: made by `audit_draw`.
        lines: those it was drawn from.
        verdicts: line id -> valid, invalid or unsure, of every line drawn.
        by_group: estimate each group, too.
        level: of the intervals, above 0 and below 1.

    Raises:
        InputError: a line has no answer yet; see `unanswered`.
    """
    _refuse_unfinished(draw, verdicts)
    left_out = set(draw.plan["left_out_ids"])
    left = [one for one in lines if one.id not in left_out]
    drawn = {one.line_id for one in draw.items}
    groups: dict[str, Precision] = {}
    if by_group:
        members: dict[str, list[Line]] = {}
        for one in left:
            members.setdefault(one.group or "", []).append(one)
        for group, of_it in sorted(members.items()):
            said = [verdicts[one.id] for one in of_it if one.id in drawn]
            groups[group] = _precision(len(of_it), said, level)
    whole = _precision(len(left), [verdicts[id] for id in drawn], level)
    return replace(whole, groups=groups)


def pairs_draw(
    one: Sequence[Line],
    other: Sequence[Line],
    n: int,
    seed: int,
    *,
    ask: Ask,
    sources: tuple[str, str],
    pool_hash: str,
    trained_on: Collection[str] = (),
    plan: Mapping[str, Any] | None = None,
) -> Draw:
    """A random sample of pairs, one line of each source, in random order and without names.

    Lines are paired within a question (or concept) where the sources share some, else within a
    group, else by chance; each line is in at most one pair. Pairs of the same text are not shown.
    Which line is whose stands in the draw's plan and is never shown.

    Args:
        one, other: the lines of the two sources.
        n: pairs to draw; all where there are fewer.
        seed: another seed, other pairs.
        ask: "valid", "more" (which says more) or "better".
        sources: what to call the two in the result.
        pool_hash: of both pools.
        trained_on: ids of lines that were labelled to train a critic; they are left out.
        plan: more to be remembered.

    Raises:
        InputError: no pair is left, `n` is below 1, or `ask` is another word.
    """
    if ask not in get_args(Ask):
        raise InputError(f"expected one of {', '.join(get_args(Ask))} to ask; got {ask!r}")
    rng = random.Random(f"{seed} pairs {pool_hash}")
    paired_by, pairs = _pairs(_left(one, trained_on, n), _left(other, trained_on, n), rng)
    shown = [pair for pair in pairs if normalise(pair[0].text) != normalise(pair[1].text)]
    if not shown:
        raise InputError(
            f"expected pairs of different lines; all {len(pairs)} pairs are the same text twice; "
            "compare other sources"
        )
    items, sides = [], {}
    for mine, theirs in rng.sample(shown, min(n, len(shown))):
        first_is_one = rng.random() < 0.5
        first, second = (mine, theirs) if first_is_one else (theirs, mine)
        id = content_hash(["pair", mine.id, theirs.id])
        question = mine.question if paired_by == "question" else None
        items.append(Shown(id, first.text, question, second.text))
        sides[id] = {"one": mine.id, "other": theirs.id, "first_is_one": first_is_one}
    told: dict[str, Any] = {
        "how": "random pairs",
        "ask": ask,
        "sources": list(sources),
        "population": len(shown),
        "same": len(pairs) - len(shown),
        "paired_by": paired_by,
        "sides": sides,
        **(plan or {}),
    }
    return Draw(
        id=f"compare-{content_hash([seed, pool_hash, told], 10)}",
        purpose="compare",
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=seed,
        pool_hash=pool_hash,
        plan=told,
        items=tuple(items),
    )


def comparison(draw: Draw, verdicts: Mapping[str, str], *, level: float = 0.95) -> Comparison:
    """Which source won a finished comparison, and whether chance alone would do as much.

    Args:
        draw: made by `pairs_draw`.
        verdicts: pair id -> first, second, both, neither or unsure, of every pair drawn.
        level: of the interval, above 0 and below 1; "ahead" is p <= 1 - level.

    Raises:
        InputError: a pair has no answer yet; see `unanswered`.
    """
    _refuse_unfinished(draw, verdicts)
    plan, counts = draw.plan, Counter[str]()
    for one in draw.items:
        said = verdicts[one.line_id]
        if said in ("first", "second"):
            first_won, first_is_one = said == "first", plan["sides"][one.line_id]["first_is_one"]
            said = "one" if first_won == first_is_one else "other"
        counts[said] += 1
    wins = counts["one"], counts["other"]
    decided, drawn = sum(wins), len(draw.items)
    low, high = share_interval(decided, wins[0], level)
    both = counts["both"]
    return Comparison(
        ask=plan["ask"],
        sources=(plan["sources"][0], plan["sources"][1]),
        pairs=plan["population"],
        same=plan["same"],
        paired_by=plan["paired_by"],
        drawn=drawn,
        wins=wins,
        both=both,
        neither=counts["neither"],
        unsure=counts["unsure"],
        win_shares=(wins[0] / decided, wins[1] / decided) if decided else (None, None),
        low=low,
        high=high,
        level=level,
        p_value=sign_test(*wins),
        valid_shares=((wins[0] + both) / drawn, (wins[1] + both) / drawn)
        if plan["ask"] == "valid"
        else None,
    )


def unanswered(draw: Draw, verdicts: Mapping[str, str]) -> int:
    """Lines of the draw that nobody has answered yet."""
    return sum(one.line_id not in verdicts for one in draw.items)


def as_json(result: Precision | Comparison) -> dict[str, Any]:
    """The result for JSON, with its sentence."""
    return {"sentence": result.sentence, **asdict(result)}


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _refuse_unfinished(draw: Draw, verdicts: Mapping[str, str]) -> None:
    if left := unanswered(draw, verdicts):
        raise InputError(
            f"expected an answer to each of the {len(draw.items)} drawn; {left} have none; answer "
            "them all: an estimate that is looked at on the way and stopped when it pleases is not "
            "of a random sample"
        )


def _left(lines: Sequence[Line], trained_on: Collection[str], n: int) -> list[Line]:
    if n < 1:
        raise InputError(f"expected to draw at least 1; got {n}; ask for more")
    gone = set(trained_on)
    left = [one for one in lines if one.id not in gone]
    if not left:
        raise InputError(
            f"expected lines that no critic was trained on; all {len(lines)} were labelled for "
            "training; generate more, or leave some unlabelled"
        )
    return left


def _precision(lines: int, said: Sequence[str], level: float) -> Precision:
    counts, drawn = Counter(said), len(said)
    low, high = precision_interval(lines, drawn, drawn - counts["valid"], level)
    return Precision(
        lines=lines,
        drawn=drawn,
        valid=counts["valid"],
        invalid=counts["invalid"],
        unsure=counts["unsure"],
        precision=counts["valid"] / drawn if drawn else None,
        low=low,
        high=high,
        level=level,
    )


Pairs = list[tuple[Line, Line]]


def _pairs(
    one: Sequence[Line], other: Sequence[Line], rng: random.Random
) -> tuple[Literal["question", "group", "chance"], Pairs]:
    """Pairs, each line in at most one, and what the two lines of a pair have in common.

    They do not depend on the order of the lines.
    """
    one, other = (sorted(lines, key=lambda line: line.id) for lines in (one, other))
    by: Literal["question", "group"]
    for by in ("question", "group"):
        mine, theirs = _by_key(one, by), _by_key(other, by)
        shared = [key for key in mine if key in theirs]
        if shared:
            return by, [pair for key in shared for pair in _matched(mine[key], theirs[key], rng)]
    return "chance", _matched(one, other, rng)


def _by_key(lines: Sequence[Line], by: Literal["question", "group"]) -> dict[str, list[Line]]:
    found: dict[str, list[Line]] = {}
    for line in lines:
        if key := line.question if by == "question" else line.group:
            found.setdefault(normalise(key), []).append(line)
    return dict(sorted(found.items()))


def _matched(one: Sequence[Line], other: Sequence[Line], rng: random.Random) -> Pairs:
    fewer = min(len(one), len(other))
    return list(zip(rng.sample(one, fewer), rng.sample(other, fewer), strict=True))
