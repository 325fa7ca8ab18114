"""Supervised fine-tuning: a causal language model learns to write the kept lines.

Takes View rows (prompt, target, weight) and a model folder. Gives a student: a folder that plain
`transformers` opens, and its adapter. Costs, for a model of P parameters, about 4 P operations
per token with LoRA and 6 P in full training, over `epochs` times the rows' tokens.

Follows the self-imitation step of I2D2 (fine-tune the generator on what its critic kept), with
low-rank adapters (LoRA) as the default where the paper trains all weights. The loss is taken on
the target and the end-of-text token after it, never on the prompt. For rationales: a loss per row
(the views of Distilling Step-by-Step, https://arxiv.org/abs/2305.02301, are weighed so), visits of
questions instead of rows (SCoTD, https://arxiv.org/abs/2306.14050), and packing.

Training can be killed anywhere and called again: it goes on from the newest sound checkpoint and
ends with the same bytes as an uninterrupted one (same machine type, versions, thread count).

What it does not do: choose rows or weights (selection does), evaluate, train on several devices.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from symdistill.config import Count, Settings
from symdistill.errors import InputError
from symdistill.models import fingerprint
from symdistill.records import View, content_hash
from symdistill.students.batches import collate, prompt_of, tokenise, traces_of, training_order
from symdistill.students.checkpoints import newest_sound, step_of

RECORD = "student.json"  # written last: a student folder that has it is whole
TOKENIZER_FILES = (
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "*.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.*",
)
PEAK_LEARNING_RATE = {"lora": 2e-4, "full": 2e-5}


class SFTSettings(Settings):
    """How a student is fine-tuned."""

    method: Literal["lora", "full"] = "lora"
    """`lora` trains small adapters beside all linear layers, `full` trains every weight."""

    lora_rank: Annotated[Count, Field(ge=1)] = 16
    """Rank of the adapters; no effect in full training."""

    lora_alpha: Annotated[float, Field(gt=0)] = 32.0
    """The adapters' output is scaled by lora_alpha / lora_rank."""

    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapters' inputs set to zero in training, 0..1."""

    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Highest learning rate (AdamW); null means 2e-4 for lora, 2e-5 for full."""

    epochs: Annotated[Count, Field(ge=1)] = 3
    """How often each row, or group of rows, is visited."""

    visits: Literal["rows", "groups"] = "rows"
    """What an epoch visits once. `rows`: each row, so a question counts as often as it has
    rationales. `groups`: each question, where one of its rationales is drawn anew each time."""

    draws: Annotated[Count, Field(ge=1)] = 1
    """With visits: groups, so many different traces of a question are drawn at each visit, if it
    has as many; they share a batch, and with pack: prompts the prompt. A question then counts by
    the traces drawn. No visit is cut in two if batch_size is a multiple of its rows; else some
    are. No effect with visits: rows."""

    max_tokens: Annotated[Count, Field(ge=1)] | None = None
    """Training ends with the batch that reaches this many tokens, prompts and targets, if the
    epochs have not ended before; null means no limit. The learning rate falls to 0 by then."""

    batch_size: Annotated[Count, Field(ge=1)] = 16
    """Rows per optimizer step."""

    loss_per: Literal["token", "row"] = "token"
    """What a row's weight weighs. `token`: each token it learns, so long targets count more.
    `row`: their mean, so a long rationale counts no more than a short answer; what a row counts
    does not depend on the rows it shares a batch with, save where clip_norm steps in."""

    max_length_tokens: Annotated[Count, Field(ge=3)] = 128
    """Longest row, prompt and target and end of text together; a longer one is an error."""

    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the steps in which the learning rate rises from 0; then it falls to 0, linearly."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's weight decay."""

    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """A longer gradient is scaled down to this length."""

    save_every_steps: Annotated[Count, Field(ge=1)] = 50
    """Optimizer steps between checkpoints: what a kill can cost."""

    pack: Literal["none", "prompts"] = "none"
    """`prompts`: rows with the same prompt share a batch, and the prompt is read once for all of
    them. Faster by the share of tokens this saves; loss and gradients of a batch are the same,
    but it holds fewer questions. With visits: groups it takes `draws` of 2 or more. Not for models
    without attention over explicit masks."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the matrix products in training; weights are kept in float32.
    bfloat16 pays on GPUs and on CPUs that have instructions for it (AMX); elsewhere it costs."""


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """Where a training stands after a step: steps, that step's loss, tokens read so far."""

    step: int
    steps_total: int
    loss: float  # nats per learnt token; with loss_per: row, times the rows' mean weight
    tokens: int  # as in `Student.tokens_trained`


