"""How many tokens a text has: by the tokenizer of a model, without its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from symdistill.errors import InputError
from symdistill.models import resolve
from symdistill.teachers.base import Message


def token_counter(name: str) -> Callable[[str], int]:
    """A function that counts a text's tokens, without special ones.

    Args:
        name: `embedded:smollm2`, a folder with a tokenizer.json or that file itself, or a hub id
            (`org/name@revision`), of which that file alone is fetched.

    Raises:
        InputError: there is no such tokenizer.
    """
    from tokenizers import Tokenizer

    path = _tokenizer_file(name)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare ones
        raise InputError(
            f"expected a tokenizer.json that the `tokenizers` library reads at {path}; got: "
            f"{error}; give another tokenizer"
        ) from error
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def chat_counter(name: str) -> Callable[[Sequence[Message]], int] | None:
    """A function that counts a chat's tokens as the model reads it: with the marks of its own
    template, and the system message that some templates add.

    Returns:
        None where there is no template beside the tokenizer, or `transformers` is not installed.
    """
    path = _tokenizer_file(name)
    beside = path.with_name("chat_template.jinja"), path.with_name("tokenizer_config.json")
    if not any(one.is_file() for one in beside):
        return None
    try:
        from transformers import AutoTokenizer
    except ImportError:
        return None
    tokenizer = AutoTokenizer.from_pretrained(path.parent)
    if not tokenizer.chat_template:
        return None

    def count(chat: Sequence[Message]) -> int:
        messages = [dict(one) for one in chat]
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    return count


def _tokenizer_file(name: str) -> Path:
    if name.startswith("embedded:"):
        return resolve(name).folder / "tokenizer.json"
    path = Path(name).expanduser()
    if path.is_dir():
        path = path / "tokenizer.json"
    if path.is_file():
        return path
    if path.suffix == ".json" or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InputError(
            f"expected a tokenizer: embedded:smollm2, a folder with a tokenizer.json, or a hub id; "
            f"got {name!r}, where none is; check the path"
        )
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repo, _, revision = name.partition("@")
    try:
        return Path(hf_hub_download(repo, "tokenizer.json", revision=revision or None))
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError, OSError) as error:
        raise InputError(
            f"expected the hub's tokenizer {name}; got {type(error).__name__}: "
            f"{next(iter(str(error).splitlines()), 'no reason')}; check the id, or give a folder"
        ) from error
