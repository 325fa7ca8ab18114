"""Planning a certificate: the fast procedure against the exact one, and against known figures."""

from __future__ import annotations

import time

import numpy as np
import pytest

from symdistill.critic.fixed_sequence import fewest_bad, p_value, walk_cuts
from symdistill.critic.power import (
    all_sizes,
    allowed_invalid,
    binormal,
    certified_cut,
    draw_labels,
    from_pilot,
    plan,
    simulate,
)
from symdistill.errors import InputError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("precision", [0.5, 0.8, 0.9, 1.0])
@pytest.mark.parametrize("level", [0.05, 0.005])
def test_the_table_is_the_test_inverted(precision: float, level: float) -> None:
    sizes = [1, 5, 17, 60, 400, 9000]
    table = allowed_invalid(sizes, precision, level, 200)
    for row, size in zip(table, sizes, strict=True):
        bad = fewest_bad(size, precision)
        for labels in range(min(size, 200) + 1):
            allowed = int(row[labels])
            if allowed >= 0:
                assert p_value(size, bad, labels, allowed) <= level
            assert allowed >= labels or p_value(size, bad, labels, allowed + 1) > level


def test_many_samples_at_once_are_what_one_by_one_gives() -> None:
    rng = np.random.default_rng(3)
    sizes = all_sizes(1000, 600, 200, 0.8, 0.05)
    between = np.diff(np.concatenate([[0], sizes]))
    bad = rng.binomial(between, np.linspace(0, 0.5, len(sizes)), size=(60, len(sizes)))
    labelled, invalid = draw_labels(rng, bad, between, 200)
    last = certified_cut(sizes, labelled, invalid, 0.8, 0.05)
    for run in range(60):
        passed = [
            p_value(int(k), fewest_bad(int(k), 0.8), int(n), int(e)) <= 0.05
            for k, n, e in zip(sizes, labelled[run], invalid[run], strict=True)
        ]
        assert last[run] == [*passed, False].index(False) - 1
    assert labelled[:, -1].tolist() == [200] * 60
    assert walk_cuts([100], [], [], 0.8, 0.05)[0].p == 1  # no label says nothing


@pytest.mark.parametrize(
    ("auc", "precision", "certified", "kept", "best"),
    [(0.85, 0.8, 0.998, 0.30, 0.35), (0.80, 0.8, 0.95, 0.17, 0.25), (0.90, 0.9, 0.98, 0.23, 0.28)],
)
def test_known_figures(
    auc: float, precision: float, certified: float, kept: float, best: float
) -> None:
    """8,000 lines, 45 % valid, 1,000 labels from the best 60 %."""
    one = simulate(binormal(auc, 0.45), 8000, 1000, precision, 0.05, 0.6, 1000)
    assert one.chance >= certified - 0.02
    assert one.kept == pytest.approx(kept, abs=0.012)
    assert one.best == pytest.approx(best, abs=0.012)
    assert one.wrong <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 1000)


def test_curves_are_what_they_are_called() -> None:
    curve = binormal(0.83, 0.4)
    assert curve.auc == pytest.approx(0.83, abs=1e-4)
    assert curve.valid_share == pytest.approx(0.4)
    rng = np.random.default_rng(0)
    lines = 20_000
    valid = rng.random(lines) < 0.4
    scores = rng.normal(size=lines) + 1.35 * valid  # AUC 0.83
    order = np.argsort(-scores)
    places = np.sort(rng.choice(lines, 800, replace=False))
    pilot = from_pilot((places + 1).tolist(), valid[order][places].tolist(), lines)
    assert pilot.auc == pytest.approx(0.83, abs=0.03)
    assert pilot.valid_share == pytest.approx(0.4, abs=0.05)
    assert pilot.best_share(0.8) == pytest.approx(curve.best_share(0.8), abs=0.06)


def test_a_plan_finds_the_labels_that_are_enough() -> None:
    start = time.perf_counter()
    found = plan(100_000, 0.9, binormal(0.9, 0.45), labels=1000)
    assert time.perf_counter() - start < 10
    assert found.needed is not None
    assert found.asked is not None
    assert found.needed.chance >= 0.8
    assert 100 <= found.needed.labels <= 500
    assert found.asked.labels == 1000
    assert found.asked.kept > found.needed.kept > 0.1
    assert found.best_share <= found.max_share <= found.best_share + 0.1
    assert found.advice == ""


def test_drawing_from_what_could_be_kept_keeps_more() -> None:
    curve = binormal(0.8, 0.45)
    planned = plan(8000, 0.8, curve, labels=1000).asked
    wide = plan(8000, 0.8, curve, labels=1000, max_share=1.0).asked
    assert planned is not None
    assert wide is not None
    assert planned.kept > 1.3 * wide.kept
    assert planned.chance > wide.chance


def test_a_weak_critic_is_told_plainly() -> None:
    found = plan(8000, 0.9, binormal(0.65, 0.45))
    assert found.needed is None
    assert "buys little" in found.advice
    assert "before anyone labels" in found.advice


def test_bad_input() -> None:
    for auc, share, message in ((0.4, 0.5, "AUC"), (1.0, 0.5, "AUC"), (0.8, 0.0, "share valid")):
        with pytest.raises(InputError, match=message):
            binormal(auc, share)
    with pytest.raises(InputError, match="pilot labels"):
        from_pilot([1, 2, 3], [True, False, True], 10)
    with pytest.raises(InputError, match="pilot labels"):
        from_pilot(list(range(1, 21)), [True] * 20, 100)
