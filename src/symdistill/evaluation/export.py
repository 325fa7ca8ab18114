"""A test set as a task of lm-evaluation-harness or of inspect_ai, so that their scores can be had.

Takes questions with gold answers and a function that writes a question's prompt; writes a folder
that the other tool runs. Neither tool is needed to write it, nor by anything else in this package.

A score means little without its protocol. Both exports are *generative*: the model writes a text
and the answer is read out of it. Many published scores of questions with options are
*log-likelihood* instead (which option does the model find likeliest?), and not comparable.

    lm-evaluation-harness   generative exact match; the answer is read by a regular expression
                            behind the delimiter, or where the text begins (`direct`), see
                            `answer_pattern`
    inspect_ai              generative exact match; the answer is read and compared by this package,
                            with the version of its extractor in the log

The first is the stricter one: what does not follow the delimiter is no answer, and numbers are
equal only if they are spelt alike, but for commas, "$" and ".0". A model that was trained to write
the answer alone writes no delimiter: export for it with `direct=True`.

What it does not do: reproduce another paper's prompts, or run anything.
"""

from __future__ import annotations

import json
import keyword
import os
import re
import secrets
import shutil
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from string import Template

from symdistill.answers import AnswerKind, kind_of
from symdistill.errors import InputError, RunError
from symdistill.records import Item, canonical_json

PATTERN_VERSION = 1
"""Goes up with every change of what `answer_pattern` reads."""

MAX_TOKENS = 256

_QUOTES = r"\"'“”‘’`*"
_UP_TO = r"[^\w\n]{0,4}"  # a bracket, a quote, bold
_PATTERNS: Mapping[AnswerKind, str] = {
    "number": r"(?:[^\w\-+.\n]{0,4}\\boxed\{|[^\w\-+.\n]{0,4})"
    r"([-+]?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:/\d+)?)",
    # A letter with something behind it that ends an answer; "a bird" and "I think" are no letters.
    "choice": rf"{_UP_TO}(?:([A-Za-z])(?=[)\].,:;*]|\s*(?:\n|$))|([B-HJ-Z])(?=\s))",
    "yes_no": rf"{_UP_TO}((?i:yes|no))\b",
    "true_false": rf"{_UP_TO}((?i:true|false))\b",
    "valid_invalid": rf"{_UP_TO}((?i:valid|invalid))\b",
    "text": rf"[{_QUOTES}]*(\S.*?)[{_QUOTES}]*(?:[.!?]+[{_QUOTES}]*(?=\s|$)|\s*\n|\s*$)",
}
_NOT_COMPARED: Mapping[str, list[str]] = {"number": [",", r"\$", r"^\+", r"\.0+$"]}


def answer_pattern(kind: AnswerKind, delimiter: str, *, direct: bool = False) -> str:
    """A regular expression of one answer behind a delimiter; the last match in a text counts.

    It needs no full stop behind the answer, and takes none into it. With `direct` the answer stands
    where the text begins, and the delimiter is not used.

    Raises:
        InputError: the delimiter is empty.
    """
    if direct:
        return rf"\A\s*{_PATTERNS[kind]}"
    words = delimiter.strip().rstrip(":").split()
    if not words:
        raise InputError(
            f"expected a delimiter that says where the answer stands; got {delimiter!r}; write, "
            'for example, "So the answer is:"'
        )
    behind = r"\s+".join(map(re.escape, words))
    return rf"(?i:{behind})\s*:?\s*{_PATTERNS[kind]}"


