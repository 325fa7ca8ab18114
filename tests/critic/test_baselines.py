"""The two baselines a critic is compared with."""

import numpy as np
import pytest

from symdistill.critic.baselines import (
    SURFACE,
    baseline_scores,
    likelihood_scores,
    negation_scores,
    surface_cues,
    surface_scores,
    tfidf_scores,
    verdict,
)
from symdistill.critic.forms import Form

pytestmark = pytest.mark.unit


def test_likelihood_keeps_the_order_and_the_ties() -> None:
    scores = likelihood_scores(np.array([-3.0, -1.0, -2.0, -2.0]))
    assert scores.tolist() == [0.0, 1.0, 0.5, 0.5]
    assert likelihood_scores(np.array([-3.0])).tolist() == [0.5]
    with pytest.raises(ValueError, match="finite"):
        likelihood_scores(np.array([-3.0, np.nan]))


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Birds do not read.", 0.0),
        ("Birds don\u2019t read.", 0.0),
        ("Birds can't read.", 0.0),
        ("NEVER feed a stone.", 0.0),
        ("A house without walls is open.", 0.0),
        ("A knot is tied in a rope.", 1.0),
        ("A notebook holds notes.", 1.0),
        ("An ant is an insect.", 1.0),
    ],
)
def test_negation(text: str, score: float) -> None:
    assert negation_scores([text]).tolist() == [score]


def test_surface_cues_are_told_apart() -> None:
    texts = ["Birds fly.", "Some birds, e.g. 3 owls, may not fly!", "IS IT SO?", "", "<b>مرحبا</b>"]
    cues = surface_cues(texts)
    assert cues.shape == (5, len(SURFACE)) and np.isfinite(cues).all()
    of = {name: cues[:, i].tolist() for i, name in enumerate(SURFACE)}
    assert of["words"] == [2, 8, 3, 0, 3]
    assert of["negated"] == [0, 1, 0, 0, 0] and of["commas"] == [0, 2, 0, 0, 0]
    assert of["is a question"] == [0, 0, 1, 0, 0] and of["ends with a stop"] == [1, 1, 0, 0, 0]
    assert surface_cues([("Is it so?", "It is so.")]).shape == (1, 2 * len(SURFACE) + 1)


def test_each_learns_what_it_reads_and_no_more() -> None:
    nouns = [f"noun{i}" for i in range(40)]
    negated = [f"{noun}s {verb} fly" for noun in nouns for verb in ("can", "cannot")]
    valid = np.array([True, False] * 40)
    scores = surface_scores(negated[:60], valid[:60], negated[60:])
    assert scores[::2].min() > scores[1::2].max()
    words = [f"{noun}s can {verb} well" for noun in nouns for verb in ("swim", "sink")]
    scores = tfidf_scores(words[:60], valid[:60], words[60:])
    assert scores[::2].min() > scores[1::2].max()
    assert abs(np.diff(surface_scores(words[:60], valid[:60], words[60:])).max()) < 0.2
    pairs = list(zip(nouns * 2, words, strict=True))
    assert tfidf_scores(pairs[:60], valid[:60], pairs[60:]).shape == (20,)
    assert tfidf_scores(["?", "!"], valid[:2], ["..."]).tolist() == [0.5]


def test_a_number_alone_points_the_way_its_labels_say() -> None:
    texts = ["A stone.", "A bird.", "A bell.", "A boat."]
    valid = np.array([True, True, False, False])
    beside = np.array([[0.0, 5.0, -1.0, -4.0], [1.0, 4.0, -1.5, -6.0],
                       [2.0, 3.0, -2.0, -8.0], [3.0, 2.0, -2.5, -9.0]])  # fmt: skip
    form = Form.of({}, numbers=["cost", "trust"], likelihood="embedded:x")
    found = baseline_scores(form, (texts, beside), valid, (texts, beside))
    assert list(found) == [
        "surface cues", "TF-IDF", "cost alone", "trust alone", "likelihood"
    ]  # fmt: skip
    assert found["cost alone"].tolist() == [0, -1, -2, -3]
    assert found["trust alone"].tolist() == [5, 4, 3, 2]
    assert found["likelihood"].tolist() == [1, 2 / 3, 1 / 3, 0]
    assert list(baseline_scores(form, (texts, None), valid, (texts, None))) == [
        "surface cues", "TF-IDF"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "low", "high", "says"),
    [
        (-0.1, -0.2, -0.05, "A baseline wins: words"),
        (-0.1, -0.2, 0.02, "Not clearly better or worse than the best baseline, words"),
        (0.1, -0.1, 0.2, "Not clearly better or worse"),
        (0.1, 0.05, 0.2, "Better than the best baseline, words"),
    ],
)
def test_the_verdict_is_on_the_best_baseline(
    value: float, low: float, high: float, says: str
) -> None:
    theirs = {
        "surface": {"auc": 0.6, "difference": {"value": 0.3, "low": 0.2, "high": 0.4}},
        "words": {"auc": 0.7, "difference": {"value": value, "low": low, "high": high}},
    }
    assert verdict(theirs).startswith(says)
