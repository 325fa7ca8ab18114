"""`TransformersRows` against a plain forward of the whole text without a cache."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from transformers import cache_utils
from transformers.cache_utils import DynamicLayer

from symdistill.decoding import transformers_rows
from symdistill.decoding.transformers_rows import TransformersRows, end_token_ids, start_ids
from symdistill.errors import InputError, RunError

pytestmark = pytest.mark.unit

VOCABULARY = 50
PAD, END = 0, 1
ALIKE = {"rtol": 1e-5, "atol": 1e-5}


def tiny(kind: str) -> Any:
    """A model of two layers with random weights, large enough to tell texts apart.

    In float64, so that rounding, which these weights blow up, hides no mistake.
    """
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    }
    special = {"pad_token_id": PAD, "eos_token_id": END, "bos_token_id": 2}
    encoder_decoder = {**special, "decoder_start_token_id": PAD}
    configs = {
        "gpt2": lambda: transformers.GPT2Config(
            vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, **special
        ),
        "llama": lambda: transformers.LlamaConfig(**sizes, **special),
        "qwen3": lambda: transformers.Qwen3Config(**sizes, head_dim=8, **special),
        "mistral": lambda: transformers.MistralConfig(**sizes, sliding_window=4, **special),
        "t5": lambda: transformers.T5Config(
            vocab_size=VOCABULARY,
            d_model=32,
            d_kv=8,
            d_ff=48,
            num_layers=1,
            num_decoder_layers=2,
            num_heads=4,
            **encoder_decoder,
        ),
        "bart": lambda: transformers.BartConfig(
            vocab_size=VOCABULARY,
            d_model=32,
            encoder_layers=1,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            max_position_embeddings=64,
            scale_embedding=True,
            **encoder_decoder,
        ),
    }
    torch.manual_seed(0)
    config = configs[kind]()
    auto = (
        transformers.AutoModelForSeq2SeqLM
        if config.is_encoder_decoder
        else transformers.AutoModelForCausalLM
    )
    model = auto.from_config(config).eval()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.mul_(5)
    return model.double()


KINDS = ["gpt2", "llama", "qwen3", "mistral", "t5", "bart"]
PROMPTS = [[5, 9, 12, 7, 33, 21], [8, 3], [17, 44, 6, 29]]


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest) -> Any:
    return tiny(request.param)


def start(model: Any, prompts: list[list[int]] = PROMPTS, **wanted: Any) -> TransformersRows:
    width = wanted.pop("width", max(map(len, prompts)))
    right = model.config.is_encoder_decoder
    ids, mask = [], []
    for prompt in prompts:
        gap = width - len(prompt)
        ids.append(prompt + [PAD] * gap if right else [PAD] * gap + prompt)
        mask.append([1] * len(prompt) + [0] * gap if right else [0] * gap + [1] * len(prompt))
    wanted = {"max_new_tokens": 12, **wanted}
    return TransformersRows.from_inputs(model, torch.tensor(ids), torch.tensor(mask), **wanted)


def plain(model: Any, prompt: list[int], written: list[list[int]]) -> torch.Tensor:
    """Logits (N, L + 1, V) after a prompt and each token of N texts of L, without a cache."""
    prompts, texts = torch.tensor([prompt] * len(written)), torch.tensor(written).long()
    if model.config.is_encoder_decoder:
        begin = torch.tensor([start_ids(model)] * len(written))
        inputs = {"input_ids": prompts, "decoder_input_ids": torch.cat([begin, texts], dim=1)}
    else:
        inputs = {"input_ids": torch.cat([prompts, texts], dim=1)}
    with torch.no_grad():
        logits = model(**inputs, use_cache=False).logits
    return logits[:, -texts.shape[1] - 1 :].float()  # type: ignore[no-any-return]


class Search:
    """A random search that remembers every row's text beside the rows themselves."""

    def __init__(self, model: Any, rows: TransformersRows) -> None:
        self.model, self.rows = model, rows
        self.draw = torch.Generator().manual_seed(0)
        self.prompts = [list(one) for one in PROMPTS]
        self.written: list[list[int]] = [[] for _ in PROMPTS]
        self.check(rows.start())

    def check(self, logits: torch.Tensor) -> None:
        assert logits.dtype == torch.float32
        assert logits.shape == (len(self.prompts), self.rows.vocabulary_size)
        for prompt in PROMPTS:
            rows = [row for row, one in enumerate(self.prompts) if one == prompt]
            if rows:
                expected = plain(self.model, prompt, [self.written[row] for row in rows])
                torch.testing.assert_close(logits[rows], expected[:, -1], **ALIKE)

    def step(self) -> None:
        tokens = torch.randint(3, VOCABULARY, (len(self.prompts),), generator=self.draw)
        self.written = [
            [*text, int(token)] for text, token in zip(self.written, tokens, strict=True)
        ]
        self.check(self.rows.step(tokens))

    def select(self, rows: list[int]) -> None:
        self.prompts = [self.prompts[row] for row in rows]
        self.written = [self.written[row] for row in rows]
        self.rows.select(torch.tensor(rows))

    def fork(self, rows: list[int]) -> Search:
        twin = copy.copy(self)
        twin.prompts = [self.prompts[row] for row in rows]
        twin.written = [self.written[row] for row in rows]
        twin.rows = self.rows.fork(torch.tensor(rows))
        return twin


