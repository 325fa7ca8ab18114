"""A model's key-value cache in which beams that share a prompt are reordered cheaply.

`transformers` appends to its cache by copying all of it at every step and reorders beams by
copying all of it again. Here keys and values lie in buffers that are written in place, and as
the beams of a prompt all hold the same prompt, going on with other beams of it moves only what
they wrote themselves.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import (
    Cache,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    EncoderDecoderCache,
)

from symdistill.errors import InputError

__all__ = ["BufferLayer", "RowCache"]


class BufferLayer(DynamicLayer):
    """One layer's keys and values of R rows, in buffers (R, H, capacity, D) written in place.

    Layers with a sliding window keep everything too: the model's mask hides what lies outside
    the window, and forgetting tokens stays possible.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.capacity = capacity  # tokens that `copy` makes room for; more are allowed, slower
        self._buffers: tuple[Tensor, ...] = ()  # keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write (R, H, new, D) keys and values; gives all of them so far as views."""
        if not self.is_initialized:  # the prompts are held as they are: more rows mostly follow
            self.lazy_initialization(key_states, value_states)
            self._buffers = (key_states, value_states)
            return self._show(key_states.shape[2])
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        if end > self._buffers[0].shape[2]:
            self._buffers = self._larger(max(end, self.capacity))
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        return self._show(end)

    def copy(self, rows: Tensor) -> BufferLayer:
        """A layer of its own that holds some of the rows."""
        twin = BufferLayer(self.capacity)
        twin.lazy_initialization(*self._buffers)
        twin._buffers = self._larger(max(self.get_seq_length(), self.capacity), rows)
        twin._show(self.get_seq_length())
        return twin

    def move(self, sources: Tensor, targets: Tensor, prompt: int) -> None:
        """Copy rows onto others that hold the same `prompt` tokens."""
        for shown in self._shown():
            written = shown[:, :, prompt:]
            written.index_copy_(0, targets, written.index_select(0, sources))

    def refill(self, source: BufferLayer, rows: Tensor, prompt: int) -> None:
        """Become `source.copy(rows)`, given that the first `prompt` tokens are right already."""
        length = source.get_seq_length()
        if length > self._buffers[0].shape[2]:
            self._buffers = self._larger(length)
        for buffer, shown in zip(self._buffers, source._shown(), strict=True):
            written = buffer[:, :, prompt:length]
            torch.index_select(shown[:, :, prompt:], 0, rows, out=written)
        self._show(length)

    def _larger(self, capacity: int, rows: Tensor | None = None) -> tuple[Tensor, ...]:
        """What is shown, or some rows of it, in new buffers with room for `capacity` tokens."""
        buffers = []
        for shown in self._shown():
            count, heads, length, width = shown.shape
            count = count if rows is None else len(rows)
            buffer = shown.new_empty((count, heads, capacity, width))
            if rows is None:
                buffer[:, :, :length] = shown
            else:
                torch.index_select(shown, 0, rows, out=buffer[:, :, :length])
            buffers.append(buffer)
        return tuple(buffers)

    def _show(self, length: int) -> tuple[Tensor, Tensor]:
        """Make the first `length` tokens those that the model attends to."""
        keys, values = (buffer[:, :, :length] for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values

    def _shown(self) -> list[Tensor]:
        return [buffer[:, :, : self.get_seq_length()] for buffer in self._buffers]


class RowCache:
    """What a model keeps of R rows: its cache, and what else belongs to each row.

    Attributes:
        cache: to be given to the model.
        items: (R,) which prompt each row goes on from.
        extras: tensors of R rows that depend on the prompt alone, such as its padding mask.
        prompt: tokens in the cache that all rows of one prompt share.
        sliding: whether some layer attends to the newest tokens only.
    """

    def __init__(self, model: Any, prompts: int, extras: dict[str, Tensor], capacity: int) -> None:
        """An empty cache of the kind the model asks for, with room for `capacity` tokens.

        Raises:
            InputError: the model keeps a recurrent state, which cannot forget its newest tokens.
        """
        decoder = model.get_decoder() if model.config.is_encoder_decoder else model
        own = DynamicCache(config=decoder.config)
        if model._is_stateful or not own.is_croppable:
            raise InputError(
                "expected a model whose cache can forget its newest tokens; "
                f"{type(model).__name__} keeps a recurrent state; use one with attention only"
            )
        self.sliding = any(own.is_sliding)
        plain = (DynamicLayer, DynamicSlidingWindowLayer)
        own.layers = [BufferLayer(capacity) if type(one) in plain else one for one in own.layers]
        self.cache: Cache = own
        if model.config.is_encoder_decoder:
            self.cache = EncoderDecoderCache(own, DynamicCache())
        self.items, self.extras, self.prompt = list(range(prompts)), extras, 0

    @property
    def written(self) -> int:
        """Tokens in the cache beyond the prompt."""
        return int(self.cache.get_seq_length()) - self.prompt

    def copy(self, rows: Tensor) -> RowCache:
        """An independent cache of some rows."""
        twin = copy.copy(self)
        twin.cache = copy.copy(self.cache)
        if isinstance(twin.cache, EncoderDecoderCache):
            twin.cache.self_attention_cache = copy.copy(twin.cache.self_attention_cache)
            twin.cache.cross_attention_cache = copy.copy(twin.cache.cross_attention_cache)
        for part in _parts(twin.cache):
            part.layers = list(part.layers)
        twin._replace(rows)
        return twin

    def select(self, rows: Tensor) -> None:
        """Go on with other rows, copying as little as can be."""
        if self.items_of(rows) != self.items:
            self._replace(rows)
            return
        sources = rows.tolist()
        targets = [target for target, source in enumerate(sources) if target != source]
        if not targets:
            return
        onto = torch.tensor(targets, device=rows.device)
        moved = rows.index_select(0, onto)
        for layer in _parts(self.cache)[0].layers:
            if isinstance(layer, BufferLayer):
                layer.move(moved, onto, self.prompt)
            else:
                layer.batch_select_indices(rows)

    def refill(self, source: RowCache, rows: Tensor) -> None:
        """Become `source.copy(rows)`, given that the rows' prompts are those held already."""
        layers = _parts(self.cache)[0].layers
        for index, layer in enumerate(_parts(source.cache)[0].layers):
            if isinstance(layer, BufferLayer):
                layers[index].refill(layer, rows, self.prompt)
            else:
                layers[index] = _copied(layer, rows)

    def items_of(self, rows: Tensor) -> list[int]:
        """Which prompt each of some rows goes on from."""
        return [self.items[row] for row in rows.tolist()]

    def _replace(self, rows: Tensor) -> None:
        self.items = self.items_of(rows)
        self.extras = {name: extra.index_select(0, rows) for name, extra in self.extras.items()}
        for part in _parts(self.cache):
            for index, layer in enumerate(part.layers):  # one by one, so that memory is freed
                part.layers[index] = _copied(layer, rows)


def _parts(cache: Cache) -> list[Any]:
    """The cache of the tokens written, and of an encoder-decoder model that of the prompts."""
    if isinstance(cache, EncoderDecoderCache):
        return [cache.self_attention_cache, cache.cross_attention_cache]
    return [cache]


def _copied(layer: Any, rows: Tensor) -> Any:
    """A cache layer of some rows that shares nothing with the given one."""
    if isinstance(layer, BufferLayer):
        return layer.copy(rows)
    twin = copy.copy(layer)  # such layers never write in place
    twin.batch_select_indices(rows)
    return twin
