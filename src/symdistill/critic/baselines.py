"""What a critic must beat: the likelihood alone, and "negated means false".

Takes statements or their log-likelihoods; gives scores in 0..1, higher for lines more likely
valid. Both cost nothing to train and read nothing of the meaning. Negation is the best known
giveaway in labelled statements: people make false ones by negating true ones, so a critic that
only looks for "not" can look skilled. Report the critic's AUC beside both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_NEGATION = re.compile(
    r"\b(?:no|not|never|none|nobody|nothing|nowhere|neither|nor|cannot|without"
    r"|hardly|rarely|seldom)\b|n['\u2019]t\b",
    re.IGNORECASE,
)


def likelihood_scores(log_likelihood: NDArray[np.floating]) -> NDArray[np.float64]:
    """Scores by the language model's own belief: the rank of each line's log-likelihood.

    Args:
        log_likelihood: (N,) mean per token (or sum: the mean does not favour short lines), nats.

    Returns:
        (N,) ranks scaled to 0..1, ties at their mean rank; only their order means anything.
    """
    from scipy.stats import rankdata

    values = np.asarray(log_likelihood, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"expected finite log-likelihoods (N,), got shape {values.shape}")
    if len(values) < 2:
        return np.full(len(values), 0.5)
    return np.asarray((rankdata(values) - 1.0) / (len(values) - 1.0))


def negation_scores(texts: Sequence[str]) -> NDArray[np.float64]:
    """0.0 for a line with a negating word ("not", "never", "don't", "without" ...), else 1.0."""
    return np.array([0.0 if _NEGATION.search(text) else 1.0 for text in texts])
