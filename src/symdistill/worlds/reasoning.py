"""A world of rules in which every step of a chain of thought can be checked by a program.

Takes a seed and sizes; gives a `ReasoningWorld`: creatures that become other creatures by what they
eat, questions that chain several of these rules, their true chains, a check of any chain, and a
noisy teacher that writes chains with faults of known rates. Costs milliseconds; needs no model.
The same seed and sizes give the same bytes.

    world = ReasoningWorld.draw(3)
    item = world.problems("test", 1)[0]
    item.text                               "A skemop eats first zuni, second braka. What colour is
                                            it now?", options red, blue, green, white
    world.true_chain(item)                  "First, zuni turns a skemop into a gluzel. Second, braka
                                            turns a gluzel into a rabek. A rabek is red. So the
                                            answer is (A)."
    world.check_steps(item, text).valid     whether the answer stands on true and linked steps

How a world is made
    Each food turns every creature into another one, no two into the same, and each creature has
    one of a few colours, each equally many: so the answer depends on every word of the question.
    The rules are no part of the question: they are world knowledge, which `corpus` tells. The
    options are the same everywhere, so that a small model need not learn to look up letters.
    Two creatures may have one colour: wrong steps often lead to the right answer.
    Every possible question belongs to one split, by its hash. The test questions have contrast
    twins (Gardner et al. 2020, https://arxiv.org/abs/2004.02709): the same question with one
    premise changed, and so another answer.

The grammar of chains
    First, zuni turns a skemop into a gluzel.      or the other of `CHANGES`; the ordinal may lack
    A rabek is red.                                or the other of `COLOURS`
    So the answer is (A).                          or another of `CONCLUSIONS`
    A chain is valid if its sentences are the question's steps, all of them, in their order, each
    true and each going on from where the one before arrived, and then the answer that the last
    step leads to. So an answer that is right for a wrong reason can be told.

What it does not do: questions with several valid chains, or teachers that believe what is false
(errors are drawn anew for each chain, so they cancel out over many).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from symdistill.answers import AnswerKind, canonical, choices_of, kind_of, letter, shown
from symdistill.datafiles import write_rows
from symdistill.errors import InputError
from symdistill.records import Item, content_hash
from symdistill.worlds.words import ONSETS, SUFFIXES, VOWELS

Split = Literal["train", "dev", "test"]
PAINTS = ("red", "blue", "green", "white", "black", "yellow", "brown", "pink")
SHARES = {"train": 0.5, "dev": 0.1, "test": 0.2, "contrast": 0.2}  # shares of all questions
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
CHANGES = ("{food} turns a {start} into a {end}.", "with {food} a {start} becomes a {end}.")
COLOURS = ("a {start} is {end}.", "the colour of a {start} is {end}.")
CONCLUSIONS = (
    "So the answer is {answer}.",
    "Therefore, the answer is {answer}.",
    "The answer is {answer}.",
)

_SLOTS = {slot: f"(?P<{slot}>[a-z]+)" for slot in ("start", "food", "end")}
_ORDINAL = f"(?:(?P<ordinal>{'|'.join(ORDINALS)}), )?"
_STEPS = tuple(
    re.compile(_ORDINAL * (one in CHANGES) + one.removesuffix(".").format(**_SLOTS), re.I)
    for one in (*CHANGES, *COLOURS)
)
_ANSWER = re.compile(r"(?:so |therefore,? )?the answer is:? +(.+)", re.I)
_QUESTION = re.compile(
    r"A ([a-z]+) eats ((?:[a-z]+ [a-z]+, )*[a-z]+ [a-z]+)\. What colour is it now\?"
)
_NEXT = re.compile(r"\n\s*(?:q|question):", re.I)
_BETWEEN = re.compile(r"(?<=[.!?])\s+|\s*\n\s*")


class Step(NamedTuple):
    """What one sentence of a chain says: what a food turns a creature into, or its colour."""

    start: str
    food: str  # "" where the sentence tells the colour
    end: str  # a creature, or a colour


@dataclass(frozen=True, slots=True)
class StepCheck:
    """What a program finds in a chain.

    Attributes:
        valid: every step is true, asked for and linked, and the answer is where the last arrives.
        answer_right: the answer stated last is the gold one.
        first_error: what is wrong first, "" in a valid chain.
    """

    valid: bool
    answer_right: bool
    first_error: str

    @property
    def lucky(self) -> bool:
        """The answer is right and the reason is not."""
        return self.answer_right and not self.valid


@dataclass(frozen=True)
class ReasoningWorld:
    """Creatures, foods and what they do. Make one with `ReasoningWorld.draw`.

    Attributes:
        seed: what it was drawn with.
        creatures: their names.
        foods: their names.
        colours: the options of every question; one over their number is chance.
        rules: by (creature, food), what the creature becomes; by (creature, ""), its colour.
        n_meals: how many foods questions have, each number as often.
    """

    seed: int
    creatures: tuple[str, ...]
    foods: tuple[str, ...]
    colours: tuple[str, ...]
    rules: Mapping[tuple[str, str], str]
    n_meals: tuple[int, ...]

    @classmethod
    def draw(
        cls,
        seed: int,
        *,
        n_creatures: int = 16,
        n_foods: int = 6,
        n_colours: int = 4,
        n_meals: Sequence[int] = (2, 3),
    ) -> ReasoningWorld:
        """A world drawn at random, of `n_creatures` x (`n_foods` + 1) rules.

        Args:
            seed: with the other arguments, decides everything.
            n_creatures: at least `n_colours`, and 3 to 200.
            n_foods: 2 to 50.
            n_colours: 2 to 8.
            n_meals: how many foods questions have, each 1 to 8.

        Raises:
            InputError: a parameter is out of its range.
        """
        _in_range("n_colours", n_colours, 2, len(PAINTS))
        _in_range("n_creatures", n_creatures, max(3, n_colours), 200)
        _in_range("n_foods", n_foods, 2, 50)
        if not n_meals:
            raise InputError("expected numbers of foods in n_meals; got none; give (2, 3)")
        for meals in n_meals:
            _in_range("n_meals", meals, 1, len(ORDINALS))
        rng = random.Random(f"reasoning world {seed}")
        creatures = _names(rng, n_creatures, SUFFIXES)
        foods = _names(rng, n_foods, [onset + vowel for onset in "dknptvz" for vowel in VOWELS])
        colours = PAINTS[:n_colours]
        rules = {}
        for food in foods:
            circle = rng.sample(creatures, n_creatures)  # no creature stays what it is
            for start, end in zip(circle, circle[1:] + circle[:1], strict=True):
                rules[start, food] = end
        for place, creature in enumerate(rng.sample(creatures, n_creatures)):
            rules[creature, ""] = colours[place % n_colours]
        return cls(seed, tuple(creatures), tuple(foods), colours, rules, tuple(n_meals))

    # -- questions ---------------------------------------------------------------------------

    def problems(self, split: Split, n: int, *, kind: AnswerKind = "choice") -> list[Item]:
        """The first n questions of a split; no split shares one with another.

        Args:
            split: whose.
            n: how many; the first of more are the same.
            kind: "choice", or "text" for open questions, whose answer is a colour.

        Raises:
            InputError: the split has no n questions, or the kind is another.
        """
        return [self._item(one, split, kind) for one in self._questions(split, n)]

    def contrasts(self, n: int, *, kind: AnswerKind = "choice") -> list[Item]:
        """Twins of the first n test questions; the field `contrast_of` names the question's id.

        Short questions have few twins, and about one in fifty has none.
        """
        twins: dict[tuple[str, ...], Item] = {}
        for premises in self._questions("test", n):
            twin = self._twin(premises, twins)
            if twin is not None:
                of = self._item(premises, "test", kind).id
                twins[twin] = self._item(twin, "test", kind, contrast_of=of)
        return list(twins.values())

    def _questions(self, split: Split, n: int) -> list[tuple[str, ...]]:
        """The premises of a split's first questions: a creature and what it eats, in order."""
        if split not in ("train", "dev", "test"):
            raise InputError(f"expected the split train, dev or test; got {split!r}; change it")
        rng = random.Random(f"{split} {self.seed}")
        seen: dict[tuple[str, ...], bool] = {}  # whether it is of the split
        found = 0
        for _ in range(1000 + 100 * n):
            if found == n:
                break
            premises = self._premises(rng)
            if premises not in seen:
                seen[premises] = self._split(premises) == split
                found += seen[premises]
        else:
            raise InputError(
                f"expected a world with {n} questions of the split {split}; got {found}; ask "
                "for fewer, or draw a world with more creatures, foods or meals"
            )
        return [premises for premises, is_of in seen.items() if is_of]

    def _premises(self, rng: random.Random) -> tuple[str, ...]:
        foods = [rng.choice(self.foods) for _ in range(rng.choice(self.n_meals))]
        return (rng.choice(self.creatures), *foods)

    def _train_premises(self, rng: random.Random) -> tuple[str, ...]:
        for _ in range(1000):
            premises = self._premises(rng)
            if self._split(premises) == "train":
                return premises
        raise InputError(
            f"expected a world with questions to train on; seed {self.seed} has none; draw one "
            "with more creatures, foods or meals"
        )

    def _split(self, premises: tuple[str, ...]) -> str:
        place = int(content_hash(["reasoning", self.seed, premises]), 16) / 16**16
        for split, share in SHARES.items():
            if place < share:
                return split
            place -= share
        return split

    def _twin(
        self, premises: tuple[str, ...], taken: Collection[tuple[str, ...]]
    ) -> tuple[str, ...] | None:
        """The premises with one changed, and so the answer; of those set apart for contrast."""
        others = [
            (*premises[:i], other, *premises[i + 1 :])
            for i in range(len(premises))
            for other in (self.foods if i else self.creatures)
        ]
        random.Random(f"twin {self.seed} {premises}").shuffle(others)
        right = self._path(premises)[-1].end
        for one in others:
            changed = self._path(one)[-1].end != right
            if changed and one not in taken and self._split(one) == "contrast":
                return one
        return None

    def _item(self, premises: Sequence[str], split: Split, kind: AnswerKind, **more: str) -> Item:
        if kind not in ("choice", "text"):
            raise InputError(f'expected the kind "choice" or "text"; got {kind!r}; change it')
        choices = list(self.colours) if kind == "choice" else []
        fields = {"answer_kind": kind, **({"choices": choices} if choices else {}), **more}
        gold = canonical(kind, self._path(premises)[-1].end, choices)
        return Item.make("question", _ask(premises), gold=gold, split=split, fields=fields)

    # -- truth -------------------------------------------------------------------------------

    def holds(self, step: Step) -> bool:
        """Whether a step is one of the world's rules."""
        return self.rules.get((step.start, step.food)) == step.end

    def solve(self, item: Item) -> tuple[list[Step], str]:
        """The true steps of a question, and its answer in canonical spelling.

        Raises:
            InputError: it is no question of this world.
        """
        steps = self._path(self._read(item.text))
        answer = canonical(kind_of(item), steps[-1].end, choices_of(item))
        if answer is None:
            raise InputError(
                f"expected the options {', '.join(self.colours)}; got "
                f"{', '.join(choices_of(item))}; ask a question of this world"
            )
        return steps, answer

    def true_chain(self, item: Item) -> str:
        """The solution in the first wording."""
        steps, answer = self.solve(item)
        said = [_say(step, 0, number) for number, step in enumerate(steps)]
        return " ".join([*said, CONCLUSIONS[0].format(answer=shown(item, answer))])

    def check_steps(self, item: Item, text: str) -> StepCheck:
        """Whether a chain is valid, whether its answer is right, and what is wrong first.

        What follows an invented next question ("Q: ...") is not looked at.
        """
        asked, right = self.solve(item)
        sentences = _sentences(text)
        found = [canonical(kind_of(item), said, choices_of(item)) for said in _answers(sentences)]
        answer = found[-1] if found else None
        error = self._first_error(item, asked, sentences, answer)
        return StepCheck(not error, answer == right, error)

    def _first_error(
        self, item: Item, asked: Sequence[Step], sentences: Sequence[str], answer: str | None
    ) -> str:
        at, done = asked[0].start, 0
        for number, sentence in enumerate(sentences, 1):
            if _ANSWER.fullmatch(sentence):
                if number < len(sentences):
                    return f"sentence {number + 1} follows the answer"
                break
            step, ordinal = _step(sentence)
            if step is None:
                return f"sentence {number} is no step: {sentence[:60]!r}"
            if ordinal and ORDINALS.index(ordinal) != done:
                return f"step {number} is called {ordinal}"
            if not self.holds(step):
                return f"step {number} is false: {sentence[:60]!r}"
            if done == len(asked) or step.food != asked[done].food:
                return f"step {number} is not asked for: {sentence[:60]!r}"
            if step.start != at:
                return f"step {number} is not linked: it begins at {step.start}, not at {at}"
            at, done = step.end, done + 1
        if done < len(asked):
            return f"it takes {done} of {len(asked)} steps"
        if answer is None:
            return "it gives no answer"
        if answer != canonical(kind_of(item), at, choices_of(item)):
            return f"the answer is {answer}, which is not where the steps lead"
        return ""

    def _read(self, text: str) -> tuple[str, ...]:
        found = _QUESTION.fullmatch(text.strip())
        if found is not None:
            premises = (found[1], *(one.split()[1] for one in found[2].split(", ")))
            known = premises[0] in self.creatures and all(one in self.foods for one in premises[1:])
            if known and _ask(premises) == text.strip():
                return premises
        raise InputError(
            f"expected a question of this world ({_ask((self.creatures[0], *self.foods[:2]))!r}); "
            f"got {text!r}; take it from problems()"
        )

    def _path(self, premises: Sequence[str]) -> list[Step]:
        """The true steps from the creature on: one for each food, and the colour."""
        at, path = premises[0], []
        for food in (*premises[1:], ""):
            path.append(Step(at, food, self.rules[at, food]))
            at = path[-1].end
        return path

    # -- text --------------------------------------------------------------------------------

    def corpus(self, n: int, *, seed: int = 0, known: float = 1.0) -> list[str]:
        """Texts for a language model to learn the world's words and rules from, never an answer.

        A third are rules, in all wordings. Half are questions of the train split, with their
        premises once more in order: to be read, not answered. The others tell the options.

        Args:
            n: how many; they are independent and may repeat.
            seed: another seed, other texts of the same world.
            known: share of the rules that are told (0..1).
        """
        _in_range("known", known, 0, 1)
        rng = random.Random(f"reasoning corpus {self.seed} {seed}")
        rules = sorted(Step(start, food, end) for (start, food), end in self.rules.items())
        told = random.Random(f"known {self.seed}").sample(rules, len(rules))
        told = told[: round(known * len(rules))]
        listed = " ".join(f"({letter(i)}) {one}" for i, one in enumerate(self.colours))
        texts: list[str] = []
        while len(texts) < n:
            kind = rng.random()
            if kind < 1 / 3:
                if told:
                    texts.append(_say(rng.choice(told), rng.randrange(2)))
                continue
            if kind < 1 / 2:
                place = rng.randrange(len(self.colours))
                answer = rng.choice(CONCLUSIONS).format(answer=f"({letter(place)})")
                texts.append(f"{listed} It is {self.colours[place]}. {answer}")
                continue
            premises = self._train_premises(rng)
            with_ = rng.choice(("", "with "))
            eaten = zip(ORDINALS, premises[1:], strict=False)
            again = " ".join(f"{nth.capitalize()}, {with_}{food}." for nth, food in eaten)
            texts.append(f"{_ask(premises)} {listed} It was a {premises[0]}. {again}")
        return texts

    def teacher(
        self,
        seed: int = 0,
        *,
        error_rate: float = 0.15,
        jumps: float = 0.05,
        lucky: float = 0.05,
        silent: float = 0.03,
        runs_on: float = 0.05,
    ) -> NoisyTeacher:
        """A teacher that makes mistakes at known rates.

        Args:
            seed: another seed, other chains.
            error_rate: chance that a step is false (0..1); the chain goes on from what it said.
            jumps: share of chains that are a guess without a step.
            lucky: share of chains that are right for a wrong reason: a false step, and either a
                second one that leads back, or the right answer all the same.
            silent: share of chains that break off before the colour, and so have no answer.
            runs_on: share of chains that go on into an invented next question.

        Raises:
            InputError: a share is out of its range.
        """
        shares = {"error_rate": error_rate, "runs_on": runs_on}
        shares |= {"jumps": jumps, "lucky": lucky, "silent": silent}
        for name, share in shares.items():
            _in_range(name, share, 0, 1)
        _in_range("jumps + lucky + silent", jumps + lucky + silent, 0, 1)
        return NoisyTeacher(self, seed, error_rate, jumps, lucky, silent, runs_on)


