"""The configuration of the recipe `skd`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from symdistill.config import Config, Count, Settings
from symdistill.critic import EncoderSettings, JudgeSettings
from symdistill.selection import ScreenSettings
from symdistill.students import SFTSettings
from symdistill.teachers import TeacherSettings
from symdistill.teachers.base import Decoding

Share = Annotated[float, Field(ge=0, le=1)]
UNFILTERED = "unfiltered"


class HeadSettings(Settings):
    """Where the heads come from: a teacher that goes on with a list of seeds, or a file."""

    source: str | None = None
    """A file of heads (.txt, one a line; or a table with a column `head`); null: the teacher
    writes them."""

    seeds: str = "events"
    """"events" (100 packaged ones) or a text file with one a line."""

    label: str = "Event"
    """What stands before each of them in the prompt."""

    per_prompt: Annotated[Count, Field(ge=1)] = 10
    """Seeds in a prompt, drawn anew for each sample."""

    samples: Annotated[Count, Field(ge=1)] = 100
    """Heads asked for."""

    decoding: Decoding = Decoding(
        temperature=1.0, top_p=0.9, max_new_tokens=16, stop=("\n",), top_logprobs=0
    )

    accept: str = "PersonX "
    """A regular expression that a head begins with."""

    characters: str = r"[A-Za-z0-9 ,.'’$%&-]"
    """A regular expression that every character of a head fits."""

    rank: Literal["sum", "mean"] | None = "sum"
    """Log-probability by which heads are ranked: summed over their tokens (as the published code
    does, which favours short ones), or the mean; null: not ranked."""

    drop_worst: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the ranked heads that is dropped."""

    limit: Annotated[Count, Field(ge=1)] | None = None
    """At most this many heads: the best, or the first of a file."""

    @field_validator("accept", "characters")
    @classmethod
    def _is_an_expression(cls, text: str) -> str:
        try:
            re.compile(text)
        except re.error as error:
            raise ValueError(f"expected a regular expression: {error}") from error
        return text


class InferenceSettings(Settings):
    """What is asked about each head."""

    relations: str = "events"
    """"events" (seven packaged ones) or a YAML file like it."""

    use: tuple[str, ...] | None = None
    """Names of relations to ask for; null: all."""

    shots: Annotated[Count, Field(ge=0)] = 5
    """Examples in a prompt."""

    samples: Annotated[Count, Field(ge=1)] = 10
    """Inferences drawn for each head and relation."""

    decoding: Decoding = Decoding(temperature=1.0, top_p=0.5, max_new_tokens=16, stop=("\n",))

    min_characters: Annotated[Count, Field(ge=1)] = 3
    """Shorter tails are refused."""

    teacher: TeacherSettings | None = None
    """null: the one that writes the heads."""


class SplitSettings(Settings):
    """Shares of the heads; the rest is for training. Heads with labels are always for training."""

    validation: Share = 0.1
    """Kept apart for whoever trains on the corpus; nothing here reads it."""

    test: Share = 0.1
    """On these the students are compared with their teacher."""

    @model_validator(mode="after")
    def _leaves_some(self) -> SplitSettings:
        if self.validation + self.test >= 1:
            raise ValueError("expected validation and test to leave heads for training")
        return self


class Level(Settings):
    """A filter level: the loosest cut of the critic's score that reaches a precision, or a recall.

    Both are those of labelled lines that neither trained the critic nor chose its epoch.
    """

    name: str = Field(min_length=1)
    precision: Annotated[float, Field(gt=0, le=1)] | None = None
    recall: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _has_one_aim(self) -> Level:
        if (self.precision is None) == (self.recall is None):
            raise ValueError("expected either precision or recall")
        if self.name == UNFILTERED:
            raise ValueError(f"expected another name than {UNFILTERED!r}, which keeps everything")
        return self


class TripleCriticSettings(Settings):
    """The critic that scores every triple, and its filter levels."""

    encoder: str = "embedded:minilm"
    """A model name: embedded:NAME, a folder, or a hub id with @revision."""

    labels: str = "events"
    """Labelled triples, JSON Lines {head, relation, tail, label[, split]}: "events" (packaged,
    read by a language model) or a file."""

    reads: Literal["sentence", "pair"] = "sentence"
    """sentence: the verbalised triple; pair: head and inference as premise and hypothesis."""

    passes: Annotated[Count, Field(ge=1)] = 3
    """A score is the mean over so many pairs of names for PersonX and PersonY."""

    levels: tuple[Level, ...] = (Level(name="medium", recall=0.8), Level(name="high", recall=0.5))

    training: EncoderSettings = EncoderSettings()
    """How the encoder is fine-tuned."""

    @field_validator("levels")
    @classmethod
    def _have_names(cls, levels: tuple[Level, ...]) -> tuple[Level, ...]:
        if len({one.name for one in levels}) < len(levels):
            raise ValueError("expected levels with different names")
        return levels


class TripleJudgeSettings(Settings):
    """A judge of a second kind, trained on other labels: it rates students and teacher."""

    model: str = "embedded:smollm2"
    """A causal language model whose hidden states are read."""

    training: JudgeSettings = JudgeSettings()
    """How it is fitted."""


class StudentSettings(Settings):
    """The students, one per filter level."""

    model: str = "embedded:smollm2"
    """What each is fine-tuned from."""

    levels: tuple[str, ...] | None = None
    """Names of levels that get a student ("unfiltered" is one); null: all."""

    prompt: str = "<head> {head} <relation> {relation} [GEN]"
    """What a student reads; it writes the tail. {head} and {relation} (its name), or {opening}: the
    relation's sentence as far as the tail, which a small student with few rows takes to sooner."""

    max_new_tokens: Annotated[Count, Field(ge=1)] = 16
    """Of a tail; it is written greedily."""

    training: SFTSettings = SFTSettings()
    """How each is trained."""

    @field_validator("prompt")
    @classmethod
    def _says_both(cls, text: str) -> str:
        if "{opening}" not in text and not ("{head}" in text and "{relation}" in text):
            raise ValueError("expected {head} and {relation}, or {opening}, in prompt")
        return text


class SKDConfig(Config):
    """The configuration of the recipe `skd`."""

    recipe: Literal["skd"] = "skd"
    """The recipe that reads this file."""

    teacher: TeacherSettings = TeacherSettings(model="local:embedded:smollm2", api="completions")
    heads: HeadSettings = HeadSettings()
    inferences: InferenceSettings = InferenceSettings()
    split: SplitSettings = SplitSettings()

    critic: TripleCriticSettings | None = TripleCriticSettings()
    """null: everything is kept, unjudged."""

    judge: TripleJudgeSettings | None = TripleJudgeSettings()
    """null: students are not rated; needs the critic's labels."""

    screen: ScreenSettings = ScreenSettings()

    student: StudentSettings | None = StudentSettings()
    """null: no students."""
