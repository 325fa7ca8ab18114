"""Asking: every sample once, in order, whatever happens on the way."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symdistill.budget import Budget, BudgetReached, BudgetSettings
from symdistill.errors import InputError, RunError
from symdistill.ledger import Ledger, request_key
from symdistill.progress import Progress
from symdistill.teachers.asking import Asking, Keys, ask
from symdistill.teachers.base import (
    Again,
    Answer,
    Ask,
    Decoding,
    Failed,
    NoAnswer,
    Output,
    Price,
    Prompt,
    Replies,
    Reply,
)

pytestmark = pytest.mark.unit

DECODING = Decoding(max_new_tokens=8)
Outcome = Exception | Replies | None


def said(prompt: Prompt, index: int) -> str:
    return f"{prompt} / {index}"


class Parrot:
    """Answers with the prompt and the sample's number; does first what its plan says."""

    name = "parrot"
    identity: Mapping[str, Any] = {"parrot": 1}

    def __init__(
        self,
        plan: Callable[[Prompt, int], Outcome] = lambda prompt, attempt: None,
        *,
        delay_s: float = 0.0,
        samples_per_request: int = 8,
        gives: int = 99,
        price: Price | None = None,
    ) -> None:
        self.plan = plan
        self.delay_s = delay_s
        self.samples_per_request = samples_per_request
        self.gives = gives
        self.price = price
        self.asked: list[tuple[Prompt, int, int]] = []
        self.attempts: Counter[Prompt] = Counter()
        self.whole: Counter[tuple[Prompt, int]] = Counter()
        self.started = self.closed = 0
        self.at_once: int | None = None
        self.notes: list[str] = []

    async def start(self) -> None:
        self.started += 1

    async def check(self, decoding: Decoding) -> Replies | None:
        return None

    async def close(self) -> None:
        self.closed += 1

    def tokens_bound(self, prompt: Prompt) -> int:
        return 4

    async def send(
        self, prompt: Prompt, samples: int, decoding: Decoding, *, first_sample: int = 0
    ) -> Replies:
        self.asked.append((prompt, first_sample, samples))
        self.attempts[prompt] += 1
        await asyncio.sleep(self.delay_s)
        outcome = self.plan(prompt, self.attempts[prompt])
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is not None:
            return outcome
        given = range(first_sample, first_sample + min(samples, self.gives))
        self.whole.update((prompt, index) for index in given)
        return Replies([Reply(said(prompt, index), "stop", 3) for index in given], tokens_in=2)


def asks(count: int, samples: int = 1) -> list[Ask]:
    return [Ask(f"prompt {number}", f"item {number}", samples) for number in range(count)]


def run(
    backend: Parrot,
    wanted: Sequence[Ask] | Callable[[], Iterable[Ask]],
    path: Path,
    *,
    decoding: Decoding = DECODING,
    limits: BudgetSettings | None = None,
    how: Asking | None = None,
    progress: Progress | None = None,
) -> list[Answer | Failed]:
    ledger = Ledger(path / "ledger.sqlite")
    budget = Budget(limits, ledger) if limits else None
    try:
        return list(
            ask(
                backend,
                wanted,
                decoding=decoding,
                ledger=ledger,
                budget=budget,
                settings=how,
                progress=progress,
            )
        )
    finally:
        if budget:
            budget.close()
        ledger.close()


def test_every_sample_is_answered_once_and_in_order(tmp_path: Path) -> None:
    backend = Parrot(samples_per_request=2)
    got = run(backend, asks(700, samples=3), tmp_path)
    assert [(one.ask.prompt, one.sample_index) for one in got] == [
        (f"prompt {number}", index) for number in range(700) for index in range(3)
    ]
    assert all(isinstance(one, Answer) and one.text == said(one.ask.prompt, one.sample_index)
               for one in got)  # fmt: skip
    assert len(backend.asked) == 1400 and backend.closed == 1


def test_a_finished_pass_is_read_again_without_opening_the_backend(tmp_path: Path) -> None:
    first = run(Parrot(), asks(5, samples=2), tmp_path)
    idle = Parrot()
    assert run(idle, asks(5, samples=2), tmp_path) == first
    assert not idle.started and not idle.asked


def test_more_samples_leave_those_that_are_there(tmp_path: Path) -> None:
    run(Parrot(), asks(2, samples=3), tmp_path)
    backend = Parrot()
    run(backend, asks(2, samples=5), tmp_path)
    assert sorted(backend.asked) == [("prompt 0", 3, 2), ("prompt 1", 3, 2)]


