"""A local teacher: what it says depends on the request alone, and is asked for once."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symdistill.budget import Budget, BudgetReached, BudgetSettings
from symdistill.constraints import any_of, at_most, contains, excludes
from symdistill.errors import InputError, RunError
from symdistill.ledger import Ledger
from symdistill.models import Model, resolve
from symdistill.teachers import LocalTeacher, LogProb, Sample, SampleRequest, Sampling
from symdistill.teachers.local import (
    LookaheadSettings,
    Search,
    _end_tokens,
    _SentenceEnd,
    decoding_settings,
    perplexity,
)

pytestmark = pytest.mark.unit

TEXT = [
    "dogs can bark and run in the park.",
    "a cat sleeps on the warm roof!",
    "birds can fly over the river?",
    "cows eat grass and give milk.",
    "fish swim in the sea, they cannot walk.",
    "people use pens to write letters.",
]
PROMPTS = [
    "dogs can",
    "a",
    "birds can fly over the river and",
    "people use",
    "cows",
    "fish swim in",
]
END = "<|endoftext|>"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A Llama with random weights and a byte-level BPE tokenizer whose end token is its unknown
    token too, as in GPT-2."""
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        TEXT * 3,
        BpeTrainer(
            vocab_size=400,
            special_tokens=[END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, unk_token=END)
    fast.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(fast),
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=128,
                initializer_range=0.3,
                bos_token_id=0,
                eos_token_id=0,
            )
        )
    model.save_pretrained(folder)
    return resolve(str(folder))


@pytest.fixture(scope="module")
def teacher(tiny: Model) -> LocalTeacher:
    return LocalTeacher(tiny, batch_size=4)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def requests(samples: int = 2, constraint: Any = None) -> list[SampleRequest]:
    return [
        SampleRequest(prompt, f"p{i}", k, constraint)
        for i, prompt in enumerate(PROMPTS)
        for k in range(samples)
    ]


SAMPLING = Sampling(temperature=1.0, top_p=0.95, max_new_tokens=10)


def texts(samples: Sequence[Sample]) -> dict[tuple[str, int], tuple[str, int, bool]]:
    return {
        (one.request.prompt, one.request.sample_index): (one.text, one.tokens, one.finished)
        for one in samples
    }


class Count:
    """How many texts a teacher has written."""

    def __init__(self, teacher: LocalTeacher, monkeypatch: pytest.MonkeyPatch) -> None:
        self.written = 0
        inner = teacher._continue

        def counted(asked: Sequence[SampleRequest], *rest: Any) -> Any:
            self.written += len(asked)
            return inner(asked, *rest)

        monkeypatch.setattr(teacher, "_continue", counted)


# -- how likely texts are -----------------------------------------------------------------------

PAIRS = [
    ("dogs can", " bark"),
    ("", "a cat sleeps on the warm roof!"),
    ("birds can fly over the river?", " cows"),
    ("a", ""),
    ("", ""),
    ("people use pens to write letters.", " fish swim in the sea, they cannot walk."),
    ("", "x"),
    ("x", "é 犬"),
]


def reference(teacher: LocalTeacher, prefix: str, continuation: str) -> LogProb:
    """From the definition: one text, no padding, one token after another."""
    import torch

    model, tokenizer = teacher._load()
    given = tokenizer(prefix)["input_ids"] if prefix else []
    written = tokenizer(continuation)["input_ids"]
    if not given:
        given, written = written[:1], written[1:]
    total = 0.0
    for i, token in enumerate(written):
        with torch.inference_mode():
            logits = model(torch.tensor([given + written[:i]])).logits[0, -1].double()
        total += float(logits.log_softmax(-1)[token])
    return LogProb(total, len(written))


