"""Teachers: language models that can be asked.

A configuration names one as KIND:MODEL; `open_backend` opens it, `ask_teacher` asks it:

    openai:gpt-4.1-mini          any OpenAI-compatible server, by `base_url`
    local:embedded:smollm2       a folder or hub id through transformers, in this process
    llamacpp:embedded:smollm2    a .gguf file behind a llama.cpp server of our own
    recorded:answers.parquet     a table of earlier outputs
    scripted:echo                gives the prompt back; scripts of your own from Python

Other packages add a kind by an entry point of the group `symdistill.teachers`: its name is the
kind, its object a function (settings, seed) -> `Backend`.
"""

from __future__ import annotations

import difflib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from symdistill.config import Count, Seconds, Settings
from symdistill.errors import InputError
from symdistill.teachers.base import Answer, Backend, Decoding, Failed, Price
from symdistill.teachers.local import LocalTeacher, LogProb, Sample, SampleRequest, Sampling

if TYPE_CHECKING:
    from symdistill.budget import Budget
    from symdistill.ledger import Ledger
    from symdistill.progress import Progress
    from symdistill.teachers.asking import Asks
    from symdistill.teachers.sending import Asking

__all__ = [
    "Batching",
    "LocalTeacher",
    "LogProb",
    "Sample",
    "SampleRequest",
    "Sampling",
    "TeacherSettings",
    "ask_teacher",
    "open_backend",
]

OPENAI_URL = "https://api.openai.com/v1"
ENTRY_POINTS = "symdistill.teachers"


class LocalSettings(Settings):
    """How a `local:` teacher uses this machine."""

    decides_nothing = frozenset({"batch_size"})

    batch_size: Count = Field(32, ge=1)
    """Samples that are computed together."""


class LlamaCppSettings(Settings):
    """How a `llamacpp:` teacher's server uses this machine."""

    decides_nothing = frozenset({"slots", "threads"})

    slots: Count = Field(8, ge=1, le=256)
    """Samples that are computed at a time."""

    context_tokens: Count = Field(2048, ge=64)
    """Room for a prompt and its answer, in each slot."""

    threads: Count | None = Field(None, ge=1)
    """null: one for each core that may be used."""


class RecordedSettings(Settings):
    """Where a `recorded:` teacher's table holds what."""

    prompt: str = "prompt"
    """The column of the prompts: texts, or chats (lists of {role, content}, or their JSON)."""

    answer: str = "answer"
    """The column of the answers; the prompts' own column where that holds whole chats."""


class Batching(Settings):
    """How requests are put into batches."""

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


class TeacherSettings(Settings):
    """Who is asked, at what price, and how hard."""

    decides_nothing = frozenset(
        {"key", "extra_headers", "price", "tokenizer", "batch", "samples_per_request"}
        | {"timeout", "max_concurrency", "rpm", "tpm", "max_attempts", "outage"}
    )

    model: str = "llamacpp:embedded:smollm2"
    """openai:NAME, local:MODEL, llamacpp:MODEL, recorded:TABLE or scripted:echo."""

    base_url: str | None = None
    """The server of an openai: teacher; most end in /v1. null: OpenAI's own."""

    key: str | None = None
    """Where the server's key is, never the key itself: env:NAME or file:PATH.
    null: env:OPENAI_API_KEY for OpenAI's own server, none for others."""

    api: Literal["chat", "completions"] = "chat"
    """chat answers messages, completions goes on with a text."""

    server: Literal["openai", "vllm", "llamacpp", "ollama"] = "openai"
    """What is behind base_url; decides which further fields decoding.extra may hold."""

    revision: str = ""
    """Of the model: a hub's branch, tag or commit (local:), or what you know of a server's."""

    extra_headers: dict[str, str] = Field(default_factory=dict)
    """Sent to the server with every request; never for keys."""

    terms: str = ""
    """Licence or terms of use of what this teacher writes, as you state them; kept with it."""

    price: Price | None = None
    """What is billed, {input: USD, output: USD} per million tokens. null: unknown for openai:,
    nothing for the others."""

    tokenizer: str | None = None
    """Counts tokens where the server does not say: embedded:smollm2, a folder, a hub id."""

    batch: Batching | None = None
    """{} asks through the server's /v1/batches: cheaper, within a day; null asks directly. What
    may be set: requests_per_batch, bytes_per_batch, open_batches, completion_window, price_share
    (of the stated price; 0.5), poll (30s), give_up (36h), max_attempts."""

    samples_per_request: Count | None = Field(None, ge=1)
    """Samples asked of a server at once; null: what its kind bears."""

    timeout: Seconds = Field(600.0, gt=0)
    """A request that has not been answered by then has failed."""

    max_concurrency: Count = Field(256, ge=1)
    """At most this many requests in flight."""

    rpm: Count | None = Field(None, ge=1)
    """Requests a minute that the teacher allows; null: what the server tells, if it does."""

    tpm: Count | None = Field(None, ge=1)
    """Tokens a minute that the teacher allows; null: what the server tells, if it does."""

    max_attempts: Count = Field(6, ge=1)
    """A request that failed this often in ways that may pass is given up."""

    outage: Seconds = Field(300.0, ge=0)
    """The run stops when the server has answered nothing for so long."""

    local: LocalSettings = LocalSettings()

    llamacpp: LlamaCppSettings = LlamaCppSettings()

    recorded: RecordedSettings = RecordedSettings()

    @model_validator(mode="after")
    def _hold_no_key(self) -> TeacherSettings:
        """Refused here, before a run folder keeps these settings."""
        from symdistill.teachers.openai import base_url_of, check_headers
        from symdistill.teachers.secrets import place_of

        if self.key is not None:
            place_of(self.key)
        if self.base_url is not None:
            base_url_of(self.base_url)
        check_headers(self.extra_headers)
        return self

    def asking(self) -> Asking:
        """How hard to ask, as `asking.ask` takes it."""
        from symdistill.teachers.sending import Asking

        return Asking(**{name: getattr(self, name) for name in Asking.model_fields})


