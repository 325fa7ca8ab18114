"""Labelling in a terminal: by whole lines from a pipe, by single keys from a terminal."""

from __future__ import annotations

import io
import os
import pty
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from symdistill.labelling.store import LABELS, PREFERENCES, Draw, LabelStore, Shown
from symdistill.labelling.terminal import label_in_terminal

pytestmark = pytest.mark.unit

TEXTS = ["\x1b[2Jcleared", "שלום \u202eevil", "<b>bold</b>"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LabelStore]:
    with LabelStore(tmp_path) as opened:
        items = tuple(Shown(f"l{i}", text, f"about {i}") for i, text in enumerate(TEXTS))
        opened.add_draw(Draw("d", "train", "", 0, "p", {}, items, 1))
        pairs = tuple(Shown(f"p{i}", "one", None, "two") for i in range(5))
        opened.add_draw(Draw("c", "compare", "", 0, "p", {}, pairs))
        yield opened


def typed(store: LabelStore, lines: str, draw: str = "d") -> str:
    screen = io.StringIO()
    label_in_terminal(
        store, draw, "ann", instructions="Be kind.", keys=io.StringIO(lines), screen=screen
    )
    return screen.getvalue()


def said(store: LabelStore, draw: str = "d") -> list[tuple[str, str, str]]:
    return [(one.line_id, one.answer, one.note) for one in store.given(draw)]


def test_keys_and_words_answer(store: LabelStore) -> None:
    shown = typed(store, "v\nINVALID\nu\nv\n")
    assert said(store) == [
        ("l0", "valid", ""),
        ("l1", "invalid", ""),
        ("l2", "unsure", ""),
        ("l0", "valid", ""),
    ]
    assert "-- 1 of 4 --" in shown and "-- 4 of 4 --" in shown
    assert shown.startswith("Be kind.\n") and "about: about 2" in shown
    assert all((one.seconds or 0) >= 0 for one in store.given("d"))


def test_nothing_in_a_text_acts(store: LabelStore) -> None:
    shown = typed(store, "v\nv\nv\n")
    assert "\x1b" not in shown and "\u202e" not in shown
    assert "␛[2Jcleared" in shown and "[U+202E]evil" in shown and "<b>bold</b>" in shown


def test_undo_note_instructions_and_wrong_keys(store: LabelStore) -> None:
    shown = typed(store, "z\nv\nz\n?\nx\x1b\n\n# because\ni\n#\nlater\nu\n")
    assert said(store) == [("l0", "invalid", "because"), ("l1", "unsure", "later")]
    assert "Nothing to take back." in shown and "Taken back." in shown
    assert shown.count("Be kind.") == 2
    assert "Expected one of these keys; got 'x␛'." in shown


def test_quitting_and_the_end_of_a_pipe_keep_what_is_done(store: LabelStore) -> None:
    typed(store, "v\nq\ni\ni\n")
    typed(store, "i\n")
    assert said(store) == [("l0", "valid", ""), ("l1", "invalid", "")]


def test_two_lines_side_by_side(store: LabelStore) -> None:
    shown = typed(store, "1\n2\n3\n4\n5\n", "c")
    assert [answer for _, answer, _ in said(store, "c")] == [
        "first", "second", "both", "neither", "unsure",
    ]  # fmt: skip
    assert "1: one\n2: two" in shown and "Which of the two lines is valid?" in shown


def test_the_keys_of_the_page_answer_here(store: LabelStore) -> None:
    shown = typed(store, "f\ns\nb\nx\nu\n", "c")
    assert [answer for _, answer, _ in said(store, "c")] == list(PREFERENCES)
    assert "1 first  2 second  3 both  4 neither  5 unsure  z undo" in shown
    typed(store, "1\n2\n3\n")
    assert [answer for _, answer, _ in said(store)] == list(LABELS)


def test_a_screen_of_another_encoding(store: LabelStore) -> None:
    raw = io.BytesIO()
    screen = io.TextIOWrapper(raw, encoding="ascii")
    label_in_terminal(store, "d", "ann", keys=io.StringIO("v\nv\n"), screen=screen)
    assert b"???? [U+202E]evil" in raw.getvalue()


def test_bytes_that_are_no_text(store: LabelStore) -> None:
    keys = io.TextIOWrapper(io.BytesIO(b"\xff\xfe\nv\n"), encoding="utf-8")
    label_in_terminal(store, "d", "ann", keys=keys, screen=io.StringIO())
    assert len(said(store)) <= 1


def test_single_keys_on_a_terminal(store: LabelStore) -> None:
    """A key answers without Enter, an arrow does not, and the terminal is as before in the end."""
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    with os.fdopen(theirs, "r") as keys:
        screen = io.StringIO()
        working = threading.Thread(
            target=label_in_terminal, args=(store, "d", "ann"),
            kwargs={"keys": keys, "screen": screen},
        )  # fmt: skip
        working.start()
        steps = [("1 of 4", b"v"), ("2 of 4", b"\x1b[A"), ("got", b"#"), ("note", b"so\n"),
                 ("note", b"i"), ("3 of 4", b"q")]  # fmt: skip
        for shown, key in steps:
            _wait_for(screen, shown)
            os.write(ours, key)
            working.join(0.2)
        working.join(10)
        assert not working.is_alive()
        assert termios.tcgetattr(keys.fileno()) == before
    os.close(ours)
    assert said(store) == [("l0", "valid", ""), ("l1", "invalid", "so")]


def _wait_for(screen: io.StringIO, text: str) -> None:
    waiting = threading.Event()
    for _ in range(200):
        if text in screen.getvalue():
            return
        waiting.wait(0.05)
    raise AssertionError(f"{text!r} never came; got {screen.getvalue()!r}")
