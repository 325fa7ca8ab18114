"""How far annotators agree: with each other, and with themselves.

Takes the answers to a draw; gives Krippendorff's alpha (nominal), the share of agreeing pairs of
answers, and for each annotator how often the second answer to a line was the first one again. Alpha
is 1 where all agree and 0 where they agree as often as chance would have it; it is computed by
simpledorff from the lines that two or more answered, with "unsure" as a word of its own. What
cannot be said is None: alpha needs two annotators, a line that both answered, and two words.

Agreement says that instructions can be followed, not that the labels are right. Costs 0.4 ms for
each line that two answered.

Klaus Krippendorff, Computing Krippendorff's Alpha-Reliability (2011).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

from symdistill.exact import share_interval
from symdistill.labelling.store import Given
from symdistill.visible import visible


@dataclass(frozen=True, slots=True)
class Repeats:
    """The lines that one annotator answered twice."""

    lines: int
    same: int  # the second answer was the first one again
    low: float  # 95 % interval of the share that is the same, 0..1 (Clopper and Pearson)
    high: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the answers to a draw agree."""

    answers: Mapping[str, int]  # annotator -> lines answered, at their first showing
    shared: int  # lines that two or more annotators answered
    same: float | None  # share of the pairs of answers to a shared line that agree, 0..1
    alpha: float | None  # Krippendorff's, nominal; at most 1
    repeats: Mapping[str, Repeats]  # annotator -> ...; only those who answered a line twice


def agreement(given: Iterable[Given]) -> Agreement:
    """The agreement of answers that stand (`LabelStore.given`)."""
    first: dict[tuple[str, str], dict[str, str]] = {}  # (draw, line) -> annotator -> answer
    second: dict[str, list[tuple[tuple[str, str], str]]] = {}
    for one in given:
        line = (one.draw, one.line_id)
        if one.again:
            second.setdefault(one.annotator, []).append((line, one.answer))
        else:
            first.setdefault(line, {})[one.annotator] = one.answer
    shared = [said for said in first.values() if len(said) > 1]
    pairs = [a == b for said in shared for a, b in combinations(said.values(), 2)]
    repeats = {}
    for who, again in sorted(second.items()):
        kept = [first[line][who] == said for line, said in again if who in first.get(line, ())]
        if kept:
            repeats[who] = Repeats(len(kept), sum(kept), *share_interval(len(kept), sum(kept)))
    return Agreement(
        answers=dict(sorted(Counter(who for said in first.values() for who in said).items())),
        shared=len(shared),
        same=sum(pairs) / len(pairs) if pairs else None,
        alpha=_alpha(shared),
        repeats=repeats,
    )


def disputed(given: Iterable[Given]) -> set[str]:
    """The ids of the lines on which annotators disagree, at their first showing."""
    said: dict[str, set[str]] = {}
    for one in given:
        if not one.again:
            said.setdefault(one.line_id, set()).add(one.answer)
    return {line_id for line_id, answers in said.items() if len(answers) > 1}


def told(found: Agreement) -> list[str]:
    """The agreement in sentences; none where nothing can be said."""
    lines = []
    if found.same is not None:
        alpha = "cannot be said (one word only)" if found.alpha is None else f"{found.alpha:.2f}"
        lines.append(
            f"{found.shared:,} lines answered by two or more of {len(found.answers)} annotators: "
            f"{found.same:.0%} of the pairs of answers agree; Krippendorff's alpha {alpha}"
        )
    for who, one in found.repeats.items():
        lines.append(
            f"{visible(who)} gave the same answer to {one.same} of {one.lines} lines shown twice "
            f"(95 % interval {one.low:.0%} to {one.high:.0%})"
        )
    return lines


def _alpha(shared: list[dict[str, str]]) -> float | None:
    if len({answer for said in shared for answer in said.values()}) < 2:
        return None
    import pandas
    import simpledorff

    rows = [(i, who, answer) for i, said in enumerate(shared) for who, answer in said.items()]
    table = pandas.DataFrame(rows, columns=["line", "annotator", "answer"])
    alpha = simpledorff.calculate_krippendorffs_alpha_for_df(table, "line", "annotator", "answer")
    return float(alpha)
