"""The rows of a search, continued by a `transformers` model with its key-value cache.

    rows = TransformersRows.from_inputs(model, input_ids, attention_mask, max_new_tokens=32)
    logits = rows.start()                                        # (B, V), each prompt read once
    rows.select(torch.arange(B).repeat_interleave(beams))        # (B * beams) rows from here on
    logits = rows.step(tokens)

Decoder-only models take prompts padded on the left, encoder-decoder models read them with the
encoder. Logits depend on a row's own prompt and tokens alone, up to rounding.
"""

from __future__ import annotations

import copy
import inspect
import weakref
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.modeling_outputs import BaseModelOutput

from symdistill.decoding.cache import RowCache
from symdistill.errors import InputError, RunError

__all__ = ["TransformersRows", "end_token_ids", "start_ids"]

SCORED_AT_ONCE = 2**26  # logits held at a time by `log_probabilities` (float32: 256 MB)
FEW = 64  # continuations that may always be scored together, however few rows there are


class TransformersRows:
    """`symdistill.decoding.rows.Rows` of a `transformers` model."""

    def __init__(self, model: Any, prompts: Tensor, cache: RowCache) -> None:
        self.model = model
        self.vocabulary_size = int(model.config.get_text_config(decoder=True).vocab_size)
        self.device: torch.device = model.device
        self._prompts = prompts  # what `start` reads
        self._cache = cache
        self._takes = frozenset(inspect.signature(model.forward).parameters)
        # Can some tokens written be left out by masking them, the positions told to the model?
        self._places = (
            "position_ids" in self._takes
            and not model.config.is_encoder_decoder
            and not cache.sliding
        )
        # The newest fork and its cache, whose prompts need no copying once that fork is gone.
        self._forked: tuple[weakref.ref[Self], RowCache] | None = None

    @classmethod
    def from_inputs(
        cls,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        *,
        max_new_tokens: int,
        encoded: Tensor | None = None,
    ) -> TransformersRows:
        """Rows for B prompts of at most T tokens.

        Args:
            model: causal or encoder-decoder, in evaluation mode.
            input_ids: (B, T) prompts; padded on the left for causal models.
            attention_mask: (B, T) 0 at padding, 1 elsewhere; None: no padding.
            max_new_tokens: tokens to make room for.
            encoded: (B, T, width) what the encoder made of the prompts, if that is known.

        Raises:
            InputError: padding on the wrong side, more tokens than the model has positions, or a
                model without a key-value cache that can forget its newest tokens.
        """
        encoder_decoder = model.config.is_encoder_decoder
        if "past_key_values" not in inspect.signature(model.forward).parameters:
            raise InputError(
                f"expected a model with a key-value cache; {type(model).__name__} takes none; "
                "use a causal or an encoder-decoder language model"
            )
        input_ids = input_ids.to(model.device)
        extras = {}
        if attention_mask is not None and not attention_mask.all():
            if not encoder_decoder and not attention_mask[:, -1].all():
                raise InputError(
                    "expected prompts padded on the left; got padding on the right; "
                    'set tokenizer.padding_side = "left"'
                )
            extras["mask"] = attention_mask.to(model.device, torch.long)
        if encoded is not None:
            extras["encoded"] = encoded.to(model.device)
        prompt = len(start_ids(model)) if encoder_decoder else input_ids.shape[1]
        capacity = prompt + max_new_tokens
        longest = max(capacity, input_ids.shape[1])
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if positions is not None and longest > positions:
            raise InputError(
                f"expected at most {positions} tokens, the model's positions; got {longest} "
                "(prompt and new tokens); shorten the prompt or lower max_new_tokens"
            )
        return cls(model, input_ids, RowCache(model, len(input_ids), extras, capacity))

    @torch.inference_mode()
    def start(self) -> Tensor:
        """Read the prompts, to be called once and first; gives (B, V) float32 logits.

        Raises:
            RunError: the model gives NaN, here and in what follows.
        """
        cache, tokens = self._cache, self._prompts
        if self.model.config.is_encoder_decoder:
            if "encoded" not in cache.extras:
                encoded = self.model.get_encoder()(
                    input_ids=tokens, attention_mask=cache.extras.get("mask")
                )
                cache.extras["encoded"] = encoded.last_hidden_state
            begin = torch.tensor([start_ids(self.model)], device=self.device)
            tokens = begin.expand(len(tokens), -1)
        logits = self._write(tokens)
        cache.prompt = tokens.shape[1]
        return self._newest(logits)

    @torch.inference_mode()
    def step(self, tokens: Tensor) -> Tensor:
        """Write one token (R,) to each row; gives the logits after it: (R, V) float32."""
        return self._newest(self._write(tokens.to(self.device)[:, None]))

    @torch.inference_mode()
    def step_embedded(self, weights: Tensor) -> Tensor:
        """Write the mean of the tokens' embeddings by `weights` (R, V), as `step` does a token."""
        embedding = self.model.get_decoder().get_input_embeddings()
        table = embedding.weight[: weights.shape[1]]
        mixture = weights.to(table) @ table
        # Some models scale inside the embedding layer, which is passed by here.
        mixture = mixture * getattr(embedding, "embed_scale", 1.0)
        return self._newest(self._write(mixture[:, None].to(table.dtype)))

    @torch.inference_mode()
    def select(self, rows: Tensor) -> None:
        """Go on with other rows; cheap where row i and `rows[i]` have the same prompt."""
        self._cache.select(rows.to(self.device))

    @torch.inference_mode()
    def fork(self, rows: Tensor) -> Self:
        """An independent copy of some rows.

        Its memory is kept for the next fork: one that has the same prompts in the same order,
        asked for when this one is gone, copies only what was written after the prompts.
        """
        rows = rows.to(self.device)
        cache = self._forked[1] if self._forked and self._forked[0]() is None else None
        if cache is not None and cache.items == self._cache.items_of(rows):
            cache.refill(self._cache, rows)
        else:
            self._forked = cache = None  # frees its memory before more is asked for
            cache = self._cache.copy(rows)
        twin = self._twin(cache)
        self._forked = (weakref.ref(twin), cache)
        return twin

    @torch.inference_mode()
    def adopt(self, fork: Self, rows: Tensor) -> None:
        """Go on with rows of a fork of these, which is not used any more."""
        rows = rows.to(self.device)
        if fork._cache.items_of(rows) == self._cache.items:
            self._cache.refill(fork._cache, rows)
        else:
            self._cache = fork._cache.copy(rows)

    @torch.inference_mode()
    def rewind(self, tokens: int) -> None:
        """Forget the newest `tokens` tokens of every row.

        Raises:
            InputError: more than were written.
        """
        if tokens > self._cache.written:
            raise InputError(
                f"expected at most {self._cache.written} tokens to forget, those written; "
                f"got {tokens}; the prompt stays"
            )
        self._cache.cache.crop(-tokens)

    @torch.inference_mode()
    def log_probabilities(self, rows: Tensor, keep: Tensor, tokens: Tensor) -> Tensor:
        """How likely continuations (N, M) are after `keep` tokens of `rows`: (N, M - 1) float32.

        One forward scores as many as there are rows, fewer where their logits fill the memory.
        """
        rows, keep, tokens = (one.to(self.device) for one in (rows, keep, tokens))
        found = torch.zeros((len(tokens), max(tokens.shape[1] - 1, 0)), device=self.device)
        lengths = (tokens >= 0).sum(dim=1)
        at_once = SCORED_AT_ONCE // (self.vocabulary_size * max(tokens.shape[1], 1))
        at_once = max(1, min(at_once, max(len(self._cache.items), FEW)))
        # Tokens to leave out are masked where the model can be told positions; where it cannot,
        # continuations that stand after equally many tokens go together, and the rest is cut off.
        together = torch.zeros_like(keep) if self._places else keep
        for one in together[lengths > 1].unique():
            chosen = ((together == one) & (lengths > 1)).nonzero()[:, 0]
            for chunk in chosen[lengths[chosen].argsort()].split(at_once):
                width = int(lengths[chunk[-1]])
                scored = self._score(rows[chunk], keep[chunk], tokens[chunk, :width])
                found[chunk, : width - 1] = scored
        return found

    def _score(self, rows: Tensor, keep: Tensor, tokens: Tensor) -> Tensor:
        """`log_probabilities` in one forward."""
        twin = self._twin(self._cache.copy(rows))
        cache, most = twin._cache, int(keep.max())
        twin.rewind(cache.written - most)
        if bool((keep < most).any()):
            held = cache.extras.get("mask")
            if held is None:
                held = keep.new_ones((len(keep), cache.prompt))
            kept = torch.arange(most, device=keep.device) < keep[:, None]
            cache.extras["mask"] = torch.cat([held, kept.long()], dim=1)
        wanted = tokens.clamp(min=0)
        logits = twin._write(wanted[:, :-1], every=True).float()  # (N, M - 1, V)
        likely = logits.gather(2, wanted[:, 1:, None])[:, :, 0] - logits.logsumexp(dim=2)
        return likely.masked_fill(tokens[:, 1:] < 0, 0.0)

    def _twin(self, cache: RowCache) -> Self:
        twin = copy.copy(self)
        twin._cache, twin._forked = cache, None
        return twin

    def _write(self, tokens: Tensor, *, every: bool = False) -> Tensor:
        """Write tokens (R, Q), or embeddings (R, Q, width), to the cache.

        Returns:
            Logits after the last of them (R, 1, V), or after `every` one (R, Q, V).
        """
        cache = self._cache
        inputs: dict[str, Any] = {"past_key_values": cache.cache, "use_cache": True}
        name = "inputs_embeds" if tokens.is_floating_point() else "input_ids"
        mask = cache.extras.get("mask")
        if self.model.config.is_encoder_decoder:
            name = f"decoder_{name}"
            inputs["encoder_outputs"] = BaseModelOutput(last_hidden_state=cache.extras["encoded"])
            inputs["attention_mask"] = mask
        elif mask is not None:
            length = cache.cache.get_seq_length() + tokens.shape[1]
            mask = pad(mask, (0, length - mask.shape[1]), value=1)
            inputs["attention_mask"] = mask
            if "position_ids" in self._takes:
                positions = mask.cumsum(dim=1) - 1
                inputs["position_ids"] = positions[:, -tokens.shape[1] :].clamp(min=0)
        if not every and "logits_to_keep" in self._takes:
            inputs["logits_to_keep"] = 1
        logits: Tensor = self.model(**{name: tokens}, **inputs).logits
        return logits if every else logits[:, -1:]

    def _newest(self, logits: Tensor) -> Tensor:
        """Logits (R, 1, V) as (R, V) float32, checked."""
        logits = logits[:, 0].to(self.device, torch.float32)
        # NaN in a row's state spoils all its logits; NaN in a token's weights, those of all rows.
        if bool(logits[:, 0].isnan().any() | logits[0].isnan().any()):
            raise RunError(
                f"expected numbers from {self.model.name_or_path or type(self.model).__name__}; "
                "got NaN; try float32 or bfloat16 weights, or load the model again"
            )
        return logits


def end_token_ids(model: Any, tokenizer: Any = None) -> tuple[int, ...]:
    """The tokens that end a text, by the generation settings, the configuration and the tokenizer.

    Raises:
        InputError: none of them names one.
    """
    found: set[Any] = set()
    for holder in (model.generation_config, model.config.get_text_config(decoder=True), tokenizer):
        named = getattr(holder, "eos_token_id", None)
        found.update(named if isinstance(named, (list, tuple)) else [named])
    found.discard(None)
    if not found:
        raise InputError(
            "expected a model with an end-of-text token; got none; "
            "set eos_token_id in its generation config"
        )
    return tuple(sorted(found))


def start_ids(model: Any) -> tuple[int, ...]:
    """The tokens that the decoder of an encoder-decoder model begins with.

    Raises:
        InputError: the model names none.
    """
    for holder in (model.generation_config, model.config):
        named = getattr(holder, "decoder_start_token_id", None)
        if named is not None:
            return tuple(named) if isinstance(named, (list, tuple)) else (named,)
    raise InputError(
        "expected an encoder-decoder model with decoder_start_token_id; got none; "
        "set it in its generation config"
    )
