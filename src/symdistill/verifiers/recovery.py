"""Can another model recover the gold answer from a rationale?

The check of KARD (https://arxiv.org/abs/2305.18395): a middle-sized model reads the question and
the rationale without its final statement, and must name the gold answer. It needs no answer in
the text, so it also serves rationales that were written with the gold answer in the prompt; those
may just restate it, and this says so. Takes a question and a rationale; gives the prompt to
complete, and a `Check` of what came back. Costs one short completion a rationale.

What it does not do: prove that the reasoning is right. A rationale of which the last sentence
gives the answer away is recovered however it got there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from symdistill.answers import choices_of, kind_of, letter, shown
from symdistill.errors import InputError
from symdistill.records import Item
from symdistill.verifiers.checking import Check, check
from symdistill.verifiers.extraction import extract

RESTATES = "restates the answer"
MIN_NEW_WORDS = 3  # a rationale with fewer words of its own says nothing
_CALCULATION = re.compile(r"\d\s*[-+*/×÷−x]\s*[$(]?\d|=")
_LITTLE = """
    a an and are as at be because been by can does each every for from had has have he her his i if
    in is it its means must my no not of on one only or our she since so some than that the their
    them then there therefore they this thus to was we were which who will with would yes you
    above answer below choice choices clearly correct definitely false final given hence invalid
    obviously option question reason right true valid
"""


def recovery_prompt(item: Item, rationale: str, shots: Sequence[tuple[Item, str]] = ()) -> str:
    """The text that a model completes with the answer.

    Args:
        item: the question.
        rationale: the reasoning, its final statement cut off (`Extracted.rationale`).
        shots: solved examples, a question with its gold answer and a rationale each.

    Raises:
        InputError: a solved example has no gold answer.
    """
    solved = []
    for example, reasoning in shots:
        if example.gold is None:
            raise InputError(
                f"expected solved examples; got a question without its answer "
                f"({example.text[:40]!r}); do: give it one or leave it out"
            )
        solved.append(f"{_asked(example, reasoning)} {shown(example, example.gold)}\n\n")
    return "".join(solved) + _asked(item, rationale)


def read_recovery(text: str, item: Item, rationale: str | None = None) -> Check:
    """Whether the completion names the gold answer.

    Args:
        text: what the model wrote behind the prompt; its first line counts.
        item: the question.
        rationale: what it read; where given, one that merely restates the answer is marked so in
            the check's reason, whether it was recovered or not.
    """
    line = text.strip().partition("\n")[0]
    found = check(item, extract(f"The answer is: {line}", kind_of(item), choices_of(item)))
    if rationale is not None and restates(item, rationale):
        return replace(found, reason=RESTATES)
    return found


def restates(item: Item, rationale: str) -> bool:
    """Whether a rationale holds no reasoning: no calculation, and hardly a word of its own.

    Its own words are those that neither the question nor the gold answer nor the little words of
    the language supply.
    """
    if _CALCULATION.search(rationale):
        return False
    known = _words(item.text) | _words(_answer_text(item)) | _words(_LITTLE)
    return len(_words(rationale) - known) < MIN_NEW_WORDS


def _asked(item: Item, rationale: str) -> str:
    choices = choices_of(item)
    options = "".join(f"\n({letter(i)}) {one}" for i, one in enumerate(choices))
    return f"Question: {item.text}{options}\nReasoning: {rationale.strip()}\nAnswer:"


def _answer_text(item: Item) -> str:
    """The gold answer, an option's text with its letter."""
    if item.gold is None:
        return ""
    choices = choices_of(item)
    place = ord(item.gold[:1] or "?") - ord("A")
    text = choices[place] if kind_of(item) == "choice" and 0 <= place < len(choices) else ""
    return f"{item.gold} {text}"


def _words(text: str) -> set[str]:
    """The words of a text without a plural's or a verb's ending, as far as that is easy."""
    return {
        re.sub(r"(?:es|s|ed|ing)$", "", one) or one for one in re.findall(r"\w+", text.casefold())
    }
