"""A critic's folder, and the page in it: what it learnt from, how good it is, how to load it.

Takes the report of a fit (the JSON beside the critic); gives README.md, in plain words, with what
is not known named as such. A new critic takes the place of an earlier one as a whole: killed at any
moment, one of the two is there.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symdistill.errors import InputError, RunError
from symdistill.visible import visible

if TYPE_CHECKING:
    from symdistill.critic.encoder import EncoderCritic
    from symdistill.critic.forms import Form
    from symdistill.critic.reading import Text

METRICS = {
    "auc": "AUC (chance that a valid line outscores an invalid one)",
    "average_precision": "average precision",
    "ece": "ECE (mean distance between score and share valid)",
}


def expect_free(target: Path) -> None:
    """Refuse to replace anything but an earlier critic.

    Raises:
        InputError: the folder holds other things.
    """
    if target.is_dir() and any(target.iterdir()) and not (target / "critic.json").is_file():
        raise InputError(
            f"expected an empty folder, a critic's or a new one for --out; {target} holds other "
            "things; name another"
        )


def save_critic(
    target: Path,
    critic: EncoderCritic,
    form: Form,
    report: Mapping[str, Any],
    *,
    texts: Iterable[Text],
    ids: Iterable[str],
) -> None:
    """Write the critic's folder aside, and put it in the place of an earlier one.

    Killed in between, the earlier one lies beside, in a folder whose name ends in `.old`.

    Args:
        texts, ids: of the lines that it learnt from.

    Raises:
        RunError: it cannot be written.
    """
    from symdistill.critic.learnt import save_learnt

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
        old = aside.with_name(f"{aside.name}.old")
        try:
            critic.save(aside)
            form.save(aside, critic.version)
            save_learnt(aside, critic.version, texts, ids)
            (aside / "report.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
            write_card(aside, report)
            aside.chmod(0o755)
            if target.exists():
                os.replace(target, old)
            os.replace(aside, target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise RunError(
            f"expected to write the critic to {target}; got: {error.strerror or error}; choose "
            "another place with --out"
        ) from error


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


def told(report: Mapping[str, Any]) -> str:
    """How good the critic is, for a terminal."""
    names = {"auc": "AUC", "average_precision": "average precision", "ece": "ECE"}
    lines = [f"{name:<18} {ranged(report['test'][key])}" for key, name in names.items()]
    lines += [
        f"{'AUC of ' + visible(name):<18} {one['auc']:.3f}"
        for name, one in report["baselines"].items()
    ]
    if len(report["auc_by_seed"]) > 1:
        by_seed = ", ".join(f"{auc:.3f} ({seed})" for seed, auc in report["auc_by_seed"].items())
        lines.append(f"AUC by seed        {by_seed}; the first is kept")
    if curve := report["curve"]:
        points = zip(curve["labels"], curve["auc"], strict=True)
        lines.append(f"AUC by labels      {', '.join(f'{n:,}: {auc:.3f}' for n, auc in points)}")
    return "\n".join([*lines, *report["sentences"]])


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
