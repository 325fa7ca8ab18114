"""`symdistill certify`: how many of the best-scored lines are valid, with a guarantee.

The certificate rests on how the labels were drawn. Either `plan --freeze` draws them, `label` asks
for them and `certify` tests them; or they are a column of the table, and it is the user who says
that they were drawn at random.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from symdistill.commands._certificate_labels import of_column, of_store, report, void_outdated
from symdistill.commands.plan import Id, Question, Score, Source
from symdistill.datafiles import Row, read_rows, write_rows
from symdistill.errors import InputError
from symdistill.visible import visible

if TYPE_CHECKING:
    from symdistill.critic.certificate import Certificate, Frozen
    from symdistill.pool import LabelWord, Line, Pool

out = Console(markup=False, highlight=False, emoji=False)
NOT_CERTIFIED = 4  # exit code


def certify(
    source: Source,
    score: Score = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="The column of labels, empty where there is none. Default: those that "
            "`symdistill label` took."
        ),
    ] = None,
    precision: Annotated[
        list[float] | None, typer.Option(help="Share valid to certify, 0..1. Given twice: both.")
    ] = None,
    max_share: Annotated[
        float | None,
        typer.Option(
            help="The largest share of the lines you would keep: the labelled lines were "
            "drawn from these best ones. Default: all."
        ),
    ] = None,
    delta: Annotated[
        float | None, typer.Option(help="How often the procedure may err. Default: 0.05.")
    ] = None,
    group: Annotated[str | None, typer.Option(help="A column: a statement for each group.")] = None,
    text: Annotated[
        str | None, typer.Option(help="The column of the lines. Default: text.")
    ] = None,
    question: Question = None,
    id_: Id = None,
    out_file: Annotated[
        Path | None,
        typer.Option("--out", help="Write the certified lines there: .csv, .jsonl or .parquet."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Only print the result, as one line of JSON.")
    ] = False,
) -> None:
    """Certify how many of the best-scored lines are valid; exit code 4 where nothing can be.

    With --label, the labels must be those of lines drawn at random from the best --max-share.
    Without, `symdistill plan --freeze` has drawn the lines and `symdistill label` asked for them.
    In JSON, `certified` says that at least one statement holds, `all_certified` that all do.
    """
    from symdistill.critic.certificate import certify as certify_frozen
    from symdistill.critic.kept_certificates import (
        Trial,
        keep_pool,
        keep_tested,
        read_tested,
        text_marks,
        with_history,
        write_certificate,
    )

    if out_file is not None and _same_file(source, out_file):
        raise InputError(f"expected another file for --out than {source}, whose labels hang on it; "
                         "name a new one")  # fmt: skip
    unreadable = void_outdated(source)
    columns = {"text": text, "score": score, "group": group, "question": question, "id": id_}
    if label is not None:
        if not precision:
            raise InputError("expected --precision, the share valid to certify; got none; give one")
        given = of_column(source, label, {**columns, "text": text or "text"}, precision,
                          1.0 if max_share is None else max_share,
                          0.05 if delta is None else delta)  # fmt: skip
    else:
        asked = {"precision": precision, "max-share": max_share, "delta": delta}
        given = of_store(source, columns, asked)
    home, labels = given.pool.home, given.labels
    found = certify_frozen(given.ranked, given.frozen, labels, source=str(source),
                           labelling=given.labelling, columns=given.columns)  # fmt: skip
    words = dict(labels)
    marks = text_marks(line for line in given.ranked if line.id in words)
    test = Trial(given.use, given.pool.hash, tuple(labels), marks, given.labelling)
    keep_tested(home, test)  # before anyone is told
    keep_pool(given.pool)
    earlier = read_tested(home)
    found = [with_history(one, test, earlier, given.abandoned) for one in found]
    paths = [write_certificate(home, one) for one in found]
    report(home)
    notes = [*given.notes, *_ties_at_cut(given.ranked, found)]
    notes += [f"Cannot be read, so do not trust it: {path}; restore it." for path in unreadable]
    certified = any(one.certified for one in found)
    if not certified and len(labels) == given.frozen.looks[-1]:
        notes.append(_what_would_help(given.ranked, given.frozen, labels))
    if certified and out_file is not None:
        written = write_rows(out_file, _certified_rows(given.pool, found))
        notes.append(f"The {written:,} certified lines are in {out_file}.")
    elif certified and not as_json:
        notes.append("To write the certified lines: add --out certified.csv")
    elif out_file is not None:
        notes.append(f"No line is certified, so {out_file} was not written.")
    if as_json:
        print(json.dumps(_told(found, paths, notes, len(given.pool.lines)), ensure_ascii=False))
    else:
        _tell(found, paths, notes)
    if not certified:
        raise typer.Exit(NOT_CERTIFIED)


def _same_file(one: Path, other: Path) -> bool:
    one, other = one.expanduser(), other.expanduser()
    return other.exists() and other.samefile(one)


def _certified_rows(pool: Pool, found: Sequence[Certificate]) -> Iterator[dict[str, Any]]:
    """The certified lines, best first, with all their columns and their id.

    Of several precisions: `certified_at`, the highest that holds for the line.
    """
    at: dict[str, float] = {}
    for one in found:
        for id in one.line_ids:
            at[id] = max(at.get(id, 0.0), one.precision_target)
    rows: dict[int, Row] = {} if pool.source.is_dir() else dict(read_rows(pool.source))
    several = len({one.precision_target for one in found}) > 1
    for line in pool.ranked():
        if line.id not in at:
            continue
        row = rows.get(line.number)
        if row is None or isinstance(row, str):  # of a run
            row = {"text": line.text, "question": line.question, "score": line.score, **line.fields}
        name = "id" if row.get("id", line.id) == line.id else "line_id"
        yield {name: line.id, **row, **({"certified_at": at[line.id]} if several else {})}


def _what_would_help(
    ranked: Sequence[Line], frozen: Frozen, labels: Sequence[tuple[str, LabelWord]]
) -> str:
    """What a certificate would take, guessed from the labels there are."""
    from symdistill.critic.certificate import cannot_pass
    from symdistill.critic.power import from_pilot, pilot_auc, plan

    places = {line.id: place for place, line in enumerate(ranked, start=1)}
    valid = [word == "valid" for _, word in labels]
    if not any(valid):
        return "No labelled line is valid: no number of labels helps; write better lines."
    if not all(valid) and pilot_auc([places[id] for id, _ in labels], valid)[1]:
        return ("The score runs the other way: valid lines come last. Write a column with its "
                "negative, and plan with that.")  # fmt: skip
    precision = max(frozen.precisions)
    statements = len(frozen.precisions) * max(len(frozen.groups), 1)
    if all(valid):
        least = max(cannot_pass(ranked, frozen).values(), default=len(labels) * 3 // 2)
        return f"All labelled lines are valid, but they are few: label about {least:,}, drawn anew."
    curve = from_pilot([places[id] for id, _ in labels], valid, len(ranked))
    found = plan(len(ranked), precision, curve, delta=frozen.delta, looks=len(frozen.looks),
                 statements=statements, part=1 / max(len(frozen.groups), 1))  # fmt: skip
    if found.needed is None or found.advice.startswith("A critic"):
        return found.advice
    return (
        f"What would help, guessed from these labels: about {found.needed.labels:,} labels drawn "
        f"anew from the best {found.max_share:.0%} give an 80 % chance of a certificate and keep "
        f"about {found.needed.kept:.0%} of the lines; or a lower precision; or a better critic."
    )


def _ties_at_cut(ranked: Sequence[Line], found: Sequence[Certificate]) -> list[str]:
    counts = Counter(line.score for line in ranked)
    if len(counts) == 1:
        return ["Every line has the same score: the score orders nothing."]
    most = max((counts[one.cut_score] for one in found if one.certified), default=0)
    if most <= 1:
        return []
    return [f"{most:,} lines have the score at the cut; not all of them need be in: the file of "
            "ids says which."]  # fmt: skip


def _told(
    found: Sequence[Certificate], paths: Sequence[Path], notes: Sequence[str], lines: int
) -> dict[str, Any]:
    """One object for programs. Of several statements: the lines in any, the lowest precision."""
    certified = [one for one in found if one.certified]
    best = max(certified or found, key=lambda one: one.kept)
    told = {
        "certified": bool(certified),
        "all_certified": len(certified) == len(found),
        "kept": len({id for one in certified for id in one.line_ids}),
        "precision_target": min(one.precision_target for one in certified or found),
        "labels_used": best.look,
        "sentence": " ".join(one.sentence for one in certified or found),
        "cut_score": best.cut_score,
        "pool": best.pool,
        "lines": lines,
        "max_share": best.max_share,
        "top": best.top,
        "delta": best.delta,
        "level": best.level,
        "looks": list(best.looks),
        "estimate": best.estimate,
        "interval": [best.low, best.high],
        "tests": [asdict(one) for one in best.tests],
        "labelling": asdict(best.labelling),
        "pool_hash": best.pool_hash,
        "line_ids_hash": best.line_ids_hash,
        "certificate": str(paths[list(found).index(best)]),
        "notes": list(notes),
    }
    if len(found) > 1:
        told["statements"] = [
            {"group": one.group, "certified": one.certified, "kept": one.kept,
             "precision_target": one.precision_target, "labels_used": one.labels_used,
             "sentence": one.sentence, "cut_score": one.cut_score, "estimate": one.estimate,
             "interval": [one.low, one.high], "certificate": str(path)}
            for one, path in zip(found, paths, strict=True)
        ]  # fmt: skip
    return told


def _tell(found: Sequence[Certificate], paths: Sequence[Path], notes: Sequence[str]) -> None:
    for one, path in zip(found, paths, strict=True):
        of = f"{visible(one.group)}: " if one.group is not None else ""
        if one.certified:
            head = (
                f"{of}certified: {one.kept:,} of {one.pool:,} lines, score {one.cut_score:g} and up"
            )
        else:
            head = f"{of}not certified at precision {one.precision_target:g}"
        out.print(head, soft_wrap=True)
        out.print(f"  {visible(one.sentence)}", soft_wrap=True)
        last = next((test for test in reversed(one.tests) if test.passed), one.tests[-1])
        if one.estimate is not None:
            out.print(
                f"  Estimate for the best {last.size:,}: {one.estimate:.1%} valid (95 % interval "
                f"{one.low:.1%} to {one.high:.1%}), from {last.labelled:,} labels.",
                soft_wrap=True,
            )
        beside = " (ids of the lines beside it)" if one.certified else ""
        out.print(f"  Written: {path}{beside}", soft_wrap=True)
    for note in notes:
        out.print(note, soft_wrap=True)
