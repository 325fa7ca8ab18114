"""What is still to be asked in batches: samples that neither the ledger has nor a batch will bring.

Takes asks and a ledger; gives requests, in the order of the asks, and the batches of an earlier
process that hold some of them already. Of asks that come from a function only a block is held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from symdistill.ledger import Ledger
from symdistill.teachers.base import Ask, output_bound
from symdistill.teachers.batch import Batch, Request
from symdistill.teachers.sending import _Job, blocks

if TYPE_CHECKING:
    from symdistill.teachers.asking import Keys
    from symdistill.teachers.openai import OpenAIBackend

NOTE = "batch:"  # what the names of the notes of batches begin with


class Lacking:
    """The requests that are still to be made; true while there are some.

    `done` counts the samples that are in the ledger, as far as it was looked at.
    """

    def __init__(
        self,
        backend: OpenAIBackend,
        every: Callable[[], Iterable[Ask]],
        keys: Keys,
        ledger: Ledger,
    ) -> None:
        self.done = 0
        self._backend = backend
        self._every = every
        self._keys = keys
        self._ledger = ledger
        self._output_bound = output_bound(keys.decoding)
        self._waiting: deque[_Job] = deque()  # to go before the fresh ones
        self._fresh = self._missing()
        self._asked: set[str] = set()  # keys under way since the last look into the ledger
        self._committed: list[str] = []

    def noted(self, drop: Callable[[str], None]) -> list[Batch]:
        """The batches of an earlier process that hold requests of ours; to be called first.

        Args:
            drop: is called with the marks of those that need no look any more.
        """
        noted: dict[str, tuple[Batch, Request]] = {}
        for name, note in self._ledger.recall(NOTE).items():
            mark = name.removeprefix(NOTE)
            known = self._ledger.known([first for first, _, _ in note["requests"]])
            lacking = [one for one in note["requests"] if one[0] not in known]
            if not lacking or note["file_id"] is None:  # all is kept, or no batch was made
                drop(mark)
                continue
            batch = Batch(mark, maybe_made=True, **note)
            noted |= {one[0]: (batch, tuple(one)) for one in lacking}
        found: list[Batch] = []
        for block in blocks(self._every()) if noted else ():
            for one, index, key in self._samples(block):
                if key not in noted:
                    continue
                batch, (_, samples, attempts) = noted.pop(key)
                whole = Ask(one.prompt, one.item_id, samples, index)
                bound = self._backend.tokens_bound(one.prompt) + self._output_bound
                batch.jobs[key] = _Job(whole, self._keys.of(whole), index, bound, attempts)
                batch.total += 1
                self._asked.update(batch.jobs[key].keys)
                if batch not in found:
                    found.append(batch)
        for batch, request in noted.values():
            batch.others.append(request)
        return found

    def next(self) -> _Job | None:
        """The next request, of no more samples than the server takes at once."""
        job = self._waiting.popleft() if self._waiting else next(self._fresh, None)
        most = self._backend.samples_per_request
        if job is not None and len(job.keys) > most:
            rest = _Job(job.ask, job.keys[most:], job.first + most, job.bound_in, job.attempts)
            self._waiting.appendleft(rest)
            job.keys = job.keys[:most]
        return job

    def put_back(self, jobs: Sequence[_Job]) -> None:
        """These were not asked after all: they are the next ones, in this order."""
        self._waiting.extendleft(reversed(jobs))

    def ask_again(self, jobs: Sequence[_Job]) -> None:
        """These came back without an answer."""
        self._waiting.extend(jobs)

    def committed(self, keys: Sequence[str]) -> None:
        """The ledger has these now."""
        self.done += len(keys)
        self._committed += keys

    def left(self) -> int:
        """How many samples are still to be asked for; they are used up by counting."""
        samples = 0
        while (job := self.next()) is not None:
            samples += len(job.keys)
        return samples

    def __bool__(self) -> bool:
        if not self._waiting and (job := next(self._fresh, None)) is not None:
            self._waiting.append(job)
        return bool(self._waiting)

    def _samples(self, block: Iterable[Ask]) -> Iterator[tuple[Ask, int, str]]:
        for one in block:
            for index, key in enumerate(self._keys.of(one), one.first_sample):
                yield one, index, key

    def _missing(self) -> Iterator[_Job]:
        """A request for each row of samples that are neither in the ledger nor under way.

        A key stays in `_asked` until a look into the ledger has begun after its commit.
        """
        for block in blocks(self._every()):
            self._asked.difference_update(self._committed)
            self._committed.clear()
            samples = list(self._samples(block))
            known = self._ledger.known([key for _, _, key in samples])
            job: _Job | None = None
            for one, index, key in samples:
                if key in known or key in self._asked:
                    self.done += key in known
                    continue
                self._asked.add(key)
                if job and job.ask is one and job.first + len(job.keys) == index:
                    job.keys = [*job.keys, key]
                    continue
                if job:
                    yield job
                bound = self._backend.tokens_bound(one.prompt) + self._output_bound
                job = _Job(one, [key], index, bound)
            if job:
                yield job
