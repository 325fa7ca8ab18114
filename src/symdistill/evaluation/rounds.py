"""The figures of one round: what was written, what a critic and a judge accept of it, what it says.

Takes a round's lines with their scores and selection's decisions; gives the numbers that
`metrics.json` lists under `rounds`, each rate with a 95 % interval from a bootstrap over concepts.
Pure numbers: no model is asked. Costs about a second per thousand lines.

Rates are over all distinct lines of the round, before any selection, so that a round cannot look
better by keeping less. Specificity is always that of the untouched model: one ruler for all rounds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from symdistill.evaluation.diversity import (
    chao1_lower_bound,
    distinct_n,
    good_turing_coverage,
    soft_uniqueness,
)
from symdistill.evaluation.metrics import bootstrap_interval
from symdistill.evaluation.specificity import content_word_rarity
from symdistill.records import Knowledge, Verdict

HISTOGRAM_BINS = 20
JUDGE_CUT = 0.5  # the judge's scores are probabilities: more likely valid than not


def round_metrics(
    *,
    number: int,
    lines: Sequence[Knowledge],
    scores: Mapping[str, float],
    cut: float,
    judged: Mapping[str, float],
    decisions: Sequence[Verdict],
    swap_shares: Mapping[str, float],
    reference: Sequence[str],
    function_words: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """All figures of a round but its times and its estimated precision.

    Args:
        number: the round.
        lines: its distinct lines, with `fields` as the recipe measured them.
        scores: by line id, of the critic of round 0.
        cut: the score from which that critic accepts.
        judged: by line id, of the independent judge; empty where there is none.
        decisions: selection's word on each line (score 1 kept, 0 refused).
        swap_shares: by line id, share of other concepts with which the line stays accepted.
        reference: the lines of round 0, by which words are common or rare.
        function_words: words that do not count as content.
        seed: for the bootstrap.
    """
    groups = [line.item_id for line in lines]
    accepted = np.array([scores[line.id] >= cut for line in lines], dtype=float)
    says = np.array([_number(line.fields.get("specificity")) for line in lines])
    kept = {word.knowledge_id for word in decisions if word.score == 1.0}
    texts = [line.text for line in lines]
    counts = list(Counter({line.id: len(line.lineage) for line in lines}).values())
    refused = Counter(word.reason.partition(":")[0] for word in decisions if not word.score)
    edges = np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    heights, _ = np.histogram([scores[line.id] for line in lines], bins=edges)
    figures: dict[str, Any] = {
        "round": number,
        "sampled": sum(counts),
        "written": len(lines),
        "kept": len(kept),
        "finished_share": _mean([float(line.fields["finished"]) for line in lines]),
        "accept_rate": _mean(accepted),
        "accept_rate_interval": _interval(accepted, groups, seed),
        "accept_rate_independent": None,
        "accept_rate_independent_interval": None,
        "specificity": _mean(says),
        "specificity_interval": _interval(says, groups, seed),
        "specificity_kept": _mean([s for s, x in zip(says, lines, strict=True) if x.id in kept]),
        "specificity_per_token": _mean(
            [s / max(1, line.fields["tokens"]) for s, line in zip(says, lines, strict=True)]
        ),
        "swap_accept_share": _mean([swap_shares.get(line.id, math.nan) for line in lines]),
        "rarity": _mean(content_word_rarity(texts, reference, function_words)),
        "words_mean": _mean([len(text.split()) for text in texts]),
        "distinct_1": distinct_n(texts, 1),
        "distinct_2": distinct_n(texts, 2),
        "soft_uniqueness": soft_uniqueness(texts, groups, ids=[line.id for line in lines]),
        "good_turing_coverage": good_turing_coverage(counts),
        "chao1_lower": chao1_lower_bound(counts),
        "score_histogram": {"edges": edges.tolist(), "counts": heights.tolist()},
        "rejected": dict(refused.most_common()),
    }
    if judged:
        agreed = np.array([judged[line.id] >= JUDGE_CUT for line in lines], dtype=float)
        figures["accept_rate_independent"] = _mean(agreed)
        figures["accept_rate_independent_interval"] = _interval(agreed, groups, seed)
    return figures


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _mean(values: Sequence[float] | Any) -> float | None:
    """The mean of what was measured; None where nothing was."""
    measured = np.asarray(values, dtype=float)
    measured = measured[np.isfinite(measured)]
    return float(measured.mean()) if len(measured) else None


def _interval(values: Any, groups: Sequence[str], seed: int) -> list[float] | None:
    measured = np.isfinite(values)
    if not measured.any():
        return None
    some = [group for group, ok in zip(groups, measured, strict=True) if ok]
    low, high = bootstrap_interval(values[measured], some, seed=seed)
    return [float(low), float(high)]