Open = Callable[[TeacherSettings, int], Backend]


def open_backend(settings: TeacherSettings, *, seed: int) -> Backend:
    """The backend that the settings name; not started yet.

    Args:
        settings: who is asked.
        seed: the run's seed; it enters what local models write, nothing else.

    Raises:
        InputError: no such kind of teacher, or its settings do not fit.
    """
    kind, _, model = settings.model.partition(":")
    found = _KINDS.get(kind) or _third_party(kind)
    if found is None:
        known = sorted({*_KINDS, *(one.name for one in _entry_points())})
        near = difflib.get_close_matches(kind, known, n=1) if model else []
        meant = f"{near[0]}:{model}" if near else f"openai:{settings.model}"
        raise InputError(
            f"expected a teacher as KIND:MODEL, with the kinds {', '.join(known)}; got "
            f"{settings.model!r}; did you mean {meant!r}?"
        )
    if not model:
        raise InputError(
            f"expected a teacher as {kind}:MODEL; got {settings.model!r}; name the model"
        )
    if settings.batch is not None and kind != "openai":
        raise _no_batches(settings)
    return found(settings, seed)


def ask_teacher(
    settings: TeacherSettings,
    asks: Asks,
    *,
    decoding: Decoding,
    seed: int,
    ledger: Ledger,
    budget: Budget | None = None,
    role: str = "teacher",
    progress: Progress | None = None,
    label: str = "ask",
    total: int | None = None,
    backend: Backend | None = None,
) -> Iterator[Answer | Failed]:
    """Every sample of every ask: from the ledger, else asked as the settings say.

    Args:
        settings: who is asked, how hard, and whether in batches.
        asks: what is asked: a sequence, or a function that gives the same asks each time.
        decoding: how the answers are to be written.
        seed: the run's.
        ledger: where every reply is committed before it is used.
        budget: what may be spent; None: no limit.
        role: for the ledger's accounts.
        progress: who is told of it; nobody by default.
        label: the name of the stage in progress.
        total: how many samples there are, for progress.
        backend: what `open_backend` gave for these settings, where it was called already.

    Yields:
        the samples of the first ask, then of the second, ...

    Raises:
        BudgetReached: nothing more fits; what was answered is in the ledger.
        InputError, RunError: no request can succeed.
        KeyboardInterrupt: after Ctrl-C, when what was in flight is kept.
    """
    from symdistill.teachers.asking import ask

    backend = backend or open_backend(settings, seed=seed)
    if settings.batch is None:
        return ask(
            backend,
            asks,
            decoding=decoding,
            ledger=ledger,
            budget=budget,
            role=role,
            settings=settings.asking(),
            progress=progress,
            label=label,
            total=total,
            seed=seed,
        )
    from symdistill.teachers.batches import ask_in_batches
    from symdistill.teachers.openai import OpenAIBackend

    if not isinstance(backend, OpenAIBackend):
        raise _no_batches(settings)
    return ask_in_batches(
        backend,
        asks,
        decoding=decoding,
        ledger=ledger,
        budget=budget,
        role=role,
        settings=settings.batch,
        progress=progress,
        label=label,
        total=total,
    )


