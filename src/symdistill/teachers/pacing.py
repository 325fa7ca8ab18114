"""How many requests may be in flight at once, and how fast they go out.

Takes what happened: a request went out, was answered, was refused (429, 503), came to nothing.
Gives `Pacer.limit` (requests in flight), `Pacer.wait_s` (when the next may go), and why.

In flight: doubles per round trip at first, for as long as more at once means more answers a
second. When it does not, the server queues: fewer at once are tried, and kept where the answers
come as fast as before. A refusal halves it. Latency that differs from request to request by its
nature changes none of this, as throughput decides.

Pace: limits of requests and tokens a minute, as the user states them or the server tells them in
headers, are spread evenly over the minute; so it does not matter whether the server counts by a
bucket, a sliding window or by the clock. A refusal shows what it lets in when nothing is stated
(or counts otherwise than we do: `max_tokens` for what was used, say): what it let in during the
last minute, or since the last refusal. The pace found so is kept, and grows slowly at first.
Refusals that come whatever the pace is are in the end put down to chance.

Does not: send, sleep, retry, or know one request from another.
"""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

SHARE = 0.98  # of a limit that is used; the rest is for clocks and networks that vary
CATCH_UP_S = 0.5  # so much of a pace that was not used may be made up for at once
# A pace that was found grows by so much times the cube of its age in seconds: 3 % in 90 s where it
# was measured, in 60 s where a known limit was lowered, in 50 s where nothing else is known.
MEASURED, LOWERED, GUESSED = 4e-8, 1.5e-7, 2.5e-7
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0  # after refusals without Retry-After
SOON_S, SOON_SENT = 10.0, 30  # after a refusal, in seconds or requests: another belongs to it
RAMP_S = 0.2  # after a pause, twice as many requests may be out every so often
START_REQUESTS = 64  # at the very start, these go out at twice as many every round trip
AT_ONCE = 4  # so few sent since the last pause: a refusal says that nothing was let in
# Times that fewer were sent and it refused again: it does so whatever is sent. More times where a
# limit is known, as it may count otherwise than we do.
IN_VAIN, IN_VAIN_KNOWN = 7, 14
CHANCE, LATELY = 0.2, 256  # where refusals may be chance: up to this share, of about so many
CHANCE_AT_FIRST = 0.3  # before anything was answered
A_DAY_S = 86_400.0
SLOT_S, SLOTS = 5, 12  # the last minute, as it is remembered


