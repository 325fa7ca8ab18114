"""What a critic must beat: the likelihood alone, the surface alone, the words alone.

Takes texts (or pairs) or their log-likelihoods; gives scores, higher for lines more likely valid.
None reads anything of the meaning, and each costs at most a few seconds:

* likelihood: the language model's own belief;
* negation: "negated means false". People make false statements by negating true ones, so a critic
  that only looks for "not" can look skilled;
* surface: length, negation, function words, capitals, punctuation and the like, weighed by a
  logistic regression;
* TF-IDF: which words and pairs of words occur, weighed by a logistic regression.

Report the critic's AUC beside theirs. Where one of them does as well, use it in the critic's place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symdistill.critic.forms import Form
from symdistill.critic.reading import Text

_NEGATION = re.compile(
    r"\b(?:no|not|never|none|nobody|nothing|nowhere|neither|nor|cannot|without"
    r"|hardly|rarely|seldom)\b|n['\u2019]t\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?")

SURFACE = (
    "words", "characters a word", "negated", "share of function words", "capital letters a word",
    "commas", "ends with a stop", "is a question", "numbers", "other punctuation", "hedges",
    "quantifiers",
)  # fmt: skip
_HEDGE = re.compile(r"\b(?:may|might|could|can|usually|often|sometimes|some|many|most)\b", re.I)
_QUANTIFIER = re.compile(r"\b(?:all|every|always|only|any|each|both|must)\b", re.I)


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


def surface_scores(
    train: Sequence[Text], valid: NDArray[np.bool_], texts: Sequence[Text]
) -> NDArray[np.float64]:
    """Scores (N,) in 0..1 of `texts` by surface cues, learnt from `train` with its labels.

    A pair has the cues of both texts, and the share of the second's words that the first has.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), _regression())
    model.fit(surface_cues(train), valid)
    return np.asarray(model.predict_proba(surface_cues(texts))[:, 1], dtype=np.float64)


def tfidf_scores(
    train: Sequence[Text], valid: NDArray[np.bool_], texts: Sequence[Text]
) -> NDArray[np.float64]:
    """Scores (N,) in 0..1 of `texts` by the words and pairs of words in them."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    model = make_pipeline(words, _regression())
    try:
        model.fit([" ".join(_parts(text)) for text in train], valid)
    except ValueError:  # no text has a word in it
        return np.full(len(texts), 0.5)
    found = model.predict_proba([" ".join(_parts(text)) for text in texts])
    return np.asarray(found[:, 1], dtype=np.float64)


def baseline_scores(
    form: Form,
    train: tuple[Sequence[Text], NDArray[np.float64] | None],
    valid: NDArray[np.bool_],
    test: tuple[Sequence[Text], NDArray[np.float64] | None],
) -> dict[str, NDArray[np.float64]]:
    """Scores (N,) of the test lines by every baseline that can read them, by name.

    Args:
        form: names the numbers beside the texts.
        train, test: texts, and the numbers (N, F) beside them: of columns, then, where the form
            has a likelihood, its mean and sum.
        valid: of the lines to train on. They say which way a number points, too.
    """
    (texts, beside), (asked, numbers) = train, test
    found = {
        "surface cues": surface_scores(texts, valid, asked),
        "TF-IDF": tfidf_scores(texts, valid, asked),
    }
    if beside is not None and numbers is not None:
        for i, name in enumerate(form.numbers):
            ranks = likelihood_scores(beside[:, i])
            upward = ranks[valid].mean() >= ranks[~valid].mean()
            found[f"{name} alone"] = numbers[:, i] if upward else -numbers[:, i]
        if form.likelihood:
            found["likelihood"] = likelihood_scores(numbers[:, len(form.numbers)])
    return found


def verdict(baselines: Mapping[str, Mapping[str, Any]]) -> str:
    """Whether the critic beats what reads no meaning, in one sentence.

    One of them wins only where the whole interval of the difference is on its side of 0.

    Args:
        baselines: by name, its `auc`, and by how much the critic's is higher: `difference`, with
            `value`, `low` and `high`.
    """
    best, one = max(baselines.items(), key=lambda item: item[1]["auc"])
    more = one["difference"]
    ends = f"{more['low']:+.3f} to {more['high']:+.3f}"
    lead = f"the critic's lead in AUC is {more['value']:+.3f}, {ends}"
    if more["high"] < 0:
        return f"A baseline wins: {best} ({lead}). Use it, or label more."
    if more["low"] <= 0:
        return f"Not clearly better or worse than the best baseline, {best} ({lead}). Label more."
    return f"Better than the best baseline, {best} ({lead})."


def surface_cues(texts: Sequence[Text]) -> NDArray[np.float64]:
    """The cues of every text: (N, 12), in the order of `SURFACE`; (N, 25) for pairs."""
    return np.array([_cues(text) for text in texts])


def _cues(text: Text) -> list[float]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    if not isinstance(text, str):
        first, second = (set(map(str.lower, _WORD.findall(part))) for part in text)
        shared = len(first & second) / max(1, len(second))
        return [*_cues(text[0]), *_cues(text[1]), shared]
    words = _WORD.findall(text)
    count = max(1, len(words))
    return [
        float(len(words)),
        sum(map(len, words)) / count,
        float(_NEGATION.search(text) is not None),
        sum(word.lower() in ENGLISH_STOP_WORDS for word in words) / count,
        sum(character.isupper() for character in text) / count,
        float(text.count(",")),
        float(text.rstrip().endswith((".", "!"))),
        float(text.rstrip().endswith("?")),
        float(len(re.findall(r"\d+", text))),
        float(len(re.findall(r"[^\w\s,.!?'\u2019]", text))),
        float(len(_HEDGE.findall(text))),
        float(len(_QUANTIFIER.findall(text))),
    ]


def _parts(text: Text) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else text


def _regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(class_weight="balanced", max_iter=2000)
