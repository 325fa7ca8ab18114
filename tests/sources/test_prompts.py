"""Prompts: they agree in number, and the way back gives one clean sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symdistill.errors import InputError
from symdistill.records import Item
from symdistill.sources import (
    Prompt,
    PromptGrammar,
    excluded_phrases,
    rank_prompts,
    read_concepts,
    statement,
)

pytestmark = pytest.mark.unit

GRAMMAR = PromptGrammar.everyday()
DOG = Item.make(
    "concept",
    "dog",
    fields={"number": "count", "plural": "dogs", "article": "a", "topic": "animal"},
)
BUS = Item.make("concept", "bus", fields={"number": "count", "plural": "buses", "article": "a"})
WATER = Item.make("concept", "water", fields={"number": "mass", "topic": "food"})
SCISSORS = Item.make("concept", "scissors", fields={"number": "plural", "plural": "scissors"})
CAKE = Item.make("goal", "bake a cake", fields={"gerund": "baking a cake"})


def bodies(item: Item) -> dict[str, str]:
    """What the prompts of an item say after the hedge, by pattern."""
    return {prompt.pattern_id: prompt.text[prompt.lead :] for prompt in GRAMMAR.render(item)}


def prompt_for(item: Item, pattern_id: str) -> Prompt:
    return next(one for one in GRAMMAR.render(item) if one.pattern_id == pattern_id)


def test_agreement_of_count_mass_and_plural_nouns() -> None:
    assert bodies(BUS)["used-for"] == "buses are used for"
    assert bodies(BUS)["kind-of"] == "a bus is a kind of"
    assert bodies(BUS)["have"] == "buses have"
    assert bodies(WATER)["used-for"] == "water is used for"
    assert bodies(WATER)["kind-of"] == "water is a kind of"
    assert bodies(SCISSORS)["kind-of"] == "scissors are a kind of"
    assert bodies(SCISSORS)["need"] == "scissors need"
    assert bodies(CAKE)["requires"] == "baking a cake requires"
    assert bodies(CAKE)["to-you-need"] == "to bake a cake, you need"
    assert bodies(CAKE)["in-order-to"] == "people bake a cake in order to"


def test_agreement_over_the_whole_packaged_list() -> None:
    plural = re.compile(r" (?:are|have|need|want|help|use|can|should)\b")
    singular = re.compile(r" (?:is|has|needs|wants|helps|requires|makes|can)\b")
    for item in read_concepts("everyday").items:
        prompts = GRAMMAR.render(item)
        assert len({one.id for one in prompts}) == len(prompts) >= 6
        for one in prompts:
            body = one.text[one.lead :]
            assert "{" not in body and "None" not in body and "  " not in body
            if item.kind == "goal":
                continue
            is_plural = item.fields["number"] == "plural" or (
                item.fields["number"] == "count" and one.subject == item.fields["plural"]
                and one.pattern_id != "kind-of"
            )  # fmt: skip
            if body.startswith("people"):
                assert f" {one.subject} to" in body
            else:
                after = body.removeprefix(one.subject)
                assert (plural if is_plural else singular).match(after), body
            if item.fields["number"] == "count" and not is_plural:
                assert one.subject == f"{item.fields['article']} {item.text}"


def test_topics_filter_known_topics_only() -> None:
    assert "want-to" in bodies(DOG)
    assert "made-of" not in bodies(DOG)
    assert {"want-to", "made-of"} <= set(bodies(BUS))  # its topic is not known


def test_prompt_says_what_it_is_made_of() -> None:
    for one in GRAMMAR.render(DOG):
        assert one.hedge in GRAMMAR.hedges
        assert one.text.startswith(f"{one.hedge} ")
        assert not one.text[one.lead].isspace()
        assert one.text == one.text.strip()
        assert one.relation in one.text and one.subject in one.text
        assert one.item_id == DOG.id


def test_hedges_are_seeded_and_varied() -> None:
    items = read_concepts("everyday", limit=50).items
    first = [one.hedge for item in items for one in GRAMMAR.render(item)]
    again = [one.hedge for item in items for one in GRAMMAR.render(item)]
    other = [one.hedge for item in items for one in GRAMMAR.render(item, seed=1)]
    assert first == again != other
    share = 1 / len(GRAMMAR.hedges)
    for hedge in GRAMMAR.hedges:
        assert 0.5 * share < first.count(hedge) / len(first) < 2 * share


@pytest.mark.parametrize(
    ("continuation", "said"),
    [
        (" bark.", "Dogs can bark."),
        (" bark", "Dogs can bark."),
        ("bark", "Dogs can bark."),
        ("'t fly", "Dogs can't fly."),
        ("  bark \t loudly. They also bite.", "Dogs can bark loudly."),
        (" bark\nCats can purr", "Dogs can bark."),
        (" bark!! Really?", "Dogs can bark."),
        (" bark...", "Dogs can bark."),
        (" bark, ", "Dogs can bark."),
        (" run 3.5 miles. Cats", "Dogs can run 3.5 miles."),
        (" eat e.g. meat. Cats", "Dogs can eat e.g. meat."),
        (" live in the U.S. They bark", "Dogs can live in the U.S."),
        (" visit Dr. Smith. They bark", "Dogs can visit Dr. Smith."),
        (" get vitamin C. They bark", "Dogs can get vitamin C."),
        ("", ""),
        (" . Nothing", ""),
        ("\nbark", ""),
        (" ", ""),
    ],
)
def test_statement(continuation: str, said: str) -> None:
    assert statement(prompt_for(DOG, "can"), continuation) == said


def test_statement_of_a_goal() -> None:
    said = statement(prompt_for(CAKE, "to-you-need"), " an oven")
    assert said == "To bake a cake, you need an oven."


@settings(max_examples=300, deadline=None)
@given(continuation=st.text(st.sampled_from("ab C.!?,;: \n\t\r\u2028\"')é1…-"), max_size=40))
def test_statement_is_one_clean_sentence(continuation: str) -> None:
    prompt = prompt_for(DOG, "can")
    said = statement(prompt, continuation)
    assert statement(prompt, continuation + "\nAnd more.") == said
    if said:
        assert said.startswith("Dogs can")
        assert said.endswith(".") and not said.endswith("..")
        assert said == " ".join(said.split())
        assert any(c.isalnum() for c in said.removeprefix("Dogs can"))
        first_line = re.split(r"[\n\r\u2028]", continuation.lstrip(" \t"))[0]
        assert len(said) <= len("Dogs can ") + len(first_line) + 1


def test_excluded_phrases() -> None:
    assert set(excluded_phrases(prompt_for(BUS, "used-for"))) == {
        "bus",
        "buses",
        "are used for",
        "is used for",
    }
    assert set(excluded_phrases(prompt_for(DOG, "can"))) == {"dog", "dogs"}
    assert set(excluded_phrases(prompt_for(WATER, "have"))) == {"water"}
    assert set(excluded_phrases(prompt_for(CAKE, "requires"))) == {
        "bake a cake",
        "baking a cake",
        "requires",
    }


@given(
    scores=st.lists(st.integers(1, 4), min_size=30, max_size=30),
    keep=st.integers(1, 20),
    shuffle=st.randoms(use_true_random=False),
)
def test_rank_prompts_against_its_definition(scores: list[int], keep: int, shuffle: object) -> None:
    prompts = [*GRAMMAR.render(DOG), *GRAMMAR.render(WATER), *GRAMMAR.render(CAKE)]
    perplexity = {one.id: float(score) for one, score in zip(prompts, scores * 2, strict=False)}
    mixed = list(prompts)
    shuffle.shuffle(mixed)  # type: ignore[attr-defined]
    kept = rank_prompts(mixed, perplexity, keep)
    for item in (DOG, WATER, CAKE):
        of_item = [one for one in prompts if one.item_id == item.id]
        chosen = [one for one in kept if one.item_id == item.id]
        assert len(chosen) == min(keep, len(of_item))
        order = [(perplexity[one.id], one.id) for one in chosen]
        assert order == sorted(order)
        dropped = [(perplexity[one.id], one.id) for one in of_item if one not in chosen]
        assert all(worse > order[-1] for worse in dropped)


def test_rank_prompts_refuses_what_it_cannot_rank() -> None:
    prompts = GRAMMAR.render(DOG)
    with pytest.raises(ValueError, match=prompts[0].id):
        rank_prompts(prompts, {}, 3)
    with pytest.raises(ValueError, match="perplexity"):
        rank_prompts(prompts[:1], {prompts[0].id: float("nan")}, 3)
    with pytest.raises(ValueError, match="at least 1"):
        rank_prompts(prompts, {one.id: 1.0 for one in prompts}, 0)


def test_items_without_pattern_or_form_are_told() -> None:
    with pytest.raises(InputError, match="question"):
        GRAMMAR.render(Item.make("question", "What is a dog?"))
    with pytest.raises(InputError, match="'number'"):
        GRAMMAR.render(Item.make("concept", "dog"))
    with pytest.raises(InputError, match="'gerund'"):
        GRAMMAR.render(Item.make("goal", "bake a cake"))


GOOD = """
version: 1
hedges: []
patterns:
  - {id: can, kind: concept, subject: plural, text: "{subject} {relation}", relation: can}