def _no_batches(settings: TeacherSettings) -> InputError:
    return InputError(
        f"expected an openai: teacher with `batch`; got {settings.model!r}; set batch: null"
    )


def _entry_points() -> importlib.metadata.EntryPoints:
    return importlib.metadata.entry_points(group=ENTRY_POINTS)


def _third_party(kind: str) -> Open | None:
    for one in _entry_points().select(name=kind):
        try:
            found: Open = one.load()
        except Exception as error:  # whatever importing a stranger's module raises
            raise InputError(
                f"expected the teachers {kind}: of {one.value}; they do not load: {error!r}; "
                "install or mend that package"
            ) from error
        return found
    return None


def _openai(settings: TeacherSettings, seed: int) -> Backend:
    from symdistill.teachers.openai import OpenAIBackend

    key = settings.key
    if key is None and settings.base_url is None:
        key = "env:OPENAI_API_KEY"
    return OpenAIBackend(
        settings.model,
        model=settings.model.partition(":")[2],
        base_url=settings.base_url or OPENAI_URL,
        key=key,
        api=settings.api,
        server=settings.server,
        revision=settings.revision,
        price=settings.price,
        timeout_s=settings.timeout,
        connections=settings.max_concurrency,
        samples_per_request=settings.samples_per_request,
        tokenizer=_counter(settings),
        extra_headers=settings.extra_headers,
    )


def _local(settings: TeacherSettings, seed: int) -> Backend:
    from symdistill.teachers.local_backend import LocalBackend

    backend = LocalBackend(
        settings.model.partition(":")[2],
        revision=settings.revision or None,
        seed=seed,
        batch_size=settings.local.batch_size,
    )
    return _priced(backend, settings)


def _llamacpp(settings: TeacherSettings, seed: int) -> Backend:
    from symdistill.teachers.llamacpp import LlamaCppBackend

    backend = LlamaCppBackend(
        settings.model.partition(":")[2],
        api=settings.api,
        seed=seed,
        slots=settings.llamacpp.slots,
        context_tokens=settings.llamacpp.context_tokens,
        threads=settings.llamacpp.threads,
        timeout_s=settings.timeout,
        tokenizer=_counter(settings),
    )
    return _priced(backend, settings)


def _recorded(settings: TeacherSettings, seed: int) -> Backend:
    from symdistill.teachers.recorded import RecordedBackend

    path = Path(settings.model.partition(":")[2]).expanduser()
    columns = settings.recorded
    backend = RecordedBackend(path, prompt=columns.prompt, answer=columns.answer)
    return _priced(backend, settings)


def _scripted(settings: TeacherSettings, seed: int) -> Backend:
    from symdistill.teachers.scripted import SHIPPED, ScriptedBackend

    name = settings.model.partition(":")[2]
    if name not in SHIPPED:
        raise InputError(
            f"expected scripted:{' or scripted:'.join(SHIPPED)}; got {settings.model!r}; a "
            "configuration runs no code: give a function of your own to "
            "symdistill.teachers.scripted.ScriptedBackend in Python"
        )
    return _priced(ScriptedBackend(SHIPPED[name], name=settings.model, seed=seed), settings)


def _priced(backend: Backend, settings: TeacherSettings) -> Backend:
    """A local backend at the price that the user states, if any (of electricity, say)."""
    if settings.price is not None:
        backend.price = settings.price
    return backend


def _counter(settings: TeacherSettings) -> Callable[[str], int] | None:
    from symdistill.teachers.counting import token_counter

    return None if settings.tokenizer is None else token_counter(settings.tokenizer)


_KINDS: Mapping[str, Open] = {
    "openai": _openai,
    "local": _local,
    "llamacpp": _llamacpp,
    "recorded": _recorded,
    "scripted": _scripted,
}
