"""The packaged example of `skd`, made small, on the embedded models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from symdistill import recipes
from symdistill.config import load_config
from symdistill.models import Model
from symdistill.recipes import run_recipe
from symdistill.recipes._skd_settings import SKDConfig

pytestmark = pytest.mark.real


def test_the_packaged_example_works(smollm2: Model, minilm: Model, tmp_path: Path) -> None:
    path = Path(recipes.__file__).parents[1] / "data" / "configs" / "skd.yaml"
    small = [
        "heads.samples=8",
        "inferences.samples=1",
        "inferences.use=[xWant, xReact]",
        "split.test=0.6",
        "critic.training.epochs=1",
        "critic.passes=1",
        "judge=null",
        "student.levels=[high]",
        "student.training.epochs=1",
    ]
    metrics = run_recipe(load_config(path, SKDConfig, small), tmp_path / "run")
    assert 2 <= metrics["heads"]["kept"] <= 8
    corpus = [json.loads(x) for x in (tmp_path / "run/corpus.jsonl").read_text().splitlines()]
    assert corpus and all(0 <= row["score"] <= 1 for row in corpus)
    assert all(row["head"].startswith("PersonX ") for row in corpus)
    assert {one["name"] for one in metrics["unseen"]} == {"teacher", "teacher, sampled", "high"}
