r"""Answers: the kinds there are, the one spelling of each, and what chance alone would get right.

A question is an `Item` of kind "question". Its `text` is the question without its options; its
fields hold `answer_kind` (one of `ANSWER_KINDS`) and, for kind "choice", `choices` (the options'
texts in order); its `gold` is the right answer in canonical spelling, or None where it is unknown.

    kind            canonical          also read
    number          "1234", "-0.5"     "$1,234.", "42.0", "60%", "two hundred"; "3/4", "(84 / 2)"
                    "1/3"              by their value; other LaTeX is left as it is
    choice          "B"                "(b)", "b.", "2" where no option says so, the option's text
    yes_no          "yes"              "Yes.", "no"; "true" and "false" are not read
    true_false      "true"             "True"
    valid_invalid   "invalid"          "Invalid."
    text            "yajc"             as it is, quotes and a final stop off; brackets stay

A number is exact: a decimal where it ends, else a fraction in lowest terms. What it does not do:
find an answer in a longer text, or simplify roots and symbols (the verifiers do both).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction
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
MAX_NUMBER = 200  # characters; a longer number is a fault of the text
MAX_DEPTH = 50  # brackets in an expression
_WRAPPED = re.compile(r"^[\s(\[{*_'\"“‘`]+|[\s)\]}*_'\"”’`.,:;!]+$")
_QUOTED = re.compile(r"^[\s*_'\"“‘`]+|[\s*_'\"”’`.,:;!]+$")
_PLAIN = (  # how LaTeX and print write what is computed here
    (re.compile(r"\\[()\[\]]|\\(?:left|right|text|mathrm)(?![a-z])|\\[,;!% ]|[$€£¥°%]"), ""),
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"((\1)/(\2))"),
    (re.compile(r"\\(?:times|cdot)(?![a-z])|[×·∙]"), "*"),
    (re.compile(r"\\div(?![a-z])|÷"), "/"),
    (re.compile(r"[−–]"), "-"),
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),
    (re.compile(r"(?<![\d./])(\d+)\s+(\d+/\d+)(?![\d.])"), r"(\1+\2)"),  # 1 1/2
)
_TOKEN = re.compile(r"\s*(?:((?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,2})?)|([-+*/()]))")
_SYMBOLS = re.compile(
    r"(?:\\[a-zA-Z]+|[\d\s+\-*/^_={}()\[\].,!|]|(?<![a-zA-Z])[a-zA-Z](?![a-zA-Z]))+"
)
_SMALL = re.findall(
    r"\w+",
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen",
)
_TENS = re.findall(r"\w+", "twenty thirty forty fifty sixty seventy eighty ninety")
NUMBER_WORDS = {word: i for i, word in enumerate(_SMALL)} | {
    f"{tens}{f'-{unit}' if unit else ''}": 20 + 10 * i + j
    for i, tens in enumerate(_TENS)
    for j, unit in enumerate(["", *_SMALL[1:10]])
}
FACTORS = {"hundred": 100, "thousand": 1_000, "million": 10**6, "billion": 10**9}


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
        return " ".join(_QUOTED.sub("", text).split()) or None
    word = bare.casefold()
    return word if word in PAIRS[kind] else None


def number(text: str) -> str | None:
    r"""A number in its one spelling ("1234", "-0.5", "1/3"); None: the text is none.

    Sums, products and fractions are computed, currency and percent signs dropped. LaTeX beyond
    that ("2\sqrt{3}") is returned with its white space single.
    """
    if len(text) > MAX_NUMBER:
        return None
    bare = _QUOTED.sub("", text.strip().rstrip("."))
    plain = bare
    for pattern, put in _PLAIN:
        plain = pattern.sub(put, plain)
    plain = plain.strip().rstrip(".")
    value = _computed(plain)
    if value is None:
        value = _spoken(plain)
    if value is not None:
        return spelt(value)
    if re.search(r"\\[a-zA-Z]|\d\s*\^\s*[\d{(]", bare) and _SYMBOLS.fullmatch(plain):
        return " ".join(bare.replace("$", "").split())
    return None


def spelt(value: Fraction) -> str | None:
    """The one spelling of a number; None where it takes more than `MAX_NUMBER` characters."""
    top, bottom = value.numerator, value.denominator
    places = bottom.bit_length()  # enough digits behind the point for any decimal that ends
    if abs(top).bit_length() + places > 3 * MAX_NUMBER:
        return None
    if 10**places % bottom:
        text = f"{top}/{bottom}"
    else:
        digits = str(abs(top) * 10**places // bottom).zfill(places + 1)
        decimal = f"{digits[:-places]}.{digits[-places:]}".rstrip("0").rstrip(".")
        text = f"-{decimal}" if top < 0 else decimal
    return text if len(text) <= MAX_NUMBER else None


def key(kind: AnswerKind, answer: str) -> str:
    """What two answers that are the same without any computing have in common.

    In texts, case, quotes, commas and white space make no difference: "] }" is "]}".
    """
    if kind == "number":
        return number(answer) or answer.strip()
    if kind == "choice":
        return answer.strip(" ().").upper()
    folded = unicodedata.normalize("NFKC", canonical("text", answer) or "").casefold()
    return re.sub(r"[\s,'\"‘’“”`]+", "", folded)


def chance_of(item: Item) -> float:
    """The chance that a guess is right: one over the options; 0 for open questions."""
    kind = kind_of(item)
    if kind == "choice":
        return 1 / len(choices_of(item))
    return 0.5 if kind in PAIRS else 0.0


def shown(item: Item, answer: str) -> str:
    """A canonical answer as a text shows it: a letter in brackets, everything else as it is."""
    return f"({answer})" if kind_of(item) == "choice" else answer


def _computed(text: str) -> Fraction | None:
    """The exact value of an expression of + - * / and brackets; None: it is none."""
    if text.count("(") > MAX_DEPTH:
        return None
    tokens: list[str | Fraction] = []
    place = 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if not found:
            return None
        tokens.append(Fraction(found[1]) if found[1] else found[2])
        place = found.end()
    tokens.reverse()  # taken from the end
    try:
        value = _sum(tokens)
    except (IndexError, ZeroDivisionError):
        return None
    return None if tokens else value


def _sum(tokens: list[str | Fraction]) -> Fraction:
    value = _product(tokens)
    while tokens and tokens[-1] in ("+", "-"):
        value += _product(tokens) if tokens.pop() == "+" else -_product(tokens)
    return value


def _product(tokens: list[str | Fraction]) -> Fraction:
    value = _one(tokens)
    while tokens and tokens[-1] in ("*", "/"):
        value = value * _one(tokens) if tokens.pop() == "*" else value / _one(tokens)
    return value


def _one(tokens: list[str | Fraction]) -> Fraction:
    sign = 1
    while tokens[-1] in ("+", "-"):
        sign = -sign if tokens.pop() == "-" else sign
    first = tokens.pop()
    if isinstance(first, Fraction):
        return sign * first
    value = _sum(tokens) if first == "(" else Fraction(0)
    if first != "(" or tokens.pop() != ")":
        raise IndexError
    return sign * value


def _spoken(text: str) -> Fraction | None:
    """What number words amount to: "two hundred and five", "three and a half million"."""
    words = re.sub(r"\band a half\b", "+half", text.casefold()).replace("-", " ").split()
    if len(words) > 1 and words[0] == "a":
        words[0] = "one"
    if words == ["zero"]:
        return Fraction(0)
    total, group, below = Fraction(0), Fraction(0), 10**12
    for before, word in zip(["", *words], words, strict=False):
        value, factor = NUMBER_WORDS.get(word, 0), FACTORS.get(word, 0)
        below_100 = group % 100
        if value and (not below_100 or (below_100 in range(20, 100, 10) and value < 10)):
            group += value
        elif word == "hundred" and 0 < group < 100:
            group *= factor
        elif factor and word != "hundred" and group and factor < below:
            total, group, below = total + group * factor, Fraction(0), factor
        elif word == "+half" and group.denominator == 1 and group:
            group += Fraction(1, 2)
        elif word != "and" or before not in FACTORS:
            return None
    return total + group if words and words[-1] != "and" else None


def _choice(text: str, bare: str, choices: Sequence[str]) -> str | None:
    wanted = normalise(text)
    same = [i for i, choice in enumerate(choices) if normalise(choice) == wanted]
    if same:  # the option's own text goes before everything else: options may be "B" or "3"
        return letter(same[0])
    if len(bare) == 1 and bare.isascii() and bare.isalpha():
        place = ord(bare.upper()) - ord("A")
        return letter(place) if place < len(choices) else None
    if re.fullmatch(r"[0-9]{1,2}", bare) and 1 <= int(bare) <= len(choices):
        return letter(int(bare) - 1)
    begun = re.fullmatch(r"\(?([A-Za-z])[).:]\s*(.+)", text, flags=re.DOTALL)
    if begun:  # "(b) swim"
        place = ord(begun[1].upper()) - ord("A")
        if place < len(choices) and normalise(choices[place]) == normalise(begun[2]):
            return letter(place)
    return None
