"""Batches: every request paid for once, whatever is cut off, and all of it found again."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.teachers.batch_house import (
    BatchHouse,
    Line,
    answer,
    choice,
    jsonl,
    refused,
    serving,
)

from symdistill.budget import Budget, BudgetReached, BudgetSettings
from symdistill.errors import InputError, RunError
from symdistill.ledger import PICO, Ledger
from symdistill.progress import Progress
from symdistill.teachers import Batching, batches
from symdistill.teachers.base import Answer, Ask, Decoding, Failed, Output, Price
from symdistill.teachers.batch_server import BatchServer
from symdistill.teachers.batches import ask_in_batches
from symdistill.teachers.lacking import NOTE
from symdistill.teachers.openai import OpenAIBackend
from symdistill.teachers.secrets import Key

pytestmark = pytest.mark.unit

DECODING = Decoding(max_new_tokens=10)
QUICK = Batching(poll=0.01)


class Bench:
    """A server, and runs of `ask_in_batches` against it that share a ledger."""

    def __init__(self, url: str, house: BatchHouse, path: Path) -> None:
        self.url = url
        self.house = house
        self.path = path
        self.price: Price | None = Price(input=10, output=100)
        self.key: Key | None = None
        self.decoding = DECODING
        self.spent, self.spent_tokens = 0.0, 0

    def run(
        self,
        asks: Sequence[Ask],
        settings: Batching = QUICK,
        *,
        limits: BudgetSettings | None = None,
        progress: Progress | None = None,
        patch: Callable[[Ledger], None] = lambda ledger: None,
        samples_per_request: int = 4,
    ) -> list[Answer | Failed]:
        ledger = Ledger(self.path / "ledger.sqlite")
        patch(ledger)
        backend = OpenAIBackend(
            "openai:m",
            model="m",
            base_url=self.url,
            key=self.key,
            price=self.price,
            samples_per_request=samples_per_request,
        )
        budget = Budget(limits or BudgetSettings(), ledger)
        try:
            return list(
                ask_in_batches(
                    backend,
                    asks,
                    decoding=self.decoding,
                    ledger=ledger,
                    budget=budget,
                    settings=settings,
                    progress=progress,
                )
            )
        finally:
            self.budget = budget
            self.spent, self.spent_tokens = budget.spent.usd, budget.spent.tokens
            assert budget.in_flight == 0
            budget.close()
            ledger.close()

    def totals(self) -> dict[str, Any]:
        ledger = Ledger(self.path / "ledger.sqlite")
        totals: dict[str, Any] = ledger.totals()
        ledger.close()
        return totals

    def notes(self) -> dict[str, Any]:
        ledger = Ledger(self.path / "ledger.sqlite")
        notes: dict[str, Any] = ledger.recall(NOTE)
        ledger.close()
        return notes


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(batches, "FIRST_DELAY_S", 0.01)
    house = BatchHouse()
    with serving(house) as url:
        yield Bench(url, house, tmp_path)


def asks(count: int, samples: int = 1) -> list[Ask]:
    return [
        Ask(({"role": "user", "content": f"prompt {number}"},), f"item {number}", samples)
        for number in range(count)
    ]


def texts(got: Sequence[Answer | Failed]) -> list[str]:
    return [one.text if isinstance(one, Answer) else one.kind for one in got]


def expected(count: int) -> list[str]:
    return [f"prompt {number} / 0" for number in range(count)]


def test_every_sample_is_answered_in_order_at_the_price_of_batches(bench: Bench) -> None:
    got = bench.run(asks(5, samples=3), Batching(poll=0.01, requests_per_batch=2))
    assert texts(got) == [f"prompt {n} / {k}" for n in range(5) for k in range(3)]
    assert [len(bench.house.requests(id)) for id in bench.house.batches] == [2, 2, 1]
    assert all(one["metadata"]["symdistill"] for one in bench.house.batches.values())
    totals = bench.totals()
    cost = 0.5 * (5 * 5 * 10 + 15 * 3 * 100) / 1e6
    assert totals["cost_usd"] == pytest.approx(cost) and bench.spent == pytest.approx(cost)
    assert totals["tokens_in"] + totals["tokens_out"] == bench.spent_tokens == 5 * 5 + 15 * 3
    assert (totals["calls"], totals["requests"], totals["lost"]) == (15, 5, 0)
    assert not bench.notes()


def test_a_finished_pass_is_read_again_without_a_call(bench: Bench) -> None:
    first = bench.run(asks(3))
    calls = dict(bench.house.calls)
    assert bench.run(asks(3)) == first and dict(bench.house.calls) == calls


def test_equal_asks_share_an_answer_and_more_samples_leave_what_is_there(bench: Bench) -> None:
    bench.run([*asks(2), *asks(2)])
    assert set(bench.house.times_asked().values()) == {1}
    got = bench.run(asks(2, samples=3))
    assert len(got) == 6 and [one["body"]["n"] for one in bench.house.requests("batch-1")] == [2, 2]


def test_a_file_is_no_larger_than_allowed(bench: Bench) -> None:
    bench.run(asks(20), Batching(poll=0.01, bytes_per_batch=500))
    sizes = [len(bench.house.files[one["input_file_id"]]) for one in bench.house.batches.values()]
    assert len(sizes) > 5 and max(sizes) <= 500


def test_lines_come_in_any_order_twice_cut_or_of_nobody(bench: Bench) -> None:
    def plan(requests: list[Line], number: int) -> dict[str, Any]:
        lines = jsonl([answer(one) for one in reversed(requests)])
        if number == 0:
            stranger = jsonl([{"custom_id": "x", "response": None}, {"no": "id"}]) + b"[]\n\n"
            half = jsonl([answer(requests[0])])[:40]
            lines = stranger + jsonl([answer(one) for one in requests[1:] * 2]) + half
        return {"output": lines}

    bench.house.plan = plan
    assert texts(bench.run(asks(4))) == expected(4)
    first = bench.house.requests("batch-0")[0]["custom_id"]
    assert bench.house.times_asked()[first] == 2 and len(bench.house.batches) == 2
    assert bench.totals()["lost"] == 1  # it may have been billed


def test_each_line_ends_as_what_it_says(bench: Bench) -> None:
    def plan(requests: list[Line], number: int) -> dict[str, Any]:
        if number:
            return {}
        long, bad, busy, empty, expired = requests
        silent = answer(empty)
        silent["response"]["body"]["choices"][0]["message"]["content"] = ""
        error = {"code": "batch_expired", "message": "not in time"}
        return {
            "output": [silent],
            "errored": [
                refused(long, 400, "maximum context length is 8", "context_length_exceeded"),
                refused(bad, 400, "no"),
                refused(busy, 500, "later"),
                {"custom_id": expired["custom_id"], "response": None, "error": error},
            ],
        }

    bench.house.plan = plan
    got = bench.run(asks(5))
    assert texts(got) == [
        "context_overflow", "bad_request", "prompt 2 / 0", "empty", "prompt 4 / 0",
    ]  # fmt: skip
    assert len(bench.house.requests("batch-1")) == 2 and bench.totals()["lost"] == 0


def test_what_never_answers_is_given_up_with_its_reason(bench: Bench) -> None:
    def plan(requests: list[Line], number: int) -> dict[str, Any]:
        return {"output": [], "errored": [refused(one, 500, "no luck") for one in requests]}

    bench.house.plan = plan
    (got,) = bench.run(asks(1), Batching(poll=0.01, max_attempts=2))
    assert isinstance(got, Failed) and (got.kind, got.attempts) == ("gave_up", 2)
    assert "no luck" in got.reason and len(bench.house.batches) == 2


def test_an_expired_batch_keeps_what_it_completed(bench: Bench) -> None:
    bench.house.plan = lambda requests, number: (
        {} if number else {"status": "expired", "output": [answer(requests[0])]}
    )
    assert texts(bench.run(asks(3))) == expected(3)
    assert sorted(bench.house.times_asked().values()) == [1, 2, 2] and not bench.totals()["lost"]


def test_a_cancelled_batch_keeps_what_it_completed_and_stops_the_run(bench: Bench) -> None:
    bench.house.plan = lambda requests, number: (
        {} if number else {"status": "cancelled", "output": [answer(requests[0])]}
    )
    with pytest.raises(RunError, match="cancelled"):
        bench.run(asks(3))
    assert bench.totals()["calls"] == 1
    assert texts(bench.run(asks(3))) == expected(3)


def test_fewer_samples_than_asked_for_are_completed(bench: Bench) -> None:
    def plan(requests: list[Line], number: int) -> dict[str, Any]:
        lines = [answer(one) for one in requests]
        for line in lines:
            del line["response"]["body"]["choices"][2:]
        return {"output": lines}

    bench.house.plan = plan
    got = bench.run(asks(1, samples=4))
    assert [one.sample_index for one in got if isinstance(one, Answer)] == [0, 1, 2, 3]
    assert len(bench.house.batches) == 2


def test_what_the_server_does_not_take_is_put_otherwise(bench: Bench) -> None:
    def plan(requests: list[Line], number: int) -> dict[str, Any]:
        if "max_tokens" in requests[0]["body"]:
            why = "use 'max_completion_tokens' instead of 'max_tokens'"
            return {"output": [], "errored": [refused(one, 400, why) for one in requests]}
        if "n" in requests[0]["body"]:
            why = "'n' must be 1"
            return {"output": [], "errored": [refused(one, 400, why) for one in requests]}
        return {}

    bench.house.plan = plan
    got = bench.run(asks(2, samples=2))
    assert all(isinstance(one, Answer) for one in got) and len(bench.house.requests("batch-2")) == 4


def test_an_output_form_is_tried_before_anything_is_submitted(bench: Bench) -> None:
    bench.decoding = Decoding(max_new_tokens=10, output=Output(choices=("yes", "no")))
    bench.house.plan = lambda requests, number: {"output": [choice(one) for one in requests]}
    assert texts(bench.run(asks(2))) == ["yes", "yes"]
    assert bench.house.calls["POST /chat one"] == 1
    full, share = (5 * 10 + 3 * 100) / 1e6, 0.5 * 2 * (5 * 10 + 3 * 100) / 1e6
    assert bench.totals()["cost_usd"] == pytest.approx(full + share)


def test_the_trial_counts_and_open_batches_are_collected_though_it_does_not_fit(
    bench: Bench,
) -> None:
    bench.decoding = Decoding(max_new_tokens=10, output=Output(choices=("yes", "no")))
    bench.house.plan = lambda requests, number: {"output": [choice(one) for one in requests]}
    bench.house.looks_needed = 10**9
    with pytest.raises(RunError):
        bench.run(asks(2), Batching(poll=0.01, give_up=0.03))
    assert bench.budget.spent.requests == bench.totals()["requests"] == 1
    bench.house.looks_needed = bench.house.looks["batch-0"] + 1
    with pytest.raises(BudgetReached, match="requests: 3 of 3"):
        bench.run(asks(4), limits=BudgetSettings(requests=3))
    assert bench.totals()["calls"] == 2 and bench.house.calls["POST /chat one"] == 1


def test_a_refused_file_fails_the_lines_it_is_about(bench: Bench) -> None:
    errors = {"data": [{"code": "invalid", "line": 2, "message": "bad line"}]}
    bench.house.plan = lambda requests, number: (
        {} if number else {"status": "failed", "output": [], "errors": errors}
    )
    got = bench.run(asks(3))
    assert texts(got) == ["prompt 0 / 0", "bad_request", "prompt 2 / 0"]


def test_a_refused_batch_stops_the_run_in_one_sentence(bench: Bench) -> None:
    errors = {"data": [{"code": "billing", "message": "the billing limit is reached"}]}
    bench.house.plan = lambda requests, number: (
        {} if number else {"status": "failed", "output": [], "errors": errors}
    )
    with pytest.raises(RunError, match="billing limit"):
        bench.run(asks(3))
    assert texts(bench.run(asks(3))) == expected(3)


def test_a_full_queue_makes_batches_fewer_then_smaller(bench: Bench) -> None:
    errors = {"data": [{"code": "token_limit_exceeded", "message": "too many tokens"}]}

    def plan(requests: list[Line], number: int) -> dict[str, Any]:
        full = {"status": "failed", "output": [], "errors": errors}
        return full if number == 1 or len(requests) > 2 else {}

    bench.house.plan = plan
    got = bench.run(asks(8), Batching(poll=0.01, requests_per_batch=4, max_attempts=1))
    assert texts(got) == expected(8)


def test_a_line_that_no_request_can_mend_stops_the_run_and_keeps_the_rest(bench: Bench) -> None:
    def plan(requests: list[Line], number: int) -> dict[str, Any]:
        gone = refused(requests[0], 404, "no such model", "model_not_found")
        return (
            {} if number else {"output": [answer(one) for one in requests[1:]], "errored": [gone]}
        )

    bench.house.plan = plan
    with pytest.raises(InputError, match="no such model"):
        bench.run(asks(3))
    assert bench.totals()["calls"] == 2
    assert texts(bench.run(asks(3))) == expected(3) and len(bench.house.requests("batch-1")) == 1


def test_a_server_without_batches_is_told_in_one_sentence(bench: Bench) -> None:
    bench.house.offers_batches = False
    with pytest.raises(InputError, match=r"offers /v1/batches"):
        bench.run(asks(1))
    assert not bench.house.calls["POST /files"]


@pytest.mark.parametrize(
    "trouble",
    [
        [("POST /files", "busy")],
        [("POST /files", "reset")],
        [("POST /batches", "busy")],
        [("POST /batches", "reset")],
        [("GET /batches one", "busy"), ("GET /batches one", "reset")],
        [("GET /files content", "busy"), ("GET /files content", "cut")],
    ],
)
def test_trouble_on_the_way_makes_no_second_batch(
    bench: Bench, trouble: list[tuple[str, str]]
) -> None:
    bench.house.trouble = trouble
    assert texts(bench.run(asks(20))) == expected(20)
    assert not bench.house.trouble and set(bench.house.times_asked().values()) == {1}


def test_a_batch_that_does_not_move_is_left_with_word_of_it(bench: Bench) -> None:
    bench.house.looks_needed = 10**9
    with pytest.raises(RunError, match=r"1 batch at .* will go on there"):
        bench.run(asks(2), Batching(poll=0.01, give_up=0.05))
    bench.house.looks_needed = bench.house.looks["batch-0"] + 1
    assert texts(bench.run(asks(2))) == expected(2) and len(bench.house.batches) == 1


def test_the_key_is_kept_out_of_all_that_is_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "sk-secret-0123456789-abcdef"
    monkeypatch.setenv("BATCH_KEY", secret)
    bench.key = Key("env:BATCH_KEY")
    said = f"the key {secret} is wrong"

    def plan(requests: list[Line], number: int) -> dict[str, Any]:
        if number:
            return {"status": "failed", "output": [], "errors": {"data": [{"message": said}]}}
        error = {"custom_id": requests[0]["custom_id"], "error": {"message": said}}
        echo = answer(requests[1])
        echo["response"]["body"]["choices"][0]["message"]["content"] = said
        return {"output": [echo, refused(requests[2], 400, said)], "errored": [error]}

    bench.house.plan = plan
    with pytest.raises(RunError, match="is wrong") as stopped:
        bench.run(asks(3))
    kept = b"".join(file.read_bytes() for file in bench.path.iterdir())
    assert secret not in str(stopped.value) and secret.encode() not in kept
    assert bench.totals()["calls"] == bench.totals()["failed"] == 1


# -- killed, and run again ---------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone: nothing of the program may run any more."""


