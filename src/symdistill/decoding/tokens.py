"""What each token of a vocabulary writes: token ids -> bytes -> text.

Takes a `transformers` tokenizer backed by the `tokenizers` library; gives a `TokenTable`: the
bytes of every token, and the vocabulary's texts as one tree, so that an automaton can follow all
tokens at once. Cost: about a second for 50,000 tokens, once per tokenizer.

Two families are read, from the tokenizer's own decoder: byte-level BPE (GPT-2, Llama 3, Qwen,
SmolLM) and metaspace with byte fallback (SentencePiece: Llama 2, Mistral, T5). Others, WordPiece
among them, change the text between tokens when they decode and are refused.

The text of a token sequence is the join of its tokens' bytes, read as UTF-8, U+FFFD standing for
what is no UTF-8. It is what `tokenizer.decode(ids, skip_special_tokens=True,
clean_up_tokenization_spaces=False)` gives, with three differences: metaspace decoders drop a
space at the very beginning; the number of U+FFFD in a row may differ; and where fallback bytes of
which some are valid UTF-8 and some are not stand side by side, a metaspace decoder gives all of
them up. A token may end inside a character; the bytes it leaves over are called partial here.
"""

from __future__ import annotations

import codecs
import json
import random
import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from symdistill.constraints import fold, is_word_character
from symdistill.errors import InputError

__all__ = ["TokenTable", "VocabularyTree"]

_FALLBACK_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_ENOUGH = 8  # distinct characters that show how a partial character can be completed


class VocabularyTree(NamedTuple):
    """The folded texts of all tokens as a prefix tree of N nodes, in order of depth.

    Runs of white space are one space. Node 0 is the empty text.
    """

    characters: tuple[str, ...]  # the distinct folded characters
    parent: npt.NDArray[np.int32]  # (N,)
    character: npt.NDArray[np.int32]  # (N,) index into `characters`; -1 for node 0
    levels: tuple[slice, ...]  # nodes of depth 1, 2, ...
    node: npt.NDArray[np.int32]  # (V,) the node that is a token's text


