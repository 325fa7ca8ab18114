"""`symdistill critic`: fit a judge on labelled lines, and score lines with it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from symdistill.errors import InputError, RunError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from symdistill.critic import EncoderCritic, EncoderSettings
    from symdistill.critic.examples import Examples, Split
    from symdistill.critic.forms import Form
    from symdistill.critic.learning_curve import LearningCurve
    from symdistill.critic.reading import Text
    from symdistill.datafiles import Row
    from symdistill.progress import Progress

    Judged = tuple[list[Text], NDArray[np.float64] | None]

app = typer.Typer(
    help="Fit a judge on labelled lines, and score lines with it.", no_args_is_help=True
)
out = Console(markup=False, highlight=False, emoji=False)

Source = Annotated[Path, typer.Argument(metavar="FILE", help="A table, or a run folder.")]
TextColumn = Annotated[str | None, typer.Option(help="The column of the text. Default: text.")]
QuestionColumn = Annotated[str | None, typer.Option(help="The column of what the text answers.")]
OtherColumn = Annotated[str | None, typer.Option(help="The column of the second text of a pair.")]
HeadColumn = Annotated[str | None, typer.Option(help="The column of a triple's head.")]
RelationColumn = Annotated[str | None, typer.Option(help="The column of a triple's relation.")]
TailColumn = Annotated[str | None, typer.Option(help="The column of a triple's tail.")]


@app.command()
def fit(
    source: Source,
    text: TextColumn = None,
    label: Annotated[
        str | None,
        typer.Option(help="The column of labels. Default: what `symdistill label` collected."),
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="The column of what belongs together, e.g. the concept.")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            help="statement, pair, rationale, triple or entailment. Default: by the columns named."
        ),
    ] = None,
    question: QuestionColumn = None,
    other: OtherColumn = None,
    head: HeadColumn = None,
    relation: RelationColumn = None,
    tail: TailColumn = None,
    relations: Annotated[
        str, typer.Option(help="How relations are worded: events (packaged), or a YAML file.")
    ] = "events",
    number: Annotated[
        list[str] | None,
        typer.Option(help="A column of numbers to read beside the text, e.g. a likelihood."),
    ] = None,
    likelihood: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Read the likelihood by this language model, too."),
    ] = None,
    id_: Annotated[
        str | None, typer.Option("--id", help="The column of ids that the labels were drawn with.")
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="embedded:NAME, a model folder or a hub id; small causal, too.")
    ] = "embedded:minilm",
    trainable: Annotated[str, typer.Option(help="What is trained: full, top or lora.")] = "full",
    epochs: Annotated[int, typer.Option(min=1, help="The best one is kept.")] = 3,
    learning_rate: Annotated[
        float | None, typer.Option(help="Default: by the encoder's width.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=4, help="Tokens read. Default: 64; of pairs 128.")
    ] = None,
    seeds: Annotated[
        str, typer.Option(help="Seeds to fit with, e.g. 1,2,3. The first one's critic is kept.")
    ] = "1",
    curve: Annotated[
        bool, typer.Option("--curve", help="Say what more labels would buy (4 times the work).")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Default: FILE.symdistill/critic.")
    ] = None,
) -> None:
    """Fit a critic on labelled lines, say how good it is, and keep it.

    A fifth of the lines tests it and a fifth calibrates it; no group is in two parts.
    """
    start = time.perf_counter()
    _prepare_torch()
    from symdistill.critic.examples import read_examples, split_examples
    from symdistill.critic.forms import Form
    from symdistill.pool import home_of
    from symdistill.progress import ConsoleProgress

    target = folder or home_of(source) / "critic"
    _expect_free(target)
    wanted = _seeds(seeds)
    columns = {"text": text, "question": question, "other": other, "head": head,
               "relation": relation, "tail": tail}  # fmt: skip
    read = Form.of(
        columns, name=form, relations=relations, numbers=number or (), likelihood=likelihood
    )
    needed = [*read.columns.values(), *read.numbers, *(one for one in (label, group) if one)]
    labels = label or _store_labels(source, text or "text", question, id_)
    if source.is_dir():
        group = group or "group"
    examples = read_examples(
        _rows(source, needed), read, label=labels, group=group, source=str(source)
    )
    split = split_examples(examples)
    model, settings = _settings(encoder, trainable, epochs, learning_rate, max_length, read)
    out.print(_told_data(examples, split, group), soft_wrap=True)

    progress = ConsoleProgress(out)
    judged = {
        name: _judged(read, part.texts, part.numbers, progress)
        for name, part in split._asdict().items()
    }
    critics = []
    with progress.stage("fit the critic", len(wanted), "seeds") as advance:
        for seed in wanted:
            critics.append(_fit(judged, split, model, settings, seed))
            advance(1)
    bought = _curve(critics[0], judged, split, model, settings, progress) if curve else None
    report = {
        "source": str(source), "folder": str(target), "version": critics[0].version,
        "form": read.name, "columns": dict(read.columns), "group": group, "encoder": encoder,
        "numbers": list(read.numbers), "likelihood": likelihood,
        "trainable": settings.trainable, "settings": settings.model_dump(),
        "parts": _counts(split), "left_out": dict(examples.left_out),
        **_measured(read, judged, split, critics, wanted, bought),
        "seconds": round(time.perf_counter() - start, 1),
    }  # fmt: skip
    _save(target, critics[0], read, report)
    _tell(report, bought)
    out.print(f"Wrote {target}. Next: symdistill critic score FILE --critic {target}",
              soft_wrap=True)  # fmt: skip


@app.command()
def score(
    source: Source,
    critic: Annotated[
        Path | None, typer.Option(help="The critic's folder. Default: FILE.symdistill/critic.")
    ] = None,
    text: TextColumn = None,
    question: QuestionColumn = None,
    other: OtherColumn = None,
    head: HeadColumn = None,
    relation: RelationColumn = None,
    tail: TailColumn = None,
    column: Annotated[str, typer.Option(help="The column to write the scores to.")] = "score",
    target: Annotated[
        Path | None, typer.Option("--out", help="The table to write. Default: FILE.scored.SUFFIX.")
    ] = None,
) -> None:
    """Write the same table with one more column: how likely each line is valid, 0 to 1."""
    _prepare_torch()
    from symdistill.critic import EncoderCritic
    from symdistill.critic.forms import Form
    from symdistill.datafiles import expect_columns, write_rows
    from symdistill.pool import home_of
    from symdistill.progress import ConsoleProgress

    where = critic or home_of(source) / "critic"
    written = target or _beside(source)
    if written.resolve() == source.resolve():
        raise InputError(f"expected another file to write than {source}; name another as --out")
    judge = EncoderCritic.load(where)
    columns = {"text": text, "question": question, "other": other, "head": head,
               "relation": relation, "tail": tail}  # fmt: skip
    read = Form.load(where, judge.version).over(columns)
    needed = [*read.columns.values(), *read.numbers]
    rows = _rows(source, needed)
    good = [(number, row) for number, row in rows if not isinstance(row, str)]
    names = list(dict.fromkeys(name for _, row in good for name in row))
    if names:
        expect_columns(needed, names, source)
    if column in names:
        raise InputError(
            f"expected a new column for the scores; {source} has {column!r} already; name another "
            "with --column"
        )
    texts, numbers, places = [], [], []
    for place, (number, row) in enumerate(good):
        said = read.read(row, f"row {number} of {source}")
        beside = read.read_numbers(row)
        if said is not None and beside is not None:
            texts.append(said)
            numbers.append(beside)
            places.append(place)
    if not texts:
        raise InputError(f"expected at least one line to score in {source}; got none")
    import numpy as np

    progress = ConsoleProgress(out)
    judged = _judged(read, texts, np.array(numbers).reshape(len(texts), -1), progress)
    with progress.stage("score", len(texts), "lines") as advance:
        scores = dict(zip(places, judge.score(*judged, advance=advance).tolist(), strict=True))
    blank = dict.fromkeys(_header(source))
    count = write_rows(
        written,
        ({**blank, **row, column: scores.get(place)} for place, (_, row) in enumerate(good)),
    )
    out.print(f"Wrote {written}: {len(scores):,} of {count:,} lines with a {column}.",
              soft_wrap=True)  # fmt: skip
    if empty := count - len(scores):
        out.print(f"Lines without one: {empty:,}; something that is judged is empty there.")
    if lost := len(rows) - len(good):
        why = next(row for _, row in rows if isinstance(row, str))
        out.print(f"Rows left out: {lost:,} that could not be read; the first {why}.")


# -- reading ------------------------------------------------------------------------------------


def _rows(source: Path, needed: Sequence[str]) -> list[tuple[int, Row]]:
    """The numbered rows of a table, or of what a run kept."""
    from symdistill.datafiles import read_rows
    from symdistill.pool import read_pool

    if not source.is_dir():
        return list(read_rows(source, needed, what="lines"))
    return [
        (
            one.number,
            {
                **one.fields,
                "id": one.id,
                "text": one.text,
                "question": one.question,
                "group": one.group,
            },
        )
        for one in read_pool(source).lines
    ]


def _store_labels(source: Path, text: str, question: str | None, id_: str | None) -> dict[int, str]:
    """What people said of the lines that were drawn for training, by row."""
    from symdistill.labelling.store import LabelStore
    from symdistill.pool import home_of, read_pool

    with LabelStore(home_of(source), read_only=True) as store:
        said = {
            line: word
            for draw in store.draws("train")
            for line, word in store.verdicts(draw.id).items()
        }
    if not said:
        raise InputError(
            f"expected labels to learn from; {source} has none that were drawn for training; name "
            "the column they are in with --label, or label some: symdistill label --help"
        )
    pool = read_pool(source, text=text, question=question, id=id_, withdrawn=True)
    found = {one.number: said[one.id] for one in pool.lines if one.id in said}
    if not found:
        raise InputError(
            f"expected the lines that were labelled in {source}; none of the {len(said):,} is "
            "there; give the --text, --question and --id that they were drawn with"
        )
    return found


def _header(source: Path) -> list[str]:
    """The columns of a CSV, the empty ones too; of other tables the rows name them all."""
    if source.suffix.lower() != ".csv":
        return []
    with source.expanduser().open(encoding="utf-8-sig", newline="") as lines:
        return next(csv.reader(lines), [])


def _judged(
    form: Form, texts: list[Text], numbers: NDArray[np.float64], progress: Progress
) -> Judged:
    """What the critic reads of the lines: texts, and the numbers beside them (N, F) or none."""
    import numpy as np

    if not form.likelihood:
        return texts, numbers if numbers.shape[1] else None
    from symdistill.models import resolve
    from symdistill.teachers import LocalTeacher

    teacher = LocalTeacher(resolve(form.likelihood))
    before = ["" if isinstance(one, str) else f"{one[0]}\n" for one in texts]
    after = [one if isinstance(one, str) else one[1] for one in texts]
    with progress.stage("likelihood", len(texts), "lines") as advance:
        found = teacher.logprobs(before, after, advance=advance)
    nats = np.array([[one.total / max(one.tokens, 1), one.total] for one in found])
    return texts, np.concatenate([numbers, nats], axis=1)


# -- fitting ------------------------------------------------------------------------------------


def _settings(
    encoder: str,
    trainable: str,
    epochs: int,
    learning_rate: float | None,
    max_length: int | None,
    form: Form,
) -> tuple[Path, EncoderSettings]:
    """The encoder's folder, and how it is trained."""
    from transformers import AutoConfig

    from symdistill.critic import EncoderSettings
    from symdistill.critic.training import usual_learning_rate
    from symdistill.models import resolve

    if trainable not in ("full", "top", "lora"):
        raise InputError(f"expected --trainable full, top or lora; got {trainable!r}; use one")
    folder = resolve(encoder).folder
    width = getattr(AutoConfig.from_pretrained(folder, local_files_only=True), "hidden_size", 768)
    pairs = form.name in ("pair", "rationale", "entailment")
    return folder, EncoderSettings(
        epochs=epochs,
        learning_rate=learning_rate or usual_learning_rate(width, trainable),
        max_length=max_length or (128 if pairs else 64),
        trainable=trainable,
        weigh_numbers=True,
    )


