"""The pacer against simulated servers, in virtual time: what share of their limits is used."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from symdistill.teachers.pacing import Pacer

pytestmark = pytest.mark.unit

MINUTES = 10
BOUND_IN, OUT_MAX = 100, 600  # tokens; what a request really is: 20 to 80, 20 to 600


class Bucket:
    """Refills all the time; holds a minute's worth and is full at first, or holds little."""

    def __init__(self, a_minute: float, *, full: bool) -> None:
        self.a_minute, self.most = a_minute, a_minute if full else a_minute / 20
        self.level, self.at = (self.most if full else 0.0), 0.0

    def left(self, now: float) -> float:
        self.level = min(self.most, self.level + (now - self.at) * self.a_minute / 60)
        self.at = now
        return self.level

    def take(self, amount: float, now: float) -> None:
        self.level = self.left(now) - amount

    def wait_s(self, amount: float, now: float) -> float:
        return max(0.0, (amount - self.left(now)) * 60 / self.a_minute)

    def reset_s(self, now: float) -> float:
        return self.wait_s(self.most, now)


class Sliding:
    """What the last 60 s took is gone."""

    def __init__(self, a_minute: float) -> None:
        self.a_minute, self.used, self.taken = a_minute, 0.0, deque()

    def left(self, now: float) -> float:
        while self.taken and self.taken[0][0] <= now - 60:
            self.used -= self.taken.popleft()[1]
        return self.a_minute - self.used

    def take(self, amount: float, now: float) -> None:
        self.used += amount
        self.taken.append((now, amount))

    def wait_s(self, amount: float, now: float) -> float:
        short = amount - self.left(now)
        for when, of in self.taken if short > 0 else ():
            short -= of
            if short <= 0:
                return when + 60 - now
        return 0.0

    def reset_s(self, now: float) -> float:
        return self.taken[-1][0] + 60 - now if self.taken else 0.0


