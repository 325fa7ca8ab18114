"""The lexical-constraint language: say which phrases a text must, must not, or may rarely hold.

    c = contains(any_of("dog", "dogs")) & excludes("cat") & at_most(1, ["in", "on", "at"])
    c.verify("Dogs sleep on sofas.")        # True
    c.explain("Dogs chase a cat.")          # one ClauseStatus for each clause
    from_json(c.to_json()) == c             # True

Takes a text and the text before it; gives a verdict, or the matches behind it. One object
verifies, explains and (in `symdistill.decoding`) is enforced while a model writes. Cost: one
`str.find` a phrase and text. The idea of formulas over "phrase occurs in text" is NeuroLogic's
(Lu et al., 2021); counts are needed for the rules of I2D2 (Bhagavatula et al., 2023).

What a match is, exactly
    *Characters* are compared one by one. Upper and lower case are the same where lower case is
    one character long (so "ß" is not "ss"); the quotes U+2018 and U+2019 are the same as the
    apostrophe "'"; nothing else is normalised (a composed "é" is not "e" plus an accent).
    *White space*: a run of white space (`str.isspace`) inside a phrase matches any run of one or
    more white space characters, new lines included. At the ends of a phrase it is dropped.
    *Word boundaries*: a word character is one for which `str.isalnum()` is true, "_", or a
    combining mark (Unicode category M). Where a phrase begins with a word character, the
    character before the match must not be one; where it ends with one, the character after the
    match must not be one, or the text ends there. At an end of the phrase that is no word
    character ("'s", "e.g.") nothing is asked.
    *Apostrophes* and hyphens are not word characters. So "it" matches in "it's", "can" in
    "can't", "well" in "well-known", and "n't" matches nowhere in "don't" (an "o" stands before).
    *A star* at the beginning or end of a phrase lifts the boundary at that end: "*n't" matches
    in "don't" and "isn't", "un*" in "unkind". One star a side is the mark, further ones and
    those inside are ordinary characters.
    *Where*: a match lies wholly inside `text` (the continuation). The boundary before its first
    character also looks at the last character of `before` (the prompt); a phrase that begins in
    the prompt and ends in the continuation is not a match.
    *Counting*: every pair (start, phrase) counts, overlapping ones too: with the phrases "in" and
    "in front", the text "in front" has two matches. Phrases that differ only in case, white space
    or apostrophes are one phrase.

The JSON form (unknown keys are errors, so that the form can grow)
    {"contains": P}   {"excludes": P}   {"at_most": n, "of": P}   {"all_of": [constraint, ...]}
    where P is a phrase or {"any_of": [phrase, ...]}; {"all_of": []} holds of every text.

What it does not do: disjunction or negation of constraints, `at_least`, `exactly`, inflections
(list the forms with `any_of`). `contradictions` finds the conflicts that two clauses show on
their own, not all of them.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from symdistill.errors import InputError
from symdistill.records import content_hash

__all__ = [
    "AllOf",
    "AnyOf",
    "AtMost",
    "Clause",
    "ClauseStatus",
    "Constraint",
    "Contains",
    "Contradiction",
    "Excludes",
    "Match",
    "Pattern",
    "all_of",
    "any_of",
    "at_most",
    "contains",
    "excludes",
    "fold",
    "from_file",
    "from_json",
    "is_word_character",
]

MAX_PHRASE_CHARACTERS = 200
MAX_PHRASES = 10_000  # in one clause
MAX_COUNT = 10_000

_APOSTROPHES = "\u2018\u2019"
_REPLACEMENT = "\ufffd"  # what undecodable bytes become; no phrase may hold it


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


class _Folded(NamedTuple):
    """A text as it is searched: folded, runs of white space single, with the way back."""

    characters: str
    at: list[int]  # at[i]: index in the text of the (first) character behind characters[i]
    word_before: bool  # whether the text follows a word character


def _folded(text: str, before: str) -> _Folded:
    characters: list[str] = []
    at: list[int] = []
    for index, character in enumerate(text):
        one = fold(character)
        if one == " " and characters and characters[-1] == " ":
            continue
        characters.append(one)
        at.append(index)
    word_before = bool(before) and is_word_character(fold(before[-1]))
    return _Folded("".join(characters), at, word_before)


def _starts(pattern: Pattern, text: _Folded) -> list[int]:
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


# ------------------------------------------------------------------ phrases


@dataclass(frozen=True, slots=True)
class AnyOf:
    """A set of phrases in the order written; made by `any_of`."""

    phrases: tuple[str, ...]

    def __str__(self) -> str:
        return f"any_of({', '.join(map(repr, self.phrases))})"


def any_of(*phrases: str | AnyOf | Iterable[str]) -> AnyOf:
    """The phrases together: a text holds the set where it holds one of them.

    Args:
        phrases: phrases, sets of them, or iterables of them, flattened in order. Phrases that
            match the same texts are kept once, as first written.

    Raises:
        InputError: no phrase at all; a phrase that is no text, is empty, has no word character,
            holds U+FFFD, or is longer than 200 characters; more than 10,000 phrases.
    """
    kept: dict[Pattern, str] = {}
    for phrase in _flat(phrases):
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


def _flat(phrases: Iterable[Any]) -> Iterable[Any]:
    for one in phrases:
        if isinstance(one, AnyOf):
            yield from one.phrases
        elif isinstance(one, Iterable) and not isinstance(one, (str, bytes)):
            yield from one
        else:
            yield one


def _checked_phrase(phrase: Any) -> str:
    if not isinstance(phrase, str):
        raise InputError(f"expected a phrase (text), got {type(phrase).__name__}: {phrase!r:.80}")
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


# ------------------------------------------------------------------ constraints


@dataclass(frozen=True, slots=True)
class ClauseStatus:
    """What one clause finds in a text.

    `count` is the number of matches, listed in `matches` by place. `bound` and `limit` say what
    the clause asks of it: at least 1 for `contains`, at most 0 for `excludes`, at most n for
    `at_most`.
    """

    clause: str
    satisfied: bool
    matches: tuple[Match, ...]
    count: int
    bound: Literal["at_least", "at_most"]
    limit: int


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two clauses of one constraint that no text can meet together, and why."""

    first: str
    second: str
    reason: str

    def __str__(self) -> str:
        return f"{self.first} and {self.second} cannot both hold: {self.reason}"


