"""The budget of a run: money, requests, tokens and time, of every role together.

What a request may cost at most is reserved before it is sent and settled when its outcome is in
the ledger. A reservation that would pass a limit is refused, so a limit is never passed as long
as reservations are upper bounds.

This holds over kill -9, without a write per request. What is settled is read from the ledger.
What is in flight lies under a *lease*: a mark in the ledger that is raised, before a reservation
would pass it, to twice what is reserved then (so it is written a few times in a run), and lowered
to what is still in flight when the budget is closed. The lease of a process that was killed
counts as spent: nobody knows what of it was billed.

Work that goes on at a server without us (a batch) outlives the process. Its room is put down in
the ledger's note of it, as `reserved`, and under no lease; later processes hold it from their
start, until one takes the work over and settles it at what it came to.

Not held: limits against a server that bills more than the bound it was asked under (that is
counted truly, and then nothing more fits), or against a power cut, which may take the last
seconds of the ledger with it.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from symdistill.config import BudgetSettings as BudgetSettings
from symdistill.errors import InputError, RunError, SymdistillError
from symdistill.ledger import PICO, Ledger, Session, pico

NOTE_EVERY_S = 1.0  # how often the time spent is put down

Amounts = tuple[int, int, int]
"""Requests, tokens, and money in 1e-12 USD."""

_NOTHING: Amounts = (0, 0, 0)


class BudgetReached(SymdistillError):
    """Nothing more fits into the budget. All that was paid for is kept."""

    exit_code = 3


@dataclass(frozen=True, slots=True, eq=False)
class Reservation:
    """Room that is held for one request, or for many that are sent together."""

    amounts: Amounts
    noted: bool = False


@dataclass(frozen=True, slots=True)
class Spent:
    """What the run has used up, over all its processes.

    `usd` is of the requests whose price is known; `unpriced` counts the others. The figures hold
    what earlier processes left unsettled when they were cut off, which is also told apart: it is
    the most that can have been billed without an answer in the ledger.
    """

    requests: int
    tokens: int
    usd: float
    unpriced: int
    wall_s: float
    unsettled_requests: int = 0
    unsettled_tokens: int = 0
    unsettled_usd: float = 0.0


class Budget:
    """The budget of one run; one at a time, used from any thread.

    Args:
        limits: what may be used up.
        ledger: of the run; without one, only this object's own spending is known.
    """

    def __init__(self, limits: BudgetSettings, ledger: Ledger | None = None) -> None:
        self.limits = limits
        self._ledger = ledger
        self._lock = threading.Lock()
        self._limit = (
            math.inf if limits.requests is None else limits.requests,
            math.inf if limits.tokens is None else limits.tokens,
            math.inf if limits.usd is None else pico(limits.usd),
        )
        self._leases = ledger is not None and min(self._limit) < math.inf
        self._open: set[Reservation] = set()
        self._left: dict[str, Amounts] = {}  # reserved for what goes on without us, by its note
        self._reserved = self._lasting = self._lease = _NOTHING
        notes = ledger.recall() if ledger else {}
        for name, note in notes.items():
            self._hold(name, _whole(note.get("reserved", _NOTHING)))
        self._refused: tuple[int, int] | None = None  # by which limit, asked for how much
        accounts = ledger.accounts() if ledger else []
        settled = (
            sum(one.requests for one in accounts),
            sum(one.tokens_in + one.tokens_out for one in accounts),
            sum(one.pico_usd for one in accounts),
        )
        self._unpriced = sum(one.unpriced for one in accounts)
        sessions = ledger.sessions() if ledger else []
        leased = (
            sum(one.leased_requests for one in sessions),
            sum(one.leased_tokens for one in sessions),
            sum(one.leased_pico_usd for one in sessions),
        )
        # A lease may be twice what was in flight, and that did fit into the limit.
        self._unsettled = _whole(
            min(lease, max(0, limit - spent))
            for lease, limit, spent in zip(leased, self._limit, settled, strict=True)
        )
        self._spent = _plus(settled, self._unsettled)
        self._wall_before_s = sum(one.wall_s for one in sessions)
        self._id = max((one.id for one in sessions), default=0) + 1
        self._started_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._start = self._noted = time.monotonic()

    def reserve(
        self,
        *,
        requests: int = 1,
        tokens: int = 0,
        usd: float | None = 0.0,
        noted: bool = False,
    ) -> Reservation | None:
        """Room for a request, or None where it does not fit beside what is reserved now.

        Args:
            requests: how many requests are sent.
            tokens: at most so many are read and written.
            usd: at most so much is billed; None where the price is unknown.
            noted: before anything is sent, the caller puts its `amounts` down in the ledger, as
                `reserved` of the note of the work, and it forgets the note before it settles.

        Raises:
            InputError: an unknown price under a limit in USD that does not allow it.
            RunError: the ledger cannot be written.
        """
        if usd is None and self.limits.usd is not None and not self.limits.allow_unknown_price:
            raise InputError(
                f"expected a price for every teacher under a budget of {self.limits.usd:g} USD; "
                "got a teacher without one; state its price, or set budget.allow_unknown_price"
            )
        if self._unpriced and self.limits.usd is not None and not self.limits.allow_unknown_price:
            raise InputError(
                f"expected known prices under a budget of {self.limits.usd:g} USD; got "
                f"{self._unpriced} earlier requests of this run without one; set "
                "budget.allow_unknown_price (they count as nothing), or begin a new run"
            )
        asked = amounts(requests, tokens, usd)
        with self._lock:
            self._note_time()
            if self.out_of_time:
                return None
            held = _plus(self._reserved, asked)
            for i in range(3):
                if asked[i] and self._spent[i] + held[i] > self._limit[i]:
                    self._refused = (i, asked[i])
                    return None
            if self._leases and not noted:
                self._lease_for(_minus(held, self._lasting))
            self._refused = None
            return self._take(asked, noted)

    def settle(
        self,
        reservation: Reservation,
        *,
        tokens: int,
        usd: float | None,
        requests: int | None = None,
    ) -> None:
        """Count what was reserved for at what it came to, also if that is more.

        The ledger must hold it already: what is neither there nor reserved would be forgotten
        if the process were killed.

        Args:
            reservation: an open one.
            tokens: read and written.
            usd: billed; None where the price is unknown.
            requests: answered or billed; None: all that were reserved for.
        """
        if requests is None:
            requests = reservation.amounts[0]
        with self._lock:
            self._give_back(reservation)
            self._spent = _plus(self._spent, amounts(requests, tokens, usd))
            if usd is None:
                self._unpriced += requests
            with contextlib.suppress(RunError):  # a note of the time; `reserve` tells the user
                self._note_time()

    def release(self, reservation: Reservation) -> None:
        """Give back the room of a request that was not sent, or surely not billed."""
        with self._lock:
            self._give_back(reservation)
            with contextlib.suppress(RunError):  # a note of the time; `reserve` tells the user
                self._note_time()

    def hold(self, name: str, reserved: Amounts) -> None:
        """Hold room for work that goes on without us, whether or not it fits; not in flight.

        Args:
            name: of the ledger's note of it, which says the same for later processes.
            reserved: in place of what was held under this name.
        """
        with self._lock:
            self._hold(name, reserved)

    def take_over(self, name: str, reserved: Amounts) -> Reservation:
        """The reservation of work that was left going on: in flight again, to be settled.

        Args:
            name: of the ledger's note of it; what was held under it is held no longer.
            reserved: what the note says.
        """
        with self._lock:
            self._hold(name, _NOTHING)
            return self._take(reserved, noted=True)

    def close(self) -> None:
        """Put down the time spent and lower the lease to what is in flight; may be called twice."""
        with self._lock:
            self._lease = _minus(self._reserved, self._lasting) if self._leases else _NOTHING
            self._write()

    @property
    def in_flight(self) -> int:
        """How many reservations are open; what is held for work left going on is not."""
        return len(self._open)

    @property
    def spent(self) -> Spent:
        """What the run has used up so far, without what is in flight."""
        with self._lock:
            requests, tokens, pico_usd = self._spent
            return Spent(
                requests=requests,
                tokens=tokens,
                usd=pico_usd / PICO,
                unpriced=self._unpriced,
                wall_s=self._wall_s(),
                unsettled_requests=self._unsettled[0],
                unsettled_tokens=self._unsettled[1],
                unsettled_usd=self._unsettled[2] / PICO,
            )

    def reached(self) -> str | None:
        """Which limit is in the way, in words; None if none is.

        The last reservation was refused for it. With requests in flight that may pass, as they
        come to less than was reserved; with none in flight it stays.
        """
        with self._lock:
            if self.out_of_time:
                return f"wall: {self._wall_s():,.0f} s of {self.limits.wall:,.0f} s spent"
            return self._refused and self._in_words(*self._refused)

    def check_time(self) -> None:
        """Stop where the time is used up, before something long begins.

        Raises:
            BudgetReached: it is.
        """
        if self.out_of_time:
            raise BudgetReached(
                f"the budget is reached ({self.reached()}); all that is done is kept; raise it "
                "and run the same command to go on"
            )

    def unsettled_words(self) -> str | None:
        """What earlier processes left unsettled when they were cut off, in words; None: nothing."""
        requests, tokens, pico_usd = self._unsettled
        parts = [
            f"{pico_usd / PICO:.6g} USD" * bool(pico_usd),
            f"{tokens:,} tokens" * bool(tokens),
            f"{requests:,} request{'s' * (requests != 1)}" * bool(requests),
        ]
        if said := ", ".join(part for part in parts if part):
            return f"{said} (at most) in flight when an earlier run was cut off: counted as spent"
        return None

    def _in_words(self, i: int, asked: int) -> str:
        def amount(value: float) -> str:
            return f"{value / PICO:.6g}" if i == 2 else f"{value:,.0f}"

        name = ("requests", "tokens", "usd")[i]
        words = f"{name}: {amount(self._spent[i])} of {amount(self._limit[i])} spent"
        if self._unsettled[i]:
            words += f" ({amount(self._unsettled[i])} of it in flight when a run was cut off)"
        if self._reserved[i]:
            words += f", {amount(self._reserved[i])} in flight"
        return f"{words}; one more request needs up to {amount(asked)}"

    def _take(self, reserved: Amounts, noted: bool) -> Reservation:
        reservation = Reservation(reserved, noted)
        self._open.add(reservation)
        self._reserved = _plus(self._reserved, reserved)
        if noted:
            self._lasting = _plus(self._lasting, reserved)
        return reservation

    def _give_back(self, reservation: Reservation) -> None:
        if reservation not in self._open:
            raise ValueError("expected an open reservation; this one is settled or released")
        self._open.remove(reservation)
        self._reserved = _minus(self._reserved, reservation.amounts)
        if reservation.noted:
            self._lasting = _minus(self._lasting, reservation.amounts)

    def _hold(self, name: str, reserved: Amounts) -> None:
        more = _minus(reserved, self._left.pop(name, _NOTHING))
        self._left[name] = reserved
        self._reserved, self._lasting = _plus(self._reserved, more), _plus(self._lasting, more)

    def _lease_for(self, wanted: Amounts) -> None:
        """See that what is in flight, and under no note, lies under the lease."""
        before = self._lease
        if all(wanted[i] <= before[i] for i in range(3)):
            return
        taken = _plus(self._spent, self._lasting)
        self._lease = _whole(
            max(lease, min(2 * most, limit - gone))
            for lease, most, limit, gone in zip(before, wanted, self._limit, taken, strict=True)
        )
        try:
            self._write()
        except BaseException:
            self._lease = before
            raise

    def _wall_s(self) -> float:
        return self._wall_before_s + time.monotonic() - self._start

    @property
    def out_of_time(self) -> bool:
        """Whether the limit in `wall` has passed."""
        return self.limits.wall is not None and self._wall_s() >= self.limits.wall

    def _note_time(self) -> None:
        if time.monotonic() - self._noted >= NOTE_EVERY_S:
            self._write()

    def _write(self) -> None:
        self._noted = time.monotonic()
        if self._ledger is not None:
            wall_s = self._noted - self._start
            self._ledger.write_session(Session(self._id, self._started_at, wall_s, *self._lease))


def amounts(requests: int, tokens: int, usd: float | None) -> Amounts:
    """Amounts as they are added up; an unknown price counts as nothing."""
    return requests, tokens, 0 if usd is None else pico(usd)


def _whole(values: Iterable[float]) -> Amounts:
    requests, tokens, pico_usd = (int(value) for value in values)
    return requests, tokens, pico_usd


def _plus(one: Amounts, other: Amounts) -> Amounts:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]


def _minus(one: Amounts, other: Amounts) -> Amounts:
    return one[0] - other[0], one[1] - other[1], one[2] - other[2]
