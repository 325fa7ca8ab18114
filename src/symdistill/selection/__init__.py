"""Selection: which judged lines are kept, and why the others are not.

duplicates.py   near repeats of a text
select.py       the rules in order, each refusal with its reason
screen.py       what a person should look at: personal data, harm, stereotypes, the critic's doubt
"""

from symdistill.selection.duplicates import NearDuplicates
from symdistill.selection.screen import (
    Flag,
    Screen,
    ScreenedLine,
    ScreenSettings,
    review_figures,
    screen,
)
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
    "Flag",
    "NearDuplicates",
    "Screen",
    "ScreenSettings",
    "ScreenedLine",
    "SelectionSettings",
    "review_figures",
    "screen",
    "select",
    "specificity_floor",
]
