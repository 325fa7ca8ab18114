"""`symdistill decode`: from prompts and a constraint to texts, records and one sentence of error.

A tiny random GPT-2, made here, stands in for a model.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from tests.decoding.test_neurologic_models import tiny
from typer.testing import CliRunner

from symdistill import cli
from symdistill.commands.decode import decode
from symdistill.constraints import from_json
from symdistill.decoding import Lookahead, constrained_generate
from symdistill.errors import InputError, RunError
from symdistill.models import Model

pytestmark = pytest.mark.unit

DOG = {"contains": "dog"}
CAT = {"contains": "cat"}
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %} so:{% endif %}"
)
Call = Callable[..., Result]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model folders: a GPT-2, one whose tokenizer begins texts and has a chat template, a T5."""
    from tokenizers.processors import TemplateProcessing

    found = {}
    for name, family in (("gpt2", "gpt2"), ("chat", "gpt2"), ("t5", "t5")):
        found[name] = tmp_path_factory.mktemp(name)
        model, tokenizer = tiny(family)
        if name == "chat":
            tokenizer.chat_template, tokenizer.bos_token = TEMPLATE, "<end>"
            tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
                single="<end> $A", special_tokens=[("<end>", 0)]
            )
        model.save_pretrained(found[name])
        tokenizer.save_pretrained(found[name])
    return found


