"""Exported tasks: files that parse, patterns that read the traps right, folders left alone.

The last tests run the tasks in the tools themselves. They need an interpreter that has them:
`SYMDISTILL_TOOLS_PYTHON`, or the one that runs the tests.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from symdistill.answers import AnswerKind
from symdistill.errors import InputError, RunError
from symdistill.evaluation.export import (
    answer_pattern,
    export_inspect,
    export_lm_eval,
    task_name,
)
from symdistill.records import Item

pytestmark = pytest.mark.unit

DELIMITER = "So the answer is:"
COLOURS = ["red", "green", "blue"]


def question(text: str, gold: str | None, kind: AnswerKind = "number", **fields: object) -> Item:
    return Item.make("question", text, gold=gold, fields={"answer_kind": kind, **fields})


ITEMS = [
    question("Tom has 3 apples, gets 4 and eats 2. How many?", "5"),
    question('Say "no": 1000 + 234?', "1234"),
    question("What is a half — as a decimal?", "0.5"),
    question("7 ✕ 6?", "42"),
]


def prompt(item: Item) -> str:
    return f"Q: {item.text}\nA:"


def write(folder: Path, items: Sequence[Item] = ITEMS, name: str = "sums") -> Path:
    return export_lm_eval(
        items, folder, name, prompt=prompt, stop=["\n\n", "Q:"], delimiter=DELIMITER
    )


class Loader(yaml.SafeLoader):
    pass


Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


def task_of(folder: Path, name: str = "sums") -> dict:
    return yaml.load((folder / f"{name}.yaml").read_text(encoding="utf-8"), Loader)


def read_as_lm_eval_does(kind: AnswerKind, text: str, delimiter: str = DELIMITER) -> str | None:
    found = re.findall(answer_pattern(kind, delimiter), text)
    if not found:
        return None
    last = found[-1]
    return next(part for part in last if part) if isinstance(last, tuple) else last


# -- patterns -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("number", "So the answer is: 72", "72"),
        ("number", "So the answer is: 72.", "72"),
        ("number", "so the answer is 7", "7"),
        ("number", "So the answer is: $1,234.50.", "1,234.50"),
        ("number", "So the answer is: -5", "-5"),
        ("number", "So the answer is: -$5.", "-$5"),
        ("number", "So the answer is: **42.0**", "42.0"),
        ("number", "So the answer is: $\\boxed{20}$.", "20"),
        ("number", "So the answer is: 3/4.", "3/4"),
        ("number", "So the answer is: .5", ".5"),
        ("number", "So the answer is: 72 apples, not 80.", "72"),
        ("number", "So the answer is:\n8", "8"),
        ("number", "So the answer is: 5. Wait. So the answer is: 6", "6"),
        ("number", "So the answer is: unknown. There are 5.", None),
        ("number", "There are 5.", None),
        ("choice", "So the answer is: (B)", "B"),
        ("choice", "So the answer is: (B", "B"),
        ("choice", "So the answer is: B", "B"),
        ("choice", "So the answer is: (b).", "b"),
        ("choice", "So the answer is: **C**\nDone.", "C"),
        ("choice", "So the answer is: B because it is small.", "B"),
        ("choice", "A is wrong. So the answer is: (B)", "B"),
        ("choice", "So the answer is: a bird", None),
        ("choice", "So the answer is: I think (B)", None),
        ("choice", "So the answer is: Blue", None),
        ("yes_no", "So the answer is: no", "no"),
        ("yes_no", "So the answer is: Yes.", "Yes"),
        ("yes_no", "So the answer is: not yes", None),
        ("yes_no", "So the answer is: nothing", None),
        ("true_false", "So the answer is True", "True"),
        ("valid_invalid", "So the answer is: invalid.", "invalid"),
        ("valid_invalid", "Not valid. So the answer is: valid", "valid"),
        ("text", "So the answer is: yajc.", "yajc"),
        ("text", "So the answer is: yajc", "yajc"),
        ("text", 'So the answer is: "yajc."', "yajc"),
        ("text", "So the answer is: yajc. I am sure.", "yajc"),
        ("text", "So the answer is: two words\nQ: next", "two words"),
        ("text", "So the answer is: ) ] }", ") ] }"),
    ],
)
def test_patterns_on_the_traps(kind: AnswerKind, text: str, expected: str | None) -> None:
    assert read_as_lm_eval_does(kind, text) == expected


def test_other_delimiters() -> None:
    assert read_as_lm_eval_does("number", "3 + 4 = 7\n#### 7", "####") == "7"
    assert read_as_lm_eval_does("choice", "ANSWER: (c)", "Answer: ") == "c"
    with pytest.raises(InputError, match="delimiter"):
        answer_pattern("number", " : ")


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("number", " 42", "42"),
        ("number", "\n$1,234.50.", "1,234.50"),
        ("number", " -5\n\nQ: And 7?", "-5"),
        ("number", " There are 5.", None),
        ("choice", " (B)", "B"),
        ("choice", " b.", "b"),
        ("choice", " a bird", None),
        ("yes_no", " No, it sinks: yes.", "No"),
        ("true_false", " True", "True"),
        ("valid_invalid", " invalid", "invalid"),
        ("text", " yajc\nQ: next", "yajc"),
    ],
)
def test_answers_alone_are_read_where_the_text_begins(
    kind: AnswerKind, text: str, expected: str | None
) -> None:
    (found, *more) = re.findall(answer_pattern(kind, "", direct=True), text) or [None]
    assert not more
    assert (next(filter(None, found)) if isinstance(found, tuple) else found) == expected


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("sums", "sums"),
        ("SCoTD, Run 2.1 (é)", "scotd_run_2_1_e"),
        ("2nd-run", "task_2nd_run"),
        ("class", "task_class"),
        ("_a_", "a"),
        ("日本", "task"),
        ("", "task"),
    ],
)
def test_any_run_name_makes_a_task_name(tmp_path: Path, text: str, name: str) -> None:
    assert task_name(text) == name
    assert (write(tmp_path / "run", name=task_name(text)) / f"{name}.yaml").is_file()


# -- files --------------------------------------------------------------------------------------


def test_lm_eval_task_parses_and_names_its_protocol(tmp_path: Path) -> None:
    folder = write(tmp_path / "new" / "sums")
    task = task_of(folder)
    assert task["task"] == "sums"
    assert task["output_type"] == "generate_until"
    assert task["generation_kwargs"]["until"] == ["\n\n", "Q:"]
    pattern = task["filter_list"][0]["filter"][0]["regex_pattern"]
    assert pattern == answer_pattern("number", DELIMITER)
    assert "generative exact match" in task["metadata"]["protocol"]
    assert task["metadata"]["version"] == 1
    assert "generative exact match" in (folder / "README.md").read_text(encoding="utf-8")
    assert task["custom_dataset"] == "sums_data.load"
    compile((folder / "sums_data.py").read_text(encoding="utf-8"), "sums_data.py", "exec")
    lines = (folder / "sums.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["prompt"] for row in rows] == [prompt(item) for item in ITEMS]
    assert [row["target"] for row in rows] == [item.gold for item in ITEMS]


def test_numbers_are_compared_as_numbers_are_spelt(tmp_path: Path) -> None:
    ignored = task_of(write(tmp_path / "sums"))["metric_list"][0]["regexes_to_ignore"]

    def bare(text: str) -> str:
        for pattern in ignored:
            text = re.sub(pattern, "", text)
        return text

    assert bare("$1,234") == bare("1234.0") == bare("+1234") == "1234"
    assert bare("-$5") == "-5"
    assert bare("10") == "10"
    assert bare("0.50") != bare("0.05")


def test_inspect_task_compiles_and_keeps_the_items(tmp_path: Path) -> None:
    items = [*ITEMS, question("Which is the sky?", "C", "choice", choices=COLOURS)]
    folder = export_inspect(items, tmp_path / "mixed", "mixed", prompt=prompt, stop=["\n\n"])
    code = (folder / "mixed.py").read_text(encoding="utf-8")
    compile(code, "mixed.py", "exec")
    assert "stop_seqs=['\\n\\n']" in code
    lines = (folder / "mixed.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [Item(**row["metadata"]["item"]) for row in rows] == items
    assert [row["input"] for row in rows] == [prompt(item) for item in items]
    assert "extractor version" in (folder / "README.md").read_text(encoding="utf-8")


def test_a_task_for_answers_alone_says_so(tmp_path: Path) -> None:
    lm_eval = export_lm_eval(
        ITEMS, tmp_path / "lm", "sums", prompt=prompt, stop=[], delimiter=DELIMITER, direct=True
    )
    pattern = task_of(lm_eval)["filter_list"][0]["filter"][0]["regex_pattern"]
    assert pattern == answer_pattern("number", DELIMITER, direct=True)
    assert "number where the text begins" in task_of(lm_eval)["metadata"]["protocol"]
    inspect = export_inspect(ITEMS, tmp_path / "inspect", "sums", prompt=prompt, direct=True)
    code = (inspect / "sums.py").read_text(encoding="utf-8")
    compile(code, "sums.py", "exec")
    assert 'extract(f"The answer is {text.lstrip()}", ' in code
    assert "of the answer alone" in (inspect / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["extract", "generate", "task"])
def test_an_inspect_task_hides_none_of_the_names_it_uses(tmp_path: Path, name: str) -> None:
    folder = export_inspect(ITEMS, tmp_path / name, name, prompt=prompt)
    code = (folder / f"{name}.py").read_text(encoding="utf-8")
    assert f'@task(name="{name}")' in code and f"def {name}(" not in code


def test_writing_again_changes_nothing_and_other_content_is_left_alone(tmp_path: Path) -> None:
    folder = write(tmp_path / "sums")
    (folder / "logs").mkdir()
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert write(folder) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    with pytest.raises(InputError, match="holds something else"):
        write(folder, ITEMS[:2])
    assert len((folder / "sums.jsonl").read_text(encoding="utf-8").splitlines()) == len(ITEMS)

    other = tmp_path / "mine"
    other.mkdir()
    (other / "notes.txt").write_text("keep me")
    with pytest.raises(InputError, match="holds something else"):
        write(other)
    assert [path.name for path in other.iterdir()] == ["notes.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "sums"]


def test_an_empty_folder_is_filled_and_a_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert (write(tmp_path / "empty") / "sums.yaml").is_file()
    file = tmp_path / "file"
    file.write_text("keep me")
    with pytest.raises(RunError, match="choose another place"):
        write(file)
    assert file.read_text() == "keep me"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]


@pytest.mark.parametrize(
    ("items", "name", "message"),
    [
        ([], "sums", "got none"),
        ([*ITEMS, question("Unknown?", None)], "sums", "1 without"),
        (
            [*ITEMS, question("Sky?", "C", "choice", choices=COLOURS)],
            "sums",
            "got choice, number",
        ),
        (ITEMS, "../sums", "task name"),
        (ITEMS, "class", "task name"),
    ],
)
def test_what_cannot_be_a_task_is_refused(
    tmp_path: Path, items: list[Item], name: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        write(tmp_path / "sums", items, name)
    assert not list(tmp_path.iterdir())


# -- in the tools themselves --------------------------------------------------------------------

ANSWERS = {
    prompt(ITEMS[0]): "3 + 4 - 2 = 5. So the answer is: 5.",
    prompt(ITEMS[1]): "So the answer is: 1,234",
    prompt(ITEMS[2]): "So the answer is: 2",
    prompt(ITEMS[3]): "Seven sixes. So the answer is: 42",
}

RUN_LM_EVAL = """
import json, sys
from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager
folder, answers = sys.argv[1], json.loads(sys.argv[2])
class Scripted(LM):
    def generate_until(self, requests, **_): return [answers[r.args[0]] for r in requests]
    def loglikelihood(self, requests, **_): raise NotImplementedError
    def loglikelihood_rolling(self, requests, **_): raise NotImplementedError