"""


def test_own_grammar_without_hedges(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD, encoding="utf-8")
    (prompt,) = PromptGrammar.from_yaml(path).render(DOG)
    assert (prompt.text, prompt.lead, prompt.hedge) == ("Dogs can", 0, "")
    assert statement(prompt, " bark") == "Dogs can bark."


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("version: 1", "version: 2", "version"),
        ("version: 1", "", "version"),
        ("hedges: []", "hedges: Usually", "hedges"),
        ("hedges:", "hedge:", "'hedge'"),
        ("id: can", "id: ''", "'id'"),
        ("id: can,", "", "'id'"),
        ("kind: concept", "kind: goal", "plural"),
        ("kind: concept", "kind: [x]", "'kind'"),
        ("subject: plural", "subject: plurals", "plurals"),
        ("{subject} {relation}", "{subject} can", "relation"),
        ("{subject} {relation}", "{subject} {relation} {x}", "relation"),
        ("relation: can", "relation: 'can|'", "can"),
        ("relation: can", "relation: can, topics: animal", "topics"),
        ("relation: can", "relation: can, colour: red", "colour"),
        ("patterns:", "patterns: [", "YAML"),
        (GOOD, "- a list", "keys"),
        (GOOD, "", "keys"),
        (GOOD, GOOD + GOOD.splitlines()[-1], "own id"),
        (GOOD, "version: 1\nhedges: []\npatterns: []", "patterns"),
    ],
)
def test_bad_grammars_are_told(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match=says) as caught:
        PromptGrammar.from_yaml(path)
    assert str(path) in str(caught.value)


def test_unreadable_grammars(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "nowhere.yaml", tmp_path, binary):
        with pytest.raises(InputError, match=re.escape(str(path))):
            PromptGrammar.from_yaml(path)
