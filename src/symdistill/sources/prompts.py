"""Prompts: an item as the beginning of a statement, and what a model wrote as a statement.

Takes an `Item` with its forms (concepts.py) and a grammar of patterns (YAML); gives prompts such
as "Generally, dogs can", one per pattern, that a language model continues. `statement` turns the
continuation back into "Dogs can bark."; `excluded_phrases` names what the continuation may not
repeat; `rank_prompts` keeps each item's best prompts. No model is loaded here: the perplexities
that rank prompts come from the recipe. Costs microseconds per prompt.

I2D2 (arXiv 2212.09246) makes its prompts from morpho-syntactic patterns with a hedge ("Generally")
so that the model writes a general statement and not a story, drops each concept's worst prompts
by perplexity, and forbids the concept and the relational phrase in the continuation. The patterns
and hedges here are this project's own. The hedge is not part of the statement.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, cast

from symdistill.errors import InputError
from symdistill.records import Item, content_hash

SubjectForm = Literal["plural", "singular", "infinitive", "gerund"]

SUBJECT_FORMS: Mapping[str, tuple[SubjectForm, ...]] = {
    "concept": ("plural", "singular"),
    "goal": ("infinitive", "gerund"),
}

# Relations so common that forbidding them would forbid most English: they may be repeated.
TRIVIAL_RELATIONS = frozenset(
    {"are", "be", "can", "do", "does", "has", "have", "is", "may", "should", "will"}
)

_TITLES = frozenset({"approx", "dr", "mr", "mrs", "ms", "prof", "st", "vs"})
_SENTENCE_END = re.compile(r"[.!?]+(?=[\s\"'”’)\]]|$)")
_SLOT = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Pattern:
    """How one kind of prompt is put together: its text has {subject} and {relation} once each."""

    id: str
    kind: str  # concept | goal
    subject: SubjectForm
    text: str
    relation_plural: str
    relation_singular: str
    topics: frozenset[str] = frozenset()  # empty: every topic


@dataclass(frozen=True, slots=True)
class Prompt:
    """The beginning of a statement about an item, for a language model to continue."""

    id: str
    item_id: str
    pattern_id: str
    hedge: str  # "Generally,"; "" where there is none
    text: str  # "Generally, dogs can": no space at its end
    lead: int  # text[lead:] is the part that belongs to the statement: "dogs can"
    subject: str  # "dogs"
    relation: str  # "can"
    subject_forms: tuple[str, ...]  # all spellings of the concept: "dogs", "dog"
    relation_forms: tuple[str, ...]  # all spellings of the relational phrase


@dataclass(frozen=True, slots=True)
class PromptGrammar:
    """Hedges and patterns: what prompts are made of."""

    hedges: tuple[str, ...]
    patterns: tuple[Pattern, ...]

    @classmethod
    def everyday(cls) -> PromptGrammar:
        """The packaged grammar, for statements of everyday knowledge."""
        path = files("symdistill") / "data" / "prompts" / "everyday.yaml"
        return cls._parse(path.read_text(encoding="utf-8"), "the packaged grammar")

    @classmethod
    def from_yaml(cls, path: str | Path) -> PromptGrammar:
        """A grammar from a file written like the packaged `everyday.yaml`.

        Raises:
            InputError: the file cannot be read, or says something a grammar cannot mean.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise InputError(
                f"expected a readable prompt grammar at {path}; got: {reason}; check the path"
            ) from error
        return cls._parse(text, str(path))

    @classmethod
    def _parse(cls, text: str, where: str) -> PromptGrammar:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        try:
            data = YAML(typ="safe").load(text)
        except YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f", line {mark.line + 1}" if mark else ""
            raise InputError(
                f"expected YAML in {where}{line}; got something else; mend that line"
            ) from error
        keys = _mapping(data, {"version", "hedges", "patterns"}, "the grammar", where)
        if keys.get("version") != 1:
            raise InputError(
                f"expected `version: 1` in {where}; got {keys.get('version')!r}; "
                "write the grammar in version 1"
            )
        hedges = _texts(keys.get("hedges"), "hedges", where)
        rows = keys.get("patterns")
        if not isinstance(rows, list) or not rows:
            raise InputError(f"expected a list of patterns in {where}; got {rows!r}; add one")
        patterns = tuple(_pattern(row, where) for row in rows)
        if len({pattern.id for pattern in patterns}) < len(patterns):
            raise InputError(f"expected each pattern in {where} to have its own id; rename one")
        return cls(tuple(" ".join(hedge.split()) for hedge in hedges), patterns)

    def render(self, item: Item, *, seed: int = 0) -> list[Prompt]:
        """One prompt for each pattern that is for this item.

        A pattern with topics is left out for an item of another topic; an item whose topic is
        not known gets all patterns, and ranking sorts out the odd ones.

        Args:
            item: a concept with `number`, `plural` and `article`, or a goal with `gerund`, as
                `read_concepts` gives them.
            seed: with the item and the pattern, decides the hedge.

        Raises:
            InputError: no pattern is for this kind of item, or the item lacks a form.
        """
        patterns = [pattern for pattern in self.patterns if pattern.kind == item.kind]
        if not patterns:
            raise InputError(
                f"expected a pattern for items of kind {item.kind!r}; the grammar has none; add one"
            )
        return [
            self._render(item, pattern, self._hedge(item, pattern, seed))
            for pattern in patterns
            if _is_for(pattern, item)
        ]

    def put_in(self, item: Item, pattern_id: str, hedge: str) -> Prompt | None:
        """The prompt of this pattern and hedge with another item, or None if it is not for it."""
        for pattern in self.patterns:
            if pattern.id == pattern_id and pattern.kind == item.kind and _is_for(pattern, item):
                return self._render(item, pattern, hedge)
        return None

    def _hedge(self, item: Item, pattern: Pattern, seed: int) -> str:
        draw = int(content_hash(["hedge", seed, item.id, pattern.id]), 16)
        return self.hedges[draw % len(self.hedges)] if self.hedges else ""

    def _render(self, item: Item, pattern: Pattern, hedge: str) -> Prompt:
        subject, is_plural, forms = _subject(item, pattern.subject)
        relation = pattern.relation_plural if is_plural else pattern.relation_singular
        said = {"subject": subject, "relation": relation}
        body = _SLOT.sub(lambda slot: said[slot[1]], pattern.text)
        text = f"{hedge} {body}" if hedge else body[:1].upper() + body[1:]
        relations = tuple(dict.fromkeys((pattern.relation_plural, pattern.relation_singular)))
        return Prompt(
            id=content_hash(["prompt", item.id, pattern.id, text]),
            item_id=item.id,
            pattern_id=pattern.id,
            hedge=hedge,
            text=text,
            lead=len(hedge) + 1 if hedge else 0,
            subject=subject,
            relation=relation,
            subject_forms=forms,
            relation_forms=relations,
        )


