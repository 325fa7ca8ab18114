"""Symbolic Knowledge Distillation in three worlds in which truth is decidable.

    python -m benchmarks.skd

In each world a small model, trained on text of which 35 % is false, is the teacher. Triples that
it wrote in a run before, about some of the concepts, are labelled by the truth; in the run proper
it writes triples about all concepts, a critic trained on those labels filters them at several
operating points, and a student per filter level writes tails for the concepts without labels.

The primary endpoint, named before the first run: the share of true tails on those unseen heads,
student of the level "high" minus teacher, both decoding greedily, with a 95 % interval over heads
drawn whole within the worlds. Beside it: the same for the other students; against the teacher's
samples; and, for every operating point, the true precision of what is kept and the share kept.

The last line printed is JSON; all rows are in benchmarks/results/skd.json. Costs some 6 minutes on
2 CPU cores.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result import finish
from symdistill.datafiles import write_rows
from symdistill.evaluation.metrics import bootstrap_interval, paired_difference
from symdistill.recipes import run_recipe
from symdistill.recipes._skd_settings import SKDConfig
from symdistill.relations import read_relations
from symdistill.worlds import World, tiny_encoder, train_tiny_lm

SEEDS = (1, 2, 3)
LEVELS = (0.95, 0.9, 0.8, 0.65, 0.5)  # recalls; "high" is 0.5
PRIMARY = "high"
LABELLED_SAMPLES = 16  # of each head and relation in the run whose triples are labelled
LABELLED = ("train", "calibration", "judge")  # splits of the concepts; "test" has no labels


def main() -> None:
    """Run the three worlds, write the result, print the headline."""
    started = time.perf_counter()
    worlds = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as place:
            worlds.append(one_world(seed, Path(place)))
        print(json.dumps(worlds[-1]["levels"]), flush=True)
    students = {name: against(worlds, name, "teacher") for name in ("unfiltered", "medium", "high")}
    headline = {
        "benchmark": "skd",
        "primary": students[PRIMARY],
        "students_minus_teacher": students,
        "high_minus_unfiltered": against(worlds, "high", "unfiltered"),
        "high_minus_teacher_sampled": against(worlds, "high", "teacher, sampled"),
        "true_share": {name: share(worlds, name) for name in worlds[0]["said"]},
        "trade_off": trade_off(worlds),
        "seconds": round(time.perf_counter() - started),
    }
    rows = [{key: one[key] for key in ("seed", "levels", "critic_auc", "said")} for one in worlds]
    finish("skd", headline, rows)


def one_world(seed: int, place: Path) -> dict[str, Any]:
    """A world, a run of the recipe in it, and what is true of what it wrote."""
    world = draw_world(seed, place)
    label(world, place, seed)
    metrics = run_recipe(SKDConfig.model_validate(settings(place, seed)), place / "run")
    relations = read_relations(str(place / "relations.yaml"))
    corpus = read(place / "run" / "corpus.jsonl")
    true = np.array([world.truth(row["text"]) is True for row in corpus])
    levels = []
    for level in metrics["levels"]:
        kept = np.array([level["name"] in row["levels"] for row in corpus])
        low, high = bootstrap_interval(
            true[kept],
            [row["head"] for row, one in zip(corpus, kept, strict=True) if one],
            seed=seed,
        )
        levels.append(
            {
                "name": level["name"],
                "kept": int(kept.sum()),
                "kept_share": float(kept.mean()),
                "true_precision": float(true[kept].mean()),
                "true_precision_interval": [low, high],
                "precision_estimate": level["precision_estimate"],
                "precision_interval": level["precision_interval"],
                "strict_uniqueness": level["strict_uniqueness"],
                "soft_uniqueness": level["soft_uniqueness"],
            }
        )
    said: dict[str, list[tuple[str, bool]]] = {}
    for row in read(place / "run" / "held_out.jsonl"):
        text = relations[row["relation"]].verbalise(row["head"], row["tail"])
        true_tail = not row["refused"] and world.truth(text) is True
        said.setdefault(row["by"], []).append((f"{seed} {row['head']}", true_tail))
    return {"seed": seed, "levels": levels, "critic_auc": metrics["critic"]["auc"], "said": said}


def draw_world(seed: int, place: Path) -> World:
    """A world with its files and models in a folder."""
    world = World.draw(seed, n_concepts=60, n_categories=5)
    corpus = world.corpus(10_000, noise=0.35, seed=seed)
    names = [concept.name for concept in world.concepts]
    world.heads_file(place / "heads.txt")
    world.relations_file(place / "relations.yaml")
    world.heads_file(place / "labelled_heads.txt", LABELLED)
    train_tiny_lm(corpus, place / "model", names=names, seed=seed, steps=350)
    tiny_encoder(corpus, place / "encoder", names=names, seed=seed, steps=250)
    return world


def label(world: World, place: Path, seed: int) -> None:
    """Labels of triples that the teacher wrote in a run of their own, from another seed."""
    alone = settings(place, seed + 1000) | {"critic": None, "student": None}
    alone["heads"] = {"source": f"{place}/labelled_heads.txt"}
    alone["inferences"] = {**alone["inferences"], "samples": LABELLED_SAMPLES}
    run_recipe(SKDConfig.model_validate(alone), place / "labelled")
    split = {one.plural.capitalize(): one.split for one in world.concepts}
    write_rows(
        place / "labels.jsonl",
        (
            {
                **{key: row[key] for key in ("head", "relation", "tail")},
                "label": "valid" if world.truth(row["text"]) else "invalid",
                "split": "train" if split[row["head"]] == "judge" else split[row["head"]],
            }
            for row in read(place / "labelled" / "corpus.jsonl")
        ),
    )


def settings(place: Path, seed: int) -> dict[str, Any]:
    """The recipe's configuration in a world."""
    names = {0.8: "medium", 0.5: PRIMARY}
    levels = [{"name": names.get(one, f"recall {one}"), "recall": one} for one in LEVELS]
    return {
        "recipe": "skd",
        "seed": seed,
        "teacher": {"model": f"local:{place}/model", "api": "completions",
                    "local": {"batch_size": 64}},
        "heads": {"source": f"{place}/heads.txt"},
        "inferences": {
            "relations": f"{place}/relations.yaml",
            "shots": 0,
            "samples": 5,
            "decoding": {"temperature": 1.0, "top_p": 0.95, "max_new_tokens": 20,
                         "stop": ["."]},
        },
        "split": {"validation": 0.0, "test": 0.99},
        "critic": {
            "encoder": f"{place}/encoder",
            "labels": f"{place}/labels.jsonl",
            "levels": levels,
            "training": {"learning_rate": 1e-3, "epochs": 6},
        },
        "judge": None,  # truth is decidable here
        "student": {
            "model": f"{place}/model",
            "prompt": "{head} {relation}",
            "levels": ["unfiltered", "medium", "high"],
            "training": {"method": "full", "epochs": 4, "batch_size": 16, "learning_rate": 1e-3},
        },
    }  # fmt: skip


