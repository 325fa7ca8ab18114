"""Recipes: one published system per file, read from top to bottom.

`run_recipe` runs one in a run folder and leaves `metrics.json` and `report.html` there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symdistill.config import Config, read_yaml
from symdistill.errors import InputError
from symdistill.progress import Progress

if TYPE_CHECKING:
    from rich.console import RenderableType

    from symdistill.estimate import RoleCalls

SUMMARIES = {
    "ask": "a table of questions -> a teacher -> a table of what it said",
    "i2d2": "statements from a weak model, under constraints, a critic and self-imitation (I2D2)",
    "skd": "triples, a critic, and a student per filter level (Symbolic Knowledge Distillation)",
    "scotd": "chains of thought, checked, and students that reason (Symbolic CoT Distillation)",
}
"""The recipes there are, and what each does."""


def recipe(name: str) -> tuple[type[Config], Callable[..., dict[str, Any]]]:
    """A recipe's configuration class and its function.

    Raises:
        InputError: there is no such recipe.
    """
    if name == "ask":
        from symdistill.recipes.ask import AskConfig, ask

        return AskConfig, ask
    if name == "i2d2":
        from symdistill.recipes.i2d2 import I2D2Config, i2d2

        return I2D2Config, i2d2
    if name == "skd":
        from symdistill.recipes._skd_settings import SKDConfig
        from symdistill.recipes.skd import skd

        return SKDConfig, skd
    if name == "scotd":
        from symdistill.recipes._scotd_settings import ScotdConfig
        from symdistill.recipes.scotd import scotd

        return ScotdConfig, scotd
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
    retry_failed: bool = False,
) -> dict[str, Any]:
    """Run the recipe of a configuration in a run folder; running it again resumes it.

    Args:
        config: the resolved configuration.
        folder: the run folder, made if need be.
        progress: who is told of it; nobody by default.
        accept_changes: go on in a folder made by other settings.
        retry_failed: make calls again that failed in earlier attempts.

    Returns:
        what it wrote to `metrics.json`.

    Raises:
        InputError: bad input, or a folder made by other settings.
        RunError: the work could not go on.
        BudgetReached: nothing more fits into the budget.
    """
    from symdistill.critic.kept_certificates import void_outdated
    from symdistill.machine import describe_machine, installed_versions
    from symdistill.run import Run

    _, function = recipe(config.recipe)
    with Run.open(
        folder,
        config,
        progress=progress,
        accept_changes=accept_changes,
        retry_failed=retry_failed,
    ) as run:
        if unsettled := run.budget.unsettled_words():
            run.progress.say(unsettled)
        found = function(run, config)
        void_outdated(folder)  # before anything says that it is certified
        metrics = {
            "name": folder.name,
            "recipe": config.recipe,
            "seed": config.seed,
            "finished": True,
            **found,
            "config": config.model_dump(mode="json"),
            "versions": installed_versions(),
            "machine": describe_machine(),
        }
        run.write_json("metrics.json", metrics)
        write_report(folder)
    return metrics


def write_report(folder: Path) -> Path:
    """Write the report of a run from its metrics.json; gives its path.

    Raises:
        InputError: there is no run with its metrics.
        RunError: the page cannot be written.
    """
    from symdistill.reporting import read_metrics

    recipe = read_metrics(folder).get("recipe")
    if recipe == "ask":
        from symdistill.recipes._answers import write_report as write
    elif recipe == "skd":
        from symdistill.recipes._skd_page import write_report as write
    elif recipe == "scotd":
        from symdistill.recipes._scotd_page import write_report as write
    else:
        from symdistill.reporting import write_report as write
    return write(folder)


def summary(
    metrics: dict[str, Any], *, report: Path, next_commands: Sequence[str]
) -> RenderableType:
    """What the command line prints at the end of a run."""
    if metrics.get("recipe") == "ask":
        from symdistill.recipes._answers import console_summary as say
    elif metrics.get("recipe") == "skd":
        from symdistill.recipes._skd_page import console_summary as say
    elif metrics.get("recipe") == "scotd":
        from symdistill.recipes._scotd_page import console_summary as say
    else:
        from symdistill.reporting import console_summary as say
    return say(metrics, report=report, next_commands=next_commands)


def calls(config: Config) -> list[RoleCalls] | str:
    """What a run will ask of teachers; in words, where it asks models of this machine alone."""
    from symdistill.recipes.ask import AskConfig, ask_calls

    if isinstance(config, AskConfig):
        return ask_calls(config)
    from symdistill.recipes._skd_settings import SKDConfig

    if isinstance(config, SKDConfig):
        from symdistill.recipes.skd import skd_calls

        return skd_calls(config)
    from symdistill.recipes._scotd_settings import ScotdConfig

    if isinstance(config, ScotdConfig):
        from symdistill.recipes.scotd import scotd_calls

        return scotd_calls(config)
    from symdistill.recipes.i2d2 import I2D2Config

    assert isinstance(config, I2D2Config)
    concepts = "every concept" if config.concepts.limit is None else f"{config.concepts.limit:,}"
    related = config.related.per_concept if config.related.use else 0
    prompts = f"{config.prompts.per_concept}" + (f" x (1 + {related} related)" if related else "")
    return (
        f"{config.recipe} runs on this machine alone: nothing is sent, nothing is billed. It "
        f"writes up to concepts x prompts x samples x rounds = {concepts} x "
        f"{prompts} x {config.prompts.samples} x {config.rounds + 1} lines of "
        f"at most {config.writing.max_new_tokens} tokens."
    )


def needs_torch(config: Config) -> bool:
    """Whether the run works with models in this process."""
    from symdistill.recipes.ask import AskConfig

    return not isinstance(config, AskConfig) or config.teacher.model.startswith("local:")
