"""What `skd` judges with: labelled triples, the critic and its filter levels, a second judge.

Labels are split by head: half train the critic, a quarter calibrates it and sets the cuts, a
quarter trains the judge of the second kind. "unsure" trains nothing and counts as invalid where a
precision is stated. The published code of Symbolic Knowledge Distillation trains on "no judgement"
as if it were invalid, and averages the cut of its validation curve with that of its test curve;
here a cut is read off the calibration labels alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symdistill.critic import (
    DecoderJudge,
    EncoderCritic,
    Label,
    check_splits,
    choose_cut,
    split_by_concept,
)
from symdistill.critic.encoder import Calibration
from symdistill.critic.labels import Split
from symdistill.datafiles import read_rows
from symdistill.errors import InputError
from symdistill.evaluation.metrics import bootstrap_interval
from symdistill.evaluation.rounds import JUDGE_CUT
from symdistill.models import resolve
from symdistill.pool import words_of
from symdistill.recipes._judging import ranking_report
from symdistill.recipes._skd_settings import (
    UNFILTERED,
    Level,
    SKDConfig,
    TripleCriticSettings,
)
from symdistill.records import Knowledge, normalise
from symdistill.relations import Relation, with_names
from symdistill.run import Run, StoredFolder

SHARES: Mapping[Split, float] = {"train": 0.5, "calibration": 0.25, "judge": 0.25}
PACKAGED = ("events",)

Triple = tuple[str, str, str]  # head, relation, tail


@dataclass(frozen=True)
class Labels:
    """Labelled triples, each with its split."""

    triples: tuple[Triple, ...]
    labels: tuple[Label, ...]

    def of(self, split: Split, *, usable: bool = False) -> list[int]:
        """Places of the labels of a split; `usable`: without "unsure"."""
        return [
            i for i, one in enumerate(self.labels)
            if one.split == split and (one.usable or not usable)
        ]  # fmt: skip

    @cached_property
    def heads(self) -> frozenset[str]:
        """The heads that have labels, normalised."""
        return frozenset(normalise(head) for head, _, _ in self.triples)

    @property
    def identity(self) -> list[list[str]]:
        """What a fingerprint covers."""
        return [
            [*triple, one.label, one.split or ""]
            for triple, one in zip(self.triples, self.labels, strict=True)
        ]


def read_triple_labels(source: str, relations: Mapping[str, Relation]) -> Labels:
    """The labelled triples of a file, split by head.

    Raises:
        InputError: a row lacks something, names a relation that the schema has not, contradicts
            another; a head is in two splits; or a split is too small or of one class.
    """
    path = Path(source)
    if source in PACKAGED:
        path = Path(str(files("symdistill") / "data" / "labels" / f"{source}.jsonl"))
    found: dict[Triple, tuple[Triple, Label, int]] = {}
    home: dict[str, tuple[str | None, int]] = {}
    for number, row in read_rows(path, what="labelled triples"):
        where = f"{path}, row {number}"
        if isinstance(row, str):
            raise InputError(f"expected a labelled triple at {where}; it {row}; mend it")
        triple = (
            _text(row, "head", where),
            _text(row, "relation", where),
            _text(row, "tail", where),
        )
        head, name, tail = triple
        if name not in relations:
            raise InputError(
                f"expected a relation among {', '.join(relations)} at {where}; got {name!r}; add "
                "it to the schema or leave the row out"
            )
        word = words_of(_text(row, "label", where))
        if word is None:
            raise InputError(
                f"expected valid, invalid or unsure as label at {where}; got {row['label']!r}"
            )
        label = Label(relations[name].verbalise(head, tail), head, word, row.get("split"))
        key = (normalise(head), name, normalise(tail))
        if key in found and found[key][1].label != word:
            raise InputError(
                f"{where}: {label.text!r} is labelled {word} here and {found[key][1].label} on row "
                f"{found[key][2]}; decide which, or write unsure"
            )
        split, first = home.setdefault(key[0], (label.split, number))
        if split != label.split:
            raise InputError(
                f"{where}: head {head!r} is in split {label.split!r} here and in {split!r} on row "
                f"{first}; give all its rows one split"
            )
        found.setdefault(key, ((head, name, tail), label, number))
    labels = [label for _, label, _ in found.values()]
    if all(one.split is None for one in labels):
        labels = split_by_concept(labels, SHARES)
    check_splits(labels, ("train", "calibration"), what=str(path))
    return Labels(tuple(triple for triple, _, _ in found.values()), tuple(labels))


def _text(row: Mapping[str, Any], column: str, where: str) -> str:
    value = row.get(column)
    if value is None or not str(value).strip():
        raise InputError(f"expected a text under {column!r} at {where}; got {value!r}; fill it in")
    return " ".join(str(value).split())


@dataclass(frozen=True)
class TripleCritic:
    """The fitted critic: scores triples, whoever wrote them."""

    stored: StoredFolder
    scorer: EncoderCritic
    relations: Mapping[str, Relation]
    settings: TripleCriticSettings

    @property
    def name(self) -> str:
        """The judge's name in verdicts."""
        return f"critic@{self.scorer.version[:12]}"

    def score(self, triples: Sequence[Triple]) -> NDArray[np.float64]:
        """(N,) the mean score over several draws of names, 0..1."""
        return scores(self.scorer, triples, self.relations, self.settings)


