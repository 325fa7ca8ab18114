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
from typing import TYPE_CHECKING, Any

from symdistill.errors import RunError, SymdistillError
from symdistill.ledger import Call, FailedCall, LostCall
from symdistill.teachers.base import Again, NoAnswer, Replies
from symdistill.teachers.openai_reply import NoSeveral, OtherTokensField, json_of, told
from symdistill.teachers.rows import Rows
from symdistill.teachers.sending import _Job

if TYPE_CHECKING:
    from symdistill.budget import Amounts, Reservation
    from symdistill.teachers.openai import OpenAIBackend


@dataclass(frozen=True, slots=True)
class Terms(Rows):
    """What all batches of a pass share: who is asked, how, and on whose account."""

    backend: OpenAIBackend
    max_attempts: int = 1


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
    reserved: Amounts = (0, 0, 0)  # for all requests
    jobs: dict[str, _Job] = field(default_factory=dict)  # by first key: those without a line yet
    others: list[Request] = field(default_factory=list)  # of asks that are not ours
    reserved_for_others: Amounts = (0, 0, 0)
    reservation: Reservation | None = None
    maybe_made: bool = False  # its creation was asked for
    total: int = 0  # requests that are ours
    done: int = 0  # requests, by the server's count
    calls: list[Call] = field(default_factory=list)  # not committed yet, as the next two
    failed: list[FailedCall] = field(default_factory=list)
    lost: list[LostCall] = field(default_factory=list)
    again: list[_Job] = field(default_factory=list)  # to be asked in another batch
    error: SymdistillError | None = None  # ends the run, once all that came is committed
    requests_kept: int = 0  # committed, as the next two
    tokens: int = 0
    usd: float | None = 0.0

    def note(self) -> dict[str, Any]:
        """What a later process needs to go on with it; the prompts are in the asks."""
        noted = ("requests", "path", "made_at", "file_id", "id", "reserved")
        return {name: getattr(self, name) for name in noted}

    def settle(self) -> None:
        """Its rows are committed: what they cost is its sum now."""
        rows: list[Call | FailedCall | LostCall] = [*self.calls, *self.failed, *self.lost]
        self.requests_kept += sum(row.requests for row in rows)
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
            self.failed += terms.failed(job, error)
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
                    self.failed += terms.failed(job, NoAnswer("bad_request", why))
        if not requests_named:
            said = "; ".join(str(one.get("message")) for one in _problems(about)) or "no reason"
            self.error = RunError(
                f"expected {terms.backend.base_url} to take the batch {self.id}; got: "
                f"{told(said, terms.backend._key)}; mend that, then run the same command again"
            )

    def _keep(self, job: _Job, got: Replies, terms: Terms) -> None:
        """A whole reply; the samples that it lacks are asked for again."""
        calls, failed = terms.kept(job, got)
        self.calls += calls
        self.failed += failed
        brought = len(calls) + len(failed)
        if rest := job.keys[brought:]:
            self.again.append(_Job(job.ask, rest, job.first + brought, job.bound_in))

    def _ask_again(self, job: _Job, reason: str, terms: Terms, *, maybe_billed: bool) -> None:
        """Into a later batch, unless it was in too many; at its bound where it may be billed."""
        if maybe_billed:
            self.lost.append(terms.lost(job.keys[0], reason, *terms.bound([job])))
        if job.attempts < terms.max_attempts:
            self.again.append(job)
            return
        why = f"{job.attempts} attempts failed; the last: {reason}"
        self.failed += terms.failed(job, NoAnswer("gave_up", why))


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
