"""A GGUF model behind a llama.cpp server of our own, from the `xllamacpp` wheel.

The server is a child process on a free loopback port, started with the backend and stopped with
it; it also ends by itself when its parent is gone, however that died. It is then asked like any
OpenAI-compatible server (`openai`), and costs nothing.

The same seed, prompt and sample number give the same draw: a request's seed follows from the
run's seed and the prompt, and the server adds a sample's number to it, so it does not matter how
samples are grouped into requests. What stays: which requests are computed together, and what is
still in the server's cache, changes sums in their last bits, so a text may part ways where two
tokens nearly tie. With `slots: 1` and `extra: {cache_prompt: false}` in the decoding, texts
repeat exactly on the same machine.

Does not: fetch models, speak to other machines, or share its server with other backends.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from symdistill.errors import InputError, RunError
from symdistill.machine import usable_cores
from symdistill.models import EMBEDDED, find_embedded, sha256_of
from symdistill.records import content_hash
from symdistill.teachers.base import Again, Decoding, Price, Prompt, Replies, bytes_bound
from symdistill.teachers.openai import OpenAIBackend
from symdistill.teachers.openai_request import Api

STOP_S = 5.0  # a server that has not ended by then is killed
LOOK_S = 0.5  # how often a server looks whether its parent is still there


class LlamaCppBackend:
    """A llama.cpp server that is ours, and the connection to it.

    Args:
        model: `embedded:smollm2`, or the path of a .gguf file.
        api: `chat` answers messages with the file's own template, `completions` goes on with a
            text.
        seed: the run's seed.
        slots: samples that are computed at a time.
        context_tokens: room for prompt and answer, for each slot.
        threads: None: one for each core that may be used.
        timeout_s: for one request, in seconds.
        start_s: the server must be there by then, in seconds.
        tokenizer: counts a text's tokens; None: the server's own figures.

    Raises:
        InputError: no such model, no GGUF file, or `xllamacpp` is not installed.
    """

    def __init__(
        self,
        model: str = "embedded:smollm2",
        *,
        api: Api = "chat",
        seed: int = 0,
        slots: int = 8,
        context_tokens: int = 2048,
        threads: int | None = None,
        timeout_s: float = 600,
        start_s: float = 300,
        tokenizer: Callable[[str], int] | None = None,
    ) -> None:
        if importlib.util.find_spec("xllamacpp") is None:
            raise InputError(
                "expected the package xllamacpp for a llamacpp: teacher; it is not installed; run "
                "`pip install 'symdistill[llamacpp]'`"
            )
        self._gguf = gguf_of(model)
        self.name = f"llamacpp:{model}"
        self.identity: Mapping[str, Any] = {
            "gguf": sha256_of(self._gguf),
            "server": f"xllamacpp {importlib.metadata.version('xllamacpp')}",
            "api": api,
            "seed": seed,
        }
        self.price: Price | None = Price(input=0, output=0)
        self.samples_per_request = slots
        self.at_once: int | None = 2 * slots
        self.notes: list[str] = []
        self._alias = model.removeprefix("embedded:") if ":" in model else self._gguf.stem
        self._api: Api = api
        self._seed = seed
        self._slots = slots
        self._context_tokens = context_tokens
        self._threads = threads or usable_cores()
        self._timeout_s = timeout_s
        self._start_s = start_s
        self._tokenizer = tokenizer
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None  # of the server's log, while it runs
        self._server: OpenAIBackend | None = None

    async def start(self) -> None:
        """Start the server and connect to it.

        Raises:
            InputError: it ends at once, as with a file that is no GGUF model.
            RunError: it is not there in time.
        """
        if self._server is not None:
            return
        try:
            address = await self._start_server()
            self._server = OpenAIBackend(
                self.name,
                model=self._alias,
                base_url=f"{address}/v1",
                api=self._api,
                server="llamacpp",
                price=self.price,
                timeout_s=self._timeout_s,
                connections=self._slots,
                samples_per_request=self._slots,
                tokenizer=self._tokenizer,
            )
            self._server.notes = self.notes
            self._free = self._slots
            self._freed = asyncio.Condition()
            await self._server.start()
        except BaseException:
            await self.close()
            raise

    async def check(self, decoding: Decoding) -> Replies | None:
        """Try the form of the output once; see `OpenAIBackend.check`."""
        assert self._server is not None, "start() comes first"
        return await self._server.check(_with_grammar(decoding))

    async def send(
        self, prompt: Prompt, samples: int, decoding: Decoding, *, first_sample: int = 0
    ) -> Replies:
        """Ask the server when it has slots for this, so that waiting is no part of a time-out.

        Raises:
            RunError: the server has ended.
            Again, NoAnswer, InputError: see `OpenAIBackend.send`.
        """
        assert self._server is not None, "start() comes first"
        seed = int(content_hash([self._seed, prompt], 7), 16)  # 28 bits of the server's 32
        decoding = _with_grammar(decoding)
        decoding = decoding.model_copy(update={"extra": {"seed": seed, **decoding.extra}})
        slots = min(samples, self._slots)
        async with self._freed:
            await self._freed.wait_for(lambda: self._free >= slots)
            self._free -= slots
        try:
            return await self._server.send(prompt, slots, decoding, first_sample=first_sample)
        except Again:
            if self._process is None or self._process.poll() is not None:
                raise RunError(
                    f"expected the llama.cpp server of {self.name} to go on; it has ended: "
                    f"{self._last_words()}; run the same command again, with fewer slots or a "
                    "smaller context if memory was short"
                ) from None
            raise
        finally:
            async with self._freed:
                self._free += slots
                self._freed.notify_all()

    async def close(self) -> None:
        """Stop the server; may be called twice."""
        server, self._server = self._server, None
        if server is not None:
            await server.close()
        process, self._process = self._process, None
        if process is not None:
            await asyncio.to_thread(_stop, process)
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def tokens_bound(self, prompt: Prompt) -> int:
        """At most this many tokens are read of a prompt."""
        return bytes_bound(prompt) if self._server is None else self._server.tokens_bound(prompt)

    async def _start_server(self) -> str:
        """Start the process; gives its address once it has loaded the model."""
        self._folder = Path(tempfile.mkdtemp(prefix="symdistill-llamacpp-"))
        settings = {
            "gguf": str(self._gguf),
            "alias": self._alias,
            "slots": self._slots,
            "context_tokens": self._context_tokens,
            "threads": self._threads,
        }
        said = self._folder / "address"
        with said.open("wb") as address, (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=address,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us: what is in flight is waited for
            )
        until = time.monotonic() + self._start_s
        while True:
            found = [line for line in said.read_text().split() if line.startswith("http://")]
            if found:
                return found[0]
            if self._process.poll() is not None:
                raise InputError(
                    f"expected a GGUF model that llama.cpp reads at {self._gguf}; its server "
                    f"ended: {self._last_words()}; check the file and the memory it needs"
                )
            if time.monotonic() > until:
                raise RunError(
                    f"expected the llama.cpp server to load {self._gguf} within "
                    f"{self._start_s:g} s; it has not: {self._last_words()}; use a smaller model "
                    "or a faster disk"
                )
            await asyncio.sleep(0.05)

    def _last_words(self) -> str:
        """The last complaints in the server's log."""
        if self._folder is None:
            return "its log is gone"
        lines = (self._folder / "log").read_text("utf-8", "replace").splitlines()
        errors = [line for line in lines if " E " in line] or lines
        return " | ".join(" ".join(line.split()) for line in errors[-3:])[-600:] or "without a word"


