"""A*esque lookahead: how likely what a text still has to say will come in the tokens ahead.

Takes rows in which shortlisted candidates were just written, the logits after them and what each
still wants; gives one number a row, to be added to the candidate's score before the beam is
chosen. It follows NeuroLogic A*esque decoding (Lu et al., 2022):

    h = weight * max over wanted phrases a and positions t' of log p(a at t' | what stands before)

where what stands before t' is the row and a continuation of it that the model likes: the greedy
one, a mixture of all (soft), some drawn at random (sample), or the best of a small beam.

Cost
    One step of beam search is one forward of k rows for each prompt. With lookahead it is one of
    `shortlist` * k rows (the candidates; the logits of those chosen are used again, so writing
    them costs no other), then `length` - 1 of the rows in which something is wanted, times
    `width` for sample and beam. Phrases of several tokens add one forward of a row for each place
    where they may still raise the maximum, in one call of the model, or two where the places are
    many; reading the first tokens is one gather a position. So with l = 5 and a shortlist of 2k
    about 10 rows are computed where beam search computes one, in 5 to 7 calls.

Phrases of several tokens, exactly
    log p(a at t') is never above log p(first token of a at t'). So a place (row, continuation,
    position, phrase) whose first token is no likelier than the best value its row is known to
    have cannot raise the maximum, and is not scored. The others are scored together.

The paper, its released code, and what we do
    *Phrase score*: the paper's is the product of the tokens' probabilities (equation 10); the code
    takes the mean of their log-probabilities, which does not favour short phrases.
    `phrase_score` is "product" or "mean"; the bound of a mean is log p(first token) / length.
    *Soft*: the paper reads the probabilities from the tempered distribution that is mixed, the
    code from the model's own. So do we: they stay comparable with the score they are added to,
    and a temperature near 0 is greedy lookahead. At temperature 1 the two are the same.
    *Sample*: the code draws from the two likeliest tokens (on CommonGen), we from all, at
    `temperature`. Our random numbers are the same for every row, so that a row's value does not
    depend on the batch.
    *Beam*: we read along the `width` best continuations, none of which has ended. The code reads
    every text that was in the beam for a while.
    *Room*: we count a phrase only where it fits into the tokens left; the code does not ask.
    *Order*: the code looks ahead for every candidate that pruning leaves, before grouping, prompt
    by prompt in chunks of 80, with one more forward for every phrase of several tokens at every
    position, and adds h to a score divided by the length so far. Ours is for a shortlist, over all
    prompts at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from symdistill.errors import InputError

if TYPE_CHECKING:
    import torch

    from symdistill.decoding.rows import Rows

__all__ = ["Lookahead", "Wanted", "look_ahead"]

Kind = Literal["greedy", "soft", "sample", "beam"]
PhraseScore = Literal["product", "mean"]

# Stands for what cannot come any more. Finite, so that scores it is added to keep their order.
LEAST_LOG_PROBABILITY = -100.0

MANY_PLACES = 4  # a row, on average; from there on a forward that closes most of them pays


@dataclass(frozen=True, slots=True)
class Lookahead:
    """How to look ahead (Lu et al., 2022, section 3 and appendix C).

    Attributes:
        kind: which continuations are read.
        length: tokens read ahead, 1 to 64; the paper's l, best at 5 to 7.
        weight: of the lookahead beside the text's log-probability, from 0; the paper's lambda2.
        width: continuations of each row, 1 to 64; for "sample" and "beam".
        shortlist: candidates looked at, in multiples of the beams, from 1.
        temperature: above 0; of the mixture of "soft" and of the draws of "sample".
        phrase_score: "product" of the tokens' probabilities, or their geometric "mean".
        seed: of the draws of "sample".
    """

    kind: Kind = "greedy"
    length: int = 5
    weight: float = 0.175
    width: int = 4
    shortlist: float = 2.0
    temperature: float = 1.0
    phrase_score: PhraseScore = "product"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings outside their ranges (`InputError`)."""
        for name, good, what in (
            ("kind", self.kind in get_args(Kind), "to be greedy, soft, sample or beam"),
            ("length", 1 <= self.length <= 64, "from 1 to 64"),
            ("weight", 0 <= self.weight < math.inf, "from 0"),
            ("width", 1 <= self.width <= 64, "from 1 to 64"),
            ("shortlist", 1 <= self.shortlist < math.inf, "from 1"),
            ("temperature", 0 < self.temperature < math.inf, "above 0"),
            ("phrase_score", self.phrase_score in get_args(PhraseScore), "to be product or mean"),
            ("seed", 0 <= self.seed < 2**63, "from 0 to 2**63 - 1"),
        ):
            if not good:
                raise InputError(
                    f"expected {name} {what}; got {getattr(self, name)!r}; change it in Lookahead"
                )


