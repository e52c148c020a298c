"""The shape of a run: sequence length, batch and number of steps, from recipe and base."""

from __future__ import annotations

from dataclasses import dataclass

from rewarm.errors import Problems
from rewarm.planning.budget import note_micro_batch
from rewarm.planning.known_bases import with_known_base
from rewarm.planning.notes import Notes
from rewarm.planning.tensor_parallel import note_tensor_parallel
from rewarm.recipe.schema import Recipe
from rewarm.records.facts import ModelFacts
from rewarm.units import format_count, steps_for_tokens

__all__ = ["Size", "resolve_size", "sequence_length_of"]

_DEFAULT_SEQUENCE_LENGTH = 2048
# Pretraining from scratch takes a million; beyond this the curve alone fills the memory.
_MOST_STEPS = 50_000_000


@dataclass(frozen=True, slots=True)
class Size:
    """Shape of the run: how long a sequence, how many in a step, how many steps."""

    sequence_length: int
    sequences_per_step: int
    num_steps: int

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step."""
        return self.sequence_length * self.sequences_per_step


def resolve_size(recipe: Recipe, model: ModelFacts | None, notes: Notes) -> Size | None:
    """Return sequence length, batch and steps; a number of the person's is never adjusted.

    None where a problem was noted, or where the length is the base's to say and there is none.
    """
    before = len(notes.problems)
    length = _resolve_length(recipe, model, notes)
    if length is not None and recipe.batch.tokens % length:
        below = recipe.batch.tokens // length * length
        notes.problems.add(
            "batch.tokens",
            f"{recipe.batch.tokens} tokens are not a whole number of sequences of {length}",
            f"use {below + length}" + (f" or {below}" if below else ""),
        )
    elif length is not None and recipe.training.micro_batch_sequences is not None:
        note_micro_batch(
            recipe.training.micro_batch_sequences, recipe.batch.tokens // length, notes.problems
        )
    note_tensor_parallel(recipe, model, notes.problems)
    num_steps = steps_for_tokens(recipe.budget.tokens, recipe.batch.tokens)
    if num_steps < 1:
        notes.problems.add(
            "budget.tokens",
            f"{recipe.budget.tokens} tokens do not pay for one step of {recipe.batch.tokens}",
            "raise budget.tokens or lower batch.tokens",
        )
    if num_steps > _MOST_STEPS:
        notes.problems.add(
            "batch.tokens",
            f"{recipe.batch.tokens} a step make {num_steps:,} steps of the budget",
            f"use at least {-(-recipe.budget.tokens // _MOST_STEPS)}; usual are half a million to "
            "several millions",
        )
    if len(notes.problems) > before or length is None:
        return None
    left = recipe.budget.tokens - num_steps * recipe.batch.tokens
    notes.because(
        "steps",
        num_steps,
        f"budget of {format_count(recipe.budget.tokens)} tokens / {recipe.batch.tokens} per step"
        + (f"; {left} tokens are left over, less than a step" if left else ""),
        "floor(budget / batch)",
    )
    return Size(length, recipe.batch.tokens // length, num_steps)


def sequence_length_of(recipe: Recipe, model: ModelFacts | None) -> int | None:
    """Return the tokens of a sequence as a plan of this recipe has them; None where it has none,
    or where they are more than the base has positions."""
    notes = Notes(problems=Problems())
    length = _resolve_length(with_known_base(recipe, model, notes), model, notes)
    return None if notes.problems else length


def _resolve_length(recipe: Recipe, model: ModelFacts | None, notes: Notes) -> int | None:
    """Return the tokens of a sequence; None where only the base could say, and there is none."""
    known = recipe.base.pretraining.sequence_length
    length = recipe.batch.sequence_length
    if length is not None:
        notes.because("batch.sequence_length", length, "as the recipe says")
    elif known is not None:
        length = known
        notes.because("batch.sequence_length", length, "the length of the base's pretraining")
    elif model is not None:
        length = min(model.max_positions, _DEFAULT_SEQUENCE_LENGTH)
        notes.because(
            "batch.sequence_length",
            length,
            f"the base's largest position, at most {_DEFAULT_SEQUENCE_LENGTH}",
            "config.json",
        )
    if model is not None and length is not None and length > model.max_positions:
        notes.problems.add(
            "batch.sequence_length",
            f"{length} is beyond the base's {model.max_positions} positions",
            f"use at most {model.max_positions}",
        )
    return length
