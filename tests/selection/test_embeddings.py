"""Sentences as vectors: like ones are near, equal ones equal, and the order is kept."""

from __future__ import annotations

import numpy as np
import pytest

from symdistill.selection.embeddings import sentence_embedder

pytestmark = pytest.mark.real


def test_like_sentences_are_nearer_than_others() -> None:
    embed = sentence_embedder()
    texts = ["A dog runs in the park.", "Interest rates rose.", "A puppy plays outside.", ""]
    found = embed(texts)
    assert found.shape == (4, 384)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert found[0] @ found[2] > found[0] @ found[1] + 0.2
    assert np.array_equal(embed([texts[1], texts[1]])[0], embed([texts[1]])[0])
    assert embed([]).shape == (0, 384)
