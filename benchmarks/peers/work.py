"""The work that is compared: so many prompts to one server, so many at once.

    python -m benchmarks.peers.NAME URL REQUESTS CONCURRENCY [OPTIONS AS JSON]

Each client is a process of its own, so that its processor time and its memory are its own. It
prints its settings and its figures as JSON, one line per way of doing the work. `seconds` is the
asking alone: imports and the making of the list of prompts are left out, for every client.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODEL = "gpt-4o-mini"  # a name that every client knows; the local server answers to any
MAX_TOKENS = 64


def prompt(number: int) -> str:
    """Prompts that differ, of some 20 tokens."""
    return f"Write one sentence about the thing that has number {number} in a long list of things."


def given() -> tuple[str, int, int]:
    """The server's URL, how many requests, how many at once."""
    return sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def options() -> dict[str, Any]:
    """What else this client was told."""
    told: dict[str, Any] = json.loads(sys.argv[4]) if len(sys.argv) > 4 else {}
    return told


def cpu_s() -> float:
    """Processor seconds of this process and of those of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def rss_mb() -> float:
    """The most memory that this process has held at once."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):  # ru_maxrss would begin with what the parent held
            return int(line.split()[1]) / 1024
    raise OSError("expected a VmHWM in /proc/self/status; run this on Linux")


def timed(name: str, settings: str, requests: int, answer: Callable[[], int]) -> None:
    """Do the work and print what it took. `answer` gives the number of texts that came back."""
    cpu, start = cpu_s(), time.perf_counter()
    answers = answer()
    line = {
        "client": name,
        "settings": settings,
        "requests": requests,
        "answers": answers,
        "seconds": time.perf_counter() - start,
        "cpu_s": cpu_s() - cpu,
        "rss_mb": rss_mb(),
    }
    print(json.dumps(line), flush=True)
