"""How recipes ask a teacher: every sample in order, with what an answer brings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from symdistill.config import Config
from symdistill.errors import InputError
from symdistill.records import Failure
from symdistill.run import Run
from symdistill.teachers import TeacherSettings, ask_teacher
from symdistill.teachers.base import Answer, Ask, Backend, Decoding, Failed


def asked(
    run: Run,
    config: Config,
    who: TeacherSettings,
    asks: Sequence[Ask],
    decoding: Decoding,
    role: str,
    backend: Backend,
    label: str = "",
) -> Iterator[Answer | Failed]:
    """Every sample of the asks, in order; tokens are counted."""
    for one in ask_teacher(
        who,
        asks,
        decoding=decoding,
        seed=config.seed,
        ledger=run.ledger,
        budget=run.budget,
        role=role,
        progress=run.progress,
        label=label or role,
        backend=backend,
    ):
        if isinstance(one, Answer):
            run.count_tokens(one.tokens)
        yield one


def in_groups(
    outcomes: Iterator[Answer | Failed], asks: Sequence[Ask]
) -> Iterator[list[Answer | Failed]]:
    """The outcomes of each ask together."""
    for one in asks:
        yield [next(outcomes) for _ in range(one.samples)]


def greedy(decoding: Decoding) -> Decoding:
    """The same, taking the likeliest token each time."""
    return decoding.model_copy(update={"temperature": 0.0, "top_p": 1.0})


def likelihood(one: Answer) -> dict[str, Any]:
    """The log-probability of an answer in nats, and its tokens; None where it was not given."""
    if one.logprobs is None:
        return {"logprob": None, "tokens": one.tokens}
    return {"logprob": sum(token["logprob"] for token in one.logprobs), "tokens": one.tokens}


def failure(one: Failed) -> Failure:
    """A sample without an answer as a record."""
    return Failure.make(
        one.ask.item_id, one.sample_index, one.key, kind=one.kind, reason=one.reason,
        attempts=one.attempts,
    )  # fmt: skip


def existing(source: str) -> Path:
    """The path of a file that is there."""
    path = Path(source).expanduser()
    if not path.is_file():
        raise InputError(f"expected a file at {path}; there is none; check the path")
    return path


def told(counts: Mapping[str, int]) -> str:
    """Counts by reason in words."""
    return ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "none was asked"
