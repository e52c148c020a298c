"""Many processes that were launched for one command: who may, and how they find each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rewarm.distributed.world import World, join, launched_world
from rewarm.errors import FaultElsewhere, RewarmError
from rewarm.recipe.steps import TrainingRecipe
from rewarm.stages.job import open_job, open_run
from rewarm.training.placement import choose_device

__all__ = ["join_ranks"]


@contextmanager
def join_ranks(path: Path, overrides: Sequence[str]) -> Iterator[World]:
    """Join the ranks of this launch for the length of a block; a single process stays alone.

    Raises EnvironmentFault where they do not find each other, and what a recipe or run folder that
    cannot be read raises: the same on every rank, told by the main one.
    """
    world = launched_world()
    if world.is_alone:
        yield world
        return
    try:
        training = _training_of(path, overrides)
        device_type = choose_device(training.device).type
    except RewarmError as error:
        if world.is_main:
            raise
        raise FaultElsewhere(0, str(error), error.exit_code) from error
    with join(world, device_type=device_type, timeout_s=training.rank_timeout_s) as joined:
        yield joined


def _training_of(path: Path, overrides: Sequence[str]) -> TrainingRecipe:
    if path.is_dir():
        return open_run(path, overrides)[0].conduct.training
    return open_job(path, overrides).recipe.training
