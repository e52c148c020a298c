"""The published recipes by name: fragments that lie under what a person writes.

`preset = "rewarm"` fills in whatever the recipe leaves out, key by key; every number carries where
it comes from, and `rewarm plan` shows it. What a paper leaves open is marked as chosen here. A
preset's phases are told by role, so that they fit whatever sources there are; a role without a
source is left out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rewarm.recipe.schedule import keys_of_other_kinds
from rewarm.recipe.schema import Recipe
from rewarm.recipe.setting import Setting
from rewarm.recipe.sources import OLD_ROLES
from rewarm.units import parse_count

__all__ = [
    "PRESETS",
    "Declared",
    "Preset",
    "declared_by",
    "declared_in",
    "laid_under",
    "settings_of",
]

REUSE = "Parmar et al. 2024, arXiv 2407.07263"
REWARM = "Ibrahim et al. 2024, arXiv 2403.08763"
GAP = "Guo et al. 2024, arXiv 2406.14833"
WSD = "Hägele et al. 2024, arXiv 2405.18392"
HALF = "Hui et al. 2024, arXiv 2404.18466"
FREEZEOUT = "Brock et al. 2017, arXiv 1706.04983"
REHEARSAL = "pseudo-rehearsal (Robins 1995)"
OURS = "chosen here"

Shift = Literal["weak", "strong"]
Blend = dict[str, float]

_REPLAY_SHARE = {"weak": 0.05, "strong": 0.25}
_QA_SHARE = 0.1
_DOMAIN_SHARE = 0.82
_REHEARSED = "rehearsed"
_REHEARSED_EPOCHS = 2
_UNKNOWN_BUDGET = 1_000_000


@dataclass(frozen=True, slots=True)
class Declared:
    """What a person says of the task, as far as presets and advice depend on it."""

    sources: Mapping[str, str] = field(default_factory=dict)
    """Role by name of the source."""
    shift: Shift | None = None
    peak_lr: float | None = None
    final_lr: float | None = None
    budget_tokens: int | None = None

    @property
    def roles(self) -> frozenset[str]:
        """The roles that some source has."""
        return frozenset(self.sources.values())

    @property
    def has_old(self) -> bool:
        """Whether there is text of the base's pretraining, or like it."""
        return bool(self.roles & OLD_ROLES)


@dataclass(frozen=True, slots=True)
class Preset:
    """A recipe fragment by name; `phases` and `more` follow from what is declared."""

    name: str
    title: str
    not_for: str
    settings: tuple[Setting, ...]
    phases: Callable[[Declared], Setting]
    more: Callable[[Declared], tuple[Setting, ...]] = lambda declared: ()
    needs: Literal["old", "new"] | None = None
    """Sources without which it makes no sense."""
    is_control: bool = False
    """Whether it is there to be compared with, and never advised."""


def declared_by(tree: Mapping[str, Any]) -> Declared:
    """Return what a recipe's TOML declares; what is not of its form counts as not said."""
    sources = {
        name: source["role"]
        for name, source in _table(tree, "sources").items()
        if isinstance(source, Mapping) and isinstance(source.get("role"), str)
    }
    pretraining = _table(_table(tree, "base"), "pretraining")
    shift = tree.get("shift")
    return Declared(
        sources=sources,
        shift=shift if shift in ("weak", "strong") else None,
        peak_lr=_rate(pretraining.get("peak_lr")),
        final_lr=_rate(pretraining.get("final_lr")),
        budget_tokens=_count(_table(tree, "budget").get("tokens")),
    )


def declared_in(recipe: Recipe) -> Declared:
    """Return what a recipe declares."""
    pretraining = recipe.base.pretraining
    return Declared(
        sources={name: source.role for name, source in recipe.sources.items()},
        shift=recipe.shift,
        peak_lr=pretraining.peak_lr,
        final_lr=pretraining.final_lr,
        budget_tokens=recipe.budget.tokens,
    )


def settings_of(preset: Preset, declared: Declared) -> tuple[Setting, ...]:
    """Return all that a preset fills in for what is declared."""
    return (*preset.settings, *preset.more(declared), preset.phases(declared))


