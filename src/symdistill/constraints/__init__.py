"""The lexical-constraint language: say which phrases a text must hold, how often, and which not.

    c = contains(any_of("dog", "dogs")) & excludes("cat") & at_most(1, ["in", "on", "at"])
    c.verify("Dogs sleep on sofas.")        # True
    c.explain("Dogs chase a cat.")          # one ClauseStatus for each clause
    from_json(c.to_json()) == c             # True

    wet = contains(inflections("rain", "NOUN")) | at_least(2, ["wet", "damp"])
    (wet & ~contains("desert")).contradictions()      # [], before any text is written

Takes a text and the text before it; gives a verdict, or the matches behind it. One object
verifies, explains and (in `symdistill.decoding`) is enforced while a model writes. Cost: one
`str.find` a phrase and text. The idea of formulas over "phrase occurs in text" is NeuroLogic's
(Lu et al., 2021); counts are needed for the rules of I2D2 (Bhagavatula et al., 2023).

The language
    A *phrase* is a text, `any_of(...)` several, `inflections("dog")` a word with its forms, or
    `tokens(318, 257)` exact token ids.
    A *literal* bounds the number of matches of a set of phrases: `contains`, `excludes`,
    `at_least(n, ...)`, `at_most(n, ...)`; `exactly(n, ...)` is two of them.
    *Formulas* join constraints with `&` (`all_of`), `|` (`either`) and `~`. Python's `and`, `or`,
    `not` are not these: they look at whether the object exists. `~` goes down to the literals
    (the opposite of `contains` is `excludes`, that of `at_most(n)` is `at_least(n + 1)`), and a
    formula is kept in conjunctive normal form: `clauses` must all hold, and of the `literals` of
    a clause one. `at_least(0, ...)` asks nothing and is `all_of()`, which holds of every text;
    `either()` holds of none.

What a match is, exactly
    *Characters* are compared one by one. Upper and lower case are the same where lower case is
    one character long (so "ß" is not "ss"); the quotes U+2018 and U+2019 are the same as the
    apostrophe "'"; nothing else is normalised (a composed "é" is not "e" plus an accent).
    *White space*: a run of white space (`str.isspace`) inside a phrase matches any run of one or
    more white space characters, new lines included. At the ends of a phrase it is dropped.
    *Word boundaries*: a word character is one for which `str.isalnum()` is true, "_", or a
    combining mark (Unicode category M). Where a phrase begins with a word character, the
    character before the match must not be one; where it ends with one, the character after the
    match must not be one, or the text ends there. At an end of the phrase that is no word
    character ("'s", "e.g.") nothing is asked.
    *Apostrophes* and hyphens are not word characters. So "it" matches in "it's", "can" in
    "can't", "well" in "well-known", and "n't" matches nowhere in "don't" (an "o" stands before).
    *A star* at the beginning or end of a phrase lifts the boundary at that end: "*n't" matches
    in "don't" and "isn't", "un*" in "unkind". One star a side is the mark, further ones and
    those inside are ordinary characters.
    *Where*: a match lies wholly inside `text` (the continuation). The boundary before its first
    character also looks at the last character of `before` (the prompt); a phrase that begins in
    the prompt and ends in the continuation is not a match.
    *Counting*: every pair (start, phrase) counts, overlapping ones too: with the phrases "in" and
    "in front", the text "in front" has two matches. Phrases that differ only in case, white space
    or apostrophes are one phrase.
    *Token phrases* (`tokens`) are found where their ids stand one after another among the
    continuation's token ids, whatever they write: no case, no boundary. `verify` and `explain`
    must then be given `token_ids`.

The JSON form (unknown keys are errors, so that the form can grow)
    {"contains": P}   {"excludes": P}
    {"at_most": n, "of": P}   {"at_least": n, "of": P}   {"exactly": n, "of": P}
    {"all_of": [constraint, ...]}   {"either": [constraint, ...]}   {"not": constraint}
    where P is a phrase or {"any_of": [phrase, ...]}, and a phrase is a text or {"tokens": [id,
    ...]}. `to_json` writes the normal form, so no "exactly" and no "not"; what is read from it is
    the same constraint.

Before any text is written, `contradictions` names clauses that no text can meet together, and
`tautologies` those that every text meets. Both find what phrases show of each other, not all.
`simplified` leaves out what is redundant.

What it does not do: order or distance of phrases; normal forms of more than 1,000 clauses, or
1,000 literals in one (an error says so).
"""

from symdistill.constraints.formulas import (
    AllOf,
    AtLeast,
    AtMost,
    Clause,
    ClauseStatus,
    Constraint,
    Contains,
    Either,
    Excludes,
    Literal,
    all_of,
    at_least,
    at_most,
    contains,
    either,
    exactly,
    excludes,
)
from symdistill.constraints.phrases import (
    AnyOf,
    Match,
    Pattern,
    Phrase,
    Tokens,
    any_of,
    fold,
    inflections,
    is_word_character,
    tokens,
)
from symdistill.constraints.reading import from_file, from_json
from symdistill.constraints.reasoning import Contradiction, Tautology

__all__ = [
    "AllOf",
    "AnyOf",
    "AtLeast",
    "AtMost",
    "Clause",
    "ClauseStatus",
    "Constraint",
    "Contains",
    "Contradiction",
    "Either",
    "Excludes",
    "Literal",
    "Match",
    "Pattern",
    "Phrase",
    "Tautology",
    "Tokens",
    "all_of",
    "any_of",
    "at_least",
    "at_most",
    "contains",
    "either",
    "exactly",
    "excludes",
    "fold",
    "from_file",
    "from_json",
    "inflections",
    "is_word_character",
    "tokens",
]
