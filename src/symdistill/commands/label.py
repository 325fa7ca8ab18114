"""`symdistill label`: people say of lines whether they are valid."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from symdistill.commands._labelling import (
    ask_people,
    check_source,
    is_open,
    login,
    out,
    refuse_overwriting,
    take,
    tell_instructions,
)
from symdistill.errors import InputError
from symdistill.visible import visible

if TYPE_CHECKING:
    from symdistill.labelling.formats import Format
    from symdistill.labelling.store import Draw, Given, LabelStore
    from symdistill.pool import Line, Pool

DEFAULT_LINES = 200
_HOW = {"random": "random", "near-cut": "near_cut", "disagreement": "disagreement"}


def label(
    source: Annotated[Path, typer.Argument(help="The lines: a table, or a run folder.")],
    text: Annotated[str, typer.Option(help="The column of the lines.")] = "text",
    score: Annotated[
        str | None, typer.Option(help="The column of scores, for --how. Never shown.")
    ] = None,
    group: Annotated[str | None, typer.Option(help="The column of what belongs together.")] = None,
    question: Annotated[
        str | None, typer.Option(help="The column of what a line answers; shown with it.")
    ] = None,
    id_: Annotated[str | None, typer.Option("--id", help="The column of ids.")] = None,
    for_: Annotated[
        str | None,
        typer.Option("--for", help="train, certificate, audit, compare, or the name of a draw."),
    ] = None,
    how: Annotated[
        str | None,
        typer.Option(help="Which lines to learn from: random, near-cut or disagreement."),
    ] = None,
    n: Annotated[
        int | None, typer.Option("--n", min=1, help=f"Lines to draw. Default: {DEFAULT_LINES}.")
    ] = None,
    cut: Annotated[
        float | None, typer.Option(help="The score that near-cut means. Default: the median.")
    ] = None,
    second: Annotated[
        str | None,
        typer.Option(help="Another column of scores, for --how disagreement. Else: annotators."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed draws other lines.")] = None,
    repeat: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of the lines shown twice, 0..1.")
    ] = None,
    annotator: Annotated[
        str | None, typer.Option(help="Who labels. Default: the page asks; elsewhere your login.")
    ] = None,
    terminal: Annotated[bool, typer.Option(help="Label here instead of in a browser.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0: a free one.")] = 0,
    import_: Annotated[
        Path | None, typer.Option("--import", help="Take the answers of a file.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write the lines and answers to a file.")
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", help="jsonl, csv, argilla, label-studio. Default: by the suffix."),
    ] = None,
    agreement: Annotated[
        bool, typer.Option("--agreement", help="Only say how far the annotators agree.")
    ] = False,
    instructions: Annotated[
        Path | None, typer.Option(help="A text file, shown instead of the packaged instructions.")
    ] = None,
) -> None:
    """Label lines on a page in your browser, in this terminal, or by a file.

    Goes on with the draw that is not finished: a certificate's first, then the newest. Where there
    is none, lines are drawn to train a critic (after a certificate or an audit only with --for
    train). Every answer is kept at once; stopped at any time, the same command goes on.
    """
    from symdistill.labelling.store import LabelStore
    from symdistill.pool import home_of

    if sum([terminal, agreement, import_ is not None, export is not None]) > 1:
        raise InputError("expected one of --terminal, --import, --export and --agreement; got more "
                         "than one; give them one after the other")  # fmt: skip
    if not source.expanduser().exists():
        raise InputError(f"expected a file of lines or a run folder at {source}; there is none; "
                         "check the path")  # fmt: skip
    columns = {"text": text, "score": score, "group": group, "question": question, "id": id_}
    format = cast("Format | None", _one_of(format_, "jsonl csv argilla label-studio", "--format"))
    how = _one_of(how, " ".join(_HOW), "--how")
    if export is not None:
        refuse_overwriting(export)
    asked = _Asked(source, columns, how, n, cut, second, seed, repeat)
    home, who = home_of(source), annotator or login()
    told = None if instructions is None else _read_instructions(instructions)

    with LabelStore(home, read_only=True) as store:  # nothing is made where nothing can be
        if agreement:
            _tell_all(store)
            return
        if import_ is not None:
            draw, answers = _imported(store, asked, for_, import_, who, format)
        else:
            draw, answers = _drawn(store, asked, for_, finished=export is not None), []
    if export is not None:
        _export(home, draw, export, format, source, told)
        return
    with LabelStore(home) as store:
        store.add_draw(draw)
        if import_ is not None:
            if told is not None:
                store.keep_instructions(draw.id, told)
            take(store, draw, answers)
        elif for_ is not None or draw.purpose == "train" or is_open(store, draw):
            ask_people(store, draw, annotator, instructions=told, terminal=terminal, port=port,
                       then=_next(draw, source, score), on_ctrl_c="stops")  # fmt: skip
        _tell(store, draw, source, score)


@dataclass(frozen=True)
class _Asked:
    """What was asked of a new draw."""

    source: Path
    columns: Mapping[str, str | None]
    how: str | None
    n: int | None
    cut: float | None
    second: str | None
    seed: int | None
    repeat: float | None

    @property
    def plan(self) -> dict[str, Any]:
        """What a draw keeps of it, so that the same command finds it again."""
        names = ("how", "n", "cut", "second", "seed", "repeat")
        return {name: value for name, value in asdict(self).items() if name in names}

    @property
    def is_new(self) -> bool:
        """Whether lines of a certain kind were asked for, and not just any that are open."""
        return any(value is not None for value in self.plan.values())

    def pool(self) -> Pool:
        """The lines, read."""
        from symdistill.pool import read_pool

        columns = cast(dict[str, Any], dict(self.columns))
        return read_pool(self.source, **columns)


# -- which draw -----------------------------------------------------------------------------------


def _drawn(store: LabelStore, asked: _Asked, for_: str | None, *, finished: bool) -> Draw:
    """The draw to go on with (else, if `finished`, the newest one), or a new one for training."""
    found = _named(store, asked, for_) or _open(store, asked, for_)
    if found is None:
        last = _newest(_like(store, asked, for_))
        found = last if finished or (last and last.purpose != "train") else None
    if found:
        done, total = store.progress(found.id)
        out.print(f"Goes on with {found.id} ({found.plan.get('how', 'random')}): {done:,} of "
                  f"{total:,} answered.", soft_wrap=True)  # fmt: skip
        return found
    return _new(store, asked)


def _named(store: LabelStore, asked: _Asked, for_: str | None) -> Draw | None:
    """The draw that --for names; None where it leaves the choice open."""
    from symdistill.labelling.store import Purpose

    if for_ in (None, "train"):
        return None
    if asked.is_new:
        raise InputError(
            f"expected --how, --n, --cut, --second, --seed and --repeat with lines to train on; "
            f"got --for {for_}; leave them out, since its lines are drawn already"
        )
    if for_ not in get_args(Purpose):
        return store.draw(str(for_))
    every = store.draws(cast("Purpose", for_))
    if not every:
        verb, option = {
            "certificate": ("plan", " --freeze"),
            "compare": ("audit", " --with OTHER"),
        }.get(for_, (for_, ""))
        raise InputError(f"expected a draw for --for {for_}; there is none; make one with "
                         f"symdistill {verb} {asked.source}{option}")  # fmt: skip
    gone = store.given_up_ids()
    unfinished = [one for one in every if one.id not in gone and is_open(store, one)]
    return _newest(unfinished or every)


def _open(store: LabelStore, asked: _Asked, for_: str | None) -> Draw | None:
    """The draw that is not finished, if there is one: a certificate's first, then the newest.

    Raises:
        InputError: lines to train on are asked for, and others are open.
    """
    gone = store.given_up_ids()
    others = [one for one in store.draws()
              if one.purpose != "train" and one.id not in gone and is_open(store, one)]  # fmt: skip
    if asked.is_new and for_ is None and others:
        done, total = store.progress(others[-1].id)
        raise InputError(
            f"expected no --how, --n, --cut, --second, --seed or --repeat while {others[-1].id} is "
            f"open ({done:,} of {total:,} answered); got some; leave them out to go on with it, or "
            "add --for train to draw lines to train on"
        )
    found = [one for one in _like(store, asked, for_) if is_open(store, one)]
    return _newest([one for one in found if one.purpose == "certificate"] or found)


def _like(store: LabelStore, asked: _Asked, for_: str | None) -> list[Draw]:
    """The draws that may be meant; where certain lines are asked for, those of the same command."""
    gone = store.given_up_ids()
    found = store.draws("train" if for_ == "train" or asked.is_new else None)
    same = [one for one in found if not asked.is_new or one.plan.get("asked") == asked.plan]
    return [one for one in same if one.id not in gone]


def _newest(draws: Sequence[Draw]) -> Draw | None:
    return draws[-1] if draws else None


def _new(store: LabelStore, asked: _Asked) -> Draw:
    from symdistill.labelling.draw import How, taken_for, training_draw

    pool = asked.pool()
    check_source(pool)
    lines, taken = pool.lines, taken_for(store, "train")
    how, n = asked.how or "random", asked.n or DEFAULT_LINES
    plan: dict[str, Any] = {"asked": asked.plan}
    second_scores = None
    if asked.second is not None:
        other = replace(asked, columns={**asked.columns, "score": asked.second}).pool()
        second_scores = {one.id: one.score for one in other.lines if one.score is not None}
    elif how == "disagreement":
        lines, taken = _disputed(store, pool), store.drawn_ids("certificate", "audit", "compare")
        how, plan["how"] = "random", "annotators disagree"
    draw = training_draw(
        lines,
        n,
        asked.seed or 0,
        how=cast("How", _HOW[how]),
        pool_hash=pool.hash,
        cut=asked.cut,
        second_scores=second_scores,
        taken=taken,
        repeats=round((asked.repeat or 0) * min(n, len(lines))),
        plan=plan,
    )
    left_out = draw.plan["left_out"]
    out.print(
        f"Drew {len(draw.items):,} of {len(lines):,} lines to train a critic on "
        f"({draw.plan['how']}), as {draw.id}. "
        + (f"{left_out:,} were left out: they are drawn already, for training, a certificate or an "
           "audit. " if left_out else "")
        + "They certify nothing: a certificate draws its own lines.",
        soft_wrap=True,
    )  # fmt: skip
    return draw


def _disputed(store: LabelStore, pool: Pool) -> tuple[Line, ...]:
    from symdistill.labelling.agreement import disputed

    train = {one.id for one in store.draws("train")}
    ids = disputed(one for one in store.given() if one.draw in train)
    found = tuple(one for one in pool.lines if one.id in ids)
    if not found:
        raise InputError(
            "expected a second score (--second COLUMN), or training lines on which annotators "
            "disagree; there are none; name one, or let another annotator label"
        )
    return found


def _imported(
    store: LabelStore,
    asked: _Asked,
    for_: str | None,
    path: Path,
    who: str,
    format: Format | None,
) -> tuple[Draw, list[Given]]:
    """The answers of a file, and the draw that they are answers to."""
    from symdistill.labelling.draw import imported_draw
    from symdistill.labelling.formats import read_answers

    draw = _named(store, asked, for_) or _open(store, asked, for_)
    if draw is None and for_ is None:
        draw = _newest(store.draws())  # a second annotator of what is finished
    if draw is not None:
        known = {one.line_id for one in draw.items}
        return draw, read_answers(
            path, known, annotator=who, purpose=draw.purpose, format=format, draw=draw.id
        )
    pool = asked.pool()
    check_source(pool)
    lines = {one.id: one for one in pool.lines}
    answers = read_answers(path, lines.keys(), annotator=who, format=format)
    named = list(dict.fromkeys(one.line_id for one in answers))
    held = store.drawn_ids("certificate", "audit", "compare").intersection(named)
    if held:
        raise InputError(
            f"expected labels to train on in {path}; {len(held):,} are of lines drawn for a "
            f"certificate or an audit, which no critic may learn: {min(held)!r}, ...; take them "
            "out, or name their draw with --for"
        )
    draw = imported_draw([lines[id] for id in named], pool_hash=pool.hash)
    return draw, [replace(one, draw=draw.id) for one in answers]


# -- what is done with it -------------------------------------------------------------------------


def _export(
    home: Path, draw: Draw, path: Path, format: Format | None, source: Path, told: str | None
) -> None:
    from symdistill.labelling.formats import write_answers
    from symdistill.labelling.store import LabelStore, answers_to

    words = ", ".join(answers_to(draw.purpose))
    back = ["symdistill", "label", str(source), "--import", str(path), "--for", draw.id]
    with LabelStore(home) as store:
        rows = write_answers(path, draw, store.given(draw.id), format=format)
        store.add_draw(draw)
        out.print(f"Wrote {rows:,} rows to {path}, in the order of the draw and without scores.",
                  soft_wrap=True)  # fmt: skip
        if not is_open(store, draw):
            return
        out.print(f"Fill in the empty labels with {words}, then: {shlex.join(back)}",
                  soft_wrap=True)  # fmt: skip
        tell_instructions(store, draw, told)


def _tell(store: LabelStore, draw: Draw, source: Path, score: str | None) -> None:
    """How far the draw is, how far the annotators agree, and what comes next."""
    from symdistill.labelling.agreement import agreement, told

    found = agreement(store.given(draw.id))
    for who in found.answers:
        done, total = store.progress(draw.id, who)
        out.print(f"{visible(who)}: {done:,} of {total:,} answered.", soft_wrap=True)
    for sentence in told(found):
        out.print(visible(sentence), soft_wrap=True)
    if is_open(store, draw):
        done, total = store.progress(draw.id)
        command = shlex.join(["symdistill", "label", str(source), "--for", draw.id])
        out.print(f"{total - done:,} are left. To go on: {command}", soft_wrap=True)
    else:
        command = shlex.join(_next(draw, source, score))
        out.print(f"All are answered. Next: {command}", soft_wrap=True)
        if draw.purpose != "train":
            again = shlex.join(["symdistill", "label", str(source), "--for"])
            out.print(f"For another annotator: {again} {draw.id}. For lines to train on: {again} "
                      "train", soft_wrap=True)  # fmt: skip


def _tell_all(store: LabelStore) -> None:
    from symdistill.labelling.agreement import agreement, told

    given = store.given()
    for draw in store.draws():
        done, total = store.progress(draw.id)
        out.print(f"{draw.id}: {done:,} of {total:,} answered.", soft_wrap=True)
        sentences = told(agreement(one for one in given if one.draw == draw.id))
        for sentence in sentences or ["No line was answered twice: nothing can be said."]:
            out.print(f"  {visible(sentence)}", soft_wrap=True)
    if not given:
        out.print("Nothing is labelled yet.")


def _next(draw: Draw, source: Path, score: str | None) -> list[str]:
    """The command that comes when all is answered."""
    verb = {"certificate": "certify", "train": "critic fit"}.get(draw.purpose, "audit")
    parts = ["symdistill", *verb.split(), str(source)]
    column = score or draw.plan.get("score")
    if draw.purpose == "certificate" and column and not source.is_dir():
        parts += ["--score", str(column)]
    return parts + list(draw.plan.get("options", ()))


# -- what was given -------------------------------------------------------------------------------


def _one_of(value: str | None, words: str, option: str) -> str | None:
    if value is not None and value not in words.split():
        raise InputError(f"expected {option} to be one of {', '.join(words.split())}; got "
                         f"{value[:40]!r}")  # fmt: skip
    return value


def _read_instructions(path: Path) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"expected instructions as UTF-8 text in {path}; got: "
                         f"{getattr(error, 'strerror', None) or 'other bytes'}; check the file"
                         ) from error  # fmt: skip
