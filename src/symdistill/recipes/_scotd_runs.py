"""A finished run of `scotd`: its configuration and where its students are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from symdistill.config import load_config
from symdistill.errors import InputError
from symdistill.recipes import recipe_of
from symdistill.recipes._scotd_settings import ScotdConfig
from symdistill.run import read_json


@dataclass(frozen=True)
class ScotdRun:
    """What a command needs of a run."""

    folder: Path
    config: ScotdConfig
    students: Mapping[tuple[str, int], Path]  # by arm and training seed

    def arm(self, name: str | None) -> str:
        """An arm by its name; the first where none is given.

        Raises:
            InputError: no student is called so.
        """
        arms = list(dict.fromkeys(arm for arm, _ in self.students))
        if name is not None and name not in arms:
            raise InputError(
                f"expected a student of {self.folder} among {', '.join(arms)}; got {name!r}"
            )
        return name or arms[0]

    def student(self, arm: str, seed: int | None) -> Path:
        """The folder of a student; of the first training where no seed is given.

        Raises:
            InputError: it was not trained with that seed.
        """
        seeds = [one for name, one in self.students if name == arm]
        if seed is not None and seed not in seeds:
            known = ", ".join(map(str, seeds))
            raise InputError(f"expected a training seed of {arm!r} among {known}; got {seed}")
        return self.students[arm, seeds[0] if seed is None else seed]


def read_run(folder: Path) -> ScotdRun:
    """A run with its students.

    Raises:
        InputError: there is no run of this recipe, or it has no students yet.
    """
    path = folder / "config.yaml"
    if not path.is_file() or recipe_of(path) != "scotd":
        raise InputError(
            f"expected the folder of a run of scotd at {folder}; there is none; make one with "
            "`symdistill run scotd`"
        )
    config = load_config(path, ScotdConfig)
    student = config.student
    arms = list(product(student.training_seeds, student.arms)) if student else []
    students = {}
    for number, (seed, arm) in enumerate(arms):
        place = folder / "students" / str(number)
        made = read_json(place / "step.json").get("notes", {})
        if (made.get("arm"), made.get("seed")) == (arm, seed):  # and not of earlier settings
            students[arm, seed] = place
    if not arms or len(students) < len(arms) or not (folder / "tables" / "items.parquet").is_file():
        raise InputError(
            f"expected a finished run with students at {folder}; got one without; run it to its end"
        )
    return ScotdRun(folder, config, students)
