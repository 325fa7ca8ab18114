"""The budget: never passed, whatever is asked, however often the process is killed; and used."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from symdistill.budget import Budget, BudgetReached, BudgetSettings, Reservation
from symdistill.errors import InputError, RunError
from symdistill.ledger import PICO, Call, Ledger, LostCall, pico

pytestmark = pytest.mark.unit


def reserve(budget: Budget, **most: float) -> Reservation:
    reservation = budget.reserve(**most)  # type: ignore[arg-type]
    assert reservation is not None
    return reservation


def test_what_is_reserved_is_held_until_it_is_settled_or_given_back() -> None:
    budget = Budget(BudgetSettings(usd=1))
    one, other = reserve(budget, usd=0.6, tokens=10), reserve(budget, usd=0.4)
    assert budget.reserve(usd=0.1) is None and budget.in_flight == 2
    assert budget.reached() == ("usd: 0 of 1 spent, 1 in flight; one more request needs up to 0.1")
    budget.release(other)
    budget.settle(one, tokens=7, usd=0.5)
    assert budget.in_flight == 0
    assert (budget.spent.requests, budget.spent.tokens, budget.spent.usd) == (1, 7, 0.5)
    reserve(budget, usd=0.5)
    assert budget.reserve(usd=1e-6) is None
    assert budget.reserve(usd=0.0) is not None and budget.reached() is None
    with pytest.raises(ValueError, match="open reservation"):
        budget.release(one)


def test_tenths_add_up() -> None:
    budget = Budget(BudgetSettings(usd=0.3))
    for _ in range(3):
        budget.settle(reserve(budget, usd=0.1), tokens=0, usd=0.1)
    assert budget.spent.usd == 0.3


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"requests": 2}, "requests: 2 of 2 spent; one more request needs up to 1"),
        ({"tokens": 2_500}, "tokens: 2,000 of 2,500 spent; one more request needs up to 1,000"),
        ({"usd": 5}, "usd: 4 of 5 spent; one more request needs up to 2"),
    ],
)
def test_the_limit_that_is_reached_is_named(limits: dict[str, float], words: str) -> None:
    budget = Budget(BudgetSettings(**limits))
    for _ in range(2):
        budget.settle(reserve(budget, tokens=1_000, usd=2), tokens=1_000, usd=2)
        assert budget.reached() is None
    assert budget.reserve(tokens=1_000, usd=2) is None
    assert budget.reached() == words


def test_a_server_that_bills_more_than_its_bound_is_counted_truly() -> None:
    budget = Budget(BudgetSettings(usd=1))
    budget.settle(reserve(budget, usd=0.5), tokens=1, usd=1.5)
    assert budget.spent.usd == 1.5
    assert budget.reserve(usd=0.1) is None


def test_an_unknown_price_is_refused_under_a_limit_in_usd() -> None:
    with pytest.raises(InputError, match="allow_unknown_price"):
        Budget(BudgetSettings(usd=1)).reserve(usd=None)
    for limits in (BudgetSettings(tokens=9), BudgetSettings(usd=1, allow_unknown_price=True)):
        budget = Budget(limits)
        budget.settle(reserve(budget, tokens=5, usd=None), tokens=5, usd=None)  # type: ignore[arg-type]
        assert (budget.spent.usd, budget.spent.unpriced) == (0, 1)


def test_time_is_counted_over_all_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    first = Budget(BudgetSettings(), ledger)
    now += 50
    first.settle(reserve(first), tokens=0, usd=0)
    now += 0.9  # killed here: less than a second is forgotten
    second = Budget(BudgetSettings(wall=100), ledger)
    assert second.spent.wall_s == 50
    now += 49
    assert second.reserve() is not None and second.reached() is None
    now += 2
    assert second.reserve() is None
    assert second.reached() == "wall: 101 s of 100 s spent"
    second.close()
    assert Budget(BudgetSettings(), ledger).spent.wall_s == 101


def test_what_a_killed_run_had_in_flight_counts_as_spent(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    limits = BudgetSettings(usd=10, requests=100)
    killed = Budget(limits, ledger)
    for _ in range(5):
        reserve(killed, usd=0.1, tokens=50)
    spent = Budget(limits, ledger).spent
    assert 5 <= spent.unsettled_requests == spent.requests <= 10
    assert 0.5 <= spent.unsettled_usd == spent.usd <= 1
    assert 250 <= spent.unsettled_tokens == spent.tokens <= 500
    assert Budget(BudgetSettings(usd=0.55), ledger).spent.usd == 0.55  # no more than was allowed
    killed.close()  # as if stopped by a second Ctrl-C: what is in flight is known exactly
    assert Budget(limits, ledger).spent.unsettled_usd == 0.5


def test_a_run_that_ended_leaves_nothing_unsettled(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    budget = Budget(BudgetSettings(usd=1), ledger)
    one = reserve(budget, usd=0.5)
    ledger.record([Call("k", "t", "m", {}, {}, 10, 20, 0.1, 0.25)])
    budget.settle(one, tokens=30, usd=0.25)
    before = budget.spent
    budget.close()
    after = Budget(BudgetSettings(usd=1), ledger).spent
    assert (after.requests, after.tokens, after.usd) == (1, 30, 0.25)
    assert (before.requests, before.tokens, before.usd) == (1, 30, 0.25)
    assert after.unsettled_requests == after.unsettled_tokens == after.unsettled_usd == 0


def test_what_was_in_flight_when_a_run_was_cut_off_is_told(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    limits = BudgetSettings(usd=0.2)
    killed = Budget(limits, ledger)
    assert killed.unsettled_words() is None
    reserve(killed, usd=0.1, tokens=1_500)
    assert Budget(limits, ledger).unsettled_words() == (
        "0.2 USD, 3,000 tokens, 2 requests (at most) in flight when an earlier run was cut off: "
        "counted as spent"
    )


def test_work_that_goes_on_without_us_is_held_by_every_later_process(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    limits = BudgetSettings(usd=1)
    killed = Budget(limits, ledger)
    batch = reserve(killed, usd=0.4, requests=8, noted=True)
    ledger.remember("batch:a", {"reserved": batch.amounts})
    for _ in range(2):
        later = Budget(limits, ledger)
        assert later.spent.usd == 0 and later.in_flight == 0  # in no lease, and not spent
        assert later.reserve(usd=0.7) is None
    assert later.reached() == ("usd: 0 of 1 spent, 0.4 in flight; one more request needs up to 0.7")
    again = later.take_over("batch:a", batch.amounts)
    assert later.in_flight == 1 and later.reserve(usd=0.7) is None
    ledger.record([Call("k", "t", "m", {}, {}, 10, 20, 0.1, 0.1)])
    ledger.forget("batch:a")
    later.settle(again, tokens=30, usd=0.1)
    assert reserve(later, usd=0.9) and later.spent.usd == 0.1


def test_work_that_is_left_stays_reserved_and_is_not_in_flight() -> None:
    budget = Budget(BudgetSettings(usd=1))
    batch = reserve(budget, usd=0.8, noted=True)
    budget.hold("batch:a", batch.amounts)
    budget.release(batch)
    assert budget.in_flight == 0 and budget.reserve(usd=0.5) is None
    budget.hold("batch:a", (0, 0, 0))
    assert budget.reserve(usd=0.5) is not None


def test_leases_are_written_a_few_times_and_only_under_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    written = []
    monkeypatch.setattr(ledger, "write_session", written.append)
    for limits, most in ((BudgetSettings(), 0), (BudgetSettings(usd=1e6), 10)):
        budget = Budget(limits, ledger)
        held = [reserve(budget, usd=0.01) for _ in range(256)]
        for _ in range(1000):
            budget.settle(held.pop(0), tokens=0, usd=0.005)
            held.append(reserve(budget, usd=0.01))
        assert len(written) <= most


def test_a_lease_that_cannot_be_written_reserves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    budget = Budget(BudgetSettings(usd=1), ledger)

    def full(session: object) -> None:
        raise RunError("full")

    with monkeypatch.context() as patched:
        patched.setattr(ledger, "write_session", full)
        for _ in range(2):
            with pytest.raises(RunError):
                budget.reserve(usd=0.5)
    assert budget.in_flight == 0
    reserve(budget, usd=1)
    assert Budget(BudgetSettings(usd=1), ledger).spent.unsettled_usd == 1


def test_threads_share_a_budget() -> None:
    budget = Budget(BudgetSettings(requests=1000))
    sent = []

    def work() -> None:
        while one := budget.reserve():
            sent.append(1)
            budget.settle(one, tokens=1, usd=0)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sent) == 1000 == budget.spent.requests == budget.spent.tokens


def test_it_costs_next_to_nothing(tmp_path: Path) -> None:
    budget = Budget(BudgetSettings(usd=1e6, tokens=10**9), Ledger(tmp_path / "ledger.sqlite"))
    start = time.process_time()
    for _ in range(20_000):
        budget.settle(reserve(budget, usd=0.01, tokens=100), tokens=50, usd=0.005)
    assert (time.process_time() - start) / 20_000 < 50e-6  # about 5 microseconds, and room


def test_reaching_it_is_exit_code_3() -> None:
    assert BudgetReached.exit_code == 3


# -- against a provider that bills -----------------------------------------------------------


@dataclass
class Provider:
    """Bills every request it is sent, whatever becomes of the reply."""

    requests: int = 0
    tokens: int = 0
    pico_usd: int = 0
    sent: list[tuple[Reservation, int, int]] = field(default_factory=list)
    batches: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """What each open batch is billed: requests, tokens, 1e-12 USD."""

    def send(self, reservation: Reservation, tokens: int, pico_usd: int) -> None:
        self.requests += 1
        self.tokens += tokens
        self.pico_usd += pico_usd
        self.sent.append((reservation, tokens, pico_usd))


def test_1000_runs_killed_anywhere_are_never_billed_more_than_the_budget(tmp_path: Path) -> None:
    cut_off = 0
    for trial in range(1000):
        dice = random.Random(trial)
        limits = BudgetSettings(
            usd=dice.choice([None, dice.uniform(0.001, 3)]),
            requests=dice.choice([None, dice.randrange(0, 60)]),
            tokens=dice.randrange(0, 30_000),
        )
        ledger = Ledger(tmp_path / f"{trial}.sqlite")
        provider = Provider()
        for _ in range(dice.randrange(3)):  # the ledger is what a killed process leaves
            cut_off += 1
            go_on(dice, Budget(limits, ledger), ledger, provider, steps=dice.randrange(40))
        budget = Budget(limits, ledger)
        last = go_on(dice, budget, ledger, provider, steps=10**9)
        spent = budget.spent
        for billed, counted, limit in (
            (provider.requests, spent.requests, limits.requests),
            (provider.tokens, spent.tokens, limits.tokens),
            (provider.pico_usd / PICO, spent.usd, limits.usd),
        ):
            assert billed <= counted + 1e-12
            assert limit is None or billed <= limit, trial
        left = (
            math.inf if limits.requests is None else limits.requests - spent.requests,
            math.inf if limits.tokens is None else limits.tokens - spent.tokens,
            math.inf if limits.usd is None else limits.usd - spent.usd,
        )
        assert any(room < need for room, need in zip(left, last, strict=True)), "room was left"
        ledger.close()
    assert cut_off > 500


def go_on(
    dice: random.Random, budget: Budget, ledger: Ledger, provider: Provider, *, steps: int
) -> tuple[int, int, float]:
    """Send and settle; return what was asked for when nothing more fitted."""
    at_once = dice.choice([1, 4, 32])
    usd_per_token = dice.choice([0.0, 1e-6, 1e-4])
    provider.sent.clear()
    asked = (1, 0, 0.0)
    for step in range(steps):
        fits = True
        while fits and budget.in_flight < at_once:
            tokens = dice.randrange(1, 3000)
            asked = (1, tokens, tokens * usd_per_token)
            reservation = budget.reserve(tokens=tokens, usd=asked[2])
            fits = reservation is not None
            if reservation is not None:
                if dice.random() < 0.1:
                    budget.release(reservation)  # refused with 429: not billed
                    continue
                used = dice.choice([tokens, dice.randrange(tokens + 1)])
                provider.send(reservation, used, round(used * usd_per_token * PICO))
        if not provider.sent:
            break
        if dice.random() < 0.7:  # a reply comes, or is cut off
            which = dice.randrange(len(provider.sent))
            reservation, used, pico_usd = provider.sent.pop(which)
            key, usd = f"{id(budget)}-{step}", pico_usd / PICO
            if dice.random() < 0.8:
                ledger.record([Call(key, "t", "m", {}, {}, 0, used, 0.0, usd)])
            else:
                used, usd = reservation.amounts[1], reservation.amounts[2] / PICO
                ledger.record([], lost=[LostCall(key, "t", "m", "reset", 0, used, usd)])
            if step + 1 == steps and dice.random() < 0.5:
                break  # killed between the two
            budget.settle(reservation, tokens=used, usd=usd)
    return asked


class Killed(Exception):
    """The process is gone."""


def test_runs_with_batches_killed_anywhere_are_never_billed_more(tmp_path: Path) -> None:
    """A batch is billed from when it is made; its rows come in two commits, then its note goes."""
    cut_off = collected = 0
    for trial in range(500):
        dice = random.Random(trial)
        limits = BudgetSettings(
            usd=dice.uniform(0.001, 3),
            requests=dice.choice([None, dice.randrange(10, 200)]),
            tokens=dice.choice([None, dice.randrange(0, 30_000)]),
        )
        ledger = Ledger(tmp_path / f"{trial}.sqlite")
        provider = Provider()
        for left in reversed(range(dice.randrange(1, 5))):
            budget = Budget(limits, ledger)
            fuse = iter([False] * dice.randrange(25) + [True]) if left else iter(lambda: False, 1)
            try:
                with_batches(dice, budget, ledger, provider, fuse)
            except Killed:
                cut_off += 1
            else:
                collected += 1
                budget.close()
        held = sum(note["reserved"][2] for note in ledger.recall().values())
        spent = Budget(limits, ledger).spent
        assert limits.usd is not None
        assert provider.pico_usd <= min(pico(spent.usd) + held, pico(limits.usd)), trial
        assert limits.requests is None or provider.requests <= limits.requests
        assert limits.tokens is None or provider.tokens <= limits.tokens
        ledger.close()
    assert cut_off > 400 and collected > 400


def with_batches(
    dice: random.Random, budget: Budget, ledger: Ledger, provider: Provider, fuse: Iterator[bool]
) -> None:
    """Collect the batches that are open, make new ones, and send single requests between."""

    def step() -> None:
        if next(fuse):
            raise Killed

    def collect(name: str, reservation: Reservation) -> None:
        requests, tokens, pico_usd = provider.batches[name]
        first = tokens // 2
        for key, n, tokens_out, usd in (
            (f"{name}/1", requests, first, pico_usd // 2),
            (f"{name}/2", 0, tokens - first, pico_usd - pico_usd // 2),
        ):
            if not ledger.known([key]):
                row = Call(key, "t", "m", {}, {}, 0, tokens_out, 0.0, usd / PICO, n)
                ledger.record([row])
                came.append(row)
            step()
        ledger.forget(name)
        del provider.batches[name]
        step()
        budget.settle(
            reservation,
            tokens=sum(row.tokens_out for row in came),
            usd=sum(row.cost_usd or 0.0 for row in came),
            requests=sum(row.requests for row in came),
        )
        came.clear()

    came: list[Call] = []
    for name, note in ledger.recall("batch:").items():
        if dice.random() < 0.3:  # of a role that has no work now
            continue
        step()
        taken = budget.take_over(name, tuple(note["reserved"]))
        if name in provider.batches:
            collect(name, taken)
        else:  # killed before it was made
            ledger.forget(name)
            budget.release(taken)
    for number in range(dice.randrange(6)):
        step()
        requests, tokens = dice.randrange(1, 20), dice.randrange(1, 8000)
        reservation = budget.reserve(
            requests=requests, tokens=tokens, usd=tokens * 1e-4, noted=True
        )
        one = budget.reserve(tokens=100, usd=0.01)
        if one is not None:
            step()
            provider.send(one, 100, pico(0.01))
            step()
            ledger.record([Call(f"{id(budget)}-{number}", "t", "m", {}, {}, 0, 100, 0.0, 0.01)])
            step()
            budget.settle(one, tokens=100, usd=0.01)
        if reservation is None:
            continue
        name = f"batch:{len(ledger.accounts())}-{dice.random()}"
        ledger.remember(name, {"reserved": reservation.amounts})
        step()
        used = dice.randrange(tokens + 1)
        provider.batches[name] = (requests, used, pico(used * 1e-4))
        provider.requests += requests
        provider.tokens += used
        provider.pico_usd += pico(used * 1e-4)
        step()
        if dice.random() < 0.7:
            collect(name, reservation)
        else:
            budget.hold(name, reservation.amounts)
            budget.release(reservation)


def test_kill_9_does_not_let_a_budget_be_passed(tmp_path: Path) -> None:
    bill = tmp_path / "bill"
    bill.touch()
    program = (
        "import os; from pathlib import Path\n"
        "from symdistill.budget import Budget, BudgetSettings\n"
        "from symdistill.ledger import Call, Ledger\n"
        f"ledger = Ledger(Path({str(tmp_path / 'ledger.sqlite')!r}))\n"
        "budget = Budget(BudgetSettings(usd=20), ledger)\n"
        f"bill = os.open({str(bill)!r}, os.O_WRONLY | os.O_APPEND)\n"
        "held = []\n"
        "while True:\n"
        "    one = budget.reserve(usd=0.01) if len(held) < 8 else None\n"
        "    if one:\n"
        "        os.write(bill, b'x')\n"
        "        held.append(one)\n"
        "    elif held:\n"
        "        key = f'{os.getpid()}-{budget.spent.requests}'\n"
        "        ledger.record([Call(key, 't', 'm', {}, {}, 1, 1, 0, 0.01)])\n"
        "        budget.settle(held.pop(0), tokens=2, usd=0.01)\n"
        "    else:\n"
        "        break\n"
    )
    kills = 0
    while True:
        before = bill.stat().st_size
        child = subprocess.Popen([sys.executable, "-c", program])
        while child.poll() is None and (kills == 4 or bill.stat().st_size < before + 200):
            time.sleep(0.002)
        if child.poll() is not None:
            break
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        kills += 1
    assert child.returncode == 0 and kills == 4
    billed = bill.stat().st_size * 0.01
    spent = Budget(BudgetSettings(usd=20), Ledger(tmp_path / "ledger.sqlite")).spent
    assert billed <= spent.usd == 20
    assert billed >= 20 - 4 * 16 * 0.01  # four leases, each at most twice what was in flight