def _fit(
    judged: Mapping[str, Judged],
    split: Split,
    model: Path,
    settings: EncoderSettings,
    seed: int,
    rows: NDArray[np.intp] | None = None,
) -> EncoderCritic:
    """A critic of all the lines to train on, or of the ones at `rows`."""
    import numpy as np

    from symdistill.critic import EncoderCritic
    from symdistill.critic.encoder import Calibration

    texts, numbers = judged["train"]
    chosen = np.arange(len(texts)) if rows is None else rows
    groups = split.train.groups
    return EncoderCritic.fit(
        [texts[i] for i in chosen],
        None if numbers is None else numbers[chosen],
        split.train.valid[chosen],
        [groups[i] for i in chosen],
        encoder=model,
        calibration=Calibration(*judged["calibration"], split.calibration.valid),
        settings=settings,
        seed=seed,
    )


def _curve(
    critic: EncoderCritic,
    judged: Mapping[str, Judged],
    split: Split,
    model: Path,
    settings: EncoderSettings,
    progress: Progress,
) -> LearningCurve:
    """What more labels would buy."""
    from symdistill.critic.learning_curve import Point, learning_curve, parts

    points = []
    of = parts(split.train.valid, split.train.groups)
    with progress.stage("learning curve", len(of), "fits") as advance:
        for part in of:
            whole = len(part.rows) == len(split.train.lines)
            one = critic if whole else _fit(judged, split, model, settings, part.draw, part.rows)
            points.append(Point(len(part.rows), one.score(*judged["test"])))
            advance(1)
    return learning_curve(points, split.test.valid, split.test.groups)


