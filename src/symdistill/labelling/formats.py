"""Answers as files: of this tool (JSON Lines, CSV), of Argilla and of Label Studio.

`write_answers` writes the lines of a draw in the order in which they are shown, each with what was
said of it; a line without an answer has an empty label, to be filled in. No file holds a score.
`read_answers` takes such a file back, all of it or none: it refuses ids and words that it does not
know and answers that contradict each other. Costs one pass; all rows are held in memory.

    jsonl, csv     id, text, question, label; where answered: annotator, at, seconds,
                   note; again, on the second row of a line that is shown twice
    argilla        the list of records that `dataset.records.to_json` writes and `from_json` reads;
                   the label is the response to the question "label". A server knows its users by
                   UUID: a name here stands where that goes, and has to be replaced before upload
    label-studio   tasks with `data` and `annotations`, as its JSON export and import have them; the
                   label is one choice from <Choices name="label" toName="text">, the annotator's
                   name stands in the result's `meta`

In CSV, text that a spreadsheet would take for a formula has an apostrophe in front, which is taken
off again when the file is read. Second answers to lines that were shown twice have no place in the
last two and are left out there.
Suggestions and predictions are a model's word, so they are not read as answers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from symdistill.datafiles import expect_columns, read_rows, row_named, write_aside, write_rows
from symdistill.errors import InputError
from symdistill.labelling.store import (
    KEYS_FOR_TWO,
    PREFERENCES,
    Draw,
    Given,
    Purpose,
    answers_to,
    name_of,
)
from symdistill.pool import is_empty_label, words_of

Format = Literal["jsonl", "csv", "argilla", "label-studio"]


def write_answers(
    path: Path, draw: Draw, given: Iterable[Given] = (), *, format: Format | None = None
) -> int:
    """Write a draw with the answers to it; gives the number of rows.

    Args:
        path: aside, then renamed; one that is there is replaced.
        draw: its lines, in its order.
        given: answers (`LabelStore.given`); those to other draws are passed over.
        format: None: by the suffix, .jsonl or .csv.

    Raises:
        InputError: the suffix does not go with the format.
        RunError: the file cannot be written.
    """
    path = path.expanduser()
    kind = _format(path, format)
    said: dict[str, list[Given]] = {one.line_id: [] for one in draw.items}
    for one in given:
        if one.draw == draw.id:
            said[one.line_id].append(one)
    if kind == "csv":
        rows = (_without_formulas(row) for row in _rows(draw, said))
        return write_rows(path, rows, for_spreadsheet=True)
    if kind == "jsonl":
        return write_rows(path, _rows(draw, said))
    record = _argilla_record if kind == "argilla" else _label_studio_task
    records = [record(draw, place, said) for place in range(len(draw.items))]
    write_aside(path, json.dumps(records, ensure_ascii=False, indent=1))
    return len(records)


def read_answers(
    path: Path,
    known: Collection[str],
    *,
    annotator: str,
    purpose: Purpose = "train",
    format: Format | None = None,
    draw: str = "",
) -> list[Given]:
    """The answers of a file, in its order; rows with an empty label are passed over.

    Args:
        path: the file.
        known: the ids that may be answered.
        annotator: who answered where the file does not say.
        purpose: tells which words are answers.
        format: None: by the suffix; .json by what is in it.
        draw: the id of the draw that they answer.

    Raises:
        InputError: the file cannot be read, has an unknown id or word, two different answers of
            one annotator to one line, or no answer at all.
    """
    path = path.expanduser()
    found: dict[tuple[str, str, bool], Given] = {}
    strange: dict[str, str] = {}  # id -> where it is first
    for where, row in _read(path, format):
        if is_empty_label(row.get("label")):
            continue
        id = row.get("id")
        if not isinstance(id, str | int):
            raise InputError(f"expected an id on {where} of {path}; got {str(id)[:40]!r}; keep the "
                             "ids of the exported file")  # fmt: skip
        if str(id) not in known:
            strange.setdefault(str(id), where)
        if strange:
            continue
        one = _given(row, str(id), annotator, purpose, draw, f"{where} of {path}")
        before = found.setdefault((one.line_id, one.annotator, one.again), one)
        if before.answer != one.answer:
            raise InputError(
                f"expected one answer of {one.annotator!r} to {one.line_id[:40]!r} in {path}; got "
                f"{before.answer} and, on {where}, {one.answer}; keep one"
            )
    if strange:
        first = ", ".join(f"{id[:40]!r} on {where}" for id, where in list(strange.items())[:3])
        raise InputError(
            f"expected ids of the lines that were drawn in {path}; {len(strange):,} are not: "
            f"{first}{', ...' if len(strange) > 3 else ''}; nothing was taken: correct them, or "
            "name the draw with --for"
        )
    if not found:
        raise InputError(f"expected answers in {path}; every label is empty; fill some in")
    return list(found.values())


def _format(path: Path, format: Format | None) -> str:
    suffix = path.suffix.lower()
    fits = {"jsonl": ".jsonl", "csv": ".csv", "argilla": ".json", "label-studio": ".json"}
    if format is None and suffix in (".jsonl", ".csv"):
        return suffix[1:]
    if format is None:
        raise InputError(
            f"expected a file with the suffix .jsonl or .csv; got {str(path)!r}; change it, or "
            "say --format argilla or label-studio for .json"
        )
    if suffix != fits[format]:
        raise InputError(
            f"expected a file with the suffix {fits[format]} for {format}; got {str(path)!r}; "
            "change one of them"
        )
    return format


# -- writing ------------------------------------------------------------------------------------


def _rows(draw: Draw, said: Mapping[str, Sequence[Given]]) -> Iterator[dict[str, Any]]:
    """The lines, and then those that are shown again, each as often as it was answered."""
    asked = any(one.question is not None for one in draw.items)
    for again, items in ((False, draw.items), (True, draw.items[: draw.repeats])):
        for shown in items:
            row: dict[str, Any] = {"id": shown.line_id, "text": shown.text}
            if asked:
                row["question"] = shown.question
            if shown.other is not None:
                row["other"] = shown.other
            row["label"] = None
            if again:
                row["again"] = True
            given = [one for one in said[shown.line_id] if one.again == again]
            for one in given:
                said_so = {"label": one.answer, "annotator": one.annotator, "at": one.at}
                yield row | said_so | {"seconds": one.seconds, "note": one.note or None}
            if not given:
                yield row


def _texts(draw: Draw, place: int) -> dict[str, str]:
    shown = draw.items[place]
    parts = {"text": shown.text, "question": shown.question, "other": shown.other}
    return {name: text for name, text in parts.items() if text is not None}


def _first(said: Mapping[str, Sequence[Given]], draw: Draw, place: int) -> list[Given]:
    return [one for one in said[draw.items[place].line_id] if not one.again]


def _argilla_record(
    draw: Draw, place: int, said: Mapping[str, Sequence[Given]]
) -> Mapping[str, Any]:
    given = _first(said, draw, place)
    responses = [{"value": one.answer, "user_id": one.annotator} for one in given]
    return {
        "id": draw.items[place].line_id,
        "fields": _texts(draw, place),
        "metadata": {},
        "suggestions": {},
        "responses": {"label": responses} if responses else {},
        "vectors": {},
        "status": "completed" if responses else "pending",
        "_server_id": None,
    }


def _label_studio_task(
    draw: Draw, place: int, said: Mapping[str, Sequence[Given]]
) -> Mapping[str, Any]:
    annotations = [
        {
            "result": [
                {
                    "from_name": "label",
                    "to_name": "text",
                    "type": "choices",
                    "value": {"choices": [one.answer]},
                    "meta": {"annotator": one.annotator, "note": one.note},
                }
            ],
            "was_cancelled": False,
            "created_at": one.at,
            "lead_time": one.seconds,
        }
        for one in _first(said, draw, place)
    ]
    data = {"line_id": draw.items[place].line_id, **_texts(draw, place)}
    return {"data": data, "annotations": annotations, "predictions": []}


_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how what a spreadsheet would act on begins


def _without_formulas(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: f"'{cell}"
        if isinstance(cell, str) and cell.lstrip("'").startswith(_FORMULA)
        else cell
        for name, cell in row.items()
    }


def _with_formulas(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: cell[1:] if cell[:1] == "'" and cell.lstrip("'").startswith(_FORMULA) else cell
        for name, cell in row.items()
    }


# -- reading ------------------------------------------------------------------------------------


def _read(path: Path, format: Format | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Where each answer stands, and its id, label and the rest by the names of our own files."""
    suffix = path.suffix.lower()
    if format in ("argilla", "label-studio") or (format is None and suffix == ".json"):
        yield from _json_answers(path, format)
        return
    if format is not None and suffix != f".{format}":
        _format(path, format)
    columns: dict[str, None] = {}
    for number, row in read_rows(path, ("id", "label"), what="labels"):
        if isinstance(row, str):
            raise InputError(
                f"expected labels in {path}; {row_named(path, number)} {row}; mend or remove it"
            )
        columns |= dict.fromkeys(row)
        yield row_named(path, number), (_with_formulas(row) if suffix in (".csv", ".tsv") else row)
    if suffix == ".jsonl" and columns:  # no header: only the rows can say
        expect_columns(["id", "label"], list(columns), path)


