"""Which class stands for which name of an algorithm, and which for which memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rewarm.stream.experiment import StreamExperiment
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
from rewarm.stream.sections import LearnerRecipe, MemoryRecipe
from rewarm.stream.state import STATELESS, Resumable

__all__ = ["BuiltLearner", "build_learner", "memory_of"]


@dataclass(frozen=True, slots=True)
class BuiltLearner:
    """A learner, what it knows beside the network, and what a second stage trains on."""

    learner: Learner
    own: Resumable
    kept: Callable[[], Indices]


def memory_of(recipe: MemoryRecipe) -> Memory:
    """Return an empty memory."""
    kind = Reservoir if recipe.kind == "reservoir" else ClassBalanced
    return kind(recipe.size)


def build_learner(
    recipe: LearnerRecipe, experiment: StreamExperiment, learning: Learning, seed: int
) -> BuiltLearner:
    """Return the learner of a recipe.

    GDumb's memory is class-balanced whatever the experiment's is: that is what it is.
    """
    scenario, kept = experiment.scenario, learning.memory.kept
    match recipe.algorithm:
        case "gss":
            diverse = DiverseGradients(learning, experiment.memory.size, recipe.compared)
            return BuiltLearner(diverse, diverse, lambda: np.asarray(diverse.kept, dtype=np.int64))
        case "gdumb":
            learning.memory = ClassBalanced(experiment.memory.size)
            gdumb = GDumb(learning, recipe.memory_epochs)
            return BuiltLearner(gdumb, STATELESS, learning.memory.kept)
        case "joint":
            joint = Joint(learning, scenario.batch, scenario.num_epochs)
            return BuiltLearner(joint, joint, kept)
        case "lwf":
            lwf = WithoutForgetting(learning, recipe.temperature or 2.0)
            return BuiltLearner(lwf, lwf, kept)
        case "ewc++":
            ewc = ElasticWeights(
                learning, ewc=recipe.ewc, decay=recipe.fisher_decay, every=recipe.fisher_every
            )
            return BuiltLearner(ewc, ewc, kept)
        case "icarl":
            icarl = IncrementalClassifier(learning)
            return BuiltLearner(icarl, icarl, kept)
        case "scr":
            scr = Contrastive(learning, recipe.temperature or 0.07, seed)
            return BuiltLearner(scr, scr, kept)
    makers: dict[str, Callable[[], Learner]] = {
        "fine-tune": lambda: FineTune(learning),
        "er": lambda: Replay(learning),
        "mir": lambda: MaximallyInterfered(learning, recipe.candidates),
        "a-gem": lambda: AGem(learning),
    }
    return BuiltLearner(makers[recipe.algorithm](), STATELESS, kept)
