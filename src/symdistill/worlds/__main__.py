"""`python -m symdistill.worlds FOLDER --seed 3`: a world, its text, its models and its truth.

Writes, and prints what it wrote:

    concepts.jsonl  prompts.yaml  labels.jsonl     what a recipe reads
    truth.json                                     what decides statements: `World.read`
    corpus.txt                                     the noisy text, one sentence a line
    model/  encoder/                               `transformers` folders trained on it

The same arguments give the same bytes. Costs half a minute on one CPU core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from symdistill.errors import InputError, SymdistillError
from symdistill.worlds.tiny_lm import tiny_encoder, train_tiny_lm
from symdistill.worlds.world import World


def write_world(
    folder: Path,
    world: World,
    *,
    sentences: int = 12_000,
    noise: float = 0.3,
    labels: int = 4000,
    models: bool = True,
) -> list[tuple[Path, str]]:
    """Write a world's files and models into a folder; gives each path with a word on it.

    Raises:
        InputError: a parameter is out of its range, or the folder cannot be written.
    """
    corpus = world.corpus(sentences, noise=noise, seed=world.seed)
    names = [concept.name for concept in world.concepts]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = folder / "corpus.txt"
        text.write_text("".join(f"{line}\n" for line in corpus), encoding="utf-8", newline="\n")
        written = [
            (world.concepts_file(folder / "concepts.jsonl"), f"{len(names)} concepts"),
            (world.prompts_file(folder / "prompts.yaml"), "prompt patterns"),
            (
                world.labels_file(folder / "labels.jsonl", labels, seed=world.seed),
                f"at most {labels} labelled statements, splits by concept",
            ),
            (world.truth_file(folder / "truth.json"), "what holds; read it with World.read"),
            (text, f"{len(corpus)} sentences; {noise:.0%} of their statements are false"),
        ]
        if models:
            model = train_tiny_lm(corpus, folder / "model", names=names, seed=world.seed)
            written.append((model, "a causal language model trained on the corpus"))
            encoder = tiny_encoder(corpus, folder / "encoder", names=names, seed=world.seed)
            written.append((encoder, "an encoder trained on the corpus"))
    except OSError as error:
        raise InputError(
            f"expected a folder that can be written at {folder}; got: {error.strerror}; "
            "give another"
        ) from error
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code (0 done, 2 bad usage or input)."""
    parser = argparse.ArgumentParser(
        prog="python -m symdistill.worlds",
        description="Draw a synthetic world in which truth is decidable, and train its models.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where to write")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another world")
    parser.add_argument("--n-concepts", type=int, default=60, help="made-up nouns")
    parser.add_argument("--n-categories", type=int, default=6, help="kinds of them, 2 to 12")
    parser.add_argument("--n-values", type=int, default=14, help="values per relation, 4 to 18")
    parser.add_argument(
        "--n-properties", type=int, default=3, help="properties of a category per relation"
    )
    parser.add_argument(
        "--n-specific", type=int, default=3, help="properties of a concept beside its category's"
    )
    parser.add_argument(
        "--exception-rate",
        type=float,
        default=0.1,
        help="chance that a concept lacks a property of its category (0..1)",
    )
    parser.add_argument("--sentences", type=int, default=12_000, help="length of the corpus")
    parser.add_argument(
        "--noise", type=float, default=0.3, help="share of false statements in the corpus (0..1)"
    )
    parser.add_argument("--labels", type=int, default=4000, help="labelled statements")
    parser.add_argument(
        "--no-models", dest="models", action="store_false", help="leave out model/ and encoder/"
    )
    given = parser.parse_args(arguments)
    try:
        world = World.draw(
            given.seed,
            n_concepts=given.n_concepts,
            n_categories=given.n_categories,
            n_values=given.n_values,
            n_properties=given.n_properties,
            n_specific=given.n_specific,
            exception_rate=given.exception_rate,
        )
        written = write_world(
            given.folder,
            world,
            sentences=given.sentences,
            noise=given.noise,
            labels=given.labels,
            models=given.models,
        )
    except SymdistillError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for path, what in written:
        print(f"{path}: {what}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
