"""Rationales as training rows: what each objective reads and learns, and how its student is asked.

Takes questions, a teacher's rationales and the name of an objective; gives View rows, and the
prompts for the student that was trained on them. Costs nothing but the tokenizer's time in
`fitting`. The objectives differ in the rows of one table, `OBJECTIVES`.

Follows SCoTD (https://arxiv.org/abs/2306.14050), Distilling Step-by-Step
(https://arxiv.org/abs/2305.02301) and CasCoD (https://arxiv.org/abs/2405.19842), and for Std-CoT,
MT-Ra and MT-CoT the baselines of SKIntern (https://arxiv.org/abs/2409.13183). docs/objectives.md
tells what the papers and their code do, and where this differs.

An objective with two rows a trace is meant for `loss_per: row`: each row counts by its mean loss a
token times its weight. By the token, a long rationale would swamp a one-token answer.

What it does not do: judge or choose traces (verifiers and selection do), balance questions that
have many traces against those that have few, cut a row that is too long.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from symdistill.answers import choices_of, key, kind_of, letter, shown
from symdistill.config import Settings
from symdistill.errors import InputError
from symdistill.records import Item, Knowledge, View

Objective = Literal[
    "scotd", "one_chain", "answer_only", "std_cot", "step_by_step", "mt_ra", "mt_cot", "cascod"
]


class ReasoningFormat(Settings):
    """How questions, rationales and answers are written for a student."""

    question: str = "Q: {question}{options}\n"
    """The question; `{options}` is empty where it is open. What is asked for stands behind it."""

    heading: str = "\nAnswer Choices:"
    """What stands before the options; each has a line of its own, "(A) swim"."""

    letters: Literal["upper", "lower"] = "upper"
    """How options are named: (A) or (a). Teacher and student should be shown the same."""

    cue: Annotated[str, Field(min_length=1)] = "A:"
    """What asks for a rationale with its answer, or for an answer where nothing else is learnt."""

    delimiter: Annotated[str, Field(min_length=1)] = " So the answer is: "
    """What stands between a rationale and its answer: words that the answer extractor knows."""

    @field_validator("question")
    @classmethod
    def _both_places(cls, question: str) -> str:
        try:
            filled = question.format(question="\0", options="\1")
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise ValueError("expected no places but {question} and {options}") from error
        if not {"\0", "\1"} <= set(filled):
            raise ValueError("expected the places {question} and {options}")
        return question


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of row: what asks, behind the question, and what is learnt."""

    cue: str
    target: str


CHAIN = " {rationale}{delimiter}{answer}"
RATIONALE = " {rationale}"
ANSWER = " {answer}"

OBJECTIVES: dict[Objective, tuple[Part, ...]] = {
    "scotd": (Part("{cue}", CHAIN),),
    "one_chain": (Part("{cue}", CHAIN),),
    "std_cot": (Part("{cue}", CHAIN),),
    "answer_only": (Part("{cue}", ANSWER),),
    "step_by_step": (Part("Rationale:", RATIONALE), Part("Answer:", ANSWER)),
    "mt_ra": (
        Part("[Explanation Generation]:", " The answer is {answer}. Explanation: {rationale}"),
        Part("[Answer Prediction]:", ANSWER),
    ),
    "mt_cot": (Part("[Explanation Generation]:", CHAIN), Part("[Answer Prediction]:", ANSWER)),
    "cascod": (
        Part("Rationale:", RATIONALE),
        Part("Rationale: {rationale}\nTherefore, the answer is", ANSWER),
    ),
}
"""The rows each trace makes; the last is the one that a student answers by. Where two, the second
has the weight `answer_weight`. `scotd` and `std_cot` are one objective on different corpora: many
samples of a question, or few."""


def student_prompt(item: Item, format: ReasoningFormat) -> str:
    """The question, and what asks for a rationale with its answer."""
    return _question(item, format) + format.cue


def target(rationale: str, answer: str, item: Item, format: ReasoningFormat) -> str:
    """A rationale with its answer, as a student learns to write it; begins with a space.

    Blank lines are taken out of the rationale, so that a blank line may stop a student beside the
    end-of-text token; other line breaks stay.
    """
    return CHAIN.format(**_places(item, format, answer, rationale))


