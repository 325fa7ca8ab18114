"""A loop over aiohttp and nothing else: what the machine allows.

Options: "retry": ask again what failed, after the delays that `symdistill` uses. It keeps nothing,
knows no limits, and its requests in flight are always as many as they may be.
"""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import aiohttp

from benchmarks.peers.work import MAX_TOKENS, MODEL, given, options, prompt, timed
from benchmarks.servers import key_of


def body(number: int) -> dict[str, Any]:
    """What is sent."""
    messages = [{"role": "user", "content": prompt(number)}]
    return {"model": MODEL, "messages": messages, "max_tokens": MAX_TOKENS}


def is_right(number: int, raw: bytes) -> bool:
    """Whether this is the answer to that prompt."""
    text: str = json.loads(raw)["choices"][0]["message"]["content"]
    return text.startswith(key_of(prompt(number)))


async def straight(url: str, requests: int, concurrency: int) -> int:
    """So many workers that take from one list."""
    numbers, right = iter(range(requests)), 0
    connector = aiohttp.TCPConnector(limit=concurrency)

    async def work(session: aiohttp.ClientSession) -> None:
        nonlocal right
        for number in numbers:
            async with session.post(f"{url}/chat/completions", json=body(number)) as reply:
                right += is_right(number, await reply.read())

    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(work(session) for _ in range(concurrency)))
    return right


async def with_retries(url: str, requests: int, concurrency: int) -> int:
    """The same; what failed comes back into the queue when its delay is over."""
    from symdistill.teachers.sending import FIRST_DELAY_S, LONGEST_DELAY_S

    queue: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
    for number in range(requests):
        queue.put_nowait((number, 0))
    right, left, finished = 0, requests, asyncio.Event()
    loop, connector = asyncio.get_running_loop(), aiohttp.TCPConnector(limit=concurrency)

    async def work(session: aiohttp.ClientSession) -> None:
        nonlocal right, left
        while True:
            number, failed = await queue.get()
            after = None
            try:
                async with session.post(f"{url}/chat/completions", json=body(number)) as reply:
                    after = reply.headers.get("Retry-After")
                    failed += reply.status != 429
                    reply.raise_for_status()
                    right += is_right(number, await reply.read())
            except (aiohttp.ClientError, ValueError):
                delay = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** max(0, failed - 1))
                delay *= random.uniform(0.5, 1.5)
                if after is not None:
                    delay = float(after) * random.uniform(1.0, 1.1)
                loop.call_later(delay, queue.put_nowait, (number, failed))
            else:
                left -= 1
                if not left:
                    finished.set()

    async with aiohttp.ClientSession(connector=connector) as session:
        workers = [asyncio.create_task(work(session)) for _ in range(concurrency)]
        await finished.wait()
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return right


def main() -> None:
    """With retries or without."""
    url, requests, concurrency = given()
    loop = with_retries if options().get("retry") else straight
    settings = f"aiohttp {aiohttp.__version__}, {loop.__name__}"
    timed("bare", settings, requests, lambda: asyncio.run(loop(url, requests, concurrency)))


if __name__ == "__main__":
    main()
