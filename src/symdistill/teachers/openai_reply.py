"""What is made of an OpenAI-compatible server's reply, as plain functions without a network.

Whatever bytes come, they end as `Replies` (see `openai_choices`), `Again`, `NoAnswer`,
`InputError` or `RunError`. What a server writes into an error goes through `Key.redact` before
it becomes a reason.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from symdistill.errors import InputError, RunError
from symdistill.teachers.base import Again, Decoding, NoAnswer, Prompt, Replies
from symdistill.teachers.openai_choices import Reader, plain_reply
from symdistill.teachers.openai_request import Server
from symdistill.teachers.pacing import retry_after
from symdistill.teachers.secrets import Key

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
        plain = plain_reply(body, headers, decoding.max_new_tokens)
        if plain is not None:
            return plain
    if isinstance(body, dict) and body.get("error"):
        complaint = error_of(raw)
        raise refusal(complaint.status or 500, headers, complaint, samples, key, at)
    reader = Reader(prompt, decoding, server, tokenizer)
    return reader.replies(body, headers, samples, at, lambda text: told(text, key))


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
