"""I2D2: a weak language model distils itself, under constraints and a critic.

Bhagavatula et al. 2023, "I2D2: Inductive Knowledge Distillation with NeuroLogic and
Self-Imitation" (https://aclanthology.org/2023.acl-long.535/).

The algorithm of the paper's figure 2, as `i2d2` below runs it:

    concepts -> prompts -> constrained decoding -> statements -> critic -> keep
       ^                                                                     |
       +------------- fine-tune the generator on what was kept <-------------+

What the paper says: GPT-2 XL writes generics about concepts and goals by NeuroLogic decoding, a
beam search under lexical constraints (at most one function word, no connective, the prompt's
concept and relation not repeated, and a related concept, where one is given, contained in some
inflected form); a RoBERTa-large critic trained on crowd labels judges them, and the generator
imitates what the critic accepts, twice.

What we chose: another generator (any causal model; SmolLM2-135M by default) and another critic
(MiniLM with the generator's likelihood as a feature); sampling under an exact mask, because
samples differ from each other, where a search gives the likeliest texts and their near twins;
prompts, word lists and concepts of our own; each round's student is trained from the untouched
model on everything kept so far; and, against the drift towards lines that say little, a floor on
specificity, a swap test and caps (`selection`). An independent judge of another architecture,
trained on other labels, scores every line and decides nothing. What is kept is screened for
personal data and for what harms or demeans, and such lines are marked for review. A line that was
withdrawn (`symdistill withdraw`) is never kept again.

How to decode as the paper does: `decoding: neurologic` takes for each prompt the best
`prompts.samples` texts of a search under the whole constraint. It draws nothing, so what is new in
a later round is what its student likes better. `related: {use: true}` asks each prompt again for
concepts that the source names as related to its own: a search forces them into the line, a sample
has them or not. A line that does not meet its constraint is refused, with the clause as the reason.

What it does not do yet: find related concepts; certify what is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from symdistill.constraints import (
    Constraint,
    Contains,
    all_of,
    any_of,
    at_most,
    contains,
    excludes,
    inflections,
)
from symdistill.errors import InputError
from symdistill.evaluation.specificity import specificity
from symdistill.models import Model, fingerprint, resolve, sha256_of
from symdistill.pool import withdrawn_ids
from symdistill.recipes._i2d2_settings import ConstraintSettings, I2D2Config, PromptSettings
from symdistill.recipes._judging import Critic, Judge, features, fit_critic, fit_judge
from symdistill.recipes._rounds import Round, publish
from symdistill.records import Item, Knowledge, Lineage, Verdict, View, content_hash, merge_repeats
from symdistill.run import Run, Stored
from symdistill.selection import Screen, select, specificity_floor
from symdistill.sources import (
    Prompt,
    PromptGrammar,
    excluded_phrases,
    rank_prompts,
    read_concepts,
    statement,
)
from symdistill.sources.forms import everyday_jsonl
from symdistill.students import TrainProgress, fine_tune
from symdistill.teachers import LocalTeacher, SampleRequest
from symdistill.teachers.local import EXTEND_WORDS, decoding_settings, perplexity

__all__ = ["I2D2Config", "i2d2"]


def i2d2(run: Run, config: I2D2Config) -> dict[str, Any]:
    """Run the recipe in an open run folder; gives what is written to metrics.json."""
    models = named_models(config)  # a name that is wrong is told before anything is done
    grammar = read_grammar(config.prompts)
    screen = Screen(config.screen) if config.screen else None
    asked = read_items(run, config)
    untouched = LocalTeacher(models["generator"], batch_size=config.batch_size)
    prompts = choose_prompts(run, config, asked, grammar, untouched)
    questions = put_questions(run, config, asked, prompts)
    run.progress.plan(plan(config, len(questions), judged=config.judge is not None))
    judge = fit_judge(run, config.judge, config.seed)

    generator, critic = untouched, None
    rounds: list[Round] = []
    for number in range(config.rounds + 1):
        critic = fit_critic(run, config.critic, config.seed, untouched, number, critic)
        if not critic.report["target_reached"]:
            run.progress.say(critic.shortfall())
        lines = write(run, config, number, questions, generator)
        lines = measure(run, config, number, lines, asked, grammar, untouched)
        verdicts = give_verdicts(run, config, number, lines, critic, rounds, judge)
        decisions = decide(run, config, number, lines, verdicts, critic, rounds, screen)
        rounds.append(Round(number, lines, verdicts, decisions, critic))
        run.progress.say(rounds[-1].summary())
        if number < config.rounds and config.self_imitation:
            generator = imitate(run, config, rounds, untouched)
    words = phrases_of(config.constraints.function_words, "function_words")
    views = views_of(rounds, config.replay_weight)
    review = mark(run, rounds, screen) if screen else None
    figures = publish(
        run, asked, rounds, judge, views, review, function_words=words, seed=config.seed
    )
    return {**figures, "models": {role: about(model) for role, model in models.items()}}


# -- the stages, in the order in which they run --------------------------------------------------


def read_items(run: Run, config: I2D2Config) -> Stored[Item]:
    """The concepts and goals that the run is about; refused rows are counted aloud."""
    wanted = config.concepts

    def make() -> Sequence[Item]:
        found = read_concepts(
            wanted.source, limit=wanted.limit, seed=config.seed, text_column=wanted.text_column
        )
        for reason, count in found.reasons.items():
            run.progress.say(f"{count} rows of {wanted.source} refused: {reason}")
        return found.items

    return run.table(
        "items",
        Item,
        make,
        stage="concepts",
        settings=wanted,
        seed=config.seed,
        content=content_of(wanted.source),
    )


def choose_prompts(
    run: Run,
    config: I2D2Config,
    asked: Stored[Item],
    grammar: PromptGrammar,
    untouched: LocalTeacher,
) -> list[Prompt]:
    """Each item's prompts of lowest perplexity, in a fixed order."""
    prompts = [
        prompt for item in asked.records for prompt in grammar.render(item, seed=config.seed)
    ]

    def make() -> Mapping[str, Any]:
        with run.progress.stage("rank prompts", len(prompts), "prompts") as advance:
            texts = [prompt.text for prompt in prompts]
            found = untouched.logprobs(
                [""] * len(texts), texts, advance=advance, count_tokens=run.count_tokens
            )
        return {p.id: perplexity(one) for p, one in zip(prompts, found, strict=True)}

    ranked = run.values(
        "perplexity",
        make,
        stage="prompts",
        prompts=prompts,
        model=untouched,
        batch_size=config.batch_size,
    )
    return rank_prompts(prompts, ranked.values, config.prompts.per_concept)


