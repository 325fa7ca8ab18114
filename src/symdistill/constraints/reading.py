"""Constraints from their JSON form, which is told at the head of `symdistill.constraints`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from symdistill.constraints.formulas import (
    Constraint,
    all_of,
    at_least,
    at_most,
    contains,
    either,
    exactly,
    excludes,
)
from symdistill.constraints.phrases import AnyOf, Phrase, any_of, shown, tokens
from symdistill.errors import InputError

_COUNTED: dict[str, Callable[..., Constraint]] = {
    "at_most": at_most,
    "at_least": at_least,
    "exactly": exactly,
}
_JOINED: dict[str, Callable[..., Constraint]] = {"all_of": all_of, "either": either}


def from_json(value: Any) -> Constraint:
    """The constraint written in the JSON form (already parsed: a mapping).

    Raises:
        InputError: an unknown key, a missing one, a wrong type, an unusable phrase, a formula
            that is too large or nested too deeply.
    """
    try:
        return _constraint(value)
    except RecursionError:
        raise InputError(
            "expected a constraint, got one nested too deeply; join its parts in one list"
        ) from None


def _constraint(value: Any) -> Constraint:
    if not isinstance(value, Mapping):
        raise InputError(f"expected a constraint as a JSON object, got {shown(value)}")
    keys = set(value)
    if keys == {"contains"}:
        return contains(_phrase(value["contains"]))
    if keys == {"excludes"}:
        return excludes(_phrase(value["excludes"]))
    if keys == {"not"}:
        return ~_constraint(value["not"])
    for name, join in _JOINED.items():
        if keys == {name}:
            if not isinstance(value[name], list):
                raise InputError(f"expected a list of constraints in {name!r}, got {shown(value)}")
            return join(*map(_constraint, value[name]))
    for name, count in _COUNTED.items():
        if keys == {name, "of"}:
            return count(value[name], _phrase(value["of"]))
    raise InputError(
        "expected a constraint with one of the keys 'contains', 'excludes', 'all_of', 'either', "
        "'not', or with 'of' and one of 'at_most', 'at_least', 'exactly'; got the keys "
        f"{shown(sorted(map(str, keys)))}"
    )


def _phrase(value: Any) -> Phrase | AnyOf:
    if not isinstance(value, Mapping) or set(value) != {"any_of"}:
        return _one_phrase(value)
    if not isinstance(value["any_of"], list):
        raise InputError(f"expected a list of phrases in 'any_of', got {shown(value)}")
    return any_of(*map(_one_phrase, value["any_of"]))


def _one_phrase(value: Any) -> Phrase:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and set(value) == {"tokens"}:
        ids = value["tokens"]
        return tokens(*ids if isinstance(ids, list) else (ids,))
    raise InputError(
        'expected a phrase, {"tokens": [ids]} or {"any_of": [of these]}, got ' + shown(value)
    )


def from_file(path: str | Path) -> Constraint:
    """The constraint in a JSON file (UTF-8).

    Raises:
        InputError: the file cannot be read, is no JSON, or says something unknown.
    """
    try:
        return from_json(json.loads(Path(path).read_text(encoding="utf-8")))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except OSError as error:
        raise InputError(f"expected a constraint file at {path}: {error.strerror}") from error
    except ValueError as error:  # no UTF-8, no JSON, an endless number
        raise InputError(f"expected a constraint as UTF-8 JSON in {path}: {error}") from error
    except RecursionError as error:
        raise InputError(f"expected a constraint in {path}, got one nested too deeply") from error
