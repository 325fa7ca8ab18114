"""One batch: its requests, its note in the ledger, and what its lines come to.

A line of an output file is read as the direct path reads a reply, and becomes rows of the ledger
or a request to ask again. Lines come in any order; one that is cut, repeated or of nobody is
passed over, and a request without a line is asked again in a later batch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from symdistill.config import Count, Seconds, Settings
from symdistill.errors import RunError, SymdistillError
from symdistill.ledger import Call, FailedCall, LostCall
from symdistill.teachers.base import Again, Decoding, NoAnswer, Replies
from symdistill.teachers.openai_reply import NoSeveral, OtherTokensField, json_of, told
from symdistill.teachers.sending import _Job, _response

if TYPE_CHECKING:
    from symdistill.budget import Reservation
    from symdistill.teachers.asking import Keys
    from symdistill.teachers.openai import OpenAIBackend


class Batching(Settings):
    """How requests are batched. It decides no answer, so it is in no fingerprint."""

    requests_per_batch: Count = Field(50_000, ge=1, le=50_000)
    """At most this many requests in a batch."""

    bytes_per_batch: Count = Field(100_000_000, ge=1, le=200_000_000)
    """At most this many bytes in a batch's file."""

    open_batches: Count = Field(4, ge=1)
    """At most this many batches under way at once."""

    completion_window: Literal["24h"] = "24h"
    """Within what time the server promises to be done."""

    price_share: float = Field(0.5, ge=0, le=1)
    """What a request in a batch costs, as a share of the stated price."""

    poll: Seconds = Field(30.0, gt=0)
    """How long to wait between two looks at the open batches."""

    give_up: Seconds = Field(129_600.0, gt=0)
    """The run stops when no batch has moved for so long; the batches stay."""

    max_attempts: Count = Field(3, ge=1)
    """A request that came back this often without an answer is given up."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What all batches of a pass share: who is asked, how, and on whose account."""

    backend: OpenAIBackend
    keys: Keys
    decoding: Decoding
    role: str
    settings: Batching

    def bound(self, jobs: Sequence[_Job]) -> tuple[int, int]:
        """At most so many tokens go in and come out of some requests."""
        tokens_out = sum(self.decoding.max_new_tokens * len(job.keys) for job in jobs)
        return sum(job.bound_in for job in jobs), tokens_out

    def cost_usd(self, tokens_in: int, tokens_out: int) -> float | None:
        """What that costs in a batch; None where the price is unknown."""
        price = self.backend.price
        if price is None:
            return None
        return self.settings.price_share * price.cost_usd(tokens_in, tokens_out)

    def row(self, job: _Job, n: int, tokens_in: int, tokens_out: int) -> dict[str, Any]:
        """What the ledger keeps of a job's n-th sample, however it ended."""
        return {
            "key": job.keys[n],
            "role": self.role,
            "model": self.backend.name,
            "request": self.keys.request(job.ask, job.first + n),
            "tokens_in": tokens_in,
            "tokens_out": tokens_out,
            "cost_usd": self.cost_usd(tokens_in, tokens_out) if tokens_in + tokens_out else 0.0,
            "wall_s": 0.0,  # it waited in a queue: no measure of work
            "requests": int(n == 0),
        }


Request = tuple[str, int, int]
"""What a note holds of a request: the key of its first sample, how many, and which attempt."""


