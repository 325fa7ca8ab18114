"""A language model that is a table, so that every text it can write can be listed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch


@dataclass
class ToyRows:
    """`symdistill.decoding.rows.Rows` with random conditional probabilities, fixed by a seed.

    The logits after a text depend on the whole text (its hash), or on its last token alone where
    `memory` is 1. `prompts` are token tuples.
    """

    prompts: list[tuple[int, ...]]
    vocabulary_size: int
    seed: int = 0
    memory: int | None = None
    sharpness: float = 2.0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    forwards: int = 0  # rows computed, to compare costs

    def __post_init__(self) -> None:
        self.texts: list[tuple[int, ...]] = [tuple(one) for one in self.prompts]
        self.starts: list[int] = [len(one) for one in self.prompts]

    def logits_after(self, text: tuple[int, ...]) -> np.ndarray[Any, Any]:
        seen = text if self.memory is None else text[-self.memory :]
        digest = hashlib.blake2b(repr((self.seed, seen)).encode(), digest_size=8).digest()
        draw = np.random.default_rng(int.from_bytes(digest, "big"))
        return self.sharpness * draw.standard_normal(self.vocabulary_size)

    def _logits(self) -> torch.Tensor:
        self.forwards += len(self.texts)
        return torch.tensor(
            np.stack([self.logits_after(text) for text in self.texts]), dtype=torch.float32
        )

    def start(self) -> torch.Tensor:
        return self._logits()

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        assert len(tokens) == len(self.texts)
        self.texts = [(*text, int(token)) for text, token in zip(self.texts, tokens, strict=True)]
        return self._logits()

    def step_embedded(self, weights: torch.Tensor) -> torch.Tensor:
        """The mixture's likeliest token is written; the logits are the mixture of all tokens'."""
        logits = []
        for text, mixture in zip(self.texts, weights.numpy(), strict=True):
            each = [self.logits_after((*text, token)) for token in range(self.vocabulary_size)]
            logits.append(mixture @ np.stack(each))
        self.forwards += len(self.texts)
        best = weights.argmax(dim=1).tolist()
        self.texts = [(*text, token) for text, token in zip(self.texts, best, strict=True)]
        return torch.tensor(np.stack(logits), dtype=torch.float32)

    def select(self, rows: torch.Tensor) -> None:
        self.texts = [self.texts[row] for row in rows.tolist()]
        self.starts = [self.starts[row] for row in rows.tolist()]

    def fork(self, rows: torch.Tensor) -> ToyRows:
        copy = ToyRows(self.prompts, self.vocabulary_size, self.seed, self.memory, self.sharpness)
        copy.texts, copy.starts = list(self.texts), list(self.starts)
        copy.select(rows)
        return copy

    def adopt(self, fork: ToyRows, rows: torch.Tensor) -> None:
        self.texts, self.starts = list(fork.texts), list(fork.starts)
        self.forwards = fork.forwards
        self.select(rows)

    def rewind(self, tokens: int) -> None:
        if tokens:
            self.texts = [text[:-tokens] for text in self.texts]

    def log_probabilities(
        self, rows: torch.Tensor, keep: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        out = torch.zeros((tokens.shape[0], max(tokens.shape[1] - 1, 0)))
        for i, (row, kept) in enumerate(zip(rows.tolist(), keep.tolist(), strict=True)):
            text = self.texts[row][: self.starts[row] + kept]
            for j, token in enumerate(tokens[i].tolist()):
                if token < 0:
                    break
                if j:
                    logits = torch.tensor(self.logits_after(text))
                    out[i, j - 1] = logits.log_softmax(0)[token]
                text = (*text, token)
        return out
