"""What recipes share about judging: a critic fitted on labels, its cut, and a second opinion.

Takes a run, settings and the untouched model; gives a `Critic` with its cut, or a `Judge`. Fitting
is a step of the run: done once, taken from disk after that. The stages do the work; this file
asks them in order and says what the report needs to know.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from symdistill.config import Settings
from symdistill.critic import (
    DecoderJudge,
    EncoderCritic,
    EncoderSettings,
    JudgeSettings,
    Label,
    check_splits,
    choose_cut,
    likelihood_scores,
    negation_scores,
    read_labels,
    split_by_concept,
)
from symdistill.critic.encoder import Calibration
from symdistill.critic.labels import Split
from symdistill.evaluation.metrics import (
    auc,
    average_precision,
    bootstrap_interval,
    expected_calibration_error,
    precision_recall_curve,
    reliability,
)
from symdistill.evaluation.rounds import JUDGE_CUT
from symdistill.models import resolve
from symdistill.run import Run, StoredFolder
from symdistill.teachers import LocalTeacher

SHARES: Mapping[Split, float] = {"train": 0.5, "calibration": 0.16, "test": 0.14, "judge": 0.2}
"""Of the concepts, where labels name no split."""


class CriticSettings(Settings):
    """The judge that decides what is kept."""

    encoder: str = "embedded:minilm"
    """A model name: embedded:NAME, a folder, or a hub id with @revision."""

    labels: tuple[str, ...] = ("everyday",)
    """Labelled statements: "everyday" (packaged) and JSONL files. A label with `round: r` is used
    from round r on; the critic is fitted again in rounds that bring new ones."""

    target_precision: Annotated[float, Field(gt=0, le=1)] = 0.6
    """The cut is the loosest at which this share of labelled lines is valid (0..1)."""

    training: EncoderSettings = EncoderSettings()
    """How the encoder is fine-tuned."""


class IndependentJudgeSettings(Settings):
    """A second opinion that decides nothing: another architecture, other labels."""

    model: str = "embedded:smollm2"
    """A causal language model whose hidden states are read."""

    labels: tuple[str, ...] = ("everyday",)
    """Labelled statements of which the split "judge" is read."""

    training: JudgeSettings = JudgeSettings()
    """How it is fitted."""


@dataclass(frozen=True)
class Critic:
    """A fitted critic, where it lies, and the cut chosen with it."""

    stored: StoredFolder
    scorer: EncoderCritic
    report: Mapping[str, Any]  # AUC and the like on held-out concepts, and the cut

    @property
    def cut(self) -> float:
        """The score from which a line is accepted."""
        return float(self.report["cut"])

    def shortfall(self) -> str:
        """What to say when no cut reaches the target precision."""
        return (
            f"no cut reaches critic.target_precision {self.report['target_precision']:.2f} on the "
            f"labelled lines; the best there is, {self.report['cut_precision']:.2f}, is used: "
            "lower the target, or label more statements"
        )

    @property
    def name(self) -> str:
        """The judge's name in verdicts."""
        return f"critic@{self.scorer.version[:12]}"


@dataclass(frozen=True)
class Judge:
    """The independent judge, and what the report says of it."""

    scorer: DecoderJudge
    report: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The judge's name in verdicts."""
        return f"judge@{self.scorer.version[:12]}"


def fit_critic(
    run: Run,
    settings: CriticSettings,
    seed: int,
    untouched: LocalTeacher,
    number: int,
    before: Critic | None,
) -> Critic:
    """The critic of a round: fitted in round 0, and again in rounds that bring new labels."""
    labels = [
        one
        for one in split_labels(settings.labels, ("train", "calibration"))
        if one.round <= number and one.split != "judge"
    ]
    if before is not None and all(one.round < number for one in labels):
        return before
    encoder = resolve(settings.encoder)

    def likelihood() -> Mapping[str, Any]:
        with run.progress.stage("likelihood of labelled lines", len(labels), "lines") as advance:
            found = untouched.logprobs(
                [one.prompt if one.continuation and one.prompt else "" for one in labels],
                [(one.prompt and one.continuation) or one.text for one in labels],
                advance=advance,
                count_tokens=run.count_tokens,
            )
        return {"logprob": [one.total for one in found], "tokens": [one.tokens for one in found]}

    told = [[one.text, one.prompt, one.continuation] for one in labels]
    measured = run.values(
        "labels",
        likelihood,
        stage="critic",
        round=number,
        labels=told,
        model=untouched,
        batch_size=untouched.batch_size,
    )
    rows = features([(measured["logprob"][i], measured["tokens"][i]) for i in range(len(labels))])
    part = {
        split: [i for i, one in enumerate(labels) if one.split == split]
        for split in ("train", "calibration", "test")
    }

    def columns(split: str, *, usable: bool) -> tuple[list[str], Any, Any, list[str]]:
        chosen = [i for i in part[split] if labels[i].usable or not usable]
        return (
            [labels[i].text for i in chosen],
            rows[chosen],
            np.array([labels[i].valid for i in chosen]),
            [labels[i].concept for i in chosen],
        )

    def make(folder: Path) -> Mapping[str, Any]:
        with run.progress.stage(f"fit the critic, round {number}", 1, "critic") as advance:
            critic = EncoderCritic.fit(
                *columns("train", usable=True),
                calibration=Calibration(*columns("calibration", usable=False)[:3]),
                encoder=encoder.folder,
                settings=settings.training,
                seed=seed,
            )
            advance(1)
        critic.save(folder)
        counts = {split: len(chosen) for split, chosen in part.items()}
        return {
            "round": number,
            "version": critic.version,
            "labels": counts,
            **cut_report(critic, columns("calibration", usable=False), settings, seed),
            **held_out_report(critic, columns("test", usable=False), seed),
        }

    stored = run.folder_step(
        "critics",
        make,
        stage="critic",
        round=number,
        encoder=encoder,
        seed=seed,
        labels=[[one.text, one.concept, one.label, one.split] for one in labels],
        features=measured,
        training=settings.training,
        target=settings.target_precision,
    )
    return Critic(stored, EncoderCritic.load(stored.folder), stored.notes)


