"""Phrases match as the language says, and every constraint survives being written down."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symdistill.constraints import (
    AllOf,
    Constraint,
    all_of,
    any_of,
    at_most,
    contains,
    excludes,
    from_file,
    from_json,
)
from symdistill.errors import InputError

pytestmark = pytest.mark.unit

LETTERS = "abBé'3_- \n"
texts = st.text(alphabet=LETTERS, max_size=16)
plain = st.text(alphabet=LETTERS, min_size=1, max_size=4).filter(
    lambda one: any(c.isalnum() or c == "_" for c in one)
)
starred = st.tuples(st.sampled_from(["", "*"]), plain, st.sampled_from(["", "*"])).map("".join)
sets = st.lists(starred, min_size=1, max_size=4)
clauses = st.one_of(
    sets.map(lambda some: contains(any_of(some))),
    sets.map(lambda some: excludes(any_of(some))),
    st.tuples(st.integers(0, 3), sets).map(lambda pair: at_most(*pair)),
)
formulas = st.lists(clauses, max_size=4).map(lambda some: all_of(*some))


def spans(phrase: str, text: str, before: str = "") -> set[tuple[int, int]]:
    """Matches by the definition, as a regular expression tried at every place."""
    inner = phrase.split()
    left, right = inner[0].startswith("*"), inner[-1].endswith("*")
    bare = " ".join(inner).removeprefix("*").removesuffix("*").split()
    expression = re.compile(r"\s+".join(map(re.escape, bare)), re.IGNORECASE)
    found = set()
    for start in range(len(text)):
        match = expression.match(text, start)
        if match is None:
            continue
        ahead = (before + text)[: len(before) + start][-1:]
        behind = text[match.end() : match.end() + 1]
        word = re.compile(r"\w")
        if not left and word.match(bare[0][0]) and word.match(ahead):
            continue
        if not right and word.match(bare[-1][-1]) and word.match(behind):
            continue
        found.add((start, match.end()))
    return found


@given(starred, texts, st.sampled_from(["", "a", "the ", "é", "'"]))
def test_matches_are_those_of_the_definition(phrase: str, text: str, before: str) -> None:
    status = at_most(0, phrase).explain(text, before)[0]
    assert {(one.start, one.end) for one in status.matches} == spans(phrase, text, before)
    assert status.count == len(status.matches)


@given(sets, texts, st.integers(0, 3))
def test_clauses_bound_the_number_of_matches(phrases: list[str], text: str, limit: int) -> None:
    kept = any_of(phrases)
    count = sum(len(spans(phrase, text)) for phrase in kept.phrases)
    assert contains(kept).verify(text) == (count >= 1)
    assert excludes(kept).verify(text) == (count == 0)
    assert at_most(limit, kept).verify(text) == (count <= limit)


@given(formulas, texts, st.sampled_from(["", "a", " "]))
def test_verify_is_what_explain_says(formula: Constraint, text: str, before: str) -> None:
    statuses = formula.explain(text, before)
    assert formula.verify(text, before) == all(one.satisfied for one in statuses)
    for one in statuses:
        kept = one.count <= one.limit if one.bound == "at_most" else one.count >= one.limit
        assert one.satisfied == kept


@given(formulas)
def test_json_and_python_forms_come_back(formula: Constraint) -> None:
    assert from_json(json.loads(json.dumps(formula.to_json()))) == formula
    names = {"contains": contains, "excludes": excludes, "at_most": at_most, "any_of": any_of}
    again = eval(str(formula), {**names, "all_of": all_of})
    assert again == formula
    assert hash(again) == hash(formula)
    assert again.fingerprint == formula.fingerprint


@given(st.lists(clauses, min_size=1, max_size=4), texts, st.randoms())
def test_order_and_repeats_do_not_change_the_verdict(
    some: list[Constraint], text: str, random: object
) -> None:
    shuffled = some + some
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert all_of(*some).verify(text) == all_of(*shuffled).verify(text)
    assert len(all_of(*shuffled).clauses) == len(set(some))


@given(formulas, texts)
def test_what_contradicts_itself_is_never_true(formula: Constraint, text: str) -> None:
    if formula.contradictions():
        assert not formula.verify(text)


@given(sets, sets, st.sampled_from(["", "a", "b", " ", "'"]), st.sampled_from(["", "a", " "]))
def test_contradictions_hold_around_the_phrase_itself(
    wanted: list[str], banned: list[str], left: str, right: str
) -> None:
    """The text most likely to show a wrong one: the wanted phrase with something around it."""
    formula = contains(any_of(wanted)) & excludes(any_of(banned))
    if formula.contradictions():
        for phrase in wanted:
            assert not formula.verify(left + phrase.strip("*") + right)


@pytest.mark.parametrize(
    ("phrase", "text", "matches"),
    [
        ("dog", "Dogs and DOG.", 1),
        ("dog", "hotdog", 0),
        ("dog", "dog_1 dog-like dog's", 2),
        ("it", "it's", 1),
        ("n't", "don't", 0),
        ("*n't", "I don't, can’t, won't", 3),
        ("can not", "can\n  not", 1),
        ("un*", "unkind, until, fun", 2),
        ("'s", "the dog's", 1),
        ("e.g.", "see e.g.this", 1),
        ("aa", "aa aa aaa", 2),
        ("a a", "a a a", 2),
        ("café", "CAFÉ", 1),
        ("cafe", "cafe\u0301", 0),  # an accent of its own belongs to the word
        ("strasse", "Straße", 0),
        ("*x", "**x", 1),
    ],
)
def test_words_boundaries_case_and_apostrophes(phrase: str, text: str, matches: int) -> None:
    assert at_most(0, phrase).explain(text)[0].count == matches


def test_every_pair_of_start_and_phrase_counts() -> None:
    status = at_most(1, ["in", "in front", "front of", "IN"]).explain("in front of")[0]
    assert [(one.start, one.end, one.phrase) for one in status.matches] == [
        (0, 2, "in"),
        (0, 8, "in front"),
        (3, 11, "front of"),
    ]
    assert not status.satisfied


def test_only_the_continuation_is_searched_but_the_prompt_bounds_it() -> None:
    assert excludes("dog").verify("s bark", before="dog")
    assert excludes("dog").verify("dog", before="hot")
    assert not excludes("dog").verify("dog", before="hot ")
    assert excludes("hot dog").verify(" dog", before="hot")


def test_explain_says_what_met_each_clause() -> None:
    formula = contains(any_of("dog", "dogs")) & at_most(1, ["a", "the"]) & excludes("cat")
    has, few, none = formula.explain("The dog sees the cat")
    assert (has.clause, has.satisfied, has.bound, has.limit) == (
        "contains(any_of('dog', 'dogs'))",
        True,
        "at_least",
        1,
    )
    assert (few.satisfied, few.count, few.limit) == (False, 2, 1)
    assert none.matches[0].phrase == "cat" and none.matches[0][:2] == (17, 20)


def test_strings_and_json_are_as_documented() -> None:
    formula = contains("dog") & excludes(any_of("cat", "cats")) & at_most(2, ["a"])
    assert str(formula) == "contains('dog') & excludes(any_of('cat', 'cats')) & at_most(2, 'a')"
    assert formula.to_json() == {
        "all_of": [
            {"contains": "dog"},
            {"excludes": {"any_of": ["cat", "cats"]}},
            {"at_most": 2, "of": "a"},
        ]
    }
    assert all_of() == AllOf(())
    assert all_of().verify("anything")


def test_contradictions_are_named() -> None:
    formula = contains("hot dog") & excludes("dog") & excludes("cat")
    (shown,) = formula.contradictions()
    assert (shown.first, shown.second) == ("contains('hot dog')", "excludes('dog')")
    assert "cannot both hold" in str(shown)
    assert not (contains(any_of("hot dog", "sausage")) & excludes("dog")).contradictions()
    assert not (contains("hotdog") & excludes("dog")).contradictions()
    assert not (contains("*dog") & excludes("dog")).contradictions()
    assert (contains("a b a") & at_most(1, "a")).contradictions()


@pytest.mark.parametrize(
    "phrase", ["", "  ", "...", "*", "**", "x" * 201, "a\ufffd", 3, None, b"a"]
)
def test_unusable_phrases_are_refused(phrase: object) -> None:
    with pytest.raises(InputError, match="expected a phrase"):
        any_of(phrase)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [-1, 1.5, True, "1", 10_001])
def test_unusable_counts_are_refused(limit: object) -> None:
    with pytest.raises(InputError, match="expected a count"):
        at_most(limit, "a")  # type: ignore[arg-type]


def test_a_list_where_any_or_all_could_be_meant_is_refused() -> None:
    with pytest.raises(InputError, match="any_of"):
        contains(["dog", "cat"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="any_of"):
        excludes(["dog", "cat"])  # type: ignore[arg-type]


def test_too_many_phrases_are_refused() -> None:
    with pytest.raises(InputError, match="10,000"):
        any_of(f"w{i}" for i in range(10_001))
    with pytest.raises(InputError, match="at least one"):
        any_of()


@pytest.mark.parametrize(
    "value",
    [
        {"contains": "a", "case": True},
        {"include": "a"},
        {"at_most": 1},
        {"at_most": -1, "of": "a"},
        {"contains": ["a"]},
        {"contains": {"any_of": "ab"}},
        {"contains": {"any_of": ["a"], "lemma": True}},
        {"excludes": {"any_of": [1]}},
        {"all_of": {"contains": "a"}},
        {},
        [],
        "contains('a')",
        None,
    ],
)
def test_json_that_says_something_else_is_refused(value: object) -> None:
    with pytest.raises(InputError):
        from_json(value)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    formula = contains("café") & at_most(1, ["a", "the"])
    path.write_text(json.dumps(formula.to_json()), encoding="utf-8")
    assert from_file(path) == formula
    for content in (b"{", b"\xff\xfe", b'{"contains": ""}', b'{"all_of":[' * 100_000):
        path.write_bytes(content)
        with pytest.raises(InputError, match=re.escape(str(path))):
            from_file(path)
    with pytest.raises(InputError, match="nowhere"):
        from_file(tmp_path / "nowhere.json")