def killer(at: int, steps: list[str]) -> tuple[Callable[[str], None], Callable[[Ledger], None]]:
    """Kills at the `at`-th step; steps are before and after each call to server or ledger."""

    def step(name: str) -> None:
        steps.append(name)
        if len(steps) > at:
            raise Killed(name)

    def patch(ledger: Ledger) -> None:
        def watched(name: str) -> Any:
            real = getattr(ledger, name)

            def call(*args: Any) -> Any:
                step(f"before {name}")
                got = real(*args)
                step(f"after {name}")
                return got

            return call

        for name in ("remember", "record", "forget"):
            setattr(ledger, name, watched(name))

    return step, patch


@pytest.mark.parametrize("expires", [False, True])
def test_killed_at_every_step_in_turn_nothing_is_asked_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expires: bool
) -> None:
    """A request of an expired batch, and only that, goes into a second one."""
    real = BatchServer._exchange
    settings = Batching(poll=0.001, requests_per_batch=2)
    limits = BudgetSettings(requests=4 if expires else 3)
    seen: set[str] = set()
    house = BatchHouse()
    if expires:
        house.plan = lambda requests, number: (
            {} if number else {"status": "expired", "output": [answer(requests[1])]}
        )
    with serving(house) as url:
        for at in range(1000):
            for kept in (house.files, house.batches, house.looks):
                kept.clear()
            (tmp_path / str(at)).mkdir()
            bench = Bench(url, house, tmp_path / str(at))
            steps: list[str] = []
            step, patch = killer(at, steps)

            async def exchange(
                self: Any, method: str, path: str, *args: Any, step: Any = step
            ) -> Any:
                where = f"{method} {path[:8]}"
                step(f"before {where}")
                got = await real(self, method, path, *args)
                step(f"after {where}")
                return got

            with monkeypatch.context() as patched:
                patched.setattr(BatchServer, "_exchange", exchange)
                try:
                    bench.run(asks(3), settings, patch=patch, limits=limits)
                except Killed:
                    seen.add(steps[-1])
                else:
                    break
            assert texts(bench.run(asks(3), settings, limits=limits)) == expected(3), steps
            times = [1, 1, 2] if expires else [1, 1, 1]
            assert sorted(house.times_asked().values()) == times, steps
            assert not bench.notes() and bench.totals()["calls"] == 3
            assert bench.totals()["lost"] == 0
    assert {name.split()[1] for name in seen} == {"remember", "record", "forget", "GET", "POST"}
    assert at > 40


