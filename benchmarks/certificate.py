"""The certificate under test: how often it is wrong, what it keeps, and how the usual ways fail.

Every rate is over `--runs` pools of 8,000 lines (topping up: 2,000 at most), each with a new sample
of 1,000 labels out of its best 60 %, at a nominal 5 %. A run is *wrong* if it certifies a top part
that falls short of the precision. At the boundary, the first false cut of each pool falls short by
a single line.

violation_rate: the highest of the rates at the boundary; violation_upper: the upper end of its
exact 95 % interval; violation_allowed: 0.05 + 2 Monte-Carlo standard errors. volume_vs_oracle:
lines kept over lines that the best cut in hindsight keeps (AUC 0.85, 45 % valid, precision 0.80).
The usual ways run on ordinary pools, but for topping up, which runs at the boundary, too.

    python -m benchmarks.certificate --data FOLDER

About four minutes on one core; without the folder of labelled statements that part is left out.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.result import finish
from symdistill.critic.fixed_sequence import fewest_bad
from symdistill.critic.power import (
    all_sizes,
    allowed_invalid,
    binormal,
    certified_cut,
    draw_labels,
    plan,
    simulate,
)
from symdistill.exact import share_interval

LINES, LABELS, SHARE, DELTA, PRECISION = 8000, 1000, 0.6, 0.05, 0.8
TOP = int(SHARE * LINES)
CHUNK = 250  # pools at a time

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Make = Callable[[np.random.Generator, int], Bools]  # -> (R, LINES) valid, best score first


# ---------------------------------------------------------------------------------------- the pools


def ranked(scores: NDArray[np.float64], valid: Bools, lines: int = LINES) -> Bools:
    """The labels of the best `lines` in the order of their scores, (R, lines)."""
    order = np.argsort(-scores, axis=1)[:, :lines]
    return np.take_along_axis(valid, order, axis=1)


def apart(auc: float) -> float:
    """How far apart two normal distributions of variance 1 are at this AUC."""
    from scipy.stats import norm

    return float(math.sqrt(2) * norm.ppf(auc))


def independent(rng: np.random.Generator, runs: int) -> Bools:
    """Each line valid or not by itself; AUC 0.85, 45 % valid."""
    valid = rng.random((runs, LINES)) < 0.45
    return ranked(rng.normal(size=valid.shape) + apart(0.85) * valid, valid)


def clustered(rng: np.random.Generator, runs: int) -> Bools:
    """Concepts of 20 lines that are right or wrong together, intra-class correlation 0.3."""
    both = 1 / 0.3 - 1
    share = rng.beta(0.45 * both, 0.55 * both, size=(runs, LINES // 20))
    valid = rng.random((runs, LINES)) < np.repeat(share, 20, axis=1)
    liked = np.repeat(rng.normal(0, 0.5, size=share.shape), 20, axis=1)  # by the critic
    return ranked(rng.normal(size=valid.shape) + liked + apart(0.85) * valid, valid)


def selected(rng: np.random.Generator, runs: int) -> Bools:
    """The best of four times as many, of which half of the valid ones went as duplicates."""
    valid = rng.random((runs, 4 * LINES)) < 0.45
    scores = rng.normal(size=valid.shape) + apart(0.85) * valid
    gone = rng.random(valid.shape) < np.where(valid, 0.5, 0.1)
    chosen = scores + rng.normal(size=valid.shape)  # by another quality that goes with the score
    chosen[gone] = -np.inf
    kept = np.argpartition(-chosen, LINES, axis=1)[:, :LINES]
    return ranked(np.take_along_axis(scores, kept, axis=1), np.take_along_axis(valid, kept, axis=1))


def drifting(rng: np.random.Generator, runs: int) -> Bools:
    """Three rounds; in each the scores rise and tell less, for the student pleases the critic."""
    rounds = rng.integers(3, size=(runs, LINES))
    valid = rng.random((runs, LINES)) < np.array([0.35, 0.45, 0.5])[rounds]
    gap = np.array([apart(0.92), apart(0.85), apart(0.75)])[rounds]
    return ranked(rng.normal(size=valid.shape) + 0.4 * rounds + gap * valid, valid)


def overrated(rng: np.random.Generator, runs: int) -> Bools:
    """A critic with favourites: of its best tenth only 60 % are valid."""
    favourites = int(LINES * 0.1)
    valid = independent(rng, runs)
    valid[:, :favourites] = rng.random((runs, favourites)) < 0.6
    chance = np.interp(np.arange(LINES), [favourites, 0.3 * LINES, LINES], [0.97, 0.85, 0.2])
    valid[:, favourites:] = rng.random((runs, LINES - favourites)) < chance[favourites:]
    return valid


def chunks(make: Make, runs: int, seed: int) -> Iterator[tuple[np.random.Generator, Bools]]:
    """Pools, some at a time."""
    rng = np.random.default_rng(seed)
    for start in range(0, runs, CHUNK):
        yield rng, make(rng, min(CHUNK, runs - start))


# -------------------------------------------------------------------------------- the certificate


SIZES = all_sizes(LINES, TOP, LABELS, PRECISION, DELTA)
BETWEEN = np.diff(np.concatenate([[0], SIZES]))
FEWEST_BAD = np.array([fewest_bad(int(size), PRECISION) for size in SIZES])
ALLOWED = allowed_invalid(SIZES, PRECISION, DELTA, LABELS)


def bad_between(valid: Bools, sizes: Ints = SIZES) -> Ints:
    """Invalid lines between neighbouring cuts, (R, J)."""
    up_to = np.cumsum(~valid, axis=1)[:, sizes - 1]
    return np.asarray(np.diff(up_to, axis=1, prepend=0))


def at_the_boundary(bad: Ints) -> Ints:
    """The same pools, with invalid lines made valid until the first false cut is false by one."""
    up_to = np.cumsum(bad, axis=1)
    false = up_to >= FEWEST_BAD
    rows = np.flatnonzero(false.any(axis=1))
    first = false[rows].argmax(axis=1)
    bad = bad.copy()
    bad[rows, first] -= up_to[rows, first] - FEWEST_BAD[first]
    return bad


def abrupt(rng: np.random.Generator, runs: int) -> Ints:
    """The hardest pools: all valid, then invalid lines until a cut, and all after it, are false."""
    bad = np.zeros((runs, len(SIZES)), dtype=np.int64)
    first = rng.integers(len(SIZES), size=runs)
    for run, cut in enumerate(first):
        left = FEWEST_BAD[cut]
        for place in range(cut, -1, -1):  # as low as there is room
            bad[run, place] = min(left, BETWEEN[place])
            left -= bad[run, place]
        bad[run, cut + 1 :] = np.diff(FEWEST_BAD[cut:])  # each later cut is false by one line, too
    return bad


def certify(rng: np.random.Generator, bad: Ints) -> tuple[Ints, Bools]:
    """Lines kept and whether that is wrong, (R,) each."""
    labelled, invalid = draw_labels(rng, bad, BETWEEN, LABELS)
    last = certified_cut(SIZES, labelled, invalid, PRECISION, DELTA)
    return np.where(last >= 0, SIZES[last], 0), wrong(bad, last)


def wrong(bad: Ints, last: Ints) -> Bools:
    """Whether the top part up to a cut (-1: none) falls short, (R,)."""
    up_to = np.cumsum(bad, axis=1)[np.arange(len(bad)), last]
    return np.asarray((last >= 0) & (up_to >= FEWEST_BAD[last]))


def best_in_hindsight(bad: Ints) -> Ints:
    """Lines that the largest true cut keeps, (R,)."""
    return np.asarray(np.where(np.cumsum(bad, axis=1) < FEWEST_BAD, SIZES, 0).max(axis=1))


def certificate_rates(make: Make, runs: int, seed: int) -> dict[str, float]:
    """On ordinary pools, and at the boundary."""
    kept, best, errs, errs_at_boundary = [], [], [], []
    for rng, valid in chunks(make, runs, seed):
        bad = bad_between(valid)
        found = certify(rng, bad)
        kept.append(found[0])
        errs.append(found[1])
        best.append(best_in_hindsight(bad))
        errs_at_boundary.append(certify(rng, at_the_boundary(bad))[1])
    return {
        "violation_rate": _mean(errs_at_boundary),
        "violation_rate_ordinary": _mean(errs),
        "certified": float((np.concatenate(kept) > 0).mean()),
        "kept": _mean(kept) / LINES,
        "best_in_hindsight": _mean(best) / LINES,
    }


# ---------------------------------------------------------------------------------- the usual ways


def counts(ranks: Ints, valid: Bools) -> tuple[Ints, Ints]:
    """Labelled and invalid lines up to each cut, (R, J); ranks (R, n) from 0."""
    runs, cuts = len(ranks), len(SIZES) + 1
    place = np.searchsorted(SIZES, ranks, side="right") + cuts * np.arange(runs)[:, None]
    bad = ~np.take_along_axis(valid, ranks, axis=1)
    labelled = np.bincount(place.ravel(), minlength=runs * cuts).reshape(runs, cuts)
    invalid = np.bincount(place[bad], minlength=runs * cuts).reshape(runs, cuts)
    return np.cumsum(labelled, axis=1)[:, :-1], np.cumsum(invalid, axis=1)[:, :-1]


def drawn(rng: np.random.Generator, runs: int, first: int, last: int, n: int) -> Ints:
    """Ranks of n lines drawn at random from first..last-1, in random order, (R, n)."""
    return np.asarray(first + np.argsort(rng.random((runs, last - first)), axis=1)[:, :n])


def validation_curve(rng: np.random.Generator, valid: Bools) -> Bools:
    """The loosest cut over 30 labels or more whose labelled lines reach the precision."""
    labelled, invalid = counts(drawn(rng, len(valid), 0, TOP, LABELS), valid)
    reached = (invalid <= (1 - PRECISION) * labelled + 1e-9) & (labelled >= 30)
    last = np.where(reached, np.arange(len(SIZES)), -1).max(axis=1)
    return wrong(bad_between(valid), last)


def topping_up(rng: np.random.Generator, valid: Bools) -> Bools:
    """The certificate's own test at 100 labels, 120, ... 1,000, until it keeps what is wanted.

    Wanted is the first cut that falls short.
    """
    ranks = drawn(rng, len(valid), 0, TOP, LABELS)
    bad = at_the_boundary(bad_between(valid))
    valid = _made_valid(valid, bad)
    wanted = (np.cumsum(bad, axis=1) >= FEWEST_BAD).argmax(axis=1)
    last = np.full(len(valid), -1)
    for labels in range(100, LABELS + 1, 20):
        labelled, invalid = counts(ranks[:, :labels], valid)
        now = certified_cut(SIZES, labelled, invalid, PRECISION, DELTA)
        last = np.where(last >= wanted, last, np.maximum(now, last))
    return wrong(bad, last)


def _made_valid(valid: Bools, bad: Ints) -> Bools:
    """Lines with `bad` invalid ones between cuts, which are no more than there were."""
    spare = bad_between(valid) - bad
    valid = valid.copy()
    for run, cut in zip(*np.nonzero(spare), strict=True):
        part = slice(SIZES[cut] - BETWEEN[cut], SIZES[cut])
        valid[run, part][np.flatnonzero(~valid[run, part])[: spare[run, cut]]] = True
    return valid


def near_cut(rng: np.random.Generator, valid: Bools) -> Bools:
    """The test on labels from places 15 % to 45 %, around a cut, as if they were random."""
    first, last = int(0.15 * LINES), int(0.45 * LINES)
    labelled, invalid = counts(drawn(rng, len(valid), first, last, LABELS), valid)
    passed = invalid <= ALLOWED[np.arange(len(SIZES)), labelled]
    passed |= labelled < LABELS // 10  # nothing to test there
    cut = np.logical_and.accumulate(passed, axis=1).sum(axis=1) - 1
    cut[labelled[np.arange(len(valid)), cut] < LABELS // 10] = -1
    return wrong(bad_between(valid), cut)


def near_cut_learnt(rng: np.random.Generator, valid: Bools) -> Bools:
    """Labels near the cut train the critic, which learns them by heart, and are tested after."""
    first, last = int(0.15 * LINES), int(0.45 * LINES)
    ranks = drawn(rng, len(valid), first, last, LABELS)
    place = np.tile(np.arange(LINES, dtype=np.float64), (len(valid), 1))
    learnt = np.where(np.take_along_axis(valid, ranks, axis=1), -0.2, 0.2) * LINES
    np.put_along_axis(place, ranks, ranks + learnt, axis=1)
    order = np.argsort(place, axis=1)
    new_place = np.argsort(order, axis=1)
    again = np.take_along_axis(valid, order, axis=1)
    labelled, invalid = counts(np.take_along_axis(new_place, ranks, axis=1), again)
    cut = certified_cut(SIZES, labelled, invalid, PRECISION, DELTA)
    return wrong(bad_between(again), cut)


def before_selection(rng: np.random.Generator, valid: Bools) -> Bools:
    """A sound certificate, after which duplicates are removed: a third of the valid lines."""
    labelled, invalid = counts(drawn(rng, len(valid), 0, TOP, LABELS), valid)
    last = certified_cut(SIZES, labelled, invalid, PRECISION, DELTA)
    stays = rng.random(valid.shape) < np.where(valid, 0.67, 0.95)
    kept = np.arange(LINES) < np.where(last >= 0, SIZES[last], 0)[:, None]
    left = (kept & stays).sum(axis=1)
    good = (kept & stays & valid).sum(axis=1)
    return np.asarray((left > 0) & (good < PRECISION * left))


def usual_rate(
    way: Callable[[np.random.Generator, Bools], Bools], make: Make, runs: int, seed: int
) -> float:
    """How often a way is wrong."""
    return _mean([way(rng, valid) for rng, valid in chunks(make, runs, seed)])


# -------------------------------------------------------------------------------------- real labels


def real(folder: Path, runs: int, seed: int) -> dict[str, Any]:
    """Pools of human-labelled statements, scored by words alone (TF-IDF, logistic regression).

    The scores are trained on a third of the groups; pools of up to 5,000 lines, 75 % valid, are
    drawn from the others; 1,000 labels from the best 60 %, at precision 0.80 and 0.85.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(seed)
    found: dict[str, Any] = {}
    for name in ("creak_train", "csqa2_train", "comve_train", "all"):
        rows = []
        for path in sorted(folder.glob("*.jsonl.gz")):
            if name in ("all", path.name.split(".")[0]):
                with gzip.open(path, "rt", encoding="utf-8") as stream:
                    rows += [json.loads(line) for line in stream]
        groups = sorted({row["group"] for row in rows})
        taught = set(rng.permutation(groups)[: len(groups) // 3].tolist())
        train = [row for row in rows if row["group"] in taught]
        rest = [row for row in rows if row["group"] not in taught]
        words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
        model = LogisticRegression(max_iter=1000)
        model.fit(words.fit_transform([r["text"] for r in train]), [r["label"] for r in train])
        scores = model.decision_function(words.transform([row["text"] for row in rest]))
        order = np.argsort(-scores, kind="stable")
        valid = np.array([bool(rest[i]["label"]) for i in order])
        found[name] = {
            "auc": float(roc_auc_score(valid, scores[order])),
            **{
                f"precision_{precision:g}": _real_rates(rng, valid, precision, runs)
                for precision in (0.8, 0.85)
            },
        }
        print(name, found[name], flush=True)
    return found


def _real_rates(
    rng: np.random.Generator, valid: Bools, precision: float, runs: int
) -> dict[str, float]:
    good, poor = np.flatnonzero(valid), np.flatnonzero(~valid)
    lines = min(5000, len(good), int(len(poor) / 0.25))
    top = int(SHARE * lines)
    labels = min(LABELS, top // 2)
    sizes = all_sizes(lines, top, labels, precision, DELTA)
    pools = []
    for _ in range(runs):
        chosen = [
            rng.choice(good, int(0.75 * lines), replace=False, shuffle=False),
            rng.choice(poor, lines - int(0.75 * lines), replace=False, shuffle=False),
        ]
        pools.append(bad_between(valid[np.sort(np.concatenate(chosen))][None], sizes)[0])
    bad = np.stack(pools)
    between = np.diff(np.concatenate([[0], sizes]))
    labelled, invalid = draw_labels(rng, bad, between, labels)
    last = certified_cut(sizes, labelled, invalid, precision, DELTA)
    true = np.cumsum(bad, axis=1) < [fewest_bad(int(k), precision) for k in sizes]
    kept = np.where(last >= 0, sizes[last], 0)
    best = np.where(true, sizes, 0).max(axis=1)
    return {
        "lines": lines,
        "labels": labels,
        "violation_rate": float(((last >= 0) & ~true[np.arange(runs), last]).mean()),
        "certified": float((last >= 0).mean()),
        "kept": float(kept.mean() / lines),
        "best_in_hindsight": float(best.mean() / lines),
    }


# -------------------------------------------------------------------------------------- the volume


def volumes(runs: int) -> dict[str, Any]:
    """What is kept, by what the 1,000 labels are drawn from."""
    found = {}
    for auc, precision in ((0.85, 0.8), (0.8, 0.8), (0.9, 0.9)):
        curve = binormal(auc, 0.45)
        share = plan(LINES, precision, curve, runs=100).max_share
        rows = {}
        for words, part in (("whole_pool", 1.0), ("best_60", SHARE), ("planned_share", share)):
            one = simulate(curve, LINES, LABELS, precision, DELTA, part, runs)
            rows[words] = {"max_share": part, "certified": one.chance, "kept": one.kept,
                           "best_in_hindsight": one.best, "violation_rate": one.wrong}  # fmt: skip
        found[f"auc_{auc:g}_precision_{precision:g}"] = rows
    return found


def few_labels(runs: int, seed: int) -> dict[str, Any]:
    """How often few labels certify: a pool that is all valid, and critics of AUC 0.9."""
    rng = np.random.default_rng(seed)
    found = {}
    for precision, labels in ((0.8, 40), (0.8, 60), (0.9, 30), (0.9, 60), (0.9, 100), (0.9, 120)):
        sizes = all_sizes(LINES, TOP, labels, precision, DELTA)
        between = np.diff(np.concatenate([[0], sizes]))
        bad = np.zeros((runs, len(sizes)), dtype=np.int64)
        counted = draw_labels(rng, bad, between, labels)
        found[f"precision_{precision:g}_labels_{labels}"] = {
            "all_valid": float((certified_cut(sizes, *counted, precision, DELTA) >= 0).mean()),
            **{
                f"valid_{share:g}": simulate(
                    binormal(0.9, share), LINES, labels, precision, DELTA, SHARE, runs, seed
                ).chance
                for share in (0.8, 0.9)
            },
        }
    return found


def _mean(parts: list[Any]) -> float:
    return float(np.concatenate(parts).mean())


def main() -> None:
    """Run all, print."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--runs", type=int, default=4000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--data", type=Path, default=Path("../shared/data"))
    given = options.parse_args()
    runs, seed = given.runs, given.seed
    start = time.perf_counter()

    scenarios: dict[str, Any] = {}
    for name, make in {"independent": independent, "clustered": clustered, "selected": selected,
                       "drifting": drifting, "overrated": overrated}.items():  # fmt: skip
        scenarios[name] = certificate_rates(make, runs, seed)
        print(name, scenarios[name], flush=True)
    rng = np.random.default_rng(seed)
    scenarios["abrupt"] = {"violation_rate": float(certify(rng, abrupt(rng, runs))[1].mean())}
    print("abrupt", scenarios["abrupt"], flush=True)

    usual = {
        "validation_curve": usual_rate(validation_curve, independent, runs, seed),
        "topping_up": usual_rate(topping_up, independent, min(runs, 2000), seed),
        "near_cut": usual_rate(near_cut, overrated, runs, seed),
        "near_cut_fair_critic": usual_rate(near_cut, independent, runs, seed),
        "near_cut_learnt": usual_rate(near_cut_learnt, independent, runs, seed),
        "before_selection": usual_rate(before_selection, independent, runs, seed),
    }
    print(usual, flush=True)
    volume = volumes(runs)
    few = few_labels(runs, seed)
    print(few, flush=True)
    folder = given.data / "statements"
    on_people: Any = f"left out: there is no {folder.name} folder in the data"
    if folder.is_dir():
        on_people = real(folder, runs // 2, seed)
    else:
        print(f"real labels: {on_people}", flush=True)

    worst = max(one["violation_rate"] for one in scenarios.values())
    ordinary = scenarios["independent"]
    headline = {
        "violation_rate": worst,
        "violation_upper": share_interval(runs, round(worst * runs))[1],
        "violation_allowed": DELTA + 2 * math.sqrt(DELTA * (1 - DELTA) / runs),
        "volume_vs_oracle": ordinary["kept"] / ordinary["best_in_hindsight"],
        **{f"violation_rate_{way}": rate for way, rate in usual.items()},
        "violation_rates": {name: one["violation_rate"] for name, one in scenarios.items()},
        "runs": runs,
        "wall_s": round(time.perf_counter() - start),
    }
    finish("certificate", headline, {"scenarios": scenarios, "volume": volume, "few_labels": few,
                                    "real": on_people})  # fmt: skip


if __name__ == "__main__":
    main()
