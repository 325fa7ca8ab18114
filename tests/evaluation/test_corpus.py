"""The corpus report against counts made by hand."""

import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symdistill.evaluation.accuracy import wilson
from symdistill.evaluation.corpus import (
    Sample,
    corpus_report,
    corpus_table,
    repeats_itself,
    right_by_luck,
)

pytestmark = pytest.mark.unit


def sample(teacher: str, item_id: str, correct: bool | None = True, **rest: object) -> Sample:
    text = str(rest.pop("text", f"{teacher} on {item_id}: {len(rest)}"))
    return Sample(teacher, item_id, text, correct, **rest)  # type: ignore[arg-type]


def test_counts_of_one_teacher() -> None:
    report = corpus_report(
        [
            sample("t", "q1", True, text="Two and two make four."),
            sample("t", "q1", True, text="two and two  make four"),  # the same, normalised
            sample("t", "q1", False, text="Five.", reason="two answers: 4, 5"),
            sample("t", "q2", False, text="Two and two make four."),  # said elsewhere, too
            sample("t", "q2", None, text="No idea.", reason="two answers: 1, 2"),
            sample("t", "q3", None, text="It is seven."),
        ]
    )
    figures = report["teachers"]["t"]
    assert (figures["questions"], figures["samples"], figures["judged"]) == (3, 6, 4)
    assert figures["samples_per_question"] == 2
    assert figures["parsed_share"] == pytest.approx(4 / 6)
    assert (figures["pass_rate"]["right"], figures["pass_rate"]["n"]) == (2, 4)
    assert (figures["pass_at_any"]["right"], figures["pass_at_any"]["n"]) == (1, 2)
    assert figures["said_before_share"] == pytest.approx(1 / 6)
    assert figures["said_elsewhere_share"] == pytest.approx(3 / 6)
    assert figures["no_answer"] == {"two answers": 2}
    assert figures["tokens"] is figures["perplexity"] is None
    assert report["side_by_side"] is None


def test_one_sample_a_question_has_the_interval_of_a_share() -> None:
    samples = [sample("t", f"q{i}", i % 4 != 0) for i in range(40)]
    rate = corpus_report(samples)["teachers"]["t"]["pass_rate"]
    assert (rate["low"], rate["high"]) == wilson(30, 40)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=30))
def test_quantiles_are_those_of_sorted_values(tokens: list[int]) -> None:
    samples = [sample("t", f"q{i}", tokens=n) for i, n in enumerate(tokens)]
    found = corpus_report([*samples, sample("t", "unmeasured")])["teachers"]["t"]["tokens"]
    assert (found["measured"], found["max"]) == (len(tokens), max(tokens))
    ordered = sorted(tokens)
    for per_cent in (5, 25, 50, 75, 95):
        place = per_cent / 100 * (len(ordered) - 1)
        low, high = ordered[int(place)], ordered[min(int(place) + 1, len(ordered) - 1)]
        expected = low + (high - low) * (place - int(place))
        assert found[f"p{per_cent}"] == pytest.approx(expected)


def test_perplexity_that_was_not_measured_is_left_out() -> None:
    samples = [sample("t", f"q{i}", perplexity=p) for i, p in enumerate([2.0, None, float("inf")])]
    found = corpus_report(samples)["teachers"]["t"]["perplexity"]
    assert (found["measured"], found["p50"]) == (1, 2.0)


def test_repetition() -> None:
    words = [f"word{i}" for i in range(30)]
    assert not repeats_itself(" ".join(words))
    assert repeats_itself(" ".join(words + words[:20]))
    assert not repeats_itself(" ".join(words + words[:19]))
    assert repeats_itself("We add the two. So it is four. " * 3)
    assert not repeats_itself("We add the two. So it is four. " * 2)
    assert not repeats_itself("Yes. " * 10)  # short sentences may come again
    assert repeats_itself("Wait, let me think.\n" * 3)
    assert not repeats_itself("")


def test_guessers_are_lucky_as_often_as_estimated() -> None:
    rng = random.Random(0)
    samples, lucky = [], 0
    for i in range(4000):
        knows = rng.random() < 0.5
        guessed = rng.randrange(4) == 0
        lucky += not knows and guessed
        samples.append(sample("t", f"q{i}", knows or guessed, chance=0.25))
    luck = right_by_luck(samples)
    assert luck["guesser_right"] == 1000
    assert luck["lucky"] == pytest.approx(lucky, rel=0.1)
    assert luck["lucky_share_of_right"] == pytest.approx(lucky / luck["right"], rel=0.1)


def test_luck_counts_answers_to_questions_with_options_only() -> None:
    luck = right_by_luck(
        [
            sample("t", "open", True),
            sample("t", "a", True, chance=0.5),
            sample("t", "b", False, chance=0.5),
            sample("t", "c", False, chance=0.5),
            sample("t", "d", False, chance=0.5, reason="no answer"),
            sample("t", "e", None, chance=0.5),
        ]
    )
    assert luck == {
        "answers": 3, "right": 1, "guesser_right": 1.5, "lucky": 1.0, "lucky_share_of_right": 1.0
    }  # fmt: skip
    assert right_by_luck([sample("t", "open")])["lucky_share_of_right"] is None


def test_teachers_are_compared_on_the_questions_of_all() -> None:
    rng = np.random.default_rng(0)
    samples = [
        sample(teacher, f"q{i}", bool(rng.random() < ease[i % 2]))
        for teacher, ease, questions in (
            ("good", (0.95, 0.85), 60),
            ("poor", (0.5, 0.3), 50),
            ("twin", (0.95, 0.85), 70),
        )
        for i in range(questions)
        for _ in range(1 + i % 3)  # a question counts once, however many samples it has
    ]
    together = corpus_report(samples)["side_by_side"]
    assert together["questions"] == 50
    poor, twin = together["differences"]
    assert (poor["teacher"], poor["against"]) == ("poor", "good")
    assert poor["high"] < 0
    assert twin["low"] < 0 < twin["high"]
    rate = together["pass_rate"]
    assert poor["estimate"] == pytest.approx(rate["poor"] - rate["good"])


def test_teachers_without_a_common_question() -> None:
    report = corpus_report([sample("a", "q1"), sample("b", "q2")])
    assert report["side_by_side"]["questions"] == 0
    assert corpus_table(report)[0] == ["", "a", "b"]


def test_the_report_is_json_and_the_table_is_square() -> None:
    report = corpus_report(
        [
            sample("a", "q1", tokens=12, perplexity=3.5, chance=0.25),
            sample("a", "q2", False, tokens=1_500, reason="no answer"),
            sample("b", "q1", False, chance=0.25),
            sample("b", "q2", None),
        ]
    )
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    table = corpus_table(report)
    assert {len(row) for row in table} == {3}
    rows = {row[0]: row[1:] for row in table}
    assert rows["samples"] == ["2", "2"]
    assert rows["tokens, longest"] == ["1,500", "-"]
    assert rows["no answer: no answer"] == ["1", "0"]
    assert rows["pass rate on the 1 questions of all"] == ["1.000", "0.000"]
    assert rows["... less that of a"][0] == "-"


def test_what_cannot_be_reported_is_refused() -> None:
    with pytest.raises(ValueError, match="got none"):
        corpus_report([])
    with pytest.raises(ValueError, match="single option"):
        corpus_report([sample("t", "q", chance=1.0)])


def test_long_texts_take_seconds_not_minutes() -> None:
    long = " ".join(f"step{i % 977}and{i}" for i in range(20_000))
    assert not repeats_itself(long)
