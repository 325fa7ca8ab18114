"""A small synthetic world with its tiny models, drawn once for all tests of recipes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from symdistill.worlds import World, tiny_encoder, train_tiny_lm


@dataclass(frozen=True)
class DrawnWorld:
    """A world and the folder of its files and models."""

    world: World
    folder: Path

    def settings(self, **changes: Any) -> dict[str, Any]:
        """A configuration of I2D2 in this world, small enough for seconds."""
        file = str(self.folder)
        return {
            "recipe": "i2d2",
            "seed": 1,
            "model": f"{file}/model",
            "concepts": {"source": f"{file}/concepts.jsonl"},
            "prompts": {"grammar": f"{file}/prompts.yaml", "per_concept": 5, "samples": 4},
            "sampling": {"temperature": 1.0, "top_p": 0.95, "max_new_tokens": 20},
            "critic": {
                "encoder": f"{file}/encoder",
                "labels": [f"{file}/labels.jsonl"],
                "target_precision": 0.75,
                "training": {"learning_rate": 1e-3, "epochs": 4},
            },
            "judge": {"model": f"{file}/model", "labels": [f"{file}/labels.jsonl"]},
            "swaps": 2,
            "rounds": 2,
            # values are shared by the concepts of a category, so they may come more often
            "selection": {"per_continuation": 8},
            "student": {
                "method": "full",
                "epochs": 4,
                "batch_size": 8,
                "learning_rate": 1e-3,
                "save_every_steps": 5,
            },
            **changes,
        }


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> DrawnWorld:
    """The world of seed 3."""
    folder = tmp_path_factory.mktemp("world")
    world = World.draw(3, n_concepts=40, n_categories=4)
    corpus = world.corpus(8_000, noise=0.35, seed=3)
    names = [concept.name for concept in world.concepts]
    world.concepts_file(folder / "concepts.jsonl")
    world.prompts_file(folder / "prompts.yaml")
    world.labels_file(folder / "labels.jsonl", 4000, seed=3)
    train_tiny_lm(corpus, folder / "model", names=names, seed=3, steps=350)
    tiny_encoder(corpus, folder / "encoder", names=names, seed=3, steps=250)
    return DrawnWorld(world, folder)
