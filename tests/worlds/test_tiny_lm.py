"""The tiny models learn their world in seconds: what they write, and what they are made of."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from symdistill.errors import InputError
from symdistill.models import fingerprint
from symdistill.worlds import World, tiny_encoder, train_tiny_lm
from symdistill.worlds.words import RELATIONS

pytestmark = pytest.mark.world

WORLD = World.draw(11, n_concepts=36, n_categories=4)
NAMES = [concept.name for concept in WORLD.concepts]


def trained(folder: Path, noise: float) -> Path:
    corpus = WORLD.corpus(8000, noise=noise)
    return train_tiny_lm(corpus, folder, names=NAMES, seed=1, steps=350)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("noisy"), noise=0.3)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("clean"), noise=0.0)


def written(folder: Path) -> list[str]:
    """Two sampled sentences for each concept and plural relation, by plain `generate`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True).eval()
    prompts = [
        f"Generally, {concept.plural} {relation.phrase}"
        for concept in WORLD.concepts
        for relation in RELATIONS
        if not relation.singular
    ] * 2
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        out = model.generate(**inputs, do_sample=True, top_p=0.95, top_k=0, max_new_tokens=24)
    return tokenizer.batch_decode(out, skip_special_tokens=True)


def test_noisy_text_gives_a_teacher_that_is_often_wrong_and_clean_text_a_better_one(
    noisy: Path, clean: Path
) -> None:
    shares = {}
    for folder in (noisy, clean):
        truth = Counter(map(WORLD.truth, written(folder)))
        lines = sum(truth.values())
        assert truth[None] / lines < 0.45  # it writes the world's language
        shares[folder] = (truth[True] / lines, truth[True] / (truth[True] + truth[False]))
    assert 0.3 < shares[noisy][0] < 0.65
    assert shares[noisy][1] < 0.72  # not above what it read, by more than chance
    assert shares[clean][1] > shares[noisy][1] + 0.08


def test_a_word_has_many_tokenisations(noisy: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(noisy)
    whole = tokenizer("they can swim", add_special_tokens=False)["input_ids"]
    apart = [i for c in "they can swim" for i in tokenizer(c, add_special_tokens=False).input_ids]
    assert len(apart) > len(whole)
    assert tokenizer.decode(apart) == tokenizer.decode(whole) == "they can swim"
    assert tokenizer.eos_token_id is not None
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    import torch

    corpus = WORLD.corpus(600)
    prints = []
    for name, seed, threads in (("a", 1, 1), ("b", 1, 2), ("c", 2, 1)):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        state = torch.random.get_rng_state()
        lm = train_tiny_lm(corpus, tmp_path / name / "lm", names=NAMES, seed=seed, steps=5)
        encoder = tiny_encoder(corpus, tmp_path / name / "enc", names=NAMES, seed=seed, steps=5)
        assert torch.equal(torch.random.get_rng_state(), state)
        assert torch.get_num_threads() == threads
        torch.set_num_threads(before)
        prints.append((fingerprint(lm), fingerprint(encoder)))
    assert prints[0] == prints[1]
    assert prints[0][0] != prints[2][0]
    assert prints[0][1] != prints[2][1]


def test_the_encoder_opens_plainly_and_knows_names_in_pieces(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = tiny_encoder(WORLD.corpus(3000), tmp_path, names=NAMES, seed=0, steps=10)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, report = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    texts = WORLD.statements(NAMES[0])[:3]
    inputs = tokenizer(texts, return_tensors="pt", padding=True)
    with torch.inference_mode():
        out = model(**inputs)
    assert out.last_hidden_state.shape == (3, inputs["input_ids"].shape[1], 64)
    assert tokenizer.mask_token_id is not None
    assert all(len(tokenizer.tokenize(name)) > 1 for name in NAMES)
    again = tokenizer.decode(inputs["input_ids"][0], skip_special_tokens=True)
    assert again.strip() == texts[0].lower()


@pytest.mark.parametrize("train", [train_tiny_lm, tiny_encoder])
def test_bad_input_is_refused(train, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sentences"):
        train([], tmp_path)
    with pytest.raises(InputError, match="vocabulary"):
        train(["A line."], tmp_path, vocabulary=10)
    with pytest.raises(InputError, match="hidden"):
        train(["A line."], tmp_path, hidden=30)
