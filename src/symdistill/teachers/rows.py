"""What came of a request, as rows of the ledger: the same however it was sent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from symdistill.ledger import Call, FailedCall, LostCall
from symdistill.teachers.base import Backend, Decoding, NoAnswer, Replies, Reply

if TYPE_CHECKING:
    from symdistill.teachers.asking import Keys
    from symdistill.teachers.sending import _Job


@dataclass(frozen=True, slots=True)
class Rows:
    """Writes the rows of one teacher in one role."""

    backend: Backend
    keys: Keys
    decoding: Decoding
    role: str
    price_share: float = 1.0
    """What is billed, as a share of the stated price."""

    def bound(self, jobs: Iterable[_Job]) -> tuple[int, int]:
        """At most so many tokens go in and come out of some requests."""
        tokens_in = samples = 0
        for job in jobs:
            tokens_in += job.bound_in
            samples += len(job.keys)
        return tokens_in, samples * self.decoding.max_new_tokens

    def cost_usd(self, tokens_in: int, tokens_out: int) -> float | None:
        """What so many tokens cost; None where the price is unknown."""
        price = self.backend.price
        return None if price is None else self.price_share * price.cost_usd(tokens_in, tokens_out)

    def kept(
        self, job: _Job, got: Replies, wall_s: float = 0.0
    ) -> tuple[list[Call], list[FailedCall]]:
        """Of the samples that a reply brought; one without a word has failed."""
        calls: list[Call] = []
        failed: list[FailedCall] = []
        for n, reply in enumerate(got.replies[: len(job.keys)]):
            row = self._row(job, n, got.tokens_in if n == 0 else 0, reply.tokens, wall_s)
            if reply.text:
                calls.append(Call(**row, response=_response(reply)))
            else:
                why = f"the model ended without a word (finish reason {reply.finish_reason})"
                failed.append(FailedCall(**row, kind="empty", reason=why, attempts=job.attempts))
        return calls, failed

    def failed(self, job: _Job, error: NoAnswer, wall_s: float = 0.0) -> list[FailedCall]:
        """Of all samples of a request that ended without an answer."""
        failed: list[FailedCall] = []
        for n in range(len(job.keys)):
            tokens = (error.tokens_in, error.tokens_out) if n == 0 else (0, 0)
            row = self._row(job, n, *tokens, wall_s)
            if error.kind == "gave_up":
                row["requests"] = 0  # what was sent for it is with the lost ones
            failed.append(
                FailedCall(**row, kind=error.kind, reason=error.reason, attempts=job.attempts)
            )
        return failed

    def lost(self, key: str, reason: str, tokens_in: int, tokens_out: int) -> LostCall:
        """Of a request that may have been billed and brought nothing."""
        cost = self.cost_usd(tokens_in, tokens_out)
        return LostCall(key, self.role, self.backend.name, reason, tokens_in, tokens_out, cost)

    def _row(
        self, job: _Job, n: int, tokens_in: int, tokens_out: int, wall_s: float
    ) -> dict[str, Any]:
        """What the ledger keeps of a job's n-th sample, however it ended."""
        return {
            "key": job.keys[n],
            "role": self.role,
            "model": self.backend.name,
            "request": self.keys.request(job.ask, job.first + n),
            "tokens_in": tokens_in,
            "tokens_out": tokens_out,
            "cost_usd": self.cost_usd(tokens_in, tokens_out) if tokens_in + tokens_out else 0.0,
            "wall_s": wall_s if n == 0 else 0.0,
            "requests": int(n == 0),
        }


def _response(reply: Reply) -> dict[str, Any]:
    """A reply as the ledger keeps it."""
    kept: dict[str, Any] = {
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "tokens": reply.tokens,
    }
    if reply.logprobs is not None:
        kept["logprobs"] = list(reply.logprobs)
    if reply.about:
        kept["about"] = dict(reply.about)
    return kept
