"""The report of a run: RUN/metrics.json -> RUN/report.html, one file that needs nothing else.

Takes the numbers and examples that the recipe wrote; gives a page with inline SVG and inline
style, no scripts and nothing fetched, readable on a phone, on paper, in light and dark. Costs
about two seconds. All text is escaped by jinja2 and shown by `words.visible`, so what a model
wrote can neither become markup nor turn the direction of the page's own text.

The same metrics and the same matplotlib give the same bytes. It computes nothing beyond sums
over rounds: a number that is wrong here is wrong in metrics.json.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symdistill.errors import InputError, RunError
from symdistill.reporting import plots, words
from symdistill.reporting.plots import Bar, Series
from symdistill.reporting.words import Row, Say, interval, number, numbers, part, rows

if TYPE_CHECKING:
    from markupsafe import Markup

TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class Chart:
    """A chart of the page: its name, and its SVG, or None where nothing was measured."""

    title: str
    svg: Markup | None
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the page: the first cell of each row is the row's header."""

    caption: str
    head: Sequence[str]
    body: Sequence[Sequence[str]]


def write_report(run: Path) -> Path:
    """Write RUN/report.html from RUN/metrics.json and return its path.

    Raises:
        InputError: no run folder, no metrics.json, or one that does not hold what it should.
        RunError: the page cannot be written, or matplotlib is not installed.
    """
    page = render(read_metrics(run))
    target = run / "report.html"
    aside = run / "report.html.aside"
    try:
        with aside.open("w", encoding="utf-8", newline="\n") as stream:
            stream.write(page)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise RunError(
            f"expected to write {target}; got: {error.strerror}; make room or check the "
            "folder's permissions, then run `symdistill report` again"
        ) from error
    return target


def read_metrics(run: Path) -> dict[str, Any]:
    """RUN/metrics.json.

    Raises:
        InputError: no run folder, no such file, or one that is not the metrics of a run.
    """
    path = run / "metrics.json"
    again = "run it first: `symdistill run CONFIG.yaml` writes the file and continues a stopped run"
    if not run.is_dir():
        raise InputError(
            f"expected a run folder at {run}; there is none; check the path, or {again}"
        )
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"expected {path}; the run has not written it yet; {again}") from error
    except OSError as error:
        raise InputError(
            f"expected a readable file at {path}; got: {error.strerror}; check its permissions"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"expected JSON in {path}; got: {error}; {again}") from error
    if not isinstance(metrics, dict) or not isinstance(metrics.get("rounds"), list):
        raise InputError(
            f"expected the metrics of a run in {path}, an object with a list `rounds`; "
            f"got something else; {again}"
        )
    return metrics


