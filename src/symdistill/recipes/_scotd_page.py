"""What a `scotd` run came to, for people: one HTML page, and a summary for the terminal.

Both read metrics.json alone. What a model wrote is text: escaped, with control characters shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symdistill.evaluation.corpus import corpus_table
from symdistill.recipes import _page
from symdistill.recipes._page import Section, Shown
from symdistill.recipes._skd_page import counts, ranged, share
from symdistill.reporting import read_metrics, words
from symdistill.reporting.fields import Row, number, part, rows
from symdistill.reporting.page_tables import flat
from symdistill.reporting.report import write_page
from symdistill.visible import visible

if TYPE_CHECKING:
    from rich.console import Group

ARM_COLUMNS = ("student", "right, greedy", "right, by vote", "contrast sets", "no answer",
               "tokens read", "tokens written", "GFLOPs an answer")  # fmt: skip
PAIR_COLUMNS = ("student", "against", "difference", "p", "p (Holm)", "decided on beforehand")

ABOUT = (
    "Report of a run of the recipe scotd, seed {seed}. Answers are read by a program and compared "
    "with the gold ones ({protocol}); intervals are 95 %. A right answer does not show that its "
    "chain is right. The comparison decided on beforehand is marked; all others are exploratory."
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
    name = str(metrics.get("name"))
    about = ABOUT.format(seed=metrics.get("seed"), protocol=metrics.get("protocol"))
    return _page.render(
        f"{name}: chains of thought", name, about, words.certificate_sentences(metrics),
        sections(metrics),
    )  # fmt: skip


def sections(metrics: Row) -> list[Section]:
    """The page's parts, in order."""
    shown, review = part(metrics, "examples"), part(metrics, "review")
    heading, *measures = corpus_cells(metrics)
    contamination = part(part(metrics, "questions"), "contamination")
    found = [
        Section("Figures", pairs=facts(metrics)),
        Section("Students on the test questions", columns=ARM_COLUMNS,
                rows=[arm_row(one) for one in rows(metrics, "arms")],
                about="Greedy answers over all training seeds. FLOPs: two for each parameter and "
                "token, and attention; prompt and answer."),
        Section("Compared, question by question", columns=PAIR_COLUMNS,
                rows=[pair_row(one) for one in rows(metrics, "comparisons")]),
        Section("The corpus, before training", columns=heading, rows=measures,
                about="All samples, right or wrong; perplexity under the reference model."),
        Section("Chains not trained on",
                pairs=counts(part(part(metrics, "chosen"), "refused"))),
    ]  # fmt: skip
    if contamination:
        found.append(Section("Training questions that repeat a test question",
                             pairs=counts(part(contamination, "removed"))))  # fmt: skip
    for title, key in (("Chains that were kept", "kept"), ("Chains that were not", "rejected"),
                       ("The first student", "students")):  # fmt: skip
        found.append(Section(title, texts=[example(one) for one in rows(shown, key)]))
    marked = [
        Shown(str(one.get("text")), under=str(one.get("reason")), id=str(one.get("id")))
        for one in rows(review, "lines")
    ]
    found.append(
        Section(f"Marked for review: {words.count(number(review, 'marked'))}", texts=marked)
    )
    found.append(Section("Settings, versions"))
    for title, key in (("Settings", "config"), ("Versions", "versions"), ("Machine", "machine")):
        found.append(Section(title, pairs=flat(part(metrics, key)), level=3))
    return found