class Question(NamedTuple):
    """A prompt with what its line is held to; with the concept that the line is to bring in."""

    prompt: Prompt
    constraint: Constraint | None
    related: str = ""
    clause: Contains | None = None  # of the constraint, that the related concept is there


def put_questions(
    run: Run, config: I2D2Config, asked: Stored[Item], prompts: Sequence[Prompt]
) -> list[Question]:
    """Every prompt; then again for each related concept, but those that cannot be said."""
    questions = [Question(one, constraint_of(config.constraints, one)) for one in prompts]
    if not config.related.use:
        return questions
    related = {
        item.id: list(dict.fromkeys(item.fields.get("related", [])))[: config.related.per_concept]
        for item in asked.records
    }
    for prompt in prompts:
        for concept in related[prompt.item_id]:
            clause = contains(inflections(concept, "NOUN"))
            whole = all_of(clause, constraint_of(config.constraints, prompt) or all_of())
            if found := whole.contradictions():
                run.progress.say(f"{prompt.text!r} is not asked for {concept!r}: {found[0]}")
                continue
            again = replace(prompt, id=content_hash(["related", prompt.id, concept]))
            questions.append(Question(again, whole, concept, clause))
    return questions


def write(
    run: Run,
    config: I2D2Config,
    number: int,
    questions: Sequence[Question],
    generator: LocalTeacher,
) -> Stored[Knowledge]:
    """The generator goes on with every prompt; distinct statements, each with its occasions."""
    by_id = {one.prompt.id: one for one in questions}
    # a later round draws other samples, whoever writes; a search has its best texts only
    first = number * config.prompts.samples if config.decoding == "sampling" else 0
    requests = [
        SampleRequest(one.prompt.text, one.prompt.id, first + k, one.constraint)
        for one in questions
        for k in range(config.prompts.samples)
    ]

    def make() -> Sequence[Knowledge]:
        with run.progress.stage(f"write, round {number}", len(requests), "lines") as advance:
            samples = generator.sample(
                requests,
                sampling=config.writing,
                seed=config.seed,
                ledger=run.ledger,
                budget=run.budget,
                advance=advance,
                count_tokens=run.count_tokens,
            )
        lines = []
        for sample in samples:
            question = by_id[sample.request.prompt_id]
            prompt = question.prompt
            said = statement(prompt, sample.text)
            head = prompt.text[prompt.lead :]
            written = continuation_of(prompt, said)
            unmet = dict.fromkeys(sample.unmet)
            if question.clause and not question.clause.verify(written, before=prompt.text):
                unmet[str(question.clause)] = None
            lines.append(
                Knowledge.make(
                    "statement",
                    said or f"{head[:1].upper()}{head[1:]} …",
                    prompt.item_id,
                    fields={
                        "prompt": prompt.text,
                        "pattern": prompt.pattern_id,
                        "hedge": prompt.hedge,
                        "continuation": written,
                        "finished": bool(sample.finished and said),
                        **({"related": question.related} if question.related else {}),
                        **({"unmet": list(unmet)} if unmet else {}),
                    },
                    lineage=(
                        Lineage(
                            teacher=generator.fingerprint,
                            request_key=sample.key,
                            prompt_id=prompt.id,
                            decoding=decoding_settings(config.writing, sample.request.constraint),
                            seed=config.seed,
                            round=number,
                        ),
                    ),
                )
            )
        # of equal lines the one that tells most comes first and says what became of the line
        return merge_repeats(
            sorted(
                lines,
                key=lambda line: (
                    not line.fields["finished"],
                    "unmet" in line.fields,
                    "related" not in line.fields,
                ),
            )
        )

    return run.table(
        "lines",
        Knowledge,
        make,
        stage="write",
        round=number,
        seed=config.seed,
        prompts=[one.prompt for one in questions],
        extend_words=EXTEND_WORDS,
        samples=[first, config.prompts.samples],
        model=generator,
        constraints=[one.constraint and one.constraint.fingerprint for one in questions],
        sampling=config.writing,
        batch_size=config.batch_size,
    )


