"""The configuration of the recipe `scotd`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from symdistill.config import Config, Count, Settings
from symdistill.selection import ScreenSettings
from symdistill.selection.contamination import ContaminationSettings
from symdistill.selection.rationales import Strategy
from symdistill.sources.problems import ProblemColumns
from symdistill.students import SFTSettings
from symdistill.students.reasoning_views import Objective, ReasoningFormat
from symdistill.teachers import TeacherSettings
from symdistill.teachers.base import Decoding

Share = Annotated[float, Field(ge=0, le=1)]
Keep = Literal["all", "right", "majority", "agreeing", "recovered"]


class ProblemSettings(Settings):
    """The questions, and which of them are kept for the test."""

    source: str = "arithmetic"
    """A .jsonl, .csv or .parquet file, or a packaged set: "arithmetic", "last_letters",
    "shuffled_objects"."""

    columns: ProblemColumns = ProblemColumns()

    limit: Annotated[Count, Field(ge=1)] | None = None
    """Train on this many questions, drawn by the seed; null: all."""

    test: str | None = None
    """A file (or packaged set) of test questions with the same columns; null: the rows of `source`
    whose split is "test", or else `test_share` of it."""

    test_share: Share = 0.2
    """Share of the questions held out for the test where nothing else says which."""

    test_limit: Annotated[Count, Field(ge=1)] | None = None
    """Test on this many questions, drawn by the seed; null: all."""


class ChainDecoding(Decoding):
    """How chains are written. The paper: temperature 1, up to 256 tokens, a blank line ends one."""

    temperature: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Divides the logits; 0 takes the likeliest token each time."""

    max_new_tokens: Count = Field(256, ge=1)
    """A chain that has not ended by then is cut off; also what a budget reserves."""

    stop: tuple[str, ...] = ("\n\n",)
    """Texts at which a chain ends; they are not part of it. Chat models need none: []."""

    top_logprobs: Count | None = Field(0, ge=0, le=20)
    """0 keeps each token's log-probability, which the filter `likelihood` needs; null: none, for
    servers that give none."""


class ReasoningTraining(SFTSettings):
    """How a student is trained; rows are longer than statements."""

    max_length_tokens: Annotated[Count, Field(ge=3)] = 512
    """Longest row, question and chain and end of text together; longer chains are left out."""


class RationaleSettings(Settings):
    """What a teacher is asked about each question."""

    samples: Annotated[Count, Field(ge=1)] = 10
    """Chains drawn for each question (the paper: 30). More of them never redraws the first."""

    shots: str | None = "arithmetic"
    """Worked examples before the question: JSON Lines {question, rationale, answer[, choices]},
    or "arithmetic" (packaged); null: none, as for a recorded teacher."""

    max_shots: Annotated[Count, Field(ge=1)] | None = None
    """At most this many of them, the first; null: all."""

    instruction: str = ""
    """What a chat teacher is told first. Without shots: ask it to end with the format's
    delimiter and the answer."""

    decoding: ChainDecoding = ChainDecoding()


class RecoverySettings(Settings):
    """A language model that must find the right answer from a chain that does not state it."""

    model: TeacherSettings = TeacherSettings(model="local:embedded:smollm2", api="completions")

    shots: str | None = "arithmetic"
    """Worked examples, as in `rationales.shots`."""

    max_new_tokens: Annotated[Count, Field(ge=1)] = 16


class FilterSettings(Settings):
    """Which chains a student may learn from."""

    keep: Keep = "right"
    """right: the answer is the gold one. majority: it is the question's most frequent answer
    (needs no gold). agreeing: another teacher's most frequent answer is the same (needs no gold).
    recovered: right, and `recovery` finds the answer from the chain. all: every chain with an
    answer."""

    confidence: Share = 0.6
    """For `majority`: the least share of a question's answers that agree."""

    strategy: Strategy = "all"
    """Which of these are kept: all, or as many of each question by chance (random), from clusters
    (diversity), the likeliest (likelihood), or more of open questions (open_endedness)."""

    per_question: Annotated[Count, Field(ge=1)] | None = None
    """How many chains of a question are kept on average (the paper's comparison: 5); every
    strategy keeps as many in all. null: no limit, with strategy `all`."""

    recovery: RecoverySettings = RecoverySettings()

    @model_validator(mode="after")
    def _has_its_number(self) -> FilterSettings:
        if (self.strategy == "all") != (self.per_question is None):
            needs = "no per_question" if self.strategy == "all" else "per_question"
            raise ValueError(f"expected {needs} with strategy {self.strategy}")
        return self


