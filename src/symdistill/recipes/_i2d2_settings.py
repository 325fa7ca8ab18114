"""The settings of the recipe `i2d2`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from symdistill.config import Config, Count, Settings
from symdistill.recipes._judging import CriticSettings, IndependentJudgeSettings
from symdistill.selection import ScreenSettings, SelectionSettings
from symdistill.students import SFTSettings
from symdistill.teachers import Sampling
from symdistill.teachers.local import Search


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
    """Continuations per prompt and round: drawn, or the best of a search."""


class RelatedSettings(Settings):
    """Concepts related to a concept, as its source names them (`related`), in lines about it."""

    use: bool = False
    """Whether each prompt is asked again for each of them, with it forced into the line. Only
    `decoding: neurologic` forces it; of sampled lines those without it are refused."""

    per_concept: Annotated[Count, Field(ge=1)] = 2
    """The first this many of a concept's related concepts."""


class ConstraintSettings(Settings):
    """What a continuation may not say; enforced exactly while decoding."""

    enforce: bool = True
    """false: no such rule; related concepts are still asked for."""

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
    related: RelatedSettings = RelatedSettings()
    constraints: ConstraintSettings = ConstraintSettings()

    decoding: Literal["sampling", "neurologic"] = "sampling"
    """Whether lines are drawn, as `sampling` says, or the likeliest found, as `search` says."""

    sampling: Sampling = Sampling()
    search: Search = Search()

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

    @property
    def writing(self) -> Sampling | Search:
        """The settings by which lines are written."""
        return self.search if self.decoding == "neurologic" else self.sampling

    @model_validator(mode="after")
    def _search_finds_enough(self) -> I2D2Config:
        if self.decoding == "neurologic" and self.prompts.samples > self.search.num_beams:
            raise ValueError(
                f"expected prompts.samples of at most search.num_beams ({self.search.num_beams}), "
                f"the texts that a search ends with; got {self.prompts.samples}"
            )
        return self
