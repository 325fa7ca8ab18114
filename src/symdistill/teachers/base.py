"""What every teacher shares: what is asked, how it is to be answered, what comes back.

An `Ask` is a prompt and the numbers of the samples wanted of it. A `Backend` sends one prompt
and gives `Replies`, or says why not: `Again` (worth another try), `NoAnswer` (this prompt has no
answer here), or an `InputError` / `RunError` (no prompt will: a wrong key, a model that is not
there). What surrounds a backend (the ledger, the budget, retries, pace) is the same for all and
lives in `asking`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pydantic import Field, model_validator

from symdistill.config import Count, Settings

Message = Mapping[str, str]
"""One turn of a chat: {"role": "system" | "user" | "assistant", "content": text}."""

Prompt = str | tuple[Message, ...]
"""A text to go on with, or a chat to answer."""


class Output(Settings):
    """The form an answer must have; the server enforces it while it decodes."""

    choices: tuple[str, ...] | None = None
    """The answer is one of these texts."""

    json_schema: dict[str, Any] | None = None
    """The answer is JSON of this schema."""

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Output:
        if (self.choices is None) == (self.json_schema is None):
            raise ValueError("expected either choices or json_schema")
        if self.choices is not None and len(set(self.choices)) < 2:
            raise ValueError("expected at least two different choices")
        return self


class Decoding(Settings):
    """How a teacher is to write its answers; all of it is part of a request's key."""

    temperature: float = Field(0.7, ge=0, allow_inf_nan=False)
    """Divides the logits; 0 takes the likeliest token each time."""

    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus: the smallest set of tokens with this probability is drawn from (1 = all)."""

    max_new_tokens: Count = Field(512, ge=1)
    """An answer that has not ended by then is cut off; also what a budget reserves."""

    stop: tuple[str, ...] = ()
    """Texts at which an answer ends; they are not part of it."""

    top_logprobs: Count | None = Field(None, ge=0, le=20)
    """Keep the log-probability of each token and of this many others; null: keep none."""

    output: Output | None = None
    """null: free text."""

    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the request, where the teacher's `server` is said to know them."""

    def canonical(self) -> dict[str, Any]:
        """All of it as JSON values, with a schema as its text: the order of its properties is
        the order in which they are written.
        """
        values = self.model_dump(mode="json")
        if self.output is not None and self.output.json_schema is not None:
            values["output"]["json_schema"] = json.dumps(self.output.json_schema)
        return values


class Price(Settings):
    """What the teacher's owner bills, as the user states it; USD per million tokens."""

    input: float = Field(ge=0, allow_inf_nan=False)
    """USD per million tokens of prompt."""

    output: float = Field(ge=0, allow_inf_nan=False)
    """USD per million tokens of answer."""

    def cost_usd(self, tokens_in: int, tokens_out: int) -> float:
        """What a request of this size costs."""
        return (self.input * tokens_in + self.output * tokens_out) / 1e6


@dataclass(frozen=True, slots=True)
class Ask:
    """Samples number `first_sample` to `first_sample + samples - 1` of a prompt."""

    prompt: Prompt
    item_id: str = ""
    samples: int = 1
    first_sample: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """One text as a backend received it.

    `logprobs` holds one entry per token where they were asked for: {"token": text, "bytes": list
    of 0..255 or None, "logprob": nats, "top": [{"token", "bytes", "logprob"}, ...]}.
    `about` is what else is worth keeping: the model that the server says answered, and such.
    """

    text: str
    finish_reason: str  # "stop", "length", "content_filter" ... as the server says it
    tokens: int  # of this text
    logprobs: tuple[Mapping[str, Any], ...] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Replies:
    """What one request brought: at most as many texts as were asked for, at least one."""

    replies: Sequence[Reply]
    tokens_in: int  # of the prompt, counted once
    headers: Mapping[str, str] = field(default_factory=dict)  # lower-case names


@dataclass(frozen=True, slots=True)
class Answer:
    """A text that is in the ledger. `cost_usd` is None where the price is unknown."""

    ask: Ask
    sample_index: int
    key: str  # of the ledger row
    text: str
    finish_reason: str
    tokens: int
    logprobs: tuple[Mapping[str, Any], ...] | None = None


