"""The certificate against its definition by enumeration, and against its own promise."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symdistill.critic.certificate import (
    Certificate,
    Frozen,
    Labelling,
    cannot_pass,
    certify,
    freeze,
    sunk_by_one,
)
from symdistill.critic.fixed_sequence import (
    fewest_bad,
    fix_cuts,
    labels_at_start,
    p_value,
    precision_interval,
    walk_cuts,
    why_not_random,
)
from symdistill.critic.kept_certificates import (
    Trial,
    append_row,
    keep_tested,
    read_certificates,
    read_tested,
    void,
    write_certificate,
)
from symdistill.errors import InputError
from symdistill.pool import LabelWord, Line

pytestmark = pytest.mark.unit


# -- the p-value ----------------------------------------------------------------------------------


def enumerated(population: int, bad: int, drawn: int, invalid: int) -> Fraction:
    """The share of all draws with at most so many of the first `bad` lines."""
    draws = list(combinations(range(population), drawn))
    few = sum(sum(line < bad for line in draw) <= invalid for draw in draws)
    return Fraction(few, len(draws))


@pytest.mark.parametrize("population", [1, 2, 5, 9])
def test_p_is_the_share_of_all_draws(population: int) -> None:
    for bad in range(population + 1):
        for drawn in range(population + 1):
            for invalid in range(drawn + 1):
                expected = float(enumerated(population, bad, drawn, invalid))
                assert p_value(population, bad, drawn, invalid) == expected


@given(st.data())
def test_p_grows_with_the_invalid_lines_and_falls_with_the_bad_ones(data: st.DataObject) -> None:
    population = data.draw(st.integers(2, 300))
    drawn = data.draw(st.integers(1, population))
    bad = data.draw(st.integers(0, population - 1))
    ps = [p_value(population, bad, drawn, invalid) for invalid in range(drawn + 1)]
    assert ps == sorted(ps)
    assert ps[-1] == 1
    if bad:
        assert all(p == 1 for p in ps[min(bad, drawn) :])
    else:
        assert ps[0] == 1
    invalid = data.draw(st.integers(0, drawn))
    assert p_value(population, bad + 1, drawn, invalid) <= ps[invalid]


def test_p_of_large_pools_is_right_and_does_not_underflow() -> None:
    hypergeom = pytest.importorskip("scipy.stats").hypergeom
    for population, drawn, invalid in ((10_000, 900, 150), (100_000, 5000, 950), (10**6, 400, 0)):
        bad = fewest_bad(population, 0.8)
        expected = hypergeom.cdf(invalid, population, bad, drawn)
        assert p_value(population, bad, drawn, invalid) == pytest.approx(expected, rel=1e-8)
    assert p_value(100_000, 20_000, 20_000, 3900) == pytest.approx(
        hypergeom.cdf(3900, 100_000, 20_000, 20_000)
    )
    assert p_value(10**6, 500_000, 5000, 0) == 0.0  # below the smallest double
    assert p_value(50_000, 10_001, 50_000, 10_000) == 0.0  # all labelled: known
    assert p_value(50_000, 10_001, 50_000, 10_001) == 1.0


@given(st.integers(1, 10_000), st.integers(1, 100))
def test_the_fewest_bad_lines_just_make_the_statement_false(size: int, percent: int) -> None:
    """Also where a double would be off: 90 % of 1,000 lines may be valid, not 899."""
    bad = fewest_bad(size, percent / 100)
    assert Fraction(size - bad, size) < Fraction(percent, 100) <= Fraction(size - bad + 1, size)


# -- cuts and start -------------------------------------------------------------------------------


@given(
    st.integers(1, 5000), st.floats(0.01, 1), st.sampled_from([0.5, 0.8, 0.9, 0.99, 1.0]),
    st.sampled_from([0.05, 0.01]),
)  # fmt: skip
def test_cuts_grow_up_to_the_largest(
    most: int, share: float, precision: float, level: float
) -> None:
    sizes = fix_cuts(most, math.ceil(0.01 * most), share, precision, level)
    assert list(sizes) == sorted(set(sizes))
    assert sizes[-1] == most
    assert sizes[0] >= 1
    if len(sizes) > 1:
        assert sizes[0] * share >= labels_at_start(precision, level, round(share * most))


def test_the_start_is_where_a_cut_can_pass() -> None:
    assert labels_at_start(0.9, 0.05, 1000) == 118
    for precision in (0.6, 0.8, 0.9, 0.95):
        for labels in (20, 100, 1000):
            enough = labels_at_start(precision, 0.05, labels)
            assert precision**enough <= 0.05  # all of them valid


def test_stops_at_the_first_failure() -> None:
    ranks = list(range(1, 401))  # all are labelled, so that a cut passes if it is true
    bad = [*range(101, 131), *range(398, 401)]
    tests = walk_cuts([100, 120, 130, 400], ranks, bad, 0.9, 0.05)
    assert [one.passed for one in tests] == [True, False]  # 20 of 120 are bad; 400 is never tested
    assert (tests[1].labelled, tests[1].invalid) == (120, 20)


# -- labels that were not drawn at random ---------------------------------------------------------


def test_random_draws_are_accepted() -> None:
    rng = np.random.default_rng(1)
    for population, n in ((50, 10), (50, 49), (50, 50), (4800, 1000), (100_000, 300)):
        for _ in range(30):
            ranks = sorted(rng.choice(population, n, replace=False) + 1)
            assert why_not_random([int(one) for one in ranks], population) is None


@pytest.mark.parametrize(
    ("ranks", "why"),
    [
        (range(1, 301), "none is among the last"),
        (range(2000, 2300), "none is among"),
        (range(2000, 2012), "all of them lie within 12 lines from place 2,000"),
        ([*range(1, 2400, 20), *range(2400, 2520), *range(2521, 4800, 20)], "half of them lie"),
        ([*range(1, 1000, 3), *range(1000, 4800, 30)], "half of them"),
    ],
    ids=["the best", "near a cut", "few near a cut", "a bunch within others", "most near the top"],
)
def test_other_draws_are_refused(ranks: range | list[int], why: str) -> None:
    assert why in (why_not_random(list(ranks), 4800) or "")


# -- the whole procedure --------------------------------------------------------------------------


def pool(valid: np.ndarray, groups: int = 1) -> tuple[list[Line], dict[str, LabelWord]]:
    """Lines in the order of their scores, and what is true of each."""
    lines = [
        Line(f"id{i}", i + 1, f"line {i}", float(-i), group=f"g{i % groups}")
        for i in range(len(valid))
    ]
    words: dict[str, LabelWord] = {
        line.id: "valid" if good else "invalid" for line, good in zip(lines, valid, strict=True)
    }
    return lines, words


def issue(
    lines: list[Line],
    words: dict[str, LabelWord],
    frozen: Frozen,
    seed: int = 0,
    labels: int | None = None,
) -> list[Certificate]:
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(frozen.top)[: labels or frozen.looks[-1]]
    given = [(lines[i].id, words[lines[i].id]) for i in drawn]
    labelling = Labelling("draw-1", ("ann",), "2026-01-05", "2026-01-06")
    return certify(lines, frozen, given, source="lines.csv", labelling=labelling)


def falling(lines: int, seed: int, best: float = 1.0) -> np.ndarray:
    """Fewer are valid the lower the place."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.random(lines) < np.linspace(best, 0, lines))


