"""The package as a user meets it: what importing costs, its public names, and its wheel."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import symdistill

CHECKOUT = Path(__file__).resolve().parents[1]
SOURCE = CHECKOUT / "src" / "symdistill"
HEAVY = {"torch", "transformers", "sklearn", "pandas", "scipy", "matplotlib", "datasets"}

HELP = """
import sys
from symdistill.cli import main
sys.argv = ["symdistill", "--help"]
try:
    main()
except SystemExit as end:
    assert end.code in (None, 0), end.code
"""

IMPORT_EVERYTHING = """
import importlib, pkgutil, symdistill
for found in pkgutil.walk_packages(symdistill.__path__, "symdistill."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
"""


def modules_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after running the code."""
    report = 'import json, sys; print("\\n" + json.dumps(sorted(sys.modules)))'
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.unit
def test_importing_the_package_imports_nothing_but_itself() -> None:
    loaded = modules_after("import symdistill")
    assert "symdistill" in loaded
    assert not loaded & {*HEAVY, "numpy", "pyarrow", "duckdb", "pydantic", "typer", "rich"}


@pytest.mark.unit
def test_help_does_not_wait_for_the_heavy_libraries() -> None:
    assert not modules_after(HELP) & HEAVY


@pytest.mark.unit
def test_every_public_name_is_there() -> None:
    assert [name for name in symdistill.__all__ if not hasattr(symdistill, name)] == []
    assert set(symdistill.__all__) <= set(dir(symdistill))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = symdistill.no_such_name


@pytest.mark.unit
def test_a_public_name_is_that_of_its_module() -> None:
    from symdistill import records

    assert symdistill.Knowledge is records.Knowledge


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, CHECKOUT],
        check=True,
    )
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    files = {
        path.relative_to(SOURCE.parent).as_posix()
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "symdistill/py.typed" in files
    assert files <= packed
    assert not [name for name in packed - files if ".dist-info/" not in name]


@pytest.mark.slow
def test_the_wheel_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "environment"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", wheel], check=True
    )
    # What symdistill stands on is taken from this environment; symdistill itself is not.
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    (site / "beside.pth").write_text(sysconfig.get_path("purelib"))

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run(python, "-c", "import symdistill; print(symdistill.__file__)")
    assert Path(where.strip()).is_relative_to(site)
    assert "run" in run(home / "bin" / "symdistill", "--help")
    assert run(python, "-c", IMPORT_EVERYTHING) == ""
