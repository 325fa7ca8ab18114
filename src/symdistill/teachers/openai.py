"""A teacher behind an OpenAI-compatible HTTP server: OpenAI itself, vLLM, llama.cpp, Ollama ...

Takes a prompt and the number of samples wanted; gives their texts, tokens and, where asked for,
log-probabilities. What is sent is made in `openai_request`, what comes back is read in
`openai_reply`; here are the connections. One request is one attempt: retries, pace, ledger and
budget are the business of who calls.

Not done here: streaming (a ledger keeps whole answers), tools, images.
"""

from __future__ import annotations

import difflib
import errno
import json
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from symdistill.errors import InputError, RunError, SymdistillError
from symdistill.teachers.base import (
    Again,
    Decoding,
    NoAnswer,
    Output,
    Price,
    Prompt,
    Replies,
    Reply,
    bytes_bound,
)
from symdistill.teachers.openai_reply import (
    NoSeveral,
    NotThere,
    OtherTokensField,
    beginning,
    error_of,
    json_of,
    read_reply,
    refusal,
    told,
)
from symdistill.teachers.openai_request import Api, Server, request_body, request_fields
from symdistill.teachers.secrets import Key

if TYPE_CHECKING:
    import aiohttp

_SAMPLES: dict[Server, int] = {"openai": 16, "vllm": 16, "llamacpp": 1, "ollama": 1}

