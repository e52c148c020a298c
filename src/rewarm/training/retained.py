"""What holds on to the base in a launch: importance of weights, teacher, memory, anchor, average.

The importance of weights for old text (EWC) is estimated once, before a run's first step, at the
base; it lies in the run folder as checkpoints do, whole or in parts, hashed, and every later launch
reads it. It is told apart by a key of all that decides it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rewarm.artifacts import fingerprint, provenance, read_json, write_json
from rewarm.batches.loader import Batch, BatchLoader
from rewarm.distributed.fsdp import Root, local
from rewarm.distributed.tensor_files import fill, write_tensors
from rewarm.distributed.world import World
from rewarm.errors import CheckpointError, PlanError
from rewarm.model.head_loss import HeadLoss
from rewarm.model.trainable import let_train
from rewarm.order.position import OrderSpec
from rewarm.planning.plan import Placement, Plan, Science
from rewarm.planning.retention import fisher_order, memory_order
from rewarm.retention.anchor import Anchor
from rewarm.retention.average import Average
from rewarm.retention.distill import Distillation
from rewarm.retention.fisher import fisher_diagonal
from rewarm.retention.terms import Retention
from rewarm.training.checkpoint import CheckpointStore
from rewarm.training.materials import Materials, load_root
from rewarm.training.placement import VERSIONS_OF, autocast_of
from rewarm.training.sinks import Journal
from rewarm.training.state import TrainState, trained_at_some_time

__all__ = ["Retained"]

_FISHER = "fisher"
_FACTS = "fisher.json"
_STEP = 0
"""Importance is that at the base, before any step."""


@dataclass(frozen=True, slots=True)
class Retained:
    """What a launch holds of retention; `retention` goes to the steps."""

    science: Science
    world: World
    retention: Retention
    fisher: Path | None

    @classmethod
    def of(
        cls,
        plan: Plan,
        placement: Placement,
        materials: Materials,
        world: World,
        journal: Journal,
        notices: list[str],
    ) -> Retained:
        """Make what the plan asks for, or find it made; collective.

        Raises what loading a base does, and PlanError where gradients on old text are not finite.
        """
        return _Making(plan, placement, materials, world, journal, notices).all()

    def hold(self, state: TrainState) -> None:
        """Give a state that is at the base what it is pulled to, and its average; collective."""
        wanted = self.science.retention
        parameters = trained_at_some_time(state.model, self.science)
        if wanted.l2sp is not None or wanted.ewc is not None:
            state.anchor = Anchor.at(
                parameters.items(),
                l2sp=0.0 if wanted.l2sp is None else wanted.l2sp.weight,
                ewc=0.0 if wanted.ewc is None else wanted.ewc.weight,
                fisher=self._read_fisher(state),
            )
        if wanted.ema is not None:
            assert wanted.ema.decay is not None
            state.average = Average.at(parameters.items(), decay=wanted.ema.decay)

    def _read_fisher(self, state: TrainState) -> dict[str, Tensor]:
        if self.fisher is None:
            return {}
        parameters = trained_at_some_time(state.model, self.science)
        found = {name: torch.zeros_like(param).detach() for name, param in parameters.items()}
        fill(self.fisher, {_FISHER: found}, self.world)
        return found


@dataclass(frozen=True, slots=True)
class _Making:
    """Makes what a launch holds."""

    plan: Plan
    placement: Placement
    materials: Materials
    world: World
    journal: Journal
    notices: list[str]

    @property
    def science(self) -> Science:
        return self.plan.science

    def all(self) -> Retained:
        fisher = None if self.science.retention.ewc is None else self._ensure_fisher()
        retention = Retention(self._distillation(), self._memory())
        return Retained(self.science, self.world, retention, fisher)

    def _distillation(self) -> Distillation | None:
        recipe = self.science.retention.distill
        if recipe is None:
            return None
        loss = self.materials.loss
        assert isinstance(loss, HeadLoss), "a teacher needs a loss that shows what it is taken of"
        sources = frozenset(
            index for index, source in enumerate(self.science.sources) if source.name in recipe.on
        )
        teacher: Root | None = None
        if recipe.teacher == "live":
            teacher = self._load(frozenset()).eval()
        return Distillation(recipe, sources, loss, teacher)

    def _memory(self) -> BatchLoader | None:
        if self.science.retention.agem is None:
            return None
        return self._loader(
            memory_order(self.science), rank=self.world.data_rank, num_ranks=self.world.data_size
        )

    def _loader(self, order: OrderSpec, *, rank: int = 0, num_ranks: int = 1) -> BatchLoader:
        return BatchLoader(
            order,
            self.materials.views,
            sequence_length=self.science.sequence_length,
            vocab_size=self.plan.conduct.model.vocab_size,
            mask_documents=self.science.mask_documents,
            rank=rank,
            num_ranks=num_ranks,
        )

    def _load(self, names: frozenset[str] | None) -> Root:
        """Return the base; `names` require gradients, None: all that trains at some time."""

        def let(model: torch.nn.Module) -> None:
            wanted = names
            if wanted is None:
                wanted = frozenset(trained_at_some_time(model, self.science))
            let_train(model, wanted)

        return load_root(self.placement, self.materials, self.world, self.notices, let_train=let)

    def _ensure_fisher(self) -> Path:
        """Return the folder of the importance of weights, estimated now where it is not there."""
        run = self.journal.run
        store = CheckpointStore(run.fisher, keep=1, ranks=self.world.ranks)
        store.remove_leftovers()
        key = self._key_of_fisher()
        try:
            found = store.find_newest_verified().path
        except CheckpointError as error:
            problems = "; ".join(problem.what for problem in error.problems)
            self.journal.event("warning", 0, f"{run.fisher} is damaged ({problems}): made again")
            found = None
        if found is not None and self.world.ranks.on_main(lambda: _key_in(found)) == key:
            return found
        store.discard(store.paths())
        fisher = self._estimate_fisher()
        return store.save(_STEP, lambda folder: self._write_fisher(folder, key, fisher))

    def _key_of_fisher(self) -> str:
        science = self.science
        assert science.retention.ewc is not None
        return fingerprint(
            {
                "format": 1,
                "base": science.base_weights,
                "order": repr(fisher_order(science)),
                "text": [source.model_dump(mode="json") for source in science.memory],
                "sequence_length": science.sequence_length,
                "mask_documents": science.mask_documents,
                "parameters": science.parameters.model_dump(mode="json"),
                "stages": [stage.model_dump(mode="json") for stage in science.stages],
                "precision": science.precision,
            }
        )

    def _estimate_fisher(self) -> dict[str, Tensor]:
        recipe = self.science.retention.ewc
        assert recipe is not None
        root = self._load(None)
        parameters = list(trained_at_some_time(root.model, self.science).items())
        found = fisher_diagonal(
            root,
            parameters,
            self._sequences(recipe.sequences),
            self.materials.loss,
            labels_count=self.world.data_rank == 0,
            autocast=functools.partial(autocast_of, self.placement),
        )
        finite = [bool(local(tensor).isfinite().all()) for tensor in found.values()]
        if not all(all(of_rank) for of_rank in self.world.ranks.together(lambda: finite)):
            raise PlanError.one(
                "retention.ewc.fisher_from",
                f"the base's gradients on {recipe.fisher_from!r} are not finite",
                'name other text, or set training.precision = "float32"',
            )
        self.journal.event(
            "retention",
            0,
            f"importance of the weights estimated on {recipe.sequences} sequences of "
            f"{recipe.fisher_from}",
        )
        return found

    def _sequences(self, number: int) -> Iterator[Batch]:
        loader = self._loader(fisher_order(self.science))
        for index in range(number):
            yield loader.batch(index)
            self.materials.progress("importance of weights", index + 1, number)

    def _write_fisher(self, folder: Path, key: str, fisher: dict[str, Tensor]) -> None:
        write_tensors(folder, {_FISHER: fisher}, self.world)
        if self.world.is_main:
            recipe = self.science.retention.ewc
            assert recipe is not None
            facts = {
                "key": key,
                "base_weights": self.science.base_weights,
                "source": recipe.fisher_from,
                "sequences": recipe.sequences,
                "tokens": recipe.sequences * self.science.sequence_length,
                "num_ranks": self.world.size,
                "provenance": provenance(VERSIONS_OF),
            }
            write_json(folder / _FACTS, facts)


def _key_in(folder: Path) -> object:
    return read_json(
        folder / _FACTS, what="what the importance of weights is of", error=CheckpointError
    ).get("key")
