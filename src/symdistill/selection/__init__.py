"""Selection: which judged lines are kept, and why the others are not.

duplicates.py     near repeats of a text
select.py         the rules in order, each refusal with its reason
rationales.py     which rationales of each question are kept, at equal size
contamination.py  training text that holds test questions
screen.py         what a person should look at: personal data, harm, stereotypes, the critic's doubt
"""

from symdistill.selection.contamination import Contamination, ContaminationSettings, Overlap
from symdistill.selection.duplicates import NearDuplicates
from symdistill.selection.rationales import Selected, Strategy, select_rationales
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
    "Contamination",
    "ContaminationSettings",
    "Decision",
    "Flag",
    "NearDuplicates",
    "Overlap",
    "Screen",
    "ScreenSettings",
    "ScreenedLine",
    "Selected",
    "SelectionSettings",
    "Strategy",
    "review_figures",
    "screen",
    "select",
    "select_rationales",
    "specificity_floor",
]
