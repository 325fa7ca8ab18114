"""Phrases, and where they are found: characters, patterns, token ids, sets of phrases.

The rules of matching are told at the head of `symdistill.constraints`.
"""

from __future__ import annotations

import operator
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from symdistill.errors import InputError

MAX_PHRASE_CHARACTERS = 200
MAX_PHRASE_TOKENS = 200
MAX_PHRASES = 10_000  # in one literal

_APOSTROPHES = "\u2018\u2019"
_REPLACEMENT = "\ufffd"  # what undecodable bytes become; no phrase may hold it
_POS = ("NOUN", "VERB", "ADJ", "ADV")


# ------------------------------------------------------------------ characters and matches


@lru_cache(maxsize=65536)
def fold(character: str) -> str:
    """The character that stands for this one in comparisons; white space becomes " "."""
    if character.isspace():
        return " "
    if character in _APOSTROPHES:
        return "'"
    lower = character.lower()
    return lower if len(lower) == 1 else character


@lru_cache(maxsize=65536)
def is_word_character(character: str) -> bool:
    """True of letters, digits, "_" and combining marks."""
    return (
        character.isalnum() or character == "_" or unicodedata.category(character).startswith("M")
    )


class Match(NamedTuple):
    """Where a phrase was found: `text[start:end]`, and the phrase as it was written."""

    start: int
    end: int
    phrase: str


@dataclass(frozen=True, slots=True)
class Pattern:
    """A phrase as it is matched: folded characters, single spaces, open or closed ends.

    `open_left` (`open_right`) is true where a star lifts a word boundary.
    """

    characters: str
    open_left: bool
    open_right: bool

    @classmethod
    def of(cls, phrase: str) -> Pattern:
        """The pattern of a phrase that has passed the checks of `any_of`."""
        return _pattern(phrase)

    @property
    def bound_left(self) -> bool:
        """Whether the character before a match must not be a word character."""
        return not self.open_left and is_word_character(self.characters[0])

    @property
    def bound_right(self) -> bool:
        """Whether the character after a match must not be a word character."""
        return not self.open_right and is_word_character(self.characters[-1])


@lru_cache(maxsize=65536)
def _pattern(phrase: str) -> Pattern:
    inner = " ".join(phrase.split())
    open_left = inner.startswith("*")
    inner = inner[1:] if open_left else inner
    open_right = inner.endswith("*")
    inner = inner[:-1] if open_right else inner
    folded = "".join(map(fold, inner.strip()))
    # Where the phrase's end is no word character there is no boundary to lift.
    return Pattern(
        folded,
        open_left and is_word_character(folded[0]),
        open_right and is_word_character(folded[-1]),
    )


class Searched(NamedTuple):
    """A text as it is searched: folded, runs of white space single, with the way back."""

    characters: str
    at: Sequence[int] = ()  # at[i]: index in the text of the (first) character behind characters[i]
    word_before: bool = False  # whether the text follows a word character
    token_ids: tuple[int, ...] | None = None


def searched(text: str, before: str, token_ids: Iterable[int] | None) -> Searched:
    """The text made ready for `starts` and `token_starts`."""
    characters: list[str] = []
    at: list[int] = []
    for index, character in enumerate(text):
        one = fold(character)
        if one == " " and characters and characters[-1] == " ":
            continue
        characters.append(one)
        at.append(index)
    word_before = bool(before) and is_word_character(fold(before[-1]))
    ids = None if token_ids is None else tuple(map(int, token_ids))
    return Searched("".join(characters), at, word_before, ids)


def starts(pattern: Pattern, text: Searched) -> list[int]:
    """Every index of `text.characters` at which the pattern matches."""
    found: list[int] = []
    characters, width = text.characters, len(pattern.characters)
    start = characters.find(pattern.characters)
    while start >= 0:
        end = start + width
        before = is_word_character(characters[start - 1]) if start else text.word_before
        after = end < len(characters) and is_word_character(characters[end])
        if not (pattern.bound_left and before) and not (pattern.bound_right and after):
            found.append(start)
        start = characters.find(pattern.characters, start + 1)
    return found


def sure_starts(inner: Pattern, outer: Pattern) -> list[int]:
    """Places of `inner` in every text that `outer` matches, whatever surrounds it."""
    end = len(outer.characters) - len(inner.characters)
    return [
        start
        for start in starts(inner, Searched(outer.characters))
        if not (start == 0 and inner.bound_left and outer.open_left)
        and not (start == end and inner.bound_right and outer.open_right)
    ]


def token_starts(wanted: tuple[int, ...], ids: tuple[int, ...]) -> list[int]:
    """Every index of `ids` at which the wanted ones stand."""
    return [i for i in range(len(ids) - len(wanted) + 1) if ids[i : i + len(wanted)] == wanted]


# ------------------------------------------------------------------ phrases


@dataclass(frozen=True, slots=True, repr=False)
class Tokens:
    """A phrase of exact token ids; made by `tokens`."""

    ids: tuple[int, ...]

    def __repr__(self) -> str:
        return f"tokens({', '.join(map(str, self.ids))})"


Phrase = str | Tokens


@dataclass(frozen=True, slots=True)
class AnyOf:
    """A set of phrases in the order written; made by `any_of`."""

    phrases: tuple[Phrase, ...]

    def __str__(self) -> str:
        return f"any_of({', '.join(map(repr, self.phrases))})"


