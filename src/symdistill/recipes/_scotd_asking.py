"""How `scotd` asks: questions in, worked examples before them, chains of thought out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from symdistill.answers import canonical, choices_of, kind_of, letter
from symdistill.datafiles import read_rows
from symdistill.errors import InputError
from symdistill.models import sha256_of
from symdistill.recipes._asking import existing, likelihood
from symdistill.recipes._scotd_settings import ScotdConfig
from symdistill.records import Item, Knowledge, Lineage
from symdistill.sources.concepts import Rejected
from symdistill.sources.problems import PACKAGED, ProblemColumns, hold_out, read_problems
from symdistill.sources.questions import draw
from symdistill.students.reasoning_views import ReasoningFormat, student_prompt, target
from symdistill.teachers import TeacherSettings
from symdistill.teachers.base import Answer, Ask, Prompt
from symdistill.verifiers.extraction import extract

Shot = tuple[Item, str]
"""A worked example: the question with its answer, and the chain that leads there."""


def read_questions(config: ScotdConfig, refused: Counter[str]) -> list[Item]:
    """All questions, each with its split: train, dev (left alone) or test.

    Why rows were refused is counted in `refused`.
    """
    wanted = config.problems
    items = _accepted(wanted.source, wanted.columns, refused)
    if wanted.test is not None:
        test = _accepted(wanted.test, wanted.columns, refused)
    elif any(item.split == "test" for item in items):
        test = [item for item in items if item.split == "test"]
    else:
        loose = {item.id for item in items if item.split is None}
        items = hold_out(items, wanted.test_share, config.seed)
        test = [item for item in items if item.split == "dev" and item.id in loose]
    for_test = {item.id for item in test}
    refused["a test question without a right answer"] += sum(item.gold is None for item in test)
    test = [item for item in test if item.gold is not None]
    train = [item for item in items if item.id not in for_test and item.split in (None, "train")]
    if wanted.test is not None:
        refused["a test question, too"] += sum(item.id in for_test for item in items)
    left = [item for item in items if item.id not in for_test and item.split not in (None, "train")]
    if wanted.limit is not None:
        train = draw(train, wanted.limit, config.seed)
    if wanted.test_limit is not None:
        test = draw(test, wanted.test_limit, config.seed)
    return [
        *(replace(item, split="train") for item in train),
        *(replace(item, split="dev") for item in left),
        *(replace(item, split="test") for item in test),
    ]


def read_shots(source: str | None, kind: str) -> list[Shot]:
    """The worked examples of a file, or the packaged ones.

    Raises:
        InputError: a row lacks something, or its answer is none of the kind that is asked for.
    """
    if source is None:
        return []
    if source == "arithmetic":
        path = Path(str(files("symdistill") / "data" / "problems" / "exemplars.jsonl"))
    else:
        path = existing(source)
    shots = []
    needed = ["question", "rationale", "answer"]
    for number, row in read_rows(path, needed, what="worked examples"):
        lacking = (
            [row] if isinstance(row, str) else [one for one in needed if row.get(one) in (None, "")]
        )
        if isinstance(row, str) or lacking:
            raise InputError(
                f"expected question, rationale and answer in each worked example; row {number} of "
                f"{path} lacks {', '.join(lacking)}; mend it"
            )
        choices = row.get("choices") or []
        of_kind: Any = "choice" if choices else kind
        answer = canonical(of_kind, str(row["answer"]), choices)
        if answer is None:
            raise InputError(
                f"expected an answer of kind {of_kind!r} in each worked example; row {number} of "
                f"{path} has {row['answer']!r}; give examples of the questions' kind in "
                "rationales.shots, or null"
            )
        fields = {"answer_kind": of_kind, **({"choices": choices} if choices else {})}
        item = Item.make("question", str(row["question"]), fields=fields, gold=answer)
        shots.append((item, str(row["rationale"])))
    return shots


def check_delimiter(form: ReasoningFormat, item: Item) -> None:
    """Refuse words before an answer by which the extractor does not know it.

    Raises:
        InputError: they announce no answer.
    """
    one = replace(item, fields={"answer_kind": "number"})
    if not extract(target("It follows.", "5", one, form), "number").anchored:
        raise InputError(
            "expected words in format.delimiter that announce an answer, such as "
            f"' So the answer is: '; got {form.delimiter!r}; change it"
        )


def check_gold(config: ScotdConfig, items: Iterable[Item]) -> None:
    """Refuse arms that learn gold answers which are not there, before anything is asked.

    Raises:
        InputError: such an arm, and a training question without its gold answer.
    """
    arms = config.student.arms if config.student else {}
    lacking = [item for item in items if item.split == "train" and item.gold is None]
    for name, arm in arms.items():
        if lacking and arm.objective == "answer_only" and arm.labels == "gold":
            raise InputError(
                f"expected a right answer to every question for training, as the arm {name!r} "
                f"learns them; {len(lacking)} have none, such as {lacking[0].text[:60]!r}; set its "
                "labels to teacher, leave it out, or take those questions out"
            )


def teacher_prompt(
    config: ScotdConfig, who: TeacherSettings, item: Item, shots: Sequence[Shot]
) -> Prompt:
    """What a teacher reads: worked examples, then the question."""
    form = config.format
    if who.api == "completions":
        before = [f"{student_prompt(one, form)}{_worked(one, chain, form)}" for one, chain in shots]
        return "\n\n".join([*before, student_prompt(item, form)])
    told = config.rationales.instruction
    turns = [{"role": "system", "content": told}] if told else []
    for one, chain in shots:
        turns.append({"role": "user", "content": student_prompt(one, form)})
        turns.append({"role": "assistant", "content": _worked(one, chain, form).strip()})
    return (*turns, {"role": "user", "content": student_prompt(item, form)})


def teacher_asks(
    config: ScotdConfig, who: TeacherSettings, items: Sequence[Item], shots: Sequence[Shot]
) -> Iterator[Ask]:
    """N samples of each question for training."""
    for item in items:
        prompt = teacher_prompt(config, who, item, shots)
        yield Ask(prompt, item.id, config.rationales.samples)


def chain(item: Item, one: Answer, teacher: str, terms: str | None, occasion: Lineage) -> Knowledge:
    """What a teacher wrote of a question as a line, with the answer that it comes to."""
    found = extract(
        one.text, kind_of(item), choices_of(item),
        complete=one.finish_reason != "length",
    )  # fmt: skip
    told = likelihood(one)
    mean = None if told["logprob"] is None else told["logprob"] / max(1, told["tokens"])
    fields: Mapping[str, Any] = {
        "answer": found.value,
        "rationale": found.rationale,
        "reason": found.reason,
        "sample": one.sample_index,
        "teacher": teacher,
        "finish_reason": one.finish_reason,
        "tokens": one.tokens,
        "logprob_mean": mean,
        **({"terms": terms} if terms else {}),
    }
    return Knowledge.make("rationale", one.text, item.id, fields=fields, lineage=(occasion,))


def source_mark(source: str) -> str:
    """What a source of questions held when it was read."""
    if source in PACKAGED:
        path = Path(str(files("symdistill") / "data" / "problems" / f"{source}.jsonl"))
    else:
        path = existing(source)
    return f"{path.suffix} {sha256_of(path)}"


def question_text(item: Item) -> str:
    """A question with its options: what is compared with other texts."""
    options = (f"({letter(k)}) {one}" for k, one in enumerate(choices_of(item)))
    return "\n".join([item.text, *options])


def _worked(item: Item, chain: str, form: ReasoningFormat) -> str:
    assert item.gold is not None
    return target(chain, item.gold, item, form)


def _accepted(source: str, columns: ProblemColumns, refused: Counter[str]) -> list[Item]:
    items = []
    for one in read_problems(source, columns):
        if isinstance(one, Rejected):
            refused[one.reason.partition(":")[0]] += 1  # which option or gold it was, left off
        else:
            items.append(one)
    return items