class Fixed(Sliding):
    """Starts anew every minute of the server's clock, which began 25 s before ours."""

    def left(self, now: float) -> float:
        if not self.taken or (now + 25) // 60 > self.taken[0]:
            self.used = 0.0
            self.taken = deque([(now + 25) // 60])
        return self.a_minute - self.used

    def take(self, amount: float, now: float) -> None:
        self.used += amount

    def wait_s(self, amount: float, now: float) -> float:
        return self.reset_s(now) if amount > self.left(now) else 0.0

    def reset_s(self, now: float) -> float:
        return 60 - (now + 25) % 60


WINDOWS: dict[str, Callable[[float], Bucket | Sliding]] = {
    "full bucket": lambda a_minute: Bucket(a_minute, full=True),
    "empty bucket": lambda a_minute: Bucket(a_minute, full=False),
    "sliding": Sliding,
    "fixed": Fixed,
}


@dataclass
class Request:
    tokens_in: int
    tokens_out: int
    latency_s: float
    charged: float = 0.0
    sent_at: float = 0.0
    in_flight: int = 0


@dataclass
class Server:
    """Lets in what its limits allow; `counts` tokens as asked for, used, or used when answered."""

    requests: Bucket | Sliding | None = None
    tokens: Bucket | Sliding | None = None
    counts: str = "used"
    headers: bool = False
    retry_after: bool = False
    slots: int | None = None  # this many at once; the others queue
    at_once: int | None = None  # more than this many at once are refused
    outage: tuple[float, float] = (0.0, 0.0)
    changes: dict[float, Callable[[Server], None]] = field(default_factory=dict)
    let_in: list[tuple[float, float]] = field(default_factory=list)  # when, tokens as counted
    refused: list[float] = field(default_factory=list)
    inside: int = 0
    free_at: list[float] = field(default_factory=list)

    def arrives(self, request: Request, now: float) -> tuple[float | None, dict[str, str]]:
        """When it is answered, None: refused; and the headers."""
        for when in [when for when in self.changes if when <= now]:
            self.changes.pop(when)(self)
        asked = request.tokens_in + OUT_MAX
        used = request.tokens_in + request.tokens_out
        amount = {"asked": asked, "used": used, "later": request.tokens_in}[self.counts]
        needs = [(self.requests, 1), (self.tokens, amount)]
        waits = [limit.wait_s(need, now) for limit, need in needs if limit is not None]
        down = self.outage[0] <= now < self.outage[1]
        crowded = self.at_once is not None and self.inside >= self.at_once
        if down or crowded or any(wait > 0 for wait in waits):
            self.refused.append(now)
            said = self._told(now)
            if self.retry_after:
                said["retry-after"] = str(int(max(waits, default=0.0)) + 1)
            return None, said
        for limit, need in needs:
            if limit is not None:
                limit.take(need, now)
        self.let_in.append((now, asked if self.counts == "asked" else used))
        self.inside += 1
        start = now
        if self.slots is not None:
            if len(self.free_at) >= self.slots:
                start = max(now, heapq.heappop(self.free_at))
            heapq.heappush(self.free_at, start + request.latency_s)
        return start + request.latency_s, self._told(now)

    def answers(self, request: Request, now: float) -> None:
        self.inside -= 1
        if self.counts == "later" and self.tokens is not None:
            self.tokens.take(request.tokens_out, now)

    def _told(self, now: float) -> dict[str, str]:
        said = {}
        for name, limit in (("requests", self.requests), ("tokens", self.tokens)):
            if self.headers and limit is not None:
                said[f"x-ratelimit-limit-{name}"] = f"{limit.a_minute:.0f}"
                said[f"x-ratelimit-remaining-{name}"] = f"{max(0.0, limit.left(now)):.0f}"
                said[f"x-ratelimit-reset-{name}"] = f"{limit.reset_s(now) * 1000:.0f}ms"
        return said


@dataclass
class Played:
    server: Server
    seconds: float
    limits: list[tuple[float, int]]  # when, the pacer's limit
    answered: list[float]  # when
    whys: set[str]

    def share(self, a_minute: float, tokens: bool, since_s: float = 0.0) -> float:
        got = sum(of if tokens else 1 for at, of in self.server.let_in if at >= since_s)
        return got / (a_minute * (self.seconds - since_s) / 60)

    @property
    def refusals(self) -> float:
        refused = len(self.server.refused)
        return refused / max(1, refused + len(self.server.let_in))


def long_answers(dice: random.Random) -> Request:
    """1 to 30 s, by the size of the answer."""
    tokens_out = dice.randint(20, OUT_MAX)
    return Request(dice.randint(20, 80), tokens_out, 1 + 29 * (tokens_out - 20) / (OUT_MAX - 20))


def any_latency(dice: random.Random) -> Request:
    """1 to 30 s, whatever the size."""
    return Request(dice.randint(20, 80), dice.randint(20, OUT_MAX), dice.uniform(1, 30))


def play(
    server: Server,
    *,
    most: int = 256,
    start: int = 64,
    rpm: int | None = None,
    tpm: int | None = None,
    seconds: float = MINUTES * 60,
    requests: float = float("inf"),
    draw: Callable[[random.Random], Request] = long_answers,
    network_s: tuple[float, float] = (0.02, 0.08),
    seed: int = 0,
) -> Played:
    """Send as the pacer says, for so many seconds or requests."""
    now = 1000.0  # of the client's clock; the server's is 0 then
    pacer = Pacer(most=most, start=start, rpm=rpm, tpm=tpm, clock=lambda: now, seed=seed)
    dice = random.Random(seed)
    events: list[tuple[float, int, str, Request | None, dict[str, str]]] = []
    order = itertools.count()
    in_flight, waking, left = 0, float("inf"), requests
    played = Played(server, seconds, [], [], set())

    def at(when: float, what: str, request: Request | None, headers: dict[str, str]) -> None:
        heapq.heappush(events, (when, next(order), what, request, headers))

    at(now, "wake", None, {})
    while events and events[0][0] <= 1000 + seconds:
        now, _, what, request, headers = heapq.heappop(events)
        if what == "wake":
            waking = float("inf")
        elif what == "arrives":
            end, headers = server.arrives(request, now - 1000)
            if end is None:
                at(now + dice.uniform(*network_s), "refused", request, headers)
            else:
                at(end + 1000, "done", request, headers)
        elif what == "done":
            server.answers(request, now - 1000)
            at(now + dice.uniform(*network_s), "answered", request, headers)
        elif what == "answered":
            pacer.answered(
                now - request.sent_at,
                charged=request.charged,
                tokens=request.tokens_in + request.tokens_out,
                in_flight=in_flight,
                headers=headers,
            )
            in_flight -= 1
            played.answered.append(now - 1000)
        else:
            pacer.throttled(charged=request.charged, after_s=None, headers=headers)
            in_flight -= 1
            left += 1
        while left > 0 and in_flight < pacer.limit:
            charge = pacer.tokens_to_charge(BOUND_IN, OUT_MAX)
            if (wait_s := pacer.wait_s(charge)) > 0:
                if now + wait_s < waking:
                    waking = now + wait_s
                    at(waking, "wake", None, {})
                break
            pacer.sent(charge)
            left -= 1
            in_flight += 1
            fresh = draw(dice)
            fresh.charged, fresh.sent_at = charge, now
            at(now + dice.uniform(*network_s), "arrives", fresh, {})
        if not played.limits or played.limits[-1][1] != pacer.limit:
            played.limits.append((now - 1000, pacer.limit))
            played.whys.add(pacer.why)
    if requests < float("inf"):
        played.seconds = now - 1000
    return played
