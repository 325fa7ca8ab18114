"""From a folder to a transformer, and from texts to the batches that it reads.

Takes the folder of an encoder or of a small causal model; gives the bare model (no head) with its
tokenizer. Takes texts, or pairs of texts; gives batches whose shapes depend on neither their order
nor their number, so that a line's hidden states do not either. A pair is written as the tokenizer
writes pairs; a tokenizer that knows none gets a line break between the two.

Models lie on the GPU where there is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from symdistill.errors import InputError

if TYPE_CHECKING:
    import torch

BUCKET = 8  # padded lengths are multiples of this, so that a batch has one of a few shapes
SCORE_BATCH = 32

Text = str | tuple[str, str]
"""What is judged: one text, or two read together (question and answer, premise and hypothesis)."""

Tokens = dict[str, list[int]]
"""One text as a tokenizer gives it: `input_ids` and, of a pair, perhaps `token_type_ids`."""


def open_model(folder: Path, *, what: str = "a transformers encoder") -> tuple[Any, Any]:
    """The model and its tokenizer, in float32, ready to read.

    Raises:
        InputError: no such folder, or not one with safetensors weights and a tokenizer.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    if not folder.is_dir():
        raise InputError(f"{folder}: expected the folder of {what}; no such folder")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError) as problem:
        raise InputError(
            f"{folder}: expected {what} with safetensors weights and a tokenizer: {problem}"
        ) from problem
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer


def tokenise(tokenizer: Any, texts: Sequence[Text], max_length: int) -> list[Tokens]:
    """The tokens of every text; of a pair too long, the longer part is cut.

    Raises:
        InputError: some are pairs and some are not.
    """
    if not len(texts):
        return []
    first = [text for text in texts if isinstance(text, str)]
    if len(first) not in (0, len(texts)):
        raise InputError("expected texts or pairs of texts; got both; give one kind")
    if first:
        ids = tokenizer(first, truncation=True, max_length=max_length)["input_ids"]
        return [{"input_ids": one} for one in ids]
    left, right = ([text[i] for text in texts] for i in (0, 1))
    if tokenizer.sep_token_id is None:
        joined = [f"{a}\n{b}" for a, b in zip(left, right, strict=True)]
        return tokenise(tokenizer, joined, max_length)
    read = tokenizer(left, right, truncation=True, max_length=max_length)
    names = [name for name in ("input_ids", "token_type_ids") if name in read]
    return [{name: read[name][i] for name in names} for i in range(len(texts))]


def fixed_batches(
    tokenizer: Any, texts: Sequence[Text], max_length: int, batch_size: int
) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    """Batches whose shape does not depend on the order of the texts, nor on how many there are.

    Lines are sorted by padded length (a multiple of 8) and content; each batch holds lines of
    one padded length and is filled up to `batch_size` by repeating its first line.

    Yields:
        rows: the line numbers of the batch, at most `batch_size`.
        inputs: what the model takes, each (batch_size, T), padded on the right.
    """
    tokens = tokenise(tokenizer, texts, max_length)
    lengths = [max(BUCKET, math.ceil(len(t["input_ids"]) / BUCKET) * BUCKET) for t in tokens]
    order = sorted(range(len(texts)), key=lambda i: (lengths[i], tokens[i]["input_ids"]))
    start = 0
    while start < len(order):
        width = lengths[order[start]]
        end = start
        while end < len(order) and end - start < batch_size and lengths[order[end]] == width:
            end += 1
        rows = order[start:end]
        start = end
        filled = rows + [rows[0]] * (batch_size - len(rows))
        yield rows, padded([tokens[i] for i in filled], width, int(tokenizer.pad_token_id))


def padded(tokens: Sequence[Tokens], width: int, pad_id: int) -> dict[str, torch.Tensor]:
    """One batch, (B, width) each: ids, types where there are any, and the mask of what is there."""
    import torch

    fill = {"input_ids": pad_id, "token_type_ids": 0}
    inputs = {
        name: torch.tensor([[*t[name], *[fill[name]] * (width - len(t[name]))] for t in tokens])
        for name in tokens[0]
    }
    lengths = torch.tensor([len(t["input_ids"]) for t in tokens])
    inputs["attention_mask"] = (torch.arange(width) < lengths[:, None]).long()
    return inputs


def pooled(model: Any, inputs: dict[str, torch.Tensor], *, last: bool = False) -> torch.Tensor:
    """One vector a text, (B, T) -> (B, H), from the last hidden states.

    Their mean over the tokens that are there; with `last`, the state of the last of them, which
    is the only one of a causal model that has read the whole text.
    """
    import torch

    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    mask = inputs["attention_mask"]
    hidden: torch.Tensor = model(**inputs).last_hidden_state
    if last:
        return hidden[torch.arange(len(mask)), mask.sum(1) - 1]
    keep = mask.unsqueeze(-1).to(hidden.dtype)  # (B, T, 1)
    return (hidden * keep).sum(1) / keep.sum(1).clamp(min=1.0)


def logits(
    model: Any,
    head: torch.nn.Linear,
    tokenizer: Any,
    texts: Sequence[Text],
    features: NDArray[np.float32],
    max_length: int,
    *,
    last: bool = False,
    advance: Callable[[int], None] | None = None,
) -> NDArray[np.float64]:
    """(N,) logits of the texts, in their order, without dropout.

    Args:
        features: (N, F), standardised as in training.
        advance: told how many more lines are done.
    """
    import torch

    out = np.zeros(len(texts), dtype=np.float64)
    with torch.inference_mode():
        for rows, inputs in fixed_batches(tokenizer, texts, max_length, SCORE_BATCH):
            beside = np.zeros((SCORE_BATCH, features.shape[1]), dtype=np.float32)
            beside[: len(rows)] = features[rows]
            vector = pooled(model, inputs, last=last)  # (B, H)
            vector = torch.cat([vector, torch.from_numpy(beside).to(vector.device)], dim=1)
            out[rows] = head(vector).squeeze(1)[: len(rows)].double().cpu().numpy()
            if advance is not None:
                advance(len(rows))
    return out


def reads_forward(model: Any) -> bool:
    """Whether a token's state ignores what comes after it: tried, since no configuration says."""
    import torch

    ids = torch.tensor([[1, 2, 3], [1, 2, 4]], device=model.device)
    with torch.inference_mode():
        hidden = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    return bool(torch.allclose(hidden[0, :2], hidden[1, :2], rtol=0, atol=1e-6))
