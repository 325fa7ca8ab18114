"""Configuration files: what is meant is read, and what is not known is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from symdistill.config import (
    BudgetSettings,
    Config,
    Count,
    Settings,
    annotated_yaml,
    changed_fields,
    dump_config,
    load_config,
    read_yaml,
)
from symdistill.errors import InputError
from symdistill.recipes import SUMMARIES, recipe

pytestmark = pytest.mark.unit


class OvenSettings(Settings):
    """The oven."""

    degrees: float = 180.0
    """In Celsius: 180 is
    moderate."""

    minutes: Count = 30
    """How long."""


class BakeConfig(Config):
    """How to bake."""

    recipe: str = "bake"
    """The recipe that reads this file."""

    flour_g: Count = 500
    """Flour."""

    toppings: tuple[str, ...] = ("salt: coarse", "# not a comment", 'a "quote"')
    """What goes on top."""

    oven: OvenSettings = OvenSettings()
    grill: OvenSettings | None = None
    """null: no grill."""


def load(folder: Path, text: str | bytes, *overrides: str) -> BakeConfig:
    path = folder / "bread.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_config(path, BakeConfig, overrides)


def refusal(folder: Path, text: str | bytes, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load(folder, text, *overrides)
    return str(caught.value)


# -- what is meant is read ----------------------------------------------------------------------


@pytest.mark.parametrize("written", ["3000000", "3e6", "3_000_000", '"3e6"', "3000000.0", "+3E+6"])
def test_a_whole_number_as_people_write_it(tmp_path: Path, written: str) -> None:
    assert load(tmp_path, f"flour_g: {written}").flour_g == 3_000_000


def test_twenty_thousand(tmp_path: Path) -> None:
    assert load(tmp_path, "flour_g: 20_000").flour_g == 20_000


def test_the_name_is_the_file_s_unless_it_is_given(tmp_path: Path) -> None:
    assert load(tmp_path, "seed: 1").name == "bread"
    assert load(tmp_path, 'name: ""').name == "bread"
    assert load(tmp_path, "name: rolls").name == "rolls"


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    assert load(tmp_path, b"\xef\xbb\xbfseed: 4\n").seed == 4


def test_overrides_win_over_the_file_and_make_groups(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "seed: 1\noven:\n  degrees: 200\n",
        "seed=2",
        "oven.minutes=4e1",
        "grill.degrees=250",
        "toppings=[a, b]",
        "name=x=y",
    )
    assert config.seed == 2
    assert config.oven == OvenSettings(degrees=200, minutes=40)
    assert config.grill == OvenSettings(degrees=250)
    assert config.toppings == ("a", "b")
    assert config.name == "x=y"


def test_an_override_can_switch_a_group_off(tmp_path: Path) -> None:
    assert load(tmp_path, "grill:\n  degrees: 1\n", "grill=null").grill is None


@pytest.mark.parametrize(
    ("written", "wall_s"),
    [
        ("2h", 7200), ("90s", 90), ("1h30m", 5400), ("1.5h", 5400), ("2d", 172_800), ("90", 90),
        ("90.5", 90.5), ("1e3", 1000), ("7_200", 7200), ("1d 2h 3m 4.5s", 93_784.5), ("5 M", 300),
        ("0s", 0), ("null", None),
    ],
)  # fmt: skip
def test_durations_are_read_as_people_write_them(
    tmp_path: Path, written: str, wall_s: float | None
) -> None:
    config = load(tmp_path, f"budget:\n  wall: {written}\n")
    assert config.budget.wall == wall_s
    (tmp_path / "again.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "again.yaml", BakeConfig).budget == config.budget


@pytest.mark.parametrize(
    "written",
    ["2 weeks", "1h1h", "30m1h", "h", "''", "1.h", "-2h", "-5", ".inf", "nan", "true", "[]"],
)
def test_what_is_no_duration_is_told(tmp_path: Path, written: str) -> None:
    said = refusal(tmp_path, f"seed: 1\nbudget:\n  wall: {written}\n")
    assert said.startswith("budget.wall") and "line 3" in said


@given(st.text(max_size=12) | st.floats() | st.integers() | st.binary(max_size=3))
def test_any_duration_is_read_or_refused(written: object) -> None:
    try:
        wall_s = BudgetSettings.model_validate({"wall": written}).wall
    except ValidationError:
        return
    assert wall_s is not None and 0 <= wall_s < float("inf")


# -- what is not known is named -----------------------------------------------------------------


def test_an_unknown_key_is_told_with_its_line_and_its_nearest_name(tmp_path: Path) -> None:
    said = refusal(tmp_path, "# bread\nseed: 1\n\nflour: 3\n")
    assert "'flour'" in said and "'flour_g'" in said
    assert f"{tmp_path / 'bread.yaml'}, line 4" in said


@pytest.mark.parametrize("group", ["oven", "grill"])
def test_an_unknown_key_in_a_group_is_told_with_the_group(tmp_path: Path, group: str) -> None:
    said = refusal(tmp_path, f"seed: 1\n{group}:\n  degrees: 200\n  minuts: 3\n")
    assert f"'{group}.minuts'" in said and "line 4" in said
    assert "nearest key is 'minutes'" in said and "known keys: degrees, minutes" in said


def test_several_faults_are_counted(tmp_path: Path) -> None:
    assert "(2 more)" in refusal(tmp_path, "a: 1\nb: 2\nc: 3\n")


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("seed: many", "seed", 1),
        ("seed: 1.5", "seed", 1),
        ("seed: true", "seed", 1),
        ("seed: -1", "seed", 1),
        ("seed: .inf", "seed", 1),
        ("seed: 1\noven:\n  degrees: hot", "oven.degrees", 3),
        ("seed: 1\noven: 3", "oven", 2),
        ("toppings:\n- a\n- [b]\n", "toppings", 3),
        ("recipe: 7", "recipe", 1),
        ("name: ../other", "name", 1),
        ("name: ..", "name", 1),
        ("name: 2020-01-01", "name", 1),
    ],
)
def test_a_value_of_the_wrong_kind_is_told(tmp_path: Path, text: str, key: str, line: int) -> None:
    said = refusal(tmp_path, text)
    assert said.startswith(f"{key} in ") and f"line {line}:" in said


def test_a_missing_key_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("seed: 1\n")
    with pytest.raises(InputError, match=r"'recipe'.*missing"):
        load_config(path, Config)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No such file.*symdistill copy"):
        load_config(tmp_path / "absent.yaml", BakeConfig)


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="directory"):
        load_config(tmp_path, BakeConfig)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\x00\xff", bytes(range(256)), b"\xff\xfe"])
def test_a_binary_file_is_told(tmp_path: Path, content: bytes) -> None:
    assert "not UTF-8" in refusal(tmp_path, content)


def test_a_fault_of_syntax_is_told_with_its_line(tmp_path: Path) -> None:
    said = refusal(tmp_path, "seed: 1\noven:\n  degrees: [1, 2\nname: x\n")
    assert "line 4" in said and "bread.yaml" in said


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "3"])
def test_what_is_no_mapping_is_told(tmp_path: Path, text: str) -> None:
    assert "key: value" in refusal(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        "seed: 1\nseed: 2",
        "name: 2020-13-45",
        "seed: !!int x",
        "name: !!bool x",
        "name: !!python/object/apply:os.system [ls]",
        "toppings: &a [*a]",
        "seed: " + "[" * 5000,
        "seed: *nowhere",
        "%YAML 9.9\n---\nseed: 1",
    ],
)
def test_odd_yaml_is_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    said = refusal(tmp_path, text)
    assert "bread.yaml" in said and len(said) < 1000


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("seed", "--set key=value"),
        ("=3", "--set key=value"),
        ("seed=[", "YAML value"),
        ("seed=!!int x", "YAML value"),
        ("seed.inner=3", "seed to be a group"),
        ("sed=3", "unknown key 'sed' in --set; the nearest key is 'seed'"),
        ("oven.minuts=3", "unknown key 'oven.minuts' in --set"),
        ("oven={minuts: 3}", "unknown key 'oven.minuts' in --set"),
        ("seed=x", "seed in --set: "),
        ("seed=", "seed in --set: "),
    ],
)
def test_bad_overrides_are_told_as_overrides(tmp_path: Path, override: str, told: str) -> None:
    assert told in refusal(tmp_path, "seed: 1\n", override)


yaml_like = st.text("seednamovegri:-[]{}#&*!|>'\"%@`,?<~ \n\t0123456789.e_", max_size=40)
any_bytes = st.binary(max_size=60) | (st.text(max_size=60) | yaml_like).map(
    lambda text: text.encode("utf-8", "replace")
)


@example(b"a: &b [*b]")
@example(b"? {a: [1]}\n: 2")
@example(b"<<: 3")
@example(b"seed: 1\nseed: 1")
@given(any_bytes)
def test_any_bytes_are_a_configuration_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    try:
        config = load_config(path, BakeConfig)
    except InputError as error:
        assert str(error)
    else:
        assert isinstance(config, BakeConfig)


@given(st.text("seednamovgri=.[]{}:, \"'&*!#1e-", max_size=25))
def test_any_override_is_taken_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, override: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "fixed.yaml"
    path.write_text("seed: 1\n")
    try:
        assert isinstance(load_config(path, BakeConfig, [override]), BakeConfig)
    except InputError as error:
        assert str(error)


# -- written and read again ---------------------------------------------------------------------


# Without control characters and Unicode's own line breaks, which the YAML library alters.
characters = st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"])


@settings(max_examples=40)
@given(
    st.text(characters, max_size=20),
    st.lists(st.text(characters | st.sampled_from("\n\t"), max_size=10), max_size=4),
    st.integers(0, 10**30),
    st.floats(allow_nan=False),
)
def test_a_resolved_configuration_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    toppings: list[str],
    seed: int,
    degrees: float,
) -> None:
    name = "".join(mark for mark in name if mark not in "/\\").strip(".") or "a"
    config = BakeConfig(
        name=name, seed=seed, toppings=tuple(toppings), oven=OvenSettings(degrees=degrees)
    )
    path = tmp_path_factory.getbasetemp() / "resolved.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path, BakeConfig) == config
    assert changed_fields(read_yaml(path), config.model_dump(mode="json")) == []


def test_the_annotated_file_is_the_default_configuration(tmp_path: Path) -> None:
    text = annotated_yaml(BakeConfig, "bake")
    assert load(tmp_path, text) == BakeConfig(name="bread")
    assert "# In Celsius: 180 is\n  # moderate.\n" in text  # every line of a text is a comment
    assert "# The oven." in text and "# How to bake." in text


@pytest.mark.parametrize("name", SUMMARIES)
def test_the_annotated_file_of_each_recipe_is_its_default(tmp_path: Path, name: str) -> None:
    kind, _ = recipe(name)
    path = tmp_path / "mine.yaml"
    path.write_text(annotated_yaml(kind, name), encoding="utf-8")
    assert load_config(path, kind) == kind(recipe=name, name="mine")
    commented = [line for line in path.read_text(encoding="utf-8").splitlines() if "#" in line]
    assert len(commented) > len(kind.model_fields)


def test_the_packaged_configurations_load() -> None:
    import symdistill

    found = sorted((Path(symdistill.__file__).parent / "data" / "configs").glob("*.yaml"))
    assert found
    for path in found:
        kind, _ = recipe(str(read_yaml(path)["recipe"]))
        assert load_config(path, kind).name == path.stem


def test_changed_fields_are_named_with_their_groups() -> None:
    old = BakeConfig(seed=1, oven=OvenSettings(minutes=1)).model_dump(mode="json")
    new = BakeConfig(seed=2, oven=OvenSettings(minutes=2)).model_dump(mode="json")
    assert changed_fields(old, new) == ["oven.minutes: 1 -> 2", "seed: 1 -> 2"]
    assert changed_fields(old, old) == []


def test_reading_a_configuration_needs_no_torch() -> None:
    program = "import sys, symdistill.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
