"""Progress as stages report it: a stage of so many units, of which some are done.

`Progress` is what the work sees, and shows nothing. `ConsoleProgress` shows a bar for the stage
under way and one for the whole run. The whole run's remaining time comes from a plan: the seconds
that each stage should take on a usual machine, scaled by how this machine has done so far. A stage
may note in words where it stands: below the bars, or, where the output is no terminal, as a line
now and then.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

NOTE_EVERY_S = 30.0  # where the output is no terminal


class Stage:
    """The stage under way. It tells nobody; others override its methods."""

    def __call__(self, done: int) -> None:
        """So many more units are done."""

    def note(self, text: str) -> None:
        """Where the stage stands, in words; the next note takes its place."""


class Progress:
    """Reports to nobody. Others override its methods."""

    def plan(self, expected_s: Mapping[str, float]) -> None:
        """Name the stages to come, in order, with the seconds each usually takes."""

    @contextlib.contextmanager
    def stage(self, label: str, total: int, unit: str = "") -> Iterator[Stage]:
        """Enter a stage of `total` units (0: not known); gives what is told how it goes."""
        yield Stage()

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
        self.console = console
        self._plan = Plan({})

    def plan(self, expected_s: Mapping[str, float]) -> None:
        """Keep the plan for the estimates."""
        self._plan = Plan(expected_s)

    def say(self, line: str) -> None:
        """Print the line above the bars; it is text, not markup."""
        self.console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)

    @contextlib.contextmanager
    def stage(self, label: str, total: int, unit: str = "") -> Iterator[Stage]:
        """A bar for the stage, and how long the whole run will still take."""
        self._plan.enter(label)
        stage = _ConsoleStage(self, label, total, unit)
        with stage.bars:
            stage(0)
            yield stage
        taken_s = time.perf_counter() - stage.start
        self._plan.leave(label, taken_s)
        left = self.left("", 0.0, 0.0)
        self.say(f"{label:<34} {stage.done:>6} {unit:<8} {_clock(taken_s)}   {left}".rstrip())

    def left(self, label: str, share_done: float, spent_s: float) -> str:
        """What is left of the whole run in words; nothing where there is no plan."""
        if not self._plan.total_s:
            return ""
        return f"{_about(self._plan.remaining_s(label, share_done, spent_s))} left"


class _ConsoleStage(Stage):
    """A stage with its bar."""

    def __init__(self, progress: ConsoleProgress, label: str, total: int, unit: str) -> None:
        self._progress = progress
        self._label = label
        self._total = total
        self.start = time.perf_counter()
        self._noted = self.start
        self.done = 0
        self.bars = _Bars(
            TextColumn("{task.description:<34}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[whole]}"),
            console=progress.console,
            transient=True,
            disable=not progress.console.is_terminal,
        )
        self._task = self.bars.add_task(label, total=total or None, unit=unit, whole="")

    def __call__(self, done: int) -> None:
        self.done += done
        share = min(1.0, self.done / self._total) if self._total else 0.0
        left = self._progress.left(self._label, share, time.perf_counter() - self.start)
        whole = left and f"| whole run: {left}"
        self.bars.update(self._task, completed=self.done, whole=whole)

    def note(self, text: str) -> None:
        self.bars.note = text
        now = time.perf_counter()
        if self.bars.disable and now - self._noted >= NOTE_EVERY_S:
            self._noted = now
            of = f" of {self._total}" if self._total else ""
            self._progress.say(f"{self._label}, {self.done}{of}: {text}")


class _Bars(Bars):
    """Bars with a note below them."""

    note = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.note:
            yield Text(f"  {self.note}", "dim")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def _about(seconds: float) -> str:
    """A duration as roughly as it is known."""
    if seconds < 50:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    return f"about {max(1, round(seconds / 60))} min"
