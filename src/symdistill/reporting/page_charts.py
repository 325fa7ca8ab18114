"""Which charts the report shows, and what of metrics.json goes into each.

Takes rows of metrics.json; gives charts by their place on the page. How a chart is drawn is in
plots.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from symdistill.errors import InputError
from symdistill.reporting import plots, words
from symdistill.reporting.fields import Row, interval, number, numbers, part, rows
from symdistill.reporting.plots import Bar, Series
from symdistill.reporting.words import Say

if TYPE_CHECKING:
    from markupsafe import Markup


@dataclass(frozen=True)
class Chart:
    """A chart of the page: its name, and its SVG, or None where nothing was measured."""

    title: str
    svg: Markup | None
    note: str = ""


def _series(rounds: Sequence[Row], name: str, key: str, ends: str = "") -> Series:
    return Series(
        name,
        [number(row, key) for row in rounds],
        [interval(row, ends) for row in rounds] if ends else (),
    )


def accept_charts(rounds: Sequence[Row]) -> list[Chart]:
    """Accept rate by critic and by independent judge; estimated precision."""
    names = [words.round_name(row) for row in rounds]
    accept = [
        _series(rounds, "critic", "accept_rate", "accept_rate_interval"),
        _series(
            rounds,
            "independent judge",
            "accept_rate_independent",
            "accept_rate_independent_interval",
        ),
    ]
    precision = [_series(rounds, "estimate", "precision_estimate", "precision_interval")]
    titles = ("Share of written lines accepted", "Estimated precision of kept lines")
    notes = ("", "an estimate, not a certificate")
    keys = ("accept", "precision")
    return [
        Chart(
            title,
            plots.rounds_chart(key, title, names, series, say=words.rate, share=True, height=230),
            note,
        )
        for key, title, series, note in zip(keys, titles, (accept, precision), notes, strict=True)
    ]


def drift_charts(rounds: Sequence[Row]) -> list[Chart]:
    """What would show that lines grow empty or alike."""
    names = [words.round_name(row) for row in rounds]
    spans = "specificity_interval"
    wanted: list[tuple[str, list[Series], Say, bool, str]] = [
        (
            "Specificity (nats)",
            [
                _series(rounds, "written lines", "specificity", spans),
                _series(rounds, "kept lines", "specificity_kept"),
            ],
            words.amount,
            False,
            "lower: emptier",
        ),
        (
            "Still accepted with another concept (share)",
            [_series(rounds, "swapped lines", "swap_accept_share")],
            words.rate,
            True,
            "higher: emptier",
        ),
        (
            "Rarity of content words",
            [_series(rounds, "rarity", "rarity")],
            words.amount,
            False,
            "lower: commoner words",
        ),
        (
            "Words per line",
            [_series(rounds, "words", "words_mean")],
            words.amount,
            False,
            "",
        ),
        (
            "Distinct n-grams (share)",
            [
                _series(rounds, "distinct-1", "distinct_1"),
                _series(rounds, "distinct-2", "distinct_2"),
            ],
            words.rate,
            True,
            "lower: more repetition",
        ),
        (
            "Soft uniqueness",
            [_series(rounds, "soft uniqueness", "soft_uniqueness")],
            words.rate,
            True,
            "lower: more near-copies",
        ),
        (
            "Good-Turing coverage",
            [_series(rounds, "coverage", "good_turing_coverage")],
            words.rate,
            True,
            "higher: fewer new lines left",
        ),
        (
            "Chao1 lower bound (distinct lines)",
            [_series(rounds, "Chao1", "chao1_lower")],
            words.count,
            False,
            "lower: a poorer source",
        ),
    ]
    return [
        Chart(
            title,
            plots.rounds_chart(f"drift-{place}", title, names, series, say=say, share=share),
            note,
        )
        for place, (title, series, say, share, note) in enumerate(wanted)
    ]


def score_charts(rounds: Sequence[Row], critics: Sequence[Row]) -> list[Chart]:
    """The critic's scores in each round, and the cut that was fixed in the first."""
    cut = number(critics[0], "cut") if critics else None
    charts = []
    for place, row in enumerate(rounds):
        histogram = part(row, "score_histogram")
        edges, counts = numbers(histogram, "edges"), numbers(histogram, "counts")
        if counts and len(edges) != len(counts) + 1:
            raise InputError(
                f"expected one more edge than counts in the score_histogram of "
                f"{words.round_name(row)}, got {len(edges)} and {len(counts)}; run the recipe "
                "again to rewrite metrics.json"
            )
        title = f"Critic's scores, {words.round_name(row)}"
        charts.append(
            Chart(title, plots.histogram_chart(f"scores-{place}", title, edges, counts, cut))
        )
    return charts


