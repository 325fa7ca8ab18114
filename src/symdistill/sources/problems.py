"""Tables of problems: questions whose answers can be checked, with their options and gold.

Takes a .jsonl, .csv, .tsv, .parquet or text file, or a packaged table by its name (`PACKAGED`);
gives an `Item` per row, one after another, and the rows that were refused, each with its reason.
Costs two passes over the file (the first tells the kind of answer, once for all rows), and in
memory 16 characters for each row.

What is read

    options  a list; JSON or "swim | fly | run" in a CSV; {"text": [...], "label": [...]} as public
             data sets have it; a column for each ("a, b, c"); or behind "Options:" or
             "Answer choices:" at the end of the question, "(A) swim (B) fly"
    gold     a number, a word, "(B)", "b", "2" (counted from 1), the option's text or its label;
             what stands behind the last "####", where there is one (GSM8K,
             arxiv.org/abs/2110.14168)

An item's id follows from its question and options alone, so the same question has the same id in
every file: a training question that is also a test question shows. Columns that are not named in
the settings are kept in the item's fields.

What it does not do: mend rows, or guess. Where nine golds in ten are numbers and one is not, it
asks for the kind.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from symdistill.answers import ANSWER_KINDS, MAX_CHOICES, AnswerKind, canonical, letter
from symdistill.config import Settings
from symdistill.datafiles import Row, expect_columns, is_missing, json_rows, read_rows
from symdistill.errors import InputError
from symdistill.records import Item, canonical_json, content_hash, normalise
from symdistill.sources.concepts import Rejected
from symdistill.sources.questions import Template

PACKAGED = ("arithmetic", "last_letters", "shuffled_objects")
"""The tables that come with the package: word problems, and two tasks of the literature."""

_TOLD: tuple[AnswerKind, ...] = ("number", "yes_no", "true_false", "valid_invalid")  # from golds
MAX_GOLD = 1000  # characters; a longer one is a text, not an answer
_ONE_KIND = 0.9  # a kind that fits at least this share of the golds, but not all, is no accident
_SPLITS = {"train": "train", "dev": "dev", "valid": "dev", "validation": "dev", "test": "test"}
_OPTIONS_BEHIND = re.compile(r"\s*\b(?:options|answer choices):\s*(?=\(A\))", re.IGNORECASE)
_OPTION_LETTER = re.compile(r"(?:^|\s+)\(([A-Z])\)\s*")


class ProblemColumns(Settings):
    """Which columns of a table of problems hold what."""

    question: str = "question"
    """The column of the question, or a text with columns in braces: "Premise: {premise} Does it
    follow that {hypothesis}?"."""

    choices: str | None = "choices"
    """The column of the options, or several, one for each option: "a, b, c". Without it the
    questions are open."""

    gold: str | None = "gold"
    """The column of the right answer."""

    gold_index: str | None = None
    """The column that counts the right option from 0; goes before `gold`."""

    kind: AnswerKind | None = None
    """What the answers are: number, choice, yes_no, true_false, valid_invalid or text. Empty: told
    from the rows."""

    id: str | None = None
    """The column of the row's own id; kept in the item's fields as `source_id`."""

    split: str | None = "split"
    """The column that says train, dev or test."""


def read_problems(
    source: str | Path, columns: ProblemColumns | None = None, *, needs_gold: bool = False
) -> Iterator[Item | Rejected]:
    """The problems of a source, in its order, and between them the rows that were refused.

    Args:
        source: one of `PACKAGED`, or the path of a file.
        columns: which columns hold what.
        needs_gold: whether a row without gold is refused.

    Raises:
        InputError: the source cannot be read, lacks a column that the settings name, holds no
            valid row, or does not tell what kind its answers are.
    """
    table = _Table(source, columns or ProblemColumns())
    kind = table.kind()
    seen: set[str] = set()
    first: Rejected | None = None
    for number, row in table.rows():
        try:
            item = table.item(row, kind, needs_gold)
            if item.id in seen:
                raise _RefusedError("repeats an earlier question")
        except _RefusedError as reason:
            shown = "" if isinstance(row, str) else _written(row.get(table.shown, ""))
            text = shown[:80].encode("utf-8", "replace").decode("utf-8")
            refused = Rejected(number, text, str(reason))
            first = first or refused
            yield refused
        else:
            seen.add(item.id)
            yield item
    if not seen:
        why = f"none: row {first.row} {first.reason}" if first else "nothing"
        raise InputError(f"expected at least one problem in {source}; got {why}; mend the rows")


