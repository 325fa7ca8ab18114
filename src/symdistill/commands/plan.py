"""`symdistill plan`: how many labels a certificate takes; --freeze fixes it and draws them."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from symdistill.commands._certificate_labels import (
    learnt_from,
    not_in_pool,
    plan_command,
    pool_of,
    void_outdated,
)
from symdistill.errors import InputError
from symdistill.visible import visible

if TYPE_CHECKING:
    from symdistill.critic.certificate import Frozen
    from symdistill.critic.power import Curve, Plan
    from symdistill.labelling.store import LabelStore
    from symdistill.pool import LabelWord, Line, Pool

out = Console(markup=False, highlight=False, emoji=False)
_GUESSES = (0.75, 0.8, 0.85, 0.9, 0.95)  # AUCs to plan for where none is known

Source = Annotated[Path, typer.Argument(help="The lines: a table, or a run folder.")]
Score = Annotated[
    str | None, typer.Option(help="The column of scores, higher is better. A run has its own.")
]
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
    abandon: Annotated[
        str | None,
        typer.Option(
            help="With --freeze: give up the draw that is open, and why; a later certificate says "
            "so."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the draw. Default: another for each draw.")
    ] = None,
    text: Annotated[str, typer.Option(help="The column of the lines.")] = "text",
    question: Question = None,
    id_: Id = None,
) -> None:
    """Say how many labels a certificate takes and what it would keep; --freeze draws them.

    Label nothing before: with a weak critic, labels buy little. A draw that was frozen is finished
    and tested before another; --abandon gives it up.
    """
    from symdistill.critic.certificate import (
        FEWEST_LABELS,
        check_labels,
        check_numbers,
        top_lines,
    )
    from symdistill.pool import read_label

    share = 1.0 if max_share is None else max_share
    check_numbers(precision, share, delta)
    if abandon is not None and not (freeze and abandon.strip()):
        raise InputError("expected --freeze with --abandon, and why the open draw is given up; got "
                         "one without the other; give both")  # fmt: skip
    void_outdated(source)
    columns = {"text": text, "score": score, "group": group, "question": question, "id": id_}
    pool = pool_of(source, {**columns, "label": label})
    ranked = pool.ranked()
    check_labels(labels or FEWEST_LABELS, len(ranked), share)
    groups = Counter(line.group for line in ranked) if group else None
    pilot = [(place, word) for place, line in enumerate(ranked, start=1)
             if (word := read_label(line, source)) is not None]  # fmt: skip
    guess = _guess(pilot, len(ranked), auc, valid_share, label)
    ask = _Ask(len(ranked), tuple(precision), max_share, labels, delta, looks, groups)
    for note in [*not_in_pool(pool), *_repeats(ranked), *_ties(ranked)]:
        out.print(note, soft_wrap=True)
    if groups:
        out.print(f"{len(groups):,} groups of {_sizes(groups)}; what follows is for each of them, "
                  "with its share of the labels.", soft_wrap=True)  # fmt: skip
    planned, worth = None, True
    if guess is not None:
        planned = ask.plan(guess, ladder=True)
        worth = _tell_plan(planned, pilot, groups)
        if planned.asked and labels and planned.asked.labels < labels:
            most = top_lines(len(ranked), planned.max_share)
            out.print(f"The best {planned.max_share:.0%} are {most:,} lines; more labels need a "
                      "larger --max-share.", soft_wrap=True)  # fmt: skip
    else:
        worth = _tell_guesses(ask, valid_share)
    if not freeze:
        if worth:
            _tell_freeze(source, columns, ask, planned, label)
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
    _freeze(pool, ranked, left_out, precision, max_share, delta, labels, looks, seed, abandon,
            columns)  # fmt: skip


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
    seed: int | None,
    abandon: str | None,
    columns: Mapping[str, str | None],
) -> None:
    """Fix everything, draw the lines, and say what to do next."""
    from symdistill.critic.certificate import freeze
    from symdistill.critic.kept_certificates import keep_pool
    from symdistill.labelling.draw import random_draw
    from symdistill.labelling.store import LabelStore

    if ranked[0].score == ranked[-1].score:
        raise InputError(
            f"expected scores that differ; all {len(ranked):,} lines of {pool.source} have the "
            f"score {ranked[0].score:g}, which orders nothing; score them with another critic, or "
            "name another column with --score"
        )
    with LabelStore(pool.home) as store:
        abandoned = _abandoned(store, pool, abandon)
        learnt = learnt_from(pool, columns, store)
        left_out = (left_out | store.labelled_ids() | learnt) & {line.id for line in ranked}
        left = [line for line in ranked if line.id not in left_out]
        if not left:
            raise InputError(f"expected lines in {pool.source} that nobody has labelled; got none")
        frozen = freeze(left, pool.hash, precision=precision, max_share=max_share, delta=delta,
                        labels=labels, looks=looks, groups=columns["group"] is not None,
                        left_out=len(left_out))  # fmt: skip
        _refuse_hopeless(left, frozen)
        fixed = {**frozen.to_plan(), "columns": dict(columns), "score": columns["score"],
                 "left_out_ids": sorted(left_out), "abandoned": abandoned}  # fmt: skip
        if seed is None:
            seed = len(store.draws("certificate"))
        draw = random_draw(left[: frozen.top], labels, seed, purpose="certificate",
                           pool_hash=pool.hash, plan=fixed)  # fmt: skip
        if any(one.id == draw.id for one in store.draws("certificate")):
            raise InputError(f"expected a new draw; seed {seed} gives {draw.id} again; leave "
                             "--seed out, or give another")  # fmt: skip
        keep_pool(pool)
        store.add_draw(draw)
    place = shlex.quote(str(pool.source))
    known = f" ({len(left_out):,} labelled or drawn before left the pool)" if left_out else ""
    steps = " and ".join(f"{look:,}" for look in frozen.looks)
    out.print(
        f"Frozen: {frozen.lines:,} lines{known}; {labels:,} drawn at random from the best "
        f"{frozen.top:,}, to be tested at {steps} labels. From now on a file with other lines, "
        "texts, questions, scores or groups is refused.",
        soft_wrap=True,
    )
    _warn_of_one(left, frozen)
    out.print(f"Next: symdistill label {place}", soft_wrap=True)
    again = f" --score {shlex.quote(columns['score'])}" if columns["score"] else ""
    out.print(f"Then: symdistill certify {place}{again}", soft_wrap=True)


def _abandoned(store: LabelStore, pool: Pool, why: str | None) -> list[dict[str, Any]]:
    """The draws given up so far; one that is open is not passed over in silence."""
    from symdistill.critic.certificate import Frozen
    from symdistill.critic.kept_certificates import tested_of

    draws = store.draws("certificate")
    if not draws:
        return []
    last = draws[-1]
    before = list(last.plan.get("abandoned", ()))
    tested = tested_of(pool.home, last.id)
    frozen = Frozen.from_plan(last.plan)
    if tested is not None and len(tested.labels) == frozen.looks[-1]:
        return before
    answered = len(store.verdicts(last.id))
    if why is None:
        place = shlex.quote(str(pool.source))
        raise InputError(
            f"expected that the draw {last.id} is finished before another is made; {answered:,} of "
            f"its {len(last.items):,} lines are labelled and not all of its looks are tested; go "
            f"on with: symdistill label {place}, then symdistill certify {place}; or give it up "
            "with --abandon WHY, which a later certificate tells"
        )
    return [*before, {"draw": last.id, "why": visible(" ".join(why.split())), "answered": answered,
                      "lines": len(last.items),
                      "at": datetime.now(UTC).isoformat(timespec="seconds")}]  # fmt: skip


def _refuse_hopeless(left: Sequence[Line], frozen: Frozen) -> None:
    """Refuse a plan of which no statement can pass, and tell which ones cannot."""
    from symdistill.critic.certificate import cannot_pass

    hopeless = cannot_pass(left, frozen)
    if len(hopeless) == len(frozen.precisions) * max(len(frozen.groups), 1):
        raise InputError(
            f"expected at least {min(hopeless.values()):,} labels; with {frozen.looks[-1]:,} "
            "nothing could be certified though every one were valid; label more, or lower the "
            "precision"
        )
    for (group, precision), least in list(hopeless.items())[:10]:
        of = "" if group is None else f"of group {visible(group)} "
        out.print(f"Nothing {of}can be certified at precision {precision:g} with so few labels, "
                  f"were all valid: it takes about {least:,} in all.", soft_wrap=True)  # fmt: skip


def _warn_of_one(left: Sequence[Line], frozen: Frozen) -> None:
    """Say where a single invalid line at the first cut would end the test."""
    from symdistill.critic.certificate import sunk_by_one

    for (group, precision), labels in list(sunk_by_one(left, frozen).items())[:10]:
        of = "" if group is None else f" for group {visible(group)}"
        out.print(f"Precision {precision:g}{of}: the first test falls on about {labels:,} labels, "
                  "and one invalid line among them certifies nothing. More labels make it safer.",
                  soft_wrap=True)  # fmt: skip


def _repeats(lines: Sequence[Line]) -> list[str]:
    """What is to be said of lines that are there more than once."""
    from symdistill.records import normalise

    more = len(lines) - len({(normalise(one.text), one.question) for one in lines})
    if not more:
        return []
    one = "1 line repeats another" if more == 1 else f"{more:,} lines repeat another"
    return [f"{one}; each counts as a line of its own. Remove repeats before labelling: a file "
            "that changes later voids its certificate."]  # fmt: skip


def _ties(left: Sequence[Line]) -> list[str]:
    """What is to be said of lines with the same score."""
    score, most = Counter(line.score for line in left).most_common(1)[0]
    if most == len(left):
        return ["Every line has the same score: the score orders nothing."]
    if most > len(left) // 10:
        return [f"{most:,} of the lines have the score {score:g}: in which order they come is "
                "chance, fixed by their ids."]  # fmt: skip
    return []


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


@dataclass(frozen=True)
class _Ask:
    """What is to be planned."""

    lines: int
    precision: tuple[float, ...]
    max_share: float | None
    labels: int | None
    delta: float
    looks: int
    groups: Counter[str | None] | None

    def plan(self, curve: Curve, *, ladder: bool = False, seek: bool = True) -> Plan:
        """A plan for the highest precision, and for the group of middle size."""
        from symdistill.critic.power import plan

        part = _middle(self.groups) / self.lines if self.groups else 1.0
        return plan(self.lines, max(self.precision), curve, max_share=self.max_share,
                    labels=self.labels, delta=self.delta, looks=self.looks, part=part,
                    statements=len(self.precision) * len(self.groups or "1"),
                    ladder=ladder, seek=seek)  # fmt: skip


def _middle(groups: Counter[str | None]) -> int:
    return sorted(groups.values())[len(groups) // 2]


def _sizes(groups: Counter[str | None]) -> str:
    least, most = min(groups.values()), max(groups.values())
    if least == most:
        return f"{most:,} lines"
    return f"{least:,} to {most:,} lines, planned as for one of {_middle(groups):,}"


def _tell_plan(
    planned: Plan,
    pilot: Sequence[tuple[int, LabelWord]],
    groups: Counter[str | None] | None,
) -> bool:
    """Print a plan; gives whether the score runs the right way."""
    from symdistill.critic.power import pilot_auc

    auc, reversed_ = planned.auc, False
    if pilot:
        seen, reversed_ = pilot_auc([place for place, _ in pilot],
                                    [word == "valid" for _, word in pilot])  # fmt: skip
        auc = seen if seen < 0.5 else auc  # the curve knows none below
    by = f"{len(pilot):,} pilot labels" if pilot else "what you gave"
    out.print(f"{planned.lines:,} lines; by {by}, the scores have AUC {auc:.2f} and "
              f"{planned.valid_share:.0%} of the lines are valid.", soft_wrap=True)  # fmt: skip
    if reversed_:
        out.print(f"The score runs the other way: AUC {auc:.2f}, where a higher score should be "
                  "better. Write a column with its negative, and plan with that.",
                  soft_wrap=True)  # fmt: skip
        return False
    of = "a group" if groups else "the pool"
    out.print(f"Were every label known, {planned.best_share:.0%} of {of} could be kept at "
              f"precision {planned.precision:g}.", soft_wrap=True)  # fmt: skip
    if planned.ladder:
        each = ", each" if groups else ""
        out.print(f"  labels, from the best {planned.max_share:.0%}   chance   kept{each}")
        for one in planned.ladder:
            out.print(f"{one.labels:>28,}{one.chance:>9.0%}{one.kept:>7.0%}")
    say, asked = [], planned.asked
    if asked is not None and planned.needed is not None and asked.labels == planned.needed.labels:
        asked = None  # the same once more
    for start, found in (("For an 80 % chance of a certificate, label", planned.needed),
                         ("With", asked)):  # fmt: skip
        if found is not None:
            each = " for each group" if groups else ""
            say.append(
                f"{start} {found.labels:,} lines drawn from the best {found.max_share:.0%}: chance "
                f"{found.chance:.0%}{each}, kept on average {found.kept:.0%} of {of}."
            )
    for sentence in [*say, planned.advice]:
        if sentence:
            out.print(sentence, soft_wrap=True)
    return True


def _tell_guesses(ask: _Ask, valid_share: float) -> bool:
    """What critics of several kinds would take; gives whether one of them would do."""
    from symdistill.critic.power import binormal

    out.print(
        f"{ask.lines:,} lines. How good the scores are is not known: give --auc, or --label with a "
        f"few labelled lines. If {valid_share:.0%} of the lines were valid:",
        soft_wrap=True,
    )
    each = ", each" if ask.groups else ""
    out.print(f"   AUC  best possible   labels  from best  chance  kept{each}")
    any_ = False
    for auc in _GUESSES:
        found = ask.plan(binormal(auc, valid_share), seek=ask.labels is None)
        one = found.asked or found.needed
        any_ = any_ or one is not None
        told = "  no number of labels is enough" if one is None else (
            f"{one.labels:>9,}{one.max_share:>11.0%}{one.chance:>8.0%}{one.kept:>6.0%}"
        )  # fmt: skip
        if one is not None and ask.labels is not None and one.labels < ask.labels:
            told += "  as many as there are"
        out.print(f"  {auc:.2f}{found.best_share:>15.0%}{told}")
    if not any_:
        out.print(found.advice, soft_wrap=True)  # even for the best of them
    return any_


def _tell_freeze(
    source: Path,
    columns: Mapping[str, str | None],
    ask: _Ask,
    planned: Plan | None,
    pilot: str | None,
) -> None:
    """The command that freezes what was planned."""
    if planned is None:
        say = plan_command(source, columns, ask.precision, delta=ask.delta, looks=ask.looks)
        say += " --max-share SHARE --labels NUMBER --freeze"
    elif one := planned.asked or planned.needed:
        say = plan_command(source, columns, ask.precision, max_share=planned.max_share,
                           labels=one.labels, delta=ask.delta, looks=ask.looks,
                           pilot=pilot)  # fmt: skip
    else:
        return
    out.print(f"To fix it and draw the lines: {say}", soft_wrap=True)
