"""What I2D2 leaves behind: the run's tables, and the numbers of metrics.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from symdistill.critic import estimate_precision
from symdistill.evaluation.rounds import round_metrics
from symdistill.recipes._judging import Critic, Judge
from symdistill.records import Item, Knowledge, Verdict, View, content_hash, merge_repeats
from symdistill.run import Run, Stored
from symdistill.selection import Candidate, ScreenedLine, review_figures


@dataclass(frozen=True)
class Round:
    """What a round wrote, what was said of it, and what was kept."""

    number: int
    lines: Stored[Knowledge]
    verdicts: Stored[Verdict]
    decisions: Stored[Verdict]
    critic: Critic

    def scores(self, judge: str) -> dict[str, float]:
        """Each line's score from the judge of this name, where it gave one."""
        return {
            one.knowledge_id: one.score
            for one in self.verdicts.records
            if one.judge == judge and one.score is not None
        }

    @property
    def kept(self) -> list[Knowledge]:
        """The lines that were kept."""
        ids = {one.knowledge_id for one in self.decisions.records if one.score == 1.0}
        return [line for line in self.lines.records if line.id in ids]

    def candidates(self) -> list[Candidate]:
        """The lines as selection sees them."""
        scores = self.scores(self.critic.name)
        swaps = self.scores(f"swap:{self.critic.name}")
        return [
            Candidate(
                id=line.id,
                item_id=line.item_id,
                text=line.text,
                continuation=line.fields["continuation"],
                pattern=line.fields["pattern"],
                finished=line.fields["finished"],
                score=scores[line.id],
                specificity=specificity_of(line),
                swap_accept_share=swaps.get(line.id, float("nan")),
            )
            for line in self.lines.records
        ]

    def screened(self, lines: Iterable[Knowledge]) -> list[ScreenedLine]:
        """Lines of this round as the screen sees them."""
        scores = self.scores(self.critic.name)
        return [ScreenedLine(line.id, line.text, scores[line.id]) for line in lines]

    def summary(self) -> str:
        """One line for people."""
        return f"round {self.number}: {len(self.lines.records)} written, {len(self.kept)} kept"


def publish(
    run: Run,
    asked: Stored[Item],
    rounds: Sequence[Round],
    judge: Judge | None,
    views: Sequence[View],
    review: Stored[Verdict] | None,
    *,
    function_words: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """Write the run's tables; gives what its rounds came to.

    Args:
        run: the open run.
        asked: its concepts.
        rounds: what was written, judged and decided, in order.
        judge: the second opinion, if there was one.
        views: every kept line as a training row.
        review: the screen's marks on kept lines; None: nothing was screened.
        function_words: words that do not count as content.
        seed: for the intervals.
    """
    run.publish("items", Item, asked.records)
    run.publish(
        "knowledge", Knowledge, merge_repeats(x for one in rounds for x in one.lines.records)
    )
    said = [v for one in rounds for v in [*one.verdicts.records, *one.decisions.records]]
    run.publish("verdicts", Verdict, said)
    run.publish("views", View, views)
    run.publish("review", Verdict, review.records if review else [])

    first = rounds[0].critic
    stages = run.stages()
    reference = [line.text for line in rounds[0].lines.records]
    judge_name = judge.name if judge else None
    measured = []
    for one in rounds:
        judged = one.scores(judge_name) if judge_name else {}
        measured.append(
            round_metrics(
                number=one.number,
                lines=one.lines.records,
                scores=one.scores(first.name),
                cut=first.cut,
                judged=judged,
                decisions=one.decisions.records,
                swap_shares=one.scores(f"swap:{first.name}"),
                reference=reference,
                function_words=function_words,
                seed=seed,
            )
            | precision_of(one, seed)
            | {
                "stages": [
                    {key: stage[key] for key in ("stage", "wall_s", "tokens", "peak_rss_mb")}
                    for stage in stages
                    if stage["round"] == one.number
                ],
                "wall_s": sum(s["wall_s"] for s in stages if s["round"] == one.number),
            }
        )
    critics = {one.critic.name: dict(one.critic.report) for one in rounds}
    for report in critics.values():
        report.pop("calibration")
    return {
        "critics": list(critics.values()),
        "judge": dict(judge.report) if judge else None,
        "rounds": measured,
        "review": review_of(rounds, review.records) if review else None,
        "examples": examples(rounds, judge_name, {item.id: item for item in asked.records}),
        "wall_s": sum(stage["wall_s"] for stage in stages),
        "peak_rss_mb": max((stage["peak_rss_mb"] for stage in stages), default=0.0),
    }


def precision_of(one: Round, seed: int) -> dict[str, Any]:
    """The estimated precision of what a round kept: an estimate, not a certificate."""
    scores = one.scores(one.critic.name)
    kept = np.array([scores[line.id] for line in one.kept])
    if not len(kept):
        return {"precision_estimate": None, "precision_interval": None}
    labelled = one.critic.report["calibration"]
    found = estimate_precision(
        kept,
        np.array(labelled["scores"]),
        np.array(labelled["valid"]),
        labelled["concepts"],
        seed=seed,
    )
    return {
        "precision_estimate": found.estimate, "precision_interval": [found.low, found.high],
    }  # fmt: skip


def review_of(rounds: Sequence[Round], marked: Sequence[Verdict]) -> dict[str, Any]:
    """How many kept lines were marked for review, why, and the first of them."""
    texts = {line.id: line.text for one in rounds for line in one.kept}
    return review_figures(marked, screened=sum(len(one.kept) for one in rounds), texts=texts)


def examples(
    rounds: Sequence[Round], judge_name: str | None, items: Mapping[str, Item], count: int = 10
) -> dict[str, list[dict[str, Any]]]:
    """Kept and rejected lines of the last round to look at, drawn by their ids."""
    one = rounds[-1]
    scores = one.scores(one.critic.name)
    judged = one.scores(judge_name) if judge_name else {}
    decided = {word.knowledge_id: word for word in one.decisions.records}
    shown: dict[str, list[dict[str, Any]]] = {"kept": [], "rejected": []}
    for line in sorted(one.lines.records, key=lambda line: content_hash(["example", line.id])):
        word = decided[line.id]
        here = shown["kept" if word.score else "rejected"]
        if len(here) < count:
            here.append(
                {
                    "id": line.id,
                    "text": line.text,
                    "concept": items[line.item_id].text,
                    "round": one.number,
                    "score": scores[line.id],
                    "judge_score": judged.get(line.id),
                    "specificity": line.fields["specificity"],
                    "reason": word.reason,
                }
            )
    return shown


def specificity_of(line: Knowledge) -> float:
    """A measured line's specificity in nats; NaN where there was no other concept to put in."""
    says = line.fields["specificity"]
    return float("nan") if says is None else float(says)
