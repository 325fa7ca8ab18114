"""NeuroLogic decoding against beam search: what constraints cost, and what they bring.

On CommonGen's development items (benchmarks/commongen.py), with the embedded model and, for speed
only, with a GPT-2 of the small one's default sizes, at random weights from a fixed seed. That one
has the embedded model's tokenizer and vocabulary (49,152 tokens, GPT-2's own has 50,257): no
other tokenizer is at hand, and what it writes means nothing.

    speed        seconds per sentence / those of `model.generate(num_beams=k, do_sample=False,
                 early_stopping=False, length_penalty=1.0)`, batch 8; both write exactly
                 `--tokens` tokens, no end allowed before
    anatomy      the same on 8 items: ours without constraints (`empty`), both up to the first
                 token, CTranslate2's beam search (float32) where it is installed
    natural      the same where texts may end; ours ends only when every clause is met
    lookahead    the speed once more with greedy lookahead, l = 5, shortlist 2k, on 16 items
    bookkeeping  the search's own time with constraints minus that without, over a step's time
    quality      coverage, ROUGE-L, BLEU-4 and log-probability of every system in `SYSTEMS`
    growth, hits the search without a model (benchmarks/neurologic_alone.py)

Speed: prompts have no examples, as `generate` reads a prompt once for each beam and a long one
would flatter us; `overhead_behind_prompt` leaves out what both need up to the first token (ours
without constraints, so that compiling stays in). Systems take turns batch by batch, each repeat in
the other order; every ratio is of sums over all items within one repeat, given is the median of
the repeats. Compiling the constraints counts, reading the vocabulary (once per tokenizer) does not.

Quality: all systems write up to `--tokens` tokens and end with the end token or with one whose
text ends in ".", "!" or "?". Coverage: every clause met, by the text itself, and the text ended.
Intervals are 95 %, by bootstrap over items, differences paired. Generate-then-filter may compute
as many rows of one token as ours did (`row_forwards`), prompts and scoring free of charge; only
tokens up to the end of each sample are charged. `filter_found` compares on the items for which it
found a text; `filter` takes the best text that fails for the others. "Best" is by the same
score as in the beams, log-probability / tokens ** `--length-penalty`. The two `reference`
systems are ours with the settings of NeuroLogic's published scripts, not its code; they may end
unmet, as there.

    python -m benchmarks.neurologic --data FOLDER [--items 64] [--beams 4 8 20] [--threads 2]
        [--models smollm2 gpt2-random] [--parts speed natural ...] [--systems ours beam ...]

The GPU is taken where there is one. Each figure enters benchmarks/results/neurologic.json as soon
as it is there, under its device, and replaces the one before; the last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.commongen import (
    EXAMPLES,
    Item,
    Written,
    difference,
    figures,
    is_feasible,
    prompt,
    read_items,
)
from benchmarks.neurologic_alone import growth, hits
from benchmarks.result import FOLDER, commit, finish
from symdistill.constraints import all_of
from symdistill.datafiles import write_rows
from symdistill.records import content_hash

RESULT = FOLDER / "neurologic.json"
BATCH = 8
SENTENCE_FINAL = (".", "!", "?")


@dataclass
class Bench:
    """A model with its tokenizer, and what this run was asked for."""

    name: str
    model: Any
    tokenizer: Any
    given: argparse.Namespace
    note: str
    ends: list[int]  # the end token, and those with which a sentence ends
    examples: int = 0  # in each prompt

    def prompts(self, items: Sequence[Item]) -> list[str]:
        """The items' requests."""
        return [prompt(item, self.tokenizer, self.examples) for item in items]

    def forget(self) -> None:
        """Drop what was compiled, so that it is compiled again for each repeat."""
        from symdistill.decoding.neurologic import table_of

        table_of(self.tokenizer).compiled.clear()

    def decode(self, items: Sequence[Item], beams: int, **settings: Any) -> list[Any]:
        """The best hypothesis of each item, by ours."""
        from symdistill.decoding.neurologic import constrained_generate

        constraints = [item.constraint for item in items]
        if settings.pop("empty", False):
            constraints = [all_of()] * len(items)
        found = constrained_generate(
            self.model, self.tokenizer, self.prompts(items), constraints, num_beams=beams,
            batch_size=BATCH, on_contradiction="flag",
            **{"max_new_tokens": self.given.tokens, **settings},
        )  # fmt: skip
        return [best for best, *_ in found]

    def generate(self, items: Sequence[Item], **settings: Any) -> list[list[int]]:
        """What `model.generate` writes, in the order of its rows, up to the first end token."""
        import torch

        asked = self.tokenizer(self.prompts(items), padding=True, return_tensors="pt").to(
            self.model.device
        )
        with torch.inference_mode():
            out = self.model.generate(
                **asked, pad_token_id=self.tokenizer.pad_token_id,
                **{"max_new_tokens": self.given.tokens, **settings},
            )  # fmt: skip
        rows = out[:, asked["input_ids"].shape[1] :].tolist()
        ends = settings.get("eos_token_id", [self.tokenizer.eos_token_id])
        return [_up_to_end(row, ends) for row in rows]

    def beam_search(self, items: Sequence[Item], beams: int, **settings: Any) -> list[list[int]]:
        """What `generate` finds with beams and without constraints."""
        return self.generate(
            items, num_beams=beams, do_sample=False, early_stopping=False,
            **{"length_penalty": 1.0, **settings},
        )  # fmt: skip


