"""Tokens per second of fine-tuning on several rationales a question, by how rows share a batch.

    python -m benchmarks.packing [--rationales 1 3 6 10] [--rows 24] [--batch-size 12]
                                 [--repeats 3] [--threads 1] [--quick]

On generated questions (some 60 to 100 tokens) with generated rationales (some 60 to 120 tokens),
the embedded SmolLM2-135M with LoRA adapters, one pass forward and backward over the same rows:

trl       TRL's SFTTrainer: its data preparation, order, collator and loss (completion only)
ours      `SFTSettings()`: batches of like length, scores from the first learnt token on
blocks    the same, with several rows in one sequence that do not see each other
prompts   `SFTSettings(pack="prompts")`: a prompt once, each rationale sees it and itself
          (with `visits="groups"` it is `draws` rationales that share a prompt)

All are counted in the tokens of the plain form, where each row has its prompt, so that more
tokens per second is less time for the same rows. The systems take turns within each repeat; a
figure is the median over repeats. On a CPU with one thread time is the process's own, which other
work on the machine does not stretch. TRL's checkpointing of activations, which trades time for
memory, is off as it is in ours; its loss is computed in the form that is its default.

The last line printed is JSON; all rows are in benchmarks/results/packing.json. With the defaults
some half an hour on one CPU core; `--quick` some 3 minutes.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.result import finish
from symdistill.models import resolve
from symdistill.records import View
from symdistill.students import packing
from symdistill.students.batches import IGNORED, collate, prompt_of, tokenise, training_order

WORDS = (
    "apple basket bird book bottle box bread bridge brother bus cake chair child city coin cost "
    "count cup day door dozen each farm fish five floor four friend game garden give half hour "
    "house job kite left lemon lot market mile minute money more morning mother nine number one "
    "orange pack page paper park pay pen per pet piece plate price red road room row sell seven "
    "shop sister six small sum ten then three time total train tree trip two wall water week"
)
BLOCK_TOKENS = 512  # how long a sequence of unrelated rows may become

System = tuple[list[dict[str, Any]], Callable[[Any, dict[str, Any]], Any]]  # batches, loss


def main() -> None:
    """Measure, write the result, print the headline."""
    options = argparse.ArgumentParser(description="Tokens per second of packed fine-tuning.")
    options.add_argument("--rationales", type=int, nargs="+", default=[1, 3, 6, 10])
    options.add_argument("--rows", type=int, default=24)
    options.add_argument("--batch-size", type=int, default=12)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--quick", action="store_true", help="3 and 10, a batch, one repeat")
    given = options.parse_args()
    if given.quick:
        given.rationales, given.rows, given.repeats = [3, 10], given.batch_size, 1
    import torch

    torch.set_num_threads(given.threads)
    model, tokenizer = load()
    rows = []
    for rationales in given.rationales:
        rows.append(compare(model, tokenizer, rationales, given))
        print(rows[-1], flush=True)
    headline = {
        "benchmark": "packing",
        "device": str(model.device),
        "threads": given.threads,
        "rows_a_batch": given.batch_size,
        "repeats": given.repeats,
        "tokens_per_s": {row["rationales"]: row["tokens_per_s"] for row in rows},
        "prompts_over_trl": {row["rationales"]: row["over"]["trl"] for row in rows},
        "prompts_over_ours": {row["rationales"]: row["over"]["ours"] for row in rows},
        "prompts_over_blocks": {row["rationales"]: row["over"]["blocks"] for row in rows},
    }
    finish("packing", headline, rows)


def load() -> tuple[Any, Any]:
    """The embedded model with adapters, on the GPU if there is one, and its tokenizer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(resolve("embedded:smollm2").folder)
    torch.manual_seed(0)
    adapters = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), adapters
    )
    return (
        model.to("cuda" if torch.cuda.is_available() else "cpu").train(),
        AutoTokenizer.from_pretrained(folder),
    )


def compare(
    model: Any, tokenizer: Any, rationales: int, given: argparse.Namespace
) -> dict[str, Any]:
    """All systems on the same rows."""
    views = draw_views(rationales, given.rows)
    token_rows = tokenise(views, tokenizer, max_length_tokens=1024)
    rows = [{"input_ids": r.input_ids, "labels": r.labels, "weight": r.weight} for r in token_rows]
    useful = sum(len(row["input_ids"]) for row in rows)
    systems = {
        "trl": plain_trl(model, tokenizer, views, given.batch_size),
        "ours": ours(rows, collate, given.batch_size),
        "blocks": ours(rows, collate_blocks, given.batch_size),
        "prompts": ours(rows, packing.collate_packed, given.batch_size, together=True),
    }
    read = {name: places(batches) for name, (batches, _) in systems.items()}
    spent: dict[str, list[float]] = {name: [] for name in systems}
    losses: dict[str, float] = {}
    step(model, systems["ours"][0][0], systems["ours"][1])  # memory is taken once
    for _ in range(given.repeats):
        for name, (batches, loss) in systems.items():
            found = [step(model, batch, loss) for batch in batches]
            spent[name].append(sum(seconds for seconds, _ in found))
            losses[name] = statistics.mean(value for _, value in found)
    speed = {name: useful / statistics.median(seconds) for name, seconds in spent.items()}
    return {
        "rationales": rationales,
        "rows": len(rows),
        "tokens": useful,
        "prompt_tokens_mean": round(statistics.mean(len(prompt_of(row)) for row in rows), 1),
        "places_read": read,  # padding counted
        "loss": {name: round(loss, 4) for name, loss in losses.items()},  # of other batches each
        "tokens_per_s": {name: round(value, 1) for name, value in speed.items()},
        "over": {name: round(speed["prompts"] / value, 2) for name, value in speed.items()},
    }


