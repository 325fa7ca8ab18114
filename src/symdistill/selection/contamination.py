"""Does a training text hold a question of the test set?

Takes the test questions once (with their options), then training texts one after another,
questions and rationales alike: a teacher may write a test question down, too. Gives for each the
test question it holds, or None. Letter case, punctuation, white space, thousands separators and
the order of options make no difference; operators and standing brackets do, since in formulas they
are words.

    same question   the words are the same, or the text quotes the whole question (one of fewer than
                    8 words: as sentences of their own, with its options)
    near repeat     the text holds most of the question's own runs of three words
    shared words    the text shares 13 words in a row with the question, or all of a shorter one
                    that has at least 8

Runs of 13 words, at least 8, are those of GPT-3 (https://arxiv.org/abs/2005.14165, appendix C).
What stands in three or more test questions is no one's own: questions made by one template share
long runs, and there one word makes another question. So a run counts only where at least half of
its three-word runs are rare, that is, stand in fewer than three test questions; and a question of
which most is not rare is found only as a whole. For the same reason a text that lacks one of a
question's numbers holds another question. These rules are ours.

Costs about 0.3 milliseconds a text of 100 words, whatever the number of test questions, and about
1 kB for each word of these.

What it does not find: a paraphrase, a translation, a question whose numbers became words, a small
change in a question made by a template, a part of a passage that three test questions share. With
one or two questions of a template in the test set nothing tells it from other text. In languages
written without blanks between words only whole questions and sentences are compared; a question of
one word is found in a longer text only if it has 8 letters.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

from pydantic import Field

from symdistill.config import Count, Settings

How = Literal["same question", "near repeat", "shared words"]
HOWS: tuple[How, ...] = get_args(How)

TEMPLATE = 3  # test questions that hold the same three words make them a template's
SEED = 8  # words: shorter runs are shared by chance
SHOWN = 80  # characters of a test question in an overlap

_DASHES = dict.fromkeys(map(ord, "‐‑‒–—−"), "-")
_WITHIN = re.compile(r"(?<=\d),(?=\d{3}(?!\d))|(?<=[^\W\d_])['’](?=[^\W\d_])")  # 1,000 don't
_WORD = re.compile(
    r"\d+(?:\.\d+)+|[^\W_]+"
    r"|(?<![^\W\d_])[-+*/=^<>](?=\s*[-+(\d])"  # an operator before a number
    r"|(?<![^\W_])[(){}\[\]<>](?![^\W_])"  # a bracket that touches no word
)
_OPTION = re.compile(r"(?<!\S)(?:[(\[]([a-z1-9])[)\]]|([a-z1-9])[).:])(?=\s)")
_BETWEEN = re.compile(r"[.?!:;\n\"“”。「」『』؟।]")  # what ends a sentence or begins a quotation

Words = tuple[str, ...]


class ContaminationSettings(Settings):
    """Whether training text that holds test questions is removed."""

    enabled: bool = True
    """Compare all training text with the test questions, and remove what holds one."""

    words: Count = Field(13, ge=SEED)
    """So many words in a row that a text shares with a test question are too many."""

    similarity: float = Field(0.8, gt=0, le=1)
    """Share of a test question's rare three-word runs from which a text is a near repeat of it."""

    other_numbers: bool = False
    """A question with other numbers counts as the same question."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """A test question that a text holds."""

    test_id: str
    how: How
    shared: str  # the shared words, or the beginning of the test question
    similarity: (
        float  # share of the test question (near repeat: of its rare runs) in the text, 0..1
    )


@dataclass(frozen=True, slots=True)
class _Question:
    """A test question: the words before its options, and those of each option, sorted."""

    id: str
    text: str
    parts: tuple[Words, ...]

    @property
    def stem(self) -> Words:
        return self.parts[0]

    @property
    def numbers(self) -> Counter[str]:
        return Counter(word for word in self.stem if word[0].isdigit())

    @property
    def triples(self) -> set[Words]:
        return {triple for part in self.parts for triple in _runs(part, 3)}


class Contamination:
    """The questions of a test set, ready to be looked for."""

    def __init__(self, test: Iterable[tuple[str, str]], settings: ContaminationSettings) -> None:
        """`test`: each question's own id and its text, options in it as "(A) ..." or "A. ..."."""
        self.settings = settings
        distinct: dict[tuple[Words, ...], _Question] = {}
        for id, text in test:
            parts = self._parts(_folded(text))
            if any(parts):
                distinct.setdefault(parts, _Question(id, text, parts))
        questions = self._questions = list(distinct.values())
        # As one part, too: the marks that tell options from the rest may be gone.
        self._whole = {(self._words(_folded(one.text)),): one for one in questions} | distinct
        self._short = {one.stem for one in questions if _is_short(one.stem)}
        self._with_stem = Counter(one.stem for one in questions)
        holders = Counter(triple for one in questions for triple in one.triples)
        self._rare = {triple for triple, n in holders.items() if n < TEMPLATE}

        # The rare runs of three words, of long enough questions most of which is rare.
        self._near: defaultdict[Words, list[_Question]] = defaultdict(list)
        self._near_size: dict[str, int] = {}
        # Where runs of eight words stand: question, part, place in the part.
        self._seeds: defaultdict[Words, list[tuple[_Question, int, int]]] = defaultdict(list)
        self._whole_only = 0
        anchored: set[Words] = set()
        stem_runs = Counter(run for one in questions for run in set(_runs(one.stem, SEED)))
        for one in questions:
            rare = one.triples & self._rare
            if sum(map(len, one.parts)) >= settings.words and 2 * len(rare) >= len(one.triples):
                self._near_size[one.id] = len(rare)
                for triple in rare:
                    self._near[triple].append(one)
            singular = one.id in self._near_size
            for number, part in enumerate(one.parts):
                runs = list(_runs(part, SEED))
                places = {at for at, run in enumerate(runs) if self._is_own(run)}
                singular |= bool(places)
                if number == 0 and runs and one.stem not in anchored:
                    # A whole question must be found though it be a template's.
                    anchored.add(one.stem)
                    places.add(min(range(len(runs)), key=lambda at: stem_runs[runs[at]]))
                for at in places:
                    self._seeds[runs[at]].append((one, number, at))
            self._whole_only += not singular

    def find(self, text: str) -> Overlap | None:
        """The test question that a training text holds, the surest find; None: none was found."""
        if not self.settings.enabled:
            return None
        folded = _folded(text)
        words = self._words(folded)
        same = self._whole.get(self._parts(folded)) or self._whole.get((words,))
        if same is not None:
            return Overlap(same.id, "same question", _beginning(same.text), 1.0)
        found = [
            *self._short_quoted(folded, words),
            *self._quoted(folded, words),
            *self._near_repeats(words),
        ]
        return min(
            found, key=lambda one: (HOWS.index(one.how), -one.similarity, one.test_id), default=None
        )

    def report(self, found: Mapping[str, Overlap], texts: int, examples: int = 5) -> dict[str, Any]:
        """What was removed, as JSON: counts, and the first examples of each kind.

        Args:
            found: the id of each text that was removed, and what it holds.
            texts: how many texts were compared.
            examples: how many to show of each kind.
        """
        shown: dict[How, list[dict[str, Any]]] = {how: [] for how in HOWS}
        for id, overlap in sorted(found.items()):
            if len(shown[overlap.how]) < examples:
                shown[overlap.how].append({"id": id, **asdict(overlap)})
        counts = Counter(overlap.how for overlap in found.values())
        return {
            "settings": self.settings.model_dump(mode="json"),
            "test_questions": len(self._questions),
            "found_as_a_whole_only": self._whole_only,
            "texts": texts,
            "removed": {how: counts[how] for how in HOWS},
            "test_questions_held": len({overlap.test_id for overlap in found.values()}),
            "examples": [example for how in HOWS for example in shown[how]],
        }

    def _short_quoted(self, folded: str, words: Words) -> Iterator[Overlap]:
        """The questions of few words that stand in the text as sentences of their own."""
        cuts = _cuts(folded) if self._short else []
        for i, first in enumerate(cuts):
            for last in cuts[i + 1 : i + SEED]:
                if last - first >= SEED:
                    break
                run = words[first:last]
                if run in self._short:
                    whole = self._whole.get((run,)) or self._with_options(run, folded)
                    if whole is not None:
                        yield Overlap(whole.id, "same question", _beginning(whole.text), 1.0)

    def _quoted(self, folded: str, words: Words) -> Iterator[Overlap]:
        """The questions of which the text has enough words in a row."""
        present = Counter(words)
        seen: set[tuple[str, int, int]] = set()
        for here, seed in enumerate(_runs(words, SEED)):
            for one, number, at in self._seeds.get(seed, ()):
                if (one.id, number, here - at) in seen:
                    continue
                seen.add((one.id, number, here - at))
                part = one.parts[number]
                first, last = _extended(words, part, here, at)
                run = words[first:last]
                if run == one.stem and _stands_alone(folded, first, last):
                    whole = self._meant(one, folded)
                    if whole is not None:
                        yield Overlap(whole.id, "same question", _beginning(whole.text), 1.0)
                        continue
                enough = self.settings.words
                if number == 0:
                    enough = min(enough, len(part))
                if len(run) >= enough and self._is_own(run) and one.numbers <= present:
                    share = len(run) / sum(map(len, one.parts))
                    yield Overlap(one.id, "shared words", " ".join(run), share)

    def _near_repeats(self, words: Words) -> Iterator[Overlap]:
        """The questions of which the text has enough of their rare runs of three words."""
        present = Counter(words)
        held: Counter[str] = Counter()
        by_id: dict[str, _Question] = {}
        for triple in set(_runs(words, 3)):
            for one in self._near.get(triple, ()):
                held[one.id] += 1
                by_id[one.id] = one
        for id, n in held.items():
            share = n / self._near_size[id]
            if share >= self.settings.similarity and by_id[id].numbers <= present:
                yield Overlap(id, "near repeat", _beginning(by_id[id].text), share)

    def _is_own(self, run: Words) -> bool:
        """Whether at least half of a run's three-word runs are rare among the test questions."""
        triples = list(_runs(run, 3))
        return 2 * sum(triple in self._rare for triple in triples) >= len(triples)

    def _meant(self, one: _Question, folded: str) -> _Question | None:
        """Which of the test questions with the words of this one is quoted, by the options."""
        return one if self._with_stem[one.stem] == 1 else self._with_options(one.stem, folded)

    def _with_options(self, stem: Words, folded: str) -> _Question | None:
        """The test question of these words and of the options that the text has."""
        labels = _options(folded)
        end = folded.find("\n", labels[-1][1]) if labels else -1  # of the last option's line
        _, *options = self._parts(folded if end < 0 else folded[:end])
        return self._whole.get((stem, *options))

    def _parts(self, folded: str) -> tuple[Words, ...]:
        """The words before the options, and the words of each option, sorted."""
        cuts = [(0, 0), *_options(folded), (len(folded), len(folded))]
        stem, *options = (self._words(folded[start:end]) for (_, start), (end, _) in pairwise(cuts))
        return (stem, *sorted(options))

    def _words(self, folded: str) -> Words:
        words = _WORD.findall(folded)
        if self.settings.other_numbers:
            return tuple("0" if word[0].isdigit() else word for word in words)
        return tuple(words)


