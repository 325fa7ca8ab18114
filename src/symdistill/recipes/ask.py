"""The simplest distillation: a table of questions -> a teacher -> a table of what it said.

Symbolic knowledge distillation begins with a teacher that is asked and text that is kept (West et
al. 2022, "Symbolic Knowledge Distillation: from General Language Models to Commonsense Models",
https://aclanthology.org/2022.naacl-main.341/). This is that step alone, for any teacher:

    questions -> prompts -> the teacher -> distinct answers, each with the calls that gave it
                                |
                                +-> failures, each with its reason

Leaves the tables items, knowledge (one line per distinct answer to a question), failures and
review (the answers that a person should look at). All is streamed: memory does not grow with the
number of questions or answers.

What it does not do: judge, select or train.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from symdistill.budget import BudgetReached
from symdistill.config import Config, Count, Settings
from symdistill.errors import InputError
from symdistill.estimate import RoleCalls
from symdistill.ledger import PICO
from symdistill.models import sha256_of
from symdistill.recipes._asking import failure
from symdistill.records import (
    Failure,
    Form,
    Item,
    Knowledge,
    Lineage,
    Verdict,
    canonical_json,
    content_hash,
    normalise,
)
from symdistill.run import Run, StoredFolder
from symdistill.selection import Screen, ScreenedLine, ScreenSettings, review_figures
from symdistill.sources.concepts import Rejected
from symdistill.sources.forms import everyday_jsonl
from symdistill.sources.questions import Template, draw, read_questions
from symdistill.tables import iter_records, write_records
from symdistill.teachers import TeacherSettings, ask_teacher, open_backend
from symdistill.teachers.asking import so_far
from symdistill.teachers.base import Answer, Ask, Backend, Decoding, Failed, Prompt

ROLE = "teacher"
EXAMPLES = 50  # answers in the report


class QuestionSettings(Settings):
    """What is asked about, and how."""

    source: str = "everyday"
    """A .jsonl, .csv, .parquet or .txt file (one question per line), or "everyday" (the packaged
    concepts, to try things out)."""

    text_column: str = "text"
    """The column that holds the question."""

    id_column: str | None = None
    """The column that tells rows apart; null: all columns together do."""

    limit: Annotated[Count, Field(ge=1)] | None = None
    """Take this many, drawn by the seed; null takes all."""

    prompt: str = "{text}"
    """What the teacher reads, with columns in braces. A brace that is meant is written twice."""

    system: str | None = None
    """A system message before every prompt (with `api: chat`); null: none."""


class AskConfig(Config):
    """The configuration of the recipe `ask`."""

    recipe: Literal["ask"] = "ask"
    """The recipe that reads this file."""

    questions: QuestionSettings = QuestionSettings()
    teacher: TeacherSettings = TeacherSettings()
    decoding: Decoding = Decoding()

    samples: Annotated[Count, Field(ge=1)] = 1
    """Answers drawn per question."""

    form: Form = "statement"
    """What an answer is: statement, triple, rationale, rule, label, spans or pair."""

    screen: ScreenSettings | None = ScreenSettings()
    """null: no answer is marked for review."""

    @model_validator(mode="after")
    def _refuses_nothing(self) -> AskConfig:
        if self.screen is not None and self.screen.action == "refuse":
            raise ValueError("expected screen.action: mark, as this recipe keeps every answer")
        return self

    @model_validator(mode="after")
    def _has_place_for_the_system_message(self) -> AskConfig:
        if self.questions.system is not None and self.teacher.api == "completions":
            raise ValueError("expected no questions.system with teacher.api: completions")
        return self


def ask(run: Run, config: AskConfig) -> dict[str, Any]:
    """Run the recipe in an open run folder; gives what is written to metrics.json."""
    backend = open_backend(config.teacher, seed=config.seed)  # a wrong name is told at once
    template = Template(config.questions.prompt)
    screen = Screen(config.screen) if config.screen else None
    questions = read_items(run, config, template)
    answers = ask_all(run, config, template, backend, questions)
    review = mark(run, answers, screen)
    tables = run.folder / "tables"
    for table in (
        questions.folder / "items.parquet",
        answers.folder / "knowledge.parquet",
        answers.folder / "failures.parquet",
        review.folder / "review.parquet",
    ):
        publish(table, tables)
    return {
        **figures(run, config, backend, questions, answers),
        "review": review.notes or None,
    }


# -- the stages, in the order in which they run --------------------------------------------------


def read_items(run: Run, config: AskConfig, template: Template) -> StoredFolder:
    """The questions of the source as items; refused rows are counted aloud."""
    wanted = config.questions

    def make(folder: Path) -> Mapping[str, Any]:
        refused: Counter[str] = Counter()
        items = accepted(config, template, refused)
        written = write_records(folder / "items.parquet", Item, items)
        if written > 1 and not template.columns:
            run.progress.say(
                "questions.prompt names no column, so every question is asked the same; write "
                f"{{{wanted.text_column}}} where the question goes"
            )
        for reason, count in refused.most_common():
            run.progress.say(f"{count} rows of {wanted.source} refused: {reason}")
        return {"items": written, "refused": dict(refused.most_common())}

    return run.folder_step(
        "steps/questions",
        make,
        stage="questions",
        source=content_of(wanted.source),
        columns=[wanted.text_column, wanted.id_column, *template.columns],
        limit=wanted.limit,
        seed=None if wanted.limit is None else config.seed,
    )


def ask_all(
    run: Run, config: AskConfig, template: Template, backend: Backend, questions: StoredFolder
) -> StoredFolder:
    """The teacher's answers as knowledge, and what it did not answer."""
    if run.retry_failed:  # they are forgotten: the step is made again, with the others' answers
        shutil.rmtree(run.folder / "steps" / "answers", ignore_errors=True)
    items = questions.folder / "items.parquet"

    def wanted() -> Iterator[Ask]:
        return asks(config, template, iter_records(items, Item))

    def make(folder: Path) -> Mapping[str, Any]:
        outcomes = ask_teacher(
            config.teacher,
            wanted,
            decoding=config.decoding,
            seed=config.seed,
            ledger=run.ledger,
            budget=run.budget,
            role=ROLE,
            progress=run.progress,
            total=config.samples * questions.notes["items"],
            backend=backend,
        )
        try:
            return write_answers(run, config, template, backend, outcomes, folder)
        except (BudgetReached, KeyboardInterrupt):  # what there is can be read
            tables = run.folder / "tables"
            tables.mkdir(exist_ok=True)
            known = so_far(backend, wanted, decoding=config.decoding, ledger=run.ledger)
            write_answers(run, config, template, backend, known, tables)
            publish(items, tables)
            run.progress.say(f"{tables} holds what was answered so far")
            raise

    return run.folder_step(
        "steps/answers",
        make,
        stage="ask",
        questions=questions,
        teacher=backend.identity,
        terms=config.teacher.terms,
        decoding=config.decoding.canonical(),
        samples=config.samples,
        form=config.form,
        prompt=prompt_id_of(config, template),
        text_column=config.questions.text_column,
        seed=config.seed,
    )


