"""What people are told who label, where nobody wrote anything else for them."""

from __future__ import annotations

from importlib.resources import files

from symdistill.labelling.audit import QUESTIONS
from symdistill.labelling.store import Draw

_FOR_TWO = """\
first, second
  That one, and not the other.

both, neither
  It is true of both alike, or of none of them.

unsure
  You have thought about it and cannot decide. This is an answer.

Which line stands first is chance. Judge what is written, not what its writer may have meant.
"""


def question_of(draw: Draw) -> str:
    """What is asked of each line, or of each pair."""
    if draw.purpose == "compare":
        return QUESTIONS[draw.plan.get("ask", "valid")]
    return "Is this valid?"


def packaged_instructions(draw: Draw) -> str:
    """Plain text; a first line with the lines after it set in is a word that may be answered."""
    if draw.purpose == "compare":
        return _FOR_TWO
    return (files("symdistill") / "data" / "labelling" / "instructions.md").read_text("utf-8")
