"""I2D2 by search, and related concepts brought into its lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import ValidationError
from tests.recipes.conftest import DrawnWorld

import symdistill
from symdistill.config import annotated_yaml, load_config
from symdistill.constraints import from_json
from symdistill.errors import InputError
from symdistill.ledger import Ledger
from symdistill.models import Model
from symdistill.progress import Progress
from symdistill.recipes import run_recipe
from symdistill.recipes.i2d2 import (
    I2D2Config,
    Question,
    constraint_of,
    decide,
    put_questions,
    read_grammar,
    read_items,
    write,
)
from symdistill.records import Knowledge, Verdict
from symdistill.run import Run, Stored
from symdistill.tables import read_records
from symdistill.teachers import LocalTeacher, Sample, SampleRequest, Sampling
from symdistill.teachers.local import Search

CONCEPTS = [
    {"text": "dog", "related": ["leash", "dog", "bone"]},
    {"text": "kitchen", "related": ["oven"]},
    {"text": "pen"},
]


def concepts_file(folder: Path, rows: Sequence[dict[str, Any]] = CONCEPTS) -> str:
    path = folder / "concepts.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


# -- settings -----------------------------------------------------------------------------------


@pytest.mark.unit
def test_lines_are_sampled_unless_a_search_is_asked_for(tmp_path: Path) -> None:
    assert I2D2Config().writing == Sampling()
    assert not I2D2Config().related.use
    searching = I2D2Config.model_validate({"decoding": "neurologic", "search": {"num_beams": 3}})
    assert searching.writing == Search(num_beams=3)
    path = tmp_path / "mine.yaml"
    path.write_text(annotated_yaml(I2D2Config, "i2d2"))
    assert load_config(path, I2D2Config, ["name="]).search == Search()


@pytest.mark.unit
@pytest.mark.parametrize(
    "bad",
    [
        {"decoding": "beams"},
        {"search": {"beams": 3}},
        {"related": {"use": True, "per_concept": 0}},
        {"related": {"count": 1}},
        {"decoding": "neurologic", "prompts": {"samples": 9}},
    ],
)
def test_settings_that_mean_nothing_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        I2D2Config.model_validate(bad)


@pytest.mark.unit
def test_more_lines_than_a_search_ends_with_are_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("recipe: i2d2\ndecoding: neurologic\nprompts: {samples: 9}\n")
    with pytest.raises(InputError, match=r"prompts.samples of at most search.num_beams \(8\)"):
        load_config(path, I2D2Config)


# -- what is asked for, written and refused -----------------------------------------------------


class Scripted:
    """A generator that says what it is told to, by prompt id and rank."""

    fingerprint = "scripted"

    def __init__(self, said: dict[tuple[str, int], str]) -> None:
        self.said = said
        self.asked: list[SampleRequest] = []

    def sample(self, requests: Sequence[SampleRequest], **_: Any) -> list[Sample]:
        self.asked += requests
        return [
            Sample(one, f"{i:03}", self.said.get((one.prompt_id, one.sample_index), ""), 3, True)
            for i, one in enumerate(requests)
        ]


@pytest.mark.unit
def test_every_prompt_is_asked_again_for_related_concepts(tmp_path: Path) -> None:
    config = I2D2Config.model_validate(
        {
            "concepts": {"source": concepts_file(tmp_path)},
            "prompts": {"samples": 1},
            "related": {"use": True, "per_concept": 2},
        }
    )
    told: list[str] = []
    progress = cast(Progress, SimpleNamespace(say=told.append, stage=Progress().stage))
    with Run.open(tmp_path / "run", config, progress=progress) as run:
        asked = read_items(run, config)
        grammar = read_grammar(config.prompts)
        prompts = [grammar.render(item)[0] for item in asked.records]
        questions = put_questions(run, config, asked, prompts)
        assert [one.prompt for one in questions[:3]] == prompts
        assert [(one.prompt.text, one.related) for one in questions[3:]] == [
            (prompts[0].text, "leash"),
            (prompts[1].text, "oven"),
        ]
        assert len({one.prompt.id for one in questions}) == 5
        (problem,) = told  # "dog" is what the continuation may not repeat
        assert problem.startswith(f"{prompts[0].text!r} is not asked for 'dog': ")

        leash, oven = (one.prompt for one in questions[3:])
        said = {
            (leash.id, 0): " need Leashes.",
            (oven.id, 0): " hold pots.",
            (prompts[0].id, 0): " eat.",
            (prompts[1].id, 0): " hold pots! In an oven.",
        }
        generator = Scripted(said)
        lines = write(run, config, 0, questions, cast(LocalTeacher, generator))
        by_prompt = {one.prompt_id: one.constraint for one in generator.asked}
        plain_rule = constraint_of(config.constraints, prompts[0])
        assert by_prompt[prompts[0].id] == plain_rule
        assert plain_rule is not None and questions[3].clause is not None
        assert by_prompt[leash.id] == questions[3].clause & plain_rule
    found = {line.text: line for line in lines.records}
    brought = next(line for text, line in found.items() if "Leashes" in text)
    assert brought.fields["related"] == "leash" and "unmet" not in brought.fields
    # the same words without the oven: right for the plain prompt, and one line
    plain = next(line for text, line in found.items() if "pots" in text)
    assert "unmet" not in plain.fields and len(plain.lineage) == 2


@pytest.mark.unit
@pytest.mark.parametrize("enforce", [True, False])
def test_a_line_without_its_related_concept_is_refused(tmp_path: Path, enforce: bool) -> None:
    config = I2D2Config.model_validate(
        {
            "concepts": {"source": concepts_file(tmp_path, CONCEPTS[1:2])},
            "prompts": {"samples": 1},
            "constraints": {"enforce": enforce},
            "related": {"use": True},
        }
    )
    with Run.open(tmp_path / "run", config) as run:
        asked = read_items(run, config)
        prompts = [read_grammar(config.prompts).render(asked.records[0])[0]]
        questions = put_questions(run, config, asked, prompts)
        asked_again = questions[1]
        # the oven comes after the sentence's end, so the statement is without it
        said = {(asked_again.prompt.id, 0): " hold many pots! In an oven."}
        lines = write(run, config, 0, questions, cast(LocalTeacher, Scripted(said)))
        measured = [
            replace(one, fields={**one.fields, "specificity": None}) for one in lines.records
        ]
        lines = Stored(measured, lines.hash)
        verdicts = [Verdict(one.id, "critic", 0.9) for one in measured]
        critic = cast(Any, SimpleNamespace(name="critic", cut=0.5))
        decided = decide(run, config, 0, lines, Stored(verdicts, ""), critic, [], None)
    word = {one.knowledge_id: one for one in decided.records}
    (line,) = (one for one in lines.records if "related" in one.fields)
    assert line.fields["unmet"] == [str(asked_again.clause)]
    assert word[line.id].score == 0.0
    assert word[line.id].reason == f"constraint: not met: {asked_again.clause}"


@pytest.mark.unit
def test_every_round_asks_a_search_for_its_best(tmp_path: Path) -> None:
    first_of: dict[str, list[int]] = {}
    for decoding in ("sampling", "neurologic"):
        config = I2D2Config.model_validate(
            {"decoding": decoding, "concepts": {"source": concepts_file(tmp_path)}}
        )
        with Run.open(tmp_path / decoding, config) as run:
            grammar = read_grammar(config.prompts)
            prompts = [grammar.render(item)[0] for item in read_items(run, config).records]
            generator = Scripted({})
            questions = [Question(prompt, None) for prompt in prompts]
            write(run, config, 1, questions, cast(LocalTeacher, generator))
        first_of[decoding] = sorted({one.sample_index for one in generator.asked})
    assert first_of == {"sampling": [2, 3], "neurologic": [0, 1]}


# -- with models --------------------------------------------------------------------------------


def check_lines(run: Path) -> tuple[list[Knowledge], list[Knowledge]]:
    """All lines and the kept ones; of each kept one some occasion's constraint is met by it."""
    lines = read_records(run / "tables" / "knowledge.parquet", Knowledge)
    words = {
        one.knowledge_id: one
        for one in read_records(run / "tables" / "verdicts.parquet", Verdict)
        if one.judge == "selection"
    }
    kept = [line for line in lines if words[line.id].score == 1.0]
    ledger = Ledger(run / "ledger.sqlite")
    for line in kept:
        assert "unmet" not in line.fields
        prompt, said = line.fields["prompt"], line.fields["continuation"]
        programs = []
        for occasion in line.lineage:
            call = ledger.call(occasion.request_key)
            assert call is not None
            programs.append(from_json(call["request"]["constraint"]))
        assert any(one.verify(said, before=prompt) for one in programs), line.text
    ledger.close()
    for line in lines:
        if "unmet" in line.fields:
            assert words[line.id].reason.startswith("constraint: not met: contains(")
    return lines, kept


