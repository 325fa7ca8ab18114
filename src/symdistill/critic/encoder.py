"""The critic: a small encoder, fine-tuned to tell valid statements from invalid ones.

Takes statements, optional numeric features a line (the teacher's log-likelihood, mean and sum),
their labels and their concepts; gives a score in 0..1 a line, an estimate of P(valid).

    hidden states of the encoder -> mean over the attention mask -> with the standardised
    features -> dropout -> linear -> logit -> Platt scaling on the calibration split

It follows the critics of I2D2 (a fine-tuned RoBERTa-large) and of Symbolic Knowledge
Distillation (the same, log-odds initial bias, warm-up, early stopping) at a hundredth of their
size, with three differences: padding is masked (the second's code attends to it), "no judgement"
is not trained on as invalid, and the held-out part that stops the training is split by concept.

Costs, for all-MiniLM-L6-v2 on 2 CPU cores: about 115-160 statements/s trained in full, more
with `trainable="top"`, about 590/s scored; 90 MB a saved critic.

It does not read the prompt apart from the line, does not explain itself, and knows nothing of
lines unlike its labels: see `cut.estimate_precision` for what its scores may be used to claim.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from symdistill.config import Count, Settings
from symdistill.critic.calibration import PlattScaling, fit_platt
from symdistill.errors import InputError
from symdistill.records import ID_LENGTH, canonical_json

if TYPE_CHECKING:
    import torch

S = TypeVar("S", bound=Settings)

BUCKET = 8  # padded lengths are multiples of this, so that a batch has one of a few shapes
SCORE_BATCH = 32


class Calibration(NamedTuple):
    """Lines kept out of training, on which logits are turned into probabilities."""

    texts: Sequence[str]
    features: NDArray[np.floating] | None  # (N, F)
    valid: NDArray[np.bool_]  # (N,), "unsure" as False


class EncoderSettings(Settings):
    """How a critic is trained."""

    epochs: Annotated[Count, Field(ge=1)] = 3
    """How often each labelled line is read, at most; the best epoch is kept."""

    batch_size: Annotated[Count, Field(ge=1)] = 32
    """Lines per step."""

    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    """Of the encoder, at the end of the warm-up."""

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

    trainable: Literal["full", "top"] = "full"
    """`top` trains the upper layers only, in about half the time."""

    top_layers: Annotated[Count, Field(ge=1)] = 3
    """How many layers are trained with `trainable: top`."""

    balanced: bool = True
    """Classes weigh the same, however many lines each has."""

    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.12
    """Share of the training concepts that decides which epoch is kept."""

    patience: Annotated[Count, Field(ge=1)] = 2
    """Epochs without a better AUC on them before training stops."""


class EncoderCritic:
    """A trained critic. Make one with `fit` or `load`."""

    def __init__(
        self,
        encoder: torch.nn.Module,
        tokenizer: Any,
        head: torch.nn.Linear,
        *,
        settings: EncoderSettings,
        feature_mean: NDArray[np.float64],
        feature_scale: NDArray[np.float64],
        scaling: PlattScaling,
        history: Sequence[dict[str, float]] = (),
    ) -> None:
        self.encoder = encoder.eval()
        self.tokenizer = tokenizer
        self.head = head.eval()
        self.settings = settings
        self.feature_mean = feature_mean  # (F,)
        self.feature_scale = feature_scale  # (F,)
        self.scaling = scaling
        self.history = list(history)  # one entry an epoch: loss; AUC and loss, held-out concepts
        self.version = self._fingerprint()

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        features: NDArray[np.floating] | None,
        labels: Sequence[bool] | NDArray[np.bool_],
        groups: Sequence[Hashable],
        *,
        encoder: Path,
        calibration: Calibration | None = None,
        settings: EncoderSettings | None = None,
        seed: int = 0,
        **changes: Any,
    ) -> EncoderCritic:
        """Fine-tune an encoder on labelled statements.

        The same inputs, seed, versions and thread count give the same critic, byte for byte.

        Args:
            texts: N statements.
            features: (N, F) numbers a statement, finite; None for none.
            labels: (N,) True for valid. Leave "unsure" lines out.
            groups: (N,) concepts: those held out to choose the epoch are whole.
            encoder: folder of a transformers encoder with safetensors weights.
            calibration: lines of other concepts; without them logits are only squashed, and
                scores order lines but are no probabilities.
            settings: how to train; `changes` replaces single fields of it (`epochs=3`).

        Raises:
            InputError: one class only, shapes that differ, values that are not finite, or an
                encoder folder that does not open.
        """
        chosen = changed(settings or EncoderSettings(), changes)
        y = np.asarray(labels, dtype=bool)
        x = feature_matrix(features, len(texts))
        if not len(texts) == len(y) == len(groups):
            raise InputError(
                f"expected texts, labels and concepts of one length, got {len(texts)}, {len(y)} "
                f"and {len(groups)}"
            )
        if y.all() or not y.any():
            raise InputError("expected valid and invalid statements to train on, got one class")
        mean, scale = standardisation(x)
        body, tokenizer = _open(encoder)
        critic = _train(cls, body, tokenizer, list(texts), x, y, groups, mean, scale, chosen, seed)
        if calibration is not None:
            logits = critic.logits(calibration.texts, calibration.features)
            critic.scaling = fit_platt(logits, np.asarray(calibration.valid, dtype=bool))
            critic.version = critic._fingerprint()
        return critic

    def score(
        self, texts: Sequence[str], features: NDArray[np.floating] | None = None
    ) -> NDArray[np.float64]:
        """(N,) estimates of P(valid), 0..1, in the order of the texts.

        Batches are cut by length and content, never by the order given, and always have the
        same shapes: the same lines get the same scores in any order.
        """
        return self.scaling(self.logits(texts, features))

    def logits(
        self, texts: Sequence[str], features: NDArray[np.floating] | None = None
    ) -> NDArray[np.float64]:
        """(N,) logits before scaling."""
        import torch

        x = feature_matrix(features, len(texts))
        if x.shape[1] != len(self.feature_mean):
            raise InputError(
                f"expected {len(self.feature_mean)} features a line, as in training, "
                f"got {x.shape[1]}"
            )
        x = ((x - self.feature_mean) / self.feature_scale).astype(np.float32)
        out = np.zeros(len(texts), dtype=np.float64)
        with torch.inference_mode():
            for rows, ids, mask in fixed_batches(
                self.tokenizer, texts, self.settings.max_length, SCORE_BATCH
            ):
                filled = np.zeros((SCORE_BATCH, x.shape[1]), dtype=np.float32)
                filled[: len(rows)] = x[rows]
                logit = self._forward(ids, mask, torch.from_numpy(filled))
                out[rows] = logit[: len(rows)].double().numpy()
        return out

    def save(self, folder: Path) -> None:
        """Write the critic: `encoder/` (a plain transformers folder), head.safetensors, JSON."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        self.encoder.save_pretrained(folder / "encoder")  # type: ignore[operator]
        self.tokenizer.save_pretrained(folder / "encoder")
        save_file(dict(self.head.state_dict()), folder / "head.safetensors")
        about = {"kind": "encoder critic", "version": self.version, **self._about()}
        about["history"] = self.history
        (folder / "critic.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> EncoderCritic:
        """The critic that `save` wrote.

        Raises:
            InputError: files are missing, or are not those the version was computed from.
        """
        import torch
        from safetensors.torch import load_file

        try:
            about = json.loads((folder / "critic.json").read_text(encoding="utf-8"))
            weights = load_file(folder / "head.safetensors")
        except (OSError, ValueError) as problem:
            raise InputError(f"{folder}: expected a saved critic: {problem}") from problem
        encoder, tokenizer = _open(folder / "encoder")
        head = torch.nn.Linear(weights["weight"].shape[1], 1)
        head.load_state_dict(weights)
        critic = cls(
            encoder,
            tokenizer,
            head,
            settings=EncoderSettings(**about["settings"]),
            feature_mean=np.array(about["feature_mean"], dtype=np.float64),
            feature_scale=np.array(about["feature_scale"], dtype=np.float64),
            scaling=PlattScaling(**about["scaling"]),
            history=about["history"],
        )
        if critic.version != about["version"]:
            raise InputError(
                f"{folder}: expected the critic of version {about['version']}, the files give "
                f"{critic.version}: they were changed after saving; train it again"
            )
        return critic

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor, features: torch.Tensor
    ) -> torch.Tensor:
        """ids, mask (B, T), features (B, F) -> logits (B,), without dropout."""
        import torch

        vector = torch.cat([pooled(self.encoder, ids, mask), features], dim=1)  # (B, H + F)
        logit: torch.Tensor = self.head(vector)
        return logit.squeeze(1)

    def _about(self) -> dict[str, Any]:
        return {
            "settings": self.settings.model_dump(),
            "feature_mean": self.feature_mean.tolist(),
            "feature_scale": self.feature_scale.tolist(),
            "scaling": asdict(self.scaling),
        }

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(canonical_json(self._about()).encode())
        for part in (self.encoder, self.head):
            for name, tensor in sorted(part.state_dict().items()):
                digest.update(name.encode())
                digest.update(tensor.detach().contiguous().cpu().numpy().tobytes())
        return digest.hexdigest()[:ID_LENGTH]


