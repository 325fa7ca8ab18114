"""What the choices of a whole reply come to: texts, log-probabilities, tokens.

A server's `usage` is believed only where it fits the choices that came. A reply without choices,
or without a word in them, ends as `NoAnswer` with what it was billed for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from symdistill.teachers.base import Decoding, NoAnswer, Prompt, Replies, Reply, bytes_bound
from symdistill.teachers.openai_request import WRAPPED, Server

_NAMES = ("model", "system_fingerprint")  # of a reply, worth keeping
_FURTHER = {"refusal", "reasoning", "reasoning_content"}  # of a message
_SLACK = 8  # tokens per sample by which a server may count more than it was allowed to write
_LEAST_LOGPROB = -9999.0  # nats; stands for minus infinity, which JSON cannot say


def plain_reply(body: Any, headers: Mapping[str, str], most: int) -> Replies | None:
    """One whole answer with sane figures and nothing to it, as nearly all are; else None.

    What `Reader` makes of it is the same (a test sees to that), in five times the time.
    """
    try:
        (choice,) = body["choices"]
        message, usage, finish = choice["message"], body["usage"], choice["finish_reason"]
        text, used_in, used = message["content"], usage["prompt_tokens"], usage["completion_tokens"]
    except (KeyError, TypeError, ValueError):
        return None
    if not (type(text) is type(finish) is str and type(used_in) is type(used) is int):
        return None
    further = (
        not _FURTHER.isdisjoint(message) or usage.get("prompt_tokens_details") or "error" in body
    )
    sane = text and finish and 0 < used_in <= 4096 and 0 < used <= most
    if further or not sane or "prompt_logprobs" in body or "prompt_logprobs" in choice:
        return None
    about = {name: body[name] for name in _NAMES if type(body.get(name)) is str}
    return Replies((Reply(text, finish, used, None, about),), used_in, headers)


class Reader:
    """Reads the choices of a whole reply and counts their tokens."""

    def __init__(
        self,
        prompt: Prompt,
        decoding: Decoding,
        server: Server,
        tokenizer: Callable[[str], int] | None,
    ) -> None:
        self.prompt = prompt
        self.decoding = decoding
        self.server = server
        self.tokenizer = tokenizer
        self.thought = 0  # tokens that the server says went into thinking

    def replies(
        self,
        body: Any,
        headers: Mapping[str, str],
        samples: int,
        at: str,
        told: Callable[[str], str],
    ) -> Replies:
        """What `body` says. `told` makes a reason of what the server, named `at`, wrote."""
        usage = _dict(_dict(body).get("usage"))
        tokens_in, sure_in = self._tokens_in(_whole(usage, "prompt_tokens"))
        used = _whole(usage, "completion_tokens")
        details = _dict(usage.get("completion_tokens_details"))
        self.thought = _whole(details, "reasoning_tokens") or 0
        listed = _dict(body).get("choices")
        choices = [one for one in listed if _is_choice(one)] if isinstance(listed, list) else []
        if not choices:
            most = samples * self.decoding.max_new_tokens
            raise NoAnswer(
                "bad_reply",
                told(f"expected a JSON object with choices from {at}; got {_glance(body)}"),
                tokens_in=tokens_in,
                tokens_out=most if used is None else min(used, most),
            )
        if all(isinstance(one.get("index"), int) for one in choices):
            choices.sort(key=lambda one: int(one["index"]))
        texts = [self._text(one) for one in choices[:samples]]
        logprobs = [self._logprobs(one.get("logprobs")) for one in choices[:samples]]
        finishes = [_text_or(one.get("finish_reason"), "unknown") for one in choices[:samples]]
        tokens, sure_out = self._tokens_out(used, len(choices), texts, logprobs, finishes)
        self._raise_if_silent(choices[:samples], texts, finishes, (tokens_in, sum(tokens)), told)

        about: dict[str, Any] = {
            name: body[name] for name in _NAMES if isinstance(body.get(name), str)
        }
        if not (sure_in and sure_out):
            about["tokens_estimated"] = True
        replies = []
        for n, choice in enumerate(choices[:samples]):
            mine = about | self._about(choice)
            if n == 0:
                mine |= _about_prompt(body, usage)
            text = self._unwrapped(texts[n])
            replies.append(Reply(text, finishes[n], tokens[n], logprobs[n], mine))
        return Replies(replies, tokens_in, headers)

    def _text(self, choice: Mapping[str, Any]) -> str:
        message = choice.get("message")
        content = message.get("content") if isinstance(message, dict) else choice.get("text")
        if isinstance(content, list):  # a text in parts
            parts = [one.get("text") for one in content if isinstance(one, dict)]
            content = "".join(part for part in parts if isinstance(part, str))
        return content if isinstance(content, str) else ""

    def _unwrapped(self, text: str) -> str:
        """A choice out of the object in which it was written."""
        output = self.decoding.output
        if output is None or output.choices is None or self.server == "vllm":
            return text
        try:
            value = json.loads(text.strip())
        except (ValueError, RecursionError):
            return text  # cut off by max_new_tokens, or not held to the form
        inner = value.get(WRAPPED) if isinstance(value, dict) else value
        return inner if isinstance(inner, str) else text

    def _about(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        """What else a choice brings: why it is silent, what was thought before."""
        message = _dict(choice.get("message"))
        about: dict[str, Any] = {}
        if refusal := _text_or(message.get("refusal"), ""):
            about["refusal"] = refusal
        thought = message.get("reasoning_content") or message.get("reasoning")
        if _text_or(thought, ""):
            about["reasoning"] = thought
        if choice.get("prompt_logprobs") is not None:
            about["prompt_logprobs"] = choice["prompt_logprobs"]
        return about

    def _raise_if_silent(
        self,
        choices: Sequence[Mapping[str, Any]],
        texts: Sequence[str],
        finishes: Sequence[str],
        billed: tuple[int, int],
        told: Callable[[str], str],
    ) -> None:
        if any(texts):
            return
        refusals = [self._about(one).get("refusal") for one in choices]
        if any(refusals) or "content_filter" in finishes:
            said = next((one for one in refusals if one), "a content filter stopped the answer")
            raise NoAnswer("refused", told(said), tokens_in=billed[0], tokens_out=billed[1])
        why = "the model ended without a word"
        if "length" in finishes:
            why = (
                f"all {self.decoding.max_new_tokens} tokens went into thinking, none into the "
                "answer; raise decoding.max_new_tokens"
            )
        raise NoAnswer("empty", why, tokens_in=billed[0], tokens_out=billed[1])

    # Log-probabilities, in the shape that `Reply` describes.

    def _logprobs(self, given: Any) -> tuple[Mapping[str, Any], ...] | None:
        if self.decoding.top_logprobs is None or not isinstance(given, dict):
            return None
        if isinstance(given.get("content"), list):
            entries = [self._entry(one) for one in given["content"]]
        else:
            entries = self._columns(given)
        whole = tuple(one for one in entries if one is not None)
        return whole if whole and len(whole) == len(entries) else None

    def _entry(self, one: Any) -> dict[str, Any] | None:
        plain = _plain_entry(one)
        if plain is None:
            return None
        top = one.get("top_logprobs")
        others = [_plain_entry(other) for other in top] if isinstance(top, list) else []
        plain["top"] = [other for other in others if other][: self.decoding.top_logprobs]
        return plain

    def _columns(self, given: Mapping[str, Any]) -> list[dict[str, Any] | None]:
        """The older shape: a list of tokens beside a list of figures."""
        tokens, figures = given.get("tokens"), given.get("token_logprobs")
        if not isinstance(tokens, list) or not isinstance(figures, list):
            return []
        if len(tokens) != len(figures):
            return []
        top = given.get("top_logprobs")
        if not isinstance(top, list) or len(top) != len(tokens):
            top = [None] * len(tokens)
        entries = []
        for token, figure, others in zip(tokens, figures, top, strict=True):
            entry = _plain_entry({"token": token, "logprob": figure})
            if entry is not None:
                named = others.items() if isinstance(others, dict) else ()
                some = [_plain_entry({"token": name, "logprob": value}) for name, value in named]
                known = sorted((x for x in some if x), key=lambda x: float(-x["logprob"]))
                entry["top"] = known[: self.decoding.top_logprobs]
            entries.append(entry)
        return entries

    # Tokens. What is billed is what `usage` says, unless that cannot be.

    def _tokens_in(self, used: int | None) -> tuple[int, bool]:
        """The prompt's tokens, and whether the server said so."""
        # A server may put a long system prompt of its own before ours, but not a library.
        if used is not None and 0 < used <= 4096:
            return used, True
        bound = bytes_bound(self.prompt)
        if used is not None and 0 < used <= 4 * bound + 4096:
            return used, True
        if self.tokenizer is None:
            return math.ceil(bound / 3), False
        if isinstance(self.prompt, str):
            texts = [self.prompt]
        else:
            texts = [text for message in self.prompt for text in message.values()]
        return max(1, sum(self.tokenizer(text) for text in texts)), False

    def _tokens_out(
        self,
        used: int | None,
        choices: int,
        texts: Sequence[str],
        logprobs: Sequence[Sequence[Any] | None],
        finishes: Sequence[str],
    ) -> tuple[list[int], bool]:
        """Tokens of each text, and whether they are counted: by the server, or token by token.

        `used` is of all choices that came, wanted or not, and includes what was thought.
        """
        least = float(sum(len(entries) for entries in logprobs if entries is not None))
        most = choices * (self.decoding.max_new_tokens + _SLACK)
        if used is not None and most < used <= most + self.thought:
            return _shares(used, [len(text) + 1 for text in texts]), True  # no limit to thinking
        if used is not None and used > most:
            used = None
        if used is not None and choices == 1 and used >= max(least, bool(texts[0])):
            return [used], True
        counted: list[int] | None = None
        if all(entries is not None for entries in logprobs):
            counted = [len(entries or ()) for entries in logprobs]
        elif self.tokenizer is not None:
            counted = [self.tokenizer(text) for text in texts]
            least = 0.9 * sum(counted)  # a text can be cut into tokens in more than one way
        one_of_several = counted is None and choices > 1 and self.server == "llamacpp"
        if used is None or one_of_several or used < max(least, sum(map(bool, texts))):
            guesses = [self._guess(*one) for one in zip(texts, finishes, strict=True)]
            return counted or guesses, counted is not None
        weights = counted or [len(text) + 1 for text in texts]
        return _shares(used, weights), len(texts) == choices

    def _guess(self, text: str, finish: str) -> int:
        """A text's tokens where nothing else is known: rather too many than too few."""
        if finish == "length":
            return self.decoding.max_new_tokens
        guess = math.ceil(len(text.encode("utf-8", "replace")) / 3) + 1
        return min(guess, self.decoding.max_new_tokens)


