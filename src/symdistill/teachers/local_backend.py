"""A model on this machine, asked like any other teacher: `transformers`, in batches.

Requests that come in together are computed together, in a thread beside the event loop. Each text
has random numbers of its own, seeded by the run's seed, the request and the sample's number, so
its neighbours in a batch do not choose it, up to the rounding of floating-point sums: a text may
part ways where two tokens nearly tie.

A chat goes through the tokenizer's chat template; a text is gone on with as it is. An answer ends
at an end token, at one of the `stop` texts, or at `max_new_tokens`. Choices are enforced by
letting through, at each step, only tokens that go on with the tokens of a choice. Log-probabilities
are the model's own: before temperature, nucleus and choices.

Costs: one forward pass per token and batch; a 135M model writes about 110 tokens/s at batch 32 on
2 CPU cores.

Does not: JSON schemas (`llamacpp:` and servers do), constraints (`LocalTeacher` does), or more
than one process.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from symdistill.errors import InputError, RunError
from symdistill.models import resolve
from symdistill.records import content_hash
from symdistill.teachers.base import (
    Decoding,
    NoAnswer,
    Price,
    Prompt,
    Replies,
    Reply,
    bytes_bound,
)
from symdistill.teachers.local import LocalTeacher, _end_tokens, likeliest_tokens

if TYPE_CHECKING:
    import torch

GATHER_S = 0.01  # how long a batch waits for more requests


@dataclass(frozen=True, slots=True)
class _Request:
    tokens: list[int]  # of the prompt
    seeds: list[int]  # one per sample
    decoding: Decoding
    replies: asyncio.Future[list[Reply]]


class LocalBackend:
    """A causal language model of this machine as a backend.

    Args:
        model: `embedded:smollm2`, a folder, or a hub id with its revision.
        revision: of a hub id, where it is not in `model`.
        seed: the run's seed.
        batch_size: samples that are computed together.

    Raises:
        InputError: no such model.
    """

    def __init__(
        self,
        model: str = "embedded:smollm2",
        *,
        revision: str | None = None,
        seed: int = 0,
        batch_size: int = 32,
    ) -> None:
        found = resolve(model, revision=revision)
        self.name = f"local:{model}"
        self.identity: Mapping[str, Any] = {
            "model": found.fingerprint,
            "seed": seed,
            "precision": "float32",
        }
        self.price: Price | None = Price(input=0, output=0)
        self.samples_per_request = batch_size
        self.at_once: int | None = 2 * batch_size
        self.notes: list[str] = []
        self._batch_size = batch_size
        self._teacher = LocalTeacher(found, batch_size=batch_size)
        self._waiting: deque[_Request] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._halted = threading.Event()
        self._checked: Decoding | None = None
        self._model: Any = None

    async def start(self) -> None:
        """Load the weights.

        Raises:
            InputError: the folder holds no language model, or its tokenizer is of another family.
        """
        self._halted.clear()
        await asyncio.to_thread(self._load)

    async def check(self, decoding: Decoding) -> None:
        """Refuse what this backend cannot do.

        Raises:
            InputError: a JSON schema, further fields, or choices longer than `max_new_tokens`.
        """
        if decoding is self._checked:
            return
        if decoding.extra:
            raise InputError(
                f"expected no decoding.extra with {self.name}; got {', '.join(decoding.extra)}; "
                "leave it out"
            )
        if decoding.output is not None and decoding.output.json_schema is not None:
            raise InputError(
                f"expected free text or choices from {self.name}; got a JSON schema, which it "
                "cannot enforce; use llamacpp: or a server"
            )
        if decoding.output is not None and decoding.output.choices is not None:
            longest = max(map(len, self._tokens_of(decoding.output.choices)))
            if longest > decoding.max_new_tokens:
                raise InputError(
                    f"expected decoding.max_new_tokens of at least {longest}, the longest "
                    f"choice's tokens; got {decoding.max_new_tokens}; raise it"
                )
        self._checked = decoding

    async def send(
        self, prompt: Prompt, samples: int, decoding: Decoding, *, first_sample: int = 0
    ) -> Replies:
        """Wait for a place in a batch; gives every sample that was asked for, up to a batch.

        Raises:
            NoAnswer: the prompt is empty, too long, or not one that the chat template takes.
            InputError: see `check`.
            RunError: the memory does not suffice, or the weights are damaged.
        """
        await self.check(decoding)
        tokens = self._read(prompt, decoding)
        request = [dict(self.identity), prompt, decoding.model_dump(mode="json")]
        indices = range(first_sample, first_sample + min(samples, self._batch_size))
        seeds = [int(content_hash([*request, index]), 16) for index in indices]
        replies = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(tokens, seeds, decoding, replies))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return Replies(await replies, tokens_in=len(tokens))

    async def close(self) -> None:
        """Stop what is being written and give the weights' memory back; may be called twice."""
        self._halted.set()
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await worker
        _cancel(self._waiting)
        self._waiting.clear()
        self._model = None
        self._teacher.unload()

    def tokens_bound(self, prompt: Prompt) -> int:
        """At most this many tokens are read of a prompt."""
        return bytes_bound(prompt)

    # -- inside -----------------------------------------------------------------------------

    def _load(self) -> None:
        from symdistill.decoding import TokenTable

        self._model, self._tokenizer = self._teacher._load()
        self._eos = _end_tokens(self._model, self._tokenizer)
        self._table = TokenTable.from_tokenizer(self._tokenizer)

    def _read(self, prompt: Prompt, decoding: Decoding) -> list[int]:
        """The tokens of a prompt."""
        if isinstance(prompt, str):
            tokens: list[int] = self._tokenizer(prompt)["input_ids"]
        elif self._tokenizer.chat_template is None:
            raise InputError(
                f"expected a model with a chat template; {self.name} has none; give its prompts "
                "as texts to go on with"
            )
        else:
            import jinja2

            try:
                text = self._tokenizer.apply_chat_template(
                    [dict(message) for message in prompt],
                    add_generation_prompt=True,
                    tokenize=False,
                )
            except jinja2.TemplateError as error:
                raise NoAnswer("bad_request", f"the chat template refuses it: {error}") from None
            tokens = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if not tokens:
            raise NoAnswer("bad_request", "the prompt is empty")
        most = getattr(self._model.config, "max_position_embeddings", None)
        if most is not None and len(tokens) + decoding.max_new_tokens > most:
            raise NoAnswer(
                "context_overflow",
                f"{len(tokens)} tokens of prompt and {decoding.max_new_tokens} of answer are more "
                f"than the {most} that the model reads",
            )
        return tokens

    def _tokens_of(self, choices: Sequence[str]) -> list[tuple[int, ...]]:
        found = self._tokenizer(list(choices), add_special_tokens=False)["input_ids"]
        return [tuple(tokens) for tokens in found]

    async def _work(self) -> None:
        """Answer what waits, batch after batch, until nothing does."""
        while self._waiting:
            await asyncio.sleep(GATHER_S)
            batch = self._next_batch()
            try:
                written = await asyncio.to_thread(self._write, batch)
            except asyncio.CancelledError:
                _cancel(batch)
                raise
            except Exception as error:
                for one in batch:
                    if not one.replies.done():
                        one.replies.set_exception(error)
            else:
                for one in batch:
                    replies = [written.popleft() for _ in one.seeds]
                    if not one.replies.done():
                        one.replies.set_result(replies)

    def _next_batch(self) -> list[_Request]:
        """The oldest request, and those after it with the same decoding that fit beside it."""
        batch: list[_Request] = []
        rows = 0
        for one in list(self._waiting):
            same = not batch or one.decoding == batch[0].decoding
            if same and rows + len(one.seeds) <= self._batch_size:
                batch.append(one)
                rows += len(one.seeds)
                self._waiting.remove(one)
        return batch

    def _write(self, batch: Sequence[_Request]) -> deque[Reply]:
        """The replies to all samples of a batch, in order; in the worker's thread."""
        import torch

        from symdistill.decoding import SeededSampling

        decoding = batch[0].decoding
        prompts = [one.tokens for one in batch for _ in one.seeds]
        inputs = self._tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
        inputs = inputs.to(self._model.device)
        width = int(inputs["input_ids"].shape[1])
        processors: list[Any] = []
        kept = None
        if decoding.top_logprobs is not None:
            kept = _Kept(decoding.top_logprobs)
            processors.append(kept)
        choices: dict[tuple[int, ...], str] = {}
        if decoding.output is not None and decoding.output.choices is not None:
            texts = decoding.output.choices
            choices = dict(zip(self._tokens_of(texts), texts, strict=True))
            processors.append(_OneOf(list(choices), width, self._eos))
        if decoding.temperature > 0:
            seeds = [seed for one in batch for seed in one.seeds]
            processors.append(
                SeededSampling(seeds, temperature=decoding.temperature, top_p=decoding.top_p)
            )
        end = _End(self._table.token_bytes, decoding.stop, self._halted)
        try:
            out = likeliest_tokens(
                self._model,
                inputs,
                processors=processors,
                stop=end,
                eos=self._eos,
                max_new_tokens=decoding.max_new_tokens,
                folder=self._teacher.model.folder,
            )
        except torch.OutOfMemoryError as error:
            raise RunError(
                f"expected memory for {len(prompts)} samples at once; {self.name} ran out of it; "
                "set a smaller batch_size"
            ) from error
        found = kept.entries(out, self._table.token_bytes) if kept else None
        replies: deque[Reply] = deque()
        for row, written in enumerate(out.tolist()):
            length, ended = end.length(written, self._eos)
            tokens = tuple(written[:length])
            text = choices.get(tokens)
            if text is None:
                text = self._tokenizer.decode(
                    tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
                )
                marks = [at for mark in decoding.stop if (at := text.find(mark)) >= 0]
                text = text[: min(marks, default=None)]
            else:
                ended = True
            replies.append(
                Reply(
                    text,
                    "stop" if ended else "length",
                    length,
                    logprobs=None if found is None else tuple(found[row][:length]),
                )
            )
        return replies


