"""CommonGen (Lin et al., 2020): one everyday sentence that uses all of some words.

What the NeuroLogic benchmark needs of it: items in a fixed order, the constraint and the prompt of
an item, and the scores of what was written. The constraint is the published one: for each concept
one of its forms, as the source lists them (4.5 clauses of 4.9 forms on average).

The request was chosen on 16 items of the train split, by what the embedded model's plain beam
search then covers and scores: four wordings without examples (all concepts in a third to two
thirds of the sentences, ROUGE-L .14 to .19; it chats), and one with one, two and three of our own
examples (a quarter, three eighths, a half; .26, .24, .30). No dev item was looked at for it.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from symdistill.constraints import Constraint, all_of, any_of, contains
from symdistill.evaluation.metrics import N_BOOTSTRAP, bootstrap_interval, paired_difference
from symdistill.records import content_hash

WORDING = "Write one simple everyday sentence with these words: {words}."
EXAMPLES = (  # written for this benchmark
    (("cake", "child", "eat"), "A child eats a piece of cake at the table."),
    (("bag", "carry", "man", "street"), "A man carries a heavy bag down the street."),
    (("open", "shop", "wait", "woman"), "The woman waits for the shop to open."),
)


class Item(NamedTuple):
    """Some concepts, for each the forms that count as a mention, and people's sentences."""

    id: str
    concepts: tuple[str, ...]
    forms: tuple[tuple[str, ...], ...]
    references: tuple[str, ...]

    @property
    def constraint(self) -> Constraint:
        """One of the forms of every concept."""
        return all_of(*(contains(any_of(forms)) for forms in self.forms))


def read_items(data: Path, count: int | None = None, file: str = "dev_clean") -> list[Item]:
    """The first `count` items (all if None) of a file under `data`, in the order of a hash."""
    with gzip.open(data / "commongen" / f"{file}.jsonl.gz", "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    rows.sort(key=lambda row: content_hash([row["id"]]))
    return [
        Item(row["id"], tuple(row["concepts"]), tuple(map(tuple, row["forms"])),
             tuple(row["references"]))
        for row in rows[:count]
    ]  # fmt: skip


def prompt(item: Item, tokenizer: Any, examples: int = len(EXAMPLES)) -> str:
    """The request in the model's chat template, behind some examples, up to the answer."""
    said = []
    for concepts, sentence in EXAMPLES[:examples]:
        said += [_asked(concepts), {"role": "assistant", "content": sentence}]
    said.append(_asked(item.concepts))
    return str(tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True))


def _asked(concepts: Sequence[str]) -> dict[str, str]:
    return {"role": "user", "content": WORDING.format(words=", ".join(concepts))}


def is_feasible(item: Item, tokenizer: Any, max_new_tokens: int) -> bool:
    """Whether the shortest form of each concept, each written apart, and an end token fit."""
    least = (
        min(len(tokenizer.encode(f" {form}", add_special_tokens=False)) for form in forms)
        for forms in item.forms
    )
    return sum(least) + 1 <= max_new_tokens


# ------------------------------------------------------------------ scores


class Written(NamedTuple):
    """What a system wrote for an item."""

    text: str
    covered: bool  # every clause met, and the text has ended
    mentioned: float  # share of the clauses met
    log_probability: float  # of all its tokens, the end token too
    tokens: int


def rouge_l(text: str, references: Sequence[str]) -> float:
    """ROUGE-L F1 (Lin, 2004) against the nearest reference, 0..1.

    Words are runs of a-z and 0-9 in lower case, without stemming, as in the package `rouge-score`
    (which has had no release since 2022).
    """
    ours = _words(text)
    return max((_overlap(ours, _words(one)) for one in references), default=0.0)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _overlap(ours: list[str], theirs: list[str]) -> float:
    if not ours or not theirs:
        return 0.0
    return 2 * longest_common_subsequence(ours, theirs) / (len(ours) + len(theirs))


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest sequence that both hold in order, with gaps."""
    row = [0] * (len(second) + 1)  # row[j]: of what was read of `first` and second[:j]
    for one in first:
        before = 0
        for j, other in enumerate(second, 1):
            before, row[j] = row[j], before + 1 if one == other else max(row[j], row[j - 1])
    return row[-1]


class Bleu:
    """Corpus BLEU-4 (Papineni et al., 2002) of any subset of the texts, 0..100, by sacrebleu."""

    def __init__(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        from sacrebleu.metrics import BLEU

        self._metric = BLEU(lowercase=True, effective_order=True)  # the latter: no warning
        each = [
            self._metric.sentence_score(text, list(known))
            for text, known in zip(texts, references, strict=True)
        ]
        self._counts = np.array(
            [[*one.counts, *one.totals, one.sys_len, one.ref_len] for one in each]
        )  # (N, 10)

    def __call__(self, rows: Any = slice(None)) -> float:
        """BLEU of the texts of some rows together."""
        added = self._counts[rows].sum(axis=0).tolist()
        found = self._metric.compute_bleu(
            added[:4], added[4:8], added[8], added[9], smooth_method="exp"
        )
        return float(found.score)


def figures(items: Sequence[Item], written: Sequence[Written]) -> dict[str, Any]:
    """A system's coverage and scores, with 95 % intervals over the items."""
    columns, bleu, ids = _columns(items, written)
    found: dict[str, Any] = {"items": len(items)}
    for key, values in columns.items():
        found[key] = float(values.mean())
        found[f"{key}_interval"] = list(bootstrap_interval(values, ids))
    found["bleu_4"] = bleu()
    found["bleu_4_interval"] = list(bootstrap_interval([], ids, statistic=bleu))
    return found


def difference(
    items: Sequence[Item], ours: Sequence[Written], theirs: Sequence[Written]
) -> dict[str, list[float]]:
    """Ours minus theirs in every figure: the value and its 95 % interval, paired by item."""
    first, bleu, ids = _columns(items, ours)
    second, other_bleu, _ = _columns(items, theirs)
    found = {}
    for key, values in first.items():
        one = paired_difference(values, second[key], ids, ids)
        found[key] = [one.estimate, one.low, one.high]

    def less(rows: Any) -> float:
        return bleu(rows) - other_bleu(rows)

    ends = bootstrap_interval([], ids, statistic=less, n=N_BOOTSTRAP)
    return {**found, "bleu_4": [less(slice(None)), *ends]}


def _columns(
    items: Sequence[Item], written: Sequence[Written]
) -> tuple[dict[str, Any], Bleu, list[str]]:
    """Each figure of each item, BLEU of subsets, and the items' ids."""
    known = [item.references for item in items]
    columns = {
        "coverage": [one.covered for one in written],
        "mentioned": [one.mentioned for one in written],
        "rouge_l": [rouge_l(one.text, of) for one, of in zip(written, known, strict=True)],
        "log_probability": [one.log_probability for one in written],
        "log_probability_per_token": [one.log_probability / max(one.tokens, 1) for one in written],
        "tokens": [one.tokens for one in written],
    }
    return (
        {key: np.array(values, dtype=float) for key, values in columns.items()},
        Bleu([one.text for one in written], known),
        [item.id for item in items],
    )
