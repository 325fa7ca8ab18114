"""What a statement answers: one value of the wanted kind, or why there is none.

Takes the words behind an anchor (`read`), or a whole text without one (`read_conclusion`: its last
sentences), the kind of answer and the options; gives a value in canonical spelling or a reason.
Words around an answer are allowed, a second answer is not. Patterns look at a bounded number of
characters, so the time is linear in the text.

What it does not do: find the statement (`extract` does), or guess at what is only implied.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache

from symdistill.answers import (
    FACTORS,
    NUMBER_WORDS,
    PAIRS,
    AnswerKind,
    canonical,
    letter,
    number,
    spelt,
)
from symdistill.records import normalise

Reading = tuple[str | None, str]  # the value, or why there is none
NOTHING: Reading = (None, "no answer")
MAX_SENTENCE = 2_000  # characters
MAX_SENTENCES = 20  # looked at from the end, where nothing is anchored
LAST_SENTENCES = {"text": 3, "choice": 5}  # these kinds are easily seen where none is stated


def read(statement: str, kind: AnswerKind, choices: tuple[str, ...]) -> Reading:
    """The answer in a statement that stands behind an anchor."""
    bare = statement.replace("**", "").strip()
    if kind in ("choice", "number") and re.match(r"not\b", bare, re.IGNORECASE):
        return NOTHING
    if kind == "choice":
        return _choice(bare.replace("$", ""), choices)
    if kind == "number":
        value, reason = _number(bare)
        unread = value is None and reason == NOTHING[1] and re.search(r"\d", bare)
        return (None, f"not a number: {bare[:40].rstrip(' .')}") if unread else (value, reason)
    if kind == "text":
        quoted = re.fullmatch(r"[^\"“]{0,80}[\"“]([^\"”]{1,200})[\"”][.]?", bare)
        return _found(canonical("text", quoted[1] if quoted else bare))
    return _word(bare, kind)


def one_of(found: Iterable[str]) -> Reading:
    """The one answer among those found."""
    distinct = list(dict.fromkeys(found))
    if len(distinct) > 1:
        count = {2: "two", 3: "three"}.get(len(distinct), str(len(distinct)))
        return None, f"{count} answers: {', '.join(distinct)}"
    return (distinct[0], "") if distinct else NOTHING


def _found(value: str | None) -> Reading:
    return (value, "") if value else NOTHING


# -- numbers ------------------------------------------------------------------------------------

_DOLLARS = re.compile(r"\$?\s?(\d[\d,]*) dollars?,? and (\d{1,2}) cents?", re.IGNORECASE)
_EQUALS = re.compile(r"^(?:(?!\b(?:because|since|as|so|if|when)\b|[,;:]\s|\.\s)[^=\n]){0,200}=\s*")
_RUN = re.compile(
    r"(?<![\w.])(?:[-+−]\s?)?[$€£]?(?:[-+−(]\s?)*[$€£]?(?:\d|\.\d)"
    r"(?:[\d.,()+*/×÷−–%$\s-]{0,180}[\d)%])?"
)
_PLAIN_NUMBER = re.compile(r"[-−]?[$€£]?[-−]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|[-−]?\.\d+")
_LATEX = re.compile(r"\$([^$]{1,200})\$|\\\((.{1,200}?)\\\)")
_AND_A_HALF = re.compile(r"\s{1,2}and a half\b", re.IGNORECASE)
_TIMES = re.compile(rf"\s{{0,2}}({'|'.join(FACTORS)})\b", re.IGNORECASE)
_CLAUSE = re.compile(r"[\s,;]+(?:because|since|as|so|which|where|when|if|after|with|but|not)\b")
_NEXT_NUMBER = re.compile(
    r"(?:\s+[a-zA-Z]+){0,3}\s*(?:,|\bor\b|\band\b|\bto\b)\s*(?:[a-zA-Z]+\s+){0,2}"
    rf"\(?({_PLAIN_NUMBER.pattern})"
)
_RANGE = re.compile(rf"\s?[-–]({_PLAIN_NUMBER.pattern})")
_ONE_WORD = rf"(?:{'|'.join(sorted([*NUMBER_WORDS, *FACTORS], key=len, reverse=True))})\b"
_WORDS = re.compile(
    r"(?:about |approximately |exactly |only |a total of )?"
    rf"((?:a\s)?{_ONE_WORD}(?:(?:-|\s{{1,3}}(?:and\s)?){_ONE_WORD}|\sand\sa\shalf\b)*)",
    re.IGNORECASE,
)
_GOES_ON = re.compile(  # "two thirds", "one of them", "two or three" have another value
    r"(?:-|,?\s{1,3})(?:of|halves|quarters|thirds|fourths?|(?:fif|six|seven|eigh|nin|ten)ths?|point"
    rf"|hundredths?|thousandths?|(?:(?:or|to|and) )?(?:an? )?(?:half|quarter|third|{_ONE_WORD}))\b",
    re.IGNORECASE,
)


def _number(statement: str) -> Reading:
    latex = _LATEX.search(statement)
    for candidate in (statement, latex and (latex[1] or latex[2])):
        value = number(candidate) if candidate and not _is_range(candidate) else None
        if value:
            return value, ""
    if re.match(r"\([^()]{0,80}[A-Za-z]", statement):
        return NOTHING  # "(some - 3)" and "(5x = 20)" have no value
    rest = statement
    while (shorter := _EQUALS.sub("", rest, count=1)) != rest:
        rest = shorter
    money = _DOLLARS.search(rest)
    if money:
        whole, cents = int(money[1].replace(",", "")[:100]), int(money[2])
        return _found(spelt(Fraction(100 * whole + cents, 100)))
    run = _RUN.search(rest)
    if not run:
        words = _WORDS.match(rest)
        if not words or _GOES_ON.match(rest, words.end()):
            return NOTHING
        return _found(number(words[1]))
    value = None if _is_range(run[0]) else number(run[0])
    if rest.startswith("(") and not (value and run.start() == 0):
        return NOTHING  # "((3 + 4) and (5 + 6))"
    if re.search(r"[A-Za-z]\s*[+*/−-]\s*$", rest[: run.start()]) or re.match(
        r"\s*[+*/=]|\s+[-−]\s+[a-zA-Z]|:\d", rest[run.end() :]
    ):
        return NOTHING  # "3 * x" has no value, "3:40" is no number
    first = _PLAIN_NUMBER.search(run[0])
    end = run.end() if value else run.start() + (first.end() if first else 0)
    value = value or (number(first[0]) if first else None)
    if value is None:
        return NOTHING
    half = _AND_A_HALF.match(rest, end)
    times = _TIMES.match(rest, half.end() if half else end)
    if half or times:
        more = Fraction(-1 if value.startswith("-") else 1, 2) if half else 0
        factor = FACTORS[times[1].casefold()] if times else 1
        return _found(spelt((Fraction(value) + more) * factor))
    clause = _CLAUSE.search(rest, end)
    rest = rest[: clause.start()] if clause else rest
    found = [value]
    span = _RANGE.match(rest, end)
    following = span or _NEXT_NUMBER.match(rest, end)
    while following:
        found.append(number(following[1]) or value)
        following = _NEXT_NUMBER.match(rest, following.end())
    return one_of(found)


def _is_range(text: str) -> bool:
    return re.fullmatch(r"\s*[\d.,]+[-–][\d.,]+\s*", text) is not None


# -- options ------------------------------------------------------------------------------------

_BRACKETED = re.compile(r"(?<!\w)\(([A-Za-z])\)")
_NAMED = re.compile(r"\b(?:[Oo]ption|[Cc]hoice|[Ll]etter)\s{1,3}\(?([A-Zb-hj-z])\b(?!')")
_CAPITALS = re.compile(r"^[A-Z](?=\s*(?:$|[).,:;/&-]|or\b|and\b))")
_ASIDE = re.compile(
    r"(?<=\S)[\s,;]+(?:not|rather than|instead of|because|since|as|while|whereas|but)\b.*",
    re.IGNORECASE | re.DOTALL,
)


@lru_cache(maxsize=4096)
def _option_texts(choices: tuple[str, ...]) -> re.Pattern[str]:
    """Finds the options' texts, of two that begin alike the longer one."""
    texts = sorted((normalise(one) for one in choices), key=len, reverse=True)
    said = "|".join(re.escape(text) for text in texts if text)
    return re.compile(rf"(?<!\w)(?:{said or '(?!)'})(?!\w)")


