"""`symdistill decode`: texts of a model that hold what they must and nothing they must not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.console import Console

from symdistill.errors import InputError

if TYPE_CHECKING:
    from symdistill.constraints import Constraint
    from symdistill.datafiles import Row
    from symdistill.decoding import Hypothesis, Lookahead

DTYPES = ("float32", "bfloat16")
out = Console(markup=False, highlight=False, emoji=False)


class Asked(NamedTuple):
    """A prompt, what its texts must meet, and what to call it in a message."""

    prompt: str
    constraint: Constraint | None
    name: str


def decode(
    model: Annotated[
        str, typer.Option(help="embedded:smollm2, a folder or a hub id; encoder-decoder, too.")
    ] = "embedded:smollm2",
    constraints: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="The constraint that every text must meet."),
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="A prompt; may be given repeatedly.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A table of prompts, or one to a line.")
    ] = None,
    text: Annotated[
        str, typer.Option(help="Its column of prompts. A column constraint adds to --constraints.")
    ] = "text",
    chat: Annotated[
        bool, typer.Option("--chat", help="Prompts are messages: apply the chat template.")
    ] = False,
    num_beams: Annotated[int, typer.Option(min=1, max=1000, help="Texts followed at a time.")] = 8,
    return_: Annotated[
        int, typer.Option("--return", min=1, help="Texts for each prompt, best first.")
    ] = 1,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Of the longest text.")] = 32,
    min_new_tokens: Annotated[int, typer.Option(min=0, help="Before a text may end.")] = 0,
    length_penalty: Annotated[
        float, typer.Option(help="p of log-probability / tokens ** p.")
    ] = 1.0,
    alpha: Annotated[
        int | None, typer.Option(min=1, help="Candidates kept by likelihood. Default: all.")
    ] = None,
    beta: Annotated[
        int, typer.Option(min=0, help="Clauses that a candidate may be behind the best.")
    ] = 2,
    progress_weight: Annotated[
        float, typer.Option(min=0, help="Of the share of a phrase that is written.")
    ] = 0.0,
    group: Annotated[bool, typer.Option(help="Share beams among the sets of clauses met.")] = True,
    end: Annotated[
        str, typer.Option(help="strict: a text ends only where it meets its constraint; or soft.")
    ] = "strict",
    end_text: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Tokens ending so end a text, e.g. a full stop."),
    ] = None,
    lookahead: Annotated[
        str | None, typer.Option(metavar="KIND", help="greedy, soft, sample or beam.")
    ] = None,
    lookahead_length: Annotated[
        int | None, typer.Option(help="Tokens looked ahead. Default: 5.")
    ] = None,
    lookahead_weight: Annotated[
        float | None, typer.Option(help="Of what is seen there. Default: 0.175.")
    ] = None,
    on_contradiction: Annotated[
        str, typer.Option(help="error, or flag: decode as well as can be.")
    ] = "error",
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts decoded at a time.")] = 8,
    device: Annotated[
        str | None, typer.Option(help="E.g. cuda. Default: a GPU if there is one.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    target: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.jsonl", help="Write all that was found.")
    ] = None,
) -> None:
    """Write the likeliest texts that meet a constraint, and say what each of them meets.

    A text that does not meet its constraint is marked; it is no failure of the command.
    """
    _check(target, [one for one in (constraints, prompts) if one], num_beams, return_, dtype)
    ahead = _lookahead(lookahead, lookahead_length, lookahead_weight)
    asked = _asked(constraints, prompt or (), prompts, text)
    say = Console(stderr=True, markup=False, highlight=False, emoji=False)
    _look_over(asked, say, refuse=on_contradiction == "error")
    _prepare_torch()
    from symdistill.datafiles import write_rows
    from symdistill.decoding import constrained_generate
    from symdistill.decoding.search import SearchSettings
    from symdistill.progress import ConsoleProgress

    settings: dict[str, Any] = {
        "num_beams": num_beams, "num_return_sequences": return_,
        "max_new_tokens": max_new_tokens, "min_new_tokens": min_new_tokens,
        "length_penalty": length_penalty, "alpha": alpha, "beta": beta,
        "progress_weight": progress_weight, "group": group, "end": end, "lookahead": ahead,
        "on_contradiction": on_contradiction,
    }  # fmt: skip
    SearchSettings(**settings)  # refused before the model is loaded
    decoder, tokenizer = _load(model, device, dtype)
    written = [_rendered(tokenizer, one.prompt, model) if chat else one.prompt for one in asked]
    found: list[list[Hypothesis]] = []
    try:
        with ConsoleProgress(say).stage("decode", len(asked), "prompts") as advance:
            for first in range(0, len(asked), batch_size):
                batch = slice(first, first + batch_size)
                found += constrained_generate(
                    decoder, tokenizer, written[batch],
                    [one.constraint for one in asked[batch]],
                    end_texts=end_text or (), batch_size=batch_size, **settings,
                )  # fmt: skip
                advance(len(asked[batch]))
    finally:  # what is there is shown, whatever stopped the rest
        _tell(asked, found)
    if target is not None:
        rows = [
            _record(number, one.prompt, rank, text)
            for number, (one, texts) in enumerate(zip(asked, found, strict=True), start=1)
            for rank, text in enumerate(texts, start=1)
        ]
        write_rows(target, rows)
        say.print(f"Wrote {target}.", soft_wrap=True)
    texts = [each for some in found for each in some]
    unmet = sum(not one.satisfied for one in texts)
    say.print(
        f"{len(texts) - unmet:,} of {len(texts):,} texts meet their constraint.", soft_wrap=True
    )


# -- what is asked ------------------------------------------------------------------------------


def _asked(
    constraints: Path | None, prompt: Sequence[str], prompts: Path | None, text: str
) -> list[Asked]:
    """The prompts, each with the constraint of all and its own."""
    from symdistill.constraints import all_of, from_file
    from symdistill.datafiles import read_rows, row_named

    if bool(prompt) == (prompts is not None):
        got = "both" if prompt else "none"
        raise InputError(f"expected --prompt TEXT or --prompts FILE; got {got}; give one")
    of_all = from_file(constraints) if constraints else None
    asked = [Asked(one, of_all, f"--prompt {number}") for number, one in enumerate(prompt, 1)]
    for number, row in read_rows(prompts, [text], what="prompts") if prompts else ():
        name = f"{row_named(Path(prompts or ''), number)} of {prompts}"
        own = _own(row, name)
        given = [one for one in (of_all, own) if one is not None]
        asked.append(Asked(_prompt(row, text, name), all_of(*given) if given else None, name))
    for one in asked:
        _refuse_unusable(one)
    if not asked:
        raise InputError(f"expected at least one prompt in {prompts}; got none; add some")
    if all(one.constraint is None for one in asked):
        also = f", or {prompts} a column constraint" if prompts else ""
        raise InputError(f"expected a constraint; got none; give --constraints FILE.json{also}")
    return asked


def _prompt(row: Row, text: str, name: str) -> str:
    if isinstance(row, str):
        raise InputError(f"expected a row of prompts; {name} {row}; mend it")
    if not isinstance(row.get(text), str):
        raise InputError(
            f"expected a prompt in the column {text!r} of {name}; got none; its columns are "
            f"{', '.join(row)}; fill it in, or name another with --text"
        )
    return str(row[text])


def _refuse_unusable(one: Asked) -> None:
    if not one.prompt.strip():
        raise InputError(f"expected a prompt as {one.name}; got an empty one; write something")
    if any("\ud800" <= character <= "\udfff" for character in one.prompt):
        raise InputError(
            f"expected readable characters in {one.name}; got {one.prompt!a:.80}; save it as UTF-8"
        )


def _own(row: Row, name: str) -> Constraint | None:
    """The constraint of a row: a JSON object, or one as text; None where there is none."""
    from symdistill.constraints import from_json
    from symdistill.datafiles import is_missing

    cell = None if isinstance(row, str) else row.get("constraint")
    if is_missing(cell) or cell == "":
        return None
    try:
        return from_json(json.loads(cell) if isinstance(cell, str) else cell)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"expected a constraint as JSON in {name}; got: {error}") from error


def _look_over(asked: Sequence[Asked], say: Console, *, refuse: bool) -> None:
    """Refuse or note what contradicts itself, and note clauses that ask nothing."""
    first: dict[Constraint, str] = {}
    for one in asked:
        if one.constraint is not None:
            first.setdefault(one.constraint, one.name)
    for constraint, name in first.items():
        for found in constraint.contradictions():
            if refuse:
                raise InputError(
                    f"expected a constraint that some text can meet, for {name}; {found}; change "
                    "it, or add --on-contradiction flag to decode as well as can be"
                )
            say.print(f"Note, for {name}: {found}.", soft_wrap=True)
        for nothing in constraint.tautologies():
            say.print(f"Note, for {name}: {nothing}.", soft_wrap=True)


# -- the model and the settings -----------------------------------------------------------------


def _check(
    target: Path | None, read: Sequence[Path], num_beams: int, return_: int, dtype: str
) -> None:
    if target is not None and target.suffix.lower() != ".jsonl":
        raise InputError(f"expected a .jsonl file to write; got {target}; change its suffix")
    if target is not None and target.resolve() in [one.resolve() for one in read]:
        raise InputError(f"expected another file to write than {target}, which is read; name one")
    if return_ > num_beams:
        raise InputError(
            f"expected --return to be at most --num-beams ({num_beams}); got {return_}; raise "
            "--num-beams"
        )
    if dtype not in DTYPES:
        raise InputError(f"expected --dtype {' or '.join(DTYPES)}; got {dtype!r}; use one of them")


def _lookahead(kind: str | None, length: int | None, weight: float | None) -> Lookahead | None:
    from symdistill.decoding import Lookahead

    given: dict[str, Any] = {"length": length, "weight": weight}
    given = {name: value for name, value in given.items() if value is not None}
    if kind is None:
        if given:
            raise InputError(
                f"expected --lookahead KIND beside --lookahead-{next(iter(given))}; got none; add "
                "--lookahead greedy"
            )
        return None
    return Lookahead(kind=kind, **given)  # type: ignore[arg-type]


def _load(name: str, device: str | None, dtype: str) -> tuple[Any, Any]:
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoTokenizer,
    )

    from symdistill.models import resolve

    folder = resolve(name).folder
    try:
        both = AutoConfig.from_pretrained(folder).is_encoder_decoder
        kind = AutoModelForSeq2SeqLM if both else AutoModelForCausalLM
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = kind.from_pretrained(folder, dtype=getattr(torch, dtype), use_safetensors=True)
    except Exception as error:  # of three libraries, some of them bare
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"expected a causal or encoder-decoder language model with a tokenizer in {folder}; "
            f"got: {reason}; give another model"
        ) from error
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return model.eval().to(place), tokenizer
    except (RuntimeError, AssertionError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"expected a device that torch can use here as --device; got {place!r}: {reason}; "
            "use cpu"
        ) from error


def _rendered(tokenizer: Any, prompt: str, model: str) -> str:
    """A message as the chat template writes it, without what the tokenizer adds anyway."""
    import jinja2

    if tokenizer.chat_template is None:
        raise InputError(
            f"expected a model with a chat template; {model} has none; leave out --chat"
        )
    messages = [{"role": "user", "content": prompt}]
    try:
        text: str = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
    except jinja2.TemplateError as error:
        raise InputError(
            f"expected a chat template that takes a message; that of {model} says: {error}; leave "
            "out --chat"
        ) from error
    begin = tokenizer.bos_token
    twice = bool(begin) and tokenizer(text)["input_ids"][:2] == [tokenizer.bos_token_id] * 2
    return text.removeprefix(begin) if twice else text


# -- what was found -----------------------------------------------------------------------------


def _tell(asked: Sequence[Asked], found: Sequence[Sequence[Hypothesis]]) -> None:
    from symdistill.visible import visible

    for one, texts in zip(asked, found, strict=False):
        out.print(visible(one.prompt), soft_wrap=True)
        for text in texts:
            mark = "met" if text.satisfied else "not met"
            out.print(f"  {mark:<7} {text.score:7.2f}  {visible(text.text.strip())}",
                      soft_wrap=True)  # fmt: skip
            for clause in text.unmet:
                out.print(f"{'':19}unmet: {visible(clause)}", soft_wrap=True)
            if not text.ended:
                out.print(f"{'':19}cut at {len(text.token_ids)} tokens", soft_wrap=True)


def _record(number: int, prompt: str, rank: int, found: Hypothesis) -> dict[str, Any]:
    return {"number": number, "prompt": prompt, "rank": rank, **asdict(found)}


def _prepare_torch() -> None:
    from symdistill.machine import prepare_torch

    prepare_torch("decoding")
