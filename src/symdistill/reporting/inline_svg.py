"""A matplotlib figure as SVG that lives inside an HTML page.

Takes a figure drawn in the named colours below; gives SVG text in which those colours are CSS
variables (so that the page decides about light, dark and print), text is text, ids are unique
on the page, and a title and a description are read aloud. The same figure gives the same bytes:
no date, no random ids. It does not draw anything.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from symdistill.errors import RunError
from symdistill.visible import visible

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

# Colours that matplotlib is given, each standing for a variable of the page's style sheet.
INK = "#010101"  # text that must be read
MUTED = "#020202"  # axes, units, remarks
RULE = "#030303"  # grid lines
PAPER = "#040404"  # the page behind the chart
FIRST = "#050505"  # the first series
SECOND = "#060606"  # the second series
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    PAPER: "var(--paper)",
    FIRST: "var(--first)",
    SECOND: "var(--second)",
}
_SALT = "symdistill"
_LINK = "{http://www.w3.org/1999/xlink}href"
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


@contextmanager
def drawing_style() -> Iterator[None]:
    """Matplotlib's own defaults and ours, whatever the user's settings file says.

    Raises:
        RunError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise RunError(
            "expected matplotlib to draw the report's charts; it is not installed; "
            "install it with `pip install 'symdistill[local]'`"
        ) from error
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none",
                "svg.hashsalt": _SALT,
                "text.parse_math": False,
                "font.family": "DejaVu Sans",
                "font.size": 11,
                "text.color": INK,
                "axes.edgecolor": MUTED,
                "axes.labelcolor": MUTED,
                "axes.linewidth": 0.8,
                "axes.unicode_minus": True,
                "xtick.color": MUTED,
                "ytick.color": MUTED,
                "grid.color": RULE,
                "grid.linewidth": 0.8,
                "axes.facecolor": "none",
                "figure.facecolor": "none",
                "savefig.facecolor": "none",
            }
        )
        yield


def inline_svg(figure: Figure, key: str, title: str, description: str) -> Markup:
    """The figure as one `<svg>` element for an HTML page, its texts escaped.

    Args:
        figure: drawn inside `drawing_style()`.
        key: unique among the charts of the page; letters, digits, hyphens.
        title: what a reader who does not see the chart is told first.
        description: the numbers in the chart, in words.
    """
    from markupsafe import Markup

    stream = io.BytesIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(stream, format="svg", metadata=nothing)
    root = ET.fromstring(stream.getvalue())
    _plain_names(root)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("metadata", "style"):
                parent.remove(child)
    _own_ids(root, key)
    size = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib.update(
        {
            "viewBox": size,
            "role": "img",
            "aria-labelledby": f"{key}-title {key}-description",
        }
    )
    for tag, text in (("description", description), ("title", title)):
        element = ET.Element("title" if tag == "title" else "desc", {"id": f"{key}-{tag}"})
        element.text = visible(text)
        root.insert(0, element)
    text = ET.tostring(root, encoding="unicode")
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    return Markup(text)


def _plain_names(root: ET.Element) -> None:
    """Names without name spaces: inside HTML, SVG elements need none."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        if _LINK in element.attrib:
            element.attrib["href"] = element.attrib.pop(_LINK)


def _own_ids(root: ET.Element, key: str) -> None:
    """Ids that something refers to get the chart's key in front; the others go."""
    used = set()
    for element in root.iter():
        used.update(_REFERENCE.findall(" ".join(element.attrib.values())))
        used.add(element.attrib.get("href", "").removeprefix("#"))
    for element in root.iter():
        mine = element.attrib.pop("id", None)
        if mine in used:
            element.attrib["id"] = f"{key}-{mine}"
        for name, value in element.attrib.items():
            if name == "href":
                element.attrib[name] = f"#{key}-{value.removeprefix('#')}"
            elif name != "id":
                plain = " ".join(value.split())
                element.attrib[name] = _REFERENCE.sub(rf"url(#{key}-\1)", plain)
