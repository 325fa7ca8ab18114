"""A world in which truth is decidable: made-up nouns, their properties, and text about them.

Takes a seed and parameters; gives a `World` that decides every statement of its grammar, writes
noisy text for a language model to learn from, and the files a recipe reads (concepts, prompts,
labels). Costs milliseconds; needs no model. The same seed and parameters give the same bytes.

    world = World.draw(3)
    world.truth("Generally, glomops can swim.")          # True, False, or None: not a statement

How a world is made
    A concept is a made-up noun whose last letters show its category ("gramop", "fliplop" ...),
    so that what is learnt of some concepts can be carried over to others. A category has
    properties of every relation ("can swim", "need warm water"). A concept inherits each of them,
    save for exceptions, and has a few specific ones that its category lacks. Vacuous properties
    ("can take many forms") are true of every concept: lines that say nothing are never wrong.

The grammar of statements
    [HEDGE,] PLURAL PHRASE VALUE     Generally, gramops can swim.
    [HEDGE,] a NAME is a kind of CATEGORY
    with the words of `words.py`; case, white space and a final stop do not matter, everything else
    does. A text that goes on after its value ("gramops can swim because ...") is no statement.

Values are drawn for categories at random, so nothing that is known of the real world helps.
What it does not do: degrees of truth, relations between concepts, systematic false beliefs (the
false statements of a corpus are drawn evenly).
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from symdistill.errors import InputError
from symdistill.records import normalise
from symdistill.worlds.words import (
    CATEGORIES,
    CODAS,
    HEDGES,
    ONSETS,
    PLACE_TAILS,
    RELATIONS,
    STORIES,
    SUFFIXES,
    TAILS,
    VOWELS,
    Relation,
)

SPLITS = {"train": 0.5, "calibration": 0.2, "test": 0.15, "judge": 0.15}  # shares of the concepts
KIND = "kind-of"

_RELATION = {relation.id: relation for relation in RELATIONS}


@dataclass(frozen=True, slots=True)
class Concept:
    """A made-up noun; `split` is where its labelled statements belong."""

    name: str
    category: str
    split: str

    @property
    def plural(self) -> str:
        """The regular plural."""
        return f"{self.name}s"


class Property(NamedTuple):
    """A relation and a value: what can hold of a concept."""

    relation: str  # the relation's id
    value: str


class Statement(NamedTuple):
    """A text of the grammar, taken apart."""

    concept: str
    relation: str
    value: str


@dataclass(frozen=True)
class World:
    """Concepts and what holds of them. Make one with `World.draw` or `World.read`.

    Attributes:
        seed: what it was drawn with.
        concepts: in the order drawn.
        values: by relation id, all values that the world knows, without the vacuous ones.
        inherited: by category, the properties that its concepts have save for exceptions.
        properties: by concept name, the properties it has; vacuous ones are not listed.
    """

    seed: int
    concepts: tuple[Concept, ...]
    values: Mapping[str, tuple[str, ...]]
    inherited: Mapping[str, frozenset[Property]]
    properties: Mapping[str, frozenset[Property]]

    # -- making ------------------------------------------------------------------------------

    @classmethod
    def draw(
        cls,
        seed: int,
        *,
        n_concepts: int = 60,
        n_categories: int = 6,
        n_values: int = 14,
        n_properties: int = 3,
        n_specific: int = 3,
        exception_rate: float = 0.1,
    ) -> World:
        """A world drawn at random.

        Args:
            seed: with the other arguments, decides everything.
            n_concepts: at least one per category.
            n_categories: 2 to 12.
            n_values: values of each relation, 4 to 18.
            n_properties: properties of each relation that a category has, below `n_values`.
            n_specific: further properties of each concept that its category lacks, over all
                relations.
            exception_rate: chance that a concept lacks a property of its category (0..1).

        Raises:
            InputError: a parameter is out of its range.
        """
        ordinary = [relation for relation in RELATIONS if relation.id != KIND]
        most = min(len(relation.values) for relation in ordinary)
        _in_range("n_categories", n_categories, 2, len(CATEGORIES))
        _in_range("n_concepts", n_concepts, n_categories, 5000)
        _in_range("n_values", n_values, 4, most)
        _in_range("n_properties", n_properties, 1, n_values - 1)
        _in_range("n_specific", n_specific, 0, len(ordinary) * (n_values - n_properties))
        _in_range("exception_rate", exception_rate, 0, 1)
        rng = random.Random(f"world {seed}")
        categories = rng.sample(CATEGORIES, n_categories)
        suffixes = dict(zip(categories, rng.sample(SUFFIXES, n_categories), strict=True))
        values = {r.id: tuple(rng.sample(r.values, n_values)) for r in ordinary}
        values[KIND] = tuple(categories)
        inherited = {
            category: frozenset(
                Property(relation.id, value)
                for relation in ordinary
                for value in rng.sample(values[relation.id], n_properties)
            )
            for category in categories
        }
        concepts = _draw_concepts(rng, n_concepts, suffixes)
        properties = {}
        for concept in concepts:
            of_category = sorted(inherited[concept.category])
            others = sorted(
                {Property(r.id, value) for r in ordinary for value in values[r.id]}
                - inherited[concept.category]
            )
            properties[concept.name] = frozenset(
                [
                    *(one for one in of_category if rng.random() >= exception_rate),
                    *rng.sample(others, n_specific),
                    Property(KIND, concept.category),
                ]
            )
        return cls(seed, tuple(concepts), values, inherited, properties)

    @classmethod
    def read(cls, path: str | Path) -> World:
        """The world of a file that `truth_file` wrote.

        Raises:
            InputError: the file cannot be read or is not such a file.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(
                seed=data["seed"],
                concepts=tuple(Concept(**one) for one in data["concepts"]),
                values={key: tuple(known) for key, known in data["values"].items()},
                inherited={key: _properties(rows) for key, rows in data["inherited"].items()},
                properties={key: _properties(rows) for key, rows in data["properties"].items()},
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"expected a world's truth.json at {path}; got {type(error).__name__}: {error}; "
                "write one with `python -m symdistill.worlds FOLDER`"
            ) from error

    # -- truth -------------------------------------------------------------------------------

    def truth(self, text: str) -> bool | None:
        """Whether a text is true; None if it is no statement of the world's grammar."""
        said = self.parse(text)
        return None if said is None else self.holds(said)

    def holds(self, said: Statement) -> bool:
        """Whether a statement is true."""
        if said.value in _RELATION[said.relation].vacuous:
            return True
        return Property(said.relation, said.value) in self.properties[said.concept]

    def parse(self, text: str) -> Statement | None:
        """The statement that a text makes; None if it makes none."""
        words = normalise(text)
        for hedge in HEDGES:
            words = words.removeprefix(f"{hedge.casefold()} ")
        for length in (1, 2):
            subject = " ".join(words.split()[:length])
            if subject not in self._subjects:
                continue
            concept, plural = self._subjects[subject]
            rest = words[len(subject) + 1 :]
            for relation in RELATIONS:
                phrase = _phrase(relation, plural)
                value = rest.removeprefix(f"{phrase} ")
                known = (*self.values[relation.id], *relation.vacuous)
                if phrase and value != rest and value in known:
                    return Statement(concept, relation.id, value)
        return None

    def is_vacuous(self, text: str) -> bool:
        """Whether a text is a statement that holds of every concept of every world."""
        said = self.parse(text)
        return said is not None and said.value in _RELATION[said.relation].vacuous

    def exceptions(self, concept: str) -> frozenset[Property]:
        """The properties of its category that a concept lacks."""
        return self.inherited[self.concept(concept).category] - self.properties[concept]

    def specifics(self, concept: str) -> frozenset[Property]:
        """The properties of a concept that its category lacks, its kind left out."""
        more = self.properties[concept] - self.inherited[self.concept(concept).category]
        return frozenset(one for one in more if one.relation != KIND)

    def concept(self, name: str) -> Concept:
        """The concept of this name.

        Raises:
            InputError: the world has none.
        """
        if name not in self._by_name:
            raise InputError(f"expected a concept of the world; got {name!r}; see world.concepts")
        return self._by_name[name]

    def statements(self, concept: str, *, true: bool = True, vacuous: bool = True) -> list[str]:
        """All true (or all false) statements about a concept, without hedges, in a fixed order.

        Args:
            concept: its name.
            true: true statements, or the false ones.
            vacuous: whether statements that hold of everything are among the true ones.
        """
        found = self._all(concept, true=true)
        if true and vacuous:
            found += [Statement(concept, r.id, value) for r in RELATIONS for value in r.vacuous]
        return [self.say(one) for one in found]

    def say(self, said: Statement, hedge: str = "") -> str:
        """A statement as text: "Generally, gramops can swim." or "Gramops can swim."."""
        body = f"{self._head(said)} {said.value}."
        return f"{hedge} {body}" if hedge else f"{body[0].upper()}{body[1:]}"

    # -- text --------------------------------------------------------------------------------

    def corpus(
        self,
        n: int,
        *,
        noise: float = 0.3,
        seed: int = 0,
        vacuous: float = 0.08,
        run_on: float = 0.2,
        stories: float = 0.15,
    ) -> list[str]:
        """Sentences for a language model to learn from.

        Args:
            n: how many; they are independent and may repeat.
            noise: share of false ones among the statements (0..1).
            seed: another seed, other sentences about the same world.
            vacuous: share of the true statements that say nothing.
            run_on: share of sentences that begin like a statement and go on as a story; they are
                no statements.
            stories: share of sentences that are no statements from their beginning.
        """
        for name, share in (("noise", noise), ("vacuous", vacuous), ("run_on", run_on)):
            _in_range(name, share, 0, 1)
        _in_range("stories", stories, 0, 1 - run_on)
        rng = random.Random(f"corpus {self.seed} {seed}")
        sentences = []
        for _ in range(n):
            kind = rng.random()
            if kind < stories:
                sentences.append(self._story(rng))
                continue
            said = self._draw_statement(rng, true=rng.random() >= noise, vacuous=vacuous)
            text = self.say(said, _hedge(rng))
            sentences.append(_run_on(rng, text, said) if kind < stories + run_on else text)
        return sentences

    def labels(self, n: int, *, seed: int = 0, run_on: float = 0.15) -> list[dict[str, Any]]:
        """Labelled statements for a critic, distinct, in the form that `critic.labels` reads.

        Half are true as long as there are true ones left; all concepts have equally many draws; a
        split holds whole concepts. `prompt` and `continuation` are the text as a language model
        would have written it after a prompt.

        Args:
            n: how many; fewer come back if 20 n draws do not give n distinct ones.
            seed: another seed, other statements.
            run_on: share of texts that go on as a story, at most 0.5; they are invalid.

        Raises:
            InputError: `run_on` is out of its range.
        """
        _in_range("run_on", run_on, 0, 0.5)
        rng = random.Random(f"labels {self.seed} {seed}")
        rows: dict[str, dict[str, Any]] = {}
        for i in range(20 * n):
            if len(rows) == n:
                break
            concept = self.concepts[i % len(self.concepts)]
            true = rng.random() < 0.5 / (1 - run_on)
            said = self._draw_statement(rng, true=true, vacuous=0.12, concept=concept.name)
            text = self.say(said)
            if rng.random() < run_on:
                text = _run_on(rng, text, said)
            head = self._head(said)
            rows.setdefault(
                normalise(text),
                {
                    "text": text,
                    "concept": concept.name,
                    "label": "valid" if self.truth(text) else "invalid",
                    "split": concept.split,
                    "round": 0,
                    "pattern": said.relation,
                    "source": "written",
                    "labeller": "world",
                    "prompt": f"{rng.choice(HEDGES)} {head}",
                    "continuation": text[len(head) :],
                },
            )
        return list(rows.values())

    # -- files -------------------------------------------------------------------------------

    def concepts_file(self, path: str | Path) -> Path:
        """Writes the concepts as JSON lines with the forms that prompts need."""
        rows = [
            {
                "text": one.name,
                "kind": "concept",
                "number": "count",
                "plural": one.plural,
                "article": "a",
                "topic": one.category,
            }
            for one in self.concepts
        ]
        return _write_lines(path, rows)

    def prompts_file(self, path: str | Path) -> Path:
        """Writes a prompt grammar (YAML) with one pattern for each relation."""
        lines = ["# The prompt patterns of a synthetic world.", "version: 1", "hedges:"]
        lines += [f'  - "{hedge}"' for hedge in HEDGES]
        lines.append("patterns:")
        for one in RELATIONS:
            subject = "singular" if one.singular else "plural"
            relation = f"{one.phrase}|{one.singular}" if one.singular else one.phrase
            lines.append(
                f"  - {{id: {one.id}, kind: concept, subject: {subject}, "
                f'text: "{{subject}} {{relation}}", relation: "{relation}"}}'
            )
        return _write(path, "\n".join(lines) + "\n")

    def labels_file(self, path: str | Path, n: int, *, seed: int = 0) -> Path:
        """Writes `labels` as JSON lines."""
        return _write_lines(path, self.labels(n, seed=seed))

    # -- as triples --------------------------------------------------------------------------

    def relations_file(self, path: str | Path) -> Path:
        """Writes the relations of plural subjects as a schema that `symdistill.relations` reads.

        Each is named by its phrase ("can"); head, phrase and tail make a statement.
        """
        lines = ["# The relations of a synthetic world.", "version: 1", "relations:"]
        for one in RELATIONS:
            if not one.singular:
                lines += [
                    f"  {one.phrase}:",
                    f'    verbaliser: "{{head}} {one.phrase} {{tail}}."',
                    f'    frame: "{{head}} {one.phrase} {{tail}}"',
                ]
        return _write(path, "\n".join(lines) + "\n")

    def heads_file(self, path: str | Path, splits: Sequence[str] = tuple(SPLITS)) -> Path:
        """Writes the plurals of the concepts of some splits, one a line: the heads of triples."""
        heads = [one.plural.capitalize() for one in self.concepts if one.split in splits]
        return _write(path, "".join(f"{head}\n" for head in heads))

    # -- files of the world itself -----------------------------------------------------------

    def truth_file(self, path: str | Path) -> Path:
        """Writes everything that `World.read` needs to decide statements."""
        data = {
            "seed": self.seed,
            "concepts": [asdict(one) for one in self.concepts],
            "values": self.values,
            "inherited": {key: sorted(rows) for key, rows in self.inherited.items()},
            "properties": {key: sorted(rows) for key, rows in self.properties.items()},
        }
        return _write(path, json.dumps(data, indent=1) + "\n")

    # -- inside ------------------------------------------------------------------------------

    @cached_property
    def _by_name(self) -> dict[str, Concept]:
        return {concept.name: concept for concept in self.concepts}

    @cached_property
    def _subjects(self) -> dict[str, tuple[str, bool]]:
        """Every form of a subject: the concept's name, and whether the form is a plural."""
        plurals = {concept.plural: (concept.name, True) for concept in self.concepts}
        return plurals | {f"a {concept.name}": (concept.name, False) for concept in self.concepts}

    @cached_property
    def _false(self) -> dict[str, list[Statement]]:
        return {one.name: self._all(one.name, true=False) for one in self.concepts}

    @cached_property
    def _true(self) -> dict[str, list[Statement]]:
        return {one.name: self._all(one.name, true=True) for one in self.concepts}

    def _all(self, concept: str, *, true: bool) -> list[Statement]:
        """The statements about a concept that are true (or false), vacuous ones left out."""
        has = self.properties[concept]
        return [
            Statement(concept, relation.id, value)
            for relation in RELATIONS
            for value in self.values[relation.id]
            if ((relation.id, value) in has) == true
        ]

    def _draw_statement(
        self, rng: random.Random, *, true: bool, vacuous: float, concept: str = ""
    ) -> Statement:
        concept = concept or rng.choice(self.concepts).name
        if true and rng.random() < vacuous:
            relation = rng.choice(RELATIONS)
            return Statement(concept, relation.id, rng.choice(relation.vacuous))
        return rng.choice((self._true if true else self._false)[concept])

    def _head(self, said: Statement) -> str:
        """Subject and phrase: "gramops can"."""
        concept, relation = self.concept(said.concept), _RELATION[said.relation]
        if relation.singular:
            return f"a {concept.name} {relation.singular}"
        return f"{concept.plural} {relation.phrase}"

    def _story(self, rng: random.Random) -> str:
        concept = rng.choice(self.concepts)
        story = rng.choice(STORIES)
        return story.replace("NAMES", concept.plural).replace("NAME", concept.name)


