"""Many formulas followed side by side: where the beams of a batch stand, as arrays.

Takes the formulas of B items; gives, for any array of candidate tokens, the places and counts
after them in a few look-ups, without a loop over candidates. Padded to the largest formula of the
batch: L literals, C clauses, G sets of phrases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from symdistill.decoding.formula import NEVER, STATE, CompiledFormula

__all__ = ["Judged", "Tracker"]

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int16]


class Judged(NamedTuple):
    """What a formula says of texts, as if they ended: any shape (B, ...)."""

    seen: Bools  # (B, ..., L) whether a literal's count is reached
    holds: Bools  # (B, ..., C) whether a clause is true; true where there is no such clause
    met: Bools  # (B, ..., C) whether a count it asks for is reached: true for ever
    dead: Bools  # (B, ...) whether a clause is false for ever


class Tracker:
    """Follows the rows of B items, each with its formula over one vocabulary of V tokens."""

    def __init__(self, formulas: Sequence[CompiledFormula]) -> None:
        distinct = list({id(one): one for one in formulas}.values())
        place = {id(one): index for index, one in enumerate(distinct)}
        self.formulas = distinct  # F of them
        self.of = np.array([place[id(one)] for one in formulas])  # (B,)
        self.table = formulas[0].table
        sizes = [(len(one.group), len(one.clauses), len(one.caps)) for one in distinct]
        literals, clauses, groups = (max(1, *column) for column in zip(*sizes, strict=True))
        count = len(distinct)
        self.group = np.zeros((count, literals), dtype=np.int64)
        self.threshold = np.full((count, literals), np.iinfo(np.int16).max, dtype=np.int16)
        self.positive = np.zeros((count, clauses, literals), dtype=np.float32)
        self.negative = np.zeros((count, clauses, literals), dtype=np.float32)
        self.real = np.zeros((count, clauses), dtype=np.bool_)
        self.caps = np.zeros((count, groups), dtype=np.int16)
        self.shortest = np.full((count, groups), NEVER, dtype=np.int64)
        for index, one in enumerate(distinct):
            n, m, g = sizes[index]
            self.group[index, :n], self.threshold[index, :n] = one.group, one.threshold
            self.positive[index, :m, :n] = one.positive
            self.negative[index, :m, :n] = one.negative
            self.real[index, :m] = True
            self.caps[index, :g], self.shortest[index, :g] = one.caps, one.shortest
        self.wishes = np.asarray(
            self.positive.any(-1)
        )  # (F, C) clauses that something written can make true
        # (F, L, G): which set a literal counts
        self.counts_in = (self.group[:, :, None] == np.arange(groups)).astype(np.float32)
        asked = np.where(
            self.positive > 0, (self.threshold * self.shortest_of(slice(None)))[:, None], NEVER
        )
        # (F,) the tokens that meeting every clause takes at most
        self.whole_need = np.where(self.wishes, asked.min(-1), 0).sum(-1)

        rests = [one.rests for one in distinct]
        self._rest_place = np.stack([rest.place for pair in rests for rest in pair])  # (2F, V)
        self._rest_hits = np.stack([rest.hits for pair in rests for rest in pair])  # (2F, V)
        states = max(len(one.pending_states) for one in distinct)
        self._pending = np.zeros((count, states), dtype=np.int32)
        for index, one in enumerate(distinct):
            self._pending[index, : len(one.pending_states)] = one.pending_states
        self._rows: dict[tuple[int, int], int] = {}
        self._of_row: list[tuple[int, int, int, int, int]] = []  # formula, place, rest, word, other
        self._row_table = np.zeros((0, 5), dtype=np.int64)
        self._keys = np.zeros(0, dtype=np.int64)  # row * V + token, sorted
        self._places, self._hits = self._keys, np.zeros(0, dtype=np.int32)
        self._fresh: list[tuple[Ints, Ints, npt.NDArray[np.int32]]] = []
        self._vectors = np.zeros((count, 0, groups), dtype=np.int16)
        self._vector_counts: list[int] = []

    def shortest_of(self, formulas: Ints | slice) -> Ints:
        """The fewest tokens for each literal's set: (F, L)."""
        return np.take_along_axis(self.shortest[formulas], self.group[formulas], axis=-1)

    def start(self, before: Sequence[str]) -> tuple[Ints, Counts]:
        """The rows (B, 1) and counts (B, 1, G) at the beginning of continuations."""
        pairs = zip(self.of, before, strict=True)
        places = np.array([self.formulas[f].start(text) for f, text in pairs], dtype=np.int64)
        counts = np.zeros((len(self.of), 1, self.caps.shape[1]), dtype=np.int16)
        return self.enter(self.of, places)[:, None], counts

    def enter(self, formulas: Ints, places: Ints) -> Ints:
        """The rows of some places, which from then on can be looked at: any one shape."""
        rows = np.empty(places.size, dtype=np.int64)
        width = len(self.table)
        flat = zip(formulas.ravel().tolist(), places.ravel().tolist(), strict=True)
        for i, key in enumerate(flat):
            row = self._rows.get(key)
            if row is None:
                row = self._rows[key] = len(self._of_row)
                formula, place = key
                at = self.formulas[formula].exceptions(place)
                self._of_row.append((formula, place, 2 * formula + at.rest, at.word, at.other))
                self._fresh.append((row * width + at.tokens, at.places, at.hits))
            rows[i] = row
        return rows.reshape(places.shape)

    def places(self, rows: Ints) -> Ints:
        """The places of some rows."""
        return np.asarray(self._known()[rows, 1])

    def forbidden(self, row: int, counts: Counts) -> Ints:
        """The tokens that would make a clause false for ever at a row with such counts."""
        formula, place = self._of_row[row][:2]
        own = self.formulas[formula]
        return own.forbidden(place, counts[: len(own.caps)])

    def proposals(self, row: int, wanted: Ints, ends: Ints) -> list[int]:
        """The tokens that begin or go on with a spelling of some sets' phrases.

        One that ends texts is among them only inside a spelling, not as its last token.
        """
        formula, place = self._of_row[row][:2]
        own = self.formulas[formula]
        ways = [one.rest for one in own.begun(place) if one.group in wanted]
        ways += [way for group in wanted for way in own.spellings[group]]
        return list(dict.fromkeys(way[0] for way in ways if len(way) > 1 or way[0] not in ends))

    def look(self, rows: Ints, tokens: Ints) -> tuple[Ints, Counts]:
        """The places after candidate tokens and what they confirm.

        Args:
            rows: (B, K) as given by `enter`.
            tokens: (B, K, N), each below V.

        Returns:
            places (B, K, N) and counts to be added (B, K, N, G).
        """
        self._settle()
        formula, _, rest, word, other = np.moveaxis(self._known()[rows], -1, 0)[..., None]
        places = self._rest_place[rest, tokens]
        hits = self._rest_hits[rest, tokens]
        first = np.where(self.table.begins_word[tokens], word, other)
        first[self.table.textless[tokens]] = 0
        if len(self._keys):
            keys = rows[..., None] * len(self.table) + tokens
            at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            found = self._keys[at] == keys
            places[found] = self._places[at[found]]
            hits[found] = self._hits[at[found]]
            first[found] = 0
        added = self._vectors[formula, hits]
        confirming = first != 0
        if confirming.any():
            added = added + self._vectors[formula, first]
        return places, added

    def ended(self, places: Ints, counts: Counts) -> Counts:
        """The counts if texts ended at some places: (B, ..., G), no further than the caps."""
        shape = (-1, *[1] * (places.ndim - 1))
        self._settle()
        of = self.of.reshape(shape)
        total = counts + self._vectors[of, self._pending[of, places & STATE]]
        caps = self.caps[self.of].reshape(*shape, total.shape[-1])
        return np.asarray(np.minimum(total, caps))

    def judge(self, counts: Counts) -> Judged:
        """What the formulas say of counts (B, N, G)."""
        at = self.of
        seen = (
            np.take_along_axis(counts, self.group[at][:, None], -1) >= self.threshold[at][:, None]
        )
        as_float = seen.astype(np.float32)
        met = as_float @ self.positive[at].transpose(0, 2, 1) > 0
        kept = (1 - as_float) @ self.negative[at].transpose(0, 2, 1) > 0
        holds = met | kept | ~self.real[at][:, None]
        dead = np.any(~holds & ~self.wishes[at, None], axis=-1)
        return Judged(seen, holds, met, dead)

    def wanted(self, judged: Judged) -> Bools:
        """The sets of which a match would help to make a clause true: (B, N, L) -> (B, N, G)."""
        at = self.of
        false = (~judged.holds).astype(np.float32)
        literals = (false @ self.positive[at] > 0) & ~judged.seen
        return np.asarray(literals.astype(np.float32) @ self.counts_in[at] > 0)

    def need(self, counts: Counts, judged: Judged) -> Ints:
        """The tokens that making every clause true takes at most, from the start of a word."""
        costs = np.where(judged.holds, 0, self.clause_costs(counts, judged))
        return np.asarray(costs.sum(-1))

    def clause_costs(self, counts: Counts, judged: Judged) -> Ints:
        """The tokens that each clause takes by its cheapest literal: (B, N, C)."""
        at = self.of
        short = np.take_along_axis(counts, self.group[at][:, None], -1)
        short = np.maximum(self.threshold[at][:, None].astype(np.int64) - short, 0)  # (B, N, L)
        each = short * self.shortest_of(at)[:, None]
        return np.stack(
            [
                np.where(self.positive[at, clause][:, None] > 0, each, NEVER).min(-1)
                for clause in range(self.real.shape[1])
            ],
            axis=-1,
        )

    def keep(self, items: Ints) -> None:
        """Go on with some of the items."""
        self.of = self.of[items]

    def _known(self) -> Ints:
        """The rows so far: (n, 5)."""
        if len(self._row_table) < len(self._of_row):
            self._row_table = np.array(self._of_row, dtype=np.int64)
        return self._row_table

    def _settle(self) -> None:
        """Sort what `enter` has brought in, so that it can be looked up."""
        if self._fresh:
            keys, places, hits = (np.concatenate(each) for each in zip(*self._fresh, strict=True))
            self._fresh = []
            keys = np.concatenate([self._keys, keys])
            order = np.argsort(keys, kind="stable")
            self._keys = keys[order]
            self._places = np.concatenate([self._places, places])[order]
            self._hits = np.concatenate([self._hits, hits])[order]
        have = [one.vector_count for one in self.formulas]
        if have != self._vector_counts:
            self._vector_counts = have
            grown = np.zeros((len(have), max(have), self.caps.shape[1]), dtype=np.int16)
            for index, one in enumerate(self.formulas):
                vectors = one.vectors
                grown[index, : len(vectors), : vectors.shape[1]] = vectors
            self._vectors = grown
