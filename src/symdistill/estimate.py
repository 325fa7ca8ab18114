"""What a run would ask of its teachers, and what that would cost; nothing is sent.

Takes what a recipe says it will ask (`RoleCalls`) and the run's ledger, where there is one; gives
an `Estimate` per role and a word on the budget. Costs one pass over the prompts.

What is known: the number of requests, up to retries and to servers that give fewer samples at once
than their kind should. Tokens of prompts are counted by the teacher's tokenizer where it is named
or is on this machine, and are a quarter of the bytes elsewhere, with the bound beside it that a
budget reserves; the marks of a chat are those of the model's template where that lies beside the
tokenizer, else 4 a message and 3 a chat. Tokens of answers are
known up to their limit only; what the run's answers came to so far is the best guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from symdistill.budget import Budget
from symdistill.config import BudgetSettings
from symdistill.errors import InputError
from symdistill.ledger import Ledger
from symdistill.teachers import TeacherSettings, open_backend
from symdistill.teachers.asking import Keys
from symdistill.teachers.base import (
    Ask,
    Backend,
    Decoding,
    Message,
    Price,
    Prompt,
    output_bound,
)
from symdistill.teachers.sending import blocks

Range = tuple[float, float]
"""The least (or the best guess) and the most."""


@dataclass(frozen=True, slots=True)
class RoleCalls:
    """What a recipe will ask of one of its teachers."""

    role: str
    settings: TeacherSettings
    seed: int
    decoding: Decoding
    asks: Callable[[], Iterable[Ask]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one role would still ask for.

    Ranges end at what a budget reserves. Those of tokens begin with what is likely: for prompts
    the count, for answers the mean so far (`answer_tokens`, None: no answers yet) or nothing.
    """

    role: str
    model: str
    samples: int  # wanted in all
    cached: int  # in the ledger: not asked for again, not billed again
    failed: int  # in the ledger as failures
    requests: int
    counted_by: str  # the tokenizer, or ""
    tokens_in: Range
    tokens_out: Range
    answer_tokens: float | None
    price: Price | None
    price_share: float = 1.0  # of it that is billed: less in batches

    @property
    def usd(self) -> Range | None:
        """What it would cost; None where the price is unknown and something is to be asked."""
        if not self.requests:
            return 0.0, 0.0
        if self.price is None:
            return None
        (least_in, most_in), (least_out, most_out) = self.tokens_in, self.tokens_out
        return (
            self.price_share * self.price.cost_usd(round(least_in), round(least_out)),
            self.price_share * self.price.cost_usd(round(most_in), round(most_out)),
        )

    def lines(self) -> Iterator[tuple[str, str]]:
        """The estimate in words, as (what, how much)."""
        known = []
        if self.cached:
            known.append(f"{self.cached:,} are in the ledger and not billed again")
        if self.failed:
            known.append(f"{self.failed:,} failed earlier and are asked again by --retry-failed")
        yield "samples", f"{self.samples:,}{': ' if known else ''}{'; '.join(known)}"
        yield "requests", f"{self.requests:,}"
        if not self.requests:
            return
        how = f"counted by {self.counted_by}" if self.counted_by else "a quarter of the bytes"
        (least_in, most_in), (least_out, most_out) = self.tokens_in, self.tokens_out
        yield "tokens in", f"about {least_in:,.0f} ({how}), at most {most_in:,.0f}"
        likely = "no answers yet to go by"
        if self.answer_tokens is not None:
            likely = f"about {least_out:,.0f}: {self.answer_tokens:.1f} an answer so far"
        yield "tokens out", f"at most {most_out:,.0f} ({likely})"
        if self.usd is None:
            yield "cost", "price unknown; state it as `price` of this teacher to know"
        elif self.usd[1] == 0:
            yield "cost", "nothing is billed"
        else:
            batches = f", in batches at {self.price_share:g} of the price"
            cost = f"{self.usd[0]:.4f} to {self.usd[1]:.4f} USD"
            yield "cost", cost + batches * (self.price_share != 1)