def _folded(text: str) -> str:
    """Text without letter case, compatibility forms, thousands separators, inner apostrophes."""
    folded = unicodedata.normalize("NFKC", text).casefold().translate(_DASHES)
    return _WITHIN.sub("", folded)


def _options(folded: str) -> list[tuple[int, int]]:
    """Where the labels (a), (b) ... or (1), (2) ... begin and end; none where it is only one."""
    found: list[tuple[int, int]] = []
    wanted = ""
    for match in _OPTION.finditer(folded):
        label = match[1] or match[2]
        if label == wanted or (not found and label in "a1"):
            found.append(match.span())
            wanted = chr(ord(label) + 1)
    return found if len(found) > 1 else []


def _extended(words: Words, part: Words, here: int, at: int) -> tuple[int, int]:
    """The longest run of `words` around `here` that `part` has around `at`: first, behind last."""
    first = here
    while first > 0 and first > here - at and words[first - 1] == part[first - 1 - here + at]:
        first -= 1
    last = here
    end = min(len(words), here - at + len(part))
    while last < end and words[last] == part[last - here + at]:
        last += 1
    return first, last


def _is_short(stem: Words) -> bool:
    """Whether a question has too few words for a run, but is no mere word like "Why?"."""
    return 1 < len(stem) < SEED or (len(stem) == 1 and len(stem[0]) >= SEED)


def _cuts(folded: str) -> list[int]:
    """Before which words sentences and quotations begin, and the number of words."""
    cuts, count, end = [0], 0, 0
    for count, word in enumerate(_WORD.finditer(folded)):
        if count and _BETWEEN.search(folded, end, word.start()):
            cuts.append(count)
        end = word.end()
    return [*cuts, count + 1] if end else cuts


def _stands_alone(folded: str, first: int, last: int) -> bool:
    """Whether sentences end where a quotation begins and ends, given as places of words.

    "Sort: pear plum" is not quoted by "Sort: pear plum apple".
    """
    spans = [match.span() for match in _WORD.finditer(folded)]
    before = folded[spans[first - 1][1] : spans[first][0]] if first else "\n"
    after = folded[spans[last - 1][1] : spans[last][0]] if last < len(spans) else "\n"
    return bool(_BETWEEN.search(before) and _BETWEEN.search(after))


def _runs(words: Words, n: int) -> Iterator[Words]:
    """All runs of n words."""
    return zip(*(words[i:] for i in range(n)), strict=False)


def _beginning(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