def write_answers(
    run: Run,
    config: AskConfig,
    template: Template,
    backend: Backend,
    outcomes: Iterable[Answer | Failed],
    folder: Path,
) -> dict[str, Any]:
    """The tables knowledge and failures of some outcomes, in a folder; gives what they hold."""
    prompt_id = prompt_id_of(config, template)
    counts: Counter[str] = Counter()
    failed: list[Failure] = []

    def lines() -> Iterator[Knowledge]:
        for item_id, said in groupby(outcomes, key=lambda one: one.ask.item_id):
            answers: list[Answer] = []
            for one in said:
                if isinstance(one, Answer):
                    answers.append(one)
                    run.count_tokens(one.tokens)
                else:
                    failed.append(failure(one))
            counts["answers"] += len(answers)
            yield from knowledge(config, backend, prompt_id, item_id, answers)

    written = write_records(folder / "knowledge.parquet", Knowledge, lines())
    write_records(folder / "failures.parquet", Failure, failed)
    kinds = Counter(one.kind for one in failed)
    return {
        "answers": counts["answers"],
        "distinct": written,
        "failed": len(failed),
        "failures": dict(kinds.most_common()),
    }


def mark(run: Run, answers: StoredFolder, screen: Screen | None) -> StoredFolder:
    """The answers that a person should look at, each with the reasons."""

    def make(folder: Path) -> Mapping[str, Any]:
        table = folder / "review.parquet"
        if screen is None:
            write_records(table, Verdict, [])
            return {}
        lines = iter_records(answers.folder / "knowledge.parquet", Knowledge)
        texts: dict[str, str] = {}

        def marked() -> Iterator[Verdict]:
            for line in lines:
                for word in screen.reviews([ScreenedLine(line.id, line.text)]):
                    if len(texts) < EXAMPLES:
                        texts[line.id] = line.text
                    yield word

        write_records(table, Verdict, marked())
        return review_figures(
            iter_records(table, Verdict), screened=answers.notes["distinct"], texts=texts
        )

    return run.folder_step("steps/review", make, stage="screen", answers=answers, screen=screen)


def figures(
    run: Run, config: AskConfig, backend: Backend, questions: StoredFolder, answers: StoredFolder
) -> dict[str, Any]:
    """The run in numbers, with some answers to look at."""
    bill = run.ledger.totals(ROLE)
    stages = run.stages()
    return {
        "rounds": [],  # it has none
        "questions": questions.notes["items"],
        "refused": questions.notes["refused"],
        "samples": config.samples,
        **answers.notes,
        "bill": bill,
        "uncertain": uncertain(run),
        "teacher": {
            "name": backend.name,
            "identity": dict(backend.identity),
            "terms": config.teacher.terms or None,
            "price": backend.price and backend.price.model_dump(),
        },
        "examples": examples(questions.folder, answers.folder),
        "stages": stages,
        "wall_s": sum(stage["wall_s"] for stage in stages),
        "peak_rss_mb": max((stage["peak_rss_mb"] for stage in stages), default=0.0),
    }