def _measured(
    form: Form,
    judged: Mapping[str, Judged],
    split: Split,
    critics: Sequence[EncoderCritic],
    seeds: Sequence[int],
    curve: LearningCurve | None,
) -> dict[str, Any]:
    """How the critics and the baselines do on the test lines."""
    from symdistill.evaluation.metrics import (
        auc,
        average_precision,
        bootstrap_interval,
        expected_calibration_error,
    )

    valid, groups = split.test.valid, split.test.groups
    scores = [one.score(*judged["test"]) for one in critics]
    first = scores[0]

    def ranged(statistic: Any) -> dict[str, float]:
        low, high = bootstrap_interval(valid, groups, statistic=statistic, n=500)
        return {"value": statistic(slice(None)), "low": low, "high": high}

    baselines = {
        name: {
            "auc": auc(theirs, valid),
            "difference": ranged(
                lambda rows, theirs=theirs: (
                    auc(first[rows], valid[rows]) - auc(theirs[rows], valid[rows])
                )
            ),
        }
        for name, theirs in _baselines(form, judged, split).items()
    }
    by_seed = {seed: auc(one, valid) for seed, one in zip(seeds, scores, strict=True)}
    return {
        "test": {
            "auc": ranged(lambda rows: auc(first[rows], valid[rows])),
            "average_precision": ranged(lambda rows: average_precision(first[rows], valid[rows])),
            "ece": ranged(lambda rows: expected_calibration_error(first[rows], valid[rows])),
        },
        "auc_by_seed": by_seed,
        "baselines": baselines,
        "sentences": [_verdict(baselines), *([curve.sentence] if curve else [])],
        "curve": None if curve is None else {"labels": curve.labels, "auc": curve.auc},
    }