def usable(traces: Iterable[Knowledge]) -> tuple[list[Knowledge], Counter[str]]:
    """The traces that rows can be made of, and how many are not, by reason."""
    kept: list[Knowledge] = []
    reasons: Counter[str] = Counter()
    for trace in traces:
        if trace.fields.get("answer") is None:
            reasons[(trace.fields.get("reason") or "no answer").split(":")[0]] += 1
        elif not _tidy(trace.fields["rationale"]):
            reasons["no rationale"] += 1
        else:
            kept.append(trace)
    return kept, reasons


def build_views(
    items: Mapping[str, Item],
    traces: Sequence[Knowledge],
    objective: Objective,
    *,
    answer_weight: float = 0.3,
    labels: Literal["gold", "teacher"] = "gold",
    format: ReasoningFormat,
) -> list[View]:
    """The training rows of an objective, in the order of the traces (of the items: answer_only).

    The answer in a row is the trace's own, never the gold: where traces were not verified it may
    be wrong, and no label leaks. Rows of one trace share group and knowledge id; their weights
    sum to 1. Traces without an answer or a rationale make no row; `usable` counts them.

    Args:
        items: the questions by id; answer_only makes one row of each, the others of those that
            have a trace.
        traces: the teacher's rationales, each question's in the order they were drawn; one_chain
            takes the first usable one.
        objective: what is learnt.
        answer_weight: the second row's weight, 0..1, where an objective has two.
        labels: what answer_only learns: the gold, or the answer that a teacher gave most often,
            each sampling of a trace counted (the first of those given equally often, as it was
            first spelt; no row where none was given).
        format: how it is written.

    Raises:
        InputError: a trace of an unknown question or of one held out, a question without the gold
            that is asked for, a weight outside 0..1.
    """
    if not 0 <= answer_weight <= 1:
        raise InputError(f"expected an answer_weight of 0 to 1; got {answer_weight}; mend it")
    if objective == "answer_only":
        return _answer_rows(items, traces, labels, format)
    chains, _ = usable(traces)
    if objective == "one_chain":
        first: dict[str, Knowledge] = {}
        for trace in chains:
            first.setdefault(trace.item_id, trace)
        chains = list(first.values())
    parts = OBJECTIVES[objective]
    weights = (1.0,) if len(parts) == 1 else (1 - answer_weight, answer_weight)
    views: list[View] = []
    for trace in chains:
        item = _trained_on(items, trace.item_id)
        answer, rationale = trace.fields["answer"], trace.fields["rationale"]
        for part, weight in zip(parts, weights, strict=True):
            views.append(_row(part, item, format, answer, rationale, weight, (trace.id,)))
    return views


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A trace whose rows take no part in training, and why."""

    group: str
    knowledge_ids: tuple[str, ...]
    reason: str


def fitting(
    views: Sequence[View], tokenizer: Any, max_length_tokens: int
) -> tuple[list[View], list[LeftOut]]:
    """The rows of traces that fit as a whole, and the traces that do not; nothing is cut.

    Args:
        views: the rows.
        tokenizer: the student's `transformers` tokenizer.
        max_length_tokens: the longest row allowed: prompt, target and end of text.
    """
    longest: dict[tuple[str, tuple[str, ...]], int] = defaultdict(int)  # in tokens, by trace
    for view in views:
        prompt = len(tokenizer(view.prompt)["input_ids"])
        learnt = len(tokenizer(view.target, add_special_tokens=False)["input_ids"]) + 1  # the end
        trace = (view.group, view.knowledge_ids)
        longest[trace] = max(longest[trace], prompt + learnt)
    return (
        [v for v in views if longest[v.group, v.knowledge_ids] <= max_length_tokens],
        [
            LeftOut(*trace, reason=f"{tokens} tokens, at most {max_length_tokens}")
            for trace, tokens in longest.items()
            if tokens > max_length_tokens
        ],
    )


def first_prompt(objective: Objective, item: Item, format: ReasoningFormat) -> str:
    """What a student of this objective is asked; in two steps for cascod, rationale first."""
    parts = OBJECTIVES[objective]
    part = parts[0] if "{rationale}" in parts[-1].cue else parts[-1]
    return _question(item, format) + part.cue.format(cue=format.cue)


def second_prompt(
    objective: Objective, item: Item, rationale: str, format: ReasoningFormat
) -> str | None:
    """What is asked behind the rationale that the student wrote; None: one step was all."""
    cue = OBJECTIVES[objective][-1].cue
    if "{rationale}" not in cue:
        return None
    return _question(item, format) + cue.format(rationale=_tidy(rationale))


def to_read(objective: Objective, text: str) -> str:
    """What the answer extractor is given for the student's last text.

    A student that answers directly writes the answer alone; the words that announce an answer are
    put before it, so that it is read as one, and not guessed at.
    """
    direct = OBJECTIVES[objective][-1].target == ANSWER
    return f"The answer is {text.lstrip()}" if direct else text


def _answer_rows(
    items: Mapping[str, Item],
    traces: Sequence[Knowledge],
    labels: Literal["gold", "teacher"],
    format: ReasoningFormat,
) -> list[View]:
    (part,) = OBJECTIVES["answer_only"]
    if labels == "gold":
        unknown = [item.text for item in items.values() if item.gold is None]
        if unknown:
            raise InputError(
                f"expected a gold answer to every question; {len(unknown)} of {len(items)} have "
                f"none ({unknown[0][:60]!r} ...); leave them out or learn the teacher's labels"
            )
        return [
            _row(part, _trained_on(items, item.id), format, str(item.gold), "", 1.0, ())
            for item in items.values()
        ]
    given: dict[str, dict[str, list[Knowledge]]] = {}  # item id -> answer -> traces that give it
    for trace in traces:
        answer = trace.fields.get("answer")
        if answer is not None:
            same = key(kind_of(_trained_on(items, trace.item_id)), answer)
            given.setdefault(trace.item_id, {}).setdefault(same, []).append(trace)
    views: list[View] = []
    for item_id, answers in given.items():
        most = max(answers.values(), key=_times)  # the first of equals
        ids = tuple(trace.id for trace in most)
        answer = most[0].fields["answer"]
        views.append(_row(part, items[item_id], format, answer, "", 1.0, ids))
    return views


def _times(traces: Sequence[Knowledge]) -> int:
    """How often traces were sampled: one that came eight times has eight lineages."""
    return sum(max(1, len(trace.lineage)) for trace in traces)


def _trained_on(items: Mapping[str, Item], item_id: str) -> Item:
    item = items.get(item_id)
    if item is None:
        raise InputError(
            f"expected traces of the questions given; got one of {item_id!r}, which is not among "
            "them; give its question, or leave the trace out"
        )
    if item.split not in (None, "train"):
        raise InputError(
            f"expected questions to train on; {item.text[:60]!r} is of the split {item.split!r}; "
            "leave it and its traces out"
        )
    return item


def _row(
    part: Part,
    item: Item,
    format: ReasoningFormat,
    answer: str,
    rationale: str,
    weight: float,
    knowledge_ids: tuple[str, ...],
) -> View:
    places = _places(item, format, answer, rationale)
    prompt = _question(item, format) + part.cue.format(**places)
    return View(prompt, part.target.format(**places), weight, item.id, knowledge_ids)


def _places(item: Item, format: ReasoningFormat, answer: str, rationale: str) -> dict[str, str]:
    written = shown(item, answer)
    if kind_of(item) == "choice":
        written = _cased(written, format)
    return {
        "cue": format.cue,
        "delimiter": format.delimiter,
        "answer": written,
        "rationale": _tidy(rationale),
    }


def _question(item: Item, format: ReasoningFormat) -> str:
    options = "".join(
        f"\n({_cased(letter(i), format)}) {choice}" for i, choice in enumerate(choices_of(item))
    )
    return format.question.format(
        question=item.text, options=format.heading + options if options else ""
    )


def _cased(letters: str, format: ReasoningFormat) -> str:
    return letters.lower() if format.letters == "lower" else letters


def _tidy(rationale: str) -> str:
    return "\n".join(line for line in rationale.strip().split("\n") if line.strip())