@dataclass(frozen=True)
class TripleJudge:
    """The judge of the second kind."""

    stored: StoredFolder
    scorer: DecoderJudge
    relations: Mapping[str, Relation]

    @property
    def name(self) -> str:
        """The judge's name in verdicts."""
        return f"judge@{self.scorer.version[:12]}"

    def score(self, triples: Sequence[Triple]) -> NDArray[np.float64]:
        """(N,) scores, 0..1; from 0.5 on a triple is accepted."""
        return self.scorer.score([wording(one, self.relations) for one in triples])


@dataclass(frozen=True)
class CutLevel:
    """A filter level with its cut; None keeps everything."""

    name: str
    cut: float | None
    report: Mapping[str, Any]

    def keeps(self, score: float | None) -> bool:
        """Whether a triple of this score passes."""
        return self.cut is None or (score is not None and score >= self.cut)


def wording(triple: Triple, relations: Mapping[str, Relation], draw: int = 0) -> str:
    """A triple as a sentence about people with names."""
    head, name, tail = triple
    relation = relations[name]
    return with_names(relation.verbalise(head, tail), relation.people(head, draw))


def reading(
    triple: Triple, relations: Mapping[str, Relation], settings: TripleCriticSettings, draw: int = 0
) -> Any:
    """What the critic reads of a triple: a sentence, or a pair of texts."""
    if settings.reads == "sentence":
        return wording(triple, relations, draw)
    head, name, tail = triple
    relation = relations[name]
    people = relation.people(head, draw)
    premise, hypothesis = relation.premise_hypothesis(head, tail)
    return with_names(premise, people), with_names(hypothesis, people)


def scores(
    critic: EncoderCritic,
    triples: Sequence[Triple],
    relations: Mapping[str, Relation],
    settings: TripleCriticSettings,
) -> NDArray[np.float64]:
    """(N,) the mean of `passes` scores, each with other names."""
    passes = settings.passes if any(one.names for one in relations.values()) else 1
    drawn = [
        critic.score([reading(one, relations, settings, draw) for one in triples])
        for draw in range(passes)
    ]
    return np.asarray(np.mean(drawn, axis=0), dtype=np.float64)


def fit_triple_critic(
    run: Run, config: SKDConfig, labels: Labels, relations: Mapping[str, Relation]
) -> TripleCritic:
    """The critic, fitted on the labels of the split "train" and calibrated on "calibration"."""
    settings = config.critic
    assert settings is not None
    encoder = resolve(settings.encoder)

    def part(rows: Sequence[int]) -> tuple[list[Any], NDArray[np.bool_], list[str]]:
        return (
            [reading(labels.triples[i], relations, settings) for i in rows],
            np.array([labels.labels[i].valid for i in rows]),
            [normalise(labels.triples[i][0]) for i in rows],
        )

    def make(folder: Path) -> Mapping[str, Any]:
        texts, valid, heads = part(labels.of("train", usable=True))
        held, held_valid, held_heads = part(labels.of("calibration"))
        with run.progress.stage("fit the critic", 1, "critic") as advance:
            critic = EncoderCritic.fit(
                texts,
                None,
                valid,
                heads,
                encoder=encoder.folder,
                calibration=Calibration(held, None, held_valid),
                settings=settings.training,
                seed=config.seed,
            )
            advance(1)
        critic.save(folder)
        found = scores(critic, [labels.triples[i] for i in labels.of("calibration")], relations,
                       settings)  # fmt: skip
        return {
            "version": critic.version,
            "labels": {split: len(labels.of(split)) for split in SHARES},
            "labelled_valid_share": float(np.mean([one.valid for one in labels.labels])),
            **ranking_report(found, held_valid, held_heads, config.seed),
            "calibration": {
                "scores": found.tolist(), "valid": held_valid.tolist(), "heads": held_heads,
            },
        }  # fmt: skip

    stored = run.folder_step(
        "critics",
        make,
        stage="critic",
        encoder=encoder,
        labels=labels.identity,
        relations=list(relations.values()),
        training=settings.training,
        reads=[settings.reads, settings.passes],
        seed=config.seed,
    )
    return TripleCritic(stored, EncoderCritic.load(stored.folder), relations, settings)


