"""Recipes: one published system per file, read from top to bottom.

`run_recipe` runs one in a run folder and leaves `metrics.json` and `report.html` there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from symdistill.config import Config, read_yaml
from symdistill.errors import InputError
from symdistill.progress import Progress

SUMMARIES = {
    "i2d2": "statements from a weak model, under constraints, a critic and self-imitation (I2D2)",
}
"""The recipes there are, and what each does."""


def recipe(name: str) -> tuple[type[Config], Callable[..., dict[str, Any]]]:
    """A recipe's configuration class and its function.

    Raises:
        InputError: there is no such recipe.
    """
    if name == "i2d2":
        from symdistill.recipes.i2d2 import I2D2Config, i2d2

        return I2D2Config, i2d2
    raise InputError(
        f"expected a recipe among {', '.join(SUMMARIES)}; got {name!r}; see `symdistill recipes`"
    )


def recipe_of(path: Path) -> str:
    """The recipe that a configuration file is for."""
    name = read_yaml(path).get("recipe")
    if not isinstance(name, str):
        raise InputError(
            f"expected a line `recipe: NAME` in {path}; got {name!r}; "
            f"add one of {', '.join(SUMMARIES)}"
        )
    return name


def run_recipe(
    config: Config,
    folder: Path,
    *,
    progress: Progress | None = None,
    accept_changes: bool = False,
) -> dict[str, Any]:
    """Run the recipe of a configuration in a run folder; running it again resumes it.

    Args:
        config: the resolved configuration.
        folder: the run folder, made if need be.
        progress: who is told of it; nobody by default.
        accept_changes: go on in a folder made by other settings.

    Returns:
        what it wrote to `metrics.json`.

    Raises:
        InputError: bad input, or a folder made by other settings.
        RunError: the work could not go on.
    """
    from symdistill.machine import describe_machine, installed_versions
    from symdistill.reporting import write_report
    from symdistill.run import Run

    _, function = recipe(config.recipe)
    with Run.open(folder, config, progress=progress, accept_changes=accept_changes) as run:
        metrics = {
            "name": folder.name,
            "recipe": config.recipe,
            "seed": config.seed,
            "finished": True,
            "certified": False,
            **function(run, config),
            "config": config.model_dump(mode="json"),
            "versions": installed_versions(),
            "machine": describe_machine(),
        }
        run.write_json("metrics.json", metrics)
        write_report(folder)
    return metrics
