"""What is made of an OpenAI-compatible server's reply, as plain functions without a network.

A server is believed in little: its `usage` only where it fits the choices that came. What it
writes into an error goes through `Key.redact` before it becomes a reason. Whatever bytes come,
they end as `Replies`, `Again`, `NoAnswer`, `InputError` or `RunError`.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from symdistill.errors import InputError, RunError
from symdistill.teachers.base import Again, Decoding, NoAnswer, Prompt, Replies, Reply, bytes_bound
from symdistill.teachers.openai_request import WRAPPED, Server
from symdistill.teachers.pacing import retry_after
from symdistill.teachers.secrets import Key

_NAMES = ("model", "system_fingerprint")  # of a reply, worth keeping
_FURTHER = {"refusal", "reasoning", "reasoning_content"}  # of a message
_SLACK = 8  # tokens per sample by which a server may count more than it was allowed to write
_LEAST_LOGPROB = -9999.0  # nats; stands for minus infinity, which JSON cannot say

_OVERFLOW = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum (context|model) length|max_model_len"
    r"|exceeds? (the )?(available |maximum |model'?s? )*context|context (size|length|window)\b"
    r".{0,40}exceeded|prompt (is )?too long|max_tokens must be at least 1, got -"
    r"|inputs?` tokens \+ `?max_new_tokens",
    re.IGNORECASE | re.DOTALL,
)
_REFUSED = re.compile(
    r"content_filter|content_policy|ResponsibleAIPolicy|content management policy"
    r"|\binvalid_prompt\b|flagged|moderation",
    re.IGNORECASE,
)
_NO_CREDIT = re.compile(
    r"insufficient[_ ](quota|credits?|balance|funds)|billing_(hard_limit|not_active)|out of credit",
    re.IGNORECASE,
)
_ABOUT_N = re.compile(r"\bn_cmpl\b|['\"`]n['\"`]|\bn (must|should|cannot|has to|>|is not)\b")
_OURS = {"temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "logprobs"}
_OURS |= {"top_logprobs", "response_format", "structured_outputs", "guided_choice", "json_schema"}

_decode = json.JSONDecoder(parse_constant=lambda name: None).decode


class NotThere(InputError):
    """404: the model or the path; who can, adds what is there."""


class OtherTokensField(Again):
    """The server wants `max_completion_tokens` for `max_tokens`."""


class NoSeveral(Again):
    """The server takes no `n`, or not one this large."""


def read_reply(
    status: int,
    headers: Mapping[str, str],
    raw: bytes,
    samples: int,
    *,
    prompt: Prompt,
    decoding: Decoding,
    server: Server = "openai",
    key: Key | None = None,
    tokenizer: Callable[[str], int] | None = None,
    at: str = "the server",
) -> Replies:
    """What a server's reply to one request says.

    Args:
        status: of HTTP.
        headers: names in lower case.
        raw: the body as it came, decompressed.
        samples: how many were asked for.
        prompt: what was asked.
        decoding: how it was to be answered.
        server: the server's kind.
        key: taken out of everything that the server wrote.
        tokenizer: counts the tokens of a text where the server's own figures cannot be right.
        at: the server's name for people.

    Raises:
        Again: it was cut off, or the server says so (408, 409, 425, 429, 5xx).
        NoAnswer: refused, empty, longer than the model reads, or of another shape.
        InputError: the key, the address, the model or the decoding is wrong.
        RunError: the account has no credit.
    """
    if key is not None:
        raw = key.scrub(raw)
    if not 200 <= status < 300:
        raise refusal(status, headers, error_of(raw), samples, key, at)
    body = _whole_json(raw, headers, key, at)
    if decoding.output is None and decoding.top_logprobs is None:
        plain = _plain_reply(body, headers, decoding.max_new_tokens)
        if plain is not None:
            return plain
    if isinstance(body, dict) and body.get("error"):
        complaint = error_of(raw)
        raise refusal(complaint.status or 500, headers, complaint, samples, key, at)
    return _Reader(prompt, decoding, server, tokenizer).replies(body, headers, samples, key, at)


def _plain_reply(body: Any, headers: Mapping[str, str], most: int) -> Replies | None:
    """One whole answer with sane figures and nothing to it, as nearly all are; else None.

    What `_Reader` makes of it is the same (a test sees to that), in five times the time.
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


