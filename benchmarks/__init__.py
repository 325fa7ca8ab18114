"""Benchmarks: `python -m benchmarks.NAME` prints what it does and one JSON object as its last line.

The result is also written to benchmarks/results/NAME.json with the commit, the versions and the
machine. Real data is read from the folder given by --data and is never copied into the project;
what needs it is left out, and said to be left out, where it is absent.
"""