def test_equal_asks_share_an_answer(tmp_path: Path) -> None:
    backend = Parrot()
    got = run(backend, [Ask("same", str(n)) for n in range(1200)], tmp_path)
    assert len(got) == 1200 and {one.ask.item_id for one in got} == {str(n) for n in range(1200)}
    assert backend.asked == [("same", 0, 1)]


def test_asks_may_be_made_anew_each_time(tmp_path: Path) -> None:
    assert len(run(Parrot(), lambda: asks(30), tmp_path)) == 30


def test_a_key_is_the_hash_of_the_canonical_request(tmp_path: Path) -> None:
    chat = Ask(({"role": "user", "content": 'Grüße, "who"?\n'},), samples=2, first_sample=3)
    keys = Keys(Parrot(), DECODING)
    assert keys.of(chat) == [request_key(keys.request(chat, index)) for index in (3, 4)]


def test_what_was_asked_and_answered_can_be_shown(tmp_path: Path) -> None:
    backend = Parrot(price=Price(input=1e6, output=2e6))
    (one,) = run(backend, asks(1), tmp_path)
    found = Ledger(tmp_path / "ledger.sqlite").call(one.key)
    assert found is not None
    assert found["request"]["prompt"] == "prompt 0" and found["request"]["sample_index"] == 0
    assert found["response"]["text"] == said("prompt 0", 0)
    assert (found["tokens_in"], found["tokens_out"], found["cost_usd"]) == (2, 3, 8.0)


def test_what_may_pass_is_tried_again_and_what_does_not_is_a_record(tmp_path: Path) -> None:
    def plan(prompt: Prompt, attempt: int) -> Outcome:
        if prompt == "prompt 1" and attempt < 3:
            return Again("cut off", maybe_billed=True, after_s=0.01)
        if prompt == "prompt 2":
            return NoAnswer(
                "context_overflow", "the prompt has 9,000 tokens, the model reads 8,192"
            )
        if prompt == "prompt 3":
            return Again("error 500", after_s=0.001)
        return None

    got = run(Parrot(plan), asks(5), tmp_path, how=Asking(max_attempts=4))
    assert [type(one) for one in got] == [Answer, Answer, Failed, Failed, Answer]
    overflow, given_up = got[2], got[3]
    assert isinstance(overflow, Failed) and overflow.kind == "context_overflow"
    assert isinstance(given_up, Failed) and given_up.kind == "gave_up"
    assert given_up.attempts == 4 and "error 500" in given_up.reason
    again = Parrot()
    assert run(again, asks(5), tmp_path) == got and not again.asked  # failures stay as they are
    ledger = Ledger(tmp_path / "ledger.sqlite")
    assert ledger.forget_failures() == 2
    ledger.close()
    mended = run(again, asks(5), tmp_path)
    assert all(isinstance(one, Answer) for one in mended)
    assert {prompt for prompt, _, _ in again.asked} == {"prompt 2", "prompt 3"}


def test_a_server_that_ignores_n_is_asked_for_the_rest(tmp_path: Path) -> None:
    backend = Parrot(gives=1)
    got = run(backend, asks(3, samples=4), tmp_path)
    assert [one.text for one in got if isinstance(one, Answer)] == [
        said(f"prompt {number}", index) for number in range(3) for index in range(4)
    ]
    assert set(backend.whole.values()) == {1}


def test_no_more_are_in_flight_than_the_backend_works_on(tmp_path: Path) -> None:
    class Narrow(Parrot):
        inside = most = 0

        async def send(self, *asked: Any, **further: Any) -> Replies:
            self.inside += 1
            self.most = max(self.most, self.inside)
            try:
                return await super().send(*asked, **further)
            finally:
                self.inside -= 1

    backend = Narrow(delay_s=0.002)
    backend.at_once = 3
    run(backend, asks(50), tmp_path)
    assert backend.most == 3


def test_an_empty_answer_is_a_failure_that_was_paid_for(tmp_path: Path) -> None:
    empty = Replies([Reply("", "stop", 1), Reply("fine", "stop", 3)], tokens_in=2)
    backend = Parrot(lambda prompt, attempt: empty, price=Price(input=0, output=1e6))
    first, second = run(backend, asks(1, samples=2), tmp_path)
    assert isinstance(first, Failed) and first.kind == "empty"
    assert isinstance(second, Answer) and second.text == "fine"
    assert Ledger(tmp_path / "ledger.sqlite").totals()["cost_usd"] == 4.0


