"""What holds for every test: no network, no download, two threads, the same examples each time.

Side by side (`pytest -n 2`), each process has one thread.
"""

from __future__ import annotations

import importlib.metadata
import os

# Before torch or a Hugging Face library is imported, in this process and in those it starts.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TRANSFORMERS_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="Agg",
    **dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
        "1" if "PYTEST_XDIST_WORKER" in os.environ else "2",
    ),
)

import signal

import pytest
from hypothesis import HealthCheck, settings

from symdistill.models import EMBEDDED, Model, resolve

# "ci" is what everyone runs: the same examples each time. To search further:
# pytest --hypothesis-profile=search
settings.register_profile(
    "ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "search", parent=settings.get_profile("ci"), derandomize=False, max_examples=1000
)
settings.load_profile("ci")


def pytest_configure() -> None:
    """Side by side, a worker ignores Ctrl-C, which some tests send to themselves."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _embedded(key: str) -> Model:
    """An embedded model; the test is skipped only where its wheel is not installed."""
    wheel = EMBEDDED[key].wheel
    try:
        importlib.metadata.distribution(wheel)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"the wheel {wheel} is not installed; `make setup` installs it")
    return resolve(f"embedded:{key}")


@pytest.fixture(scope="session")
def smollm2() -> Model:
    """SmolLM2-135M-Instruct: the embedded language model."""
    return _embedded("smollm2")


@pytest.fixture(scope="session")
def minilm() -> Model:
    """all-MiniLM-L6-v2: the embedded encoder."""
    return _embedded("minilm")
