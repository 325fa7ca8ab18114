"""Evaluation: numbers with intervals. Pure functions; no model is asked.

metrics.py      AUC, precision and recall, calibration; intervals that draw whole concepts
specificity.py  how much a line says about its own concept
diversity.py    how varied lines are, and how much has been heard
rounds.py       all figures of one round
"""
