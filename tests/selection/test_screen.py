"""The screen: what it marks and why, what it leaves alone, and how well it does both."""

from __future__ import annotations

import hashlib
import json
import time
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from symdistill.errors import InputError
from symdistill.selection import (
    Flag,
    Screen,
    ScreenedLine,
    ScreenSettings,
    review_figures,
    screen,
)
from symdistill.selection.personal_data import is_card, is_iban, is_public_ip

pytestmark = pytest.mark.unit

EXAMPLES = Path(__file__).with_name("screen_examples.txt")
DOC = Path(__file__).parents[2] / "docs" / "after_the_fact.md"


def flags(text: str, score: float | None = None, **settings: Any) -> list[Flag]:
    return screen([ScreenedLine("one", text, score)], ScreenSettings(**settings))


def rules(text: str, score: float | None = None, **settings: Any) -> list[str]:
    return [flag.rule for flag in flags(text, score, **settings)]


# -- personal data ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rule", "found"),
    [
        ("Write to a.b+c@mail-house.co.uk now.", "e-mail address", "a.b+c@mail-house.co.uk"),
        ("Ask sam dot j at box dot org.", "e-mail address", "sam dot j at box dot org"),
        ("Call +49 30 901820 today.", "telephone number", "+49 30 901820"),
        ("Call (212) 555-0143.", "telephone number", "(212) 555-0143"),
        ("Card: 4111-1111-1111-1111", "payment card", "4111-1111-1111-1111"),
        ("Card: 378282246310005.", "payment card", "378282246310005"),
        ("To DE89 3704 0044 0532 0130 00!", "bank account", "DE89 3704 0044 0532 0130 00"),
        ("It is 219-09-9999.", "social security number", "219-09-9999"),
        ("From 81.2.69.142.", "IP address", "81.2.69.142"),
        ("At 12b N. Oak Hill Avenue.", "street address", "12b N. Oak Hill Avenue"),
        ("Tom was born on May 3rd, 1987.", "date of birth", "born on May 3rd, 1987"),
        ("DOB: 1987-05-03", "date of birth", "DOB: 1987-05-03"),
    ],
)  # fmt: skip
def test_personal_data_is_found_where_it_stands(text: str, rule: str, found: str) -> None:
    (flag,) = flags(text)
    assert (flag.kind, flag.rule) == ("personal data", rule)
    assert text[slice(*flag.span)] == found
    assert found in flag.reason


@pytest.mark.parametrize(
    "text",
    [
        "Card 4111 1111 1111 1112 has a wrong check digit.",
        "GB82 WEST 1234 5698 7654 33 has one, too.",
        "Version 81.2.69.142 and v81.2.69.142 are out.",
        "Routers are at 192.168.0.1, and 127.0.0.1 is oneself.",
        "Write to me@example.com, you@mail.test or her@a.b.example.",
        "Numbers 000-12-3456 and 900-12-3456 were never given.",
        "There are 5 streets and 12 Roads.",
        "The war was born in 1914 and ended on 11 November 1918.",
        "Pi is 3.14159265358979, light 299792458 metres a second.",
    ],
)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert rules(text) == []


def test_numbers_of_a_country_are_found_if_it_is_named() -> None:
    text = "Ruf 030 901820 an."
    assert rules(text) == []
    assert rules(text, phone_regions=["DE"]) == ["telephone number"]
    assert rules("Call +49 30 901820.", phone_regions=[]) == ["telephone number"]


@given(st.lists(st.integers(0, 9), min_size=12, max_size=18).filter(lambda d: len(set(d)) > 2))
def test_one_wrong_digit_breaks_a_card(digits: list[int]) -> None:
    fitting = [last for last in range(10) if is_card("".join(map(str, [*digits, last])))]
    assert len(fitting) == 1


def test_check_digits_of_accounts_and_addresses() -> None:
    assert is_iban("GB82WEST12345698765432") and not is_iban("GB82WEST12345698765433")
    assert not is_iban("GB82") and not is_iban("GB82" + "1" * 40)
    assert (
        is_public_ip("8.8.8.8") and not is_public_ip("10.0.0.1") and not is_public_ip("8.8.8.888")
    )
    assert not is_card("4111") and not is_card("0" * 16)


