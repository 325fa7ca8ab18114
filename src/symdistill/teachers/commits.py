"""Group commits: what came within 20 ms goes into the ledger in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from symdistill.budget import Reservation
from symdistill.errors import SymdistillError
from symdistill.ledger import Call, FailedCall, Ledger, LostCall

COMMIT_S = 0.02  # replies wait at most this long for others to be committed with


@dataclass(slots=True)
class Batch:
    """What waits for the next commit, and what is settled with the budget after it."""

    calls: list[Call] = field(default_factory=list)
    failed: list[FailedCall] = field(default_factory=list)
    lost: list[LostCall] = field(default_factory=list)
    settle: list[tuple[Reservation | None, int, float | None, Sequence[str]]] = field(
        default_factory=list
    )  # reservation, tokens, USD, keys

    def rows(self) -> list[Call | FailedCall | LostCall]:
        """All that the ledger is to hold."""
        return [*self.calls, *self.failed, *self.lost]

    def followed_by(self, other: Batch) -> Batch:
        """Both, in this order."""
        return Batch(
            self.calls + other.calls,
            self.failed + other.failed,
            self.lost + other.lost,
            self.settle + other.settle,
        )


class Commits:
    """Commits what `waiting` holds, soon after `due` is set.

    Args:
        ledger: where to.
        settle: is called with every batch that the ledger holds.
        stop: is called with an error that keeps a batch from being committed as it is.
    """

    def __init__(
        self, ledger: Ledger, settle: Callable[[Batch], None], stop: Callable[[Exception], None]
    ) -> None:
        self.waiting = Batch()
        self.due = asyncio.Event()
        self._ledger = ledger
        self._settle = settle
        self._stop = stop

    async def when_due(self) -> None:
        """Commit again and again, on the loop's own thread; ends at an error.

        A thread of their own would have to wait for the interpreter just when most replies come,
        and what waits to be committed is what a kill would cost.
        """
        while True:
            await self.due.wait()
            await asyncio.sleep(COMMIT_S)
            self.due.clear()
            batch, self.waiting = self.waiting, Batch()
            try:
                self._ledger.record(batch.calls, batch.failed, batch.lost)
            except Exception as error:
                self.waiting = batch.followed_by(self.waiting)  # once more, when all has stopped
                self._stop(error)
                return
            self._settle(batch)

    def write_the_rest(self) -> None:
        """What came last, or could not be written before: all of it, or what can be."""
        batch = self.waiting
        try:
            self._ledger.record(batch.calls, batch.failed, batch.lost)
        except SymdistillError:
            raise
        except Exception as error:  # of one row, a reply that JSON cannot hold: not the others'
            self._stop(error)
            batch = Batch(settle=batch.settle)
            for call in self.waiting.calls:
                with contextlib.suppress(Exception):
                    self._ledger.record([call])
                    batch.calls.append(call)
            self._ledger.record([], self.waiting.failed, self.waiting.lost)
            batch.failed, batch.lost = self.waiting.failed, self.waiting.lost
        self._settle(batch)
