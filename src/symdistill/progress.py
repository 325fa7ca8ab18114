"""Progress as stages report it: a stage of so many units, of which some are done.

`Progress` is what the work sees; it shows nothing. The command line shows bars with it
(`cli.py`), tests count with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

Advance = Callable[[int], None]
"""Called with how many units were done since the last call."""


class Progress:
    """Reports to nobody. Others override `stage` and `say`."""

    @contextlib.contextmanager
    def stage(self, label: str, total: int, unit: str = "") -> Iterator[Advance]:
        """Enter a stage of `total` units; gives the function that advances it."""
        yield lambda done: None

    def say(self, line: str) -> None:
        """One line that the user should see, such as what a round came to."""
