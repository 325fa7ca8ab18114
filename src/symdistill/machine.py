"""What a figure was made on: versions, processor, memory; and what is missing here."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

from symdistill.errors import InputError

NAMED = ("symdistill", "torch", "transformers", "trl", "peft", "accelerate", "numpy", "pyarrow")


def installed_versions() -> dict[str, str | None]:
    """Versions of the packages that decide a figure; None where one is not installed."""
    return {name: _version(name) for name in NAMED}


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory in GB and system of this machine."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gb": round(_memory_bytes() / 2**30, 1),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def usable_cores() -> int:
    """Cores that this process may use: of its affinity, and of its container's share."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    share = Path("/sys/fs/cgroup/cpu.max")
    if share.is_file():
        quota, period = share.read_text().split()[:2]
        if quota != "max":
            cores = min(cores or 1, max(1, round(int(quota) / int(period))))
    return cores or 1


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        if found:
            return found.group(1)
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def prepare_torch(what: str, threads: int | None = None) -> None:
    """Give torch its threads (all usable cores by default), and keep `transformers` quiet.

    Raises:
        InputError: the packages that `what` needs are not installed.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import torch
        from transformers.utils import logging
    except ImportError as error:
        raise InputError(
            f"expected the packages that {what} needs; {error.name} is not installed; run: "
            "pip install 'symdistill[local]'"
        ) from error
    torch.set_num_threads(threads or usable_cores())
    logging.set_verbosity_error()
    logging.disable_progress_bar()
