"""What an `ask` run came to, for people: one HTML page, and a summary for the terminal.

Both read metrics.json alone. What a model wrote is text: escaped, with control characters shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symdistill.reporting import read_metrics, words
from symdistill.reporting.fields import Row, number, part, rows
from symdistill.reporting.page_tables import flat, review_lines
from symdistill.reporting.report import page_template, write_page
from symdistill.visible import visible

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

TEMPLATE = "answers.html.j2"
SHOWN = 10  # answers on the terminal
CHARACTERS = 200  # of each; the report shows it whole


def write_report(run: Path) -> Path:
    """Write RUN/report.html from RUN/metrics.json and return its path.

    Raises:
        InputError: no run folder, no metrics.json, or one that does not hold what it should.
        RunError: the page cannot be written.
    """
    return write_page(run, render(read_metrics(run)))


def render(metrics: Row) -> str:
    """The page as HTML text."""
    examples = part(metrics, "examples")
    page: str = page_template("recipes", TEMPLATE).render(
        name=str(metrics.get("name")),
        seed=metrics.get("seed"),
        certificates=words.certificate_sentences(metrics),
        figures=figures(metrics),
        failures=counts(part(metrics, "failures")),
        refused=counts(part(metrics, "refused")),
        review=counts(part(part(metrics, "review"), "rules")),
        review_lines=review_lines(part(metrics, "review")),
        kept=rows(examples, "kept"),
        failed=rows(examples, "failed"),
        groups={
            "Teacher": flat(part(metrics, "teacher")),
            "Settings": flat(part(metrics, "config")),
            "Versions": flat(part(metrics, "versions")),
            "Machine": flat(part(metrics, "machine")),
        },
    )
    return page


def figures(metrics: Row) -> list[tuple[str, str]]:
    """The run's figures in words."""
    bill = part(metrics, "bill")
    cost = number(bill, "cost_usd")
    lost = part(metrics, "uncertain")
    uncertain = (
        f"{words.count(number(lost, 'requests'))} requests, {number(lost, 'cost_usd') or 0:.4f} USD"
    )
    return [
        ("Questions", words.count(number(metrics, "questions"))),
        ("Rows refused", words.count(sum(part(metrics, "refused").values()))),
        ("Answers", words.count(number(metrics, "answers"))),
        ("Distinct answers", words.count(number(metrics, "distinct"))),
        ("Samples without an answer", words.count(number(metrics, "failed"))),
        ("Requests", words.count(number(bill, "requests"))),
        ("Tokens in", words.count(number(bill, "tokens_in"))),
        ("Tokens out", words.count(number(bill, "tokens_out"))),
        ("Cost", "price unknown" if cost is None else f"{cost:.4f} USD"),
        *([("Of it at most, no reply", uncertain)] if number(lost, "requests") else []),
        ("Time", words.duration(number(metrics, "wall_s"))),
    ]


def counts(found: Row) -> list[tuple[str, str]]:
    """What was counted by reason, in words."""
    return [(str(reason), words.count(number(found, reason))) for reason in found]


def console_summary(
    metrics: Row, *, report: Path | str, next_commands: Sequence[str] = ()
) -> Group:
    """The end of a run: its figures, some answers, where the report is, what to try next."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    teacher = part(metrics, "teacher")
    told = [("Teacher", str(teacher.get("name"))), *figures(metrics)]
    told += [(f"Failed: {kind}", said) for kind, said in counts(part(metrics, "failures"))]
    parts: list[Any] = [_line(("Run ", ""), (str(metrics.get("name")), "bold"), (": finished", ""))]
    parts += [_line((f"{label:<28}", "dim"), (said, "")) for label, said in told]
    if review := words.review_sentence(metrics):
        parts.append(_line((review, "yellow")))
    for title, which, key in (("answers", "kept", "text"), ("failures", "failed", "reason")):
        some = rows(part(metrics, "examples"), which)[:SHOWN]
        if not some:
            continue
        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True)
        for one in some:
            table.add_row(
                _line((f"  {one['id']}", "dim")),
                _line((_short(str(one["question"])), "dim")),
                _line((_short(str(one[key])), "")),
            )
        parts += [Text(), _line((f"Some {title}:", "bold")), table]
    parts += [Text(), _line(("Report: ", "bold"), (str(report), ""))]
    if next_commands:
        parts += [Text(), _line(("Next, try:", "bold"))]
        for command in next_commands:  # on one line each, to be copied
            parts.append(Text(f"  {command}", no_wrap=True, overflow="ignore"))
    return Group(*parts)


def _short(text: str) -> str:
    return text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "…"


def _line(*said: tuple[str, str]) -> Text:
    """Plain text in pieces, each with its style."""
    from rich.text import Text

    return Text.assemble(*((visible(text), style) for text, style in said))
