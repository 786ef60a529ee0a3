"""Charts as inline SVG, drawn by matplotlib, each with its numbers as a table.

Colours are variables of the page's style, so that a chart follows light and dark; no two series differ by colour alone.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from omnimill.infra.report.template import macro

# Drawn in these, which are then replaced by variables of the style; no drawing may use them for anything else.
_SERIES = ("#0072b2", "#c04f00", "#00805c", "#a8518a", "#8f6200", "#6a3d9a", "#b3123f", "#5b5f66")
_INK, _PAPER = "#808890", "#fdfcfb"
_MARKERS = "osD^vPX*"
_HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----", "++++", "oooo")
_STYLES = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1, 1, 1)))
# Inches: what a phone shows at about the size that the letters are set in.
_WIDTH = 5.0
_LETTERS = 10
# Rows of the table of a chart of curves.
_TABLE_ROWS = 12
# Values that span more than this are drawn on a logarithmic axis.
_WIDE = 50.0

Curve = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """A drawing with its title, and its numbers in words. note: what a reader has to know of how it came about."""

    title: str
    svg: Markup
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def __html__(self) -> str:
        """The figure, where a template shows the chart."""
        return macro("chart", self)


@dataclass(frozen=True)
class Quantiles:
    """Of `count` values: least and largest, and the quantiles 0.05, 0.25, 0.5, 0.75 and 0.95."""

    count: int
    least: float
    p5: float
    p25: float
    median: float
    p75: float
    p95: float
    largest: float


def quantiles(values: npt.NDArray[np.float64]) -> Quantiles:
    """Of at least one value."""
    found = np.quantile(values, (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1))
    return Quantiles(len(values), *found.tolist())


def curves(title: str, lines: Mapping[str, Curve], x_label: str, y_label: str, note: str = "") -> Chart:
    """Line chart of named (x, y) series."""
    rows_of_legend = -(-len(lines) // _columns(lines)) if len(lines) > 1 else 0
    figure, axes = _axes(x_label, y_label, 2.5 + 0.2 * rows_of_legend)
    for i, (name, points) in enumerate(lines.items()):
        x, y = zip(*points, strict=True) if points else ((), ())
        colour = _SERIES[i % len(_SERIES)]
        every = (i * max(1, len(x) // 40), max(1, len(x) // 6)) if len(x) > 1 else None
        axes.plot(
            x,
            y,
            label=_plain(name),
            color=colour,
            linestyle=_STYLES[i // len(_SERIES) % len(_STYLES)],
            linewidth=1.5,
            marker=_MARKERS[i % len(_MARKERS)] if len(lines) > 1 or len(x) == 1 else None,
            markevery=every,
            markersize=4.5,
        )
    if len(lines) > 1:
        _legend(figure, lines)
    return Chart(title, _svg(figure, title), [x_label, *lines], _points(lines), note)


def _points(lines: Mapping[str, Curve]) -> list[list[str]]:
    """Some points of all series, evenly chosen, the first and the last among them."""
    known = {name: dict(points) for name, points in lines.items()}
    places = sorted({x for points in known.values() for x in points})
    if len(places) > _TABLE_ROWS:
        places = [places[round(i * (len(places) - 1) / (_TABLE_ROWS - 1))] for i in range(_TABLE_ROWS)]
    return [[number(x), *("" if x not in points else number(points[x]) for points in known.values())] for x in places]


def paired_bars(title: str, rows: Mapping[str, tuple[float, float]], names: tuple[str, str], x_label: str) -> Chart:
    """Two horizontal bars per row, e.g. planned and realised."""
    figure, axes = _axes(x_label, "", 0.9 + 0.34 * max(1, len(rows)))
    for side, name in enumerate(names):
        places = [i + (side - 0.5) * 0.4 for i in range(len(rows))]
        values = [pair[side] for pair in rows.values()]
        axes.barh(places, values, height=0.36, label=_plain(name), **_fill(side))
    _name_rows(axes, list(rows))
    _legend(figure, names)
    return Chart(title, _svg(figure, title), ["", *names], [[name, *map(number, pair)] for name, pair in rows.items()])


def stacked_bars(title: str, rows: Mapping[str, Mapping[str, float]], x_label: str) -> Chart:
    """One horizontal bar per row, cut into named parts."""
    parts = list(dict.fromkeys(part for values in rows.values() for part in values))
    lines_of_legend = -(-len(parts) // _columns(parts))
    figure, axes = _axes(x_label, "", 0.8 + 0.3 * max(1, len(rows)) + 0.2 * lines_of_legend)
    left = [0.0] * len(rows)
    for i, part in enumerate(parts):
        widths = [values.get(part, 0.0) for values in rows.values()]
        axes.barh(range(len(rows)), widths, left=left, height=0.7, label=_plain(part), **_fill(i))
        left = [a + b for a, b in zip(left, widths, strict=True)]
    _name_rows(axes, list(rows))
    _legend(figure, parts)
    table = [[name, *(number(values.get(part, 0.0)) for part in parts)] for name, values in rows.items()]
    return Chart(title, _svg(figure, title), ["", *parts], table)


def bars(title: str, rows: Mapping[str, float], y_label: str) -> Chart:
    """One upright bar for each name; of many, the names of some."""
    figure, axes = _axes("", y_label, 2.5)
    axes.grid(visible=False)
    axes.bar(range(len(rows)), list(rows.values()), width=0.8, color=_SERIES[0])
    every = -(-len(rows) // 12)
    axes.set_xticks(range(0, len(rows), every), list(rows)[::every])
    return Chart(title, _svg(figure, title), ["", y_label], [[name, number(value)] for name, value in rows.items()])


def boxes(title: str, rows: Mapping[str, Quantiles], x_label: str) -> Chart:
    """Of every row a thin line from the quantile 0.05 to 0.95, a thick one over the middle half, and the median."""
    figure, axes = _axes(x_label, "", 0.8 + 0.3 * max(1, len(rows)))
    low, high = min(one.p5 for one in rows.values()), max(one.p95 for one in rows.values())
    if low > 0 and high / low > _WIDE:
        axes.set_xscale("log")
    for place, one in enumerate(rows.values()):
        axes.hlines(place, one.p5, one.p95, color=_SERIES[0], linewidth=1.5)
        axes.hlines(place, one.p25, one.p75, color=_SERIES[0], linewidth=8)
        axes.plot([one.median], [place], marker="|", markersize=13, markeredgewidth=2, color=_SERIES[1])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    _name_rows(axes, list(rows))
    columns = ["", "count", "least", "5 %", "25 %", "median", "75 %", "95 %", "largest"]
    table = [
        [name, f"{one.count:,}", *map(number, (one.least, one.p5, one.p25, one.median, one.p75, one.p95, one.largest))]
        for name, one in rows.items()
    ]
    return Chart(title, _svg(figure, title), columns, table)


def shares(title: str, rows: Mapping[str, Mapping[str, float]]) -> Chart:
    """A field of shares in 0..1, each written into its place, darker where it is larger."""
    parts = list(dict.fromkeys(part for values in rows.values() for part in values))
    figure, axes = _axes("", "", 0.7 + 0.3 * max(1, len(rows)))
    axes.grid(visible=False)
    for place, values in enumerate(rows.values()):
        for column, part in enumerate(parts):
            share = values.get(part, 0.0)
            box = Rectangle(
                (column - 0.48, place - 0.46), 0.96, 0.92, color=_SERIES[0], alpha=0.35 * share, linewidth=0
            )
            axes.add_patch(box)
            told = f"{share:.0%}" if share else ""
            axes.text(column, place, told, ha="center", va="center", fontsize=_LETTERS - 1, color=_INK)
    axes.set_xlim(-0.5, len(parts) - 0.5)
    axes.set_ylim(-0.5, len(rows) - 0.5)
    axes.set_xticks(range(len(parts)), parts, fontsize=_LETTERS - 1)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    _name_rows(axes, list(rows))
    table = [[name, *(f"{values.get(part, 0):.1%}" for part in parts)] for name, values in rows.items()]
    return Chart(title, _svg(figure, title), ["", *parts], table)


def number(value: float) -> str:
    """A number as a table shows it."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:,.4g}"


