"""Sampling in which every row has its own random numbers.

    draw = SeededSampling(seeds, temperature=0.8, top_p=0.9)
    model.generate(**inputs, do_sample=False, logits_processor=LogitsProcessorList([draw]))

Takes scores and one 64-bit seed per row; gives scores whose largest entry is an exact sample:
argmax of logits plus independent Gumbel noise is distributed as softmax of the logits (the
Gumbel-max trick). So `generate` is told to be greedy, and a row's text depends on its own seed
and scores alone, never on the rows beside it. Because each token has its own noise at each step,
rounding differences in the scores change a text only where two tokens nearly tie.

Cost: one random number for each row and token of the vocabulary. Put it last in the list of
processors, after the masks. It does not do beam search, whose rows have no lives of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from symdistill.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["SeededSampling"]


class SeededSampling:
    """A logits processor that draws a token per row by Gumbel noise from the row's own seed.

    Temperature, top-k and top-p are applied in this order, as `generate` does, and mean the same.
    The noise is drawn on the CPU, so a seed gives the same noise on every device. Use one object
    for one call of `generate`.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
    ) -> None:
        """Prepare for R rows.

        Args:
            seeds: (R,) a seed from 0 to 2**64 - 1 for each row.
            temperature: divides the scores; above 0.
            top_p: draw from the smallest set of likeliest tokens whose probability reaches
                this; above 0, at most 1 (1: all).
            top_k: draw from this many likeliest tokens (0: all).

        Raises:
            InputError: a value outside its range.
        """
        import torch

        if not temperature > 0 or temperature == float("inf"):
            raise InputError(
                f"expected a temperature above 0, got {temperature}; leave SeededSampling out for "
                "greedy decoding"
            )
        if not 0 < top_p <= 1:
            raise InputError(f"expected top_p above 0 and at most 1, got {top_p}")
        if top_k < 0:
            raise InputError(f"expected top_k of 0 (all) or more, got {top_k}")
        if any(not 0 <= seed < 2**64 for seed in seeds):
            raise InputError("expected seeds from 0 to 2**64 - 1")
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._temperature = temperature
        self._top_p = top_p
        self._top_k = top_k

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """(R, V) warped scores plus noise; -inf where a token cannot be drawn."""
        import torch

        if len(scores) != len(self._generators):
            raise InputError(
                f"expected {len(self._generators)} rows, one for each seed, got {len(scores)}; "
                "beams and num_return_sequences need a seed for every row, or are not supported"
            )
        warped = scores.float() / self._temperature
        if self._top_k:
            kth = warped.topk(min(self._top_k, warped.shape[1]), dim=1).values[:, -1:]
            warped = warped.masked_fill(warped < kth, -torch.inf)
        uniform = torch.empty(warped.shape, dtype=torch.float32)
        for row, generator in zip(uniform, self._generators, strict=True):
            row.uniform_(generator=generator)
        uniform = uniform.to(warped.device)
        if self._top_p == 1:
            return warped + _gumbel(uniform)
        drawn = torch.full_like(warped, -torch.inf)
        for rows, tokens in _nuclei(warped.softmax(dim=1), self._top_p):
            kept = warped[rows].gather(1, tokens) + _gumbel(uniform[rows].gather(1, tokens))
            drawn[rows] = drawn[rows].scatter(1, tokens, kept)
        return drawn


def _gumbel(uniform: torch.Tensor) -> torch.Tensor:
    """Gumbel noise from multiples of 2**-24 in [0, 1), taken at the middle of their cells."""
    return uniform.add(2.0**-25).neg_().log1p_().neg_().log_().neg_()


def _nuclei(shares: torch.Tensor, top_p: float) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Groups of rows, each with the tokens of its rows' nuclei.

    The nucleus is the smallest set of likeliest tokens whose shares reach `top_p`. It is looked
    for among few tokens first, as sorting whole rows costs more than all else here.

    Args:
        shares: (R, V) probabilities.

    Yields:
        rows (n,) and tokens (n, m), where a row with fewer than m tokens repeats its likeliest.
    """
    import torch

    rows, width = torch.arange(len(shares), device=shares.device), shares.shape[1]
    for head in (256, 2048, width):
        top, tokens = shares[rows].topk(min(head, width), dim=1)  # largest first
        reached = top.cumsum(dim=1)
        done = (reached[:, -1] >= top_p) | (head >= width)
        outside = reached[done] - top[done] >= top_p
        likeliest = tokens[done][:, :1]
        yield rows[done], torch.where(outside, likeliest, tokens[done])
        rows = rows[~done]
        if not len(rows):
            return
