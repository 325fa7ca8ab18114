"""What more labels would buy: right where the truth is known, silent where it cannot be."""

from __future__ import annotations

import numpy as np
import pytest

from symdistill.critic.learning_curve import LearningCurve, Point, _gains, learning_curve, parts

pytestmark = pytest.mark.unit


def test_parts_are_of_whole_groups_and_grow() -> None:
    groups = [f"g{i // 4}" for i in range(400)]
    valid = np.arange(400) % 2 == 0
    found = parts(valid, groups)
    assert [len(one.rows) for one in found] == [52] * 3 + [100] * 3 + [200] * 3 + [400] or [
        round(len(one.rows) / 50) for one in found
    ] == [1] * 3 + [2] * 3 + [4] * 3 + [8]
    for part in found:
        chosen = {groups[i] for i in part.rows}
        assert len(part.rows) == sum(group in chosen for group in groups)
    small, large = found[0], next(one for one in found[3:] if one.draw == found[0].draw)
    assert set(small.rows) <= set(large.rows)


def test_parts_without_both_kinds_are_left_out() -> None:
    valid = np.arange(100) < 12
    assert all(
        min(valid[one.rows].sum(), (~valid[one.rows]).sum()) >= 5
        for one in parts(valid, list(range(100)))
    )


@pytest.mark.parametrize("exponent", [0.3, 0.5, 1.0])
def test_a_power_law_is_found_again(exponent: float) -> None:
    n = np.array([100.0, 200, 400, 800])

    def auc(n: np.ndarray | float) -> np.ndarray:
        return 0.85 - 1.5 * np.asarray(n) ** -exponent

    gain = _gains(n, auc(n)[None, :], 200)[0]
    assert gain == pytest.approx(float(auc(1000.0) - auc(800.0)), abs=1e-6)


def measured(seed: int, sizes: tuple[int, ...], n_test: int) -> tuple[LearningCurve, float]:
    """A curve of critics whose separation grows by a known law, and the true gain."""
    rng = np.random.default_rng(seed)
    valid = rng.random(n_test) < 0.5
    shared = rng.normal(size=n_test)  # what every critic finds hard

    def separation(n: int) -> float:
        return 1.6 - 8 * n**-0.5

    def auc(n: int) -> float:
        from scipy.stats import norm

        return float(norm.cdf(separation(n) / np.sqrt(2)))

    points = [
        Point(n, valid * separation(n) + 0.8 * shared + 0.6 * rng.normal(size=n_test))
        for n in sizes
        for _ in range(3 if n < sizes[-1] else 1)
    ]
    curve = learning_curve(points, valid, list(range(n_test)), n_bootstrap=100)
    return curve, auc(sizes[-1] + curve.more) - auc(sizes[-1])


def test_the_interval_holds_the_truth() -> None:
    found = [measured(seed, (100, 200, 400, 800), 600) for seed in range(40)]
    held = sum(curve.low <= gain <= curve.high for curve, gain in found)
    assert held >= 34  # 95 % of 40 is 38; fewer than 34 by chance: 1 in 100


def test_little_data_gives_no_promise() -> None:
    curve, _ = measured(0, (50, 100, 200), 60)
    assert curve.verdict == "cannot tell" and "cannot be told" in curve.sentence
    valid = np.arange(20) % 2 == 0
    one = learning_curve([Point(30, valid * 1.0)], valid, list(range(20)))
    assert one.verdict == "cannot tell" and one.sentence.endswith("from so few.")
    none = learning_curve([], valid, list(range(20)))
    assert none.verdict == "cannot tell" and none.auc == ()


def test_a_flat_curve_says_that_more_would_add_little() -> None:
    rng = np.random.default_rng(0)
    valid = rng.random(4000) < 0.5
    scores = valid + rng.normal(size=4000)
    points = [Point(n, scores + 0.01 * rng.normal(size=4000)) for n in (100, 200, 400, 800)]
    curve = learning_curve(points, valid, list(range(4000)), n_bootstrap=50)
    assert curve.verdict == "little" and abs(curve.gain) < 0.01


def test_no_more_is_promised_than_there_is() -> None:
    curve, _ = measured(1, (20, 40, 80), 200)
    assert curve.more == 80