def measure(
    run: Run,
    config: I2D2Config,
    number: int,
    lines: Stored[Knowledge],
    asked: Stored[Item],
    grammar: PromptGrammar,
    untouched: LocalTeacher,
) -> Stored[Knowledge]:
    """How likely each line is to the untouched model, with its own concept and with others."""
    items = {item.id: item for item in asked.records}

    def make() -> Sequence[Knowledge]:
        prompts: list[str] = []
        said: list[str] = []
        swapped: list[list[dict[str, Any]]] = []
        for line in lines.records:
            prompts.append(line.fields["prompt"])
            said.append(line.fields["continuation"])
            swaps = put_in_others(grammar, line, items, config.swaps, config.seed)
            swapped.append(swaps)
            prompts += [swap["prompt"] for swap in swaps]
            said += [line.fields["continuation"]] * len(swaps)
        with run.progress.stage(f"measure, round {number}", len(prompts), "texts") as advance:
            found = iter(
                untouched.logprobs(prompts, said, advance=advance, count_tokens=run.count_tokens)
            )
        measured = []
        for line, swaps in zip(lines.records, swapped, strict=True):
            own = next(found)
            others = [next(found) for _ in swaps]
            for swap, other in zip(swaps, others, strict=True):
                swap["logprob"], swap["tokens"] = other.total, other.tokens
            says = specificity(np.array([own.total]), np.array([[other.total for other in others]]))
            added = {
                "logprob": own.total,
                "tokens": own.tokens,
                "specificity": float(says[0]) if others and own.tokens else None,
                "swaps": swaps,
            }
            measured.append(replace(line, fields={**line.fields, **added}))
        return measured

    return run.table(
        "measured",
        Knowledge,
        make,
        stage="measure",
        round=number,
        lines=lines,
        items=asked,
        model=untouched,
        grammar=[
            (one.id, one.text, one.relation_plural, one.relation_singular, sorted(one.topics))
            for one in grammar.patterns
        ],
        swaps=config.swaps,
        seed=config.seed,
        batch_size=config.batch_size,
    )


