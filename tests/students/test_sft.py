"""Fine-tuning on a tiny random Llama: what is learnt, what weights do, what a kill costs.

Run as a program (`test_sft.py FOLDER`) this file is the victim of the kill tests: it trains in
child processes that kill themselves, and prints what came of it as JSON.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from symdistill.errors import InputError
from symdistill.records import View
from symdistill.students import SFTSettings, Student, TrainProgress, fine_tune
from symdistill.students import checkpoints as checkpoint_files
from symdistill.students.batches import (
    IGNORED,
    TokenRow,
    collate,
    tokenise,
    traces_of,
    training_order,
)

pytestmark = pytest.mark.unit

SAVE_EVERY_STEPS = 3
KILLED = SFTSettings(epochs=3, batch_size=4, save_every_steps=SAVE_EVERY_STEPS, lora_dropout=0.2)


def view(prompt: str, target: str, weight: float = 1.0) -> View:
    return View(prompt, target, weight, "group", ())


VIEWS = [view(f"Usually, thing {i} can", " fly" + " far" * (i % 5) + ".") for i in range(17)]


def write_tiny_model(folder: Path) -> Path:
    """A random two-layer Llama with a byte-level BPE tokenizer, 0.2 MB."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<end>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator([v.prompt + v.target for v in VIEWS], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>", pad_token="<end>")
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            bos_token_id=None,
            eos_token_id=0,
            pad_token_id=0,
            tie_word_embeddings=True,
        )
    )
    model.generation_config.max_new_tokens = 33  # something to be kept
    tokenizer.save_pretrained(str(folder))
    model.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(base))


@pytest.fixture(scope="module")
def tiny(base: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(base))


def train(base: Path, folder: Path, views: list[View], name: str = "out", **rest: Any) -> Student:
    options = {"settings": SFTSettings(epochs=2, batch_size=8), "seed": 3, **rest}
    return fine_tune(base, views, out=folder / name, checkpoints=folder / f"{name}-ck", **options)


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


# -- what is learnt ---------------------------------------------------------------------------


def test_row_is_prompt_then_target_then_end_and_only_the_latter_two_are_learnt(tokenizer: Any):
    [row] = tokenise([view("Birds can", " fly.")], tokenizer, 64)
    prompt = tokenizer("Birds can")["input_ids"]
    target = tokenizer(" fly.", add_special_tokens=False)["input_ids"]
    assert row.input_ids == [*prompt, *target, tokenizer.eos_token_id]
    assert row.labels == [IGNORED] * len(prompt) + [*target, tokenizer.eos_token_id]


texts = st.text(alphabet="abc .", min_size=1, max_size=12)


@hypothesis_settings(max_examples=25)
@given(st.lists(st.tuples(texts, texts, st.floats(0.1, 5)), min_size=1, max_size=5))
def test_loss_of_a_batch_is_the_plain_weighted_loss(
    tiny: Any, tokenizer: Any, rows: list[tuple[str, str, float]]
):
    """Padded and scored from the first learnt token on, against one full forward per row."""
    import torch

    from symdistill.students.trainer import WeightedSFTTrainer

    token_rows = tokenise([view(*row) for row in rows], tokenizer, 64)
    above, below = 0.0, 0.0
    for row in token_rows:
        logits = tiny(torch.tensor([row.input_ids])).logits[0]  # (T, V)
        for place, label in enumerate(row.labels):
            if label != IGNORED:
                above -= row.weight * logits[place - 1].log_softmax(-1)[label].item()
                below += row.weight
    trainer = object.__new__(WeightedSFTTrainer)
    loss = trainer.compute_loss(tiny, batch_of(token_rows))
    assert loss.item() == pytest.approx(above / below, rel=1e-5)


def batch_of(token_rows: list[Any]) -> Any:
    return collate(
        [{"input_ids": r.input_ids, "labels": r.labels, "weight": r.weight} for r in token_rows], 0
    )


def gradient(model: Any, tokenizer: Any, views: list[View]) -> Any:
    import torch

    from symdistill.students.trainer import WeightedSFTTrainer

    model.zero_grad()
    trainer = object.__new__(WeightedSFTTrainer)
    trainer.compute_loss(model, batch_of(tokenise(views, tokenizer, 64))).backward()
    return torch.cat([p.grad.flatten().clone() for p in model.parameters()])


