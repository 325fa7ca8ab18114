"""What constrained decoding should find: every text is listed and judged. Slow and plainly right.

Nothing here knows of automata, clauses or tensors. A formula is a tree (`Count`, `All`, `Some`,
`Not`) that is judged by looking for its phrases in the text, and written as a constraint besides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, reduce
from operator import and_, or_
from typing import Any, Literal

import numpy as np
from tests.decoding.toy import ToyRows

from symdistill import constraints
from symdistill.constraints import Constraint
from symdistill.decoding import TokenTable

Tokens = tuple[int, ...]

# ------------------------------------------------------------------ formulas


def is_word(character: str) -> bool:
    """Letters, digits and "_"; combining marks do not occur here."""
    return character.isalnum() or character == "_"


def phrase_count(phrases: Sequence[str], text: str, before: str = "") -> int:
    """How many pairs (start, phrase) match: each phrase is tried at each character."""
    different = {}
    for phrase in phrases:
        words = phrase.strip()
        open_left, words = words.startswith("*"), words.removeprefix("*")
        open_right, words = words.endswith("*"), words.removesuffix("*")
        apart = words.replace("\u2019", "'").lower().split()
        bound_left = is_word(apart[0][0]) and not open_left
        bound_right = is_word(apart[-1][-1]) and not open_right
        pattern = r"\s+".join(map(re.escape, apart))
        pattern = (r"(?<!\w)" if bound_left else "") + pattern + (r"(?!\w)" if bound_right else "")
        different[pattern] = re.compile(pattern, re.IGNORECASE)
    whole, first = before[-1:] + text.replace("\u2019", "'"), len(before[-1:])
    return sum(
        one.match(whole, start) is not None
        for one in different.values()
        for start in range(first, len(whole))
    )


def token_count(ids: Tokens, tokens: Tokens) -> int:
    """At how many places the ids stand side by side."""
    return sum(tokens[i : i + len(ids)] == ids for i in range(len(tokens)))


@dataclass(frozen=True)
class Count:
    """Between `least` and `most` matches of some phrases, or of some token ids."""

    phrases: tuple[str, ...] = ()
    ids: Tokens = ()
    least: int = 0
    most: int | None = None

    def holds(self, text: str, before: str, tokens: Tokens) -> bool:
        found = (
            token_count(self.ids, tokens) if self.ids else phrase_count(self.phrases, text, before)
        )
        return self.least <= found and (self.most is None or found <= self.most)

    def constraint(self) -> Constraint:
        what: Any = constraints.tokens(*self.ids) if self.ids else constraints.any_of(self.phrases)
        if self.most == self.least:
            return constraints.exactly(self.least, what)
        if self.most == 0:
            return constraints.excludes(what)
        if self.most is not None:
            return constraints.at_most(self.most, what)
        return (
            constraints.contains(what)
            if self.least == 1
            else constraints.at_least(self.least, what)
        )


@dataclass(frozen=True)
class All:
    """All parts hold."""

    parts: tuple[Formula, ...]

    def holds(self, text: str, before: str, tokens: Tokens) -> bool:
        return all(one.holds(text, before, tokens) for one in self.parts)

    def constraint(self) -> Constraint:
        return reduce(and_, (one.constraint() for one in self.parts), constraints.all_of())


@dataclass(frozen=True)
class Some:
    """One of the parts holds, at least."""

    parts: tuple[Formula, ...]

    def holds(self, text: str, before: str, tokens: Tokens) -> bool:
        return any(one.holds(text, before, tokens) for one in self.parts)

    def constraint(self) -> Constraint:
        return reduce(or_, (one.constraint() for one in self.parts))


@dataclass(frozen=True)
class Not:
    """The part does not hold."""

    part: Formula

    def holds(self, text: str, before: str, tokens: Tokens) -> bool:
        return not self.part.holds(text, before, tokens)

    def constraint(self) -> Constraint:
        return ~self.part.constraint()


Formula = Count | All | Some | Not


# ------------------------------------------------------------------ texts


@dataclass(frozen=True)
class Written:
    """A text that a search may return: token ids with the end token, if there is one."""

    tokens: Tokens
    log_probability: float
    ended: bool

    def score(self, length_penalty: float) -> float:
        return self.log_probability / len(self.tokens) ** length_penalty


@dataclass(frozen=True, eq=False)
class World:
    """A table model with a vocabulary and a prompt: all that it can write, listed.

    Attributes:
        ends: the tokens that end a text. One that writes something (".") is part of the text.
        length: how many tokens are written at most, end token included.
    """

    table: TokenTable
    length: int
    seed: int = 0
    before: str = ""
    prompt: Tokens = ()
    ends: frozenset[int] = frozenset({0})
    sharpness: float = 2.0
    memory: int | None = None

    def rows(self) -> ToyRows:
        return ToyRows([self.prompt], len(self.table), self.seed, self.memory, self.sharpness)

    def text(self, tokens: Tokens) -> str:
        return self.table.text(tokens)

    def holds(self, formula: Formula, tokens: Tokens) -> bool:
        end = bool(tokens) and tokens[-1] in self.ends and not self.table.token_bytes[tokens[-1]]
        return formula.holds(self.text(tokens), self.before, tokens[:-1] if end else tokens)

    def log_probabilities(self, tokens: Tokens) -> list[float]:
        """Of every token after a text: (V,)."""
        return _log_probabilities(
            len(self.table), self.seed, self.memory, self.sharpness, (*self.prompt, *tokens)
        )

    def log_probability(self, tokens: Tokens) -> float:
        return math.fsum(
            self.log_probabilities(tokens[:i])[token] for i, token in enumerate(tokens)
        )

    @cached_property
    def everything(self) -> list[Written]:
        """Every text: ended by an end token within the limit, or cut at the limit."""
        return list(self._continued((), 0.0))

    def _continued(self, tokens: Tokens, log_probability: float) -> Iterator[Written]:
        for token, more in enumerate(self.log_probabilities(tokens)):
            longer, total = (*tokens, token), log_probability + more
            if token in self.ends or len(longer) == self.length:
                yield Written(longer, total, token in self.ends)
            else:
                yield from self._continued(longer, total)

    def satisfying(self, formula: Formula, length_penalty: float = 0.0) -> list[Written]:
        """The ended texts that the formula holds of, best first.

        Without those in whose middle a bound is broken that no more writing could mend: where
        "the" is excluded, " the" is not written even as the beginning of " they".
        """
        constraint = formula.constraint()
        for_ever = [c for c in constraint.clauses if not any(one.positive for one in c.literals)]
        kept: dict[Tokens, bool] = {(): True}

        def keeps(tokens: Tokens) -> bool:
            if tokens not in kept:
                kept[tokens] = keeps(tokens[:-1]) and all(
                    one.verify(self.text(tokens), self.before, token_ids=tokens) for one in for_ever
                )
            return kept[tokens]

        good = [
            one
            for one in self.everything
            if one.ended and keeps(one.tokens[:-1]) and self.holds(formula, one.tokens)
        ]
        return sorted(good, key=lambda one: -one.score(length_penalty))


@lru_cache(maxsize=200_000)
def _log_probabilities(
    size: int, seed: int, memory: int | None, sharpness: float, text: Tokens
) -> list[float]:
    logits = ToyRows([()], size, seed, memory, sharpness).logits_after(text).astype(np.float32)
    values = logits.astype(np.float64)
    return [float(one) for one in values - np.logaddexp.reduce(values)]


# ------------------------------------------------------------------ plain beam search


def beam_search(
    log_probabilities: Callable[[Tokens], Sequence[float]],
    *,
    num_beams: int,
    length: int,
    ends: frozenset[int],
    length_penalty: float = 1.0,
    early_stopping: Literal[False, "never"] = False,
) -> list[Written]:
    """Beam search without constraints, by the rules of `generate`; best first.

    Of the candidates (all tokens after all beams) the best num_beams may finish; the best
    num_beams that do not end go on. The num_beams best finished ones are kept. The search stops
    at the limit, or where num_beams are kept and the best open beam, its score divided by the
    length that it has (by the limit where early_stopping is "never"), passes none of them. One
    beam alone is greedy search: its first end is the end.
    """
    beams: list[Written] = [Written((), 0.0, False)]
    finished: list[Written] = []
    for size in range(1, length + 1):
        candidates = sorted(
            (
                Written((*one.tokens, token), one.log_probability + more, token in ends)
                for one in beams
                for token, more in enumerate(log_probabilities(one.tokens))
                if more > -math.inf
            ),
            key=lambda one: -one.log_probability,
        )
        finished += [one for one in candidates[:num_beams] if one.ended or size == length]
        finished = sorted(finished, key=lambda one: -one.score(length_penalty))[:num_beams]
        beams = [one for one in candidates if not one.ended][:num_beams]
        if not beams or (num_beams == 1 and finished):
            break
        reach = length if early_stopping == "never" and length_penalty > 0 else size
        best = beams[0].log_probability / reach**length_penalty
        if len(finished) == num_beams and best <= finished[-1].score(length_penalty):
            break
    return finished
