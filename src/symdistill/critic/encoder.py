"""The critic: a small encoder, fine-tuned to tell valid statements from invalid ones.

Takes statements (or pairs: a question and its answer, a premise and a hypothesis), optional
numeric features a line (the teacher's log-likelihood, mean and sum), their labels and their
concepts; gives a score in 0..1 a line, an estimate of P(valid).

    hidden states of the encoder -> mean over the attention mask -> with the standardised
    features -> dropout -> linear -> logit -> Platt scaling on the calibration split

Any model that `transformers.AutoModel` opens will do; of a causal one the last token's state is
read in place of the mean.

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
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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
from symdistill.critic.reading import Text, logits, open_model, reads_forward
from symdistill.critic.training import EncoderSettings, train
from symdistill.records import ID_LENGTH, canonical_json

if TYPE_CHECKING:
    import torch

__all__ = ["Calibration", "EncoderCritic", "EncoderSettings"]


class EncoderCritic:
    """A trained critic. Make one with `fit` or `load`."""

    def __init__(
        self,
        encoder: Any,
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
        self._last = reads_forward(encoder)
        self.version = self._fingerprint()

    @classmethod
    def fit(
        cls,
        texts: Sequence[Text],
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
            texts: N statements, or N pairs.
            features: (N, F) numbers a statement, finite; None for none.
            labels: (N,) True for valid. Leave "unsure" lines out.
            groups: (N,) concepts: those held out to choose the epoch are whole.
            encoder: folder of an encoder or a causal model with safetensors weights.
            calibration: lines of other concepts; without them logits are only squashed, and
                scores order lines but are no probabilities.
            settings: how to train; `changes` replaces single fields of it (`epochs=3`).

        Raises:
            InputError: one class only, shapes that differ, values that are not finite, or an
                encoder folder that does not open.
        """
        chosen = changed(settings or EncoderSettings(), changes)
        x = feature_matrix(features, len(texts))
        y = checked_labels(texts, labels, groups)
        mean, scale = standardisation(x)
        body, tokenizer = open_model(encoder)
        trained = train(
            body, tokenizer, texts, _standard(x, mean, scale), y, groups, chosen, seed,
            last=reads_forward(body),
        )  # fmt: skip
        critic = cls(
            trained.encoder,
            tokenizer,
            trained.head,
            settings=chosen,
            feature_mean=mean,
            feature_scale=scale,
            # takes the class weights out again
            scaling=PlattScaling(1.0, -float(np.log(trained.valid_weight))),
            history=trained.history,
        )
        if calibration is not None:
            if chosen.weigh_numbers and x.shape[1]:
                critic._weigh_numbers(calibration)
            found = critic.logits(calibration.texts, calibration.features)
            critic.scaling = fit_platt(found, np.asarray(calibration.valid, dtype=bool))
            critic.version = critic._fingerprint()
        return critic

    def score(
        self,
        texts: Sequence[Text],
        features: NDArray[np.floating] | None = None,
        *,
        advance: Callable[[int], None] | None = None,
    ) -> NDArray[np.float64]:
        """(N,) estimates of P(valid), 0..1, in the order of the texts.

        Batches are cut by length and content, never by the order given, and always have the
        same shapes: the same lines get the same scores in any order. `advance` is told how many
        more lines are done.
        """
        return self.scaling(self.logits(texts, features, advance=advance))

    def logits(
        self,
        texts: Sequence[Text],
        features: NDArray[np.floating] | None = None,
        *,
        advance: Callable[[int], None] | None = None,
    ) -> NDArray[np.float64]:
        """(N,) logits before scaling."""
        x = feature_matrix(features, len(texts))
        expect_features(x, len(self.feature_mean))
        return logits(
            self.encoder,
            self.head,
            self.tokenizer,
            texts,
            _standard(x, self.feature_mean, self.feature_scale),
            self.settings.max_length,
            last=self._last,
            advance=advance,
        )

    def save(self, folder: Path) -> None:
        """Write the critic: `encoder/` (a plain transformers folder), head.safetensors, JSON."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        self.encoder.save_pretrained(folder / "encoder")
        self.tokenizer.save_pretrained(folder / "encoder")
        save_file(dict(self.head.state_dict()), folder / "head.safetensors")
        about = {"kind": "encoder critic", "version": self.version, **self._about()}
        write_about(folder / "critic.json", {**about, "history": self.history})

    @classmethod
    def load(cls, folder: Path) -> EncoderCritic:
        """The critic that `save` wrote.

        Raises:
            InputError: files are missing, or are not those the version was computed from.
        """
        import torch

        about = read_about(folder / "critic.json", "critic")
        weights = read_arrays(folder / "head.safetensors", "critic", torch=True)
        encoder, tokenizer = open_model(folder / "encoder")
        head = torch.nn.Linear(weights["weight"].shape[1], 1)
        head.load_state_dict(weights)
        critic = cls(
            encoder,
            tokenizer,
            head.to(encoder.device),
            settings=EncoderSettings(**about["settings"]),
            feature_mean=np.array(about["feature_mean"], dtype=np.float64),
            feature_scale=np.array(about["feature_scale"], dtype=np.float64),
            scaling=PlattScaling(**about["scaling"]),
            history=about["history"],
        )
        expect_version(folder, "critic", about["version"], critic.version)
        return critic

    def _weigh_numbers(self, calibration: Calibration) -> None:
        """Set the weights of the numbers by a logistic regression on them and the text's logit."""
        import torch
        from sklearn.linear_model import LogisticRegression

        y = np.asarray(calibration.valid, dtype=bool)
        if y.all() or not y.any():
            return
        x = feature_matrix(calibration.features, len(y))
        of_text = self.logits(calibration.texts, np.tile(self.feature_mean, (len(y), 1)))
        beside = _standard(x, self.feature_mean, self.feature_scale)
        spread = max(float(of_text.std()), 1e-9)
        model = LogisticRegression().fit(np.column_stack([of_text / spread, beside]), y)
        text, *numbers = model.coef_[0]
        with torch.no_grad():  # a text that says nothing keeps a little weight: it orders the ties
            weights = torch.tensor(np.array(numbers) * spread / max(text, 0.05))
            self.head.weight[0, -len(numbers) :] = weights.to(self.head.weight)

    def _about(self) -> dict[str, Any]:
        said = self.settings
        idle = {"lora_rank"} if said.trainable != "lora" else set()
        idle |= {"weigh_numbers"} if not said.weigh_numbers else set()
        return {
            "settings": said.model_dump(exclude=idle),  # what has no say is not in the version
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


def _standard(
    x: NDArray[np.float64], mean: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float32]:
    return ((x - mean) / scale).astype(np.float32)
