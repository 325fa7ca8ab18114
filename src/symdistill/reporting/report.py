"""The report of a run: RUN/metrics.json -> RUN/report.html, one file that needs nothing else.

Takes the numbers and examples that the recipe wrote; gives a page with inline SVG and inline
style, no scripts and nothing fetched, readable on a phone, on paper, in light and dark. Costs
about two seconds. All text is escaped by jinja2 and shown by `visible`, so what a model
wrote can neither become markup nor turn the direction of the page's own text.

The same metrics and the same matplotlib give the same bytes. It computes nothing beyond sums
over rounds: a number that is wrong here is wrong in metrics.json.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from symdistill.datafiles import write_aside
from symdistill.errors import InputError
from symdistill.reporting import page_charts, page_tables, words
from symdistill.reporting.fields import Row, number, part, rows
from symdistill.reporting.page_tables import flat
from symdistill.visible import visible

TEMPLATE = "report.html.j2"


def write_report(run: Path) -> Path:
    """Write RUN/report.html from RUN/metrics.json and return its path.

    Raises:
        InputError: no run folder, no metrics.json, or one that does not hold what it should.
        RunError: the page cannot be written, or matplotlib is not installed.
    """
    return write_page(run, render(read_metrics(run)))


def write_page(run: Path, page: str) -> Path:
    """Write a run's report.html, aside and then renamed; gives its path.

    Raises:
        RunError: it cannot be written.
    """
    target = run / "report.html"
    write_aside(target, page)
    return target


def page_template(package: str, name: str) -> Any:
    """A page's template: text is escaped and harmless, what is missing says so.

    Args:
        package: the package of symdistill in which it lies, such as "reporting".
        name: its file.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("symdistill", package),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)


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
    found = certificates_of(run)
    holding = [one for one in found if one["voided"] is None]
    return {**metrics, "certificates": found, "certified": bool(holding)}


def certificates_of(run: Path) -> list[dict[str, Any]]:
    """The certificates of a run, oldest first: their sentences, and why some hold no more.

    Raises:
        InputError: one of them cannot be read.
    """
    found = []
    for path in sorted((run / "certificates").glob("*.json")):
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            if row["certified"]:
                ids = path.with_suffix(".ids").read_bytes()
                if hashlib.sha256(ids).hexdigest() != row["line_ids_hash"]:
                    raise ValueError("other ids beside it than it was made for")
                voided = row["voided"] and str(row["voided"]["why"])
                found.append({"sentence": str(row["sentence"]), "voided": voided,
                              "made_at": str(row["made_at"])})  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"expected a certificate at {path} with its ids beside it; got: {error}; restore it"
            ) from error
    return sorted(found, key=lambda one: one["made_at"])


def render(metrics: Row) -> str:
    """The page as HTML text.

    Raises:
        InputError: a value has a type that it cannot have.
        RunError: matplotlib is not installed.
    """
    page: str = page_template("reporting", TEMPLATE).render(_page(metrics))
    return page


def _finalize(value: Any) -> Any:
    """What a template expression becomes before it is escaped."""
    if value is None:
        return words.NOT_MEASURED
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return visible(value)
    return value


def _page(metrics: Row) -> dict[str, Any]:
    """Everything the template shows."""
    rounds, critics = rows(metrics, "rounds"), rows(metrics, "critics")
    name = str(metrics.get("name") or "a run without a name")
    return {
        "name": name,
        "recipe": metrics.get("recipe"),
        "seed": metrics.get("seed"),
        "finished": metrics.get("finished") is True,
        "certificates": rows(metrics, "certificates"),
        "summary": words.summary_sentence(metrics),
        "round_table": page_tables.round_table(rounds),
        "charts": {
            "accept": page_charts.accept_charts(rounds),
            "drift": page_charts.drift_charts(rounds),
            "scores": page_charts.score_charts(rounds, critics),
            "cost": page_charts.cost_charts(rounds),
            "reasons": page_charts.reason_charts(rounds),
        },
        "critic_charts": [
            page_charts.critic_charts(place, one) for place, one in enumerate(critics)
        ],
        "drift": words.drift_sentences(metrics),
        "critic_sentence": words.critic_sentence(critics[-1]) if critics else None,
        "critic_table": page_tables.critic_table(critics),
        "judge_table": page_tables.judge_table(part(metrics, "judge")),
        "stage_tables": [page_tables.stage_table(rounds, key) for key in ("wall_s", "tokens")],
        "reason_table": page_tables.reason_table(rounds),
        "review_table": page_tables.review_table(part(metrics, "review")),
        "review_lines": page_tables.review_lines(part(metrics, "review")),
        "totals": page_tables.totals(metrics),
        "kept": _examples(metrics, "kept"),
        "rejected": _examples(metrics, "rejected"),
        "settings": flat({"seed": metrics.get("seed"), **part(metrics, "config")}),
        "models": _models(part(metrics, "models")),
        "versions": flat(part(metrics, "versions")),
        "machine": flat(part(metrics, "machine")),
    }


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
        {"role": role, "facts": flat(facts if isinstance(facts, Mapping) else {"name": facts})}
        for role, facts in models.items()
    ]
