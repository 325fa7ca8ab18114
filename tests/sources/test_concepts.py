"""Lists of concepts: every good row becomes an item, every bad row is told with its reason."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symdistill.errors import InputError
from symdistill.records import normalise
from symdistill.sources import read_concepts
from symdistill.sources.forms import concept_forms, goal_gerund, looks_like_goal

pytestmark = pytest.mark.unit

ANY_FILE = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(
        st.sampled_from(
            ["dog", "bake a cake", "goal: ", "concept:", "# no", "\t", "to ", "A", "é", "猫", "of",
             "'s", "a ", "an of a", "x" * 201, "\r", "\u2028", "99", "(", "goal: to x", "-", "I"]
        ),
        max_size=8,
    ).map(lambda lines: "\n".join(lines).encode()),
)  # fmt: skip


def write(folder: Path, text: str, name: str = "concepts.txt") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_packaged_list_is_read_whole() -> None:
    read = read_concepts("everyday")
    assert read.rejected == ()
    kinds = [item.kind for item in read.items]
    assert kinds.count("concept") >= 420
    assert kinds.count("goal") >= 110
    for item in read.items:
        assert 3 <= len(item.fields["related"]) <= 5
        assert item.fields["topic"]


def test_packaged_list_wins_over_the_libraries() -> None:
    path = Path(__file__).parents[2] / "src/symdistill/data/concepts/everyday.jsonl"
    by_text = {item.text: item for item in read_concepts("everyday").items}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        for name in {"number", "plural", "article", "gerund"} & set(record):
            assert by_text[record["text"]].fields[name] == record[name], record["text"]


def test_libraries_agree_with_the_packaged_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the packaged list, the guesses for its count nouns and goals are right too."""
    monkeypatch.setattr("symdistill.sources.forms._everyday", dict)
    either_is_right = {"fish", "cactus"}  # fishes, cactuses
    for item in read_concepts("everyday").items:
        if item.kind == "goal":
            assert goal_gerund(item.text) == item.fields["gerund"]
        elif item.fields["number"] == "count" and item.text not in either_is_right:
            forms = concept_forms(item.text, {})
            for name in ("number", "singular", "plural", "article"):
                assert forms[name] == item.fields[name], (item.text, forms)
            if item.text not in {"leaf", "mechanic"}:  # "leave" and "mechanics" are words too
                forms = concept_forms(item.fields["plural"], {})
                assert forms["singular"] == item.text, forms


def test_kind_of_the_whole_packaged_list_is_guessed() -> None:
    for item in read_concepts("everyday").items:
        assert looks_like_goal(item.text) == (item.kind == "goal"), item.text


@pytest.mark.parametrize(
    ("text", "singular", "plural", "article"),
    [
        ("bus", "bus", "buses", "a"),
        ("buses", "bus", "buses", "a"),
        ("gas", "gas", "gases", "a"),
        ("hour", "hour", "hours", "an"),
        ("university", "university", "universities", "a"),
        ("sheep", "sheep", "sheep", "a"),
        ("leaves", "leaf", "leaves", "a"),
        ("cups of tea", "cup of tea", "cups of tea", "a"),
        ("mother in law", "mother in law", "mothers in law", "a"),
        ("oak leaves", "oak leaf", "oak leaves", "an"),
        ("zorp", "zorp", "zorps", "a"),
    ],
)
def test_forms_of_count_nouns(text: str, singular: str, plural: str, article: str) -> None:
    assert concept_forms(text, {}) == {
        "number": "count",
        "singular": singular,
        "plural": plural,
        "article": article,
    }


@pytest.mark.parametrize("text", ["water", "orange juice", "physics", "news", "Paris", "猫", "99"])
def test_mass_nouns_and_names_have_neither_plural_nor_article(text: str) -> None:
    forms = concept_forms(text, {})
    assert (forms["number"], forms["plural"], forms["article"]) == ("mass", None, None)


def test_what_a_record_says_wins(tmp_path: Path) -> None:
    rows = [
        {"text": "octopus", "plural": "octopodes"},
        {"text": "shrubbery", "number": "mass"},
        {"text": "historian", "article": "an"},
        {"text": "knead dough", "gerund": "kneading the dough"},
        {"text": "fish", "kind": "goal"},
    ]
    path = write(tmp_path, "\n".join(map(json.dumps, rows)), "rows.jsonl")
    octopus, shrubbery, historian, knead, fish = read_concepts(path).items
    assert octopus.fields["plural"] == "octopodes"
    assert shrubbery.fields["plural"] is None
    assert historian.fields["article"] == "an"
    assert (knead.kind, knead.fields["gerund"]) == ("goal", "kneading the dough")
    assert (fish.kind, fish.fields["gerund"]) == ("goal", "fishing")


def test_text_file(tmp_path: Path) -> None:
    lines = (
        "# mine\n\n dog \r\na  cat\nTo bake a cake\ntrain station\ngoal: skate\nconcept: run fast\n"
    )
    read = read_concepts(write(tmp_path, lines))
    assert [(item.kind, item.text) for item in read.items] == [
        ("concept", "dog"),
        ("concept", "cat"),
        ("goal", "bake a cake"),
        ("concept", "train station"),
        ("goal", "skate"),
        ("concept", "run fast"),
    ]
    assert read.items[2].fields == {"gerund": "baking a cake"}
    assert read.items[0].fields["plural"] == "dogs"


