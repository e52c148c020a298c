"""Writes what follows from the code into docs/recipes and docs/schedules.md: tables and figures.

The pages are written by hand, but for what stands between `<!-- KIND NAME -->` and `<!-- end -->`:

    settings NAME   what a preset fills in, for the recipe of the page
    blends NAME     its phases under a weak and a strong shift
    figure NAME     a drawing of the recipe above it, light and dark
    measures        area and thresholds of all schedules that the page draws
    rules           which preset fits, from the rules of the advice
    presets         the presets with what they are for

A TOML block with a `name` is a recipe; one without is laid over the page's first recipe.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewarm.planning.schedule import area_under, first_step_below, lr_at, peak_step
from rewarm.recipe.advice import RULES
from rewarm.recipe.presets import PRESETS, Blend, Declared, declared_by, settings_of
from rewarm.recipe.setting import as_toml
from rewarm.reporting import numbers
from tools.schedule_figures import DRAWINGS, drawn, files_of, rates_of

__all__ = ["PAGES", "Variant", "page", "recipes_of", "written_files"]

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = (
    DOCS / "schedules.md",
    DOCS / "recipes" / "README.md",
    DOCS / "recipes" / "controls.md",
    *(DOCS / "recipes" / f"{name}.md" for name in PRESETS if not PRESETS[name].is_control),
)
_BLOCK = re.compile(r"<!-- (?!end)(\S+)(?: (\S+))? -->\n(.*?)<!-- end -->", re.DOTALL)
_TOML = re.compile(r"```toml\n(.*?)```", re.DOTALL)
_NO_BREAK = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True, slots=True)
class Variant:
    """A recipe of a page: the text of a whole one, and what a fragment lays over it."""

    text: str
    overrides: tuple[str, ...]


def recipes_of(markdown: str) -> list[Variant]:
    """Return the recipes of a page, in order."""
    return [_variant(markdown, found[1]) for found in _TOML.finditer(markdown)]


def _variant(markdown: str, block: str) -> Variant:
    tree = tomllib.loads(block)
    if "name" in tree:
        return Variant(block, ())
    whole = _TOML.search(markdown)
    assert whole is not None
    return Variant(whole[1], tuple(_flat(tree)))


def _flat(tree: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield a TOML tree as the overrides that lay it over another."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}={as_toml(value)}"


def written_files() -> dict[Path, str]:
    """Return every page and every figure as it should be, by path."""
    files: dict[Path, str] = {}
    for path in PAGES:
        files[path] = page(path.read_text(encoding="utf-8"), path.parent)
        markdown = files[path]
        for name, variant in _figures(markdown):
            files |= files_of(name, drawn(name, variant.text, variant.overrides))
    return files


def page(markdown: str, folder: Path) -> str:
    """Return a page with its generated parts written anew."""

    def block(found: re.Match[str]) -> str:
        kind, name = found[1], found[2] or ""
        head = f"<!-- {kind}{' ' if name else ''}{name} -->"
        return f"{head}\n\n{_part(kind, name, markdown, folder)}\n\n<!-- end -->"

    return _BLOCK.sub(block, markdown)


def _part(kind: str, name: str, markdown: str, folder: Path) -> str:
    match kind:
        case "settings":
            return _settings(name, recipes_of(markdown)[0])
        case "blends":
            return _blends(name)
        case "figure":
            return _picture(name, folder)
        case "measures":
            return _measures(markdown)
        case "rules":
            return _rules()
        case "presets":
            return _presets()
    raise ValueError(f"<!-- {kind} {name} -->: no such part")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int] = ()) -> str:
    rules = ["--:" if index in numeric else "---" for index in range(len(heads))]
    lines = [heads, rules, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _settings(name: str, variant: Variant) -> str:
    declared = declared_by(tomllib.loads(variant.text))
    settings = [s for s in settings_of(PRESETS[name], declared) if s.key != "phases"]
    return _table(
        ("key", "value", "why", "source"),
        [(f"`{s.key}`", f"`{as_toml(s.value)}`", s.why, s.source) for s in settings],
    )


def _blends(name: str) -> str:
    sources = {"new": "new", "old": "replay", "qa": "qa"}
    weak, strong = (
        PRESETS[name].phases(Declared(sources, shift)).value for shift in ("weak", "strong")
    )
    rows = [
        (
            f"`{one['name']}`",
            _until(one.get("until")),
            *(
                (_shares(one["roles"]),)
                if weak == strong
                else (_shares(one["roles"]), _shares(two["roles"]))
            ),
        )
        for one, two in zip(weak, strong, strict=True)
    ]
    heads = ("shares",) if weak == strong else ("weak shift", "strong shift")
    return _table(("phase", "ends", *heads), rows)


def _until(until: Mapping[str, str] | None) -> str:
    if until is None:
        return "with the budget"
    return f"where the rate falls below `{until['lr_below']}`"


def _shares(roles: Blend) -> str:
    return ", ".join(
        f"{role}{_NO_BREAK}{100 * share:g}{_NO_BREAK}%" for role, share in roles.items()
    )


def _figures(markdown: str) -> Iterator[tuple[str, Variant]]:
    """Yield each figure with the recipe that stands above it."""
    for found in _BLOCK.finditer(markdown):
        if found[1] == "figure":
            above = [block[1] for block in _TOML.finditer(markdown[: found.start()])]
            after = _TOML.search(markdown, found.end())
            block = above[-1] if above else after[1] if after else ""
            yield found[2], _variant(markdown, block)


def _picture(name: str, folder: Path) -> str:
    up = "../" * len(folder.relative_to(DOCS).parts)
    drawing = DRAWINGS[name]
    alt = f"{drawing.title}. {drawing.description}"
    return (
        "<picture>\n"
        f'  <source media="(prefers-color-scheme: dark)" srcset="{up}figures/{name}-dark.svg">\n'
        f'  <img src="{up}figures/{name}.svg" alt="{alt}">\n'
        "</picture>"
    )


def _measures(markdown: str) -> str:
    """Return for each curve its area as a share of peak × steps, and where it passes a fifth."""
    rows = []
    for name, variant in _figures(markdown):
        drawing = DRAWINGS[name]
        for curve, overrides in drawing.curves:
            _, schedule, _ = rates_of(variant.text, (*variant.overrides, *overrides))
            steps = schedule[-1].end_step
            peak = lr_at(schedule, peak_step(schedule))
            below = first_step_below(schedule, peak / 5)
            rows.append(
                (
                    drawing.title + (f": {curve}" if len(drawing.curves) > 1 else ""),
                    f"{area_under(schedule) / (peak * steps):.3f}",
                    "never" if below is None else numbers.share(below / steps),
                )
            )
    return _table(
        ("schedule", "area / (peak × steps)", "below a fifth of the peak from"), rows, (1, 2)
    )


def _rules() -> str:
    rows = [
        (str(number), rule.when, f"[{rule.preset}]({rule.preset}.md)", rule.because)
        for number, rule in enumerate(RULES, 1)
    ]
    return _table(("", "what you have", "preset", "because"), rows)


def _presets() -> str:
    rows = [
        (
            f"[{name}](controls.md)" if preset.is_control else f"[{name}]({name}.md)",
            preset.title.removeprefix("control: "),
            preset.not_for,
        )
        for name, preset in PRESETS.items()
    ]
    return _table(("preset", "what it does", "not for"), rows)


if __name__ == "__main__":
    for path, text in written_files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
