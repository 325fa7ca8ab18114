"""A model of this machine as a backend: the embedded one, in batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from symdistill.errors import InputError, RunError
from symdistill.models import Model
from symdistill.teachers import local_backend
from symdistill.teachers.base import Decoding, NoAnswer, Output, Prompt, Replies
from symdistill.teachers.local_backend import LocalBackend, _End, _OneOf

pytestmark = pytest.mark.real

CHAT = ({"role": "user", "content": "Name a colour."},)
TEXT = "The sky is"
FREE = Decoding(temperature=1.0, max_new_tokens=8)


@pytest.fixture(scope="module")
def backend(smollm2: Model) -> Iterator[LocalBackend]:
    one = LocalBackend(batch_size=8, seed=3)
    asyncio.run(one.start())
    yield one
    asyncio.run(one.close())


def send(
    backend: LocalBackend, *asks: tuple[Prompt, int, int], decoding: Decoding = FREE
) -> list[Replies]:
    """The replies to (prompt, samples, first sample), all asked at once."""

    async def main() -> list[Replies]:
        return await asyncio.gather(
            *[
                backend.send(prompt, samples, decoding, first_sample=first)
                for prompt, samples, first in asks
            ]
        )

    return asyncio.run(main())


def texts(got: Replies) -> list[str]:
    return [reply.text for reply in got.replies]


def said(backend: LocalBackend, prompt: Prompt = TEXT, samples: int = 1, **how: Any) -> Replies:
    decoding = Decoding(**{"max_new_tokens": 8, **how})
    return send(backend, (prompt, samples, 0), decoding=decoding)[0]


def test_chats_and_texts_are_answered(backend: LocalBackend) -> None:
    chat, text = send(backend, (CHAT, 3, 0), (TEXT, 2, 0))
    assert len(set(texts(chat))) == 3 and len(set(texts(text))) == 2
    tokenizer = backend._tokenizer
    template = tokenizer.apply_chat_template([*CHAT], add_generation_prompt=True, tokenize=False)
    assert chat.tokens_in == len(tokenizer(template)["input_ids"])
    assert text.tokens_in == len(tokenizer(TEXT)["input_ids"])
    for reply in [*chat.replies, *text.replies]:
        assert reply.finish_reason == "stop" or reply.tokens == FREE.max_new_tokens
        assert abs(reply.tokens - len(tokenizer(reply.text)["input_ids"])) <= 1
        assert "<|" not in reply.text


def test_the_requests_beside_do_not_choose_the_text(backend: LocalBackend) -> None:
    alone = texts(send(backend, (TEXT, 3, 0))[0])
    beside = send(backend, (CHAT, 4, 0), (TEXT, 1, 2), (TEXT, 2, 0), ("Once upon a time", 1, 0))
    assert [*texts(beside[2]), *texts(beside[1])] == alone


def test_the_seed_chooses_it(backend: LocalBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    first = texts(send(backend, (TEXT, 3, 0))[0])
    monkeypatch.setattr(backend, "identity", {**backend.identity, "seed": 4})
    assert texts(send(backend, (TEXT, 3, 0))[0]) != first


def test_a_request_brings_no_more_than_a_batch(backend: LocalBackend) -> None:
    assert len(send(backend, (TEXT, 20, 0))[0].replies) == backend.samples_per_request == 8


def test_temperature_0_is_what_the_model_finds_likeliest(backend: LocalBackend) -> None:
    import torch

    ids = backend._tokenizer(TEXT)["input_ids"]
    written: list[int] = []
    for _ in range(8):
        with torch.inference_mode():
            logits = backend._model(torch.tensor([ids + written])).logits[0, -1]
        written.append(int(logits.argmax()))
    got = said(backend, temperature=0, samples=2)
    assert texts(got) == [backend._tokenizer.decode(written)] * 2


def test_log_probabilities_are_the_model_s_own(backend: LocalBackend) -> None:
    import torch

    beside, got = send(
        backend, (CHAT, 1, 0), (TEXT, 2, 0), decoding=FREE.model_copy(update={"top_logprobs": 3})
    )
    assert beside.replies[0].logprobs is not None
    for reply in got.replies:
        assert reply.logprobs is not None and len(reply.logprobs) == reply.tokens
        assert b"".join(bytes(one["bytes"]) for one in reply.logprobs).decode() == reply.text
        ids = backend._tokenizer(TEXT)["input_ids"]
        pieces = {bytes_: i for i, bytes_ in enumerate(backend._table.token_bytes)}
        tokens = [pieces[bytes(one["bytes"])] for one in reply.logprobs]
        with torch.inference_mode():
            logits = backend._model(torch.tensor([ids + tokens])).logits[0].log_softmax(-1)
        for i, one in enumerate(reply.logprobs):
            expected = logits[len(ids) - 1 + i]
            assert one["logprob"] == pytest.approx(float(expected[tokens[i]]), abs=1e-3)
            best = [other["logprob"] for other in one["top"]]
            assert best == pytest.approx(expected.topk(3).values.tolist(), abs=1e-3)
    none = said(backend, top_logprobs=0).replies[0].logprobs
    assert none is not None and none[0]["top"] == []


def test_answers_are_among_the_choices(backend: LocalBackend) -> None:
    choices = ("no", "not at all", "yes, é 犬")
    output = Output(choices=choices)
    got = said(backend, CHAT, 8, temperature=3.0, output=output, max_new_tokens=8)
    assert set(texts(got)) <= set(choices) and len(set(texts(got))) > 1
    assert {reply.finish_reason for reply in got.replies} == {"stop"}


def test_choices_keep_the_model_s_shares() -> None:
    """Of two choices of which one begins the other; token 9 is the end."""
    import torch

    mask = _OneOf([(1,), (1, 2), (3,)], 2, [9])
    scores = torch.arange(40.0).reshape(4, 10)

    def allowed(written: Sequence[Sequence[int]]) -> list[list[int]]:
        rows = torch.tensor([[7, 7, *row] for row in written])
        found = mask(rows, scores[: len(rows)])
        assert torch.equal(found[found > -torch.inf], scores[: len(rows)][found > -torch.inf])
        return [torch.nonzero(row > -torch.inf)[:, 0].tolist() for row in found]

    assert allowed([[]]) == [[1, 3]]
    assert allowed([[1], [3]]) == [[2, 9], [9]]
    assert allowed([[1, 2], [3, 9]]) == [[9], [9]]


def test_stop_texts_end_an_answer(backend: LocalBackend) -> None:
    how = {"temperature": 0, "max_new_tokens": 20}
    free = said(backend, "One, two, three,", **how).replies[0]
    cut = said(backend, "One, two, three,", **how, stop=("never", "ive,")).replies[0]
    assert cut.text == free.text.partition("ive,")[0] and cut.text.endswith(" f")
    assert cut.finish_reason == "stop" and cut.tokens < free.tokens


def test_a_stop_text_over_several_tokens_ends_the_row_there() -> None:
    import threading

    import torch

    end = _End([b"a", b"b", b"c", b""], ["bc"], threading.Event())
    rows = torch.tensor([[0], [1]])
    assert end(rows, None).tolist() == [False, False]
    rows = torch.tensor([[0, 1], [1, 2]])
    assert end(rows, None).tolist() == [False, True]
    assert end.length([0, 1, 2, 0], [3]) == (3, True)
    assert end.length([0, 3, 3], [3]) == (1, True)
    assert end.length([0, 0, 9], [3]) == (3, False)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"output": {"json_schema": {"type": "object"}}}, "use llamacpp:"),
        ({"extra": {"top_k": 3}}, "expected no decoding.extra"),
        ({"output": {"choices": ["yes", "no, no, no, no, no"]}, "max_new_tokens": 4}, "at least"),
    ],
)
def test_what_it_cannot_do_is_refused(
    backend: LocalBackend, how: dict[str, Any], said: str
) -> None:
    decoding = Decoding.model_validate(how)
    with pytest.raises(InputError, match=said):
        asyncio.run(backend.check(decoding))
    with pytest.raises(InputError, match=said):
        send(backend, (TEXT, 1, 0), decoding=decoding)


@pytest.mark.parametrize(
    ("prompt", "kind"), [("", "bad_request"), ("word " * 9000, "context_overflow")]
)
def test_prompts_that_have_no_answer(backend: LocalBackend, prompt: str, kind: str) -> None:
    with pytest.raises(NoAnswer) as error:
        send(backend, (prompt, 1, 0))
    assert error.value.kind == kind


def test_chat_templates_that_refuse_or_lack(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend._tokenizer, "chat_template", "{{ raise_exception('no system') }}")
    with pytest.raises(NoAnswer, match="no system"):
        send(backend, (CHAT, 1, 0))
    monkeypatch.setattr(backend._tokenizer, "chat_template", None)
    with pytest.raises(InputError, match="has none"):
        send(backend, (CHAT, 1, 0))


def test_a_batch_that_fails_is_told_to_all_in_it(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RunError("damaged")

    with monkeypatch.context() as patched:
        patched.setattr(local_backend, "likeliest_tokens", fail)
        for asks in ([(TEXT, 1, 0)], [(TEXT, 1, 0), (CHAT, 2, 0)]):
            with pytest.raises(RunError, match="damaged"):
                send(backend, *asks)
    assert len(send(backend, (TEXT, 1, 0))[0].replies) == 1


def test_batches_hold_one_decoding(backend: LocalBackend) -> None:
    async def main() -> list[Replies]:
        short = FREE.model_copy(update={"max_new_tokens": 2})
        return await asyncio.gather(
            *[backend.send(TEXT, 1, one, first_sample=0) for one in (FREE, short, FREE)]
        )

    long, short, again = asyncio.run(main())
    assert texts(long) == texts(again)
    assert short.replies[0].tokens <= 2 < long.replies[0].tokens


def test_closing_stops_what_is_being_written(smollm2: Model) -> None:
    async def main() -> float:
        one = LocalBackend(batch_size=2)
        await one.start()
        decoding = Decoding(temperature=0, max_new_tokens=4000)
        tasks = [asyncio.create_task(one.send(CHAT, 2, decoding)) for _ in range(3)]
        await asyncio.sleep(0.5)
        start = time.perf_counter()
        await one.close()
        await one.close()
        assert all(
            isinstance(found, asyncio.CancelledError)
            for found in await asyncio.gather(*tasks, return_exceptions=True)
        )
        assert one._model is None and one._teacher._loaded is None
        return start

    start = asyncio.run(main())  # which waits for its threads
    assert time.perf_counter() - start < 5


def test_no_such_model() -> None:
    with pytest.raises(InputError):
        LocalBackend("./nowhere")
