"""Which checkpoint of a training is sound.

A checkpoint is a folder `checkpoint-STEP`. It is written aside, its files are listed with size
and SHA-256 in `manifest.json`, and only then it gets its name. So a checkpoint that has a name
was whole when it was written; the list tells whether it still is (a full disk, a copy that was
cut off). The list also names the training, so that no other training goes on from it.

What it does not do: know what is in the files. They are safetensors, JSON, and three small
`torch.save` files (optimizer, schedule, random state) that the trainer opens with
`weights_only=True`, after the hashes have shown that they are the ones we wrote.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

from symdistill.models import sha256_of

PREFIX = "checkpoint-"
MANIFEST = "manifest.json"
ASIDE = "aside"  # what is being written; never resumed from
KEPT = 2

logger = logging.getLogger(__name__)


def step_of(checkpoint: Path) -> int:
    """The optimizer step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix(PREFIX))


def named(folder: Path) -> list[Path]:
    """The checkpoints of a folder, newest first."""
    found = [p for p in folder.glob(f"{PREFIX}*") if p.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=step_of, reverse=True)


def publish(written: Path, folder: Path, training: str) -> Path:
    """List a checkpoint's files, give it its name, and drop all but the newest `KEPT`.

    Args:
        written: the finished checkpoint, on the same file system as `folder`.
        folder: where checkpoints live.
        training: the fingerprint of the training that it belongs to.
    """
    files = {
        str(path.relative_to(written)): {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(written.rglob("*"))
        if path.is_file()
    }
    manifest = {"training": training, "files": files}
    (written / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    place = folder / written.name
    shutil.rmtree(place, ignore_errors=True)
    os.replace(written, place)
    for old in named(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def newest_sound(folder: Path, training: str) -> Path | None:
    """The newest sound checkpoint of this training, or None. What is not sound is deleted.

    What a kill left half written is deleted too. Each deletion is a warning in the log.
    """
    left_over = folder / ASIDE
    if left_over.exists():
        logger.warning("a checkpoint was cut off while it was written; it is deleted")
        shutil.rmtree(left_over)
    for checkpoint in named(folder):
        fault = fault_of(checkpoint, training)
        if fault is None:
            return checkpoint
        logger.warning(
            "%s is not sound (%s); it is deleted, the one before is used", checkpoint.name, fault
        )
        shutil.rmtree(checkpoint)
    return None


def fault_of(checkpoint: Path, training: str) -> str | None:
    """Why training cannot go on from a checkpoint; None if it can."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        files = dict(manifest["files"])
        if manifest["training"] != training:
            return "it belongs to a training with other rows, settings or weights"
        for name, wanted in files.items():
            path = checkpoint / name
            size = path.stat().st_size
            if size != wanted["bytes"]:
                return f"{name} has {size} bytes, not {wanted['bytes']}"
            if sha256_of(path) != wanted["sha256"]:
                return f"{name} has other content than was written"
    except OSError as error:
        return f"{Path(error.filename or '').name} cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError):
        return f"{MANIFEST} does not parse"
    return None
