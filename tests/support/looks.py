"""What every page keeps, whatever it shows: it fits, it is legible, its figures can be read."""

from __future__ import annotations

import json
from typing import Any

from tests.support.chromium import Page

__all__ = ["check_looks", "read_by_keys", "read_by_pointer"]

_LIGHT, _DARK = "rgb(255, 255, 255)", "rgb(20, 23, 27)"
_LEAST_CONTRAST = 4.5  # of WCAG 2, level AA, for text of usual size

_OVERFLOWING = """
[...document.querySelectorAll('main *, header *')]
  .filter((e) => e.clientWidth && !e.closest('.table, pre, svg, nav, .tip')
    && e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .map((e) => e.outerHTML.slice(0, 100))
"""

_CUT_OFF = """
[...document.querySelectorAll('svg.figure')].filter((svg) => svg.clientWidth > 0)
  .flatMap((svg) => [...svg.querySelectorAll('text')].filter((text) => {
    const box = text.getBBox(), view = svg.viewBox.baseVal;
    return box.x < -2 || box.x + box.width > view.width + 2
      || box.y < -2 || box.y + box.height > view.height + 2;
  }).map((text) => text.textContent))
"""

# Texts of a figure that lie on one another; a sliver is what boxes have beyond their letters.
_ON_ONE_ANOTHER = """
[...document.querySelectorAll('svg.figure')].filter((svg) => svg.clientWidth > 0)
  .flatMap((svg) => {
    const texts = [...svg.querySelectorAll('text')].filter((text) => text.textContent.trim())
      .map((text) => [text.textContent, text.getBoundingClientRect()]);
    return texts.flatMap(([one, a], k) => texts.slice(0, k).filter(([, b]) =>
      Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2
      && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 0.35 * Math.min(a.height, b.height)
    ).map(([other]) => `${one} on ${other}`));
  })
"""

# Contrast of every text against the nearest opaque ground behind it.
_FAINT = """
(() => {
  const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const [r, g, b, a = 1] = parts(getComputedStyle(e).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = new Set();
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.getClientRects().length) continue;
    if (element.closest('script, .inside')) continue;
    const style = getComputedStyle(element);
    const ink = element.closest('svg') ? style.fill : style.color;
    const [one, two] = [light(parts(ink)), light(ground(element))].sort((a, b) => b - a);
    const contrast = (one + 0.05) / (two + 0.05);
    if (contrast < LEAST) found.add(`${contrast.toFixed(2)} ${element.textContent.trim()}`);
  }
  return [...found];
})()
"""


def check_looks(page: Page, *, width: int, dark: bool) -> None:
    """Fail where a page scrolls sideways, cuts text off, or shows what can hardly be read.

    The button that switches light and dark is tried, and left as it was found.
    """
    page.show_as(width=width, dark=dark)
    page.ask("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.ask("document.documentElement.scrollWidth") <= width
    assert page.ask(_OVERFLOWING) == []
    cut_off = page.ask(_CUT_OFF)
    assert cut_off == [], cut_off
    lies = page.ask(_ON_ONE_ANOTHER)
    assert lies == [], lies
    before, after = (_DARK, _LIGHT) if dark else (_LIGHT, _DARK)
    assert _ground(page) == before
    faint = _FAINT.replace("LEAST", str(_LEAST_CONTRAST))
    assert page.ask(faint) == []
    page.ask("document.querySelector('.theme').click()")
    assert _ground(page) == after
    page.ask("document.querySelector('.theme').click()")
    assert _ground(page) == before


def _ground(page: Page) -> Any:
    return page.ask("getComputedStyle(document.body).backgroundColor")


def read_by_pointer(page: Page, plot: str, across: float) -> str:
    """Return what the first such plot says under a mouse that far across it, by a real pointer."""
    which = json.dumps(plot)
    page.ask("document.documentElement.style.scrollBehavior = 'auto'")
    page.ask(f"document.querySelector({which}).scrollIntoView({{block: 'center'}})")
    x, y = page.ask(
        f"""(() => {{
          const drawn = [...document.querySelector({which}).querySelectorAll('svg')];
          const svg = drawn.find((one) => one.clientWidth > 0);
          const [left, top, width, height] = svg.dataset.plot.split(' ').map(Number);
          const box = svg.getBoundingClientRect(), scale = box.width / svg.viewBox.baseVal.width;
          return [box.left + (left + {across} * width) * scale,
            box.top + (top + height / 2) * scale];
        }})()"""
    )
    page.point(x, y)
    return str(page.wait(f"document.querySelector({which} + ' .tip').innerText.trim()"))


def read_by_keys(page: Page, plot: str, key: str) -> str:
    """Return what the first such plot says after a key, once the keyboard is on it."""
    page.ask(f"document.querySelector({json.dumps(plot)}).focus()")
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)
    return str(page.wait(f"document.querySelector({json.dumps(plot)} + ' .tip').innerText.trim()"))
