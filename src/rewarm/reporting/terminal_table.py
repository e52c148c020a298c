"""The one look of tables on a terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

__all__ = ["titled_table"]


def titled_table(title: str) -> Table:
    """Return an empty table without frames, its title in bold at the left."""
    return Table(
        title=Text(title, style="bold"),
        title_justify="left",
        box=None,
        header_style="dim",
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
