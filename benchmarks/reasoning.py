"""SCoTD against learning answers alone, and against one chain a question.

    python -m benchmarks.reasoning --task world [--seed 1 2 3] [--size 200]
    python -m benchmarks.reasoning --task primary --data FOLDER [--tokens 100000] [--questions 500]
    python -m benchmarks.reasoning --task exploratory --data FOLDER

world        a synthetic world in which every step can be checked (worlds/reasoning.py). Its noisy
             teacher writes chains of the training questions, a tiny model that was trained on the
             world's rules is the student. Beside the arms: of the chains that each filter keeps,
             the share that is right for a wrong reason; and each filter at equal budget.
primary      last-letter concatenation and tracking of three shuffled objects: chains of
             gpt-3.5-turbo-instruct for training, test questions by a program (worlds/puzzles.py).
             THE PRIMARY ENDPOINT, named before the first run: accuracy of `scotd` minus that of
             `answer_only`, greedy answers, over the questions of both tasks and the training
             seeds. All else is exploratory, `scotd` minus `one_chain` among it.
exploratory  correct-only chains of PaLM-540B (CommonsenseQA, e-SNLI, SVAMP), Codex (BIG-Bench Hard,
             the tasks with options) and gpt-3.5 (date, StrategyQA); a development part is held out,
             e-SNLI by premise, date by scenario, the others by question. The file of e-SNLI holds
             rationales without their answers: the answer stored beside each is put behind it.

All arms of a task read the same number of tokens (`--tokens`). Each job is a run of the recipe
under `--out` and is resumed there; the figures of a job enter benchmarks/results/reasoning.json as
soon as they are there, beside those of other tasks. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result import FOLDER, commit, finish
from symdistill.datafiles import write_rows
from symdistill.evaluation.accuracy import accuracy, contrast_groups, paired_over_seeds
from symdistill.recipes import run_recipe
from symdistill.recipes._scotd_asking import read_questions
from symdistill.recipes._scotd_settings import ScotdConfig
from symdistill.records import Item, content_hash
from symdistill.students.reasoning_views import ReasoningFormat, student_prompt
from symdistill.tables import read_records

RESULT = FOLDER / "reasoning.json"
ARMS = {
    "scotd": {"objective": "scotd"},
    "one_chain": {"objective": "one_chain"},
    "answer_only": {"objective": "answer_only"},
}
PRIMARY = ("last_letter", "shuffled")
EXPLORATORY = {
    "cqa": "palm540b__cqa",
    "esnli": "palm540b__esnli",
    "bbh": "codex__bbh",
    "svamp": "palm540b__svamp",
    "date": "gpt35__date",
    "strategyqa": "gpt35__strategyqa",
}
LIMIT = 1000  # training questions of an exploratory task
HELD_OUT = 0.3  # share of an exploratory task's questions
SAME = ("tokens", "seeds", "questions_asked_for")  # what jobs must share to be put together


def main() -> None:
    """Run a task and print its headline."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--task", choices=["world", "primary", "exploratory"], required=True)
    options.add_argument("--data", type=Path, default=Path("../shared/data"))
    options.add_argument("--only", nargs="+", help="some of the task's jobs")
    options.add_argument("--seed", type=int, nargs="+", default=[1, 2, 3], help="of training")
    options.add_argument("--size", type=int, default=150, help="training questions of a world")
    options.add_argument("--questions", type=int, default=500, help="test questions of a job")
    options.add_argument("--tokens", type=int, default=None, help="that each student reads")
    options.add_argument("--vote", type=int, default=0)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--out", type=Path, default=Path("runs/bench-reasoning"))
    given = options.parse_args()
    if given.task != "world" and not (given.data / "rationales").is_dir():
        raise SystemExit(f"expected a folder rationales/ under {given.data}; give --data FOLDER")

    from symdistill.machine import prepare_torch

    prepare_torch("this benchmark", given.threads)
    TASKS[given.task](given)


# ------------------------------------------------------------------ tasks


def primary(given: argparse.Namespace) -> None:
    """Both tasks with all arms; then the endpoint over both."""
    for task in given.only or PRIMARY:
        keep("primary", task, job(task, given, public_task(task, given)), given)
    rows = [known()["primary"].get(task) for task in PRIMARY]
    if None in rows or len({json.dumps([row[key] for key in SAME]) for row in rows}) > 1:
        print("the endpoint needs both tasks at the same settings", flush=True)
        return
    found = {
        f"scotd_minus_{other}": differ(rows, "scotd", other)
        for other in ("answer_only", "one_chain")
    }
    tell({"task": "primary", "tasks": PRIMARY, "primary": "scotd_minus_answer_only", **found})