def statement(prompt: Prompt, continuation: str) -> str:
    """What a prompt and its continuation say, as one sentence without the hedge.

    White space is single, the first letter is a capital, and the text ends at its first sentence
    end or line break with one full stop. A continuation that begins with a letter or digit is
    taken as a new word.

    Returns:
        The statement ("Dogs can bark."); "" if the continuation has no word before it ends.
    """
    said = "".join(continuation.lstrip(" \t").splitlines()[:1])
    said = said[: _sentence_end(said)]
    if continuation[:1].isspace() or continuation[:1].isalnum():
        said = f" {said}"
    if not any(c.isalnum() for c in said):
        return ""
    whole = " ".join((prompt.text[prompt.lead :] + said).split()).rstrip(" .!?,;:-–—")
    return f"{whole[:1].upper()}{whole[1:]}."


def excluded_phrases(prompt: Prompt) -> tuple[str, ...]:
    """What the continuation may not repeat: the concept and the relational phrase, in all forms.

    Phrases are as they are written in a sentence, without articles; a relational phrase of one
    very common word ("can", "have") may be repeated.
    """
    relations = [form for form in prompt.relation_forms if form not in TRIVIAL_RELATIONS]
    return tuple(dict.fromkeys([*prompt.subject_forms, *relations]))


def rank_prompts(
    prompts: Iterable[Prompt], perplexity: Mapping[str, float], keep: int
) -> list[Prompt]:
    """Each item's `keep` prompts of lowest perplexity; the others are dropped.

    Args:
        prompts: in any order, of any number of items.
        perplexity: by prompt id, as the generator sees the prompt's text; lower is better.
        keep: prompts to keep per item, at least 1.

    Returns:
        Items in order of first appearance; an item's prompts from best to worst, ties by id.

    Raises:
        ValueError: keep is below 1, or a prompt has no perplexity or one that is not a number.
    """
    if keep < 1:
        raise ValueError(f"expected to keep at least 1 prompt per item; got {keep}")
    by_item: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        if math.isnan(perplexity.get(prompt.id, math.nan)):
            raise ValueError(f"expected a perplexity for prompt {prompt.id} ({prompt.text!r})")
        by_item.setdefault(prompt.item_id, []).append(prompt)
    best: list[Prompt] = []
    for of_item in by_item.values():
        best += sorted(of_item, key=lambda one: (perplexity[one.id], one.id))[:keep]
    return best


