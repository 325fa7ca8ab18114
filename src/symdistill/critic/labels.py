"""Labelled statements: reading them, checking them, splitting them by concept.

Takes JSONL files, one labelled statement a line:

    {"text": "A kettle boils water.", "concept": "kettle", "label": "valid", "split": "train",
     "round": 0, "pattern": "generally", "source": "raw", "labeller": "A. Person",
     "prompt": "A kettle", "continuation": " boils water."}

`text`, `concept` and `label` are required. `split` is required on all lines or on none; without
it, `split_by_concept` makes one. `round` (default 0) is the first round whose critic may learn
from the label. `source` is "raw" (a model wrote the line) or "written" (a person or program
wrote it to be labelled). Other keys are refused: a misspelt key would be lost in silence.

Gives `Label` records. Costs nothing worth naming.

Two rules hold throughout:
* Splits are by concept, never by line: lines about one concept resemble each other, and a
  critic tested on concepts it has seen looks better than it is.
* "unsure" is left out of training (`usable`), and counts as invalid wherever a precision is
  estimated (`valid`): a line nobody can vouch for is not a line to keep. The critic code of
  Symbolic Knowledge Distillation trains on "no judgement" as if it were "invalid"; we do not.

It does not measure agreement between labellers, and it does not repair labels.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from symdistill.errors import InputError
from symdistill.pool import LabelWord
from symdistill.records import normalise

Split = Literal["train", "calibration", "test", "judge"]
Source = Literal["raw", "written"]

MIN_USABLE = 10  # fewer labelled lines than this in a split say nothing
DEFAULT_SHARES: Mapping[Split, float] = {"train": 0.6, "calibration": 0.2, "test": 0.2}


@dataclass(frozen=True, slots=True)
class Label:
    """One statement with what a labeller said of it."""

    text: str
    concept: str
    label: LabelWord
    split: Split | None = None
    round: int = 0
    pattern: str = ""
    source: Source = "raw"
    labeller: str = ""
    prompt: str | None = None
    continuation: str | None = None

    @property
    def usable(self) -> bool:
        """Whether a critic may learn from it: everything but "unsure"."""
        return self.label != "unsure"

    @property
    def valid(self) -> bool:
        """Whether it counts as valid; "unsure" does not."""
        return self.label == "valid"


def read_labels(
    paths: str | Path | Iterable[str | Path], *, needed: Sequence[Split] = ("train", "calibration")
) -> list[Label]:
    """All labels of the files, in their order, each statement of a concept once.

    Repeats with the same label are dropped (the earliest round stays).

    Args:
        paths: one JSONL file or several.
        needed: the splits that must be fit for use (see `check_splits`). With labels that name
            no split, the whole set is checked instead.

    Raises:
        InputError: a file cannot be read; a line is not JSON, lacks a key, has an unknown key
            or word; a statement has two different labels; a concept is in two splits; a needed
            split is too small or holds one class only.
    """
    files = [paths] if isinstance(paths, (str, Path)) else list(paths)
    kept: dict[tuple[str, str], tuple[Label, str]] = {}
    home: dict[str, tuple[Split | None, str]] = {}
    for path in files:
        for where, row in _rows(Path(path)):
            label = _label(row, where)
            concept = normalise(label.concept)
            split, seen_at = home.setdefault(concept, (label.split, where))
            if split != label.split:
                _refuse_split(label, where, split, seen_at)
            key = (concept, normalise(label.text))
            known = kept.get(key)
            if known is None:
                kept[key] = (label, where)
            elif known[0].label != label.label:
                raise InputError(
                    f"{where}: {label.text!r} is labelled {label.label!r} here and "
                    f"{known[0].label!r} at {known[1]}; expected one label for a statement of a "
                    'concept: decide which, or write "unsure"'
                )
            elif label.round < known[0].round:
                kept[key] = (replace(known[0], round=label.round), known[1])
    labels = [label for label, _ in kept.values()]
    with_split = sum(label.split is not None for label in labels)
    if 0 < with_split < len(labels):
        first = next(where for label, where in kept.values() if label.split is None)
        raise InputError(
            f'{first}: no "split", while {with_split} other lines have one; expected it on all '
            "lines or on none"
        )
    what = ", ".join(str(path) for path in files)
    if with_split:
        check_splits(labels, needed, what=what)
    else:
        _check(labels, f"{what or 'no label file'}")
    return labels


def select(labels: Iterable[Label], split: Split, *, round: int | None = None) -> list[Label]:
    """The labels of one split that round `round` may use (None: of all rounds)."""
    return [
        label
        for label in labels
        if label.split == split and (round is None or label.round <= round)
    ]


def check_splits(
    labels: Iterable[Label], needed: Sequence[Split], *, what: str = "the labels"
) -> None:
    """Refuse label sets that cannot train, scale or test anything.

    Raises:
        InputError: a needed split has fewer than 10 usable lines, or one class only.
    """
    everything = list(labels)
    for split in needed:
        _check([label for label in everything if label.split == split], f"{what}: split {split!r}")


def split_by_concept(
    labels: Iterable[Label], shares: Mapping[Split, float] | None = None, seed: int = 0
) -> list[Label]:
    """The labels, each with a split drawn for its concept.

    A concept's place follows from a hash of the seed and its name alone, so adding concepts
    later moves none of those that were there. Shares are of concepts, and hold on average.

    Args:
        labels: labels without a split (a split they have is replaced).
        shares: split -> share of the concepts, summing to 1; 0.6 train, 0.2 calibration and
            0.2 test where not given.
        seed: another seed, another split.

    Raises:
        InputError: shares that are negative, name an unknown split or do not sum to 1.
    """
    wanted = dict(DEFAULT_SHARES if shares is None else shares)
    unknown = [name for name in wanted if name not in get_args(Split)]
    if unknown or min(wanted.values(), default=-1) < 0 or abs(sum(wanted.values()) - 1) > 1e-9:
        raise InputError(
            f"expected shares >= 0 of {', '.join(get_args(Split))} that sum to 1, got {wanted}"
        )
    return [replace(label, split=_draw(label.concept, wanted, seed)) for label in labels]


def _draw(concept: str, shares: Mapping[Split, float], seed: int) -> Split:
    digest = hashlib.sha256(f"{seed}\n{normalise(concept)}".encode()).digest()
    point = int.from_bytes(digest[:8], "big") / 2**64  # uniform in 0..1
    reached = 0.0
    filled = [split for split, share in shares.items() if share > 0]
    for split in filled:
        reached += shares[split]
        if point < reached:
            return split
    return filled[-1]  # the shares' sum fell short of 1 by rounding


def _rows(path: Path) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """(file:line, parsed object) of every line that is not blank."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(
            f"{path}: expected a readable UTF-8 JSONL file of labelled statements: {problem}"
        ) from problem
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except ValueError as problem:
            raise InputError(f"{where}: expected one JSON object: {problem}") from problem
        if not isinstance(row, dict):
            raise InputError(f"{where}: expected one JSON object, got {type(row).__name__}")
        yield where, row