def estimate(calls: RoleCalls, ledger: Ledger | None = None) -> Estimate:
    """What a role would still ask for.

    Args:
        calls: from the recipe.
        ledger: of the run, where it has begun.

    Raises:
        InputError: the teacher's settings do not fit, or the recipe's input is bad.
    """
    backend = open_backend(calls.settings, seed=calls.seed)
    count, counted_by = _counter(calls.settings)
    keys, form = Keys(backend, calls.decoding), output_bound(calls.decoding)
    samples = cached = failed = requests = 0
    least_in = most_in = 0.0
    to_ask: set[str] = set()
    for block in blocks(calls.asks()):
        named = [(one, keys.of(one)) for one in block]
        known = ledger.known([key for _, some in named for key in some]) if ledger else set()
        gone = ledger.failures(list(known)) if ledger else {}
        for one, some in named:
            missing = [i for i, key in enumerate(some) if key not in known and key not in to_ask]
            to_ask.update(some[i] for i in missing)
            samples += len(some)
            failed += sum(key in gone for key in some)
            cached += sum(key in known and key not in gone for key in some)
            if missing:
                times = _requests(missing, backend.samples_per_request)
                requests += times
                least_in += times * count(one.prompt)
                most_in += times * (backend.tokens_bound(one.prompt) + form)
    so_far = _answer_tokens(ledger, calls.role, backend)
    most_out = len(to_ask) * calls.decoding.max_new_tokens
    return Estimate(
        role=calls.role,
        model=backend.name,
        samples=samples,
        cached=cached,
        failed=failed,
        requests=requests,
        counted_by=counted_by,
        tokens_in=(least_in, max(least_in, most_in)),
        tokens_out=(len(to_ask) * (so_far or 0.0), float(most_out)),
        answer_tokens=so_far,
        price=backend.price,
        price_share=1.0 if calls.settings.batch is None else calls.settings.batch.price_share,
    )


def budget_lines(
    limits: BudgetSettings, estimates: Sequence[Estimate], ledger: Ledger | None = None
) -> Iterator[tuple[str, str]]:
    """Whether each limit of the budget would hold, as (limit, words)."""
    spent = Budget(limits, ledger).spent
    priced = [one.usd for one in estimates]
    usd = [one for one in priced if one is not None]
    tokens = [(one.tokens_in, one.tokens_out) for one in estimates]
    requests = float(sum(one.requests for one in estimates))
    wanted: dict[str, tuple[float | None, float, Range]] = {
        "usd": (limits.usd, spent.usd, (sum(a for a, _ in usd), sum(b for _, b in usd))),
        "requests": (limits.requests, spent.requests, (requests, requests)),
        "tokens": (
            limits.tokens,
            spent.tokens,
            (sum(a[0] + b[0] for a, b in tokens), sum(a[1] + b[1] for a, b in tokens)),
        ),
    }
    for name, (limit, before, (least, most)) in wanted.items():
        if limit is None:
            continue

        def said(value: float, name: str = name) -> str:
            return f"{value:.4f}" if name == "usd" else f"{value:,.0f}"

        if not most or before + most <= limit:
            word = "holds"
        elif before + least > limit:
            word = "will be reached: the run stops there, and keeps what it has"
        else:
            word = "may be reached: the run stops there, and keeps what it has"
        if name == "usd" and len(usd) < len(priced):
            word = "cannot be said, as a price is unknown"
            if not limits.allow_unknown_price:
                word += "; the run would refuse to begin"
        needs = said(least) if said(least) == said(most) else f"{said(least)} to {said(most)}"
        yield name, f"{said(before)} of {said(limit)} spent, {needs} to come: {word}"
    if limits.wall is not None:
        yield "wall", f"{spent.wall_s:,.0f} s of {limits.wall:,.0f} s spent; not estimated"


def _answer_tokens(ledger: Ledger | None, role: str, backend: Backend) -> float | None:
    """Tokens of an answer of this role and teacher so far, on average."""
    if ledger is None:
        return None
    for one in ledger.accounts():
        if (one.role, one.model, one.outcome) == (role, backend.name, "answered") and one.calls:
            return one.tokens_out / one.calls
    return None


def _requests(missing: Sequence[int], most: int) -> int:
    """Requests for samples with these numbers: each asks for so many that follow each other."""
    runs = [0]
    for before, after in pairwise([-2, *missing]):
        runs = [*runs, 1] if after != before + 1 else [*runs[:-1], runs[-1] + 1]
    return sum(-(-run // most) for run in runs)


def _counter(settings: TeacherSettings) -> tuple[Callable[[Prompt], float], str]:
    """What counts a prompt's tokens, and by which tokenizer; "" where only a guess can be had."""
    kind, _, model = settings.model.partition(":")
    name = settings.tokenizer or (model if kind in ("local", "llamacpp") else None)
    if name is None or name.endswith(".gguf"):
        return _guess, ""
    from symdistill.teachers.counting import chat_counter, token_counter

    try:
        text, chat = token_counter(name), chat_counter(name)
    except (InputError, ImportError):
        if settings.tokenizer is not None:
            raise
        return _guess, ""

    def count(prompt: Prompt) -> float:
        if isinstance(prompt, str):
            return text(prompt)
        return chat(prompt) if chat else _marked(prompt, text)

    return count, name


def _guess(prompt: Prompt) -> float:
    def quarter(text: str) -> float:
        return len(text.encode("utf-8", "replace")) / 4

    return quarter(prompt) if isinstance(prompt, str) else _marked(prompt, quarter)


def _marked(chat: Sequence[Message], count: Callable[[str], float]) -> float:
    return 3 + sum(4 + count(message["content"]) for message in chat)
