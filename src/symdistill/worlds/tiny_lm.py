"""A language model and an encoder small enough to be trained on a world's text in seconds.

Takes sentences (`World.corpus`) and a folder; writes a plain `transformers` folder there
(safetensors, tokenizer.json): a Llama of about 0.3 M parameters with a byte-level BPE tokenizer,
so that a word has many tokenisations; or a BERT of that size, trained by masked language
modelling (Devlin et al. 2019). Costs 10 to 20 seconds each on 2 CPU cores, and no download.

The same sentences, seed, machine type, and versions give the same weights: training runs on
one thread. The global random state of torch is left as it was.

It is for tests and teaching: the models know one world and no English.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symdistill.errors import InputError

if TYPE_CHECKING:
    import torch

EOS = "<|endoftext|>"
PAD = "<|pad|>"
MAX_LENGTH = 64  # tokens of a sentence; what follows is cut


def train_tiny_lm(
    corpus: Sequence[str],
    folder: str | Path,
    *,
    names: Collection[str] = (),
    seed: int = 0,
    n_layers: int = 2,
    hidden: int = 64,
    vocabulary: int = 1000,
    steps: int = 600,
    batch_size: int = 64,
    learning_rate: float = 8e-3,
) -> Path:
    """Train a causal language model on sentences, each on its own, and save it.

    Args:
        corpus: sentences; what the model writes is distributed like them.
        folder: is made if it is not there; a model in it is overwritten.
        seed: decides weights and batches.
        n_layers: transformer blocks.
        hidden: width of the hidden state; a multiple of 8.
        vocabulary: tokens, at least 300 (256 of them are the bytes).
        steps: optimiser steps.
        batch_size: sentences per step.
        learning_rate: the peak, reached after a tenth of the steps; falls to zero.

    Returns:
        The folder.

    Raises:
        InputError: no sentences, or a parameter out of its range.
    """
    _check(corpus, hidden, vocabulary)
    from transformers import LlamaConfig, LlamaForCausalLM

    words = _words_for_pieces(corpus, names)
    tokenizer = _tokenizer(words, vocabulary, specials=[EOS, PAD], lowercase=False)
    sentences = [[*ids, tokenizer.eos_token_id] for ids in _encode(tokenizer, corpus)]
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=n_layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=4 * MAX_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.05,
    )

    def loss(
        model: Any, ids: torch.Tensor, mask: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        labels = ids.masked_fill(mask == 0, -100)  # (B, T)
        value: torch.Tensor = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        return value

    model = _train(
        lambda: LlamaForCausalLM(config),
        sentences,
        loss,
        seed,
        steps,
        batch_size,
        learning_rate,
        tokenizer.pad_token_id,
    )
    return _save(model, tokenizer, folder)


def tiny_encoder(
    corpus: Sequence[str],
    folder: str | Path,
    *,
    names: Collection[str] = (),
    seed: int = 0,
    n_layers: int = 2,
    hidden: int = 64,
    vocabulary: int = 1200,
    steps: int = 600,
    batch_size: int = 64,
    learning_rate: float = 5e-3,
    masked: float = 0.4,
) -> Path:
    """Train a BERT encoder on sentences by masked language modelling, and save it.

    Args:
        corpus: sentences.
        folder: is made if it is not there; a model in it is overwritten.
        names: words that the tokenizer shall know in pieces only, such as a world's concepts
            ("gramop" as "gra" and "mop"): so the encoder can carry over to names it never saw.
        seed: decides weights, batches and masks.
        n_layers: transformer blocks.
        hidden: width of the hidden state; a multiple of 8.
        vocabulary: at most this many tokens, at least 300.
        steps: optimiser steps.
        batch_size: sentences per step.
        learning_rate: the peak, reached after a tenth of the steps; falls to zero.
        masked: share of a sentence's tokens, side by side, that is hidden and to be told (0..1).
            A whole span is hidden (SpanBERT, Joshi et al. 2020) so that a value has to be told
            from the name and not from its own other words.

    Returns:
        The folder; `AutoModel` and `AutoTokenizer` open it.

    Raises:
        InputError: no sentences, or a parameter out of its range.
    """
    _check(corpus, hidden, vocabulary)
    import torch
    from transformers import BertConfig, BertForMaskedLM, BertModel

    specials = [PAD, "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
    words = _words_for_pieces(corpus, names)
    tokenizer = _tokenizer(words, vocabulary, specials=specials, lowercase=True)
    sentences = _encode(tokenizer, corpus)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=n_layers,
        num_attention_heads=4,
        max_position_embeddings=2 * MAX_LENGTH,
        pad_token_id=tokenizer.pad_token_id,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.05,
    )
    special_ids = torch.tensor(tokenizer.convert_tokens_to_ids(specials))

    def loss(
        model: Any, ids: torch.Tensor, mask: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        length = mask.sum(1, keepdim=True)  # (B, 1)
        start = torch.rand(length.shape, generator=generator) * (1 - masked) * length
        place = torch.arange(ids.shape[1])  # (T,)
        hidden_here = (place >= start) & (place < start + masked * length)  # (B, T)
        hidden_here &= ~torch.isin(ids, special_ids)
        labels = ids.masked_fill(~hidden_here, -100)
        given = ids.masked_fill(hidden_here, tokenizer.mask_token_id)
        value: torch.Tensor = model(input_ids=given, attention_mask=mask, labels=labels).loss
        return value

    def build() -> Any:
        model = BertForMaskedLM(config)
        model.bert = BertModel(config)  # with the pooler that AutoModel expects
        model.tie_weights()
        return model

    model = _train(
        build, sentences, loss, seed, steps, batch_size, learning_rate, tokenizer.pad_token_id
    )
    return _save(model.bert, tokenizer, folder)


def _check(corpus: Sequence[str], hidden: int, vocabulary: int) -> None:
    if not corpus:
        raise InputError("expected sentences to train on; got none; give a corpus")
    if hidden < 8 or hidden % 8:
        raise InputError(f"expected hidden to be a multiple of 8; got {hidden}; change it")
    if vocabulary < 300:
        raise InputError(f"expected a vocabulary of at least 300; got {vocabulary}; enlarge it")


# ------------------------------------------------------------------------------------- tokenizers


def _tokenizer(
    texts: Iterable[str], vocabulary: int, *, specials: list[str], lowercase: bool
) -> Any:
    """A byte-level BPE tokenizer; with "[CLS]" among the specials, one in the manner of BERT."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    is_bert = "[CLS]" in specials
    core = Tokenizer(models.BPE())
    if lowercase:
        core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=is_bert)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=3,
            special_tokens=specials,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    if not is_bert:
        return PreTrainedTokenizerFast(
            tokenizer_object=core,
            bos_token=EOS,
            eos_token=EOS,
            pad_token=PAD,
            model_max_length=4 * MAX_LENGTH,
            clean_up_tokenization_spaces=False,
        )
    core.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(one, core.token_to_id(one)) for one in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        unk_token="[UNK]",
        pad_token=PAD,
        model_max_length=2 * MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def _words_for_pieces(corpus: Iterable[str], names: Collection[str]) -> Iterator[str]:
    """The corpus without the names, then each name once: too rare to become a token whole."""
    if not names:
        yield from corpus
        return
    listed = sorted(names)
    any_name = re.compile(rf"\b({'|'.join(map(re.escape, listed))})s?\b", re.IGNORECASE)
    for text in corpus:
        yield any_name.sub("", text)
    for name in listed:
        yield name
        yield f"{name}s"


