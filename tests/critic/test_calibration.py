"""Platt scaling finds the map that made the labels, and never turns a ranking round."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from symdistill.critic.calibration import fit_platt, logit, sigmoid

pytestmark = pytest.mark.unit


def test_finds_the_map_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(2, 3, size=20_000)
    y = rng.random(len(z)) < sigmoid(0.7 * z - 1.2)
    scaling = fit_platt(z, y)
    assert scaling.slope == pytest.approx(0.7, abs=0.03)
    assert scaling.intercept == pytest.approx(-1.2, abs=0.06)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 40))
def test_is_the_optimum(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    y = rng.random(n) < sigmoid(2 * z)
    target = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2))

    def loss(b: np.ndarray) -> float:
        margin = b[0] * z + b[1]
        return float(np.sum(np.logaddexp(0, margin) - target * margin))

    best = minimize(loss, np.zeros(2), method="BFGS")
    scaling = fit_platt(z, y)
    if best.x[0] > 1e-3:
        assert loss(np.array([scaling.slope, scaling.intercept])) <= best.fun + 1e-6
    elif best.x[0] < -1e-3:
        assert scaling.slope == 0
    assert scaling.slope >= 0


@pytest.mark.parametrize("y", [[True] * 6, [False] * 6, [False] * 3 + [True] * 3])
def test_stays_finite_on_separated_or_single_classes(y: list[bool]) -> None:
    p = fit_platt(np.arange(6.0), np.array(y))(np.array([-1e6, 0.0, 1e6]))
    assert np.isfinite(p).all()
    assert (p >= 0).all() and (p <= 1).all()


def test_constant_logits_give_the_smoothed_base_rate() -> None:
    p = fit_platt(np.zeros(8), np.array([True] * 2 + [False] * 6))(np.array([0.0]))
    assert 0.2 < p[0] < 0.35


def test_logit_undoes_sigmoid() -> None:
    z = np.linspace(-8, 8, 33)
    np.testing.assert_allclose(logit(sigmoid(z)), z, atol=1e-6)
    assert np.isfinite(logit(np.array([0.0, 1.0]))).all()


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="one length"):
        fit_platt(np.zeros(3), np.array([True]))
