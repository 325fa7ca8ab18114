"""Have everything answered that the ledger does not hold: the first pass of `asking`.

One request per task on an event loop, as many at once as the pacer allows, each begun when the
budget has reserved its bound, tried again where that may help, and committed with whatever else
came within 20 ms. What is committed, and only that, is settled with the budget.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import heapq
import itertools
import math
import random
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from symdistill.budget import Budget, BudgetReached, Reservation
from symdistill.config import Count, Seconds, Settings
from symdistill.errors import RunError, SymdistillError
from symdistill.ledger import Ledger
from symdistill.teachers.base import (
    Again,
    Ask,
    NoAnswer,
    Replies,
    output_bound,
)
from symdistill.teachers.commits import COMMIT_S, Batch, Commits
from symdistill.teachers.first_pass import FirstPass
from symdistill.teachers.pacing import Pacer
from symdistill.teachers.rows import Rows

if TYPE_CHECKING:
    from symdistill.teachers.missing import Missing

BLOCK_ASKS = 250  # looked up in the ledger at once
SWITCH_S = 0.0005  # between two threads of the interpreter, while something is asked
GARBAGE_OBJECTS = 20_000  # between two looks for garbage, meanwhile
TRIAL_TOKENS = 256  # of prompt, at most, in a trial of the decoding
# A round trip, from how long the start took: at least what our own loop needs to hear a refusal;
# a start that took longer than the most did more than ask the server something.
SHORTEST_TRIP_S, LONGEST_TRIP_S = 0.012, 0.25
WALL_S = 1.0  # between two looks at the time that is left
MANY = 8  # requests that wait, or may be tried while the server answers nothing
TROUBLE_S = 5.0  # without an answer, and with failures: then only a few are tried
FIRST_DELAY_S = 0.25  # before the second attempt; doubles, up to the next figure
LONGEST_DELAY_S = 30.0


class Asking(Settings):
    """How hard a teacher is asked. It decides no answer, so it is in no fingerprint."""

    max_concurrency: Count = Field(256, ge=1)
    """At most this many requests in flight."""

    rpm: Count | None = Field(None, ge=1)
    """Requests a minute that the teacher allows; null: what the server tells, if it does."""

    tpm: Count | None = Field(None, ge=1)
    """Tokens a minute that the teacher allows; null: what the server tells, if it does."""

    max_attempts: Count = Field(6, ge=1)
    """A request that failed this often in ways that may pass is given up."""

    outage: Seconds = Field(300.0, ge=0)
    """The run stops when the server has answered nothing for so long."""


def blocks(asks: Iterable[Ask]) -> Iterator[list[Ask]]:
    """The asks in blocks, as they are looked up."""
    left = iter(asks)
    while block := list(itertools.islice(left, BLOCK_ASKS)):
        yield block


@dataclass(slots=True)
class _Job:
    """One request: consecutive samples of an ask that the ledger does not hold."""

    ask: Ask
    keys: Sequence[str]
    first: int  # the first one's sample index
    bound_in: int  # tokens
    attempts: int = 0
    answers_before: int = 0  # of any request, when this one was first sent
    charged: float = 0.0  # tokens, by the pacer
    reservation: Reservation | None = None


@dataclass(slots=True)
class Counts:
    """Where a pass over the asks stands; samples, tokens and USD of this pass only."""

    answered: int = 0
    failed: int = 0
    retries: int = 0
    requests: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0


class Sending(FirstPass):
    """The first pass: have everything answered that the ledger does not hold."""

    def __init__(
        self,
        missing: Missing,
        rows: Rows,
        ledger: Ledger,
        budget: Budget,
        settings: Asking,
        seed: int,
        total: int | None,
    ) -> None:
        super().__init__(rows.backend)
        self.total = total
        self.missing = missing
        self.rows = rows
        self.decoding = rows.decoding
        self.ledger = ledger
        self.budget = budget
        self.settings = settings
        self.counts = Counts()
        self.pacer = Pacer(most=settings.max_concurrency, rpm=settings.rpm, tpm=settings.tpm)
        self.in_flight = 0
        self._random = random.Random(seed)
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._again: list[tuple[float, int, _Job]] = []  # a heap: not before, order, job
        self._order = itertools.count()
        self._excess = 1.0  # how far replies were above their bound: a server that counts its way
        self._commits = Commits(ledger, self._settle, self._stop)
        self._ready: deque[_Job] = deque()  # looked up, not sent yet
        self._most_open = 2 * settings.max_concurrency + 16  # in flight, or to be tried again
        self._trouble_since: float | None = None  # refused or out of reach, and no answer since
        self._answers = 0
        self._rates: deque[tuple[float, int]] = deque(maxlen=50)

    # -- the calling thread --------------------------------------------------------------------

    def _hear(self, interrupts: int, say: Callable[[str], None]) -> None:
        """At the first Ctrl-C what is in flight is waited for, at the second it is not."""
        self._interrupt(hard=interrupts > 1)
        if interrupts == 1:
            say(
                "stopping: nothing more is sent; waiting for "
                f"{self.in_flight} requests in flight (Ctrl-C again: stop now)"
            )

    def done(self) -> int:
        """How many samples are answered, were so before, or failed."""
        return self.counts.answered + self.missing.cached + self.counts.failed

    def line(self) -> str:
        """Where the pass stands, in words."""
        now, counts = time.monotonic(), self.counts
        self._rates.append((now, counts.tokens_out))
        (then, before), seconds = self._rates[0], now - self._rates[0][0]
        speed = (counts.tokens_out - before) / seconds if seconds > 0 and then else 0.0
        unknown = counts.unpriced or self.backend.price is None
        spent = "price unknown" if unknown else f"{counts.cost_usd:.4f} USD"
        if self.total is not None and counts.answered and counts.cost_usd:
            all_usd = counts.cost_usd / counts.answered * (self.total - self.missing.cached)
            spent += f" of about {all_usd:.4f}"
        return (
            f"{counts.answered} answered, {self.missing.cached} cached, {counts.failed} failed, "
            f"{counts.retries} retries, {self.in_flight} in flight | {speed:.0f} tokens/s | "
            f"{spent} | up to {self.pacer.limit} at once: {self.pacer.why}"
        )

    # -- the loop's thread ---------------------------------------------------------------------

    async def _main(self) -> None:
        with _tuned():
            await self._ask_all()

    async def _ask_all(self) -> None:
        jobs = self.missing.jobs()
        first = await anext(jobs, None)
        if first is None:
            return  # everything is in the ledger: the backend is not even opened
        self._ready.extend(first)
        if self._stopping is not None:  # Ctrl-C already
            return
        try:
            begin = time.monotonic()
            await self.backend.start()
            self.pacer = Pacer(
                most=min(self.settings.max_concurrency, self.backend.at_once or sys.maxsize),
                rpm=self.settings.rpm,
                tpm=self.settings.tpm,
                round_trip_s=min(LONGEST_TRIP_S, max(SHORTEST_TRIP_S, time.monotonic() - begin)),
            )
            committing = asyncio.create_task(self._commits.when_due())
            try:
                await self._check()
                await self._send_all(jobs)
            except Exception as error:  # what is in flight is paid for: it is waited for
                self._stop(error)
                while self.in_flight:
                    await self._sleep(None)
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                committing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await committing
                self._commits.write_the_rest()
        finally:
            await self.backend.close()
        if self._error is not None:
            raise self._error
        if (why := self._why_stopped()) not in (None, "stopped"):
            raise BudgetReached(await self._what_is_left(str(why), jobs))

    def _why_stopped(self) -> str | None:
        return self._stopping

    async def _check(self) -> None:
        """Have the backend try the decoding; where it is billed for that, it is in the ledger."""
        most = (TRIAL_TOKENS + output_bound(self.decoding), self.decoding.max_new_tokens)
        tries = self.decoding.output is not None or self.decoding.top_logprobs is not None
        for attempt in itertools.count(1):
            room = None
            if tries:
                room = self.budget.reserve(tokens=sum(most), usd=self.rows.cost_usd(*most))
                if room is None:
                    self._halt(self.budget.reached() or "a trial of the decoding does not fit")
            if self._stopping is not None:
                return
            try:
                got = await self.backend.check(self.decoding)
            except Again as error:
                if error.maybe_billed:
                    self._lose("check", f"a trial of the decoding: {error.reason}", *most, room)
                    room = None
                delay_s = self._delay_s(attempt, error)
                self._raise_if_away(error)
                servers = error.throttled or error.unreachable
                if attempt >= self.settings.max_attempts and not servers:
                    raise RunError(
                        f"expected {self.backend.name} to answer a trial request; got, "
                        f"{attempt} times: {error.reason}; try again later: nothing was asked yet"
                    ) from None
                due = time.monotonic() + delay_s
                while self._stopping is None and time.monotonic() < due:
                    await self._sleep(due - time.monotonic())
            else:
                self._trouble_since = None
                if got is not None:
                    tokens_out = sum(reply.tokens for reply in got.replies)
                    self._lose("check", "a trial of the decoding", got.tokens_in, tokens_out, room)
                    room = None
                return
            finally:
                if room is not None:
                    self.budget.release(room)

    async def _send_all(self, jobs: AsyncIterator[list[_Job]]) -> None:
        """Have every job sent when its turn comes."""
        exhausted = False
        while self._stopping is None:
            if not exhausted and len(self._ready) < self.settings.max_concurrency:
                block = await anext(jobs, None)
                self._ready.extend(block or ())
                exhausted = block is None
            if exhausted and not (self._ready or self._again or self.in_flight):
                return
            job, wait_s = self._next()
            if job is None:
                await self._sleep(wait_s)
            else:
                task = asyncio.create_task(self._work(job))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        while self.in_flight:
            await self._sleep(None)

    async def _work(self, job: _Job | None) -> None:
        """Send a job, and then the next one, for as long as it is its turn at once."""
        try:
            while job is not None:
                await self._one(job)
                job, _ = self._next()
                if self.in_flight < self.pacer.limit or len(self._ready) < self.in_flight:
                    self._wake.set()  # there is room for more, or soon nothing left to fill it
        except BaseException as error:  # it ends the run, not one item
            cancelled = isinstance(error, asyncio.CancelledError)
            if not (cancelled and (task := asyncio.current_task()) and task.cancelling()):
                self._error = self._error or error
            self._halt("stopped")
        self._wake.set()

    def _next(self) -> tuple[_Job | None, float | None]:
        """The job whose turn it is, counted as sent; else None and when to look again.

        Jobs that failed come before new ones. Seconds are None where something has to end first.
        """
        if self._stopping is not None:
            return None, None
        due_s = self._again[0][0] - time.monotonic() if self._again else None
        if due_s is not None and due_s <= 0:
            job = self._again[0][2]
        elif self._ready and self.in_flight + len(self._again) < self._most_open:
            job = self._ready[0]
        else:
            return None, due_s
        wait_s = self._turn(job)
        if wait_s != 0:
            soonest = [s for s in (wait_s, due_s) if s is not None and s > 0]
            return None, min(soonest, default=None)
        if due_s is not None and due_s <= 0:
            heapq.heappop(self._again)
        else:
            self._ready.popleft()
        return job, 0.0

    async def _sleep(self, seconds: float | None) -> None:
        """Until something changes (perhaps it has already), so many seconds or `WALL_S` passed."""
        with contextlib.suppress(TimeoutError):
            longest = WALL_S if seconds is None else min(seconds, WALL_S)
            await asyncio.wait_for(self._wake.wait(), longest)
        self._wake.clear()
        if self._stopping is None and self.budget.out_of_time:
            self._halt(self.budget.reached() or "out of time")

    def _turn(self, job: _Job) -> float | None:
        """0: the job may go now, and is counted; else seconds to wait, None: until one ends."""
        if self.in_flight >= self.pacer.limit:
            return None
        if self._trouble_since is not None and self.in_flight >= MANY and self._in_trouble():
            return None
        tokens_in = math.ceil(job.bound_in * self._excess)
        tokens_out = math.ceil(self.decoding.max_new_tokens * len(job.keys) * self._excess)
        charge = self.pacer.tokens_to_charge(tokens_in, tokens_out)
        wait_s = self.pacer.wait_s(charge)
        if wait_s > 0:
            return wait_s
        usd = self.rows.cost_usd(tokens_in, tokens_out)
        job.reservation = self.budget.reserve(requests=1, tokens=tokens_in + tokens_out, usd=usd)
        if job.reservation is None:
            if not self.budget.in_flight:
                self._halt(self.budget.reached() or "nothing more fits")
                return None
            return None if self.in_flight else COMMIT_S
        job.charged = charge
        if not job.attempts:
            job.answers_before = self._answers
        job.attempts += 1
        self.pacer.sent(charge)
        self.in_flight += 1
        self.counts.requests += 1
        return 0.0

    async def _one(self, job: _Job) -> None:
        """Send one request and see to what comes of it."""
        start = time.monotonic()
        try:
            got = await self.backend.send(
                job.ask.prompt, len(job.keys), self.decoding, first_sample=job.first
            )
        except Again as error:
            self._try_again(job, error)
        except NoAnswer as error:
            self._fail(job, error, time.monotonic() - start)
        except SymdistillError:
            self._let_go(job)
            raise
        except BaseException as error:  # a fault of the program, or a second Ctrl-C
            self._bill_bound(job, f"{type(error).__name__} before the reply came")
            raise
        else:
            self._keep(job, got, time.monotonic() - start)
        finally:
            self.in_flight -= 1

    def _keep(self, job: _Job, got: Replies, wall_s: float) -> None:
        """A whole reply: into the next commit, the rest of the samples asked for again."""
        replies = got.replies[: len(job.keys)]
        tokens_out = sum(reply.tokens for reply in replies)
        self._answered()
        self.pacer.answered(
            wall_s,
            charged=job.charged,
            tokens=got.tokens_in + tokens_out,
            in_flight=self.in_flight,
            headers=got.headers,
        )
        bound = job.bound_in + self.decoding.max_new_tokens * len(job.keys)
        if bound and got.tokens_in + tokens_out > bound * self._excess:
            self._excess = (got.tokens_in + tokens_out) / bound
        calls, failed = self.rows.kept(job, got, wall_s)
        waiting = self._commits.waiting
        waiting.calls += calls
        waiting.failed += failed
        used = got.tokens_in + tokens_out
        cost = self.rows.cost_usd(got.tokens_in, tokens_out)
        waiting.settle.append((job.reservation, used, cost, list(job.keys[: len(replies)])))
        self.counts.tokens_out += tokens_out
        if len(replies) < len(job.keys):  # a server that ignores n, or has a smaller limit
            rest = _Job(job.ask, job.keys[len(replies) :], job.first + len(replies), job.bound_in)
            heapq.heappush(self._again, (0.0, next(self._order), rest))
        self._commits.due.set()

    def _answered(self) -> None:
        self._answers += 1
        self._trouble_since = None

    def _in_trouble(self) -> bool:
        """Whether a few requests at once are enough to see that the server is back."""
        return time.monotonic() - (self._trouble_since or math.inf) > TROUBLE_S

    def _try_again(self, job: _Job, error: Again) -> None:
        now = time.monotonic()
        if error.throttled:
            self.pacer.throttled(charged=job.charged, after_s=error.after_s, headers=error.headers)
        else:
            self.pacer.dropped(charged=job.charged)
        if error.maybe_billed:
            self._bill_bound(job, error.reason)
        else:
            self._let_go(job)
        delay_s = self._delay_s(job.attempts, error)
        # Where many wait and none was answered since this one was first sent, it is the server's
        # trouble and not this request's.
        many = self.in_flight + len(self._again) > MANY
        nothing = many and self._answers == job.answers_before
        if error.throttled or error.unreachable or nothing:
            job.attempts -= 1
            self._raise_if_away(error)
        elif job.attempts >= self.settings.max_attempts:
            why = f"{job.attempts} attempts failed; the last: {error.reason}"
            self._fail(job, NoAnswer("gave_up", why), 0.0)
            return
        self.counts.retries += 1
        heapq.heappush(self._again, (now + delay_s, next(self._order), job))

    def _raise_if_away(self, error: Again) -> None:
        """Stop where the server has answered nothing for too long, or will not before that."""
        now = time.monotonic()
        self._trouble_since = self._trouble_since or now
        waited_s, outage_s = now - self._trouble_since, self.settings.outage
        if waited_s <= outage_s and (error.after_s or 0.0) <= outage_s:
            return
        waits = f"; it asks to wait {error.after_s:.0f} s" if error.after_s else ""
        raise RunError(
            f"expected answers from {self.backend.name}; got none for {waited_s:.0f} s, and at "
            f"last: {error.reason}{waits}; every answer so far is kept: run the same command "
            "again when the server is back, or raise the teacher's `outage`"
        )

    def _delay_s(self, attempts: int, error: Again) -> float:
        """Until the next attempt: what the server says, else longer each time; jittered."""
        if error.after_s is not None:
            return error.after_s * self._random.uniform(1.0, 1.1)
        longer = FIRST_DELAY_S * 2.0 ** max(0, attempts - 1)
        if self._trouble_since is not None:  # so that a server out of reach is not hammered
            longer = max(longer, (time.monotonic() - self._trouble_since) / 4)
        return min(LONGEST_DELAY_S, longer) * self._random.uniform(0.5, 1.5)

    def _fail(self, job: _Job, error: NoAnswer, wall_s: float) -> None:
        """An ask without an answer becomes a record with its reason."""
        if error.kind != "gave_up":
            self._answered()
            self.pacer.answered(
                wall_s,
                charged=job.charged,
                tokens=error.tokens_in + error.tokens_out,
                in_flight=self.in_flight,
                headers={},
            )
        used = error.tokens_in + error.tokens_out
        cost = self.rows.cost_usd(error.tokens_in, error.tokens_out) if used else 0.0
        waiting = self._commits.waiting
        waiting.failed += self.rows.failed(job, error, wall_s)
        waiting.settle.append((job.reservation, used, cost, list(job.keys)))
        self._commits.due.set()

    def _bill_bound(self, job: _Job, reason: str) -> None:
        """It may have been billed, and no whole reply came: it counts at its upper bound."""
        tokens_out = self.decoding.max_new_tokens * len(job.keys)
        self._lose(job.keys[0], reason, job.bound_in, tokens_out, job.reservation)
        job.reservation = None

    def _lose(
        self,
        key: str,
        reason: str,
        tokens_in: int,
        tokens_out: int,
        reservation: Reservation | None = None,
    ) -> None:
        waiting = self._commits.waiting
        waiting.lost.append(lost := self.rows.lost(key, reason, tokens_in, tokens_out))
        if reservation is not None:
            waiting.settle.append((reservation, tokens_in + tokens_out, lost.cost_usd, []))
        self._commits.due.set()

    def _let_go(self, job: _Job) -> None:
        """It was not billed: its reservation is free again."""
        if job.reservation is not None:
            self.budget.release(job.reservation)
            job.reservation = None

    def _stop(self, error: Exception) -> None:
        """It ends the run, once what is in flight has come."""
        self._error = self._error or error
        self._halt("stopped")

    def _halt(self, why: str) -> None:
        """Send nothing more; what is in flight is waited for."""
        super()._halt(why)
        self._wake.set()

    # -- what is spent, and what is left -------------------------------------------------------

    def _settle(self, batch: Batch) -> None:
        """What the ledger holds is spent, and no longer reserved."""
        for reservation, tokens, usd, keys in batch.settle:
            if reservation is not None:
                self.budget.settle(reservation, tokens=tokens, usd=usd)
            self.missing.committed += keys
        counts = self.counts
        counts.answered += len(batch.calls)
        counts.failed += len(batch.failed)
        for one in batch.rows():
            if one.cost_usd is None:
                counts.unpriced += 1
            else:
                counts.cost_usd += one.cost_usd
        self._wake.set()

    def _mean_cost_usd(self, done: int) -> float | None:
        """Of a sample: of this pass, or of the run so far; None where there is none to go by."""
        if done:
            return self.counts.cost_usd / done
        bill = self.ledger.totals(self.rows.role)
        calls, cost = (bill["calls"] or 0) + (bill["failed"] or 0), bill["cost_usd"]
        return cost / calls if calls and cost is not None else None

    async def _what_is_left(self, why: str, jobs: AsyncIterator[list[_Job]]) -> str:
        """Words for a run that its budget ended: what is kept, what is left, what it would cost."""
        waiting = [job for _, _, job in self._again] + list(self._ready)
        left = sum(len(job.keys) for job in waiting)
        async for block in jobs:
            left += sum(len(job.keys) for job in block)
        counts = self.counts
        done = counts.answered + counts.failed
        if counts.unpriced or self.backend.price is None:
            cost = "at an unknown price"
        elif each := self._mean_cost_usd(done):
            cost = f"for about {each * left:.4g} USD, as the others went"
        else:
            cost = "at a cost that no other tells yet"
        return (
            f"the budget is reached ({why}); {done} samples were asked for now, "
            f"{self.missing.cached} were in the ledger, and all are kept; {left} more to ask for, "
            f"{cost}; raise the budget and run the same command to go on"
        )


@contextlib.contextmanager
def _tuned() -> Iterator[None]:
    """The interpreter set for many small requests, and as it was again afterwards.

    The loop's thread gives the interpreter away with every packet that it sends; the thread that
    looks into the ledger would keep it for 5 ms then, which costs a tenth of the requests per
    second.
    Looking for garbage after every 700 new objects costs a tenth.
    """
    switch_s, garbage = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(min(switch_s, SWITCH_S))
    if garbage[0]:
        gc.set_threshold(max(garbage[0], GARBAGE_OBJECTS), *garbage[1:])
    try:
        yield
    finally:
        sys.setswitchinterval(switch_s)
        gc.set_threshold(*garbage)
