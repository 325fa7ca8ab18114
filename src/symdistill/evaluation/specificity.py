"""How much a line says about its own concept.

"Birds are found in many different species" is true and says little: put in any other animal and it
stays as likely. Three measures, all pure functions of numbers and words:

specificity          log p(line | its concept) - log p(line), in nats, by the untouched model
content_word_rarity  how rare the line's content words are among the lines of reference
swap_accept_share    share of other concepts with which a critic still accepts the line (the recipe
                     asks the critic; nothing is computed here)

The first is pointwise mutual information. log p(line) is estimated by averaging the probability
over some other concepts put into the same prompt, so it is not a property of the line's length
or style, which all the averaged prompts share. With few other concepts (3) it is noisy for a
single line and fine for the mean of a round.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")


def specificity(given_concept: ArrayLike, given_others: ArrayLike) -> NDArray[np.float64]:
    """log p(said | its concept) - log mean_k p(said | other concept k), in nats.

    Args:
        given_concept: (N,) log-probability of what was said after the prompt, nats.
        given_others: (N, K) the same with other concepts in the prompt.

    Returns:
        (N,): 0 for what is said of anything alike, large for what is said of this concept alone;
        negative where it suits the others better. NaN where K is 0.

    Raises:
        ValueError: shapes that do not fit.
    """
    own = np.asarray(given_concept, dtype=float)
    others = np.asarray(given_others, dtype=float)
    if own.ndim != 1 or others.ndim != 2 or len(others) != len(own):
        raise ValueError(f"expected (N,) and (N, K); got {own.shape} and {others.shape}")
    if others.shape[1] == 0:
        return np.full(len(own), np.nan)
    log_mean = np.logaddexp.reduce(others, axis=1) - math.log(others.shape[1])
    return np.asarray(own - log_mean)


def content_words(text: str, function_words: Iterable[str]) -> list[str]:
    """The words of a text that are not function words, lower case, in order."""
    skipped = {word.casefold() for word in function_words}
    words = (match.group().casefold() for match in _WORD.finditer(text))
    return [word for word in words if word not in skipped]


def content_word_rarity(
    lines: Sequence[str], reference: Sequence[str], function_words: Iterable[str]
) -> NDArray[np.float64]:
    """Mean over a line's content words of -log(share of reference lines with the word), nats.

    A word that no reference line has counts as if half a line had it.

    Args:
        lines: (N,) what is measured.
        reference: the lines by which words are common or rare; the same for all rounds.
        function_words: words that do not count.

    Returns:
        (N,), 0 upwards; NaN for a line without content words.

    Raises:
        ValueError: there are no lines of reference.
    """
    if not reference:
        raise ValueError("expected lines of reference, got none")
    skipped = frozenset(function_words)
    seen = Counter(word for line in reference for word in set(content_words(line, skipped)))
    total = len(reference)
    rarity = []
    for line in lines:
        words = content_words(line, skipped)
        said = [-math.log(max(seen[word], 0.5) / total) for word in words]
        rarity.append(sum(said) / len(said) if said else math.nan)
    return np.array(rarity)
