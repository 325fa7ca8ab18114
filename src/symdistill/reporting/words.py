"""Numbers as words.

Takes the plain values of metrics.json; gives short strings for the page and the terminal. A
number that is missing, null or not finite is "not measured", never 0. What a sentence claims
(a rise, a fall, "better than") is worked out here from the numbers, so that the page and the
terminal say the same.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from symdistill.reporting.fields import Interval, Row, interval, number, part, rows

NOT_MEASURED = "not measured"

Say = Callable[[float | None], str]
"""How a number of some kind is written."""


# -- writing ------------------------------------------------------------------------------------


def rate(value: float | None) -> str:
    """A share in 0..1 with two digits, or with as many more as keep it from reading 0 or 1."""
    if value is None:
        return NOT_MEASURED
    for digits in (2, 3, 4):
        text = f"{value:.{digits}f}"
        if value in (0, 1) or float(text) not in (0, 1):
            return text
    return f"{value:.2g}" if value < 0.5 else "> 0.9999"


def amount(value: float | None) -> str:
    """A measure without a fixed range (nats, words) with two digits."""
    return NOT_MEASURED if value is None else f"{value:.2f}".replace("-", "−")


def count(value: float | None) -> str:
    """A whole number with a comma between thousands."""
    return NOT_MEASURED if value is None else f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 4.2 s, 3 min 20 s, 1 h 05 min."""
    if seconds is None:
        return NOT_MEASURED
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(whole / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def with_interval(value: float | None, ends: Interval | None, say: Say = rate) -> str:
    """A value and its 95 % interval: 0.83 (0.74 to 0.90)."""
    if value is None:
        return NOT_MEASURED
    return f"{say(value)} ({say(ends[0])} to {say(ends[1])})" if ends else say(value)


# -- sentences ----------------------------------------------------------------------------------


def round_name(row: Row) -> str:
    """How a round is called: "round 0"."""
    which = number(row, "round")
    return "round ?" if which is None else f"round {which:.0f}"


def summary_sentence(metrics: Row) -> str:
    """The run in one sentence: lines written and kept, estimated precision, not certified."""
    done = rows(metrics, "rounds")
    if not done:
        return "No round has been finished yet."
    told = done if len(done) <= 4 else [done[0], done[-1]]
    clauses = []
    for place, row in enumerate(told):
        written, kept = number(row, "written"), number(row, "kept")
        lines = " distinct lines" if place == 0 else ""
        first = NOT_MEASURED if written is None else count(written) + lines
        clauses.append(f"{round_name(row)} wrote {first} and kept {count(kept)}")
    between = "; " if told is done else f"; … {len(done)} rounds …; "
    text = between.join(clauses)
    return f"{text[0].upper()}{text[1:]}; {precision_words(metrics)}"


def precision_words(metrics: Row, where: str = "") -> str:
    """The estimated precision of the newest round that has one, and that it is an estimate."""
    measured = [
        row for row in rows(metrics, "rounds") if number(row, "precision_estimate") is not None
    ]
    if not measured:
        said = f"estimated precision {NOT_MEASURED}."
    else:
        last = measured[-1]
        value = with_interval(
            number(last, "precision_estimate"), interval(last, "precision_interval")
        )
        said = f"estimated precision of what {round_name(last)} kept {value}."
    return f"{said} {certified_words(metrics, where)}"


def certified_words(metrics: Row, where: str = "") -> str:
    """Whether a certificate stands behind the kept lines."""
    holding = [one["sentence"] for one in rows(metrics, "certificates") if one["voided"] is None]
    if holding:
        return f"Certified: {' '.join(holding)}"
    return f"NOT CERTIFIED: an estimate, see “What the estimate is not”{where}."


def certificate_sentences(metrics: Row) -> list[str]:
    """What was certified of a run, and what is certified no more."""
    return [
        f"Certified: {one['sentence']}"
        if one["voided"] is None
        else f"Void, for {one['voided']}: {one['sentence']}"
        for one in rows(metrics, "certificates")
    ]


def drift_sentences(metrics: Row) -> list[tuple[bool, str]]:
    """What accept rate and specificity did, in words: (is it a warning, sentence) pairs.

    The first and the last round that have both are compared; if those two do not show a rise
    bought with emptier lines, any two rounds in a row that do are named.
    """
    both = [
        row
        for row in rows(metrics, "rounds")
        if number(row, "accept_rate") is not None and number(row, "specificity") is not None
    ]
    if len(both) < 2:
        return [
            (
                False,
                "Accept rate and specificity were not both measured in two rounds, so whether "
                "lines grew emptier cannot be said.",
            )
        ]
    overall = (both[0], both[-1])
    if _bought(*overall):
        return [(True, _drift(*overall))]
    steps = [(a, b) for a, b in pairwise(both) if _bought(a, b)]
    return [(True, _drift(a, b)) for a, b in steps] + [(False, _drift(*overall))]


def _bought(first: Row, last: Row) -> bool:
    return _change(first, last, "accept_rate") > 0 and _change(first, last, "specificity") < 0


def _change(first: Row, last: Row, key: str) -> float:
    before, after = number(first, key), number(last, key)
    return 0.0 if before is None or after is None else after - before


def _drift(first: Row, last: Row) -> str:
    accept = _moved(first, last, "accept_rate", rate)
    specificity = _moved(first, last, "specificity", amount)
    said = (
        f"From {round_name(first)} to {round_name(last)} the critic's accept rate {accept} "
        f"and specificity {specificity} nats"
    )
    if not _bought(first, last):
        return f"{said}."
    ends = interval(first, "specificity_interval"), interval(last, "specificity_interval")
    doubt = ""
    if ends[0] and ends[1] and ends[1][1] >= ends[0][0]:
        doubt = " The two specificity intervals overlap, so the fall may be chance."
    return f"{said}: higher acceptance bought with emptier lines.{doubt}{_shorter(first, last)}"


def _shorter(first: Row, last: Row) -> str:
    """A word on length, which lowers a line's nats without making its words emptier."""
    if _change(first, last, "words_mean") >= 0 or number(first, "specificity_per_token") is None:
        return ""
    words = _moved(first, last, "words_mean", amount)
    per_token = _moved(first, last, "specificity_per_token", amount)
    return (
        f" Lines also grew shorter: words per line {words}, and specificity per token {per_token}."
    )


def _moved(first: Row, last: Row, key: str, say: Say) -> str:
    before, after = say(number(first, key)), say(number(last, key))
    change = _change(first, last, key)
    if before == after or change == 0:
        return f"stayed at {after}"
    return f"{'rose' if change > 0 else 'fell'} from {before} to {after}"


def review_sentence(metrics: Row) -> str | None:
    """How many lines wait for a person to look at them; None where there are none."""
    review = part(metrics, "review")
    marked = number(review, "marked")
    if not marked:
        return None
    screened = count(number(review, "screened"))
    return (
        f"{count(marked)} of {screened} lines are marked for review (tables/review.parquet); they "
        "were kept all the same."
    )


def critic_sentence(critic: Row) -> str:
    """The critic's AUC beside the two baselines, and whether it is above them."""
    auc, ends = number(critic, "auc"), interval(critic, "auc_interval")
    baselines = {
        "the teacher's likelihood alone": number(critic, "auc_likelihood"),
        "“negated means false”": number(critic, "auc_negation"),
    }
    beside = "; ".join(f"{name}: {rate(value)}" for name, value in baselines.items())
    said = f"AUC on held-out concepts: {with_interval(auc, ends)}; {beside}."
    if critic.get("target_reached") is False:
        target, best = number(critic, "target_precision"), number(critic, "cut_precision")
        said = (
            f"No cut reaches the target precision of {rate(target)} on the labelled lines; the "
            f"cut is the best there is, {rate(best)}. {said}"
        )
    known = [value for value in baselines.values() if value is not None]
    if auc is None or len(known) < 2:
        return said
    if auc <= max(known):
        return f"{said} The critic is no better than the best of these baselines."
    if ends is not None and ends[0] <= max(known):
        return f"{said} The critic's interval reaches down to a baseline: it may be no better."
    return f"{said} The critic is above both baselines" + (
        ", interval included." if ends is not None else "."
    )
