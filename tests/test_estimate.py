"""What a run would still ask for: what the ledger holds is not counted, nothing is sent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from symdistill import estimate as module
from symdistill.budget import Budget
from symdistill.config import BudgetSettings
from symdistill.errors import InputError
from symdistill.estimate import Estimate, RoleCalls, budget_lines, estimate
from symdistill.ledger import Ledger
from symdistill.teachers import TeacherSettings
from symdistill.teachers.asking import ask
from symdistill.teachers.base import Ask, Decoding, NoAnswer, Price, Prompt
from symdistill.teachers.scripted import ScriptedBackend

pytestmark = pytest.mark.unit

PRICE = Price(input=1e6, output=2e6)  # one USD a token in, two a token out
DECODING = Decoding(max_new_tokens=10)
ASKS = [Ask(f"Is {n} odd?", f"item-{n}", samples=3) for n in range(4)]


def answer(prompt: Prompt, sample: int) -> str:
    if "2" in prompt:
        raise NoAnswer("refused", "no")
    return "it is so"


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> ScriptedBackend:
    one = ScriptedBackend(answer, price=PRICE, samples_per_request=2)
    monkeypatch.setattr(module, "open_backend", lambda settings, seed: one)
    return one


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def calls(asks: Sequence[Ask] = ASKS, **settings: Any) -> RoleCalls:
    teacher = TeacherSettings(model="scripted:echo", **settings)
    return RoleCalls("teacher", teacher, 0, DECODING, lambda: asks)


def said(one: Estimate) -> dict[str, str]:
    return dict(one.lines())


def test_a_fresh_run_is_counted_whole(backend: ScriptedBackend) -> None:
    one = estimate(calls())
    assert (one.samples, one.cached, one.failed, one.requests) == (12, 0, 0, 8)
    assert one.tokens_in == (8 * len("Is 0 odd?") / 4, 8 * 3.0)
    assert one.tokens_out == (0, 120) and one.answer_tokens is None
    assert one.usd == (18, 24 + 240)
    assert "a quarter of the bytes" in said(one)["tokens in"]
    assert "no answers yet" in said(one)["tokens out"]
    assert backend.requests == 0


def test_what_the_ledger_holds_is_not_asked_again(backend: ScriptedBackend, ledger: Ledger) -> None:
    asked = [Ask(ASKS[0].prompt, samples=2), ASKS[2]]
    list(ask(backend, asked, decoding=DECODING, ledger=ledger))
    sent = backend.requests
    one = estimate(calls(), ledger)
    assert (one.samples, one.cached, one.failed) == (12, 2, 3)
    assert one.requests == 1 + 2 * 2
    assert one.answer_tokens == 3 and one.tokens_out == (7 * 3, 7 * 10)
    assert "2 are in the ledger" in said(one)["samples"] and "3 failed" in said(one)["samples"]
    assert backend.requests == sent


def test_what_was_estimated_is_what_is_asked(backend: ScriptedBackend, ledger: Ledger) -> None:
    before = estimate(calls(), ledger)
    list(ask(backend, ASKS, decoding=DECODING, ledger=ledger))
    assert backend.requests == before.requests
    after = estimate(calls(), ledger)
    assert (after.requests, after.tokens_in, after.tokens_out, after.usd) == (
        0, (0, 0), (0, 0), (0, 0),
    )  # fmt: skip
    assert "cost" not in said(after)


def test_equal_asks_are_asked_once(backend: ScriptedBackend, ledger: Ledger) -> None:
    twice = [ASKS[0], ASKS[1], ASKS[0]]
    one = estimate(calls(twice))
    assert (one.samples, one.requests, one.tokens_out[1]) == (9, 4, 60)
    list(ask(backend, twice, decoding=DECODING, ledger=ledger))
    assert backend.requests == 4


def test_a_price_is_unknown_free_or_halved_in_batches(backend: ScriptedBackend) -> None:
    whole = estimate(calls()).usd
    halved = estimate(calls(batch={}))
    assert whole is not None and halved.usd == (whole[0] / 2, whole[1] / 2)
    assert said(halved)["cost"] == "9.0000 to 132.0000 USD, in batches at 0.5 of the price"
    tenth = estimate(calls(batch={"price_share": 0.1}))
    assert tenth.usd == pytest.approx((whole[0] / 10, whole[1] / 10))
    backend.price = None
    unknown = estimate(calls())
    assert unknown.usd is None and "price unknown" in said(unknown)["cost"]
    backend.price = Price(input=0, output=0)
    assert said(estimate(calls()))["cost"] == "nothing is billed"


def test_a_tokenizer_counts_the_prompts(
    backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("symdistill.teachers.counting.token_counter", lambda name: lambda text: 5)
    monkeypatch.setattr("symdistill.teachers.counting.chat_counter", lambda name: None)
    chat = [Ask(({"role": "system", "content": "a"}, {"role": "user", "content": "b"}))]
    one = estimate(calls(chat, tokenizer="mine"))
    assert one.tokens_in[0] == 3 + 2 * (4 + 5)
    assert "counted by mine" in said(one)["tokens in"]


def test_a_tokenizer_that_is_not_there_is_told_only_where_it_was_named(
    backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="tokenizer"):
        estimate(calls(tokenizer="./absent"))
    settings = TeacherSettings(model="local:./absent")
    one = estimate(RoleCalls("teacher", settings, 0, DECODING, lambda: ASKS))
    assert one.counted_by == ""


# -- the budget ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"usd": 264}, "holds"),
        ({"usd": 263}, "may be reached"),
        ({"usd": 17}, "will be reached"),
        ({"requests": 8}, "holds"),
        ({"requests": 7}, "will be reached"),
        ({"tokens": 144}, "holds"),
        ({"tokens": 143}, "may be reached"),
        ({"tokens": 17}, "will be reached"),
        ({"wall": "2h"}, "not estimated"),
    ],
)
def test_whether_a_limit_holds(backend: ScriptedBackend, limits: dict[str, Any], told: str) -> None:
    one = estimate(calls())
    ((name, words),) = budget_lines(BudgetSettings(**limits), [one])
    assert [name] == list(limits) and told in words


def test_what_is_spent_counts(backend: ScriptedBackend, ledger: Ledger) -> None:
    list(ask(backend, ASKS[:1], decoding=DECODING, ledger=ledger))
    ((_, words),) = budget_lines(BudgetSettings(requests=8), [estimate(calls(), ledger)], ledger)
    assert words == "2 of 8 spent, 6 to come: holds"
    ((_, words),) = budget_lines(BudgetSettings(requests=7), [estimate(calls(), ledger)], ledger)
    assert "will be reached" in words
    ((_, words),) = budget_lines(BudgetSettings(requests=1), [estimate(calls([]), ledger)], ledger)
    assert words == "2 of 1 spent, 0 to come: holds"


def test_without_a_price_no_budget_in_usd_can_be_promised(backend: ScriptedBackend) -> None:
    backend.price = None
    one = estimate(calls())
    ((_, refused),) = budget_lines(BudgetSettings(usd=5), [one])
    assert "price is unknown" in refused and "refuse to begin" in refused
    ((_, allowed),) = budget_lines(BudgetSettings(usd=5, allow_unknown_price=True), [one])
    assert "price is unknown" in allowed and "refuse" not in allowed
    assert list(budget_lines(BudgetSettings(), [one])) == []


def test_a_limit_that_is_said_to_hold_does(backend: ScriptedBackend, ledger: Ledger) -> None:
    one = estimate(calls())
    assert one.usd is not None
    budget = Budget(BudgetSettings(usd=one.usd[1], requests=one.requests), ledger)
    done = list(ask(backend, ASKS, decoding=DECODING, ledger=ledger, budget=budget))
    assert len(done) == 12
