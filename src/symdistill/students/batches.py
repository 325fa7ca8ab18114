"""Rows as tokens, and the order in which a student reads them.

Takes View rows and a tokenizer; gives token rows, the whole order of training, and padded
batches. The order is fixed before training starts and follows from the seed alone, so a training
that goes on from a checkpoint needs to know a position and nothing else.

Rows of like length share a batch: short lines differ a lot in length, and a batch costs its
longest row times its size. Which rows meet still changes from epoch to epoch.

What it does not do: cut rows that are too long (the end of a line is what must be learnt), pack
several rows into one sequence (some architectures would let them see each other).
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from symdistill.errors import InputError
from symdistill.records import View

if TYPE_CHECKING:
    import torch

IGNORED = -100  # the label of a token that is read, not learnt
POOL_BATCHES = 8  # batches are cut from pools of this many, sorted by length


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One training row: tokens read, tokens learnt (`IGNORED` on the prompt), and its weight."""

    input_ids: list[int]
    labels: list[int]
    weight: float


def tokenise(views: Sequence[View], tokenizer: Any, max_length_tokens: int) -> list[TokenRow]:
    """The rows that take part in training, as tokens: prompt, target, end of text.

    Prompt and target are tokenised apart and joined, because that is the boundary that decoding
    meets: the prompt's tokens are given, the continuation's are written. So the target begins
    with its own space where the tokenizer wants one. Rows of weight 0 take no part.

    Args:
        views: the rows.
        tokenizer: a `transformers` tokenizer with an end-of-text token.
        max_length_tokens: the longest row allowed, end-of-text token counted.

    Raises:
        InputError: no row takes part; a prompt or target is empty, a weight is negative or not
            a number, a row is too long, or the tokenizer has no end-of-text token.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise InputError(
            "expected a tokenizer with an end-of-text token; this one has none; "
            "set eos_token in the model's tokenizer_config.json"
        )
    rows: list[TokenRow] = []
    for number, view in enumerate(views):
        if not (math.isfinite(view.weight) and view.weight >= 0):
            raise InputError(
                f"expected weights of 0 or more; row {number} has {view.weight}; mend the views"
            )
        if view.weight == 0:
            continue
        prompt = list(tokenizer(view.prompt)["input_ids"])
        target = list(tokenizer(view.target, add_special_tokens=False)["input_ids"])
        if not prompt or not target:
            raise InputError(
                f"expected a prompt and a target with text; row {number} has prompt "
                f"{view.prompt!r} and target {view.target!r}; leave such rows out"
            )
        target.append(end)
        if len(prompt) + len(target) > max_length_tokens:
            raise InputError(
                f"expected rows of at most {max_length_tokens} tokens; row {number} has "
                f"{len(prompt) + len(target)} ({view.target[:40]!r} ...); raise "
                "max_length_tokens or leave such rows out"
            )
        rows.append(TokenRow(prompt + target, [IGNORED] * len(prompt) + target, view.weight))
    if not rows:
        raise InputError(
            f"expected at least one row with a weight above 0; got {len(views)} rows, none such; "
            "keep more lines, or leave this round out"
        )
    return rows


def training_order(lengths: Sequence[int], *, epochs: int, batch_size: int, seed: int) -> list[int]:
    """Row numbers in the order they are trained on; each comes `epochs` times.

    Consecutive runs of `batch_size` are the batches. In each epoch the rows are shuffled, cut
    into pools of `POOL_BATCHES` batches, sorted by length within a pool, and the batches shuffled.
    """
    order: list[int] = []
    draw = random.Random(seed)
    pool_size = batch_size * POOL_BATCHES
    for _ in range(epochs):
        shuffled = draw.sample(range(len(lengths)), len(lengths))
        batches: list[list[int]] = []
        for start in range(0, len(shuffled), pool_size):
            pool = sorted(shuffled[start : start + pool_size], key=lambda row: lengths[row])
            batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
        short = batches.pop() if len(batches[-1]) < batch_size else []
        draw.shuffle(batches)
        order += [row for batch in batches for row in batch]
        order += short  # last, so that whole batches stay whole
    return order


def collate(rows: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, torch.Tensor]:
    """A padded batch: input_ids, attention_mask, labels (B, T) and weights (B,)."""
    import torch

    longest = max(len(row["input_ids"]) for row in rows)

    def padded(name: str, filler: int) -> torch.Tensor:
        return torch.tensor([row[name] + [filler] * (longest - len(row[name])) for row in rows])

    lengths = torch.tensor([[len(row["input_ids"])] for row in rows])  # (B, 1)
    return {
        "input_ids": padded("input_ids", pad_id),
        "attention_mask": (torch.arange(longest)[None] < lengths).long(),
        "labels": padded("labels", IGNORED),
        "weights": torch.tensor([row["weight"] for row in rows], dtype=torch.float32),
    }
