"""The errors a user can meet, each with the exit code it ends the command with.

A message says what was expected, what came, and what to do. Anything that is not one of
these is a fault of the program and ends with a traceback.
"""

from __future__ import annotations


class SymdistillError(Exception):
    """Base of the errors that are told in one sentence instead of a traceback."""

    exit_code = 1


class InputError(SymdistillError, ValueError):
    """Bad usage or bad input: a wrong path, a broken file, a configuration that says nothing."""

    exit_code = 2


class RunError(SymdistillError, RuntimeError):
    """The work could not go on: a full disk, a folder in use, weights that do not open."""

    exit_code = 1
