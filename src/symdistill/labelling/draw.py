"""Which lines are shown to people, and in which order.

Takes the lines of a pool; gives a `Draw`. A simple random sample without replacement is the only
kind from which a precision may be certified or estimated. Lines for training may be picked near
the cut or by disagreement, where a label teaches most; such lines say nothing about the pool, so
no line is drawn both for training and for a certificate or an audit (`taken_for`).

The order is a hash of the purpose, the seed and the line's id, which is as good as random, blind to
score and the same in every version: the first 300 lines of a random draw of 500 are the random
draw of 300. Costs about 5 s for a million lines.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from symdistill.errors import InputError
from symdistill.labelling.store import Draw, LabelStore, Purpose, Shown
from symdistill.pool import Line
from symdistill.records import content_hash

How = Literal["random", "near_cut", "disagreement"]


def random_draw(
    lines: Sequence[Line],
    n: int,
    seed: int,
    *,
    purpose: Purpose,
    pool_hash: str,
    repeats: int = 0,
    plan: Mapping[str, Any] | None = None,
) -> Draw:
    """A simple random sample without replacement, in random order.

    Args:
        lines: what it is drawn from, in any order; each id once.
        n: lines to draw, 1 to all.
        seed: another seed, another sample.
        purpose: what it is for.
        pool_hash: of the pool that the lines are from.
        repeats: lines shown a second time at the end.
        plan: what to keep with the draw besides how it was drawn.

    Raises:
        InputError: n is below 1 or above the number of lines.
    """
    if not 1 <= n <= len(lines):
        raise InputError(
            f"expected 1 to {len(lines):,} lines to draw; got {n:,}; ask for fewer, or give more "
            "lines"
        )
    drawn = _shuffled(lines, purpose, seed, pool_hash)[:n]
    told = {"how": "random", "population": len(lines), **(plan or {})}
    return _made(drawn, purpose, seed, pool_hash, told, repeats)


def training_draw(
    lines: Sequence[Line],
    n: int,
    seed: int,
    *,
    how: How,
    pool_hash: str,
    cut: float | None = None,
    second_scores: Mapping[str, float] | None = None,
    taken: Collection[str] = frozenset(),
    repeats: int = 0,
    plan: Mapping[str, Any] | None = None,
) -> Draw:
    """Lines to learn from, in random order; fewer than n where there are no more.

    Args:
        lines: what they are picked from.
        n: lines to pick, at least 1.
        seed: of the random picks, of ties and of the order.
        how: "random"; "near_cut", those whose scores are nearest to the cut; "disagreement", those
            whose places in the order of the two scores are furthest apart.
        pool_hash: of the pool that the lines are from.
        cut: a score; None: the median score.
        second_scores: line id -> another score of the line, on any scale.
        taken: ids that may not be drawn (`taken_for`).
        repeats: lines shown a second time at the end; at most as many as are drawn.
        plan: what to keep with the draw besides how it was drawn.

    Raises:
        InputError: no line is left, or the cut or a score that is needed is no finite number.
    """
    if n < 1:
        raise InputError(f"expected at least 1 line to draw; got {n}; ask for more")
    if cut is not None and not math.isfinite(cut):
        raise InputError(f"expected a finite number as the cut; got {cut}; give a score")
    taken = frozenset(taken)
    left = _shuffled([one for one in lines if one.id not in taken], "train", seed, pool_hash)
    if not left:
        raise InputError(
            f"expected lines that are not drawn yet; all {len(lines):,} are, for training, a "
            "certificate or an audit; add lines"
        )
    told = how.replace("_", " ")
    if how == "near_cut":
        scores = _finite({one.id: one.score for one in left}, "a score")
        middle = statistics.median(scores.values()) if cut is None else cut
        left.sort(key=lambda one: abs(scores[one.id] - middle))
        told = f"near the cut {middle:g}"
    elif how == "disagreement":
        first = _places(_finite({one.id: one.score for one in left}, "a score"))
        given = second_scores or {}
        second = _places(_finite({one.id: given.get(one.id) for one in left}, "a second score"))
        left.sort(key=lambda one: -abs(first[one.id] - second[one.id]))
    drawn = _shuffled(left[:n], "train", seed, pool_hash)
    kept = {"how": told, "population": len(lines), "left_out": len(lines) - len(left)}
    most = min(repeats, len(drawn))
    return _made(drawn, "train", seed, pool_hash, {**kept, **(plan or {})}, most)


def imported_draw(lines: Sequence[Line], *, pool_hash: str) -> Draw:
    """Lines that somebody labelled elsewhere: for training, however they were picked."""
    return _made(lines, "train", 0, pool_hash, {"how": "imported"}, 0)


def taken_for(store: LabelStore, purpose: Purpose) -> set[str]:
    """The lines that may not be drawn for this purpose.

    For training: those of every draw there is. For anything else: those drawn for training.
    """
    return store.drawn_ids() if purpose == "train" else store.drawn_ids("train")


def _shuffled(lines: Sequence[Line], purpose: Purpose, seed: int, pool_hash: str) -> list[Line]:
    """In an order of the pool's own.

    Were the pool no part of it, who removes the lines that a first draw found invalid and draws
    again would be shown the valid ones first.
    """
    return sorted(lines, key=lambda one: content_hash([purpose, seed, pool_hash, one.id], 32))


def _made(
    lines: Sequence[Line],
    purpose: Purpose,
    seed: int,
    pool_hash: str,
    plan: Mapping[str, Any],
    repeats: int,
) -> Draw:
    items = tuple(Shown(one.id, one.text, one.question) for one in lines)
    mark = content_hash([purpose, seed, pool_hash, plan, [one.line_id for one in items]], 8)
    made_at = datetime.now(UTC).isoformat(timespec="seconds")
    return Draw(f"{purpose}-{mark}", purpose, made_at, seed, pool_hash, plan, items, repeats)


def _finite(scores: Mapping[str, float | None], what: str) -> dict[str, float]:
    found = {id: one for id, one in scores.items() if one is not None and math.isfinite(one)}
    if len(found) < len(scores):
        raise InputError(
            f"expected {what} on every line; {len(scores) - len(found):,} of {len(scores):,} have "
            "no finite one; name its column, or draw at random"
        )
    return found


def _places(scores: Mapping[str, float]) -> dict[str, float]:
    """Each line's place in the order of the scores, 0..1; ties share the middle of theirs."""
    ordered = sorted(scores.values())
    n = len(ordered)
    return {
        id: (bisect.bisect_left(ordered, one) + bisect.bisect_right(ordered, one)) / (2 * n)
        for id, one in scores.items()
    }
