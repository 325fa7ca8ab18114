"""Are two answers the same? Numbers by value, LaTeX by `math-verify`, words as they are.

Takes the kind of the answers and two of them, the gold one first; gives True, False, or None where
it could not be decided: no time was left, or math-verify is not installed. Decimals and fractions
are compared exactly, without any library. Only where a root or a symbol is left is math-verify
asked (https://pypi.org/project/math-verify, the extra `answers`), in a process of its own: its own
time limit rests on a signal that only the main thread may set. Costs microseconds; math-verify
about a second, once, to start its process, then up to some tenths of a second a pair.

What it does not do: accept a rounded number (0.33 is not 1/3), or run what it reads.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import re
import subprocess
import sys
import threading
from functools import lru_cache

from symdistill.answers import AnswerKind, key

TIME_LIMIT_SECONDS = 5.0
START_LIMIT_SECONDS = 60.0
MAX_MEMORY_BYTES = 4 << 30


def equal(kind: AnswerKind, gold: str, answer: str) -> bool | None:
    """Whether an answer says what the gold one says; None: nothing decided it (`why_undecided`).

    Options are compared by their letters; `check` also knows options of the same text.
    """
    if key(kind, gold) == key(kind, answer):
        return True
    if kind != "number" or not re.search(r"[\\^]", gold + answer):
        return False
    return _WORKER.ask(gold, answer, TIME_LIMIT_SECONDS) if _installed() else None


def why_undecided() -> str:
    """Why `equal` gave None."""
    if _installed():
        return "the comparison did not end"
    return "math-verify is not installed; pip install 'symdistill[answers]'"


# -- math-verify, in a process of its own -------------------------------------------------------


class _Worker:
    """One process that answers one pair after another, and is killed when it takes too long."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, gold: str, answer: str, seconds: float) -> bool | None:
        """Its answer; None: none came in time, or the process died."""
        with self._lock:
            try:
                process = self._process or self._start()
                return self._exchange(process, [gold, answer], seconds)
            except (OSError, ValueError):  # the process went away, or wrote half a line
                self._stop()
                return None

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._stop()

    def _start(self) -> subprocess.Popen[str]:
        program = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import _serve; _serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        self._exchange(self._process, ["1", "1"], START_LIMIT_SECONDS)
        return self._process

    @staticmethod
    def _exchange(process: subprocess.Popen[str], pair: list[str], seconds: float) -> bool:
        if process.stdin is None or process.stdout is None:
            raise OSError("the process has no pipes")
        timer = threading.Timer(seconds, process.kill)  # ends the reading below
        timer.start()
        try:
            process.stdin.write(json.dumps(pair) + "\n")
            process.stdin.flush()
            return bool(json.loads(process.stdout.readline()))
        finally:
            timer.cancel()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


_WORKER = _Worker()
atexit.register(_WORKER.close)


@lru_cache(maxsize=1)
def _installed() -> bool:
    return importlib.util.find_spec("math_verify") is not None


def _serve() -> None:
    """The process: a pair of answers in, true or false out, a line each."""
    import math_verify

    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    except (ImportError, ValueError, OSError):
        pass  # no such limit on this system; the time limit holds
    for line in sys.stdin:
        gold, answer = (
            math_verify.parse(f"${one}$", parsing_timeout=None) for one in json.loads(line)
        )
        same = bool(gold and answer) and math_verify.verify(gold, answer, timeout_seconds=None)
        print(json.dumps(bool(same)), flush=True)
