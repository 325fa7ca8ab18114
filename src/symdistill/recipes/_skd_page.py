"""What an `skd` run came to, for people: one HTML page, and a summary for the terminal.

Both read metrics.json alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from symdistill.recipes import _page
from symdistill.recipes._page import Section, Shown, bill, closing, counts, ranged, share
from symdistill.reporting import read_metrics, words
from symdistill.reporting.fields import Row, number, part, rows
from symdistill.reporting.report import write_page

if TYPE_CHECKING:
    from rich.console import Group

LEVEL_COLUMNS = ("level", "cut", "kept", "share", "precision (estimate)", "unique", "softly unique")
UNSEEN_COLUMNS = ("who", "heads", "tails", "accepted by the judge", "against the teacher",
                  "no tail", "distinct tails")  # fmt: skip

ABOUT = (
    "Report of a run of the recipe skd, seed {seed}. The precision of a filter level is an "
    "estimate from the critic's labels, not a certificate; intervals are 95 %, heads drawn whole. "
    "Nobody has read the lines below: symdistill label and symdistill certify are for that."
)
ABOUT_LEVELS = (
    "Every triple is in corpus.jsonl with its score, so it can be cut elsewhere. Uniqueness is "
    "that of as many lines of each level."
)
ABOUT_UNSEEN = (
    "One greedy tail per head and relation. The judge is of another kind than the critic and was "
    "trained on other labels; its AUC above says how far to trust it. No tail: cut off, too short, "
    "or about someone of the examples; it counts as not accepted."
)


def write_report(run: Path) -> Path:
    """Write RUN/report.html from RUN/metrics.json and return its path.

    Raises:
        InputError: no run folder, no metrics.json, or one that does not hold what it should.
        RunError: the page cannot be written.
    """
    return write_page(run, render(read_metrics(run)))


def render(metrics: Row) -> str:
    """The page as HTML text."""
    name, inferences = str(metrics.get("name")), part(metrics, "inferences")
    sections = [
        Section("Figures", pairs=facts(metrics)),
        levels(metrics),
        Section("Critic and judge", pairs=judged(metrics), level=3),
    ]
    if rows(metrics, "unseen"):
        sections.append(unseen(metrics))
    sections.append(Section("Some triples"))
    for title, key in (("Pass the strictest level", "kept"), ("Do not", "rejected")):
        some = [example(one) for one in rows(part(metrics, "examples"), key)]
        sections.append(Section(title, texts=some, level=3))
    for title, why in (
        ("Heads refused", part(part(metrics, "heads"), "refused")),
        ("Tails refused", part(inferences, "refused")),
        ("Samples without an answer", part(inferences, "failures")),
    ):
        if why:
            sections.append(Section(title, pairs=counts(why), level=3))
    claims = words.certificate_sentences(metrics)
    about = ABOUT.format(seed=metrics.get("seed"))
    return _page.render(f"{name}: triples", name, about, claims, [*sections, *closing(metrics)])


def facts(metrics: Row) -> list[tuple[str, str]]:
    """The run's figures in words."""
    heads, inferences = part(metrics, "heads"), part(metrics, "inferences")
    return [
        ("Teacher", str(metrics.get("teacher"))),
        ("Heads", words.count(number(heads, "kept"))),
        ("Inferences asked for", words.count(number(inferences, "asked"))),
        ("Accepted", words.count(number(inferences, "accepted"))),
        ("Distinct triples", words.count(number(inferences, "distinct"))),
        ("Samples without an answer", words.count(number(inferences, "failed"))),
        ("Marked for review", words.count(number(part(metrics, "review"), "marked"))),
        *bill(metrics),
    ]


def judged(metrics: Row) -> list[tuple[str, str]]:
    """What is known of critic and judge."""
    found = []
    for title, one in (("Critic", part(metrics, "critic")), ("Judge", part(metrics, "judge"))):
        if not one:
            found.append((title, "none"))
            continue
        found.append((f"{title}: AUC on unseen heads", ranged(one, "auc", "auc_interval")))
    valid = number(part(metrics, "critic"), "labelled_valid_share")
    if valid is not None:
        found.append(("Labelled triples that are valid", f"{valid:.0%}"))
    return found


def levels(metrics: Row) -> Section:
    """The filter levels as a table."""
    body = [level_row(one) for one in rows(metrics, "levels")]
    return Section("Filter levels", ABOUT_LEVELS, columns=LEVEL_COLUMNS, rows=body)


def unseen(metrics: Row) -> Section:
    """Teacher and students on unseen heads as a table."""
    body = [unseen_row(one) for one in rows(metrics, "unseen")]
    title = "Unseen heads: students and teacher"
    return Section(title, ABOUT_UNSEEN, columns=UNSEEN_COLUMNS, rows=body)


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


def example(one: Row) -> Shown:
    """A line to look at, with its score and its id."""
    score = number(one, "score")
    under = "" if score is None else f"score {score:.2f}"
    return Shown(str(one.get("text")), under=under, id=str(one.get("id")))


def console_summary(
    metrics: Row, *, report: Path | str, next_commands: Sequence[str] = ()
) -> Group:
    """The end of a run: its figures, the levels, who says what of unseen heads, some lines."""
    some = [example(one) for one in rows(part(metrics, "examples"), "kept")]
    sections = [
        Section("", pairs=[*facts(metrics), *judged(metrics)]),
        levels(metrics),
        unseen(metrics),
        Section("Some triples that pass the strictest level", texts=some),
    ]
    return _page.console(str(metrics.get("name")), sections, report, next_commands)
