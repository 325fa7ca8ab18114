"""Labelled statements: what is read, what is refused, and splits by concept."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symdistill.critic.labels import Label, check_splits, read_labels, select, split_by_concept
from symdistill.errors import InputError

pytestmark = pytest.mark.unit


def row(i: int, **changes: Any) -> dict[str, Any]:
    base = {
        "text": f"A thing{i} is made of stuff.",
        "concept": f"thing{i}",
        "label": "valid" if i % 2 else "invalid",
        "split": "train" if i < 12 else "calibration",
    }
    return {**base, **changes}


def write(folder: Path, rows: list[Any], name: str = "labels.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(json.dumps(r) for r in rows) + "\n\n", encoding="utf-8")
    return path


def test_reads_what_was_written(tmp_path: Path) -> None:
    rows = [row(i) for i in range(24)]
    rows[0] |= {"round": 2, "pattern": "p", "source": "written", "labeller": "me"}
    rows[1] |= {"prompt": "A thing1", "continuation": " is made of stuff."}
    labels = read_labels(write(tmp_path, rows))
    assert labels[0] == Label(
        "A thing0 is made of stuff.", "thing0", "invalid", "train", 2, "p", "written", "me"
    )
    assert labels[1].continuation == " is made of stuff."
    assert len(labels) == 24


def test_rounds_and_splits_are_selected(tmp_path: Path) -> None:
    rows = [row(i, round=1 if i == 3 else 0) for i in range(24)]
    labels = read_labels(write(tmp_path, rows))
    assert len(select(labels, "train", round=0)) == 11
    assert len(select(labels, "train", round=1)) == len(select(labels, "train")) == 12
    assert {label.split for label in select(labels, "calibration")} == {"calibration"}


def test_unsure_is_not_usable_and_not_valid() -> None:
    unsure = Label("t", "c", "unsure")
    assert not unsure.usable and not unsure.valid
    assert Label("t", "c", "invalid").usable and not Label("t", "c", "invalid").valid
    assert Label("t", "c", "valid").usable and Label("t", "c", "valid").valid


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "true"}, "one of valid, invalid, unsure"),
        ({"split": "dev"}, "one of train, calibration, test, judge"),
        ({"source": "web"}, "one of raw, written"),
        ({"round": -1}, "whole number"),
        ({"round": True}, "whole number"),
        ({"text": "  "}, "non-empty text under 'text'"),
        ({"concept": 3}, "non-empty text under 'concept'"),
        ({"lable": "valid"}, "unknown key 'lable'"),
        ({"prompt": 3}, "text under 'prompt'"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    rows = [row(i) for i in range(24)]
    rows[4] |= change
    with pytest.raises(InputError, match=message) as caught:
        read_labels(write(tmp_path, rows))
    assert "labels.jsonl:5" in str(caught.value)


def test_not_json_and_not_an_object(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": \n', encoding="utf-8")
    with pytest.raises(InputError, match=r"x\.jsonl:1: expected one JSON object"):
        read_labels(path)
    path.write_text("[1]\n", encoding="utf-8")
    with pytest.raises(InputError, match="got list"):
        read_labels(path)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a readable UTF-8 JSONL file"):
        read_labels(tmp_path / "absent.jsonl")
    binary = tmp_path / "b.jsonl"
    binary.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="expected a readable UTF-8 JSONL file"):
        read_labels(binary)


def test_a_concept_in_two_splits_is_refused_over_files(tmp_path: Path) -> None:
    first = write(tmp_path, [row(i) for i in range(24)], "a.jsonl")
    other = row(3, text="Another line.", split="test", concept="  Thing3 ")
    second = write(tmp_path, [other], "b.jsonl")
    with pytest.raises(InputError, match=r"b\.jsonl:1.*Thing3.*'test'.*'train'.*a\.jsonl:4"):
        read_labels([first, second])


def test_contradictions_are_refused_and_repeats_dropped(tmp_path: Path) -> None:
    rows = [row(i, round=1) for i in range(24)]
    again = write(tmp_path, [*rows, row(5, text="a thing5 is made of STUFF", round=0)], "a.jsonl")
    labels = read_labels(again)
    assert len(labels) == 24
    assert labels[5].round == 0
    with pytest.raises(InputError, match=r"labels\.jsonl:25.*'invalid' here and 'valid' at"):
        read_labels(write(tmp_path, [*rows, row(5, label="invalid")]))


def test_splits_on_some_lines_only(tmp_path: Path) -> None:
    rows = [row(i) for i in range(24)]
    del rows[7]["split"]
    with pytest.raises(InputError, match=r'labels\.jsonl:8: no "split"'):
        read_labels(write(tmp_path, rows))


def test_too_few_lines_and_one_class(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"split 'calibration'.*at least 10.*got 8"):
        read_labels(write(tmp_path, [row(i) for i in range(20)]))
    rows = [row(i, label="valid") if i < 12 else row(i) for i in range(24)]
    with pytest.raises(InputError, match=r"split 'train'.*all 12 usable lines are valid"):
        read_labels(write(tmp_path, rows))
    unsure = [row(i, label="unsure") if i < 4 else row(i) for i in range(24)]
    with pytest.raises(InputError, match=r"got 8 .and 4 unsure"):
        read_labels(write(tmp_path, unsure))
    read_labels(write(tmp_path, rows), needed=["calibration"])
    with pytest.raises(InputError, match="at least 10"):
        read_labels(write(tmp_path, []))


def test_a_file_without_splits_gets_them(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row(i).items() if k != "split"} for i in range(200)]
    labels = split_by_concept(read_labels(write(tmp_path, rows)))
    check_splits(labels, ["train", "calibration", "test"])
    assert 90 <= len(select(labels, "train")) <= 150


@given(st.lists(st.sampled_from([f"c{i}" for i in range(9)]), min_size=1), st.integers(0, 99))
def test_one_concept_one_split_whatever_else_is_there(concepts: list[str], seed: int) -> None:
    labels = [Label(f"t{i}", c, "valid") for i, c in enumerate(concepts)]
    split = split_by_concept(labels, seed=seed)
    assert [label.text for label in split] == [label.text for label in labels]
    for one in split:
        alone = split_by_concept([Label("x", one.concept.upper(), "invalid")], seed=seed)
        assert alone[0].split == one.split


@pytest.mark.parametrize("shares", [{"train": 0.5}, {"train": 1.2, "test": -0.2}, {"dev": 1.0}, {}])
def test_bad_shares(shares: Any) -> None:
    with pytest.raises(InputError, match="sum to 1"):
        split_by_concept([Label("t", "c", "valid")], shares)


def test_a_share_of_nothing_gets_nothing() -> None:
    labels = [Label("t", f"c{i}", "valid") for i in range(100)]
    split = split_by_concept(labels, {"test": 0.0, "train": 1.0})
    assert {label.split for label in split} == {"train"}
