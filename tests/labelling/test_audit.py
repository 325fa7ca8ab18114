"""Audits: the share valid of what was kept, and two sources side by side."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from symdistill.errors import InputError
from symdistill.exact import precision_interval, share_interval, sign_test
from symdistill.labelling.audit import (
    Ask,
    Comparison,
    Precision,
    as_json,
    audit_draw,
    comparison,
    pairs_draw,
    precision,
    unanswered,
)
from symdistill.labelling.store import Draw
from symdistill.pool import Line

pytestmark = pytest.mark.unit


def lines(texts: Iterable[str], *, name: str, question: str | None = None) -> list[Line]:
    return [
        Line(f"{name}{number}", number, text, question=question)
        for number, text in enumerate(texts, start=1)
    ]


def many(n: int, *, name: str = "", group: int | None = None) -> list[Line]:
    return [
        Line(f"{name}{k}", k + 1, f"{name} line {k}", group=f"g{k % group}" if group else None)
        for k in range(n)
    ]


def pair_up(one: Sequence[Line], other: Sequence[Line], n: int = 1000, seed: int = 0,
            ask: Ask = "valid") -> Draw:  # fmt: skip
    return pairs_draw(one, other, n, seed, ask=ask, sources=("A", "B"), pool_hash="of both")


def answered(draw: Draw, words: Sequence[str]) -> dict[str, str]:
    """Answers to the pairs in turn: "one" or "other" as the source whose line wins, else a tie."""
    found = {}
    for shown, word in zip(draw.items, words, strict=True):
        if word in ("one", "other"):
            first_is_one = draw.plan["sides"][shown.line_id]["first_is_one"]
            word = "first" if (word == "one") == first_is_one else "second"
        found[shown.line_id] = word
    return found


# -- what was kept ------------------------------------------------------------------------------


def test_an_audit_is_a_seeded_sample_of_what_no_critic_was_trained_on() -> None:
    kept = many(50)
    trained_on = {"3", "4", "elsewhere"}
    draw = audit_draw(kept, 20, 1, pool_hash="h", trained_on=trained_on)
    ids = [one.line_id for one in draw.items]
    assert draw.purpose == "audit" and len(set(ids)) == 20 and not trained_on & set(ids)
    again = audit_draw(kept[::-1], 20, 1, pool_hash="h", trained_on=trained_on)
    assert [one.line_id for one in again.items] == ids
    assert {one.line_id for one in audit_draw(kept, 20, 2, pool_hash="h").items} != set(ids)
    assert len(audit_draw(kept, 200, 1, pool_hash="h").items) == 50


def test_its_estimate_is_of_the_lines_that_could_be_drawn() -> None:
    kept = many(50)
    draw = audit_draw(kept, 20, 1, pool_hash="h", trained_on={"3", "4"})
    words = ["valid"] * 16 + ["invalid"] * 3 + ["unsure"]
    said = dict(zip((one.line_id for one in draw.items), words, strict=True))
    found = precision(draw, kept, said)
    assert (found.lines, found.drawn, found.valid, found.invalid, found.unsure) == (
        48,
        20,
        16,
        3,
        1,
    )
    assert found.precision == 0.8
    assert (found.low, found.high) == precision_interval(48, 20, 4)
    for part in ("80.0 %", "these 48 lines", "16 of 20", "1 unsure", "not a certificate"):
        assert part in found.sentence
    assert as_json(found)["sentence"] == found.sentence


def test_groups_have_intervals_of_their_own() -> None:
    kept = [*many(40, group=2), Line("lone", 41, "A lone line.", group="rare")]
    draw = audit_draw(kept, 20, 3, pool_hash="h")
    assert "lone" not in {one.line_id for one in draw.items}
    group_of = {one.id: one.group for one in kept}
    said = {
        one.line_id: "valid" if group_of[one.line_id] == "g0" else "invalid" for one in draw.items
    }
    found = precision(draw, kept, said, by_group=True, level=0.9).groups
    assert found["g0"].lines == found["g1"].lines == 20
    assert found["g0"].drawn + found["g1"].drawn == 20
    assert found["g0"].precision == 1 and found["g1"].precision == 0
    drawn = found["g1"].drawn
    assert (found["g1"].low, found["g1"].high) == precision_interval(20, drawn, drawn, 0.9)
    assert found["rare"].precision is None and (found["rare"].low, found["rare"].high) == (0, 1)
    assert "nothing can be said" in found["rare"].sentence


def test_the_interval_covers_in_audits_from_end_to_end() -> None:
    """Lines of a concept are alike, and those with a bad concept come first in the file."""
    kept = [Line(str(k), k + 1, f"line {k}", group=str(k // 10)) for k in range(300)]
    truth = {one.id: "invalid" if int(one.group or 0) < 6 else "valid" for one in kept}
    held = 0
    for seed in range(400):
        draw = audit_draw(kept, 40, seed, pool_hash="h")
        found = precision(draw, kept, {one.line_id: truth[one.line_id] for one in draw.items})
        held += found.low <= 0.8 <= found.high
    assert held >= 0.95 * 400 - 2 * (400 * 0.95 * 0.05) ** 0.5


def test_nothing_is_estimated_before_all_is_labelled() -> None:
    draw = audit_draw(many(9), 5, 0, pool_hash="h")
    said = {one.line_id: "valid" for one in draw.items[1:]}
    assert unanswered(draw, said) == 1
    with pytest.raises(InputError, match="1 have none; answer them all"):
        precision(draw, many(9), said)
    pairs = pair_up(many(9), many(9, name="b"))
    with pytest.raises(InputError, match="9 have none"):
        comparison(pairs, {})


@pytest.mark.parametrize(("n", "trained_on", "told"), [
    (0, (), "at least 1"),
    (3, [str(k) for k in range(9)], "labelled for training"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_refused(n: int, trained_on: Sequence[str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        audit_draw(many(9), n, 0, pool_hash="h", trained_on=trained_on)


# -- side by side -------------------------------------------------------------------------------


def test_pairs_share_a_question_where_there_is_one() -> None:
    one = [Line(f"a{k}", k, f"a{k}", question=f"Q{k % 3}?", group="g") for k in range(9)]
    other = [Line(f"b{k}", k, f"b{k}", question=f"q{k % 4}? ", group="g") for k in range(9)]
    draw = pair_up(one, other)
    asked = {line.id: int((line.question or "")[1]) for line in (*one, *other)}
    sides = draw.plan["sides"].values()
    assert draw.plan["paired_by"] == "question" and len(draw.items) == 3 + 2 + 2
    assert all(asked[side["one"]] == asked[side["other"]] for side in sides)
    assert all(shown.question for shown in draw.items)
    for side in ("one", "other"):
        assert len({found[side] for found in sides}) == len(sides)  # a line is in one pair


def test_else_pairs_share_a_group_else_chance_forms_them() -> None:
    by_group = pair_up(many(12, group=3), many(8, name="b", group=4))
    assert by_group.plan["paired_by"] == "group" and len(by_group.items) == 6
    by_chance = pair_up(many(12), many(8, name="b", group=4))
    assert by_chance.plan["paired_by"] == "chance" and len(by_chance.items) == 8


def test_a_draw_depends_on_the_seed_and_not_on_the_order_of_the_files() -> None:
    one, other = many(30), many(40, name="b")
    first = pair_up(one, other, 10, seed=4)
    again = pair_up(one[::-1], other[::-1], 10, seed=4)
    assert (first.id, first.items) == (again.id, again.items)
    assert first.items != pair_up(one, other, 10, seed=5).items


def test_chance_puts_either_source_first_and_what_is_shown_does_not_tell() -> None:
    draw = pair_up(many(400), many(400, name="b"))
    firsts = sum(side["first_is_one"] for side in draw.plan["sides"].values())
    assert 150 < firsts < 250
    assert all("A" not in one.line_id and one.question is None for one in draw.items)


def test_pairs_of_one_text_are_counted_and_not_shown() -> None:
    one = lines(["Bees fly.", "Cats purr."], name="a", question="?")
    draw = pair_up(one[:1] * 1, lines(["bees  fly"], name="b", question="?") + one[1:])
    assert len(draw.items) + draw.plan["same"] == 1
    with pytest.raises(InputError, match="same text twice"):
        pair_up(one[:1], lines(["bees  fly"], name="b", question="?"))


def test_a_win_is_counted_for_its_source_wherever_it_stood() -> None:
    one = lines((f"a{k}" for k in range(30)), name="a")
    other = lines((f"b{k}" for k in range(30)), name="b")
    draw = pair_up(one, other)
    for shown in draw.items:
        first_is_one = draw.plan["sides"][shown.line_id]["first_is_one"]
        assert shown.text.startswith("a" if first_is_one else "b")
    words = ["one"] * 14 + ["other"] * 4 + ["both"] * 6 + ["neither"] * 5 + ["unsure"]
    found = comparison(draw, answered(draw, words))
    assert found.wins == (14, 4)
    assert (found.both, found.neither, found.unsure) == (6, 5, 1)
    assert found.valid_shares == (20 / 30, 10 / 30)
    assert found.win_shares == (14 / 18, 4 / 18)
    assert found.p_value == sign_test(14, 4) < 0.05 and found.low > 0.5
    for part in ("30 pairs", "A alone was valid in 14", "both 6", "p = 0.031", "A is ahead"):
        assert part in found.sentence


def test_no_difference_is_told_as_such() -> None:
    draw = pair_up(many(12), many(12, name="b"), ask="more")
    found = comparison(draw, {one.line_id: "both" for one in draw.items})
    assert found.p_value == 1 and found.win_shares == (None, None)
    assert found.valid_shares is None and "does not tell the two apart" in found.sentence


def test_the_test_errs_as_seldom_as_it_says_between_equal_sources() -> None:
    rng = random.Random(0)
    one, other = many(30), many(30, name="b")
    wrong = 0
    for seed in range(1000):
        draw = pair_up(one, other, 20, seed)
        words = {shown.line_id: rng.choice(["first", "second"]) for shown in draw.items}
        wrong += comparison(draw, words).p_value <= 0.05
    assert wrong <= 0.05 * 1000 + 2 * (1000 * 0.05 * 0.95) ** 0.5


def test_another_question_is_refused() -> None:
    with pytest.raises(InputError, match="valid, more, better to ask; got 'best'"):
        pair_up(many(3), many(3, name="b"), ask="best")  # type: ignore[arg-type]


# -- docs/audit.md ------------------------------------------------------------------------------


PAGE = Path(__file__).parents[2] / "docs" / "audit.md"


def test_its_page_shows_what_is_said() -> None:
    page = PAGE.read_text(encoding="utf-8")
    low, high = precision_interval(4312, 200, 19)
    assert Precision(4312, 200, 181, 16, 3, 0.905, low, high, 0.95).sentence in page
    low, high = share_interval(60, 41)
    told = Comparison(
        ask="valid",
        sources=("runs/new", "runs/old"),
        pairs=3950,
        same=0,
        paired_by="question",
        drawn=200,
        wins=(41, 19),
        both=117,
        neither=18,
        unsure=5,
        win_shares=(41 / 60, 19 / 60),
        low=low,
        high=high,
        level=0.95,
        p_value=sign_test(41, 19),
        valid_shares=(158 / 200, 136 / 200),
    )
    assert told.sentence in page


def test_its_python_works(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code, "audit.md", "exec"), {})
    figures = re.findall(r"0\.\d{3,4}", capsys.readouterr().out)
    shown = re.findall(r"0\.\d+", "".join(re.findall(r"#.*", code)))
    assert shown and all(any(one.startswith(part) for one in figures) for part in shown)