# ---------------------------------------------------------------------------------------- teacher

Kind = Literal["sound", "slip", "lucky", "jump", "silent"]
Message = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Written:
    """A chain of the noisy teacher, and the truth about it.

    Attributes:
        text: what it wrote.
        kind: "sound", "slip" (false steps), "lucky", "jump" (no steps) or "silent" (no answer).
        right: its answer is the gold one.
        runs_on: an invented next question follows.
    """

    text: str
    kind: Kind
    right: bool
    runs_on: bool


@dataclass(frozen=True)
class NoisyTeacher:
    """Writes chains with faults of known rates; see `ReasoningWorld.teacher` for the rates.

    A chain follows from the seed, the question and the sample's index alone: asking for more
    samples never redraws one.
    """

    world: ReasoningWorld
    seed: int
    error_rate: float
    jumps: float
    lucky: float
    silent: float
    runs_on: float

    def write(self, item: Item, sample: int) -> str:
        """A sample's text."""
        return self.draw(item, sample).text

    def draw(self, item: Item, sample: int) -> Written:
        """A sample's text, and what is wrong with it."""
        rng = random.Random(f"teacher {self.seed} {item.id} {sample}")
        true, gold = self.world.solve(item)
        drawn = rng.random()
        kind: Kind = "sound"
        steps: list[Step] = []
        answer: str | None = gold
        if drawn < self.jumps:
            kind, answer = "jump", self._guess(rng, item)
        elif drawn < self.jumps + self.lucky:
            kind, steps = "lucky", self._astray(rng, true)
        else:
            steps = self._steps(rng, true)
            if drawn < self.jumps + self.lucky + self.silent:
                kind, steps, answer = "silent", steps[:-1], None
            elif steps != true:
                kind = "slip"
                answer = canonical(kind_of(item), steps[-1].end, choices_of(item))
        said = [_say(step, rng.randrange(2), number) for number, step in enumerate(steps)]
        if answer is not None:
            said.append(rng.choice(CONCLUSIONS).format(answer=shown(item, answer)))
        text = " ".join(said)
        goes_on = rng.random() < self.runs_on
        if goes_on:
            other = _ask(self.world._train_premises(rng))
            text += f"\n\nQ: {other}\nA: The answer is {shown(item, self._guess(rng, item))}."
        return Written(text, kind, answer == gold, goes_on)

    def script(self, items: Sequence[Item]) -> Callable[[str | Sequence[Message], int], str]:
        """The teacher as a function of (prompt, sample), for a scripted backend.

        It answers the last question of the prompt, so worked examples may stand before it.

        Raises:
            InputError: from the function; the prompt asks none of these items.
        """
        by_text = {item.text: item for item in items}

        def answer(prompt: str | Sequence[Message], sample: int) -> str:
            text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
            asked = [found[0] for found in _QUESTION.finditer(text)]
            if not asked or asked[-1] not in by_text:
                raise InputError(
                    f"expected a prompt that asks one of {len(items)} questions; got "
                    f"{text[-80:]!r}; give the teacher all questions that will be asked"
                )
            return self.write(by_text[asked[-1]], sample)

        return answer

    def write_recorded(
        self,
        path: str | Path,
        items: Sequence[Item],
        samples: int,
        prompt: Callable[[Item], str | Sequence[Message]],
    ) -> Path:
        """Writes chains as a table of recorded answers, columns `prompt` and `answer`.

        Args:
            path: a .jsonl, .csv or .parquet file.
            items: the questions.
            samples: chains of each.
            prompt: what a recipe would ask for an item.
        """
        rows = (
            {"prompt": prompt(item), "answer": self.write(item, sample)}
            for item in items
            for sample in range(samples)
        )
        write_rows(Path(path), rows)
        return Path(path)

    def _guess(self, rng: random.Random, item: Item) -> str:
        place = rng.randrange(len(self.world.colours))
        return letter(place) if choices_of(item) else self.world.colours[place]

    def _steps(self, rng: random.Random, true: Sequence[Step]) -> list[Step]:
        """The question's steps, each false by chance; it goes on from what it said."""
        at, steps = true[0].start, []
        for _, food, _ in true:
            end = self.world.rules[at, food]
            if rng.random() < self.error_rate:
                end = self._other(rng, end)
            steps.append(Step(at, food, end))
            at = end
        return steps

    def _astray(self, rng: random.Random, true: Sequence[Step]) -> list[Step]:
        """Steps with a false one; half of the time a later, false one leads back to the truth."""
        wrong = rng.randrange(len(true))
        steps = list(true[:wrong])
        at = true[wrong].start
        for _, food, end in true[wrong:]:
            is_first = len(steps) == wrong
            told = self._other(rng, end) if is_first else self.world.rules[at, food]
            steps.append(Step(at, food, told))
            at = told
        if wrong + 1 < len(true) and rng.random() < 0.5:
            steps[-1] = steps[-1]._replace(end=true[-1].end)
        return steps

    def _other(self, rng: random.Random, end: str) -> str:
        """Another creature, or another colour."""
        kin = self.world.colours if end in self.world.colours else self.world.creatures
        return rng.choice([one for one in kin if one != end])


