"""The scripted teacher: answers from a function, faults on demand."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from symdistill.teachers.base import Again, Decoding, NoAnswer, Prompt, Replies, Reply
from symdistill.teachers.scripted import ScriptedBackend, echo, words

pytestmark = pytest.mark.unit

CHAT = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello there"})


def send(
    backend: ScriptedBackend, prompt: Prompt = "a b", samples: int = 1, first: int = 0, **how: Any
) -> Replies:
    return asyncio.run(backend.send(prompt, samples, Decoding(**how), first_sample=first))


def outcome(backend: ScriptedBackend, prompt: Prompt = "a b", first: int = 0) -> str:
    try:
        return send(backend, prompt, first=first).replies[0].text
    except Exception as error:
        return str(error)


def test_the_function_sees_prompt_and_sample() -> None:
    backend = ScriptedBackend(lambda prompt, sample: f"{prompt} {sample}")
    got = send(backend, "x y", samples=3, first=4)
    assert [reply.text for reply in got.replies] == ["x y 4", "x y 5", "x y 6"]
    assert (got.tokens_in, [reply.tokens for reply in got.replies]) == (2, [3, 3, 3])
    assert backend.tokens_bound("x y") == 2
    assert backend.price is not None and backend.price.cost_usd(10**6, 10**6) == 0


def test_a_request_brings_no_more_samples_than_it_can() -> None:
    backend = ScriptedBackend(lambda prompt, sample: "x", samples_per_request=2)
    assert len(send(backend, samples=5).replies) == 2


def test_echo_gives_the_last_text_back() -> None:
    assert echo("a text", 0) == "a text"
    assert echo(CHAT, 0) == "Hello there"
    assert words(CHAT) == 4


def test_answers_end_at_stop_texts_and_at_the_limit() -> None:
    backend = ScriptedBackend(lambda prompt, sample: "one  two three. four")
    assert send(backend, stop=("three", ".")).replies[0].text == "one  two "
    cut = send(backend, max_new_tokens=2).replies[0]
    assert (cut.text, cut.finish_reason, cut.tokens) == ("one  two", "length", 2)
    whole = send(backend).replies[0]
    assert (whole.text, whole.finish_reason, whole.tokens) == ("one  two three. four", "stop", 4)


def test_a_whole_reply_is_passed_on() -> None:
    reply = Reply("x", "content_filter", 7, logprobs=({"token": "x"},), about={"model": "m"})
    assert send(ScriptedBackend(lambda prompt, sample: reply)).replies == [reply]


def test_what_the_function_raises_is_passed_on() -> None:
    def refuse(prompt: Prompt, sample: int) -> str:
        raise NoAnswer("refused", "no")

    with pytest.raises(NoAnswer, match="no"):
        send(ScriptedBackend(refuse))


def test_faults_come_in_their_order_and_then_answers() -> None:
    faults = [Again("first", after_s=2.0), None, NoAnswer("refused", "third")]
    backend = ScriptedBackend(lambda prompt, sample: "said", faults=faults)
    assert [outcome(backend) for _ in range(5)] == ["first", "said", "third", "said", "said"]
    assert backend.requests == 5


def test_shares_of_faults_do_not_depend_on_the_order() -> None:
    shares = [(0.2, Again("again")), (0.1, NoAnswer("refused", "refused"))]

    def outcomes(prompts: list[str], seed: int = 0) -> dict[str, list[str]]:
        backend = ScriptedBackend(lambda prompt, sample: "said", shares=shares, seed=seed)
        return {prompt: [outcome(backend, prompt) for _ in range(2)] for prompt in prompts}

    prompts = [f"prompt {i}" for i in range(300)]
    found = outcomes(prompts)
    assert found == outcomes(prompts[::-1])
    assert found != outcomes(prompts, seed=1)
    first = [some[0] for some in found.values()]
    assert 0.13 < first.count("again") / 300 < 0.27
    assert 0.05 < first.count("refused") / 300 < 0.16
    retried = [some[1] for some in found.values() if some[0] == "again"]
    assert "said" in retried  # another attempt is another draw


def test_shares_above_one_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 1"):
        ScriptedBackend(echo, shares=[(0.6, Again("a")), (0.6, Again("b"))])


def test_the_limit_tells_when_to_come_again() -> None:
    backend = ScriptedBackend(echo, limit=(2, 0.2))
    assert [outcome(backend) for _ in range(2)] == ["a b", "a b"]
    with pytest.raises(Again) as refused:
        send(backend)
    assert refused.value.throttled and refused.value.after_s is not None
    assert 0 < refused.value.after_s <= 0.2
    time.sleep(refused.value.after_s + 0.01)
    assert outcome(backend) == "a b"


def test_it_takes_its_time() -> None:
    backend = ScriptedBackend(echo, delay_s=0.05)

    async def together() -> None:
        await asyncio.gather(*[backend.send("a", 1, Decoding()) for _ in range(10)])

    start = time.perf_counter()
    asyncio.run(together())
    assert 0.05 <= time.perf_counter() - start < 0.4


def test_opening_and_closing_do_nothing() -> None:
    backend = ScriptedBackend(echo)
    asyncio.run(backend.start())
    asyncio.run(backend.close())
    asyncio.run(backend.close())