def test_a_wrong_key_ends_the_run_and_keeps_the_answers(tmp_path: Path) -> None:
    def plan(prompt: Prompt, attempt: int) -> Outcome:
        return InputError("expected a key that the server takes") if prompt == "prompt 9" else None

    with pytest.raises(InputError, match="expected a key"):
        run(Parrot(plan), asks(300), tmp_path, how=Asking(max_concurrency=4))
    kept = Ledger(tmp_path / "ledger.sqlite").totals()["calls"]
    assert kept is not None and 9 <= kept < 30


def test_an_outage_ends_the_run_and_fails_no_item(tmp_path: Path) -> None:
    def plan(prompt: Prompt, attempt: int) -> Outcome:
        if prompt == "prompt 0":
            return None
        return Again("connection refused", unreachable=True, after_s=0.02)

    with pytest.raises(RunError, match=r"connection refused.*run the same command again"):
        run(Parrot(plan), asks(40), tmp_path, how=Asking(outage=0.3))
    backend = Parrot()
    got = run(backend, asks(40), tmp_path)
    assert all(isinstance(one, Answer) for one in got) and len(backend.asked) == 39


def test_a_fault_of_the_program_is_not_an_items_failure(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        run(Parrot(lambda prompt, attempt: ZeroDivisionError("a bug")), asks(3), tmp_path)


def test_a_budget_stops_the_run_before_it_is_passed(tmp_path: Path) -> None:
    price = Price(input=1e6, output=1e6)  # 1 USD a token: 5 a reply, at most 12
    backend = Parrot(price=price, delay_s=0.001)
    with pytest.raises(BudgetReached, match=r"usd.*more to ask for, for about 2\d\d") as stop:
        run(backend, asks(100), tmp_path, limits=BudgetSettings(usd=250))
    assert stop.value.exit_code == 3
    spent = Ledger(tmp_path / "ledger.sqlite").totals()["cost_usd"]
    assert spent is not None and 250 - 12 < spent <= 250
    got = run(backend, asks(100), tmp_path, limits=BudgetSettings(usd=550))
    assert len(got) == 100 and set(backend.whole.values()) == {1}


def test_what_may_have_been_billed_counts(tmp_path: Path) -> None:
    def plan(prompt: Prompt, attempt: int) -> Outcome:
        return Again("no reply in time", maybe_billed=True, after_s=0.001) if attempt < 3 else None

    backend = Parrot(plan, price=Price(input=1e6, output=1e6))
    run(backend, asks(1), tmp_path)
    assert Ledger(tmp_path / "ledger.sqlite").totals()["cost_usd"] == 2 * 12 + 5


def test_an_unknown_price_and_a_budget_in_usd_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="price"):
        run(Parrot(), asks(1), tmp_path, limits=BudgetSettings(usd=1))


class Interrupter(Progress):
    """Presses Ctrl-C when so many requests were sent."""

    def __init__(self, backend: Parrot, at: Sequence[int]) -> None:
        self.lines: list[str] = []
        self.thread = threading.Thread(target=self.press, args=(backend, list(at)), daemon=True)
        self.thread.start()

    def press(self, backend: Parrot, at: list[int]) -> None:
        while at:
            if len(backend.asked) >= at[0]:
                at.pop(0)
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.4)
            time.sleep(0.005)

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_ctrl_c_once_waits_for_what_is_in_flight_and_keeps_it(tmp_path: Path) -> None:
    backend = Parrot(delay_s=0.3)
    progress = Interrupter(backend, [8])
    with pytest.raises(KeyboardInterrupt):
        run(backend, asks(64), tmp_path, how=Asking(max_concurrency=8), progress=progress)
    assert any("waiting for 8 requests" in line for line in progress.lines)
    assert len(backend.asked) <= 16
    assert Ledger(tmp_path / "ledger.sqlite").totals()["calls"] == len(backend.asked)


def test_ctrl_c_twice_stops_now(tmp_path: Path) -> None:
    backend = Parrot(delay_s=60, price=Price(input=1e6, output=0))
    progress = Interrupter(backend, [8, 8])
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(backend, asks(64), tmp_path, how=Asking(max_concurrency=8), progress=progress)
    assert time.monotonic() - begin < 10
    assert Ledger(tmp_path / "ledger.sqlite").totals()["cost_usd"] == 8 * 4  # maybe billed


