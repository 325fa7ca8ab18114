"""A recipe's report and its summary for the terminal, put together from sections.

A section is a heading with facts, a table or texts to look at. `page.html.j2` shows all of them on
one page; on the terminal those that are wanted. What a model wrote is text: escaped on the page,
and control characters are shown on both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symdistill.reporting import words
from symdistill.reporting.fields import Row, interval, number, part, rows
from symdistill.reporting.page_tables import flat
from symdistill.reporting.report import page_template
from symdistill.visible import visible

if TYPE_CHECKING:
    from rich.console import Group


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


def console(
    name: str, sections: Sequence[Section], report: Path | str, next_commands: Sequence[str]
) -> Group:
    """The end of a run on the terminal; a section without facts, rows and texts is left out."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[Any] = [Text.assemble("Run ", (visible(name), "bold"), ": finished")]
    for section in sections:
        if not (section.pairs or section.rows or section.texts):
            continue
        if section.title:
            parts += [Text(), Text(section.title, "bold")]
        for label, said in section.pairs or ():
            parts.append(Text.assemble((f"{label:<32}", "dim"), visible(said)))
        if section.rows:
            table = Table(box=None, padding=(0, 2, 0, 0))
            for place, column in enumerate(section.columns):
                table.add_column(visible(column), overflow="fold", no_wrap=not place)
            for row in section.rows:
                table.add_row(*(Text(visible(cell)) for cell in row))
            parts.append(table)
        for one in section.texts or ():
            for line, style in ((one.over, "dim"), *((x, "") for x in one.lines),
                                (one.under, "dim")):  # fmt: skip
                if line:
                    parts.append(Text(f"  {visible(line)}", style))
    parts += [Text(), Text.assemble(("Report: ", "bold"), visible(str(report)))]
    if next_commands:
        parts += [Text(), Text("Next, try:", "bold")]
        for command in next_commands:  # on one line each, to be copied
            parts.append(Text(f"  {command}", no_wrap=True, overflow="ignore"))
    return Group(*parts)


def closing(metrics: Row) -> list[Section]:
    """What every page ends with: lines for review, then settings, versions and machine."""
    review = part(metrics, "review")
    marked = [
        Shown(str(one.get("text")), under=str(one.get("reason")), id=str(one.get("id")))
        for one in rows(review, "lines")
    ]
    title = f"Marked for review: {words.count(number(review, 'marked'))}"
    found = [Section(title, texts=marked), Section("Settings, versions")]
    for title, key in (("Settings", "config"), ("Versions", "versions"), ("Machine", "machine")):
        found.append(Section(title, pairs=flat(part(metrics, key)), level=3))
    return found


def bill(metrics: Row) -> list[tuple[str, str]]:
    """Tokens, cost and time of a run."""
    paid = rows(metrics, "bill")
    cost = [number(one, "cost_usd") for one in paid]
    known = [one for one in cost if one is not None]
    return [
        ("Tokens in", words.count(sum(number(one, "tokens_in") or 0 for one in paid))),
        ("Tokens out", words.count(sum(number(one, "tokens_out") or 0 for one in paid))),
        ("Cost", f"{sum(known):.4f} USD" if len(known) == len(cost) else "price unknown"),
        ("Time", words.duration(number(metrics, "wall_s"))),
    ]


def counts(found: Row) -> list[tuple[str, str]]:
    """What was counted by reason, in words."""
    return [(str(reason), words.count(number(found, reason))) for reason in found]


def share(value: float | None) -> str:
    """A share in percent; a dash where it is not known."""
    return "–" if value is None else f"{value:.0%}"


def ranged(one: Row, key: str, ends: str, *, signed: bool = False) -> str:
    """A number with its 95 % interval; a dash where it is not known."""
    value, between = number(one, key), interval(one, ends)
    if value is None:
        return "–"
    form = "+.2f" if signed else ".2f"
    around = "" if between is None else f" ({between[0]:{form}} to {between[1]:{form}})"
    return f"{value:{form}}{around}"
