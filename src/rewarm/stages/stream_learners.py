"""Which class stands for which name of an algorithm, and which for which memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rewarm.stream.experiment import LearnerRecipe, MemoryRecipe, StreamExperiment
from rewarm.stream.holding import (
    Contrastive,
    ElasticWeights,
    IncrementalClassifier,
    WithoutForgetting,
)
from rewarm.stream.learning import Indices, Learner, Learning
from rewarm.stream.memory import ClassBalanced, Memory, Reservoir
from rewarm.stream.rehearsing import (
    AGem,
    DiverseGradients,
    FineTune,
    GDumb,
    Joint,
    MaximallyInterfered,
    Replay,
)

__all__ = ["BuiltLearner", "build_learner", "memory_of"]


@dataclass(frozen=True, slots=True)
class BuiltLearner:
    """A learner, and what tells the examples that a second stage trains on."""

    learner: Learner
    kept: Callable[[], Indices]


def memory_of(recipe: MemoryRecipe, seed: int) -> Memory:
    """Return an empty memory."""
    kind = Reservoir if recipe.kind == "reservoir" else ClassBalanced
    return kind(recipe.size, np.random.default_rng((seed, 4)))


def build_learner(
    recipe: LearnerRecipe, experiment: StreamExperiment, learning: Learning, seed: int
) -> BuiltLearner:
    """Return the learner of a recipe.

    GDumb's memory is class-balanced whatever the experiment's is: that is what it is.
    """
    if recipe.algorithm == "gss":
        diverse = DiverseGradients(learning, experiment.memory.size, recipe.compared)
        return BuiltLearner(diverse, lambda: np.asarray(diverse.kept, dtype=np.int64))
    if recipe.algorithm == "gdumb":
        balanced = experiment.memory.model_copy(update={"kind": "class-balanced"})
        learning.memory = memory_of(balanced, seed)
    return BuiltLearner(_learner(recipe, experiment, learning, seed), learning.memory.kept)


def _learner(
    recipe: LearnerRecipe, experiment: StreamExperiment, learning: Learning, seed: int
) -> Learner:
    scenario = experiment.scenario
    makers: dict[str, Callable[[], Learner]] = {
        "fine-tune": lambda: FineTune(learning),
        "joint": lambda: Joint(learning, scenario.batch, scenario.num_epochs),
        "er": lambda: Replay(learning),
        "mir": lambda: MaximallyInterfered(learning, recipe.candidates),
        "a-gem": lambda: AGem(learning),
        "lwf": lambda: WithoutForgetting(learning, recipe.temperature or 2.0),
        "ewc++": lambda: ElasticWeights(
            learning, ewc=recipe.ewc, decay=recipe.fisher_decay, every=recipe.fisher_every
        ),
        "icarl": lambda: IncrementalClassifier(learning),
        "gdumb": lambda: GDumb(learning, recipe.memory_epochs),
        "scr": lambda: Contrastive(learning, recipe.temperature or 0.07, seed),
    }
    return makers[recipe.algorithm]()
