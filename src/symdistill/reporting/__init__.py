"""What a run came to, for people: one HTML page, and a summary for the terminal.

report.py      the page: RUN/metrics.json -> RUN/report.html (the template is report.html.j2)
page_charts.py which charts it shows
page_tables.py which tables it shows
plots.py       how a chart is drawn
inline_svg.py  a matplotlib figure as SVG that lives inside a page
summary.py     what the command line prints at the end of a run
fields.py      reading metrics.json: what is missing is None, never 0
words.py       numbers as words, and text that cannot harm where it is shown

Page and summary read the numbers in metrics.json and nothing that needs a model.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from symdistill.reporting.report import read_metrics, write_report
    from symdistill.reporting.summary import console_summary

__all__ = ["console_summary", "read_metrics", "write_report"]

_HOME = {"console_summary": "summary", "read_metrics": "report", "write_report": "report"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
