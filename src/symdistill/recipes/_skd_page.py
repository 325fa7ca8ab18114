"""What an `skd` run came to, for people: one HTML page, and a summary for the terminal.

Both read metrics.json alone. What a model wrote is text: escaped, with control characters shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symdistill.reporting import read_metrics, words
from symdistill.reporting.fields import Row, interval, number, part, rows
from symdistill.reporting.page_tables import flat
from symdistill.reporting.report import page_template, write_page
from symdistill.visible import visible

if TYPE_CHECKING:
    from rich.console import Group

TEMPLATE = "skd.html.j2"

LEVEL_COLUMNS = ("level", "cut", "kept", "share", "precision (estimate)", "unique", "softly unique")
UNSEEN_COLUMNS = ("who", "heads", "tails", "accepted by the judge", "against the teacher",
                  "no tail", "distinct tails")  # fmt: skip


def write_report(run: Path) -> Path:
    """Write RUN/report.html from RUN/metrics.json and return its path.

    Raises:
        InputError: no run folder, no metrics.json, or one that does not hold what it should.
        RunError: the page cannot be written.
    """
    return write_page(run, render(read_metrics(run)))


def render(metrics: Row) -> str:
    """The page as HTML text."""
    shown = part(metrics, "examples")
    review = part(metrics, "review")
    page: str = page_template("recipes", TEMPLATE).render(
        name=str(metrics.get("name")),
        seed=metrics.get("seed"),
        certificates=words.certificate_sentences(metrics),
        figures=facts(metrics),
        judged=judged(metrics),
        refused={
            "Heads refused": counts(part(part(metrics, "heads"), "refused")),
            "Tails refused": counts(part(part(metrics, "inferences"), "refused")),
            "Samples without an answer": counts(part(part(metrics, "inferences"), "failures")),
        },
        level_columns=LEVEL_COLUMNS,
        levels=[level_row(one) for one in rows(metrics, "levels")],
        unseen_columns=UNSEEN_COLUMNS,
        unseen=[unseen_row(one) for one in rows(metrics, "unseen")],
        examples={
            "Pass the strictest level": [example(one) for one in rows(shown, "kept")],
            "Do not": [example(one) for one in rows(shown, "rejected")],
        },
        review=rows(review, "lines"),
        marked=words.count(number(review, "marked")),
        groups={
            "Settings": flat(part(metrics, "config")),
            "Versions": flat(part(metrics, "versions")),
            "Machine": flat(part(metrics, "machine")),
        },
    )
    return page


def facts(metrics: Row) -> list[tuple[str, str]]:
    """The run's figures in words."""
    heads, inferences = part(metrics, "heads"), part(metrics, "inferences")
    bill = rows(metrics, "bill")
    cost = [number(one, "cost_usd") for one in bill]
    known = [one for one in cost if one is not None]
    total = f"{sum(known):.4f} USD" if len(known) == len(cost) else "price unknown"
    return [
        ("Teacher", str(metrics.get("teacher"))),
        ("Heads", words.count(number(heads, "kept"))),
        ("Inferences asked for", words.count(number(inferences, "asked"))),
        ("Accepted", words.count(number(inferences, "accepted"))),
        ("Distinct triples", words.count(number(inferences, "distinct"))),
        ("Samples without an answer", words.count(number(inferences, "failed"))),
        ("Marked for review", words.count(number(part(metrics, "review"), "marked"))),
        ("Tokens in", words.count(sum(number(one, "tokens_in") or 0 for one in bill))),
        ("Tokens out", words.count(sum(number(one, "tokens_out") or 0 for one in bill))),
        ("Cost", total),
        ("Time", words.duration(number(metrics, "wall_s"))),
    ]


def judged(metrics: Row) -> list[tuple[str, str]]:
    """What is known of critic and judge."""
    found = []
    for title, one in (("Critic", part(metrics, "critic")), ("Judge", part(metrics, "judge"))):
        if not one:
            found.append((title, "none"))
            continue
        found.append((f"{title}: AUC on unseen heads", ranged(one, "auc", "auc_interval")))
    share = number(part(metrics, "critic"), "labelled_valid_share")
    if share is not None:
        found.append(("Labelled triples that are valid", f"{share:.0%}"))
    return found


def level_row(one: Row) -> list[str]:
    """A filter level as a row of the table."""
    cut = number(one, "cut")
    return [
        str(one.get("name")),
        "none" if cut is None else f"{cut:.3f}",
        words.count(number(one, "kept")),
        share(number(one, "kept_share")),
        ranged(one, "precision_estimate", "precision_interval"),
        share(number(one, "strict_uniqueness")),
        share(number(one, "soft_uniqueness")),
    ]


def unseen_row(one: Row) -> list[str]:
    """Teacher or student on unseen heads as a row of the table."""
    name = str(one.get("name"))
    return [
        name if name.startswith("teacher") else f"student, {name}",
        words.count(number(one, "heads")),
        words.count(number(one, "tails")),
        ranged(one, "accept_rate", "accept_rate_interval"),
        ranged(one, "difference", "difference_interval", signed=True),
        words.count(number(one, "refused")),
        words.count(number(one, "distinct_tails")),
    ]


def example(one: Row) -> tuple[str, str, str]:
    """A line to look at: its score, its text, its id."""
    score = number(one, "score")
    return "" if score is None else f"{score:.2f}", str(one.get("text")), str(one.get("id"))


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


def console_summary(
    metrics: Row, *, report: Path | str, next_commands: Sequence[str] = ()
) -> Group:
    """The end of a run: its figures, the levels, who says what of unseen heads, some lines."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[Any] = [
        Text.assemble("Run ", (visible(str(metrics.get("name"))), "bold"), ": finished")
    ]
    for label, said in [*facts(metrics), *judged(metrics)]:
        parts.append(Text.assemble((f"{label:<32}", "dim"), visible(said)))
    for title, columns, body in (
        ("Filter levels", LEVEL_COLUMNS, [level_row(one) for one in rows(metrics, "levels")]),
        ("Unseen heads", UNSEEN_COLUMNS, [unseen_row(one) for one in rows(metrics, "unseen")]),
    ):
        if not body:
            continue
        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in body:
            table.add_row(*(Text(visible(cell)) for cell in row))
        parts += [Text(), Text(title, "bold"), table]
    some = rows(part(metrics, "examples"), "kept")
    if some:
        parts += [Text(), Text("Some triples that pass the strictest level:", "bold")]
        parts += [Text(f"  {visible(' '.join(example(one)[:2]).strip())}") for one in some]
    parts += [Text(), Text.assemble(("Report: ", "bold"), visible(str(report)))]
    if next_commands:
        parts += [Text(), Text("Next, try:", "bold")]
        for command in next_commands:  # on one line each, to be copied
            parts.append(Text(f"  {command}", no_wrap=True, overflow="ignore"))
    return Group(*parts)
