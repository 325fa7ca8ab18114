"""The two baselines a critic is compared with."""

import numpy as np
import pytest

from symdistill.critic.baselines import likelihood_scores, negation_scores

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
