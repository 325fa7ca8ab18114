"""The labelling page, asked without a browser: what is saved, what is shown, who is let in."""

from __future__ import annotations

import html
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi", reason="the extra `label` is not installed")
pytest.importorskip("httpx", reason="FastAPI's test client needs httpx")

from fastapi.testclient import TestClient

from symdistill.errors import InputError
from symdistill.labelling.page import build_app, serve
from symdistill.labelling.store import Draw, LabelStore, Purpose, Shown

pytestmark = pytest.mark.unit

HERE = "http://127.0.0.1:8000"
TOKEN = "a-token-for-tests"


def draw_of(
    texts: Sequence[str],
    *,
    id: str = "draw",
    purpose: Purpose = "certificate",
    repeats: int = 0,
    other: str | None = None,
    question: str | None = None,
    plan: dict[str, Any] | None = None,
) -> Draw:
    items = tuple(Shown(f"{id}-{n}", text, question, other) for n, text in enumerate(texts))
    return Draw(id, purpose, "2026-01-01T00:00:00Z", 0, "pool", plan or {}, items, repeats)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LabelStore]:
    with LabelStore(tmp_path) as store:
        yield store


class Page:
    """One browser: what it sees, and the forms it sends."""

    def __init__(self, store: LabelStore, *draws: Draw, name: str = "Anna", **settings: Any):
        for draw in draws:
            store.add_draw(draw)
        app = build_app(store, [draw.id for draw in draws], TOKEN, **settings)
        self.name = name
        self.browser = TestClient(app, base_url=HERE)
        assert self.browser.get("/", params={"token": TOKEN}).status_code == 200
        self.look()

    def look(self) -> str:
        self.text = self.browser.get("/label", params={"name": self.name}).text
        return self.text

    def form(self, action: str) -> dict[str, str]:
        """The hidden fields of a form."""
        found = re.search(rf'action="/{action}".*?</form>', self.text, re.DOTALL)
        assert found, self.text
        fields = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', found[0])
        return {name: html.unescape(value) for name, value in fields}

    def answer(self, word: str, **more: str) -> str:
        return self.send("answer", self.form("answer") | {"answer": word} | more)

    def undo(self) -> str:
        return self.send("undo", self.form("undo"))

    def send(self, action: str, fields: dict[str, str]) -> str:
        reply = self.browser.post(f"/{action}", data=fields)
        assert reply.status_code == 200, reply.text
        self.text = reply.text
        return self.text

    @property
    def shown(self) -> list[str]:
        """The texts of the lines on the screen."""
        found = re.findall(r'<bdi dir="auto" class="text[^"]*">(.*?)</bdi>', self.text, re.DOTALL)
        return [html.unescape(text) for text in found]


def said(store: LabelStore) -> list[tuple[str, str, str]]:
    return [(one.annotator, one.line_id, one.answer) for one in store.given()]


# -- answering ----------------------------------------------------------------------------------


def test_an_answer_is_saved_and_the_next_line_comes(store: LabelStore) -> None:
    page = Page(store, draw_of(["one", "two"], question="a concept"))
    assert page.shown == ["one"] and "a concept" in page.text and "<b>0</b> of 2" in page.text
    page.answer("invalid", note=" cannot be \n", shown_at=str(time.time() - 3))
    assert page.shown == ["two"] and "<b>1</b> of 2" in page.text
    [kept] = store.given()
    assert (kept.line_id, kept.answer, kept.annotator) == ("draw-0", "invalid", "Anna")
    assert kept.note == "cannot be" and kept.seconds is not None and 3 <= kept.seconds < 10
    page.answer("unsure")
    assert "That was the last one" in page.text
    assert said(store)[1] == ("Anna", "draw-1", "unsure")


def test_a_form_sent_twice_answers_one_line(store: LabelStore) -> None:
    page = Page(store, draw_of(["one", "two", "three"]))
    form = page.form("answer") | {"answer": "valid"}
    page.send("answer", form)
    page.send("answer", form)
    assert page.shown == ["two"] and len(said(store)) == 1


