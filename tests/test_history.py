"""One line's history: all that the run knows, and nothing that a model wrote does harm."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from symdistill.errors import InputError
from symdistill.history import history, the_one
from symdistill.ledger import Call, FailedCall, Ledger
from symdistill.records import Failure, Item, Knowledge, Lineage, Verdict, View
from symdistill.tables import write_records

pytestmark = pytest.mark.unit

DOG = Item.make("concept", "dog")


def occasion(key: str, round: int = 0) -> Lineage:
    return Lineage("weights-1", key, "prompt-7", '{"temperature":0.8}', 11, round)


def line(text: str, *occasions: Lineage, **fields: object) -> Knowledge:
    told = {"prompt": "Dogs can", **fields}
    return Knowledge.make("statement", text, DOG.id, fields=told, lineage=occasions)


def a_run(
    folder: Path,
    lines: Sequence[Knowledge],
    verdicts: Sequence[Verdict] = (),
    views: Sequence[View] = (),
    answer: str = " bark.",
) -> Path:
    tables = folder / "tables"
    write_records(tables / "items.parquet", Item, [DOG])
    write_records(tables / "knowledge.parquet", Knowledge, lines)
    write_records(tables / "verdicts.parquet", Verdict, verdicts)
    write_records(tables / "views.parquet", View, views)
    ledger = Ledger(folder / "ledger.sqlite")
    ledger.record(
        [
            Call(
                "key-0",
                "teacher",
                "embedded:smollm2",
                {"prompt": "Dogs can"},
                {"text": answer},
                3,
                5,
                0.25,
            )
        ]
    )
    ledger.close()
    return folder


def shown(run: Path, id: str) -> str:
    stream = io.StringIO()
    Console(file=stream, width=200, force_terminal=False).print(history(run, id))
    return stream.getvalue()


def test_everything_the_run_knows_is_told(tmp_path: Path) -> None:
    one = line(
        "Dogs can bark.",
        occasion("key-0"),
        occasion("key-1", 1),
        logprob=-6.5,
        tokens=3,
        specificity=2.25,
        swaps=[{"text": "Cats can bark."}],
    )
    verdicts = [
        Verdict(one.id, "critic@1", 0.875, round=0),
        Verdict(one.id, "judge@2", None, status="unknown", reason="no answer", round=0),
        Verdict(one.id, "selection", 1.0, round=0),
        Verdict(one.id, "selection", 0.0, reason="repeat: kept in an earlier round", round=1),
        Verdict("another", "critic@1", 0.111, round=0),
    ]
    views = [View("Dogs can", " bark.", 1.0, DOG.id, (one.id,), 0)]
    run = a_run(tmp_path, [one, line("Dogs can fly.")], verdicts, views)
    for student in ("0", "1", "2", "1.aside"):
        (run / "students" / student).mkdir(parents=True)
    said = shown(run, one.id)
    for told in (
        "Dogs can bark.",
        one.id,
        "dog",
        "-6.50 nats over 3 tokens",
        "2.25 nats",
        "Cats can bark.",
        "0.875",
        "unknown  no answer",
        "round 0  selection",
        "kept",
        "refused  repeat: kept in an earlier round",
        "written in round 0",
        "written in round 1",
        "weights-1",
        "prompt-7",
        "0.8",
        "11",
        "embedded:smollm2",
        "3 tokens in, 5 out, 0.25 s, price unknown",
        "this call is not in the ledger",
        "students/1, students/2",
    ):
        assert told in said, told
    assert "Dogs can fly" not in said and "0.111" not in said
    assert "students/0" not in said and "aside" not in said


def test_the_first_digits_are_enough_where_they_are_clear(tmp_path: Path) -> None:
    one, two = line("Dogs can bark."), line("Dogs can fly.")
    alike = replace(two, id=one.id[:4] + "f" * 12)
    run = a_run(tmp_path, [one, alike])
    assert "Dogs can bark." in shown(run, one.id[:6])
    assert "Dogs can bark." in shown(run, one.id[:6].upper())
    with pytest.raises(InputError, match=f"several ids begin with '{one.id[:4]}'.*more digits"):
        shown(run, one.id[:4])


@pytest.mark.parametrize("id", ["", "zzz", "%", "' OR 1=1 --", "\0", "*"])
def test_no_such_line_is_told(tmp_path: Path, id: str) -> None:
    run = a_run(tmp_path, [line("Dogs can bark."), line("Dogs can fly.")])
    with pytest.raises(InputError):
        shown(run, id)


@pytest.mark.parametrize("place", ["absent", "."])
def test_no_finished_run_is_told(tmp_path: Path, place: str) -> None:
    with pytest.raises(InputError, match=r"finished run.*--run"):
        shown(tmp_path / place, "abc")


HOSTILE = [
    "[bold red]Dogs[/bold red] can [link=http://x]bark[/link]",
    "[/]",
    ":dog: can bark",
    "\x1b[31mDogs\x1b[0m can \x1b]8;;http://x\x07bark\x1b]8;;\x07",
    "\x1b[2J\x1b[H\x9b2J gone",
    "Dogs can\rCats cannot\x08\x08\x08",
    "Dogs \u202ecan\u2066 bark\u200f",
    "Dogs can\n  selection      kept",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_model_wrote_is_shown_as_text(tmp_path: Path, text: str) -> None:
    one = line(text, occasion("key-0"), swaps=[{"text": text}], specificity=1.0)
    verdicts = [Verdict(one.id, "judge@2", None, status="unknown", reason=text)]
    said = shown(a_run(tmp_path, [one], verdicts, answer=text), one.id)
    for control in "\x1b\x9b\x07\x08\r\u202e\u2066\u200f\x00":
        assert control not in said
    plain = "".join(mark for mark in text.split("\n")[0] if mark.isprintable())
    if not any(ord(mark) < 32 or ord(mark) in (0x9B, 0x202E, 0x2066, 0x200F) for mark in text):
        assert said.count(plain) >= 4  # the line, the swap, the reason, the answer
    assert "\n  selection      kept" not in said


CHAT = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "A dog?"})


def asked(folder: Path, reason: str = "the server's filter") -> tuple[Knowledge, Failure]:
    """What a run without verdicts and views leaves: a line and a failure, both asked in a chat."""
    one = Knowledge.make(
        "statement",
        "It barks",
        DOG.id,
        fields={"finish_reason": "length", "samples": [0], "terms": "CC-BY"},
        lineage=(occasion("key-0"),),
    )
    other = Failure.make(DOG.id, 1, "key-1", kind="refused", reason=reason, attempts=2)
    write_records(folder / "tables" / "items.parquet", Item, [DOG])
    write_records(folder / "tables" / "knowledge.parquet", Knowledge, [one])
    write_records(folder / "tables" / "failures.parquet", Failure, [other])
    request = {"prompt": CHAT, "sample_index": 0}
    call = Call("key-0", "teacher", "openai:x", request, {"text": "It barks"}, 3, 5, 0.25, 0.5)
    failed = FailedCall(
        "key-1", "teacher", "openai:x", {**request, "sample_index": 1}, "refused", reason, 2
    )
    ledger = Ledger(folder / "ledger.sqlite")
    ledger.record([call], [failed])
    ledger.close()
    return one, other


def test_a_line_of_a_chat_shows_its_messages(tmp_path: Path) -> None:
    one, _ = asked(tmp_path)
    said = shown(tmp_path, one.id)
    for told in ("system: Be brief.", "user: A dog?", "length", "CC-BY", "0.500000 USD", "dog"):
        assert told in said
    assert "judged" not in said and "students" not in said


def test_a_failure_says_why(tmp_path: Path) -> None:
    _, other = asked(tmp_path)
    said = shown(tmp_path, other.id[:8])
    for told in ("refused: the server's filter", "openai:x", "user: A dog?", "dog", other.id):
        assert told in said
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.forget_failures()
    ledger.close()
    assert "not in the ledger" in shown(tmp_path, other.id)


@pytest.mark.parametrize("text", HOSTILE)
def test_the_reason_of_a_failure_is_shown_as_text(tmp_path: Path, text: str) -> None:
    _, other = asked(tmp_path, text)
    said = shown(tmp_path, other.id)
    for control in "\x1b\x9b\x07\x08\r\u202e\u2066\u200f\x00":
        assert control not in said


def test_a_whole_id_is_meant_before_those_that_begin_with_it() -> None:
    assert the_one("x1", ["x1", "x1-2"], "a line") == "x1"
    assert the_one("x1-", ["x1", "x1-2"], "a line") == "x1-2"
    for begins, words in (("x", "several"), ("y", "none that begins"), ("", "none")):
        with pytest.raises(InputError, match=words):
            the_one(begins, ["x1", "x1-2"], "a line")
