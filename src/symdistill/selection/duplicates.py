"""Near repeats: is this text much like one that was kept already?

Takes texts one after another; tells for each the earlier text whose set of character trigrams
overlaps its own most (Jaccard similarity), where that reaches the threshold. Candidates come
from MinHash with locality-sensitive hashing (Broder 1997; the library `datasketch`), and each is
checked with the true Jaccard similarity: a pair that is reported is a near repeat for certain,
one just above the threshold can be missed. Costs about a millisecond a text.
"""

from __future__ import annotations

from typing import Any

from symdistill.records import normalise

PERMUTATIONS = 128
SHINGLE = 3  # characters: short statements differ by single words, so words would be too coarse


class NearDuplicates:
    """The texts seen so far."""

    def __init__(self, threshold: float) -> None:
        """`threshold`: Jaccard similarity in (0, 1] from which two texts count as the same."""
        if not 0 < threshold <= 1:
            raise ValueError(f"expected a similarity above 0, at most 1; got {threshold}")
        self.threshold = threshold
        self._shingles: dict[str, frozenset[str]] = {}
        self._index: Any = None

    def find(self, text: str) -> str | None:
        """The id of the most similar earlier text at or above the threshold; ties by id."""
        mine = shingles(text)
        if not self._shingles:
            return None
        near = (
            (jaccard(mine, self._shingles[one]), one) for one in self._index.query(_minhash(mine))
        )
        best = min(((-score, one) for score, one in near if score >= self.threshold), default=None)
        return best[1] if best else None

    def add(self, id: str, text: str) -> None:
        """Remember a text under an id; ids must differ."""
        if self._index is None:
            from datasketch import MinHashLSH

            # A threshold a little lower than asked for: LSH only proposes, Jaccard decides.
            proposing = max(0.05, self.threshold - 0.15)
            self._index = MinHashLSH(threshold=proposing, num_perm=PERMUTATIONS)
        mine = shingles(text)
        self._index.insert(id, _minhash(mine))
        self._shingles[id] = mine


def shingles(text: str) -> frozenset[str]:
    """The character trigrams of a normalised text, with its ends marked by a blank."""
    padded = f" {normalise(text)} "
    return frozenset(padded[i : i + SHINGLE] for i in range(max(1, len(padded) - SHINGLE + 1)))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Size of the intersection over size of the union; 1 for two empty sets."""
    return len(a & b) / len(a | b) if a or b else 1.0


def _minhash(parts: frozenset[str]) -> Any:
    from datasketch import MinHash

    signature = MinHash(num_perm=PERMUTATIONS, seed=1)
    signature.update_batch([part.encode("utf-8") for part in sorted(parts)])
    return signature
