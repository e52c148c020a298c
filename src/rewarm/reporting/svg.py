"""SVG by hand: elements whose text and attributes are escaped, marks, and the width of a text."""

from __future__ import annotations

import html
import math
import unicodedata

__all__ = [
    "Frame",
    "element",
    "marker",
    "path",
    "pixel",
    "shortened",
    "text",
    "text_width",
]

from collections.abc import Sequence
from dataclasses import dataclass

from rewarm.reporting.text import clean

_FONT_SIZE = 12
_BOLDER = 1.12
_NARROW = frozenset("iljtfrI.,:;'|!()[]-· ")
_BROAD = frozenset("mwMWOQGDHNUC%@—↖→")


def pixel(value: float) -> str:
    """Return a coordinate to a hundredth of a pixel, without trailing zeros: 12.5, 3, 0."""
    rounded = round(value, 2) or 0.0
    return f"{rounded:.2f}".rstrip("0").rstrip(".")


def element(tag: str, *children: str, **attributes: str | float) -> str:
    """Return an element; children are markup, attribute values are escaped.

    `class_` stands for class, underscores for hyphens; numbers are written as pixels.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
        for name, value in attributes.items()
        if value != ""
    )
    return f"<{tag}{written}>{''.join(children)}</{tag}>"


def _attribute(value: str | float) -> str:
    return html.escape(clean(value)) if isinstance(value, str) else pixel(value)


def text(content: str, x: float, y: float, *, class_: str = "", anchor: str = "") -> str:
    """Return escaped text with its baseline at (x, y)."""
    return element("text", html.escape(clean(content)), x=x, y=y, class_=class_, text_anchor=anchor)


def path(points: Sequence[tuple[float, float]], class_: str) -> str:
    """Return an open path through the points."""
    steps = "L".join(f"{pixel(x)} {pixel(y)}" for x, y in points)
    return element("path", class_=class_, d=f"M{steps}")


def marker(shape: int, x: float, y: float, radius: float, class_: str = "dot") -> str:
    """Return a mark around (x, y); shapes by number: circle, square, triangle, diamond, …"""
    kind = shape % 6
    if kind == 0:
        return element("circle", class_=class_, cx=x, cy=y, r=radius)
    sides, turn, scale = ((4, 45, 1.2), (3, -90, 1.3), (4, 0, 1.3), (3, 90, 1.3), (6, 0, 1.15))[
        kind - 1
    ]
    corners = (math.radians(turn + 360 * k / sides) for k in range(sides))
    points = " ".join(
        f"{pixel(x + scale * radius * math.cos(a))},{pixel(y + scale * radius * math.sin(a))}"
        for a in corners
    )
    return element("polygon", class_=class_, points=points)


def text_width(content: str, *, bold: bool = False) -> float:
    """Return about how many pixels a text of the figures takes, rather too many than too few.

    No font is at hand to ask, and readers have different ones.
    """
    width = 0.0
    for character in content:
        if unicodedata.east_asian_width(character) in "WF":
            width += 1.0
        elif unicodedata.combining(character):
            continue
        elif character in _NARROW:
            width += 0.36
        else:
            width += 0.9 if character in _BROAD else 0.63
    return _FONT_SIZE * width * (_BOLDER if bold else 1.0)


def shortened(content: str, most_pixels: float, *, bold: bool = False) -> str:
    """Return the text, cut with an ellipsis where it is wider; empty where nothing would fit."""
    if text_width(content, bold=bold) <= most_pixels:
        return content
    kept = content
    while kept and text_width(kept + "…", bold=bold) > most_pixels:
        kept = kept[:-1]
    return f"{kept.rstrip()}…" if kept else ""


@dataclass(frozen=True, slots=True)
class Frame:
    """The plot's rectangle inside a drawing of `width` by `height` pixels."""

    width: float
    height: float
    left: float
    top: float
    right: float
    bottom: float

    def x(self, fraction: float) -> float:
        """Return the pixel column at a fraction of the horizontal axis."""
        return self.left + fraction * (self.right - self.left)

    def y(self, fraction: float) -> float:
        """Return the pixel row at a fraction of the vertical axis, which points up."""
        return self.bottom - fraction * (self.bottom - self.top)