def test_every_way_of_going_on_gives_the_logits_of_a_plain_forward(model: Any) -> None:
    search = Search(model, start(model))
    search.select([0, 0, 0, 1, 1, 1, 2, 2, 2])  # enlarged
    search.step()
    search.select([2, 1, 0, 3, 3, 4, 8, 6, 8])  # within the prompts
    search.step()
    search.select(list(range(9)))  # nothing moves
    search.step()
    search.select([6, 8, 7, 0, 2, 1])  # a prompt is finished, the others change places
    search.step()
    search.select([5, 5, 4, 0])
    search.step()
    search.select([2, 1, 0, 3])
    search.step()


def test_a_fork_goes_its_own_way(model: Any) -> None:
    search = Search(model, start(model))
    search.select([0, 0, 1, 1, 2, 2])
    search.step()
    first, second = search.fork([0, 0, 1, 3, 4, 5]), search.fork([5, 4, 3, 2, 1, 0])
    for _ in range(2):
        first.step()
        second.step()
    first.select([1, 1, 2])
    first.step()
    inner = first.fork([2, 0])
    inner.step()
    search.step()
    first.step()


def test_a_fork_asked_for_again_is_written_over_only_once_it_is_gone(model: Any) -> None:
    search = Search(model, start(model))
    search.select([0, 0, 1, 1, 2, 2])
    rows = [0, 0, 1, 1, 3, 2, 2, 4, 5, 5]
    search.step()
    first = search.fork(rows)
    held = first.rows._cache
    del first
    search.step()
    search.select([1, 0, 3, 3, 5, 4])
    again = search.fork(rows)
    assert again.rows._cache is held
    other = search.fork(rows)
    assert other.rows._cache is not held
    other.step()
    again.step()
    other.select([0, 4, 9])
    del other
    search.fork(rows).step()
    search.select([0, 1, 2])
    search.fork([0, 1, 2, 2]).step()


def test_rewinding_forgets(model: Any) -> None:
    search = Search(model, start(model))
    search.select([0, 0, 1, 2])
    for _ in range(5):
        search.step()
    search.rows.rewind(3)
    search.written = [text[:-3] for text in search.written]
    search.select([1, 0, 2, 3])
    search.step()
    search.rows.rewind(0)
    search.step()
    with pytest.raises(InputError, match="at most 4 tokens to forget"):
        search.rows.rewind(5)


def test_a_mixture_of_one_token_is_that_token(model: Any) -> None:
    search = Search(model, start(model))
    search.select([0, 1, 1, 2])
    tokens = torch.tensor([7, 8, 9, 10])
    mixed = search.rows.fork(torch.arange(4))
    weights = torch.nn.functional.one_hot(tokens, VOCABULARY).float()
    torch.testing.assert_close(mixed.step_embedded(weights), search.rows.step(tokens), **ALIKE)


