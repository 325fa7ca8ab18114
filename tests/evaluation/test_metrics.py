"""Metrics against their definitions, intervals against worlds where the truth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symdistill.evaluation import metrics

pytestmark = pytest.mark.unit

LINES = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=25).filter(
    lambda lines: len({valid for _, valid in lines}) == 2
)


def arrays(lines: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([s / 6 for s, _ in lines]), np.array([v for _, v in lines])


@given(LINES)
def test_auc_counts_pairs(lines: list[tuple[int, bool]]) -> None:
    scores, valid = arrays(lines)
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0 for a in scores[valid] for b in scores[~valid]
    ]
    assert metrics.auc(scores, valid) == pytest.approx(np.mean(pairs))


@given(LINES)
def test_curve_and_average_precision_by_counting(lines: list[tuple[int, bool]]) -> None:
    scores, valid = arrays(lines)
    curve = metrics.precision_recall_curve(scores, valid)
    assert curve.threshold == sorted(set(scores.tolist()), reverse=True)
    area, before = 0.0, 0.0
    for precision, recall, threshold in zip(
        curve.precision, curve.recall, curve.threshold, strict=True
    ):
        kept = scores >= threshold
        assert precision == pytest.approx(valid[kept].mean())
        assert recall == pytest.approx((valid & kept).sum() / valid.sum())
        area += precision * (recall - before)
        before = recall
    assert metrics.average_precision(scores, valid) == pytest.approx(area)


@given(LINES, st.integers(1, 8))
def test_reliability_bins_cover_every_line_once(lines: list[tuple[int, bool]], bins: int) -> None:
    scores, valid = arrays(lines)
    parts = metrics.reliability(scores, valid, bins=bins)
    assert sum(p["n"] for p in parts) == len(lines)
    assert sum(p["n"] * p["score_mean"] for p in parts) == pytest.approx(scores.sum())
    assert sum(p["n"] * p["valid_share"] for p in parts) == pytest.approx(valid.sum())


def test_calibration_error_by_hand() -> None:
    scores = [0.1, 0.1, 0.9, 0.9]
    assert metrics.expected_calibration_error(scores, [0, 0, 1, 1]) == pytest.approx(0.1)
    assert metrics.expected_calibration_error(scores, [1, 1, 0, 0]) == pytest.approx(0.9)
    assert metrics.reliability([0.0, 1.0], [0, 1]) == [
        {"score_mean": 0.0, "valid_share": 0.0, "n": 1},
        {"score_mean": 1.0, "valid_share": 1.0, "n": 1},
    ]


def test_what_is_not_defined_is_nan_and_what_is_wrong_is_refused() -> None:
    assert np.isnan(metrics.auc([0.1, 0.2], [1, 1]))
    assert np.isnan(metrics.auc([0.1, 0.2], [0, 0]))
    assert np.isnan(metrics.average_precision([0.1, 0.2], [0, 0]))
    for function in (metrics.auc, metrics.average_precision, metrics.precision_recall_curve):
        with pytest.raises(ValueError, match="one length"):
            function([0.1, 0.2], [1])
        with pytest.raises(ValueError, match="finite"):
            function([0.1, np.nan], [1, 0])


def test_interval_covers_a_mean_over_concepts_that_cluster() -> None:
    covered = naive = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        effect = rng.normal(size=40)
        values = np.repeat(effect, 10) + 0.3 * rng.normal(size=400)
        groups = np.repeat(np.arange(40), 10).tolist()
        low, high = metrics.bootstrap_interval(values, groups, n=200, seed=seed)
        covered += low <= 0 <= high
        low, high = metrics.bootstrap_interval(values, list(range(400)), n=200, seed=seed)
        naive += low <= 0 <= high
    assert covered >= 86  # 95 nominal, a little less at 40 concepts
    assert naive <= 65  # what happens when concepts are ignored


def test_interval_of_a_statistic_leaves_out_what_is_undefined() -> None:
    scores, valid = np.array([0.1, 0.9, 0.8]), np.array([False, True, True])
    interval = metrics.bootstrap_interval(
        scores, ["a", "b", "c"], statistic=lambda rows: metrics.auc(scores[rows], valid[rows])
    )
    assert interval == (1.0, 1.0)
    nothing = metrics.bootstrap_interval(scores, ["a"] * 3, statistic=lambda rows: float("nan"))
    assert np.isnan(nothing).all()


def test_interval_is_the_same_for_the_same_seed() -> None:
    values, groups = np.arange(30.0), [i // 3 for i in range(30)]
    one = metrics.bootstrap_interval(values, groups, n=50, seed=1)
    assert one == metrics.bootstrap_interval(values, groups, n=50, seed=1)
    assert one != metrics.bootstrap_interval(values, groups, n=50, seed=2)


Side = tuple[tuple[float, ...], tuple[int, ...]]


def world(seed: int, change: float) -> tuple[Side, Side]:
    """Values and concepts before and after; concepts differ far more than the change."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 2, size=50)
    sides = []
    for step in (0.0, change):
        rows = [
            (float(hard[c] + step + rng.normal(0, 0.5)), c)
            for c in range(50)
            for _ in range(1 + c % 3)
        ]
        values, concepts = zip(*rows, strict=True)
        sides.append((values, concepts))
    return sides[0], sides[1]


def test_paired_difference_sees_what_hard_concepts_hide() -> None:
    (before, gb), (after, ga) = world(0, 0.3)
    paired = metrics.paired_difference(after, before, ga, gb, n=2000)
    assert paired.estimate == pytest.approx(np.mean(after) - np.mean(before))
    assert 0 < paired.low < 0.3 < paired.high
    low, high = metrics.bootstrap_interval(before, gb, n=500)
    assert high - low > 2 * (paired.high - paired.low)


def test_paired_difference_covers() -> None:
    covered = 0
    for seed in range(100):
        (before, gb), (after, ga) = world(seed, 0.0)
        interval = metrics.paired_difference(after, before, ga, gb, n=300, seed=seed)
        covered += interval.low <= 0 <= interval.high
    assert covered >= 87


def test_paired_difference_is_antisymmetric_and_checks_its_input() -> None:
    (before, gb), (after, ga) = world(1, 0.3)
    one = metrics.paired_difference(after, before, ga, gb, n=4000)
    other = metrics.paired_difference(before, after, gb, ga, n=4000)
    assert one.estimate == pytest.approx(-other.estimate)
    assert one.low == pytest.approx(-other.high, abs=0.03)
    with pytest.raises(ValueError, match="one concept per line"):
        metrics.paired_difference(after, before, ga, gb[1:])
    with pytest.raises(ValueError, match="one concept per line"):
        metrics.paired_difference([], before, [], gb)