def _json_answers(path: Path, format: Format | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        records = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "no JSON"
        raise InputError(f"expected records of Argilla or tasks of Label Studio in {path}; got: "
                         f"{reason}; export it again")  from error  # fmt: skip
    for number, record in enumerate(records if isinstance(records, list) else [None], start=1):
        where = f"record {number}"
        try:
            if "fields" in record and format != "label-studio":
                answers = list(_argilla_answers(record))
            elif "data" in record and format != "argilla":
                answers = list(_label_studio_answers(record))
            else:
                raise KeyError
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise InputError(
                f"expected a list of {format or 'Argilla records or Label Studio tasks'} with ids "
                f"and one label each in {path}; {where} is something else; export it again"
            ) from error
        for answer in answers:
            yield where, answer


def _argilla_answers(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    by_question = record["responses"] or {}
    questions = ["label"] if "label" in by_question else list(by_question)
    if len(questions) > 1:
        raise KeyError("which question is the label?")
    for question in questions:
        for one in by_question[question]:
            yield {"id": record["id"], "label": one["value"], "annotator": one.get("user_id")}


def _label_studio_answers(task: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for one in task.get("annotations") or []:
        results = [each for each in one["result"] if each["type"] == "choices"]
        if one.get("was_cancelled") or not results:
            continue
        ((choice,),) = [each["value"]["choices"] for each in results]  # one result, one choice
        meta = results[0].get("meta") or {}
        by = one.get("completed_by")
        who = by.get("email") or by.get("id") if isinstance(by, dict) else by
        yield {
            "id": task["data"]["line_id"],
            "label": choice,
            "annotator": meta.get("annotator") or who,
            "note": meta.get("note"),
            "at": one.get("created_at"),
            "seconds": one.get("lead_time"),
        }


def _given(
    row: Mapping[str, Any], id: str, annotator: str, purpose: Purpose, draw: str, where: str
) -> Given:
    said = str(row["label"]).strip()
    word: str | None = words_of(said)
    if purpose == "compare":
        word = KEYS_FOR_TWO.get(said.casefold(), said.casefold())
    if word not in answers_to(purpose):
        expected = (
            ", ".join(PREFERENCES)
            if purpose == "compare"
            else "valid, invalid or unsure (or v/i/u, yes/no, true/false, 1/0)"
        )
        raise InputError(f"expected {expected} as a label; got {said[:40]!r} on {where}; mend it "
                         "or leave it empty")  # fmt: skip
    who, at, note = row.get("annotator"), row.get("at"), row.get("note")
    return Given(
        draw=draw,
        line_id=id,
        annotator=(name_of(str(who)) if who is not None else "") or annotator,
        answer=word,
        again=str(row.get("again") or "").strip().casefold() in ("true", "1", "yes"),
        at=at if isinstance(at, str) and at else datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=_seconds(row.get("seconds")),
        note=str(note) if note is not None else "",
    )


def _seconds(value: Any) -> float | None:
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None