def uncertain(run: Run) -> dict[str, Any]:
    """What the bill holds at its upper bound: requests that brought no whole reply."""
    lost = [one for one in run.ledger.accounts() if one.role == ROLE and one.outcome == "lost"]
    spent = run.budget.spent
    return {
        "requests": sum(one.requests for one in lost) + spent.unsettled_requests,
        "cost_usd": sum(one.pico_usd for one in lost) / PICO + spent.unsettled_usd,
    }


def ask_calls(config: AskConfig) -> list[RoleCalls]:
    """What the recipe will ask of whom, for an estimate."""
    template = Template(config.questions.prompt)
    return [
        RoleCalls(
            role=ROLE,
            settings=config.teacher,
            seed=config.seed,
            decoding=config.decoding,
            asks=lambda: asks(config, template, accepted(config, template, Counter())),
        )
    ]


# -- small parts ---------------------------------------------------------------------------------


def prompt_id_of(config: AskConfig, template: Template) -> str:
    """What names the prompt in lineage."""
    return content_hash([template.text, config.questions.system, config.teacher.api])


def accepted(config: AskConfig, template: Template, refused: Counter[str]) -> Iterable[Item]:
    """The items of the source; why rows were refused is counted in `refused`."""
    wanted = config.questions

    def items() -> Iterator[Item]:
        for one in read_questions(
            wanted.source,
            text_column=wanted.text_column,
            id_column=wanted.id_column,
            needs=template.columns,
        ):
            if isinstance(one, Rejected):
                refused[one.reason] += 1
            else:
                yield one

    return items() if wanted.limit is None else draw(items(), wanted.limit, config.seed)


def asks(config: AskConfig, template: Template, items: Iterable[Item]) -> Iterator[Ask]:
    """What the teacher is asked: each item's prompt, as a chat or as a text to go on with."""
    system, column = config.questions.system, config.questions.text_column
    before = [] if system is None else [{"role": "system", "content": system}]
    for item in items:
        text = template.fill(item, column)
        prompt: Prompt = text
        if config.teacher.api == "chat":
            prompt = (*before, {"role": "user", "content": text})
        yield Ask(prompt, item.id, config.samples)


def knowledge(
    config: AskConfig, backend: Backend, prompt_id: str, item_id: str, answers: Iterable[Answer]
) -> Iterator[Knowledge]:
    """The distinct answers to one question, in the order in which they were drawn."""
    teacher = content_hash(backend.identity)
    decoding = canonical_json(config.decoding.canonical())
    terms = {"terms": config.teacher.terms} if config.teacher.terms else {}
    same: dict[str, list[Answer]] = {}
    for one in answers:
        same.setdefault(normalise(one.text), []).append(one)
    for said in same.values():
        yield Knowledge.make(
            config.form,
            said[0].text,
            item_id,
            fields={
                "finish_reason": said[0].finish_reason,
                "samples": [one.sample_index for one in said],
                **terms,
            },
            lineage=tuple(
                Lineage(teacher, one.key, prompt_id, decoding, config.seed, 0) for one in said
            ),
        )


def examples(questions: Path, answers: Path) -> dict[str, list[dict[str, Any]]]:
    """The first answers and failures, each with what was asked."""
    said = list(islice(iter_records(answers / "knowledge.parquet", Knowledge), EXAMPLES))
    failed = list(islice(iter_records(answers / "failures.parquet", Failure), EXAMPLES))
    wanted = {one.item_id for one in said} | {one.item_id for one in failed}
    asked: dict[str, str] = {}
    for item in iter_records(questions / "items.parquet", Item):
        if len(asked) == len(wanted):
            break
        if item.id in wanted:
            asked[item.id] = item.text
    return {
        "kept": [
            {
                "id": line.id,
                "text": line.text,
                "question": asked[line.item_id],
                "finish_reason": line.fields["finish_reason"],
                "samples": line.fields["samples"],
            }
            for line in said
        ],
        "failed": [
            {
                "id": one.id,
                "question": asked[one.item_id],
                "kind": one.kind,
                "reason": one.reason,
                "attempts": one.attempts,
            }
            for one in failed
        ],
    }


def publish(table: Path, folder: Path) -> None:
    """Copy a step's table to where the run's tables are."""
    folder.mkdir(exist_ok=True)
    aside = folder / f"{table.name}.aside"
    shutil.copyfile(table, aside)
    os.replace(aside, folder / table.name)


def content_of(source: str) -> str:
    """What the source held when it was read."""
    if source == "everyday":
        return content_hash(everyday_jsonl())
    path = Path(source).expanduser()
    try:
        return f"{path.suffix} {sha256_of(path)}"
    except OSError as error:
        raise InputError(
            f"expected a readable file of questions at {path}; got: {error.strerror}; check the "
            "path"
        ) from error
