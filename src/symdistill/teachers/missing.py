"""What is still to be asked directly: the samples that the ledger does not hold, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from symdistill.ledger import Ledger
from symdistill.teachers.base import Ask, Backend, output_bound
from symdistill.teachers.sending import _Job, blocks

if TYPE_CHECKING:
    from symdistill.teachers.asking import Keys

_Known = tuple[list[tuple[Ask, list[str]]], set[str]]
"""A block of asks, each with its keys; and those of all these keys that the ledger holds."""


class Missing:
    """The requests to make; `cached` counts the samples that need none, as far as was looked."""

    def __init__(
        self, backend: Backend, every: Callable[[], Iterable[Ask]], keys: Keys, ledger: Ledger
    ) -> None:
        self.cached = 0
        self.committed: list[str] = []  # keys; who commits some adds them
        self._open: set[str] = set()  # keys asked for since the last look into the ledger
        self._backend = backend
        self._every = every
        self._keys = keys
        self._ledger = ledger
        self._output_bound = output_bound(keys.decoding)

    async def jobs(self) -> AsyncIterator[list[_Job]]:
        """The requests to make, in blocks: samples that the ledger does not hold, in order.

        The next block is looked up while the last is being sent. A key stays in `_open` until a
        lookup has begun after its commit, so none is asked for twice.
        """
        ahead: asyncio.Task[_Known | None] | None = None
        left = blocks(self._every())

        def look() -> asyncio.Task[_Known | None]:
            self._open.difference_update(self.committed)
            self.committed.clear()
            return asyncio.create_task(asyncio.to_thread(self._look_up, left))

        try:
            ahead = look()
            while (found := await ahead) is not None:
                named, known = found
                ready = []
                for one, some in named:
                    missing = [
                        (index, key)
                        for index, key in enumerate(some, one.first_sample)
                        if key not in known and key not in self._open
                    ]
                    self.cached += len(some) - len(missing)
                    self._open.update(key for _, key in missing)
                    ready += self._requests(one, missing)
                ahead = look()
                if ready:
                    yield ready
        finally:
            if ahead is not None:
                ahead.cancel()

    def _look_up(self, left: Iterator[list[Ask]]) -> _Known | None:
        block = next(left, None)
        if block is None:
            return None
        named = [(one, self._keys.of(one)) for one in block]
        return named, self._ledger.known([key for _, some in named for key in some])

    def _requests(self, one: Ask, missing: Sequence[tuple[int, str]]) -> list[_Job]:
        """The missing samples of an ask, in as few requests as the backend allows."""
        jobs: list[_Job] = []
        # At most so many tokens are billed for the prompt and the form of the output.
        bound = self._backend.tokens_bound(one.prompt) + self._output_bound if missing else 0
        most = max(1, self._backend.samples_per_request)
        for index, key in missing:
            last = jobs[-1] if jobs else None
            if last and last.first + len(last.keys) == index and len(last.keys) < most:
                last.keys = [*last.keys, key]
            else:
                jobs.append(_Job(one, [key], index, bound))
        return jobs