def give_verdicts(
    run: Run,
    config: I2D2Config,
    number: int,
    lines: Stored[Knowledge],
    critic: Critic,
    earlier: Sequence[Round],
    judge: Judge | None,
) -> Stored[Verdict]:
    """What the round's critic, the critic of round 0, and the judge say of every line."""
    critics = {one.name: one for one in [earlier[0].critic if earlier else critic, critic]}

    def make() -> Sequence[Verdict]:
        texts = [line.text for line in lines.records]
        swaps = [(line.id, swap) for line in lines.records for swap in line.fields["swaps"]]
        total = len(critics) * (len(texts) + len(swaps)) + (len(texts) if judge else 0)
        verdicts: list[Verdict] = []

        def say(name: str, ids: Sequence[str], scores: Iterable[float]) -> None:
            verdicts.extend(
                Verdict(id, name, float(score), round=number)
                for id, score in zip(ids, scores, strict=True)
            )

        ids = [line.id for line in lines.records]
        with run.progress.stage(f"judge, round {number}", total, "texts") as advance:
            for one in critics.values():
                own = features([(x.fields["logprob"], x.fields["tokens"]) for x in lines.records])
                say(one.name, ids, one.scorer.score(texts, own))
                advance(len(texts))
                if swaps:
                    put_in = features([(swap["logprob"], swap["tokens"]) for _, swap in swaps])
                    scores = one.scorer.score([swap["text"] for _, swap in swaps], put_in)
                    shares: dict[str, list[bool]] = {}
                    for (id, _), score in zip(swaps, scores, strict=True):
                        shares.setdefault(id, []).append(bool(score >= one.cut))
                    say(
                        f"swap:{one.name}",
                        list(shares),
                        [sum(accepted) / len(accepted) for accepted in shares.values()],
                    )
                    advance(len(swaps))
            if judge is not None:
                say(judge.name, ids, judge.scorer.score(texts))
                advance(len(texts))
        return verdicts

    return run.table(
        "verdicts",
        Verdict,
        make,
        stage="judge",
        round=number,
        lines=lines,
        critics=[one.stored.hash for one in critics.values()],
        judge=judge and judge.name,
    )


def decide(
    run: Run,
    config: I2D2Config,
    number: int,
    lines: Stored[Knowledge],
    verdicts: Stored[Verdict],
    critic: Critic,
    earlier: Sequence[Round],
    screen: Screen | None,
) -> Stored[Verdict]:
    """Selection's word on every line: score 1 for kept, 0 for refused, with the reason."""
    this = Round(number, lines, verdicts, Stored([], ""), critic)
    candidates = this.candidates()
    first = earlier[0].candidates() if earlier else candidates
    first_cut = earlier[0].critic.cut if earlier else critic.cut
    floor = specificity_floor(first, cut=first_cut, settings=config.selection)
    kept_before = [
        one
        for round in earlier
        for one, kept in zip(round.candidates(), round.decisions.records, strict=True)
        if kept.score == 1.0
    ]
    withdrawn = withdrawn_ids(run.folder)
    barred = {
        id: f"withdrawn: {withdrawn[id]}" for one in candidates if (id := one.id) in withdrawn
    }
    unmet = {
        line.id: f"constraint: not met: {'; '.join(line.fields['unmet'])}"
        for line in lines.records
        if "unmet" in line.fields
    }
    refusing = screen if screen and screen.settings.action == "refuse" else None

    def make() -> Sequence[Verdict]:
        refused = unmet | barred
        if refusing:
            refused = refusing.refusals(this.screened(lines.records)) | refused
        decided = select(
            [one for one in candidates if one.id not in refused],
            cut=critic.cut,
            floor=floor,
            settings=config.selection,
            kept_before=kept_before,
        )
        refused |= {one.id: one.reason for one in decided if not one.kept}
        return [
            Verdict(
                one.id,
                "selection",
                float(one.id not in refused),
                reason=refused.get(one.id, ""),
                round=number,
            )
            for one in candidates
        ]

    # named only where there are any, so that other runs keep their fingerprints
    more: dict[str, Any] = {}
    if barred:
        more["withdrawn"] = barred
    if refusing:
        more["screen"] = refusing
    return run.table(
        "decisions",
        Verdict,
        make,
        stage="select",
        round=number,
        lines=lines,
        verdicts=verdicts,
        cut=critic.cut,
        floor=floor,
        settings=config.selection,
        before=[one.decisions for one in earlier],
        **more,
    )