def hold_out(
    items: Iterable[Item],
    share: float,
    seed: int,
    by: Callable[[Item], str] | None = None,
    *,
    name: str = "dev",
) -> list[Item]:
    """The items, those without a split put into "dev" (or what `name` says) or "train".

    Each question is put there by a hash of its own, so none moves when others join it; the share
    is therefore met on average, not exactly.

    Args:
        items: questions.
        share: of the questions that are held out, 0 to 1.
        seed: another seed, other questions.
        by: what must stay together, such as a question's topic; None: every question is alone.
        name: the split of those held out.

    Raises:
        InputError: a share out of its range.
    """
    if not 0 <= share <= 1:
        raise InputError(f"expected a share between 0 and 1 to hold out; got {share}; mend it")

    def split(item: Item) -> str:
        place = int(content_hash([name, seed, by(item) if by else item.id]), 16) / 16**16
        return name if place < share else "train"

    return [item if item.split else replace(item, split=split(item)) for item in items]


def wrong_options(choices: Sequence[str]) -> str:
    """Why no answer can be told by these options; empty: it can."""
    if not choices:
        return "has no options"
    if len(choices) < 2:
        return "has only one option"
    if len(choices) > MAX_CHOICES:
        return f"has {len(choices)} options; {MAX_CHOICES} at most"
    if not all(map(normalise, choices)):
        return "has an empty option"
    alike = [name for name, times in Counter(map(normalise, choices)).items() if times > 1]
    return f"has two options that read alike: {alike[0][:40]}" if alike else ""


class _RefusedError(Exception):
    """Why a row is no problem."""


@dataclass(frozen=True, slots=True)
class _Options:
    """The question as it is asked, its options, and what the table calls them, if anything."""

    text: str
    choices: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


