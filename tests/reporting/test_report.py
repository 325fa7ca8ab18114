"""The report: one page that needs nothing, says what metrics.json says, and lets nothing act."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.reporting.example_metrics import HOSTILE, KEPT, TURNED, example_metrics

from symdistill.errors import InputError, RunError
from symdistill.reporting import console_summary, read_metrics, write_report
from symdistill.reporting.plots import Bar, Series, bars_chart, rounds_chart
from symdistill.reporting.report import render
from symdistill.reporting.words import (
    amount,
    count,
    drift_sentences,
    duration,
    rate,
    summary_sentence,
)
from symdistill.visible import visible

pytestmark = pytest.mark.unit

VOID = {"meta", "link", "br", "hr", "img", "input"}
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


class Page(HTMLParser):
    """Checks nesting while it reads; keeps elements, ids, links, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.chart_text: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if "svg" in self.open and self.open[-1] == "text":
            self.chart_text.append(data)

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())

    @property
    def ids(self) -> list[str]:
        return [str(attrs["id"]) for _, attrs in self.elements if "id" in attrs]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(example_metrics()), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def html() -> str:
    return render(example_metrics())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def _without(value: Any) -> Any:
    """The metrics with every number and list of numbers replaced by null, save the round's."""
    if isinstance(value, dict):
        return {k: v if k == "round" else _without(v) for k, v in value.items()}
    if isinstance(value, list):
        if value and all(isinstance(one, (int, float)) for one in value):
            return None
        return [_without(one) for one in value]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return None
    return value


# -- the file -----------------------------------------------------------------------------------


def test_it_is_written_beside_the_metrics_and_leaves_nothing_else(run: Path) -> None:
    before = set(run.iterdir())
    path = write_report(run)
    assert path == run / "report.html"
    assert set(run.iterdir()) - before == {path}
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_the_same_metrics_give_the_same_bytes(run: Path, tmp_path: Path) -> None:
    first = write_report(run).read_bytes()
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "metrics.json").write_bytes((run / "metrics.json").read_bytes())
    assert write_report(other).read_bytes() == first


def test_a_users_matplotlib_settings_do_not_change_the_page(html: str) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.grid": True}):
        assert render(example_metrics()) == html
        assert matplotlib.rcParams["font.size"] == 30


def test_a_page_that_cannot_be_written_is_told_and_the_old_one_stays(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_report(run)
    old = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match=r"expected to write .* No space left"):
        write_report(run)
    assert path.read_bytes() == old
    assert not list(run.glob("*.aside"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has not written it yet; run it first"),
        ("", "expected JSON"),
        ('{"rounds": [', "expected JSON"),
        (b"\xff\xfe\x00", "expected JSON"),
        ("[" * 100_000, "expected JSON"),
        ("[]", "an object with a list `rounds`"),
        ('{"rounds": 3}', "an object with a list `rounds`"),
        ('{"rounds": [3]}', "expected a dict"),
        ('{"rounds": [{"round": 0, "accept_rate": "high"}]}', "'accept_rate'"),
        ('{"rounds": [{"round": 0, "precision_interval": [0.1]}]}', "'precision_interval'"),
        ('{"rounds": [{"score_histogram": {"edges": [0, 1], "counts": [1, 2]}}]}', "one more edge"),
    ],
)
def test_missing_or_broken_metrics_say_what_to_do(
    tmp_path: Path, content: str | bytes | None, message: str
) -> None:
    if content is not None:
        raw = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "metrics.json").write_bytes(raw)
    with pytest.raises(InputError, match=re.escape(message)) as error:
        write_report(tmp_path)
    assert re.search("run it first|run the recipe again", str(error.value))
    assert not (tmp_path / "report.html").exists()


def test_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a run folder"):
        write_report(tmp_path / "nowhere")


# -- one page that needs nothing ----------------------------------------------------------------


