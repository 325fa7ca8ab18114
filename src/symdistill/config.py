"""Typed configuration from YAML: what is not known is an error with its line and nearest name.

A recipe's configuration is a pydantic model derived from `Config`. YAML sets its fields and does
nothing else: no code, no dotted import paths. Numbers may be written as people write them
(`3e6`, `20_000`).
"""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import to_jsonable_python

from symdistill.errors import InputError


def _whole_number(value: Any) -> Any:
    """`3e6`, "3e6" and "20_000" as the whole numbers they mean; anything else as it came."""
    if isinstance(value, bool):
        raise ValueError("expected a whole number, not true or false")
    if isinstance(value, str):
        try:
            value = float(value.replace("_", ""))
        except ValueError:
            return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


Count = Annotated[int, BeforeValidator(_whole_number)]
"""A whole number that may be written as `3e6` or `20_000`."""

_DURATION = re.compile(
    r"(?=.)"
    + r"\s*".join(rf"(?:(?P<{unit}>\d+(?:\.\d+)?)\s*{unit})?" for unit in ("d", "h", "m", "s"))
)
_UNIT_S = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def _duration(value: Any) -> Any:
    """Durations such as "2h", "1h30m" and "90" in seconds; what is no text as it came."""
    if isinstance(value, bool):
        raise ValueError("expected a duration, not true or false")
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    with contextlib.suppress(ValueError):
        return float(text.replace("_", ""))
    parts = _DURATION.fullmatch(text)
    if parts is None:
        raise ValueError("expected seconds or a duration such as 90s, 2h, 1h30m or 2d")
    return sum(float(number) * _UNIT_S[unit] for unit, number in parts.groupdict("0").items())


Seconds = Annotated[float, BeforeValidator(_duration), Field(ge=0, allow_inf_nan=False)]
"""Seconds that may be written as `2h`, `90s`, `1h30m`, `1.5h` or `2d`."""


class Settings(BaseModel):
    """A group of settings: unknown keys are errors, values cannot be changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    decides_nothing: ClassVar[frozenset[str]] = frozenset()
    """Fields that change no result (names, prices, how hard a server is asked): they may change
    in a run that goes on, and enter no fingerprint."""

    def identity(self) -> dict[str, Any]:
        """What of these settings decides results, as plain JSON values."""
        return decisive(self.model_dump(mode="json"), self)


class BudgetSettings(Settings):
    """What a run may use up, in all its parts and attempts together; null: no limit."""

    usd: float | None = Field(None, ge=0, allow_inf_nan=False)
    """US dollars that teachers bill, at the prices that are stated."""

    requests: Count | None = Field(None, ge=0)
    """Requests to teachers."""

    tokens: Count | None = Field(None, ge=0)
    """Tokens read and written by teachers."""

    wall: Seconds | None = None
    """Time spent on the run: 7200, 2h, 1h30m."""

    allow_unknown_price: bool = False
    """Go on under a limit in `usd` where a price is unknown; such requests count as nothing."""


class Config(Settings):
    """What every recipe's configuration holds."""

    decides_nothing = frozenset({"name", "budget"})

    recipe: str
    """The recipe that reads this file."""

    name: str = ""
    """The run's name: its folder is runs/NAME. Default: the file's name. In no fingerprint."""

    seed: Count = Field(0, ge=0)
    """Decides every random choice of the run."""

    budget: BudgetSettings = BudgetSettings()

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, name: str) -> str:
        if name in (".", "..") or any(mark in name for mark in "/\\\0"):
            raise ValueError("expected a plain name, as it becomes a folder under runs/")
        return name


C = TypeVar("C", bound=Config)


def decisive(values: Mapping[str, Any], like: Settings) -> dict[str, Any]:
    """The values of a group of settings (of this or of an earlier run) that decide results."""
    kept = {key: value for key, value in values.items() if key not in like.decides_nothing}
    for key, value in kept.items():
        group = getattr(like, key, None)
        if isinstance(group, Settings) and isinstance(value, Mapping):
            kept[key] = decisive(value, group)
    return kept


def read_yaml(path: Path) -> Any:
    """The YAML of a file with line positions kept.

    Raises:
        InputError: the file cannot be read, is not UTF-8, is not YAML, or is not a mapping.
    """
    from ruamel.yaml import YAML

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(
            f"expected a readable configuration at {path}; got: {reason}; "
            "check the path, or make one with `symdistill copy i2d2 mine.yaml`"
        ) from error
    try:
        data = YAML(typ="rt").load(text)
        _plain(data)  # a value that holds itself has no end
    except Exception as error:  # of the YAML library: its own, and what bad values raise in it
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or f"it does not parse ({type(error).__name__})"
        raise InputError(
            f"expected YAML in {path}{line}; got: {problem}; mend that line"
        ) from error
    if not isinstance(data, Mapping):
        raise InputError(
            f"expected `key: value` lines in {path}; got {type(data).__name__}; "
            "start from `symdistill copy i2d2 mine.yaml`"
        )
    return data


