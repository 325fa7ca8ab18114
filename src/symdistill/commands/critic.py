"""`symdistill critic`: fit a judge on labelled lines, and score lines with it."""

from __future__ import annotations

import csv
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.console import Console

from symdistill.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from symdistill.critic import EncoderCritic
    from symdistill.critic.fitting import Judged
    from symdistill.critic.forms import Form
    from symdistill.critic.learnt import Learnt
    from symdistill.critic.reading import Text
    from symdistill.datafiles import Row
    from symdistill.progress import Progress

app = typer.Typer(
    help="Fit a judge on labelled lines, and score lines with it.", no_args_is_help=True
)
PACE_KNOWN_S, WORTH_SAYING_S = 3.0, 20.0
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
    from symdistill.critic import card, fitting
    from symdistill.critic.examples import read_examples, split_examples, told
    from symdistill.critic.forms import Form
    from symdistill.critic.learnt import row_ids, withdrawn_rows
    from symdistill.evaluation import metrics
    from symdistill.models import resolve
    from symdistill.pool import home_of
    from symdistill.progress import ConsoleProgress

    target = folder or home_of(source) / "critic"
    card.expect_free(target)
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
    rows = _rows(source, needed)
    gone = withdrawn_rows(source, rows, read, id=id_)
    examples = read_examples(
        [(number, "withdrawn" if number in gone else row) for number, row in rows],
        read, label=labels, group=group, source=str(source),
    )  # fmt: skip
    ids = row_ids(source, rows, read, id=id_)
    split = split_examples(examples)
    model = resolve(encoder).folder
    settings = fitting.settings_for(
        model, read, trainable=trainable, epochs=epochs, learning_rate=learning_rate,
        max_length=max_length,
    )  # fmt: skip
    out.print(told(examples, split, grouped=group is not None), soft_wrap=True)

    progress = ConsoleProgress(out)
    judged = {
        name: _judged(read, part.texts, part.numbers, progress)
        for name, part in split._asdict().items()
    }
    critics = {}
    unit = "seed" if len(wanted) == 1 else "seeds"
    with progress.stage("fit the critic", len(wanted), unit) as advance:
        for seed in wanted:
            critics[seed] = fitting.fit_critic(judged, split, model, settings, seed)
            advance(1)
    best = critics[wanted[0]]
    bought = fitting.fit_curve(best, judged, split, model, settings, progress) if curve else None
    found = fitting.measured(
        read, judged, split, critics, bought,
        metrics={"auc": metrics.auc, "average_precision": metrics.average_precision,
                 "ece": metrics.expected_calibration_error},
        interval=metrics.bootstrap_interval,
    )  # fmt: skip
    report = {
        "source": str(source), "folder": str(target), "version": best.version,
        "form": read.name, "columns": dict(read.columns), "group": group, "encoder": encoder,
        "numbers": list(read.numbers), "likelihood": likelihood,
        "trainable": settings.trainable, "settings": settings.model_dump(),
        "parts": split.counts(), "left_out": dict(examples.left_out), **found,
        "seconds": round(time.perf_counter() - start, 1),
    }  # fmt: skip
    card.save_critic(
        target, best, read, report, texts=examples.labelled.values(),
        ids=(one for row in examples.labelled for one in ids[row]),
    )  # fmt: skip
    out.print(card.told(report), soft_wrap=True)
    out.print(f"Wrote {target}. Next: symdistill critic score FILE --critic {target}",
              soft_wrap=True)  # fmt: skip


