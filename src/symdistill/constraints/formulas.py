"""Constraints: literals, clauses, formulas in conjunctive normal form, and what makes them."""

from __future__ import annotations

import typing
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from symdistill.constraints.phrases import (
    AnyOf,
    Match,
    Pattern,
    Phrase,
    Searched,
    Tokens,
    any_of,
    searched,
    shown,
    starts,
    token_starts,
)
from symdistill.constraints.reasoning import (
    Contradiction,
    Tautology,
    contradictions,
    simplified,
    tautologies,
)
from symdistill.errors import InputError
from symdistill.records import content_hash

MAX_COUNT = 10_000
MAX_CLAUSES = 1_000  # in a formula
MAX_LITERALS = 1_000  # in a clause


@dataclass(frozen=True, slots=True)
class ClauseStatus:
    """What one clause finds in a text.

    Of a literal, `count` is the number of matches, and `bound` and `limit` say what it asks of
    it: at least 1 for `contains`, at most 0 for `excludes`, n for `at_least` and `at_most`. Of a
    disjunction, `count` is the number of its literals that hold, of which it asks at least 1.

    Attributes:
        matches: the matches of its text phrases, by place; of all its literals together.
        token_spans: the matches of its token phrases, each as [index of the first id, index
            behind the last). A decoder, which knows the tokens of a text, puts the spans of
            `matches` in front of these, one for each.
        literals: what each literal of a disjunction finds; empty where there is only one.
    """

    clause: str
    satisfied: bool
    matches: tuple[Match, ...]
    count: int
    bound: typing.Literal["at_least", "at_most"]
    limit: int
    token_spans: tuple[tuple[int, int], ...] = ()
    literals: tuple[ClauseStatus, ...] = ()


