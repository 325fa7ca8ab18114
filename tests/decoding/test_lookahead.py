"""Lookahead against the same thing done slowly, one text at a time, on a table model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symdistill.errors import InputError

torch = pytest.importorskip("torch")

from tests.decoding.toy import ToyRows  # noqa: E402

from symdistill.decoding import lookahead  # noqa: E402
from symdistill.decoding.lookahead import (  # noqa: E402
    LEAST_LOG_PROBABILITY,
    Lookahead,
    Wanted,
    look_ahead,
)

pytestmark = pytest.mark.unit

Text = tuple[int, ...]
Place = tuple[Text, Any]  # a text, and the logits that are read after it


def written(
    texts: Sequence[Text], vocabulary: int, seed: int = 0, sharpness: float = 2.0
) -> tuple[ToyRows, Any]:
    """Rows whose prompt is a text without its last token, which has just been written."""
    rows = ToyRows([text[:-1] for text in texts], vocabulary, seed, sharpness=sharpness)
    rows.start()
    return rows, rows.step(torch.tensor([text[-1] for text in texts]))


def softmax(logits: Any) -> Any:
    each = np.exp(logits - logits.max())
    return each / each.sum()


def greedy_places(rows: ToyRows, text: Text, steps: int, ends: Sequence[int]) -> Iterator[Place]:
    for _ in range(steps):
        logits = rows.logits_after(text)
        yield text, logits
        text = (*text, int(logits.argmax()))
        if text[-1] in ends:
            return


def soft_places(
    rows: ToyRows, text: Text, steps: int, ends: Sequence[int], temperature: float
) -> Iterator[Place]:
    logits = rows.logits_after(text)
    for _ in range(steps):
        yield text, logits
        each = [rows.logits_after((*text, token)) for token in range(rows.vocabulary_size)]
        text = (*text, int(logits.argmax()))
        logits = softmax(logits / temperature) @ np.stack(each)
        if text[-1] in ends:
            return


def beam_places(
    rows: ToyRows, text: Text, steps: int, ends: Sequence[int], width: int
) -> Iterator[Place]:
    yield text, rows.logits_after(text)
    beam: list[tuple[float, Text]] = [(0.0, text)]
    paths: list[Text] = []
    for _ in range(steps - 1):
        grown = [
            (score + np.log(softmax(rows.logits_after(one))[token]), (*one, token))
            for score, one in beam
            for token in range(rows.vocabulary_size)
            if token not in ends
        ]
        beam = sorted(grown, reverse=True)[:width]
        paths = [one for _, one in beam]
    for path in paths:
        for end in range(len(text) + 1, len(path) + 1):
            yield path[:end], rows.logits_after(path[:end])


def slowly(
    rows: ToyRows, places: Iterator[Place], text: Text, wanted: Wanted, how: Lookahead, left: int
) -> float:
    """The definition: the best phrase at the best place."""
    values = [LEAST_LOG_PROBABILITY]
    for before, logits in places:
        ahead = len(before) - len(text)
        for phrase in wanted.anywhere + (() if ahead else wanted.now):
            if ahead + len(phrase) > left:
                continue
            log_p = np.log(softmax(logits)[phrase[0]])
            for index in range(1, len(phrase)):
                after = softmax(rows.logits_after(before + phrase[:index]))
                log_p += np.log(after[phrase[index]])
            values.append(log_p / len(phrase) if how.phrase_score == "mean" else log_p)
    return how.weight * max(values) if wanted.anywhere or wanted.now else 0.0


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    vocabulary = draw(st.integers(2, 5))
    tokens = st.integers(0, vocabulary - 1)
    phrases = st.lists(st.lists(tokens, min_size=1, max_size=3).map(tuple), max_size=4).map(tuple)
    texts = draw(
        st.lists(st.lists(tokens, min_size=2, max_size=4).map(tuple), min_size=1, max_size=3)
    )
    return {
        "vocabulary": vocabulary,
        "texts": texts,
        "wanted": [Wanted(draw(phrases), draw(phrases)) for _ in texts],
        "length": draw(st.integers(1, 4)),
        "left": draw(st.integers(1, 6)),
        "ends": draw(st.lists(tokens, max_size=vocabulary - 1, unique=True)),
        "seed": draw(st.integers(0, 99)),
        "phrase_score": draw(st.sampled_from(["product", "mean"])),
        "many": draw(st.sampled_from([0, 4, 1000])),
    }


@given(cases(), st.sampled_from(["greedy", "soft", "beam"]), st.integers(1, 6))
@settings(max_examples=150)
def test_equals_the_definition(case: dict[str, Any], kind: Any, width: int) -> None:
    how = Lookahead(
        kind, case["length"], 0.5, width, temperature=0.7, phrase_score=case["phrase_score"]
    )
    rows, logits = written(case["texts"], case["vocabulary"], case["seed"])
    before, ends, left = list(rows.texts), case["ends"], case["left"]
    steps = min(how.length, left)
    expected = []
    for text, wanted in zip(case["texts"], case["wanted"], strict=True):
        places = {
            "greedy": lambda text=text: greedy_places(rows, text, steps, ends),
            "soft": lambda text=text: soft_places(rows, text, steps, ends, how.temperature),
            "beam": lambda text=text: beam_places(rows, text, steps, ends, width),
        }[kind]()
        expected.append(slowly(rows, places, text, wanted, how, left))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookahead, "MANY_PLACES", case["many"])
        h = look_ahead(rows, logits, case["wanted"], how, written=1, left=left, end_token_ids=ends)
    assert h.dtype == torch.float32
    assert h.tolist() == pytest.approx(expected, abs=1e-4)
    assert rows.texts == before


@given(cases())
@settings(max_examples=50)
def test_samples_are_read_along_what_was_drawn(case: dict[str, Any]) -> None:
    how = Lookahead("sample", case["length"], 0.5, 3, phrase_score=case["phrase_score"])
    rows, logits = written(case["texts"], case["vocabulary"], case["seed"])
    drawn: list[list[int]] = []
    step = ToyRows.step

    def record(self: ToyRows, tokens: Any) -> Any:
        drawn.append(tokens.tolist())
        return step(self, tokens)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ToyRows, "step", record)
        h = look_ahead(
            rows,
            logits,
            case["wanted"],
            how,
            written=1,
            left=case["left"],
            end_token_ids=case["ends"],
        )
    wanting = [row for row, one in enumerate(case["wanted"]) if one.anywhere or one.now]
    expected = [0.0] * len(h)
    for index, row in enumerate(wanting):
        text, places = case["texts"][row], []
        for path in range(3):
            before = text
            for position in range(min(how.length, case["left"])):
                places.append((before, rows.logits_after(before)))
                if position == len(drawn):
                    break
                before = (*before, drawn[position][3 * index + path])
                if before[-1] in case["ends"]:
                    break
        expected[row] = slowly(rows, iter(places), text, case["wanted"][row], how, case["left"])
    assert h.tolist() == pytest.approx(expected, abs=1e-4)


WANTED = Wanted(((1,), (2, 3), (3, 3, 0)), ((0, 2),))
TEXTS = [(0, 1), (2, 3, 1), (3,) * 3]


def ahead(how: Lookahead, texts: Sequence[Text] = TEXTS, sharpness: float = 2.0) -> list[float]:
    rows, logits = written(texts, 4, seed=5, sharpness=sharpness)
    h = look_ahead(rows, logits, [WANTED] * len(texts), how, written=1, left=9, end_token_ids=[])
    return [float(one) for one in h]


def test_soft_is_greedy_when_cold() -> None:
    soft = ahead(Lookahead("soft", temperature=1e-3))
    assert soft == pytest.approx(ahead(Lookahead("greedy")), abs=1e-5)


@pytest.mark.parametrize("score", ["product", "mean"])
def test_a_beam_of_everything_holds_the_greedy_continuation(score: Any) -> None:
    wide = ahead(Lookahead("beam", 4, width=64, phrase_score=score))
    greedy = ahead(Lookahead("greedy", 4, phrase_score=score))
    assert all(a >= b - 1e-6 for a, b in zip(wide, greedy, strict=True))


def test_many_samples_find_what_a_beam_of_everything_finds() -> None:
    everything = ahead(Lookahead("beam", 2, width=64), sharpness=0.5)
    assert ahead(Lookahead("sample", 2, width=64), sharpness=0.5) == pytest.approx(everything)
    few = [ahead(Lookahead("sample", 3, width=1, seed=seed)) for seed in range(9)]
    everything = ahead(Lookahead("beam", 3, width=64))
    assert all(a <= b + 1e-6 for one in few for a, b in zip(one, everything, strict=True))
    assert len(set(map(tuple, few))) > 1


def test_samples_follow_the_tempered_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    step = ToyRows.step
    rows, logits = written([(0, 1)], 4)
    monkeypatch.setattr(
        ToyRows, "step", lambda self, tokens: (drawn.extend(tokens.tolist()), step(self, tokens))[1]
    )
    for seed in range(40):
        how = Lookahead("sample", 2, width=64, temperature=1.5, seed=seed)
        look_ahead(rows, logits, [WANTED], how, written=1, left=9, end_token_ids=[])
    shares = np.bincount(drawn, minlength=4) / len(drawn)
    assert shares == pytest.approx(softmax(logits[0].numpy() / 1.5), abs=0.03)


@pytest.mark.parametrize("kind", ["greedy", "soft", "sample", "beam"])
def test_a_row_alone_and_in_a_batch_gets_the_same_again_and_again(kind: Any) -> None:
    how = Lookahead(kind, 4, width=3, seed=7)
    together = ahead(how)
    assert ahead(how) == together
    assert ahead(how, TEXTS[::-1])[::-1] == pytest.approx(together, abs=1e-6)
    assert [ahead(how, [text])[0] for text in TEXTS] == pytest.approx(together, abs=1e-6)


class Calls:
    """Counts what is asked of any `ToyRows`: calls of the model and rows computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[int] = []  # rows of each
        self.phrases: list[int] = []
        for name, counted in (
            ("step", self.steps),
            ("step_embedded", self.steps),
            ("log_probabilities", self.phrases),
        ):
            monkeypatch.setattr(ToyRows, name, self._counting(getattr(ToyRows, name), counted))

    def _counting(self, asked: Any, counted: list[int]) -> Any:
        def ask(rows: ToyRows, *args: Any) -> Any:
            counted.append(len(args[0]))
            return asked(rows, *args)

        return ask


