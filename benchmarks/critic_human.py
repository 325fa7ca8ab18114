"""The critic on human labels: trained on them, and as it comes from the packaged labels.

For ComVE, CREAK and CSQA2 (human labels; splits by group): AUC on held-out groups of the default
critic trained on 800 rows, of the packaged critic that never saw such statements ("transfer"), and
of two baselines, the language model's likelihood alone and "negated means false"; three seeds.
CREAK is also given without the statements that hold a negation, which give its labels away.

    python -m benchmarks.critic_human --data FOLDER
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result import finish
from symdistill.evaluation.metrics import auc
from symdistill.records import content_hash

SETS = ("comve_train", "creak_train", "csqa2_train")
ROWS = 1500  # about 800 to train on, 300 to scale on, 400 to test on; whole groups


def main() -> None:
    """Train, score, print."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options.add_argument("--data", type=Path, default=Path("../shared/data"))
    given = options.parse_args()
    if not (given.data / "statements").is_dir():
        raise SystemExit(f"expected a folder statements/ under {given.data}; give --data FOLDER")

    import torch
    from transformers.utils import logging

    torch.set_num_threads(2)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    from symdistill.critic import (
        EncoderCritic,
        likelihood_scores,
        negation_scores,
        read_labels,
    )
    from symdistill.critic.encoder import Calibration
    from symdistill.models import resolve
    from symdistill.recipes._judging import features, label_files
    from symdistill.teachers import LocalTeacher

    teacher, encoder = LocalTeacher(resolve("embedded:smollm2")), resolve("embedded:minilm").folder
    packaged = [one for one in read_labels(label_files(["everyday"])) if one.split == "train"]
    packaged = [one for one in packaged if one.usable]
    rows = {}

    def likelihoods(texts: list[str]) -> Any:
        return features(
            [(one.total, one.tokens) for one in teacher.logprobs([""] * len(texts), texts)]
        )

    own = EncoderCritic.fit(
        [one.text for one in packaged],
        likelihoods([one.text for one in packaged]),
        np.array([one.valid for one in packaged]),
        [one.concept for one in packaged],
        encoder=encoder,
        seed=1,
    )
    for name in SETS:
        table = _rows(given.data / "statements" / f"{name}.jsonl.gz")
        texts = [row["text"] for row in table]
        x = likelihoods(texts)
        y = np.array([bool(row["label"]) for row in table])
        groups = [row["group"] for row in table]
        first, second = _next_group(groups, 800), _next_group(groups, 1100)
        train, scale, test = slice(0, first), slice(first, second), slice(second, None)
        found, seconds = [], []
        for seed in given.seeds:
            start = time.perf_counter()
            critic = EncoderCritic.fit(
                texts[train],
                x[train],
                y[train],
                groups[train],
                calibration=Calibration(texts[scale], x[scale], y[scale]),
                encoder=encoder,
                seed=seed,
            )
            seconds.append(time.perf_counter() - start)
            found.append(critic.score(texts[test], x[test]))
        negated = negation_scores(texts[test])
        plain = negated == 1.0
        rows[name] = {
            "auc": float(np.mean([auc(scores, y[test]) for scores in found])),
            "auc_by_seed": [auc(scores, y[test]) for scores in found],
            "auc_transfer": auc(own.score(texts[test], x[test]), y[test]),
            "auc_likelihood": auc(likelihood_scores(x[test][:, 0]), y[test]),
            "auc_negation": auc(negated, y[test]),
            "auc_without_negated": float(
                np.mean([auc(scores[plain], y[test][plain]) for scores in found])
            ),
            "n_test": len(y[test]),
            "train_s": float(np.median(seconds)),
        }
        print(name, rows[name], flush=True)
    headline = {"sets": {name: rows[name]["auc"] for name in SETS}, "seeds": given.seeds}
    finish("critic_human", headline, rows)


def _next_group(groups: list[str], start: int) -> int:
    """The first row at or after `start` with which a group begins."""
    return next(i for i in range(start, len(groups)) if groups[i] != groups[i - 1])


def _rows(path: Path) -> list[dict[str, Any]]:
    """About ROWS rows in an order by group, so that cutting it keeps groups together."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    return sorted(rows, key=lambda row: (content_hash([row["group"]]), row["id"]))[:ROWS]


if __name__ == "__main__":
    main()
