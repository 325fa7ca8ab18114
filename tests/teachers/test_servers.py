"""The local servers answer as they say, count what they were asked, and end when they should."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from benchmarks.servers import FAULTS, Allowance, Running, answer_to, key_of, running

pytestmark = pytest.mark.unit

FOLDER = Path(__file__).parents[2]


def _chat(prompt, **further):
    return {"model": "any", "messages": [{"role": "user", "content": prompt}], **further}


def _ask(server, bodies, *, path="chat/completions", timeout_s=5, at_once=20, session=None):
    """(status, headers, JSON) of each, or the exception it ended with."""
    import aiohttp

    async def one(client, gate, body):
        try:
            async with gate, client.post(f"{server.url}/{path}", json=body) as reply:
                raw = await reply.read()
                return reply.status, reply.headers, json.loads(raw)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            return error

    async def every():
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        async with aiohttp.ClientSession(timeout=timeout) as client:
            gate = asyncio.Semaphore(at_once)
            return await asyncio.gather(*(one(client, gate, body) for body in bodies))

    return asyncio.run(every())


def _text(reply):
    choice = reply[2]["choices"][0]
    return choice["message"]["content"] if "message" in choice else choice["text"]


def _prompts(number):
    return [f"What is thing {index}?" for index in range(number)]


class TestFixed:
    def test_answers_each_prompt_with_its_own_text(self):
        with running("fixed", latency_ms=5) as server:
            prompts = _prompts(100)
            replies = _ask(server, [_chat(prompt) for prompt in prompts])
            assert [_text(reply) for reply in replies] == [answer_to(one) for one in prompts]
            stats = server.stats()
        assert stats["requests"] == stats["distinct"] == stats["whole"] == 100
        assert stats["duplicates"] == stats["needless"] == stats["in_flight"] == 0
        assert stats["max_in_flight"] == 20

    def test_gives_n_choices_and_counts_their_tokens(self):
        with running("fixed", tokens=(10, 10)) as server:
            ((_, _, said),) = _ask(server, [_chat("a b c", n=3, max_tokens=4)])
        texts = [choice["message"]["content"] for choice in said["choices"]]
        assert texts == [answer_to("a b c", index, 4) for index in range(3)]
        assert {choice["finish_reason"] for choice in said["choices"]} == {"length"}
        assert said["usage"] == {"prompt_tokens": 3, "completion_tokens": 12, "total_tokens": 15}

    def test_completes_a_text(self):
        with running("fixed") as server:
            (reply,) = _ask(server, [{"model": "any", "prompt": "Once"}], path="completions")
        assert reply[2]["object"] == "text_completion"
        assert _text(reply) == answer_to("Once")

    def test_takes_the_time_it_is_told_to(self):
        with running("fixed", latency_ms=200) as server:
            start = time.monotonic()
            _ask(server, [_chat(prompt) for prompt in _prompts(10)])
            assert 0.2 <= time.monotonic() - start < 1

    def test_counts_what_is_asked_again(self):
        with running("fixed", log=True) as server:
            before = time.monotonic()
            for _ in range(2):
                _ask(server, [_chat("again"), _chat(f"once {time.monotonic()}")])
            stats, events = server.stats(), server.log()
        assert (stats["requests"], stats["duplicates"], stats["needless"]) == (4, 1, 1)
        assert stats["whole_duplicates"] == 1
        assert [what for _, what, key in events if key == key_of("again")] == [
            "asked", "whole", "asked", "whole",
        ]  # fmt: skip
        assert all(before < at < time.monotonic() for at, _, _ in events)

    def test_lists_its_model_and_refuses_what_it_does_not_know(self):
        import urllib.error
        import urllib.request

        with running("fixed") as server:
            with urllib.request.urlopen(f"{server.url}/models") as reply:
                assert json.load(reply)["data"][0]["id"] == "local"
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"{server.url}/else")
            ((status, _, said),) = _ask(server, [{"model": "any"}])
        assert status == 400 and "expected a prompt" in said["error"]["message"]

    def test_ends_with_the_process_that_started_it(self):
        code = (
            "from benchmarks.servers import running\n"
            "with running('fixed') as server:\n"
            "    print(server.url, flush=True)\n"
            "    input()\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=FOLDER,
        )
        server = Running(process.stdout.readline().strip())
        assert server.stats()["requests"] == 0
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                server.stats()
            except OSError:
                return
            time.sleep(0.02)
        pytest.fail("the server outlived the process that started it")


class TestAllowance:
    """Ten a second, counted three ways."""

    @pytest.mark.parametrize("window", ["bucket", "sliding", "fixed"])
    def test_admits_no_more_than_it_allows(self, window):
        one = Allowance(10, window, minute_s=1, burst_s=1)
        now, admitted = 0.0, []
        while now < 20:
            if one.wait_s(1, now) == 0:
                one.take(1, now)
                admitted.append(now)
            now += 0.01
        assert len(admitted) == pytest.approx(200, abs=11)
        if window == "sliding":
            assert all(b - a > 1 - 1e-9 for a, b in zip(admitted, admitted[10:], strict=False))

    @pytest.mark.parametrize("window", ["bucket", "sliding", "fixed"])
    def test_after_the_wait_that_it_names_there_is_room(self, window):
        one = Allowance(10, window, minute_s=1, burst_s=1)
        for now, amount in ((0.0, 4), (0.3, 3), (0.5, 3)):
            one.take(amount, now)
        wait = one.wait_s(9, 0.6)
        assert wait > 0
        assert one.wait_s(9, 0.6 + wait + 1e-6) == 0

    def test_a_bucket_is_full_at_first(self):
        one = Allowance(60, "bucket", minute_s=60, burst_s=5)
        assert one.left(0) == 5
        one.take(5, 0)
        assert one.wait_s(1, 0) == pytest.approx(1)
        assert one.reset_s(0) == pytest.approx(5)


class TestLimited:
    def test_refuses_what_is_too_much_and_says_when_to_come_back(self):
        with running(
            "limited", requests_per_minute=5, window="sliding", latency_s=(0, 0.01)
        ) as server:
            replies = _ask(server, [_chat(prompt) for prompt in _prompts(8)])
            stats = server.stats()
        refused = [headers for status, headers, _ in replies if status == 429]
        assert len(refused) == stats["refused"] == 3
        assert stats["admitted"] == stats["whole"] == 5
        assert all(55 <= int(headers["Retry-After"]) <= 60 for headers in refused)
        assert all(headers["x-ratelimit-remaining-requests"] == "0" for headers in refused)
        assert all(headers["x-ratelimit-limit-requests"] == "5" for headers in refused)

    def test_counts_tokens_as_it_is_told(self):
        for charge, each in (("bound", 103), ("actual", 13)):
            with running(
                "limited", tokens_per_minute=10_000, charge=charge, tokens=(10, 10),
                latency_s=(0, 0), retry_after=False, headers=False,
            ) as server:  # fmt: skip
                _ask(server, [_chat("a b c", max_tokens=100), _chat("a b d", max_tokens=100)])
                assert server.stats()["admitted_tokens"] == 2 * each

    def test_may_say_nothing(self):
        with running(
            "limited", requests_per_minute=1, latency_s=(0, 0), retry_after=False, headers=False
        ) as server:
            replies = _ask(server, [_chat(prompt) for prompt in _prompts(2)])
        assert sorted(status for status, _, _ in replies) == [200, 429]
        assert not any("ratelimit" in name for _, headers, _ in replies for name in headers)
        assert not any("Retry-After" in headers for _, headers, _ in replies)

    def test_a_minute_may_be_shorter_and_large_answers_take_longer(self):
        with running(
            "limited", requests_per_minute=30, seconds_per_minute=0.3, burst_s=0.1,
            latency_s=(0.0, 0.3), tokens=(1, 100),
        ) as server:  # fmt: skip
            (first,) = _ask(server, [_chat("a", max_tokens=1)])
            start = time.monotonic()
            (second,) = _ask(server, [_chat("b", max_tokens=100)])
            took = time.monotonic() - start
            time.sleep(0.3)
            replies = _ask(server, [_chat(prompt, max_tokens=1) for prompt in _prompts(10)])
        assert (first[0], second[0]) == (200, 200)
        length = second[2]["usage"]["completion_tokens"]
        assert took >= 0.3 * length / 100
        assert [status for status, _, _ in replies] == [200] * 10


@pytest.fixture(scope="module")
def fixed():
    with running("fixed", latency_ms=5) as server:
        yield server


class TestFaults:
    @pytest.mark.parametrize("fault", FAULTS)
    def test_shows_each_fault(self, fault, fixed):
        """In front of another server, each time."""
        import aiohttp

        options = {"upstream": fixed.url, "rates": {fault: 1.0}, "slow_s": 0.2}
        with running("faults", **options) as server:
            start = time.monotonic()
            (got,) = _ask(server, [_chat("café")], timeout_s=0.5)
            took, stats = time.monotonic() - start, server.stats()
        assert stats["faults"] == {fault: 1}
        whole = fault in ("twice", "stale", "late", "slow_headers") or fault.startswith("usage")
        assert stats["whole"] == whole
        if whole:
            assert _text(got) == answer_to("café")
        if fault in ("throttled", "throttled_wait"):
            assert got[0] == 429
            assert ("Retry-After" in got[1]) == (fault == "throttled_wait")
        elif fault in ("error_500", "busy_503"):
            assert got[0] == int(fault[-3:])
        elif fault == "hang":
            assert isinstance(got, TimeoutError) and took >= 0.5
        elif fault in ("reset_before", "reset_middle", "cut_body", "gzip_garbage"):
            assert isinstance(got, aiohttp.ClientError)
        elif fault == "cut_json":
            assert isinstance(got, json.JSONDecodeError)
        elif fault == "utf8_cut":
            assert isinstance(got, UnicodeDecodeError)
        elif fault in ("late", "slow_headers"):
            assert took >= 0.1
        elif fault == "usage_missing":
            assert got[2]["usage"] is None
        elif fault == "usage_negative":
            assert got[2]["usage"]["completion_tokens"] < 0

    def test_a_stale_reply_is_the_one_before(self):
        with running("faults", rates={"stale": 1.0}) as server:
            first, second = _ask(server, [_chat("one"), _chat("two")], at_once=1)
            assert _text(first) == _text(second) == answer_to("one")
            assert first[2]["id"] == second[2]["id"]
            assert server.stats()["whole"] == 1

    def test_shows_as_many_as_it_was_told(self):
        rates = {"throttled": 0.1, "error_500": 0.05, "reset_middle": 0.02}
        with running("faults", rates=rates, seed=3) as server:
            replies = _ask(server, [_chat(prompt) for prompt in _prompts(1000)])
            stats = server.stats()
        seen = Counter(reply[0] if isinstance(reply, tuple) else "reset" for reply in replies)
        assert seen == {
            200: stats["whole"],
            429: stats["faults"]["throttled"],
            500: stats["faults"]["error_500"],
            "reset": stats["faults"]["reset_middle"],
        }
        for name, rate in rates.items():
            assert stats["faults"][name] == pytest.approx(1000 * rate, rel=0.4)

    def test_the_plan_depends_on_the_seed_alone(self):
        bodies = [_chat(prompt) for prompt in _prompts(60)]
        shown = []
        for seed in (1, 1, 2):
            with running("faults", rates={"error_500": 0.5}, seed=seed) as server:
                first = [reply[0] for reply in _ask(server, bodies)]
                again = [reply[0] for reply in _ask(server, bodies)]
                shown.append((first, again))
        assert shown[0] == shown[1] != shown[2]
        assert shown[0][0] != shown[0][1]  # another attempt, another fate

    def test_tells_what_was_asked_again_for_nothing(self):
        with running("faults", rates={"late": 1.0}, slow_s=1.0) as server:
            _ask(server, [_chat("slow")], timeout_s=0.2)
            _ask(server, [_chat("slow"), _chat("slow")], timeout_s=3)
            stats = server.stats()
        assert (stats["requests"], stats["whole"], stats["whole_duplicates"]) == (3, 2, 1)
        assert stats["needless"] == 0  # none had come whole when the others were asked

    def test_refuses_a_fault_that_it_does_not_know(self, capfd):
        with pytest.raises(RuntimeError, match="did not start"), running("faults", rates={"x": 1}):
            pass
        assert "expected faults of" in capfd.readouterr().err


def test_the_benchmark_runs():
    """Its short form, without the parts that compare speed."""
    parts = ("memory", "rerun", "kill", "faults", "budget")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.teachers", "--quick", "--part", *parts],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=FOLDER,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["rerun_requests_sent"] == 0
    assert figures["kill_complete"] and figures["kill_lost_max"] == 0
    assert figures["fault_completed"] and figures["fault_duplicates"] == 0
    assert figures["budget_violations"] == 0 and figures["budget_stopped"] > 0
