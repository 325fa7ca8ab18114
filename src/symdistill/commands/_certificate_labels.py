"""What `symdistill certify` tests: the frozen lines, and labels of some drawn at random.

They are a column of the user's table, or the answers to the newest draw for a certificate.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from symdistill.errors import InputError
from symdistill.records import content_hash

if TYPE_CHECKING:
    from symdistill.critic.certificate import Frozen, Labelling
    from symdistill.labelling.store import Draw, LabelStore
    from symdistill.pool import LabelWord, Line, Pool

COLUMNS = ("text", "score", "group", "question", "id")


@dataclass(frozen=True)
class Input:
    """All that the test takes, and what to tell of it."""

    pool: Pool
    ranked: Sequence[Line]  # best first, without lines labelled before
    frozen: Frozen
    labels: Sequence[tuple[str, LabelWord]]
    labelling: Labelling
    columns: Mapping[str, str | None]
    use: str  # the same for a repeat of the same test, and only for that
    abandoned: Sequence[Mapping[str, Any]] = ()  # draws given up before
    notes: list[str] = field(default_factory=list)


def pool_of(source: Path, columns: Mapping[str, str | None]) -> Pool:
    """The lines of a table by its columns, or of a run, which has its own.

    Raises:
        InputError: a column named of a run, no scores of a table, or the source cannot be read.
    """
    from symdistill.pool import read_pool

    if source.expanduser().is_dir():
        for name in ("label", "score", "group", "question", "id"):
            if columns.get(name) is not None:
                raise InputError(
                    f"expected --{name} with a table; {source} is a run, which has no column of "
                    f"{name}s to choose; leave it out: a run has its own scores, and `symdistill "
                    "plan --freeze` and `symdistill label` take labels"
                )
        return read_pool(source)
    if columns["score"] is None:
        raise InputError(
            f"expected --score, the column of scores in {source}; got none; score the lines with "
            "`symdistill critic score`, or name a column"
        )
    named: dict[str, Any] = {**columns, "text": columns["text"] or "text"}
    return read_pool(source, **named)


def void_outdated(source: Path) -> list[Path]:
    """Void what no longer holds, and say so in a run's report; gives what cannot be read."""
    from symdistill.critic.kept_certificates import void_outdated as void
    from symdistill.pool import home_of

    voided, unreadable = void(source)
    if voided:
        report(home_of(source))
    return unreadable


def report(home: Path) -> None:
    """Write the report of a run again, since it says what is certified; a table has none."""
    if (home / "metrics.json").is_file():
        from symdistill.recipes import write_report

        write_report(home)


def not_in_pool(pool: Pool) -> list[str]:
    """Which rows were refused, in a sentence."""
    from symdistill.pool import refused_words

    words = refused_words(pool)
    return [f"{words}."] if words else []


def plan_command(
    source: Path,
    columns: Mapping[str, str | None],
    precisions: Iterable[float],
    *,
    max_share: float | None = None,
    labels: int | None = None,
    delta: float = 0.05,
    looks: int = 1,
    pilot: str | None = None,
) -> str:
    """The `symdistill plan` that asks for this, to paste; with `labels` the one that freezes."""
    named = {"score": columns.get("score"), "text": columns.get("text"),
             "question": columns.get("question"), "id": columns.get("id"),
             "group": columns.get("group"), "label": pilot}  # fmt: skip
    if source.expanduser().is_dir() or named["text"] == "text":
        named["text"] = None
    words = ["symdistill", "plan", str(source)]
    for name, column in named.items():
        words += [f"--{name}", column] if column is not None else []
    for one in precisions:
        words += ["--precision", f"{one:g}"]
    words += ["--max-share", f"{max_share:g}"] if max_share is not None else []
    words += ["--delta", f"{delta:g}"] if delta != 0.05 else []
    words += ["--looks", str(looks)] if looks > 1 else []
    words += ["--labels", str(labels), "--freeze"] if labels is not None else []
    return shlex.join(words)


def learnt_from(pool: Pool, columns: Mapping[str, str | None], store: LabelStore) -> set[str]:
    """The lines drawn to train a critic, and those that the critic behind the scores learnt from.

    Raises:
        InputError: what the critic learnt from cannot be read.
    """
    from symdistill.records import normalise

    shown = [item for draw in store.draws("train") for item in draw.items]
    ids = {item.line_id for item in shown}
    texts = {(normalise(item.text), item.question) for item in shown}
    scored = _scored_from(pool, columns)
    return {
        line.id for line in pool.lines
        if line.id in ids or (normalise(line.text), line.question) in texts
        or line.number in scored
    }  # fmt: skip


