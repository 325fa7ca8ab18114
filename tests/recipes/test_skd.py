"""Symbolic Knowledge Distillation with a scripted teacher: what each stage lets through."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from symdistill.errors import InputError
from symdistill.estimate import estimate
from symdistill.history import history
from symdistill.pool import read_pool
from symdistill.progress import Progress
from symdistill.recipes import calls, run_recipe, summary
from symdistill.recipes import skd as recipe_of_skd
from symdistill.recipes._skd_asking import head_asks
from symdistill.recipes._skd_judging import CutLevel, cut_level, read_triple_labels
from symdistill.recipes._skd_settings import Level, SKDConfig
from symdistill.records import Failure, Item, Knowledge
from symdistill.relations import read_relations
from symdistill.tables import read_records
from symdistill.teachers.base import NoAnswer, Prompt, Reply
from symdistill.teachers.scripted import ScriptedBackend

pytestmark = pytest.mark.unit

EVENTS = ["buys a boat", "loses the keys", "meets PersonY", "paints PersonY's house", "naps"]
TAILS = ["to thank Casey", "to sell it", " to sell it. ", "it", "to call Quinn"]


def teacher(prompt: Prompt, sample: int) -> Reply:
    """Events after "Event:", else one of five tails; the first 40 characters decide."""
    assert isinstance(prompt, str)
    if prompt.endswith("Event:"):
        n = sum(map(ord, prompt)) % (len(EVENTS) + 2)
        if n == len(EVENTS):
            return Reply(" The dog barks", "stop", 3, logprobs=priced(-1.0))
        if n > len(EVENTS):
            return Reply(" PersonX goes on and on", "length", 16, logprobs=priced(-1.0))
        return Reply(f" PersonX {EVENTS[n]}", "stop", 5, logprobs=priced(-float(n)))
    if prompt.endswith("needed") and "naps" in prompt and sample == 1:
        raise NoAnswer("refused", "a filter said no")
    return Reply(TAILS[sample % len(TAILS)], "stop", 4)


def priced(total: float) -> tuple[dict[str, Any], ...]:
    return ({"token": "x", "bytes": None, "logprob": total, "top": []},)


class Heard(Progress):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[ScriptedBackend]:
    opened: list[ScriptedBackend] = []

    def open_backend(settings: Any, *, seed: int) -> ScriptedBackend:
        opened.append(ScriptedBackend(teacher, samples_per_request=1))
        return opened[-1]

    monkeypatch.setattr(recipe_of_skd, "open_backend", open_backend)
    return opened


Make = Callable[..., SKDConfig]


@pytest.fixture
def settings() -> Make:
    def make(**changes: Any) -> SKDConfig:
        values: dict[str, Any] = {
            "seed": 1,
            "critic": None,
            "judge": None,
            "student": None,
            "heads": {"samples": 40},
            "inferences": {"samples": 5, "shots": 2, "use": ["xWant", "xNeed"]},
        }
        for key, value in changes.items():
            old = values.get(key)
            values[key] = {**old, **value} if isinstance(old, dict) else value
        return SKDConfig.model_validate(values)

    return make


def lines(run: Path) -> list[Knowledge]:
    return read_records(run / "tables" / "knowledge.parquet", Knowledge)


def test_heads_are_ranked_and_the_worst_dropped(tmp_path: Path, settings: Make) -> None:
    metrics = run_recipe(settings(), tmp_path / "run")
    heads = [one.text for one in read_records(tmp_path / "run/tables/items.parquet", Item)]
    assert heads == [f"PersonX {one}" for one in EVENTS[:4]]  # a fifth of five, the least likely
    refused = metrics["heads"]["refused"]
    assert refused["does not begin as heads.accept says"] and refused["not finished"]
    assert sum(refused.values()) + len(heads) == metrics["heads"]["asked"] == 40


def test_every_head_prompt_draws_its_own_seeds(settings: Make) -> None:
    asks = head_asks(settings())
    prompts = [str(one.prompt) for one in asks]
    assert len(set(prompts)) == 40
    assert all(one.count("Event:") == 11 and one.endswith("11. Event:") for one in prompts)
    assert prompts == [str(one.prompt) for one in head_asks(settings())]


def test_tails_are_cleaned_mapped_back_and_told_once(tmp_path: Path, settings: Make) -> None:
    metrics = run_recipe(settings(), tmp_path / "run")
    found = [line for line in lines(tmp_path / "run") if line.fields["relation"] == "xWant"]
    of_one = {x.fields["tail"]: x for x in found if x.fields["head"] == "PersonX meets PersonY"}
    assert set(of_one) == {"to thank PersonY", "to sell it"}
    assert len(of_one["to sell it"].lineage) == 2  # said twice, kept once
    assert of_one["to sell it"].text == (
        "PersonX meets PersonY. As a result, PersonX wants to sell it."
    )
    refused = metrics["inferences"]["refused"]
    assert refused == {"too short": 8, "names someone of the examples": 8}
    assert metrics["inferences"]["distinct"] == 16


def test_without_a_critic_everything_is_kept_and_it_is_said(tmp_path: Path, settings: Make) -> None:
    heard = Heard()
    metrics = run_recipe(settings(), tmp_path / "run", progress=heard)
    assert any("no critic" in line for line in heard.lines)
    (level,) = metrics["levels"]
    assert (level["name"], level["kept_share"], level["precision_estimate"]) == (
        "unfiltered", 1.0, None,
    )  # fmt: skip
    corpus = [json.loads(x) for x in (tmp_path / "run/corpus.jsonl").read_text().splitlines()]
    assert len(corpus) == 16 and all(row["levels"] == ["unfiltered"] for row in corpus)
    assert len(read_pool(tmp_path / "run").lines) == 16


def test_running_again_asks_nothing_and_changes_nothing(
    tmp_path: Path, settings: Make, scripted: list[ScriptedBackend]
) -> None:
    run = tmp_path / "run"
    run_recipe(settings(), run)
    before = {path: path.read_bytes() for path in (run / "tables").iterdir()}
    scripted.clear()
    run_recipe(settings(), run)
    assert not any(one.requests for one in scripted)
    assert {path: path.read_bytes() for path in before} == before


def test_what_was_not_answered_is_a_record(tmp_path: Path, settings: Make) -> None:
    metrics = run_recipe(settings(heads={"rank": None}), tmp_path / "run")
    (failed,) = read_records(tmp_path / "run/tables/failures.parquet", Failure)
    assert failed.kind == "refused" and metrics["inferences"]["failed"] == 1


def test_heads_of_a_file(tmp_path: Path, settings: Make) -> None:
    (tmp_path / "heads.txt").write_text("PersonX sings\n\nPersonX sings.\nPersonX waits\n")
    metrics = run_recipe(settings(heads={"source": str(tmp_path / "heads.txt")}), tmp_path / "run")
    assert metrics["heads"]["kept"] == 2 and metrics["heads"]["refused"] == {"a repeat": 1}


def test_a_teacher_without_logprobs_is_not_ranked_and_it_is_said(
    tmp_path: Path, settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plain(prompt: Prompt, sample: int) -> Reply:
        found = teacher(prompt, sample)
        return Reply(found.text, found.finish_reason, found.tokens)

    monkeypatch.setattr(
        recipe_of_skd, "open_backend", lambda settings, *, seed: ScriptedBackend(plain)
    )
    heard = Heard()
    metrics = run_recipe(settings(), tmp_path / "run", progress=heard)
    assert any("no log-probabilities" in line for line in heard.lines)
    assert metrics["heads"]["kept"] == 5


def test_a_chat_teacher_is_asked_to_go_on(settings: Make) -> None:
    config = settings(teacher={"model": "scripted:echo", "api": "chat"})
    prompt = head_asks(config)[0].prompt
    assert not isinstance(prompt, str)
    assert prompt[-1]["content"].endswith("11. Event:") and "Go on" in prompt[0]["content"]


def test_page_summary_and_history_can_be_read(tmp_path: Path, settings: Make) -> None:
    from rich.console import Console

    run = tmp_path / "run"
    metrics = run_recipe(settings(), run)
    page = (run / "report.html").read_text()
    assert "Filter levels" in page and "PersonX meets PersonY" in page
    console = Console(width=150, record=True, file=(tmp_path / "out").open("w"))
    console.print(summary(metrics, report=run / "report.html", next_commands=["symdistill x"]))
    console.print(history(run, metrics["examples"]["kept"][0]["id"]))
    said = console.export_text()
    assert "unfiltered" in said and "symdistill x" in said and "answered" in said


def test_an_estimate_knows_the_heads_and_bounds_the_inferences(settings: Make) -> None:
    config = settings(heads={"samples": 40, "limit": 10}, teacher={"model": "scripted:echo"})
    found = calls(config)
    assert not isinstance(found, str)
    heads, inferences = (estimate(one) for one in found)
    assert (heads.role, heads.samples) == ("heads", 40)
    assert (inferences.role, inferences.samples) == ("inferences, at most", 10 * 2 * 5)


def test_what_a_student_reads(settings: Make) -> None:
    config = settings(student={"prompt": "{head} <{relation}> {opening}"})
    asked = read_relations()["xNeed"]
    assert recipe_of_skd.student_prompt(config, "PersonX {relation}", asked) == (
        "PersonX {relation} <xNeed> PersonX {relation}. Before that, PersonX needed"
    )
    with pytest.raises(ValueError):
        settings(student={"prompt": "{head}"})


# -- levels --------------------------------------------------------------------------------------

SCORES = np.linspace(0, 1, 101)
VALID = SCORES >= 0.4
HEADS = [str(i // 5) for i in range(101)]


@pytest.mark.parametrize("recall", [0.1, 0.5, 0.8, 1.0])
def test_a_recall_level_is_the_strictest_cut_that_reaches_it(recall: float) -> None:
    level = cut_level(Level(name="r", recall=recall), SCORES, VALID, HEADS, 0)
    assert level.cut is not None
    kept = level.cut <= SCORES
    assert (kept & VALID).sum() == math.ceil(recall * VALID.sum())
    assert level.report["recall_on_labels"] >= recall


def test_a_precision_level_is_the_loosest_cut_that_reaches_it() -> None:
    level = cut_level(Level(name="p", precision=0.9), SCORES, VALID, HEADS, 0)
    assert level.cut is not None and level.report["reached"]
    looser = SCORES[level.cut > SCORES].max()
    assert VALID[level.cut <= SCORES].mean() >= 0.9 > VALID[looser <= SCORES].mean()


def test_a_level_lets_through_what_scores_enough() -> None:
    assert CutLevel("all", None, {}).keeps(None)
    level = CutLevel("some", 0.5, {})
    assert level.keeps(0.5) and not level.keeps(0.49) and not level.keeps(None)


@pytest.mark.parametrize(
    "level", [{"name": "x"}, {"name": "x", "recall": 0.5, "precision": 0.5},
              {"name": "unfiltered", "recall": 0.5}, {"name": "x", "recall": 0}],
)  # fmt: skip
def test_a_level_has_one_aim_and_a_name_of_its_own(level: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Level.model_validate(level)


# -- labels --------------------------------------------------------------------------------------


def test_the_packaged_labels_fit_the_packaged_relations() -> None:
    labels = read_triple_labels("events", read_relations())
    assert len(labels.triples) >= 300
    for split in ("train", "calibration", "judge"):
        rows = labels.of(split, usable=True)
        shares = np.mean([labels.labels[i].valid for i in rows])
        assert len(rows) >= 40 and 0.2 < shares < 0.6
    heads = {split: {labels.triples[i][0] for i in labels.of(split)}
             for split in ("train", "calibration", "judge")}  # fmt: skip
    assert not heads["train"] & heads["calibration"] and not heads["judge"] & heads["train"]


ROW = {"head": "PersonX naps", "relation": "xWant", "tail": "to sleep", "label": "valid"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROW, {**ROW, "label": "invalid"}], "labelled invalid here and valid on row 1"),
        ([{**ROW, "relation": "xWish"}], "expected a relation among xWant.*'xWish'"),
        ([{**ROW, "label": "maybe"}], "valid, invalid or unsure"),
        ([{**ROW, "tail": " "}], "a text under 'tail'"),
        ([ROW | {"split": "train"}, ROW | {"tail": "x y", "split": "judge"}], "give all its rows"),
        ([ROW], "expected at least 10"),
    ],
)
def test_bad_labels_are_refused(tmp_path: Path, rows: list[dict[str, str]], message: str) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError, match=message):
        read_triple_labels(str(path), read_relations())