_SECRET_WORDS = ("auth", "cookie", "credential", "key", "password", "secret", "token")
RECENT = 1024  # replies that are told apart

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def base_url_of(url: str) -> str:
    """A base URL as it enters request keys: lower-case host, no default port, no slash at the end.

    Raises:
        InputError: it is no http(s) address, or holds what would give a secret away.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
        (parts.hostname or "").encode("idna")
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or " " in url.strip():
        raise InputError(
            "expected base_url like https://host/v1; got something else (not shown, as it may "
            "hold a password); write the scheme, the host and the path"
        )
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise InputError(
            f"expected base_url without user, password, query or fragment (host: "
            f"{parts.hostname}); got one with them (not shown); name the key with `key: env:NAME`"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    standard = {"http": 80, "https": 443}[parts.scheme]
    place = host if port in (None, standard) else f"{host}:{port}"
    return f"{parts.scheme}://{place}{parts.path.rstrip('/')}"


def check_headers(headers: Mapping[str, str]) -> None:
    """See that no header is the place of a key.

    Raises:
        InputError: one is.
    """
    for name, value in headers.items():
        secret = any(word in name.lower() for word in _SECRET_WORDS)
        if secret or value.strip().lower().startswith(("bearer ", "basic ", "sk-")):
            raise InputError(
                f"expected extra_headers without keys; got {name!r}; name the key with "
                "`key: env:NAME`, it is sent as `Authorization: Bearer ...`"
            )


class OpenAIBackend:
    """A model behind an OpenAI-compatible server.

    Args:
        name: the teacher as the user wrote it.
        model: the model's name at the server.
        base_url: up to and without `/chat/completions`; most end in `/v1`.
        key: the key, or where it is: then it is read when the server is first spoken to.
            None: the server asks for none.
        api: `chat` answers messages, `completions` goes on with a text.
        server: what is behind the address; decides which further fields it takes.
        revision: of the model, as the user states it; enters request keys.
        price: as the user states it; None: unknown.
        timeout_s: for one request in seconds, waiting for a free connection included.
        connections: open at once at most.
        samples_per_request: None: what servers of this kind bear.
        tokenizer: counts a text's tokens; None: from the server's figures, else estimated.
        extra_headers: sent with every request; never for keys.

    Raises:
        InputError: base_url or a header holds what it must not.
    """

    def __init__(
        self,
        name: str,
        *,
        model: str,
        base_url: str,
        key: Key | str | None = None,
        api: Api = "chat",
        server: Server = "openai",
        revision: str = "",
        price: Price | None = None,
        timeout_s: float = 120,
        connections: int = 256,
        samples_per_request: int | None = None,
        tokenizer: Callable[[str], int] | None = None,
        extra_headers: Mapping[str, str] | None = None,
    ) -> None:
        check_headers(extra_headers or {})
        self.name = name
        self.model = model
        self.base_url = base_url_of(base_url)
        self.identity: Mapping[str, Any] = {
            "base_url": self.base_url,
            "model": model,
            "revision": revision,
            "api": api,
            "server": server,  # its kind decides what is sent
        }
        self.price = price
        self.samples_per_request = samples_per_request or _SAMPLES[server]
        self.at_once: int | None = None
        self.notes: list[str] = []  # what the user should be told once
        self._key_source = key if isinstance(key, str) else None
        self._key = None if isinstance(key, str) else key
        self._api: Api = api
        self._server: Server = server
        self._timeout_s = timeout_s
        self._connections = connections
        self._tokenizer = tokenizer
        self._headers = dict(extra_headers or {})
        self._tokens_field = "max_tokens"
        self._fields: tuple[Decoding, str, dict[str, Any]] | None = None  # of the last decoding
        # Replies, and whose they were: prompt and first sample.
        self._recent: dict[int, tuple[tuple[Prompt, int], list[tuple[Prompt, int]]]] = {}
        self._repeats = 0  # replies that were the same for several prompts, asked again or not
        self._session: aiohttp.ClientSession | None = None
        self._proxy = _proxy_for(self.base_url)

    def tokens_bound(self, prompt: Prompt) -> int:
        """At most this many tokens will be billed for a prompt."""
        if self._tokenizer is None:
            return bytes_bound(prompt)
        if isinstance(prompt, str):
            return self._tokenizer(prompt) + 8
        return (
            sum(self._tokenizer(text) for message in prompt for text in message.values())
            + 32 * len(prompt)
            + 64
        )

    def request(
        self, prompt: Prompt, samples: int, decoding: Decoding, *, first_sample: int = 0
    ) -> tuple[str, dict[str, Any]]:
        """The path below the base URL and the body of a request; see `request_body`."""
        cached = self._fields
        if cached is None or cached[0] is not decoding or cached[1] != self._tokens_field:
            fields = request_fields(
                decoding,
                model=self.model,
                api=self._api,
                server=self._server,
                tokens_field=self._tokens_field,
            )
            self._fields = cached = (decoding, self._tokens_field, fields)
        return request_body(prompt, samples, cached[2], api=self._api, first_sample=first_sample)

    def read(
        self,
        status: int,
        headers: Mapping[str, str],
        raw: bytes,
        prompt: Prompt,
        samples: int,
        decoding: Decoding,
    ) -> Replies:
        """What a reply to such a request says; see `read_reply`."""
        return read_reply(
            status,
            headers,
            raw,
            samples,
            prompt=prompt,
            decoding=decoding,
            server=self._server,
            key=self._key,
            tokenizer=self._tokenizer,
            at=self.base_url,
        )

    async def start(self) -> None:
        """Connect, and look for the model in the server's list where it keeps one.

        Raises:
            InputError: nothing answers there, not as expected, the key is refused, or the model
                is not in the list.
        """
        try:
            status, headers, raw = await self._call("GET", "/models")
        except Again as error:
            raise InputError(
                f"expected a server at {self.base_url}; got: {error.reason}; start it, or check "
                "base_url"
            ) from None
        if 200 <= status < 300:
            self._check_listed(raw)
            return
        if status in (404, 405, 501):
            self.notes.append(f"{self.base_url} has no list of models: the name was not checked")
            return
        why = refusal(status, headers, error_of(raw), 1, self._key, self.base_url)
        if isinstance(why, SymdistillError):
            raise why
        self.notes.append(f"the model's name was not checked: {why}")

    def _check_listed(self, raw: bytes) -> None:
        try:
            body = json_of(raw)
        except ValueError:
            raise InputError(
                f"expected a list of models in JSON at {self.base_url}/models; got "
                f"{beginning(raw, self._key)!r}; check base_url (most end in /v1)"
            ) from None
        names = _names_in(body)
        if names is None:
            self.notes.append(f"{self.base_url}/models is no list: the name was not checked")
        elif not _listed(self.model, names):
            raise InputError(
                f"expected a model that {self.base_url} has; got {self.model!r}; "
                + told(_nearest(self.model, names), self._key)
            )

    async def check(self, decoding: Decoding) -> Replies | None:
        """Try decoding's fields, and its output form on one small request, before the run.

        Returns:
            What the trial brought, as it is billed; None where nothing had to be sent.

        Raises:
            InputError: the server takes a field not, or does not keep to the form.
            Again: see there; worth another try.
        """
        ask = "Answer in the form you were given. Is water wet?"
        prompt: Prompt = ask if self._api == "completions" else ({"role": "user", "content": ask},)
        self.request(prompt, 1, decoding)
        if decoding.output is None and decoding.top_logprobs is None:
            return None
        short = decoding
        if decoding.output is None or decoding.output.choices is None:
            room = 16 if decoding.output is None else 256
            short = decoding.model_copy(
                update={"max_new_tokens": min(room, decoding.max_new_tokens)}
            )
        try:
            got = await self.send(prompt, 1, short)
        except NoAnswer as error:
            if error.kind in ("empty", "refused"):
                self.notes.append(f"decoding could not be tried beforehand: {error.reason}")
                return Replies([Reply("", "unknown", error.tokens_out)], error.tokens_in)
            raise InputError(
                f"this server does not offer what decoding asks for: {error.reason}; change "
                "decoding.output or decoding.top_logprobs, or the teacher"
            ) from None
        reply = got.replies[0]
        if decoding.top_logprobs is not None and reply.logprobs is None:
            raise InputError(
                f"this server does not offer log-probabilities: {self.base_url} answered without "
                "them; set decoding.top_logprobs: null, or change the teacher"
            )
        if decoding.output is not None and not _fits(decoding.output, reply):
            what = "this server does not offer it; leave decoding.output out, or change the teacher"
            if reply.finish_reason == "length":
                what = "raise decoding.max_new_tokens"
            raise InputError(
                f"expected an answer in the form of decoding.output; {self.base_url} wrote "
                f"{told(reply.text, self._key)[:80]!r}; {what}"
            )
        return got

    async def send(
        self, prompt: Prompt, samples: int, decoding: Decoding, *, first_sample: int = 0
    ) -> Replies:
        """Ask once; what the server turns out not to take (`max_tokens`, `n`) is put otherwise.

        Raises:
            Again, NoAnswer, InputError, RunError: see `read_reply`.
        """
        while True:
            asked = min(samples, self.samples_per_request)
            field = self._tokens_field
            path, body = self.request(prompt, asked, decoding, first_sample=first_sample)
            status, headers, raw = await self._call("POST", path, _encode(body).encode())
            try:
                got = self.read(status, headers, raw, prompt, asked, decoding)
            except OtherTokensField as error:
                if field != "max_tokens":
                    raise NoAnswer("bad_request", error.reason) from None
                self._tokens_field = "max_completion_tokens"
            except NoSeveral as error:
                self._ask_one_by_one(error.reason)
            except NotThere as error:
                raise InputError(f"{error}{await self._what_is_there()}") from None
            else:
                self._raise_if_stale(raw, (prompt, first_sample))
                if len(got.replies) == 1 < asked:
                    self._ask_one_by_one(f"{self.base_url} gave 1 answer of {asked}")
                return got

    async def close(self) -> None:
        """Close every connection; may be called twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _raise_if_stale(self, raw: bytes, asked: tuple[Prompt, int]) -> None:
        """A proxy that has lost count hands one request's reply to another: the same bytes, id
        and all. A server whose every reply is the same (a mock) says so again when asked again.
        """
        if b'"id":' not in raw or self._repeats > 2:
            return
        whose, accused = self._recent.setdefault(hash(raw), (asked, []))
        if len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]
        if whose == asked:
            return
        accused.append(asked)
        if accused.count(asked) > 2:
            self._repeats += 1
            return
        raise Again(
            f"{self.base_url} gave the reply to another request once more", maybe_billed=True
        )

    def _ask_one_by_one(self, why: str) -> None:
        if self.samples_per_request > 1:
            self.samples_per_request = 1
            self.notes.append(
                f"{why}; from now on each sample is a request of its own, which pays for the "
                "prompt again"
            )

    async def _what_is_there(self) -> str:
        try:
            status, _, raw = await self._call("GET", "/models")
            names = _names_in(json_of(raw)) if status == 200 else None
        except (Again, SymdistillError, ValueError):
            return ""
        return f"; {told(_nearest(self.model, names), self._key)}" if names else ""

    async def _call(
        self, method: str, path: str, body: bytes | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One request: status, headers in lower case, and the whole body.

        What goes wrong is raised outside the `except`, so that no library's error, which may
        hold the headers that were sent, hangs on to ours.
        """
        import aiohttp

        session = self._open()
        try:
            async with session.request(
                method,
                self.base_url + path,
                data=body,
                allow_redirects=False,
                proxy=self._proxy,
            ) as response:
                # names in any case: a dict of them in lower case would cost 5 us a reply
                return response.status, response.headers, await response.read()
        except (aiohttp.ClientError, OSError) as error:
            failure = self._failure(error)
        raise failure

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp

            sent = {"Content-Type": "application/json", "Accept": "application/json"}
            sent |= {"User-Agent": "symdistill"} | self._headers
            if self._key is None and self._key_source is not None:
                self._key = Key(self._key_source)
            self._session = aiohttp.ClientSession(
                headers=sent | (self._key.headers() if self._key is not None else {}),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(
                    total=self._timeout_s, sock_connect=min(30.0, self._timeout_s)
                ),
                # Common servers close an idle connection after 5 s; ours closes it first, so that
                # no request is written into one that is just being closed.
                connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=4),
            )
        return self._session

    def _failure(self, error: Exception) -> Exception:
        """What an error of the network means for who asked."""
        import aiohttp

        at = self.base_url
        reason = told(str(getattr(error, "strerror", None) or error), self._key)
        if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)):
            return InputError(
                f"expected a trusted TLS connection to {at}; got: {reason}; if that server speaks "
                "plain http write http:// in base_url; if its certificate is your own, point "
                "SSL_CERT_FILE at it"
            )
        if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
            return RunError(
                f"expected room for {self._connections} connections; got: {reason}; raise "
                "`ulimit -n`, or set fewer connections"
            )
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return Again(f"{at} did not take the connection in time", unreachable=True)
        if isinstance(error, aiohttp.ClientConnectorError):
            return Again(f"{at} cannot be reached: {reason}", unreachable=True)
        if isinstance(error, aiohttp.ClientHttpProxyError):
            return Again(f"the proxy on the way to {at} answered {error.status}", unreachable=True)
        if isinstance(error, TimeoutError):
            return Again(f"no reply from {at} within {self._timeout_s:g} s", maybe_billed=True)
        if isinstance(error, aiohttp.ClientPayloadError):
            return Again(f"the reply from {at} was cut off", maybe_billed=True)
        if isinstance(error, aiohttp.ClientResponseError):
            return Again(f"{at} did not answer in sound HTTP", maybe_billed=True)
        # A reused connection may have been closed before the request was read; from here that
        # cannot be told from one that was closed after.
        return Again(f"{at} closed the connection ({reason})", maybe_billed=True)


def _proxy_for(url: str) -> str | None:
    """The proxy that the environment names for an address.

    Found once: aiohttp's `trust_env` looks it up for each request in a thread, and would put a
    login of ~/.netrc beside our key.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in ("localhost", "127.0.0.1", "::1") or urllib.request.proxy_bypass(host):
        return None
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy is not None and not proxy.startswith(("http://", "https://")):
        raise InputError(
            f"expected an http proxy in the environment's {parts.scheme}_proxy; got one of "
            "another kind; unset it, or name an http proxy"
        )
    return proxy


def _names_in(body: Any) -> list[str] | None:
    """The model names of a list of models, or None where it is none."""
    data = body.get("data") if isinstance(body, dict) else body
    if not isinstance(data, list):
        return None
    names = [one.get("id") for one in data if isinstance(one, dict)]
    return [name for name in names if isinstance(name, str)] or None


def _listed(name: str, names: Sequence[str]) -> bool:
    """Whether a name is there, a default tag (:latest) or a variant (:free) aside."""
    return bool({name, f"{name}:latest", name.partition(":")[0]}.intersection(names))


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.0)
    return f"nearest of its {len(names)}: {', '.join(near)}"


def _fits(output: Output, reply: Reply) -> bool:
    """Whether a text has the form; of one that was cut off, whether it begins like it."""
    if output.choices is not None:
        return reply.text in output.choices
    try:
        value = json.loads(reply.text)
    except ValueError:
        return reply.finish_reason == "length" and reply.text.lstrip()[:1] in ("{", "[")
    return _matches(value, output.json_schema or {})


def _matches(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value has a schema's type and keys: enough to see whether it was heeded."""
    kinds: dict[str, type | tuple[type, ...]] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
    }
    kind = schema.get("type")
    if isinstance(kind, str) and kind in kinds and not isinstance(value, kinds[kind]):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if not isinstance(value, dict):
        return True
    inner = schema.get("properties", {})
    return all(name in value for name in schema.get("required", ())) and all(
        _matches(value[name], inner[name])
        for name in value
        if name in inner and isinstance(inner[name], dict)
    )