def gguf_of(model: str) -> Path:
    """The GGUF file behind `embedded:NAME` or a path.

    Raises:
        InputError: there is none.
    """
    if model.startswith("embedded:"):
        path = find_embedded(model.removeprefix("embedded:"))
        if path.suffix == ".gguf":
            return path
        served = [f"embedded:{key}" for key, one in EMBEDDED.items() if one.file.endswith(".gguf")]
        raise InputError(f"expected {' or '.join(served)}, or a .gguf file; got {model}")
    path = Path(model).expanduser()
    if path.suffix != ".gguf" or not path.is_file():
        raise InputError(
            f"expected embedded:smollm2 or the path of a .gguf file; got {model!r}, which is none; "
            "check the path"
        )
    return path.resolve()


def _with_grammar(decoding: Decoding) -> Decoding:
    """Choices as a grammar: this server writes them as they are, where a schema wraps them."""
    if decoding.output is None or decoding.output.choices is None:
        return decoding
    texts = (json.dumps(choice, ensure_ascii=False) for choice in decoding.output.choices)
    grammar = {"grammar": f"root ::= {' | '.join(texts)}"}
    return decoding.model_copy(update={"output": None, "extra": decoding.extra | grammar})


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# -- in the child process -----------------------------------------------------------------------


def serve(settings: Mapping[str, Any]) -> None:
    """Serve a model until standard input ends or the parent is another."""
    import xllamacpp

    parent = os.getppid()
    params = xllamacpp.CommonParams()
    params.model.path = settings["gguf"]
    params.model_alias = {settings["alias"]}
    params.port = 0  # any free one of the loopback
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["slots"] * settings["context_tokens"]
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["threads"]
    params.cache_ram_mib = 0  # it would keep up to 8 GB of old prompts
    params.cors_origins = ""  # no web page has business here
    params.ui = False
    params.verbosity = 2  # warnings and errors; above, prompts are logged
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    _until_alone(parent)
    os._exit(0)  # the server's threads do not end by themselves


def _until_alone(parent: int) -> None:
    """Return when standard input ends, or (another child may hold its other end) the parent."""
    import selectors

    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin.buffer, selectors.EVENT_READ)
        while os.getppid() == parent:
            if selector.select(LOOK_S) and not os.read(sys.stdin.fileno(), 1):
                return


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
