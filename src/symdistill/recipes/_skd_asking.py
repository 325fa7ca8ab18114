"""How `skd` asks: seeds and prompts, what a head or a tail must be, and what an answer brings."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from symdistill.datafiles import read_rows
from symdistill.errors import InputError
from symdistill.recipes._asking import existing
from symdistill.recipes._skd_settings import HeadSettings, SKDConfig
from symdistill.records import normalise
from symdistill.relations import Relation
from symdistill.run import Run
from symdistill.teachers import TeacherSettings
from symdistill.teachers.base import Answer, Ask, Prompt

GO_ON = "Go on with the text. Write only what comes next, on one line."


def read_seeds(source: str) -> list[str]:
    """The seeds of a text file, one a line; "events" is the packaged one."""
    if source == "events":
        place = files("symdistill") / "data" / "relations" / "events_seeds.txt"
        path = Path(str(place))
    else:
        path = existing(source)
    seeds = [row["text"] for _, row in read_rows(path, ["text"], what="seeds")
             if not isinstance(row, str)]  # fmt: skip
    if not seeds:
        raise InputError(f"expected at least one seed in {path}; got none; write one a line")
    return seeds


def heads_of_file(wanted: HeadSettings) -> Mapping[str, Any]:
    """The distinct heads of a file, in its order."""
    path = existing(str(wanted.source))
    refused: Counter[str] = Counter()
    found: dict[str, dict[str, Any]] = {}
    for _, row in read_rows(path, ["head"], what="heads"):
        text = "" if isinstance(row, str) else " ".join(str(row.get("head") or "").split())
        if not text:
            refused[row if isinstance(row, str) else "no text in 'head'"] += 1
        elif normalise(text) in found:
            refused["a repeat"] += 1
        else:
            found[normalise(text)] = {"text": text.rstrip(" .")}
    heads = list(found.values())[: wanted.limit]
    refused["above the limit"] += len(found) - len(heads)
    return {"heads": heads, "asked": 0, "refused": dict(+refused)}


def head_asks(config: SKDConfig) -> list[Ask]:
    """One prompt per head asked for, each with its own draw of seeds."""
    wanted = config.heads
    seeds = read_seeds(wanted.seeds)
    asks = []
    for number in range(wanted.samples):
        drawn = random.Random(f"{config.seed} {number}").sample(
            seeds, min(wanted.per_prompt, len(seeds))
        )
        lines = [f"{n}. {wanted.label}: {seed}" for n, seed in enumerate(drawn, start=1)]
        text = "\n\n".join([*lines, f"{len(drawn) + 1}. {wanted.label}:"])
        asks.append(Ask(prompt_of(config.teacher, text), str(number)))
    return asks


def head_refused(wanted: HeadSettings, one: Answer, text: str) -> str:
    """Why a head is refused; empty: it is not."""
    if one.finish_reason != "stop":
        return "not finished"
    if not re.match(wanted.accept, text):
        return "does not begin as heads.accept says"
    if not re.fullmatch(f"(?:{wanted.characters})+", text):
        return "a character that heads.characters does not allow"
    return ""


def best_heads(run: Run, wanted: HeadSettings, heads: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The heads without the worst ranked, at most `limit`."""
    if wanted.rank is not None and any(one["logprob"] is None for one in heads):
        run.progress.say(
            "the teacher gives no log-probabilities, so heads are not ranked and none is dropped "
            "for its rank; set heads.rank: null"
        )
    elif wanted.rank is not None:
        per = (lambda one: max(one["tokens"], 1)) if wanted.rank == "mean" else (lambda one: 1)
        heads = sorted(heads, key=lambda one: -one["logprob"] / per(one))
        heads = heads[: len(heads) - int(wanted.drop_worst * len(heads))]
    return heads[: wanted.limit]


def tail_refused(config: SKDConfig, relation: Relation, head: str, tail: str, one: Answer) -> str:
    """Why a tail is refused before anyone judges it; empty: it is not."""
    if one.finish_reason != "stop":
        return "not finished"
    if len(tail) < config.inferences.min_characters:
        return "too short"
    if relation.strangers(head, tail):
        return "names someone of the examples"
    return ""


def prompt_of(who: TeacherSettings, text: str) -> Prompt:
    """A text to go on with, or a chat that asks to go on with it."""
    if who.api == "completions":
        return text
    return ({"role": "system", "content": GO_ON}, {"role": "user", "content": text})


def first_line(text: str) -> str:
    """The first line without its final stop."""
    lines = text.strip().splitlines()
    return " ".join(lines[0].split()).rstrip(" .") if lines else ""