def main() -> None:
    """Run the parts and print the headline."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--data", type=Path, default=Path("../shared/data"))
    options.add_argument("--items", type=int, default=64)
    options.add_argument("--lookahead-items", type=int, default=16)
    options.add_argument("--anatomy-items", type=int, default=8)
    options.add_argument("--beams", type=int, nargs="+", default=[4, 8, 20])
    options.add_argument("--quality-beams", type=int, default=8)
    options.add_argument(
        "--length-penalty", type=float, default=1.0, help="of quality: score / tokens ** this"
    )
    options.add_argument("--tokens", type=int, default=32)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    options.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    options.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    options.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--out", type=Path, default=Path("runs/bench-neurologic"))
    options.add_argument("--quick", action="store_true", help="print figures, write no result")
    given = options.parse_args()
    if not (given.data / "commongen").is_dir():
        raise SystemExit(f"expected a folder commongen/ under {given.data}; give --data FOLDER")

    import torch
    from transformers.utils import logging

    torch.set_num_threads(given.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    keep = Keeping(given)
    for part in given.parts:
        if part in ALONE:
            PARTS[part](given, keep)
    for name in given.models if set(given.parts) - ALONE else ():
        bench = MODELS[name](given)
        for part in given.parts:
            if part not in ALONE:
                PARTS[part](bench, keep)
    keep.finish()


class Keeping:
    """The result file: figures enter it one by one, those of other runs stay."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        known = json.loads(RESULT.read_text("utf-8")) if RESULT.is_file() else {"rows": {}}
        self.rows: dict[str, Any] = {} if given.quick else known["rows"]
        self.device = device_name()

    def __call__(self, part: str, key: str, row: dict[str, Any]) -> None:
        """Put one row in the place of what was there."""
        common = {"commit": commit(), "threads": self.given.threads, "dtype": self.given.dtype}
        self.rows.setdefault(self.device, {}).setdefault(part, {})[key] = {**row, **common}
        print(part, key, json.dumps(row)[:2000], flush=True)
        if not self.given.quick:
            self.finish()

    def finish(self) -> None:
        """Write the result; the headline is of this run's device, and the last line printed."""
        headline = headline_of(self.rows.get(self.device, {}), self.device)
        if self.given.quick:
            print(json.dumps(headline), flush=True)
        else:
            finish("neurologic", headline, self.rows)


def headline_of(rows: dict[str, Any], device: str) -> dict[str, Any]:
    """The figures that have a target; None where a part has not run."""

    def worst(part: str, key: str) -> float | None:
        return max((row[key] for row in rows.get(part, {}).values()), default=None)

    quality = rows.get("quality", {})
    return {
        "overhead_beam": worst("speed", "overhead"),
        "overhead_lookahead": worst("lookahead", "overhead"),
        "bookkeeping_share": worst("bookkeeping", "share"),
        "coverage_feasible": quality.get("ours", {}).get("coverage"),
        "rouge_l": quality.get("ours", {}).get("rouge_l"),
        "rouge_l_filter": quality.get("filter", {}).get("rouge_l"),
        "model": sorted({row["model"] for row in rows.get("speed", {}).values()}),
        "device": device,
    }


