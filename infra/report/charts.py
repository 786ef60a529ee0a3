"""Charts as inline SVG, drawn by matplotlib; colours follow the page through ``currentColor``-like greys."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette, distinct for colour-blind readers.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#f0e442")
_GREY = "#808890"
_STYLES = ("solid", "dashed", "dotted")

Curve = Sequence[tuple[float, float]]


def curves(title: str, lines: Mapping[str, Curve], x_label: str, y_label: str) -> Markup:
    """Line chart of named (x, y) series."""
    figure, axes = _axes(title, x_label, y_label)
    for i, (name, points) in enumerate(lines.items()):
        x, y = zip(*points, strict=True) if points else ((), ())
        style = _STYLES[i // len(COLOURS) % len(_STYLES)]
        axes.plot(x, y, label=name, color=COLOURS[i % len(COLOURS)], linestyle=style, linewidth=1.4)
    if len(lines) > 1:
        _legend(figure, "outside right upper", columns=1)
    return _svg(figure, title)


def paired_bars(title: str, rows: Mapping[str, tuple[float, float]], names: tuple[str, str], x_label: str) -> Markup:
    """Two horizontal bars per row, e.g. planned and realised."""
    figure, axes = _axes(title, x_label, "", height=0.6 + 0.42 * max(1, len(rows)))
    for side, name in enumerate(names):
        places = [i + (side - 0.5) * 0.38 for i in range(len(rows))]
        axes.barh(places, [pair[side] for pair in rows.values()], height=0.36, label=name, color=COLOURS[side])
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    _legend(figure, "outside lower center", columns=len(names))
    return _svg(figure, title)


def stacked_bars(title: str, rows: Mapping[str, Mapping[str, float]], x_label: str) -> Markup:
    """One horizontal bar per row, cut into named parts."""
    figure, axes = _axes(title, x_label, "", height=0.8 + 0.34 * max(1, len(rows)))
    parts = list(dict.fromkeys(part for values in rows.values() for part in values))
    left = [0.0] * len(rows)
    for i, part in enumerate(parts):
        widths = [values.get(part, 0.0) for values in rows.values()]
        axes.barh(range(len(rows)), widths, left=left, height=0.7, label=part, color=COLOURS[i % len(COLOURS)])
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    _legend(figure, "outside lower center", columns=len(parts))
    return _svg(figure, title)


def _axes(title: str, x_label: str, y_label: str, height: float = 2.8) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.set_title(title, loc="left", fontsize=10, color=_GREY)
    axes.set_xlabel(x_label, color=_GREY, fontsize=9)
    axes.set_ylabel(y_label, color=_GREY, fontsize=9)
    axes.tick_params(colors=_GREY, labelsize=9)
    axes.grid(axis="x", color=_GREY, alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_GREY)
    return figure, axes


def _legend(figure: Figure, place: Literal["outside right upper", "outside lower center"], columns: int) -> None:
    figure.legend(loc=place, ncols=columns, frameon=False, labelcolor=_GREY, fontsize=8)


def _svg(figure: Figure, title: str) -> Markup:
    stream = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.family": "sans-serif"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    body = text[text.index("<svg") :]
    label = title.replace("&", "and").replace('"', "")
    # Two charts in one page must not share clip-path and marker names.
    salt = re.sub(r"\W", "", title)[:24]
    body = re.sub(r'id="(\w+)"', rf'id="{salt}-\1"', body)
    body = re.sub(r"url\(#(\w+)\)", rf"url(#{salt}-\1)", body)
    body = re.sub(r'href="#(\w+)"', rf'href="#{salt}-\1"', body)
    # matplotlib escapes what it writes.
    return Markup(body.replace("<svg", f'<svg role="img" aria-label="{label}" class="chart"', 1))  # noqa: S704