def test_the_sentence_says_all_of_it() -> None:
    lines, words = pool(falling(3000, 1))
    frozen = freeze(lines, "pool", precision=[0.8], max_share=0.6, labels=600, left_out=12)
    (one,) = issue(lines, words, frozen)
    assert one.certified
    assert one.kept == max(test.size for test in one.tests if test.passed)
    assert one.line_ids == tuple(sorted(line.id for line in lines[: one.kept]))
    assert one.cut_score == lines[one.kept - 1].score
    for words_ in (
        f"Of these {one.kept:,} frozen lines (hash {one.line_ids_hash[:12]}), at least 80 % would "
        'be marked valid by this labelling procedure (by "ann", 2026-01-05 to 2026-01-06',
        "errs in at most 5 % of its uses",
        "12 lines labelled before had left the pool",
        "It says nothing about other lines, later rounds, the student, or other concepts",
    ):
        assert words_ in one.sentence
    assert "If the" not in one.sentence
    assert one.low < (one.estimate or 0) < one.high
    column = certify(lines, frozen, [(line.id, words[line.id]) for line in lines[:600]],
                     source="lines.csv", labelling=Labelling())  # fmt: skip
    assert column[0].sentence.startswith("If the 600 labelled lines were drawn at random from")


def test_a_failure_says_what_was_found() -> None:
    lines, words = pool(falling(1000, 1, best=0.5))
    frozen = freeze(lines, "pool", precision=[0.9], max_share=0.5, labels=200)
    (one,) = issue(lines, words, frozen)
    assert not one.certified
    assert (one.kept, one.line_ids, one.cut_score) == (0, (), None)
    assert one.sentence.startswith("Nothing is certified:")