def _encode(tokenizer: Any, corpus: Sequence[str]) -> list[list[int]]:
    encoded: list[list[int]] = tokenizer(list(corpus), truncation=True, max_length=MAX_LENGTH)[
        "input_ids"
    ]
    return encoded


# --------------------------------------------------------------------------------------- training


def _train(
    build: Callable[[], Any],
    sentences: Sequence[Sequence[int]],
    loss: Callable[[Any, torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor],
    seed: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    pad: int,
) -> Any:
    """The model after `steps` of AdamW; warm-up over a tenth of them, then a straight line to 0."""
    import torch

    with torch.random.fork_rng(devices=[]), _one_thread():
        torch.manual_seed(seed)
        model = build().train()
        _optimise(model, sentences, loss, seed, steps, batch_size, learning_rate, pad)
    return model.eval()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Matrices this small gain nothing from threads, and lose much when other work runs beside."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _optimise(
    model: Any,
    sentences: Sequence[Sequence[int]],
    loss: Callable[[Any, torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor],
    seed: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    pad: int,
) -> None:
    import torch

    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    warm = max(1, steps // 10)
    together = 8  # batches drawn at once
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * min(
                (step + 1) / warm, (steps - step) / max(1, steps - warm)
            )
        if step % together == 0:  # sentences of like length share a batch, so little is padding
            drawn = torch.randint(
                len(sentences), (together * batch_size,), generator=generator
            ).tolist()
            drawn.sort(key=lambda i: len(sentences[i]))
            order = torch.randperm(together, generator=generator).tolist()
        first = order[step % together] * batch_size
        rows = [sentences[i] for i in drawn[first : first + batch_size]]
        wide = max(map(len, rows))
        ids = torch.tensor([[*row, *[pad] * (wide - len(row))] for row in rows])  # (B, T)
        mask = torch.tensor([[1] * len(row) + [0] * (wide - len(row)) for row in rows])
        value = loss(model, ids, mask, generator)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


def _save(model: Any, tokenizer: Any, folder: str | Path) -> Path:
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder
