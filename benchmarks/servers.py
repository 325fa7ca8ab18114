"""Local servers that answer like an OpenAI-compatible one, for tests and benchmarks.

    fixed     answers after a fixed latency, fast enough not to be what is measured
    limited   allows so many requests and tokens a minute; large answers take longer
    faults    answers wrongly by a seeded plan, in front of another server or of its own `fixed`

    with running("fixed", latency_ms=50) as server:
        ...ask server.url...
        server.stats()

Each runs in a process of its own on a free port of 127.0.0.1, which ends with the one that started
it. An answer begins with `key_of(prompt)`, so a reply handed to the wrong prompt shows. A token is
a word. What they do not do: streaming, log-probabilities, TLS, keys, chunked requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any, Literal

FAULTS = (
    "throttled",  # 429
    "throttled_wait",  # 429 with Retry-After
    "error_500",
    "busy_503",
    "reset_before",  # the connection is reset instead of a reply
    "reset_middle",  # ... after half of it
    "hang",  # nothing comes
    "cut_json",  # half the body, and a Content-Length that says it is all
    "cut_body",  # half the body, then the end of the connection
    "twice",  # the reply, and the same bytes again
    "stale",  # the reply before this one on the connection
    "late",  # after those that were asked for later
    "slow_headers",  # a few bytes at a time
    "usage_missing",
    "usage_zero",
    "usage_huge",
    "usage_negative",
    "utf8_cut",  # half of a character within a text
    "gzip_garbage",  # said to be gzip, and is not
)
FAULTS_WITHOUT_WORK = (
    "throttled", "throttled_wait", "error_500", "busy_503", "reset_before", "hang",
)  # fmt: skip
"""They come at once, and no answer is made."""


def key_of(prompt: str) -> str:
    """What an answer to the prompt begins with: 16 hexadecimal digits."""
    return blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def answer_to(prompt: str, choice: int = 0, tokens: int = 8) -> str:
    """The text that `fixed` answers with, of so many words, without regard to `max_tokens`."""
    return " ".join([key_of(prompt), str(choice), *["déjà"] * (tokens - 2)][:tokens])


@dataclass
class Running:
    """A server in another process."""

    url: str
    """The base URL, with /v1."""

    def stats(self) -> dict[str, Any]:
        """What was asked, by GET /stats."""
        stats: dict[str, Any] = self._get("stats")
        return stats

    def log(self) -> list[tuple[float, str, str]]:
        """(seconds of time.monotonic(), "asked" or "whole", key), where `log` was asked for."""
        return [(at, what, key) for at, what, key in self._get("log")]

    def _get(self, name: str) -> Any:
        with urllib.request.urlopen(f"{self.url.removesuffix('/v1')}/{name}", timeout=60) as reply:
            return json.load(reply)


@contextlib.contextmanager
def running(kind: Literal["fixed", "limited", "faults"], **options: Any) -> Iterator[Running]:
    """Start a server, give where it listens, and stop it.

    The options are those of `Fixed`, `Limited` and `Faults`.
    """
    process = subprocess.Popen(
        [sys.executable, __file__, kind, json.dumps(options)],
        stdin=subprocess.PIPE,  # its end tells the server that nobody needs it any more
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        if not port:
            raise RuntimeError(f"the server {kind!r} did not start with {options}; see above")
        yield Running(f"http://127.0.0.1:{port}/v1")
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


@dataclass
class Request:
    """A request as it came; `asked` is its JSON."""

    method: str
    path: str
    body: bytes

    @cached_property
    def asked(self) -> dict[str, Any]:
        return json.loads(self.body) if self.body else {}

    @cached_property
    def prompt(self) -> str:
        if "messages" in self.asked:
            return "\n".join(message["content"] for message in self.asked["messages"])
        return str(self.asked["prompt"])

    @cached_property
    def key(self) -> str:
        return key_of(self.prompt)


@dataclass
class Response:
    """A reply before it is written."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def encoded(self, length: int | None = None) -> bytes:
        """Head and body; `length` is what Content-Length says in place of the truth."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        return (
            f"HTTP/1.1 {self.status} .\r\nContent-Type: application/json\r\n{lines}"
            f"Content-Length: {len(self.body) if length is None else length}\r\n\r\n"
        ).encode() + self.body


Deliver = Callable[[Response], None]


class Connection(asyncio.Protocol):
    """One connection: cuts what comes into requests."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.received = b""
        self.last: Response | None = None  # that was sent here

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = self.received[:end].decode("latin-1")
            at = head.lower().find("content-length:")
            length = int(head[at + 15 :].split("\r\n", 1)[0]) if at >= 0 else 0
            if len(self.received) < end + 4 + length:
                return
            body = self.received[end + 4 : end + 4 + length]
            self.received = self.received[end + 4 + length :]
            method, path, _ = head.split(" ", 2)
            self.server.take(Request(method, path, body), self)

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def reset(self) -> None:
        """End the connection at once, with a reset."""
        if not self.transport.is_closing():
            linger = struct.pack("ii", 1, 0)
            self.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, linger
            )
            self.transport.abort()


