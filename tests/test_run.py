"""The run folder: what is done stays done, and nothing is ever there by half."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from symdistill.config import Config, Count, Settings
from symdistill.errors import InputError, RunError
from symdistill.records import Item
from symdistill.run import Run
from symdistill.tables import read_records

pytestmark = pytest.mark.unit


class OvenSettings(Settings):
    """The oven."""

    degrees: float = 180.0


class BakeConfig(Config):
    """How to bake."""

    recipe: str = "bake"
    flour_g: Count = 500
    oven: OvenSettings = OvenSettings()
    grill: OvenSettings | None = None


class Made:
    """Counts how often it was asked to make something."""

    def __init__(self, *texts: str) -> None:
        self.items = [Item.make("concept", text) for text in texts or ("dog",)]
        self.times = 0

    def table(self) -> list[Item]:
        self.times += 1
        return self.items

    def values(self) -> Mapping[str, Any]:
        self.times += 1
        return {"texts": [item.text for item in self.items], "third": 1 / 3}

    def folder(self, aside: Path) -> Mapping[str, Any]:
        self.times += 1
        (aside / "weights").write_text(" ".join(item.text for item in self.items))
        return {"steps": len(self.items)}


@contextmanager
def opened(folder: Path, **settings: Any) -> Iterator[Run]:
    with Run.open(folder, BakeConfig(name="x", **settings)) as run:
        yield run


def do(run: Run, kind: str, made: Made, **rest: Any) -> Any:
    """One step of a kind: a table, values, or a folder."""
    if kind == "table":
        return run.table("step", Item, made.table, stage="s", **rest)
    if kind == "values":
        return run.values("step", made.values, stage="s", **rest)
    return run.folder_step("step", made.folder, stage="s", **rest)


each_kind = pytest.mark.parametrize("kind", ["table", "values", "folder"])


# -- a step runs once ---------------------------------------------------------------------------


@each_kind
def test_a_step_runs_once_and_is_taken_from_disk_after_that(tmp_path: Path, kind: str) -> None:
    made, results = Made("dog", "cat"), []
    for _ in range(2):
        with opened(tmp_path / "r") as run:
            results += [do(run, kind, made, seed=1), do(run, kind, made, seed=1)]
    assert made.times == 1
    assert all(one == results[0] for one in results)


@each_kind
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"seed": 1}, {"seed": 2}),
        ({"version": 1}, {"version": 2}),
        ({"seed": 1}, {"sead": 1}),
        ({"oven": OvenSettings(degrees=1)}, {"oven": OvenSettings(degrees=2)}),
        ({"many": [OvenSettings(degrees=1)]}, {"many": [OvenSettings(degrees=2)]}),
        ({"floor": None}, {"floor": 0.0}),
    ],
)
def test_a_step_runs_again_when_what_it_reads_changed(
    tmp_path: Path, kind: str, before: dict[str, Any], after: dict[str, Any]
) -> None:
    old, new = Made("dog"), Made("dog", "cat")
    with opened(tmp_path / "r") as run:
        do(run, kind, old, **before)
        result = do(run, kind, new, **after)
        assert (old.times, new.times) == (1, 1)
        assert do(run, kind, new, **after) == result
    assert new.times == 1


@each_kind
@pytest.mark.parametrize("listed", [False, True])
def test_a_step_runs_again_when_the_content_of_an_input_changed(
    tmp_path: Path, kind: str, listed: bool
) -> None:
    second = Made()
    with opened(tmp_path / "r") as run:
        for texts in (("dog",), ("dog",), ("cat",)):
            # made anew each time; the step after it minds what came out, not how often
            first = run.table("first", Item, Made(*texts).table, stage="s", texts=texts)
            do(run, kind, second, given=[first] if listed else first)
    assert second.times == 2


@each_kind
def test_a_step_does_not_run_again_when_an_input_was_remade_the_same(
    tmp_path: Path, kind: str
) -> None:
    second = Made()
    with opened(tmp_path / "r") as run:
        for version in (1, 2):
            first = run.table("first", Item, Made("dog").table, stage="s", version=version)
            if version == 1:
                earlier = first
            do(run, kind, second, given=first)
    assert first.records == earlier.records
    assert second.times == 1


def test_neither_the_name_nor_the_place_of_a_run_changes_its_tables(tmp_path: Path) -> None:
    bytes_: list[bytes] = []
    marks: list[str] = []
    for place, name in (("one", "a"), ("two/deeper", "b")):
        with Run.open(tmp_path / place, BakeConfig(name=name)) as run:
            run.table("step", Item, Made("dog").table, stage="s", oven=run.config.oven)  # type: ignore[attr-defined]
            marks.append(run.folder_step("step", Made().folder, stage="s").hash)
        bytes_.append((tmp_path / place / "steps" / "0-step.parquet").read_bytes())
    assert bytes_[0] == bytes_[1]
    assert marks[0] == marks[1]


def test_rounds_are_kept_apart(tmp_path: Path) -> None:
    with opened(tmp_path / "r") as run:
        for number, text in enumerate(["dog", "cat"]):
            run.table("step", Item, Made(text).table, stage="s", round=number)
        again = run.table("step", Item, Made("bug").table, stage="s", round=0)
    assert [item.text for item in again.records] == ["dog"]


def test_values_are_what_a_later_run_reads(tmp_path: Path) -> None:
    with opened(tmp_path / "r") as run:
        first = run.values("step", lambda: {"pair": (1, 2), "x": 0.1 + 0.2}, stage="s")
        later = run.values("step", dict, stage="s")
    assert first == later
    assert first["pair"] == [1, 2] and first["x"] == 0.1 + 0.2


def test_values_that_are_not_numbers_are_not_kept(tmp_path: Path) -> None:
    with opened(tmp_path / "r") as run:
        with pytest.raises(ValueError, match="not JSON compliant"):
            run.values("step", lambda: {"loss": float("nan")}, stage="s")
        assert run.values("step", lambda: {"loss": None}, stage="s")["loss"] is None


@each_kind
@pytest.mark.parametrize("damage", [b"", b"{", b"PAR1", b"[1, 2]", b"\xff\xfe\x00"])
def test_a_damaged_step_is_made_again(tmp_path: Path, kind: str, damage: bytes) -> None:
    made = Made("dog")
    with opened(tmp_path / "r") as run:
        first = do(run, kind, made, seed=1)
        (file,) = {
            "table": list((tmp_path / "r" / "steps").glob("*.parquet")),
            "values": list((tmp_path / "r" / "steps").glob("*.json")),
            "folder": [tmp_path / "r" / "step" / "0" / "step.json"],
        }[kind]
        file.write_bytes(damage)
        assert do(run, kind, made, seed=1) == first
    assert made.times == 2


def test_a_table_cut_short_is_made_again(tmp_path: Path) -> None:
    made = Made(*map(str, range(100)))
    with opened(tmp_path / "r") as run:
        first = do(run, "table", made)
        path = tmp_path / "r" / "steps" / "0-step.parquet"
        path.write_bytes(path.read_bytes()[:-100])
        assert do(run, "table", made) == first
    assert made.times == 2


def test_a_folder_that_is_made_again_keeps_nothing_of_the_old_one(tmp_path: Path) -> None:
    with opened(tmp_path / "r") as run:
        do(run, "folder", Made(), seed=1)
        (tmp_path / "r" / "step" / "0" / "left over").touch()
        stored = do(run, "folder", Made("cat"), seed=2)
    assert sorted(path.name for path in stored.folder.iterdir()) == ["step.json", "weights"]
    assert (stored.folder / "weights").read_text() == "cat"
    assert stored.notes == {"steps": 1}


@each_kind
def test_a_step_that_fails_leaves_nothing_and_can_be_tried_again(tmp_path: Path, kind: str) -> None:
    class Fails(Made):
        def table(self) -> list[Item]:
            raise RuntimeError("no flour")

        def values(self) -> Mapping[str, Any]:
            raise RuntimeError("no flour")

        def folder(self, aside: Path) -> Mapping[str, Any]:
            (aside / "half").touch()
            raise RuntimeError("no flour")

    with pytest.raises(RuntimeError, match="no flour"), opened(tmp_path / "r") as run:
        do(run, kind, Fails())
    assert not list((tmp_path / "r").glob("steps/*")) and not (tmp_path / "r/step/0").exists()
    made = Made()
    with opened(tmp_path / "r") as run:
        do(run, kind, made)
        assert not (tmp_path / "r/step/0.aside").exists()
        assert not (tmp_path / "r/step/0/half").exists()
    assert made.times == 1


# -- whose folder it is -------------------------------------------------------------------------


def test_other_settings_are_refused_by_name_and_taken_when_accepted(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    with opened(folder) as run:
        run.values("bread", lambda: {"loaves": 1}, stage="bake")
    kept = (folder / "config.yaml").read_bytes()
    changed = BakeConfig(flour_g=400, oven=OvenSettings(degrees=200), grill=OvenSettings())
    with pytest.raises(InputError) as caught, Run.open(folder, changed):
        pass
    said = str(caught.value)
    for told in (
        "flour_g: 500 -> 400",
        "oven.degrees: 180.0 -> 200.0",
        "grill: None ->",
        "--continue",
        "--name",
    ):
        assert told in said
    assert (folder / "config.yaml").read_bytes() == kept
    with Run.open(folder, changed, accept_changes=True):
        pass
    with Run.open(folder, changed):  # these are its settings now
        pass


def test_settings_may_be_mended_until_something_was_made_by_them(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    with pytest.raises(ZeroDivisionError), Run.open(folder, BakeConfig(flour_g=1)):
        raise ZeroDivisionError  # say, a model's name that is wrong
    with Run.open(folder, BakeConfig(flour_g=400)) as run:
        run.values("bread", lambda: {"loaves": 1}, stage="bake")
    assert "flour_g: 400" in (folder / "config.yaml").read_text()


def test_changes_that_fail_leave_the_settings_of_what_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    with opened(folder) as run:
        run.values("bread", lambda: {"loaves": 1}, stage="bake")
    kept = (folder / "config.yaml").read_bytes()
    changed = BakeConfig(flour_g=400)
    with pytest.raises(ZeroDivisionError), Run.open(folder, changed, accept_changes=True):
        raise ZeroDivisionError
    assert (folder / "config.yaml").read_bytes() == kept


def test_another_name_is_no_change(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with Run.open(tmp_path / "r", BakeConfig(name=name)):
            pass


def test_a_folder_of_something_else_is_refused_and_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("all my work")
    with pytest.raises(InputError, match="other files"), opened(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert (tmp_path / "thesis.tex").read_text() == "all my work"


def test_a_file_in_the_folder_s_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("")
    with pytest.raises(InputError, match="--out"), opened(tmp_path / "r"):
        pass
    with pytest.raises(InputError, match="--out"), opened(tmp_path / "r" / "below"):
        pass


def test_an_opening_that_was_cut_off_does_not_shut_the_folder(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / "config.yaml.aside").write_text("reci")
    with opened(tmp_path) as run:
        assert run.config.recipe == "bake"


def test_a_damaged_configuration_is_told(tmp_path: Path) -> None:
    with opened(tmp_path / "r") as run:
        run.values("bread", lambda: {"loaves": 1}, stage="bake")
    (tmp_path / "r" / "config.yaml").write_bytes(b"\x00\xff")
    with pytest.raises(InputError, match=r"config\.yaml"), opened(tmp_path / "r"):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir(mode=0o500)
    with pytest.raises(RunError, match="writable"), opened(tmp_path / "r"):
        pass


CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {here!r})
from symdistill.run import Run
from symdistill.records import Item
from symdistill.config import Config
with Run.open(Path({folder!r}), Config(recipe="bake")) as run:
    def table():
        print("making", flush=True)
        time.sleep(60)
    def folder(aside):
        (aside / "half").write_text("x" * 100)
        table()
    if {kind!r} == "folder":
        run.folder_step("step", folder, stage="s")
    elif {kind!r} == "values":
        run.values("step", table, stage="s")
    else:
        run.table("step", Item, table, stage="s")
"""


