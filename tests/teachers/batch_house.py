"""A server with files and batches, as OpenAI's is, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from aiohttp import web

Line = dict[str, Any]


def answer(request: Line) -> Line:
    """The output line of a request; its answer is the prompt and the number of the choice."""
    body = request["body"]
    count, prompt = body.get("n", 1), body["messages"][0]["content"]
    choices = [
        {
            "index": n,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": f"{prompt} / {n}"},
        }
        for n in range(count)
    ]
    usage = {"prompt_tokens": 5, "completion_tokens": 3 * count}
    return replied(request, 200, {"model": "m", "choices": choices, "usage": usage})


def choice(request: Line) -> Line:
    """The line of a request that must be answered with one of two words."""
    line = answer({"custom_id": "", **request})
    line["response"]["body"]["choices"][0]["message"]["content"] = '{"answer": "yes"}'
    return line


def replied(request: Line, status: int, body: Any) -> Line:
    return {
        "id": "batch_req_1",
        "custom_id": request["custom_id"],
        "response": {"status_code": status, "request_id": "r", "body": body},
        "error": None,
    }


def refused(request: Line, status: int, message: str, code: str = "") -> Line:
    return replied(request, status, {"error": {"message": message, "code": code}})


class BatchHouse:
    """A server with files and batches, whose batches end at the second look.

    `plan(requests, number)` gives what becomes of the `number`-th batch: fields of the batch, and
    `output` / `errors` as the lines or the bytes of its files.
    """

    def __init__(self) -> None:
        self.plan: Callable[[list[Line], int], dict[str, Any]] = lambda requests, number: {}
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.looks: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.looks_needed = 2
        self.trouble: list[tuple[str, str]] = []  # (call, what goes wrong), each once
        self.offers_batches = True

    def requests(self, batch_id: str) -> list[Line]:
        text = self.files[self.batches[batch_id]["input_file_id"]]
        return [json.loads(line) for line in text.splitlines()]

    def times_asked(self) -> Counter[str]:
        return Counter(one["custom_id"] for id in self.batches for one in self.requests(id))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        place = request.path.removeprefix("/v1")
        call = f"{request.method} /{place.split('/')[1]}"
        call += " content" if place.endswith("/content") else " one" if place.count("/") > 1 else ""
        self.calls[call] += 1
        uploaded = await self._uploaded(request) if call == "POST /files" else b""
        wrong = next((what for which, what in self.trouble if which == call), None)
        if wrong is not None:
            self.trouble.remove((call, wrong))
        if wrong == "busy":
            return web.json_response({"error": {"message": "busy"}}, status=503)
        if place == "/models":
            return web.json_response({"data": [{"id": "m"}]})
        if not self.offers_batches:
            raise web.HTTPNotFound
        if place == "/chat/completions":
            return web.json_response(choice({"body": await request.json()})["response"]["body"])
        if call == "POST /files":
            reply = {"id": f"file-{len(self.files)}", "object": "file"}
            self.files[reply["id"]] = uploaded
        elif call == "POST /batches":
            reply = self._create(json.loads(await request.text()))
        elif call == "GET /batches":
            reply = self._list(request.query.get("after"), int(request.query["limit"]))
        elif call == "GET /batches one":
            reply = self._look(place.split("/")[2])
        else:
            content = self.files[place.split("/")[2]]
            if wrong == "cut":
                response = web.StreamResponse(headers={"Content-Length": str(len(content))})
                await response.prepare(request)
                await response.write(content[: len(content) // 2])
                assert request.transport is not None
                request.transport.close()
                return response
            return web.Response(body=content)
        if wrong == "reset":  # done, and nobody told
            assert request.transport is not None
            request.transport.close()
        return web.json_response(reply)

    async def _uploaded(self, request: web.Request) -> bytes:
        form = await request.post()
        assert form["purpose"] == "batch"
        file = form["file"]
        assert isinstance(file, web.FileField)
        return file.file.read()

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        assert body["endpoint"] == "/v1/chat/completions" and body["completion_window"] == "24h"
        batch_id = f"batch-{len(self.batches)}"
        total = len(self.files[body["input_file_id"]].splitlines())
        counts = {"total": total, "completed": 0, "failed": 0}
        self.batches[batch_id] = {**body, "id": batch_id, "status": "validating"}
        self.batches[batch_id]["request_counts"] = counts
        return self.batches[batch_id]

    def _list(self, after: str | None, limit: int) -> dict[str, Any]:
        newest = list(reversed(self.batches))
        start = newest.index(after) + 1 if after else 0
        some = newest[start : start + min(limit, 2)]
        more = start + len(some) < len(newest)
        return {"data": [self.batches[one] for one in some], "has_more": more}

    def _look(self, batch_id: str) -> dict[str, Any]:
        batch = self.batches[batch_id]
        self.looks[batch_id] += 1
        if self.looks[batch_id] == self.looks_needed:
            requests = self.requests(batch_id)
            what = self.plan(requests, int(batch_id.removeprefix("batch-")))
            lines = what.pop("output", [answer(one) for one in requests])
            errors = what.pop("errored", [])
            batch.update({"status": "completed", **what})
            for name, some in (("output_file_id", lines), ("error_file_id", errors)):
                if some:
                    batch[name] = f"{name}-{batch_id}"
                    self.files[batch[name]] = some if isinstance(some, bytes) else jsonl(some)
            batch["request_counts"] = {"total": len(requests), "completed": len(lines)}
        return batch


def jsonl(lines: Sequence[Line]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


@contextlib.contextmanager
def serving(house: BatchHouse) -> Iterator[str]:
    loop = asyncio.new_event_loop()

    async def start() -> tuple[web.AppRunner, int]:
        app = web.Application(client_max_size=10**9)
        app.router.add_route("*", "/{tail:.*}", house.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner, runner.addresses[0][1]

    runner, port = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(runner.cleanup())
        loop.close()
