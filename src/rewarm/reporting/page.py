"""Pages from templates: one file each, that opens offline and shows light and dark."""

from __future__ import annotations

import functools
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rewarm import __version__
from rewarm.reporting.text import clean
from rewarm.reporting.theme import DARK, FIGURE_STYLE, LIGHT, variables

__all__ = ["render_page"]


def render_page(template: str, *, live: bool = False, **values: Any) -> str:
    """Return the page; characters that no page can hold are shown as U+FFFD.

    A `live` one fetches itself again.
    """
    page = (
        _environment()
        .get_template(template)
        .render(
            live=live,
            version=__version__,
            light=Markup(variables(LIGHT)),
            dark=Markup(variables(DARK)),
            figure_style=Markup(FIGURE_STYLE),
            **values,
        )
    )
    return clean(page)


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("rewarm.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
