"""Constrained decoding with `transformers`: what a text must hold, and what it must not.

`constrained_generate` searches for the likeliest texts that meet a formula (NeuroLogic).
`ExactMask` and `SeededSampling` keep upper bounds and draw from seeds inside `transformers`' own
`generate`. Constraints are written with `symdistill.constraints`, of which the common words are
here too.
"""

from symdistill.constraints import (
    all_of,
    any_of,
    at_least,
    at_most,
    contains,
    either,
    exactly,
    excludes,
    inflections,
    tokens,
)
from symdistill.decoding.automaton import PhraseAutomaton
from symdistill.decoding.formula import CompiledFormula
from symdistill.decoding.lookahead import Lookahead
from symdistill.decoding.masking import ExactMask, Infeasible, Position, TokenConstraint
from symdistill.decoding.neurologic import Hypothesis, constrained_generate, neurologic
from symdistill.decoding.sampling import SeededSampling
from symdistill.decoding.tokens import TokenTable

__all__ = [
    "CompiledFormula",
    "ExactMask",
    "Hypothesis",
    "Infeasible",
    "Lookahead",
    "PhraseAutomaton",
    "Position",
    "SeededSampling",
    "TokenConstraint",
    "TokenTable",
    "all_of",
    "any_of",
    "at_least",
    "at_most",
    "constrained_generate",
    "contains",
    "either",
    "exactly",
    "excludes",
    "inflections",
    "neurologic",
    "tokens",
]
