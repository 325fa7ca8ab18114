"""What `scotd` leaves behind: the run's tables, chains.jsonl, predictions.jsonl, metrics.json.

chains.jsonl        every chain with its answer, whether it is right, and whether it was kept
predictions.jsonl   what every student said of every test question
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symdistill.answers import chance_of
from symdistill.datafiles import write_rows
from symdistill.evaluation.accuracy import (
    accuracy,
    chance_level,
    consistency,
    contrast_groups,
    effect_words,
    holm,
    minimum_detectable_effect,
    paired_over_seeds,
)
from symdistill.evaluation.corpus import Sample, corpus_report
from symdistill.evaluation.cost import Cost, Shape, cost, shape_of
from symdistill.models import resolve
from symdistill.recipes._scotd_asking import question_text
from symdistill.recipes._scotd_checking import reasons
from symdistill.recipes._scotd_settings import ScotdConfig
from symdistill.recipes._scotd_students import UNTRAINED, Said
from symdistill.records import Failure, Item, Knowledge, Verdict, View, content_hash
from symdistill.run import Run, Stored, StoredFolder
from symdistill.selection import review_figures
from symdistill.tables import iter_records, write_records
from symdistill.verifiers.extraction import EXTRACTOR_VERSION

EXAMPLES = 10
SCORED_WORDS = 1000  # of a chain; the scores of a longer one would not fit into memory


def corpus(
    run: Run,
    config: ScotdConfig,
    items: Mapping[str, Item],
    by_teacher: Mapping[str, Sequence[Knowledge]],
    right: Stored[Verdict],
) -> dict[str, Any]:
    """What the chains are like, by teacher, before anything is trained on them."""
    correct = {one.knowledge_id: one for one in right.records}
    odd = perplexities(run, config, items, by_teacher)
    report = corpus_report(
        Sample(
            name,
            line.item_id,
            line.text,
            None if (score := correct[line.id].score) is None else bool(score),
            line.fields["reason"],
            line.fields["tokens"],
            odd.get(line.id),
            chance_of(items[line.item_id]),
        )
        for name, lines in by_teacher.items()
        for line in lines
        for _ in line.lineage  # what was said twice counts twice
    )
    run.write_json("corpus.json", report)
    for name, own in report["teachers"].items():
        run.progress.say(f"{name}: {in_words(own)}")
    return report


def in_words(own: Mapping[str, Any]) -> str:
    """The corpus of a teacher in one line; corpus.json and the report hold all of it."""
    said = [f"{own['samples']:,} chains", f"an answer in {own['parsed_share']:.0%}"]
    if own["pass_rate"]:
        said.append(f"right {own['pass_rate']['share']:.0%}")
    if own["tokens"]:
        said.append(f"{own['tokens']['p50']:.0f} tokens (median)")
    if own["perplexity"]:
        said.append(f"perplexity {own['perplexity']['p50']:.1f} (median)")
    said.append(f"{own['repetition_share']:.0%} repeat themselves")
    return ", ".join(said)


def perplexities(
    run: Run,
    config: ScotdConfig,
    items: Mapping[str, Item],
    by_teacher: Mapping[str, Sequence[Knowledge]],
) -> dict[str, float]:
    """By chain its perplexity behind its question, under the reference model."""
    if config.perplexity_under is None:
        return {}
    from symdistill.teachers.local import LocalTeacher, perplexity

    reference = resolve(config.perplexity_under)
    lines = {line.id: line for some in by_teacher.values() for line in some if line.text.strip()}
    long = {id for id, line in lines.items() if len(line.text.split()) > SCORED_WORDS}
    if long:
        run.progress.say(f"{len(long)} chains of over {SCORED_WORDS} words get no perplexity")
    lines = {id: line for id, line in lines.items() if id not in long}

    def make() -> Mapping[str, Any]:
        model = LocalTeacher(reference, batch_size=4)
        ids = sorted(lines)
        prompts = [f"{question_text(items[lines[id].item_id])}\n" for id in ids]
        with run.progress.stage("perplexity", len(ids), "chains") as advance:
            found = model.logprobs(
                prompts, [lines[id].text.strip() for id in ids], advance=advance,
                count_tokens=run.count_tokens,
            )  # fmt: skip
        model.unload()
        return {id: perplexity(one) for id, one in zip(ids, found, strict=True) if one.tokens}

    stored = run.values(
        "perplexity", make, stage="corpus", model=reference.fingerprint,
        lines=content_hash([[id, lines[id].text] for id in sorted(lines)], 64),
    )  # fmt: skip
    return dict(stored.values)


def what_can_be_seen(run: Run, config: ScotdConfig, test: Sequence[Item]) -> dict[str, Any] | None:
    """The chance level and the smallest difference that the test can see; told aloud."""
    if config.student is None or not test:
        return None
    chance = chance_level(test)
    baseline = max(chance, 0.2)
    effect = minimum_detectable_effect(len(test), baseline=baseline)
    run.progress.say(
        f"{len(test):,} test questions, chance gets {chance:.0%} right; "
        + effect_words(len(test), effect)
    )
    return {
        "questions": len(test),
        "chance": chance,
        "baseline": baseline,
        "effect": None if math.isinf(effect) else effect,
    }


def figures(
    run: Run,
    config: ScotdConfig,
    questions: StoredFolder,
    items: Mapping[str, Item],
    written: Mapping[str, StoredFolder],
    lines: Sequence[Knowledge],
    right: Stored[Verdict],
    opinion: Stored[Verdict] | None,
    chosen: Stored[Verdict],
    review: Sequence[Verdict],
    described: Mapping[str, Any],
    seen: Mapping[str, Any] | None,
    views: Sequence[View],
    students: Sequence[StoredFolder],
    said: Sequence[Said],
) -> dict[str, Any]:
    """Write tables, chains.jsonl and predictions.jsonl; gives what goes to metrics.json."""
    test = [item for item in items.values() if item.split == "test"]
    write_predictions(run, items, said)
    verdicts = [*right.records, *(opinion.records if opinion else []), *chosen.records]
    unchecked = {row["item_id"] for one in said for row in [*one.rows, *one.votes]
                 if row["status"] != "ok"}  # fmt: skip
    said = [one.without(unchecked) for one in said]
    test = [item for item in test if item.id not in unchecked]
    write_tables(run, items, written, lines, verdicts, review, views)
    write_chains(run, items, lines, right, chosen)
    kept = sum(one.score == 1.0 for one in chosen.records)
    stages = run.stages()
    return {
        "rounds": [],  # it has none
        "questions": {
            "splits": questions.notes["splits"],
            "refused": questions.notes["refused"],
            "contamination": questions.notes["contamination"],
        },
        "asked": {name: dict(folder.notes) for name, folder in written.items()},
        "corpus": dict(described),
        "chosen": {
            "of": len(chosen.records),
            "kept": kept,
            "refused": reasons(chosen.records),
            "keep": config.filter.keep,
            "strategy": config.filter.strategy,
        },
        "opinion": None if opinion is None else reasons(opinion.records),
        "unchecked": len(unchecked),
        "seen": seen,
        "protocol": f"generative exact match, extractor version {EXTRACTOR_VERSION}",
        "students": [dict(folder.notes) for folder in students],
        "arms": arms(config, said, test),
        "comparisons": comparisons(config, said, test),
        "review": review_figures(
            review, screened=len(lines), texts={line.id: line.text for line in lines}
        ),
        "examples": {
            "kept": examples(items, lines, chosen, kept=True),
            "rejected": examples(items, lines, chosen, kept=False),
            "students": answers_shown(items, said),
        },
        "bill": [
            {"role": role, **run.ledger.totals(role)}
            for role in dict.fromkeys(one.role for one in run.ledger.accounts())
        ],
        "teacher": config.teacher.model,
        "stages": stages,
        "wall_s": sum(stage["wall_s"] for stage in stages),
        "peak_rss_mb": max((stage["peak_rss_mb"] for stage in stages), default=0.0),
    }


def correctness(said: Sequence[Said], arm: str, *, votes: bool = False) -> NDArray[np.bool_]:
    """(S, N) whether each answer of an arm was right, by training seed; no answer is wrong."""
    rows = [
        [bool(row["correct"]) for row in (one.votes if votes else one.rows)]
        for one in said
        if one.arm == arm
    ]
    return np.array(rows, dtype=bool)


def arms(config: ScotdConfig, said: Sequence[Said], test: Sequence[Item]) -> list[dict[str, Any]]:
    """Every student's accuracy over its seeds, what answering cost, and why answers lack."""
    found: list[dict[str, Any]] = []
    if config.student is None or not said:
        return found
    groups = contrast_groups(test)
    shape = student_shape(config.student.model)
    for name in dict.fromkeys(one.arm for one in said):
        mine = [one for one in said if one.arm == name]
        right = correctness(said, name)  # (S, N)
        repeated = [group for _ in mine for group in groups]
        share = accuracy(right.ravel(), repeated)
        rows = [row for one in mine for row in one.rows]
        row: dict[str, Any] = {
            "name": name,
            "seeds": len(mine),
            "questions": len(test),
            "accuracy": share.share,
            "accuracy_interval": [share.low, share.high],
            "by_seed": [float(one.mean()) for one in right],
            "no_answer": sum(one["answer"] is None for one in rows) / len(rows),
            "reasons": reasons_of(rows),
            "consistency": None,
            "vote": None,
            "cost": answering_cost(shape, rows),
        }
        if len(set(groups)) < len(groups):
            both = consistency(right, groups)
            row["consistency"] = both.share
            row["consistency_interval"] = [both.low, both.high]
        if mine[0].votes:
            voted = accuracy(correctness(said, name, votes=True).ravel(), repeated)
            row["vote"] = voted.share
            row["vote_interval"] = [voted.low, voted.high]
        found.append(row)
    return found


