"""The critic learns what can be learnt, scores the same in any order, and survives a save.

A tiny random BERT, made here, stands in for an encoder where only the plumbing is tested; the
last test uses the embedded one.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from symdistill.critic.encoder import Calibration, EncoderCritic
from symdistill.critic.fitted import feature_matrix
from symdistill.critic.reading import fixed_batches, pooled, reads_forward, tokenise
from symdistill.critic.training import usual_learning_rate
from symdistill.errors import InputError
from symdistill.models import Model

pytestmark = pytest.mark.unit

NOUNS = [f"noun{i}" for i in range(24)]
GOOD, BAD = ["fly", "swim", "grow"], ["melt", "rust", "explode"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Models this small are slower on two threads, and much slower on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    words = [*NOUNS, *GOOD, *BAD, "can", "very", "often", "."]
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab={w: i for i, w in enumerate(vocab)}).save_pretrained(folder)
    return folder


def lines(nouns: list[str]) -> tuple[list[str], None, np.ndarray, list[str]]:
    texts = [f"{noun} can {verb} ." for noun in nouns for verb in GOOD + BAD]
    valid = np.array([verb in GOOD for _ in nouns for verb in GOOD + BAD])
    return texts, None, valid, [noun for noun in nouns for _ in GOOD + BAD]


FAST: dict[str, Any] = {
    "epochs": 10,
    "patience": 10,
    "batch_size": 8,
    "learning_rate": 2e-3,
    "head_learning_rate": 1e-2,
}


@pytest.fixture(scope="module")
def critic(encoder: Path) -> EncoderCritic:
    texts, _, valid, _ = lines(NOUNS[16:20])
    return EncoderCritic.fit(
        *lines(NOUNS[:16]), encoder=encoder, calibration=Calibration(texts, None, valid), **FAST
    )


def test_learns_what_holds_for_concepts_it_has_not_seen(critic: EncoderCritic) -> None:
    texts, _, valid, _ = lines(NOUNS[20:])
    scores = critic.score(texts)
    assert ((scores > 0.5) == valid).mean() >= 0.9
    assert ((scores > 0) & (scores < 1)).all()
    assert {"loss", "held_out_auc", "held_out_loss"} == set(critic.history[0])


def test_scores_do_not_depend_on_the_order(critic: EncoderCritic) -> None:
    texts = lines(NOUNS)[0] + ["noun1 can very often fly . " * 3, "noun2"]
    scores = critic.score(texts)
    order = np.random.default_rng(0).permutation(len(texts))
    assert critic.score([texts[i] for i in order]).tobytes() == scores[order].tobytes()
    assert critic.score(texts).tobytes() == scores.tobytes()
    np.testing.assert_allclose(
        [critic.score([text])[0] for text in texts[-5:]], scores[-5:], atol=1e-6
    )
    assert critic.score([]).shape == (0,)


def test_padding_changes_nothing(encoder: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(encoder).eval()
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    short, long = "noun1 can fly .", "noun2 can very very very often often swim ."
    alone = tokenizer([short], return_tensors="pt")
    both = tokenizer([short, long], return_tensors="pt", padding=True)
    assert both["input_ids"].shape[1] > alone["input_ids"].shape[1]
    with torch.inference_mode():
        one, two = pooled(model, dict(alone)), pooled(model, dict(both))
    torch.testing.assert_close(one[0], two[0], atol=1e-5, rtol=1e-5)


def test_batches_hold_every_line_once_in_few_shapes(encoder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(encoder)
    texts = ["can " * n for n in (1, 9, 3, 70, 2, 9)]
    batches = list(fixed_batches(tokenizer, texts, max_length=16, batch_size=2))
    assert sorted(i for rows, _ in batches for i in rows) == list(range(6))
    for rows, inputs in batches:
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        assert ids.shape == mask.shape and ids.shape[0] == 2 and ids.shape[1] in (8, 16)
        for b, row in enumerate(rows):
            expected = tokenizer(texts[row], truncation=True, max_length=16)["input_ids"]
            assert ids[b, : len(expected)].tolist() == expected
            assert mask[b].sum() == len(expected)


def test_same_seed_same_critic_and_another_seed_another(encoder: Path) -> None:
    data = lines(NOUNS[:6])
    one = EncoderCritic.fit(*data, encoder=encoder, epochs=1)
    assert EncoderCritic.fit(*data, encoder=encoder, epochs=1).version == one.version
    assert EncoderCritic.fit(*data, encoder=encoder, epochs=1, seed=1).version != one.version


def test_is_the_same_after_saving(critic: EncoderCritic, tmp_path: Path) -> None:
    critic.save(tmp_path / "c")
    loaded = EncoderCritic.load(tmp_path / "c")
    texts = lines(NOUNS[20:])[0]
    assert loaded.version == critic.version
    assert loaded.score(texts).tobytes() == critic.score(texts).tobytes()
    kinds = {path.suffix for path in (tmp_path / "c").rglob("*") if path.is_file()}
    assert kinds <= {".json", ".safetensors", ".txt"}


def test_a_changed_file_is_refused(critic: EncoderCritic, tmp_path: Path) -> None:
    critic.save(tmp_path)
    about = tmp_path / "critic.json"
    text = about.read_text(encoding="utf-8")
    about.write_text(text.replace('"dropout": 0.1', '"dropout": 0.2'), encoding="utf-8")
    with pytest.raises(InputError, match="changed after saving"):
        EncoderCritic.load(tmp_path)
    (tmp_path / "head.safetensors").unlink()
    with pytest.raises(InputError, match="expected a saved critic"):
        EncoderCritic.load(tmp_path)


def test_features_are_read_and_standardised(encoder: Path) -> None:
    rng = np.random.default_rng(0)
    texts = [f"{noun} can fly ." for noun in NOUNS for _ in range(6)]  # the text says nothing
    groups = [noun for noun in NOUNS for _ in range(6)]
    valid = rng.random(len(texts)) < 0.5
    features = np.stack([1e4 + 50 * (valid + 0.1 * rng.normal(size=len(texts)))] * 2, axis=1)
    critic = EncoderCritic.fit(texts, features, valid, groups, encoder=encoder, **FAST)
    assert ((critic.score(texts, features) > 0.5) == valid).mean() > 0.95
    with pytest.raises(InputError, match="expected 2 features a line"):
        critic.score(texts)


def test_numbers_are_weighed_on_lines_that_were_not_learnt_from(encoder: Path) -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    texts = [f"{noun} can {verb} ." for noun in NOUNS for verb in GOOD + BAD]
    groups = [noun for noun in NOUNS for _ in GOOD + BAD]
    valid = rng.random(len(texts)) < 0.5  # the text says nothing, the number a lot
    number = (valid + 0.7 * rng.normal(size=len(texts)))[:, None]
    learnt, rest, test = slice(0, 48), slice(48, 96), slice(96, None)
    scores = {
        weigh: EncoderCritic.fit(
            texts[learnt],
            number[learnt],
            valid[learnt],
            groups[learnt],
            calibration=Calibration(texts[rest], number[rest], valid[rest]),
            encoder=encoder,
            weigh_numbers=weigh,
            **{**FAST, "head_learning_rate": 1e-3},
        ).score(texts[test], number[test])
        for weigh in (True, False)
    }
    alone = roc_auc_score(valid[test], number[test, 0])
    assert roc_auc_score(valid[test], scores[True]) > alone - 0.05
    assert roc_auc_score(valid[test], scores[True]) > roc_auc_score(valid[test], scores[False])


def test_top_layers_only(encoder: Path) -> None:
    import torch
    from transformers import AutoModel

    before = dict(AutoModel.from_pretrained(encoder).named_parameters())
    critic = EncoderCritic.fit(
        *lines(NOUNS[:6]), encoder=encoder, epochs=1, trainable="top", top_layers=1
    )
    changed = {
        name
        for name, parameter in critic.encoder.named_parameters()
        if not torch.equal(parameter, before[name])
    }
    assert changed and all(name.startswith("encoder.layer.1.") for name in changed)


def test_lora_is_merged_into_a_plain_model(encoder: Path, tmp_path: Path) -> None:
    texts, _, valid, _ = lines(NOUNS[20:])
    critic = EncoderCritic.fit(
        *lines(NOUNS[:16]), encoder=encoder, trainable="lora", **{**FAST, "learning_rate": 1e-2}
    )
    scores = critic.score(texts)
    assert ((scores > 0.5) == valid).mean() >= 0.9
    critic.save(tmp_path)
    assert not list(tmp_path.rglob("adapter*"))
    assert EncoderCritic.load(tmp_path).score(texts).tobytes() == scores.tobytes()


def pairs(nouns: list[str]) -> tuple[list[tuple[str, str]], None, np.ndarray, list[str]]:
    """Valid where the second text is; the first says something of either kind."""
    said = [(noun, one, two) for noun in nouns for one in (GOOD + BAD)[1:5] for two in GOOD + BAD]
    texts = [(f"{noun} can {one} .", f"can {two}") for noun, one, two in said]
    return texts, None, np.array([two in GOOD for *_, two in said]), [noun for noun, *_ in said]


def test_pairs_are_read_as_pairs(encoder: Path) -> None:
    from transformers import AutoTokenizer

    tokens = tokenise(AutoTokenizer.from_pretrained(encoder), [("noun1 can", "fly")], 16)[0]
    assert tokens["token_type_ids"] == [0, 0, 0, 0, 1, 1]
    critic = EncoderCritic.fit(*pairs(NOUNS[:8]), encoder=encoder, **FAST)
    texts, _, valid, _ = pairs(NOUNS[20:22])
    scores = critic.score(texts)
    assert ((scores > 0.5) == valid).mean() >= 0.9
    assert critic.score(texts[::-1]).tobytes() == scores[::-1].tobytes()
    with pytest.raises(InputError, match="got both"):
        critic.score(["one text", ("two", "texts")])


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("causal")
    words = ["<end>", "<unk>", *NOUNS, *GOOD, *BAD, "can", "."]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("trainable", ["full", "lora"])
def test_a_causal_model_is_read_at_its_last_token(
    causal: Path, trainable: str, tmp_path: Path
) -> None:
    rates = {**FAST, "learning_rate": 1e-2 if trainable == "lora" else 2e-3, "epochs": 15}
    critic = EncoderCritic.fit(*lines(NOUNS[:16]), encoder=causal, trainable=trainable, **rates)
    assert reads_forward(critic.encoder)
    texts, _, valid, _ = lines(NOUNS[20:])
    scores = critic.score(texts)
    assert ((scores > 0.5) == valid).mean() >= 0.9
    np.testing.assert_allclose(
        critic.score(texts[:1]), scores[:1], atol=1e-5
    )  # padding is not read
    critic.save(tmp_path)
    assert EncoderCritic.load(tmp_path).score(texts).tobytes() == scores.tobytes()
    assert critic.score([("noun1 can", "fly")]).shape == (1,)


def test_an_encoder_is_not_taken_for_a_causal_model(critic: EncoderCritic) -> None:
    assert not reads_forward(critic.encoder)


def test_wider_models_get_a_smaller_rate() -> None:
    assert usual_learning_rate(384, "full") == 2e-4
    assert usual_learning_rate(1024, "full") < usual_learning_rate(768, "full") < 1e-4
    assert usual_learning_rate(1024, "lora") > usual_learning_rate(1024, "full")


def test_scoring_tells_how_far_it_is(critic: EncoderCritic) -> None:
    done: list[int] = []
    critic.score(lines(NOUNS)[0], advance=done.append)
    assert sum(done) == len(lines(NOUNS)[0])


def test_without_calibration_class_weights_are_taken_out_again(encoder: Path) -> None:
    rng = np.random.default_rng(0)
    texts, _, _, groups = lines(NOUNS)
    valid = rng.random(len(texts)) < 0.15  # nothing to learn but the share
    critic = EncoderCritic.fit(texts, None, valid, groups, encoder=encoder, epochs=2)
    assert critic.score(texts).mean() == pytest.approx(valid.mean(), abs=0.08)


def test_bad_input_is_told(encoder: Path, tmp_path: Path) -> None:
    texts, _, valid, groups = lines(NOUNS[:4])
    with pytest.raises(InputError, match="got one class"):
        EncoderCritic.fit(texts, None, np.ones(len(texts), bool), groups, encoder=encoder)
    with pytest.raises(InputError, match="one length"):
        EncoderCritic.fit(texts, None, valid[1:], groups, encoder=encoder)
    with pytest.raises(InputError, match="no such folder"):
        EncoderCritic.fit(texts, None, valid, groups, encoder=tmp_path / "absent")
    with pytest.raises(InputError, match="safetensors weights"):
        EncoderCritic.fit(texts, None, valid, groups, encoder=tmp_path)
    with pytest.raises(InputError, match="finite features"):
        feature_matrix(np.array([[np.nan]]), 1)
    with pytest.raises(InputError, match="finite features"):
        feature_matrix(np.zeros(3), 3)


@pytest.mark.real
def test_the_embedded_encoder_learns_from_few_labels(minilm: Model) -> None:
    def about(animals: list[str]) -> tuple[list[str], None, np.ndarray, list[str]]:
        good = ["needs food to live", "has a heart", "can die", "breathes air"]
        bad = ["is made of plastic", "needs petrol to run", "has a keyboard", "can read novels"]
        texts = [f"A {animal} {end}." for animal in animals for end in good + bad]
        valid = np.array([end in good for _ in animals for end in good + bad])
        return texts, None, valid, [animal for animal in animals for _ in good + bad]

    critic = EncoderCritic.fit(
        *about(["dog", "cat", "horse", "cow", "goat", "sheep"]), encoder=minilm.folder, epochs=3
    )
    texts, _, valid, _ = about(["lion", "mouse"])
    scores = critic.score(texts)
    assert scores[valid].min() > scores[~valid].max()
