"""`symdistill answer`: put a question to the student of a run and see it reason."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from symdistill.errors import InputError
from symdistill.visible import visible

if TYPE_CHECKING:
    from symdistill.recipes._scotd_settings import ScotdConfig
    from symdistill.records import Item
    from symdistill.teachers.base import Reply

out = Console(markup=False, highlight=False, emoji=False)


def answer(
    run: Annotated[Path, typer.Argument(help="The folder of a run of scotd.")],
    question: Annotated[str, typer.Argument(help="The question, without its options.")],
    choice: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="An option; give each of them.")
    ] = None,
    arm: Annotated[
        str | None, typer.Option(help="Which student. Default: the run's first.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of its training. Default: the first.")] = None,
    vote: Annotated[
        int, typer.Option(min=0, help="Draw so many answers and take the most frequent.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask a student of a run; prints its chain of thought and the answer that it comes to."""
    from symdistill.machine import prepare_torch

    config, name, folder, item = _of_run(run, question, choice or [], arm, seed)
    prepare_torch("asking a student", 0)
    found = _ask(config, name, folder, item, vote)
    if as_json:
        out.print_json(json.dumps(found, ensure_ascii=False))
        return
    for line in found["text"].strip().splitlines():
        out.print(visible(line), soft_wrap=True)
    if vote:
        told = ", ".join(f"{visible(one)} {count}x" for one, count in found["votes"].items())
        out.print(f"\nVotes of {vote}: {told or 'none came to an answer'}", soft_wrap=True)
    said = found["answer"]
    why = f"none ({found['reason']})" if said is None else visible(said)
    out.print(f"\nAnswer: {why}", soft_wrap=True)


def _of_run(
    run: Path, question: str, choices: Sequence[str], arm: str | None, seed: int | None
) -> tuple[ScotdConfig, str, Path, Item]:
    """The run's configuration, a student of it, and the question as an item.

    Raises:
        InputError: no such run, no such student, or a question that it cannot read.
    """
    from symdistill.recipes._scotd_runs import read_run
    from symdistill.records import Item
    from symdistill.sources.problems import wrong_options
    from symdistill.tables import iter_records

    found = read_run(run)
    name = found.arm(arm)
    folder = found.student(name, seed)
    kinds = {
        item.fields["answer_kind"] for item in iter_records(run / "tables" / "items.parquet", Item)
    }
    kind = "choice" if choices else next((one for one in sorted(kinds) if one != "choice"), None)
    if kind is None or len(choices) == 1:
        raise InputError(
            "expected the options of the question, as its students know no other; got "
            f"{len(choices)}; give --choice TEXT for each"
        )
    if choices and (why := wrong_options(choices)):
        raise InputError(f"expected options that an answer can be told by; the question {why}")
    if not question.strip():
        raise InputError("expected a question; got none; write it in quotes")
    fields = {"answer_kind": kind, **({"choices": list(choices)} if choices else {})}
    return found.config, name, folder, Item.make("question", question.strip(), fields=fields)


def _ask(config: ScotdConfig, name: str, folder: Path, item: Item, votes: int) -> dict[str, Any]:
    """What the student says, and the answer that it comes to."""
    from symdistill.answers import kind_of
    from symdistill.recipes._scotd_students import SECOND_TOKENS, greedy, read
    from symdistill.students.reasoning_views import first_prompt, second_prompt, to_read
    from symdistill.teachers.local_backend import LocalBackend
    from symdistill.verifiers.voting import vote

    settings = config.student
    assert settings is not None
    objective = settings.arms[name].objective
    backend = LocalBackend(str(folder), seed=config.seed, batch_size=max(1, votes))
    decoding = greedy(settings)
    short = decoding.model_copy(update={"max_new_tokens": SECOND_TOKENS})
    if votes:
        decoding = decoding.model_copy(update={"temperature": settings.vote_temperature})

    async def work() -> list[list[Reply]]:
        """For every sample the replies of its one or two steps."""
        await backend.start()
        try:
            prompt = first_prompt(objective, item, config.format)
            said = (await backend.send(prompt, votes or 1, decoding)).replies
            seconds = [second_prompt(objective, item, one.text, config.format) for one in said]
            if seconds[0] is None:
                return [[one] for one in said]
            sent = (backend.send(text or "", 1, short) for text in seconds)
            last = await asyncio.gather(*sent)
            return [[one, *more.replies] for one, more in zip(said, last, strict=True)]
        finally:
            await backend.close()

    steps = asyncio.run(work())
    found = [
        read(item, to_read(objective, last.text), complete=last.finish_reason != "length")
        for *_, last in steps
    ]
    said = vote([one["answer"] for one in found], kind_of(item))
    shown = next((k for k, one in enumerate(found) if one["answer"] == said.answer), 0)
    return {
        "answer": said.answer,
        "reason": "" if said.answer is not None else found[shown]["reason"],
        "text": "\n".join(one.text for one in steps[shown]),
        "votes": dict(said.counts),
        "confidence": said.confidence,
    }
