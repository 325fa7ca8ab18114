"""The critic: a trained judge of statements, an independent judge to check it, and the cut.

labels.py       labelled statements, split by concept
forms.py        from a row to what is judged: statement, pair, rationale, triple, entailment
examples.py     labelled lines of any form, checked, and split by group
encoder.py      the critic: a fine-tuned encoder with the teacher's likelihood as features
reading.py      from texts to a transformer's states
training.py     fine-tuning: in full, the top layers, or LoRA
fitted.py       what the critic and the independent judge have in common
baselines.py    what a critic must beat: likelihood, surface cues, words
learning_curve.py  what more labels would buy
fitting.py      from labelled lines to a critic, and how good it is
learnt.py       which lines a critic learnt from, told of every table that it scores
card.py         a critic's folder, and the page in it
judge.py        the independent judge: another architecture, trained on other labels
calibration.py  from a logit to the probability that a line is valid
cut.py          the score from which lines are kept, and an estimate of their precision
certificate.py  how many of the best-scored lines are valid, with a guarantee
fixed_sequence.py  the exact tests behind it
power.py        how many labels a certificate takes, by simulation

Names are imported when first used, so that reading labels needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from symdistill.critic.baselines import likelihood_scores, negation_scores
    from symdistill.critic.calibration import PlattScaling, fit_platt
    from symdistill.critic.cut import Cut, Estimate, choose_cut, estimate_precision
    from symdistill.critic.encoder import EncoderCritic, EncoderSettings
    from symdistill.critic.judge import DecoderJudge, JudgeSettings
    from symdistill.critic.labels import Label, check_splits, read_labels, select, split_by_concept

__all__ = [
    "Cut",
    "DecoderJudge",
    "EncoderCritic",
    "EncoderSettings",
    "Estimate",
    "JudgeSettings",
    "Label",
    "PlattScaling",
    "check_splits",
    "choose_cut",
    "estimate_precision",
    "fit_platt",
    "likelihood_scores",
    "negation_scores",
    "read_labels",
    "select",
    "split_by_concept",
]

_HOME = {
    "baselines": ["likelihood_scores", "negation_scores"],
    "calibration": ["PlattScaling", "fit_platt"],
    "cut": ["Cut", "Estimate", "choose_cut", "estimate_precision"],
    "encoder": ["EncoderCritic", "EncoderSettings"],
    "judge": ["DecoderJudge", "JudgeSettings"],
    "labels": ["Label", "check_splits", "read_labels", "select", "split_by_concept"],
}


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
