"""A key is read from where it is named, and seen nowhere else."""

from __future__ import annotations

import base64
import copy
import json
import pickle
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symdistill.errors import InputError
from symdistill.teachers.secrets import Key

pytestmark = pytest.mark.unit

SECRET = "sk-proj/aB3+dE6_gH9-jK2=mN5"


@pytest.fixture
def key(tmp_path: Path) -> Key:
    (tmp_path / "key").write_text(f"  {SECRET}\n")
    return Key(f"file:{tmp_path / 'key'}")


def test_a_key_is_read_from_the_environment_or_a_file(
    monkeypatch: pytest.MonkeyPatch, key: Key
) -> None:
    monkeypatch.setenv("TEACHER_KEY", f"{SECRET}\n")
    shown = {"Authorization": f"Bearer {SECRET}"}
    assert Key("env:TEACHER_KEY").headers() == shown
    assert key.headers() == shown


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("env:NO_SUCH_KEY_HERE", "NO_SUCH_KEY_HERE; it is not set"),
        ("env:EMPTY_KEY", "not set or empty"),
        ("env:TWO_LINES", "more than one line"),
        ("file:/no/such/file", "No such file"),
        ("file:.", "directory"),
        ("file:", "not shown"),
        ("file:a\0b", "it is no text"),
    ],
)
def test_a_missing_key_says_what_to_do(
    source: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTY_KEY", "  ")
    monkeypatch.setenv("TWO_LINES", f"{SECRET}\n{SECRET}")
    with pytest.raises(InputError, match=says):
        Key(source)


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", f"{SECRET} {SECRET}".encode()])
def test_a_file_that_holds_no_key_is_refused(body: bytes, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(body)
    with pytest.raises(InputError) as caught:
        Key(f"file:{tmp_path / 'key'}")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("source", [SECRET, f"env:{SECRET}", "env:abc123def456", f"key:{SECRET}"])
def test_a_key_written_into_the_configuration_is_not_echoed(source: str) -> None:
    with pytest.raises(InputError) as caught:
        Key(source)
    assert source.removeprefix("env:") not in str(caught.value)


def test_a_key_shows_only_where_it_is_from(key: Key) -> None:
    shown = [repr(key), str(key), f"{key}", f"{key!r:>200}", repr({"key": key})]
    shown += [pickle.dumps(key).decode("latin-1"), repr(copy.deepcopy(key))]
    assert all(SECRET not in one and "aB3" not in one for one in shown)
    assert pickle.loads(pickle.dumps(key)).headers() == key.headers()


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        SECRET.upper(),
        quote(SECRET, safe=""),
        quote(SECRET),
        json.dumps(SECRET),
        json.dumps(SECRET).replace("/", "\\/"),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
        "sk-proj**********************=mN5",
        "sk-p...=mN5",
        "sk-p…",
        "****=mN5",
    ],
)
def test_a_key_is_taken_out_however_it_is_written(written: str, key: Key) -> None:
    said = key.redact(f"Incorrect API key provided: {written}. You can find your key at ...")
    assert written not in said and "=mN5" not in said and "sk-" not in said
    assert said.startswith("Incorrect API key provided: ")
    assert "[key]" in said and "You can find your key" in said


def test_other_texts_are_left_alone(key: Key) -> None:
    text = "The model `sk` is *bold*... see https://example.com/sk-learn"
    assert key.redact(text) == text


def test_a_body_is_scrubbed_of_a_long_key_only(key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    assert key.scrub(f'{{"text": "{SECRET}"}}'.encode()) == b'{"text": "[key]"}'
    monkeypatch.setenv("SHORT", "none")
    short = Key("env:SHORT")
    assert short.scrub(b"there are none") == b"there are none"
    assert "none" not in short.redact("refused: none")


@given(
    secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60),
    before=st.text(),
    after=st.text(),
)
def test_no_key_survives(secret: str, before: str, after: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANY_KEY", secret)
        key = Key("env:ANY_KEY")
    for written in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1]):
        said = key.redact(before + written + after)
        left = said.replace("[key]", "\0")
        assert secret not in left
