"""The page that goes with a saved critic: what it learnt from, how good it is, how to load it.

Takes the report of a fit (the JSON beside the critic); gives README.md, in plain words, with what
is not known named as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from symdistill.visible import visible

METRICS = {
    "auc": "AUC (chance that a valid line outscores an invalid one)",
    "average_precision": "average precision",
    "ece": "ECE (mean distance between score and share valid)",
}


def write_card(folder: Path, report: Mapping[str, Any]) -> None:
    """Write README.md into the critic's folder."""
    (folder / "README.md").write_text(card(report), encoding="utf-8")


def card(report: Mapping[str, Any]) -> str:
    """The page as Markdown."""
    parts, test = report["parts"], report["test"]
    lines = [
        "---",
        "library_name: transformers",
        "tags: [critic, text-classification]",
        "---",
        "",
        "# A critic",
        "",
        f"It reads {_reads(report)} and says how likely a person would call it valid (0 to 1). "
        f"Encoder: {report['encoder']}, trained {report['trainable']}; version "
        f"`{report['version']}`.",
        "",
        "## Data",
        "",
        f"Labels of `{visible(report['source'])}`, taken as given: who labelled is not known here, "
        "and neither is how far people agree. Unsure lines were not learnt from.",
        "",
        "| part | lines | valid | groups |",
        "|---|---|---|---|",
        *(
            f"| {name} | {part['lines']:,} | {part['valid']:,} | {part['groups']:,} |"
            for name, part in parts.items()
        ),
        "",
        f"Left out: {_left_out(report['left_out'])}. Groups: {_groups(report)}; no group is in two "
        "parts.",
        "",
        "## How good it is",
        "",
        f"On the {parts['test']['lines']:,} test lines, with 95 % intervals over groups:",
        "",
        "| | value |",
        "|---|---|",
        *(f"| {words} | {ranged(test[key])} |" for key, words in METRICS.items()),
        *(f"| AUC of {name} | {one['auc']:.3f} |" for name, one in report["baselines"].items()),
        "",
        *[f"{sentence}\n" for sentence in report["sentences"]],
        "## Limits",
        "",
        "It knows nothing of lines unlike its labels, follows the labels' mistakes, and does not "
        "explain itself. Its score is an estimate, no proof: for a claim about lines that were "
        "kept, label a random sample of them (`symdistill certify`).",
        "",
        "## Loading it",
        "",
        "```python",
        "from pathlib import Path",
        "from symdistill.critic import EncoderCritic",
        "",
        f'scores = EncoderCritic.load(Path("{folder_name(report)}")).score({_call(report)})',
        "```",
        "",
        f"Or `symdistill critic score FILE --critic {folder_name(report)}`. `encoder/` is a plain "
        "transformers folder, `head.safetensors` the linear layer on top.",
    ]
    return "\n".join(lines) + "\n"


def ranged(value: Mapping[str, Any]) -> str:
    """A value with its interval: 0.83 (0.74 to 0.90)."""
    return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


def folder_name(report: Mapping[str, Any]) -> str:
    """How the critic's folder is called."""
    return visible(str(report["folder"]))


def _reads(report: Mapping[str, Any]) -> str:
    columns = " and ".join(f"`{visible(one)}`" for one in report["columns"].values())
    beside = [f"the number in `{visible(one)}`" for one in report["numbers"]]
    if report["likelihood"]:
        beside.append(f"the likelihood by {report['likelihood']}")
    more = f", with {' and '.join(beside)}," if beside else ""
    return f"a {report['form']} (columns {columns}){more}"


def _call(report: Mapping[str, Any]) -> str:
    text = '["A text."]' if report["form"] in ("statement", "triple") else '[("One.", "Two.")]'
    return f"{text}, features" if report["numbers"] or report["likelihood"] else text


def _groups(report: Mapping[str, Any]) -> str:
    column = report["group"]
    return f"the column `{visible(column)}`" if column else "each distinct text is its own"


def _left_out(counts: Mapping[str, int]) -> str:
    told = "; ".join(f"{rows:,} {visible(why)}" for why, rows in counts.items())
    return told or "nothing"
