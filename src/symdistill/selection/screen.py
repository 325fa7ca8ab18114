"""The screen: marks lines that a person should look at before they are passed on.

Takes lines with their ids, texts and, where there is one, the critic's score; gives a flag for
each find: personal data by its form (`personal_data`), statements that demean a group of people,
calls for violence, self-harm, dangerous advice and slurs by a small lexicon of our own
(`data/screen/english.yaml`), and lines of which the critic itself is in doubt. Pure rules: no
model, no network. Costs about 0.1 milliseconds for a line of ten words.

A flag is a reason to look, not a verdict: a marked line may be right and harmless, and a line
without a mark was not shown to be either. The lexicon is English, knows plain wording only, and
reads one sentence at a time. How much it finds and misses: docs/after_the_fact.md.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from symdistill.config import Settings
from symdistill.errors import InputError
from symdistill.records import Verdict, content_hash
from symdistill.selection.personal_data import Span, personal_data

JUDGE = "screen"
REASONS = " | "  # between the reasons of one line
SHOWN = 50  # lines of a review list in metrics.json and the report; the table has all
Kind = Literal["personal data", "harm", "stereotype", "phrase", "doubt"]
Share = Annotated[float, Field(ge=0, le=1)]


class ScreenSettings(Settings):
    """Which lines are marked for a person to look at."""

    action: Literal["mark", "refuse"] = "mark"
    """mark: marked lines are kept and listed in tables/review.parquet. refuse: selection refuses
    them; a line of which only the critic is in doubt is marked all the same."""

    personal_data: bool = True
    """E-mail, street and IP addresses, telephone, card, account and social security numbers, dates
    of birth."""

    harm: bool = True
    """Calls for violence, self-harm, sexual abuse, dangerous advice, slurs."""

    stereotypes: bool = True
    """Groups of people that are said to be, or to do, what demeans them."""

    doubtful: tuple[Share, Share] | None = (0.45, 0.55)
    """The critic is in doubt: its score is at least the first and below the second; null: off."""

    phone_regions: tuple[str, ...] = ("US", "GB")
    """Countries (ISO 3166, two letters) whose telephone numbers are found without +NN, too."""

    phrases: str | None = None
    """A text file of further phrases, one per line, that mark a line; `#` begins a comment."""

    @field_validator("doubtful")
    @classmethod
    def _rises(cls, pair: tuple[float, float] | None) -> tuple[float, float] | None:
        if pair is not None and pair[0] > pair[1]:
            raise ValueError("expected the lower score first")
        return pair

    @field_validator("phone_regions")
    @classmethod
    def _are_countries(cls, regions: tuple[str, ...]) -> tuple[str, ...]:
        for one in regions:
            if not re.fullmatch("[A-Z]{2}", one):
                raise ValueError(
                    f"expected two capital letters such as US for a country, not {one!r}"
                )
        return regions


@dataclass(frozen=True, slots=True)
class ScreenedLine:
    """What the screen reads of a line."""

    id: str
    text: str
    score: float | None = None  # the critic's, 0..1


@dataclass(frozen=True, slots=True)
class Flag:
    """One reason to look at a line: a rule's name, a colon, and what it found."""

    line_id: str
    kind: Kind
    reason: str
    span: Span  # characters of the text, from and to
    score: float | None = None  # the critic's, where there was one

    @property
    def rule(self) -> str:
        """The rule that made the flag."""
        return self.reason.partition(":")[0]


class Screen:
    """The rules that some settings switch on."""

    def __init__(self, settings: ScreenSettings) -> None:
        """`settings`: which rules.

        Raises:
            InputError: the file of further phrases cannot be read.
        """
        self.settings = settings
        self._phrases = _phrases_of(settings.phrases) if settings.phrases else ()

    @cached_property
    def fingerprint(self) -> str:
        """Of the settings and the word lists: what the flags depend on beside the lines."""
        phrases = {"phrases": [one.pattern for one in self._phrases]}
        return content_hash([self.settings.identity() | phrases, _lexicon_text()], 64)

    def flags(self, line: ScreenedLine) -> list[Flag]:
        """Every reason to look at a line, in the order of where they stand; none: no mark."""
        found = [
            Flag(line.id, kind, f"{rule}: {_quoted(line.text[slice(*span)])}", span, line.score)
            for kind, rule, span in self._found(line)
        ]
        return [*sorted(found, key=lambda flag: (flag.span, flag.rule)), *self._doubt(line)]

    def reviews(self, lines: Iterable[ScreenedLine], *, round: int = 0) -> Iterator[Verdict]:
        """A verdict of score 0 for each line with a flag, with all its reasons.

        Lines without one are left out: that nothing was found is no judgement of them.
        """
        for line in lines:
            if flags := self.flags(line):
                reason = REASONS.join(flag.reason for flag in flags)
                yield Verdict(line.id, JUDGE, 0.0, reason=reason, round=round)

    def refusals(self, lines: Iterable[ScreenedLine]) -> dict[str, str]:
        """By id, why `action: refuse` refuses a line; the critic's own doubt refuses nothing."""
        found: dict[str, str] = {}
        for line in lines:
            if reasons := [one.reason for one in self.flags(line) if one.kind != "doubt"]:
                found[line.id] = f"{JUDGE}: {REASONS.join(reasons)}"
        return found

    def _found(self, line: ScreenedLine) -> Iterator[tuple[Kind, str, Span]]:
        text, wanted = line.text, self.settings
        if wanted.personal_data:
            for rule, span in personal_data(text, wanted.phone_regions):
                yield "personal data", rule, span
        yield from lexicon().found(text, harm=wanted.harm, stereotypes=wanted.stereotypes)
        for phrase in self._phrases:
            if found := phrase.search(text):
                yield "phrase", "phrase", found.span()

    def _doubt(self, line: ScreenedLine) -> list[Flag]:
        between, score = self.settings.doubtful, line.score
        if between is None or score is None or not between[0] <= score < between[1]:
            return []
        reason = f"doubt: the critic's score is {score:.3f}"
        return [Flag(line.id, "doubt", reason, (0, len(line.text)), score)]