def test_log_probabilities_are_those_of_one_text_alone(teacher: LocalTeacher) -> None:
    found = teacher.logprobs(*zip(*PAIRS, strict=True))
    for pair, one in zip(PAIRS, found, strict=True):
        expected = reference(teacher, *pair)
        assert one.tokens == expected.tokens
        assert one.total == pytest.approx(expected.total, abs=1e-4)
        assert one.total <= 0
    assert found[3] == found[4] == found[6] == LogProb(0.0, 0)  # nothing to score


@settings(max_examples=20)
@given(st.permutations(range(len(PAIRS))), st.integers(1, 9), st.integers(1, len(PAIRS)))
def test_log_probabilities_do_not_depend_on_the_texts_beside(
    tiny: Model, teacher: LocalTeacher, order: list[int], batch_size: int, count: int
) -> None:
    alone = teacher.logprobs(*zip(*PAIRS, strict=True))
    other = LocalTeacher(tiny, batch_size=batch_size)
    other._loaded = teacher._load()
    chosen = [PAIRS[i] for i in order[:count]]
    for i, one in zip(order, other.logprobs(*zip(*chosen, strict=True)), strict=False):
        assert one.tokens == alone[i].tokens
        assert one.total == pytest.approx(alone[i].total, abs=1e-4)


def test_log_probabilities_of_nothing(teacher: LocalTeacher) -> None:
    assert teacher.logprobs([], []) == []
    assert teacher.logprobs(["", "a"], ["", ""]) == [LogProb(0.0, 0)] * 2
    with pytest.raises(ValueError, match="pairs"):
        teacher.logprobs(["a"], [])


def test_every_text_is_counted_once(teacher: LocalTeacher) -> None:
    done: list[int] = []
    tokens: list[int] = []
    teacher.logprobs(*zip(*PAIRS, strict=True), advance=done.append, count_tokens=tokens.append)
    tokenizer = teacher._load()[1]
    assert sum(done) == len(PAIRS)
    # texts without anything to score may or may not be read beside others
    read = [len(tokenizer(a + " " + b)["input_ids"]) for a, b in PAIRS if a + b]
    assert 0 < sum(tokens) <= sum(read) + len(PAIRS)


def test_means_and_perplexity() -> None:
    assert LogProb(-6.0, 3).mean == -2.0
    assert LogProb(0.0, 0).mean == 0.0
    assert perplexity(LogProb(-6.0, 3)) == pytest.approx(math.exp(2))


# -- sampling -----------------------------------------------------------------------------------


def test_one_sample_for_each_request(teacher: LocalTeacher, ledger: Ledger) -> None:
    done: list[int] = []
    tokens: list[int] = []
    found = teacher.sample(
        requests(),
        sampling=SAMPLING,
        seed=1,
        ledger=ledger,
        advance=done.append,
        count_tokens=tokens.append,
    )
    assert len(found) == sum(done) == len(requests())
    assert [one.key for one in found] == sorted(one.key for one in found)
    assert sum(tokens) == sum(one.tokens for one in found) == ledger.totals()["tokens_out"]
    assert len({one.text for one in found}) > len(found) // 2
    for one in found:
        assert 0 <= one.tokens <= SAMPLING.max_new_tokens
        assert END not in one.text
        kept = ledger.call(one.key)
        assert kept is not None and kept["response"]["text"] == one.text
        assert kept["request"]["prompt"] == one.request.prompt
        assert kept["model"] == teacher.model.name


