"""Equality: by value, by math-verify in a process of its own, never for ever."""

from __future__ import annotations

import signal
import threading

import pytest

from symdistill.answers import AnswerKind
from symdistill.verifiers import equal, equality

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("kind", "gold", "answer", "same"),
    [
        ("number", "1234", "$1,234.", True),
        ("number", "0.75", "3/4", True),
        ("number", "42", "42.0", True),
        ("number", "1/3", "0.33", False),
        ("number", "5", "-5", False),
        ("choice", "B", "(b)", True),
        ("choice", "B", "A", False),
        ("text", "yajc", '"YAJC"', True),
        ("text", "yajc", "y a j c", True),
        ("text", "] }", "]}", True),
        ("text", "] }", "} ]", False),
        ("text", "alga boat", "alga, boat", True),
        ("yes_no", "yes", "no", False),
    ],
)
def test_equal(kind: AnswerKind, gold: str, answer: str, same: bool) -> None:
    assert equal(kind, gold, answer) is same


@pytest.fixture
def worker() -> None:
    pytest.importorskip("math_verify")


@pytest.mark.usefixtures("worker")
def test_latex_is_compared_from_any_thread() -> None:
    # math-verify itself raises in a thread: its time limit is a signal
    found: list[bool | None] = []

    def compare() -> None:
        found.append(equal("number", r"2\sqrt{3}", r"\sqrt{12}"))
        found.append(equal("number", r"2\sqrt{3}", r"\sqrt{13}"))

    thread = threading.Thread(target=compare)
    thread.start()
    thread.join()
    assert found == [True, False]


@pytest.mark.usefixtures("worker")
def test_a_comparison_that_hangs_is_undecided_and_the_next_one_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert equal("number", r"2\sqrt{3}", r"\sqrt{12}") is True
    process = equality._WORKER._process
    assert process is not None
    process.send_signal(signal.SIGSTOP)  # it hangs from here on
    monkeypatch.setattr(equality, "TIME_LIMIT_SECONDS", 0.2)
    assert equal("number", r"2\sqrt{3}", r"\sqrt{12}") is None
    monkeypatch.undo()
    assert equal("number", r"2\sqrt{3}", r"\sqrt{12}") is True


@pytest.mark.usefixtures("worker")
def test_a_crash_is_undecided() -> None:
    assert equal("number", r"2\sqrt{3}", r"\sqrt{12}") is True
    process = equality._WORKER._process
    assert process is not None
    process.kill()
    process.wait()
    assert equal("number", r"2\sqrt{3}", r"\sqrt{12}") is None


def test_without_math_verify_latex_is_undecided_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(equality, "_installed", lambda: False)
    assert equal("number", "1/2", "0.5") is True  # needs no library
    assert equal("number", "2^5", "2^5") is True
    assert equal("number", "32", "2^5") is None
    assert "symdistill[answers]" in equality.why_undecided()