# ------------------------------------------------------------------ models


def smollm2(given: argparse.Namespace) -> Bench:
    """The embedded model."""
    from transformers import AutoModelForCausalLM

    from symdistill.models import resolve

    found = resolve("embedded:smollm2")
    model = AutoModelForCausalLM.from_pretrained(found.folder)
    return _bench("smollm2", model, given, found.note)


def gpt2_random(given: argparse.Namespace) -> Bench:
    """GPT-2's default sizes at random weights, with the embedded model's vocabulary."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = _tokenizer()
    end = tokenizer.eos_token_id
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer), bos_token_id=end, eos_token_id=end)
    )
    return _bench("gpt2-random", model, given, "GPT-2-small's sizes, random weights, 49,152 tokens")


def _bench(name: str, model: Any, given: argparse.Namespace, note: str) -> Bench:
    import torch

    from symdistill.decoding.neurologic import table_of, tokens_ending

    tokenizer = _tokenizer()
    place = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(place, dtype=getattr(torch, given.dtype)).eval()
    final = tokens_ending(table_of(tokenizer), SENTENCE_FINAL)
    return Bench(name, model, tokenizer, given, note, [tokenizer.eos_token_id, *final])


def _tokenizer() -> Any:
    from transformers import AutoTokenizer

    from symdistill.models import resolve

    tokenizer = AutoTokenizer.from_pretrained(resolve("embedded:smollm2").folder)
    tokenizer.padding_side = "left"
    return tokenizer


MODELS: dict[str, Callable[[argparse.Namespace], Bench]] = {
    "smollm2": smollm2,
    "gpt2-random": gpt2_random,
}


# ------------------------------------------------------------------ speed


def speed(bench: Bench, keep: Keeping) -> None:
    """Both write the same number of tokens, so they compute the same number of steps."""
    pinned = {"min_new_tokens": bench.given.tokens}
    for beams in bench.given.beams:
        systems = {
            "generate": lambda batch, k=beams: bench.beam_search(batch, k, **pinned),
            "ours": lambda batch, k=beams: bench.decode(batch, k, **pinned),
        }
        row = compare(bench, systems, beams, bench.given.items)
        keep("speed", f"{bench.name} k={beams}", row)


def anatomy(bench: Bench, keep: Keeping) -> None:
    """Where the time goes, on fewer items: without constraints, to the first token, CTranslate2."""
    pinned = {"min_new_tokens": bench.given.tokens}
    first = {"min_new_tokens": 1, "max_new_tokens": 1}
    for beams in bench.given.beams:
        systems = {
            "generate": lambda batch, k=beams: bench.beam_search(batch, k, **pinned),
            "ours": lambda batch, k=beams: bench.decode(batch, k, **pinned),
            "empty": lambda batch, k=beams: bench.decode(batch, k, empty=True, **pinned),
            "generate_first": lambda batch, k=beams: bench.beam_search(batch, k, **first),
            "ours_first": lambda batch, k=beams: bench.decode(batch, k, empty=True, **first),
        }
        fast = ctranslate2(bench, beams)
        if fast is not None:
            systems["ctranslate2"] = fast
        row = compare(bench, systems, beams, bench.given.anatomy_items)
        spent = {name: np.array(values) for name, values in row["seconds"].items()}
        behind = (spent["ours"] - spent["ours_first"]) / (
            spent["generate"] - spent["generate_first"]
        )
        row["overhead_behind_prompt"] = float(np.median(behind))
        keep("anatomy", f"{bench.name} k={beams}", row)


def natural(bench: Bench, keep: Keeping) -> None:
    """Texts end when they end."""
    for beams in bench.given.beams:
        systems = {
            "generate": lambda batch, k=beams: bench.beam_search(batch, k),
            "ours": lambda batch, k=beams: bench.decode(batch, k),
        }
        row = compare(bench, systems, beams, bench.given.items)
        keep("natural", f"{bench.name} k={beams}", row)


def lookahead(bench: Bench, keep: Keeping) -> None:
    """With greedy lookahead."""
    from symdistill.decoding.lookahead import Lookahead

    pinned = {"min_new_tokens": bench.given.tokens}
    ahead = Lookahead("greedy", length=5, shortlist=2)
    for beams in bench.given.beams:
        systems = {
            "generate": lambda batch, k=beams: bench.beam_search(batch, k, **pinned),
            "ours": lambda batch, k=beams: bench.decode(batch, k, lookahead=ahead, **pinned),
        }
        row = compare(bench, systems, beams, bench.given.lookahead_items)
        keep("lookahead", f"{bench.name} k={beams}", row)


def compare(
    bench: Bench, systems: dict[str, Callable[[Sequence[Item]], Any]], beams: int, count: int
) -> dict[str, Any]:
    """Seconds of each system over `generate`'s, in turns over the same batches."""
    items = read_items(bench.given.data, count)
    batches = [items[start : start + BATCH] for start in range(0, len(items), BATCH)]
    spent: dict[str, list[float]] = {name: [] for name in systems}
    tokens: dict[str, float] = {}
    for work in systems.values():  # to warm up, and to read the vocabulary
        work(batches[0])
    for repeat in range(bench.given.repeats):
        added: dict[str, float] = defaultdict(float)
        written: dict[str, int] = defaultdict(int)
        for number, batch in enumerate(batches):
            order = list(systems) if (repeat + number) % 2 == 0 else list(systems)[::-1]
            for name in order:
                bench.forget()
                wall_s, found = timed(systems[name], batch)
                added[name] += wall_s
                written[name] += sum(map(_length, found))
        for name in systems:
            spent[name].append(added[name])
            tokens[name] = written[name] / len(items)
    per_sentence = {name: float(np.median(spent[name])) / len(items) for name in systems}
    overhead = {
        name: float(np.median(np.divide(spent[name], spent["generate"])))
        for name in systems
        if name != "generate" and not name.endswith("_first")
    }
    asked = bench.tokenizer(bench.prompts(items))["input_ids"]
    return {
        "model": bench.name,
        "note": bench.note,
        "beams": beams,
        "items": len(items),
        "prompt_tokens": float(np.mean(list(map(len, asked)))),
        "overhead": overhead.pop("ours"),
        **{f"overhead_{name}": value for name, value in overhead.items()},
        "seconds_per_sentence": per_sentence,
        "sentences_per_second": {name: 1 / value for name, value in per_sentence.items()},
        "mean_tokens": tokens,
        "seconds": spent,
    }