def mark(run: Run, rounds: Sequence[Round], screen: Screen) -> Stored[Verdict]:
    """The kept lines that a person should look at, each with the reasons."""

    def make() -> Sequence[Verdict]:
        return [
            word
            for one in rounds
            for word in screen.reviews(one.screened(one.kept), round=one.number)
        ]

    return run.table(
        "review",
        Verdict,
        make,
        stage="screen",
        round=rounds[-1].number,
        lines=[one.lines for one in rounds],
        verdicts=[one.verdicts for one in rounds],
        kept=[one.decisions for one in rounds],
        screen=screen,
    )


def imitate(
    run: Run, config: I2D2Config, rounds: Sequence[Round], untouched: LocalTeacher
) -> LocalTeacher:
    """Fine-tune the untouched model on everything kept so far; gives the next generator."""
    number = rounds[-1].number + 1
    views = run.table(
        "views",
        View,
        lambda: views_of(rounds, config.replay_weight),
        stage="train",
        round=number,
        kept=[one.decisions for one in rounds],
        lines=[one.lines for one in rounds],
        replay_weight=config.replay_weight,
    )
    if not views.records:
        raise InputError(
            f"round {number - 1} kept no line, so there is nothing to imitate; lower "
            "critic.target_precision, ask about more concepts, or label more statements"
        )
    reads: dict[str, Any] = {
        "views": views,
        "model": untouched,
        "settings": config.student,
        "seed": config.seed,
    }
    checkpoints = run.checkpoints(content_hash([number, views.hash, untouched.fingerprint]))

    def make(folder: Path) -> Mapping[str, Any]:
        untouched.unload()
        steps = math.ceil(len(views.records) / config.student.batch_size) * config.student.epochs
        label = f"train, round {number}"
        with run.progress.stage(label, steps, "steps") as advance:
            done = 0

            def tell(at: TrainProgress) -> None:
                nonlocal done
                advance(at.step - done)
                done = at.step

            student = fine_tune(
                untouched.model.folder,
                views.records,
                out=folder,
                checkpoints=checkpoints,
                settings=config.student,
                seed=config.seed,
                base_name=config.model,
                progress=tell,
            )
        run.count_tokens(student.tokens_trained)
        return {
            "steps": student.steps,
            "loss_first": student.loss_first,
            "loss_last": student.loss_last,
            "trained_on": len(views.records),
        }

    student = run.folder_step("students", make, stage="train", round=number, **reads)
    run.drop_checkpoints()
    model = Model(
        f"student of round {number}", student.folder, fingerprint(student.folder), config.model
    )
    return LocalTeacher(model, batch_size=config.batch_size)


def plan(config: I2D2Config, prompts: int, *, judged: bool) -> dict[str, float]:
    """The stages to come and the seconds each takes for the embedded models on 2 CPU cores.

    Only the proportions matter: the progress bar scales them by how this machine does.
    """
    lines = prompts * config.prompts.samples
    rows = lines if config.decoding == "sampling" else prompts * config.search.num_beams
    expected_s = {"fit the judge": 12.0} if judged else {}
    expected_s |= {"likelihood of labelled lines": 28.0, "fit the critic, round 0": 45.0}
    for number in range(config.rounds + 1):
        expected_s |= {
            f"write, round {number}": 0.13 * rows,
            f"measure, round {number}": 0.023 * lines * (1 + config.swaps),
            f"judge, round {number}": 0.03 * lines,
        }
        if number < config.rounds and config.self_imitation:
            # about a sixth of the lines is kept, and a row takes a tenth of a second
            views = lines / 6 * (number + 1) * config.student.epochs
            expected_s[f"train, round {number + 1}"] = 10 + 0.1 * views
    return expected_s