def fit_triple_judge(
    run: Run, config: SKDConfig, labels: Labels, relations: Mapping[str, Relation]
) -> TripleJudge | None:
    """The judge of the second kind, or None where it is not wanted or has too few labels."""
    if config.judge is None:
        return None
    try:
        check_splits(labels.labels, ("judge",))
    except InputError as error:
        run.progress.say(f"no judge of a second kind, so students are not rated: {error}")
        return None
    settings = config.judge
    model = resolve(settings.model)
    texts = [wording(one, relations) for one in labels.triples]
    heads = [normalise(head) for head, _, _ in labels.triples]
    valid = np.array([one.valid for one in labels.labels])

    def make(folder: Path) -> Mapping[str, Any]:
        rows, tested = labels.of("judge", usable=True), labels.of("calibration")
        with run.progress.stage("fit the judge", 1, "judge") as advance:
            judge = DecoderJudge.fit(
                [texts[i] for i in rows],
                None,
                valid[rows],
                [heads[i] for i in rows],
                model=model.folder,
                settings=settings.training,
                seed=config.seed,
            )
            advance(1)
        judge.save(folder)
        return {
            "version": judge.version,
            "what": f"{model.note}: hidden states and a logistic regression",
            "labels": len(rows),
            "cut": JUDGE_CUT,
            **ranking_report(
                judge.score([texts[i] for i in tested]),
                valid[tested],
                [heads[i] for i in tested],
                config.seed,
            ),
        }

    stored = run.folder_step(
        "judge",
        make,
        stage="judge",
        model=model,
        training=settings.training,
        labels=labels.identity,
        texts=texts,
        seed=config.seed,
    )
    return TripleJudge(stored, DecoderJudge.load(stored.folder, model=model.folder), relations)


def cut_levels(run: Run, config: SKDConfig, critic: TripleCritic | None) -> list[CutLevel]:
    """The filter levels, the strictest first; the last keeps everything."""
    levels: list[CutLevel] = []
    if critic is not None and config.critic is not None:
        known = critic.stored.notes["calibration"]
        s, y = np.array(known["scores"]), np.array(known["valid"], dtype=bool)
        for level in config.critic.levels:
            levels.append(cut_level(level, s, y, known["heads"], config.seed))
            if not levels[-1].report["reached"]:
                run.progress.say(
                    f"no cut reaches precision {level.precision:.2f} of the level {level.name!r} "
                    "on the labelled triples; the best there is, "
                    f"{levels[-1].report['precision_on_labels']:.2f}, is used"
                )
        levels.sort(key=lambda one: -(one.cut or 0.0))
    return [*levels, CutLevel(UNFILTERED, None, {})]


def cut_level(
    level: Level,
    scores: NDArray[np.float64],
    valid: NDArray[np.bool_],
    heads: Sequence[str],
    seed: int,
) -> CutLevel:
    """The loosest cut that reaches a precision, or the strictest that reaches a recall."""
    if level.precision is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # told by the caller: reached
            cut = choose_cut(scores, valid, heads, target_precision=level.precision,
                             n_bootstrap=200, seed=seed)  # fmt: skip
        threshold, reached = cut.threshold, cut.reached
    else:
        assert level.recall is not None
        of_valid = np.sort(scores[valid])[::-1]
        threshold = float(of_valid[max(1, int(np.ceil(level.recall * len(of_valid)))) - 1])
        reached = True
    above = scores >= threshold
    low, high = bootstrap_interval(
        valid[above], [head for head, one in zip(heads, above, strict=True) if one], seed=seed
    )
    return CutLevel(
        level.name,
        threshold,
        {
            "aim": {"precision": level.precision, "recall": level.recall},
            "reached": reached,
            "cut": threshold,
            "precision_on_labels": float(valid[above].mean()),
            "precision_on_labels_interval": [low, high],
            "recall_on_labels": float(valid[above].sum() / valid.sum()),
            "labels_above": int(above.sum()),
        },
    )


def triple_of(line: Knowledge) -> Triple:
    """Head, relation and tail of a line."""
    return line.fields["head"], line.fields["relation"], line.fields["tail"]