def _whole_json(raw: bytes, headers: Mapping[str, str], key: Key | None, at: str) -> Any:
    """The JSON of a reply; a reply without it was cut off on its way, or is a gateway's page."""
    try:
        return json_of(raw)
    except ValueError:
        start = beginning(raw, key)
        what = "was cut off" if start[:1] in ("{", "[", "") else f"begins with {start!r}"
        raise Again(
            f"a reply that is no whole JSON came from {at}: it {what}",
            maybe_billed=True,
            headers=headers,
        ) from None


def json_of(raw: bytes) -> Any:
    """The JSON value of a body.

    Raises:
        ValueError: it is not UTF-8, not JSON, not whole, or nested beyond reason.
    """
    try:
        body = _decode(raw.decode())
        # Half of a surrogate pair can be written in JSON, but neither stored nor sent.
        return _mended(body) if b"\\ud" in raw or b"\\uD" in raw else body
    except RecursionError:
        raise ValueError("nested beyond reason") from None


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        if value.isascii():
            return value
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_mended(one) for one in value]
    if isinstance(value, dict):
        return {_mended(name): _mended(one) for name, one in value.items()}
    return value


def told(text: str, key: Key | None) -> str:
    """A reason as it may be kept: without the key, on one line, at most 300 characters."""
    line = " ".join(text.split())[:4000]
    line = key.redact(line) if key is not None else line
    return line if len(line) <= 300 else f"{line[:299]}…"


def beginning(raw: bytes, key: Key | None) -> str:
    """How a body begins, for a reason; redacted before it is cut, so that no half key is left."""
    return told(raw[:4000].decode("utf-8", "replace"), key)[:40]


class _Complaint:
    """What an error object says."""

    def __init__(self, message: str, names: Sequence[Any], param: Any = None) -> None:
        self.message = message
        said = [str(name) for name in names if isinstance(name, (str, int))]
        self.names = " ".join(said)
        self.param = param if isinstance(param, str) else ""
        self.text = f"{self.names} {message}"
        codes = [int(name) for name in said if re.fullmatch(r"[45]\d\d", name, re.ASCII)]
        self.status = codes[0] if codes else _status_of(self.names)


def _status_of(names: str) -> int | None:
    """The HTTP status that an error's code or type in words stands for."""
    words = {
        "rate_limit": 429,
        "overloaded": 503,
        "unavailable": 503,
        "model_not_found": 404,
        "authentication": 401,
        "invalid_api_key": 401,
        "permission": 403,
        "invalid_request": 400,
        "insufficient_quota": 402,
        "exceed_context_size": 400,
    }
    return next((status for word, status in words.items() if word in names.lower()), None)


def error_of(raw: bytes) -> _Complaint:
    """What the body of an error says, in JSON or in any other way."""
    try:
        return _complaint(_mended(_decode(raw.decode("utf-8", "replace"))))
    except (ValueError, RecursionError):
        return _Complaint(raw[:4000].decode("utf-8", "replace"), ())


def _complaint(body: Any) -> _Complaint:
    """The message and the codes of the error objects in use, which are many."""
    if not isinstance(body, dict):
        return _Complaint(str(body)[:2000], ())
    error = body.get("error") or body
    if isinstance(error, dict):
        message = next((error[name] for name in ("message", "detail") if error.get(name)), "")
        inner = error.get("innererror")
        names = [error.get("code"), error.get("type")]
        names += [inner.get("code")] if isinstance(inner, dict) else []
        text = message if isinstance(message, str) else json.dumps(message)
        return _Complaint(text or json.dumps(error), names, error.get("param"))
    return _Complaint(str(error), [body.get("code"), body.get("type")])