@dataclass(slots=True, eq=False)
class Batch:
    """A batch between the decision to submit it and the commit of its last answer."""

    mark: str  # random; in the note's name and in the batch's metadata
    requests: Sequence[Request]  # in the order of the file
    path: str  # of the requests, below the base URL
    made_at: float = field(default_factory=time.time)  # seconds since 1970
    file_id: str | None = None
    id: str | None = None
    jobs: dict[str, _Job] = field(default_factory=dict)  # by first key: those without a line yet
    others: list[Request] = field(default_factory=list)  # of asks that are not ours
    reservation: Reservation | None = None
    maybe_made: bool = False  # its creation was asked for
    total: int = 0  # requests that are ours
    done: int = 0  # requests, by the server's count
    calls: list[Call] = field(default_factory=list)  # not committed yet, as the next two
    failed: list[FailedCall] = field(default_factory=list)
    lost: list[LostCall] = field(default_factory=list)
    again: list[_Job] = field(default_factory=list)  # to be asked in another batch
    error: SymdistillError | None = None  # ends the run, once all that came is committed
    tokens: int = 0  # committed
    usd: float | None = 0.0

    def note(self) -> dict[str, Any]:
        """What a later process needs to go on with it; the prompts are in the asks."""
        noted = ("requests", "path", "made_at", "file_id", "id")
        return {name: getattr(self, name) for name in noted}

    def settle(self) -> None:
        """Its rows are committed: what they cost is its sum now."""
        rows: list[Call | FailedCall | LostCall] = [*self.calls, *self.failed, *self.lost]
        self.tokens += sum(row.tokens_in + row.tokens_out for row in rows)
        for row in rows:
            if self.usd is not None:
                self.usd = None if row.cost_usd is None else self.usd + row.cost_usd
        self.calls, self.failed, self.lost = [], [], []

    def take(self, raw: bytes, terms: Terms) -> None:
        """Read a line of an output file."""
        try:
            line = json_of(raw)
            job = self.jobs.pop(line["custom_id"])
        except (ValueError, KeyError, TypeError):
            return
        try:
            got = _reply(line, job, terms)
        except Again as error:
            if isinstance(error, OtherTokensField):
                terms.backend._tokens_field = "max_completion_tokens"
            elif isinstance(error, NoSeveral):
                terms.backend._ask_one_by_one(error.reason)
            self._ask_again(job, error.reason, terms, maybe_billed=error.maybe_billed)
        except NoAnswer as error:
            self._fail(job, error, terms)
        except SymdistillError as error:
            self.error = self.error or error
        else:
            self._keep(job, got, terms)

    def end(self, about: Mapping[str, Any], terms: Terms) -> None:
        """See to the requests that no line came for, when the batch has ended.

        Args:
            about: what the server says of the batch.
            terms: of the pass.
        """
        state = about["status"]
        if state == "failed":  # it was checked, and not begun
            if not queue_is_full(about):
                self._reject(about, terms)
            for job in self.jobs.values():
                job.attempts -= 1
        for job in self.jobs.values():
            why = f"its batch {self.id} ended ({state}) without a line for it"
            self._ask_again(job, why, terms, maybe_billed=state == "completed")
        self.jobs.clear()
        if state == "cancelled":
            self.error = self.error or RunError(
                f"expected the batch {self.id} to be answered; it was cancelled at "
                f"{terms.backend.base_url}; what it had answered is kept: run the same command to "
                "ask for the rest"
            )

    def _reject(self, about: Mapping[str, Any], terms: Terms) -> None:
        """What the server complains of: some requests, or the whole batch."""
        requests_named = False
        for problem in _problems(about):
            number = problem.get("line")
            if isinstance(number, int) and 0 < number <= len(self.requests):
                requests_named = True
                if job := self.jobs.pop(self.requests[number - 1][0], None):
                    why = told(str(problem.get("message")), terms.backend._key)
                    self._fail(job, NoAnswer("bad_request", why), terms)
        if not requests_named:
            said = "; ".join(str(one.get("message")) for one in _problems(about)) or "no reason"
            self.error = RunError(
                f"expected {terms.backend.base_url} to take the batch {self.id}; got: "
                f"{told(said, terms.backend._key)}; mend that, then run the same command again"
            )

    def _keep(self, job: _Job, got: Replies, terms: Terms) -> None:
        """A whole reply; the samples that it lacks are asked for again."""
        replies = got.replies[: len(job.keys)]
        for n, reply in enumerate(replies):
            row = terms.row(job, n, got.tokens_in if n == 0 else 0, reply.tokens)
            if reply.text:
                self.calls.append(Call(**row, response=_response(reply)))
            else:
                why = f"the model ended without a word (finish reason {reply.finish_reason})"
                self.failed.append(
                    FailedCall(**row, kind="empty", reason=why, attempts=job.attempts)
                )
        if rest := job.keys[len(replies) :]:
            self.again.append(_Job(job.ask, rest, job.first + len(replies), job.bound_in))

    def _ask_again(self, job: _Job, reason: str, terms: Terms, *, maybe_billed: bool) -> None:
        """Into a later batch, unless it was in too many; at its bound where it may be billed."""
        if maybe_billed:
            bound = terms.bound([job])
            self.lost.append(
                LostCall(
                    job.keys[0],
                    terms.role,
                    terms.backend.name,
                    reason,
                    *bound,
                    terms.cost_usd(*bound),
                )
            )
        if job.attempts < terms.settings.max_attempts:
            self.again.append(job)
            return
        why = f"{job.attempts} attempts failed; the last: {reason}"
        self._fail(job, NoAnswer("gave_up", why), terms)

    def _fail(self, job: _Job, error: NoAnswer, terms: Terms) -> None:
        for n in range(len(job.keys)):
            tokens = (error.tokens_in, error.tokens_out) if n == 0 else (0, 0)
            row = terms.row(job, n, *tokens)
            if error.kind == "gave_up":
                row["requests"] = 0
            self.failed.append(
                FailedCall(**row, kind=error.kind, reason=error.reason, attempts=job.attempts)
            )


def queue_is_full(about: Mapping[str, Any]) -> bool:
    """Whether a batch failed only because the account has too many tokens waiting already."""
    return any(one.get("code") == "token_limit_exceeded" for one in _problems(about))


def _problems(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    errors = about.get("errors")
    listed = errors.get("data") if isinstance(errors, dict) else None
    return [one for one in listed or () if isinstance(one, dict)]


def _reply(line: Mapping[str, Any], job: _Job, terms: Terms) -> Replies:
    """What a line says, read as the direct path reads a reply."""
    response = line.get("response")
    if not isinstance(response, dict):
        error = line.get("error")
        said = error.get("message") if isinstance(error, dict) else error
        raise Again(told(str(said or "a line without a reply"), terms.backend._key))
    body, status = response.get("body"), response.get("status_code")
    return terms.backend.read(
        status if isinstance(status, int) else 200,
        {},
        (body if isinstance(body, str) else json.dumps(body)).encode(),
        job.ask.prompt,
        len(job.keys),
        terms.decoding,
    )
