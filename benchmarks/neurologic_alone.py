"""The search of NeuroLogic decoding without a model: how its work grows, and what it misses.

`growth` gives the search random logits at once and times what it does itself, one setting varied
at a time, the others as in `USUAL`; the exponent is the slope on logarithmic axes (1: linear, 0:
independent). Memory is that of arrays and tensors which the search makes and holds, the logits and
what an operator needs inside excepted. `hits` compares what the search finds with the best of all
texts that a small table model can write: 4 tokens and the end, at most 5 tokens and the end.
"""

from __future__ import annotations

import time
import tracemalloc
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from symdistill.constraints import Constraint, all_of, any_of, contains, either, excludes, tokens
from symdistill.decoding import TokenTable
from symdistill.decoding.formula import CompiledFormula
from symdistill.decoding.neurologic import Hypothesis, SearchSettings, search


def run(
    rows: Any, formulas: Sequence[CompiledFormula], beams: int, max_new_tokens: int, **settings: Any
) -> list[Hypothesis]:
    """The best hypothesis for each formula."""
    found = search(
        rows,
        formulas,
        SearchSettings(num_beams=beams, max_new_tokens=max_new_tokens, **settings),
        prompts_before=[""] * len(formulas),
        end_token_ids=sorted(formulas[0].table.eos_token_ids),
    )
    return [best for best, *_ in found]


# ------------------------------------------------------------------ growth

USUAL = {"beams": 8, "clauses": 4, "vocabulary": 50_000, "batch": 8}
VARIED: dict[str, tuple[int, ...]] = {
    "beams": (4, 8, 16, 32, 64),
    "clauses": (1, 2, 4, 8, 16, 32),
    "vocabulary": (50_000, 100_000, 256_000),
    "batch": (1, 2, 4, 8, 16, 32),
}
ENDINGS = ("", "s", "ed", "ing", "er")  # of the forms of a clause
LETTERS = "abcdefghijklmnopqrstuvwxyz"
STEPS = 16


class RandomRows:
    """`symdistill.decoding.rows.Rows` of no model: the logits are there already.

    They are one tensor for all steps, so what the search writes into it stays.
    """

    def __init__(self, prompts: int, beams: int, vocabulary: int) -> None:
        self.vocabulary_size = vocabulary
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        draw = torch.Generator(self.device).manual_seed(0)
        self._logits = torch.randn(
            (prompts * beams, vocabulary), generator=draw, device=self.device
        )
        self._rows = prompts

    def start(self) -> torch.Tensor:
        return self._logits[: self._rows]

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        return self._logits[: len(tokens)]

    def select(self, rows: torch.Tensor) -> None:
        self._rows = len(rows)


def growth(given: Any, keep: Callable[[str, str, dict[str, Any]], None]) -> None:
    """Time per step and memory against each setting, with their exponents."""
    tables: dict[int, TokenTable] = {}
    for name, values in VARIED.items():
        measured = []
        for value in values:
            setting = USUAL | {name: value}
            size = setting["vocabulary"]
            if size not in tables:
                tables[size] = synthetic_table(size)
            measured.append(_measure(setting, tables[size], given.repeats))
        row: dict[str, Any] = {name: list(values)}
        for figure in ("step_ms", "compile_ms", "memory_mb"):
            row[figure] = [one[figure] for one in measured]
            slope = np.polyfit(np.log(values), np.log(np.maximum(row[figure], 1e-9)), 1)[0]
            row[f"{figure}_exponent"] = float(slope)
        keep("growth", name, row)


