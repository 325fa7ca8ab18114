"""Writing a benchmark's result: one JSON file with where it comes from, one JSON line to print."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from symdistill.machine import describe_machine, installed_versions

FOLDER = Path(__file__).parent / "results"


def finish(name: str, headline: dict[str, Any], rows: Any) -> None:
    """Write benchmarks/results/NAME.json and print the headline as the last line."""
    FOLDER.mkdir(exist_ok=True)
    whole = {
        **headline,
        "rows": rows,
        "commit": commit(),
        "changed_files": len(_git("status", "--porcelain").splitlines()),
        "versions": installed_versions(),
        "machine": describe_machine(),
        "date": time.strftime("%Y-%m-%d"),
    }
    text = json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
    (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")
    print(json.dumps(headline), flush=True)


def commit() -> str:
    """The commit that is checked out."""
    return _git("rev-parse", "HEAD")


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    return done.stdout.strip()
