"""Which files of the corpora are read, and which of them are not there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from rewarm.errors import Problems, UserError

__all__ = ["check_corpora", "named_corpora"]

_NAMED = re.compile(r'"\.\./work/(?:data/([^"]+)|(?:streams/)?text/([\w.-]+\.jsonl))"')


def check_corpora(data: Path, names: Iterable[str]) -> None:
    """Raise UserError with every file that is not in the folder of the corpora."""
    missing = [name for name in sorted(set(names)) if not (data / name).is_file()]
    if missing:
        problems = Problems()
        problems.add(
            str(data),
            f"it lacks {', '.join(missing)}",
            "name a folder that holds all of the corpora: --data FOLDER or REWARM_DATA",
        )
        problems.raise_as(UserError)


def named_corpora(files: Iterable[Path]) -> set[str]:
    """Return the files of the corpora that recipes and experiments name, cut into pieces or whole.

    Pieces of NAME.jsonl are cut from text/NAME.jsonl.zst.
    """
    found = set()
    for path in files:
        for whole, cut in _NAMED.findall(path.read_text(encoding="utf-8")):
            found.add(whole or f"text/{cut}.zst")
    return found
