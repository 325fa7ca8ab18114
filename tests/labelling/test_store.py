"""The label store: nothing that was answered is lost, and nothing is said twice."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symdistill.errors import InputError, RunError
from symdistill.labelling.store import Draw, Given, LabelStore, Shown, serving

pytestmark = pytest.mark.unit
_NUMBER = count()


def draw(n: int = 3, repeats: int = 0, id: str = "d", purpose: str = "train") -> Draw:
    items = tuple(Shown(f"l{i}", f"line {i}") for i in range(n))
    return Draw(id, purpose, "2026-01-01", 0, "pool", {"how": "random"}, items, repeats)  # type: ignore[arg-type]


def given_(line: str, who: str = "ann", said: str = "valid", again: bool = False) -> Given:
    return Given("d", line, who, said, again, "2026-01-01", None, "")


def told(error: pytest.ExceptionInfo[BaseException]) -> str:
    return str(error.value)


def test_a_draw_comes_back_as_it_was_whatever_its_texts_hold(tmp_path: Path) -> None:
    texts = ["<script>alert(1)</script>", "שלום \u202eevil", "line\nbreak\x00nul", "", "🙂" * 1000]
    items = tuple(Shown(f"l{i}", one, one, one) for i, one in enumerate(texts))
    made = Draw("d", "compare", "2026-01-01", 7, "pool", {"cuts": [0.5, 1], "a": {"b": None}},
                items, 2)  # fmt: skip
    with LabelStore(tmp_path) as store:
        store.add_draw(made)
        store.add_draw(made)  # once more is no more
    with LabelStore(tmp_path, read_only=True) as store:
        assert store.draws() == [made]
        assert store.draws("train") == []


def test_half_a_surrogate_pair_can_be_kept(tmp_path: Path) -> None:
    with LabelStore(tmp_path) as store:
        store.add_draw(Draw("d", "train", "", 0, "", {}, (Shown("a", "x\ud800y"),)))
        store.answer("d", "a", "an\ud800n", "valid", note="\udfff")
        assert store.draw("d").items[0].text == "x?y"
        assert store.given()[0].note == "?"


def test_lines_come_in_order_then_the_repeats(tmp_path: Path) -> None:
    seen = []
    with LabelStore(tmp_path) as store:
        store.add_draw(draw(3, repeats=2))
        while found := store.next("d", "ann"):
            shown, again = found
            seen.append((shown.line_id, again))
            store.answer("d", shown.line_id, "ann", "valid", again=again)
        assert seen == [("l0", False), ("l1", False), ("l2", False), ("l0", True), ("l1", True)]
        assert store.progress("d", "ann") == store.progress("d") == (5, 5)
        assert store.progress("d", "bob") == (0, 5)


def test_the_later_of_two_answers_stands_and_both_are_kept(tmp_path: Path) -> None:
    with LabelStore(tmp_path) as store:
        store.add_draw(draw())
        store.answer("d", "l0", "ann", "valid")
        store.answer("d", "l0", "ann", "invalid", note="second thoughts", seconds=1.5)
        (stands,) = store.given("d")
        assert (stands.answer, stands.note, stands.seconds) == ("invalid", "second thoughts", 1.5)
        assert store.verdicts("d") == {"l0": "invalid"}
    rows = sqlite3.connect(tmp_path / "labels.sqlite").execute("SELECT answer FROM answers")
    assert rows.fetchall() == [("valid",), ("invalid",)]


def test_the_majority_is_the_verdict_and_a_tie_is_unsure(tmp_path: Path) -> None:
    with LabelStore(tmp_path) as store:
        store.add_draw(draw(3, repeats=1))
        said = {"ann": "valid", "bob": "valid", "cem": "invalid"}
        store.take(given_("l0", who, word) for who, word in said.items())
        store.take([given_("l1", "ann", "valid"), given_("l1", "bob", "invalid")])
        store.take([given_("l2", "ann", "invalid"), given_("l0", "cem", "valid", again=True)])
        assert store.verdicts("d") == {"l0": "valid", "l1": "unsure", "l2": "invalid"}


def test_one_person_has_one_name(tmp_path: Path) -> None:
    with LabelStore(tmp_path) as store:
        store.add_draw(draw(1))
        store.answer("d", "l0", " Jose\u0301 ", "valid")
        assert store.next("d", "José") is None
        assert store.progress("d", "José ") == (1, 1)


def test_what_was_drawn_and_what_was_labelled(tmp_path: Path) -> None:
    with LabelStore(tmp_path) as store:
        store.add_draw(draw(2))
        store.add_draw(draw(3, id="c", purpose="certificate"))
        store.answer("d", "l0", "ann", "valid")
        store.answer("c", "l2", "ann", "valid")
        assert store.labelled_ids() == {"l0", "l2"}
        assert store.labelled_ids(besides="c") == {"l0"}
        assert store.drawn_ids("train") == {"l0", "l1"}
        assert store.drawn_ids() == {"l0", "l1", "l2"}
        store.undo("d", "ann")
        assert store.labelled_ids() == {"l2"}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Given("x", "l0", "ann", "valid", False, "", None, ""), "expected a draw"),
        (given_("zz"), "expected a line of the draw d"),
        (given_("l0", said="first"), "expected one of valid, invalid, unsure"),
        (given_("l0", who="  "), "name"),
        (given_("l2", again=True), "second answer"),
    ],
)
def test_a_wrong_answer_is_refused_and_takes_the_others_with_it(
    tmp_path: Path, answer: Given, words: str
) -> None:
    with LabelStore(tmp_path) as store:
        store.add_draw(draw(3, repeats=1))
        with pytest.raises(InputError, match=words):
            store.take([given_("l0"), answer])
        assert store.given() == []


@pytest.mark.parametrize(
    "wrong",
    [
        Draw("e", "train", "", 0, "", {}, ()),
        Draw("e", "train", "", 0, "", {}, (Shown("a", "x"),), 2),
        Draw("e", "train", "", 0, "", {}, (Shown("a", "x"), Shown("a", "y"))),
        Draw("e", "other", "", 0, "", {}, (Shown("a", "x"),)),  # type: ignore[arg-type]
        Draw("d", "train", "", 0, "", {}, (Shown("a", "x"),)),
    ],
)
def test_a_wrong_draw_is_refused(tmp_path: Path, wrong: Draw) -> None:
    with LabelStore(tmp_path) as store:
        store.add_draw(draw())
        with pytest.raises(InputError):
            store.add_draw(wrong)
        assert store.draws() == [draw()]


steps = st.lists(
    st.tuples(st.sampled_from(["ann", "bob"]), st.sampled_from(["valid", "invalid", "undo"]),
              st.integers(0, 3)),
    max_size=25,
)  # fmt: skip


@settings(max_examples=40)
@given(steps)
def test_undo_and_progress_are_those_of_a_list(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, int]]
) -> None:
    """What stands is a list of answers per annotator, whose last one undo takes off."""
    model: dict[str, list[tuple[str, str]]] = {"ann": [], "bob": []}
    with LabelStore(tmp_path_factory.mktemp("model") / f"{next(_NUMBER)}") as store:
        store.add_draw(draw(4))
        for who, what, line in steps:
            if what == "undo":
                back = store.undo("d", who)
                assert (back and back.line_id) == (model[who].pop()[0] if model[who] else None)
            else:
                store.answer("d", f"l{line}", who, what)
                model[who].append((f"l{line}", what))
            for name, answers in model.items():
                stands = dict(answers)
                assert store.progress("d", name) == (len(stands), 4)
                found = {one.line_id: one.answer for one in store.given() if one.annotator == name}
                assert found == stands
                coming = [f"l{i}" for i in range(4) if f"l{i}" not in stands]
                upcoming = store.next("d", name)
                assert (upcoming and upcoming[0].line_id) == (coming[0] if coming else None)


_ANSWERING = """
import sys
from pathlib import Path
from symdistill.labelling.store import LabelStore
store = LabelStore(Path(sys.argv[1]))
while found := store.next("d", "ann"):
    store.answer("d", found[0].line_id, "ann", "valid")
    print(found[0].line_id, flush=True)