def test_weight_two_is_the_row_twice(tiny: Any, tokenizer: Any):
    import torch

    one, other = VIEWS[1], VIEWS[4]
    double = gradient(tiny, tokenizer, [replace(one, weight=2.0), other])
    twice = gradient(tiny, tokenizer, [one, one, other])
    once = gradient(tiny, tokenizer, [one, other])
    torch.testing.assert_close(double, twice, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(double, once, rtol=1e-4, atol=1e-6)


LONG = [view(f"Thing {i} can", " fly" + " far" * i + ".", 0.7) for i in range(5, 10)]
SHORT = [view(f"Thing {i} is", f" {i}.", 0.3) for i in range(5)]


@pytest.mark.parametrize("size", [1, 3, 5, 10])
def test_with_a_loss_per_row_the_batches_of_an_epoch_sum_to_the_weighted_objective(
    size: int, tiny: Any, tokenizer: Any
):
    """Each row's mean by its weight, also where a batch holds rows of one weight only."""
    import torch

    from symdistill.students.trainer import WeightedSFTTrainer

    trainer = object.__new__(WeightedSFTTrainer)
    trainer.loss_per = "row"
    by_token = object.__new__(WeightedSFTTrainer)
    rows = tokenise([*LONG, *SHORT], tokenizer, 128, loss_per="row")
    tiny.zero_grad()
    found = 0.0
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        loss = trainer.compute_loss(tiny, batch_of(batch)) * len(batch) / len(rows)
        loss.backward()
        found += loss.item()
    gradients = torch.cat([p.grad.flatten().clone() for p in tiny.parameters()])

    tiny.zero_grad()
    expected = sum(
        row.weight * by_token.compute_loss(tiny, batch_of(tokenise([row], tokenizer, 128)))
        for row in (*LONG, *SHORT)
    ) / (5 * 0.7 + 5 * 0.3)
    expected.backward()
    assert found == pytest.approx(expected.item(), rel=1e-5)
    wanted = torch.cat([p.grad.flatten().clone() for p in tiny.parameters()])
    torch.testing.assert_close(gradients, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("answer_weight", [0.3, 0.5, 0.9])
def test_two_views_of_a_question_have_their_weights_in_the_gradient(answer_weight: float):
    """Under a model to which all tokens are alike, a row's gradient is what it counts."""
    import torch

    from symdistill.students.trainer import weighted_loss

    draw = random.Random(0)
    weights, targets = [], []
    for _ in range(200):
        weights += [1 - answer_weight, answer_weight]
        targets += [draw.randint(20, 90), draw.randint(1, 3)]
    rows = [
        {
            "input_ids": [1] * (30 + n),
            "labels": [IGNORED] * 30 + [1] * n,
            "weight": weight / 0.5 / n,
        }
        for weight, n in zip(weights, targets, strict=True)
    ]
    order = training_order([30 + n for n in targets], epochs=2, batch_size=16, seed=0)
    counts = [0.0, 0.0]  # rationales, answers
    for start in range(0, len(order), 16):
        numbers = order[start : start + 16]
        batch = collate([rows[number] for number in numbers], 0)
        logits = torch.zeros(*batch["labels"].shape, 2, requires_grad=True)
        weighted_loss(logits, batch["labels"], batch["weights"], loss_per="row").backward()
        for number, one in zip(numbers, logits.grad[..., 1].sum(dim=1), strict=True):
            counts[number % 2] -= one.item()
    assert counts[1] / sum(counts) == pytest.approx(answer_weight, abs=1e-4)


def test_weights_of_rows_do_not_cancel_in_batches_of_one(base: Path, tmp_path: Path):
    settings = SFTSettings(epochs=1, batch_size=1, learning_rate=1e-9, loss_per="row")

    def losses(name: str, views: list[View]) -> list[float]:
        seen: list[TrainProgress] = []
        train(base, tmp_path, views, name, settings=settings, progress=seen.append)
        return [at.loss for at in seen]

    weighted = losses("weighted", [LONG[0], SHORT[0]])
    alike = losses("alike", [replace(one, weight=5.0) for one in (LONG[0], SHORT[0])])
    shares = [a / b for a, b in zip(weighted, alike, strict=True)]
    assert sorted(shares) == pytest.approx([0.6, 1.4], rel=1e-3)


def test_a_row_of_weight_zero_has_no_influence(base: Path, tmp_path: Path):
    silent = view("Noise", " noise noise noise.", weight=0.0)
    with_it = train(base, tmp_path, [*VIEWS[:9], silent, *VIEWS[9:]], "with")
    without = train(base, tmp_path, VIEWS, "without")
    assert weights(with_it.folder) == weights(without.folder)
    assert with_it.tokens_trained == without.tokens_trained


def test_student_learns_to_write_the_target_and_to_stop(base: Path, tokenizer: Any, tmp_path: Path):
    from transformers import AutoModelForCausalLM

    views = [view("Birds can", " fly far."), view("Fish can", " swim.")]
    settings = SFTSettings(
        method="full", learning_rate=2e-2, epochs=40, batch_size=2, warmup_share=0
    )
    student = train(base, tmp_path, views, settings=settings)
    assert student.loss_last < 0.1 < 3 < student.loss_first
    model = AutoModelForCausalLM.from_pretrained(str(student.folder))
    for row in views:
        prompt = tokenizer(row.prompt, return_tensors="pt")
        written = model.generate(**prompt, do_sample=False)[0, prompt["input_ids"].shape[1] :]
        assert tokenizer.decode(written) == row.target + "<end>"


def test_bfloat16_trains_nearly_the_same_and_leaves_float32_weights(base: Path, tmp_path: Path):
    import torch
    from safetensors.torch import load_file

    settings = SFTSettings(epochs=1, batch_size=8, learning_rate=1e-2, warmup_share=0)
    exact = train(base, tmp_path, VIEWS, "exact", settings=settings)
    rough = train(
        base, tmp_path, VIEWS, "rough", settings=settings.model_copy(update={"dtype": "bfloat16"})
    )
    assert rough.loss_last == pytest.approx(exact.loss_last, rel=0.02)
    assert rough.loss_last != exact.loss_last
    tensors = load_file(rough.folder / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


# -- what comes out ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def student(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Student:
    """A LoRA student, trained hard enough that its adapter shows."""
    settings = SFTSettings(epochs=2, batch_size=8, learning_rate=5e-2, save_every_steps=2)
    return train(base, tmp_path_factory.mktemp("lora"), VIEWS, settings=settings)


def test_merged_model_is_base_plus_adapter(student: Student, base: Path, tokenizer: Any):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    assert student.adapter is not None
    batch = tokenizer("Usually, thing 3 can fly", return_tensors="pt")
    merged = AutoModelForCausalLM.from_pretrained(str(student.folder))
    plain = AutoModelForCausalLM.from_pretrained(str(base))
    before = plain(**batch).logits
    adapted = PeftModel.from_pretrained(plain, str(student.adapter))
    torch.testing.assert_close(merged(**batch).logits, adapted(**batch).logits)
    assert (merged(**batch).logits - before).abs().max() > 0.05
    assert all(p.dtype == torch.float32 for p in merged.parameters())
    assert merged.generation_config.max_new_tokens == 33


@pytest.mark.parametrize("method", ["lora", "full"])
def test_folder_is_portable(method: str, base: Path, tmp_path: Path):
    student = train(base, tmp_path, VIEWS, settings=SFTSettings(method=method, epochs=1))
    files = [path for path in student.folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}  # no pickle, no card
    for path in files:
        assert str(tmp_path).encode() not in path.read_bytes()
        assert str(base).encode() not in path.read_bytes()
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (student.folder / name).read_bytes() == (base / name).read_bytes()
    config, before = (json.loads((f / "config.json").read_text()) for f in (student.folder, base))
    assert config == before
    assert not (tmp_path / "out.tmp").exists()
    if method == "lora":
        config = json.loads((student.folder / "adapter" / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == "embedded:smollm2"
        assert config["r"] == 16
        assert any("down_proj" in name for name in config["target_modules"])
    else:
        assert student.adapter is None
        assert not (student.folder / "adapter").exists()


def test_checkpoints_hold_no_training_arguments_and_two_are_kept(student: Student):
    folder = student.folder.with_name("out-ck")
    kept = checkpoint_files.named(folder)
    assert [checkpoint_files.step_of(path) for path in kept] == [student.steps, student.steps - 1]
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in kept)
    names = {path.name for path in folder.rglob("*")}
    assert not names & {"training_args.bin", "README.md"}


def test_progress_and_silence(
    base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    import trl.trainer.base_trainer

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("telemetry was sent")

    monkeypatch.setattr(trl.trainer.base_trainer, "send_telemetry", refuse)
    monkeypatch.delenv("CI", raising=False)
    seen: list[TrainProgress] = []
    student = train(base, tmp_path, VIEWS, progress=seen.append)
    assert [p.step for p in seen] == list(range(1, student.steps + 1))
    assert student.steps == 5  # 17 rows, twice, by eights
    assert {p.steps_total for p in seen} == {5}
    assert all(a.tokens < b.tokens for a, b in pairwise(seen))
    assert seen[-1].tokens == student.tokens_trained
    assert (seen[0].loss, seen[-1].loss) == (student.loss_first, student.loss_last)
    assert capfd.readouterr() == ("", "")


def test_a_whole_student_is_returned_as_it_is(base: Path, tmp_path: Path):
    first = train(base, tmp_path, VIEWS)
    written = (first.folder / "model.safetensors").stat().st_mtime_ns
    again = train(base, tmp_path, VIEWS)
    assert (again.folder / "model.safetensors").stat().st_mtime_ns == written
    assert replace(again, wall_s=0) == replace(first, wall_s=0)


def test_an_empty_folder_is_filled_and_others_are_left_alone(base: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    train(base, tmp_path, VIEWS)
    with pytest.raises(InputError, match="a student of another training"):
        train(base, tmp_path, VIEWS, seed=4)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="other files"):
        train(base, tmp_path, VIEWS, "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("views", "complaint"),
    [
        ([], "at least one row"),
        ([view("Birds can", " fly.", 0.0)], "at least one row"),
        ([view("Birds can", " fly.", -1.0)], "weights of 0 or more"),
        ([view("Birds can", " fly.", float("inf"))], "weights of 0 or more"),
        ([view("Birds can", "")], "a target with text"),
        ([view("", " fly.")], "a prompt and a target"),
        ([view("Birds can", " fly" * 200)], "at most 128 tokens"),
    ],
)
def test_rows_that_cannot_be_trained_on(views: list[View], complaint: str, tokenizer: Any):
    with pytest.raises(InputError, match=complaint):
        tokenise(views, tokenizer, 128)


# -- the order of training --------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=60),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(0, 5),
)
def test_order_holds_every_row_once_per_epoch(
    lengths: list[int], epochs: int, batch_size: int, seed: int
):
    order = training_order(lengths, epochs=epochs, batch_size=batch_size, seed=seed)
    n = len(lengths)
    for epoch in range(epochs):
        assert sorted(order[epoch * n : (epoch + 1) * n]) == list(range(n))
    assert order == training_order(lengths, epochs=epochs, batch_size=batch_size, seed=seed)


def test_order_differs_by_seed_and_epoch_and_saves_padding():
    draw = random.Random(0)
    lengths = [draw.randint(8, 30) for _ in range(320)]
    order = training_order(lengths, epochs=2, batch_size=16, seed=0)
    assert order != training_order(lengths, epochs=2, batch_size=16, seed=1)
    assert order[:320] != order[320:]

    def padded(rows: list[int]) -> int:
        batches = [rows[i : i + 16] for i in range(0, len(rows), 16)]
        return sum(max(lengths[row] for row in batch) * len(batch) for batch in batches)

    assert sum(lengths) <= padded(order[:320]) < 1.1 * sum(lengths)
    assert padded(list(range(320))) > 1.3 * sum(lengths)


@given(
    st.dictionaries(
        st.integers(0, 9), st.lists(st.integers(1, 2), min_size=1, max_size=4), min_size=1
    ),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(0, 5),
)
def test_visits_of_groups_read_one_whole_trace_of_each_per_epoch(
    groups: dict[int, list[int]], epochs: int, batch_size: int, seed: int
):
    """A group is drawn as the numbers of rows (views) of its traces."""
    rows = [
        TokenRow([1, 2], [IGNORED, 2], 1.0, str(group), (f"{group}-{number}",))
        for group, views in groups.items()
        for number, count in enumerate(views)
        for _ in range(count)
    ]
    random.Random(seed).shuffle(rows)
    traces = traces_of(rows)
    assert sorted(row for group in traces for trace in group for row in trace) == list(
        range(len(rows))
    )
    order = training_order(
        [2] * len(rows), epochs=epochs, batch_size=batch_size, seed=seed, traces=traces
    )
    place = 0
    for _ in range(epochs):  # an epoch's length is that of the traces drawn
        visited: dict[str, tuple[str, ...]] = {}
        left: dict[str, int] = {}
        while len(visited) < len(groups) or any(left.values()):
            row = rows[order[place]]
            place += 1
            if row.group not in visited:
                visited[row.group] = row.knowledge_ids
                left[row.group] = sum(one.knowledge_ids == row.knowledge_ids for one in rows)
            assert row.knowledge_ids == visited[row.group]
            left[row.group] -= 1
            assert left[row.group] >= 0
    assert place == len(order)


def test_each_trace_of_a_group_is_drawn_about_equally():
    traces = [[[0], [1], [2, 3]], [[4]], [[5], [6]]]
    order = training_order([5] * 7, epochs=3000, batch_size=4, seed=0, traces=traces)
    counts = [order.count(row) for row in range(7)]
    assert counts[2] == counts[3]
    assert counts[4] == 3000
    assert sum(counts[:3]) == counts[5] + counts[6] == 3000
    assert all(900 < count < 1100 for count in counts[:3])  # 1000 +- 26 by chance
    assert all(1390 < count < 1610 for count in counts[5:])


@given(
    st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=4), min_size=1, max_size=30),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(0, 5),
)
def test_a_visit_of_several_draws_reads_different_traces_whole(
    groups: list[list[int]], draws: int, epochs: int, batch_size: int, seed: int
):
    """A group is drawn as the numbers of rows (views) of its traces."""
    number = itertools.count()
    traces = [[[next(number) for _ in range(rows)] for rows in group] for group in groups]
    trace_of = {r: (g, t) for g, ts in enumerate(traces) for t, rows in enumerate(ts) for r in rows}
    lengths = [2 + row % 7 for row in trace_of]
    options = {"batch_size": batch_size, "seed": seed, "traces": traces, "draws": draws}
    order = training_order(lengths, epochs=epochs, **options)
    for epoch in range(epochs):  # an epoch goes on where a shorter training ends
        start = len(training_order(lengths, epochs=epoch, **options))
        end = len(training_order(lengths, epochs=epoch + 1, **options))
        read = Counter(trace_of[row] for row in order[start:end])
        assert len(set(order[start:end])) == end - start
        assert all(count == len(traces[g][t]) for (g, t), count in read.items())
        drawn = Counter(group for group, _ in read)
        assert drawn == {n: min(draws, len(group)) for n, group in enumerate(groups)}
        if draws > 1:  # rows of a visit stand together
            visits = [trace_of[row][0] for row in order[start:end]]
            assert 1 + sum(a != b for a, b in pairwise(visits)) == len(groups)
    assert end == len(order)


@pytest.mark.parametrize("traces_of_each", [(3,), (2, 4), (1, 2, 3, 4, 5)])
def test_the_draws_of_a_visit_share_a_batch(traces_of_each: tuple[int, ...]):
    """Always where visits of one size fill batches; nearly always where sizes differ."""
    draw = random.Random(0)
    number = itertools.count()
    traces = [[[next(number)] for _ in range(draw.choice(traces_of_each))] for _ in range(101)]
    group_of = {row: n for n, group in enumerate(traces) for [row] in group}
    lengths = [draw.randint(50, 150) for _ in group_of]
    order = training_order(lengths, epochs=5, batch_size=12, seed=0, traces=traces, draws=3)
    visits = [set(map(group_of.__getitem__, order[i : i + 12])) for i in range(0, len(order), 12)]
    cut = sum(map(len, visits)) - 5 * 101
    assert cut <= (0 if len(traces_of_each) == 1 else 5)  # some 60, were rows only neighbours
    padded = sum(
        12 * max(lengths[row] for row in order[i : i + 12]) for i in range(0, len(order), 12)
    )
    assert padded < 1.5 * sum(lengths[row] for row in order)


def test_one_draw_a_visit_keeps_its_order():
    """As it always was: a `choice` for each group, then a shuffle, in one random stream."""
    draw = random.Random(4)
    traces = [[[2 * n], [2 * n + 1]] if n % 2 else [[2 * n, 2 * n + 1]] for n in range(50)]
    traces.append([[row] for row in range(100, 140)])
    expected: list[int] = []
    for _ in range(3):
        rows = [row for group in traces for row in draw.choice(group)]
        batches = [[row] for row in draw.sample(rows, len(rows))]
        pools = [batches[i : i + 8] for i in range(0, len(batches), 8)]
        batches = [one for pool in pools for one in sorted(pool, key=lambda one: -one[0])]
        draw.shuffle(batches)
        expected += [row for [row] in batches]
    lengths = [200 - row for row in range(140)]
    assert expected == training_order(lengths, epochs=3, batch_size=1, seed=4, traces=traces)


def test_draws_of_several_use_each_trace_about_equally():
    traces = [[[0], [1], [2], [3, 4]], [[5]], [[6], [7]]]
    order = training_order([5] * 8, epochs=3000, batch_size=4, seed=0, traces=traces, draws=2)
    counts = Counter(order)
    assert counts[3] == counts[4]
    assert counts[5] == counts[6] == counts[7] == 3000
    assert all(1390 < counts[row] < 1610 for row in range(4))  # 1500 +- 27 by chance


def test_training_ends_with_the_batch_that_reaches_max_tokens():
    lengths = [3, 4, 5, 6, 7, 8, 9]
    whole = training_order(lengths, epochs=3, batch_size=2, seed=0)
    for most in (1, 7, 30, 43, 125, 126, 1000):
        order = training_order(lengths, epochs=3, batch_size=2, seed=0, max_tokens=most)
        assert order == whole[: len(order)]
        read = [sum(lengths[row] for row in order[:i]) for i in (len(order) - 2, len(order))]
        assert read[0] < most
        assert read[1] >= min(most, 126)


def test_tokens_trained_tells_where_max_tokens_ended_it(base: Path, tmp_path: Path):
    settings = SFTSettings(epochs=9, batch_size=4, max_tokens=300)
    seen: list[TrainProgress] = []
    student = train(base, tmp_path, VIEWS, settings=settings, progress=seen.append)
    assert seen[-2].tokens < 300 <= student.tokens_trained == seen[-1].tokens
    assert student.steps == seen[0].steps_total < 9 * 5


def test_visits_of_groups_train_on_one_trace_each(base: Path, tmp_path: Path):
    views = [
        View("Birds can", " fly.", 1.0, "birds", ("a",)),
        View("Birds can", " sing.", 1.0, "birds", ("b",)),
        View("Fish can", " swim.", 1.0, "fish", ("c",)),
    ]
    settings = SFTSettings(epochs=5, batch_size=2, visits="groups")
    student = train(base, tmp_path, views, settings=settings)
    assert student.steps == 5
    renamed = [replace(views[0], knowledge_ids=("b",)), *views[1:]]  # now one trace of two views
    with pytest.raises(InputError, match="a student of another training"):
        train(base, tmp_path, renamed, settings=settings)


# -- checkpoints ------------------------------------------------------------------------------


def write_checkpoint(folder: Path, step: int, training: str = "this") -> Path:
    written = folder / "aside" / f"checkpoint-{step}"
    written.mkdir(parents=True)
    (written / "model.safetensors").write_bytes(b"weights" * 100)
    (written / "trainer_state.json").write_text("{}")
    return checkpoint_files.publish(written, folder, training)


def truncate(checkpoint: Path) -> None:
    with (checkpoint / "model.safetensors").open("r+b") as stream:
        stream.truncate(100)


def flip_a_byte(checkpoint: Path) -> None:
    with (checkpoint / "model.safetensors").open("r+b") as stream:
        stream.write(b"W")


DAMAGES = {
    "truncated": truncate,
    "flipped": flip_a_byte,
    "file lost": lambda c: (c / "trainer_state.json").unlink(),
    "manifest lost": lambda c: (c / "manifest.json").unlink(),
    "manifest cut": lambda c: (c / "manifest.json").write_text('{"training": "this", "fil'),
    "manifest empty": lambda c: (c / "manifest.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_deleted_and_the_one_before_is_used(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    for step in (9, 10, 11):
        write_checkpoint(tmp_path, step)
    assert [checkpoint_files.step_of(p) for p in checkpoint_files.named(tmp_path)] == [11, 10]
    assert checkpoint_files.newest_sound(tmp_path, "this") == tmp_path / "checkpoint-11"
    DAMAGES[damage](tmp_path / "checkpoint-11")
    assert checkpoint_files.newest_sound(tmp_path, "this") == tmp_path / "checkpoint-10"
    assert "checkpoint-11 is not sound" in caplog.text
    assert not (tmp_path / "checkpoint-11").exists()


def test_no_sound_checkpoint_means_from_the_start(tmp_path: Path):
    assert checkpoint_files.newest_sound(tmp_path, "this") is None
    write_checkpoint(tmp_path, 3, training="another")
    assert checkpoint_files.newest_sound(tmp_path, "this") is None


# -- kill -9 ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("killed")
    done = subprocess.run(
        [sys.executable, __file__, str(folder)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("how", ["at a step", "in a write", "truncated", "twice", "before any"])
def test_killed_and_called_again_ends_with_the_same_bytes(
    method: str, how: str, killed: dict[str, Any]
):
    outcome = killed[f"{method}, {how}"]
    assert outcome["exits"] == [-signal.SIGKILL] * len(outcome["exits"])
    assert outcome["resumed_from_step"] == outcome["expected_step"]
    assert outcome["files"] == killed[f"{method}, whole"]["files"]
    assert any(name.endswith("model.safetensors") for name in outcome["files"])


def victim(
    base: Path, folder: Path, method: str, *, die_at: int = 0, in_write: bool = False
) -> int:
    """Train in a child process that kills itself at a step; gives how it ended."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def die(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    publish = checkpoint_files.publish

    def publish_or_die(written: Path, *rest: Any) -> Path:
        if checkpoint_files.step_of(written) == die_at:
            truncate(written if method == "full" else _as_adapter(written))
            die()
        return publish(written, *rest)

    if in_write:
        checkpoint_files.publish = publish_or_die
    student = fine_tune(
        base,
        VIEWS,
        out=folder / "out",
        checkpoints=folder / "checkpoints",
        settings=KILLED.model_copy(update={"method": method}),
        seed=11,
        progress=lambda p: die() if p.step == die_at and not in_write else None,
    )
    (folder / "resumed.json").write_text(json.dumps(student.resumed_from_step))
    os._exit(0)


def _as_adapter(checkpoint: Path) -> Path:
    os.replace(checkpoint / "adapter_model.safetensors", checkpoint / "model.safetensors")
    return checkpoint


def drive(folder: Path) -> dict[str, Any]:
    """Every way to be killed, for both methods: how it ended and what came out."""
    import torch
    import trl  # noqa: F401  # once, before the children are made

    import symdistill.students.trainer  # noqa: F401

    torch.set_num_threads(1)
    if os.fork() == 0:
        write_tiny_model(folder / "base")
        os._exit(0)
    os.wait()
    base, outcomes = folder / "base", {}
    steps = -(-3 * len(VIEWS) // 4)
    draw = random.Random()  # another step on each run of the tests
    for method in ("lora", "full"):
        step = draw.randint(2 * SAVE_EVERY_STEPS + 1, steps - 1)
        # The step's own checkpoint is written after it is reported, so it is not there yet.
        newest = (step - 1) // SAVE_EVERY_STEPS * SAVE_EVERY_STEPS
        kills: dict[str, tuple[list[dict[str, Any]], int | None]] = {
            "whole": ([], None),
            "at a step": ([{"die_at": step}], newest),
            "in a write": ([{"die_at": 9, "in_write": True}], 6),
            "truncated": ([{"die_at": step}], newest - SAVE_EVERY_STEPS),
            "twice": ([{"die_at": 5}, {"die_at": step}], newest),
            "before any": ([{"die_at": 2}], None),
        }
        for how, (deaths, expected) in kills.items():
            place = folder / f"{method} {how}"
            place.mkdir()
            exits = [victim(base, place, method, **death) for death in deaths]
            if how == "truncated":
                _truncate_newest(place / "checkpoints")
            last = victim(base, place, method)
            assert last == 0, f"{method}, {how}: the last training ended with {last}"
            out = place / "out"
            outcomes[f"{method}, {how}"] = {
                "exits": exits,
                "expected_step": expected,
                "resumed_from_step": json.loads((place / "resumed.json").read_text()),
                "files": {
                    str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest()
                    for p in sorted(out.rglob("*"))
                    if p.is_file()
                },
            }
    return outcomes


def _truncate_newest(folder: Path) -> None:
    newest = checkpoint_files.named(folder)[0]
    [file] = newest.glob("*model.safetensors")
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size // 2)


if __name__ == "__main__":
    print(json.dumps(drive(Path(sys.argv[1]))))
