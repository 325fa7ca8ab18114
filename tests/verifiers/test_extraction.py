"""The extractor: what is read, and every trap that is known to catch others.

The ids of the traps name a library (lm_eval 0.4.13, inspect_ai 0.3.285, math-verify 0.9.0) and
what it makes of the text.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symdistill.answers import ANSWER_KINDS, PAIRS, AnswerKind, canonical, letter, shown
from symdistill.records import Item
from symdistill.verifiers import extract
from symdistill.verifiers.extraction import MAX_CHARACTERS

pytestmark = pytest.mark.unit

PLACES = ("beach", "port", "ocean", "beach bar")


def value(text: str, kind: AnswerKind, choices: Sequence[str] = (), **rest: bool) -> str | None:
    return extract(text, kind, choices, **rest).value


# -- traps: what libraries get wrong ------------------------------------------------------------

TRAPS: list[tuple[str, str, AnswerKind, Sequence[str], str | None]] = [
    ("math-verify: 50", "18 dollars and 50 cents", "number", (), "18.5"),
    ("math-verify: 50, anchored", "The answer is 18 dollars and 50 cents.", "number", (), "18.5"),
    ("math-verify: no number words", "The answer is twelve.", "number", (), "12"),
    ("math-verify: nothing for (B)", "So the answer is (B).", "choice", PLACES, "B"),
    ("math-verify: A", "A is wrong. So the answer is: (B)", "choice", PLACES, "B"),
    ("lm_eval flexible: '..'", "That makes 5 + 3 = 8 ... ok ..", "number", (), "8"),
    ("lm_eval BBH: '(B'", "So the answer is (B)", "choice", PLACES, "B"),
    ("lm_eval BBH: 'n'", "So the answer is no", "yes_no", (), "no"),
    ("lm_eval BBH: to the line's end", "The answer is no. It sinks, yes.", "yes_no", (), "no"),
    ("lm_eval choices: invalid", "So the answer is (a).", "choice", PLACES, "A"),
    ("lm_eval choices: text", "So it is the port.", "choice", PLACES, "B"),
    ("lm_eval choices: colon", "ANSWER: B", "choice", PLACES, "B"),
    ("lm_eval strict: nothing", "The answer is 7", "number", (), "7"),
    ("inspect: 9", "The answer is 5.\nQuestion: what is 4 + 5? It is 9", "number", (), "5"),
    ("inspect: not 0.75", "The answer is 3/4.", "number", (), "0.75"),
    ("inspect: no boxes", r"Thus $x = \boxed{20}$.", "number", (), "20"),
    ("inspect: refuses %", "The answer is 60%.", "number", (), "60"),
    ("inspect: no brackets", "ANSWER: (B)", "choice", PLACES, "B"),
    ("inspect: no dollars", "ANSWER: $B$", "choice", PLACES, "B"),
    ("NesyCD: splits decimals", "Therefore, the answer is 2.5.", "number", (), "2.5"),
    ("NesyCD: first anchor", "The answer is 4. No: the answer is 6.", "number", (), "6"),
    ("NesyCD: last number of all", "The answer is 6. I used 3 steps.", "number", (), "6"),
    ("'valid' stands in 'invalid'", "So the argument is invalid.", "valid_invalid", (), "invalid"),
    ("SCoTD: last delimiter", "The answer is: (a)\nThe answer is: (b)", "choice", PLACES, "B"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "kind", "choices", "wanted"), [t[1:] for t in TRAPS], ids=[t[0] for t in TRAPS]
)
def test_traps(text: str, kind: AnswerKind, choices: Sequence[str], wanted: str | None) -> None:
    assert value(text, kind, choices) == wanted


# -- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("#### 1,234", "1234"),
        ("The answer is $1,234.", "1234"),
        ("The answer is 42.0", "42"),
        ("The answer is **42**.", "42"),
        ("**Final Answer**: 7", "7"),
        ("The answer is -5 degrees.", "-5"),
        ("The answer is x = 5.", "5"),
        ("The answer is 1/2 cup.", "0.5"),
        ("The answer is 72 apples, because 70 + 2 = 72.", "72"),
        ("The answer is 15 * 4 = 60 apples.", "60"),
        ("The answer is (84 / 2).", "42"),
        ("The answer is ((3 * 12) + (3 * 14)).", "78"),
        ("The answer is 3 million dollars.", "3000000"),
        ("The answer to the question is 8.", "8"),
        (r"So \boxed{\frac{3}{4}}", "0.75"),
        (r"The answer is $\boxed{5}$.", "5"),
        ("The answer is:\n\n\\boxed{5}", "5"),
        (r"So it is $\boxed{2\sqrt{3}}$.", r"2\sqrt{3}"),
        ("<answer>12</answer>", "12"),
        ("Answer:\n- 12 apples", "12"),
        ("The answer is 7, not 5.", "7"),
        ("The answer is 7. The answer is not 5.", "7"),
        ("6 / 3 = 2.\nTherefore, each of the 3 boys gets 2.", "2"),  # what was computed
        ("Therefore, they made $7 a day in the first 30 days.", "7"),
        ("There are 80. If 4 people share, each gets 20 (80 / 4).", "20"),
        ("She needs 19 and has 4, so she must add 15.", "15"),
        ("There were 3 plus 4 equals 7 of them.", "7"),
        ("She has 5. However, the 3 cats do not matter.", "5"),
        ("42.0", "42"),  # a decimal is no label of a list
        ("**42.0**", "42"),
        ("0.25", "0.25"),
        ("7.5", "7.5"),
        ("He pays for all of it.\n12.50", "12.5"),
        ("10.5 dollars are left.", "10.5"),
        ("He pays 5 for it.\n42.", "42"),
        ("1. Tom has 5.\n2. Ann has 6 left.", "6"),
        ("2) Ann has 6 left.", "6"),
        ("1.Ann has 6 left.", "6"),
    ],
)
def test_numbers(text: str, wanted: str) -> None:
    assert value(text, "number") == wanted


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("twelve apples", "12"),
        ("twenty five apples", "25"),
        ("one hundred", "100"),
        ("a hundred", "100"),
        ("Two hundred and five.", "205"),
        ("three million", "3000000"),
        ("twelve hundred", "1200"),
        ("two hundred and fifty thousand", "250000"),
        ("one thousand and one", "1001"),
        ("two and a half", "2.5"),
        ("two and a half million dollars", "2500000"),
        ("2 and a half hours", "2.5"),
        ("-2 and a half degrees", "-2.5"),
        ("3 and a half million", "3500000"),
        ("two thirds", None),  # refused, not read as 2
        ("three-quarters", None),
        ("one half", None),
        ("two and three quarters", None),
        ("two point five", None),
        ("two or three", None),
        ("one thousand, two hundred", None),
        ("nineteen ninety", None),
        ("two hundred of them", None),
    ],
)
def test_number_words(said: str, wanted: str | None) -> None:
    assert value(f"The answer is {said}", "number") == wanted


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("The answer is 5 or 6.", "two answers: 5, 6"),
        ("The answer is 12-15 apples.", "two answers: 12, 15"),
        ("The answer is 3 cats, 4 dogs and 5 cows.", "three answers: 3, 4, 5"),
        (r"So \boxed{3} or \boxed{4}", "two answers: 3, 4"),
        ("The answer is (3 * x).", "not a number: (3 * x)"),
        ("The answer is (some - 3).", "not a number: (some - 3)"),
        ("5 * x = 20. The answer is (5x = 20).", "not a number: (5x = 20)"),
        ("The answer is 3:40.", "not a number: 3:40"),
        ("I do not know.", "no answer"),
        ("", "no answer"),
        ("The answer is clear.", "no answer"),
        ("The answer is that one cannot know.", "no answer"),
    ],
)
def test_what_is_no_answer_says_why(text: str, reason: str) -> None:
    found = extract(text, "number")
    assert (found.value, found.reason) == (None, reason)


# -- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "choices", "wanted"),
    [
        ("So the answer is (b) port.", PLACES, "B"),
        ("The correct choice is **(B) port**", PLACES, "B"),
        ("**Answer:**\nB", PLACES, "B"),
        (r"\boxed{\text{B}}", PLACES, "B"),
        ("The answer is B because A is wrong.", PLACES, "B"),
        ("The answer is (B), not (A).", PLACES, "B"),
        ("The answer is option C.", PLACES, "C"),
        ("The answer is a beach bar.", PLACES, "D"),  # the longer of two that begin alike
        ("The answer is ports.", ("boats", "port tax", "ports"), "C"),
        ("So the answer is oceans.", PLACES, "C"),
        ("The answer is 2.", PLACES, "B"),  # keyed 1-4
        ("The answer is (2).", PLACES, "B"),
        ("The answer is 2.", ("1", "2", "3"), "B"),
        ("The answer is 3.", ("3", "1", "2"), "A"),
        ("At the end she is at the **port (choice B)**.", PLACES, "B"),
        ("(A) beach: incorrect\n(B) port: correct\n\nThe true choice is (B) port.", PLACES, "B"),
        ("So the answer is (c) red.", ("red", "blue", "red"), "C"),  # options of the same text
        ("B", PLACES, "B"),  # a letter that is all there is
        ("b", PLACES, "B"),
        ("B.", PLACES, "B"),
        ("$B$", PLACES, "B"),
        ("**B**", PLACES, "B"),
    ],
)
def test_options(text: str, choices: Sequence[str], wanted: str) -> None:
    assert value(text, "choice", choices) == wanted


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("So the answer is either (a) beach or (b) port.", "two answers: A, B"),
        ("So the answer is (A), (B), or (C).", "three answers: A, B, C"),
        ("So the answer is (a) port.", "two answers: A, B"),
        ("So the answer is beach or ocean.", "two answers: A, C"),
        ("The answer is (G).", "outside the choices: G"),
        ("The answer is (7).", "outside the choices: 7"),
        ("The answer is a bookshop.", "outside the choices: a bookshop"),
        ("The answer is not (A).", "no answer"),
        ("None of the options fits.", "no answer"),
        ("B or A", "no answer"),
        ("G", "no answer"),
        ("She eats vitamin\nB", "no answer"),
        ("That is the answer a child gives for the word(s).", "no answer"),
        ("The day after Port is Lent.", "no answer"),
        ("- (A) beach: incorrect\n- (B) port: incorrect\n- (C) oc", "no answer"),
    ],
)
def test_doubtful_options_are_refused(text: str, reason: str) -> None:
    found = extract(text, "choice", PLACES)
    assert (found.value, found.reason) == (None, reason)


# -- words --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "wanted"),
    [
        ("So the answer is yes.", "yes_no", "yes"),
        ("No, it was not. It was made later.", "yes_no", "no"),
        ("Therefore, yes, a cat can swim.", "yes_no", "yes"),
        ("There is no evidence of that.", "yes_no", None),  # a determiner is no answer
        ("So he would not enjoy it.", "yes_no", None),  # implied only
        ("The answer is no doubt yes.", "yes_no", "yes"),
        ("The answer is no longer clear, but yes.", "yes_no", "yes"),
        ("The answer is no problem for a cat.", "yes_no", None),
        ("The answer is no because it sinks.", "yes_no", "no"),
        ("No it sinks.", "yes_no", "no"),
        ("So the statement is false.", "yes_no", "no"),
        ("It is true that cats swim. But dogs?", "yes_no", None),
        ("The answer is yes or no.", "yes_no", None),
        ("Z = not ( True ) = False. So the answer is False.", "true_false", "false"),
        ("Z = not ( True ) = False.", "true_false", "false"),
        ("The claim is not true.", "true_false", "false"),
        ("The answer is that it is not valid.", "valid_invalid", "invalid"),
        ("The argument is valid.", "valid_invalid", "valid"),
        ("So the answer is ] } ].", "text", "] } ]"),
        ("So the answer is alga boat cat.", "text", "alga boat cat"),
        ('So the letters of "Job Abe" are "be".', "text", "be"),
        ("Put together, we get: yajc", "text", "yajc"),
        ("y + a + j = yaj", "text", "yaj"),
        ('So it is "blue" from the words "Job Dahl".', "text", "blue"),
        ('This gives "abc" and "d".', "text", None),
        ("YAJC", "text", "YAJC"),
        ("This sentence ends without one", "text", None),
    ],
)
def test_words(text: str, kind: AnswerKind, wanted: str | None) -> None:
    assert value(text, kind) == wanted


# -- where the text ends ------------------------------------------------------------------------


def test_an_invented_next_question_is_cut_off() -> None:
    text = "2 + 3 is 5. The answer is 5.\n\nQ: What is 4 + 4?\nA: The answer is 8."
    found = extract(text, "number")
    assert found.value == "5"
    assert found.cut
    assert found.rationale == "2 + 3 is 5."


@pytest.mark.parametrize("mark", ["Q:", "Question:", "Question 2:", "Human:", "### Question:"])
def test_marks_of_a_next_question(mark: str) -> None:
    assert value(f"It is 5.\n{mark} and 9?", "number") == "5"
    first = extract(f"{mark} restated. It is 5.", "number")
    assert not first.cut, "the first line is no next question"
    assert first.value == "5"
    assert not extract("Ask the Q: it is 5.", "number").cut, "only where a line begins"


@pytest.mark.parametrize(
    ("text", "rationale"),
    [
        ("Dogs bark. So the answer is (b).", "Dogs bark."),
        ("Dogs bark. Therefore, the final answer is: (b)", "Dogs bark."),
        ("It barks, which means the correct answer is (b).", "It barks,"),
        ("Dogs bark.\n#### (b)", "Dogs bark."),
        ("Dogs bark. Thus it is $\\boxed{B}$.", "Dogs bark."),
        ("Dogs bark.\n**Answer:** B", "Dogs bark."),
        ("Dogs bark.\u2028\xa0\u3000**The answer is** B", "Dogs bark."),
        ("Dogs bark, as a dog does.", "Dogs bark, as a dog does."),
    ],
)
def test_the_rationale_ends_before_the_statement(text: str, rationale: str) -> None:
    found = extract(text, "choice", ("cat", "dog"))
    assert found.rationale == rationale


def test_a_fallback_says_so() -> None:
    assert extract("The answer is 5.", "number").anchored
    assert not extract("So she has 5.", "number").anchored
    assert value("So she has 5.", "number", anchored_only=True) is None


@pytest.mark.parametrize(
    "text",
    ["So she has 5", "The answer is 12", "The answer is ((317 - 48", "The answer is ((317 - ",
     "So the answer is", "So \\boxed{12"],
)  # fmt: skip
def test_a_text_that_was_stopped_has_no_answer(text: str) -> None:
    found = extract(text, "number", complete=False)
    assert (found.value, found.reason) == (None, "cut off")


def test_a_statement_that_ended_counts_though_the_text_was_stopped() -> None:
    assert value("The answer is 12. And", "number", complete=False) == "12"
    assert value("The answer is (b) port, as", "choice", PLACES, complete=False) is None
    assert value("The answer is 12.\nQ: And", "number", complete=False) == "12"


def test_20_000_tokens_are_read_and_too_much_is_refused() -> None:
    long = "The cat sat on 3 mats. " * 4_000
    found = extract(f"{long}The answer is 7.", "number")
    assert found.value == "7"
    assert found.rationale == long.rstrip()
    assert extract("x" * (MAX_CHARACTERS + 1), "number").reason == "too long"


@pytest.mark.parametrize("unit", ["the answer is ", "\\boxed{", "(", "1", " ", "so ", '"', "\n"])
def test_time_is_linear(unit: str) -> None:
    def seconds(characters: int) -> float:
        start = time.perf_counter()
        for kind in ANSWER_KINDS:
            extract(unit * (characters // len(unit)), kind, PLACES)
        return time.perf_counter() - start

    seconds(1_000)
    assert seconds(80_000) < 100 * max(seconds(8_000), 0.005)  # a square would be far above


# -- properties ---------------------------------------------------------------------------------

WORDS = st.lists(
    st.text("abcdefgh", min_size=2, max_size=6) | st.sampled_from("<>()[]{}"), min_size=1
)
ANSWERS = {
    "number": st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str)
    | st.integers(-(10**9), 10**9).map(str),
    "choice": st.sampled_from("ABCD"),
    "text": WORDS.map(" ".join),
    **{kind: st.sampled_from(words) for kind, words in PAIRS.items()},
}


@pytest.mark.parametrize("kind", ANSWER_KINDS)
@given(data=st.data())
@settings(max_examples=60)
def test_what_is_stated_is_read(kind: AnswerKind, data: st.DataObject) -> None:
    answer = canonical(kind, data.draw(ANSWERS[kind]), PLACES)
    assert answer is not None
    item = Item.make("question", "?", fields={"answer_kind": kind, "choices": list(PLACES)})
    lead = data.draw(st.sampled_from(["So the answer is ", "#### ", "ANSWER: ", "\\boxed{"]))
    end = "}" if lead.endswith("{") else data.draw(st.sampled_from(["", ".", "\nQ: next"]))
    if kind == "text" and lead.endswith("{"):
        return  # braces may be the answer
    found = extract(f"Because of 3 cats.\n{lead}{shown(item, answer)}{end}", kind, PLACES)
    assert (found.value, found.anchored, found.rationale) == (answer, True, "Because of 3 cats.")


PIECES = st.sampled_from(
    ["####", "\\boxed{", "}", "(", ")", "the answer is ", "\n", "\nQ:", "(A)", " or ", "12", "-",
     "$", "1,234", "3/4", "²", "\\frac{1}{2}", "=", "**", "yes", "not ", '"', "é", "\x00", "\u2028"]
)  # fmt: skip


@given(
    st.lists(PIECES | st.text(max_size=4), max_size=25).map("".join),
    st.sampled_from(ANSWER_KINDS),
    st.lists(st.sampled_from(["swim", "run", "3", "B", "", "(A)", "swim"]), max_size=5),
    st.booleans(),
)
@settings(max_examples=300)
def test_any_text_gives_an_answer_or_a_reason(
    text: str, kind: AnswerKind, choices: list[str], complete: bool
) -> None:
    found = extract(text, kind, choices, complete=complete)
    assert (found.value is None) == bool(found.reason)
    assert text.startswith(found.rationale)
    if found.value is not None and kind == "choice":
        assert found.value in [letter(i) for i in range(len(choices))]
    elif found.value is not None:
        assert canonical(kind, found.value) == found.value
