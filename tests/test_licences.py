"""What a run needs may be used and shipped by anyone: permissive licences only."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.unit

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"

# SPDX names first, then the words that older packages use in their place.
PERMISSIVE = re.compile(
    r"""0BSD | Apache | BSD | BSL-1\.0 | CC0-1\.0 | CNRI-Python | HPND | ISC | MIT | PSF
    | Python\ Software\ Foundation | Unlicense | Zlib""",
    re.VERBOSE,
)
ANY_COPYLEFT = re.compile(
    r"GPL|General Public|MPL|Mozilla|EUPL|CDDL|EPL|OSL|Proprietary|NonCommercial", re.IGNORECASE
)

# Looked at one by one; the reason says why a user of symdistill owes nothing for them.
ACCEPTED = {
    "certifi": "MPL-2.0: binds only changes to its own files; used as it is",
    "tqdm": "MPL-2.0 AND MIT: binds only changes to its own files; used as it is",
}
# The CUDA parts that torch brings along on some machines carry their vendor's licence. They are
# not needed: TORCH_INDEX in the Makefile chooses a build of torch without them.
VENDORS = ("nvidia-", "cuda-")


def run_time_closure() -> Iterator[Distribution]:
    """Every installed distribution that a run with all extras but `dev` needs here."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    extras = project["optional-dependencies"]
    of_a_run = ("local", "http", "llamacpp", "label", "answers")
    lines = [*project["dependencies"], *(line for extra in of_a_run for line in extras[extra])]
    waiting = [(Requirement(line), "") for line in lines]
    seen: set[tuple[str, str]] = set()
    given: set[str] = set()
    while waiting:
        need, extra = waiting.pop()
        if need.marker and not need.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(need.name)
        for wanted in ["", *need.extras]:
            if (name, wanted) in seen:
                continue
            seen.add((name, wanted))
            found = importlib.metadata.distribution(name)
            if name not in given:
                given.add(name)
                yield found
            waiting += [(Requirement(line), wanted) for line in found.requires or []]


def licence(found: Distribution) -> str:
    """What a distribution says of its licence, in one line."""
    metadata = found.metadata
    said = metadata.get("License-Expression") or ""
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier") or []
        if line.startswith("License :: ")
    ]
    said = said or ", ".join(line for line in classifiers if line != "OSI Approved")
    free_text = metadata.get("License") or ""
    return said or " ".join(free_text.split())[:200]


def test_what_a_run_needs_is_permissive() -> None:
    closure = {canonicalize_name(found.name): licence(found) for found in run_time_closure()}
    assert {"torch", "transformers", "numpy"} <= closure.keys()
    refused = {
        name: said
        for name, said in closure.items()
        if name not in ACCEPTED and not name.startswith(VENDORS) and not is_permissive(said)
    }
    assert refused == {}, "look at each: replace it, or accept it above with a reason"


def is_permissive(said: str) -> bool:
    """Whether one of the alternatives a licence line offers is permissive in all its parts."""
    return any(
        PERMISSIVE.search(choice) and not ANY_COPYLEFT.search(choice)
        for choice in said.split(" OR ")
    )


@pytest.mark.parametrize(
    ("said", "permissive"),
    [
        ("MIT", True),
        ("Apache-2.0 OR GPL-3.0-only", True),
        ("MPL-2.0 AND MIT", False),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
        ("", False),
        ("UNKNOWN", False),
    ],
)
def test_reading_a_licence_line(said: str, permissive: bool) -> None:
    assert is_permissive(said) is permissive


def test_no_acceptance_outlives_its_need() -> None:
    names = {canonicalize_name(found.name) for found in run_time_closure()}
    assert names >= ACCEPTED.keys()
