"""What is asked of an OpenAI-compatible server, what is made of any reply, and the connections."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import pickle
import socket
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from symdistill.errors import InputError, RunError
from symdistill.teachers.base import Again, Decoding, NoAnswer, Output, Replies
from symdistill.teachers.openai import OpenAIBackend, base_url_of
from symdistill.teachers.openai_reply import read_reply
from symdistill.teachers.openai_request import FIELDS, request_body, request_fields
from symdistill.teachers.secrets import Key

pytestmark = pytest.mark.unit

SECRET = "sk-test-0123456789abcdefghij"
CHAT = ({"role": "user", "content": "Say why the sky is blue."},)
PLAIN = Decoding(max_new_tokens=64)
COLOURS = Decoding(output=Output(choices=("red", "green")))


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> Key:
    monkeypatch.setenv("TEST_TEACHER_KEY", SECRET)
    return Key("env:TEST_TEACHER_KEY")


def said(*texts: str, **more: Any) -> dict[str, Any]:
    """A good reply of the chat API."""
    return {
        "model": "m-2026",
        "choices": [
            {"index": n, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            for n, text in enumerate(texts)
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": 4 * len(texts)},
    } | more


def read(body: Any, samples: int = 1, status: int = 200, **how: Any) -> Replies:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = how.pop("headers", {})
    how = {"prompt": CHAT, "decoding": PLAIN} | how
    return read_reply(status, headers, raw, samples, **how)


# What is sent ------------------------------------------------------------------------------------


def test_a_chat_and_a_text_go_to_their_paths() -> None:
    fields = request_fields(PLAIN, model="m")
    assert request_body(CHAT, 1, fields) == (
        "/chat/completions",
        {"model": "m", "max_tokens": 64, "temperature": 0.7, "messages": list(CHAT)},
    )
    path, body = request_body("Once", 3, fields, api="completions")
    assert (path, body["prompt"], body["n"]) == ("/completions", "Once", 3)
    with pytest.raises(InputError, match="api: completions"):
        request_body("Once", 1, fields)
    with pytest.raises(InputError, match="set `api: chat`"):
        request_body(CHAT, 1, fields, api="completions")


def test_decoding_becomes_fields() -> None:
    decoding = Decoding(top_p=0.9, stop=("\n",), top_logprobs=3, extra={"seed": 5})
    chat = request_fields(decoding, model="m", tokens_field="max_completion_tokens")
    assert chat["max_completion_tokens"] == 512 and "max_tokens" not in chat
    assert (chat["top_p"], chat["stop"]) == (0.9, ["\n"])
    assert (chat["logprobs"], chat["top_logprobs"]) == (True, 3)
    text = request_fields(decoding, model="m", api="completions")
    assert text["logprobs"] == 3 and "top_logprobs" not in text
    assert request_body(CHAT, 2, chat, first_sample=4)[1]["seed"] == 9


def test_a_server_with_defaults_of_its_own_is_told_neutral_ones() -> None:
    vllm = request_fields(PLAIN, model="m", server="vllm")
    assert (vllm["top_p"], vllm["top_k"], vllm["min_p"]) == (1.0, -1, 0)
    warmer = Decoding(extra={"top_k": 40})
    assert request_fields(warmer, model="m", server="llamacpp")["top_k"] == 40


@pytest.mark.parametrize("server", FIELDS)
def test_unknown_extra_fields_are_refused_with_the_nearest(server: Any) -> None:
    with pytest.raises(InputError, match="'seed'"):
        request_fields(Decoding(extra={"sed": 1}), model="m", server=server)
    with pytest.raises(InputError, match="expected decoding"):
        request_fields(Decoding(extra={"messages": []}), model="m", server=server)


def test_extra_must_be_json() -> None:
    with pytest.raises(InputError, match="what JSON can say"):
        request_fields(Decoding(extra={"user": float("nan")}), model="m")


def test_output_forms_by_server() -> None:
    hosted = request_fields(COLOURS, model="m")["response_format"]["json_schema"]
    assert hosted["strict"] and hosted["schema"]["type"] == "object"
    assert hosted["schema"]["properties"]["answer"]["enum"] == ["red", "green"]
    vllm = request_fields(COLOURS, model="m", server="vllm")
    assert vllm["guided_choice"] == vllm["structured_outputs"]["choice"] == ["red", "green"]
    llamacpp = request_fields(COLOURS, model="m", server="llamacpp", api="completions")
    assert llamacpp["json_schema"]["required"] == ["answer"]
    with pytest.raises(InputError, match="api: chat"):
        request_fields(COLOURS, model="m", api="completions")
    older = request_fields(Decoding(extra={"guided_regex": "a+"}), model="m", server="vllm")
    assert older["structured_outputs"] == {"regex": "a+"}


# What comes back ---------------------------------------------------------------------------------


def test_a_good_reply() -> None:
    got = read(said("one", "two"), 2, headers={"x-ratelimit-remaining-requests": "9"})
    assert [reply.text for reply in got.replies] == ["one", "two"]
    assert [reply.tokens for reply in got.replies] == [4, 4]
    assert got.tokens_in == 11
    assert got.replies[0].about == {"model": "m-2026"}
    assert got.headers == {"x-ratelimit-remaining-requests": "9"}


def test_choices_come_in_order_and_no_more_than_asked() -> None:
    body = said("a", "b", "c")
    body["choices"].reverse()
    got = read(body, 2)
    assert [reply.text for reply in got.replies] == ["a", "b"]
    assert sum(reply.tokens for reply in got.replies) == 12  # all that was billed
    assert got.replies[0].about["tokens_estimated"]
    assert [reply.text for reply in read(said("a"), 3).replies] == ["a"]


def test_a_text_in_parts_and_thoughts_beside_it() -> None:
    body = said("")
    body["choices"][0]["message"] = {
        "content": [{"type": "text", "text": "blue "}, {"type": "text", "text": "light"}],
        "reasoning_content": "Rayleigh",
    }
    reply = read(body).replies[0]
    assert (reply.text, reply.about["reasoning"]) == ("blue light", "Rayleigh")


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"completion_tokens": 12}, 12),
        ({"completion_tokens": 60, "completion_tokens_details": {"reasoning_tokens": 50}}, 60),
        ({"completion_tokens": -3}, None),
        ({"completion_tokens": 0}, None),
        ({"completion_tokens": 10**12}, None),
        ({"completion_tokens": "12"}, None),
        ({"completion_tokens": True}, None),
        ({}, None),
        (None, None),
        ([], None),
    ],
)
def test_usage_is_believed_where_it_can_be(usage: Any, tokens: int | None) -> None:
    reply = read(said("A dozen words or so.", usage=usage)).replies[0]
    if tokens is not None:
        assert reply.tokens == tokens
    else:
        assert reply.about["tokens_estimated"] and 5 <= reply.tokens <= 64
    counted = read(said("A dozen words.", usage=usage), tokenizer=lambda text: len(text.split()))
    assert counted.replies[0].tokens == (tokens or 3)
    assert counted.tokens_in == 7  # the role is a word


def test_usage_that_counts_one_choice_of_several() -> None:
    body = said("one two three", "four five six", usage={"completion_tokens": 3})
    assert [r.tokens for r in read(body, 2, tokenizer=lambda t: 3).replies] == [3, 3]
    guessed = read(body, 2, server="llamacpp").replies
    assert [r.tokens for r in guessed] == [6, 6] and guessed[0].about["tokens_estimated"]
    with_logprobs = copy.deepcopy(body)
    for choice in with_logprobs["choices"]:
        choice["logprobs"] = {"content": [{"token": "a", "logprob": -1}] * 3}
    decoding = Decoding(top_logprobs=0)
    assert [r.tokens for r in read(with_logprobs, 2, decoding=decoding).replies] == [3, 3]


def test_prompt_tokens_are_believed_where_they_can_be() -> None:
    assert read(said("a")).tokens_in == 11
    for wrong in (0, -1, 10**9, "11", None):
        got = read(said("a", usage={"prompt_tokens": wrong, "completion_tokens": 1}))
        assert 0 < got.tokens_in < 200 and got.replies[0].about["tokens_estimated"]


def test_log_probabilities_of_both_shapes_become_one() -> None:
    decoding = Decoding(top_logprobs=1)
    top = [{"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}, {"token": "Ho", "logprob": -2}]
    chat = said("Hi")
    chat["choices"][0]["logprobs"] = {
        "content": [
            {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": top},
            {"token": "\ufffd", "logprob": None, "bytes": None, "top_logprobs": []},
        ]
    }
    older = {
        "choices": [
            {
                "text": "Hi",
                "finish_reason": "stop",
                "logprobs": {
                    "tokens": ["Hi", "\ufffd"],
                    "token_logprobs": [-0.5, None],
                    "top_logprobs": [{"Ho": -2, "Hi": -0.5}, None],
                    "text_offset": [0, 2],
                },
            }
        ]
    }
    expected = (
        {
            "token": "Hi",
            "bytes": [72, 105],
            "logprob": -0.5,
            "top": [{"token": "Hi", "bytes": [72, 105], "logprob": -0.5}],
        },
        {"token": "\ufffd", "bytes": None, "logprob": -9999.0, "top": []},
    )
    assert read(chat, decoding=decoding).replies[0].logprobs == expected
    assert read(older, decoding=decoding, prompt="x").replies[0].logprobs == expected
    assert read(chat).replies[0].logprobs is None  # they were not asked for


def test_vllm_prompt_log_probabilities_are_kept() -> None:
    got = read(said("a", "b", prompt_logprobs=[None, {"5": {"logprob": -1}}]), 2)
    assert "prompt_logprobs" in got.replies[0].about
    assert "prompt_logprobs" not in got.replies[1].about


def test_a_choice_comes_out_of_its_wrapping() -> None:
    for text in ('{"answer": "red"}', '{"answer":"red"}\n', '"red"', "red"):
        assert read(said(text), decoding=COLOURS).replies[0].text == "red"
    assert read(said('{"answer": "re'), decoding=COLOURS).replies[0].text == '{"answer": "re'
    assert read(said('"red"'), decoding=COLOURS, server="vllm").replies[0].text == '"red"'


def test_half_a_surrogate_pair_does_not_travel_on() -> None:
    raw = json.dumps(said("X")).replace('"X"', '"ok \\ud83d, \\ud83d\\ude00"').encode()
    text = read(raw).replies[0].text
    assert text == "ok \ufffd, \U0001f600"
    text.encode()


def silent(finish: str, **message: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"content": None} | message, "finish_reason": finish}
    return said(choices=[choice], usage={"prompt_tokens": 11, "completion_tokens": 7})


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        (silent("stop"), "empty", "without a word"),
        (silent("length"), "empty", "raise decoding.max_new_tokens"),
        (silent("content_filter"), "refused", "content filter"),
        (silent("stop", refusal="I cannot help with that."), "refused", "I cannot help"),
    ],
)
def test_silence_has_a_reason_and_a_bill(body: Any, kind: str, says: str) -> None:
    with pytest.raises(NoAnswer, match=says) as caught:
        read(body)
    assert caught.value.kind == kind
    assert (caught.value.tokens_in, caught.value.tokens_out) == (11, 7)


def test_one_silent_choice_among_others_is_an_empty_text() -> None:
    body = said("yes", "")
    body["choices"][1]["message"]["refusal"] = "No."
    got = read(body, 2)
    assert [reply.text for reply in got.replies] == ["yes", ""]
    assert got.replies[1].about["refusal"] == "No."


@pytest.mark.parametrize(
    "body",
    [{}, [], 5, None, "text", {"choices": []}, {"choices": [None, 5]}, {"choices": {"0": {}}},
     {"id": "x", "output": []}],
)  # fmt: skip
def test_another_shape_is_a_bad_reply_that_may_cost(body: Any) -> None:
    with pytest.raises(NoAnswer, match="expected a JSON object with choices") as caught:
        read(body)
    assert caught.value.kind == "bad_reply"
    assert caught.value.tokens_out == 64  # the most that can have been billed


def test_a_reply_cut_anywhere_is_asked_for_again() -> None:
    raw = json.dumps(said("Größe ✓ 😀"), ensure_ascii=False).encode()
    read(raw)
    for end in range(len(raw)):
        with pytest.raises(Again) as caught:
            read(raw[:end])
        assert caught.value.maybe_billed


@pytest.mark.parametrize("raw", [b"<html>502</html>", b"", b"\xff\xfe{}", b"{}{}", b"[" * 100_000])
def test_what_is_no_json_is_asked_for_again(raw: bytes) -> None:
    with pytest.raises(Again):
        read(raw)


OVERFLOWS = [
    (400, {"error": {"message": "This model's maximum context length is 8192 tokens. However, "
     "your messages resulted in 9000 tokens.", "code": "context_length_exceeded"}}),
    (400, {"object": "error", "message": "This model's maximum context length is 3 tokens. "
     "However, your request has 8 input tokens.", "type": "BadRequestError", "code": 400}),
    (400, {"error": {"code": 400, "message": "request (4390 tokens) exceeds the available context "
     "size (4096 tokens), try increasing it", "type": "exceed_context_size_error"}}),
    (500, {"error": {"code": 500, "message": "Context size has been exceeded.",
     "type": "server_error"}}),
    (200, {"error": {"code": 400, "message": "the request exceeds the available context size.",
     "type": "exceed_context_size_error"}}),
    (400, {"object": "error", "message": "max_tokens must be at least 1, got -186."}),
    (422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096"}),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body"), OVERFLOWS)
def test_context_overflow_is_recognised(status: int, body: Any) -> None:
    with pytest.raises(NoAnswer) as caught:
        read(body, status=status)
    assert caught.value.kind == "context_overflow"


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (301, {}, InputError),
        (400, {"error": {"message": "no", "code": "content_filter"}}, "refused"),
        (403, {"error": {"message": "your input was flagged"}}, "refused"),
        (400, {"error": {"message": "cannot read messages[0]"}}, "bad_request"),
        (400, {"error": {"message": "no", "param": "temperature"}}, InputError),
        (400, b"\xff not json", "bad_request"),
        (401, {"error": {"message": "Incorrect API key"}}, InputError),
        (402, {}, RunError),
        (403, {}, InputError),
        (404, {"detail": "Not Found"}, InputError),
        (400, {"error": {"message": "no", "code": "model_not_found"}}, InputError),
        (413, {}, "bad_request"),
        (418, {}, "bad_request"),
        (422, {"detail": [{"loc": ["body"], "msg": "bad"}]}, "bad_request"),
        (429, {"error": {"type": "insufficient_quota", "message": "You exceeded"}}, RunError),
    ],
)
def test_what_no_other_attempt_will_mend(status: int, body: Any, error: Any) -> None:
    with pytest.raises((NoAnswer, InputError, RunError)) as caught:
        read(body, status=status)
    if isinstance(error, str):
        assert isinstance(caught.value, NoAnswer) and caught.value.kind == error
    else:
        assert isinstance(caught.value, error)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 520, 524, 529, 599])
def test_what_another_attempt_may_mend(status: int) -> None:
    with pytest.raises(Again, match=f"answered {status}: slow down") as caught:
        read({"error": {"message": "slow down"}}, status=status, headers={"retry-after": "7"})
    again = caught.value
    assert again.after_s == 7 and again.headers == {"retry-after": "7"}
    assert again.throttled == (status in (429, 503, 529))


def test_an_error_with_status_200_is_an_error() -> None:
    for error, throttled in [({"code": 429}, True), ({"code": "rate_limit_exceeded"}, True)]:
        with pytest.raises(Again) as caught:
            read({"error": error | {"message": "busy"}})
        assert caught.value.throttled == throttled
    with pytest.raises(Again, match="answered 500: it broke"):
        read({"error": "it broke"})
    with pytest.raises(InputError):
        read({"error": {"message": "no", "type": "authentication_error"}})


def test_a_refused_key_is_named_by_its_place(key: Key) -> None:
    echo = {"error": {"message": f"Incorrect API key provided: {SECRET}, sk-tes****ghij."}}
    with pytest.raises(InputError, match="env:TEST_TEACHER_KEY") as caught:
        read(echo, status=401, key=key)
    assert "ghij" not in str(caught.value)
    with pytest.raises(InputError, match="none was given"):
        read(echo, status=401)


def test_reasons_are_one_short_line() -> None:
    with pytest.raises(NoAnswer) as caught:
        read({"error": {"message": "a\n" * 5000}}, status=400)
    assert len(caught.value.reason) < 400 and "\n" not in caught.value.reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELD_NAMES = st.sampled_from(
    ["choices", "message", "content", "text", "usage", "prompt_tokens", "completion_tokens",
     "error", "code", "type", "param", "detail", "logprobs", "tokens", "token_logprobs",
     "top_logprobs", "token", "logprob", "bytes", "index", "finish_reason", "refusal", "model",
     "reasoning", "prompt_tokens_details", "cached_tokens", "prompt_logprobs", "innererror"]
)  # fmt: skip
SHAPED = st.recursive(
    st.none() | st.integers() | st.floats() | st.sampled_from([SECRET, "stop", "n", "max_tokens"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELD_NAMES, inner, max_size=5),
    max_leaves=30,
)
GOOD = said(
    "Hi",
    "Ho",
    system_fingerprint="fp",
    prompt_logprobs=[None],
    error=None,
)
for _choice in GOOD["choices"]:
    _choice["logprobs"] = {"content": [{"token": "H", "logprob": -1, "bytes": [72]}]}


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A good reply in which one value is another."""
    body = copy.deepcopy(GOOD)
    place: Any = body
    while True:
        name = draw(
            st.sampled_from(sorted(place) if isinstance(place, dict) else [*range(len(place))])
        )
        inner = place[name]
        if not isinstance(inner, (dict, list)) or not inner or draw(st.integers(0, 3)) == 0:
            break
        place = inner
    place[name] = draw(SHAPED)
    return body