@pytest.fixture
def call(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs the command in this process, in `tmp_path`; gives its end, or raises what went wrong."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("symdistill.commands.decode._prepare_torch", lambda: None)
    app = typer.Typer()
    app.command()(decode)

    def run(*arguments: Any, model: str = "gpt2", rule: Any = DOG) -> Result:
        words = ["--model", str(folders.get(model, model)), *map(str, arguments)]
        if rule is not None:
            Path("rule.json").write_text(json.dumps(rule))
            words += ["--constraints", "rule.json"]
        if "--max-new-tokens" not in words:
            words += ["--max-new-tokens", "8"]
        done = CliRunner().invoke(app, words)
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done

    return run


def records(path: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


# -- what it writes -------------------------------------------------------------------------------


def test_texts_on_stdout_records_in_the_file_the_rest_on_stderr(call: Call) -> None:
    done = call("--prompt", "a dog", "--prompt", "it's", "--return", 3, "--out", "out.jsonl")
    lines = done.stdout.splitlines()
    assert lines[0] == "a dog" and lines[4] == "it's"
    assert all(line.split()[0] == "met" for line in (*lines[1:4], *lines[5:8]))
    assert "6 of 6 texts meet their constraint." in done.stderr
    assert "Wrote out.jsonl." in done.stderr
    found = records()
    assert [(one["number"], one["rank"]) for one in found] == [
        (number, rank) for number in (1, 2) for rank in (1, 2, 3)
    ]
    for one in found:
        (clause,) = one["clauses"]
        start, end, phrase = clause["matches"][0]
        assert one["text"][start:end].lower() == phrase == "dog"
        assert clause["satisfied"] and len(clause["token_spans"]) == len(clause["matches"])
        assert one["prompt"] in ("a dog", "it's") and one["satisfied"]
    assert not [path for path in Path().iterdir() if "aside" in path.name]


def test_it_finds_what_the_function_finds(call: Call) -> None:
    call("--prompt", "a dog", "--num-beams", 4, "--end-text", "s", "--out", "out.jsonl",
         "--lookahead", "greedy", "--lookahead-length", 2, "--lookahead-weight", 0.5)  # fmt: skip
    model, tokenizer = tiny("gpt2")
    ((same,),) = constrained_generate(
        model, tokenizer, ["a dog"], from_json(DOG), num_beams=4, max_new_tokens=8,
        end_texts=["s"], lookahead=Lookahead("greedy", 2, 0.5),
    )  # fmt: skip
    (one,) = records()
    assert (one["text"], tuple(one["token_ids"])) == (same.text, same.token_ids)
    assert one["score"] == pytest.approx(same.score, abs=1e-5)


def test_defaults_are_those_of_the_function() -> None:
    ours = inspect.signature(decode).parameters
    for name, one in inspect.signature(constrained_generate).parameters.items():
        mine = ours.get({"num_return_sequences": "return_"}.get(name, name))
        if mine is not None and name not in ("model", "prompts", "constraints"):
            assert mine.default == one.default, name


def test_an_unmet_text_is_marked_and_no_failure(call: Call) -> None:
    phrase = "the child throws it in the park and a cat sleeps"
    done = call("--prompt", "a", "--max-new-tokens", 4, rule={"contains": phrase})
    assert "not met" in done.stdout and f"unmet: contains('{phrase}')" in done.stdout
    assert "cut at 4 tokens" in done.stdout
    assert "0 of 1 texts meet" in done.stderr


def test_a_table_gives_each_prompt_its_own_constraint(call: Call) -> None:
    rows = [{"text": "a", "constraint": CAT}, {"text": "the", "constraint": None}, {"text": "in"}]
    Path("p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    call("--prompts", "p.jsonl", "--out", "out.jsonl", "--batch-size", 2)
    assert [[clause["clause"] for clause in one["clauses"]] for one in records()] == [
        ["contains('dog')", "contains('cat')"], ["contains('dog')"], ["contains('dog')"],
    ]  # fmt: skip
    Path("p.csv").write_text('q,constraint\na,"{""contains"": ""cat""}"\nthe,\n')
    call("--prompts", "p.csv", "--text", "q", "--out", "out.jsonl", rule=None)
    assert [len(one["clauses"]) for one in records()] == [1, 0]
    Path("p.txt").write_text("a dog\n\nthe\n")
    call("--prompts", "p.txt", "--out", "out.jsonl")
    assert [one["prompt"] for one in records()] == ["a dog", "the"]


def test_chat_renders_the_prompt_and_begins_it_once(call: Call) -> None:
    call("--prompt", "a dog", "--chat", "--out", "out.jsonl", model="chat")
    call("--prompt", "<end>a dog so:", "--out", "plain.jsonl")
    assert records()[0]["token_ids"] == records("plain.jsonl")[0]["token_ids"]
    assert records()[0]["prompt"] == "a dog"


def test_an_encoder_decoder_in_bfloat16(call: Call) -> None:
    done = call("--prompt", "a dog", "--dtype", "bfloat16", model="t5")
    assert "1 of 1 texts meet" in done.stderr


def test_what_a_model_writes_cannot_drive_the_terminal(call: Call) -> None:
    done = call("--prompt", "a \x1b[31mdog", "--return", 8, "--max-new-tokens", 12)
    assert "\x1b" not in done.stdout and "a ␛[31mdog" in done.stdout


def test_a_tautology_is_noted(call: Call) -> None:
    done = call("--prompt", "a", rule={"either": [DOG, {"excludes": "hot dog"}]})
    assert "Note, for --prompt 1" in done.stderr and "holds of every text" in done.stderr


def test_a_contradiction_is_refused_or_flagged(call: Call) -> None:
    rule = {"all_of": [DOG, {"excludes": "dog"}]}
    with pytest.raises(InputError, match=r"contains\('dog'\) and excludes\('dog'\)"):
        call("--prompt", "a", rule=rule)
    done = call("--prompt", "a", "--on-contradiction", "flag", rule=rule)
    assert "cannot both hold" in done.stderr and "not met" in done.stdout


def test_what_is_done_is_shown_when_the_rest_fails(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from symdistill import decoding

    def fails(model: Any, tokenizer: Any, prompts: list[str], *more: Any, **named: Any) -> Any:
        if prompts == ["the"]:
            raise RunError("NaN")
        return constrained_generate(model, tokenizer, prompts, *more, **named)

    monkeypatch.setattr(decoding, "constrained_generate", fails)
    shown: list[str] = []
    printed = "symdistill.commands.decode.out.print"
    monkeypatch.setattr(printed, lambda line, **_: shown.append(line))
    with pytest.raises(RunError):
        call("--prompt", "a", "--prompt", "the", "--batch-size", 1, "--out", "out.jsonl")
    assert shown[0] == "a" and len(shown) == 2 and not Path("out.jsonl").exists()


# -- bad input: one sentence each -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "rule", "said"),
    [
        ((), DOG, "expected --prompt TEXT or --prompts FILE; got none"),
        (("--prompt", "a", "--prompts", "p.txt"), DOG, "got both"),
        (("--prompt", "a"), None, "expected a constraint; got none"),
        (("--prompt", " "), DOG, "expected a prompt as --prompt 1; got an empty one"),
        (("--prompt", "a"), {"contians": "dog"}, "rule.json: expected a constraint with one of"),
        (("--prompt", "a"), {"contains": ""}, "rule.json: expected a phrase"),
        (("--prompt", "a"), {"contains": {"tokens": [9999]}}, "below 300"),
        (("--prompt", "a"), {"contains": {"tokens": [0]}}, "no end token inside a phrase"),
        (("--prompt", "a", "--constraints", "no.json"), None, "constraint file at no.json"),
        (("--prompts", "no.csv"), DOG, "expected a readable .csv file"),
        (("--prompts", "other.jsonl"), DOG, "column 'text' of row 1 of other.jsonl"),
        (("--prompts", "broken.jsonl"), DOG, "row 1 of broken.jsonl is not JSON"),
        (("--prompts", "half.jsonl"), DOG, "expected readable characters in row 1"),
        (("--prompts", "rule.csv"), None, "constraint as JSON in row 1 after the header"),
        (("--prompts", "key.csv"), None, "row 1 after the header of key.csv: expected a constr"),
        (("--prompts", "empty.txt"), DOG, "at least one prompt in empty.txt"),
        (("--prompts", "p.txt"), None, "or p.txt a column constraint"),
        (("--prompt", "a", "--out", "x.csv"), DOG, "expected a .jsonl file"),
        (("--prompts", "p.jsonl", "--out", "p.jsonl"), DOG, "another file to write"),
        (("--prompt", "a", "--return", 9), DOG, "at most --num-beams"),
        (("--prompt", "a", "--dtype", "int8"), DOG, "float32 or bfloat16"),
        (("--prompt", "a", "--device", "banana"), DOG, "expected a device"),
        (("--prompt", "a", "--end", "maybe"), DOG, 'expected end "strict" or "soft"'),
        (("--prompt", "a", "--lookahead", "far"), DOG, "greedy, soft, sample or beam"),
        (("--prompt", "a", "--lookahead-weight", 1), DOG, "add --lookahead greedy"),
        (("--prompt", "a", "--max-new-tokens", 500), DOG, "at most 64 tokens"),
        (("--prompt", "a", "--chat"), DOG, "chat template"),
    ],
)
def test_bad_input_is_one_sentence(
    call: Call, words: tuple[Any, ...], rule: Any, said: str
) -> None:
    for name, text in {
        "p.txt": "a\n", "empty.txt": "\n", "p.jsonl": '{"text": "a"}\n',
        "other.jsonl": '{"q": "a"}\n', "broken.jsonl": "{\n", "half.jsonl": '{"text":"\\ud800"}\n',
        "rule.csv": "text,constraint\na,{oops\n", "key.csv": 'text,constraint\na,"{""x"": 1}"\n',
    }.items():  # fmt: skip
        Path(name).write_text(text)
    with pytest.raises(InputError) as error:
        call(*words, rule=rule)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert not Path("out.jsonl").exists() and Path("p.jsonl").read_text() == '{"text": "a"}\n'


@pytest.mark.parametrize("model", ["./nowhere", "embedded:gpt9", "folder"])
def test_a_model_that_is_none(call: Call, model: str) -> None:
    Path("folder").mkdir()
    with pytest.raises(InputError, match="expected"):
        call("--prompt", "a", model="./folder" if model == "folder" else model)


def test_it_is_a_command() -> None:
    done = CliRunner().invoke(cli.app, ["decode", "--help"])
    assert done.exit_code == 0 and "--lookahead" in done.output


# -- the embedded model ---------------------------------------------------------------------------


@pytest.mark.real
def test_the_embedded_model(call: Call, smollm2: Model) -> None:
    rule = {"all_of": [{"contains": {"any_of": ["dog", "dogs"]}}, {"contains": "frisbee"},
                       {"excludes": "park"}]}  # fmt: skip
    done = call("--prompt", "Write one sentence.", "--chat", "--max-new-tokens", 12,
                "--num-beams", 4, "--end-text", ".", rule=rule, model=smollm2.name)  # fmt: skip
    assert "1 of 1 texts meet their constraint." in done.stderr
    assert "frisbee" in done.stdout and "park" not in done.stdout