class Wanted(NamedTuple):
    """What a row still wants: token sequences, none of them empty.

    Attributes:
        anywhere: phrases that may begin at any position ahead.
        now: the rest of phrases already begun, which can only come at once.
    """

    anywhere: tuple[tuple[int, ...], ...] = ()
    now: tuple[tuple[int, ...], ...] = ()


def look_ahead(
    rows: Rows,
    logits: torch.Tensor,
    wanted: Sequence[Wanted],
    settings: Lookahead,
    *,
    written: int,
    left: int,
    end_token_ids: Sequence[int],
) -> torch.Tensor:
    """The lookahead term h of each row, at most 0, and 0 where nothing is wanted.

    The rows are as they were when it returns: where it wrote to them, it has rewound them. What
    cannot come any more (it does not fit) counts as a log-probability of -100, and so does all
    below that.

    Args:
        rows: R rows, with the candidates' tokens written.
        logits: (R, V) after them.
        wanted: what each row still wants.
        settings: which continuations, how long, how much it weighs.
        written: tokens written to each row since `start`, the candidates' among them.
        left: tokens that may still be written to each; no more positions are read.
        end_token_ids: nothing is read behind one of these.

    Returns:
        (R,) float32.
    """
    import torch

    h = torch.zeros(len(logits), device=logits.device)
    positions = min(settings.length, left)  # P
    wanting = [row for row, one in enumerate(wanted) if one.anywhere or one.now]
    if settings.weight == 0 or positions <= 0 or not wanting:
        return h
    where = torch.tensor(wanting, device=logits.device)  # (n,)
    width = settings.width if settings.kind in ("sample", "beam") else 1  # w
    paths = rows
    if width > 1 or len(wanting) < len(wanted):
        paths = rows.fork(where.repeat_interleave(width))
        logits = logits[where].repeat_interleave(width, 0)
    phrases = _phrases([wanted[row] for row in wanting], logits.device)
    firsts = phrases.tokens[:, :, 0].clamp_min(0).repeat_interleave(width, 0)  # (n * w, S)
    read = _read(paths, logits, firsts, settings, width, positions, end_token_ids)
    read = read.view(len(wanting), width, positions, -1)  # (n, w, P, S)
    read[:, 1:, 0] = -torch.inf  # the first position is the same on all paths of a row
    place = torch.arange(positions, device=logits.device)[:, None]  # (P, 1)
    length, now = phrases.length[:, None], phrases.now[:, None]  # (n, 1, S)
    fits = (length > 0) & (place + length <= left) & ((place == 0) | ~now)  # (n, P, S)
    read = read.masked_fill(~fits[:, None], -torch.inf)
    best = _best(paths, read, phrases, written, settings.phrase_score)
    if paths is rows:
        rows.rewind(positions - 1)
    h[where] = settings.weight * best.clamp_min(LEAST_LOG_PROBABILITY)
    return h


class _Phrases(NamedTuple):
    """What n rows want, S phrases each of up to M tokens."""

    tokens: torch.Tensor  # (n, S, M) int64, padded with -1
    length: torch.Tensor  # (n, S), 0 for a phrase that only fills up
    now: torch.Tensor  # (n, S) bool


def _phrases(wanted: Sequence[Wanted], device: torch.device) -> _Phrases:
    """Rows that want the same, which is most of them, are written once."""
    import numpy as np
    import torch

    distinct = {one: index for index, one in enumerate(dict.fromkeys(wanted))}
    most = max(len(one.anywhere) + len(one.now) for one in distinct)
    longest = max(len(phrase) for one in distinct for phrase in (*one.now, *one.anywhere))
    tokens = np.full((len(distinct), most, longest), -1, dtype=np.int64)
    now = np.zeros((len(distinct), most), dtype=bool)
    for one, index in distinct.items():
        now[index, : len(one.now)] = True
        for place, phrase in enumerate((*one.now, *one.anywhere)):
            tokens[index, place, : len(phrase)] = phrase
    which = np.array([distinct[one] for one in wanted])
    written = torch.from_numpy(tokens[which]).to(device)
    return _Phrases(written, (written >= 0).sum(2), torch.from_numpy(now[which]).to(device))


