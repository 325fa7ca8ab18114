"""Symbolic Chain-of-Thought Distillation with a scripted teacher: what each stage lets through."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from symdistill.datafiles import write_rows
from symdistill.errors import InputError
from symdistill.history import history
from symdistill.progress import Progress
from symdistill.recipes import calls, run_recipe, summary, write_report
from symdistill.recipes import scotd as recipe_of_scotd
from symdistill.recipes._scotd_settings import ScotdConfig
from symdistill.records import Item, Knowledge, Verdict
from symdistill.tables import read_records
from symdistill.teachers.base import Prompt, Reply
from symdistill.teachers.scripted import ScriptedBackend

pytestmark = pytest.mark.unit

QUESTIONS = [
    {"question": f"Ann has {n} pears and buys {n + 1} more. How many pears has she?",
     "gold": str(2 * n + 1), "split": "train" if n < 6 else "test"}
    for n in range(2, 9)
]  # fmt: skip


def number_of(prompt: Prompt) -> int:
    """The number of pears that the last question of a prompt begins with."""
    text = prompt if isinstance(prompt, str) else str(prompt[-1]["content"])
    return int(text.rpartition("Ann has ")[2].split()[0])


def teacher(prompt: Prompt, sample: int) -> Reply:
    """Right, wrong, without an answer, right with an invented next question, right again."""
    n = number_of(prompt)
    right, wrong = 2 * n + 1, 2 * n + 2
    texts = [
        f" She has {n} + {n + 1} = {right}. So the answer is: {right}",
        f" She has {n} + {n + 1} = {wrong}. So the answer is: {wrong}",
        " She has some pears.",
        f" {n} and {n + 1} make {right}. So the answer is: {right}.\nQ: What next?\nA: 7",
        f" She has {n} + {n + 1} = {right}. So the answer is: {right}",
    ]
    likely = ({"token": "x", "bytes": None, "logprob": -float(sample), "top": []},)
    return Reply(texts[sample % 5], "stop", 10, logprobs=likely)


def parrot(prompt: Prompt, sample: int) -> Reply:
    """Another teacher: always right for even numbers, always wrong for odd ones."""
    n = number_of(prompt)
    return Reply(f" So the answer is: {2 * n + 1 + n % 2}", "stop", 5)


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
        script = parrot if "echo" in settings.model else teacher
        opened.append(ScriptedBackend(script, name=script.__name__, samples_per_request=1))
        return opened[-1]

    monkeypatch.setattr(recipe_of_scotd, "open_backend", open_backend)
    return opened


Make = Callable[..., ScotdConfig]


@pytest.fixture
def settings(tmp_path: Path) -> Make:
    write_rows(tmp_path / "questions.jsonl", QUESTIONS)

    def make(**changes: Any) -> ScotdConfig:
        values: dict[str, Any] = {
            "seed": 1,
            "problems": {"source": str(tmp_path / "questions.jsonl")},
            "rationales": {"samples": 5},
            "perplexity_under": None,
            "student": None,
        }
        for key, value in changes.items():
            old = values.get(key)
            values[key] = {**old, **value} if isinstance(old, dict) else value
        return ScotdConfig.model_validate(values)

    return make


def chains(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "chains.jsonl").read_text().splitlines()]


def kept(run: Path) -> list[dict[str, Any]]:
    return [row for row in chains(run) if row["kept"]]


def test_chains_are_read_checked_and_kept_where_right(tmp_path: Path, settings: Make) -> None:
    metrics = run_recipe(settings(), tmp_path / "run")
    lines = read_records(tmp_path / "run/tables/knowledge.parquet", Knowledge)
    of_two = [line for line in lines if "2 + 3" in line.text or "2 and 3" in line.text]
    assert {line.fields["answer"] for line in of_two} == {"5", "6"}
    twice = next(line for line in of_two if "2 + 3 = 5" in line.text)
    assert len(twice.lineage) == 2  # said twice, kept once
    invented = next(line for line in of_two if "2 and 3" in line.text)
    assert invented.fields["answer"] == "5" and "What next" not in invented.fields["rationale"]
    good = kept(tmp_path / "run")
    assert len(good) == 2 * 4 and all(row["answer"] == row["gold"] for row in good)
    refused = metrics["chosen"]["refused"]
    assert refused == {"wrong answer": 4, "no answer": 4}
    assert metrics["asked"]["teacher"]["answered"] == 20
    own = metrics["corpus"]["teachers"]["teacher"]
    assert own["samples"] == 20 and own["pass_rate"]["share"] == 12 / 20


def test_the_test_questions_are_never_asked_of_a_teacher(
    tmp_path: Path, settings: Make, scripted: list[ScriptedBackend]
) -> None:
    run_recipe(settings(), tmp_path / "run")
    items = read_records(tmp_path / "run/tables/items.parquet", Item)
    lines = read_records(tmp_path / "run/tables/knowledge.parquet", Knowledge)
    split = {item.id: item.split for item in items}
    assert {split[line.item_id] for line in lines} == {"train"}
    assert sorted(split.values()) == ["test"] * 3 + ["train"] * 4


def test_more_samples_ask_only_for_the_new_ones(
    tmp_path: Path, settings: Make, scripted: list[ScriptedBackend]
) -> None:
    run_recipe(settings(rationales={"samples": 2}), tmp_path / "run")
    before = sum(one.requests for one in scripted)
    run_recipe(settings(), tmp_path / "run", accept_changes=True)
    asked = sum(one.requests for one in scripted)
    assert before == 2 * 4 and asked == 5 * 4


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({"keep": "all"}, 3),  # right, wrong, right with an invented question
        ({"keep": "right"}, 2),
        ({"keep": "majority", "confidence": 0.7}, 2),  # three of the four answers agree
        ({"keep": "majority", "confidence": 0.8}, 0),
        ({"keep": "right", "strategy": "random", "per_question": 1}, 1),
        ({"keep": "all", "strategy": "likelihood", "per_question": 1}, 1),
        ({"keep": "all", "strategy": "open_endedness", "per_question": 2}, 2),
    ],
)
def test_filters_keep_what_they_say(
    tmp_path: Path, settings: Make, filters: dict[str, Any], wanted: int
) -> None:
    metrics = run_recipe(settings(filter=filters), tmp_path / "run")
    assert metrics["chosen"]["kept"] == 4 * wanted


def test_agreement_with_another_teacher_needs_no_gold(tmp_path: Path, settings: Make) -> None:
    config = settings(
        more_teachers={"other": {"model": "scripted:echo"}}, filter={"keep": "agreeing"}
    )
    metrics = run_recipe(config, tmp_path / "run")
    good = kept(tmp_path / "run")
    # for odd numbers the other teacher agrees with the wrong chain
    assert {row["answer"] == row["gold"] for row in good} == {True, False}
    assert {row["teacher"] for row in good} == {"teacher"}
    assert set(metrics["corpus"]["teachers"]) == {"teacher", "other"}
    assert metrics["corpus"]["side_by_side"]["questions"] == 4


def test_each_teacher_is_compared_with_the_others(tmp_path: Path, settings: Make) -> None:
    config = settings(
        more_teachers={"other": {"model": "scripted:echo"}},
        train_on=["teacher", "other"],
        filter={"keep": "agreeing"},
    )
    run_recipe(config, tmp_path / "run")
    assert {row["teacher"] for row in kept(tmp_path / "run")} == {"teacher"}
    refused = {row["why_not"] for row in chains(tmp_path / "run") if row["teacher"] == "other"}
    # the other's chains say nothing but an answer
    assert refused == {"no rationale", "the other teachers do not agree"}


def test_other_teachers_under_the_same_names_are_chosen_from_anew(
    tmp_path: Path, settings: Make
) -> None:
    other = {"model": "scripted:other"}
    run_recipe(settings(more_teachers={"second": other}), tmp_path / "run")
    swapped = settings(teacher=other, more_teachers={"second": {"model": "scripted:first"}})
    run_recipe(swapped, tmp_path / "run", accept_changes=True)
    assert kept(tmp_path / "run")
    assert {row["teacher"] for row in kept(tmp_path / "run")} == {"teacher"}


def test_what_makes_no_row_is_refused_before_the_filter_counts(
    tmp_path: Path, settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        recipe_of_scotd, "open_backend",
        lambda settings, *, seed: ScriptedBackend(
            lambda prompt, sample: parrot(prompt, 0) if sample else teacher(prompt, 0)
        ),
    )  # fmt: skip
    filters = {"keep": "all", "strategy": "random", "per_question": 1}
    metrics = run_recipe(settings(filter=filters), tmp_path / "run")
    assert all("She has" in row["text"] for row in kept(tmp_path / "run"))
    assert metrics["chosen"]["kept"] == 4
    assert metrics["chosen"]["refused"] == {"no rationale": 4}


def test_a_chain_that_is_too_long_for_the_student_is_refused_by_its_length(
    tmp_path: Path, settings: Make
) -> None:
    from symdistill.recipes._scotd_checking import too_long

    config = settings(student={"training": {"max_length_tokens": 60}})
    item = Item.make("question", "What?", fields={"answer_kind": "number"}, gold="5")
    fields = {"answer": "5", "rationale": "word " * 20_000, "logprob_mean": None}
    long = Knowledge.make("rationale", "x", item.id, fields=fields)
    short = Knowledge.make("rationale", "y", item.id, fields={**fields, "rationale": "It is."})
    (found,) = too_long(config, {item.id: item}, [long, short]).items()
    assert found[0] == long.id and "at most 60" in found[1]


def test_lines_that_were_withdrawn_are_not_kept(tmp_path: Path, settings: Make) -> None:
    metrics = run_recipe(settings(), tmp_path / "run")
    id = metrics["examples"]["kept"][0]["id"]
    row = {"id": id, "why": "it is wrong", "when": "2026-11-21"}
    (tmp_path / "run" / "withdrawn.jsonl").write_text(json.dumps(row) + "\n")
    again = run_recipe(settings(), tmp_path / "run")
    assert again["chosen"]["kept"] == metrics["chosen"]["kept"] - 1
    assert again["chosen"]["refused"]["withdrawn"] == 1


def test_questions_that_are_held_out_are_not_refused(tmp_path: Path, settings: Make) -> None:
    rows = [{key: row[key] for key in ("question", "gold")} for row in QUESTIONS]
    write_rows(tmp_path / "open.jsonl", rows)
    config = settings(problems={"source": str(tmp_path / "open.jsonl"), "test_share": 0.5})
    metrics = run_recipe(config, tmp_path / "run")
    splits = metrics["questions"]["splits"]
    assert splits["train"] + splits["test"] == 7 and splits["test"] and splits["train"]
    assert metrics["questions"]["refused"] == {}


def test_gold_that_an_arm_would_learn_must_be_there(
    tmp_path: Path, settings: Make, scripted: list[ScriptedBackend]
) -> None:
    rows = [{**row, "gold": None} if n == 0 else row for n, row in enumerate(QUESTIONS)]
    write_rows(tmp_path / "lacking.jsonl", rows)
    config = settings(problems={"source": str(tmp_path / "lacking.jsonl")}, student={})
    with pytest.raises(InputError, match="'answer_only'"):
        run_recipe(config, tmp_path / "run")
    assert not scripted  # nobody was asked


def test_the_corpus_is_described_before_anything_is_trained(tmp_path: Path, settings: Make) -> None:
    heard = Heard()
    run_recipe(settings(), tmp_path / "run", progress=heard)
    assert any("20 chains" in line and "right 60%" in line for line in heard.lines)
    report = json.loads((tmp_path / "run" / "corpus.json").read_text())
    assert report["teachers"]["teacher"]["questions"] == 4


def test_an_estimate_of_recovery_is_an_upper_bound(settings: Make) -> None:
    _, role = calls(settings(filter={"keep": "recovered"}))
    assert sum(one.samples for one in role.asks()) == 4 * 5  # type: ignore[operator, union-attr]


def test_a_question_of_the_test_is_not_trained_on(tmp_path: Path, settings: Make) -> None:
    leak = {**QUESTIONS[-1], "question": QUESTIONS[-1]["question"].upper(), "split": "train"}
    leak["question"] = f"So: {leak['question']}"
    write_rows(tmp_path / "leaky.jsonl", [*QUESTIONS, leak])
    heard = Heard()
    config = settings(problems={"source": str(tmp_path / "leaky.jsonl")})
    metrics = run_recipe(config, tmp_path / "run", progress=heard)
    assert sum(metrics["questions"]["contamination"]["removed"].values()) == 1
    assert any("repeat a test question" in line for line in heard.lines)
    assert metrics["questions"]["splits"] == {"train": 4, "test": 3}


def test_a_chain_that_holds_a_test_question_is_refused(
    tmp_path: Path, settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = f" {QUESTIONS[-1]['question']} That is another one. So the answer is: 5"
    monkeypatch.setattr(
        recipe_of_scotd, "open_backend",
        lambda settings, *, seed: ScriptedBackend(lambda prompt, sample: Reply(said, "stop", 9)),
    )  # fmt: skip
    metrics = run_recipe(settings(filter={"keep": "all"}), tmp_path / "run")
    assert metrics["chosen"]["kept"] == 0
    assert metrics["chosen"]["refused"] == {"holds a test question (same question)": 4}


def test_rows_without_gold_and_bad_options_are_refused_with_a_reason(
    tmp_path: Path, settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"question": "Which flies?", "choices": ["a crow", "a stone"], "gold": "(a)"},
        {"question": "Which swims?", "choices": ["a cod", "A cod."], "gold": "A"},
        {"question": "Which sings?", "choices": ["a lark", "a brick"], "gold": "a trout"},
        {"question": "Which walks?", "choices": ["a cat", "a rock"]},
        {"question": "Which grows?", "choices": ["a tree", "a coin"], "gold": "A", "split": "test"},
    ]
    write_rows(tmp_path / "options.jsonl", rows)
    config = settings(
        problems={"source": str(tmp_path / "options.jsonl")}, rationales={"shots": None}
    )
    said = Reply(" It is. So the answer is (A).", "stop", 9)
    monkeypatch.setattr(
        recipe_of_scotd, "open_backend",
        lambda settings, *, seed: ScriptedBackend(lambda prompt, sample: said),
    )  # fmt: skip
    metrics = run_recipe(config, tmp_path / "run")
    refused = metrics["questions"]["refused"]
    assert refused == {"has two options that read alike": 1, "has a gold outside its options": 1}
    verdicts = read_records(tmp_path / "run/tables/verdicts.parquet", Verdict)
    assert {one.status for one in verdicts if one.judge.startswith("answer")} == {"ok", "unknown"}
    assert metrics["chosen"]["refused"] == {"unchecked": 1}


def test_report_summary_and_history_tell_the_run(tmp_path: Path, settings: Make) -> None:
    metrics = run_recipe(settings(), tmp_path / "run")
    page = write_report(tmp_path / "run").read_text()
    assert "chains of thought" in page and "wrong answer" in page and "<script" not in page
    from rich.console import Console

    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(summary(metrics, report=tmp_path / "report.html", next_commands=["x"]))
    told = console.export_text()
    assert "Chains trained on" in told and "pass rate" in told
    console.print(history(tmp_path / "run", metrics["examples"]["kept"][0]["id"]))
    assert "So the answer is" in console.export_text()


def test_an_estimate_counts_samples_of_training_questions(settings: Make) -> None:
    (role,) = calls(settings())
    asks = list(role.asks())  # type: ignore[operator, union-attr]
    assert sum(one.samples for one in asks) == 4 * 5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"filter": {"keep": "agreeing"}}, "more_teachers"),
        ({"filter": {"strategy": "random"}}, "per_question"),
        ({"train_on": ["nobody"]}, "train_on"),
        ({"train_on": []}, "at least one teacher"),
        ({"primary": ["a", "b"]}, "primary"),
        ({"more_teachers": {"teacher": {"model": "scripted:echo"}}}, "other names"),
        ({"filter": {"per_question": 3}}, "no per_question"),
        ({"student": {"training_seeds": []}}, "training seed"),
        ({"student": {"training_seeds": [1, 1]}}, "training seed"),
        ({"student": {"arms": {}}}, "at least one arm"),
        ({"student": {"arms": {"untrained": {}}}}, "another name"),
        ({"student": {}, "primary": ["scotd", "scotd"]}, "two different"),
        (
            {
                "filter": {"strategy": "likelihood", "per_question": 1},
                "rationales": {"decoding": {"top_logprobs": None}},
            },
            "top_logprobs",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(
    settings: Make, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValidationError, match=says):
        settings(**changes)


def test_worked_examples_must_be_of_the_questions_kind(tmp_path: Path, settings: Make) -> None:
    shots = [{"question": "Is it?", "rationale": "It is.", "answer": "yes"}]
    write_rows(tmp_path / "shots.jsonl", shots)
    with pytest.raises(InputError, match="kind 'number'"):
        run_recipe(settings(rationales={"shots": str(tmp_path / "shots.jsonl")}), tmp_path / "run")


def test_a_delimiter_that_is_no_announcement_is_refused(tmp_path: Path, settings: Make) -> None:
    with pytest.raises(InputError, match="delimiter"):
        run_recipe(settings(format={"delimiter": " => "}), tmp_path / "run")