def test_log_probabilities_are_those_of_the_texts(model: Any) -> None:
    search = Search(model, start(model))
    search.select([0, 0, 1, 1, 2])
    for _ in range(4):
        search.step()
    rows = torch.tensor([0, 4, 4, 2, 1, 3, 0])
    keep = torch.tensor([4, 1, 2, 4, 3, 2, 1])
    tokens = torch.full((7, 4), -1)
    for i, length in enumerate([4, 3, 2, 4, 1, 3, 4]):
        tokens[i, :length] = torch.randint(3, VOCABULARY, (length,), generator=search.draw)
    found = search.rows.log_probabilities(rows, keep, tokens)
    assert found.shape == (7, 3) and found.dtype == torch.float32
    for i, row in enumerate(rows.tolist()):
        added = [token for token in tokens[i].tolist() if token >= 0]
        text = search.written[row][: keep[i]] + added
        likely = plain(model, search.prompts[row], [text])[0].log_softmax(dim=1)
        expected = torch.zeros(3)
        for j in range(1, len(added)):
            expected[j - 1] = likely[keep[i] + j, added[j]]
        torch.testing.assert_close(found[i], expected, **ALIKE)
    search.step()  # the rows are as they were
    assert search.rows.log_probabilities(rows, keep, tokens[:, :1]).shape == (7, 0)


