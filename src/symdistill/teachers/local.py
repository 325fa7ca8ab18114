"""A language model on this machine: it goes on with prompts, and it tells how likely texts are.

Takes prompts with a constraint each; gives one continuation per request, every one of them
journalled in the ledger before it is used. It is drawn (`Sampling`) or searched for (`Search`).
Each sample has its own random generator, seeded by the run's seed and its request key, and a
search draws nothing, so which other prompts share its batch does not choose a text (up to the
rounding of floating-point sums, which is why batches are cut by request key and not by where an
earlier attempt stopped).

Costs: one forward pass per token; on 2 CPU cores about 150 to 250 tokens/s for a 135M model. A
search writes `num_beams` texts for the likeliest of them.

Does not: keep answers anywhere but in the ledger, enforce lower bounds (`contains`) and
disjunctions while it samples (a search does), or serve more than one process.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from symdistill.budget import Budget, BudgetReached, Reservation
from symdistill.config import Count, Settings
from symdistill.constraints import Constraint
from symdistill.engine import map_batches
from symdistill.errors import InputError, RunError
from symdistill.ledger import Call, Ledger, request_key
from symdistill.models import Model
from symdistill.records import canonical_json

if TYPE_CHECKING:
    import torch

    from symdistill.decoding import TokenTable


# A forbidden word may not be written as the beginning of a longer one ("the" of "thehabit"): a
# model that may, evades the constraint by gluing words together.
EXTEND_WORDS = False


class Sampling(Settings):
    """How a continuation is drawn."""

    temperature: float = Field(0.8, ge=0, allow_inf_nan=False)
    """Divides the logits; 0 takes the likeliest token each time."""

    top_p: float = Field(0.9, gt=0, le=1)
    """Nucleus: the smallest set of tokens with this probability is drawn from (1 = all)."""

    top_k: Count = Field(0, ge=0)
    """Draw from this many likeliest tokens (0 = all)."""

    max_new_tokens: Count = Field(24, ge=1)
    """A continuation that has not ended by then is cut off and counts as unfinished."""


class LookaheadSettings(Settings):
    """How far a search looks ahead (NeuroLogic A*esque, Lu et al., 2022)."""

    kind: Literal["greedy", "soft", "sample", "beam"] = "greedy"
    """Which continuations are read."""

    length: Count = Field(5, ge=1, le=64)
    """Tokens read ahead."""

    weight: float = Field(0.175, ge=0, allow_inf_nan=False)
    """Of what is seen, beside a text's log-probability."""


class Search(Settings):
    """How the likeliest continuations that meet their constraint are found (NeuroLogic)."""

    num_beams: Count = Field(8, ge=1)
    """Texts that are followed at a time; a search ends with at most this many."""

    max_new_tokens: Count = Field(24, ge=1)
    """A continuation that has not ended by then is cut off and counts as unfinished."""

    length_penalty: float = Field(1.0, allow_inf_nan=False)
    """Texts are ranked by log-probability / tokens ** this: 0 favours short ones."""

    beta: Count | None = Field(2, ge=0)
    """Drop texts with more than this many clauses fewer met than the best; null: drop none."""

    progress_weight: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Of the share that is written of a wanted phrase, beside a text's log-probability."""

    lookahead: LookaheadSettings | None = None
    """null: none."""

    end_texts: tuple[str, ...] = (".", "!", "?")
    """Tokens that write something ending like this end a text, as the end token does."""


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """One continuation that is wanted: the prompt's sample, or rank in its search, from 0."""

    prompt: str
    prompt_id: str
    sample_index: int
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One continuation as it was received."""

    request: SampleRequest
    key: str  # of the ledger row
    text: str
    tokens: int
    finished: bool  # it ended with an end token or a sentence end, and was not cut off
    score: float | None = None  # of a search: log-probability / tokens ** length_penalty
    unmet: Sequence[str] = ()  # of a search: the clauses that the text does not meet


@dataclass(frozen=True, slots=True)
class LogProb:
    """How likely a continuation is: the sum of its tokens' log-probabilities, in nats (<= 0)."""

    total: float
    tokens: int

    @property
    def mean(self) -> float:
        """Nats per token; 0 for an empty continuation."""
        return self.total / self.tokens if self.tokens else 0.0