def _baselines(
    form: Form, judged: Mapping[str, Judged], split: Split
) -> dict[str, NDArray[np.float64]]:
    """Scores of the test lines by what reads no meaning."""
    from symdistill.critic.baselines import likelihood_scores, surface_scores, tfidf_scores
    from symdistill.evaluation.metrics import auc

    (train, beside), (test, numbers) = judged["train"], judged["test"]
    valid = split.train.valid
    found = {
        "surface cues": surface_scores(train, valid, test),
        "TF-IDF": tfidf_scores(train, valid, test),
    }
    if beside is not None and numbers is not None:
        for i, name in enumerate(form.numbers):
            upward = auc(beside[:, i], valid) >= 0.5
            found[f"{name} alone"] = numbers[:, i] if upward else -numbers[:, i]
        if form.likelihood:
            found["likelihood"] = likelihood_scores(numbers[:, len(form.numbers)])
    return found


def _verdict(baselines: Mapping[str, Mapping[str, Any]]) -> str:
    """Whether the critic beats what reads no meaning."""
    best, one = max(baselines.items(), key=lambda item: item[1]["auc"])
    more = one["difference"]
    ends = f"{more['low']:+.3f} to {more['high']:+.3f}"
    lead = f"the critic's lead in AUC is {more['value']:+.3f}, {ends}"
    if more["value"] <= 0:
        return f"A baseline wins: {best} ({lead}). Use it, or label more."
    if more["low"] <= 0:
        return f"Not clearly better than the best baseline, {best} ({lead}). Label more."
    return f"Better than the best baseline, {best} ({lead})."