def test_a_batch_of_asks_that_are_not_asked_now_waits_for_them(bench: Bench) -> None:
    bench.house.looks_needed = 10**9
    with pytest.raises(RunError):
        bench.run(asks(4), Batching(poll=0.01, give_up=0.03))
    bench.house.looks_needed = bench.house.looks["batch-0"] + 1
    assert texts(bench.run(asks(2))) == expected(2)
    ((_, note),) = bench.notes().items()
    assert len(note["requests"]) == 2
    assert texts(bench.run(asks(4))) == expected(4)
    assert len(bench.house.batches) == 1 and not bench.notes()


class Heard(Progress):
    """Keeps what it is told; presses Ctrl-C when a batch is open."""

    def __init__(self, *, interrupt: bool = False) -> None:
        self.said: list[str] = []
        self.noted: list[str] = []
        self.interrupt = interrupt

    def say(self, line: str) -> None:
        self.said.append(line)

    @contextlib.contextmanager
    def stage(self, label: str, total: int, unit: str = "") -> Iterator[Any]:
        yield self

    def __call__(self, done: int) -> None:
        pass

    def note(self, line: str) -> None:
        self.noted.append(line)
        if self.interrupt and "1 batch open" in line:
            self.interrupt = False
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_leaves_the_batches_and_says_so(bench: Bench) -> None:
    bench.house.looks_needed = 10**9
    heard = Heard(interrupt=True)
    with pytest.raises(KeyboardInterrupt):
        bench.run(asks(2), Batching(poll=60), progress=heard)
    assert "1 batch" in heard.said[-1] and "same command" in heard.said[-1]
    assert any("1 batch open: 0 of 2 done; oldest 0 min; next look in" in one
               for one in heard.noted)  # fmt: skip
    bench.house.looks_needed = bench.house.looks["batch-0"] + 1
    assert texts(bench.run(asks(2))) == expected(2) and len(bench.house.batches) == 1