def load_config(path: Path, kind: type[C], overrides: Sequence[str] = ()) -> C:
    """A recipe's configuration from a YAML file.

    Args:
        path: the file; its stem is the run's name where the file gives none.
        kind: the recipe's configuration class.
        overrides: `key=value` or `group.key=value`, set over the file; values are YAML.

    Raises:
        InputError: naming the key, the nearest known key, the file and the line.
    """
    data = read_yaml(path)
    plain = _plain(data)
    for override in overrides:
        _override(plain, override)
    if plain.get("name") in (None, ""):
        plain["name"] = path.stem
    try:
        return kind.model_validate(plain)
    except ValidationError as error:
        given = [override.partition("=")[0].strip() for override in overrides]
        raise InputError(_explain(error, kind, path, data, given)) from error


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML text, enough to run it again."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.default_flow_style = False
    stream = io.StringIO()
    yaml.dump(config.model_dump(mode="json"), stream)
    return stream.getvalue()


def changed_fields(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two resolved configurations, as `group.key: old -> new`."""
    changes: list[str] = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changes += changed_fields(before, after, f"{prefix}{key}.")
        elif before != after:
            changes.append(f"{prefix}{key}: {before!r} -> {after!r}")
    return changes


def _override(data: dict[str, Any], override: str) -> None:
    from ruamel.yaml import YAML

    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise InputError(f"expected --set key=value; got {override!r}; write e.g. --set rounds=1")
    try:
        value = _plain(YAML(typ="safe").load(text))
    except Exception as error:  # of the YAML library, as in `read_yaml`
        raise InputError(f"expected a YAML value in --set {override!r}; got {text!r}") from error
    *groups, last = key.strip().split(".")
    inner = data
    for group in groups:
        deeper = inner.setdefault(group, {})
        if not isinstance(deeper, dict):
            raise InputError(f"expected {group} to be a group of settings in --set {override!r}")
        inner = deeper
    inner[last] = value


def _explain(
    error: ValidationError, kind: type[Config], path: Path, data: Any, given: Sequence[str]
) -> str:
    """The first thing that is wrong, in one sentence; and how many more there are."""
    problems = error.errors()
    first = problems[0]
    places = [part for part in first["loc"] if isinstance(part, str)]
    dotted = ".".join(places)
    line = _line_of(data, first["loc"])
    where = f"{path}, line {line}" if line else str(path)
    mine = f"{dotted}."
    if any(mine.startswith(f"{key}.") or f"{key}.".startswith(mine) for key in given):
        where = "--set"
    more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _known_keys(kind, places[:-1])
        near = difflib.get_close_matches(places[-1], known, n=1, cutoff=0.0)
        nearest = f"the nearest key is {near[0]!r}; " if near else ""
        return f"unknown key {dotted!r} in {where}; {nearest}known keys: {', '.join(known)}{more}"
    if first["type"] == "missing":
        return f"expected the key {dotted!r} in {where}; it is missing; add it{more}"
    came = "" if isinstance(first["input"], Mapping) else f"; got {_short(first['input'])}"
    return f"{dotted or 'the configuration'} in {where}: {first['msg']}{came}; change it{more}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _known_keys(kind: type[BaseModel], groups: Sequence[str]) -> list[str]:
    model: type[BaseModel] = kind
    for group in groups:
        annotation = model.model_fields[group].annotation
        kinds = [annotation, *get_args(annotation)]  # a group that may be null is a union
        model = next(one for one in kinds if isinstance(one, type) and issubclass(one, BaseModel))
    return sorted(model.model_fields)


def _line_of(data: Any, loc: Sequence[int | str]) -> int | None:
    line: int | None = None
    for part in loc:
        try:
            position = data.lc.key(part) if isinstance(part, str) else data.lc.item(part)
            line = position[0] + 1
            data = data[part]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
    return line


def _plain(value: Any) -> Any:
    """Round-trip YAML containers as plain dicts, lists, strings and numbers."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, bool) or value is None:
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    return value


def annotated_yaml(kind: type[Config], name: str) -> str:
    """A configuration file with every field, its default, and above it what it means.

    It is made from the class itself, so it cannot fall behind it.
    """
    lines = [f"# {line}".rstrip() for line in (kind.__doc__ or "").strip().splitlines()]
    lines += ["# Every field is here with its default; delete what you do not change.", ""]
    return "\n".join(lines + _annotated(kind, kind(recipe=name, name=""), "")) + "\n"


def _annotated(kind: type[BaseModel], values: BaseModel, indent: str) -> list[str]:
    lines: list[str] = []
    for key, field in kind.model_fields.items():
        value = getattr(values, key)
        if key == "name":
            continue
        about = field.description or (value.__class__.__doc__ if _is_group(value) else "") or ""
        lines += [f"{indent}# {' '.join(one.split())}" for one in about.strip().splitlines()]
        if _is_group(value):
            lines += [f"{indent}{key}:", *_annotated(type(value), value, indent + "  ")]
        else:
            lines += [f"{indent}{key}: {json.dumps(to_jsonable_python(value))}", ""]
    return lines


def _is_group(value: Any) -> bool:
    return isinstance(value, BaseModel)
