"""What a `scotd` run came to, for people: one HTML page, and a summary for the terminal.

Both read metrics.json alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from symdistill.evaluation.corpus import corpus_table
from symdistill.recipes import _page
from symdistill.recipes._page import Section, Shown, bill, closing, counts, ranged, share
from symdistill.reporting import read_metrics, words
from symdistill.reporting.fields import Row, number, part, rows
from symdistill.reporting.report import write_page

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


ABOUT_ARMS = (
    "Greedy answers over all training seeds; the intervals are for other questions, not for other "
    "seeds. FLOPs: two for each parameter and token, and attention; prompt and answer."
)
ABOUT_CORPUS = "All samples, right or wrong; perplexity under the reference model."


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
    shown = part(metrics, "examples")
    contamination = part(part(metrics, "questions"), "contamination")
    found = [
        Section("Figures", pairs=facts(metrics)),
        arms(metrics),
        pairs(metrics),
        corpus(metrics),
        Section("Chains not trained on", pairs=counts(part(part(metrics, "chosen"), "refused"))),
    ]
    if contamination:
        title = "Training questions that repeat a test question"
        found.append(Section(title, pairs=counts(part(contamination, "removed"))))
    for title, key in (("Chains that were kept", "kept"), ("Chains that were not", "rejected"),
                       ("The first student", "students")):  # fmt: skip
        found.append(Section(title, texts=[example(one) for one in rows(shown, key)]))
    return [*found, *closing(metrics)]


def arms(metrics: Row) -> Section:
    """The students as a table."""
    body = [arm_row(one) for one in rows(metrics, "arms")]
    return Section("Students on the test questions", ABOUT_ARMS, columns=ARM_COLUMNS, rows=body)


def pairs(metrics: Row) -> Section:
    """The comparisons as a table."""
    body = [pair_row(one) for one in rows(metrics, "comparisons")]
    return Section("Compared, question by question", columns=PAIR_COLUMNS, rows=body)


def corpus(metrics: Row) -> Section:
    """The corpus report as a table."""
    found = part(metrics, "corpus")
    heading, *body = corpus_table(found) if found else [["teacher"]]
    return Section("The corpus, before training", ABOUT_CORPUS, columns=heading, rows=body)


def facts(metrics: Row) -> list[tuple[str, str]]:
    """The run's figures in words."""
    questions, chosen = part(metrics, "questions"), part(metrics, "chosen")
    splits = part(questions, "splits")
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
        ("Test questions not checked", words.count(number(metrics, "unchecked"))),
        ("Marked for review", words.count(number(part(metrics, "review"), "marked"))),
        *bill(metrics),
    ]  # fmt: skip


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
        f"{flops / texts / 1e9:.3g}" if texts and flops is not None else "–",
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
    """The end of a run: its figures, the corpus, the students, two of their chains."""
    some = [example(one) for one in rows(part(metrics, "examples"), "students")[:2]]
    sections = [
        Section("", pairs=facts(metrics)),
        corpus(metrics),
        arms(metrics),
        pairs(metrics),
        Section("What the first student writes", texts=some),
    ]
    return _page.console(str(metrics.get("name")), sections, report, next_commands)
