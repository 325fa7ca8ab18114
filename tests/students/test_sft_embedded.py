"""Fine-tuning the embedded language model: two steps on eight rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from symdistill.models import Model
from symdistill.records import View
from symdistill.students import SFTSettings, fine_tune

pytestmark = pytest.mark.real


def test_two_steps_bring_the_loss_down_and_give_a_student(smollm2: Model, tmp_path: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    row = View("Usually, a hammer is used to", " drive nails into wood.", 1.0, "hammer", ())
    losses: list[float] = []
    student = fine_tune(
        smollm2.folder,
        [row] * 8,
        out=tmp_path / "student",
        checkpoints=tmp_path / "checkpoints",
        settings=SFTSettings(epochs=1, batch_size=4, learning_rate=1e-3, warmup_share=0),
        seed=0,
        progress=lambda p: losses.append(p.loss),
    )
    assert student.steps == len(losses) == 2
    assert losses[1] < losses[0] < 8  # nats per token; a model that knows nothing has 10.8
    tokenizer = AutoTokenizer.from_pretrained(str(student.folder))
    model = AutoModelForCausalLM.from_pretrained(str(student.folder))
    prompt = tokenizer(row.prompt, return_tensors="pt")
    written = model.generate(**prompt, max_new_tokens=4, do_sample=False)
    assert tokenizer.decode(written[0]).startswith(row.prompt)
