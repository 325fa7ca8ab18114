"""The trainer: TRL's `SFTTrainer` with a weight per row and checkpoints written whole.

Takes batches as `batches.collate` or `packing.collate_packed` makes them. The loss of a batch is
the weighted mean over the tokens learnt, so a row of weight 2 counts as the same row twice:

    loss = sum_i w_i sum_t -log p(y_it | x_i, y_i<t)  /  sum_i w_i |y_i|

With `loss_per="row"` a row counts by its mean, however long it is. Tokens then come with weights
w_i / |y_i|, in units of the mean w over all rows, and the loss of a batch of R rows is

    loss = sum_i w_i / |y_i| sum_t -log p(y_it | x_i, y_i<t)  /  R

The divisor is not the batch's own sum of weights: rows of like length share a batch, so it may
hold one kind of row only (answers, rationales), and the kind's weight would cancel.

Scores over the vocabulary are computed from the first token that any row of the batch learns:
over a vocabulary of 49,152 they are a fifth of a small model's work, and the prompt's are not
needed. The model's own forward computes them, so that what it does to its scores (a scale, a
soft cap) is kept.

Importing this module imports torch, transformers and trl; `sft.py` does so when it trains.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn import functional
from transformers import TrainerCallback
from trl.trainer.sft_trainer import SFTTrainer

from symdistill.students import checkpoints
from symdistill.students.batches import IGNORED

READ = ("input_ids", "attention_mask", "position_ids")  # of a batch, by the model
NOT_KEPT = ("training_args.bin", "README.md")  # a pickle; a card about nothing


class WeightedSFTTrainer(SFTTrainer):
    """Weighted loss on the target; checkpoints listed, renamed when whole, two kept.

    Args:
        checkpoint_folder: where checkpoints live.
        training: fingerprint of this training, written into each checkpoint.
        loss_per: as in `tokenise`, which made the weights.
        **rest: what `SFTTrainer` takes.
    """

    loss_per: Literal["token", "row"] = "token"

    def __init__(
        self,
        *,
        checkpoint_folder: Path,
        training: str,
        loss_per: Literal["token", "row"] = "token",
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        self.loss_per = loss_per
        self._checkpoint_folder = checkpoint_folder
        self._training = training

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The weighted loss of a batch: a scalar tensor (and the model's outputs)."""
        outputs, first = forward(model, inputs)
        rows = inputs["rows"][:, first:] if "rows" in inputs else None
        labels = inputs["labels"][:, first:]
        loss = weighted_loss(outputs.logits, labels, inputs["weights"], rows, self.loss_per)
        return (loss, outputs) if return_outputs else loss

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Weights only: the tokenizer is the base's, and the arguments would be a pickle."""
        save_weights(self.model, Path(output_dir or str(self.args.output_dir)))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Let the library write a checkpoint aside; then list its files and give it its name."""
        shutil.rmtree(self._aside, ignore_errors=True)
        super()._save_checkpoint(model, trial)  # type: ignore[no-untyped-call]
        written = self._aside / f"{checkpoints.PREFIX}{self.state.global_step}"
        checkpoints.publish(written, self._checkpoint_folder, self._training)
        shutil.rmtree(self._aside, ignore_errors=True)

    @property
    def _aside(self) -> Path:
        return self._checkpoint_folder / checkpoints.ASIDE

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._aside)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """No card: the run writes its own."""

    def _send_telemetry(self) -> None:
        """Nothing leaves this machine."""


class StepReport(TrainerCallback):
    """Calls `report(step, steps_total, loss)` after each optimizer step."""

    def __init__(self, report: Callable[[int, int, float], None]) -> None:
        self._report = report

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Trainer's hook: once per step, with that step's loss."""
        if logs and "loss" in logs:
            self._report(state.global_step, state.max_steps, float(logs["loss"]))


def forward(model: Any, inputs: Mapping[str, torch.Tensor]) -> tuple[Any, int]:
    """The model's outputs, and the first column that any row learns.

    The outputs' scores (B, T - first, V) are those of the labels from that column on.
    """
    length = inputs["labels"].shape[1]
    first = int((inputs["labels"] != IGNORED).any(dim=0).nonzero()[0])  # >= 1
    outputs = model(
        **{name: inputs[name] for name in READ if name in inputs},
        use_cache=False,
        logits_to_keep=torch.arange(first - 1, length - 1, device=inputs["labels"].device),
    )
    return outputs, first


def weighted_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    rows: torch.Tensor | None = None,
    loss_per: Literal["token", "row"] = "token",
) -> torch.Tensor:
    """-log p of the tokens learnt, weighted: its mean over the tokens, or its sum over R.

    Args:
        logits: (B, T, V), position t scores the token at label t.
        labels: (B, T), `IGNORED` where nothing is learnt.
        weights: (R,), one for each row, not negative, not all zero.
        rows: (B, T), the row of each label in a packed batch; None: R is B, each its own row.
        loss_per: `token`: divided by the tokens' weights. `row`: by the number of rows.
    """
    losses = functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    ).view_as(labels)  # (B, T), 0 where ignored
    learnt = labels != IGNORED  # (B, T)
    if rows is None:
        sums, counts = losses.sum(dim=1), learnt.sum(dim=1)  # (R,)
    else:
        sums = torch.zeros_like(weights).index_add(0, rows[learnt], losses[learnt])
        counts = torch.bincount(rows[learnt], minlength=len(weights))
    whole = (weights * counts).sum() if loss_per == "token" else len(weights)
    return (weights * sums).sum() / whole


def save_weights(model: Any, folder: Path) -> None:
    """A model's or an adapter's weights as safetensors with their configuration, no card."""
    folder.mkdir(parents=True, exist_ok=True)
    adapter = hasattr(model, "peft_config")
    # The embeddings are not trained; asked to find out, peft would look at the hub.
    model.save_pretrained(str(folder), **({"save_embedding_layers": False} if adapter else {}))
    for name in NOT_KEPT:
        (folder / name).unlink(missing_ok=True)
