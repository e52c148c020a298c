"""What a stage hands a launch, and the base as it is loaded onto the launch's ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from rewarm.batches.loader import StoredDistributions, WindowSource
from rewarm.distributed.fsdp import Root, blocks_of, make_mesh, reshard, shard
from rewarm.distributed.world import World
from rewarm.model.blocks import checkpoint_blocks
from rewarm.planning.plan import Placement
from rewarm.training.forgetting import FindForgetting
from rewarm.training.hooks import Evaluator, Hook
from rewarm.training.laps import Laps
from rewarm.training.placement import apply_placement, blocks_dtype
from rewarm.training.sinks import Sink
from rewarm.training.spans import Spans
from rewarm.training.state import TrainState
from rewarm.training.step import TokenLoss

__all__ = ["Materials", "load_root"]


@dataclass(frozen=True, slots=True)
class Materials:
    """What the stage hands in: how to get the base, the objective, the text, the measures.

    `load_model` may leave parameters on the meta device; `fill_model` then sets them, once the
    model is sharded over the ranks, and returns what to tell people; `settled` then says what of a
    placement the model has borne out, and that is recorded. `begin_optimizer` sets the moments
    that a run begins with where these are not zeros. `views` has all text that the plan reads,
    `stored` what the base said of some of it. `progress` is told (what, done, total) of work before
    the first step. `laps` times what comes before it, `spans` the parts of steps. `find_forgetting`
    reads the records of evaluations, where something is to be done about what they show.
    """

    load_model: Callable[[], nn.Module]
    loss: TokenLoss
    views: Mapping[str, WindowSource]
    evaluator: Evaluator | None = None
    sinks: Sequence[Sink] = ()
    hooks: Sequence[Hook] = ()
    fill_model: Callable[[Root], Sequence[str]] = lambda root: ()
    settled: Callable[[Placement], Placement] = lambda placement: placement
    begin_optimizer: Callable[[TrainState], None] = lambda state: None
    stored: Mapping[str, StoredDistributions] = field(default_factory=dict)
    progress: Callable[[str, int, int], None] = lambda what, done, total: None
    find_forgetting: FindForgetting | None = None
    laps: Laps = field(default_factory=Laps)
    spans: Spans = field(default_factory=Spans)


def load_root(
    placement: Placement,
    materials: Materials,
    world: World,
    notices: list[str],
    *,
    let_train: Callable[[nn.Module], None],
) -> Root:
    """Return the base on this launch's ranks, in training mode; collective.

    `let_train` says which of its parameters require gradients, before it is sharded. What is to be
    told is added to `notices`, once.
    """
    apply_placement(placement)
    materials.laps.lap("checkpoints searched")
    model = materials.load_model()
    let_train(model)
    checkpoint_blocks(blocks_of(model), placement.checkpointing)
    if world.is_alone:
        root = Root(model.to(placement.device))
    else:
        mesh = make_mesh(world, placement.device)
        root = shard(model, mesh, param_dtype=blocks_dtype(placement))
    materials.laps.lap("base loaded")
    notices.extend(notice for notice in materials.fill_model(root) if notice not in notices)
    materials.laps.lap("loss and attention held against the model's own")
    # What looked at the model may have gathered it; the optimizer's weights are the parts.
    reshard(root)
    return root.train()
