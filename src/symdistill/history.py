"""One line's whole history, from the run folder: what judges said, and every call that wrote it.

Takes a run folder and an id; reads its tables with DuckDB and its ledger; gives text for the
terminal. What a model wrote is shown as text: never as markup, control characters made visible.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from symdistill.errors import InputError
from symdistill.ledger import Ledger


def history(run: Path, id_: str) -> Group:
    """Everything the run knows of one line.

    Raises:
        InputError: no run there, no such line, or several that begin so.
    """
    import duckdb

    table = run / "tables" / "knowledge.parquet"
    if not table.is_file():
        raise InputError(
            f"expected a finished run at {run}; it has no tables yet; run it first, or give "
            "--run FOLDER"
        )
    db = duckdb.connect()
    found = db.execute(
        "SELECT k.id, k.text, k.fields, k.lineage, i.text AS concept, i.kind "
        "FROM read_parquet(?) k JOIN read_parquet(?) i ON i.id = k.item_id "
        "WHERE starts_with(k.id, ?) ORDER BY k.id LIMIT 3",
        [str(table), str(run / "tables" / "items.parquet"), id_.lower()],
    ).fetchall()
    if not id_ or not found:
        raise InputError(
            f"expected the id of a line in {run}; found none that begins with {id_!r}; ids are in "
            "tables/knowledge.parquet and in the report"
        )
    if len(found) > 1:
        raise InputError(
            f"expected one line; several ids begin with {id_!r} (such as {found[0][0]} and "
            f"{found[1][0]}); give more digits"
        )
    line, text, fields, lineage, concept, kind = found[0]
    parts = [_line("", text, "bold"), _line("id", line), _line(str(kind), concept)]
    parts += _fields(json.loads(fields))
    parts.append(Text("\njudged", "bold"))
    for judge, score, status, reason, round_ in db.execute(
        "SELECT judge, score, status, reason, round FROM read_parquet(?) WHERE knowledge_id = ? "
        "ORDER BY round, judge",
        [str(run / "tables" / "verdicts.parquet"), line],
    ).fetchall():
        said = status if score is None else f"{score:.3f}"
        if judge == "selection":
            said = "kept" if score else "refused"
        parts.append(_line(f"  round {round_}  {judge}", f"{said}  {reason}".rstrip()))
    ledger = Ledger(run / "ledger.sqlite", read_only=True)
    try:
        for occasion in lineage:
            parts += _occasion(occasion, ledger.call(occasion["request_key"]))
    finally:
        ledger.close()
    trained = db.execute(
        "SELECT DISTINCT round FROM read_parquet(?) WHERE list_contains(knowledge_ids, ?) "
        "ORDER BY round",
        [str(run / "tables" / "views.parquet"), line],
    ).fetchall()
    students = sorted(
        int(path.name)
        for path in (run / "students").glob("*")
        if path.name.isdigit() and any(int(path.name) > kept for (kept,) in trained)
    )
    learnt = ", ".join(f"students/{number}" for number in students) or "none"
    parts.append(_line("\nstudents trained on it", learnt))
    return Group(*parts)


def _fields(fields: dict[str, Any]) -> list[Text]:
    shown = [_line("prompt", str(fields.get("prompt", "")))]
    if fields.get("logprob") is not None:
        shown.append(
            _line("log-likelihood", f"{fields['logprob']:.2f} nats over {fields['tokens']} tokens")
        )
    if fields.get("specificity") is not None:
        shown.append(_line("specificity", f"{fields['specificity']:.2f} nats, against"))
        shown += [_line("  ", str(swap["text"])) for swap in fields.get("swaps", [])]
    return shown


def _occasion(occasion: dict[str, Any], call: dict[str, Any] | None) -> list[Text]:
    """One decoding call: what was asked, with which settings, and what came back."""
    parts = [
        Text(f"\nwritten in round {occasion['round']}", "bold"),
        _line("  teacher", str(occasion["teacher"])),
        _line("  request", str(occasion["request_key"])),
        _line("  prompt id", str(occasion["prompt_id"])),
        _line("  decoding", str(occasion["decoding"])),
        _line("  seed", str(occasion["seed"])),
    ]
    if call is None:
        return [*parts, _line("  ledger", "this call is not in the ledger of this run")]
    cost = "price unknown" if call["cost_usd"] is None else f"{call['cost_usd']:.6f} USD"
    parts += [
        _line("  model", str(call["model"])),
        _line("  asked", str(call["request"]["prompt"])),
        _line("  answered", str(call["response"]["text"])),
        _line(
            "  took",
            f"{call['tokens_in']} tokens in, {call['tokens_out']} out, {call['wall_s']:.2f} s, "
            f"{cost}, at {call['recorded_at']}",
        ),
    ]
    return parts


def _line(label: str, value: str, style: str = "") -> Text:
    from symdistill.reporting.words import visible

    text = Text()
    if label:
        text.append(f"{label:<18}  ", "dim")
    text.append(visible(value), style)
    return text
