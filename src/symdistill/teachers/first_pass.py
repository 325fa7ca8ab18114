"""The first pass of asking, below the thread that asks: an event loop in a thread of its own.

So it works below any other loop (a notebook's, say), and the calling thread is free to hear
Ctrl-C and to show progress.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from symdistill.teachers.base import Backend

if TYPE_CHECKING:
    from symdistill.progress import Stage

TELL_S = 0.2  # between two reports to progress
STOP_S = 30.0  # that a pass may take to end, when the calling thread has failed


class FirstPass(ABC):
    """Have everything answered that the ledger does not hold; how, others say."""

    thread_name = "symdistill-ask"

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._stopping: str | None = None  # why nothing more is begun
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._told = 0  # samples

    def run(self, stage: Stage, say: Callable[[str], None]) -> None:
        """Do the pass; returns when everything asked for is in the ledger."""
        threading.Thread(target=self._in_thread, name=self.thread_name, daemon=True).start()
        interrupts = heard = 0
        try:
            while not self._ended.is_set():
                try:
                    if interrupts > heard:
                        heard = interrupts
                        self._hear(heard, say)
                    self._ended.wait(TELL_S)  # not `join`, which Ctrl-C breaks in Python 3.11
                    self._tell(stage, say)
                except KeyboardInterrupt:
                    interrupts += 1
        finally:
            if not self._ended.is_set():  # whatever went wrong here, nothing is sent behind it
                self._interrupt(hard=True)
                self._ended.wait(STOP_S)
        self._tell(stage, say)
        if interrupts:
            raise KeyboardInterrupt
        if self._error is not None:
            raise self._error

    def _hear(self, interrupts: int, say: Callable[[str], None]) -> None:
        """Ctrl-C was pressed, so often by now."""
        self._interrupt(hard=True)

    def _interrupt(self, *, hard: bool) -> None:
        if self._loop is None or self._task is None:
            self._stopping = "stopped"
            return
        with contextlib.suppress(RuntimeError):  # the loop has just ended
            if hard:
                self._loop.call_soon_threadsafe(self._task.cancel)
            else:
                self._loop.call_soon_threadsafe(self._halt, "stopped")

    def _tell(self, stage: Stage, say: Callable[[str], None]) -> None:
        """Tell progress where the pass stands."""
        while self.backend.notes:
            say(self.backend.notes.pop(0))
        done = self.done()
        stage(done - self._told)
        self._told = done
        stage.note(self.line())

    @abstractmethod
    def done(self) -> int:
        """How many samples are done with."""

    @abstractmethod
    def line(self) -> str:
        """Where the pass stands, in words."""

    def _in_thread(self) -> None:
        try:
            asyncio.run(self._on_loop())
        except asyncio.CancelledError:
            pass  # Ctrl-C
        except BaseException as error:  # told in the calling thread
            self._error = error
        finally:
            self._ended.set()

    async def _on_loop(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        await self._main()

    @abstractmethod
    async def _main(self) -> None:
        """The whole pass; begins nothing where `_stopping` says why."""

    def _halt(self, why: str) -> None:
        """Begin nothing more; what is under way is waited for."""
        self._stopping = self._stopping or why
