"""The independent judge: what a frozen language model's middle layers know of validity.

Takes labelled statements of its own (the "judge" split, other concepts and other labels than
the critic's); gives a score in 0..1 a line, like the critic, from another architecture.

    hidden states of a causal language model, layers at 0.4 and 0.6 of its depth
    -> mean over the tokens, and the last token, of each -> standardised
    -> regularised logistic regression -> Platt scaling

Why it exists: a loop that trains on what its critic accepts learns to please the critic. The
judge never takes part in selection; when the critic's accept rate rises and the judge's does
not, the loop is learning the critic's mistakes.

Why this form: on 1,000 human-labelled pairs of sensible and senseless sentences, layers near the
middle rank held-out pairs far better than the last ones, and two layers better than one; nothing
is fine-tuned, so training costs one forward pass a line (about 10 ms a short line for
SmolLM2-135M on 2 CPU cores) and a few seconds of regression.

What it does not do: it is only as independent as its language model and labels. If it reads the
hidden states of the very model that writes the lines (the untouched one, never a student), it
shares that model's gaps in knowledge, though not the critic's training or labels. Its accept
rates are the judge's, not the truth's: read them with its AUC.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from symdistill.config import Count, Settings
from symdistill.critic.calibration import PlattScaling, fit_platt
from symdistill.critic.fitted import (
    Calibration,
    changed,
    checked_labels,
    expect_features,
    expect_version,
    feature_matrix,
    read_about,
    read_arrays,
    standardisation,
    write_about,
)
from symdistill.critic.reading import Text, fixed_batches, open_model
from symdistill.errors import InputError
from symdistill.models import fingerprint
from symdistill.records import ID_LENGTH, canonical_json

BATCH = 32


class JudgeSettings(Settings):
    """How a judge reads and learns."""

    depths: tuple[float, ...] = (0.4, 0.6)
    """Layers to read, as shares of the model's depth."""

    strengths: tuple[float, ...] = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
    """Inverse strengths of the regularisation (C) to choose from."""

    folds: Annotated[Count, Field(ge=2)] = 3
    """Grouped cross-validation over the concepts chooses among them."""

    max_length: Annotated[Count, Field(ge=4)] = 64
    """Longest line in tokens; the rest of a longer one is not read."""


