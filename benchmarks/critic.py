"""The critic on human labels, against what reads no meaning.

Six sets with human labels, cut by group: statements (ComVE, CREAK, CSQA2), if-then triples (CKBP),
and explanations that GPT-3 wrote for CommonsenseQA and SNLI (valid: two of three annotators accept
it; read together with their question). Of each set the first rows in an order by group: two fifths
to train on, a tenth to calibrate on, half to test on. The critic is the default one and reads the
likelihood beside the text: SmolLM2's, and for explanations the one that GPT-3 gave them. Nothing
was chosen on these test rows.

    auc             mean over the seeds on the test rows, with its 95 % interval over groups
    auc_likelihood  the likelihood alone
    auc_surface     a logistic regression on surface cues, fitted on the same rows as the critic
    auc_tfidf       the same on words and pairs of words
    auc_negation    "negated means false"
    auc_text        the critic's text alone, its numbers held at their mean
    auc_transfer    the critic of the packaged labels, which saw no such statements
    seconds         to fit one critic

`creak_not_negated` are CREAK's test rows without a negating word: negation gives labels away there.

    python -m benchmarks.critic --data FOLDER [--sets comve ...] [--rows N] [--threads 2] [--quick]

Sets that are run alone replace their figures in the result; each names the commit it ran on.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.result import FOLDER, commit, finish
from symdistill.critic.baselines import (
    likelihood_scores,
    negation_scores,
    surface_scores,
    tfidf_scores,
)
from symdistill.critic.learning_curve import Point, learning_curve, parts
from symdistill.evaluation.metrics import (
    auc,
    average_precision,
    bootstrap_interval,
    expected_calibration_error,
)
from symdistill.records import content_hash, normalise

RESULT = FOLDER / "critic.json"
BASELINES = ("likelihood", "surface", "tfidf", "negation")


class Lines(NamedTuple):
    """Labelled lines in an order in which groups are together."""

    texts: list[Any]
    beside: Any  # (N, F) the likelihood, first per token
    valid: Any  # (N,)
    groups: list[str]

    def cut(self, rows: Any) -> Lines:
        """Some of them."""
        places = np.arange(len(self.texts))[rows]
        return Lines([self.texts[i] for i in places], self.beside[places], self.valid[places],
                     [self.groups[i] for i in places])  # fmt: skip


def main() -> None:
    """Run the sets and print their figures."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--data", type=Path, default=Path("../shared/data"))
    options.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    options.add_argument("--rows", type=int, help="of each set; default: 2,000, explanations 1,500")
    options.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options.add_argument("--threads", type=int, default=2)
    options.add_argument(
        "--quick", action="store_true", help="200 rows, one seed; writes no result"
    )
    given = options.parse_args()
    if given.quick:
        given.rows, given.seeds = given.rows or 200, given.seeds[:1]
    if not (given.data / "statements").is_dir():
        raise SystemExit(f"expected a folder statements/ under {given.data}; give --data FOLDER")

    import torch
    from transformers.utils import logging

    torch.set_num_threads(given.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    sets: dict[str, Any] = {}
    rows: dict[str, Any] = {}
    for name in given.sets:
        found = measure(name, given.data, given.rows, given.seeds)
        for key, row in found.items():
            sets[key] = {of: row[of] for of in HEADLINE}
            rows[key] = {"commit": commit(), "threads": given.threads, **row}
            print(key, json.dumps(sets[key]), row["verdict"], flush=True)
    if given.quick:
        print(json.dumps({"sets": sets}), flush=True)
        return
    before = json.loads(RESULT.read_text("utf-8")) if RESULT.is_file() else {"sets": {}, "rows": {}}
    order = [key for name in SETS for key in (name, f"{name}_not_negated")]
    sets, rows = (
        {key: merged[key] for key in order if key in merged}
        for merged in (before["sets"] | sets, before["rows"] | rows)
    )
    finish("critic", {"sets": sets, "seeds": given.seeds}, rows)


HEADLINE = ("auc", "auc_likelihood", "auc_surface", "auc_tfidf", "n", "seconds")


def measure(name: str, data: Path, rows: int | None, seeds: Sequence[int]) -> dict[str, Any]:
    """The figures of a set; of CREAK, once more without the negated lines."""
    lines = SETS[name](data, rows)
    n = len(lines.texts)
    first, second = _next_group(lines.groups, 2 * n // 5), _next_group(lines.groups, n // 2)
    train, scale, test = (
        lines.cut(slice(first)),
        lines.cut(slice(first, second)),
        lines.cut(slice(second, None)),
    )
    critics, seconds = [], []
    for seed in seeds:
        start = time.perf_counter()
        critics.append(_fit(train, scale, seed))
        seconds.append(time.perf_counter() - start)
    scores = [one.score(test.texts, test.beside) for one in critics]
    others = {
        "likelihood": likelihood_scores(test.beside[:, 0]),
        "surface": surface_scores(train.texts, train.valid, test.texts),
        "tfidf": tfidf_scores(train.texts, train.valid, test.texts),
        "negation": negation_scores([_one(text) for text in test.texts]),
    }
    mean = np.tile(critics[0].feature_mean, (len(test.texts), 1))
    others["text"] = critics[0].score(test.texts, mean)
    if name in STATEMENTS:
        others["transfer"] = _packaged().score(test.texts, test.beside)
    points = [
        Point(len(part.rows), scores[0] if len(part.rows) == len(train.texts) else
              _fit(train.cut(part.rows), scale, part.draw).score(test.texts, test.beside))
        for part in parts(train.valid, train.groups)
    ]  # fmt: skip
    curve = learning_curve(points, test.valid, test.groups)
    common = {
        "n": n, "n_train": len(train.texts), "n_test": len(test.texts),
        "seconds": float(np.median(seconds)), "seconds_by_seed": seconds, "seeds": list(seeds),
        "learning_curve": {
            "labels": curve.labels, "auc": curve.auc, "more": curve.more, "gain": curve.gain,
            "gain_interval": [curve.low, curve.high], "sentence": curve.sentence,
        },
    }  # fmt: skip
    found = {name: {**_compare(scores, others, test, np.arange(len(test.texts))), **common}}
    if name == "creak":
        plain = np.flatnonzero(others["negation"] == 1.0)
        found["creak_not_negated"] = {**_compare(scores, others, test, plain), **common,
                                      "n_test": len(plain)}  # fmt: skip
    return found


def _compare(scores: list[Any], others: dict[str, Any], test: Lines, chosen: Any) -> dict[str, Any]:
    """The critics and the baselines on some of the test lines."""
    valid, groups = test.valid[chosen], [test.groups[i] for i in chosen]
    ours = [one[chosen] for one in scores]
    theirs = {key: one[chosen] for key, one in others.items()}

    def mean(statistic: Callable[[Any, Any], float], rows: Any) -> float:
        return float(np.mean([statistic(one[rows], valid[rows]) for one in ours]))

    def interval(statistic: Callable[[Any], float]) -> list[float]:
        return list(bootstrap_interval(valid, groups, statistic=statistic, n=500))

    everything = slice(None)
    found: dict[str, Any] = {"share_valid": float(valid.mean())}
    for key, statistic in (
        ("auc", auc), ("average_precision", average_precision), ("ece", expected_calibration_error),
    ):  # fmt: skip
        found[key] = mean(statistic, everything)
        found[f"{key}_interval"] = interval(lambda rows, of=statistic: mean(of, rows))
        found[f"{key}_by_seed"] = [statistic(one, valid) for one in ours]
    found |= {f"auc_{key}": auc(one, valid) for key, one in theirs.items()}
    best = max(BASELINES, key=lambda key: found[f"auc_{key}"])
    lead = interval(lambda rows: mean(auc, rows) - auc(theirs[best][rows], valid[rows]))
    found["best_baseline"], found["lead"] = best, found["auc"] - found[f"auc_{best}"]
    found["lead_interval"] = lead
    if found["lead"] <= 0:
        found["verdict"] = f"a baseline wins: {best}"
    elif lead[0] <= 0:
        found["verdict"] = f"the critic is not clearly better than {best}"
    else:
        found["verdict"] = f"the critic beats every baseline; the next is {best}"
    return found


def _fit(train: Lines, scale: Lines, seed: int) -> Any:
    from symdistill.critic import EncoderCritic
    from symdistill.critic.encoder import Calibration
    from symdistill.models import resolve

    return EncoderCritic.fit(
        train.texts,
        train.beside,
        train.valid,
        train.groups,
        calibration=Calibration(scale.texts, scale.beside, scale.valid),
        encoder=resolve("embedded:minilm").folder,
        max_length=64 if isinstance(train.texts[0], str) else 128,
        weigh_numbers=True,
        seed=seed,
    )


def _packaged(made: list[Any] = []) -> Any:  # noqa: B006 - fitted once
    """The critic of the packaged labels."""
    if not made:
        from symdistill.critic import read_labels
        from symdistill.recipes._judging import label_files

        known = [one for one in read_labels(label_files(["everyday"])) if one.usable]
        parts = [[one for one in known if one.split == split] for split in ("train", "calibration")]
        made.append(_fit(*(_lines([(one.text, one.valid, one.concept) for one in part])
                           for part in parts), seed=1))  # fmt: skip
    return made[0]


def _lines(rows: list[tuple[Any, bool, str]], nll: list[float] | None = None) -> Lines:
    """Lines with their likelihood: as given, or SmolLM2's."""
    texts = [text for text, _, _ in rows]
    if nll is None:
        from symdistill.models import resolve
        from symdistill.teachers import LocalTeacher

        found = LocalTeacher(resolve("embedded:smollm2")).logprobs(
            ["" if isinstance(one, str) else f"{one[0]}\n" for one in texts],
            [one if isinstance(one, str) else one[1] for one in texts],
        )
        beside = np.array([[one.total / max(one.tokens, 1), one.total] for one in found])
    else:
        beside = -np.array(nll)[:, None]
    return Lines(texts, beside, np.array([valid for _, valid, _ in rows]),
                 [group for _, _, group in rows])  # fmt: skip


def _statements(name: str) -> Callable[[Path, int | None], Lines]:
    def lines(data: Path, rows: int | None) -> Lines:
        found = _read(data / "statements" / f"{name}_train.jsonl.gz", "group", rows or 2000)
        return _lines([(row["text"], bool(row["label"]), row["group"]) for row in found])

    return lines


def _triples(data: Path, rows: int | None) -> Lines:
    found = _read(data / "triples" / "ckbp_dev.jsonl.gz", "head", rows or 2000)
    return _lines([(row["text"], bool(row["label"]), row["head"]) for row in found])


def _explanations(name: str) -> Callable[[Path, int | None], Lines]:
    def asked(row: dict[str, Any]) -> str:
        if name == "csqa":
            return f"{row['question']} {row['gold']}"
        return f"{row['premise']} {row['hypothesis']} {row['gold']}"

    def lines(data: Path, rows: int | None) -> Lines:
        found = _read(data / "explanations" / f"{name}_train.jsonl.gz", "item_id", rows or 1500)
        judged = [((asked(row), row["explanation"]), row["votes"] >= 2, row["item_id"])
                  for row in found]  # fmt: skip
        return _lines(judged, [row["nll"] for row in found])

    return lines


STATEMENTS = ("comve", "creak", "csqa2")
SETS: dict[str, Callable[[Path, int | None], Lines]] = {
    **{name: _statements(name) for name in STATEMENTS},
    "ckbp": _triples,
    "csqa": _explanations("csqa"),
    "snli": _explanations("snli"),
}


def _read(path: Path, group: str, rows: int) -> list[dict[str, Any]]:
    """The first rows in an order by group, each text of a group once."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        found = [json.loads(line) for line in stream]
    found.sort(key=lambda row: (content_hash([row[group]]), row["id"]))
    key = "explanation" if "explanation" in found[0] and "text" not in found[0] else "text"
    once = {(row[group], normalise(row[key])): row for row in reversed(found)}
    return list(reversed(once.values()))[:rows]


def _next_group(groups: list[str], start: int) -> int:
    """The first row at or after `start` with which a group begins."""
    return next(i for i in range(start, len(groups)) if groups[i] != groups[i - 1])


def _one(text: Any) -> str:
    return text if isinstance(text, str) else text[1]


if __name__ == "__main__":
    main()
