"""The recipe `ask`: every answer once, with where it came from; what failed, with why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from symdistill import recipes
from symdistill.budget import Budget, BudgetReached, BudgetSettings
from symdistill.errors import InputError
from symdistill.history import history
from symdistill.ledger import Ledger
from symdistill.progress import Progress
from symdistill.recipes import ask as recipe_of_ask
from symdistill.recipes import run_recipe, summary
from symdistill.recipes.ask import AskConfig
from symdistill.records import Failure, Item, Knowledge, Verdict, content_hash
from symdistill.tables import read_records
from symdistill.teachers.base import NoAnswer, Price, Prompt
from symdistill.teachers.scripted import Script, ScriptedBackend

pytestmark = pytest.mark.unit

PRICE = Price(input=1.0, output=2.0)


def said(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def answers(prompt: Prompt, sample: int) -> str:
    """Samples 0 and 2 say the same in other letters."""
    return f"{said(prompt)} is {'GREEN' if sample == 2 else 'green' if sample == 0 else 'blue'}."


def mostly(prompt: Prompt, sample: int) -> str:
    if "cat" in said(prompt):
        raise NoAnswer("refused", "the server's filter <b>refused</b>", tokens_in=4)
    return answers(prompt, sample)


class Teacher:
    """What the recipe opens in place of a real teacher."""

    def __init__(self) -> None:
        self.script: Script = answers
        self.backend: ScriptedBackend | None = None
        self.how: dict[str, Any] = {"price": PRICE}

    def __call__(self, settings: Any, *, seed: int) -> ScriptedBackend:
        self.backend = ScriptedBackend(
            lambda prompt, sample: self.script(prompt, sample), **self.how
        )
        return self.backend

    @property
    def requests(self) -> int:
        return self.backend.requests if self.backend else 0


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> Teacher:
    one = Teacher()
    monkeypatch.setattr(recipe_of_ask, "open_backend", one)
    return one


class Heard(Progress):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., AskConfig]:
    rows = [{"text": name, "kind": "animal"} for name in ("dog", "cat", "owl", "bee")]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(**changes: Any) -> AskConfig:
        given = {
            "recipe": "ask",
            "questions": {"source": str(tmp_path / "q.jsonl"), "prompt": "A {kind}: {text}"},
            "teacher": {"model": "scripted:echo", "terms": "as you like"},
            "samples": 3,
        }
        return AskConfig.model_validate({**given, **changes})

    return make


Make = Callable[..., AskConfig]


def tables(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "tables").iterdir()}


def test_distinct_answers_are_kept_with_their_calls(
    tmp_path: Path, teacher: Teacher, settings: Make
) -> None:
    run, config = tmp_path / "run", settings()
    metrics = run_recipe(config, run)
    items = read_records(run / "tables" / "items.parquet", Item)
    lines = read_records(run / "tables" / "knowledge.parquet", Knowledge)
    assert [item.text for item in items] == ["dog", "cat", "owl", "bee"]
    assert read_records(run / "tables" / "failures.parquet", Failure) == []
    assert [line.item_id for line in lines] == [item.id for item in items for _ in range(2)]
    green, blue = lines[:2]
    assert (green.form, green.text) == ("statement", "A animal: dog is green.")
    assert green.fields == {
        "finish_reason": "stop",
        "samples": [0, 2],
        "terms": "as you like",
    }
    assert blue.fields["samples"] == [1]
    ledger = Ledger(run / "ledger.sqlite", read_only=True)
    for line in lines:
        for sample, one in zip(line.fields["samples"], line.lineage, strict=True):
            call = ledger.call(one.request_key)
            assert call is not None and call["request"]["sample_index"] == sample
            assert call["response"]["text"].lower() == line.text.lower()
            assert one.teacher == content_hash({"scripted": "scripted"})
            assert json.loads(one.decoding)["temperature"] == config.decoding.temperature
    ledger.close()
    assert (metrics["questions"], metrics["answers"], metrics["distinct"]) == (4, 12, 8)
    assert metrics["failed"] == 0 and metrics["bill"]["requests"] == 4
    tokens = metrics["bill"]
    assert tokens["cost_usd"] == pytest.approx(
        PRICE.cost_usd(tokens["tokens_in"], tokens["tokens_out"])
    )
    assert metrics["teacher"]["terms"] == "as you like"
    assert json.loads((run / "metrics.json").read_text()) == metrics


def test_run_again_nothing_is_asked_and_nothing_changes(
    tmp_path: Path, teacher: Teacher, settings: Make
) -> None:
    run = tmp_path / "run"
    run_recipe(settings(), run)
    first = tables(run)
    run_recipe(settings(), run)
    assert teacher.requests == 0 and tables(run) == first
    teacher_changes_nothing = {"model": "scripted:echo", "terms": "as you like", "rpm": 5}
    run_recipe(settings(teacher=teacher_changes_nothing, budget={"usd": 9}), run)
    assert teacher.requests == 0 and tables(run) == first


def test_a_run_that_was_cut_off_ends_with_the_same_bytes(
    tmp_path: Path, teacher: Teacher, settings: Make
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run_recipe(settings(), whole)

    def breaks(prompt: Prompt, sample: int) -> str:
        if "owl" in said(prompt):
            raise InputError("expected a key; got another; mend it")
        return answers(prompt, sample)

    teacher.script = breaks
    with pytest.raises(InputError, match="expected a key"):
        run_recipe(settings(), cut)
    before = Ledger(cut / "ledger.sqlite", read_only=True).totals()["calls"]
    teacher.script = answers
    run_recipe(settings(), cut)
    assert before and teacher.requests == 4 - before / 3
    assert tables(cut) == tables(whole)


def test_more_samples_ask_only_for_the_new_ones(
    tmp_path: Path, teacher: Teacher, settings: Make
) -> None:
    run = tmp_path / "run"
    run_recipe(settings(), run)
    with pytest.raises(InputError, match=r"samples: 3 -> 4.*--continue"):
        run_recipe(settings(samples=4), run)
    metrics = run_recipe(settings(samples=4), run, accept_changes=True)
    assert metrics["answers"] == 16 and metrics["bill"]["calls"] == 16


def test_failures_are_records_and_can_be_retried_alone(
    tmp_path: Path, teacher: Teacher, settings: Make
) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    teacher.script = mostly
    metrics = run_recipe(settings(), run)
    failures = read_records(run / "tables" / "failures.parquet", Failure)
    assert [one.sample_index for one in failures] == [0, 1, 2]
    assert {one.kind for one in failures} == {"refused"} and "filter" in failures[0].reason
    assert metrics["failures"] == {"refused": 3} and metrics["answers"] == 9
    page = (run / "report.html").read_text()
    assert "&lt;b&gt;refused" in page and "<b>" not in page

    run_recipe(settings(), run)  # a failure is an outcome: it is not asked for again
    assert teacher.requests == 0
    teacher.script = answers
    metrics = run_recipe(settings(), run, retry_failed=True)
    assert teacher.requests == 1
    assert metrics["failed"] == 0 and metrics["answers"] == 12
    run_recipe(settings(), other)
    assert tables(run) == tables(other)


def test_show_says_why_a_sample_failed(tmp_path: Path, teacher: Teacher, settings: Make) -> None:
    teacher.script = mostly
    run = tmp_path / "run"
    run_recipe(settings(), run)
    failures = read_records(run / "tables" / "failures.parquet", Failure)
    told = "\n".join(str(part) for part in history(run, failures[0].id).renderables)
    for word in ("refused: the server's filter", "cat", "user: A animal: cat"):
        assert word in told


def test_a_budget_stops_the_run_and_more_goes_on(
    tmp_path: Path, teacher: Teacher, settings: Make
) -> None:
    run = tmp_path / "run"
    with pytest.raises(BudgetReached, match=r"requests: 2 of 2.*more to ask for") as reached:
        run_recipe(settings(budget={"requests": 2}), run)
    assert reached.value.exit_code == 3
    so_far = read_records(run / "tables" / "knowledge.parquet", Knowledge)
    assert sum(len(line.lineage) for line in so_far) == 6  # what was paid for can be read
    assert "green" in "\n".join(str(part) for part in history(run, so_far[0].id).renderables)
    metrics = run_recipe(settings(budget={"requests": 4}), run)
    assert teacher.requests == 2 and metrics["answers"] == 12


def test_what_a_killed_run_had_in_flight_is_told_at_the_start(
    tmp_path: Path, teacher: Teacher, settings: Make
) -> None:
    run, heard = tmp_path / "run", Heard()
    with pytest.raises(BudgetReached):
        run_recipe(settings(budget={"requests": 2}), run, progress=heard)
    assert not any("cut off" in line for line in heard.lines)
    ledger = Ledger(run / "ledger.sqlite")
    assert Budget(BudgetSettings(requests=3), ledger).reserve(tokens=8)  # and it is killed
    ledger.close()
    run_recipe(settings(budget={"requests": 9}), run, progress=heard)
    assert any("16 tokens, 1 request (at most)" in line for line in heard.lines), heard.lines


def test_refused_rows_are_counted_aloud(tmp_path: Path, teacher: Teacher, settings: Make) -> None:
    with (tmp_path / "q.jsonl").open("a") as file:
        file.write('{"text": "ant"}\n{"text": "fly"}\nnot JSON\n')
    heard = Heard()
    metrics = run_recipe(settings(), tmp_path / "run", progress=heard)
    assert metrics["refused"] == {"has no 'kind'": 2, "is not JSON": 1}
    assert any(line.startswith("2 rows of") and "has no 'kind'" in line for line in heard.lines)


@pytest.mark.parametrize(
    ("questions", "told"),
    [
        ({"source": "q.jsonl", "prompt": "{txt}"}, "nearest is 'text'"),
        ({"source": "q.jsonl", "prompt": "{text"}, "braces"),
        ({"source": "absent.csv"}, "absent.csv"),
    ],
)
def test_bad_input_is_told_before_anything_is_asked(
    tmp_path: Path,
    teacher: Teacher,
    settings: Make,
    monkeypatch: pytest.MonkeyPatch,
    questions: dict[str, str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=told):
        run_recipe(settings(questions=questions), tmp_path / "run")
    assert teacher.requests == 0


def test_the_prompt_is_a_chat_or_a_text(tmp_path: Path, teacher: Teacher, settings: Make) -> None:
    heard: list[Prompt] = []

    def listen(prompt: Prompt, sample: int) -> str:
        heard.append(prompt)
        return "yes"

    teacher.script = listen
    questions = {"source": str(tmp_path / "q.jsonl"), "limit": 1}
    spoken = {**questions, "system": "Be brief."}
    run_recipe(settings(questions=spoken, samples=1), tmp_path / "chat")
    plain = {"model": "scripted:echo", "api": "completions"}
    run_recipe(settings(questions=questions, samples=1, teacher=plain), tmp_path / "text")
    chat, text = heard
    assert [message["role"] for message in chat if isinstance(message, dict)] == ["system", "user"]
    assert isinstance(text, str) and text == said(chat)
    with pytest.raises(ValueError, match=r"no questions\.system"):
        settings(questions=spoken, teacher=plain)


def test_an_answer_of_another_form(tmp_path: Path, teacher: Teacher, settings: Make) -> None:
    run_recipe(settings(form="label"), tmp_path / "run")
    lines = read_records(tmp_path / "run" / "tables" / "knowledge.parquet", Knowledge)
    assert {line.form for line in lines} == {"label"}


HOSTILE = "<script>alert(1)</script> [bold]x[/] \x1b[31m \u202e {{ 7 * 7 }}"


def test_what_the_teacher_wrote_is_shown_as_text(
    tmp_path: Path, teacher: Teacher, settings: Make
) -> None:
    import io

    from rich.console import Console

    teacher.script = lambda prompt, sample: HOSTILE
    run = tmp_path / "run"
    metrics = run_recipe(settings(), run)
    page = (run / "report.html").read_text()
    assert "&lt;script&gt;" in page and "{{ 7 * 7 }}" in page
    stream = io.StringIO()
    told = summary(metrics, report=run / "report.html", next_commands=["symdistill show X"])
    Console(file=stream, width=200).print(told)
    assert "[bold]x[/]" in stream.getvalue() and "symdistill show X" in stream.getvalue()
    for shown in (page, stream.getvalue()):
        assert "<script" not in page
        assert "\x1b" not in shown and "\u202e" not in shown


def test_the_report_is_written_again_from_the_metrics(
    tmp_path: Path, teacher: Teacher, settings: Make
) -> None:
    run = tmp_path / "run"
    run_recipe(settings(), run)
    page = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    assert recipes.write_report(run).read_bytes() == page


# -- for review ----------------------------------------------------------------------------------


def an_address(prompt: Prompt, sample: int) -> str:
    return f"{said(prompt)}: write to <i>a{sample}@b.net</i>." if "owl" in said(prompt) else "No."


def test_answers_to_look_at_are_marked_and_kept(
    tmp_path: Path, teacher: Teacher, settings: Make
) -> None:
    teacher.script = an_address
    metrics = run_recipe(settings(), tmp_path / "run")
    lines = read_records(tmp_path / "run" / "tables" / "knowledge.parquet", Knowledge)
    marked = read_records(tmp_path / "run" / "tables" / "review.parquet", Verdict)
    assert [one.knowledge_id for one in marked] == [x.id for x in lines if "@" in x.text]
    assert marked[0].reason == "e-mail address: “a0@b.net”"
    assert metrics["review"]["rules"] == {"e-mail address": 3}
    assert (metrics["review"]["screened"], metrics["review"]["marked"]) == (len(lines), 3)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "For review" in page and "e-mail address: “a0@b.net”" in page and "<i>a0" not in page

    settings_off = settings(screen=None)
    metrics = run_recipe(settings_off, tmp_path / "run", accept_changes=True)
    assert metrics["review"] is None and teacher.requests == 0
    assert read_records(tmp_path / "run" / "tables" / "review.parquet", Verdict) == []
    assert "For review" not in (tmp_path / "run" / "report.html").read_text()


def test_a_recipe_that_keeps_everything_cannot_refuse(settings: Make) -> None:
    with pytest.raises(ValidationError, match=r"expected screen\.action: mark"):
        settings(screen={"action": "refuse"})
