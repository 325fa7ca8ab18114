"""Constrained decoding with `transformers` models: tiny random ones, and the embedded one."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import pytest

from symdistill.constraints import Constraint, any_of, at_most, contains, excludes

torch = pytest.importorskip("torch")

from tests.decoding.brute_force import beam_search  # noqa: E402

from symdistill.decoding import TokenTable  # noqa: E402
from symdistill.decoding.formula import CompiledFormula  # noqa: E402
from symdistill.decoding.neurologic import Hypothesis, constrained_generate, neurologic  # noqa: E402

NEAR_TIE = 1e-4  # beams whose scores are closer than this may change places
SENTENCES = [
    "a dog runs in the park and a cat sleeps on the sofa",
    "the dogs catch the frisbee, the child throws it",
    "it's a long day in the garden. birds sing!",
]
PROMPTS = ["a dog", "the child throws it, and", "it's"]
RULES: list[Constraint] = [
    contains("cat") & excludes("the"),
    contains(any_of("dog", "dogs")) & at_most(1, ["a", "the", "in"]),
    excludes(any_of("a", "it")) & contains("park"),
]
FAMILIES = ["gpt2", "llama", "t5", "bart"]
END_WEIGHT = {"gpt2": -3.0, "llama": 3.0, "t5": 3.0, "bart": 6.0}  # so that some texts end


# ------------------------------------------------------------------ tiny models


def byte_level() -> Any:
    """A tokenizer like GPT-2's, with 300 tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<end>", "<pad>"]
    )
    backend.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<end>", pad_token="<pad>", padding_side="left"
    )


