"""The judge: another architecture, the same promises."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from symdistill.critic.encoder import Calibration
from symdistill.critic.judge import DecoderJudge, _regress
from symdistill.errors import InputError
from symdistill.models import Model

pytestmark = pytest.mark.unit

NOUNS = [f"noun{i}" for i in range(16)]
GOOD, BAD = ["fly", "swim", "grow"], ["melt", "rust", "explode"]


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("decoder")
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
        num_hidden_layers=5,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def lines(nouns: list[str]) -> tuple[list[str], None, np.ndarray, list[str]]:
    texts = [f"{noun} can {verb} ." for noun in nouns for verb in GOOD + BAD]
    valid = np.array([verb in GOOD for _ in nouns for verb in GOOD + BAD])
    return texts, None, valid, [noun for noun in nouns for _ in GOOD + BAD]


@pytest.fixture(scope="module")
def judge(decoder: Path) -> DecoderJudge:
    return DecoderJudge.fit(*lines(NOUNS[:10]), model=decoder, strengths=(0.01, 1.0))


def test_learns_what_holds_for_concepts_it_has_not_seen(judge: DecoderJudge) -> None:
    texts, _, valid, _ = lines(NOUNS[10:])
    assert ((judge.score(texts) > 0.5) == valid).mean() >= 0.9
    assert judge.chosen["cross_validated_auc"] > 0.9


def test_scores_do_not_depend_on_the_order_nor_on_padding(judge: DecoderJudge) -> None:
    texts = [*lines(NOUNS)[0], "noun1", "noun1 can fly and " * 4]
    scores = judge.score(texts)
    order = np.random.default_rng(0).permutation(len(texts))
    assert judge.score([texts[i] for i in order]).tobytes() == scores[order].tobytes()
    alone = [judge.score([text])[0] for text in texts[-4:]]
    np.testing.assert_allclose(alone, scores[-4:], atol=1e-6)
    assert judge.score([]).shape == (0,)


def test_is_the_same_after_saving_and_again(
    judge: DecoderJudge, decoder: Path, tmp_path: Path
) -> None:
    judge.save(tmp_path)
    loaded = DecoderJudge.load(tmp_path, model=decoder)
    texts = lines(NOUNS)[0]
    assert loaded.version == judge.version
    assert loaded.score(texts).tobytes() == judge.score(texts).tobytes()
    again = DecoderJudge.fit(*lines(NOUNS[:10]), model=decoder, strengths=(0.01, 1.0))
    assert again.version == judge.version
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    about = tmp_path / "judge.json"
    text = about.read_text(encoding="utf-8")
    about.write_text(text.replace('"max_length": 64', '"max_length": 32'), encoding="utf-8")
    with pytest.raises(InputError, match="changed after saving"):
        DecoderJudge.load(tmp_path, model=decoder)


def test_another_language_model_is_refused(
    judge: DecoderJudge, decoder: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(decoder)
    with torch.no_grad():
        model.model.norm.weight.add_(1.0)
    model.save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(decoder).save_pretrained(tmp_path / "other")
    judge.save(tmp_path / "judge")
    other = DecoderJudge.load(tmp_path / "judge", model=tmp_path / "other")
    with pytest.raises(InputError, match="fingerprint"):
        other.score(["noun1 can fly ."])


def test_calibration_and_features(decoder: Path) -> None:
    texts, _, valid, _ = lines(NOUNS[10:])
    rng = np.random.default_rng(0)
    noise: Any = rng.normal(size=(60, 2))
    judge = DecoderJudge.fit(
        lines(NOUNS[:10])[0],
        noise,
        *lines(NOUNS[:10])[2:],
        model=decoder,
        calibration=Calibration(texts, rng.normal(size=(len(texts), 2)), valid),
        strengths=(1.0,),
    )
    with pytest.raises(InputError, match="expected 2 features a line"):
        judge.score(texts)


@pytest.mark.parametrize("shape", [(12, 40), (40, 12)])
def test_the_short_way_finds_the_same_regression(shape: tuple[int, int]) -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x = rng.normal(size=shape)
    y = x[:, 0] + rng.normal(size=shape[0]) > 0
    weight, bias = _regress(x, y, 0.1)
    full = LogisticRegression(C=0.1, max_iter=5000, tol=1e-8).fit(x, y)
    np.testing.assert_allclose(weight, full.coef_[0], atol=2e-3)
    assert bias == pytest.approx(full.intercept_[0], abs=2e-3)


def test_bad_input_is_told(decoder: Path, tmp_path: Path) -> None:
    texts, _, valid, groups = lines(NOUNS[:6])
    with pytest.raises(InputError, match="got one class"):
        DecoderJudge.fit(texts, None, np.ones(len(texts), bool), groups, model=decoder)
    with pytest.raises(InputError, match="at least 3 concepts"):
        DecoderJudge.fit(texts, None, valid, ["one"] * len(texts), model=decoder)
    with pytest.raises(InputError, match="no such folder"):
        DecoderJudge.fit(texts, None, valid, groups, model=tmp_path / "absent")
    with pytest.raises(InputError, match="expected a saved judge"):
        DecoderJudge.load(tmp_path, model=decoder)


@pytest.mark.real
def test_the_embedded_language_model_knows_something(smollm2: Model) -> None:
    def about(animals: list[str]) -> tuple[list[str], None, np.ndarray, list[str]]:
        good = ["needs food to live", "has a heart", "can die", "breathes air"]
        bad = ["is made of plastic", "needs petrol to run", "has a keyboard", "can read novels"]
        texts = [f"A {animal} {end}." for animal in animals for end in good + bad]
        valid = np.array([end in good for _ in animals for end in good + bad])
        return texts, None, valid, [animal for animal in animals for _ in good + bad]

    judge = DecoderJudge.fit(
        *about(["dog", "cat", "horse", "cow"]), model=smollm2.folder, strengths=(1e-3,)
    )
    texts, _, valid, _ = about(["lion"])
    scores = judge.score(texts)
    assert scores[valid].min() > scores[~valid].max()
