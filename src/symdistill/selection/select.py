"""Which judged lines are kept: the rules in order, each refusal with its reason.

Takes candidates (a line with the scores that the recipe asked for), gives one decision each.
Pure: no model, no file. Costs about two milliseconds a line.

The first rule a line fails is its reason:

    unfinished     cut off before its sentence ended
    too short      fewer than `min_words` words
    critic         score below the cut
    specificity    says too little about its concept: below the floor
    swap           holds for other concepts as well: the critic accepts it with them put in
    repeat         kept in an earlier round already
    near repeat    much like a line of the same concept that was kept
    continuation   the same words were kept for enough other concepts
    per concept    the concept has its share
    per pattern    the prompt pattern has its share

`specificity`, `swap`, `continuation` and the two caps are the guards against drift: without them
a generator that imitates what a critic accepts learns to say little. They are our addition to
I2D2. Lines that pass the rules above the last four are taken best first,
by `order_by`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from symdistill.config import Count, Settings
from symdistill.records import normalise
from symdistill.selection.duplicates import NearDuplicates


class SelectionSettings(Settings):
    """What is kept of the lines that a critic accepts. `null` switches a rule off."""

    min_words: Count = Field(3, ge=0)
    """A statement has at least this many words."""

    specificity_quantile: float | None = Field(0.3, ge=0, le=1)
    """The floor on specificity is this quantile (0..1) of the accepted lines of round 0."""

    max_swap_accept_share: float | None = Field(0.67, ge=0, le=1)
    """Refuse a line that the critic accepts with more than this share of other concepts put in."""

    near_repeat: float = Field(0.7, gt=0, le=1)
    """Jaccard similarity of character trigrams from which two lines of a concept are one."""

    per_continuation: Count | None = Field(2, ge=1)
    """The same continuation is kept for at most this many concepts, over all rounds."""

    per_concept: Count | None = Field(8, ge=1)
    """At most this many lines per concept and round."""

    per_pattern_share: float | None = Field(0.25, ge=0, le=1)
    """At most this share of a round's accepted lines from one prompt pattern."""

    order_by: Literal["score", "specificity"] = "specificity"
    """What is taken first where a cap binds."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A judged line, with what the rules read."""

    id: str
    item_id: str
    text: str
    continuation: str
    pattern: str
    finished: bool
    score: float  # the critic's, 0..1
    specificity: float  # nats; NaN where it was not measured
    swap_accept_share: float  # 0..1; NaN where it was not measured


@dataclass(frozen=True, slots=True)
class Decision:
    """Kept, or refused with a reason: a rule's name, a colon, and the particulars."""

    id: str
    kept: bool
    reason: str

    @property
    def rule(self) -> str:
        """The rule that refused the line; "" if it was kept."""
        return self.reason.partition(":")[0]


def specificity_floor(
    candidates: Iterable[Candidate], *, cut: float, settings: SelectionSettings
) -> float | None:
    """The floor in nats, from the accepted lines of round 0; None where the rule is off.

    It is computed once and then held: a floor that moved with the rounds would sink with them.
    """
    if settings.specificity_quantile is None:
        return None
    accepted = [one.specificity for one in candidates if one.finished and one.score >= cut]
    accepted = [nats for nats in accepted if not math.isnan(nats)]
    if not accepted:
        return None
    return float(np.quantile(accepted, settings.specificity_quantile))


def select(
    candidates: Sequence[Candidate],
    *,
    cut: float,
    floor: float | None,
    settings: SelectionSettings,
    kept_before: Sequence[Candidate] = (),
) -> list[Decision]:
    """One decision per candidate, in the candidates' order.

    Args:
        candidates: the distinct lines of one round.
        cut: critic score from which a line is accepted.
        floor: specificity in nats below which a line is refused; None: no floor.
        settings: the rules.
        kept_before: what earlier rounds kept.
    """
    refused: dict[str, str] = {}
    known = {one.id for one in kept_before}
    accepted: list[Candidate] = []
    for one in candidates:
        reason = _refusal(one, cut, floor, settings)
        if reason is None and one.id in known:
            reason = "repeat: kept in an earlier round"
        if reason is None:
            accepted.append(one)
        else:
            refused[one.id] = reason
    per_pattern = math.inf
    if settings.per_pattern_share is not None:
        per_pattern = max(1, math.ceil(settings.per_pattern_share * len(accepted)))
    per_concept = math.inf if settings.per_concept is None else settings.per_concept
    per_continuation = math.inf if settings.per_continuation is None else settings.per_continuation

    near: dict[str, NearDuplicates] = {}
    said_of: defaultdict[str, set[str]] = defaultdict(set)  # continuation -> concepts
    for one in kept_before:
        near.setdefault(one.item_id, NearDuplicates(settings.near_repeat)).add(one.id, one.text)
        said_of[normalise(one.continuation)].add(one.item_id)
    concepts: Counter[str] = Counter()
    patterns: Counter[str] = Counter()
    for one in sorted(accepted, key=lambda one: _best_first(one, settings.order_by)):
        seen = near.setdefault(one.item_id, NearDuplicates(settings.near_repeat))
        twin = seen.find(one.text)
        said = normalise(one.continuation)
        others = len(said_of[said] - {one.item_id})
        if twin is not None:
            refused[one.id] = f"near repeat: of {twin}"
        elif others >= per_continuation:
            refused[one.id] = f"continuation: kept for {others} other concepts already"
        elif concepts[one.item_id] >= per_concept:
            refused[one.id] = f"per concept: {per_concept} lines kept in this round"
        elif patterns[one.pattern] >= per_pattern:
            refused[one.id] = f"per pattern: {per_pattern} lines of {one.pattern!r} in this round"
        else:
            seen.add(one.id, one.text)
            said_of[said].add(one.item_id)
            concepts[one.item_id] += 1
            patterns[one.pattern] += 1
    return [Decision(one.id, one.id not in refused, refused.get(one.id, "")) for one in candidates]


def _best_first(one: Candidate, field: str) -> tuple[bool, float, str]:
    """Sorts the highest first, what was not measured last, ties by id."""
    value: float = getattr(one, field)
    return (True, 0.0, one.id) if math.isnan(value) else (False, -value, one.id)


def _refusal(
    one: Candidate, cut: float, floor: float | None, settings: SelectionSettings
) -> str | None:
    """Why a line is refused whatever the others are, or None."""
    if not one.finished:
        return "unfinished: cut off before its sentence ended"
    words = len(one.text.split())
    if words < settings.min_words:
        return f"too short: {words} words, fewer than {settings.min_words}"
    if one.score < cut:
        return f"critic: score {one.score:.3f}, below the cut {cut:.3f}"
    if floor is not None and one.specificity < floor:
        return f"specificity: {one.specificity:.2f} nats, below the floor {floor:.2f}"
    most = settings.max_swap_accept_share
    if most is not None and one.swap_accept_share > most:
        return f"swap: accepted with {one.swap_accept_share:.0%} of other concepts put in"
    return None
