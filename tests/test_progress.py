"""How long it will still take, and what is shown where the output is no terminal."""

from __future__ import annotations

import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from symdistill import progress as module
from symdistill.progress import ConsoleProgress, Plan, Progress

pytestmark = pytest.mark.unit

seconds = st.floats(0, 1e6)
shares = st.floats(0, 1)
plans = st.dictionaries(st.sampled_from("abcdef"), seconds, max_size=6)


@given(plans, st.lists(st.tuples(st.sampled_from("abcdefxyz"), seconds)), shares, seconds)
def test_what_is_left_is_never_negative(
    plan: dict[str, float], done: list[tuple[str, float]], share: float, spent_s: float
) -> None:
    work = Plan(plan)
    for label, taken_s in done:
        work.enter(label)
        assert 0 <= work.remaining_s(label, share, spent_s) < math.inf
        work.leave(label, taken_s)
        assert 0 <= work.remaining_s("", 0.0, 0.0) < math.inf


@given(plans, st.lists(seconds, min_size=6, max_size=6))
def test_nothing_is_left_when_all_is_done(plan: dict[str, float], taken_s: list[float]) -> None:
    work = Plan(plan)
    for label, one_s in zip(plan, taken_s, strict=False):
        work.enter(label)
        work.leave(label, one_s)
    assert work.remaining_s("", 0.0, 0.0) == 0.0


@given(plans.filter(bool), st.lists(shares, min_size=2, max_size=2).map(sorted), seconds)
def test_more_done_in_the_same_time_leaves_less(
    plan: dict[str, float], two: list[float], spent_s: float
) -> None:
    work = Plan(plan)
    label = next(iter(plan))
    work.enter(label)
    less, more = (work.remaining_s(label, share, spent_s) for share in two)
    assert more <= less * (1 + 1e-9)


def test_before_anything_is_done_the_plan_is_told() -> None:
    work = Plan({"a": 10, "b": 30})
    work.enter("a")
    assert work.remaining_s("a", 0.0, 0.0) == work.total_s == 40


def test_the_estimate_follows_this_machine() -> None:
    work = Plan({"a": 50, "b": 50, "c": 100})
    work.enter("a")
    work.leave("a", 150)  # three times as slow as planned
    work.enter("b")
    slow = work.remaining_s("b", 0.0, 0.0)
    assert 150 * 1.5 < slow < 150 * 3
    work.leave("b", 150)
    work.enter("c")
    assert 100 * 2 < work.remaining_s("c", 0.0, 0.0) <= 100 * 3


def test_a_slow_machine_shows_within_a_stage() -> None:
    work = Plan({"a": 100})
    work.enter("a")
    assert work.remaining_s("a", 0.5, 50) == pytest.approx(50)
    assert work.remaining_s("a", 0.5, 200) > 100


def test_stages_taken_from_disk_count_as_over() -> None:
    work = Plan({"a": 1000, "b": 10, "c": 10})
    work.enter("c")
    assert work.remaining_s("c", 0.5, 5) == pytest.approx(5)


def test_progress_that_reports_to_nobody_takes_everything() -> None:
    progress = Progress()
    progress.plan({"a": 1})
    with progress.stage("a", 10) as stage:
        stage(10)
        stage.note("half way")
    progress.say("done")


def shown(width: int = 80) -> tuple[ConsoleProgress, io.StringIO]:
    stream = io.StringIO()
    return ConsoleProgress(Console(file=stream, width=width)), stream


def test_plain_lines_where_the_output_is_no_terminal() -> None:
    progress, stream = shown()
    progress.plan({"write": 10, "judge": 30})
    with progress.stage("write", 40, "lines") as advance:
        for _ in range(40):
            advance(1)
    progress.say("round 0: 40 written")
    first, second = stream.getvalue().splitlines()
    assert "\x1b" not in stream.getvalue() and "\r" not in stream.getvalue()
    assert first.split()[:3] == ["write", "40", "lines"] and "left" in first
    assert second == "round 0: 40 written"


def test_a_stage_without_a_known_length_works() -> None:
    progress, stream = shown()
    with progress.stage("train", 0, "steps") as advance:
        advance(3)
        advance(4)
    assert stream.getvalue().split()[:3] == ["train", "7", "steps"]


def test_no_estimate_is_made_up_without_a_plan() -> None:
    progress, stream = shown()
    with progress.stage("write", 1) as advance:
        advance(1)
    assert "left" not in stream.getvalue()


@pytest.mark.parametrize("line", ["[bold]text[/bold]", "[/]", ":dog: barks", "[link=x]y"])
def test_what_a_model_wrote_is_text_and_not_markup(line: str) -> None:
    progress, stream = shown()
    progress.say(line)
    with progress.stage(line, 1):
        pass
    said, stage = stream.getvalue().splitlines()
    assert said == line and stage.startswith(line)


def test_a_stage_that_fails_passes_its_error_on() -> None:
    progress, _ = shown()
    with pytest.raises(RuntimeError, match="no flour"), progress.stage("bake", 2) as advance:
        advance(1)
        raise RuntimeError("no flour")
    with progress.stage("bake", 2):  # and the next stage can begin
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds by the clock, to be set."""
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return now


def test_notes_are_told_now_and_then_where_the_output_is_no_terminal(clock: list[float]) -> None:
    progress, stream = shown()
    with progress.stage("ask", 40, "answers") as stage:
        for _ in range(40):
            clock[0] += 2.0
            stage(1)
            stage.note("[b]2 failed[/b]")
    first, second, last = stream.getvalue().splitlines()
    assert first == "ask, 15 of 40: [b]2 failed[/b]" and second.startswith("ask, 30 of 40: ")
    assert last.split()[:3] == ["ask", "40", "answers"]


def test_a_short_stage_prints_no_note(clock: list[float]) -> None:
    progress, stream = shown()
    with progress.stage("ask", 0) as stage:
        stage(3)
        stage.note("2 failed")
        clock[0] += 31.0
        assert "failed" not in stream.getvalue()
        stage.note("3 failed")
        assert stream.getvalue() == "ask, 3: 3 failed\n"


def test_a_terminal_shows_the_note_below_the_bar() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=100, force_terminal=True, _environ={"TERM": "xterm"})
    with ConsoleProgress(console).stage("ask", 4, "answers") as stage:
        stage(1)
        stage.note("[b]2 failed[/b] | 0.41 of about 1.90 USD")
        stage.bars.refresh()  # type: ignore[attr-defined]
    assert "[b]2 failed[/b] | 0.41 of about 1.90 USD" in stream.getvalue()