class _Table:
    """A source, read as its settings say."""

    def __init__(self, source: str | Path, columns: ProblemColumns) -> None:
        self.source = source
        self.columns = columns
        self.template = Template(columns.question) if "{" in columns.question else None
        self.asked = self.template.columns if self.template else (columns.question,)
        if not self.asked:
            raise InputError(
                f"expected a question with columns in braces; got {columns.question!r}; name one"
            )
        self.shown = self.asked[0]  # the column by which a refused row is known again
        names = (columns.choices or "").split(",")
        self.options = tuple(name.strip() for name in names if name.strip())
        named = {columns.gold, columns.gold_index, columns.id, columns.split}
        self.used = {*self.asked, *self.options, *named}

    def rows(self) -> Iterator[tuple[int, Row]]:
        """The rows of the source with their numbers, from 1."""
        if str(self.source) in PACKAGED:
            path = files("symdistill") / "data" / "problems" / f"{self.source}.jsonl"
            return json_rows(line.encode() for line in path.read_text("utf-8").splitlines())
        what = f"problems, or one of {', '.join(PACKAGED)}"
        return read_rows(Path(self.source), self.asked, what=what)

    def kind(self) -> AnswerKind:
        """What kind the answers are, as the settings or all rows together tell."""
        names: dict[str, None] = {}  # of the columns, in order
        fits: Counter[AnswerKind] = Counter()
        golds = 0
        odd: dict[AnswerKind, str] = {}  # the first gold that is not of the kind
        optional = False
        for number, row in self.rows():
            if isinstance(row, str):
                continue
            names |= dict.fromkeys(row)
            try:
                options = self._asked(row, "choice")
                gold = self._gold(row, None)
            except _RefusedError:
                continue
            optional = optional or bool(options.choices)
            if gold is None:
                continue
            golds += 1
            for kind in _TOLD:
                if canonical(kind, gold) is not None:
                    fits[kind] += 1
                else:
                    odd.setdefault(kind, f"{gold[:40]!r} in row {number}")
            if gold == "0" and self._is_from_0(options):
                raise InputError(
                    f"expected options counted from 1 in {self.columns.gold!r} of {self.source}; "
                    f"got 0 in row {number}; name the column as gold_index, which counts from 0"
                )
        self._expect(list(names))
        if self.columns.kind:
            return self.columns.kind
        if optional:
            return "choice"
        if not golds:
            raise InputError(
                f"expected options or right answers in {self.source}, which tell what kind the "
                f"answers are; got neither; set kind to one of {', '.join(ANSWER_KINDS)}"
            )
        kind = max(_TOLD, key=fits.__getitem__)
        if fits[kind] < _ONE_KIND * golds:
            return "text"
        if fits[kind] < golds:
            raise InputError(
                f"expected right answers of one kind in {self.source}; got {fits[kind]} of {golds} "
                f"of the kind {kind}, but {odd[kind]}; set kind to {kind}, which refuses the "
                "others, or to text"
            )
        return kind

    def item(self, row: Row, kind: AnswerKind, needs_gold: bool) -> Item:
        """The problem of a row; raises `_RefusedError` where it is none."""
        if isinstance(row, str):
            raise _RefusedError(row)
        options = self._asked(row, kind)
        if kind == "choice" and (why := wrong_options(options.choices)):
            raise _RefusedError(why)
        gold = self._answer(row, kind, options)
        if gold is None and needs_gold:
            where = self.columns.gold_index or self.columns.gold or "gold"
            raise _RefusedError(f"has no {where!r}")
        fields = {name: value for name, value in row.items() if name not in self.used}
        fields = {name: value for name, value in fields.items() if not is_missing(value)}
        if self.columns.id and not is_missing(row.get(self.columns.id)):
            fields["source_id"] = row[self.columns.id]
        fields["answer_kind"] = kind
        fields.pop("choices", None)
        if kind == "choice":
            fields["choices"] = list(options.choices)
        try:
            canonical_json([options.text, gold, fields]).encode("utf-8")
        except (TypeError, ValueError, RecursionError) as error:
            raise _RefusedError("has a column that JSON cannot hold") from error
        parts = [options.text, *options.choices] if kind == "choice" else [options.text]
        id = content_hash(["item", "question", *map(normalise, parts)])
        return Item(id, "question", options.text, fields=fields, gold=gold, split=self._split(row))

    def _expect(self, names: Sequence[str]) -> None:
        """Refuse a table without a column that the settings name, and not by default."""
        if names:
            usual = {field.default for field in ProblemColumns.model_fields.values()}
            named = [name for name in self.used if name and name not in usual]
            expect_columns([*self.asked, *sorted(named)], names, self.source)

    def _is_from_0(self, options: _Options) -> bool:
        """Whether a gold of 0 says that the options are counted from there."""
        asked = self.columns.kind in (None, "choice") and not self.columns.gold_index
        return bool(options.choices) and asked and "0" not in options.choices + options.labels

    def _asked(self, row: Mapping[str, Any], kind: AnswerKind) -> _Options:
        """The question and options of a row."""
        for name in self.asked:
            if is_missing(row.get(name)):
                raise _RefusedError(f"has no {name!r}")
        if self.template:
            text: Any = self.template.fill(Item("", "question", row.get("text", ""), fields=row))
        else:
            text = row[self.columns.question]
        if not isinstance(text, str) or not text.strip():
            raise _RefusedError(f"has no text in {self.shown!r}")
        if kind != "choice" or not self.options:
            return _Options(text)
        choices, labels = self._choices(row)
        return _Options(text, choices, labels) if choices else _options_behind(text)

    def _choices(self, row: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The options of a row and their labels, where its columns hold any."""
        cells: list[Any] = [row.get(name) for name in self.options]
        if len(cells) > 1:
            while cells and _is_empty(cells[-1]):  # a question may have fewer options than others
                cells.pop()
            return tuple("" if _is_empty(cell) else _written(cell) for cell in cells), ()
        cell: Any = cells[0] if cells else None
        if _is_empty(cell):
            return (), ()
        if isinstance(cell, str):
            try:
                read = json.loads(cell)
            except (ValueError, RecursionError):
                read = None
            cell = read if isinstance(read, list | dict) else cell.split("|")
        labels: Any = ()
        if isinstance(cell, dict):
            cell, labels = cell.get("text"), cell.get("label") or ()
        if not isinstance(cell, list) or not isinstance(labels, list | tuple):
            raise _RefusedError(f"has no list of options in {self.columns.choices!r}")
        if any(isinstance(one, list | dict) for one in cell):
            raise _RefusedError(f"has an option that is no text in {self.columns.choices!r}")
        return (
            tuple("" if is_missing(one) else _written(one).strip() for one in cell),
            tuple(map(_written, labels)),
        )

    def _gold(self, row: Mapping[str, Any], kind: AnswerKind | None) -> str | None:
        """The right answer as the table writes it."""
        value = row.get(self.columns.gold) if self.columns.gold else None
        if _is_empty(value):
            return None
        if isinstance(value, bool) and kind == "yes_no":
            return "yes" if value else "no"
        text = _written(value).rpartition("####")[2].strip()
        if len(text) > MAX_GOLD:
            raise _RefusedError(f"has a gold answer of {len(text)} characters; {MAX_GOLD} at most")
        return text

    def _answer(self, row: Mapping[str, Any], kind: AnswerKind, options: _Options) -> str | None:
        """The right answer in its one spelling."""
        index = row.get(self.columns.gold_index) if self.columns.gold_index else None
        if not _is_empty(index) and kind == "choice":
            places = [str(place) for place in range(len(options.choices))]
            place = canonical("number", _written(index)[:MAX_GOLD])
            if place not in places:
                raise _RefusedError(f"has a gold outside its options: {_written(index)[:40]}")
            return letter(places.index(place))
        gold = self._gold(row, kind)
        if gold is None:
            return None
        if gold in options.labels[: len(options.choices)]:
            return letter(options.labels.index(gold))
        answer = canonical(kind, gold, options.choices)
        if answer is None:
            wrong = "outside its options" if kind == "choice" else f"that is no {kind}"
            raise _RefusedError(f"has a gold {wrong}: {gold[:40]}")
        return answer

    def _split(self, row: Mapping[str, Any]) -> str | None:
        value = row.get(self.columns.split) if self.columns.split else None
        if _is_empty(value):
            return None
        split = _SPLITS.get(_written(value).strip().casefold())
        if split is None:
            raise _RefusedError(
                f"has a split that is not train, dev or test: {_written(value)[:40]}"
            )
        return split


def _options_behind(text: str) -> _Options:
    """The question and the options that stand behind it, "Options: (A) swim (B) fly"."""
    marks = list(_OPTIONS_BEHIND.finditer(text))
    if not marks:
        return _Options(text)
    _, *parts = _OPTION_LETTER.split(text[marks[-1].end() :])
    letters, choices = parts[::2], tuple(part.strip() for part in parts[1::2])
    question = text[: marks[-1].start()]
    if not question.strip() or letters != [letter(i) for i in range(len(letters))]:
        return _Options(text)
    return _Options(question, choices)


def _is_empty(value: Any) -> bool:
    return is_missing(value) or (isinstance(value, str) and not value.strip())


def _written(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
