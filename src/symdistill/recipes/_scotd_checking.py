"""Which chains of thought a student may learn from: checked, compared with the test, chosen."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from symdistill.answers import kind_of
from symdistill.recipes._asking import asked
from symdistill.recipes._scotd_asking import question_text, read_shots
from symdistill.recipes._scotd_settings import ScotdConfig
from symdistill.records import Item, Knowledge, Verdict
from symdistill.run import Run, Stored, StoredFolder
from symdistill.selection import Screen, ScreenedLine
from symdistill.selection.contamination import Contamination
from symdistill.selection.embeddings import sentence_embedder
from symdistill.selection.rationales import Candidate, select_rationales
from symdistill.teachers import open_backend
from symdistill.teachers.base import Answer, Ask, Decoding
from symdistill.verifiers.checking import check
from symdistill.verifiers.extraction import EXTRACTOR_VERSION, Extracted
from symdistill.verifiers.recovery import read_recovery, recovery_prompt
from symdistill.verifiers.voting import agree, vote

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
        "answers", Verdict, make, stage="verify", written=list(written.values()),
        extractor=EXTRACTOR_VERSION,
    )  # fmt: skip


def recover_answers(
    run: Run,
    config: ScotdConfig,
    items: Mapping[str, Item],
    right: Stored[Verdict],
    lines: Sequence[Knowledge],
) -> Stored[Verdict]:
    """For every right chain whether a language model finds the answer from it, unstated."""
    settings = config.filter.recovery
    good = {one.knowledge_id for one in right.records if one.score == 1.0}
    some = [line for line in lines if line.id in good]
    backend = open_backend(settings.model, seed=config.seed)
    decoding = Decoding(temperature=0.0, max_new_tokens=settings.max_new_tokens, stop=("\n\n",))

    def make() -> list[Verdict]:
        kind = kind_of(next(iter(items.values())))
        shots = read_shots(settings.shots, kind)
        asks = []
        for line in some:
            text = recovery_prompt(items[line.item_id], line.fields["rationale"], shots)
            chat = ({"role": "user", "content": text},)
            asks.append(Ask(text if settings.model.api == "completions" else chat, line.item_id))
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
        "recovery", Verdict, make, stage="verify", right=right, settings=settings,
        model=dict(backend.identity),
    )  # fmt: skip


def choose(
    run: Run,
    config: ScotdConfig,
    items: Mapping[str, Item],
    by_teacher: Mapping[str, Sequence[Knowledge]],
    right: Stored[Verdict],
    recovered: Stored[Verdict] | None,
    marked: Mapping[str, str],
) -> Stored[Verdict]:
    """Selection's word on every chain of the teachers to train on: 1 kept, 0 and why not."""
    settings = config.filter
    lines = distinct([line for name in config.train_on for line in by_teacher[name]])

    def make() -> list[Verdict]:
        refused = {line.id: why for line in lines if (why := first_reason(line))}
        left = [line for line in lines if line.id not in refused]
        candidates = [
            Candidate(line.id, line.item_id, line.text, line.fields["logprob_mean"])
            for line in left
        ]
        chosen = select_rationales(
            candidates,
            settings.strategy,
            settings.per_question,
            seed=config.seed,
            embed=sentence_embedder(),
        )
        kept = set(chosen.ids)
        for line in left:
            if line.id not in kept:
                refused[line.id] = f"not among those that {settings.strategy} chooses"
        return [
            Verdict(
                line.id, SELECTION, float(line.id not in refused), reason=refused.get(line.id, "")
            )
            for line in lines
        ]

    test = [(item.id, question_text(item)) for item in items.values() if item.split == "test"]
    clean = None
    if config.decontaminate.enabled and test:
        clean = Contamination(test, config.decontaminate)
    wanted = wanted_lines(config, items, by_teacher, right, recovered)

    def first_reason(line: Knowledge) -> str:
        if line.fields["answer"] is None:
            return f"no answer: {line.fields['reason']}"
        if why := wanted[line.id]:
            return why
        if clean is not None and (found := clean.find(line.text)):
            return f"holds a test question ({found.how}): {found.test_id}"
        return marked.get(line.id, "")

    return run.table(
        "selection", Verdict, make, stage="select", right=right, recovered=recovered,
        settings=settings, train_on=list(config.train_on), test=[id for id, _ in test],
        decontaminate=config.decontaminate, marked=dict(marked), seed=config.seed,
    )  # fmt: skip


def wanted_lines(
    config: ScotdConfig,
    items: Mapping[str, Item],
    by_teacher: Mapping[str, Sequence[Knowledge]],
    right: Stored[Verdict],
    recovered: Stored[Verdict] | None,
) -> dict[str, str]:
    """By line why `filter.keep` does not want it; empty: it does."""
    keep = config.filter.keep
    good = {one.knowledge_id: one for one in right.records}
    found = {one.knowledge_id: one for one in recovered.records} if recovered else {}
    mine = [line for name in config.train_on for line in by_teacher[name]]
    majority = votes(items, mine)
    others = votes(
        items,
        [line for name, some in by_teacher.items() if name not in config.train_on for line in some],
    )

    def reason(line: Knowledge) -> str:
        kind = kind_of(items[line.item_id])
        answer = line.fields["answer"]
        verdict = good[line.id]
        if keep in ("right", "recovered") and verdict.score != 1.0:
            return "wrong answer" if verdict.status == "ok" else f"unchecked: {verdict.reason}"
        if keep == "recovered" and found[line.id].score != 1.0:
            return f"answer not recovered {found[line.id].reason}".strip()
        if keep == "majority":
            said = majority[line.item_id]
            if said.confidence < config.filter.confidence:
                return "no clear majority"
            return "" if agree(said.answer, answer, kind) else "not the majority's answer"
        if keep == "agreeing":
            said = others.get(line.item_id)
            same = said is not None and agree(said.answer, answer, kind)
            return "" if same else "the other teachers do not agree"
        return ""

    return {line.id: reason(line) for line in mine}


def votes(items: Mapping[str, Item], lines: Sequence[Knowledge]) -> dict[str, Any]:
    """The most frequent answer to each question, every sample counted."""
    answers: dict[str, list[str | None]] = defaultdict(list)
    for line in lines:
        answers[line.item_id] += [line.fields["answer"]] * max(1, len(line.lineage))
    return {id: vote(said, kind_of(items[id])) for id, said in answers.items()}


def screened(run: Run, config: ScotdConfig, lines: Sequence[Knowledge]) -> list[Verdict]:
    """The chains that a person should look at, each with the reasons."""
    screen = Screen(config.screen)
    return list(screen.reviews([ScreenedLine(line.id, line.text) for line in lines]))


def extracted(line: Knowledge) -> Extracted:
    """What was found in a chain when it was written down."""
    fields = line.fields
    return Extracted(fields["answer"], fields["rationale"], True, fields["reason"])


def distinct(lines: Sequence[Knowledge]) -> list[Knowledge]:
    """Each line once, by id: what two teachers wrote word for word is the first one's."""
    return sorted({line.id: line for line in reversed(lines)}.values(), key=lambda one: one.id)


def reasons(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How often each reason was given, the most frequent first; details after a colon left off."""
    counted = Counter(one.reason.partition(":")[0] for one in verdicts if one.reason)
    return dict(counted.most_common())
