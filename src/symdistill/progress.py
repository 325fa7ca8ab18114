"""Progress as stages report it: a stage of so many units, of which some are done.

`Progress` is what the work sees, and shows nothing. `ConsoleProgress` shows a bar for the stage
under way and one for the whole run. The whole run's remaining time comes from a plan: the seconds
that each stage should take on a usual machine, scaled by how this machine has done so far.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

Advance = Callable[[int], None]
"""Called with how many units were done since the last call."""


class Progress:
    """Reports to nobody. Others override its methods."""

    def plan(self, expected_s: Mapping[str, float]) -> None:
        """Name the stages to come, in order, with the seconds each usually takes."""

    @contextlib.contextmanager
    def stage(self, label: str, total: int, unit: str = "") -> Iterator[Advance]:
        """Enter a stage of `total` units (0: not known); gives the function that advances it."""
        yield lambda done: None

    def say(self, line: str) -> None:
        """One line that the user should see, such as what a round came to."""


class Plan:
    """How much of the planned work is left, in seconds of this machine."""

    def __init__(self, expected_s: Mapping[str, float]) -> None:
        self._expected_s = dict(expected_s)
        self._labels = list(expected_s)
        self._next = 0  # stages before this one are over, done now or taken from disk
        self._planned_s = 0.0  # of the stages done here, by the plan
        self._taken_s = 0.0  # and by the clock

    @property
    def total_s(self) -> float:
        """The whole plan."""
        return sum(self._expected_s.values())

    def enter(self, label: str) -> None:
        """A stage begins: those before it are over."""
        if label in self._expected_s:
            self._next = self._labels.index(label) + 1

    def leave(self, label: str, taken_s: float) -> None:
        """A stage is over: the next estimates use how long it took."""
        if label in self._expected_s:
            self._planned_s += self._expected_s[label]
            self._taken_s += taken_s

    def remaining_s(self, label: str, share_done: float, spent_s: float) -> float:
        """Seconds left, with the stage under way `share_done` (0..1) done after `spent_s`."""
        expected = self._expected_s.get(label, 0.0)
        planned, taken = self._planned_s + expected * share_done, self._taken_s + spent_s
        # Until a tenth of the plan is done the plan itself counts more than the clock.
        trust = 0.1 * self.total_s
        pace = (taken + trust) / (planned + trust) if planned + trust > 0 else 1.0
        later = sum(self._expected_s[one] for one in self._labels[self._next :])
        return pace * (expected * (1 - share_done) + later)


class ConsoleProgress(Progress):
    """Bars on the terminal; plain lines where the output is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._plan = Plan({})

    def plan(self, expected_s: Mapping[str, float]) -> None:
        """Keep the plan for the estimates."""
        self._plan = Plan(expected_s)

    def say(self, line: str) -> None:
        """Print the line above the bars; it is text, not markup."""
        self._console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)

    @contextlib.contextmanager
    def stage(self, label: str, total: int, unit: str = "") -> Iterator[Advance]:
        """A bar for the stage, and how long the whole run will still take."""
        self._plan.enter(label)
        start, done = time.perf_counter(), 0
        bars = Bars(
            TextColumn("{task.description:<34}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[whole]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        task = bars.add_task(label, total=total or None, unit=unit, whole="")

        def advance(units: int) -> None:
            nonlocal done
            done += units
            share = min(1.0, done / total) if total else 0.0
            left = self._left(label, share, time.perf_counter() - start)
            bars.update(task, completed=done, whole=left and f"| whole run: {left}")

        with bars:
            advance(0)
            yield advance
        taken_s = time.perf_counter() - start
        self._plan.leave(label, taken_s)
        left = self._left("", 0.0, 0.0)
        self.say(f"{label:<34} {done:>6} {unit:<8} {_clock(taken_s)}   {left}".rstrip())

    def _left(self, label: str, share_done: float, spent_s: float) -> str:
        """What is left in words; nothing where there is no plan."""
        if not self._plan.total_s:
            return ""
        return f"{_about(self._plan.remaining_s(label, share_done, spent_s))} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def _about(seconds: float) -> str:
    """A duration as roughly as it is known."""
    if seconds < 50:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    return f"about {max(1, round(seconds / 60))} min"