def any_of(*phrases: Phrase | AnyOf | Iterable[Phrase | AnyOf]) -> AnyOf:
    """The phrases together: a text holds the set where it holds one of them.

    Args:
        phrases: phrases, sets of them, or iterables of them, flattened in order. Phrases that
            match the same texts are kept once, as first written.

    Raises:
        InputError: no phrase at all; a phrase that is no text, is empty, has no word character,
            holds U+FFFD, or is longer than 200 characters; more than 10,000 phrases.
    """
    kept: dict[Pattern | Tokens, Phrase] = {}
    for phrase in _flat(phrases):
        if isinstance(phrase, Tokens):
            kept[phrase] = phrase
        else:
            clean = _checked_phrase(phrase)
            kept.setdefault(Pattern.of(clean), clean)
    if not kept:
        raise InputError("expected at least one phrase, got none; name the words that are meant")
    if len(kept) > MAX_PHRASES:
        raise InputError(
            f"expected at most {MAX_PHRASES:,} phrases in a clause, got {len(kept):,}; "
            "split the list, or use shorter phrases with a star at an end"
        )
    return AnyOf(tuple(kept.values()))


def tokens(*ids: int) -> Tokens:
    """A phrase of exact token ids of one tokenizer, found wherever they stand one after another.

    Nothing is asked of the text around it: no word boundary, no letter case. It is searched in
    the ids of the continuation alone.

    Raises:
        InputError: no id, more than 200, or one that is no whole number >= 0.
    """
    if not 1 <= len(ids) <= MAX_PHRASE_TOKENS:
        raise InputError(
            f"expected 1 to {MAX_PHRASE_TOKENS} token ids in tokens(...), got {len(ids):,}"
        )
    return Tokens(tuple(map(_checked_id, ids)))


def inflections(
    word: str,
    pos: str | None = None,
    expand: Callable[[str], Iterable[str]] | None = None,
) -> AnyOf:
    """A word and its inflected forms, as a set of phrases; the word as written comes first.

    The forms are those of `lemminflect`'s English dictionary, or, for a word that it lacks, those
    of its rules. A word that is itself an inflected form ("dogs") stands for its lemma. Of several
    words the last one is inflected ("fire trucks"), of a verb the first ("gave up").

    Args:
        word: a phrase without stars.
        pos: "NOUN", "VERB", "ADJ" or "ADV"; by default every part of speech that the dictionary
            knows for the word, and noun for several words or one that it lacks.
        expand: gives the forms in place of the dictionary, for another language or a longer list.

    Raises:
        InputError: an unusable word, another `pos`, one beside `expand`, or an `expand` that
            gives no iterable of phrases.
    """
    clean = _checked_phrase(word)
    if "*" in clean:
        raise InputError(f"expected a word without a star in inflections, got {word!r}")
    if pos is not None and (pos not in _POS or expand is not None):
        raise InputError(
            f"expected pos to be one of {', '.join(_POS)}, and no expand beside it; got {pos!r:.80}"
        )
    if expand is None:
        return any_of(clean, _inflected(clean, pos))
    forms = expand(word)
    if isinstance(forms, (str, bytes)) or not isinstance(forms, Iterable):
        raise InputError(
            f"expected expand({word!r}) to give a list of forms, got {type(forms).__name__}"
        )
    return any_of(clean, forms)


def _inflected(words: str, pos: str | None) -> list[str]:
    """The forms of the head word among its fellows, without repeats."""
    from lemminflect import getAllInflections, getAllInflectionsOOV, getAllLemmas

    before, _, head = words.rpartition(" ")
    after = ""
    if pos == "VERB" and before:
        head, _, after = words.partition(" ")
        before = ""
    if pos is None and before:
        pos = "NOUN"
    found = getAllInflections(head, upos=pos)
    if found:
        tables = [found]
    else:
        lemmas = dict.fromkeys(
            (lemma, its_pos)
            for its_pos, some in getAllLemmas(head, upos=pos).items()
            for lemma in some
        )
        tables = [getAllInflections(lemma, upos=its_pos) for lemma, its_pos in lemmas]
    if not any(tables):
        tables = [getAllInflectionsOOV(head, upos=pos or "NOUN")]
    forms = dict.fromkeys(form for table in tables for some in table.values() for form in some)
    return [" ".join(filter(None, (before, form, after))) for form in forms]


def _flat(phrases: Iterable[Any]) -> Iterable[Any]:
    for one in phrases:
        if isinstance(one, AnyOf):
            yield from one.phrases
        elif isinstance(one, Iterable) and not isinstance(one, (str, bytes)):
            for inner in one:
                yield from inner.phrases if isinstance(inner, AnyOf) else [inner]
        else:
            yield one


def _checked_id(value: Any) -> int:
    try:
        if not isinstance(value, bool) and (number := operator.index(value)) >= 0:
            return number
    except TypeError:
        pass
    raise InputError(f"expected token ids as whole numbers >= 0, got {shown(value)}")


def _checked_phrase(phrase: Any) -> str:
    if not isinstance(phrase, str):
        raise InputError(f"expected a phrase (text), got {type(phrase).__name__}: {shown(phrase)}")
    if len(phrase) > MAX_PHRASE_CHARACTERS:
        raise InputError(
            f"expected a phrase of at most {MAX_PHRASE_CHARACTERS} characters, got "
            f"{len(phrase):,} characters beginning {phrase[:40]!r}; shorten it"
        )
    if _REPLACEMENT in phrase or any("\ud800" <= one <= "\udfff" for one in phrase):
        raise InputError(f"expected a phrase of readable characters, got {phrase!a}")
    clean = " ".join(phrase.split())
    if not any(is_word_character(fold(one)) for one in clean):
        raise InputError(
            f"expected a phrase with a letter, a digit or '_', got {phrase!r}; "
            "marks and white space alone cannot be constrained"
        )
    return clean


def shown(value: Any) -> str:
    """Up to 80 characters that show a value in an error message."""
    try:
        return f"{value!r:.80}"
    except (ValueError, RecursionError):  # an endless number, or nested without end
        return f"a {type(value).__name__} that is too large to print"