def test_a_trial_that_fails_is_repeated_and_paid_for(tmp_path: Path) -> None:
    class Trying(Parrot):
        tried = 0

        async def check(self, decoding: Decoding) -> Replies | None:
            self.tried += 1
            if self.tried < 3:
                raise Again("error 500", after_s=0.01)
            return Replies([Reply("yes", "stop", 1)], tokens_in=9)

    backend = Trying(price=Price(input=1e6, output=1e6))
    trying = Decoding(max_new_tokens=8, top_logprobs=0)
    with pytest.raises(BudgetReached, match="needs up to 264"):
        run(backend, asks(1), tmp_path, decoding=trying, limits=BudgetSettings(usd=263))
    assert not backend.tried
    assert len(run(backend, asks(1), tmp_path, decoding=trying)) == 1 and backend.tried == 3
    assert Ledger(tmp_path / "ledger.sqlite").totals()["cost_usd"] == 10 + 5
    with pytest.raises(RunError, match="trial request; got, 1 times: error 500"):
        run(Trying(), [Ask("new")], tmp_path, how=Asking(max_attempts=1))


def test_a_reply_that_json_cannot_hold_costs_no_other_one(tmp_path: Path) -> None:
    def plan(prompt: Prompt, attempt: int) -> Outcome:
        if prompt != "prompt 3":
            return None
        return Replies([Reply("said", "stop", 3, about={"odd": object()})], tokens_in=2)

    with pytest.raises((TypeError, RunError)):
        run(Parrot(plan, delay_s=0.01), asks(200), tmp_path, how=Asking(max_concurrency=8))
    backend = Parrot()
    run(backend, asks(200), tmp_path)
    assert len(backend.asked) < 200 - 6  # what came beside it was kept
    assert not backend.whole[("prompt 0", 0)]


def test_a_mistake_in_the_asks_waits_for_what_is_in_flight(tmp_path: Path) -> None:
    def broken() -> Iterator[Ask]:
        yield from asks(260)
        raise InputError("row 261 is no question")

    backend = Parrot(delay_s=0.05, price=Price(input=1e6, output=1e6))
    with pytest.raises(InputError, match="row 261"):
        run(backend, broken, tmp_path)
    bill = Ledger(tmp_path / "ledger.sqlite").totals()
    assert bill["calls"] == len(backend.asked) and not bill["lost"]


def test_an_outage_behind_a_gateway_fails_no_item(tmp_path: Path) -> None:
    begin = time.monotonic()

    def plan(prompt: Prompt, attempt: int) -> Outcome:
        if time.monotonic() - begin < 1.5:
            return Again("error 502", maybe_billed=True, after_s=0.02)
        return None

    got = run(Parrot(plan), asks(60), tmp_path, how=Asking(max_attempts=2))
    assert all(isinstance(one, Answer) for one in got)


def test_a_server_that_asks_to_wait_longer_than_an_outage_ends_the_run(tmp_path: Path) -> None:
    backend = Parrot(lambda prompt, attempt: Again("429", throttled=True, after_s=3600))
    begin = time.monotonic()
    with pytest.raises(RunError, match="asks to wait 3600 s"):
        run(backend, asks(5), tmp_path, how=Asking(outage=60))
    assert time.monotonic() - begin < 10


def test_time_that_is_up_ends_a_wait(tmp_path: Path) -> None:
    backend = Parrot(lambda prompt, attempt: Again("429", throttled=True, after_s=60))
    begin = time.monotonic()
    with pytest.raises(BudgetReached, match="wall"):
        run(backend, asks(5), tmp_path, limits=BudgetSettings(wall=0.5))
    assert time.monotonic() - begin < 10


def test_schemas_with_another_order_of_properties_are_other_requests() -> None:
    def key(*names: str) -> str:
        schema = {"type": "object", "properties": {name: {"type": "string"} for name in names}}
        decoding = Decoding(output=Output(json_schema=schema))
        return Keys(Parrot(), decoding).of(Ask("p"))[0]

    assert key("reason", "label") != key("label", "reason")


def test_the_form_of_the_output_is_part_of_what_is_reserved(tmp_path: Path) -> None:
    choices = Decoding(max_new_tokens=8, output=Output(choices=("yes", "no" * 40)))
    backend = Parrot(price=Price(input=1e6, output=0))
    with pytest.raises(BudgetReached):
        run(backend, asks(1), tmp_path, decoding=choices, limits=BudgetSettings(usd=200))
    assert not backend.asked


