"""Symbolic Knowledge Distillation: a corpus of triples from a general model, and its students.

West et al. 2022, "Symbolic Knowledge Distillation: from General Language Models to Commonsense
Models" (https://aclanthology.org/2022.naacl-main.341/).

The paper's stages, as `skd` below runs them:

    seeds -> head events -> inferences per head and relation -> triples
                                                                  |
                         labels -> critic -> score every triple <-+
                                                  |
                                      filter levels: unfiltered, medium, high
                                                  |
                                     one student per level -> tails for unseen heads

What the paper says: GPT-3 writes events after a list of ten drawn seeds, then inferences of seven
ATOMIC relations from few-shot prompts with names in place of PersonX and PersonY; a RoBERTa-large
critic trained on crowd labels filters them; and GPT-2 XL, fine-tuned on what the critic keeps,
beats its teacher. What its published code does: ranks events by summed log-probability and drops
the worst fifth; splits by head 80/10/10; reads a cut at a given recall off the validation curve
and averages it with the one of the test curve, which we do not.

What we chose: any teacher and student; prompts, seeds and examples of our own; a small encoder as
critic, whose cuts are read off its calibration labels alone; a tail that names someone of the
examples is refused. The whole corpus is kept with its scores (`corpus.jsonl`), so that anyone can
cut it elsewhere. Students are rated on unseen heads against their teacher, both decoding greedily,
by a judge of a second kind that was trained on other labels.

What it does not do: certify what is kept (`symdistill certify RUN` does, with labels of a random
sample), relations whose subject is PersonY, or the paper's human evaluation.
"""

from __future__ import annotations

import random
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from symdistill.errors import InputError
from symdistill.estimate import RoleCalls
from symdistill.models import resolve, sha256_of
from symdistill.pool import withdrawn_ids
from symdistill.recipes._asking import (
    asked,
    existing,
    failure,
    greedy,
    in_groups,
    likelihood,
    told,
)
from symdistill.recipes._skd_asking import (
    best_heads,
    first_line,
    head_asks,
    head_refused,
    heads_of_file,
    prompt_of,
    read_seeds,
    tail_refused,
)
from symdistill.recipes._skd_figures import Said, Spoken, figures, rate_heads
from symdistill.recipes._skd_judging import (
    CutLevel,
    Labels,
    TripleCritic,
    cut_levels,
    fit_triple_critic,
    fit_triple_judge,
    read_triple_labels,
    triple_of,
)
from symdistill.recipes._skd_settings import SKDConfig
from symdistill.records import (
    Failure,
    Item,
    Knowledge,
    Lineage,
    Verdict,
    View,
    canonical_json,
    content_hash,
    merge_repeats,
    normalise,
)
from symdistill.relations import Relation, read_relations
from symdistill.run import Run, Stored, StoredFolder, StoredValues
from symdistill.students import fine_tune
from symdistill.tables import read_records, write_records
from symdistill.teachers import TeacherSettings, open_backend
from symdistill.teachers.base import Ask, Decoding, Failed, Prompt

HEADS, INFERENCES, HELD_OUT, STUDENT = "heads", "inferences", "held-out heads", "student"


