"""Symbolic Chain-of-Thought Distillation: a small model that reasons in text, from a large one's.

Li et al. 2023, "Symbolic Chain-of-Thought Distillation: Small Models Can Also 'Think'
Step-by-Step" (https://arxiv.org/abs/2306.14050).

The paper's stages, as `scotd` below runs them:

    questions -> N chains of thought each -> answers read and checked -> chains chosen
                                                                              |
         test questions <- students <- one view of the same chains per arm <--+

What the paper says: 30 chains of each question, drawn at temperature 1 from a large model that
reads a few worked examples; with labels, chains with a wrong answer are dropped; the student is
trained by plain language modelling to write a chain and its answer, and answers greedily, or,
trained on unfiltered chains, by the vote of 30. The number of chains matters most; among equally
many, chance is hard to beat. What its code does: an epoch visits each question that has a right
chain and draws one of them (`visits: groups`); prompts of the student hold no examples.

What we chose: any teacher; one extractor of answers for teachers and students, with a version;
ways to filter without labels (majority, agreement of teachers, a model that recovers the answer);
baselines as arms on the same chains; training text that repeats a test question is taken out; the
corpus is described, and the smallest difference that the test can see is told, before training.

What it does not do: tell a right answer for a wrong reason (docs/results.md says how many each
filter lets through), or train on preferences.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from symdistill.answers import kind_of
from symdistill.errors import InputError
from symdistill.estimate import RoleCalls
from symdistill.recipes._asking import asked, failure, told
from symdistill.recipes._scotd_asking import (
    chain,
    check_delimiter,
    check_gold,
    question_text,
    read_questions,
    read_shots,
    source_mark,
    teacher_asks,
)
from symdistill.recipes._scotd_checking import (
    check_answers,
    choose,
    distinct,
    recovery_ask,
    screened,
    second_opinion,
)
from symdistill.recipes._scotd_figures import corpus, figures, what_can_be_seen
from symdistill.recipes._scotd_settings import ScotdConfig
from symdistill.recipes._scotd_students import UNTRAINED, Said, ask_student, train, views_of
from symdistill.records import (
    Failure,
    Item,
    Knowledge,
    Lineage,
    Verdict,
    View,
    canonical_json,
    content_hash,
    merge_repeats,
)
from symdistill.run import Run, Stored, StoredFolder
from symdistill.selection.contamination import Contamination, Overlap
from symdistill.tables import read_records, write_records
from symdistill.teachers import open_backend
from symdistill.teachers.base import Ask, Decoding, Failed
from symdistill.verifiers.extraction import EXTRACTOR_VERSION

TEACHER = "teacher"


def scotd(run: Run, config: ScotdConfig) -> dict[str, Any]:
    """Run the recipe in an open run folder; gives what is written to metrics.json."""
    if run.retry_failed:  # what failed is asked again; the ledger answers the rest
        shutil.rmtree(run.folder / "steps", ignore_errors=True)

    questions = read_items(run, config)
    items = {item.id: item for item in read_records(questions.folder / "items.parquet", Item)}
    test = [item for item in items.values() if item.split == "test"]
    check_delimiter(config.format, next(iter(items.values())))
    check_gold(config, items.values())
    seen = what_can_be_seen(run, config, test)
    written = {name: ask_teachers(run, config, items, questions, name) for name in config.teachers}
    chains = {name: chains_of(folder) for name, folder in written.items()}
    order = [*config.train_on, *(name for name in chains if name not in config.train_on)]
    lines = distinct([line for name in order for line in chains[name]])
    if not lines:
        raise InputError(f"no chain was written ({failures(written)}); change the teacher")

    right = check_answers(run, items, written, lines)
    opinion = second_opinion(run, config, items, written, chains, right)
    review = screened(run, config, lines)
    marked = {one.knowledge_id: one.reason for one in review} if refuses(config) else {}
    chosen = choose(run, config, items, written, chains, right, opinion, marked)
    described = corpus(run, config, items, chains, right)

    said: list[Said] = []
    views: list[View] = []
    students: list[StoredFolder] = []
    if config.student is not None and test:
        kept = learnable(chosen, lines)
        if config.student.untrained:
            said.append(ask_student(run, config, UNTRAINED, 0, None, test))
        arms = product(config.student.training_seeds, config.student.arms.items())
        for number, (seed, (name, arm)) in enumerate(arms):
            rows, left_out = views_of(config, arm, trained_on(items), kept)
            for reason, count in left_out.items():
                run.progress.say(f"{name}: {count} chains left out: {reason}")
            student = train(run, config, number, name, seed, rows)
            students.append(student)
            views += rows if seed == config.student.training_seeds[0] else []
            said.append(ask_student(run, config, name, seed, student.folder, test))
        drop_students(run, len(students))
    else:
        drop_students(run, 0)
        run.progress.say("no students: " + ("there is no test question" if not test else "null"))
    return figures(run, config, questions, items, written, lines, right, opinion, chosen, review,
                   described, seen, views, students, said)  # fmt: skip


# -- the stages, in the order in which they run --------------------------------------------------


def read_items(run: Run, config: ScotdConfig) -> StoredFolder:
    """The questions with their splits, those left out that repeat a test question."""

    def make(folder: Path) -> Mapping[str, Any]:
        refused: Counter[str] = Counter()
        items = read_questions(config, refused)
        test = [(item.id, question_text(item)) for item in items if item.split == "test"]
        removed: dict[str, Overlap] = {}
        contamination = None
        if config.decontaminate.enabled and test:
            clean = Contamination(test, config.decontaminate)
            train = [item for item in items if item.split == "train"]
            held = ((item.id, clean.find(question_text(item))) for item in train)
            removed = {id: one for id, one in held if one is not None}
            items = [item for item in items if item.id not in removed]
            contamination = clean.report(removed, len(train))
        for reason, count in (+refused).items():
            run.progress.say(f"{count} questions refused: {reason}")
        if removed:
            run.progress.say(f"{len(removed)} questions for training repeat a test question")
        splits = Counter(str(item.split) for item in items)
        if not splits["train"]:
            raise InputError(
                f"expected questions to train on in {config.problems.source}; got none "
                f"({told(+refused)}; {len(removed)} repeat a test question); mend the file or "
                "problems.test_share"
            )
        write_records(folder / "items.parquet", Item, items)
        return {"refused": dict(+refused), "splits": dict(splits), "contamination": contamination}

    return run.folder_step(
        "steps/questions",
        make,
        stage="questions",
        problems=config.problems,
        sources=[source_mark(one) for one in (config.problems.source, config.problems.test) if one],
        decontaminate=config.decontaminate,
        seed=config.seed,
    )


def ask_teachers(
    run: Run, config: ScotdConfig, items: Mapping[str, Item], questions: StoredFolder, name: str
) -> StoredFolder:
    """A teacher's chains for the training questions, and what it did not answer."""
    who = config.teachers[name]
    backend = open_backend(who, seed=config.seed)
    settings = config.rationales
    train = list(trained_on(items).values())
    asks = asks_of(config, name, train)

    def make(folder: Path) -> Mapping[str, Any]:
        lines: list[Knowledge] = []
        failed: list[Failure] = []
        role = TEACHER if name == TEACHER else f"{TEACHER} {name}"
        outcomes = asked(run, config, who, asks, settings.decoding, role, backend)
        for one in outcomes:
            if isinstance(one, Failed):
                failed.append(failure(one))
                continue
            occasion = Lineage(
                content_hash(backend.identity), one.key, content_hash(one.ask.prompt),
                canonical_json(settings.decoding.canonical()), config.seed, 0,
            )  # fmt: skip
            lines.append(chain(items[one.ask.item_id], one, name, who.terms, occasion))
        distinct_lines = sorted(merge_repeats(lines), key=lambda line: line.id)
        write_records(folder / "knowledge.parquet", Knowledge, distinct_lines)
        write_records(folder / "failures.parquet", Failure, failed)
        return {
            "asked": sum(one.samples for one in asks),
            "answered": len(lines),
            "failed": len(failed),
            "failures": dict(Counter(one.kind for one in failed).most_common()),
        }

    return run.folder_step(
        f"steps/chains-{content_hash(name)}",
        make,
        stage="ask",
        questions=questions,
        prompts=content_hash([one.prompt for one in asks], 64),
        settings=settings,
        teacher=dict(backend.identity),
        terms=who.terms,
        extractor=EXTRACTOR_VERSION,
        seed=config.seed,
    )


