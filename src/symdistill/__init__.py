"""symdistill: what a language model knows, as text that is judged and kept, and as a small model.

Importing the package does no work: a public name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from symdistill.budget import BudgetReached
    from symdistill.errors import InputError, RunError, SymdistillError
    from symdistill.records import Failure, Item, Knowledge, Lineage, Verdict, View

__version__ = "0.1.0"

__all__ = [
    "BudgetReached",
    "Failure",
    "InputError",
    "Item",
    "Knowledge",
    "Lineage",
    "RunError",
    "SymdistillError",
    "Verdict",
    "View",
    "__version__",
]

_HOME = {
    "BudgetReached": "symdistill.budget",
    "Failure": "symdistill.records",
    "InputError": "symdistill.errors",
    "Item": "symdistill.records",
    "Knowledge": "symdistill.records",
    "Lineage": "symdistill.records",
    "RunError": "symdistill.errors",
    "SymdistillError": "symdistill.errors",
    "Verdict": "symdistill.records",
    "View": "symdistill.records",
}


def __getattr__(name: str) -> Any:
    """A public name from the module that holds it, imported on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