def skd(run: Run, config: SKDConfig) -> dict[str, Any]:
    """Run the recipe in an open run folder; gives what is written to metrics.json."""
    relations = chosen_relations(config)
    labels = triple_labels(config)
    if run.retry_failed:  # what failed is asked again; the ledger answers the rest
        shutil.rmtree(run.folder / "steps", ignore_errors=True)

    heads = write_heads(run, config)
    items = split_heads(run, config, heads, labels)
    written = infer(run, config, items, relations)
    triples = read_records(written.folder / "knowledge.parquet", Knowledge)
    if not triples:
        raise InputError(
            f"no inference was accepted ({told(written.notes['refused'])}); change the relations' "
            "frames, inferences.decoding or the teacher"
        )
    critic = judge = None
    if labels is not None:
        critic = fit_triple_critic(run, config, labels, read_relations(config.inferences.relations))
        judge = fit_triple_judge(run, config, labels, critic.relations)
    else:
        run.progress.say("no critic, so everything is kept: there is one level, unfiltered")
    scored = score(run, written, triples, critic)
    levels = cut_levels(run, config, critic)

    spoken: list[Spoken] = []
    unseen = [item for item in items.records if item.split == "test"]
    if config.student is not None and unseen:
        spoken.append(ask_unseen(run, config, unseen, relations))
        spoken.append(as_sampled(written, triples, unseen))
        views = training_rows(run, config, items, relations, triples, scored, levels)
        for number, level in enumerate(levels, start=1):
            if config.student.levels is None or level.name in config.student.levels:
                student = train(run, config, number, level, views)
                spoken.append(let_speak(run, config, level, student, unseen, relations))
    else:
        views = []
        run.progress.say("no students: " + ("student is null" if unseen else "no unseen heads"))
    said = rate_heads(run, spoken, critic, judge)
    return figures(run, config, heads, items, written, triples, scored, critic, judge, levels,
                   views, said)  # fmt: skip


# -- the stages, in the order in which they run --------------------------------------------------


def write_heads(run: Run, config: SKDConfig) -> StoredValues:
    """The heads: those of a file, or what the teacher writes after seeds; and why others fell."""
    wanted = config.heads
    if wanted.source is not None:
        return run.values(
            "heads",
            lambda: heads_of_file(wanted),
            stage="heads",
            source=sha256_of(existing(wanted.source)),
            limit=wanted.limit,
        )
    backend = open_backend(config.teacher, seed=config.seed)
    asks = head_asks(config)

    def make() -> Mapping[str, Any]:
        refused: Counter[str] = Counter()
        found: dict[str, dict[str, Any]] = {}
        for one in asked(run, config, config.teacher, asks, wanted.decoding, HEADS, backend):
            if isinstance(one, Failed):
                refused[one.kind] += 1
                continue
            text = " ".join(one.text.split()).rstrip(" .")
            if reason := head_refused(wanted, one, text):
                refused[reason] += 1
            elif normalise(text) in found:
                refused["a repeat"] += 1
            else:
                found[normalise(text)] = {"text": text, "key": one.key, **likelihood(one)}
        kept = best_heads(run, wanted, list(found.values()))
        refused["among the worst ranked, or above the limit"] += len(found) - len(kept)
        return {"heads": kept, "asked": len(asks), "refused": dict(+refused)}

    return run.values(
        "heads",
        make,
        stage="heads",
        prompts=content_hash([one.prompt for one in asks], 64),
        teacher=dict(backend.identity),
        settings=wanted,
        seed=config.seed,
    )


def split_heads(
    run: Run, config: SKDConfig, heads: StoredValues, labels: Labels | None
) -> Stored[Item]:
    """The heads as items, each with its split; those that have labels are for training."""
    known = labels.heads if labels else frozenset()

    def place(text: str) -> str:
        if normalise(text) in known:
            return "train"
        drawn = random.Random(f"{config.seed} {normalise(text)}").random()
        if drawn < config.split.test:
            return "test"
        return "validation" if drawn < config.split.test + config.split.validation else "train"

    def make() -> Sequence[Item]:
        return [
            Item.make("event", one["text"], fields=dict(one), split=place(one["text"]))
            for one in heads["heads"]
        ]

    items = run.table(
        "items", Item, make, stage="heads", heads=heads, split=config.split, seed=config.seed,
        labelled=sorted(known),
    )  # fmt: skip
    if not items.records:
        raise InputError(
            f"no head was accepted ({told(heads['refused'])}); change heads.decoding, heads.accept "
            "or the teacher"
        )
    return items


