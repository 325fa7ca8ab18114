"""A world of rules: its solver, its check of chains, and what its noisy teacher does wrong."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symdistill.answers import chance_of
from symdistill.errors import InputError
from symdistill.records import Item
from symdistill.worlds import ReasoningWorld
from symdistill.worlds.reasoning import Step, parse_steps

pytestmark = pytest.mark.unit

WORLD = ReasoningWorld.draw(3)
TEST = WORLD.problems("test", 200)


@st.composite
def worlds(draw: st.DrawFn) -> ReasoningWorld:
    return ReasoningWorld.draw(
        draw(st.integers(0, 10_000)),
        n_creatures=draw(st.integers(8, 30)),
        n_foods=draw(st.integers(4, 9)),
        n_colours=draw(st.integers(2, 8)),
        n_meals=draw(st.lists(st.integers(2, 8), min_size=1, max_size=3)),
    )


def chain(item: Item) -> list[str]:
    """The sentences of the true chain: a step for each food, the colour, the answer."""
    return [f"{one}." for one in WORLD.true_chain(item).removesuffix(".").split(". ")]


def error(item: Item, *sentences: str) -> str:
    found = WORLD.check_steps(item, " ".join(sentences))
    assert found.valid == (not found.first_error)
    return found.first_error


# ---------------------------------------------------------------------------------------- the world


def test_the_solver_agrees_with_what_the_corpus_tells() -> None:
    told: dict[tuple[str, ...], str] = {}
    for text in WORLD.corpus(4000):
        words = text.removesuffix(".").lower().split()
        if "turns" in words:
            told[words[3], words[0]] = words[-1]
        elif words[:3] == ["the", "colour", "of"]:
            told[(words[4],)] = words[-1]
    assert len(told) == 16 * 6 + 16
    for item in TEST:
        words = re.findall(r"\w+", item.text)
        at = words[1]
        for food in words[4 : words.index("What") : 2]:
            at = told[at, food]
        assert item.fields["choices"]["ABCD".index(item.gold or "")] == told[(at,)]
        assert WORLD.solve(item)[1] == item.gold
        assert chance_of(item) == 0.25


@settings(max_examples=25, deadline=None)
@given(worlds())
def test_foods_and_colours_share_the_creatures_out_evenly(world: ReasoningWorld) -> None:
    for food in world.foods:
        ends = {start: world.rules[start, food] for start in world.creatures}
        assert set(ends.values()) == set(world.creatures)
        assert all(start != end for start, end in ends.items())
    painted = Counter(world.rules[one, ""] for one in world.creatures)
    assert set(painted) == set(world.colours)
    assert max(painted.values()) - min(painted.values()) <= 1
    assert not set(world.creatures) & set(world.foods)


def test_no_split_shares_a_question_and_more_questions_begin_with_the_same() -> None:
    texts = {
        "train": {one.text for one in WORLD.problems("train", 300)},
        "dev": {one.text for one in WORLD.problems("dev", 100)},
        "test": {one.text for one in TEST},
        "contrast": {one.text for one in WORLD.contrasts(200)},
    }
    assert sum(map(len, texts.values())) == len(set.union(*texts.values()))
    for split in ("train", "dev", "test"):
        assert WORLD.problems(split, 90)[:30] == WORLD.problems(split, 30)
        assert {one.split for one in WORLD.problems(split, 30)} == {split}
    few = WORLD.contrasts(30)
    assert WORLD.contrasts(90)[: len(few)] == few


def test_a_contrast_twin_differs_in_one_premise_and_in_the_answer() -> None:
    by_id = {item.id: item for item in TEST}
    twins = WORLD.contrasts(200)
    assert 190 < len(twins) == len({twin.fields["contrast_of"] for twin in twins})
    for twin in twins:
        item = by_id[twin.fields["contrast_of"]]
        assert twin.split == "test" and twin.gold != item.gold
        words, others = item.text.split(), twin.text.split()
        assert sum(a != b for a, b in zip(words, others, strict=True)) == 1


def test_all_answers_are_about_equally_frequent() -> None:
    golds = Counter(one.gold for one in WORLD.problems("train", 800))
    assert set(golds) == set("ABCD")
    assert all(abs(n - 200) < 4 * math.sqrt(800 * 0.25 * 0.75) for n in golds.values())


def test_the_corpus_answers_no_question_and_holds_none_of_other_splits() -> None:
    corpus = WORLD.corpus(3000, seed=1)
    questions = {text.split("?")[0] + "?" for text in corpus if "?" in text}
    assert len(questions) > 300
    assert not any("?" in text and "answer" in text for text in corpus)
    held_out = TEST + WORLD.contrasts(200) + WORLD.problems("dev", 100)
    assert not questions & {one.text for one in held_out}
    half = {step for text in WORLD.corpus(3000, known=0.5) for step in parse_steps(text)}
    assert len(half) == 16 * 7 / 2 and all(map(WORLD.holds, half))


def test_the_same_seed_gives_the_same_world_and_texts() -> None:
    again = ReasoningWorld.draw(3)
    assert again == WORLD and again != ReasoningWorld.draw(4)
    assert again.problems("test", 200) == TEST
    assert again.corpus(50) == WORLD.corpus(80)[:50] != WORLD.corpus(50, seed=1)


# --------------------------------------------------------------------------------------- the check


@settings(max_examples=25, deadline=None)
@given(worlds(), st.sampled_from(["choice", "text"]))
def test_every_true_chain_is_valid(world: ReasoningWorld, kind) -> None:
    sound = world.teacher(error_rate=0, jumps=0, lucky=0, silent=0, runs_on=0.5)
    for item in world.problems("train", 10, kind=kind):
        for text in (world.true_chain(item), sound.write(item, 0), sound.write(item, 1)):
            found = world.check_steps(item, text)
            assert found.valid and found.answer_right and not found.first_error
            assert parse_steps(text) == world.solve(item)[0]


def test_each_kind_of_error_is_found_and_named() -> None:
    item = next(one for one in TEST if len({step.food for step in WORLD.solve(one)[0]}) == 4)
    one, two, three, colour, answer = chain(item)
    steps, gold = WORLD.solve(item)
    wrong = next(letter for letter in "ABCD" if letter != gold)
    beside = next(each for each in WORLD.creatures if each not in (steps[1].start, steps[1].end))
    false = f"Second, {steps[1].food} turns a {steps[1].start} into a {beside}."
    unlinked = Step(beside, steps[1].food, WORLD.rules[beside, steps[1].food])
    jump = f"Second, {unlinked.food} turns a {unlinked.start} into a {unlinked.end}."
    assert error(item, one, two, three, colour, answer) == ""
    assert error(item, one.lower(), f"\n{two}", three, colour, f"\n{answer}") == ""
    assert "step 2 is false" in error(item, one, false, three, colour, answer)
    assert "step 4 is false" in error(item, one, two, three, "A zozo is red.", answer)
    assert "step 2 is not linked" in error(item, one, jump, three, colour, answer)
    assert "step 2 is not asked for" in error(item, one, three[7:], two[8:], colour, answer)
    assert "step 2 is not asked for" in error(item, one, one[7:], two, three, colour, answer)
    assert "step 5 is not asked for" in error(item, one, two, three, colour, colour, answer)
    assert "step 1 is called second" in error(item, one.replace("First", "Second"), two)
    assert "it takes 3 of 4 steps" in error(item, one, two, three, answer)
    assert "it takes 0 of 4 steps" in error(item, answer)
    assert "it takes 0 of 4 steps" in error(item, "")
    assert "it gives no answer" in error(item, one, two, three, colour)
    assert "it gives no answer" in error(item, one, two, three, colour, "The answer is (G).")
    assert f"the answer is {wrong}" in error(
        item, one, two, three, colour, f"The answer is {wrong}."
    )
    assert "sentence 6 follows the answer" in error(item, one, two, three, colour, answer, answer)
    assert "sentence 1 is no step" in error(item, "Let us see.", one, two, three, colour, answer)


def test_an_invented_next_question_does_not_count() -> None:
    item = TEST[0]
    goes_on = f"\n\nQ: {TEST[1].text}\nA: The answer is ({TEST[1].gold})."
    assert WORLD.check_steps(item, WORLD.true_chain(item) + goes_on).valid
    silent = " ".join(chain(item)[:-1]) + goes_on
    assert not WORLD.check_steps(item, silent).answer_right


@pytest.mark.parametrize("said", ["(A)", "A", "a", "red", "(a) red", "Red"])
def test_an_answer_may_be_spelt_in_several_ways(said: str) -> None:
    item = next(one for one in TEST if one.gold == "A")
    assert WORLD.check_steps(item, " ".join([*chain(item)[:-1], f"The answer is: {said}."])).valid


# ------------------------------------------------------------------------------------- the teacher


def about(count: int, n: int, share: float) -> bool:
    """Within four standard deviations of a binomial count."""
    return abs(count - n * share) <= 4 * math.sqrt(n * share * (1 - share)) + 1e-9


@pytest.mark.parametrize("kind", ["choice", "text"])
def test_faults_come_at_the_stated_rates_and_the_check_finds_them(kind) -> None:
    rates = {"jumps": 0.1, "lucky": 0.08, "silent": 0.06, "runs_on": 0.2}
    teacher = WORLD.teacher(seed=5, error_rate=0.12, **rates)
    items = WORLD.problems("train", 150, kind=kind)
    drawn = [(one, teacher.draw(one, sample)) for one in items for sample in range(20)]
    n = len(drawn)
    kinds = Counter(written.kind for _, written in drawn)
    assert about(kinds["jump"], n, 0.1)
    assert about(kinds["lucky"], n, 0.08)
    assert about(kinds["silent"], n, 0.06)
    assert about(sum(written.runs_on for _, written in drawn), n, 0.2)
    jumps = [written for _, written in drawn if written.kind == "jump"]
    assert about(sum(written.right for written in jumps), len(jumps), 0.25)
    false = steps = 0
    for item, written in drawn:
        found = WORLD.check_steps(item, written.text)
        assert found.valid == (written.kind == "sound"), (item, written, found)
        assert found.answer_right == written.right
        assert found.lucky == (written.right and written.kind != "sound")
        if written.kind in ("sound", "slip"):
            said = parse_steps(written.text)
            false += sum(not WORLD.holds(step) for step in said)
            steps += len(said)
    assert about(false, steps, 0.12)
    slips = [written for _, written in drawn if written.kind == "slip"]
    assert 0.1 < sum(written.right for written in slips) / len(slips) < 0.35


def test_a_lucky_chain_is_led_back_by_a_second_error_or_ends_beside_its_steps() -> None:
    teacher = WORLD.teacher(jumps=0, lucky=1, silent=0)
    errors = Counter(
        sum(not WORLD.holds(step) for step in parse_steps(teacher.write(item, sample)))
        for item, sample in product(TEST[:50], range(4))
    )
    assert set(errors) == {1, 2} and min(errors.values()) > 30


def test_a_sample_depends_on_seed_question_and_index_alone() -> None:
    teacher = WORLD.teacher(seed=1)
    eight = [teacher.write(TEST[0], sample) for sample in range(8)]
    assert eight[:3] == [WORLD.teacher(seed=1).write(TEST[0], sample) for sample in range(3)]
    assert eight[5] == ReasoningWorld.draw(3).teacher(seed=1).write(TEST[0], 5)
    assert len(set(eight)) > 3
    assert eight != [WORLD.teacher(seed=2).write(TEST[0], sample) for sample in range(8)]


def test_a_script_answers_the_last_question_of_a_prompt() -> None:
    teacher = WORLD.teacher()
    script = teacher.script(TEST[:5])
    prompt = f"Q: {TEST[0].text}\nA: {WORLD.true_chain(TEST[0])}\n\nQ: {TEST[1].text}\nA:"
    assert script(prompt, 2) == teacher.write(TEST[1], 2)
    assert script([{"role": "user", "content": prompt}], 2) == teacher.write(TEST[1], 2)
    with pytest.raises(InputError, match="one of 5 questions"):
        script(f"Q: {TEST[9].text}", 0)


def test_recorded_answers_are_one_row_a_sample(tmp_path: Path) -> None:
    teacher = WORLD.teacher()
    path = teacher.write_recorded(
        tmp_path / "teacher.jsonl", TEST[:3], 2, prompt=lambda item: f"Q: {item.text}\nA:"
    )
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["prompt"] for row in rows[:2]] == [f"Q: {TEST[0].text}\nA:"] * 2
    assert [row["answer"] for row in rows] == [
        teacher.write(item, sample) for item in TEST[:3] for sample in range(2)
    ]


# ---------------------------------------------------------------------------------------- bad input


def test_bad_input_is_refused() -> None:
    for wrong in ({"n_creatures": 3}, {"n_foods": 1}, {"n_colours": 9}, {"n_meals": (0, 2)}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            ReasoningWorld.draw(1, **wrong)
    with pytest.raises(InputError, match="n_meals"):
        ReasoningWorld.draw(1, n_meals=())
    with pytest.raises(InputError, match="with 50 questions"):
        ReasoningWorld.draw(1, n_creatures=5, n_foods=3, n_meals=[2]).problems("test", 50)
    empty = (ReasoningWorld.draw(i, n_creatures=4, n_foods=2, n_meals=[1]) for i in range(1000))
    with pytest.raises(InputError, match="questions to train on"):
        for world in empty:
            world.corpus(10)
    with pytest.raises(InputError, match="split"):
        WORLD.problems("contrast", 5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="kind"):
        WORLD.problems("test", 5, kind="number")
    with pytest.raises(InputError, match="error_rate"):
        WORLD.teacher(error_rate=1.5)
    with pytest.raises(InputError, match="jumps"):
        WORLD.teacher(jumps=0.6, lucky=0.6)
    with pytest.raises(InputError, match="question of this world"):
        WORLD.solve(Item.make("question", "What is 2 + 3?", fields={"answer_kind": "number"}))
    foreign = Item.make(
        "question", TEST[0].text, fields={"answer_kind": "choice", "choices": ["x"]}
    )
    with pytest.raises(InputError, match="options"):
        WORLD.solve(foreign)