def test_unsure_counts_as_invalid() -> None:
    lines, words = pool(falling(1000, 1))
    frozen = freeze(lines, "pool", precision=[0.9], max_share=0.5, labels=300)
    (one,) = issue(lines, words, frozen)
    unsure: dict[str, LabelWord] = {
        id: "unsure" if word == "invalid" else word for id, word in words.items()
    }
    (other,) = issue(lines, unsure, frozen)
    assert [t.p for t in one.tests] == [t.p for t in other.tests]


def test_everything_labelled_is_known() -> None:
    valid = np.array([True] * 60 + [False] * 40)
    lines, words = pool(valid)
    frozen = freeze(lines, "pool", precision=[0.9], max_share=1.0, labels=100)
    (one,) = issue(lines, words, frozen)
    assert one.kept == 66  # 60 of 66 are more than nine tenths, 60 of 67 are fewer


def test_statements_and_looks_share_the_error_rate() -> None:
    lines, words = pool(falling(4000, 3), groups=2)
    frozen = freeze(lines, "pool", precision=[0.8, 0.9], max_share=0.5, labels=1000, looks=2,
                    groups=True)  # fmt: skip
    assert frozen.looks == (500, 1000)
    assert frozen.level == pytest.approx(0.05 / 8)
    found = issue(lines, words, frozen)
    assert [(one.group, one.precision_target) for one in found] == [
        ("g0", 0.8), ("g0", 0.9), ("g1", 0.8), ("g1", 0.9)
    ]  # fmt: skip
    for one in found:
        assert all(test.passed == (test.p <= 0.05 / 8) for test in one.tests)
        assert {id for id in one.line_ids} <= {x.id for x in lines if x.group == one.group}
        assert "all 4 statements together, with 2 looks fixed beforehand" in one.sentence
    early = issue(lines, words, frozen, labels=700)  # the first look only
    assert {one.look for one in early} == {500}
    with pytest.raises(InputError, match="label 100 more"):
        issue(lines, words, frozen, labels=400)
    assert Frozen.from_plan(json.loads(json.dumps(frozen.to_plan()))) == frozen


