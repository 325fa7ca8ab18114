"""What a formula shows before any text is written: contradictions, tautologies, redundancy.

All of it rests on one bound, `_surely`: how many matches of one set of phrases there are at least
in a text that holds another. It is sound and not complete: it looks at the phrases alone, and at
two literals at a time.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from symdistill.constraints.phrases import Pattern, sure_starts, token_starts

if TYPE_CHECKING:
    from symdistill.constraints.formulas import Clause, Literal

_Phrase = Pattern | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Clauses of one constraint that no text can meet together (a single one: at all), and why."""

    clauses: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        if len(self.clauses) == 1:
            return f"{self.clauses[0]} cannot hold: {self.reason}"
        names = [f"({one})" if " | " in one else one for one in self.clauses]
        both = "both" if len(names) == 2 else "all"
        listed = f"{', '.join(names[:-1])} and {names[-1]}"
        return f"{listed} cannot {both} hold: {self.reason}"


@dataclass(frozen=True, slots=True)
class Tautology:
    """A clause that holds of every text, and the two literals that make it so."""

    clause: str
    literals: tuple[str, str]

    def __str__(self) -> str:
        first, second = self.literals
        return f"{self.clause} holds of every text: where {first} does not hold, {second} does"


def contradictions(clauses: Sequence[Clause]) -> list[Contradiction]:
    """Sets of clauses that no text meets together, found by unit propagation."""
    literals = dict.fromkeys(one for clause in clauses for one in clause.literals)
    against = _conflicts(literals)
    found: dict[frozenset[int], Contradiction] = {}  # by the clauses' places

    units = {clause.literals[0]: i for i, clause in enumerate(clauses) if len(clause.literals) == 1}
    for held, index in units.items():
        for broken, count in against.get(held, {}).items():
            if held.positive and broken in units:
                allowed = "none" if broken.most == 0 else f"at most {broken.most}"
                found[frozenset((index, units[broken]))] = Contradiction(
                    (str(held), str(broken)),
                    f"what meets the first has at least {count} of the second, "
                    f"which allows {allowed}",
                )

    # What a known literal rules out is struck off its clauses; a last one left is known in turn.
    alive = [dict.fromkeys(clause.literals) for clause in clauses]
    holding: dict[Literal, list[int]] = defaultdict(list)
    for index, clause in enumerate(clauses):
        for literal in clause.literals:
            holding[literal].append(index)
    struck: dict[Literal, tuple[Literal, frozenset[int]]] = {}  # by which, shown by which clauses
    settled: set[Literal] = set()
    waiting = deque(index for index, some in enumerate(alive) if len(some) <= 1)
    while waiting:
        index = waiting.popleft()
        out = [one for one in clauses[index].literals if one not in alive[index]]
        because = frozenset((index,)).union(*(struck[one][1] for one in out))
        if not alive[index]:
            if not any(known <= because for known in found):
                reasons = (f"{struck[one][0]} rules out {one}" for one in out)
                found[because] = Contradiction(
                    tuple(str(clauses[place]) for place in sorted(because)),
                    ", ".join(reasons) or "it has no literal that could hold",
                )
            continue
        (literal,) = alive[index]
        if literal in settled:
            continue
        settled.add(literal)
        for other in against.get(literal, ()):
            if other in struck:
                continue
            struck[other] = (literal, because)
            for place in holding[other]:
                del alive[place][other]
                if len(alive[place]) <= 1:
                    waiting.append(place)
    return list(found.values())


def tautologies(clauses: Iterable[Clause]) -> list[Tautology]:
    """Clauses of which an upper bound fails only where a lower bound of theirs holds."""
    found = []
    for clause in clauses:
        upper, lower = _by_sign(clause.literals)
        shown = next(_forced(upper, lower), None)
        if shown is not None:
            found.append(Tautology(str(clause), (str(shown[0]), str(shown[1]))))
    return found


def simplified(clauses: Iterable[Clause]) -> list[Clause]:
    """The clauses without tautologies and without those that another one implies."""
    rest = [clause for clause in clauses if not tautologies([clause])]
    weaker = _consequences(dict.fromkeys(one for clause in rest for one in clause.literals))

    def implies(first: Clause, second: Clause) -> bool:
        return all(not weaker[one].isdisjoint(of[second]) for one in first.literals)

    of = {clause: frozenset(clause.literals) for clause in rest}
    kept: list[Clause] = []
    for clause in rest:
        if not any(implies(one, clause) for one in kept):
            kept = [*(one for one in kept if not implies(clause, one)), clause]
    return kept


