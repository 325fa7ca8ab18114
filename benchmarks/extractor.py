"""The answer extractor on what real teachers wrote: `python -m benchmarks.extractor --data FOLDER`.

Reads the rationales of FOLDER/rationales (gzip-compressed JSON lines, see the folder's README),
counts how many answers are found and right beside the counts stored with the data, reads 10^5
random texts, and times long ones. The stored answers are not the truth: `--show-disagreements N`
prints the rows that differ, for reading. Takes about two minutes on one core.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.result import finish
from symdistill.answers import AnswerKind, canonical
from symdistill.records import Item
from symdistill.verifiers import EXTRACTOR_VERSION, Check, Extracted, check, extract

KINDS: dict[str, AnswerKind] = {
    "cqa": "choice", "esnli": "choice", "date": "choice", "shuffled": "choice",
    "svamp": "number", "multiarith": "number", "gsm8k": "number",
    "last_letter": "text", "strategyqa": "yes_no",
    "boolean_expressions": "true_false", "formal_fallacies": "valid_invalid",
    "multistep_arithmetic_two": "number", "object_counting": "number",
    "sports_understanding": "yes_no", "web_of_lies": "yes_no", "navigate": "yes_no",
    "causal_judgement": "yes_no", "dyck_languages": "text", "word_sorting": "text",
}  # fmt: skip
FREE_WORDING = ("gpt35", "faithfulcot")  # no prompt set the words of the last sentence
FUZZED = 100_000

# The 200 rows of `--show-disagreements 200`, read one by one by a language model, not
# by people, mostly from the last 240 characters of each text.
READ = {
    "ours is right": 133,  # or refuses rightly: "(A) or (B)", no option fits, cut off
    "the stored one is right": 5,
    "contradictory: the letter of one option, the text of another": 36,  # ours refuses
    "implied, no yes or no is stated": 21,  # ours refuses
    "neither is right": 1,
    "unclear": 4,
}


def main() -> None:
    """Count, fuzz, time, and write the result."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--show-disagreements", type=int, default=0, metavar="N")
    arguments.add_argument("--seed", type=int, default=0)
    asked = arguments.parse_args()
    files = sorted((asked.data / "rationales").glob("*.jsonl.gz"))
    if not files:
        print(json.dumps({"skipped": f"no rationales in {asked.data}"}))
        return
    rows: dict[str, Counter[str]] = {}
    differing: list[dict[str, Any]] = []
    for file in files:
        count(file, rows, differing)
    if asked.show_disagreements:
        show(differing, asked.show_disagreements, asked.seed)
        return
    table = {name: dict(counted) for name, counted in rows.items()}
    for name, counted in table.items():
        print(f"{name:45}", *(f"{key} {counted.get(key, 0)}" for key in COLUMNS))
    fuzzed = fuzz(FUZZED, asked.seed)
    times = long_texts()
    headline = {
        "benchmark": "extractor",
        "extractor_version": EXTRACTOR_VERSION,
        **{key: sum(one.get(key, 0) for one in table.values()) for key in COLUMNS},
        "exceptions": sum(one.get("exceptions", 0) for one in table.values()),
        "fuzzed": FUZZED,
        "fuzz_exceptions": fuzzed,
        "seconds_per_million_characters": times,
        "disagreements": len(differing),
        "disagreements_read": READ,
    }
    finish("extractor", headline, table)


COLUMNS = (
    "rows", "parsed", "stored_parsed", "right", "stored_right", "anchored", "refused",
    "stated_nowhere", "stored_right_stated_nowhere",
)  # fmt: skip


def count(file: Path, rows: dict[str, Counter[str]], differing: list[dict[str, Any]]) -> None:
    """Read one file, add its counts to the rows and its differences to the list."""
    stem = file.name.removesuffix(".jsonl.gz")
    for row in _records(file):
        name = f"{stem} {row['teacher']}" if stem.startswith("faithfulcot") else stem
        counted = rows.setdefault(name, Counter())
        item = question(row)
        try:
            found = read(stem, row, item)
            verdict = check(item, found)
        except Exception as error:  # counted: there must be none
            counted["exceptions"] += 1
            print(row["id"], repr(error))
            continue
        nowhere = not is_stated(item, row["text"])
        counted.update(
            rows=1,
            parsed=found.value is not None,
            right=verdict.correct is True,
            anchored=found.anchored and found.value is not None,
            refused=found.value is None and found.reason not in ("no answer", "cut off"),
            stored_parsed=row["parsed_answer"] is not None,
            stored_right=row["correct"] is True,
            stated_nowhere=nowhere,
            stored_right_stated_nowhere=nowhere and row["correct"] is True,
        )
        if differs(item, row, found, verdict):
            differing.append({"row": row, "item": item, "found": found, "file": stem})


def question(row: dict[str, Any]) -> Item:
    """A row of the data as a question; its gold answer in canonical spelling."""
    choices = tuple(row.get("choices") or ())
    kind: AnswerKind = "choice" if choices else KINDS[row["task"]]
    gold = row.get("gold_expression") or row["gold"]  # some numbers are stored rounded
    if kind == "choice":
        place = row.get("gold_index")
        gold = chr(ord("A") + place) if place is not None else None
    fields = {"answer_kind": kind, "choices": list(choices)}
    text = row.get("question") or f"{row['premise']} {row['hypothesis']}"
    gold = canonical(kind, str(gold), choices) if gold is not None else None
    return Item.make("question", text, gold=gold, fields=fields)