class TokenTable:
    """The bytes of each of V tokens; empty for tokens that write nothing (special tokens).

    Attributes:
        token_bytes: what each token writes.
        eos_token_ids: the tokens that end a text.
        compiled, formulas: what has been compiled for this vocabulary, to be used again.
    """

    def __init__(self, token_bytes: Sequence[bytes], eos_token_ids: Iterable[int] = ()) -> None:
        """A table from bytes given by hand; most users want `from_tokenizer`.

        Raises:
            InputError: no token, or an end token outside the vocabulary.
        """
        self.token_bytes = tuple(token_bytes)
        self.eos_token_ids = frozenset(int(one) for one in eos_token_ids)
        self.compiled: OrderedDict[Any, Any] = OrderedDict()
        self.formulas: OrderedDict[Any, Any] = OrderedDict()
        self._completions: dict[tuple[bytes, int], tuple[frozenset[str], bool]] = {}
        if not self.token_bytes:
            raise InputError("expected a vocabulary with at least one token, got none")
        if any(not 0 <= one < len(self) for one in self.eos_token_ids):
            raise InputError(
                f"expected end tokens below {len(self)}, got {sorted(self.eos_token_ids)}"
            )

    @classmethod
    def from_tokenizer(cls, tokenizer: Any) -> TokenTable:
        """The table of a tokenizer, checked against its `decode` on random tokens.

        Raises:
            InputError: the tokenizer is of another family, or does not decode as its family does.
        """
        what = type(tokenizer).__name__
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise InputError(
                f"expected a tokenizer of the `tokenizers` library (a 'fast' one), got {what}; "
                "load it with AutoTokenizer, or use a model that has a tokenizer.json"
            )
        written = json.loads(backend.to_str())
        family = _family(written.get("decoder"))
        if family is None:
            raise InputError(
                "expected a byte-level or metaspace (SentencePiece) tokenizer, got "
                f"{what} with the decoder {json.dumps(written.get('decoder'))[:200]}; "
                "constraints cannot be enforced with it, only verified afterwards"
            )
        silent = {one["id"] for one in written.get("added_tokens", ()) if one["special"]}
        eos = tokenizer.eos_token_id
        eos_token_ids = [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
        silent.update(eos_token_ids)
        vocabulary = backend.get_vocab(with_added_tokens=True)
        token_bytes = [b""] * (max(vocabulary.values()) + 1)
        fallback: set[int] = set()
        for token, index in vocabulary.items():
            if index in silent:
                continue
            if family == "bytes":
                token_bytes[index] = _byte_level(token)
            elif match := _FALLBACK_BYTE.fullmatch(token):
                token_bytes[index] = bytes([int(match[1], 16)])
                fallback.add(index)
            else:
                token_bytes[index] = token.replace("\u2581", " ").encode()
        table = cls(token_bytes, eos_token_ids)
        table._check(tokenizer, fallback)
        return table

    def __len__(self) -> int:
        return len(self.token_bytes)

    def text(self, tokens: Iterable[int]) -> str:
        """What a token sequence writes; ids outside the table write nothing."""
        joined = b"".join(self.token_bytes[one] for one in tokens if one < len(self))
        return joined.decode("utf-8", "replace")

    def ends(self, tokens: Sequence[int]) -> list[int]:
        """How many characters of `text(tokens)` are complete after each token."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        written = [self.token_bytes[one] if one < len(self) else b"" for one in tokens]
        lengths = [len(decoder.decode(one)) for one in written]
        if lengths:
            lengths[-1] += len(decoder.decode(b"", final=True))
        return list(accumulate(lengths))

    def read(self, token: int, partial: bytes = b"") -> tuple[str, bytes]:
        """The folded text that a token completes after `partial`, and the bytes left over."""
        written = self.token_bytes[token] if token < len(self) else b""
        text, left = _decode(partial + written) if written else ("", partial)
        return "".join(map(fold, text)), left

    @cached_property
    def silent(self) -> npt.NDArray[np.int32]:
        """The tokens that write nothing."""
        return _indices(i for i, written in enumerate(self.token_bytes) if not written)

    @cached_property
    def continuing(self) -> npt.NDArray[np.int32]:
        """The tokens whose first byte may go on with a partial character."""
        return _indices(
            i for i, written in enumerate(self.token_bytes) if written and written[0] >> 6 == 0b10
        )

    @cached_property
    def unfinished(self) -> npt.NDArray[np.int32]:
        """The tokens that end inside a character when they begin at one."""
        return _indices(i for i, (_, left) in enumerate(self._alone) if left)

    @cached_property
    def word_characters(self) -> frozenset[str]:
        """The folded word characters that some token writes alone."""
        single = {fold(text) for text, left in self._alone if len(text) == 1 and not left}
        return frozenset(filter(is_word_character, single))

    @cached_property
    def tree(self) -> VocabularyTree:
        """The prefix tree of the vocabulary's texts."""
        children: list[dict[str, int]] = [{}]
        parent, depth, spelled = [0], [0], [""]
        node_of = []
        for text, _ in self._alone:
            node, before = 0, ""
            for character in map(fold, text):
                if character == before == " ":
                    continue
                before = character
                child = children[node].get(character)
                if child is None:
                    child = children[node][character] = len(children)
                    children.append({})
                    parent.append(node)
                    depth.append(depth[node] + 1)
                    spelled.append(character)
                node = child
            node_of.append(node)
        depths = np.array(depth)
        order = np.argsort(depths, kind="stable")
        rank = np.empty(len(order), dtype=np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        edges = np.searchsorted(depths[order], np.arange(1, depths.max() + 2))
        characters = tuple(sorted(set(spelled[1:])))
        index = {character: i for i, character in enumerate(characters)} | {"": -1}
        return VocabularyTree(
            characters=characters,
            parent=rank[np.array(parent)[order]],
            character=np.array([index[one] for one in spelled], dtype=np.int32)[order],
            levels=tuple(slice(*pair) for pair in pairwise(edges.tolist())),
            node=rank[np.array(node_of)],
        )

    @cached_property
    def _alone(self) -> list[tuple[str, bytes]]:
        """Each token's text where it begins at a character, and the bytes left over."""
        return [_decode(written) for written in self.token_bytes]

    @cached_property
    def kinds_of_characters(self) -> npt.NDArray[np.int32]:
        """For each of `tree.characters`: 0 another mark, 1 a word character, 2 white space."""
        return _indices(
            2 if one == " " else int(is_word_character(one)) for one in self.tree.characters
        )

    @cached_property
    def index_of_character(self) -> dict[str, int]:
        """Folded character -> its index in `tree.characters`."""
        return {one: index for index, one in enumerate(self.tree.characters)}

    @cached_property
    def children(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The tree downwards: node u's children are `ids[start[u] : start[u + 1]]`."""
        parent = self.tree.parent[1:]
        ids = np.argsort(parent, kind="stable") + 1
        return np.searchsorted(parent[ids - 1], np.arange(len(parent) + 2)), ids

    @cached_property
    def _below(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The tokens in the order of the tree, and each node's first one and their number."""
        tree = self.tree
        own = np.bincount(tree.node, minlength=len(tree.parent))  # (N,)
        size, first = own.astype(np.int64), np.zeros(len(own), dtype=np.int64)
        for level in reversed(tree.levels):
            np.add.at(size, tree.parent[level], size[level])
        for level in tree.levels:
            nodes = np.arange(level.start, level.stop)
            nodes = nodes[np.argsort(tree.parent[nodes], kind="stable")]
            parent = tree.parent[nodes]
            earlier = np.cumsum(size[nodes]) - size[nodes]
            eldest = np.searchsorted(parent, parent)
            first[nodes] = first[parent] + own[parent] + earlier - earlier[eldest]
        return np.argsort(first[tree.node], kind="stable"), first, size

    def tokens_below(self, node: int) -> npt.NDArray[np.int64]:
        """The tokens whose text begins with a node's."""
        order, first, size = self._below
        return order[first[node] : first[node] + size[node]]

    @cached_property
    def textless(self) -> npt.NDArray[np.bool_]:
        """Which tokens complete no character where they begin at one: (V,)."""
        return np.asarray(self.tree.node == 0)

    @cached_property
    def begins_word(self) -> npt.NDArray[np.bool_]:
        """Which tokens' text begins with a word character: (V,)."""
        return np.array([bool(text) and is_word_character(text[0]) for text, _ in self._alone])

    @cached_property
    def partials(self) -> list[bytes]:
        """The partial characters met so far; the first is none."""
        return [b""]

    def partial_index(self, partial: bytes) -> int:
        """The index of a partial character in `partials`, which grows where it is new."""
        if partial not in self.partials:
            self.partials.append(partial)
        return self.partials.index(partial)

    @cached_property
    def left_over(self) -> npt.NDArray[np.int64]:
        """The partial character that each token ends with, where it begins at one: (V,)."""
        return np.array([self.partial_index(left) for _, left in self._alone], dtype=np.int64)

    def completions(self, partial: bytes, tokens: int) -> tuple[frozenset[str], bool]:
        """How `tokens` tokens can turn partial bytes into a word character.

        Returns:
            some folded word characters (at most 8) that can be written so with nothing after
            them, and whether any token sequence of that length turns them into a word character.
        """
        known = self._completions.get((partial, tokens))
        if known is None:
            known = self._completions[partial, tokens] = self._complete(partial, tokens)
        return known

    def _complete(self, partial: bytes, tokens: int) -> tuple[frozenset[str], bool]:
        alone: set[str] = set()
        possible = False
        longer: set[bytes] = set()
        for token in self.continuing.tolist():
            text, left = self.read(token, partial)
            if text and is_word_character(text[0]):
                if tokens == 1:
                    possible = True
                    if len(text) == 1 and not left:
                        alone.add(text)
            elif not text:
                longer.add(left)
            if len(alone) >= _ENOUGH:
                break
        if tokens > 1:
            for left in sorted(longer):
                more, also = self.completions(left, tokens - 1)
                alone |= more
                possible |= also
                if len(alone) >= _ENOUGH:
                    break
        return frozenset(sorted(alone)[:_ENOUGH]), possible

    def _check(self, tokenizer: Any, fallback: set[int]) -> None:
        """Compare with the tokenizer's own decoding on 64 random sequences."""
        draw = random.Random(0)
        plain = [i for i in range(len(self)) if i not in fallback]
        for _ in range(64):
            ids = draw.choices(plain, k=12)
            theirs = tokenizer.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            ours = self.text(ids)
            if _comparable(ours) != _comparable(theirs):
                raise InputError(
                    f"expected {type(tokenizer).__name__} to decode tokens by joining their "
                    f"bytes; for the tokens {ids} that gives {ours!r}, its decoder {theirs!r}; "
                    "constraints cannot be enforced with it, only verified afterwards"
                )


def _indices(ids: Iterable[int]) -> npt.NDArray[np.int32]:
    return np.fromiter(ids, dtype=np.int32)


def _decode(written: bytes) -> tuple[str, bytes]:
    """The text of some bytes, and those at the end that begin a character without ending it."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(written)
    return text, decoder.getstate()[0]


def _comparable(text: str) -> str:
    return re.sub("\ufffd+", "\ufffd", text.lstrip(" "))


def _family(decoder: Any) -> str | None:
    """The family of a decoder's JSON: "bytes", "metaspace", or None for any other."""
    if decoder is None:
        return None
    steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        return "bytes"
    replaces = [step for step in steps if step["type"] == "Replace"]
    spaces = all(
        step["pattern"] == {"String": "\u2581"} and step["content"] == " " for step in replaces
    )
    strips = all(
        step["content"] == " " and step["stop"] == 0 for step in steps if step["type"] == "Strip"
    )
    known = {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}
    if set(kinds) <= known and (replaces or "Metaspace" in kinds) and spaces and strips:
        return "metaspace"
    return None


@lru_cache(maxsize=1)
def _byte_of_character() -> dict[str, int]:
    """GPT-2's code for bytes.

    The printable Latin-1 characters stand for their own bytes, the characters from U+0100 on for
    the other bytes, in order.
    """
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in own]
    code = {chr(byte): byte for byte in own}
    code.update({chr(0x100 + i): byte for i, byte in enumerate(others)})
    return code


def _byte_level(token: str) -> bytes:
    code = _byte_of_character()
    try:
        return bytes(code[character] for character in token)
    except KeyError:  # an added token, written as it is
        return token.encode()
