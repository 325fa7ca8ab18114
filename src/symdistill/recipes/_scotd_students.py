"""The students of `scotd`: trained on views of the same chains, asked the same test questions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from symdistill.answers import choices_of, kind_of
from symdistill.errors import InputError
from symdistill.models import resolve
from symdistill.recipes._asking import asked
from symdistill.recipes._scotd_settings import ArmSettings, ScotdConfig, StudentSettings
from symdistill.records import Item, Knowledge, View, content_hash
from symdistill.run import LINES, Run, StoredFolder
from symdistill.students import SFTSettings, fine_tune
from symdistill.students.reasoning_views import (
    OBJECTIVES,
    Objective,
    build_views,
    first_prompt,
    fitting,
    second_prompt,
    to_read,
    usable,
)
from symdistill.teachers import TeacherSettings, open_backend
from symdistill.teachers.base import Answer, Ask, Decoding
from symdistill.verifiers.checking import check
from symdistill.verifiers.extraction import EXTRACTOR_VERSION, extract
from symdistill.verifiers.voting import vote

STUDENT = "student"
UNTRAINED = "untrained"
STOP = ("\nQ:",)  # a question of its own making ends an answer
SECOND_TOKENS = 32  # of an answer behind a rationale


@dataclass(frozen=True)
class Said:
    """What a student says of every test question, in their order.

    A row holds item_id, text, answer (canonical or None), correct, reason, prompt_tokens and
    tokens; a vote holds item_id, answer, correct, confidence and tied.
    """

    arm: str
    seed: int
    rows: Sequence[Mapping[str, Any]]
    votes: Sequence[Mapping[str, Any]]

    def without(self, ids: Collection[str]) -> Said:
        """The same without some questions."""
        rows, votes = (
            [row for row in some if row["item_id"] not in ids] for some in (self.rows, self.votes)
        )
        return replace(self, rows=rows, votes=votes)


def views_of(
    config: ScotdConfig, arm: ArmSettings, items: Mapping[str, Item], chains: Sequence[Knowledge]
) -> tuple[list[View], dict[str, int]]:
    """The rows of an arm, and how many chains make none, by reason."""
    assert config.student is not None
    from transformers import AutoTokenizer

    views = build_views(
        items, chains, arm.objective, answer_weight=arm.answer_weight, labels=arm.labels,
        format=config.format,
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(str(resolve(config.student.model).folder))
    views, long = fitting(views, tokenizer, config.student.training.max_length_tokens)
    left = Counter() if arm.objective == "answer_only" else usable(chains)[1]
    left["longer than training.max_length_tokens"] += len(long)
    return views, dict(+left)


def training_of(student: StudentSettings, arm: ArmSettings) -> SFTSettings:
    """How an arm is trained: which rows an epoch visits, and what a row weighs."""
    loss_per = "row" if len(OBJECTIVES[arm.objective]) > 1 else student.training.loss_per
    return student.training.model_copy(update={"visits": arm.visits, "loss_per": loss_per})


def train(
    run: Run, config: ScotdConfig, number: int, name: str, seed: int, views: Sequence[View]
) -> StoredFolder:
    """One student, fine-tuned from the untouched model."""
    student = config.student
    assert student is not None
    if not views:
        raise InputError(
            f"expected chains to train the student {name!r} on; got none; loosen `filter`, ask for "
            "more samples, or take a teacher that answers more of the questions"
        )
    settings = training_of(student, student.arms[name])
    base = resolve(student.model)
    rows = [[v.prompt, v.target, v.weight, v.group, v.knowledge_ids] for v in views]
    mark = content_hash([number, rows, base.fingerprint], 64)

    def make(folder: Path) -> Mapping[str, Any]:
        with run.progress.stage(f"train {name}{of_seed(student, seed)}", 0, "steps") as advance:
            trained = fine_tune(
                base.folder, views, out=folder, checkpoints=run.checkpoints(mark),
                settings=settings, seed=seed, base_name=student.model,
                progress=lambda at: advance(1),
            )  # fmt: skip
        run.count_tokens(trained.tokens_trained)
        lines = sorted({id for view in views for id in view.knowledge_ids})
        (folder / LINES).write_text(json.dumps(lines), encoding="utf-8")
        return {
            "arm": name, "seed": seed, "rows": len(views), "steps": trained.steps,
            "tokens_trained": trained.tokens_trained, "loss_first": trained.loss_first,
            "loss_last": trained.loss_last,
        }  # fmt: skip

    stored = run.folder_step(
        "students", make, stage="train", round=number, rows=mark, arm=name, settings=settings,
        seed=seed,
    )  # fmt: skip
    run.drop_checkpoints()
    return stored


def ask_student(
    run: Run, config: ScotdConfig, name: str, seed: int, folder: Path | None, test: Sequence[Item]
) -> Said:
    """A student's greedy answer to every test question, and the vote of several where wanted.

    Without a folder the untouched model is asked, in the way of the first arm.
    """
    settings = config.student
    assert settings is not None
    arm = next(iter(settings.arms.values())) if folder is None else settings.arms[name]
    who = student_settings(settings.model if folder is None else str(folder))
    label = f"ask {name}{of_seed(settings, seed)}"
    decoding = greedy(settings)
    step = f"said-{content_hash([name, seed])}"
    rows = answers(run, config, step, who, arm.objective, test, decoding, 1, label)
    votes: list[dict[str, Any]] = []
    if settings.vote:
        drawn = decoding.model_copy(update={"temperature": settings.vote_temperature})
        n = settings.vote
        label += f", vote of {n}"
        many = answers(run, config, f"{step}-vote", who, arm.objective, test, drawn, n, label)
        votes = [counted(item, many[k * n : (k + 1) * n]) for k, item in enumerate(test)]
    return Said(name, seed, rows, votes)


def answers(
    run: Run,
    config: ScotdConfig,
    step: str,
    who: TeacherSettings,
    objective: Objective,
    test: Sequence[Item],
    decoding: Decoding,
    samples: int,
    label: str,
) -> list[dict[str, Any]]:
    """`samples` answers to each question, one question after another, each checked."""
    backend = open_backend(who, seed=config.seed)
    items = [item for item in test for _ in range(samples)]
    first = [Ask(first_prompt(objective, item, config.format), item.id, samples) for item in test]

    def make() -> Mapping[str, Any]:
        length = token_counter(who)
        steps = [list(asked(run, config, who, first, decoding, STUDENT, backend, label=label))]
        rationales = [one.text if isinstance(one, Answer) else "" for one in steps[0]]
        second = [
            second_prompt(objective, item, text, config.format)
            for item, text in zip(items, rationales, strict=True)
        ]
        if second and second[0] is not None:
            asks = [Ask(text or "", item.id) for text, item in zip(second, items, strict=True)]
            short = decoding.model_copy(
                update={"temperature": 0.0, "max_new_tokens": SECOND_TOKENS}
            )
            told = asked(
                run, config, who, asks, short, STUDENT, backend, label=f"{label}, 2nd step"
            )
            steps.append(list(told))
        rows = []
        for item, *said in zip(items, *steps, strict=True):
            text = "\n".join(one.text if isinstance(one, Answer) else "" for one in said)
            last = said[-1].text if isinstance(said[-1], Answer) else ""
            complete = isinstance(said[-1], Answer) and said[-1].finish_reason != "length"
            rows.append({
                **read(item, to_read(objective, last), complete=complete),
                "item_id": item.id,
                "text": text,
                "prompt_tokens": sum(length(str(one.ask.prompt)) for one in said),
                "tokens": sum(one.tokens if isinstance(one, Answer) else 0 for one in said),
                "failed": "; ".join(one.kind for one in said if not isinstance(one, Answer)),
            })  # fmt: skip
        return {"rows": rows}

    stored = run.values(
        step, make, stage="test", who=dict(backend.identity),
        asks=content_hash([one.prompt for one in first], 64), decoding=decoding, samples=samples,
        objective=objective, format=config.format, extractor=EXTRACTOR_VERSION,
        questions=[[item.id, item.gold, kind_of(item), choices_of(item)] for item in test],
    )  # fmt: skip
    return list(stored["rows"])


def read(item: Item, text: str, *, complete: bool = True) -> dict[str, Any]:
    """The answer in a student's text, and whether it is right."""
    found = extract(text, kind_of(item), choices_of(item), complete=complete)
    said = check(item, found)
    return {
        "answer": found.value, "correct": said.correct, "status": said.status,
        "reason": said.reason,
    }  # fmt: skip