@contextmanager
def at_work(folder: Path, kind: str = "table") -> Iterator[subprocess.Popen[str]]:
    """Another process in the middle of a step of the run."""
    program = CHILD.format(here=str(Path(__file__).parent), folder=str(folder), kind=kind)
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "making\n"
        yield child
    finally:
        child.kill()
        child.wait()


def test_two_processes_do_not_work_in_one_folder(tmp_path: Path) -> None:
    config = Config(recipe="bake")
    with at_work(tmp_path / "r") as child:
        with pytest.raises(RunError, match="another process"), Run.open(tmp_path / "r", config):
            pass
        assert child.poll() is None
    with Run.open(tmp_path / "r", config):  # it has ended: the folder is free
        pass


@each_kind
def test_kill_9_in_the_middle_of_a_step_leaves_no_half_result(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "r"
    with at_work(folder, kind) as child:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert not list(folder.glob("steps/*")) and not (folder / "step" / "0").exists()
    made = Made()
    with Run.open(folder, Config(recipe="bake")) as run:
        do(run, kind, made)
    assert made.times == 1
    if kind == "folder":
        assert sorted(path.name for path in (folder / "step").iterdir()) == ["0"]
        assert not (folder / "step" / "0" / "half").exists()


# -- a full disk --------------------------------------------------------------------------------


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Fills the disk: nothing can be put in its place any more."""

    def refuse(source: Any, target: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    return lambda: monkeypatch.setattr(os, "replace", refuse)


@pytest.mark.parametrize("kind", ["table", "values"])
def test_on_a_full_disk_the_old_result_survives(
    tmp_path: Path, kind: str, full: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Made("dog")
    with opened(tmp_path / "r") as run:
        first = do(run, kind, old, seed=1)
        full()
        with pytest.raises(OSError, match="No space left"):
            do(run, kind, Made("cat"), seed=2)
        monkeypatch.undo()
        assert do(run, kind, old, seed=1) == first
    assert old.times == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize(("kind", "file"), [("table", "0-step.parquet"), ("values", "0-step.json")])
def test_a_write_that_finds_no_space_is_an_error_of_the_disk(
    tmp_path: Path, kind: str, file: str
) -> None:
    old = Made("dog")
    with opened(tmp_path / "r") as run:
        first = do(run, kind, old, seed=1)
        (tmp_path / "r" / "steps" / f"{file}.aside").symlink_to("/dev/full")
        with pytest.raises(OSError) as caught:
            do(run, kind, Made(*map(str, range(500))), seed=2)
        assert caught.value.errno == errno.ENOSPC
        assert do(run, kind, old, seed=1) == first


def test_a_disk_that_fills_while_a_folder_is_made_leaves_the_old_folder(tmp_path: Path) -> None:
    def make(aside: Path) -> Mapping[str, Any]:
        (aside / "weights").write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    old = Made("dog")
    with opened(tmp_path / "r") as run:
        first = do(run, "folder", old, seed=1)
        with pytest.raises(OSError, match="No space left"):
            run.folder_step("step", make, stage="s", seed=2)
        assert do(run, "folder", old, seed=1) == first
    assert old.times == 1
    assert (first.folder / "weights").read_text() == "dog"


# -- tables and accounts ------------------------------------------------------------------------


def test_published_tables_and_json(tmp_path: Path) -> None:
    made = Made("dog", "cat")
    with opened(tmp_path / "r") as run:
        run.publish("items", Item, made.items)
        run.write_json("metrics.json", {"a": None, "b": "Katze …"})
        with pytest.raises(ValueError, match="not JSON compliant"):
            run.write_json("metrics.json", {"a": float("nan")})
    assert read_records(tmp_path / "r" / "tables" / "items.parquet", Item) == made.items
    assert "Katze …" in (tmp_path / "r" / "metrics.json").read_text(encoding="utf-8")
    assert not list((tmp_path / "r").rglob("*.aside"))


def test_seconds_and_tokens_are_counted_per_stage_and_kept(tmp_path: Path) -> None:
    def one(run: Run) -> None:
        def make() -> Mapping[str, Any]:
            run.count_tokens(7)
            run.count_tokens(3)
            return {}

        run.values("a", make, stage="write")
        run.values("b", make, stage="write")
        run.values("c", make, stage="judge", round=1)

    with opened(tmp_path / "r") as run:
        one(run)
        first = run.stages()
    with opened(tmp_path / "r") as run:
        one(run)
        assert run.stages() == first  # what was taken from disk was paid for once
    counted = {(row["round"], row["stage"]): row["tokens"] for row in first}
    assert counted == {(0, "write"): 20, (1, "judge"): 10}
    assert all(row["wall_s"] > 0 and row["peak_rss_mb"] > 1 for row in first)


def test_steps_of_other_settings_are_not_counted(tmp_path: Path) -> None:
    for seed in (1, 2):
        with opened(tmp_path / "r") as run:
            run.values("a", lambda: run.count_tokens(5) or {}, stage="write", seed=seed)  # type: ignore[func-returns-value]
            assert [row["tokens"] for row in run.stages()] == [5]


def test_checkpoints_are_found_again_by_what_is_trained_and_dropped_when_done(
    tmp_path: Path,
) -> None:
    with opened(tmp_path / "r") as run:
        place = run.checkpoints("a")
        place.mkdir(parents=True)
        assert run.checkpoints("a") == place != run.checkpoints("b")
        run.drop_checkpoints()
        assert not place.exists()
        run.drop_checkpoints()