def test_the_last_answer_is_taken_back_once(store: LabelStore) -> None:
    page = Page(store, draw_of(["one", "two", "three"]))
    page.answer("valid")
    page.answer("valid")
    form = page.form("undo")
    page.send("undo", form)
    page.send("undo", form)  # a double click
    assert page.shown == ["two"] and len(said(store)) == 1
    page.undo()
    assert page.shown == ["one"] and not said(store)
    page.undo()  # nothing is left
    assert page.shown == ["one"]


@settings(max_examples=20)
@given(
    st.lists(
        st.sampled_from(["valid", "invalid", "unsure", "undo", "send the first form again"]),
        max_size=12,
    )
)
def test_what_stands_is_what_was_done(
    tmp_path_factory: pytest.TempPathFactory, actions: list[str]
) -> None:
    with LabelStore(tmp_path_factory.mktemp("home")) as store:
        page = Page(store, draw_of([str(n) for n in range(5)]))
        expected: list[str] = []
        first: dict[str, str] | None = None
        for action in actions:
            if action == "undo":
                page.undo()
                expected = expected[:-1]
            elif action == "send the first form again":
                if first and expected:  # with no answer left the first form is valid again
                    page.send("answer", first)
            elif len(expected) < 5:
                first = first or page.form("answer") | {"answer": action}
                page.answer(action)
                expected.append(action)
            assert [one.answer for one in store.given()] == expected


def test_several_people_answer_the_same_lines(store: LabelStore) -> None:
    anna = Page(store, draw_of(["one", "two"]))
    anna.answer("valid")
    ben = Page(store, draw_of(["one", "two"]), name="Ben")
    assert ben.shown == ["one"]
    ben.answer("invalid")
    assert said(store) == [("Anna", "draw-0", "valid"), ("Ben", "draw-0", "invalid")]
    names = ben.browser.get("/").text
    assert "Anna" in names and "Ben" in names and "1 of 2" in names


def test_a_name_is_asked_for_unless_it_is_given(store: LabelStore) -> None:
    store.add_draw(draw_of(["one"]))
    browser = TestClient(build_app(store, "draw", TOKEN, annotator=" Anna  B "), base_url=HERE)
    assert 'url=/label?name=Anna%20B"' in browser.get("/", params={"token": TOKEN}).text
    assert browser.get("/").url.path == "/label"
    browser = TestClient(build_app(store, ["draw"], TOKEN), base_url=HERE)
    assert 'url=/"' in browser.get("/", params={"token": TOKEN}).text
    assert "Who labels?" in browser.get("/").text
    assert "Who labels?" in browser.get("/label?name=%20").text


def test_repeats_come_at_the_end_and_agreement_is_told(store: LabelStore) -> None:
    page = Page(store, draw_of(["one", "two", "three"], repeats=2), next_command="symdistill next")
    shown = []
    for word in ["valid", "invalid", "valid", "valid", "valid"]:
        shown += page.shown
        page.answer(word)
    assert shown == ["one", "two", "three", "one", "two"]
    assert "same answer to 1 of 2 lines shown twice" in page.text
    assert "symdistill next" in page.text
    page.undo()
    assert page.shown == ["two"]


def test_two_lines_side_by_side(store: LabelStore) -> None:
    plan = {"ask": "more", "sides": {"secret": True}}
    pairs = draw_of(["the one"] * 2, purpose="compare", other="the other", plan=plan)
    page = Page(store, pairs)
    assert page.shown == ["the one", "the other"]
    assert "Which of the two lines says more?" in page.text and "secret" not in page.text
    for word in ["first", "second", "both", "neither", "unsure"]:
        assert f'value="{word}"' in page.text
    page.answer("neither")
    assert said(store) == [("Anna", "draw-0", "neither")]


