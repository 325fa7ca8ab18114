"""A run: its folder, its steps, and how it is resumed.

A recipe runs from its top each time. `Run.table`, `Run.values` and `Run.folder_step` do a step
once: if what it reads has the same fingerprint as when its result was written, the result is
taken from disk. Results are written aside and renamed, so a step is there whole or not at all.
A step's fingerprint covers the fields it reads, its code version and the hashes of its inputs;
the run's name, paths and clock times enter no fingerprint and no table.

    runs/NAME/
      config.yaml      the resolved configuration
      ledger.sqlite    every model call
      steps/           results of single steps, by round (what `tables/` is made from)
      tables/          items, knowledge, verdicts, views
      critics/ROUND/   the critic of that round
      students/ROUND/  plain transformers folders
      checkpoints/     of a training under way; removed when it is done
      metrics.json     report.html
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from symdistill.budget import Budget
from symdistill.config import Config, Settings, changed_fields, decisive, dump_config, read_yaml
from symdistill.errors import InputError, RunError
from symdistill.ledger import Ledger
from symdistill.progress import Progress
from symdistill.records import Item, Knowledge, Verdict, View, content_hash
from symdistill.tables import read_records, table_metadata, write_records

DISK_FULL_BYTES = 2**20
LINES = "lines.json"  # in a student's folder: the ids of the lines that it was trained on

R = TypeVar("R", Item, Knowledge, Verdict, View)


@dataclass(frozen=True)
class Stored(Generic[R]):
    """A step's records, with the hash that later steps put into their fingerprints."""

    records: list[R]
    hash: str


@dataclass(frozen=True)
class StoredFolder:
    """A step's folder (a critic, a student), with its hash and what its maker noted."""

    folder: Path
    hash: str
    notes: Mapping[str, Any]


@dataclass(frozen=True)
class StoredValues:
    """A step's small results (numbers, texts), with their hash."""

    values: Mapping[str, Any]
    hash: str

    def __getitem__(self, key: str) -> Any:
        return self.values[key]


