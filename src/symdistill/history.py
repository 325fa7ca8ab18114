"""One line's whole history, from the run folder: what judges said, and every call that wrote it.

Takes a run folder and the id of a line, or of a failure (a sample without an answer); reads its
tables with DuckDB and its ledger; gives text for the terminal. What a model wrote is shown as text:
never as markup, control characters made visible.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from symdistill.errors import InputError
from symdistill.ledger import Ledger
from symdistill.pool import withdrawn_ids
from symdistill.run import LINES


def history(run: Path, id_: str) -> Group:
    """Everything the run knows of one line, or of one failure.

    Raises:
        InputError: no run there, no such line, or several that begin so.
    """
    import duckdb

    db = duckdb.connect()
    name, id = _find(db, run, id_, ("knowledge", "failures"))
    ledger = Ledger(run / "ledger.sqlite", read_only=True)
    try:
        tell = _line_history if name == "knowledge" else _failure_history
        return Group(*tell(db, run, id, ledger))
    finally:
        ledger.close()


def find_line(run: Path, id_: str) -> tuple[str, str]:
    """The id and the text of a run's line, by its id or the beginning of it.

    Raises:
        InputError: no run there, no such line, or several that begin so.
    """
    import duckdb

    db = duckdb.connect()
    _, id = _find(db, run, id_, ("knowledge",))
    ((text,),) = _rows(db, run / "tables", "knowledge", "SELECT text FROM {} WHERE id = ?", id)
    return id, text


def the_one(begins: str, ids: Sequence[str], what: str) -> str:
    """The one of `ids` that is, or else begins, as given; `what` it is, for messages.

    Raises:
        InputError: there is none, or there are several.
    """
    found = [begins] if begins in ids else [id for id in ids if begins and id.startswith(begins)]
    if not found:
        raise InputError(
            f"expected the id of {what}; found none that begins with {begins!r}; check the id and "
            "where it comes from"
        )
    if len(found) > 1:
        raise InputError(
            f"expected one line; several ids begin with {begins!r} (such as {found[0]} and "
            f"{found[1]}); give more digits"
        )
    return found[0]


def students_trained_on(run: Path, id: str) -> list[Path]:
    """The folders of the run's students that were trained on a line, the oldest first."""
    import duckdb

    return _students(duckdb.connect(), run, id)


def newest_run() -> Path:
    """The run under runs/ that was worked on last.

    Raises:
        InputError: there is none.
    """
    runs = [path.parent for path in Path("runs").glob("*/config.yaml")]
    if not runs:
        raise InputError(
            "expected a run under runs/; there is none here; give --run FOLDER or make one with "
            "`symdistill run demo`"
        )
    return max(runs, key=lambda folder: (folder / "config.yaml").stat().st_mtime)


def _find(db: Any, run: Path, id_: str, names: Sequence[str]) -> tuple[str, str]:
    """The table and the id of what an id, or the beginning of one, means."""
    tables = run / "tables"
    if not (tables / "knowledge.parquet").is_file():
        raise InputError(
            f"expected a finished run at {run}; it has no tables yet; run it first, or give "
            "--run FOLDER"
        )
    query = "SELECT id FROM {} WHERE starts_with(id, ?) ORDER BY id LIMIT 3"
    found = {id: name for name in names for (id,) in _rows(db, tables, name, query, id_)}
    where = f"a line in {run} (ids are in tables/knowledge.parquet and in the report)"
    id = the_one(id_.lower(), list(found), where)
    return found[id], id


def _rows(db: Any, tables: Path, name: str, query: str, value: str) -> list[tuple[Any, ...]]:
    """What a query finds in a table of the run, named `{}` there; nothing where it has none."""
    path = tables / f"{name}.parquet"
    if not path.is_file():
        return []
    where = str(path).replace("'", "''")
    found: list[tuple[Any, ...]] = db.execute(
        query.format(f"read_parquet('{where}')"), [value.lower()]
    ).fetchall()
    return found


