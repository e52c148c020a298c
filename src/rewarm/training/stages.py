"""What trains now: the stage of a state, and the optimizer over exactly its parameters.

A checkpoint of step m holds the moments of what was trained in step m − 1. Whoever goes on from it
builds that optimizer, reads it strictly, and then turns to the stage of step m: parameters that
still train keep their moments and counts, those that begin to start from zero, those that stop
lose theirs. So a run that is resumed at a milestone and one that passes it are the same.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import nn
from torch.optim import Optimizer

from rewarm.model.trainable import let_train, trained_in
from rewarm.planning.amendments import Amendments
from rewarm.planning.plan import Science
from rewarm.planning.trainable import Stage, is_embedding, layer_of, layer_rate_scale
from rewarm.training.optimizer import build_optimizer, named_parameters, set_learning_rate
from rewarm.training.state import TrainState

__all__ = ["begin_stage", "let_train_at", "optimizer_before", "set_rates", "turn_to_stage"]


def let_train_at(model: nn.Module, science: Science, step: int, amendments: Amendments) -> None:
    """Let exactly the parameters of a step's stage require gradients; before a model is sharded.

    FSDP remembers from a parameter's first use whether it takes a gradient.
    """
    let_train(model, _trained_at(model, science, science.stage_at(step, amendments)))


def optimizer_before(
    model: nn.Module, science: Science, step: int, amendments: Amendments
) -> Optimizer:
    """Return the optimizer, all zeros, of the step before `step`: what a checkpoint there holds."""
    stage = science.stage_at(max(0, step - 1), amendments)
    return _optimizer(model, science, _trained_at(model, science, stage))


def begin_stage(state: TrainState, science: Science) -> Stage:
    """Give a state the optimizer of its step's stage, moments of what goes on training kept."""
    stage = science.stage_at(state.step, state.amendments)
    names = _trained_at(state.model, science, stage)
    before = dict(named_parameters(state.optimizer))
    if names == before.keys():
        return stage
    optimizer = _optimizer(state.model, science, names)
    for name, parameter in named_parameters(optimizer):
        if name in before:
            optimizer.state[parameter] = state.optimizer.state[before[name]]
    state.optimizer = optimizer
    return stage


def turn_to_stage(state: TrainState, science: Science) -> Stage:
    """Turn a state in this process to its step's stage, in place."""
    let_train_at(state.model, science, state.step, state.amendments)
    return begin_stage(state, science)


def set_rates(optimizer: Optimizer, science: Science, step: int) -> None:
    """Set the rate of a step's update: the schedule's, by layer where layers have rates of their
    own (FreezeOut).
    """
    freezing, progress = science.freezing, step / science.num_steps
    set_learning_rate(
        optimizer,
        science.lr(step),
        scale=lambda layer: layer_rate_scale(freezing, layer, science.num_layers, progress),
    )


def _trained_at(model: nn.Module, science: Science, stage: Stage) -> frozenset[str]:
    return trained_in(model, science.parameters, stage, seed=science.seed)


def _optimizer(model: nn.Module, science: Science, names: Collection[str]) -> Optimizer:
    chosen = [(name, param) for name, param in model.named_parameters() if name in names]
    by_layer = science.freezing.kind == "freezeout" and science.freezing.scale_rate
    return build_optimizer(chosen, science.optimizer, layer_of=_rate_layer if by_layer else None)


def _rate_layer(name: str) -> int | None:
    """Return the layer whose rate a parameter has: the embeddings go with the lowest."""
    return 0 if is_embedding(name) else layer_of(name)