def _cancel(requests: Iterable[_Request]) -> None:
    for one in requests:
        one.replies.cancel()


class _OneOf:
    """Lets through the tokens that go on with the tokens of a choice, and its end."""

    def __init__(self, choices: Sequence[tuple[int, ...]], width: int, eos: Sequence[int]) -> None:
        self._paths = [(*choice, end) for choice in choices for end in eos]
        self._width = width
        self._eos = eos

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        import torch

        masked = torch.full_like(scores, -torch.inf)
        for row, written in enumerate(input_ids[:, self._width :].tolist()):
            n, so_far = len(written), tuple(written)
            onward = {path[n] for path in self._paths if len(path) > n and path[:n] == so_far}
            allowed = sorted(onward or self._eos)
            masked[row, allowed] = scores[row, allowed]
        return masked


class _End:
    """Stops a row whose text holds a stop text, and all of them when the backend is closed."""

    def __init__(
        self, token_bytes: Sequence[bytes], stop: Sequence[str], halted: threading.Event
    ) -> None:
        self._token_bytes = token_bytes
        self._marks = [mark.encode() for mark in stop]
        self._halted = halted
        self._texts: list[bytearray] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        import torch

        last = input_ids[:, -1].tolist()
        self._texts = self._texts or [bytearray() for _ in last]
        for text, token in zip(self._texts, last, strict=True):
            text += self._bytes(token)
        ended = [self._halted.is_set() or self._marked(text) for text in self._texts]
        return torch.tensor(ended, device=input_ids.device)

    def length(self, row: Sequence[int], eos: Sequence[int]) -> tuple[int, bool]:
        """How many tokens of a row were written, and whether it ended there."""
        text = bytearray()
        for i, token in enumerate(row):
            if token in eos:
                return i, True
            text += self._bytes(token)
            if self._marked(text):
                return i + 1, True
        return len(row), False

    def _marked(self, text: bytearray) -> bool:
        return any(mark in text for mark in self._marks)

    def _bytes(self, token: int) -> bytes:
        return self._token_bytes[token] if token < len(self._token_bytes) else b""


