"""I2D2 end to end in a world in which truth is decidable: what the run claims is checked."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.recipes.conftest import DrawnWorld

from symdistill.errors import InputError
from symdistill.history import history
from symdistill.recipes import run_recipe
from symdistill.recipes.i2d2 import I2D2Config
from symdistill.records import Item, Knowledge, Verdict, View
from symdistill.tables import read_records

pytestmark = pytest.mark.world


class Ran(NamedTuple):
    """A finished run."""

    folder: Path
    metrics: dict[str, Any]

    def table(self, name: str, kind: Any) -> list[Any]:
        return read_records(self.folder / "tables" / f"{name}.parquet", kind)

    def written(self, round: int) -> list[Knowledge]:
        lines = self.table("knowledge", Knowledge)
        return [x for x in lines if any(one.round == round for one in x.lineage)]


@pytest.fixture(scope="module")
def ran(drawn: DrawnWorld, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("runs") / "world"
    config = I2D2Config.model_validate(drawn.settings())
    return Ran(folder, run_recipe(config, folder))


def true_share(drawn: DrawnWorld, lines: list[Knowledge]) -> float:
    return sum(drawn.world.truth(line.text) is True for line in lines) / len(lines)


def test_the_generator_gets_truer_from_round_to_round(drawn: DrawnWorld, ran: Ran) -> None:
    shares = [true_share(drawn, ran.written(number)) for number in range(3)]
    assert shares[2] > shares[0], shares  # by how much: benchmarks/world.py


def test_what_is_kept_is_truer_than_what_is_written(drawn: DrawnWorld, ran: Ran) -> None:
    kept = {v.knowledge_id for v in ran.table("verdicts", Verdict)
            if v.judge == "selection" and v.score == 1.0}  # fmt: skip
    lines = ran.table("knowledge", Knowledge)
    chosen = [line for line in lines if line.id in kept]
    assert len(chosen) >= 30
    assert true_share(drawn, chosen) > true_share(drawn, ran.written(0)) + 0.05


def test_the_estimated_precision_does_not_promise_too_much(drawn: DrawnWorld, ran: Ran) -> None:
    """Round 0 alone: later rounds move P(valid | score), which the estimate assumes fixed."""
    kept = {v.knowledge_id for v in ran.table("verdicts", Verdict)
            if v.judge == "selection" and v.score == 1.0 and v.round == 0}  # fmt: skip
    lines = [line for line in ran.table("knowledge", Knowledge) if line.id in kept]
    low, _ = ran.metrics["rounds"][0]["precision_interval"]
    assert true_share(drawn, lines) >= low


def test_the_figures_follow_from_the_tables(ran: Ran) -> None:
    verdicts = ran.table("verdicts", Verdict)
    first = ran.metrics["critics"][0]
    for number, figures in enumerate(ran.metrics["rounds"]):
        name = f"critic@{first['version'][:12]}"
        critic = [v.score for v in verdicts if v.round == number and v.judge == name]
        assert figures["round"] == number
        assert figures["written"] == len(critic)
        rate = sum(score >= first["cut"] for score in critic) / len(critic)
        assert figures["accept_rate"] == pytest.approx(rate)
        decided = [v for v in verdicts if v.round == number and v.judge == "selection"]
        assert figures["kept"] == sum(v.score == 1.0 for v in decided)
        assert figures["kept"] + sum(figures["rejected"].values()) == len(decided)
        assert all(v.reason for v in decided if v.score == 0.0)
        assert 0 <= figures["accept_rate_independent"] <= 1
        low, high = figures["accept_rate_interval"]
        assert low <= figures["accept_rate"] <= high
        assert figures["wall_s"] > 0
    models = ran.metrics["models"]
    assert set(models) == {"generator", "critic", "judge"}
    assert all(one["fingerprint"] and one["name"] and one["note"] for one in models.values())
    assert ran.metrics["finished"] is True


def test_no_line_breaks_the_constraints(drawn: DrawnWorld, ran: Ran) -> None:
    from symdistill.constraints import from_json
    from symdistill.ledger import Ledger

    ledger = Ledger(ran.folder / "ledger.sqlite")
    checked = 0
    for line in ran.table("knowledge", Knowledge):
        for occasion in line.lineage:
            call = ledger.call(occasion.request_key)
            assert call is not None, "a line without the call that wrote it"
            rule = from_json(call["request"]["constraint"])
            assert rule.verify(call["response"]["text"], before=call["request"]["prompt"])
            checked += 1
    ledger.close()
    assert checked == sum(figures["sampled"] for figures in ran.metrics["rounds"])


def test_the_folder_is_as_documented(ran: Ran) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    names = {path.name for path in ran.folder.iterdir()}
    assert {"config.yaml", "ledger.sqlite", "tables", "students", "critics", "metrics.json",
            "report.html"} <= names  # fmt: skip
    assert "checkpoints" not in names
    assert {path.name for path in (ran.folder / "students").iterdir()} == {"1", "2"}
    for number in (1, 2):
        folder = ran.folder / "students" / str(number)
        AutoModelForCausalLM.from_pretrained(folder)
        AutoTokenizer.from_pretrained(folder)
    assert not [*ran.folder.rglob("*.bin"), *ran.folder.rglob("*.pt"), *ran.folder.rglob("*.pkl")]
    assert len(ran.table("items", Item)) == 40
    views = ran.table("views", View)
    assert len(views) == sum(figures["kept"] for figures in ran.metrics["rounds"])
    on_disk = json.loads((ran.folder / "metrics.json").read_text())
    assert on_disk["rounds"] == ran.metrics["rounds"]


def test_the_whole_history_of_a_line_can_be_shown(ran: Ran) -> None:
    from rich.console import Console

    view = ran.table("views", View)[0]
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(history(ran.folder, view.knowledge_ids[0]))
    said = console.export_text()
    assert "kept" in said and "written in round" in said and "answered" in said
    assert view.prompt in said


def test_running_again_computes_nothing_and_changes_nothing(drawn: DrawnWorld, ran: Ran) -> None:
    before = {path: path.read_bytes() for path in (ran.folder / "tables").iterdir()}
    stamps = {path: path.stat().st_mtime_ns for path in (ran.folder / "steps").iterdir()}
    run_recipe(I2D2Config.model_validate(drawn.settings()), ran.folder)
    assert {path: path.read_bytes() for path in before} == before
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_other_settings_are_refused_and_named(drawn: DrawnWorld, ran: Ran) -> None:
    changed = I2D2Config.model_validate(drawn.settings(rounds=1))
    with pytest.raises(InputError, match=r"rounds: 2 -> 1.*--continue"):
        run_recipe(changed, ran.folder)


def test_new_labels_refit_the_critic_from_their_round_on(drawn: DrawnWorld, tmp_path: Path) -> None:
    labels = tmp_path / "labels.jsonl"
    rows = (drawn.folder / "labels.jsonl").read_text().splitlines()
    late = [json.dumps(json.loads(row) | {"round": 1}) for row in rows[-200:]]
    labels.write_text("\n".join(rows[:-200] + late))
    settings = drawn.settings(rounds=1, concepts={
        "source": str(drawn.folder / "concepts.jsonl"), "limit": 10})  # fmt: skip
    settings["critic"] |= {"labels": [str(labels)], "target_precision": 0.6}
    metrics = run_recipe(I2D2Config.model_validate(settings), tmp_path / "run")
    first, second = metrics["critics"]
    assert first["version"] != second["version"]
    assert sum(second["labels"].values()) > sum(first["labels"].values())
    verdicts = read_records(tmp_path / "run" / "tables" / "verdicts.parquet", Verdict)
    judges = {v.judge for v in verdicts if v.round == 1 and v.judge.startswith("critic@")}
    assert judges == {f"critic@{one['version'][:12]}" for one in (first, second)}


def test_without_constraints_lines_run_on(drawn: DrawnWorld, ran: Ran, tmp_path: Path) -> None:
    settings = drawn.settings(rounds=0, constraints={"enforce": False})
    run_recipe(I2D2Config.model_validate(settings), tmp_path / "free")
    free = Ran(tmp_path / "free", {}).written(0)
    kept_to = ran.written(0)
    decided = drawn.world.truth
    statements = [sum(decided(x.text) is not None for x in some) / len(some)
                  for some in (free, kept_to)]  # fmt: skip
    assert statements[1] > statements[0], "constraints should leave more lines that state something"


def test_a_round_that_keeps_nothing_says_what_to_do(drawn: DrawnWorld, tmp_path: Path) -> None:
    settings = drawn.settings(rounds=1, selection={"min_words": 40}, concepts={
        "source": str(drawn.folder / "concepts.jsonl"), "limit": 3})  # fmt: skip
    with pytest.raises(InputError, match=r"kept no line.*target_precision"):
        run_recipe(I2D2Config.model_validate(settings), tmp_path / "empty")