NoAnswerKind = Literal[
    "context_overflow",  # the prompt is longer than the model reads
    "refused",  # a content filter, or a refusal field
    "empty",  # the model ended without a word
    "bad_request",  # the server will not take this request
    "bad_reply",  # what came has not the shape of an answer
    "not_recorded",  # a recorded teacher never said anything here
    "gave_up",  # every attempt failed in a way that was worth another
]


@dataclass(frozen=True, slots=True)
class Failed:
    """An ask without an answer, and why; it is in the ledger and can be retried alone."""

    ask: Ask
    sample_index: int
    key: str
    kind: str
    reason: str
    attempts: int


class Again(Exception):
    """A request that failed in a way that another attempt may not.

    Args:
        reason: one clause for people.
        after_s: the server's own word on when to come back, in seconds.
        throttled: the server says it is asked too much (429, 503).
        maybe_billed: it was sent and may have been worked on (a reply that was cut off, a
            time-out, a reset): a budget counts it at its bound.
        unreachable: nothing listens there, or not any more.
        headers: of the reply, names in lower case.
    """

    def __init__(
        self,
        reason: str,
        *,
        after_s: float | None = None,
        throttled: bool = False,
        maybe_billed: bool = False,
        unreachable: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after_s = after_s
        self.throttled = throttled
        self.maybe_billed = maybe_billed
        self.unreachable = unreachable
        self.headers: Mapping[str, str] = headers or {}


class NoAnswer(Exception):
    """A request that this teacher will not answer, however often it is asked.

    `tokens_in` and `tokens_out` are what it was billed for, where it was.
    """

    def __init__(
        self, kind: NoAnswerKind, reason: str, *, tokens_in: int = 0, tokens_out: int = 0
    ) -> None:
        super().__init__(reason)
        self.kind: NoAnswerKind = kind
        self.reason = reason
        self.tokens_in = tokens_in
        self.tokens_out = tokens_out


class Backend(Protocol):
    """Something that answers prompts, many at a time on one event loop.

    `identity` is what a request's key says of the model: the same identity, the same answers.
    """

    name: str  # as the user wrote it
    identity: Mapping[str, Any]
    price: Price | None  # None: unknown. Price(input=0, output=0): nothing is billed
    samples_per_request: int  # more samples than this are asked for in several requests
    at_once: int | None = None  # more requests than this at once would only wait; None: not known
    notes: list[str]  # what the user should be told once; whoever tells it takes it out

    async def start(self) -> None:
        """Open connections and check what can be checked before the first request.

        Raises:
            InputError: what the user must mend (address, key, model name, output form).
            RunError: the server does not do what it should.
        """

    async def send(
        self, prompt: Prompt, samples: int, decoding: Decoding, *, first_sample: int = 0
    ) -> Replies:
        """Ask once, without retries; `first_sample` numbers the samples for who needs to know.

        Raises:
            Again, NoAnswer: see there.
            InputError, RunError: no request can succeed; the run stops.
        """

    async def check(self, decoding: Decoding) -> Replies | None:
        """See to it that this decoding can be had, before anything else is asked.

        Returns:
            what was billed for finding out; None where nothing was asked.

        Raises:
            InputError: it cannot; the run would only fail later.
        """

    async def close(self) -> None:
        """Give everything back; may be called twice."""

    def tokens_bound(self, prompt: Prompt) -> int:
        """At most this many tokens will be billed for a prompt."""


def output_bound(decoding: Decoding) -> int:
    """An upper bound on the tokens of an output's form, which some servers put into the prompt."""
    if decoding.output is None:
        return 0
    form = decoding.output.model_dump(mode="json", exclude_none=True)
    return 2 * len(json.dumps(form, ensure_ascii=False).encode("utf-8", "replace")) + 64


def bytes_bound(prompt: Prompt) -> int:
    """An upper bound on a prompt's tokens where no tokenizer is known.

    A byte-level tokenizer makes at most one token of a byte; a chat template adds a few per
    message (32 covers those in use) and a few of its own.
    """
    if isinstance(prompt, str):
        return len(prompt.encode("utf-8", "replace")) + 8
    texts = (part for message in prompt for part in message.values())
    return sum(len(text.encode("utf-8", "replace")) for text in texts) + 32 * len(prompt) + 64
