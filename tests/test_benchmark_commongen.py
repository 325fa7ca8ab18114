"""The scores of the NeuroLogic benchmark against brute force and against sacrebleu itself."""

from __future__ import annotations

import gzip
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from benchmarks.commongen import (
    Bleu,
    Item,
    Written,
    difference,
    figures,
    is_feasible,
    longest_common_subsequence,
    read_items,
    rouge_l,
)
from benchmarks.neurologic import headline_of
from benchmarks.neurologic_alone import (
    END,
    LONGEST,
    CompiledFormula,
    Held,
    TableRows,
    _best,
    _constraint,
    _mixed,
    letters_table,
    run,
)
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.unit

WORDS = st.lists(st.sampled_from("abc"), max_size=7)
TEXTS = ["A dog runs in the park.", "the cat sleeps on a sofa today", "Birds sing.", "A dog."]
REFERENCES = [
    ["The dog runs through a park.", "A dog is in the park."],
    ["A cat sleeps on the sofa.", "The cat is asleep.", "Cats like a warm sofa to sleep on today"],
    ["Birds sing in the morning."],
    ["A dog barks.", "The dog."],
]  # fmt: skip
ITEMS = [
    Item(f"item-{i}", ("dog",), (("dog", "dogs"),), tuple(known))
    for i, known in enumerate(REFERENCES)
]


@given(WORDS, WORDS)
@settings(max_examples=100, deadline=None)
def test_longest_common_subsequence_is_what_listing_all_gives(
    first: list[str], second: list[str]
) -> None:
    theirs = {chosen for n in range(len(second) + 1) for chosen in combinations(second, n)}
    best = max(
        n
        for n in range(len(first) + 1)
        if any(chosen in theirs for chosen in combinations(first, n))
    )
    assert longest_common_subsequence(first, second) == best


def test_rouge_l_by_hand() -> None:
    assert rouge_l("A dog runs.", ["the Dog runs fast"]) == pytest.approx(2 * 2 / (3 + 4))
    assert rouge_l("A dog runs.", ["no", "a dog runs!"]) == 1.0  # the nearest reference counts
    assert rouge_l("", ["a dog"]) == 0.0
    assert rouge_l("a dog", []) == 0.0


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [0], [1, 1, 3], [2, 0]])
def test_bleu_of_a_subset_is_sacrebleus(rows: list[int]) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    wide = max(map(len, REFERENCES))
    padded = [[*known, *[None] * (wide - len(known))] for known in REFERENCES]
    theirs = sacrebleu.corpus_bleu(
        [TEXTS[row] for row in rows],
        [[padded[row][i] for row in rows] for i in range(wide)],
        lowercase=True,
    )
    assert Bleu(TEXTS, REFERENCES)(np.array(rows)) == pytest.approx(theirs.score)


def test_figures_and_differences() -> None:
    pytest.importorskip("sacrebleu")
    good = [Written(known[0], True, 1.0, -10.0, 5) for known in REFERENCES]
    bad = [Written("zebra", i == 0, 0.5, -20.0, 5) for i in range(len(REFERENCES))]
    ours, theirs = figures(ITEMS, good), figures(ITEMS, bad)
    assert ours["coverage"] == 1.0 and theirs["coverage"] == 0.25
    assert ours["rouge_l"] == 1.0 and theirs["rouge_l"] == 0.0
    assert ours["bleu_4"] == pytest.approx(100.0)
    assert ours["log_probability_per_token"] == -2.0
    less = difference(ITEMS, good, bad)
    assert less["log_probability"] == [10.0, 10.0, 10.0]
    assert less["coverage"][0] == 0.75 and less["coverage"][1] < less["coverage"][2]
    assert less["bleu_4"][0] > 0 and less["bleu_4"][1] > 0


def test_an_item_asks_for_a_form_of_every_concept() -> None:
    item = Item("x", ("dog", "run"), (("dog", "dogs"), ("run", "ran")), ())
    assert item.constraint.verify("Dogs ran.")
    assert not item.constraint.verify("Dogs rank high.")
    assert len(item.constraint.clauses) == 2


class Letters:
    """A tokenizer with one token a character."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [ord(character) for character in text]


def test_feasible_counts_the_shortest_forms_and_the_end() -> None:
    item = Item("x", ("dog", "run"), (("dogs", "dog"), ("run", "running")), ())
    assert is_feasible(item, Letters(), 9)  # " dog" + " run" + end
    assert not is_feasible(item, Letters(), 8)


def test_items_come_in_one_order_whatever_the_file(tmp_path: Path) -> None:
    rows = [
        {"id": f"r{i}", "concepts": ["a"], "forms": [["a"]], "references": ["A."]} for i in range(9)
    ]
    orders = []
    for some in (rows, rows[::-1]):
        (tmp_path / "commongen").mkdir(exist_ok=True)
        path = tmp_path / "commongen" / "dev_clean.jsonl.gz"
        path.write_bytes(gzip.compress("".join(json.dumps(one) + "\n" for one in some).encode()))
        orders.append([item.id for item in read_items(tmp_path, 4)])
    assert orders[0] == orders[1] and len(orders[0]) == 4


@pytest.mark.parametrize("seed", range(8))
def test_the_best_text_of_the_table_is_the_one_that_an_unbounded_beam_finds(seed: int) -> None:
    formula = _mixed(np.random.default_rng(seed))
    best = _best(TableRows(seed).log_shares.tolist(), formula)
    compiled = CompiledFormula.compile(_constraint(formula), letters_table())
    everything = END**LONGEST
    (one,) = run(
        TableRows(seed), [compiled], everything, LONGEST,
        length_penalty=0.0, group=False, beta=None,
        on_contradiction="flag",
    )  # fmt: skip
    assert (one.satisfied and one.ended) == (best is not None)
    if best is not None:
        assert one.log_probability == pytest.approx(best, abs=1e-4)


def test_held_counts_tensors_while_they_live() -> None:
    import torch

    with Held() as held:
        first = torch.zeros(1000)
        second = first + 1
        del first
        second[:10].add_(1)  # a view and a change in place hold nothing new
        assert (held.now, held.peak) == (4000, 8000)
        del second
    assert held.now == 0


def test_the_headline_takes_the_worst_and_says_what_has_not_run() -> None:
    rows = {"speed": {"a": {"overhead": 1.0, "model": "m"}, "b": {"overhead": 1.2, "model": "m"}}}
    found = headline_of(rows, "cpu")
    assert found["overhead_beam"] == 1.2 and found["model"] == ["m"]
    assert found["overhead_lookahead"] is None and found["rouge_l"] is None
