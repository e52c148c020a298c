"""What a launch trains on and is measured by, as its placement says and the base bears out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from rewarm.distributed.fsdp import Root, blocks_of
from rewarm.distributed.world import ALONE, World
from rewarm.evaluation.likelihood import Progress, Within, evaluate
from rewarm.evaluation.suite import EvaluationSuite
from rewarm.model.chunked_loss import GPU_CHUNK_BYTES
from rewarm.model.compiled import compile_blocks
from rewarm.model.head_loss import HeadLoss
from rewarm.model.liger_loss import liger_nats
from rewarm.model.packing import DocumentAttention, check_documents_apart
from rewarm.planning.plan import Placement, Plan
from rewarm.records.facts import EvalRecord
from rewarm.training.placement import autocast_dtype, autocast_of, roads_of

__all__ = ["MoreTasks", "Objective"]


class MoreTasks(Protocol):
    """What is measured beside the suite: lm-evaluation-harness."""

    def measure(
        self,
        model: nn.Module,
        *,
        step: int,
        autocast_dtype: torch.dtype | None,
        within: Within | None,
        world: World,
    ) -> list[EvalRecord]:
        """Return the records of a model after `step` updates; collective."""
        ...

    def are_in(self, records: Iterable[EvalRecord]) -> bool:
        """Tell whether each task has a record among these."""
        ...


@dataclass(frozen=True, slots=True)
class Objective:
    """Loss and document attention of a launch; the plain ones until `settle` was called."""

    plan: Plan
    placement: Placement
    world: World
    loss: HeadLoss
    attention: DocumentAttention
    _uncompiled: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, plan: Plan, placement: Placement, world: World = ALONE) -> Objective:
        """Return the objective of a placement."""
        device = torch.device(placement.device)
        training, model = plan.conduct.training, plan.conduct.model
        return cls(
            plan,
            placement,
            world,
            HeadLoss(
                liger_nats if placement.loss == "liger" else None,
                chunk_bytes=None if device.type == "cpu" else GPU_CHUNK_BYTES,
            ),
            DocumentAttention(
                roads_of(training, device, placement.autocast_dtype, model),
                sequence_length=plan.science.sequence_length,
            ),
        )

    def settle(self, root: Root) -> list[str]:
        """Hold a base that is to be trained against its own mask and logits; return what to tell.

        Raises BaseModelError where its documents cannot be kept apart. Collective.
        """
        notices: list[str] = []
        with autocast_of(self.placement):
            if self.plan.science.mask_documents:
                notices += self.attention.settle(root.model, within=root, agree=self._first)
                vocab_size = self.plan.conduct.model.vocab_size
                # Together: it fails on all ranks alike, and one of them tells why.
                self.world.ranks.together(
                    lambda: check_documents_apart(root.model, vocab_size=vocab_size, within=root)
                )
            elif torch.device(self.placement.device).type == "cuda":
                # Where it cannot be used the model waits for the device now and then: not told.
                self.attention.settle_whole(root.model, within=root, agree=self._first)
        # Not in half precision, which some kernels that keep documents apart ask for.
        with self.attention.as_loaded(root.model):
            notices += self._settle_loss(root.model, within=root, trains=True)
        return notices + self._compile(root)

    def _compile(self, root: Root) -> list[str]:
        """Compile the blocks, where the placement says so; return what to tell."""
        placement, science = self.placement, self.plan.science
        if not placement.compiled:
            return []
        with autocast_of(placement):
            why = compile_blocks(
                root.model,
                blocks_of(root.model),
                placement.checkpointing,
                shape=(placement.micro_batch_sequences, science.sequence_length),
                mask_documents=science.mask_documents,
                within=root,
                trains_alike=not self.plan.conduct.model.dropout,
                agree=self._first,
            )
            num_tokens = placement.micro_batch_sequences * science.sequence_length
            if why is not None:
                self._uncompiled.append(why)
                return [f"blocks are not compiled: {why}"]
            why = self._first(self.loss.compile(root.model, num_tokens, within=root))
        return [] if why is None else [f"the loss is not compiled: {why}"]

    def settled(self, placement: Placement) -> Placement:
        """Return a placement with the road and the loss that the base has borne out."""
        found: dict[str, object] = {}
        if placement.document_attention is not None:
            found["document_attention"] = self.attention.taken
        if not self.loss.agrees:
            found["loss"] = "plain"
        if self._uncompiled:
            found["compiled"] = False
        return placement.model_copy(update=found)

    def settle_measures(self, model: nn.Module) -> list[str]:
        """Hold a model that is only measured against its own logits; return what to tell."""
        return self._settle_loss(model, within=None, trains=False)

    def measure(
        self,
        model: nn.Module,
        suite: EvaluationSuite,
        *,
        step: int,
        within: Callable[..., Any] | None = None,
        progress: Progress | None = None,
        more: MoreTasks | None = None,
    ) -> list[EvalRecord]:
        """Return what an evaluation of the model after `step` updates finds; collective."""
        with self.attention.as_loaded(model):
            found = evaluate(
                model,
                suite,
                step=step,
                losses=self.loss.token_losses,
                autocast_dtype=autocast_dtype(self.placement),
                within=within,
                progress=progress,
                world=self.world,
            )
            if more is not None:
                found += more.measure(
                    model,
                    step=step,
                    autocast_dtype=autocast_dtype(self.placement),
                    within=within,
                    world=self.world,
                )
            return found

    def _settle_loss(
        self, model: nn.Module, *, within: Callable[..., Any] | None, trains: bool
    ) -> list[str]:
        if self.placement.loss == "plain":
            return []
        why = self.loss.settle(model, within=within, trains=trains)
        return [] if why is None else [f"the plain loss is used, all logits at once: {why}"]

    def _first(self, why: str | None) -> str | None:
        """Return the first reason that any rank has."""
        reasons = self.world.ranks.together(lambda: why)
        return next((reason for reason in reasons if reason is not None), None)
