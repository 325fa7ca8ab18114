"""The tables of the docs, from the committed results: `python -m benchmarks.tables`."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.result import FOLDER


def main() -> None:
    """Print every table whose result is there."""
    tables = {
        "i2d2": i2d2,
        "world": world,
        "critic": critic,
        "neurologic": neurologic,
        "reasoning": reasoning,
    }
    for name, table in tables.items():
        path = FOLDER / f"{name}.json"
        if path.is_file():
            print(f"\n{name}\n")
            table(json.loads(path.read_text(encoding="utf-8")))


def i2d2(result: dict[str, Any]) -> None:
    """Per arm and round: accept rates with intervals, and what the lines say."""
    _row("arm", "round", "written", "kept", "judge", "critic", "specificity (nats)",
         "per token", "swap", "words", "finished")  # fmt: skip
    _row(*["---"] * 11)
    for arm, found in result["rows"].items():
        for one in found.get("rounds", []) if isinstance(found, dict) else []:
            _row(arm, one["round"], one["written"], one["kept"],
                 _ranged(one, "independent"), _ranged(one, "critic"),
                 _ranged(one, "specificity"), _two(one["specificity_per_token"]),
                 _two(one["swap_accept_share"]), f"{one['words_mean']:.1f}",
                 _two(one["finished_share"]))  # fmt: skip
    print()
    _row("arm", "gain, judge", "gain, critic", "specificity change (nats)")
    _row(*["---"] * 4)
    for arm, found in result["rows"].items():
        if isinstance(found, dict) and "gain_independent" in found:
            _row(arm, *(_ranged(found, key) for key in
                        ("gain_independent", "gain_critic", "specificity_change")))  # fmt: skip


def world(result: dict[str, Any]) -> None:
    """Per arm: shares of true and of vacuous lines by round, means over the worlds."""
    _row("arm", "true, by round", "vacuous, by round", "true of kept, round 0")
    _row(*["---"] * 4)
    for arm, of_seeds in result["rows"].items():
        rounds = range(len(of_seeds[0]))
        shares = [
            ", ".join(_two(sum(rows[r][key] for rows in of_seeds) / len(of_seeds)) for r in rounds)
            for key in ("true_share", "vacuous_share")
        ]
        _row(arm, *shares, _two(result["kept_true"][arm]))


def critic(result: dict[str, Any]) -> None:
    """Per data set: AUCs, and what a fit takes."""
    keys = (
        "auc_text",
        "auc_likelihood",
        "auc_surface",
        "auc_tfidf",
        "auc_negation",
        "auc_transfer",
    )
    _row("set", "auc", *keys, "seconds")
    _row(*["---"] * 9)
    for name, found in result["rows"].items():
        auc = _ranged(found, "auc")
        _row(name, auc, *(_two(found.get(key)) for key in keys), f"{found['seconds']:.0f}")


def neurologic(result: dict[str, Any]) -> None:
    """Per device: what constrained decoding costs, and what it brings."""
    for device, parts in result["rows"].items():
        print(f"{device}: seconds a sentence, as a multiple of generate(num_beams=k)\n")
        _row("model", "k", "generate (s)", "ours", "ours, no constraint", "CTranslate2",
             "greedy lookahead", "bookkeeping")  # fmt: skip
        _row(*["---"] * 8)
        for name, one in parts.get("speed", {}).items():
            ahead = parts.get("lookahead", {}).get(name, {})
            detail = parts.get("anatomy", {}).get(name, {})
            share = parts.get("bookkeeping", {}).get(name, {}).get("share")
            _row(one["model"], str(one["beams"]), _two(one["seconds_per_sentence"]["generate"]),
                 _two(one["overhead"]), _two(detail.get("overhead_empty")),
                 _two(detail.get("overhead_ctranslate2")), _two(ahead.get("overhead")),
                 "-" if share is None else f"{100 * share:.1f} %")  # fmt: skip
        print()
        _row("system", "beams", "items", "every clause met, ended", "log-probability", "ROUGE-L",
             "BLEU-4")  # fmt: skip
        _row(*["---"] * 7)
        whole = (pair for pair in parts.get("quality", {}).items() if "rouge_l" in pair[1])
        for name, one in whole:
            _row(name, str(one["beams"]), str(one["items"]), _ranged(one, "coverage"),
                 _ranged(one, "log_probability"), _ranged(one, "rouge_l"),
                 _ranged(one, "bleu_4"))  # fmt: skip


def reasoning(result: dict[str, Any]) -> None:
    """Per task: the arms' accuracy, what differs, and what each filter lets through."""
    for task, found in result["headline"].items():
        print(f"{task}\n")
        _row("what", "accuracy or difference", "p", "by seed")
        _row(*["---"] * 4)
        for name, one in found.items():
            if isinstance(one, dict) and "interval" in one:
                low, high = one["interval"]
                value = one.get("accuracy", one.get("difference"))
                seeds = ", ".join(f"{x:.2f}" for x in one["by_seed"])
                p = f"{one['p']:.3f}" if "p" in one else "-"
                _row(name, f"{value:.2f} ({low:.2f} to {high:.2f})", p, seeds)
        filters = found.get("right_for_a_wrong_reason", {})
        if filters:
            print()
            _row(
                "filter", "chains kept", "valid", "right for a wrong reason", "of those let through"
            )
            _row(*["---"] * 5)
        for name, one in filters.items():
            _row(name, one["kept"], *(f"{one[key]:.2f}" for key in (
                "valid_share_of_kept", "share_of_kept", "let_through")))  # fmt: skip
        print()


def _ranged(row: dict[str, Any], key: str) -> str:
    low, high = row[f"{key}_interval"]
    return f"{row[key]:.2f} ({low:.2f} to {high:.2f})"


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _row(*cells: Any) -> None:
    print(f"| {' | '.join(str(cell) for cell in cells)} |")


if __name__ == "__main__":
    main()