def _choice(statement: str, choices: tuple[str, ...]) -> Reading:
    alone = canonical("choice", statement, choices)
    if alone:
        return alone, ""
    said = _ASIDE.sub("", statement)
    letters = _BRACKETED.findall(said) or _NAMED.findall(said)
    if not letters and _CAPITALS.match(said):
        letters = re.findall(r"(?<![\w'])[A-Z](?![\w'])", said)
    if letters:
        return _lettered(said, letters, choices)
    digit = re.match(r"\W{0,3}\((\d{1,2})\)", said)
    if digit:
        value = canonical("choice", digit[1], choices)
        return _found(value) if value else (None, f"outside the choices: {digit[1]}")
    found = _option_texts(choices).findall(normalise(said))
    if found:
        return one_of(canonical("choice", one, choices) or "" for one in found)
    alike = [letter(i) for i, one in enumerate(choices) if _inflected(normalise(one), said)]
    if len(alike) == 1:
        return alike[0], ""
    if not said or re.match(r"clear\b|obvious\b|(?:in)?correct\b|as follows|that\b", said):
        return NOTHING
    return None, f"outside the choices: {said[:40].rstrip(' .')}"


def _inflected(option: str, said: str) -> bool:
    """Whether two single words begin alike and differ in their ending: bookstores, entail."""
    short, long = sorted((option, normalise(said)), key=len)
    return len(short) >= 5 and long.startswith(short) and long.isalpha()


