"""Fine-tuning an encoder, with one linear layer on top, to tell valid texts from invalid ones.

Takes an opened model, texts or pairs, standardised numbers beside them, labels and groups; gives
the trained model and layer, and what every epoch came to. AdamW, a linear warm-up and decay, and
batches of like lengths; part of the groups is held out, and the epoch that ranks their lines best
is the one that is kept. Nothing here turns logits into probabilities.

The same inputs, seed, versions and thread count give the same weights, byte for byte.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from symdistill.config import Count, Settings
from symdistill.critic.reading import Text, Tokens, logits, padded, pooled, tokenise
from symdistill.errors import InputError

if TYPE_CHECKING:
    import torch


class EncoderSettings(Settings):
    """How a critic is trained."""

    epochs: Annotated[Count, Field(ge=1)] = 3
    """How often each labelled line is read, at most; the best epoch is kept."""

    batch_size: Annotated[Count, Field(ge=1)] = 32
    """Lines per step."""

    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    """Of the encoder, at the end of the warm-up. Fits all-MiniLM-L6-v2 trained in full; see
    `usual_learning_rate` for others."""

    head_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Of the linear layer on top."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's weight decay."""

    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps in which the learning rates rise."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Before the linear layer."""

    max_length: Annotated[Count, Field(ge=4)] = 64
    """Longest line in tokens; the rest of a longer one is not read."""

    trainable: Literal["full", "top", "lora"] = "full"
    """`top` trains the upper layers only, in about half the time; `lora` trains small matrices
    beside every linear layer (LoRA), which takes less memory, and merges them in the end."""

    top_layers: Annotated[Count, Field(ge=1)] = 3
    """How many layers are trained with `trainable: top`."""

    lora_rank: Annotated[Count, Field(ge=1)] = 16
    """Rank of the matrices with `trainable: lora`; their scale is 2."""

    balanced: bool = True
    """Classes weigh the same, however many lines each has."""

    weigh_numbers: bool = False
    """The numbers beside a text are weighed against it on the calibration lines, from which the
    encoder has learnt nothing; else they weigh what training left them, which is often little."""

    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.12
    """Share of the training concepts that decides which epoch is kept."""

    patience: Annotated[Count, Field(ge=1)] = 2
    """Epochs without a better AUC on them before training stops."""


class Trained(NamedTuple):
    """What training gives."""

    encoder: Any  # a plain model, whatever was trained of it
    head: torch.nn.Linear
    valid_weight: float  # of a valid line in the loss; an invalid one weighs 1
    history: list[dict[str, float]]  # one entry an epoch: loss; AUC and loss, held-out concepts


def usual_learning_rate(width: int, trainable: str) -> float:
    """A learning rate to begin with, for hidden states of `width` numbers.

    The default for all-MiniLM-L6-v2 (384 wide), falling with the square of the width as the rates
    do at which encoders are usually fine-tuned; LoRA takes more, whatever the width.
    """
    return 1e-3 if trainable == "lora" else 2e-4 * min(1.0, (384 / width) ** 2)


