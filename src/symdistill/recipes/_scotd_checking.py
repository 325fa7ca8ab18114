"""Which chains of thought a student may learn from: checked, compared with the test, chosen."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from symdistill.answers import kind_of
from symdistill.models import resolve
from symdistill.pool import withdrawn_ids
from symdistill.recipes._asking import asked
from symdistill.recipes._scotd_asking import Shot, question_text, read_shots
from symdistill.recipes._scotd_settings import ScotdConfig
from symdistill.records import Item, Knowledge, Verdict, content_hash, merge_repeats
from symdistill.run import Run, Stored, StoredFolder
from symdistill.selection import Screen, ScreenedLine
from symdistill.selection.contamination import Contamination
from symdistill.selection.embeddings import sentence_embedder
from symdistill.selection.rationales import Candidate, select_rationales
from symdistill.students.reasoning_views import build_views, fitting, usable
from symdistill.teachers import open_backend
from symdistill.teachers.base import Answer, Ask, Decoding, Prompt
from symdistill.verifiers.checking import check
from symdistill.verifiers.extraction import EXTRACTOR_VERSION, Extracted
from symdistill.verifiers.recovery import read_recovery, recovery_prompt
from symdistill.verifiers.voting import Vote, agree, vote

ANSWER = f"answer@{EXTRACTOR_VERSION}"
RECOVERY = "recovery"
SELECTION = "selection"


def check_answers(
    run: Run,
    items: Mapping[str, Item],
    written: Mapping[str, StoredFolder],
    lines: Sequence[Knowledge],
) -> Stored[Verdict]:
    """For every chain whether its answer is the gold one: 1, 0, or unknown without gold."""

    def make() -> list[Verdict]:
        found = []
        with run.progress.stage("check answers", len(lines), "chains") as advance:
            for line in lines:
                one = check(items[line.item_id], extracted(line))
                score = None if one.correct is None else float(one.correct)
                found.append(Verdict(line.id, ANSWER, score, one.status, one.reason))
                advance(1)
        return found

    return run.table(
        "answers", Verdict, make, stage="verify", written=written,
        gold={id: item.gold for id, item in items.items()}, extractor=EXTRACTOR_VERSION,
    )  # fmt: skip


def second_opinion(
    run: Run,
    config: ScotdConfig,
    items: Mapping[str, Item],
    written: Mapping[str, StoredFolder],
    chains: Mapping[str, Sequence[Knowledge]],
    right: Stored[Verdict],
) -> Stored[Verdict] | None:
    """What `filter.keep` asks beside the gold answer, of every chain that may be trained on."""
    if config.filter.keep == "recovered":
        return recover_answers(run, config, items, chains, right)
    if config.filter.keep == "majority":
        judge = of_the_majority
    elif config.filter.keep == "agreeing":
        judge = of_the_others
    else:
        return None

    def make() -> list[Verdict]:
        whys = judge(config, items, chains)
        return [Verdict(id, config.filter.keep, float(not why), reason=why) for id, why in whys]

    return run.table(
        "opinion", Verdict, make, stage="verify", written=written, right=right,
        keep=config.filter.keep, confidence=config.filter.confidence,
        train_on=list(config.train_on),
    )  # fmt: skip


def recover_answers(
    run: Run,
    config: ScotdConfig,
    items: Mapping[str, Item],
    chains: Mapping[str, Sequence[Knowledge]],
    right: Stored[Verdict],
) -> Stored[Verdict]:
    """For every right chain whether a language model finds the answer from it, unstated."""
    settings = config.filter.recovery
    good = {one.knowledge_id for one in right.records if one.score == 1.0}
    some = [line for line in to_train_on(config, chains) if line.id in good]
    backend = open_backend(settings.model, seed=config.seed)
    decoding = Decoding(temperature=0.0, max_new_tokens=settings.max_new_tokens, stop=("\n\n",))
    shots = read_shots(settings.shots, kind_of(next(iter(items.values()))))
    asks = [
        Ask(
            recovery_ask(config, items[line.item_id], line.fields["rationale"], shots), line.item_id
        )
        for line in some
    ]

    def make() -> list[Verdict]:
        found = []
        outcomes = asked(run, config, settings.model, asks, decoding, RECOVERY, backend)
        for line, one in zip(some, outcomes, strict=True):
            if isinstance(one, Answer):
                said = read_recovery(one.text, items[line.item_id], line.fields["rationale"])
                score = None if said.correct is None else float(said.correct)
                found.append(Verdict(line.id, RECOVERY, score, said.status, said.reason, one.key))
            else:
                why = f"{one.kind}: {one.reason}"
                found.append(Verdict(line.id, RECOVERY, None, "infra_error", why, one.key))
        return found

    return run.table(
        "opinion", Verdict, make, stage="verify", right=right, settings=settings,
        asks=content_hash([one.prompt for one in asks], 64), lines=[line.id for line in some],
        model=dict(backend.identity), extractor=EXTRACTOR_VERSION,
    )  # fmt: skip


def recovery_ask(config: ScotdConfig, item: Item, rationale: str, shots: Sequence[Shot]) -> Prompt:
    """What the model that is to find the answer reads."""
    text = recovery_prompt(item, rationale, shots)
    api = config.filter.recovery.model.api
    return text if api == "completions" else ({"role": "user", "content": text},)


def of_the_majority(
    config: ScotdConfig, items: Mapping[str, Item], chains: Mapping[str, Sequence[Knowledge]]
) -> Iterator[tuple[str, str]]:
    """By chain why its answer is not the question's most frequent one; empty: it is."""
    lines = to_train_on(config, chains)
    most = votes(items, lines)
    for line in lines:
        said = most[line.item_id]
        if said.confidence < config.filter.confidence:
            yield line.id, "no clear majority"
        else:
            same = agree(said.answer, line.fields["answer"], kind_of(items[line.item_id]))
            yield line.id, "" if same else "not the majority's answer"


