"""The metrics of a made-up run, built in code: realistic numbers, and text that means harm."""

from __future__ import annotations

import copy
import math
from typing import Any

HOSTILE = '<script>alert("x")</script> Cats & dogs $\\frac{1}{0$ [bold red]purr[/] {{ 7*7 }}'
TURNED = "A safe line \u202egnp.exe\u202c and \u2069 after\x1b[31m red\x00"

KEPT = [
    ("Bicycles have two wheels held in a frame.", "bicycle", 0.93, 0.88, 4.12),
    ("A lighthouse warns ships of rocks near the shore.", "lighthouse", 0.91, 0.84, 5.03),
    ("Bakers knead dough before they let it rise.", "baker", 0.88, 0.9, 4.61),
    ("Umbrellas keep people dry when it rains.", "umbrella", 0.86, 0.91, 3.9),
]
REJECTED = [
    ("Birds are found in many different species.", "bird", 0.82, 0.8, 0.4, "too unspecific"),
    ("Teachers can have different styles of teaching.", "teacher", 0.8, 0.7, 0.7, "too unspecific"),
    ("A spoon is a kind of fish that lives in rivers.", "spoon", 0.12, 0.09, 2.2, "below the cut"),
    ("Umbrellas keep people dry when it is raining.", "umbrella", 0.85, 0.9, 3.8, "near duplicate"),
]
ACCEPT = ((0.45, 0.52), (0.58, 0.61), (0.66, 0.63))
SPECIFICITY = (3.41, 3.02, 2.48)


def _curve() -> dict[str, list[float]]:
    threshold = [i / 40 for i in range(40)]
    precision = [0.52 + 0.44 * t**1.3 for t in threshold]
    recall = [1 - t**2.2 for t in threshold]
    return {
        "precision": [*precision, 1.0],
        "recall": [*recall, 0.0],
        "threshold": threshold,
    }


def _histogram(place: int) -> dict[str, list[float]]:
    middle = 0.45 + 0.1 * place
    counts = [
        round(60 * math.exp(-(((i + 0.5) / 20 - middle) ** 2) / 0.06)) + (i * 7) % 5
        for i in range(20)
    ]
    return {"edges": [i / 20 for i in range(21)], "counts": counts}


def _round(place: int) -> dict[str, Any]:
    critic, judge = ACCEPT[place]
    return {
        "round": place,
        "sampled": 1200,
        "written": 1043 - 61 * place,
        "kept": 296 + 52 * place,
        "accept_rate": critic,
        "accept_rate_interval": [critic - 0.042, critic + 0.04],
        "accept_rate_independent": judge,
        "accept_rate_independent_interval": [judge - 0.05, judge + 0.048],
        "specificity": SPECIFICITY[place],
        "specificity_interval": [SPECIFICITY[place] - 0.2, SPECIFICITY[place] + 0.21],
        "specificity_kept": 4.02 - 0.07 * place,
        "swap_accept_share": 0.21 + 0.07 * place,
        "rarity": 8.4 - 0.31 * place,
        "words_mean": 9.3 - 0.42 * place,
        "precision_estimate": 0.79 + 0.02 * place,
        "precision_interval": [0.71 + 0.02 * place, 0.86 + 0.02 * place],
        "wall_s": 141.3 + 12 * place,
        "stages": [
            {"stage": "teachers", "wall_s": 92.4 + place, "tokens": 21410 - 600 * place},
            {"stage": "critic", "wall_s": 21.7, "tokens": None},
            {"stage": "evaluation", "wall_s": 11.2, "tokens": 30211},
            {"stage": "selection", "wall_s": 1.1, "tokens": 0},
            {"stage": "students", "wall_s": 14.9, "tokens": 51000},
        ],
        "distinct_1": 0.31 - 0.02 * place,
        "distinct_2": 0.74 - 0.05 * place,
        "soft_uniqueness": 0.83 - 0.06 * place,
        "good_turing_coverage": 0.41 + 0.08 * place,
        "chao1_lower": 3120 - 410 * place,
        "score_histogram": _histogram(place),
        "rejected": {
            "below the cut": 460 - 70 * place,
            "too unspecific": 120 + 40 * place,
            "near duplicate": 75 + 13 * place,
            "over the cap of its concept": 44,
            "exact duplicate <b>of</b> a kept line, differing only in white space and case": 9,
        },
    }