# -- the budget --------------------------------------------------------------------------------


def bound_usd(price: Price) -> float:
    """At most so much is billed for one of our asks, in a batch."""
    backend = OpenAIBackend("openai:m", model="m", base_url="http://127.0.0.1:1")
    return 0.5 * price.cost_usd(backend.tokens_bound(asks(1)[0].prompt), 10)


def test_a_batch_is_no_larger_than_the_budget_allows(bench: Bench) -> None:
    assert bench.price is not None
    limits = BudgetSettings(usd=4.5 * bound_usd(bench.price))
    with pytest.raises(BudgetReached, match="not asked for") as reached:
        bench.run(asks(40), limits=limits)
    assert len(bench.house.requests("batch-0")) <= 4
    assert limits.usd is not None and 0 < bench.spent <= limits.usd
    assert bench.spent == pytest.approx(bench.totals()["cost_usd"])
    done = bench.totals()["calls"]
    assert f"{done} samples are in the ledger, {40 - done} were not asked for" in str(reached.value)
    assert texts(bench.run(asks(40), limits=BudgetSettings(usd=1))) == expected(40)
    assert set(bench.house.times_asked().values()) == {1}


def test_what_is_open_is_waited_for_before_the_budget_is_called_reached(bench: Bench) -> None:
    assert bench.price is not None
    one_and_a_half = BudgetSettings(usd=6 * bound_usd(bench.price))
    got = bench.run(asks(8), Batching(poll=0.01, requests_per_batch=4), limits=one_and_a_half)
    assert texts(got) == expected(8)