@app.command()
def score(
    source: Source,
    critic: Annotated[
        Path | None,
        typer.Option(
            help="The critic's folder, or a run's: its newest. Default: FILE.symdistill/critic; "
            "of a run its own."
        ),
    ] = None,
    text: TextColumn = None,
    question: QuestionColumn = None,
    other: OtherColumn = None,
    head: HeadColumn = None,
    relation: RelationColumn = None,
    tail: TailColumn = None,
    likelihood: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="For a run's own critic and lines without logprob and tokens: its run's model.",
        ),
    ] = None,
    id_: Annotated[
        str | None, typer.Option("--id", help="The column of ids. Default: id, if there is one.")
    ] = None,
    column: Annotated[str, typer.Option(help="The column to write the scores to.")] = "score",
    target: Annotated[
        Path | None, typer.Option("--out", help="The table to write. Default: FILE.scored.SUFFIX.")
    ] = None,
) -> None:
    """Write the same table with one more column: how likely each line is valid, 0 to 1.

    Which of its lines the critic learnt from is written beside it: no certificate rests on these.
    """
    _prepare_torch()
    from symdistill.critic.fitting import alike
    from symdistill.critic.learnt import withdrawn_rows, write_scored
    from symdistill.datafiles import expect_columns
    from symdistill.progress import ConsoleProgress

    written = target or _beside(source)
    if written.resolve() == source.resolve():
        raise InputError(f"expected another file to write than {source}; name another as --out")
    columns = {"text": text, "question": question, "other": other, "head": head,
               "relation": relation, "tail": tail}  # fmt: skip
    judge, read, learnt, nats, model = _open_critic(source, critic, columns, likelihood)
    needed = [*read.columns.values(), *read.numbers, *([id_] if id_ else [])]
    rows = _rows(source, needed)
    good = [(number, row) for number, row in rows if not isinstance(row, str)]
    names = list(dict.fromkeys(name for _, row in good for name in row))
    if names:
        expect_columns(needed, names, source)
    if nats and (lacking := [one for one in ("logprob", "tokens") if one not in names]):
        raise InputError(
            "expected the columns logprob and tokens, for this critic reads the likelihood of a "
            f"line beside its text; {source} has no {' and no '.join(lacking)}; to compute it give "
            f"the language model of the critic's run: --likelihood {model or 'MODEL'}"
        )
    if column in names:
        raise InputError(
            f"expected a new column for the scores; {source} has {column!r} already; name another "
            "with --column"
        )
    gone = withdrawn_rows(source, good, read, id=id_)
    texts, numbers, places = [], [], []
    taught = set()  # rows of the table to write, from 1, as are places
    for place, (number, row) in enumerate(good, start=1):
        said = read.read(row, f"row {number} of {source}")
        beside = _nats(row) if nats else read.read_numbers(row)
        if said is not None and learnt is not None and said in learnt:
            taught.add(place)
        if said is not None and beside is not None and number not in gone:
            texts.append(said)
            numbers.append(beside)
            places.append(place)
    if not texts:
        raise InputError(f"expected at least one line to score in {source}; got none")
    import numpy as np

    progress = ConsoleProgress(out)
    judged = _judged(read, texts, np.array(numbers).reshape(len(texts), -1), progress)
    with progress.stage("score", len(texts), "lines") as advance:
        found = judge.score(*judged, advance=paced(advance, len(texts), progress.say))
    scores = dict(zip(places, found.tolist(), strict=True))
    blank = dict.fromkeys(_header(source))
    scored = [
        {**blank, **row, column: scores.get(place)} for place, (_, row) in enumerate(good, start=1)
    ]
    write_scored(
        source, written, scored, read, id=id_, column=column, critic=judge.version, taught=taught
    )
    out.print(f"Wrote {written}: {len(scores):,} of {len(scored):,} lines have a score, in the "
              f"column {column}.", soft_wrap=True)  # fmt: skip
    if alike(found):
        out.print(f"All have the same score, {found[0]:.2f}: it tells no line from another. Label "
                  "more lines and fit again.", soft_wrap=True)  # fmt: skip
    if gone:
        out.print(f"Withdrawn lines: {len(gone):,}; they stay in the table, without a score.")
    if empty := len(scored) - len(scores) - len(gone):
        out.print(f"Lines without one: {empty:,}; something that is judged is empty there.")
    if taught:
        out.print(
            f"Lines that the critic learnt from: {len(taught):,}; a certificate of this table "
            "leaves them out, for to them the critic is kinder than it should be.", soft_wrap=True
        )  # fmt: skip
    if learnt is None:
        out.print(
            "Which lines the critic learnt from is not kept with it: a certificate of this table "
            "must not use labels that it learnt from.", soft_wrap=True
        )  # fmt: skip
    if lost := len(rows) - len(good):
        why = next(row for _, row in rows if isinstance(row, str))
        out.print(f"Rows left out: {lost:,} that could not be read; the first {why}.")


# -- which critic -------------------------------------------------------------------------------


class Opened(NamedTuple):
    """A critic, and how to score with it."""

    critic: EncoderCritic
    form: Form
    learnt: Learnt | None  # None: it is not known
    nats: bool = False  # whether it reads likelihoods that lie in the rows
    model: str = ""  # whose likelihoods; "": it is not known