def _line_history(db: Any, run: Path, id: str, ledger: Ledger) -> list[Text]:
    tables = run / "tables"
    query = "SELECT item_id, text, fields, lineage FROM {} WHERE id = ?"
    ((item_id, text, fields, lineage),) = _rows(db, tables, "knowledge", query, id)
    parts = [_line("", text, "bold"), _line("id", id), *_item(db, tables, item_id)]
    if (why := withdrawn_ids(run).get(id)) is not None:
        parts.append(_line("withdrawn", why, "bold"))
    parts += _fields(json.loads(fields))
    query = (
        "SELECT judge, score, status, reason, round FROM {} WHERE knowledge_id = ? "
        "ORDER BY round, judge"
    )
    verdicts = [
        row for name in ("verdicts", "review") for row in _rows(db, tables, name, query, id)
    ]
    if verdicts:
        parts.append(Text("\njudged", "bold"))
    for judge, score, status, reason, round_ in verdicts:
        said = status if score is None else f"{score:.3f}"
        if judge == "selection":
            said = "kept" if score else "refused"
        elif judge == "screen":
            said = "for review"
        parts.append(_line(f"  round {round_}  {judge}", f"{said}  {reason}".rstrip()))
    for occasion in lineage:
        parts += _occasion(occasion, ledger.call(occasion["request_key"]))
    if (tables / "views.parquet").is_file():
        students = ", ".join(f"students/{one.name}" for one in _students(db, run, id))
        parts.append(_line("\nstudents trained on it", students or "none"))
    return parts


def _students(db: Any, run: Path, id: str) -> list[Path]:
    """The students trained on a line: as they say themselves, else all after the line's round."""
    query = "SELECT DISTINCT round FROM {} WHERE list_contains(knowledge_ids, ?) ORDER BY round"
    trained = _rows(db, run / "tables", "views", query, id)
    folders = [path for path in (run / "students").glob("*") if path.name.isdigit()]

    def learnt(folder: Path) -> bool:
        if (folder / LINES).is_file():
            return id in json.loads((folder / LINES).read_text(encoding="utf-8"))
        return any(int(folder.name) > kept for (kept,) in trained)

    return sorted(filter(learnt, folders), key=lambda path: int(path.name))


def _failure_history(db: Any, run: Path, id: str, ledger: Ledger) -> list[Text]:
    tables = run / "tables"
    query = "SELECT item_id, sample_index, kind, reason, attempts, request_key FROM {} WHERE id = ?"
    ((item_id, sample, kind, reason, attempts, key),) = _rows(db, tables, "failures", query, id)
    parts = [
        _line("", "no answer", "bold"),
        _line("id", id),
        *_item(db, tables, item_id),
        _line("sample", str(sample)),
        _line("why", f"{kind}: {reason}"),
        _line("attempts", str(attempts)),
        _line("request", key),
    ]
    failed = ledger.failures([key]).get(key)
    if failed is None:
        known = "this failure is not in the ledger of this run: it was retried, or forgotten to be"
        return [*parts, _line("ledger", known)]
    return [*parts, _line("model", failed.model), *_asked("asked", failed.request["prompt"])]


def _item(db: Any, tables: Path, id: str) -> list[Text]:
    """What was asked about."""
    found = _rows(db, tables, "items", "SELECT kind, text FROM {} WHERE id = ?", id)
    return [_line(kind, text) for kind, text in found]


def _fields(fields: dict[str, Any]) -> list[Text]:
    shown = [_line("prompt", str(fields["prompt"]))] if "prompt" in fields else []
    if fields.get("finish_reason") not in (None, "stop"):
        shown.append(_line("ended by", str(fields["finish_reason"])))
    if fields.get("terms"):
        shown.append(_line("terms", str(fields["terms"])))
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
        *_asked("  asked", call["request"]["prompt"]),
        _line("  answered", str(call["response"]["text"])),
        _line(
            "  took",
            f"{call['tokens_in']} tokens in, {call['tokens_out']} out, {call['wall_s']:.2f} s, "
            f"{cost}, at {call['recorded_at']}",
        ),
    ]
    return parts


def _asked(label: str, prompt: Any) -> list[Text]:
    """A prompt: a text, or the messages of a chat."""
    if isinstance(prompt, str):
        return [_line(label, prompt)]
    return [
        _line(label if first else " ", f"{message['role']}: {message['content']}")
        for first, message in zip([True] + [False] * len(prompt), prompt, strict=False)
    ]


def _line(label: str, value: str, style: str = "") -> Text:
    from symdistill.visible import visible

    text = Text()
    if label:
        text.append(f"{label:<18}  ", "dim")
    text.append(visible(value), style)
    return text