def of_the_others(
    config: ScotdConfig, items: Mapping[str, Item], chains: Mapping[str, Sequence[Knowledge]]
) -> Iterator[tuple[str, str]]:
    """By chain why the other teachers' most frequent answer is another; empty: it is the same."""
    seen: set[str] = set()
    for name in config.train_on:
        others = votes(
            items, [line for other, some in chains.items() if other != name for line in some]
        )
        for line in chains[name]:
            said = others.get(line.item_id)
            kind = kind_of(items[line.item_id])
            same = said is not None and agree(said.answer, line.fields["answer"], kind)
            if line.id not in seen:
                yield line.id, "" if same else "the other teachers do not agree"
            seen.add(line.id)


def votes(items: Mapping[str, Item], lines: Sequence[Knowledge]) -> dict[str, Vote]:
    """The most frequent answer to each question, every sample counted."""
    answers: dict[str, list[str | None]] = defaultdict(list)
    for line in lines:
        answers[line.item_id] += [line.fields["answer"]] * max(1, len(line.lineage))
    return {id: vote(said, kind_of(items[id])) for id, said in answers.items()}


def choose(
    run: Run,
    config: ScotdConfig,
    items: Mapping[str, Item],
    written: Mapping[str, StoredFolder],
    chains: Mapping[str, Sequence[Knowledge]],
    right: Stored[Verdict],
    opinion: Stored[Verdict] | None,
    marked: Mapping[str, str],
) -> Stored[Verdict]:
    """Selection's word on every chain of the teachers to train on: 1 kept, 0 and why not.

    What no row can be made of is refused before the filter counts its budget. Lines that were
    withdrawn are refused in the end, so that taking one back moves no other.
    """
    settings = config.filter
    lines = to_train_on(config, chains)
    test = [(item.id, question_text(item)) for item in items.values() if item.split == "test"]

    def make() -> list[Verdict]:
        reason = refusals(config, items, lines, right, opinion, marked, test)
        left = [line for line in lines if not reason[line.id]]
        candidates = [
            Candidate(line.id, line.item_id, line.text, line.fields["logprob_mean"])
            for line in left
        ]
        chosen = select_rationales(
            candidates, settings.strategy, settings.per_question, seed=config.seed,
            embed=sentence_embedder(),
        )  # fmt: skip
        for line in left:
            if line.id not in chosen.ids:
                reason[line.id] = f"not among those that {settings.strategy} chooses"
        return [Verdict(id, SELECTION, float(not why), reason=why) for id, why in reason.items()]

    student = config.student
    stored = run.table(
        "selection", Verdict, make, stage="select", written=written, right=right, opinion=opinion,
        settings=settings.model_dump(exclude={"recovery"}), train_on=list(config.train_on),
        test=test, decontaminate=config.decontaminate, marked=dict(marked), seed=config.seed,
        format=config.format, student=student and resolve(student.model).fingerprint,
        longest=student and student.training.max_length_tokens,
    )  # fmt: skip
    gone = withdrawn_ids(run.folder)
    records = [
        replace(one, score=0.0, reason="withdrawn") if one.knowledge_id in gone else one
        for one in stored.records
    ]
    return replace(stored, records=records)


