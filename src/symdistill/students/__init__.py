"""Students: what learns from the kept knowledge. Here: a causal language model, fine-tuned on text.

sft.py          fine-tuning: settings, the training, the folder that comes out
batches.py      rows as tokens, and the order in which they are trained on
packing.py      rows that share a prompt, read as one sequence
trainer.py      the trainer: weighted loss on the target only, checkpoints written whole
checkpoints.py  which checkpoint is sound
reasoning_views.py  rationales as rows: what each objective reads, learns and is asked
"""

from symdistill.students.sft import SFTSettings, Student, TrainProgress, fine_tune

__all__ = ["SFTSettings", "Student", "TrainProgress", "fine_tune"]
