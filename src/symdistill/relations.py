r"""Relations: how a triple (head, relation, tail) is asked for, and how it reads as a sentence.

A YAML file says for each relation what a teacher is shown and how a finished triple is put into
words; `data/relations/events.yaml` is the packaged one ("events"): seven relations of everyday
events, in the manner of ATOMIC and of Symbolic Knowledge Distillation, in our own words.

    version: 1
    names: [Alex, Casey, ...]      # stand for PersonX and PersonY in prompts; leave out for none
    relations:
      xWant:
        verbaliser: "{head}. As a result, PersonX wants {tail}."
        task: What does each person want after what happened?
        frame: "Situation {n}: {head}.\nAs a result, PersonX wants {tail}"
        examples:
          - {head: PersonX misses the last bus, tail: to call a taxi}

People are variables in heads and tails and names in prompts, so that the text is natural: each
example has a pair of names of its own, the query another one, and what the teacher says of the
query's pair is said of PersonX and PersonY again.
"""

from __future__ import annotations

import random
import re
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, ValidationError, field_validator, model_validator

from symdistill.config import Settings, _plain, read_yaml
from symdistill.errors import InputError

PACKAGED = ("events",)


class People(NamedTuple):
    """The names that PersonX and PersonY bear in one text."""

    x: str
    y: str


class Example(Settings):
    """A triple that shows what is meant."""

    head: str = Field(min_length=1)
    tail: str = Field(min_length=1)


class Relation(Settings):
    """One relation of a schema."""

    name: str
    verbaliser: str
    """The triple as a sentence, with {head} and {tail}."""

    hypothesis: str = ""
    """What the tail says about the head, with {tail}; default: the verbaliser after its head."""

    task: str = ""
    """The line above the examples."""

    frame: str
    """One example, with {head}, {tail} and, if they are numbered, {n}. What stands before {tail}
    asks for it."""

    examples: tuple[Example, ...] = ()
    names: tuple[str, ...] = ()

    @field_validator("verbaliser", "frame")
    @classmethod
    def _has_both_places(cls, text: str) -> str:
        if text.count("{head}") != 1 or text.count("{tail}") != 1:
            raise ValueError("expected {head} and {tail} once each")
        return text

    @model_validator(mode="after")
    def _asks_before_it_is_told(self) -> Relation:
        if self.frame.index("{tail}") < self.frame.index("{head}"):
            raise ValueError("expected {head} before {tail} in frame")
        if self.hypothesis and "{tail}" not in self.hypothesis:
            raise ValueError("expected {tail} in hypothesis")
        if self.names and len(self.names) < 2 * len(self.examples) + 2:
            raise ValueError(
                f"expected {2 * len(self.examples) + 2} names, two for each example and two for "
                f"the query; got {len(self.names)}"
            )
        return self

    def verbalise(self, head: str, tail: str) -> str:
        """The triple as one sentence."""
        return _fill(self.verbaliser, head=head, tail=tail)

    def opening(self, head: str) -> str:
        """The sentence as far as the tail, for a model to go on with."""
        return _fill(self.verbaliser.partition("{tail}")[0].rstrip(), head=head)

    def premise_hypothesis(self, head: str, tail: str) -> tuple[str, str]:
        """The triple for a model of entailment: the head, and what the tail says of it."""
        after = self.verbaliser.partition("{head}")[2].lstrip(" .,;:")
        return head, _fill(self.hypothesis or (after if "{tail}" in after else self.verbaliser),
                           head=head, tail=tail)  # fmt: skip

    def people(self, head: str, draw: int = 0) -> People | None:
        """Names for a head's people, another pair for another draw; None without names."""
        free = [name for name in self.names if not _word(name).search(head)]
        if len(free) < 2:
            return None
        at = 2 * draw % (len(free) - 1)
        return People(free[at], free[at + 1])

    def prompt(self, head: str, *, shots: int, seed: int) -> str:
        """What a teacher goes on with to name a tail.

        The examples and their names depend on the relation and the seed, not on the head: the
        beginning of a relation's prompts is the same for all heads, and a server may cache it.

        Args:
            head: the event or concept asked about.
            shots: examples to show, from the first.
            seed: of the names.
        """
        drawn = list(self.names[2:])
        random.Random(f"{seed} {self.name}").shuffle(drawn)
        parts = [self.task] if self.task else []
        numbered = list(enumerate(self.examples[:shots], start=1))
        for n, one in numbered:
            pair = People(drawn[2 * n - 2], drawn[2 * n - 1]) if drawn else None
            parts.append(with_names(_fill(self.frame, n=n, head=one.head, tail=one.tail), pair))
        asked = self.frame.partition("{tail}")[0].rstrip()
        query = _fill(asked, n=len(numbered) + 1, head=head)
        return "\n\n".join([*parts, with_names(query, self.people(head))])

    def read(self, head: str, said: str) -> str:
        """The tail in what a teacher went on with: its first line, its people as variables."""
        lines = said.strip().splitlines()
        tail = " ".join(lines[0].split()) if lines else ""
        return without_names(tail.rstrip(" .").strip(), self.people(head))

    def strangers(self, head: str, tail: str) -> list[str]:
        """Names in a tail that its head does not know: people of the examples."""
        return [n for n in self.names if _word(n).search(tail) and not _word(n).search(head)]


def read_relations(source: str = "events") -> dict[str, Relation]:
    """The relations of a schema by name, in the file's order.

    Args:
        source: "events" (the packaged schema) or a YAML file like it.

    Raises:
        InputError: the file cannot be read, or a relation in it lacks what it needs.
    """
    place = files("symdistill") / "data" / "relations" / f"{source}.yaml"
    path = Path(str(place)) if source in PACKAGED else Path(source).expanduser()
    data = _plain(read_yaml(path))
    listed, names = data.get("relations"), data.get("names") or []
    if data.get("version") != 1 or not isinstance(listed, dict) or not listed:
        raise InputError(
            f"expected `version: 1` and a mapping `relations` in {path}; got the keys "
            f"{', '.join(data) or 'none'}; write it like the packaged events.yaml"
        )
    found = {}
    for name, fields in listed.items():
        given = fields if isinstance(fields, dict) else {"verbaliser": fields}
        try:
            found[name] = Relation.model_validate({**given, "name": name, "names": names})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(
                f"relation {name!r} in {path}{', ' + where if where else ''}: {first['msg']}; "
                "mend it"
            ) from error
    return found


def with_names(text: str, people: People | None) -> str:
    """PersonX and PersonY as the names of people: "PersonX's dog" becomes "Alex's dog"."""
    if people is None:
        return text
    return _VARIABLE.sub(lambda found: people.x if found[1] == "X" else people.y, text)


def without_names(text: str, people: People | None) -> str:
    """The names of people as PersonX and PersonY, whole words only."""
    if people is None:
        return text
    text = _word(people.x).sub("PersonX", text)
    return _word(people.y).sub("PersonY", text)


_VARIABLE = re.compile(r"\bPerson([XY])\b")
_PLACE = re.compile(r"\{(head|tail|n)\}")


def _word(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")


def _fill(text: str, **values: str | int) -> str:
    """Braces in heads and tails are text; a head's final stop gives way to the verbaliser's."""
    said = {key: str(value).rstrip(" .") for key, value in values.items()}
    return _PLACE.sub(lambda place: said.get(place[1], place[0]), text)