def read(stem: str, row: dict[str, Any], item: Item) -> Extracted:
    """What the extractor finds, as a recipe would call it."""
    text = row["text"]
    if "llm_label" in row:  # e-SNLI was stored without its final statement: the label is beside it
        text += f"\nSo the answer is {row['llm_label']}." if row["llm_label"] else ""
    kind: AnswerKind = item.fields["answer_kind"]
    free = stem.startswith(FREE_WORDING)
    return extract(text, kind, item.fields["choices"], anchored_only=not free)


def is_stated(item: Item, text: str) -> bool:
    """Whether a yes or no stands anywhere in the text; other kinds are taken to state theirs."""
    if item.fields["answer_kind"] != "yes_no":
        return True
    return re.search(r"\b(?:yes|no)\b", text, re.IGNORECASE) is not None


def differs(item: Item, row: dict[str, Any], found: Extracted, verdict: Check) -> bool:
    """Whether our answer, or what we think of it, is not the stored one."""
    if (verdict.correct is True) != (row["correct"] is True):
        return True
    if verdict.correct is True:
        return False
    stored = row["parsed_answer"]
    if stored is None or found.value is None:
        return (stored is None) != (found.value is None)
    kind: AnswerKind = item.fields["answer_kind"]
    as_gold = replace(item, gold=canonical(kind, str(stored), item.fields["choices"]))
    return check(as_gold, found).correct is not True  # their answer is not ours


def show(differing: list[dict[str, Any]], n: int, seed: int) -> None:
    """Print a sample of the rows that differ, spread over the files."""
    by_file: dict[str, list[dict[str, Any]]] = {}
    for one in random.Random(seed).sample(differing, len(differing)):
        by_file.setdefault(one["file"], []).append(one)
    print({name: len(of_file) for name, of_file in by_file.items()})
    chosen = [one for layer in _layers(list(by_file.values())) for one in layer][:n]
    for i, one in enumerate(chosen, start=1):
        row, found = one["row"], one["found"]
        shown = row["text"] if len(row["text"]) < 700 else "... " + row["text"][-500:]
        if found.cut:
            shown = found.rationale[-300:] + row["text"][len(found.rationale) :][:120]
        print(f"\n{i}. {one['file']} {row['id']} | gold {row['gold']!r} {row.get('choices') or ''}")
        print(f"   ours {found.value!r} {found.reason!r} stored {row['parsed_answer']!r} "
              f"{row['correct']} anchored {found.anchored}")  # fmt: skip
        print(f"   {row.get('question', '')[-160:]!r}\n   {shown!r}")


def _layers(lists: list[list[Any]]) -> Iterator[list[Any]]:
    for i in range(max((len(one) for one in lists), default=0)):
        yield [one[i] for one in lists if i < len(one)]


PIECES = (
    "####", "\\boxed{", "}", "{", "(", ")", "the answer is", "So the answer is", "ANSWER:", "\n",
    "\nQ:", "\n\nQuestion:", "(A)", "(g)", " or ", " and ", "12", "-", "$", "1,234", "3/4", ".5",
    "٣", "²", "\\frac{1}{2}", "=", "*", "**", "yes", "No", "not ", "valid", "invalid", "True", '"',
    "“", "é", "日本", "\x00", "\x1b", "\u2028", "\ud83d", "e", "9" * 50, " ", ". ", "swim",
    "<answer>",
)  # fmt: skip


def fuzz(n: int, seed: int) -> int:
    """How many of n random mixes of anchors, numbers, brackets and odd characters raise."""
    rng = random.Random(seed)
    kinds: tuple[AnswerKind, ...] = tuple(dict.fromkeys(KINDS.values()))
    raised = 0
    for i in range(n):
        text = "".join(rng.choices(PIECES, k=rng.randrange(40)))
        kind = kinds[i % len(kinds)]
        choices = rng.choices(
            ("swim", "run", "3", "B", "swim a lot", "", "(A)"), k=rng.randrange(6)
        )
        try:
            extract(text, kind, choices, anchored_only=i % 3 == 0, complete=i % 5 > 0)
        except Exception as error:  # counted: there must be none
            raised += 1
            print(repr(text), kind, choices, repr(error))
    return raised


def long_texts() -> dict[str, float]:
    """Seconds to read a million characters of kinds that are hard on patterns."""
    units = {
        "words": "the cat sat on 3 mats. ", "anchors": "the answer is ", "boxes": "\\boxed{",
        "blanks": " ", "lines": "\n", "brackets": "(", "digits": "1", "letters": "so ",
    }  # fmt: skip
    taken = {}
    for name, unit in units.items():
        text = (unit * (1_000_000 // len(unit) + 1))[:1_000_000]
        start = time.perf_counter()
        extract(text, "number")
        extract(text, "choice", ("swim", "run"))
        taken[name] = round((time.perf_counter() - start) / 2, 3)
    return taken


def _records(file: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


if __name__ == "__main__":
    main()