class LocalTeacher:
    """A causal language model in a local folder; its weights are loaded when first needed."""

    def __init__(self, model: Model, *, batch_size: int = 64) -> None:
        self.model = model
        self.batch_size = batch_size
        self._loaded: tuple[Any, Any] | None = None
        self._table: TokenTable | None = None

    @property
    def fingerprint(self) -> str:
        """The weights' fingerprint."""
        return self.model.fingerprint

    def key(self, request: SampleRequest, sampling: Sampling | Search, seed: int) -> str:
        """The ledger key of a request."""
        return request_key(self._canonical(request, sampling, seed))

    def sample(
        self,
        requests: Sequence[SampleRequest],
        *,
        sampling: Sampling | Search,
        seed: int,
        ledger: Ledger,
        budget: Budget | None = None,
        role: str = "teacher",
        advance: Callable[[int], None] = lambda done: None,
        count_tokens: Callable[[int], None] = lambda tokens: None,
    ) -> list[Sample]:
        """One continuation per request, from the ledger where it is there already.

        Args:
            requests: what is wanted; equal ones (of items with the same forms, say) share an
                answer. A search answers all ranks of a prompt that are asked for.
            sampling: how it is drawn, or searched for.
            seed: the run's seed; a search does not depend on it.
            ledger: where each batch is committed before it is used.
            budget: what the run may use; nothing is billed, but requests, tokens and time count.
            role: for the ledger's accounts.
            advance: told how many requests are done.
            count_tokens: told how many tokens were written anew.

        Returns:
            samples in the order of their keys. Where a search finds fewer texts than are asked
            for, the last ranks have an empty, unfinished one.

        Raises:
            BudgetReached: the next batch does not fit; what was written is in the ledger.
            InputError: a rank from `num_beams` on.
        """
        keyed = [(self.key(request, sampling, seed), request) for request in requests]
        batch_size = self.batch_size
        together: dict[str, dict[str, SampleRequest]] = {}  # what is computed at once, by its key
        if isinstance(sampling, Search):
            batch_size = max(1, self.batch_size // sampling.num_beams)
            for key, request in keyed:
                first = self.key(replace(request, sample_index=0), sampling, seed)
                together.setdefault(first, {})[key] = request
        else:
            together = {key: {key: request} for key, request in keyed}

        def answer(batch: list[tuple[str, dict[str, SampleRequest]]]) -> list[dict[str, Any]]:
            asked = [pair for _, one in batch for pair in one.items()]
            known = ledger.lookup([key for key, _ in asked])
            missing = [(key, request) for key, request in asked if key not in known]
            if missing:
                wanted = [request for _, request in missing]
                room = _room(budget, wanted, sampling)
                start = time.perf_counter()
                if isinstance(sampling, Search):
                    written = self._search(wanted, sampling)
                else:
                    written = self._continue(wanted, sampling, seed)
                share_s = (time.perf_counter() - start) / len(missing)
                ledger.record(
                    Call(
                        key=key,
                        role=role,
                        model=self.model.name,
                        request=self._canonical(request, sampling, seed),
                        response=response,
                        tokens_in=tokens_in,
                        tokens_out=response["tokens"],
                        wall_s=share_s,
                        cost_usd=0.0,
                    )
                    for (key, request), (response, tokens_in) in zip(missing, written, strict=True)
                )
                count_tokens(sum(response["tokens"] for response, _ in written))
                if budget is not None and room is not None:
                    used = sum(response["tokens"] + tokens_in for response, tokens_in in written)
                    budget.settle(room, tokens=used, usd=0.0)
                known.update(
                    (key, response)
                    for (key, _), (response, _) in zip(missing, written, strict=True)
                )
            advance(len(asked))
            return [{key: known[key] for key in one} for _, one in batch]

        batches = map_batches(
            answer, list(together.items()), key=lambda pair: pair[0], batch_size=batch_size
        )
        answered = {key: one[key] for batch in batches for one in batch for key in one}
        in_order = sorted(keyed, key=lambda pair: (pair[0], pair[1].prompt_id))
        return [Sample(request=request, key=key, **answered[key]) for key, request in in_order]

    def logprobs(
        self,
        prefixes: Sequence[str],
        continuations: Sequence[str],
        *,
        advance: Callable[[int], None] = lambda done: None,
        count_tokens: Callable[[int], None] = lambda tokens: None,
    ) -> list[LogProb]:
        """log p(continuation | prefix) for each pair, in nats.

        Prefix and continuation are tokenised apart and joined, which is what the model sees
        when it writes; the prefix gets the special tokens that the tokenizer gives a text (a
        beginning-of-text token, or none). With an empty prefix and no such token, the
        continuation's first token is given, not scored.

        Raises:
            ValueError: unequal numbers of prefixes and continuations.
        """
        if len(prefixes) != len(continuations):
            raise ValueError(f"expected pairs; got {len(prefixes)} and {len(continuations)}")
        import torch

        model, tokenizer = self._load()
        pairs: list[tuple[list[int], list[int]]] = []
        for prefix, continuation in zip(prefixes, continuations, strict=True):
            given = tokenizer(prefix)["input_ids"]
            written = tokenizer(continuation, add_special_tokens=False)["input_ids"]
            if not given:
                given, written = written[:1], written[1:]
            pairs.append((given, written))
        # One order for all: by lengths, then by place; so equal input gives equal batches.
        order = sorted(range(len(pairs)), key=lambda i: (len(pairs[i][1]), len(pairs[i][0]), i))
        result: list[LogProb] = [LogProb(0.0, 0)] * len(pairs)
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            wide = max(1, max(len(pairs[i][0]) + len(pairs[i][1]) for i in rows))
            keep = max(len(pairs[i][1]) for i in rows)
            advance(len(rows))
            if not keep:
                continue
            ids = torch.zeros((len(rows), wide), dtype=torch.long)  # (B, T), padded on the left
            mask = torch.zeros((len(rows), wide), dtype=torch.long)
            for b, i in enumerate(rows):
                tokens = pairs[i][0] + pairs[i][1]
                ids[b, wide - len(tokens) :] = torch.tensor(tokens)
                mask[b, wide - len(tokens) :] = 1
            ids, mask = ids.to(model.device), mask.to(model.device)
            with torch.inference_mode():
                logits = model(
                    input_ids=ids,
                    attention_mask=mask,
                    position_ids=(mask.cumsum(1) - 1).clamp(min=0),
                    logits_to_keep=keep + 1,
                ).logits[:, :-1]  # (B, keep, V): each row predicts the next token
                gold = ids[:, wide - keep :]  # (B, keep)
                taken = logits.float().log_softmax(-1).gather(-1, gold[..., None])[..., 0].cpu()
            for b, i in enumerate(rows):
                count = len(pairs[i][1])
                total = float(taken[b, keep - count :].double().sum())
                if math.isnan(total):
                    raise RunError(_NOT_NUMBERS.format(self.model.folder))
                result[i] = LogProb(total, count)
            count_tokens(int(mask.sum()))
        return result

    def unload(self) -> None:
        """Give the weights' memory back; they are loaded again when needed."""
        self._loaded = None

    # -- inside -----------------------------------------------------------------------------

    def _canonical(
        self, request: SampleRequest, sampling: Sampling | Search, seed: int
    ) -> dict[str, Any]:
        asked = {
            "model": self.model.fingerprint,
            "prompt": request.prompt,
            "constraint": request.constraint.to_json() if request.constraint else None,
            "sample_index": request.sample_index,
        }
        settings = sampling.model_dump(mode="json")
        if isinstance(sampling, Search):
            return {**asked, "search": settings}
        return {**asked, "extend_words": EXTEND_WORDS, "sampling": settings, "seed": seed}

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer

            try:
                tokenizer = AutoTokenizer.from_pretrained(self.model.folder, padding_side="left")
                model = AutoModelForCausalLM.from_pretrained(
                    self.model.folder, dtype=torch.float32, use_safetensors=True
                )
            except Exception as error:  # of three libraries, some of them bare
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                raise InputError(
                    f"expected a causal language model with a tokenizer in {self.model.folder}; "
                    f"got: {reason}; give another model"
                ) from error
            if tokenizer.pad_token_id is None:
                tokenizer.pad_token_id = _end_tokens(model, tokenizer)[0]
            device = "cuda" if torch.cuda.is_available() else "cpu"
            self._loaded = (model.eval().to(device), tokenizer)
        return self._loaded

    def _continue(
        self, requests: Sequence[SampleRequest], sampling: Sampling, seed: int
    ) -> list[tuple[dict[str, Any], int]]:
        """Sample one batch; gives (response, prompt tokens) per request."""
        from symdistill.decoding import ExactMask, SeededSampling

        model, tokenizer = self._load()
        table = self._token_table(tokenizer)
        inputs = tokenizer(
            [request.prompt for request in requests],
            return_tensors="pt",
            padding=True,
        ).to(model.device)
        width = int(inputs["input_ids"].shape[1])
        eos = _end_tokens(model, tokenizer)

        processors: list[Any] = []
        if any(request.constraint is not None for request in requests):
            processors.append(
                ExactMask(
                    table,
                    [request.constraint for request in requests],
                    before=[request.prompt for request in requests],
                    prompt_length=width,
                    max_new_tokens=sampling.max_new_tokens,
                    eos_token_ids=eos,
                    extend_words=EXTEND_WORDS,
                )
            )
        if sampling.temperature > 0:
            seeds = [int(self.key(request, sampling, seed)[:15], 16) for request in requests]
            processors.append(
                SeededSampling(
                    seeds,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    top_k=sampling.top_k,
                )
            )
        stop = _SentenceEnd(table, width)
        out = likeliest_tokens(
            model,
            inputs,
            processors=processors,
            stop=stop,
            eos=eos,
            max_new_tokens=sampling.max_new_tokens,
            folder=self.model.folder,
        )
        answers: list[tuple[dict[str, Any], int]] = []
        for row, prompt_tokens in zip(
            out.tolist(), inputs["attention_mask"].sum(1).tolist(), strict=True
        ):
            length, finished = stop.length(row, eos)
            text = tokenizer.decode(
                row[:length], skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            response = {"text": text, "tokens": length, "finished": finished}
            answers.append((response, int(prompt_tokens)))
        return answers

    def _search(
        self, requests: Sequence[SampleRequest], search: Search
    ) -> list[tuple[dict[str, Any], int]]:
        """Search for the texts of one batch; gives (response, prompt tokens) per request."""
        import torch

        from symdistill.decoding import Lookahead, constrained_generate
        from symdistill.decoding.transformers_rows import end_token_ids

        model, tokenizer = self._load()
        ends = end_token_ids(model, tokenizer)
        # A text is one line: no token breaks it, and none but an end token writes nothing.
        written = enumerate(self._token_table(tokenizer).token_bytes)
        barred = [i for i, text in written if i not in ends and text.splitlines() != [text]]
        without = torch.tensor(barred, dtype=torch.long, device=model.device)

        def one_line(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            return scores.index_fill(1, without, -torch.inf)

        asked = list(dict.fromkeys((one.prompt, one.constraint) for one in requests))
        found = constrained_generate(
            model,
            tokenizer,
            [prompt for prompt, _ in asked],
            [constraint for _, constraint in asked],
            num_beams=search.num_beams,
            num_return_sequences=1 + max(one.sample_index for one in requests),
            max_new_tokens=search.max_new_tokens,
            length_penalty=search.length_penalty,
            beta=search.beta,
            progress_weight=search.progress_weight,
            lookahead=Lookahead(**search.lookahead.model_dump()) if search.lookahead else None,
            end_texts=search.end_texts,
            batch_size=len(asked),
            logits_processor=[one_line],
            on_contradiction="flag",  # a text that cannot be had is a record, not the run's end
        )
        texts = dict(zip(asked, found, strict=True))
        read = {prompt: len(tokenizer(prompt)["input_ids"]) for prompt, _ in asked}
        answers: list[tuple[dict[str, Any], int]] = []
        for request in requests:
            response: dict[str, Any] = {"text": "", "tokens": 0, "finished": False}
            if best := texts[request.prompt, request.constraint][request.sample_index :]:
                response = {
                    "text": best[0].text,
                    "tokens": sum(token not in ends for token in best[0].token_ids),
                    "finished": best[0].ended,
                    "score": best[0].score,
                    "unmet": list(best[0].unmet),
                }
            answers.append((response, read[request.prompt]))
        return answers

    def _token_table(self, tokenizer: Any) -> TokenTable:
        if self._table is None:
            from symdistill.decoding import TokenTable

            self._table = TokenTable.from_tokenizer(tokenizer)
        return self._table


def likeliest_tokens(
    model: Any,
    inputs: Any,
    *,
    processors: Sequence[Any],
    stop: Any,
    eos: Sequence[int],
    max_new_tokens: int,
    folder: Path,
) -> torch.Tensor:
    """Go on with a batch, each time with the token that scores best after the processors.

    Args:
        model: in `transformers`.
        inputs: token ids and attention mask, (B, T), padded on the left.
        processors: change the scores; a draw is made by `SeededSampling`, put last.
        stop: tells which rows have ended, besides those with an end token.
        eos: the end tokens; the first also fills rows that have ended.
        max_new_tokens: the longest row.
        folder: the model's, for the error.

    Returns:
        the tokens after the prompts, (B, N), N <= max_new_tokens.

    Raises:
        RunError: the model's scores are no numbers.
    """
    import torch
    from transformers import LogitsProcessorList, StoppingCriteriaList

    def refuse_nan(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if bool(scores.isnan().any()):
            raise RunError(_NOT_NUMBERS.format(folder))
        return scores

    with torch.inference_mode():
        out: torch.Tensor = model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            eos_token_id=eos,
            pad_token_id=eos[0],
            logits_processor=LogitsProcessorList([refuse_nan, *processors]),
            stopping_criteria=StoppingCriteriaList([stop]),
            temperature=None,
            top_p=None,
            top_k=None,
        )
    return out[:, inputs["input_ids"].shape[1] :]


def _room(
    budget: Budget | None, requests: Sequence[SampleRequest], sampling: Sampling | Search
) -> Reservation | None:
    """What a batch may come to, reserved; a token is at least a byte."""
    if budget is None:
        return None
    bound = sum(len(one.prompt.encode()) + 8 + sampling.max_new_tokens for one in requests)
    room = budget.reserve(requests=len(requests), tokens=bound)
    if room is None:
        raise BudgetReached(
            f"the budget is reached ({budget.reached()}); what was written is kept; raise it and "
            "run the same command to go on"
        )
    return room


_NOT_NUMBERS = (
    "expected scores that are numbers from the model in {}; got NaN; its weights are damaged: "
    "remove the folder and make it again (a student: with a lower learning rate)"
)


class _SentenceEnd:
    """Stops a row after a token that ends its sentence: `. ! ?` or a line break.

    A full stop straight after a digit does not end it: "3." is the start of "3.5".
    """

    def __init__(self, table: Any, width: int) -> None:
        self._width = width
        texts = [bytes_.decode("utf-8", "replace") for bytes_ in table.token_bytes]
        self._ends = {i for i, text in enumerate(texts) if _ends_sentence(text)}
        self._stops = {i for i, text in enumerate(texts) if text == "."}
        self._digit = {i for i, text in enumerate(texts) if text and text[-1].isdigit()}

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        import torch

        last = input_ids[:, max(self._width, input_ids.shape[1] - 2) :].tolist()
        return torch.tensor([self._ended(row) for row in last], device=input_ids.device)

    def _ended(self, row: Sequence[int]) -> bool:
        in_number = row[-1] in self._stops and len(row) > 1 and row[-2] in self._digit
        return row[-1] in self._ends and not in_number

    def length(self, row: Sequence[int], eos: Sequence[int]) -> tuple[int, bool]:
        """How many tokens of a row are its text, and whether it ended there."""
        for i, token in enumerate(row):
            if token in eos:
                return i, True
            if self._ended(row[max(0, i - 1) : i + 1]):
                return i + 1, True
        return len(row), False


def _ends_sentence(text: str) -> bool:
    return re.search(r"\n|([!?]|(?<!\d)\.)[\"')” ]*$", text) is not None


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The ids after which a text is over, from the generation settings and the tokenizer."""
    known = model.generation_config.eos_token_id
    ids = list(known) if isinstance(known, (list, tuple)) else [known]
    ids += [tokenizer.eos_token_id, tokenizer.get_vocab().get("<|endoftext|>")]
    found = sorted({i for i in ids if i is not None})
    if not found:
        raise InputError(
            "expected a tokenizer with an end-of-text token; got none; set eos_token in its config"
        )
    return found


def perplexity(logprob: LogProb) -> float:
    """exp of minus the mean log-probability; 1 is certain."""
    return math.exp(-logprob.mean)


def decoding_settings(sampling: Sampling | Search, constraint: Constraint | None) -> str:
    """What lineage says of the decoding: the settings and the constraint program's hash."""
    settings = sampling.model_dump(mode="json")
    return canonical_json({**settings, "constraint": constraint and constraint.fingerprint})