class Constraint:
    """Something that is true or false of a text. Hashable; made by the functions below."""

    @property
    def clauses(self) -> tuple[Clause, ...]:
        """The clauses that must all hold, without repeats, in the order written."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """The JSON form described at the head of this module."""
        raise NotImplementedError

    @property
    def fingerprint(self) -> str:
        """Hash of the JSON form: two constraints with one fingerprint are written alike."""
        return content_hash(self.to_json())

    def __and__(self, other: Constraint) -> Constraint:
        if not isinstance(other, Constraint):
            return NotImplemented
        return all_of(self, other)

    def verify(self, text: str, before: str = "") -> bool:
        """Whether the text meets every clause.

        Args:
            text: the continuation; matches lie wholly inside it.
            before: what stands before it (the prompt). Only its last character matters.
        """
        folded = _folded(text, before)
        return all(clause._holds(folded) for clause in self.clauses)

    def explain(self, text: str, before: str = "") -> list[ClauseStatus]:
        """What each clause finds in the text; `verify` is true where all are satisfied."""
        folded = _folded(text, before)
        return [clause._status(folded) for clause in self.clauses]

    def contradictions(self) -> list[Contradiction]:
        """Pairs of clauses that visibly exclude each other.

        A `contains` clause and an upper bound conflict where every phrase that would meet the
        first holds, as such, more matches of the second than it allows. An empty list is no
        proof that a text exists.
        """
        upper = [clause for clause in self.clauses if clause.most is not None]
        found = []
        for wanted in (clause for clause in self.clauses if clause.least):
            for bound in upper:
                shown = _conflict(wanted, bound)
                if shown is not None:
                    found.append(Contradiction(str(wanted), str(bound), shown))
        return found


@dataclass(frozen=True)
class Clause(Constraint):
    """A bound on the number of matches of a set of phrases."""

    phrases: tuple[str, ...]

    name: ClassVar[str]
    least: ClassVar[int] = 0

    @property
    def most(self) -> int | None:
        """The largest number of matches allowed; None where there is no upper bound."""
        return None

    @property
    def clauses(self) -> tuple[Clause, ...]:
        """The clause itself."""
        return (self,)

    @cached_property
    def patterns(self) -> tuple[Pattern, ...]:
        """The phrases as they are matched, in the same order."""
        return tuple(map(Pattern.of, self.phrases))

    def __str__(self) -> str:
        return f"{self.name}({self._phrases_str()})"

    def to_json(self) -> dict[str, Any]:
        """The JSON form: {name: phrases}."""
        return {self.name: self._phrases_json()}

    def _phrases_str(self) -> str:
        return repr(self.phrases[0]) if len(self.phrases) == 1 else str(AnyOf(self.phrases))

    def _phrases_json(self) -> Any:
        return self.phrases[0] if len(self.phrases) == 1 else {"any_of": list(self.phrases)}

    def _holds(self, text: _Folded) -> bool:
        count = 0
        for pattern in self.patterns:
            count += len(_starts(pattern, text))
            if self.most is None and count >= self.least:
                return True
            if self.most is not None and count > self.most:
                return False
        return count >= self.least

    def _status(self, text: _Folded) -> ClauseStatus:
        matches = sorted(
            Match(text.at[start], text.at[start + len(pattern.characters) - 1] + 1, phrase)
            for phrase, pattern in zip(self.phrases, self.patterns, strict=True)
            for start in _starts(pattern, text)
        )
        return ClauseStatus(
            clause=str(self),
            satisfied=self._holds(text),
            matches=tuple(matches),
            count=len(matches),
            bound="at_least" if self.most is None else "at_most",
            limit=self.least if self.most is None else self.most,
        )


@dataclass(frozen=True)
class Contains(Clause):
    """At least one match of the phrases; made by `contains`."""

    name: ClassVar[str] = "contains"
    least: ClassVar[int] = 1


@dataclass(frozen=True)
class Excludes(Clause):
    """No match of any of the phrases; made by `excludes`."""

    name: ClassVar[str] = "excludes"

    @property
    def most(self) -> int:
        """No match is allowed."""
        return 0


@dataclass(frozen=True)
class AtMost(Clause):
    """No more than `limit` matches of the phrases, all counted together; made by `at_most`."""

    limit: int = 0

    name: ClassVar[str] = "at_most"

    @property
    def most(self) -> int:
        """The limit."""
        return self.limit

    def __str__(self) -> str:
        return f"at_most({self.limit}, {self._phrases_str()})"

    def to_json(self) -> dict[str, Any]:
        """The JSON form: {"at_most": limit, "of": phrases}."""
        return {"at_most": self.limit, "of": self._phrases_json()}


@dataclass(frozen=True)
class AllOf(Constraint):
    """A conjunction; made by `&` or `all_of`. Without parts it holds of every text."""

    parts: tuple[Clause, ...] = ()

    @property
    def clauses(self) -> tuple[Clause, ...]:
        """The parts."""
        return self.parts

    def __str__(self) -> str:
        return " & ".join(map(str, self.parts)) if self.parts else "all_of()"

    def to_json(self) -> dict[str, Any]:
        """The JSON form: {"all_of": parts}."""
        return {"all_of": [part.to_json() for part in self.parts]}


def contains(phrase: str | AnyOf) -> Contains:
    """The text must hold the phrase, or one of the set."""
    return Contains(_phrases(phrase, "contains"))


def excludes(phrase: str | AnyOf) -> Excludes:
    """The text must not hold the phrase, nor any of the set."""
    return Excludes(_phrases(phrase, "excludes"))


def at_most(limit: int, phrases: str | AnyOf | Iterable[str]) -> AtMost:
    """The text may hold the phrases at most `limit` times, counted together.

    Raises:
        InputError: `limit` is no whole number from 0 to 10,000, or a phrase is not usable.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit <= MAX_COUNT:
        raise InputError(f"expected a count from 0 to {MAX_COUNT:,} in at_most, got {limit!r}")
    return AtMost(any_of(phrases).phrases, limit)


