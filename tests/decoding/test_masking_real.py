"""The mask on the embedded model, with rules like those of I2D2."""

from __future__ import annotations

from typing import Any

import pytest

from symdistill.constraints import Constraint, all_of, any_of, at_most, excludes

pytestmark = pytest.mark.real
torch = pytest.importorskip("torch")

from symdistill.decoding import ExactMask, TokenTable  # noqa: E402

MAX_NEW_TOKENS = 8
PROMPTS = {"dog": "Generally, dogs can", "hammer": "A hammer is usually used for"}
WAYS: list[dict[str, Any]] = [
    {"do_sample": True, "top_p": 0.9, "num_return_sequences": 3},
    {"do_sample": False, "num_beams": 4, "num_return_sequences": 2},
]


def rules(concept: str) -> Constraint:
    """At most one function word, no connective, no repetition of the concept."""
    return (
        at_most(1, ["a", "an", "the", "of", "in", "on", "at", "for", "to", "with", "it", "that"])
        & excludes(any_of("and", "but", "if", "when", "because", "he", "they", "not", "*n't"))
        & excludes(any_of(concept, concept + "s", "can"))
    )


@pytest.fixture(scope="module")
def opened(smollm2: Any) -> tuple[Any, Any, TokenTable]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2.folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(smollm2.folder).eval()
    return model, tokenizer, TokenTable.from_tokenizer(tokenizer)


def written(opened: Any, mask: ExactMask | None, how: dict[str, Any]) -> list[list[int]]:
    model, tokenizer, _ = opened
    inputs = tokenizer(list(PROMPTS.values()), return_tensors="pt", padding=True)
    torch.manual_seed(0)
    out = model.generate(
        **inputs,
        max_new_tokens=MAX_NEW_TOKENS,
        logits_processor=[] if mask is None else [mask],
        **how,
    )
    tokens: list[list[int]] = out[:, inputs["input_ids"].shape[1] :].tolist()
    return tokens


def mask_of(opened: Any, constraints: list[Constraint], *, extend_words: bool) -> ExactMask:
    _, tokenizer, table = opened
    return ExactMask(
        table,
        constraints,
        before=list(PROMPTS.values()),
        prompt_length=max(len(tokenizer(one)["input_ids"]) for one in PROMPTS.values()),
        max_new_tokens=MAX_NEW_TOKENS,
        extend_words=extend_words,
    )


@pytest.mark.parametrize(("how", "extend_words"), [(WAYS[0], False), (WAYS[1], True)])
def test_every_text_keeps_the_rules(opened: Any, how: dict[str, Any], extend_words: bool) -> None:
    _, tokenizer, table = opened
    constraints = [rules(concept) for concept in PROMPTS]
    mask = mask_of(opened, constraints, extend_words=extend_words)
    rows = written(opened, mask, how)
    each = len(rows) // len(PROMPTS)
    for row, tokens in enumerate(rows):
        text = tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert text == table.text(tokens)
        before = list(PROMPTS.values())[row // each]
        assert constraints[row // each].verify(text, before), text
    assert not mask.infeasible


@pytest.mark.parametrize("how", WAYS)
def test_an_empty_constraint_changes_nothing(opened: Any, how: dict[str, Any]) -> None:
    empty = mask_of(opened, [all_of(), all_of()], extend_words=True)
    assert written(opened, empty, how) == written(opened, None, how)