def _scored_from(pool: Pool, columns: Mapping[str, str | None]) -> set[int]:
    """The rows that `symdistill critic score` says its critic learnt from."""
    from symdistill.pool import read_pool

    path = pool.home / "learnt.json"
    try:
        learnt = json.loads(path.read_text(encoding="utf-8"))
        if learnt["column"] != columns["score"]:
            return set()
        same = {id.partition("-")[0] for id in learnt["ids"]}  # "-2": the same text once more
    except FileNotFoundError:
        return set()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"expected in {path} which lines the critic learnt from; got: {error}; score the file "
            "again with `symdistill critic score`"
        ) from error
    by_text = pool if columns["id"] is None else read_pool(
        pool.source, text=columns["text"] or "text", question=columns["question"], withdrawn=True
    )  # fmt: skip
    return {line.number for line in by_text.lines if line.id.partition("-")[0] in same}


# ------------------------------------------------------------------------------- labels in a column


def of_column(
    source: Path,
    label: str,
    columns: Mapping[str, str | None],
    precision: Sequence[float],
    max_share: float,
    delta: float,
) -> Input:
    """Labels that the user says were drawn at random.

    Raises:
        InputError: they are too few, contradict each other, were chosen by score, or a critic
            learnt from them.
    """
    from symdistill.critic.certificate import (
        FEWEST_LABELS,
        Labelling,
        check_numbers,
        freeze,
        top_lines,
    )
    from symdistill.critic.fixed_sequence import why_not_random
    from symdistill.labelling.store import LabelStore
    from symdistill.pool import read_label

    check_numbers(precision, max_share, delta)
    pool = pool_of(source, {**columns, "label": label})
    ranked = pool.ranked()
    words = [(place, line, word) for place, line in enumerate(ranked, start=1)
             if (word := read_label(line, source)) is not None]  # fmt: skip
    if columns["id"] is None:
        _refuse_contradictions((line, word) for _, line, word in words)
    top = top_lines(len(ranked), max_share)
    inside = [one for one in words if one[0] <= top]
    notes = not_in_pool(pool)
    if outside := len(words) - len(inside):
        notes.insert(0, f"{outside:,} labels lie outside the best {max_share:.4g} of the lines and "
                        "were set aside.")  # fmt: skip
    if len(inside) < FEWEST_LABELS:
        raise InputError(
            f"expected at least {FEWEST_LABELS} labels among the best {top:,} of "
            f"{len(ranked):,} lines; got {len(inside)}; label more lines drawn at random"
        )
    with LabelStore(pool.home, read_only=True) as store:
        learnt = learnt_from(pool, columns, store)
    if known := sum(line.id in learnt for _, line, _ in inside):
        raise InputError(
            f"expected labels that no critic learns from; got {known:,} of lines drawn to train or "
            "learnt from by the critic that scored them, of which its scores know too much; draw "
            "other lines with `symdistill plan --freeze`, which leaves these out"
        )
    if why := why_not_random([place for place, _, _ in inside], top):
        raise InputError(
            f"expected labels of lines drawn at random from the best {top:,}; these cannot be: of "
            f"{len(inside):,}, {why}; draw lines with `symdistill plan --freeze`, or give the "
            "--max-share that they were drawn from"
        )
    labels = [(line.id, word) for _, line, word in inside]
    frozen = freeze(ranked, pool.hash, precision=precision, max_share=max_share, delta=delta,
                    labels=len(labels), groups=columns["group"] is not None)  # fmt: skip
    use = content_hash([asdict(frozen), sorted(labels), dict(columns)], 16)
    return Input(pool, ranked, frozen, labels, Labelling(), columns, use, notes=notes)


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


# --------------------------------------------------------------------------------- labels of a draw


