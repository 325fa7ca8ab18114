"""Which rationales of each question train the student: SCoTD's filters, all at the same size.

Takes rationales (of which wrong ones were refused before, where that is wanted), gives the ids of
those that are kept. Pure: no file, and no model but the embedder handed in. Costs microseconds a
rationale, and for "diversity" the embedding and about a millisecond a question.

Follows Symbolic Chain-of-Thought Distillation (https://arxiv.org/abs/2306.14050, section 4), which
asks what makes a sampled corpus good: it cuts 30 rationales a question down to 5 on average, in
several ways, and compares students at equal size.

    all             everything; what the cut corpora are measured against
    random          `per_question` of each question, by lot
    diversity       embeddings, clustered into `per_question` clusters; one of each, by lot
    likelihood      those with the highest mean log-probability per token under the teacher
    open_endedness  questions in fifths by the number of distinct word pairs in all their
                    rationales; the fifths keep 1, 3, 5, 7, 9 of each question, by lot

What we chose. The clusters are average link over cosine distance (the paper says hierarchical, not
which). For other sizes k than 5 the fifths keep 1, k - k//2, k, k + k//2 and 2k - 1, which is the
paper's row at k = 5 and k on average always. A question may have fewer rationales than its share;
every filter keeps as many in all as "random" does, so "open_endedness" gives what is left over to
the most open questions that have more, and takes what is too much from the least open ones, one
each in turn. A lot is a hash of seed and id: no choice depends on the order of the input, "random"
and "diversity" choose for a question whatever the other questions are, and what "random" keeps at 3
it keeps at 5.

A question with few rationales left has few word pairs for that reason alone; "open_endedness" takes
it for a closed one, as the paper's measure does.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from symdistill.errors import InputError
from symdistill.records import content_hash, normalise

Strategy = Literal["all", "random", "diversity", "likelihood", "open_endedness"]
Embedder = Callable[[Sequence[str]], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A rationale that may be kept, with what the filters read."""

    id: str
    item_id: str
    text: str
    likelihood: float | None = None  # mean log-probability per token, nats


@dataclass(frozen=True, slots=True)
class Selected:
    """What was kept."""

    ids: tuple[str, ...]  # in the order of the candidates
    budget: int  # rationales wanted in all: as many as `ids` has
    short: Mapping[str, int]  # question -> how many fewer rationales it had than its share


def select_rationales(
    candidates: Sequence[Candidate],
    strategy: Strategy,
    per_question: int | None,
    *,
    seed: int,
    embed: Embedder | None = None,
) -> Selected:
    """The rationales that a filter keeps.

    Args:
        candidates: rationales with distinct ids, in any order.
        strategy: the filter.
        per_question: rationales kept of a question, on average; None for "all" and only there.
        seed: decides the lots.
        embed: for "diversity": N texts to an array (N, D); called once for each question in which
            there is a choice.

    Raises:
        InputError: `per_question` does not go with the filter, or likelihoods are missing.
        ValueError: ids repeat, or "diversity" has no embedder.
    """
    if len({one.id for one in candidates}) < len(candidates):
        raise ValueError("expected rationales with distinct ids; merge repeats first")
    if strategy == "all":
        if per_question is not None:
            raise InputError(
                f"expected no per_question where all rationales are kept; got {per_question}; "
                "take it out, or choose another strategy"
            )
        return Selected(tuple(one.id for one in candidates), len(candidates), {})
    if per_question is None or per_question < 1:
        raise InputError(
            f"expected per_question of at least 1 for strategy {strategy!r}; got {per_question}; "
            "set it, or keep all"
        )
    if strategy == "likelihood":
        _have_likelihoods(candidates)
    if strategy == "diversity" and embed is None:
        raise ValueError("expected an embedder for strategy 'diversity', got none")

    by_question: defaultdict[str, list[Candidate]] = defaultdict(list)
    for one in sorted(candidates, key=lambda one: content_hash([seed, one.id])):
        by_question[one.item_id].append(one)
    had = {item_id: len(own) for item_id, own in by_question.items()}
    shares = dict.fromkeys(had, per_question)
    budget = _total(shares, had)
    if strategy == "open_endedness":
        shares = _shares(by_question, per_question)
    sizes = _settled(shares, had, budget)

    kept: set[str] = set()
    for item_id, own in by_question.items():
        if strategy == "likelihood":
            own = sorted(own, key=lambda one: (-(one.likelihood or 0.0), one.id))
        elif strategy == "diversity" and embed is not None and len(own) > per_question:
            own = _one_of_each(own, _clusters(embed([one.text for one in own]), per_question))
        kept.update(one.id for one in own[: sizes[item_id]])
    return Selected(
        ids=tuple(one.id for one in candidates if one.id in kept),
        budget=budget,
        short={one: shares[one] - had[one] for one in sorted(had) if had[one] < shares[one]},
    )