def cut_report(
    critic: EncoderCritic,
    calibration: tuple[list[str], Any, Any, list[str]],
    settings: CriticSettings,
    seed: int,
) -> dict[str, Any]:
    """The cut, and the labelled scores by which precision is estimated later."""
    texts, rows, valid, concepts = calibration
    scores = critic.score(texts, rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said in the report: target_reached
        cut = choose_cut(
            scores, valid, concepts, target_precision=settings.target_precision, seed=seed
        )
    return {
        "cut": cut.threshold,
        "target_precision": cut.target_precision,
        "target_reached": cut.reached,
        "cut_precision": cut.precision,
        "cut_precision_interval": [cut.low, cut.high],
        "cut_recall": cut.recall,
        "calibration": {
            "scores": scores.tolist(), "valid": valid.tolist(), "concepts": concepts,
        },
    }  # fmt: skip


def held_out_report(
    critic: EncoderCritic, test: tuple[list[str], Any, Any, list[str]], seed: int
) -> dict[str, Any]:
    """How well the critic does on concepts it has not seen, beside two baselines."""
    texts, rows, valid, concepts = test
    scores = critic.score(texts, rows)
    ranking = ranking_report(scores, valid, concepts, seed)
    if ranking["auc"] is None:
        return {**ranking, "auc_likelihood": None, "auc_negation": None}
    curve = precision_recall_curve(scores, valid)
    return {
        **ranking,
        "auc_likelihood": auc(likelihood_scores(rows[:, 0]), valid),
        "auc_negation": auc(negation_scores(texts), valid),
        "average_precision": average_precision(scores, valid),
        "ece": expected_calibration_error(scores, valid),
        "pr_curve": {
            "precision": curve.precision, "recall": curve.recall, "threshold": curve.threshold,
        },
        "reliability": reliability(scores, valid),
    }  # fmt: skip


def ranking_report(
    scores: NDArray[np.float64], valid: NDArray[np.bool_], concepts: Sequence[str], seed: int
) -> dict[str, Any]:
    """AUC with its interval, concepts drawn whole; None without lines of both classes."""
    if not len(scores) or valid.all() or not valid.any():
        return {"auc": None, "auc_interval": None}
    low, high = bootstrap_interval(
        scores, concepts, statistic=lambda drawn: auc(scores[drawn], valid[drawn]), seed=seed
    )
    return {"auc": auc(scores, valid), "auc_interval": [low, high]}


def fit_judge(run: Run, settings: IndependentJudgeSettings | None, seed: int) -> Judge | None:
    """The second opinion: another architecture, trained on the labels of the split "judge"."""
    if settings is None:
        return None
    known = split_labels(settings.labels, ("judge",))
    labels = [one for one in known if one.split == "judge" and one.usable]
    tested = [one for one in known if one.split == "test"]
    model = resolve(settings.model)
    what = f"{model.note}: hidden states and a logistic regression"

    def make(folder: Path) -> Mapping[str, Any]:
        with run.progress.stage("fit the judge", 1, "judge") as advance:
            judge = DecoderJudge.fit(
                [one.text for one in labels],
                None,
                np.array([one.valid for one in labels]),
                [one.concept for one in labels],
                model=model.folder,
                settings=settings.training,
                seed=seed,
            )
            advance(1)
        judge.save(folder)
        counts = {"train": len(labels), "test": len(tested)}
        return {
            "version": judge.version,
            "what": what,
            "labels": counts,
            "cut": JUDGE_CUT,
            **ranking_report(
                judge.score([one.text for one in tested]),
                np.array([one.valid for one in tested]),
                [one.concept for one in tested],
                seed,
            ),
        }

    stored = run.folder_step(
        "judge",
        make,
        stage="judge",
        model=model,
        seed=seed,
        training=settings.training,
        labels=[[one.text, one.concept, one.label, one.split or ""] for one in [*labels, *tested]],
    )
    return Judge(DecoderJudge.load(stored.folder, model=model.folder), stored.notes)


def label_files(sources: Sequence[str]) -> list[Path]:
    """The files of labelled statements; "everyday" is the packaged one."""
    packaged = Path(str(files("symdistill") / "data" / "labels" / "everyday.jsonl"))
    return [packaged if source == "everyday" else Path(source) for source in sources]


def split_labels(sources: Sequence[str], needed: Sequence[Split]) -> list[Label]:
    """The labels of the sources; those that name no split get one, drawn by concept."""
    labels = read_labels(label_files(sources), needed=needed)
    if all(one.split is None for one in labels):
        labels = split_by_concept(labels, SHARES)
        check_splits(labels, needed, what=", ".join(sources))
    return labels


def features(likelihoods: Sequence[tuple[float, int]]) -> NDArray[np.float64]:
    """(N, 2) what the critic reads beside the text: nats per token, and nats in all."""
    return np.array([[total / max(tokens, 1), total] for total, tokens in likelihoods]).reshape(
        -1, 2
    )
