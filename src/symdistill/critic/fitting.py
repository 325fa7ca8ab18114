"""From split examples to a critic, and how good it is beside what reads no meaning.

Takes a `Split`, and for each of its parts what the critic reads of it; gives fitted critics, the
learning curve, and a report in plain JSON. Costs a fit for each seed: a few minutes on one core for
a thousand lines and the default encoder; about four more for the curve.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from symdistill.critic.baselines import baseline_scores, verdict
from symdistill.critic.encoder import Calibration, EncoderCritic, EncoderSettings
from symdistill.critic.examples import Split
from symdistill.critic.forms import Form
from symdistill.critic.learning_curve import LearningCurve, Point, learning_curve, parts
from symdistill.critic.reading import Text
from symdistill.critic.training import usual_learning_rate
from symdistill.errors import InputError
from symdistill.progress import Progress

Statistic = Callable[[NDArray[np.float64], NDArray[np.bool_]], float]
"""Of scores (N,) and labels (N,)."""


class Judged(NamedTuple):
    """What the critic reads of N lines."""

    texts: list[Text]
    numbers: NDArray[np.float64] | None  # (N, F) beside the texts


def settings_for(
    encoder: Path,
    form: Form,
    *,
    trainable: str = "full",
    epochs: int = 3,
    learning_rate: float | None = None,
    max_length: int | None = None,
) -> EncoderSettings:
    """How the encoder in a folder is trained: what is not given follows from its width and form.

    Raises:
        InputError: `trainable` is none of full, top and lora.
    """
    from transformers import AutoConfig

    if trainable not in ("full", "top", "lora"):
        raise InputError(f"expected --trainable full, top or lora; got {trainable!r}; use one")
    width = getattr(AutoConfig.from_pretrained(encoder, local_files_only=True), "hidden_size", 768)
    pairs = form.name in ("pair", "rationale", "entailment")
    return EncoderSettings(
        epochs=epochs,
        learning_rate=learning_rate or usual_learning_rate(width, trainable),
        max_length=max_length or (128 if pairs else 64),
        trainable=trainable,
        weigh_numbers=True,
    )


def fit_critic(
    judged: Mapping[str, Judged],
    split: Split,
    encoder: Path,
    settings: EncoderSettings,
    seed: int,
    rows: NDArray[np.intp] | None = None,
) -> EncoderCritic:
    """A critic of all the lines to train on, or of the ones at `rows`.

    Args:
        judged: by the names of the parts of `split`: train, calibration, test.
    """
    texts, numbers = judged["train"]
    chosen = np.arange(len(texts)) if rows is None else rows
    groups = split.train.groups
    return EncoderCritic.fit(
        [texts[i] for i in chosen],
        None if numbers is None else numbers[chosen],
        split.train.valid[chosen],
        [groups[i] for i in chosen],
        encoder=encoder,
        calibration=Calibration(*judged["calibration"], split.calibration.valid),
        settings=settings,
        seed=seed,
    )


def fit_curve(
    critic: EncoderCritic,
    judged: Mapping[str, Judged],
    split: Split,
    encoder: Path,
    settings: EncoderSettings,
    progress: Progress,
) -> LearningCurve:
    """What more labels would buy; `critic` is the one of all of them."""
    points = []
    of = parts(split.train.valid, split.train.groups)
    with progress.stage("learning curve", len(of), "fits") as advance:
        for part in of:
            whole = len(part.rows) == len(split.train.lines)
            one = (
                critic
                if whole
                else fit_critic(judged, split, encoder, settings, part.draw, part.rows)
            )
            points.append(Point(len(part.rows), one.score(*judged["test"])))
            advance(1)
    return learning_curve(points, split.test.valid, split.test.groups)


def measured(
    form: Form,
    judged: Mapping[str, Judged],
    split: Split,
    critics: Mapping[int, EncoderCritic],
    curve: LearningCurve | None,
    *,
    metrics: Mapping[str, Statistic],
    interval: Callable[..., tuple[float, float]],
) -> dict[str, Any]:
    """How the critics and the baselines do on the test lines.

    Args:
        critics: by seed; the first is the one that is kept.
        metrics: by name; "auc" among them, by which critics and baselines are compared.
        interval: `evaluation.metrics.bootstrap_interval`.
    """
    valid, groups, auc = split.test.valid, split.test.groups, metrics["auc"]
    scores = {seed: one.score(*judged["test"]) for seed, one in critics.items()}
    first = next(iter(scores.values()))
    theirs = baseline_scores(form, judged["train"], split.train.valid, judged["test"])

    def of(metric: Statistic, ours: NDArray[np.float64]) -> Callable[[Any], float]:
        return lambda rows: metric(ours[rows], valid[rows])

    def lead(their: NDArray[np.float64]) -> Callable[[Any], float]:
        return lambda rows: of(auc, first)(rows) - of(auc, their)(rows)

    def ranged(statistic: Callable[[Any], float]) -> dict[str, float]:
        return _ranged(statistic, valid, groups, interval)

    baselines = {
        name: {"auc": auc(their, valid), "difference": ranged(lead(their))}
        for name, their in theirs.items()
    }
    return {
        "test": {name: ranged(of(metric, first)) for name, metric in metrics.items()},
        "auc_by_seed": {seed: auc(one, valid) for seed, one in scores.items()},
        "baselines": baselines,
        "sentences": [
            *said_alike(form, judged, first),
            verdict(baselines),
            *([curve.sentence] if curve else []),
        ],
        "curve": None if curve is None else {"labels": curve.labels, "auc": curve.auc},
    }


def alike(scores: NDArray[np.float64]) -> bool:
    """Whether scores (N,) of several lines tell none from another."""
    return len(scores) > 1 and float(np.ptp(scores)) < 1e-6


def said_alike(form: Form, judged: Mapping[str, Judged], scores: NDArray[np.float64]) -> list[str]:
    """What to say where scores (N,) of the test lines, or numbers beside texts, are all alike."""
    said = []
    if alike(scores):
        said.append(
            f"All test lines have the same score, {scores[0]:.2f}: it tells no line from another. "
            "Label more lines, or try another encoder."
        )
    beside = [one.numbers for one in judged.values() if one.numbers is not None]
    for place, name in enumerate(form.numbers):
        if beside and not np.ptp(np.concatenate(beside)[:, place]):
            said.append(f"All lines have the same {name}: it says nothing; leave it out.")
    return said


def _ranged(
    statistic: Callable[[Any], float],
    valid: NDArray[np.bool_],
    groups: Sequence[Hashable],
    interval: Callable[..., tuple[float, float]],
) -> dict[str, float]:
    low, high = interval(valid, groups, statistic=statistic, n=500)
    return {"value": statistic(slice(None)), "low": low, "high": high}