def facts(metrics: Row) -> list[tuple[str, str]]:
    """The run's figures in words."""
    questions, chosen = part(metrics, "questions"), part(metrics, "chosen")
    splits = part(questions, "splits")
    bill = rows(metrics, "bill")
    cost = [number(one, "cost_usd") for one in bill]
    known = [one for one in cost if one is not None]
    asked = [part(part(metrics, "asked"), name) for name in part(metrics, "asked")]
    seen = part(metrics, "seen")
    effect = number(seen, "effect")
    return [
        ("Teacher", str(metrics.get("teacher"))),
        ("Questions for training", words.count(number(splits, "train"))),
        ("Questions for the test", words.count(number(splits, "test"))),
        ("Rows refused", words.count(sum(part(questions, "refused").values()))),
        ("Chains asked for", words.count(sum(number(one, "asked") or 0 for one in asked))),
        ("Samples without an answer", words.count(sum(number(o, "failed") or 0 for o in asked))),
        ("Distinct chains to choose from", words.count(number(chosen, "of"))),
        ("Chains trained on", words.count(number(chosen, "kept"))),
        ("Chance level of the test", share(number(seen, "chance"))),
        ("Smallest difference it sees", "–" if effect is None else f"{effect:.3f}"),
        ("Marked for review", words.count(number(part(metrics, "review"), "marked"))),
        ("Tokens in", words.count(sum(number(one, "tokens_in") or 0 for one in bill))),
        ("Tokens out", words.count(sum(number(one, "tokens_out") or 0 for one in bill))),
        ("Cost", f"{sum(known):.4f} USD" if len(known) == len(cost) else "price unknown"),
        ("Time", words.duration(number(metrics, "wall_s"))),
    ]  # fmt: skip


def corpus_cells(metrics: Row) -> list[list[str]]:
    """The corpus report as a table, its heading first."""
    found = part(metrics, "corpus")
    return corpus_table(found) if found else [["teacher"]]


def arm_row(one: Row) -> list[str]:
    """A student as a row of the table."""
    cost = part(one, "cost")
    texts, flops = number(cost, "texts"), number(cost, "flops")
    return [
        str(one.get("name")),
        ranged(one, "accuracy", "accuracy_interval"),
        ranged(one, "vote", "vote_interval"),
        ranged(one, "consistency", "consistency_interval"),
        share(number(one, "no_answer")),
        words.count(number(cost, "prompt_tokens")),
        words.count(number(cost, "generated_tokens")),
        f"{flops / texts / 1e9:.1f}" if texts and flops is not None else "–",
    ]


def pair_row(one: Row) -> list[str]:
    """A comparison as a row of the table."""
    p, adjusted = number(one, "p"), number(one, "p_holm")
    return [
        str(one.get("arm")),
        str(one.get("against")),
        ranged(one, "difference", "difference_interval", signed=True),
        "–" if p is None else f"{p:.3f}",
        "–" if adjusted is None else f"{adjusted:.3f}",
        "yes" if one.get("primary") else "no",
    ]


def example(one: Row) -> Shown:
    """A chain to look at: its question, what came of it, its id."""
    said = f"answer: {one.get('answer')}, gold: {one.get('gold')}"
    if one.get("reason"):
        said += f" · {one.get('reason')}"
    return Shown(str(one.get("text")), str(one.get("question")), said, str(one.get("id") or ""))


def console_summary(
    metrics: Row, *, report: Path | str, next_commands: Sequence[str] = ()
) -> Group:
    """The end of a run: its figures, the corpus, the students, one of their chains."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[Any] = [
        Text.assemble("Run ", (visible(str(metrics.get("name"))), "bold"), ": finished")
    ]
    for label, said in facts(metrics):
        parts.append(Text.assemble((f"{label:<32}", "dim"), visible(said)))
    heading, *measures = corpus_cells(metrics)
    for title, columns, body in (
        ("The corpus, before training", heading, measures),
        ("Students", ARM_COLUMNS, [arm_row(one) for one in rows(metrics, "arms")]),
        ("Compared", PAIR_COLUMNS, [pair_row(one) for one in rows(metrics, "comparisons")]),
    ):
        if not body:
            continue
        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in columns:
            table.add_column(visible(column), overflow="fold")
        for row in body:
            table.add_row(*(Text(visible(cell)) for cell in row))
        parts += [Text(), Text(title, "bold"), table]
    some = rows(part(metrics, "examples"), "students")[:2]
    if some:
        parts += [Text(), Text("What the first student writes:", "bold")]
    for one in map(example, some):
        parts.append(Text(f"  {visible(one.over)}", "dim"))
        parts += [Text(f"  {visible(line)}") for line in one.lines]
        parts.append(Text(f"  {visible(one.under)}", "dim"))
    parts += [Text(), Text.assemble(("Report: ", "bold"), visible(str(report)))]
    if next_commands:
        parts += [Text(), Text("Next, try:", "bold")]
        for command in next_commands:  # on one line each, to be copied
            parts.append(Text(f"  {command}", no_wrap=True, overflow="ignore"))
    return Group(*parts)
