"""Resampling draws whole groups, as many as there are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symdistill.resampling import cluster_resamples, group_numbers

pytestmark = pytest.mark.unit


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=30), st.integers(0, 1000))
def test_groups_are_drawn_whole(groups: list[str], seed: int) -> None:
    sizes = {g: groups.count(g) for g in groups}
    for rows in cluster_resamples(groups, 5, seed):
        drawn = 0.0
        for group, size in sizes.items():
            members = [i for i, g in enumerate(groups) if g == group]
            times = {int((rows == i).sum()) for i in members}
            assert len(times) == 1  # all lines of a group equally often
            drawn += times.pop()
            assert size == len(members)
        assert drawn == len(sizes)


def test_same_seed_same_resamples() -> None:
    groups = list("aabbccdd")
    first = [r.tolist() for r in cluster_resamples(groups, 4, 7)]
    assert first == [r.tolist() for r in cluster_resamples(groups, 4, 7)]
    assert first != [r.tolist() for r in cluster_resamples(groups, 4, 8)]


def test_group_numbers_point_back() -> None:
    numbers, names = group_numbers(["b", "a", "b"])
    assert [names[i] for i in numbers] == ["b", "a", "b"]


def test_no_lines_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one line"):
        next(cluster_resamples([], 1, 0))


def test_spread_is_that_of_the_cluster_means() -> None:
    rng = np.random.default_rng(0)
    effects = rng.normal(size=200)
    values = np.repeat(effects, 10)  # ten equal lines a group: only 200 independent numbers
    groups = np.repeat(np.arange(200), 10).tolist()
    means = [values[r].mean() for r in cluster_resamples(groups, 2000, 1)]
    assert np.std(means) == pytest.approx(effects.std() / np.sqrt(200), rel=0.1)