def _open_critic(
    source: Path, named: Path | None, columns: Mapping[str, str | None], likelihood: str | None
) -> Opened:
    """The critic that was named, or the source's own.

    What `critic fit` made says what it reads. A run's own critic does not: it reads statements, or
    what the run's configuration says, and likelihoods where it learnt with two numbers a line.
    """
    from symdistill.critic import EncoderCritic
    from symdistill.critic.forms import Form
    from symdistill.critic.learnt import Learnt

    folder = _critic_folder(source, named)
    critic = EncoderCritic.load(folder)
    if (folder / "form.json").is_file():
        if likelihood:
            raise InputError(
                f"expected no --likelihood; the critic in {folder} says itself what it reads; "
                "leave it out"
            )
        form = Form.load(folder, critic.version).over(columns)
        return Opened(critic, form, Learnt.load(folder, critic.version))
    config = _config_of(folder)
    reads = (config.get("critic") or {}).get("reads")
    relations = (config.get("inferences") or {}).get("relations") or "events"
    form = Form.of(
        columns, name="entailment" if reads == "pair" else None, relations=relations,
        likelihood=likelihood,
    )  # fmt: skip
    width = len(critic.feature_mean)
    if width not in (0, 2) or (likelihood and not width):
        raise InputError(
            f"expected a critic that reads {'a likelihood' if likelihood else 'text'}; the one in "
            f"{folder} learnt with {width} numbers a line and does not say which; use one that "
            "`symdistill critic fit` made"
        )
    nats = width == 2 and likelihood is None
    return Opened(critic, form, _learnt_by_run(config), nats, str(config.get("model") or ""))


def _critic_folder(source: Path, named: Path | None) -> Path:
    """Where the critic lies: of a run its newest, unless one was fitted on its lines."""
    from symdistill.pool import home_of

    folder = named or home_of(source) / "critic"
    if (folder / "critic.json").is_file():
        return folder
    run = named or source
    rounds = [path.parent for path in (run / "critics").glob("*/critic.json")]
    numbered = [path for path in rounds if path.name.isdigit()]
    return max(numbered, key=lambda path: int(path.name), default=folder)


def _config_of(folder: Path) -> Mapping[str, Any]:
    """The configuration of the run that a critic's folder lies in; empty where there is none."""
    from symdistill.config import read_yaml

    path = folder.resolve().parent.parent / "config.yaml"
    if folder.resolve().parent.name != "critics" or not path.is_file():
        return {}
    return dict(read_yaml(path))


def _learnt_by_run(config: Mapping[str, Any]) -> Learnt | None:
    """The labelled statements of a run's configuration, if each of their files is still there."""
    from symdistill.critic.learnt import Learnt, text_hash
    from symdistill.datafiles import read_rows
    from symdistill.recipes._judging import label_files

    sources = (config.get("critic") or {}).get("labels")
    files = label_files(sources) if isinstance(sources, list) else []
    if not files or not all(path.is_file() for path in files):
        return None
    rows = [row for path in files for _, row in read_rows(path, ["text"])]
    return Learnt(text_hash(str(row["text"])) for row in rows if not isinstance(row, str))


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

    from symdistill.critic.fitting import Judged

    if not form.likelihood:
        return Judged(texts, numbers if numbers.shape[1] else None)
    from symdistill.models import resolve
    from symdistill.teachers import LocalTeacher

    teacher = LocalTeacher(resolve(form.likelihood))
    before = ["" if isinstance(one, str) else f"{one[0]}\n" for one in texts]
    after = [one if isinstance(one, str) else one[1] for one in texts]
    with progress.stage("likelihood", len(texts), "lines") as advance:
        found = teacher.logprobs(before, after, advance=paced(advance, len(texts), progress.say))
    nats = np.array([[one.total / max(one.tokens, 1), one.total] for one in found])
    return Judged(texts, np.concatenate([numbers, nats], axis=1))


def _nats(row: Mapping[str, Any]) -> tuple[float, float] | None:
    """What a run's critic reads beside the text: nats per token and in all, from the row."""
    try:
        total, tokens = float(row["logprob"]), float(row["tokens"])
    except (KeyError, TypeError, ValueError):
        return None
    return (total / max(tokens, 1), total) if math.isfinite(total + tokens) else None


def paced(
    advance: Callable[[int], None],
    total: int,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.perf_counter,
) -> Callable[[int], None]:
    """`advance`, which after some seconds says once how long all lines take, if that is long."""
    start, done, told = clock(), 0, False

    def step(more: int) -> None:
        nonlocal done, told
        advance(more)
        done += more
        spent = clock() - start
        if not told and spent >= PACE_KNOWN_S:
            told = True
            if (left := spent / max(done, 1) * (total - done)) >= WORTH_SAYING_S:
                say(f"About {done / spent:,.0f} lines a second: {left / 60:.1f} min or more for "
                    f"the {total - done:,} lines left.")  # fmt: skip

    return step


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
    from symdistill.machine import prepare_torch

    prepare_torch("a critic")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft")
