"""What `label` and `audit` share: who labels, the page or the terminal, and answers from a file."""

from __future__ import annotations

import getpass
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from symdistill.errors import InputError
from symdistill.visible import visible

if TYPE_CHECKING:
    from symdistill.labelling.store import Draw, Given, LabelStore
    from symdistill.pool import Pool

out = Console(markup=False, highlight=False, emoji=False)


def login() -> str:
    """The name of an annotator who gave none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no login name, as in some containers
        return "annotator"


def is_open(store: LabelStore, draw: Draw, annotator: str | None = None) -> bool:
    """Whether something is left to answer, for this annotator or for anyone."""
    done, total = store.progress(draw.id, annotator)
    return done < total


def refuse_overwriting(path: Path) -> None:
    """Refuse to export over a source, over answers, or over any other file.

    Raises:
        InputError: the file is there.
    """
    if path.expanduser().exists():
        raise InputError(
            f"expected a new file for --export; {path} is there already; take its labels with "
            "--import, or name another"
        )


def check_source(pool: Pool) -> None:
    """Say which rows are no lines; refuse a file that was renamed without its labels.

    Raises:
        InputError: it has none, but those of a file that is gone are of the same lines.
    """
    from symdistill.labelling.store import LabelStore
    from symdistill.pool import refused_words

    if words := refused_words(pool):
        out.print(visible(words) + ".", soft_wrap=True)
    if pool.home.exists():
        return
    for home in sorted(pool.home.parent.glob("*.symdistill")):
        if home.with_suffix("").exists():
            continue
        with LabelStore(home, read_only=True) as store:
            drawn = store.drawn_ids()
        if not drawn.isdisjoint(one.id for one in pool.lines):
            raise InputError(
                f"expected the labels of {pool.source} beside it; got none, but {home} has some of "
                f"the same lines and its file is gone; if the file was renamed: "
                f"{shlex.join(['mv', str(home), str(pool.home)])}; to begin anew: "
                f"{shlex.join(['mkdir', str(pool.home)])}"
            )


def take(store: LabelStore, draw: Draw, answers: Sequence[Given]) -> None:
    """Keep the answers of a file that are not there yet, and say how many and whose."""
    there = {(one.line_id, one.annotator, one.again): one.answer for one in store.given(draw.id)}
    new = [
        one
        for one in answers
        if there.get((one.line_id, store.known_as(one.annotator), one.again)) != one.answer
    ]
    store.take(new)
    names = ", ".join(dict.fromkeys(store.known_as(one.annotator) for one in answers))
    known = f"; {len(answers) - len(new):,} were there already" if len(new) < len(answers) else ""
    out.print(f"Took {len(new):,} answers into {draw.id}, under the name of {names}{known}.",
              soft_wrap=True)  # fmt: skip


def tell_instructions(store: LabelStore, draw: Draw, instructions: str | None = None) -> None:
    """Show what whoever fills in an exported file has to be told, and keep it with the draw."""
    from symdistill.labelling.instructions import packaged_instructions, question_of

    told = packaged_instructions(draw) if instructions is None else instructions
    store.keep_instructions(draw.id, told)
    out.print("Whoever labels has to be told (it is kept with the draw):\n", soft_wrap=True)
    if draw.purpose == "compare":
        out.print(question_of(draw), soft_wrap=True)
    for line in told.splitlines():
        out.print(visible(line), soft_wrap=True)


def ask_people(
    store: LabelStore,
    draw: Draw,
    annotator: str | None,
    *,
    instructions: str | None = None,
    terminal: bool,
    port: int,
    then: Sequence[str],
    on_ctrl_c: str,
) -> None:
    """Ask for answers in the terminal or on a page, until Ctrl-C.

    Args:
        store, draw: what is answered, and where answers go.
        annotator: None: the page asks; in the terminal, the login.
        instructions: None: the packaged ones.
        terminal: there instead of on a page.
        port: of the page; 0: a free one.
        then: the command that comes next, shown when all is answered.
        on_ctrl_c: what Ctrl-C does, in words.

    Raises:
        InputError: the port is taken, or the page's packages are not installed.
        RunError: another page is open on these labels.
    """
    from symdistill.labelling.instructions import packaged_instructions
    from symdistill.labelling.store import serving

    told = packaged_instructions(draw) if instructions is None else instructions
    store.keep_instructions(draw.id, told)
    if terminal:
        from symdistill.labelling.terminal import label_in_terminal

        label_in_terminal(store, draw.id, annotator or login(), instructions=told)
        return
    from symdistill.labelling.page import serve

    with serving(store.path.parent):
        serve(
            store,
            [draw.id],
            annotator=annotator,
            instructions=told,
            next_command=shlex.join(then),
            port=port,
            on_ready=lambda url: out.print(
                f"Open {url}\nAnswers are kept at once. Ctrl-C {on_ctrl_c}.", soft_wrap=True
            ),
        )
