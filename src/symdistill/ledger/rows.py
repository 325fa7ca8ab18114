"""What the ledger holds: calls as rows, what they come to, and their texts as stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from symdistill.records import canonical_json, content_hash

KEY_LENGTH = 32  # hexadecimal digits: a clash must not hand one request another's answer
PICO = 10**12  # money is added up in whole 1e-12 USD: exact, in any order


def request_key(request: Mapping[str, Any]) -> str:
    """The key of a request: a hash of everything that decides its answer."""
    return content_hash(request, KEY_LENGTH)


@dataclass(frozen=True, slots=True)
class Call:
    """One answered sample.

    Where one request brought several samples, its first carries the request's `tokens_in`, its
    seconds and its `requests`; the others have 0 there.
    """

    key: str
    role: str  # "teacher", "critic", "judge" ...
    model: str  # name as the user wrote it
    request: Mapping[str, Any]  # canonical; its `sample_index` tells its samples apart
    response: Mapping[str, Any]
    tokens_in: int
    tokens_out: int
    wall_s: float  # in a batch, the call's share of it
    cost_usd: float | None = None  # None: unknown
    requests: int = 1  # sent requests that are counted here


@dataclass(frozen=True, slots=True)
class FailedCall:
    """A sample that ended without an answer; what it was billed for, if anything, is known."""

    key: str
    role: str
    model: str
    request: Mapping[str, Any]
    kind: str  # "context_overflow", "refused", "gave_up" ...
    reason: str
    attempts: int
    tokens_in: int = 0
    tokens_out: int = 0
    wall_s: float = 0.0
    cost_usd: float | None = 0.0
    requests: int = 1  # 0 where all its attempts are counted as lost


@dataclass(frozen=True, slots=True)
class LostCall:
    """A request that may have been billed and brought no answer; its figures are bounds."""

    key: str
    role: str
    model: str
    reason: str
    tokens_in: int
    tokens_out: int
    cost_usd: float | None
    wall_s: float = 0.0
    requests: int = 1


@dataclass(frozen=True, slots=True)
class Account:
    """What the calls of one role, model and outcome come to."""

    role: str
    model: str
    outcome: Literal["answered", "failed", "lost"]
    calls: int
    requests: int
    tokens_in: int
    tokens_out: int
    wall_s: float
    pico_usd: int  # of the calls whose price is known, in 1e-12 USD
    unpriced: int  # requests whose price is not known


@dataclass(frozen=True, slots=True)
class Session:
    """The work of one process on the run; what it leased bounds what it had in flight."""

    id: int
    started_at: str
    wall_s: float
    leased_requests: int
    leased_tokens: int
    leased_pico_usd: int


def pico(usd: float) -> int:
    """An amount in whole 1e-12 USD."""
    return round(usd * PICO)


# canonical_json without its look at every value; the same text for plain dicts and lists
_encode: Callable[[Any], str] = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
).encode


def as_json(value: Any) -> str:
    """JSON text that SQLite takes, whatever a server sent: NaN as null, half characters escaped."""
    try:
        text = _encode(value)
        text.encode("utf-8")
        return text
    except (TypeError, ValueError):
        plain = _finite(value)
        try:
            text = canonical_json(plain)
            text.encode("utf-8")
            return text
        except UnicodeEncodeError:
            return json.dumps(plain, sort_keys=True, separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return value


def storable(text: str) -> str:
    """A text that SQLite takes: half characters escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def split(request: Mapping[str, Any]) -> tuple[int, str, int | None]:
    """What the samples of a request share, with its hash; and which of them this is."""
    index = request.get("sample_index")
    if type(index) is int:
        request = {key: value for key, value in request.items() if key != "sample_index"}
    else:
        index = None
    text = as_json(request)
    mark = hashlib.sha256(text.encode("utf-8")).digest()[:8]
    return int.from_bytes(mark, "big", signed=True), text, index


def joined(request: str, sample_index: int | None) -> dict[str, Any]:
    """The request that was `split`."""
    whole: dict[str, Any] = json.loads(request)
    if sample_index is not None:
        whole["sample_index"] = sample_index
    return whole
