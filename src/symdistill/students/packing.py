"""Rows that share a prompt, read as one sequence: the prompt, then each of its targets.

Takes the token rows of a batch; gives the same batch with each prompt in it once. A target sees
the prompt and itself, at the positions that it would have alone, so scores, loss and gradients
are those of the rows one by one, up to rounding:

    p1 p2 p3 a b                     p1 p2 | p3 a b | p3 c
    p1 p2 p3 c      becomes           0  1 |  2 3 4 |  2 3     (positions)

The prompt's last token is read once per target: the target's first token is scored from it, and
so every label stands right behind the token that scores it, as in any other batch.

Pays where several rationales of a question are learnt, as in symbolic chain-of-thought
distillation (https://arxiv.org/abs/2306.14050); benchmarks/packing.py says how much. Costs a mask
of 4 bytes per pair of tokens of a sequence, and attention over all pairs; so a long block is read
as several, of `LONGEST_BLOCK` tokens.

What it does not do: share prompts that are only alike at the beginning; train models that take no
such mask (state-space models, some kernels of attention): `check_packing` finds those out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from symdistill.errors import InputError
from symdistill.students.batches import IGNORED, collate, prompt_of

if TYPE_CHECKING:
    import torch

LONGEST_BLOCK = 1024  # tokens; a block is longer only where a single row is
ATTENTION_DOUBLES = 4000  # length at which a token costs some twice that of a short sequence
LARGEST_DIFFERENCE = 1e-3  # packed from alone, as a share of the largest score
NO_ROW = -1  # the row of a token of a shared prompt, or of padding

Token = tuple[int, int, int, int]  # row, position, token, label


def collate_packed(rows: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, torch.Tensor]:
    """A batch of R rows in which each prompt is read once.

    Blocks, each a prompt with its targets, share a sequence unseen by each other where that costs
    less than padding does.

    Returns:
        input_ids, position_ids, labels and rows (the row a label is of), each (B, T); weights
        (R,); attention_mask (B, 1, T, T), which attention adds to its scores.
    """
    import torch

    sharing: dict[tuple[int, ...], list[int]] = {}
    for number, row in enumerate(rows):
        sharing.setdefault(prompt_of(row), []).append(number)
    blocks = [block for numbers in sharing.values() for block in _blocks(rows, numbers)]
    sequences = _laid_out(blocks)
    longest = max(map(len, sequences))
    padding = (-1, NO_ROW, 0, pad_id, IGNORED)
    table = torch.tensor([one + [padding] * (longest - len(one)) for one in sequences])
    block_of, row_of, positions, tokens, labels = table.unbind(dim=-1)  # (B, T) each
    same_block = block_of[:, :, None] == block_of[:, None, :]  # (B, T, T): reader, read
    same_row = row_of[:, :, None] == row_of[:, None, :]
    shared = (row_of == NO_ROW)[:, None, :]
    seen = (same_block & (same_row | shared)).tril()
    return {
        "input_ids": tokens,
        "position_ids": positions,
        # Added rather than true and false: the one form that all kinds of attention take.
        "attention_mask": torch.where(seen, 0.0, torch.finfo(torch.float32).min)[:, None],
        "labels": labels,
        "rows": row_of,
        "weights": torch.tensor([row["weight"] for row in rows], dtype=torch.float32),
    }


def check_packing(model: Any, rows: Sequence[Mapping[str, Any]], pad_id: int) -> None:
    """See on a few rows that the model gives packed rows the scores that it gives them alone.

    Raises:
        InputError: it does not.
    """
    import torch

    from symdistill.students.trainer import forward

    def scores(batch: dict[str, torch.Tensor]) -> torch.Tensor:  # (tokens learnt, V), row by row
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        outputs, first = forward(model, batch)
        learnt = batch["labels"][:, first:] != IGNORED
        found: torch.Tensor = outputs.logits[learnt].float()
        if "rows" in batch:
            found = found[batch["rows"][:, first:][learnt].argsort(stable=True)]
        return found

    few = _telling(rows)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            alone = scores(collate(few, pad_id))
            difference = float((scores(collate_packed(few, pad_id)) - alone).abs().max())
        why = f"scores differ by {difference:.2g}"
        sound = difference <= LARGEST_DIFFERENCE * float(alone.abs().max())  # False for NaN
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        why, sound = f"its forward fails: {error}", False
    finally:
        model.train(training)
    if not sound:
        raise InputError(
            "expected a model that reads several targets behind one prompt as it reads them "
            f"alone; got one of type {model.config.model_type}, which does not ({why}); "
            "set pack to none"
        )


def _blocks(rows: Sequence[Mapping[str, Any]], numbers: Sequence[int]) -> list[list[Token]]:
    """Rows of one prompt as tokens; in several blocks where one would be too long."""
    shared = len(prompt_of(rows[numbers[0]])) - 1
    prompt = rows[numbers[0]]["input_ids"][:shared]
    blocks: list[list[Token]] = []
    for number in numbers:
        tokens, labels = rows[number]["input_ids"], rows[number]["labels"]
        own = [
            (number, place, tokens[place], labels[place]) for place in range(shared, len(tokens))
        ]
        if not blocks or len(blocks[-1]) + len(own) > LONGEST_BLOCK:
            blocks.append([(NO_ROW, place, token, IGNORED) for place, token in enumerate(prompt)])
        blocks[-1] += own
    return blocks


def _laid_out(blocks: Sequence[Sequence[Token]]) -> list[list[tuple[int, ...]]]:
    """The blocks in sequences, (block, *token) each, so that padding and attention cost least."""
    cheapest: tuple[float, list[list[tuple[int, ...]]]] = (float("inf"), [])
    for count in range(1, len(blocks) + 1):
        sequences: list[list[tuple[int, ...]]] = [[] for _ in range(count)]
        for number, block in enumerate(sorted(blocks, key=len, reverse=True)):
            min(sequences, key=len).extend((number, *token) for token in block)
        longest = max(map(len, sequences))
        cost = count * longest * (1 + longest / ATTENTION_DOUBLES)
        cheapest = min(cheapest, (cost, sequences), key=itemgetter(0))
    return cheapest[1]


def _telling(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows to check with: three of one prompt, the longest such, and the row that is shortest."""
    sharing: dict[tuple[int, ...], list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: len(row["input_ids"]), reverse=True):
        sharing.setdefault(prompt_of(row), []).append(row)
    several = next((alike for alike in sharing.values() if len(alike) > 1), [])
    shortest = next(reversed(sharing.values()))[-1]
    return [*several[:3], shortest]
