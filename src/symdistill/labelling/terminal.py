"""Labelling in a terminal: one line to a screen, one key to an answer.

Takes a draw of a `LabelStore`; every answer is on disk before the next line is shown. From a pipe
it reads whole lines instead of keys (`v`, `valid`, `z`, `# a note`), so that a script can label.
Texts are made harmless before they are shown (`visible`). Scores are not in a draw.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TextIO

from symdistill.labelling.instructions import question_of
from symdistill.labelling.store import KEYS_FOR_TWO, LABELS, LabelStore, Purpose, Shown
from symdistill.visible import visible

KEYS: Mapping[str, str] = {
    **dict(zip("viu", LABELS, strict=True)),
    **dict(zip("123", LABELS, strict=True)),
}
_COMMANDS: Mapping[str, str] = {"z": "undo", "#": "note", "?": "instructions", "q": "quit"}


def label_in_terminal(
    store: LabelStore,
    draw_id: str,
    annotator: str,
    *,
    instructions: str = "",
    keys: TextIO | None = None,
    screen: TextIO | None = None,
) -> None:
    """Ask for answers until all are given, or the annotator quits; Ctrl-C quits, too.

    Args:
        store: where answers go.
        draw_id: which draw is answered.
        annotator: who answers.
        instructions: shown first, and at the key `?`.
        keys: a terminal, or any stream of lines; None: standard input.
        screen: None: standard output.

    Raises:
        InputError: an unknown draw, or a blank name.
    """
    keys, screen = keys or sys.stdin, screen or sys.stdout
    draw = store.draw(draw_id)
    words = _words(draw.purpose)
    encoding = getattr(screen, "encoding", None) or "utf-8"

    def say(text: str) -> None:
        screen.write(text.encode(encoding, "replace").decode(encoding) + "\n")
        screen.flush()

    with contextlib.suppress(KeyboardInterrupt), _reading(keys) as reading:
        say(_shown_instructions(instructions))
        if draw.purpose == "compare":
            say(question_of(draw))
        while found := store.next(draw_id, annotator):
            shown, again = found
            done, total = store.progress(draw_id, annotator)
            say(_page(shown, f"{done + 1:,} of {total:,}"))  # a repeat is not told
            started = time.monotonic()
            said, note = _asked(words, reading, say, instructions)
            if said == "quit":
                break
            if said == "undo":
                back = store.undo(draw_id, annotator)
                say("Nothing to take back." if back is None else "Taken back.")
                continue
            store.answer(
                draw_id,
                shown.line_id,
                annotator,
                said,
                again=again,
                seconds=time.monotonic() - started,
                note=note,
            )


def _asked(
    words: Mapping[str, str],
    reading: tuple[Callable[[], str], Callable[[], str]],
    say: Callable[[str], None],
    instructions: str,
) -> tuple[str, str]:
    """An answer, "undo" or "quit"; and the note typed before it."""
    read_key, read_line = reading
    known = {**words, **_COMMANDS}
    typed = known | {word: word for word in known.values()}
    note = ""
    while True:
        shown = {word: key for key, word in reversed(known.items())}  # the first key of each
        say("  ".join(f"{key} {word}" for word, key in reversed(shown.items())))
        key = read_key().strip()
        said = typed.get(key.casefold(), "")
        if said == "note":
            say("Type the note, then Enter:")
            note = read_line().strip()
        elif key.startswith("#"):
            note = key[1:].strip()
        elif said == "instructions":
            say(_shown_instructions(instructions))
        elif said:
            return said, note
        else:
            say(f"Expected one of these keys; got {visible(key)[:40]!r}.")


def _words(purpose: Purpose) -> Mapping[str, str]:
    return KEYS_FOR_TWO if purpose == "compare" else KEYS


def _shown_instructions(instructions: str) -> str:
    return "\n".join(visible(line) for line in instructions.splitlines())


def _page(shown: Shown, place: str) -> str:
    parts = [("", f"-- {place} --"), ("about: ", shown.question)]
    if shown.other is None:
        parts.append(("", shown.text))
    else:
        parts += [("1: ", shown.text), ("2: ", shown.other)]
    return "\n" + "\n".join(f"{what}{visible(text)}" for what, text in parts if text is not None)


@contextlib.contextmanager
def _reading(keys: TextIO) -> Iterator[tuple[Callable[[], str], Callable[[], str]]]:
    """How to read a key and a line; a terminal gives single keys meanwhile."""

    def line() -> str:
        try:
            return keys.readline()
        except UnicodeDecodeError:
            return "\ufffd"

    if not keys.isatty():
        yield (lambda: line() or "quit"), line  # the end of a pipe
        return
    import termios
    import tty

    device = keys.fileno()
    before = termios.tcgetattr(device)

    def key() -> str:
        pressed = os.read(device, 32).decode("utf-8", "replace")
        if pressed in ("", "\x04"):  # the terminal is gone, or Ctrl-D
            return "quit"
        return pressed if pressed.startswith("\x1b") else pressed[0]  # an arrow is no letter

    def whole_line() -> str:
        termios.tcsetattr(device, termios.TCSADRAIN, before)
        try:
            return line()
        finally:
            tty.setcbreak(device)

    tty.setcbreak(device)
    try:
        yield key, whole_line
    finally:
        termios.tcsetattr(device, termios.TCSADRAIN, before)