def refusal(
    status: int,
    headers: Mapping[str, str],
    complaint: _Complaint,
    samples: int,
    key: Key | None,
    at: str,
) -> Exception:
    """What a status other than 2xx means for who asked."""
    said = told(complaint.message, key) or "nothing"
    said_so = f"{at} answered {status}: {said}"
    if 300 <= status < 400:
        where = told(headers.get("location", "").partition("?")[0], key) or "an unnamed place"
        return InputError(
            f"expected answers at {at}; got {status}, a redirect to {where}; if you trust that "
            "place, set base_url to it"
        )
    if status == 402 or (status in (403, 429) and _NO_CREDIT.search(complaint.text)):
        return RunError(
            f"expected an account with credit; {said_so}; add credit there, then start the run "
            "again: what it has received is kept"
        )
    if status in (400, 413, 422, 500) and _OVERFLOW.search(complaint.text):
        return NoAnswer("context_overflow", said_so)
    if status == 404 or "model_not_found" in complaint.names:
        return NotThere(
            f"expected the model and its path to exist; {said_so}; check the model's name and "
            "base_url (most end in /v1)"
        )
    if status in (400, 403, 422) and _REFUSED.search(complaint.text):
        return NoAnswer("refused", said_so)
    if status in (401, 403):
        source = f"the one from {key.source} was refused" if key is not None else "none was given"
        return InputError(
            f"expected a key that may use this model; {source}: {said_so}; check the key and its "
            "rights" + ("" if key is not None else ", and name it with `key: env:NAME`")
        )
    if status in (408, 409, 425, 429) or status >= 500:
        return Again(
            said_so,
            after_s=retry_after(headers, time.time()),
            throttled=status in (429, 503, 529),
            # A gateway gave up waiting for a model that may have gone on writing.
            maybe_billed=status in (408, 502, 504, 524),
            headers=headers,
        )
    if "max_completion_tokens" in complaint.message and "max_tokens" in complaint.message:
        return OtherTokensField(said_so)
    if samples > 1 and (complaint.param == "n" or _ABOUT_N.search(complaint.message)):
        return NoSeveral(said_so)
    if complaint.param in _OURS:
        return InputError(
            f"expected a server that takes decoding's {complaint.param}; {said_so}; change "
            "decoding, or the teacher"
        )
    return NoAnswer("bad_request", said_so)


class _Reader:
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
        self, body: Any, headers: Mapping[str, str], samples: int, key: Key | None, at: str
    ) -> Replies:
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
                told(f"expected a JSON object with choices from {at}; got {_glance(body)}", key),
                tokens_in=tokens_in,
                tokens_out=most if used is None else min(used, most),
            )
        if all(isinstance(one.get("index"), int) for one in choices):
            choices.sort(key=lambda one: int(one["index"]))
        texts = [self._text(one) for one in choices[:samples]]
        logprobs = [self._logprobs(one.get("logprobs")) for one in choices[:samples]]
        finishes = [_text_or(one.get("finish_reason"), "unknown") for one in choices[:samples]]
        tokens, sure_out = self._tokens_out(used, len(choices), texts, logprobs, finishes)
        self._raise_if_silent(choices[:samples], texts, finishes, (tokens_in, sum(tokens)), key)

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
            value = _decode(text.strip())
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
        key: Key | None,
    ) -> None:
        if any(texts):
            return
        refusals = [self._about(one).get("refusal") for one in choices]
        if any(refusals) or "content_filter" in finishes:
            said = next((one for one in refusals if one), "a content filter stopped the answer")
            raise NoAnswer("refused", told(said, key), tokens_in=billed[0], tokens_out=billed[1])
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
