"""What tokens write is what the tokenizer decodes."""

from __future__ import annotations

import random
from typing import Any

import pytest

from symdistill.decoding.tokens import TokenTable
from symdistill.errors import InputError

pytestmark = pytest.mark.unit
tokenizers = pytest.importorskip("tokenizers")

CORPUS = ["The dog chases a frisbee.", "Don’t run, naïve café!", "  two  spaces\n\nand 漢字 🐕"] * 4


def fast(tokenizer: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", clean_up_tokenization_spaces=False
    )


def byte_level() -> Any:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["</s>", "<pad>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens(["<tool name>", "né"])  # added, but not special
    return fast(tokenizer)


def metaspace() -> Any:
    pieces = ["</s>", "<unk>", *(f"<0x{i:02X}>" for i in range(256))]
    pieces += ["▁", "▁the", "▁do", "g", "s", "é", "漢", "▁▁", ".", "y", "d", "o"]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocab={piece: i for i, piece in enumerate(pieces)},
            merges=[],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    tokenizer.add_special_tokens(["</s>", "<unk>"])
    tokenizer.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
            tokenizers.decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    return fast(tokenizer)


@pytest.mark.parametrize("make", [byte_level, metaspace])
def test_text_is_what_the_tokenizer_decodes(make: Any) -> None:
    tokenizer = make()
    table = TokenTable.from_tokenizer(tokenizer)
    draw = random.Random(5)
    vocabulary = [i for i in range(len(table)) if len(table.token_bytes[i]) != 1]
    for _ in range(300):
        ids = draw.choices(vocabulary, k=draw.randrange(1, 20))
        decoded = tokenizer.decode(ids, skip_special_tokens=True)
        assert table.text(ids).lstrip(" ") == decoded.lstrip(" ")


def test_written_text_survives_encoding() -> None:
    tokenizer = byte_level()
    table = TokenTable.from_tokenizer(tokenizer)
    for text in CORPUS:
        assert table.text(tokenizer(text)["input_ids"]) == text


def test_byte_fallback_tokens_join_to_characters() -> None:
    tokenizer = metaspace()
    table = TokenTable.from_tokenizer(tokenizer)
    ids = tokenizer.convert_tokens_to_ids(["▁do", "<0xC3>", "<0xA9>"])
    assert table.text(ids) == " doé"
    assert tokenizer.decode(ids) == "doé"


def test_special_tokens_write_nothing_and_end_tokens_are_known() -> None:
    table = TokenTable.from_tokenizer(byte_level())
    assert table.token_bytes[:2] == (b"", b"")
    assert table.eos_token_ids == {0}


def test_a_token_reads_on_from_partial_bytes() -> None:
    table = TokenTable([b"", b"\xc3", b"\xa9A", b"\x80"], [0])
    assert table.read(1) == ("", b"\xc3")
    assert table.read(2, b"\xc3") == ("éa", b"")  # folded
    assert table.read(0, b"\xc3") == ("", b"\xc3")  # nothing is written
    assert table.read(1, b"\xc3") == ("\ufffd", b"\xc3")
    assert table.completions(b"\xc3", 1) == ({"à"}, True)
    assert table.completions(b"\xe2\x80", 1) == (frozenset(), False)  # U+2000: a space


def test_tokenizers_that_rewrite_text_are_refused_by_name() -> None:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece({"a": 0, "</s>": 1}))
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    with pytest.raises(InputError, match="WordPiece"):
        TokenTable.from_tokenizer(fast(tokenizer))


def test_something_that_is_no_tokenizer_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="dict"):
        TokenTable.from_tokenizer({})


@pytest.mark.parametrize("eos", [-1, 2])
def test_end_tokens_outside_the_vocabulary_are_refused(eos: int) -> None:
    with pytest.raises(InputError, match="end tokens"):
        TokenTable([b"a", b"b"], [eos])
