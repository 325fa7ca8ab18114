"""The labelling page in a real browser: keys, taps, kills, and the pictures of the docs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `label` is not installed")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from playwright.sync_api import Browser, Page, expect, sync_playwright

from symdistill.labelling.store import Draw, LabelStore, Purpose, Shown

pytestmark = pytest.mark.browser

CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser"])), None)
PICTURES = os.environ.get("PICTURES")  # a folder: where to leave the pictures of the docs

SERVE = """
import json, pathlib, sys
from symdistill.labelling import LabelStore
from symdistill.labelling.page import serve
store, draws = LabelStore(pathlib.Path(sys.argv[1])), json.loads(sys.argv[2])
tell = lambda url: print(url, flush=True)
serve(store, draws, on_ready=tell, **json.loads(sys.argv[3]))
"""


class Server:
    """The page, served by a process of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.running: subprocess.Popen[str] | None = None

    def add(
        self, lines: list[Any], *, id: str = "draw", purpose: Purpose = "certificate", **more: Any
    ) -> None:
        """A draw of texts, of (text, question), or of (text, question, other)."""
        items = []
        for number, line in enumerate(lines):
            text, question, other = (*((line,) if isinstance(line, str) else line), None, None)[:3]
            items.append(Shown(f"{id}-{number}", text, question, other))
        plan = more.pop("plan", {})
        with LabelStore(self.home) as store:
            store.add_draw(Draw(id, purpose, "", 0, "pool", plan, tuple(items), **more))

    def start(self, *draws: str, **settings: Any) -> str:
        """Start it; gives the address it prints."""
        told = [str(self.home), json.dumps(draws or ["draw"]), json.dumps(settings)]
        self.running = subprocess.Popen(
            [sys.executable, "-c", SERVE, *told], stdout=subprocess.PIPE, text=True
        )
        assert self.running.stdout is not None
        return self.running.stdout.readline().strip()

    def kill(self) -> None:
        """SIGKILL: nothing is tidied up."""
        if self.running:
            self.running.kill()
            self.running.communicate()

    def said(self) -> list[tuple[str, str]]:
        """Who answered what, oldest first."""
        with LabelStore(self.home, read_only=True) as store:
            return [(one.annotator, one.answer) for one in store.given()]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "home")
    yield server
    server.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium was found; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not work as root, as in most containers.
        args = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=args)
        yield browser
        browser.close()


def begin(browser: Browser, url: str, name: str = "Anna", **context: Any) -> Page:
    """Open the printed address in a browser of one's own and give a name."""
    page = browser.new_context(**context).new_page()
    page.set_default_timeout(15_000)
    page.goto(url)
    page.get_by_label("Your name").fill(name)
    page.keyboard.press("Enter")
    expect(page.locator("form#answer")).to_be_attached()
    assert "token" not in page.url
    return page


def at(page: Page, done: int, total: int) -> None:
    """Wait until so many lines are answered."""
    expect(page.locator(".progress")).to_have_text(f"{done} of {total}")


def press(page: Page, keys: list[str], done: int, total: int) -> int:
    """Answer by keys, each when its line is on the screen; gives how many are done."""
    for key in keys:
        at(page, done, total)
        page.keyboard.press(key)
        done += 1
    at(page, done, total)
    return done


def test_thirty_lines_by_keyboard(browser: Browser, server: Server) -> None:
    server.add([f"Line {n}." for n in range(30)])
    page = begin(browser, url := server.start())
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    wrong: list[object] = []
    page.on("pageerror", lambda error: wrong.append(error))
    page.on("console", lambda message: wrong.append(message.text))

    keys = ["v", "i", "u", "1", "2", "3", "V"]
    done = press(page, keys, 0, 30)
    expect(page.locator(".text")).to_have_text("Line 7.")
    for key in ("z", "Backspace"):
        page.keyboard.press(key)
        done -= 1
        at(page, done, 30)
    expect(page.locator(".text")).to_have_text("Line 5.")
    page.keyboard.press("n")
    expect(page.get_by_label("A note")).to_be_focused()
    page.keyboard.type("vague, ")  # letters in a note are no answers
    page.keyboard.press("Enter")
    page.keyboard.press("n")  # goes back to it
    page.keyboard.type("vizier")
    page.keyboard.press("Escape")
    done = press(page, ["i"], done, 30)
    page.keyboard.press("?")
    expect(page.get_by_text("Take the last answer back")).to_be_visible()
    done = press(page, ["v"] * (30 - done), done, 30)
    expect(page.get_by_role("heading")).to_contain_text("That was the last one")
    page.keyboard.press("z")
    press(page, ["u"], 29, 30)

    words = ["valid", "invalid", "unsure"]
    answers = [*words, *words[:2], "invalid", *["valid"] * 23, "unsure"]
    assert server.said() == [("Anna", word) for word in answers]
    with LabelStore(server.home, read_only=True) as store:
        given = store.given()
    assert [one.note for one in given if one.note] == ["vague, vizier"]
    assert all(one.seconds is not None for one in given)
    assert not wrong
    assert {one.split("/")[2] for one in asked} == {url.split("/")[2]}