def comparisons(
    config: ScotdConfig, said: Sequence[Said], test: Sequence[Item]
) -> list[dict[str, Any]]:
    """The first arm against every other, paired by question; one of them was decided on before."""
    if config.student is None or not said:
        return []
    names = list(config.student.arms)
    primary = config.primary or (names[0], names[-1])
    pairs = [primary] if len(names) > 1 else []
    others = [*names[1:], *([UNTRAINED] if config.student.untrained else [])]
    pairs += [(names[0], other) for other in others if (names[0], other) != primary]
    groups = contrast_groups(test)
    found: list[dict[str, Any]] = []
    for one, other in pairs:
        a, b = correctness(said, one), correctness(said, other)
        if len(b) < len(a):  # the untouched model was asked once
            b = np.repeat(b, len(a), axis=0)
        result = asdict(paired_over_seeds(a, b, groups))
        low, high = result.pop("low"), result.pop("high")
        found.append({
            "arm": one, "against": other, "primary": (one, other) == primary,
            "difference": result.pop("estimate"), "difference_interval": [low, high], **result,
        })  # fmt: skip
    exploratory = {str(k): row["p"] for k, row in enumerate(found) if not row["primary"]}
    for place, p in holm(exploratory).items():
        found[int(place)]["p_holm"] = p
    return found


