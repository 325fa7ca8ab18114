"""I2D2 on the embedded model: what each part brings, on three seeds.

Primary endpoint, named before the first run: `gain_independent`, the share of all distinct lines
written that the independent judge accepts, last round minus round 0, in the arm `full`. The judge
is another architecture (a causal model's hidden states and a logistic regression) trained on other
labels (human ones, from ComVE and CREAK); it decides nothing in the loop. Beside it stands
`specificity_change`, by the untouched model: a gain bought with emptier lines is none.

Arms, each with the same concepts and seeds (one concept list per seed):

    full                constraints, critic, guards against drift, self-imitation
    no-guards           no floor on specificity, no swap test, no caps; best score first
    no-constraints      plain sampling, one self-imitation round
    no-self-imitation   round 1 decodes with the untouched model too (the baseline)

Intervals are 95 %, from a bootstrap over concepts (of all seeds), rounds paired within a concept.
Arms run one at a time and resume: killed, the same command goes on. What an arm has in common with
`full` (critic, judge, round 0 where nothing before selection differs) is taken from there.

    python -m benchmarks.i2d2 --data FOLDER [--seeds 1 2 3] [--concepts 30] [--rounds 2]
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result import finish
from symdistill.evaluation.metrics import bootstrap_interval, paired_difference
from symdistill.records import Item, Knowledge, Verdict, content_hash
from symdistill.tables import read_records

ARMS: dict[str, dict[str, Any]] = {
    "full": {},
    "no-guards": {
        "selection": {
            "specificity_quantile": None,
            "max_swap_accept_share": None,
            "per_continuation": None,
            "per_concept": None,
            "per_pattern_share": None,
            "order_by": "score",
        }
    },
    "no-constraints": {"constraints": {"enforce": False}, "rounds": 1},
    "no-self-imitation": {"self_imitation": False, "rounds": 1},
}
# As in the packaged demo, with fewer samples; what is not named here has its default.
COMMON: dict[str, Any] = {
    "prompts": {"per_concept": 5, "samples": 2},
    "critic": {"target_precision": 0.5},
    "swaps": 2,
    "student": {"epochs": 5, "batch_size": 8, "learning_rate": 5e-4},
}
JUDGE_SETS = ("comve_train", "creak_train")
JUDGE_ROWS = 1000  # per set; about half of them valid


def main() -> None:
    """Run what is missing, then print the figures."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options.add_argument("--concepts", type=int, default=30)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    options.add_argument("--data", type=Path, default=Path("../shared/data"))
    options.add_argument("--out", type=Path, default=Path("runs/bench-i2d2"))
    options.add_argument("--threads", type=int, default=2)
    given = options.parse_args()
    if "full" not in given.arms:
        options.error("the arm `full` is what the others are compared with: name it too")

    import torch
    from transformers.utils import logging

    torch.set_num_threads(given.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    judge_labels = _judge_labels(given.data, given.out)
    metrics: dict[str, dict[int, dict[str, Any]]] = {arm: {} for arm in given.arms}
    for seed in given.seeds:
        for arm in given.arms:
            metrics[arm][seed] = _run(arm, seed, given, judge_labels)
    rows = {arm: _arm(given.out, arm, given.seeds, metrics[arm]) for arm in given.arms}
    full = rows["full"]
    critics = [metrics["full"][seed]["critics"][0] for seed in given.seeds]
    rows["genericskb"] = _genericskb(given, judge_labels)
    rows["critic_test_labels"] = critics[0]["labels"]
    headline = {
        "gain_independent": full["gain_independent"],
        "gain_interval": full["gain_independent_interval"],
        "specificity_change": full["specificity_change"],
        "specificity_change_interval": full["specificity_change_interval"],
        "critic_auc": float(np.mean([one["auc"] for one in critics])),
        "critic_auc_likelihood": float(np.mean([one["auc_likelihood"] for one in critics])),
        "critic_auc_negation": float(np.mean([one["auc_negation"] for one in critics])),
        "judge": "human labels" if judge_labels else "packaged labels of the split judge",
        "model": "SmolLM2-135M-Instruct, Q4_1 dequantised",
        "seeds": given.seeds,
    }
    finish("i2d2", headline, rows)


def _run(
    arm: str, seed: int, given: argparse.Namespace, judge_labels: Path | None
) -> dict[str, Any]:
    """One arm with one seed, from where it stands."""
    from symdistill.progress import Progress
    from symdistill.recipes import run_recipe
    from symdistill.recipes.i2d2 import I2D2Config

    class Tell(Progress):
        def say(self, line: str) -> None:
            print(f"  {line}", flush=True)

    folder = given.out / f"seed-{seed}" / arm
    settings: dict[str, Any] = {
        "name": arm,
        "seed": seed,
        "rounds": given.rounds,
        "concepts": {"limit": given.concepts},
        **COMMON,
        **ARMS[arm],
    }
    if judge_labels is not None:
        settings["judge"] = {"labels": [str(judge_labels)]}
    config = I2D2Config.model_validate(settings)
    print(f"seed {seed}, {arm}", flush=True)
    if arm != "full":
        _take_round_0(given.out / f"seed-{seed}" / "full", folder, config)
    return run_recipe(config, folder, progress=Tell())


def _take_round_0(full: Path, folder: Path, config: Any) -> None:
    """Begin a run with the steps of `full`; those that read other settings run again."""
    from symdistill.config import dump_config

    if (folder / "config.yaml").exists() or not (full / "metrics.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("steps", "critics", "judge"):
        shutil.copytree(full / part, folder / part, dirs_exist_ok=True)
    shutil.copy(full / "ledger.sqlite", folder / "ledger.sqlite")
    (folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")


def _arm(
    out: Path, arm: str, seeds: Sequence[int], metrics: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any]:
    """An arm's figures per round over all seeds, and the change from round 0 to the last."""
    rounds = [_round(out, arm, seeds, metrics, number) for number in _numbers(metrics)]
    first, last = rounds[0], rounds[-1]
    row: dict[str, Any] = {"rounds": [{**one} for one in rounds]}
    for name in ("independent", "critic", "specificity"):
        before, after = first["_" + name], last["_" + name]
        change = paired_difference(after[0], before[0], after[1], before[1], seed=0)
        key = {"independent": "gain_independent", "critic": "gain_critic"}.get(
            name, "specificity_change"
        )
        row[key] = change.estimate
        row[f"{key}_interval"] = [change.low, change.high]
    for one in row["rounds"]:
        for key in [key for key in one if key.startswith("_")]:
            del one[key]
    return row


def _numbers(metrics: Mapping[int, Mapping[str, Any]]) -> list[int]:
    return [one["round"] for one in next(iter(metrics.values()))["rounds"]]


def _round(
    out: Path,
    arm: str,
    seeds: Sequence[int],
    metrics: Mapping[int, Mapping[str, Any]],
    number: int,
) -> dict[str, Any]:
    """One round of an arm over all seeds; values per line under keys with an underscore."""
    values: dict[str, tuple[list[float], list[str]]] = {
        name: ([], []) for name in ("independent", "critic", "specificity")
    }
    for seed in seeds:
        folder = out / f"seed-{seed}" / arm
        cut = metrics[seed]["critics"][0]["cut"]
        lines = read_records(folder / "steps" / f"{number}-measured.parquet", Knowledge)
        verdicts = read_records(folder / "steps" / f"{number}-verdicts.parquet", Verdict)
        group = {line.id: f"{seed} {line.item_id}" for line in lines}
        for one in verdicts:
            kind = one.judge.split("@")[0]
            name = {"critic": "critic", "judge": "independent"}.get(kind)
            if name and one.score is not None:
                accepted = one.score >= (cut if name == "critic" else 0.5)
                values[name][0].append(float(accepted))
                values[name][1].append(group[one.knowledge_id])
        for line in lines:
            if line.fields["specificity"] is not None:
                values["specificity"][0].append(line.fields["specificity"])
                values["specificity"][1].append(group[line.id])
    of_seeds = [metrics[seed]["rounds"][number] for seed in seeds]
    row: dict[str, Any] = {"round": number}
    for name, (numbers, groups) in values.items():
        low, high = bootstrap_interval(np.array(numbers), groups, seed=0)
        row[name] = float(np.mean(numbers))
        row[f"{name}_interval"] = [float(low), float(high)]
        row[f"_{name}"] = (np.array(numbers), groups)
    for key in ("sampled", "written", "kept"):
        row[key] = sum(one[key] for one in of_seeds)
    for key in (
        "finished_share", "specificity_per_token", "specificity_kept", "swap_accept_share",
        "rarity", "words_mean", "distinct_2", "soft_uniqueness", "precision_estimate",
    ):  # fmt: skip
        measured = [one[key] for one in of_seeds if one[key] is not None]
        row[key] = float(np.mean(measured)) if measured else None
    return row


def _judge_labels(data: Path, out: Path) -> Path | None:
    """Human-labelled statements in the form the judge reads; None where the data is absent."""
    sets = [data / "statements" / f"{name}.jsonl.gz" for name in JUDGE_SETS]
    if not all(path.is_file() for path in sets):
        print(f"no statements under {data}: the judge learns from the packaged labels", flush=True)
        return None
    out.mkdir(parents=True, exist_ok=True)
    target = out / "judge_labels.jsonl"
    with target.open("w", encoding="utf-8") as stream:
        for path in sets:
            rows = sorted(_rows(path), key=lambda row: content_hash(["judge", row["id"]]))
            for row in rows[:JUDGE_ROWS]:
                label = {
                    "text": row["text"],
                    "concept": f"{path.stem} {row['group']}",
                    "label": "valid" if row["label"] else "invalid",
                    "split": "judge",
                    "source": "written",
                    "labeller": f"human ({path.stem.split('.')[0]})",
                }
                stream.write(json.dumps(label, ensure_ascii=False) + "\n")
    return target


def _genericskb(given: argparse.Namespace, judge_labels: Path | None) -> dict[str, Any] | None:
    """The judge on GenericsKB sentences about the same concepts, beside what `full` kept.

    The judge sees a text and nothing else, so it is blind to where a line comes from.
    """
    path = given.data / "concepts" / "genericskb_sample.jsonl.gz"
    if not path.is_file() or "full" not in given.arms:
        return None
    from symdistill.critic import DecoderJudge
    from symdistill.models import resolve

    by_term: dict[str, list[str]] = {}
    for row in _rows(path):
        by_term.setdefault(row["term"].lower(), []).append(row["text"])
    model = resolve("embedded:smollm2").folder
    found: dict[str, tuple[list[float], list[str]]] = {"genericskb": ([], []), "kept": ([], [])}
    for seed in given.seeds:
        folder = given.out / f"seed-{seed}" / "full"
        judge = DecoderJudge.load(folder / "judge" / "0", model=model)
        items = read_records(folder / "tables" / "items.parquet", Item)
        kept = [
            one.knowledge_id
            for one in read_records(folder / "tables" / "verdicts.parquet", Verdict)
            if one.judge == "selection" and one.score == 1.0
        ]
        lines = read_records(folder / "tables" / "knowledge.parquet", Knowledge)
        concepts = {item.id: item.text for item in items if item.text.lower() in by_term}
        ours = [line for line in lines if line.id in set(kept) and line.item_id in concepts]
        theirs = [(id_, text) for id_, term in concepts.items() for text in by_term[term][:10]]
        for name, texts, ids in (
            ("kept", [line.text for line in ours], [line.item_id for line in ours]),
            ("genericskb", [text for _, text in theirs], [id_ for id_, _ in theirs]),
        ):
            if texts:
                found[name][0].extend((judge.score(texts) >= 0.5).astype(float).tolist())
                found[name][1].extend(f"{seed} {id_}" for id_ in ids)
    row: dict[str, Any] = {}
    for name, (accepted, groups) in found.items():
        if accepted:
            low, high = bootstrap_interval(np.array(accepted), groups, seed=0)
            row[name] = {
                "lines": len(accepted),
                "concepts": len(set(groups)),
                "accept_rate_independent": float(np.mean(accepted)),
                "interval": [float(low), float(high)],
            }
    return row


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        yield from map(json.loads, stream)


if __name__ == "__main__":
    main()
