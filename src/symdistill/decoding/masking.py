"""Exact enforcement of exclusions and counts inside `transformers`' own `generate`.

    table = TokenTable.from_tokenizer(tokenizer)
    mask = ExactMask(table, constraints, before=prompts, prompt_length=width, max_new_tokens=24)
    model.generate(**inputs, logits_processor=LogitsProcessorList([mask]), max_new_tokens=24)

Takes one constraint per prompt; gives scores in which every forbidden token is -inf. Works in
greedy search, sampling and beam search, with `num_return_sequences` too. Cost: about a
millisecond for each new state of a clause (kept afterwards), and some microseconds a row and step.

What holds
    *Upper bounds* (`excludes`, `at_most`) hold of the text that users read, whichever tokens
    spell it: of every hypothesis that ends with an end token or at `max_new_tokens`.
    *Nothing else is masked*: a token is masked if and only if no continuation of it within
    `max_new_tokens`, ended by an end token or by the limit, keeps the bounds. So a row never
    runs into a dead end. While " the" stands forbidden but unfinished, " the" may be written
    where a token is left to make it "they"; the end token is masked until then.
    With `extend_words=False` it may not be: no token is written after which the text, ending
    there, breaks a bound. Words that the tokenizer spells with a forbidden word first (" in" +
    "compressible") then cannot be written that way. It is what generating good text asks for: a
    model that wanted " the" and may not end the word glues the next one to it ("thedog").
    *Lower bounds* (`contains`, `at_least`) and disjunctions (`|`) are not enforced;
    `Constraint.verify` reports them. Upper bounds on token phrases (`tokens`) are refused.

A match at the end of a word counts from the moment at which the word ends, so the mask follows
each clause with a `PhraseAutomaton` over characters, one automaton for each distinct clause,
shared by all prompts that have it. For a state of it, the matches that every token of the
vocabulary would confirm are found by one walk over the vocabulary's tree.

What it does not do
    Ids that the model has and the tokenizer lacks are always masked. Not covered:
    speculative decoding (`assistant_model`). Other ways to stop (stop strings, time) are safe
    where they stop after a character that is no word character, and are not known to the mask.
    A processor that runs before this one and masks tokens may leave a row without any; such rows
    get the end token and are listed in `ExactMask.infeasible`, and so are the rows that beam
    search fills with impossible hypotheses (score -inf) where fewer possible ones exist than
    beams.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from symdistill.constraints import Constraint, Literal, Pattern
from symdistill.decoding.automaton import OTHER, PhraseAutomaton
from symdistill.decoding.tokens import TokenTable
from symdistill.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["ExactMask", "Infeasible", "Position", "TokenConstraint"]

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int32]

MAX_CLAUSES_APART = 6  # `excludes` clauses beyond this many share one automaton
KEPT_CLAUSES = 512  # compiled clauses kept for each tokenizer, the oldest are dropped
_HITS = np.int64(1) << 40  # walks carry state * K in the bits below, confirmed matches above


class Position(NamedTuple):
    """Where a continuation stands: one state and one remaining count for each clause."""

    states: tuple[int, ...]
    room: tuple[int, ...]  # matches that may still be confirmed; below 0: the bound is broken
    partial: bytes  # the bytes of a character not yet complete


class _Tokens(NamedTuple):
    """What the tokens do at one state of a clause, where `room` more matches are allowed."""

    closed: Ints | Bools | None  # tokens that confirm more matches than that
    risky: Ints | Bools | None  # others after which the text, ending there, has more than that


class _ClauseMasks:
    """One clause over one vocabulary: an automaton, and what it says of all tokens."""

    def __init__(self, patterns: Sequence[Pattern], table: TokenTable) -> None:
        self.automaton = PhraseAutomaton(patterns)
        self._table = table
        self._width = np.int64(self.automaton.after.shape[1])  # K
        steps = self.automaton.after.astype(np.int64) * self._width
        self._steps = (steps + self.automaton.confirmed * _HITS).ravel()  # (S * K,)
        tree = table.tree
        symbols = np.array([self.automaton.symbol(one) for one in tree.characters], dtype=np.int64)
        self._symbols = symbols[tree.character] if len(symbols) else tree.character
        self._kept: dict[tuple[int, bytes, int], _Tokens] = {}

    def tokens(self, state: int, partial: bytes, room: int) -> _Tokens:
        """What the V tokens do at a state."""
        key = (state, partial, room)
        known = self._kept.get(key)
        if known is None:
            hits, total = self._matches(state, partial)
            closed, risky = hits > room, total > room
            known = self._kept[key] = _Tokens(_compact(closed), _compact(risky & ~closed))
        return known

    def ends(self, state: int, room: int) -> bool:
        """Whether the text may end at a state."""
        return bool(self.automaton.confirmed_at_end[state] <= room)

    def _matches(self, state: int, partial: bytes) -> tuple[Ints, Ints]:
        """Matches confirmed by each token, and those confirmed if the text ends after it: (V,)."""
        if not partial:
            return self._walk(state)
        table, automaton = self._table, self.automaton
        # The partial bytes become U+FFFD before most tokens.
        broken = int(automaton.confirmed[state, OTHER])
        hits, total = self._walk(int(automaton.after[state, OTHER]))
        hits, total = hits + broken, total + broken
        hits[table.silent], total[table.silent] = 0, automaton.confirmed_at_end[state]
        for token in table.continuing.tolist():
            text, _ = table.read(token, partial)
            reached, hits[token] = automaton.walk(state, text)
            total[token] = hits[token] + automaton.confirmed_at_end[reached]
        return hits, total

    def _walk(self, state: int) -> tuple[Ints, Ints]:
        tree, low = self._table.tree, _HITS - 1
        reached = np.empty(len(tree.parent), dtype=np.int64)  # (N,)
        reached[0] = state * self._width
        for level in tree.levels:
            before = reached[tree.parent[level]]
            at = before & low
            reached[level] = self._steps[at + self._symbols[level]] + (before - at)
        ended = reached[tree.node]  # (V,)
        hits = (ended // _HITS).astype(np.int32)
        return hits, hits + self.automaton.confirmed_at_end[(ended & low) // self._width]


class TokenConstraint:
    """The upper bounds of a constraint over one vocabulary: which tokens may follow what."""

    def __init__(
        self, constraint: Constraint, table: TokenTable, eos_token_ids: Iterable[int] | None = None
    ) -> None:
        """Compile a constraint; clauses already compiled for the table are used again.

        Args:
            constraint: its `excludes` and `at_most` clauses count; lower bounds and disjunctions
                are ignored here.
            table: the vocabulary.
            eos_token_ids: the tokens that end a text; the table's own by default. Whatever they
                may write is not part of the text.

        Raises:
            InputError: an upper bound on token phrases.
        """
        self.table = table
        ends = table.eos_token_ids if eos_token_ids is None else frozenset(eos_token_ids)
        self._eos = np.array(sorted(one for one in ends if 0 <= one < len(table)), dtype=np.int32)
        bounds = _bounds(constraint)
        self._limits = tuple(limit for _, limit in bounds)
        self._clauses = [_compiled(patterns, table) for patterns, _ in bounds]
        self._alphabet = frozenset().union(*(one.automaton.symbols for one in self._clauses))
        # A word character that no phrase knows, written by one token, finishes any word.
        self._can_go_on = bool(table.word_characters - self._alphabet)
        self._reachable: dict[tuple[Position, int], bool] = {}

    def __bool__(self) -> bool:
        """Whether there is anything to enforce."""
        return bool(self._clauses)

    def start(self, before: str = "") -> Position:
        """The position at the beginning of a continuation of `before`."""
        states = tuple(one.automaton.start(before) for one in self._clauses)
        return Position(states, self._limits, b"")

    def advance(self, position: Position, token: int) -> Position:
        """The position after one more token (not an end token)."""
        text, partial = self.table.read(token, position.partial)
        if not text:
            return Position(position.states, position.room, partial)
        walked = [
            one.automaton.walk(state, text)
            for one, state in zip(self._clauses, position.states, strict=True)
        ]
        return Position(
            tuple(state for state, _ in walked),
            tuple(room - hits for room, (_, hits) in zip(position.room, walked, strict=True)),
            partial,
        )

    def may_end(self, position: Position) -> bool:
        """Whether the text keeps its bounds if it ends here."""
        return all(
            one.ends(state, room)
            for one, state, room in zip(self._clauses, *position[:2], strict=True)
        )

    def forbidden(self, position: Position, remaining: int) -> Bools:
        """The tokens that may not come next: (V,).

        Args:
            position: where the continuation stands.
            remaining: how many tokens may follow the next one.
        """
        closed, risky = self._closed_and_risky(position)
        if risky is not None:
            if remaining == 0:
                closed |= risky
            else:
                for token in self._doubtful(risky & ~closed, position.partial):
                    if not self._survives(self.advance(position, token), remaining):
                        closed[token] = True
        closed[self._eos] = not self.may_end(position)
        return closed

    def _closed_and_risky(self, position: Position) -> tuple[Bools, Bools | None]:
        """Tokens that break a bound, and tokens after which ending the text would: (V,) each."""
        closed = np.zeros(len(self.table), dtype=np.bool_)
        risky: Bools | None = None
        for one, state, room in zip(self._clauses, *position[:2], strict=True):
            tokens = one.tokens(state, position.partial, room)
            _mark(closed, tokens.closed)
            if tokens.risky is not None:
                risky = np.zeros_like(closed) if risky is None else risky
                _mark(risky, tokens.risky)
        return closed, risky

    def _doubtful(self, risky: Bools, partial: bytes) -> list[int]:
        """Those of the risky tokens that may leave no way to go on."""
        risky[self._eos] = False
        if not self._can_go_on:
            return [int(one) for one in np.flatnonzero(risky)]
        # Without bytes left over, the character of `_can_go_on` is a way.
        ending = [self.table.unfinished]
        if partial:
            ending += [self.table.continuing, self.table.silent]
        tokens = np.unique(np.concatenate(ending))
        return [int(one) for one in tokens[risky[tokens]]]

    def _survives(self, position: Position, tokens: int) -> bool:
        """Whether at most `tokens` more tokens can lead to a text that keeps its bounds.

        The position is one at which the text may not end: a forbidden word stands there, and
        the next character must be a word character.
        """
        if not position.partial:
            if self._can_go_on:
                return True
        else:
            ways = [self.table.completions(position.partial, n) for n in range(1, tokens + 1)[:3]]
            if any(alone - self._alphabet for alone, _ in ways):
                return True
            if not any(possible for _, possible in ways):
                return False
        key = (position, tokens)
        if key not in self._reachable:
            self._reachable[key] = self._search(position, tokens)
        return self._reachable[key]

    def _search(self, position: Position, tokens: int) -> bool:
        """Breadth-first search for a position at which the text may end."""
        seen, frontier = {position}, [position]
        for _ in range(tokens):
            reached: list[Position] = []
            for one in frontier:
                closed, risky = self._closed_and_risky(one)
                stuck = closed if risky is None else closed | risky
                stuck[self._eos] = True
                if not stuck.all():
                    return True
                onward = stuck & ~closed
                onward[self._eos] = False
                for token in np.flatnonzero(onward):
                    target = self.advance(one, int(token))
                    if target not in seen:
                        seen.add(target)
                        reached.append(target)
            frontier = reached
        return False


@dataclass(frozen=True, slots=True)
class Infeasible:
    """A row that had no allowed token left, and so was ended, or left as it was."""

    row: int
    prompt: int
    step: int  # tokens written before
    reason: str


class ExactMask:
    """A logits processor that keeps exclusions and counts; see the head of this module.

    Use one object for one call of `generate`.

    Attributes:
        infeasible: the rows that had no allowed token left, in the order met.
    """

    def __init__(
        self,
        table: TokenTable,
        constraints: Sequence[Constraint | None],
        *,
        before: Sequence[str] | None = None,
        prompt_length: int,
        max_new_tokens: int,
        eos_token_ids: Iterable[int] | None = None,
        extend_words: bool = True,
    ) -> None:
        """Prepare for one batch of P prompts.

        Args:
            table: the tokenizer's table.
            constraints: one for each prompt; None asks nothing.
            before: the prompts' texts, of which the last character decides whether the
                continuation begins inside a word; taken as empty by default.
            prompt_length: the width of the padded prompts in tokens (0 for a decoder of its own
                whose rows begin with the continuation; count its start token as prompt).
            max_new_tokens: the limit given to `generate`, in tokens.
            eos_token_ids: the end tokens given to `generate`; the table's own by default.
            extend_words: whether a forbidden word may be written as the beginning of a longer
                one; see the head of this module.

        Raises:
            InputError: numbers that do not fit, an end token outside the vocabulary, or an upper
                bound on token phrases.
        """
        texts = [""] * len(constraints) if before is None else list(before)
        if len(texts) != len(constraints) or not texts:
            raise InputError(
                f"expected one constraint and one text before it for each prompt, got "
                f"{len(constraints)} constraints and {len(texts)} texts"
            )
        if prompt_length < 0 or max_new_tokens < 1:
            raise InputError(
                "expected prompt_length >= 0 and max_new_tokens >= 1, got "
                f"{prompt_length} and {max_new_tokens}"
            )
        self._eos = table.eos_token_ids if eos_token_ids is None else frozenset(eos_token_ids)
        if any(not 0 <= one < len(table) for one in self._eos):
            raise InputError(f"expected end tokens below {len(table)}, got {sorted(self._eos)}")
        compiled: dict[Constraint, TokenConstraint] = {}
        self._constraints: list[TokenConstraint | None] = []
        for one in constraints:
            if one is not None and one not in compiled:
                compiled[one] = TokenConstraint(one, table, self._eos)
            self._constraints.append((compiled[one] or None) if one is not None else None)
        self._starts = [
            None if one is None else one.start(text)
            for one, text in zip(self._constraints, texts, strict=True)
        ]
        self._table = table
        self._prompt_length = prompt_length
        self._max_new_tokens = max_new_tokens
        self._extend_words = extend_words
        self._positions: dict[tuple[int, tuple[int, ...]], Position] = {}
        self.infeasible: list[Infeasible] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Mask one step.

        Args:
            input_ids: (R, T); the R rows are P prompts x R / P beams or samples, prompt-major.
            scores: (R, V'); V' may differ from the table's V where the model pads its vocabulary.

        Returns:
            (R, V') scores with -inf at forbidden tokens; the input itself where there are none.
        """
        import torch

        rows, step = input_ids.shape[0], input_ids.shape[1] - self._prompt_length
        if rows % len(self._constraints) or step < 0:
            raise InputError(
                f"expected rows of {len(self._constraints)} prompts, each at least "
                f"{self._prompt_length} tokens wide, got {rows} rows of {input_ids.shape[1]}"
            )
        if not any(one is not None for one in self._constraints):
            return scores
        remaining = max(0, self._max_new_tokens - step - 1) if self._extend_words else 0
        mask = np.zeros((rows, scores.shape[1]), dtype=np.bool_)
        positions: dict[tuple[int, tuple[int, ...]], Position] = {}
        forbidden: dict[tuple[int, Position], Bools] = {}
        for row, written in enumerate(input_ids[:, self._prompt_length :].tolist()):
            prompt = row * len(self._constraints) // rows
            constraint = self._constraints[prompt]
            if constraint is None or not self._eos.isdisjoint(written):
                continue
            tokens = tuple(written)
            position = positions.get((prompt, tokens))
            if position is None:
                position = positions[prompt, tokens] = self._position(prompt, tokens)
            key = (id(constraint), position)
            if key not in forbidden:
                forbidden[key] = constraint.forbidden(position, remaining)
            shared = min(scores.shape[1], len(self._table))
            mask[row, :shared] = forbidden[key][:shared]
            mask[row, shared:] = True  # the model's padding: the tokenizer cannot write these
        self._positions = positions
        masked = scores.masked_fill(torch.from_numpy(mask).to(scores.device), -torch.inf)
        return self._rescued(scores, masked, mask, step)

    def _position(self, prompt: int, tokens: tuple[int, ...]) -> Position:
        """Where a row stands: one token after a row of the last step, or walked from the start."""
        constraint, position = self._constraints[prompt], self._starts[prompt]
        assert constraint is not None and position is not None
        known = self._positions.get((prompt, tokens[:-1])) if tokens else None
        if known is not None:
            return constraint.advance(known, tokens[-1])
        for token in tokens:
            position = constraint.advance(position, token)
        return position

    def _rescued(
        self, scores: torch.Tensor, masked: torch.Tensor, mask: Bools, step: int
    ) -> torch.Tensor:
        """The masked scores, where each row that lost all its tokens may end (or is restored)."""
        import torch

        empty = (masked.amax(dim=1) == -torch.inf).tolist()
        for row in (row for row, none in enumerate(empty) if none and mask[row].any()):
            prompt = row * len(self._constraints) // len(empty)
            if self._eos:
                end = max(sorted(self._eos), key=lambda one: float(scores[row, one]))
                masked[row, end] = scores[row, end].clamp(min=torch.finfo(scores.dtype).min)
                reason = "no token keeps the bounds; the row was ended"
            else:
                masked[row] = scores[row]
                reason = "no token keeps the bounds and there is no end token; left as it was"
            self.infeasible.append(Infeasible(row, prompt, step, reason))
        return masked