def render(metrics: Row) -> str:
    """The page as HTML text.

    Raises:
        InputError: a value has a type that it cannot have.
        RunError: matplotlib is not installed.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("symdistill", "reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(TEMPLATE).render(_page(metrics))


def _finalize(value: Any) -> Any:
    """What a template expression becomes before it is escaped."""
    if value is None:
        return words.NOT_MEASURED
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return words.visible(value)
    return value


def _page(metrics: Row) -> dict[str, Any]:
    """Everything the template shows."""
    rounds, critics = rows(metrics, "rounds"), rows(metrics, "critics")
    name = str(metrics.get("name") or "a run without a name")
    stages = [_stage_table(rounds, "wall_s"), _stage_table(rounds, "tokens")]
    return {
        "name": name,
        "recipe": metrics.get("recipe"),
        "seed": metrics.get("seed"),
        "finished": metrics.get("finished") is True,
        "certified": metrics.get("certified") is True,
        "summary": words.summary_sentence(metrics),
        "round_table": _round_table(rounds),
        "charts": {
            "accept": _accept_charts(rounds),
            "drift": _drift_charts(rounds),
            "scores": _score_charts(rounds, critics),
            "cost": _cost_charts(rounds),
            "reasons": _reason_charts(rounds),
        },
        "critic_charts": [_critic_charts(place, one) for place, one in enumerate(critics)],
        "drift": words.drift_sentences(metrics),
        "critic_sentence": words.critic_sentence(critics[-1]) if critics else None,
        "critic_table": _critic_table(critics),
        "judge_table": _judge_table(part(metrics, "judge")),
        "stage_tables": stages,
        "reason_table": _reason_table(rounds),
        "totals": _totals(metrics),
        "kept": _examples(metrics, "kept"),
        "rejected": _examples(metrics, "rejected"),
        "settings": _flat({"seed": metrics.get("seed"), **part(metrics, "config")}),
        "models": _models(part(metrics, "models")),
        "versions": _flat(part(metrics, "versions")),
        "machine": _flat(part(metrics, "machine")),
    }


# -- charts -------------------------------------------------------------------------------------


def _series(rounds: Sequence[Row], name: str, key: str, ends: str = "") -> Series:
    return Series(
        name,
        [number(row, key) for row in rounds],
        [interval(row, ends) for row in rounds] if ends else (),
    )


def _accept_charts(rounds: Sequence[Row]) -> list[Chart]:
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


def _drift_charts(rounds: Sequence[Row]) -> list[Chart]:
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


def _score_charts(rounds: Sequence[Row], critics: Sequence[Row]) -> list[Chart]:
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


def _critic_charts(place: int, critic: Row) -> list[Chart]:
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


def _stage_bars(rounds: Sequence[Row], key: str) -> list[Bar]:
    """One bar per stage, in order of first appearance; several steps of one stage are added."""
    table: dict[str, list[float | None]] = {}
    for place, row in enumerate(rounds):
        for stage in rows(row, "stages"):
            name, value = str(stage.get("stage", "?")), number(stage, key)
            cells = table.setdefault(name, [None] * len(rounds))
            if value is not None:
                cells[place] = (cells[place] or 0.0) + value
    return [Bar(name, cells) for name, cells in table.items()]


def _cost_charts(rounds: Sequence[Row]) -> list[Chart]:
    titles = ("Seconds per stage", "Tokens per stage")
    seconds, tokens = _stage_bars(rounds, "wall_s"), _stage_bars(rounds, "tokens")
    tokens = [bar for bar in tokens if bar.total != 0]
    return [
        Chart(titles[0], plots.bars_chart("seconds", titles[0], seconds, say=words.duration)),
        Chart(titles[1], plots.bars_chart("tokens", titles[1], tokens)),
    ]


def _reason_bars(rounds: Sequence[Row]) -> list[Bar]:
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


def _reason_charts(rounds: Sequence[Row]) -> list[Chart]:
    title = "Lines rejected, by reason"
    return [Chart(title, plots.bars_chart("reasons", title, _reason_bars(rounds)[:20]))]


# -- tables -------------------------------------------------------------------------------------


def _round_table(rounds: Sequence[Row]) -> Table:
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
        ("Accept rate, critic", ranged("accept_rate", "accept_rate_interval", rate)),
        ("Accept rate, judge", ranged(independent, f"{independent}_interval", rate)),
        ("Estimated precision", ranged("precision_estimate", "precision_interval", rate)),
        ("Specificity, written (nats)", ranged("specificity", "specificity_interval", amount)),
        ("Specificity, kept (nats)", plain("specificity_kept", amount)),
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


def _critic_table(critics: Sequence[Row]) -> Table | None:
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


def _judge_table(judge: Row) -> Table | None:
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


def _stage_table(rounds: Sequence[Row], key: str) -> Table:
    say, title = {
        "wall_s": (words.duration, "Seconds per stage"),
        "tokens": (words.count, "Tokens per stage"),
    }[key]
    return _bar_table(title, "Stage", _stage_bars(rounds, key), rounds, say)


def _reason_table(rounds: Sequence[Row]) -> Table:
    return _bar_table("Lines rejected", "Reason", _reason_bars(rounds), rounds, words.count)


def _bar_table(
    caption: str, first: str, bars: Sequence[Bar], rounds: Sequence[Row], say: Say
) -> Table:
    head = [first, *(words.round_name(row) for row in rounds), "all"]
    body = [[bar.name, *(say(value) for value in bar.values), say(bar.total)] for bar in bars]
    return Table(caption, head, body)


def _totals(metrics: Row) -> list[tuple[str, str]]:
    tokens = part(metrics, "tokens")
    memory = number(metrics, "peak_rss_mb")
    return [
        ("Time", words.duration(number(metrics, "wall_s"))),
        ("Peak memory", words.NOT_MEASURED if memory is None else f"{memory:,.0f} MB"),
        *((f"Tokens {what}", words.count(number(tokens, what))) for what in tokens),
    ]


# -- texts --------------------------------------------------------------------------------------


def _examples(metrics: Row, which: str) -> list[dict[str, str]]:
    return [
        {
            "id": str(one.get("id", "")),
            "text": str(one.get("text", "")),
            "concept": str(one.get("concept") or words.NOT_MEASURED),
            "round": words.round_name(one),
            "score": words.rate(number(one, "score")),
            "judge": words.rate(number(one, "judge_score")),
            "specificity": words.amount(number(one, "specificity")),
            "reason": str(one.get("reason") or ""),
        }
        for one in rows(part(metrics, "examples"), which)
    ]


def _models(models: Row) -> list[dict[str, Any]]:
    """Each model's role, and what is known of it; a model may be a name or an object."""
    return [
        {"role": role, "facts": _flat(facts if isinstance(facts, Mapping) else {"name": facts})}
        for role, facts in models.items()
    ]


def _flat(group: Row, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (group.key, value) pairs."""
    pairs: list[tuple[str, str]] = []
    for key, value in group.items():
        if isinstance(value, Mapping) and value:
            pairs += _flat(value, f"{prefix}{key}.")
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


def _keys(groups: Any) -> list[str]:
    """Keys in order of first appearance."""
    return list(dict.fromkeys(key for group in groups for key in group))