def test_nothing_is_fetched_and_nothing_runs(html: str, page: Page) -> None:
    assert "http:" not in html and "https:" not in html and "@import" not in html
    forbidden = {"script", "link", "img", "iframe", "object", "embed", "form", "foreignobject"}
    assert not forbidden & {tag for tag, _ in page.elements}
    for _, attrs in page.elements:
        assert not [name for name in attrs if name.startswith("on") or name == "src"]
        for name, value in attrs.items():
            if name.endswith("href"):
                assert value and value.startswith("#")
            for reference in re.findall(r"url\((.*?)\)", value or ""):
                assert reference.startswith("#")


def test_every_id_is_unique_and_every_reference_resolves(page: Page) -> None:
    ids = page.ids
    assert len(ids) == len(set(ids))
    named = [a["aria-labelledby"] for _, a in page.elements if a.get("aria-labelledby")]
    links = [a["href"] for _, a in page.elements if a.get("href")]
    clips = [c for _, a in page.elements for v in a.values() for c in _urls(v)]
    assert named and links and clips
    assert {one for names in named for one in str(names).split()} <= set(ids)
    assert {str(link).removeprefix("#") for link in links} <= set(ids)
    assert set(clips) <= set(ids)


def _urls(value: str | None) -> list[str]:
    return re.findall(r"url\(#(.*?)\)", value or "")


def test_charts_are_told_to_those_who_do_not_see_them(page: Page) -> None:
    charts = [attrs for tag, attrs in page.elements if tag == "svg"]
    assert len(charts) == 2 + 8 + 3 + 4 + 2 + 1
    assert all(one.get("role") == "img" and one.get("aria-labelledby") for one in charts)
    headers = [attrs for tag, attrs in page.elements if tag == "th"]
    assert all(one.get("scope") in ("row", "col") for one in headers)
    assert "critic: round 0 0.45, round 1 0.58, round 2 0.66" in page.words


def test_it_fits_phone_paper_and_dark(html: str) -> None:
    assert 'name="viewport" content="width=device-width' in html
    assert "@media print" in html and "prefers-color-scheme: dark" in html
    svg = "".join(re.findall(r"<svg.*?</svg>", html, re.S))
    assert "var(--first)" in svg
    assert not re.search(r"#[0-9a-f]{6}\b", svg)  # every colour is the style sheet's


# -- what it says -------------------------------------------------------------------------------


def test_the_summary_is_built_from_the_numbers(page: Page) -> None:
    assert (
        "Round 0 wrote 1,043 distinct lines and kept 296; round 1 wrote 982 and kept 348; "
        "round 2 wrote 921 and kept 400; estimated precision of what round 2 kept "
        "0.83 (0.75 to 0.90). NOT CERTIFIED: an estimate, see “What the estimate is not”."
    ) in page.words


def test_charts_show_the_numbers_of_the_metrics(page: Page) -> None:
    metrics, shown = example_metrics(), page.chart_text
    shares = [
        "accept_rate",
        "accept_rate_independent",
        "precision_estimate",
        "swap_accept_share",
        "distinct_1",
        "distinct_2",
        "soft_uniqueness",
        "good_turing_coverage",
    ]
    for row in metrics["rounds"]:
        for key in shares:
            assert rate(row[key]) in shown, key
        for key in ("specificity", "specificity_kept", "rarity", "words_mean"):
            assert amount(row[key]) in shown, key
        assert count(row["chao1_lower"]) in shown
        assert f"round {row['round']}" in shown
    stages = [one for row in metrics["rounds"] for one in row["stages"]]
    teaching = [one for one in stages if one["stage"] == "teachers"]
    assert duration(sum(one["wall_s"] for one in teaching)) in shown
    assert count(sum(one["tokens"] for one in teaching)) in shown
    assert count(sum(row["rejected"]["below the cut"] for row in metrics["rounds"])) in shown
    assert shown.count("cut 0.62") == 3
    curve = metrics["critics"][0]["pr_curve"]
    at = next(i for i, t in enumerate(curve["threshold"]) if t >= 0.62)
    said = f"precision {rate(curve['precision'][at])}, recall {rate(curve['recall'][at])}"
    assert said in shown
    for point in metrics["critics"][0]["reliability"]:
        assert count(point["n"]) in shown


