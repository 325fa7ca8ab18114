"""Constraints and random numbers inside `transformers`' own `generate`.

`TokenTable` says what each token writes, `ExactMask` keeps exclusions and counts exactly,
`SeededSampling` draws each row from its own seed. The constraints themselves are written with
`symdistill.constraints`.
"""

from symdistill.decoding.automaton import PhraseAutomaton
from symdistill.decoding.masking import ExactMask, Infeasible, Position, TokenConstraint
from symdistill.decoding.sampling import SeededSampling
from symdistill.decoding.tokens import TokenTable

__all__ = [
    "ExactMask",
    "Infeasible",
    "PhraseAutomaton",
    "Position",
    "SeededSampling",
    "TokenConstraint",
    "TokenTable",
]