def laid_under(
    tree: Mapping[str, Any], settings: Sequence[Setting]
) -> tuple[dict[str, Any], tuple[Setting, ...]]:
    """Return a recipe's TOML with settings filled in where it says nothing, and those that were."""
    merged: dict[str, Any] = copy.deepcopy(dict(tree))
    used: list[Setting] = []
    for setting in settings:
        *path, key = setting.key.split(".")
        table: Any = merged
        for part in path:
            table = table.setdefault(part, {}) if isinstance(table, dict) else None
        if not isinstance(table, dict) or key in table or _is_ruled_out(key, path, table):
            continue
        table[key] = copy.deepcopy(setting.value)
        used.append(setting)
    return merged, tuple(used)


def _is_ruled_out(key: str, path: Sequence[str], table: Mapping[str, Any]) -> bool:
    """Tell whether what a person wrote leaves no place for a key of the schedule."""
    if path != ["schedule"]:
        return False
    if key == "warmup_fraction" and "warmup_steps" in table:
        return True
    kind = table.get("kind")
    return isinstance(kind, str) and key in keys_of_other_kinds(kind)


def _table(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = tree.get(key)
    return value if isinstance(value, Mapping) else {}


def _rate(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else None  # type: ignore[arg-type]


def _count(value: object) -> int | None:
    try:
        return parse_count(value)  # type: ignore[arg-type]
    except ValueError:
        return None


# Blends by role


def _scaled(shares: Blend, roles: Collection[str]) -> Blend:
    """Return the shares of the roles that are there, scaled to sum to 1."""
    has_old = bool(OLD_ROLES & set(roles))
    kept = {
        role: share
        for role, share in shares.items()
        if role in roles or (role == "old" and has_old)
    }
    total = sum(kept.values())
    return {role: round(share / total, 6) for role, share in kept.items()}


def _replayed(declared: Declared) -> tuple[Blend, str, str]:
    """Return the blend of new and old text that the shift asks for, why, and from where."""
    if declared.roles == {"qa"}:
        return {"qa": 1.0}, "there are questions and answers alone", OURS
    shift = declared.shift or "strong"
    share = _REPLAY_SHARE[shift]
    blend = _scaled({"new": 1 - share, "old": share}, declared.roles)
    if not declared.has_old:
        return blend, "there is no text of the old domain to replay: expect forgetting", OURS
    if "new" not in declared.roles:
        return (
            blend,
            "there is no source of role new: the base is refreshed on its own domain",
            OURS,
        )
    said = f"{shift} shift" if declared.shift else "shift not declared, taken for strong"
    return blend, f"{said}: {100 * share:g} % of every batch replays old text", REWARM


def _one_phase(declared: Declared) -> Setting:
    blend, why, source = _replayed(declared)
    return Setting("phases", [{"name": "main", "roles": blend}], why, source)


def _general_then_qa(declared: Declared) -> Setting:
    blend, why, source = _replayed(declared)
    if "qa" in blend:
        return Setting("phases", [{"name": "qa", "roles": blend}], why, source)
    if "qa" not in declared.roles:
        return Setting(
            "phases",
            [{"name": "general", "roles": blend}],
            f"{why}; without questions and answers there is no second blend",
            source,
        )
    with_qa = {role: round(share * (1 - _QA_SHARE), 6) for role, share in blend.items()}
    return Setting(
        "phases",
        [
            # The paper's start is the peak; with a warm-up of one's own it still is.
            {"name": "general", "roles": blend, "until": {"lr_below": "peak/5"}},
            {"name": "qa", "roles": with_qa | {"qa": _QA_SHARE}},
        ],
        f"{why}; questions and answers, 6 to 11 % of the tokens, once the rate is below a fifth",
        REUSE if source == OURS else f"{REUSE}; replay: {source}",
    )


def _new_only(declared: Declared) -> Setting:
    return Setting("phases", [{"name": "new", "roles": {"new": 1.0}}], "new text alone", OURS)


def _old_only(declared: Declared) -> Setting:
    return Setting(
        "phases", [{"name": "old", "roles": {"old": 1.0}}], "the old distribution alone", REUSE
    )


def _mixture(declared: Declared) -> Setting:
    blend = _scaled({"new": _DOMAIN_SHARE, "old": 1 - _DOMAIN_SHARE}, declared.roles)
    if not declared.has_old:
        why = "there is no text like the pretraining's to mix with: expect forgetting"
        return Setting("phases", [{"name": "new", "roles": blend}], why, OURS)
    return Setting(
        "phases",
        [{"name": "mixture", "roles": blend}],
        "as the pretraining's mixture: the domain in place of its web part (82 %), the rest kept",
        GAP,
    )


def _made_up(declared: Declared) -> Blend:
    """Return the blend of new text and text that the base makes up."""
    share = _REPLAY_SHARE[declared.shift or "strong"]
    return {"new": 1 - share, "old": share}


def _new_and_made_up(declared: Declared) -> Setting:
    return Setting(
        "phases",
        [{"name": "main", "roles": _made_up(declared)}],
        "text that the base makes up stands in for old text, which may not be at hand",
        REHEARSAL,
    )


def _rehearsed(declared: Declared) -> tuple[Setting, ...]:
    budget = declared.budget_tokens or _UNKNOWN_BUDGET
    # Room for documents held out, and for windows that the tokens do not fill.
    tokens = round(1.1 * _made_up(declared)["old"] * budget / _REHEARSED_EPOCHS) + 4096
    return (
        Setting(
            f"sources.{_REHEARSED}",
            {"role": "replay", "rehearse": {"tokens": tokens}},
            "the pseudo-task: sampled from the base before training, shown twice",
            REHEARSAL,
        ),
    )


def _subsets(declared: Declared) -> tuple[Setting, ...]:
    return tuple(
        Setting(
            f"sources.{name}.subset",
            {"epochs": 4},
            "a subset seen four times in place of one pass over all; of the best text, where the "
            "source is already selected by quality",
            GAP,
        )
        for name, role in declared.sources.items()
        if role == "new"
    )


# The presets


def _adamw(source: str, *, weight_decay: float = 0.1) -> tuple[Setting, ...]:
    return (
        Setting("optimizer.betas", [0.9, 0.95], "AdamW as in the paper", source),
        Setting("optimizer.weight_decay", weight_decay, "AdamW as in the paper", source),
    )


def _from_final(source: str = REUSE) -> tuple[Setting, ...]:
    return (
        Setting("schedule.kind", "cosine", "decays to the end", source),
        Setting(
            "schedule.peak_lr", "pretraining.final", "starts where the pretraining ended", source
        ),
        Setting(
            "schedule.final_lr", "peak/100", "to a hundredth: better than a tenth or 0", source
        ),
        Setting("schedule.warmup_fraction", 0.0, "any warm-up was worse", source),
    )


def _rewarmed(source: str = REWARM) -> tuple[Setting, ...]:
    return (
        Setting("schedule.kind", "cosine", "decays again to the end", source),
        Setting(
            "schedule.peak_lr", "pretraining.peak", "re-warmed to the pretraining's peak", source
        ),
        Setting("schedule.final_lr", "peak/10", "decayed again to a tenth", source),
        Setting("schedule.warmup_fraction", 0.01, "linear over a hundredth of the steps", source),
    )


_LIST = (
    Preset(
        "reuse",
        "general blend, then QA blend below a fifth of the rate; cosine from the final rate",
        "a base that was decayed to nothing, or text far from its pretraining: so low a rate "
        "learns little",
        (*_from_final(), *_adamw(REUSE)),
        _general_then_qa,
    ),
    Preset(
        "rewarm",
        "re-warm to the pretraining's peak, re-decay, replay 5 % (weak shift) or 25 % (strong)",
        "small updates of a finished base: re-warming alone costs old loss at first",
        (*_rewarmed(), *_adamw(REWARM)),
        _one_phase,
    ),
    Preset(
        "infinite",
        "warm-up, cooldown, constant rate, anneal: to be branched, and extended by further data",
        "a single, last data set: a cosine that ends there does as well",
        (
            Setting("schedule.kind", "infinite", "independent of the horizon", REWARM),
            Setting("schedule.peak_lr", "pretraining.peak", "as high as the pretraining's", REWARM),
            Setting("schedule.constant_lr", "peak*0.55", "3e-4 and 1.65e-4 in the paper", REWARM),
            Setting("schedule.final_lr", "peak/10", "3e-4 and 3e-5 in the paper", REWARM),
            Setting("schedule.warmup_fraction", 0.01, "linear", REWARM),
            Setting("schedule.cooldown_shape", "cosine", "from peak to constant", REWARM),
            Setting("schedule.cooldown_end", 0.6, "cooldown until 60 %", REWARM),
            Setting("schedule.anneal_start", 0.85, "anneal from 85 %", REWARM),
            *_adamw(REWARM),
        ),
        _one_phase,
    ),
    Preset(
        "stability-gap",
        "a subset of the new text for four epochs in a mixture like the pretraining's",
        "little new text (less than the budget), or none like the pretraining's to mix with",
        (
            Setting("schedule.kind", "cosine", "decays to the end", GAP),
            Setting(
                "schedule.peak_lr",
                3e-5,
                "used for models of 3B and 8B parameters; 3e-4 for one of 1.1B",
                GAP,
            ),
            Setting("schedule.final_lr", "peak/10", "the paper does not say", OURS),
            Setting("schedule.warmup_fraction", 0.1, "linear over a tenth of the steps", GAP),
            *_adamw(GAP, weight_decay=0.01),
        ),
        _mixture,
        _subsets,
        needs="new",
    ),
    Preset(
        "wsd",
        "warm-up, stable rate, decay over the last fifth: every stable checkpoint can be decayed",
        "a base that was decayed to nothing, unless its checkpoint before the decay is at hand",
        (
            Setting("schedule.kind", "wsd", "warm-up, stable, decay", WSD),
            Setting("schedule.peak_lr", "pretraining.peak", "the stable rate", OURS),
            Setting("schedule.final_lr", 0.0, "decays to nothing", WSD),
            Setting("schedule.warmup_fraction", 0.01, "linear", OURS),
            Setting("schedule.decay_fraction", 0.2, "the last fifth decays", WSD),
            Setting("schedule.decay_shape", "1-sqrt", "better than linear there", WSD),
            *_adamw(WSD),
        ),
        _one_phase,
    ),
    Preset(
        "summary",
        "half of every layer trains, lower layers freeze first, text of the base's own is replayed",
        "a strong shift, or where real old text is at hand: it keeps much and learns less",
        (
            *_from_final(),
            *_adamw(REUSE),
            Setting("parameters.random_half", True, "a subset of the parameters", HALF),
            Setting("freezing.kind", "freezeout", "lower layers first, at set steps", FREEZEOUT),
            Setting("freezing.first", 0.8, "t₀ of the paper's best cubed schedule", FREEZEOUT),
        ),
        _new_and_made_up,
        _rehearsed,
        needs="new",
    ),
    Preset(
        "naive",
        "control: new text alone, re-warmed to the pretraining's peak",
        "anything but a comparison: it forgets most",
        (*_rewarmed(), *_adamw(REWARM)),
        _new_only,
        needs="new",
        is_control=True,
    ),
    Preset(
        "baseline",
        "control: the old distribution alone, at the rates of reuse",
        "anything but a comparison: it learns nothing new",
        (*_from_final(), *_adamw(REUSE)),
        _old_only,
        needs="old",
        is_control=True,
    ),
    Preset(
        "constant",
        "control: the pretraining's final rate throughout",
        "learning much: it forgets least and adapts worst",
        (
            Setting("schedule.kind", "constant", "neither re-warmed nor decayed", REWARM),
            Setting("schedule.peak_lr", "pretraining.final", "the pretraining's last rate", REWARM),
            Setting("schedule.warmup_fraction", 0.0, "it starts where it stays", REWARM),
            *_adamw(REWARM),
        ),
        _one_phase,
        is_control=True,
    ),
)

PRESETS: Mapping[str, Preset] = {preset.name: preset for preset in _LIST}
"""The presets by name, the published recipes before the controls."""
