"""A report as a list of sections: facts, tables, texts. `page.html.j2` shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from symdistill.reporting.report import page_template


@dataclass(frozen=True, slots=True)
class Shown:
    """A text to look at, what stands over and under it, and its id."""

    text: str
    over: str = ""
    under: str = ""
    id: str = ""

    @property
    def lines(self) -> list[str]:
        """The text by lines."""
        return self.text.strip().splitlines() or [""]


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with facts, a table or texts below it."""

    title: str
    about: str = ""
    pairs: Sequence[tuple[str, str]] | None = None
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    texts: Sequence[Shown] | None = None
    level: int = 2


def render(
    title: str, name: str, about: str, claims: Sequence[str], sections: Sequence[Section]
) -> str:
    """The page as HTML text; all of it is escaped."""
    page: str = page_template("recipes", "page.html.j2").render(
        title=title, name=name, about=about, claims=claims, sections=sections
    )
    return page
