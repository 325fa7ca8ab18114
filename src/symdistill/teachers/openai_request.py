"""What is asked of an OpenAI-compatible server, as plain functions: fields, path and body.

Servers of this family agree on the main fields and on little else; what is known of each kind is
in `FIELDS`, `NEUTRAL` and `_output_fields`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any, Literal

from symdistill.errors import InputError
from symdistill.teachers.base import Decoding, Output, Prompt

Api = Literal["chat", "completions"]
Server = Literal["openai", "vllm", "llamacpp", "ollama"]

_COMMON = {"seed", "frequency_penalty", "presence_penalty", "logit_bias"}
FIELDS: dict[Server, frozenset[str]] = {
    "openai": frozenset(
        _COMMON
        | {"reasoning_effort", "service_tier", "verbosity", "user", "metadata", "store"}
        | {"safety_identifier", "prompt_cache_key"}
    ),
    "vllm": frozenset(
        _COMMON
        | {"prompt_logprobs", "structured_outputs", "reasoning_effort", "chat_template_kwargs"}
        | {"guided_choice", "guided_json", "guided_regex", "guided_grammar"}
        | {"top_k", "min_p", "repetition_penalty", "min_tokens", "length_penalty", "bad_words"}
        | {"stop_token_ids", "ignore_eos", "skip_special_tokens", "add_special_tokens"}
        | {"allowed_token_ids", "truncate_prompt_tokens", "priority", "cache_salt"}
    ),
    "llamacpp": frozenset(
        _COMMON
        | {"top_k", "min_p", "typical_p", "repeat_penalty", "repeat_last_n", "grammar"}
        | {"cache_prompt", "ignore_eos", "mirostat", "mirostat_tau", "mirostat_eta"}
        | {"dynatemp_range", "dynatemp_exponent", "n_keep", "id_slot", "chat_template_kwargs"}
    ),
    "ollama": frozenset(
        {"seed", "frequency_penalty", "presence_penalty", "reasoning_effort", "keep_alive"}
    ),
}
"""What `decoding.extra` may hold, by server."""

NEUTRAL: dict[Server, dict[str, Any]] = {
    "openai": {},
    "vllm": {"top_k": -1, "min_p": 0, "repetition_penalty": 1},
    "llamacpp": {"top_k": 0, "min_p": 0, "typical_p": 1, "repeat_penalty": 1},
    "ollama": {},
}
"""Sent unless `extra` says otherwise: left out, these servers put in defaults of their own (of the
model's generation_config.json, or top_k 40 and min_p 0.05), and the text would not be a draw from
what `decoding` says."""

WRAPPED = "answer"  # the field of the object in which a choice travels


def request_fields(
    decoding: Decoding,
    *,
    model: str,
    api: Api = "chat",
    server: Server = "openai",
    tokens_field: str = "max_tokens",
) -> dict[str, Any]:
    """The part of a request that is the same for every prompt.

    Raises:
        InputError: the server is not known to take a field of `decoding.extra`, or offers no way
            to enforce `decoding.output`.
    """
    known = FIELDS[server]
    for name in decoding.extra:
        if name in Decoding.model_fields:
            raise InputError(
                f"expected decoding.extra without what decoding says itself; got {name!r}; set "
                f"decoding.{name}"
            )
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)
            raise InputError(
                f"expected decoding.extra fields that a server of kind {server!r} takes; got "
                f"{name!r}; the nearest is {near[0]!r}; they are {', '.join(sorted(known))}"
            )
    fields: dict[str, Any] = {
        "model": model,
        tokens_field: decoding.max_new_tokens,
        "temperature": decoding.temperature,
    }
    # A hosted server's own default is 1, and its reasoning models refuse to hear of it.
    if decoding.top_p != 1 or server != "openai":
        fields["top_p"] = decoding.top_p
    if decoding.stop:
        fields["stop"] = list(decoding.stop)
    if decoding.top_logprobs is not None:
        # llama.cpp takes 0 for "none at all".
        top = max(1, decoding.top_logprobs) if server == "llamacpp" else decoding.top_logprobs
        if api == "chat":
            fields |= {"logprobs": True, "top_logprobs": top}
        else:
            fields["logprobs"] = top
    fields |= NEUTRAL[server]
    if decoding.output is not None:
        fields |= _output_fields(decoding.output, api, server)
    for name, value in decoding.extra.items():
        fields[name] = value
        if name.startswith("guided_"):
            fields.setdefault("structured_outputs", {name.removeprefix("guided_"): value})
    try:
        json.dumps(fields, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"expected decoding.extra to hold what JSON can say; got: {error}; change it"
        ) from None
    return fields


def _output_fields(output: Output, api: Api, server: Server) -> dict[str, Any]:
    if server == "vllm" and output.choices is not None:
        # `guided_*` is the name up to vLLM 0.11, `structured_outputs` from 0.10.2 on; each version
        # passes over the one that it does not know.
        choices = list(output.choices)
        return {"guided_choice": choices, "structured_outputs": {"choice": choices}}
    schema = _schema(output)
    if api == "chat" or server == "vllm":
        form = {"name": WRAPPED, "strict": True, "schema": schema}
        return {"response_format": {"type": "json_schema", "json_schema": form}}
    if server == "llamacpp":
        return {"json_schema": schema}
    raise InputError(
        f"expected decoding.output with `api: chat`: a server of kind {server!r} offers output "
        "forms there alone; got `api: completions`; set `api: chat` or leave decoding.output out"
    )


def _schema(output: Output) -> dict[str, Any]:
    """The JSON schema of an answer; a choice is wrapped, as the root must be an object."""
    if output.json_schema is not None:
        return output.json_schema
    return {
        "type": "object",
        "properties": {WRAPPED: {"type": "string", "enum": list(output.choices or ())}},
        "required": [WRAPPED],
        "additionalProperties": False,
    }


def request_body(
    prompt: Prompt,
    samples: int,
    fields: Mapping[str, Any],
    *,
    api: Api = "chat",
    first_sample: int = 0,
) -> tuple[str, dict[str, Any]]:
    """The path below the base URL, and the body.

    A seed among the fields is raised by `first_sample`, so that no sample is drawn twice.

    Raises:
        InputError: a text where the API takes a chat, or the other way round.
    """
    body = dict(fields)
    if (api == "chat") == isinstance(prompt, str):
        raise InputError(
            f"expected {'a chat (a list of messages)' if api == 'chat' else 'a text'} as prompt, "
            f"as the teacher has `api: {api}`; got {'a text' if api == 'chat' else 'a chat'}; "
            f"set `api: {'completions' if api == 'chat' else 'chat'}` or change the prompts"
        )
    if samples > 1:
        body["n"] = samples
    if first_sample and isinstance(body.get("seed"), int):
        body["seed"] += first_sample
    if isinstance(prompt, str):
        body["prompt"] = prompt
        return "/completions", body
    body["messages"] = [dict(message) for message in prompt]
    return "/chat/completions", body
