"""Charts as inline SVG that takes the page's colours.

matplotlib draws with sentinel colours; in the SVG each becomes a CSS variable, so one drawing serves
light and dark mode. Text stays text in the page's own font. This is the only module that knows
matplotlib, and it imports it when the first chart is drawn.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

GOOD, BAD, INK, DIM, LINE, ALTER = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05", "#0a0b06"
_VARIABLES = {
    GOOD: "--good",
    BAD: "--bad",
    INK: "--ink",
    DIM: "--dim",
    LINE: "--line",
    ALTER: "--alter",
}
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "music_ray",  # The same numbers give the same bytes.
    "text.parse_math": False,  # A dollar sign in a name is a dollar sign.
    "font.size": 8,
    "text.color": INK,
    "axes.labelcolor": DIM,
    "axes.edgecolor": LINE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": DIM,
    "ytick.labelcolor": DIM,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 1.2,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.02,
    "figure.constrained_layout.w_pad": 0.02,
}
_SMOOTH_FROM = 60
"""From this many steps on a moving mean is drawn over the raw line."""


@dataclass(frozen=True, slots=True)
class Line:
    """One series of a line chart."""

    label: str
    values: Sequence[float]
    colour: str = INK


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its interval."""

    label: str
    value: float
    low: float
    high: float
    colour: str

    @property
    def has_bounds(self) -> bool:
        """Whether there is an interval to be drawn."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def said(self) -> str:
        """In words, for who cannot see the chart."""
        bounds = f" from {_say(self.low)} to {_say(self.high)}" if self.has_bounds else ""
        return f"{_say(self.value)}{bounds}"


def line_chart(
    name: str, title: str, steps: Sequence[int], lines: Sequence[Line], *, reference: float | None = None
) -> str:
    """Series over steps; long ones with a moving mean in front of the raw values."""
    with _figure(3.7, 2.0) as (figure, axes):
        if reference is not None:
            axes.axhline(reference, color=DIM, linewidth=0.8, linestyle=(0, (3, 3)))
        for line in lines:
            long = len(steps) >= _SMOOTH_FROM
            marker = "o" if len(steps) <= 20 else None
            axes.plot(
                steps,
                line.values,
                color=line.colour,
                linewidth=0.6 if long else 1.4,
                alpha=0.35 if long else 1.0,
                marker=marker,
                markersize=3,
                label=None if long else line.label,
            )
            if long:
                smooth = _moving_mean(line.values, max(5, len(steps) // 50))
                axes.plot(steps, smooth, color=line.colour, linewidth=1.5, label=line.label)
        axes.set_xlabel("step")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(visible=False, axis="x")
        if len(lines) > 1:
            axes.legend(loc="best")
        ends = "; ".join(f"{line.label} ends at {_say(_last(line.values))}" for line in lines)
        return _svg(figure, name, title, f"{len(steps)} steps. {ends}.")


def interval_chart(name: str, title: str, rows: Sequence[Interval], x_label: str) -> str:
    """Estimates with their intervals, one below the other, against chance."""
    with _figure(3.7, 0.55 + 0.3 * len(rows)) as (figure, axes):
        axes.axvline(0.5, color=DIM, linewidth=0.8, linestyle=(0, (3, 3)))
        for position, row in enumerate(rows):
            if row.has_bounds:
                bounds = [row.low, row.high]
                axes.plot(bounds, [position, position], color=row.colour, linewidth=2, alpha=0.55)
            axes.plot([row.value], [position], "o", color=row.colour, markersize=5)
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", labelcolor=INK)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        _percent_axis(axes.xaxis, axes.set_xlim)
        axes.set_xlabel(x_label)
        said = "; ".join(f"{row.label} {row.said}" for row in rows)
        return _svg(figure, name, title, said + ".")


def turns_chart(name: str, title: str, groups: Sequence[tuple[str, Sequence[tuple[int, Interval]]]]) -> str:
    """Accuracy by number of turns, a group (model) beside the other."""
    with _figure(3.7, 2.0) as (figure, axes):
        axes.axhline(0.5, color=DIM, linewidth=0.8, linestyle=(0, (3, 3)))
        for index, (label, points) in enumerate(groups):
            shift = 0.16 * (index - (len(groups) - 1) / 2)
            for turns, point in points:
                _whisker(axes, turns + shift, point, alpha=0.45)
            places = [turns + shift for turns, _ in points]
            values, colour = [point.value for _, point in points], points[0][1].colour if points else INK
            axes.plot(places, values, "o-", color=colour, markersize=4, linewidth=1, label=label)
        turns_seen = sorted({turns for _, points in groups for turns, _ in points})
        axes.set_xticks(turns_seen)
        if turns_seen:
            axes.set_xlim(turns_seen[0] - 0.5, turns_seen[-1] + 0.5)
        axes.set_xlabel("user turns in the conversation")
        axes.grid(visible=False, axis="x")
        _percent_axis(axes.yaxis, axes.set_ylim)
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=2)  # Clear of the points.
        said = "; ".join(
            f"{label}, {turns} turns: {_say(point.value)}"
            for label, points in groups
            for turns, point in points
        )
        return _svg(figure, name, title, said + ".")


def fall_chart(name: str, title: str, curves: Sequence[tuple[str, Sequence[tuple[int, Interval]]]]) -> str:
    """Falls of a score by the spoiled reply's turns before the last, which is at the right end."""
    with _figure(3.7, 2.0) as (figure, axes):
        axes.axhline(0.0, color=DIM, linewidth=0.8, linestyle=(0, (3, 3)))
        for index, (label, points) in enumerate(curves):
            shift = 0.12 * (index - (len(curves) - 1) / 2)
            places = [distance - shift for distance, _ in points]
            for place, (_, point) in zip(places, points, strict=True):
                _whisker(axes, place, point, alpha=0.45)
            values, colour = [point.value for _, point in points], points[0][1].colour if points else INK
            axes.plot(places, values, "o-", color=colour, markersize=4, linewidth=1, label=label)
        distances = sorted({distance for _, points in curves for distance, _ in points})
        axes.set_xticks(distances)
        if distances:
            axes.set_xlim(distances[-1] + 0.4, distances[0] - 0.4)  # As it is read: the last turn last.
        axes.set_xlabel("turns before the last")
        axes.set_ylabel("fall, SD")
        axes.grid(visible=False, axis="x")
        axes.legend(loc="best")
        said = "; ".join(
            f"{label}, {distance} before the last: {_say(point.value)}"
            for label, points in curves
            for distance, point in points
        )
        return _svg(figure, name, title, said + ".")


