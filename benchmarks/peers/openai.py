"""The openai SDK: an `AsyncOpenAI` behind a semaphore, over httpx and over its aiohttp transport.

It keeps nothing: a process that dies has lost every answer.
"""

from __future__ import annotations

import asyncio
from typing import Any

import openai

from benchmarks.peers.work import MAX_TOKENS, MODEL, given, prompt, timed


async def answer_all(client: Any, requests: int, concurrency: int) -> int:
    """How many texts came back."""
    gate = asyncio.Semaphore(concurrency)

    async def one(number: int) -> str | None:
        async with gate:
            reply = await client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": prompt(number)}],
                max_tokens=MAX_TOKENS,
            )
        return reply.choices[0].message.content

    async with client:
        texts = await asyncio.gather(*map(one, range(requests)))
    return sum(bool(text) for text in texts)


def main() -> None:
    """Both transports, one after the other."""
    url, requests, concurrency = given()
    for name, transport in (
        ("openai", openai.DefaultAsyncHttpxClient),
        ("openai-aiohttp", openai.DefaultAioHttpClient),
    ):

        def answer(transport: Any = transport) -> int:
            client = openai.AsyncOpenAI(
                base_url=url, api_key="none", max_retries=6, http_client=transport()
            )
            return asyncio.run(answer_all(client, requests, concurrency))

        settings = f"{openai.__version__}, AsyncOpenAI, {transport.__name__}, semaphore"
        timed(name, settings, requests, answer)


if __name__ == "__main__":
    main()