def test_points_lie_where_the_numbers_are() -> None:
    values = [0.2, 0.5, 0.8]
    svg = str(rounds_chart("k", "t", ["a", "b", "c"], [Series("s", values)], share=True))
    points = [(float(x), float(y)) for x, y in re.findall(r'<use x="([^"]+)" y="([^"]+)"', svg)]
    heights = [y for _, y in points[-3:]]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=1e-3)
    assert heights[0] > heights[2]  # SVG counts downward


def test_bars_are_as_long_as_the_numbers() -> None:
    svg = str(bars_chart("k", "t", [Bar("a", [100.0]), Bar("b", [50.0])]))
    paths = re.findall(r'<path d="M ([\d.]+) [\d.]+ L ([\d.]+)[^"]*" clip-path', svg)
    lengths = [abs(float(end) - float(start)) for start, end in paths]
    assert lengths[0] == pytest.approx(2 * lengths[1], rel=1e-4)


def test_examples_come_with_reason_concept_scores_and_id(page: Page) -> None:
    metrics = example_metrics()
    for one in metrics["examples"]["kept"][: len(KEPT)]:
        assert one["text"] in page.words and one["id"] in page.words
        assert f"concept {one['concept']}" in page.words
    for one in metrics["examples"]["rejected"]:
        assert f"Rejected: {one['reason']}" in page.words
    assert "symdistill show ID --run runs/demo" in page.words


def test_settings_models_versions_machine_and_seed(page: Page) -> None:
    for text in (
        "SmolLM2-135M-Instruct, Q4_1 dequantised",
        "5af571cb" * 8,
        "guards.specificity_floor",
        "2.13.0",
        "memory_gb",
        "1,843 MB",
        "seed 7",
    ):
        assert text in page.words


def test_the_critic_stands_beside_its_baselines(page: Page) -> None:
    assert "AUC on held-out concepts: 0.81 (0.75 to 0.86)" in page.words
    assert "The critic is above both baselines, interval included." in page.words
    metrics = example_metrics()
    metrics["critics"][-1]["auc_likelihood"] = 0.79
    assert "it may be no better" in Page(render(metrics)).words
    metrics["critics"][-1]["auc_likelihood"] = 0.9
    assert "no better than the best of these baselines" in Page(render(metrics)).words


def test_acceptance_bought_with_emptier_lines_is_said(page: Page) -> None:
    assert (
        "accept rate rose from 0.45 to 0.66 and specificity fell from 3.41 to 2.48 nats: "
        "higher acceptance bought with emptier lines."
    ) in page.words
    assert "may be chance" not in page.words


@pytest.mark.parametrize(
    ("accept", "specificity", "warnings", "says"),
    [
        ([0.4, 0.6], [3.0, 3.5], 0, "rose from 0.40 to 0.60 and specificity rose"),
        ([0.6, 0.4], [3.0, 2.0], 0, "fell from 0.60 to 0.40 and specificity fell"),
        ([0.4, 0.6], [3.0, 2.0], 1, "bought with emptier lines"),
        ([0.4, 0.6, 0.5], [3.0, 2.0, 3.1], 1, "From round 0 to round 1"),
        ([0.4, None], [3.0, 2.0], 0, "cannot be said"),
        ([0.4], [3.0], 0, "cannot be said"),
    ],
)
def test_drift_in_words(
    accept: list[float | None], specificity: list[float], warnings: int, says: str
) -> None:
    rounds = [
        {"round": i, "accept_rate": a, "specificity": s}
        for i, (a, s) in enumerate(zip(accept, specificity, strict=True))
    ]
    said = drift_sentences({"rounds": rounds})
    assert sum(warning for warning, _ in said) == warnings
    assert says in " ".join(sentence for _, sentence in said)