class Server:
    """What the three share: counts of what is asked, and what is said of them.

    A prompt is counted by its text, so several requests for samples of one count as repeats.

    Args:
        log: keep when each request came and when each whole reply went, for `Running.log`.
    """

    models = ("local", "gpt-4o-mini")  # the second is a name that every client knows

    def __init__(self, *, log: bool = False) -> None:
        self.loop = asyncio.get_running_loop()
        self.asked: Counter[str] = Counter()  # by key
        self.whole: Counter[str] = Counter()  # replies, by key
        self.counts: Counter[str] = Counter()
        self.in_flight = 0
        self.events: list[tuple[float, str, str]] | None = [] if log else None

    def stats(self) -> dict[str, Any]:
        """Figures of the whole time."""
        whole, requests = self.whole.total(), self.asked.total()
        return {
            "requests": requests,
            "distinct": len(self.asked),
            "duplicates": requests - len(self.asked),
            "needless": 0,  # asked after a whole reply had gone out
            "whole": whole,
            "whole_duplicates": whole - len(self.whole),
            "in_flight": self.in_flight,
            "max_in_flight": 0,
            **self.counts,
        }

    def take(self, request: Request, connection: Connection) -> None:
        """Answer anything."""
        said: Any
        if request.method == "POST":
            try:
                key = request.key
            except (ValueError, KeyError, TypeError) as error:
                said = {"error": {"message": f"expected a prompt or messages; got {error!r}"}}
                connection.write(_json(said, status=400).encoded())
                return
            self.note("asked", key)
            self.asked[key] += 1
            self.counts["needless"] += key in self.whole
            self.in_flight += 1
            self.counts["max_in_flight"] = max(self.counts["max_in_flight"], self.in_flight)
            self.answer(request, connection)
        elif request.path == "/stats":
            connection.write(_json(self.stats()).encoded())
        elif request.path == "/log":
            connection.write(_json(self.events).encoded())
        else:
            self.get(request, connection)

    def get(self, request: Request, connection: Connection) -> None:
        """Answer a GET that is the client's business."""
        if request.path == "/v1/models":
            models = [{"id": name, "object": "model", "owned_by": "local"} for name in self.models]
            connection.write(_json({"object": "list", "data": models}).encoded())
        else:
            said = {"error": {"message": f"there is no {request.path} here"}}
            connection.write(_json(said, status=404).encoded())

    def answer(self, request: Request, connection: Connection) -> None:
        """Answer a prompt, now or later."""
        self.reply(request, lambda response: self.send(request, connection, response))

    def reply(self, request: Request, deliver: Deliver) -> None:
        """Make the reply to a prompt, and deliver it when it is due."""
        raise NotImplementedError

    def send(self, request: Request, connection: Connection, response: Response) -> None:
        """Write a whole reply, and count it."""
        self.in_flight -= 1
        if not connection.transport.is_closing():
            connection.write(response.encoded())
            connection.last = response
            if response.status == 200:
                self.count_whole(request)

    def count_whole(self, request: Request) -> None:
        """All of a good reply has been written."""
        self.whole[request.key] += 1
        self.note("whole", request.key)

    def note(self, what: str, key: str) -> None:
        """Keep an event, if any are kept."""
        if self.events is not None:
            self.events.append((time.monotonic(), what, key))


