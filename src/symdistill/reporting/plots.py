"""The charts of the report, each small enough to be read on a phone without turning it.

Takes numbers from metrics.json; gives inline SVG. A chart is about 340 CSS pixels wide and the
page puts several side by side where there is room. Series differ by marker and line as well as
by colour, so that they survive a black-and-white printer; values stand beside their points. A
chart without a single number is None, and the page says "not measured" in its place.

It computes nothing but sums over rounds of one stage or one reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from symdistill.reporting.fields import Interval
from symdistill.reporting.inline_svg import (
    FIRST,
    INK,
    MUTED,
    PAPER,
    SECOND,
    drawing_style,
    inline_svg,
)
from symdistill.reporting.words import NOT_MEASURED, Say, amount, count, rate
from symdistill.visible import visible

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 340.0  # CSS pixels; 1 matplotlib point is 1 of them
MAX_LABELLED_ROUNDS = 5  # beyond, only the first and the last point of a series carry a number
MAX_LABEL = 46  # characters of a bar's name that fit


@dataclass(frozen=True)
class Series:
    """One measure over the rounds: (R,) values with None where not measured."""

    name: str
    values: Sequence[float | None]
    intervals: Sequence[Interval | None] = ()


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart: (R,) amounts by round, None where not measured."""

    name: str
    values: Sequence[float | None]

    @property
    def total(self) -> float | None:
        """The sum over the rounds that were measured; None if none was."""
        known = [value for value in self.values if value is not None]
        return sum(known) if known else None