def _is_choice(one: Any) -> bool:
    return isinstance(one, dict) and (
        isinstance(one.get("message"), dict) or isinstance(one.get("text"), str)
    )


def _text_or(value: Any, otherwise: str) -> str:
    return value if isinstance(value, str) and value else otherwise


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _whole(numbers: Mapping[str, Any], name: str) -> int | None:
    value = numbers.get(name)
    return value if type(value) is int and value >= 0 else None


def _glance(body: Any) -> str:
    if isinstance(body, dict):
        return f"an object with {', '.join(map(str, list(body)[:6])) or 'nothing in it'}"
    return f"{type(body).__name__}"


def _about_prompt(body: Mapping[str, Any], usage: Mapping[str, Any]) -> dict[str, Any]:
    """What a reply says of the prompt; kept with the first sample alone."""
    about: dict[str, Any] = {}
    cached = _whole(_dict(usage.get("prompt_tokens_details")), "cached_tokens")
    if cached:
        about["cached_tokens"] = cached
    if body.get("prompt_logprobs") is not None:
        about["prompt_logprobs"] = body["prompt_logprobs"]
    return about


def _plain_entry(one: Any) -> dict[str, Any] | None:
    """One token's log-probability, or None where it is not one."""
    if not isinstance(one, dict) or not isinstance(one.get("token"), str):
        return None
    figure = one.get("logprob")
    if isinstance(figure, bool) or not isinstance(figure, (int, float, type(None))):
        return None
    try:
        nats = float(figure) if figure is not None else -math.inf
    except OverflowError:
        nats = -math.inf
    token, given = one["token"], one.get("bytes")
    if not (isinstance(given, list) and all(type(b) is int and 0 <= b < 256 for b in given)):
        # Of a token that is part of a character, the text does not say which bytes.
        partial = "\ufffd" in token or token.startswith(("bytes:", "token_id:"))
        given = None if partial else list(token.encode("utf-8", "replace"))
    return {
        "token": token,
        "bytes": given,
        "logprob": nats if math.isfinite(nats) else _LEAST_LOGPROB,
    }


def _shares(total: int, weights: Sequence[int]) -> list[int]:
    """A whole number split in proportion to weights; the shares add up to it."""
    left, weight = total, sum(weights)
    shares = []
    for one in weights:
        share = round(left * one / weight) if weight else left
        shares.append(share)
        left, weight = left - share, weight - one
    return shares
