"""Do intervals hold the truth, and tests see an effect, as often as they say? By simulation."""

import numpy as np
import pytest

from symdistill.evaluation.accuracy import minimum_detectable_effect, paired, paired_over_seeds
from symdistill.exact import sign_test

pytestmark = pytest.mark.world


@pytest.mark.parametrize("share_decided", [0.02, 0.2])
@pytest.mark.parametrize("gain", [0.0, 0.01])
def test_paired_intervals_hold_the_truth(share_decided: float, gain: float) -> None:
    n, held = 200, 0
    rng = np.random.default_rng(3)
    for _ in range(1000):
        u = rng.random(n)
        found = paired(u < (share_decided + gain) / 2, u > 1 - (share_decided - gain) / 2)
        held += found.low <= gain <= found.high
    assert held / 1000 >= 0.935  # 0.95 less two standard errors


@pytest.mark.parametrize("discordant", [None, 0.15])
def test_effect_is_seen_as_often_as_it_says(discordant: float | None) -> None:
    n, baseline = 300, 0.4
    gain = minimum_detectable_effect(n, baseline=baseline, discordant=discordant)
    rng = np.random.default_rng(1)
    u, v = rng.random((2, 2000, n))
    if discordant is None:  # answers that have nothing to do with each other
        a, b = u < baseline + gain, v < baseline
    else:
        a, b = u < (discordant + gain) / 2, u > 1 - (discordant - gain) / 2
    wins, losses = (a & ~b).sum(1), (b & ~a).sum(1)
    seen = np.mean([sign_test(int(w), int(x)) <= 0.05 for w, x in zip(wins, losses, strict=True)])
    assert seen == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.0, 0.1, 0.3, 0.8])
def test_intervals_over_seeds_hold_the_truth(seeds: int, spread: float) -> None:
    """Two recipes of one expected accuracy on questions that differ in difficulty; each training
    run shifts all its answers by chance. What is left to chance is drawn anew, or not at all.
    """
    rng = np.random.default_rng(seeds)
    for fresh in (True, False):
        held = 0
        for _ in range(400):
            ease = rng.normal(0, 1.5, 200)
            taste = rng.normal(0, 0.5, 200)  # which questions suit which recipe
            shift = rng.normal(0, spread, (2, seeds, 1))
            luck = rng.logistic(size=(2, seeds, 200) if fresh else (1, 1, 200))
            a, b = (np.stack([ease + taste, ease - taste])[:, None] + shift + luck) > 0
            found = paired_over_seeds(a, b)
            held += found.low <= 0 <= found.high
        assert held / 400 >= 0.925, f"fresh: {fresh}"  # 0.95 less two standard errors


def test_the_bootstrap_over_three_seeds_would_be_too_narrow() -> None:
    """Why it is not used: the share of intervals that hold the truth if only seeds differ."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        means = rng.normal(0, 1, 3)
        low, high = np.quantile(means[rng.integers(3, size=(400, 3))].mean(1), [0.025, 0.975])
        held += low <= 0 <= high
    assert held / 400 < 0.8