def bar_chart(name: str, title: str, groups: Sequence[tuple[str, Sequence[tuple[int, Interval]]]]) -> str:
    """Win rates as bars by N with their intervals, a group beside the other, against a coin."""
    ticks = sorted({tick for _, bars in groups for tick, _ in bars})
    width = 0.7 / max(1, len(groups))
    with _figure(3.7, 2.0) as (figure, axes):
        for index, (label, bars) in enumerate(groups):
            places = [ticks.index(tick) + width * (index - (len(groups) - 1) / 2) for tick, _ in bars]
            colour = bars[0][1].colour if bars else INK
            heights = [bar.value for _, bar in bars]
            axes.bar(places, heights, width=0.92 * width, color=colour, alpha=0.45, linewidth=0, label=label)
            for place, (_, bar) in zip(places, bars, strict=True):
                _whisker(axes, place, bar)
        axes.axhline(0.5, color=INK, linewidth=0.9, linestyle=(0, (3, 3)))
        axes.set_xticks(range(len(ticks)), [str(tick) for tick in ticks])
        axes.set_xlabel("N")
        axes.grid(visible=False, axis="x")
        _percent_axis(axes.yaxis, axes.set_ylim)
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=2)  # Clear of the bars.
        said = "; ".join(f"{label}, N = {tick}: {bar.said}" for label, bars in groups for tick, bar in bars)
        return _svg(figure, name, title, said + ".")


def reliability_chart(
    name: str, title: str, groups: Sequence[tuple[str, str, Sequence[tuple[float, float, int]]]]
) -> str:
    """How often a model is right beside how sure it is, (confidence, accuracy, pairs) a point.

    Args:
        groups: label, colour and points of each model; a point's area follows its pairs.
    """
    with _figure(2.9, 2.3) as (figure, axes):
        axes.plot([0.5, 1.0], [0.5, 1.0], color=DIM, linewidth=0.8, linestyle=(0, (3, 3)))
        for label, colour, points in groups:
            total = sum(number for _, _, number in points) or 1
            places, values = [one for one, _, _ in points], [one for _, one, _ in points]
            sizes = [8 + 120 * number / total for _, _, number in points]
            axes.plot(places, values, color=colour, linewidth=1, label=label)
            axes.scatter(places, values, s=sizes, color=colour, alpha=0.6, linewidths=0)
        axes.set_xlim(0.485, 1.015)
        axes.set_xticks([0.5, 0.6, 0.7, 0.8, 0.9, 1.0], ["50%", "60%", "70%", "80%", "90%", "100%"])
        axes.set_xlabel("how sure the model is")
        axes.set_ylabel("right")
        _percent_axis(axes.yaxis, axes.set_ylim)
        if len(groups) > 1:
            axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=2)  # Clear of the points.
        said = "; ".join(
            f"{label}: {_say(value)} at {_say(place)} ({number} pairs)"
            for label, _, points in groups
            for place, value, number in points
        )
        return _svg(figure, name, title, said + ".")