def student_shape(model: str) -> Shape:
    """What of a student decides the arithmetic of its answers; no weights are read."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = AutoConfig.from_pretrained(str(resolve(model).folder))
    with torch.device("meta"):
        return shape_of(AutoModelForCausalLM.from_config(settings))


def answering_cost(shape: Shape, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Tokens read and written in all answers, and the operations that they take."""
    costs = (cost(shape, row["prompt_tokens"], row["tokens"]) for row in rows)
    return sum(costs, Cost()).as_dict()


def reasons_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Why answers were none, counted."""
    counts: dict[str, int] = {}
    for row in rows:
        if row["answer"] is None:
            reason = row.get("failed") or str(row["reason"]).partition(":")[0] or "no answer"
            counts[reason] = counts.get(reason, 0) + 1
    return dict(sorted(counts.items(), key=lambda pair: -pair[1]))


def write_tables(
    run: Run,
    items: Mapping[str, Item],
    written: Mapping[str, StoredFolder],
    lines: Sequence[Knowledge],
    verdicts: Sequence[Verdict],
    review: Sequence[Verdict],
    views: Sequence[View],
) -> None:
    """The run's tables."""
    run.publish("items", Item, list(items.values()))
    run.publish("knowledge", Knowledge, lines)
    run.publish("verdicts", Verdict, verdicts)
    run.publish("review", Verdict, review)
    run.publish("views", View, views)
    write_records(
        run.folder / "tables" / "failures.parquet",
        Failure,
        (one for folder in written.values()
         for one in iter_records(folder.folder / "failures.parquet", Failure)),
    )  # fmt: skip


