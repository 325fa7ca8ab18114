"""What an answer costs: tokens read and tokens written, apart, and the arithmetic behind them.

Takes token counts and a model's size; gives tokens and floating-point operations, prefill (reading
the prompt) and decode (writing) apart. Costs nothing: it is a formula, not a measurement. A
multiplication with an addition counts as two operations, so a token costs two for each parameter
it is multiplied with (Kaplan et al. 2020, arXiv 2001.08361), and in each layer four for each number
of a head's queries and each earlier token it attends to.

SKIntern (arXiv 2409.13183) counts the prompt only; `prompt_only_flops` is that figure. It flatters
whoever writes long. Its released code takes it from a profiler that counts a multiplication with
an addition once: half of ours.

What it does not do: time anything, count what a mixture of experts leaves out, or know of padding
and of batches.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model decides its arithmetic."""

    parameters: int  # those that a token is multiplied with; see `shape_of`
    layers: int = 0  # 0: attention over earlier tokens is left out
    attention_width: int = 0  # heads x numbers per head


@dataclass(frozen=True, slots=True)
class Cost:
    """Tokens and operations; costs add up."""

    texts: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    prefill_flops: int = 0
    decode_flops: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Cost)))

    @property
    def flops(self) -> int:
        """All operations."""
        return self.prefill_flops + self.decode_flops

    @property
    def prompt_only_flops(self) -> int:
        """Operations for reading the prompt, the figure that some papers report as the cost."""
        return self.prefill_flops

    def as_dict(self) -> dict[str, int]:
        """Every figure by name, for metrics.json."""
        own = {f.name: getattr(self, f.name) for f in fields(Cost)}
        return own | {"flops": self.flops, "prompt_only_flops": self.prompt_only_flops}


def cost(shape: Shape, prompt_tokens: int, *generated_tokens: int) -> Cost:
    """What it costs to read a prompt once and to continue it once or, for a vote, several times.

    The last token of a text is written and not read again; it counts like any other.

    Args:
        shape: of the model.
        prompt_tokens: in the prompt. Where each sample reads it anew, add the costs of single
            samples instead.
        generated_tokens: in each text, the end token counted.

    Raises:
        ValueError: a count is negative.
    """
    if min(prompt_tokens, *generated_tokens, 0) < 0:
        raise ValueError(
            f"expected counts of tokens >= 0; got {prompt_tokens} and {generated_tokens}"
        )
    decode = sum(_flops(shape, prompt_tokens, written) for written in generated_tokens)
    prefill = _flops(shape, 0, prompt_tokens)
    return Cost(len(generated_tokens), prompt_tokens, sum(generated_tokens), prefill, decode)


def shape_of(model: Any) -> Shape:
    """The shape of a `transformers` causal language model, adapters counted.

    An input embedding is looked up, not multiplied with, unless it is also the output layer.
    """
    looked_up = model.get_input_embeddings().weight
    output = model.get_output_embeddings()
    tied = output is not None and output.weight is looked_up
    config = model.config
    heads = config.num_attention_heads
    per_head = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()) - (0 if tied else looked_up.numel()),
        layers=config.num_hidden_layers,
        attention_width=heads * per_head,
    )


def _flops(shape: Shape, before: int, tokens: int) -> int:
    """Of `tokens` that follow `before` others, each attending to all up to itself."""
    attended = tokens * before + tokens * (tokens + 1) // 2
    return 2 * shape.parameters * tokens + 4 * shape.layers * shape.attention_width * attended