def refusals(
    config: ScotdConfig,
    items: Mapping[str, Item],
    lines: Sequence[Knowledge],
    right: Stored[Verdict],
    opinion: Stored[Verdict] | None,
    marked: Mapping[str, str],
    test: Sequence[tuple[str, str]],
) -> dict[str, str]:
    """By chain why it cannot be trained on; empty: it can."""
    good = {one.knowledge_id: one for one in right.records}
    second = {one.knowledge_id: one for one in opinion.records} if opinion else {}
    clean = Contamination(test, config.decontaminate) if test else None
    whole, _ = usable(lines)
    rationales = {line.id for line in whole}
    long = too_long(config, items, whole)

    def reason(line: Knowledge) -> str:
        if line.fields["answer"] is None:
            return f"no answer: {line.fields['reason']}"
        if config.filter.keep in ("right", "recovered") and (one := good[line.id]).score != 1.0:
            return "wrong answer" if one.status == "ok" else f"unchecked: {one.reason}"
        if config.filter.keep == "recovered" and second[line.id].score != 1.0:
            return f"answer not recovered: {second[line.id].reason}"
        if opinion is not None and second[line.id].score != 1.0:
            return second[line.id].reason
        if line.id not in rationales:
            return "no rationale"
        if line.id in long:
            return f"too long: {long[line.id]}"
        if clean is not None and config.decontaminate.enabled and (found := clean.find(line.text)):
            return f"holds a test question ({found.how}): {found.test_id}"
        return marked.get(line.id, "")

    return {line.id: reason(line) for line in lines}


def too_long(
    config: ScotdConfig, items: Mapping[str, Item], lines: Sequence[Knowledge]
) -> dict[str, str]:
    """Chains whose row is longer than a student may read, each with its length."""
    if config.student is None:
        return {}
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(resolve(config.student.model).folder))
    views = build_views(items, lines, "scotd", format=config.format)
    _, left_out = fitting(views, tokenizer, config.student.training.max_length_tokens)
    return {id: one.reason for one in left_out for id in one.knowledge_ids}


def to_train_on(config: ScotdConfig, chains: Mapping[str, Sequence[Knowledge]]) -> list[Knowledge]:
    """The distinct chains of the teachers that are trained on, by id."""
    return distinct([line for name in config.train_on for line in chains[name]])


def screened(run: Run, config: ScotdConfig, lines: Sequence[Knowledge]) -> list[Verdict]:
    """The chains that a person should look at, each with the reasons."""
    screen = Screen(config.screen)
    return list(screen.reviews([ScreenedLine(line.id, line.text) for line in lines]))


def extracted(line: Knowledge) -> Extracted:
    """What was found in a chain when it was written down."""
    fields = line.fields
    return Extracted(fields["answer"], fields["rationale"], True, fields["reason"])


def distinct(lines: Sequence[Knowledge]) -> list[Knowledge]:
    """Each line once, by id, with all its occasions; its fields are those of the first."""
    return sorted(merge_repeats(lines), key=lambda one: one.id)


def reasons(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How often each reason was given, the most frequent first; details after a colon left off."""
    counted = Counter(one.reason.partition(":")[0] for one in verdicts if one.reason)
    return dict(counted.most_common())
