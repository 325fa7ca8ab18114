"""Is what a text answers right? A verdict with a status.

ok            the answer was compared with the gold one; no answer counts as wrong
unknown       the question has no gold answer
infra_error   the answers were not compared: no time was left, or math-verify is not installed
"""

from __future__ import annotations

from dataclasses import dataclass

from symdistill.answers import choices_of, kind_of
from symdistill.records import Item, Status, normalise
from symdistill.verifiers.equality import equal, why_undecided
from symdistill.verifiers.extraction import Extracted


@dataclass(frozen=True, slots=True)
class Check:
    """What comparing an answer with the gold one gave."""

    status: Status
    correct: bool | None  # None unless the status is "ok"
    answer: str | None
    reason: str = ""  # why there is no answer or no verdict


def check(item: Item, extracted: Extracted) -> Check:
    """Whether a text's answer is the question's gold answer.

    Where two options have the same text, either is right.
    """
    answer = extracted.value
    if item.gold is None:
        return Check("unknown", None, answer, extracted.reason or "no gold answer")
    if answer is None:
        return Check("ok", False, None, extracted.reason or "no answer")
    kind, choices = kind_of(item), choices_of(item)
    same = equal(kind, item.gold, answer)
    if same is None:
        return Check("infra_error", None, answer, why_undecided())
    if kind == "choice" and not same:
        same = _text(item.gold, choices) == _text(answer, choices)
    return Check("ok", same, answer)


def _text(answer: str, choices: tuple[str, ...]) -> str:
    """The text of a lettered option; the letter where there is none."""
    place = ord(answer[:1] or "?") - ord("A")
    return normalise(choices[place]) if 0 <= place < len(choices) else answer