def _lettered(said: str, letters: Sequence[str], choices: tuple[str, ...]) -> Reading:
    """The option of the letters; a letter beside the text of another option is two answers."""
    names = list(dict.fromkeys(one.upper() for one in letters))
    outside = [one for one in names if ord(one) - ord("A") >= len(choices)]
    if outside:
        return None, f"outside the choices: {', '.join(outside)}"
    if len(names) == 1:
        beside = normalise(said[said.upper().find(names[0]) + 1 :].lstrip(" ).:-\"'")).rstrip("\"'")
        other = [letter(i) for i, one in enumerate(choices) if normalise(one) == beside]
        if other and names[0] not in other:
            names += other[:1]
    return one_of(names)


# -- yes, true, valid ---------------------------------------------------------------------------


_DETERMINER = re.compile(  # "no doubt", "no longer" say nothing; "no because ..." does
    r"-|\s(?!(?:a|according|although|an|and|as|because|but|by|given|he|her|his|i|if|in|it|its|my|not"
    r"|or|our|she|since|so|that|the|their|there|these|they|this|those|though|unless|we|when|while"
    r"|you|your)\b)\w",
    re.IGNORECASE,
)


def _word(statement: str, kind: AnswerKind) -> Reading:
    """One of two words: the one the statement begins with, else the only one it holds."""
    for words in _spoken(kind):
        either = rf"(?:{words[0]}|{words[1]})\b"
        pattern = rf"\W{{0,4}}({either})(?!\W{{0,3}}(?:or|and)?\W{{1,3}}{either})"
        begins = re.match(pattern, statement, re.IGNORECASE)
        if begins and not _determines(begins):
            return PAIRS[kind][words.index(begins[1].casefold())], ""
        found = list(_words(statement, words, PAIRS[kind]))
        if found:
            return one_of(found)
    return NOTHING


def _spoken(kind: AnswerKind) -> Sequence[tuple[str, str]]:
    """The words that say the two answers, in the order in which they are looked for."""
    return (PAIRS[kind], PAIRS["true_false"]) if kind == "yes_no" else (PAIRS[kind],)


def _words(text: str, words: tuple[str, str], meant: tuple[str, str]) -> Iterator[str]:
    """The answers said in a text; "not true" is false, "no doubt" says neither yes nor no."""
    for said in re.finditer(rf"\b(not\s{{1,3}})?({words[0]}|{words[1]})\b", text, re.IGNORECASE):
        place = words.index(said[2].casefold())
        if not _determines(said):
            yield meant[1 - place if said[1] else place]


def _determines(word: re.Match[str]) -> bool:
    """Whether a "no" belongs to the word behind it."""
    said = word[0].casefold().endswith("no")
    return said and _DETERMINER.match(word.string, word.end()) is not None


# -- where nothing is anchored ------------------------------------------------------------------

_LABEL = re.compile(r"^(?:(?:step )?\d{1,2}[.):](?!\d)\s*|[-*]\s)", re.IGNORECASE)
_REMARK = re.compile(
    r"(?:however|note|alternatively|but|it'?s worth|we can check|to check)\b", re.IGNORECASE
)
_GIVEN = re.compile(
    r"^(?:(?:if|since|because|when|after)\b[^,=]*,\s|.*[,;]\sso\s(?=.*\d))", re.IGNORECASE
)
_LISTED = re.compile(r"[-*\s]{0,4}\(?[A-Z][).]\s")
_DENIES = re.compile(r"\b(?:not|incorrect|wrong|none|no)\b|n't\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_VERDICT = re.compile(
    r"\b(?:statement|claim|sentence|assertion|it|this|that) is (?:not )?(?:true|false)\b(?! that)",
    re.I,
)
_QUOTES = re.compile(r"[\"“]([^\"”\n]{1,200})[\"”]")
_RESULT = re.compile(
    r".*(?:\b(?:is|get|gives us|gives|together|results? in|becomes|are)\b|[:=→]|->|\s-)\s*(.+)"
)