def _critic(place: int) -> dict[str, Any]:
    return {
        "round": place,
        "version": f"critic@0f3a9{place}",
        "labels": {"train": 1102, "calibration": 214, "test": 221},
        "auc": 0.81,
        "auc_interval": [0.75, 0.86],
        "auc_likelihood": 0.62,
        "auc_negation": 0.57,
        "average_precision": 0.84,
        "ece": 0.043,
        "pr_curve": _curve(),
        "reliability": [
            {"score_mean": 0.1 + 0.2 * i, "valid_share": 0.14 + 0.19 * i, "n": 31 + 7 * i}
            for i in range(5)
        ],
        "cut": 0.62,
        "target_precision": 0.8,
        "cut_precision": 0.81,
        "cut_precision_interval": [0.73, 0.88],
        "cut_recall": 0.64,
    }


def example_metrics() -> dict[str, Any]:
    """The metrics of a finished run of three rounds, as json.loads would give them."""
    ids = iter(range(0xA1B2C3D4E5F60000, 0xA1B2C3D4E5F6FFFF, 4099))
    keys = ("text", "concept", "score", "judge_score", "specificity", "reason")
    hostile = (HOSTILE, "cat<img src=x>", 0.71, None, 3.3)
    kept = [*KEPT, hostile]
    rejected = [*REJECTED, (TURNED, "dog", 0.31, 0.4, None, "below <i>the</i> cut [red]")]
    return copy.deepcopy(
        {
            "name": "demo",
            "recipe": "i2d2",
            "seed": 7,
            "finished": True,
            "models": {
                "teacher": {
                    "name": "embedded:smollm2",
                    "fingerprint": "5af571cb" * 8,
                    "note": "SmolLM2-135M-Instruct, Q4_1 dequantised",
                },
                "encoder": {"name": "embedded:minilm", "fingerprint": "53aa5117", "note": ""},
            },
            "versions": {"symdistill": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
            "machine": {"cpu": "a processor", "cores": 2, "memory_gb": 7.7, "platform": "Linux"},
            "config": {
                "recipe": "i2d2",
                "teacher": {"model": "embedded:smollm2", "temperature": 0.9, "top_p": 0.95},
                "rounds": 3,
                "guards": {"specificity_floor": 1.5, "cap_per_concept": 8},
                "concepts": None,
                "exclude": ["can be", "<b>may</b>"],
            },
            "critics": [_critic(0), {**_critic(1), "cut": 0.6}],
            "judge": {
                "version": "judge@77aa",
                "what": "likelihood-ratio judge on the embedded language model",
                "auc": 0.76,
                "auc_interval": [0.7, 0.81],
                "cut": 0.5,
                "labels": {"train": 950, "test": 180},
            },
            "review": {
                "screened": 396,
                "marked": 2,
                "rules": {"stereotype": 1, "e-mail address": 1, "doubt": 1},
                "lines": [
                    {
                        "id": "a1b2c3d4e5f60718",
                        "text": f"Foxes are sly {HOSTILE}",
                        "reason": "stereotype: “sly <b>foxes</b>” | doubt: the critic's score",
                        "round": 1,
                    },
                    {
                        "id": "0718a1b2c3d4e5f6",
                        "text": f"Write to a@b.net {TURNED}",
                        "reason": "e-mail address: “a@b.net”",
                        "round": 2,
                    },
                ],
            },
            "rounds": [_round(place) for place in range(3)],
            "examples": {
                "kept": [
                    {
                        "id": f"{next(ids):016x}",
                        "round": i % 3,
                        **dict(zip(keys, one, strict=False)),
                    }
                    for i, one in enumerate(kept)
                ],
                "rejected": [
                    {
                        "id": f"{next(ids):016x}",
                        "round": i % 3,
                        **dict(zip(keys, one, strict=False)),
                    }
                    for i, one in enumerate(rejected)
                ],
            },
            "peak_rss_mb": 1843.2,
            "wall_s": 461.9,
            "tokens": {"generated": 62430, "trained": 153000, "scored": 90633},
        }
    )
