"""Verifiers: what a text answers, whether that is right, and what several answers amount to."""

from symdistill.verifiers.checking import Check, check
from symdistill.verifiers.equality import equal
from symdistill.verifiers.extraction import EXTRACTOR_VERSION, Extracted, extract
from symdistill.verifiers.recovery import read_recovery, recovery_prompt
from symdistill.verifiers.voting import Vote, agree, vote

__all__ = [
    "EXTRACTOR_VERSION",
    "Check",
    "Extracted",
    "Vote",
    "agree",
    "check",
    "equal",
    "extract",
    "read_recovery",
    "recovery_prompt",
    "vote",
]
