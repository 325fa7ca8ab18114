"""Ask a teacher through `/v1/batches`: for less money, with answers within a day.

Takes and gives what `asking.ask` does, under the same ledger keys, so that what one has brought
the other does not ask for. Requests that the ledger does not answer go out in files of up to
50,000; a batch is looked at until it has ended, and each line of its output goes into the ledger.

A killed run loses nothing: every step (the intent, the file, the batch) is noted in the ledger
before the next one, and the same command goes on with the batches that it finds noted. Whether
one that was cut off while it was being made is there, the server's own list tells. A request is
put into a second batch only when the first has ended without an answer to it.
What an open batch may cost stays reserved by its note, whatever else the run does meanwhile.

Memory holds the requests of the open batches: at most `open_batches` times `bytes_per_batch`.

Does not: cancel batches, delete the files that they leave at the server, or share a ledger with
a second process.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from symdistill.budget import (
    Amounts,
    Budget,
    BudgetReached,
    BudgetSettings,
    Reservation,
    amounts,
)
from symdistill.errors import RunError
from symdistill.ledger import Call, FailedCall, Ledger, LostCall
from symdistill.progress import Progress
from symdistill.teachers import Batching
from symdistill.teachers.asking import Asks, Keys, _read
from symdistill.teachers.base import Again, Answer, Decoding, Failed
from symdistill.teachers.batch import Batch, Terms, queue_is_full
from symdistill.teachers.batch_server import BatchServer
from symdistill.teachers.first_pass import FirstPass
from symdistill.teachers.lacking import NOTE, Lacking
from symdistill.teachers.sending import TRIAL_TOKENS, _Job

if TYPE_CHECKING:
    from symdistill.progress import Stage
    from symdistill.teachers.openai import OpenAIBackend

ENDED = ("completed", "failed", "expired", "cancelled")
COMMIT_ROWS = 500  # of an output file, committed together
FIRST_DELAY_S = 1.0  # before a call is repeated; doubles, up to the next figure
LONGEST_DELAY_S = 60.0
OUTAGE_S = 1800.0  # the run stops when the server has answered nothing for so long

__all__ = ["Batching", "ask_in_batches"]

T = TypeVar("T")


def ask_in_batches(
    backend: OpenAIBackend,
    asks: Asks,
    *,
    decoding: Decoding,
    ledger: Ledger,
    budget: Budget | None = None,
    role: str = "teacher",
    settings: Batching | None = None,
    progress: Progress | None = None,
    label: str = "ask",
    total: int | None = None,
) -> Iterator[Answer | Failed]:
    """Every sample of every ask, from the ledger where it is there, else through batches.

    Args:
        backend: who is asked; its server must offer `/v1/files` and `/v1/batches`.
        asks: what is asked; equal ones share an answer.
        decoding: how the answers are to be written.
        ledger: where answers are committed and open batches are noted.
        budget: what may be spent; a batch's upper bound is reserved before it is submitted.
        role: for the ledger's accounts.
        settings: how to batch.
        progress: who is told of it; nobody by default.
        label: the name of the stage in progress.
        total: how many samples there are, for progress; found out where `asks` is a sequence.

    Yields:
        the samples of the first ask, then of the second, ...

    Raises:
        BudgetReached: not one more request fits, or time is up; what was answered is kept.
        InputError: the server offers no batches, or no request can succeed.
        RunError: the server refused a batch, or was silent for too long.
        KeyboardInterrupt: after Ctrl-C; open batches go on, and the same command collects them.
    """
    keys = Keys(backend, decoding)
    if callable(asks):
        every = asks
    else:
        every, total = (lambda: asks), sum(one.samples for one in asks)
    settings = settings or Batching()
    work = _Work(
        Lacking(backend, every, keys, ledger),
        Terms(backend, keys, decoding, role, settings.price_share, settings.max_attempts),
        ledger,
        budget or Budget(BudgetSettings(), None),
        settings,
    )
    progress = progress or Progress()
    with progress.stage(label, total or 0, "answers") as stage:
        work.run(stage, progress.say)
    yield from _read(ledger, every, keys)


class _Work(FirstPass):
    """Have everything answered that the ledger does not hold, through batches."""

    backend: OpenAIBackend
    thread_name = "symdistill-batches"

    def __init__(
        self,
        lacking: Lacking,
        terms: Terms,
        ledger: Ledger,
        budget: Budget,
        settings: Batching,
    ) -> None:
        super().__init__(terms.backend)
        self.lacking = lacking
        self.terms = terms
        self.server = BatchServer(terms.backend)
        self.ledger = ledger
        self.budget = budget
        self.settings = settings
        self.open: list[Batch] = []
        self._most_open = settings.open_batches
        self._most_requests = settings.requests_per_batch
        self._full = False  # no room for more before an open batch has ended
        self._tried = False  # the decoding, before the first batch is made
        self._moved = self._next_look = time.monotonic()
        self._trouble = ""

    # -- the calling thread --------------------------------------------------------------------

    def run(self, stage: Stage, say: Callable[[str], None]) -> None:
        """Do the pass; returns when everything asked for is in the ledger."""
        try:
            super().run(stage, say)
        except KeyboardInterrupt:
            if self.open:
                say(f"stopped; {self._left_open()}")
            raise

    def done(self) -> int:
        """How many samples the ledger holds, as far as it was looked at."""
        return self.lacking.done

    def line(self) -> str:
        """Where the open batches stand, in words."""
        batches = list(self.open)
        if not batches:
            return f"no batch open{self._trouble}"
        done, total = sum(one.done for one in batches), sum(one.total for one in batches)
        oldest_min = (time.time() - min(one.made_at for one in batches)) / 60
        wait_s = max(0.0, self._next_look - time.monotonic())
        return (
            f"{_count(batches)} open: {done:,} of {total:,} done; oldest {oldest_min:.0f} min; "
            f"next look in {wait_s:.0f} s{self._trouble}"
        )

    def _left_open(self) -> str:
        return (
            f"{_count(self.open)} at {self.backend.base_url} will go on there, and the same "
            "command collects what they bring"
        )

    # -- the loop's thread ---------------------------------------------------------------------

    async def _main(self) -> None:
        if self._stopping is not None:  # Ctrl-C already
            return
        self.open += self.lacking.noted(self._drop)
        if not self.open and not self.lacking:
            return  # everything is in the ledger: the backend is not even opened
        try:
            await self.backend.start()
            await self._heard(self.server.check)
            for batch in self.open:
                batch.reservation = self.budget.take_over(NOTE + batch.mark, batch.reserved)
                batch.reserved_for_others = self._without(batch.reserved, batch.jobs.values())
                await self._create(batch)
            await self._work()
        finally:
            for batch in self.open:  # they go on there, and what they may cost stays reserved
                if batch.reservation is not None:
                    self.budget.hold(NOTE + batch.mark, batch.reserved)
                    self.budget.release(batch.reservation)
            await self.backend.close()

    async def _work(self) -> None:
        """Submit and look until nothing is left."""
        while True:
            while len(self.open) < self._most_open and not self._full and await self._submit():
                self._moved = time.monotonic()
            if not self.open:
                if not self._full:
                    return
                if not self.budget.in_flight:
                    raise BudgetReached(self._what_is_left())
                self._full = False  # what other roles have in flight may leave room
            self._next_look = time.monotonic() + self.settings.poll
            await asyncio.sleep(self.settings.poll)
            for batch in list(self.open):
                await self._look(batch)
            if self.open and self._time_is_up():
                raise BudgetReached(self._what_is_left())
            if time.monotonic() - self._moved > self.settings.give_up:
                raise RunError(
                    f"expected {self.backend.base_url} to work on its batches; got no sign of it "
                    f"for {self.settings.give_up / 3600:.1f} h; {self._left_open()}"
                )

    async def _heard(self, call: Callable[[], Awaitable[T]]) -> T:
        """The outcome of a call, repeated while the server is not there or asks to wait."""
        since, delay_s = time.monotonic(), FIRST_DELAY_S
        while True:
            try:
                got = await call()
            except Again as error:
                if time.monotonic() - since > OUTAGE_S:
                    raise RunError(
                        f"expected {self.backend.base_url} to answer; got: {error.reason}; run "
                        f"the same command when it is back; {self._left_open()}"
                    ) from None
                self._trouble = f"; trying again: {error.reason}"
                await asyncio.sleep(delay_s if error.after_s is None else error.after_s)
                delay_s = min(LONGEST_DELAY_S, 2 * delay_s)
            else:
                self._trouble = ""
                return got

    async def _try_decoding(self) -> bool:
        """Have the backend try the decoding; False: there is no room for that.

        Where it is billed for the trial, that is in the ledger, at the full price.
        """
        decoding, direct = self.terms.decoding, replace(self.terms, price_share=1.0)
        if decoding.output is None and decoding.top_logprobs is None:
            await self.backend.check(decoding)  # nothing is sent
            return True
        most = (TRIAL_TOKENS, decoding.max_new_tokens)

        async def once() -> bool:
            room = self.budget.reserve(tokens=sum(most), usd=direct.cost_usd(*most))
            if room is None:
                return False
            lost: LostCall | None = None
            try:
                if (got := await self.backend.check(decoding)) is not None:
                    tokens_out = sum(reply.tokens for reply in got.replies)
                    lost = direct.lost(
                        "check", "a trial of the decoding", got.tokens_in, tokens_out
                    )
            except Again as error:
                if error.maybe_billed:
                    lost = direct.lost("check", f"a trial of the decoding: {error.reason}", *most)
                raise
            finally:
                if lost is None:
                    self.budget.release(room)
                else:
                    self.ledger.record([], [], [lost])
                    tokens = lost.tokens_in + lost.tokens_out
                    self.budget.settle(room, tokens=tokens, usd=lost.cost_usd)
            return True

        return await self._heard(once)

    # -- the budget ----------------------------------------------------------------------------

    def _reserve(self, jobs: Sequence[_Job]) -> Reservation | None:
        tokens = self.terms.bound(jobs)
        usd = self.terms.cost_usd(*tokens)
        return self.budget.reserve(requests=len(jobs), tokens=sum(tokens), usd=usd, noted=True)

    def _without(self, reserved: Amounts, jobs: Collection[_Job]) -> Amounts:
        """What was reserved for the other requests of a batch."""
        tokens = self.terms.bound(jobs)
        ours = amounts(len(jobs), sum(tokens), self.terms.cost_usd(*tokens))
        requests, tokens_left, pico_usd = (
            max(0, every - own) for every, own in zip(reserved, ours, strict=True)
        )
        return requests, tokens_left, pico_usd

    def _time_is_up(self) -> bool:
        nothing = self.budget.reserve(requests=0)
        if nothing is not None:
            self.budget.release(nothing)
        return nothing is None

    def _what_is_left(self) -> str:
        still_open = f"{self._left_open()}; " if self.open else ""
        return (
            f"the budget is reached ({self.budget.reached() or 'nothing more fits'}); "
            f"{self.lacking.done} samples are in the ledger, {self.lacking.left()} were not asked "
            f"for; {still_open}raise the budget and run the same command to go on"
        )

    # -- one batch -----------------------------------------------------------------------------

    async def _submit(self) -> bool:
        """Make a batch of what is to be asked next; False: nothing is, or there is no room."""
        if self.lacking and not self._tried:
            self._tried = await self._try_decoding()
            if not self._tried:
                self._full = True
                return False
        jobs: list[_Job] = []
        content, ends, path = bytearray(), [0], ""
        while len(jobs) < self._most_requests and (job := self.lacking.next()) is not None:
            path, body = self.backend.request(
                job.ask.prompt, len(job.keys), self.terms.decoding, first_sample=job.first
            )
            line = {"custom_id": job.keys[0], "method": "POST", "url": f"/v1{path}", "body": body}
            text = json.dumps(line, separators=(",", ":")).encode() + b"\n"
            if jobs and len(content) + len(text) > self.settings.bytes_per_batch:
                self.lacking.put_back([job])
                break
            jobs.append(job)
            content += text
            ends.append(len(content))
        fitting, reservation = len(jobs), None
        while fitting and (reservation := self._reserve(jobs[:fitting])) is None:
            # Of what is open the bound is reserved; when it is settled, more will fit.
            fitting = 0 if self.open else fitting // 2
        self.lacking.put_back(jobs[fitting:])
        if reservation is None:
            self._full = bool(jobs)
            return False
        del jobs[fitting:], content[ends[fitting] :]
        for job in jobs:
            job.attempts += 1
        requests = [(job.keys[0], len(job.keys), job.attempts) for job in jobs]
        batch = Batch(uuid.uuid4().hex, requests, path, total=fitting, reservation=reservation)
        batch.reserved = reservation.amounts  # the note says so before anything is sent
        batch.jobs = {job.keys[0]: job for job in jobs}
        self.open.append(batch)
        self._note(batch)
        name = f"symdistill-{batch.mark}.jsonl"
        batch.file_id = await self._heard(lambda: self.server.upload(content, name))
        self._note(batch)
        await self._create(batch)
        return True

    def _note(self, batch: Batch) -> None:
        self.ledger.remember(NOTE + batch.mark, batch.note())

    def _drop(self, mark: str) -> None:
        """Nothing of this batch is to come any more."""
        self.ledger.forget(NOTE + mark)
        self.budget.hold(NOTE + mark, (0, 0, 0))

    async def _create(self, batch: Batch) -> None:
        """Have the batch made of its file, unless it is there already."""
        if batch.id is not None:
            return
        file_id, mark = batch.file_id or "", batch.mark

        async def find_or_create() -> str:
            found = await self.server.find(file_id, mark) if batch.maybe_made else None
            batch.maybe_made = True
            window = self.settings.completion_window
            return found or await self.server.create(file_id, batch.path, window, mark)

        batch.id = await self._heard(find_or_create)
        self._note(batch)

    async def _look(self, batch: Batch) -> None:
        """See how far a batch is, and collect it when it has ended."""
        batch_id = batch.id or ""
        about = await self._heard(lambda: self.server.look(batch_id))
        counts = about.get("request_counts") or {}
        done = (counts.get("completed") or 0) + (counts.get("failed") or 0)
        if done != batch.done:
            batch.done, self._moved = done, time.monotonic()
        if about.get("status") not in ENDED:
            return
        for name in ("output_file_id", "error_file_id"):
            if isinstance(file_id := about.get(name), str):
                await self._read_file(batch, file_id)
        full = about["status"] == "failed" and queue_is_full(about)
        batch.end(about, self.terms)
        self._commit(batch)
        if batch.others:
            batch.requests, batch.reserved = batch.others, batch.reserved_for_others
            self._note(batch)
            self.budget.hold(NOTE + batch.mark, batch.reserved)
        else:
            self._drop(batch.mark)
        self.open.remove(batch)
        if batch.reservation is not None:
            self.budget.settle(
                batch.reservation,
                tokens=batch.tokens,
                usd=batch.usd,
                requests=batch.requests_kept,
            )
        self.lacking.ask_again(batch.again)
        self._full, self._moved = False, time.monotonic()
        if full:
            self._make_smaller(batch)
        if batch.error is not None:
            raise batch.error

    async def _read_file(self, batch: Batch, file_id: str) -> None:
        def take(line: bytes) -> None:
            batch.take(line, self.terms)
            if len(batch.calls) + len(batch.failed) >= COMMIT_ROWS:
                self._commit(batch)

        await self._heard(lambda: self.server.each_line(file_id, take))

    def _commit(self, batch: Batch) -> None:
        """Put into the ledger what was read."""
        self.ledger.record(batch.calls, batch.failed, batch.lost)
        ended: list[Call | FailedCall] = [*batch.calls, *batch.failed]
        self.lacking.committed([row.key for row in ended])
        batch.settle()

    def _make_smaller(self, batch: Batch) -> None:
        """The account has too many tokens waiting: fewer batches at once, then smaller ones."""
        if self.open:
            self._most_open, self._full = len(self.open), True
        elif batch.total > 1:
            self._most_requests = batch.total // 2
        else:
            batch.error = RunError(
                f"expected room for a batch at {self.backend.base_url}; got: too many tokens of "
                "this account are waiting there; run the same command when they are done"
            )


def _count(batches: Sequence[Batch]) -> str:
    return f"{len(batches)} batch{'es' * (len(batches) != 1)}"