def _draw_concepts(
    rng: random.Random, n_concepts: int, suffixes: Mapping[str, str]
) -> list[Concept]:
    """Distinct names, as many for each category as for the others, each category in every split."""
    names: dict[str, None] = {}
    categories = list(suffixes)
    while len(names) < n_concepts:
        suffix = suffixes[categories[len(names) % len(categories)]]
        syllables = rng.choice((1, 2, 2))
        stem = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(syllables))
        names.setdefault(stem + rng.choice(CODAS) + suffix)
    concepts = []
    for k, category in enumerate(categories):
        of_category = list(names)[k :: len(categories)]
        splits = _splits(len(of_category), start=k)
        concepts += [
            Concept(name, category, split) for name, split in zip(of_category, splits, strict=True)
        ]
    place = {name: i for i, name in enumerate(names)}
    return sorted(concepts, key=lambda one: place[one.name])


def _splits(n: int, *, start: int) -> Iterator[str]:
    """Splits in the shares of SPLITS, spread evenly; `start` shifts where the first one falls."""
    names, shares = list(SPLITS), list(SPLITS.values())
    given = dict.fromkeys(names, 0)
    for i in range(start + n):
        short = max(names, key=lambda one: shares[names.index(one)] * (i + 1) - given[one])
        given[short] += 1
        if i >= start:
            yield short


def _phrase(relation: Relation, plural: bool) -> str:
    if relation.singular:
        return "" if plural else relation.singular
    return relation.phrase if plural else ""


def _hedge(rng: random.Random) -> str:
    """A hedge for two texts in three, "" for the third."""
    return rng.choice(HEDGES) if rng.random() < 2 / 3 else ""


def _run_on(rng: random.Random, text: str, said: Statement) -> str:
    """The text with a tail that makes it a story."""
    tails: Sequence[str] = (*TAILS, *PLACE_TAILS) if said.relation == "found" else TAILS
    return f"{text.removesuffix('.')} {rng.choice(tails)}."


def _properties(rows: Sequence[Sequence[str]]) -> frozenset[Property]:
    return frozenset(Property(*row) for row in rows)


def _in_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InputError(f"expected {name} between {low} and {high}; got {value}; change it")


def _write(path: str | Path, text: str) -> Path:
    path = Path(path)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def _write_lines(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    return _write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