@pytest.mark.parametrize(
    ("how", "wanted", "left"),
    [
        (Lookahead(), [Wanted(), Wanted()], 9),
        (Lookahead(weight=0), [WANTED, WANTED], 9),
        (Lookahead(), [WANTED, WANTED], 0),
    ],
)
def test_nothing_to_look_for_costs_nothing(
    how: Lookahead, wanted: list[Wanted], left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, logits = written(TEXTS[:2], 4)
    calls = Calls(monkeypatch)
    h = look_ahead(rows, logits, wanted, how, written=1, left=left, end_token_ids=[])
    assert h.tolist() == [0, 0]
    assert calls.steps == calls.phrases == []


@pytest.mark.parametrize(
    ("kind", "width"), [("greedy", 1), ("soft", 1), ("sample", 3), ("beam", 3)]
)
def test_only_rows_that_want_something_are_computed(
    kind: Any, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, logits = written(TEXTS, 4)
    calls = Calls(monkeypatch)
    wanted = [Wanted(((1,),)), Wanted(), Wanted(now=((2,),))]
    how = Lookahead(kind, 5, width=3)
    h = look_ahead(rows, logits, wanted, how, written=1, left=9, end_token_ids=[])
    assert calls.steps == [2 * width] * 4
    assert calls.phrases == []
    assert h[1] == 0 and h[0] < 0 and h[2] < 0
    # What can only come at once is read from the logits at hand.
    assert h[2].item() == pytest.approx(0.175 * logits[2].log_softmax(0)[2].item())


def test_long_phrases_cost_one_call_and_hopeless_places_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, logits = written(TEXTS, 4)
    calls = Calls(monkeypatch)
    many = Wanted(((0, 1), (1, 2, 3)))
    monkeypatch.setattr(lookahead, "MANY_PLACES", 1000)
    every = look_ahead(rows, logits, [many] * 3, Lookahead(), written=1, left=9, end_token_ids=[])
    assert (len(calls.steps), calls.phrases) == (4, [3 * 5 * 2])

    # Where there are many places, the likeliest of each row spares most of the others.
    calls.phrases.clear()
    monkeypatch.setattr(lookahead, "MANY_PLACES", 4)
    assert every.equal(
        look_ahead(rows, logits, [many] * 3, Lookahead(), written=1, left=9, end_token_ids=[])
    )
    assert calls.phrases[0] == 3 and sum(calls.phrases) < 3 * 5 * 2

    # A phrase that begins with a single token that is wanted too cannot be the best one.
    calls.phrases.clear()
    both = Wanted(((0,), (0, 1), (0, 1, 2)))
    look_ahead(rows, logits, [both] * 3, Lookahead(), written=1, left=9, end_token_ids=[])
    assert calls.phrases == []


@pytest.mark.parametrize("kind", ["sample", "beam"])
def test_a_phrase_is_scored_once_where_all_paths_begin(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, logits = written(TEXTS, 4)
    calls = Calls(monkeypatch)
    wanted, how = Wanted(((2, 3),)), Lookahead(kind, 1, width=8)
    look_ahead(rows, logits, [wanted] * 3, how, written=1, left=9, end_token_ids=[])
    assert calls.phrases == [3]


def test_what_does_not_fit_is_the_least_there_is() -> None:
    rows, logits = written(TEXTS[:1], 4)
    h = look_ahead(
        rows, logits, [Wanted(((1, 2),))], Lookahead(weight=1), written=1, left=1, end_token_ids=[]
    )
    assert h.tolist() == [LEAST_LOG_PROBABILITY]


def test_phrases_are_scored_after_all_that_was_written() -> None:
    rows = ToyRows([(0,), (1,)], 3)
    rows.start()
    rows.step(torch.tensor([1, 2]))
    logits = rows.step(torch.tensor([2, 2]))
    texts, how = [(0, 1, 2), (1, 2, 2)], Lookahead(length=3)
    wanted = Wanted(((1, 1),))
    h = look_ahead(rows, logits, [wanted] * 2, how, written=2, left=4, end_token_ids=[])
    assert h.tolist() == pytest.approx(
        [slowly(rows, greedy_places(rows, text, 3, []), text, wanted, how, 4) for text in texts],
        abs=1e-5,
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "best"},
        {"length": 0},
        {"length": 65},
        {"weight": -0.1},
        {"weight": float("nan")},
        {"width": 0},
        {"width": 65},
        {"shortlist": 0.5},
        {"temperature": 0},
        {"phrase_score": "sum"},
        {"seed": -1},
    ],
)
def test_settings_outside_their_ranges_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"expected {next(iter(wrong))} .*; got .*; change it"):
        Lookahead(**wrong)


def test_the_whole_tree_is_what_the_widest_beam_reads() -> None:
    how = Lookahead("beam", 3, 1.0, width=9)
    rows, logits = written([(0, 1)], 3)
    wanted = Wanted(((2, 1), (0, 0, 2)))
    h = look_ahead(rows, logits, [wanted], how, written=1, left=9, end_token_ids=[])
    places = (
        ((0, 1, *path), rows.logits_after((0, 1, *path)))
        for steps in range(3)
        for path in itertools.product(range(3), repeat=steps)
    )
    assert h.item() == pytest.approx(slowly(rows, places, (0, 1), wanted, how, 9), abs=1e-5)