def test_asks_that_change_are_told(tmp_path: Path) -> None:
    times = iter([asks(2), [*asks(2), Ask("new")]])
    with pytest.raises(RunError, match="same asks"):
        run(Parrot(), lambda: next(times), tmp_path)


def test_it_works_below_a_running_event_loop(tmp_path: Path) -> None:
    async def notebook() -> int:
        return len(run(Parrot(), asks(3), tmp_path))

    assert asyncio.run(notebook()) == 3


def test_a_ledger_that_cannot_be_written_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, tries = Ledger.record, []

    def broken(self: Ledger, *rows: Any) -> None:
        tries.append(rows)
        if len(tries) == 1:
            raise RunError("the disk is full")
        record(self, *rows)

    monkeypatch.setattr(Ledger, "record", broken)
    with pytest.raises(RunError, match="the disk is full"):
        run(Parrot(delay_s=0.01), asks(500), tmp_path, how=Asking(max_concurrency=4))
    monkeypatch.undo()
    backend = Parrot()
    run(backend, asks(500), tmp_path)
    assert 0 < len(backend.asked) < 500  # what had come was written at the end


@settings(max_examples=30, deadline=None)
@given(
    plans=st.dictionaries(
        st.integers(0, 19),
        st.lists(st.sampled_from(["429", "500", "reset", "refused", "none", "short"]), max_size=5),
        max_size=12,
    ),
    samples=st.integers(1, 3),
    most=st.integers(1, 9),
)
def test_under_any_faults_each_whole_reply_is_asked_for_once(
    tmp_path_factory: pytest.TempPathFactory,
    plans: dict[int, list[str]],
    samples: int,
    most: int,
) -> None:
    faults: dict[str, Exception] = {
        "429": Again("429", throttled=True, after_s=0.001),
        "500": Again("500", after_s=0.001),
        "reset": Again("reset", maybe_billed=True, after_s=0.001),
        "refused": NoAnswer("refused", "it will not"),
    }

    def plan(prompt: Prompt, attempt: int) -> Outcome:
        some = plans.get(int(str(prompt).split()[1]), [])
        what = some[attempt - 1] if attempt <= len(some) else "none"
        return faults.get(what)

    backend = Parrot(plan, samples_per_request=2)
    folder = tmp_path_factory.mktemp("run")
    got = run(backend, asks(20, samples), folder, how=Asking(max_concurrency=most))
    assert len(got) == 20 * samples
    for one in got:
        refused = "refused" in plans.get(int(str(one.ask.prompt).split()[1]), [])
        assert isinstance(one, Answer) or refused
        if isinstance(one, Answer):
            assert one.text == said(one.ask.prompt, one.sample_index)
    assert set(backend.whole.values()) <= {1}


KILLED = """
import asyncio, sys
from pathlib import Path
from symdistill.ledger import Ledger
from symdistill.teachers.asking import Asking, ask
from symdistill.teachers.base import Ask, Decoding, Replies, Reply

class Slow:
    name, identity, price, samples_per_request = "slow", {"slow": 1}, None, 1
    at_once, notes = None, []
    log = open(sys.argv[2], "a", buffering=1)
    async def start(self): pass
    async def check(self, decoding): pass
    async def close(self): pass
    def tokens_bound(self, prompt): return 1
    async def send(self, prompt, samples, decoding, *, first_sample=0):
        await asyncio.sleep(0.02)
        self.log.write(prompt + "\\n")
        return Replies([Reply("said", "stop", 1)], 1)

asks = [Ask(str(n)) for n in range(2000)]
got = list(ask(Slow(), asks, decoding=Decoding(), ledger=Ledger(Path(sys.argv[1])),
               settings=Asking(max_concurrency=16)))
assert len(got) == 2000
"""


def test_kill_9_costs_at_most_the_commit_under_way(tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(textwrap.dedent(KILLED))
    command = [sys.executable, str(script), str(tmp_path / "l.sqlite"), str(tmp_path / "log")]
    for lines in (50, 400):
        process = subprocess.Popen(command)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            done = (tmp_path / "log").read_text().count("\n") if (tmp_path / "log").exists() else 0
            if done >= lines:
                break
            time.sleep(0.01)
        process.kill()
        process.wait()
    assert subprocess.run(command, timeout=120).returncode == 0
    sent = Counter((tmp_path / "log").read_text().split())
    assert len(sent) == 2000
    # two kills; a commit gathers 20 ms, in which 16 requests of 20 ms each are answered
    assert sum(sent.values()) - 2000 <= 2 * 3 * 16