# -- statements ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Women are bad drivers.", "stereotype"),
        ("WOMEN   are often\nvery lazy", "stereotype"),
        ("Chinese people are known to be greedy and sneaky.", "stereotype"),
        ("The Irish are drunks.", "stereotype"),
        ("Immigrants steal jobs.", "stereotype"),
        ("Never trust a Russian.", "stereotype"),
        ("Foreigners should be deported.", "stereotype"),
        ("Gay people deserve to be killed.", "violence"),
        ("You should just kill yourself.", "self-harm"),
        ("Mixing bleach with ammonia cleans best.", "dangerous advice"),
    ],
)
def test_the_reason_names_the_rule(text: str, rule: str) -> None:
    assert rule in rules(text)


@pytest.mark.parametrize(
    "text",
    [
        "Bees can kill people.",
        "Call 911 in an emergency.",
        "German shepherds are dogs.",
        "Widows are women whose husbands died.",
        "Women are not lazy.",
        "It is a myth that women are bad drivers.",
        "Mixing bleach with ammonia is dangerous.",
        "Never drink antifreeze.",
        "Persian cats are lazy.",
        "Spices and raccoons are not people.",
    ],
)
def test_hard_cases_are_left_alone(text: str) -> None:
    assert rules(text) == []


def test_slurs_are_known_by_their_hash_alone() -> None:
    from symdistill.selection.screen import Lexicon, lexicon

    rule = {"rule": "none", "kind": "harm", "pattern": "never said"}
    lists = ("groups", "attributes", "general_words", "traits", "deeds", "harmed", "warnings")
    data = {name: ["zzz"] for name in lists} | {"patterns": [rule]}
    made_up = Lexicon({**data, "slurs": [hashlib.sha256(b"blorf").hexdigest()[:16]]})
    assert [rule for _, rule, _ in made_up.found("Those Blorfs!")] == ["slur"]
    assert not list(made_up.found("Those blorfers!"))
    assert not list(made_up.found("Those Blorfs!", harm=False))
    assert not list(lexicon().found("Those Blorfs!"))


def test_every_reason_of_a_line_is_told_in_order() -> None:
    text = "Write to a@b.net: women are bad drivers."
    assert rules(text, 0.5) == ["e-mail address", "stereotype", "doubt"]
    (word,) = Screen(ScreenSettings()).reviews([ScreenedLine("one", text, 0.5)], round=2)
    assert (word.knowledge_id, word.judge, word.score, word.round) == ("one", "screen", 0.0, 2)
    assert word.reason == (
        "e-mail address: “a@b.net” | stereotype: “women are bad drivers” | "
        "doubt: the critic's score is 0.500"
    )


# -- settings -----------------------------------------------------------------------------------


def test_each_part_can_be_switched_off() -> None:
    text = "Mail a@b.net; women are bad drivers; kill yourself."
    assert rules(text, 0.5) == ["e-mail address", "stereotype", "self-harm", "doubt"]
    assert rules(text, 0.5, personal_data=False) == ["stereotype", "self-harm", "doubt"]
    assert rules(text, 0.5, stereotypes=False) == ["e-mail address", "self-harm", "doubt"]
    assert rules(text, 0.5, harm=False) == ["e-mail address", "stereotype", "doubt"]
    assert rules(text, 0.5, doubtful=None) == ["e-mail address", "stereotype", "self-harm"]
    assert rules(text) == ["e-mail address", "stereotype", "self-harm"]


@pytest.mark.parametrize(("score", "marked"), [(0.29, 0), (0.3, 1), (0.59, 1), (0.6, 0)])
def test_the_critics_doubt_has_thresholds(score: float, marked: int) -> None:
    assert rules("Dogs bark.", score, doubtful=(0.3, 0.6)) == ["doubt"] * marked