"""


def test_every_acknowledged_answer_survives_a_kill(tmp_path: Path) -> None:
    with LabelStore(tmp_path) as store:
        store.add_draw(draw(5_000))
    for killed_after in (1, 40, 90):
        with subprocess.Popen(
            [sys.executable, "-c", _ANSWERING, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as working:
            assert working.stdout is not None
            acknowledged = [working.stdout.readline().strip() for _ in range(killed_after)]
            os.kill(working.pid, signal.SIGKILL)
            acknowledged += working.stdout.read().split()
        with LabelStore(tmp_path, read_only=True) as store:
            assert set(acknowledged) <= {one.line_id for one in store.given()}
        with LabelStore(tmp_path) as store:
            done, _ = store.progress("d", "ann")
            assert store.next("d", "ann") == (Shown(f"l{done}", f"line {done}"), False)


def test_threads_and_processes_share_the_file(tmp_path: Path) -> None:
    with LabelStore(tmp_path) as one, LabelStore(tmp_path) as other:
        one.add_draw(draw(40))

        def answer(store: LabelStore, who: str) -> None:
            for i in range(40):
                store.answer("d", f"l{i}", who, "valid")

        working = [
            threading.Thread(target=answer, args=[store, f"{who}{i}"])
            for i, store in enumerate([one, one, other, other])
            for who in "ab"
        ]
        for each in working:
            each.start()
        for each in working:
            each.join()
        assert len(one.given()) == len(other.given()) == 8 * 40


def test_a_hundred_thousand_lines(tmp_path: Path) -> None:
    n = 100_000
    with LabelStore(tmp_path) as store:
        store.add_draw(draw(n))
        assert store.take(given_(f"l{i}") for i in range(n - 1)) == n - 1
        assert store.next("d", "ann") == (Shown(f"l{n - 1}", f"line {n - 1}"), False)
        assert store.progress("d", "ann") == (n - 1, n)
        assert len(store.verdicts("d")) == n - 1


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("content", [b"no database" * 500, b"SQLite format 3\x00" + b"\xff" * 4000])
def test_a_damaged_file_is_told_in_a_sentence(
    tmp_path: Path, content: bytes, read_only: bool
) -> None:
    (tmp_path / "labels.sqlite").write_bytes(content)
    with pytest.raises(InputError) as error:
        LabelStore(tmp_path, read_only=read_only)
    assert "damaged" in told(error) and "labels.sqlite" in told(error)
    assert (tmp_path / "labels.sqlite").read_bytes() == content


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    LabelStore(tmp_path).close()
    with sqlite3.connect(tmp_path / "labels.sqlite") as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(InputError, match="version 99"):
        LabelStore(tmp_path)


def test_where_nothing_is_labelled_reading_finds_nothing_and_writes_nothing(tmp_path: Path) -> None:
    with LabelStore(tmp_path / "none", read_only=True) as store:
        assert store.draws() == [] and store.given() == [] and store.labelled_ids() == set()
    assert not (tmp_path / "none").exists()


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    with LabelStore(tmp_path) as store:
        store.add_draw(draw())
    with LabelStore(tmp_path, read_only=True) as store, pytest.raises(RunError, match="readonly"):
        store.answer("d", "l0", "ann", "valid")


def test_a_folder_in_which_nothing_can_be_written_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LabelStore(tmp_path) as store:
        store.add_draw(draw())
    monkeypatch.setattr(os, "access", lambda *_: False)
    with LabelStore(tmp_path, read_only=True) as store:
        assert store.draws() == [draw()]
        assert [one.name for one in tmp_path.iterdir()] == ["labels.sqlite"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="expected a place for labels"):
        LabelStore(tmp_path / "file")


def test_one_server_at_a_time(tmp_path: Path) -> None:
    with (
        serving(tmp_path),
        pytest.raises(RunError, match="another labelling page"),
        serving(tmp_path),
    ):
        pass
    with serving(tmp_path):
        pass


def test_a_name_is_one_person_however_it_is_typed(tmp_path: Path) -> None:
    with LabelStore(tmp_path) as store, LabelStore(tmp_path) as other:
        store.add_draw(draw())
        store.answer("d", "l0", "Anna B", "valid")
        for typed in ("  Anna   B ", "anna b", "ANNA\tB"):
            assert store.known_as(typed) == other.known_as(typed) == "Anna B"
            assert other.progress("d", typed) == (1, 3)
            shown = other.next("d", typed)
            assert shown and shown[0].line_id == "l1"
        store.take([given_("l1", "Ben"), given_("l1", "BEN", "invalid")])
        assert {one.annotator for one in store.given()} == {"Anna B", "Ben"}
        store.answer("d", "l2", "\x1b[2JEve", "valid")
        assert {one.annotator for one in store.given()} == {"Anna B", "Ben", "␛[2JEve"}


def test_what_another_process_writes_is_seen(tmp_path: Path) -> None:
    with LabelStore(tmp_path) as one, LabelStore(tmp_path) as other:
        one.add_draw(draw(3))
        for store, line in ((one, "l0"), (other, "l1"), (one, "l2")):
            for each in (one, other):
                shown = each.next("d", "ann")
                assert shown and shown[0].line_id == line
            store.answer("d", line, "ann", "valid")
        assert one.next("d", "ann") is None and one.progress("d") == (3, 3)
        other.undo("d", "ann")
        shown = one.next("d", "ann")
        assert shown and shown[0].line_id == "l2" and one.progress("d") == (2, 3)


def test_the_last_lines_of_many_come_as_fast_as_the_first(tmp_path: Path) -> None:
    n = 50_000
    with LabelStore(tmp_path) as store:
        store.add_draw(draw(n))
        store.take(given_(f"l{i}") for i in range(n - 100))
        store.progress("d", "ann")
        started = time.perf_counter()
        for i in range(n - 100, n):
            assert store.progress("d", "ann") == (i, n)
            assert store.next("d", "ann") == (Shown(f"l{i}", f"line {i}"), False)
            store.answer("d", f"l{i}", "ann", "valid")
        assert time.perf_counter() - started < 3  # each in turn would count for 50 ms


def test_the_lines_of_a_pair_are_drawn_and_labelled(tmp_path: Path) -> None:
    sides = {f"l{i}": {"one": f"a{i}", "other": f"b{i}", "first_is_one": True} for i in range(3)}
    items = tuple(Shown(f"l{i}", "one", None, "other") for i in range(3))
    with LabelStore(tmp_path) as store:
        store.add_draw(Draw("c", "compare", "", 0, "pool", {"sides": sides}, items))
        store.answer("c", "l1", "ann", "first")
        assert store.drawn_ids() >= {"a0", "b0", "a1", "b1", "a2", "b2"}
        assert store.drawn_ids("compare") == store.drawn_ids() and not store.drawn_ids("train")
        assert store.labelled_ids() == {"l1", "a1", "b1"}
        assert store.labelled_ids(besides="c") == set()


def test_answers_given_otherwise_in_the_end_are_counted(tmp_path: Path) -> None:
    with LabelStore(tmp_path) as store:
        store.add_draw(draw(2))
        store.answer("d", "l0", "ann", "valid")
        store.answer("d", "l0", "ann", "invalid")  # not every line has one yet
        store.answer("d", "l1", "ann", "valid")
        store.answer("d", "l0", "bob", "valid")  # a second annotator changes no answer
        assert store.changed_late("d") == 0
        store.undo("d", "ann")
        store.answer("d", "l1", "ann", "valid")
        assert store.changed_late("d") == 0
        store.undo("d", "ann")
        store.answer("d", "l1", "ann", "invalid")
        assert store.changed_late("d") == 1


def test_only_a_draw_that_nobody_ever_answered_is_dropped(tmp_path: Path) -> None:
    with LabelStore(tmp_path) as store:
        store.add_draw(draw(2))
        store.drop("d")
        assert store.draws() == [] and store.drawn_ids() == set()
        store.add_draw(draw(3))
        store.answer("d", "l2", "ann", "valid")
        store.undo("d", "ann")
        with pytest.raises(InputError, match="has some; finish it"):
            store.drop("d")
        store.give_up("d", "too\nlong")
        assert store.draw("d").plan["given_up"]["why"] == "too long"
        assert store.given_up_ids() == {"d"}