def draw_views(rationales: int, count: int) -> list[View]:
    """Rows whose texts are random words: only their lengths matter here."""
    draw = random.Random(rationales)

    def words(least: int, most: int) -> str:
        return " ".join(draw.choices(WORDS.split(), k=draw.randint(least, most)))

    views: list[View] = []
    while len(views) < count:
        question = f"Question: {words(55, 92)}?\nAnswer:"
        for _ in range(min(rationales, count - len(views))):
            target = f" {words(52, 110)}. The answer is {draw.randint(1, 99)}."
            views.append(View(question, target, 1.0, question, (target,)))
    return views


def plain_trl(model: Any, tokenizer: Any, views: Sequence[View], batch_size: int) -> System:
    """TRL's own batches and loss for the same rows."""
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    class Silent(SFTTrainer):
        def _send_telemetry(self) -> None:
            """Nothing leaves this machine."""

    with tempfile.TemporaryDirectory() as place:
        trainer = Silent(
            model=model,
            processing_class=tokenizer,
            train_dataset=Dataset.from_list(
                [{"prompt": view.prompt, "completion": view.target} for view in views]
            ),
            args=SFTConfig(
                output_dir=place,
                per_device_train_batch_size=batch_size,
                completion_only_loss=True,
                max_length=None,
                gradient_checkpointing=False,
                bf16=False,
                use_cpu=model.device.type == "cpu",
                dataloader_pin_memory=False,
                report_to="none",
                disable_tqdm=True,
            ),
        )
        batches = [dict(batch) for batch in trainer.get_train_dataloader()]
    return batches, lambda model, batch: trainer.compute_loss(model, dict(batch))


def ours(
    rows: Sequence[dict[str, Any]],
    collator: Callable[..., dict[str, Any]],
    batch_size: int,
    together: bool = False,
) -> System:
    """Our order, batches by a collator, and our loss."""
    from symdistill.students.trainer import WeightedSFTTrainer

    order = training_order(
        [len(row["input_ids"]) for row in rows],
        epochs=1,
        batch_size=batch_size,
        seed=0,
        together=[prompt_of(row) for row in rows] if together else None,
    )
    batches = [
        collator([rows[i] for i in order[start : start + batch_size]], pad_id=0)
        for start in range(0, len(order), batch_size)
    ]
    return batches, object.__new__(WeightedSFTTrainer).compute_loss


def collate_blocks(rows: Sequence[dict[str, Any]], pad_id: int) -> dict[str, Any]:
    """Rows one after another in sequences of up to `BLOCK_TOKENS`; no row sees another."""
    import torch

    sequences: list[list[tuple[int, int, int, int]]] = []
    for number, row in sorted(enumerate(rows), key=lambda one: -len(one[1]["input_ids"])):
        length = len(row["input_ids"])
        if not (room := [s for s in sequences if len(s) + length <= BLOCK_TOKENS]):
            sequences.append([])
            room = sequences[-1:]
        room[0].extend(
            (number, place, token, label)
            for place, (token, label) in enumerate(
                zip(row["input_ids"], row["labels"], strict=True)
            )
        )
    longest = max(map(len, sequences))
    padded = [one + [(-1, 0, pad_id, IGNORED)] * (longest - len(one)) for one in sequences]
    row_of, positions, tokens, labels = torch.tensor(padded).unbind(dim=-1)  # (B, T) each
    seen = (row_of[:, :, None] == row_of[:, None, :]).tril()
    return {
        "input_ids": tokens,
        "position_ids": positions,
        "attention_mask": torch.where(seen, 0.0, torch.finfo(torch.float32).min)[:, None],
        "labels": labels,
        "rows": row_of,
        "weights": torch.tensor([row["weight"] for row in rows]),
    }


def places(batches: Sequence[dict[str, Any]]) -> int:
    """Tokens and padding that the model reads."""
    return sum(batch["input_ids"].numel() for batch in batches)


def step(
    model: Any, batch: dict[str, Any], loss_of: Callable[[Any, dict[str, Any]], Any]
) -> tuple[float, float]:
    """Seconds of one pass forward and backward, and the loss."""
    import torch

    clock = time.perf_counter
    if model.device.type == "cpu" and torch.get_num_threads() == 1:
        clock = time.process_time
    batch = {name: value.to(model.device) for name, value in batch.items()}
    _finish_kernels(model)
    started = clock()
    loss = loss_of(model, batch)
    loss.backward()
    _finish_kernels(model)
    seconds = clock() - started
    model.zero_grad(set_to_none=True)
    return seconds, float(loss.detach())


def _finish_kernels(model: Any) -> None:
    import torch

    if model.device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
