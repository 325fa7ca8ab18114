"""I2D2 in synthetic worlds, against the truth: what constraints, critic and guards bring.

Primary endpoint: the share of true lines among all distinct lines written, last round minus round
0, in the arm `full`. `no-critic` keeps everything that selection's other rules let through;
`sharpened` does no imitation and samples at a lower temperature: in these worlds false lines are
spread evenly, so sharper sampling alone raises the truth, and self-imitation should be compared
with it. Killed, the same command goes on.

    python -m benchmarks.world [--seeds 3 4 5]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result import finish
from symdistill.records import Knowledge, Verdict
from symdistill.tables import read_records
from symdistill.worlds import World, tiny_encoder, train_tiny_lm

GUARDS_OFF = {
    "specificity_quantile": None,
    "max_swap_accept_share": None,
    "per_continuation": None,
    "per_concept": None,
    "per_pattern_share": None,
    "order_by": "score",
}
ARMS: dict[str, dict[str, Any]] = {
    "full": {},
    "no-guards": {"selection": GUARDS_OFF},
    # the swap test asks the critic too, so it goes with it
    "no-critic": {
        "critic": {"target_precision": 0.01},
        "selection": {"per_continuation": 8, "max_swap_accept_share": None},
    },
    "no-constraints": {"constraints": {"enforce": False}},
    "sharpened": {"self_imitation": False, "rounds": 0, "sampling": {"temperature": 0.7}},
}
KEYS = ("written", "kept", "accept_rate", "accept_rate_independent", "specificity")


def main() -> None:
    """Draw the worlds, run the arms, compare with the truth."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5])
    options.add_argument("--out", type=Path, default=Path("runs/bench-world"))
    given = options.parse_args()

    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)  # models this small gain nothing from more
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    rows: dict[str, list[list[dict[str, Any]]]] = {arm: [] for arm in ARMS}
    for seed in given.seeds:
        folder = given.out / f"world-{seed}"
        world = _draw(folder, seed)
        for arm, changes in ARMS.items():
            rows[arm].append(_run(world, folder, given.out / f"{seed}-{arm}", seed, changes))
            shares = [round(one["true_share"], 3) for one in rows[arm][-1]]
            print(f"world {seed}, {arm}: true shares by round {shares}", flush=True)
    gains = [of_seed[-1]["true_share"] - of_seed[0]["true_share"] for of_seed in rows["full"]]
    headline = {
        "gain_true": float(np.mean(gains)),
        "gain_true_by_seed": gains,
        "last_true": {arm: _mean(rows[arm], -1, "true_share") for arm in ARMS},
        "last_vacuous": {arm: _mean(rows[arm], -1, "vacuous_share") for arm in ARMS},
        "kept_true": {arm: _mean(rows[arm], 0, "kept_true_share") for arm in ARMS},
        "seeds": given.seeds,
    }
    finish("world", headline, rows)


def _draw(folder: Path, seed: int) -> World:
    world = World.draw(seed, n_concepts=40, n_categories=4)
    if (folder / "encoder").exists():  # drawn by an earlier attempt; it comes last
        return world
    corpus = world.corpus(8_000, noise=0.35, seed=seed)
    names = [concept.name for concept in world.concepts]
    folder.mkdir(parents=True, exist_ok=True)
    world.concepts_file(folder / "concepts.jsonl")
    world.prompts_file(folder / "prompts.yaml")
    world.labels_file(folder / "labels.jsonl", 4000, seed=seed)
    train_tiny_lm(corpus, folder / "model", names=names, seed=seed, steps=350)
    tiny_encoder(corpus, folder / "encoder", names=names, seed=seed, steps=250)
    return world


def _run(
    world: World, folder: Path, out: Path, seed: int, changes: dict[str, Any]
) -> list[dict[str, Any]]:
    from symdistill.recipes import run_recipe
    from symdistill.recipes.i2d2 import I2D2Config

    critic = {
        "encoder": str(folder / "encoder"),
        "labels": [str(folder / "labels.jsonl")],
        "target_precision": 0.75,
        "training": {"learning_rate": 1e-3, "epochs": 4},
    }
    settings: dict[str, Any] = {
        "seed": seed,
        "model": str(folder / "model"),
        "concepts": {"source": str(folder / "concepts.jsonl")},
        "prompts": {"grammar": str(folder / "prompts.yaml"), "per_concept": 5, "samples": 4},
        "judge": {"model": str(folder / "model"), "labels": [str(folder / "labels.jsonl")]},
        "selection": {"per_continuation": 8},
        "swaps": 2,
        "student": {"method": "full", "epochs": 4, "batch_size": 8, "learning_rate": 1e-3},
        **changes,
    }
    settings["critic"] = {**critic, **changes.get("critic", {})}
    sampling = {"temperature": 1.0, "top_p": 0.95, "max_new_tokens": 20}
    settings["sampling"] = {**sampling, **changes.get("sampling", {})}
    metrics = run_recipe(I2D2Config.model_validate(settings), out)
    lines = read_records(out / "tables" / "knowledge.parquet", Knowledge)
    kept = {
        one.knowledge_id: one.round
        for one in read_records(out / "tables" / "verdicts.parquet", Verdict)
        if one.judge == "selection" and one.score == 1.0
    }
    rows = []
    for figures in metrics["rounds"]:
        number = figures["round"]
        written = [x for x in lines if any(one.round == number for one in x.lineage)]
        chosen = [x for x in lines if kept.get(x.id) == number]
        rows.append(
            {
                "round": number,
                "true_share": float(np.mean([world.truth(x.text) is True for x in written])),
                "no_statement_share": float(
                    np.mean([world.truth(x.text) is None for x in written])
                ),
                "vacuous_share": float(np.mean([world.is_vacuous(x.text) for x in written])),
                "kept_true_share": float(np.mean([world.truth(x.text) is True for x in chosen]))
                if chosen
                else None,
                **{key: figures[key] for key in KEYS},
            }
        )
    return rows


def _mean(of_seeds: list[list[dict[str, Any]]], round: int, key: str) -> float:
    return float(np.mean([rows[round][key] for rows in of_seeds if rows[round][key] is not None]))


if __name__ == "__main__":
    main()