# ----------------------------------------------------------------------------------------- inside


def parse_steps(text: str) -> list[Step]:
    """The steps that a chain takes, true or not; other sentences are passed over."""
    read = [_step(sentence)[0] for sentence in _sentences(text)]
    return [step for step in read if step is not None]


def _sentences(text: str) -> list[str]:
    """Sentences without their stops, up to an invented next question."""
    own = _NEXT.split(text, maxsplit=1)[0]
    return [one.strip().rstrip(".") for one in _BETWEEN.split(own) if one.strip()]


def _answers(sentences: Sequence[str]) -> Iterator[str]:
    for sentence in sentences:
        if found := _ANSWER.fullmatch(sentence):
            yield found[1]


def _step(sentence: str) -> tuple[Step | None, str]:
    """A sentence as a step, None where it is none, and the ordinal before it."""
    for wording in _STEPS:
        if found := wording.fullmatch(sentence):
            said = {slot: (name or "").lower() for slot, name in found.groupdict().items()}
            return Step(said["start"], said.get("food", ""), said["end"]), said.get("ordinal", "")
    return None, ""


def _say(step: Step, wording: int, number: int | None = None) -> str:
    """A step as a sentence; a change with its number in the chain begins with an ordinal."""
    said = (CHANGES if step.food else COLOURS)[wording].format(**step._asdict())
    if step.food and number is not None:
        said = f"{ORDINALS[number]}, {said}"
    return said[0].upper() + said[1:]


def _ask(premises: Sequence[str]) -> str:
    meal = ", ".join(f"{nth} {food}" for nth, food in zip(ORDINALS, premises[1:], strict=False))
    return f"A {premises[0]} eats {meal}. What colour is it now?"


def _names(rng: random.Random, n: int, ends: Sequence[str]) -> list[str]:
    names: dict[str, None] = {}
    while len(names) < n:
        names.setdefault(rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(ends))
    return list(names)


def _in_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InputError(f"expected {name} between {low} and {high}; got {value}; change it")