@pytest.mark.parametrize("kind", ["independent", "clustered", "abrupt"])
def test_it_errs_no_more_often_than_it_says(kind: str) -> None:
    """At the boundary: the first false cut is false by one line."""
    from symdistill.critic.power import all_sizes, certified_cut, draw_labels

    lines, labels, precision, runs = 3000, 500, 0.8, 2000
    top = lines // 2
    sizes = all_sizes(lines, top, labels, precision, 0.05)
    between = np.diff(np.concatenate([[0], sizes]))
    fewest = np.array([fewest_bad(int(k), precision) for k in sizes])
    rng = np.random.default_rng(7)
    chance = np.linspace(0.02, 0.6, len(sizes))
    if kind == "abrupt":
        bad = np.zeros((runs, len(sizes)), dtype=np.int64)
        bad[:, 0] = fewest[0]
        bad[:, 1:] = np.diff(fewest)  # every cut is false by one
    else:
        swing = rng.beta(1, 4, size=(runs, len(sizes))) * 5 if kind == "clustered" else 1.0
        bad = rng.binomial(between, np.clip(chance * swing, 0, 1), size=(runs, len(sizes)))
        up_to = np.cumsum(bad, axis=1)
        first = (up_to >= fewest).argmax(axis=1)
        rows = np.flatnonzero((up_to >= fewest).any(axis=1))
        bad[rows, first[rows]] -= up_to[rows, first[rows]] - fewest[first[rows]]
    last = certified_cut(sizes, *draw_labels(rng, bad, between, labels), precision, 0.05)
    false = np.cumsum(bad, axis=1)[np.arange(runs), last] >= fewest[last]
    rate = ((last >= 0) & false).mean()
    assert rate <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)
    if kind == "abrupt":
        assert rate > 0.02  # the bound is used, not wasted


def test_choosing_the_cut_on_the_labels_does_err() -> None:
    """The validation curve, beside the certificate, on the same lines."""
    wrong = {"curve": 0, "certificate": 0}
    runs = 100
    for seed in range(runs):
        valid = falling(2000, seed)
        lines, words = pool(valid)
        frozen = freeze(lines, "pool", precision=[0.8], max_share=0.6, labels=300)
        (one,) = issue(lines, words, frozen, seed)
        wrong["certificate"] += one.kept > 0 and valid[: one.kept].mean() < 0.8
        ranks = np.sort(np.random.default_rng(seed).permutation(frozen.top)[:300])
        share = np.cumsum(valid[ranks]) / np.arange(1, 301)
        loosest = ranks[np.flatnonzero(share >= 0.8).max()] + 1
        wrong["curve"] += valid[:loosest].mean() < 0.8
    assert wrong["certificate"] <= 11
    assert wrong["curve"] >= 30


# -- bad input, files -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": [0.0]}, "precision above 0"),
        ({"precision": [1.2]}, "precision above 0"),
        ({"max_share": 0.0}, "max-share above 0"),
        ({"max_share": float("nan")}, "max-share above 0"),
        ({"delta": 0.0}, "delta above 0"),
        ({"labels": 9}, "expected 10 to 50 labels"),
        ({"labels": 51}, "expected 10 to 50 labels"),
        ({"looks": 0}, "looks"),
        ({"looks": 6}, "looks"),
    ],
)
def test_what_cannot_be_frozen(change: dict[str, object], message: str) -> None:
    lines, _ = pool(falling(100, 0))
    usual = {"precision": [0.8], "max_share": 0.5, "labels": 50}
    with pytest.raises(InputError, match=message):
        freeze(lines, "pool", **{**usual, **change})  # type: ignore[arg-type]
    nameless = [replace(line, group=None) for line in lines]
    with pytest.raises(InputError, match="a group on every line"):
        freeze(nameless, "pool", precision=[0.8], max_share=0.5, labels=50, groups=True)


def test_files_are_read_as_they_were_written(tmp_path: Path) -> None:
    lines, words = pool(falling(1000, 1))
    lines[0] = replace(lines[0], id="a\nb")
    words["a\nb"] = words["id0"]
    frozen = freeze(lines, "pool", precision=[0.8, 0.99], max_share=0.6, labels=300)
    found = issue(lines, words, frozen)
    paths = [write_certificate(tmp_path, one) for one in found]
    assert dict(read_certificates(tmp_path)) == dict(zip(paths, found, strict=True))
    assert [write_certificate(tmp_path, one) for one in found] == paths  # a repeat takes its place
    kept = next(one for _, one in read_certificates(tmp_path) if one.certified)
    assert kept.holds("a\nb")
    assert not kept.holds("id999")
    assert not list((tmp_path / "certificates").glob("*.aside"))


