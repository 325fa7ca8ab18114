"""The settings of the recipe `i2d2`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from symdistill.config import Config, Count, Settings
from symdistill.recipes._judging import CriticSettings, IndependentJudgeSettings
from symdistill.selection import ScreenSettings, SelectionSettings
from symdistill.students import SFTSettings
from symdistill.teachers import Sampling


class ConceptSettings(Settings):
    """What the generator is asked about."""

    source: str = "everyday"
    """"everyday" (the packaged list), a text file with one concept per line, a .jsonl or .parquet
    file, or hf:NAME[:split] (a `datasets` id)."""

    limit: Annotated[Count, Field(ge=1)] | None = None
    """Take this many, drawn by the seed; null takes all."""

    text_column: str = "text"
    """The column that holds the concept, in files with columns."""


class PromptSettings(Settings):
    """How concepts become beginnings of statements."""

    grammar: str = "everyday"
    """"everyday" (the packaged patterns) or a YAML file like it."""

    per_concept: Annotated[Count, Field(ge=1)] = 6
    """Prompts kept per concept: those of lowest perplexity under the untouched model."""

    samples: Annotated[Count, Field(ge=1)] = 2
    """Continuations drawn per prompt and round."""


class ConstraintSettings(Settings):
    """What a continuation may not say; enforced exactly while decoding."""

    enforce: bool = True
    """false: plain sampling."""

    max_function_words: Annotated[Count, Field(ge=0)] | None = 1
    """At most this many words of the function-word list; null: no limit."""

    function_words: str = "everyday"
    """"everyday" (the packaged list) or a text file with one phrase per line."""

    connectives: str | None = "everyday"
    """Phrases that never occur: "everyday", a text file, or null for none."""

    repeat_prompt: bool = False
    """Whether the prompt's concept and relational phrase may come again."""


class I2D2Config(Config):
    """The configuration of the recipe `i2d2`."""

    recipe: Literal["i2d2"] = "i2d2"
    """The recipe that reads this file."""

    model: str = "embedded:smollm2"
    """The generator, its own teacher: embedded:NAME, a folder, or a hub id with @revision."""

    concepts: ConceptSettings = ConceptSettings()
    prompts: PromptSettings = PromptSettings()
    constraints: ConstraintSettings = ConstraintSettings()
    sampling: Sampling = Sampling()

    batch_size: Annotated[Count, Field(ge=1)] = 64
    """Texts per forward pass."""

    critic: CriticSettings = CriticSettings()
    judge: IndependentJudgeSettings | None = IndependentJudgeSettings()
    """null: no second opinion."""

    swaps: Annotated[Count, Field(ge=0)] = 3
    """Other concepts put into each line to measure how much it says about its own."""

    selection: SelectionSettings = SelectionSettings()

    screen: ScreenSettings | None = ScreenSettings()
    """null: no line is marked for review."""

    rounds: Annotated[Count, Field(ge=0)] = 2
    """Self-imitation rounds after round 0."""

    self_imitation: bool = True
    """false: every round decodes with the untouched model (a control)."""

    replay_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight in training of lines kept in earlier rounds; those of the last round have 1."""

    student: SFTSettings = SFTSettings()
    """How each round's student is trained."""