def read_conclusion(text: str, kind: AnswerKind, choices: tuple[str, ...]) -> Reading:
    """The answer of the last sentence that holds one, remarks and lists of the options aside."""
    sentences = [one.replace("**", "").strip()[:MAX_SENTENCE] for one in _SENTENCE_END.split(text)]
    sentences = [one for one in sentences if one]
    if kind == "choice" and len(sentences) == 1:
        alone = canonical(kind, sentences[0].replace("$", ""), choices)  # "B." and no more
        if alone:
            return alone, ""
    last = sentences[-LAST_SENTENCES.get(kind, MAX_SENTENCES) :][::-1]
    if kind == "number":
        last[:1] = [one.rstrip(".") for one in last[:1]]  # "42." is no label where the text ends
        last = [*(one for one in last if not _REMARK.match(one)), *last]
    if kind == "choice" and sum(_LISTED.match(one) is not None for one in last) > 1:
        last = [one for one in last if not _LISTED.match(one)]
    if kind in PAIRS:
        last += sentences[:1]  # "No, he was not, because ..."
    for sentence in last:
        if kind == "number":
            reading = _sum_of(sentence, text)
        else:
            reading = _concluding(sentence, kind, choices)
        if reading != NOTHING:
            return reading
    return NOTHING


def _sum_of(sentence: str, text: str) -> Reading:
    """The number of a sentence: what its "=" or the calculation before it gives, else its first."""
    said = re.sub(r"≈|\bequals\b", "=", _GIVEN.sub("", _LABEL.sub("", sentence)))
    if not re.search(r"\d", said):
        return NOTHING
    result = _number(said.rpartition("=")[2]) if "=" in said else NOTHING
    if result != NOTHING:
        return result
    _, equals, before = text.rpartition(sentence)[0].rpartition("=")
    computed = _number(before[:80])[0] if equals else None
    if computed and computed in [number(one) for one in _PLAIN_NUMBER.findall(said)]:
        return computed, ""
    return _number(said)


def _concluding(sentence: str, kind: AnswerKind, choices: tuple[str, ...]) -> Reading:
    if kind == "choice":
        letters = _BRACKETED.findall(sentence) or _NAMED.findall(sentence)
        letters = [one for one in letters if ord(one.upper()) - ord("A") < len(choices)]
        if letters:
            return NOTHING if _DENIES.search(sentence) else _lettered(sentence, letters, choices)
        said = normalise(sentence)
        found = list(_option_texts(choices).finditer(said))
        if not found or re.search(r"\w", said[found[-1].end() :]):
            return NOTHING  # "the day after 5/6 is 5/7": the sentence must end with an option
        return one_of(canonical(kind, one[0], choices) or "" for one in found)
    if kind == "text":
        return _said_text(_LABEL.sub("", sentence))
    for words in _spoken(kind):
        about = sentence if words == PAIRS[kind] else " ".join(_VERDICT.findall(sentence))
        found_words = list(_words(about.rpartition("=")[2], words, PAIRS[kind]))
        if found_words:
            return one_of(found_words)
    return NOTHING


def _said_text(sentence: str) -> Reading:
    """What follows the last "is", "we get", ":" or "="; without these, what is quoted last."""
    result = _RESULT.match(sentence)
    quotes = _QUOTES.findall(result[1] if result else sentence)
    pieces = sentence.split()
    if result and quotes and re.search(r"[\"”],? (?:and|or) [\"“]", result[1]):
        return one_of(quotes)
    if result and quotes:  # of '"blue" from "Job Dahl Wu Abe"' the first
        leads = result[1].startswith(('"', "“"))
        said = quotes[0 if leads else -1]
    elif result or quotes:
        said = result[1] if result else quotes[-1]
    else:
        short = len(pieces) <= 3 or all(len(one.strip(",.;")) == 1 for one in pieces)
        said = sentence if short else ""
    return _found(canonical("text", said))
