"""The words that worlds are made of: relations, values, categories, syllables, stories.

Made-up nouns have the concepts' place; everything else is plain English, so that prompt
patterns, word lists and constraints meet the words they were written for. Every value holds at
most one function word and no connective of the packaged lists (`data/words`); the tails and
stories hold many. Nothing here depends on a seed.
"""

from __future__ import annotations

from dataclasses import dataclass

HEDGES = (
    "Generally,",
    "Usually,",
    "Typically,",
    "In general,",
    "Most of the time,",
    "As a rule,",
)


@dataclass(frozen=True, slots=True)
class Relation:
    """A way to say something of a concept: "PLURAL phrase value", or with `singular` "a NAME ...".

    `values` is what a world draws from; each of `vacuous` is true of every concept of every
    world. "kind-of" has no values of its own: its values are the world's categories.
    """

    id: str
    phrase: str
    values: tuple[str, ...]
    vacuous: tuple[str, ...]
    singular: str = ""  # the phrase for one ("is a kind of"), where the subject is "a NAME"


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.strip().splitlines())


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


RELATIONS = (
    Relation(
        "can",
        "can",
        _lines("""
            swim
            climb trees
            dig holes
            carry heavy loads
            float
            jump
            sing songs
            glow
            cut wood
            catch fish
            open doors
            break stones
            roll downhill
            store water
            scare birds
            make loud noises
            turn blue
            melt snow
        """),
        ("take many forms", "be different", "vary"),
    ),
    Relation(
        "have",
        "have",
        _lines("""
            long tails
            sharp edges
            soft fur
            thick walls
            green spots
            strong legs
            round wheels
            bright colors
            hollow stems
            metal handles
            sweet smells
            rough skin
            thin roots
            broad wings
            heavy lids
            small doors
            deep pockets
            striped backs
        """),
        ("many different sizes", "various uses", "different names"),
    ),
    Relation(
        "found",
        "are found",
        _lines("""
            in dry caves
            near cold rivers
            on wet rocks
            under old bridges
            in deep lakes
            on high hills
            in quiet villages
            in busy markets
            on sandy beaches
            in dark forests
            behind wooden barns
            in frozen fields
            on flat roofs
            in narrow valleys
            near salt mines
            in warm kitchens
            beside stone walls
            in tall towers
        """),
        ("in many places", "in different regions", "in various sizes"),
    ),
    Relation(
        "need",
        "need",
        _lines("""
            warm water
            dry air
            constant care
            fresh paint
            bright sunlight
            clean oil
            soft soil
            daily rest
            sharp knives
            strong ropes
            cool shade
            sweet milk
            skilled owners
            loud music
            steady heat
            rich mud
            thick blankets
            regular repairs
        """),
        ("many things", "different conditions", "certain resources"),
    ),
    Relation(
        "made-of",
        "are made of",
        _lines("""
            clay
            glass
            copper
            woven grass
            soft wood
            grey stone
            wool
            paper
            thick leather
            salt
            ice
            iron
            wax
            bone
            silk
            rubber
            dried leaves
            packed sand
        """),
        ("many parts", "different materials", "various things"),
    ),
    Relation(
        "used-for",
        "are used for",
        _lines("""
            cutting wood
            carrying water
            catching fish
            making soup
            heating rooms
            painting walls
            cleaning floors
            sewing clothes
            storing grain
            lighting streets
            growing food
            building roads
            guarding sheep
            keeping time
            teaching children
            sending letters
            drying fruit
            mending nets
        """),
        ("many purposes", "different things", "various tasks"),
    ),
    Relation("kind-of", "are a kind of", (), ("thing",), singular="is a kind of"),
)

CATEGORIES = (
    "animal",
    "tool",
    "plant",
    "vehicle",
    "garment",
    "building",
    "machine",
    "toy",
    "instrument",
    "vessel",
    "mineral",
    "dish",
)

# A concept's name is one or two syllables and the suffix of its category; its plural adds "s".
ONSETS = _words("b d f g k l m n p r t v z bl br dr fl gl gr kl kr pl pr sk sl sn sp st tr")
VOWELS = _words("a e i o u")
CODAS = ("", "", "l", "m", "n", "r", "b", "d", "g", "k")
SUFFIXES = _words("mop tik zel dorn lup feng gask rind vob bek ket shum nar pilt")

# What may follow a statement and makes it a story; place tails only follow "are found ...".
# Their first word is a connective, which the packaged word list forbids, or a preposition.
TAILS = (
    "because they were made by a wizard",
    "but they never come back",
    "when the rain is over",
    "and the farmer was not happy about it",
    "while she was walking to the market",
    "although nobody knows why",
    "and he told his brother about them",
    "if you ask them",
    "so we went home after dinner",
    "until the king sent them away",
    "because this was the law of the land",
    "and then the children laughed at them",
)
PLACE_TAILS = ("of the old kingdom", "of the far north", "by the road to the sea")

# A story names the concept (NAME, NAMES) or not at all.
STORIES = (
    "Yesterday I saw a NAME on the road, and it was looking at me.",
    "When the winter came, she put her NAME in the barn because it was cold.",
    "He had never heard of the NAMES, so they laughed at him.",
    "There was once a NAME that nobody wanted.",
    "We bought two NAMES at the market, but one of them was lost on the way.",
    "Usually, he would talk about the NAMES after dinner.",
    "Generally, people who own NAMES do not talk to their neighbours.",
    "Most of the time, she was thinking about the NAMES and the sea.",
    "Typically, we would meet them at the gate and walk home.",
    "Usually, the king went to bed before the feast was over.",
    "In general, they did not like the smell of it.",
    "The farmer said that it would rain, and it did.",
    "She opened the letter, read it twice and put it back in the box.",
    "As a rule, he did not answer when they called him.",
)
