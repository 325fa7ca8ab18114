"""How varied lines are, and how much of what a model could say has been heard.

distinct_n              share of n-grams that are different (Li et al. 2016)
soft_uniqueness         share of lines unlike all counted before (Symbolic Knowledge Distillation)
good_turing_coverage    chance that one more sample repeats a line already seen (Good 1953)
chao1_lower_bound       a lower bound on how many different lines there are (Chao 1984)
chapman                 mark and recapture, as I2D2 estimates it; for comparison only

Mark and recapture assumes that every line is equally easy to catch. Samples of a language model
break that (heavy tails), so it underestimates and its interval does not cover; report the
coverage and the lower bound instead.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recapture:
    """Chapman's estimate of a population's size, and the variance of the estimate."""

    estimate: float
    variance: float


def distinct_n(texts: Sequence[str], n: int) -> float | None:
    """Different word n-grams over all word n-grams, 0..1; None where there is none.

    It falls with the amount of text: compare only sets of about equal size.
    """
    grams: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        words = text.casefold().split()
        grams.update(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    total = sum(grams.values())
    return len(grams) / total if total else None


def soft_uniqueness(
    texts: Sequence[str],
    groups: Sequence[Hashable],
    *,
    ids: Sequence[str],
    threshold: float = 0.5,
) -> float | None:
    """Share of lines whose BLEU against every line counted before, of the same group, is below.

    Greedy, in the order of ids, since the result depends on order. BLEU is sacrebleu's sentence
    BLEU with up to 4-grams, `exp` smoothing and effective order, lower-cased, in 0..1.

    Args:
        texts, groups, ids: (N,) lines, their concepts, their ids.
        threshold: from this BLEU on a line is a repeat in other words.

    Returns:
        0..1; None where there are no lines.
    """
    from sacrebleu.metrics.bleu import BLEU

    logging.getLogger("sacrebleu").setLevel(logging.ERROR)
    bleu = BLEU(lowercase=True, effective_order=True, smooth_method="exp")
    counted: dict[Hashable, list[str]] = {}
    for _, text, group in sorted(zip(ids, texts, groups, strict=True), key=lambda row: row[0]):
        before = counted.setdefault(group, [])
        if all(bleu.sentence_score(text, [one]).score < 100 * threshold for one in before):
            before.append(text)
    return sum(map(len, counted.values())) / len(texts) if texts else None


def good_turing_coverage(counts: Sequence[int]) -> float | None:
    """1 - f1/n: the estimated chance that the next sample is a line that was seen.

    Args:
        counts: how often each distinct line was sampled, all at least 1.
    """
    total = sum(counts)
    return 1 - sum(count == 1 for count in counts) / total if total else None


def chao1_lower_bound(counts: Sequence[int]) -> float:
    """Seen lines plus f1 (f1 - 1) / (2 (f2 + 1)), bias-corrected: a lower bound on all there are.

    Args:
        counts: how often each distinct line was sampled, all at least 1.
    """
    once, twice = sum(count == 1 for count in counts), sum(count == 2 for count in counts)
    return len(counts) + once * (once - 1) / (2 * (twice + 1))


def chapman(first: int, second: int, both: int) -> Recapture:
    """N = (n1 + 1)(n2 + 1)/(m + 1) - 1, and its variance.

    Args:
        first, second: distinct lines in two independent samples.
        both: lines in both.

    Raises:
        ValueError: more in both than in one of them, or a negative number.
    """
    if not 0 <= both <= min(first, second):
        raise ValueError(f"expected 0 <= both <= {min(first, second)}; got {both}")
    estimate = (first + 1) * (second + 1) / (both + 1) - 1
    variance = (
        (first + 1) * (second + 1) * (first - both) * (second - both)
        / ((both + 1) ** 2 * (both + 2))
    )  # fmt: skip
    return Recapture(estimate, variance)
