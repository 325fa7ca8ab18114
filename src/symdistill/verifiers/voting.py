"""Votes of several answers, and the agreement of two (no gold answer needed).

Self-consistency (https://arxiv.org/abs/2203.11171) takes the answer most samples reach; agreement
of two sources selects training texts in weak-to-strong reasoning
(https://arxiv.org/abs/2407.13647). A text without an answer neither votes nor agrees. Costs
nothing. Answers are counted as one where their spellings say the same value; LaTeX that only a
computation shows to be equal is counted apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from symdistill.answers import AnswerKind, key
from symdistill.verifiers.equality import equal


@dataclass(frozen=True, slots=True)
class Vote:
    """What several answers amount to."""

    answer: str | None  # None: no one answered
    confidence: float  # the winner's share of those that answered; 0 where none did
    votes: int  # how many answered
    counts: Mapping[str, int]  # votes by answer, in order of first appearance
    tied: bool  # another answer has as much; the one given first won


def vote(
    answers: Sequence[str | None],
    kind: AnswerKind,
    *,
    confidences: Sequence[float] | None = None,
) -> Vote:
    """The answer with the most votes; ties go to the one given first.

    Args:
        answers: one for each sample, None where it has none.
        kind: what the question wants.
        confidences: weights of the samples, at least 0; without them all weigh the same.

    Raises:
        ValueError: the weights are fewer or more than the answers.
    """
    weights = [1.0] * len(answers) if confidences is None else list(confidences)
    spelling: dict[str, str] = {}
    counts: dict[str, int] = {}
    weight: dict[str, float] = {}
    for answer, one in zip(answers, weights, strict=True):
        if answer:
            name = spelling.setdefault(key(kind, answer), answer)
            counts[name] = counts.get(name, 0) + 1
            weight[name] = weight.get(name, 0.0) + one
    if not counts:
        return Vote(None, 0.0, 0, {}, tied=False)
    best = max(weight, key=weight.__getitem__)  # the first of equals
    total = sum(weight.values())
    return Vote(
        best,
        weight[best] / total if total else 0.0,
        sum(counts.values()),
        counts,
        tied=sum(one == weight[best] for one in weight.values()) > 1,
    )


def agree(a: str | None, b: str | None, kind: AnswerKind) -> bool:
    """Whether both answered, and the same."""
    return bool(a and b) and equal(kind, str(a), str(b)) is True