def train(
    encoder: Any,
    tokenizer: Any,
    texts: Sequence[Text],
    features: NDArray[np.float32],
    valid: NDArray[np.bool_],
    groups: Sequence[Hashable],
    settings: EncoderSettings,
    seed: int,
    *,
    last: bool = False,
) -> Trained:
    """Fine-tune `encoder` (it is changed) and a new linear layer.

    Args:
        encoder, tokenizer: as opened; texts, or pairs, of one kind.
        features: (N, F), standardised; valid: (N,) with both classes; groups: (N,).
        last: read the last token's state in place of the mean (see `reading.pooled`).
    """
    import torch
    from sklearn.metrics import roc_auc_score
    from torch.nn import functional

    rng = np.random.default_rng(seed)
    rows_train, held = _hold_out(valid, groups, settings.held_out, rng)
    n_valid = int(valid[rows_train].sum())
    n_invalid = len(rows_train) - n_valid
    weight = n_invalid / n_valid if settings.balanced else 1.0
    device = encoder.device
    beside = torch.from_numpy(features).to(device)
    target = torch.from_numpy(valid.astype(np.float32)).to(device)
    tokens = tokenise(tokenizer, texts, settings.max_length)
    history: list[dict[str, float]] = []

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = torch.nn.Linear(int(encoder.config.hidden_size) + features.shape[1], 1)
        # the log-odds of a valid line as the loss weighs it: 0 when the classes are balanced
        torch.nn.init.constant_(head.bias, math.log(weight * n_valid / n_invalid))
        torch.nn.init.normal_(head.weight, std=0.02)
        head.to(device)
        encoder, body = _trained_parameters(encoder, settings)
        optimizer = torch.optim.AdamW(
            [
                {"params": body, "lr": settings.learning_rate},
                {"params": list(head.parameters()), "lr": settings.head_learning_rate},
            ],
            weight_decay=settings.weight_decay,
            fused=True,
        )
        steps = settings.epochs * math.ceil(len(rows_train) / settings.batch_size)
        warm = max(1, round(settings.warmup * steps))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda i: min((i + 1) / warm, max(0.0, (steps - i) / max(1, steps - warm)))
        )
        best: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] | None = None
        best_is = (-math.inf, -math.inf)  # AUC; of equals, the smaller loss
        since_best = 0
        for _ in range(settings.epochs):
            encoder.train()
            total = 0.0
            for rows in _training_batches(rows_train, tokens, settings.batch_size, rng):
                width = max(len(tokens[i]["input_ids"]) for i in rows)
                inputs = padded([tokens[i] for i in rows], width, int(tokenizer.pad_token_id))
                vector = torch.cat([pooled(encoder, inputs, last=last), beside[rows]], dim=1)
                vector = functional.dropout(vector, settings.dropout)
                loss = functional.binary_cross_entropy_with_logits(
                    head(vector).squeeze(1),
                    target[rows],
                    pos_weight=torch.tensor(weight, device=device),
                )
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_([*body, *head.parameters()], 1.0)
                optimizer.step()
                schedule.step()
                total += float(loss.detach()) * len(rows)
            encoder.eval()
            entry = {"loss": total / len(rows_train)}
            history.append(entry)
            if not held:
                continue
            found = logits(
                encoder, head, tokenizer, [texts[i] for i in held], features[held],
                settings.max_length, last=last,
            )  # fmt: skip
            margin = np.where(valid[held], found, -found)
            entry["held_out_auc"] = float(roc_auc_score(valid[held], found))
            entry["held_out_loss"] = float(np.logaddexp(0.0, -margin).mean())
            this_is = (entry["held_out_auc"], -entry["held_out_loss"])
            if this_is > best_is:
                best_is, best, since_best = this_is, (_copy(encoder), _copy(head)), 0
            else:
                since_best += 1
                if since_best >= settings.patience:
                    break
        if best is not None:
            encoder.load_state_dict(best[0])
            head.load_state_dict(best[1])
    if settings.trainable == "lora":
        encoder = encoder.merge_and_unload()
    return Trained(encoder, head, weight, history)


def _hold_out(
    y: NDArray[np.bool_], groups: Sequence[Hashable], share: float, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Lines to train on, and lines of whole other concepts to choose the epoch by.

    Nothing is held out where that would leave either side with one class; `history` then has
    no held-out AUC, and the last epoch is kept.
    """
    names = list(dict.fromkeys(groups))
    n = round(share * len(names))
    chosen = {names[i] for i in rng.permutation(len(names))[:n]}
    held = [i for i, group in enumerate(groups) if group in chosen]
    train = [i for i, group in enumerate(groups) if group not in chosen]
    if len(set(y[held].tolist())) < 2 or len(set(y[train].tolist())) < 2:
        return list(range(len(y))), []
    return train, held


def _training_batches(
    rows: Sequence[int], tokens: Sequence[Tokens], size: int, rng: np.random.Generator
) -> list[list[int]]:
    """All rows once, in batches of like lengths (less padding), the batches in random order."""
    shuffled = [rows[i] for i in rng.permutation(len(rows))]
    pool = size * 8
    batches = []
    for start in range(0, len(shuffled), pool):
        part = sorted(shuffled[start : start + pool], key=lambda i: len(tokens[i]["input_ids"]))
        batches += [part[b : b + size] for b in range(0, len(part), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def _trained_parameters(
    encoder: Any, settings: EncoderSettings
) -> tuple[Any, list[torch.nn.Parameter]]:
    """The model to train, and what the optimiser may change of it; everything else is frozen.

    The table of word embeddings is never trained: it is half of a small encoder's weights, a few
    thousand statements touch a tenth of it, and leaving it halves the time of a step. A pooler
    is never used.
    """
    import torch

    layers = None
    if settings.trainable == "top":
        count = int(encoder.config.num_hidden_layers)
        stacks = [
            m for m in encoder.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count
        ]
        if not stacks:
            raise InputError(
                f"expected an encoder with one list of {count} layers for trainable='top', found "
                "none; use trainable='full'"
            )
        layers = list(stacks[0])[-settings.top_layers :]
    if settings.trainable == "lora":
        from peft import LoraConfig, get_peft_model

        rank = settings.lora_rank
        encoder = get_peft_model(
            encoder, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
        )
    else:
        table = encoder.get_input_embeddings().weight
        for name, parameter in encoder.named_parameters():
            idle = name.startswith("pooler.") or parameter is table
            parameter.requires_grad_(layers is None and not idle)
        for layer in layers or []:
            layer.requires_grad_(True)
    return encoder, [p for p in encoder.parameters() if p.requires_grad]


def _copy(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