def test_draws_come_one_after_the_other(store: LabelStore) -> None:
    page = Page(store, draw_of(["a"], id="first"), draw_of(["b"], id="second", purpose="audit"))
    page.answer("valid")
    assert page.shown == ["b"] and "<b>1</b> of 2" in page.text
    page.undo()  # reaches back into the first
    assert page.shown == ["a"]


def test_instructions_are_the_ones_given(store: LabelStore) -> None:
    text = "First <this>\nor that.\n\nterm\n  what it\n  means\n\n- one\n- two"
    page = Page(store, draw_of(["one"]), instructions=text)
    assert "<bdi>First &lt;this&gt; or that.</bdi>" in page.text
    assert "<b><bdi>term</bdi></b><bdi>what it means</bdi>" in page.text
    assert "<bdi>- one\n- two</bdi>" in page.text
    assert "Exceptions do not matter." in Page(store, draw_of(["one"])).text


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    draw = draw_of(["one", "two"])
    with LabelStore(tmp_path) as store:
        Page(store, draw).answer("valid")
    with LabelStore(tmp_path) as store:
        assert Page(store, draw).shown == ["two"]


def test_what_could_not_be_saved_is_told(store: LabelStore) -> None:
    page = Page(store, draw_of(["one"]))
    form = page.form("answer")
    reply = page.browser.post("/answer", data=form | {"answer": "maybe"})
    assert reply.status_code == 400 and "Nothing was saved: expected one of valid" in reply.text
    reply = page.browser.post("/answer", data=form)
    assert reply.status_code == 400 and "nothing was saved" in reply.text
    store.close()
    reply = page.browser.post("/answer", data=form | {"answer": "valid"})
    assert reply.status_code == 500 and "Nothing was saved" in reply.text


def test_a_hundred_thousand_lines(store: LabelStore) -> None:
    page = Page(store, draw_of([f"line {n}" for n in range(100_000)], purpose="audit"))
    started = time.monotonic()
    for _ in range(5):
        page.answer("valid")
    assert "<b>5</b> of 100,000" in page.text
    assert time.monotonic() - started < 5


# -- what is shown ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ('"><img src=x onerror=alert(1)>', '"><img src=x onerror=alert(1)>'),
        ("{{ 7 * 7 }} {% raw %} &amp;", "{{ 7 * 7 }} {% raw %} &amp;"),
        ("الجسر يعبر النهر", "الجسر يعبر النهر"),
        ("abc\u202edef", "abc[U+202E]def"),
        ("a\x1b[31m\x00b", "a␛[31m␀b"),
        ("two\r\nlines", "two\nlines"),
        ("half a \ud800 pair", "half a ? pair"),
        ("👩‍🌾 naïve", "👩‍🌾 naïve"),
    ],
)
def test_texts_are_text(store: LabelStore, text: str, shown: str) -> None:
    page = Page(store, draw_of([text], question=text), name=text.replace("\ud800", "?"))
    assert page.shown == [shown]
    for acting in ("<script>alert", "<img", "\u202e", "\x1b"):
        assert acting not in page.text
    page.answer("valid")
    assert len(said(store)) == 1 and "<script>alert" not in page.text
    assert "<script>alert" not in page.browser.get("/").text


def test_an_empty_line_is_seen_to_be_one(store: LabelStore) -> None:
    assert "an empty line" in Page(store, draw_of([" "])).text


def test_a_line_id_may_be_anything(store: LabelStore) -> None:
    line = Shown('"\n\r\n<b>&', "one")
    page = Page(store, Draw("draw", "audit", "", 0, "", {}, (line, Shown("2", "two"))))
    page.answer("valid")
    assert page.shown == ["two"]


# -- who is let in ------------------------------------------------------------------------------