def metaspace() -> Any:
    """A tokenizer like T5's, over the letters and words of a few sentences."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = {"<end>": 0.0, "<pad>": 0.0, "<unk>": -20.0, "\u2581": -3.0}
    for sentence in SENTENCES:
        pieces |= {"\u2581" + word: -4.0 for word in sentence.split()}
        pieces |= {character: -6.0 for character in sentence if character != " "}
    backend = Tokenizer(models.Unigram(list(pieces.items()), unk_id=2))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="$A <end>", special_tokens=[("<end>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<end>", pad_token="<pad>", unk_token="<unk>"
    )


def tiny(family: str, dtype: Any = None) -> tuple[Any, Any]:
    """A random model of a family, and a tokenizer for it."""
    import transformers

    torch.manual_seed(0)
    tokenizer = metaspace() if family == "t5" else byte_level()
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    size = len(tokenizer)
    if family == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=size, n_positions=64, n_embd=16, n_layer=2, n_head=2,
            initializer_range=0.5, **ids,
        )  # fmt: skip
        model = transformers.GPT2LMHeadModel(config)
    elif family == "llama":
        config = transformers.LlamaConfig(
            vocab_size=size, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, initializer_range=0.5, **ids,
        )  # fmt: skip
        model = transformers.LlamaForCausalLM(config)
    elif family == "t5":
        config = transformers.T5Config(
            vocab_size=size, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
            initializer_factor=4.0, decoder_start_token_id=1, **ids,
        )  # fmt: skip
        model = transformers.T5ForConditionalGeneration(config)
    else:
        config = transformers.BartConfig(
            vocab_size=size, d_model=16, encoder_layers=2, decoder_layers=2,
            encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
            decoder_ffn_dim=32, max_position_embeddings=64, init_std=0.5,
            decoder_start_token_id=0, forced_eos_token_id=None, **ids,
        )  # fmt: skip
        model = transformers.BartForConditionalGeneration(config)
    with torch.no_grad():
        model.get_output_embeddings().weight[0] *= END_WEIGHT[family]
    if model.config.is_encoder_decoder:
        tokenizer.padding_side = "right"
    return model.eval().to(dtype or torch.float32), tokenizer


@pytest.fixture(scope="module")
def models() -> dict[str, tuple[Any, Any]]:
    return {family: tiny(family) for family in FAMILIES}


def before_of(model: Any, prompt: str) -> str:
    """What stands before the text: an encoder-decoder writes a text of its own."""
    return "" if model.config.is_encoder_decoder else prompt


def logits_after(model: Any, asked: Any, written: Any) -> Any:
    """Log-probabilities after the prompt and each written token, without cache: (1, T + 1, V)."""
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            start = torch.tensor([[model.config.decoder_start_token_id]])
            fed = torch.cat([start, written], dim=1)
            logits = model(input_ids=asked, decoder_input_ids=fed, use_cache=False).logits
        else:
            fed = torch.cat([asked, written], dim=1)
            logits = model(input_ids=fed, use_cache=False).logits[:, asked.shape[1] - 1 :]
    return logits.float().log_softmax(-1)


def rescored(model: Any, tokenizer: Any, prompt: str, tokens: tuple[int, ...]) -> float:
    """The log-probability of a text by one forward pass without cache or padding."""
    asked = tokenizer(prompt, return_tensors="pt")["input_ids"]
    written = torch.tensor([tokens])
    each = logits_after(model, asked, written[:, :-1]).gather(2, written.unsqueeze(2))
    return float(each.sum())


def generated(model: Any, tokenizer: Any, prompts: list[str], **how: Any) -> list[Any]:
    """What `generate` writes: for each prompt, (tokens up to the end token, score), best first."""
    inputs = tokenizer(prompts, return_tensors="pt", padding=True)
    inputs.pop("token_type_ids", None)
    ends = how.pop("ends", [tokenizer.eos_token_id])
    out = model.generate(
        **inputs, do_sample=False, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id,
        return_dict_in_generate=True, output_scores=True, **how,
    )  # fmt: skip
    skipped = 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    rows = []
    for row in out.sequences[:, skipped:].tolist():
        size = next((i + 1 for i, token in enumerate(row) if token in ends), len(row))
        rows.append(tuple(row[:size]))
    if how["num_beams"] == 1:
        scores = [rescored(model, tokenizer, prompt, row) / len(row)
                  for prompt, row in zip(prompts, rows, strict=True)]  # fmt: skip
    else:
        scores = out.sequences_scores.tolist()
    each = how.get("num_return_sequences", 1)
    pairs = list(zip(rows, scores, strict=True))
    return [pairs[i * each : (i + 1) * each] for i in range(len(prompts))]


def same(ours: list[Hypothesis], theirs: list[Any]) -> None:
    """The same tokens and scores; other tokens only where the scores are nearly tied."""
    assert len(ours) == len(theirs)
    for one, (tokens, score) in zip(ours, theirs, strict=True):
        assert one.score == pytest.approx(score, abs=NEAR_TIE)
        if one.token_ids != tokens:
            warnings.warn(f"near tie: {one.token_ids} and {tokens} at {score:.5f}", stacklevel=2)


# ------------------------------------------------------------------ as plain beam search


@pytest.mark.unit
@pytest.mark.parametrize("early_stopping", [False, "never"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_reference_is_the_beam_search_of_generate(
    models: Any, family: str, early_stopping: Any
) -> None:
    model, tokenizer = models[family]
    theirs = generated(
        model, tokenizer, PROMPTS,
        num_beams=3, num_return_sequences=3, max_new_tokens=5, early_stopping=early_stopping,
    )  # fmt: skip
    for prompt, some in zip(PROMPTS, theirs, strict=True):
        asked = tokenizer(prompt, return_tensors="pt")["input_ids"]

        @lru_cache
        def after(tokens: tuple[int, ...], asked: Any = asked) -> Any:
            return logits_after(model, asked, torch.tensor([tokens]).long())[0, -1].tolist()

        found = beam_search(
            after, num_beams=3, length=5, ends=frozenset({0}), early_stopping=early_stopping
        )
        assert [one.tokens for one in found] == [tokens for tokens, _ in some]
        assert [one.score(1.0) for one in found] == pytest.approx([s for _, s in some], abs=1e-4)


@pytest.mark.unit
@pytest.mark.parametrize("early_stopping", [False, "never"])
@pytest.mark.parametrize("family", FAMILIES)
def test_without_constraints_it_is_the_beam_search_of_generate(
    models: Any, family: str, early_stopping: Any
) -> None:
    model, tokenizer = models[family]
    for num_beams in range(1, 9) if early_stopping is False else (2, 4, 8):
        how: dict[str, Any] = {
            "num_beams": num_beams, "num_return_sequences": num_beams, "max_new_tokens": 6,
            "early_stopping": early_stopping, "length_penalty": 1.0,
        }  # fmt: skip
        theirs = generated(model, tokenizer, PROMPTS, **how)
        ours = constrained_generate(model, tokenizer, PROMPTS, None, **how)
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)


@pytest.mark.unit
@pytest.mark.parametrize("family", FAMILIES)
def test_several_end_tokens_are_ends_as_in_generate(family: str) -> None:
    model, tokenizer = tiny(family)
    ends = [0, *(i for i in range(20, 50))]
    model.generation_config.eos_token_id = ends
    for num_beams in (2, 4):
        how = {"num_beams": num_beams, "num_return_sequences": num_beams, "max_new_tokens": 8}
        theirs = generated(model, tokenizer, PROMPTS, ends=ends, **how)
        ours = constrained_generate(model, tokenizer, PROMPTS, None, **how)
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)


@pytest.mark.unit
@pytest.mark.parametrize("family", FAMILIES)
def test_an_empty_formula_is_no_formula(models: Any, family: str) -> None:
    from symdistill.constraints import all_of

    model, tokenizer = models[family]
    how: dict[str, Any] = {"num_beams": 4, "num_return_sequences": 4, "max_new_tokens": 8}
    first = constrained_generate(model, tokenizer, PROMPTS, None, **how)
    second = constrained_generate(model, tokenizer, PROMPTS, all_of(), **how)
    assert [[(h.token_ids, h.score) for h in some] for some in first] == [
        [(h.token_ids, h.score) for h in some] for some in second
    ]


# ------------------------------------------------------------------ with constraints


def checked(model: Any, tokenizer: Any, found: list[list[Hypothesis]], tolerance: float) -> None:
    """Every text, flag and score is what it says."""
    for prompt, rule, some in zip(PROMPTS, RULES, found, strict=True):
        before = before_of(model, prompt)
        assert some
        assert len({one.token_ids for one in some}) == len(some)
        for one in some:
            assert one.satisfied == rule.verify(one.text, before), one
            assert [status.satisfied for status in one.clauses] == [
                status.satisfied for status in rule.explain(one.text, before)
            ]
            assert one.log_probability == pytest.approx(
                rescored(model, tokenizer, prompt, one.token_ids), abs=tolerance
            )
            text = tokenizer.decode(
                one.token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            assert one.text.lstrip(" ") == text.lstrip(" ")


@pytest.mark.unit
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("end", ["strict", "soft"])
def test_texts_keep_the_rules_and_scores_are_those_without_cache(
    models: Any, family: str, end: Any
) -> None:
    model, tokenizer = models[family]
    found = constrained_generate(
        model, tokenizer, PROMPTS, RULES,
        num_beams=6, num_return_sequences=4, max_new_tokens=12, end=end,
    )  # fmt: skip
    checked(model, tokenizer, found, 1e-4)
    if end == "strict":
        assert all(one.satisfied for some in found for one in some if one.ended)
        assert all(some[0].satisfied for some in found)


@pytest.mark.unit
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_and_neighbours_change_nothing(models: Any, family: str) -> None:
    model, tokenizer = models[family]
    how: dict[str, Any] = {"num_beams": 4, "num_return_sequences": 4, "max_new_tokens": 10}
    together = constrained_generate(model, tokenizer, PROMPTS, RULES, **how)
    backwards = constrained_generate(model, tokenizer, PROMPTS[::-1], RULES[::-1], **how)[::-1]
    alone = constrained_generate(model, tokenizer, PROMPTS, RULES, batch_size=1, **how)
    side = tokenizer.padding_side
    tokenizer.padding_side = "right" if side == "left" else "left"
    try:
        otherwise = constrained_generate(model, tokenizer, PROMPTS, RULES, **how)
    finally:
        tokenizer.padding_side = side
    for other in (backwards, alone, otherwise):
        for a, b in zip(together, other, strict=True):
            same(a, [(one.token_ids, one.score) for one in b])


@pytest.mark.unit
@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_works(family: str) -> None:
    model, tokenizer = tiny(family, torch.bfloat16)
    found = constrained_generate(
        model, tokenizer, PROMPTS, RULES, num_beams=6, num_return_sequences=3, max_new_tokens=12
    )
    checked(model, tokenizer, found, 2.0)


@pytest.mark.unit
@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_other_processors_are_obeyed(models: Any, family: str) -> None:
    """One that forbids every word with an "e" in it."""
    model, tokenizer = models[family]
    forbidden = [i for i in range(len(tokenizer)) if "e" in tokenizer.decode([i])]

    def without_e(ids: Any, scores: Any) -> Any:
        out = scores.clone()
        out[:, [i for i in forbidden if i not in (0, 1)]] = -torch.inf
        return out

    found = constrained_generate(
        model, tokenizer, PROMPTS, RULES,
        num_beams=4, max_new_tokens=10, logits_processor=[without_e],
    )  # fmt: skip
    assert not any("e" in one.text for some in found for one in some)
    assert all(some[0].satisfied for some in found)


@pytest.mark.unit
@pytest.mark.parametrize("family", FAMILIES)
def test_the_hook_of_generate_gives_the_same_texts(models: Any, family: str) -> None:
    model, tokenizer = models[family]
    how: dict[str, Any] = {"num_beams": 4, "num_return_sequences": 2, "max_new_tokens": 10}
    expected = constrained_generate(model, tokenizer, PROMPTS, RULES, **how)
    table = TokenTable.from_tokenizer(tokenizer)

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    formulas = [CompiledFormula.compile(rule, table, encode) for rule in RULES]
    found = generated(
        model, tokenizer, PROMPTS, custom_generate=neurologic, formula=formulas, **how
    )
    for some, other in zip(expected, found, strict=True):
        same(some, other)


# ------------------------------------------------------------------ the embedded model


@pytest.fixture(scope="module")
def opened(smollm2: Any) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2.folder)
    return AutoModelForCausalLM.from_pretrained(smollm2.folder).eval(), tokenizer


@pytest.mark.real
def test_the_embedded_model_writes_what_is_asked(opened: Any) -> None:
    model, tokenizer = opened
    found = constrained_generate(
        model, tokenizer, PROMPTS, RULES,
        num_beams=8, num_return_sequences=3, max_new_tokens=16, end_texts=[".", "!", "?"],
    )  # fmt: skip
    checked(model, tokenizer, found, 1e-2)
    assert all(one.satisfied for some in found for one in some if one.ended)
    assert all(some[0].satisfied and some[0].ended for some in found)


@pytest.mark.real
def test_the_embedded_model_without_constraints_is_generate(opened: Any) -> None:
    model, tokenizer = opened
    how: dict[str, Any] = {"num_beams": 4, "num_return_sequences": 4, "max_new_tokens": 10}
    side, tokenizer.padding_side = tokenizer.padding_side, "left"
    theirs = generated(model, tokenizer, PROMPTS, **how)
    tokenizer.padding_side = side
    for a, b in zip(constrained_generate(model, tokenizer, PROMPTS, None, **how), theirs,
                    strict=True):  # fmt: skip
        same(a, b)