def test_a_fall_within_the_intervals_is_called_so() -> None:
    rounds = [
        {"round": 0, "accept_rate": 0.4, "specificity": 3.0, "specificity_interval": [2.7, 3.3]},
        {"round": 1, "accept_rate": 0.6, "specificity": 2.9, "specificity_interval": [2.6, 3.2]},
    ]
    assert "the fall may be chance" in drift_sentences({"rounds": rounds})[0][1]


def test_an_unfinished_run_says_so_on_top() -> None:
    metrics = {**example_metrics(), "finished": False}
    words = Page(render(metrics)).words
    assert 0 < words.index("This run is not finished.") < words.index("Round 0 wrote")
    assert "This run is not finished." not in Page(render(example_metrics())).words


# -- what was not measured ----------------------------------------------------------------------


def test_what_is_null_is_not_measured_and_never_zero() -> None:
    page = Page(render(_without(example_metrics())))
    assert "svg" not in [tag for tag, _ in page.elements]
    assert page.words.count("not measured") > 60
    cells = re.findall(r"<td[^>]*><bdi>(.*?)</bdi>", render(_without(example_metrics())))
    numbers = [cell for cell in cells if re.search(r"(?<![\w@])0(\.0*)?(?!\w)", cell)]
    assert numbers == []


@pytest.mark.parametrize("rounds", [[], [{"round": 0}], [{}]])
def test_a_run_that_has_hardly_begun(rounds: list[dict[str, Any]]) -> None:
    page = Page(render({"rounds": rounds}))
    assert "This run is not finished." in page.words
    if not rounds:
        assert summary_sentence({"rounds": []}) == "No round has been finished yet."


def test_not_a_number_is_not_measured(tmp_path: Path) -> None:
    metrics = example_metrics()
    metrics["rounds"][2]["precision_estimate"] = math.nan
    metrics["rounds"][2]["precision_interval"] = [math.nan, math.inf]
    metrics["rounds"][2]["chao1_lower"] = 10**400
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "nan" not in Page(text).chart_text
    assert "estimated precision of what round 1 kept 0.81" in Page(text).words


def test_a_gap_in_a_curve_keeps_its_place_and_a_missing_series_is_named() -> None:
    metrics = example_metrics()
    metrics["rounds"][1]["accept_rate"] = None
    for row in metrics["rounds"]:
        row["accept_rate_independent"] = None
    page = Page(render(metrics))
    assert "critic: round 0 0.45, round 1 not measured, round 2 0.66" in page.words
    assert "independent judge: not measured" in page.chart_text


def test_an_unmeasured_stage_is_not_summed_as_zero(page: Page) -> None:
    assert "not measured" in page.chart_text  # tokens of the critic
    metrics = example_metrics()
    metrics["rounds"][0]["stages"][0]["tokens"] = None
    assert "41,020 + ?" in Page(render(metrics)).chart_text


def test_many_rounds_still_make_a_page() -> None:
    metrics = example_metrics()
    metrics["rounds"] = [
        {**metrics["rounds"][i % 3], "round": i, "accept_rate": 0.3 + 0.02 * i} for i in range(12)
    ]
    page = Page(render(metrics))
    assert "0.30" in page.chart_text and "0.52" in page.chart_text
    assert "0.34" not in page.chart_text  # only the ends carry a number
    assert "… 12 rounds …" in page.words


# -- what a model wrote -------------------------------------------------------------------------


def test_markup_from_the_model_is_shown_as_text(html: str, page: Page) -> None:
    assert " ".join(HOSTILE.split()) in page.words
    assert "&lt;script&gt;" in html and "<script" not in html
    assert "cat<img src=x>" in page.words
    assert "exact duplicate <b>of</b> a kept line" in page.words
    assert any(one.startswith("exact duplicate <b>of</b>") for one in page.chart_text)
    assert "{{ 7*7 }}" in page.words