def of_store(source: Path, columns: Mapping[str, str | None], asked: Mapping[str, Any]) -> Input:
    """The newest frozen plan of a source and its labels.

    Of a look that was tested, the labels of that time count: what is answered afterwards counts
    for the lines that come after it.

    Raises:
        InputError: there is no plan, labels are missing, or something is not as it was fixed.
    """
    from symdistill.critic.certificate import Frozen
    from symdistill.critic.kept_certificates import tested_of
    from symdistill.labelling.store import LabelStore
    from symdistill.pool import home_of

    home = home_of(source)
    with LabelStore(home, read_only=True) as store:
        draw = _newest_draw(store, source, columns)
        frozen, fixed = Frozen.from_plan(draw.plan), draw.plan["columns"]
        _refuse_other(frozen, fixed, columns, asked)
        pool = pool_of(source, {**fixed, "label": None})
        if pool.hash != draw.pool_hash:
            _refuse_changes(source, fixed, draw.pool_hash, plan_command(
                source, fixed, frozen.precisions, max_share=frozen.max_share, delta=frozen.delta,
                looks=len(frozen.looks), labels=frozen.looks[-1]
            ))  # fmt: skip
        verdicts = store.verdicts(draw.id)
        labelling = _labelling(store, draw)
    tested = tested_of(home, draw.id)
    before = dict(tested.labels) if tested else {}
    words = cast("dict[str, LabelWord]", verdicts | before)
    answered = takewhile(lambda item: item.line_id in words, draw.items)
    labels = [(item.line_id, words[item.line_id]) for item in answered]
    due = [look for look in frozen.looks if look <= len(labels)]
    if not due:
        missing = sum(item.line_id not in words for item in draw.items[: frozen.looks[0]])
        raise InputError(
            f"expected all {frozen.looks[0]:,} labels that were fixed beforehand; {missing:,} are "
            f"missing, and to test before would be a look that was not fixed; go on with: "
            f"symdistill label {shlex.quote(str(source))}"
        )
    notes = not_in_pool(pool)
    following = next((look for look in frozen.looks if look > len(labels)), None)
    if following is not None:
        notes.append(f"The next look is at {following:,} labels; go on labelling.")
    if late := sum(verdicts.get(id) != word for id, word in before.items()):
        notes.append(f"{late:,} labels were changed after they had been tested; those that were "
                     "tested count.")  # fmt: skip
    labels = labels[: due[-1]]
    _refuse_forgotten(home, draw, due, labels)
    if tested and len(tested.labels) == due[-1]:
        labelling = tested.labelling
    gone = set(draw.plan["left_out_ids"])
    ranked = [line for line in pool.ranked() if line.id not in gone]
    return Input(pool, ranked, frozen, labels, labelling, fixed, draw.id,
                 draw.plan.get("abandoned", ()), notes)  # fmt: skip


def _newest_draw(store: LabelStore, source: Path, columns: Mapping[str, str | None]) -> Draw:
    if draws := store.draws("certificate"):
        return draws[-1]
    if not source.expanduser().is_dir():
        columns = {**columns, "score": columns["score"] or "SCORE"}
    if store.draws():
        raise InputError(
            f"expected labels of a draw for a certificate; those of {source} were drawn to "
            f"train or to audit, which certifies nothing; see: symdistill plan --help, --freeze"
        )
    raise InputError(
        f"expected --label, the column of labels, or a frozen plan of {source}; there is neither; "
        f"see what it takes: {plan_command(source, columns, [0.9])}"
    )


def _refuse_other(
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
    for name in COLUMNS:
        if columns[name] is not None and columns[name] != fixed[name]:
            raise InputError(
                f"expected the {name} column that was frozen, {fixed[name] or 'none'}; got "
                f"{columns[name]!r}; leave it out, or freeze a new plan"
            )


def _refuse_changes(
    source: Path, columns: Mapping[str, str | None], pool_hash: str, again: str
) -> None:
    """Say what became of the pool; `again`: the command that freezes a new plan."""
    from symdistill.critic.kept_certificates import changes, withdrawn_since
    from symdistill.pool import home_of

    told = changes(source, columns, pool_hash)
    if told is not None:
        raise InputError(
            f"expected the pool as it was frozen; since then {told}; a certificate of it is void: "
            f"restore the file, or freeze a new plan: {again} (with --abandon WHY if this was "
            "never tested)"
        )
    count = withdrawn_since(home_of(source), pool_hash)
    were = "was" if count == 1 else "were"
    raise InputError(
        f"expected the pool as it was frozen; since then {count:,} of its lines {were} withdrawn; "
        f"freeze a new plan of the lines that are left: {again} (with --abandon WHY if this one "
        "was never tested; what was certified of other lines still stands)"
    )


def _refuse_forgotten(
    home: Path, draw: Draw, due: Sequence[int], labels: Sequence[tuple[str, LabelWord]]
) -> None:
    """Refuse other labels than a result of this draw tells of: the record of its test is lost."""
    from symdistill.critic.certificate import labels_hash
    from symdistill.critic.kept_certificates import read_certificates

    now = [labels_hash(labels[:look]) for look in due]
    for _, one in read_certificates(home):
        same = all(a == b for a, b in zip(one.tested, now, strict=False))
        if one.labelling.draw == draw.id and not same:
            raise InputError(
                f"expected in {home / 'tested.jsonl'} the labels tested at {one.made_at}; "
                "they are not there, and to test others would be a look that was not fixed; "
                "restore the file"
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
