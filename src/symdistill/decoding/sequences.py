"""Exact token sequences as one automaton that says which end where.

Takes sequences of token ids, set by set; gives, token by token, a node and what ends there. It
knows nothing of text; `symdistill.decoding.formula` follows it beside the phrases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from symdistill.decoding.tokens import TokenTable
from symdistill.errors import InputError

__all__ = ["SEQUENCE_BITS", "TokenSequences"]

Ints = npt.NDArray[np.int64]

SEQUENCE_BITS: Final = 23  # of the number of a node


class TokenSequences:
    """Exact token sequences as an automaton (Aho and Corasick) over token ids."""

    def __init__(self, of: Sequence[Sequence[tuple[int, ...]]], table: TokenTable) -> None:
        self.of = of  # for each of the G sets
        self._children: list[dict[int, int]] = [{}]
        ends: list[dict[int, int]] = [{}]  # node -> group -> matches that end there
        for group, sequences in enumerate(of):
            for sequence in sequences:
                node = 0
                for token in sequence:
                    _check_token(token, sequence, table)
                    if token not in self._children[node]:
                        self._children[node][token] = len(self._children)
                        self._children.append({})
                        ends.append({})
                    node = self._children[node][token]
                ends[node][group] = ends[node].get(group, 0) + 1
        if len(self._children) >> SEQUENCE_BITS:
            raise InputError(
                f"expected token sequences of at most {1 << SEQUENCE_BITS:,} tokens in all; "
                "use fewer or shorter ones"
            )
        self.tokens = sorted({one for each in of for sequence in each for one in sequence})
        self._fallback = [0] * len(self._children)
        queue = list(self._children[0].values())
        for node in queue:
            for token, child in self._children[node].items():
                fallback = self._next(self._fallback[node], token)
                self._fallback[child] = fallback
                for group, count in ends[fallback].items():
                    ends[child][group] = ends[child].get(group, 0) + count
                queue.append(child)
        self._ends: list[Ints | None] = []
        for each in ends:
            vector = np.zeros(len(of), dtype=np.int64)
            for group, count in each.items():
                vector[group] = count
            self._ends.append(vector if each else None)

    def advance(self, node: int, token: int) -> tuple[int, Ints | None]:
        """The node after a token, and what ends there: (G,), None where nothing does."""
        if len(self._children) == 1:
            return 0, None
        node = self._next(node, token)
        return node, self._ends[node]

    def _next(self, node: int, token: int) -> int:
        while node and token not in self._children[node]:
            node = self._fallback[node]
        return self._children[node].get(token, 0)


def _check_token(token: int, sequence: Sequence[int], table: TokenTable) -> None:
    if not 0 <= token < len(table):
        raise InputError(
            f"expected tokens below {len(table):,} (the vocabulary), got {token} in "
            f"tokens{tuple(sequence)}"
        )
    if token in table.eos_token_ids:
        raise InputError(
            f"expected no end token inside a phrase, got {token}, which ends a text, in "
            f"tokens{tuple(sequence)}; take it out"
        )
