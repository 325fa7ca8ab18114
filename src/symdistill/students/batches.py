"""Rows as tokens, and the order in which a student reads them.

Takes View rows and a tokenizer; gives token rows, the whole order of training, and padded
batches. The order is fixed before training starts and follows from the seed alone, so a training
that goes on from a checkpoint needs to know a position and nothing else.

Rows of like length share a batch: short lines differ a lot in length, and a batch costs its
longest row times its size. Which rows meet still changes from epoch to epoch.

What it does not do: cut rows that are too long (the end of a line is what must be learnt), pack
several rows into one sequence (packing.py does, where rows share a prompt).
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, islice
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from symdistill.errors import InputError
from symdistill.records import View

if TYPE_CHECKING:
    import torch

IGNORED = -100  # the label of a token that is read, not learnt
POOL_BATCHES = 8  # batches are cut from pools of this many, sorted by length


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One training row: tokens read, tokens learnt (`IGNORED` on the prompt), and their weight.

    Rows of one group and the same knowledge are one trace: views of the same rationale.
    """

    input_ids: list[int]
    labels: list[int]
    weight: float  # of each learnt token
    group: str
    knowledge_ids: tuple[str, ...]


def tokenise(
    views: Sequence[View],
    tokenizer: Any,
    max_length_tokens: int,
    loss_per: Literal["token", "row"] = "token",
) -> list[TokenRow]:
    """The rows that take part in training, as tokens: prompt, target, end of text.

    Prompt and target are tokenised apart and joined, because that is the boundary that decoding
    meets: the prompt's tokens are given, the continuation's are written. So the target begins
    with its own space where the tokenizer wants one. Rows of weight 0 take no part.

    Args:
        views: the rows.
        tokenizer: a `transformers` tokenizer with an end-of-text token.
        max_length_tokens: the longest row allowed, end-of-text token counted.
        loss_per: what a view's weight is the weight of. `token`: each token of its target.
            `row`: the mean over them, whatever their number; each gets an equal part. These
            weights come divided by their mean over all rows, so that 1 is a row's usual weight.

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
        rows.append(
            TokenRow(
                input_ids=prompt + target,
                labels=[IGNORED] * len(prompt) + target,
                weight=view.weight,
                group=view.group,
                knowledge_ids=view.knowledge_ids,
            )
        )
    if not rows:
        raise InputError(
            f"expected at least one row with a weight above 0; got {len(views)} rows, none such; "
            "keep more lines, or leave this round out"
        )
    if loss_per == "row":
        usual = fmean(row.weight for row in rows)
        rows = [replace(row, weight=row.weight / usual / _learnt(row)) for row in rows]
    return rows


def _learnt(row: TokenRow) -> int:
    return sum(label != IGNORED for label in row.labels)


def prompt_of(row: Mapping[str, Any]) -> tuple[int, ...]:
    """A row's tokens before the first that is learnt."""
    labels = row["labels"]
    return tuple(row["input_ids"][: next(i for i, label in enumerate(labels) if label != IGNORED)])