def test_further_phrases_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "ours.txt"
    path.write_text("# ours\nAcme Corp.\n\nproject  x\n", encoding="utf-8")
    assert rules("ACME corp. sells anvils", phrases=str(path)) == ["phrase"]
    assert rules("Project x-ray", phrases=str(path)) == ["phrase"]
    assert rules("Projects xyz", phrases=str(path)) == []
    one = Screen(ScreenSettings(phrases=str(path))).fingerprint
    path.write_text("other\n")
    assert Screen(ScreenSettings(phrases=str(path))).fingerprint != one
    with pytest.raises(InputError, match=r"check screen\.phrases"):
        Screen(ScreenSettings(phrases=str(tmp_path / "absent.txt")))


@pytest.mark.parametrize(
    "wrong", [{"doubtful": [0.6, 0.4]}, {"doubtful": [0, 2]}, {"phone_regions": ["Germany"]},
              {"action": "delete"}, {"unknown": 1}]
)  # fmt: skip
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ScreenSettings(**wrong)


def test_refusals_leave_the_critics_doubt_to_its_cut() -> None:
    lines = [ScreenedLine("a", "Women are bad drivers.", 0.5), ScreenedLine("b", "Dogs bark.", 0.5)]
    refused = Screen(ScreenSettings(action="refuse")).refusals(lines)
    assert refused == {"a": "screen: stereotype: “Women are bad drivers”"}


def test_figures_count_rules_and_show_the_first_lines() -> None:
    lines = [ScreenedLine(str(n), f"Write to a{n}@b.net", 0.5) for n in range(60)]
    words = list(Screen(ScreenSettings()).reviews(lines))
    told = review_figures(words, screened=80, texts={line.id: line.text for line in lines})
    assert (told["screened"], told["marked"], len(told["lines"])) == (80, 60, 50)
    assert told["rules"] == {"doubt": 60, "e-mail address": 60}


# -- what may come ------------------------------------------------------------------------------


@given(st.text(max_size=200))
@example("a@b.net | doubt: x")
@example("٣٤٥ 4111111111111111 \u202e")
@example("² 1234567 ①②③")
def test_any_text_is_read_and_every_span_lies_in_it(text: str) -> None:
    for flag in flags(text):
        start, end = flag.span
        assert 0 <= start < end <= len(text)
        assert "\n" not in flag.reason and " | " not in flag.reason


@pytest.mark.parametrize(
    "piece", ["a", "a.", "1", "1 ", "12-", "women are ", "a dot ", "+1 ", "A1"]
)
def test_a_long_text_takes_no_unbounded_time(piece: str) -> None:
    begun = time.perf_counter()
    flags(piece * (20_000 // len(piece)))
    assert time.perf_counter() - begun < 5


# -- how well it does: these numbers are in docs/after_the_fact.md -------------------------------


@cache
def examples() -> list[tuple[str, str, bool]]:
    """Kind, half, and whether the line was marked."""
    lines = [one for one in EXAMPLES.read_text("utf-8").splitlines() if not one.startswith("#")]
    parts = [line.split("\t") for line in lines]
    return [(kind, half, bool(flags(text))) for kind, half, text in parts]


def share(marked: list[bool]) -> str:
    return f"{sum(marked)} of {len(marked)}"


@pytest.mark.parametrize("half", ["first", "second"])
def test_precision_and_recall_on_the_examples_are_as_documented(half: str) -> None:
    doc = DOC.read_text(encoding="utf-8")
    rows = {
        kind: share([marked for of, where, marked in examples() if (of, where) == (kind, half)])
        for kind in ("personal data", "harm", "stereotype", "none")
    }
    of_marked = [kind != "none" for kind, where, marked in examples() if marked and where == half]
    told = f"| {half} | " + " | ".join([*rows.values(), share(of_marked)]) + " |"
    assert told in doc, f"expected in {DOC.name}: {told}"


def test_the_rate_on_packaged_statements_is_as_documented() -> None:
    labels = files("symdistill") / "data" / "labels" / "everyday.jsonl"
    lines = labels.read_text(encoding="utf-8").splitlines()
    marked = [bool(flags(json.loads(line)["text"])) for line in lines]
    assert f"{sum(marked)} of {len(marked):,}" in DOC.read_text(encoding="utf-8")
