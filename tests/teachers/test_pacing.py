"""The pacer against simulated servers, in virtual time: what share of their limits is used."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symdistill.teachers.pacing import Pacer, retry_after

pytestmark = pytest.mark.world

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
    whim: float = 0.0  # this share is refused for no reason
    changes: dict[float, Callable[[Server], None]] = field(default_factory=dict)
    let_in: list[tuple[float, float]] = field(default_factory=list)  # when, tokens as counted
    refused: list[float] = field(default_factory=list)
    inside: int = 0
    free_at: list[float] = field(default_factory=list)

    def arrives(
        self, request: Request, now: float, dice: random.Random
    ) -> tuple[float | None, dict[str, str]]:
        """When it is answered, None: refused; and the headers."""
        for when in [when for when in self.changes if when <= now]:
            self.changes.pop(when)(self)
        asked = request.tokens_in + OUT_MAX
        used = request.tokens_in + request.tokens_out
        amount = {"asked": asked, "used": used, "later": request.tokens_in}[self.counts]
        needs = [(self.requests, 1), (self.tokens, amount)]
        waits = [limit.wait_s(need, now) for limit, need in needs if limit is not None]
        down = self.outage[0] <= now < self.outage[1]
        down = down or dice.random() < self.whim
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
    pacer = Pacer(
        most=most,
        start=start,
        rpm=rpm,
        tpm=tpm,
        round_trip_s=sum(network_s),
        clock=lambda: now,
        seed=seed,
    )
    dice, whims = random.Random(seed), random.Random(seed + 1)
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
            end, headers = server.arrives(request, now - 1000, whims)
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


# -- limits a minute. The ceiling is what a minute allows, times ten: a full bucket's first burst
# is not in it, so that shares above 1 mean that some of the burst was used. --------------------

R, T = 500, 150_000


def limited(window: str, unit: str, counts: str, **further: bool) -> Server:
    limit = WINDOWS[window](R if unit == "requests" else T)
    return Server(**{unit: limit}, counts=counts, **further)  # type: ignore[arg-type]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(
    ("unit", "counts", "share", "refusals"),
    [
        ("requests", "used", 0.96, 0.002),
        ("tokens", "used", 0.93, 0.006),
        ("tokens", "asked", 0.87, 0.02),
    ],
)
def test_stated_limits_are_used_and_kept(
    window: str, unit: str, counts: str, share: float, refusals: float
) -> None:
    stated = {"rpm": R} if unit == "requests" else {"tpm": T}
    played = play(limited(window, unit, counts), **stated)  # type: ignore[arg-type]
    assert played.share(R if unit == "requests" else T, unit == "tokens") >= share
    assert played.refusals <= refusals


@pytest.mark.parametrize("window", WINDOWS)
def test_limits_that_only_headers_tell_are_used_and_kept(window: str) -> None:
    played = play(limited(window, "requests", "used", headers=True, retry_after=True))
    assert played.share(R, False) >= 0.95
    assert played.refusals <= 0.004


@pytest.mark.parametrize(("counts", "refusals"), [("used", 0.002), ("asked", 0.01)])
def test_token_limits_in_headers_with_retry_after(counts: str, refusals: float) -> None:
    played = play(limited("full bucket", "tokens", counts, headers=True, retry_after=True))
    assert played.share(T, True) >= 0.95
    assert played.refusals <= refusals


@pytest.mark.parametrize("window", WINDOWS)
def test_limits_that_nobody_tells_are_found(window: str) -> None:
    played = play(limited(window, "requests", "used"))
    # What refuses all of the start at once is found out most slowly.
    assert played.share(R, False) >= (0.7 if window == "empty bucket" else 0.85)
    assert played.refusals < 0.03


@pytest.mark.parametrize("headers", [False, True])
@pytest.mark.parametrize(("before", "after"), [(600, 300), (300, 600)])
def test_limits_that_change_are_followed(before: int, after: int, headers: bool) -> None:
    def change(server: Server) -> None:
        assert server.requests is not None
        server.requests.a_minute = after

    server = Server(requests=Sliding(before), headers=headers, changes={300: change})
    played = play(server, seconds=780)
    assert played.share(after, False, since_s=420) >= 0.9
    assert played.refusals < 0.01


# -- requests in flight --------------------------------------------------------------------------


def test_fixed_latency_is_met_with_all_that_may_be_in_flight() -> None:
    played = play(
        Server(),
        requests=5000,
        draw=lambda dice: Request(50, 50, 0.05),
        network_s=(0, 0),
    )
    assert next(when for when, limit in played.limits if limit == 256) <= 2.01 * 0.05
    best_s = 20 * 0.05  # 5000 requests, 256 at once: 20 round trips
    assert best_s / played.seconds > 0.95


@pytest.mark.parametrize("slots", [8, 16])
def test_a_queue_is_noticed(slots: int) -> None:
    played = play(
        Server(slots=slots),
        draw=lambda dice: Request(50, 50, dice.uniform(0.8, 1.2)),
    )
    late = [limit for when, limit in played.limits if when > 300] + [played.limits[-1][1]]
    assert slots / 2 <= min(late) and max(late) <= 5 * slots
    assert len(played.answered) / (slots * played.seconds) > 0.95


def test_latency_that_varies_by_nature_holds_nothing_back() -> None:
    played = play(Server(), draw=any_latency)
    assert played.limits[-1][1] == 256
    assert min(limit for _, limit in played.limits) == 64
    assert next(when for when, limit in played.limits if limit == 256) < 45


@pytest.mark.parametrize("latency_s", [0.5, 10.0])
def test_an_outage_is_waited_for_and_left_behind(latency_s: float) -> None:
    server = Server(outage=(60, 120))
    played = play(server, draw=lambda dice: Request(50, 50, latency_s), seconds=300)

    def speed(begin_s: float, end_s: float) -> float:
        return sum(begin_s <= when < end_s for when in played.answered) / (end_s - begin_s)

    asked_during = sum(when > 61 for when in server.refused)
    assert asked_during < 30
    assert min(when for when in played.answered if when > 121) < 155 + latency_s
    assert speed(200, 300) > 0.8 * speed(30, 60)


@pytest.mark.parametrize("retry_after", [False, True])
@pytest.mark.parametrize(("latency_s", "best_s", "share"), [(0.05, 1.1, 0.9), (5.0, 110.0, 0.1)])
def test_refusals_without_a_reason_do_not_stop_it(
    latency_s: float, best_s: float, share: float, retry_after: bool
) -> None:
    played = play(
        Server(whim=0.1, retry_after=retry_after),
        requests=5000,
        seconds=3600,
        draw=lambda dice: Request(50, 50, latency_s),
        network_s=(0, 0.001),
    )
    assert len(played.answered) == 5000
    assert best_s / played.seconds > share


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def busy(clock: Clock, **settings: int) -> Pacer:
    """A pacer some round trips of 1 s later, with 100 in flight."""
    pacer = Pacer(most=100, start=100, clock=clock, **settings)
    for _ in range(5):
        for _ in range(100):
            pacer.sent(0)
        clock.now += 1
        for _ in range(100):
            pacer.answered(1.0, charged=0, tokens=0, in_flight=100, headers={})
    return pacer


def test_a_burst_of_refusals_is_one_event() -> None:
    clock = Clock()
    pacer = busy(clock)
    for _ in range(100):
        pacer.sent(0)
    for _ in range(100):
        clock.now += 0.001
        pacer.throttled(charged=0, after_s=None, headers={})
    assert pacer.limit == 50
    assert 0.2 < pacer.wait_s(0) < 0.7
    assert pacer.why.startswith("waiting 1 s")


def test_retry_after_stops_everything_for_so_long() -> None:
    clock = Clock()
    pacer = busy(clock)
    pacer.sent(0)
    pacer.throttled(charged=0, after_s=None, headers={"retry-after": "12"})
    assert 12 <= pacer.wait_s(0) <= 12.7
    assert pacer.why == "waiting 13 s: Retry-After"
    clock.now += pacer.wait_s(0)
    assert pacer.wait_s(0) == pytest.approx(0)
    pacer.sent(0)
    assert pacer.wait_s(0) > 0  # after a pause, one goes first


def test_what_is_said_of_the_pace() -> None:
    clock = Clock()
    assert busy(clock).why == "at its ceiling of 100"
    pacer = Pacer(most=10, rpm=500, clock=clock)
    pacer.sent(1)
    assert pacer.why == "paced at 500 requests a minute (stated)"
    assert pacer.wait_s(1) == pytest.approx(60 / 500 / 0.98)
    pacer.answered(
        1.0, charged=1, tokens=1, in_flight=1, headers={"x-ratelimit-limit-requests": "60"}
    )
    assert pacer.why == "paced at 60 requests a minute (told by the server)"


def test_a_limit_of_a_day_is_not_taken_for_one_of_a_minute() -> None:
    pacer = Pacer(most=10, clock=Clock())
    said = {"x-ratelimit-limit-requests": "10", "x-ratelimit-reset-requests": "3h20m"}
    pacer.sent(1)
    pacer.answered(1.0, charged=1, tokens=1, in_flight=1, headers=said)
    assert pacer.wait_s(1) == 0


def test_what_answers_come_to_is_learnt() -> None:
    pacer = Pacer(most=10, clock=Clock())
    assert pacer.tokens_to_charge(100, 300) == 400
    for _ in range(300):
        charge = pacer.tokens_to_charge(100, 300)
        pacer.sent(charge)
        pacer.answered(1.0, charged=charge, tokens=100, in_flight=1, headers={})
    assert pacer.tokens_to_charge(100, 300) == pytest.approx(100, rel=0.05)


@pytest.mark.parametrize("tokens", [-7, 0, 10**12])
def test_a_wrong_usage_does_not_stop_the_pace(tokens: int) -> None:
    clock = Clock()
    pacer = Pacer(most=10, tpm=60_000, clock=clock)
    for _ in range(20):
        clock.now += 1
        pacer.sent(charge := pacer.tokens_to_charge(100, 300))
        pacer.answered(1.0, charged=charge, tokens=tokens, in_flight=1, headers={})
    assert pacer.wait_s(400) < 20


# -- headers -------------------------------------------------------------------------------------

NOW = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "12"}, 12),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"}, 30),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:10 GMT"}, 0),
        ({"retry-after": "2023-11-14T22:14:20Z"}, 60),
        ({"retry-after": "6m0s"}, 360),
        ({"retry-after": "120ms"}, 0.12),
        ({"retry-after": "1h2m3.5s"}, 3723.5),
        ({"retry-after": "1700000005"}, 5),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "9" * 400}, 86_400),
        ({"retry-after": "in a while"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == (None if seconds is None else pytest.approx(seconds))


NAMES = [
    "retry-after",
    "retry-after-ms",
    "x-ratelimit-limit-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "anthropic-ratelimit-tokens-limit",
    "anthropic-ratelimit-tokens-reset",
]
VALUES = st.one_of(
    st.text(),
    st.floats().map(str),
    st.integers().map(str),
    st.datetimes().map(str),
    st.from_regex(r"(\d{1,400}(ms|[dhms]))+", fullmatch=True),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(NAMES), VALUES), max_size=5))
def test_no_header_breaks_it(replies: list[dict[str, str]]) -> None:
    clock = Clock()
    pacer = Pacer(most=10, clock=clock, wall_clock=lambda: NOW)
    for headers in replies:
        found = retry_after(headers, NOW)
        assert found is None or 0 <= found <= 86_400
        clock.now += 2
        pacer.sent(10)
        pacer.answered(1.0, charged=10, tokens=5, in_flight=1, headers=headers)
        pacer.sent(10)
        pacer.throttled(charged=10, after_s=None, headers=headers)
        assert 0 <= pacer.wait_s(10) < math.inf
        assert 1 <= pacer.limit <= 10
        assert pacer.why
