"""The search of NeuroLogic decoding: beam search over the texts of many prompts side by side.

Takes a model behind `Rows` and a compiled formula for each prompt; gives the n best texts of each.
Cost: one forward of (prompts x beams) rows a token; some milliseconds a step besides.
`symdistill.decoding.neurologic` is the way in.

One step (Lu et al., 2021, section 2.3, and 2022, section 3)
    1. *Expand*: the likeliest tokens of every beam, the end tokens, and the tokens with which the
       tokenizer begins or goes on to write a phrase that is still wanted.
    2. *Prune*: texts with a clause that is false for ever; those that are not among the `alpha`
       likeliest; those with more than `beta` clauses fewer met than the best.
    3. *Group* by the set of clauses met for ever; score within the groups by log-probability, plus
       `progress_weight` times the share written of a wanted phrase, plus a lookahead if one is
       set; take the best of each group in turn, until there are `num_beams`.
    The result is the text with the most clauses met, then the one with the highest
    log-probability / length ** length_penalty.

What we do that the paper does not
    *Never false for ever*: tokens that break an upper bound are not even candidates.
    *No late texts while there are others*: `need` bounds the tokens in which all clauses can still
    be met and the text ended; candidates for which it passes what is left come after all others.
    It is an upper bound, so a text that could have made it in fewer tokens is put last, not lost.
    *Met at the end of the word*: a phrase that stands at the end of the text counts as met, and no
    longer does when the word goes on (" dog" + "ma").
    *Where pruning leaves nothing*, or nothing that can still meet the formula, it is lifted in the
    order beta, alpha, false clauses; where a text can only end, or not go on at all, it ends
    unmet. `Hypothesis.relaxed` names what was lifted: "beta", "alpha", "false clause", "end".
    *Ends*: with `end="strict"` a text ends only where every clause holds, and texts that come to
    `max_new_tokens` without an end are returned behind those that ended. (With "soft", or without
    a formula, they are compared by score alone, as `generate` does.)

What its released code does differently is told in docs/how_decoding_works.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from symdistill.constraints import ClauseStatus, Constraint
from symdistill.decoding.beams import select
from symdistill.decoding.formula import NEVER, CompiledFormula
from symdistill.decoding.lookahead import Lookahead, Wanted, look_ahead
from symdistill.decoding.tracking import Counts, Judged, Tracker
from symdistill.errors import InputError

if TYPE_CHECKING:
    import torch

    from symdistill.decoding.rows import Rows

__all__ = ["Hypothesis", "SearchSettings", "refuse_contradictions", "search"]

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One text that the search ended with.

    Attributes:
        text: what the tokens write, without the prompt.
        token_ids: the tokens, the end token included.
        score: log_probability / len(token_ids) ** length_penalty.
        log_probability: of the tokens after the prompt, natural logarithm.
        satisfied: whether the text meets the formula.
        ended: whether it ends with an end token; False: it was cut at `max_new_tokens`.
        clauses: what each clause finds, with the tokens that wrote each match.
        relaxed: the pruning rules that had to be lifted for its prompt.
    """

    text: str
    token_ids: tuple[int, ...]
    score: float
    log_probability: float
    satisfied: bool
    ended: bool
    clauses: tuple[ClauseStatus, ...]
    relaxed: tuple[str, ...] = ()

    @property
    def unmet(self) -> tuple[str, ...]:
        """The clauses that the text does not meet."""
        return tuple(one.clause for one in self.clauses if not one.satisfied)


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How to search; each field is a keyword of `constrained_generate`, where it is told."""

    num_beams: int = 8
    num_return_sequences: int = 1
    max_new_tokens: int = 32
    min_new_tokens: int = 0
    length_penalty: float = 1.0
    early_stopping: Literal[False, "never"] = False
    alpha: int | None = None
    beta: int | None = 2
    progress_weight: float = 0.0
    group: bool = True
    end: Literal["strict", "soft"] = "strict"
    lookahead: Lookahead | None = None
    on_contradiction: Literal["error", "flag"] = "error"

    def __post_init__(self) -> None:
        """Refuse settings outside their ranges (`InputError`)."""
        for name in ("num_beams", "num_return_sequences", "max_new_tokens", "min_new_tokens"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise InputError(f"expected {name} as a whole number; got {value!r}; change it")
        for name, good, what in (
            ("num_beams", self.num_beams >= 1, "from 1"),
            (
                "num_return_sequences",
                1 <= self.num_return_sequences <= self.num_beams,
                f"from 1 to num_beams ({self.num_beams})",
            ),
            ("max_new_tokens", self.max_new_tokens >= 1, "from 1"),
            (
                "min_new_tokens",
                0 <= self.min_new_tokens <= self.max_new_tokens,
                f"from 0 to max_new_tokens ({self.max_new_tokens})",
            ),
            ("length_penalty", math.isfinite(self.length_penalty), "a finite number"),
            ("early_stopping", self.early_stopping in (False, "never"), 'False or "never"'),
            ("alpha", self.alpha is None or self.alpha >= 1, "from 1, or None"),
            ("beta", self.beta is None or self.beta >= 0, "from 0, or None"),
            ("progress_weight", 0 <= self.progress_weight < math.inf, "from 0"),
            ("end", self.end in ("strict", "soft"), '"strict" or "soft"'),
            (
                "on_contradiction",
                self.on_contradiction in ("error", "flag"),
                '"error" or "flag"',
            ),
        ):
            if not good:
                raise InputError(f"expected {name} {what}; got {getattr(self, name)!r}; change it")


def refuse_contradictions(asked: Sequence[Constraint | None], settings: SearchSettings) -> None:
    """Refuse formulas that contradict themselves, naming the clauses (`InputError`)."""
    if settings.on_contradiction == "flag":
        return
    for constraint in dict.fromkeys(asked):
        found = constraint.contradictions() if constraint is not None else []
        if found:
            raise InputError(
                f"expected a formula that some text can meet; in that of prompt "
                f"{asked.index(constraint)}, {found[0]}; change it, or set "
                'on_contradiction="flag" to decode it as well as it can be'
            )


def search(
    rows: Rows,
    formulas: Sequence[CompiledFormula],
    settings: SearchSettings,
    *,
    prompts_before: Sequence[str],
    end_token_ids: Sequence[int],
    logits_processor: Sequence[Any] = (),
    prompt_ids: torch.Tensor | None = None,
) -> list[list[Hypothesis]]:
    """Search one batch; `constrained_generate` prepares it.

    Args:
        rows: a model that has B prompts before it.
        formulas: B of them, compiled for one table.
        settings: see `constrained_generate`.
        prompts_before: (B) the text that each continuation follows; its last character decides
            whether a word goes on.
        end_token_ids: the tokens that end a text.
        logits_processor: processors of `transformers`.
        prompt_ids: (B, T) what processors are to see before the new tokens.
    """
    import torch

    refuse_contradictions([one.constraint for one in formulas], settings)
    _refuse_ends(formulas, end_token_ids)
    with torch.inference_mode():
        return _Search(
            rows, formulas, settings, prompts_before, end_token_ids, logits_processor, prompt_ids
        ).run()


def _refuse_ends(formulas: Sequence[CompiledFormula], end_token_ids: Sequence[int]) -> None:
    """Tokens that end a text and write nothing cannot stand inside one."""
    written = formulas[0].table.token_bytes if formulas else ()
    ends = {one for one in end_token_ids if one < len(written) and not written[one]}
    for formula in dict.fromkeys(formulas):
        for clause in formula.clauses:
            for phrase in (each for one in clause.literals for each in one.token_phrases):
                if ends.intersection(phrase):
                    raise InputError(
                        f"expected no end token inside a phrase, got {min(ends & set(phrase))}, "
                        f"which ends a text here, in {clause}; take it out"
                    )


class _Ended(NamedTuple):
    """A text that is done: an entry of its prompt's pool."""

    unmet: int  # clauses
    cut: bool
    score: float
    log_probability: float
    tokens: tuple[int, ...]

    @property
    def rank(self) -> tuple[int, bool, float, tuple[int, ...]]:
        return self.unmet, self.cut, -self.score, self.tokens