def test_nothing_turns_the_direction_or_hides(html: str, page: Page) -> None:
    assert not [c for c in html if c in BIDI or (ord(c) < 32 and c != "\n") or ord(c) == 127]
    assert "A safe line [U+202E]gnp.exe[U+202C] and [U+2069] after␛[31m red␀" in page.words
    assert '<bdi dir="auto">A safe line' in html


@pytest.mark.parametrize("evil", [HOSTILE, TURNED, "\ud800 half", "x" * 20_000, "$$", "\\", ""])
def test_hostile_text_in_every_place(evil: str) -> None:
    """Every string of the metrics, and every free key, replaced: still one sound page."""
    free = {"rejected", "versions", "machine", "config", "models", "labels", "tokens"}

    def spoil(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            renamed = {k: spoil(v, k) for k, v in value.items()}
            if key in free and value and not isinstance(next(iter(value.values())), dict | list):
                return {**renamed, evil: next(iter(renamed.values()))}
            return renamed
        if isinstance(value, list):
            return [spoil(one, key) for one in value]
        return evil if isinstance(value, str) else value

    html = render(spoil(example_metrics()))
    html.encode("utf-8")
    page = Page(html)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img", "i"}
    assert not [c for c in html if c in BIDI or (ord(c) < 32 and c != "\n")]
    assert sum(tag == "svg" for tag, _ in page.elements) == 20


@given(st.text(alphabet=st.characters(exclude_categories=[])))
def test_visible_text_holds_nothing_that_acts(text: str) -> None:
    shown = visible(text)
    shown.encode("utf-8")
    assert not [c for c in shown if c in BIDI or ord(c) < 32 or 0x7F <= ord(c) < 0xA0]
    assert visible(shown) == shown


@pytest.mark.parametrize("text", ["Café au lait", "猫は動物です", "👩‍🌾 grows", "می‌خواهم", "a<b>c"])
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


# -- numbers in words ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "not measured"),
        (0, "0.00"),
        (1, "1.00"),
        (0.834, "0.83"),
        (0.996, "0.996"),
        (0.9996, "0.9996"),
        (0.99999, "> 0.9999"),
        (0.004, "0.004"),
        (0.00001, "1e-05"),
    ],
)
def test_a_rate_never_reads_none_or_all_unless_it_is(value: float | None, said: str) -> None:
    assert rate(value) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "not measured"),
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (141.3, "2 min 21 s"),
        (3599.7, "1 h 00 min"),
        (7384, "2 h 03 min"),
    ],
)
def test_durations(seconds: float | None, said: str) -> None:
    assert duration(seconds) == said


# -- the terminal -------------------------------------------------------------------------------


def _printed(metrics: dict[str, Any], width: int = 200, **rest: Any) -> str:
    from rich.console import Console

    console = Console(width=width, record=True, file=io.StringIO())
    console.print(console_summary(metrics, **rest))
    return console.export_text()


def test_the_summary_tells_rounds_examples_report_and_next_commands() -> None:
    commands = ["symdistill show abc --run runs/demo", "symdistill report runs/demo", "make bench"]
    text = _printed(example_metrics(), report=Path("runs/demo/report.html"), next_commands=commands)
    for said in (
        "1,043",
        "0.83 (0.75 to 0.90)",
        "NOT CERTIFIED",
        "0.66 (0.62 to 0.70)",
        "0.63 (0.58 to 0.68)",
        "2.48",
        "bought with emptier lines",
        "Report: runs/demo/report.html",
        "(near duplicate)",
        *commands,
    ):
        assert said in text


def test_the_summary_prints_model_text_as_it_is() -> None:
    text = _printed(example_metrics())
    assert HOSTILE in text
    assert "[bold red]purr[/]" in text and "below <i>the</i> cut [red]" in text
    assert "\x1b" not in text and "\u202e" not in text and "␛[31m red" in text


