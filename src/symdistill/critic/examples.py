"""Labelled lines of any form: taken from a table, checked, and split by group.

Takes the rows of a table with a word in their label column (or labels by row); gives `Example`s,
and a split into lines to train on, to calibrate on and to test on in which no group is in two
parts. Where there are no groups each distinct text is one. "unsure" and unlabelled rows are left
out and counted. Costs about a second for 100,000 rows.

It does not repair labels: a text that one row calls valid and another invalid is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from symdistill.critic.forms import Form
from symdistill.critic.labels import MIN_USABLE
from symdistill.critic.reading import Text
from symdistill.datafiles import Row, expect_columns, is_missing
from symdistill.errors import InputError
from symdistill.pool import words_of
from symdistill.records import normalise
from symdistill.visible import visible

PARTS = 5  # of these the first tests, the second calibrates, and the others train


class Example(NamedTuple):
    """A text that somebody called valid or invalid."""

    text: Text
    valid: bool
    group: str
    row: int  # its number in the table
    numbers: tuple[float, ...] = ()  # what is read beside the text


@dataclass(frozen=True)
class Examples:
    """The usable labelled lines of a table, each text of a group once."""

    lines: Sequence[Example]
    left_out: Mapping[str, int] = field(default_factory=dict)  # why -> rows
    labelled: Mapping[int, Text] = field(default_factory=dict)  # row -> text; unsure ones, too

    @property
    def texts(self) -> list[Text]:
        """The texts or pairs."""
        return [one.text for one in self.lines]

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(N,) the labels."""
        return np.array([one.valid for one in self.lines], dtype=bool)

    @property
    def numbers(self) -> NDArray[np.float64]:
        """(N, F) what is read beside the texts."""
        return np.array([one.numbers for one in self.lines]).reshape(len(self.lines), -1)

    @property
    def groups(self) -> list[str]:
        """(N,) the groups."""
        return [one.group for one in self.lines]

    def some(self, rows: Iterable[int]) -> Examples:
        """The examples at these places."""
        return Examples([self.lines[i] for i in rows])


class Split(NamedTuple):
    """Examples of different groups."""

    train: Examples
    calibration: Examples
    test: Examples

    def counts(self) -> dict[str, dict[str, int]]:
        """Lines, valid ones and groups of each part."""
        return {
            name: {
                "lines": len(part.lines),
                "valid": int(part.valid.sum()),
                "groups": len(set(part.groups)),
            }
            for name, part in self._asdict().items()
        }


def read_examples(
    rows: Iterable[tuple[int, Row]],
    form: Form,
    *,
    label: str | Mapping[int, str],
    group: str | None = None,
    source: str = "the table",
) -> Examples:
    """The labelled lines of a table.

    Args:
        rows: numbered rows, as `datafiles.read_rows` gives them.
        form: what is judged of a row.
        label: the column with the labels, or the label of each row that has one, by number.
        group: the column that says what belongs together; None: equal texts do.
        source: the table's name, for messages.

    Raises:
        InputError: a column is missing, a label is no word for valid, invalid or unsure, a text
            of a group has two different labels, there are fewer than ten usable lines, or all of
            them say the same.
    """
    found: dict[str, None] = {}
    left_out: Counter[str] = Counter()
    known: dict[tuple[str, str], Example] = {}
    labelled: dict[int, Text] = {}
    for number, row in rows:
        if isinstance(row, str):
            left_out[row] += 1
            continue
        found |= dict.fromkeys(row)
        word = row.get(label) if isinstance(label, str) else label.get(number)
        if is_missing(word) or not str(word).strip():
            left_out["without a label"] += 1
            continue
        said = words_of(str(word))
        if said is None:
            raise InputError(
                "expected valid, invalid or unsure (or yes/no, true/false, 1/0) as a label; got "
                f"{visible(str(word))[:40]!r} on row {number} of {source}; mend it or leave it "
                "empty"
            )
        text = form.read(row, f"row {number} of {source}")
        if text is None:
            left_out[f"with nothing in {' or '.join(form.columns.values())}"] += 1
            continue
        labelled[number] = text
        numbers = form.read_numbers(row)
        if numbers is None:
            left_out[f"without a number in {' or '.join(form.numbers)}"] += 1
            continue
        if said == "unsure":
            left_out["unsure"] += 1
            continue
        own = normalise(text if isinstance(text, str) else "\n".join(text))
        named = None if group is None else row.get(group)
        belongs = own if is_missing(named) else str(named)
        one = Example(text, said == "valid", belongs, number, numbers)
        before = known.setdefault((one.group, own), one)
        if before.valid != one.valid:
            raise InputError(
                f"expected one label for a text; rows {before.row} and {number} of {source} call "
                f"the same text valid and invalid ({_short(text)}); decide which, or write unsure"
            )
        if before is not one:
            left_out["said before"] += 1
    if found:  # JSON Lines have no header, so this is the first moment to tell
        wanted = [
            *form.columns.values(),
            *form.numbers,
            *([label] if isinstance(label, str) else []),
        ]
        expect_columns([*wanted, *([group] if group else [])], list(found), source)
    lines = list(known.values())
    n_valid = sum(one.valid for one in lines)
    if len(lines) < MIN_USABLE or n_valid in (0, len(lines)):
        counts = f"{n_valid:,} valid and {len(lines) - n_valid:,} invalid"
        others = "; ".join(f"{rows:,} {why}" for why, rows in left_out.most_common(3))
        raise InputError(
            f"expected at least {MIN_USABLE} labelled lines of both kinds in {source}; got "
            f"{counts}{f' (and {others})' if others else ''}; label more lines"
        )
    return Examples(lines, dict(left_out), labelled)


