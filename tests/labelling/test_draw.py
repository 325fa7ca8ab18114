"""Draws: at random where something is to be certified, and never mixed with what trains."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest

from symdistill.errors import InputError
from symdistill.labelling.draw import imported_draw, random_draw, taken_for, training_draw
from symdistill.labelling.store import LabelStore
from symdistill.pool import Line

pytestmark = pytest.mark.unit


def lines(n: int) -> list[Line]:
    return [Line(f"id{i}", i + 1, f"text {i}", score=i / n, question=f"q{i}") for i in range(n)]


def ids(draw: object) -> list[str]:
    return [one.line_id for one in draw.items]  # type: ignore[attr-defined]


def test_a_random_draw_is_seeded_and_blind_to_order_and_score() -> None:
    pool = lines(50)
    one = random_draw(pool, 20, 3, purpose="certificate", pool_hash="p", plan={"delta": 0.05})
    rescored = [Line(each.id, 1, each.text, score=-(each.score or 0)) for each in reversed(pool)]
    other = random_draw(rescored, 20, 3, purpose="certificate", pool_hash="p")
    assert ids(one) == ids(other)
    assert len(set(ids(one))) == 20
    assert one.plan == {"how": "random", "population": 50, "delta": 0.05}
    assert ids(one) != ids(random_draw(pool, 20, 4, purpose="certificate", pool_hash="p"))
    assert ids(one)[:7] == ids(random_draw(pool, 7, 3, purpose="certificate", pool_hash="p"))
    assert (one.items[0].text, one.items[0].question) == (
        f"text {ids(one)[0][2:]}",
        f"q{ids(one)[0][2:]}",
    )


def test_every_line_is_drawn_equally_often_at_every_place() -> None:
    """Over seeds, each of 6 lines stands at each of 3 places in a sixth of the draws."""
    times = 3000
    places = Counter(
        (place, id)
        for seed in range(times)
        for place, id in enumerate(
            ids(random_draw(lines(6), 3, seed, purpose="audit", pool_hash="p"))
        )
    )
    expected = times / 6
    chi = sum((places[place, f"id{i}"] - expected) ** 2 / expected for place in range(3)
              for i in range(6))  # fmt: skip
    assert chi < 37.7  # the 0.1 % point of chi-squared with 15 degrees of freedom


def test_draws_of_different_purposes_with_one_seed_are_unrelated() -> None:
    pool = lines(1000)
    a = ids(random_draw(pool, 100, 0, purpose="audit", pool_hash="p"))
    b = ids(random_draw(pool, 100, 0, purpose="certificate", pool_hash="p"))
    assert len(set(a) & set(b)) < 30


@pytest.mark.parametrize("n", [0, 6])
def test_more_than_there_is_cannot_be_drawn(n: int) -> None:
    with pytest.raises(InputError, match="expected 1 to 5 lines"):
        random_draw(lines(5), n, 0, purpose="audit", pool_hash="p")


def test_near_the_cut() -> None:
    drawn = training_draw(lines(100), 11, 0, how="near_cut", cut=0.3, pool_hash="p", repeats=2)
    assert sorted(ids(drawn)) == sorted(f"id{i}" for i in range(25, 36))
    assert ids(drawn) != sorted(ids(drawn), key=lambda id: abs(int(id[2:]) - 30))  # shown mixed
    assert drawn.plan["how"] == "near the cut 0.3"
    assert drawn.repeats == 2
    middle = training_draw(lines(101), 1, 0, how="near_cut", pool_hash="p")
    assert ids(middle) == ["id50"]  # the median


def test_disagreement_is_of_places_not_of_scales() -> None:
    pool = lines(10)
    second = {one.id: 1000 * (one.score or 0) for one in pool}
    second["id0"], second["id9"] = second["id9"], second["id0"]
    drawn = training_draw(pool, 2, 0, how="disagreement", second_scores=second, pool_hash="p")
    assert sorted(ids(drawn)) == ["id0", "id9"]


@pytest.mark.parametrize("score", [None, math.nan, math.inf])
def test_scores_that_are_needed_have_to_be_there(score: float | None) -> None:
    pool = [*lines(3), Line("x", 4, "x", score=score)]
    with pytest.raises(InputError, match="expected a score on every line; 1 of 4"):
        training_draw(pool, 2, 0, how="near_cut", pool_hash="p")
    with pytest.raises(InputError, match="expected a second score on every line; 3 of 3"):
        training_draw(lines(3), 2, 0, how="disagreement", pool_hash="p")
    assert len(training_draw(pool, 9, 0, how="random", pool_hash="p").items) == 4


def test_ties_in_every_score_are_drawn_at_random() -> None:
    pool = [Line(f"id{i}", i, "t", score=0.5) for i in range(100)]
    drawn = ids(training_draw(pool, 10, 0, how="near_cut", pool_hash="p"))
    assert set(drawn) != {f"id{i}" for i in range(10)}
    assert drawn == ids(training_draw(pool[::-1], 10, 0, how="near_cut", pool_hash="p"))


def test_training_and_certificates_never_share_a_line(tmp_path: Path) -> None:
    pool = lines(30)
    with LabelStore(tmp_path) as store:
        store.add_draw(random_draw(pool, 10, 0, purpose="certificate", pool_hash="p"))
        taken = taken_for(store, "train")
        train = training_draw(pool, 99, 0, how="random", pool_hash="p", taken=taken)
        assert len(train.items) == 20 and not taken & set(ids(train))
        assert train.plan["left_out"] == 10
        store.add_draw(train)
        assert taken_for(store, "audit") == taken_for(store, "certificate") == set(ids(train))
        with pytest.raises(InputError, match="all 30 are"):
            training_draw(pool, 1, 0, how="random", pool_hash="p", taken=taken_for(store, "train"))


def test_imported_lines_keep_their_order() -> None:
    drawn = imported_draw(lines(3)[::-1], pool_hash="p")
    assert ids(drawn) == ["id2", "id1", "id0"]
    assert (drawn.purpose, drawn.plan["how"]) == ("train", "imported")
