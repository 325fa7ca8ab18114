"""`symdistill export`: a run's test questions as a task of another evaluation tool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from symdistill.errors import InputError

TOOLS = ("lm-eval", "inspect")
out = Console(markup=False, highlight=False, emoji=False)


def export(
    run: Annotated[Path, typer.Argument(help="The folder of a run of scotd.")],
    folder: Annotated[Path, typer.Argument(help="The folder to write; it must not exist.")],
    tool: Annotated[
        str,
        typer.Option("--for", metavar="TOOL", help="lm-eval (lm-evaluation-harness) or inspect."),
    ] = "lm-eval",
    arm: Annotated[
        str | None, typer.Option(help="Whose prompts. Default: the run's first student's.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the task. Default: the run's name.")] = None,
) -> None:
    """Write the test questions of a run as a task, so that another tool can score its students."""
    from symdistill.evaluation.export import export_inspect, export_lm_eval, task_name
    from symdistill.recipes._scotd_runs import read_run
    from symdistill.recipes._scotd_students import STOP
    from symdistill.records import Item
    from symdistill.students.reasoning_views import first_prompt, second_prompt, to_read
    from symdistill.tables import iter_records

    if tool not in TOOLS:
        raise InputError(f"expected --for {' or '.join(TOOLS)}; got {tool!r}; name one of them")
    found = read_run(run)
    student = found.config.student
    assert student is not None
    which = found.arm(arm)
    objective = student.arms[which].objective
    items = [
        item
        for item in iter_records(run / "tables" / "items.parquet", Item)
        if item.split == "test"
    ]
    form = found.config.format
    if not items:
        raise InputError(f"expected a run with test questions at {run}; it has none")
    if second_prompt(objective, items[0], "It is.", form) is not None:
        raise InputError(
            f"expected a student that answers in one step; {which!r} ({objective}) takes two, "
            "which these tools do not ask in; name another with --arm"
        )
    called = name or task_name(found.config.name or run.name)
    direct = bool(to_read(objective, ""))  # the answer stands alone

    def prompt(item: Item) -> str:
        return first_prompt(objective, item, form)

    if tool == "inspect":
        export_inspect(items, folder, called, prompt=prompt, stop=STOP,
                       max_tokens=student.max_new_tokens, direct=direct)  # fmt: skip
    else:
        export_lm_eval(items, folder, called, prompt=prompt, stop=STOP, delimiter=form.delimiter,
                       max_tokens=student.max_new_tokens, direct=direct)  # fmt: skip
    out.print(f"Wrote {folder}: {len(items)} questions; its README.md says how to run it.",
              soft_wrap=True)  # fmt: skip