def test_without_the_token_nothing_is_shown(store: LabelStore) -> None:
    page = Page(store, draw_of(["a secret line"]))
    stranger = TestClient(page.browser.app, base_url=HERE)
    for path in ("/", "/label?name=Anna", "/?token=", "/?token=wrong", "/?token=ä", "/nothing"):
        reply = stranger.get(path)
        assert reply.status_code == 403 and "token" in reply.text, path
        assert "secret" not in reply.text and "set-cookie" not in reply.headers
    stranger.cookies.set("symdistill-8000", "made.up")
    assert stranger.get("/label?name=Anna").status_code == 403
    assert stranger.post("/answer", data=page.form("answer")).status_code == 403
    assert page.browser.get("/?token=wrong").status_code == 403  # whoever asks


def test_the_token_is_on_no_page_and_the_cookie_is_strict(store: LabelStore) -> None:
    page = Page(store, draw_of(["one"]))
    opened = page.browser.get("/", params={"token": TOKEN})
    cookie = opened.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    # Opened twice, the page in the first tab still works.
    for text in (opened.text, cookie, page.text, page.answer("valid")):
        assert TOKEN not in text


def test_cookies_of_other_programs_do_no_harm(store: LabelStore) -> None:
    page = Page(store, draw_of(["one"]))
    name, value = next(iter(page.browser.cookies.items()))
    strange = f'path={{"a": [1, 2]}}; =; ;; x="; {name}={value}; expires=never'
    stranger = TestClient(page.browser.app, base_url=HERE)
    assert stranger.get("/label?name=Anna", headers={"cookie": strange}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost:x"])
def test_a_rebound_name_is_refused(store: LabelStore, host: str) -> None:
    page = Page(store, draw_of(["one"]))
    reply = page.browser.get("/", params={"token": TOKEN}, headers={"host": host})
    assert reply.status_code == 403 and "this machine only" in reply.text


@pytest.mark.parametrize(
    "host", ["localhost:9000", "127.0.0.1:9000", "127.0.0.2:80", "[::1]:9000", "localhost"]
)
def test_a_forwarded_port_is_not(store: LabelStore, host: str) -> None:
    page = Page(store, draw_of(["one"]))
    reply = page.browser.get("/", params={"token": TOKEN}, headers={"host": host})
    assert reply.status_code == 200


def test_forms_of_others_are_refused(store: LabelStore) -> None:
    page = Page(store, draw_of(["one"]))
    form = page.form("answer") | {"answer": "valid"}
    for origin in (
        "http://evil.example",
        "null",
        "http://127.0.0.1:9999",
        "https://127.0.0.1:8000",
    ):
        reply = page.browser.post("/answer", data=form, headers={"origin": origin})
        assert reply.status_code == 403, origin
    for proof in ("", "wrong", "ä"):
        reply = page.browser.post("/answer", data=form | {"proof": proof})
        assert reply.status_code == 403
    del form["proof"]
    assert page.browser.post("/answer", data=form).status_code == 403
    other = Page(store, draw_of(["one"]))  # another session's form
    assert other.browser.post("/undo", data=page.form("undo")).status_code == 403
    assert not said(store)
    fine = page.form("answer") | {"answer": "valid"}
    assert page.browser.post("/answer", data=fine, headers={"origin": HERE}).status_code == 200


def test_nothing_changes_by_looking(store: LabelStore) -> None:
    page = Page(store, draw_of(["one"]))
    for action in ("answer", "undo"):
        assert page.browser.get(f"/{action}", params=page.form(action)).status_code == 405
    assert not said(store)


def test_every_reply_forbids_what_is_not_needed(store: LabelStore) -> None:
    page = Page(store, draw_of(["one"]))
    form = page.form("answer") | {"answer": "valid"}
    replies = [
        page.browser.get("/"),
        page.browser.get("/label?name=Anna"),
        page.browser.get("/?token=wrong"),
        page.browser.get("/nothing"),
        page.browser.get("/static/page.js"),
        page.browser.get("/static/%2e%2e/page.py"),
        page.browser.post("/answer", data={}),
        page.browser.post("/answer", data=form, follow_redirects=False),
    ]
    for reply in replies:
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert reply.headers["x-frame-options"] == "DENY"
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-content-type-options"] == "nosniff"
    assert [reply.status_code for reply in replies] == [200, 200, 403, 404, 200, 404, 403, 303]


def test_pages_hold_no_inline_script_and_name_no_other_place(store: LabelStore) -> None:
    page = Page(store, draw_of(["one"]), next_command="next")
    folder = Path(sys.modules["symdistill.labelling.page"].__file__ or "").parent
    pages = [page.browser.get("/").text, page.text, page.answer("valid")]
    files = [path.read_text("utf-8") for path in folder.glob("static/*")]
    for text in pages:
        assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\son\w+=|\sstyle=", text)
    for text in pages + files:
        assert not re.search(r"""(src|href|url|@import)\s*[=(]\s*["']?(https?:)?//""", text)


# -- starting -----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.com", ""])
def test_only_this_machine_is_served(store: LabelStore, host: str) -> None:
    store.add_draw(draw_of(["one"]))
    with pytest.raises(InputError, match=r"this machine alone.*ssh -L"):
        serve(store, ["draw"], host=host)


def test_what_cannot_be_started_is_told(store: LabelStore) -> None:
    store.add_draw(draw_of(["one"]))
    with pytest.raises(InputError, match="expected a draw to label"):
        serve(store, [])
    with pytest.raises(InputError, match="expected a draw"):
        serve(store, ["nothing"])
    with pytest.raises(InputError, match="blank"):
        serve(store, ["draw"], annotator=" ")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="expected a free port"):
            serve(store, ["draw"], port=taken.getsockname()[1])
    with pytest.raises(InputError, match="expected a free port"):
        serve(store, ["draw"], port=70_000)