def _consequences(literals: Iterable[Literal]) -> dict[Literal, set[Literal]]:
    """For each literal those that it implies, itself among them."""
    upper, lower = _by_sign(literals)
    weaker = {one: {one} for one in (*upper, *lower)}
    for first, second, _ in _forced(lower, lower):
        weaker[first].add(second)
    for first, second, _ in _forced(upper, upper):
        weaker[second].add(first)
    return weaker


def _conflicts(literals: Iterable[Literal]) -> dict[Literal, dict[Literal, int]]:
    """For each literal those that it rules out, with the number of matches that shows it."""
    against: dict[Literal, dict[Literal, int]] = defaultdict(dict)
    upper, lower = _by_sign(literals)
    for held, broken, count in _forced(lower, upper):
        against[held][broken] = against[broken][held] = count
    return against


def _by_sign(literals: Iterable[Literal]) -> tuple[list[Literal], list[Literal]]:
    """The upper bounds and the lower bounds."""
    every = list(literals)
    return [one for one in every if not one.positive], [one for one in every if one.positive]


# ------------------------------------------------------------------ counts that bring counts


def _forced(
    held: Iterable[Literal], asked: Iterable[Literal]
) -> Iterator[tuple[Literal, Literal, int]]:
    """Pairs of which `threshold` matches of the first bring at least that many of the second.

    The third value is how many they bring. Only thresholds and phrases are looked at, not signs.
    """
    index = _Index((phrase, other) for other in asked for phrase in _phrases(other))
    for one in held:
        # What every match brings stands inside the first phrase: no other literal need be tried.
        for other in dict.fromkeys(other for _, other in index.inside(_phrases(one)[0])):
            count = _surely(one, other)
            if count >= other.threshold:
                yield one, other, count


def _surely(held: Literal, asked: Literal) -> int:
    """At least how many matches of `asked` a text has that has `held.threshold` of `held`."""
    phrases, index = _phrases(held), _index_of(asked)
    least = sum(_times(inner, phrases[0]) for inner, _ in index.inside(phrases[0]))
    for one in phrases[1:]:
        if least:
            least = min(least, sum(_times(inner, one) for inner, _ in index.inside(one)))
    if len(phrases) == 1 and least:
        # One phrase: each further match begins elsewhere, and brings one that begins elsewhere.
        least += held.threshold - 1
    return max(least, held.threshold) if index.phrases.issuperset(phrases) else least


def _times(inner: _Phrase, outer: _Phrase) -> int:
    """How many matches of the inner phrase every match of the outer one holds."""
    if isinstance(inner, Pattern) and isinstance(outer, Pattern):
        return len(sure_starts(inner, outer))
    if isinstance(inner, tuple) and isinstance(outer, tuple):
        return len(token_starts(inner, outer))
    return 0


class _Index:
    """Finds the phrases whose characters (or ids) stand somewhere inside another phrase."""

    def __init__(self, phrases: Iterable[tuple[_Phrase, Literal]]) -> None:
        self._of: dict[str | tuple[int, ...], list[tuple[_Phrase, Literal]]] = defaultdict(list)
        for phrase, literal in phrases:
            self._of[_characters(phrase)].append((phrase, literal))
        self._sizes = sorted({len(characters) for characters in self._of})
        self.phrases = frozenset(phrase for some in self._of.values() for phrase, _ in some)

    def inside(self, outer: _Phrase) -> Iterator[tuple[_Phrase, Literal]]:
        whole = _characters(outer)
        parts = (whole[i : i + n] for n in self._sizes for i in range(len(whole) - n + 1))
        for part in dict.fromkeys(parts):
            yield from self._of.get(part, ())


@lru_cache(maxsize=128)
def _index_of(literal: Literal) -> _Index:
    return _Index((phrase, literal) for phrase in _phrases(literal))


def _phrases(literal: Literal) -> tuple[_Phrase, ...]:
    return (*literal.patterns, *literal.token_phrases)


def _characters(phrase: _Phrase) -> str | tuple[int, ...]:
    return phrase.characters if isinstance(phrase, Pattern) else phrase
