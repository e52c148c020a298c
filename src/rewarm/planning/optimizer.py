"""Why a run has the optimizer that it has, and with which moments it begins."""

from __future__ import annotations

from rewarm.planning.notes import REUSE, Notes
from rewarm.planning.schedule import Schedule, lr_at, peak_step
from rewarm.recipe.schema import Recipe
from rewarm.records.facts import OptimizerStateFacts

__all__ = ["explain_optimizer"]

_MUON = "Liu et al. 2025, arXiv 2502.16982"
_MADE_NO_DIFFERENCE = "in that study, taking over or not made no difference worth naming"


def explain_optimizer(
    recipe: Recipe, state: OptimizerStateFacts | None, schedule: Schedule, notes: Notes
) -> None:
    """Note the optimizer where it is not the usual one, its first moments, and what of them."""
    if recipe.optimizer.kind == "adamw8bit":
        notes.because(
            "optimizer.kind",
            "adamw8bit",
            "moments as 8-bit codes with a scale per 256 of them: less memory, steps that differ "
            "a little",
            "Dettmers et al. 2022, arXiv 2110.02861",
        )
    if recipe.optimizer.kind == "muon":
        _explain_muon(notes)
    if state is None:
        notes.because(
            "base.optimizer_state",
            "fresh moments",
            f"{_MADE_NO_DIFFERENCE}; the first updates of fresh moments are as large as the "
            "rate, however small the gradient",
            REUSE,
        )
        return
    notes.because(
        "base.optimizer_state",
        f"taken over, {_updates(state)}",
        f"the base's moments and counts of updates go on; {_MADE_NO_DIFFERENCE}; its rate is not "
        "taken over: the schedule is this plan's",
        REUSE,
    )
    _warn_of_rates(recipe, schedule, notes)
    _warn_of_betas(recipe, state, notes)


def _explain_muon(notes: Notes) -> None:
    notes.because(
        "optimizer.kind",
        "muon",
        "updates of blocks' matrices are their momentum (0.95, Nesterov) with all singular values "
        "near 1, as large as AdamW's, so that rates and decay mean the same; embeddings, head, "
        "norms and biases are AdamW's",
        _MUON,
    )
    notes.warnings.append(
        'optimizer.kind = "muon" is experimental: the published rates and schedules, every '
        "preset's too, were found with AdamW, and for bases that AdamW pretrained that study saw "
        "no significant gain from changing to it. Compare it with AdamW first (rewarm compare; "
        "docs/optimizer.md)"
    )


def _updates(state: OptimizerStateFacts) -> str:
    if state.num_updates is None:
        return "updates as the file counts them"
    fewest, most = state.num_updates
    return f"{most:,} updates" if fewest == most else f"{fewest:,} to {most:,} updates"


def _warn_of_rates(recipe: Recipe, schedule: Schedule, notes: Notes) -> None:
    """Warn where the run rises above the rate at which the moments were formed, if it is known."""
    final = recipe.base.pretraining.final_lr
    peak = lr_at(schedule, peak_step(schedule))
    if final and peak > 1.001 * final:
        settled = round(1 / (1 - recipe.optimizer.betas[1]))
        notes.warnings.append(
            f"the moments of base.optimizer_state were formed at a rate of about {final:.4g}; this "
            f"run's peak is {peak / final:.3g} times that. They fit again after some {settled} "
            "updates; a warm-up (schedule.warmup_fraction) covers these"
        )


def _warn_of_betas(recipe: Recipe, state: OptimizerStateFacts, notes: Notes) -> None:
    if state.betas is not None and state.betas != recipe.optimizer.betas:
        notes.warnings.append(
            f"the moments of base.optimizer_state were taken with betas {list(state.betas)}, this "
            f"run goes on with {list(recipe.optimizer.betas)}"
        )