def rounds_chart(
    key: str,
    title: str,
    rounds: Sequence[str],
    series: Sequence[Series],
    *,
    say: Say = amount,
    share: bool = False,
    height: float = 190.0,
) -> Markup | None:
    """Up to two measures over the rounds, with 95 % interval bars where they are known.

    Args:
        key: unique on the page.
        title: what is shown, for those who cannot see it.
        rounds: (R,) names.
        series: one or two.
        say: how a value is written beside its point.
        share: the axis runs from 0 to 1; otherwise it runs around the values and spans at least
            40 % of the largest, so that noise does not look like a slide.
        height: CSS pixels.
    """
    measured = [one for one in series if any(value is not None for value in one.values)]
    if not measured:
        return None
    with drawing_style():
        legend = 16 * len(series) if len(series) > 1 else 0
        figure, axes = _axes(height + legend, left=44, top=14 + legend, bottom=24)
        for place, one in enumerate(series):
            if one in measured:
                other = series[1 - place].values if len(measured) > 1 else None
                _draw_series(axes, one, place, other, say)
        axes.set_xlim(-0.5, len(rounds) - 0.5)
        axes.set_ylim(*((-0.02, 1.1) if share else _span(measured)))
        if share:
            axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
        else:
            axes.locator_params(axis="y", nbins=4)
        every = range(0, len(rounds), -(-len(rounds) // 6))
        axes.set_xticks(list(every), [visible(rounds[i]) for i in every])
        axes.grid(axis="y")
        if legend:
            for line, one in enumerate(series):
                name = one.name if one in measured else f"{one.name}: {NOT_MEASURED}"
                _legend(figure, axes, name, line, 10 + 16 * line)
        words = ". ".join(_in_words(one, rounds, say) for one in measured) + "."
        return inline_svg(figure, key, title, words)


def histogram_chart(
    key: str, title: str, edges: Sequence[float], counts: Sequence[float], cut: float | None
) -> Markup | None:
    """Lines per score (0..1), the bars at or above the cut darker, the cut as a line.

    Args:
        key: unique on the page.
        title: what is shown, for those who cannot see it.
        edges: (B + 1,) rising.
        counts: (B,) lines.
        cut: a score, or None.
    """
    if not counts:
        return None
    with drawing_style():
        figure, axes = _axes(190, left=44, top=26, bottom=36)
        widths = [high - low for low, high in pairwise(edges)]
        common: dict[str, Any] = {"align": "edge", "edgecolor": PAPER, "linewidth": 0.8}
        axes.bar(edges[:-1], counts, widths, color=FIRST, alpha=0.35, **common)
        top = max(max(counts), 1) * 1.08
        words = ""
        if cut is not None:
            kept = axes.bar(edges[:-1], counts, widths, color=FIRST, **common)
            from matplotlib.patches import Rectangle

            right = Rectangle((cut, 0), max(edges[-1] - cut, 0), top, transform=axes.transData)
            for bar in kept:
                bar.set_clip_path(right)
            axes.axvline(cut, color=INK, linewidth=1.2, linestyle=(0, (3, 2)))
            leftward = cut > (edges[0] + edges[-1]) / 2
            axes.annotate(
                f"cut {rate(cut)}",
                (cut, top),
                (-4 if leftward else 4, 4),
                textcoords="offset points",
                ha="right" if leftward else "left",
                annotation_clip=False,
            )
            words = f" The cut is {rate(cut)}."
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(0, top)
        axes.locator_params(axis="both", nbins=4)
        if (edges[0], edges[-1]) == (0, 1):
            axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
        axes.set_xlabel("score", labelpad=2)
        bins = ", ".join(
            f"{low:.2f} to {high:.2f}: {count(n)}"
            for low, high, n in zip(edges, edges[1:], counts, strict=False)
        )
        return inline_svg(figure, key, title, f"Lines by score: {bins}.{words}")


def precision_recall_chart(
    key: str,
    title: str,
    recall: Sequence[float],
    precision: Sequence[float],
    threshold: Sequence[float],
    *,
    cut: float | None,
    target: float | None,
) -> Markup | None:
    """Precision over recall, both 0..1, the point of the cut, the target as a line.

    Args:
        key: unique on the page.
        title: what is shown, for those who cannot see it.
        recall, precision: (N,) or (N + 1,) where the last point (recall 0) has no threshold.
        threshold: (N,) scores, rising; point i is what scores at or above threshold i.
        cut: a score, or None.
        target: the precision asked for, or None.
    """
    if not recall:
        return None
    with drawing_style():
        figure, axes = _axes(290, left=48, top=14, bottom=38)
        axes.plot(recall, precision, color=FIRST, linewidth=1.8)
        words = f"{len(recall)} points"
        if target is not None:
            axes.axhline(target, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
            axes.annotate(
                f"target {rate(target)}",
                (0.01, target),
                (0, -4),
                textcoords="offset points",
                color=MUTED,
                va="top",
            )
            words += f"; target precision {rate(target)}"
        at = None if cut is None else _first_at_or_above(threshold, cut)
        if at is not None and cut is not None:
            axes.plot(recall[at], precision[at], "o", color=INK, markersize=8, zorder=4)
            said = [
                f"● at the cut {rate(cut)}:",
                f"precision {rate(precision[at])}, recall {rate(recall[at])}",
            ]
            for line, text in enumerate(said):
                axes.text(0.03, 0.13 - 0.07 * line, text, transform=axes.transAxes)
            words += "; " + " ".join(said).removeprefix("● ")
        _unit_square(axes, "recall", "precision")
        return inline_svg(figure, key, title, words + ".")


def reliability_chart(
    key: str,
    title: str,
    score_mean: Sequence[float],
    valid_share: Sequence[float],
    n: Sequence[float],
) -> Markup | None:
    """Share valid over mean score, (B,) each in 0..1, with the number of lines at each point."""
    if not score_mean:
        return None
    with drawing_style():
        figure, axes = _axes(290, left=48, top=14, bottom=38)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        axes.plot(score_mean, valid_share, color=FIRST, linewidth=1.4, marker="o", markersize=6)
        for x, y, lines in zip(score_mean, valid_share, n, strict=True):
            below = y < x  # away from the diagonal
            axes.annotate(
                count(lines),
                (x, y),
                (5 if below else -5, -6 if below else 6),
                textcoords="offset points",
                ha="left" if below else "right",
                va="top" if below else "bottom",
                fontsize=10,
                color=MUTED,
            )
        _unit_square(axes, "mean score", "share valid")
        words = "; ".join(
            f"score {rate(x)}: {rate(y)} valid of {count(lines)}"
            for x, y, lines in zip(score_mean, valid_share, n, strict=True)
        )
        return inline_svg(figure, key, title, words + ".")


def bars_chart(key: str, title: str, bars: Sequence[Bar], *, say: Say = count) -> Markup | None:
    """Horizontal bars made of the rounds, light to dark; the sum at the end, the name above."""
    measured = [bar.total for bar in bars if bar.total is not None]
    if not measured:
        return None
    rows, longest = len(bars), max(max(measured), 1e-9)
    with drawing_style():
        figure, axes = _axes(34.0 * rows + 8, left=2, right=2, top=2, bottom=2)
        axes.set_axis_off()
        axes.set_xlim(0, longest * WIDTH / 254)  # 86 px remain for the number
        axes.set_ylim(rows, 0)
        for row, bar in enumerate(bars):
            axes.text(0, row + 0.42, _shortened(bar.name), va="bottom")
            start = 0.0
            for place, value in enumerate(bar.values):
                if value:
                    shade = 0.35 + 0.65 * (place + 1) / len(bar.values)
                    axes.barh(
                        row + 0.66,
                        value,
                        0.36,
                        start,
                        color=FIRST,
                        alpha=shade,
                        edgecolor=PAPER,
                        linewidth=0.8,
                    )
                    start += value
            gaps = bar.total is not None and None in bar.values
            axes.annotate(
                say(bar.total) + (" + ?" if gaps else ""),
                (start, row + 0.66),
                (5 if start else 0, 0),
                textcoords="offset points",
                va="center",
                color=MUTED,
            )
        words = "; ".join(f"{bar.name}: {say(bar.total)}" for bar in bars)
        return inline_svg(figure, key, title, words + ".")


def _axes(
    height: float, *, left: float, top: float, bottom: float, right: float = 12.0
) -> tuple[Figure, Axes]:
    """Axes in a figure of WIDTH x height CSS pixels, with margins in CSS pixels."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 72, height / 72))
    FigureCanvasSVG(figure)
    box = (
        left / WIDTH,
        bottom / height,
        (WIDTH - left - right) / WIDTH,
        (height - top - bottom) / height,
    )
    axes = figure.add_axes(box)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, pad=5)
    axes.set_axisbelow(True)
    return figure, axes


def _style(place: int) -> dict[str, Any]:
    """How the first and the second series look: they differ without colour too."""
    if place == 0:
        return {"color": FIRST, "marker": "o", "linestyle": "-", "markerfacecolor": FIRST}
    return {"color": SECOND, "marker": "s", "linestyle": (0, (4, 2)), "markerfacecolor": PAPER}


def _draw_series(
    axes: Axes, one: Series, place: int, other: Sequence[float | None] | None, say: Say
) -> None:
    """Points, interval bars, and each value on the side away from the other series."""
    paired = other is not None
    shift = (-0.05, 0.05)[place] if paired else 0.0
    ends = list(one.intervals) or [None] * len(one.values)
    known = [(i, value) for i, value in enumerate(one.values) if value is not None]
    at = [i for i, _ in known]
    style = _style(place)
    axes.plot(
        [i + shift for i in at],
        [value for _, value in known],
        markersize=7,
        markeredgewidth=1.6,
        linewidth=1.8,
        zorder=3,
        **style,
    )
    told = at if len(at) <= MAX_LABELLED_ROUNDS else [at[0], at[-1]]
    for i, value in known:
        pair = ends[i]
        if pair is not None:
            axes.plot([i + shift] * 2, pair, color=style["color"], linewidth=1.2, zorder=2)
            axes.plot([i + shift] * 2, pair, "_", color=style["color"], markersize=7, zorder=2)
        if i in told:
            beside = None if other is None else other[i]
            above = beside is None or value > beside or (value == beside and place == 0)
            end = value if pair is None else pair[1 if above else 0]
            axes.annotate(
                say(value),
                (i + shift, end),
                (0, 6 if above else -6),
                textcoords="offset points",
                ha="center",
                va="bottom" if above else "top",
                zorder=5,
            )


def _legend(figure: Figure, axes: Axes, name: str, place: int, down: float) -> None:
    """A sample of the line, and the name beside it, `down` pixels below the figure's top."""
    from matplotlib.lines import Line2D

    height = figure.get_size_inches()[1] * 72
    y = 1 - down / height
    x = axes.get_position().x0
    sample = Line2D(
        [x, x + 11 / WIDTH, x + 22 / WIDTH],
        [y, y, y],
        transform=figure.transFigure,
        markevery=[1],
        markersize=6,
        markeredgewidth=1.4,
        linewidth=1.6,
        **_style(place),
    )
    figure.add_artist(sample)
    figure.text(x + 30 / WIDTH, y, visible(name), va="center_baseline")


def _span(series: Sequence[Series]) -> tuple[float, float]:
    """Limits around all values and intervals, spanning at least 40 % of the largest value."""
    found = [value for one in series for value in one.values if value is not None]
    found += [end for one in series for pair in one.intervals if pair for end in pair]
    low, high = min(found), max(found)
    span = max(high - low, 0.4 * max(abs(low), abs(high)), 1e-6)
    middle = (low + high) / 2
    return middle - 0.75 * span, middle + 0.75 * span


def _unit_square(axes: Axes, x: str, y: str) -> None:
    for which, name in (("x", x), ("y", y)):
        getattr(axes, f"set_{which}lim")(-0.02, 1.03)
        getattr(axes, f"set_{which}ticks")([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
        getattr(axes, f"set_{which}label")(name, labelpad=2)
    axes.grid()


def _first_at_or_above(threshold: Sequence[float], cut: float) -> int | None:
    return next((i for i, value in enumerate(threshold) if value >= cut - 1e-12), None)


def _in_words(one: Series, rounds: Sequence[str], say: Say) -> str:
    said = [f"{name} {say(v)}" for name, v in zip(rounds, one.values, strict=True)]
    return f"{one.name}: {', '.join(said)}"


def _shortened(name: str) -> str:
    name = visible(name)
    return name if len(name) <= MAX_LABEL else name[: MAX_LABEL - 1].rstrip() + "…"