def task_name(text: str) -> str:
    """A name that both tools take for a task, made of any text: "Run 2.1 (é)" -> "run_2_1_e"."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
    if not name[:1].isalpha() or keyword.iskeyword(name):
        name = f"task_{name}".rstrip("_")
    return name


def export_lm_eval(
    items: Sequence[Item],
    folder: Path,
    name: str,
    *,
    prompt: Callable[[Item], str],
    stop: Sequence[str],
    delimiter: str,
    max_tokens: int = MAX_TOKENS,
    direct: bool = False,
) -> Path:
    """Write a task for lm-evaluation-harness; tried with its version 0.4.13.

    Args:
        items: questions of one answer kind, with gold answers.
        folder: a new one, or one that this call would write again.
        name: of the task; `task_name` makes one of any text.
        prompt: what the model reads, to the last character.
        stop: where the model stops writing.
        delimiter: the words before an answer, as the model was trained to write them.
        max_tokens: that the model may write.
        direct: the model writes the answer alone; it is read where the text begins.

    Returns:
        The folder.

    Raises:
        InputError: no questions, ones of several kinds or without gold, a name that cannot be one,
            or a folder that holds something else.
        RunError: the folder cannot be written.
    """
    _check(items, name)
    kinds = {kind_of(item) for item in items}
    if len(kinds) > 1:
        raise InputError(
            f"expected questions of one answer kind; got {', '.join(sorted(kinds))}; export each "
            "kind as a task of its own"
        )
    kind = kinds.pop()
    protocol = (
        f"generative exact match, {kind} "
        f"{'where the text begins' if direct else f'behind {delimiter.strip()!r}'}, "
        f"pattern version {PATTERN_VERSION}"
    )
    settings: dict[str, object] = {
        "task": name,
        "output_type": "generate_until",
        "test_split": "test",
        "num_fewshot": 0,
        "doc_to_text": "prompt",
        "doc_to_target": "target",
        "target_delimiter": "",
        "generation_kwargs": {
            "until": list(stop),
            "do_sample": False,
            "max_gen_toks": max_tokens,
        },
        "filter_list": [
            {
                "name": "last-answer",
                "filter": [
                    {
                        "function": "regex",
                        "regex_pattern": answer_pattern(kind, delimiter, direct=direct),
                        "group_select": -1,
                    },
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": [
            {
                "metric": "exact_match",
                "aggregation": "mean",
                "higher_is_better": True,
                "ignore_case": True,
                "ignore_punctuation": False,
                "regexes_to_ignore": _NOT_COMPARED.get(kind, []),
            }
        ],
        "metadata": {"version": PATTERN_VERSION, "protocol": protocol},
    }
    # Every JSON value is YAML, and spelt so that YAML 1.1 and 1.2 read the same.
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in settings.items()]
    lines.append(f"custom_dataset: !function {name}_data.load")
    rows = [{"id": i.id, "prompt": prompt(i), "target": i.gold} for i in items]
    files = {
        f"{name}.yaml": "\n".join(lines) + "\n",
        f"{name}.jsonl": _json_lines(rows),
        f"{name}_data.py": _LM_EVAL_DATA.substitute(name=name),
        "README.md": _readme(name, protocol, f"lm-eval run --include_path . --tasks {name} ..."),
    }
    return _write_folder(folder, files)


def export_inspect(
    items: Sequence[Item],
    folder: Path,
    name: str,
    *,
    prompt: Callable[[Item], str],
    stop: Sequence[str] = (),
    max_tokens: int = MAX_TOKENS,
    direct: bool = False,
) -> Path:
    """Write a task for inspect_ai; tried with its version 0.3.285.

    It runs where this package is installed beside inspect_ai, since it calls its extractor.
    Arguments, result and errors are those of `export_lm_eval`, but kinds may be mixed. With
    `direct` the text is read behind "The answer is", so that no answer is guessed at.
    """
    _check(items, name)
    from symdistill.verifiers.extraction import EXTRACTOR_VERSION

    rows = [
        {"id": i.id, "input": prompt(i), "target": i.gold, "metadata": {"item": asdict(i)}}
        for i in items
    ]
    task = _INSPECT_TASK.substitute(
        name=name,
        stop=repr(list(stop) or None),
        max_tokens=repr(max_tokens),
        read='f"The answer is {text.lstrip()}"' if direct else "text",
        protocol=_INSPECT_PROTOCOL[direct],
    )
    protocol = f"{_INSPECT_PROTOCOL[direct]}, extractor version {EXTRACTOR_VERSION} when written"
    files = {
        f"{name}.py": task,
        f"{name}.jsonl": _json_lines(rows),
        "README.md": _readme(name, protocol, f"inspect eval {name}.py --model ..."),
    }
    return _write_folder(folder, files)


_INSPECT_PROTOCOL = {
    False: "generative exact match",
    True: "generative exact match of the answer alone",
}

_LM_EVAL_DATA = Template('''\
"""The questions of the task "$name", from the file beside this one."""

import json
from pathlib import Path

import datasets


def load(**_):
    lines = Path(__file__).with_name("$name.jsonl").read_text(encoding="utf-8").split("\\n")
    rows = [json.loads(line) for line in lines if line]
    return datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)})
''')

_INSPECT_TASK = Template('''\
"""The task "$name": generative exact match; symdistill reads and compares the answers."""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import json_dataset
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import CORRECT, INCORRECT, NOANSWER, Score, accuracy, scorer, stderr
from inspect_ai.solver import generate

from symdistill.answers import choices_of, kind_of
from symdistill.records import Item
from symdistill.verifiers.checking import check
from symdistill.verifiers.extraction import EXTRACTOR_VERSION, extract


@scorer(metrics=[accuracy(), stderr()])
def exact_match():
    async def score(state, target):
        item = Item(**state.metadata["item"])
        text = state.output.completion
        whole = state.output.stop_reason not in ("max_tokens", "model_length")
        found = extract($read, kind_of(item), choices_of(item), complete=whole)
        verdict = check(item, found)
        value = CORRECT if verdict.correct else NOANSWER if found.value is None else INCORRECT
        return Score(value=value, answer=found.value, explanation=verdict.reason or text)

    return score


@task(name="$name")
def questions():
    return Task(
        dataset=json_dataset(str(Path(__file__).with_name("$name.jsonl"))),
        solver=generate(),
        scorer=exact_match(),
        config=GenerateConfig(temperature=0.0, max_tokens=$max_tokens, stop_seqs=$stop),
        version=EXTRACTOR_VERSION,
        metadata={"protocol": f"$protocol, extractor version {EXTRACTOR_VERSION}"},
    )
''')


def _check(items: Sequence[Item], name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise InputError(
            "expected a task name of small letters, digits and _ that Python does not use; got "
            f"{name!r}; choose another"
        )
    if not items:
        raise InputError("expected at least one question; got none; give a test set")
    without = [item for item in items if item.gold is None]
    if without:
        raise InputError(
            f"expected questions with gold answers; got {len(without)} without, the first "
            f"{without[0].text[:60]!r}; leave them out"
        )


def _json_lines(rows: Sequence[Mapping[str, object]]) -> str:
    return "".join(canonical_json(row) + "\n" for row in rows)


def _readme(name: str, protocol: str, command: str) -> str:
    return f"# {name}\n\nProtocol: {protocol}.\n\nRun in this folder: `{command}`\n"


def _write_folder(folder: Path, files: Mapping[str, str]) -> Path:
    """All files or none: written aside, then renamed; a folder with other content is left alone."""
    folder = folder.expanduser()
    try:
        if folder.is_dir() and any(folder.iterdir()):
            if all(_holds(folder / name, text) for name, text in files.items()):
                return folder
            raise InputError(
                f"expected a new folder; got {folder}, which holds something else; name another, "
                "or remove it"
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = folder.with_name(f"{folder.name}.{secrets.token_hex(6)}.aside")
        try:
            aside.mkdir()
            for name, text in files.items():
                (aside / name).write_text(text, encoding="utf-8", newline="\n")
            os.replace(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise RunError(
            f"expected to write {folder}; got: {error.strerror or error}; choose another place"
        ) from error
    return folder


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode("utf-8")
