"""Selection: which judged lines are kept, and why the others are not.

duplicates.py   near repeats of a text
select.py       the rules in order, each refusal with its reason
"""

from symdistill.selection.duplicates import NearDuplicates
from symdistill.selection.select import (
    Candidate,
    Decision,
    SelectionSettings,
    select,
    specificity_floor,
)

__all__ = [
    "Candidate",
    "Decision",
    "NearDuplicates",
    "SelectionSettings",
    "select",
    "specificity_floor",
]