def ctranslate2(bench: Bench, beams: int) -> Callable[[Sequence[Item]], list[list[str]]] | None:
    """CTranslate2's beam search over the same model; None where it cannot be had."""
    from symdistill.models import resolve

    try:
        import ctranslate2 as library
        from ctranslate2.converters import TransformersConverter
    except ImportError:
        return None
    if bench.name != "smollm2":
        return None
    device = "cuda" if bench.model.device.type == "cuda" else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        source = str(resolve("embedded:smollm2").folder)
        TransformersConverter(source).convert(folder, force=True)
        fast = library.Generator(
            folder, device=device, compute_type=bench.given.dtype,
            intra_threads=bench.given.threads, inter_threads=1,
        )  # fmt: skip

    def work(batch: Sequence[Item]) -> list[list[str]]:
        asked = bench.tokenizer(bench.prompts(batch))["input_ids"]
        tokens = [bench.tokenizer.convert_ids_to_tokens(ids) for ids in asked]
        found = fast.generate_batch(
            tokens, beam_size=beams, length_penalty=1.0, include_prompt_in_result=False,
            max_length=bench.given.tokens, suppress_sequences=[[bench.tokenizer.eos_token]],
        )  # fmt: skip
        return [one.sequences[0] for one in found]

    return work


def timed(work: Callable[..., Any], *given: Any, **settings: Any) -> tuple[float, Any]:
    """Seconds that a piece of work takes, and what it gives."""
    synchronise()
    start = time.perf_counter()
    found = work(*given, **settings)
    synchronise()
    return time.perf_counter() - start, found


def synchronise() -> None:
    """Wait for the GPU, where there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def device_name() -> str:
    """The GPU's name, or "cpu"."""
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else "cpu"


def _up_to_end(row: list[int], ends: Sequence[int]) -> list[int]:
    last = next((i for i, token in enumerate(row) if token in ends), len(row) - 1)
    return row[: last + 1]


