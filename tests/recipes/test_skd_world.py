"""Symbolic Knowledge Distillation where truth is decidable: what the run claims is checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tests.recipes.conftest import DrawnWorld

from symdistill.datafiles import write_rows
from symdistill.history import history, students_trained_on
from symdistill.pool import read_pool
from symdistill.recipes import run_recipe
from symdistill.recipes._skd_settings import SKDConfig
from symdistill.records import Item, Knowledge, Verdict, View
from symdistill.tables import read_records

pytestmark = pytest.mark.world

LABELLED = ("train", "calibration", "judge")


def settings(drawn: DrawnWorld, place: Path, **changes: Any) -> SKDConfig:
    """A configuration in this world, small enough for seconds."""
    return SKDConfig.model_validate(
        {
            "seed": 1,
            "teacher": {"model": f"local:{drawn.folder}/model", "api": "completions"},
            "heads": {"source": f"{place}/heads.txt"},
            "inferences": {
                "relations": f"{place}/relations.yaml",
                "use": ["can", "have", "need"],
                "shots": 0,
                "samples": 3,
                "decoding": {"temperature": 1.0, "top_p": 0.95, "max_new_tokens": 20,
                             "stop": ["."]},
            },
            "split": {"validation": 0.0, "test": 0.99},
            "critic": {
                "encoder": f"{drawn.folder}/encoder",
                "labels": f"{place}/labels.jsonl",
                "training": {"learning_rate": 1e-3, "epochs": 4},
            },
            "judge": {"model": f"{drawn.folder}/model"},
            "student": {
                "model": f"{drawn.folder}/model",
                "prompt": "{head} {relation}",
                "levels": ["high", "unfiltered"],
                "training": {"method": "full", "epochs": 2, "batch_size": 8,
                             "learning_rate": 1e-3},
            },
            **changes,
        }
    )  # fmt: skip


class Ran(NamedTuple):
    """A finished run."""

    folder: Path
    config: SKDConfig
    metrics: dict[str, Any]

    @property
    def corpus(self) -> list[dict[str, Any]]:
        return read(self.folder / "corpus.jsonl")

    def table(self, name: str, kind: Any) -> list[Any]:
        return read_records(self.folder / "tables" / f"{name}.parquet", kind)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def ran(drawn: DrawnWorld, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    place = tmp_path_factory.mktemp("skd")
    world = drawn.world
    world.relations_file(place / "relations.yaml")
    world.heads_file(place / "heads.txt", LABELLED)
    alone = settings(drawn, place, seed=2, critic=None, judge=None, student=None)
    run_recipe(alone, place / "labelled")
    split = {one.plural.capitalize(): one.split for one in world.concepts}
    write_rows(
        place / "labels.jsonl",
        (
            {
                **{key: row[key] for key in ("head", "relation", "tail")},
                "label": "valid" if world.truth(row["text"]) else "invalid",
                "split": split[row["head"]],
            }
            for row in read(place / "labelled" / "corpus.jsonl")
        ),
    )
    world.heads_file(place / "heads.txt")
    config = settings(drawn, place)
    return Ran(place / "run", config, run_recipe(config, place / "run"))


def test_stricter_levels_keep_less_and_more_of_it_is_true(drawn: DrawnWorld, ran: Ran) -> None:
    true = {row["id"]: drawn.world.truth(row["text"]) is True for row in ran.corpus}
    kept = {
        name: [row["id"] for row in ran.corpus if name in row["levels"]]
        for name in ("high", "medium", "unfiltered")
    }
    shares = {name: np.mean([true[id] for id in ids]) for name, ids in kept.items()}
    assert 20 <= len(kept["high"]) < len(kept["medium"]) < len(kept["unfiltered"])
    assert shares["high"] > shares["unfiltered"]
    told = {one["name"]: one for one in ran.metrics["levels"]}
    for name, ids in kept.items():
        assert told[name]["kept"] == len(ids)
        low, high = told[name]["precision_interval"]
        assert low <= told[name]["precision_estimate"] <= high
        assert told[name]["strict_uniqueness"] >= told[name]["soft_uniqueness"]


def test_anyone_can_cut_the_corpus_elsewhere(ran: Ran) -> None:
    cut = next(one["cut"] for one in ran.metrics["levels"] if one["name"] == "medium")
    again = {row["id"] for row in ran.corpus if row["score"] >= cut}
    assert again == {row["id"] for row in ran.corpus if "medium" in row["levels"]}
    lines = ran.table("knowledge", Knowledge)
    assert {line.id for line in lines} == {row["id"] for row in ran.corpus}
    pool = read_pool(ran.folder)
    assert [one.score for one in pool.ranked()] == sorted(
        (row["score"] for row in ran.corpus), reverse=True
    )


def test_heads_with_labels_train_and_the_others_test(drawn: DrawnWorld, ran: Ran) -> None:
    labelled = {one.plural.capitalize() for one in drawn.world.concepts if one.split in LABELLED}
    for item in ran.table("items", Item):
        assert (item.split == "train") == (item.text in labelled)
    test = {item.id for item in ran.table("items", Item) if item.split == "test"}
    assert not test & {view.group for view in ran.table("views", View)}


def test_a_student_saw_what_its_level_keeps(ran: Ran) -> None:
    from transformers import AutoModelForCausalLM

    assert {path.name for path in (ran.folder / "students").iterdir()} == {"1", "3"}
    AutoModelForCausalLM.from_pretrained(ran.folder / "students" / "1")
    rows = {row["id"]: row for row in ran.corpus}
    for view in ran.table("views", View):
        (id,) = view.knowledge_ids
        names = [path.name for path in students_trained_on(ran.folder, id)]
        assert names == (["1", "3"] if "high" in rows[id]["levels"] else ["3"])


def test_the_rates_follow_from_what_was_said(ran: Ran) -> None:
    said = read(ran.folder / "held_out.jsonl")
    names = [one["name"] for one in ran.metrics["unseen"]]
    assert names == ["teacher", "teacher, sampled", "high", "unfiltered"]
    for one in ran.metrics["unseen"]:
        own = [row for row in said if row["by"] == one["name"]]
        good = [row["judge"] is not None and row["judge"] >= 0.5 for row in own]
        assert one["accept_rate"] == pytest.approx(np.mean(good))
        low, high = one["accept_rate_interval"]
        assert low <= one["accept_rate"] <= high
        assert (one["difference"] is None) == (one["name"] == "teacher")
        assert all((row["judge"] is None) == bool(row["refused"]) for row in own)


def test_every_line_leads_to_the_call_that_wrote_it(ran: Ran) -> None:
    from rich.console import Console

    console = Console(width=200, record=True, file=(ran.folder.parent / "out").open("w"))
    view = ran.table("views", View)[0]
    console.print(history(ran.folder, view.knowledge_ids[0]))
    said = console.export_text()
    assert "answered" in said and "students/3" in said and "critic@" in said


def test_running_again_computes_nothing_and_changes_nothing(ran: Ran) -> None:
    before = {path: path.read_bytes() for path in (ran.folder / "tables").iterdir()}
    stamps = {path: path.stat().st_mtime_ns for path in (ran.folder / "steps").iterdir()}
    run_recipe(ran.config, ran.folder)
    assert {path: path.read_bytes() for path in before} == before
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_a_critic_that_reads_pairs(drawn: DrawnWorld, ran: Ran, tmp_path: Path) -> None:
    place = ran.folder.parent
    changed = settings(drawn, place).model_dump()
    changed["critic"] |= {"reads": "pair", "levels": [{"name": "most", "precision": 0.3}]}
    config = SKDConfig.model_validate({**changed, "judge": None, "student": None})
    metrics = run_recipe(config, tmp_path / "pairs")
    assert metrics["critic"]["auc"] > 0.5
    verdicts = read_records(tmp_path / "pairs" / "tables" / "verdicts.parquet", Verdict)
    assert len({round(one.score or 0, 6) for one in verdicts}) > 10