def traces_of(rows: Sequence[TokenRow]) -> list[list[list[int]]]:
    """Row numbers by group and, within a group, by trace; both in order of first appearance."""
    groups: dict[str, dict[tuple[str, ...], list[int]]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(row.group, {}).setdefault(row.knowledge_ids, []).append(number)
    return [list(traces.values()) for traces in groups.values()]


def training_order(
    lengths: Sequence[int],
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    traces: Sequence[Sequence[Sequence[int]]] | None = None,
    draws: int = 1,
    together: Sequence[Hashable] | None = None,
    max_tokens: int | None = None,
) -> list[int]:
    """Row numbers in the order they are trained on; without `traces` each comes `epochs` times.

    Consecutive runs of `batch_size` are the batches. In each epoch the rows are shuffled, cut
    into pools of `POOL_BATCHES` batches, sorted by length within a pool, and the batches shuffled.

    Args:
        lengths: each row's tokens.
        epochs: how often all is read.
        batch_size: rows of a batch.
        seed: decides the order.
        traces: row numbers by group and trace, as `traces_of` gives them. An epoch then holds one
            trace of each group, drawn anew each time, with all its rows (SCoTD's released
            configuration, https://arxiv.org/abs/2306.14050), so that a question counts the same
            however many of its rationales were kept.
        draws: of the traces of a group so many different ones are drawn at a visit, or all there
            are. The rows of such a visit share a batch, unless no visits at hand fill it: then
            one is cut.
        together: a label per row; rows of the same label become neighbours. Where several traces
            are drawn, the rows of a visit do.
        max_tokens: the order ends with the batch that reaches this many tokens.
    """
    order: list[int] = []
    draw = random.Random(seed)
    pool_size = batch_size * POOL_BATCHES
    label: Mapping[int, Hashable] | Sequence[Hashable] | None = together
    visit_of: dict[int, int] = {}  # only where visits are of several traces
    if traces is not None and draws > 1:
        label = visit_of = {row: n for n, group in enumerate(traces) for row in chain(*group)}
    for _ in range(epochs):
        rows: Sequence[int] = range(len(lengths))
        if traces is not None:
            rows = [
                row
                for group in traces
                for trace in draw.sample(group, min(draws, len(group)))
                for row in trace
            ]
        shuffled = draw.sample(rows, len(rows))
        size: Mapping[int, int] | Sequence[int] = lengths
        if label is not None:
            shuffled, size = _neighbours(shuffled, label, lengths)
        batches: list[list[int]] = []
        for start in range(0, len(shuffled), pool_size):
            pool = sorted(shuffled[start : start + pool_size], key=size.__getitem__)
            batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
        short = batches.pop() if len(batches[-1]) < batch_size else []
        draw.shuffle(batches)
        batches.append(short)  # last, so that whole batches stay whole
        if visit_of:
            batches = _uncut(batches, visit_of, batch_size, len(order))
        order += chain(*batches)
    if max_tokens is None:
        return order
    read = list(accumulate(lengths[row] for row in order))
    enough = bisect_left(read, max_tokens) + 1  # rows
    return order[: -(-enough // batch_size) * batch_size]


def _neighbours(
    shuffled: Sequence[int],
    label: Mapping[int, Hashable] | Sequence[Hashable],
    lengths: Sequence[int],
) -> tuple[list[int], dict[int, int]]:
    """Rows with those of the same label side by side, and for each the length of all of these."""
    alike: dict[Hashable, list[int]] = {}
    for row in shuffled:
        alike.setdefault(label[row], []).append(row)
    size = {row: sum(lengths[one] for one in rows) for rows in alike.values() for row in rows}
    return [row for rows in alike.values() for row in rows], size


def _uncut(
    batches: Sequence[Sequence[int]], visit_of: Mapping[int, int], batch_size: int, before: int
) -> list[list[int]]:
    """The visits of an epoch, each a list of rows, so that batches cut them as seldom as can be.

    Args:
        batches: the epoch's rows.
        visit_of: the visit that a row belongs to.
        batch_size: rows of a batch.
        before: rows of earlier epochs, which the first batches may hold.
    """
    visits: dict[int, list[int]] = {}
    for row in chain(*batches):
        visits.setdefault(visit_of[row], []).append(row)
    waiting = deque(visits.values())
    order: list[list[int]] = []
    while waiting:
        room = batch_size - before % batch_size
        fill: dict[int, tuple[int, ...]] = {0: ()}  # rows: the first visits with so many together
        for place, visit in enumerate(islice(waiting, batch_size * POOL_BATCHES)):
            more = {rows + len(visit): (*places, place) for rows, places in fill.items()}
            fill = {rows: places for rows, places in (more | fill).items() if rows <= room}
            if room in fill:
                break
        for place in reversed(fill[max(fill)] or (0,)):  # none fits: the next visit is cut
            order.append(waiting[place])
            del waiting[place]
            before += len(order[-1])
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