def _read(
    paths: Rows,
    logits: torch.Tensor,  # (n * w, V)
    firsts: torch.Tensor,  # (n * w, S)
    settings: Lookahead,
    width: int,
    positions: int,
    end_token_ids: Sequence[int],
) -> torch.Tensor:
    """Log-probability of each first token at each position of each path; -inf behind an end.

    Writes `positions - 1` tokens to the paths. (n * w, P, S).
    """
    import torch

    count, vocabulary = logits.shape
    ends = torch.tensor(sorted(end_token_ids), dtype=torch.int64, device=logits.device)
    generator = torch.Generator().manual_seed(settings.seed)
    draws = torch.rand((positions, width), generator=generator, dtype=torch.float64)
    draws = draws.to(logits.device)
    rank = torch.arange(count, device=logits.device) % width
    scores = torch.where(rank == 0, 0.0, -torch.inf)  # a beam begins as one path
    going = torch.ones_like(rank, dtype=torch.bool)
    read: list[torch.Tensor] = []
    for position in range(positions):
        log_p = logits.log_softmax(1)
        read.append(log_p.gather(1, firsts).masked_fill(~going[:, None], -torch.inf))
        if position == positions - 1:
            break
        if settings.kind == "beam":
            total = scores[:, None] + log_p
            total[:, ends] = -torch.inf
            best = total.view(-1, width * vocabulary).topk(width)
            scores, chosen = best.values.flatten(), best.indices.flatten()
            parents = torch.arange(count, device=logits.device) - rank + chosen // vocabulary
            paths.select(parents)
            read = [one[parents] for one in read]
            tokens, going = chosen % vocabulary, scores > -torch.inf
        elif settings.kind == "sample":
            upto = (logits / settings.temperature).softmax(1).double().cumsum(1)
            drawn = draws[position, rank][:, None] * upto[:, -1:]
            tokens = torch.searchsorted(upto, drawn, right=True).flatten()
            tokens = tokens.clamp_max(vocabulary - 1)
            going = going & ~torch.isin(tokens, ends)
        else:
            tokens = logits.max(1).indices  # on a CPU twice as fast as argmax
            going = going & ~torch.isin(tokens, ends)
        if settings.kind == "soft":
            logits = paths.step_embedded((logits / settings.temperature).softmax(1))
        else:
            logits = paths.step(tokens)
    return torch.stack(read, 1)


def _best(
    paths: Rows,
    read: torch.Tensor,  # (n, w, P, S) log-probabilities of first tokens
    phrases: _Phrases,
    written: int,
    phrase_score: PhraseScore,
) -> torch.Tensor:
    """The largest phrase score of each row, -inf where no phrase can come: (n,)."""
    import torch

    width = read.shape[1]
    over = (
        phrases.length.clamp_min(1) if phrase_score == "mean" else torch.ones_like(phrases.length)
    )
    bound = read / over[:, None, None]
    long = (phrases.length > 1)[:, None, None].expand_as(read)
    best = bound.masked_fill(long, -torch.inf).flatten(1).amax(1)
    bound = bound.masked_fill(~long, -torch.inf)

    def score(places: torch.Tensor) -> torch.Tensor:
        """`best` after these places have been read: (n, w, P, S) bool."""
        row, path, position, phrase = places.nonzero(as_tuple=True)
        if not len(row):
            return best
        tokens = phrases.tokens[row, phrase]
        tokens = tokens[:, : int(phrases.length[row, phrase].max())]
        rest = paths.log_probabilities(row * width + path, written + position, tokens).sum(1)
        value = (read[places] + rest) / over[row, phrase]
        return best.scatter_reduce(0, row, value, "amax")

    hopeful = bound > best[:, None, None, None]
    if hopeful.sum() > MANY_PLACES * len(best):
        # The likeliest place of each row first: its value closes most of the others.
        likeliest = torch.zeros_like(bound, dtype=torch.bool)
        likeliest.view(len(best), -1).scatter_(1, bound.flatten(1).argmax(1, keepdim=True), True)
        best = score(hopeful & likeliest)
        hopeful = ~likeliest & (bound > best[:, None, None, None])
    return score(hopeful)
