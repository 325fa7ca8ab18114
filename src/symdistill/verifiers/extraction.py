r"""The answer at the end of a text: where it is stated, what it says, or why there is none.

One idea: cut the text where the writer invents a next question, find the last place that states
an answer ("#### 5", "\boxed{5}", "So the answer is 5", "ANSWER: 5"), and read one answer of the
wanted kind there. Where no place does, the last sentences are read, and the result says so.

Takes a text, the kind of answer and the options; gives an `Extracted`: a value in canonical
spelling, or None and the reason. Two different answers in one statement are no answer; of two
statements the later one counts. Costs time linear in the text, about a second for a million
characters.

What it does not do: judge whether the answer is right (`check` does), read an answer that is only
implied ("he would not enjoy it" states no yes or no), or run anything it reads. The version goes up
with every change that alters what is read, so that figures name the reader they were made with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from symdistill.answers import AnswerKind
from symdistill.verifiers.reading import NOTHING, Reading, one_of, read, read_conclusion

EXTRACTOR_VERSION = 2
MAX_CHARACTERS = 1_000_000
MAX_STATEMENT = 2_000  # characters that are read behind an anchor
MAX_PLACES = 20  # anchors that are looked at, from the end

_NEXT_TURN = re.compile(
    r"\n[ \t]{0,8}(?:\#{1,4} ?|\*\*|<\|im_start\|>)?"
    r"(?:Q(?:uestion)?(?: ?\d{1,3})?:|(?:Human|User|Instruction)\b ?:|<\|(?:user|endoftext)\|>)",
    re.IGNORECASE,
)
_ANCHOR = re.compile(
    r"""\#{4} | <answer> | \\(?:boxed|fbox)\s{0,3}\{
    | \b(?: answer(?:\s{1,3}(?:choice|option|letter))?(?:\ to\ (?:the|this)\ (?:question|problem))?
            (?:\s{1,3}(?:is|would\ be|will\ be)\b|\s{0,2}(?:=|\*{0,2}:))
        | (?:(?<=final\s)|(?<=correct\s)|(?<=true\s)|(?<=right\s)|(?<=best\s)|(?<=closest\s))
          (?:choice|option)\s{1,3}is\b )
      \s{0,2}:?""",
    re.IGNORECASE | re.VERBOSE,
)
_LEAD = re.compile(  # what announces an anchor and belongs to its statement
    r"(?:\b(?:so|therefore|thus|hence|and|finally|in conclusion|(?:which|this|that) means)\b"
    r",?\s{1,3}(?:that\s{1,3})?)?(?:\b(?:the|my|our)\s{1,3})?"
    r"(?:\b(?:final|correct|true|right|best|closest)\s{1,3}){0,2}$",
    re.IGNORECASE,
)
_ENDS = re.compile(r"(?<=[^\s.])[.!?][\"”*)]{0,3}(?=\s)|</answer>")

_BLANKS = "".join(filter(str.isspace, map(chr, range(0x3001))))  # of all alphabets

CUT_OFF: Reading = (None, "cut off")


@dataclass(frozen=True, slots=True)
class Extracted:
    """What a text answers."""

    value: str | None  # in canonical spelling; None: no answer was found
    rationale: str  # the text before the statement of the answer; all of it where none is anchored
    anchored: bool  # stated behind an anchor, not read from the last sentences
    reason: str = ""  # why there is no value
    cut: bool = False  # an invented next question was cut off


def extract(
    text: str,
    kind: AnswerKind,
    choices: Sequence[str] = (),
    *,
    anchored_only: bool = False,
    complete: bool = True,
) -> Extracted:
    """The answer that a text ends with.

    Args:
        text: what a model wrote after the question.
        kind: what the question wants.
        choices: the options' texts, for kind "choice".
        anchored_only: read only what stands behind an anchor; right where the prompt sets the
            words of the final statement.
        complete: False where the writer was stopped by the token limit: the last sentences are
            then not a conclusion, and a statement that touches the end may lack its last digits.
    """
    if len(text) > MAX_CHARACTERS:
        return Extracted(None, "", anchored=False, reason="too long")
    turn = _NEXT_TURN.search(text, len(text) - len(text.lstrip()))
    kept = text[: turn.start()] if turn else text
    whole = complete or turn is not None
    options = tuple(choices)
    places = list(_ANCHOR.finditer(kept))[-MAX_PLACES:]
    for i, anchor in reversed(list(enumerate(places))):
        statement, end = _statement(kept, anchor)
        reading = read(statement, kind, options)
        if not whole and not kept[end:].strip() and (kept[-1:].isalnum() or not reading[0]):
            reading = CUT_OFF
        if reading != NOTHING:
            value, reason = _joined(kept, places[: i + 1], reading, kind, options)
            before = kept[: _beginning(kept, places[: i + 1])].rstrip(_BLANKS + "*")
            return Extracted(value, before, True, reason, turn is not None)
    if not whole:
        value, reason = CUT_OFF
    elif anchored_only:
        value, reason = NOTHING
    else:
        value, reason = read_conclusion(kept, kind, options)
    return Extracted(value, kept.rstrip(), False, reason, turn is not None)


def _statement(text: str, anchor: re.Match[str]) -> tuple[str, int]:
    """What is said behind an anchor, to the end of its sentence, and the place where that ends."""
    start, limit = anchor.end(), min(len(text), anchor.end() + MAX_STATEMENT)
    if anchor[0].endswith("{"):
        return _boxed(text, start, limit)
    while start < limit and (text[start].isspace() or text[start] in "*:"):
        start += 1  # "**Answer:**\nB"
    if text.startswith("- ", start) and "\n" in text[anchor.start() : start]:
        start += 2  # an item of a list, no minus
    line = text.find("\n", start, limit)
    end = line if line >= 0 else limit
    stop = _ENDS.search(text, start, end)
    end = stop.start() if stop else end
    inner = _ANCHOR.search(text, start, end)  # "the answer is $\boxed{5}$" is read at the box
    return text[start : inner.start() if inner else end], end


def _boxed(text: str, start: int, limit: int) -> tuple[str, int]:
    """What stands in a box, with its braces balanced; nothing where it is never closed."""
    depth = 1
    for place in range(start, limit):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return re.sub(r"^\s*\\text\w*\s*\{(.*)\}\s*$", r"\1", text[start:place]), place + 1
    return "", limit


def _joined(
    text: str,
    places: Sequence[re.Match[str]],
    reading: Reading,
    kind: AnswerKind,
    choices: tuple[str, ...],
) -> Reading:
    r"""The reading of the last place; "\boxed{3} or \boxed{4}" are two answers."""
    if len(places) > 1 and all(one[0].endswith("{") for one in places[-2:]) and reading[0]:
        statement, end = _statement(text, places[-2])
        other, _ = read(statement, kind, choices)
        if other and re.fullmatch(r"\W{0,5}(?:or|and)\W{0,5}", text[end : places[-1].start()]):
            return one_of([other, reading[0]])
    return reading


def _beginning(text: str, places: Sequence[re.Match[str]]) -> int:
    """Where the last statement begins: for a box, its sentence or the words that announce it."""
    start = _led(text, places[-1].start())
    for before in reversed(places[:-1]):
        if text[before.end() : start].strip(" \n\t*:$"):
            break
        start = _led(text, before.start())
    if not text[start:].startswith(("\\boxed", "\\fbox")):
        return start
    return max(text.rfind(mark, 0, start) for mark in ("\n", ". ", "! ", "? ")) + 1


def _led(text: str, start: int) -> int:
    """Where the words begin that lead to an anchor: "So the final" before "answer is"."""
    lead = _LEAD.search(text, max(0, start - 80), start)
    return lead.start() if lead else start
