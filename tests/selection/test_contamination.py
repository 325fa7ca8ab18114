"""Test questions in training text: repeats are found, questions of the same template are not."""

from __future__ import annotations

import json
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symdistill.selection.contamination import Contamination, ContaminationSettings, Overlap

pytestmark = pytest.mark.unit

SYLLABLES = ["ka", "lo", "mi", "ter", "ran", "su", "bel", "do", "vin", "esh", "pol", "ara"]
FEW = ["Ada", "Bo", "Cy", "Dot", "Eli"]
THINGS = ["red", "blue", "green", "white", "black", "pink", "brown"]


def name(rng: random.Random) -> str:
    return "".join(rng.choices(SYLLABLES, k=rng.randint(2, 3))).title()


def letters(rng: random.Random) -> str:
    named = " ".join(name(rng) for _ in range(rng.choice([2, 4])))
    return f'Take the last letters of each word in "{named}" and concatenate them.'


def swaps(rng: random.Random) -> str:
    """Boilerplate with a few slots of few values each."""
    people = FEW[: rng.choice([3, 5])]
    things = rng.sample(THINGS, len(people))
    has = ", ".join(f"{one} has the {thing} hat" for one, thing in zip(people, things, strict=True))
    moves = [" and ".join(rng.sample(people, 2)) for _ in people]
    told = " ".join(
        f"{word} {pair} swap hats."
        for word, pair in zip(["First,", "Then,", "After that,", "Later,", "Finally,"], moves)  # noqa: B905
    )
    options = "\n".join(f"({'ABCDE'[i]}) the {thing} hat" for i, thing in enumerate(things))
    return (
        f"{', '.join(people)} stand in a ring, and at the beginning everyone wears a hat: {has}. "
        f"As the evening goes on they trade with each other. {told} When the evening ends, "
        f"{rng.choice(people)} wears\n{options}"
    )


def sums(rng: random.Random) -> str:
    shapes = [
        "{who} picked {a} baskets of pears in the old orchard before noon and {b} more after it. "
        "Every basket goes to the market for {c} coins in the end, whatever the weather may do. "
        "How many coins will {who} bring home from the market when all of the baskets are sold?",
        "A ferry carries {a} cars and {b} bicycles on each of its trips over the lake, and the "
        "captain makes {c} trips on a long day in summer. How many vehicles cross the lake on it?",
    ]
    a, b, c = (rng.randint(2, 99) for _ in range(3))
    return rng.choice(shapes).format(who=name(rng), a=a, b=b, c=c)


def brackets(rng: random.Random) -> str:
    opened = " ".join(rng.choice("([{<") for _ in range(rng.randint(3, 8)))
    return f"Complete the rest of the sequence, so that all of it is closed. Input: {opened}"


def formulas(rng: random.Random) -> str:
    def term() -> str:
        return f"({rng.randint(-9, 9)} {rng.choice('+-*')} {rng.randint(-9, 9)})"

    return f"What is the value of this: {term()} {rng.choice('+-*')} {term()} ="


def prose(rng: random.Random) -> str:
    """No template: words drawn at random, options among them."""
    body = " ".join(name(rng).lower() for _ in range(rng.randint(15, 40)))
    options = "\n".join(f"({letter}) {name(rng)} {name(rng)}" for letter in "ABCD")
    return f"{body.capitalize()}?\n{options}"


MAKERS = {"letters": letters, "swaps": swaps, "sums": sums, "brackets": brackets}
MAKERS |= {"formulas": formulas}
ALL = MAKERS | {"prose": prose}