def _measure(setting: dict[str, int], table: TokenTable, repeats: int) -> dict[str, float]:
    """The search's milliseconds per step, those of compiling per prompt, and its peak memory."""
    rng = np.random.default_rng(0)
    constraints = [_asked(rng, setting["clauses"]) for _ in range(setting["batch"])]
    compile_s, search_s = [], []
    for _ in range(repeats + 1):  # the first to warm up
        table.compiled.clear()
        rows = RandomRows(setting["batch"], setting["beams"], setting["vocabulary"])
        start = time.perf_counter()
        formulas = [CompiledFormula.compile(one, table) for one in constraints]
        compile_s.append(time.perf_counter() - start)
        start = time.perf_counter()
        run(rows, formulas, setting["beams"], STEPS, min_new_tokens=STEPS)
        if rows.device.type == "cuda":
            torch.cuda.synchronize()
        search_s.append(time.perf_counter() - start)
    rows = RandomRows(setting["batch"], setting["beams"], setting["vocabulary"])
    with Held():  # what the counting itself loads is not the search's
        torch.zeros(1).add(1)
    tracemalloc.start()
    with Held() as held:
        run(rows, formulas, setting["beams"], STEPS, min_new_tokens=STEPS)
    _, numpy_peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {
        "step_ms": 1e3 * float(np.median(search_s[1:])) / STEPS,
        "compile_ms": 1e3 * float(np.median(compile_s[1:])) / setting["batch"],
        "memory_mb": (held.peak + numpy_peak) / 2**20,
    }