def test_requests_that_come_back_are_counted_against_the_limit(bench: Bench) -> None:
    with pytest.raises(BudgetReached, match="requests"):
        bench.run(asks(5), limits=BudgetSettings(requests=3))
    assert sum(len(bench.house.requests(id)) for id in bench.house.batches) == 3


def test_what_an_open_batch_may_cost_stays_reserved_until_it_is_collected(bench: Bench) -> None:
    assert bench.price is not None
    bench.house.looks_needed = 10**9
    limits = BudgetSettings(usd=3 * bound_usd(bench.price))
    with pytest.raises(RunError, match="will go on there"):
        bench.run(asks(2), Batching(poll=0.01, give_up=0.03), limits=limits)
    assert bench.budget.reserve(usd=1.1 * bound_usd(bench.price)) is None
    ledger = Ledger(bench.path / "ledger.sqlite")
    others = Budget(limits, ledger)
    assert others.spent.usd == 0 and others.unsettled_words() is None
    assert others.reserve(usd=1.1 * bound_usd(bench.price)) is None and others.in_flight == 0
    fits = others.reserve(usd=0.9 * bound_usd(bench.price))
    assert fits is not None
    others.release(fits)
    others.close()
    ledger.close()
    bench.house.looks_needed = bench.house.looks["batch-0"] + 1
    assert texts(bench.run(asks(2), limits=limits)) == expected(2)
    assert bench.spent == pytest.approx(bench.totals()["cost_usd"])


