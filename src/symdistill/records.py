"""The records that travel between stages: Item, Knowledge, Lineage, Failure, Verdict, View.

They are frozen, small, and know nothing of models or files. An id is a hash of the
content that gives a record its identity, so the same line written twice, on another
machine or in another order, is the same record: a repeat adds a lineage, not a row.

Fields may grow; their meanings may not change.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

ItemKind = Literal["concept", "goal", "event", "question", "passage"]
Form = Literal["statement", "triple", "rationale", "rule", "label", "spans", "pair"]
Status = Literal["ok", "unknown", "infra_error"]

ID_LENGTH = 16  # hexadecimal digits: 64 bits, about 1e-9 chance of one clash in 200,000 records


def canonical_json(value: Any) -> str:
    """One spelling of a JSON value: sorted keys, no white space, text left as it is.

    Raises:
        TypeError: the value holds something JSON cannot (a set, an object, NaN as a key ...).
    """
    return json.dumps(
        _plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def content_hash(value: Any, length: int = ID_LENGTH) -> str:
    """The first `length` hexadecimal digits of the SHA-256 of the value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode("utf-8")).hexdigest()[:length]


def normalise(text: str) -> str:
    """Text as identity sees it: NFKC, case folded, white space single, final stop dropped."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.rstrip(" .!")


@dataclass(frozen=True, slots=True)
class Item:
    """What is asked about: a concept, a goal, a question, a passage.

    `fields` holds what the source knew beside the text (plural, gerund, related concepts ...).
    `gold` is a reference answer where there is one; `split` keeps train and test apart.
    """

    id: str
    kind: ItemKind
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    gold: str | None = None
    split: str | None = None

    @classmethod
    def make(cls, kind: ItemKind, text: str, **rest: Any) -> Item:
        """An item whose id follows from its kind and normalised text."""
        return cls(id=content_hash(["item", kind, normalise(text)]), kind=kind, text=text, **rest)


@dataclass(frozen=True, slots=True)
class Lineage:
    """One occasion on which a teacher wrote a line.

    `request_key` leads to the ledger row of the call, and through it to the full prompt,
    settings, tokens and cost; `parents` names the knowledge this line was made from
    (for self-imitation: the student's own round; empty for a first writing).
    """

    teacher: str  # fingerprint of the weights that wrote it
    request_key: str
    prompt_id: str
    decoding: str  # canonical JSON of the sampling settings and the constraint program's hash
    seed: int
    round: int
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a teacher said of an item: one line, with every occasion on which it was said."""

    id: str
    item_id: str
    form: Form
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    lineage: tuple[Lineage, ...] = ()

    @classmethod
    def make(cls, form: Form, text: str, item_id: str, **rest: Any) -> Knowledge:
        """Knowledge whose id is H(form, normalised text, item id)."""
        key = ["knowledge", form, normalise(text), item_id]
        return cls(id=content_hash(key), item_id=item_id, form=form, text=text, **rest)

    def repeated(self, other: Knowledge) -> Knowledge:
        """This line, with the occasions of a repeat of it added.

        Raises:
            ValueError: the other line is not a repeat of this one.
        """
        if other.id != self.id:
            raise ValueError(f"expected a repeat of line {self.id}, got line {other.id}")
        new = tuple(one for one in other.lineage if one not in self.lineage)
        return replace(self, lineage=self.lineage + new)


@dataclass(frozen=True, slots=True)
class Failure:
    """A sample that a teacher was asked for and did not give, and why."""

    id: str
    item_id: str
    sample_index: int
    kind: str  # "refused", "context_overflow", "gave_up" ...
    reason: str
    attempts: int
    request_key: str

    @classmethod
    def make(cls, item_id: str, sample_index: int, request_key: str, **rest: Any) -> Failure:
        """A failure whose id follows from what was asked for."""
        id = content_hash(["failure", item_id, sample_index, request_key])
        return cls(id, item_id, sample_index, request_key=request_key, **rest)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said of a line.

    `judge` names the judge and its version ("critic@0f3a", "selection@round-1"); `score` is in
    0..1 and is None unless `status` is "ok"; `reason` is a short text for people.
    """

    knowledge_id: str
    judge: str
    score: float | None
    status: Status = "ok"
    reason: str = ""
    request_key: str | None = None
    round: int = 0


@dataclass(frozen=True, slots=True)
class View:
    """One training row: the student reads `prompt` and learns to write `target`."""

    prompt: str
    target: str
    weight: float
    group: str  # what must stay together in a split: the concept's item id
    knowledge_ids: tuple[str, ...]
    round: int = 0


def merge_repeats(lines: Iterable[Knowledge]) -> list[Knowledge]:
    """Distinct lines in order of first appearance, each with the lineage of all its repeats."""
    merged: dict[str, Knowledge] = {}
    for line in lines:
        known = merged.get(line.id)
        merged[line.id] = line if known is None else known.repeated(line)
    return list(merged.values())


def _plain(value: Any) -> Any:
    """Records and tuples as the dicts and lists that JSON knows."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value