@dataclass(eq=False)
class _Item:
    """One prompt of the batch."""

    formula: CompiledFormula
    before: str
    ended: list[_Ended] = field(default_factory=list)
    relaxed: dict[str, None] = field(default_factory=dict)


class _Candidates(NamedTuple):
    """What might be written next, B items x K beams x C tokens flattened to N = K * C."""

    tokens: Ints  # (B, N)
    scores: Floats  # (B, N) log-probability of the text with the token
    ends: Bools  # (B, N) whether the token ends the text
    places: Ints  # (B, N)
    counts: Counts  # (B, N, G) confirmed
    ended: Counts  # (B, N, G) if the text ended there
    judged: Judged  # of `ended`


class _Search:
    """The beams of a batch. B items, K beams each (1 at first), t tokens written."""

    def __init__(
        self,
        rows: Rows,
        formulas: Sequence[CompiledFormula],
        settings: SearchSettings,
        befores: Sequence[str],
        end_token_ids: Sequence[int],
        processors: Sequence[Any],
        prompt_ids: torch.Tensor | None,
    ) -> None:
        self.rows = rows
        self.processors, self.prompt_ids = list(processors), prompt_ids
        self.settings = settings
        self.items = [_Item(*pair) for pair in zip(formulas, befores, strict=True)]
        self.live = self.items  # those that are not done
        self.tracker = Tracker(formulas)
        self.table = self.tracker.table
        # What the tokenizer or the model lacks is never written.
        self.width = min(rows.vocabulary_size, len(self.table))
        ends = [one for one in sorted(end_token_ids) if 0 <= one < self.width]
        self.end_ids = np.array(ends, dtype=np.int64)  # (E,)
        self.places_row, self.counts = self.tracker.start(befores)  # (B, 1), (B, 1, G)
        self.scores = np.zeros((len(formulas), 1), dtype=np.float32)  # (B, K)
        self.written = np.zeros((len(formulas), 1, 0), dtype=np.int64)  # (B, K, t)

    def run(self) -> list[list[Hypothesis]]:
        """Search to the end."""
        logits = self.rows.start()
        for step in range(self.settings.max_new_tokens):
            left = self.settings.max_new_tokens - step - 1
            found = self._expand(logits, step)
            late = self._late(found, left)
            keep = self._prune(found, late)
            self._strand(keep)
            order, position = self._order(found, keep, late)
            item = order // found.tokens.shape[1]
            self._finish(found, order, item, position, left)
            going = ~found.ends.ravel()[order]
            if left == 0:
                break
            if self.settings.lookahead is not None:
                logits = self._go_on_looking_ahead(found, keep, late, order[going], left)
            else:
                chosen = self._first(order[going], item[going], self.settings.num_beams)
                logits = self._go_on(found, chosen)
            logits = self._drop_done(logits, step)
            if not self.live:
                break
        return [self._results(item) for item in self.items]

    # -------------------------------------------------------------- 1. expand

    def _expand(self, logits: torch.Tensor, step: int) -> _Candidates:
        """The likeliest tokens, the end tokens, and those that begin or continue a phrase."""
        flat = (len(self.live), -1)
        beams = self.scores.shape[1]
        tokens, log_p, many = self._read(logits)  # (R, C), of which `many` are the likeliest
        ends = np.zeros(tokens.shape, dtype=np.bool_)
        ends[:, many : many + len(self.end_ids)] = True
        if step < self.settings.min_new_tokens:
            log_p[ends] = -np.inf
        tokens = tokens.reshape(len(self.live), beams, -1)
        scores = self.scores[:, :, None] + log_p.reshape(tokens.shape)
        places, added = self.tracker.look(self.places_row, tokens)
        counts = self.counts[:, :, None] + added
        counts = np.minimum(counts, self.tracker.caps[self.tracker.of][:, None, None])
        counts = counts.reshape(*flat, counts.shape[-1])
        places = places.reshape(flat)
        ended = self.tracker.ended(places, counts)
        return _Candidates(
            tokens.reshape(flat),
            scores.reshape(flat),
            ends.reshape(flat),
            places,
            counts,
            ended,
            self.tracker.judge(ended),
        )

    def _read(self, logits: torch.Tensor) -> tuple[Ints, Floats, int]:
        """Candidate tokens of each beam and their log-probabilities, (R, C) each.

        The likeliest come first, `many` of them, without end tokens; then the E end tokens; then
        tokens that begin or go on with a phrase, -inf where there is none or it is there already.
        """
        import torch

        if self.processors:
            logits = self._processed(torch.log_softmax(logits, dim=-1))
            total = torch.zeros(len(logits), device=logits.device)
        else:
            total = torch.logsumexp(logits, dim=-1)  # (R,)
        logits = logits[:, : self.width]
        proposals = self._proposals()  # (R, P), -1 where there is none
        ends = np.broadcast_to(self.end_ids, (len(proposals), len(self.end_ids)))
        apart = np.concatenate([ends, proposals], axis=1)  # (R, E + P)
        self._forbid(logits)
        read = logits.gather(1, torch.from_numpy(np.maximum(apart, 0)).to(logits.device))
        logits[:, torch.from_numpy(self.end_ids).to(logits.device)] = -torch.inf
        likeliest = max(2 * self.settings.num_beams, self.settings.alpha or 0)
        top = logits.topk(min(likeliest, self.width), dim=1)
        log_p: Floats = (torch.cat([top.values, read], dim=1) - total[:, None]).cpu().numpy()
        tokens: Ints = top.indices.cpu().numpy()
        many, first = tokens.shape[1], tokens.shape[1] + len(self.end_ids)
        proposed, least = log_p[:, first:], log_p[:, many - 1 : many]
        there = (proposed > least) & ~np.isin(proposals, self.end_ids)
        for row, column in np.argwhere(proposed == least):
            there[row, column] = proposals[row, column] in tokens[row]
        proposed[there | (proposals < 0)] = -np.inf
        return np.concatenate([tokens, np.maximum(apart, 0)], axis=1), log_p, many

    def _processed(self, log_p: torch.Tensor) -> torch.Tensor:
        import torch

        batch, beams, written = self.written.shape
        ids = torch.from_numpy(self.written.reshape(batch * beams, written)).to(log_p.device)
        if self.prompt_ids is not None:
            index = torch.tensor([self.items.index(one) for one in self.live])
            prompts = self.prompt_ids[index].to(log_p.device)
            ids = torch.cat([prompts.repeat_interleave(beams, 0), ids], dim=1)
        for one in self.processors:
            log_p = one(ids, log_p)
        return log_p

    def _proposals(self) -> Ints:
        """Tokens that begin or go on with a spelling of a wanted phrase: (R, P), -1: none."""
        beams = self.scores.shape[1]
        wanted = self.tracker.wanted(self._judged())  # (B, K, G)
        cached: dict[tuple[int, int, bytes], list[int]] = {}
        rows: list[list[int]] = []
        for item, formula in enumerate(self.tracker.of.tolist()):
            for beam in range(beams):
                row = int(self.places_row[item, beam])
                key = (formula, row, wanted[item, beam].tobytes())
                if key not in cached:
                    groups = np.flatnonzero(wanted[item, beam])
                    found = self.tracker.proposals(row, groups, self.end_ids)
                    cached[key] = [one for one in found if one < self.width]
                rows.append(cached[key])
        out = np.full((len(rows), max(map(len, rows))), -1, dtype=np.int64)
        for index, each in enumerate(rows):
            out[index, : len(each)] = each
        return out

    def _judged(self) -> Judged:
        """What the formulas say of the beams, as if they ended."""
        return self.tracker.judge(
            self.tracker.ended(self.tracker.places(self.places_row), self.counts)
        )

    def _forbid(self, logits: torch.Tensor) -> None:
        """Give -inf to the tokens that would make a clause false for ever."""
        import torch

        rows, tokens = [], []
        for row, place in enumerate(self.places_row.ravel().tolist()):
            item, beam = divmod(row, self.scores.shape[1])
            never = self.tracker.forbidden(place, self.counts[item, beam])
            never = never[never < self.width]
            if len(never):
                rows.append(np.full(len(never), row))
                tokens.append(never)
        if rows:
            at = [torch.from_numpy(np.concatenate(one)).to(logits.device) for one in (rows, tokens)]
            logits[at[0], at[1]] = -torch.inf

    # -------------------------------------------------------------- 2. prune

    def _prune(self, found: _Candidates, late: Bools) -> Bools:
        """Which candidates stay: (B, N)."""
        settings = self.settings
        possible = np.isfinite(found.scores)
        satisfied = found.judged.holds.all(-1)
        asked = np.array([not one.formula.empty for one in self.live])[:, None]
        if settings.end == "strict":
            allowed = possible & (satisfied | ~found.ends)
            # Where nothing else can be written, a text may end though it should not.
            stuck = np.asarray(possible.any(1) & ~allowed.any(1))
            possible = np.where(stuck[:, None], possible, allowed)
            for item in np.flatnonzero(stuck).tolist():
                self.live[item].relaxed["end"] = None
        rules: dict[str, Bools] = {}
        if settings.beta is not None:
            true = found.judged.holds.sum(-1)
            best = np.where(possible, true, -1).max(1, keepdims=True)
            rules["beta"] = true >= best - settings.beta
        if settings.alpha is not None and settings.alpha < found.scores.shape[1]:
            likely = np.where(possible, found.scores, -np.inf)
            least = -np.partition(-likely, settings.alpha - 1, axis=1)[:, settings.alpha - 1]
            rules["alpha"] = found.scores >= least[:, None]
        rules["false clause"] = ~found.judged.dead
        keep: Bools = possible & np.logical_and.reduce(list(rules.values()))
        for item in np.flatnonzero(asked[:, 0]).tolist():
            mine = {name: rule[item] for name, rule in rules.items()}
            self._relax(item, possible[item], mine, late[item], keep[item])
        return keep

    def _relax(
        self, item: int, possible: Bools, rules: dict[str, Bools], late: Bools, keep: Bools
    ) -> None:
        """Lift pruning rules until something is left, in time if anything was."""
        aim = possible & rules["false clause"] & ~late
        if not aim.any():
            aim = possible
        lifted = list(rules)
        while lifted and not (keep & aim).any() and aim.any():
            rule = lifted.pop(0)
            keep[:] = possible
            for name in lifted:
                keep &= rules[name]
            self.live[item].relaxed[rule] = None

    def _late(self, found: _Candidates, left: int) -> Bools:
        """Candidates after which the formula may not fit into the tokens left: (B, N)."""
        strict = self.settings.end == "strict"
        room = np.where(found.ends, left + 1, left) - strict
        late = np.zeros(found.tokens.shape, dtype=np.bool_)
        tight = np.flatnonzero(self.tracker.whole_need[self.tracker.of] > left - strict)
        asked = np.array([not one.formula.empty for one in self.live])[:, None]
        if strict:
            late |= room < 0
        if not len(tight):
            return np.asarray(late & asked)
        need = self.tracker.need(found.ended, found.judged)
        late |= need > room
        # What has been begun need not be begun again.
        for item in tight.tolist():
            hopeful = late[item] & ~found.ends[item] & (need[item] < NEVER)
            formula = self.live[item].formula
            hopeful &= formula.has_begun(found.places[item])
            for index in np.flatnonzero(hopeful).tolist():
                place = int(found.places[item, index])
                counts = found.counts[item, index, : len(formula.caps)]
                late[item, index] = formula.need_at(place, counts) > room[item, index]
        return np.asarray(late & asked)

    # -------------------------------------------------------------- 3. group and select

    def _order(
        self, found: _Candidates, keep: Bools, late: Bools, more: Floats | None = None
    ) -> tuple[Ints, Ints]:
        """The candidates kept in the order of choice, as indices into (B * N), and their places."""
        chosen = np.flatnonzero(keep)
        width = found.tokens.shape[1]
        item = chosen // width
        groups = np.zeros(len(chosen), dtype=np.int64)
        if self.settings.group:
            met = found.judged.met.reshape(-1, found.judged.met.shape[-1])[chosen]
            groups = _numbered(met)
        score = found.scores.ravel()[chosen].astype(np.float64)
        if self.settings.progress_weight:
            score = score + self.settings.progress_weight * self._progress(found, chosen)
        if more is not None:
            score = score + more.ravel()[chosen]
        tokens = found.tokens.ravel()[chosen]
        beam = chosen % width // (width // self.scores.shape[1])
        tie = tokens * self.scores.shape[1] + beam
        order, position = select(item, groups, score, tie, late.ravel()[chosen])
        return chosen[order], position

    def _progress(self, found: _Candidates, chosen: Ints) -> npt.NDArray[np.float64]:
        """The largest share written of a phrase of several tokens that is still wanted: (M,)."""
        out = np.zeros(len(chosen))
        places = found.places.ravel()[chosen]
        item = chosen // found.tokens.shape[1]
        ended = found.ended.reshape(-1, found.ended.shape[-1])[chosen]
        for index, one in enumerate(self.live):
            mine = np.flatnonzero(item == index)
            for i in mine[one.formula.has_begun(places[mine])]:
                wanted = one.formula.wanted(ended[i])
                shares = [
                    1 - len(each.rest) / each.tokens
                    for each in one.formula.begun(int(places[i]))
                    if wanted[each.group]
                ]
                out[i] = max(shares, default=0.0)
        return out

    def _first(self, order: Ints, item: Ints, count: int) -> list[Ints]:
        """The first `count` of each live item, in order."""
        edges = np.searchsorted(item, np.arange(len(self.live) + 1))
        return [order[a : min(b, a + count)] for a, b in pairwise(edges)]

    def _go_on(self, found: _Candidates, chosen: list[Ints]) -> torch.Tensor:
        """Write the chosen candidates; gives the logits after them."""
        import torch

        parents, tokens = self._advance(found, chosen)
        device = self.rows.device
        self.rows.select(torch.from_numpy(parents).to(device))
        return self.rows.step(torch.from_numpy(tokens).to(device))

    def _advance(self, found: _Candidates, chosen: list[Ints]) -> tuple[Ints, Ints]:
        """Make the chosen candidates the beams; gives their parents' rows and tokens, (R,) each.

        An item with fewer candidates than the others is filled up with dead beams.
        """
        batch, width = found.tokens.shape
        beams = self.scores.shape[1]
        most = max(1, *map(len, chosen))
        at = np.full((batch, most), -1, dtype=np.int64)
        for item, each in enumerate(chosen):
            at[item, : len(each)] = each
        dead = at < 0
        at = np.where(dead, np.arange(batch)[:, None] * width, at)
        parent = at % width // (width // beams)  # (B, most)
        tokens = found.tokens.ravel()[at]
        self.scores = np.where(dead, -np.inf, found.scores.ravel()[at]).astype(np.float32)
        self.counts = found.counts.reshape(-1, found.counts.shape[-1])[at]
        places = found.places.ravel()[at]
        of = np.broadcast_to(self.tracker.of[:, None], places.shape)
        self.places_row = self.tracker.enter(of, places)
        before = np.take_along_axis(self.written, parent[:, :, None], axis=1)
        self.written = np.concatenate([before, tokens[:, :, None]], axis=2)
        rows = np.arange(batch)[:, None] * beams + parent
        return rows.ravel(), tokens.ravel()

    def _go_on_looking_ahead(
        self, found: _Candidates, keep: Bools, late: Bools, order: Ints, left: int
    ) -> torch.Tensor:
        """Choose among a shortlist by what is likely to come; gives the logits after the chosen."""
        import torch

        settings = self.settings.lookahead
        assert settings is not None
        width = found.tokens.shape[1]
        size = math.ceil(settings.shortlist * self.settings.num_beams)
        short = self._first(order, order // width, size)
        flat = np.concatenate(short)
        if not len(flat):
            return self._go_on(found, short)
        beams = self.scores.shape[1]
        rows = flat // width * beams + flat % width // (width // beams)
        device = self.rows.device
        fork = self.rows.fork(torch.from_numpy(rows).to(device))
        logits = fork.step(torch.from_numpy(found.tokens.ravel()[flat]).to(device))
        known: dict[tuple[int, int, bytes], Wanted] = {}
        wanted = [self._wanted(found, index, known) for index in flat.tolist()]
        h = look_ahead(
            fork,
            logits,
            wanted,
            settings,
            written=self.written.shape[2] + 1,
            left=left,
            end_token_ids=self.end_ids.tolist(),
        )
        more = np.zeros(found.tokens.size, dtype=np.float32)
        more[flat] = h.cpu().numpy()
        listed = (keep & found.ends).ravel()  # these take their turn too, as they do without
        listed[flat] = True
        order, _ = self._order(found, listed.reshape(found.tokens.shape), late, more)
        order = order[~found.ends.ravel()[order]]
        chosen = self._first(order, order // width, self.settings.num_beams)
        self._advance(found, chosen)
        place = np.full(found.tokens.size, -1, dtype=np.int64)
        place[flat] = np.arange(len(flat))
        most = max(1, *map(len, chosen))
        fill = [np.concatenate([each, np.repeat(each[:1], most - len(each))]) for each in chosen]
        filled = [each if len(each) else np.repeat(flat[:1], most) for each in fill]
        at = torch.from_numpy(place[np.concatenate(filled)]).to(device)
        self.rows.adopt(fork, at)
        return logits[at]

    def _wanted(
        self, found: _Candidates, index: int, known: dict[tuple[int, int, bytes], Wanted]
    ) -> Wanted:
        """What a candidate's text still wants, as the tokenizer spells it."""
        item, place = index // found.tokens.shape[1], int(found.places.ravel()[index])
        formula = self.live[item].formula
        groups = formula.wanted(found.ended.reshape(-1, found.ended.shape[-1])[index])
        key = (id(formula), place, groups.tobytes())
        if key not in known:
            anywhere = [one for g in np.flatnonzero(groups) for one in formula.spellings[g]]
            now = [one.rest for one in formula.begun(place) if groups[one.group]]
            known[key] = Wanted(tuple(dict.fromkeys(anywhere)), tuple(dict.fromkeys(now)))
        return known[key]

    # -------------------------------------------------------------- ends

    def _strand(self, keep: Bools) -> None:
        """Put the beams of prompts that can neither go on nor end into their pool as they are."""
        length = self.written.shape[2]
        for at in np.flatnonzero(~keep.any(1)):
            if self.live[at].ended:
                continue
            holds = self._judged().holds[at]
            for beam in np.flatnonzero(np.isfinite(self.scores[at])):
                log_probability = float(self.scores[at, beam])
                score = log_probability / max(1, length) ** self.settings.length_penalty
                tokens = tuple(self.written[at, beam].tolist())
                unmet = int((~holds[beam]).sum())
                self.live[at].ended.append(_Ended(unmet, True, score, log_probability, tokens))
            self.live[at].relaxed["end"] = None

    def _finish(
        self, found: _Candidates, order: Ints, item: Ints, position: Ints, left: int
    ) -> None:
        """Put texts that end among the first k candidates into their prompt's pool."""
        size = self.settings.num_beams
        ends = found.ends.ravel()[order]
        width = found.tokens.shape[1]
        beams = self.scores.shape[1]
        length = self.written.shape[2] + 1
        # Cut at the limit, what ends a text has ended it: not the same text once more.
        cut = ~np.isin(found.tokens.ravel()[order], self.end_ids) if left == 0 else False
        for at in np.flatnonzero((position < size) & (ends | cut)):
            index, one = int(order[at]), self.live[int(item[at])]
            log_probability = float(found.scores.ravel()[index])
            written = self.written[int(item[at]), index % width // (width // beams)].tolist()
            holds = found.judged.holds[int(item[at]), index % width]
            strict = self.settings.end == "strict" and not one.formula.empty
            one.ended.append(
                _Ended(
                    unmet=int((~holds).sum()),
                    cut=bool(strict and not ends[at]),
                    score=log_probability / length**self.settings.length_penalty,
                    log_probability=log_probability,
                    tokens=(*written, int(found.tokens.ravel()[index])),
                )
            )
        for one in self.live:
            one.ended.sort(key=lambda each: each.rank)
            del one.ended[size:]

    def _drop_done(self, logits: torch.Tensor, step: int) -> torch.Tensor:
        """Leave the prompts that are done; gives the logits of the others."""
        import torch

        going = [i for i, one in enumerate(self.live) if not self._done(one, i, step + 1)]
        if len(going) == len(self.live):
            return logits
        keep = np.array(going, dtype=np.int64)
        beams = self.scores.shape[1]
        rows = torch.from_numpy((keep[:, None] * beams + np.arange(beams)).ravel())
        rows = rows.to(logits.device)
        self.live = [self.live[i] for i in going]
        self.tracker.keep(keep)
        self.scores, self.counts = self.scores[keep], self.counts[keep]
        self.places_row, self.written = self.places_row[keep], self.written[keep]
        if going:
            self.rows.select(rows)
        return logits[rows]

    def _done(self, one: _Item, index: int, length: int) -> bool:
        settings = self.settings
        best = float(self.scores[index].max())
        if best == -math.inf:
            return True
        if len(one.ended) < settings.num_beams or one.ended[-1].unmet:
            return False
        if settings.num_beams == 1:
            return True  # greedy search: the first end is the end
        if settings.early_stopping == "never" and settings.length_penalty > 0:
            length = settings.max_new_tokens
        worst = min(each.score for each in one.ended)
        return bool(best / length**settings.length_penalty <= worst)

    def _results(self, item: _Item) -> list[Hypothesis]:
        ends = set(self.end_ids.tolist())
        out = []
        for one in item.ended[: self.settings.num_return_sequences]:
            clauses = item.formula.explain(one.tokens, item.before)
            out.append(
                Hypothesis(
                    text=self.table.text(one.tokens),
                    token_ids=one.tokens,
                    score=one.score,
                    log_probability=one.log_probability,
                    satisfied=all(each.satisfied for each in clauses),
                    ended=bool(one.tokens) and one.tokens[-1] in ends,
                    clauses=clauses,
                    relaxed=tuple(item.relaxed),
                )
            )
        return out


def _numbered(rows: Bools) -> Ints:
    """A number for each row of truth values (M, C), the same for the same row: (M,)."""
    if rows.shape[1] <= 62:
        return rows @ (1 << np.arange(rows.shape[1], dtype=np.int64))
    packed = np.packbits(rows, axis=1)
    whole = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1])))
    return np.unique(whole.ravel(), return_inverse=True)[1].astype(np.int64)
