"""`symdistill answer`: whom it asks, what it prints, and one sentence where it cannot.

The run is a folder made here; a scripted backend stands in for the student's model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import typer
from typer.testing import CliRunner

from symdistill.commands.answer import answer
from symdistill.config import dump_config
from symdistill.errors import InputError
from symdistill.recipes._scotd_settings import ScotdConfig
from symdistill.records import Item
from symdistill.tables import write_records
from symdistill.teachers.base import Decoding, Replies, Reply
from symdistill.teachers.scripted import ScriptedBackend

pytestmark = pytest.mark.unit

ARMS: dict[str, Any] = {
    "scotd": {}, "two": {"objective": "cascod"}, "direct": {"objective": "answer_only"},
}  # fmt: skip
NUMBER = Item.make("question", "How many?", gold="4", split="test",
                   fields={"answer_kind": "number"})  # fmt: skip
CHOICE = Item.make("question", "Which?", gold="A", split="test",
                   fields={"answer_kind": "choice", "choices": ["red", "blue"]})  # fmt: skip
ASK = "Ann has 2 pears and buys 2. How many has she?"


def make_run(folder: Path, items: Sequence[Item] = (NUMBER,), **settings: Any) -> Path:
    """A run of three arms and two seeds, without weights."""
    given = {"student": {"arms": ARMS, "training_seeds": [3, 5]}, **settings}
    (folder / "students").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(ScotdConfig.model_validate(given)))
    who = [(arm, seed) for seed in (3, 5) for arm in ARMS]
    for number, (arm, seed) in enumerate(who):
        (folder / "students" / str(number)).mkdir()
        step = {"fingerprint": "x", "notes": {"arm": arm, "seed": seed}}
        (folder / "students" / str(number) / "step.json").write_text(json.dumps(step))
    write_records(folder / "tables" / "items.parquet", Item, items)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


class Student(ScriptedBackend):
    """Says what it is told to say, and keeps what it was asked."""

    opened: ClassVar[list[str]]
    asked: ClassVar[list[tuple[Any, int, Decoding]]]
    says: ClassVar[list[str]]

    def __init__(self, model: str, *, seed: int, batch_size: int = 32) -> None:
        super().__init__(
            lambda prompt, sample: Reply("", "stop", 0), samples_per_request=batch_size
        )
        Student.opened.append(model)

    async def send(
        self, prompt: Any, samples: int, decoding: Decoding, *, first_sample: int = 0
    ) -> Replies:
        Student.asked.append((prompt, samples, decoding))
        said = [Student.says.pop(0) for _ in range(min(samples, self.samples_per_request))]
        return Replies(tuple(Reply(text, "stop", 3) for text in said), tokens_in=1)


@pytest.fixture(autouse=True)
def student(monkeypatch: pytest.MonkeyPatch) -> type[Student]:
    monkeypatch.setattr("symdistill.teachers.local_backend.LocalBackend", Student)
    monkeypatch.setattr("symdistill.machine.prepare_torch", lambda what, threads: None)
    for name in ("opened", "asked", "says"):
        monkeypatch.setattr(Student, name, [], raising=False)
    return Student


def said(*command: object) -> str:
    """What the command prints; its errors are raised."""
    app = typer.Typer()
    app.command()(answer)
    done = CliRunner().invoke(app, [str(word) for word in command], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*command: object) -> str:
    """The one sentence of a refusal."""
    Student.says = [" 4"] * 10
    with pytest.raises(InputError) as error:
        said(*command)
    assert error.value.exit_code == 2 and "\n" not in str(error.value)
    assert not Student.opened
    return str(error.value)


def test_the_first_student_reasons_and_answers(run: Path) -> None:
    Student.says = [" She has 2 + 2 = 4. So the answer is: 4"]
    told = said(run, ASK)
    assert told == "She has 2 + 2 = 4. So the answer is: 4\n\nAnswer: 4\n"
    assert Student.opened == [str(run / "students" / "0")]
    ((prompt, samples, decoding),) = Student.asked
    assert prompt == f"Q: {ASK}\nA:" and samples == 1 and decoding.temperature == 0


def test_arm_and_seed_name_a_student(run: Path) -> None:
    Student.says = ["4"]
    said(run, ASK, "--arm", "direct", "--seed", 5)
    assert Student.opened == [str(run / "students" / "5")]


def test_a_student_that_answers_directly_is_shown_as_it_wrote(run: Path) -> None:
    Student.says = [" 4", " 4"]
    assert said(run, ASK, "--arm", "direct") == "4\n\nAnswer: 4\n"
    assert json.loads(said(run, ASK, "--arm", "direct", "--json"))["text"] == " 4"


def test_two_steps_ask_twice_and_show_both(run: Path) -> None:
    Student.says = [" 2 and 2 make 4.", " 4"]
    told = json.loads(said(run, ASK, "--arm", "two", "--json"))
    assert told["answer"] == "4" and told["text"] == " 2 and 2 make 4.\n 4"
    (first, *_), (second, _, short) = Student.asked
    assert first.endswith("Rationale:") and "2 and 2 make 4." in second
    assert short.max_new_tokens < ScotdConfig().student.max_new_tokens  # type: ignore[union-attr]


def test_a_vote_counts_and_shows_a_chain_of_the_winner(run: Path) -> None:
    chains = [" So the answer is: 5", " It is 4. So the answer is: 4", " So the answer is: 4", " ?"]
    Student.says = [*chains, *chains]
    told = json.loads(said(run, ASK, "--vote", 4, "--json"))
    assert told["answer"] == "4" and told["votes"] == {"5": 1, "4": 2}
    assert told["confidence"] == pytest.approx(2 / 3) and told["text"] == chains[1]
    ((_, samples, decoding),) = Student.asked
    assert samples == 4 and decoding.temperature == 0.7
    assert "Votes of 4: 5 1x, 4 2x" in said(run, ASK, "--vote", 4)


def test_a_vote_of_more_than_a_batch_draws_them_all(run: Path) -> None:
    Student.says = [" So the answer is: 4"] * 40
    assert json.loads(said(run, ASK, "--vote", 40, "--json"))["votes"] == {"4": 40}


def test_no_answer_is_told_with_its_reason(run: Path) -> None:
    Student.says = [" I wonder.", " I wonder."]
    assert "Answer: none (no answer)" in said(run, ASK)
    told = json.loads(said(run, ASK, "--json"))
    assert told["answer"] is None and told["reason"] == "no answer" and told["votes"] == {}


def test_what_a_student_writes_cannot_steer_the_terminal(run: Path) -> None:
    Student.says = [" \x1b[31mSo the answer is: 4"]
    assert "\x1b" not in said(run, ASK)


def test_options_are_put_to_the_student(tmp_path: Path) -> None:
    run = make_run(tmp_path / "choices", [CHOICE])
    Student.says = [" Blood is. So the answer is: (B)"]
    assert "Answer: B" in said(run, "Which is red?", "--choice", "the sky", "--choice", "blood")
    ((prompt, *_),) = Student.asked
    assert "\n(A) the sky\n(B) blood\n" in prompt


# -- refusals ------------------------------------------------------------------------------------


def test_a_folder_without_a_run_of_scotd(run: Path, tmp_path: Path) -> None:
    assert "expected the folder of a run of scotd" in refused(tmp_path / "nowhere", ASK)
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.yaml").write_text("recipe: skd\n")
    assert "a run of scotd" in refused(other, ASK)


def test_a_run_without_students(tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "config.yaml").write_text(dump_config(ScotdConfig(student=None)))
    assert "with students" in refused(alone, ASK)


def test_a_run_that_has_not_ended(run: Path) -> None:
    (run / "tables" / "items.parquet").unlink()
    assert "finished run" in refused(run, ASK)


def test_students_of_earlier_settings_are_not_taken_for_those_of_these(tmp_path: Path) -> None:
    """As a run that goes on with its arms in another order has them until it has trained."""
    run = make_run(tmp_path / "run")
    other = {"arms": dict(reversed(ARMS.items())), "training_seeds": [3, 5]}
    changed = ScotdConfig.model_validate({"student": other})
    (run / "config.yaml").write_text(dump_config(changed))
    assert "finished run" in refused(run, ASK)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--arm", "nobody"], "among scotd, two, direct; got 'nobody'"),
        (["--seed", "4"], "among 3, 5; got 4"),
        (["--choice", "red"], "got 1"),
    ],
)
def test_students_and_options_that_are_not_there(run: Path, options: list[str], says: str) -> None:
    assert says in refused(run, ASK, *options)


def test_options_that_read_alike(run: Path) -> None:
    assert "alike" in refused(run, ASK, "--choice", "red", "--choice", "Red.")


def test_more_options_than_there_are_letters(run: Path) -> None:
    options = [word for k in range(27) for word in ("--choice", f"number {k}")]
    assert "26" in refused(run, ASK, *options)


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_question(run: Path, question: str) -> None:
    assert "expected a question; got none" in refused(run, question)


def test_students_of_options_need_them(tmp_path: Path) -> None:
    run = make_run(tmp_path / "choices", [CHOICE])
    assert "give --choice TEXT" in refused(run, "Which?")