def critic_charts(place: int, critic: Row) -> list[Chart]:
    """Precision-recall and reliability of the critic at this place in the list."""
    which = words.round_name(critic)
    curve = part(critic, "pr_curve")
    recall, precision = numbers(curve, "recall"), numbers(curve, "precision")
    threshold = numbers(curve, "threshold")
    points = rows(critic, "reliability")
    x, y, n = ([number(one, key) for one in points] for key in ("score_mean", "valid_share", "n"))
    whole = [
        (a, b, c)
        for a, b, c in zip(x, y, n, strict=True)
        if a is not None and b is not None and c is not None
    ]
    if len(recall) != len(precision) or len(threshold) > len(recall):
        raise InputError(
            f"expected precision and recall of one length, and no more thresholds, in the "
            f"pr_curve of {which}'s critic, got {len(precision)}, {len(recall)} and "
            f"{len(threshold)}; run the recipe again to rewrite metrics.json"
        )
    titles = f"Precision and recall, critic of {which}", f"Reliability, critic of {which}"
    return [
        Chart(
            titles[0],
            plots.precision_recall_chart(
                f"pr-{place}",
                titles[0],
                recall,
                precision,
                threshold,
                cut=number(critic, "cut"),
                target=number(critic, "target_precision"),
            ),
        ),
        Chart(
            titles[1],
            plots.reliability_chart(
                f"reliability-{place}",
                titles[1],
                [one[0] for one in whole],
                [one[1] for one in whole],
                [one[2] for one in whole],
            ),
            "on the dotted line a score is the chance of being valid",
        ),
    ]


def stage_bars(rounds: Sequence[Row], key: str) -> list[Bar]:
    """One bar per stage, in order of first appearance; several steps of one stage are added."""
    table: dict[str, list[float | None]] = {}
    for place, row in enumerate(rounds):
        for stage in rows(row, "stages"):
            name, value = str(stage.get("stage", "?")), number(stage, key)
            cells = table.setdefault(name, [None] * len(rounds))
            if value is not None:
                cells[place] = (cells[place] or 0.0) + value
    return [Bar(name, cells) for name, cells in table.items()]


def cost_charts(rounds: Sequence[Row]) -> list[Chart]:
    """Seconds and tokens per stage."""
    titles = ("Seconds per stage", "Tokens per stage")
    seconds, tokens = stage_bars(rounds, "wall_s"), stage_bars(rounds, "tokens")
    return [
        Chart(titles[0], plots.bars_chart("seconds", titles[0], seconds, say=words.duration)),
        Chart(titles[1], plots.bars_chart("tokens", titles[1], tokens)),
    ]


def reason_bars(rounds: Sequence[Row]) -> list[Bar]:
    """One bar per reason, the commonest first. A round that names reasons had 0 of the others."""
    found = [part(row, "rejected") for row in rounds]
    reasons = {str(reason) for one in found for reason in one}
    bars = [
        Bar(
            reason,
            [number(one, reason) if reason in one or not one else 0.0 for one in found],
        )
        for reason in reasons
    ]
    return sorted(bars, key=lambda bar: (-(bar.total or 0), bar.name))


def reason_charts(rounds: Sequence[Row]) -> list[Chart]:
    """The commonest reasons for which lines were rejected."""
    title = "Lines rejected, by reason"
    return [Chart(title, plots.bars_chart("reasons", title, reason_bars(rounds)[:20]))]