class DecoderJudge:
    """A trained judge. Make one with `fit` or `load`.

    It holds the regression, not the language model: that is opened from `model` when scoring,
    and its fingerprint must be the one trained with.
    """

    def __init__(
        self,
        model: Path,
        *,
        model_fingerprint: str,
        settings: JudgeSettings,
        weight: NDArray[np.float64],
        bias: float,
        mean: NDArray[np.float64],
        scale: NDArray[np.float64],
        n_features: int,
        scaling: PlattScaling,
        chosen: dict[str, float],
    ) -> None:
        self.model = model
        self.model_fingerprint = model_fingerprint
        self.settings = settings
        self.weight = weight  # (D,)
        self.bias = bias
        self.mean = mean  # (D,)
        self.scale = scale  # (D,)
        self.n_features = n_features
        self.scaling = scaling
        self.chosen = chosen  # C, and its cross-validated AUC
        self._model_checked = False  # the model's files are hashed once, at the first scoring
        self.version = self._fingerprint()

    @classmethod
    def fit(
        cls,
        texts: Sequence[Text],
        features: NDArray[np.floating] | None,
        labels: Sequence[bool] | NDArray[np.bool_],
        groups: Sequence[Hashable],
        *,
        model: Path,
        calibration: Calibration | None = None,
        settings: JudgeSettings | None = None,
        seed: int = 0,
        **changes: Any,
    ) -> DecoderJudge:
        """Fit the regression on labelled statements.

        Args:
            texts: N statements, or N pairs.
            features: (N, F) further numbers a statement, finite; None for none. Give none where
                the critic has the teacher's likelihood and the judge should be independent.
            labels: (N,) True for valid; leave "unsure" lines out.
            groups: (N,) concepts, whole in every fold.
            model: folder of a causal language model with safetensors weights.
            calibration: lines of other concepts for the scaling. Without them the scaling is
                fitted on the out-of-fold predictions.
            settings: as given; `changes` replaces single fields of it.

        Raises:
            InputError: one class only, shapes that differ, fewer concepts than folds, or a model
                folder that does not open.
        """
        wanted = changed(settings or JudgeSettings(), changes)
        y = checked_labels(texts, labels, groups)
        if len(set(groups)) < wanted.folds:
            raise InputError(
                f"expected at least {wanted.folds} concepts, one a fold, got {len(set(groups))}"
            )
        extra = feature_matrix(features, len(texts))
        states = _read(model, texts, wanted)
        raw = np.concatenate([states, extra], axis=1)  # (N, D)
        mean, scale = standardisation(raw)
        x = (raw - mean) / scale
        strength, cv_auc, out_of_fold = _choose_strength(x, y, groups, wanted, seed)
        weight, bias = _regress(x, y, strength)
        judge = cls(
            model,
            model_fingerprint=fingerprint(model),
            settings=wanted,
            weight=weight,
            bias=bias,
            mean=mean,
            scale=scale,
            n_features=extra.shape[1],
            scaling=fit_platt(out_of_fold, y),
            chosen={"C": strength, "cross_validated_auc": cv_auc},
        )
        if calibration is not None:
            logits = judge.logits(calibration.texts, calibration.features)
            judge.scaling = fit_platt(logits, np.asarray(calibration.valid, dtype=bool))
            judge.version = judge._fingerprint()
        return judge

    def score(
        self, texts: Sequence[Text], features: NDArray[np.floating] | None = None
    ) -> NDArray[np.float64]:
        """(N,) estimates of P(valid), 0..1, in the order of the texts."""
        return self.scaling(self.logits(texts, features))

    def logits(
        self, texts: Sequence[Text], features: NDArray[np.floating] | None = None
    ) -> NDArray[np.float64]:
        """(N,) logits before scaling.

        Raises:
            InputError: the language model is not the one trained with.
        """
        extra = feature_matrix(features, len(texts))
        expect_features(extra, self.n_features)
        self._check_model()
        states = _read(self.model, texts, self.settings)
        x = (np.concatenate([states, extra], axis=1) - self.mean) / self.scale
        return np.asarray((x * self.weight).sum(axis=1) + self.bias, dtype=np.float64)

    def save(self, folder: Path) -> None:
        """Write judge.safetensors (the regression) and judge.json; the language model stays put."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        arrays = {"weight": self.weight, "mean": self.mean, "scale": self.scale}
        save_file(arrays, folder / "judge.safetensors")
        about = {"kind": "decoder judge", "version": self.version, **self._about()}
        write_about(folder / "judge.json", about)

    @classmethod
    def load(cls, folder: Path, *, model: Path) -> DecoderJudge:
        """The judge that `save` wrote, reading with the language model in `model`.

        Raises:
            InputError: files are missing, or are not those the version was computed from.
        """
        about = read_about(folder / "judge.json", "judge")
        arrays = read_arrays(folder / "judge.safetensors", "judge")
        settings: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in about["settings"].items()
        }
        judge = cls(
            model,
            model_fingerprint=about["model_fingerprint"],
            settings=JudgeSettings(**settings),
            weight=arrays["weight"],
            bias=about["bias"],
            mean=arrays["mean"],
            scale=arrays["scale"],
            n_features=about["n_features"],
            scaling=PlattScaling(**about["scaling"]),
            chosen=about["chosen"],
        )
        expect_version(folder, "judge", about["version"], judge.version)
        return judge

    def _check_model(self) -> None:
        if self._model_checked:
            return
        found = fingerprint(self.model)
        if found != self.model_fingerprint:
            raise InputError(
                f"{self.model}: expected the language model of fingerprint "
                f"{self.model_fingerprint} that the judge was trained with, got {found}"
            )
        self._model_checked = True

    def _about(self) -> dict[str, Any]:
        return {
            "model_fingerprint": self.model_fingerprint,
            "settings": self.settings.model_dump(),
            "bias": self.bias,
            "n_features": self.n_features,
            "scaling": asdict(self.scaling),
            "chosen": self.chosen,
        }

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(canonical_json(self._about()).encode())
        for array in (self.weight, self.mean, self.scale):
            digest.update(np.ascontiguousarray(array, dtype=np.float64).tobytes())
        return digest.hexdigest()[:ID_LENGTH]


def _read(folder: Path, texts: Sequence[Text], settings: JudgeSettings) -> NDArray[np.float64]:
    """Hidden states of every line, (N, 2 * layers * H).

    For each layer the mean over the tokens but the first (whose state is the same for nearly
    every text, and huge), then the last token.
    """
    import torch

    model, tokenizer = open_model(folder, what="a causal language model")
    depth = int(model.config.num_hidden_layers)
    layers = [max(1, min(depth, round(share * depth))) for share in settings.depths]
    if hasattr(model, "layers"):  # nothing above the highest layer read is computed
        model.layers = model.layers[: min(depth, max(layers) + 1)]
    width = int(model.config.hidden_size)
    out = np.zeros((len(texts), len(layers), 2, width))
    with torch.inference_mode():
        for rows, batch in fixed_batches(tokenizer, texts, settings.max_length, BATCH):
            inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
            mask = inputs["attention_mask"]
            hidden = model(**inputs, output_hidden_states=True, use_cache=False).hidden_states
            last = mask.sum(1) - 1  # (B,)
            keep = mask.clone()
            keep[:, 0] = torch.where(last > 0, 0, 1)  # a one-token text keeps its only token
            keep = keep.unsqueeze(-1).float()  # (B, T, 1)
            for i, layer in enumerate(layers):
                state = hidden[layer]  # (B, T, H)
                mean = (state * keep).sum(1) / keep.sum(1).clamp(min=1.0)
                end = state[torch.arange(len(mask)), last.clamp(min=0)]
                out[rows, i, 0] = mean[: len(rows)].double().cpu().numpy()
                out[rows, i, 1] = end[: len(rows)].double().cpu().numpy()
    return out.reshape(len(texts), len(layers) * 2 * width)


def _choose_strength(
    x: NDArray[np.float64],
    y: NDArray[np.bool_],
    groups: Sequence[Hashable],
    settings: JudgeSettings,
    seed: int,
) -> tuple[float, float, NDArray[np.float64]]:
    """The C with the best AUC over folds of whole concepts; that AUC; its out-of-fold logits."""
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold

    from symdistill.resampling import group_numbers

    numbers, _ = group_numbers(groups)
    cut = GroupKFold(settings.folds, shuffle=True, random_state=seed)
    folds = list(cut.split(x, y, numbers))
    if any(y[train].all() or not y[train].any() for train, _ in folds):
        raise InputError(
            "expected both classes in every fold of the concepts, got a fold with one; label "
            "more concepts"
        )
    best: tuple[float, float, NDArray[np.float64]] | None = None
    for strength in settings.strengths:
        logits = np.zeros(len(y))
        for train, held in folds:
            weight, bias = _regress(x[train], y[train], strength)
            logits[held] = x[held] @ weight + bias
        score = float(roc_auc_score(y, logits))
        if best is None or score > best[1]:
            best = (strength, score, logits)
    if best is None:
        raise InputError("expected at least one value of C in `strengths`, got none")
    return best


def _regress(
    x: NDArray[np.float64], y: NDArray[np.bool_], strength: float
) -> tuple[NDArray[np.float64], float]:
    """Ridge-penalised logistic regression: weights (D,) and bias.

    With fewer lines than columns it is solved in the span of the lines, where the answer lies.
    """
    from sklearn.linear_model import LogisticRegression

    basis = None
    if x.shape[0] < x.shape[1]:
        values, vectors = np.linalg.eigh(x @ x.T)  # (N,), (N, N)
        good = values > values[-1] * 1e-10
        roots = np.sqrt(values[good])
        basis = (x.T @ vectors[:, good]) / roots  # (D, R), orthonormal columns
        x = vectors[:, good] * roots  # (N, R)
    model = LogisticRegression(C=strength, max_iter=1000)
    model.fit(x, y)
    weight = model.coef_[0].astype(np.float64)
    return (weight if basis is None else basis @ weight), float(model.intercept_[0])