@pytest.mark.world
@pytest.mark.parametrize("decoding", ["sampling", "neurologic"])
def test_kept_lines_say_what_they_were_asked_to(
    drawn: DrawnWorld, tmp_path: Path, decoding: str
) -> None:
    rows = [json.loads(x) for x in (drawn.folder / "concepts.jsonl").read_text().splitlines()[:6]]
    known = (drawn.folder / "labels.jsonl").read_text().splitlines()[::8]
    labels = tmp_path / "labels.jsonl"
    labels.write_text("\n".join(known) + "\n")
    words = {json.loads(label)["text"].strip(".").split()[-1] for label in known}
    for row in rows:
        row["related"] = sorted(words)[:2]
    settings = drawn.settings(
        concepts={"source": concepts_file(tmp_path, rows)},
        prompts={"grammar": f"{drawn.folder}/prompts.yaml", "per_concept": 2, "samples": 2},
        related={"use": True},
        decoding=decoding,
        search={"num_beams": 4, "max_new_tokens": 16},
        judge=None,
        rounds=0,
    )
    settings["critic"] |= {"labels": [str(labels)], "target_precision": 0.5}
    settings["critic"]["training"]["epochs"] = 1
    config = I2D2Config.model_validate(settings)
    metrics = run_recipe(config, tmp_path / "run")
    lines, kept = check_lines(tmp_path / "run")
    assert kept and metrics["rounds"][0]["kept"] == len(kept)
    brought = [line for line in lines if "related" in line.fields]
    refused = [line for line in brought if "unmet" in line.fields]
    assert brought and len(refused) == metrics["rounds"][0]["rejected"].get("constraint", 0)
    if decoding == "sampling":
        assert refused
    else:
        assert len(refused) < len(brought) / 2