def _bounds(constraint: Constraint) -> list[tuple[tuple[Pattern, ...], int]]:
    """The upper bounds as (patterns, limit), in an order that the clauses' order does not set."""
    bounds: dict[tuple[tuple[Pattern, ...], int], None] = {}
    for clause in constraint.clauses:
        if isinstance(clause, Literal) and clause.most is not None:
            if clause.token_phrases:
                raise InputError(
                    f"expected upper bounds on text phrases, got {clause!s:.200}; the mask reads "
                    "text and not token ids: write the words, or decode with constrained_generate"
                )
            bounds[tuple(sorted(set(clause.patterns), key=repr)), clause.most] = None
    ordered = sorted(bounds, key=repr)
    none = [patterns for patterns, limit in ordered if limit == 0]
    if len(none) > MAX_CLAUSES_APART:
        together = tuple(sorted({one for patterns in none for one in patterns}, key=repr))
        ordered = [(together, 0), *(one for one in ordered if one[1] != 0)]
    return ordered


def _compiled(patterns: tuple[Pattern, ...], table: TokenTable) -> _ClauseMasks:
    """The masks of a clause, from the table's most recent ones where they are there."""
    kept = table.compiled
    if patterns not in kept:
        kept[patterns] = _ClauseMasks(patterns, table)
        while len(kept) > KEPT_CLAUSES:
            kept.popitem(last=False)
    kept.move_to_end(patterns)
    found: _ClauseMasks = kept[patterns]
    return found


def _compact(tokens: Bools) -> Ints | Bools | None:
    """A set of tokens as nothing, as ids where they are few, or as it is."""
    ids = np.flatnonzero(tokens)
    if not len(ids):
        return None
    return ids.astype(np.int32) if 32 * len(ids) < len(tokens) else tokens


def _mark(mask: Bools, tokens: Ints | Bools | None) -> None:
    if tokens is not None:
        mask[tokens] = True  # ids or a boolean index
