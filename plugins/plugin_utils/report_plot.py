# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures as SVG, drawn by pygal. Private to the collection.

pygal was chosen for its size: 1 MB of Python without anything compiled, where matplotlib with what it needs is 137 MB.
What it puts around the drawing (scripts, styles, links) is taken out: the report's own style sheet has the colours.
"""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree import ElementTree

Row = dict[str, Any]

WIDTH, HEIGHT = 460, 220
SVG = "{http://www.w3.org/2000/svg}"
# All that a drawing needs; an element or attribute that is not named here does not get into the report.
ELEMENTS = frozenset(("svg", "g", "path", "line", "rect", "circle", "text"))
ATTRIBUTES = frozenset(
    (
        "class",
        "cx",
        "cy",
        "d",
        "height",
        "r",
        "rx",
        "ry",
        "transform",
        "viewBox",
        "width",
        "x",
        "x1",
        "x2",
        "y",
        "y1",
        "y2",
    )
)
X_LABELS, Y_LABELS = 5, 4
DOT = 3.5
BAND = "lowest to highest"


def drawer() -> Any:
    """The drawing package; None where it is not installed."""
    try:
        import pygal
    except ImportError:
        return None
    return pygal


def classes(series: list[Row]) -> list[str]:
    """What each series is to the style sheet: its kind, and for all but outliers its colour."""
    found, colour = [], 0
    for each in series:
        plain = each["kind"] in ("line", "area")
        found.append(f"{each['kind']} hue{colour}" if plain else each["kind"])
        # The band around a line has the line's colour.
        colour += plain and each["name"] != BAND
    return found


def draw(picture: Row) -> str:
    """The picture as one SVG element, to be put into a page. Its texts are in the page, for those who do not see it."""
    pygal = drawer()
    across, up = _scale(picture.get("logarithmic_x")), _scale(picture["logarithmic"])
    points = [point for series in picture["series"] for point in series["points"]]
    chart = pygal.XY(
        width=WIDTH,
        height=HEIGHT,
        no_prefix=True,
        css=[],
        js=[],
        show_legend=False,
        disable_xml_declaration=True,
        x_title=picture["x"],
        margin=4,
        margin_right=14,
        dots_size=DOT,
        x_value_formatter=lambda value: _short(across.back(value)),
        value_formatter=lambda value: _short(up.back(value)),
        include_x_axis=not picture["logarithmic"],
        print_labels=True,
    )
    kinds = classes(picture["series"])
    chart.add_xml_filter(lambda root: _kept(root, kinds))
    for series in picture["series"]:
        marks = series["kind"] == "marks"
        labels = series["labels"] or [None] * len(series["points"])
        values = [
            {"value": (across.on(x), up.on(y)), **({"label": label} if label else {})}
            for (x, y), label in zip(series["points"], labels)
        ]
        chart.add(None, values, stroke=not marks, show_dots=marks)
    chart.x_labels = across.ticks([x for x, _y in points], X_LABELS, inside=True)
    heights = [y for _x, y in points] + ([] if picture["logarithmic"] else [0.0])
    chart.y_labels = up.ticks(heights, Y_LABELS, finest=1.0 if picture.get("whole") else 0.0)
    drawn: str = chart.render(is_unicode=True)
    return drawn


class _Linear:
    """Values as they are."""

    def on(self, value: float) -> float:
        return value

    def back(self, place: Any) -> float:
        return float(place)

    def ticks(self, values: list[float], most: int, finest: float = 0.0, inside: bool = False) -> list[float]:
        """Round numbers that cover all values, no closer than ``finest``."""
        low, high = min(values), max(values)
        span = (high - low) or 1.0
        step = 10 ** math.floor(math.log10(span / most))
        step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= most)
        step = max(step, finest)
        return [round(place * step, 9) for place in range(math.floor(low / step), math.ceil(high / step) + 1)]


class _Logarithmic(_Linear):
    """Values by their power of ten."""

    def on(self, value: float) -> float:
        return math.log10(value)

    def back(self, place: Any) -> float:
        return float(10 ** float(place))

    def ticks(self, values: list[float], most: int, finest: float = 0.0, inside: bool = False) -> list[float]:
        """Powers of ten that cover all values, or lie between them."""
        below, above = math.log10(min(values)), math.log10(max(values))
        low, high = (math.ceil(below), math.floor(above)) if inside else (math.floor(below), math.ceil(above))
        return [float(power) for power in range(low, high + 1, max(1, round((high - low) / most)))]


def _scale(logarithmic: Any) -> _Linear:
    return _Logarithmic() if logarithmic else _Linear()


def _short(value: Any) -> str:
    number = float(value)
    if number and (abs(number) < 0.01 or abs(number) >= 100_000):
        return f"{number:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{number:,.0f}" if abs(number) >= 1000 or number == int(number) else f"{number:.4g}"


def _kept(root: Any, kinds: list[str]) -> Any:
    """Only the drawing: no scripts, styles and links, and the class of each series by what it is."""
    copy = ElementTree.Element(
        "svg", {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "class": "plot-svg", "aria-hidden": "true", "focusable": "false"}
    )
    _copy(root, copy, kinds)
    return copy


def _copy(source: Any, target: Any, kinds: list[str]) -> None:
    for child in source:
        if not isinstance(child.tag, str):
            continue  # a comment
        tag = child.tag.replace(SVG, "")
        if tag not in ELEMENTS:
            continue
        attributes = {name: _rounded(value) for name, value in child.attrib.items() if name in ATTRIBUTES and value}
        names = attributes.get("class", "").split()
        number = next((name[6:] for name in names if name.startswith("serie-")), None)
        if number is not None and "series" in names:
            attributes["class"] = f"series {kinds[int(number)]}"
        made = ElementTree.SubElement(target, tag, attributes)
        made.text = child.text if tag == "text" else None
        _copy(child, made, kinds)


def _rounded(value: str) -> str:
    """Coordinates to a tenth of a point: nobody sees more, and a picture is half as long."""
    return re.sub(r"-?\d+\.\d+", lambda found: f"{float(found.group()):.1f}".removesuffix(".0"), value)