class Run:
    """An open run folder. Use `Run.open` in a `with` statement."""

    def __init__(
        self, folder: Path, config: Config, progress: Progress, lock: int, retry_failed: bool
    ) -> None:
        self.folder = folder
        self.config = config
        self.progress = progress
        self.retry_failed = retry_failed  # what recipes read: make again what failed
        self._lock = lock
        self.ledger = Ledger(folder / "ledger.sqlite")
        self.budget = Budget(config.budget, self.ledger)
        self._fingerprints: list[str] = []
        self._tokens = 0

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        folder: Path,
        config: Config,
        *,
        progress: Progress | None = None,
        accept_changes: bool = False,
        retry_failed: bool = False,
    ) -> Iterator[Run]:
        """Open or make a run folder; only one process may hold it.

        Args:
            folder: runs/NAME.
            config: the resolved configuration.
            progress: who is told; nobody by default.
            accept_changes: go on with a changed configuration (`--continue`): the steps that
                read a changed field run again.
            retry_failed: calls that failed in earlier attempts are made again; the others are
                taken from the ledger.

        Raises:
            InputError: the folder was made by other settings, or holds something else.
            RunError: another process works in it, or it cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"expected a folder that can be made at {folder}; got: {error.strerror}; "
                "choose another with --out"
            ) from error
        kept = folder / "config.yaml"
        ours = {".lock", "config.yaml.aside"}  # of an opening that was cut off
        try:
            others = [path.name for path in folder.iterdir() if path.name not in ours]
        except OSError as error:
            raise InputError(
                f"expected a readable run folder at {folder}; got: {error.strerror}; check its "
                "permissions or choose another with --out"
            ) from error
        if "config.yaml" not in others and others:
            raise InputError(
                f"expected an empty folder or a run at {folder}; got other files and no "
                "config.yaml; choose another name or --out"
            )
        lock = _lock(folder)
        try:
            begun = any((folder / "steps").glob("*"))
            if begun:
                _check_same(kept, config, accept_changes)
            else:  # nothing was made by these settings yet, so they may still be mended
                _write_text(kept, dump_config(config))
            run = cls(folder, config, progress or Progress(), lock, retry_failed)
            try:
                if retry_failed:
                    run.ledger.forget_failures()
                yield run
                _write_text(kept, dump_config(config))
            finally:
                with contextlib.suppress(RunError):  # what went wrong before counts
                    run.budget.close()
                run.ledger.close()
        finally:
            os.close(lock)

    # -- steps ------------------------------------------------------------------------------

    def table(
        self,
        name: str,
        kind: type[R],
        make: Callable[[], Sequence[R]],
        *,
        stage: str,
        round: int = 0,
        version: int = 1,
        **reads: Any,
    ) -> Stored[R]:
        """Records made by `make`, or taken from disk if they were made from the same `reads`.

        Args:
            name: the step's name, unique within the round.
            kind: the record class.
            make: does the work; called only if needed.
            stage: under which heading its seconds and tokens are counted.
            round: the round it belongs to.
            version: raise it when the code changes what comes out.
            **reads: everything the result depends on: stored results, settings, plain values.
        """
        mark = self._fingerprint(name, round, version, reads)
        path = self.folder / "steps" / f"{round}-{name}.parquet"
        if table_metadata(path).get("fingerprint") != mark:
            with self._timed(name, mark, round, stage):
                write_records(path, kind, make(), {"fingerprint": mark})
        records = read_records(path, kind)
        return Stored(records, content_hash(records, 64))

    def values(
        self,
        name: str,
        make: Callable[[], Mapping[str, Any]],
        *,
        stage: str,
        round: int = 0,
        version: int = 1,
        **reads: Any,
    ) -> StoredValues:
        """Small results (JSON) made by `make`, or taken from disk; arguments as in `table`."""
        mark = self._fingerprint(name, round, version, reads)
        path = self.folder / "steps" / f"{round}-{name}.json"
        found = read_json(path)
        if found.get("fingerprint") != mark:
            with self._timed(name, mark, round, stage):
                found = {"fingerprint": mark, "values": make()}
                text = json.dumps(found, sort_keys=True, ensure_ascii=False, allow_nan=False)
                _write_text(path, text)
                found = read_json(path)  # what a later run will read, to the last digit
        return StoredValues(found["values"], content_hash(found["values"], 64))

    def folder_step(
        self,
        place: str,
        make: Callable[[Path], Mapping[str, Any]],
        *,
        stage: str,
        round: int = 0,
        version: int = 1,
        **reads: Any,
    ) -> StoredFolder:
        """A folder `place/ROUND` filled by `make(aside)`, or taken from disk; else as in `table`.

        `make` fills the folder that it is given and returns notes that are kept in its
        `step.json`; the folder appears under its name only when it is whole.
        """
        mark = self._fingerprint(place, round, version, reads)
        folder = self.folder / place / str(round)
        found = read_json(folder / "step.json")
        if found.get("fingerprint") != mark:
            with self._timed(place, mark, round, stage):
                aside = folder.with_name(f"{round}.aside")
                shutil.rmtree(aside, ignore_errors=True)
                aside.mkdir(parents=True)
                found = {"fingerprint": mark, "notes": make(aside)}
                _write_text(aside / "step.json", json.dumps(found, sort_keys=True))
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(aside, folder)
                found = read_json(folder / "step.json")
        return StoredFolder(folder, mark, found["notes"])

    def publish(self, name: str, kind: type[R], records: Sequence[R]) -> None:
        """Write a table of the run: `tables/NAME.parquet`."""
        write_records(self.folder / "tables" / f"{name}.parquet", kind, records)

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file of the run, aside and then renamed."""
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
        _write_text(self.folder / name, text + "\n")

    def checkpoints(self, mark: str) -> Path:
        """A folder for the checkpoints of a training, by what is trained."""
        return self.folder / "checkpoints" / content_hash(mark)

    def drop_checkpoints(self) -> None:
        """Remove the checkpoints of trainings that are done."""
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

    # -- accounts ---------------------------------------------------------------------------

    def count_tokens(self, tokens: int) -> None:
        """Add tokens read or written to the account of the step under way."""
        self._tokens += tokens

    def stages(self) -> list[dict[str, Any]]:
        """Seconds, tokens and peak memory per round and stage, for the steps of this run."""
        return self.ledger.stages(self._fingerprints)

    def _fingerprint(self, name: str, round: int, version: int, reads: Mapping[str, Any]) -> str:
        mark = content_hash([name, round, version, _identity(reads)], 64)
        self._fingerprints.append(mark)
        return mark

    @contextlib.contextmanager
    def _timed(self, step: str, mark: str, round: int, stage: str) -> Iterator[None]:
        self.budget.check_time()
        _write_text(self.folder / "config.yaml", dump_config(self.config))
        start, self._tokens = time.perf_counter(), 0
        _forget_peak()
        try:
            yield
        except Exception as error:
            if shutil.disk_usage(self.folder).free < DISK_FULL_BYTES:
                # libraries tell a full disk each in its own way
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder)) from error
            raise
        finally:
            self.ledger.record_stage(
                step=step,
                fingerprint=mark,
                round=round,
                stage=stage,
                wall_s=time.perf_counter() - start,
                tokens=self._tokens,
                peak_rss_mb=peak_rss_mb(),
            )


def _forget_peak() -> None:
    """Begin a new peak where the system can (Linux); elsewhere peaks are the process's so far."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_rss_mb() -> float:
    """The largest resident memory of this process since the step began, in MB."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _identity(value: Any) -> Any:
    """What stands for a value in a fingerprint."""
    if isinstance(value, (Stored, StoredFolder, StoredValues)):
        return value.hash
    if hasattr(value, "fingerprint") and isinstance(value.fingerprint, str):
        return value.fingerprint
    if isinstance(value, Settings):
        return value.identity()
    if isinstance(value, Mapping):
        return {key: _identity(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_identity(inner) for inner in value]
    return value


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder against every other process.

    Raises:
        RunError: another process works in it, or it cannot be written.
    """
    handle = _lock(folder)
    try:
        yield
    finally:
        os.close(handle)


def _lock(folder: Path) -> int:
    """Hold the folder's lock; the system gives it back when the process ends, however it ends."""
    try:
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunError(
            f"expected a writable run folder at {folder}; got: {error.strerror}; "
            "check its permissions or choose another with --out"
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise RunError(
            f"another process is working in {folder}; wait until it ends, or stop it, "
            "or choose another name"
        ) from error
    return handle


def _check_same(kept: Path, config: Config, accept_changes: bool) -> None:
    changes = changed_fields(decisive(read_yaml(kept), config), config.identity())
    if changes and not accept_changes:
        raise InputError(
            f"the run in {kept.parent} was made with other settings ({'; '.join(changes)}); "
            "give --continue to go on with the new ones (the steps concerned run again), "
            "or choose another name with --name"
        )


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".aside")
    with aside.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(aside, path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, empty where the file is absent or damaged: then the step runs again."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
