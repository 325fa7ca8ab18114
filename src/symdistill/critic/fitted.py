"""What the critic and the independent judge have in common: their inputs, and how they are kept.

A fitted judge of lines takes texts, numbers beside them, labels and groups; it is saved as a
folder whose JSON names the version that its weights and settings were hashed to, and a folder
that gives another version when it is opened is refused.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from symdistill.config import Settings
from symdistill.critic.reading import Text
from symdistill.errors import InputError

S = TypeVar("S", bound=Settings)


class Calibration(NamedTuple):
    """Lines kept out of training, on which logits are turned into probabilities."""

    texts: Sequence[Text]
    features: NDArray[np.floating] | None  # (N, F)
    valid: NDArray[np.bool_]  # (N,), "unsure" as False


def changed(settings: S, changes: Mapping[str, Any]) -> S:
    """The settings with some fields replaced, checked as if written so."""
    return type(settings).model_validate({**settings.model_dump(), **changes})


def checked_labels(
    texts: Sequence[Text],
    labels: Sequence[bool] | NDArray[np.bool_],
    groups: Sequence[Hashable],
) -> NDArray[np.bool_]:
    """The labels as an array (N,), if there is one a text and both classes are there."""
    y = np.asarray(labels, dtype=bool)
    if not len(texts) == len(y) == len(groups):
        raise InputError(
            f"expected texts, labels and concepts of one length, got {len(texts)}, {len(y)} "
            f"and {len(groups)}"
        )
    if y.all() or not y.any():
        raise InputError("expected valid and invalid statements to train on, got one class")
    return y


def feature_matrix(features: NDArray[np.floating] | None, n: int) -> NDArray[np.float64]:
    """The features as a finite (N, F) array; F is 0 where there are none."""
    if features is None:
        return np.zeros((n, 0))
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or len(x) != n or not np.isfinite(x).all():
        raise InputError(f"expected finite features of shape ({n}, F), got shape {x.shape}")
    return x


def expect_features(x: NDArray[np.float64], wanted: int) -> None:
    """Refuse a feature matrix (N, F) of another width than in training."""
    if x.shape[1] != wanted:
        raise InputError(f"expected {wanted} features a line, as in training, got {x.shape[1]}")


def standardisation(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and scale (F,) that bring every column to mean 0 and variance 1 (constant: to 0)."""
    scale = x.std(axis=0)
    return x.mean(axis=0), np.where(scale > 1e-9, scale, 1.0)


def write_about(path: Path, about: Mapping[str, Any]) -> None:
    """Keep what is to be known of a judge beside its weights."""
    path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def read_about(path: Path, what: str) -> dict[str, Any]:
    """What `write_about` wrote.

    Raises:
        InputError: the file is missing or broken.
    """
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise InputError(f"{path.parent}: expected a saved {what}: {problem}") from problem
    if not isinstance(about, dict):
        raise InputError(f"{path.parent}: expected a saved {what}; {path.name} holds none")
    return about


def read_arrays(path: Path, what: str, *, torch: bool = False) -> dict[str, Any]:
    """The tensors of a safetensors file, as numpy's or as torch's.

    Raises:
        InputError: the file is missing or broken.
    """
    from safetensors import SafetensorError

    try:
        if torch:
            from safetensors.torch import load_file as load
        else:
            from safetensors.numpy import load_file as load  # type: ignore[assignment]
        return dict(load(path))
    except (OSError, ValueError, SafetensorError) as problem:
        raise InputError(f"{path.parent}: expected a saved {what}: {problem}") from problem


def expect_version(folder: Path, what: str, said: Any, found: str) -> None:
    """Refuse a folder whose files are not those that its version was computed from."""
    if found != said:
        raise InputError(
            f"{folder}: expected the {what} of version {said}, the files give {found}: they were "
            "changed after saving; train it again"
        )