def learnable(chosen: Stored[Verdict], lines: Sequence[Knowledge]) -> list[Knowledge]:
    """The chosen chains, each question's in the order in which they were drawn."""
    kept = {one.knowledge_id for one in chosen.records if one.score == 1.0}
    return sorted(
        (line for line in lines if line.id in kept),
        key=lambda line: (line.item_id, line.fields["sample"], line.id),
    )


def scotd_calls(config: ScotdConfig) -> list[RoleCalls]:
    """What the recipe will ask of teachers, for an estimate.

    Which chains will be right is not known, so what recovers answers is asked at most about all of
    them, each as long as may be.
    """
    items = [one for one in read_questions(config, Counter()) if one.split == "train"]
    samples = config.rationales.decoding
    calls = [
        RoleCalls(
            TEACHER if name == TEACHER else f"{TEACHER} {name}", who, config.seed, samples,
            partial(asks_of, config, name, items),
        )
        for name, who in config.teachers.items()
    ]  # fmt: skip
    if config.filter.keep == "recovered":
        settings = config.filter.recovery
        longest = " word" * samples.max_new_tokens
        decoding = Decoding(temperature=0.0, max_new_tokens=settings.max_new_tokens)

        def asks() -> list[Ask]:
            shots = read_shots(settings.shots, kind_of(items[0])) if items else []
            number = config.rationales.samples * len(config.train_on)
            return [
                Ask(recovery_ask(config, item, longest, shots), item.id, number) for item in items
            ]

        calls.append(RoleCalls("recovery, at most", settings.model, config.seed, decoding, asks))
    return calls


# -- small parts ---------------------------------------------------------------------------------


def asks_of(config: ScotdConfig, name: str, items: Sequence[Item]) -> list[Ask]:
    """What a teacher is asked."""
    shots = read_shots(config.rationales.shots, kind_of(items[0])) if items else []
    shots = shots[: config.rationales.max_shots]
    return list(teacher_asks(config, config.teachers[name], items, shots))


def chains_of(written: StoredFolder) -> list[Knowledge]:
    """What a teacher wrote."""
    return read_records(written.folder / "knowledge.parquet", Knowledge)


def trained_on(items: Mapping[str, Item]) -> dict[str, Item]:
    """The questions for training."""
    return {id: item for id, item in items.items() if item.split == "train"}


def drop_students(run: Run, number: int) -> None:
    """Remove the students of earlier settings, which had more of them."""
    for folder in (run.folder / "students").glob("[0-9]*"):
        if folder.name.isdecimal() and int(folder.name) >= number:
            shutil.rmtree(folder)


def refuses(config: ScotdConfig) -> bool:
    """Whether a chain that the screen marks is refused."""
    return config.screen.action == "refuse"


def failures(written: Mapping[str, StoredFolder]) -> str:
    """Why samples brought nothing, in words."""
    counts: Counter[str] = Counter()
    for folder in written.values():
        counts.update(folder.notes["failures"])
    return told(counts)