class Held(TorchDispatchMode):
    """The most bytes of tensors made inside that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        given = {
            one.untyped_storage()._cdata
            for one in tree_leaves((args, kwargs))
            if isinstance(one, torch.Tensor)
        }
        for one in tree_leaves(found):
            if isinstance(one, torch.Tensor):
                storage = one.untyped_storage()
                if storage._cdata not in given | self._known:
                    self._known.add(storage._cdata)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return found

    def _gone(self, storage: int, size: int) -> None:
        self._known.discard(storage)
        self.now -= size


def synthetic_table(size: int) -> TokenTable:
    """A vocabulary of random words of 1 to 8 letters, half of them behind a space."""
    rng = np.random.default_rng(0)
    words = {f"{space}{letter}": None for letter in LETTERS for space in ("", " ")}
    while len(words) < size - 1:
        word = _word(rng, int(rng.integers(2, 9)))
        words[word if rng.random() < 0.5 else f" {word}"] = None
    return TokenTable([*(one.encode() for one in words), b""], [size - 1])


def _asked(rng: np.random.Generator, clauses: int) -> Constraint:
    stems = [_word(rng, int(rng.integers(3, 8))) for _ in range(clauses)]
    return all_of(*(contains(any_of([stem + end for end in ENDINGS])) for stem in stems))


def _word(rng: np.random.Generator, length: int) -> str:
    return "".join(LETTERS[i] for i in rng.integers(len(LETTERS), size=length))


# ------------------------------------------------------------------ hits

INSTANCES = 300
END = 4  # tokens 0..3 are words
LONGEST = 6  # tokens, the end too
BEAMS = (2, 4, 8)


class TableRows:
    """`symdistill.decoding.rows.Rows` whose logits depend on the last two tokens alone."""

    vocabulary_size = END + 1
    device = torch.device("cpu")

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        logits = 2.0 * rng.standard_normal((END + 2, END + 2, END + 1)).astype(np.float32)
        self.log_shares = torch.tensor(logits).log_softmax(-1)  # END + 1: before the first token
        self._last = torch.full((1, 2), END + 1)

    def start(self) -> torch.Tensor:
        return self._now()

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        self._last = torch.stack([self._last[:, 1], tokens.long()], dim=1)
        return self._now()

    def select(self, rows: torch.Tensor) -> None:
        self._last = self._last[rows]

    def _now(self) -> torch.Tensor:
        return self.log_shares[self._last[:, 0], self._last[:, 1]].clone()


class Phrase(NamedTuple):
    """A literal of a random constraint."""

    tokens: tuple[int, ...]
    positive: bool

    def holds(self, text: Sequence[int]) -> bool:
        """Whether it is true of a text."""
        width = len(self.tokens)
        found = any(tuple(text[i : i + width]) == self.tokens for i in range(len(text) - width + 1))
        return found == self.positive

    @property
    def constraint(self) -> Constraint:
        """It in the constraint language."""
        return (contains if self.positive else excludes)(tokens(*self.tokens))


def hits(given: Any, keep: Callable[[str, str, dict[str, Any]], None]) -> None:
    """How often the likeliest text that meets a random constraint is found.

    What is lost is the mean over the instances whose constraint was met.
    """
    for kind, draw in (("mixed", _mixed), ("positive", _positive)):
        for setting, row in _hits(draw).items():
            keep("hits", f"{kind}, {setting}", row)


def _hits(draw: Callable[[np.random.Generator], list[list[Phrase]]]) -> dict[str, dict[str, Any]]:
    """The figures of each setting over the same instances."""
    table = letters_table()
    gaps: dict[tuple[int, bool], list[float]] = {}
    missed: dict[tuple[int, bool], int] = {}
    instances = seed = 0
    while instances < INSTANCES:
        seed += 1
        formula = draw(np.random.default_rng(seed))
        best = _best(TableRows(seed).log_shares.tolist(), formula)
        if best is None:
            continue  # no text meets it
        instances += 1
        compiled = CompiledFormula.compile(_constraint(formula), table)
        for beams in BEAMS:
            for group in (True, False):
                (one,) = run(
                    TableRows(seed), [compiled], beams, LONGEST, length_penalty=0.0, group=group
                )
                if one.satisfied and one.ended:
                    gaps.setdefault((beams, group), []).append(best - one.log_probability)
                else:
                    missed[beams, group] = missed.get((beams, group), 0) + 1
    found = {}
    for (beams, group), lost in sorted(gaps.items()):
        found[f"k={beams}, {'grouped' if group else 'not grouped'}"] = {
            "instances": INSTANCES, "unmet": missed.get((beams, group), 0),
            "optimum_found": sum(one < 1e-4 for one in lost) / INSTANCES,
            "mean_log_probability_lost": float(np.mean(lost)),
            "worst_log_probability_lost": max(lost),
        }  # fmt: skip
    return found


def letters_table() -> TokenTable:
    """The vocabulary of the table model: four letters and the end."""
    return TokenTable([*(f" {one}".encode() for one in LETTERS[:END]), b""], [END])


def _constraint(formula: list[list[Phrase]]) -> Constraint:
    return all_of(*(either(*(one.constraint for one in clause)) for clause in formula))


def _mixed(rng: np.random.Generator) -> list[list[Phrase]]:
    """One to three clauses of one or two phrases of one or two tokens, a fifth of them negative."""
    return [
        [_phrase(rng, bool(rng.random() < 0.8)) for _ in range(rng.integers(1, 3))]
        for _ in range(rng.integers(1, 4))
    ]


def _positive(rng: np.random.Generator) -> list[list[Phrase]]:
    """Three clauses of one or two phrases, as in CommonGen."""
    return [[_phrase(rng, True) for _ in range(rng.integers(1, 3))] for _ in range(3)]


def _phrase(rng: np.random.Generator, positive: bool) -> Phrase:
    return Phrase(tuple(rng.integers(END, size=rng.integers(1, 3)).tolist()), positive)


def _best(log_shares: Any, formula: list[list[Phrase]]) -> float | None:
    """The log-probability of the likeliest text with its end that meets a formula."""

    def texts(text: tuple[int, ...], total: float) -> Iterator[float]:
        before = (END + 1, END + 1, *text)[-2:]
        shares = log_shares[before[0]][before[1]]
        if all(any(one.holds(text) for one in clause) for clause in formula):
            yield total + shares[END]
        if len(text) < LONGEST - 1:
            for token in range(END):
                yield from texts((*text, token), total + shares[token])

    return max(texts((), 0.0), default=None)
