"""Which candidates a beam search goes on with: NeuroLogic's grouped selection.

Takes scores and groups as flat arrays over all items of a batch; gives an order. Cost: two sorts.
Follows NeuroLogic Decoding (Lu et al., 2021, section 2.3): candidates that have met the same set of
clauses form a group, and the best of every group is taken before the second best of any. What we
add: ties are broken by token and parent, so the order never depends on chance; and candidates from
which the formula may no longer fit into the length come last ("late").
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["select"]

Ints = npt.NDArray[np.int64]


def select(
    item: Ints,
    group: Ints,
    score: npt.NDArray[np.floating],
    tie: Ints,
    late: npt.NDArray[np.bool_] | None = None,
) -> tuple[Ints, Ints]:
    """The candidates in the order of choice, item by item.

    Args:
        item, group: (M,) the item of each candidate and its group within it.
        score: (M,) higher is better.
        tie: (M,) among equals the smaller goes first.
        late: (M,) candidates that come after all others of their item.

    Returns:
        order: (M,) indices of candidates; those of an item stand together.
        position: (M,) the place of each of these within its item, from 0. The first k are the
            k beams: the best of every group, then the second best of every group, and so on.
    """
    late = np.zeros(len(item), dtype=np.bool_) if late is None else late
    by_group = np.lexsort((tie, -score, late, group, item))
    turn = np.empty(len(item), dtype=np.int64)
    turn[by_group] = _count_within(item[by_group], group[by_group])
    order = np.lexsort((tie, -score, turn, late, item))
    return order, _count_within(item[order])


def _count_within(*keys: Ints) -> Ints:
    """0, 1, 2 ... within each run of equal keys."""
    count = len(keys[0])
    begins = np.ones(count, dtype=np.bool_)
    if count:
        begins[1:] = np.any([one[1:] != one[:-1] for one in keys], axis=0)
    index = np.arange(count)
    return index - np.maximum.accumulate(np.where(begins, index, 0))