def against(worlds: list[dict[str, Any]], name: str, other: str) -> dict[str, Any]:
    """The difference of two true shares on unseen heads, heads drawn once for both."""
    mine = [one for world in worlds for one in world["said"][name]]
    theirs = [one for world in worlds for one in world["said"][other]]
    found = paired_difference(
        [one[1] for one in mine], [one[1] for one in theirs],
        [one[0] for one in mine], [one[0] for one in theirs],
    )  # fmt: skip
    return {"difference": found.estimate, "interval": [found.low, found.high], "heads": heads(mine)}


def share(worlds: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The true share on unseen heads of all worlds."""
    said = [one for world in worlds for one in world["said"][name]]
    values = [one[1] for one in said]
    low, high = bootstrap_interval(values, [one[0] for one in said])
    return {"share": float(np.mean(values)), "interval": [low, high]}


def heads(said: list[tuple[str, bool]]) -> int:
    """How many different heads."""
    return len({head for head, _ in said})


def trade_off(worlds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean true precision and share kept of each operating point, with the worlds' range."""
    rows = []
    for i, level in enumerate(worlds[0]["levels"]):
        own = [world["levels"][i] for world in worlds]
        precision = [one["true_precision"] for one in own]
        rows.append(
            {
                "name": level["name"],
                "kept_share": float(np.mean([one["kept_share"] for one in own])),
                "true_precision": float(np.mean(precision)),
                "true_precision_worlds": precision,
            }
        )
    return rows


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
