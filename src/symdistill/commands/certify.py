"""`symdistill plan`, how many labels a certificate takes, and `symdistill certify`, which gives it.

The certificate rests on how the labels were drawn. Either `plan --freeze` draws them, `label` asks
for them and `certify` tests them; or they are a column of the table, and it is the user who says
that they were drawn at random.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console

from symdistill.errors import InputError
from symdistill.records import content_hash
from symdistill.visible import visible

if TYPE_CHECKING:
    from symdistill.critic.certificate import Certificate, Frozen, Labelling
    from symdistill.critic.power import Curve, Plan
    from symdistill.labelling.store import Draw, LabelStore
    from symdistill.pool import LabelWord, Line, Pool

out = Console(markup=False, highlight=False, emoji=False)
NOT_CERTIFIED = 4  # exit code
_GUESSES = (0.75, 0.8, 0.85, 0.9, 0.95)  # AUCs to plan for where none is known

Source = Annotated[Path, typer.Argument(help="The lines: a table, or a run folder.")]
Score = Annotated[
    str | None, typer.Option(help="The column of scores, higher is better. A run has its own.")
]
Text = Annotated[str, typer.Option(help="The column of the lines.")]
Question = Annotated[
    str | None, typer.Option(help="The column of what a line answers; shown with it.")
]
Id = Annotated[str | None, typer.Option("--id", help="The column of ids.")]


def plan(
    source: Source,
    precision: Annotated[
        list[float], typer.Option(help="Share valid to certify, 0..1. Given twice: both.")
    ],
    score: Score = None,
    max_share: Annotated[
        float | None,
        typer.Option(help="The largest share of the lines you would keep. Default: a guess."),
    ] = None,
    labels: Annotated[
        int | None, typer.Option(min=1, help="Lines to label. Default: what 80 % chance takes.")
    ] = None,
    auc: Annotated[
        float | None, typer.Option(help="How well the scores tell valid from invalid, 0.5..1.")
    ] = None,
    valid_share: Annotated[float, typer.Option(help="Share of all lines that is valid.")] = 0.5,
    label: Annotated[
        str | None, typer.Option(help="A column of a few labels to guess both from: a pilot.")
    ] = None,
    delta: Annotated[float, typer.Option(help="How often the procedure may err.")] = 0.05,
    looks: Annotated[
        int, typer.Option(min=1, help="How often the labels are tested on the way.")
    ] = 1,
    group: Annotated[str | None, typer.Option(help="A column: a statement for each group.")] = None,
    freeze: Annotated[
        bool, typer.Option("--freeze", help="Fix it, and draw the lines to label.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    text: Text = "text",
    question: Question = None,
    id_: Id = None,
) -> None:
    """Say how many labels a certificate takes and what it would keep; --freeze draws them.

    Label nothing before: with a weak critic, labels buy little.
    """
    from symdistill.critic.certificate import check_numbers

    check_numbers(precision, 1.0 if max_share is None else max_share, delta)
    columns = {"text": text, "score": score, "group": group, "question": question, "id": id_}
    pool = _pool(source, {**columns, "label": label})
    ranked = pool.ranked()
    groups = len({line.group for line in ranked}) if group else 1
    pilot = [(place, word) for place, line in enumerate(ranked, start=1)
             if (word := _word(line, source)) is not None]  # fmt: skip
    guess = _guess(pilot, len(ranked), auc, valid_share, label)
    planned = None
    if guess is not None:
        planned = _planned(len(ranked), precision, guess, max_share, labels, delta, looks, groups)
        _tell_plan(planned, guess_from=f"{len(pilot)} pilot labels" if label else "what you gave")
    elif labels is None or not freeze:
        _tell_guesses(len(ranked), precision, valid_share, max_share, labels, delta, looks, groups)
    if not freeze:
        return
    if planned is not None:
        max_share = planned.max_share if max_share is None else max_share
        labels = labels or (planned.needed.labels if planned.needed else None)
    if max_share is None or labels is None:
        raise InputError(
            "expected --labels and --max-share to freeze; one is not given and cannot be planned; "
            "give both, or --auc of a critic that is good enough"
        )
    left_out = {ranked[place - 1].id for place, _ in pilot}
    _freeze(pool, ranked, left_out, precision, max_share, delta, labels, looks, seed, columns)


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
    text: Text = "text",
    question: Question = None,
    id_: Id = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Only print the result, as one line of JSON.")
    ] = False,
) -> None:
    """Certify how many of the best-scored lines are valid; exit code 4 where nothing can be.

    With --label, the labels must be those of lines drawn at random from the best --max-share.
    Without, `symdistill plan --freeze` has drawn the lines and `symdistill label` asked for them.
    """
    from symdistill.critic.certificate import Labelling, write_certificate
    from symdistill.critic.certificate import certify as certify_frozen

    columns = {"text": text, "score": score, "group": group, "question": question, "id": id_}
    notes: list[str] = []
    if label is not None:
        if not precision:
            raise InputError("expected --precision, the share valid to certify; got none; give one")
        share = 1.0 if max_share is None else max_share
        error_rate = 0.05 if delta is None else delta
        pool = _pool(source, {**columns, "label": label})
        ranked = pool.ranked()
        frozen, labels = _of_column(pool, ranked, precision, share, error_rate, notes,
                                    by_text=id_ is None, groups=group is not None)  # fmt: skip
        labelling = Labelling()
    else:
        asked = {"precision": precision, "max-share": max_share, "delta": delta}
        pool, ranked, frozen, labels, labelling, columns = _of_store(source, columns, asked, notes)
    _void_gone(pool, columns)
    found = certify_frozen(
        ranked, frozen, labels, source=str(source), labelling=labelling, columns=columns
    )
    found = [_with_earlier(one, pool.home) for one in found]
    paths = [write_certificate(pool.home, one) for one in found]
    if (pool.home / "metrics.json").is_file():
        from symdistill.recipes import write_report

        write_report(pool.home)  # it says what is certified
    _note_ties(ranked, found, notes)
    certified = any(one.certified for one in found)
    if not certified and len(labels) == frozen.looks[-1]:
        notes.append(_what_would_help(ranked, frozen, labels))
    if as_json:
        print(json.dumps(_told(found, paths, notes, len(pool.lines)), ensure_ascii=False))
    else:
        _tell(found, paths, notes)
    if not certified:
        raise typer.Exit(NOT_CERTIFIED)


# ------------------------------------------------------------------------------------ what goes in


def _pool(source: Path, columns: Mapping[str, str | None]) -> Pool:
    from symdistill.pool import read_pool

    if source.expanduser().is_dir():
        if columns.get("label") is not None:
            raise InputError(
                f"expected --label with a table; {source} is a run, which has no column of labels; "
                "leave it out: `symdistill plan --freeze` and `symdistill label` take labels"
            )
        return read_pool(source)
    if columns["score"] is None:
        raise InputError(
            f"expected --score, the column of scores in {source}; got none; score the lines with "
            "`symdistill critic score`, or name a column"
        )
    return read_pool(
        source,
        text=columns["text"] or "text",
        score=columns["score"],
        label=columns.get("label"),
        group=columns["group"],
        question=columns["question"],
        id=columns["id"],
    )


def _word(line: Line, source: Path) -> LabelWord | None:
    from symdistill.pool import read_label

    return read_label(line, source)


def _of_column(
    pool: Pool,
    ranked: Sequence[Line],
    precision: Sequence[float],
    max_share: float,
    delta: float,
    notes: list[str],
    *,
    by_text: bool,
    groups: bool,
) -> tuple[Frozen, list[tuple[str, LabelWord]]]:
    """Labels that the user says were drawn at random; what no random draw gives is refused."""
    from symdistill.critic.certificate import FEWEST_LABELS, check_numbers, freeze, top_lines
    from symdistill.critic.fixed_sequence import why_not_random

    check_numbers(precision, max_share, delta)
    words = [(place, line, word) for place, line in enumerate(ranked, start=1)
             if (word := _word(line, pool.source)) is not None]  # fmt: skip
    if by_text:
        _refuse_contradictions((line, word) for _, line, word in words)
    top = top_lines(len(ranked), max_share)
    inside = [one for one in words if one[0] <= top]
    if outside := len(words) - len(inside):
        notes.append(
            f"{outside:,} labels lie outside the best {max_share:.4g} of the lines and were set "
            "aside."
        )
    if pool.refused:
        rows = "; ".join(f"{count:,} rows: {why}" for why, count in pool.refused.items())
        notes.append(f"Not in the pool: {rows}.")
    if len(inside) < FEWEST_LABELS:
        raise InputError(
            f"expected at least {FEWEST_LABELS} labels among the best {top:,} of "
            f"{len(ranked):,} lines; got {len(inside)}; label more lines drawn at random"
        )
    if why := why_not_random([place for place, _, _ in inside], top):
        raise InputError(
            f"expected labels of lines drawn at random from the best {top:,}; these cannot be: of "
            f"{len(inside):,}, {why}; draw lines with `symdistill plan --freeze`, or give the "
            "--max-share that they were drawn from"
        )
    labels = [(line.id, word) for _, line, word in inside]
    frozen = freeze(ranked, pool.hash, precision=precision, max_share=max_share, delta=delta,
                    labels=len(labels), groups=groups)  # fmt: skip
    return frozen, labels


def _refuse_contradictions(words: Iterable[tuple[Line, LabelWord]]) -> None:
    from symdistill.records import normalise

    said: dict[tuple[str, str], tuple[Line, LabelWord]] = {}
    for line, word in words:
        first, before = said.setdefault((normalise(line.text), line.question or ""), (line, word))
        if before != word:
            raise InputError(
                f"expected one label for one text; rows {first.number} and {line.number} hold the "
                f"same text, one {before} and one {word}; decide, or leave one out"
            )


def _of_store(
    source: Path,
    columns: Mapping[str, str | None],
    asked: Mapping[str, Any],
    notes: list[str],
) -> tuple[Pool, list[Line], Frozen, list[tuple[str, LabelWord]], Labelling, dict[str, str | None]]:
    """The newest frozen plan of a source and its labels; anything that was not fixed is refused."""
    from symdistill.critic.certificate import Frozen
    from symdistill.labelling.store import LabelStore
    from symdistill.pool import home_of

    home = home_of(source)
    with LabelStore(home, read_only=True) as store:
        draw = _newest_draw(store, source)
        frozen, fixed = Frozen.from_plan(draw.plan), draw.plan["columns"]
        _refuse_other(draw, frozen, fixed, columns, asked)
        pool = _pool(source, fixed)
        _refuse_changes(pool, draw)
        verdicts = store.verdicts(draw.id)
        labelling = _labelling(store, draw)
    gone = set(draw.plan["left_out_ids"])
    ranked = [line for line in pool.ranked() if line.id not in gone]
    answered = takewhile(lambda item: item.line_id in verdicts, draw.items)
    labels = [(item.line_id, cast("LabelWord", verdicts[item.line_id])) for item in answered]
    due = [look for look in frozen.looks if look <= len(labels)]
    following = next((look for look in frozen.looks if look > len(labels)), None)
    if not due:
        missing = sum(item.line_id not in verdicts for item in draw.items[: frozen.looks[0]])
        raise InputError(
            f"expected all {frozen.looks[0]:,} labels that were fixed beforehand; {missing:,} are "
            f"missing, and to test before would be a look that was not fixed; go on with: "
            f"symdistill label {shlex.quote(str(source))}"
        )
    if following is not None:
        notes.append(f"The next look is at {following:,} labels; go on labelling.")
    labels = labels[: due[-1]]
    _refuse_relabelled(home, draw, due, labels)
    return pool, ranked, frozen, labels, labelling, dict(fixed)


def _newest_draw(store: LabelStore, source: Path) -> Draw:
    if draws := store.draws("certificate"):
        return draws[-1]
    place = shlex.quote(str(source))
    if store.draws():
        raise InputError(
            f"expected labels of a draw for a certificate; those of {source} were drawn to "
            f"train or to audit, which certifies nothing; run: symdistill plan {place} --freeze"
        )
    raise InputError(
        f"expected --label, the column of labels, or a frozen plan of {source}; there is neither; "
        f"run: symdistill plan {place} --freeze"
    )


def _refuse_other(
    draw: Draw,
    frozen: Frozen,
    fixed: Mapping[str, str | None],
    columns: Mapping[str, str | None],
    asked: Mapping[str, Any],
) -> None:
    """Refuse what differs from what was fixed; what is not given is taken from there."""
    given = {"precision": list(frozen.precisions), "max-share": frozen.max_share,
             "delta": frozen.delta}  # fmt: skip
    for name, value in asked.items():
        if value is not None and value != given[name]:
            raise InputError(
                f"expected the {name} that was fixed before labelling, {given[name]}; got {value}; "
                "leave it out, or freeze a new plan, whose lines are drawn anew"
            )
    for name in ("score", "group", "id"):
        if columns[name] is not None and columns[name] != fixed[name]:
            raise InputError(
                f"expected the {name} column that was frozen, {fixed[name] or 'none'}; got "
                f"{columns[name]!r}; leave it out, or freeze a new plan"
            )


def _refuse_changes(pool: Pool, draw: Draw) -> None:
    """Refuse a pool that is not the frozen one, say what changed, and void what was certified."""
    from symdistill.critic.certificate import read_certificates, void

    if pool.hash == draw.pool_hash:
        return
    changes = _changes(_snapshot(pool.home, draw.id), pool)
    for path, one in read_certificates(pool.home):
        if one.labelling.draw == draw.id and one.certified:
            void(path, f"the pool changed after it was frozen: {changes}")
    raise InputError(
        f"expected the pool as it was frozen; since then {changes}; a certificate of it is void: "
        "restore the file, or freeze a new plan"
    )


def _changes(path: Path, pool: Pool) -> str:
    if not path.is_file():
        return "lines were added, removed or changed"
    rows = (json.loads(row) for row in path.read_text(encoding="utf-8").splitlines())
    before = {id: (text, score) for id, text, score in rows}
    now = {line.id: (_mark(line), line.score) for line in pool.lines}
    both = before.keys() & now.keys()
    counts = {
        "added": len(now.keys() - before.keys()),
        "removed": len(before.keys() - now.keys()),
        "given another text": sum(before[id][0] != now[id][0] for id in both),
        "given another score": sum(before[id][1] != now[id][1] for id in both),
    }
    return ", ".join(
        f"{count:,} {'line was' if count == 1 else 'lines were'} {what}"
        for what, count in counts.items()
        if count
    )


def _refuse_relabelled(
    home: Path, draw: Draw, due: Sequence[int], labels: Sequence[tuple[str, LabelWord]]
) -> None:
    """A look is tested once: other labels for it afterwards would be another look."""
    from symdistill.critic.certificate import labels_hash, read_certificates

    now = [labels_hash(labels[:look]) for look in due]
    for _, one in read_certificates(home):
        if one.labelling.draw == draw.id:
            for look, before, hash in zip(due, one.tested, now, strict=False):
                if before != hash:
                    raise InputError(
                        f"expected the {look:,} labels that were tested at {one.made_at}; some "
                        "were changed since, and to test again would be a look that was not fixed; "
                        "freeze a new plan"
                    )


def _labelling(store: LabelStore, draw: Draw) -> Labelling:
    from symdistill.critic.certificate import Labelling

    given = store.given(draw.id)
    days = sorted(one.at[:10] for one in given) or [""]
    who = tuple(sorted({one.annotator for one in given}))
    shown = "; ".join(_named(text) for text in store.instructions(draw.id))
    return Labelling(draw.id, who, days[0], days[-1], shown)


def _named(instructions: str) -> str:
    """Instructions by their first line and a hash of the whole."""
    first = next((line.strip(" #") for line in instructions.splitlines() if line.strip()), "")
    return f'"{first[:80]}" (hash {content_hash(instructions, 8)})'


# --------------------------------------------------------------------------------------- freezing


def _freeze(
    pool: Pool,
    ranked: Sequence[Line],
    left_out: set[str],
    precision: Sequence[float],
    max_share: float,
    delta: float,
    labels: int,
    looks: int,
    seed: int,
    columns: Mapping[str, str | None],
) -> None:
    """Fix everything, draw the lines, and say what to do next."""
    from symdistill.critic.certificate import freeze
    from symdistill.labelling.draw import random_draw
    from symdistill.labelling.store import LabelStore

    with LabelStore(pool.home) as store:
        left_out = left_out | store.labelled_ids() | store.drawn_ids("train")
        left = [line for line in ranked if line.id not in left_out]
        left_out &= {line.id for line in ranked}
        if not left:
            raise InputError(f"expected lines in {pool.source} that nobody has labelled; got none")
        frozen = freeze(left, pool.hash, precision=precision, max_share=max_share, delta=delta,
                        labels=labels, looks=looks, groups=columns["group"] is not None,
                        left_out=len(left_out))  # fmt: skip
        fixed = {**frozen.to_plan(), "columns": dict(columns), "score": columns["score"],
                 "left_out_ids": sorted(left_out)}  # fmt: skip
        draw = random_draw(left[: frozen.top], labels, seed, purpose="certificate",
                           pool_hash=pool.hash, plan=fixed)  # fmt: skip
        _write_snapshot(_snapshot(pool.home, draw.id), pool)
        store.add_draw(draw)
    place = shlex.quote(str(pool.source))
    known = f" ({len(left_out):,} labelled before left the pool)" if left_out else ""
    steps = " and ".join(f"{look:,}" for look in frozen.looks)
    out.print(
        f"Frozen: {frozen.lines:,} lines{known}; {labels:,} drawn at random from the best "
        f"{frozen.top:,}, to be tested at {steps} labels. From now on a changed file is refused.",
        soft_wrap=True,
    )
    out.print(f"Next: symdistill label {place}", soft_wrap=True)
    again = f" --score {shlex.quote(columns['score'])}" if columns["score"] else ""
    out.print(f"Then: symdistill certify {place}{again}", soft_wrap=True)


def _snapshot(home: Path, draw: str) -> Path:
    return home / "certificates" / f"{draw}.pool.jsonl"


def _write_snapshot(path: Path, pool: Pool) -> None:
    """The frozen pool, so that it can be said what changed."""
    from symdistill.critic.certificate import write_aside

    rows = ([line.id, _mark(line), line.score] for line in pool.lines)
    write_aside(path, "".join(json.dumps(row) + "\n" for row in rows))


def _mark(line: Line) -> str:
    from symdistill.records import content_hash

    return content_hash(line.text, 8)


# ---------------------------------------------------------------------------------------- planning


def _guess(
    pilot: Sequence[tuple[int, LabelWord]],
    lines: int,
    auc: float | None,
    valid_share: float,
    label: str | None,
) -> Curve | None:
    from symdistill.critic.power import binormal, from_pilot

    if label is not None and auc is not None:
        raise InputError("expected --auc or --label as a pilot; got both; leave one out")
    if label is not None:
        return from_pilot([place for place, _ in pilot], [word == "valid" for _, word in pilot],
                          lines)  # fmt: skip
    return None if auc is None else binormal(auc, valid_share)


def _planned(
    lines: int,
    precision: Sequence[float],
    curve: Curve,
    max_share: float | None,
    labels: int | None,
    delta: float,
    looks: int,
    groups: int,
) -> Plan:
    """A plan for the highest precision; groups as if they were alike."""
    from symdistill.critic.power import plan

    return plan(lines, max(precision), curve, max_share=max_share, labels=labels, delta=delta,
                looks=looks, statements=len(precision) * groups)  # fmt: skip


def _tell_plan(planned: Plan, guess_from: str) -> None:
    say = [
        f"{planned.lines:,} lines; by {guess_from}, the scores have AUC {planned.auc:.2f} and "
        f"{planned.valid_share:.0%} of the lines are valid.",
        f"Were every label known, {planned.best_share:.0%} of the pool could be kept at precision "
        f"{planned.precision:g}.",
    ]
    for one, words in ((planned.needed, "For an 80 % chance of a certificate, label "),
                       (planned.asked, "With ")):  # fmt: skip
        if one is not None:
            say.append(
                f"{words}{one.labels:,} lines drawn from the best {one.max_share:.0%}: chance "
                f"{one.chance:.0%}, kept on average {one.kept:.0%} of the pool."
            )
    for sentence in [*say, planned.advice]:
        if sentence:
            out.print(sentence, soft_wrap=True)


def _tell_guesses(
    lines: int,
    precision: Sequence[float],
    valid_share: float,
    max_share: float | None,
    labels: int | None,
    delta: float,
    looks: int,
    groups: int,
) -> None:
    """What critics of several kinds would take, where nothing is known of this one."""
    from symdistill.critic.power import binormal

    out.print(
        f"{lines:,} lines. How good the scores are is not known: give --auc, or --label with a few "
        f"labelled lines. If {valid_share:.0%} of the lines were valid:",
        soft_wrap=True,
    )
    out.print("   AUC  best possible   labels  from best  chance  kept")
    for auc in _GUESSES:
        found = _planned(lines, precision, binormal(auc, valid_share), max_share, labels, delta,
                         looks, groups)  # fmt: skip
        one = found.asked or found.needed
        told = "  not even 5,000 labels are enough" if one is None else (
            f"{one.labels:>9,}{one.max_share:>11.0%}{one.chance:>8.0%}{one.kept:>6.0%}"
        )  # fmt: skip
        out.print(f"  {auc:.2f}{found.best_share:>15.0%}{told}")


def _what_would_help(
    ranked: Sequence[Line], frozen: Frozen, labels: Sequence[tuple[str, LabelWord]]
) -> str:
    """What a certificate would take, guessed from the labels there are."""
    from symdistill.critic.power import from_pilot

    places = {line.id: place for place, line in enumerate(ranked, start=1)}
    valid = [word == "valid" for _, word in labels]
    if not any(valid):
        return "No labelled line is valid: no number of labels helps; write better lines."
    precision = max(frozen.precisions)
    statements = len(frozen.precisions) * max(len(frozen.groups), 1)
    if all(valid):
        least = next(one for one in range(len(labels), 10**6) if precision**one <= frozen.level)
        return f"All labelled lines are valid, but they are few: label about {least:,}, drawn anew."
    curve = from_pilot([places[id] for id, _ in labels], valid, len(ranked))
    from symdistill.critic.power import plan

    found = plan(len(ranked), precision, curve, delta=frozen.delta, looks=len(frozen.looks),
                 statements=statements)  # fmt: skip
    if found.needed is None or found.advice.startswith("A critic"):
        return found.advice
    return (
        f"What would help, guessed from these labels: about {found.needed.labels:,} labels drawn "
        f"anew from the best {found.max_share:.0%} give an 80 % chance of a certificate and keep "
        f"about {found.needed.kept:.0%} of the lines; or a lower precision; or a better critic."
    )


# ----------------------------------------------------------------------------------------- telling


def _with_earlier(one: Certificate, home: Path) -> Certificate:
    """Say in the sentence how often these lines were tested before in another way."""
    from dataclasses import replace

    from symdistill.critic.certificate import read_certificates

    def use(c: Certificate) -> tuple[Any, ...]:  # one use of the procedure, with all it states
        of = c.labelling.draw or c.labels_hash
        return of, c.precisions, c.groups, c.max_share, c.delta

    earlier = {use(c) for _, c in read_certificates(home) if c.pool_hash == one.pool_hash}
    if not (count := len(earlier - {use(one)})):
        return one
    times = "once" if count == 1 else f"{count:,} times"
    told = (
        f" These lines were tested {times} before on other labels or for another statement; the "
        "error rate is that of one use, fixed beforehand, not of the best of several."
    )
    return replace(one, sentence=one.sentence + told)


def _void_gone(pool: Pool, columns: Mapping[str, str | None]) -> None:
    """Void what was certified of lines that are no longer there."""
    from symdistill.critic.certificate import read_certificates, void

    here = {line.id for line in pool.lines}
    same = [columns[name] for name in ("text", "question", "id")]
    for path, one in read_certificates(pool.home):
        if one.voided is None and [one.columns.get(n) for n in ("text", "question", "id")] == same:
            gone = len(set(one.line_ids) - here)
            if gone:
                void(path, f"{gone:,} of its lines are no longer in {pool.source.name}")


def _note_ties(ranked: Sequence[Line], found: Sequence[Certificate], notes: list[str]) -> None:
    if len({line.score for line in ranked}) == 1:
        notes.append("Every line has the same score: the score orders nothing.")
        return
    counts = Counter(line.score for line in ranked)
    for one in found:
        if one.certified and counts[one.cut_score] > 1:
            notes.append(
                f"{counts[one.cut_score]:,} lines have the score at the cut; not all of them need "
                "be in: the file of ids says which."
            )
            return


def _told(
    found: Sequence[Certificate], paths: Sequence[Path], notes: Sequence[str], lines: int
) -> dict[str, Any]:
    """One object for programs. Of several statements: the lines in any, the lowest precision."""
    certified = [one for one in found if one.certified]
    best = max(certified or found, key=lambda one: one.kept)
    told = {
        "certified": bool(certified),
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
        out.print(f"  {one.sentence}", soft_wrap=True)
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
