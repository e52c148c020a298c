"""The preset of a recipe that `rewarm init` writes: which one, why, and what it fills in."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from rewarm.recipe.advice import Advice, advise
from rewarm.recipe.presets import PRESETS, Declared, settings_of
from rewarm.recipe.setting import Setting, as_toml, written
from rewarm.units import format_count

__all__ = ["Choice", "choose", "keys_of_source", "preset_lines"]

_BYTES_PER_TOKEN = 4
# Used for 3B and 8B models by Guo et al. 2024; a stated stand-in where nothing is known.
_FALLBACK_LR = 3e-5
_COMMENT_WIDTH = 95


@dataclass(frozen=True, slots=True)
class Choice:
    """A preset, what it was chosen from, and what would be advised."""

    preset: str
    declared: Declared
    advice: Advice
    new_tokens: int | None
    """An estimate from the size of the new text; None where its files cannot be seen."""

    @property
    def settings(self) -> tuple[Setting, ...]:
        """What the preset fills in."""
        return settings_of(PRESETS[self.preset], self.declared)


def choose(
    declared: Declared,
    *,
    preset: str | None,
    budget_tokens: int,
    new_bytes: int,
    more_to_come: bool,
) -> Choice:
    """Return the preset that was asked for, else the one that is advised."""
    new_tokens = new_bytes // _BYTES_PER_TOKEN or None
    advice = advise(
        declared, budget_tokens=budget_tokens, new_tokens=new_tokens, more_to_come=more_to_come
    )
    return Choice(preset or advice.preset, declared, advice, new_tokens)


def preset_lines(choice: Choice) -> list[str]:
    """Return the top of a recipe: shift and preset with the reasons, then what it fills in.

    The latter are comments, each of which stands by itself once it is uncommented.
    """
    return [
        *_shift(choice.declared),
        *_preset(choice),
        *_rate_that_is_missing(choice),
        "",
        f"# What the preset fills in; docs/recipes/{_page(choice.preset)} tells more. Uncomment a "
        "line to change it.",
        *(_comment(line) for setting in _of_the_top(choice) for line in written(setting)),
    ]


def keys_of_source(choice: Choice, source: str) -> list[str]:
    """Return what the preset fills in within the table of a source, as comments."""
    prefix = f"sources.{source}."
    return [
        _comment(line.removeprefix(prefix))
        for setting in choice.settings
        if setting.key.startswith(prefix)
        for line in written(setting)
    ]


def _of_the_top(choice: Choice) -> list[Setting]:
    """Return the settings that are no source's: a source's table stands further below."""
    missing = _is_missing_rate(choice)
    return [
        setting
        for setting in choice.settings
        if not setting.key.startswith("sources.")
        and not (missing and setting.key == "schedule.peak_lr")
    ]


def _comment(line: str) -> str:
    return line if line.startswith("#") else f"# {line}"


def _page(preset: str) -> str:
    return "controls.md" if PRESETS[preset].is_control else f"{preset}.md"


def _shift(declared: Declared) -> list[str]:
    what = "how far the new text is from the pretraining's"
    if declared.shift is None:
        return [f'# shift = "weak"  # {what}; not said: taken for strong']
    other = "strong" if declared.shift == "weak" else "weak"
    return [f'shift = "{declared.shift}"  # or "{other}": {what}']


def _preset(choice: Choice) -> list[str]:
    advice = choice.advice
    if choice.preset != advice.preset:
        lines = [f'preset = "{choice.preset}"  # as asked for']
        told = [f"Advised would be {advice.preset}: {'; '.join(advice.reasons)}."]
    else:
        because = f'preset = "{choice.preset}"  # because {"; ".join(advice.reasons)}'
        first, *more = textwrap.wrap(because, _COMMENT_WIDTH, break_on_hyphens=False)
        lines = [first, *(f"#   {line}" for line in more)]
        told = [f"Not {name}: {why}." for name, why in advice.others]
    if choice.new_tokens is not None:
        told.append(
            f"The new text was taken for {format_count(choice.new_tokens)} tokens, an estimate: "
            f"its bytes / {_BYTES_PER_TOKEN}."
        )
    wrapped = [
        part
        for text in told
        for part in textwrap.wrap(text, _COMMENT_WIDTH, subsequent_indent="  ")
    ]
    return [*lines, *(f"# {part}" for part in wrapped)]


def _is_missing_rate(choice: Choice) -> bool:
    """Tell whether the preset starts from a rate of the base's that nobody has said."""
    declared = choice.declared
    wanted = next(s.value for s in choice.settings if s.key == "schedule.peak_lr")
    if wanted == "pretraining.peak":
        return declared.peak_lr is None
    return wanted == "pretraining.final" and declared.peak_lr is None and not declared.final_lr


def _rate_that_is_missing(choice: Choice) -> list[str]:
    if not _is_missing_rate(choice):
        return []
    wanted = next(s.value for s in choice.settings if s.key == "schedule.peak_lr")
    return [
        "",
        f"schedule.peak_lr = {as_toml(_FALLBACK_LR)}"
        "  # ASSUMED: nothing is known of the base's rates",
        "# (3e-5 served 3B and 8B models, 3e-4 a 1.1B model in Guo et al. 2024). Better: give",
        f'# base.pretraining below and write "{wanted}" here, or let rewarm tune --lr measure',
        "# three rates around this one.",
    ]
