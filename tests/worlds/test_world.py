"""A world decides what it should: against its own lists, over seeds and parameters."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symdistill.constraints import any_of, at_most, excludes
from symdistill.critic.labels import read_labels
from symdistill.errors import InputError
from symdistill.records import normalise
from symdistill.sources import PromptGrammar, read_concepts, statement
from symdistill.worlds import World
from symdistill.worlds.__main__ import main
from symdistill.worlds.words import HEDGES, RELATIONS, TAILS

pytestmark = pytest.mark.unit


@st.composite
def worlds(draw: st.DrawFn) -> World:
    n_categories = draw(st.integers(2, 12))
    n_values = draw(st.integers(4, 18))
    return World.draw(
        draw(st.integers(0, 10_000)),
        n_categories=n_categories,
        n_concepts=draw(st.integers(n_categories, 40)),
        n_values=n_values,
        n_properties=draw(st.integers(1, n_values - 1)),
        n_specific=draw(st.integers(0, 5)),
        exception_rate=draw(st.floats(0, 1)),
    )


@pytest.fixture(scope="module")
def world() -> World:
    return World.draw(3)


@settings(max_examples=25)
@given(worlds(), st.sampled_from(["", *HEDGES]), st.randoms(use_true_random=False))
def test_true_statements_are_true_and_false_ones_false(world: World, hedge: str, random) -> None:
    concept = random.choice(world.concepts)
    true = world.statements(concept.name)
    false = world.statements(concept.name, true=False)
    assert len(set(map(normalise, true + false))) == len(true + false)
    for text in true:
        body = text[0].lower() + text[1:]
        assert world.truth(f"{hedge} {body}" if hedge else text) is True
    for text in false:
        assert world.truth(text) is False
        assert not world.is_vacuous(text)


@settings(max_examples=25)
@given(worlds())
def test_every_statement_is_decided_and_their_number_is_known(world: World) -> None:
    vacuous = sum(len(relation.vacuous) for relation in RELATIONS)
    values = sum(len(known) for known in world.values.values())
    for concept in world.concepts:
        true = world.statements(concept.name, vacuous=False)
        assert len(true) == len(world.properties[concept.name])
        assert len(true) + len(world.statements(concept.name, true=False)) == values
        assert len(world.statements(concept.name)) == len(true) + vacuous


@settings(max_examples=25)
@given(worlds(), st.text(max_size=60))
def test_what_is_no_statement_is_neither_true_nor_false(world: World, text: str) -> None:
    one = world.concepts[0]
    assert world.truth(text) is None
    known = world.statements(one.name)[0].rstrip(".")  # "Gramops can swim"
    value = known.removeprefix(f"{one.plural.capitalize()} ")
    for broken in (
        f"{known} {TAILS[0]}",
        f"{known} and {value}",
        known.rsplit(" ", 1)[0],
        f"Dogs {value}",
        f"A {one.name} {value}",
        f"{one.name} {value}",
        f"{known}?",
        f"not {known}",
        f"Generally, Generally {known}",
    ):
        assert world.truth(broken) is None, broken


def test_case_space_and_final_stop_do_not_matter(world: World) -> None:
    text = world.statements(world.concepts[0].name)[0]
    assert world.truth(f"  {text.upper().rstrip('.')} ") is True


@settings(max_examples=25)
@given(worlds())
def test_exceptions_are_false_and_specifics_true(world: World) -> None:
    relations = {relation.id: relation for relation in RELATIONS}
    for concept in world.concepts:
        for missing in world.exceptions(concept.name):
            phrase = relations[missing.relation].phrase
            assert world.truth(f"{concept.plural} {phrase} {missing.value}") is False
        for more in world.specifics(concept.name):
            phrase = relations[more.relation].phrase
            assert world.truth(f"{concept.plural} {phrase} {more.value}") is True
            assert more not in world.inherited[concept.category]


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_exceptions_come_at_their_rate(rate: float) -> None:
    world = World.draw(5, n_concepts=200, exception_rate=rate)
    chances = sum(len(world.inherited[one.category]) for one in world.concepts)
    found = sum(len(world.exceptions(one.name)) for one in world.concepts) / chances
    assert abs(found - rate) <= 4 * math.sqrt(rate * (1 - rate) / chances)


def test_vacuous_statements_are_true_of_everything(world: World) -> None:
    for concept in world.concepts:
        empty = [text for text in world.statements(concept.name) if world.is_vacuous(text)]
        assert len(empty) == sum(len(relation.vacuous) for relation in RELATIONS)
    assert World.draw(4).is_vacuous(world.statements(world.concepts[0].name)[-1]) is False


def test_names_show_the_category_and_are_made_up(world: World) -> None:
    ends: dict[str, set[str]] = {}
    for concept in world.concepts:
        ends.setdefault(concept.category, set()).add(concept.name[-3:])
    assert all(len(found) == 1 for found in ends.values())
    assert len({next(iter(found)) for found in ends.values()}) == len(ends)
    words = " ".join(v for r in RELATIONS for v in (*r.values, *r.vacuous)).split()
    assert not {concept.name for concept in world.concepts} & set(words)


def test_values_keep_the_packaged_word_lists() -> None:
    lists = files("symdistill") / "data" / "words"

    def phrases(name: str) -> list[str]:
        lines = (lists / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]

    function_words = any_of(*phrases("function_words"))
    allowed = at_most(1, function_words) & excludes(any_of(*phrases("connectives")))
    for relation in RELATIONS:
        for value in (*relation.values, *relation.vacuous):
            assert allowed.verify(f" {value}.", before=f"gramops {relation.phrase}"), value
    for tail in TAILS:
        assert not allowed.verify(f" {tail}.", before="gramops can swim"), tail


@settings(max_examples=10)
@given(st.integers(0, 1000), st.sampled_from([0.0, 0.1, 0.35, 0.8, 1.0]))
def test_the_corpus_is_as_noisy_as_asked(seed: int, noise: float) -> None:
    world = World.draw(seed)
    corpus = world.corpus(3000, noise=noise, seed=seed, run_on=0.2, stories=0.1)
    truth = Counter(map(world.truth, corpus))
    said = truth[True] + truth[False]
    assert abs(truth[False] / said - noise) <= 4.5 * math.sqrt(noise * (1 - noise) / said)
    assert abs(truth[None] / 3000 - 0.3) <= 4.5 * math.sqrt(0.3 * 0.7 / 3000)


def test_the_corpus_holds_empty_lines_at_their_share(world: World) -> None:
    corpus = world.corpus(4000, noise=0, vacuous=0.25, run_on=0, stories=0)
    share = sum(map(world.is_vacuous, corpus)) / len(corpus)
    assert abs(share - 0.25) <= 4.5 * math.sqrt(0.25 * 0.75 / len(corpus))


@settings(max_examples=10)
@given(worlds(), st.integers(0, 100))
def test_labels_tell_the_truth_and_keep_concepts_apart(world: World, seed: int) -> None:
    rows = world.labels(200, seed=seed)
    assert len({normalise(row["text"]) for row in rows}) == len(rows) <= 200
    splits: dict[str, str] = {}
    for row in rows:
        assert (row["label"] == "valid") is (world.truth(row["text"]) is True)
        assert splits.setdefault(row["concept"], row["split"]) == row["split"]
        assert (row["prompt"] + row["continuation"]).lower().endswith(row["text"].lower())
    assert 0 < sum(row["label"] == "valid" for row in rows) < len(rows)


def test_files_are_what_a_recipe_reads(world: World, tmp_path: Path) -> None:
    concepts = read_concepts(world.concepts_file(tmp_path / "concepts.jsonl"))
    assert [item.text for item in concepts.items] == [one.name for one in world.concepts]
    grammar = PromptGrammar.from_yaml(world.prompts_file(tmp_path / "prompts.yaml"))
    for item in concepts.items:
        prompts = grammar.render(item)
        assert len(prompts) == len(RELATIONS)
        said = {statement(p, f" {r.vacuous[0]}.") for p, r in zip(prompts, RELATIONS, strict=True)}
        assert all(world.is_vacuous(text) for text in said)
    path = world.labels_file(tmp_path / "labels.jsonl", 1000)
    labels = read_labels(path, needed=("train", "calibration", "test", "judge"))
    assert len(labels) == 1000


def test_the_truth_file_is_enough_to_decide(world: World, tmp_path: Path) -> None:
    again = World.read(world.truth_file(tmp_path / "truth.json"))
    corpus = world.corpus(500)
    assert [again.truth(text) for text in corpus] == [world.truth(text) for text in corpus]
    assert again == world


def test_same_seed_same_bytes_in_another_process(tmp_path: Path) -> None:
    def drawn(folder: str, hash_seed: str) -> dict[str, bytes]:
        command = [sys.executable, "-m", "symdistill.worlds", folder, "--seed", "7", "--no-models"]
        env = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(filter(None, sys.path))}
        subprocess.run(command, check=True, env=env, cwd=tmp_path, capture_output=True)
        return {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}

    one, two = drawn("one", "1"), drawn("two", "2")
    assert one == two
    assert sorted(one) == [
        "concepts.jsonl",
        "corpus.txt",
        "labels.jsonl",
        "prompts.yaml",
        "truth.json",
    ]


def test_another_seed_another_world() -> None:
    one, two = World.draw(1), World.draw(2)
    assert one == World.draw(1)
    assert one.concepts != two.concepts
    assert one.corpus(20, seed=1) == one.corpus(20, seed=1) != one.corpus(20, seed=2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_categories": 1},
        {"n_categories": 13},
        {"n_concepts": 3},
        {"n_values": 19},
        {"n_properties": 14},
        {"exception_rate": 1.5},
        {"n_specific": -1},
    ],
)
def test_parameters_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        World.draw(0, **wrong)


def test_the_command_refuses_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(tmp_path), "--n-values", "99", "--no-models"]) == 2
    assert "n_values" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path / "file"), "--no-models"]) == 2
    (tmp_path / "truth.json").write_text(json.dumps({"seed": 1}))
    with pytest.raises(InputError, match=r"truth\.json"):
        World.read(tmp_path / "truth.json")
