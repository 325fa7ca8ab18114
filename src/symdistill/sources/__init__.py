"""Sources: what is asked about, and how it is asked.

concepts.py   lists of concepts and goals -> Item
questions.py  tables of questions -> Item, and the prompt that each becomes
problems.py   tables of questions whose answers can be checked -> Item
forms.py      number, plural, article and gerund where a list does not give them
prompts.py    Item -> prompts that a language model continues, and back to statements

Importing this package loads no language library; each is loaded by the function that needs it.
"""

from symdistill.sources.concepts import Concepts, Rejected, read_concepts
from symdistill.sources.prompts import (
    Prompt,
    PromptGrammar,
    excluded_phrases,
    rank_prompts,
    statement,
)

__all__ = [
    "Concepts",
    "Prompt",
    "PromptGrammar",
    "Rejected",
    "excluded_phrases",
    "rank_prompts",
    "read_concepts",
    "statement",
]
