"""The files and batches of an OpenAI-compatible server: one method, one HTTP exchange.

Takes and gives ids, bytes and what the server says of a batch. Everything that may pass is
raised as `Again`; repeating, journal and budget are the business of `batches`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from symdistill.errors import InputError, RunError
from symdistill.teachers.base import Again, NoAnswer
from symdistill.teachers.openai_reply import error_of, json_of, refusal

if TYPE_CHECKING:
    import aiohttp

    from symdistill.teachers.openai import OpenAIBackend

_NOT_THERE = (404, 405, 501)


class BatchServer:
    """What a backend's server offers under `/files` and `/batches`.

    Every method raises `Again` for what may pass, and `InputError` or `RunError` for the rest.
    """

    def __init__(self, backend: OpenAIBackend) -> None:
        self.backend = backend

    async def check(self) -> None:
        """Whether the server offers batches at all.

        Raises:
            InputError: it does not.
        """
        try:
            await self._call("GET", "/batches?limit=1")
        except _Missing:
            raise InputError(
                f"expected a server that offers /v1/batches; {self.backend.base_url} does not; "
                "ask it directly: leave `batch` out"
            ) from None

    async def upload(self, content: bytes | bytearray, name: str) -> str:
        """Send an input file; returns its id."""
        import io

        import aiohttp

        form = aiohttp.MultipartWriter("form-data")
        purpose = form.append("batch")
        purpose.set_content_disposition("form-data", name="purpose")
        file = form.append(io.BytesIO(content), {"Content-Type": "application/jsonl"})
        file.set_content_disposition("form-data", name="file", filename=name)
        return _id_of(await self._call("POST", "/files", form, form.headers))

    async def create(self, file_id: str, path: str, window: str, mark: str) -> str:
        """Make a batch of an uploaded file; returns its id."""
        body = {
            "input_file_id": file_id,
            "endpoint": f"/v1{path}",
            "completion_window": window,
            "metadata": {"symdistill": mark},
        }
        return _id_of(await self._call("POST", "/batches", json.dumps(body)))

    async def find(self, file_id: str, mark: str) -> str | None:
        """The id of the batch that was made of a file, if one was."""
        page = ""
        while True:
            listed = await self._call("GET", f"/batches?limit=100{page}")
            some = [one for one in listed.get("data") or () if isinstance(one, dict)]
            for one in some:
                marked = (one.get("metadata") or {}).get("symdistill") == mark
                if marked or one.get("input_file_id") == file_id:
                    return _id_of(one)
            if not some or not listed.get("has_more"):
                return None
            page = f"&after={_id_of(some[-1])}"

    async def look(self, batch_id: str) -> dict[str, Any]:
        """What the server says of a batch."""
        return await self._call("GET", f"/batches/{batch_id}")

    async def each_line(self, file_id: str, take: Callable[[bytes], None]) -> None:
        """Hand over the lines of a file as they arrive; after an error, from the first again."""

        async def read(response: aiohttp.ClientResponse) -> None:
            if response.status != 200:
                await self._whole(response)
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    take(line)
            take(rest)

        await self._exchange("GET", f"/files/{file_id}/content", read)

    async def _call(
        self,
        method: str,
        path: str,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        got: dict[str, Any] = await self._exchange(method, path, self._whole, data, headers)
        return got

    async def _whole(self, response: aiohttp.ClientResponse) -> dict[str, Any]:
        """The JSON object of a reply, or what its status says."""
        raw, at = await response.read(), self.backend.base_url
        if response.status in _NOT_THERE:
            raise _Missing(
                f"expected {response.method} {response.url.path} at {at}; got {response.status}; "
                "check that the key is of the account that made it; if it was deleted there, "
                "`Ledger.forget` the note of its batch to ask, and pay, anew"
            )
        if not 200 <= response.status < 300:
            headers = {name.lower(): value for name, value in response.headers.items()}
            key = self.backend._key
            error = refusal(response.status, headers, error_of(raw), 1, key, at)
            if isinstance(error, NoAnswer):
                error = RunError(f"expected {at} to take a batch; got: {error.reason}; see there")
            raise error
        with contextlib.suppress(ValueError):
            if isinstance(body := json_of(raw), dict):
                return body
        raise Again(f"a reply that is no JSON object came from {at}")

    async def _exchange(
        self,
        method: str,
        path: str,
        read: Callable[[aiohttp.ClientResponse], Awaitable[Any]],
        data: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """One exchange; a large file may take its time as long as bytes come."""
        import aiohttp

        backend = self.backend
        wait = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=backend._timeout_s)
        try:
            async with backend._open().request(
                method,
                backend.base_url + path,
                data=data,
                headers=headers,
                timeout=wait,
                allow_redirects=False,
                proxy=backend._proxy,
            ) as response:
                return await read(response)
        except (aiohttp.ClientError, OSError) as error:
            failure = backend._failure(error)
        raise failure  # outside of the `except`: the library's error may hold what was sent


class _Missing(RunError):
    """There is no such path."""


def _id_of(about: Mapping[str, Any]) -> str:
    if not isinstance(found := about.get("id"), str):
        raise Again("a file or a batch came without an id")
    return found
