"""What a search asks of a language model: a batch of rows that are continued side by side.

`Rows` is the whole of it. `symdistill.decoding.transformers_rows` implements it with a
`transformers` model and its key-value cache; tests implement it with a table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    import torch

__all__ = ["Rows"]


class Rows(Protocol):
    """R rows, each a prompt and the tokens written after it so far. V tokens in the vocabulary.

    Attributes:
        vocabulary_size: V, the width of the logits (may pass the tokenizer's own).
        device: where the logits are.
    """

    vocabulary_size: int
    device: torch.device

    def start(self) -> torch.Tensor:
        """Read the prompts, one row for each; gives the logits after them: (R, V) float32."""

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Write one token (R,) to each row; gives the logits after it: (R, V) float32.

        They are the caller's: a search writes to them.
        """

    def step_embedded(self, weights: torch.Tensor) -> torch.Tensor:
        """Like `step`, with a mixture of tokens: weights (R, V), each row adding up to 1."""

    def select(self, rows: torch.Tensor) -> None:
        """Go on with other rows: row i of the new ones is a copy of row `rows[i]` of the old."""

    def fork(self, rows: torch.Tensor) -> Self:
        """An independent copy of some rows; what is written to it does not reach the original."""

    def adopt(self, fork: Self, rows: torch.Tensor) -> None:
        """Go on with rows of a fork of these, which is not used any more: like `select`."""

    def rewind(self, tokens: int) -> None:
        """Forget the newest `tokens` tokens of every row."""

    def log_probabilities(
        self, rows: torch.Tensor, keep: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        """How likely some continuations are; the rows themselves stay as they are.

        Args:
            rows: (N,) which row each continuation belongs to.
            keep: (N,) how many of the tokens written since `start` it stands after, at least 1
                where anything was written.
            tokens: (N, M) the continuations, padded on the right with -1.

        Returns:
            (N, M - 1): log-probability of tokens[:, 1:], each after those before it; 0 at padding.
            The first token's is known to the caller from an earlier step.
        """