def exploratory(given: argparse.Namespace) -> None:
    """One job after another."""
    for task in given.only or EXPLORATORY:
        keep("exploratory", task, job(task, given, public_task(task, given)), given)
    rows = known().get("exploratory", {})
    tell({"task": "exploratory", "scotd_minus_answer_only": {
        name: differ([row], "scotd", "answer_only") for name, row in rows.items()
    }})  # fmt: skip


def job(task: str, given: argparse.Namespace, settings: Mapping[str, Any]) -> dict[str, Any]:
    """One run of the recipe, and what a paired comparison needs of it."""
    place = given.out / task
    metrics = run_recipe(ScotdConfig.model_validate(settings), place / "run", accept_changes=True)
    return figures_of(metrics, place / "run")


def figures_of(metrics: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """The figures of a run that the result file keeps."""
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    right: dict[str, list[list[bool]]] = {}
    for arm, seed in dict.fromkeys((row["arm"], row["seed"]) for row in rows):
        mine = [row for row in rows if (row["arm"], row["seed"]) == (arm, seed)]
        right.setdefault(arm, []).append(
            [bool(row["correct"]) for row in mine if row["mode"] == "greedy"]
        )
    keys = ("questions", "chosen", "seen", "protocol", "students", "arms", "comparisons", "corpus")
    items = read_records(run / "tables" / "items.parquet", Item)
    groups = contrast_groups([item for item in items if item.split == "test"])
    return {**{key: metrics[key] for key in keys}, "right": right, "groups": groups}


# ------------------------------------------------------------------ the world

SAMPLES = 8  # chains of each question
WORLD_TOKENS = 500_000
KEEPS: dict[str, dict[str, Any]] = {
    "all": {},
    "right": {},
    "majority": {"confidence": 0.6},
    "agreeing": {},
    "recovered": {},
}
STRATEGIES = ("random", "diversity", "open_endedness")
PER_QUESTION = 2


def world(given: argparse.Namespace) -> None:
    """Three worlds: all arms in each, what each filter lets through, filters at equal budget."""
    found = []
    for number in (1, 2, 3):
        one = in_world(number, given)
        found.append(one)
        keep("world", f"world {number}", one, given)
    headline: dict[str, Any] = {"task": "world", "questions": sum(len(x["groups"]) for x in found)}
    headline |= {name: ranged(found, name) for name in ARMS}
    for other in ("answer_only", "one_chain"):
        headline[f"scotd_minus_{other}"] = differ(found, "scotd", other)
    for strategy in STRATEGIES[1:]:
        pair = (f"scotd, {strategy}", "scotd, random")
        headline[f"{strategy}_minus_random"] = differ(found, *pair)
    headline["right_for_a_wrong_reason"] = {
        name: let_through([one["filters"][name] for one in found]) for name in KEEPS
    }
    tell(headline)


def in_world(number: int, given: argparse.Namespace) -> dict[str, Any]:
    """One world: its model, its teacher's chains, the runs of the recipe."""
    from symdistill.worlds import ReasoningWorld, train_tiny_lm

    place = given.out / f"world-{number}"
    place.mkdir(parents=True, exist_ok=True)
    drawn = ReasoningWorld.draw(number)
    base = place / "base"
    if not (base / "model.safetensors").is_file():
        train_tiny_lm(drawn.corpus(12_000), base, vocabulary=700, steps=900, learning_rate=5e-3)
    train = drawn.problems("train", given.size)
    test = [*drawn.problems("test", given.questions // 2), *drawn.contrasts(given.questions // 2)]
    write_rows(
        place / "questions.jsonl",
        [
            {
                "id": item.id, "question": item.text, "choices": item.fields["choices"],
                "gold": item.gold, "split": item.split,
                "contrast_of": item.fields.get("contrast_of"),
            }
            for item in [*train, *test]
        ],
    )  # fmt: skip
    for name, seed in (("teacher", 1), ("other", 2)):
        drawn.teacher(seed).write_recorded(
            place / f"{name}.jsonl", train, SAMPLES,
            lambda item: student_prompt(item, ReasoningFormat()),
        )  # fmt: skip

    def settings(**changes: Any) -> dict[str, Any]:
        recorded = {"model": f"recorded:{place}/teacher.jsonl", "api": "completions"}
        return {
            "seed": 1,
            "problems": {"source": str(place / "questions.jsonl"), "columns": {"id": "id"}},
            "teacher": recorded,
            "rationales": {"samples": SAMPLES, "shots": None},
            "perplexity_under": None,
            "decontaminate": {"enabled": False},  # questions of a world are one template
            "student": None,
            **changes,
        }

    def student(arms: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "model": str(base),
            "arms": arms,
            "untrained": False,
            "training_seeds": given.seed,
            "max_new_tokens": 90,
            "training": {
                "method": "full", "learning_rate": 3e-3, "batch_size": 16, "epochs": 1000,
                "max_tokens": given.tokens or WORLD_TOKENS, "max_length_tokens": 240,
                "save_every_steps": 100_000,
            },
        }  # fmt: skip

    def ran(name: str, changes: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
        folder = place / name
        config = ScotdConfig.model_validate(settings(**changes))
        return run_recipe(config, folder, accept_changes=True), folder

    figures = figures_of(*ran("arms", {"student": student(ARMS)}))
    for strategy in STRATEGIES:
        wanted = {"keep": "right", "strategy": strategy, "per_question": PER_QUESTION}
        arm = {"scotd": {"objective": "scotd"}}
        right = figures_of(*ran(strategy, {"filter": wanted, "student": student(arm)}))["right"]
        figures["right"][f"scotd, {strategy}"] = right["scotd"]
    figures["filters"] = {}
    for name, more in KEEPS.items():
        changes: dict[str, Any] = {"filter": {"keep": name, **more}}
        if name == "agreeing":
            other = {"model": f"recorded:{place}/other.jsonl", "api": "completions"}
            changes["more_teachers"] = {"other": other}
        if name == "recovered":  # a language model reads every chain: two of each question
            changes["rationales"] = {"samples": 2, "shots": None}
            changes["filter"]["recovery"] = {"shots": None}
        _, folder = ran(f"keep-{name}", changes)
        figures["filters"][name] = reasons_kept(folder, drawn, train)
    return figures


def reasons_kept(run: Path, drawn: Any, items: Sequence[Any]) -> dict[str, int]:
    """Of the chains that a filter kept: how many are valid, and how many right by a wrong one."""
    by_text = {item.text: item for item in items}
    rows = [json.loads(line) for line in (run / "chains.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["teacher"] == "teacher"]
    checks = [
        (row["kept"], drawn.check_steps(by_text[row["question"]], row["text"])) for row in rows
    ]
    return {
        "chains": len(checks),
        "lucky": sum(one.lucky for _, one in checks),
        "kept": sum(kept for kept, _ in checks),
        "kept_valid": sum(kept and one.valid for kept, one in checks),
        "kept_lucky": sum(kept and one.lucky for kept, one in checks),
    }


def let_through(rows: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """Over all worlds: the share of lucky chains that is kept, and their share of what is kept."""
    total = {key: sum(row[key] for row in rows) for key in rows[0]}
    return {
        "let_through": total["kept_lucky"] / max(1, total["lucky"]),
        "share_of_kept": total["kept_lucky"] / max(1, total["kept"]),
        "valid_share_of_kept": total["kept_valid"] / max(1, total["kept"]),
        "kept": total["kept"],
    }


# ------------------------------------------------------------------ public tasks


def public_task(task: str, given: argparse.Namespace) -> dict[str, Any]:
    """A configuration: questions and recorded chains from the folder, tests by a program."""
    place = given.out / task
    place.mkdir(parents=True, exist_ok=True)
    tokens = given.tokens or 100_000
    source = f"gpt35__{task}" if task in PRIMARY else EXPLORATORY[task]
    rows = list(read_chains(given.data / "rationales" / f"{source}.jsonl.gz"))
    questions = {row["item_id"]: row for row in rows}
    asked = [question_of(row) for row in questions.values()]
    if task not in PRIMARY:
        asked = [one | {"split": split_of(task, one["question"])} for one in asked]
    write_rows(place / "questions.jsonl", asked)
    problems: dict[str, Any] = {"source": str(place / "questions.jsonl")}
    if task in PRIMARY:
        write_rows(place / "test.jsonl", puzzles(task, questions.values(), given.questions))
        problems["test"] = str(place / "test.jsonl")
    else:
        problems |= {"limit": LIMIT, "test_limit": given.questions}
    settings: dict[str, Any] = {
        "seed": 1,
        "problems": problems,
        "teacher": {"model": f"recorded:{place}/recorded.jsonl", "api": "completions"},
        "rationales": {"samples": 6, "shots": None},
        "perplexity_under": None,
        "student": {
            "arms": ARMS,
            "training_seeds": given.seed,
            "max_new_tokens": 200,
            "vote": given.vote,
            "training": {
                "max_tokens": tokens,
                "epochs": 1000,
                "batch_size": 16,
                "learning_rate": 5e-4,
                "max_length_tokens": 512,
            },
        },
    }
    record(place / "recorded.jsonl", ScotdConfig.model_validate(settings), rows)
    return settings


def read_chains(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of rationales; a question without an `item_id` has one chain.

    A question of two parts is put into one, an answer that was stored apart is put behind its
    rationale, and of BIG-Bench Hard the tasks with options are taken.
    """
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            row = {"item_id": None, **json.loads(line)}
            row["item_id"] = row["item_id"] or row["id"]
            if "premise" in row:
                row["question"] = f"{row['premise']}\nDoes it follow that {row['hypothesis']}"
                if row.get("llm_label"):
                    row["text"] += f" So the answer is: {row['llm_label']}"
            if "bbh" in path.name and not (row.get("choices") and row["gold_index"] is not None):
                continue
            yield row


def split_of(task: str, question: str) -> str:
    """Train or test, by what must stay together: the premise, the scenario, the question."""
    shared = question.partition("\nDoes it follow")[0]
    if task == "date":
        shared = question.partition("What is the date")[0]
    place = int(content_hash(["held out", task, shared]), 16) / 16**16
    return "test" if place < HELD_OUT else "train"


def question_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """A question as the recipe reads it."""
    gold = str(row["gold"])
    if row.get("gold_index") is not None:
        gold = chr(ord("A") + row["gold_index"])
    found = {"question": row["question"], "gold": gold, "item_id": row["item_id"]}
    return found | ({"choices": row["choices"]} if row.get("choices") else {})


def record(path: Path, config: ScotdConfig, rows: Sequence[Mapping[str, Any]]) -> None:
    """The chains as a recorded teacher has them: by the prompt that the recipe will ask."""
    from collections import Counter

    items = read_questions(config, Counter())
    prompts = {
        item.fields["item_id"]: student_prompt(item, ReasoningFormat())
        for item in items
        if "item_id" in item.fields
    }
    write_rows(
        path,
        [
            {"prompt": prompts[row["item_id"]], "answer": row["text"]}
            for row in rows
            if row["item_id"] in prompts
        ],
    )


def puzzles(task: str, training: Any, n: int) -> list[dict[str, Any]]:
    """Test questions by a program, of the names that the training questions have."""
    import re

    from symdistill.worlds.puzzles import last_letters, shuffled_objects

    if task == "last_letter":
        said = [re.search(r'"(.+)"', row["question"]) for row in training]
        names = sorted({name for one in said if one for name in one[1].split()})
        found = last_letters(20261121, n, words=(4, 4), names=names)
    else:
        found = shuffled_objects(20261121, n)
    return [
        {"question": one.item.text, "gold": one.item.gold,
         **({"choices": one.item.fields["choices"]} if "choices" in one.item.fields else {})}
        for one in found
    ]  # fmt: skip


# ------------------------------------------------------------------ figures


def together(rows: Sequence[Mapping[str, Any]], arm: str) -> Any:
    """(S, N) whether an arm's answers were right, over the questions of several jobs."""
    return np.concatenate([np.array(row["right"][arm], dtype=bool) for row in rows], axis=1)


def groups_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """(N,) what belongs together: the questions of a contrast set of one job."""
    return [f"{job} {group}" for job, row in enumerate(rows) for group in row["groups"]]


def differ(rows: Sequence[Mapping[str, Any]], arm: str, other: str) -> dict[str, Any]:
    """A paired difference over the questions and seeds of several jobs."""
    found = paired_over_seeds(together(rows, arm), together(rows, other), groups_of(rows))
    return {
        "difference": found.estimate, "interval": [found.low, found.high], "p": found.p,
        "by_seed": list(found.per_seed), "covers": found.covers,
    }  # fmt: skip


def ranged(rows: Sequence[Mapping[str, Any]], arm: str) -> dict[str, Any]:
    """An arm's share of right answers, its interval over other questions, and by seed."""
    right = together(rows, arm)
    found = accuracy(right.ravel(), groups_of(rows) * len(right))
    return {
        "accuracy": found.share, "interval": [found.low, found.high],
        "by_seed": right.mean(axis=1).tolist(),
    }  # fmt: skip


def known() -> dict[str, Any]:
    """The rows of the result file."""
    rows: dict[str, Any] = {}
    if RESULT.is_file():
        rows = json.loads(RESULT.read_text("utf-8"))["rows"]
    return rows


def keep(task: str, name: str, row: Mapping[str, Any], given: argparse.Namespace) -> None:
    """Put a job's figures in the place of what was there."""
    rows = known()
    settings = {
        "commit": commit(), "threads": given.threads, "tokens": given.tokens,
        "seeds": given.seed, "questions_asked_for": given.questions,
    }  # fmt: skip
    rows.setdefault(task, {})[name] = {**row, **settings}
    headline = json.loads(RESULT.read_text("utf-8"))["headline"] if RESULT.is_file() else {}
    finish("reasoning", {"headline": headline}, rows)


def tell(headline: dict[str, Any]) -> None:
    """The task's headline: into the result, and as the last line."""
    rows = known()
    told = json.loads(RESULT.read_text("utf-8"))["headline"] if RESULT.is_file() else {}
    finish("reasoning", {"headline": {**told, headline["task"]: headline}}, rows)
    print(json.dumps(headline), flush=True)


TASKS = {"world": world, "primary": primary, "exploratory": exploratory}

if __name__ == "__main__":
    main()