def infer(
    run: Run, config: SKDConfig, items: Stored[Item], relations: Mapping[str, Relation]
) -> StoredFolder:
    """Tails for every head and relation, as distinct triples; what was refused is counted."""
    settings = config.inferences
    who = settings.teacher or config.teacher
    backend = open_backend(who, seed=config.seed)
    pairs = [(item, relation) for relation in relations.values() for item in items.records]
    asks = [
        Ask(prompt_of(who, relation.prompt(item.text, shots=settings.shots, seed=config.seed)),
            item.id, settings.samples)
        for item, relation in pairs
    ]  # fmt: skip

    def make(folder: Path) -> Mapping[str, Any]:
        refused: Counter[str] = Counter()
        lines: list[Knowledge] = []
        failed: list[Failure] = []
        outcomes = asked(run, config, who, asks, settings.decoding, INFERENCES, backend)
        for (item, relation), some in zip(pairs, in_groups(outcomes, asks), strict=True):
            for one in some:
                if isinstance(one, Failed):
                    failed.append(failure(one))
                    continue
                tail = relation.read(item.text, one.text)
                reason = tail_refused(config, relation, item.text, tail, one)
                if reason:
                    refused[reason] += 1
                    continue
                fields = {"terms": who.terms} if who.terms else {}
                occasion = Lineage(
                    content_hash(backend.identity), one.key, relation.name,
                    canonical_json(settings.decoding.canonical()), config.seed, 0,
                )  # fmt: skip
                lines.append(triple(item, relation, tail, fields | likelihood(one), occasion))
        distinct = merge_repeats(lines)
        distinct.sort(key=lambda line: line.id)
        write_records(folder / "knowledge.parquet", Knowledge, distinct)
        write_records(folder / "failures.parquet", Failure, failed)
        return {
            "asked": sum(one.samples for one in asks),
            "accepted": len(lines),
            "distinct": len(distinct),
            "failed": len(failed),
            "failures": dict(Counter(one.kind for one in failed).most_common()),
            "refused": dict(refused.most_common()),
        }

    return run.folder_step(
        "steps/triples",
        make,
        stage="infer",
        items=items,
        relations=list(relations.values()),
        settings=settings.model_dump(exclude={"teacher"}),
        teacher=dict(backend.identity),
        api=who.api,
        terms=who.terms,
        seed=config.seed,
    )


def score(
    run: Run, written: StoredFolder, triples: Sequence[Knowledge], critic: TripleCritic | None
) -> dict[str, float]:
    """The critic's score of every triple, by id; empty without a critic."""
    if critic is None:
        return {}

    def make() -> Sequence[Verdict]:
        with run.progress.stage("score", len(triples), "triples") as advance:
            found = critic.score([triple_of(line) for line in triples])
            advance(len(triples))
        return [
            Verdict(line.id, critic.name, float(one))
            for line, one in zip(triples, found, strict=True)
        ]

    stored = run.table(
        "scores", Verdict, make, stage="score", triples=written, critic=critic.stored,
        passes=critic.settings.passes,
    )  # fmt: skip
    return {one.knowledge_id: one.score for one in stored.records if one.score is not None}


def training_rows(
    run: Run,
    config: SKDConfig,
    items: Stored[Item],
    relations: Mapping[str, Relation],
    triples: Sequence[Knowledge],
    scored: Mapping[str, float],
    levels: Sequence[CutLevel],
) -> list[View]:
    """Each triple of a head for training as a row, in the round of the strictest level it passes.

    Levels are nested, so student number k is trained on the rows of rounds below k. Lines that
    were withdrawn are left out.
    """
    gone = withdrawn_ids(run.folder)
    for_training = {item.id for item in items.records if item.split == "train"}
    rows = []
    for line in triples:
        if line.item_id not in for_training or line.id in gone:
            continue
        number = next(k for k, level in enumerate(levels) if level.keeps(scored.get(line.id)))
        prompt = student_prompt(config, line.fields["head"], relations[line.fields["relation"]])
        rows.append(View(prompt, f" {line.fields['tail']}", 1.0, line.item_id, (line.id,), number))
    return rows