def test_the_summary_shows_at_most_ten_examples_and_bounds_their_length() -> None:
    metrics = example_metrics()
    line = {"id": "f" * 16, "text": "y" * 10_000, "reason": "below the cut"}
    metrics["examples"] = {"kept": [], "rejected": [line] * 30}
    text = _printed(metrics, width=300)
    assert text.count("f" * 16) == 10
    assert text.count("y") < 10 * 210
    assert "none recorded" in text


def test_the_summary_of_what_was_not_measured() -> None:
    text = _printed(_without({**example_metrics(), "finished": False}))
    assert "NOT FINISHED" in text and "not measured" in text and "0.00" not in text


# -- for review ----------------------------------------------------------------------------------


def test_marked_lines_are_listed_with_their_reasons(page: Page) -> None:
    said = page.words
    assert "Marked for review: 2 of 396 lines" in said
    assert "stereotype: “sly <b>foxes</b>”" in said
    assert "a1b2c3d4e5f60718" in said and "tables/review.parquet" in said
    assert "symdistill withdraw ID" in said


def test_nothing_marked_and_nothing_screened_are_told_apart() -> None:
    metrics = example_metrics()
    metrics["review"] = {"screened": 396, "marked": 0, "rules": {}, "lines": []}
    said = Page(render(metrics)).words
    assert "Marked for review: 0 of 396 lines" in said and "Nothing was screened" not in said
    for nothing in (None, {}):
        metrics["review"] = nothing
        assert "Nothing was screened" in Page(render(metrics)).words
    del metrics["review"]  # a run of an earlier version
    assert "Nothing was screened" in Page(render(metrics)).words


def test_the_summary_counts_what_waits_for_review() -> None:
    metrics = example_metrics()
    assert "2 of 396 lines are marked for review" in _printed(metrics)
    metrics["review"]["marked"] = 0
    assert "for review" not in _printed(metrics)


# -- certificates -------------------------------------------------------------------------------


def test_a_certificates_sentence_is_printed_in_full_and_a_void_one_says_why(run: Path) -> None:
    holds = "Of these 412 frozen lines (hash abc), at least 90 % would be marked valid <by> ann."
    also = "Of these 300 frozen lines (hash def), at least 95 % would be marked valid."
    folder = run / "certificates"
    folder.mkdir()
    for name, sentence, voided in (("a", "Of 9 lines ...", {"why": "a line was withdrawn"}),
                                   ("b", holds, None), ("d", also, None)):  # fmt: skip
        row = {"certified": True, "sentence": sentence, "voided": voided, "made_at": name,
               "line_ids_hash": hashlib.sha256(name.encode()).hexdigest()}  # fmt: skip
        (folder / f"{name}.ids").write_text(name, encoding="utf-8")
        (folder / f"{name}.json").write_text(json.dumps(row), encoding="utf-8")
    (folder / "c.json").write_text(json.dumps({"certified": False}), encoding="utf-8")
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert f"Certified. {holds}" in page.words and f"Certified. {also}" in page.words
    assert f"Certified: {holds} {also}" in page.words
    assert "NOT CERTIFIED" not in page.words and "not certified" not in page.words
    assert "is void: a line was withdrawn. It said: Of 9 lines ..." in page.words
    assert read_metrics(run)["certified"] is True


def test_a_broken_certificate_is_named(run: Path) -> None:
    (run / "certificates").mkdir()
    (run / "certificates" / "a.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"expected a certificate at .*a\.json .* restore it"):
        write_report(run)


def test_a_certificate_whose_ids_were_changed_is_not_told(run: Path) -> None:
    (run / "certificates").mkdir()
    row = {
        "certified": True,
        "sentence": "All.",
        "voided": None,
        "made_at": "",
        "line_ids_hash": "",
    }
    (run / "certificates" / "a.json").write_text(json.dumps(row), encoding="utf-8")
    (run / "certificates" / "a.ids").write_text('"x"\n', encoding="utf-8")
    with pytest.raises(InputError, match="other ids beside it"):
        write_report(run)
