"""Text that cannot harm where it is shown: on a page, in a terminal, in a picture."""

from __future__ import annotations

import unicodedata

# Marks that turn the direction of the text after them, or reach out of the element they are in.
_BIDI_CONTROLS = frozenset([0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])


def visible(text: str) -> str:
    """Text in which nothing acts: what has no glyph of its own is shown as a mark.

    Control characters (among them the escape that drives a terminal) become their pictures,
    characters that turn the direction of writing become their code point in brackets, line
    breaks become arrows, halves of surrogate pairs the replacement character. Letters, accents,
    emoji and the joiners that some scripts need stay as they are. Markup is not escaped here:
    jinja2 and rich do that.
    """
    return "".join(_shown(character) for character in text.replace("\r\n", "\n"))


def _shown(character: str) -> str:
    code = ord(character)
    if character in "\n\u2028\u2029":
        return " ↵ "
    if character == "\t":
        return " "
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    if code in _BIDI_CONTROLS or unicodedata.category(character) == "Cc":
        return f"[U+{code:04X}]"
    if 0xD800 <= code <= 0xDFFF:
        return "\ufffd"
    return character
