"""The llama.cpp server of our own, with the embedded model."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from symdistill.errors import InputError, RunError
from symdistill.models import Model, find_embedded
from symdistill.teachers.base import Decoding, NoAnswer, Output, Replies
from symdistill.teachers.counting import token_counter
from symdistill.teachers.llamacpp import LlamaCppBackend, gguf_of

pytestmark = pytest.mark.real

CHAT = ({"role": "user", "content": "Name three colours, and say what you like about them."},)
SLOTS = 4


class Served:
    """A started backend on an event loop of its own."""

    def __init__(self, backend: LlamaCppBackend) -> None:
        self.backend = backend
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.run(backend.start())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def send(self, prompt: Any = CHAT, samples: int = 1, first: int = 0, **how: Any) -> Replies:
        decoding = Decoding(**{"max_new_tokens": 16, **how})
        got: Replies = self.run(self.backend.send(prompt, samples, decoding, first_sample=first))
        return got

    def texts(self, prompt: Any = CHAT, samples: int = 1, first: int = 0, **how: Any) -> list[str]:
        return [reply.text for reply in self.send(prompt, samples, first, **how).replies]

    def stop(self) -> None:
        self.run(self.backend.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="module")
def served(smollm2: Model) -> Iterator[Served]:
    pytest.importorskip("xllamacpp")
    one = Served(LlamaCppBackend(slots=SLOTS, context_tokens=512, threads=2, seed=3))
    yield one
    one.stop()


def test_a_chat_gets_several_samples(served: Served) -> None:
    got = served.send(samples=3, temperature=1.0)
    assert len({reply.text for reply in got.replies}) == 3
    assert {reply.finish_reason for reply in got.replies} <= {"stop", "length"}
    assert got.tokens_in > 10


def test_more_samples_than_slots_come_in_several_requests(served: Served) -> None:
    assert served.backend.samples_per_request == SLOTS
    assert len(served.send(samples=SLOTS + 3, max_new_tokens=4).replies) == SLOTS


def test_tokens_agree_with_the_tokenizer(served: Served) -> None:
    count = token_counter("embedded:smollm2")
    got = served.send(samples=4, temperature=1.0, max_new_tokens=24)
    for reply in got.replies:
        assert reply.finish_reason == "stop" or reply.tokens == 24
        # What is sampled need not be how the tokenizer would have cut it, nor end in a character.
        assert abs(reply.tokens - count(reply.text)) <= 2


def test_log_probabilities_with_bytes(served: Served) -> None:
    reply = served.send(top_logprobs=3).replies[0]
    assert reply.logprobs is not None
    written = b"".join(bytes(one["bytes"]) for one in reply.logprobs)
    assert written.decode().startswith(reply.text)
    for one in reply.logprobs:
        assert one["logprob"] <= 0 and len(one["top"]) == 3
        best = [other["logprob"] for other in one["top"]]
        assert best == sorted(best, reverse=True)


def test_answers_keep_to_a_schema(served: Served) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}, "likes": {"type": "boolean"}},
        "required": ["colour", "likes"],
        "additionalProperties": False,
    }
    output = Output(json_schema=schema)
    assert served.run(served.backend.check(Decoding(output=output))) is not None
    said = json.loads(served.texts(max_new_tokens=40, output=output)[0])
    assert said["colour"] in ("red", "blue") and said["likes"] in (True, False)


def test_answers_are_among_the_choices(served: Served) -> None:
    choices = ("warm", "cold", 'neither "of" them,\n\té \\ 犬')
    how = {"temperature": 2.0, "output": Output(choices=choices), "max_new_tokens": 30}
    said = served.texts(samples=4, **how) + served.texts(samples=4, first=4, **how)
    assert set(said) <= set(choices)
    assert len(set(said)) > 1
    reply = served.send(top_logprobs=2, **how).replies[0]
    assert reply.logprobs is not None
    assert b"".join(bytes(one["bytes"]) for one in reply.logprobs).decode() == reply.text


def test_the_seed_decides_and_not_how_samples_are_grouped(served: Served) -> None:
    how = {"temperature": 1.0, "max_new_tokens": 8}
    together = served.texts(samples=3, **how)
    apart = [served.texts(first=index, **how)[0] for index in range(3)]
    assert sum(a == b for a, b in zip(together, apart, strict=True)) >= 2  # but for rounding
    other = served.texts(samples=3, **how, extra={"seed": 12345})
    assert other != together


def test_many_at_once(served: Served) -> None:
    async def main() -> list[Replies]:
        decoding = Decoding(max_new_tokens=4)
        prompts = [({"role": "user", "content": f"Count from {i}."},) for i in range(10)]
        return await asyncio.gather(
            *[served.backend.send(one, 1 + i % 3, decoding) for i, one in enumerate(prompts)]
        )

    got = served.run(main())
    assert [len(one.replies) for one in got] == [1 + i % 3 for i in range(10)]


def test_a_prompt_longer_than_the_context_has_no_answer(served: Served) -> None:
    with pytest.raises(NoAnswer) as error:
        served.send(({"role": "user", "content": "colour " * 600},))
    assert error.value.kind == "context_overflow"


def test_a_text_is_gone_on_with(smollm2: Model) -> None:
    backend = LlamaCppBackend(api="completions", slots=1, context_tokens=256, threads=2)
    served = Served(backend)
    try:
        asked = "One, two, three, four,"
        assert served.texts(asked, temperature=0, max_new_tokens=4)[0].startswith(" five")
        assert served.texts(asked, temperature=0, stop=("six",))[0] == " five, "
        exact = {"temperature": 1.0, "extra": {"cache_prompt": False}}
        assert served.texts(asked, **exact) == served.texts(asked, **exact)
        process, folder = backend._process, backend._folder
        assert process is not None and folder is not None and folder.is_dir()
    finally:
        served.stop()
    assert process.poll() is not None and not folder.exists()
    asyncio.run(backend.close())  # a second time


def test_a_server_that_ends_stops_the_run(smollm2: Model) -> None:
    served = Served(LlamaCppBackend(slots=1, context_tokens=256, threads=2))
    try:
        process = served.backend._process
        assert process is not None
        process.kill()
        process.wait()
        with pytest.raises(RunError, match="it has ended"):
            served.send()
    finally:
        served.stop()


PARENT = """
import asyncio, sys, time
from symdistill.teachers.llamacpp import LlamaCppBackend
backend = LlamaCppBackend(slots=1, context_tokens=256, threads=1)
asyncio.run(backend.start())
print(backend._process.pid, flush=True)
time.sleep(60)
"""


def test_the_server_ends_with_a_killed_parent(smollm2: Model) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    server = psutil.Process(int(parent.stdout.readline()))
    assert server.is_running() and "symdistill.teachers.llamacpp" in _line(server)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    server.wait(10)
    assert not server.is_running()


def _line(process: psutil.Process) -> str:
    return " ".join(process.cmdline())


# -- bad input ----------------------------------------------------------------------------------


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF? no")
    backend = LlamaCppBackend(str(broken))
    with pytest.raises(InputError, match=r"expected a GGUF model .* failed to load") as error:
        asyncio.run(backend.start())
    assert "\n" not in str(error.value)
    assert not backend._process and not backend._folder


def test_a_truncated_model(tmp_path: Path, smollm2: Model) -> None:
    broken = tmp_path / "half.gguf"
    with find_embedded("smollm2").open("rb") as whole:
        broken.write_bytes(whole.read(2**22))
    with pytest.raises(InputError, match="expected a GGUF model"):
        asyncio.run(LlamaCppBackend(str(broken)).start())


def test_a_server_that_takes_too_long(smollm2: Model) -> None:
    backend = LlamaCppBackend(start_s=0.0)
    start = time.monotonic()
    with pytest.raises(RunError, match="within 0 s"):
        asyncio.run(backend.start())
    assert time.monotonic() - start < 10
    assert not backend._process


@pytest.mark.parametrize("model", ["nowhere.gguf", "embedded:minilm", "embedded:nothing", "x"])
def test_no_such_model(model: str) -> None:
    with pytest.raises(InputError, match="embedded"):
        gguf_of(model)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install"):
        LlamaCppBackend()