def test_what_is_in_the_ledger_is_not_computed_again(
    teacher: LocalTeacher, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = Count(teacher, monkeypatch)
    tokens: list[int] = []
    first = teacher.sample(requests(2), sampling=SAMPLING, seed=1, ledger=ledger)
    assert count.written == 12
    again = teacher.sample(
        requests(2), sampling=SAMPLING, seed=1, ledger=ledger, count_tokens=tokens.append
    )
    assert count.written == 12 and tokens == []
    assert again == first
    more = teacher.sample(requests(5), sampling=SAMPLING, seed=1, ledger=ledger)
    assert count.written == 30
    assert texts(first).items() <= texts(more).items()


def test_other_settings_are_other_requests(
    teacher: LocalTeacher, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = Count(teacher, monkeypatch)
    one = [SampleRequest("dogs can", "p", 0)]
    teacher.sample(one, sampling=SAMPLING, seed=1, ledger=ledger)
    hotter = SAMPLING.model_copy(update={"temperature": 1.1})
    bound = [SampleRequest("dogs can", "p", 0, excludes("bark"))]
    teacher.sample(one, sampling=SAMPLING, seed=2, ledger=ledger)
    teacher.sample(one, sampling=hotter, seed=1, ledger=ledger)
    teacher.sample(bound, sampling=SAMPLING, seed=1, ledger=ledger)
    assert count.written == 4
    renamed = [SampleRequest("dogs can", "another id", 0)]
    teacher.sample(renamed, sampling=SAMPLING, seed=1, ledger=ledger)
    assert count.written == 4  # what was asked is the same


def test_the_same_seed_gives_the_same_texts(tiny: Model, tmp_path: Path) -> None:
    found = [
        texts(
            LocalTeacher(tiny, batch_size=4).sample(
                requests(), sampling=SAMPLING, seed=seed, ledger=Ledger(tmp_path / f"{i}.sqlite")
            )
        )
        for i, seed in enumerate([1, 1, 2])
    ]
    assert found[0] == found[1]
    assert found[0] != found[2]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_prompts_beside_do_not_choose_the_text(
    tiny: Model, teacher: LocalTeacher, tmp_path: Path, batch_size: int
) -> None:
    """Prompts of different lengths in batches of different sizes."""
    together = teacher.sample(
        requests(), sampling=SAMPLING, seed=1, ledger=Ledger(tmp_path / "a.sqlite")
    )
    other = LocalTeacher(tiny, batch_size=batch_size)
    apart = other.sample(
        requests()[::-1], sampling=SAMPLING, seed=1, ledger=Ledger(tmp_path / "b.sqlite")
    )
    assert texts(together) == texts(apart)


def test_an_interrupted_run_ends_with_the_same_texts(
    teacher: LocalTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sample(name: str, advance: Callable[[int], None] = lambda done: None) -> list[Sample]:
        ledger = Ledger(tmp_path / name)
        try:
            return teacher.sample(
                requests(), sampling=SAMPLING, seed=1, ledger=ledger, advance=advance
            )
        finally:
            ledger.close()

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    count = Count(teacher, monkeypatch)
    whole = sample("whole.sqlite")
    assert count.written == 12
    with pytest.raises(KeyboardInterrupt):
        sample("cut.sqlite", stop)
    assert count.written == 12 + 4  # one batch, and it is kept
    assert sample("cut.sqlite") == whole
    assert count.written == 12 + 4 + 8


def test_every_sample_obeys_its_constraint(teacher: LocalTeacher, ledger: Ledger) -> None:
    common = [chr(i) for i in range(ord("a"), ord("z") + 1)]
    constraints = [excludes("a"), at_most(1, common), None, at_most(0, ["in the", "e", "b"])]
    asked = [
        SampleRequest(prompt, f"p{i}", k, constraint)
        for i, prompt in enumerate(PROMPTS)
        for k, constraint in enumerate(constraints)
    ]
    sampling = Sampling(temperature=1.5, top_p=1.0, max_new_tokens=12)
    found = teacher.sample(asked, sampling=sampling, seed=3, ledger=ledger)
    for one in found:
        constraint = one.request.constraint
        assert constraint is None or constraint.verify(one.text, before=one.request.prompt)


def test_constraints_bite(teacher: LocalTeacher, tmp_path: Path) -> None:
    """Without them the same model breaks what it is held to with them."""
    bound = [excludes(mark) for mark in "abcdefghijklmnopqrstuvwxyz"]
    sampling = Sampling(temperature=1.5, top_p=1.0, max_new_tokens=12)
    plain = teacher.sample(
        requests(6), sampling=sampling, seed=3, ledger=Ledger(tmp_path / "a.sqlite")
    )
    broken = [
        (one, rule)
        for one in plain
        for rule in bound
        if not rule.verify(one.text, before=one.request.prompt)
    ]
    assert broken
    asked = [
        SampleRequest(one.request.prompt, "p", i, rule) for i, (one, rule) in enumerate(broken)
    ]
    held = teacher.sample(asked, sampling=sampling, seed=3, ledger=Ledger(tmp_path / "b.sqlite"))
    for one in held:
        assert one.request.constraint is not None
        assert one.request.constraint.verify(one.text, before=one.request.prompt)


def test_temperature_0_takes_the_likeliest_token(teacher: LocalTeacher, ledger: Ledger) -> None:
    import torch

    greedy = Sampling(temperature=0, max_new_tokens=6)
    found = texts(teacher.sample(requests(2), sampling=greedy, seed=1, ledger=ledger))
    model, tokenizer = teacher._load()
    for prompt in PROMPTS:
        assert found[prompt, 0] == found[prompt, 1]
        ids = tokenizer(prompt)["input_ids"]
        written: list[int] = []
        while len(written) < 6:
            with torch.inference_mode():
                token = int(model(torch.tensor([ids + written])).logits[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                break
            written.append(token)
            if tokenizer.decode([token]).rstrip().endswith((".", "!", "?")):
                break
        assert found[prompt, 0][:2] == (tokenizer.decode(written), len(written))


def test_samples_follow_the_model_s_distribution(teacher: LocalTeacher, ledger: Ledger) -> None:
    """Total variation between drawn and true first tokens, against what chance allows."""
    import torch

    model, tokenizer = teacher._load()
    n = 1500
    asked = [SampleRequest("dogs can", "p", k) for k in range(n)]
    one_token = Sampling(temperature=1.0, top_p=1.0, top_k=5, max_new_tokens=1)
    big = LocalTeacher(teacher.model, batch_size=500)
    big._loaded = (model, tokenizer)
    found = big.sample(asked, sampling=one_token, seed=1, ledger=ledger)
    with torch.inference_mode():
        logits = model(torch.tensor([tokenizer("dogs can")["input_ids"]])).logits[0, -1]
    top = logits.topk(5)
    expected = dict(
        zip(
            (tokenizer.decode([i], skip_special_tokens=True) for i in top.indices.tolist()),
            top.values.softmax(-1).tolist(),
            strict=True,
        )
    )
    drawn = [one.text for one in found]
    assert set(drawn) <= set(expected)
    distance = sum(abs(drawn.count(t) / n - p) for t, p in expected.items()) / 2
    assert distance < 0.05  # five outcomes, 1500 draws: about 0.02 is usual


def test_equal_requests_share_an_answer(teacher: LocalTeacher, ledger: Ledger) -> None:
    """ "dog" and "dogs" in a list of concepts make the same prompts, for two items."""
    twins = [SampleRequest("a", "of dog", 0), SampleRequest("a", "of dogs", 0)]
    first, second = teacher.sample(twins, sampling=SAMPLING, seed=1, ledger=ledger)
    assert (first.key, first.text) == (second.key, second.text)
    assert {first.request.prompt_id, second.request.prompt_id} == {"of dog", "of dogs"}
    assert ledger.totals()["calls"] == 1


def test_nothing_is_asked_of_a_model_that_is_not_needed(tiny: Model, ledger: Ledger) -> None:
    asleep = LocalTeacher(tiny)
    assert asleep.sample([], sampling=SAMPLING, seed=1, ledger=ledger) == []
    assert asleep._loaded is None
    assert asleep.fingerprint == tiny.fingerprint


def test_unloaded_weights_are_loaded_again(tiny: Model, tmp_path: Path) -> None:
    one = LocalTeacher(tiny)
    before = one.logprobs(["dogs"], [" can"])
    one.unload()
    assert one.logprobs(["dogs"], [" can"]) == before


# -- searching ----------------------------------------------------------------------------------

SEARCH = Search(num_beams=4, max_new_tokens=10)
RULE = contains(any_of("milk", "sea")) & excludes("the")


def test_a_search_gives_the_best_texts_in_order(
    teacher: LocalTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from symdistill import decoding

    searched: list[list[str]] = []
    inner = decoding.constrained_generate

    def counted(model: Any, tokenizer: Any, prompts: list[str], *rest: Any, **more: Any) -> Any:
        searched.append(prompts)
        return inner(model, tokenizer, prompts, *rest, **more)

    monkeypatch.setattr(decoding, "constrained_generate", counted)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    done: list[int] = []
    tokens: list[int] = []
    found = teacher.sample(
        requests(3, RULE),
        sampling=SEARCH,
        seed=1,
        ledger=ledger,
        advance=done.append,
        count_tokens=tokens.append,
    )
    assert [one.key for one in found] == sorted(one.key for one in found)
    assert len(found) == sum(done) == 3 * len(PROMPTS)
    assert sum(tokens) == sum(one.tokens for one in found)
    assert sorted(p for some in searched for p in some) == sorted(PROMPTS)  # each once
    for prompt in PROMPTS:
        ranks = sorted(
            (one for one in found if one.request.prompt == prompt),
            key=lambda one: one.request.sample_index,
        )
        assert len({one.text for one in ranks}) == 3
        assert all(RULE.verify(one.text, before=prompt) == (not one.unmet) for one in ranks)
        for better, worse in pairwise(ranks):
            assert better.score is not None and worse.score is not None
            if (better.unmet, better.finished) == (worse.unmet, worse.finished):
                assert better.score >= worse.score
    assert sum(not one.unmet and one.finished for one in found) >= 3 * len(PROMPTS) - 3
    for one in found:
        assert "\n" not in one.text and END not in one.text
        assert one.tokens <= SEARCH.max_new_tokens
        if one.finished:
            assert one.tokens < SEARCH.max_new_tokens or one.text.endswith((".", "!", "?"))
        kept = ledger.call(one.key)
        assert kept is not None and kept["response"]["unmet"] == list(one.unmet)
        assert kept["request"]["search"] == SEARCH.model_dump(mode="json")
        assert kept["request"]["sample_index"] == one.request.sample_index

    searched.clear()
    assert found == teacher.sample(requests(3, RULE), sampling=SEARCH, seed=2, ledger=ledger)
    assert searched == []  # not by another seed either: a search draws nothing
    more = teacher.sample(requests(4, RULE), sampling=SEARCH, seed=1, ledger=ledger)
    assert texts(found).items() <= texts(more).items()
    wider = SEARCH.model_copy(update={"num_beams": 5})
    assert teacher.key(found[0].request, wider, 1) != found[0].key


@pytest.mark.parametrize("batch_size", [1, 64])
def test_the_prompts_beside_do_not_choose_what_a_search_finds(
    tiny: Model, teacher: LocalTeacher, tmp_path: Path, batch_size: int
) -> None:
    """Batches of one prompt, of two, and of all."""
    settings = SEARCH.model_copy(update={"num_beams": 2})
    asked = requests(2, RULE)
    one = teacher.sample(asked, sampling=settings, seed=1, ledger=Ledger(tmp_path / "a.sqlite"))
    other = LocalTeacher(tiny, batch_size=batch_size)
    two = other.sample(asked[::-1], sampling=settings, seed=1, ledger=Ledger(tmp_path / "b.sqlite"))
    assert texts(one) == texts(two)
    assert [x.score for x in one] == pytest.approx([x.score for x in two], abs=1e-5)


def test_what_cannot_be_had_is_kept_with_its_clause(teacher: LocalTeacher, ledger: Ledger) -> None:
    long = contains("letters of people in the park who give grass to birds")
    asked = [SampleRequest("cows", "p", 0, long), SampleRequest("a", "p", 0, ~RULE & RULE)]
    for one in teacher.sample(asked, sampling=SEARCH, seed=1, ledger=ledger):
        kept = ledger.call(one.key)
        assert one.unmet and kept is not None and kept["response"]["unmet"] == one.unmet


def test_ranks_that_a_search_does_not_fill_are_empty(
    teacher: LocalTeacher, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    from symdistill import decoding

    monkeypatch.setattr(decoding, "constrained_generate", lambda *_, **__: [[]])
    (one,) = teacher.sample(requests(1)[:1], sampling=SEARCH, seed=1, ledger=ledger)
    assert (one.text, one.tokens, one.finished, one.score) == ("", 0, False, None)


def test_a_search_that_looks_ahead(teacher: LocalTeacher, ledger: Ledger) -> None:
    ahead = SEARCH.model_copy(update={"lookahead": LookaheadSettings(length=2, weight=0.5)})
    asked = [SampleRequest("cows", "p", 0, RULE)]
    (one,) = teacher.sample(asked, sampling=ahead, seed=1, ledger=ledger)
    assert not one.unmet and one.key != teacher.key(asked[0], SEARCH, 1)


def test_a_rank_beyond_the_beams_is_refused(teacher: LocalTeacher, ledger: Ledger) -> None:
    with pytest.raises(InputError, match=r"num_return_sequences from 1 to num_beams \(4\)"):
        teacher.sample([SampleRequest("a", "p", 4)], sampling=SEARCH, seed=1, ledger=ledger)


@pytest.mark.parametrize(
    "bad", [{"num_beams": 0}, {"beta": -1}, {"length_penalty": math.inf}, {"lookahead": {"x": 1}}]
)
def test_a_search_out_of_range_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Search(**bad)


# -- where a sentence ends ----------------------------------------------------------------------


class Table:
    """A vocabulary given by hand."""

    def __init__(self, *tokens: str) -> None:
        self.token_bytes = [token.encode() for token in tokens]


EOS = 0
TOKENS = [
    "",
    "3",
    ".",
    "5",
    " dogs",
    "!",
    '."',
    "\n",
    ".\n",
    " a.",
    "?",
    "...",
    "3.",
    "e.g",
    "bark.",
]


def length(*written: str | int) -> tuple[int, bool]:
    end = _SentenceEnd(Table(*TOKENS), width=2)
    row = [token if isinstance(token, int) else TOKENS.index(token) for token in written]
    told = end.length(row, [EOS])
    assert_stops_where_it_ends(end, row, told)
    return told


def assert_stops_where_it_ends(end: _SentenceEnd, row: list[int], told: tuple[int, bool]) -> None:
    """While generating, the row is stopped just where its text is found to end."""
    import torch

    for upto in range(1, len(row) + 1):
        if row[upto - 1] == EOS:
            break
        ids = torch.tensor([[9, 2, *row[:upto]]])
        if bool(end(ids, None)[0]):
            assert told == (upto, True)
            return
    assert told[0] == (row.index(EOS) if EOS in row else len(row))


@pytest.mark.parametrize("mark", [".", "!", "?", "\n", '."', ".\n", " a.", "...", "bark."])
def test_a_sentence_ends_with_its_mark(mark: str) -> None:
    assert length(" dogs", mark, " dogs") == (2, True)


def test_a_full_stop_after_a_digit_does_not_end_it() -> None:
    assert length(" dogs", "3", ".", "5", " dogs") == (5, False)
    assert length(" dogs", "3", ".", "5", ".", " dogs", "!") == (7, True)
    assert length("3.", "5", "!") == (3, True)


@pytest.mark.parametrize("mark", ["!", "?", "\n", ".\n", "..."])
def test_another_end_after_a_digit_does(mark: str) -> None:
    assert length("3", mark, " dogs") == (2, True)


def test_the_end_token_ends_it_and_is_no_part_of_it() -> None:
    assert length(" dogs", EOS, EOS) == (1, True)
    assert length(EOS) == (0, True)


def test_a_text_that_was_cut_off_is_not_finished() -> None:
    assert length(" dogs", "e.g", " dogs") == (3, False)
    assert length(".") == (1, True)


def test_end_tokens_of_a_tokenizer_like_gpt_2(teacher: LocalTeacher) -> None:
    """Its end token is its unknown token too."""
    model, tokenizer = teacher._load()
    assert tokenizer.unk_token_id == tokenizer.eos_token_id
    assert _end_tokens(model, tokenizer) == [tokenizer.eos_token_id]
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


@pytest.mark.real
def test_end_tokens_of_the_embedded_model(smollm2: Model) -> None:
    from transformers import AutoTokenizer

    class NoModel:
        class generation_config:
            eos_token_id = 2

    tokenizer = AutoTokenizer.from_pretrained(smollm2.folder)
    ends = tokenizer.convert_ids_to_tokens(_end_tokens(NoModel, tokenizer))
    assert set(ends) == {"<|im_end|>", "<|endoftext|>"}


# -- what is wrong is told ----------------------------------------------------------------------


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_damaged_model_is_told(tiny: Model, tmp_path: Path, file: str) -> None:
    place = tmp_path / "damaged"
    shutil.copytree(tiny.folder, place)
    (place / file).write_bytes((place / file).read_bytes()[:200])
    with pytest.raises(InputError, match="expected a causal language model"):
        LocalTeacher(Model("x", place, "f", "")).logprobs(["a"], ["b"])


def test_weights_that_are_not_numbers_are_told(tiny: Model, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    place = tmp_path / "nan"
    shutil.copytree(tiny.folder, place)
    weights = load_file(place / "model.safetensors")
    weights["model.norm.weight"][:] = math.nan
    save_file(weights, place / "model.safetensors", {"format": "pt"})
    broken = LocalTeacher(resolve(str(place)))
    with pytest.raises(RunError, match="weights are damaged"):
        broken.logprobs(["dogs"], [" can bark"])
    with pytest.raises(RunError, match="weights are damaged"):
        broken.sample(requests(1), sampling=SAMPLING, seed=1, ledger=Ledger(tmp_path / "l.sqlite"))
    with pytest.raises(RunError, match="got NaN"):
        broken.sample(requests(1), sampling=SEARCH, seed=1, ledger=Ledger(tmp_path / "s.sqlite"))


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -1},
        {"temperature": math.inf},
        {"top_p": 0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"max_new_tokens": 0},
        {"temprature": 1},
    ],
)
def test_sampling_out_of_range_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Sampling(**bad)


def test_lineage_names_the_settings_and_the_constraint() -> None:
    plain, bound = decoding_settings(SAMPLING, None), decoding_settings(SAMPLING, excludes("a"))
    assert '"constraint":null' in plain and '"max_new_tokens":10' in plain
    assert plain != bound and excludes("a").fingerprint in bound


def test_a_budget_ends_the_writing_between_two_batches(tiny: Model, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    teacher = LocalTeacher(tiny, batch_size=4)

    def write(limit: int) -> list[Sample]:
        budget = Budget(BudgetSettings(requests=limit), ledger)
        try:
            return teacher.sample(
                requests(), sampling=SAMPLING, seed=1, ledger=ledger, budget=budget
            )
        finally:
            budget.close()

    with pytest.raises(BudgetReached, match="requests: 8 of 10"):
        write(10)
    assert ledger.totals()["calls"] == 8 and ledger.totals()["cost_usd"] == 0
    whole = write(12)
    alone = Ledger(tmp_path / "alone.sqlite")
    assert whole == teacher.sample(requests(), sampling=SAMPLING, seed=1, ledger=alone)