def write_chains(
    run: Run,
    items: Mapping[str, Item],
    lines: Sequence[Knowledge],
    right: Stored[Verdict],
    chosen: Stored[Verdict],
) -> None:
    """chains.jsonl: every chain with what was found of it."""
    correct = {one.knowledge_id: one for one in right.records}
    words = {one.knowledge_id: one for one in chosen.records}
    write_rows(
        run.folder / "chains.jsonl",
        (
            {
                "id": line.id,
                "question": items[line.item_id].text,
                "choices": items[line.item_id].fields.get("choices"),
                "gold": items[line.item_id].gold,
                "text": line.text,
                "rationale": line.fields["rationale"],
                "answer": line.fields["answer"],
                "teacher": line.fields["teacher"],
                "right": correct[line.id].score,
                "kept": line.id in words and words[line.id].score == 1.0,
                "why_not": words[line.id].reason if line.id in words else "not trained on",
            }
            for line in lines
        ),
    )


def write_predictions(run: Run, items: Mapping[str, Item], said: Sequence[Said]) -> None:
    """predictions.jsonl: what every student said."""
    path = run.folder / "predictions.jsonl"
    if not said:
        path.unlink(missing_ok=True)  # of earlier settings
        return
    write_rows(
        path,
        (
            {
                "arm": one.arm,
                "seed": one.seed,
                "mode": mode,
                "question": items[row["item_id"]].text,
                "gold": items[row["item_id"]].gold,
                **row,
            }
            for one in said
            for mode, rows in (("greedy", one.rows), ("vote", one.votes))
            for row in rows
        ),
    )


def examples(
    items: Mapping[str, Item], lines: Sequence[Knowledge], chosen: Stored[Verdict], *, kept: bool
) -> list[dict[str, Any]]:
    """Some chains that were kept, or that were not, drawn by their ids."""
    words = {one.knowledge_id: one for one in chosen.records if (one.score == 1.0) == kept}
    some = sorted(
        (line for line in lines if line.id in words),
        key=lambda line: content_hash(["example", line.id]),
    )
    return [
        {
            "id": line.id, "question": items[line.item_id].text, "text": line.text,
            "answer": line.fields["answer"], "gold": items[line.item_id].gold,
            "reason": words[line.id].reason,
        }
        for line in some[:EXAMPLES]
    ]  # fmt: skip


def answers_shown(items: Mapping[str, Item], said: Sequence[Said]) -> list[dict[str, Any]]:
    """What the first student says of some test questions."""
    first = next((one for one in said if one.arm != UNTRAINED), None)
    if first is None:
        return []
    some = sorted(first.rows, key=lambda row: content_hash(["example", row["item_id"]]))
    return [
        {
            "question": items[row["item_id"]].text, "text": row["text"], "answer": row["answer"],
            "gold": items[row["item_id"]].gold, "correct": row["correct"],
        }
        for row in some[:EXAMPLES]
    ]  # fmt: skip
