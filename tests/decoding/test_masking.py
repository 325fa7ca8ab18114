"""What the mask lets through is exactly what verifies, by brute force over toy vocabularies."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symdistill.constraints import (
    Constraint,
    all_of,
    any_of,
    at_least,
    at_most,
    contains,
    excludes,
    tokens,
)
from symdistill.errors import InputError

pytestmark = pytest.mark.unit
torch = pytest.importorskip("torch")

from symdistill.decoding import ExactMask, TokenConstraint, TokenTable  # noqa: E402

EOS, SILENT = 0, 1
PIECES = [b"a", b"b", b" ", b"'", "é".encode(), b"\xc3", b"\xa9", b"\xe2\x80", b"\x99", b"\n"]

vocabularies = st.lists(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map(b"".join),
    min_size=1,
    max_size=5,
    unique=True,
)
phrases = st.text(alphabet="abAé '", min_size=1, max_size=4).filter(
    lambda one: any(map(str.isalnum, one))
)
starred = st.tuples(st.sampled_from(["", "", "*"]), phrases, st.sampled_from(["", "", "*"]))
words = st.lists(starred.map("".join), min_size=1, max_size=3)
clauses = st.one_of(
    words.map(lambda some: excludes(any_of(some))),
    st.tuples(st.integers(0, 2), words).map(lambda pair: at_most(*pair)),
)
formulas = st.lists(clauses, min_size=1, max_size=3).map(lambda some: all_of(*some))
befores = st.sampled_from(["", "a", "é", "a ", "'"])

Sequences = set[tuple[int, ...]]


def table_of(vocabulary: list[bytes]) -> TokenTable:
    return TokenTable([b"", b"", *vocabulary], [EOS])


def reachable(mask: ExactMask, vocabulary: int, prompt: list[int], length: int) -> Sequences:
    """Every sequence that the mask lets through: ended by EOS, or `length` tokens long."""
    done: Sequences = set()
    rows: list[tuple[int, ...]] = [()]
    for step in range(length):
        ids = torch.tensor([prompt + list(row) for row in rows], dtype=torch.long)
        allowed = mask(ids, torch.zeros((len(rows), vocabulary))).isfinite().tolist()
        assert all(map(any, allowed)), "a dead end"
        longer = [
            (*row, token) for row, may in zip(rows, allowed, strict=True)
            for token in range(vocabulary) if may[token]
        ]  # fmt: skip
        done.update(row for row in longer if row[-1] == EOS or step == length - 1)
        rows = [row for row in longer if row[-1] != EOS]
        if not rows:
            break
    return done


def complete(vocabulary: int, length: int) -> list[tuple[int, ...]]:
    """All sequences that end with EOS within `length` tokens, or have `length` without it."""
    writing = [token for token in range(vocabulary) if token != EOS]
    cut = list(product(writing, repeat=length))
    return cut + [(*row, EOS) for size in range(length) for row in product(writing, repeat=size)]


@settings(max_examples=100)
@given(vocabularies, formulas, befores, st.integers(1, 4), st.integers(0, 2))
def test_exactly_the_verifying_texts_are_reachable(
    vocabulary: list[bytes], formula: Constraint, before: str, length: int, padding: int
) -> None:
    """Both ways: nothing that violates gets through, nothing that verifies is masked.

    Here the empty text may end, so every prefix that is let through leads somewhere, and
    dead ends need no exception.
    """
    table = table_of(vocabulary)
    prompt = [SILENT] * padding
    mask = ExactMask(
        table, [formula], before=[before], prompt_length=padding, max_new_tokens=length
    )
    expected = {
        row for row in complete(len(table), length) if formula.verify(table.text(row), before)
    }
    assert reachable(mask, len(table), prompt, length) == expected
    assert not mask.infeasible


# Vocabularies that take characters apart in two or three, or put white space side by side.
CORNERS = [
    ([b"\xc3", b"\xa9", b"\xa9a", b"\xe2", b"\x80"], ["a", "é", "aé", "éa", "a é", "a*"]),
    ([b"\xe3", b"\x81", b"\x82", b"\x81\x82", b"a\xe3"], ["a", "あ", "aあ", "aあa"]),
    ([b"\xe2", b"\x80", b"\x99", b"\x99a", b" "], ["a", "a'a", "'a", "*a'"]),
    ([b"b", b" ", b"\n", b" a", b"b "], ["a b", "a a", "b a b", "*a b", "b"]),
]


@settings(max_examples=25)
@pytest.mark.parametrize("corner", range(len(CORNERS)))
@pytest.mark.parametrize("outsider", [b"z", b" "])
@given(data=st.data(), limit=st.integers(0, 1))
def test_exactly_the_verifying_texts_are_reachable_in_the_corners(
    corner: int, outsider: bytes, data: Any, limit: int
) -> None:
    """With "z", a letter that no phrase has, and without."""
    pieces, some = CORNERS[corner]
    chosen = data.draw(st.lists(st.sampled_from(pieces), min_size=2, max_size=3, unique=True))
    words_ = data.draw(st.lists(st.sampled_from(some), min_size=1, max_size=3))
    table = table_of(list(dict.fromkeys([b"a", outsider, *chosen])))
    formula = at_most(limit, words_)
    mask = ExactMask(table, [formula], prompt_length=0, max_new_tokens=4)
    expected = {row for row in complete(len(table), 4) if formula.verify(table.text(row))}
    assert reachable(mask, len(table), [], 4) == expected


@settings(max_examples=60)
@given(vocabularies, formulas, befores, st.integers(1, 3))
def test_without_extending_words_every_prefix_verifies(
    vocabulary: list[bytes], formula: Constraint, before: str, length: int
) -> None:
    table = table_of(vocabulary)
    mask = ExactMask(
        table,
        [formula],
        before=[before],
        prompt_length=0,
        max_new_tokens=length,
        extend_words=False,
    )
    expected = {
        row
        for row in complete(len(table), length)
        if all(formula.verify(table.text(row[:n]), before) for n in range(len(row) + 1))
    }
    assert reachable(mask, len(table), [], length) == expected


@settings(max_examples=60)
@given(vocabularies, st.lists(clauses, min_size=1, max_size=3), befores, st.randoms())
def test_order_and_repeats_of_clauses_change_nothing(
    vocabulary: list[bytes], some: list[Any], before: str, random: Any
) -> None:
    table = table_of(vocabulary)
    shuffled = some + some[:1]
    random.shuffle(shuffled)
    first, second = TokenConstraint(all_of(*some), table), TokenConstraint(all_of(*shuffled), table)
    one, two = first.start(before), second.start(before)
    for _ in range(4):
        for remaining in (0, 1, 5):
            masked = first.forbidden(one, remaining)
            assert (masked == second.forbidden(two, remaining)).all()
        free = [token for token in range(1, len(table)) if not masked[token]]
        if not free:
            break
        token = random.choice(free)
        one, two = first.advance(one, token), second.advance(two, token)


@settings(max_examples=60)
@given(vocabularies, st.lists(st.tuples(formulas, befores), min_size=2, max_size=4), st.data())
def test_rows_do_not_depend_on_their_neighbours(
    vocabulary: list[bytes], pairs: list[tuple[Constraint, str]], data: Any
) -> None:
    """One batch of prompts, in another order, alone, or asked anew for a late step: same masks."""
    table = table_of(vocabulary)

    def mask_of(some: list[tuple[Constraint, str]], padding: int) -> ExactMask:
        return ExactMask(
            table,
            [one for one, _ in some],
            before=[text for _, text in some],
            prompt_length=padding,
            max_new_tokens=4,
        )

    writing = st.integers(1, len(table) - 1)
    rows = [data.draw(st.lists(writing, min_size=3, max_size=3)) for _ in pairs]
    together, backwards = mask_of(pairs, 2), mask_of(pairs[::-1], 0)
    alone = [mask_of([pair], 1) for pair in pairs]
    scores = torch.zeros((len(pairs), len(table)))
    for step in range(4):
        ids = torch.tensor(rows)[:, :step]
        padded = torch.cat([torch.full((len(pairs), 2), SILENT), ids], dim=1)
        masked = together(padded, scores)
        assert masked.equal(backwards(ids.flip(0), scores).flip(0))
        for i, one in enumerate(alone):
            assert masked[i : i + 1].equal(one(padded[i : i + 1, 1:], scores[:1]))
    assert masked.equal(mask_of(pairs, 2)(padded, scores))


def test_many_exclusions_are_enforced_together() -> None:
    table = table_of([b"a", b"b", b" "])
    formula = all_of(*(excludes(one) for one in ("a", "b", "ab", "aa", "ba", "bb", "b b", "a a")))
    mask = ExactMask(table, [formula], prompt_length=0, max_new_tokens=3)
    expected = {row for row in complete(5, 3) if formula.verify(table.text(row))}
    assert reachable(mask, 5, [], 3) == expected


def test_every_spelling_of_a_word_is_seen() -> None:
    """The word " they" is allowed where " the" is not, whichever tokens spell them."""
    table = table_of([b" the", b" t", b"h", b"e", b" ", b"he", b"the", b"y", b" they", b"."])
    mask = ExactMask(table, [excludes("the")], prompt_length=0, max_new_tokens=5)
    texts = {table.text(row) for row in reachable(mask, len(table), [], 5)}
    assert {" they", " the.", " they.", "they", " the"} & texts == {" they", " they.", "they"}
    spellings = [row for row in complete(len(table), 5) if table.text(row) == " they"]
    assert len(spellings) > 5
    mask = ExactMask(table, [excludes("the")], prompt_length=0, max_new_tokens=5)
    assert set(spellings) <= reachable(mask, len(table), [], 5)


def test_a_word_is_not_begun_where_no_token_is_left_to_extend_it() -> None:
    table = table_of([b" the", b"y", b"."])
    mask = ExactMask(table, [excludes("the")], prompt_length=0, max_new_tokens=2)
    first = mask(torch.zeros((1, 0), dtype=torch.long), torch.zeros((1, 5)))
    assert first[0, 2].isfinite()
    last = mask(torch.tensor([[4]]), torch.zeros((1, 5)))
    assert last[0, 2].isneginf()
    after = mask(torch.tensor([[2]]), torch.zeros((1, 5)))
    assert after.isfinite().tolist() == [[False, False, False, True, False]]


def test_contains_is_left_to_verify() -> None:
    table = table_of([b"a", b"b"])
    scores = torch.zeros((1, 4))
    mask = ExactMask(table, [contains("a")], prompt_length=0, max_new_tokens=2)
    assert mask(torch.zeros((1, 0), dtype=torch.long), scores) is scores


@pytest.mark.parametrize(
    "ignored",
    [
        at_least(2, "b"),
        contains("b") | excludes("a"),
        contains("b") | excludes(tokens(2)),
        contains(tokens(3)),
    ],
)
def test_lower_bounds_and_disjunctions_are_left_to_verify(ignored: Constraint) -> None:
    table = table_of([b"a", b"b"])
    for formula in (ignored, ignored & excludes("b")):
        mask = ExactMask(table, [formula], prompt_length=0, max_new_tokens=2)
        expected = {
            row
            for row in complete(len(table), 2)
            if formula is ignored or excludes("b").verify(table.text(row))
        }
        assert reachable(mask, len(table), [], 2) == expected


@pytest.mark.parametrize("bound", [excludes(tokens(2)), at_most(1, ["a", tokens(2, 3)])])
def test_upper_bounds_on_token_phrases_are_refused(bound: Constraint) -> None:
    with pytest.raises(InputError, match="token ids"):
        TokenConstraint(bound & contains("b"), table_of([b"a", b"b"]))


def test_finished_rows_and_rows_without_constraint_are_left_alone() -> None:
    table = table_of([b"a", b" "])
    mask = ExactMask(table, [excludes("a"), None], prompt_length=0, max_new_tokens=9)
    scores = torch.zeros((2, 4))
    assert mask(torch.tensor([[2, EOS], [2, 3]]), scores).equal(scores)


def test_ids_that_the_tokenizer_lacks_are_masked() -> None:
    mask = ExactMask(table_of([b"a"]), [excludes("b")], prompt_length=0, max_new_tokens=9)
    masked = mask(torch.zeros((1, 0), dtype=torch.long), torch.zeros((1, 6)))
    assert masked.isfinite().tolist() == [[True, True, True, False, False, False]]


def test_a_row_without_allowed_tokens_is_ended_and_recorded() -> None:
    """Another processor masked what was left."""
    table = table_of([b"a", b" "])
    mask = ExactMask(table, [None, excludes("a")], prompt_length=0, max_new_tokens=2)
    scores = torch.tensor([[0.0, 0.0, 0.0, 0.0], [-torch.inf, -torch.inf, 0.0, -torch.inf]])
    mask(torch.zeros((2, 0), dtype=torch.long), scores.clone().zero_())
    masked = mask(torch.tensor([[3], [3]]), scores)
    assert masked[1].softmax(-1).tolist() == [1.0, 0.0, 0.0, 0.0]
    assert masked[0].equal(scores[0])
    assert [(one.row, one.prompt, one.step) for one in mask.infeasible] == [(1, 1, 1)]


def test_a_row_whose_bound_is_broken_is_ended_and_recorded() -> None:
    table = table_of([b"a", b" "])
    mask = ExactMask(table, [excludes("a")], prompt_length=0, max_new_tokens=5)
    masked = mask(torch.tensor([[2, 3]]), torch.zeros((1, 4)))
    assert masked.argmax() == EOS
    assert len(mask.infeasible) == 1


def test_without_an_end_token_a_stuck_row_is_left_as_it_was() -> None:
    table = TokenTable([b"a"])
    mask = ExactMask(table, [excludes("a")], prompt_length=0, max_new_tokens=1)
    scores = torch.ones((1, 1))
    assert mask(torch.zeros((1, 0), dtype=torch.long), scores).equal(scores)
    assert "no end token" in mask.infeasible[0].reason


@pytest.mark.parametrize(
    ("constraints", "options"),
    [
        ([], {}),
        ([None, None], {"before": ["a"]}),
        ([None], {"max_new_tokens": 0}),
        ([None], {"prompt_length": -1}),
        ([None], {"eos_token_ids": [99]}),
    ],
)
def test_numbers_that_do_not_fit_are_refused(constraints: list[Any], options: Any) -> None:
    settings_ = {"prompt_length": 0, "max_new_tokens": 1, **options}
    with pytest.raises(InputError):
        ExactMask(table_of([b"a"]), constraints, **settings_)


def test_rows_that_do_not_belong_to_the_prompts_are_refused() -> None:
    mask = ExactMask(table_of([b"a"]), [None, None], prompt_length=0, max_new_tokens=1)
    with pytest.raises(InputError, match="rows of 2 prompts"):
        mask(torch.zeros((3, 0), dtype=torch.long), torch.zeros((3, 3)))


# ------------------------------------------------------------------ inside generate


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, TokenTable]:
    """A random GPT-2 over a dozen tokens."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    vocabulary = [b" the", b" t", b"he", b"y", b" a", b"a", b".", b" dog", b"s", b"\n", b"'s"]
    table = table_of(vocabulary)
    config = GPT2Config(
        vocab_size=len(table), n_positions=64, n_embd=16, n_layer=2, n_head=2,
        bos_token_id=SILENT, eos_token_id=EOS, pad_token_id=EOS, initializer_range=0.4,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval(), table


def generate(model: Any, ids: Any, mask: ExactMask | None, **how: Any) -> Any:
    from transformers import LogitsProcessorList

    processors = LogitsProcessorList([] if mask is None else [mask])
    return model.generate(
        ids, attention_mask=torch.ones_like(ids), logits_processor=processors, **how
    )


WAYS: list[dict[str, Any]] = [
    {"do_sample": False},
    {"do_sample": True, "num_return_sequences": 8},
    {"do_sample": False, "num_beams": 4, "num_return_sequences": 3},
    {"do_sample": True, "num_beams": 3, "num_return_sequences": 2},
]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("max_new_tokens", [1, 2, 7])
def test_every_hypothesis_of_generate_verifies(
    tiny: tuple[Any, TokenTable], how: dict[str, Any], max_new_tokens: int
) -> None:
    model, table = tiny
    prompts = [[SILENT, 9], [SILENT, 6]]
    befores = ["dog", " a"]
    formulas_ = [
        excludes(any_of("the", "dogs")) & at_most(1, ["a", "dog", "t"]),
        excludes(any_of("a", "the", "s", "dog")),
    ]
    torch.manual_seed(1)
    violated = 0
    for _ in range(2):
        mask = ExactMask(
            table, formulas_, before=befores, prompt_length=2, max_new_tokens=max_new_tokens
        )
        for enforced in (mask, None):
            out = generate(
                model, torch.tensor(prompts), enforced, max_new_tokens=max_new_tokens, **how
            )
            each = len(out) // 2
            for row, ids_ in enumerate(out[:, 2:].tolist()):
                good = formulas_[row // each].verify(table.text(ids_), befores[row // each])
                assert good or enforced is None
                violated += not good
    if max_new_tokens == 7:
        assert violated, "without the mask, something is violated"


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("constraint", [None, all_of(), contains("dog")])
def test_with_nothing_to_enforce_generate_is_unchanged(
    tiny: tuple[Any, TokenTable], how: dict[str, Any], constraint: Constraint | None
) -> None:
    model, table = tiny
    ids = torch.tensor([[SILENT, 9], [SILENT, 6]])
    outs = []
    for mask in (None, ExactMask(table, [constraint] * 2, prompt_length=2, max_new_tokens=9)):
        torch.manual_seed(3)
        outs.append(generate(model, ids, mask, max_new_tokens=9, **how))
    assert outs[0].equal(outs[1])
