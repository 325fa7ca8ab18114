"""Draws follow the warped distribution and depend on the row's own seed alone."""

from __future__ import annotations

import pytest

from symdistill.errors import InputError

pytestmark = pytest.mark.unit
torch = pytest.importorskip("torch")

from symdistill.decoding.sampling import SeededSampling  # noqa: E402


def draws(scores: object, rows: int, **settings: float) -> object:
    """One token for each of `rows` seeds over the same scores."""
    batch = scores.expand(rows, -1)  # type: ignore[attr-defined]
    sampler = SeededSampling(range(rows), **settings)  # type: ignore[arg-type]
    return sampler(torch.zeros((rows, 1), dtype=torch.long), batch).argmax(dim=1)


def library_warped(scores: object, temperature: float, top_k: int, top_p: float) -> object:
    from transformers import (
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    for warper in (
        TemperatureLogitsWarper(temperature),
        *([TopKLogitsWarper(top_k)] if top_k else []),
        *([TopPLogitsWarper(top_p)] if top_p < 1 else []),
    ):
        scores = warper(None, scores)
    return scores


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.7, 0, 1.0), (1.3, 5, 1.0), (1.0, 0, 0.8), (0.8, 6, 0.9)],
)
def test_frequencies_are_those_of_multinomial_sampling(
    temperature: float, top_k: int, top_p: float
) -> None:
    from scipy.stats import chisquare

    scores = torch.randn((1, 12), generator=torch.Generator().manual_seed(1)) * 1.5
    n = 40_000
    drawn = draws(scores, n, temperature=temperature, top_k=top_k, top_p=top_p)
    expected = library_warped(scores.clone(), temperature, top_k, top_p)[0].double().softmax(-1)
    counts = torch.bincount(drawn, minlength=12)
    assert counts[expected == 0].sum() == 0
    live = expected > 0
    assert chisquare(counts[live].numpy(), (expected[live] * n).numpy()).pvalue > 1e-4


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("spread", [0.01, 1.0, 4.0])
def test_the_nucleus_is_the_librarys(top_p: float, spread: float) -> None:
    """Also where it is wider than the heads that are looked at first."""
    scores = torch.randn((4, 6000), generator=torch.Generator().manual_seed(2)) * spread
    ours = SeededSampling([1, 2, 3, 4], top_p=top_p)(torch.zeros((4, 1)), scores)
    theirs = library_warped(scores.clone(), 1.0, 0, top_p)
    unlike = (ours.isneginf() != theirs.isneginf()).sum(dim=1)
    assert int(unlike.max()) <= 2  # rounding of the sums at the edge


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    scores = torch.randn((8, 500), generator=torch.Generator().manual_seed(3))
    seeds = [11, 2**64 - 1, 0, 7, 5, 3, 2, 1]
    together = SeededSampling(seeds, top_p=0.9)
    alone = [SeededSampling([seed], top_p=0.9) for seed in seeds]
    backwards = SeededSampling(seeds[::-1], top_p=0.9)
    for _ in range(5):
        ids = torch.zeros((8, 1), dtype=torch.long)
        batch = together(ids, scores).argmax(dim=1)
        singles = [one(ids[:1], scores[i : i + 1]).argmax() for i, one in enumerate(alone)]
        assert batch.tolist() == [int(one) for one in singles]
        assert batch.tolist() == backwards(ids, scores.flip(0)).argmax(dim=1).flip(0).tolist()


def test_steps_of_a_row_are_independent_draws() -> None:
    sampler = SeededSampling([9])
    drawn = [int(sampler(torch.zeros((1, 1)), torch.zeros((1, 50))).argmax()) for _ in range(200)]
    assert len(set(drawn)) > 40


def test_masked_tokens_are_never_drawn() -> None:
    scores = torch.full((1, 1000), -torch.inf)
    scores[0, [3, 400]] = 0.0
    assert set(draws(scores, 500, top_p=0.99).tolist()) == {3, 400}


@pytest.mark.parametrize(
    "settings",
    [{"temperature": 0}, {"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"top_k": -1}],
)
def test_settings_outside_their_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError):
        SeededSampling([1], **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_outside_64_bits_are_refused(seed: int) -> None:
    with pytest.raises(InputError, match="seeds"):
        SeededSampling([seed])


def test_rows_without_a_seed_are_refused() -> None:
    with pytest.raises(InputError, match="one for each seed"):
        SeededSampling([1, 2])(torch.zeros((3, 1)), torch.zeros((3, 5)))