def train(
    run: Run, config: SKDConfig, number: int, level: CutLevel, views: Sequence[View]
) -> StoredFolder:
    """The student of a level, fine-tuned from the untouched model on what the level keeps."""
    settings = config.student
    assert settings is not None
    base = resolve(settings.model)
    rows = [view for view in views if view.round < number]
    if not rows:
        raise InputError(
            f"the level {level.name!r} keeps no triple of a head for training; loosen it, or leave "
            "it out of student.levels"
        )
    mark = content_hash([number, [[v.prompt, v.target] for v in rows], base.fingerprint], 64)
    label = f"train the student, {level.name}"

    def make(folder: Path) -> Mapping[str, Any]:
        steps = -(-len(rows) * settings.training.epochs // settings.training.batch_size)
        with run.progress.stage(label, steps, "steps") as advance:
            student = fine_tune(
                base.folder,
                rows,
                out=folder,
                checkpoints=run.checkpoints(mark),
                settings=settings.training,
                seed=config.seed,
                base_name=settings.model,
                progress=lambda at: advance(1),
            )
        run.count_tokens(student.tokens_trained)
        return {
            "level": level.name,
            "trained_on": len(rows),
            "steps": student.steps,
            "loss_first": student.loss_first,
            "loss_last": student.loss_last,
        }

    stored = run.folder_step(
        "students",
        make,
        stage="train",
        round=number,
        rows=mark,
        level=level.name,
        settings=settings.training,
        seed=config.seed,
    )
    run.drop_checkpoints()
    return stored


def ask_unseen(
    run: Run, config: SKDConfig, heads: Sequence[Item], relations: Mapping[str, Relation]
) -> Spoken:
    """The teacher's one greedy tail for every unseen head and relation."""
    settings = config.inferences
    who = settings.teacher or config.teacher

    def prompt(item: Item, relation: Relation) -> Prompt:
        text = relation.prompt(item.text, shots=settings.shots, seed=config.seed)
        return prompt_of(who, text)

    decoding = greedy(settings.decoding)
    return speak(run, config, "teacher", who, decoding, HELD_OUT, heads, relations, prompt)


def as_sampled(
    written: StoredFolder, triples: Sequence[Knowledge], heads: Sequence[Item]
) -> Spoken:
    """What the teacher's samples said of the unseen heads, each distinct triple once."""
    unseen = {item.id for item in heads}
    said = [Said(*triple_of(line), "") for line in triples if line.item_id in unseen]
    return Spoken("teacher, sampled", tuple(said), written)


def let_speak(
    run: Run,
    config: SKDConfig,
    level: CutLevel,
    student: StoredFolder,
    heads: Sequence[Item],
    relations: Mapping[str, Relation],
) -> Spoken:
    """A student's one greedy tail for every unseen head and relation."""
    assert config.student is not None
    who = TeacherSettings(model=f"local:{student.folder}", api="completions")
    decoding = Decoding(temperature=0.0, max_new_tokens=config.student.max_new_tokens, stop=("\n",))

    def prompt(item: Item, relation: Relation) -> Prompt:
        return student_prompt(config, item.text, relation)

    return speak(run, config, level.name, who, decoding, STUDENT, heads, relations, prompt)


def speak(
    run: Run,
    config: SKDConfig,
    name: str,
    who: TeacherSettings,
    decoding: Decoding,
    role: str,
    heads: Sequence[Item],
    relations: Mapping[str, Relation],
    prompt: Any,
) -> Spoken:
    """What someone says of every unseen head and relation; a tail that is refused counts, too."""
    backend = open_backend(who, seed=config.seed)
    pairs = [(item, relation) for relation in relations.values() for item in heads]
    asks = [Ask(prompt(item, relation), item.id) for item, relation in pairs]

    def make() -> Mapping[str, Any]:
        outcomes = asked(run, config, who, asks, decoding, role, backend, label=f"{name}, unseen")
        said = []
        for (item, relation), one in zip(pairs, outcomes, strict=True):
            if isinstance(one, Failed):
                said.append(Said(item.text, relation.name, "", one.kind))
                continue
            tail = relation.read(item.text, one.text) if role != STUDENT else first_line(one.text)
            reason = tail_refused(config, relation, item.text, tail, one)
            said.append(Said(item.text, relation.name, tail, reason))
        return {"said": said}

    stored = run.values(
        f"unseen-{content_hash(name)}",
        make,
        stage="unseen heads",
        who=dict(backend.identity),
        asks=content_hash([one.prompt for one in asks], 64),
        decoding=decoding,
        min_characters=config.inferences.min_characters,
    )
    return Spoken(name, tuple(Said(*one) for one in stored["said"]), stored)


def skd_calls(config: SKDConfig) -> list[RoleCalls]:
    """What the recipe will ask of whom, for an estimate.

    Heads that are not written yet are stood in for by seeds, as many as there may be at most; so
    the number of inferences is an upper bound. Of unseen heads there is only an expected number.
    """
    wanted, settings = config.heads, config.inferences
    who = settings.teacher or config.teacher
    relations = chosen_relations(config)
    calls = []
    if wanted.source is not None:
        heads = [one["text"] for one in heads_of_file(wanted)["heads"]]
        most = ""
    else:
        calls.append(
            RoleCalls(HEADS, config.teacher, config.seed, wanted.decoding,
                      lambda: head_asks(config))
        )  # fmt: skip
        seeds = read_seeds(wanted.seeds)
        left = wanted.samples - (wanted.rank is not None) * int(wanted.drop_worst * wanted.samples)
        number = min(left, wanted.limit or left)
        heads = [seeds[i % len(seeds)] + " " * (i // len(seeds)) for i in range(number)]
        most = ", at most"

    def asks(heads: Sequence[str], samples: int) -> Iterator[Ask]:
        for relation in relations.values():
            for head in heads:
                text = relation.prompt(head, shots=settings.shots, seed=config.seed)
                yield Ask(prompt_of(who, text), head, samples)

    calls.append(
        RoleCalls(f"{INFERENCES}{most}", who, config.seed, settings.decoding,
                  lambda: asks(heads, settings.samples))
    )  # fmt: skip
    if config.student is not None:
        unseen = heads[: round(config.split.test * len(heads))]
        calls.append(
            RoleCalls(f"{HELD_OUT}, about", who, config.seed, greedy(settings.decoding),
                      lambda: asks(unseen, 1))
        )  # fmt: skip
    return calls


# -- small parts ---------------------------------------------------------------------------------


def chosen_relations(config: SKDConfig) -> dict[str, Relation]:
    """The relations that are asked for.

    Raises:
        InputError: the schema lacks one of them.
    """
    found = read_relations(config.inferences.relations)
    if config.inferences.use is None:
        return found
    for name in config.inferences.use:
        if name not in found:
            raise InputError(
                f"expected relations among {', '.join(found)} in inferences.use; got {name!r}"
            )
    return {name: found[name] for name in config.inferences.use}


def triple_labels(config: SKDConfig) -> Labels | None:
    """The labelled triples, or None without a critic."""
    if config.critic is None:
        return None
    known = read_relations(config.inferences.relations)
    return read_triple_labels(config.critic.labels, known)


def triple(
    item: Item, relation: Relation, tail: str, fields: Mapping[str, Any], occasion: Lineage
) -> Knowledge:
    """A triple as a line; the same tail said again is the same line."""
    return Knowledge.make(
        "triple",
        relation.verbalise(item.text, tail),
        item.id,
        fields={"head": item.text, "relation": relation.name, "tail": tail, **fields},
        lineage=(occasion,),
    )


def student_prompt(config: SKDConfig, head: str, relation: Relation) -> str:
    """What a student reads."""
    assert config.student is not None
    said = {"{head}": head, "{relation}": relation.name, "{opening}": relation.opening(head)}
    return re.sub(
        r"\{(head|relation|opening)\}", lambda place: said[place[0]], config.student.prompt
    )
