"""The cut against its definition, and the precision estimate against known truth."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symdistill.critic.calibration import sigmoid
from symdistill.critic.cut import choose_cut, estimate_precision
from symdistill.errors import InputError

pytestmark = pytest.mark.unit

LINES = st.lists(
    st.tuples(st.integers(0, 8), st.booleans(), st.integers(0, 4)), min_size=1, max_size=25
)


@settings(deadline=None)
@given(LINES, st.integers(1, 8), st.sampled_from([0.5, 0.6, 0.75, 0.9, 1.0]))
def test_is_the_loosest_cut_that_reaches_the_target(
    lines: list[tuple[int, bool, int]], min_lines: int, target: float
) -> None:
    scores = np.array([s / 8 for s, _, _ in lines])
    valid = np.array([v for _, v, _ in lines])
    groups = [g for _, _, g in lines]
    if len(lines) < min_lines:
        with pytest.raises(InputError, match="labelled calibration lines"):
            choose_cut(scores, valid, groups, target_precision=target, min_lines=min_lines)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cut = choose_cut(
            scores, valid, groups, target_precision=target, min_lines=min_lines, n_bootstrap=20
        )
    table = {
        t: (valid[scores >= t].mean(), int((scores >= t).sum()))
        for t in set(scores.tolist())
        if (scores >= t).sum() >= min_lines
    }
    reaching = [t for t, (precision, _) in table.items() if precision >= target]
    assert cut.reached == bool(reaching)
    if reaching:
        assert cut.threshold == min(reaching)
    else:
        best = max(precision for precision, _ in table.values())
        assert cut.threshold == min(t for t, (p, _) in table.items() if p == best)
    assert cut.precision == pytest.approx(table[cut.threshold][0])
    assert cut.kept == table[cut.threshold][1] >= min_lines
    assert 0 <= cut.low <= cut.high <= 1
    assert cut.recall == pytest.approx(
        (valid & (scores >= cut.threshold)).sum() / max(1, valid.sum())
    )


def test_a_lucky_top_line_is_not_a_cut() -> None:
    scores = np.linspace(1, 0, 100)
    valid = np.arange(100) % 2 == 0  # half valid everywhere, the very first valid
    with pytest.warns(UserWarning, match="no cut over at least 30 labelled lines reaches"):
        cut = choose_cut(scores, valid, list(range(100)), target_precision=0.9)
    assert not cut.reached
    assert cut.kept >= 30
    assert cut.precision < 0.6


def test_bad_input() -> None:
    s, y, g = np.linspace(0, 1, 40), np.ones(40, bool), list(range(40))
    for target in (0.0, 1.5):
        with pytest.raises(InputError, match="target precision"):
            choose_cut(s, y, g, target_precision=target)
    with pytest.raises(ValueError, match="one length"):
        choose_cut(s, y[:3], g, target_precision=0.5)
    with pytest.raises(ValueError, match="finite"):
        choose_cut(np.full(40, np.nan), y, g, target_precision=0.5)


def clustered(rng: np.random.Generator, concepts: int, lines: int) -> tuple[np.ndarray, ...]:
    """Scores, labels and concepts where scores are miscalibrated but P(valid|score) is one map."""
    z = (rng.normal(0, 0.8, (concepts, 1)) + rng.normal(0, 1.2, (concepts, lines))).ravel()
    y = rng.random(len(z)) < sigmoid(1.5 * z - 0.5)
    return sigmoid(z), y, np.repeat(np.arange(concepts), lines)


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_estimate_covers_the_truth_when_its_assumption_holds(method: str) -> None:
    covered, errors = 0, []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        scores, valid, groups = clustered(rng, 60, 6)
        new, truth, _ = clustered(rng, 100, 6)
        keep = new >= 0.6
        result = estimate_precision(
            new[keep], scores, valid, groups.tolist(), n_bootstrap=100, seed=seed, method=method
        )  # type: ignore[arg-type]
        covered += result.low <= truth[keep].mean() <= result.high
        errors.append(result.estimate - truth[keep].mean())
    assert covered >= 33  # 38 expected of 40
    assert abs(np.mean(errors)) < 0.02


def test_estimate_fails_as_documented_when_scores_change_their_meaning() -> None:
    rng = np.random.default_rng(0)
    scores, valid, groups = clustered(rng, 60, 6)
    new, _, _ = clustered(rng, 100, 6)
    truth = rng.random(len(new)) < 0.3  # the new lines please the critic and are mostly wrong
    keep = new >= 0.6
    result = estimate_precision(new[keep], scores, valid, groups.tolist(), n_bootstrap=100)
    assert result.low > truth[keep].mean()


def test_estimate_of_few_lines_is_wide_and_of_none_is_nan() -> None:
    rng = np.random.default_rng(1)
    scores, valid, groups = clustered(rng, 60, 6)
    few = estimate_precision(np.full(5, 0.6), scores, valid, groups.tolist(), n_bootstrap=200)
    many = estimate_precision(np.full(500, 0.6), scores, valid, groups.tolist(), n_bootstrap=200)
    assert few.estimate == pytest.approx(many.estimate)
    assert few.high - few.low > 2 * (many.high - many.low)
    none = estimate_precision(np.array([]), scores, valid, groups.tolist(), n_bootstrap=5)
    assert np.isnan(none.estimate) and "no line kept" in none.method


def test_estimate_does_not_depend_on_the_order_of_the_kept_lines() -> None:
    rng = np.random.default_rng(2)
    scores, valid, groups = clustered(rng, 30, 5)
    kept = rng.random(50)
    one = estimate_precision(kept, scores, valid, groups.tolist(), n_bootstrap=50)
    assert one == estimate_precision(kept[::-1], scores, valid, groups.tolist(), n_bootstrap=50)
