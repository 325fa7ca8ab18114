"""Rows and prompts of every objective: weights, whose answer is learnt, what is read back."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from symdistill.answers import AnswerKind
from symdistill.errors import InputError
from symdistill.records import Item, Knowledge, Lineage, View
from symdistill.students.batches import tokenise
from symdistill.students.reasoning_views import (
    OBJECTIVES,
    Objective,
    ReasoningFormat,
    build_views,
    first_prompt,
    fitting,
    second_prompt,
    student_prompt,
    target,
    to_read,
    usable,
)
from symdistill.verifiers.extraction import extract

pytestmark = pytest.mark.unit

PAGE = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text(encoding="utf-8")
FORMAT = ReasoningFormat()
ALL: tuple[Objective, ...] = get_args(Objective)
CHOICES = ("the oven", "the bowl", "the shelf", "the sink")


def question(kind: AnswerKind, text: str = "Where is the dough?", **rest: Any) -> Item:
    fields = {"answer_kind": kind} | ({"choices": list(CHOICES)} if kind == "choice" else {})
    return Item.make("question", text, fields=fields, **rest)


def trace(item: Item, rationale: str, answer: str | None, reason: str = "") -> Knowledge:
    fields = {"rationale": rationale, "answer": answer, "reason": reason}
    return Knowledge.make("rationale", f"{rationale} {answer}", item.id, fields=fields)


DOUGH = question("choice", gold="B", split="train")
SUM = question("number", "What are 3 and 4 and 5?", gold="12", split="train")
ITEMS = {item.id: item for item in (DOUGH, SUM)}
TRACES = [
    trace(DOUGH, "It was kneaded in a bowl.", "B"),
    trace(SUM, "3 and 4 are 7. 7 and 5 are 12.", "12"),
    trace(DOUGH, "It is baked by now.", "A"),
    trace(SUM, "3 and 4 are 8. 8 and 5 are 13.", "13"),
    trace(DOUGH, "It rises where it was made.", "B"),
    trace(SUM, "Let me think.", None, "no answer"),
    trace(SUM, "It is 12. No, 13.", None, "two answers: 12, 13"),
    trace(SUM, " \n ", "12"),
]


def rows(objective: Objective, **rest: Any) -> list[View]:
    return build_views(ITEMS, TRACES, objective, format=FORMAT, **rest)


def test_a_chain_in_scotds_format() -> None:
    assert student_prompt(DOUGH, FORMAT) == (
        "Q: Where is the dough?\nAnswer Choices:\n(A) the oven\n(B) the bowl\n(C) the shelf\n"
        "(D) the sink\nA:"
    )
    assert student_prompt(SUM, FORMAT) == "Q: What are 3 and 4 and 5?\nA:"
    assert target(" In a bowl.\n", "B", DOUGH, FORMAT) == " In a bowl. So the answer is: (B)"
    assert target("7 and 5.", "12", SUM, FORMAT) == " 7 and 5. So the answer is: 12"


def test_lower_case_letters_stand_in_question_and_answer_alike() -> None:
    lower = ReasoningFormat(letters="lower")
    assert "\n(b) the bowl" in student_prompt(DOUGH, lower)
    assert target("So.", "B", DOUGH, lower).endswith(": (b)")
    kept = question("text", gold="Bob")
    assert target("So.", "Bob", kept, lower).endswith(": Bob")


def test_braces_in_a_question_and_a_rationale_are_text() -> None:
    item = question("text", "What is {answer} in {0}?")
    assert "{answer} in {0}?" in student_prompt(item, FORMAT)
    views = build_views({item.id: item}, [trace(item, "{rationale}", "x")], "mt_ra", format=FORMAT)
    assert views[0].target == " The answer is x. Explanation: {rationale}"


def test_line_breaks_stay_and_blank_lines_go() -> None:
    written = target("One.\n\n  Two.\n \t\n\nThree.\nFour.", "12", SUM, FORMAT)
    assert written == " One.\n  Two.\nThree.\nFour. So the answer is: 12"


@pytest.mark.parametrize("blanks", [" ", "\n", " \n", "\t"])
def test_a_million_blanks_in_a_rationale_are_no_trouble(blanks: str) -> None:
    """Trying every place of a run of blanks anew would take hours."""
    many = blanks * (1_000_000 // len(blanks))
    assert "\n\n" not in target(f"One.{many}Two.", "12", SUM, FORMAT)


@pytest.mark.parametrize(
    "template", ["Q: {question}", "{options}", "Q: {question}{options}{x}", "{"]
)
def test_a_question_template_without_its_places_is_refused(template: str) -> None:
    with pytest.raises(ValidationError, match="expected"):
        ReasoningFormat(question=template)


def test_the_table_has_every_objective() -> None:
    assert set(OBJECTIVES) == set(ALL)
    for objective in ALL:
        assert re.search(rf"^\| `{objective}` \|", PAGE, re.MULTILINE), objective


@pytest.mark.parametrize("objective", ALL)
@given(answer_weight=st.floats(0, 1))
@hypothesis_settings(max_examples=15, deadline=None)
def test_the_weights_of_a_trace_sum_to_one(objective: Objective, answer_weight: float) -> None:
    sums: dict[Any, float] = defaultdict(float)
    for view in rows(objective, answer_weight=answer_weight):
        sums[view.group, view.knowledge_ids] += view.weight
        assert view.group in ITEMS and view.target.startswith(" ")
    assert sums and all(math.isclose(one, 1) for one in sums.values())


def test_all_traces_with_an_answer_make_rows_and_the_others_are_counted() -> None:
    kept, reasons = usable(TRACES)
    assert kept == TRACES[:5]
    assert reasons == {"no answer": 1, "two answers": 1, "no rationale": 1}
    assert [view.knowledge_ids for view in rows("scotd")] == [(one.id,) for one in kept]
    assert rows("std_cot") == rows("scotd")
    assert [v.knowledge_ids for v in rows("cascod")] == [(k.id,) for k in kept for _ in "12"]


def test_one_chain_is_the_first_that_can_be_used() -> None:
    late = [TRACES[5], *TRACES[1:], TRACES[0]]
    chosen = build_views(ITEMS, late, "one_chain", format=FORMAT)
    assert [view.knowledge_ids for view in chosen] == [(TRACES[1].id,), (TRACES[2].id,)]


@pytest.mark.parametrize("objective", [one for one in ALL if one != "answer_only"])
def test_the_answer_learnt_is_the_traces_own_never_the_gold(objective: Objective) -> None:
    wrong = [TRACES[2]]  # says A; the gold is B
    for view in build_views(ITEMS, wrong, objective, format=FORMAT):
        assert "(B)" not in view.target
        assert "(A)" in view.target or view.target == " It is baked by now."


def test_answers_alone_are_the_gold_or_what_most_traces_say() -> None:
    assert [(v.group, v.target, v.knowledge_ids) for v in rows("answer_only")] == [
        (DOUGH.id, " (B)", ()),
        (SUM.id, " 12", ()),
    ]
    by_teacher = rows("answer_only", labels="teacher")
    assert [v.target for v in by_teacher] == [" (B)", " 12"]
    assert by_teacher[0].knowledge_ids == (TRACES[0].id, TRACES[4].id)
    tied = [TRACES[3], TRACES[1]]
    (one,) = build_views(ITEMS, tied, "answer_only", labels="teacher", format=FORMAT)
    assert one.target == " 13" and one.knowledge_ids == (TRACES[3].id,)
    none = build_views(ITEMS, TRACES[5:7], "answer_only", labels="teacher", format=FORMAT)
    assert none == []


def test_the_teachers_label_is_what_it_said_most_often() -> None:
    """Eight samples that came as one line are eight; spellings of one answer are one."""
    occasions = tuple(Lineage("t", f"call {i}", "p", "{}", i, 0) for i in range(8))
    eight = replace(trace(SUM, "4.", "4"), lineage=occasions)
    lines = [trace(SUM, "It is 5.", "5"), trace(SUM, "So 5.", "5"), eight]
    (row,) = build_views(ITEMS, lines, "answer_only", labels="teacher", format=FORMAT)
    assert (row.target, row.knowledge_ids) == (" 4", (eight.id,))

    name = question("text", "Who bakes?", split="train")
    said = [trace(name, f"{i}.", one) for i, one in enumerate(["Bob", "Ada", "ADA", "Bob.", "ada"])]
    (row,) = build_views({name.id: name}, said, "answer_only", labels="teacher", format=FORMAT)
    assert row.target == " Ada"
    assert row.knowledge_ids == (said[1].id, said[2].id, said[4].id)


def test_what_cannot_be_trained_on_is_refused() -> None:
    with pytest.raises(InputError, match="not among them"):
        build_views({SUM.id: SUM}, TRACES, "scotd", format=FORMAT)
    held_out = question("number", "What are 1 and 1?", gold="2", split="test")
    with pytest.raises(InputError, match="split 'test'"):
        build_views({held_out.id: held_out}, [], "answer_only", format=FORMAT)
    with pytest.raises(InputError, match="split 'test'"):
        build_views({held_out.id: held_out}, [trace(held_out, "r", "2")], "scotd", format=FORMAT)
    open_ended = question("number", "What are x and x?")
    with pytest.raises(InputError, match="1 of 1 have none"):
        build_views({open_ended.id: open_ended}, [], "answer_only", format=FORMAT)
    with pytest.raises(InputError, match="0 to 1"):
        rows("cascod", answer_weight=1.5)


@pytest.mark.parametrize("objective", ALL)
def test_a_student_is_asked_what_it_was_trained_on(objective: Objective) -> None:
    prompts = {view.prompt: view.target for view in rows(objective)}
    asked = first_prompt(objective, DOUGH, FORMAT)
    assert asked in prompts
    written = TRACES[0].fields["rationale"]
    then = second_prompt(objective, DOUGH, f" {written}\n\n", FORMAT)
    assert (then is not None) == (objective == "cascod")
    assert then is None or (then in prompts and then.startswith(asked))


# -- the round trip: what a student learns to write, the extractor reads ---------------------------

ANSWERS: dict[AnswerKind, st.SearchStrategy[str]] = {
    "number": st.one_of(
        st.integers(-(10**9), 10**9).map(str),
        st.decimals("-1e4", "1e4", places=3).map(lambda d: format(d.normalize(), "f")),
    ).filter(lambda text: text != "-0"),
    "choice": st.sampled_from("ABCD"),
    "yes_no": st.sampled_from(["yes", "no"]),
    "true_false": st.sampled_from(["true", "false"]),
    "valid_invalid": st.sampled_from(["valid", "invalid"]),
    "text": st.text("abcdefgz", min_size=1, max_size=8),
}
PIECES = st.sampled_from([
    "The answer is 5.", "So the answer is (C)", "#### 7", r"\boxed{3}", "ANSWER: yes", "\n", "\n\n",
    "(A) is wrong.", "the shelf", "yes", "no", "not valid", "true or false", "12.5", "-3", "1,234",
    "$4", "{rationale}", "Therefore", "\nQ: And then?\nA: 9", "\nQuestion: how many?", "B.", "%",
    "in 3/4 of the cases", "“dough”", "Step 2:", "\t", "é", "\u2028",
])  # fmt: skip
KINDS: tuple[AnswerKind, ...] = get_args(AnswerKind)


def choices_for(kind: AnswerKind) -> tuple[str, ...]:
    return CHOICES if kind == "choice" else ()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("letters", ["upper", "lower"])
@given(data=st.data())
@hypothesis_settings(max_examples=25, deadline=None)
def test_a_trace_that_was_read_is_read_again(kind: AnswerKind, letters: Any, data: Any) -> None:
    item, format = question(kind), ReasoningFormat(letters=letters)
    said = " ".join(data.draw(st.lists(PIECES, max_size=6)))
    said += f" So the answer is {data.draw(ANSWERS[kind])}."
    read = extract(said, kind, choices_for(kind))
    if read.value is None:  # such a trace makes no row
        return
    rationale = read.rationale.strip() or "So."
    for objective in ALL:
        views = build_views(
            {item.id: item}, [trace(item, rationale, read.value)], objective,
            labels="teacher", format=format,
        )  # fmt: skip
        assert all("\n\n" not in view.target for view in views)
        written = to_read(objective, views[-1].target)
        again = extract(written, kind, choices_for(kind))
        assert (again.value, again.anchored) == (read.value, True), written


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@hypothesis_settings(max_examples=25, deadline=None)
def test_every_answer_behind_a_plain_rationale_is_read(kind: AnswerKind, data: Any) -> None:
    answer = data.draw(ANSWERS[kind])
    plain = st.text(st.characters(exclude_characters="\\#", exclude_categories=["Cs"]), max_size=60)
    rationale = data.draw(plain.filter(lambda text: not re.search(r"(?i)answer|q|:", text)))
    item = question(kind)
    read = extract(target(rationale, answer, item, FORMAT), kind, choices_for(kind))
    assert (read.value, read.anchored) == (answer, True)
    direct = extract(to_read("answer_only", target("", answer, item, FORMAT).split(":")[-1]), kind,
                     choices_for(kind))  # fmt: skip
    assert (direct.value, direct.anchored) == (answer, True)


# -- rows that are too long ------------------------------------------------------------------------


class Words:
    """A tokenizer: one token a word, and a beginning of text where special tokens are wanted."""

    eos_token_id = 1

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [0] * add_special_tokens + [2] * len(text.split())}


@pytest.mark.parametrize("objective", ALL)
def test_a_trace_that_does_not_fit_is_left_out_as_a_whole_and_told(objective: Objective) -> None:
    long = trace(SUM, "and " * 20_000, "12")
    made = build_views(ITEMS, [*TRACES, long], objective, labels="teacher", format=FORMAT)
    kept, left_out = fitting(made, Words(), 200)
    tokenise(kept, Words(), 200)
    if objective in ("one_chain", "answer_only"):  # the long one is not among them
        assert kept == made and left_out == []
        return
    assert kept == [view for view in made if view.knowledge_ids != (long.id,)]
    (one,) = left_out
    assert (one.group, one.knowledge_ids) == (SUM.id, (long.id,))
    assert re.fullmatch(r"200\d\d tokens, at most 200", one.reason)


def test_a_row_fits_where_training_takes_it() -> None:
    made = rows("scotd")[:1]
    (row,) = tokenise(made, Words(), 1000)
    length = len(row.input_ids)
    assert fitting(made, Words(), length) == (made, [])
    assert fitting(made, Words(), length - 1)[0] == []
    with pytest.raises(InputError, match="tokens"):
        tokenise(made, Words(), length - 1)


# -- the page --------------------------------------------------------------------------------------


def test_the_rows_on_the_page_are_the_rows_made(capsys: pytest.CaptureFixture[str]) -> None:
    code, shown = (
        re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) for language in ("python", "text")
    )
    assert code and shown
    exec(code[1], {})
    assert capsys.readouterr().out == shown[1]
    assert all(shown[1].count(f"\n{one} ") + shown[1].startswith(one) for one in ALL)


def test_links_on_the_page_are_there() -> None:
    here = Path(__file__).parents[2] / "docs"
    for link in re.findall(r"\]\(([^)#\s]+)", PAGE):
        assert link.startswith("https://") or (here / link).is_file(), link