def screen(lines: Iterable[ScreenedLine], settings: ScreenSettings) -> list[Flag]:
    """The flags of lines, in the order of the lines.

    Raises:
        InputError: the file of further phrases cannot be read.
    """
    rules = Screen(settings)
    return [flag for line in lines for flag in rules.flags(line)]


def review_figures(
    marked: Iterable[Verdict], *, screened: int, texts: Mapping[str, str]
) -> dict[str, Any]:
    """What `metrics.json` says of a review list: counts by rule, and the first lines.

    Args:
        marked: the list, from `Screen.reviews`.
        screened: lines that the screen read.
        texts: by id; of what is not in it, no line is shown.
    """
    rules: Counter[str] = Counter()
    shown: list[dict[str, Any]] = []
    count = 0
    for one in marked:
        count += 1
        rules.update({part.partition(":")[0] for part in one.reason.split(REASONS)})
        if len(shown) < SHOWN and one.knowledge_id in texts:
            shown.append({"id": one.knowledge_id, "text": texts[one.knowledge_id],
                          "reason": one.reason, "round": one.round})  # fmt: skip
    by_rule = dict(sorted(rules.items(), key=lambda one: (-one[1], one[0])))
    return {"screened": screened, "marked": count, "rules": by_rule, "lines": shown}


# ------------------------------------------------------------------------------------- the lexicon


@dataclass(frozen=True)
class _Pattern:
    """One rule of the lexicon."""

    rule: str
    kind: Kind
    pattern: re.Pattern[str]
    unless: re.Pattern[str] | None


class Lexicon:
    """The packaged rules for statements that harm or demean."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        people = (
            f"(?:{_any(data['groups'])}|(?:{_any(data['attributes'])}) "
            f"(?:{_any(data['general_words'])}))"
        )
        lists = {
            "people": people,
            **{
                name: f"(?:{_any(data[source])})"
                for name, source in (("trait", "traits"), ("deed", "deeds"), ("harmed", "harmed"))
            },
        }
        self._patterns = tuple(
            _Pattern(
                rule=one["rule"],
                kind=one["kind"],
                pattern=_compiled(one["pattern"].format_map(lists)),
                unless=_compiled(_any(data[one["unless"]])) if "unless" in one else None,
            )
            for one in data["patterns"]
        )
        self._slurs = frozenset(data["slurs"])

    def found(
        self, text: str, *, harm: bool = True, stereotypes: bool = True
    ) -> Iterator[tuple[Kind, str, Span]]:
        """The kind, the rule and the place of each find; a rule is told once a text."""
        told: set[str] = set()
        for one in self._patterns:
            if one.rule in told or not (stereotypes if one.kind == "stereotype" else harm):
                continue
            found = one.pattern.search(text)
            if found and not (one.unless and one.unless.search(text)):
                told.add(one.rule)
                yield one.kind, one.rule, found.span()
        if harm:
            for word in re.finditer(r"\w+", text):
                if self._is_slur(word.group().casefold()):
                    yield "harm", "slur", word.span()
                    return

    def _is_slur(self, word: str) -> bool:
        stems = {word, word.removesuffix("s")}
        return any(hashlib.sha256(one.encode()).hexdigest()[:16] in self._slurs for one in stems)


@cache
def lexicon() -> Lexicon:
    """The packaged lexicon."""
    from ruamel.yaml import YAML

    return Lexicon(YAML(typ="safe", pure=True).load(_lexicon_text()))


@cache
def _lexicon_text() -> str:
    return (files("symdistill") / "data" / "screen" / "english.yaml").read_text(encoding="utf-8")


def _quoted(found: str) -> str:
    """What was found as it stands in a reason: on one line, nothing that separates reasons."""
    return f"“{' '.join(found.split()).replace('|', '¦')}”"


def _any(alternatives: Iterable[str]) -> str:
    return "|".join(alternatives)


def _compiled(pattern: str) -> re.Pattern[str]:
    spaced = re.sub(r" (?!\?)", r"\\s+", pattern)
    return re.compile(rf"(?<!\w)(?:{spaced})(?!\w)", re.IGNORECASE)


def _phrases_of(path: str) -> tuple[re.Pattern[str], ...]:
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"expected a readable list of phrases at {path}; got: {error}; check screen.phrases in "
            "the configuration"
        ) from error
    phrases = [" ".join(line.split()) for line in lines]
    return tuple(
        _compiled(re.escape(phrase).replace(r"\ ", " "))
        for phrase in phrases
        if phrase and not phrase.startswith("#")
    )
