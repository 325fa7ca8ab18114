"""A teacher that is a Python function: for tests, and for trying a recipe without a model.

    teacher = ScriptedBackend(lambda prompt, sample: f"answer {sample}")

It can be told to take its time, to allow only so many requests, and to fail: a given sequence of
outcomes first, then a share of all requests. What fails is drawn from the seed, the prompt and
the attempt, so it does not depend on which requests are in flight together. The function may also
raise `Again`, `NoAnswer`, `InputError` or `RunError` itself.

Tokens are counted as words between white space, in prompts and answers. `max_new_tokens` and
`stop` are kept to; the other settings of a `Decoding` change nothing here.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from symdistill.records import content_hash
from symdistill.teachers.base import Again, Decoding, Price, Prompt, Replies, Reply

Script = Callable[[Prompt, int], str | Reply]
"""(prompt, sample index) -> answer. It is called on the event loop and should be quick."""

Fault = Exception
"""What a request ends in: `Again`, `NoAnswer`, `InputError` or `RunError`."""


class ScriptedBackend:
    """A backend whose answers a function gives.

    Args:
        script: called for each sample; a `Reply` is passed on as it is.
        name: enters the requests' keys; give another when the function changes, or a ledger
            answers with what the old one said.
        price: as for any teacher; by default nothing is billed.
        delay_s: seconds that every request takes.
        faults: what the first requests end in, in the order sent; None: an answer.
        shares: of the requests after those, shares (0..1, together at most 1) and what they end
            in: `[(0.1, Again("429", throttled=True, after_s=1)), (0.05, Again("500"))]`.
        limit: (requests, seconds): what is above so many in so many seconds is told to come
            again, with the time when.
        samples_per_request: how many samples it gives at once.
        seed: of the faults.

    Attributes:
        requests: how many it got, failed ones included.
    """

    def __init__(
        self,
        script: Script,
        *,
        name: str = "scripted",
        price: Price | None = Price(input=0, output=0),  # noqa: B008 - it cannot be changed
        delay_s: float = 0.0,
        faults: Sequence[Fault | None] = (),
        shares: Sequence[tuple[float, Fault]] = (),
        limit: tuple[int, float] | None = None,
        samples_per_request: int = 8,
        seed: int = 0,
    ) -> None:
        if not 0 <= sum(share for share, _ in shares) <= 1:
            raise ValueError(f"expected shares of at most 1 together; got {shares}")
        self.name = name
        self.identity: Mapping[str, Any] = {"scripted": name}
        self.price = price
        self.samples_per_request = samples_per_request
        self.at_once: int | None = None
        self.notes: list[str] = []
        self.requests = 0
        self._script = script
        self._delay_s = delay_s
        self._faults = deque(faults)
        self._shares = shares
        self._limit = limit
        self._seed = seed
        self._attempts: Counter[str] = Counter()  # of the requests that failed so far
        self._recent: deque[float] = deque()  # when the requests within the limit came

    async def start(self) -> None:
        """Nothing to open."""

    async def check(self, decoding: Decoding) -> None:
        """Any decoding will do."""

    async def close(self) -> None:
        """Nothing to give back."""

    def tokens_bound(self, prompt: Prompt) -> int:
        """The prompt's words."""
        return words(prompt)

    async def send(
        self, prompt: Prompt, samples: int, decoding: Decoding, *, first_sample: int = 0
    ) -> Replies:
        """The function's answers, or the fault that is due."""
        self.requests += 1
        self._keep_to_limit()
        fault = self._fault(prompt, first_sample)
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        if fault is not None:
            raise fault.with_traceback(None)  # it is raised many times, and would keep them all
        samples = min(samples, self.samples_per_request)
        replies = [
            _reply(self._script(prompt, index), decoding)
            for index in range(first_sample, first_sample + samples)
        ]
        return Replies(replies, tokens_in=words(prompt))

    def _keep_to_limit(self) -> None:
        if self._limit is None:
            return
        most, seconds = self._limit
        now = time.monotonic()
        while self._recent and self._recent[0] <= now - seconds:
            self._recent.popleft()
        if len(self._recent) >= most:
            after_s = self._recent[0] + seconds - now
            raise Again("429 Too Many Requests", throttled=True, after_s=after_s)
        self._recent.append(now)

    def _fault(self, prompt: Prompt, first_sample: int) -> Fault | None:
        if self._faults:
            return self._faults.popleft()
        if not self._shares:
            return None
        request = content_hash([self._seed, prompt, first_sample])
        drawn = random.Random(f"{request} {self._attempts[request]}").random()
        for share, fault in self._shares:
            if drawn < share:
                self._attempts[request] += 1
                return fault
            drawn -= share
        return None


def echo(prompt: Prompt, sample: int) -> str:
    """The prompt's last text."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


SHIPPED: Mapping[str, Script] = {"echo": echo}
"""The scripts that a configuration can name: `scripted:echo`."""


def words(prompt: Prompt) -> int:
    """Words between white space, of all of a chat's messages."""
    texts = [prompt] if isinstance(prompt, str) else [one["content"] for one in prompt]
    return sum(len(text.split()) for text in texts)


def _reply(said: str | Reply, decoding: Decoding) -> Reply:
    if isinstance(said, Reply):
        return said
    text = said[: min((at for mark in decoding.stop if (at := said.find(mark)) >= 0), default=None)]
    spans = [found.end() for found in re.finditer(r"\S+", text)]
    if len(spans) > decoding.max_new_tokens:
        return Reply(text[: spans[decoding.max_new_tokens - 1]], "length", decoding.max_new_tokens)
    return Reply(text, "stop", len(spans))
