"""Relation schemas: prompts that read naturally, names that go in and come out again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symdistill.errors import InputError
from symdistill.relations import People, Relation, read_relations, with_names, without_names

pytestmark = pytest.mark.unit

EVENTS = read_relations()
HEAD = "PersonX gives PersonY's dog a bath"


def test_the_packaged_schema_has_the_seven_relations() -> None:
    assert list(EVENTS) == [
        "xWant", "xAttr", "xIntent", "xEffect", "xReact", "xNeed", "HinderedBy",
    ]  # fmt: skip
    for relation in EVENTS.values():
        assert len(relation.examples) >= 5
        assert relation.verbalise(HEAD, "x y").count(HEAD) == 1


@pytest.mark.parametrize("name", list(EVENTS))
def test_a_prompt_names_people_and_ends_where_the_tail_begins(name: str) -> None:
    relation = EVENTS[name]
    text = relation.prompt(HEAD, shots=5, seed=3)
    assert "Person" not in text.removeprefix(relation.task)
    assert "Alex gives Casey's dog a bath" in text and text == text.rstrip()
    assert text.count("\n\n") == 6  # the task, five examples, the query
    assert "{" not in text


def test_prompts_of_a_relation_share_their_beginning() -> None:
    one, other = (EVENTS["xWant"].prompt(head, shots=3, seed=1) for head in (HEAD, "PersonX naps"))
    beginning = one[: one.index("Situation 4")]
    assert other.startswith(beginning)
    assert not EVENTS["xWant"].prompt(HEAD, shots=3, seed=2).startswith(beginning)


def test_a_pair_of_names_is_used_once_in_a_prompt() -> None:
    text = EVENTS["xIntent"].prompt(HEAD, shots=8, seed=5)
    used = [[n for n in EVENTS["xIntent"].names if n in part] for part in text.split("\n\n")[1:]]
    flat = [name for names in used for name in names]
    assert len(flat) == len(set(flat))


@pytest.mark.parametrize(
    ("said", "tail"),
    [
        (" to dry Casey's dog.\nSituation 7:", "to dry PersonY's dog"),
        ("Alex's hands, and Alex’s shoes", "PersonX's hands, and PersonX’s shoes"),
        (" Alexander and Caseys stay", "Alexander and Caseys stay"),
        ("ALEX shouts", "ALEX shouts"),
        ("\n to wait \n", "to wait"),
        ("   ", ""),
    ],
)
def test_what_is_said_of_the_names_is_said_of_the_variables(said: str, tail: str) -> None:
    assert EVENTS["xWant"].read(HEAD, said) == tail


@given(st.lists(st.sampled_from(["PersonX", "PersonY", "PersonX's", "a dog", "runs,"])))
def test_names_go_in_and_come_out_again(parts: list[str]) -> None:
    text, people = " ".join(parts), People("Alex", "Casey")
    assert without_names(with_names(text, people), people) == text


def test_a_name_that_the_head_has_is_not_given_away() -> None:
    head = "PersonX calls Alex"
    relation = EVENTS["xWant"]
    assert "Alex" not in (relation.people(head) or ())
    assert relation.read(head, "to talk to Alex") == "to talk to Alex"
    assert not relation.strangers(head, "to talk to Alex")
    assert relation.strangers(head, "to talk to Quinn") == ["Quinn"]


def test_other_draws_give_other_names() -> None:
    drawn = [EVENTS["xWant"].people(HEAD, draw) for draw in range(100)]
    assert all(pair is not None and pair.x != pair.y for pair in drawn)
    assert len(set(drawn[:3])) == 3


def test_a_triple_reads_as_a_sentence_and_as_a_pair() -> None:
    relation = EVENTS["xNeed"]
    assert relation.verbalise("PersonX naps.", "to lie down.") == (
        "PersonX naps. Before that, PersonX needed to lie down."
    )
    assert relation.premise_hypothesis("PersonX naps", "to lie down") == (
        "PersonX naps", "Before that, PersonX needed to lie down.",
    )  # fmt: skip
    odd = Relation(name="r", verbaliser="{tail} makes {head}.", frame="{head}: {tail}")
    assert odd.premise_hypothesis("bread", "flour") == ("bread", "flour makes bread.")


def test_braces_in_what_a_model_wrote_are_text() -> None:
    assert EVENTS["xAttr"].verbalise("PersonX writes {tail}", "{head}") == (
        "PersonX writes {tail}. PersonX is seen as {head}."
    )


def test_a_schema_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        'version: 1\nrelations:\n  madeOf:\n    verbaliser: "{head} is made of {tail}."\n'
        '    frame: "{head}: made of {tail}"\n    examples: [{head: bread, tail: flour}]\n'
    )
    (relation,) = read_relations(str(path)).values()
    assert relation.prompt("wine", shots=1, seed=0) == "bread: made of flour\n\nwine: made of"
    assert relation.people("wine") is None and relation.read("wine", " grapes.") == "grapes"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 1\nrelations: {}\n", "a mapping `relations`"),
        ("version: 2\nrelations: {a: {}}\n", "version: 1"),
        ('version: 1\nrelations:\n  r: {verbaliser: "{head}", frame: "{head} {tail}"}\n',
         "relation 'r'.*verbaliser.*{head} and {tail} once each"),
        ('version: 1\nrelations:\n  r: {verbaliser: "{head} {tail}", frame: "{tail} {head}"}\n',
         "{head} before {tail}"),
        ('version: 1\nrelations:\n  r: {verbaliser: "{head} {tail}", frame: "{head} {tail}", '
         "exmaples: []}\n", "exmaples"),
        ('version: 1\nnames: [A, B]\nrelations:\n  r: {verbaliser: "{head} {tail}", frame: '
         '"{head} {tail}", examples: [{head: h, tail: t}]}\n', "expected 4 names"),
    ],
)  # fmt: skip
def test_a_bad_schema_is_refused_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_relations(str(path))