class _Kept:
    """Keeps the log-probabilities of what is chosen, and of the likeliest tokens beside it."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._last: torch.Tensor | None = None  # (B, V) of the step before
        self._chosen: list[list[float]] = []  # by step and row
        self._likeliest: list[tuple[list[list[float]], list[list[int]]]] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self._last is not None:
            self._choose(input_ids[:, -1])
        self._last = scores.float().log_softmax(-1)
        values, ids = self._last.topk(min(self._top, scores.shape[1]), dim=1)
        self._likeliest.append((values.tolist(), ids.tolist()))
        return scores

    def entries(
        self, out: torch.Tensor, token_bytes: Sequence[bytes]
    ) -> list[list[dict[str, Any]]]:
        """By row: what a `Reply` holds of each of the tokens (B, N)."""
        self._choose(out[:, -1])

        def entry(token: int, logprob: float) -> dict[str, Any]:
            written = token_bytes[token] if token < len(token_bytes) else b""
            text = written.decode("utf-8", "replace")
            return {"token": text, "bytes": list(written), "logprob": logprob}

        return [
            [
                entry(token, chosen[row])
                | {"top": [entry(*one) for one in zip(ids[row], values[row], strict=True)]}
                for token, chosen, (values, ids) in zip(
                    tokens, self._chosen, self._likeliest, strict=True
                )
            ]
            for row, tokens in enumerate(out.tolist())
        ]

    def _choose(self, tokens: torch.Tensor) -> None:
        assert self._last is not None
        self._chosen.append(
            self._last.gather(1, tokens[:, None].to(self._last.device))[:, 0].tolist()
        )
