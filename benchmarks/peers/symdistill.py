"""symdistill as a recipe uses it: `ask` with a ledger and a budget, the asks made as they go.

Options: "ledger": its file (needed). "received": a file that takes the time and the key of each
reply as it comes, written at once. "max_new_tokens". "wrong" answers count as none.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp  # noqa: F401 -- before the clock starts, as in the bare loop

from benchmarks.peers.work import MAX_TOKENS, MODEL, given, options, prompt, timed
from benchmarks.servers import key_of
from symdistill import __version__
from symdistill.budget import Budget
from symdistill.config import BudgetSettings
from symdistill.ledger import Ledger
from symdistill.teachers.asking import ask
from symdistill.teachers.base import Answer, Ask, Decoding, Replies
from symdistill.teachers.openai import OpenAIBackend
from symdistill.teachers.sending import Asking

RECEIVED = struct.Struct("d16s")  # seconds of time.monotonic(), key_of(prompt)


class Noting(OpenAIBackend):
    """Writes down when each reply came."""

    notes_to = -1

    async def send(self, prompt: Any, *further: Any, **named: Any) -> Replies:
        """As it is, and a note."""
        replies = await super().send(prompt, *further, **named)
        noted = RECEIVED.pack(time.monotonic(), key_of(prompt[0]["content"]).encode())
        os.write(self.notes_to, noted)
        return replies


def main() -> None:
    """Ask, and compare every answer with what it should be."""
    url, requests, concurrency = given()
    told = options()
    kind = Noting if "received" in told else OpenAIBackend
    if "received" in told:
        Noting.notes_to = os.open(told["received"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def asks() -> Iterator[Ask]:
        for number in range(requests):
            yield Ask(({"role": "user", "content": prompt(number)},), item_id=str(number))

    def answer() -> int:
        ledger = Ledger(Path(told["ledger"]))
        backend = kind(
            f"openai:{MODEL}", model=MODEL, base_url=url, key=None, connections=concurrency
        )
        answers = ask(
            backend,
            asks,
            decoding=Decoding(max_new_tokens=told.get("max_new_tokens", MAX_TOKENS)),
            ledger=ledger,
            budget=Budget(BudgetSettings(requests=10 * requests), ledger),
            settings=Asking(max_concurrency=concurrency),
        )
        right = 0
        for number, one in enumerate(answers):
            wanted = key_of(prompt(number))
            right += isinstance(one, Answer) and one.text.startswith(wanted)
        ledger.close()
        return right

    timed("symdistill", f"{__version__}, ledger and budget on", requests, answer)


if __name__ == "__main__":
    main()