def test_a_key_held_down_is_one_answer(browser: Browser, server: Server) -> None:
    server.add(["one", "two", "three", "four"])
    page = begin(browser, server.start())
    page.keyboard.down("v")
    at(page, 1, 4)
    page.keyboard.down("v")  # what a keyboard sends while a key stays down
    page.keyboard.down("v")
    page.keyboard.up("v")
    page.keyboard.press("Control+i")  # keys of the browser are not ours
    press(page, ["u"], 1, 4)
    assert [word for _, word in server.said()] == ["valid", "unsure"]


def test_a_double_click_is_one_answer(browser: Browser, server: Server) -> None:
    server.add(["one", "two", "three"])
    page = begin(browser, server.start())
    page.get_by_role("button", name="Invalid").dblclick(delay=40)
    at(page, 1, 3)
    page.wait_for_timeout(300)
    assert server.said() == [("Anna", "invalid")]


def test_keys_of_other_layouts(browser: Browser, server: Server) -> None:
    server.add(["one", "two", "three"])
    page = begin(browser, server.start())
    page.dispatch_event("body", "keydown", {"key": "м", "code": "KeyV", "bubbles": True})
    at(page, 1, 3)
    page.dispatch_event("body", "keydown", {"key": "é", "code": "Digit2", "bubbles": True})
    at(page, 2, 3)
    assert [word for _, word in server.said()] == ["valid", "invalid"]


def test_two_annotators(browser: Browser, server: Server) -> None:
    server.add([f"Line {n}." for n in range(4)])
    url = server.start()
    anna, ben = begin(browser, url), begin(browser, url, "بن <b>")
    for done in range(4):
        press(anna, ["v"], done, 4)
        press(ben, ["v" if done else "i"], done, 4)
    assert sorted(server.said()).count(("Anna", "valid")) == 4
    assert sorted(server.said()).count(("بن <b>", "invalid")) == 1
    expect(ben.get_by_text("Krippendorff")).to_be_visible()
    ben.get_by_role("link", name="Not you?").click()
    expect(ben.get_by_role("link", name="بن <b> 4 of 4")).to_be_visible()
    ben.get_by_role("link", name="Anna").click()
    at(ben, 4, 4)


def test_killed_in_the_middle(browser: Browser, server: Server) -> None:
    server.add([f"Line {n}." for n in range(12)])
    url = server.start(token="the-same-token")
    page = begin(browser, url)
    press(page, ["v", "i", "u", "v"], 0, 12)
    server.kill()
    page.keyboard.press("v")
    expect(page.get_by_role("alert")).to_contain_text("was not saved")
    expect(page.locator(".text")).to_have_text("Line 4.")
    assert len(server.said()) == 4

    server.start(token="the-same-token", port=int(url.split(":")[2].split("/")[0]))
    press(page, ["i"], 4, 12)  # as if nothing had been
    expect(page.get_by_role("alert")).to_be_hidden()

    server.kill()
    url = server.start()  # another port, another token
    page.goto(url)
    page.get_by_role("link", name="Anna").click()
    press(page, ["u"] * 7, 5, 12)
    words = ["valid", "invalid", "unsure", "valid", "invalid", *["unsure"] * 7]
    assert server.said() == [("Anna", word) for word in words]


def test_a_wrong_token(browser: Browser, server: Server) -> None:
    server.add(["a secret line"])
    url = server.start()
    page = browser.new_context().new_page()
    for wrong in (url + "x", url.split("?")[0], url.replace("?token=", "label?name=Anna&token=")):
        reply = page.goto(wrong)
        assert reply is not None and reply.status == 403
        expect(page.locator("main")).to_contain_text("open the address that the program printed")
        expect(page.locator("body")).not_to_contain_text("secret")


def test_other_sites_may_link_but_not_send(browser: Browser, server: Server) -> None:
    server.add(["one"])
    url = server.start()
    page = browser.new_context().new_page()
    page.set_content(f'<a href="{url}">open</a>')
    page.get_by_role("link").click()  # a strict cookie would be held back from a redirect here
    expect(page.get_by_label("Your name")).to_be_visible()
    sent = url.replace("?", "answer?")
    page.goto("about:blank")
    page.set_content(
        f'<form method="post" action="{sent}"><button name="answer">go</button></form>'
    )
    page.get_by_role("button").click()
    expect(page.locator("main")).to_contain_text("nothing was done")
    assert not server.said()