def histogram(name: str, title: str, series: Sequence[Line], x_label: str, *, zero: bool = False) -> str:
    """Distributions over common bins; with `zero`, a line where chosen and rejected score the same."""
    values = [value for line in series for value in line.values]
    with _figure(2.9, 1.75) as (figure, axes):
        low, high = min(values, default=0.0), max(values, default=1.0)
        if low == high:
            low, high = low - 0.5, high + 0.5
        bins = min(30, max(8, round(2 * math.sqrt(len(series[0].values) or 1))))
        for line in series:
            common: dict[str, Any] = {"bins": bins, "range": (low, high), "color": line.colour}
            axes.hist(line.values, histtype="stepfilled", alpha=0.22, **common)
            axes.hist(line.values, histtype="step", linewidth=1.2, label=line.label, **common)
        if zero:
            axes.axvline(0.0, color=INK, linewidth=0.9, linestyle=(0, (3, 3)))
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel(x_label)
        axes.set_ylabel("pairs")
        axes.grid(visible=False, axis="x")
        said = "; ".join(f"{line.label}: mean {_say(_mean(line.values))}" for line in series)
        return _svg(figure, name, title, f"{len(series[0].values)} pairs. {said}.")


# -- drawing ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Any, Any]]:
    """A figure in the page's style, without any display or global list of figures."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height))
        yield figure, figure.add_subplot()


def _whisker(axes: Any, place: float, point: Interval, alpha: float = 1.0) -> None:
    if point.has_bounds:
        axes.plot([place] * 2, [point.low, point.high], color=point.colour, linewidth=2, alpha=alpha)


def _percent_axis(axis: Any, set_limits: Any) -> None:
    set_limits(-0.03, 1.03)
    axis.set_ticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])


def _moving_mean(values: Sequence[float], width: int) -> list[float]:
    half = width // 2
    return [_mean(values[max(0, index - half) : index + half + 1]) for index in range(len(values))]


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _last(values: Sequence[float]) -> float:
    return next((value for value in reversed(values) if math.isfinite(value)), math.nan)


def _say(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "no number"


# -- from matplotlib's SVG to the page's -----------------------------------------------------------


def _svg(figure: Any, name: str, title: str, description: str) -> str:
    sink = io.StringIO()
    figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None})
    root = ET.fromstring(sink.getvalue())  # noqa: S314  (what matplotlib has just written)
    _strip(root)
    for element in root.iter():
        _adapt(element, name)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.attrib |= {"role": "img", "aria-labelledby": f"{name}-title {name}-desc", "class": "chart"}
    for tag, text in (("desc", description), ("title", title)):
        label = ET.Element(f"{{{_SVG}}}{tag}", {"id": f"{name}-{tag}"})
        label.text = text
        root.insert(0, label)
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    return ET.tostring(root, encoding="unicode", short_empty_elements=True)


def _strip(root: ET.Element) -> None:
    """Takes out the metadata (foreign URLs) and the style sheet (its `*` would reach the whole page)."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)


def _adapt(element: ET.Element, name: str) -> None:
    """Own ids (a page holds many charts), the page's font, CSS variables for the sentinel colours."""
    for key, value in list(element.attrib.items()):
        local = key.rpartition("}")[2]
        if local == "id":
            value = f"{name}-{value}"
        elif local == "href" and value.startswith("#"):
            value = f"#{name}-{value[1:]}"
        elif local == "style":
            # `font: 8px 'DejaVu Sans', …` keeps its size and leaves the family to the page.
            value = re.sub(r"font: (?:[a-z0-9]+ )?([0-9.]+px) [^;]+", r"font-size: \1", value)
            value = re.sub(r"font-family: [^;]+(?:; |$)", "", value)
        value = re.sub(r"url\(#", f"url(#{name}-", value)
        for colour, variable in _VARIABLES.items():
            value = value.replace(colour, f"var({variable})")
        element.attrib[key] = value
