"""The forms of a concept or goal that a prompt needs: number, plural, article, gerund.

Takes a text and what its source already says of it; gives the fields that were missing. What a
source says always wins. Next comes the packaged list of everyday concepts (it knows that water
has no plural), then `lemminflect`'s dictionary (it knows that "dogs" is a plural and "bus" is
not, where `inflect` gives the singular of bus as "bu"), then the rules of `inflect`.
The first call loads both libraries (1 to 3 s); a form costs well under a millisecond after that.

English only. It guesses: an unknown mass noun is taken for a count noun ("shrubbery" gets a
plural), and a word with a capital letter is taken for a name, which has neither plural nor
article. Lists that must be right carry their forms.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

NUMBERS = ("count", "mass", "plural")
"""count: has a plural ("dog"); mass: has none ("water", names); plural: only that ("jeans")."""

_PLURAL_ONLY = frozenset({
    "binoculars", "cattle", "clothes", "goggles", "goods", "groceries", "leggings", "pants",
    "people", "police", "pyjamas", "thanks", "tights", "tongs", "trousers",
})  # fmt: skip
_MASS = frozenset(
    {"data", "equipment", "garbage", "knowledge", "news", "rubbish", "software", "weather"}
)

_PREPOSITION = re.compile(r"(?<=\S)\s+(?:of|in|on|at|for|from|with)\s")

_AFTER_A_VERB = frozenset({
    "a", "about", "an", "around", "at", "away", "by", "down", "for", "from", "her", "his", "in",
    "my", "off", "on", "one's", "our", "out", "over", "rid", "some", "that", "the", "their",
    "this", "to", "up", "well", "with", "your",
})  # fmt: skip


def looks_like_goal(text: str) -> bool:
    """Whether a text reads as a goal: a verb in base form, then more words ("bake a cake").

    A first word that is also a noun ("fire", "train") needs a word after it that a noun is not
    followed by ("train a puppy"), or must be a verb that mostly opens goals ("save money").
    """
    first, *rest = text.lower().split()
    if not rest or not _is_base_verb(first):
        return False
    if first in _goal_verbs() or "NOUN" not in _lemmas(first):
        return True
    return rest[0] in _AFTER_A_VERB


def concept_forms(text: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """The number, singular, plural and article of a concept.

    Args:
        text: the concept, in whatever number it was written.
        known: what its source says; a value that is there is returned unchanged.

    Returns:
        `number` (one of NUMBERS), `singular`, `plural` (None for mass nouns) and `article`
        ("a", "an", or None where there is none).
    """
    packaged = _everyday().get(text, {})
    number = known.get("number") or packaged.get("number")
    singular = known.get("singular")
    plural = known.get("plural") or packaged.get("plural")
    if number is None:
        number = "count" if plural and plural != text else _guess_number(text)
    if number != "count":
        forms = {"number": number, "singular": text, "article": None}
        return {**forms, "plural": text if number == "plural" else None, **_given(known)}
    if singular is None:
        singular = text if plural or known.get("number") else _singular_of(text)
    if plural is None:
        plural = text if singular != text else _plural_of(text)
    article = known.get("article") or packaged.get("article")
    if article is None:
        article = str(_inflect().a(singular)).split()[0]
    forms = {"number": number, "singular": singular, "plural": plural, "article": article}
    return {**forms, **_given(known)}


def goal_gerund(text: str) -> str | None:
    """A goal with its verb as a gerund ("baking a cake"); None if it opens with no base verb."""
    verb, _, rest = text.partition(" ")
    packaged = _everyday().get(text, {}).get("gerund")
    if packaged:
        return str(packaged)
    if not _is_base_verb(verb.lower()):
        return None
    from lemminflect import getInflection

    gerunds = getInflection(verb.lower(), "VBG")
    return f"{gerunds[0]} {rest}".strip() if gerunds else None


def everyday_jsonl() -> str:
    """The packaged list of everyday concepts and goals, as JSON lines."""
    path = files("symdistill") / "data" / "concepts" / "everyday.jsonl"
    return path.read_text(encoding="utf-8")


def _given(known: Mapping[str, Any]) -> dict[str, Any]:
    names = ("number", "singular", "plural", "article")
    return {name: known[name] for name in names if known.get(name) is not None}


def _guess_number(text: str) -> str:
    head = _head(text)
    if not head.islower():  # a name, a figure, a script without plural endings
        return "mass"
    if head in _PLURAL_ONLY:
        return "plural"
    if head in _MASS or (head.endswith("ics") and head in _lemmas(head).get("NOUN", ())):
        return "mass"
    return str(_everyday().get(head, {}).get("number", "count"))


def _singular_of(text: str) -> str:
    """The text with its head noun in the singular, if the head is a plural."""
    head = _head(text)
    lemmas = _lemmas(head).get("NOUN", ())
    singulars = [lemma for lemma in lemmas if lemma != head and head in _dictionary_plurals(lemma)]
    if not lemmas and head.endswith("s") and not head.endswith(("ss", "us", "is")):
        guess = str(_inflect().singular_noun(head) or head)  # a rule: checked by going back
        singulars = [guess] if _inflect().plural_noun(guess) == head else []
    singulars.sort(key=lambda word: word not in _everyday())  # "leaves": leaf before leave
    return _with_head(text, singulars[0]) if singulars else text


def _plural_of(text: str) -> str:
    plurals = _dictionary_plurals(_head(text))
    return _with_head(text, plurals[0]) if plurals else str(_inflect().plural_noun(text))


def _with_head(text: str, head: str) -> str:
    """The text with another word in the place of its head."""
    before = _before_preposition(text)
    return before[: len(before) - len(_head(text))] + head + text[len(before) :]


def _head(text: str) -> str:
    """The word that carries the number: the last one before a preposition ("cups of tea")."""
    return _before_preposition(text).split()[-1]


def _before_preposition(text: str) -> str:
    return _PREPOSITION.split(text, maxsplit=1)[0]


def _is_base_verb(word: str) -> bool:
    return word in _lemmas(word).get("VERB", ())


@cache
def _lemmas(word: str) -> dict[str, tuple[str, ...]]:
    """What the dictionary says a word is a form of, by part of speech; empty if unknown."""
    from lemminflect import getAllLemmas

    lemmas: dict[str, tuple[str, ...]] = getAllLemmas(word)
    return lemmas


@cache
def _dictionary_plurals(noun: str) -> tuple[str, ...]:
    """The plurals that the dictionary gives for a singular noun; empty if it has none."""
    from lemminflect import getInflection

    return tuple(getInflection(noun, "NNS", inflect_oov=False) or ())


@cache
def _inflect() -> Any:
    import inflect

    return inflect.engine()


@cache
def _goal_verbs() -> frozenset[str]:
    path = files("symdistill") / "data" / "words" / "goal_verbs.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    return frozenset(line.strip() for line in lines if not line.startswith("#"))


@cache
def _everyday() -> dict[str, dict[str, Any]]:
    """The packaged concepts and goals by text."""
    records = (json.loads(line) for line in everyday_jsonl().splitlines())
    return {record["text"]: record for record in records}