def _length(one: Any) -> int:
    return len(getattr(one, "token_ids", one))


# ------------------------------------------------------------------ bookkeeping


def bookkeeping(bench: Bench, keep: Keeping) -> None:
    """What constraints add to the search's own time, as a share of the steps.

    The search's own time is what passes outside of the model and its cache. Without constraints
    it is what any beam search does (the top k over the vocabulary, the beams' scores); what it
    grows by with them, compiling included, is the bookkeeping.
    """
    given = bench.given
    items = read_items(given.data, given.items)
    for beams in given.beams:
        bench.decode(items[:BATCH], beams)
        spent: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
        for repeat in range(given.repeats):
            for empty in (False, True) if repeat % 2 == 0 else (True, False):
                bench.forget()
                with clocked() as clock:
                    wall_s = sum(
                        timed(
                            bench.decode, items[start : start + BATCH], beams,
                            min_new_tokens=given.tokens, empty=empty,
                        )[0]
                        for start in range(0, len(items), BATCH)
                    )  # fmt: skip
                steps_s = wall_s - clock["start"]
                spent[empty].append((steps_s - clock["step"] - clock["select"], steps_s))
        own, steps_s = np.median(spent[False], axis=0).tolist()
        plain, _ = np.median(spent[True], axis=0).tolist()
        row = {
            "model": bench.name, "beams": beams, "items": len(items),
            "share": (own - plain) / steps_s,
            "share_of_search": own / steps_s,
            "search_s": own, "search_empty_s": plain, "steps_s": steps_s,
        }  # fmt: skip
        keep("bookkeeping", f"{bench.name} k={beams}", row)


@contextmanager
def clocked() -> Iterator[dict[str, float]]:
    """Seconds that pass in the model and its cache, by what was asked of the rows."""
    from symdistill.decoding.transformers_rows import TransformersRows

    clock: dict[str, float] = defaultdict(float)

    def timing(name: str) -> Callable[..., Any]:
        asked = getattr(TransformersRows, name)

        def work(self: Any, *given: Any) -> Any:
            wall_s, found = timed(asked, self, *given)
            clock[name] += wall_s
            return found

        return work

    with ExitStack() as stack:
        for name in ("start", "step", "select"):
            stack.enter_context(mock.patch.object(TransformersRows, name, timing(name)))
        yield clock


# ------------------------------------------------------------------ quality

REFERENCE: dict[str, Any] = {
    "num_beams": 20, "beta": 2, "length_penalty": 0.2, "min_new_tokens": 5, "end": "soft",
    "end_texts": SENTENCE_FINAL,
}  # fmt: skip
FILTER = {"temperature": 1.0, "top_p": 0.95, "top_k": 0}
SYSTEMS = ("ours", "lookahead", "beam", "filter", "reference", "reference_zero_shot")


def quality(bench: Bench, keep: Keeping) -> None:
    """Every system's texts and scores on the feasible items, and ours minus theirs."""
    if bench.name != "smollm2":
        return  # random weights write nothing worth scoring
    given = bench.given
    bench = replace(bench, examples=len(EXAMPLES))
    drawn = read_items(given.data, given.items)
    items = [item for item in drawn if is_feasible(item, bench.tokenizer, given.tokens)]
    common = {
        "model": bench.name, "beams": given.quality_beams, "infeasible": len(drawn) - len(items),
        "clauses": float(np.mean([len(item.forms) for item in items])),
        "forms": float(np.mean([len(forms) for item in items for forms in item.forms])),
    }  # fmt: skip
    texts = Texts(bench, items)
    ours = texts("ours")
    for name in given.systems:
        if name == "filter":
            found, row = _filtered(texts, items, ours)
            keep("quality", "filter_found", {**common, **row})
        else:
            found = texts(name)
        row = {**common, **figures(items, found.written), "row_forwards": found.row_forwards}
        if name.startswith("reference"):
            row["beams"] = REFERENCE["num_beams"]
        if name != "ours":
            row["ours_minus_this"] = difference(items, ours.written, found.written)
        keep("quality", name, row)