def test_bad_rows_are_told_with_their_place(tmp_path: Path) -> None:
    lines = ["dog", "x" * 10_000, "Dog.", "a\x07b", "???", "goal: happiness", "cat", "cat"]
    read = read_concepts(write(tmp_path, "\n".join(lines)))
    assert [item.text for item in read.items] == ["dog", "cat"]
    assert [(row.row, row.reason) for row in read.rejected] == [
        (2, "is longer than 200 characters"),
        (3, "repeats an earlier row"),
        (4, "has control characters"),
        (5, "has no letter or digit"),
        (6, "is a goal that does not start with a verb in base form"),
        (8, "repeats an earlier row"),
    ]
    assert read.reasons["repeats an earlier row"] == 2
    assert all(len(row.text) <= 80 for row in read.rejected)


def test_bad_json_rows(tmp_path: Path) -> None:
    bad = [
        "{",
        '"dog"',
        "{}",
        '{"text": 3}',
        '{"text": ""}',
        '{"text": "\\ud800"}',
        '{"text": "elk", "kind": "question"}',
        '{"text": "elk", "number": "dual"}',
        '{"text": "elk", "plural": ["elks"]}',
        '{"text": "elk", "related": "antler"}',
        '{"text": "elk", "note": "\\ud800"}',
        '{"text": "elk", "note": NaN}',
    ]
    read = read_concepts(write(tmp_path, "\n".join([*bad, '{"text": "elk"}']), "rows.jsonl"))
    assert [item.text for item in read.items] == ["elk"]
    assert [row.row for row in read.rejected] == list(range(1, len(bad) + 1))


def test_parquet_with_a_named_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    rows = [{"noun": "dog", "related": ["bone"], "split": "test"}, {"noun": None}, {"noun": "cat"}]
    pq.write_table(pa.Table.from_pylist(rows), path)
    read = read_concepts(path, text_column="noun")
    assert [item.text for item in read.items] == ["dog", "cat"]
    assert (read.items[0].split, read.items[0].fields["related"]) == ("test", ["bone"])
    assert [row.row for row in read.rejected] == [2]
    with pytest.raises(InputError, match=r"'text'.*noun"):
        read_concepts(path)


def test_data_set_folder(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    write(tmp_path, '{"text": "dog"}\n{"text": "bake a cake"}\n', "train.jsonl")
    read = read_concepts(f"hf:{tmp_path}:train")
    assert [(item.kind, item.text) for item in read.items] == [
        ("concept", "dog"),
        ("goal", "bake a cake"),
    ]
    with pytest.raises(InputError, match="nosuch"):
        read_concepts(f"hf:{tmp_path}:nosuch")


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.txt", b"", "empty"),
        ("a.txt", b" \n\n", "empty"),
        ("a.txt", b"# only a comment\n", "nothing"),
        ("a.txt", b"\x00\x01\x02dog\n", "binary"),
        ("a.txt", b"caf\xe9\n", "UTF-8"),
        ("a.txt", "dog\n".encode("utf-16"), "binary"),
        ("a.txt", b"!\n?\n", "2 rows, none of them valid"),
        ("a.jsonl", b"dog\n", "row 1 is not JSON"),
        ("a.jsonl", b'{"name": "dog"}\n', "'text'"),
        ("a.parquet", b"PAR1 is not enough", "Parquet"),
        ("a.csv", b"dog\n", "convert"),
    ],
)
def test_unusable_files_end_with_one_sentence(
    tmp_path: Path, name: str, data: bytes, says: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError, match=says) as caught:
        read_concepts(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere.txt", "nowhere.jsonl", "nowhere.parquet", "nul\0.txt"])
def test_missing_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        read_concepts(tmp_path / name)


def test_folder_is_not_a_list(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read_concepts(tmp_path)


def test_samples_are_seeded_and_nested() -> None:
    whole = [item.id for item in read_concepts("everyday").items]
    small = [item.id for item in read_concepts("everyday", limit=20, seed=3).items]
    large = [item.id for item in read_concepts("everyday", limit=60, seed=3).items]
    other = [item.id for item in read_concepts("everyday", limit=20, seed=4).items]
    assert len(small) == 20
    assert set(small) < set(large) < set(whole)
    assert small == [one for one in whole if one in set(small)]
    assert set(small) != set(other)
    assert [item.id for item in read_concepts("everyday", limit=10**6).items] == whole
    with pytest.raises(InputError):
        read_concepts("everyday", limit=0)


def test_sample_does_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    words = ["dog", "cat", "bus", "tree", "lamp", "river", "bake a cake", "swim"]
    there = read_concepts(write(tmp_path, "\n".join(words)), limit=4)
    back = read_concepts(write(tmp_path, "\n".join(reversed(words))), limit=4)
    assert {item.id for item in there.items} == {item.id for item in back.items}


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=ANY_FILE)
def test_any_bytes_give_items_or_an_input_error(tmp_path: Path, data: bytes) -> None:
    for name in ("any.txt", "any.jsonl"):
        path = tmp_path / name
        path.write_bytes(data)
        try:
            read = read_concepts(path)
        except InputError as error:
            str(error).encode("utf-8")
            continue
        texts = [(item.kind, normalise(item.text)) for item in read.items]
        assert texts
        assert len(set(texts)) == len(texts)
        for item in read.items:
            assert 0 < len(item.text) <= 200
            assert item.text == " ".join(item.text.split())
            needed = {"gerund"} if item.kind == "goal" else {"number"}
            assert all(item.fields[name] for name in needed)
            if item.fields.get("number") == "count":
                assert item.fields["plural"]
                assert item.fields["article"] in ("a", "an")


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(st.one_of(st.text(max_size=250), st.sampled_from(["dog", "Dog", "a dog"]))))
def test_no_row_is_lost(tmp_path: Path, rows: list[str]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"text": row}) for row in rows), encoding="utf-8")
    try:
        read = read_concepts(path)
    except InputError:
        return
    assert len(read.items) + len(read.rejected) == len(rows)