def test_a_void_certificate_stays_and_says_why(tmp_path: Path) -> None:
    lines, words = pool(falling(1000, 1))
    frozen = freeze(lines, "pool", precision=[0.8], max_share=0.6, labels=300)
    path = write_certificate(tmp_path, issue(lines, words, frozen)[0])
    void(path, "line id3 was withdrawn")
    void(path, "another reason")
    ((_, one),) = read_certificates(tmp_path)
    assert one.voided is not None
    assert one.voided["why"] == "line id3 was withdrawn"
    with pytest.raises(InputError, match="a certificate at"):
        void(tmp_path / "none.json", "why")


def test_changed_files_are_refused(tmp_path: Path) -> None:
    lines, words = pool(falling(1000, 1))
    frozen = freeze(lines, "pool", precision=[0.8], max_share=0.6, labels=300)
    path = write_certificate(tmp_path, issue(lines, words, frozen)[0])
    ids = path.with_suffix(".ids")
    ids.write_text(ids.read_text() + '"another"\n')
    with pytest.raises(InputError, match="they were changed"):
        read_certificates(tmp_path)
    path.write_text("{")
    with pytest.raises(InputError, match="expected a certificate at"):
        read_certificates(tmp_path)
    assert read_certificates(tmp_path / "nowhere") == []


def test_the_interval_of_many_labels_is_the_same_test_inverted() -> None:
    population, drawn, invalid = 20_000, 6000, 480
    low, high = precision_interval(population, drawn, invalid)
    hypergeom = pytest.importorskip("scipy.stats").hypergeom
    most, fewest = round((1 - low) * population), round((1 - high) * population)
    assert hypergeom.cdf(invalid, population, most, drawn) > 0.025
    assert hypergeom.cdf(invalid, population, most + 1, drawn) <= 0.025
    assert hypergeom.sf(invalid - 1, population, fewest, drawn) > 0.025
    assert hypergeom.sf(invalid - 1, population, fewest - 1, drawn) <= 0.025


def test_what_can_pass_with_so_many_labels() -> None:
    lines, _ = pool(np.ones(200, dtype=bool), groups=2)
    frozen = freeze(lines, "pool", precision=[0.95], max_share=1.0, labels=20)
    ((statement, least),) = cannot_pass(lines, frozen).items()
    assert statement == (None, 0.95)
    bad = fewest_bad(200, 0.95)
    assert p_value(200, bad, least, 0) <= 0.05 < p_value(200, bad, least - 1, 0)
    enough = freeze(lines, "pool", precision=[0.95], max_share=1.0, labels=least)
    assert not cannot_pass(lines, enough)
    split = freeze(lines, "pool", precision=[0.5, 0.9], max_share=1.0, labels=50, groups=True)
    assert set(cannot_pass(lines, split)) == {("g0", 0.9), ("g1", 0.9)}


def test_rows_that_a_kill_cut_off_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "tested.jsonl"
    keep_tested(tmp_path, Trial("use 1", "pool", (("a", "valid"),)))
    file.write_bytes(file.read_bytes() + b'{"use": "use 2", "labelling": {}')
    keep_tested(tmp_path, Trial("use 3", "pool", ()))
    keep_tested(tmp_path, Trial("use 1", "pool", (("a", "valid"),)))  # a repeat
    assert [one.use for one in read_tested(tmp_path)] == ["use 1", "use 3"]
    append_row(file, {"use": "use 4"})
    with pytest.raises(InputError, match=r"got on row 4: .* restore the file"):
        read_tested(tmp_path)


def test_it_is_known_where_one_invalid_line_ends_the_test() -> None:
    lines = [Line(str(n), n, f"line {n}", 1 / n) for n in range(1, 1001)]
    for labels, sunk in ((40, True), (600, False)):
        frozen = freeze(lines, "", precision=[0.9], max_share=0.6, labels=labels)
        found = sunk_by_one(lines, frozen)
        assert (list(found) == [(None, 0.9)]) == sunk
        if sunk:
            size = round(found[None, 0.9] * 600 / labels)
            assert p_value(size, fewest_bad(size, 0.9), found[None, 0.9], 1) > 0.05