def counted(item: Item, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The most frequent of several answers to a question, and whether it is right."""
    from symdistill.verifiers.extraction import Extracted

    said = vote([row["answer"] for row in rows], kind_of(item))
    reason = "" if said.answer is not None else "no answer"
    right = check(item, Extracted(said.answer, "", True, reason))
    return {
        "item_id": item.id, "answer": said.answer, "correct": right.correct,
        "status": right.status, "confidence": said.confidence, "tied": said.tied,
        "tokens": sum(row["tokens"] for row in rows),
        "prompt_tokens": sum(row["prompt_tokens"] for row in rows),
    }  # fmt: skip


def student_settings(model: str) -> TeacherSettings:
    """A model of this machine as one that is asked."""
    return TeacherSettings(model=f"local:{model}", api="completions")


def greedy(settings: StudentSettings) -> Decoding:
    """How a student answers where nothing is drawn."""
    return Decoding(temperature=0.0, max_new_tokens=settings.max_new_tokens, stop=STOP)


def token_counter(who: TeacherSettings) -> Any:
    """How many tokens a text has for a student."""
    from transformers import AutoTokenizer

    folder = resolve(who.model.removeprefix("local:")).folder
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    return lambda text: len(tokenizer(text)["input_ids"])


def of_seed(settings: StudentSettings, seed: int) -> str:
    """Which of several trainings; nothing where there is one."""
    return f", seed {seed}" if len(settings.training_seeds) > 1 else ""