class ArmSettings(Settings):
    """One way to train on the same chains."""

    objective: Objective = "scotd"
    """What a student reads and writes: see docs/objectives.md."""

    labels: Literal["gold", "teacher"] = "gold"
    """Whose answers an answer-only student learns."""

    visits: Literal["groups", "rows"] = "groups"
    """groups: an epoch visits each question once and draws one of its chains (as the published
    configuration does); rows: an epoch reads every chain once."""

    answer_weight: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of the answer's part in the loss, for objectives of two parts."""


class StudentSettings(Settings):
    """The students: what they are made from, how they are trained, how they answer."""

    model: str = "embedded:smollm2"
    """A model name: embedded:NAME, a folder, or a hub id with @revision."""

    arms: dict[str, ArmSettings] = Field(
        default_factory=lambda: {
            "scotd": ArmSettings(),
            "one_chain": ArmSettings(objective="one_chain"),
            "answer_only": ArmSettings(objective="answer_only"),
        }
    )
    """The students by name. The first is the one that `symdistill answer` asks."""

    untrained: bool = True
    """Ask the model before any training, too."""

    training_seeds: tuple[Annotated[Count, Field(ge=0)], ...] = (0,)
    """Each student is trained once with each of these."""

    training: ReasoningTraining = ReasoningTraining()

    max_new_tokens: Annotated[Count, Field(ge=1)] = 256
    """Of an answer; it is written greedily."""

    vote: Count = Field(0, ge=0)
    """Draw this many answers of each question beside the greedy one, and take the most frequent
    (self-consistency; the paper: 30). It helps students of many unfiltered chains. 0: none."""

    vote_temperature: Annotated[float, Field(gt=0)] = 0.7

    @field_validator("arms")
    @classmethod
    def _are_there(cls, arms: dict[str, ArmSettings]) -> dict[str, ArmSettings]:
        if not arms:
            raise ValueError("expected at least one arm; student: null trains none")
        if "untrained" in arms:
            raise ValueError("expected another name than 'untrained', which is the model before")
        return arms

    @field_validator("training_seeds")
    @classmethod
    def _differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds or len(set(seeds)) < len(seeds):
            raise ValueError("expected at least one training seed, each once")
        return seeds


class ScotdConfig(Config):
    """The configuration of the recipe `scotd`."""

    recipe: Literal["scotd"] = "scotd"
    """The recipe that reads this file."""

    problems: ProblemSettings = ProblemSettings()
    format: ReasoningFormat = ReasoningFormat()
    teacher: TeacherSettings = TeacherSettings(model="local:embedded:smollm2", api="completions")

    more_teachers: dict[str, TeacherSettings] = Field(default_factory=dict)
    """Further teachers by name, asked the same questions and set beside the first in the report."""

    train_on: tuple[str, ...] = ("teacher",)
    """Whose chains the students learn: "teacher", or names of `more_teachers`."""

    rationales: RationaleSettings = RationaleSettings()
    filter: FilterSettings = FilterSettings()

    decontaminate: ContaminationSettings = ContaminationSettings()

    screen: ScreenSettings = ScreenSettings()

    perplexity_under: str | None = "embedded:smollm2"
    """A model whose perplexity of every chain stands in the corpus report; null: none."""

    student: StudentSettings | None = StudentSettings()
    """null: no students, the corpus alone."""

    primary: tuple[str, str] | None = None
    """The one comparison that was decided on beforehand, as two arms; every other is exploratory.
    null: the first arm against the last."""

    @model_validator(mode="after")
    def _names_what_is_there(self) -> ScotdConfig:
        if "teacher" in self.more_teachers:
            raise ValueError("expected other names than 'teacher' in more_teachers")
        teachers = ["teacher", *self.more_teachers]
        for name in self.train_on:
            if name not in teachers:
                raise ValueError(f"expected train_on among {', '.join(teachers)}, not {name!r}")
        if not self.train_on:
            raise ValueError("expected at least one teacher in train_on")
        if self.filter.keep == "agreeing" and len(teachers) < 2:
            raise ValueError("expected more_teachers with filter.keep: agreeing")
        if self.filter.strategy == "likelihood" and self.rationales.decoding.top_logprobs is None:
            raise ValueError(
                "expected rationales.decoding.top_logprobs: 0 with strategy likelihood"
            )
        if self.primary and len(set(self.primary)) < 2:
            raise ValueError("expected two different arms in primary")
        arms = list(self.student.arms) if self.student else []
        for name in self.primary or ():
            if name not in arms:
                raise ValueError(f"expected primary among {', '.join(arms) or 'no arms'}")
        return self

    @property
    def teachers(self) -> dict[str, TeacherSettings]:
        """All teachers by name."""
        return {"teacher": self.teacher, **self.more_teachers}
