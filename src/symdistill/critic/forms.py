"""What is judged, by the columns it lies in: from a row of a table to the text that is read.

    form         columns                    read as
    statement    text                       the text
    pair         text, other                the two texts together
    rationale    question, text             the question and what answers it, together
    triple       head, relation, tail       one sentence, worded by the relation's verbaliser
    entailment   head, relation, tail       the head as premise, the relation and tail as hypothesis

The last is how the critic of Symbolic Knowledge Distillation reads a triple: a model trained for
entailment (say, a DeBERTa) knows pairs of that kind already.

Beside the text a critic may read numbers: of columns (a likelihood, agreement of samples, another
judge's score), and the likelihood by a language model that is asked.

Takes rows; gives texts or pairs. Costs nothing worth naming. A form can be written down and read
back, with the wording of its relations, so that a saved critic reads as it read when it learnt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from symdistill.critic.fitted import expect_version, read_about, write_about
from symdistill.critic.reading import Text
from symdistill.datafiles import is_missing
from symdistill.errors import InputError
from symdistill.records import content_hash
from symdistill.relations import Relation, read_relations

FormName = Literal["statement", "pair", "rationale", "triple", "entailment"]

ROLES: Mapping[FormName, tuple[str, ...]] = {
    "statement": ("text",),
    "pair": ("text", "other"),
    "rationale": ("question", "text"),
    "triple": ("head", "relation", "tail"),
    "entailment": ("head", "relation", "tail"),
}


@dataclass(frozen=True, slots=True)
class Form:
    """How rows become texts."""

    name: FormName
    columns: Mapping[str, str]  # role -> column
    relations: Mapping[str, Relation] = field(default_factory=dict)  # of triples, by name
    numbers: tuple[str, ...] = ()  # columns that are read beside the text
    likelihood: str | None = None  # the language model whose likelihood is, as its name is written

    @classmethod
    def of(
        cls,
        columns: Mapping[str, str | None],
        *,
        name: str | None = None,
        relations: str = "events",
        numbers: Sequence[str] = (),
        likelihood: str | None = None,
    ) -> Form:
        """The form that the named columns make.

        Args:
            columns: role -> column, None where none was named. A role that the form needs and
                that has none lies in the column of its own name.
            name: the form. Without one it is a triple where a head, relation or tail is named, a
                rationale where a question is, a pair where another text is, else a statement.
            relations: "events" or a YAML file; read for triples only.
            numbers, likelihood: what is read beside the text.

        Raises:
            InputError: no such form, or relations that cannot be read.
        """
        chosen: Any = name or _guess(columns)
        if chosen not in get_args(FormName):
            raise InputError(
                f"expected a form among {', '.join(get_args(FormName))}; got {chosen!r}; use one "
                "of them"
            )
        roles = ROLES[chosen]
        known = read_relations(relations) if "relation" in roles else {}
        named = {role: columns.get(role) or role for role in roles}
        return cls(chosen, named, known, tuple(numbers), likelihood)

    def read(self, row: Mapping[str, Any], where: str = "a row") -> Text | None:
        """What is judged of a row; None where a column of it is empty.

        Raises:
            InputError: the row names a relation that the schema does not have.
        """
        cells = {role: row.get(column) for role, column in self.columns.items()}
        said = {role: str(cell).strip() for role, cell in cells.items() if not is_missing(cell)}
        if len(said) < len(cells) or not all(said.values()):
            return None
        if self.name == "statement":
            return said["text"]
        if self.name in ("pair", "rationale"):
            first, second = (said[role] for role in ROLES[self.name])
            return first, second
        relation = self.relations.get(said["relation"])
        if relation is None:
            raise InputError(
                f"expected a relation among {', '.join(self.relations)}; got "
                f"{said['relation'][:40]!r} on {where}; add it to a YAML file and give that as "
                "--relations"
            )
        if self.name == "triple":
            return relation.verbalise(said["head"], said["tail"])
        return relation.premise_hypothesis(said["head"], said["tail"])

    def read_numbers(self, row: Mapping[str, Any]) -> tuple[float, ...] | None:
        """What is read beside the text; None where a number is missing or is none."""
        try:
            found = tuple(float(row[column]) for column in self.numbers)
        except (KeyError, TypeError, ValueError):
            return None
        return found if all(map(math.isfinite, found)) else None

    def over(self, columns: Mapping[str, str | None]) -> Form:
        """The same form over other columns, where some are named."""
        kept = {role: columns.get(role) or column for role, column in self.columns.items()}
        return replace(self, columns=kept)

    def save(self, folder: Path, version: str) -> None:
        """Write form.json beside the critic of this version."""
        said = {
            "critic": version,
            "name": self.name,
            "columns": dict(self.columns),
            "relations": {
                name: relation.model_dump(mode="json") for name, relation in self.relations.items()
            },
            "numbers": list(self.numbers),
            "likelihood": self.likelihood,
        }
        write_about(folder / "form.json", {"version": content_hash(said), **said})

    @classmethod
    def load(cls, folder: Path, version: str) -> Form:
        """The form that the critic of this version was saved with.

        Raises:
            InputError: there is none, or it was changed after saving.
        """
        said = read_about(folder / "form.json", "critic")
        stated = said.pop("version", None)
        expect_version(folder, "form of the critic", stated, content_hash(said))
        expect_version(folder, "critic", said["critic"], version)
        return cls(
            said["name"],
            said["columns"],
            {name: Relation(**one) for name, one in said["relations"].items()},
            tuple(said["numbers"]),
            said["likelihood"],
        )


def _guess(columns: Mapping[str, str | None]) -> FormName:
    for name in ("triple", "rationale", "pair"):
        for role in ROLES[name]:
            if role != "text" and columns.get(role):
                return name
    return "statement"