def _is_for(pattern: Pattern, item: Item) -> bool:
    topic = item.fields.get("topic")
    return topic is None or not pattern.topics or topic in pattern.topics


def _subject(item: Item, form: SubjectForm) -> tuple[str, bool, tuple[str, ...]]:
    """The item in the form a pattern wants, whether that is a plural, and all its forms."""
    if item.kind == "goal":
        gerund = _form(item, "gerund")
        return (gerund if form == "gerund" else item.text), False, (item.text, gerund)
    number = _form(item, "number")
    if number != "count":
        return item.text, number == "plural", (item.text,)
    plural = _form(item, "plural")
    singular = str(item.fields.get("singular") or item.text)
    forms = tuple(dict.fromkeys((singular, plural)))
    if form == "plural":
        return plural, True, forms
    article = item.fields.get("article")
    return (f"{article} {singular}" if article else singular), False, forms


def _form(item: Item, name: str) -> str:
    value = item.fields.get(name)
    if not isinstance(value, str) or not value:
        raise InputError(
            f"expected the {item.kind} {item.text!r} to have the field {name!r}; it has not; "
            "read the list with read_concepts, which fills it"
        )
    return value


def _sentence_end(text: str) -> int:
    """Where the first sentence ends: before its closing mark, or at the end of the text."""
    for mark in _SENTENCE_END.finditer(text):
        words = text[: mark.start()].split()
        word = words[-1].lower().lstrip("(\"'") if words else ""
        rest = text[mark.end() :].lstrip()
        is_dotted = "." in word and all(len(part) == 1 for part in word.split("."))
        if mark[0] == "." and rest and (word in _TITLES or (is_dotted and not rest[0].isupper())):
            continue  # "Dr. Smith", "e.g. a dog"
        return mark.start()
    return len(text)


# ---------------------------------------------------------------------------- reading the grammar


def _pattern(row: object, where: str) -> Pattern:
    """A pattern from its YAML mapping."""
    known = {"id", "kind", "subject", "text", "relation", "topics"}
    given = _mapping(row, known, "a pattern", where)
    name = given.get("id")
    for key in sorted(known - {"topics"}):
        if not isinstance(given.get(key), str) or not given[key].strip():
            raise InputError(
                f"expected the pattern {name!r} in {where} to have a text as {key!r}; "
                f"got {given.get(key)!r}; write it"
            )
    kind, subject = given["kind"], given["subject"]
    if subject not in SUBJECT_FORMS.get(kind, ()):
        forms = "; ".join(f"{one}: {', '.join(SUBJECT_FORMS[one])}" for one in SUBJECT_FORMS)
        raise InputError(
            f"expected the pattern {name!r} in {where} to have a kind and a subject of these: "
            f"{forms}; got {kind!r} and {subject!r}; change one"
        )
    text = " ".join(given["text"].split())
    if sorted(_SLOT.findall(text)) != ["relation", "subject"]:
        raise InputError(
            f"expected the pattern {name!r} in {where} to have {{subject}} once and {{relation}} "
            f"once in its text; got {text!r}; mend it"
        )
    plural, bar, singular = (part.strip() for part in given["relation"].partition("|"))
    if not plural or (bar and not singular):
        raise InputError(
            f"expected the pattern {name!r} in {where} to have a relation like 'have|has'; "
            f"got {given['relation']!r}; mend it"
        )
    topics = frozenset(_texts(given["topics"], "topics", where)) if "topics" in given else ()
    return Pattern(
        id=given["id"],
        kind=kind,
        subject=cast(SubjectForm, subject),
        text=text,
        relation_plural=" ".join(plural.split()),
        relation_singular=" ".join((singular or plural).split()),
        topics=frozenset(topics),
    )


def _mapping(value: object, known: set[str], what: str, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(
            f"expected {what} in {where} to have the keys {', '.join(sorted(known))}; "
            f"got {value!r}; write it so"
        )
    unknown = [str(key) for key in value if key not in known]
    if unknown:
        raise InputError(
            f"unknown key {unknown[0]!r} in {what} in {where}; "
            f"known keys: {', '.join(sorted(known))}"
        )
    return value


def _texts(value: object, name: str, where: str) -> Sequence[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InputError(f"expected {name!r} in {where} to be a list of texts; got {value!r}")
    return cast(list[str], value)