def test_markup_and_right_to_left_are_text(browser: Browser, server: Server) -> None:
    hostile = '<img src=x onerror="document.title=1"><script>document.title=1</script>'
    hebrew = "(גשר) עובר נהר!"
    server.add([(hostile, hostile), (hebrew, "גשר"), ("abc \u202etxt.exe", None)])
    page = begin(browser, server.start(instructions=hostile), name='<i>"Anna"')
    expect(page.locator(".text")).to_have_text(hostile)
    expect(page.locator(".about")).to_have_text(hostile)
    expect(page.locator(".instructions")).to_have_text(hostile)
    assert page.locator("img, i, script:not([src])").count() == 0
    press(page, ["v"], 0, 3)
    expect(page.locator(".text")).to_have_text(hebrew)
    direction = "one => getComputedStyle(one).direction"
    assert page.locator(".text").evaluate(direction) == "rtl"
    assert page.locator("h1").evaluate(direction) == "ltr"
    press(page, ["i"], 1, 3)
    expect(page.locator(".text")).to_have_text("abc [U+202E]txt.exe")
    assert server.said() == [('<i>"Anna"', "valid"), ('<i>"Anna"', "invalid")]


def test_side_by_side_by_keyboard(browser: Browser, server: Server) -> None:
    pairs = [(f"one {n}", "a concept", f"other {n}") for n in range(7)]
    server.add(pairs, purpose="compare", plan={"ask": "more"})
    page = begin(browser, server.start())
    expect(page.get_by_role("heading", level=1)).to_have_text("Which of the two lines says more?")
    expect(page.locator(".text")).to_have_text(["one 0", "other 0"])
    press(page, ["1", "2", "3", "4", "5", "ArrowLeft", "ArrowRight"], 0, 7)
    words = ["first", "second", "both", "neither", "unsure", "first", "second"]
    assert [word for _, word in server.said()] == words


def test_without_javascript(browser: Browser, server: Server) -> None:
    server.add(["one", "two"])
    page = begin(browser, server.start(), java_script_enabled=False)
    page.locator("summary").filter(has_text="Note").click()
    page.get_by_label("A note").fill("a\nb")
    page.get_by_role("button", name="Invalid").click()
    at(page, 1, 2)
    page.get_by_role("button", name="Take back").click()
    at(page, 0, 2)
    page.get_by_role("button", name="Unsure").click()
    page.get_by_role("button", name="Valid", exact=True).click()
    expect(page.get_by_role("heading")).to_contain_text("That was the last one")
    assert [word for _, word in server.said()] == ["unsure", "valid"]


@pytest.mark.parametrize("purpose", ["certificate", "compare"])
def test_on_a_phone(browser: Browser, server: Server, purpose: Purpose) -> None:
    long = "Donaudampfschifffahrtsgesellschaftskapitän " * 8
    server.add([(long, long, long if purpose == "compare" else None)] * 2, purpose=purpose)
    phone = {"viewport": {"width": 320, "height": 568}, "has_touch": True, "is_mobile": True}
    page = begin(browser, server.start(), **phone)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    for button in page.locator(".answers button").all():
        box = button.bounding_box()
        assert box is not None and box["height"] >= 44 and box["width"] >= 44
        assert box["y"] + box["height"] <= 568  # on the screen, however long the line
    expect(page.locator(".instructions")).to_be_hidden()
    page.get_by_text("Instructions").tap()
    expect(page.locator(".instructions")).to_be_visible()
    page.get_by_role("button", name="Unsure").tap()
    at(page, 1, 2)
    page.get_by_role("button", name="Take back").tap()
    at(page, 0, 2)


def test_pictures(browser: Browser, server: Server, tmp_path: Path) -> None:
    """The pictures of the docs: PICTURES=docs/images make test-browser ARGS='-k pictures'."""
    folder = Path(PICTURES or tmp_path)
    statements = [
        ("A hammer is used to drive nails into wood.", "hammer"),
        ("A lighthouse warns ships of rocks at night.", "lighthouse"),
        ("A lighthouse is a lamp that people carry up the stairs.", "lighthouse"),
    ]
    server.add(statements * 20)
    pairs = [
        ("A bridge is often there.", "bridge", "Bridges let people and cars cross a river."),
        ("Ovens heat food evenly from all sides.", "oven", "An oven is hot."),
    ]
    server.add(pairs * 40, id="pairs", purpose="compare", plan={"ask": "more"})

    screen = {"viewport": {"width": 1240, "height": 720}}
    url = server.start("draw")
    page = begin(browser, url, **screen)
    press(page, ["v", "v", "i"] * 8 + ["v"], 0, 60)
    page.screenshot(path=folder / "labelling.png")
    phone = {"viewport": {"width": 375, "height": 667}, "device_scale_factor": 2}
    page = begin(browser, url, "Ben", **phone, has_touch=True, is_mobile=True, color_scheme="dark")
    press(page, ["v", "v", "i"] * 10 + ["v"], 0, 60)
    page.screenshot(path=folder / "labelling_phone.png")
    server.kill()
    page = begin(browser, server.start("pairs"), **screen)
    press(page, list("12531425"), 0, 80)
    page.screenshot(path=folder / "comparing.png")
    for name in ("labelling", "labelling_phone", "comparing"):
        assert 5_000 < (folder / f"{name}.png").stat().st_size < 150_000
        assert re.match(rb"\x89PNG", (folder / f"{name}.png").read_bytes())
