"""The two baselines a critic is compared with."""

import numpy as np
import pytest

from symdistill.critic.baselines import (
    SURFACE,
    likelihood_scores,
    negation_scores,
    surface_cues,
    surface_scores,
    tfidf_scores,
)

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
