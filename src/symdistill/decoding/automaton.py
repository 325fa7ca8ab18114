"""Sets of phrases as one deterministic automaton over characters that counts their matches.

Takes patterns (`symdistill.constraints.Pattern`) and, for each, the sets in which it counts; gives
tables that follow a text character by character and say which matches each character confirms.
Cost: one row of the tables for each character of the phrases, one column for each distinct
character.

It is the automaton of Aho and Corasick (1975) over the folded text with word boundaries made
visible: a mark OPEN stands before every run of word characters and CLOSE after it, so that a
whole word is the plain string OPEN w o r d CLOSE. The marks are never read from outside: a state
knows whether the character before it was a word character, and a transition reads the marks that
are due. So a match that ends in a word character is confirmed by the next character that is no
word character, or by the end of the text, and not before.

It knows nothing of tokens; see `symdistill.decoding.masking`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from symdistill.constraints import Pattern, fold, is_word_character
from symdistill.errors import InputError

__all__ = ["PhraseAutomaton"]

# Symbols of characters that no phrase holds, and of white space; those of the phrases follow.
OTHER: Final = 0  # neither white space nor a word character
WORD: Final = 1
SPACE: Final = 2

# States in which no phrase has begun, by the character before.
_AFTER_OTHER: Final = 0
_AFTER_WORD: Final = 1

MAX_CELLS = 64_000_000  # states x symbols; 0.5 GB of tables


class PhraseAutomaton:
    """Follows a text and counts the matches of G sets of phrases. S states, K symbols.

    Attributes:
        symbols: folded character -> symbol, for the characters that phrases hold.
        after: (S, K) int32, the next state.
        hit: (S, K) int32, which matches the step confirms: a row of `matches`.
        hit_at_end: (S,) int32, which matches the end of the text confirms: a row of `matches`.
        matches: (H, G) int32, matches of each set; row 0 is none at all.
        after_word: (S,) bool, whether the character before was a word character.
    """

    def __init__(
        self, patterns: Sequence[Pattern], members: Sequence[Sequence[int]] | None = None
    ) -> None:
        """Compile the patterns.

        Args:
            patterns: repeats count once.
            members: for each pattern the sets (0 .. G - 1) in which it counts; by default all
                are in one set.

        Raises:
            InputError: the phrases hold so many characters, and so many different ones, that
                the tables would pass 64 million cells.
        """
        sets: dict[Pattern, set[int]] = {}
        for pattern, inside in zip(patterns, members or [(0,)] * len(patterns), strict=True):
            sets.setdefault(pattern, set()).update(inside)
        patterns = list(sets)
        groups = 1 + max((one for inside in sets.values() for one in inside), default=0)  # G
        characters = sorted({one for pattern in patterns for one in pattern.characters} - {" "})
        self.symbols: dict[str, int] = {" ": SPACE}
        self.symbols.update({one: index for index, one in enumerate(characters, start=SPACE + 1)})
        count = SPACE + 1 + len(characters)  # K
        cells = count * sum(len(pattern.characters) for pattern in patterns)
        if cells > MAX_CELLS:
            raise InputError(
                f"expected phrases whose automaton has at most {MAX_CELLS:,} cells, got about "
                f"{cells:,}; use fewer or shorter phrases in one clause"
            )
        self._is_word = np.zeros(count, dtype=bool)
        self._is_word[WORD] = True
        for one in characters:
            self._is_word[self.symbols[one]] = is_word_character(one)
        marked = [self._marked(one, count) for one in patterns]
        delta, output, last = _aho_corasick(marked, count + 2)
        self._build(delta, last, *_kinds(output, list(sets.values()), groups))

    @cached_property
    def confirmed(self) -> npt.NDArray[np.int32]:
        """How many matches a step confirms, all sets together: (S, K) int32."""
        return np.asarray(self.matches.sum(axis=1, dtype=np.int32)[self.hit])

    @cached_property
    def confirmed_at_end(self) -> npt.NDArray[np.int32]:
        """How many matches the end of the text confirms, all sets together: (S,) int32."""
        return np.asarray(self.matches.sum(axis=1, dtype=np.int32)[self.hit_at_end])

    def start(self, before: str = "") -> int:
        """The state at the beginning of a text that follows `before`."""
        follows_word = bool(before) and is_word_character(fold(before[-1]))
        return _AFTER_WORD if follows_word else _AFTER_OTHER

    def symbol(self, character: str) -> int:
        """The symbol of a folded character."""
        known = self.symbols.get(character)
        if known is not None:
            return known
        return WORD if is_word_character(character) else OTHER

    def walk(self, state: int, text: str) -> tuple[int, int]:
        """The state after a folded text, and how many matches it confirmed."""
        confirmed = 0
        for character in text:
            symbol = self.symbol(character)
            confirmed += int(self.confirmed[state, symbol])
            state = int(self.after[state, symbol])
        return state, confirmed

    def _marked(self, pattern: Pattern, mark: int) -> list[int]:
        """The pattern as symbols, with OPEN = mark and CLOSE = mark + 1 where words begin, end."""
        marked: list[int] = []
        inside = pattern.open_left  # an open end says nothing of the character before
        for character in pattern.characters:
            symbol = self.symbols[character]
            if self._is_word[symbol] != inside and (marked or not pattern.open_left):
                marked.append(mark if self._is_word[symbol] else mark + 1)
            marked.append(symbol)
            inside = bool(self._is_word[symbol])
        if pattern.bound_right:
            marked.append(mark + 1)
        return marked

    def _build(
        self,
        delta: npt.NDArray[np.int32],  # (nodes, K + 2)
        last: npt.NDArray[np.int32],  # (nodes,) the symbol that leads to a node
        kind: npt.NDArray[np.int32],  # (nodes,) which matches end at a node: a row of `kinds`
        kinds: npt.NDArray[np.int32],  # (J, G)
    ) -> None:
        count = len(self._is_word)
        # A text never rests on a node behind a mark; the root rests in two states.
        resting = np.flatnonzero((last >= 0) & (last < count))
        node = np.concatenate([[0, 0], resting])  # (S,)
        state_of = np.zeros(len(last), dtype=np.int32)
        state_of[resting] = np.arange(2, len(node))
        self.after_word = np.concatenate([[False, True], self._is_word[last[resting]]])  # (S,)
        after_space = np.concatenate([[False, False], last[resting] == SPACE])  # (S,)

        opened = np.where(self.after_word, node, delta[node, count])
        closed = np.where(self.after_word, delta[node, count + 1], node)
        closing = np.where(self.after_word, kind[closed], 0).astype(np.int64)  # (S,)
        self.after = np.empty((len(node), count), dtype=np.int32)
        both = np.empty((len(node), count), dtype=np.int64)  # two kinds: closing * J + reached
        for symbol in range(count):
            word = bool(self._is_word[symbol])
            reached = delta[opened if word else closed, symbol]
            at_root = _AFTER_WORD if word else _AFTER_OTHER
            self.after[:, symbol] = np.where(reached == 0, at_root, state_of[reached])
            both[:, symbol] = kind[reached] + (0 if word else closing * len(kinds))
        # A run of white space is one space: its further characters change nothing.
        self.after[after_space, SPACE] = np.flatnonzero(after_space)
        both[after_space, SPACE] = 0
        pairs, index = np.unique(np.append(both, [closing]), return_inverse=True)
        self.matches = kinds[pairs // len(kinds)] + kinds[pairs % len(kinds)]  # (H, G)
        self.hit = index[: both.size].reshape(both.shape).astype(np.int32)
        self.hit_at_end = index[both.size :].astype(np.int32)


def _kinds(
    output: Sequence[Sequence[int]], sets: Sequence[Iterable[int]], groups: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """The strings that end at each node as a row of (J, G) counts of the sets they are in."""
    rows: dict[tuple[int, ...], int] = {(): 0}
    kind = np.array([rows.setdefault(tuple(ends), len(rows)) for ends in output], dtype=np.int32)
    kinds = np.zeros((len(rows), groups), dtype=np.int32)
    for ends, row in rows.items():
        for string in ends:
            for one in sets[string]:
                kinds[row, one] += 1
    return kind, kinds


def _aho_corasick(
    strings: Sequence[Sequence[int]], width: int
) -> tuple[npt.NDArray[np.int32], list[list[int]], npt.NDArray[np.int32]]:
    """Transitions (nodes, width), the strings ending at each node, each node's last symbol."""
    children: list[dict[int, int]] = [{}]
    output: list[list[int]] = [[]]
    last_symbol: list[int] = [-1]
    for index, string in enumerate(strings):
        node = 0
        for symbol in string:
            if symbol not in children[node]:
                children[node][symbol] = len(children)
                children.append({})
                output.append([])
                last_symbol.append(symbol)
            node = children[node][symbol]
        output[node].append(index)

    delta = np.zeros((len(children), width), dtype=np.int32)
    queue: deque[tuple[int, int]] = deque([(0, 0)])  # (node, where it falls back to)
    while queue:
        node, fallback = queue.popleft()
        if node:
            delta[node] = delta[fallback]
            output[node] = output[node] + output[fallback]
        for symbol, child in children[node].items():
            queue.append((child, int(delta[node, symbol]) if node else 0))
            delta[node, symbol] = child
    return delta, output, np.array(last_symbol, dtype=np.int32)