class Fixed(Server):
    """Answers after a fixed time.

    Args:
        latency_ms: from the request to the reply.
        tokens: the shortest and the longest answer; the prompt says which (`max_tokens` cuts it).
    """

    def __init__(
        self, *, latency_ms: float = 0, tokens: tuple[int, int] = (8, 8), log: bool = False
    ) -> None:
        super().__init__(log=log)
        self.latency_s = latency_ms / 1000
        self.tokens = tokens
        self.serial = 0
        # All wait equally long, so a timer for the first serves every one, which is fast.
        self.waiting: deque[tuple[float, Response, Deliver]] = deque()

    def reply(self, request: Request, deliver: Deliver) -> None:
        """Make the reply and let it wait."""
        due = self.loop.time() + self.latency_s
        self.waiting.append((due, self.response(request), deliver))
        if len(self.waiting) == 1:
            self.loop.call_at(due, self._deliver_due)

    def _deliver_due(self) -> None:
        now = self.loop.time()
        while self.waiting and self.waiting[0][0] <= now:
            _, response, deliver = self.waiting.popleft()
            deliver(response)
        if self.waiting:
            self.loop.call_at(self.waiting[0][0], self._deliver_due)

    def length(self, key: str) -> int:
        """Tokens of an answer that nothing cuts off."""
        low, high = self.tokens
        return low + int(key, 16) % (high - low + 1)

    def response(self, request: Request, **headers: str) -> Response:
        """The reply to a prompt."""
        asked, chat = request.asked, request.path.endswith("/chat/completions")
        limit = asked.get("max_completion_tokens") or asked.get("max_tokens") or 2**31
        tokens = self.length(request.key)
        number, kept = int(asked.get("n") or 1), min(tokens, limit)
        self.serial += 1
        choices: list[dict[str, Any]] = []
        for index in range(number):
            text = answer_to(request.prompt, index, kept)
            said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            reason = "stop" if kept == tokens else "length"
            choices.append({"index": index, **said, "finish_reason": reason})
        read = _tokens_in(request)
        self.counts["tokens"] += read + kept * number
        return _json(
            {
                "id": f"{'chatcmpl' if chat else 'cmpl'}-{self.serial}",
                "object": "chat.completion" if chat else "text_completion",
                "created": int(time.time()),
                "model": asked.get("model", self.models[0]),
                "choices": choices,
                "usage": {
                    "prompt_tokens": read,
                    "completion_tokens": kept * number,
                    "total_tokens": read + kept * number,
                },
            },
            headers=headers,
        )