def _label(row: Mapping[str, Any], where: str) -> Label:
    names = [f.name for f in fields(Label)]
    unknown = [key for key in row if key not in names]
    if unknown:
        raise InputError(f"{where}: unknown key {unknown[0]!r}; expected some of {names}")
    for key in ("text", "concept", "label"):
        value = row.get(key)
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{where}: expected a non-empty text under {key!r}, got {value!r}")
    for key in ("pattern", "labeller", "prompt", "continuation"):
        optional = row.get(key)
        if optional is not None and not isinstance(optional, str):
            raise InputError(f"{where}: expected a text under {key!r}, got {optional!r}")
    for key, words in (("label", LabelWord), ("split", Split), ("source", Source)):
        if row.get(key) is not None and row[key] not in get_args(words):
            raise InputError(
                f"{where}: expected {key!r} to be one of {', '.join(get_args(words))}, "
                f"got {row[key]!r}"
            )
    since = row.get("round", 0)
    if not isinstance(since, int) or isinstance(since, bool) or since < 0:
        raise InputError(f"{where}: expected a whole number >= 0 under 'round', got {since!r}")
    return Label(**{key: value for key, value in row.items() if value is not None})


def _refuse_split(label: Label, where: str, split: Split | None, seen_at: str) -> None:
    raise InputError(
        f"{where}: concept {label.concept!r} is in split {label.split!r} here and in "
        f"{split!r} at {seen_at}; splits are by concept, so that no concept is both learnt from "
        "and tested on: give all its lines one split"
    )


def _check(labels: Sequence[Label], what: str) -> None:
    counts = Counter(label.label for label in labels)
    usable = counts["valid"] + counts["invalid"]
    if usable < MIN_USABLE:
        raise InputError(
            f"{what}: expected at least {MIN_USABLE} lines labelled valid or invalid, "
            f"got {usable} (and {counts['unsure']} unsure); label more lines"
        )
    if not counts["valid"] or not counts["invalid"]:
        only = "valid" if counts["valid"] else "invalid"
        raise InputError(
            f"{what}: all {usable} usable lines are {only}; expected both classes: a critic "
            "cannot learn, and a cut cannot be chosen, from one"
        )
