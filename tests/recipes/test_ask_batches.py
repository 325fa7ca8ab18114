"""`batch` in a configuration: the recipe `ask` through a server's batches, as a user runs it."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.recipes.command_line import answers, metrics, prompts, symdistill, words, write
from tests.teachers.batch_house import BatchHouse, serving

pytestmark = pytest.mark.unit

PRICE = {"input": 10, "output": 100}
SOON: dict[str, Any] = {"model": "openai:m", "price": PRICE, "batch": {"poll": "0.05s"}}
RUN = Path("runs/ask")


@pytest.fixture
def house() -> BatchHouse:
    return BatchHouse()


@pytest.fixture
def url(house: BatchHouse) -> Iterator[str]:
    with serving(house) as url:
        yield url


def billed(count: int) -> float:
    """What the server bills for the answers to so many questions, of two samples each."""
    return 0.5 * count * (5 * 10 + 2 * 3 * 100) / 1e6


def test_a_run_in_batches_is_one_batch_at_its_price(
    tmp_path: Path, house: BatchHouse, url: str
) -> None:
    write(tmp_path, url, teacher=SOON, samples=2)
    done = symdistill(tmp_path, "run", "ask.yaml")
    assert done.code == 0, done.said
    run = tmp_path / RUN
    assert answers(run) == {text: [f"{text} / 0", f"{text} / 1"] for text in prompts(run).values()}
    assert metrics(run)["bill"]["cost_usd"] == pytest.approx(billed(3))
    assert len(house.batches) == 1 and not house.calls["POST /chat one"]
    again = symdistill(tmp_path, "run", "ask.yaml", "--set", "teacher.batch=null")
    assert again.code == 0 and len(house.batches) == 1, again.said


def test_an_empty_group_asks_in_batches_and_the_estimate_says_so(tmp_path: Path, url: str) -> None:
    write(tmp_path, url, teacher={"price": PRICE, "batch": {}})
    said = symdistill(tmp_path, "estimate", "ask.yaml").said
    assert "in batches at 0.5 of the price" in said
    wrong = symdistill(tmp_path, "estimate", "ask.yaml", "--set", "teacher.model=scripted:echo")
    assert wrong.code == 2 and "batch: null" in wrong.said


def test_a_run_that_is_killed_finds_its_batch_and_the_money_for_it(
    tmp_path: Path, house: BatchHouse, url: str
) -> None:
    """The budget holds what one batch may cost, and not what two may."""
    write(tmp_path, url, teacher=SOON, samples=2)
    most = re.search(r"to (\S+) USD", symdistill(tmp_path, "estimate", "ask.yaml").said)
    assert most is not None
    write(tmp_path, url, teacher=SOON, samples=2, budget={"usd": 1.1 * float(most[1])})
    house.looks_needed = 10**9
    run = subprocess.Popen(
        words("run", "ask.yaml"), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 60
        while not house.looks and time.monotonic() < until:
            time.sleep(0.02)
    finally:
        run.kill()
        run.wait()
    house.looks_needed = house.looks["batch-0"] + 1
    done = symdistill(tmp_path, "run", "ask.yaml")
    assert done.code == 0 and "cut off" not in done.said, done.said
    assert len(house.batches) == 1 and set(house.times_asked().values()) == {1}
    bill = json.loads((tmp_path / RUN / "metrics.json").read_text())["bill"]
    assert bill["cost_usd"] == pytest.approx(billed(3)) and bill["lost"] == 0
