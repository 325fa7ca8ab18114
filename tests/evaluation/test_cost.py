"""Costs against counting operation by operation."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symdistill.evaluation.cost import Cost, Shape, cost, shape_of

pytestmark = pytest.mark.unit

COUNTS = st.integers(0, 40)


@given(COUNTS, st.lists(COUNTS, max_size=4))
def test_cost_by_counting_every_token(prompt: int, written: list[int]) -> None:
    shape = Shape(parameters=1000, layers=3, attention_width=8)

    def one(place: int) -> int:  # the token at this place, from 1, attends to itself and before
        scores = shape.layers * shape.attention_width * place * 2
        weighted_sum = shape.layers * shape.attention_width * place * 2
        return 2 * shape.parameters + scores + weighted_sum

    found = cost(shape, prompt, *written)
    assert found.prefill_flops == sum(map(one, range(1, prompt + 1)))
    assert found.decode_flops == sum(
        one(place) for tokens in written for place in range(prompt + 1, prompt + tokens + 1)
    )
    assert (found.texts, found.prompt_tokens) == (len(written), prompt)
    assert found.generated_tokens == sum(written)


def test_costs_add_up() -> None:
    shape = Shape(parameters=135_000_000)
    short, long = cost(shape, 50, 10), cost(shape, 50, 200)
    both = sum([short, long], Cost())
    assert both.flops == 2 * 135_000_000 * 310
    assert both.as_dict() == {
        "texts": 2,
        "prompt_tokens": 100,
        "generated_tokens": 210,
        "prefill_flops": 2 * 135_000_000 * 100,
        "decode_flops": 2 * 135_000_000 * 210,
        "flops": 2 * 135_000_000 * 310,
        "prompt_only_flops": 2 * 135_000_000 * 100,
    }


def test_the_prompt_only_figure_cannot_tell_long_from_short() -> None:
    shape = Shape(parameters=1000)
    assert cost(shape, 50, 10).prompt_only_flops == cost(shape, 50, 900).prompt_only_flops
    assert cost(shape, 50, 10).flops < cost(shape, 50, 900).flops


def test_a_vote_reads_its_prompt_once_unless_samples_are_added() -> None:
    shape = Shape(parameters=1000, layers=2, attention_width=4)
    vote = cost(shape, 30, 5, 6, 7)
    apart = cost(shape, 30, 5) + cost(shape, 30, 6) + cost(shape, 30, 7)
    assert vote.decode_flops == apart.decode_flops
    assert 3 * vote.prefill_flops == apart.prefill_flops


def test_negative_counts_are_refused() -> None:
    with pytest.raises(ValueError, match=">= 0"):
        cost(Shape(10), 5, -1)


@pytest.mark.parametrize(("tied", "parameters"), [(True, 100 + 24), (False, 100 + 24)])
def test_an_embedding_counts_only_where_it_is_multiplied_with(tied: bool, parameters: int) -> None:
    def weights(n: int) -> SimpleNamespace:
        array = np.zeros(n)
        return SimpleNamespace(weight=SimpleNamespace(numel=lambda: array.size))

    embedding, output, rest = weights(24), weights(24), weights(100)
    layers = [embedding, rest] if tied else [embedding, output, rest]
    model = SimpleNamespace(
        parameters=lambda: [layer.weight for layer in layers],
        get_input_embeddings=lambda: embedding,
        get_output_embeddings=lambda: embedding if tied else output,
        config=SimpleNamespace(
            num_attention_heads=4, head_dim=None, hidden_size=32, num_hidden_layers=2
        ),
    )
    assert shape_of(model) == Shape(parameters, layers=2, attention_width=32)


def test_the_shape_of_a_real_architecture() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8,
    )  # fmt: skip
    for tied in (True, False):
        config.tie_word_embeddings = tied
        model = LlamaForCausalLM(config)
        per_layer = 16 * (32 + 16 + 16) + 32 * 16 + 3 * 16 * 32 + 2 * 16
        shape = shape_of(model)
        assert shape == Shape(2 * per_layer + 16 + 50 * 16, layers=2, attention_width=32)