class Pacer:
    """How hard a teacher is asked.

    Every request for which `sent` was called must end in one call of `answered`, `throttled` or
    `dropped`. All calls take a microsecond or two, and none waits.

    Args:
        most: requests in flight, at most; >= 1.
        start: requests in flight at first, where `most` allows it.
        rpm, tpm: requests and tokens a minute that the user states; None: whatever the server
            tells or shows.
        round_trip_s: until a refusal is heard, about.
        clock: seconds that only go forward.
        wall_clock: seconds since 1970, for headers that hold dates.
        seed: of the jitter in pauses.
    """

    def __init__(
        self,
        *,
        most: int,
        start: int = 64,
        rpm: int | None = None,
        tpm: int | None = None,
        round_trip_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        seed: int = 0,
    ) -> None:
        self.limit = max(1, min(start, most))
        self._most = most
        self._clock, self._wall_clock, self._random = clock, wall_clock, random.Random(seed)
        now = clock()
        self._requests = _Pace("requests", rpm, now)
        self._tokens = _Pace("tokens", tpm, now)
        self._read_headers_at = now
        self._bound, self._used = _Mean(), _Mean()  # tokens of a request: most, and in truth
        # Refusals.
        self._resume = now - SOON_S  # nothing goes out before
        self._said = ""  # who asked for the pause
        self._since = AT_ONCE + 1  # requests sent since the pause
        self.round_trip_s = round_trip_s
        self._first, self._began = 0, now  # requests sent, since when
        self._limit_before = self.limit  # the first of them
        self._streak = 0  # refusals that came soon after another
        self._lately_sent = self._lately_refused = 0.0  # of some hundreds, since the last pause
        self._shut = 0  # and with nothing let in between
        self._paced_at = -math.inf  # last time that a pace held a request back
        self._halved_at = -math.inf
        # Requests in flight.
        self._limits_known = False
        self._latency = _Mean()
        self._reason = "rising while latency holds"
        self._rise_to = most  # by doubling; slower from there
        self._before: tuple[int, float] | None = None  # limit and answers/s of the last round
        self._tried: tuple[int, float, float] | None = None  # the same, and latency: if lowered
        self._best_s = math.inf  # mean latency of the best round
        self._peak = 0  # in flight, in this round
        self._begin_round(now)
        self._look_for_limits()

    @property
    def why(self) -> str:
        """Why `limit` and the pace are what they are, in a few words."""
        now = self._clock()
        if now < self._resume:
            return f"waiting {math.ceil(self._resume - now)} s: {self._said}"
        for pace in sorted((self._requests, self._tokens), key=lambda one: -one.next_s):
            if pace.next_s > now - 0.05 and pace.rate(now) < math.inf:
                return pace.words(now)
        if self.limit >= self._most:
            return f"at its ceiling of {self._most}"
        return self._reason

    def wait_s(self, tokens: float) -> float:
        """Seconds until a request may go out; 0.0: now, where fewer than `limit` are in flight."""
        ready = self._resume
        if self._since < 1000:
            ready += RAMP_S * math.log2(1 + self._since)
        if self._first < START_REQUESTS:  # a first refusal should be heard before many go out
            doublings = math.log2(max(1.0, self._first / AT_ONCE))
            ready = max(ready, self._began + self.round_trip_s * doublings)
        now, paced = self._clock(), max(self._requests.next_s, self._tokens.next_s)
        if paced > max(now, ready):
            self._paced_at = now
        return max(0.0, max(ready, paced) - now)

    def tokens_to_charge(self, tokens_in_bound: float, tokens_out_max: float) -> float:
        """The tokens that a request will probably count for, from its upper bounds."""
        return (tokens_in_bound + tokens_out_max) * self._used_share()

    def sent(self, tokens: float) -> None:
        """A request went out, charged with so many tokens."""
        now = self._clock()
        self._since += 1
        self._first += 1
        self._lately_sent += 1 - self._lately_sent / LATELY
        self._lately_refused -= self._lately_refused / LATELY
        self._requests.take(1, now)
        self._tokens.take(tokens, now)
        self._bound.add(tokens / self._used_share())

    def answered(
        self,
        latency_s: float,
        *,
        charged: float,
        tokens: float,
        in_flight: int,
        headers: Mapping[str, str],
    ) -> None:
        """A request was answered.

        Args:
            latency_s: from `sent` until now.
            charged: what `sent` was told.
            tokens: what it came to, as the server counts.
            in_flight: requests that were, this one included.
            headers: of the reply, names in lower case.
        """
        now = self._clock()
        tokens = min(max(tokens, 0.0), 2 * charged / self._used_share())  # servers say anything
        self._used.add(tokens)
        self._tokens.correct(tokens - charged, now)
        if headers and now >= self._read_headers_at:
            self._read(headers, now)
        self._latency.add(latency_s)
        self._answers += 1
        self._latency_sum_s += latency_s
        self._peak = max(self._peak, in_flight)
        if self.limit < min(self._rise_to, 2 * self._peak) and self._tried is None:
            self.limit += 1
        if self._answers >= self._round_answers:
            self._end_round(now)

    def throttled(
        self, *, charged: float, after_s: float | None, headers: Mapping[str, str]
    ) -> None:
        """A request was refused with 429 or 503; `after_s` is the server's word on when to come
        back. Refusals that come while nothing is sent are one event.
        """
        now = self._clock()
        self._requests.refused(1, now)
        self._tokens.refused(charged, now)
        if after_s is None:
            after_s = retry_after(headers, self._wall_clock())
        self._lately_refused += 1
        least = AT_ONCE if self._in_vain else 0
        chance = 2 + CHANCE * self._lately_sent
        if not self._latency.count:  # a server that refuses at once gets no more to refuse
            chance = CHANCE_AT_FIRST * self._lately_sent
        if self._lately_refused < max(least, chance) and self._by_chance(now):
            if not self._latency.count:
                self._first, self._began = 0, now + 4 * self.round_trip_s  # start again, from few
            return
        if self._in_vain:
            self._streak = 0  # so many are refused that it is not by chance
        soon = now - self._resume < SOON_S or self._since < SOON_SENT
        if after_s and now + after_s > self._resume:
            self._resume = now + after_s * self._random.uniform(1.0, 1.05)
            self._said = "Retry-After"
            new = self._since > 0
        else:
            new = now >= self._resume and self._since > 0
        if not new:
            return
        if headers:
            self._read(headers, now)
        nothing_let_in = self._since <= AT_ONCE
        self._streak = self._streak + 1 if soon else 0
        if not self._streak:
            self._limit_before = self.limit
        self._shut = self._shut + 1 if nothing_let_in else 0
        if not after_s:
            doublings = max(self._shut, min(self._streak, 2))
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(doublings, 10))
            self._resume = now + pause_s * self._random.uniform(0.8, 1.2)
            self._said = "the server refuses"
        if self._requests.last_minute(now) >= 5 and self._shut < 2:
            by_tokens = self._tokens.next_s > self._requests.next_s
            by_tokens = by_tokens and self._tokens.rate(now) < math.inf
            (self._tokens if by_tokens else self._requests).find(now, nothing_let_in)
        # It was the pace then, not the number in flight.
        paced = self._limits_known or now - self._paced_at < 2.0
        round_trip_s = self._latency.value if self._latency.count else math.inf
        if not (paced or nothing_let_in) and now - self._halved_at >= round_trip_s:
            self._halved_at = now
            self.limit = max(1, self.limit // 2)
            self._reason = "halved: the server refused a request"
            self._tried = self._before = None
            self._begin_round(now)
        self._since = 0
        self._lately_sent = self._lately_refused = 0.0
        if self._in_vain and not nothing_let_in:
            self._requests.forget()
            self._tokens.forget()
            self.limit = max(self.limit, self._limit_before)

    def dropped(self, *, charged: float) -> None:
        """A request came to nothing in another way. The server may have counted it: so do we."""

    @property
    def _in_vain(self) -> bool:
        """Whether it refused some again and again, however few were sent."""
        known = min(self._requests.known, self._tokens.known) < math.inf
        return self._streak >= (IN_VAIN_KNOWN if known else IN_VAIN)

    def _by_chance(self, now: float) -> bool:
        """Whether a few refusals say nothing of the pace: lowering it did not help, or the server
        is fast and has never refused in earnest, which it would do to nearly all at once.
        """
        rate = min(self._requests.rate(now), self._tokens.rate(now))
        return self._in_vain or (self._latency.value < 1 and rate == math.inf)

    def _used_share(self) -> float:
        """Of the most tokens that a request may count for, the share that it probably does."""
        if self._used.count < 10 or self._bound.value <= 0:
            return 1.0
        return min(1.0, max(0.01, self._used.value / self._bound.value))

    def _read(self, headers: Mapping[str, str], now: float) -> None:
        """The limits that the server tells; looked at once a second."""
        self._read_headers_at = now + 1.0
        for pace in (self._requests, self._tokens):
            for limit, reset in pace.headers:
                if limit in headers:
                    until_s = _seconds(headers.get(reset, ""), self._wall_clock())
                    pace.told(_number(headers[limit]), until_s, now)
        self._look_for_limits()

    def _look_for_limits(self) -> None:
        """Where so many requests a minute are allowed, and tokens enough for them, that decides,
        and not how many are in flight.
        """
        known = self._requests.known < math.inf
        if self._tokens.known < math.inf:
            needed = self._requests.known * self._bound.value
            known = known and self._bound.count > 0 and needed <= self._tokens.known
        if known and not self._limits_known:
            self.limit = self._limit_before = self._rise_to = self._most
        self._limits_known = known

    def _begin_round(self, now: float) -> None:
        """A round has about as many answers as requests are in flight: it takes a round trip."""
        self._round_at = now
        self._round_answers = min(128, max(16, self.limit))
        self._round_limit = self.limit
        self._answers, self._latency_sum_s, self._peak = 0, 0.0, 0
        self._settling = False

    def _end_round(self, now: float) -> None:
        """Look at what the number in flight brought, and choose the next."""
        speed = self._answers / max(1e-9, now - self._round_at)
        latency_s = self._latency_sum_s / self._answers
        held_back = self._peak >= 0.9 * self._round_limit  # by the limit, not by the pace
        settling, before = self._settling, self.limit
        if settling or not held_back:
            pass
        elif self._tried is not None:
            limit, its_speed, its_latency_s = self._tried
            if speed >= 0.92 * its_speed and self.limit > 1:
                self._lower(0.5, speed, latency_s)
            else:
                self.limit, self._best_s, self._tried = limit, its_latency_s, None
        elif self.limit > self._round_limit:
            its_limit, its_speed = self._before or (self.limit, 0.0)
            gain = self.limit / its_limit - 1
            if gain > 0.2 and speed < its_speed * (1 + 0.3 * gain):
                self._lower(0.5, speed, latency_s)
            else:
                self._before = (before, speed)
        else:
            self._before = None
            self._best_s = min(self._best_s, latency_s)
            if latency_s > 1.5 * self._best_s and self.limit > 1:
                self._lower(0.7, speed, latency_s)
            elif latency_s <= 1.25 * self._best_s and self.limit < self._most:
                self.limit = min(self._most, self.limit + max(1, self.limit // 4))
                self._reason = "rising while latency holds"
        self._begin_round(now)
        self._settling = self.limit != before and self._before is None

    def _lower(self, factor: float, speed: float, latency_s: float) -> None:
        """Try fewer in flight; the next round but one tells whether answers come as fast."""
        self._tried, self._before = (self.limit, speed, latency_s), None
        self.limit = max(1, int(self.limit * factor))
        self._rise_to = self.limit
        self._reason = "lowered: more at once brought no more answers a second"


class _Pace:
    """So many requests, or tokens, a minute, spread evenly."""

    def __init__(self, unit: str, stated: float | None, now: float) -> None:
        self.unit = unit
        self.next_s = now  # when the next may go
        self.headers = (
            (f"x-ratelimit-limit-{unit}", f"x-ratelimit-reset-{unit}"),
            (f"x-ratelimit-limit-{unit}-minute", f"x-ratelimit-reset-{unit}-minute"),
            (f"anthropic-ratelimit-{unit}-limit", f"anthropic-ratelimit-{unit}-reset"),
        )
        self._stated = stated or math.inf  # a minute
        self._told = math.inf  # a minute
        self._long = False  # what the server tells is not of a minute
        self.known = SHARE * self._stated / 60  # a second
        self._found, self._found_at = math.inf, -math.inf  # a second
        self._since = 0.0  # let in since then
        self._growth = GUESSED
        self._began = now
        self._sums, self._slot = [0.0] * (SLOTS + 1), int(now / SLOT_S)

    def rate(self, now: float) -> float:
        """How much a second."""
        return min(self.known, self._found * (1 + self._growth * (now - self._found_at) ** 3))

    def take(self, amount: float, now: float) -> None:
        """So much goes out."""
        self.next_s = max(self.next_s, now - CATCH_UP_S) + amount / self.rate(now)
        self._count(amount, now)

    def correct(self, more: float, now: float) -> None:
        """What went out was so much more (or less) than was thought."""
        self.next_s += more / self.rate(now)
        self._count(more, now)

    def refused(self, amount: float, now: float) -> None:
        """So much was not let in."""
        self.correct(-amount, now)

    def told(self, limit: float | None, until_s: float | None, now: float) -> None:
        """The server says how much it allows, and in how many seconds all of that is free."""
        self._long = self._long or (until_s is not None and until_s > 90)
        told = math.inf if self._long or not limit else limit
        if told == self._told:
            return
        self._told = told
        self._found = math.inf
        self.known = SHARE * min(self._stated, told) / 60
        begin = max(self._began, now - 60)
        self.next_s = max(self.next_s, begin + self.last_minute(now) / self.known)

    def find(self, now: float, nothing_let_in: bool) -> None:
        """A refusal shows what is let in."""
        minute, rate, gap_s = self.last_minute(now), self.rate(now), now - self._found_at
        slightly, clearly, growth = 0.97, 0.85, LOWERED
        if self.known == math.inf:  # nothing to go by but what was let in
            seen = minute / min(60.0, max(1.0, now - self._began))
            rate = seen if rate == math.inf else min(rate, max(seen, 0.5 * rate))
            slightly, clearly, growth = 0.9, 0.8, GUESSED
        if nothing_let_in:  # a minute's allowance is used up, by the server's clock
            found = min(rate, max(0.5 * rate, SHARE * minute / 60))
            growth = MEASURED
        elif gap_s < SOON_S / 2:
            return
        elif gap_s == math.inf:
            found = slightly * rate
        else:  # what was let in since the last time is what the server's bucket got
            found = max(clearly * rate, min(slightly * rate, self._since / gap_s))
        self._found, self._found_at, self._since = found, now, 0.0
        self._growth = growth

    def forget(self) -> None:
        """What was found is not what the server goes by."""
        self._found, self._found_at = math.inf, -math.inf

    def words(self, now: float) -> str:
        """The pace for people."""
        rate, known = self.rate(now), min(self._stated, self._told)
        if rate < self.known:
            return f"paced at {60 * rate:.0f} {self.unit} a minute (found by refusals)"
        source = "stated" if known == self._stated else "told by the server"
        return f"paced at {known:.0f} {self.unit} a minute ({source})"

    def _count(self, amount: float, now: float) -> None:
        self._since += amount
        if (slot := int(now / SLOT_S)) != self._slot:
            for skipped in range(max(self._slot + 1, slot - SLOTS), slot + 1):
                self._sums[skipped % (SLOTS + 1)] = 0.0
            self._slot = slot
        self._sums[slot % (SLOTS + 1)] += amount

    def last_minute(self, now: float) -> float:
        """How much was let in during the last 60 s."""
        self._count(0.0, now)
        oldest = self._sums[(self._slot + 1) % (SLOTS + 1)]
        return max(0.0, sum(self._sums) - oldest * (now / SLOT_S - self._slot))


class _Mean:
    """The mean of the last few hundred numbers, the newer ones counting more."""

    def __init__(self) -> None:
        self.value, self.count = 0.0, 0

    def add(self, number: float) -> None:
        if self.count < 300:
            self.count += 1
        self.value += (number - self.value) / self.count


def retry_after(headers: Mapping[str, str], now_wall: float) -> float | None:
    """Seconds that a reply asks to wait, by `retry-after-ms` or `Retry-After`; 0 to a day.

    Args:
        headers: names in lower case.
        now_wall: seconds since 1970, for dates.

    Returns:
        None where neither is there, or neither can be read.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return min(milliseconds / 1000, A_DAY_S)
    return _seconds(headers.get("retry-after", ""), now_wall)


_PART = re.compile(r"(\d+(?:\.\d*)?)(ms|us|µs|ns|[dhms])", re.ASCII)
_PART_S = {"d": 86400, "h": 3600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def _number(text: str) -> float | None:
    """A number >= 0, or None."""
    try:
        number = float(text)
    except (TypeError, ValueError):
        return None
    return number if 0 <= number < math.inf else None


def _seconds(text: str, now_wall: float) -> float | None:
    """Seconds from "1.5", "6m0s", "120ms", a date of RFC 3339 or HTTP, or seconds since 1970."""
    text = str(text)[:64].strip()
    number = _number(text)
    if number is None and (parts := _PART.findall(text)) and _PART.sub("", text) == "":
        number = sum(float(count) * _PART_S[unit] for count, unit in parts)
    if number is None and text:
        number = _date(text)
    if number is None:
        return None
    if number > 1e9:  # a point in time
        number -= now_wall
    return min(max(number, 0.0), A_DAY_S)


def _date(text: str) -> float | None:
    """Seconds since 1970, or None."""
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            date = read(text)
            return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
        except (TypeError, ValueError, IndexError, OverflowError, OSError):
            continue
    return None