class Constraint:
    """Something that is true or false of a text. Hashable; made by the functions below."""

    @property
    def clauses(self) -> tuple[Clause, ...]:
        """The clauses that must all hold, without repeats, in the order written."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """The JSON form of the normal form; see the head of `symdistill.constraints`."""
        raise NotImplementedError

    @property
    def fingerprint(self) -> str:
        """Hash of the JSON form: two constraints with one fingerprint have the same clauses."""
        return content_hash(self.to_json())

    def __and__(self, other: Constraint) -> Constraint:
        if not isinstance(other, Constraint):
            return NotImplemented
        return all_of(self, other)

    def __or__(self, other: Constraint) -> Constraint:
        if not isinstance(other, Constraint):
            return NotImplemented
        return either(self, other)

    def __invert__(self) -> Constraint:
        return either(*(all_of(*(~one for one in clause.literals)) for clause in self.clauses))

    def verify(self, text: str, before: str = "", token_ids: Iterable[int] | None = None) -> bool:
        """Whether the text meets every clause.

        Args:
            text: the continuation; matches lie wholly inside it.
            before: what stands before it (the prompt). Only its last character matters.
            token_ids: the continuation's token ids, in which `tokens(...)` are searched.

        Raises:
            InputError: there are token phrases and no `token_ids`.
        """
        given = self._searched(text, before, token_ids)
        return all(clause._holds(given) for clause in self.clauses)

    def explain(
        self, text: str, before: str = "", token_ids: Iterable[int] | None = None
    ) -> list[ClauseStatus]:
        """What each clause finds in the text; `verify` is true where all are satisfied.

        Takes and raises what `verify` does.
        """
        given = self._searched(text, before, token_ids)
        return [clause._status(given) for clause in self.clauses]

    def contradictions(self) -> list[Contradiction]:
        """Sets of clauses that visibly exclude each other.

        Two bounds conflict where every text that meets the first holds, by its phrases alone,
        more matches of the second than that allows. What single literals rule out is then
        followed through the disjunctions (unit propagation). An empty list is no proof that a
        text exists.
        """
        return contradictions(self.clauses)

    def tautologies(self) -> list[Tautology]:
        """Clauses that visibly hold of every text.

        These are disjunctions of a lower and an upper bound of which one holds where the other
        does not, such as `contains("dog") | excludes("hot dog")`. Not all of them are found.
        """
        return tautologies(self.clauses)

    def simplified(self) -> Constraint:
        """An equivalent formula without tautologies and without clauses that others imply.

        As far as phrases show it. The time grows with the square of the number of clauses.
        """
        return all_of(*simplified(self.clauses))

    def _searched(self, text: str, before: str, token_ids: Iterable[int] | None) -> Searched:
        if token_ids is None:
            for clause in self.clauses:
                if any(one.token_phrases for one in clause.literals):
                    raise InputError(
                        f"expected the text's token ids with {shown(str(clause))}, which asks for "
                        "tokens(...); got the text alone; give token_ids="
                    )
        return searched(text, before, token_ids)


class Clause(Constraint):
    """A disjunction of literals: one clause of a formula in conjunctive normal form."""

    @property
    def literals(self) -> tuple[Literal, ...]:
        """The literals of which one must hold, without repeats, in the order written."""
        raise NotImplementedError

    @property
    def clauses(self) -> tuple[Clause, ...]:
        """The clause itself."""
        return (self,)

    def _holds(self, text: Searched) -> bool:
        raise NotImplementedError

    def _status(self, text: Searched) -> ClauseStatus:
        raise NotImplementedError


@dataclass(frozen=True)
class Literal(Clause):
    """A bound on the number of matches of a set of phrases, and a clause of its own."""

    phrases: tuple[Phrase, ...]

    name: ClassVar[str]
    positive: ClassVar[bool]

    @property
    def threshold(self) -> int:
        """The n >= 1 of "at least n matches" (positive) or "fewer than n" (negative)."""
        return 1

    @property
    def least(self) -> int:
        """The smallest number of matches allowed."""
        return self.threshold if self.positive else 0

    @property
    def most(self) -> int | None:
        """The largest number of matches allowed; None where there is no upper bound."""
        return None if self.positive else self.threshold - 1

    @property
    def literals(self) -> tuple[Literal, ...]:
        """The literal itself."""
        return (self,)

    @cached_property
    def patterns(self) -> tuple[Pattern, ...]:
        """The text phrases as they are matched, in the same order."""
        return tuple(Pattern.of(one) for one in self.phrases if isinstance(one, str))

    @cached_property
    def token_phrases(self) -> tuple[tuple[int, ...], ...]:
        """The ids of the token phrases, in the same order."""
        return tuple(one.ids for one in self.phrases if isinstance(one, Tokens))

    def __invert__(self) -> Literal:
        return _literal(self.phrases, not self.positive, self.threshold)

    def __str__(self) -> str:
        return f"{self.name}({self._phrases_str()})"

    def to_json(self) -> dict[str, Any]:
        """The JSON form: {name: phrases}."""
        return {self.name: self._phrases_json()}

    def _phrases_str(self) -> str:
        return repr(self.phrases[0]) if len(self.phrases) == 1 else str(AnyOf(self.phrases))

    def _phrases_json(self) -> Any:
        written = [{"tokens": list(o.ids)} if isinstance(o, Tokens) else o for o in self.phrases]
        return written[0] if len(written) == 1 else {"any_of": written}

    def _holds(self, text: Searched) -> bool:
        count = 0
        for pattern in self.patterns:
            count += len(starts(pattern, text))
            if count >= self.threshold:
                return self.positive
        count += len(self._token_spans(text))
        return (count >= self.threshold) == self.positive

    def _status(self, text: Searched) -> ClauseStatus:
        words = [one for one in self.phrases if isinstance(one, str)]
        matches = sorted(
            Match(text.at[start], text.at[start + len(pattern.characters) - 1] + 1, phrase)
            for phrase, pattern in zip(words, self.patterns, strict=True)
            for start in starts(pattern, text)
        )
        spans = self._token_spans(text)
        count = len(matches) + len(spans)
        return ClauseStatus(
            clause=str(self),
            satisfied=(count >= self.threshold) == self.positive,
            matches=tuple(matches),
            count=count,
            bound="at_least" if self.positive else "at_most",
            limit=self.threshold if self.positive else self.threshold - 1,
            token_spans=spans,
        )

    def _token_spans(self, text: Searched) -> tuple[tuple[int, int], ...]:
        return tuple(
            sorted(
                (start, start + len(ids))
                for ids in self.token_phrases
                for start in token_starts(ids, text.token_ids or ())
            )
        )


@dataclass(frozen=True)
class Contains(Literal):
    """At least one match of the phrases; made by `contains`."""

    name: ClassVar[str] = "contains"
    positive: ClassVar[bool] = True


@dataclass(frozen=True)
class Excludes(Literal):
    """No match of any of the phrases; made by `excludes`."""

    name: ClassVar[str] = "excludes"
    positive: ClassVar[bool] = False


@dataclass(frozen=True)
class _Counted(Literal):
    """A literal that names its number of matches."""

    limit: int = 0

    def __str__(self) -> str:
        return f"{self.name}({self.limit}, {self._phrases_str()})"

    def to_json(self) -> dict[str, Any]:
        """The JSON form: {name: limit, "of": phrases}."""
        return {self.name: self.limit, "of": self._phrases_json()}


@dataclass(frozen=True)
class AtMost(_Counted):
    """No more than `limit` matches of the phrases, all counted together; made by `at_most`."""

    name: ClassVar[str] = "at_most"
    positive: ClassVar[bool] = False

    @property
    def threshold(self) -> int:
        """The smallest number of matches that is too many."""
        return self.limit + 1


@dataclass(frozen=True)
class AtLeast(_Counted):
    """`limit` matches of the phrases or more, all counted together; made by `at_least`."""

    name: ClassVar[str] = "at_least"
    positive: ClassVar[bool] = True

    @property
    def threshold(self) -> int:
        """The limit."""
        return self.limit


@dataclass(frozen=True)
class Either(Clause):
    """A disjunction of two or more literals; made by `|` or `either`.

    Without parts it holds of no text: what is left of `~all_of()`.
    """

    parts: tuple[Literal, ...] = ()

    @property
    def literals(self) -> tuple[Literal, ...]:
        """The parts."""
        return self.parts

    def __str__(self) -> str:
        return " | ".join(map(str, self.parts)) if self.parts else "either()"

    def to_json(self) -> dict[str, Any]:
        """The JSON form: {"either": parts}."""
        return {"either": [part.to_json() for part in self.parts]}

    def _holds(self, text: Searched) -> bool:
        return any(part._holds(text) for part in self.parts)

    def _status(self, text: Searched) -> ClauseStatus:
        found = tuple(part._status(text) for part in self.parts)
        count = sum(one.satisfied for one in found)
        return ClauseStatus(
            clause=str(self),
            satisfied=count >= 1,
            matches=tuple(sorted({match for one in found for match in one.matches})),
            count=count,
            bound="at_least",
            limit=1,
            token_spans=tuple(sorted({span for one in found for span in one.token_spans})),
            literals=found,
        )


@dataclass(frozen=True)
class AllOf(Constraint):
    """A conjunction; made by `&` or `all_of`. Without parts it holds of every text."""

    parts: tuple[Clause, ...] = ()

    @property
    def clauses(self) -> tuple[Clause, ...]:
        """The parts."""
        return self.parts

    def __str__(self) -> str:
        if not self.parts:
            return "all_of()"
        return " & ".join(f"({one})" if len(one.literals) > 1 else str(one) for one in self.parts)

    def to_json(self) -> dict[str, Any]:
        """The JSON form: {"all_of": parts}."""
        return {"all_of": [part.to_json() for part in self.parts]}


# ------------------------------------------------------------------ making them


def contains(phrase: Phrase | AnyOf) -> Contains:
    """The text must hold the phrase, or one of the set."""
    return Contains(_phrases(phrase, "contains"))


def excludes(phrase: Phrase | AnyOf) -> Excludes:
    """The text must not hold the phrase, nor any of the set."""
    return Excludes(_phrases(phrase, "excludes"))


def at_most(limit: int, phrases: Phrase | AnyOf | Iterable[Phrase]) -> AtMost:
    """The text may hold the phrases at most `limit` times, counted together.

    Raises:
        InputError: `limit` is no whole number from 0 to 10,000, or a phrase is not usable.
    """
    return AtMost(any_of(phrases).phrases, _checked_count(limit, "at_most"))


def at_least(limit: int, phrases: Phrase | AnyOf | Iterable[Phrase]) -> Constraint:
    """The text must hold the phrases at least `limit` times, counted together.

    Once is `contains`; not at all asks nothing and is `all_of()`.

    Raises:
        InputError: `limit` is no whole number from 0 to 10,001, or a phrase is not usable.
    """
    limit = _checked_count(limit, "at_least", MAX_COUNT + 1)  # one more: ~at_most(10_000, ...)
    kept = any_of(phrases).phrases
    return _literal(kept, True, limit) if limit else all_of()


def exactly(count: int, phrases: Phrase | AnyOf | Iterable[Phrase]) -> Constraint:
    """The text must hold the phrases `count` times, counted together: at least and at most.

    Not at all is `excludes`.

    Raises:
        InputError: `count` is no whole number from 0 to 10,000, or a phrase is not usable.
    """
    count, kept = _checked_count(count, "exactly"), any_of(phrases)
    return at_least(count, kept) & at_most(count, kept) if count else excludes(kept)


def all_of(*constraints: Constraint) -> Constraint:
    """Every one of the constraints; repeats are dropped, a single clause stays itself.

    Raises:
        InputError: something else than a constraint, or more than 1,000 clauses.
    """
    parts: dict[Clause, None] = {}
    for one in _checked(constraints, "all_of"):
        parts.update(dict.fromkeys(one.clauses))
        if len(parts) > MAX_CLAUSES:
            raise InputError(
                f"expected a formula of at most {MAX_CLAUSES:,} clauses, got more; "
                "write the phrases of many clauses in one, as in excludes(any_of(...))"
            )
    return next(iter(parts)) if len(parts) == 1 else AllOf(tuple(parts))


def either(*constraints: Constraint) -> Constraint:
    """One of the constraints or more, brought into conjunctive normal form.

    Where conjunctions are joined, clauses that hold of every text ("a or not a") and clauses
    that hold all the literals of another one are left out.

    Raises:
        InputError: something else than a constraint, or a normal form of more than 1,000
            clauses, or of more than 1,000 literals in a clause.
    """
    checked = dict.fromkeys(_checked(constraints, "either"))
    literals = dict.fromkeys(
        literal for one in checked for clause in one.clauses for literal in clause.literals
    )
    order = {literal: place for place, literal in enumerate(literals)}
    single = [one.clauses[0] for one in checked if len(one.clauses) == 1]
    joined = [frozenset(literal for clause in single for literal in clause.literals)]
    for one in checked:
        if len(one.clauses) != 1:
            joined = _joined(joined, one.clauses)
    for some in joined:
        if len(some) > MAX_LITERALS:
            raise InputError(
                f"expected a clause of at most {MAX_LITERALS:,} literals, got {len(some):,}; "
                "write phrases of which one is enough as contains(any_of(...))"
            )
    ordered = [tuple(sorted(some, key=order.__getitem__)) for some in joined]
    return all_of(*(some[0] if len(some) == 1 else Either(some) for some in ordered))


def _joined(
    joined: list[frozenset[Literal]], clauses: tuple[Clause, ...]
) -> list[frozenset[Literal]]:
    """Each of the first with each of the second, without what is trivial or redundant."""
    kept: set[frozenset[Literal]] = set()
    longer: dict[frozenset[Literal], None] = {}
    small_enough = len(joined) * len(clauses) <= 10 * MAX_CLAUSES
    if small_enough:
        every = (some.union(clause.literals) for some in joined for clause in clauses)
        longer = dict.fromkeys(some for some in every if not _trivial(some))
        for some in sorted(longer, key=len):
            if len(kept) <= MAX_CLAUSES and not any(one < some for one in kept):
                kept.add(some)
    if not small_enough or len(kept) > MAX_CLAUSES:
        raise InputError(
            f"expected a formula whose normal form has at most {MAX_CLAUSES:,} clauses, got a "
            "disjunction of conjunctions that needs more; join fewer parts by |"
        )
    return [some for some in longer if some in kept]


def _trivial(literals: frozenset[Literal]) -> bool:
    """Whether a lower and an upper bound on the same phrases leave no count out."""
    lower: dict[tuple[Phrase, ...], int] = {}
    for one in literals:
        if one.positive:
            lower[one.phrases] = min(one.threshold, lower.get(one.phrases, one.threshold))
    return any(
        lower.get(one.phrases, one.threshold + 1) <= one.threshold
        for one in literals
        if not one.positive
    )


def _literal(phrases: tuple[Phrase, ...], positive: bool, threshold: int) -> Literal:
    if threshold == 1:
        return Contains(phrases) if positive else Excludes(phrases)
    return AtLeast(phrases, threshold) if positive else AtMost(phrases, threshold - 1)


def _phrases(phrase: Phrase | AnyOf, where: str) -> tuple[Phrase, ...]:
    if not isinstance(phrase, (str, Tokens, AnyOf)):
        raise InputError(
            f"expected a phrase or any_of(...) in {where}, got {type(phrase).__name__}; "
            "a list could mean any or all of its phrases: write any_of(list), or join clauses by &"
        )
    return any_of(phrase).phrases


def _checked(constraints: Iterable[Any], where: str) -> Iterable[Constraint]:
    for one in constraints:
        if not isinstance(one, Constraint):
            raise InputError(f"expected constraints in {where}, got {shown(one)}")
        yield one


def _checked_count(value: Any, where: str, most: int = MAX_COUNT) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise InputError(f"expected a count from 0 to {most:,} in {where}, got {shown(value)}")
    return value