@pytest.mark.real
def test_the_embedded_model_brings_related_concepts_in(
    smollm2: Model, minilm: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged = Path(symdistill.__file__).parent / "data" / "labels" / "everyday.jsonl"
    labels = tmp_path / "labels.jsonl"
    known = packaged.read_text().splitlines()
    few = [
        row
        for split in ("train", "calibration")
        for row in [one for one in known if json.loads(one)["split"] == split][:200:5]
    ]
    labels.write_text("\n".join(few) + "\n")  # what the critic says does not matter here
    concepts = concepts_file(tmp_path, [CONCEPTS[0] | {"related": ["leash"]}, CONCEPTS[1]])
    config = I2D2Config.model_validate(
        {
            "concepts": {"source": concepts},
            "prompts": {"per_concept": 2, "samples": 2},
            "related": {"use": True},
            "decoding": "neurologic",
            "search": {"num_beams": 4, "max_new_tokens": 12},
            "critic": {"labels": [str(labels)], "target_precision": 0.5, "training": {"epochs": 1}},
            "judge": None,
            "swaps": 0,
            "rounds": 0,
            "selection": {"specificity_quantile": None, "per_pattern_share": None},
        }
    )
    run_recipe(config, tmp_path / "run")
    lines, kept = check_lines(tmp_path / "run")
    assert all("unmet" not in line.fields for line in lines)
    for word in ("leash", "oven"):
        about = [line for line in lines if line.fields.get("related") == word]
        assert about and all(word in line.text for line in about)
    assert kept

    def refuse(*_: Any) -> None:
        raise AssertionError("a second run computed something")

    monkeypatch.setattr(LocalTeacher, "_load", refuse)
    before = {path: path.read_bytes() for path in (tmp_path / "run" / "tables").iterdir()}
    run_recipe(config, tmp_path / "run")
    assert {path: path.read_bytes() for path in before} == before
    # nor where the lines are to be written again: what a search found is in the ledger
    (tmp_path / "run" / "steps" / "0-lines.parquet").unlink()
    run_recipe(config, tmp_path / "run")
    assert {path: path.read_bytes() for path in before} == before