def test_log_probabilities_come_in_chunks(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(model, start(model))
    search.step()
    rows, keep = torch.tensor([0, 1, 2, 0, 1]), torch.ones(5, dtype=torch.long)
    tokens = torch.tensor([[4, 5, 6], [5, 6, 7], [6, 7, -1], [9, 9, 9], [5, -1, -1]])
    whole = search.rows.log_probabilities(rows, keep, tokens)
    monkeypatch.setattr(transformers_rows, "SCORED_AT_ONCE", 2 * 3 * VOCABULARY)
    torch.testing.assert_close(search.rows.log_probabilities(rows, keep, tokens), whole, **ALIKE)


def test_padding_and_order_change_nothing(model: Any) -> None:
    one = start(model)
    other = start(model, PROMPTS[::-1], width=11)
    rows, turned = torch.tensor([0, 0, 1, 2]), torch.tensor([2, 2, 1, 0])
    torch.testing.assert_close(one.start(), other.start().flip(0), **ALIKE)
    one.select(rows)
    other.select(turned)
    for tokens in ([3, 4, 5, 6], [9, 8, 7, 6]):
        new = torch.tensor(tokens)
        torch.testing.assert_close(one.step(new), other.step(new), **ALIKE)


def test_prompts_without_padding_need_no_mask(model: Any) -> None:
    prompts = torch.tensor([[5, 9, 12], [8, 3, 4]])
    seen = []
    hook = model.register_forward_pre_hook(
        lambda _module, _args, inputs: seen.append(inputs.get("attention_mask")), with_kwargs=True
    )
    for mask in (None, torch.ones_like(prompts)):
        rows = TransformersRows.from_inputs(model, prompts, mask, max_new_tokens=4)
        rows.start()
        rows.step(torch.tensor([3, 4]))
    hook.remove()
    assert seen == [None] * 4


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_a_prompt_is_read_once_however_many_beams_follow(kind: str) -> None:
    model = tiny(kind)
    read: list[tuple[int, ...]] = []
    reader = model.get_encoder() if kind == "t5" else model
    reader.register_forward_pre_hook(
        lambda _module, _args, inputs: read.append(tuple(inputs["input_ids"].shape)),
        with_kwargs=True,
    )
    rows = start(model)
    rows.start()
    rows.select(torch.arange(3).repeat_interleave(8))
    rows.step(torch.arange(3, 27))
    assert read[0] == (3, 6)
    assert read[1:] == ([(24, 1)] if kind == "llama" else [])


def test_memory_is_linear_in_rows_and_taken_once(model: Any) -> None:
    sizes = []
    for beams in (2, 4):
        rows = start(model, max_new_tokens=7)
        rows.start()
        rows.select(torch.arange(3).repeat_interleave(beams))
        layers = rows._cache.cache
        layers = getattr(layers, "self_attention_cache", layers).layers
        before = [one.data_ptr() for layer in layers for one in layer._buffers]
        sizes.append(sum(one.nbytes for layer in layers for one in layer._buffers))
        for _ in range(7):
            rows.step(torch.arange(3, 3 + 3 * beams))
            rows.select(torch.arange(3 * beams).view(3, beams).flip(1).flatten())
        assert [one.data_ptr() for layer in layers for one in layer._buffers] == before
        assert layers[0]._buffers[0].shape[2] == layers[0].get_seq_length()
        rows.step(torch.arange(3, 3 + 3 * beams))  # more than was said: slower, not wrong
    assert sizes[1] == 2 * sizes[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_number_formats(model: Any, dtype: torch.dtype) -> None:
    rows = start(copy.deepcopy(model).to(dtype))
    assert rows.start().isfinite().all()
    rows.select(torch.tensor([0, 0, 1, 1, 2, 2]))
    logits = rows.step(torch.arange(3, 9))
    assert logits.dtype == torch.float32 and logits.isfinite().all()
    assert rows.step_embedded(logits.softmax(dim=1)).isfinite().all()
    found = rows.log_probabilities(
        torch.tensor([0, 3]), torch.tensor([1, 2]), torch.tensor([[5, 6], [7, 8]])
    )
    assert found.dtype == torch.float32 and bool((found < 0).all())


def test_layers_of_other_kinds_are_reordered_their_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(DynamicLayer):  # type: ignore[misc]
        pass

    monkeypatch.setitem(cache_utils.DYNAMIC_LAYER_TYPE_MAPPING, "full_attention", Other)
    model = tiny("llama")
    search = Search(model, start(model))
    search.select([0, 0, 1, 1, 2, 2])
    search.step()
    search.select([1, 0, 2, 2, 5, 4])
    search.step()
    for _ in range(2):
        ahead = search.fork([0, 1, 2, 3, 4, 4])
        ahead.step()
        del ahead
    search.rows.rewind(1)
    search.written = [text[:-1] for text in search.written]
    search.select([4, 1])
    search.step()


def test_broken_weights_are_told() -> None:
    for which in ("row", "token"):
        model = tiny("llama")
        with torch.no_grad():
            if which == "row":
                model.model.embed_tokens.weight[8] = float("nan")
            else:
                model.lm_head.weight[30] = float("nan")
        with pytest.raises(RunError, match="got NaN"):
            start(model).start()


def test_inputs_that_cannot_be_used() -> None:
    ids = torch.tensor([[5, 6, 7], [8, 9, PAD]])
    model = tiny("gpt2")
    with pytest.raises(InputError, match="padded on the left"):
        TransformersRows.from_inputs(model, ids, (ids != PAD).long(), max_new_tokens=4)
    with pytest.raises(InputError, match="at most 64 tokens"):
        TransformersRows.from_inputs(model, ids, None, max_new_tokens=62)
    mamba = transformers.AutoModelForCausalLM.from_config(
        transformers.MambaConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1)
    )
    with pytest.raises(InputError, match="key-value cache"):
        TransformersRows.from_inputs(mamba, ids, None, max_new_tokens=4)
    hybrid = transformers.AutoModelForCausalLM.from_config(
        transformers.Lfm2Config(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            layer_types=["conv", "full_attention"],
        )
    )
    with pytest.raises(InputError, match="recurrent state"):
        TransformersRows.from_inputs(hybrid, ids, None, max_new_tokens=4)


def test_end_and_start_tokens() -> None:
    model = tiny("t5")
    assert start_ids(model) == (PAD,)
    assert end_token_ids(model) == (END,)
    model.generation_config.eos_token_id = [END, 7]
    assert end_token_ids(model, SimpleNamespace(eos_token_id=4)) == (END, 4, 7)
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    model.generation_config.decoder_start_token_id = model.config.decoder_start_token_id = None
    with pytest.raises(InputError, match="end-of-text token"):
        end_token_ids(model)
    with pytest.raises(InputError, match="decoder_start_token_id"):
        start_ids(model)