def _filtered(texts: Texts, items: Sequence[Item], ours: Found) -> tuple[Found, dict[str, Any]]:
    """Of each item's samples the best that meets the constraint, or the best at all.

    The best is judged as in a beam, by log-probability / tokens ** length penalty.

    Returns:
        what is chosen for every item, and the figures of both on the items where one was found.
    """
    budget = ours.row_forwards
    samples = texts.samples(budget)
    penalty = texts.bench.given.length_penalty

    def worth(one: Written) -> tuple[bool, float]:
        return one.covered, one.log_probability / one.tokens**penalty

    chosen = [max(some, key=worth) for some in samples]
    hit = [i for i, one in enumerate(chosen) if one.covered]
    row: dict[str, Any] = {"coverage": len(hit) / len(items), "items": len(hit)}
    if hit:
        some, theirs, mine = ([of[i] for i in hit] for of in (items, chosen, ours.written))
        row |= {
            "filter": figures(some, theirs), "ours": figures(some, mine),
            "ours_minus_this": difference(some, mine, theirs),
        }  # fmt: skip
    drawn = float(np.mean([len(some) for some in samples]))
    return Found(chosen, budget), {**row, "samples_per_item": drawn, "row_forwards": budget}


@dataclass
class Found:
    """What a system wrote, one text an item, and what it computed for it."""

    written: list[Written]
    row_forwards: float  # rows of one token that the model computed behind the prompts, per item


