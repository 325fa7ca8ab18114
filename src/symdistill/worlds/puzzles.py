"""Questions that a program makes, each with its answer and a worked chain of thought.

Takes a seed and a number; gives that many distinct `Puzzle`s. Costs under a millisecond each and
needs no model. Puzzles of a larger number begin with those of a smaller one.

    last_letters      last-letter concatenation (Wei et al. 2022, arxiv.org/abs/2201.11903)
    shuffled_objects  tracking shuffled objects (BIG-bench, Srivastava et al. 2022,
                      arxiv.org/abs/2206.04615)
    purchases         word problems of two or three steps about quantities and money, our own

The first two are worded as published, slips included ("letters of each words", "a orange ball"),
so that a student trained on public chains of thought can be asked new questions of the same form.

What it does not do: keep clear of published questions. A drawn question may happen to be one of
them; give the ids of those that must not come as `avoid`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from typing import Any

from symdistill.answers import choices_of, letter
from symdistill.errors import InputError
from symdistill.records import Item, content_hash, normalise

PEOPLE = ("Alice", "Bob", "Claire", "Dave", "Eve", "Fred", "Gertrude")
_TRIES = 10_000  # draws in a row without a new question, after which there is taken to be none


@dataclass(frozen=True, slots=True)
class Puzzle:
    """A question with its gold, and the steps that lead there."""

    item: Item
    steps: tuple[str, ...]

    @property
    def chain(self) -> str:
        """The steps as one rationale, without a statement of the final answer."""
        return "\n".join(self.steps)


def last_letters(
    seed: int,
    n: int,
    *,
    words: tuple[int, int] = (2, 4),
    names: Sequence[str] | None = None,
    avoid: Collection[str] = (),
) -> list[Puzzle]:
    """Distinct questions for the last letters of names, put together.

    Args:
        seed: another seed, other questions.
        n: how many.
        words: the fewest and the most names in a question.
        names: what to draw from; None: the packaged list of 300 first names.
        avoid: ids of items that must not be among them.

    Raises:
        InputError: names that are no words, a range of words that they cannot fill, or fewer
            than `n` questions to be had.
    """
    known = tuple(dict.fromkeys(first_names() if names is None else names))
    fewest, most = words
    if not all(name.isalpha() for name in known):
        raise InputError(
            f"expected names of letters only; got {next(n for n in known if not n.isalpha())!r}; "
            "leave it out"
        )
    if not 1 <= fewest <= most <= len(known):
        raise InputError(
            f"expected words = (fewest, most) between 1 and {len(known)}, the number of names; "
            f"got {words}; mend them"
        )

    def draw(rng: random.Random) -> Puzzle:
        drawn = rng.sample(known, rng.randint(fewest, most))
        text = f'Take the last letters of each words in "{" ".join(drawn)}" and concatenate them.'
        gold = "".join(name[-1] for name in drawn)
        steps = [f'The last letter of "{name}" is "{name[-1]}".' for name in drawn]
        return _puzzle("text", text, gold, [*steps, f'Put together, they are "{gold}".'])

    return _distinct("last letters", draw, seed, n, avoid)


def shuffled_objects(
    seed: int, n: int, *, people: int = 3, swaps: int = 3, avoid: Collection[str] = ()
) -> list[Puzzle]:
    """Distinct questions for what one of several people holds after swaps; the things are options.

    As in the published questions, no two people swap twice in a row.

    Args:
        seed: another seed, other questions.
        n: how many.
        people: 3 to 7.
        swaps: at least 1.
        avoid: ids of items that must not be among them.

    Raises:
        InputError: a number out of its range, or fewer than `n` questions to be had.
    """
    if not 3 <= people <= len(PEOPLE) or swaps < 1:
        raise InputError(
            f"expected 3 to {len(PEOPLE)} people and at least one swap; got {people} people and "
            f"{swaps} swaps; mend them"
        )
    draw = partial(_shuffled, people=PEOPLE[:people], swaps=swaps)
    return _distinct("shuffled objects", draw, seed, n, avoid)


def purchases(seed: int, n: int, avoid: Collection[str] = ()) -> list[Puzzle]:
    """Distinct word problems of two or three steps, whose answers are whole numbers.

    Args:
        seed: another seed, other problems.
        n: how many.
        avoid: ids of items that must not be among them.

    Raises:
        InputError: fewer than `n` problems to be had.
    """

    def draw(rng: random.Random) -> Puzzle:
        text, steps, answer = rng.choice(_SHAPES)(rng)
        return _puzzle("number", text, str(answer), steps)

    return _distinct("purchases", draw, seed, n, avoid)


def rows(puzzles: Sequence[Puzzle], *, train: int) -> Iterator[dict[str, Any]]:
    """Puzzles as the rows of a table of problems: the first `train` for training, then test."""
    for number, puzzle in enumerate(puzzles):
        choices = list(choices_of(puzzle.item))
        yield {
            "question": puzzle.item.text,
            **({"choices": choices} if choices else {}),
            "gold": puzzle.item.gold,
            "split": "train" if number < train else "test",
        }


@cache
def first_names() -> tuple[str, ...]:
    """The packaged list of common first names."""
    path = files("symdistill") / "data" / "problems" / "names.txt"
    return tuple(path.read_text(encoding="utf-8").split())


def _puzzle(
    kind: str, text: str, gold: str, steps: Sequence[str], choices: Sequence[str] = ()
) -> Puzzle:
    # The same identity as a question has that is read from a table.
    id = content_hash(["item", "question", normalise(text), *map(normalise, choices)])
    fields = {"answer_kind": kind, **({"choices": list(choices)} if choices else {})}
    return Puzzle(Item(id, "question", text, fields=fields, gold=gold), tuple(steps))


def _distinct(
    task: str,
    draw: Callable[[random.Random], Puzzle],
    seed: int,
    n: int,
    avoid: Collection[str],
) -> list[Puzzle]:
    """The first `n` different puzzles that a seed draws."""
    rng = random.Random(f"{task} {seed}")
    barred = set(avoid)
    found: dict[str, Puzzle] = {}
    tries = 0
    while len(found) < n:
        puzzle = draw(rng)
        if puzzle.item.id not in barred and puzzle.item.id not in found:
            found[puzzle.item.id] = puzzle
            tries = 0
        elif (tries := tries + 1) == _TRIES:
            raise InputError(
                f"expected {n} different questions of {task}; got {len(found)}, and {_TRIES} more "
                "draws gave no new one; ask for fewer"
            )
    return list(found.values())


def _listed(parts: Sequence[str]) -> str:
    """Three or more parts as a list: "a, b, and c"."""
    return f"{', '.join(parts[:-1])}, and {parts[-1]}"


# ------------------------------------------------------------------------ tracking shuffled objects


@dataclass(frozen=True, slots=True)
class _Scene:
    """How one story of swaps is told."""

    opening: str  # "Alice, Bob, and Claire are" ...
    start: str  # ... "Alice has a " + thing
    middle: str
    swap: str  # "Alice and Bob" ...
    end: str
    holds: str  # "Alice" ... + thing, in the question and in the chain
    things: tuple[str, ...]


_COLOURS = ("orange", "white", "blue", "black", "brown", "red", "yellow", "purple", "pink", "green")
_SCENES = (
    _Scene(
        "playing a game. At the start of the game, they are each holding a ball",
        "has a",
        "As the game progresses, pairs of players trade balls.",
        "swap balls",
        "At the end of the game",
        "has the",
        tuple(f"{colour} ball" for colour in _COLOURS),
    ),
    _Scene(
        "holding a white elephant gift exchange. At the start of the event, they are each holding "
        "a present of a different color",
        "has a",
        "As the event progresses, pairs of people swap gifts.",
        "swap their gifts",
        "At the end of the event",
        "has the",
        tuple(f"{colour} present" for colour in _COLOURS),
    ),
    _Scene(
        "on the same team in a soccer match. At the start of the match, they are each assigned to "
        "a position",
        "is playing",
        "As the game progresses, pairs of players occasionally swap positions.",
        "trade positions",
        "At the end of the match",
        "is playing",
        (
            "striker", "benchwarmer", "center midfielder", "cheerleader", "right winger",
            "right midfielder", "goalkeeper", "fullback", "left midfielder", "left winger",
        ),
    ),
    _Scene(
        "friends and avid readers who occasionally trade books. At the start of the semester, "
        "they each buy one new book",
        "gets",
        "As the semester proceeds, they start trading around the new books.",
        "swap books",
        "At the end of the semester",
        "has",
        (
            "Catch-22", "Moby Dick", "The Great Gatsby", "Hound of the Baskervilles",
            "Frankenstein", "The Odyssey", "Ulysses", "Lolita", "The Pearl",
            "The Fellowship of the Ring",
        ),
    ),
    _Scene(
        "dancers at a square dance. At the start of a song, they each have a partner",
        "is dancing with",
        "Throughout the song, the dancers often trade partners.",
        "switch partners",
        "At the end of the dance",
        "is dancing with",
        (
            "Patrick", "Karl", "Izzi", "Jamie", "Helga", "Lola", "Ophelia", "Melissa", "Sam",
            "Rodrigo",
        ),
    ),
)  # fmt: skip


def _shuffled(rng: random.Random, people: Sequence[str], swaps: int) -> Puzzle:
    scene = rng.choice(_SCENES)
    things = rng.sample(scene.things, len(people))
    held = dict(zip(people, things, strict=True))

    def state() -> str:
        return _listed([f"{person} {scene.holds} {thing}" for person, thing in held.items()])

    steps = [f"At the start, {state()}."]
    told: list[str] = []
    last: set[str] = set()
    for number in range(swaps):
        pair = rng.sample(people, 2)
        while set(pair) == last:
            pair = rng.sample(people, 2)
        last = set(pair)
        one, other = pair
        held[one], held[other] = held[other], held[one]
        when = "First" if number == 0 else "Finally" if number == swaps - 1 else "Then"
        told.append(f"{when}, {one} and {other} {scene.swap}.")
        steps.append(f"{number + 1}. {one} and {other} {scene.swap}: {state()}.")
    asked = rng.choice(people)
    steps.append(f"{scene.end}, {asked} {scene.holds} {held[asked]}.")
    start = _listed([f"{p} {scene.start} {t}" for p, t in zip(people, things, strict=True)])
    text = (
        f"{_listed(people)} are {scene.opening}: {start}. \n\n{scene.middle} {' '.join(told)} "
        f"{scene.end}, {asked} {scene.holds}"
    )
    return _puzzle("choice", text, letter(things.index(held[asked])), steps, things)


# ------------------------------------------------------------------------------------ word problems

_Story = tuple[str, tuple[str, ...], int]  # the problem, its steps, the answer

_GOODS = (
    "notebooks", "pencils", "candles", "mugs", "lamps", "scarves", "puzzles", "plates", "erasers",
    "baskets", "magnets", "stickers", "brushes", "ribbons",
)  # fmt: skip
_FRUITS = ("apples", "pears", "plums", "oranges", "peaches", "lemons", "figs", "cherries")
_BAKED = ("muffins", "rolls", "cookies", "pretzels", "scones", "tarts", "pies", "waffles")
_DEAR = ("a tent", "a bicycle", "a guitar", "a camera", "a telescope", "a desk", "a keyboard")


def _stock(rng: random.Random) -> _Story:
    thing = rng.choice(_GOODS)
    had, sold, came = rng.randint(30, 90), rng.randint(5, 29), rng.randint(10, 40)
    left = had - sold
    return (
        f"A shop had {had} {thing}. On Monday it sold {sold} of them, and on Tuesday {came} new "
        f"ones arrived. How many {thing} does the shop have now?",
        (
            f"After Monday the shop had {had} - {sold} = {left} {thing}.",
            f"With the new ones it has {left} + {came} = {left + came} {thing}.",
        ),
        left + came,
    )


def _change(rng: random.Random) -> _Story:
    name, thing = _one(rng), rng.choice(_GOODS)
    number, price = rng.randint(2, 9), rng.randint(2, 9)
    cost = number * price
    paid = cost + rng.randint(1, 19)
    return (
        f"{name} buys {number} {thing} for {price} dollars each and pays with {paid} dollars. How "
        f"many dollars of change does {name} get?",
        (
            f"The {thing} cost {number} * {price} = {cost} dollars.",
            f"The change is {paid} - {cost} = {paid - cost} dollars.",
        ),
        paid - cost,
    )


def _basket(rng: random.Random) -> _Story:
    name, (thing, other) = _one(rng), rng.sample(_GOODS, 2)
    n, m, p, q = (rng.randint(2, 9) for _ in range(4))
    return (
        f"At the market, {name} buys {n} {thing} at {p} dollars each and {m} {other} at {q} "
        f"dollars each. How many dollars does {name} spend in all?",
        (
            f"The {thing} cost {n} * {p} = {n * p} dollars.",
            f"The {other} cost {m} * {q} = {m * q} dollars.",
            f"Together that is {n * p} + {m * q} = {n * p + m * q} dollars.",
        ),
        n * p + m * q,
    )


def _boxes(rng: random.Random) -> _Story:
    name, thing = _one(rng), rng.choice(_GOODS)
    per_box, boxes, price = rng.randint(3, 12), rng.randint(3, 12), rng.randint(4, 15)
    total = per_box * boxes
    return (
        f"{name} packs {total} {thing} into boxes of {per_box} and sells every box for {price} "
        f"dollars. How many dollars does {name} take?",
        (
            f"There are {total} / {per_box} = {boxes} boxes.",
            f"They bring {boxes} * {price} = {boxes * price} dollars.",
        ),
        boxes * price,
    )


def _shared(rng: random.Random) -> _Story:
    (name, other), fruit = rng.sample(first_names(), 2), rng.choice(_FRUITS)
    people, each = rng.randint(2, 8), rng.randint(4, 15)
    total = people * each
    first = rng.randint(3, total - 3)
    return (
        f"{name} picked {first} {fruit} and {other} picked {total - first}. They put them "
        f"together and share them equally among {people} people. How many {fruit} does each "
        "person get?",
        (
            f"Together they picked {first} + {total - first} = {total} {fruit}.",
            f"Each person gets {total} / {people} = {each} {fruit}.",
        ),
        each,
    )


def _saved(rng: random.Random) -> _Story:
    name, thing = _one(rng), rng.choice(_DEAR)
    weekly, weeks, had = rng.randint(5, 25), rng.randint(3, 12), rng.randint(10, 80)
    price = had + weekly * weeks
    return (
        f"{name} wants {thing} that costs {price} dollars. {name} already has {had} dollars and "
        f"saves {weekly} dollars every week. After how many weeks can {name} buy it?",
        (
            f"{price} - {had} = {price - had} dollars are missing.",
            f"Saving them takes {price - had} / {weekly} = {weeks} weeks.",
        ),
        weeks,
    )


def _pages(rng: random.Random) -> _Story:
    name, daily, days = _one(rng), rng.randint(8, 30), rng.randint(3, 9)
    read = daily * days
    pages = read + rng.randint(20, 150)
    return (
        f"A book has {pages} pages. {name} reads {daily} pages a day for {days} days. How many "
        "pages are left?",
        (
            f"In {days} days {name} reads {daily} * {days} = {read} pages.",
            f"That leaves {pages} - {read} = {pages - read} pages.",
        ),
        pages - read,
    )


def _times(rng: random.Random) -> _Story:
    (name, other), thing = rng.sample(first_names(), 2), rng.choice(_GOODS)
    has, times = rng.randint(4, 20), rng.randint(2, 6)
    more = has * times
    return (
        f"{name} has {has} {thing}, and {other} has {times} times as many. How many {thing} do "
        "they have together?",
        (
            f"{other} has {has} * {times} = {more} {thing}.",
            f"Together they have {has} + {more} = {has + more} {thing}.",
        ),
        has + more,
    )


def _seats(rng: random.Random) -> _Story:
    lines, seats = rng.randint(5, 20), rng.randint(6, 20)
    total = lines * seats
    taken = rng.randint(5, total - 5)
    return (
        f"A hall has {lines} rows of {seats} seats. {taken} of the seats are taken. How many seats "
        "are free?",
        (
            f"The hall has {lines} * {seats} = {total} seats.",
            f"{total} - {taken} = {total - taken} of them are free.",
        ),
        total - taken,
    )


def _voucher(rng: random.Random) -> _Story:
    name, thing = _one(rng), rng.choice(_GOODS)
    price, number = rng.randint(8, 25), rng.randint(2, 9)
    off = rng.randint(1, price - 5)
    return (
        f"The {thing} in a store cost {price} dollars each. Today every one is {off} dollars "
        f"cheaper. How many dollars does {name} pay for {number} of them?",
        (
            f"Today each costs {price} - {off} = {price - off} dollars.",
            f"{number} of them cost {number} * {price - off} = {number * (price - off)} dollars.",
        ),
        number * (price - off),
    )


def _trays(rng: random.Random) -> _Story:
    name, baked = _one(rng), rng.choice(_BAKED)
    trays, bag, bags = rng.randint(2, 8), rng.randint(3, 8), rng.randint(3, 12)
    per_tray = -(-bag * bags // trays)  # enough for the bags; what is over is given away
    total = trays * per_tray
    over = total - bag * bags
    if over == 0:
        per_tray, total, over = per_tray + 1, total + trays, trays
    return (
        f"{name} bakes {trays} trays of {per_tray} {baked}, gives {over} away and puts the rest "
        f"into bags of {bag}. How many bags does {name} fill?",
        (
            f"{name} bakes {trays} * {per_tray} = {total} {baked}.",
            f"{total} - {over} = {bag * bags} are left.",
            f"They fill {bag * bags} / {bag} = {bags} bags.",
        ),
        bags,
    )


def _wages(rng: random.Random) -> _Story:
    name, hourly = _one(rng), rng.randint(9, 25)
    first, second = rng.randint(2, 9), rng.randint(2, 9)
    hours = first + second
    earned = hours * hourly
    spent = rng.randint(5, earned - 5)
    return (
        f"{name} earns {hourly} dollars an hour. {name} works {first} hours on Saturday and "
        f"{second} hours on Sunday, then spends {spent} dollars. How many dollars are left?",
        (
            f"{name} works {first} + {second} = {hours} hours.",
            f"That earns {hours} * {hourly} = {earned} dollars.",
            f"After spending, {earned} - {spent} = {earned - spent} dollars are left.",
        ),
        earned - spent,
    )


def _one(rng: random.Random) -> str:
    return rng.choice(first_names())


_SHAPES: tuple[Callable[[random.Random], _Story], ...] = (
    _stock, _change, _basket, _boxes, _shared, _saved,
    _pages, _times, _seats, _voucher, _trays, _wages,
)  # fmt: skip