def word_pairs(texts: Iterable[str]) -> int:
    """How many distinct pairs of neighbouring words the texts hold, letter case aside."""
    return len({pair for text in texts for pair in pairwise(normalise(text).split())})


def _have_likelihoods(candidates: Sequence[Candidate]) -> None:
    without = [one.id for one in candidates if one.likelihood is None or math.isnan(one.likelihood)]
    if without:
        raise InputError(
            f"expected the teacher's mean log-probability for every rationale; got none for "
            f"{len(without)} of {len(candidates)}, {min(without)} among them; take a teacher that "
            "returns log-probabilities, or another strategy"
        )


def _shares(by_question: Mapping[str, Sequence[Candidate]], k: int) -> dict[str, int]:
    """Each question's share by its fifth; the least open question first."""
    pairs = {one: word_pairs(c.text for c in own) for one, own in by_question.items()}
    order = sorted(pairs, key=lambda one: (pairs[one], one))
    fifths = (1, k - k // 2, k, k + k // 2, 2 * k - 1)
    # The middle of each rank, so that fewer than five questions, too, lie evenly around k.
    return {one: fifths[5 * (2 * i + 1) // (2 * len(order))] for i, one in enumerate(order)}


def _total(shares: Mapping[str, int], had: Mapping[str, int]) -> int:
    return sum(min(share, had[one]) for one, share in shares.items())


def _settled(shares: Mapping[str, int], had: Mapping[str, int], budget: int) -> dict[str, int]:
    """How many each question keeps, so that they are the budget in all.

    One each in turn: the questions at the end of `shares` get what is left over, those at its
    beginning give what is too much, down to one.
    """
    sizes = {one: min(share, had[one]) for one, share in shares.items()}
    over = _total(shares, had) - budget
    step = -1 if over > 0 else 1
    for one in cycle(sizes if over > 0 else reversed(sizes)):
        if over == 0:
            break
        if 1 <= sizes[one] + step <= had[one]:
            sizes[one] += step
            over += step
    return sizes


def _clusters(points: NDArray[Any], k: int) -> NDArray[np.intp]:
    """(N, D) -> (N,): which of k clusters each point is in, by average link over cosine distance.

    There are k for certain, equal points or not; N must be above k.
    """
    from scipy.cluster.hierarchy import cut_tree, linkage

    points = np.asarray(points, dtype=np.float64)
    lengths = np.linalg.norm(points, axis=1, keepdims=True)  # (N, 1)
    units = points / np.where(lengths == 0, 1.0, lengths)
    cosines = (units @ units.T)[np.triu_indices(len(units), k=1)]  # (N (N - 1) / 2,)
    tree = linkage(1.0 - np.clip(cosines, -1.0, 1.0), method="average")
    numbers: NDArray[np.intp] = cut_tree(tree, n_clusters=k)[:, 0]
    return numbers


def _one_of_each(own: Sequence[Candidate], clusters: NDArray[np.intp]) -> list[Candidate]:
    """The first of each cluster."""
    firsts: dict[int, Candidate] = {}
    for one, cluster in zip(own, clusters.tolist(), strict=True):
        firsts.setdefault(cluster, one)
    return list(firsts.values())