BODIES = st.binary() | (JSON | SHAPED | mutated()).map(lambda value: json.dumps(value).encode())


@settings(max_examples=400)
@given(
    raw=BODIES,
    status=st.sampled_from([200, 201, 302, 400, 401, 404, 422, 429, 500, 503])
    | st.integers(100, 999),
    samples=st.integers(1, 3),
    logprobs=st.none() | st.integers(0, 2),
    server=st.sampled_from(sorted(FIELDS)),
    count=st.booleans(),
    headers=st.dictionaries(
        st.sampled_from(["retry-after", "location", "x-ratelimit-reset-requests"]), st.text()
    ),
)
def test_whatever_comes_ends_as_one_of_five_things(
    raw: bytes,
    status: int,
    samples: int,
    logprobs: int | None,
    server: Any,
    count: bool,
    headers: Any,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_TEACHER_KEY", SECRET)
        key = Key("env:TEST_TEACHER_KEY")
    decoding = Decoding(top_logprobs=logprobs, max_new_tokens=50)
    try:
        got = read_reply(
            status, headers, raw, samples, prompt=CHAT, decoding=decoding, server=server, key=key,
            tokenizer=(lambda text: len(text.split())) if count else None,
        )  # fmt: skip
    except (Again, NoAnswer, InputError, RunError) as error:
        assert SECRET not in str(error) and SECRET not in repr(error.__dict__)
        assert SECRET not in repr(error.__cause__)
        return
    assert 1 <= len(got.replies) <= samples
    assert got.tokens_in > 0 and all(reply.tokens >= 0 for reply in got.replies)
    for reply in got.replies:
        kept = json.dumps([reply.text, reply.finish_reason, reply.logprobs, dict(reply.about)])
        assert SECRET not in kept
        reply.text.encode()


# The connections ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("https://API.Example.com:443/v1/", "https://api.example.com/v1"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_a_base_url_has_one_spelling(url: str, same: str) -> None:
    assert base_url_of(url) == same


@pytest.mark.parametrize(
    "url",
    ["", "host/v1", "ftp://host", "http://", "http://h:99999999", f"https://me:{SECRET}@host/v1",
     f"https://{SECRET}@host", f"https://host/v1?key={SECRET}", f"sk://{SECRET}", "http://[::1"],
)  # fmt: skip
def test_a_bad_base_url_is_refused_without_an_echo(url: str) -> None:
    with pytest.raises(InputError) as caught:
        base_url_of(url)
    assert SECRET not in str(caught.value)


def test_a_key_among_the_headers_is_refused() -> None:
    with pytest.raises(InputError, match="api-key") as caught:
        OpenAIBackend("t", model="m", base_url="http://h/v1", extra_headers={"api-key": SECRET})
    assert SECRET not in str(caught.value)


def test_identity_says_what_answers_and_bound_what_it_reads() -> None:
    teacher = OpenAIBackend("t", model="m", base_url="http://h/v1/", revision="r")
    assert teacher.identity == {
        "base_url": "http://h/v1",
        "model": "m",
        "revision": "r",
        "api": "chat",
        "server": "openai",
    }
    assert teacher.tokens_bound(CHAT) > len(CHAT[0]["content"])
    counting = OpenAIBackend("t", model="m", base_url="http://h/v1", tokenizer=lambda t: 1)
    assert counting.tokens_bound(CHAT) < teacher.tokens_bound(CHAT)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """A server on the loopback: `answer` says what it does; what it was asked is kept."""

    def __init__(self, answer: Handler, models: Any = None, status: int = 200) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

        async def ask(request: web.Request) -> web.StreamResponse:
            self.asked.append(json.loads(await request.read()))
            self.headers.append(dict(request.headers))
            return await answer(request)

        async def listed(request: web.Request) -> web.StreamResponse:
            if isinstance(models, str):
                return web.Response(text=models, status=status)
            return web.json_response(models, status=status)

        app = web.Application()
        app.router.add_post("/v1/chat/completions", ask)
        app.router.add_post("/v1/completions", ask)
        if models is not None:
            app.router.add_get("/v1/models", listed)
        self._runner = web.AppRunner(app, shutdown_timeout=0.05)
        self.url = ""

    async def __aenter__(self) -> Server:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


async def sends(
    server: Server, samples: int = 1, decoding: Decoding = PLAIN, **how: Any
) -> Replies:
    teacher = OpenAIBackend("t", model="m", base_url=how.pop("url", server.url), **how)
    try:
        return await teacher.send(CHAT, samples, decoding)
    finally:
        await teacher.close()
        await teacher.close()


async def good(request: web.Request) -> web.StreamResponse:
    return web.json_response(said("fine"))


LISTED = {"object": "list", "data": [{"id": "m"}, {"id": "other-model"}]}


def test_a_request_and_its_answer(key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # not for the loopback

    async def main() -> None:
        async with Server(good, LISTED) as server:
            teacher = OpenAIBackend(
                "t", model="m", base_url=server.url, key=key, extra_headers={"X-Title": "x"}
            )
            await teacher.start()
            many = await asyncio.gather(*(teacher.send(CHAT, 1, PLAIN) for _ in range(20)))
            await teacher.close()
        assert all(got.replies[0].text == "fine" for got in many)
        assert many[0].headers["content-type"].startswith("application/json")
        assert server.asked[0]["messages"] == list(CHAT)
        assert server.headers[0]["Authorization"] == f"Bearer {SECRET}"
        assert server.headers[0]["X-Title"] == "x"
        assert teacher.notes == []

    asyncio.run(main())


def test_max_completion_tokens_is_learnt_once() -> None:
    async def picky(request: web.Request) -> web.StreamResponse:
        if "max_tokens" in await request.json():
            said_no = (
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                "'max_completion_tokens' instead."
            )
            error = {"message": said_no, "param": "max_tokens", "code": "unsupported_parameter"}
            return web.json_response({"error": error}, status=400)
        return await good(request)

    async def main() -> None:
        async with Server(picky) as server:
            teacher = OpenAIBackend("t", model="m", base_url=server.url)
            for _ in range(2):
                assert (await teacher.send(CHAT, 1, PLAIN)).replies[0].text == "fine"
            await teacher.close()
        assert ["max_tokens" in body for body in server.asked] == [True, False, False]

    asyncio.run(main())


def test_a_server_that_ignores_n_is_asked_one_by_one() -> None:
    async def main() -> None:
        async with Server(good) as server:
            teacher = OpenAIBackend("t", model="m", base_url=server.url)
            assert len((await teacher.send(CHAT, 5, PLAIN)).replies) == 1
            assert teacher.samples_per_request == 1 and len(teacher.notes) == 1
            await teacher.send(CHAT, 5, PLAIN)
            await teacher.close()
        assert [body.get("n") for body in server.asked] == [5, None]

    asyncio.run(main())


def test_a_server_that_refuses_n_is_asked_one_by_one() -> None:
    async def one(request: web.Request) -> web.StreamResponse:
        if "n" in await request.json():
            return web.json_response(
                {"error": {"message": "n_cmpl cannot be greater than the number of slots"}},
                status=400,
            )
        return await good(request)

    async def main() -> None:
        async with Server(one) as server:
            got = await sends(server, samples=4)
        assert len(got.replies) == 1 and len(server.asked) == 2

    asyncio.run(main())


async def hang(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


async def reset(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()  # type: ignore[attr-defined]
    return web.Response()


def raw_answer(*parts: bytes, pause_s: float = 0.0) -> Handler:
    """Bytes as they are, then the end of the connection."""

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        for part in parts:
            request.transport.write(part)  # type: ignore[attr-defined]
            await asyncio.sleep(pause_s)
        request.transport.close()
        return web.Response()

    return answer


WHOLE = json.dumps(said("Größe"), ensure_ascii=False).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LENGTH = HEAD + b"Content-Length: %d\r\n\r\n" % len(WHOLE)
UNTIL_CLOSED = HEAD + b"Connection: close\r\n\r\n"
MIDDLE = WHOLE.index("ö".encode()) + 1


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (hang, "no reply .* within 0.3 s"),
        (raw_answer(*[b"HTTP/1.1 200 OK\r\n"] + [b"X: y\r\n"] * 40, pause_s=0.02), "within 0.3 s"),
        (reset, "closed the connection"),
        (raw_answer(), "closed the connection"),
        (raw_answer(LENGTH, WHOLE[:30]), "cut off"),
        (raw_answer(HEAD + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"cho'), "cut off"),
        (
            raw_answer(HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n"),
            "not answer in sound HTTP",
        ),
        (raw_answer(HEAD + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd"), "cut off"),
        (raw_answer(UNTIL_CLOSED + WHOLE[:30]), "no whole JSON"),
        (raw_answer(UNTIL_CLOSED + WHOLE[:MIDDLE]), "no whole JSON"),
        (raw_answer(UNTIL_CLOSED + WHOLE + WHOLE), "no whole JSON"),
        (raw_answer(b"SSH-2.0-OpenSSH_9\r\n"), "sound HTTP|closed"),
    ],
)
def test_what_breaks_on_the_way_is_asked_for_again(answer: Handler, says: str, key: Key) -> None:
    async def main() -> None:
        async with Server(answer) as server:
            with pytest.raises(Again, match=says) as caught:
                await sends(server, timeout_s=0.3, key=key)
        assert caught.value.maybe_billed and not caught.value.unreachable
        assert shows_no_key(caught.value)

    asyncio.run(main())


def shows_no_key(error: BaseException) -> bool:
    told = "".join(traceback.format_exception(error)) + repr(error) + repr(error.__dict__)
    told += repr(error.__cause__) + repr(error.__context__)
    return SECRET not in told


def unused_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_nobody_there(key: Key) -> None:
    async def main() -> None:
        url = f"http://127.0.0.1:{unused_port()}/v1"
        teacher = OpenAIBackend("t", model="m", base_url=url, key=key)
        with pytest.raises(InputError, match=r"expected a server at .* start it") as at_start:
            await teacher.start()
        with pytest.raises(Again, match="cannot be reached") as later:
            await teacher.send(CHAT, 1, PLAIN)
        await teacher.close()
        assert later.value.unreachable and not later.value.maybe_billed
        assert shows_no_key(at_start.value) and shows_no_key(later.value)

    asyncio.run(main())


def test_https_to_a_server_of_plain_http(key: Key) -> None:
    async def main() -> None:
        async with Server(good, LISTED) as server:
            with pytest.raises(InputError, match="http://") as caught:
                await sends(server, url=server.url.replace("http:", "https:"), key=key)
        assert shows_no_key(caught.value)

    asyncio.run(main())


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_named_and_not_followed(status: int, key: Key) -> None:
    async def elsewhere(request: web.Request) -> web.StreamResponse:
        where = f"http://127.0.0.1:1/v2?key={SECRET}"
        return web.Response(status=status, headers={"Location": where})

    async def main() -> None:
        async with Server(elsewhere) as server:
            with pytest.raises(InputError, match=r"redirect to http://127\.0\.0\.1:1/v2") as caught:
                await sends(server, key=key)
        assert shows_no_key(caught.value)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("models", "status", "says"),
    [
        ({"data": [{"id": "n"}, {"id": "o"}]}, 200, "got 'm'; nearest of its 2: "),
        ({"error": {"message": f"bad key {SECRET}"}}, 401, "env:TEST_TEACHER_KEY was refused"),
        ("<html>hello</html>", 200, "got '<html>hello</html>'; check base_url"),
        ({}, 302, "redirect"),
    ],
)
def test_the_start_finds_what_the_user_must_mend(
    models: Any, status: int, says: str, key: Key
) -> None:
    async def main() -> None:
        async with Server(good, models, status) as server:
            teacher = OpenAIBackend("t", model="m", base_url=server.url, key=key)
            with pytest.raises(InputError, match=says) as caught:
                await teacher.start()
            await teacher.close()
        assert shows_no_key(caught.value)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("models", "status"), [(None, 200), ({"odd": 1}, 200), ({"error": "loading"}, 503)]
)
def test_the_start_notes_what_it_could_not_check(models: Any, status: int) -> None:
    async def main() -> None:
        async with Server(good, models, status) as server:
            teacher = OpenAIBackend("t", model="m", base_url=server.url)
            await teacher.start()
            await teacher.close()
        assert len(teacher.notes) == 1

    asyncio.run(main())


def test_a_model_that_is_gone_later_is_told_with_the_nearest() -> None:
    async def gone(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "no such model"}}, status=404)

    async def main() -> None:
        async with Server(gone, LISTED) as server:
            with pytest.raises(InputError, match=r"no such model; .*nearest of its 2: m"):
                await sends(server)

    asyncio.run(main())


def checks(decoding: Decoding, body: Any, status: int = 200, **how: Any) -> Replies | None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status)

    async def main() -> Replies | None:
        async with Server(answer) as server:
            teacher = OpenAIBackend("t", model="m", base_url=server.url, **how)
            try:
                return await teacher.check(decoding)
            finally:
                await teacher.close()

    return asyncio.run(main())


SCHEMA = Decoding(
    output=Output(
        json_schema={
            "type": "object",
            "properties": {"n": {"type": "integer"}},
            "required": ["n"],
        }
    )
)


def test_what_decoding_asks_for_is_tried_before_the_run() -> None:
    assert checks(PLAIN, said("anything")) is None
    got = checks(COLOURS, said('{"answer": "red"}'))
    assert got is not None and got.tokens_in == 11
    assert checks(SCHEMA, said('{"n": 5}')) is not None
    cut = said('{"n": 5555')
    cut["choices"][0]["finish_reason"] = "length"
    assert checks(SCHEMA, cut) is not None
    assert checks(SCHEMA, silent("length")) is not None  # it thinks too long to be tried


@pytest.mark.parametrize(
    ("decoding", "body", "status", "says"),
    [
        (COLOURS, said("Blue is water."), 200, "does not offer it"),
        (SCHEMA, said('{"n": "five"}'), 200, "does not offer it"),
        (SCHEMA, said("five"), 200, "does not offer it"),
        (SCHEMA, {"error": {"message": "unknown field response_format"}}, 400, "does not offer"),
        (SCHEMA, {"error": {"message": "no", "param": "response_format"}}, 400, "response_format"),
        (Decoding(top_logprobs=2), said("x"), 200, "does not offer log-probabilities"),
        (Decoding(extra={"tpo_k": 2}), said("x"), 200, "tpo_k"),
    ],
)
def test_what_a_server_does_not_offer_is_told_before_the_run(
    decoding: Decoding, body: Any, status: int, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        checks(decoding, body, status)


def test_the_key_is_in_nothing_that_a_backend_shows(key: Key) -> None:
    teacher = OpenAIBackend("t", model="m", base_url="http://h/v1", key=key)
    shown = repr(teacher) + repr(vars(teacher)) + pickle.dumps(teacher._key).decode("latin-1")
    assert SECRET not in shown
    assert SECRET not in json.dumps(dict(teacher.identity))


def test_connections_are_closed() -> None:
    async def main() -> None:
        async with Server(good) as server:
            await sends(server)

    asyncio.run(main())
    gc.collect()  # an unclosed session would warn here
