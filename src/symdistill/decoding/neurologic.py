"""NeuroLogic decoding: the likeliest texts that meet a formula, at the price of beam search.

    formula = contains("dog") & excludes("cat")
    out = constrained_generate(model, tokenizer, ["A picture of"], formula)
    out[0][0].text, out[0][0].satisfied, out[0][0].clauses

Takes a model and a tokenizer of `transformers`, prompts, and one constraint for each; gives the n
best texts of each prompt with the status of every clause. Cost: one forward of (prompts x beams)
rows a token, as beam search has, and a few per cent of that for the constraint. What a step does,
and what of it is the paper's (Lu et al., 2021), is told in `symdistill.decoding.search`.

With an empty formula this is the beam search of `transformers`: the same texts and scores. Two
things are otherwise: ids which the tokenizer lacks are never written, and of a model's generation
settings only its end tokens and its forced first token are read (not, for instance,
`no_repeat_ngram_size`: give its processor).
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from symdistill.constraints import Constraint
from symdistill.decoding.formula import CompiledFormula
from symdistill.decoding.lookahead import Lookahead
from symdistill.decoding.search import (
    Hypothesis,
    SearchSettings,
    refuse_contradictions,
    search,
)
from symdistill.decoding.tokens import TokenTable
from symdistill.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["Hypothesis", "SearchSettings", "constrained_generate", "neurologic", "search"]


def constrained_generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    constraints: Sequence[Constraint | None] | Constraint | None = None,
    *,
    num_beams: int = 8,
    num_return_sequences: int = 1,
    max_new_tokens: int = 32,
    min_new_tokens: int = 0,
    length_penalty: float = 1.0,
    early_stopping: Literal[False, "never"] = False,
    alpha: int | None = None,
    beta: int | None = 2,
    progress_weight: float = 0.0,
    group: bool = True,
    end: Literal["strict", "soft"] = "strict",
    end_texts: Sequence[str] = (),
    lookahead: Lookahead | None = None,
    batch_size: int = 8,
    logits_processor: Sequence[Any] = (),
    on_contradiction: Literal["error", "flag"] = "error",
) -> list[list[Hypothesis]]:
    """The likeliest continuations of each prompt that meet its constraint.

    Args:
        model: of `transformers`, causal or encoder-decoder, float32 or bfloat16, any device.
        tokenizer: its tokenizer, byte-level BPE or SentencePiece.
        prompts: as the model is to read them (a chat template already applied, for instance; where
            that wrote the tokenizer's first token, it is not written twice).
        constraints: one for all prompts, or one for each; None asks nothing.
        num_beams: texts that are followed at a time, k.
        num_return_sequences: texts returned for each prompt, best first, from 1 to k.
        max_new_tokens: tokens of the longest text, its end token included.
        min_new_tokens: tokens that stand before any end token, as in `generate`.
        length_penalty: p in log_probability / length ** p. 0 favours short texts, 1 compares
            means.
        early_stopping: when a prompt is done: k ended texts are at hand, and no beam can pass the
            worst of them at the present length (False, the rule of `generate`), or at the greatest
            length ("never").
        alpha: keep only the candidates among this many likeliest of a prompt; None: no such limit.
            The paper prunes at 50 for models trained for the task.
        beta: keep only candidates with at most this many clauses fewer true than the best;
            None: no such limit. The paper's is 2.
        progress_weight: lambda of equation 8; 0 here and for models trained for the task, 1.25 in
            the released script for models that are not.
        group: whether beams are shared out among the sets of clauses met.
        end: "strict": a text ends only where it meets its formula. "soft": anywhere; the texts
            with the most clauses met come first.
        end_texts: tokens that write something ending like this end a text too, such as ".".
        lookahead: how to look ahead (A*esque); None: not. It reads the model's own probabilities,
            not those of processors.
        batch_size: prompts decoded at a time.
        logits_processor: processors of `transformers`, which see log-probabilities.
        on_contradiction: "error": a formula that no text can meet is refused before anything is
            decoded. "flag": it is decoded as well as it can be.

    Returns:
        for each prompt its texts, best first: those with the fewest clauses unmet, then, with a
        formula and `end="strict"`, those that ended, then by score.

    Raises:
        InputError: settings out of range, another number of constraints than of prompts, a formula
            that contradicts itself, a tokenizer that is not understood, a model in training.

    Warns where a clause holds of every text.
    """
    import torch
    from transformers import ForcedBOSTokenLogitsProcessor

    from symdistill.decoding.transformers_rows import TransformersRows, end_token_ids, start_ids

    settings = SearchSettings(
        num_beams=num_beams,
        num_return_sequences=num_return_sequences,
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        alpha=alpha,
        beta=beta,
        progress_weight=progress_weight,
        group=group,
        end=end,
        lookahead=lookahead,
        on_contradiction=on_contradiction,
    )
    if isinstance(prompts, str):
        raise InputError("expected a list of prompts, got one text; write [prompt]")
    prompts = list(prompts)
    if not all(isinstance(one, str) for one in prompts):
        raise InputError("expected prompts as texts, got something else; give strings")
    if model.training:
        raise InputError("expected a model that is not being trained; call model.eval()")
    if batch_size < 1:
        raise InputError(f"expected batch_size from 1; got {batch_size}; change it")
    asked = _one_each(constraints, len(prompts))
    refuse_contradictions(asked, settings)
    _tell_tautologies(asked)
    table = table_of(tokenizer)

    def encode(text: str) -> Sequence[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    ends = {*end_token_ids(model, tokenizer), *tokens_ending(table, end_texts)}
    if not any(one < len(table) for one in ends):
        raise InputError(
            f"expected an end token that the tokenizer has, got {sorted(ends)}; set end_texts, "
            "such as ['.'], or the model's eos_token_id"
        )
    causal = not model.config.is_encoder_decoder
    processors = list(logits_processor)
    forced = getattr(model.generation_config, "forced_bos_token_id", None)
    if not causal and forced is not None:  # such models read every text behind this token
        processors.insert(0, ForcedBOSTokenLogitsProcessor(forced))
    out: list[list[Hypothesis]] = []
    for first in range(0, len(prompts), batch_size):
        batch = slice(first, first + batch_size)
        ids, mask = _read(tokenizer, prompts[batch], causal)
        rows = TransformersRows.from_inputs(model, ids, mask, max_new_tokens=max_new_tokens)
        out += search(
            rows,
            [CompiledFormula.compile(one, table, encode) for one in asked[batch]],
            settings,
            prompts_before=prompts[batch] if causal else [""] * len(asked[batch]),
            end_token_ids=sorted(ends),
            logits_processor=processors,
            prompt_ids=ids if causal else torch.tensor([start_ids(model)] * len(ids)),
        )
    return out


def table_of(tokenizer: Any) -> TokenTable:
    """The tokenizer's `TokenTable`, made once."""
    state = (len(tokenizer), tokenizer.eos_token_id)  # tokens may have been added since
    if tokenizer not in _TABLES or _TABLES[tokenizer][0] != state:
        _TABLES[tokenizer] = (state, TokenTable.from_tokenizer(tokenizer))
    return _TABLES[tokenizer][1]


_TABLES: weakref.WeakKeyDictionary[Any, tuple[Any, TokenTable]] = weakref.WeakKeyDictionary()


def tokens_ending(table: TokenTable, texts: Sequence[str]) -> tuple[int, ...]:
    """The tokens of which the text, without white space around it, ends with one of some texts."""
    if isinstance(texts, str) or not all(isinstance(one, str) and one.strip() for one in texts):
        raise InputError(f"expected end_texts as a list of texts such as ['.'], got {texts!r}")
    endings = tuple(one.strip().encode() for one in texts)
    return tuple(i for i, one in enumerate(table.token_bytes) if one.strip().endswith(endings))


def _one_each(
    constraints: Sequence[Constraint | None] | Constraint | None, count: int
) -> list[Constraint | None]:
    if constraints is None or isinstance(constraints, Constraint):
        return [constraints] * count
    if not isinstance(constraints, Sequence) or not all(
        one is None or isinstance(one, Constraint) for one in constraints
    ):
        raise InputError(
            f"expected constraints such as contains(...), got {constraints!r:.80}; "
            "a phrase becomes one by contains(phrase)"
        )
    if len(constraints) != count:
        raise InputError(
            f"expected one constraint for each of {count} prompts, got {len(constraints)}; "
            "give one for each, or a single one for all"
        )
    return list(constraints)


def _tell_tautologies(asked: Sequence[Constraint | None]) -> None:
    for constraint in dict.fromkeys(asked):
        for one in constraint.tautologies() if constraint is not None else ():
            warnings.warn(f"a clause asks nothing: {one}", stacklevel=3)


def _read(
    tokenizer: Any, prompts: Sequence[str], causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The prompts' tokens and their mask, (B, T) each, padded on the side that the model needs.

    A prompt that begins with the tokenizer's first token as text gets no second one.
    """
    import torch

    first = tokenizer.bos_token
    ids = [
        tokenizer(one, add_special_tokens=not (first and one.startswith(first)))["input_ids"]
        for one in prompts
    ]
    if not all(ids):
        raise InputError(
            "expected prompts of at least one token, got an empty one; "
            "begin it with the tokenizer's bos_token"
        )
    width = max(map(len, ids))
    tokens = torch.zeros((len(ids), width), dtype=torch.int64)
    mask = torch.zeros_like(tokens)
    for row, one in enumerate(ids):
        own = slice(width - len(one), width) if causal else slice(len(one))
        tokens[row, own] = torch.tensor(one)
        mask[row, own] = 1
    return tokens, mask


def neurologic(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: Any = None,
    stopping_criteria: Any = None,
    generation_config: Any = None,
    formula: CompiledFormula | Sequence[CompiledFormula] | None = None,
    alpha: int | None = None,
    beta: int | None = 2,
    progress_weight: float = 0.0,
    group: bool = True,
    end: Literal["strict", "soft"] = "strict",
    lookahead: Lookahead | None = None,
    on_contradiction: Literal["error", "flag"] = "error",
    **model_kwargs: Any,
) -> Any:
    """The search as a `custom_generate` of `transformers`.

        formula = CompiledFormula.compile(constraint, TokenTable.from_tokenizer(tokenizer), encode)
        model.generate(**inputs, custom_generate=neurologic, formula=formula, num_beams=8)

    Takes one formula for all prompts or one for each; `alpha` to `on_contradiction` are those of
    `constrained_generate`. `num_beams`, `num_return_sequences`, `max_new_tokens`, `min_new_tokens`,
    `length_penalty`, `early_stopping` and logits processors are taken from `generate`'s own. Gives
    what `generate` gives. The hook hands over prompts repeated for each beam and no tokenizer, so
    `constrained_generate` is faster to start and the one that tells what each clause found.

    Raises:
        InputError: no formula, sampling, `early_stopping=True`, stopping criteria besides length
            and end tokens.
    """
    import torch
    from transformers import EosTokenCriteria, MaxLengthCriteria
    from transformers.generation.utils import (
        GenerateBeamDecoderOnlyOutput,
        GenerateBeamEncoderDecoderOutput,
    )

    from symdistill.decoding.transformers_rows import TransformersRows, start_ids

    config = generation_config
    beams = config.num_beams
    causal = not model.config.is_encoder_decoder
    prompts = input_ids[::beams]
    if formula is None:
        raise InputError(
            "expected formula=, a CompiledFormula (or one for each prompt) beside custom_generate; "
            "got none; compile one with CompiledFormula.compile"
        )
    formulas = [formula] * len(prompts) if isinstance(formula, CompiledFormula) else formula
    if not isinstance(formulas, Sequence) or not all(
        isinstance(one, CompiledFormula) for one in formulas
    ):
        raise InputError(
            f"expected formula= as a CompiledFormula or a list of them, got {formula!r:.80}; "
            "compile one with CompiledFormula.compile"
        )
    if config._eos_token_tensor is None:
        raise InputError("expected end tokens, got none; set eos_token_id in generate")
    if len(formulas) != len(prompts):
        raise InputError(
            f"expected one formula for each of {len(prompts)} prompts, got {len(formulas)}"
        )
    if config.do_sample:
        raise InputError("expected do_sample=False, got True; the search draws nothing")
    known = (EosTokenCriteria, MaxLengthCriteria)
    strange = [one for one in stopping_criteria or () if not isinstance(one, known)]
    if strange:
        raise InputError(
            "expected no stopping criteria besides length and end tokens, got "
            f"{type(strange[0]).__name__}; leave it out"
        )
    settings = SearchSettings(
        num_beams=beams,
        num_return_sequences=config.num_return_sequences,
        max_new_tokens=config.max_length - prompts.shape[1],
        min_new_tokens=config.min_new_tokens or 0,
        length_penalty=config.length_penalty,
        early_stopping=config.early_stopping,
        alpha=alpha,
        beta=beta,
        progress_weight=progress_weight,
        group=group,
        end=end,
        lookahead=lookahead,
        on_contradiction=on_contradiction,
    )
    if not causal and any(one != list(start_ids(model)) for one in prompts.tolist()):
        raise InputError(
            f"expected the decoder to begin with {start_ids(model)}, got {prompts[0].tolist()}; "
            "leave decoder_input_ids out"
        )
    mask = model_kwargs.get("attention_mask")
    encoder_outputs = model_kwargs.get("encoder_outputs")
    rows = TransformersRows.from_inputs(
        model,
        prompts,
        None if mask is None else mask[::beams],
        max_new_tokens=settings.max_new_tokens,
        encoded=None if causal or encoder_outputs is None else encoder_outputs[0][::beams],
    )
    table = formulas[0].table
    found = search(
        rows,
        formulas,
        settings,
        prompts_before=[table.text(one[-8:]) if causal else "" for one in prompts.tolist()],
        end_token_ids=config._eos_token_tensor.tolist(),
        logits_processor=[logits_processor] if logits_processor else [],
        prompt_ids=prompts,
    )
    # Where there are fewer texts than were asked for, empty ones with the score -inf fill up.
    asked = settings.num_return_sequences
    ids = [each[i].token_ids if i < len(each) else () for each in found for i in range(asked)]
    best = [each[i].score if i < len(each) else -torch.inf for each in found for i in range(asked)]
    width = max(map(len, ids))
    pad = int(config._pad_token_tensor)
    new = torch.tensor([[*one, *[pad] * (width - len(one))] for one in ids], dtype=torch.int64)
    repeated = prompts.repeat_interleave(asked, 0)
    sequences = torch.cat([repeated, new.to(prompts)], dim=1)
    if not config.return_dict_in_generate:
        return sequences
    kind = GenerateBeamDecoderOnlyOutput if causal else GenerateBeamEncoderDecoderOutput
    return kind(sequences=sequences, sequences_scores=torch.tensor(best, device=input_ids.device))  # type: ignore[arg-type]
