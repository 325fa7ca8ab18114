"""What a training corpus of rationales is like, before anything is trained on it.

Texts that are all verified as right can still train students that differ by many points ("Not All
Correct Answers Are Equal", arXiv 2505.14464); length and perplexity are what sets them apart. So
for each teacher this tells, besides the pass rate, how long, how likely, how repetitive and how
often the same its texts are, and how many right answers a guesser would have had. Teachers that
answered the same questions are set side by side on these alone.

Takes samples with their verdicts; gives plain values for metrics.json and the rows of a table.
Costs about 3 s for a million words.

What our figures mean; the paper removes frequent n-grams of 20 tokens, we only count:
    repeats itself      a run of 20 words occurs twice, or a sentence of 4 words or more three times
    said before         the text, normalised, is an earlier one of this teacher to this question
    said elsewhere      ... or stands under another question, too

What it does not do: judge, remove, or cut scripts into words that set no spaces between them.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from symdistill.evaluation.accuracy import accuracy
from symdistill.evaluation.metrics import paired_difference
from symdistill.records import normalise

QUANTILES = (5, 25, 50, 75, 95)  # per cent
RUN_WORDS = 20
SENTENCE_WORDS = 4
SENTENCE_TIMES = 3
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True, slots=True)
class Sample:
    """One text of a teacher on a question, and what became of it."""

    teacher: str
    item_id: str
    text: str
    correct: bool | None  # None: unknown, for want of a gold answer or of a verdict
    reason: str = ""  # why no answer was found in it; empty: one was
    tokens: int | None = None
    perplexity: float | None = None  # under the reference model
    chance: float = 0.0  # of a guess on this question; 0 for an open one


def corpus_report(samples: Iterable[Sample]) -> dict[str, Any]:
    """All figures, by teacher and side by side, as plain values.

    Raises:
        ValueError: there are no samples, or a chance is outside 0 <= chance < 1.
    """
    by_teacher: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if not 0 <= sample.chance < 1:
            raise ValueError(
                f"expected a chance of at least 0 and below 1; got {sample.chance} on question "
                f"{sample.item_id}; leave out questions with a single option"
            )
        by_teacher[sample.teacher].append(sample)
    if not by_teacher:
        raise ValueError("expected at least one sample; got none")
    return {
        "teachers": {name: _figures(own) for name, own in by_teacher.items()},
        "side_by_side": _side_by_side(by_teacher),
    }


def corpus_table(report: Mapping[str, Any]) -> list[list[str]]:
    """The report as rows of cells: a heading, then one measure a row and one teacher a column."""
    teachers: Mapping[str, Mapping[str, Any]] = report["teachers"]
    rows = [["", *teachers]]
    for label, path in _ROWS:
        cells = [_cell(figures, path) for figures in teachers.values()]
        if any(cell != "-" for cell in cells):
            rows.append([label, *cells])
    reasons = Counter[str]()
    for figures in teachers.values():
        reasons.update(figures["no_answer"])
    for reason, _ in reasons.most_common():
        counts = [str(figures["no_answer"].get(reason, 0)) for figures in teachers.values()]
        rows.append([f"no answer: {reason}", *counts])
    together = report["side_by_side"]
    if together and together["questions"]:
        shares = together["pass_rate"]
        label = f"pass rate on the {together['questions']:,} questions of all"
        rows.append([label, *(_cell(shares, (name,)) for name in teachers)])
        against = {one["teacher"]: one for one in together["differences"]}
        rows.append(
            [f"... less that of {next(iter(teachers))}"]
            + [_cell(against, (name,)) if name in against else "-" for name in teachers]
        )
    return rows


def repeats_itself(text: str) -> bool:
    """Whether a text goes round in circles; what that means stands at the top of this module."""
    words = text.casefold().split()
    runs = [tuple(words[i : i + RUN_WORDS]) for i in range(len(words) - RUN_WORDS + 1)]
    if len(set(runs)) < len(runs):
        return True
    sentences = Counter(
        normalise(sentence)
        for sentence in _SENTENCE_END.split(text)
        if len(sentence.split()) >= SENTENCE_WORDS
    )
    return max(sentences.values(), default=0) >= SENTENCE_TIMES


def right_by_luck(samples: Iterable[Sample]) -> dict[str, float | int | None]:
    """How many right answers on questions with options guessing may account for.

    `guesser_right` is what a guesser would have had of the same answers. `lucky` estimates how many
    of the right answers were guesses from the wrong ones: if each wrong answer of k options was a
    guess, even over the options, then for every k - 1 of them one guess was right. Teachers also
    err for reasons, and then fewer were lucky.
    """
    answered = [s for s in samples if s.chance and s.correct is not None and not s.reason]
    right = sum(bool(s.correct) for s in answered)
    lucky = math.fsum(s.chance / (1 - s.chance) for s in answered if not s.correct)
    return {
        "answers": len(answered),
        "right": right,
        "guesser_right": math.fsum(s.chance for s in answered),
        "lucky": min(lucky, float(right)),
        "lucky_share_of_right": min(lucky / right, 1.0) if right else None,
    }


def _figures(samples: Sequence[Sample]) -> dict[str, Any]:
    judged = [s for s in samples if s.correct is not None]
    passed: dict[str, bool] = defaultdict(bool)
    for s in judged:
        passed[s.item_id] |= bool(s.correct)
    said: Counter[tuple[str, str]] = Counter((normalise(s.text), s.item_id) for s in samples)
    places = Counter(text for text, _ in said)
    elsewhere = sum(times for (text, _), times in said.items() if places[text] > 1)
    questions = len({s.item_id for s in samples})
    return {
        "questions": questions,
        "samples": len(samples),
        "samples_per_question": len(samples) / questions,
        "parsed_share": sum(not s.reason for s in samples) / len(samples),
        "judged": len(judged),
        "pass_rate": _share([bool(s.correct) for s in judged], [s.item_id for s in judged]),
        "pass_at_any": _share(list(passed.values())),
        "tokens": _quantiles([s.tokens for s in samples]),
        "perplexity": _quantiles([s.perplexity for s in samples]),
        "repetition_share": sum(repeats_itself(s.text) for s in samples) / len(samples),
        "said_before_share": (len(samples) - len(said)) / len(samples),
        "said_elsewhere_share": elsewhere / len(samples),
        "luck": right_by_luck(samples),
        # "two answers: A, B" and "two answers: C, D" are one reason
        "no_answer": dict(Counter(s.reason.split(":")[0] for s in samples if s.reason)),
    }


def _share(correct: list[bool], groups: list[str] | None = None) -> dict[str, Any] | None:
    return asdict(accuracy(correct, groups)) if correct else None


def _quantiles(values: Iterable[float | None]) -> dict[str, float] | None:
    known = [float(v) for v in values if v is not None and math.isfinite(v)]
    if not known:
        return None
    at = np.percentile(known, QUANTILES).tolist()
    return {
        "measured": len(known),
        **{f"p{q}": value for q, value in zip(QUANTILES, at, strict=True)},
        "max": max(known),
        "mean": math.fsum(known) / len(known),
    }


def _side_by_side(by_teacher: Mapping[str, Sequence[Sample]]) -> dict[str, Any] | None:
    """Pass rates on the questions that every teacher was judged on; a question counts once."""
    if len(by_teacher) < 2:
        return None
    rates: dict[str, dict[str, float]] = {}
    for name, samples in by_teacher.items():
        verdicts: dict[str, list[bool]] = defaultdict(list)
        for s in samples:
            if s.correct is not None:
                verdicts[s.item_id].append(s.correct)
        rates[name] = {item: sum(found) / len(found) for item, found in verdicts.items()}
    first, *others = rates
    common = [item for item in rates[first] if all(item in rates[name] for name in others)]
    if not common:
        return {"questions": 0, "pass_rate": {}, "differences": []}
    on_common = {name: [own[item] for item in common] for name, own in rates.items()}
    return {
        "questions": len(common),
        "pass_rate": {name: math.fsum(own) / len(common) for name, own in on_common.items()},
        "differences": [
            {"teacher": name, "against": first}
            | asdict(paired_difference(on_common[name], on_common[first], common, common))
            for name in others
        ],
    }


_ROWS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("questions", ("questions",)),
    ("samples", ("samples",)),
    ("answer found", ("parsed_share",)),
    ("pass rate", ("pass_rate",)),
    ("questions with a right sample", ("pass_at_any",)),
    ("right by guessing, expected", ("luck", "guesser_right")),
    ("right by luck, estimated", ("luck", "lucky_share_of_right")),
    *((f"tokens, {q} %", ("tokens", f"p{q}")) for q in QUANTILES),
    ("tokens, longest", ("tokens", "max")),
    *((f"perplexity, {q} %", ("perplexity", f"p{q}")) for q in QUANTILES),
    ("perplexity, highest", ("perplexity", "max")),
    ("repeats itself", ("repetition_share",)),
    ("said before on the question", ("said_before_share",)),
    ("said on other questions, too", ("said_elsewhere_share",)),
)


def _cell(figures: Mapping[str, Any], path: Sequence[str]) -> str:
    value: Any = figures
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(value, Mapping):
        middle = value.get("share", value.get("estimate"))
        return f"{middle:.3f} ({value['low']:.3f} to {value['high']:.3f})"
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.0f}"