def distinct(kind: str, n: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    made: dict[str, None] = {}
    while len(made) < n:
        made[ALL[kind](rng)] = None
    return list(made)


def compared(texts: list[str], **rest: object) -> Contamination:
    test = ((str(i), text) for i, text in enumerate(texts))
    return Contamination(test, ContaminationSettings(**rest))  # type: ignore[arg-type]


def reordered(text: str, rng: random.Random) -> str:
    """Options in another order, with another kind of label."""
    stem, *options = text.split("\n")
    texts = [option[4:] for option in options]
    rng.shuffle(texts)
    return "\n".join([stem, *(f"{'abcde'[i]}. {one}" for i, one in enumerate(texts))])


CHANGES = {
    "nothing": lambda text, rng: text,
    "case": lambda text, rng: text.upper(),
    "spacing": lambda text, rng: "  " + text.replace(" ", " \t ").replace("\n", "\n\n"),
    "punctuation": lambda text, rng: text.replace(",", "").replace('"', "“").replace(". ", "! "),
    "options": reordered,
    "quoted": lambda text, rng: f"Let us see.\nQ: {text}\nA: One by one, so the answer is 3.",
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ALL)
def test_repeats_are_found(kind: str, change: str) -> None:
    test = distinct(kind, 200, seed=0)
    contamination = compared(test)
    rng = random.Random(1)
    for i, text in enumerate(test):
        found = contamination.find(CHANGES[change](text, rng))
        assert found is not None, text
        assert (found.test_id, found.how) == (str(i), "same question")
        assert found.similarity == 1.0


@pytest.mark.parametrize("size", [20, 500])
@pytest.mark.parametrize("kind", MAKERS)
def test_other_questions_of_the_same_template_are_not_flagged(kind: str, size: int) -> None:
    """Not even where they differ from a test question in one slot."""
    both = distinct(kind, size + 1000, seed=2)
    contamination = compared(both[:size])
    flagged = [(text, contamination.find(text)) for text in both[size:]]
    # Options aside, a question may be the same: who wears what is asked with other hats' order.
    stems = {text.partition("\n")[0] for text in both[:size]}
    assert not [one for one in flagged if one[1] and one[0].partition("\n")[0] not in stems]


def test_templates_beside_other_questions_are_still_templates() -> None:
    made = {kind: distinct(kind, 150, seed=3) for kind in ALL}
    contamination = compared([text for texts in made.values() for text in texts[:50]])
    for kind, texts in made.items():
        assert not any(contamination.find(text) for text in texts[50:]), kind


TOLD = (
    "When the lighthouse keeper of Morvane retired he left his brass telescope to the village "
    "school, where the children still use it to count seals on the far rocks in spring."
)
ASKED = TOLD + " What do the children count?\n(A) ships\n(B) seals\n(C) stars"
OTHER = "Which metal melts at room temperature?\n(A) iron\n(B) gallium\n(C) gold"


def test_a_long_run_of_shared_words_is_found_and_named() -> None:
    text = (
        "We know that the children still use it to count seals on the far rocks in winter, too; "
        "so the answer is (B)."
    )
    found = compared([ASKED, OTHER]).find(text)
    assert found is not None
    assert (found.test_id, found.how) == ("0", "shared words")
    assert found.shared == "the children still use it to count seals on the far rocks in"
    assert 0 < found.similarity < 1
    assert compared([ASKED, OTHER], words=14).find(text) is None


def test_a_near_repeat_is_found() -> None:
    """Three words changed, such that no 13 in a row are left."""
    changed = ASKED.replace("brass", "old").replace("count", "watch", 1).replace("retired", "left")
    found = compared([ASKED, OTHER], similarity=0.6).find(changed)
    assert found is not None
    assert (found.test_id, found.how) == ("0", "near repeat")
    assert 0.6 <= found.similarity < 1
    assert found.shared.startswith("When the lighthouse keeper")


def test_a_question_of_eight_words_is_found_in_a_text() -> None:
    asked = "Could a heron outrun a tortoise on wet sand?"
    rationale = "It is asked: could a heron outrun a tortoise, on wet sand. Herons are quick."
    found = compared([asked, OTHER]).find(rationale)
    assert found is not None and found.how == "same question"


def test_a_short_question_is_found_as_a_sentence_of_its_own() -> None:
    test = ["What is 2 + 2?", "Can a heron swim?", "It rains. Who gets wet?", "Why?"]
    contamination = compared([*test, OTHER])
    for text, place in [
        ("What is 2 + 2? The answer is 4.", "0"),
        ("Q: what is 2+2\nA: 4", "0"),
        ("Let us see: can a HERON swim? It can.", "1"),
        ('They asked "Can a heron swim?" and it could.', "1"),
        ("A riddle. It rains! Who gets wet? All do.", "2"),
        ("Why?", "3"),
    ]:
        found = contamination.find(text)
        assert found is not None, text
        assert (found.test_id, found.how, found.similarity) == (place, "same question", 1.0)
    for text in [
        "What is 2 + 2 + 2? The answer is 6.",
        "What is 2 + 3? The answer is 5.",
        "We know what is 2 + 2. Is it so?",
        "Can a heron swim far? It can.",
        "It rains. Who then gets wet?",
        "Why? Because it rains.",  # one little word is no question of its own
    ]:
        assert contamination.find(text) is None, text


def test_a_short_question_with_options_is_found_with_its_options() -> None:
    contamination = compared(["Which one is true?\n(A) Fish fly.\n(B) Fish swim.", OTHER])
    assert contamination.find("Which one is true? The second, as we shall see.") is None
    other = "Q: Which one is true?\n(A) Cows fly.\n(B) Cows swim.\nA: So (B)."
    assert contamination.find(other) is None
    found = contamination.find("Q: Which one is true?\n(a) Fish swim.\n(b) Fish fly.\nA: So (a).")
    assert found is not None and (found.test_id, found.how) == ("0", "same question")


def test_a_longer_list_is_another_question() -> None:
    lists = [
        "Sort these words by the alphabet, please: List: " + tail
        for tail in ("pear plum", "fig lime", "kiwi date", "nut oat")
    ]
    contamination = compared(lists)
    assert contamination.find(lists[0] + " apple") is None
    assert contamination.find(lists[0] + "\nWe sort them.") is not None


def test_other_numbers_make_another_question_unless_told() -> None:
    asked = (
        "Ilka stacks 1,200 bricks in 8 rows behind the bakery and paints every brick that lies at "
        "the end of a row. How many bricks does she paint behind the bakery?"
    )
    other = asked.replace("1,200", "900")
    assert compared([asked]).find(other) is None
    assert compared([asked]).find(asked.replace("1,200", "1200")) is not None
    found = compared([asked], other_numbers=True).find(other)
    assert found is not None and found.how == "same question"


def test_operators_and_brackets_are_words() -> None:
    contamination = compared(["What is 7 - 3?", "Close this: [ { ("])
    assert contamination.find("What is 7 + 3?") is None
    assert contamination.find("Close this: [ ( {") is None
    assert contamination.find("what is 7 − 3") is not None


def test_options_tell_questions_with_the_same_words_apart() -> None:
    stem = "Which of these four things would a careful gardener do first in a dry spring?"
    test = [
        f"{stem}\n(A) {a}\n(B) {b}" for a, b in [("dig", "rest"), ("mow", "sow"), ("hoe", "cut")]
    ]
    contamination = compared(test)
    assert contamination.find(f"{stem}\n(A) sing\n(B) sleep") is None
    found = contamination.find(f"Q: {stem}\nChoices:\n(a) sow\n(b) mow\nA: It sows, so (a).")
    assert found is not None and found.test_id == "1"
    # Alone in the test set, the question is the same with other options.
    assert compared(test[:1]).find(f"{stem}\n(A) sing\n(B) sleep") is not None


def test_other_scripts() -> None:
    contamination = compared(["Wie heißt die Hauptstadt?", "日本の首都はどこですか。"])
    assert contamination.find("WIE HEISST DIE HAUPTSTADT") is not None
    assert contamination.find("日本の首都はどこですか") is not None
    assert contamination.find("日本の首都") is None
    assert contamination.find("日本の首都はどこですか。東京です。") is not None
    assert contamination.find("問題:「日本の首都はどこですか」と聞かれた。") is not None
    assert contamination.find("昔の日本の首都はどこですか。京都です。") is None


@given(st.lists(st.text(max_size=60), max_size=6), st.text(max_size=80))
@settings(max_examples=100)
def test_any_text_can_be_compared(test: list[str], text: str) -> None:
    contamination = compared(test)
    found = contamination.find(text)
    assert found is None or 0 <= found.similarity <= 1
    for one in test:
        held = contamination.find(one)
        assert held is None or held.how == "same question"
        assert held is not None or not any(letter.isalnum() for letter in one)


def test_switched_off_or_without_questions_nothing_is_found() -> None:
    assert compared([ASKED], enabled=False).find(ASKED) is None
    assert compared([]).find(ASKED) is None
    assert compared(["", "?!"]).find("") is None


def test_the_report_counts_and_shows() -> None:
    contamination = compared([ASKED, OTHER, ASKED.upper()])
    texts = {"a": ASKED, "b": OTHER, "c": ASKED.lower(), "d": "Nothing of the kind."}
    found = {id: overlap for id, text in texts.items() if (overlap := contamination.find(text))}
    report = contamination.report(found, texts=len(texts), examples=1)
    assert json.loads(json.dumps(report)) == report
    assert report["texts"] == 4
    assert report["test_questions"] == 2  # one of the three is a repeat
    assert report["removed"] == {"same question": 3, "near repeat": 0, "shared words": 0}
    assert report["test_questions_held"] == 2
    assert report["found_as_a_whole_only"] == 1  # the other question has seven words
    assert [one["id"] for one in report["examples"]] == ["a"]
    assert report["settings"]["words"] == 13
    none = contamination.report({}, texts=0)
    assert none["examples"] == [] and sum(none["removed"].values()) == 0
    assert isinstance(found["a"], Overlap)


STEM = "Which of these two words would a sailor say first in the morning?"


@pytest.mark.parametrize(
    "shape",
    ['Take the last letters of each word in "{}" and join them.', STEM + "\n(A) {}\n(B) no"],
)
def test_the_cost_does_not_grow_with_templates(shape: str) -> None:
    """2,000 test questions of one template; the bound is ten times what it takes or more."""
    rng = random.Random(4)
    made = [shape.format(" ".join(name(rng) for _ in range(4))) for _ in range(2500)]
    contamination = compared(made[:2000])
    start = time.perf_counter()
    for text in made[2000:]:
        assert contamination.find(f"Q: {text}\nA: Let us think about it, as we did before.") is None
    assert time.perf_counter() - start < 3
