"""From a configuration's words to a backend."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from symdistill.config import Config, annotated_yaml, load_config
from symdistill.errors import InputError
from symdistill.ledger import Ledger
from symdistill.teachers import Batching, TeacherSettings, ask_teacher, open_backend
from symdistill.teachers.base import Decoding, Price
from symdistill.teachers.counting import token_counter
from symdistill.teachers.openai import OpenAIBackend
from symdistill.teachers.recorded import RecordedBackend
from symdistill.teachers.scripted import ScriptedBackend
from symdistill.teachers.sending import Asking

pytestmark = pytest.mark.unit


def opened(model: str, seed: int = 0, **settings: Any) -> Any:
    return open_backend(TeacherSettings(model=model, **settings), seed=seed)


class Asks(Config):
    """A recipe with a teacher."""

    recipe: str = "asks"
    teacher: TeacherSettings = TeacherSettings()
    """Who is asked."""


def test_every_setting_is_explained_in_the_file_that_sets_it(tmp_path: Path) -> None:
    written = annotated_yaml(Asks, "asks")
    for kind in (TeacherSettings, *map(type, TeacherSettings().__dict__.values())):
        for name, field in getattr(kind, "model_fields", {}).items():
            about = field.description or type(field.default).__doc__
            assert about and about.split("\n")[0].strip() in written, name
    path = tmp_path / "asks.yaml"
    path.write_text(written)
    assert load_config(path, Asks).teacher == TeacherSettings()


def test_settings_that_decide_nothing_are_known_ones() -> None:
    settings = TeacherSettings()
    assert settings.decides_nothing < TeacherSettings.model_fields.keys()
    identity = json.dumps(settings.identity())
    assert "embedded:smollm2" in identity and "context_tokens" in identity
    assert not any(name in identity for name in ("rpm", "price", "threads", "batch_size"))


def test_batches_are_set_in_a_group_that_may_be_empty(tmp_path: Path) -> None:
    path = tmp_path / "asks.yaml"

    def batch(text: str) -> Batching | None:
        path.write_text(f"recipe: asks\nteacher: {{model: openai:m, batch: {text}}}\n")
        return load_config(path, Asks).teacher.batch

    assert batch("null") is None and batch("{}") == Batching()
    assert batch("{price_share: 0.6, poll: 2m}") == Batching(price_share=0.6, poll=120.0)
    with pytest.raises(InputError, match=r"teacher\.batch.*nearest key is 'poll'"):
        batch("{pol: 3}")
    written = annotated_yaml(Asks, "asks")
    assert "  batch: null" in written and all(name in written for name in Batching.model_fields)
    identity = TeacherSettings(model="openai:m").identity()
    assert TeacherSettings(model="openai:m", batch=Batching()).identity() == identity


def test_how_hard_to_ask_is_passed_on() -> None:
    assert TeacherSettings().asking() == Asking()
    asking = TeacherSettings(rpm=60, tpm=5, max_concurrency=3, outage="2m").asking()  # type: ignore[arg-type]
    assert asking == Asking(rpm=60, tpm=5, max_concurrency=3, outage=120.0)


# -- the kinds ----------------------------------------------------------------------------------


def test_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = opened(
        "openai:org/model:7b",
        base_url="http://127.0.0.1:8000/v1",
        revision="r1",
        price={"input": 1, "output": 2},
        samples_per_request=3,
        server="vllm",
    )
    assert isinstance(backend, OpenAIBackend)
    assert backend.name == "openai:org/model:7b" and backend.model == "org/model:7b"
    assert backend.identity["revision"] == "r1"
    assert backend.price == Price(input=1, output=2)
    assert backend.samples_per_request == 3


def test_openai_s_own_server_asks_for_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(InputError, match="OPENAI_API_KEY"):  # only when it is spoken to
        asyncio.run(opened("openai:gpt-4.1-mini").start())
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-this-test-only-0001")
    backend = opened("openai:gpt-4.1-mini")
    assert backend.identity["base_url"] == "https://api.openai.com/v1"
    assert backend.price is None
    assert "sk-of" not in repr(vars(backend))


def test_a_table(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("question,said\na,b\n")
    backend = opened(f"recorded:{table}", recorded={"prompt": "question", "answer": "said"})
    assert isinstance(backend, RecordedBackend)

    async def ask() -> str:
        await backend.start()
        got = await backend.send("a", 1, Decoding())
        await backend.close()
        return str(got.replies[0].text)

    assert asyncio.run(ask()) == "b"


def test_a_script() -> None:
    backend = opened("scripted:echo", price={"input": 1, "output": 0})
    assert isinstance(backend, ScriptedBackend)
    assert asyncio.run(backend.send("a b", 1, Decoding())).replies[0].text == "a b"
    assert backend.price == Price(input=1, output=0)


@pytest.mark.real
def test_models_of_this_machine(smollm2: Any) -> None:
    pytest.importorskip("xllamacpp")
    for kind in ("local", "llamacpp"):
        one, other = (opened(f"{kind}:embedded:smollm2", seed=seed) for seed in (0, 1))
        assert one.name == f"{kind}:embedded:smollm2"
        assert one.identity != other.identity  # the seed enters
        assert one.price == Price(input=0, output=0)
    slots = {"slots": 3, "context_tokens": 100}
    assert opened("llamacpp:embedded:smollm2", llamacpp=slots).samples_per_request == 3


@pytest.mark.real
def test_counting_with_the_embedded_tokenizer(smollm2: Any) -> None:
    by_name = token_counter("embedded:smollm2")
    assert by_name("Name three colours.") == token_counter(str(smollm2.folder))(
        "Name three colours."
    )
    assert 3 <= by_name("Name three colours.") <= 6
    assert by_name("") == 0


# -- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("opnai:gpt", "did you mean 'openai:gpt'"),
        ("gpt-4.1-mini", "did you mean 'openai:gpt-4.1-mini'"),
        ("zzz:x", "kinds llamacpp, local, openai, recorded, scripted;"),
        ("openai:", "name the model"),
        ("local", "name the model"),
        ("scripted:mine", "ScriptedBackend in Python"),
        ("recorded:nowhere.csv", "No such file"),
        ("local:./nowhere", "no folder here"),
        ("llamacpp:nowhere.gguf", "check the path"),
    ],
)
def test_a_teacher_that_cannot_be_opened(model: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        opened(model)


def test_batches_are_for_servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="batch: null"):
        opened("scripted:echo", batch={})
    entry_point(monkeypatch, lambda: lambda settings, seed: SimpleNamespace())
    with pytest.raises(InputError, match="batch: null"):
        opened("ours:x", batch={})
    settings = TeacherSettings(model="openai:m", batch=Batching())
    with pytest.raises(InputError, match="batch: null"):
        ask_teacher(
            settings,
            [],
            decoding=Decoding(),
            seed=0,
            ledger=Ledger(tmp_path / "ledger.sqlite"),
            backend=opened("scripted:echo"),
        )


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "tokenizer.json"])
def test_no_such_tokenizer(name: str) -> None:
    with pytest.raises(InputError, match="check the path"):
        token_counter(name)


def test_a_file_that_is_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="give another tokenizer"):
        token_counter(str(tmp_path))


def test_unknown_settings_are_errors() -> None:
    with pytest.raises(ValidationError):
        TeacherSettings(modle="scripted:echo")  # type: ignore[call-arg]


# -- teachers of others -------------------------------------------------------------------------


def entry_point(monkeypatch: pytest.MonkeyPatch, load: Any) -> None:
    class Ours(importlib.metadata.EntryPoint):
        def load(self) -> Any:
            return load()

    points = importlib.metadata.EntryPoints(
        [Ours(name="ours", value="ours:open", group="symdistill.teachers")]
    )
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)


def test_another_package_s_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    entry_point(monkeypatch, lambda: lambda settings, seed: SimpleNamespace(s=settings, seed=seed))
    backend = opened("ours:x", seed=7, rpm=5)
    assert (backend.s.model, backend.s.rpm, backend.seed) == ("ours:x", 5, 7)
    with pytest.raises(InputError, match="openai, ours, recorded"):
        opened("theirs:x")


def test_another_package_s_teacher_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Any:
        raise ImportError("no module named ours")

    entry_point(monkeypatch, fail)
    with pytest.raises(InputError, match="no module named ours"):
        opened("ours:x")


def test_naming_a_teacher_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "aiohttp", "xllamacpp", "tokenizers", "duckdb")
    code = (
        "import sys; from symdistill.teachers import TeacherSettings, open_backend\n"
        "TeacherSettings(model='openai:m', batch={})\n"
        "open_backend(TeacherSettings(model='scripted:echo'), seed=0)\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