def test_of_a_batch_that_is_partly_ours_the_rest_stays_reserved(bench: Bench) -> None:
    assert bench.price is not None
    bench.house.looks_needed = 10**9
    with pytest.raises(RunError):
        bench.run(asks(4), Batching(poll=0.01, give_up=0.03))
    bench.house.looks_needed = bench.house.looks["batch-0"] + 1
    bench.run(asks(1))
    ((_, note),) = bench.notes().items()
    assert note["reserved"][0] == 3
    assert note["reserved"][2] / PICO == pytest.approx(3 * bound_usd(bench.price))
    bench.run(asks(4))
    assert not bench.notes()


def test_when_time_is_up_the_open_batches_stay(bench: Bench) -> None:
    bench.house.looks_needed = 10**9
    with pytest.raises(BudgetReached, match=r"wall: .* will go on there"):
        bench.run(asks(2), limits=BudgetSettings(wall=0.2))
    bench.house.looks_needed = bench.house.looks["batch-0"] + 1
    assert texts(bench.run(asks(2))) == expected(2) and len(bench.house.batches) == 1


def test_a_batch_that_is_paid_for_is_collected_whatever_is_left(bench: Bench) -> None:
    bench.house.looks_needed = 10**9
    with pytest.raises(RunError):
        bench.run(asks(2), Batching(poll=0.01, give_up=0.03))
    bench.house.looks_needed = bench.house.looks["batch-0"] + 1
    got = bench.run(asks(2), limits=BudgetSettings(usd=1e-9))
    assert texts(got) == expected(2) and bench.spent == pytest.approx(bench.totals()["cost_usd"])


def test_an_unknown_price_stays_unknown(bench: Bench) -> None:
    bench.price = None
    with pytest.raises(InputError, match="price"):
        bench.run(asks(1), limits=BudgetSettings(usd=1))
    bench.run(asks(1))
    assert bench.totals()["cost_usd"] is None


def test_a_large_output_is_read_in_pieces_and_committed_on_the_way(bench: Bench) -> None:
    def plan(requests: list[Line], number: int) -> dict[str, Any]:
        lines = [answer(one) for one in requests]
        for line in lines:
            line["response"]["body"]["padding"] = "é" * 3000
        return {"output": lines}

    bench.house.plan = plan
    start = time.monotonic()
    got = bench.run(asks(1500), Batching(poll=0.01))
    assert len(got) == 1500 and time.monotonic() - start < 20
