"""A constraint compiled for one vocabulary: what each token does to each of its clauses.

    formula = CompiledFormula.compile(constraint, TokenTable.from_tokenizer(tokenizer), encode)
    place, hits = formula.advance(formula.start("The "), token)

Takes a formula (`symdistill.constraints`, in conjunctive normal form) and a vocabulary; gives an
automaton over the *text* that tokens write, so that a phrase counts however it is spelled, and
the tokenizer's own spellings of the phrases as proposals of what to write. Cost: some milliseconds
to compile, then about 0.1 ms for each new place; a look-up for each candidate token.

Three things are kept apart
    *Place*: where a text stands in the automaton of phrases (one automaton for all sets of
    phrases of the formula), with the bytes of a character not yet complete, and where it stands in
    the exact token sequences. One integer.
    *Counts*: how many matches each set of phrases has had, (G,), no further than the formula asks.
    A match at the end of a word is confirmed by what follows; `pending` says what the end of the
    text would confirm.
    *Truth*: a literal is "count >= n" or "count < n" of a set, a clause a disjunction of literals.

How a place knows all V tokens
    Two places in which no phrase has begun (after a word character, and not) are walked over the
    whole vocabulary, (V,) each. Any other place differs from one of them only for tokens that go on
    with what has been begun: a small part of the vocabulary's tree, kept as exceptions, and for
    tokens that begin with no word character, which confirm what is pending.

It follows texts and knows no search; see `symdistill.decoding.neurologic`. The idea of clause
states and of the progress of a phrase is NeuroLogic's (Lu et al., 2021); counts, characters in
place of token ids, and the tables are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from symdistill.constraints import Clause, ClauseStatus, Constraint, Literal, all_of
from symdistill.decoding.automaton import OTHER, PhraseAutomaton
from symdistill.decoding.sequences import SEQUENCE_BITS, TokenSequences
from symdistill.decoding.tokens import TokenTable
from symdistill.errors import InputError

__all__ = ["CompiledFormula", "Exceptions", "Rest"]

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int16]

MAX_CLAUSES = 1_000  # in one formula
MAX_SETS = 1_000  # of phrases in one formula
NEVER = 1_000_000  # tokens; what cannot be written costs that many
# The bits of a place, from the lowest: state, partial character, node of the token sequences.
_PARTIAL, _SEQUENCE = 24, 63 - SEQUENCE_BITS
STATE = (1 << _PARTIAL) - 1


class Rest(NamedTuple):
    """What all V tokens do where no phrase has begun."""

    place: Ints  # (V,) the place after each token
    hits: npt.NDArray[np.int32]  # (V,) a row of `vectors`
    touching: Ints  # tokens that confirm something or leave something pending


class Exceptions(NamedTuple):
    """What tokens do at one place: as at a rest, but for `tokens`."""

    rest: int  # 0: the character before is no word character; 1: it is one
    word: int  # a row of `vectors`, added for tokens that begin with a word character
    other: int  # and for all others that write something
    tokens: Ints  # sorted
    places: Ints
    hits: npt.NDArray[np.int32]


class Begun(NamedTuple):
    """A phrase of a set of which some tokens are written, as the tokenizer spells it.

    At a rest it may be the space before it that is written, or nothing: behind a space, or at the
    beginning, a phrase needs none of its own.
    """

    group: int
    rest: tuple[int, ...]  # what is still to be written
    tokens: int  # of the whole spelling


class CompiledFormula:
    """A formula over one vocabulary. L literals in C clauses over G sets of phrases.

    Attributes:
        constraint, table: what was compiled, and for which vocabulary.
        clauses: the C clauses, without repeats and without those that every text meets.
        group, threshold: (L,) the set that a literal counts and the count it speaks of.
        positive, negative: (C, L) bool, the literals "count >= n" and "count < n" of a clause.
        caps: (G,) counts go no further.
        spellings: for each set, token sequences that write one of its phrases.
        shortest: (G,) the fewest tokens of these; NEVER where there is none.
    """

    def __init__(
        self,
        constraint: Constraint,
        table: TokenTable,
        encode: Callable[[str], Sequence[int]] | None = None,
    ) -> None:
        self.constraint = constraint
        self.table = table
        if len(constraint.clauses) > MAX_CLAUSES:
            raise InputError(
                f"expected at most {MAX_CLAUSES:,} clauses in one formula, got "
                f"{len(constraint.clauses):,}; put phrases of which one is enough into one any_of"
            )
        always = {one.clause for one in constraint.tautologies()}
        asked = [one for one in constraint.clauses if str(one) not in always]
        self.clauses: tuple[Clause, ...] = tuple(
            {frozenset(map(_bound, one.literals)): one for one in reversed(asked)}.values()
        )[::-1]
        literals = list(dict.fromkeys(one for each in self.clauses for one in each.literals))
        sets = list(dict.fromkeys(map(_counted, literals)))
        if len(sets) > MAX_SETS:
            raise InputError(
                f"expected at most {MAX_SETS:,} sets of phrases in one formula, got {len(sets):,}; "
                "put phrases of which one is enough into one any_of"
            )
        self.group = np.array([sets.index(_counted(one)) for one in literals], dtype=np.int64)
        self.threshold = np.array([one.threshold for one in literals], dtype=np.int16)
        shape = (len(self.clauses), len(literals))
        self.positive, self.negative = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
        for row, clause in enumerate(self.clauses):
            for one in clause.literals:
                kind = self.positive if one.positive else self.negative
                kind[row, literals.index(one)] = True
        self.caps = np.zeros(len(sets), dtype=np.int16)
        np.maximum.at(self.caps, self.group, self.threshold)
        self._literals = literals

        members: dict[object, list[int]] = {}
        for index, (patterns, _) in enumerate(sets):
            for pattern in patterns:
                members.setdefault(pattern, []).append(index)
        self._automaton = PhraseAutomaton(list(members), list(members.values()))  # type: ignore[arg-type]
        self._sequences = TokenSequences([sequences for _, sequences in sets], table)
        self._vectors: list[Counts] = []
        self._vector_index: dict[bytes, int] = {}
        padded = np.zeros((len(self._automaton.matches), len(sets)), dtype=np.int16)
        have = min(self._automaton.matches.shape[1], len(sets))
        padded[:, :have] = self._automaton.matches[:, :have]
        first = [self._vector(row) for row in padded]
        remap = np.array(first, dtype=np.int32)
        self._hit = remap[self._automaton.hit]  # (S, K)
        self._hit_at_end = remap[self._automaton.hit_at_end]  # (S,)
        self._exceptions: dict[int, Exceptions] = {}
        self._begun: dict[int, tuple[Begun, ...]] = {}
        self._forbidden: dict[tuple[int, bytes], Ints] = {}
        self._needs: dict[tuple[int, bytes], int] = {}
        self.spellings = self._spell(encode or _longest_pieces(table))
        self.shortest = np.array(
            [min((len(one) for one in each), default=NEVER) for each in self.spellings],
            dtype=np.int64,
        )

    @classmethod
    def compile(
        cls,
        constraint: Constraint | None,
        table: TokenTable,
        encode: Callable[[str], Sequence[int]] | None = None,
    ) -> CompiledFormula:
        """Compile a constraint, or take it from what was compiled for the table before.

        Args:
            constraint: None asks nothing.
            table: the vocabulary.
            encode: the tokenizer's spelling of a text, without special tokens; by default the
                longest pieces that fit. Only proposals depend on it, never what counts as a match.

        Raises:
            InputError: more than 1,000 sets of phrases; phrases too many for one automaton; a
                token of a token sequence that is not in the vocabulary or ends a text.
        """
        constraint = all_of() if constraint is None else constraint
        key = (constraint, encode is None)
        kept = table.formulas
        if key not in kept:
            kept[key] = cls(constraint, table, encode)
            while len(kept) > _KEPT:
                kept.popitem(last=False)
        kept.move_to_end(key)
        found: CompiledFormula = kept[key]
        return found

    @property
    def vectors(self) -> Counts:
        """(H, G): what each kind of hit adds to the counts; row 0 is nothing. H may grow."""
        return np.stack(self._vectors)

    @property
    def vector_count(self) -> int:
        """H."""
        return len(self._vectors)

    @property
    def pending_states(self) -> npt.NDArray[np.int32]:
        """(S,): what the end of the text confirms in each state (a row of `vectors`)."""
        return self._hit_at_end

    @property
    def empty(self) -> bool:
        """Whether nothing was asked, not even what every text meets."""
        return not self.constraint.clauses

    # -------------------------------------------------------------- one text

    def start(self, before: str = "") -> int:
        """The place at the beginning of a continuation of `before`."""
        return self._automaton.start(before)

    def advance(self, place: int, token: int) -> tuple[int, int]:
        """The place after one more token, and what it confirms (a row of `vectors`)."""
        state, partial, sequence = _parts(place)
        text, left = self.table.read(token, self.table.partials[partial])
        state, hits = self._walk(state, text)
        sequence, also = self._sequences.advance(sequence, token)
        return (
            _place(state, self.table.partial_index(left), sequence),
            self._sum(hits, self._vector(also)) if also is not None else hits,
        )

    def pending(self, place: int) -> int:
        """What the end of the text would confirm at a place (a row of `vectors`)."""
        return int(self._hit_at_end[_parts(place)[0]])

    def counts(self, token_ids: Iterable[int], before: str = "") -> Counts:
        """The matches of each set in a text, (G,), as if it ended there; no further than `caps`."""
        place, counts = self.start(before), np.zeros(len(self.caps), dtype=np.int64)
        for token in token_ids:
            place, hits = self.advance(place, token)
            counts += self._vectors[hits]
        return self._ended(place, counts)

    def counts_after(self, token_ids: Iterable[int], before: str = "") -> dict[int, int]:
        """The matches that each literal counts, by its index, no further than it asks."""
        counts = self.counts(token_ids, before)
        pairs = zip(self.group, self.threshold, strict=True)
        return {index: int(min(counts[group], limit)) for index, (group, limit) in enumerate(pairs)}

    def truth(self, counts: Counts) -> Bools:
        """Whether each clause holds of a text with such counts: (..., G) -> (..., C)."""
        seen = counts[..., self.group] >= self.threshold  # (..., L)
        return _holds(seen, self.positive, self.negative)

    def wanted(self, counts: Counts) -> Bools:
        """The sets of which a match would help to make a clause true: (G,) -> (G,)."""
        false = ~self.truth(counts)
        literals = self.positive[false].any(0) & (counts[self.group] < self.threshold)
        out = np.zeros(len(self.caps), dtype=np.bool_)
        out[self.group[literals]] = True
        return out

    def need(self, counts: Counts) -> int:
        """The tokens that making every clause true takes at most, from anywhere."""
        missing = np.maximum(self.threshold.astype(np.int64) - counts[self.group], 0)
        costs = np.where(self.positive, missing * self.shortest[self.group], NEVER)  # (C, L)
        return int(costs.min(1, initial=NEVER)[~self.truth(counts)].sum())

    def explain(self, token_ids: Sequence[int], before: str = "") -> tuple[ClauseStatus, ...]:
        """What each clause finds in a text, with the tokens that wrote each match."""
        from dataclasses import replace

        text = self.table.text(token_ids)
        ends = self.table.ends(token_ids)
        found = []
        for status in self.constraint.explain(text, before, token_ids=list(token_ids)):
            spans = tuple(_token_span(ends, match.start, match.end) for match in status.matches)
            found.append(replace(status, token_spans=spans + status.token_spans))
        return tuple(found)

    # -------------------------------------------------------------- all tokens at once

    @cached_property
    def rests(self) -> tuple[Rest, Rest]:
        """The two places in which no phrase has begun, over the whole vocabulary."""
        return self._rest(0), self._rest(1)

    def exceptions(self, place: int) -> Exceptions:
        """What tokens do at a place."""
        if place not in self._exceptions:
            self._exceptions[place] = self._except(place)
        return self._exceptions[place]

    def begun(self, place: int) -> tuple[Begun, ...]:
        """The spellings of which the text so far ends with the beginning."""
        state, partial, _ = _parts(place)
        own = self._begun.get(place, ())
        rest = int(self._automaton.after_word[state])
        if partial or place == rest:
            return own
        return (*own, *self._begun.get(rest, ()))

    def has_begun(self, places: Ints) -> Bools:
        """Where `begun` gives anything, for places of any shape."""
        open_rests = np.array([rest in self._begun for rest in (0, 1)])
        rest = self._automaton.after_word[places & STATE].astype(np.int64)
        whole = places >> _PARTIAL & 0xFFFF == 0
        return np.asarray(np.isin(places, self._begun_places) | (whole & open_rests[rest]))

    @cached_property
    def _begun_places(self) -> Ints:
        return np.array(sorted(self._begun), dtype=np.int64)

    def need_at(self, place: int, counts: Counts) -> int:
        """`need`, where what is begun at a place may be finished first.

        Args:
            place: where the text stands.
            counts: (G,) what was confirmed before, without what is pending.
        """
        key = (place, counts.tobytes())
        if key not in self._needs:
            needs = [self.need(self._ended(place, counts))]
            for one in self.begun(place):
                after, more = place, counts.astype(np.int64)
                for token in one.rest:
                    after, hits = self.advance(after, token)
                    more += self._vectors[hits]
                needs.append(len(one.rest) + self.need(self._ended(after, more)))
            self._needs[key] = min(needs)
        return self._needs[key]

    def _ended(self, place: int, counts: npt.NDArray[np.integer]) -> Counts:
        total = counts + self._vectors[self.pending(place)]
        return np.asarray(np.minimum(total, self.caps), dtype=np.int16)

    def forbidden(self, place: int, counts: Counts) -> Ints:
        """Tokens after which a clause without positive literals would be false.

        It is false from then on, whatever follows; so these tokens are never written, even where
        they would only be the beginning of a longer, harmless word.
        """
        if not self._purely_negative.any():
            return _NO_TOKENS
        key = (place, counts.tobytes())
        if key not in self._forbidden:
            at = self.exceptions(place)
            rest = self.rests[at.rest]
            plain = rest.touching[~np.isin(rest.touching, at.tokens)]
            tokens = np.concatenate([plain, at.tokens])
            after = np.concatenate([rest.place[plain], at.places])
            vectors = self.vectors
            more = np.concatenate([rest.hits[plain], at.hits])
            first = np.where(self.table.begins_word[tokens], at.word, at.other)
            first[len(plain) :] = 0
            added = vectors[more] + vectors[first] + vectors[self._hit_at_end[after & STATE]]
            seen = (counts + added)[:, self.group] >= self.threshold  # (T, L)
            pure = self._purely_negative
            holds = _holds(seen, self.positive[pure], self.negative[pure])  # (T, C)
            self._forbidden[key] = tokens[~holds.all(-1)]
        return self._forbidden[key]

    @cached_property
    def _purely_negative(self) -> Bools:
        return np.asarray(~self.positive.any(1))

    def _rest(self, state: int) -> Rest:
        """Walk the vocabulary's tree from a state in which no phrase has begun."""
        tree, automaton = self.table.tree, self._automaton
        width = automaton.after.shape[1]
        steps, hits = automaton.after.ravel().astype(np.int64), self._hit.ravel()
        reached = np.empty(len(tree.parent), dtype=np.int64)  # (N,)
        reached[0] = state
        edges: list[Ints] = []
        for level in tree.levels:
            at = reached[tree.parent[level]] * width + self._symbols[level]
            reached[level] = steps[at]
            edges.append(np.flatnonzero(hits[at]) + level.start)
        on_token = np.zeros(len(self.table), dtype=np.int32)
        for node in np.concatenate([_NO_TOKENS, *edges]):
            edge = int(hits[reached[tree.parent[node]] * width + self._symbols[node]])
            below = self.table.tokens_below(int(node))
            for before in np.unique(on_token[below]):
                on_token[below[on_token[below] == before]] = self._sum(int(before), edge)
        states = reached[tree.node]
        states[self.table.textless] = state
        place = states | self.table.left_over << _PARTIAL
        touching = np.flatnonzero((on_token != 0) | (self._hit_at_end[states] != 0))
        return Rest(place, on_token, touching[~self.table.textless[touching]])

    def _except(self, place: int) -> Exceptions:
        """The tokens for which a place differs from a rest."""
        state, partial, _ = _parts(place)
        word, middle = 0, state
        if partial:  # the bytes left over become U+FFFD before most tokens
            word, middle = int(self._hit[state, OTHER]), int(self._automaton.after[state, OTHER])
        other = self._sum(word, int(self._hit_at_end[middle]))
        found = {
            token: (after, self._sum(word, hits))
            for token, (after, hits) in self._going_on(middle).items()
        }
        # Tokens that complete no character leave the text where it is.
        for token, left in zip(self._textless, self._left_over, strict=True):
            found[token] = (_place(state, left or partial, 0), 0)
        if partial:
            for token in self._after_partial:
                text, rest = self.table.read(token, self.table.partials[partial])
                after, hits = self._walk(state, text)
                found[token] = (_place(after, self.table.partial_index(rest), 0), hits)
        for token in self._sequences.tokens:
            after, hits = self.advance(place, token)
            found[token] = (after, hits)
        tokens = np.array(sorted(found), dtype=np.int64)
        return Exceptions(
            int(self._automaton.after_word[middle]),
            word,
            other,
            tokens,
            np.array([found[one][0] for one in tokens.tolist()], dtype=np.int64),
            np.array([found[one][1] for one in tokens.tolist()], dtype=np.int32),
        )

    def _going_on(self, state: int) -> dict[int, tuple[int, int]]:
        """Tokens that go on with what a state has begun: token -> (place, hits)."""
        automaton, tree = self._automaton, self.table.tree
        rest = int(automaton.after_word[state])
        found: dict[int, tuple[int, int]] = {}
        if state == rest or not tree.levels:
            return found
        start, children = self.table.children
        closing = int(self._hit_at_end[state])
        # (node, state there, state there from the rest, hits of both, hits expected of tokens that
        # begin like this)
        todo = [(0, state, rest, 0, 0, 0)]
        while todo:
            node, here, usual, hits, usual_hits, expected = todo.pop()
            below = children[start[node] : start[node + 1]]
            symbols = self._symbols[below]
            after, after_usual = automaton.after[here, symbols], automaton.after[usual, symbols]
            hit, hit_usual = self._hit[here, symbols], self._hit[usual, symbols]
            plain = after == after_usual
            if node:
                plain &= (hit == hit_usual) & (hits == self._sum(expected, usual_hits))
            else:
                first = np.where(self._is_word[symbols], 0, closing)
                plain &= (hit == first) & (hit_usual == 0)
            for i in np.flatnonzero(~plain).tolist():
                child = int(below[i])
                now = self._sum(hits, int(hit[i]))
                usually = self._sum(usual_hits, int(hit_usual[i]))
                due = expected if node else (0 if self._is_word[symbols[i]] else closing)
                if after[i] != after_usual[i]:
                    for token in self._tokens_at(child):
                        left = int(self.table.left_over[token])
                        found[token] = (_place(int(after[i]), left, 0), now)
                    todo.append((child, int(after[i]), int(after_usual[i]), now, usually, due))
                elif now != self._sum(due, usually):
                    for token in self.table.tokens_below(child).tolist():
                        later = self._vectors[self.rests[rest].hits[token]]
                        vector = self._vectors[now] + later - self._vectors[usually]
                        where = int(self.rests[rest].place[token])
                        found[token] = (where, self._vector(vector))
        return found

    @cached_property
    def _textless(self) -> list[int]:
        return [int(one) for one in np.flatnonzero(self.table.textless)]

    @cached_property
    def _left_over(self) -> list[int]:
        return [int(one) for one in self.table.left_over[self._textless]]

    @cached_property
    def _after_partial(self) -> set[int]:
        """Tokens that write something else after a partial character than U+FFFD and their text."""
        table = self.table
        return {*table.continuing.tolist(), *table.unfinished.tolist()} - {*table.silent.tolist()}

    def _tokens_at(self, node: int) -> list[int]:
        """The tokens whose text is exactly a node's."""
        below = self.table.tokens_below(node)
        own = int(np.searchsorted(self.table.tree.node[below] != node, True))
        return [int(one) for one in below[:own]]

    @cached_property
    def _symbols(self) -> npt.NDArray[np.int32]:
        """The automaton's symbol of each node's character: (N,)."""
        symbols = self.table.kinds_of_characters.astype(np.int32)
        for character, symbol in self._automaton.symbols.items():
            index = self.table.index_of_character.get(character)
            if index is not None:
                symbols[index] = symbol
        tree = self.table.tree
        return symbols[tree.character] if len(symbols) else np.zeros(len(tree.parent), np.int32)

    @cached_property
    def _is_word(self) -> Bools:
        return np.asarray(self._automaton.after_word[self._automaton.after[0]])  # (K,)

    def _walk(self, state: int, text: str) -> tuple[int, int]:
        hits = 0
        for character in text:
            symbol = self._automaton.symbol(character)
            hits = self._sum(hits, int(self._hit[state, symbol]))
            state = int(self._automaton.after[state, symbol])
        return state, hits

    def _vector(self, vector: npt.NDArray[np.integer]) -> int:
        """The index of a vector of counts in `vectors`."""
        counts: Counts = vector.astype(np.int16)
        key = counts.tobytes()
        if not self._vectors:
            nothing = np.zeros_like(counts)
            self._vectors.append(nothing)
            self._vector_index[nothing.tobytes()] = 0
        if key not in self._vector_index:
            self._vector_index[key] = len(self._vectors)
            self._vectors.append(counts)
        return self._vector_index[key]

    def _sum(self, first: int, second: int) -> int:
        if not first or not second:
            return first or second
        return self._vector(self._vectors[first] + self._vectors[second])

    # -------------------------------------------------------------- spellings

    def _spell(
        self, encode: Callable[[str], Sequence[int]]
    ) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """How the tokenizer writes each set's phrases; remembers the places on the way.

        A spelling is kept where it makes a match after any text, undoing none, and breaks no
        clause by itself; one that matches only behind a word, or only behind none, is kept as
        begun there.
        """
        phrases: list[dict[object, None]] = [{} for _ in self.caps]
        for literal, group in zip(self._literals, self.group, strict=True):
            if self.positive[:, self._literals.index(literal)].any():
                phrases[group].update(dict.fromkeys(literal.phrases))
        spelled: list[dict[tuple[int, ...], None]] = [{} for _ in self.caps]
        begun: dict[int, dict[Begun, None]] = {}
        for group, texts in enumerate(phrases):
            ways: dict[tuple[int, ...], None] = {}
            for text in texts:
                if not isinstance(text, str):  # exact tokens
                    continue
                plain = _without_stars(text)
                for written in (" " + plain, plain):
                    ways[tuple(int(one) for one in encode(written))] = None
            if texts:
                ways.update(dict.fromkeys(self._sequences.of[group]))
            for way in ways:
                if not way or any(one >= len(self.table) for one in way):
                    continue
                passed = [self._passed(way, group, rest) for rest in (0, 1)]
                # Nothing that goes on with a word: that could undo what is met at its end.
                # Exact tokens have no other spelling, so they are let through.
                glued = self.table.begins_word[way[0]] and way not in self._sequences.of[group]
                anywhere = all(passed) and not glued
                if anywhere:
                    spelled[group][way] = None
                for rest, places in enumerate(passed):
                    if places is None:
                        continue
                    on_the_way = [*([] if anywhere else [(0, rest)]), *enumerate(places, 1)]
                    for done, place in on_the_way[:-1]:
                        one = Begun(group, way[done:], len(way))
                        begun.setdefault(place, {})[one] = None
        self._begun = {place: tuple(each) for place, each in begun.items()}
        return tuple(map(tuple, spelled))

    def _passed(self, way: tuple[int, ...], group: int, rest: int) -> list[int] | None:
        """The places on the way from a rest, or None where the way is none."""
        place, counts, places = rest, np.zeros(len(self.caps), dtype=np.int64), []
        for token in way:
            place, hits = self.advance(place, token)
            counts += self._vectors[hits]
            places.append(place)
        counts += self._vectors[self.pending(place)]
        if not counts[group]:
            return None
        seen = counts[self.group] >= self.threshold
        holds = _holds(seen, self.positive, self.negative)
        return places if holds[self._purely_negative].all() else None


