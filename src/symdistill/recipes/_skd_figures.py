"""What `skd` leaves behind: the run's tables, the whole scored corpus, and metrics.json.

corpus.jsonl      every triple with its score and the levels that it passes
held_out.jsonl    what teacher and students said of unseen heads, with both judges' scores
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from symdistill.critic import estimate_precision
from symdistill.datafiles import write_rows
from symdistill.evaluation.diversity import soft_uniqueness
from symdistill.evaluation.metrics import bootstrap_interval, paired_difference
from symdistill.recipes._skd_judging import CutLevel, TripleCritic, TripleJudge
from symdistill.recipes._skd_settings import SKDConfig
from symdistill.records import (
    Failure,
    Item,
    Knowledge,
    Verdict,
    View,
    content_hash,
    normalise,
)
from symdistill.run import Run, Stored, StoredFolder, StoredValues
from symdistill.selection import Screen, ScreenedLine, review_figures
from symdistill.tables import iter_records, write_records

DIVERSITY_LINES = 300  # of each level, drawn by id: soft uniqueness compares all pairs
EXAMPLES = 10


class Said(NamedTuple):
    """One tail for an unseen head and a relation; `refused` says why it is none."""

    head: str
    relation: str
    tail: str
    refused: str


@dataclass(frozen=True)
class Spoken:
    """What someone said of all unseen heads."""

    name: str
    said: tuple[Said, ...]
    stored: StoredValues | StoredFolder


@dataclass(frozen=True)
class Rated:
    """The same with what the judges say of it; None where a tail was refused or nobody judged."""

    name: str
    said: tuple[Said, ...]
    critic: tuple[float | None, ...]
    judge: tuple[float | None, ...]


def rate_heads(
    run: Run, spoken: Sequence[Spoken], critic: TripleCritic | None, judge: TripleJudge | None
) -> list[Rated]:
    """The scores by the critic and by the judge of a second kind of what was said."""
    rated = []
    for one in spoken:
        found: dict[str, Sequence[float | None]] = {}
        for name, who in (("critic", critic), ("judge", judge)):
            if who is None:
                found[name] = [None] * len(one.said)
                continue

            def make(one: Spoken = one, who: Any = who) -> Mapping[str, Any]:
                whole = [(x.head, x.relation, x.tail) for x in one.said if not x.refused]
                scores = iter(who.score(whole).tolist() if whole else [])
                return {"scores": [None if x.refused else next(scores) for x in one.said]}

            found[name] = run.values(
                f"{name}-{content_hash(one.name)}", make, stage="judge", said=one.stored,
                who=who.stored,
            )["scores"]  # fmt: skip
        rated.append(Rated(one.name, one.said, tuple(found["critic"]), tuple(found["judge"])))
    return rated


def figures(
    run: Run,
    config: SKDConfig,
    heads: StoredValues,
    items: Stored[Item],
    written: StoredFolder,
    triples: Sequence[Knowledge],
    scored: Mapping[str, float],
    critic: TripleCritic | None,
    judge: TripleJudge | None,
    levels: Sequence[CutLevel],
    views: Sequence[View],
    rated: Sequence[Rated],
) -> dict[str, Any]:
    """Write tables, corpus.jsonl and held_out.jsonl; gives what goes to metrics.json."""
    passed = {
        line.id: [one.name for one in levels if one.keeps(scored.get(line.id))] for line in triples
    }
    verdicts = [
        Verdict(line.id, critic.name, scored[line.id]) for line in triples if critic is not None
    ]
    # here, and nowhere else, lines are screened for personal data and for what harms or demeans
    screen = Screen(config.screen)
    lines = [ScreenedLine(line.id, line.text, scored.get(line.id)) for line in triples]
    review = list(screen.reviews(lines))
    run.publish("items", Item, items.records)
    run.publish("knowledge", Knowledge, triples)
    run.publish("verdicts", Verdict, verdicts)
    run.publish("review", Verdict, review)
    run.publish("views", View, views)
    write_records(
        run.folder / "tables" / "failures.parquet",
        Failure,
        iter_records(written.folder / "failures.parquet", Failure),
    )
    split = {item.id: item.split for item in items.records}
    write_rows(
        run.folder / "corpus.jsonl",
        (
            {
                "id": line.id,
                **{key: line.fields[key] for key in ("head", "relation", "tail")},
                "text": line.text,
                "split": split[line.item_id],
                "score": scored.get(line.id),
                "levels": passed[line.id],
                "said": len(line.lineage),
            }
            for line in triples
        ),
    )
    write_rows(
        run.folder / "held_out.jsonl",
        (
            {"by": one.name, **said._asdict(), "critic": by_critic, "judge": by_judge}
            for one in rated
            for said, by_critic, by_judge in zip(one.said, one.critic, one.judge, strict=True)
        ),
    )
    report = {} if critic is None else dict(critic.stored.notes)
    calibration = report.pop("calibration", None)
    teacher = next((one for one in rated if one.name == "teacher"), None)
    stages = run.stages()
    return {
        "rounds": [],  # it has none
        "heads": {
            "asked": heads["asked"],
            "kept": len(items.records),
            "refused": heads["refused"],
            "splits": dict(Counter(str(item.split) for item in items.records)),
        },
        "inferences": dict(written.notes),
        "relations": by_relation(triples, passed, levels),
        "critic": report or None,
        "judge": dict(judge.stored.notes) if judge else None,
        "levels": [
            level_figures(run, config, one, triples, scored, passed, levels, calibration)
            for one in levels
        ],
        "unseen": [rate(one, teacher, judge, levels, config.seed) for one in rated],
        "review": review_figures(
            review, screened=len(lines), texts={line.id: line.text for line in triples}
        ),
        "examples": {
            "kept": examples(triples, scored, passed, strict=True, levels=levels),
            "rejected": examples(triples, scored, passed, strict=False, levels=levels),
        },
        "bill": [
            {"role": role, **run.ledger.totals(role)}
            for role in ("heads", "inferences", "held-out heads")
        ],
        "teacher": config.teacher.model,
        "stages": stages,
        "wall_s": sum(stage["wall_s"] for stage in stages),
        "peak_rss_mb": max((stage["peak_rss_mb"] for stage in stages), default=0.0),
    }


def level_figures(
    run: Run,
    config: SKDConfig,
    level: CutLevel,
    triples: Sequence[Knowledge],
    scored: Mapping[str, float],
    passed: Mapping[str, Sequence[str]],
    levels: Sequence[CutLevel],
    calibration: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What a level keeps, how much of it is valid by estimate, and how varied it is."""
    kept = [line for line in triples if level.name in passed[line.id]]
    found: dict[str, Any] = {"precision_estimate": None, "precision_interval": None}
    if calibration is not None and kept:
        estimate = estimate_precision(
            np.array([scored[line.id] for line in kept]),
            np.array(calibration["scores"]),
            np.array(calibration["valid"], dtype=bool),
            calibration["heads"],
            seed=config.seed,
        )
        found = {
            "precision_estimate": estimate.estimate,
            "precision_interval": [estimate.low, estimate.high],
        }
    sizes = [sum(one.name in names for names in passed.values()) for one in levels]
    drawn = min([DIVERSITY_LINES, *(size for size in sizes if size)])
    return {
        "name": level.name,
        "kept": len(kept),
        "kept_share": len(kept) / len(triples),
        **found,
        **level.report,
        **uniqueness(kept, drawn),
    }