# -- telling and keeping ------------------------------------------------------------------------


def _counts(split: Split) -> dict[str, dict[str, int]]:
    return {
        name: {
            "lines": len(part.lines),
            "valid": int(part.valid.sum()),
            "groups": len(set(part.groups)),
        }
        for name, part in split._asdict().items()
    }


def _told_data(examples: Examples, split: Split, group: str | None) -> str:
    from symdistill.visible import visible

    valid = int(examples.valid.sum())
    sizes = ", ".join(f"{len(part.lines):,} to {what}" for part, what in zip(
        split, ("train on", "calibrate on", "test on"), strict=True))  # fmt: skip
    lines = [
        f"{len(examples.lines):,} labelled lines, {valid:,} of them valid, in "
        f"{len(set(examples.groups)):,} groups: {sizes}."
    ]
    if group is None:
        lines.append("No --group: every line is its own group, so lines that resemble each other "
                     "may be learnt from and tested on.")  # fmt: skip
    if examples.left_out:
        told = ", ".join(f"{rows:,} {visible(why)}" for why, rows in examples.left_out.items())
        lines.append(f"Rows left out: {told}.")
    return "\n".join(lines)


def _tell(report: Mapping[str, Any], curve: LearningCurve | None) -> None:
    from symdistill.critic.card import ranged

    names = {"auc": "AUC", "average_precision": "average precision", "ece": "ECE"}
    for key, name in names.items():
        out.print(f"{name:<18} {ranged(report['test'][key])}")
    for name, one in report["baselines"].items():
        out.print(f"{'AUC of ' + name:<18} {one['auc']:.3f}", soft_wrap=True)
    if len(report["auc_by_seed"]) > 1:
        told = ", ".join(f"{auc:.3f} ({seed})" for seed, auc in report["auc_by_seed"].items())
        out.print(f"AUC by seed        {told}; the first is kept", soft_wrap=True)
    if curve is not None:
        told = ", ".join(
            f"{n:,}: {auc:.3f}" for n, auc in zip(curve.labels, curve.auc, strict=True)
        )
        out.print(f"AUC by labels      {told}", soft_wrap=True)
    for sentence in report["sentences"]:
        out.print(sentence, soft_wrap=True)


def _save(target: Path, critic: EncoderCritic, form: Form, report: Mapping[str, Any]) -> None:
    """Write the critic's folder aside, and put it in the place of an earlier one."""
    from symdistill.critic.card import write_card

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
        try:
            critic.save(aside)
            form.save(aside, critic.version)
            (aside / "report.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
            write_card(aside, report)
            aside.chmod(0o755)
            if target.exists():
                shutil.rmtree(target)
            os.replace(aside, target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise RunError(
            f"expected to write the critic to {target}; got: {error.strerror or error}; choose "
            "another place with --out"
        ) from error


def _expect_free(target: Path) -> None:
    """Refuse to replace anything but an earlier critic."""
    if target.is_dir() and any(target.iterdir()) and not (target / "critic.json").is_file():
        raise InputError(
            f"expected an empty folder, a critic's or a new one for --out; {target} holds other "
            "things; name another"
        )


def _beside(source: Path) -> Path:
    if source.is_dir():
        return source / "lines.scored.jsonl"
    suffix = ".jsonl" if source.suffix.lower() == ".txt" else source.suffix
    return source.with_name(f"{source.stem}.scored{suffix}")


def _seeds(said: str) -> list[int]:
    try:
        found = [int(one) for one in said.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 0 or len(set(found)) < len(found):
        raise InputError(f"expected different whole numbers as --seeds, e.g. 1,2,3; got {said!r}")
    return found


def _prepare_torch() -> None:
    from symdistill.machine import usable_cores

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import torch
        from transformers.utils import logging
    except ImportError as error:
        raise InputError(
            f"expected the packages that a critic needs; {error.name} is not installed; run: "
            "pip install 'symdistill[local]'"
        ) from error
    torch.set_num_threads(usable_cores())
    logging.set_verbosity_error()
    logging.disable_progress_bar()