def _fill(i: int) -> dict[str, Any]:
    hatch = _HATCHES[i % len(_HATCHES)]
    return {"color": _SERIES[i % len(_SERIES)], "hatch": hatch, "edgecolor": _PAPER}


def _axes(x_label: str, y_label: str, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.set_xlabel(x_label, color=_INK, fontsize=_LETTERS)
    axes.set_ylabel(y_label, color=_INK, fontsize=_LETTERS)
    axes.tick_params(colors=_INK, labelsize=_LETTERS)
    axes.locator_params(axis="x", nbins=6)
    axes.grid(axis="x", color=_INK, alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_INK)
    return figure, axes


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Rows from top to bottom; long names keep their ends."""
    short = [name if len(name) <= 26 else f"{name[:12]}…{name[-13:]}" for name in names]
    axes.set_yticks(range(len(names)), list(map(_plain, short)))
    axes.invert_yaxis()


def _plain(name: str) -> str:
    """A name as it is, not as a formula."""
    return name.replace("$", r"\$")


def _columns(names: Mapping[str, object] | Sequence[str]) -> int:
    """How many entries of a legend stand beside each other."""
    return max(1, min(len(names), int(56 / (5 + max(map(len, names))))))


def _legend(figure: Figure, names: Mapping[str, object] | Sequence[str]) -> None:
    figure.legend(
        loc="outside lower center",
        ncols=_columns(names),
        frameon=False,
        labelcolor=_INK,
        fontsize=_LETTERS,
        handlelength=2.2,
        columnspacing=1.2,
    )


def _svg(figure: Figure, title: str) -> Markup:
    stream = io.StringIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": title, "font.family": "sans-serif", "hatch.linewidth": 0.8}
    with mpl.rc_context(settings):
        canvas: Any = FigureCanvasSVG(figure)  # its stubs lack types
        # Not `savefig`, which draws twice.
        canvas.print_svg(stream, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    body = re.sub(r"<!--.*?-->\n?", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Two charts in one page must not share clip-path and marker names.
    salt = f"{re.sub(r'[^A-Za-z]', '', title)[:24]}{len(body)}"
    body = re.sub(r'id="([\w.-]+)"', rf'id="{salt}-\1"', body)
    body = re.sub(r"url\(#([\w.-]+)\)", rf"url(#{salt}-\1)", body)
    body = re.sub(r'href="#([\w.-]+)"', rf'href="#{salt}-\1"', body)
    for i, colour in enumerate(_SERIES, 1):
        body = body.replace(colour, f"var(--series-{i})")
    body = body.replace(_INK, "currentColor").replace(_PAPER, "var(--card)")
    # The size is the style's; the drawing keeps its proportions by its view box.
    body = re.sub(r'^<svg([^>]*?) width="[^"]*"', r"<svg\1", body)
    body = re.sub(r'^<svg([^>]*?) height="[^"]*"', r"<svg\1", body)
    label = title.replace("&", "and").replace('"', "").replace("<", "")
    # matplotlib escapes what it writes.
    return Markup(body.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))  # noqa: S704
