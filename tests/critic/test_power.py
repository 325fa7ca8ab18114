"""Planning a certificate: the fast procedure against the exact one, and against known figures."""

from __future__ import annotations

import time

import numpy as np
import pytest

from symdistill.critic.fixed_sequence import (
    fewest_bad,
    labels_at_start,
    least_labels,
    p_value,
    walk_cuts,
)
from symdistill.critic.power import (
    all_sizes,
    allowed_invalid,
    binormal,
    certified_cut,
    draw_labels,
    from_pilot,
    pilot_auc,
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
    ("precision", "labels"),
    [(0.9, 30), (0.9, 41), (0.9, 60), (0.9, 100), (0.9, 120), (0.9, 1000), (0.8, 40), (0.8, 60),
     (0.95, 100)],
)  # fmt: skip
def test_a_pool_that_is_all_valid_is_certified(precision: float, labels: int) -> None:
    """The first cut holds enough of the labels, whatever the luck of the draw."""
    sizes = all_sizes(8000, 4800, labels, precision, 0.05)
    between = np.diff(np.concatenate([[0], sizes]))
    bad = np.zeros((1000, len(sizes)), dtype=np.int64)
    labelled, invalid = draw_labels(np.random.default_rng(0), bad, between, labels)
    assert (certified_cut(sizes, labelled, invalid, precision, 0.05) >= 0).mean() >= 0.98


@pytest.mark.parametrize(("precision", "least"), [(0.9, 29), (0.95, 59), (0.8, 14)])
def test_the_fewest_labels_that_can_certify(precision: float, least: int) -> None:
    assert least_labels(precision, 0.05) == least
    for lines in (1, 20, 100, 5000):
        bad, few = fewest_bad(lines, precision), least_labels(precision, 0.05, lines)
        assert p_value(lines, bad, few, 0) <= 0.05 < p_value(lines, bad, few - 1, 0)
        assert few <= least
    assert least_labels(1.0, 0.05, 100) == 95


def test_no_level_is_too_small() -> None:
    assert labels_at_start(0.9, 1e-300, 1000) > 1000  # more than there are: only the largest cut
    assert all_sizes(8000, 4800, 1000, 0.9, 1e-300).tolist() == [4800]


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


@pytest.mark.parametrize("lines", [1, 2, 11, 30, 80])
def test_a_tiny_pool_is_not_asked_for_fewer_labels_than_prove_anything(lines: int) -> None:
    found = plan(lines, 0.8, binormal(0.9, 0.7), max_share=0.6, ladder=True)
    top = max(1, int(0.6 * lines))
    least = max(10, least_labels(0.8, 0.05, top))
    proposed = [*found.ladder, *([found.needed] if found.needed else [])]
    assert all(one.labels >= least for one in proposed)
    if top < least:
        assert not proposed
        assert f"at least {least} labels" in found.advice and "too few" in found.advice


def test_a_group_gets_its_share_of_the_labels() -> None:
    curve = binormal(0.85, 0.45)
    alone = plan(800, 0.8, curve, labels=100, max_share=0.6, statements=10).asked
    found = plan(8000, 0.8, curve, labels=1000, max_share=0.6, statements=10, part=0.1, ladder=True)
    assert alone is not None and found.asked is not None
    assert (found.asked.labels, found.asked.chance) == (1000, alone.chance)
    assert [one.labels for one in found.ladder] == [1000, 2000, 4000]
    assert found.needed is not None and found.needed.labels >= 1000


def test_a_score_that_runs_the_other_way() -> None:
    assert pilot_auc([1, 2, 3, 4], [True, False, True, False]) == (0.75, False)
    assert pilot_auc(list(range(1, 41)), [place > 20 for place in range(1, 41)]) == (0.0, True)
    assert pilot_auc([1, 2, 3], [False, True, False])[1] is False  # so few show nothing


def test_bad_input() -> None:
    for auc, share, message in ((0.4, 0.5, "AUC"), (1.0, 0.5, "AUC"), (0.8, 0.0, "share valid")):
        with pytest.raises(InputError, match=message):
            binormal(auc, share)
    with pytest.raises(InputError, match="pilot labels"):
        from_pilot([1, 2, 3], [True, False, True], 10)
    with pytest.raises(InputError, match="pilot labels"):
        from_pilot(list(range(1, 21)), [True] * 20, 100)
