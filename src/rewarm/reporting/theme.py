"""Colours of pages and figures, light and dark, and the style that every figure needs.

The series colours descend from Okabe and Ito's palette, which readers with any colour vision can
tell apart; they were darkened (lightened on dark) until text in them has a contrast of 4.5 : 1.
Marks differ in shape as well, so no figure rests on colour alone.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["DARK", "FIGURE_STYLE", "LIGHT", "NUM_SERIES_COLORS", "variables"]

_LIGHT_SERIES = (
    "#0067a5",  # blue
    "#bf4b00",  # vermilion
    "#00755a",  # green
    "#a8457d",  # reddish purple
    "#856200",  # ochre
    "#6650a8",  # violet
    "#14788f",  # cyan
    "#59626d",  # grey
)
_DARK_SERIES = (
    "#5cb3f2",
    "#f58b4f",
    "#3ccb9f",
    "#eb94c6",
    "#dcb241",
    "#b5a3f5",
    "#58cbe3",
    "#a7b0ba",
)
NUM_SERIES_COLORS = len(_LIGHT_SERIES)


def _series(colors: tuple[str, ...]) -> dict[str, str]:
    return {f"series-{index}": color for index, color in enumerate(colors)}


LIGHT: Mapping[str, str] = {
    "page": "#ffffff",
    "raised": "#f6f7f8",
    "ink": "#1a1e23",
    "soft": "#59616b",
    "line": "#dfe2e6",
    "grid": "#ebedf0",
    "band": "#f1f3f5",
    "shade": "#00000030",
    "accent": "#0067a5",
    "good": "#00755a",
    "bad": "#bf4b00",
    "warn-page": "#fff7e6",
    "warn-line": "#e2c98f",
    **_series(_LIGHT_SERIES),
}
DARK: Mapping[str, str] = {
    "page": "#14171b",
    "raised": "#1c2026",
    "ink": "#e7eaee",
    "soft": "#a3abb5",
    "line": "#333a43",
    "grid": "#272d34",
    "band": "#1d2228",
    "shade": "#ffffff30",
    "accent": "#5cb3f2",
    "good": "#3ccb9f",
    "bad": "#f58b4f",
    "warn-page": "#2a2415",
    "warn-line": "#5f5126",
    **_series(_DARK_SERIES),
}


def variables(theme: Mapping[str, str]) -> str:
    """Return a theme as CSS custom properties: `--ink: #1a1e23; …`."""
    return " ".join(f"--{name}: {value};" for name, value in theme.items())


FIGURE_STYLE = """\
.figure text { font: 12px/1 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, \
"Helvetica Neue", Arial, sans-serif; fill: var(--soft); font-variant-numeric: tabular-nums; }
.figure .name { fill: var(--ink); }
.figure .strong { fill: var(--ink); font-weight: 600; }
.figure .direct { fill: var(--c); font-weight: 600; paint-order: stroke; stroke: var(--page); \
stroke-width: 3px; stroke-linejoin: round; }
.figure .inside { fill: var(--page); font-weight: 600; }
.figure .grid { stroke: var(--grid); }
.figure .axis { stroke: var(--line); }
.figure .zero { stroke: var(--soft); }
.figure .band { fill: var(--band); }
.figure .kept { fill: var(--good); opacity: .13; }
.figure .edge { stroke: var(--soft); stroke-dasharray: 2 3; }
.figure .line { fill: none; stroke: var(--c); stroke-width: 1.8; stroke-linejoin: round; }
.figure .over { fill: none; stroke: var(--c); stroke-width: 1.8; stroke-dasharray: 7 7; }
.figure .faint { fill: none; stroke: var(--c); stroke-width: 1; opacity: .32; }
.figure .noise { fill: var(--c); stroke: none; opacity: .13; }
.figure .planned { fill: none; stroke: var(--soft); stroke-width: 4.5; opacity: .32; }
.figure .whisker { fill: none; stroke: var(--c); stroke-width: 1.6; }
.figure .drop { stroke: var(--c); stroke-width: 1; stroke-dasharray: 2 3; }
.figure .ring { fill: var(--page); stroke: var(--c); stroke-width: 2; }
.figure .leader { stroke: var(--c); stroke-width: 1; opacity: .5; }
.figure .mark { fill: var(--c); }
.figure .dot { fill: var(--c); stroke: var(--page); stroke-width: 1; }
.figure .origin { fill: var(--page); stroke: var(--ink); stroke-width: 1.6; }
.figure .front { fill: none; stroke: var(--soft); stroke-width: 1.2; stroke-dasharray: 5 4; }
.figure .share { fill: var(--c); stroke: var(--page); stroke-width: 1.5; }
.figure .pale { opacity: .45; }
.good { --c: var(--good); }
.bad { --c: var(--bad); }
.open { --c: var(--soft); }
""" + "\n".join(
    f".s{index} {{ --c: var(--series-{index}); }}" for index in range(NUM_SERIES_COLORS)
)
"""Needs the custom properties of a theme around it; `.s0` … carry a series' colour as `--c`."""