def all_of(*constraints: Constraint) -> Constraint:
    """Every one of the constraints; repeats are dropped, a single clause stays itself."""
    parts: dict[Clause, None] = {}
    for one in constraints:
        if not isinstance(one, Constraint):
            raise InputError(f"expected constraints in all_of, got {one!r:.80}")
        parts.update(dict.fromkeys(one.clauses))
    return next(iter(parts)) if len(parts) == 1 else AllOf(tuple(parts))


def _phrases(phrase: str | AnyOf, where: str) -> tuple[str, ...]:
    if not isinstance(phrase, (str, AnyOf)):
        raise InputError(
            f"expected a phrase or any_of(...) in {where}, got {type(phrase).__name__}; "
            "a list could mean any or all of its phrases: write any_of(list), or join clauses by &"
        )
    return any_of(phrase).phrases


def _conflict(wanted: Clause, bound: Clause) -> str | None:
    """Why no text meets both clauses, or None where that is not visible."""
    assert bound.most is not None
    counts = [
        sum(len(_sure_starts(inner, outer)) for inner in bound.patterns)
        for outer in wanted.patterns
    ]
    if min(counts) <= bound.most:
        return None
    allowed = "none" if bound.most == 0 else f"at most {bound.most}"
    return (
        f"each phrase of the first holds at least {min(counts)} of the second, "
        f"which allows {allowed}"
    )