class Allowance:
    """So much a minute, by a token bucket, a sliding window or a fixed one.

    Args:
        amount: what a minute allows.
        minute_s: how long a "minute" is.
        burst_s: a bucket holds what comes in so many seconds, and is full at first.
    """

    def __init__(
        self,
        amount: float,
        window: Literal["bucket", "sliding", "fixed"],
        *,
        minute_s: float = 60,
        burst_s: float = 60,
    ) -> None:
        self.amount, self.window, self.minute_s = amount, window, minute_s
        self.capacity = amount * burst_s / minute_s if window == "bucket" else amount
        self.used = 0.0
        self.since: float | None = None  # that `used` is of
        self.taken: deque[tuple[float, float]] = deque()  # (when, how much)

    def left(self, now: float) -> float:
        """What could be taken now."""
        since = now if self.since is None else self.since
        if self.window == "bucket":
            self.used = max(0.0, self.used - (now - since) * self.amount / self.minute_s)
            self.since = now
        elif self.window == "fixed":
            passed = (now - since) // self.minute_s
            self.used *= passed < 1
            self.since = since + passed * self.minute_s
        else:
            while self.taken and self.taken[0][0] <= now - self.minute_s:
                self.used -= self.taken.popleft()[1]
        return self.capacity - self.used

    def take(self, amount: float, now: float) -> None:
        """Count what was let in."""
        self.left(now)
        self.used += amount
        if self.window == "sliding":
            self.taken.append((now, amount))

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until so much could be taken; 0 if now."""
        short = amount - self.left(now)
        if short <= 1e-9:
            return 0.0
        if self.window == "bucket":
            return short * self.minute_s / self.amount
        if self.window == "fixed":
            assert self.since is not None
            return self.since + self.minute_s - now
        for when, of in self.taken:
            short -= of
            if short <= 1e-9:
                return when + self.minute_s - now
        return self.minute_s

    def reset_s(self, now: float) -> float:
        """Seconds until all of it is there again, as servers say it in x-ratelimit-reset-*."""
        return self.wait_s(self.capacity, now)


class Limited(Fixed):
    """Lets in so many requests and tokens a minute, and refuses the others with 429.

    Args:
        requests_per_minute, tokens_per_minute: the limits; None: none.
        window: how they are counted.
        burst_s: what a bucket holds, in seconds of its inflow.
        seconds_per_minute: how long a "minute" is.
        latency_s: of the shortest and of the longest answer.
        tokens: the shortest and the longest answer.
        charge: a request counts as its prompt and `max_tokens` ("bound"), or as its prompt and what
            the answer comes to ("actual"); on arrival in both.
        retry_after, headers: whether a refusal carries Retry-After (whole seconds), and whether
            every reply carries x-ratelimit-limit, -remaining and -reset.
    """

    def __init__(
        self,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        window: Literal["bucket", "sliding", "fixed"] = "bucket",
        burst_s: float = 60,
        seconds_per_minute: float = 60,
        latency_s: tuple[float, float] = (1, 30),
        tokens: tuple[int, int] = (20, 600),
        charge: Literal["bound", "actual"] = "bound",
        retry_after: bool = True,
        headers: bool = True,
        log: bool = False,
    ) -> None:
        super().__init__(tokens=tokens, log=log)
        self.latencies_s, self.charge = latency_s, charge
        self.says_when, self.says_limits = retry_after, headers
        stated = {"requests": requests_per_minute, "tokens": tokens_per_minute}
        self.limits = {
            name: Allowance(amount, window, minute_s=seconds_per_minute, burst_s=burst_s)
            for name, amount in stated.items()
            if amount is not None
        }
        self.admitted: list[tuple[float, int]] = []  # (when, tokens)

    def stats(self) -> dict[str, Any]:
        """The counts, and what was let in: [seconds since the first, tokens] of each."""
        first = self.admitted[0][0] if self.admitted else 0.0
        return {
            "refused": 0,
            **super().stats(),
            "admitted": len(self.admitted),
            "admitted_tokens": sum(tokens for _, tokens in self.admitted),
            "admissions": [[when - first, tokens] for when, tokens in self.admitted],
        }

    def reply(self, request: Request, deliver: Deliver) -> None:
        """Let the request in, or refuse it."""
        now = self.loop.time()
        length = self.length(request.key)
        limit = request.asked.get("max_completion_tokens") or request.asked.get("max_tokens")
        answer = min(length, limit or length)
        choices = int(request.asked.get("n") or 1)
        billed = limit or length if self.charge == "bound" else answer
        needs = {"requests": 1, "tokens": _tokens_in(request) + billed * choices}
        wait_s = max(
            (one.wait_s(needs[name], now) for name, one in self.limits.items()), default=0.0
        )
        if wait_s > 0:
            self.counts["refused"] += 1
            said = {"error": {"message": "Rate limit reached", "type": "rate_limit_exceeded"}}
            after = {"Retry-After": str(math.ceil(wait_s))} if self.says_when else {}
            deliver(_json(said, status=429, headers={**self._headers(now), **after}))
            return
        for name, one in self.limits.items():
            one.take(needs[name], now)
        self.admitted.append((now, needs["tokens"]))
        low, high = self.latencies_s
        latency_s = low + (high - low) * answer / self.tokens[1]
        response = self.response(request, **self._headers(now))
        self.loop.call_later(latency_s, deliver, response)

    def _headers(self, now: float) -> dict[str, str]:
        said = {}
        for name, one in self.limits.items() if self.says_limits else ():
            said[f"x-ratelimit-limit-{name}"] = f"{one.amount:.0f}"
            said[f"x-ratelimit-remaining-{name}"] = f"{max(0.0, one.left(now)):.0f}"
            said[f"x-ratelimit-reset-{name}"] = _duration(one.reset_s(now))
        return said


class Faults(Server):
    """Answers wrongly, by a plan that depends on the seed, the prompt and how often it was asked.

    Args:
        upstream: the base URL of the server behind it; None: a `Fixed` of its own.
        rates: the share of requests per fault; see `FAULTS`.
        seed: of the plan.
        retry_after_s: what "throttled_wait" says, in whole seconds.
        slow_s: what "slow_headers" takes, and the longest that "late" does.
        latency_ms, tokens: of the `Fixed`.
    """

    def __init__(
        self,
        *,
        upstream: str | None = None,
        rates: Mapping[str, float],
        seed: int = 0,
        retry_after_s: int = 1,
        slow_s: float = 0.5,
        latency_ms: float = 0,
        tokens: tuple[int, int] = (8, 8),
        log: bool = False,
    ) -> None:
        super().__init__(log=log)
        if unknown := set(rates) - set(FAULTS):
            raise ValueError(f"expected faults of {FAULTS}; got {sorted(unknown)}")
        self.rates, self.seed = rates, seed
        self.retry_after_s, self.slow_s = retry_after_s, slow_s
        self.faults: Counter[str] = Counter()
        self.behind: Fixed | Upstream = (
            Fixed(latency_ms=latency_ms, tokens=tokens) if upstream is None else Upstream(upstream)
        )

    def stats(self) -> dict[str, Any]:
        """The counts, and how often each fault was shown."""
        return {**super().stats(), "faults": self.faults}

    def get(self, request: Request, connection: Connection) -> None:
        """Pass it on, without faults."""
        if isinstance(self.behind, Fixed):
            self.behind.get(request, connection)
        else:
            self.behind.reply(request, lambda response: connection.write(response.encoded()))

    def answer(self, request: Request, connection: Connection) -> None:
        """Answer as the plan says."""
        dice = random.Random(f"{self.seed} {request.key} {self.asked[request.key]}")
        fault = dice.choices([*self.rates, None], self._weights)[0]
        if fault is not None:
            self.faults[fault] += 1
        if fault not in FAULTS_WITHOUT_WORK:
            self.behind.reply(
                request, lambda response: self._spoil(fault, dice, request, connection, response)
            )
            return
        self.in_flight -= 1
        if fault == "reset_before":
            connection.reset()
        elif fault != "hang":
            status = {"error_500": 500, "busy_503": 503}.get(fault, 429)
            wait = {"Retry-After": str(self.retry_after_s)} if fault == "throttled_wait" else {}
            said = {"error": {"message": f"{fault} as planned"}}
            connection.write(_json(said, status=status, headers=wait).encoded())

    @cached_property
    def _weights(self) -> list[float]:
        return [*self.rates.values(), 1 - sum(self.rates.values())]

    def _spoil(
        self,
        fault: str | None,
        dice: random.Random,
        request: Request,
        connection: Connection,
        response: Response,
    ) -> None:
        """Deliver a reply, or what the fault leaves of it."""
        nothing_before = fault == "stale" and connection.last is None
        if fault is None or response.status != 200 or nothing_before:
            self.send(request, connection, response)
        elif fault == "late":
            later = dice.uniform(0.5, 1) * self.slow_s
            self.loop.call_later(later, self.send, request, connection, response)
        elif fault == "slow_headers":
            self.loop.create_task(self._dribble(request, connection, response))
        elif fault.startswith("usage_"):
            said = json.loads(response.body)
            said["usage"] = _wrong_usage(fault)
            self.send(request, connection, _json(said, headers=response.headers))
        else:
            self.in_flight -= 1
            whole, half = response.encoded(), len(response.body) // 2
            if fault == "twice":
                if not connection.transport.is_closing():
                    self.count_whole(request)
                connection.write(whole + whole)
            elif fault == "stale":
                assert connection.last is not None
                connection.write(connection.last.encoded())
            elif fault == "cut_json":
                connection.write(Response(response.body[:half]).encoded())
            elif fault == "cut_body":
                connection.write(Response(response.body[:half]).encoded(len(response.body)))
                connection.transport.close()
            elif fault == "reset_middle":
                connection.write(whole[: len(whole) - half])
                self.loop.call_later(0.01, connection.reset)  # what was written goes out before
            elif fault == "utf8_cut":
                body = response.body.replace("é".encode(), b"\xc3")
                if body == response.body:
                    body = body.replace(b'": "', b'": "\xc3', 1).replace(b'":"', b'":"\xc3', 1)
                connection.write(Response(body).encoded())
            elif fault == "gzip_garbage":
                zipped = {"Content-Encoding": "gzip"}
                connection.write(Response(dice.randbytes(200), headers=zipped).encoded())

    async def _dribble(self, request: Request, connection: Connection, response: Response) -> None:
        """The head a few bytes at a time, then the body."""
        whole = response.encoded()
        head = len(whole) - len(response.body)
        for start in range(0, head, 16):
            connection.write(whole[start : min(start + 16, head)])
            await asyncio.sleep(self.slow_s * 16 / head)
        self.in_flight -= 1
        if not connection.transport.is_closing():
            connection.write(response.body)
            self.count_whole(request)


class Upstream:
    """The server behind a proxy."""

    def __init__(self, url: str) -> None:
        import aiohttp

        self.root = url.rstrip("/").removesuffix("/v1")
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        self.tasks: set[asyncio.Task[None]] = set()

    def reply(self, request: Request, deliver: Deliver) -> None:
        """Ask it, and deliver what it says."""
        task = asyncio.get_running_loop().create_task(self._reply(request, deliver))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _reply(self, request: Request, deliver: Deliver) -> None:
        import aiohttp

        kind = {"Content-Type": "application/json"}
        try:
            async with self.session.request(
                request.method, self.root + request.path, data=request.body or None, headers=kind
            ) as reply:
                kept = {
                    name: value
                    for name, value in reply.headers.items()
                    if name.lower() == "retry-after" or name.lower().startswith("x-ratelimit")
                }
                deliver(Response(await reply.read(), reply.status, kept))
        except aiohttp.ClientError as error:
            said = {"error": {"message": f"the server behind the proxy: {error!r}"}}
            deliver(_json(said, status=502))


def _json(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(value, ensure_ascii=False).encode(), status, headers or {})


def _tokens_in(request: Request) -> int:
    return max(1, len(request.prompt.split()))


def _wrong_usage(fault: str) -> dict[str, int] | None:
    number = {"usage_zero": 0, "usage_huge": 10**12, "usage_negative": -7}.get(fault)
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    return None if number is None else dict.fromkeys(names, number)


def _duration(seconds: float) -> str:
    """As OpenAI writes it: 20ms, 1.5s, 6m0s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f}m{rest:.3g}s" if minutes else f"{rest:.3g}s"


async def _serve(kind: str, options: Mapping[str, Any]) -> None:
    """Listen until the process that started this one ends or closes its pipe."""
    server = {"fixed": Fixed, "limited": Limited, "faults": Faults}[kind](**options)
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(
        lambda: Connection(server), "127.0.0.1", 0, backlog=1024, reuse_address=True
    )
    print(listening.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    os._exit(0)  # replies that wait have nobody to go to


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the client; the pipe ends this one
    asyncio.run(_serve(sys.argv[1], json.loads(sys.argv[2])))
