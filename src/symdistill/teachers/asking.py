"""Ask a teacher many things at once, pay for none of them twice, and stop at the budget.

Takes asks and a backend; gives an `Answer` or a `Failed` per sample, in the order of the asks.
It works in two passes. The first finds what the ledger does not hold yet and has it answered, in
whatever order answers come; every whole reply is committed within some 20 ms of its arrival.
The second reads the answers from the ledger in order. So memory does not grow with the number of
asks, a killed run goes on where it was, and a finished one is read again without a request.

How many requests are in flight and how fast they go out is `pacing`'s word; what they may cost
is the budget's, which reserves a request's upper bound before it is sent. What fails in a way
that may pass is tried again, after a jittered delay or when the server says; what does not pass
ends as a record with its reason.

Ctrl-C once: nothing more is sent, what is in flight is waited for and kept. Twice: stop now.

Does not: choose what to ask, judge answers, or serve two processes on one ledger.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from symdistill.budget import Budget, BudgetSettings
from symdistill.errors import RunError
from symdistill.ledger import KEY_LENGTH, Ledger
from symdistill.progress import Progress
from symdistill.records import canonical_json
from symdistill.teachers.base import Answer, Ask, Backend, Decoding, Failed
from symdistill.teachers.missing import Missing
from symdistill.teachers.rows import Rows
from symdistill.teachers.sending import Asking, Sending, blocks

_encode = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
).encode

Asks = Sequence[Ask] | Callable[[], Iterable[Ask]]
"""What to ask: a sequence, or a function that gives the same asks each time it is called."""


def ask(
    backend: Backend,
    asks: Asks,
    *,
    decoding: Decoding,
    ledger: Ledger,
    budget: Budget | None = None,
    role: str = "teacher",
    settings: Asking | None = None,
    progress: Progress | None = None,
    label: str = "ask",
    total: int | None = None,
    seed: int = 0,
) -> Iterator[Answer | Failed]:
    """Every sample of every ask, from the ledger where it is there, else from the backend.

    Args:
        backend: who is asked.
        asks: what is asked; equal ones share an answer.
        decoding: how the answers are to be written.
        ledger: where every reply is committed before it is used.
        budget: what may be spent, shared by all roles of a run; None: no limit.
        role: for the ledger's accounts.
        settings: how hard to ask.
        progress: who is told of it; nobody by default.
        label: the name of the stage in progress.
        total: how many samples there are, for progress; found out where `asks` is a sequence.
        seed: of the jitter between attempts; decides no answer.

    Yields:
        the samples of the first ask, then of the second, ...

    Raises:
        BudgetReached: nothing more fits; what was answered is in the ledger.
        InputError, RunError: no request can succeed.
        KeyboardInterrupt: after Ctrl-C, when what was in flight is kept.
    """
    keys = Keys(backend, decoding)
    if callable(asks):
        every = asks
    else:
        every, total = (lambda: asks), sum(one.samples for one in asks)
    work = Sending(
        Missing(backend, every, keys, ledger),
        Rows(backend, keys, decoding, role),
        ledger,
        budget or Budget(BudgetSettings(), None),
        settings or Asking(),
        seed,
        total,
    )
    progress = progress or Progress()
    with progress.stage(label, total or 0, "samples") as stage:
        work.run(stage, progress.say)
    yield from _read(ledger, every, keys)


class Keys:
    """The ledger keys of a backend's samples: the hash of the canonical request.

    The canonical request is {"decoding", "model", "prompt", "sample_index"}; its JSON is put
    together from parts that are encoded once, as this is done for every sample of every run.
    """

    def __init__(self, backend: Backend, decoding: Decoding) -> None:
        self.decoding = decoding
        self._shared = {
            "decoding": decoding.canonical(),
            "model": dict(backend.identity),
        }
        self._head = canonical_json(self._shared)[:-1] + ',"prompt":'

    def of(self, one: Ask) -> list[str]:
        """The keys of an ask's samples, in order."""
        digest = hashlib.sha256(f'{self._head}{_encode(one.prompt)},"sample_index":'.encode())
        keys = []
        for index in range(one.first_sample, one.first_sample + one.samples):
            whole = digest.copy()
            whole.update(b"%d}" % index)
            keys.append(whole.hexdigest()[:KEY_LENGTH])
        return keys

    def request(self, one: Ask, index: int) -> dict[str, Any]:
        """The canonical request of one sample."""
        return {**self._shared, "prompt": one.prompt, "sample_index": index}


def so_far(
    backend: Backend, asks: Callable[[], Iterable[Ask]], *, decoding: Decoding, ledger: Ledger
) -> Iterator[Answer | Failed]:
    """What the ledger holds of the asks, in their order; nothing is asked."""
    return _read(ledger, asks, Keys(backend, decoding), whole=False)


def _read(
    ledger: Ledger, every: Callable[[], Iterable[Ask]], keys: Keys, *, whole: bool = True
) -> Iterator[Answer | Failed]:
    """The second pass: answers and failures from the ledger, in the order of the asks."""
    for block in blocks(every()):
        named = [(one, keys.of(one)) for one in block]
        wanted = list({key for _, some in named for key in some})
        answered = ledger.lookup(wanted)
        lacking = [key for key in wanted if key not in answered]
        failed = ledger.failures(lacking) if lacking else {}
        for one, some in named:
            for index, key in enumerate(some, one.first_sample):
                if (got := answered.get(key)) is not None:
                    logprobs = got.get("logprobs")
                    yield Answer(
                        ask=one,
                        sample_index=index,
                        key=key,
                        text=got["text"],
                        finish_reason=got["finish_reason"],
                        tokens=got["tokens"],
                        logprobs=None if logprobs is None else tuple(logprobs),
                    )
                else:
                    why = failed.get(key)
                    if why is None and not whole:
                        continue
                    if why is None:
                        raise RunError(
                            "expected the same asks each time `asks` is called; got one that was "
                            "not there before; make them from something that does not change"
                        )
                    yield Failed(one, index, key, why.kind, why.reason, why.attempts)