def _sure_starts(inner: Pattern, outer: Pattern) -> list[int]:
    """Places of `inner` in every text that `outer` matches, whatever surrounds it."""
    starts = _starts(inner, _Folded(outer.characters, [], word_before=False))
    end = len(outer.characters) - len(inner.characters)
    return [
        start
        for start in starts
        if not (start == 0 and inner.bound_left and outer.open_left)
        and not (start == end and inner.bound_right and outer.open_right)
    ]


# ------------------------------------------------------------------ reading


def from_json(value: Any) -> Constraint:
    """The constraint written in the JSON form (already parsed: a mapping).

    Raises:
        InputError: an unknown key, a missing one, a wrong type, an unusable phrase.
    """
    if not isinstance(value, Mapping):
        raise InputError(f"expected a constraint as a JSON object, got {value!r:.80}")
    keys = set(value)
    if keys == {"contains"}:
        return contains(_phrase_from_json(value["contains"]))
    if keys == {"excludes"}:
        return excludes(_phrase_from_json(value["excludes"]))
    if keys == {"at_most", "of"}:
        return at_most(value["at_most"], _phrase_from_json(value["of"]))
    if keys == {"all_of"}:
        if not isinstance(value["all_of"], list):
            raise InputError(f"expected a list of constraints in 'all_of', got {value!r:.80}")
        return all_of(*map(from_json, value["all_of"]))
    raise InputError(
        "expected a constraint with the keys 'contains', 'excludes', 'all_of', or 'at_most' and "
        f"'of', got the keys {sorted(map(str, keys))}"
    )


def _phrase_from_json(value: Any) -> str | AnyOf:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and set(value) == {"any_of"}:
        phrases = value["any_of"]
        if isinstance(phrases, list) and all(isinstance(one, str) for one in phrases):
            return any_of(*phrases)
    raise InputError(f'expected a phrase or {{"any_of": [phrases]}}, got {value!r:.80}')


def from_file(path: str | Path) -> Constraint:
    """The constraint in a JSON file (UTF-8).

    Raises:
        InputError: the file cannot be read, is no JSON, or says something unknown.
    """
    try:
        return from_json(json.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"expected a constraint file at {path}: {error.strerror}") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"expected a constraint as UTF-8 JSON in {path}: {error}") from error
    except RecursionError as error:
        raise InputError(f"expected a constraint in {path}, got one nested too deeply") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