class Texts:
    """The systems' texts, each made once: those of a run that was cut are read again.

    They lie under `--out`, by the settings, the items and the code that made them.
    """

    def __init__(self, bench: Bench, items: Sequence[Item]) -> None:
        self.bench, self.items = bench, items
        self.beams = bench.given.quality_beams

    def __call__(self, name: str) -> Found:
        """The texts of one system."""
        rows = self._kept(name, None, lambda: self._write(name))
        written = [self._written(item, row) for item, row in zip(self.items, rows, strict=True)]
        return Found(written, float(np.mean([row["row_forwards"] for row in rows])))

    def samples(self, budget: float) -> list[list[Written]]:
        """Distinct samples of every item, until their tokens reach `budget` row forwards."""
        rows = self._kept("filter", budget, lambda: self._draw(budget))
        found: dict[str, list[Written]] = {item.id: [] for item in self.items}
        known = {item.id: item for item in self.items}
        for row in rows:
            found[row["id"]].append(self._written(known[row["id"]], row))
        return list(found.values())

    def _kept(
        self, name: str, budget: float | None, make: Callable[[], Iterator[dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        import symdistill

        given = self.bench.given
        package = Path(symdistill.__file__).parent
        sources = sorted(
            path
            for folder in (package / "decoding", package / "constraints", Path(__file__).parent)
            for path in folder.glob("*.py")
        )
        key = content_hash([
            name, budget, self.beams, given.length_penalty, given.tokens, given.dtype,
            device_name(), given.threads, [item.id for item in self.items],
            [path.read_text("utf-8") for path in sources],
        ])  # fmt: skip
        path = given.out / f"{name}-{key[:16]}.jsonl"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_rows(path, list(make()))
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]

    def _write(self, name: str) -> Iterator[dict[str, Any]]:
        from symdistill.decoding.lookahead import Lookahead

        bench, k = self.bench, self.beams
        ours = {
            "num_beams": k, "end_texts": SENTENCE_FINAL,
            "length_penalty": bench.given.length_penalty,
        }  # fmt: skip
        settings: dict[str, dict[str, Any]] = {
            "ours": ours,
            "lookahead": {**ours, "lookahead": Lookahead("greedy", length=5, shortlist=2)},
            "reference": {**REFERENCE, "alpha": 50},
            "reference_zero_shot": {**REFERENCE, "alpha": None, "progress_weight": 1.25},
        }
        for start in range(0, len(self.items), BATCH):
            batch = self.items[start : start + BATCH]
            with counting(bench.model) as counted:
                if name == "beam":
                    tokens = bench.beam_search(
                        batch, k, eos_token_id=bench.ends,
                        length_penalty=bench.given.length_penalty,
                    )  # fmt: skip
                else:
                    asked = dict(settings[name])
                    found = bench.decode(batch, asked.pop("num_beams"), **asked)
                    tokens = [list(one.token_ids) for one in found]
            yield from self._rows(batch, tokens, sum(counted[1:]) / len(batch))

    def _draw(self, budget: float) -> Iterator[dict[str, Any]]:
        """Rounds of samples for the items that have budget left; the last one is kept whole."""
        import torch

        torch.manual_seed(0)
        spent = dict.fromkeys((item.id for item in self.items), 0)
        known: set[tuple[str, tuple[int, ...]]] = set()
        while left := [item for item in self.items if spent[item.id] < budget]:
            for start in range(0, len(left), BATCH):
                batch = left[start : start + BATCH]
                drawn = self.bench.generate(
                    batch, do_sample=True, num_return_sequences=self.beams,
                    eos_token_id=self.bench.ends, **FILTER,
                )  # fmt: skip
                of = [item for item in batch for _ in range(self.beams)]
                new: list[tuple[Item, list[int]]] = []
                for item, tokens in zip(of, drawn, strict=True):
                    spent[item.id] += len(tokens)
                    if (item.id, tuple(tokens)) not in known:
                        known.add((item.id, tuple(tokens)))
                        new.append((item, tokens))
                yield from self._rows([one for one, _ in new], [ids for _, ids in new], 0.0)

    def _rows(
        self, items: Sequence[Item], tokens: Sequence[list[int]], row_forwards: float
    ) -> Iterator[dict[str, Any]]:
        scores = log_probabilities(self.bench, items, tokens)
        for item, ids, score in zip(items, tokens, scores, strict=True):
            yield {
                "id": item.id, "token_ids": ids, "log_probability": score,
                "text": self.bench.tokenizer.decode(ids, skip_special_tokens=True).strip(),
                "row_forwards": row_forwards,
            }  # fmt: skip

    def _written(self, item: Item, row: dict[str, Any]) -> Written:
        met = [one.satisfied for one in item.constraint.explain(row["text"])]
        ids = row["token_ids"]
        ended = bool(ids) and ids[-1] in self.bench.ends
        return Written(
            row["text"], all(met) and ended, float(np.mean(met)), row["log_probability"], len(ids)
        )


def log_probabilities(
    bench: Bench, items: Sequence[Item], tokens: Sequence[list[int]]
) -> list[float]:
    """Log-probability of each item's tokens behind its prompt, which is read once an item."""
    import torch
    from transformers import DynamicCache

    found = [0.0] * len(items)
    of_item: dict[str, list[int]] = defaultdict(list)
    for row, item in enumerate(items):
        of_item[item.id].append(row)
    for rows in of_item.values():
        (asked,) = bench.prompts([items[rows[0]]])
        before = bench.tokenizer(asked, return_tensors="pt").to(bench.model.device)["input_ids"]
        # Padded on the right: nothing attends to what follows it.
        written = torch.zeros((len(rows), max(len(tokens[row]) for row in rows)), dtype=torch.long)
        for i, row in enumerate(rows):
            written[i, : len(tokens[row])] = torch.tensor(tokens[row])
        written = written.to(bench.model.device)
        with torch.inference_mode():
            cache = DynamicCache(config=bench.model.config)
            first = bench.model(before, past_key_values=cache, logits_to_keep=1).logits
            cache.batch_repeat_interleave(len(rows))
            after = bench.model(written[:, :-1], past_key_values=cache).logits
        logits = torch.cat([first.expand(len(rows), -1, -1), after], dim=1).float()
        picked = logits.log_softmax(-1).gather(2, written[..., None])[..., 0].cpu()
        for i, row in enumerate(rows):
            found[row] = float(picked[i, : len(tokens[row])].sum())
    return found


@contextmanager
def counting(model: Any) -> Iterator[list[int]]:
    """How many tokens each call of the model computes, the prompts' call first."""
    counted: list[int] = []

    def count(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = kwargs.get("input_ids", args[0] if args else None)
        given = kwargs["inputs_embeds"] if given is None else given
        counted.append(given.shape[0] * given.shape[1])

    hook = model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield counted
    finally:
        hook.remove()


PARTS: dict[str, Callable[..., None]] = {
    "speed": speed, "anatomy": anatomy, "natural": natural, "lookahead": lookahead,
    "bookkeeping": bookkeeping, "quality": quality, "growth": growth, "hits": hits,
}  # fmt: skip
ALONE = {"growth", "hits"}  # need no model

if __name__ == "__main__":
    main()
