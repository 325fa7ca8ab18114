"""The packaged example of `ask`, on the embedded model behind its llama.cpp server."""

from __future__ import annotations

from pathlib import Path

import pytest

from symdistill import recipes
from symdistill.config import load_config
from symdistill.estimate import estimate
from symdistill.models import Model
from symdistill.recipes import run_recipe
from symdistill.recipes.ask import AskConfig, ask_calls

pytestmark = pytest.mark.real


def test_the_packaged_example_works(smollm2: Model, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    path = Path(recipes.__file__).parents[1] / "data" / "configs" / "ask.yaml"
    small = ["questions.limit=3", "decoding.max_new_tokens=12"]
    config = load_config(path, AskConfig, small)
    (expected,) = (estimate(calls) for calls in ask_calls(config))
    metrics = run_recipe(config, tmp_path / "run")
    assert metrics["answers"] + metrics["failed"] == 6 and metrics["answers"]
    assert metrics["bill"]["cost_usd"] == 0
    # counted as the model reads it: with the system message that its chat template adds
    assert metrics["bill"]["tokens_in"] == expected.tokens_in[0]
    assert metrics["bill"]["requests"] == expected.requests == 3
