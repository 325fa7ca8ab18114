"""Phrases match as the language says, and every constraint survives being written down."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from functools import reduce
from itertools import product
from operator import and_, or_
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symdistill.constraints import (
    AllOf,
    AtLeast,
    AtMost,
    Constraint,
    Contains,
    Either,
    Excludes,
    Tokens,
    all_of,
    any_of,
    at_least,
    at_most,
    contains,
    either,
    exactly,
    excludes,
    from_file,
    from_json,
    inflections,
    tokens,
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


@given(st.lists(clauses, min_size=1, max_size=4), texts, st.randoms())
def test_order_and_repeats_do_not_change_the_verdict(
    some: list[Constraint], text: str, random: object
) -> None:
    shuffled = some + some
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert all_of(*some).verify(text) == all_of(*shuffled).verify(text)
    assert len(all_of(*shuffled).clauses) == len(set(some))


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
    assert shown.clauses == ("contains('hot dog')", "excludes('dog')")
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


@pytest.mark.parametrize(
    "limit", [-1, 1.5, True, "1", 10_002, pytest.param(10**5000, id="endless")]
)
@pytest.mark.parametrize("bound", [at_most, at_least, exactly])
def test_unusable_counts_are_refused(bound: Callable[..., Constraint], limit: object) -> None:
    with pytest.raises(InputError, match="expected a count"):
        bound(limit, "a")


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
        {"either": {"contains": "a"}},
        {"not": [{"contains": "a"}]},
        pytest.param({"at_least": 10**5000, "of": "a"}, id="endless"),
        {"exactly": True, "of": "a"},
        {"exactly": 1, "of": []},
        {"contains": {"tokens": [-1]}},
        {"contains": {"tokens": [True]}},
        {"contains": {"tokens": []}},
        {"contains": {"any_of": [{"any_of": ["a"]}]}},
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
    endless = b'{"at_most": ' + b"9" * 5000 + b', "of": "a"}'
    for content in (b"{", b"\xff\xfe", b'{"contains": ""}', b'{"all_of":[' * 100_000, endless):
        path.write_bytes(content)
        with pytest.raises(InputError, match=re.escape(str(path))):
            from_file(path)
    with pytest.raises(InputError, match="nowhere"):
        from_file(tmp_path / "nowhere.json")


# ------------------------------------------------------------------ formulas

# Every text of the small world is written by tokens: 0 "a", 1 "b", 2 " ", 3 "ab".
WRITES = ["a", "b", " ", "ab"]
SMALL = ["a", "b", "ab", "aa", "a b", "b a", "*a", "b*", "*b*", tokens(0), tokens(3), tokens(0, 1)]
NAMES = {
    each.__name__: each
    for each in (contains, excludes, at_most, at_least, exactly, any_of, tokens, all_of, either)
}
Truth = Callable[[tuple[int, ...]], bool]
Written = tuple[Constraint, Truth]  # a formula, and whether it holds, by the definition


def written(ids: tuple[int, ...]) -> str:
    return "".join(WRITES[one] for one in ids)


def number(phrases: tuple[str | Tokens, ...], ids: tuple[int, ...]) -> int:
    """How many matches there are, by the definition."""
    count = 0
    for one in phrases:
        if isinstance(one, Tokens):
            count += sum(ids[i : i + len(one.ids)] == one.ids for i in range(len(ids)))
        else:
            count += len(spans(one, written(ids)))
    return count


def bounded(name: str, n: int, some: list[str | Tokens]) -> Written:
    kept = any_of(some)
    truths: dict[str, tuple[Constraint, Callable[[int], bool]]] = {
        "contains": (contains(kept), lambda count: count > 0),
        "excludes": (excludes(kept), lambda count: count == 0),
        "at_most": (at_most(n, kept), lambda count: count <= n),
        "at_least": (at_least(n, kept), lambda count: count >= n),
        "exactly": (exactly(n, kept), lambda count: count == n),
    }
    made, holds = truths[name]
    return made, lambda ids: holds(number(kept.phrases, ids))


def opposite(one: Written) -> Written:
    return ~one[0], lambda ids: not one[1](ids)


def joined(parts: list[Written], how: Any, truth: Callable[..., bool], operator: Any) -> Written:
    made = [part[0] for part in parts]
    formula = how(*made) if len(made) != 2 else reduce(operator, made)
    return formula, lambda ids: truth(part[1](ids) for part in parts)


bounds = st.builds(
    bounded,
    st.sampled_from(["contains", "excludes", "at_most", "at_least", "exactly"]),
    st.integers(0, 3),
    st.lists(st.sampled_from(SMALL), min_size=1, max_size=3),
)
some_formulas = st.recursive(
    bounds,
    lambda inner: st.one_of(
        inner.map(opposite),
        st.lists(inner, max_size=3).map(lambda parts: joined(parts, all_of, all, and_)),
        st.lists(inner, max_size=3).map(lambda parts: joined(parts, either, any, or_)),
    ),
    max_leaves=6,
)
few = [ids for size in range(4) for ids in product(range(4), repeat=size)]
many = [ids for size in range(6) for ids in product(range(4), repeat=size)]


def holds(formula: Constraint, ids: tuple[int, ...]) -> bool:
    return formula.verify(written(ids), token_ids=ids)


@settings(max_examples=150)
@given(some_formulas)
def test_the_normal_form_means_what_was_written(one: Written) -> None:
    formula, truth = one
    shorter = formula.simplified()
    assert len(shorter.clauses) <= len(formula.clauses)
    for ids in few:
        expected = truth(ids)
        assert holds(formula, ids) == expected
        assert holds(shorter, ids) == expected
        clauses = [any(holds(lit, ids) for lit in each.literals) for each in formula.clauses]
        assert all(clauses) == expected
        statuses = formula.explain(written(ids), token_ids=ids)
        assert [status.satisfied for status in statuses] == clauses
        for each in (one for status in statuses for one in (status, *status.literals)):
            few_enough, enough = each.count <= each.limit, each.count >= each.limit
            assert each.satisfied == (few_enough if each.bound == "at_most" else enough)


@given(some_formulas)
def test_json_and_python_forms_come_back(one: Written) -> None:
    formula, _ = one
    assert from_json(json.loads(json.dumps(formula.to_json()))) == formula
    again = eval(str(formula), dict(NAMES))
    assert again == formula
    assert hash(again) == hash(formula)
    assert again.fingerprint == formula.fingerprint


def test_clauses_are_distinct_disjunctions_of_literals() -> None:
    a, b, c = contains("a"), contains("b"), contains("c")
    assert (a & b & a).clauses == (a, b)
    assert (a | b | a).clauses == (Either((a, b)),)
    assert (a | (b & c)).clauses == (Either((a, b)), Either((a, c)))
    assert a | a == a
    apart = (a & ~b) | (~a & b)
    assert apart.clauses == (Either((a, b)), Either((~b, ~a)))  # "a or not a" is left out
    assert not apart.tautologies()
    assert ((a & b) | (a & c)).clauses == (a, Either((b, c)))
    assert (b | (a & (b | c))).clauses == (Either((b, a)), Either((b, c)))
    parity = contains("w0")
    for i in range(1, 6):
        other = contains(f"w{i}")
        parity = (parity & ~other) | (~parity & other)
    assert len(parity.clauses) == 32


def test_negation_goes_down_to_the_literals() -> None:
    words = any_of("a", "b")
    assert ~contains(words) == excludes(words)
    assert ~at_most(2, words) == at_least(3, words) == AtLeast(words.phrases, 3)
    assert ~at_least(3, words) == at_most(2, words)
    assert ~~at_least(3, words) == at_least(3, words)
    assert ~exactly(2, words) == at_most(1, words) | at_least(3, words)
    assert at_least(1, words) == contains(words)
    assert exactly(0, words) == excludes(words)
    assert at_least(0, words) == all_of() == ~either()
    assert ~all_of() == either()
    assert not either().verify("anything")
    assert from_json((~at_most(10_000, "a")).to_json()) == at_least(10_001, "a")


def test_literals_say_what_they_bound() -> None:
    literal = at_most(2, ["Dog", tokens(3, 1)])
    assert literal.phrases == ("Dog", tokens(3, 1))
    assert [one.characters for one in literal.patterns] == ["dog"]
    assert literal.token_phrases == ((3, 1),)
    shown = [
        (one.positive, one.threshold, one.least, one.most)  # type: ignore[attr-defined]
        for one in (contains("a"), excludes("a"), literal, at_least(3, "a"))
    ]
    assert shown == [(True, 1, 1, None), (False, 1, 0, 0), (False, 3, 0, 2), (True, 3, 3, None)]
    assert literal.literals == literal.clauses == (literal,)


FINGERPRINT = "e4503a44d923dcc1"
FINGERPRINTS = ["cdd7de5bf09bee3f", "a749846d149bd1b3", "bc909a9258aa5347"]


def test_how_single_literals_are_written_down_is_fixed() -> None:
    """Run folders carry these fingerprints: they may not change."""
    formula = contains("dog") & excludes(any_of("cat", "cats")) & at_most(2, ["a", "the"])
    assert repr(formula.clauses) == (
        "(Contains(phrases=('dog',)), Excludes(phrases=('cat', 'cats')), "
        "AtMost(phrases=('a', 'the'), limit=2))"
    )
    assert formula.fingerprint == FINGERPRINT
    assert [one.fingerprint for one in formula.clauses] == FINGERPRINTS
    assert (Contains(("dog",)), Excludes(("cat", "cats"))) == formula.clauses[:2]
    assert AtMost(("a", "the"), 2) == formula.clauses[2]


def test_the_json_form_of_disjunctions_negations_and_counts() -> None:
    value = {
        "all_of": [
            {"not": {"either": [{"contains": "a"}, {"exactly": 0, "of": "b"}]}},
            {"either": [{"at_least": 2, "of": "c"}, {"contains": {"tokens": [318, 257]}}]},
            {"exactly": 2, "of": {"any_of": ["d", {"tokens": [5]}]}},
        ]
    }
    formula = from_json(value)
    assert str(formula) == (
        "excludes('a') & contains('b') & (at_least(2, 'c') | contains(tokens(318, 257))) "
        "& at_least(2, any_of('d', tokens(5))) & at_most(2, any_of('d', tokens(5)))"
    )
    assert formula.to_json()["all_of"][2] == value["all_of"][1]
    assert from_json(formula.to_json()) == formula


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        *(
            st.fixed_dictionaries({key: inner for key in keys})
            for keys in (
                *(["contains"], ["excludes"], ["all_of"], ["either"], ["not"]),
                *(["at_most", "of"], ["at_least", "of"], ["exactly", "of"]),
                *(["tokens"], ["any_of"], ["of"]),
            )
        ),
        st.fixed_dictionaries({"all_of": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"either": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"any_of": st.lists(st.text(max_size=2), max_size=2)}),
        st.fixed_dictionaries({"tokens": st.lists(st.integers(), max_size=2)}),
    ),
    max_leaves=8,
)


@settings(max_examples=400)
@given(json_values)
def test_any_json_is_a_constraint_or_an_input_error(value: Any) -> None:
    try:
        formula = from_json(value)
    except InputError:
        return
    assert from_json(formula.to_json()) == formula


@pytest.mark.parametrize("key", ["not", "all_of", "either"])
def test_deep_nesting_is_an_input_error(key: str) -> None:
    value: Any = {"contains": "a"}
    for _ in range(100_000):
        value = {key: value if key == "not" else [value]}
    with pytest.raises(InputError, match="nested too deeply"):
        from_json(value)
    while isinstance(value, dict) and key in value:  # freed level by level
        value = value[key] if key == "not" else value[key][0]


# ------------------------------------------------------------------ before any text is written


def shows_what_it_says(formula: Constraint) -> tuple[bool, bool]:
    """Checks all that is reported against every short text; whether there was anything."""
    by_name = {str(clause): clause for clause in formula.clauses}
    conflicts, trivial = formula.contradictions(), formula.tautologies()
    for shown in conflicts:
        together = all_of(*(by_name[name] for name in shown.clauses))
        assert not any(holds(together, ids) for ids in many), str(shown)
    for one in trivial:
        assert all(holds(by_name[one.clause], ids) for ids in many), str(one)
        assert set(one.literals) <= {str(each) for each in by_name[one.clause].literals}
    return bool(conflicts), bool(trivial)


few_bounds = st.builds(
    bounded,
    st.sampled_from(["contains", "excludes", "at_most", "at_least"]),
    st.integers(1, 3),
    st.lists(st.sampled_from(SMALL), min_size=1, max_size=2),
).map(lambda one: one[0])


@settings(max_examples=80)
@given(st.lists(st.lists(few_bounds, min_size=1, max_size=3), min_size=1, max_size=4))
def test_reported_contradictions_and_tautologies_are_some(parts: list[list[Constraint]]) -> None:
    shows_what_it_says(all_of(*(either(*some) for some in parts)))


@settings(max_examples=80)
@given(few_bounds, few_bounds)
def test_pairs_show_what_they_say(first: Constraint, second: Constraint) -> None:
    shows_what_it_says(first & second)
    shows_what_it_says(first | second)
    assert bool((first & second).contradictions()) == bool((~first | ~second).tautologies())


@given(some_formulas)
def test_what_contradicts_itself_is_never_true(one: Written) -> None:
    formula, truth = one
    if formula.contradictions():
        assert not any(map(truth, few))


def test_conflicts_of_counts_are_named() -> None:
    def names(formula: Constraint) -> list[tuple[str, ...]]:
        return [shown.clauses for shown in formula.contradictions()]

    assert names(at_least(3, ["a", "b"]) & at_most(2, ["a", "b", "c"]))
    assert not names(at_least(3, ["a", "b"]) & at_most(2, ["a", "c"]))
    assert not names(at_least(2, ["a", "b"]) & at_most(2, ["a", "b", "c"]))
    assert names(at_least(3, "hot dog") & at_most(2, "dog"))
    assert not names(at_least(2, "hot dog") & at_most(2, "dog"))
    assert names(at_least(2, "a b a") & at_most(2, "a"))  # "a b a b a" has three
    assert not names(at_least(2, "a b a") & at_most(3, "a"))
    assert not names(at_least(2, ["a b", "b a"]) & at_most(1, "b"))  # "a b a" has one
    assert names(contains(tokens(1, 2, 3)) & excludes(tokens(2, 3)))
    assert not names(contains(tokens(1, 2)) & excludes("a"))
    assert names(exactly(2, "a") & exactly(3, "a")) == [("at_least(3, 'a')", "at_most(2, 'a')")]
    assert names(either()) == [("either()",)]


def test_conflicts_are_followed_through_disjunctions() -> None:
    dog, cat, bird = map(contains, ("dog", "cat", "bird"))
    (shown,) = ((dog | cat) & ~dog & bird & ~cat).contradictions()
    assert shown.clauses == (
        "contains('dog') | contains('cat')",
        "excludes('dog')",
        "excludes('cat')",
    )
    assert str(shown) == (
        "(contains('dog') | contains('cat')), excludes('dog') and excludes('cat') cannot all hold: "
        "excludes('dog') rules out contains('dog'), excludes('cat') rules out contains('cat')"
    )
    (chained,) = ((dog | cat) & ~dog & (~cat | bird) & (excludes("bird") | dog)).contradictions()
    assert len(chained.clauses) == 4
    assert not ((dog | cat) & (~dog | ~cat)).contradictions()


def test_tautologies_are_named() -> None:
    clause = contains("dog") | contains("cat") | excludes("hot dog")
    (shown,) = (clause & contains("bird")).tautologies()
    assert shown.clause == str(clause)
    assert shown.literals == ("excludes('hot dog')", "contains('dog')")
    assert "holds of every text" in str(shown)
    assert (at_most(3, "a") | at_least(3, "a")).tautologies()
    assert not (at_most(3, "a") | at_least(5, "a")).tautologies()
    assert not (contains("hot dog") | excludes("dog")).tautologies()
    assert (clause & contains("bird")).simplified() == contains("bird")


def test_simplified_keeps_the_stronger_clauses() -> None:
    dog, cat = contains("dog"), contains("cat")
    assert ((dog | cat) & dog).simplified() == dog
    assert (dog & contains("hot dog") & at_least(2, "dog")).simplified() == contains(
        "hot dog"
    ) & at_least(2, "dog")
    assert (excludes("hot dog") & excludes(any_of("dog", "cat"))).simplified() == excludes(
        any_of("dog", "cat")
    )


# ------------------------------------------------------------------ tokens and inflections


def test_token_phrases_are_searched_in_the_ids() -> None:
    formula = at_most(1, [tokens(4, 4), "dog"]) & contains(tokens(7))
    few_, has = formula.explain("dog", token_ids=np.array([4, 4, 4, 7]))
    assert few_.token_spans == ((0, 2), (1, 3))
    assert [match.phrase for match in few_.matches] == ["dog"]
    assert (few_.count, few_.satisfied) == (3, False)
    assert has.token_spans == ((3, 4),)
    assert contains(tokens(7)).verify("", token_ids=[7])
    assert not contains(tokens(7)).verify("7", token_ids=[])
    assert contains("dog").verify("dog", token_ids=[1])


@pytest.mark.parametrize(
    "formula",
    [contains(tokens(1)), excludes(any_of("a", tokens(1))), contains("a") | excludes(tokens(2))],
)
def test_token_phrases_without_ids_are_an_error(formula: Constraint) -> None:
    for ask in (formula.verify, formula.explain):
        with pytest.raises(InputError, match="token_ids"):
            ask("a")


@pytest.mark.parametrize("ids", [(), (-1,), (1.0,), (True,), ("1",), (None,), tuple(range(201))])
def test_unusable_token_ids_are_refused(ids: tuple[Any, ...]) -> None:
    with pytest.raises(InputError, match="token ids"):
        tokens(*ids)


@pytest.mark.parametrize(
    ("word", "pos", "forms"),
    [
        ("dog", "NOUN", {"dog", "dogs"}),
        ("child", None, {"child", "children"}),
        ("run", "VERB", {"run", "runs", "ran", "running"}),
        ("nice", "ADJ", {"nice", "nicer", "nicest"}),
        ("well", "ADV", {"well", "better", "best"}),
        ("fire truck", None, {"fire truck", "fire trucks"}),
        ("give  up", "VERB", {"give up", "gives up", "gave up", "given up", "giving up"}),
        ("dogs", "NOUN", {"dog", "dogs"}),
        ("zorble", None, {"zorble", "zorbles"}),
    ],
)
def test_words_are_inflected(word: str, pos: str | None, forms: set[str]) -> None:
    found = inflections(word, pos)
    assert set(found.phrases) == forms
    assert found.phrases[0] == " ".join(word.split())


def test_inflections_are_a_set_of_phrases() -> None:
    formula = contains(inflections("dog")) & at_most(1, inflections("cat"))
    assert formula.verify("Two Dogs and a cat")
    assert from_json(formula.to_json()) == formula
    assert inflections("chien", expand=lambda word: [word + "s", "chienne"]).phrases == (
        "chien",
        "chiens",
        "chienne",
    )


@pytest.mark.parametrize(
    ("word", "more"),
    [
        ("", {}),
        ("...", {}),
        ("dog*", {}),
        (3, {}),
        ("dog", {"pos": "N"}),
        ("dog", {"pos": "NOUN", "expand": lambda word: []}),
        ("dog", {"expand": lambda word: "dogs"}),
        ("dog", {"expand": lambda word: None}),
        ("dog", {"expand": lambda word: [3]}),
    ],
)
def test_unusable_inflections_are_refused(word: Any, more: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        inflections(word, **more)


# ------------------------------------------------------------------ large and wrong


def test_too_large_formulas_are_refused_at_once() -> None:
    literals = [contains(f"w{i}") for i in range(10_000)]
    halves = [all_of(*literals[i : i + 2]) for i in range(0, 40, 2)]
    began = time.perf_counter()
    for what, make in [
        ("1,000 clauses", lambda: all_of(*literals)),
        ("1,000 clauses", lambda: reduce(and_, literals)),
        ("1,000 literals", lambda: either(*literals)),
        ("1,000 literals", lambda: reduce(or_, literals)),
        ("1,000 clauses", lambda: either(*halves)),
        ("1,000 clauses", lambda: ~all_of(*(~half for half in halves))),
        ("1,000 clauses", lambda: all_of(*literals[:999]) | all_of(*literals[1:1000])),
    ]:
        with pytest.raises(InputError, match=what):
            make()
    assert time.perf_counter() - began < 20  # not a measurement: that none of them explodes


def test_the_largest_formulas_are_checked_in_time() -> None:
    wide = [contains(f"w{i} x") for i in range(500)] + [excludes(f"w{i}") for i in range(499, 999)]
    formula = all_of(*wide)
    began = time.perf_counter()
    assert len(formula.contradictions()) == 1
    assert not either(*wide).contradictions()
    assert not formula.tautologies()
    assert time.perf_counter() - began < 20


@pytest.mark.parametrize("other", ["cat", None, 1, ["cat"]])
def test_only_constraints_can_be_joined(other: Any) -> None:
    for operator in (and_, or_):
        with pytest.raises(TypeError):
            operator(contains("dog"), other)
    for join in (all_of, either):
        with pytest.raises(InputError, match="expected constraints"):
            join(contains("dog"), other)
