"""What metrics.json holds, read with care: a number that is missing is None, never 0.

A value of a type that it cannot have is an InputError that names its key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from symdistill.errors import InputError

Row = Mapping[str, Any]
Interval = tuple[float, float]


def number(row: Row, key: str) -> float | None:
    """A number of a metrics row; None where it is missing, null or not finite.

    Raises:
        InputError: the value is something else than a number.
    """
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(
            f"expected a number or null as {key!r} in metrics.json, got {type(value).__name__}; "
            "run the recipe again to rewrite the file"
        )
    try:
        known = float(value)
    except OverflowError:  # a whole number beyond what a float holds
        return None
    return known if math.isfinite(known) else None


def numbers(row: Row, key: str) -> list[float]:
    """A list of numbers of a metrics row; empty where it is missing, null or has a gap.

    Raises:
        InputError: the value is not a list, or holds something else than numbers.
    """
    found = [number({key: one}, key) for one in items(row, key)]
    known = [one for one in found if one is not None]
    return known if len(known) == len(found) else []


def interval(row: Row, key: str) -> Interval | None:
    """A 95 % interval (low, high) of a metrics row; None where either end is unknown.

    Raises:
        InputError: the value is not a pair of numbers.
    """
    pair = items(row, key)
    if not pair:
        return None
    if len(pair) != 2:
        raise InputError(
            f"expected [low, high] or null as {key!r} in metrics.json, got {len(pair)} values; "
            "run the recipe again to rewrite the file"
        )
    ends = numbers(row, key)
    return (ends[0], ends[1]) if ends else None


def items(row: Row, key: str) -> list[Any]:
    """A list of a metrics row, empty where it is missing or null.

    Raises:
        InputError: the value is not a list.
    """
    found: list[Any] = _typed(row, key, list, [])
    return found


def part(row: Row, key: str) -> dict[str, Any]:
    """An object inside a metrics row, empty where it is missing or null.

    Raises:
        InputError: the value is not an object.
    """
    found: dict[str, Any] = _typed(row, key, dict, {})
    return found


def rows(row: Row, key: str) -> list[dict[str, Any]]:
    """A list of objects of a metrics row, empty where it is missing or null.

    Raises:
        InputError: the value is not a list of objects.
    """
    return [part({key: one}, key) for one in items(row, key)]


def _typed(row: Row, key: str, kind: type, empty: Any) -> Any:
    value = row.get(key)
    if value is None:
        return empty
    if not isinstance(value, kind):
        raise InputError(
            f"expected a {kind.__name__} or null as {key!r} in metrics.json, got "
            f"{type(value).__name__}; run the recipe again to rewrite the file"
        )
    return value
