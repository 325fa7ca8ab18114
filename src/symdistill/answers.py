"""Answers: the kinds there are, the one spelling of each, and what chance alone would get right.

A question is an `Item` of kind "question". Its `text` is the question without its options; its
fields hold `answer_kind` (one of `ANSWER_KINDS`) and, for kind "choice", `choices` (the options'
texts in order); its `gold` is the right answer in canonical spelling, or None where it is unknown.

    kind            canonical          also read
    number          "1234", "-0.5"     "$1,234.", "42.0", "3/4", "60%", LaTeX left as it is
    choice          "B"                "(b)", "b.", "2" where no option says so, the option's text
    yes_no          "yes"              "Yes.", "no"; "true" and "false" are not read
    true_false      "true"             "True"
    valid_invalid   "invalid"          "Invalid."
    text            "yajc"             as it is, quotes and a final stop off

What it does not do: find an answer in a longer text (the verifiers do), or compare expressions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Literal, get_args

from symdistill.records import Item, normalise

AnswerKind = Literal["number", "choice", "yes_no", "true_false", "valid_invalid", "text"]
ANSWER_KINDS: tuple[AnswerKind, ...] = get_args(AnswerKind)
PAIRS: dict[str, tuple[str, str]] = {
    "yes_no": ("yes", "no"),
    "true_false": ("true", "false"),
    "valid_invalid": ("valid", "invalid"),
}
"""The kinds with two answers, and these."""

MAX_CHOICES = 26
_WRAPPED = re.compile(r"^[\s(\[{*_'\"“‘`]+|[\s)\]}*_'\"”’`.,:;!]+$")
_NUMBER = re.compile(r"[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-+−]?\.\d+")
_UNITS = re.compile(r"^[^\d\s.\-+−]{1,3}\s*(?=[-+−.\d])|\s*(?:%|°)$")


def kind_of(item: Item) -> AnswerKind:
    """The kind of answer that a question wants."""
    kind: AnswerKind = item.fields["answer_kind"]
    return kind


def choices_of(item: Item) -> tuple[str, ...]:
    """The options of a question, none where it is open."""
    return tuple(item.fields.get("choices") or ())


def letter(index: int) -> str:
    """The letter of an option: 0 is A."""
    return chr(ord("A") + index)


def canonical(kind: AnswerKind, text: str, choices: Sequence[str] = ()) -> str | None:
    """The one spelling of an answer that stands alone; None: it is no answer of this kind.

    Args:
        kind: what the question wants.
        text: the answer as a person or a table writes it, nothing around it.
        choices: the options' texts, for kind "choice".
    """
    bare = _WRAPPED.sub("", text)
    if kind == "choice":
        return _choice(text.strip(), bare, choices)
    if kind == "number":
        return number(text)
    if kind == "text":
        return " ".join(bare.split()) or None
    word = bare.casefold()
    return word if word in PAIRS[kind] else None


def number(text: str) -> str | None:
    """A decimal number in its shortest spelling ("1234", "-0.5"); None: the text is none.

    A currency sign before it and a percent or degree sign behind it are dropped.
    """
    bare = _UNITS.sub("", _WRAPPED.sub("", text.strip()))
    sign = "-" if text.strip().startswith(("-", "−")) and not bare.startswith(("-", "−")) else ""
    if not _NUMBER.fullmatch(bare):
        return None
    try:
        value = Decimal(sign + bare.replace(",", "").replace("−", "-"))
    except InvalidOperation:
        return None
    if value == value.to_integral_value():
        return str(int(value))
    return format(value.normalize(), "f")


def chance_of(item: Item) -> float:
    """The chance that a guess is right: one over the options; 0 for open questions."""
    kind = kind_of(item)
    if kind == "choice":
        return 1 / len(choices_of(item))
    return 0.5 if kind in PAIRS else 0.0


def shown(item: Item, answer: str) -> str:
    """A canonical answer as a text shows it: a letter in brackets, everything else as it is."""
    return f"({answer})" if kind_of(item) == "choice" else answer


def _choice(text: str, bare: str, choices: Sequence[str]) -> str | None:
    wanted = normalise(text)
    same = [i for i, choice in enumerate(choices) if normalise(choice) == wanted]
    if same:  # the option's own text goes before everything else: options may be "B" or "3"
        return letter(same[0])
    if len(bare) == 1 and bare.isascii() and bare.isalpha():
        place = ord(bare.upper()) - ord("A")
        return letter(place) if place < len(choices) else None
    if bare.isascii() and bare.isdigit() and 1 <= int(bare) <= len(choices):
        return letter(int(bare) - 1)
    begun = re.fullmatch(r"\(?([A-Za-z])[).:]\s*(.+)", text, flags=re.DOTALL)
    if begun:  # "(b) swim"
        place = ord(begun[1].upper()) - ord("A")
        if place < len(choices) and normalise(choices[place]) == normalise(begun[2]):
            return letter(place)
    return None
