"""kill -9 at any moment, then the same command: the same tables, byte for byte."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.recipes.conftest import DrawnWorld

pytestmark = pytest.mark.world

KILLS = 4  # at random moments, beside the one in the middle of writing a checkpoint


def start(config: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "symdistill", "run", str(config), "--out", str(out)]
    return subprocess.Popen([*command, "--threads", "1"], stdout=subprocess.DEVNULL)


def kill_in_the_middle_of_a_checkpoint(process: subprocess.Popen[bytes], out: Path) -> bool:
    """Kill when a checkpoint is being written; False if the run ended before."""
    while process.poll() is None:
        # the library writes its files one by one into this folder; renaming comes last
        if any(out.glob("checkpoints/*/aside/*/*")):
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.002)
    return False


def test_killed_anywhere_the_tables_end_up_the_same(drawn: DrawnWorld, tmp_path: Path) -> None:
    settings = drawn.settings(concepts={
        "source": str(drawn.folder / "concepts.jsonl"), "limit": 14})  # fmt: skip
    settings["critic"]["training"]["epochs"] = 2
    settings["student"] |= {"method": "lora", "learning_rate": 3e-3, "save_every_steps": 2}
    config = tmp_path / "world.yaml"
    config.write_text(json.dumps(settings))

    whole = tmp_path / "whole"
    begun = time.perf_counter()
    assert start(config, whole).wait() == 0
    took_s = time.perf_counter() - begun

    killed = tmp_path / "killed"
    in_checkpoint = kill_in_the_middle_of_a_checkpoint(start(config, killed), killed)
    assert in_checkpoint, "no checkpoint was seen while it was written"
    draw = random.Random(7)
    for _ in range(KILLS):
        process = start(config, killed)
        try:
            process.wait(timeout=draw.uniform(0.2, 0.9) * took_s)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    assert start(config, killed).wait() == 0

    for table in sorted((whole / "tables").iterdir()):
        assert (killed / "tables" / table.name).read_bytes() == table.read_bytes(), table.name
    weights = "students/2/model.safetensors"
    assert (killed / weights).read_bytes() == (whole / weights).read_bytes()
    left = [path.name for path in killed.rglob("*") if "aside" in path.name]
    assert not left, f"unfinished files were left: {left}"
