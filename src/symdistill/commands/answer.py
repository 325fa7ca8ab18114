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
    from symdistill.teachers.base import Decoding

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
    if not question.strip():
        raise InputError("expected a question; got none; write it in quotes")
    fields = {"answer_kind": kind, **({"choices": list(choices)} if choices else {})}
    return found.config, name, folder, Item.make("question", question.strip(), fields=fields)


def _ask(config: ScotdConfig, name: str, folder: Path, item: Item, votes: int) -> dict[str, Any]:
    from symdistill.recipes._scotd_students import SECOND_TOKENS, greedy
    from symdistill.students.reasoning_views import first_prompt, second_prompt, to_read
    from symdistill.teachers.local_backend import LocalBackend

    settings = config.student
    assert settings is not None
    objective = settings.arms[name].objective
    backend = LocalBackend(str(folder), seed=config.seed)

    async def all_of(prompts: Sequence[str], samples: int, decoding: Decoding) -> list[Any]:
        sent = (backend.send(prompt, samples, decoding) for prompt in prompts)
        return [one for some in await asyncio.gather(*sent) for one in some.replies]

    async def work() -> tuple[list[str], list[str]]:
        await backend.start()
        try:
            decoding = greedy(settings)
            drawn = decoding.model_copy(update={"temperature": settings.vote_temperature})
            prompt = first_prompt(objective, item, config.format)
            said = await all_of([prompt], votes or 1, drawn if votes else decoding)
            texts = [one.text for one in said]
            second = [second_prompt(objective, item, text, config.format) for text in texts]
            if second[0] is None:
                return texts, texts
            short = decoding.model_copy(update={"max_new_tokens": SECOND_TOKENS})
            last = await all_of([one or "" for one in second], 1, short)
            return texts, [one.text for one in last]
        finally:
            await backend.close()

    texts, last = asyncio.run(work())
    return _told(item, texts, [to_read(objective, text) for text in last])


def _told(item: Item, texts: Sequence[str], last: Sequence[str]) -> dict[str, Any]:
    from symdistill.answers import kind_of
    from symdistill.recipes._scotd_students import read
    from symdistill.verifiers.voting import vote

    found = [read(item, text) for text in last]
    said = vote([one["answer"] for one in found], kind_of(item))
    shown = next((k for k, one in enumerate(found) if one["answer"] == said.answer), 0)
    return {
        "answer": said.answer,
        "reason": "" if said.answer is not None else found[shown]["reason"],
        "text": texts[shown] if texts[shown] == last[shown] else f"{texts[shown]}\n{last[shown]}",
        "votes": dict(said.counts),
        "confidence": said.confidence,
    }