def pooled(encoder: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of the last hidden states over the tokens that are there: (B, T) -> (B, H)."""
    hidden: torch.Tensor = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    keep = mask.unsqueeze(-1).to(hidden.dtype)  # (B, T, 1)
    return (hidden * keep).sum(1) / keep.sum(1).clamp(min=1.0)


def fixed_batches(
    tokenizer: Any, texts: Sequence[str], max_length: int, batch_size: int
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Batches whose shape does not depend on the order of the texts, nor on how many there are.

    Lines are sorted by padded length (a multiple of 8) and content; each batch holds lines of
    one padded length and is filled up to `batch_size` by repeating its first line.

    Yields:
        rows: the line numbers of the batch, at most `batch_size`.
        ids, mask: (batch_size, T), padded on the right.
    """
    import torch

    if not len(texts):
        return
    tokens = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
    lengths = [max(BUCKET, math.ceil(len(t) / BUCKET) * BUCKET) for t in tokens]
    order = sorted(range(len(texts)), key=lambda i: (lengths[i], tokens[i]))
    start = 0
    while start < len(order):
        width = lengths[order[start]]
        end = start
        while end < len(order) and end - start < batch_size and lengths[order[end]] == width:
            end += 1
        rows = order[start:end]
        start = end
        ids = torch.full((batch_size, width), int(tokenizer.pad_token_id), dtype=torch.long)
        mask = torch.zeros((batch_size, width), dtype=torch.long)
        for b, row in enumerate(rows + [rows[0]] * (batch_size - len(rows))):
            ids[b, : len(tokens[row])] = torch.tensor(tokens[row], dtype=torch.long)
            mask[b, : len(tokens[row])] = 1
        yield rows, ids, mask


def changed(settings: S, changes: Mapping[str, Any]) -> S:
    """The settings with some fields replaced, checked as if written so."""
    return type(settings).model_validate({**settings.model_dump(), **changes})


def feature_matrix(features: NDArray[np.floating] | None, n: int) -> NDArray[np.float64]:
    """The features as a finite (N, F) array; F is 0 where there are none."""
    if features is None:
        return np.zeros((n, 0))
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or len(x) != n or not np.isfinite(x).all():
        raise InputError(f"expected finite features of shape ({n}, F), got shape {x.shape}")
    return x


def standardisation(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and scale (F,) that bring every column to mean 0 and variance 1 (constant: to 0)."""
    scale = x.std(axis=0)
    return x.mean(axis=0), np.where(scale > 1e-9, scale, 1.0)


def _train(
    cls: type[EncoderCritic],
    encoder: torch.nn.Module,
    tokenizer: Any,
    texts: list[str],
    x: NDArray[np.float64],
    y: NDArray[np.bool_],
    groups: Sequence[Hashable],
    mean: NDArray[np.float64],
    scale: NDArray[np.float64],
    settings: EncoderSettings,
    seed: int,
) -> EncoderCritic:
    import torch
    from sklearn.metrics import roc_auc_score
    from torch.nn import functional

    rng = np.random.default_rng(seed)
    train, held = _hold_out(y, groups, settings.held_out, rng)
    n_valid = int(y[train].sum())
    weight = (len(train) - n_valid) / n_valid if settings.balanced else 1.0  # of a valid line
    features = torch.from_numpy(((x - mean) / scale).astype(np.float32))
    target = torch.from_numpy(y.astype(np.float32))
    tokens = tokenizer(texts, truncation=True, max_length=settings.max_length)["input_ids"]
    history: list[dict[str, float]] = []

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = torch.nn.Linear(int(encoder.config.hidden_size) + x.shape[1], 1)  # type: ignore
        # the log-odds of a valid line as the loss weighs it: 0 when the classes are balanced
        torch.nn.init.constant_(head.bias, math.log(weight * n_valid / (len(train) - n_valid)))
        torch.nn.init.normal_(head.weight, std=0.02)
        body = _trained_parameters(encoder, settings)
        optimizer = torch.optim.AdamW(
            [
                {"params": body, "lr": settings.learning_rate},
                {"params": list(head.parameters()), "lr": settings.head_learning_rate},
            ],
            weight_decay=settings.weight_decay,
            fused=True,
        )
        steps = settings.epochs * math.ceil(len(train) / settings.batch_size)
        warm = max(1, round(settings.warmup * steps))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda i: min((i + 1) / warm, max(0.0, (steps - i) / max(1, steps - warm)))
        )
        critic = cls(
            encoder,
            tokenizer,
            head,
            settings=settings,
            feature_mean=mean,
            feature_scale=scale,
            scaling=PlattScaling(1.0, 0.0),
        )
        best: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] | None = None
        best_is = (-math.inf, -math.inf)  # AUC; of equals, the smaller loss
        since_best = 0
        for _ in range(settings.epochs):
            encoder.train()
            total = 0.0
            for rows in _training_batches(train, tokens, settings.batch_size, rng):
                ids, mask = _pad([tokens[i] for i in rows], int(tokenizer.pad_token_id))
                vector = torch.cat([pooled(encoder, ids, mask), features[rows]], dim=1)
                vector = functional.dropout(vector, settings.dropout)
                loss = functional.binary_cross_entropy_with_logits(
                    head(vector).squeeze(1), target[rows], pos_weight=torch.tensor(weight)
                )
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_([*body, *head.parameters()], 1.0)
                optimizer.step()
                schedule.step()
                total += float(loss.detach()) * len(rows)
            encoder.eval()
            entry = {"loss": total / len(train)}
            if len(held):
                logits = critic.logits([texts[i] for i in held], x[held])
                margin = np.where(y[held], logits, -logits)
                entry["held_out_auc"] = float(roc_auc_score(y[held], logits))
                entry["held_out_loss"] = float(np.logaddexp(0.0, -margin).mean())
            history.append(entry)
            if not len(held):
                continue
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
    return cls(
        encoder,
        tokenizer,
        head,
        settings=settings,
        feature_mean=mean,
        feature_scale=scale,
        scaling=PlattScaling(1.0, -math.log(weight)),  # takes the class weights out again
        history=history,
    )


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
    rows: Sequence[int], tokens: Sequence[Sequence[int]], size: int, rng: np.random.Generator
) -> list[list[int]]:
    """All rows once, in batches of like lengths (less padding), the batches in random order."""
    shuffled = [rows[i] for i in rng.permutation(len(rows))]
    pool = size * 8
    batches = []
    for start in range(0, len(shuffled), pool):
        part = sorted(shuffled[start : start + pool], key=lambda i: len(tokens[i]))
        batches += [part[b : b + size] for b in range(0, len(part), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def _pad(tokens: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    width = max(len(t) for t in tokens)
    ids = torch.tensor([[*t, *[pad_id] * (width - len(t))] for t in tokens])
    mask = torch.tensor([[1] * len(t) + [0] * (width - len(t)) for t in tokens])
    return ids, mask


def _trained_parameters(
    encoder: torch.nn.Module, settings: EncoderSettings
) -> list[torch.nn.Parameter]:
    """What the optimiser may change; everything else is frozen.

    The table of word embeddings is never trained: it is half of a small encoder's weights, a few
    thousand statements touch a tenth of it, and leaving it halves the time of a step. A pooler
    is never used.
    """
    import torch

    layers = None
    if settings.trainable == "top":
        count = int(encoder.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
        stacks = [
            m for m in encoder.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count
        ]
        if not stacks:
            raise InputError(
                f"expected an encoder with one list of {count} layers for trainable='top', found "
                "none; use trainable='full'"
            )
        layers = list(stacks[0])[-settings.top_layers :]
    table = encoder.get_input_embeddings().weight  # type: ignore[operator]
    for name, parameter in encoder.named_parameters():
        idle = name.startswith("pooler.") or parameter is table
        parameter.requires_grad_(layers is None and not idle)
    for layer in layers or []:
        layer.requires_grad_(True)
    return [p for p in encoder.parameters() if p.requires_grad]


def _copy(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _open(folder: Path) -> tuple[torch.nn.Module, Any]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    if not folder.is_dir():
        raise InputError(f"{folder}: expected the folder of a transformers encoder; no such folder")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        encoder = AutoModel.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError) as problem:
        raise InputError(
            f"{folder}: expected a transformers encoder with safetensors weights and a "
            f"tokenizer: {problem}"
        ) from problem
    return encoder, tokenizer
