"""Evaluation: numbers with intervals. No model is asked.

metrics.py      AUC, precision and recall, calibration; intervals that draw whole concepts
specificity.py  how much a line says about its own concept
diversity.py    how varied lines are, and how much has been heard
rounds.py       all figures of one round
accuracy.py     shares of right answers, students compared, what could be seen at all
corpus.py       what a training corpus of rationales is like, by teacher
cost.py         tokens read and written, and the operations for them
export.py       a test set as a task of lm-evaluation-harness or inspect_ai
"""