def split_examples(examples: Examples, seed: int = 0) -> Split:
    """Three fifths of the lines to train on, a fifth to calibrate on, a fifth to test on.

    Groups are whole, and the parts have about the same share of valid lines.

    Raises:
        InputError: fewer than five groups, or nothing of one kind to train on.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    count = len(set(examples.groups))
    valid = examples.valid
    fewest = int(min(valid.sum(), (~valid).sum()))
    if count < PARTS or fewest < PARTS:
        raise InputError(
            f"expected at least {PARTS} groups, and {PARTS} lines of each kind, to train and test "
            f"on different ones; got {count} groups and {fewest} lines of the rarer kind; label "
            "more lines"
        )
    apart = count == len(valid)  # then the quick way is the same
    kind = StratifiedKFold if apart else StratifiedGroupKFold
    cut = kind(PARTS, shuffle=True, random_state=seed)
    folds = [held for _, held in cut.split(valid, valid, None if apart else examples.groups)]
    split = Split(
        train=examples.some(sorted(int(i) for fold in folds[2:] for i in fold)),
        calibration=examples.some(folds[1]),
        test=examples.some(folds[0]),
    )
    for part, what in zip(split, ("train on", "calibrate on", "test on"), strict=True):
        if part.valid.all() or not part.valid.any():
            raise InputError(
                f"expected lines of both kinds to {what}, in groups of their own; the labels of "
                "one kind lie in too few groups; label more groups"
            )
    return split


def told(examples: Examples, split: Split, *, grouped: bool) -> str:
    """What there is to learn from, for a terminal."""
    valid = int(examples.valid.sum())
    sizes = ", ".join(f"{len(part.lines):,} to {what}" for part, what in zip(
        split, ("train on", "calibrate on", "test on"), strict=True))  # fmt: skip
    lines = [
        f"{len(examples.lines):,} labelled lines, {valid:,} of them valid, in "
        f"{len(set(examples.groups)):,} groups: {sizes}."
    ]
    if not grouped:
        lines.append("No --group: every line is its own group, so lines that resemble each other "
                     "may be learnt from and tested on.")  # fmt: skip
    if examples.left_out:
        why = ", ".join(f"{rows:,} {visible(why)}" for why, rows in examples.left_out.items())
        lines.append(f"Rows left out: {why}.")
    return "\n".join(lines)


def _short(text: Text) -> str:
    shown = visible(text if isinstance(text, str) else " / ".join(text))
    return repr(shown if len(shown) <= 60 else shown[:57] + "...")
