"""Keys of teachers: named in a configuration, read from elsewhere, shown nowhere.

A configuration says where a key is (`env:NAME` or `file:PATH`), never what it is. What is read
lives in a `Key`, whose text, repr and pickle hold the place alone, and which takes itself out of
what servers write back: they like to echo the key that they refuse.
"""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from typing import Literal
from urllib.parse import quote, quote_plus

from symdistill.errors import InputError

MASK = "[key]"
LONG = 16  # characters; no answer holds a text like a key this long unless it is the key


class Key:
    """A key and where it was read from.

    Args:
        source: `env:NAME` or `file:PATH` (~ is the home folder).

    Raises:
        InputError: the source is neither, or nothing usable is there.
    """

    __slots__ = ("_echo", "_in_json", "_secret", "source")

    def __init__(self, source: str) -> None:
        kind, place = place_of(source)
        secret = _from_environment(place) if kind == "env" else _from_file(Path(place).expanduser())
        if not (secret.isascii() and secret.isprintable() and " " not in secret):
            raise InputError(
                f"expected one key without blanks in {source}; got more than one line, a blank or "
                "a character that no key has; leave only the key there"
            )
        self.source = source
        self._secret = secret
        escaped = json.dumps(secret)[1:-1]
        self._in_json = {one.encode() for one in (secret, escaped, escaped.replace("/", "\\/"))}
        self._echo = _echoes(secret)

    def headers(self) -> dict[str, str]:
        """The header that shows the key to a server."""
        return {"Authorization": f"Bearer {self._secret}"}

    def redact(self, text: str) -> str:
        """A text without the key, however it was written there (quoted, escaped, half masked)."""
        return self._echo.sub(MASK, text)

    def scrub(self, raw: bytes) -> bytes:
        """A server's reply without the key; almost always the very same bytes.

        A short key (`none`, `EMPTY`) is left alone here: it may be a word of an answer.
        """
        if len(self._secret) < LONG:
            return raw
        for form in self._in_json:
            if form in raw:
                raw = raw.replace(form, MASK.encode())
        return raw

    def __repr__(self) -> str:
        return f"Key({self.source!r})"

    def __reduce__(self) -> tuple[type[Key], tuple[str]]:
        return Key, (self.source,)  # read again where it is unpickled


def place_of(source: str) -> tuple[Literal["env", "file"], str]:
    """What kind of place a key is in, and which.

    Raises:
        InputError: the source names none.
    """
    kind, _, place = source.partition(":")
    named = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", place)
    # A key written here by mistake may look like a name, but not like one that is set.
    if kind == "env" and named and (place.isupper() or place in os.environ):
        return "env", place
    if kind == "file" and place:
        return "file", place
    raise InputError(
        "expected `key: env:NAME` or `key: file:PATH`; got something else (not shown, as it may be "
        "the key itself); put the key into an environment variable or a file, and name that"
    )


def _from_environment(name: str) -> str:
    secret = os.environ.get(name, "").strip()
    if not secret:
        # A key written here by mistake seldom looks like the name of a variable.
        shown = name if name.isupper() and len(name) < 64 else "(not shown: is it the key itself?)"
        raise InputError(
            f"expected a key in the environment variable {shown}; it is not set or empty; "
            "export it in the shell that starts the run, or use `key: file:PATH`"
        )
    return secret


def _from_file(path: Path) -> str:
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the path
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(
            f"expected a key in the file {path}; got: {reason}; check the path, or use "
            "`key: env:NAME`"
        ) from None
    if not secret:
        raise InputError(f"expected a key in the file {path}; it is empty; write the key into it")
    return secret


def _echoes(secret: str) -> re.Pattern[str]:
    """What a key looks like in a text that gives it away."""
    escaped = json.dumps(secret)[1:-1]
    plain = base64.b64encode(secret.encode()).decode().rstrip("=")
    safe = plain.replace("+", "-").replace("/", "_")
    written = {secret, quote(secret, safe=""), quote(secret), quote_plus(secret), plain, safe}
    written |= {escaped, escaped.replace("/", "\\/")}
    forms = [re.escape(form) + "=*" for form in sorted(written, key=len, reverse=True)]
    if len(secret) >= LONG:
        # "sk-ab***cd", "sk-ab...cd", "***cd": the beginning, the end or both around a mask.
        start, end = re.escape(secret[:3]), re.escape(secret[-4:])
        mask = r"(?:[*•]+|\.{3,}|…)"
        rest = r"[^\s'\",;<>]*"
        forms += [rf"{start}[\w-]*{mask}{rest}", rf"{mask}{rest}{end}"]
    return re.compile("|".join(forms), re.IGNORECASE)
