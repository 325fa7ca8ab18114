"""Worlds: small synthetic worlds in which truth is decidable, for tests and for teaching.

words.py     the words they are made of
world.py     World: concepts with properties and exceptions; decides every statement about them
reasoning.py ReasoningWorld: rules to chain; decides every step of a chain of thought
tiny_lm.py   a small language model and a small encoder, trained on a world's text in seconds
__main__.py  `python -m symdistill.worlds FOLDER --seed 3`: a world, its models and its truth

Importing this package loads neither torch nor transformers.
"""

from symdistill.worlds.reasoning import ReasoningWorld
from symdistill.worlds.tiny_lm import tiny_encoder, train_tiny_lm
from symdistill.worlds.world import Concept, World

__all__ = ["Concept", "ReasoningWorld", "World", "tiny_encoder", "train_tiny_lm"]