@dataclass(frozen=True, slots=True)
class Student:
    """A trained student on disk.

    `loss_first` and `loss_last` are means over the first and the last tenth of the steps, in nats
    per learnt token (see `TrainProgress`). `tokens_trained` counts prompt and target of every row
    visited, a prompt that rows share in a packed sequence once for each. `adapter` is None after
    full training; `resumed_from_step` is None if training began at the start.
    """

    folder: Path
    adapter: Path | None
    steps: int
    tokens_trained: int
    loss_first: float
    loss_last: float
    wall_s: float
    resumed_from_step: int | None


def fine_tune(
    base: Path,
    views: Sequence[View],
    *,
    out: Path,
    checkpoints: Path,
    settings: SFTSettings,
    seed: int,
    base_name: str = "embedded:smollm2",
    progress: Callable[[TrainProgress], None] | None = None,
) -> Student:
    """Fine-tune a model on rows, or go on with a training that was cut off.

    Draws from and reseeds the global random generators (Python, numpy, torch). The number of CPU
    threads is the caller's (`torch.set_num_threads`); with another number the bytes may differ.

    Args:
        base: folder of the model to start from (safetensors).
        views: the rows; the weight of a row is its share in the loss, 0 leaves it out.
        out: where the student goes: must not exist, be empty, or hold this very student, which
            is then returned as it is. Written aside (`OUT.tmp`) and renamed.
        checkpoints: folder of this training's checkpoints; the caller removes it in the end.
        settings: how to train.
        seed: decides adapters, dropout and the order of rows.
        base_name: what the adapter names as its base: a name that holds on other machines.
        progress: called after each step.

    Raises:
        InputError: rows or base cannot be trained on, or `out` holds something else.
    """
    started = time.perf_counter()
    training = content_hash(
        {
            "base": fingerprint(base),
            "base_name": base_name,
            "rows": [[view.prompt, view.target, view.weight] for view in views],
            "traces": [[view.group, view.knowledge_ids] for view in views]
            if settings.visits == "groups"
            else None,
            "settings": settings.model_dump(exclude={"save_every_steps"}),
            "seed": seed,
        }
    )
    found = _finished(out, training)
    if found is not None:
        return _student(out, found, wall_s=time.perf_counter() - started, resumed_from_step=None)
    checkpoints.mkdir(parents=True, exist_ok=True)
    resume = newest_sound(checkpoints, training)
    aside = out.with_name(f"{out.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    with _quiet():
        record = _train(
            base, views, aside, checkpoints, resume, settings, seed, base_name, training, progress
        )
        if settings.method == "lora":
            _merge(base, aside / "adapter", aside)
        _copy_tokenizer(base, aside)
    (aside / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
    os.replace(aside, out)  # onto nothing, or onto an empty folder
    return _student(
        out,
        record,
        wall_s=time.perf_counter() - started,
        resumed_from_step=None if resume is None else step_of(resume),
    )


def _train(
    base: Path,
    views: Sequence[View],
    aside: Path,
    checkpoints: Path,
    resume: Path | None,
    settings: SFTSettings,
    seed: int,
    base_name: str,
    training: str,
    progress: Callable[[TrainProgress], None] | None,
) -> dict[str, Any]:
    """Train, and write the weights: the adapter to ASIDE/adapter, or the model to ASIDE."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
    from trl.trainer.sft_config import SFTConfig

    from symdistill.students.packing import check_packing, collate_packed
    from symdistill.students.trainer import StepReport, WeightedSFTTrainer, save_weights

    tokenizer = AutoTokenizer.from_pretrained(str(base))
    token_rows = tokenise(views, tokenizer, settings.max_length_tokens, settings.loss_per)
    rows = [
        {"input_ids": row.input_ids, "labels": row.labels, "weight": row.weight}
        for row in token_rows
    ]
    packed = settings.pack == "prompts"
    lengths = [len(row.input_ids) for row in token_rows]
    order = training_order(
        lengths,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=seed,
        traces=traces_of(token_rows) if settings.visits == "groups" else None,
        draws=settings.draws,
        together=[prompt_of(row) for row in rows] if packed else None,
        max_tokens=settings.max_tokens,
    )
    steps = -(-len(order) // settings.batch_size)
    read = list(accumulate(lengths[row] for row in order))  # tokens read after each row

    def report(step: int, steps_total: int, loss: float) -> None:
        if progress is not None:
            tokens = read[min(step * settings.batch_size, len(order)) - 1]
            progress(TrainProgress(step, steps_total, loss, tokens))

    cpu = not torch.cuda.is_available()
    low = settings.dtype == "bfloat16"
    # torch's fused attention is slow in bfloat16 on a CPU: a third of a step on short rows.
    attention = {"attn_implementation": "eager"} if cpu and low else {}
    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32, **attention)
    model.name_or_path = base_name  # what peft writes down as the base
    use_cache = model.config.use_cache  # the trainer turns it off, which is not for the student
    trainer = WeightedSFTTrainer(
        checkpoint_folder=checkpoints,
        training=training,
        loss_per=settings.loss_per,
        model=model,
        processing_class=tokenizer,
        data_collator=partial(collate_packed if packed else collate, pad_id=tokenizer.eos_token_id),
        # The whole training is one pass over the rows in their final order: where it stands is
        # one number, and no random state decides what comes next.
        train_dataset=Dataset.from_list(rows).select(order, keep_in_memory=True),
        peft_config=None
        if settings.method == "full"
        else LoraConfig(
            r=settings.lora_rank,
            lora_alpha=settings.lora_alpha,  # type: ignore[arg-type]  # any number will do
            lora_dropout=settings.lora_dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
        args=SFTConfig(
            output_dir=str(checkpoints),
            seed=seed,
            num_train_epochs=1,
            train_sampling_strategy="sequential",
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.learning_rate or PEAK_LEARNING_RATE[settings.method],
            lr_scheduler_type="linear",
            warmup_steps=round(settings.warmup_share * steps),
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.clip_norm,
            bf16=low,
            use_cpu=cpu,
            gradient_checkpointing=False,
            save_strategy="steps",
            save_steps=settings.save_every_steps,
            save_total_limit=None,  # we keep two ourselves, and only whole ones
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
            dataloader_num_workers=0,
            dataloader_pin_memory=False,
            remove_unused_columns=False,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        callbacks=[StepReport(report)],
    )
    trainer.remove_callback(PrinterCallback)
    if packed:
        check_packing(trainer.model, rows, tokenizer.eos_token_id)
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))

    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    tenth = max(1, len(losses) // 10)
    trained: Any = trainer.model
    if settings.method == "lora":
        adapter = trained.peft_config["default"]
        adapter.target_modules = sorted(adapter.target_modules)  # a set has no order of its own
        save_weights(trained, aside / "adapter")
    else:
        trained.config._name_or_path = ""
        trained.config.use_cache = use_cache
        save_weights(trained, aside)
    return {
        "training": training,
        "base": base_name,
        "method": settings.method,
        "steps": trainer.state.global_step,
        "tokens_trained": read[-1],
        "loss_first": sum(losses[:tenth]) / tenth,
        "loss_last": sum(losses[-tenth:]) / tenth,
    }


def _merge(base: Path, adapter: Path, out: Path) -> None:
    """Write base + adapter as one model in float32."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    merged.config._name_or_path = ""
    merged.save_pretrained(str(out))


def _copy_tokenizer(base: Path, out: Path) -> None:
    """The base's tokenizer, byte for byte; saved by the library it would tell of this machine."""
    for pattern in TOKENIZER_FILES:
        for file in base.glob(pattern):
            shutil.copyfile(file, out / file.name)


def _finished(out: Path, training: str) -> dict[str, Any] | None:
    """What a whole student folder says of itself; None if there is none yet.

    Raises:
        InputError: something else is there.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        record: dict[str, Any] = json.loads((out / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = {}
    if record.get("training") != training:
        what = "a student of another training" if record else "other files"
        raise InputError(
            f"expected no folder, an empty one, or this very student at {out}; got {what}; "
            "remove it or choose another place"
        )
    return record


def _student(
    out: Path, record: dict[str, Any], *, wall_s: float, resumed_from_step: int | None
) -> Student:
    adapter = out / "adapter" if record["method"] == "lora" else None
    return Student(
        folder=out,
        adapter=adapter,
        steps=record["steps"],
        tokens_trained=record["tokens_trained"],
        loss_first=record["loss_first"],
        loss_last=record["loss_last"],
        wall_s=wall_s,
        resumed_from_step=resumed_from_step,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The libraries' bars, advice and warnings off; errors stay. Restored at the end."""
    from transformers.utils import logging as library

    level, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    others = [logging.getLogger(name) for name in ("trl", "peft", "accelerate", "datasets")]
    levels = [other.level for other in others]
    library.set_verbosity_error()
    library.disable_progress_bar()
    for other in others:
        other.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()
        for other, before in zip(others, levels, strict=True):
            other.setLevel(before)
