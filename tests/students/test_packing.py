"""Packing is exact: scores, loss and gradients are those of the rows one by one."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.students.test_sft import write_tiny_model

from symdistill.errors import InputError
from symdistill.records import View
from symdistill.students import SFTSettings, TrainProgress, fine_tune
from symdistill.students import packing as module
from symdistill.students.batches import IGNORED, collate, training_order
from symdistill.students.packing import check_packing, collate_packed

pytestmark = pytest.mark.unit

VOCABULARY = 40


def row(prompt: list[int], target: list[int], weight: float = 1.0) -> dict[str, Any]:
    labels = [IGNORED] * len(prompt) + target
    return {"input_ids": prompt + target, "labels": labels, "weight": weight}


def tiny(kind: str = "Llama", **options: Any) -> Any:
    """A random model of two layers."""
    import torch
    import transformers

    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, **options}
    if kind in ("Llama", "Mistral"):
        sizes |= {"intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    if kind == "Bloom":
        sizes |= {"n_head": 4}
    config = getattr(transformers, f"{kind}Config")(**sizes)
    return getattr(transformers, f"{kind}ForCausalLM")(config).train()


LLAMA = tiny()


def loss_and_gradient(model: Any, batch: dict[str, Any]) -> tuple[float, Any]:
    import torch

    from symdistill.students.trainer import WeightedSFTTrainer

    model.zero_grad()
    loss = object.__new__(WeightedSFTTrainer).compute_loss(model, batch)
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten().clone() for p in model.parameters()])


tokens = st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=6)
blocks = st.tuples(tokens, st.lists(st.tuples(tokens, st.floats(0.1, 5)), min_size=1, max_size=4))


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.lists(blocks, min_size=1, max_size=4), st.sampled_from((8, 1024)), st.randoms())
def test_loss_and_gradient_are_those_of_the_rows_unpacked(
    drawn: list[Any], longest: int, shuffle: random.Random
):
    import torch

    rows = [row(prompt, target, weight) for prompt, targets in drawn for target, weight in targets]
    shuffle.shuffle(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LONGEST_BLOCK", longest)  # 8: prompts are read several times
        packed = collate_packed(rows, 0)
    loss, gradient = loss_and_gradient(LLAMA, packed)
    expected_loss, expected = loss_and_gradient(LLAMA, collate(rows, 0))
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


def test_a_prompt_is_read_once_and_short_blocks_share_a_sequence():
    rows = [
        row([1, 2, 3], [4, 5]),
        row([9, 9], [8, 8, 8, 8]),
        row([1, 2, 3], [6]),
        row([7, 7], [8, 8]),
        row([1, 2, 3], [7, 7]),
    ]
    batch = collate_packed(rows, 0)
    assert batch["input_ids"].tolist() == [
        [1, 2, 3, 4, 5, 3, 6, 3, 7, 7],
        [9, 9, 8, 8, 8, 8, 7, 7, 8, 8],
    ]
    assert batch["position_ids"].tolist() == [
        [0, 1, 2, 3, 4, 2, 3, 2, 3, 4],
        [0, 1, 2, 3, 4, 5, 0, 1, 2, 3],
    ]
    learnt = batch["labels"] != IGNORED
    assert batch["labels"][learnt].tolist() == [4, 5, 6, 7, 7, 8, 8, 8, 8, 8, 8]
    assert batch["rows"][learnt].tolist() == [0, 0, 2, 4, 4, 1, 1, 1, 1, 3, 3]
    seen = batch["attention_mask"][:, 0] == 0
    assert [i for i, one in enumerate(seen[0, 6].tolist()) if one] == [0, 1, 5, 6]
    assert [i for i, one in enumerate(seen[1, 8].tolist()) if one] == [6, 7, 8]


def test_a_long_block_is_read_as_several(monkeypatch: pytest.MonkeyPatch):
    rows = [row([1, 2, 3], [4] * 4) for _ in range(5)]
    assert collate_packed(rows, 0)["input_ids"].shape == (1, 27)
    monkeypatch.setattr(module, "LONGEST_BLOCK", 12)
    tokens = collate_packed([*rows, row([1, 2, 3], [4] * 20)], 0)["input_ids"]
    assert tokens.eq(1).sum() == 4  # two rows, two, one, and the long one


@given(st.lists(st.integers(1, 900), min_size=1, max_size=16))
def test_sequences_hold_every_block_whole_and_waste_little(lengths: list[int]):
    blocks = [[(number, 0, 0, 0)] * length for number, length in enumerate(lengths)]
    sequences = module._laid_out(blocks)
    held = [token[1] for sequence in sequences for token in sequence]
    assert sorted(held) == [n for n, length in enumerate(lengths) for _ in range(length)]
    for sequence in sequences:
        runs = 1 + sum(a != b for a, b in pairwise(token[1] for token in sequence))
        assert runs == len({token[1] for token in sequence})
    longest = max(map(len, sequences))
    assert len(sequences) * longest <= len(lengths) * max(lengths)  # plain padding


def test_other_targets_do_not_change_a_rows_scores():
    import torch

    from symdistill.students.trainer import forward

    def scores(other: list[int]) -> Any:
        batch = collate_packed([row([1, 2], other), row([1, 2], [5, 6])], 0)
        outputs, first = forward(LLAMA, batch)
        labels, rows = batch["labels"][:, first:], batch["rows"][:, first:]
        return outputs.logits[(rows == 1) & (labels != IGNORED)]

    torch.testing.assert_close(scores([3, 4, 3]), scores([9, 9, 9]))


# -- models that cannot be packed for ----------------------------------------------------------

ROWS = [row([1, 2, 3, 4], [5, 6, 7]), row([1, 2, 3, 4], [8, 9]), row([5, 5], [6])]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_check_passes_models_that_honour_the_mask(attention: str):
    model = tiny(attn_implementation=attention)
    check_packing(model, ROWS, 0)
    assert model.training


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Mamba", {}),  # a state runs through the whole sequence
        ("Bloom", {}),  # positions come from places in the sequence
        ("Mistral", {"sliding_window": 3}),  # the window would be forgotten
    ],
)
def test_check_refuses_models_that_do_not(kind: str, options: dict[str, Any]):
    with pytest.raises(InputError, match=rf"type {kind.lower()}.*set pack to none"):
        check_packing(tiny(kind, **options), ROWS, 0)


# -- training ---------------------------------------------------------------------------------

QUESTIONS = [f"Question {i}: what is {i} and {i}?" for i in range(5)]
VIEWS = [
    View(question, " first" * (j + i % 2) + f" {j}.", 1.0 + j, question, (f"{i}-{j}",))
    for i, question in enumerate(QUESTIONS)
    for j in range(3)
]


@pytest.mark.parametrize("loss_per", ["token", "row"])
def test_training_on_packed_batches_is_training_on_the_same_batches_unpacked(
    loss_per: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from safetensors.torch import load_file

    base = write_tiny_model(tmp_path / "base")
    settings = SFTSettings(
        epochs=2, batch_size=4, learning_rate=1e-2, pack="prompts", loss_per=loss_per
    )

    def train(name: str) -> dict[str, Any]:
        out, checkpoints = tmp_path / name, tmp_path / f"{name}-ck"
        student = fine_tune(
            base, VIEWS, out=out, checkpoints=checkpoints, settings=settings, seed=1
        )
        return {"loss": student.loss_last, **load_file(out / "adapter/adapter_model.safetensors")}

    packed = train("packed")
    monkeypatch.setattr(module, "collate_packed", collate)
    unpacked = train("unpacked")
    assert packed.pop("loss") == pytest.approx(unpacked.pop("loss"), abs=1e-4)
    for name, tensor in packed.items():
        assert (tensor - unpacked[name]).abs().max() < 2e-3, name


def test_a_training_that_was_cut_off_ends_with_the_same_bytes(tmp_path: Path):
    base = write_tiny_model(tmp_path / "base")
    views = [*VIEWS, *(replace(one, target=f" short {one.target}") for one in VIEWS)]  # two views
    settings = SFTSettings(
        epochs=4,
        batch_size=4,
        save_every_steps=2,
        pack="prompts",
        visits="groups",
        draws=2,
        loss_per="row",
        max_tokens=1200,
    )

    def stop(at: TrainProgress) -> None:
        if at.step == 5:
            raise KeyboardInterrupt

    def train(name: str, progress: Any = None) -> Any:
        out, checkpoints = tmp_path / name, tmp_path / f"{name}-ck"
        return fine_tune(
            base,
            views,
            out=out,
            checkpoints=checkpoints,
            settings=settings,
            seed=1,
            progress=progress,
        )

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("cut", stop)
    cut = train("cut")
    assert (whole.resumed_from_step, cut.resumed_from_step) == (None, 4)
    assert cut.steps == whole.steps > 5
    first, second = ((s.folder / "model.safetensors").read_bytes() for s in (whole, cut))
    assert first == second


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(1, 40)), min_size=1, max_size=40),
    st.integers(1, 9),
    st.integers(0, 3),
)
def test_rows_that_belong_together_are_neighbours_within_their_batches(
    drawn: list[tuple[int, int]], batch_size: int, seed: int
):
    labels, lengths = [label for label, _ in drawn], [length for _, length in drawn]
    order = training_order(lengths, epochs=1, batch_size=batch_size, seed=seed, together=labels)
    assert sorted(order) == list(range(len(drawn)))
    for start in range(0, len(order), batch_size):
        read = [labels[row] for row in order[start : start + batch_size]]
        runs = 1 + sum(a != b for a, b in pairwise(read))
        assert runs == len(set(read))


def test_draws_of_a_visit_share_the_prompt():
    rows = [row([9 + n, 2, 3], [4] * (2 + j)) for n in range(20) for j in range(4)]
    traces = [[[4 * n + j] for j in range(4)] for n in range(20)]

    def prompts_read(draws: int) -> int:
        order = training_order(
            [len(one["input_ids"]) for one in rows],
            epochs=1, batch_size=6, seed=0, traces=traces, draws=draws,
            together=[tuple(one["input_ids"][:3]) for one in rows],
        )  # fmt: skip
        batches = [order[i : i + 6] for i in range(0, len(order), 6)]
        packed = [collate_packed([rows[i] for i in batch], 0) for batch in batches]
        # a prompt's second token stands before its third, which every target reads anew
        return sum(int(batch["input_ids"].eq(2).sum()) for batch in packed)

    assert [prompts_read(draws) for draws in (1, 2, 3)] == [20, 20, 20]


def test_most_rows_of_a_prompt_share_a_batch():
    labels = [i // 4 for i in range(400)]
    order = training_order([10] * 400, epochs=1, batch_size=16, seed=0, together=labels)
    prompts_read = sum(len({labels[row] for row in order[i : i + 16]}) for i in range(0, 400, 16))
    assert prompts_read == 100  # 334 and more when rows meet by chance
