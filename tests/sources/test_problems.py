"""Problems from tables: every usual layout is read; what is not read is refused, with why."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symdistill.answers import chance_of, choices_of, kind_of
from symdistill.errors import InputError
from symdistill.records import Item
from symdistill.sources.concepts import Rejected
from symdistill.sources.problems import PACKAGED, ProblemColumns, hold_out, read_problems
from symdistill.worlds.puzzles import last_letters, purchases, shuffled_objects

pytestmark = pytest.mark.unit

SUMS = [
    {"question": "What is 3 + 4?", "gold": "7", "split": "train"},
    {"question": "What is 30 * 40?", "gold": "1,200", "split": "test"},
]
ANIMALS = [
    {"question": "Which of them flies?", "choices": ["a carp", "a crow", "a cow"], "gold": "B"},
    {"question": "Which of them swims?", "choices": ["a carp", "a crow", "a cow"], "gold": "a"},
]


def jsonl(folder: Path, rows: Iterable[Any], name: str = "problems") -> Path:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def table(folder: Path, suffix: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / f"problems.{suffix}"
    if suffix == "jsonl":
        return jsonl(folder, rows)
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if suffix == "tsv" else ",")
        writer.writeheader()
        for row in rows:
            cells = {k: " | ".join(v) if isinstance(v, list) else v for k, v in row.items()}
            writer.writerow(cells)
    return path


def read(
    path: Path | str, needs_gold: bool = False, **columns: Any
) -> tuple[list[Item], list[Rejected]]:
    found = list(read_problems(path, ProblemColumns(**columns), needs_gold=needs_gold))
    items = [one for one in found if isinstance(one, Item)]
    return items, [one for one in found if isinstance(one, Rejected)]


def golds(folder: Path, rows: Iterable[Mapping[str, Any]], **columns: Any) -> list[str | None]:
    items, refused = read(jsonl(folder, rows), **columns)
    assert not refused
    return [item.gold for item in items]


# ------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("rows", [SUMS, ANIMALS], ids=["sums", "animals"])
def test_the_same_rows_in_another_format_are_the_same_items(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    found = [read(table(tmp_path, suffix, rows)) for suffix in ("jsonl", "csv", "tsv", "parquet")]
    assert found[0] == found[1] == found[2] == found[3]
    assert len(found[0][0]) == 2 and not found[0][1]


def test_numbers_are_told_and_spelt_in_one_way(tmp_path: Path) -> None:
    items, _ = read(jsonl(tmp_path, SUMS))
    assert [kind_of(item) for item in items] == ["number", "number"]
    assert [(item.gold, item.split) for item in items] == [("7", "train"), ("1200", "test")]
    assert items[0].text == "What is 3 + 4?" and choices_of(items[0]) == ()


def test_options_make_the_kind_choice_and_gold_a_letter(tmp_path: Path) -> None:
    items, _ = read(jsonl(tmp_path, ANIMALS))
    assert [(kind_of(item), item.gold) for item in items] == [("choice", "B"), ("choice", "A")]
    assert choices_of(items[0]) == ("a carp", "a crow", "a cow")
    assert chance_of(items[0]) == pytest.approx(1 / 3)


@pytest.mark.parametrize("gold", ["B", "(B)", "b", "b.", "2", 2, "a crow", "A Crow.", "(b) a crow"])
def test_every_way_to_name_an_option(tmp_path: Path, gold: Any) -> None:
    assert golds(tmp_path, [{**ANIMALS[0], "gold": gold}]) == ["B"]


@pytest.mark.parametrize(
    "cell",
    ["a carp | a crow | a cow", '["a carp", "a crow", "a cow"]',
     {"text": ["a carp", "a crow", "a cow"], "label": ["1", "2", "3"]},
     '{"text": ["a carp", "a crow", "a cow"]}'],
)  # fmt: skip
def test_every_way_to_list_options(tmp_path: Path, cell: Any) -> None:
    row = {"question": "Which flies?", "choices": cell, "gold": "2"}
    items, refused = read(jsonl(tmp_path, [row]))
    assert not refused
    assert choices_of(items[0]) == ("a carp", "a crow", "a cow") and items[0].gold == "B"


def test_labels_of_the_table_name_options_before_letters_do(tmp_path: Path) -> None:
    options = {"text": ["a carp", "a crow"], "label": ["B", "A"]}
    assert golds(tmp_path, [{"question": "Which flies?", "choices": options, "gold": "A"}]) == ["B"]


def test_a_column_for_each_option_and_an_index_from_zero(tmp_path: Path) -> None:
    path = tmp_path / "problems.csv"
    path.write_text("q,a,b,c,right\nWhich flies?,carp,crow,cow,1\nWhich is red?,cherry,snow,,0\n")
    items, refused = read(path, question="q", choices="a, b, c", gold_index="right")
    assert not refused
    assert [choices_of(item) for item in items] == [("carp", "crow", "cow"), ("cherry", "snow")]
    assert [item.gold for item in items] == ["B", "A"]


def test_options_behind_the_question_are_cut_off_it(tmp_path: Path) -> None:
    rows = [
        {"question": "Which flies?\nOptions:\n(A) a carp\n(B) a crow", "gold": "(B)"},
        {"question": "Which swims? Answer choices: (A) a carp (B) a crow", "gold": "(A)"},
    ]
    items, _ = read(jsonl(tmp_path, rows))
    assert [item.text for item in items] == ["Which flies?", "Which swims?"]
    assert {choices_of(item) for item in items} == {("a carp", "a crow")}
    open_question, _ = read(jsonl(tmp_path, rows), choices=None)
    assert open_question[0].text == rows[0]["question"] and kind_of(open_question[0]) == "text"


def test_the_answer_behind_the_last_mark_of_a_solution(tmp_path: Path) -> None:
    rows = [{"question": "3 + 4?", "answer": "3 and 4 are 7. #### no\n#### 7"}]
    assert golds(tmp_path, rows, gold="answer") == ["7"]


@pytest.mark.parametrize(
    ("given_golds", "kind", "expected"),
    [
        (["Yes", "no."], "yes_no", ["yes", "no"]),
        ([True, False], "true_false", ["true", "false"]),
        (["valid", "Invalid"], "valid_invalid", ["valid", "invalid"]),
        ([3, -0.5], "number", ["3", "-0.5"]),
        (["$5", "60%"], "number", ["5", "60"]),
        (["Paris", "1969"], "text", ["Paris", "1969"]),
    ],
)
def test_the_kind_is_told_from_all_golds(
    tmp_path: Path, given_golds: list[Any], kind: str, expected: list[str]
) -> None:
    rows = [{"question": f"{i}?", "gold": gold} for i, gold in enumerate(given_golds)]
    items, _ = read(jsonl(tmp_path, rows))
    assert [kind_of(item) for item in items] == [kind, kind]
    assert [item.gold for item in items] == expected


def test_a_stated_kind_goes_before_what_the_rows_say(tmp_path: Path) -> None:
    rows = [{"question": "Is it?", "gold": True}, {"question": "Is it not?", "gold": "No"}]
    assert golds(tmp_path, rows, kind="yes_no") == ["yes", "no"]
    items, _ = read(jsonl(tmp_path, ANIMALS[:1]), kind="text")
    assert choices_of(items[0]) == () and "choices" not in items[0].fields


def test_a_question_of_several_columns(tmp_path: Path) -> None:
    rows = [{"premise": "It rains.", "hypothesis": "It is wet.", "gold": "valid"}]
    template = "Premise: {premise}\nHypothesis: {hypothesis}"
    items, _ = read(jsonl(tmp_path, rows), question=template)
    assert items[0].text == "Premise: It rains.\nHypothesis: It is wet."
    lacking = jsonl(tmp_path, [*rows, {"premise": "It snows.", "gold": "valid"}])
    assert [one.reason for one in read(lacking, question=template)[1]] == ["has no 'hypothesis'"]


def test_other_columns_and_the_rows_own_id_are_kept(tmp_path: Path) -> None:
    rows = [{"uid": 17, "topic": "sums", "note": None, **SUMS[0]}]
    items, _ = read(jsonl(tmp_path, rows), id="uid")
    assert items[0].fields == {"topic": "sums", "source_id": 17, "answer_kind": "number"}


def test_splits_have_three_names(tmp_path: Path) -> None:
    given_splits = ["train", "Dev", "validation", "test", None]
    rows = [{"question": f"{i}?", "gold": 1, "split": s} for i, s in enumerate(given_splits)]
    items, _ = read(jsonl(tmp_path, rows))
    assert [item.split for item in items] == ["train", "dev", "dev", "test", None]


# --------------------------------------------------------------------------------- identity


def test_the_id_follows_from_question_and_options_alone(tmp_path: Path) -> None:
    (first,), _ = read(jsonl(tmp_path, ANIMALS[:1]))
    test = {"q": "which of them  flies?", "split": "test", "choices": ["A carp", "a crow", "a cow"]}
    (same,), _ = read(jsonl(tmp_path, [test]), question="q")
    assert same.id == first.id and same.gold is None
    (other,), _ = read(jsonl(tmp_path, [{**ANIMALS[0], "choices": ["a bat", "a crow"]}]))
    assert other.id != first.id
    (asked,), _ = read(jsonl(tmp_path, SUMS[:1]))
    assert asked.id == Item.make("question", SUMS[0]["question"]).id


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_problems_are_read_by_name(name: str) -> None:
    items, refused = read(name, needs_gold=True)
    assert not refused
    makers = {"last_letters": last_letters, "shuffled_objects": shuffled_objects}
    made = makers[name](0, 400) if name in makers else purchases(0, 120)
    # What a program makes has the id that it has when read from a table.
    for item, puzzle in zip(items, made, strict=False):
        assert (item.id, item.text, item.gold) == (
            puzzle.item.id, puzzle.item.text, puzzle.item.gold,
        )  # fmt: skip
        assert item.fields == puzzle.item.fields
    splits = Counter(item.split for item in items)
    assert splits == ({"train": 200, "test": 200} if name in makers else {"train": 100, "test": 50})


# --------------------------------------------------------------------------------- refused rows


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "Which?", "choices": ["a", "b"]}, "has no 'gold'"),
        ({"question": "Which?", "choices": ["a", "b"], "gold": " "}, "has no 'gold'"),
        ({"question": "  ", "choices": ["a", "b"], "gold": "A"}, "has no text in 'question'"),
        ({"choices": ["a", "b"], "gold": "A"}, "has no 'question'"),
        ({"question": 5, "choices": ["a", "b"], "gold": "A"}, "has no text in 'question'"),
        ({"question": "Which?", "gold": "A"}, "has no options"),
        ({"question": "Which?", "choices": ["a"], "gold": "A"}, "has only one option"),
        (
            {"question": "Which?", "choices": ["swim", "run", "Swim."], "gold": "A"},
            "has two options that read alike: swim",
        ),
        (
            {"question": "Which?", "choices": ["a", "b"], "gold": "G"},
            "has a gold outside its options: G",
        ),
        (
            {"question": "Which?", "choices": ["a", "b"], "gold": "3"},
            "has a gold outside its options: 3",
        ),
        ({"question": "Which?", "choices": ["a", ""], "gold": "A"}, "has an empty option"),
        ({"question": "Which?", "choices": ["a", None], "gold": "A"}, "has an empty option"),
        (
            {"question": "Which?", "choices": [f"o{i}" for i in range(27)], "gold": "A"},
            "has 27 options; 26 at most",
        ),
        (
            {"question": "Which?", "choices": 5, "gold": "A"},
            "has no list of options in 'choices'",
        ),
        (
            {"question": "Which?", "choices": [{"text": "a"}, {"text": "b"}], "gold": "A"},
            "has an option that is no text in 'choices'",
        ),
        (
            {"question": "Which?", "choices": ["a", "b"], "gold": "x" * 1001},
            "has a gold answer of 1001 characters; 1000 at most",
        ),
        (
            {"question": "Which?", "choices": ["a", "b"], "gold": "A", "split": "gold"},
            "has a split that is not train, dev or test: gold",
        ),
        (ANIMALS[0], "repeats an earlier question"),
        (["a list"], "is not an object with columns"),
    ],
)
def test_a_row_that_is_no_problem_is_refused_with_its_reason(
    tmp_path: Path, row: Any, reason: str
) -> None:
    items, refused = read(jsonl(tmp_path, [ANIMALS[0], row, ANIMALS[1]]), needs_gold=True)
    assert len(items) == 2
    assert [(one.row, one.reason) for one in refused] == [(2, reason)]


def test_a_gold_that_is_not_of_the_kind_is_refused(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [*SUMS, {"question": "How many?", "gold": "plenty"}])
    assert read(path, kind="number")[1][0].reason == "has a gold that is no number: plenty"


def test_an_index_outside_the_options_is_refused(tmp_path: Path) -> None:
    rows = [{**ANIMALS[0], "at": at, "question": f"{at}?"} for at in (0, 3, -1, 1.0, "x", None)]
    items, refused = read(jsonl(tmp_path, rows), gold_index="at")
    assert [item.gold for item in items] == ["A", "B", "B"]  # the last by its `gold`
    assert [one.reason[:21] for one in refused] == ["has a gold outside it"] * 3


def test_gold_may_be_missing_where_it_is_not_needed(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [SUMS[0], {"question": "What is 5 + 5?"}])
    assert [item.gold for item in read(path)[0]] == ["7", None]
    items, refused = read(path, needs_gold=True)
    assert len(items) == 1 and [one.reason for one in refused] == ["has no 'gold'"]


# ------------------------------------------------------------------------- what stops the reading


def test_a_kind_that_nothing_tells_is_asked_for(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [{"question": "Why?"}])
    with pytest.raises(InputError, match="got neither; set kind to one of number, choice"):
        read(path)
    assert read(path, kind="number")[0][0].fields == {"answer_kind": "number"}


def test_nearly_all_numbers_is_asked_about_not_guessed(tmp_path: Path) -> None:
    rows = [{"question": f"{i}?", "gold": i} for i in range(19)]
    path = jsonl(tmp_path, [*rows, {"question": "How many?", "gold": "plenty"}])
    with pytest.raises(InputError, match=r"got 19 of 20 .* but 'plenty' in row 20"):
        read(path)


def test_options_counted_from_zero_in_gold_are_not_read_one_off(tmp_path: Path) -> None:
    rows = [{**ANIMALS[0], "gold": 1}, {**ANIMALS[1], "gold": 0}]
    path = jsonl(tmp_path, rows)
    with pytest.raises(InputError, match="got 0 in row 2; name the column as gold_index"):
        read(path)
    items, _ = read(path, gold=None, gold_index="gold")
    assert [item.gold for item in items] == ["B", "A"]
    zero = {"question": "How many?", "choices": ["0", "1"], "gold": "0"}
    assert golds(tmp_path, [zero]) == ["A"]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("name", ["question", "choices", "gold", "gold_index", "id", "split"])
def test_a_named_column_must_be_there(tmp_path: Path, suffix: str, name: str) -> None:
    with pytest.raises(InputError, match=r"expected a column 'goldd' in .*; name another"):
        read(table(tmp_path, suffix, ANIMALS), **{name: "goldd"})


def test_no_problem_at_all_is_an_error(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [{"question": "Which?", "choices": ["a"], "gold": "A"}])
    with pytest.raises(InputError, match="row 1 has only one option"):
        read(path)
    with pytest.raises(InputError, match="arithmetic, last_letters, shuffled_objects"):
        read("arithmetics")
    with pytest.raises(InputError, match="columns in braces"):
        read(jsonl(tmp_path, SUMS), question="Which {{}}?")


CELLS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(["A", "(B)", "7", "#### 3", "yes", "a | b", '["a"', "[[", "Options: (A) x",
                       "x Options: (A) y (B) z", "\ud800", "9" * 5000]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["text", "label", "x"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
ROW = st.dictionaries(
    st.sampled_from(["question", "choices", "gold", "at", "split", "other"]), CELLS, max_size=6
)


@given(
    rows=st.lists(ROW | CELLS, max_size=5),
    kind=st.sampled_from([None, "choice", "number", "text", "yes_no"]),
    index=st.booleans(),
    several=st.booleans(),
)
@settings(max_examples=150)
def test_whatever_the_rows_hold_they_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Any],
    kind: Any,
    index: bool,
    several: bool,
) -> None:
    path = jsonl(tmp_path_factory.mktemp("rows"), rows)
    columns = {
        "kind": kind,
        "gold_index": "at" if index else None,
        "choices": "choices, other" if several else "choices",
    }
    try:
        items, refused = read(path, **columns)
    except InputError:
        return
    assert len(items) + len(refused) == len(rows) and items
    for item in items:
        assert item.text.strip() and item.split in (None, "train", "dev", "test")
        json.dumps(dict(item.fields)).encode()
        if kind_of(item) == "choice":
            assert 2 <= len(choices_of(item)) <= 26
            assert item.gold is None or "ABCDEFGHIJKLMNOPQRSTUVWXYZ".index(item.gold) < len(
                choices_of(item)
            )


# ------------------------------------------------------------------------------------ hold out


def test_a_question_is_held_out_by_itself() -> None:
    items = [puzzle.item for puzzle in last_letters(3, 1000)]
    some = hold_out(items[:400], 0.25, seed=1)
    more = hold_out(items, 0.25, seed=1)
    assert more[:400] == some
    assert 200 < sum(item.split == "dev" for item in more) < 300
    assert {item.split for item in more} == {"dev", "train"}
    assert hold_out(items, 0.25, seed=2) != more
    # A larger share holds out what a smaller one did.
    held = {item.id for item in more if item.split == "dev"}
    assert held < {item.id for item in hold_out(items, 0.5, seed=1) if item.split == "dev"}


def test_a_split_that_is_there_stays_and_groups_stay_together() -> None:
    items = [puzzle.item for puzzle in purchases(3, 300)]
    fixed = [Item.make("question", "Already?", split="test")]
    assert hold_out(fixed, 1, seed=0) == fixed
    groups: dict[str, set[str | None]] = {}
    for item in hold_out(items, 0.5, seed=0, by=lambda item: item.text.split()[0], name="test"):
        groups.setdefault(item.text.split()[0], set()).add(item.split)
    assert all(len(splits) == 1 for splits in groups.values())
    assert {next(iter(splits)) for splits in groups.values()} == {"test", "train"}


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(InputError):
        hold_out([], share, seed=0)
