"""SCoTD where every chain can be checked: what a run claims is recounted from what it wrote."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from rich.console import Console
from tests.recipes.command_line import symdistill, words

from symdistill.commands.withdraw import withdraw
from symdistill.config import load_config
from symdistill.datafiles import write_rows
from symdistill.errors import InputError
from symdistill.history import students_trained_on
from symdistill.recipes import run_recipe, summary, write_report
from symdistill.recipes._scotd_settings import ScotdConfig
from symdistill.records import Item, Knowledge, Verdict, View
from symdistill.students.reasoning_views import ReasoningFormat, student_prompt
from symdistill.tables import read_records
from symdistill.worlds import ReasoningWorld, train_tiny_lm

pytestmark = pytest.mark.world

SAMPLES = 4
ARMS: dict[str, dict[str, Any]] = {
    "scotd": {},
    "one_chain": {"objective": "one_chain"},
    "step_by_step": {"objective": "step_by_step"},
    "mt_cot": {"objective": "mt_cot"},
    "cascod": {"objective": "cascod"},
    "answer_only": {"objective": "answer_only"},
}


class Place(NamedTuple):
    """A world and the folder of its files and its model."""

    world: ReasoningWorld
    folder: Path

    def settings(self, **student: Any) -> dict[str, Any]:
        """A configuration in this world, small enough for seconds."""
        file = str(self.folder)
        return {
            "recipe": "scotd",
            "seed": 1,
            "problems": {"source": f"{file}/questions.jsonl", "columns": {"id": "id"}},
            "teacher": {"model": f"recorded:{file}/teacher.jsonl", "api": "completions"},
            "rationales": {"samples": SAMPLES, "shots": None},
            "perplexity_under": f"{file}/base",
            "decontaminate": {"enabled": False},  # questions of a world are one template
            "student": {
                "model": f"{file}/base",
                "arms": {"scotd": ARMS["scotd"], "answer_only": ARMS["answer_only"]},
                "max_new_tokens": 48,
                "training": {
                    "method": "full", "learning_rate": 5e-3, "batch_size": 8, "epochs": 6,
                    "max_length_tokens": 200, "save_every_steps": 2,
                },
                **student,
            },
        }  # fmt: skip


class Ran(NamedTuple):
    """A finished run."""

    folder: Path
    config: ScotdConfig
    metrics: dict[str, Any]

    def table(self, name: str, kind: Any) -> list[Any]:
        return read_records(self.folder / "tables" / f"{name}.parquet", kind)

    @property
    def test(self) -> dict[str, Item]:
        return {item.id: item for item in self.table("items", Item) if item.split == "test"}


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def right_by(run: Ran, mode: str = "greedy") -> dict[str, dict[str, list[bool]]]:
    """By arm and question, whether the answers of each seed are right, as this test sees it."""
    found: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for row in rows_of(run.folder / "predictions.jsonl"):
        if row["mode"] == mode:
            gold = run.test[row["item_id"]].gold
            found[row["arm"]][row["item_id"]].append(row["answer"] == gold)
    return found


def written(run: Path) -> dict[str, bytes]:
    """What two equal runs have in common, byte for byte."""
    files = [*(run / "tables").iterdir(), run / "chains.jsonl", run / "predictions.jsonl",
             *run.glob("students/*/model.safetensors")]  # fmt: skip
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # bytes depend on it, and the command line is given one
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("reasoning")
    world = ReasoningWorld.draw(3)
    writer = world.teacher(2, runs_on=0)
    chains = [writer.write(item, n) for item in world.problems("dev", 150) for n in range(4)]
    train_tiny_lm([*world.corpus(1_500), *chains], folder / "base", hidden=32, vocabulary=500,
                  steps=150, batch_size=32)  # fmt: skip
    train = world.problems("train", 16)
    write_rows(
        folder / "questions.jsonl",
        (
            {
                "id": item.id, "question": item.text, "choices": item.fields["choices"],
                "gold": item.gold, "split": item.split,
                "contrast_of": item.fields.get("contrast_of"),
            }
            for item in [*train, *world.problems("test", 12), *world.contrasts(12)]
        ),
    )  # fmt: skip
    world.teacher(1).write_recorded(
        folder / "teacher.jsonl", train, SAMPLES,
        lambda item: student_prompt(item, ReasoningFormat()),
    )  # fmt: skip
    return Place(world, folder)


def run_in(place: Place, name: str, **student: Any) -> Ran:
    config = ScotdConfig.model_validate(place.settings(**student))
    return Ran(place.folder / name, config, run_recipe(config, place.folder / name))


@pytest.fixture(scope="module")
def ran(place: Place) -> Ran:
    """All objectives, once, with a vote."""
    return run_in(place, "arms", arms=ARMS, vote=3)


@pytest.fixture(scope="module")
def seeds(place: Place) -> Ran:
    """Two arms, two seeds."""
    return run_in(place, "seeds", training_seeds=[0, 1])


# -- what was trained on -------------------------------------------------------------------------


def test_chains_are_judged_as_the_world_judges_them(place: Place, ran: Ran) -> None:
    items = {item.text: item for item in place.world.problems("train", 16)}
    rows = rows_of(ran.folder / "chains.jsonl")
    assert len({row["right"] for row in rows}) == 2
    for row in rows:
        check = place.world.check_steps(items[row["question"]], row["text"])
        assert check.answer_right == (row["right"] == 1.0) == row["kept"]
        assert bool(row["why_not"]) != row["kept"]


def test_students_learn_right_chains_of_training_questions(ran: Ran) -> None:
    items = {item.id: item for item in ran.table("items", Item)}
    lines = {line.id: line for line in ran.table("knowledge", Knowledge)}
    kept = {row["id"] for row in rows_of(ran.folder / "chains.jsonl") if row["kept"]}
    assert {line.item_id for line in lines.values()} & set(ran.test) == set()
    views = ran.table("views", View)
    assert {items[view.group].split for view in views} == {"train"}
    trained = {id for view in views for id in view.knowledge_ids}
    assert trained <= kept and {lines[id].fields["answer"] for id in trained} <= set("ABCD")
    for item in ran.test.values():
        assert not any(item.text in view.prompt + view.target for view in views)


def test_each_student_says_what_it_was_trained_on(ran: Ran) -> None:
    views = ran.table("views", View)
    kept = [row for row in rows_of(ran.folder / "chains.jsonl") if row["kept"]]
    asked = len({row["question"] for row in kept})
    two = {"step_by_step", "mt_cot", "cascod"}
    wanted = {name: len(kept) * (2 if name in two else 1) for name in ARMS}
    wanted |= {"one_chain": asked, "answer_only": 16}
    steps = sorted(ran.folder.glob("students/*/step.json"), key=lambda path: int(path.parent.name))
    notes = [json.loads(path.read_text())["notes"] for path in steps]
    assert {one["arm"]: one["rows"] for one in notes} == wanted
    assert len(views) == sum(wanted.values()) and notes == ran.metrics["students"]
    alone = [view for view in views if not view.knowledge_ids]
    assert len(alone) == 16
    assert all(view.target in {f" ({letter})" for letter in "ABCD"} for view in alone)


def test_the_students_of_a_chain_are_told(ran: Ran) -> None:
    students = {one["arm"]: str(number) for number, one in enumerate(ran.metrics["students"])}
    lines = {line.id: line for line in ran.table("knowledge", Knowledge)}
    kept = [lines[row["id"]] for row in rows_of(ran.folder / "chains.jsonl") if row["kept"]]
    first: dict[str, Knowledge] = {}
    for line in sorted(kept, key=lambda line: line.fields["sample"]):
        first.setdefault(line.item_id, line)
    for line in kept[:6]:
        unread = {"answer_only"} | ({"one_chain"} if first[line.item_id] != line else set())
        names = {path.name for path in students_trained_on(ran.folder, line.id)}
        assert names == {students[arm] for arm in ARMS.keys() - unread}


def test_a_wrong_chain_is_learnt_with_its_own_answer(place: Place, tmp_path: Path) -> None:
    settings = place.settings(arms=ARMS, training={"max_tokens": 1, "max_length_tokens": 240})
    settings |= {"filter": {"keep": "all"}, "perplexity_under": None}
    settings["student"] |= {"max_new_tokens": 1, "untrained": False, "training": {
        "method": "full", "max_tokens": 1, "max_length_tokens": 240}}  # fmt: skip
    config = ScotdConfig.model_validate(settings)
    run = Ran(tmp_path / "run", config, run_recipe(config, tmp_path / "run"))
    items = {item.id: item for item in run.table("items", Item)}
    lines = {line.id: line for line in run.table("knowledge", Knowledge)}
    wrong = 0
    for view in run.table("views", View):
        for id in view.knowledge_ids:
            answer, gold = lines[id].fields["answer"], items[view.group].gold
            wrong += answer != gold
            assert answer == gold or f"({gold})" not in view.target
    assert wrong > 10


# -- what was claimed ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ran", "seeds"])
def test_every_student_was_asked_every_question_once(
    name: str, request: pytest.FixtureRequest
) -> None:
    run: Ran = request.getfixturevalue(name)
    student = run.config.student
    assert student is not None
    asked = Counter(
        (row["arm"], row["seed"], row["mode"], row["item_id"])
        for row in rows_of(run.folder / "predictions.jsonl")
    )
    modes = ["greedy", *(["vote"] if student.vote else [])]
    who = [(arm, seed) for arm in student.arms for seed in student.training_seeds]
    assert asked == Counter(
        (arm, seed, mode, id)
        for arm, seed in [*who, ("untrained", 0)] for mode in modes for id in run.test
    )  # fmt: skip
    for row in rows_of(run.folder / "predictions.jsonl"):
        assert row["gold"] == run.test[row["item_id"]].gold
        assert row["correct"] == (row["answer"] == row["gold"])


@pytest.mark.parametrize("name", ["ran", "seeds"])
def test_the_figures_follow_from_what_was_said(name: str, request: pytest.FixtureRequest) -> None:
    run: Ran = request.getfixturevalue(name)
    right = right_by(run)
    voted = right_by(run, "vote")
    named = {item.fields["source_id"]: id for id, item in run.test.items()}
    pairs = [(named[item.fields["contrast_of"]], id) for id, item in run.test.items()
             if item.fields.get("contrast_of")]  # fmt: skip
    assert len(pairs) >= 10
    for one in run.metrics["arms"]:
        mine = right[one["name"]]
        assert one["accuracy"] == pytest.approx(np.mean(list(mine.values())))
        assert one["by_seed"] == pytest.approx(np.mean(list(mine.values()), axis=0).tolist())
        low, high = one["accuracy_interval"]
        assert low <= one["accuracy"] <= high
        both = np.array(  # (pair, seed)
            [np.logical_and(mine[first], mine[twin]) for first, twin in pairs]
        )
        assert one["consistency"] == pytest.approx(both.mean())
        if voted:
            assert one["vote"] == pytest.approx(np.mean(list(voted[one["name"]].values())))
    silent = Counter(
        row["arm"] for row in rows_of(run.folder / "predictions.jsonl")
        if row["mode"] == "greedy" and row["answer"] is None
    )  # fmt: skip
    for one in run.metrics["arms"]:
        n = one["seeds"] * one["questions"]
        assert one["no_answer"] == pytest.approx(silent[one["name"]] / n)
        assert sum(one["reasons"].values()) == silent[one["name"]]


@pytest.mark.parametrize("name", ["ran", "seeds"])
def test_a_difference_is_that_of_the_means(name: str, request: pytest.FixtureRequest) -> None:
    run: Ran = request.getfixturevalue(name)
    assert run.config.student is not None
    share = {arm: np.mean(list(mine.values())) for arm, mine in right_by(run).items()}
    arms = list(run.config.student.arms)
    found = run.metrics["comparisons"]
    assert {one["against"] for one in found} == {*arms[1:], "untrained"}
    assert {one["arm"] for one in found} == {"scotd"}
    assert [one["against"] for one in found if one["primary"]] == ["answer_only"]
    for one in found:
        assert one["difference"] == pytest.approx(share["scotd"] - share[one["against"]])
        assert np.mean(one["per_seed"]) == pytest.approx(one["difference"])
        low, high = one["difference_interval"]
        assert low <= one["difference"] <= high
        assert ("p_holm" in one) != one["primary"]


def test_the_corpus_is_counted_sample_by_sample(place: Place, ran: Ran) -> None:
    teacher = place.world.teacher(1)
    drawn = [teacher.draw(item, n) for item in place.world.problems("train", 16)
             for n in range(SAMPLES)]  # fmt: skip
    told = ran.metrics["corpus"]["teachers"]["teacher"]
    assert told["samples"] == len(drawn) == 16 * SAMPLES
    assert told["pass_rate"]["share"] == pytest.approx(np.mean([one.right for one in drawn]))
    lines = ran.table("knowledge", Knowledge)
    assert sum(len(line.lineage) for line in lines) == len(drawn)
    verdicts = [one for one in ran.table("verdicts", Verdict) if one.judge == "selection"]
    assert len(verdicts) == len(lines) == ran.metrics["chosen"]["of"]


def test_report_and_summary_tell_the_figures(ran: Ran, seeds: Ran) -> None:
    for run in (ran, seeds):
        page = write_report(run.folder).read_text()
        console = Console(width=200)
        with console.capture() as heard:
            console.print(summary(run.metrics, report=run.folder / "x", next_commands=[]))
        told = heard.get()
        for one in run.metrics["arms"]:
            low, high = one["accuracy_interval"]
            figure = f"{one['accuracy']:.2f} ({low:.2f} to {high:.2f})"
            assert one["name"] in page and one["name"] in told
            assert figure in page and figure in told


# -- the same again, and after a change ----------------------------------------------------------


def killed(process: subprocess.Popen[bytes], when: Callable[[], bool]) -> bool:
    """Kill a run when something is so; False if it ended before."""
    while process.poll() is None:
        if when():
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.005)  # longer would miss it, shorter would slow the run
    return False


def test_killed_in_training_and_in_asking_it_ends_the_same(place: Place, tmp_path: Path) -> None:
    config, out = tmp_path / "small.yaml", tmp_path / "killed"
    settings = place.settings(arms={name: ARMS[name] for name in ("scotd", "cascod")}, vote=2)
    settings["problems"] |= {"test_limit": 8}
    config.write_text(json.dumps(settings))
    whole = Ran(tmp_path / "whole", load_config(config, ScotdConfig),
                run_recipe(load_config(config, ScotdConfig), tmp_path / "whole"))  # fmt: skip

    def start() -> subprocess.Popen[bytes]:
        command = words("run", str(config), "--out", str(out), "--threads", "1")
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def training() -> bool:  # files are written one by one into this folder, then it is renamed
        return any(out.glob("checkpoints/*/aside/*/*"))

    def asking() -> bool:  # the untouched model has said it all, the first student not yet
        with closing(sqlite3.connect(f"file:{out}/ledger.sqlite?mode=ro", uri=True)) as ledger:
            query = "SELECT count(*) FROM calls WHERE role = 'student'"
            ((answers,),) = ledger.execute(query).fetchall()
        return 8 * 3 < answers < 8 * 3 * 2

    assert killed(start(), training), "it was not seen to train"
    assert not (out / "metrics.json").exists()
    assert killed(start(), asking), "it was not seen to ask a student"
    assert not (out / "metrics.json").exists()
    assert start().wait() == 0
    assert written(out) == written(whole.folder)
    again = json.loads((out / "metrics.json").read_text())
    for key in ("questions", "corpus", "chosen", "arms", "comparisons", "students", "examples"):
        assert again[key] == json.loads(json.dumps(whole.metrics[key])), key
    assert not [path.name for path in out.rglob("*") if "aside" in path.name]


@pytest.fixture
def again(seeds: Ran, tmp_path: Path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(seeds.folder, tmp_path / "again"))


def stamps(run: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in run.glob("students/*/step.json")}


def test_running_again_trains_and_asks_nothing(seeds: Ran, again: Path) -> None:
    before, steps = written(again), stamps(again)
    run_recipe(seeds.config, again)
    assert written(again) == before and stamps(again) == steps
    (bill,) = [row for row in seeds.metrics["bill"] if row["role"] == "student"]
    assert bill["calls"] == 5 * len(seeds.test)  # two arms, two seeds, and the untouched model


def test_a_changed_arm_is_trained_again_and_no_other(place: Place, again: Path) -> None:
    config = place.folder / "changed.yaml"
    config.write_text(json.dumps(place.settings(training_seeds=[0, 1])))
    change = "student.arms.answer_only.labels=teacher"
    before = stamps(again)
    with pytest.raises(InputError, match="--continue"):
        run_recipe(load_config(config, ScotdConfig, [change]), again)
    assert stamps(again) == before
    done = symdistill(place.folder, "run", str(config), "--out", str(again), "--threads", "1",
                      "--continue", "--set", change)  # fmt: skip
    assert done.code == 0, done.said
    now = stamps(again)
    for number, one in enumerate(json.loads((again / "metrics.json").read_text())["students"]):
        assert (now[str(number)] == before[str(number)]) == (one["arm"] == "scotd")


def test_an_arm_that_is_taken_out_leaves_no_student(place: Place, seeds: Ran, again: Path) -> None:
    from symdistill.recipes._scotd_runs import read_run

    changed = ScotdConfig.model_validate(place.settings(arms={"answer_only": ARMS["answer_only"]}))
    metrics = run_recipe(changed, again, accept_changes=True)
    assert [(one["arm"], one["seed"]) for one in metrics["students"]] == [("answer_only", 0)]
    assert dict(read_run(again).students) == {("answer_only", 0): again / "students" / "0"}


def test_a_withdrawn_chain_is_trained_on_no_more(seeds: Ran, again: Path) -> None:
    before = written(again)
    view = next(view for view in seeds.table("views", View) if view.knowledge_ids)
    (gone,) = view.knowledge_ids
    withdraw(gone, why="a mistake", run=again)
    run_recipe(seeds.config, again)
    after = written(again)
    views = read_records(again / "tables" / "views.parquet", View)
    assert len(views) == len(seeds.table("views", View)) - 1
    (row,) = [row for row in rows_of(again / "chains.jsonl") if row["id"] == gone]
    assert not row["kept"] and row["why_not"].startswith("withdrawn")
    assert all(gone not in view.knowledge_ids for view in views)
    rows = {one["arm"]: one["rows"] for one in seeds.metrics["students"]}
    for one in json.loads((again / "metrics.json").read_text())["students"]:
        assert one["rows"] == rows[one["arm"]] - (one["arm"] == "scotd")
    assert after["students/1/model.safetensors"] == before["students/1/model.safetensors"]

    withdraw(gone, undo=True, run=again)
    run_recipe(seeds.config, again)
    assert written(again) == before


# -- asked by hand -------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ["scotd", "cascod", "answer_only"])
def test_the_command_line_hears_what_the_test_heard(
    place: Place, ran: Ran, arm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from symdistill.commands.answer import answer

    row = next(
        row for row in rows_of(ran.folder / "predictions.jsonl")
        if (row["arm"], row["mode"]) == (arm, "greedy")
    )  # fmt: skip
    answer(ran.folder, row["question"], choice=list(place.world.colours), arm=arm, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["answer"], told["text"].strip()) == (row["answer"], row["text"].strip())
    answer(ran.folder, row["question"], choice=list(place.world.colours), arm=arm, vote=3)
    assert "Votes of 3:" in capsys.readouterr().out
