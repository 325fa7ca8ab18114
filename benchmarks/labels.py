"""The packaged labelled statements: how many of what, and how two readings of 200 agree.

python -m benchmarks.labels
"""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files
from typing import Any

import numpy as np

from benchmarks.result import finish
from symdistill.records import normalise

WORDS = ("valid", "invalid", "unsure")


def main() -> None:
    """Count, compare, print."""
    first, second = _rows("everyday.jsonl"), _rows("everyday_second_reading.jsonl")
    by_text = {(normalise(row["concept"]), normalise(row["text"])): row for row in first}
    pairs = [
        (by_text[key]["label"], row["label"])
        for row in second
        if (key := (normalise(row["concept"]), normalise(row["text"]))) in by_text
    ]
    decided = [pair for pair in pairs if "unsure" not in pair]
    splits = {
        split: {
            "statements": sum(row["split"] == split for row in first),
            "concepts": len({row["concept"] for row in first if row["split"] == split}),
            **Counter(row["label"] for row in first if row["split"] == split),
        }
        for split in ("train", "calibration", "test", "judge")
    }
    low, high = _interval(pairs)
    headline = {
        "statements": len(first),
        "concepts": len({row["concept"] for row in first}),
        "raw": sum(row["source"] == "raw" for row in first),
        "written": sum(row["source"] == "written" for row in first),
        "valid_share_raw": _share(first, "raw"),
        "read_twice": len(pairs),
        "agreement": sum(a == b for a, b in pairs) / len(pairs),
        "agreement_decided": sum(a == b for a, b in decided) / len(decided),
        "kappa": _kappa(pairs),
        "kappa_interval": [low, high],
        "kappa_valid_or_not": _kappa([(a == "valid", b == "valid") for a, b in pairs]),
    }
    finish("labels", headline, splits)


def _rows(name: str) -> list[dict[str, Any]]:
    text = (files("symdistill") / "data" / "labels" / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _share(rows: list[dict[str, Any]], source: str) -> float:
    labels = [row["label"] for row in rows if row["source"] == source]
    return labels.count("valid") / len(labels)


def _kappa(pairs: list[tuple[Any, Any]]) -> float:
    from sklearn.metrics import cohen_kappa_score

    return float(cohen_kappa_score(*zip(*pairs, strict=True)))


def _interval(pairs: list[tuple[str, str]]) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    drawn = [
        _kappa([pairs[i] for i in rng.integers(len(pairs), size=len(pairs))]) for _ in range(500)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    main()
