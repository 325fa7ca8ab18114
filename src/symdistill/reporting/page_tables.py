"""Which tables the report shows, and what of metrics.json goes into each.

Measures run down and rounds across, so that a table fits a phone. Cells are words already.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from symdistill.reporting import words
from symdistill.reporting.fields import Row, interval, number, part, rows
from symdistill.reporting.page_charts import reason_bars, stage_bars
from symdistill.reporting.plots import Bar
from symdistill.reporting.words import Say


@dataclass(frozen=True)
class Table:
    """A table of the page: the first cell of each row is the row's header."""

    caption: str
    head: Sequence[str]
    body: Sequence[Sequence[str]]


def round_table(rounds: Sequence[Row]) -> Table:
    """Measures down, rounds across: a phone holds it."""

    def plain(key: str, say: Say) -> list[str]:
        return [say(number(row, key)) for row in rounds]

    def ranged(key: str, ends: str, say: Say) -> list[str]:
        return [words.with_interval(number(row, key), interval(row, ends), say) for row in rounds]

    rate, amount, count = words.rate, words.amount, words.count
    independent = "accept_rate_independent"
    body = [
        ("Lines sampled", plain("sampled", count)),
        ("Distinct lines written", plain("written", count)),
        ("Lines kept", plain("kept", count)),
        ("Ended before the limit", plain("finished_share", rate)),
        ("Accept rate, critic", ranged("accept_rate", "accept_rate_interval", rate)),
        ("Accept rate, judge", ranged(independent, f"{independent}_interval", rate)),
        ("Estimated precision", ranged("precision_estimate", "precision_interval", rate)),
        ("Specificity, written (nats)", ranged("specificity", "specificity_interval", amount)),
        ("Specificity, kept (nats)", plain("specificity_kept", amount)),
        ("Specificity per token (nats)", plain("specificity_per_token", amount)),
        ("Accepted when swapped", plain("swap_accept_share", rate)),
        ("Rarity", plain("rarity", amount)),
        ("Words per line", plain("words_mean", amount)),
        ("Distinct-1", plain("distinct_1", rate)),
        ("Distinct-2", plain("distinct_2", rate)),
        ("Soft uniqueness", plain("soft_uniqueness", rate)),
        ("Good-Turing coverage", plain("good_turing_coverage", rate)),
        ("Chao1 lower bound", plain("chao1_lower", count)),
        ("Time", plain("wall_s", words.duration)),
    ]
    head = ["Measure", *(words.round_name(row) for row in rounds)]
    return Table("Per round; in brackets 95 % intervals", head, [[a, *b] for a, b in body])


def critic_table(critics: Sequence[Row]) -> Table | None:
    """Each critic: its labels, its AUC beside the baselines, its cut."""
    if not critics:
        return None
    rate = words.rate

    def line(name: str, key: str, say: Say = rate, ends: str = "") -> list[str]:
        cells = [
            words.with_interval(number(one, key), interval(one, ends) if ends else None, say)
            for one in critics
        ]
        return [name, *cells]

    labels = [
        [f"Labels, {split}", *(words.count(number(part(one, "labels"), split)) for one in critics)]
        for split in _keys(part(one, "labels") for one in critics)
    ]
    body = [
        ["Version", *(str(one.get("version") or words.NOT_MEASURED) for one in critics)],
        *labels,
        line("AUC", "auc", ends="auc_interval"),
        line("AUC, likelihood alone", "auc_likelihood"),
        line("AUC, “negated means false”", "auc_negation"),
        line("Average precision", "average_precision"),
        line("Calibration error (ECE)", "ece"),
        line("Cut", "cut"),
        line("Target precision", "target_precision"),
        line("Precision at the cut", "cut_precision", ends="cut_precision_interval"),
        line("Recall at the cut", "cut_recall"),
    ]
    head = ["Critic", *(words.round_name(one) for one in critics)]
    return Table("The critic, by round; in brackets 95 % intervals", head, body)


def judge_table(judge: Row) -> Table | None:
    """The independent judge: what it is, its labels, its AUC."""
    if not judge:
        return None
    labels = part(judge, "labels")
    unknown = words.NOT_MEASURED
    body = [
        ["What", str(judge.get("what") or unknown)],
        ["Version", str(judge.get("version") or unknown)],
        *([f"Labels, {split}", _told(value)] for split, value in labels.items()),
        ["AUC", words.with_interval(number(judge, "auc"), interval(judge, "auc_interval"))],
        ["Cut", words.rate(number(judge, "cut"))],
    ]
    return Table("The independent judge", ["Judge", "Value"], body)


def stage_table(rounds: Sequence[Row], key: str) -> Table:
    """Seconds (`wall_s`) or tokens (`tokens`) of each stage by round."""
    say, title = {
        "wall_s": (words.duration, "Seconds per stage"),
        "tokens": (words.count, "Tokens per stage"),
    }[key]
    return _bar_table(title, "Stage", stage_bars(rounds, key), rounds, say)


def reason_table(rounds: Sequence[Row]) -> Table:
    """How many lines each reason rejected, by round."""
    return _bar_table("Lines rejected", "Reason", reason_bars(rounds), rounds, words.count)


def _bar_table(
    caption: str, first: str, bars: Sequence[Bar], rounds: Sequence[Row], say: Say
) -> Table:
    head = [first, *(words.round_name(row) for row in rounds), "all"]
    body = [[bar.name, *(say(value) for value in bar.values), say(bar.total)] for bar in bars]
    return Table(caption, head, body)


def review_table(review: Row) -> Table | None:
    """How many lines each rule of the screen marked; None where nothing was screened."""
    if not review:
        return None
    marked, screened = number(review, "marked"), number(review, "screened")
    rules = part(review, "rules")
    return Table(
        f"Marked for review: {words.count(marked)} of {words.count(screened)} lines; a line may be "
        "marked by several rules",
        ["Rule", "Lines"],
        [[rule, words.count(number(rules, rule))] for rule in rules] or [["none", "0"]],
    )


def review_lines(review: Row) -> list[dict[str, str]]:
    """The first lines that were marked, each with the reasons."""
    keys = ("id", "text", "reason")
    return [{key: str(one.get(key, "")) for key in keys} for one in rows(review, "lines")]


def totals(metrics: Row) -> list[tuple[str, str]]:
    """What the whole run took: time, memory, tokens."""
    tokens = part(metrics, "tokens")
    memory = number(metrics, "peak_rss_mb")
    return [
        ("Time", words.duration(number(metrics, "wall_s"))),
        ("Peak memory", words.NOT_MEASURED if memory is None else f"{memory:,.0f} MB"),
        *((f"Tokens {what}", words.count(number(tokens, what))) for what in tokens),
    ]


def flat(group: Row, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (group.key, value) pairs."""
    pairs: list[tuple[str, str]] = []
    for key, value in group.items():
        if isinstance(value, Mapping) and value:
            pairs += flat(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", _told(value)))
    return pairs


def _told(value: Any) -> str:
    """A setting or a fact as people read it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(one, (str, int, float)) for one in value):
        return ", ".join(_told(one) for one in value) or "none"
    return json.dumps(value, ensure_ascii=False)


def _keys(groups: Iterable[Row]) -> list[str]:
    """Keys in order of first appearance."""
    return list(dict.fromkeys(key for group in groups for key in group))