found = simple_evaluate(
    Scripted(), tasks=["sums"], task_manager=TaskManager(include_path=folder), bootstrap_iters=0
)
print("RESULT", json.dumps([found["results"]["sums"], found["versions"]], default=str))
"""

RUN_INSPECT = """
import json, sys
from inspect_ai import eval
from inspect_ai.model import ModelOutput, ModelUsage, get_model
answers = json.loads(sys.argv[2])
def scripted(messages, *_):
    output = ModelOutput.from_content("scripted", answers[messages[-1].text])
    output.usage = ModelUsage()  # else it downloads a tokenizer to count
    return output
model = get_model("mockllm/model", custom_outputs=scripted)
log = eval("sums.py", model=model, log_dir="logs", display="none")[0]
print("RESULT", json.dumps([log.status, log.results.scores[0].metrics["accuracy"].value,
    {s.id: s.scores["exact_match"].answer for s in log.samples}, log.eval.metadata]))
"""


def run_with(tool: str, script: str, folder: Path, answers: dict[str, str] = ANSWERS) -> list:
    python = os.environ.get("SYMDISTILL_TOOLS_PYTHON", sys.executable)
    if subprocess.run([python, "-c", f"import {tool}"], capture_output=True).returncode:
        pytest.skip(f"{tool} is not installed in {python}; see docs/evaluation.md")
    source = Path(__file__).resolve().parents[2] / "src"
    done = subprocess.run(
        [python, "-c", script, str(folder), json.dumps(answers)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(source)},
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stderr[-3000:]
    result: list = json.loads(lines[0].removeprefix("RESULT "))
    return result


ALONE = dict(zip(ANSWERS, [" 5", " 1,234.", " Two, or 2", " 42"], strict=True))


@pytest.mark.slow
def test_lm_eval_runs_the_task(tmp_path: Path) -> None:
    folder = write(tmp_path / "sums").rename(tmp_path / "moved")  # nothing in it knows its place
    results, versions = run_with("lm_eval", RUN_LM_EVAL, folder)
    assert results["exact_match,last-answer"] == 0.75
    assert versions["sums"] == 1
    alone = export_lm_eval(
        ITEMS, tmp_path / "alone", "sums", prompt=prompt, stop=[], delimiter=DELIMITER, direct=True
    )
    results, _ = run_with("lm_eval", RUN_LM_EVAL, alone, ALONE)
    assert results["exact_match,last-answer"] == 0.75


@pytest.mark.slow
def test_inspect_runs_the_task(tmp_path: Path) -> None:
    folder = export_inspect(ITEMS, tmp_path / "sums", "sums", prompt=prompt)
    status, accuracy, answers, metadata = run_with("inspect_ai", RUN_INSPECT, folder)
    assert (status, accuracy) == ("success", 0.75)
    assert [answers[item.id] for item in ITEMS] == ["5", "1234", "2", "42"]
    assert metadata["protocol"].startswith("generative exact match, extractor version ")
    alone = export_inspect(ITEMS, tmp_path / "alone", "sums", prompt=prompt, direct=True)
    status, accuracy, answers, metadata = run_with("inspect_ai", RUN_INSPECT, alone, ALONE)
    assert (status, accuracy) == ("success", 0.75)
    assert "of the answer alone" in metadata["protocol"]