def named_models(config: I2D2Config) -> dict[str, Model]:
    """The models that the configuration names, by what they are for."""
    names = {"generator": config.model, "critic": config.critic.encoder}
    if config.judge is not None:
        names["judge"] = config.judge.model
    return {role: resolve(name) for role, name in names.items()}


def about(model: Model) -> dict[str, str]:
    """What the report says of a model."""
    return {"name": model.name, "note": model.note, "fingerprint": model.fingerprint}


# -- small parts ---------------------------------------------------------------------------------


def read_grammar(settings: PromptSettings) -> PromptGrammar:
    """The prompt patterns of the configuration."""
    if settings.grammar == "everyday":
        return PromptGrammar.everyday()
    return PromptGrammar.from_yaml(settings.grammar)


def constraint_of(settings: ConstraintSettings, prompt: Prompt) -> Constraint | None:
    """I2D2's constraint program for one prompt."""
    if not settings.enforce:
        return None
    parts: list[Constraint] = []
    if settings.max_function_words is not None:
        words = phrases_of(settings.function_words, "function_words")
        parts.append(at_most(settings.max_function_words, any_of(*words)))
    if settings.connectives is not None:
        parts.append(excludes(any_of(*phrases_of(settings.connectives, "connectives"))))
    if not settings.repeat_prompt:
        parts.append(excludes(any_of(*excluded_phrases(prompt))))
    return all_of(*parts) if parts else None


@cache
def phrases_of(source: str, packaged: str) -> tuple[str, ...]:
    """The phrases of a word list: one per line, `#` begins a comment line."""
    place = files("symdistill") / "data" / "words" / f"{packaged}.txt"
    try:
        text = (place if source == "everyday" else Path(source)).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"expected a readable word list at {source}; got: {error}; check {packaged} in the "
            "configuration"
        ) from error
    phrases = [line.strip() for line in text.splitlines()]
    return tuple(phrase for phrase in phrases if phrase and not phrase.startswith("#"))


def content_of(source: str) -> str:
    """What a concept source held when it was read: a file's hash, else its name."""
    if source == "everyday":
        return content_hash(everyday_jsonl())
    path = Path(source)
    try:
        return sha256_of(path) if path.is_file() else source
    except OSError as error:
        raise InputError(
            f"expected a readable concept list at {source}; got: {error.strerror}; check its "
            "permissions"
        ) from error


def continuation_of(prompt: Prompt, said: str) -> str:
    """What the generator added to the prompt, as it stands in the statement."""
    return said[len(" ".join(prompt.text[prompt.lead :].split())) :]


def put_in_others(
    grammar: PromptGrammar, line: Knowledge, items: Mapping[str, Item], count: int, seed: int
) -> list[dict[str, Any]]:
    """The line's prompt with other concepts of the same kind put in, drawn by the line's id."""
    own = items[line.item_id]
    others = sorted(
        (item for item in items.values() if item.kind == own.kind and item.id != own.id),
        key=lambda item: content_hash([seed, line.id, item.id]),
    )
    swaps: list[dict[str, Any]] = []
    for item in others:
        if len(swaps) == count:
            break
        prompt = grammar.put_in(item, line.fields["pattern"], line.fields["hedge"])
        if prompt is not None:
            said = line.fields["continuation"]
            swaps.append({"item": item.id, "prompt": prompt.text, "text": statement(prompt, said)})
    return swaps


def views_of(rounds: Sequence[Round], replay_weight: float) -> list[View]:
    """One training row per kept line: the prompt as it was given, and what was written."""
    last = rounds[-1].number
    return [
        View(
            prompt=line.fields["prompt"],
            target=line.fields["continuation"],
            weight=1.0 if one.number == last else replay_weight,
            group=line.item_id,
            knowledge_ids=(line.id,),
            round=one.number,
        )
        for one in rounds
        for line in one.kept
    ]
