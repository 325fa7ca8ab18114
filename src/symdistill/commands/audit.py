"""`symdistill audit`: how much of what was kept is valid, and which of two sources is better."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
from symdistill.errors import InputError, RunError
from symdistill.visible import visible

if TYPE_CHECKING:
    from symdistill.labelling.audit import Precision
    from symdistill.labelling.store import Draw, LabelStore
    from symdistill.pool import Line, Pool

DEFAULT_LINES = 200  # at 90 % valid they give an interval of about +-4 points


def audit(
    source: Annotated[Path, typer.Argument(help="What was kept: a table, or a run folder.")],
    with_: Annotated[
        Path | None,
        typer.Option("--with", help="Another table or run: compare the two side by side."),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option("--n", min=1, help=f"Lines or pairs to draw. Default: {DEFAULT_LINES}."),
    ] = None,
    text: Annotated[str, typer.Option(help="The column of the lines.")] = "text",
    score: Annotated[
        str | None, typer.Option(help="The column that --cut reads. Never shown.")
    ] = None,
    cut: Annotated[
        float | None, typer.Option(help="Audit only lines with this score or a better one.")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(help="A column: an estimate for each group, or pairs within groups."),
    ] = None,
    question: Annotated[
        str | None, typer.Option(help="The column of what a line answers; shown with it.")
    ] = None,
    id_: Annotated[str | None, typer.Option("--id", help="The column of ids.")] = None,
    ask: Annotated[
        str, typer.Option(help="Of pairs: which line is valid, says more, or is better.")
    ] = "valid",
    annotator: Annotated[str | None, typer.Option(help="Who labels. The page asks for it.")] = None,
    terminal: Annotated[bool, typer.Option(help="Label here instead of in a browser.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0: a free one.")] = 0,
    export: Annotated[
        Path | None, typer.Option(help="Write what is drawn to this .csv or .jsonl, and stop.")
    ] = None,
    import_: Annotated[
        Path | None, typer.Option("--import", help="Take the labels of such a file.")
    ] = None,
    result: Annotated[bool, typer.Option("--result", help="Only print the result.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Only print the result, as JSON.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(help="Another seed draws other lines. Default: a new one a draw.")
    ] = None,
    abandon: Annotated[
        str | None,
        typer.Option(metavar="WHY", help="Only give up the audit that is not finished."),
    ] = None,
) -> None:
    """Label a random sample of what was kept, and say how much of it is valid.

    Stopped at any time, the same command goes on. The result comes when all that was drawn is
    labelled. With --with, lines of two sources are shown side by side without their names.
    """
    from symdistill.labelling.audit import unanswered
    from symdistill.labelling.formats import write_answers
    from symdistill.labelling.store import LabelStore, answers_to

    if export is not None and import_ is not None:
        raise InputError("expected --export or --import; got both; give one after the other")
    if export is not None:
        refuse_overwriting(export)
    if abandon is not None:
        _give_up(source, abandon)
        return
    result = result or as_json
    if with_ is not None and with_.resolve() == source.resolve():
        raise InputError(f"expected two sources to compare; got {source} twice; name another")
    columns = {"text": text, "score": score if cut is not None else None, "group": group,
               "question": question, "id": id_}  # fmt: skip
    kept = _kept(source, cut, columns)
    others = _kept(with_, cut, columns) if with_ else None
    if not as_json:
        for pool in filter(None, (kept, others)):
            check_source(pool)
    named = {"with": with_, **columns, "cut": cut, "ask": ask if with_ else None}
    if text == "text":
        del named["text"]
    given = {name: value for name, value in named.items() if value is not None}
    options = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    with LabelStore(kept.home, read_only=result and import_ is None and export is None) as store:
        audited = _Audit(store, kept, others, ask, n, seed, group is not None, options)
        draw = audited.draw(make=not result and import_ is None)
        if export is not None:
            rows = write_answers(export, draw, store.given(draw.id))
            if not is_open(store, draw):
                out.print(f"Wrote {export}: {rows} rows.", soft_wrap=True)
                return
            out.print(f"Wrote {export}: {rows} rows; fill in the column 'label' "
                      f"({', '.join(answers_to(draw.purpose))}), then: the same command with "
                      f"--import instead of --export.", soft_wrap=True)  # fmt: skip
            tell_instructions(store, draw)
            return
        if import_ is not None:
            _take(store, draw, import_, annotator)
        elif not result and is_open(store, draw, annotator):
            again = ["symdistill", "audit", str(source), *options]
            ask_people(store, draw, annotator, terminal=terminal, port=port, then=again,
                       on_ctrl_c="ends, and shows the result when all is labelled")  # fmt: skip
        verdicts = store.verdicts(draw.id)
        if left := unanswered(draw, verdicts):
            told = _unfinished(left, len(draw.items))
            if result:
                raise RunError(told)
            out.print(told, soft_wrap=True)
            return
        _tell(store, draw, kept.lines, verdicts, by_group=group is not None, as_json=as_json)


@dataclass(frozen=True)
class _Audit:
    """What is to be audited, and the draw of it."""

    store: LabelStore
    kept: Pool
    others: Pool | None
    ask: str
    n: int | None
    seed: int | None
    by_group: bool
    options: Sequence[str]  # those of the command that shows the result

    @property
    def groups(self) -> str | None:
        """A hash of which line is of which group, where groups are estimated.

        It belongs to the draw: groups formed when the labels are known can be as good as one likes.
        """
        if not self.by_group or self.others:
            return None
        from symdistill.records import content_hash

        return content_hash(sorted([one.id, one.group] for one in self.kept.lines), 64)

    @property
    def purpose(self) -> Literal["audit", "compare"]:
        """Of the draw."""
        return "compare" if self.others else "audit"

    def draw(self, *, make: bool) -> Draw:
        """The draw to go on with: the newest of these lines, else a new one if `make`."""
        from symdistill.records import content_hash

        pools = [self.kept, self.others] if self.others else [self.kept]
        of = content_hash([sorted([one.id, one.text] for one in pool.lines) for pool in pools], 64)
        earlier = self.store.draws(self.purpose)
        gone = self.store.given_up_ids()
        same = [
            one
            for one in reversed(earlier)
            if one.id not in gone
            and one.pool_hash == of
            and (not self.others or one.plan["ask"] == self.ask)
        ]
        fit = [one for one in same if self._wanted(one)]
        if fit:
            return fit[0]
        if not make:
            changed = ""
            if same:
                changed = " with this --n, this --seed and these groups"
            elif earlier:
                changed = "; the lines have changed since an earlier one was drawn"
                before = list(earlier[-1].plan.get("options", ()))
                if before != self.options:
                    changed = (f"; the newest was made with {shlex.join(before) or 'no options'}: "
                               "give the same")  # fmt: skip
            raise InputError(
                f"expected an audit of these lines in {self.kept.home}; there is none"
                f"{changed}; first draw one: the same command without --result, --json and --import"
            )
        self._refuse_second(same)
        if earlier and not same:
            out.print("The lines are others than those of earlier audits: a new draw is made.",
                      soft_wrap=True)  # fmt: skip
        drawn = self._new(of)
        self.store.add_draw(drawn)
        return drawn

    def _wanted(self, draw: Draw) -> bool:
        same_n = self.n is None or self.n == draw.plan["n"]
        same_groups = self.groups in (None, draw.plan.get("groups"))
        return same_n and same_groups and (self.seed is None or self.seed == draw.seed)

    def _refuse_second(self, same: Sequence[Draw]) -> None:
        """Another draw while one is open would let the better of the two be finished.

        One that nobody has answered yet is dropped instead, and that is said.
        """
        from symdistill.labelling.audit import unanswered
        from symdistill.labelling.store import serving

        for one in same:
            if not self.store.given(one.id):
                with serving(self.store.path.parent):  # no page may be open on it
                    self.store.drop(one.id)
                out.print(f"The lines drawn on {one.made_at} had no answers; others are drawn in "
                          "their place.", soft_wrap=True)  # fmt: skip
            elif left := unanswered(one, self.store.verdicts(one.id)):
                raise InputError(
                    f"expected to go on with the audit that was begun (--n {one.plan['n']} --seed "
                    f"{one.seed}, {left} of {len(one.items)} left); got another --n, --seed or "
                    "--group, or other groups; leave them out, and draw again when it is finished, "
                    "or give it up: the same command with --abandon WHY"
                )

    def _new(self, pool_hash: str) -> Draw:
        """Lines that were drawn to train a critic are left out: the critic knows them."""
        from symdistill.labelling.audit import audit_draw, pairs_draw
        from symdistill.labelling.draw import taken_for
        from symdistill.labelling.store import LabelStore

        n = self.n or DEFAULT_LINES
        # Not always the same: who took out what an audit found, and drew again by the same seed,
        # would get the lines that were found valid first.
        seed = len(self.store.draws(self.purpose)) if self.seed is None else self.seed
        trained_on = taken_for(self.store, self.purpose)
        if self.others is None:
            plan = {"n": n, "groups": self.groups, "options": self.options}
            return audit_draw(self.kept.lines, n, seed, pool_hash=pool_hash,
                              trained_on=trained_on, plan=plan)  # fmt: skip
        if self.others.home != self.kept.home:
            with LabelStore(self.others.home, read_only=True) as theirs:
                trained_on = trained_on | taken_for(theirs, self.purpose)
        return pairs_draw(
            self.kept.lines,
            self.others.lines,
            n,
            seed,
            ask=self.ask,  # type: ignore[arg-type]  # checked there
            sources=(str(self.kept.source), str(self.others.source)),
            pool_hash=pool_hash,
            trained_on=trained_on,
            plan={"n": n, "options": self.options},
        )


def _kept(source: Path, cut: float | None, columns: dict[str, Any]) -> Pool:
    from symdistill.pool import read_pool

    if cut is not None and columns["score"] is None and not source.is_dir():
        raise InputError("expected --score COLUMN with --cut; got none; name the column")
    if source.is_dir() and columns["group"] is not None:
        raise InputError(
            "expected no --group with a run folder; got one; a run's pairs are formed by concept, "
            "and estimates of groups need a table"
        )
    pool = read_pool(source, **columns)
    if cut is None:
        return pool
    lines = tuple(one for one in pool.ranked() if (one.score or 0.0) >= cut)
    if not lines:
        raise InputError(
            f"expected lines with a score of at least {cut} in {source}; got none; lower --cut"
        )
    return replace(pool, lines=lines)


def _take(store: LabelStore, draw: Draw, path: Path, annotator: str | None) -> None:
    from symdistill.labelling.formats import read_answers

    known = {one.line_id for one in draw.items}
    who = annotator or login()
    answers = read_answers(path, known, annotator=who, purpose=draw.purpose, draw=draw.id)
    take(store, draw, answers)


def _give_up(source: Path, why: str) -> None:
    from symdistill.labelling.store import LabelStore
    from symdistill.pool import home_of

    with LabelStore(home_of(source)) as store:
        gone = store.given_up_ids()
        audits = [one for one in store.draws() if one.purpose in ("audit", "compare")]
        left = [one for one in audits if one.id not in gone and is_open(store, one)]
        if not left:
            raise InputError(f"expected an audit of {source} that is not finished; there is none")
        store.give_up(left[-1].id, why)
        done, total = store.progress(left[-1].id)
        out.print(f"Given up: {left[-1].id}, {done:,} of {total:,} answered. Later results of the "
                  "same lines tell it.", soft_wrap=True)  # fmt: skip


def _unfinished(left: int, of: int) -> str:
    return (
        f"{of - left} of {of} labelled, {left} left; the same command goes on. The estimate comes "
        "when all are labelled: who looks at it on the way and stops when it looks good gets one "
        "that is too good"
    )


def _tell(
    store: LabelStore,
    draw: Draw,
    lines: Sequence[Line],
    verdicts: dict[str, str],
    *,
    by_group: bool,
    as_json: bool,
) -> None:
    from symdistill.labelling import audit as audits
    from symdistill.labelling.agreement import agreement, told

    found: audits.Precision | audits.Comparison
    if draw.purpose == "compare":
        found = audits.comparison(draw, verdicts)
    else:
        found = audits.precision(draw, lines, verdicts, by_group=by_group)
    given_up = [
        {"draw": one.id, "answered": len(store.verdicts(one.id)), **one.plan["given_up"]}
        for one in store.draws(draw.purpose)
        if one.pool_hash == draw.pool_hash and "given_up" in one.plan
    ]
    agreed, changed = agreement(store.given(draw.id)), store.changed_late(draw.id)
    if as_json:
        about = {"draw": draw.id, "made_at": draw.made_at, "seed": draw.seed,
                 "changed_late": changed, "given_up": given_up}  # fmt: skip
        result = {**audits.as_json(found), **about, "agreement": asdict(agreed)}
        print(json.dumps(result, ensure_ascii=False, indent=2))
        return
    out.print(visible(found.sentence), soft_wrap=True)
    if changed:
        out.print(f"Answers changed after the first result could be seen: {changed}.",
                  soft_wrap=True)  # fmt: skip
    for gone in given_up:
        out.print(f"An audit of these lines was given up with {gone['answered']:,} answered: "
                  f"{gone['why']}.", soft_wrap=True)  # fmt: skip
    if isinstance(found, audits.Precision):
        for name, one in found.groups.items():
            out.print(f"  {visible(name) or '(no group)'}: {_figures(one)}", soft_wrap=True)
        if found.groups:
            out.print("Each interval holds by itself, not all of them together.", soft_wrap=True)
    who = ", ".join(f"{visible(name)} ({count})" for name, count in agreed.answers.items())
    out.print(f"Labelled by {who}.", soft_wrap=True)
    for sentence in told(agreed):
        out.print(visible(f"{sentence}."), soft_wrap=True)


def _figures(one: Precision) -> str:
    if one.precision is None:
        return f"none of {one.lines:,} drawn"
    share, low, high = (f"{100 * rate:.1f} %" for rate in (one.precision, one.low, one.high))
    return f"{share} ({low} to {high}), {one.valid} of {one.drawn} drawn from {one.lines:,}"
