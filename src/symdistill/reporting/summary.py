"""What the command line prints at the end of a run.

Takes metrics.json; gives something rich can print. Text that a model wrote enters as plain
text, never as rich's markup, and has its control characters made visible, so that a line can
neither colour nor drive the terminal. The numbers are those of the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from symdistill.reporting import words
from symdistill.reporting.fields import Row, interval, number, part, rows
from symdistill.visible import visible

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

MAX_EXAMPLES = 10
MAX_CHARACTERS = 200  # of one example; the report shows it whole


def console_summary(
    metrics: Row, *, report: Path | str | None = None, next_commands: Sequence[str] = ()
) -> Group:
    """The end of a run: rounds, examples, where the report is, what to try next.

    Args:
        metrics: the content of metrics.json.
        report: where the report was written; not mentioned if None.
        next_commands: commands to try, as they would be typed.

    Raises:
        InputError: a value of the metrics has a type that it cannot have.
    """
    from rich.console import Group
    from rich.text import Text

    name = str(metrics.get("name") or "the run")
    finished = metrics.get("finished") is True
    said = words.precision_words(metrics, " in the report")
    parts: list[Table | Text] = [
        _line(("Run ", ""), (name, "bold"), (": finished" if finished else ": NOT FINISHED", "")),
        _rounds(rows(metrics, "rounds")),
        _line((f"{said[0].upper()}{said[1:]}", "bold")),
    ]
    for warning, sentence in words.drift_sentences(metrics):
        parts.append(_line((sentence, "yellow" if warning else "")))
    if review := words.review_sentence(metrics):
        parts.append(_line((review, "yellow")))
    examples = part(metrics, "examples")
    for which in ("kept", "rejected"):
        parts += _examples(which, rows(examples, which))
    if report is not None:
        parts += [Text(), _line(("Report: ", "bold"), (str(report), ""))]
    if next_commands:
        parts += [Text(), _line(("Next, try:", "bold"))]
        for command in next_commands:  # on one line each, to be copied
            parts.append(Text(f"  {command}", no_wrap=True, overflow="ignore"))
    return Group(*parts)


def _rounds(done: Sequence[Row]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.add_column("")
    for row in done:
        table.add_column(Text(words.round_name(row)), overflow="fold")

    def ranged(key: str, ends: str) -> list[str]:
        return [words.with_interval(number(row, key), interval(row, ends)) for row in done]

    independent = "accept_rate_independent"
    lines = {
        "statements written": [words.count(number(row, "written")) for row in done],
        "statements kept": [words.count(number(row, "kept")) for row in done],
        "estimated precision": ranged("precision_estimate", "precision_interval"),
        "accepted by the critic": ranged("accept_rate", "accept_rate_interval"),
        "accepted by the judge": ranged(independent, f"{independent}_interval"),
        "specificity (nats)": [words.amount(number(row, "specificity")) for row in done],
    }
    for label, cells in lines.items():
        table.add_row(Text(label), *(Text(cell) for cell in cells))
    return table


def _examples(which: str, found: Sequence[Row]) -> list[Table | Text]:
    from rich.table import Table
    from rich.text import Text

    parts: list[Table | Text] = [Text(), _line((f"Some lines {which}:", "bold"))]
    if not found:
        return [*parts, _line(("  none recorded", "dim"))]
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column()
    for one in found[:MAX_EXAMPLES]:
        text = visible(str(one.get("text", "")))
        if len(text) > MAX_CHARACTERS:
            text = text[: MAX_CHARACTERS - 1] + "…"
        said = [(text, "")]
        if one.get("reason"):
            said.append((f"  ({one['reason']})", "dim"))
        table.add_row(_line((f"  {one.get('id', '')}", "dim")), _line(*said))
    return [*parts, table]


def _line(*said: tuple[str, str]) -> Text:
    """Plain text in pieces, each with its style."""
    from rich.text import Text

    return Text.assemble(*((visible(text), style) for text, style in said))