def uniqueness(kept: Sequence[Knowledge], drawn: int) -> dict[str, Any]:
    """Strict and soft uniqueness of as many lines of each level, since both fall with their number.

    Strict: distinct tails of a relation over lines. Soft: lines unlike all counted before them in
    their relation (BLEU below 0.5), in the order of ids.
    """
    chosen = sorted(kept, key=lambda line: content_hash(["diversity", line.id]))[:drawn]
    tails = [line.fields["tail"] for line in chosen]
    relations = [line.fields["relation"] for line in chosen]
    distinct = {(name, normalise(tail)) for name, tail in zip(relations, tails, strict=True)}
    return {
        "diversity_lines": len(chosen),
        "strict_uniqueness": len(distinct) / len(chosen) if chosen else None,
        "soft_uniqueness": soft_uniqueness(tails, relations, ids=[line.id for line in chosen]),
    }


def rate(
    one: Rated,
    teacher: Rated | None,
    judge: TripleJudge | None,
    levels: Sequence[CutLevel],
    seed: int,
) -> dict[str, Any]:
    """The share of tails that the judge accepts, heads drawn whole, and against the teacher's."""
    heads = [said.head for said in one.said]
    row: dict[str, Any] = {
        "name": one.name,
        "heads": len(set(heads)),
        "tails": len(one.said),
        "refused": sum(bool(said.refused) for said in one.said),
        "distinct_tails": len({(said.relation, normalise(said.tail)) for said in one.said}),
        "accept_rate": None,
        "accept_rate_interval": None,
        "difference": None,
        "difference_interval": None,
        "critic_accept_rate": None,
    }
    strictest = levels[0]
    if strictest.cut is not None:
        row["critic_accept_rate"] = float(
            np.mean([score is not None and strictest.keeps(score) for score in one.critic])
        )
    if judge is None:
        return row
    mine = accepted(one, judge)
    row["accept_rate"] = float(mine.mean())
    row["accept_rate_interval"] = list(bootstrap_interval(mine, heads, seed=seed))
    if teacher is not None and one is not teacher:
        theirs = [said.head for said in teacher.said]
        found = paired_difference(mine, accepted(teacher, judge), heads, theirs, seed=seed)
        row["difference"] = found.estimate
        row["difference_interval"] = [found.low, found.high]
    return row


def accepted(one: Rated, judge: TripleJudge) -> Any:
    """(N,) 1 where the judge accepts a tail; a refused tail is not accepted."""
    cut = judge.stored.notes["cut"]
    return np.array([score is not None and score >= cut for score in one.judge], dtype=float)


def by_relation(
    triples: Sequence[Knowledge],
    passed: Mapping[str, Sequence[str]],
    levels: Sequence[CutLevel],
) -> list[dict[str, Any]]:
    """Triples of each relation, at each level."""
    names = dict.fromkeys(line.fields["relation"] for line in triples)
    rows = []
    for name in sorted(names):
        own = [passed[line.id] for line in triples if line.fields["relation"] == name]
        rows.append(
            {
                "relation": name,
                "kept": {one.name: sum(one.name in some for some in own) for one in levels},
            }
        )
    return rows


def examples(
    triples: Sequence[Knowledge],
    scored: Mapping[str, float],
    passed: Mapping[str, Sequence[str]],
    *,
    strict: bool,
    levels: Sequence[CutLevel],
) -> list[dict[str, Any]]:
    """Some lines that pass the strictest level, or that do not, drawn by their ids."""
    some = [line for line in triples if (levels[0].name in passed[line.id]) == strict]
    some.sort(key=lambda line: content_hash(["example", line.id]))
    return [
        {"id": line.id, "text": line.text, "score": scored.get(line.id), "levels": passed[line.id]}
        for line in some[:EXAMPLES]
    ]