def test_ctrl_c_ends_it_clean(store: LabelStore) -> None:
    store.add_draw(draw_of(["one"]))
    code = (
        "import sys, pathlib\n"
        "from symdistill.labelling import LabelStore\n"
        "from symdistill.labelling.page import serve\n"
        "serve(LabelStore(pathlib.Path(sys.argv[1])), ['draw'],"
        " on_ready=lambda url: print(url, flush=True))\n"
        "print('ended')"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", code, str(store.path.parent)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32}", url)
        address = ("127.0.0.1", int(url.split(":")[2].split("/")[0]))
        with socket.create_connection(address, timeout=20) as asking:
            asking.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert asking.recv(100).startswith(b"HTTP/1.1 403")
            server.send_signal(signal.SIGINT)
            out, error = server.communicate(timeout=20)
        assert (server.returncode, out, error) == (0, "ended\n", "")
    finally:
        server.kill()
        server.wait()


def test_a_note_too_long_for_its_field_is_refused_and_so_is_a_long_form(store: LabelStore) -> None:
    page = Page(store, draw_of(["one", "two"]))
    form = page.form("answer") | {"answer": "valid"}
    reply = page.browser.post("/answer", data=form | {"note": "n" * 2_001})
    assert reply.status_code == 400 and "at most 2,000 characters" in html.unescape(reply.text)
    for length in ("1000000", "", "-1", "chunked"):
        reply = page.browser.post(
            "/answer", data=form | {"note": "n" * 200_000}, headers={"content-length": length}
        )
        assert reply.status_code == 413 and "too long" in reply.text
    assert not said(store)
    page.answer("valid", note="\r\n".join(["🙂" * 19] * 100))  # 2,000, as a browser counts lines
    assert len(store.given()[0].note) == 1_999


def test_a_name_in_other_letters_goes_on_as_the_same_person(store: LabelStore) -> None:
    Page(store, draw_of(["one", "two"]), name="Anna B").answer("valid")
    page = Page(store, draw_of(["one", "two"]), name="anna  b")
    assert page.shown == ["two"] and "Anna B" in page.text
    page.answer("invalid")
    assert {one.annotator for one in store.given()} == {"Anna B"}