_KEPT = 64  # formulas kept for each vocabulary, about 30 bytes a token each
_NO_TOKENS = np.zeros(0, dtype=np.int64)


def _counted(literal: Literal) -> tuple[tuple[object, ...], tuple[tuple[int, ...], ...]]:
    """What a literal counts, in an order that does not depend on how it was written."""
    patterns = tuple(sorted(set(literal.patterns), key=repr))
    return patterns, tuple(sorted(set(literal.token_phrases)))


def _without_stars(phrase: str) -> str:
    """A phrase without the star that may lift the boundary at either end."""
    inner = " ".join(phrase.split()).removeprefix("*").strip()
    return inner.removesuffix("*").strip()


def _bound(literal: Literal) -> tuple[object, ...]:
    """What a literal says, however its phrases were listed."""
    return _counted(literal), literal.threshold, literal.positive


def _place(state: int, partial: int, sequence: int) -> int:
    return state | partial << _PARTIAL | sequence << _SEQUENCE


def _parts(place: int) -> tuple[int, int, int]:
    return place & STATE, place >> _PARTIAL & 0xFFFF, place >> _SEQUENCE


def _holds(seen: Bools, positive: Bools, negative: Bools) -> Bools:
    """Whether clauses hold: literals seen (..., L) -> (..., C)."""
    yes = seen.astype(np.float32) @ positive.T.astype(np.float32)
    no = (~seen).astype(np.float32) @ negative.T.astype(np.float32)
    return np.asarray(yes + no > 0)


def _token_span(ends: Sequence[int], start: int, end: int) -> tuple[int, int]:
    """The tokens that wrote text[start:end]: [first, behind the last)."""
    first = int(np.searchsorted(ends, start, side="right"))
    return first, int(np.searchsorted(ends, end)) + 1


def _longest_pieces(table: TokenTable) -> Callable[[str], Sequence[int]]:
    """A spelling by the longest token that fits, for tables without a tokenizer."""
    pieces = {written: token for token, written in enumerate(table.token_bytes) if written}
    longest = max(map(len, pieces), default=0)

    def encode(text: str) -> Sequence[int]:
        left, ids = text.encode(), []
        while left:
            for size in range(min(longest, len(left)), 0, -1):
                if left[:size] in pieces:
                    ids.append(pieces[left[:size]])
                    left = left[size:]
                    break
            else:
                return []
        return ids

    return encode
