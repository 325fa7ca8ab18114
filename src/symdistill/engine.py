"""Map a function over rows in batches: on this machine.

Batches are cut by the rows' ids before anything runs, so they do not depend on where an earlier
attempt stopped or on how many workers there are, and results come back in the order of ids.
The function decides what to keep of a batch (the ledger, usually); a batch is done whole or
not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def map_batches(
    function: Callable[[list[In]], list[Out]],
    rows: Sequence[In],
    *,
    key: Callable[[In], str],
    batch_size: int,
    workers: int = 1,
) -> Iterator[list[Out]]:
    """Apply `function` to batches of rows; yields one list of results per batch, in id order.

    Args:
        function: takes a batch and gives one result per row, in the same order.
        rows: what to map over, in any order.
        key: a row's id; ids must differ.
        batch_size: rows per batch; the last may be shorter.
        workers: batches under way at once, in threads; 1 runs them here, one after another.

    Raises:
        ValueError: two rows share an id, or the function gave another number of results.
    """
    ordered = sorted(rows, key=key)
    for before, after in pairwise(ordered):
        if key(before) == key(after):
            raise ValueError(f"expected rows with different ids; {key(before)} comes twice")
    batches = [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]

    def checked(batch: list[In]) -> list[Out]:
        results = function(batch)
        if len(results) != len(batch):
            raise ValueError(f"expected {len(batch)} results for a batch; got {len(results)}")
        return results

    if workers == 1:
        yield from map(checked, batches)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(checked, batches)
